//! Queries without event time over rows that change: joins, groups, sets and first rows of each other.
//!
//! A relation here has the columns k, g, v, x. Whatever it is made of, the answer is the batch answer.

use highwater::OutputMode;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::query::{Batch, Query, View, aggregates, any_relation, one};

/// Files of at most so many rows: what a join makes of them grows with their square.
const ROWS: usize = 9;

pub(crate) fn query(sql: String, mode: OutputMode, keys: usize) -> Query {
    Query {
        sql,
        mode,
        keys,
        rows_max: ROWS,
        views: Vec::new(),
        few_values: false,
        batch: Batch::Same,
    }
}

pub(crate) fn either(random: &mut StdRng) -> OutputMode {
    [OutputMode::Complete, OutputMode::Changes][random.random_range(0..2)]
}

/// Rows of one of the streams that are only ever added.
fn adding(random: &mut StdRng) -> String {
    match random.random_range(0..3) {
        0 => "(SELECT k, g, v, x FROM u)".to_string(),
        _ => any_relation(random),
    }
}

/// Rows that come and leave.
fn changing(random: &mut StdRng, depth: usize) -> String {
    if depth == 0 {
        return adding(random);
    }
    match random.random_range(0..10) {
        0..3 => grouped(random, depth),
        3 => {
            let from = changing(random, depth - 1);
            format!("(SELECT DISTINCT k, g, v, x FROM {from} AS r)")
        }
        4 => {
            let (from, count) = (changing(random, depth - 1), random.random_range(1..12));
            format!("(SELECT k, g, v, x FROM {from} AS r ORDER BY v, k, g, x LIMIT {count})")
        }
        5 => {
            let (a, b) = (changing(random, depth - 1), changing(random, depth - 1));
            format!("(SELECT k, g, v, x FROM {a} AS a UNION ALL SELECT k, g, v, x FROM {b} AS b)")
        }
        _ => joined(random, depth),
    }
}

fn grouped(random: &mut StdRng, depth: usize) -> String {
    let from = changing(random, depth - 1);
    let call = one(
        random,
        &["count(*)", "sum(v)", "max(v)", "count(DISTINCT v)"],
    );
    let having = one(
        random,
        &["", "", " HAVING count(*) > 1", " HAVING min(g) < 2"],
    );
    match random.random_range(0..3) {
        0 => format!(
            "(SELECT k, max(g) AS g, {call} AS v, sum(x) AS x FROM {from} AS r GROUP BY k{having})"
        ),
        1 => format!(
            "(SELECT min(k) AS k, g, {call} AS v, max(x) AS x FROM {from} AS r GROUP BY g{having})"
        ),
        _ => format!(
            "(SELECT k, g, {call} AS v, min(x) AS x FROM {from} AS r GROUP BY k, g{having})"
        ),
    }
}

/// What holds pairs together.
fn condition(random: &mut StdRng) -> String {
    let keys = [
        "l.k = r.k",
        "l.k = r.k AND l.g = r.g",
        "l.k = r.k AND l.v = r.v",
        "l.k <=> r.k AND l.v = r.v",
        "l.g <=> r.g AND l.v = r.v",
        "l.v = r.g",
        "l.v + 1 = r.v AND l.g = r.g",
        "lower(l.k) = lower(r.k) AND l.g = r.g",
    ];
    let more = [
        "",
        "",
        "",
        " AND l.v < r.v",
        " AND l.v > 3",
        " AND r.v > 3",
        " AND (l.g = 1 OR r.v > 5)",
        " AND l.g + r.g > 3",
        " AND l.v BETWEEN r.v - 2 AND r.v + 3",
        " AND r.k IS NOT NULL AND l.k <> 'k1'",
    ];
    format!("{}{}", one(random, &keys), one(random, &more))
}

/// What holds them together without an equality.
const UNEQUAL: &[&str] = &[
    "l.v < r.v",
    "l.v BETWEEN r.v AND r.v + 2",
    "l.g > r.g AND l.k <> r.k",
    "l.v > 12",
    "l.k = 'k1' OR r.k = 'k2'",
];

const KINDS: &[&str] = &[
    "INNER",
    "LEFT",
    "RIGHT",
    "FULL",
    "LEFT SEMI",
    "LEFT ANTI",
    "CROSS",
];

fn join_of(random: &mut StdRng, kind: &str, left: &str, right: &str) -> String {
    let columns = match kind {
        "LEFT SEMI" | "LEFT ANTI" => "l.k, l.g, l.v, l.x",
        "FULL" => "coalesce(l.k, r.k) AS k, r.g, l.v - r.v AS v, l.x",
        "RIGHT" => "r.k, l.g, l.v, r.x",
        _ => one(
            random,
            &[
                "l.k, r.g, l.v, r.x",
                "l.k, l.g, r.v, l.x",
                "r.k, r.g, l.v + r.v AS v, l.x",
            ],
        ),
    };
    // Few rows where each may be the partner of each.
    let few = |from: &str| format!("(SELECT k, g, v, x FROM {from} AS q WHERE v > 6)");
    match kind {
        "CROSS" => format!(
            "(SELECT {columns} FROM {} AS l CROSS JOIN {} AS r)",
            few(left),
            few(right)
        ),
        _ if random.random_bool(0.2) => {
            let on = one(random, UNEQUAL);
            format!(
                "(SELECT {columns} FROM {} AS l {kind} JOIN {} AS r ON {on})",
                few(left),
                few(right)
            )
        }
        _ => {
            let on = condition(random);
            format!("(SELECT {columns} FROM {left} AS l {kind} JOIN {right} AS r ON {on})")
        }
    }
}

fn joined(random: &mut StdRng, depth: usize) -> String {
    let kind = one(random, KINDS);
    let (left, right) = (changing(random, depth - 1), changing(random, depth - 1));
    join_of(random, kind, &left, &right)
}

/// Asks something of a relation.
fn over(random: &mut StdRng, from: &str) -> Query {
    let mode = either(random);
    match random.random_range(0..8) {
        0 => {
            let calls = aggregates(random);
            let key = one(random, &["k", "g", "v % 3", "k, g"]);
            let keys = key.split(',').count();
            query(
                format!("SELECT {key}{calls} FROM {from} AS j GROUP BY {key}"),
                mode,
                keys,
            )
        }
        1 => {
            let calls = aggregates(random);
            let list = calls.trim_start_matches(", ");
            query(format!("SELECT {list} FROM {from} AS j"), mode, 0)
        }
        2 => query(format!("SELECT DISTINCT k, v FROM {from} AS j"), mode, 2),
        3 => {
            let (order, count) = (
                one(random, &["v DESC, k, g, x", "k, v, g, x DESC"]),
                random.random_range(1..9),
            );
            query(
                format!("SELECT k, g, v, x FROM {from} AS j ORDER BY {order} LIMIT {count}"),
                mode,
                0,
            )
        }
        _ => query(format!("SELECT k, g, v, x FROM {from} AS j"), mode, 0),
    }
}

/// Joins of every kind, of rows that stay and of rows that leave again.
pub(crate) fn joins(random: &mut StdRng) -> Query {
    let depth = random.random_range(1..3);
    let from = joined(random, depth);
    over(random, &from)
}

/// Joins whose rows stay: append mode, and groups of them in update mode.
pub(crate) fn joins_that_stay(random: &mut StdRng) -> Query {
    let kind = one(random, &["INNER", "LEFT SEMI", "INNER", "CROSS"]);
    let (mut left, right) = (adding(random), adding(random));
    if random.random_bool(0.3) {
        let middle = adding(random);
        let kind = one(random, &["INNER", "LEFT SEMI"]);
        left = join_of(random, kind, &left, &middle);
    }
    let from = join_of(random, kind, &left, &right);
    if random.random_bool(0.5) {
        let mode = [OutputMode::Append, OutputMode::Update][random.random_range(0..2)];
        // Update mode without a key: every row counts.
        let keys = if mode == OutputMode::Update {
            usize::MAX
        } else {
            0
        };
        return query(format!("SELECT k, g, v, x FROM {from} AS j"), mode, keys);
    }
    let (key, calls) = (one(random, &["k", "g", "k, g"]), aggregates(random));
    let keys = key.split(',').count();
    query(
        format!("SELECT {key}{calls} FROM {from} AS j GROUP BY {key}"),
        OutputMode::Update,
        keys,
    )
}

/// Operators over rows that change, several deep.
pub(crate) fn chains(random: &mut StdRng) -> Query {
    let depth = random.random_range(2..4);
    let from = changing(random, depth);
    over(random, &from)
}

/// Functions of the order of rows over rows that change: they go by the rows' bytes, nulls first.
pub(crate) fn orders(random: &mut StdRng) -> Query {
    let from = grouped(random, 1);
    let mode = either(random);
    if random.random_bool(0.3) {
        let call = one(random, &["sum(v)", "max(v)", "count(*)", "first(v)"]);
        let of_one = "(SELECT k, g, max(v) AS v FROM r GROUP BY k, g)"
            .replace(" r ", &format!(" {from} AS r "));
        return query(
            format!("SELECT * FROM {of_one} PIVOT ({call} FOR g IN (0, 1 AS one, 2, 3))"),
            mode,
            1,
        );
    }
    let calls = [
        ("first(v)", "CASE WHEN count(v) = count(*) THEN min(v) END"),
        ("first(v, true)", "min(v)"),
        ("last(v)", "max(v)"),
        (
            "any_value(v)",
            "CASE WHEN count(v) = count(*) THEN min(v) END",
        ),
        ("collect_list(v)", "sort_array(collect_list(v))"),
        ("array_agg(v)", "sort_array(collect_list(v))"),
        ("sort_array(collect_set(v))", "sort_array(collect_set(v))"),
        (
            "listagg(CAST(v AS STRING), ',')",
            "listagg(CAST(v AS STRING), ',') WITHIN GROUP (ORDER BY v)",
        ),
        ("try_sum(v)", "sum(v)"),
        (
            "first(v) FILTER (WHERE v > 2)",
            "min(v) FILTER (WHERE v > 2)",
        ),
    ];
    let (stream, batch) = calls[random.random_range(0..calls.len())];
    let (list, by) = match random.random_range(0..3) {
        0 => ("", String::new()),
        1 => ("k, ", " GROUP BY k".to_string()),
        _ => ("g, ", " GROUP BY g".to_string()),
    };
    let text = |call: &str| format!("SELECT {list}{call} AS a, count(*) AS n FROM {from} AS q{by}");
    Query {
        batch: Batch::As(text(batch)),
        ..query(text(stream), mode, usize::from(!list.is_empty()))
    }
}

/// Sessions and first rows of rows that change.
pub(crate) fn sessions_that_change(random: &mut StdRng) -> Query {
    let depth = random.random_range(1..3);
    let from = changing(random, depth);
    let mode = either(random);
    // In complete mode rows that come again with every epoch are duplicates of themselves, as in the model.
    if mode == OutputMode::Changes && random.random_bool(0.5) {
        let from = grouped(random, 1);
        let (key, name) = one_key(random);
        let rest = ["k", "g", "v", "x"].map(|column| format!("{column} NULLS FIRST"));
        let first = format!(
            "row_number() OVER (PARTITION BY {key} ORDER BY {})",
            rest.join(", ")
        );
        return Query {
            batch: Batch::As(format!(
                "SELECT k, g, v, x FROM (SELECT k, g, v, x, {first} AS n FROM {from} AS q) AS f WHERE n = 1"
            )),
            views: vec![View {
                name: "firsts".into(),
                sql: format!("SELECT k, g, v, x FROM {from} AS q"),
                keys: name,
                within: false,
            }],
            ..query("SELECT k, g, v, x FROM firsts".into(), mode, 0)
        };
    }
    let gap = random.random_range(1..6);
    let window = format!("session_window(timestamp_seconds(v), '{gap} seconds') AS w");
    let calls = one(
        random,
        &[
            "count(*) AS n, sum(g) AS s",
            "count(*) AS n, first(g) AS f, last(g) AS l",
            "collect_list(g) AS n, max(x) AS m",
        ],
    );
    let (list, by) = match random.random_range(0..3) {
        0 => ("", "1"),
        1 => ("k, ", "1, 2"),
        _ => ("g, ", "1, 2"),
    };
    let text = format!("SELECT {window}, {list}{calls} FROM {from} AS q GROUP BY {by}");
    let columns = calls
        .split(" AS ")
        .skip(1)
        .map(|rest| rest.split(',').next().unwrap_or(rest));
    let columns = columns.collect::<Vec<_>>().join(", ");
    query(
        format!(
            "SELECT unix_seconds(w.start) AS a, unix_seconds(w.end) AS b, {list}{columns} FROM ({text}) AS s"
        ),
        mode,
        0,
    )
}

/// Windows of rows that change, those that overlap too, whether or not the slide divides the width.
pub(crate) fn windows_that_change(random: &mut StdRng) -> Query {
    let depth = random.random_range(1..3);
    let from = match random.random_range(0..3) {
        0 => grouped(random, depth),
        1 => joined(random, depth),
        _ => changing(random, depth),
    };
    let (width, slide) =
        [(6, 6), (6, 3), (9, 3), (5, 2), (7, 3), (4, 1)][random.random_range(0..6)];
    let start = random.random_range(0..slide);
    let window = format!(
        "window(timestamp_seconds(v), '{width} seconds', '{slide} seconds', '{start} seconds')"
    );
    let by = one(random, &["", ", k", ", g"]);
    let calls = aggregates(random);
    let names = (0..calls.matches(" AS a").count()).map(|index| format!(", a{index}"));
    let (columns, mode) = (names.collect::<String>(), either(random));
    query(
        format!(
            "SELECT unix_seconds(w.start) AS s, unix_seconds(w.end) AS e{by}{columns} FROM \
             (SELECT {window} AS w{by}{calls} FROM {from} AS q GROUP BY {window}{by}) AS r"
        ),
        mode,
        0,
    )
}

fn one_key(random: &mut StdRng) -> (&'static str, Vec<&'static str>) {
    [("k", vec!["k"]), ("k, g", vec!["k", "g"]), ("v", vec!["v"])][random.random_range(0..3)]
        .clone()
}
