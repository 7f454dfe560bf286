//! Every query's answer after every epoch equals DataFusion's from scratch on the rows so far: random rows, random
//! cuts into epochs, 1, 2 and 4 workers.
//!
//! A list of queries; queries made at random, with restarts, failing sinks, crashes at any write of the checkpoint and kills
//! on the way; and every operator with state over every other, in every mode (`HIGHWATER_PAIRS`). Of the random ones
//! `HIGHWATER_ORACLE` says how many, `HIGHWATER_ORACLE_FROM` with which seed they begin, and `HIGHWATER_ORACLE_ARM` of which
//! kind they are, where not all are wanted; a failure prints the seed, which `HIGHWATER_ORACLE_SEED` replays.

#![allow(clippy::print_stdout, reason = "a test says what it ran")]

#[path = "oracle/asked.rs"]
mod asked;
#[path = "oracle/case.rs"]
mod case;
#[path = "oracle/changing.rs"]
mod changing;
#[path = "common/mod.rs"]
mod common;
#[path = "oracle/model.rs"]
mod model;
#[path = "oracle/model_join.rs"]
mod model_join;
#[path = "oracle/pairs.rs"]
mod pairs;
#[path = "oracle/prefix.rs"]
mod prefix;
#[path = "oracle/program.rs"]
mod program;
#[path = "oracle/query.rs"]
mod query;
#[path = "oracle/reference.rs"]
mod reference;
#[path = "oracle/rows.rs"]
mod rows;
#[path = "oracle/sets.rs"]
mod sets;
#[path = "oracle/store.rs"]
mod store;
#[path = "oracle/taken.rs"]
mod taken;
#[path = "oracle/timed.rs"]
mod timed;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use std::sync::Arc;

use common::{accumulated, canonical, rows_of};
use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use highwater::{OutputMode, Session};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

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

/// Pairs that were wrong once, and some that see a watermark which judges a microsecond too early.
const FOUND: &[&str] = &[
    "aggregate over window, marked, changes",
    "aggregate over window, marked, update",
    "top over window, marked, changes",
    "full join over right join, marked, changes",
    "left join over over, marked, changes",
    "window over limit, marked, changes",
    "distinct over window, marked, complete",
    "session over left join, unmarked, complete",
    "window over session, marked, update",
    "dedup over semi join, marked, complete",
];

/// Of so many pairs of operators one is tried without a wish.
const PAIRS_STEP: usize = 67;

/// Random cases without a wish.
const CASES: u64 = 150;

/// Cases that run at a time: most of their time is waiting.
const AT_A_TIME: usize = 4;

/// Kinds of queries of which some are refused, by a class.
const REFUSED: &[&str] = &["layers"];

/// Not a test where no other one started it.
#[test]
fn program_of_a_case() {
    program::live();
}

#[test]
fn random_queries_answer_as_a_batch_does() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>());
    let number = |name: &str| number(name).map(|parsed| parsed.expect("a number"));
    let seeds: Vec<u64> = match number("HIGHWATER_ORACLE_SEED") {
        Some(seed) => vec![seed],
        None => {
            let arm = std::env::var("HIGHWATER_ORACLE_ARM").ok();
            let known = |arm: &String| query::ARMS.iter().any(|(name, _)| name == arm);
            assert!(arm.as_ref().is_none_or(known), "no arm {arm:?}");
            let is_of = |seed: &u64| {
                let (name, _) = query::ARMS[case::arm_of(*seed)];
                arm.as_ref().is_none_or(|arm| arm == name)
            };
            let seeds = number("HIGHWATER_ORACLE_FROM").unwrap_or(0)..;
            let count = number("HIGHWATER_ORACLE").unwrap_or(CASES);
            seeds.filter(is_of).take(count as usize).collect()
        }
    };
    let (next, ran) = (AtomicU64::new(0), Mutex::new(BTreeMap::new()));
    let (wrong, crashes) = (Mutex::new(Vec::new()), AtomicU64::new(0));
    let run_some = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            let mut case = case::Case::new(*seed);
            let (arm, about) = (case.arm, case.about());
            let outcome = catch_unwind(AssertUnwindSafe(|| case.run()));
            crashes.fetch_add(u64::from(case.crashes), Ordering::Relaxed);
            let mut ran = ran.lock().expect("no panic");
            let (right, refused) = ran.entry(arm).or_insert((0, 0));
            match outcome {
                Ok(case::Outcome::Right) => *right += 1,
                Ok(case::Outcome::Refused(class, why)) => {
                    *refused += 1;
                    if class.is_none() || !REFUSED.contains(&arm) {
                        let mut wrong = wrong.lock().expect("no panic");
                        wrong.push(format!("{about}\nrefused: {why}"));
                    }
                }
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned();
                    // At once: a long run need not end to be looked into.
                    println!("{about}");
                    let mut wrong = wrong.lock().expect("no panic");
                    wrong.push(format!("{about}\n{}", text.unwrap_or_default()));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        (0..AT_A_TIME).for_each(|_| {
            scope.spawn(run_some);
        });
    });
    for (arm, (right, refused)) in ran.into_inner().expect("no panic") {
        println!("{arm:20} {right:6} right {refused:6} refused");
    }
    println!("{} crashes", crashes.into_inner());
    let wrong = wrong.into_inner().expect("no panic");
    let shown = wrong
        .iter()
        .take(5)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n\n");
    assert!(
        wrong.is_empty(),
        "{} of {} are wrong:\n{shown}",
        wrong.len(),
        seeds.len()
    );
}

/// Pairs of operators in every mode: `HIGHWATER_PAIRS=all`, or those whose name has the text given.
#[test]
fn pairs_of_operators_answer_as_a_batch_does_or_are_refused() {
    let wanted = std::env::var("HIGHWATER_PAIRS").ok();
    let all = pairs::all();
    let is_wanted = |(index, pair): &(usize, pairs::Pair)| match wanted.as_deref() {
        // A step that shares no factor with the numbers of layers and modes meets all kinds of them.
        None => index % PAIRS_STEP == 0 || FOUND.contains(&pair.to_string().as_str()),
        Some("all") => true,
        Some(text) => pair.to_string().contains(text),
    };
    let pairs: Vec<_> = all.into_iter().enumerate().filter(is_wanted).collect();
    let (next, wrong) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let table: Mutex<BTreeMap<(String, bool), BTreeMap<String, u64>>> = Mutex::default();
    let run_some = || {
        while let Some((index, pair)) = pairs.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let mut case = case::Case::of_pair(*index as u64, *pair);
                (case.run(), case.about())
            }));
            let how = match &outcome {
                Ok((case::Outcome::Right, _)) => "answered".to_string(),
                Ok((case::Outcome::Refused(Some(class), _), _)) => class.clone(),
                Ok((case::Outcome::Refused(None, _), _)) => "not built".to_string(),
                Err(_) => "wrong".to_string(),
            };
            println!("{pair}: {how}");
            match outcome {
                Ok((case::Outcome::Refused(None, why), about)) => {
                    println!("{why}\n{about}");
                    wrong
                        .lock()
                        .expect("no panic")
                        .push(format!("{pair}: {why}"));
                }
                Ok(_) => {}
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                    println!("{pair}: {text}");
                    wrong
                        .lock()
                        .expect("no panic")
                        .push(format!("{pair}: {text}"));
                }
            }
            let mut table = table.lock().expect("no panic");
            let row = table
                .entry((pair.mode.to_string(), pair.marked))
                .or_default();
            *row.entry(how).or_default() += 1;
        }
    };
    std::thread::scope(|scope| {
        (0..AT_A_TIME).for_each(|_| {
            scope.spawn(run_some);
        });
    });
    for ((mode, marked), row) in table.into_inner().expect("no panic") {
        let marked = if marked { "with" } else { "without" };
        println!("{mode} {marked} a watermark: {row:?}");
    }
    let wrong = wrong.into_inner().expect("no panic");
    let shown = wrong
        .iter()
        .take(5)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n\n");
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{shown}",
        wrong.len(),
        pairs.len()
    );
}
