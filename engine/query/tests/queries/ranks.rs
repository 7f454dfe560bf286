//! Percentiles and the mode: several at once, of structs, with how often a value is there.

use super::{check, parse_query, resolve, run};

#[test]
fn several_are_asked_of_the_same_values() {
    check(
        "SELECT percentile(id, 0.5) AS m, percentile(id, array(0.0, 1.0)) AS e, percentile(id, 0.5) + count(*) AS p, \
         percentile_disc(0.5) WITHIN GROUP (ORDER BY id DESC) AS d, median(v) AS v FROM t HAVING percentile(id, 0.9) > 2",
        "m DOUBLE, e ARRAY<DOUBLE>, p DOUBLE, d DOUBLE, v DOUBLE",
        "2.0 [1.0, 3.0] 5.0 2.0 20.0",
    );
    check(
        "SELECT g, mode(id) AS l, mode() WITHIN GROUP (ORDER BY id DESC) AS r, percentile_approx(id, 0.5) AS p, \
         percentile_approx(id, array(0.0, 1.0)) AS e FROM t GROUP BY g ORDER BY g",
        "g STRING, l INT, r INT, p INT, e ARRAY<INT>",
        "a 1 3 1 [1, 3]\nb 2 2 2 [2, 2]",
    );
}

#[test]
fn without_values_there_is_no_answer() {
    check(
        "SELECT median(v) AS m, mode(v) AS c, percentile_approx(v, array(0.1, 0.9)) AS a FROM t WHERE id = 2",
        "m DOUBLE, c BIGINT, a ARRAY<BIGINT>",
        "NULL NULL NULL",
    );
    check(
        "SELECT id, (SELECT median(u.id) FROM u WHERE u.id = t.id) AS m FROM t ORDER BY id",
        "id INT, m DOUBLE",
        "1 1.0\n2 NULL\n3 3.0",
    );
}

#[test]
fn those_that_count_are_filtered_and_distinct() {
    check(
        "SELECT mode(g) FILTER (WHERE id > 1) AS m, percentile(DISTINCT id % 2, 0.5) AS d, percentile(id % 2, 0.5) AS p FROM t",
        "m STRING, d DOUBLE, p DOUBLE",
        "a 0.5 1.0",
    );
}

#[test]
fn structs_are_in_order_by_their_fields() {
    check(
        "SELECT mode(named_struct('g', g, 'n', id % 2)) AS m, mode() WITHIN GROUP (ORDER BY (v, id) DESC) AS r FROM t",
        "m STRUCT<g: STRING, n: INT>, r STRUCT<v: BIGINT, id: INT>",
        "{g: a, n: 1} {v: 30, id: 3}",
    );
}

#[test]
fn values_come_with_how_often_they_are_there() {
    check(
        "SELECT percentile(d, 0.5, v) AS p, percentile(d, array(0.8, 1.0), v) AS a FROM t",
        "p DOUBLE, a ARRAY<DOUBLE>",
        "0.0 [0.5, 0.5]",
    );
    let plan = resolve(&parse_query("SELECT percentile(d, 0.5, -v) FROM t").unwrap()).unwrap();
    let error = run(plan).unwrap_err().to_string();
    assert!(
        error.contains("Found the negative value in the frequency of percentile: -30L"),
        "{error}"
    );
}

#[test]
fn partitions_are_asked_too() {
    check(
        "SELECT id, percentile(id, 0.5) OVER (PARTITION BY g) AS p, mode(id) OVER (PARTITION BY g) AS m FROM t ORDER BY id",
        "id INT, p DOUBLE, m INT",
        "1 2.0 1\n2 2.0 2\n3 2.0 1",
    );
}
