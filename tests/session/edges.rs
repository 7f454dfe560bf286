//! Rows exactly on an edge of event time, and a microsecond to either side of it: what is late, what meets, what is
//! final, what is forgotten. Watermarks are in whole milliseconds.

use std::sync::{Arc, Mutex};

use datafusion::arrow::array::{StringArray, TimestampMicrosecondArray};

use super::*;
use crate::common::lines;

const SECOND: i64 = 1_000_000;
const MILLISECOND: i64 = 1_000;

/// A key and an event time.
type Row = (&'static str, i64);

/// What lands, in `l` and in `r`, what comes out of it, how much is late, and how many rows are state afterwards.
struct Step<'a> {
    left: &'a [Row],
    right: &'a [Row],
    out: &'a [&'a str],
    late: u64,
    state: u64,
}

/// A step where only `l` has rows.
fn step<'a>(left: &'a [Row], out: &'a [&'a str], late: u64, state: u64) -> Step<'a> {
    both(left, &[], out, late, state)
}

fn both<'a>(
    left: &'a [Row],
    right: &'a [Row],
    out: &'a [&'a str],
    late: u64,
    state: u64,
) -> Step<'a> {
    Step {
        left,
        right,
        out,
        late,
        state,
    }
}

fn add(stream: &MemorySource, rows: &[Row]) {
    let keys = StringArray::from_iter_values(rows.iter().map(|row| row.0));
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1));
    let schema = stream.schema();
    let times = times.with_data_type(schema.field(1).data_type().clone());
    let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(times)];
    let rows = RecordBatch::try_new(schema, columns).expect("two columns");
    stream.add(rows).expect("it fits");
}

/// Runs a query over the streams `l` and `r` in append mode, step by step.
#[track_caller]
fn check(query: impl Fn(&Session) -> highwater::Result<DataFrame>, steps: &[Step<'_>]) {
    for workers in [1, 2] {
        let session = Session::with_workers(workers).expect("a session");
        let [left, right] = ["l", "r"].map(|name| {
            let stream = session.memory_stream("k STRING, ts TIMESTAMP");
            let (rows, frame) = stream.expect("a stream");
            frame.create_or_replace_temp_view(name).expect("named");
            rows
        });
        let came: Arc<Mutex<Vec<String>>> = Arc::default();
        let taken = Arc::clone(&came);
        let writer = query(&session).expect("a query").write_stream();
        let query = writer
            .output_mode(OutputMode::Append)
            .for_each_batch(move |rows: DataFrame, _| -> Result<(), highwater::Error> {
                let rows = lines(&rows.collect()?);
                taken.lock().expect("no panic").extend(rows);
                Ok(())
            })
            .start()
            .expect("started");
        let mut told = 0;
        for (index, step) in steps.iter().enumerate() {
            query.pause();
            let sides = [(&left, step.left), (&right, step.right)];
            let sides = sides.into_iter().filter(|(_, rows)| !rows.is_empty());
            sides.for_each(|(stream, rows)| add(stream, rows));
            query.resume();
            query.process_all_available().expect("processed");
            let mut out = std::mem::take(&mut *came.lock().expect("no panic"));
            out.sort();
            let reports = query.recent_progress();
            let operators = reports[told..].iter().flat_map(|r| &r.state_operators);
            let late: u64 = operators.map(|o| o.num_rows_dropped_by_watermark).sum();
            told = reports.len();
            let operators = reports.last().map_or(&[][..], |r| &r.state_operators);
            let state: u64 = operators.iter().map(|o| o.num_rows_total).sum();
            let expected = (
                step.out.iter().map(|row| row.to_string()).collect(),
                step.late,
            );
            assert_eq!(
                ((out, late), state),
                (expected, step.state),
                "step {index}, {workers} workers"
            );
        }
        query.stop().expect("stopped");
    }
}

fn sql(text: &str) -> impl Fn(&Session) -> highwater::Result<DataFrame> + use<> {
    let text = text.to_string();
    move |session| session.sql(&text)
}

fn within(session: &Session) -> highwater::Result<DataFrame> {
    let rows = "SELECT * FROM l WATERMARK ts DELAY OF INTERVAL 10 SECONDS AS l";
    let firsts = session.sql(rows)?;
    let firsts = firsts.drop_duplicates_within_watermark(["k"])?;
    firsts.select_expr(["k"])
}

#[test]
fn a_key_is_forgotten_at_its_deadline_and_no_microsecond_sooner_or_later() {
    let at = 100 * SECOND;
    let later = 115 * SECOND;
    check(
        within,
        &[
            step(
                &[("a", at), ("b", at + 1), ("c", at - 1)],
                &["a", "b", "c"],
                0,
                3,
            ),
            // The watermark comes to where a is due, a microsecond before b is.
            step(&[("x", 120 * SECOND)], &["x"], 0, 2),
            step(
                &[("a", later), ("b", later), ("c", later)],
                &["a", "c"],
                0,
                4,
            ),
            step(&[("y", 120 * SECOND + MILLISECOND)], &["y"], 0, 4),
            step(&[("b", later)], &["b"], 0, 5),
        ],
    );
}

#[test]
fn a_key_that_is_due_in_the_epoch_that_brings_it_is_not_kept() {
    let query = |session: &Session| {
        // So that an epoch with rows is judged by another watermark than it forgets by.
        session.sql("SET spark.sql.streaming.noDataMicroBatches.enabled = false")?;
        within(session)
    };
    let (at, later) = (180 * SECOND, 195 * SECOND);
    check(
        query,
        &[
            step(&[("x", 200 * SECOND)], &["x"], 0, 1),
            step(&[("a", at), ("b", at + 1)], &["a", "b"], 0, 2),
            step(&[("a", later), ("b", later)], &["a"], 0, 3),
        ],
    );
}

#[test]
fn first_rows_by_time_are_late_and_forgotten_at_the_watermark() {
    let at = 100 * SECOND;
    let query = |session: &Session| {
        let rows = session.sql("SELECT * FROM l WATERMARK ts DELAY OF INTERVAL 0 SECONDS AS l")?;
        rows.drop_duplicates(["k", "ts"])?.select_expr(["k"])
    };
    check(
        query,
        &[
            step(&[("a", at), ("b", at + 1)], &["a", "b"], 0, 1),
            step(&[("a", at), ("b", at + 1), ("c", at + 1)], &["c"], 1, 2),
            step(&[("d", at + MILLISECOND)], &["d"], 0, 0),
        ],
    );
}

/// A join of `l` and `r` by k and the condition.
fn join(kind: &str, near: &str) -> impl Fn(&Session) -> highwater::Result<DataFrame> + use<> {
    sql(&format!(
        "SELECT l.k, r.k AS other FROM l WATERMARK ts DELAY OF INTERVAL 0 SECONDS AS l {kind} JOIN \
         r WATERMARK ts DELAY OF INTERVAL 0 SECONDS AS r ON l.k = r.k AND {near}"
    ))
}

#[test]
fn rows_of_one_time_meet_until_the_watermark_is_there() {
    let at = 100 * SECOND;
    let (early, right) = ([("a", at), ("b", at + 1)], [("z", at)]);
    let mut steps = vec![both(&early, &right, &[], 0, 1)];
    // Enough epochs for what was forgotten to be merged away, below the next millisecond.
    let others: Vec<[Row; 1]> = (2..40).map(|more| [("p", at + more)]).collect();
    for (index, other) in others.iter().enumerate() {
        steps.push(step(other, &[], 0, 2 + index as u64));
    }
    let stored = 1 + others.len() as u64;
    steps.push(both(&[], &early, &["b|b"], 1, stored + 1));
    check(join("INNER", "l.ts = r.ts"), &steps);
}

#[test]
fn a_row_of_one_time_is_alone_when_the_watermark_is_there() {
    let at = 100 * SECOND;
    let next = at + MILLISECOND;
    check(
        join("LEFT", "l.ts = r.ts"),
        &[
            both(
                &[("a", at), ("b", at + 1), ("c", at + 1)],
                &[("z", at)],
                &["a|NULL"],
                0,
                2,
            ),
            both(&[("d", at)], &[("a", at), ("b", at + 1)], &["b|b"], 2, 3),
            both(&[("e", next)], &[("e", next)], &["c|NULL", "e|e"], 0, 0),
        ],
    );
}

#[test]
fn a_closed_range_has_its_bounds_and_ends_a_millisecond_after_them() {
    let (at, end) = (100 * SECOND, 105 * SECOND);
    let before = end - MILLISECOND;
    check(
        join("LEFT", "r.ts BETWEEN l.ts AND l.ts + INTERVAL 5 SECONDS"),
        &[
            both(
                &[
                    ("a", at),
                    ("c", at),
                    ("d", at + 1),
                    ("e", at),
                    ("f", at),
                    ("t", before),
                ],
                &[("e", at), ("f", at - 1), ("u", before)],
                &["e|e"],
                0,
                7,
            ),
            // At the bound of c, and a microsecond after that of a.
            both(&[], &[("c", end), ("a", end + 1)], &["c|c"], 0, 9),
            both(&[("t", end)], &[("u", end + MILLISECOND)], &[], 0, 10),
            both(
                &[("t", end + MILLISECOND)],
                &[],
                &["a|NULL", "f|NULL"],
                0,
                6,
            ),
            both(
                &[("t", end + 2 * MILLISECOND)],
                &[("u", end + 2 * MILLISECOND)],
                &["d|NULL"],
                0,
                5,
            ),
        ],
    );
}

#[test]
fn an_open_range_has_not_its_bounds_and_ends_at_them() {
    let (at, end) = (100 * SECOND, 105 * SECOND);
    let before = end - 2 * MILLISECOND;
    check(
        join("LEFT", "r.ts > l.ts AND r.ts < l.ts + INTERVAL 5 SECONDS"),
        &[
            both(
                &[
                    ("a", at),
                    ("c", at),
                    ("d", at + 1),
                    ("e", at),
                    ("f", at),
                    ("t", before),
                ],
                &[("e", at), ("f", at + 1), ("u", before)],
                &["f|f"],
                0,
                6,
            ),
            // A microsecond before the bound of c, and at that of a.
            both(&[], &[("c", end - 1), ("a", end)], &["c|c"], 0, 8),
            both(&[("t", end - MILLISECOND)], &[], &[], 0, 9),
            both(&[("t", end)], &[], &["a|NULL", "e|NULL"], 0, 4),
            both(
                &[("t", end + MILLISECOND)],
                &[("u", end + MILLISECOND)],
                &["d|NULL"],
                0,
                4,
            ),
        ],
    );
}

#[test]
fn a_range_may_end_in_a_column_of_times() {
    let query = sql(
        "SELECT l.k, r.k AS rk FROM (SELECT *, CASE WHEN k = 'b' THEN ts + INTERVAL 9 SECONDS ELSE ts + INTERVAL 5 SECONDS END \
         AS till FROM l WATERMARK ts DELAY OF INTERVAL 0 SECONDS) AS l \
         LEFT JOIN r WATERMARK ts DELAY OF INTERVAL 0 SECONDS AS r ON l.k = r.k AND r.ts >= l.ts AND r.ts < l.till",
    );
    let at = |seconds: i64| seconds * SECOND;
    check(
        query,
        &[
            both(
                &[("a", at(100)), ("b", at(100)), ("c", at(100))],
                &[("c", at(104))],
                &["c|c"],
                0,
                4,
            ),
            // Both a and c end, b does not.
            both(&[("t", at(106))], &[("u", at(106))], &["a|NULL"], 0, 3),
            both(&[], &[("b", at(108))], &["b|b"], 0, 4),
            both(&[("t", at(200))], &[("u", at(200))], &["t|NULL"], 0, 2),
        ],
    );
}

#[test]
fn sessions_merge_where_one_ends_as_the_next_begins() {
    let query = sql(
        "SELECT k, unix_micros(w.end) - unix_micros(w.start) AS length, n FROM (SELECT session_window(ts, '10 seconds') AS w, \
         k, count(*) AS n FROM l WATERMARK ts DELAY OF INTERVAL 20 SECONDS GROUP BY 1, 2) AS q",
    );
    let (at, end) = (100 * SECOND, 110 * SECOND);
    check(
        query,
        &[
            step(
                &[
                    ("a", at),
                    ("a", end),
                    ("b", at),
                    ("b", end + 1),
                    ("c", at),
                    ("d", at),
                    ("e", at),
                ],
                &[],
                0,
                6,
            ),
            // The same of sessions that are state.
            step(&[("c", end), ("d", end + 1), ("e", end - 1)], &[], 0, 7),
            // What ends at the watermark is closed, what ends a microsecond later is not.
            step(
                &[("x", 140 * SECOND)],
                &[
                    "a|20000000|2",
                    "b|10000000|1",
                    "c|20000000|2",
                    "d|10000000|1",
                    "e|19999999|2",
                ],
                0,
                3,
            ),
            step(&[("y", end), ("y", end + 1)], &[], 1, 4),
            step(
                &[("x", 140 * SECOND + MILLISECOND)],
                &["b|10000000|1", "d|10000000|1", "y|10000000|1"],
                0,
                1,
            ),
        ],
    );
}

/// Groups of `l` by windows.
fn windows(arguments: &str) -> impl Fn(&Session) -> highwater::Result<DataFrame> + use<> {
    sql(&format!(
        "SELECT k, unix_micros(w.end) AS e, n FROM (SELECT window(ts, {arguments}) AS w, k, count(*) AS n FROM \
         l WATERMARK ts DELAY OF INTERVAL 0 SECONDS GROUP BY 1, 2) AS q"
    ))
}

#[test]
fn a_window_is_closed_when_the_watermark_is_at_its_end() {
    let end = 100 * SECOND;
    check(
        windows("'10 seconds'"),
        &[
            step(&[("a", end - SECOND)], &[], 0, 1),
            step(&[("b", end - MILLISECOND)], &[], 0, 2),
            step(&[("c", end)], &["a|100000000|1", "b|100000000|1"], 0, 1),
            step(&[("d", end - 1), ("d", end)], &[], 1, 2),
        ],
    );
}

#[test]
fn a_window_that_ends_a_microsecond_after_the_watermark_is_open() {
    let at = 100 * SECOND;
    check(
        windows("'10 seconds', '10 seconds', '1 microsecond'"),
        &[
            step(&[("a", at)], &[], 0, 1),
            step(&[("b", at)], &[], 0, 2),
            step(
                &[("c", at + MILLISECOND)],
                &["a|100000001|1", "b|100000001|1"],
                0,
                1,
            ),
            step(&[("d", at)], &[], 1, 1),
        ],
    );
}

#[test]
fn windows_that_overlap_are_closed_at_their_ends_one_by_one() {
    let (at, next) = (100 * SECOND, 105 * SECOND);
    check(
        windows("'10 seconds', '5 seconds'"),
        &[
            step(&[("a", at - MILLISECOND)], &[], 0, 1),
            step(&[("b", at)], &["a|100000000|1"], 0, 2),
            step(&[("c", at - 1)], &[], 1, 3),
            step(&[("d", next - MILLISECOND)], &[], 0, 4),
            step(
                &[("d", next)],
                &[
                    "a|105000000|1",
                    "b|105000000|1",
                    "c|105000000|1",
                    "d|105000000|1",
                ],
                0,
                3,
            ),
        ],
    );
    check(
        windows("'10 seconds', '5 seconds', '1 microsecond'"),
        &[
            // The last window of a ends a microsecond after the watermark.
            step(
                &[("a", at - 5 * SECOND), ("b", at)],
                &["a|95000001|1"],
                0,
                2,
            ),
            step(&[("b", at)], &[], 0, 2),
            step(
                &[("c", at + MILLISECOND)],
                &["a|100000001|1", "b|100000001|2"],
                0,
                2,
            ),
            step(&[("d", at)], &[], 1, 3),
        ],
    );
}

#[test]
fn groups_by_time_are_closed_and_late_at_the_watermark() {
    let at = 100 * SECOND;
    let next = at + MILLISECOND;
    let stream = "l WATERMARK ts DELAY OF INTERVAL 0 SECONDS";
    for query in [
        format!("SELECT k, unix_micros(ts) AS at, count(*) AS n FROM {stream} GROUP BY ts, k"),
        format!(
            "SELECT k, unix_micros(ts) AS at, count(*) OVER (PARTITION BY ts, k) AS n FROM {stream}"
        ),
    ] {
        check(
            sql(&query),
            &[
                step(&[("a", at), ("b", at + 1)], &["a|100000000|1"], 0, 1),
                step(&[("c", at), ("d", at + 1)], &[], 1, 2),
                step(
                    &[("e", next)],
                    &["b|100000001|1", "d|100000001|1", "e|100001000|1"],
                    0,
                    0,
                ),
            ],
        );
    }
}
