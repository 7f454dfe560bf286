//! Subqueries that depend on the rows around them in more than one way, in all clauses; and rows that change under a key.

use highwater::OutputMode;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::changing::{either, query};
use crate::query::{Query, any_relation, one};

/// A value for a row of `r` that asks `o`.
fn value(random: &mut StdRng, o: &str, least: i64) -> String {
    match random.random_range(0..20) {
        0 => format!("(SELECT count(*) FROM {o} AS o WHERE o.v < r.v)"),
        1 => format!("(SELECT sum(o.v) FROM {o} AS o WHERE o.k = r.k AND o.v > r.v)"),
        2 => format!("(SELECT max(o.v) + r.v FROM {o} AS o WHERE o.k = r.k)"),
        3 => format!("(SELECT sum(o.v + r.v) FROM {o} AS o WHERE o.g = r.g)"),
        4 => format!("(SELECT o.v FROM {o} AS o WHERE o.k = r.k ORDER BY o.v DESC LIMIT 1)"),
        5 => {
            format!("(SELECT o.g FROM {o} AS o WHERE o.v > r.v ORDER BY o.v, o.g LIMIT 1 OFFSET 1)")
        }
        6 => format!(
            "(SELECT max(n) FROM (SELECT count(*) AS n FROM {o} AS o WHERE o.k = r.k GROUP BY o.g))"
        ),
        7 => format!("(SELECT count(DISTINCT o.g) FROM {o} AS o WHERE o.k = r.k OR o.v = {least})"),
        8 => format!("r.v IN (SELECT o.v FROM {o} AS o WHERE o.g < r.g)"),
        9 => format!("r.v NOT IN (SELECT o.v FROM {o} AS o WHERE o.g < r.g OR o.v > {least})"),
        10 => format!("(r.k, r.g) IN (SELECT o.k, o.g FROM {o} AS o WHERE o.v > r.v)"),
        11 => format!(
            "(SELECT max(x.v) FROM (SELECT o.v, o.g FROM {o} AS o WHERE o.k = r.k) x WHERE x.g > r.g)"
        ),
        12 => format!(
            "(WITH c AS (SELECT o.v, o.g FROM {o} AS o WHERE o.k = r.k) SELECT count(*) FROM c AS x JOIN c AS y ON x.v < y.v)"
        ),
        13 => format!("r.v IN (SELECT x.v FROM (SELECT o.v, o.k FROM {o} AS o WHERE o.g < r.g) x)"),
        14 => format!(
            "(SELECT count(*) FROM {o} AS o WHERE exists(array(o.v, o.g), x -> x > r.v AND x > r.g))"
        ),
        15 => format!(
            "(SELECT count(*) FROM {o} AS o WHERE o.v > (SELECT avg(p.v) FROM {o} AS p WHERE p.k = r.k))"
        ),
        16 => format!(
            "(SELECT sum((SELECT count(*) FROM dim AS d WHERE d.k = r.k AND o.v > {least})) FROM {o} AS o WHERE o.k = r.k)"
        ),
        17 => format!(
            "(SELECT count(*) FROM {o} AS o WHERE o.k = r.k AND r.v NOT IN (SELECT p.v FROM {o} AS p WHERE p.g = o.g))"
        ),
        18 => format!(
            "(SELECT max(t.n) FROM {o} AS o, LATERAL (SELECT o.v + r.v AS n FROM dim AS d WHERE d.k = o.k) t WHERE o.g = r.g)"
        ),
        _ => format!(
            "(SELECT count(*) FROM (SELECT o.v FROM {o} AS o WHERE o.k = r.k UNION SELECT o.v FROM {o} AS o WHERE o.v > r.v))"
        ),
    }
}

fn condition(random: &mut StdRng, o: &str, least: i64) -> String {
    match random.random_range(0..12) {
        0 => format!("r.v > (SELECT avg(o.v) FROM {o} AS o WHERE o.g < r.g)"),
        1 => format!(
            "EXISTS (SELECT o.g FROM {o} AS o WHERE o.k = r.k GROUP BY o.g HAVING count(*) > 2)"
        ),
        2 => format!(
            "NOT EXISTS (SELECT 1 FROM {o} AS o WHERE o.k = r.k AND o.v > {least} UNION ALL SELECT 1 FROM {o} AS o WHERE o.v = r.v + 1)"
        ),
        3 => format!(
            "EXISTS (SELECT 1 FROM {o} AS o LEFT JOIN dim AS d ON o.k = d.k WHERE o.v < r.v AND d.k IS NULL)"
        ),
        4 => format!("(r.v IN (SELECT o.v FROM {o} AS o WHERE o.g <= r.g) OR r.g = 1)"),
        5 => format!(
            "EXISTS (SELECT 1 FROM (SELECT DISTINCT o.v, o.g FROM {o} AS o WHERE o.k = r.k) x WHERE x.v > {least})"
        ),
        6 => format!(
            "NOT EXISTS (WITH c AS (SELECT o.v, o.k FROM {o} AS o WHERE o.g >= r.g) SELECT 1 FROM c WHERE c.k = r.k AND c.v > {least})"
        ),
        7 => format!(
            "r.v NOT IN (SELECT x.v FROM (SELECT o.v, o.k FROM {o} AS o WHERE o.k = r.k) x WHERE x.v IS NOT NULL AND x.v > {least})"
        ),
        8 => format!(
            "EXISTS (SELECT 1 FROM {o} AS o WHERE o.k = r.k AND NOT EXISTS (SELECT 1 FROM {o} AS p WHERE p.g = r.g AND p.v > o.v))"
        ),
        9 => format!(
            "EXISTS (SELECT 1 FROM (SELECT o.k, max(o.v) AS h FROM {o} AS o WHERE o.g = r.g GROUP BY o.k) x WHERE x.h > (SELECT count(*) FROM dim AS d WHERE d.k = r.k))"
        ),
        10 => format!(
            "EXISTS (SELECT 1 FROM {o} AS o FULL JOIN dim AS d ON o.k = d.k WHERE o.g = r.g AND NOT EXISTS (SELECT 1 FROM (SELECT DISTINCT p.g FROM {o} AS p) x WHERE x.g > o.v))"
        ),
        _ => format!(
            "NOT (r.v IN (SELECT o.g FROM {o} AS o) OR r.k IN (SELECT o.k FROM {o} AS o WHERE o.v > {least}))"
        ),
    }
}

/// Queries inside of queries wherever they may stand.
pub(crate) fn asked(random: &mut StdRng) -> Query {
    let (from, other) = (any_relation(random), any_relation(random));
    let least = random.random_range(-5..15);
    let (asks, tells) = (
        condition(random, &other, least),
        value(random, &other, least),
    );
    let call = one(
        random,
        &["count(*)", "max(o.v)", "sum(o.v + r.v)", "count(o.g)"],
    );
    let sql = match random.random_range(0..14) {
        0 => format!("SELECT k, g, v FROM {from} AS r WHERE {asks}"),
        11 => format!("SELECT k, v, count(*) OVER (PARTITION BY {asks}) AS n FROM {from} AS r"),
        12 => format!(
            "SELECT r.k, r.v, t.y AS n FROM {from} AS r, LATERAL explode(array(r.v, CAST({tells} AS BIGINT))) AS t(y)"
        ),
        13 => format!(
            "SELECT k, v FROM {from} AS r WHERE (g, CAST({tells} AS BIGINT)) IN (SELECT o.g, o.v FROM {other} AS o WHERE o.v > {least})"
        ),
        1 => format!("SELECT k, v, {tells} AS n FROM {from} AS r"),
        2 => format!("SELECT k, count({tells}) AS n FROM {from} AS r GROUP BY k"),
        3 => format!("SELECT k, max(CASE WHEN {asks} THEN v END) AS n FROM {from} AS r GROUP BY k"),
        4 => format!("SELECT {asks} AS b, count(*) AS n FROM {from} AS r GROUP BY 1"),
        5 => format!(
            "SELECT r.k, count(*) AS n FROM {from} AS r GROUP BY r.k HAVING count(*) > (SELECT count(*) FROM {other} AS o WHERE o.k = r.k)"
        ),
        6 => format!(
            "SELECT k, count(*) AS n FROM {from} AS r GROUP BY k HAVING k IN (SELECT o.k FROM {other} AS o WHERE o.v > {least}) OR count(*) IN (SELECT o.g FROM {other} AS o)"
        ),
        7 => format!(
            "SELECT r.k, r.v, t.n FROM {from} AS r, LATERAL (SELECT {call} AS n FROM {other} AS o WHERE o.k = r.k) t"
        ),
        8 => format!(
            "SELECT r.k, r.v, t.v AS n FROM {from} AS r LEFT JOIN LATERAL (SELECT o.v FROM {other} AS o WHERE o.v > r.v ORDER BY o.v LIMIT 2) t"
        ),
        9 => format!("SELECT r.k, d.rate FROM {from} AS r JOIN dim AS d ON r.k = d.k AND {asks}"),
        _ => format!(
            "SELECT r.k, r.v, d.rate FROM {from} AS r LEFT JOIN dim AS d ON r.k = d.k AND {asks}"
        ),
    };
    let mode = either(random);
    query(sql, mode, 0)
}

/// Rows that change, each of which has a key: in update mode too.
pub(crate) fn keyed(random: &mut StdRng) -> Query {
    let (from, other) = (any_relation(random), any_relation(random));
    let (a, b) = (
        format!("(SELECT k, count(*) AS n, sum(v) AS s FROM {from} AS r GROUP BY k)"),
        format!("(SELECT k, count(*) AS m, max(v) AS h FROM {other} AS o GROUP BY k)"),
    );
    let join = one(random, &["JOIN", "LEFT JOIN"]);
    let least = random.random_range(-5..15);
    let (sql, keys) = match random.random_range(0..6) {
        0 => (
            format!("SELECT a.k, a.n, b.m, b.h FROM {a} AS a {join} {b} AS b ON a.k = b.k"),
            1,
        ),
        1 => (
            format!(
                "SELECT k, count(*) AS n, (SELECT max(v) FROM {other} AS o WHERE o.v > {least}) AS m FROM {from} AS r GROUP BY k"
            ),
            1,
        ),
        2 => (
            format!(
                "SELECT r.k, count(o.v) AS n, max(o.g) AS h FROM {from} AS r LEFT JOIN {other} AS o ON r.k = o.k GROUP BY r.k"
            ),
            1,
        ),
        3 => (
            format!(
                "SELECT d.rate, sum(a.n) AS n, max(a.s) AS s FROM {a} AS a JOIN dim AS d ON a.k = d.k GROUP BY d.rate"
            ),
            1,
        ),
        4 => (
            format!(
                "SELECT a.k, b.k AS l, a.n + b.m AS t FROM {a} AS a JOIN {b} AS b ON a.k < b.k"
            ),
            2,
        ),
        _ => (
            format!(
                "SELECT a.k, a.n, b.m FROM {a} AS a LEFT JOIN {b} AS b ON a.k = b.k AND a.n > b.m"
            ),
            1,
        ),
    };
    let mode = [OutputMode::Update, OutputMode::Changes][random.random_range(0..2)];
    query(sql, mode, keys)
}
