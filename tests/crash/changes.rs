//! A query that goes on from a checkpoint may change in what its state and its output do not know of; other changes
//! are refused at the start, by what differs, and change nothing.

use std::fs;
use std::path::{Path, PathBuf};

use highwater::StreamWriter;
use highwater::prelude::*;

use super::common::{canonical, rows_of};

/// Directories with input, and the session that reads it as `v`.
struct Place {
    dir: tempfile::TempDir,
    session: Session,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("in")).expect("made");
        let session = Session::with_workers(2).expect("a session");
        let place = Place { dir, session };
        place.file(0);
        place.read("1");
        place
    }

    /// Reads the input by so many files an epoch.
    fn read(&self, files: &str) {
        let reader = self.session.read_stream().format("json");
        let frame = reader
            .schema("a BIGINT, b BIGINT, k STRING")
            .and_then(|reader| {
                let reader = reader.option("maxFilesPerTrigger", files);
                reader.path(self.at("in")).load()
            });
        let named = frame.and_then(|frame| frame.create_or_replace_temp_view("v"));
        named.expect("a view");
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, number: u64) {
        let row = |i: u64| format!("{{\"a\":{i},\"b\":{},\"k\":\"k{}\"}}\n", i * 2, i % 3);
        let rows: String = (number * 10..number * 10 + 10).map(row).collect();
        fs::write(self.at("in").join(format!("{number}.json")), rows).expect("written");
    }

    fn run(
        &self,
        sql: &str,
        change: impl FnOnce(StreamWriter) -> StreamWriter,
    ) -> highwater::Result<()> {
        let writer = self.session.sql(sql)?.write_stream();
        let writer = writer
            .trigger(Trigger::AvailableNow)
            .option("checkpointLocation", self.at("ck").display());
        change(writer).start()?.await_termination()
    }

    /// How it is refused.
    fn refused(&self, sql: &str, change: impl FnOnce(StreamWriter) -> StreamWriter) -> String {
        let before = generations(&self.at("ck"));
        let error = self.run(sql, change).expect_err("refused").to_string();
        assert!(error.contains("use a new checkpoint directory"), "{error}");
        assert_eq!(generations(&self.at("ck")), before, "it did not begin");
        error
    }
}

fn generations(checkpoint: &Path) -> usize {
    let listed = fs::read_dir(checkpoint.join("generations"));
    listed.expect("listed").count()
}

#[test]
fn another_output_is_refused() {
    let place = Place::new();
    let sql = "SELECT a, b, k FROM v";
    let out = place.at("out");
    let to = |format: &'static str, out: &Path, by: &[&'static str]| {
        let (out, by) = (out.to_path_buf(), by.to_vec());
        move |writer: StreamWriter| writer.format(format).path(out).partition_by(by)
    };
    place
        .run(sql, to("json", &out, &["k"]))
        .expect("the first run");
    let says = [
        (
            place.refused(sql, to("parquet", &out, &["k"])),
            "the kind of its sink was json, and is now parquet",
        ),
        (
            place.refused(sql, |writer| writer.format("noop")),
            "was json, and is now noop",
        ),
        (
            place.refused(sql, to("json", &place.at("out2"), &["k"])),
            "/out, and is now ",
        ),
        (
            place.refused(sql, to("json", &out, &[])),
            "the partitioning of its sink was by k, and is now none",
        ),
        (
            place.refused(sql, to("json", &out, &["k", "b"])),
            "was by k, and is now by k, b",
        ),
        (
            place.refused("SELECT a, b AS c, k FROM v", to("json", &out, &["k"])),
            "the columns of its sink was a Int64, b Int64, k Utf8, and is now a Int64, c Int64, k Utf8",
        ),
        (
            place.refused(
                "SELECT a, CAST(b AS STRING) AS b, k FROM v",
                to("json", &out, &["k"]),
            ),
            "and is now a Int64, b Utf8, k Utf8",
        ),
    ];
    for (error, expected) in says {
        assert!(error.contains(expected), "no \"{expected}\" in: {error}");
    }
    assert!(!place.at("out2").exists(), "nothing was made");
    // What does no harm: how fast it reads and writes, how files are packed, what rows it takes.
    place.file(1);
    place.read("7");
    let packed = |writer: StreamWriter| {
        let writer = to("json", &out, &["k"])(writer).option("compression", "gzip");
        writer
            .option("commitInterval", "0 seconds")
            .trigger(Trigger::Once)
    };
    place
        .run("SELECT a, b + 1 AS b, k FROM v WHERE a > 12", packed)
        .expect("harmless");
    let read = place
        .session
        .read()
        .format("json")
        .schema("a BIGINT, b BIGINT");
    let read = read.and_then(|reader| reader.path(&out).load());
    let named = read.and_then(|frame| frame.create_or_replace_temp_view("written"));
    named.expect("read");
    let rows = rows_of(&place.session, "SELECT count(*), sum(b) FROM written");
    let sum = (0..10).map(|i| i * 2).sum::<i64>() + (13..20).map(|i| i * 2 + 1).sum::<i64>();
    assert_eq!(canonical(&rows), [format!("17|{sum}")]);
}

#[test]
fn keys_and_values_are_followed_down_to_the_sources() {
    let place = Place::new();
    let grouped = |below: &str| format!("SELECT k, sum(n) AS s FROM ({below}) AS t GROUP BY k");
    let update = |writer: StreamWriter| writer.format("noop").output_mode(OutputMode::Update);
    let first = grouped("SELECT a % 2 AS k, b AS n FROM v");
    place.run(&first, update).expect("the first run");
    let says = [
        (grouped("SELECT a % 3 AS k, b AS n FROM v"), "keys were remainder(source-0.a, 2), and are now remainder(source-0.a, 3)"),
        (grouped("SELECT b % 2 AS k, b AS n FROM v"), "remainder(source-0.b, 2)"),
        (grouped("SELECT a % 2 AS k, a AS n FROM v"), "values were sum(source-0.b), and are now sum(source-0.a)"),
        (
            grouped("SELECT k, n FROM (SELECT x % 2 AS k, b AS n FROM (SELECT a + 1 AS x, b FROM v) AS u) AS w"),
            "source-0.a, 1",
        ),
        (
            "SELECT k, sum(n) FILTER (WHERE n > 3) AS s FROM (SELECT a % 2 AS k, b AS n FROM v) AS t GROUP BY k".into(),
            "n > ",
        ),
    ];
    for (sql, expected) in says {
        let error = place.refused(&sql, update);
        assert!(error.contains("aggregate-0"), "{error}");
        assert!(error.contains(expected), "no \"{expected}\" in: {error}");
    }
    let complete = |writer: StreamWriter| writer.format("noop").output_mode(OutputMode::Complete);
    let error = place.refused(&first, complete);
    assert!(
        error.contains("output mode was update, and is now complete"),
        "{error}"
    );
    // The same in other words, and over other rows.
    for below in [
        "SELECT a % 2 AS k, b AS n FROM v WHERE b <> 4 AND k <> 'k1'",
        "SELECT x % 2 AS k, y AS n FROM (SELECT a AS x, b AS y, k FROM v) AS u",
    ] {
        place.run(&grouped(below), update).expect(below);
    }
}

#[test]
fn another_source_is_refused() {
    let place = Place::new();
    let run = |format: &str, path: &str| {
        let reader = place.session.read_stream().format(format);
        let frame = reader
            .schema("a BIGINT, b BIGINT, k STRING")
            .and_then(|reader| {
                let reader = reader.option("maxFilesPerTrigger", format.len());
                reader.path(place.at(path)).load()
            });
        let named = frame.and_then(|frame| frame.create_or_replace_temp_view("v"));
        named.expect("a view");
    };
    let to = |writer: StreamWriter| writer.format("json").path(place.at("out"));
    let sql = "SELECT a, k FROM v";
    place.run(sql, to).expect("it runs");
    fs::create_dir(place.at("in2")).expect("made");
    run("csv", "in");
    let error = place.refused(sql, to);
    assert!(error.contains("was json, and is now csv"), "{error}");
    run("json", "in2");
    let error = place.refused(sql, to);
    assert!(
        error.contains("the path of its source") && error.contains("in2"),
        "{error}"
    );
    run("json", "in");
    place.run(sql, to).expect("as it was, but for the rate");
}

#[test]
fn a_project_that_was_moved_is_not_read_again() {
    let place = Place::new();
    let project = place.at("project");
    fs::create_dir_all(project.join("in")).expect("made");
    fs::copy(place.at("in/0.json"), project.join("in/0.json")).expect("copied");
    // Rows go to memory, so that the sink does not say first that it is elsewhere.
    let count = |project: &Path| {
        let reader = place.session.read_stream().format("json");
        // As a program in the project's directory would have it, which a test cannot change.
        let frame = reader.schema("a BIGINT")?.path(project.join("in")).load()?;
        let writer = frame.group_by(["a"])?.count()?.write_stream();
        writer
            .output_mode(OutputMode::Complete)
            .trigger(Trigger::AvailableNow)
            .option("checkpointLocation", project.join("ck").display())
            .format("noop")
            .start()?
            .await_termination()
    };
    count(&project).expect("it runs");
    let moved = place.at("moved");
    fs::rename(&project, &moved).expect("moved");
    let error = count(&moved).expect_err("refused").to_string();
    assert!(error.contains("moved/in"), "{error}");
}

#[test]
fn a_query_that_is_stopped_while_it_replays_ends() {
    let place = Place::new();
    for number in 1..200 {
        place.file(number);
    }
    let start = |ck: &Path, trigger: Trigger| {
        let frame = place
            .session
            .sql("SELECT k, count(*) AS n FROM v GROUP BY k")?;
        frame
            .write_stream()
            .output_mode(OutputMode::Complete)
            .trigger(trigger)
            .option("checkpointLocation", ck.display())
            .option("checkpointInterval", "1 hour")
            .format("memory")
            .query_name("counts")
            .start()
    };
    let query = start(&place.at("ck"), Trigger::Default).expect("started");
    query.process_all_available().expect("processed");
    // As a crash leaves it: everything logged, and no checkpoint at the end.
    let crashed = place.at("crashed");
    copy(&place.at("ck"), &crashed);
    query.stop().expect("stopped");
    for round in 0..20 {
        let query = start(&crashed, Trigger::Default).expect("started");
        std::thread::sleep(std::time::Duration::from_millis(round));
        query.stop().expect("stopped");
    }
    place.file(200);
    start(&crashed, Trigger::AvailableNow)
        .and_then(|query| query.await_termination())
        .expect("it runs to the end");
    let counts = rows_of(&place.session, "SELECT sum(n) AS n FROM counts");
    assert_eq!(canonical(&counts), ["2010"]);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed").flatten() {
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).expect("copied")),
        }
    }
}
