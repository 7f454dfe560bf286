//! A list of queries, each over random rows that are cut into epochs at random.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use highwater::{OutputMode, Session};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::AT_A_TIME;
use crate::common::{accumulated, canonical, rows_of};

const SCHEMA: &str = "k STRING, g BIGINT, v BIGINT, x DOUBLE, line STRING";

/// Query over `t`, output mode, number of key columns.
const QUERIES: &[(&str, OutputMode, usize)] = &[
    ("SELECT k, v FROM t", OutputMode::Append, 0),
    (
        "SELECT v * 2 AS w, upper(k) AS u FROM t WHERE v > 3 AND k IS NOT NULL",
        OutputMode::Append,
        0,
    ),
    (
        "SELECT g, explode(split(line, ' ')) AS word FROM t",
        OutputMode::Append,
        0,
    ),
    (
        "SELECT k, count(*) AS n, sum(v) AS s, min(v) AS lo, max(v) AS hi FROM t GROUP BY k",
        OutputMode::Update,
        1,
    ),
    (
        "SELECT k, g, avg(x) AS a, sum(x) AS s FROM t GROUP BY k, g",
        OutputMode::Complete,
        2,
    ),
    (
        "SELECT g, count(v) AS n FROM t GROUP BY g HAVING count(v) > 2",
        OutputMode::Complete,
        1,
    ),
    (
        "SELECT count(*) AS n, sum(v) AS s FROM t",
        OutputMode::Complete,
        0,
    ),
    (
        "SELECT word, count(*) AS n FROM (SELECT explode(split(line, ' ')) AS word FROM t) GROUP BY word",
        OutputMode::Update,
        1,
    ),
    (
        "SELECT g, count(DISTINCT k) AS n FROM t GROUP BY g",
        OutputMode::Complete,
        1,
    ),
    ("SELECT DISTINCT k, g FROM t", OutputMode::Complete, 0),
    (
        "SELECT g, sum(v) FILTER (WHERE v > 0) AS s FROM t GROUP BY g",
        OutputMode::Update,
        1,
    ),
    (
        "SELECT k, v FROM t WHERE v > 5 UNION ALL SELECT k, g FROM t WHERE g = 1",
        OutputMode::Append,
        0,
    ),
    (
        "SELECT g, first(v) AS f, last(v) AS l, collect_list(k) AS ks FROM t GROUP BY g",
        OutputMode::Complete,
        1,
    ),
    (
        "SELECT k, stddev(x) AS d, var_pop(x) AS v, corr(x, v) AS c FROM t GROUP BY k",
        OutputMode::Update,
        1,
    ),
    (
        "SELECT g, count_if(v > 3) AS n, bool_or(v > 15) AS b, bit_xor(v) AS x FROM t WHERE v > 8 GROUP BY g",
        OutputMode::Update,
        1,
    ),
    (
        "SELECT sum(v) / count(*) AS r, avg(v) AS a, sum(x) AS s FROM t WHERE v IS NOT NULL",
        OutputMode::Update,
        0,
    ),
    // Rows that change, aggregated again.
    (
        "SELECT n, count(*) AS c, max(s) AS m, sum(s) AS t FROM (SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k) GROUP BY n",
        OutputMode::Complete,
        1,
    ),
    (
        "SELECT g, max(n) AS m, min(s) AS l, avg(n) AS a FROM (SELECT g, k, count(*) AS n, sum(v) AS s FROM t GROUP BY g, k) GROUP BY g",
        OutputMode::Update,
        1,
    ),
    (
        "SELECT count(*) AS c, sum(s) AS t, max(n) AS m FROM (SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k)",
        OutputMode::Update,
        0,
    ),
    (
        "SELECT DISTINCT n FROM (SELECT k, count(*) AS n FROM t GROUP BY k HAVING count(*) > 1)",
        OutputMode::Complete,
        0,
    ),
    (
        "SELECT n, count(DISTINCT s) AS c FROM (SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k UNION ALL SELECT line, g, v FROM t) GROUP BY n",
        OutputMode::Complete,
        1,
    ),
    (
        "SELECT n, count(*) AS c, sum(s) AS t, count(s) AS m, avg(d) AS a, sum(d) AS u FROM (SELECT k, count(*) AS n, sum(v) AS s, sum(CAST(v AS DECIMAL(9,2))) AS d FROM t GROUP BY k) GROUP BY n",
        OutputMode::Complete,
        1,
    ),
    (
        "SELECT g, sum(n) FILTER (WHERE s > 3) AS m, count(*) AS c, sum(s) AS t FROM (SELECT g, k, count(*) AS n, sum(v) AS s FROM t GROUP BY g, k) GROUP BY g",
        OutputMode::Update,
        1,
    ),
    (
        "SELECT sum(c * n) AS rows, count(*) AS kinds FROM (SELECT n, count(*) AS c FROM (SELECT k, g, count(*) AS n FROM t GROUP BY k, g) GROUP BY n)",
        OutputMode::Complete,
        0,
    ),
    // One row, whatever is read of it.
    (
        "SELECT count(*) AS n FROM (SELECT sum(v) AS s FROM t)",
        OutputMode::Complete,
        0,
    ),
    (
        "SELECT 1 AS one FROM (SELECT sum(v) AS s FROM t)",
        OutputMode::Changes,
        0,
    ),
    (
        "SELECT k, 1 AS x FROM t, (SELECT max(v) AS m FROM t) AS b",
        OutputMode::Changes,
        0,
    ),
    (
        "SELECT col1, 1 AS x FROM VALUES (1), (2) LEFT JOIN (SELECT max(v) AS m FROM t) AS b ON true",
        OutputMode::Complete,
        0,
    ),
    (
        "SELECT typeof(sum(v)) AS n FROM t UNION ALL SELECT DISTINCT 'c' FROM (SELECT count(*) AS c FROM t)",
        OutputMode::Complete,
        0,
    ),
    // Sets, several groupings at once, static values in expressions.
    (
        "SELECT k, g FROM t WHERE v > 5 EXCEPT SELECT k, g FROM t WHERE v < 3",
        OutputMode::Complete,
        0,
    ),
    (
        "SELECT g FROM t WHERE v > 5 EXCEPT ALL SELECT g FROM t WHERE v < 9",
        OutputMode::Complete,
        0,
    ),
    (
        "SELECT k, v FROM t WHERE g = 1 INTERSECT SELECT k, v FROM t WHERE g <> 1",
        OutputMode::Complete,
        0,
    ),
    ("SELECT DISTINCT k, g FROM t", OutputMode::Append, 0),
    (
        "SELECT upper(k) AS u, g FROM t WHERE v > 3 GROUP BY upper(k), g",
        OutputMode::Append,
        0,
    ),
    (
        "SELECT k, g FROM t WHERE g = 1 INTERSECT SELECT k, v FROM t WHERE g <> 1",
        OutputMode::Append,
        0,
    ),
    (
        "SELECT k, g FROM t WHERE g = 1 INTERSECT SELECT k, v FROM t WHERE g <> 1",
        OutputMode::Update,
        2,
    ),
    (
        "SELECT g FROM t INTERSECT SELECT * FROM VALUES (1L), (NULL), (3L)",
        OutputMode::Append,
        0,
    ),
    (
        "SELECT * FROM VALUES (1L), (NULL), (2L) INTERSECT SELECT g FROM t",
        OutputMode::Append,
        0,
    ),
    (
        "SELECT v FROM t EXCEPT SELECT * FROM VALUES (1L), (NULL), (3L)",
        OutputMode::Append,
        0,
    ),
    (
        "SELECT count(*) AS n, min(k) AS m FROM (SELECT k, g FROM t WHERE v > 5 EXCEPT SELECT k, g FROM t WHERE v < 3)",
        OutputMode::Update,
        0,
    ),
    (
        "SELECT sum(n) AS s, count(*) AS c FROM (SELECT g, count(*) AS n FROM t GROUP BY g HAVING count(*) < 3)",
        OutputMode::Update,
        0,
    ),
    (
        "SELECT g FROM t WHERE v > 5 INTERSECT ALL SELECT g FROM t WHERE v < 15",
        OutputMode::Complete,
        0,
    ),
    (
        "SELECT k, g, grouping_id() AS i, sum(v) AS s, count(*) AS n FROM t GROUP BY CUBE (k, g)",
        OutputMode::Update,
        3,
    ),
    (
        "SELECT g, k, max(v) AS m FROM t GROUP BY g, ROLLUP (k) HAVING grouping(k) = 1",
        OutputMode::Complete,
        2,
    ),
    (
        "SELECT g, max_by(v, line) AS a, min_by(k, v) AS b, percentile(v, 0.5) AS p, mode(v) AS m, median(x) AS d FROM t GROUP BY g",
        OutputMode::Update,
        1,
    ),
    (
        "SELECT g, skewness(x) AS s, kurtosis(v) AS k, regr_slope(x, v) AS r, max(struct(v, k)) AS m, min(array(v, g)) AS l FROM t GROUP BY g",
        OutputMode::Complete,
        1,
    ),
    (
        "SELECT k, v FROM t WHERE v NOT IN (SELECT col1 FROM VALUES (1), (2), (30)) AND g < (SELECT max(col1) FROM VALUES (2), (1))",
        OutputMode::Append,
        0,
    ),
    (
        "SELECT n, median(s) AS m, max(b) AS x, sum(DISTINCT s) AS d, skewness(s) AS w FROM (SELECT k, count(*) AS n, sum(v) AS s, bool_or(v > 3) AS b FROM t GROUP BY k) GROUP BY n",
        OutputMode::Complete,
        1,
    ),
    // Conditions within a table and within WITH come up: no state is kept for what is not looked for.
    (
        "SELECT k, v FROM t WHERE EXISTS (SELECT 1 FROM (SELECT a, b FROM (VALUES (1, 3), (2, 9)) AS d(a, b) WHERE d.a = t.g) x WHERE x.b > 4)",
        OutputMode::Append,
        0,
    ),
    (
        "SELECT k, v FROM t WHERE v NOT IN (WITH c AS (SELECT a, b FROM (VALUES (1, 3), (2, 9), (2, 5)) AS d(a, b) WHERE d.a = t.g) SELECT b FROM c)",
        OutputMode::Append,
        0,
    ),
    (
        "SELECT g, w, v << 2 AS f, v >>> 1 AS h FROM t, LATERAL explode(split(line, ' ')) AS e(w) WHERE (g, (SELECT max(col1) FROM VALUES (2), (1))) IN (SELECT col1, 2 FROM VALUES (1), (3))",
        OutputMode::Append,
        0,
    ),
    // The first rows.
    (
        "SELECT k, g, v, x, line FROM t ORDER BY v DESC, k, x, g, line LIMIT 7",
        OutputMode::Complete,
        0,
    ),
    (
        "SELECT k, count(*) AS n FROM t GROUP BY k ORDER BY n DESC, k NULLS LAST LIMIT 3 OFFSET 1",
        OutputMode::Complete,
        0,
    ),
    (
        "SELECT n, count(*) AS c FROM (SELECT k, count(*) AS n FROM t GROUP BY k ORDER BY n, k LIMIT 5) GROUP BY n",
        OutputMode::Complete,
        1,
    ),
    // Ordered by columns that do not come out.
    (
        "SELECT g, v FROM (SELECT * FROM t ORDER BY k, x, v, g, line LIMIT 6) AS f",
        OutputMode::Complete,
        0,
    ),
    (
        "SELECT k, g FROM t ORDER BY v DESC, x, k, g, line LIMIT 4",
        OutputMode::Complete,
        0,
    ),
    // Windows that overlap, of rows that move from one to another.
    (
        "SELECT unix_seconds(w.start) AS s, max(m) AS m, avg(x) AS a, count(*) AS c FROM (SELECT window(timestamp_seconds(m), '7 seconds', '3 seconds') AS w, m, x FROM (SELECT k, max(v) AS m, max(x) AS x FROM t GROUP BY k)) GROUP BY w",
        OutputMode::Complete,
        1,
    ),
    // Static groups beside those of a stream.
    (
        "SELECT k, count(*) AS n FROM t GROUP BY k UNION ALL SELECT col1, count(*) FROM VALUES ('a'), ('b'), ('a') GROUP BY col1",
        OutputMode::Complete,
        0,
    ),
    // Aggregates that are computed anew where a group has lost all its rows.
    (
        "SELECT n, sum(DISTINCT s) AS d FROM (SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k) GROUP BY n",
        OutputMode::Complete,
        1,
    ),
    ("SELECT v, g FROM t WHERE v > 15", OutputMode::Complete, 0),
    (
        "SELECT g, count(*) AS n FROM t LATERAL VIEW explode_outer(split(line, ' ')) e AS w WHERE w LIKE 'r%' OR w = '' GROUP BY g",
        OutputMode::Complete,
        1,
    ),
];

fn random_rows(random: &mut StdRng, schema: &SchemaRef, rows: usize) -> RecordBatch {
    let words = ["tide", "mark", "river", "wall", "spring", ""];
    let mut text = |max: usize| {
        (0..random.random_range(0..max))
            .map(|_| words[random.random_range(0..words.len())])
            .collect::<Vec<_>>()
            .join(" ")
    };
    let lines: Vec<Option<String>> = (0..rows).map(|_| Some(text(6))).collect();
    let k: Vec<Option<String>> = (0..rows)
        .map(|_| {
            random
                .random_bool(0.9)
                .then(|| format!("k{}", random.random_range(0..12)))
        })
        .collect();
    let int = |random: &mut StdRng, low: i64, high: i64| -> Vec<Option<i64>> {
        (0..rows)
            .map(|_| {
                random
                    .random_bool(0.95)
                    .then(|| random.random_range(low..high))
            })
            .collect()
    };
    let (g, v) = (int(random, 0, 4), int(random, -10, 20));
    let x: Vec<Option<f64>> = (0..rows)
        .map(|_| {
            random
                .random_bool(0.9)
                .then(|| random.random_range(-1e6..1e6) * 10f64.powi(random.random_range(-6..6)))
        })
        .collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(k)),
        Arc::new(Int64Array::from(g)),
        Arc::new(Int64Array::from(v)),
        Arc::new(Float64Array::from(x)),
        Arc::new(StringArray::from(lines)),
    ];
    RecordBatch::try_new(Arc::clone(schema), columns).expect("columns fit")
}

fn check(query: &str, mode: OutputMode, keys: usize, workers: usize, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let at = format!("\n{query}\n{workers} workers, seed {seed}");
    let session = Session::with_workers(workers).expect("a session");
    let (rows, frame) = session.memory_stream(SCHEMA).expect("a stream");
    frame.create_or_replace_temp_view("t").expect("a view");
    let running = session
        .sql(query)
        .and_then(|frame| {
            frame
                .write_stream()
                .output_mode(mode)
                .format("memory")
                .query_name("out")
                .start()
        })
        .unwrap_or_else(|e| panic!("{e}{at}"));
    let reference = Session::new().expect("a session");
    let mut so_far = Vec::new();
    for epoch in 0..random.random_range(2..6) {
        for _ in 0..random.random_range(0..4) {
            let count = random.random_range(0..40);
            let batch = random_rows(&mut random, &rows.schema(), count);
            so_far.push(batch.clone());
            rows.add(batch).expect("it fits");
        }
        running
            .process_all_available()
            .unwrap_or_else(|e| panic!("{e}{at}"));
        let actual = accumulated(&rows_of(&session, "SELECT * FROM out"), mode, keys);
        let all = reference
            .create_dataframe(rows.schema(), so_far.clone())
            .expect("a frame");
        all.create_or_replace_temp_view("t").expect("a view");
        let expected = canonical(&rows_of(&reference, query));
        // Before its first epoch a query has said nothing, not even a count of zero.
        if running.committed().epochs > 0 {
            assert_eq!(actual, expected, "epoch {epoch}{at}");
        }
    }
    running.stop().unwrap_or_else(|e| panic!("{e}{at}"));
}

#[test]
fn answers_equal_the_batch_answer_after_every_epoch() {
    let mut runs = Vec::new();
    for (index, (query, mode, keys)) in QUERIES.iter().enumerate() {
        for workers in [1, 2, 4] {
            for round in 0..3 {
                let mode = if round < 2 {
                    *mode
                } else {
                    OutputMode::Changes
                };
                let seed = (index * 1000 + workers * 10 + round) as u64;
                runs.push((*query, mode, *keys, workers, seed));
            }
        }
    }
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let (query, mode, keys, workers, seed) = *run;
                    check(query, mode, keys, workers, seed);
                }
            });
        }
    });
}
