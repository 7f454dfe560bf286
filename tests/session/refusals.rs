//! What a query is refused with is told in its own words: no name in it was made up on the way.

use highwater::{Error, OutputMode, Session};

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
        "SELECT k FROM t INTERSECT ALL SELECT k FROM t AS u",
        OutputMode::Append,
        "INTERSECT ALL gives a row as often as the side has it that has it less often",
    ),
    (
        "SELECT k FROM t INTERSECT ALL SELECT * FROM VALUES ('a'), ('a')",
        OutputMode::Update,
        "that may grow with every epoch. Use INTERSECT, which gives it once",
    ),
    (
        "SELECT k FROM t EXCEPT ALL SELECT * FROM VALUES ('a')",
        OutputMode::Append,
        "EXCEPT ALL leaves a row as often as the left side has it more often",
    ),
    (
        "SELECT k, v FROM t ORDER BY v LIMIT 3",
        OutputMode::Append,
        "does not wait until those are final that belong before it",
    ),
    (
        "SELECT lag(v, 2, -1) OVER (PARTITION BY k ORDER BY v) AS n FROM t",
        OutputMode::Update,
        "in LAG(v, 2, -1) (as column `n`) on streaming",
    ),
    (
        "SELECT nth_value(k || 'x', 2) OVER (PARTITION BY k ORDER BY v) AS n FROM t",
        OutputMode::Append,
        "in NTH_VALUE(concat(k, 'x'), 2) (as column `n`) on streaming",
    ),
    (
        "SELECT avg(v / 2) OVER (PARTITION BY k) AS n FROM t",
        OutputMode::Append,
        "in AVG(",
    ),
    (
        "SELECT k FROM t WHERE EXISTS (SELECT 1 FROM t AS u WHERE u.k = t.k AND u.v > (SELECT min(v) FROM t AS w WHERE w.v > t.v))",
        OutputMode::Append,
        "Streaming query is not allowed in subquery expressions of this output mode",
    ),
];

fn refusal(sql: &str, mode: OutputMode) -> Error {
    let session = Session::with_workers(1).expect("a session");
    let (_, frame) = session
        .memory_stream("k STRING, v BIGINT")
        .expect("a stream");
    frame.create_or_replace_temp_view("t").expect("named");
    let started = session.sql(sql).and_then(|query| {
        let writer = query.write_stream().output_mode(mode);
        writer.format("memory").query_name("out").start()
    });
    started.map(|_| ()).expect_err(sql)
}

#[test]
fn columns_of_a_table_in_memory_have_names_of_their_own() {
    let error = refusal("SELECT k, v AS k FROM t", OutputMode::Append);
    let said = error.to_string();
    assert_eq!(
        error.class().as_deref(),
        Some("COLUMN_ALREADY_EXISTS"),
        "{said}"
    );
    for told in ["The column `k` already exists", "AS k_2"] {
        assert!(said.contains(told), "{said}");
    }
}

#[test]
fn what_lateral_subqueries_cannot_be_is_told_of_them() {
    let of = |from: &str, rest: &str| {
        let rest = rest.replace("FROM s", &format!("FROM {from} AS s(k, v)"));
        let sql = format!("SELECT t.k, x.n FROM t, LATERAL (SELECT {rest}) AS x");
        refusal(&sql, OutputMode::Append).to_string()
    };
    let (stream, table) = ("(SELECT k, v FROM t)", "VALUES ('a', 1)");
    for rest in [
        "count(*) AS n FROM s WHERE s.k = t.k",
        "v AS n FROM s WHERE s.k = t.k ORDER BY v LIMIT 1",
    ] {
        let said = of(stream, rest);
        assert!(
            said.contains("[INVALID_SUBQUERY_EXPRESSION.STREAMING_QUERY]"),
            "{said}"
        );
        let said = of(table, rest);
        assert!(
            said.contains("a LATERAL subquery over a table that aggregates"),
            "{said}"
        );
    }
}

#[test]
fn a_refusal_names_what_the_query_names() {
    for (sql, mode, told) in REFUSED {
        let said = refusal(sql, *mode).to_string();
        assert!(said.contains(told), "{sql}\n{said}");
        for ours in ["__", "Int64(", "Utf8(", "exact_", "EXACT_"] {
            assert!(!said.contains(ours), "{sql}\n{said}");
        }
    }
}

/// Streaming tables that are refused for the part at the mark `@`.
const PLACED: &[&str] = &[
    "OPTIONS (outputMode 'append') AS SELECT k, count(*) FROM t GROUP BY\n @k",
    "OPTIONS (outputMode 'append') AS SELECT @count(*) FROM t",
    "OPTIONS (outputMode 'append') AS SELECT DISTINCT k FROM t ORDER BY @k",
    "OPTIONS (outputMode 'append') AS SELECT k FROM t ORDER BY @v LIMIT 3",
    "OPTIONS (outputMode 'append') AS SELECT k FROM t LIMIT 3 OFFSET @1",
    "OPTIONS (outputMode 'update') AS SELECT k, count(*) FROM t GROUP BY k LIMIT @3",
    "OPTIONS (outputMode 'append') AS SELECT k, @rank() OVER (ORDER BY v) FROM t",
    "OPTIONS (outputMode 'append') AS SELECT k FROM t EXCEPT SELECT @k FROM t",
    "OPTIONS (outputMode 'append') AS SELECT a.k FROM t AS a LEFT JOIN\n @t AS b ON a.k = b.k",
    "OPTIONS (outputMode 'append') AS WITH c AS (SELECT k FROM t),\n d AS (SELECT k FROM c ORDER BY @k) SELECT * FROM d",
    "OPTIONS (outputMode 'append') AS SELECT * FROM (SELECT k FROM t) JOIN (SELECT k, max(v) FROM t GROUP BY @k) USING (k)",
    "OPTIONS (outputMode 'append') AS SELECT k FROM @counted",
    "OPTIONS (truncate 'false', @outputMode 'all') AS SELECT k FROM t",
    "OPTIONS (truncate 'false', @nix 1) AS SELECT k FROM t",
    "OPTIONS (@trigger 'soon') AS SELECT k FROM t",
];

#[test]
fn a_refusal_is_where_the_refused_part_is() {
    let session = Session::with_workers(1).expect("a session");
    let (_, frame) = session
        .memory_stream("k STRING, v BIGINT")
        .expect("a stream");
    frame.create_or_replace_temp_view("t").expect("named");
    session
        .sql("CREATE VIEW counted AS SELECT k, count(*) AS n FROM t GROUP BY k")
        .expect("a view");
    for rest in PLACED {
        let marked = format!("CREATE STREAMING TABLE o USING memory {rest}");
        let (before, _) = marked.split_once('@').expect("a mark");
        let sql = marked.replace('@', "");
        let error = match session.sql(&sql) {
            Ok(_) => panic!("not refused: {sql}"),
            Err(error) => error,
        };
        let line = before.split('\n').count() as u64;
        let column = before
            .rsplit('\n')
            .next()
            .map_or(0, |l| l.chars().count() as u64);
        let place = error.place().map(|place| (place.line, place.column));
        assert_eq!(place, Some((line, column + 1)), "{sql}\n{error}");
        if !rest.contains("nix") {
            let explained = session.explain(&sql).err();
            assert_eq!(explained.and_then(|e| e.place()), error.place(), "{sql}");
        }
    }
    for (marked, said) in [
        ("DROP TABLE @x", "there is no table \"x\""),
        ("STOP QUERY @q", "there is no query \"q\""),
        ("SET @spark.nothing = 1", "no setting"),
        ("CREATE TABLE x USING @fax", "\"fax\""),
    ] {
        let (before, _) = marked.split_once('@').expect("a mark");
        let error = session
            .execute(&marked.replace('@', ""))
            .err()
            .expect(marked);
        let place = error.place().map(|place| place.column as usize);
        assert_eq!(place, Some(before.len() + 1), "{marked}: {error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}
