//! LATERAL: what each kind of join keeps, as the model does.

use super::{check, fails};

const N: &str = "(VALUES (1, array(1, 2)), (2, array()), (3, NULL), (4, array(NULL))) AS n(id, a)";

#[track_caller]
fn of_lists(from: &str, rows: &str) {
    let sql = format!("SELECT id, x FROM {N} {from} ORDER BY id, x");
    check(&sql, "id INT, x INT", rows);
}

#[test]
fn a_generator_without_on_makes_rows_or_none() {
    let some = "1 1\n1 2\n4 NULL";
    let all = "1 1\n1 2\n2 NULL\n3 NULL\n4 NULL";
    for (from, rows) in [
        ("JOIN LATERAL explode(a) AS e(x)", some),
        (", LATERAL explode(a) AS e(x)", some),
        ("CROSS JOIN LATERAL explode_outer(a) AS e(x)", all),
        ("LEFT JOIN LATERAL explode(a) AS e(x)", some),
        ("LEFT JOIN LATERAL (SELECT explode(a)) AS e(x)", some),
        ("LEFT JOIN LATERAL (SELECT explode_outer(a)) AS e(x)", all),
        ("LATERAL VIEW explode(a) e AS x", some),
        ("LATERAL VIEW OUTER explode(a) e AS x", all),
        ("LATERAL VIEW explode_outer(a) e AS x", all),
    ] {
        of_lists(from, rows);
    }
}

#[test]
fn with_on_a_left_join_keeps_rows_that_make_none() {
    let kept = "1 2\n2 NULL\n3 NULL\n4 NULL";
    of_lists(
        "LEFT JOIN LATERAL explode(a) AS e(x) ON true",
        "1 1\n1 2\n2 NULL\n3 NULL\n4 NULL",
    );
    of_lists("LEFT JOIN LATERAL explode(a) AS e(x) ON x > 1", kept);
    of_lists("LEFT JOIN LATERAL explode_outer(a) AS e(x) ON x > 1", kept);
    of_lists(
        "LEFT JOIN LATERAL (SELECT explode(a)) AS e(x) ON x > 1",
        kept,
    );
}

#[test]
fn no_other_outer_join_can_be_lateral() {
    let refused = |join: &str, kind: &str| {
        fails(
            &format!("SELECT 1 FROM t {join} JOIN LATERAL (SELECT t.id + u.id AS n FROM u) AS l"),
            &format!(
                "[INVALID_LATERAL_JOIN_TYPE] The {kind} JOIN with LATERAL correlation is not allowed because an OUTER subquery cannot correlate to its join partner. Remove the LATERAL correlation or use an INNER JOIN, or LEFT OUTER JOIN instead."
            ),
        );
    };
    refused("RIGHT", "RIGHT OUTER");
    refused("FULL", "FULL OUTER");
    refused("LEFT SEMI", "LEFT SEMI");
    refused("LEFT ANTI", "LEFT ANTI");
    fails(
        "SELECT 1 FROM t JOIN LATERAL (SELECT * FROM u WHERE u.id = t.id) AS l USING (id)",
        "[UNSUPPORTED_FEATURE.LATERAL_JOIN_USING] The feature is not supported: JOIN USING with LATERAL correlation. Write the condition after ON.",
    );
}
