//! Files in, files out: the device-signal job, alone and as a batch; what a reader of the output may see.

#[path = "common/mod.rs"]
mod common;

use std::fs;
use std::path::Path;

use common::canonical;
use highwater::prelude::*;

const SCHEMA: &str = "device STRING, signal BIGINT, time TIMESTAMP";

fn strong(input: &DataFrame) -> highwater::Result<DataFrame> {
    input.select(["device", "signal"])?.filter("signal > 15")
}

fn visible(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| !name.starts_with('.') && !name.starts_with('_'))
        .collect();
    names.sort();
    names
}

#[test]
fn device_signal_streams_what_the_batch_gives() {
    let devices = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/devices");
    for (workers, format) in [(1, "parquet"), (2, "parquet"), (2, "json"), (1, "csv")] {
        let dir = tempfile::tempdir().expect("a directory");
        let out = dir.path().join("out");
        let session = Session::with_workers(workers).expect("a session");
        let run = || -> highwater::Result<()> {
            let input = session
                .read_stream()
                .format("json")
                .schema(SCHEMA)?
                .option("maxFilesPerTrigger", 1);
            let query = strong(&input.path(devices).load()?)?
                .write_stream()
                .format(format)
                .trigger(Trigger::AvailableNow)
                .option(
                    "checkpointLocation",
                    dir.path().join("checkpoint").display(),
                )
                .path(&out)
                .start()?;
            query.await_termination()?;
            assert_eq!(query.committed().epochs, 2, "one epoch a file");
            let written = session
                .read()
                .format(format)
                .schema("device STRING, signal BIGINT")?
                .path(&out)
                .load()?;
            let batch = strong(
                &session
                    .read()
                    .format("json")
                    .schema(SCHEMA)?
                    .path(devices)
                    .load()?,
            )?;
            let expected = canonical(&batch.collect()?);
            assert!(expected.len() > 10);
            assert_eq!(
                canonical(&written.collect()?),
                expected,
                "{workers} workers, {format}"
            );
            Ok(())
        };
        run().unwrap_or_else(|e| panic!("{workers} workers, {format}: {e:?}"));
        assert!(!visible(&out).is_empty());
    }
}

#[test]
fn a_second_run_over_the_same_files_writes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let devices = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/devices");
    let session = Session::new().expect("a session");
    let start = || {
        let input = session
            .read_stream()
            .format("json")
            .schema(SCHEMA)?
            .path(devices)
            .load()?;
        input
            .write_stream()
            .format("parquet")
            .trigger(Trigger::AvailableNow)
            .option(
                "checkpointLocation",
                dir.path().join("checkpoint").display(),
            )
            .path(dir.path().join("out"))
            .start()?
            .await_termination()
    };
    start().expect("the first run");
    let before = visible(&dir.path().join("out"));
    start().expect("the second run");
    assert_eq!(visible(&dir.path().join("out")), before);
}

#[test]
fn a_durable_sink_needs_a_checkpoint_and_a_place() {
    let session = Session::new().expect("a session");
    let (_, frame) = session.memory_stream("v BIGINT").expect("a stream");
    let dir = tempfile::tempdir().expect("a directory");
    let error = frame
        .write_stream()
        .format("parquet")
        .path(dir.path())
        .start()
        .map(|_| ())
        .expect_err("no checkpoint");
    assert!(error.to_string().contains("checkpointLocation"), "{error}");
    let file = dir.path().join("file");
    fs::write(&file, "x").expect("written");
    let started = frame
        .write_stream()
        .format("parquet")
        .option("checkpointLocation", dir.path().join("c").display());
    let error = started
        .path(&file)
        .start()
        .map(|_| ())
        .expect_err("a file in the place of a directory");
    assert!(error.to_string().contains("file"), "{error}");
}

#[test]
fn a_query_does_not_read_its_own_output() {
    let dir = tempfile::tempdir().expect("a directory");
    let input = dir.path().join("data/in");
    fs::create_dir_all(&input).expect("a directory");
    fs::write(input.join("a.txt"), "one\n").expect("a file");
    let session = Session::new().expect("a session");
    let start = |out: &str| {
        let lines = session.read_stream().format("text").path(&input).load()?;
        let checkpoint = dir.path().join("checkpoint").display().to_string();
        let query = lines
            .write_stream()
            .format("text")
            .trigger(Trigger::AvailableNow)
            .option("checkpointLocation", checkpoint)
            .path(dir.path().join(out))
            .start()?;
        query.await_termination()
    };
    for out in ["data/in", "data/in/out", "data"] {
        let error = start(out).expect_err("it would go on for ever").to_string();
        assert!(
            error.starts_with("the query would read its own output"),
            "{error}"
        );
    }
    start("data/out").expect("another directory");
}

#[test]
fn a_failing_epoch_is_not_visible_and_earlier_ones_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let input = dir.path().join("in");
    fs::create_dir(&input).expect("made");
    fs::write(input.join("1.txt"), "1\n2\n").expect("written");
    fs::write(input.join("2.txt"), "3\nnot a number\n5\n").expect("written");
    let session = Session::with_workers(2).expect("a session");
    let lines = session
        .read_stream()
        .format("text")
        .option("maxFilesPerTrigger", 1)
        .path(&input)
        .load();
    let numbers = lines
        .and_then(|lines| lines.select_expr(["CAST(value AS INT) AS n"]))
        .expect("a query");
    let out = dir.path().join("out");
    let query = numbers
        .write_stream()
        .format("json")
        .option(
            "checkpointLocation",
            dir.path().join("checkpoint").display(),
        )
        .option("commitInterval", "0 seconds")
        .path(&out)
        .start()
        .expect("started");
    let error = query.await_termination().expect_err("a malformed row");
    assert_eq!(
        error.class().as_deref(),
        Some("CAST_INVALID_INPUT"),
        "{error}"
    );
    let text: String = visible(&out)
        .iter()
        .map(|name| fs::read_to_string(out.join(name)).expect("text"))
        .collect();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["{\"n\":1}", "{\"n\":2}"]);
    // The session outlives the query.
    assert!(
        session
            .sql("SELECT 1 AS one")
            .and_then(|frame| frame.collect())
            .is_ok()
    );
}

#[test]
fn a_union_has_the_names_of_its_first_side() {
    let dir = tempfile::tempdir().expect("a directory");
    let devices = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/devices");
    let session = Session::with_workers(2).expect("a session");
    let input = session
        .read_stream()
        .format("json")
        .schema(SCHEMA)
        .and_then(|reader| reader.path(devices).load())
        .expect("a stream");
    input.create_or_replace_temp_view("t").expect("a view");
    for format in ["parquet", "json"] {
        let out = dir.path().join(format);
        let query = session
            .sql("SELECT device, signal AS s FROM t UNION ALL SELECT 'all', 1L FROM t WHERE signal > 15")
            .and_then(|frame| {
                let writer = frame.write_stream().format(format).trigger(Trigger::AvailableNow);
                let checkpoint = dir.path().join(format!("{format}-checkpoint"));
                writer.option("checkpointLocation", checkpoint.display()).path(&out).start()
            });
        query
            .and_then(|query| query.await_termination())
            .unwrap_or_else(|e| panic!("{format}: {e}"));
        let read = session
            .read()
            .format(format)
            .schema("device STRING, s BIGINT")
            .and_then(|reader| reader.path(&out).load())
            .expect("written");
        read.create_or_replace_temp_view("written").expect("a view");
        let text = |sql| canonical(&common::rows_of(&session, sql));
        assert_eq!(
            text("SELECT count(*), count(s) FROM written WHERE device <> 'all'"),
            ["60|60"]
        );
        let all = text("SELECT count(*) FROM written WHERE device = 'all'");
        assert_eq!(
            all,
            text("SELECT count(*) FROM written WHERE device <> 'all' AND s > 15")
        );
    }
}
