//! Subqueries that depend on the rows around them, judged by asking each of them again for every row, its values in the
//! place of the columns.

use super::{check, parse_query, resolve, run, text};
use highwater_query::with_marks;

const L: &str =
    "(VALUES (1, 'a'), (2, 'b'), (2, 'b'), (3, NULL), (4, 'n'), (NULL, 'b')) AS l(i, k)";
const D: &str = "(VALUES ('a', 10, 1), ('b', 20, 2), ('b', 30, 1), ('b', 30, 5), (NULL, 40, 3), ('c', 0, NULL)) AS d(k, w, g)";
const ROWS: [(&str, &str); 6] = [
    ("1", "'a'"),
    ("2", "'b'"),
    ("2", "'b'"),
    ("3", "CAST(NULL AS STRING)"),
    ("4", "'n'"),
    ("CAST(NULL AS INT)", "'b'"),
];

/// What the query answers, sorted.
fn answers(sql: &str) -> Vec<String> {
    answered(sql, false)
}

/// The same; if `marked`, with joins that mark rows where it can be, as where a stream asks for rows that do not change.
fn answered(sql: &str, marked: bool) -> Vec<String> {
    let plan = parse_query(sql).and_then(|plan| resolve(&plan));
    let mut plan = plan.unwrap_or_else(|error| panic!("{error}\n{sql}"));
    if marked {
        plan = with_marks(plan, &|_| true).unwrap_or_else(|error| panic!("{error}\n{sql}"));
    }
    let rows = run(plan).unwrap_or_else(|error| panic!("{error}\n{sql}"));
    let mut rows: Vec<String> = text(&rows).lines().map(str::to_string).collect();
    rows.sort();
    rows
}

/// `{i}` and `{k}` in a subquery are the columns of the row around it.
fn with(subquery: &str, i: &str, k: &str) -> String {
    let subquery = subquery.replace("{i}", i).replace("{k}", k);
    let under = |name: &str| D.replace("AS d(", &format!("AS {name}("));
    let subquery = subquery.replace("{D2}", &under("e"));
    let subquery = subquery.replace("{D3}", &under("f"));
    subquery.replace("{D}", D)
}

const QUERIES: [&str; 37] = [
    "SELECT (SELECT count(*) FROM {D} WHERE d.k = {k}) + max(e.w) FROM {D2}",
    "SELECT count(*) FROM (SELECT * FROM {D} WHERE d.k = {k}) a FULL JOIN (VALUES (10), (30), (99)) AS e(x) ON a.w = e.x",
    "SELECT sum(coalesce(d.w, 1) * coalesce(e.x, 7)) FROM {D} FULL JOIN (SELECT x FROM (VALUES (10), (30), (99)) AS v(x) WHERE x > {i} * 10) e ON d.w = e.x",
    "SELECT count(d.w) * 100 + count(e.x) FROM {D} FULL JOIN (VALUES (10), (30), (99)) AS e(x) ON d.w = e.x AND d.g < {i}",
    "SELECT count(*) FROM (SELECT w FROM {D} WHERE d.k = {k}) a FULL JOIN (SELECT w FROM {D2} WHERE e.k = {k} AND e.g > 1) b ON a.w = b.w WHERE a.w IS NULL OR b.w IS NULL",
    "SELECT count(*) * 100 + count(z.x) FROM {D} LEFT JOIN (VALUES (1, 10), (2, 20)) AS z(x, y) ON d.g = z.x AND EXISTS (SELECT 1 FROM {D2} WHERE e.w = d.w AND e.g <= {i})",
    "SELECT count(*) * 100 + count(z.x) FROM {D} FULL JOIN (VALUES (1, 10), (2, 20)) AS z(x, y) ON d.g = z.x AND z.y = (SELECT min(e.w) FROM {D2} WHERE e.w >= d.w AND z.y > {i})",
    "SELECT count(*) FROM {D} WHERE w > {i} * 10",
    "SELECT max(w) FROM {D} WHERE w > {i} * 10 AND d.k = {k}",
    "SELECT sum(w + {i}) FROM {D} WHERE d.k = {k}",
    "SELECT max(w) + {i} FROM {D} WHERE d.k = {k}",
    "SELECT count(*) FROM {D} WHERE d.k <=> {k}",
    "SELECT count(*) FROM {D} WHERE d.k = {k} OR d.g = {i}",
    "SELECT {i} + 1",
    "SELECT w FROM {D} WHERE d.k = {k} ORDER BY w DESC, g LIMIT 1",
    "SELECT w FROM {D} WHERE d.k = {k} ORDER BY w, g DESC LIMIT 1 OFFSET 1",
    "SELECT g FROM (SELECT g, w FROM {D} WHERE w > {i} * 10 ORDER BY w DESC, g LIMIT 2) ORDER BY g LIMIT 1",
    "SELECT max(w) FROM {D} WHERE d.k = {k} GROUP BY d.k",
    "SELECT DISTINCT d.k FROM {D} WHERE d.k = {k}",
    "SELECT count(DISTINCT w) FROM {D} WHERE d.k = {k} AND w > {i}",
    "SELECT collect_list(w) FROM (SELECT w FROM {D} WHERE d.k = {k} AND g > 4)",
    "SELECT count(*) FILTER (WHERE w > {i} * 10) FROM {D} WHERE d.k = {k}",
    "SELECT avg(x) FROM (SELECT sum(w) AS x FROM {D} WHERE d.k = {k} GROUP BY w)",
    "SELECT count(*) FROM (SELECT w FROM {D} WHERE d.k = {k} UNION ALL SELECT g FROM {D} WHERE g = {i})",
    "SELECT count(*) FROM (SELECT w FROM {D} WHERE d.k = {k} UNION SELECT w FROM {D} WHERE w > 20)",
    "SELECT count(*) FROM (SELECT w FROM {D} WHERE d.k = {k} EXCEPT SELECT 30)",
    "SELECT count(*) FROM (SELECT w FROM {D} INTERSECT SELECT {i} * 10)",
    "SELECT count(e.g) FROM {D} LEFT JOIN (SELECT g FROM {D} WHERE g < {i}) e ON d.g = e.g WHERE d.k = {k}",
    "SELECT count(*) FROM {D} JOIN (VALUES (1), (2)) AS e(g) ON d.g = e.g AND d.w > {i} * 10",
    "SELECT sum(x) FROM (SELECT sum(w) OVER (PARTITION BY d.k) AS x FROM {D} WHERE g <= {i})",
    "SELECT sum(x) FROM (SELECT explode(array(w, {i})) AS x FROM {D} WHERE d.k = {k})",
    "SELECT count(*) FROM {D} WHERE d.k = {k} AND w = (SELECT max(e.w) FROM {D2} WHERE e.g < d.w AND e.k = d.k)",
    "SELECT count(*) FROM {D} WHERE w > {i} * 10 AND EXISTS (SELECT 1 FROM {D2} WHERE e.g > d.g)",
    "SELECT count(*) > 1 FROM {D} WHERE w > {i} * 10 HAVING max(w) > 30",
    "SELECT count(*) FROM {D} WHERE (d.w, d.g) IN (SELECT max(e.w), 5 FROM {D2} GROUP BY e.k) AND d.w > {i} * 10",
    "SELECT m FROM (SELECT {i} AS m, {k} AS n)",
    "SELECT sum(w) FROM {D} WHERE d.k = {k} AND w BETWEEN {i} * 10 AND {i} * 15",
];

/// Values from outside within tables, within lambdas, and two queries deep.
const DEEPER: [&str; 32] = [
    "SELECT max(w) FROM (SELECT w, g FROM {D} WHERE d.k = {k}) x WHERE x.g < 5",
    "SELECT max(w) FROM (SELECT w + {i} AS w, g FROM {D} WHERE d.k = {k}) x WHERE x.w > 11",
    "SELECT m FROM (SELECT max(w) AS m FROM {D} WHERE d.k = {k}) x",
    "SELECT m + 1 FROM (SELECT max(w) AS m FROM {D} WHERE d.k = {k}) x WHERE m > 10",
    "SELECT sum(x.w) FROM (SELECT * FROM {D} WHERE d.k = {k}) x JOIN (SELECT * FROM {D2} WHERE e.k = {k}) y ON x.w = y.w",
    "SELECT count(*) FROM (SELECT w FROM {D} WHERE d.k = {k}) x JOIN (SELECT w FROM {D2} WHERE e.g > {i}) y ON x.w <= y.w",
    "SELECT max(s) FROM (SELECT sum(w) OVER (PARTITION BY g ORDER BY w) AS s FROM {D} WHERE d.w > (SELECT min(e.w) FROM {D2} WHERE e.k = {k})) x",
    "WITH c AS (SELECT w, g FROM {D} WHERE d.k = {k}) SELECT sum(w) FROM c AS x WHERE x.w > {i}",
    "WITH c AS (SELECT w FROM {D} WHERE d.k = {k}) SELECT count(*) FROM c AS x JOIN c AS y ON x.w < y.w",
    "WITH c AS (SELECT w, k FROM {D}), b AS (SELECT w FROM c WHERE c.k = {k}) SELECT max(w) FROM b WHERE w > {i}",
    "SELECT count(*) FROM {D} WHERE exists(array(d.w, d.g), x -> x > {i} AND x < length({k}) * 30)",
    "SELECT sum(size(filter(transform(array(d.w, d.g), x -> x + {i} + length({k})), y -> y > {i} * 12))) FROM {D}",
    "SELECT max(aggregate(array(d.w, d.g), 0, (a, x) -> a + x + {i}, a -> a * length({k}))) FROM {D}",
    "SELECT max(size(transform(array(d.w), x -> size(filter(array(1, 2, {i}), y -> y > x - {i}))))) FROM {D}",
    "SELECT count(*) FROM {D} WHERE EXISTS (SELECT 1 FROM {D2} WHERE exists(array(e.w, e.g), x -> x > {i} AND x < d.w AND length({k}) > 0))",
    "SELECT count(*) FROM {D} WHERE d.w >= (SELECT max(e.w) FROM {D2} WHERE e.k = {k} AND e.g = d.g)",
    "SELECT count(*) FROM {D} WHERE d.k = {k} AND d.w > (SELECT avg(e.w) FROM {D2} WHERE e.g > {i})",
    "SELECT (SELECT max(e.w) + {i} FROM {D2} WHERE e.k = {k})",
    "SELECT sum((SELECT count(*) FROM {D2} WHERE e.k = {k} AND e.w <= d.w)) FROM {D} WHERE d.k = {k}",
    "SELECT count(*) FROM {D} WHERE NOT EXISTS (SELECT 1 FROM {D2} WHERE e.k = {k} AND e.w = d.w)",
    "SELECT count(*) FROM {D} WHERE d.w NOT IN (SELECT e.w FROM {D2} WHERE e.k = {k})",
    "SELECT count(*) FROM {D} WHERE {i} IN (SELECT e.g FROM {D2} WHERE e.k = d.k)",
    "SELECT count(*) FROM {D} WHERE {i} NOT IN (SELECT e.g FROM {D2} WHERE e.k = d.k)",
    "SELECT count(*) FROM {D} WHERE (d.g, {k}) IN (SELECT e.g, e.k FROM {D2} WHERE e.w > {i} * 10)",
    "SELECT count(*) FROM {D} WHERE (d.g, {k}) NOT IN (SELECT e.g, e.k FROM {D2} WHERE e.w > {i} * 10)",
    "SELECT d.w FROM {D} WHERE d.k = {k} ORDER BY (SELECT count(*) FROM {D2} WHERE e.g > {i} AND e.w = d.w), d.w DESC, d.g LIMIT 1",
    "SELECT max(t.n) FROM {D}, LATERAL (SELECT count(*) AS n FROM {D2} WHERE e.k = d.k AND e.g > {i}) t",
    "SELECT max(t.n) FROM {D} LEFT JOIN LATERAL (SELECT e.w + d.g + {i} AS n FROM {D2} WHERE e.k = d.k AND e.g > {i}) t WHERE d.k = {k}",
    "SELECT count(*) FROM {D} WHERE d.g IN (SELECT e.g FROM {D2} WHERE e.w > (SELECT min(f.w) FROM {D3} WHERE f.k = {k} AND f.g <= d.g))",
    "SELECT count(*) FROM (SELECT w FROM {D} WHERE d.w > (SELECT min(e.w) FROM {D2} WHERE e.k = {k}) UNION SELECT g FROM {D2} WHERE EXISTS (SELECT 1 FROM {D} WHERE d.g = e.g AND d.k = {k})) x",
    "SELECT count(*) FROM {D} FULL JOIN {D2} ON d.g = e.w / 10 WHERE d.k = {k} AND NOT EXISTS (SELECT 1 FROM (SELECT DISTINCT g FROM (VALUES (1), (5)) AS z(g)) y WHERE y.g = d.g)",
    "SELECT count(*) FROM {D} FULL JOIN {D2} ON d.g = e.w / 10 WHERE NOT EXISTS (SELECT 1 FROM (SELECT DISTINCT g FROM (VALUES (1), (5)) AS z(g) WHERE z.g = {i}) y)",
];

#[test]
fn values_are_what_each_row_would_be_told() {
    for query in QUERIES.iter().chain(&DEEPER) {
        let each = ROWS.iter().flat_map(|(i, k)| {
            let asked = with(query, i, k);
            answers(&format!("SELECT {i} AS i, {k} AS k, ({asked}) AS x"))
        });
        let mut each: Vec<String> = each.collect();
        each.sort();
        let all = with(query, "l.i", "l.k");
        let found = answers(&format!("SELECT i, k, ({all}) AS x FROM {L}"));
        assert_eq!(found, each, "{query}");
    }
}

#[test]
fn conditions_hold_for_the_rows_they_hold_for() {
    let conditions = [
        "EXISTS (SELECT 1 FROM {D} WHERE w > {i} * 10 AND d.k = {k} GROUP BY w HAVING count(*) > 1)",
        "NOT EXISTS (SELECT 1 FROM {D} WHERE d.k = {k} UNION ALL SELECT 1 FROM {D} WHERE g > {i})",
        "EXISTS (SELECT 1 FROM {D} WHERE d.k = {k} LIMIT 1)",
        "EXISTS (SELECT count(*) FROM {D} WHERE d.k = {k})",
        "{i} IN (SELECT g FROM {D} WHERE d.k = {k} UNION ALL SELECT {i} + w FROM {D})",
        "{i} IN (SELECT g FROM {D} WHERE w > {i} ORDER BY w LIMIT 2)",
        "{i} NOT IN (SELECT g FROM {D} WHERE d.k = {k} ORDER BY w LIMIT 1)",
        "({i}, {k}) IN (SELECT g, d.k FROM {D} WHERE w > {i}) OR {i} = 4",
        "NOT (({i}, {k}) IN (SELECT g, d.k FROM {D}))",
        "{i} * 10 = (SELECT count(*) * 10 FROM {D} WHERE w < {i} * 15)",
        "{i} < (SELECT count(*) FROM {D} WHERE w > {i} * 10) AND {k} > 'a'",
        "(SELECT max(g) FROM {D} WHERE w > {i} * 10) <=> (SELECT max(g) FROM {D} WHERE w > {i} * 20)",
        "EXISTS (SELECT 1 FROM (SELECT w, g FROM {D} WHERE d.k = {k}) x WHERE x.g < 5)",
        "NOT EXISTS (SELECT 1 FROM (SELECT * FROM (SELECT DISTINCT w FROM {D} WHERE d.k = {k}) y WHERE y.w > {i} * 10) x)",
        "{i} IN (SELECT g FROM (SELECT w, g, k FROM {D} WHERE d.k = {k}) x WHERE x.w > 0)",
        "{i} NOT IN (SELECT g FROM (SELECT w, g FROM {D} WHERE w > {i} * 10) x WHERE x.g IS NOT NULL)",
        "{i} IN (SELECT g FROM (SELECT w, g FROM {D} WHERE d.k = {k}) x) OR {i} = 4",
        "EXISTS (SELECT 1 FROM (SELECT w, g FROM {D} WHERE d.k = {k} UNION ALL SELECT 1000 + {i}, 3) x WHERE x.w > 25)",
        "EXISTS (SELECT 1 FROM (SELECT w, row_number() OVER (ORDER BY w, g) AS n FROM {D} WHERE d.k = {k}) x WHERE x.n = {i})",
        "EXISTS (SELECT 1 FROM (SELECT * FROM {D} WHERE d.k = {k}) x JOIN (SELECT * FROM {D2} WHERE e.g > {i}) y ON x.w = y.w)",
        "EXISTS (WITH c AS (SELECT w, g FROM {D} WHERE d.k = {k}) SELECT 1 FROM c AS x WHERE x.w > {i} * 10)",
        "EXISTS (WITH c AS (SELECT w, g, k FROM {D}) SELECT 1 FROM c WHERE c.k = {k} AND c.g > {i})",
        "NOT EXISTS (WITH c AS (SELECT w FROM {D} WHERE d.k = {k}) SELECT 1 FROM c AS x JOIN c AS y ON x.w < y.w)",
        "EXISTS (SELECT 1 FROM {D} WHERE exists(array(d.w, d.g), x -> x > {i} AND x < length({k}) * 30))",
        "{i} NOT IN (SELECT g FROM {D} WHERE g IS NOT NULL AND exists(array(d.w), x -> x > {i} * 9 AND {k} = d.k))",
        "EXISTS (SELECT 1 FROM {D} WHERE d.k = {k} AND EXISTS (SELECT 1 FROM {D2} WHERE e.g = {i} AND e.w >= d.w))",
        "NOT EXISTS (SELECT 1 FROM {D} WHERE d.k = {k} AND NOT EXISTS (SELECT 1 FROM {D2} WHERE e.w > d.w AND e.g > {i}))",
        "{i} IN (SELECT g FROM {D} WHERE d.w IN (SELECT e.w FROM {D2} WHERE e.k = {k}))",
        "{i} NOT IN (SELECT g FROM {D} WHERE g IS NOT NULL AND d.w NOT IN (SELECT e.w FROM {D2} WHERE e.k = {k}))",
        "EXISTS (SELECT d.k FROM {D} GROUP BY d.k HAVING count(*) > (SELECT count(*) FROM {D2} WHERE e.g = {i}))",
        "EXISTS (SELECT 1 FROM {D} WHERE EXISTS (SELECT 1 FROM {D2} WHERE EXISTS (SELECT 1 FROM {D3} WHERE f.g = {i} AND e.g >= d.g AND d.k = {k} AND f.w > e.w)))",
        "({i}, {k}) IN (SELECT d.g, d.k FROM {D} WHERE d.w < (SELECT max(e.w) FROM {D2} WHERE e.g > {i}))",
    ];
    for condition in conditions {
        let each = ROWS.iter().flat_map(|(i, k)| {
            let asked = with(condition, i, k);
            answers(&format!(
                "SELECT {i} AS i, {k} AS k FROM (SELECT 1) WHERE {asked}"
            ))
        });
        let mut each: Vec<String> = each.collect();
        each.sort();
        let asked = with(condition, "l.i", "l.k");
        for marked in [false, true] {
            let within = format!("SELECT i, k FROM {L} WHERE ({asked}) OR i = 77");
            assert_eq!(answered(&within, marked), each, "{condition}, {marked}");
            let column = format!(
                "SELECT i, k FROM (SELECT i, k, CASE WHEN {asked} THEN 1 ELSE 0 END AS x FROM {L}) WHERE x = 1"
            );
            assert_eq!(answered(&column, marked), each, "{condition}, {marked}");
        }
        assert_eq!(
            answers(&format!("SELECT i, k FROM {L} WHERE {asked}")),
            each,
            "{condition}"
        );
    }
}

#[test]
fn lateral_gives_each_row_what_it_would_be_told() {
    let queries = [
        "SELECT count(*) AS x FROM {D} WHERE w > {i} * 10",
        "SELECT sum(w + {i}) AS x FROM {D} WHERE d.k = {k}",
        "SELECT w AS x FROM {D} WHERE d.k = {k} ORDER BY w DESC LIMIT 2",
        "SELECT sum(w) AS x FROM {D} WHERE d.k = {k} GROUP BY g",
        "SELECT w AS x FROM {D} WHERE d.k = {k} UNION ALL SELECT {i}",
        "SELECT w + {i} AS x FROM {D} WHERE d.k = {k}",
        "SELECT w AS x FROM (SELECT w FROM {D} WHERE d.k = {k}) y WHERE EXISTS (SELECT 1 FROM {D2} WHERE e.w = y.w AND e.g > {i})",
        "SELECT count(*) AS x FROM {D} WHERE exists(array(d.w, d.g), v -> v > {i} AND v < length({k}) * 30)",
        "SELECT w AS x FROM {D} WHERE EXISTS (SELECT 1 FROM {D2} WHERE e.w = d.w AND e.k = {k})",
        "SELECT w AS x FROM {D} WHERE d.k = {k} AND EXISTS (SELECT 1 FROM {D2} WHERE e.g > d.g)",
    ];
    for query in queries {
        for left in [false, true] {
            let each = ROWS.iter().flat_map(|(i, k)| {
                let found = answers(&format!(
                    "SELECT {i} AS i, x FROM ({}) t",
                    with(query, i, k)
                ));
                match found.is_empty() && left {
                    true => answers(&format!("SELECT {i} AS i, CAST(NULL AS INT) AS x")),
                    false => found,
                }
            });
            let mut each: Vec<String> = each.collect();
            each.sort();
            let join = if left { "LEFT JOIN" } else { "JOIN" };
            let asked = with(query, "l.i", "l.k");
            let found = answers(&format!("SELECT i, x FROM {L} {join} LATERAL ({asked}) t"));
            assert_eq!(found, each, "{join} {query}");
        }
    }
}

#[test]
fn subqueries_stand_in_keys_aggregates_and_above_groups() {
    let some = format!("k IN (SELECT k FROM {D} WHERE w > 15)");
    check(
        &format!("SELECT {some} AS known, count(*) AS n FROM {L} GROUP BY {some} ORDER BY known"),
        "known BOOLEAN, n BIGINT",
        "false 3\ntrue 3",
    );
    check(
        &format!("SELECT {some} AS known, count(*) AS n FROM {L} GROUP BY 1 ORDER BY known"),
        "known BOOLEAN, n BIGINT",
        "false 3\ntrue 3",
    );
    check(
        &format!(
            "SELECT k, sum((SELECT count(*) FROM {D} WHERE d.k = l.k)) AS n, max(i - (SELECT min(g) FROM {D})) AS m FROM {L} GROUP BY k ORDER BY k"
        ),
        "k STRING, n BIGINT, m INT",
        "NULL 0 2\na 1 0\nb 9 1\nn 0 3",
    );
    check(
        &format!(
            "SELECT k, count(*) AS n FROM {L} GROUP BY k HAVING count(*) > (SELECT count(*) FROM {D} WHERE d.k = l.k) ORDER BY k"
        ),
        "k STRING, n BIGINT",
        "NULL 1\nn 1",
    );
    check(
        &format!(
            "SELECT upper(l.k) AS u, count(*), (SELECT max(w) FROM {D}) AS m FROM {L} GROUP BY upper(k) HAVING count(*) IN (SELECT g FROM {D}) AND EXISTS (SELECT 1 FROM {D} WHERE g = 5) ORDER BY u"
        ),
        "u STRING, `count(1)` BIGINT, m INT",
        "NULL 1 40\nA 1 40\nB 3 40\nN 1 40",
    );
    check(
        &format!(
            "SELECT k, count(*) AS n, sum(count(*)) OVER () AS t FROM {L} GROUP BY k HAVING n > (SELECT min(g) FROM {D}) ORDER BY k"
        ),
        "k STRING, n BIGINT, t BIGINT",
        "b 3 3",
    );
}

#[test]
fn conditions_of_joins_have_subqueries() {
    let pairs = |join: &str, condition: &str, rows: &str| {
        let sql = format!(
            "SELECT l.i, d.w FROM {L} {join} JOIN {D} ON l.k = d.k AND {condition} ORDER BY l.i, d.w"
        );
        check(&sql, "i INT, w INT", rows);
    };
    let e = D.replace("AS d(", "AS e(");
    let exists = format!("EXISTS (SELECT 1 FROM {e} WHERE e.g = l.i AND e.w > d.w)");
    pairs("", &exists, "1 10");
    pairs(
        "LEFT",
        "d.w IN (SELECT 30)",
        "NULL 30\nNULL 30\n1 NULL\n2 30\n2 30\n2 30\n2 30\n3 NULL\n4 NULL",
    );
    pairs(
        "LEFT",
        "l.i < (SELECT 2)",
        "NULL NULL\n1 10\n2 NULL\n2 NULL\n3 NULL\n4 NULL",
    );
    pairs(
        "LEFT",
        "d.w > (SELECT max(v) FROM (VALUES (1, 25), (2, 5)) AS e(g, v) WHERE e.g <= d.g)",
        "NULL 30\nNULL 30\n1 NULL\n2 30\n2 30\n2 30\n2 30\n3 NULL\n4 NULL",
    );
}
