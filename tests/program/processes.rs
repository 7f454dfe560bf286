//! Several processes, as the program starts them.

use std::fs;
use std::path::Path;

use super::{console, rows, run, sql, text};

/// Random rows in several files, as JSON lines.
fn random_files(dir: &Path, seed: u64) {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    let mut random = StdRng::seed_from_u64(seed);
    fs::create_dir(dir).expect("made");
    for file in 0..random.random_range(2..6) {
        let mut rows = String::new();
        for _ in 0..random.random_range(0..400) {
            let k = random.random_range(0..7);
            let g = random.random_range(-3..3);
            let x = random.random_range(-1e6..1e6) * 10f64.powi(random.random_range(-9..9));
            let known = random.random_bool(0.9);
            let v = if known {
                random.random_range(-99..99).to_string()
            } else {
                "null".into()
            };
            rows.push_str(&format!(
                "{{\"k\":\"k{k}\",\"g\":{g},\"v\":{v},\"x\":{x:e}}}\n"
            ));
        }
        fs::write(dir.join(format!("{file}.json")), rows).expect("written");
    }
}

/// Whole processes against DataFusion from scratch: a plain SELECT runs there, a streaming table in the dataflow. Beside
/// the table `t` there is `d`, with rows of its own.
fn check(queries: &[&str], settings: &[&str]) {
    let columns = "(k STRING, g INT, v BIGINT, x DOUBLE) USING json";
    for seed in 0..3 {
        let dir = tempfile::tempdir().expect("a directory");
        let mut tables = String::new();
        for (name, seed) in [("t", seed), ("d", seed + 100)] {
            let path = dir.path().join(name);
            random_files(&path, seed);
            let path = path.display();
            tables.push_str(&format!(
                "CREATE TABLE {name} {columns} OPTIONS (path '{path}');"
            ));
        }
        for query in queries {
            let batch = run(&["run", &sql(dir.path(), &format!("{tables} {query}"))]);
            assert!(batch.status.success(), "{}", text(&batch.stderr));
            assert!(
                rows(&batch.stdout).len() > 2,
                "a header and groups: {}",
                text(&batch.stdout)
            );
            for flags in [["-w", "1", "-n", "2"], ["-w", "2", "-n", "2"]] {
                let query = query.replace("FROM t", "FROM STREAM t");
                let query = console("complete", "availableNow", &query);
                let file = sql(dir.path(), &format!("{tables} {query}"));
                let args = ["run", &file].into_iter().chain(flags);
                let args: Vec<&str> = args.chain(settings.iter().copied()).collect();
                let stream = run(&args);
                assert!(stream.status.success(), "{}", text(&stream.stderr));
                assert_eq!(
                    rows(&stream.stdout),
                    rows(&batch.stdout),
                    "{query}, {args:?}, seed {seed}"
                );
            }
        }
    }
}

#[test]
fn two_processes_give_the_batch_answer_on_random_rows() {
    let queries = [
        "SELECT k, count(*) AS n, count(v) AS c, sum(v) AS s, min(v) AS a, max(x) AS z FROM t GROUP BY k",
        "SELECT g, sum(x) AS s, avg(x) AS a, count(DISTINCT k) AS d FROM t GROUP BY g",
        "SELECT k, first(v) AS f, last(v) AS l, sum(v) FILTER (WHERE g > 0) AS p FROM t GROUP BY k",
        "SELECT c, count(*) AS n FROM (SELECT explode(split(k, '')) AS c FROM t WHERE v > 0) GROUP BY c",
    ];
    check(&queries, &[]);
}

const JOINS: [&str; 6] = [
    "SELECT t.g, count(*) AS n, sum(d.v) AS s FROM t JOIN d ON t.v = d.v AND t.g < d.g GROUP BY t.g",
    "SELECT t.g, count(*) AS n, count(d.v) AS s FROM t LEFT JOIN d ON t.v = d.v AND t.g = d.g GROUP BY t.g",
    "SELECT t.g, count(*) AS n FROM t LEFT JOIN d ON t.v <=> d.v WHERE d.g > 0 OR d.k IS NULL GROUP BY t.g",
    "SELECT k, count(*) AS n FROM t WHERE EXISTS (SELECT 1 FROM d WHERE d.v = t.v AND d.g <> t.g) GROUP BY k",
    "SELECT k, count(*) AS n FROM t LEFT ANTI JOIN d ON t.v = d.v GROUP BY k",
    "SELECT k, count(*) AS n FROM t WHERE v > 90 OR v IN (SELECT v + 1 FROM d WHERE g > 0) GROUP BY k",
];

#[test]
fn a_table_is_joined_alike_whole_and_in_parts() {
    check(&JOINS[..3], &[]);
    let parted = "spark.sql.autoBroadcastJoinThreshold=-1";
    check(&JOINS, &["--conf", parted]);
}
