//! One case: a random query over random files, with restarts and failures on the way, judged after every step.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use datafusion::arrow::record_batch::RecordBatch;
use highwater::{DataFrame, Error, OutputMode, Session, StreamingQuery};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::common::{accumulated, canonical, lines, rows_of};
use crate::query::{ARMS, Batch, InTime, Query};
use crate::reference::Clock;
use crate::rows::{Row, SCHEMA, as_batch, as_json, random_rows, text_of, with_windows};

/// How a case ended that did not panic.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Right,
    /// Not built.
    Refused(String),
}

/// What the sink was given, by epoch, and when it shall fail.
#[derive(Default)]
struct Taken {
    epochs: BTreeMap<u64, Vec<RecordBatch>>,
    /// Calls until one fails, and whether it takes its rows before.
    fails_in: Option<(u32, bool)>,
    failed: u32,
}

impl Taken {
    fn take(&mut self, epoch: u64, rows: Vec<RecordBatch>) -> Result<(), Error> {
        let fails = match &mut self.fails_in {
            Some((0, _)) => self.fails_in.take(),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        self.failed += u32::from(fails.is_some());
        let failed = |_| {
            Err(Error::Run {
                message: "the sink was told to fail".into(),
            })
        };
        if let Some((_, false)) = fails {
            return failed(());
        }
        if let Some(before) = self.epochs.get(&epoch) {
            let (before, now) = (canonical(before), canonical(&rows));
            assert_eq!(before, now, "epoch {epoch} came again with other rows");
        }
        self.epochs.insert(epoch, rows);
        match fails {
            Some(_) => failed(()),
            None => Ok(()),
        }
    }

    fn answer(&self, query: &Query) -> Vec<String> {
        match query.mode {
            OutputMode::Complete => {
                let last = self.epochs.values().next_back();
                text_of_rows(query, last.map_or(&[][..], |rows| rows))
            }
            mode => {
                let all: Vec<RecordBatch> = self.epochs.values().flatten().cloned().collect();
                accumulated(&all, mode, query.keys)
            }
        }
    }
}

/// The arm that a seed is of.
pub(crate) fn arm_of(seed: u64) -> usize {
    (seed % ARMS.len() as u64) as usize
}

pub(crate) struct Case {
    seed: u64,
    random: StdRng,
    pub(crate) arm: &'static str,
    query: Query,
    /// Every file is an epoch of its own.
    one_by_one: bool,
    /// All files so far: of `t`, and of `u`.
    files: [Vec<Vec<Row>>; 2],
    /// Rows in time, with their windows if the query has some.
    in_time: Vec<(Row, i64, i64)>,
    clock: Option<Clock>,
    taken: Arc<Mutex<Taken>>,
}

const DIM: &str = "SELECT * FROM VALUES ('k0', 1L), ('k1', 5L), ('k2', 5L), ('k2', -3L), ('K3', 2L), (NULL, 7L) AS d(k, rate)";

impl Case {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let (arm, make) = ARMS[arm_of(seed)];
        let query = make(&mut random);
        let clock = match &query.batch {
            Batch::InTime(rule) => Some(Clock::new(
                rule.delay_us,
                query.mode != OutputMode::Complete,
            )),
            Batch::Same | Batch::As(_) | Batch::Model(_) => None,
        };
        let fails_in = random
            .random_bool(0.4)
            .then(|| (random.random_range(0..6), random.random_bool(0.5)));
        let taken = Taken {
            fails_in,
            ..Taken::default()
        };
        Case {
            seed,
            one_by_one: random.random_bool(0.4),
            random,
            arm,
            query,
            files: [Vec::new(), Vec::new()],
            in_time: Vec::new(),
            clock,
            taken: Arc::new(Mutex::new(taken)),
        }
    }

    pub(crate) fn about(&self) -> String {
        let Query { sql, mode, .. } = &self.query;
        format!(
            "HIGHWATER_ORACLE_SEED={} ({}, {mode})\n{sql}",
            self.seed, self.arm
        )
    }

    /// Runs it; panics where an answer is wrong.
    pub(crate) fn run(mut self) -> Outcome {
        let dir = tempfile::tempdir().expect("a directory");
        for stream in ["t", "u"] {
            fs::create_dir(dir.path().join(stream)).expect("made");
        }
        let reference = Session::new().expect("a session");
        dim(&reference);
        let mut running: Option<(Session, StreamingQuery)> = None;
        let mut minute = 0;
        for step in 0..self.random.random_range(2..6) {
            if let Some((session, query)) = running.take() {
                match self.random.random_range(0..4) {
                    0 => query.stop().expect("stopped"),
                    1 => drop((query, session)),
                    _ => running = Some((session, query)),
                }
            }
            if let Some((_, query)) = &running {
                query.pause();
            }
            self.land(dir.path(), step == 0, &mut minute);
            loop {
                let (session, query) = match running.take() {
                    Some(running) => running,
                    None => match self.start(dir.path()) {
                        Ok(running) => running,
                        Err(error) if is_not_built(&error) => {
                            return Outcome::Refused(error.to_string());
                        }
                        Err(error) => panic!("it did not start: {error}"),
                    },
                };
                query.resume();
                let failures = self.taken.lock().expect("no panic").failed;
                match query.process_all_available() {
                    Ok(()) => {
                        running = Some((session, query));
                        break;
                    }
                    Err(error) => {
                        let told = self.taken.lock().expect("no panic").failed;
                        let by_us = error.to_string().contains("told to fail");
                        assert!(
                            by_us && told <= 1 && failures <= told,
                            "step {step}: {error}"
                        );
                    }
                }
            }
            self.judge(&reference, step);
        }
        if let Some((_, query)) = running {
            query.stop().expect("stopped");
        }
        Outcome::Right
    }

    /// Some files for each stream, and what they mean for rows in time.
    fn land(&mut self, dir: &Path, first: bool, minute: &mut i64) {
        let before = [self.files[0].len(), self.files[1].len()];
        for (index, stream) in ["t", "u"].into_iter().enumerate() {
            let count = self.random.random_range(0..3).max(usize::from(first));
            let mut new = Vec::new();
            for _ in 0..count {
                *minute += self.random.random_range(0..4);
                new.push(random_rows(&mut self.random, *minute, self.query.rows_max));
            }
            for rows in &new {
                let number = self.files[index].len();
                let hidden = dir.join(stream).join(format!(".{number}"));
                fs::write(&hidden, as_json(rows)).expect("written");
                let name = dir.join(stream).join(format!("{number:04}.json"));
                fs::rename(&hidden, name).expect("renamed");
                self.files[index].push(rows.clone());
            }
            if index == 0 && !new.is_empty() {
                match self.one_by_one {
                    true => new.iter().for_each(|rows| self.epoch(rows)),
                    false => self.epoch(&new.concat()),
                }
            }
        }
        if let Some(clock) = &mut self.clock {
            clock.idle();
        }
        self.play(before);
    }

    /// The epochs over the files after the first `before` of each stream, as the model sees them.
    fn play(&mut self, before: [usize; 2]) {
        let (mode, one_by_one) = (self.query.mode, self.one_by_one);
        let Batch::Model(model) = &mut self.query.batch else {
            return;
        };
        let reads = model.reads();
        let new = [0, 1].map(|stream| match reads.contains(&stream) {
            true => &self.files[stream][before[stream]..],
            false => &[],
        });
        let files = new[0].len().max(new[1].len());
        let epochs = if one_by_one { files } else { files.min(1) };
        for epoch in 0..epochs {
            let rows = new.map(|files| match one_by_one {
                true => files.get(epoch).cloned().unwrap_or_default(),
                false => files.concat(),
            });
            model.epoch(&rows, mode);
        }
        if epochs > 0 {
            model.idle(mode);
        }
    }

    /// An epoch over `rows`, as the reference sees it.
    fn epoch(&mut self, rows: &[Row]) {
        let (Some(clock), Batch::InTime(rule)) = (&mut self.clock, &self.query.batch) else {
            return;
        };
        let fits = |row: &&Row| {
            rule.above
                .is_none_or(|least| row.v.is_some_and(|v| v > least))
        };
        let rows: Vec<Row> = rows.iter().filter(fits).cloned().collect();
        let judges = clock.epoch(&rows);
        // In complete mode nothing is late.
        let in_time = |end: i64| self.query.mode == OutputMode::Complete || end > judges;
        for row in rows {
            match (rule.grid, row.ts) {
                (Some(_), None) => {}
                (Some(grid), Some(ts)) => {
                    let windows = grid
                        .windows(ts)
                        .into_iter()
                        .filter(|(_, end)| in_time(*end));
                    self.in_time
                        .extend(windows.map(|(start, end)| (row.clone(), start, end)));
                }
                (None, ts) if ts.is_none_or(in_time) => self.in_time.push((row, 0, 0)),
                (None, _) => {}
            }
        }
    }

    fn start(&mut self, dir: &Path) -> Result<(Session, StreamingQuery), Error> {
        let workers = [1, 2, 4][self.random.random_range(0..3)];
        let session = Session::with_workers(workers).expect("a session");
        dim(&session);
        for stream in ["t", "u"] {
            let mut reader = session.read_stream().format("json").schema(SCHEMA)?;
            if self.one_by_one {
                reader = reader.option("maxFilesPerTrigger", 1);
            }
            let frame = reader.path(dir.join(stream)).load()?;
            frame.create_or_replace_temp_view(stream)?;
        }
        if let Batch::Model(model) = &self.query.batch {
            let policy = if model.takes_latest() { "max" } else { "min" };
            let key = "spark.sql.streaming.multipleWatermarkPolicy";
            session.sql(&format!("SET {key} = {policy}"))?;
        }
        for view in &self.query.views {
            let frame = session.sql(&view.sql)?;
            let firsts = match view.within {
                true => frame.drop_duplicates_within_watermark(&view.keys)?,
                false => frame.drop_duplicates(&view.keys)?,
            };
            firsts.create_or_replace_temp_view(&view.name)?;
        }
        let taken = Arc::clone(&self.taken);
        let writer = session
            .sql(&self.query.sql)?
            .write_stream()
            .output_mode(self.query.mode)
            .option("checkpointLocation", dir.join("checkpoint").display());
        let query = writer
            .for_each_batch(move |rows: DataFrame, epoch| -> Result<(), Error> {
                taken.lock().expect("no panic").take(epoch, rows.collect()?)
            })
            .start()?;
        Ok((session, query))
    }

    /// What was emitted so far adds up to the batch answer.
    fn judge(&self, reference: &Session, step: usize) {
        for (name, files) in ["t", "u"].into_iter().zip(&self.files) {
            let batch = as_batch(&files.concat());
            view(reference, name, batch);
        }
        let expected = match &self.query.batch {
            same @ (Batch::Same | Batch::As(_)) => {
                let text = match same {
                    Batch::As(text) => text,
                    _ => &self.query.sql,
                };
                let rows = rows_of(reference, text);
                match self.query.mode {
                    OutputMode::Complete => text_of_rows(&self.query, &rows),
                    _ => canonical(&rows),
                }
            }
            Batch::InTime(rule) => self.in_time_answer(reference, rule),
            Batch::Model(model) => model.answer(self.query.mode),
        };
        let taken = self.taken.lock().expect("no panic");
        assert_eq!(taken.answer(&self.query), expected, "step {step}");
    }

    fn in_time_answer(&self, reference: &Session, rule: &InTime) -> Vec<String> {
        view(reference, "p", with_windows(&self.in_time));
        let clock = self.clock.as_ref().expect("it has a watermark");
        let cut = match self.query.mode {
            OutputMode::Append => {
                let now = text_of(clock.now_us, "%Y-%m-%d %H:%M:%S%.6f");
                format!("{} <= TIMESTAMP '{now}'", rule.ends)
            }
            _ => "true".to_string(),
        };
        canonical(&rows_of(reference, &rule.sql.replace("{final}", &cut)))
    }
}

/// Rows in their order if the query gives them one.
fn text_of_rows(query: &Query, rows: &[RecordBatch]) -> Vec<String> {
    let last = query.sql.rsplit(')').next();
    match last.is_some_and(|last| last.contains(" ORDER BY ")) {
        true => lines(rows),
        false => canonical(rows),
    }
}

fn dim(session: &Session) {
    let frame = session.sql(DIM).expect("a static query");
    frame.create_or_replace_temp_view("dim").expect("a view");
}

fn view(session: &Session, name: &str, batch: RecordBatch) {
    let frame = session.create_dataframe(batch.schema(), vec![batch]);
    let made = frame.and_then(|frame| frame.create_or_replace_temp_view(name));
    made.expect("a view");
}

fn is_not_built(error: &Error) -> bool {
    let text = error.to_string();
    let refusals = [
        "not supported yet",
        "Detected pattern of possible",
        "Streaming query is not allowed in subquery expressions",
    ];
    refusals.iter().any(|refusal| text.contains(refusal))
}
