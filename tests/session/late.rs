//! Late rows: each once and whole in the table that the user names, whatever the number of workers and restarts.

use std::fs;
use std::path::Path;

use datafusion::arrow::compute::cast;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// A row: a key, a number that no other row has, and its event time in seconds.
type Row = (u8, usize, Option<i64>);

/// Files of rows whose event times wander forward, some of them far behind.
fn files(seed: u64, count: usize) -> Vec<Vec<Row>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut number = 0;
    let mut row = |file: usize| {
        number += 1;
        let behind = [0, 5, 15, 40][random.random_range(0..4)];
        let time = (file as i64 * 12 + random.random_range(0..20) - behind).max(0);
        let time = (random.random_range(0..25) > 0).then_some(time);
        (random.random_range(0..3), number, time)
    };
    (0..count)
        .map(|file| (0..40).map(|_| row(file)).collect())
        .collect()
}

fn text((key, number, time): &Row) -> String {
    let time = time.map_or("NULL".into(), |s| {
        format!("1970-01-01T00:{:02}:{:02}Z", s / 60, s % 60)
    });
    format!("k{key}|{number}|{time}")
}

fn write(input: &Path, file: usize, rows: &[Row]) {
    let line = |(key, number, time): &Row| {
        let time = time.map_or("null".into(), |s| {
            format!("\"1970-01-01 00:{:02}:{:02}\"", s / 60, s % 60)
        });
        format!("{{\"k\":\"k{key}\",\"n\":{number},\"ts\":{time}}}\n")
    };
    let hidden = input.join(format!(".{file}"));
    fs::write(&hidden, rows.iter().map(line).collect::<String>()).expect("written");
    fs::rename(&hidden, input.join(format!("{file:03}.json"))).expect("renamed");
}

/// What is late, by rows alone: each file is judged by the files before it. `last_end` is the end of the last window
/// that a time is in.
fn reference(files: &[Vec<Row>], delay: i64, last_end: impl Fn(i64) -> i64) -> Vec<String> {
    let (mut late, mut largest) = (Vec::new(), i64::MIN / 2);
    for rows in files {
        let watermark = (largest - delay).max(0);
        let is_late = |row: &&Row| row.2.is_some_and(|time| last_end(time) <= watermark);
        late.extend(rows.iter().filter(is_late).map(text));
        largest = rows
            .iter()
            .filter_map(|row| row.2)
            .max()
            .unwrap_or(largest)
            .max(largest);
    }
    late.sort();
    late
}

/// Runs a query over `ev` file by file, with as many workers as each entry of `workers` says for its share of the files.
#[track_caller]
fn check(
    query: impl Fn(&Session) -> highwater::Result<DataFrame>,
    mode: OutputMode,
    workers: &[usize],
    last_end: impl Fn(i64) -> i64,
) {
    check_of(query, mode, workers, last_end, |_| true);
}

/// The same for a query that takes in the rows that `takes` says.
#[track_caller]
fn check_of(
    query: impl Fn(&Session) -> highwater::Result<DataFrame>,
    mode: OutputMode,
    workers: &[usize],
    last_end: impl Fn(i64) -> i64,
    takes: impl Fn(&Row) -> bool,
) {
    for seed in 0..2 {
        let files = files(seed, 12);
        let dir = tempfile::tempdir().expect("a directory");
        let input = dir.path().join("in");
        fs::create_dir(&input).expect("made");
        let share = files.len() / workers.len();
        let mut counted = 0;
        for (run, workers) in workers.iter().enumerate() {
            let session = Session::with_workers(*workers).expect("a session");
            let reader = session.read_stream().format("json");
            let frame = reader
                .schema("k STRING, n BIGINT, ts TIMESTAMP")
                .and_then(|reader| reader.path(&input).load())
                .expect("a stream");
            frame.create_or_replace_temp_view("ev").expect("named");
            let writer = query(&session).expect("a query").write_stream();
            let query = writer
                .output_mode(mode)
                .format("noop")
                .late_rows_to("late")
                .option("lateRowsPath", dir.path().join("late").display())
                .option("checkpointLocation", dir.path().join("ck").display())
                .start()
                .expect("started");
            for (index, rows) in files.iter().enumerate().skip(run * share).take(share) {
                write(&input, index, rows);
                query.process_all_available().expect("processed");
            }
            let reports = query.recent_progress();
            let operators = reports.iter().flat_map(|report| &report.state_operators);
            counted += operators
                .map(|o| o.num_rows_dropped_by_watermark)
                .sum::<u64>();
            query.stop().expect("stopped");
            let found = canonical(&rows_of(&session, "SELECT * FROM late"));
            let taken = files[..(run + 1) * share].iter();
            let taken: Vec<Vec<Row>> = taken
                .map(|rows| rows.iter().filter(|row| takes(row)).copied().collect())
                .collect();
            let expected = reference(&taken, 10, &last_end);
            assert!(run == 0 || expected.len() > 10, "{}", expected.len());
            assert_eq!(found, expected, "seed {seed}, workers {workers}, run {run}");
        }
        assert!(counted > 0, "they are counted as well");
    }
}

fn sql(text: &str) -> impl Fn(&Session) -> highwater::Result<DataFrame> + use<> {
    let text = text.to_string();
    move |session| session.sql(&text)
}

const TUMBLING: &str = "SELECT window(ts, '10 seconds').start AS s, k, count(*) AS c \
     FROM ev WATERMARK ts DELAY OF INTERVAL 10 SECONDS GROUP BY window(ts, '10 seconds'), k";

#[test]
fn late_rows_of_windows_come_whole_and_once() {
    for workers in [&[1][..], &[2], &[4], &[2, 1, 3]] {
        check(sql(TUMBLING), OutputMode::Append, workers, |time| {
            time / 10 * 10 + 10
        });
    }
    check(sql(TUMBLING), OutputMode::Update, &[2, 2], |time| {
        time / 10 * 10 + 10
    });
    check(sql(TUMBLING), OutputMode::Changes, &[2], |time| {
        time / 10 * 10 + 10
    });
}

#[test]
fn a_row_is_late_when_it_is_late_for_all_its_windows() {
    let sliding = "SELECT window(ts, '10 seconds', '5 seconds') AS w, max(n) AS m \
         FROM ev WATERMARK ts DELAY OF INTERVAL 10 SECONDS GROUP BY window(ts, '10 seconds', '5 seconds')";
    check(sql(sliding), OutputMode::Append, &[1, 3], |time| {
        time / 5 * 5 + 10
    });
}

#[test]
fn a_plain_event_time_is_late_at_the_watermark() {
    let plain =
        "SELECT ts, count(*) AS c FROM ev WATERMARK ts DELAY OF INTERVAL 10 SECONDS GROUP BY ts";
    check(sql(plain), OutputMode::Append, &[2], |time| time);
    let chain = "SELECT window(s, '1 minute') AS w, max(c) AS m FROM \
         (SELECT window(ts, '10 seconds') AS s, count(*) AS c \
          FROM ev WATERMARK ts DELAY OF INTERVAL 10 SECONDS GROUP BY window(ts, '10 seconds')) AS t \
         GROUP BY window(s, '1 minute')";
    check(sql(chain), OutputMode::Append, &[2], |time| {
        time / 10 * 10 + 10
    });
}

#[test]
fn late_rows_of_sessions_and_of_deduplication_come_too() {
    let sessions = "SELECT session_window(ts, '10 seconds') AS s, k, count(*) AS c \
         FROM ev WATERMARK ts DELAY OF INTERVAL 10 SECONDS GROUP BY session_window(ts, '10 seconds'), k";
    check(sql(sessions), OutputMode::Append, &[2, 3], |time| time + 10);
    let first = |session: &Session| {
        let rows = session.sql("SELECT * FROM ev WATERMARK ts DELAY OF INTERVAL 10 SECONDS")?;
        rows.drop_duplicates(["k", "ts"])
    };
    check(first, OutputMode::Append, &[1, 3], |time| time);
}

#[test]
fn a_late_row_of_a_stream_that_meets_itself_comes_once() {
    let marked = "ev WATERMARK ts DELAY OF INTERVAL 10 SECONDS";
    let pairs = format!(
        "SELECT a.n, b.n AS m FROM {marked} AS a JOIN {marked} AS b ON a.k = b.k AND a.ts = b.ts"
    );
    check(sql(&pairs), OutputMode::Append, &[1, 3], |time| time);
    // The third use has an operator of its own.
    let more = format!(
        "SELECT a.n, b.n AS m, c.n AS o FROM {marked} AS a JOIN {marked} AS b ON a.k = b.k AND a.ts = b.ts \
         JOIN {marked} AS c ON a.k = c.k AND a.ts = c.ts"
    );
    check(sql(&more), OutputMode::Append, &[2, 2], |time| time);
}

#[test]
fn rows_that_come_late_to_a_partition_by_time_come_too() {
    let first = "SELECT w, k, n FROM (SELECT w, k, n, row_number() OVER (PARTITION BY w ORDER BY n) AS r FROM \
         (SELECT window(ts, '10 seconds') AS w, k, n, ts FROM ev WATERMARK ts DELAY OF INTERVAL 10 SECONDS) AS q) AS p WHERE r = 1";
    check(sql(first), OutputMode::Append, &[1, 3], |time| {
        time / 10 * 10 + 10
    });
}

const MARKED: &str = "ev WATERMARK ts DELAY OF INTERVAL 10 SECONDS";

/// The end of the ten seconds that a time is in.
fn ten(time: i64) -> i64 {
    time / 10 * 10 + 10
}

#[test]
fn a_late_row_is_that_of_the_source_whatever_the_query_makes_of_it() {
    let window = "window(ts, '10 seconds')";
    for made in [
        "SELECT upper(k) AS u, ts FROM {}",
        "SELECT ts, explode(array(1, 2)) AS u FROM {}",
        "SELECT ts, u FROM {} AS e LEFT JOIN (VALUES ('k0', 1), ('k0', 2), ('k1', 3)) AS d(j, u) ON e.k = d.j",
        // Whether there is a partner is not asked.
        "SELECT ts, u FROM {} AS e JOIN (VALUES ('k0', 1), ('k0', 2)) AS d(j, u) ON e.k = d.j WHERE u > 1",
        "SELECT n % 2 AS u, ts FROM (SELECT n + 1 AS n, ts FROM {}) WHERE n > 0",
    ] {
        let made = made.replace("{}", MARKED);
        let query = format!(
            "SELECT {window} AS w, u, count(*) AS c FROM ({made}) AS q GROUP BY {window}, u"
        );
        check(sql(&query), OutputMode::Append, &[1, 2], ten);
    }
    let alias = format!(
        "SELECT w.start AS s, count(*) AS c FROM (SELECT {window} AS w FROM {MARKED}) GROUP BY w"
    );
    check(sql(&alias), OutputMode::Append, &[2, 1], ten);
    let distinct = format!("SELECT DISTINCT k, ts FROM {MARKED}");
    check(sql(&distinct), OutputMode::Append, &[2], |time| time);
    // As the table has it, not as the column with the watermark was made.
    let later = "SELECT window(at, '10 seconds') AS w, count(*) AS c FROM (SELECT k, ts + INTERVAL 5 SECONDS AS at FROM ev) \
         WATERMARK at DELAY OF INTERVAL 15 SECONDS GROUP BY 1";
    check(sql(later), OutputMode::Update, &[2], |time| ten(time + 5));
}

#[test]
fn a_late_row_comes_once_however_many_operators_drop_it() {
    let sets = format!(
        "SELECT window(ts, '10 seconds') AS w, k, count(*) AS c FROM {MARKED} \
         GROUP BY GROUPING SETS ((window(ts, '10 seconds'), k), (window(ts, '10 seconds')))"
    );
    check(sql(&sets), OutputMode::Append, &[1, 3], ten);
    // Late for one of them is late.
    let two = format!(
        "SELECT window.start AS s, count(*) AS c FROM {MARKED} GROUP BY window(ts, '10 seconds') UNION ALL \
         SELECT w.start, count(*) FROM (SELECT window(ts, '30 seconds') AS w FROM {MARKED}) GROUP BY w"
    );
    check(sql(&two), OutputMode::Append, &[1, 3], ten);
    let overlapping = format!(
        "SELECT w, max(w.end) AS e FROM (SELECT window(ts, '10 seconds', '5 seconds') AS w FROM {MARKED}) AS t GROUP BY w"
    );
    check(sql(&overlapping), OutputMode::Append, &[2, 2], |time| {
        time / 5 * 5 + 10
    });
    let united = format!(
        "SELECT window(ts, '10 seconds') AS w, count(*) AS c FROM \
         (SELECT ts FROM {MARKED} UNION ALL SELECT ts FROM {MARKED}) AS u GROUP BY window(ts, '10 seconds')"
    );
    check(sql(&united), OutputMode::Append, &[2, 2], ten);
}

/// A query made at random: its text, the end of the last window of a time, and which numbers it takes in.
struct Shape {
    sql: String,
    last_end: fn(i64) -> i64,
    conditions: Vec<[usize; 3]>,
}

impl Shape {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut from = MARKED.to_string();
        let (mut conditions, mut added) = (Vec::new(), 0);
        // A condition above a join may stay there, and then the rows that it leaves out move the watermark.
        let mut joined = false;
        for depth in 0..random.random_range(1..4) {
            let name = format!("q{depth}");
            let step = random.random_range(0..6);
            from = match step {
                0 => {
                    added += 2;
                    format!("(SELECT upper(k) AS k, n + 2 AS n, ts FROM {from}) AS {name}")
                }
                1 if !joined => {
                    let [of, least] = [random.random_range(2..5), random.random_range(0..2)];
                    conditions.push([added, of, least]);
                    format!("(SELECT * FROM {from} WHERE n % {of} > {least}) AS {name}")
                }
                2 => format!(
                    "(SELECT k, n, ts FROM (SELECT k, n, ts, explode(array(1, 2)) AS u FROM {from}) AS e) AS {name}"
                ),
                3 => format!(
                    "(SELECT e.k, n, ts FROM (SELECT * FROM {from}) AS e LEFT JOIN (VALUES ('k0'), ('k0'), ('K1')) AS d(k) ON e.k = d.k) AS {name}"
                ),
                4 => format!("(SELECT * FROM {from} UNION ALL SELECT * FROM {from}) AS {name}"),
                _ => format!("(SELECT 'one' AS k, n, ts FROM {from}) AS {name}"),
            };
            joined |= (2..5).contains(&step);
        }
        let window = |text: &str| format!("window(ts, {text})");
        let (sql, last_end): (String, fn(i64) -> i64) = match random.random_range(0..7) {
            0 => (format!("SELECT DISTINCT k, ts FROM {from}"), |time| time),
            1 => {
                let by = window("'10 seconds'");
                let sql = format!(
                    "SELECT {by} AS w, k, max(n) AS m FROM {from} GROUP BY GROUPING SETS (({by}, k), ({by}))"
                );
                (sql, ten)
            }
            2 => {
                let by = window("'15 seconds', '5 seconds'");
                let sql = format!("SELECT {by} AS w, max(n) AS m FROM {from} GROUP BY {by}");
                (sql, |time| time / 5 * 5 + 15)
            }
            3 => {
                let by = window("'15 seconds', '10 seconds'");
                let sql = format!(
                    "SELECT w, max(w.end) AS m FROM (SELECT {by} AS w FROM {from}) AS r GROUP BY w"
                );
                (sql, |time| time / 10 * 10 + 15)
            }
            4 => {
                let by = "session_window(ts, '7 seconds')";
                let sql =
                    format!("SELECT {by} AS w, k, count(*) AS c FROM {from} GROUP BY {by}, k");
                (sql, |time| time + 7)
            }
            5 => {
                let over = "row_number() OVER (PARTITION BY w ORDER BY n) AS r";
                let by = window("'10 seconds'");
                let sql =
                    format!("SELECT w, n, {over} FROM (SELECT {by} AS w, n FROM {from}) AS r");
                (sql, ten)
            }
            _ => {
                let [by, other] = ["'10 seconds'", "'20 seconds'"].map(window);
                let sql = format!(
                    "SELECT {by} AS w, count(*) AS c FROM {from} GROUP BY {by} UNION ALL SELECT {other}, count(*) FROM {from} GROUP BY {other}"
                );
                (sql, ten)
            }
        };
        Shape {
            sql,
            last_end,
            conditions,
        }
    }
}

#[test]
fn late_rows_of_random_queries_are_those_of_the_source() {
    for seed in 0..14 {
        let shape = Shape::new(seed);
        println!("seed {seed}: {}", shape.sql);
        let takes = |row: &Row| {
            let mut conditions = shape.conditions.iter();
            conditions.all(|[added, of, least]| (row.1 + added) % of > *least)
        };
        check_of(
            sql(&shape.sql),
            OutputMode::Append,
            &[1, 3],
            shape.last_end,
            takes,
        );
    }
}

#[test]
fn rows_that_a_query_leaves_out_are_not_late() {
    let above = format!(
        "SELECT w, count(*) AS c FROM (SELECT window(ts, '10 seconds') AS w, n % 3 AS m, k FROM {MARKED}) AS q \
         WHERE m > 0 AND k <> 'k1' GROUP BY w"
    );
    let takes = |row: &Row| !row.1.is_multiple_of(3) && row.0 != 1;
    check_of(sql(&above), OutputMode::Append, &[1, 2], ten, takes);
    // What fails for the rows left out is not asked of them.
    let fails = format!(
        "SELECT window(ts, '10 seconds') AS w, count(*) AS c FROM \
         (SELECT * FROM (SELECT * FROM {MARKED} WHERE n % 3 > 0) WHERE 6 / (n % 3) > 0) GROUP BY window(ts, '10 seconds')"
    );
    check_of(sql(&fails), OutputMode::Append, &[2], ten, |row| {
        row.1 % 3 > 0
    });
}

#[test]
fn late_rows_of_a_join_have_the_columns_of_both_sides() {
    let session = Session::with_workers(2).expect("a session");
    let stream = |name: &str, schema: &str| {
        let (rows, frame) = session.memory_stream(schema).expect("a stream");
        frame.create_or_replace_temp_view(name).expect("named");
        rows
    };
    let left = stream("l", "k BIGINT, at TIMESTAMP");
    let right = stream("r", "k BIGINT, seen TIMESTAMP");
    let joined = session.sql(
        "SELECT l.k, at, seen FROM l WATERMARK at DELAY OF INTERVAL 5 SECONDS \
         JOIN r WATERMARK seen DELAY OF INTERVAL 5 SECONDS \
         ON l.k = r.k AND seen BETWEEN at AND at + INTERVAL 10 SECONDS",
    );
    let writer = joined.expect("a query").write_stream().format("noop");
    let query = writer.late_rows_to("late").start().expect("started");
    for (left_rows, right_rows) in [
        (vec![(1, 100)], vec![(1, 100)]),
        (vec![(2, 95), (3, 96), (4, 50)], vec![(5, 90)]),
    ] {
        for (rows, values) in [(&left, left_rows), (&right, right_rows)] {
            let (keys, times): (Vec<i64>, Vec<i64>) = values.into_iter().unzip();
            let keys: ArrayRef = Arc::new(Int64Array::from(keys));
            let times = Int64Array::from_iter_values(times.iter().map(|s| s * 1_000_000));
            let times = cast(&times, rows.schema().field(1).data_type()).expect("times");
            let batch = RecordBatch::try_new(rows.schema(), vec![keys, times]).expect("rows");
            rows.add(batch).expect("it fits");
        }
        query.process_all_available().expect("processed");
    }
    assert_eq!(
        canonical(&rows_of(&session, "SELECT k, at, seen FROM late")),
        [
            "2|1970-01-01T00:01:35Z|NULL",
            "4|1970-01-01T00:00:50Z|NULL",
            "5|NULL|1970-01-01T00:01:30Z"
        ]
    );
    query.stop().expect("stopped");
}

#[test]
fn late_rows_are_refused_where_there_can_be_none_or_nowhere_to_put_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let session = Session::with_workers(1).expect("a session");
    let (_rows, frame) = session
        .memory_stream("k STRING, ts TIMESTAMP")
        .expect("a stream");
    frame.create_or_replace_temp_view("ev").expect("named");
    let marked = "FROM ev WATERMARK ts DELAY OF INTERVAL 10 SECONDS";
    let windows = format!(
        "SELECT window(ts, '10 seconds') AS w, count(*) AS c {marked} GROUP BY window(ts, '10 seconds')"
    );
    let at = |name: &str| dir.path().join(name).display().to_string();
    let refused = |query: &str, options: &[(&str, &str)], mode: OutputMode, what: &str| {
        let frame = session.sql(query).expect("a query");
        let mut writer = frame.write_stream().output_mode(mode).format("noop");
        for (name, value) in options {
            writer = writer.option(name, value);
        }
        let error = writer.start().map(drop).expect_err(what).to_string();
        assert!(error.contains(what), "{error}");
    };
    let late = ("lateRows", "late");
    let append = OutputMode::Append;
    refused("SELECT k FROM ev", &[late], append, "no watermark");
    refused(
        &format!("SELECT k {marked}"),
        &[late],
        append,
        "no operator of the query drops any",
    );
    refused(&windows, &[late], OutputMode::Complete, "in complete mode");
    refused(
        &windows,
        &[("lateRowsPath", &at("late"))],
        append,
        "need option lateRows",
    );
    refused(
        &windows,
        &[("lateRows", "ev")],
        append,
        "there is a view of that name already",
    );
    let checkpoint = at("ck");
    refused(
        &windows,
        &[late, ("checkpointLocation", &checkpoint)],
        append,
        "give option lateRowsPath",
    );
    let exploded = "SELECT at, count(*) AS c FROM (SELECT explode(array(ts)) AS at FROM ev) \
         WATERMARK at DELAY OF INTERVAL 10 SECONDS GROUP BY at";
    refused(exploded, &[late], append, "of an exploded array");
    let limited = format!(
        "SELECT window(ts, '10 seconds') AS w, count(*) AS c FROM (SELECT ts {marked} LIMIT 5) GROUP BY 1"
    );
    refused(&limited, &[late], append, "above LIMIT");
    // A pair of rows that were in time may be late above: neither of them is a late row.
    let paired = format!(
        "SELECT window(ts, '10 seconds') AS w, count(*) AS c FROM (SELECT a.ts {marked} AS a JOIN ev AS b ON a.k = b.k) GROUP BY 1"
    );
    refused(&paired, &[late], append, "where they are pairs of a join");
    let files = session.sql(&windows).expect("a query").write_stream();
    let files = files
        .format("json")
        .path(at("out"))
        .option("checkpointLocation", at("ck2"));
    let inside = files
        .late_rows_to("late")
        .option("lateRowsPath", at("out/late"));
    let error = inside.start().map(drop).expect_err("refused").to_string();
    assert!(error.contains("choose another lateRowsPath"), "{error}");
}
