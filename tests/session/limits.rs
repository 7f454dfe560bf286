//! LIMIT without ORDER BY over rows that come for good: the first to come, in the order of the source.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use highwater::{DataFrame, Error, OutputMode, Session, Trigger};

use super::common::canonical;

/// What each epoch gives, where every epoch reads two files of fifty rows, whose numbers fall.
fn epochs(dir: &Path, workers: usize, sql: &str, mode: OutputMode) -> Vec<Vec<String>> {
    let run = || -> Result<Vec<Vec<String>>, Error> {
        let session = Session::with_workers(workers)?;
        let rows = session.read_stream().format("json").schema("v BIGINT")?;
        let rows = rows.option("maxFilesPerTrigger", "2");
        let rows = rows.path(dir.join("rows")).load()?;
        rows.create_or_replace_temp_view("t")?;
        let given = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&given);
        let writer = session.sql(sql)?.write_stream().output_mode(mode);
        let checkpoint = dir.join(format!("{workers}-{mode:?}"));
        let query = writer
            .option("checkpointLocation", checkpoint.display())
            .trigger(Trigger::AvailableNow)
            .for_each_batch(move |rows: DataFrame, _| -> Result<(), Error> {
                let rows = canonical(&rows.collect()?);
                taken.lock().expect("not poisoned").push(rows);
                Ok(())
            })
            .start()?;
        query.await_termination()?;
        Ok(std::mem::take(&mut *given.lock().expect("not poisoned")))
    };
    run().unwrap_or_else(|error| panic!("{sql} with {workers} workers: {error:?}"))
}

#[test]
fn the_first_rows_to_come_stay_the_first_for_any_number_of_workers() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("rows")).expect("made");
    for file in 0..4 {
        let lines = (0..50).map(|line| format!("{{\"v\":{}}}\n", 1000 - file * 50 - line));
        let path = dir.path().join(format!("rows/{file}.json"));
        fs::write(path, lines.collect::<String>()).expect("written");
    }
    // Of 1000 down to 801 those after the first 30, 120 of them: 970 down to 851.
    let sum = |from: i64, to: i64| (to..=from).sum::<i64>();
    for workers in [1, 2, 4] {
        let counted =
            "SELECT count(*) AS n, sum(v) AS s FROM (SELECT v FROM t LIMIT 120 OFFSET 30)";
        let expected = [
            vec![format!("70|{}", sum(970, 901))],
            vec![format!("120|{}", sum(970, 851))],
        ];
        let given = epochs(dir.path(), workers, counted, OutputMode::Complete);
        assert_eq!(given, expected, "{workers} workers");

        let shown = "SELECT v FROM t LIMIT 120 OFFSET 30";
        let come = |from: i64, to: i64| {
            let rows = (to..=from).map(|v| format!("{v}|1"));
            rows.collect::<Vec<String>>()
        };
        let given = epochs(dir.path(), workers, shown, OutputMode::Changes);
        assert_eq!(given, [come(970, 901), come(900, 851)], "{workers} workers");
    }
}
