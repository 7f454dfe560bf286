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

#[test]
fn files_that_are_too_old_are_told() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("in")).expect("made");
    let put = |name: &str, days: u64| {
        let path = dir.path().join("in").join(name);
        fs::write(&path, format!("{{\"v\":\"{name}\"}}\n")).expect("written");
        let file = fs::File::options().write(true).open(&path).expect("opened");
        #[allow(clippy::disallowed_methods, reason = "a file that is old by the clock")]
        let now = std::time::SystemTime::now();
        let time = now - std::time::Duration::from_secs(days * 86_400);
        file.set_modified(time).expect("an old file");
    };
    let run = |age: &str, run: &str| {
        let job = format!(
            "CREATE TABLE ev (v STRING) USING json OPTIONS (path 'in'{age});
             CREATE STREAMING TABLE t USING json OPTIONS (path 'out-{run}', checkpointLocation 'ck-{run}', \
             trigger 'availableNow') AS SELECT v FROM STREAM ev;"
        );
        fs::write(dir.path().join("job.sql"), job).expect("written");
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_highwater"))
            .current_dir(dir.path())
            .args(["run", "job.sql"])
            .output()
            .expect("the program runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        let session = Session::with_workers(1).expect("a session");
        let read = session
            .read()
            .format("json")
            .schema("v STRING")
            .expect("a schema");
        let rows = read.path(dir.path().join(format!("out-{run}"))).load();
        let rows = rows.and_then(|frame| frame.collect()).expect("read");
        (canonical(&rows).join(" "), told)
    };
    // The first epoch takes all that is there.
    put("new", 0);
    put("first", 20);
    let (rows, told) = run("", "a");
    assert_eq!(rows, "first new");
    assert!(!told.contains("maxFileAge"), "{told}");
    put("late", 8);
    put("young", 6);
    let (rows, told) = run("", "a");
    assert_eq!(rows, "first new young");
    let warning = told.lines().find(|line| line.contains("maxFileAge"));
    let warning = warning.unwrap_or_else(|| panic!("no warning: {told}"));
    assert!(
        warning.contains("WARN") && warning.contains("of the files in \\\"in\\\" are not read"),
        "{warning}"
    );
    // With a longer one from the start nothing is left out.
    put("new", 0);
    assert_eq!(run(", maxFileAge '30d'", "b").0, "first late new young");
    put("later", 25);
    let (rows, told) = run(", maxFileAge '30d'", "b");
    assert_eq!(rows, "first late later new young");
    assert!(!told.contains("are not read"), "{told}");
}

#[test]
fn patterns_of_dates_are_read_as_spark_reads_them() {
    let session = Session::with_workers(1).expect("a session");
    let one = |sql: &str| session.sql(sql).and_then(|frame| frame.collect());
    let value = |sql: &str| canonical(&one(sql).unwrap_or_else(|error| panic!("{sql}: {error}")));
    for (text, pattern, expected) in [
        ("2024-065", "yyyy-DDD", "2024-03-05"),
        ("2024-65", "yyyy-D", "2024-03-05"),
        ("2023-365", "yyyy-DDD", "2023-12-31"),
        ("2", "D", "1970-01-02"),
    ] {
        let sql = format!("SELECT to_date('{text}', '{pattern}')");
        assert_eq!(value(&sql), [expected], "{sql}");
    }
    for (text, pattern, class) in [
        (
            "Tue 2024-03-05",
            "E yyyy-MM-dd",
            "INCONSISTENT_BEHAVIOR_CROSS_VERSION.DATETIME_PATTERN_RECOGNITION",
        ),
        (
            "2024 1",
            "yyyy F",
            "INCONSISTENT_BEHAVIOR_CROSS_VERSION.DATETIME_PATTERN_RECOGNITION",
        ),
        (
            "2024 1",
            "yyyy Q",
            "INVALID_DATETIME_PATTERN.ILLEGAL_CHARACTER",
        ),
        (
            "2024 1",
            "yyyy q",
            "INVALID_DATETIME_PATTERN.ILLEGAL_CHARACTER",
        ),
    ] {
        let error = one(&format!("SELECT to_timestamp('{text}', '{pattern}')"));
        let error = error.expect_err("refused").to_string();
        assert!(error.contains(class), "{pattern}: {error}");
        let read = session
            .read()
            .format("csv")
            .schema("t TIMESTAMP")
            .expect("a schema");
        let read = read.option("timestampFormat", pattern).path("/").load();
        let error = read.map(|_| ()).expect_err("refused").to_string();
        assert!(
            error.contains(class) && error.contains("timestampFormat"),
            "{error}"
        );
    }
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(
        dir.path().join("a.csv"),
        "2024-065,2024-001\n2023-366,2024-366\n",
    )
    .expect("written");
    let read = session
        .read()
        .format("csv")
        .schema("t TIMESTAMP, d DATE")
        .expect("a schema");
    let read = read
        .option("timestampFormat", "yyyy-DDD")
        .option("dateFormat", "yyyy-DDD");
    let rows = read
        .path(dir.path())
        .load()
        .and_then(|frame| frame.collect());
    assert_eq!(
        canonical(&rows.expect("read")),
        ["2024-03-05T00:00:00Z|2024-01-01", "NULL|2024-12-31"]
    );
}
