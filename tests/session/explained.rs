//! What `explain` says of operators with state: by what, what the state holds, and what bounds it or that nothing does.

use highwater::Session;

/// The mode, a query, and what is told of it.
const TOLD: &[(&str, &str, &[&str])] = &[
    (
        "changes",
        "SELECT k, count(DISTINCT v), sum(v) FROM t GROUP BY k",
        &[
            "Aggregate by [k]: count(DISTINCT v), sum(v); emits Signed; state: one row a group with every distinct v in it, never forgotten, nothing bounds it",
        ],
    ),
    (
        "update",
        "SELECT upper(k), collect_set(v), percentile(v, 0.5), mode(v), first(v), max(v) FROM t GROUP BY upper(k)",
        &[
            "Aggregate by [upper(k)]: collect_set(v), percentile(v, 0.5), mode(v), first(v), max(v);",
            "one row a group with every distinct v, every v in it, never forgotten",
            "project upper(k), collect_set(v), percentile(v, 0.5), mode(v), first(v), max(v)\n",
        ],
    ),
    (
        "changes",
        "SELECT median(v), percentile_approx(v, array(0.1, 0.9)), percentile(v, 0.5, 2), percentile_cont(0.25) WITHIN GROUP (ORDER BY v DESC), percentile_disc(0.5) WITHIN GROUP (ORDER BY v) FILTER (WHERE v > 1) FROM t",
        &[
            "project percentile(v, 0.5), percentile_approx(v, array(0.1, 0.9)), percentile(v, 0.5, 2), percentile_cont(0.25) WITHIN GROUP (ORDER BY v DESC), percentile_disc(0.5) WITHIN GROUP (ORDER BY v) FILTER (WHERE v > 1)\n",
        ],
    ),
    (
        "changes",
        "SELECT percentile(v, 0.5) OVER (PARTITION BY k) FROM t",
        &["percentile(v, 0.5) OVER (PARTITION BY k"],
    ),
    (
        "append",
        "SELECT v + d.n AS s, v > '7' AS b, CAST(d.n AS BIGINT) AS n, CAST(v AS STRING) AS t FROM t JOIN dim AS d ON v = d.n",
        &[
            "by [left.v = d.n]:",
            "project v + n AS s, v > 7 AS b, CAST(n AS BIGINT) AS n, CAST(v AS STRING) AS t\n",
        ],
    ),
    (
        "update",
        "SELECT avg(v), sum(v / 2) FROM t",
        &["state: one row\n"],
    ),
    (
        "append",
        "SELECT window, k, count(*) FROM t GROUP BY window(ts, '5 seconds'), k",
        &[
            "Aggregate by [window(ts, '5 seconds'), k]: count(*); emits Closed; state: one row a group, forgotten when the watermark (ts less 10 seconds) reaches the end of window(ts, '5 seconds')",
            "Watermark 0: ts less 10 seconds",
        ],
    ),
    (
        "append",
        "SELECT window, k, count(*) FROM t GROUP BY window(ts, '6 seconds', '4 seconds'), k",
        &[
            "Aggregate by [window(ts, '6 seconds', '4 seconds'), k]: count(*); emits Closed; state: one row a group and pane of 2 seconds, forgotten when the watermark (ts less 10 seconds) reaches the end of its last window(ts, '6 seconds', '4 seconds')",
        ],
    ),
    (
        "complete",
        "SELECT window(ts, '5 seconds') AS w, count(*) AS n FROM t GROUP BY 1 ORDER BY n DESC, w",
        &[
            "Order by [n DESC, window(ts, '5 seconds')]",
            "never forgotten in complete mode",
        ],
    ),
    (
        "append",
        "SELECT k, count(*) FROM t GROUP BY session_window(ts, '5 minutes'), k",
        &[
            "Sessions by [session_window(ts, '5 minutes'), k]: count(*); emits Closed; state: one row a session, forgotten when the watermark (ts less 10 seconds) reaches its end",
        ],
    ),
    (
        "append",
        "SELECT window(t.ts, '5 seconds') AS w, count(*) FROM t JOIN u ON t.k = u.k AND u.at BETWEEN t.ts AND t.ts + INTERVAL 3 MINUTES GROUP BY 1",
        &["reaches the end of window(ts, '5 seconds') and "],
    ),
    (
        "append",
        "SELECT window(t.ts, '5 seconds') AS w, count(*) FROM t JOIN u ON t.k = u.k GROUP BY 1",
        &[
            "reaches the end of window(ts, '5 seconds')\n",
            "left rows for ever, nothing bounds them; right rows for ever, nothing bounds them",
        ],
    ),
    (
        "changes",
        "SELECT window(t.ts, '5 seconds') AS w, max(u.v) FROM t LEFT JOIN u ON t.k = u.k GROUP BY 1",
        &["never forgotten, as the join below may give rows of any time"],
    ),
    (
        "append",
        "SELECT k, count(*) FROM t GROUP BY session_window(ts, '1 month'), k",
        &["Sessions by [session_window(ts, '1 months'), k]"],
    ),
    (
        "changes",
        "SELECT v, rank() OVER (PARTITION BY k ORDER BY v DESC) FROM t",
        &[
            "Regroup by [k]: rank() OVER (PARTITION BY k ORDER BY v DESC); emits Signed; state: all rows until they leave, nothing bounds it",
        ],
    ),
    (
        "append",
        "SELECT v, sum(v) OVER (PARTITION BY window(ts, '5 seconds')) FROM t",
        &[
            "Regroup by [window(ts, '5 seconds')]: sum(v) OVER (PARTITION BY window(ts, '5 seconds') ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING); emits Closed; state: all rows, forgotten when the watermark (ts less 10 seconds) reaches the end of window(ts, '5 seconds')",
        ],
    ),
    (
        "changes",
        "SELECT window, k, max(n) FROM (SELECT k, n, window(w, '6 seconds', '4 seconds') AS window FROM \
         (SELECT window(ts, '2 seconds') AS w, k, count(*) AS n FROM t GROUP BY 1, 2)) GROUP BY window, k",
        &[
            "Regroup by [window(window_time(window(ts, '2 seconds')), '6 seconds', '4 seconds'), k]: max(n); emits Signed; state: one row a group and pane of 2 seconds, forgotten when the watermark (ts less 10 seconds) reaches the end of its last window(window_time(window(ts, '2 seconds')), '6 seconds', '4 seconds')",
            "Regroup by [window(window_time(window(ts, '2 seconds')), '6 seconds', '4 seconds'), k]: max(n) of each pane; emits Signed; state: all rows, forgotten when the watermark (ts less 10 seconds) reaches the end of its last window",
        ],
    ),
    (
        "changes",
        "SELECT v FROM t ORDER BY v + 1 DESC LIMIT 3 OFFSET 2",
        &[
            "Regroup by []: the first 3 rows after 2 by v + 1 DESC; emits Signed; state: all rows until they leave, nothing bounds it",
        ],
    ),
    (
        "changes",
        "SELECT upper(k) FROM t EXCEPT SELECT k FROM u",
        &[
            "Aggregate by [upper(k)]: copies on the left, copies on the right; emits Signed; state: one row a group, never forgotten, nothing bounds it",
        ],
    ),
    (
        "changes",
        "SELECT k FROM t EXCEPT SELECT code FROM dim",
        &[
            "Join with a table by [left.k <=> right.code]: its rows that have no partner; state: none",
            "Aggregate by [k]: its rows once;",
        ],
    ),
    (
        "append",
        "SELECT a.v, d.n FROM t AS a JOIN dim AS d ON a.k = d.code AND a.v > d.n",
        &[
            "Join with a table by [a.k = d.code] where a.v > d.n: its rows with their partners; state: none",
        ],
    ),
    (
        "changes",
        "SELECT d.n, a.v FROM dim AS d LEFT JOIN t AS a ON a.k = d.code",
        &[
            "Join LeftOuter of a table and a stream by [d.code = a.k]; state: left rows, those of the table; right rows for ever, nothing bounds them",
            ": code, n, in the first epoch",
        ],
    ),
    (
        "append",
        "SELECT a.v FROM t AS a JOIN u AS b ON a.k = b.k AND b.at >= a.ts AND b.at <= a.ts + INTERVAL 3 SECONDS AND a.v <> b.v",
        &[
            "Join Inner of streams by [a.k = b.k] where ",
            "(a.v <> b.v)",
            "; state: left rows until the watermark (ts less 10 seconds; at less 1 minute) reaches a.ts and 3001 milliseconds more; right rows until the watermark (ts less 10 seconds; at less 1 minute) reaches b.at",
        ],
    ),
    (
        "changes",
        "SELECT k FROM t WHERE v > (SELECT max(u.v) FROM u WHERE u.k = t.k) AND EXISTS (SELECT 1 FROM u WHERE u.v = t.v)",
        &[
            "Join LeftSemi of streams by [left.v = right.v]",
            "Aggregate by [k]: max(v);",
        ],
    ),
    (
        "changes",
        "SELECT k, v, sum(v) FROM t GROUP BY ROLLUP (k, v)",
        &[
            "Aggregate by [k, v, the grouping]: sum(v);",
            "project v, k, v, the grouping\n",
            "each row once for each grouping\n",
        ],
    ),
    (
        "changes",
        "SELECT k, upper(k) AS u, grouping(upper(k)) AS g, grouping_id() FROM t GROUP BY GROUPING SETS ((k, upper(k)), (k)) HAVING grouping(k) = 0",
        &[
            "grouping(upper(k)) AS g, the grouping\n",
            "filter ((the grouping >> 1) & 1) = 0\n",
        ],
    ),
    (
        "changes",
        "SELECT count(*), sum(n) FROM (SELECT k, count(*) AS n FROM t GROUP BY k)",
        &["Aggregate by []: count(*), sum(n), count(*); emits Signed; state: one row\n"],
    ),
    (
        "append",
        "SELECT DISTINCT k FROM t",
        &["Deduplicate by [k]; state: the keys, never forgotten, nothing bounds them"],
    ),
    (
        "append",
        "SELECT k FROM t INTERSECT SELECT k FROM u",
        &[
            "Deduplicate by [k];",
            "Join LeftSemi of streams by [left.k <=> right.k]; state: left rows for ever",
        ],
    ),
    (
        "append",
        "SELECT code FROM dim INTERSECT SELECT k FROM t",
        &[
            "Join LeftSemi of a table and a stream by [left.code <=> right.k]",
            ": code, in the first epoch",
        ],
    ),
    (
        "append",
        "SELECT a.v, b.k FROM t AS a LEFT JOIN u AS b ON a.k = b.k AND b.at BETWEEN a.ts AND a.ts + INTERVAL 1 MINUTE",
        &[
            "Join LeftOuter of streams by [a.k = b.k] where (b.at >= a.ts) AND (b.at <= (a.ts + INTERVAL 60 SECONDS)); state: left rows until the watermark (ts less 10 seconds; at less 1 minute) reaches a.ts and 60001 milliseconds more, those without it for ever; right rows until the watermark (ts less 10 seconds; at less 1 minute) reaches b.at and 1 millisecond more\n",
        ],
    ),
    (
        "changes",
        "SELECT a.v, b.k FROM t AS a FULL JOIN u AS b ON a.k = b.k AND b.at BETWEEN a.ts AND a.ts + INTERVAL 1 MINUTE",
        &[
            "(b.at <= (a.ts + INTERVAL 60 SECONDS)); state: left rows until",
            " reaches a.ts and 60002 milliseconds more; right rows until",
        ],
    ),
    (
        "append",
        "SELECT a.v FROM t AS a LEFT ANTI JOIN u AS b ON a.ts = b.at",
        &[
            "]; state: left rows until the watermark (ts less 10 seconds; at less 1 minute) reaches a.ts;",
        ],
    ),
    (
        "append",
        "SELECT a.v FROM t AS a JOIN u AS b ON a.ts <=> b.at",
        &[" reaches a.ts, those without it for ever; right"],
    ),
    (
        "changes",
        "SELECT k, k IN (SELECT code FROM dim) AS known FROM t",
        &[
            "Join with a table by [left.k = right.code]: its rows, and whether they have a partner; state: none",
            "project k, whether it has a partner AS known\n",
        ],
    ),
    (
        "changes",
        "SELECT k, max(v) FROM (SELECT k, v FROM t EXCEPT SELECT DISTINCT k, v FROM u) GROUP BY k",
        &[
            "Regroup by [k]: max(v); emits Signed; state: all rows until they leave, nothing bounds it",
            "sum(copies on the left), sum(copies on the right), count(*);",
        ],
    ),
    (
        "changes",
        "SELECT sum(v) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL 1 MINUTE PRECEDING AND CURRENT ROW) FROM t",
        &[
            "sum(v) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL 60 SECONDS PRECEDING AND CURRENT ROW);",
        ],
    ),
    (
        "changes",
        "SELECT k, count(*) FROM t GROUP BY CUBE (k, window(ts, '5 seconds'))",
        &["Aggregate by [window(ts, '5 seconds'), k, the grouping]: count(*);"],
    ),
    (
        "append",
        "SELECT v FROM t LIMIT 5",
        &["Limit 5; state: how many have come, one row"],
    ),
    (
        "append",
        "SELECT v, current_timestamp() AS seen FROM t WHERE now() > ts",
        &[
            "project v, current_timestamp() AS seen\n",
            "filter current_timestamp() > ts\n",
        ],
    ),
];

fn session() -> Session {
    let session = Session::with_workers(1).expect("a session");
    let stream = |name: &str, at: &str, delay: &str| {
        let schema = format!("k STRING, v BIGINT, {at} TIMESTAMP");
        let (_, frame) = session.memory_stream(&schema).expect("a stream");
        let frame = frame.with_watermark(at, delay).expect("a watermark");
        frame.create_or_replace_temp_view(name).expect("named");
    };
    stream("t", "ts", "10 seconds");
    stream("u", "at", "1 minute");
    session
        .sql("CREATE VIEW dim AS SELECT * FROM VALUES ('a', 1), ('b', 2) AS dim(code, n)")
        .expect("a view");
    session
}

fn explained(session: &Session, mode: &str, sql: &str) -> String {
    let sql =
        format!("CREATE STREAMING TABLE o USING memory OPTIONS (outputMode '{mode}') AS {sql}");
    match session.explain(&sql) {
        Ok(plan) => plan,
        Err(error) => panic!("{sql}\n{error}"),
    }
}

#[test]
fn each_state_is_told_in_the_querys_words() {
    let mut wrong = Vec::new();
    for (mode, sql, told) in TOLD {
        let session = session();
        let plan = explained(&session, mode, sql);
        let missing = told.iter().filter(|part| !plan.contains(**part));
        let planners = ["__", "@", "Int64", "Utf8", "0 rows", "add("].iter();
        let planners = planners.filter(|part| plan.contains(**part));
        let parts: Vec<&&str> = missing.chain(planners).collect();
        if !parts.is_empty() {
            wrong.push(format!("{sql}\n{parts:?}\n{plan}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn deduplication_tells_what_bounds_it() {
    let session = session();
    let explained = |keys: &[&str], within: bool| {
        let frame = session.table("t").expect("a stream");
        let frame = match within {
            true => frame.drop_duplicates_within_watermark(keys.iter().copied()),
            false => frame.drop_duplicates(keys.iter().copied()),
        };
        frame.and_then(|frame| frame.explain()).expect("a plan")
    };
    for (keys, within, told) in [
        (
            vec!["k"],
            false,
            "Deduplicate by [k]; state: the keys, never forgotten, nothing bounds them",
        ),
        (
            vec!["k", "ts"],
            false,
            "Deduplicate by [ts, k]; state: the keys, forgotten when the watermark (ts less 10 seconds) reaches ts, those without it for ever",
        ),
        (
            vec!["k"],
            true,
            "Deduplicate by [k]; state: the keys, forgotten when the watermark (ts less 10 seconds) reaches ts of the first row and 10 seconds more",
        ),
    ] {
        let plan = explained(&keys, within);
        assert!(plan.contains(told), "{told}\n{plan}");
    }
}
