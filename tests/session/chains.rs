//! Update mode over an aggregation without keys: its one row always has a successor, so whatever it is made of may leave.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use highwater::{DataFrame, Error, OutputMode, Session, Trigger};

use super::common::canonical;

const CHAINS: &[&str] = &[
    "SELECT sum(n) AS t FROM (SELECT k, count(*) AS n FROM l GROUP BY k HAVING count(*) < 2)",
    "SELECT count(*) AS t FROM (SELECT k FROM l EXCEPT SELECT k FROM r)",
    "SELECT count(*) AS t, min(k) AS m FROM (SELECT k FROM l INTERSECT SELECT k FROM r)",
    "SELECT count(*) AS t FROM l WHERE k NOT IN (SELECT k FROM r WHERE k IS NOT NULL)",
    "SELECT count(l.k) AS t, count(r.k) AS u FROM l FULL JOIN r ON l.k = r.k",
];

fn add(dir: &Path, name: &str, rows: &[(&str, i64)]) {
    let lines = rows
        .iter()
        .map(|(k, v)| format!("{{\"k\":\"{k}\",\"v\":{v}}}\n"));
    fs::write(dir.join(name), lines.collect::<String>()).expect("written");
}

/// A session in which `l` and `r` are the rows of these directories.
fn session(dir: &Path, streaming: bool) -> Result<Session, Error> {
    let session = Session::with_workers(2)?;
    for name in ["l", "r"] {
        let reader = match streaming {
            true => session.read_stream(),
            false => session.read(),
        };
        let reader = reader.format("json").schema("k STRING, v BIGINT")?;
        let frame = reader.path(dir.join(name)).load()?;
        frame.create_or_replace_temp_view(name)?;
    }
    Ok(session)
}

/// The last row that update mode has for what is new.
fn newest(dir: &Path, sql: &str) -> Result<Option<String>, Error> {
    let seen = Arc::new(Mutex::new(None));
    let taken = Arc::clone(&seen);
    let session = session(dir, true)?;
    let writer = session.sql(sql)?.write_stream();
    let query = writer
        .output_mode(OutputMode::Update)
        .option("checkpointLocation", dir.join("checkpoint").display())
        .trigger(Trigger::AvailableNow)
        .for_each_batch(move |rows: DataFrame, _| -> Result<(), Error> {
            if let Some(row) = canonical(&rows.collect()?).into_iter().next() {
                *taken.lock().expect("not poisoned") = Some(row);
            }
            Ok(())
        })
        .start()?;
    query.await_termination()?;
    let newest = seen.lock().expect("not poisoned").take();
    Ok(newest)
}

#[test]
fn one_row_of_rows_that_leave_is_the_batch_answer_after_every_epoch() {
    for sql in CHAINS {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["l", "r"] {
            fs::create_dir(dir.path().join(name)).expect("made");
        }
        let files: [(&str, &[(&str, i64)]); 4] = [
            ("l", &[("a", 1), ("b", 5), ("c", 2)]),
            ("r", &[("b", 1), ("d", 1)]),
            ("l", &[("a", 9), ("d", 4)]),
            ("r", &[("a", 1), ("c", 7)]),
        ];
        let mut last = None;
        for (nth, (name, rows)) in files.into_iter().enumerate() {
            add(&dir.path().join(name), &format!("{nth}.json"), rows);
            let row = newest(dir.path(), sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            last = row.or(last);
            let batch = session(dir.path(), false).expect("a session");
            let expected = batch.sql(sql).and_then(|frame| frame.collect());
            let expected = canonical(&expected.expect("an answer"));
            assert_eq!(last.as_ref(), expected.first(), "{sql} after file {nth}");
        }
    }
}
