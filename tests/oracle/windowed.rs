//! Random queries by event time whose answer is a batch query over the rows in time: windows, moments, partitions of them.

use highwater::OutputMode;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::query::{Batch, InTime, Query, ROWS, one, some};
use crate::reference::Grid;
use crate::rows::{MINUTE, SECOND};

fn grid(random: &mut StdRng) -> (Grid, String) {
    let (width, slide) =
        [(5, 5), (10, 10), (10, 5), (10, 4), (6, 2), (1, 1)][random.random_range(0..6)];
    let start = [0, 0, 30, -20][random.random_range(0..4)];
    let grid = Grid {
        width: width * MINUTE,
        slide: slide * MINUTE,
        start: start * SECOND,
    };
    let text = format!("window(ts, '{width} minutes', '{slide} minutes', '{start} seconds')");
    (grid, text)
}

/// `t` with a watermark, and only rows above some `v`, said below or above the clause.
fn marked(random: &mut StdRng) -> (String, i64, Option<i64>) {
    let seconds = [0, 10, 90, 600][random.random_range(0..4)];
    let delay = format!("WATERMARK ts DELAY OF INTERVAL {seconds} SECONDS");
    let least = random.random_range(-8..8);
    let (text, above) = match random.random_range(0..4) {
        0 => (
            format!("(SELECT * FROM t WHERE v > {least}) {delay} AS r"),
            Some(least),
        ),
        1 => (format!("t {delay} AS r WHERE v > {least}"), Some(least)),
        _ => (format!("t {delay} AS r"), None),
    };
    (text, seconds * SECOND, above)
}

fn by_time(random: &mut StdRng) -> OutputMode {
    let modes = [
        OutputMode::Append,
        OutputMode::Append,
        OutputMode::Update,
        OutputMode::Complete,
        OutputMode::Changes,
    ];
    modes[random.random_range(0..modes.len())]
}

const BY_WINDOW: &[&str] = &[
    "count(*)",
    "sum(v)",
    "min(v)",
    "max(k)",
    "avg(x)",
    "sum(x)",
    "count(DISTINCT g)",
    "sum(DISTINCT v)",
    "percentile(v, 0.3)",
    "stddev(x)",
    "corr(v, x)",
    "kurtosis(x)",
    "regr_intercept(x, v)",
    "var_pop(DISTINCT x)",
    "percentile_approx(v, array(0.2, 0.5))",
    "mode(k)",
    "first(v)",
    "last(g, true)",
    "collect_list(v)",
];

pub(crate) fn windows(random: &mut StdRng) -> Query {
    let ((grid, call), (from, delay_us, above)) = (grid(random), marked(random));
    let keys = some(random, &["k", "g"], 0, 1);
    let listed: String = keys.iter().map(|key| format!(", {key}")).collect();
    let calls = some(random, BY_WINDOW, 1, 3);
    let calls: String = calls
        .iter()
        .enumerate()
        .map(|(i, c)| format!(", {c} AS a{i}"))
        .collect();
    let mode = by_time(random);
    Query {
        sql: format!("SELECT {call} AS w{listed}{calls} FROM {from} GROUP BY {call}{listed}"),
        mode,
        keys: 1 + keys.len(),
        rows_max: ROWS,
        views: Vec::new(),
        few_values: false,
        batch: Batch::InTime(InTime {
            sql: format!(
                "SELECT named_struct('start', ws, 'end', we) AS w{listed}{calls} FROM p WHERE {{final}} GROUP BY ws, we{listed}"
            ),
            delay_us,
            above,
            keys: Some(["k", "g"].map(|key| keys.contains(&key))),
            grid: Some(grid),
            ends: "we",
        }),
    }
}

/// Windows by several sets of keys.
pub(crate) fn windows_by_sets(random: &mut StdRng) -> Query {
    let ((grid, call), (from, delay_us, above)) = (grid(random), marked(random));
    let sets = one(
        random,
        &[
            "ROLLUP(k)",
            "CUBE(k, g)",
            "ROLLUP(g, k)",
            "GROUPING SETS ((k), (g), ())",
        ],
    );
    let keys = match sets {
        "ROLLUP(k)" => "k, grouping(k) AS sets",
        "ROLLUP(g, k)" => "g, k, grouping(g) * 2 + grouping(k) AS sets",
        _ => "k, g, grouping(k) * 2 + grouping(g) AS sets",
    };
    let calls = some(random, BY_WINDOW, 1, 3);
    let calls = calls.iter().enumerate();
    let calls: String = calls.map(|(i, call)| format!(", {call} AS a{i}")).collect();
    Query {
        sql: format!("SELECT {call} AS w, {keys}{calls} FROM {from} GROUP BY {call}, {sets}"),
        mode: by_time(random),
        keys: if sets == "ROLLUP(k)" { 3 } else { 4 },
        rows_max: ROWS,
        views: Vec::new(),
        few_values: false,
        batch: Batch::InTime(InTime {
            sql: format!(
                "SELECT named_struct('start', ws, 'end', we) AS w, {keys}{calls} FROM p WHERE {{final}} GROUP BY ws, we, {sets}"
            ),
            delay_us,
            above,
            keys: None,
            grid: Some(grid),
            ends: "we",
        }),
    }
}

/// What a window holds goes on into wider ones, which may overlap.
pub(crate) fn windows_of_windows(random: &mut StdRng) -> Query {
    let (from, delay_us, above) = marked(random);
    let (width, slide) = [(15, 15), (15, 5), (20, 10)][random.random_range(0..3)];
    let by = one(random, &["", ", k"]);
    let columns = "sum(n) AS n, max(s) AS m, count(*) AS c, avg(s) AS a";
    let inner = "SELECT window(ts, '5 minutes') AS w, k, count(*) AS n, sum(v) AS s";
    let outer = format!("SELECT window(w, '{width} minutes', '{slide} minutes') AS w2{by}");
    let all = if by.is_empty() { "1" } else { "1, k" };
    let windows = (0..width / slide).map(|back| format!("({})", back * slide * 60));
    let windows = windows.collect::<Vec<_>>().join(", ");
    let seconds = slide * 60;
    Query {
        sql: format!(
            "{outer}, {columns} FROM ({inner} FROM {from} GROUP BY 1, 2) AS q GROUP BY {all}"
        ),
        mode: by_time(random),
        keys: if by.is_empty() { 1 } else { 2 },
        rows_max: ROWS,
        views: Vec::new(),
        few_values: false,
        batch: Batch::InTime(InTime {
            sql: format!(
                "SELECT named_struct('start', vs, 'end', ve) AS w2{by}, {columns} FROM \
                 (SELECT k, n, s, timestamp_seconds(at - back) AS vs, timestamp_seconds(at - back + {width} * 60) AS ve FROM \
                 (SELECT floor(unix_seconds(ws) / {seconds}) * {seconds} AS at, k, count(*) AS n, sum(v) AS s \
                 FROM p GROUP BY ws, we, k) AS i CROSS JOIN (VALUES {windows}) AS o(back)) AS q \
                 WHERE {{final}} GROUP BY vs, ve{by}"
            ),
            delay_us,
            above,
            keys: Some([true, false]),
            grid: Some(Grid {
                width: 5 * MINUTE,
                slide: 5 * MINUTE,
                start: 0,
            }),
            ends: "ve",
        }),
    }
}

/// The event time itself is a key.
pub(crate) fn event_times(random: &mut StdRng) -> Query {
    let (from, delay_us, above) = marked(random);
    let key = one(random, &["ts", "ts, k", "ts, g"]);
    let distinct = random.random_bool(0.4);
    let text = |from: &str| match distinct {
        true => format!("SELECT DISTINCT {key} FROM {from}"),
        false => format!("SELECT {key}, count(*) AS n, sum(v) AS s FROM {from} GROUP BY {key}"),
    };
    Query {
        sql: text(&from),
        mode: by_time(random),
        keys: key.split(',').count(),
        rows_max: ROWS,
        views: Vec::new(),
        few_values: false,
        batch: Batch::InTime(InTime {
            sql: text("p WHERE {final}"),
            delay_us,
            above,
            keys: Some(["k", "g"].map(|name| key.contains(name))),
            grid: None,
            ends: "ts",
        }),
    }
}

/// Functions over all rows of a window, or of a moment: final when the watermark has passed it.
pub(crate) fn partitions_by_time(random: &mut StdRng) -> Query {
    let ((grid, call), (from, delay_us, above)) = (grid(random), marked(random));
    let function = one(
        random,
        &[
            "row_number()",
            "rank()",
            "dense_rank()",
            "lag(v)",
            "lead(v)",
            "sum(v)",
            "count(*)",
            "first_value(v)",
        ],
    );
    let by = one(random, &["", ", k"]);
    let over = |time: &str| {
        format!("{function} OVER (PARTITION BY {time}{by} ORDER BY v DESC, k, g, x) AS n")
    };
    let (stream, batch, grid, ends) = match random.random_range(0..4) {
        0 => (
            format!("SELECT k, v, {} FROM {from}", over("ts")),
            format!("SELECT k, v, {} FROM p WHERE {{final}}", over("ts")),
            None,
            "ts",
        ),
        1 => (
            format!(
                "SELECT k, v, {} FROM (SELECT {call} AS w, k, g, v, x FROM {from}) AS q",
                over("w")
            ),
            format!("SELECT k, v, {} FROM p WHERE {{final}}", over("ws")),
            Some(grid),
            "we",
        ),
        // The first rows of each window, of rows and of groups.
        2 => {
            let first = "row_number() OVER (PARTITION BY w ORDER BY v DESC, k, g, x) AS n";
            let batch = first.replace("BY w ", "BY ws ");
            (
                format!(
                    "SELECT k, v, n FROM (SELECT k, v, {first} FROM (SELECT {call} AS w, k, g, v, x FROM {from}) AS q) AS f WHERE n < 3"
                ),
                format!(
                    "SELECT k, v, n FROM (SELECT k, v, {batch} FROM p WHERE {{final}}) AS f WHERE n < 3"
                ),
                Some(grid),
                "we",
            )
        }
        _ => {
            let groups = "k, min(g) AS g, sum(v) AS v, count(*) AS x";
            (
                format!(
                    "SELECT k, v, {} FROM (SELECT {call} AS w, {groups} FROM {from} GROUP BY {call}, k) AS q",
                    over("w")
                ),
                format!(
                    "SELECT k, v, {} FROM (SELECT ws, {groups} FROM p WHERE {{final}} GROUP BY ws, we, k) AS q",
                    over("ws")
                ),
                Some(grid),
                "we",
            )
        }
    };
    Query {
        sql: stream,
        mode: OutputMode::Append,
        keys: 0,
        rows_max: ROWS,
        views: Vec::new(),
        few_values: false,
        batch: Batch::InTime(InTime {
            sql: batch,
            delay_us,
            above,
            keys: None,
            grid,
            ends,
        }),
    }
}
