//! Queries inside expressions.

use super::{check, fails, parse_query, resolve, run};

const L: &str = "(VALUES (1, 'a'), (2, 'b'), (3, NULL), (4, 'n')) AS l(i, k)";
const D: &str = "(VALUES ('a', 10), ('b', 20), ('b', 30), (NULL, 40)) AS d(k, w)";
const E: &str = "(SELECT k FROM (VALUES ('x')) AS e(k) WHERE k = 'y') AS e";

#[track_caller]
fn ids(condition: &str, rows: &str) {
    let sql = format!("SELECT i FROM {L} WHERE {condition} ORDER BY i");
    check(&sql, "i INT", rows);
}

#[test]
fn in_finds_what_is_equal() {
    ids(&format!("k IN (SELECT k FROM {D})"), "1\n2");
    ids(
        &format!("i * 10L IN (SELECT w FROM {D}) AND i < 4"),
        "1\n2\n3",
    );
    ids(&format!("(k, i * 10) IN (SELECT k, w FROM {D})"), "1\n2");
    ids(
        &format!("k IN (SELECT d.k FROM {D} WHERE d.w > l.i * 11)"),
        "2",
    );
    ids(&format!("k IN (SELECT k FROM {E})"), "");
}

#[test]
fn not_in_is_unknown_where_there_is_a_null() {
    ids(&format!("k NOT IN (SELECT k FROM {D})"), "");
    ids(
        &format!("k NOT IN (SELECT k FROM {D} WHERE k IS NOT NULL)"),
        "4",
    );
    ids(
        &format!("NOT k IN (SELECT k FROM {D} WHERE k = 'a')"),
        "2\n4",
    );
    ids(&format!("k NOT IN (SELECT k FROM {E})"), "1\n2\n3\n4");
    ids(
        &format!("k NOT IN (SELECT d.k FROM {D} WHERE d.w = l.i * 10 AND d.w < 40)"),
        "4",
    );
    ids(
        &format!("(k, i * 10) NOT IN (SELECT k, w FROM {D} WHERE w < 40)"),
        "4",
    );
}

#[test]
fn in_is_a_value_too() {
    let sql = format!(
        "SELECT i, k IN (SELECT k FROM {D}) AS a, k NOT IN (SELECT k FROM {D} WHERE k = 'a') AS b, k IN (SELECT k FROM {E}) AS c FROM {L} ORDER BY i"
    );
    check(
        &sql,
        "i INT, a BOOLEAN, b BOOLEAN, c BOOLEAN",
        "1 true false false\n2 true true false\n3 false false false\n4 false true false",
    );
    ids(&format!("NOT (k IN (SELECT k FROM {D}) OR i > 9)"), "");
    ids(
        &format!("i > 3 OR k IN (SELECT k FROM {D} WHERE w < 20)"),
        "1\n4",
    );
}

#[test]
fn exists_asks_for_a_row() {
    ids(
        &format!("EXISTS (SELECT 1 FROM {D} WHERE d.k = l.k AND w > 15)"),
        "2",
    );
    ids(
        &format!("NOT EXISTS (SELECT 1 FROM {D} WHERE d.k = l.k)"),
        "3\n4",
    );
    ids(
        &format!("EXISTS (SELECT * FROM {D} WHERE w < i * 10)"),
        "2\n3\n4",
    );
    ids(
        &format!("i = 1 OR EXISTS (SELECT 1 FROM {D} WHERE d.k = l.k AND w > 25)"),
        "1\n2",
    );
    let sql = format!(
        "SELECT i, EXISTS (SELECT 1 FROM {D} WHERE d.k = l.k) AS e, NOT EXISTS (SELECT 1 FROM {E}) AS n FROM {L} ORDER BY i"
    );
    check(
        &sql,
        "i INT, e BOOLEAN, n BOOLEAN",
        "1 true true\n2 true true\n3 false true\n4 false true",
    );
}

#[test]
fn a_query_is_a_value() {
    let sql = format!(
        "SELECT i, i * (SELECT max(w) FROM {D}) AS m, (SELECT count(*) FROM {D} WHERE d.k = l.k) AS n, (SELECT sum(w) + 1 FROM {D} WHERE l.k = d.k) AS s, (SELECT k FROM {E}) AS e FROM {L} ORDER BY i"
    );
    check(
        &sql,
        "i INT, m INT, n BIGINT, s BIGINT, e STRING",
        "1 40 1 11 NULL\n2 80 2 51 NULL\n3 120 0 NULL NULL\n4 160 0 NULL NULL",
    );
    ids(&format!("i > (SELECT avg(w) / 10 FROM {D})"), "3\n4");
    ids(
        &format!("i * 10 = (SELECT w FROM {D} WHERE d.k = l.k AND w < 30)"),
        "1\n2",
    );
    check(
        &format!(
            "SELECT k, sum(w) AS s FROM {D} GROUP BY k HAVING sum(w) > (SELECT min(w) * 3 FROM {D}) ORDER BY s"
        ),
        "k STRING, s BIGINT",
        "NULL 40\nb 50",
    );
}

#[test]
fn the_same_names_inside_and_outside_are_different_columns() {
    check(
        "WITH x AS (SELECT 1 AS k, 2 AS v UNION ALL SELECT 2, 1) SELECT k FROM x WHERE EXISTS (SELECT 1 FROM x AS y WHERE y.k = x.v AND y.v > 1)",
        "k INT",
        "2",
    );
    check(
        "SELECT k, (SELECT max(y.v) FROM (SELECT 1 AS k, 7 AS v) y WHERE y.k = x.k) AS m FROM (SELECT 1 AS k UNION ALL SELECT 3) x ORDER BY k",
        "k INT, m INT",
        "1 7\n3 NULL",
    );
}

#[test]
fn more_than_one_row_is_no_value() {
    for sql in [
        format!("SELECT (SELECT w FROM {D}) AS w"),
        format!("SELECT i FROM {L} WHERE i = (SELECT w FROM {D} WHERE d.k = l.k)"),
    ] {
        let error = run(resolve(&parse_query(&sql).unwrap()).unwrap()).unwrap_err();
        assert_eq!(
            highwater_query::error_class_of(&error),
            Some("SCALAR_SUBQUERY_TOO_MANY_ROWS"),
            "{error}"
        );
    }
}

#[test]
fn what_is_found_may_be_grouped_before_it_is_looked_for() {
    let often = format!("k IN (SELECT k FROM {D} GROUP BY k HAVING count(*) > 1)");
    ids(&format!("{often} OR i = 4"), "2\n4");
}

#[test]
fn lateral_names_what_stands_before_it() {
    let check = |from: &str, rows: &str| {
        let sql = format!("SELECT i, x FROM {L}{from} ORDER BY i, x");
        check(&sql, "i INT, x INT", rows);
    };
    check(", LATERAL (SELECT i * 2 AS x)", "1 2\n2 4\n3 6\n4 8");
    check(
        ", LATERAL (SELECT w + i AS x FROM (VALUES ('a', 10), ('b', 20), ('b', 30)) AS d(k, w) WHERE d.k = l.k)",
        "1 11\n2 22\n2 32",
    );
    check(
        " JOIN LATERAL (SELECT i + 1 AS x) AS m ON m.x > 3, LATERAL (SELECT x - i AS y) AS n",
        "3 4\n4 5",
    );
    check(", LATERAL (SELECT 7 AS x)", "1 7\n2 7\n3 7\n4 7");
}

#[test]
fn what_no_join_can_be_made_of_is_refused() {
    fails(
        "SELECT (SELECT id, g FROM t)",
        "[INVALID_SUBQUERY_EXPRESSION.SCALAR_SUBQUERY_RETURN_MORE_THAN_ONE_OUTPUT_COLUMN] Invalid subquery: Scalar subquery must return only one column, but got 2.",
    );
    fails(
        "SELECT id FROM t WHERE (id, g) IN (SELECT id FROM u)",
        "[DATATYPE_MISMATCH.IN_SUBQUERY_LENGTH_MISMATCH] Cannot resolve \"(named_struct(id, id, g, g) IN (listquery()))\" due to data type mismatch: The number of columns in the left hand side of an IN subquery does not match the number of columns in the output of subquery. Left hand side columns(length: 2), right hand side columns(length: 1).",
    );
}

#[test]
fn a_subquery_is_called_by_what_it_names_of_the_query_around() {
    for (item, name) in [
        ("(SELECT max(id) FROM u)", "scalarsubquery()"),
        (
            "(SELECT max(u.id) FROM u WHERE u.id = t.id) + 1",
            "(scalarsubquery(id) + 1)",
        ),
        (
            "(SELECT max(u.id) FROM u WHERE t.g = u.name AND u.id = t.id OR t.id > 1)",
            "scalarsubquery(g, id, id)",
        ),
        (
            "(SELECT q.n FROM (SELECT t.id AS n, u.name FROM u WHERE u.id = t.id) q)",
            "scalarsubquery(id, id)",
        ),
        ("EXISTS (SELECT 1 FROM u WHERE u.id = t.id)", "exists(id)"),
        ("NOT EXISTS (SELECT 1 FROM u)", "(NOT exists())"),
        ("id IN (SELECT id FROM u)", "(id IN (listquery()))"),
        (
            "id NOT IN (SELECT id FROM u WHERE u.name = t.g)",
            "(NOT (id IN (listquery(g))))",
        ),
        (
            "(id, g) IN (SELECT id, name FROM u)",
            "(named_struct('id', id, 'g', g) IN (listquery()))",
        ),
    ] {
        let plan = parse_query(&format!("SELECT {item} FROM t")).unwrap();
        let plan = resolve(&plan).unwrap();
        assert_eq!(plan.schema().field(0).name(), name);
    }
    let plan =
        parse_query("SELECT g, sum((SELECT max(u.id) FROM u WHERE u.id = t.id)) FROM t GROUP BY g");
    let plan = resolve(&plan.unwrap()).unwrap();
    assert_eq!(plan.schema().field(1).name(), "sum(scalarsubquery(id))");
}

#[test]
fn an_order_is_by_the_nearest_column_of_its_name() {
    let inner = "(VALUES (3, 30), (1, 10), (2, 20)) AS x(i, v)";
    let one = |below: &str, value: &str| {
        let sql = format!("SELECT i, ({below}) AS v FROM {L} WHERE i = 4");
        check(&sql, "i INT, v INT", &format!("4 {value}"));
    };
    one(&format!("SELECT v FROM {inner} ORDER BY i LIMIT 1"), "10");
    one(
        &format!("SELECT v FROM {inner} ORDER BY i DESC LIMIT 1"),
        "30",
    );
    one(
        &format!("SELECT v AS i FROM {inner} ORDER BY i LIMIT 1"),
        "10",
    );
    one(
        &format!("SELECT max(v) FROM {inner} GROUP BY i ORDER BY i DESC LIMIT 1"),
        "30",
    );
    // That of the query around, where there is none nearer.
    one(
        &format!("SELECT v FROM (SELECT v FROM {inner}) ORDER BY (v - 20) * (i - 3) LIMIT 1"),
        "10",
    );
    check(
        &format!(
            "SELECT l.i, x.v FROM {L}, LATERAL (SELECT v FROM {inner} ORDER BY i LIMIT 1) AS x WHERE l.i = 4"
        ),
        "i INT, v INT",
        "4 10",
    );
}

#[test]
fn any_and_all_are_unknown_where_a_null_decides() {
    ids(&format!("i * 10 > ANY (SELECT w FROM {D})"), "2\n3\n4");
    ids(&format!("i * 10 >= ALL (SELECT w FROM {D})"), "4");
    ids(
        &format!("i * 10 < SOME (SELECT w FROM {D} WHERE w < 30)"),
        "1",
    );
    ids(&format!("k = ANY (SELECT k FROM {D})"), "1\n2");
    ids(&format!("NOT (k = ANY (SELECT k FROM {D}))"), "");
    ids(&format!("(k = ANY (SELECT k FROM {D})) IS NULL"), "3\n4");
    ids(&format!("(k = ANY (SELECT k FROM {E})) IS NULL"), "");
    ids(
        &format!("k <> ALL (SELECT k FROM {D} WHERE k IS NOT NULL)"),
        "4",
    );
    ids(&format!("k <> ALL (SELECT k FROM {D})"), "");
    ids("k <> ANY (SELECT 'a')", "2\n4");
    ids("k = ALL (SELECT 'a')", "1");
    ids(
        &format!("i > ALL (SELECT w FROM {D} WHERE w > 99)"),
        "1\n2\n3\n4",
    );
    ids(
        &format!("i * 10 = ANY (SELECT w FROM {D} WHERE d.k = l.k)"),
        "1\n2",
    );
    check(
        &format!(
            "SELECT k FROM {D} GROUP BY k HAVING sum(w) > ALL (SELECT i * 10 FROM {L} WHERE i < 4) ORDER BY k"
        ),
        "k STRING",
        "NULL\nb",
    );
    fails(
        "SELECT id FROM t WHERE id = ANY (array(1))",
        "[UNSUPPORTED_FEATURE] ANY and ALL of anything but a query is not supported yet (line 1, column 24)",
    );
}

#[test]
fn what_is_known_without_an_aggregate_has_its_one_row() {
    check(
        "SELECT typeof(sum(i)) AS t FROM (VALUES (1), (2)) AS x(i)",
        "t STRING",
        "bigint",
    );
    check(
        "SELECT 'c' AS c FROM (VALUES (1), (2)) AS x(i) HAVING true",
        "c STRING",
        "c",
    );
    fails(
        "SELECT sum(i) FROM (VALUES (1), (2)) AS x(i) GROUP BY ()",
        "[PARSE_SYNTAX_ERROR] Syntax error at or near ')'",
    );
}

#[test]
fn what_order_by_asks_of_groups_is_told_without_names_of_ours() {
    let error =
        parse_query("SELECT g FROM t GROUP BY g ORDER BY v").and_then(|plan| resolve(&plan));
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("MISSING_AGGREGATION") && !error.contains("__"),
        "{error}"
    );
}
