//! The program is killed, at every place where it makes something durable and at random ones, and started again until
//! it ends by itself. What it wrote must be what one uninterrupted run writes, row for row.
//!
//! A short form runs always. `HIGHWATER_CRASHES=all` kills at every place, and as often again at random;
//! `HIGHWATER_CRASHES=N` N times at random.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use highwater::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::common::canonical;

pub(super) const FILES: usize = 8;

/// A directory with input, and the job over it.
pub(super) struct Job {
    pub(super) dir: tempfile::TempDir,
    /// What the program finds in its environment besides.
    pub(super) environment: Vec<(&'static str, String)>,
}

/// Rows that arrive out of order: within a file the event time wanders over half a minute, and the last file takes it
/// far on, so that most windows close.
fn rows(file: usize, random: &mut StdRng) -> String {
    let mut text = String::new();
    for _ in 0..60 {
        let second = file * 12 + random.random_range(0..30);
        let second = match (random.random_range(0..6), file + 1 == FILES) {
            (0, _) => second.saturating_sub(45), // late, but for the first files
            (_, true) => second + 400,
            _ => second,
        };
        let (minute, second) = (second / 60, second % 60);
        let key = ["a", "b", "c"][random.random_range(0..3)];
        text.push_str(&format!(
            "{{\"k\":\"{key}\",\"v\":{},\"ts\":\"2024-01-01 00:{minute:02}:{second:02}\"}}\n",
            random.random_range(0..40)
        ));
    }
    text
}

impl Job {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut random = StdRng::seed_from_u64(7);
        fs::create_dir(dir.path().join("in")).expect("made");
        for file in 0..FILES {
            let path = dir.path().join(format!("in/{file:02}.json"));
            fs::write(path, rows(file, &mut random)).expect("written");
        }
        let job = "
CREATE TABLE ev (k STRING, v BIGINT, ts TIMESTAMP) USING json OPTIONS (path 'in', maxFilesPerTrigger '1');
CREATE VIEW big AS SELECT * FROM ev WHERE v > 10;
CREATE STREAMING TABLE etl USING parquet
  OPTIONS (path 'out/etl', checkpointLocation 'ck/etl', trigger 'availableNow', checkpointInterval '0 seconds',
           commitInterval '0 seconds')
  PARTITIONED BY (k) AS SELECT k, v FROM STREAM big;
CREATE STREAMING TABLE win USING parquet
  OPTIONS (path 'out/win', checkpointLocation 'ck/win', outputMode 'append', trigger 'availableNow',
           checkpointInterval '0 seconds', commitInterval '20 milliseconds',
           lateRows 'late', lateRowsPath 'out/late')
  AS SELECT window(ts, '10 seconds').start AS s, k, count(*) AS c, sum(v) AS t
     FROM STREAM ev WATERMARK ts DELAY OF INTERVAL 5 SECONDS GROUP BY window(ts, '10 seconds'), k;
";
        fs::write(dir.path().join("job.sql"), job).expect("written");
        Job {
            dir,
            environment: Vec::new(),
        }
    }

    /// Forgets what was written.
    pub(super) fn fresh(&self) {
        for sub in ["out", "ck"] {
            let _ = fs::remove_dir_all(self.dir.path().join(sub));
        }
    }

    pub(super) fn start(&self, flags: &[&str], crash_at: Option<&str>) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        command
            .current_dir(self.dir.path())
            .args(["run", "job.sql"])
            .args(flags)
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.dir.path().join("stderr")).expect("made"))
            .env_remove("HIGHWATER_SECRET")
            .env_remove("HIGHWATER_SOCKETS")
            .env("HIGHWATER_CRASH_AT", crash_at.unwrap_or_default())
            .envs(self.environment.clone());
        command.spawn().expect("the program starts")
    }

    pub(super) fn stderr(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default()
    }

    /// Runs to the end: false if the program was killed.
    pub(super) fn run(&self, flags: &[&str], crash_at: Option<&str>) -> bool {
        let mut child = self.start(flags, crash_at);
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("waited") {
                break status;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(120),
                "the program hangs ({flags:?}, {crash_at:?}): {}",
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(3));
        };
        if status.success() {
            return true;
        }
        assert!(
            crash_at.is_some(),
            "the program failed ({flags:?}): {}",
            self.stderr()
        );
        false
    }

    /// What is in all outputs, by our reader; and that whoever lists the directories sees the same.
    pub(super) fn answer(&self, session: &Session) -> [Vec<String>; 3] {
        let answer = self.committed(session);
        for (table, rows) in ["etl", "win", "late"].iter().zip(&answer) {
            let listed = listed(&self.dir.path().join("out").join(table));
            assert_eq!(listed, rows.len(), "rows in the listed files of {table}");
        }
        answer
    }

    /// What is in all outputs, by our reader. Unlike a listing it can be asked while the job runs.
    pub(super) fn committed(&self, session: &Session) -> [Vec<String>; 3] {
        let tables = [
            ("etl", "v BIGINT, k STRING"),
            ("win", "s TIMESTAMP, k STRING, c BIGINT, t BIGINT"),
            ("late", "k STRING, v BIGINT, ts TIMESTAMP"),
        ];
        tables.map(|(table, columns)| {
            let path = self.dir.path().join("out").join(table);
            if !path.exists() {
                return Vec::new();
            }
            let read = || {
                // Where no row was late there is no file to tell the columns.
                let reader = session.read().format("parquet").schema(columns)?;
                let frame = reader.path(&path).load()?;
                frame.create_or_replace_temp_view(table)?;
                let names = columns
                    .split(", ")
                    .map(|c| c.split_once(' ').expect("a type").0);
                let names: Vec<&str> = names.collect();
                session
                    .sql(&format!("SELECT {} FROM {table}", names.join(", ")))?
                    .collect()
            };
            canonical(&read().unwrap_or_else(|error| panic!("{table}: {error}")))
        })
    }
}

/// The rows of all Parquet files that a listing shows.
fn listed(dir: &Path) -> usize {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let mut rows = 0;
    if !dir.exists() {
        return rows;
    }
    for entry in fs::read_dir(dir).expect("listed") {
        let path: PathBuf = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("named")
            .to_string_lossy()
            .into_owned();
        if name.starts_with(['_', '.']) {
            continue;
        }
        if path.is_dir() {
            rows += listed(&path);
            continue;
        }
        let file = fs::File::open(&path).expect("opened");
        let reader = SerializedFileReader::new(file).unwrap_or_else(|e| panic!("{name}: {e}"));
        rows += reader.metadata().file_metadata().num_rows() as usize;
    }
    rows
}

fn budget() -> Option<String> {
    std::env::var("HIGHWATER_CRASHES").ok()
}

/// Kills the program at the `n`th place for each `n` of `places`, and starts it again; on every third the second run
/// is killed too. Ends when the program outlives a place. Returns how often it was killed.
fn at_places(flags: &[&str], places: impl Iterator<Item = usize>) -> usize {
    let session = Session::with_workers(2).expect("a session");
    let job = Job::new();
    assert!(job.run(flags, None));
    let expected = job.answer(&session);
    assert!(
        expected[0].len() > 100 && expected[1].len() > 10 && expected[2].len() > 10,
        "{expected:?}"
    );
    let mut kills = 0;
    for n in places {
        job.fresh();
        if job.run(flags, Some(&format!("*:{n}"))) {
            return kills;
        }
        kills += 1;
        if n % 3 == 0 && !job.run(flags, Some(&format!("*:{}", n / 2 + 1))) {
            kills += 1;
        }
        assert!(job.run(flags, None));
        assert_eq!(job.answer(&session), expected, "killed at {n}, {flags:?}");
    }
    kills
}

/// Kills the program `count` times after random times, and lets it end.
fn at_random(flags: &[&str], count: usize, seed: u64) {
    let session = Session::with_workers(2).expect("a session");
    let job = Job::new();
    assert!(job.run(flags, None));
    let expected = job.answer(&session);
    let mut random = StdRng::seed_from_u64(seed);
    let mut kills = 0;
    while kills < count {
        job.fresh();
        loop {
            let mut child = job.start(flags, None);
            std::thread::sleep(Duration::from_millis(random.random_range(20..900)));
            let ended = child.try_wait().expect("waited").is_some();
            let _ = child.kill();
            let _ = child.wait();
            if ended {
                break;
            }
            kills += 1;
        }
        assert!(job.run(flags, None));
        assert_eq!(
            job.answer(&session),
            expected,
            "{kills} kills, seed {seed}, {flags:?}"
        );
    }
}

#[test]
fn a_kill_at_any_durable_write_changes_nothing() {
    let all = budget().as_deref() == Some("all");
    // Places repeat from epoch to epoch: a step that shares no factor with their number meets all kinds of them.
    let step = if all { 1 } else { 31 };
    let kills = at_places(&["-w", "2"], (1..).step_by(step));
    println!("killed {kills} times");
    assert!(kills >= if all { 50 } else { 5 }, "only {kills} kills");
}

#[test]
fn a_kill_of_two_processes_changes_nothing() {
    let all = budget().as_deref() == Some("all");
    let step = if all { 1 } else { 59 };
    // A sister that dies would be started again, which is another test.
    let kills = at_places(&["-n", "2", "--restarts", "0"], (1..).step_by(step));
    println!("killed {kills} times");
    assert!(kills >= if all { 50 } else { 2 }, "only {kills} kills");
}

#[test]
fn a_kill_at_any_moment_changes_nothing() {
    let count = match budget().as_deref() {
        // As many by kill -9 as there are places.
        Some("all") => 150,
        other => other.and_then(|text| text.parse().ok()).unwrap_or(4),
    };
    at_random(&["-w", "2"], count, 11);
    at_random(&["-w", "1", "-n", "2"], count, 12);
}

/// A file of which a row was wrong is longer once it is mended, so its epoch is planned anew.
#[test]
fn a_kill_while_a_mended_file_is_taken_up_changes_nothing() {
    let all = budget().as_deref() == Some("all");
    let session = Session::with_workers(2).expect("a session");
    let job = Job::new();
    let sql = job.dir.path().join("job.sql");
    let text = fs::read_to_string(&sql).expect("read");
    let strict = "maxFilesPerTrigger '1', mode 'FAILFAST'";
    fs::write(&sql, text.replace("maxFilesPerTrigger '1'", strict)).expect("written");
    let file = job.dir.path().join("in/03.json");
    let right = fs::read_to_string(&file).expect("read");
    // Its turn among the others stays.
    let modified = fs::metadata(&file).and_then(|file| file.modified());
    let modified = modified.expect("told");
    let put = |text: &str| {
        fs::write(&file, text).expect("written");
        let opened = fs::File::options().append(true).open(&file);
        let set = opened.and_then(|file| file.set_modified(modified));
        set.expect("set");
    };
    let flags = ["-w", "2"];
    let mut kills = 0;
    assert!(job.run(&flags, None));
    let expected = job.answer(&session);
    let half = right.lines().take(30).map(|line| format!("{line}\n"));
    let wrong = half.chain(["wrong\n".to_string()]).collect::<String>();
    for n in (1..).step_by(if all { 1 } else { 61 }) {
        job.fresh();
        put(&wrong);
        assert!(!job.run(&flags, Some("")), "a wrong row ends it");
        put(&right);
        let killed = !job.run(&flags, Some(&format!("*:{n}")));
        kills += usize::from(killed);
        assert!(job.run(&flags, None), "{}", job.stderr());
        assert_eq!(job.answer(&session), expected, "killed at {n}");
        if !killed {
            break;
        }
    }
    println!("killed {kills} times");
    assert!(kills >= if all { 30 } else { 2 }, "only {kills} kills");
}
