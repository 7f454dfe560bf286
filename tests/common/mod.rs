//! What several test binaries share.

#![allow(dead_code, reason = "each binary uses its part")]

use std::collections::BTreeMap;

use highwater::Session;
use highwater::sink::OutputMode;

use datafusion::arrow::array::Array;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

/// Rows as text, sorted: two answers are equal if these are. Floats are cut to ten significant digits.
pub(crate) fn canonical(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows = lines(batches);
    rows.sort();
    rows
}

/// Rows as text, in their order.
pub(crate) fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| {
                (
                    ArrayFormatter::try_new(column.as_ref(), &options).expect("formats"),
                    column,
                )
            })
            .collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = columns
                .iter()
                .map(|(formatter, column)| match column.data_type() {
                    DataType::Float32 | DataType::Float64 if !column.is_null(row) => {
                        let value: f64 =
                            formatter.value(row).to_string().parse().expect("a number");
                        format!("{:.9e}", value + 0.0)
                    }
                    _ => formatter.value(row).to_string(),
                })
                .collect();
            rows.push(cells.join("|"));
        }
    }
    rows
}

/// What an output mode's rows add up to: complete and append as they are; of update, the last row of each key, where
/// the key is the first `keys` columns.
pub(crate) fn accumulated(batches: &[RecordBatch], mode: OutputMode, keys: usize) -> Vec<String> {
    added_up(lines(batches).into_iter(), mode, keys)
}

/// The same of rows as text.
pub(crate) fn added_up(
    lines: impl Iterator<Item = String>,
    mode: OutputMode,
    keys: usize,
) -> Vec<String> {
    if mode == OutputMode::Changes {
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        for line in lines {
            let (row, change) = line.rsplit_once('|').unwrap_or(("", &line));
            let change: i64 = change.parse().expect("a change is a number");
            *counts.entry(row.to_string()).or_default() += change;
        }
        // Within an epoch the order of rows means nothing.
        let gone = counts.iter().find(|(_, count)| **count < 0);
        assert_eq!(gone, None, "a row left that was not there");
        let times = |(row, count): (String, i64)| std::iter::repeat_n(row, count as usize);
        return counts.into_iter().flat_map(times).collect();
    }
    // Rows of update mode that have no key replace none.
    let mut rows: Vec<String> = if mode != OutputMode::Update || keys == usize::MAX {
        lines.collect()
    } else {
        let key = |line: &str| line.split('|').take(keys).collect::<Vec<_>>().join("|");
        let last: BTreeMap<String, String> = lines.map(|line| (key(&line), line)).collect();
        last.into_values().collect()
    };
    rows.sort();
    rows
}

/// The rows of a view or table.
pub(crate) fn rows_of(session: &Session, query: &str) -> Vec<RecordBatch> {
    session
        .sql(query)
        .and_then(|frame| frame.collect())
        .expect("a static query")
}
