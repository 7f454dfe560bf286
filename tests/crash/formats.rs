//! What an earlier build left behind is read: a checkpoint that lies in the repository goes on.
//!
//! `HIGHWATER_WRITE_CHECKPOINT=1` writes one beside those that are there, when a format has changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater::prelude::*;

use super::common::{canonical, rows_of};

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/checkpoints")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// Counts, sums and extremes of the numbers so far by their remainder, kept over restarts.
fn start(session: &Session, checkpoint: &Path) -> highwater::Result<StreamingQuery> {
    session
        .read_stream()
        .format("rate-micro-batch")
        .option("rowsPerBatch", 7)
        .load()?
        .create_or_replace_temp_view("numbers")?;
    session
        .sql(
            "SELECT value % 11 AS k, count(*) AS n, sum(value) AS total, avg(CAST(value AS DOUBLE)) AS mean, \
             max(CAST(value AS STRING)) AS text FROM numbers GROUP BY value % 11",
        )?
        .write_stream()
        .output_mode(OutputMode::Complete)
        .format("memory")
        .query_name("remainders")
        .option("checkpointLocation", checkpoint.display())
        .start()
}

/// Runs some epochs more, and compares with what the numbers so far give.
fn goes_on(session: &Session, checkpoint: &Path) -> u64 {
    let query = start(session, checkpoint).expect("started");
    while query.committed().epochs < 5 {
        if let Some(error) = query.exception() {
            panic!("{error}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    query.stop().expect("stopped");
    let rows = canonical(&rows_of(session, "SELECT * FROM remainders"));
    let total = canonical(&rows_of(session, "SELECT sum(n) FROM remainders"));
    let count: u64 = total[0].parse().expect("a number");
    assert_eq!(count % 7, 0, "whole epochs");
    let expected = rows_of(
        session,
        &format!(
            "SELECT value % 11 AS k, count(*) AS n, sum(value) AS total, avg(CAST(value AS DOUBLE)) AS mean, \
             max(CAST(value AS STRING)) AS text FROM (SELECT explode(sequence(0L, {}L)) AS value) AS t GROUP BY value % 11",
            count - 1
        ),
    );
    assert_eq!(rows, canonical(&expected), "after {count} numbers");
    count
}

#[test]
fn a_checkpoint_of_an_earlier_build_goes_on() {
    if std::env::var_os("HIGHWATER_WRITE_CHECKPOINT").is_some() {
        let number = fs::read_dir(kept()).map_or(0, Iterator::count) + 1;
        let session = Session::with_workers(2).expect("a session");
        goes_on(&session, &kept().join(number.to_string()));
        let _ = fs::remove_file(kept().join(number.to_string()).join("lock"));
    }
    let mut found = 0;
    for entry in fs::read_dir(kept()).expect("checkpoints are in the repository") {
        let dir = tempfile::tempdir().expect("a directory");
        copy(&entry.expect("an entry").path(), dir.path());
        let mut before = 0;
        for workers in [2, 1, 3] {
            let session = Session::with_workers(workers).expect("a session");
            let count = goes_on(&session, dir.path());
            assert!(count > before + 7 * 4, "{count} after {before}");
            before = count;
        }
        found += 1;
    }
    assert!(found > 0);
}
