//! Streams that are silent: after the time that the user names they no longer hold the watermark back.

use std::fs;
use std::path::Path;
use std::time::Instant;

use super::streams::clicks;
use super::*;

const TIMEOUT: &str = "2 seconds";

/// Rows of two streams by windows of ten seconds, each stream under a watermark of its own.
const WINDOWS: &str = "SELECT CAST(unix_timestamp(window(ts, '10 seconds').start) AS BIGINT) AS s, count(*) AS c FROM ( \
     SELECT ts FROM STREAM a WATERMARK ts DELAY OF INTERVAL 0 SECONDS UNION ALL \
     SELECT ts FROM STREAM b WATERMARK ts DELAY OF INTERVAL 0 SECONDS) AS t GROUP BY window(ts, '10 seconds')";

fn two(session: &Session) -> [MemorySource; 2] {
    ["a", "b"].map(|name| {
        let (rows, frame) = session.memory_stream("ts TIMESTAMP").expect("a stream");
        frame.create_or_replace_temp_view(name).expect("named");
        rows
    })
}

fn start(session: &Session, timeout: Option<&str>) -> StreamingQuery {
    let frame = session.sql(WINDOWS).expect("a query");
    let mut writer = frame.write_stream().format("memory").query_name("windows");
    if let Some(timeout) = timeout {
        writer = writer.option("idleTimeout", timeout);
    }
    writer.start().expect("started")
}

fn add(query: &StreamingQuery, rows: &MemorySource, seconds: &[i64]) {
    clicks(rows, seconds);
    query.process_all_available().expect("processed");
}

fn windows(session: &Session) -> Vec<String> {
    canonical(&rows_of(session, "SELECT s, c FROM windows"))
}

/// Waits until there are so many windows, whatever opens the epochs.
fn waits_for(session: &Session, count: usize) -> bool {
    let begun = Instant::now();
    while windows(session).len() < count {
        if begun.elapsed() > Duration::from_secs(20) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Longer than the timeout.
fn silence() {
    std::thread::sleep(Duration::from_millis(2100));
}

#[test]
fn a_silent_stream_holds_the_watermark_back_unless_a_timeout_is_given() {
    for workers in [1, 2] {
        let session = Session::with_workers(workers).expect("a session");
        let [a, b] = two(&session);
        let query = start(&session, None);
        add(&query, &a, &[5]);
        silence();
        add(&query, &a, &[65]);
        assert!(windows(&session).is_empty());
        add(&query, &b, &[7, 66]);
        assert_eq!(windows(&session), ["0|2"], "both have spoken");
        query.stop().expect("stopped");
    }
}

#[test]
fn a_stream_that_is_idle_lets_windows_close_and_counts_again_when_it_speaks() {
    for workers in [1, 3] {
        let session = Session::with_workers(workers).expect("a session");
        let [a, b] = two(&session);
        let query = start(&session, Some(TIMEOUT));
        add(&query, &a, &[5]);
        silence();
        add(&query, &a, &[25]);
        assert_eq!(windows(&session), ["0|1"], "b has never spoken");
        // Judged by 25, the watermark of all; its own stood at 0.
        add(&query, &b, &[9, 26, 22]);
        add(&query, &a, &[65]);
        assert_eq!(windows(&session), ["0|1"], "b holds back");
        silence();
        add(&query, &a, &[66]);
        assert_eq!(windows(&session), ["0|1", "20|3"], "what was late is gone");
        query.stop().expect("stopped");
    }
}

#[test]
fn a_timeout_needs_no_row_to_take_effect() {
    let session = Session::with_workers(2).expect("a session");
    session
        .set_conf("highwater.streaming.idleTimeout", "600ms")
        .expect("a setting");
    let [a, _b] = two(&session);
    let query = start(&session, None);
    add(&query, &a, &[5]);
    std::thread::sleep(Duration::from_millis(50));
    add(&query, &a, &[65]);
    assert!(waits_for(&session, 1), "nobody opened an epoch");
    assert_eq!(windows(&session), ["0|1"]);
    let epochs = query.recent_progress().len();
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(query.recent_progress().len(), epochs, "and no more of them");
    query.stop().expect("stopped");
    // What a query says itself counts more.
    let query = start(&session, Some("0 seconds"));
    add(&query, &a, &[105]);
    std::thread::sleep(Duration::from_millis(700));
    add(&query, &a, &[165]);
    assert!(windows(&session).is_empty());
    query.stop().expect("stopped");
}

#[test]
fn a_timeout_without_a_watermark_is_refused() {
    let session = Session::with_workers(1).expect("a session");
    let _rows = two(&session);
    let refused = |query: &str, timeout: &str| {
        let frame = session.sql(query).expect("a query");
        let writer = frame.write_stream().format("noop");
        let started = writer.option("idleTimeout", timeout).start();
        started.map(drop).expect_err("refused").to_string()
    };
    let error = refused("SELECT ts FROM STREAM a", TIMEOUT);
    assert!(error.contains("has no watermark"), "{error}");
    let error = refused(WINDOWS, "soon");
    assert!(error.contains("\"soon\" is no interval"), "{error}");
    let set = |value| session.set_conf("highwater.streaming.idleTimeout", value);
    assert!(set("soon").is_err());
    let table = |query: &str| {
        let options = "OPTIONS (idleTimeout '30 seconds')";
        let text = format!("CREATE STREAMING TABLE t USING noop {options} AS {query}");
        session.execute(&text).map(drop)
    };
    let error = table("SELECT ts FROM STREAM a").expect_err("refused");
    assert!(error.to_string().contains("has no watermark"), "{error}");
    table(WINDOWS).expect("started");
}

/// Two streams of files below `dir`, read with so many workers from the checkpoint there.
fn files_query(dir: &Path, workers: usize, timeout: Option<&str>) -> (Session, StreamingQuery) {
    let session = Session::with_workers(workers).expect("a session");
    for name in ["a", "b"] {
        let reader = session.read_stream().format("json");
        let input = dir.parent().expect("a directory").join(name);
        let frame = reader
            .schema("ts TIMESTAMP")
            .and_then(|reader| reader.path(input).load());
        let frame = frame.expect("a stream");
        frame.create_or_replace_temp_view(name).expect("named");
    }
    let writer = session.sql(WINDOWS).expect("a query").write_stream();
    let mut writer = writer
        .format("json")
        .path(dir.join("out"))
        .option("commitInterval", "0 seconds")
        .option("checkpointInterval", "1 hour")
        .option("checkpointLocation", dir.join("ck").display());
    if let Some(timeout) = timeout {
        writer = writer.option("idleTimeout", timeout);
    }
    let query = writer.start().expect("started");
    (session, query)
}

fn write(query: &StreamingQuery, stream: &Path, seconds: &[i64]) {
    let line = |s: &i64| format!("{{\"ts\":\"1970-01-01 00:{:02}:{:02}\"}}\n", s / 60, s % 60);
    let name = format!("{}.json", fs::read_dir(stream).expect("listed").count());
    let hidden = stream.join(format!(".{name}"));
    fs::write(&hidden, seconds.iter().map(line).collect::<String>()).expect("written");
    fs::rename(&hidden, stream.join(name)).expect("renamed");
    query.process_all_available().expect("processed");
}

fn written(dir: &Path) -> Vec<String> {
    let session = Session::with_workers(1).expect("a session");
    let rows = session.read().format("json").path(dir.join("out")).load();
    let rows = rows.and_then(|frame| frame.select_expr(["s", "c"]));
    canonical(&rows.and_then(|frame| frame.collect()).expect("rows"))
}

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        match entry.file_type().expect("a kind").is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).expect("copied")),
        }
    }
}

#[test]
fn a_restart_knows_for_how_long_streams_were_silent_and_a_replay_who_was_idle() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    for name in ["a", "b"] {
        fs::create_dir(at(name)).expect("made");
    }
    let (a, b, run) = (at("a"), at("b"), at("run"));
    let (_session, query) = files_query(&run, 2, Some("2 seconds"));
    write(&query, &b, &[3]);
    write(&query, &a, &[5]);
    query.stop().expect("stopped");
    std::thread::sleep(Duration::from_millis(2100));
    // The checkpoint says when b was heard: it is idle in the first epoch of this run.
    let (_session, query) = files_query(&run, 1, Some("2 seconds"));
    write(&query, &a, &[25]);
    write(&query, &a, &[26]);
    // Late by the watermark that has left b behind; on its own it would not be.
    write(&query, &b, &[4, 31]);
    write(&query, &a, &[65]);
    write(&query, &b, &[64]);
    query.process_all_available().expect("processed");
    let expected = ["0|2", "20|2", "30|1"];
    // Now the power is cut: nothing after the checkpoint of the first run but the log, and a sink that has nothing.
    let crashed = at("crashed");
    copy(&run.join("ck"), &crashed);
    fs::remove_dir_all(crashed.join("commits")).expect("removed");
    query.stop().expect("stopped");
    assert_eq!(written(&run), expected);
    for timeout in [Some("2 seconds"), None] {
        fs::remove_dir_all(&run).expect("removed");
        copy(&crashed, &run.join("ck"));
        let (_session, query) = files_query(&run, 3, timeout);
        query.process_all_available().expect("processed");
        query.stop().expect("stopped");
        assert_eq!(written(&run), expected, "replayed, timeout {timeout:?}");
    }
}
