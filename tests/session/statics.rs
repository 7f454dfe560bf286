//! Static rows inside streams: they enter once, and a query goes on with the version that it read.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::util::display::array_value_to_string;
use highwater::{DataFrame, Error, OutputMode, Session, Trigger};

use super::common::{canonical, rows_of};

const UNION: &str = "SELECT k, v FROM stream UNION ALL SELECT k, 0 AS v FROM dim";
const RIGHT: &str = "SELECT dim.k, v FROM stream RIGHT JOIN dim ON stream.k = dim.k";
const LOOKUP: &str = "SELECT stream.k, v FROM stream JOIN dim ON stream.k = dim.k";

fn place() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("in")).expect("made");
    dim(dir.path(), &["a", "b"]);
    add(dir.path(), "1", &[("a", 1)]);
    dir
}

fn dim(dir: &Path, keys: &[&str]) {
    let lines = keys.iter().map(|k| format!("{{\"k\":\"{k}\"}}\n"));
    fs::write(dir.join("dim.json"), lines.collect::<String>()).expect("written");
}

fn add(dir: &Path, name: &str, rows: &[(&str, i64)]) {
    let lines = rows
        .iter()
        .map(|(k, v)| format!("{{\"k\":\"{k}\",\"v\":{v}}}\n"));
    let path = dir.join("in").join(format!("{name}.json"));
    fs::write(path, lines.collect::<String>()).expect("written");
}

/// The rows of one run over all that is there, in order; the sink fails if `fails`.
fn run(dir: &Path, sql: &str, mode: OutputMode, fails: bool) -> Result<Vec<String>, Error> {
    let session = Session::with_workers(2)?;
    let stream = session.read_stream().format("json");
    let stream = stream.schema("k STRING, v BIGINT")?.path(dir.join("in"));
    stream.load()?.create_or_replace_temp_view("stream")?;
    let table = session.read().format("json").schema("k STRING")?;
    let table = table.path(dir.join("dim.json")).load()?;
    table.create_or_replace_temp_view("dim")?;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&seen);
    let writer = session.sql(sql)?.write_stream().output_mode(mode);
    let query = writer
        .option("checkpointLocation", dir.join("checkpoint").display())
        .trigger(Trigger::AvailableNow)
        .for_each_batch(move |rows: DataFrame, _| -> Result<(), Error> {
            for batch in rows.collect()? {
                for row in 0..batch.num_rows() {
                    let cell =
                        |column: &ArrayRef| array_value_to_string(column, row).expect("text");
                    let cells: Vec<String> = batch.columns().iter().map(cell).collect();
                    taken.lock().expect("not poisoned").push(cells.join(" "));
                }
            }
            match fails {
                true => session_ends(),
                false => Ok(()),
            }
        })
        .start()?;
    query.await_termination()?;
    let mut rows = std::mem::take(&mut *seen.lock().expect("not poisoned"));
    rows.sort();
    Ok(rows)
}

fn session_ends() -> Result<(), Error> {
    Err(Error::Refused {
        class: None,
        message: "the sink is full".into(),
    })
}

#[test]
fn static_rows_of_a_union_come_once_over_restarts() {
    let dir = place();
    let run = || run(dir.path(), UNION, OutputMode::Append, false).expect("a run");
    assert_eq!(run(), ["a 0", "a 1", "b 0"]);
    assert_eq!(run(), [""; 0]);
    add(dir.path(), "2", &[("b", 2)]);
    assert_eq!(run(), ["b 2"]);
}

#[test]
fn static_rows_without_a_partner_leave_when_they_find_one() {
    let dir = place();
    let run = || run(dir.path(), RIGHT, OutputMode::Changes, false).expect("a run");
    assert_eq!(run(), ["a 1 1", "b  1"]);
    add(dir.path(), "2", &[("b", 2), ("c", 3)]);
    assert_eq!(run(), ["b  -1", "b 2 1"]);
}

#[test]
fn rows_that_are_in_the_state_may_not_change() {
    let dir = place();
    let run = || run(dir.path(), RIGHT, OutputMode::Changes, false);
    run().expect("a run");
    dim(dir.path(), &["a", "c"]);
    let error = run().expect_err("another table").to_string();
    assert!(
        error.contains("the static rows that entered with its first epoch were"),
        "{error}"
    );
}

#[test]
fn an_epoch_runs_again_with_the_table_that_it_read_or_not_at_all() {
    let dir = place();
    let run = |fails| run(dir.path(), LOOKUP, OutputMode::Append, fails);
    run(true).expect_err("the sink fails");
    dim(dir.path(), &["a", "a"]);
    let error = run(false).expect_err("another table").to_string();
    assert!(error.contains("must be run again"), "{error}");
    dim(dir.path(), &["b", "a"]);
    assert_eq!(run(false).expect("the same rows"), ["a 1"]);
    // The next epoch reads what there is then.
    dim(dir.path(), &["a", "c"]);
    add(dir.path(), "2", &[("b", 2), ("c", 3)]);
    assert_eq!(run(false).expect("a run"), ["c 3"]);
}

#[test]
fn subqueries_over_tables_that_look_alike_are_told_apart() {
    let dir = tempfile::tempdir().expect("a directory");
    let session = Session::with_workers(1).expect("a session");
    for (name, rows) in [("a", "{\"x\":1}\n"), ("b", "{\"x\":2}\n{\"x\":5}\n")] {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).expect("made");
        std::fs::write(path.join("0.json"), rows).expect("written");
        let table = format!(
            "CREATE TABLE {name} (x BIGINT) USING json OPTIONS (path '{}')",
            path.display()
        );
        session.sql(&table).expect("a table");
    }
    let check = |sql: &str, expected: &[&str]| {
        assert_eq!(canonical(&rows_of(&session, sql)), expected, "{sql}");
    };
    check(
        "SELECT (SELECT max(x) FROM a), (SELECT max(x) FROM b), (SELECT max(x) FROM a)",
        &["1|5|1"],
    );
    check(
        "SELECT x FROM b WHERE x = (SELECT max(x) FROM a) OR x = (SELECT max(x) FROM b)",
        &["5"],
    );
    check(
        "SELECT a.x, b.x FROM a, b WHERE b.x > (SELECT min(x) FROM b)",
        &["1|5"],
    );
}
