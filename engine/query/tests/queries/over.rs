//! Functions of a window.

use super::{check, fails, resolve, run, text};
use highwater_query::{Plan, Window, col, expr, functions, lit};

const P: &str = "(VALUES ('a', 1, 10L), ('a', 2, 10L), ('a', 3, NULL), ('b', 1, 5L), ('b', 4, 7L)) AS p(g, i, v)";

#[track_caller]
fn over(select: &str, schema: &str, rows: &str) {
    check(
        &format!("SELECT g, i, {select} FROM {P} ORDER BY g, i"),
        &format!("g STRING, i INT, {schema}"),
        rows,
    );
}

#[test]
fn ranks_are_ints() {
    over(
        "row_number() OVER (PARTITION BY g ORDER BY i DESC) AS n, rank() OVER (ORDER BY v) AS r, dense_rank() OVER (ORDER BY v DESC) AS d, ntile(2) OVER (PARTITION BY g ORDER BY i) AS t",
        "n INT, r INT, d INT, t INT",
        "a 1 3 4 1 1\na 2 2 4 1 1\na 3 1 1 4 2\nb 1 2 2 3 1\nb 4 1 3 2 2",
    );
    over(
        "percent_rank() OVER (ORDER BY v) AS p, cume_dist() OVER (PARTITION BY g ORDER BY v) AS c",
        "p DOUBLE, c DOUBLE",
        "a 1 0.75 1.0\na 2 0.75 1.0\na 3 0.0 0.3333333333333333\nb 1 0.25 0.5\nb 4 0.5 1.0",
    );
}

#[test]
fn values_of_any_type_order_a_window() {
    over(
        "rank() OVER (ORDER BY CAST(g AS BINARY) DESC) AS r, dense_rank() OVER (ORDER BY struct(v)) AS d, sum(i) OVER (ORDER BY struct(v)) AS s, sum(i) OVER (PARTITION BY g ORDER BY CAST(CAST(v AS STRING) AS BINARY) RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS t, count(*) OVER (ORDER BY array(v)) AS n, count(*) OVER (ORDER BY g, array(v)) AS m",
        "r INT, d INT, s BIGINT, t BIGINT, n BIGINT, m BIGINT",
        "a 1 3 4 11 3 5 3\na 2 3 4 11 3 5 3\na 3 3 1 3 6 1 1\nb 1 1 2 4 5 2 4\nb 4 1 3 8 4 3 5",
    );
    fails(
        &format!(
            "SELECT sum(i) OVER (ORDER BY struct(v) RANGE BETWEEN 1 PRECEDING AND CURRENT ROW) FROM {P}"
        ),
        "[DATATYPE_MISMATCH.RANGE_FRAME_INVALID_TYPE] Cannot resolve the window due to data type mismatch: The data type \"STRUCT<v: BIGINT>\" used in the order specification does not support the data type \"INT\" which is used in the range frame.",
    );
}

#[test]
fn a_range_of_time_may_be_longer_than_nanoseconds_count() {
    check(
        "SELECT i, sum(i) OVER (ORDER BY at RANGE BETWEEN INTERVAL 10000000 DAYS PRECEDING AND CURRENT ROW) AS s FROM VALUES (1, timestamp'2024-01-01'), (2, timestamp'2024-01-02') AS t(i, at) ORDER BY i",
        "i INT, s BIGINT",
        "1 1\n2 3",
    );
}

/// Nulls inside a value come before everything in it, wherever a value that is NULL itself stands.
#[test]
fn nulls_within_a_value_are_the_least() {
    let arrays = "VALUES (1, array(1, 2)), (2, array(CAST(NULL AS INT))), (3, NULL), (4, array()), (5, array(1, NULL)), (6, array(3)) AS t(id, a)";
    let structs = "VALUES (1, struct(1, 2)), (2, struct(NULL, 1)), (3, NULL), (4, struct(NULL, NULL)), (5, struct(1, NULL)), (6, struct(3, 1)) AS t(id, a)";
    for (order, wanted, ranks) in [
        ("ASC NULLS FIRST", "3 4 2 5 1 6", "5 3 1 2 4 6"),
        ("ASC NULLS LAST", "4 2 5 1 6 3", "4 2 6 1 3 5"),
        ("DESC NULLS FIRST", "3 6 1 5 2 4", "3 5 1 6 4 2"),
        ("DESC NULLS LAST", "6 1 5 2 4 3", "2 4 6 5 3 1"),
    ] {
        for rows in [arrays, structs] {
            for limit in ["", " LIMIT 6"] {
                let sql = format!("SELECT id FROM {rows} ORDER BY a {order}{limit}");
                check(&sql, "id INT", &wanted.replace(' ', "\n"));
            }
            let sql =
                format!("SELECT rank() OVER (ORDER BY a {order}) AS r FROM {rows} ORDER BY id");
            check(&sql, "r INT", &ranks.replace(' ', "\n"));
        }
    }
}

#[test]
fn rows_that_are_equal_in_order_are_in_each_others_window() {
    over(
        "sum(v) OVER (ORDER BY v) AS s, count(*) OVER (PARTITION BY g) AS n, sum(i) OVER (PARTITION BY g ORDER BY i ROWS 1 PRECEDING) AS m",
        "s BIGINT, n BIGINT, m BIGINT",
        "a 1 32 3 1\na 2 32 3 3\na 3 NULL 3 5\nb 1 5 2 1\nb 4 12 2 5",
    );
}

#[test]
fn neighbours_are_looked_up() {
    over(
        "lag(i) OVER (PARTITION BY g ORDER BY i) AS a, lead(v, 1, 0) OVER (PARTITION BY g ORDER BY i) AS b, lag(v, -1) OVER (PARTITION BY g ORDER BY i) AS c, lag(v) IGNORE NULLS OVER (ORDER BY g, i) AS d",
        "a INT, b BIGINT, c BIGINT, d BIGINT",
        "a 1 NULL 10 10 NULL\na 2 1 NULL NULL 10\na 3 2 0 NULL 10\nb 1 NULL 7 7 10\nb 4 1 0 NULL 5",
    );
    over(
        "first_value(v) OVER (PARTITION BY g ORDER BY i) AS f, last(v, true) OVER (PARTITION BY g ORDER BY i ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS l, nth_value(i, 2) OVER (PARTITION BY g ORDER BY i) AS n",
        "f BIGINT, l BIGINT, n INT",
        "a 1 10 10 NULL\na 2 10 10 2\na 3 10 NULL 2\nb 1 5 7 NULL\nb 4 5 7 4",
    );
}

#[test]
fn a_window_has_a_name() {
    check(
        &format!(
            "SELECT sum(i) OVER w AS s, count(*) OVER (v) AS n FROM {P} WINDOW w AS (PARTITION BY g), v AS w ORDER BY 1, 2"
        ),
        "s BIGINT, n BIGINT",
        "5 2\n5 2\n6 3\n6 3\n6 3",
    );
    fails(
        "SELECT sum(id) OVER w FROM t",
        "[MISSING_WINDOW_SPECIFICATION] Window specification is not defined in the WINDOW clause for w. (line 1, column 21)",
    );
}

#[test]
fn frames_that_slide_are_computed_anew() {
    over(
        "sum(CAST(IF(i = 1, 'Infinity', '1') AS DOUBLE)) OVER (ORDER BY g, i ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS s, collect_list(i) OVER (PARTITION BY g ORDER BY i ROWS BETWEEN 1 FOLLOWING AND 2 FOLLOWING) AS c, count(v) OVER (ORDER BY i RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS n",
        "s DOUBLE, c ARRAY<INT>, n BIGINT",
        "a 1 inf [2, 3] 3\na 2 inf [3] 3\na 3 2.0 [] 2\nb 1 inf [4] 3\nb 4 inf [] 1",
    );
    over(
        "avg(CAST(v AS DECIMAL(10,2))) OVER (ORDER BY g, i ROWS BETWEEN 1 PRECEDING AND 1 PRECEDING) AS a, count(*) OVER (ORDER BY date_add(DATE'2024-02-28', i) RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND 1 FOLLOWING) AS m",
        "a DECIMAL(14,6), m BIGINT",
        "a 1 NULL 3\na 2 10.000000 4\na 3 10.000000 3\nb 1 NULL 3\nb 4 5.000000 2",
    );
}

#[test]
fn a_range_is_a_number_that_the_key_can_be() {
    let rows = "(VALUES (1.00), (2.25), (2.50), (9.75)) AS d(m)";
    check(
        &format!(
            "SELECT m, count(*) OVER (ORDER BY CAST(m AS DECIMAL(38,2)) RANGE BETWEEN 1.5 PRECEDING AND CURRENT ROW) AS a, count(*) OVER (ORDER BY m RANGE BETWEEN CURRENT ROW AND 0.250 FOLLOWING) AS b FROM {rows} ORDER BY m"
        ),
        "m DECIMAL(3,2), a BIGINT, b BIGINT",
        "1.00 1 1\n2.25 2 2\n2.50 3 1\n9.75 1 1",
    );
    let fails = |sql: &str| {
        let plan = highwater_query::parse_query(sql).unwrap();
        let class = resolve(&plan).unwrap_err();
        assert_eq!(
            class.class(),
            Some("DATATYPE_MISMATCH.RANGE_FRAME_INVALID_TYPE"),
            "{sql}"
        );
    };
    for range in ["0.125 PRECEDING", "1000 PRECEDING"] {
        fails(&format!(
            "SELECT count(*) OVER (ORDER BY m RANGE BETWEEN {range} AND CURRENT ROW) FROM {rows}"
        ));
    }
}

#[test]
fn groups_are_looked_at() {
    check(
        &format!(
            "SELECT g, sum(v) AS s, rank() OVER (ORDER BY sum(v) DESC) AS r, sum(sum(v)) OVER () AS total, sum(count(*)) OVER (ORDER BY g) AS n FROM {P} GROUP BY g HAVING count(*) > 1 ORDER BY rank() OVER (ORDER BY g DESC)"
        ),
        "g STRING, s BIGINT, r INT, total BIGINT, n BIGINT",
        "b 12 2 32 5\na 20 1 32 3",
    );
}

#[test]
fn qualify_without_a_window_is_refused_as_in_the_model() {
    let why = "[QUALIFY_REQUIRES_WINDOW_FUNCTION] The QUALIFY clause requires at least one window function in the current SELECT list or the QUALIFY condition. Use WHERE for a condition over rows, or HAVING over groups";
    fails(&format!("SELECT i FROM {P} QUALIFY i > 1"), why);
    fails(
        &format!("SELECT i FROM {P} QUALIFY i > 1 OR 2 * sum(v) > 1"),
        "[QUALIFY_AGGREGATE_NOT_ALLOWED] Aggregate functions are not supported in QUALIFY: \"sum(v)\". Aggregate over a window, as in sum(v) OVER (PARTITION BY k), or group by something and use HAVING",
    );
    let group = format!("SELECT g, sum(v) AS s FROM {P} GROUP BY g QUALIFY s > 1");
    fails(&group, why);
    // One in a relation below is none of the select list.
    let below = format!("SELECT n FROM (SELECT row_number() OVER (ORDER BY i) AS n FROM {P})");
    fails(&format!("{below} QUALIFY n > 1"), why);
    check(
        &format!("SELECT i, 1 + count(*) OVER () AS n FROM {P} QUALIFY i > 3"),
        "i INT, n BIGINT",
        "4 6",
    );
}

#[test]
fn qualify_asks_about_windows() {
    check(
        &format!(
            "SELECT g, i, row_number() OVER (PARTITION BY g ORDER BY i DESC) AS n FROM {P} QUALIFY n = 1 ORDER BY g"
        ),
        "g STRING, i INT, n INT",
        "a 3 1\nb 4 1",
    );
    check(
        &format!("SELECT g FROM {P} GROUP BY g QUALIFY rank() OVER (ORDER BY sum(v)) = 1"),
        "g STRING",
        "b",
    );
    check(
        &format!(
            "SELECT i FROM {P} WHERE v > 5 QUALIFY sum(v) OVER (ORDER BY g, i) > 10 ORDER BY g DESC"
        ),
        "i INT",
        "4\n2",
    );
}

#[test]
fn columns_are_called_after_their_window() {
    check(
        "SELECT row_number() OVER (PARTITION BY g ORDER BY v), rank() OVER (ORDER BY id DESC NULLS LAST), sum(v) OVER (), lag(v) OVER (ORDER BY id), max(id) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t WHERE id = 1",
        "`row_number() OVER (PARTITION BY g ORDER BY v ASC NULLS FIRST ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)` INT, `RANK() OVER (ORDER BY id DESC NULLS LAST ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)` INT, `sum(v) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)` BIGINT, `lag(v, 1, NULL) OVER (ORDER BY id ASC NULLS FIRST ROWS BETWEEN -1 FOLLOWING AND -1 FOLLOWING)` BIGINT, `max(id) OVER (ORDER BY id ASC NULLS FIRST ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)` INT",
        "1 1 10 NULL 1",
    );
}

#[test]
fn programs_say_windows_too() {
    let input = highwater_query::parse_query(&format!("SELECT * FROM {P}")).unwrap();
    let window = Window::partition_by(["g"]).order_by([col("i").desc()]);
    let before =
        Window::ordered_by([col("g"), col("i")]).rows_between(Window::UNBOUNDED_PRECEDING, -1);
    let outputs = vec![
        expr("g").unwrap(),
        functions::row_number().over(window).alias("n"),
        functions::sum("v").over(before).alias("s"),
        functions::lead("i", 1)
            .over(Window::ordered_by(["g", "i"]))
            .alias("l"),
    ];
    let plan = Plan::Sort {
        input: Box::new(Plan::Project {
            input: Box::new(input),
            outputs,
        }),
        order: vec![col("g"), col("n")],
    };
    let batch = run(resolve(&plan).unwrap()).unwrap();
    assert_eq!(
        text(&batch),
        "a 1 20 1\na 2 10 3\na 3 NULL 2\nb 1 25 NULL\nb 2 20 4"
    );
    let not_a_function = Plan::Project {
        input: Box::new(Plan::OneRow),
        outputs: vec![lit(1).over(Window::default())],
    };
    assert_eq!(
        resolve(&not_a_function).unwrap_err().to_string(),
        "[UNSUPPORTED_EXPR_FOR_WINDOW] Expression \"1\" not supported within a window function."
    );
}

#[test]
fn what_no_window_can_be_asked_is_refused() {
    for (sql, class) in [
        (
            "SELECT id FROM t WHERE row_number() OVER (ORDER BY id) = 1",
            "WINDOW_FUNCTION_NOT_ALLOWED_IN_CLAUSE",
        ),
        (
            "SELECT row_number() OVER (PARTITION BY g) FROM t",
            "WINDOW_FUNCTION_FRAME_NOT_ORDERED",
        ),
        (
            "SELECT count(DISTINCT id) OVER () FROM t",
            "DISTINCT_WINDOW_FUNCTION_UNSUPPORTED",
        ),
        (
            "SELECT count(*) FILTER (WHERE id > 1) OVER () FROM t",
            "_LEGACY_ERROR_TEMP_1030",
        ),
        (
            "SELECT row_number() FROM t",
            "WINDOW_FUNCTION_WITHOUT_OVER_CLAUSE",
        ),
        (
            "SELECT upper(g) OVER () FROM t",
            "UNSUPPORTED_EXPR_FOR_WINDOW",
        ),
        (
            "SELECT rank() OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
            "_LEGACY_ERROR_TEMP_1036",
        ),
        (
            "SELECT lag(id) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
            "_LEGACY_ERROR_TEMP_1035",
        ),
        (
            "SELECT sum(id) OVER (ORDER BY id ROWS BETWEEN 2 FOLLOWING AND 1 FOLLOWING) FROM t",
            "DATATYPE_MISMATCH.SPECIFIED_FRAME_WRONG_COMPARISON",
        ),
        (
            "SELECT sum(id) OVER (RANGE BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
            "DATATYPE_MISMATCH.RANGE_FRAME_WITHOUT_ORDER",
        ),
        (
            "SELECT sum(id) OVER (ORDER BY id, g RANGE BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
            "DATATYPE_MISMATCH.RANGE_FRAME_MULTI_ORDER",
        ),
        (
            "SELECT sum(id) OVER (ORDER BY g RANGE BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
            "DATATYPE_MISMATCH.RANGE_FRAME_INVALID_TYPE",
        ),
    ] {
        let found = highwater_query::parse_query(sql).and_then(|plan| resolve(&plan));
        assert_eq!(found.unwrap_err().class(), Some(class), "{sql}");
    }
}
