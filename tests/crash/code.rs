//! Code of the program that takes rows, and a table in memory, while processes are killed: the program of these tests
//! is this file, started again as each process of a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use highwater::prelude::*;
use highwater::{ClusterConfig, CodeError, ForeachWriter, Row, StreamWriter};

use super::common::canonical;

const DIRECTORY: &str = "HIGHWATER_TEST_DIRECTORY";
const PROCESS: &str = "HIGHWATER_TEST_PROCESS";
/// Set if there is a table in memory, which goes with the first process.
const TABLE: &str = "HIGHWATER_TEST_TABLE";
const PROCESSES: usize = 2;
const LINES: usize = 40;

/// Writes lines, each with one call: a kill leaves whole ones.
#[derive(Clone)]
struct Clerk {
    out: Arc<Mutex<File>>,
    at: (usize, u64),
}

impl Clerk {
    fn note(&self, text: &str) {
        let (partition, epoch) = self.at;
        let line = format!("{partition} {epoch} {text}\n");
        let mut out = self.out.lock().expect("a file");
        out.write_all(line.as_bytes()).expect("written");
    }
}

impl ForeachWriter for Clerk {
    fn open(&mut self, partition: usize, epoch: u64) -> Result<bool, CodeError> {
        self.at = (partition, epoch);
        self.note("open");
        Ok(true)
    }

    fn process(&mut self, row: Row<'_>) -> Result<(), CodeError> {
        self.note(row.text("value")?.ok_or("a null")?);
        // So that a kill meets the writer at work.
        std::thread::sleep(Duration::from_micros(300));
        Ok(())
    }

    fn close(&mut self, error: Option<&CodeError>) -> Result<(), CodeError> {
        assert!(error.is_none());
        self.note("close");
        Ok(())
    }
}

fn appended(path: PathBuf) -> File {
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).open(path);
    file.expect("a file")
}

/// What each process runs.
#[test]
#[ignore = "the program of the tests below"]
fn program() {
    let Some(dir) = std::env::var_os(DIRECTORY).map(PathBuf::from) else {
        return;
    };
    let process = std::env::var(PROCESS)
        .expect("set")
        .parse()
        .expect("a number");
    let hosts = fs::read_to_string(dir.join("hosts")).expect("read");
    let session = Session::with_cluster(ClusterConfig {
        workers: 2,
        processes: PROCESSES,
        process: Some(process),
        hosts: Some(hosts.lines().map(str::to_string).collect()),
        heartbeat_timeout: Duration::from_secs(2),
        ..ClusterConfig::default()
    })
    .expect("a session");
    let lines = session.read_stream().format("text").path(dir.join("in"));
    let lines = lines
        .option("maxFilesPerTrigger", 3)
        .load()
        .expect("a stream");
    let start = |name: &str, writer: StreamWriter| {
        let checkpoint = dir.join("ck").join(name);
        let writer = writer.option("checkpointLocation", checkpoint.display());
        let writer = writer
            .option("checkpointInterval", "0 seconds")
            .query_name(name);
        writer.start().expect("started")
    };
    let clerk = Clerk {
        out: Arc::new(Mutex::new(appended(dir.join(format!("rows-{process}"))))),
        at: (0, 0),
    };
    let mut batches = appended(dir.join("batches"));
    let table = std::env::var_os(TABLE).is_some();
    let mut queries = vec![
        start("rows", lines.write_stream().foreach(clerk)),
        start(
            "batches",
            lines.write_stream().for_each_batch(
                move |frame: DataFrame, epoch| -> Result<(), CodeError> {
                    let rows = canonical(&frame.collect()?).join(",");
                    batches.write_all(format!("{epoch} {rows}\n").as_bytes())?;
                    Ok(())
                },
            ),
        ),
    ];
    if table {
        queries.push(start("seen", lines.write_stream().format("memory")));
    }
    if process > 0 {
        for query in &queries {
            // The first process may close the session before this one has heard that its queries are over.
            let _ = query.await_termination();
        }
        return;
    }
    while !dir.join("stop").exists() {
        for query in &queries {
            assert!(query.exception().is_none(), "{:?}", query.exception());
        }
        if table {
            let rows = session.table("seen").and_then(|table| table.collect());
            let rows = canonical(&rows.expect("a table")).join("\n");
            fs::write(dir.join("seen.new"), rows).expect("written");
            fs::rename(dir.join("seen.new"), dir.join("seen")).expect("renamed");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for query in &queries {
        query.stop().expect("stopped");
    }
}

/// A process that is killed in the end, whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn member(dir: &Path, process: usize, table: bool) -> Running {
    let said = appended(dir.join(format!("said-{process}")));
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    if table {
        command.env(TABLE, "yes");
    }
    let child = command
        .args(["code::program", "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, dir)
        .env(PROCESS, process.to_string())
        .env("HIGHWATER_SECRET", "a secret that all of them know")
        .stdout(Stdio::null())
        .stderr(said)
        .spawn();
    Running(child.expect("the program starts"))
}

fn lines_of(file: usize) -> impl Iterator<Item = String> {
    (0..LINES).map(move |line| format!("{file}:{line}"))
}

fn add(dir: &Path, files: std::ops::Range<usize>) {
    for file in files {
        let text: String = lines_of(file).map(|line| line + "\n").collect();
        fs::write(dir.join("new"), text).expect("written");
        fs::rename(dir.join("new"), dir.join("in").join(file.to_string())).expect("moved");
    }
}

fn text(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What the writers took: for each partition and epoch the rows of all times that it was handed over to the end.
fn taken(dir: &Path) -> BTreeMap<(usize, u64), Vec<Vec<String>>> {
    let mut taken: BTreeMap<(usize, u64), Vec<Vec<String>>> = BTreeMap::new();
    for process in 0..PROCESSES {
        let mut open: BTreeMap<usize, (u64, Vec<String>)> = BTreeMap::new();
        for line in text(dir.join(format!("rows-{process}"))).lines() {
            let mut words = line.split(' ');
            let mut number = || words.next().expect("a word").parse().expect("a number");
            let (partition, epoch) = (number() as usize, number());
            assert_eq!(partition / 2, process, "partitions of a process: {line}");
            match words.next().expect("a word") {
                "open" => {
                    // One that was killed at work was never closed.
                    open.insert(partition, (epoch, Vec::new()));
                }
                "close" => {
                    let (of, rows) = open.remove(&partition).expect("it is open");
                    assert_eq!(of, epoch, "{line}");
                    taken.entry((partition, epoch)).or_default().push(rows);
                }
                row => {
                    let (of, rows) = open.get_mut(&partition).expect("it is open");
                    assert_eq!(*of, epoch, "{line}");
                    rows.push(row.to_string());
                }
            }
        }
    }
    taken
}

#[test]
fn what_is_handed_over_survives_lost_processes() {
    check(&[1], true);
}

#[test]
fn what_is_handed_over_survives_the_loss_of_the_first_process() {
    check(&[0, 1], false);
}

/// Kills each of `victims` in turn, several times.
fn check(victims: &[usize], table: bool) {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    fs::create_dir(dir.join("in")).expect("made");
    let held: Vec<TcpListener> = (0..PROCESSES)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"))
        .collect();
    let hosts = held
        .iter()
        .map(|port| port.local_addr().expect("bound").to_string());
    fs::write(dir.join("hosts"), hosts.collect::<Vec<_>>().join("\n")).expect("written");
    drop(held);
    let mut members: Vec<Running> = (0..PROCESSES)
        .map(|process| member(dir, process, table))
        .collect();
    let said = || format!("{}\n{}", text(dir.join("said-0")), text(dir.join("said-1")));
    let wait = |files: usize, members: &mut Vec<Running>| {
        let begun = Instant::now();
        let all: BTreeSet<String> = (0..files).flat_map(lines_of).collect();
        loop {
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", said());
            let first = members[0].0.try_wait().expect("waited");
            assert!(first.is_none(), "the first process lives: {}", said());
            let seen: BTreeSet<String> =
                text(dir.join("seen")).lines().map(str::to_string).collect();
            let batches = text(dir.join("batches"));
            let rows = batches.lines().filter_map(|line| line.split_once(' '));
            let batches: BTreeSet<String> = rows
                .flat_map(|(_, rows)| rows.split(',').map(str::to_string))
                .collect();
            let rows: BTreeSet<String> = taken(dir).into_values().flatten().flatten().collect();
            if [&seen, &batches, &rows]
                .iter()
                .skip(usize::from(!table))
                .all(|found| found.is_superset(&all))
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    add(dir, 0..4);
    wait(4, &mut members);
    let mut files = 4;
    for round in 0..4u64 {
        // In the middle of what comes next.
        add(dir, files..files + 7);
        files += 7;
        std::thread::sleep(Duration::from_millis(10 + 25 * round));
        let victim = victims[round as usize % victims.len()];
        members[victim].0.kill().expect("killed");
        members[victim].0.wait().expect("waited");
        members[victim] = member(dir, victim, table);
        wait(files, &mut members);
    }
    fs::write(dir.join("stop"), "").expect("written");
    let status = members[0].0.wait().expect("waited");
    assert!(status.success(), "{}", said());
    let mut all: Vec<String> = (0..files).flat_map(lines_of).collect();
    all.sort();
    if table {
        // It has every row once.
        let mut seen: Vec<String> = text(dir.join("seen")).lines().map(str::to_string).collect();
        seen.sort();
        assert_eq!(seen, all, "the table in memory");
    }
    // Batches come again with the same number and rows.
    let mut batches: BTreeMap<u64, String> = BTreeMap::new();
    let mut repeated = 0;
    for line in text(dir.join("batches")).lines() {
        let (epoch, rows) = line.split_once(' ').expect("an epoch");
        let epoch = epoch.parse().expect("a number");
        match batches.insert(epoch, rows.to_string()) {
            Some(before) => {
                assert_eq!(before, rows, "epoch {epoch}");
                repeated += 1;
            }
            None => assert_eq!(epoch, batches.len() as u64 - 1, "in order, none left out"),
        }
    }
    let rows = batches.into_values().flat_map(|rows| {
        let rows = rows.split(',').filter(|row| !row.is_empty());
        rows.map(str::to_string).collect::<Vec<_>>()
    });
    let mut rows: Vec<String> = rows.collect();
    rows.sort();
    assert_eq!(rows, all, "batches");
    // So do the rows of a partition.
    let taken = taken(dir);
    let mut rows = Vec::new();
    let mut busy = BTreeSet::new();
    for ((partition, epoch), times) in &taken {
        for again in &times[1..] {
            assert_eq!(again, &times[0], "partition {partition} of epoch {epoch}");
        }
        repeated += times.len() - 1;
        rows.extend(times[0].iter().cloned());
        if !times[0].is_empty() {
            busy.insert(*partition);
        }
    }
    rows.sort();
    assert_eq!(rows, all, "rows");
    assert!(
        busy.iter().any(|partition| *partition >= 2),
        "both processes work: {busy:?}"
    );
    println!("{repeated} epochs or parts of one came again");
}
