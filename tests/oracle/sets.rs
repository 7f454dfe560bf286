//! Queries that compare rows with other rows: set operations, OVER windows, grouping sets, and queries inside conditions.

use highwater::OutputMode;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::changing::{either, query};
use crate::query::{Query, any_relation, one};

/// Rows that are all there when the query begins, or answers over them.
const STATIC: &[&str] = &[
    "(SELECT k, rate AS g, rate AS v, 0.5D AS x FROM dim)",
    "(SELECT k, count(*) AS g, sum(rate) AS v, 0.5D AS x FROM dim GROUP BY k)",
    "(SELECT max(k) AS k, count(*) AS g, sum(rate) AS v, 0.5D AS x FROM dim)",
    "(SELECT k, rate AS g, rate AS v, 0.5D AS x FROM dim ORDER BY rate, k LIMIT 3)",
    "(SELECT DISTINCT k, 1L AS g, rate AS v, 0.5D AS x FROM dim)",
    "(SELECT k, rate AS g, row_number() OVER (ORDER BY rate, k) AS v, 0.5D AS x FROM dim)",
    "(SELECT k, unix_seconds(window.start) AS g, count(*) AS v, 0.5D AS x FROM \
     (SELECT k, timestamp_seconds(rate * 600) AS at FROM dim) AS d GROUP BY k, window(at, '30 minutes', '10 minutes'))",
];

/// Rows of both streams that stay, or groups of them.
fn rows(random: &mut StdRng) -> String {
    match random.random_range(0..5) {
        0 => "(SELECT k, g, v, x FROM u)".to_string(),
        1 => groups(random),
        _ => any_relation(random),
    }
}

fn groups(random: &mut StdRng) -> String {
    let from = any_relation(random);
    let call = one(random, &["count(*)", "max(v)", "sum(v)"]);
    format!("(SELECT k, g, {call} AS v, max(x) AS x FROM {from} AS r GROUP BY k, g)")
}

/// UNION, INTERSECT and EXCEPT, of two or three.
pub(crate) fn sets(random: &mut StdRng) -> Query {
    let ways = [
        "UNION",
        "UNION ALL",
        "INTERSECT",
        "INTERSECT ALL",
        "EXCEPT",
        "EXCEPT ALL",
        "MINUS",
    ];
    let columns = one(random, &["k, g", "g, v % 3 AS m", "k", "k, g, v"]);
    // Groups of a stream beside static ones: in complete mode both come with every epoch.
    if random.random_bool(0.2) {
        let mut sides = [groups(random), one(random, STATIC).to_string()];
        if random.random_bool(0.5) {
            sides.reverse();
        }
        let [a, b] = sides;
        let text =
            format!("SELECT {columns} FROM {a} AS a UNION ALL SELECT {columns} FROM {b} AS b");
        return query(text, either(random), 0);
    }
    let mut text = format!("SELECT {columns} FROM {} AS a", rows(random));
    for _ in 0..random.random_range(1..3) {
        let way = one(random, &ways);
        let other = match random.random_bool(0.3) {
            true => one(random, STATIC).to_string(),
            false => rows(random),
        };
        text = match random.random_bool(0.5) {
            true => format!("({text}) {way} (SELECT {columns} FROM {other} AS b)"),
            false => format!("(SELECT {columns} FROM {other} AS b) {way} ({text})"),
        };
    }
    let mode = either(random);
    match random.random_range(0..4) {
        // Its one row always has a successor, whatever leaves below.
        0 => {
            let mode = match random.random_bool(0.3) {
                true => OutputMode::Update,
                false => mode,
            };
            query(format!("SELECT count(*) AS n FROM ({text}) AS s"), mode, 0)
        }
        1 => {
            let first = columns.split([',', ' ']).next().unwrap_or_default();
            query(
                format!("SELECT {first} AS f, count(*) AS n FROM ({text}) AS s GROUP BY {first}"),
                mode,
                1,
            )
        }
        _ => query(text, mode, 0),
    }
}

/// Functions of a row's place among those of its partition, in an order that tells all rows apart but equal ones.
pub(crate) fn overs(random: &mut StdRng) -> Query {
    let from = rows(random);
    let partition = one(
        random,
        &[
            "PARTITION BY k ",
            "PARTITION BY g ",
            "PARTITION BY k, g ",
            "",
        ],
    );
    let order = one(
        random,
        &[
            "ORDER BY v, k, g, x",
            "ORDER BY v DESC, x, k, g",
            "ORDER BY g, v, k DESC, x",
        ],
    );
    let call = one(
        random,
        &[
            "row_number()",
            "rank()",
            "dense_rank()",
            "lag(v)",
            "lead(v, 2)",
            "sum(v)",
            "count(*)",
            "max(v)",
            "first_value(v)",
            "ntile(3)",
        ],
    );
    let frames = [
        "ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
        "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
    ];
    let framed = ["sum(v)", "count(*)", "max(v)"].contains(&call);
    let frame = if framed && random.random_bool(0.5) {
        one(random, &frames)
    } else {
        ""
    };
    let over = format!("{call} OVER ({partition}{order} {frame})");
    let mode = either(random);
    match random.random_range(0..4) {
        0 => query(
            format!(
                "SELECT k, g, v, x FROM (SELECT k, g, v, x, row_number() OVER ({partition}{order}) AS n FROM {from} AS r) AS q WHERE n <= 2"
            ),
            mode,
            0,
        ),
        1 => query(
            format!(
                "SELECT g, sum(n) AS s, count(*) AS c FROM (SELECT g, {over} AS n FROM {from} AS r) AS q GROUP BY g"
            ),
            mode,
            1,
        ),
        // Without an order all rows of a partition have the same answer.
        2 => query(
            format!(
                "SELECT k, v, sum(v) OVER (PARTITION BY k) AS s, count(*) OVER (PARTITION BY k) AS c FROM {from} AS r"
            ),
            mode,
            0,
        ),
        _ => query(
            format!("SELECT k, g, v, x, {over} AS n FROM {from} AS r"),
            mode,
            0,
        ),
    }
}

pub(crate) fn grouping_sets(random: &mut StdRng) -> Query {
    let from = rows(random);
    let by = one(
        random,
        &[
            "ROLLUP (k, g)",
            "CUBE (k, g)",
            "GROUPING SETS ((k), (g), ())",
            "GROUPING SETS ((k, g), (k))",
        ],
    );
    let calls = one(
        random,
        &[
            "count(*) AS n, sum(v) AS s",
            "count(*) AS n, max(v) AS m, min(x) AS i",
            "count(DISTINCT v) AS n",
        ],
    );
    let id = one(
        random,
        &["", ", grouping_id() AS i0", ", grouping(k) AS i0"],
    );
    let mode = either(random);
    query(
        format!("SELECT k, g, {calls}{id} FROM {from} AS r GROUP BY {by}"),
        mode,
        2,
    )
}

/// Conditions that ask another query.
pub(crate) fn subqueries(random: &mut StdRng) -> Query {
    let (from, other) = (rows(random), rows(random));
    let least = random.random_range(-5..15);
    let condition = asked(random, &other, least);
    let mode = either(random);
    match random.random_range(0..6) {
        0 => query(
            format!(
                "SELECT k, count(*) AS n, sum(v) AS s FROM {from} AS r WHERE {condition} GROUP BY k"
            ),
            mode,
            1,
        ),
        1 => {
            let value = value(random, &other, least);
            query(
                format!("SELECT k, v, {value} AS n FROM {from} AS r"),
                mode,
                0,
            )
        }
        2 => query(
            format!(
                "SELECT g, count(*) AS n FROM {from} AS r GROUP BY g HAVING count(*) > (SELECT count(*) FROM {other} AS o WHERE o.v > {least})"
            ),
            mode,
            1,
        ),
        3 => {
            let second = asked(random, "t", -least);
            query(
                format!("SELECT k, g, v FROM {from} AS r WHERE {condition} AND {second}"),
                mode,
                0,
            )
        }
        _ => query(
            format!("SELECT k, g, v FROM {from} AS r WHERE {condition}"),
            mode,
            0,
        ),
    }
}

/// A condition on a row of `r` that asks `other`.
fn asked(random: &mut StdRng, other: &str, least: i64) -> String {
    match random.random_range(0..16) {
        0 => format!("r.k IN (SELECT k FROM {other} AS o WHERE o.v > {least})"),
        1 => format!(
            "r.v NOT IN (SELECT g FROM {other} AS o WHERE o.g IS NOT NULL AND o.v > {least})"
        ),
        2 => format!("r.g NOT IN (SELECT g FROM {other} AS o WHERE o.v > {least})"),
        3 => format!("EXISTS (SELECT 1 FROM {other} AS o WHERE o.k = r.k AND o.v > r.v)"),
        4 => format!(
            "NOT EXISTS (SELECT 1 FROM {other} AS o WHERE o.k = r.k AND o.g = r.g AND o.v > {least})"
        ),
        5 => format!("r.v > (SELECT avg(v) FROM {other} AS o)"),
        6 => format!("r.v >= (SELECT max(v) FROM {other} AS o WHERE o.k = r.k)"),
        7 => format!("(r.k, r.g) IN (SELECT o.k, o.g FROM {other} AS o WHERE o.v > {least})"),
        8 => format!("(r.k, r.g) NOT IN (SELECT o.k, o.g FROM {other} AS o WHERE o.v > {least})"),
        9 => format!("EXISTS (SELECT 1 FROM {other} AS o WHERE o.v > {least})"),
        10 => format!("NOT EXISTS (SELECT 1 FROM {other} AS o WHERE o.v > {least} AND o.g > 1)"),
        11 => {
            format!("r.v NOT IN (SELECT o.v FROM {other} AS o WHERE o.k = r.k AND o.g IS NOT NULL)")
        }
        12 => format!(
            "CASE WHEN r.g = 1 THEN r.v IN (SELECT o.v FROM {other} AS o) ELSE r.v > {least} END"
        ),
        13 => format!("(EXISTS (SELECT 1 FROM {other} AS o WHERE o.k = r.k) OR r.g = 2)"),
        14 => format!("r.g IN (SELECT count(*) FROM {other} AS o GROUP BY o.k)"),
        _ => format!("(r.k IN (SELECT k FROM {other} AS o) OR r.g = 1)"),
    }
}

/// A value for a row of `r` that asks `other`.
fn value(random: &mut StdRng, other: &str, least: i64) -> String {
    match random.random_range(0..6) {
        0 => format!("(SELECT count(*) FROM {other} AS o WHERE o.k = r.k)"),
        1 => format!("(SELECT max(o.v) FROM {other} AS o WHERE o.k = r.k AND o.v > {least})"),
        2 => format!("(SELECT sum(o.v) FROM {other} AS o) + r.v"),
        3 => format!(
            "coalesce((SELECT min(o.g) FROM {other} AS o WHERE o.k = r.k AND o.g = r.g), -1)"
        ),
        4 => format!("r.v IN (SELECT o.v FROM {other} AS o WHERE o.v > {least})"),
        _ => format!("EXISTS (SELECT 1 FROM {other} AS o WHERE o.k = r.k)"),
    }
}

/// Conditions whose answer for a row stays once it is true, over rows that stay: in every mode.
pub(crate) fn subqueries_that_stay(random: &mut StdRng) -> Query {
    let (from, other) = (any_relation(random), any_relation(random));
    let least = random.random_range(-5..15);
    let condition = match random.random_range(0..5) {
        0 => format!("r.k IN (SELECT k FROM {other} AS o WHERE o.v > {least})"),
        1 => format!("EXISTS (SELECT 1 FROM {other} AS o WHERE o.k = r.k AND o.v > r.v)"),
        2 => format!("(r.k, r.g) IN (SELECT o.k, o.g FROM {other} AS o)"),
        3 => format!("EXISTS (SELECT 1 FROM {other} AS o WHERE o.v > {least})"),
        _ => format!("r.g IN (SELECT o.v FROM {other} AS o)"),
    };
    let modes = [
        (OutputMode::Append, 0),
        (OutputMode::Update, usize::MAX),
        (OutputMode::Complete, 0),
        (OutputMode::Changes, 0),
    ];
    let from = match random.random_range(0..4) {
        0 => "(SELECT k, rate AS g, rate AS v FROM dim)".to_string(),
        _ => from,
    };
    let (mode, keys) = modes[random.random_range(0..4)];
    query(
        format!("SELECT k, g, v FROM {from} AS r WHERE {condition}"),
        mode,
        keys,
    )
}

/// Pairs and groups that stay, in the modes that take them: nothing here leaves again.
pub(crate) fn unions_that_stay(random: &mut StdRng) -> Query {
    let (a, b) = (any_relation(random), any_relation(random));
    let text = format!("SELECT k, v FROM {a} AS a UNION SELECT k, v FROM {b} AS b");
    match random.random_range(0..2) {
        0 => query(text, OutputMode::Update, 2),
        _ => query(text, either(random), 2),
    }
}
