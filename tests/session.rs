//! Sessions: queries installed and dropped while it runs, side by side, from several threads; static frames; views.

#![allow(clippy::disallowed_methods, reason = "a test gives up after a time")]

#[path = "session/chains.rs"]
mod chains;
#[path = "session/clock.rs"]
mod clock;
#[path = "session/code.rs"]
mod code;
#[path = "common/mod.rs"]
mod common;
#[path = "session/edges.rs"]
mod edges;
#[path = "session/explained.rs"]
mod explained;
#[path = "session/idle.rs"]
mod idle;
#[path = "session/late.rs"]
mod late;
#[path = "session/limits.rs"]
mod limits;
#[path = "session/refusals.rs"]
mod refusals;
#[path = "session/reports.rs"]
mod reports;
#[path = "session/spill.rs"]
mod spill;
#[path = "session/statics.rs"]
mod statics;
#[path = "session/streams.rs"]
mod streams;

use std::sync::Arc;
use std::time::Duration;

use common::{canonical, rows_of};
use datafusion::arrow::array::{ArrayRef, Int64Array};
use datafusion::arrow::record_batch::RecordBatch;
use highwater::{DataFrame, MemorySource, OutputMode, Session, StreamingQuery, Trigger};

fn numbers(rows: &MemorySource, values: impl IntoIterator<Item = i64>) {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
    rows.add(RecordBatch::try_new(rows.schema(), vec![column]).expect("one column"))
        .expect("it fits");
}

fn count(frame: &DataFrame, name: &str) -> StreamingQuery {
    let counts = frame
        .agg([highwater::functions::count(highwater::prelude::lit(1)).alias("n")])
        .expect("a query");
    let writer = counts
        .write_stream()
        .output_mode(OutputMode::Complete)
        .format("memory")
        .query_name(name);
    writer.start().expect("started")
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task")
        .expect("threads")
        .count()
}

#[test]
fn queries_come_and_go_and_leave_nothing() {
    let session = Session::with_workers(2).expect("a session");
    let (rows, frame) = session.memory_stream("v BIGINT").expect("a stream");
    let run = |round: i64| {
        let query = count(&frame, "n");
        numbers(&rows, 0..3);
        query.process_all_available().expect("processed");
        assert_eq!(
            canonical(&rows_of(&session, "SELECT n FROM n")),
            ["3"],
            "round {round}"
        );
        query.stop().expect("stopped");
        assert!(!query.is_active());
    };
    run(0);
    let before = threads();
    (1..60).for_each(run);
    // Threads of a query end a moment after it; other tests of this binary start some of their own.
    let settled = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        threads() <= before + 20
    });
    assert!(settled, "{} threads, {before} before 60 queries", threads());
    assert!(session.streams().active().is_empty());
}

#[test]
fn queries_started_from_several_threads_run_side_by_side() {
    let session = Session::with_workers(3).expect("a session");
    let (rows, frame) = session.memory_stream("v BIGINT").expect("a stream");
    let queries: Vec<StreamingQuery> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..6)
            .map(|i| {
                let frame = frame.clone();
                scope.spawn(move || count(&frame, &format!("n{i}")))
            })
            .collect();
        starts
            .into_iter()
            .map(|start| start.join().expect("started"))
            .collect()
    });
    numbers(&rows, 0..1000);
    numbers(&rows, 0..500);
    for (i, query) in queries.iter().enumerate() {
        query.process_all_available().expect("processed");
        assert_eq!(
            canonical(&rows_of(&session, &format!("SELECT n FROM n{i}"))),
            ["1500"]
        );
    }
    assert_eq!(session.streams().active().len(), 6);
    // Dropping the session stops them.
    drop(session);
    drop(frame);
    drop(rows);
    for query in queries {
        assert!(
            query
                .await_termination_for(Duration::from_secs(10))
                .is_ok_and(|ended| ended)
        );
    }
}

#[test]
fn a_failing_query_leaves_the_others_alone() {
    let session = Session::with_workers(2).expect("a session");
    let (rows, frame) = session.memory_stream("v BIGINT").expect("a stream");
    let good = count(&frame, "good");
    let bad = frame.select_expr(["10 / v AS q"]).expect("a query");
    let bad = bad
        .write_stream()
        .format("memory")
        .query_name("bad")
        .start()
        .expect("started");
    numbers(&rows, [1, 2, 5]);
    bad.process_all_available().expect("processed");
    numbers(&rows, [5, 0, 1]);
    let error = bad.await_termination().expect_err("a division by zero");
    assert_eq!(error.class().as_deref(), Some("DIVIDE_BY_ZERO"), "{error}");
    assert_eq!(
        rows_of(&session, "SELECT * FROM bad")
            .iter()
            .map(RecordBatch::num_rows)
            .sum::<usize>(),
        3
    );
    good.process_all_available().expect("processed");
    assert_eq!(canonical(&rows_of(&session, "SELECT n FROM good")), ["6"]);
    good.stop().expect("stopped");
}

#[test]
fn a_name_is_one_query_s() {
    let session = Session::new().expect("a session");
    let (_rows, frame) = session.memory_stream("v BIGINT").expect("a stream");
    let first = count(&frame, "n");
    let again = frame
        .write_stream()
        .format("memory")
        .query_name("n")
        .start()
        .map(|_| ())
        .expect_err("taken");
    assert!(again.to_string().contains("\"n\""), "{again}");
    first.stop().expect("stopped");
    count(&frame, "n").stop().expect("stopped");
}

#[test]
fn streams_and_static_frames_say_what_they_cannot() {
    let session = Session::new().expect("a session");
    let (_rows, stream) = session.memory_stream("v BIGINT").expect("a stream");
    let error = stream
        .collect()
        .map(|_| ())
        .expect_err("a stream has no end");
    assert_eq!(
        error.class().as_deref(),
        Some("CALL_ON_STREAMING_DATASET_UNSUPPORTED"),
        "{error}"
    );
    let fixed = session.sql("SELECT 1 AS one").expect("a query");
    let error = fixed
        .write_stream()
        .format("console")
        .start()
        .map(|_| ())
        .expect_err("not a stream");
    assert_eq!(
        error.class().as_deref(),
        Some("WRITE_STREAM_NOT_ALLOWED"),
        "{error}"
    );
    for (mode, query, class) in [
        (
            OutputMode::Append,
            "SELECT v, count(*) FROM t GROUP BY v",
            "STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION",
        ),
        // A group whose last row moves to another one leaves, and update mode has no word for that.
        (
            OutputMode::Update,
            "SELECT n, count(*) FROM (SELECT v, count(*) AS n FROM t GROUP BY v) GROUP BY n",
            "_LEGACY_ERROR_TEMP_3102",
        ),
    ] {
        stream.create_or_replace_temp_view("t").expect("a view");
        let frame = session.sql(query).expect("a query");
        let error = frame
            .write_stream()
            .output_mode(mode)
            .format("console")
            .start()
            .map(|_| ())
            .expect_err("refused");
        assert_eq!(error.class().as_deref(), Some(class), "{error}");
    }
    let error = stream
        .write_stream()
        .format("console")
        .option("numRow", 3)
        .start()
        .map(|_| ())
        .expect_err("unknown");
    assert!(error.to_string().contains("\"numRow\""), "{error}");
}

#[test]
fn an_interval_paces_epochs() {
    let session = Session::new().expect("a session");
    let (rows, frame) = session.memory_stream("v BIGINT").expect("a stream");
    let writer = frame.write_stream().format("memory").query_name("paced");
    let query = writer
        .trigger(Trigger::every("300 milliseconds").expect("an interval"))
        .start()
        .expect("started");
    let end = std::time::Instant::now() + Duration::from_secs(1);
    while std::time::Instant::now() < end {
        numbers(&rows, [1]);
        std::thread::sleep(Duration::from_millis(10));
    }
    query.stop().expect("stopped");
    let epochs = query.committed().epochs;
    assert!(
        (2..=5).contains(&epochs),
        "{epochs} epochs in a second, one every 300 ms"
    );
}

#[test]
fn a_batch_takes_rows_in_order_where_order_decides() {
    let dir = tempfile::tempdir().expect("a directory");
    for file in 0..8 {
        let lines: String = (0..500)
            .map(|line| format!("{:06}\n", file * 500 + line))
            .collect();
        std::fs::write(dir.path().join(format!("{file}.txt")), lines).expect("written");
    }
    for workers in [1, 4] {
        let session = Session::with_workers(workers).expect("a session");
        let lines = session
            .read()
            .format("text")
            .path(dir.path())
            .load()
            .expect("a frame");
        lines.create_or_replace_temp_view("t").expect("a view");
        let rows = rows_of(
            &session,
            "SELECT first(value) AS f, last(value) AS l, size(collect_list(value)) AS n FROM t",
        );
        assert_eq!(
            canonical(&rows),
            ["000000|003999|4000"],
            "{workers} workers"
        );
    }
}
