//! Several groupings at once, and PIVOT.

use super::{check, fails, parse_query, resolve};

const S: &str =
    "(VALUES ('a', 'x', 1), ('a', 'y', 2), ('b', 'x', 3), (NULL, 'x', 4)) AS s(g, h, v)";

#[test]
fn rollup_leaves_keys_out_from_the_right() {
    check(
        &format!(
            "SELECT g, h, sum(v) AS s, grouping(g) AS gg, grouping(h) AS gh, grouping_id() AS id FROM {S} GROUP BY ROLLUP (g, h) ORDER BY id, g, h"
        ),
        "g STRING, h STRING, s BIGINT, gg TINYINT, gh TINYINT, id BIGINT",
        "NULL x 4 0 0 0\na x 1 0 0 0\na y 2 0 0 0\nb x 3 0 0 0\nNULL NULL 4 0 1 1\na NULL 3 0 1 1\nb NULL 3 0 1 1\nNULL NULL 10 1 1 3",
    );
    check(
        &format!("SELECT g, count(*) FROM {S} GROUP BY g WITH ROLLUP ORDER BY grouping(g), g"),
        "g STRING, `count(1)` BIGINT",
        "NULL 1\na 2\nb 1\nNULL 4",
    );
}

#[test]
fn cube_takes_every_choice() {
    check(
        &format!(
            "SELECT g, h, sum(v) AS s FROM {S} GROUP BY CUBE (g, h) HAVING grouping_id(g, h) > 0 AND sum(v) > 2 ORDER BY grouping_id(), g, h"
        ),
        "g STRING, h STRING, s BIGINT",
        "NULL NULL 4\na NULL 3\nb NULL 3\nNULL x 8\nNULL NULL 10",
    );
}

#[test]
fn grouping_sets_are_what_they_say() {
    check(
        &format!(
            "SELECT upper(h) AS u, g, max(h) AS m, count(*) AS n FROM {S} GROUP BY GROUPING SETS ((upper(h)), (g), ()) ORDER BY grouping_id(), u, g"
        ),
        "u STRING, g STRING, m STRING, n BIGINT",
        "X NULL x 3\nY NULL y 1\nNULL NULL x 1\nNULL a y 2\nNULL b x 1\nNULL NULL y 4",
    );
    // With other keys they multiply, and a grouping said twice gives its rows twice.
    check(
        &format!(
            "SELECT g, h, sum(v) AS s FROM {S} WHERE g = 'a' GROUP BY g, GROUPING SETS ((h), (), ()) ORDER BY h NULLS LAST"
        ),
        "g STRING, h STRING, s BIGINT",
        "a x 1\na y 2\na NULL 3\na NULL 3",
    );
    check(
        &format!(
            "SELECT g, h, sum(v) FROM {S} WHERE g = 'b' GROUP BY g, h GROUPING SETS ((g), (h)) ORDER BY 1"
        ),
        "g STRING, h STRING, `sum(v)` BIGINT",
        "NULL x 3\nb NULL 3",
    );
}

#[test]
fn floats_in_structs_and_arrays_are_equal_as_floats_are() {
    let rows = "(VALUES (0.0D, 1), (-0.0D, 2), (double('NaN'), 3), (-double('NaN'), 4), (NULL, 5)) AS f(x, v)";
    for made in ["struct(x AS a)", "array(x)", "array(struct(array(x) AS b))"] {
        let grouped = format!("SELECT sum(v) AS s FROM {rows} GROUP BY {made} ORDER BY s");
        check(&grouped, "s BIGINT", "3\n5\n7");
        let distinct = format!("SELECT count(*) AS n FROM (SELECT DISTINCT {made} FROM {rows})");
        check(&distinct, "n BIGINT", "3");
        let unions = format!(
            "SELECT count(*) AS n FROM (SELECT {made} FROM {rows} UNION SELECT {made} FROM {rows})"
        );
        check(&unions, "n BIGINT", "3");
        let equal = format!(
            "SELECT count(*) AS n FROM {rows} WHERE {made} <=> {}",
            made.replace('x', "-x")
        );
        check(&equal, "n BIGINT", "5");
    }
}

#[test]
fn no_rows_have_no_groups() {
    check(
        &format!("SELECT g, count(*) AS n FROM {S} WHERE v > 9 GROUP BY ROLLUP (g)"),
        "g STRING, n BIGINT",
        "",
    );
}

#[test]
fn grouping_is_asked_about_keys() {
    fails(
        "SELECT grouping(id) FROM t GROUP BY id",
        "[UNSUPPORTED_GROUPING_EXPRESSION] grouping()/grouping_id() can only be used with GroupingSets/Cube/Rollup. (line 1, column 8)",
    );
    fails(
        "SELECT grouping(v) FROM t GROUP BY CUBE (id)",
        "[GROUPING_COLUMN_MISMATCH] Column of grouping (v) can't be found in grouping columns (id). (line 1, column 8)",
    );
}

#[test]
fn values_become_columns() {
    check(
        &format!("SELECT * FROM {S} PIVOT (sum(v) FOR h IN ('x', 'y' AS why, 'z')) ORDER BY g"),
        "g STRING, x BIGINT, why BIGINT, z BIGINT",
        "NULL 4 NULL NULL\na 1 2 NULL\nb 3 NULL NULL",
    );
    // What has no row is NULL, even a count.
    check(
        &format!(
            "SELECT * FROM {S} PIVOT (count(*) AS n, max(v) FOR (g, h) IN (('a', 'x') AS ax, ('b', 'y')))"
        ),
        "ax_n BIGINT, `ax_max(v)` INT, `{b, y}_n` BIGINT, `{b, y}_max(v)` INT",
        "1 1 NULL NULL",
    );
    fails(
        &format!("SELECT * FROM {S} PIVOT (sum(v) FOR h IN (array(1)))"),
        "[PIVOT_VALUE_DATA_TYPE_MISMATCH] Invalid pivot value 'array(1)': value data type \"ARRAY<INT>\" does not match pivot column data type \"STRING\".",
    );
}

#[test]
fn sessions_are_in_all_grouping_sets_or_in_none() {
    let rows = "(SELECT timestamp_seconds(s) AS ts, k FROM VALUES (0, 'a'), (3, 'b'), (20, 'a') AS v(s, k))";
    check(
        &format!(
            "SELECT unix_seconds(w.start) AS s, k, n FROM (SELECT session_window(ts, '5 seconds') AS w, k, count(*) AS n FROM {rows} \
             GROUP BY GROUPING SETS ((session_window(ts, '5 seconds'), k), (session_window(ts, '5 seconds')))) ORDER BY k, s"
        ),
        "s BIGINT, k STRING, n BIGINT",
        "0 NULL 2\n20 NULL 1\n0 a 1\n20 a 1\n3 b 1",
    );
    fails(
        &format!(
            "SELECT k, count(*) FROM {rows} GROUP BY GROUPING SETS ((session_window(ts, '5 seconds'), k), (k))"
        ),
        "[UNSUPPORTED_FEATURE] session_window in some of GROUPING SETS, ROLLUP or CUBE and not in others is not supported yet",
    );
}

#[test]
fn all_are_the_keys_that_are_no_aggregates() {
    check(
        "SELECT upper(g) AS u, count(*) AS n, v IS NULL AS no, sum(id) + 1 AS s FROM t GROUP BY ALL ORDER BY ALL",
        "u STRING, n BIGINT, no BOOLEAN, s BIGINT",
        "A 2 false 5\nB 1 true 3",
    );
    check(
        "SELECT count(*) AS n FROM t WHERE id > 9 GROUP BY ALL",
        "n BIGINT",
        "0",
    );
    check(
        "SELECT 1 AS one, count(*) AS n FROM t WHERE id > 9 GROUP BY ALL",
        "one INT, n BIGINT",
        "",
    );
    check(
        "SELECT g FROM t GROUP BY ALL ORDER BY ALL DESC",
        "g STRING",
        "b\na",
    );
    check(
        "SELECT *, count(*) AS n FROM u GROUP BY ALL ORDER BY ALL LIMIT 1 + 0",
        "id INT, name STRING, n BIGINT",
        "1 one 1",
    );
    fails(
        "SELECT g, id + count(*) AS n FROM t GROUP BY ALL",
        "[MISSING_AGGREGATION] The non-aggregating expression \"id\" is based on columns which are not participating in the GROUP BY clause. Add the columns or the expression to the GROUP BY, aggregate the expression, or use \"any_value(id)\" if you do not care which of the values within a group is returned (in \"n\").",
    );
}

#[test]
fn a_limit_is_a_constant() {
    let limited = |count: &str, rows: &str| {
        check(
            &format!("SELECT id FROM t ORDER BY id {count}"),
            "id INT",
            rows,
        );
    };
    limited("LIMIT 1 + 1", "1\n2");
    limited("LIMIT length('ab') OFFSET 2 * 1", "3");
    limited("LIMIT CAST('1' AS INT)", "1");
    limited("LIMIT ALL", "1\n2\n3");
    let refused = |count: &str, class: &str| {
        let plan = parse_query(&format!("SELECT id FROM t LIMIT {count}")).unwrap();
        let class = format!("INVALID_LIMIT_LIKE_EXPRESSION.{class}");
        assert_eq!(resolve(&plan).unwrap_err().class(), Some(class.as_str()));
    };
    refused("1 - 3", "IS_NEGATIVE");
    refused("NULL", "DATA_TYPE");
    refused("'3'", "DATA_TYPE");
    refused("2.5", "DATA_TYPE");
    refused("id", "IS_UNFOLDABLE");
    refused("(SELECT 2)", "IS_UNFOLDABLE");
    refused("CAST(NULL AS INT)", "IS_NULL");
}

#[test]
fn columns_become_rows() {
    let rows = "(SELECT 1 AS id, 2 AS a, CAST(NULL AS BIGINT) AS b, 'x' AS c UNION ALL SELECT 2, NULL, NULL, 'y')";
    check(
        &format!("SELECT * FROM {rows} UNPIVOT (val FOR nm IN (a, b AS bb)) ORDER BY ALL"),
        "id INT, c STRING, nm STRING, val BIGINT",
        "1 x a 2",
    );
    check(
        &format!(
            "SELECT t.id, nm, p, q FROM {rows} UNPIVOT INCLUDE NULLS ((p, q) FOR nm IN ((a, c), (b, c) AS y)) AS t ORDER BY 1, 2"
        ),
        "id INT, nm STRING, p BIGINT, q STRING",
        "1 a_c 2 x\n1 y NULL x\n2 a_c NULL y\n2 y NULL y",
    );
    let refused = |unpivot: &str, class: &str| {
        let plan = parse_query(&format!("SELECT * FROM {rows} UNPIVOT ({unpivot})")).unwrap();
        assert_eq!(resolve(&plan).unwrap_err().class(), Some(class));
    };
    refused("v FOR n IN (a, c)", "UNPIVOT_VALUE_DATA_TYPE_MISMATCH");
    refused("v FOR n IN ((a, b))", "UNPIVOT_VALUE_SIZE_MISMATCH");
}

#[test]
fn columns_that_grouping_does_not_know_are_told_as_they_are_written() {
    let of = "FROM VALUES (TIMESTAMP'2024-01-01', 1, 2) AS t(ts, k, v) GROUP BY CUBE (window(ts, '5 seconds'), upper(k))";
    fails(
        &format!("SELECT grouping_id(v) {of}"),
        "[GROUPING_ID_COLUMN_MISMATCH] Columns of grouping_id (v) does not match grouping columns (window, upper(k)).",
    );
    fails(
        &format!("SELECT grouping(v + 1) {of}"),
        "[GROUPING_COLUMN_MISMATCH] Column of grouping (v + 1) can't be found in grouping columns (window, upper(k)).",
    );
}

#[test]
fn a_generator_beside_groups_says_where_it_goes() {
    fails(
        "SELECT explode(collect_list(v)) AS e FROM VALUES (1, 2) AS t(k, v) GROUP BY k",
        "[UNSUPPORTED_FEATURE] explode in the select list of an aggregation (aggregate in a subquery, and select explode from it) is not supported yet (line 1, column 8)",
    );
}
