//! Several groupings at once, and PIVOT.

use super::{check, fails};

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
        "[GROUPING_COLUMN_MISMATCH] Column of grouping (t.v) can't be found in grouping columns (t.id). (line 1, column 8)",
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
