//! What is made of doubles is the same to the last digit whichever worker has which rows: a row that leaves is the one
//! that came, also when another number of workers took the query over in between.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use highwater::prelude::*;

const CALLS: &str = "sum(d) AS s, avg(d) AS a, try_sum(d) AS ts, try_avg(d) AS ta, stddev(d) AS sd, var_pop(v) AS vp, \
     skewness(d) AS sk, kurtosis(d) AS ku, corr(v, d) AS c, covar_samp(v, d) AS cs, regr_slope(v, d) AS rs, \
     regr_intercept(v, d) AS ri, regr_r2(v, d) AS r2, regr_avgx(v, d) AS ax, stddev(DISTINCT d) AS dd, \
     corr(DISTINCT v, d) AS dc, stddev(d) FILTER (WHERE v > 3) AS f, percentile(d, 0.3) AS p";

/// Adds files of rows whose sums are rounded otherwise in any other order.
fn add(dir: &Path, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let row = |i: u64| {
            let hash = (number * 30 + i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let d = (hash >> 11) as f64 / 9e9 + 1e4 * (i % 7) as f64 / 3.0;
            format!(
                "{{\"k\":\"k{}\",\"v\":{},\"d\":{d}}}\n",
                hash % 3,
                hash % 100
            )
        };
        let rows: String = (0..30).map(row).collect();
        fs::write(dir.join(format!("in/{number}.json")), rows).expect("written");
    }
}

/// Reads what there is by `workers`, into the directory `out` with the checkpoint `ck`.
fn run(dir: &Path, name: &str, sql: &str, workers: usize) -> highwater::Result<()> {
    let session = Session::with_workers(workers)?;
    session
        .read_stream()
        .format("json")
        .schema("k STRING, v BIGINT, d DOUBLE")?
        .option("maxFilesPerTrigger", 3)
        .path(dir.join("in"))
        .load()?
        .create_or_replace_temp_view("t")?;
    let query = session
        .sql(sql)?
        .write_stream()
        .format("json")
        .output_mode(OutputMode::Changes)
        .trigger(Trigger::AvailableNow)
        .option(
            "checkpointLocation",
            dir.join(format!("ck-{name}")).display(),
        )
        .path(dir.join(format!("out-{name}")))
        .start()?;
    query.await_termination()
}

/// How often each row is there when all changes are added up: those that are not there at all are left out.
fn left(dir: &Path, name: &str) -> BTreeMap<String, i64> {
    let mut rows = BTreeMap::new();
    for entry in fs::read_dir(dir.join(format!("out-{name}"))).expect("an output") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        for line in fs::read_to_string(path).expect("rows").lines() {
            let mut row: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(line).expect("a row");
            let change = row.remove("_change").expect("a change");
            let key = serde_json::to_string(&row).expect("text");
            *rows.entry(key).or_insert(0) += change.as_i64().expect("a number");
        }
    }
    rows.retain(|_, times| *times != 0);
    rows
}

#[track_caller]
fn check(sql: &str, groups: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    fs::create_dir(dir.join("in")).expect("made");
    add(dir, 0..12);
    run(dir, "handed", sql, 1).expect("one worker");
    add(dir, 12..24);
    run(dir, "handed", sql, 3).expect("three workers");
    let wanted = left(dir, "handed");
    assert_eq!(wanted.len(), groups, "{wanted:?}");
    assert!(wanted.values().all(|times| *times == 1), "{wanted:?}");
    for workers in [1, 2, 3] {
        let name = format!("by-{workers}");
        run(dir, &name, sql, workers).expect("a run");
        assert_eq!(left(dir, &name), wanted, "by {workers} workers");
    }
}

#[test]
fn the_number_of_workers_leaves_no_digit() {
    check(&format!("SELECT k, {CALLS} FROM t GROUP BY k"), 3);
}

#[test]
fn neither_does_it_where_the_rows_change() {
    let sums = "(SELECT k, v, sum(d) AS d FROM t GROUP BY k, v)";
    check(&format!("SELECT k, {CALLS} FROM {sums} GROUP BY k"), 3);
}
