//! A query's process dies anywhere, over and over, and comes back with other workers and other runs; meanwhile readers
//! look. The process is this test binary, started for the test `child` alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

use super::tests::{factory, lister, request, rows, schema, visible};
use super::*;
use crate::conformance::QUERY_ID;
use crate::files::committed::CommittedLister;
use crate::files::log::{LOG, LogWriter};

const CHILD: &str = "HIGHWATER_TEST_SINK_CHILD";

/// Which generation the child is.
const GENERATION: &str = "HIGHWATER_SINK_TEST_GENERATION";

/// What a child is told, in the variable's words.
struct Orders {
    out: String,
    seed: u64,
    begin: u64,
    epochs: u64,
}

impl Orders {
    fn parse(text: &str) -> Orders {
        let mut words = text.split('|');
        let out = words.next().unwrap().to_string();
        let mut number = || words.next().unwrap().parse().unwrap();
        Orders {
            out,
            seed: number(),
            begin: number(),
            epochs: number(),
        }
    }
}

/// The rows of an epoch: the same however often it is replayed.
fn rows_of(epoch: u64) -> Vec<(u64, u64)> {
    let mut random = StdRng::seed_from_u64(epoch);
    let count = random.random_range(0..4);
    (0..count)
        .map(|at| (random.random_range(0..3), epoch * 10 + at))
        .collect()
}

/// Runs the query to its end, unless it dies.
#[test]
fn child() {
    let Ok(text) = std::env::var(CHILD) else {
        return;
    };
    let orders = Orders::parse(&text);
    let mut random = StdRng::seed_from_u64(orders.seed);
    let two = schema(&[("k", DataType::Int64), ("n", DataType::Int64)]);
    let request = SinkRequest {
        partition_by: vec!["k".into()],
        ..request(Path::new(&orders.out), &two, &[])
    };
    let factory = factory("json", request);
    let generation = std::env::var(GENERATION).unwrap().parse().unwrap();
    let mut sink = factory.open(generation).unwrap();
    let workers = random.random_range(1..4usize);
    let mut writers: Vec<_> = (0..workers)
        .map(|worker| factory.writer(worker, QUERY_ID, generation).unwrap())
        .collect();
    let mut next = sink
        .committed()
        .unwrap()
        .map_or(orders.begin, |last| last + 1);
    while next < orders.epochs {
        let last = (next + random.random_range(0..3)).min(orders.epochs - 1);
        for epoch in next..=last {
            for (k, n) in rows_of(epoch) {
                let row = rows(&two, &format!("{{\"k\":{k},\"n\":{n}}}"));
                writers[random.random_range(0..workers)]
                    .write(epoch, &row)
                    .unwrap();
            }
        }
        let staged: Vec<_> = writers
            .iter_mut()
            .map(|w| w.stage(next..=last).unwrap())
            .collect();
        sink.commit(next..=last, &staged).unwrap();
        next = last + 1;
    }
}

/// The rows of files, by their number; each file must be whole.
fn read(paths: impl Iterator<Item = String>) -> Vec<u64> {
    let mut found = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.ends_with('\n'), "{path} is whole: {text:?}");
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            found.push(row["n"].as_u64().unwrap());
        }
    }
    found.sort();
    found
}

fn expected(begin: u64, end: u64) -> Vec<u64> {
    let mut all: Vec<u64> = (begin..end).flat_map(rows_of).map(|(_, n)| n).collect();
    all.sort();
    all
}

/// One that only lists, our batch reader, and our stream, which goes on where it was.
struct Readers {
    out: std::path::PathBuf,
    begin: u64,
    stream: Option<CommittedLister>,
    streamed: BTreeMap<String, usize>,
    rows: Vec<u64>,
}

impl Readers {
    fn look(&mut self) {
        if !self.out.join(LOG).is_dir() {
            return;
        }
        let listed = visible(&self.out);
        let listed = read(
            listed
                .iter()
                .map(|name| self.out.join(name).display().to_string()),
        );
        let unique: BTreeSet<u64> = listed.iter().copied().collect();
        assert_eq!(unique.len(), listed.len(), "no row is visible twice");

        let batch = lister(&self.out).list(&|_, _| false).unwrap();
        let batch = read(batch.into_iter().map(|file| file.path()));
        // What was visible before is committed now; and epochs come whole.
        let last = batch
            .iter()
            .chain(&listed)
            .max()
            .map_or(self.begin, |n| n / 10);
        let prefixes = (self.begin..=last + 1).map(|end| expected(self.begin, end));
        assert!(
            prefixes.into_iter().any(|prefix| prefix == batch),
            "whole epochs: {batch:?}"
        );

        let out = &self.out;
        let stream = self.stream.get_or_insert_with(|| lister(out));
        let new = stream.list(&|_, _| false).unwrap();
        for file in &new {
            let count = self.streamed.entry(file.path()).or_default();
            *count += 1;
            assert_eq!(*count, 1, "{} comes once", file.path());
        }
        let times: Vec<i64> = new.iter().map(|file| file.modified_us).collect();
        assert!(
            times.is_sorted(),
            "files come in the order of their commits"
        );
        let rows = read(new.into_iter().map(|file| file.path()));
        let newest = self.rows.iter().max().map_or(0, |n| n / 10);
        assert!(rows.iter().all(|n| n / 10 > newest || self.rows.is_empty()));
        self.rows.extend(rows);
    }
}

/// Memory, if there is such a directory: the tests are not about the disk's speed.
fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// Crashes until the query got through; answers how often it died. The log starts with `filled` runs.
fn check(seed: u64, filled: u64, epochs: u64) -> usize {
    let dir = directory();
    let out = dir.path().join("out");
    let log = out.join(LOG).join(QUERY_ID);
    let mut writer = LogWriter::open(log.clone(), log.clone(), None).unwrap();
    for epoch in 0..filled {
        writer.append(epoch, epoch, Vec::new()).unwrap();
    }
    let mut readers = Readers {
        out: out.clone(),
        begin: filled,
        stream: None,
        streamed: BTreeMap::new(),
        rows: Vec::new(),
    };
    let mut random = StdRng::seed_from_u64(seed);
    let mut crashes = 0;
    loop {
        let orders = format!(
            "{}|{}|{filled}|{}",
            out.display(),
            random.random::<u64>(),
            filled + epochs
        );
        let place = random.random_range(1..60);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "files::sink::crash_tests::child"])
            .env(CHILD, orders)
            .env(GENERATION, crashes.to_string())
            .env("HIGHWATER_CRASH_AT", format!("*:{place}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        while child.try_wait().unwrap().is_none() {
            readers.look();
        }
        let done = child.wait_with_output().unwrap();
        readers.look();
        if done.status.success() {
            break;
        }
        let told = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(
            !told.contains("panicked") && !told.contains("FAILED"),
            "seed {seed}: {told}"
        );
        crashes += 1;
    }
    let all = expected(filled, filled + epochs);
    let listed = visible(&out);
    let listed = read(
        listed
            .iter()
            .map(|name| out.join(name).display().to_string()),
    );
    assert_eq!(listed, all, "seed {seed}: rows by listing");
    readers.rows.sort();
    assert_eq!(readers.rows, all, "seed {seed}: rows by the stream");
    let staged = out.join("_highwater_staged").join(QUERY_ID);
    let generations = fs::read_dir(&staged).unwrap().count();
    let left = fs::read_dir(staged.join(crashes.to_string()))
        .unwrap()
        .count();
    assert_eq!(
        (generations, left),
        (1, 0),
        "seed {seed}: nothing is left behind"
    );
    let temporary = fs::read_dir(&log).unwrap();
    let names = temporary.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(
        names.into_iter().all(|name| !name.starts_with('.')),
        "seed {seed}"
    );
    crashes
}

#[test]
fn rows_survive_crashes_anywhere() {
    let crashes: usize = (0..20).map(|seed| check(seed, 0, 40)).sum();
    assert!(crashes > 100, "{crashes} crashes");
}

#[test]
fn rows_survive_crashes_around_segments() {
    let crashes: usize = (10..13).map(|seed| check(seed, 96, 20)).sum();
    assert!(crashes > 5, "{crashes} crashes");
    check(20, 199, 12);
}
