//! What a query is refused with is told in its own words: no name in it was made up on the way.

use highwater::{OutputMode, Session};

/// Queries over the stream `t` that an output mode refuses, and what is told of the part that it cannot take.
const REFUSED: &[(&str, OutputMode, &str)] = &[
    (
        "SELECT v FROM t QUALIFY row_number() OVER (PARTITION BY k ORDER BY v) = 1",
        OutputMode::Append,
        "in ROW_NUMBER() on streaming",
    ),
    (
        "SELECT k, sum((SELECT max(v) FROM t AS u WHERE u.k = t.k)) OVER (ORDER BY v) AS n FROM t",
        OutputMode::Update,
        "in SUM(subquery) (as column `n`) on streaming",
    ),
    (
        "SELECT k, sum(v) OVER (PARTITION BY k IN (SELECT k FROM t AS u)) AS n FROM t",
        OutputMode::Append,
        "in SUM(v) (as column `n`) on streaming",
    ),
    (
        "SELECT k FROM t WHERE EXISTS (SELECT 1 FROM t AS u WHERE u.k = t.k AND u.v > (SELECT min(v) FROM t AS w WHERE w.v > t.v))",
        OutputMode::Append,
        "Streaming query is not allowed in subquery expressions of this output mode",
    ),
    (
        "SELECT v FROM t WHERE v = (SELECT max(u.v) FROM (SELECT v FROM t AS s WHERE s.k = t.k) u FULL JOIN t AS w ON u.v = w.v)",
        OutputMode::Changes,
        "a subquery that names columns of the query around it below a full join is not supported yet",
    ),
];

fn refusal(sql: &str, mode: OutputMode) -> String {
    let session = Session::with_workers(1).expect("a session");
    let (_, frame) = session
        .memory_stream("k STRING, v BIGINT")
        .expect("a stream");
    frame.create_or_replace_temp_view("t").expect("named");
    let started = session.sql(sql).and_then(|query| {
        let writer = query.write_stream().output_mode(mode);
        writer.format("memory").query_name("out").start()
    });
    started.map(|_| ()).expect_err(sql).to_string()
}

#[test]
fn a_refusal_names_what_the_query_names() {
    for (sql, mode, told) in REFUSED {
        let said = refusal(sql, *mode);
        assert!(said.contains(told), "{sql}\n{said}");
        assert!(!said.contains("__"), "{sql}\n{said}");
    }
}
