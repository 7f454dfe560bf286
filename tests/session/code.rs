//! Sinks that are code of the program: `foreach` and `for_each_batch`.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use highwater::prelude::*;
use highwater::{CodeError, Error, ForeachWriter, MemorySource, Row};

use super::common::canonical;
use super::numbers;

fn stream() -> (Session, MemorySource, DataFrame) {
    stream_for(2)
}

fn stream_for(workers: usize) -> (Session, MemorySource, DataFrame) {
    let session = Session::with_workers(workers).expect("a session");
    let (rows, frame) = session.memory_stream("v BIGINT").expect("a stream");
    (session, rows, frame)
}

/// What happened, in order.
type Log = Arc<Mutex<Vec<String>>>;

fn log(log: &Log, text: impl Into<String>) {
    log.lock().expect("a log").push(text.into());
}

fn logged(log: &Log) -> Vec<String> {
    log.lock().expect("a log").clone()
}

fn soon(query: &StreamingQuery) -> Result<bool, Error> {
    query.await_termination_for(Duration::from_secs(20))
}

fn values(frame: &DataFrame) -> Result<String, Error> {
    Ok(canonical(&frame.collect()?).join(" "))
}

#[test]
fn every_epoch_comes_as_a_frame_with_its_number() {
    for mode in OutputMode::ALL {
        let (_session, rows, frame) = stream();
        let counted = frame.group_by(["v"]).and_then(|groups| groups.count());
        let wanted = match mode {
            OutputMode::Append => frame.clone(),
            _ => counted.expect("a query"),
        };
        let seen = Log::default();
        let mine = Arc::clone(&seen);
        let query = wanted
            .write_stream()
            .output_mode(mode)
            .for_each_batch(move |frame: DataFrame, epoch| {
                assert!(!frame.is_streaming());
                log(&mine, format!("{epoch}: {}", values(&frame)?));
                Ok::<_, Error>(())
            })
            .start()
            .expect("started");
        numbers(&rows, [1, 2]);
        query.process_all_available().expect("processed");
        numbers(&rows, [2, 3]);
        query.process_all_available().expect("processed");
        query.stop().expect("stopped");
        let expected = match mode {
            OutputMode::Append => ["0: 1 2", "1: 2 3"],
            OutputMode::Update => ["0: 1|1 2|1", "1: 2|2 3|1"],
            OutputMode::Complete => ["0: 1|1 2|1", "1: 1|1 2|2 3|1"],
            OutputMode::Changes => ["0: 1|1|1 2|1|1", "1: 2|1|-1 2|2|1 3|1|1"],
        };
        assert_eq!(logged(&seen), expected, "{mode}");
        assert_eq!(
            query.committed().rows,
            match mode {
                OutputMode::Complete | OutputMode::Changes => 5,
                OutputMode::Append | OutputMode::Update => 4,
            }
        );
    }
}

#[test]
fn an_answer_that_stays_is_no_change() {
    let (session, rows, frame) = stream();
    frame.create_or_replace_temp_view("t").expect("named");
    let counts = "SELECT v, count(*) AS n FROM t GROUP BY v";
    let sql =
        format!("SELECT n > 0 AS some, count(nullif(v, 2)) AS c FROM ({counts}) GROUP BY n > 0");
    let seen = Log::default();
    let mine = Arc::clone(&seen);
    let query = session.sql(&sql).expect("a query").write_stream();
    let query = query
        .output_mode(OutputMode::Changes)
        .for_each_batch(move |frame: DataFrame, epoch| {
            log(&mine, format!("{epoch}: {}", values(&frame)?));
            Ok::<_, Error>(())
        })
        .start()
        .expect("started");
    for more in [[1, 1], [2, 2], [1, 3]] {
        numbers(&rows, more);
        query.process_all_available().expect("processed");
    }
    query.stop().expect("stopped");
    let expected = ["0: true|1|1", "1: ", "2: true|1|-1 true|2|1"];
    assert_eq!(logged(&seen), expected);
}

#[test]
fn the_code_may_use_the_session() {
    let (session, rows, frame) = stream();
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().to_path_buf();
    let (other_rows, other) = session.memory_stream("v BIGINT").expect("a stream");
    let other = super::count(&other, "other");
    numbers(&other_rows, 0..7);
    let within = other.clone();
    let inner = session.clone();
    let seen = Log::default();
    let mine = Arc::clone(&seen);
    let query = frame
        .write_stream()
        .for_each_batch(move |frame: DataFrame, epoch| -> Result<(), CodeError> {
            frame.create_or_replace_temp_view("now")?;
            let path = out.join(epoch.to_string());
            frame.write().format("parquet").path(&path).save()?;
            let back = inner.read().format("parquet").path(&path).load()?;
            within.process_all_available()?;
            let joined = inner.sql("SELECT sum(v) AS s, first(n) AS n FROM now, other")?;
            log(&mine, format!("{} {}", back.count()?, values(&joined)?));
            // A whole query of its own.
            let (more, stream) = inner.memory_stream("v BIGINT")?;
            let query = super::count(&stream, "more");
            numbers(&more, 0..epoch as i64 + 1);
            query.process_all_available()?;
            query.stop()?;
            log(&mine, values(&inner.table("more")?)?);
            Ok(())
        })
        .start()
        .expect("started");
    numbers(&rows, [1, 2]);
    query.process_all_available().expect("processed");
    numbers(&rows, [3]);
    query.process_all_available().expect("processed");
    assert_eq!(logged(&seen), ["2 3|7", "1", "1 3|7", "2"]);
}

#[test]
fn code_that_fails_or_panics_ends_its_query_only() {
    let (_session, rows, frame) = stream();
    let other = super::count(&frame, "n");
    let failing = frame
        .write_stream()
        .query_name("failing")
        .for_each_batch(|_, _| Err::<(), _>("the disk is full"))
        .start()
        .expect("started");
    let panicking = frame
        .write_stream()
        .query_name("panicking")
        .for_each_batch(|frame: DataFrame, _| -> Result<(), Error> {
            panic!("{} rows are too many", frame.count()?)
        })
        .start()
        .expect("started");
    numbers(&rows, [1, 2]);
    for (query, expected) in [
        (
            failing,
            "the code of for_each_batch failed in epoch 0: the disk is full",
        ),
        (
            panicking,
            "the code of for_each_batch panicked in epoch 0: 2 rows are too many",
        ),
    ] {
        let error = soon(&query).expect_err("it failed").to_string();
        assert!(error.contains(expected), "{error}");
        let told = query.exception().expect("an exception").to_string();
        assert!(told.contains(expected), "{told}");
    }
    other.process_all_available().expect("it goes on");
}

#[test]
fn the_code_can_stop_its_query_and_cannot_wait_for_it() {
    let (session, rows, frame) = stream();
    let (hand, taken) = mpsc::channel::<StreamingQuery>();
    let seen = Log::default();
    let mine = Arc::clone(&seen);
    let query = frame
        .write_stream()
        .for_each_batch(move |_, epoch| -> Result<(), CodeError> {
            let query = taken.recv()?;
            for waits in [query.await_termination(), query.process_all_available()] {
                let error = waits.expect_err("it would wait for ever").to_string();
                assert!(
                    error.contains("goes on only when this code returns"),
                    "{error}"
                );
            }
            query.stop()?;
            log(&mine, format!("stopped in {epoch}"));
            Ok(())
        })
        .start()
        .expect("started");
    hand.send(query.clone()).expect("it waits");
    numbers(&rows, [1]);
    assert!(soon(&query).expect("no error"), "it ends");
    assert_eq!(logged(&seen), ["stopped in 0"]);

    // The last handle of a session may be let go of while its code runs.
    let (entered, inside) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let query = frame
        .write_stream()
        .for_each_batch(move |frame: DataFrame, _| -> Result<(), CodeError> {
            entered.send(())?;
            gone.recv()?;
            frame.count()?;
            Ok(())
        })
        .start()
        .expect("started");
    numbers(&rows, [2]);
    inside.recv().expect("the code runs");
    drop((session, frame, rows));
    go.send(()).expect("it waits");
    assert!(soon(&query).is_ok_and(|ended| ended));
}

/// Logs what it is told, and passes over epoch 1.
#[derive(Clone)]
struct Clerk {
    seen: Log,
    rows: usize,
}

impl ForeachWriter for Clerk {
    fn open(&mut self, partition: usize, epoch: u64) -> Result<bool, CodeError> {
        log(&self.seen, format!("open {partition} {epoch}"));
        Ok(epoch != 1)
    }

    fn process(&mut self, row: Row<'_>) -> Result<(), CodeError> {
        self.rows += 1;
        let value = row.integer("v")?.ok_or("a null")?;
        log(&self.seen, format!("{value} {:?}", row.text("t")?));
        if row.double("v")? == Some(9.0) {
            row.text("v")?;
        }
        Ok(())
    }

    fn close(&mut self, error: Option<&CodeError>) -> Result<(), CodeError> {
        let error = error.map(ToString::to_string).unwrap_or_default();
        log(&self.seen, format!("close {} {error}", self.rows));
        Ok(())
    }
}

#[test]
fn a_writer_of_rows_opens_and_closes_every_epoch() {
    let (_session, rows, frame) = stream_for(1);
    let seen = Log::default();
    let texts = frame.select_expr(["v", "if(v > 1, concat('t', v), null) AS t"]);
    let clerk = Clerk {
        seen: Arc::clone(&seen),
        rows: 0,
    };
    let query = texts.expect("a query").write_stream().foreach(clerk);
    let query = query.start().expect("started");
    for epoch in [vec![1, 2], vec![3], vec![9]] {
        numbers(&rows, epoch);
        let _ = query.process_all_available();
    }
    let error = soon(&query).expect_err("it failed").to_string();
    let expected = "the code of foreach failed in epoch 2: column \"v\" is BIGINT, not a STRING";
    assert!(error.contains(expected), "{error}");
    assert_eq!(
        logged(&seen),
        [
            "open 0 0",
            "1 None",
            "2 Some(\"t2\")",
            "close 2 ",
            "open 0 1",
            "close 0 ",
            "open 0 2",
            "9 Some(\"t9\")",
            "close 1 column \"v\" is BIGINT, not a STRING",
        ]
    );
}

/// Logs what happens where.
#[derive(Clone)]
struct Partitioned {
    seen: Log,
    at: (u64, usize),
    fails_on: Option<i64>,
}

impl ForeachWriter for Partitioned {
    fn open(&mut self, partition: usize, epoch: u64) -> Result<bool, CodeError> {
        self.at = (epoch, partition);
        log(&self.seen, format!("{epoch} {partition} open"));
        Ok(true)
    }

    fn process(&mut self, row: Row<'_>) -> Result<(), CodeError> {
        let value = row.integer("v")?.ok_or("a null")?;
        if self.fails_on == Some(value) {
            return Err(format!("{value} is too much").into());
        }
        let (epoch, partition) = self.at;
        log(&self.seen, format!("{epoch} {partition} {value}"));
        Ok(())
    }

    fn close(&mut self, error: Option<&CodeError>) -> Result<(), CodeError> {
        let (epoch, partition) = self.at;
        let error = error
            .map(|error| format!(" with {error}"))
            .unwrap_or_default();
        log(&self.seen, format!("{epoch} {partition} close{error}"));
        Ok(())
    }
}

#[test]
fn every_worker_has_a_writer_and_every_row_comes_once() {
    let (_session, rows, frame) = stream_for(3);
    let seen = Log::default();
    let writer = Partitioned {
        seen: Arc::clone(&seen),
        at: (0, 0),
        fails_on: None,
    };
    let query = frame
        .write_stream()
        .foreach(writer)
        .start()
        .expect("started");
    for round in 0..40 {
        // Several splits, which are spread over the workers.
        (0..5).for_each(|split| numbers(&rows, [round * 10 + split]));
        if round % 4 == 0 {
            query.process_all_available().expect("processed");
        }
    }
    query.process_all_available().expect("processed");
    let epochs = query.committed().epochs;
    assert_eq!(query.committed().rows, 200);
    query.stop().expect("stopped");
    let log = logged(&seen);
    let (mut values, mut busy) = (Vec::new(), std::collections::BTreeSet::new());
    for epoch in 0..epochs {
        for partition in 0..3 {
            let prefix = format!("{epoch} {partition} ");
            let mine = log.iter().filter_map(|line| line.strip_prefix(&prefix));
            let mine: Vec<&str> = mine.collect();
            let [open, between @ .., close] = mine.as_slice() else {
                panic!("epoch {epoch} of {partition}: {mine:?}")
            };
            assert_eq!((*open, *close), ("open", "close"), "{mine:?}");
            values.extend(
                between
                    .iter()
                    .map(|value| value.parse::<i64>().expect("a value")),
            );
            if !between.is_empty() {
                busy.insert(partition);
            }
        }
        // The next one begins when all have this one.
        let end = log
            .iter()
            .rposition(|line| line.starts_with(&format!("{epoch} ")));
        let next = log
            .iter()
            .position(|line| line.starts_with(&format!("{} ", epoch + 1)));
        assert!(next.is_none_or(|next| end < Some(next)), "{log:?}");
    }
    values.sort_unstable();
    let pushed = (0..40).flat_map(|round| (0..5).map(move |split| round * 10 + split));
    assert_eq!(values, pushed.collect::<Vec<_>>());
    assert_eq!(busy.len(), 3, "all workers write");
}

#[test]
fn a_writer_that_fails_on_one_worker_ends_the_query() {
    let (_session, rows, frame) = stream_for(3);
    let seen = Log::default();
    let writer = Partitioned {
        seen: Arc::clone(&seen),
        at: (0, 0),
        fails_on: Some(7),
    };
    let query = frame
        .write_stream()
        .foreach(writer)
        .start()
        .expect("started");
    numbers(&rows, [1]);
    query.process_all_available().expect("processed");
    (5..9).for_each(|value| numbers(&rows, [value]));
    let error = soon(&query).expect_err("it failed").to_string();
    let expected = "the code of foreach failed in epoch ";
    assert!(
        error.contains(expected) && error.contains(": 7 is too much"),
        "{error}"
    );
    let closed = logged(&seen);
    assert!(
        closed
            .iter()
            .any(|line| line.ends_with("close with 7 is too much")),
        "{closed:?}"
    );
    assert!(
        (1..=3).contains(&query.committed().rows),
        "what came before is committed"
    );
}

#[test]
fn columns_of_one_name_reach_the_code() {
    let (_session, rows, frame) = stream();
    let seen = Log::default();
    let mine = Arc::clone(&seen);
    let twice = frame
        .select_expr(["v AS x", "v + 10 AS x", "v AS y"])
        .expect("a query");
    let query = twice
        .write_stream()
        .for_each_batch(move |frame: DataFrame, _| -> Result<(), CodeError> {
            log(
                &mine,
                format!("{} {}", frame.schema_text(), values(&frame)?),
            );
            log(&mine, values(&frame.select(["y"])?)?);
            let error = frame.select(["x"]).map(|_| ()).expect_err("refused");
            log(&mine, error.class().unwrap_or_default());
            Ok(())
        })
        .start()
        .expect("started");
    numbers(&rows, [1, 2]);
    query.process_all_available().expect("processed");
    let seen = logged(&seen);
    assert!(seen[0].ends_with(" 1|11|1 2|12|2"), "{seen:?}");
    assert_eq!(seen[1..], ["1 2", "AMBIGUOUS_REFERENCE"]);
}

#[test]
fn an_epoch_that_failed_comes_again_with_its_number_and_rows() {
    let dir = tempfile::tempdir().expect("a directory");
    let input = dir.path().join("in");
    std::fs::create_dir(&input).expect("a directory");
    for file in 0..4 {
        std::fs::write(input.join(format!("{file}")), format!("a{file}\nb{file}\n"))
            .expect("written");
    }
    let run = |fails_in: Option<u64>| {
        let session = Session::with_workers(2).expect("a session");
        let lines = session.read_stream().format("text").path(&input);
        let lines = lines
            .option("maxFilesPerTrigger", 1)
            .load()
            .expect("a stream");
        let seen = Log::default();
        let mine = Arc::clone(&seen);
        let query = lines
            .write_stream()
            .trigger(Trigger::AvailableNow)
            .option("checkpointLocation", dir.path().join("state").display())
            .for_each_batch(move |frame: DataFrame, epoch| -> Result<(), CodeError> {
                log(&mine, format!("{epoch}: {}", values(&frame)?));
                match fails_in == Some(epoch) {
                    true => Err("not yet".into()),
                    false => Ok(()),
                }
            })
            .start()
            .expect("started");
        (soon(&query).is_ok(), logged(&seen))
    };
    let (first_ended, first) = run(Some(2));
    assert!(!first_ended);
    let (second_ended, second) = run(None);
    assert!(second_ended);
    assert_eq!(first.len(), 3, "{first:?}");
    // Epochs that were handed over may come again; the failed one must. The same number, the same rows.
    let at = first.iter().position(|line| *line == second[0]);
    let at = at.unwrap_or_else(|| panic!("{second:?} goes on from {first:?}"));
    assert_eq!(second[..first.len() - at], first[at..]);
    let mut all = [&first[..at], &second[..]].concat();
    all.sort();
    assert_eq!(all, ["0: a0 b0", "1: a1 b1", "2: a2 b2", "3: a3 b3"]);
}

#[test]
fn a_memory_table_is_not_recovered_unless_it_is_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("a"), "x\ny\nx\n").expect("written");
    let start = |mode: OutputMode| {
        let session = Session::with_workers(2).expect("a session");
        let lines = session
            .read_stream()
            .format("text")
            .path(dir.path().join("a"));
        let lines = lines.load().expect("a stream");
        let lines = match mode {
            OutputMode::Append => Ok(lines),
            _ => lines.group_by(["value"]).and_then(|groups| groups.count()),
        };
        let query = lines
            .expect("a query")
            .write_stream()
            .output_mode(mode)
            .trigger(Trigger::AvailableNow)
            .option(
                "checkpointLocation",
                dir.path().join(format!("state-{mode}")).display(),
            )
            .format("memory")
            .query_name("seen")
            .start()?;
        query.await_termination()?;
        values(&session.table("seen")?)
    };
    assert_eq!(start(OutputMode::Append).expect("a first run"), "x x y");
    assert_eq!(start(OutputMode::Update).expect("a first run"), "x|2 y|1");
    assert_eq!(start(OutputMode::Complete).expect("a first run"), "x|2 y|1");
    for mode in [OutputMode::Append, OutputMode::Update] {
        let error = start(mode).expect_err("refused");
        assert_eq!(
            error.class().as_deref(),
            Some("_LEGACY_ERROR_TEMP_1299"),
            "{error}"
        );
    }
    start(OutputMode::Complete).expect("a table that is replaced goes on");
}

#[test]
fn a_session_dropped_while_epochs_wait_for_code_ends_its_query() {
    let dir = tempfile::tempdir().expect("a directory");
    let input = dir.path().join("in");
    std::fs::create_dir(&input).expect("made");
    for file in 0..20 {
        std::fs::write(input.join(format!("{file}")), "row\n").expect("written");
    }
    let start = |session: &Session, code: Box<dyn Fn() + Send>| {
        let lines = session.read_stream().format("text");
        let lines = lines.option("maxFilesPerTrigger", 1).path(&input);
        let writer = lines.load().expect("a stream").write_stream();
        writer
            .option("checkpointLocation", dir.path().join("ck").display())
            .for_each_batch(move |_: DataFrame, _| {
                code();
                Ok::<_, Error>(())
            })
            .start()
    };
    let session = Session::with_workers(2).expect("a session");
    let (began, begins) = mpsc::channel();
    let slow = Box::new(move || {
        let _ = began.send(());
        std::thread::sleep(Duration::from_millis(50));
    });
    let query = start(&session, slow).expect("started");
    begins.recv().expect("an epoch");
    drop((query, session));
    let session = Session::with_workers(1).expect("a session");
    let begun = std::time::Instant::now();
    // The lock of the checkpoint is free when the query before has ended.
    let again = loop {
        match start(&session, Box::new(|| ())) {
            Ok(query) => break query,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    std::fs::write(input.join("later"), "row\n").expect("written");
    again.process_all_available().expect("processed");
    again.stop().expect("stopped");
}
