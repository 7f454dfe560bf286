//! Restarts and crashes: whatever ends a query, the next start gives what an uninterrupted run gives.

#![allow(clippy::disallowed_methods, reason = "a test gives up after a time")]
#![allow(clippy::print_stdout, reason = "a test says loudly what it skips")]

#[path = "crash/changes.rs"]
mod changes;
#[path = "crash/cluster.rs"]
mod cluster;
#[path = "crash/code.rs"]
mod code;
#[path = "common/mod.rs"]
mod common;
#[path = "crash/damage.rs"]
mod damage;
#[path = "crash/digits.rs"]
mod digits;
#[path = "crash/faults.rs"]
mod faults;
#[path = "crash/formats.rs"]
mod formats;
#[path = "crash/kill.rs"]
mod kill;
#[path = "crash/permission.rs"]
mod permission;
#[path = "crash/s3.rs"]
mod s3;

use std::fs;
use std::path::Path;

use common::{accumulated, canonical, rows_of};
use highwater::prelude::*;

/// The rows of a keyed count and sum over lines "key value", as a query over `input`.
fn totals(session: &Session, input: &Path) -> highwater::Result<DataFrame> {
    session
        .read_stream()
        .format("text")
        .option("maxFilesPerTrigger", 1)
        .path(input)
        .load()?
        .create_or_replace_temp_view("lines")?;
    session.sql(
        "SELECT k, count(*) AS n, sum(v) AS total FROM \
         (SELECT split(value, ' ')[0] AS k, CAST(split(value, ' ')[1] AS BIGINT) AS v FROM lines) AS t GROUP BY k",
    )
}

fn write_lines(input: &Path, file: usize, lines: impl Iterator<Item = String>) {
    let text: String = lines.map(|line| line + "\n").collect();
    let hidden = input.join(format!(".{file}"));
    fs::write(&hidden, text).expect("written");
    fs::rename(&hidden, input.join(format!("{file:05}.txt"))).expect("renamed");
}

#[test]
fn state_goes_on_with_another_number_of_workers() {
    let dir = tempfile::tempdir().expect("a directory");
    let input = dir.path().join("in");
    fs::create_dir(&input).expect("made");
    for (round, workers) in [1, 2, 2, 4, 1, 3].into_iter().enumerate() {
        for file in 0..3 {
            let number = round * 3 + file;
            let lines = (0..500).map(|i| format!("k{} {}", (i * 7 + number) % 61, i));
            write_lines(&input, number, lines);
        }
        let session = Session::with_workers(workers).expect("a session");
        let run = || -> highwater::Result<()> {
            let query = totals(&session, &input)?
                .write_stream()
                .output_mode(OutputMode::Complete)
                .format("memory")
                .query_name("totals")
                .trigger(Trigger::AvailableNow)
                .option("checkpointLocation", dir.path().join("ck").display())
                .start()?;
            query.await_termination()?;
            assert_eq!(query.committed().epochs, 3, "one a file, none twice");
            Ok(())
        };
        run().unwrap_or_else(|error| panic!("round {round}: {error}"));
        let streamed = canonical(&rows_of(&session, "SELECT * FROM totals"));
        session
            .read()
            .format("text")
            .path(&input)
            .load()
            .and_then(|frame| frame.create_or_replace_temp_view("lines"))
            .expect("a view");
        let batch = rows_of(
            &session,
            "SELECT k, count(*) AS n, sum(v) AS total FROM \
             (SELECT split(value, ' ')[0] AS k, CAST(split(value, ' ')[1] AS BIGINT) AS v FROM lines) AS t GROUP BY k",
        );
        assert_eq!(
            streamed,
            accumulated(&batch, OutputMode::Complete, 1),
            "round {round}"
        );
    }
}

#[test]
fn a_checkpoint_may_live_in_an_object_store() {
    let store: std::sync::Arc<dyn object_store::ObjectStore> =
        std::sync::Arc::new(object_store::memory::InMemory::new());
    let dir = tempfile::tempdir().expect("a directory");
    let input = dir.path().join("in");
    fs::create_dir(&input).expect("made");
    for (round, workers) in [2, 2, 1, 3].into_iter().enumerate() {
        write_lines(&input, round, (0..200).map(|i| format!("k{} 1", i % 9)));
        let builder = Session::builder().workers(workers);
        let builder = builder.object_store("memory://here", std::sync::Arc::clone(&store));
        let session = Session::start(builder).expect("a session");
        let query = totals(&session, &input)
            .and_then(|totals| {
                let writer = totals.write_stream().output_mode(OutputMode::Complete);
                let writer = writer.format("memory").query_name("totals");
                let writer = writer.trigger(Trigger::AvailableNow);
                writer
                    .option("checkpointLocation", "memory://here/ck")
                    .start()
            })
            .expect("started");
        query.await_termination().expect("it ran");
        assert_eq!(query.committed().epochs, 1);
        assert_eq!(
            canonical(&rows_of(&session, "SELECT sum(n), sum(total) FROM totals")),
            [format!("{0}|{0}", (round + 1) * 200)]
        );
    }
}

#[test]
fn a_second_run_of_one_checkpoint_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let input = dir.path().join("in");
    fs::create_dir(&input).expect("made");
    let session = Session::with_workers(1).expect("a session");
    let start = || {
        totals(&session, &input)?
            .write_stream()
            .output_mode(OutputMode::Complete)
            .format("noop")
            .option("checkpointLocation", dir.path().join("ck").display())
            .start()
    };
    let first = start().expect("started");
    let error = start().map(|_| ()).expect_err("refused").to_string();
    assert!(error.contains("CONCURRENT_STREAM_LOG_UPDATE"), "{error}");
    let id = first.id().to_string();
    first.stop().expect("stopped");
    let again = start().expect("free again");
    assert_eq!(again.id(), id, "the id survives");
    again.stop().expect("stopped");
}

#[test]
fn another_plan_is_refused_with_what_differs() {
    let dir = tempfile::tempdir().expect("a directory");
    let input = dir.path().join("in");
    fs::create_dir(&input).expect("made");
    write_lines(&input, 0, ["a 1".to_string()].into_iter());
    let session = Session::with_workers(1).expect("a session");
    let start = |frame: DataFrame| {
        let query = frame
            .write_stream()
            .output_mode(OutputMode::Update)
            .format("noop")
            .trigger(Trigger::AvailableNow)
            .option("checkpointLocation", dir.path().join("ck").display())
            .start()?;
        query.await_termination()
    };
    start(totals(&session, &input).expect("a query")).expect("the first run");
    let other = session
        .sql("SELECT value, count(*) AS n FROM lines GROUP BY value")
        .expect("a query");
    let error = start(other).expect_err("refused").to_string();
    assert!(
        error.contains("aggregate-0") && error.contains("differs"),
        "{error}"
    );
    let filtered = session
        .sql(
            "SELECT k, count(*) AS n, sum(v) AS total FROM (SELECT split(value, ' ')[0] AS k, \
             CAST(split(value, ' ')[1] AS BIGINT) AS v FROM lines WHERE value <> 'b 1') AS t GROUP BY k",
        )
        .expect("a query");
    start(filtered).expect("a filter may change");
}

#[test]
fn other_windows_and_sources_in_another_order_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let session = Session::with_workers(1).expect("a session");
    for name in ["a", "b"] {
        let input = dir.path().join(name);
        fs::create_dir(&input).expect("made");
        let rows = "{\"ts\":\"2024-01-01 00:00:01\"}\n{\"ts\":\"2024-01-01 00:00:31\"}\n";
        fs::write(input.join("0.json"), rows).expect("written");
        session
            .read_stream()
            .format("json")
            .schema("ts TIMESTAMP")
            .and_then(|reader| reader.path(&input).load())
            .and_then(|frame| frame.create_or_replace_temp_view(name))
            .expect("a view");
    }
    let run = |checkpoint: &str, sql: &str| {
        let query = session
            .sql(sql)?
            .write_stream()
            .format("noop")
            .trigger(Trigger::AvailableNow)
            .option("checkpointLocation", dir.path().join(checkpoint).display())
            .start()?;
        query.await_termination()
    };
    let windows = |width: &str| {
        format!(
            "SELECT window(ts, '{width}').start AS s, count(*) AS n FROM a WATERMARK ts DELAY OF INTERVAL 1 SECOND \
             GROUP BY window(ts, '{width}')"
        )
    };
    run("w", &windows("10 seconds")).expect("the first run");
    let error = run("w", &windows("20 seconds")).expect_err("refused");
    assert!(error.to_string().contains("10000000 us"), "{error}");
    run("w", &windows("10 seconds")).expect("the same windows");
    run("u", "SELECT * FROM a UNION ALL SELECT * FROM b").expect("the first run");
    let error = run("u", "SELECT * FROM b UNION ALL SELECT * FROM a").expect_err("refused");
    assert!(error.to_string().contains("order"), "{error}");
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_is_used() {
    let dir = tempfile::tempdir().expect("a directory");
    let (input, ck) = (dir.path().join("in"), dir.path().join("ck"));
    fs::create_dir(&input).expect("made");
    let session = Session::with_workers(2).expect("a session");
    let run = |file: usize| {
        write_lines(&input, file, (0..100).map(|i| format!("k{} 1", i % 10)));
        let query = totals(&session, &input)?
            .write_stream()
            .output_mode(OutputMode::Complete)
            .format("memory")
            .query_name("totals")
            .trigger(Trigger::AvailableNow)
            .option("checkpointLocation", ck.display())
            .start()?;
        query.await_termination()
    };
    let newest = |sub: &str| {
        let mut names: Vec<_> = fs::read_dir(ck.join(sub))
            .expect("listed")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| {
                !path
                    .file_name()
                    .expect("named")
                    .to_string_lossy()
                    .starts_with('.')
            })
            .collect();
        names.sort_by_key(|path| {
            fs::metadata(path)
                .and_then(|m| m.modified())
                .expect("a time")
        });
        names.pop().expect("there is one")
    };
    run(0).expect("ran");
    run(1).expect("ran");
    let state = newest("state");
    let mut bytes = fs::read(&state).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&state, bytes).expect("written");
    run(2).expect("the checkpoint before is used");
    assert_eq!(
        canonical(&rows_of(&session, "SELECT k, n FROM totals WHERE k = 'k3'")),
        ["k3|30"]
    );
    // With every checkpoint damaged there is nothing to go on from.
    for entry in fs::read_dir(ck.join("checkpoints")).expect("listed") {
        fs::write(entry.expect("an entry").path(), "{}").expect("written");
    }
    let error = run(3).expect_err("refused").to_string();
    assert!(
        error.contains("damaged") && error.contains("checkpoints/"),
        "{error}"
    );
}
