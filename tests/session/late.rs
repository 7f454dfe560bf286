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
            let found = canonical(&rows_of(&session, "SELECT k, n, ts FROM late"));
            let expected = reference(&files[..(run + 1) * share], 10, &last_end);
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
    let overlapping = format!(
        "SELECT w, max(w.end) AS e FROM (SELECT window(ts, '10 seconds', '5 seconds') AS w {marked}) AS t GROUP BY w"
    );
    refused(&overlapping, &[late], append, "overlapping windows");
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
