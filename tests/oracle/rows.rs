//! Random rows: few keys, many ties, nulls, and event times out of order.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::record_batch::RecordBatch;
use highwater::parse_schema;
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::json;

/// The columns of every stream.
pub(crate) const SCHEMA: &str = "k STRING, g BIGINT, v BIGINT, x DOUBLE, line STRING, ts TIMESTAMP";

pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;

/// 2024-01-01, a multiple of every window in use.
const EPOCH_US: i64 = 1_704_067_200 * SECOND;

/// When a file of that minute is due.
pub(crate) fn minute_us(minute: i64) -> i64 {
    EPOCH_US + minute * MINUTE
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) k: Option<String>,
    pub(crate) g: Option<i64>,
    pub(crate) v: Option<i64>,
    pub(crate) x: Option<f64>,
    pub(crate) line: Option<String>,
    /// Microseconds since 1970.
    pub(crate) ts: Option<i64>,
}

/// One file of rows; event times go up by `minute` minutes from file to file, give or take ten.
pub(crate) fn random_rows(random: &mut StdRng, minute: i64, most: usize) -> Vec<Row> {
    let count = match random.random_range(0..10) {
        0 => 0,
        1 => random.random_range(40..120),
        _ => random.random_range(1..20),
    };
    let count = count.min(most);
    (0..count).map(|_| random_row(random, minute)).collect()
}

fn random_row(random: &mut StdRng, minute: i64) -> Row {
    let words = ["tide", "mark", "river", "wall", "spring", ""];
    let line = (0..random.random_range(0..4)).map(|_| words[random.random_range(0..words.len())]);
    let line = line.collect::<Vec<_>>().join(" ");
    let at = minute_us(minute)
        + random.random_range(-600..120) * SECOND
        + [0, 0, 0, 250_000, 999_999][random.random_range(0..5)];
    let mut some = |share: f64| random.random_bool(share);
    let (k, g, v, x, has_line, ts) = (
        some(0.9),
        some(0.95),
        some(0.95),
        some(0.9),
        some(0.95),
        some(0.95),
    );
    Row {
        k: k.then(|| format!("k{}", random.random_range(0..6))),
        g: g.then(|| random.random_range(0..4)),
        v: v.then(|| random.random_range(-10..20)),
        x: x.then(|| random.random_range(-1e6..1e6) * 10f64.powi(random.random_range(-6..6))),
        line: has_line.then_some(line),
        ts: ts.then_some(at),
    }
}

/// The same with whole minutes and few values, so that rows of both streams are often equal.
pub(crate) fn few_values(random: &mut StdRng, minute: i64, most: usize) -> Vec<Row> {
    let count = random.random_range(0..=most.min(12));
    let mut row = || {
        let at = minute + random.random_range(-9..3);
        let mut number = |share: f64, most: i64| {
            let value = random.random_range(0..most);
            random.random_bool(share).then_some(value)
        };
        Row {
            k: number(0.95, 3).map(|key| format!("k{key}")),
            g: number(0.95, 2),
            v: number(0.95, 3),
            x: None,
            line: None,
            ts: number(0.97, 1).map(|_| minute_us(at)),
        }
    };
    (0..count).map(|_| row()).collect()
}

/// The rows as JSON lines, as a file source reads them.
pub(crate) fn as_json(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let time = row.ts.map(|us| text_of(us, "%Y-%m-%dT%H:%M:%S%.6fZ"));
        let Row {
            k, g, v, x, line, ..
        } = row;
        json!({"k": k, "g": g, "v": v, "x": x, "line": line, "ts": time}).to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

/// A time as text.
pub(crate) fn text_of(us: i64, format: &str) -> String {
    let time = TimestampMicrosecondArray::from(vec![us]);
    let at = time.value_as_datetime(0).expect("in range");
    at.format(format).to_string()
}

fn columns<'r>(rows: impl Iterator<Item = &'r Row> + Clone) -> Vec<ArrayRef> {
    let times = |rows: Vec<Option<i64>>| TimestampMicrosecondArray::from(rows).with_timezone("UTC");
    let texts = |of: fn(&Row) -> &Option<String>| -> ArrayRef {
        let texts: Vec<Option<&str>> = rows.clone().map(|row| of(row).as_deref()).collect();
        Arc::new(StringArray::from(texts))
    };
    let ints = |of: fn(&Row) -> Option<i64>| -> ArrayRef {
        Arc::new(Int64Array::from_iter(rows.clone().map(of)))
    };
    vec![
        texts(|row| &row.k),
        ints(|row| row.g),
        ints(|row| row.v),
        Arc::new(Float64Array::from_iter(rows.clone().map(|row| row.x))),
        texts(|row| &row.line),
        Arc::new(times(rows.clone().map(|row| row.ts).collect())),
    ]
}

/// The rows as the batch query reads them.
pub(crate) fn as_batch(rows: &[Row]) -> RecordBatch {
    let schema = parse_schema(SCHEMA).expect("a schema");
    RecordBatch::try_new(schema, columns(rows.iter())).expect("columns fit")
}

/// Rows with the window that each is in, by start and end.
pub(crate) fn with_windows(rows: &[(Row, i64, i64)]) -> RecordBatch {
    let schema = parse_schema(&format!("{SCHEMA}, ws TIMESTAMP, we TIMESTAMP")).expect("a schema");
    let mut all = columns(rows.iter().map(|(row, ..)| row));
    let times = |times: Vec<i64>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
    };
    all.push(times(rows.iter().map(|(_, start, _)| *start).collect()));
    all.push(times(rows.iter().map(|(.., end)| *end).collect()));
    RecordBatch::try_new(schema, all).expect("columns fit")
}
