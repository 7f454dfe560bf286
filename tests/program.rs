//! The program `highwater` as a user meets it: answers, several processes, bad input, lost processes, idleness.

#![allow(clippy::disallowed_methods, reason = "a test gives up after a time")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn highwater() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("HIGHWATER_SECRET")
        .env_remove("HIGHWATER_SOCKETS");
    command
}

fn run(args: &[&str]) -> Output {
    highwater().args(args).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The rows of the tables that a run printed, sorted.
fn rows(printed: &[u8]) -> Vec<String> {
    let mut rows: Vec<String> = text(printed)
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(str::to_string)
        .collect();
    rows.sort();
    rows
}

/// Writes statements to a file that is gone with the directory.
fn sql(dir: &Path, statements: &str) -> String {
    let path = dir.join("query.sql");
    fs::write(&path, statements).expect("written");
    path.display().to_string()
}

#[test]
fn any_number_of_workers_and_processes_gives_the_same_answer() {
    let one = run(&["--available-now", "examples/word_count.sql"]);
    assert!(one.status.success(), "{}", text(&one.stderr));
    let expected = rows(&one.stdout);
    assert_eq!(
        expected.len(),
        21,
        "a header and the first 20 words: {}",
        text(&one.stdout)
    );
    let dir = tempfile::tempdir().expect("a directory");
    // Enough groups that the console would cut them: count words and their total over all.
    let file = sql(
        dir.path(),
        "CREATE STREAMING TEMP VIEW lines USING text OPTIONS (path 'examples/data/words', maxFilesPerTrigger 1);
         SELECT count(*) AS n, sum(length(word)) AS letters, min(word) AS first, max(word) AS last
         FROM (SELECT explode(split(value, ' ')) AS word FROM lines)",
    );
    let reference = rows(&run(&["--available-now", &file]).stdout);
    assert!(!reference.is_empty());
    for flags in [
        ["-w", "2", "-n", "1"],
        ["-w", "1", "-n", "2"],
        ["-w", "2", "-n", "2"],
        ["-w", "1", "-n", "3"],
    ] {
        let args: Vec<&str> = flags
            .iter()
            .copied()
            .chain(["--available-now", file.as_str()])
            .collect();
        let many = run(&args);
        assert!(many.status.success(), "{flags:?}: {}", text(&many.stderr));
        assert_eq!(
            rows(&many.stdout),
            reference,
            "{flags:?}: {}",
            text(&many.stdout)
        );
    }
}

#[test]
fn bad_input_gets_one_clear_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("missing").display().to_string();
    let cases: Vec<(Vec<String>, &str)> = vec![
        (vec![missing.clone()], "could not read SQL file"),
        (vec![sql(dir.path(), "SELEC 1")], "PARSE_SYNTAX_ERROR"),
    ];
    let check = |args: &[String], part: &str| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = run(&args);
        let said = text(&output.stderr);
        assert!(!output.status.success(), "{args:?} succeeded");
        assert!(said.contains(part), "{args:?}: {said}");
        assert!(
            !said.contains("panicked") && !said.contains("RUST_BACKTRACE"),
            "{args:?}: {said}"
        );
    };
    for (args, part) in cases {
        check(&args, part);
    }
    for (statements, part) in [
        ("SELECT * FROM nowhere", "nowhere"),
        (
            format!("CREATE STREAMING TEMP VIEW t USING text OPTIONS (path '{missing}')").as_str(),
            "missing",
        ),
        (
            "CREATE STREAMING TEMP VIEW t USING fax OPTIONS (path 'x')",
            "\"fax\"",
        ),
        (
            "CREATE STREAMING TEMP VIEW t USING text OPTIONS (path 'examples', maxFilesPerTriger 3)",
            "maxFilesPerTriger",
        ),
        (
            "CREATE STREAMING TEMP VIEW t USING json OPTIONS (path 'examples/data/devices')",
            "chema",
        ),
        (
            "CREATE STREAMING TEMP VIEW t USING socket OPTIONS (host 'localhost', port 1); SELECT * FROM t",
            "localhost:1",
        ),
        (
            "CREATE STREAMING TEMP VIEW t USING text OPTIONS (path 'examples/data/words');
             SELECT CAST(value AS INT) AS n FROM t",
            "CAST_INVALID_INPUT",
        ),
        (
            "CREATE STREAMING TEMP VIEW t USING text OPTIONS (path 'examples/data/words');
             SELECT * FROM t ORDER BY value",
            "ORDER BY",
        ),
    ] {
        check(
            &["--available-now".to_string(), sql(dir.path(), statements)],
            part,
        );
    }
    check(
        &[
            "-n".into(),
            "2".into(),
            "-p".into(),
            "2".into(),
            "examples/word_count.sql".into(),
        ],
        "process 2 does not exist",
    );
    check(
        &[
            "-n".into(),
            "2".into(),
            "-p".into(),
            "0".into(),
            "examples/word_count.sql".into(),
        ],
        "HIGHWATER_SECRET",
    );
}

/// A program that runs until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a count over the files of `dir/in`, and waits for its first table.
fn start_counting(dir: &Path, flags: &[&str]) -> (Running, BufReader<std::process::ChildStdout>) {
    fs::create_dir_all(dir.join("in")).expect("made");
    fs::write(dir.join("in/a.txt"), "one\ntwo\n").expect("written");
    let statements = format!(
        "CREATE STREAMING TEMP VIEW lines USING text OPTIONS (path '{}');
         SELECT count(*) AS n FROM lines",
        dir.join("in").display()
    );
    let file = sql(dir, &statements);
    let mut child = highwater()
        .args(flags)
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let running = Running(child);
    expect_row(&mut out, "|  2|");
    (running, out)
}

fn expect_row(out: &mut impl BufRead, row: &str) {
    let mut line = String::new();
    loop {
        line.clear();
        let read = out.read_line(&mut line).expect("readable");
        assert!(read > 0, "the program ended before it printed {row}");
        if line.trim() == row {
            return;
        }
    }
}

/// CPU time of a process so far, in hundredths of a second.
fn cpu(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .expect("fields")
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().expect("ticks") + fields[12].parse::<u64>().expect("ticks")
}

#[test]
fn new_files_are_counted_and_idleness_costs_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (running, mut out) = start_counting(dir.path(), &["-w", "2"]);
    fs::write(dir.path().join("in/.b.txt"), "three\n").expect("written");
    fs::rename(dir.path().join("in/.b.txt"), dir.path().join("in/b.txt")).expect("renamed");
    expect_row(&mut out, "|  3|");
    let before = cpu(running.0.id());
    std::thread::sleep(Duration::from_secs(2));
    let used = cpu(running.0.id()) - before;
    assert!(
        used <= 4,
        "{used} hundredths of a second in two idle seconds"
    );
}

#[test]
fn a_lost_process_ends_the_others_with_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut running, _out) = start_counting(dir.path(), &["-n", "2"]);
    let pid = running.0.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it runs");
    let sister = children.split_whitespace().next().expect("it has a sister");
    assert!(
        Command::new("kill")
            .args(["-9", sister])
            .status()
            .expect("kill runs")
            .success()
    );
    let end = Instant::now() + Duration::from_secs(20);
    let status = loop {
        if let Some(status) = running.0.try_wait().expect("waitable") {
            break status;
        }
        assert!(
            Instant::now() < end,
            "still running 20 s after its sister was killed"
        );
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut said = String::new();
    running
        .0
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut said)
        .expect("text");
    assert!(!status.success(), "{said}");
    assert!(
        said.contains("highwater:")
            && !said.contains("panicked")
            && !said.contains("stack backtrace"),
        "{said}"
    );
}

#[test]
fn a_socket_that_ends_ends_the_query() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let dir = tempfile::tempdir().expect("a directory");
    let file = sql(
        dir.path(),
        &format!(
            "CREATE STREAMING TEMP VIEW t USING socket OPTIONS (host 'localhost', port {port});
             SELECT value, count(*) AS n FROM t GROUP BY value"
        ),
    );
    let writer = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().expect("it connects");
        peer.write_all(b"a\nb\na\nlast without newline")
            .expect("written");
    });
    let output = run(&[&file]);
    writer.join().expect("written");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows = rows(&output.stdout);
    assert!(
        rows.iter().any(|row| row.contains("last without newl")),
        "{rows:?}"
    );
}

/// Random rows in several files, as JSON lines.
fn random_files(dir: &Path, seed: u64) {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    let mut random = StdRng::seed_from_u64(seed);
    fs::create_dir(dir).expect("made");
    for file in 0..random.random_range(2..6) {
        let mut rows = String::new();
        for _ in 0..random.random_range(0..400) {
            let k = random.random_range(0..7);
            let g = random.random_range(-3..3);
            let x = random.random_range(-1e6..1e6) * 10f64.powi(random.random_range(-9..9));
            let known = random.random_bool(0.9);
            let v = if known {
                random.random_range(-99..99).to_string()
            } else {
                "null".into()
            };
            rows.push_str(&format!(
                "{{\"k\":\"k{k}\",\"g\":{g},\"v\":{v},\"x\":{x:e}}}\n"
            ));
        }
        fs::write(dir.join(format!("{file}.json")), rows).expect("written");
    }
}

/// Whole processes against DataFusion from scratch: the static view runs there, the streaming one in the dataflow.
#[test]
fn two_processes_give_the_batch_answer_on_random_rows() {
    let columns = "(k STRING, g INT, v BIGINT, x DOUBLE)";
    let queries = [
        "SELECT k, count(*) AS n, count(v) AS c, sum(v) AS s, min(v) AS a, max(x) AS z FROM t GROUP BY k",
        "SELECT g, sum(x) AS s, avg(x) AS a, count(DISTINCT k) AS d FROM t GROUP BY g",
        "SELECT k, first(v) AS f, last(v) AS l, sum(v) FILTER (WHERE g > 0) AS p FROM t GROUP BY k",
        "SELECT c, count(*) AS n FROM (SELECT explode(split(k, '')) AS c FROM t WHERE v > 0) GROUP BY c",
    ];
    for seed in 0..3 {
        let dir = tempfile::tempdir().expect("a directory");
        random_files(&dir.path().join("in"), seed);
        let path = dir.path().join("in").display().to_string();
        for query in queries {
            let file = |kind: &str| {
                let view = format!(
                    "CREATE {kind} TEMP VIEW t {columns} USING json OPTIONS (path '{path}')"
                );
                sql(dir.path(), &format!("{view}; {query}"))
            };
            let batch = run(&[&file("")]);
            assert!(batch.status.success(), "{}", text(&batch.stderr));
            assert!(
                rows(&batch.stdout).len() > 2,
                "a header and groups: {}",
                text(&batch.stdout)
            );
            for flags in [["-w", "1", "-n", "2"], ["-w", "2", "-n", "2"]] {
                let file = file("STREAMING");
                let args: Vec<&str> = flags
                    .iter()
                    .copied()
                    .chain(["--available-now", &file])
                    .collect();
                let stream = run(&args);
                assert!(stream.status.success(), "{}", text(&stream.stderr));
                assert_eq!(
                    rows(&stream.stdout),
                    rows(&batch.stdout),
                    "{query}, {flags:?}, seed {seed}"
                );
            }
        }
    }
}
