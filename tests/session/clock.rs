//! The current time in a streaming query: that of the epoch that brings a row, in every run of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::idle::copy;
use super::*;

/// The stream `t` of files below `dir`, and a query over it from the checkpoint there.
fn files_query(dir: &Path, workers: usize, sql: &str) -> (Session, StreamingQuery) {
    let session = Session::with_workers(workers).expect("a session");
    let reader = session.read_stream().format("json");
    let input = dir.parent().expect("a directory").join("in");
    let frame = reader
        .schema("v BIGINT, k STRING")
        .and_then(|reader| reader.path(input).load());
    let frame = frame.expect("a stream");
    frame.create_or_replace_temp_view("t").expect("named");
    let writer = session.sql(sql).expect("a query").write_stream();
    let writer = writer
        .format("json")
        .path(dir.join("out"))
        .option("commitInterval", "0 seconds")
        .option("checkpointInterval", "1 hour")
        .option("checkpointLocation", dir.join("ck").display());
    let query = writer.start().expect("started");
    (session, query)
}

fn write(query: &StreamingQuery, input: &Path, values: &[i64]) {
    let line = |v: &i64| format!("{{\"v\":{v},\"k\":\"k\"}}\n");
    let name = format!("{}.json", fs::read_dir(input).expect("listed").count());
    let hidden = input.join(format!(".{name}"));
    fs::write(&hidden, values.iter().map(line).collect::<String>()).expect("written");
    fs::rename(&hidden, input.join(name)).expect("renamed");
    query.process_all_available().expect("processed");
}

fn written(dir: &Path) -> Vec<String> {
    let session = Session::with_workers(1).expect("a session");
    let reader = session.read().format("json");
    let reader = reader.schema("v BIGINT, seen TIMESTAMP, same BOOLEAN, day DATE");
    let rows = reader.and_then(|reader| reader.path(dir.join("out")).load());
    canonical(&rows.and_then(|frame| frame.collect()).expect("rows"))
}

#[test]
fn rows_have_the_time_of_their_epoch_and_a_replay_gives_them_the_same() {
    // The column that is not read is below the one with the time.
    let sql = "SELECT v, seen, seen = now() AS same, CAST(seen AS DATE) AS day \
               FROM (SELECT v, current_timestamp() AS seen FROM t WHERE current_date() > DATE'2020-01-01') \
               WHERE seen <= now() AND v <> 3";
    let dir = tempfile::tempdir().expect("a directory");
    let (input, run) = (dir.path().join("in"), dir.path().join("run"));
    fs::create_dir(&input).expect("made");
    let (_session, query) = files_query(&run, 2, sql);
    let before = chrono_now();
    write(&query, &input, &[1, 2, 3]);
    write(&query, &input, &[4, 5]);
    let after = chrono_now();
    let crashed = dir.path().join("crashed");
    copy(&run.join("ck"), &crashed);
    fs::remove_dir_all(crashed.join("commits")).expect("removed");
    query.stop().expect("stopped");
    let first = written(&run);
    assert_eq!(first.len(), 4);
    let seen = |row: &String| row.split('|').nth(1).expect("a time").to_string();
    let times: Vec<String> = first.iter().map(seen).collect();
    let different: BTreeSet<&String> = times.iter().collect();
    assert_eq!(
        (different.len(), &times[0], &times[2]),
        (2, &times[1], &times[3])
    );
    assert!(
        times.iter().all(|time| before <= *time && *time <= after),
        "{before} {times:?} {after}"
    );
    assert!(first.iter().all(|row| row.contains("|true|")), "{first:?}");
    for workers in [1, 3] {
        fs::remove_dir_all(&run).expect("removed");
        copy(&crashed, &run.join("ck"));
        let (_session, query) = files_query(&run, workers, sql);
        query.process_all_available().expect("processed");
        query.stop().expect("stopped");
        assert_eq!(written(&run), first, "replayed by {workers}");
    }
}

/// The time now as a query writes it, cut to milliseconds.
fn chrono_now() -> String {
    let session = Session::with_workers(1).expect("a session");
    let now = rows_of(&session, "SELECT date_trunc('MILLISECOND', now()) AS now");
    canonical(&now).remove(0)
}

#[test]
fn the_time_is_that_of_the_rows_below_what_keeps_them() {
    let session = Session::with_workers(2).expect("a session");
    let (rows, stream) = session.memory_stream("v BIGINT").expect("a stream");
    let stream = stream.create_or_replace_temp_view("t");
    stream.expect("named");
    let sql = "SELECT v, min(seen) = max(seen) AS once, count(*) AS c FROM \
               (SELECT v, current_timestamp() AS seen FROM t UNION ALL SELECT v, NULL FROM t) GROUP BY v";
    let frame = session.sql(sql).expect("a query");
    let writer = frame.write_stream().output_mode(OutputMode::Complete);
    let query = writer.format("memory").query_name("out").start();
    let query = query.expect("started");
    numbers(&rows, [1, 1, 2]);
    query.process_all_available().expect("processed");
    std::thread::sleep(Duration::from_millis(5));
    numbers(&rows, [2]);
    query.process_all_available().expect("processed");
    let out = canonical(&rows_of(&session, "SELECT * FROM out"));
    assert_eq!(out, ["1|true|4", "2|false|4"]);
    query.stop().expect("stopped");
}

#[test]
fn a_lambda_has_the_time_of_its_row() {
    let session = Session::with_workers(1).expect("a session");
    let sql = "SELECT transform(array(1, v), x -> x > 1 AND now() = current_timestamp()) AS a, \
               exists(array(array(v)), x -> exists(x, y -> current_date() > DATE'2020-01-01')) AS e FROM t";
    let batch = session.sql("SELECT 2 AS v").expect("a batch");
    batch.create_or_replace_temp_view("t").expect("named");
    assert_eq!(canonical(&rows_of(&session, sql)), ["[false, true]|true"]);
    let (rows, stream) = session.memory_stream("v BIGINT").expect("a stream");
    stream.create_or_replace_temp_view("t").expect("named");
    let writer = session.sql(sql).expect("a query").write_stream();
    let query = writer.format("memory").query_name("out").start();
    let query = query.expect("started");
    numbers(&rows, [2]);
    query.process_all_available().expect("processed");
    let out = canonical(&rows_of(&session, "SELECT * FROM out"));
    assert_eq!(out, ["[false, true]|true"]);
    query.stop().expect("stopped");
}

#[test]
fn above_what_keeps_rows_there_is_no_current_time() {
    let session = Session::new().expect("a session");
    let (_rows, stream) = session.memory_stream("v BIGINT").expect("a stream");
    stream.create_or_replace_temp_view("t").expect("a view");
    for query in [
        "SELECT v, current_timestamp() AS c FROM (SELECT DISTINCT v FROM t)",
        "SELECT max(now()) AS m FROM t",
        "SELECT v, count(*) AS c FROM t GROUP BY v HAVING current_date() > DATE'2020-01-01'",
    ] {
        let frame = session.sql(query).expect("a query");
        let writer = frame.write_stream().output_mode(OutputMode::Update);
        let started = writer.format("console").start();
        let error = started.map(|_| ()).expect_err(query).to_string();
        let told = ["[UNSUPPORTED_FEATURE]", "current_timestamp() AS seen"];
        assert!(
            told.iter().all(|part| error.contains(part)),
            "{query}: {error}"
        );
    }
}
