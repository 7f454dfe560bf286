//! Handles, the manager, progress reports and listeners.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use datafusion::arrow::array::TimestampMicrosecondArray;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::record_batch::RecordBatch;
use highwater::functions::{avg, count as count_of, max, sum};
use highwater::prelude::{col, lit};
use highwater::{
    Error, MemorySource, Observation, OutputMode, QueryIdle, QueryProgress, QueryStarted,
    QueryTerminated, Session, StreamingQuery, StreamingQueryListener, Trigger,
};

use super::common::{canonical, rows_of};
use super::{count, numbers, threads};

/// What it heard, one line an event.
#[derive(Default)]
struct Scribe(Mutex<Vec<String>>);

impl Scribe {
    fn note(&self, line: String) {
        self.0.lock().expect("not poisoned").push(line);
    }

    fn heard(&self) -> Vec<String> {
        self.0.lock().expect("not poisoned").clone()
    }

    /// Waits until a line begins with `start`.
    fn hears(&self, start: &str) -> bool {
        (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            self.heard().iter().any(|line| line.starts_with(start))
        })
    }
}

impl StreamingQueryListener for Scribe {
    fn on_query_started(&self, event: &QueryStarted) {
        self.note(format!(
            "started {}",
            event.name.clone().unwrap_or_default()
        ));
    }
    fn on_query_progress(&self, event: &QueryProgress) {
        let progress = &event.progress;
        let name = progress.name.clone().unwrap_or_default();
        self.note(format!("progress {name} {}", progress.batch_id));
    }
    fn on_query_idle(&self, event: &QueryIdle) {
        self.note(format!("idle {}", event.run_id));
    }
    fn on_query_terminated(&self, event: &QueryTerminated) {
        let class = event.error_class.clone().unwrap_or_default();
        self.note(format!("ended {class}"));
    }
}

/// Panics whenever it is called.
struct Clumsy;

impl StreamingQueryListener for Clumsy {
    fn on_query_started(&self, _: &QueryStarted) {
        panic!("clumsy");
    }
    fn on_query_progress(&self, _: &QueryProgress) {
        panic!("clumsy");
    }
}

fn copy(session: &Session, name: &str) -> (MemorySource, StreamingQuery) {
    let (rows, frame) = session.memory_stream("v BIGINT").expect("a stream");
    let quotients = frame.select_expr(["10 / v AS q"]).expect("a query");
    let writer = quotients.write_stream().format("memory").query_name(name);
    (rows, writer.start().expect("started"))
}

#[test]
fn progress_says_what_an_epoch_did() {
    let session = Session::with_workers(2).expect("a session");
    let (rows, frame) = session.memory_stream("k BIGINT").expect("a stream");
    let counts = frame.group_by(["k"]).and_then(|groups| groups.count());
    let query = counts
        .expect("a query")
        .write_stream()
        .output_mode(OutputMode::Update)
        .format("memory")
        .query_name("counts")
        .start()
        .expect("started");
    assert!(query.last_progress().is_none());
    numbers(&rows, (0..100).map(|v| v % 10));
    query.process_all_available().expect("processed");
    numbers(&rows, (0..60).map(|v| v % 15));
    query.process_all_available().expect("processed");
    let reports = query.recent_progress();
    assert_eq!(reports.len(), 2);
    let seen: Vec<_> = reports
        .iter()
        .map(|report| {
            let state = &report.state_operators[0];
            let rows = (report.num_input_rows, report.sink.num_output_rows);
            let state = (state.num_rows_total, state.num_rows_updated);
            (report.batch_id, rows, state)
        })
        .collect();
    assert_eq!(seen, [(0, (100, 10), (10, 10)), (1, (60, 15), (15, 15))]);
    let last = query.last_progress().expect("reported");
    assert_eq!(last.id, query.id());
    assert_eq!(last.run_id, query.run_id());
    assert_ne!(query.id(), query.run_id());
    let state = &last.state_operators[0];
    assert_eq!(state.operator_name, "stateStoreSave");
    assert_eq!(state.num_state_store_instances, 2);
    assert!(
        (100..100_000).contains(&state.memory_used_bytes),
        "15 keys in {} bytes",
        state.memory_used_bytes
    );
    let source = &last.sources[0];
    assert_eq!(source.description, "MemoryStream");
    assert_eq!(
        [&source.start_offset, &source.end_offset].map(ToString::to_string),
        ["1", "2"]
    );
    assert!(last.processed_rows_per_second > 1.0 && last.input_rows_per_second > 1.0);
    // What an idle query last did stays what it last did.
    assert_eq!(query.status().message, "Waiting for data to arrive");
    assert!(!query.status().is_trigger_active && !query.status().is_data_available);
    let plan = query.explain();
    assert!(plan.contains("state: one row a group"), "{plan}");
    assert!(query.explain_extended().contains("== Resolved plan =="));
    query.stop().expect("stopped");
    assert_eq!(query.status().message, "Stopped");
    assert_eq!(query.recent_progress().len(), 2);
}

/// Rows `at` these seconds.
pub(super) fn clicks(rows: &MemorySource, seconds: &[i64]) {
    let micros = seconds.iter().map(|second| second * 1_000_000);
    let DataType::Timestamp(_, zone) = rows.schema().field(0).data_type().clone() else {
        panic!("a timestamp");
    };
    let at = TimestampMicrosecondArray::from_iter_values(micros).with_timezone_opt(zone);
    let rows_at = RecordBatch::try_new(rows.schema(), vec![Arc::new(at)]).expect("one column");
    rows.add(rows_at).expect("it fits");
}

#[test]
fn progress_has_event_times_late_rows_and_what_the_watermark_removed() {
    for (workers, mode) in [
        (1, OutputMode::Append),
        (3, OutputMode::Append),
        (1, OutputMode::Update),
    ] {
        let session = Session::with_workers(workers).expect("a session");
        let (rows, frame) = session.memory_stream("at TIMESTAMP").expect("a stream");
        let windows = frame
            .with_watermark("at", "10 seconds")
            .and_then(|frame| {
                frame.group_by([highwater::functions::window(col("at"), "5 seconds")])
            })
            .and_then(|groups| groups.count())
            .expect("a query");
        let query = windows
            .write_stream()
            .output_mode(mode)
            .format("noop")
            .start()
            .expect("started");
        let epochs = |seconds: &[i64]| {
            let before = query
                .last_progress()
                .map_or(0, |report| report.batch_id + 1);
            clicks(&rows, seconds);
            query.process_all_available().expect("processed");
            let reports = query.recent_progress();
            let new = reports
                .into_iter()
                .filter(|report| report.batch_id >= before);
            new.collect::<Vec<_>>()
        };
        let first = epochs(&[10, 12, 25]);
        let at = |name: &str| first[0].event_time[name].as_str();
        assert_eq!(at("min"), "1970-01-01T00:00:10.000Z");
        assert_eq!(at("max"), "1970-01-01T00:00:25.000Z");
        assert_eq!(at("avg"), "1970-01-01T00:00:15.666Z");
        assert_eq!(at("watermark"), "1970-01-01T00:00:00.000Z");
        assert_eq!(first[0].state_operators[0].num_rows_total, 2);
        // An epoch without rows follows, with the watermark of 15 seconds, which ends the first window.
        let last = first.last().expect("reported");
        assert_eq!(last.num_input_rows, 0);
        assert_eq!(last.event_time["watermark"], "1970-01-01T00:00:15.000Z");
        assert_eq!(last.event_time.len(), 1);
        let state = &last.state_operators[0];
        assert_eq!((state.num_rows_removed, state.num_rows_total), (1, 1));
        let second = epochs(&[11, 13, 26]);
        let state = &second[0].state_operators[0];
        assert_eq!(
            state.num_rows_dropped_by_watermark, 1,
            "one group of late rows"
        );
        assert_eq!((state.num_rows_updated, state.num_rows_total), (1, 1));
        query.stop().expect("stopped");
    }
}

/// Rows in state at the end of `join`, of streams in which every other row has no event time.
fn kept_of_untimed(mode: OutputMode, join: &str) -> u64 {
    let session = Session::with_workers(2).expect("a session");
    let sides = ["l", "r"].map(|name| {
        let (rows, frame) = session.memory_stream("k BIGINT").expect("a stream");
        let time = "CASE WHEN k % 2 = 0 THEN timestamp_seconds(k) END AS at";
        let timed = frame.select_expr(["k", time]);
        let timed = timed.and_then(|frame| frame.with_watermark("at", "10 seconds"));
        let named = timed.and_then(|frame| frame.create_or_replace_temp_view(name));
        named.expect("a view");
        rows
    });
    let rows = session.sql(&format!("SELECT l.k FROM l {join}"));
    let writer = rows.expect("a query").write_stream().format("noop");
    let query = writer.output_mode(mode).start();
    let query = query.expect("started");
    for epoch in 0..20 {
        query.pause();
        for (side, rows) in sides.iter().enumerate() {
            // They meet in every fourth row.
            numbers(
                rows,
                (0..20).map(|row| epoch * 100 + row * (2 * side as i64 + 1)),
            );
        }
        query.resume();
        query.process_all_available().expect("processed");
    }
    let last = query.last_progress().expect("reported");
    query.stop().expect("stopped");
    last.state_operators[0].num_rows_total
}

#[test]
fn rows_without_an_event_time_stay_only_where_the_model_keeps_them() {
    let range = "r.k = l.k AND r.at BETWEEN l.at AND l.at + INTERVAL 5 SECONDS";
    let most = 40;
    for kind in ["LEFT", "RIGHT", "FULL", "LEFT ANTI"] {
        for on in [range, "r.at = l.at"] {
            let kept = kept_of_untimed(OutputMode::Changes, &format!("{kind} JOIN r ON {on}"));
            assert!(kept <= most, "{kind} ON {on}: {kept}");
        }
    }
    for on in [range, "r.at = l.at"] {
        let kept = kept_of_untimed(OutputMode::Append, &format!("LEFT ANTI JOIN r ON {on}"));
        assert!(kept <= most, "append ON {on}: {kept}");
        let kept = kept_of_untimed(OutputMode::Append, &format!("LEFT JOIN r ON {on}"));
        assert!(
            (200..200 + most).contains(&kept),
            "append outer ON {on}: {kept}"
        );
    }
}

/// The windows of ten seconds, from the first on, and how many pairs of rows each has, of a join that pairs rows of any
/// time; and how many pairs were late.
fn pairs_in_windows(mode: OutputMode) -> (Vec<String>, u64) {
    let session = Session::with_workers(2).expect("a session");
    let sides = ["l", "r"].map(|name| {
        let (rows, frame) = session.memory_stream("k BIGINT").expect("a stream");
        let timed = frame.select_expr(["k", "timestamp_seconds(k) AS at"]);
        let timed = timed.and_then(|frame| frame.with_watermark("at", "10 seconds"));
        let named = timed.and_then(|frame| frame.create_or_replace_temp_view(name));
        named.expect("a view");
        rows
    });
    let sql = "SELECT unix_seconds(w.start) AS start, count(*) AS pairs FROM \
               (SELECT window(l.at, '10 seconds') AS w FROM l JOIN r ON l.k % 2 = r.k % 2) GROUP BY w";
    let writer = session.sql(sql).expect("a query").write_stream();
    let writer = writer.format("memory").query_name("out").output_mode(mode);
    let query = writer.start().expect("started");
    for [left, right] in [
        [vec![1, 3], vec![1]],
        [vec![100], vec![100]],
        [vec![], vec![101]],
    ] {
        query.pause();
        numbers(&sides[0], left);
        numbers(&sides[1], right);
        query.resume();
        query.process_all_available().expect("processed");
    }
    let reports = query.recent_progress();
    query.stop().expect("stopped");
    let operators = reports.iter().flat_map(|report| &report.state_operators);
    let late = operators.map(|state| state.num_rows_dropped_by_watermark);
    let last = match mode {
        OutputMode::Changes => {
            "SELECT start, pairs FROM out GROUP BY start, pairs HAVING sum(_change) > 0"
        }
        _ => "SELECT start, max(pairs) FROM out GROUP BY start",
    };
    (canonical(&rows_of(&session, last)), late.sum())
}

#[test]
fn pairs_of_rows_of_any_time_are_late_where_the_model_has_them_late() {
    let (rows, late) = pairs_in_windows(OutputMode::Append);
    assert_eq!((rows, late), (vec!["0|2".to_string()], 1));
    let (rows, late) = pairs_in_windows(OutputMode::Update);
    assert_eq!((rows, late), (vec!["0|2".into(), "100|1".into()], 1));
    // The rows are kept, so all pairs count.
    let (rows, late) = pairs_in_windows(OutputMode::Changes);
    assert_eq!((rows, late), (vec!["0|4".into(), "100|1".into()], 0));
}

#[test]
fn state_rows_are_keys_whatever_the_number_of_workers() {
    for workers in [1, 3] {
        let session = Session::with_workers(workers).expect("a session");
        let (rows, frame) = session.memory_stream("k BIGINT").expect("a stream");
        let groups = frame.group_by([col("k") % lit(1000)]).expect("groups");
        let query = groups
            .agg([sum(col("k")).alias("s")])
            .expect("a query")
            .write_stream()
            .output_mode(OutputMode::Update)
            .format("noop")
            .start()
            .expect("started");
        let mut keys = std::collections::BTreeSet::new();
        for epoch in 0..20i64 {
            let values: Vec<i64> = (0..300)
                .map(|i| (i * 7 + epoch * epoch * 31) % 5000)
                .collect();
            keys.extend(values.iter().map(|v| v % 1000));
            numbers(&rows, values);
            query.process_all_available().expect("processed");
            let state = &query.last_progress().expect("reported").state_operators[0];
            assert_eq!(state.num_rows_total, keys.len() as u64, "{workers} workers");
        }
        query.stop().expect("stopped");
    }
}

#[test]
fn listeners_hear_in_order_and_harm_no_query() {
    let session = Session::new().expect("a session");
    let scribe = Arc::new(Scribe::default());
    let streams = session.streams();
    streams.add_listener(Arc::new(Clumsy));
    streams.add_listener(Arc::clone(&scribe) as Arc<dyn StreamingQueryListener>);
    assert_eq!(streams.list_listeners().len(), 2);
    let (rows, query) = copy(&session, "q");
    assert_eq!(scribe.heard(), ["started q"], "before start() returns");
    for _ in 0..3 {
        numbers(&rows, [1, 2, 5]);
        query.process_all_available().expect("processed");
    }
    numbers(&rows, [0]);
    query.await_termination().expect_err("a division by zero");
    assert!(scribe.hears("ended"));
    assert_eq!(
        scribe.heard(),
        [
            "started q",
            "progress q 0",
            "progress q 1",
            "progress q 2",
            "ended DIVIDE_BY_ZERO"
        ]
    );
    let listener: Arc<dyn StreamingQueryListener> = Arc::clone(&scribe) as _;
    streams.remove_listener(&listener);
    assert_eq!(streams.list_listeners().len(), 1);
    let (_rows, query) = copy(&session, "q");
    query.stop().expect("stopped");
    assert_eq!(scribe.heard().len(), 5, "it is no listener any more");
}

#[test]
fn a_closed_session_has_told_its_listeners() {
    let session = Session::new().expect("a session");
    let scribe = Arc::new(Scribe::default());
    session.streams().add_listener(Arc::clone(&scribe) as _);
    let (_rows, query) = copy(&session, "q");
    session.close();
    assert!(!query.is_active());
    assert_eq!(scribe.heard(), ["started q", "ended "]);
}

/// Starts another query when one ends.
struct Successor {
    session: Mutex<Option<Session>>,
}

impl StreamingQueryListener for Successor {
    fn on_query_terminated(&self, _: &QueryTerminated) {
        let session = self.session.lock().expect("not poisoned").take();
        if let Some(session) = session {
            copy(&session, "second");
        }
    }
}

#[test]
fn a_listener_may_start_a_query() {
    let session = Session::new().expect("a session");
    let successor = Successor {
        session: Mutex::new(Some(session.clone())),
    };
    session.streams().add_listener(Arc::new(successor));
    let (_rows, first) = copy(&session, "first");
    first.stop().expect("stopped");
    let second = || {
        let active = session.streams().active();
        active
            .into_iter()
            .any(|query| query.name() == Some("second"))
    };
    assert!((0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        second()
    }));
}

#[test]
fn any_termination_is_told_until_it_is_reset() {
    let session = Session::new().expect("a session");
    let streams = session.streams();
    let moment = Duration::from_millis(20);
    let waited = |limit| streams.await_any_termination_for(limit);
    assert!(matches!(waited(moment), Ok(false)), "nothing has run");
    let (_rows, first) = copy(&session, "first");
    let (bad_rows, bad) = copy(&session, "bad");
    let (_rows, rest) = copy(&session, "rest");
    assert!(matches!(waited(moment), Ok(false)), "all run");
    assert_eq!(
        streams.get(first.id()).map(|query| query.id().to_string()),
        Some(first.id().to_string())
    );
    assert!(streams.get("nobody").is_none());
    first.stop().expect("stopped");
    streams.await_any_termination().expect("one was stopped");
    streams.await_any_termination().expect("and stays so");
    assert!(streams.get(first.id()).is_none());
    // An error outlives the ends without one.
    numbers(&bad_rows, [0]);
    bad.await_termination().expect_err("a division by zero");
    let error = streams.await_any_termination().expect_err("one failed");
    assert!(matches!(error, Error::QueryFailed { .. }), "{error}");
    assert_eq!(error.class().as_deref(), Some("DIVIDE_BY_ZERO"), "{error}");
    assert!(waited(moment).is_err());
    streams.reset_terminated();
    assert!(matches!(waited(moment), Ok(false)));
    // A wait in another thread ends with the query.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| streams.await_any_termination());
        std::thread::sleep(moment);
        rest.stop().expect("stopped");
        assert!(waiting.join().expect("no panic").is_ok());
    });
    assert!(streams.active().is_empty());
}

#[test]
fn a_query_that_was_over_before_anyone_looked_is_over() {
    let session = Session::new().expect("a session");
    let (_rows, frame) = session.memory_stream("v BIGINT").expect("a stream");
    let writer = frame.write_stream().format("noop").query_name("short");
    let query = writer
        .trigger(Trigger::AvailableNow)
        .start()
        .expect("started");
    query.await_termination().expect("nothing to read");
    assert!(query.exception().is_none());
    session.streams().await_any_termination().expect("it ended");
    assert!(session.streams().active().is_empty());
}

#[test]
fn stopping_all_lets_open_epochs_finish() {
    let session = Session::with_workers(2).expect("a session");
    let (rows, frame) = session.memory_stream("v BIGINT").expect("a stream");
    let queries: Vec<StreamingQuery> = (0..3).map(|i| count(&frame, &format!("n{i}"))).collect();
    numbers(&rows, 0..10);
    for query in &queries {
        query.process_all_available().expect("processed");
    }
    let (bad_rows, bad) = copy(&session, "bad");
    numbers(&bad_rows, [0]);
    bad.await_termination().expect_err("a division by zero");
    session.stop_all().expect("those that ran stopped well");
    for query in &queries {
        assert!(!query.is_active());
        assert_eq!(query.committed().epochs, 1);
    }
    assert!(session.streams().active().is_empty());
    // The session goes on.
    count(&frame, "n0").stop().expect("stopped");
}

#[test]
fn a_name_is_taken_by_one_of_two_that_start_at_once() {
    let session = Session::new().expect("a session");
    let (_rows, frame) = session.memory_stream("v BIGINT").expect("a stream");
    let start = || {
        let writer = frame.write_stream().format("memory").query_name("same");
        writer.start()
    };
    let started = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
        let outcomes = starts
            .into_iter()
            .map(|start| start.join().expect("no panic"));
        outcomes.filter(|outcome| outcome.is_ok()).count()
    });
    assert_eq!(started, 1);
}

/// What is observed in the tests below.
fn metrics() -> [highwater::Expr; 4] {
    [
        count_of(lit(1)).alias("rows"),
        (sum(col("v")) * lit(2)).alias("twice"),
        avg(col("v")).alias("mean"),
        max(col("v")).alias("largest"),
    ]
}

#[test]
fn a_stream_is_observed_epoch_by_epoch_as_a_batch_would_be() {
    for workers in [1, 3] {
        let session = Session::with_workers(workers).expect("a session");
        let (rows, frame) = session.memory_stream("v BIGINT").expect("a stream");
        let observed = frame
            .observe("all", metrics())
            .and_then(|frame| frame.filter("v % 3 = 0"))
            .and_then(|frame| frame.observe("thirds", metrics()))
            .expect("a query");
        let writer = observed.write_stream().format("noop");
        let query = writer.start().expect("started");
        for epoch in 0..3i64 {
            let values: Vec<i64> = (0..1000).map(|i| i * 7 % 113 + epoch).collect();
            // In several batches, so that several workers have some.
            values
                .chunks(100)
                .for_each(|part| numbers(&rows, part.iter().copied()));
            query.process_all_available().expect("processed");
            let reports = query.recent_progress();
            let total: u64 = reports.iter().map(|report| report.num_input_rows).sum();
            assert_eq!(total, 1000 * (epoch as u64 + 1));
            for (name, keep) in [("all", 1), ("thirds", 3)] {
                let kept: Vec<i64> = values.iter().copied().filter(|v| v % keep == 0).collect();
                // The rows of this round may have come in more than one epoch.
                let new = reports.iter().rev().scan(1000u64, |left, report| {
                    let more = *left > 0;
                    *left = left.saturating_sub(report.num_input_rows);
                    more.then_some(&report.observed_metrics[name])
                });
                let new: Vec<_> = new.collect();
                let add = |metric: &str| -> i64 {
                    new.iter()
                        .filter_map(|values| values[metric].as_i64())
                        .sum()
                };
                assert_eq!(add("rows"), kept.len() as i64, "{name}, {workers} workers");
                assert_eq!(add("twice"), 2 * kept.iter().sum::<i64>());
                let largest = new
                    .iter()
                    .filter_map(|values| values["largest"].as_i64())
                    .max();
                assert_eq!(largest, kept.iter().copied().max());
                let weighted: f64 = new
                    .iter()
                    .filter_map(|values| Some(values["mean"].as_f64()? * values["rows"].as_f64()?))
                    .sum();
                let mean = kept.iter().sum::<i64>() as f64 / kept.len() as f64;
                assert!((weighted / kept.len() as f64 - mean).abs() < 1e-9);
            }
        }
        assert!(query.explain().contains("Observe as thirds"));
        query.stop().expect("stopped");
    }
}

#[test]
fn what_nobody_passed_is_observed_too() {
    let session = Session::new().expect("a session");
    let (rows, frame) = session.memory_stream("v BIGINT").expect("a stream");
    let none = frame.filter("v < 0").expect("a query");
    let none = none.observe("none", metrics()).expect("a query");
    let query = none.write_stream().format("noop").start().expect("started");
    numbers(&rows, 0..10);
    query.process_all_available().expect("processed");
    let report = query.last_progress().expect("reported");
    let values = &report.observed_metrics["none"];
    assert_eq!(values["rows"], 0);
    assert!(values["largest"].is_null() && values["mean"].is_null());
    query.stop().expect("stopped");
}

#[test]
fn static_rows_are_observed_once() {
    let session = Session::with_workers(3).expect("a session");
    let query = "SELECT v FROM VALUES (1), (2), (3), (NULL), (10) AS t(v)";
    let frame = session.sql(query).expect("a frame");
    let observation = Observation::new("numbers");
    let observed = frame.observe(&observation, metrics()).expect("a frame");
    let small = observed.filter("v < 3").expect("a frame");
    assert_eq!(observation.get_for(Duration::ZERO), None, "nothing has run");
    assert_eq!(small.count().expect("a count"), 2);
    let values = observation.get();
    let batch = frame.agg(metrics()).and_then(|frame| frame.collect());
    let batch = super::canonical(&batch.expect("an answer"));
    assert_eq!(batch, ["5|32|4.000000000e0|10"]);
    assert_eq!(values["rows"], 5);
    assert_eq!(values["twice"], 32);
    assert_eq!(values["mean"], 4.0);
    assert_eq!(values["largest"], 10);
    let again = frame.observe(&observation, metrics()).map(|_| ());
    assert!(again.expect_err("used").to_string().contains("\"numbers\""));
}

#[test]
fn what_cannot_be_observed_is_refused() {
    let session = Session::new().expect("a session");
    let (_rows, frame) = session.memory_stream("v BIGINT").expect("a stream");
    let refused = |name: &str, metric: &str| {
        let metric = highwater::prelude::expr(metric).expect("an expression");
        let error = frame.observe(name, [metric]).map(|_| ());
        error.expect_err("refused").to_string()
    };
    for (name, metric, says) in [
        ("", "count(*) AS n", "INVALID_OBSERVED_METRICS.MISSING_NAME"),
        ("m", "v + 1 AS n", "MISSING_GROUP_BY"),
        ("m", "count(DISTINCT v) AS n", "DISTINCT_UNSUPPORTED"),
        ("m", "first(v) AS n", "depends on order"),
        ("m", "sum(w) AS n", "UNRESOLVED_COLUMN"),
    ] {
        let error = refused(name, metric);
        assert!(error.contains(says), "{metric}: {error}");
    }
    let twice = frame
        .observe("m", metrics())
        .and_then(|frame| frame.observe("m", metrics()))
        .and_then(|frame| frame.write_stream().format("noop").start().map(|_| ()));
    let error = twice.expect_err("two of one name");
    assert_eq!(error.class().as_deref(), Some("DUPLICATED_METRICS_NAME"));
    let error = frame.observe(&Observation::new("m"), metrics()).map(|_| ());
    let error = error.expect_err("a stream").to_string();
    assert!(error.contains("static rows"), "{error}");
}

/// Memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.expect("a size").parse().expect("a number")
}

/// In a process of its own, so that no other test's threads and memory are counted.
#[test]
fn a_thousand_starts_and_stops_leave_nothing() {
    if std::env::var_os("HIGHWATER_TEST_ALONE").is_none() {
        let own = std::env::current_exe().expect("this test's program");
        let name = "streams::a_thousand_starts_and_stops_leave_nothing";
        let alone = std::process::Command::new(own)
            .args([name, "--exact", "--nocapture"])
            .env("HIGHWATER_TEST_ALONE", "1")
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&alone.stderr);
        assert!(alone.status.success(), "{said}");
        eprint!("{said}");
        return;
    }
    let session = Session::with_workers(2).expect("a session");
    session.streams().add_listener(Arc::new(Scribe::default()));
    let (steady_rows, steady) = session.memory_stream("v BIGINT").expect("a stream");
    let steady = count(&steady, "steady");
    let (rows, frame) = session.memory_stream("v BIGINT").expect("a stream");
    let round = |number: i64| {
        let query = count(&frame, "n");
        numbers(&rows, 0..3);
        query.process_all_available().expect("processed");
        if number % 10 == 0 {
            numbers(&steady_rows, [number]);
        }
        query.stop().expect("stopped");
    };
    let settled = |limit: usize| {
        (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            threads() <= limit
        })
    };
    let begun = Instant::now();
    (0..200).for_each(round);
    let (threads_before, kib_before) = (threads(), resident());
    (200..1200).for_each(round);
    assert!(
        settled(threads_before),
        "{} threads, {threads_before} before",
        threads()
    );
    let grown = resident().saturating_sub(kib_before);
    eprintln!(
        "1200 starts and stops in {:?}; the last 1000 added {grown} KiB to {kib_before} KiB",
        begun.elapsed()
    );
    // A query that stayed would keep its dataflows, channels and accumulators: far more than 8 KiB.
    assert!(grown < 8 << 10, "{grown} KiB more");
    steady.process_all_available().expect("it ran all along");
    assert_eq!(steady.committed().epochs, 120);
    assert_eq!(session.streams().active().len(), 1);
    steady.stop().expect("stopped");
}
