//! Subqueries whose values generators, functions of a window and IN take, and generators as relations. The rows are those
//! that Spark 4.3 answers, where it takes the query.

use highwater_query::{Place, Plan, parse_expression};

use super::{check, fails, parse_query, resolve, run, text};

const L: &str = "(VALUES (1, 'a', array(1, 2, 3)), (2, 'b', array(2)), (3, NULL, array(30)), (4, 'n', NULL)) AS l(i, k, arr)";
const D: &str = "(VALUES ('a', 10, 1), ('b', 20, 2), ('b', 30, 1), (NULL, 40, 3)) AS d(k, w, g)";

/// `{L}` and `{D}` are the relations above.
#[track_caller]
fn answers(sql: &str, schema: &str, rows: &str) {
    check(&sql.replace("{L}", L).replace("{D}", D), schema, rows);
}

#[test]
fn generators_are_relations_beside_others() {
    let exploded = "1 1\n1 2\n1 3\n2 2\n3 30";
    for from in [
        "{L}, LATERAL explode(arr) AS t(x)",
        "{L} CROSS JOIN LATERAL explode(l.arr) t(x)",
        "{L}, LATERAL (SELECT explode(arr) AS x) t",
        "{L}, LATERAL (SELECT explode(arr)) AS t(x)",
    ] {
        let sql = format!("SELECT i, t.x FROM {from} ORDER BY i, x");
        answers(&sql, "i INT, x INT", exploded);
    }
    answers(
        "SELECT i, col FROM {L}, LATERAL explode(arr) ORDER BY i, col",
        "i INT, col INT",
        exploded,
    );
    answers(
        "SELECT i, pos, x FROM {L} JOIN LATERAL posexplode(arr) AS t(pos, x) ON x > i ORDER BY i, x",
        "i INT, pos INT, x INT",
        "1 1 2\n1 2 3\n3 0 30",
    );
    answers(
        "SELECT i, x FROM {L}, LATERAL explode_outer(arr) AS t(x) WHERE i > 2 ORDER BY i",
        "i INT, x INT",
        "3 30\n4 NULL",
    );
    answers(
        "SELECT i, x FROM {L} LEFT JOIN LATERAL explode(arr) AS t(x) ON x > i ORDER BY i, x",
        "i INT, x INT",
        "1 2\n1 3\n2 NULL\n3 30\n4 NULL",
    );
    answers(
        "SELECT i, a, b FROM {L}, LATERAL stack(2, i, k, i + 1, 'z') AS t(a, b) WHERE i = 2 ORDER BY a",
        "i INT, a INT, b STRING",
        "2 2 b\n2 3 z",
    );
    answers(
        "SELECT i, a FROM {L}, LATERAL inline(array(struct(i * 2, k))) AS t(a, b) ORDER BY i",
        "i INT, a INT",
        "1 2\n2 4\n3 6\n4 8",
    );
    answers(
        "SELECT i, x, y FROM {L}, LATERAL explode(arr) AS t(x), LATERAL explode(array(x, i)) AS s(y) WHERE i = 2",
        "i INT, x INT, y INT",
        "2 2 2\n2 2 2",
    );
    answers(
        "SELECT * FROM explode(array(1, 2)) AS t(x)",
        "x INT",
        "1\n2",
    );
    answers(
        "SELECT i FROM {L} WHERE EXISTS (SELECT 1 FROM explode(l.arr) AS t(x) WHERE x > 2) ORDER BY i",
        "i INT",
        "1\n3",
    );
}

#[test]
fn functions_of_a_window_take_subqueries() {
    answers(
        "SELECT i, count(*) OVER (PARTITION BY (SELECT count(*) FROM {D} WHERE d.k = l.k)) AS n FROM {L} ORDER BY i",
        "i INT, n BIGINT",
        "1 1\n2 1\n3 2\n4 2",
    );
    answers(
        "SELECT i, row_number() OVER (ORDER BY (SELECT max(w) FROM {D} WHERE d.k = l.k) DESC, i) AS n FROM {L} ORDER BY i",
        "i INT, n INT",
        "1 2\n2 1\n3 3\n4 4",
    );
    answers(
        "SELECT i, sum((SELECT max(w) FROM {D} WHERE d.k = l.k)) OVER (ORDER BY i) AS s FROM {L} ORDER BY i",
        "i INT, s BIGINT",
        "1 10\n2 40\n3 40\n4 40",
    );
    answers(
        "SELECT k, count(*) AS c, sum(count(*)) OVER (PARTITION BY k IN (SELECT k FROM {D})) AS n FROM {L} GROUP BY k ORDER BY k",
        "k STRING, c BIGINT, n BIGINT",
        "NULL 1 2\na 1 2\nb 1 2\nn 1 2",
    );
    answers(
        "SELECT i FROM {L} QUALIFY row_number() OVER (PARTITION BY (SELECT count(*) FROM {D} WHERE d.k = l.k) ORDER BY i) = 1 ORDER BY i",
        "i INT",
        "1\n2\n3",
    );
}

#[test]
fn generators_take_subqueries() {
    let rows = "1 1\n1 10\n2 2\n2 30\n3 NULL\n3 3\n4 NULL\n4 4";
    let array = "array(i, (SELECT max(w) FROM {D} WHERE d.k = l.k))";
    for sql in [
        format!("SELECT i, explode({array}) AS x FROM {{L}} ORDER BY i, x"),
        format!("SELECT i, x FROM {{L}} LATERAL VIEW explode({array}) t AS x ORDER BY i, x"),
        format!("SELECT i, x FROM {{L}}, LATERAL explode({array}) AS t(x) ORDER BY i, x"),
    ] {
        answers(&sql, "i INT, x INT", rows);
    }
}

#[test]
fn what_is_looked_for_has_subqueries() {
    let ids = |condition: &str, rows: &str| {
        let sql = format!("SELECT i FROM {{L}} WHERE {condition} ORDER BY i");
        answers(&sql, "i INT", rows);
    };
    let most = "(SELECT max(w) FROM {D} WHERE d.k = l.k)";
    ids(&format!("(i, {most}) IN (SELECT g, w FROM {{D}})"), "1");
    ids(
        &format!("(i, {most}) NOT IN (SELECT g, w FROM {{D}})"),
        "2\n4",
    );
    ids(
        &format!("{most} IN (SELECT w FROM {{D}} WHERE g >= l.i)"),
        "1",
    );
    ids(
        &format!("(i, {most}) IN (SELECT g, w FROM {{D}}) OR i = 3"),
        "1\n3",
    );
    answers(
        &format!(
            "SELECT *, {most} IN (SELECT w FROM {{D}}) AS b FROM (SELECT i, k FROM {{L}}) l ORDER BY i"
        ),
        "i INT, k STRING, b BOOLEAN",
        "1 a true\n2 b true\n3 NULL false\n4 n false",
    );
    answers(
        "SELECT k FROM {L} GROUP BY k HAVING (count(*), (SELECT max(g) FROM {D} WHERE d.k = l.k)) IN (SELECT 1L, 2)",
        "k STRING",
        "b",
    );
}

#[test]
fn a_subquery_names_an_element_of_a_column_from_outside() {
    answers(
        "SELECT i, (SELECT count(*) FROM {D} WHERE d.g > l.arr[0]) AS n FROM {L} WHERE i < 4 ORDER BY i",
        "i INT, n BIGINT",
        "1 2\n2 1\n3 0",
    );
}

#[test]
fn where_no_subquery_stands_is_said() {
    let parts = "Unsupported subquery expression:";
    fails(
        "SELECT transform(array(id), x -> x + (SELECT max(id) FROM u)) FROM t",
        &format!(
            "[UNSUPPORTED_SUBQUERY_EXPRESSION_CATEGORY.HIGHER_ORDER_FUNCTION] {parts} Subquery expressions are not supported within higher-order functions. Please remove all subquery expressions from higher-order functions and then try the query again. (line 1, column 46)"
        ),
    );
    fails(
        "SELECT * FROM (VALUES ((SELECT 1))) AS v(a)",
        &format!(
            "[UNSUPPORTED_SUBQUERY_EXPRESSION_CATEGORY.SCALAR_SUBQUERY_IN_VALUES] {parts} Scalar subqueries in the VALUES clause."
        ),
    );
}

#[test]
fn shifts_bind_between_sums_and_the_bitwise_and() {
    check(
        "SELECT 8 >>> 1, -8 >>> 1 AS a, 1 << 3 AS b, -16 >> 2 AS c, 1L << 40 AS d",
        "`(8 >>> 1)` INT, a INT, b INT, c INT, d BIGINT",
        "4 2147483644 8 -4 1099511627776",
    );
    check(
        "SELECT 1 + 2 << 3 AS a, 1 << 2 + 1 AS b, 5 & 1 << 2 AS c, 16 >> 1 << 1 AS d, 3 << 1 = 6 AS e, 8 >>> 1 >> 1 AS f, 7 ^ 1 << 1 AS g, 1 << 1 | 1 AS h",
        "a INT, b INT, c INT, d INT, e BOOLEAN, f INT, g INT, h INT",
        "24 8 4 16 true 2 5 3",
    );
    fails(
        "SELECT 8 >> > 1",
        "[PARSE_SYNTAX_ERROR] Syntax error at or near '>': expected an expression (line 1, column 13)",
    );
}

#[test]
fn rows_that_a_subquery_chose_have_the_columns_that_they_had() {
    for condition in [
        "EXISTS (SELECT 1 FROM u WHERE u.id = t.id)",
        "id IN (SELECT id FROM u)",
        "(id, (SELECT max(id) FROM u)) IN (SELECT id, 4 FROM u)",
    ] {
        let chosen = Plan::Filter {
            input: Box::new(Plan::Alias {
                input: Box::new(parse_query("SELECT * FROM t").unwrap()),
                name: "t".into(),
                columns: vec![],
            }),
            condition: parse_expression(condition).unwrap(),
        };
        let rows = run(resolve(&chosen).unwrap()).unwrap();
        let names: Vec<String> = rows
            .schema()
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect();
        assert_eq!(names, ["id", "g", "v", "d"], "{condition}");
        assert_eq!(text(&rows), "1 a 10 0.5\n3 a 30 0.0", "{condition}");
    }
}

/// Refused by a sentence, and where in the text.
#[track_caller]
fn refused(sql: &str, what: &str, line: u64, column: u64) {
    let error = parse_query(sql)
        .and_then(|plan| resolve(&plan))
        .unwrap_err();
    assert_eq!(
        error.message(),
        format!("{what} is not supported yet"),
        "{sql}"
    );
    assert_eq!(error.place(), Some(Place { line, column }), "{sql}");
}

#[test]
fn what_cannot_be_answered_is_named_in_words_of_the_query() {
    let map = "FROM (SELECT id, map('a', id) AS m FROM t) AS t";
    let of_map = "a subquery that names the column \"m\" of type MAP<STRING, INT> from outside";
    let asked = "(\nSELECT count(*) AS n FROM u WHERE u.id > t.m[u.name])";
    refused(&format!("SELECT {asked} {map}"), of_map, 2, 8);
    refused(
        &format!("SELECT id {map} WHERE EXISTS {asked}"),
        of_map,
        2,
        8,
    );
    refused(
        &format!("SELECT id {map} WHERE id NOT IN {asked}"),
        of_map,
        2,
        8,
    );
    refused(
        &format!("SELECT id, x.n {map}, LATERAL {asked} x"),
        of_map,
        2,
        8,
    );
}
