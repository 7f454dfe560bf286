//! Joins that keep rows without a partner, whose ON asks subqueries of pairs; and what is asked of maps.

use super::check;

const L: &str = "(VALUES (1, 10), (1, 20), (2, NULL), (NULL, 5)) AS l(a, b)";
const R: &str = "(VALUES (1, 'p'), (2, 'q'), (2, NULL), (6, 'p')) AS r(a, c)";
const W: &str = "(VALUES (1, 10, 'p'), (2, 7, 'q'), (1, 20, 'z')) AS w(a, b, c)";

#[track_caller]
fn kept(join: &str, on: &str, rows: &str) {
    let sql = format!(
        "SELECT l.a, l.b, r.a AS ra, r.c FROM {L} {join} JOIN {R} ON {on} ORDER BY l.a, l.b, ra, c"
    );
    check(&sql, "a INT, b INT, ra INT, c STRING", rows);
}

#[test]
fn a_row_without_a_partner_is_one_for_which_the_subquery_finds_none() {
    let some = format!("l.a = r.a AND EXISTS (SELECT 1 FROM {W} WHERE w.b = l.b AND w.c = r.c)");
    kept("", &some, "1 10 1 p");
    kept(
        "LEFT",
        &some,
        "NULL 5 NULL NULL\n1 10 1 p\n1 20 NULL NULL\n2 NULL NULL NULL",
    );
    kept(
        "RIGHT",
        &some,
        "NULL NULL 2 NULL\nNULL NULL 2 q\nNULL NULL 6 p\n1 10 1 p",
    );
    kept(
        "FULL",
        &some,
        "NULL NULL 2 NULL\nNULL NULL 2 q\nNULL NULL 6 p\nNULL 5 NULL NULL\n1 10 1 p\n1 20 NULL NULL\n2 NULL NULL NULL",
    );
    // As a value, and under OR.
    let value =
        format!("(SELECT max(w.b) FROM {W} WHERE w.a = l.a AND w.c >= r.c) > l.b OR r.a = 6");
    kept(
        "LEFT",
        &value,
        "NULL 5 6 p\n1 10 1 p\n1 10 2 q\n1 10 6 p\n1 20 6 p\n2 NULL 6 p",
    );
}

#[test]
fn semi_and_anti_joins_ask_the_same() {
    let on = format!("l.a = r.a AND (SELECT count(*) FROM {W} WHERE w.b = l.b AND w.c = r.c) = 1");
    let of = |join: &str, rows: &str| {
        let sql = format!("SELECT * FROM {L} LEFT {join} JOIN {R} ON {on} ORDER BY a, b");
        check(&sql, "a INT, b INT", rows);
    };
    of("SEMI", "1 10");
    of("ANTI", "NULL 5\n1 20\n2 NULL");
}

#[test]
fn what_is_asked_of_a_map_is_computed_outside() {
    let m = "(VALUES (1, map('x', 1)), (2, map('x', 3)), (3, NULL), (4, map('y', 1))) AS m(id, mm)";
    check(
        &format!(
            "SELECT id, (SELECT count(*) FROM {W} WHERE w.a >= m.mm['x']) AS n FROM {m} ORDER BY id"
        ),
        "id INT, n BIGINT",
        "1 3\n2 0\n3 0\n4 0",
    );
    check(
        &format!(
            "SELECT id FROM {m} WHERE EXISTS (SELECT 1 FROM {W} WHERE w.a < size(m.mm) + w.b - 9 AND m.mm IS NOT NULL) ORDER BY id"
        ),
        "id INT",
        "1\n2\n4",
    );
    check(
        &format!(
            "SELECT id, s.c FROM {m}, LATERAL (SELECT max(w.c) AS c FROM {W} WHERE w.a > m.mm['x']) AS s ORDER BY id"
        ),
        "id INT, c STRING",
        "1 q\n2 NULL\n3 NULL\n4 NULL",
    );
}

#[test]
fn range_is_a_table_of_numbers() {
    for (call, rows) in [
        ("range(3)", "0\n1\n2"),
        ("range(1, 10, 3)", "1\n4\n7"),
        ("range(5, 0, -2) AS r(x)", "1\n3\n5"),
        ("RANGE(2L, 4, 1, 7)", "2\n3"),
        ("range(3, 3)", ""),
        ("range(3, 1)", ""),
    ] {
        let name = if call.contains("r(x)") { "x" } else { "id" };
        let sql = format!("SELECT * FROM {call} ORDER BY 1");
        check(&sql, &format!("{name} BIGINT"), rows);
    }
    check(
        "SELECT t.id, r.id AS n FROM t JOIN LATERAL range(t.id) AS r WHERE t.id < 3 ORDER BY 1, 2",
        "id INT, n BIGINT",
        "1 0\n2 0\n2 1",
    );
    for (call, class) in [
        ("range()", "WRONG_NUM_ARGS.WITHOUT_SUGGESTION"),
        ("range('a')", "DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE"),
        ("numbers(3)", "UNSUPPORTED_FEATURE"),
    ] {
        let error = super::parse_query(&format!("SELECT * FROM {call}"))
            .and_then(|plan| super::resolve(&plan))
            .unwrap_err();
        assert_eq!(error.class(), Some(class), "{call}");
    }
}
