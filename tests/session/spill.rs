//! State larger than the memory it may take.

use highwater::functions::{count, sum};
use highwater::prelude::{col, lit};
use highwater::{DataFrame, OutputMode, Session, StreamingQuery};

use super::common::{canonical, rows_of};
use super::numbers;

fn session(memory_max: &str, directory: &std::path::Path) -> Session {
    let builder = Session::builder()
        .workers(2)
        .conf("highwater.state.memoryMax", memory_max)
        .conf("highwater.spill.directory", directory.display());
    Session::start(builder).expect("a session")
}

fn by_key(frame: &DataFrame, name: &str) -> StreamingQuery {
    let sums = frame
        .group_by([col("v")])
        .expect("a key")
        .agg([count(lit(1)).alias("n"), sum(col("v")).alias("s")])
        .expect("a query");
    let writer = sums
        .write_stream()
        .output_mode(OutputMode::Complete)
        .format("memory")
        .query_name(name);
    writer.start().expect("started")
}

#[test]
fn state_in_files_gives_the_answers_of_state_in_memory() {
    let dir = tempfile::tempdir().expect("a directory");
    let session = session("0", dir.path());
    let (rows, frame) = session.memory_stream("v BIGINT").expect("a stream");
    let query = by_key(&frame, "sums");
    for epoch in 0..8 {
        numbers(&rows, (0..3000).map(|v| v * (epoch + 1) % 4000));
        query.process_all_available().expect("processed");
    }
    let spilled = std::fs::read_dir(dir.path())
        .expect("the directory")
        .count();
    assert_eq!(spilled, 1, "this process's directory");
    let mut wanted = std::collections::BTreeMap::<i64, i64>::new();
    for v in (0..8).flat_map(|epoch| (0..3000).map(move |v| v * (epoch + 1) % 4000)) {
        *wanted.entry(v).or_default() += 1;
    }
    let mut wanted: Vec<String> = wanted
        .into_iter()
        .map(|(v, n)| format!("{v}|{n}|{}", v * n))
        .collect();
    wanted.sort();
    assert_eq!(
        canonical(&rows_of(&session, "SELECT v, n, s FROM sums")),
        wanted
    );
    query.stop().expect("stopped");
    session.close();
    drop((rows, frame, query, session));
    let left = std::fs::read_dir(dir.path())
        .expect("the directory")
        .count();
    assert_eq!(left, 0, "nothing is left of a session");
}

#[test]
fn a_directory_that_cannot_be_written_ends_the_query_that_needs_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("a-file");
    std::fs::write(&file, "").expect("written");
    let session = session("0", &file);
    let (rows, frame) = session.memory_stream("v BIGINT").expect("a stream");
    let query = by_key(&frame, "sums");
    numbers(&rows, 0..3000);
    let error = query
        .process_all_available()
        .expect_err("no place for state");
    let error = error.to_string();
    for wanted in [
        &file.display().to_string(),
        "highwater.spill.directory",
        "highwater.state.memoryMax",
    ] {
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn settings_are_checked_at_the_start() {
    let start = |name, value| {
        let session = Session::start(Session::builder().conf(name, value));
        session.err().expect("refused").to_string()
    };
    let error = start("highwater.state.memoryMax", "lots");
    assert!(error.contains("cannot be \"lots\""), "{error}");
    let error = start("highwater.state.memoryMin", "1g");
    assert!(
        error.contains("unknown option \"highwater.state.memoryMin\""),
        "{error}"
    );
}
