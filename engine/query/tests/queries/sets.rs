//! INTERSECT and EXCEPT: members of sets, in which two nulls are equal.

use super::{check, fails};

const L: &str = "(VALUES (1), (1), (1), (2), (NULL), (NULL), (4)) AS l(a)";
const R: &str = "(VALUES (1), (2), (2), (NULL), (5)) AS r(b)";

#[track_caller]
fn members(op: &str, rows: &str) {
    let sql = format!("SELECT * FROM (SELECT a FROM {L} {op} SELECT b FROM {R}) ORDER BY a");
    check(&sql, "a INT", rows);
}

#[test]
fn intersect_has_what_both_sides_have_once() {
    members("INTERSECT", "NULL\n1\n2");
    members("INTERSECT DISTINCT", "NULL\n1\n2");
}

#[test]
fn intersect_all_counts_copies() {
    members("INTERSECT ALL", "NULL\n1\n2");
    let sql = format!(
        "SELECT b FROM (SELECT b FROM {R} INTERSECT ALL SELECT * FROM VALUES (2), (2), (2), (NULL)) ORDER BY 1"
    );
    check(&sql, "b INT", "NULL\n2\n2");
}

#[test]
fn except_has_what_only_the_left_side_has() {
    members("EXCEPT", "4");
    members("MINUS", "4");
    members("EXCEPT DISTINCT", "4");
}

#[test]
fn except_all_takes_copies_away() {
    members("EXCEPT ALL", "NULL\n1\n1\n4");
    members("MINUS ALL", "NULL\n1\n1\n4");
}

#[test]
fn intersect_binds_tighter() {
    check(
        "SELECT * FROM (SELECT 1 AS x UNION ALL SELECT 2 INTERSECT SELECT 2 EXCEPT SELECT 1)",
        "x INT",
        "2",
    );
}

#[test]
fn columns_meet_in_their_wider_type_under_the_left_ones_names() {
    check(
        "SELECT * FROM (SELECT 1 AS x, -0.0D AS y, 'a' AS x EXCEPT SELECT 2L, 0, 'b')",
        "x BIGINT, y DOUBLE, x STRING",
        "1 0.0 a",
    );
    check("SELECT 0.0D AS z INTERSECT SELECT -0.0D", "z DOUBLE", "0.0");
    check(
        "SELECT struct(1, 'a') AS s, array(1) AS a EXCEPT SELECT struct(2, 'a'), array(1)",
        "s STRUCT<col1: INT, col2: STRING>, a ARRAY<INT>",
        "{col1: 1, col2: a} [1]",
    );
}

#[test]
fn sides_that_do_not_fit_are_refused() {
    fails(
        "SELECT 1, 2 EXCEPT SELECT 1",
        "[NUM_COLUMNS_MISMATCH] EXCEPT can only be performed on inputs with the same number of columns, but the first input has 2 columns and the second input has 1 columns.",
    );
    fails(
        "SELECT 1 INTERSECT ALL SELECT array(1)",
        "[INCOMPATIBLE_COLUMN_TYPE] INTERSECTALL can only be performed on tables with compatible column types. The first column of the second table is \"ARRAY<INT>\" type which is not compatible with \"INT\" at the same column of the first table.",
    );
    fails(
        "SELECT map(1, 2) AS m EXCEPT SELECT map(1, 2)",
        "[UNSUPPORTED_FEATURE.SET_OPERATION_ON_MAP_TYPE] The feature is not supported: Cannot have MAP type columns in a set operation (INTERSECT, EXCEPT, etc.), but the type of column `m` is \"MAP<INT, INT>\".",
    );
}

#[test]
fn union_by_name_puts_columns_in_the_first_ones_order() {
    check(
        "SELECT * FROM (SELECT 1 AS a, 'x' AS b UNION ALL BY NAME SELECT 'y' AS b, 2 AS a) ORDER BY a",
        "a INT, b STRING",
        "1 x\n2 y",
    );
}
