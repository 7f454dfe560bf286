//! One case: a random query over random files, with restarts, failures and crashes on the way, judged epoch by epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use datafusion::arrow::record_batch::RecordBatch;
use highwater::{DataFrame, Error, OutputMode, Session, StreamingQuery};
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::common::{lines, rows_of};
use crate::pairs::{self, Pair};
use crate::prefix::{Asked, How};
use crate::program;
use crate::query::{ARMS, Batch, InTime, Query};
use crate::reference::Clock;
use crate::rows::{Row, SCHEMA, as_batch, as_json, few_values, random_rows, text_of, with_windows};
use crate::store::Mount;
use crate::taken::{TOLD, Taken, in_order};

/// How a case ended that did not panic.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Right,
    /// With the class of the refusal, if it has one, and what it says.
    Refused(Option<String>, String),
}

/// The arm that a seed is of.
pub(crate) fn arm_of(seed: u64) -> usize {
    (seed % ARMS.len() as u64) as usize
}

/// Where the checkpoint is, and so how the query can die.
enum Place {
    /// In a directory: it is stopped or dropped.
    Directory,
    /// In a store: it dies at any write.
    Objects(Arc<InMemory>),
    /// In a directory, and the query in a program that is killed.
    Program,
}

/// What the answer after an epoch is made of.
enum Expected {
    /// So many files of each stream.
    Files([usize; 2]),
    /// So many rows in time, and the watermark.
    InTime(usize, i64),
    Prefix(Asked),
    Lines(Vec<String>),
}

/// What is expected of a query over rows in time, and what joins the rows that were seen.
struct Prefixed {
    expected: Vec<String>,
    new: Vec<String>,
}

pub(crate) struct Running {
    session: Session,
    query: StreamingQuery,
    mount: Option<Arc<Mount>>,
}

impl Running {
    fn is_dead(&self) -> bool {
        self.mount.as_ref().is_some_and(|mount| mount.is_dead())
    }

    fn stop(self) {
        if let Err(error) = self.query.stop() {
            assert!(self.is_dead(), "it did not stop: {error}");
        }
    }

    /// As a power cut would end it.
    fn die(self) {
        if let Some(mount) = &self.mount {
            mount.die();
        }
        drop((self.query, self.session));
    }
}

pub(crate) struct Case {
    seed: u64,
    /// What is asked and of which rows: the same in every run.
    random: StdRng,
    /// What happens on the way, and how often depends on the moment of a crash.
    fate: StdRng,
    pub(crate) arm: &'static str,
    query: Query,
    /// Every file is an epoch of its own.
    one_by_one: bool,
    place: Place,
    /// What was mounted last.
    mount: Option<Arc<Mount>>,
    /// Bytes of state that stay in memory.
    memory: &'static str,
    /// Crashes so far.
    pub(crate) crashes: u32,
    /// All files so far: of `t`, and of `u`.
    files: [Vec<Vec<Row>>; 2],
    /// Rows in time, with their windows if the query has some.
    in_time: Vec<(Row, i64, i64)>,
    clock: Option<Clock>,
    expected: Vec<Expected>,
    judged: usize,
    /// Rows that earlier answers had.
    seen: BTreeSet<String>,
    taken: Arc<Mutex<Taken>>,
}

/// How a start is refused while another session has the checkpoint.
const HELD: &str = "CONCURRENT_STREAM_LOG_UPDATE";

const DIM: &str = "SELECT * FROM VALUES ('k0', 1L), ('k1', 5L), ('k2', 5L), ('k2', -3L), ('K3', 2L), (NULL, 7L) AS d(k, rate)";

impl Case {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let (arm, make) = ARMS[arm_of(seed)];
        let query = make(&mut random);
        let place = match random.random_range(0..40) {
            // A program tells of a refusal only by its end.
            0 if arm != "layers" => Place::Program,
            1..8 => Place::Directory,
            _ => Place::Objects(Arc::default()),
        };
        Case::of(seed, random, arm, query, place)
    }

    /// A pair of operators; what happens to it is random.
    pub(crate) fn of_pair(seed: u64, pair: Pair) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let place = Place::Objects(Arc::default());
        Case::of(seed, random, "pairs", pairs::query(pair), place)
    }

    fn of(seed: u64, mut random: StdRng, arm: &'static str, query: Query, place: Place) -> Self {
        let clock = match &query.batch {
            Batch::InTime(rule) => Some(Clock::new(
                rule.delay_us,
                query.mode != OutputMode::Complete,
            )),
            Batch::Same | Batch::As(_) | Batch::Model(_) | Batch::Prefix(_) => None,
        };
        let fails = random.random_bool(0.3) && !matches!(place, Place::Program);
        let fails_in = fails.then(|| (random.random_range(0..6), random.random_bool(0.5)));
        let taken = Taken {
            fails_in,
            ..Taken::default()
        };
        Case {
            seed,
            one_by_one: random.random_bool(0.4),
            memory: ["40%", "40%", "40%", "20k"][random.random_range(0..4)],
            random,
            fate: StdRng::seed_from_u64(!seed),
            arm,
            query,
            place,
            mount: None,
            crashes: 0,
            files: [Vec::new(), Vec::new()],
            in_time: Vec::new(),
            clock,
            expected: Vec::new(),
            judged: 0,
            seen: BTreeSet::new(),
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
    pub(crate) fn run(&mut self) -> Outcome {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        for stream in ["t", "u"] {
            fs::create_dir(dir.join(stream)).expect("made");
        }
        let reference = Session::new().expect("a session");
        dim(&reference);
        let mut running = None;
        let mut minute = 0;
        for step in 0..self.random.random_range(2..6) {
            running = running.and_then(|running| self.between(running));
            if let Some(Running { query, .. }) = &running {
                query.pause();
            }
            self.land(dir, step == 0, &mut minute);
            let outcome = match self.place {
                Place::Program => program::run(dir, self.seed, &mut self.fate, &self.taken),
                _ => self.until_idle(dir, running.take()),
            };
            match outcome {
                Ok((left, crashes)) => {
                    running = left;
                    self.crashes += crashes;
                }
                Err(error) if is_refused(&error) && step == 0 => {
                    return Outcome::Refused(error.class(), error.to_string());
                }
                Err(error) => panic!("step {step}: {error}"),
            }
            self.idled();
            self.judge(&reference, step);
        }
        if let Some(running) = running {
            running.stop();
        }
        Outcome::Right
    }

    /// What may happen to a query while nothing else does.
    fn between(&mut self, running: Running) -> Option<Running> {
        match self.fate.random_range(0..6) {
            0 => running.stop(),
            1 => drop((running.query, running.session)),
            2 if running.mount.is_some() => {
                running.die();
                self.crashes += 1;
            }
            3 => {
                self.arm(&running);
                return Some(running);
            }
            _ => return Some(running),
        }
        None
    }

    /// Lets it die at one of its next writes, if it can.
    fn arm(&mut self, running: &Running) {
        let (writes, done) = (self.fate.random_range(0..14), self.fate.random_bool(0.5));
        if let Some(mount) = &running.mount {
            mount.die_in(writes, done);
        }
    }

    /// Starts the query, again after each crash, until it has taken in all there is; how often it crashed.
    fn until_idle(
        &mut self,
        dir: &Path,
        mut running: Option<Running>,
    ) -> Result<(Option<Running>, u32), Error> {
        let (mut crashes, mut waits) = (0, 0);
        loop {
            let now = match running.take() {
                Some(running) => running,
                None => match self.start(dir) {
                    Ok(running) => running,
                    Err(_) if self.mount.take().is_some_and(|mount| mount.is_dead()) => {
                        crashes += 1;
                        continue;
                    }
                    // A session that was dropped ends a moment later: its sink may still hold it.
                    Err(error) if error.to_string().contains(HELD) && waits < 500 => {
                        waits += 1;
                        std::thread::sleep(Duration::from_millis(10));
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            now.query.resume();
            let failed = self.taken.lock().expect("no panic").failed;
            match now.query.process_all_available() {
                Ok(()) => return Ok((Some(now), crashes)),
                Err(_) if now.is_dead() => {
                    crashes += 1;
                    now.die();
                }
                Err(error) => {
                    let told = self.taken.lock().expect("no panic").failed;
                    let by_us = error.to_string().contains(TOLD);
                    if !by_us || told > 1 || failed > told {
                        return Err(error);
                    }
                    // It has told us before it is over.
                    let _ = now.query.stop();
                }
            }
        }
    }

    /// Some files for each stream, and what they mean for the answer.
    fn land(&mut self, dir: &Path, first: bool, minute: &mut i64) {
        let before = [self.files[0].len(), self.files[1].len()];
        for (index, stream) in ["t", "u"].into_iter().enumerate() {
            let count = self.random.random_range(0..3).max(usize::from(first));
            for _ in 0..count {
                *minute += self.random.random_range(0..4);
                let make = match self.query.few_values {
                    true => few_values,
                    false => random_rows,
                };
                let rows = make(&mut self.random, *minute, self.query.rows_max);
                let number = self.files[index].len();
                let hidden = dir.join(stream).join(format!(".{number}"));
                fs::write(&hidden, as_json(&rows)).expect("written");
                let name = dir.join(stream).join(format!("{number:04}.json"));
                fs::rename(&hidden, name).expect("renamed");
                self.files[index].push(rows);
            }
        }
        self.expect(before);
    }

    /// The epochs over the files after the first `before` of each stream: what the answer is after each.
    fn expect(&mut self, before: [usize; 2]) {
        let (mode, reads) = (self.query.mode, self.query.reads());
        let new = [0, 1].map(|stream| match reads[stream] {
            true => self.files[stream].len() - before[stream],
            false => 0,
        });
        let files = new[0].max(new[1]);
        let epochs = if self.one_by_one { files } else { files.min(1) };
        for epoch in 0..epochs {
            let range = [0, 1].map(|stream| {
                let (first, most) = (before[stream], before[stream] + new[stream]);
                match self.one_by_one {
                    true => (first + epoch).min(most)..(first + epoch + 1).min(most),
                    false => first..most,
                }
            });
            let rows = [0, 1].map(|stream| self.files[stream][range[stream].clone()].concat());
            let expected = match &mut self.query.batch {
                Batch::Same | Batch::As(_) => Expected::Files([range[0].end, range[1].end]),
                Batch::InTime(_) => self.in_time(&rows[0]),
                Batch::Model(model) => {
                    model.epoch(&rows, mode);
                    Expected::Lines(model.answer(mode))
                }
                Batch::Prefix(prefix) => Expected::Prefix(prefix.epoch(&rows, mode)),
            };
            self.expected.push(expected);
        }
        if epochs == 0 {
            return;
        }
        // An epoch without rows, if the watermark moves.
        let idle = match (&mut self.query.batch, &mut self.clock) {
            (Batch::Model(model), _) => model
                .idle(mode)
                .then(|| Expected::Lines(model.answer(mode))),
            // Looked at when it has run.
            (Batch::Prefix(_), _) => None,
            (_, Some(clock)) => clock
                .idle()
                .then_some(Expected::InTime(self.in_time.len(), clock.now_us)),
            _ => None,
        };
        self.expected.extend(idle);
    }

    /// An epoch without rows that ran, if the watermark has moved.
    fn idled(&mut self) {
        let ran = self.taken.lock().expect("no panic").epochs.len();
        if let Batch::Prefix(prefix) = &mut self.query.batch
            && ran > self.expected.len()
        {
            let idle = prefix.idle(self.query.mode);
            self.expected.extend(idle.map(Expected::Prefix));
        }
    }

    /// An epoch over `rows`, as the reference sees it.
    fn in_time(&mut self, rows: &[Row]) -> Expected {
        let (Some(clock), Batch::InTime(rule)) = (&mut self.clock, &self.query.batch) else {
            unreachable!("it has a watermark");
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
        Expected::InTime(self.in_time.len(), clock.now_us)
    }

    fn start(&mut self, dir: &Path) -> Result<Running, Error> {
        let mut builder = Session::builder()
            .workers([1, 2, 4][self.fate.random_range(0..3)])
            .conf("highwater.state.memoryMax", self.memory);
        let mount = match &self.place {
            Place::Objects(objects) => Some(Mount::new(objects)),
            Place::Directory | Place::Program => None,
        };
        self.mount.clone_from(&mount);
        let mut checkpoint = dir.join("checkpoint").display().to_string();
        if let Some(mount) = &mount {
            if self.fate.random_bool(0.25) {
                let writes = self.fate.random_range(0..20);
                mount.die_in(writes, self.fate.random_bool(0.5));
            }
            builder = builder.object_store("memory://here", Arc::clone(mount) as _);
            checkpoint = "memory://here/checkpoint".to_string();
        }
        let session = Session::start(builder)?;
        let (taken, sink) = (Arc::clone(&self.taken), mount.clone());
        let often = self.fate.random_bool(0.5);
        let query = self.query_of(
            &session,
            dir,
            &checkpoint,
            often,
            move |epoch, rows| match sink.as_ref().is_some_and(|mount| mount.is_dead()) {
                true => Ok(()),
                false => taken.lock().expect("no panic").take(epoch, rows),
            },
        )?;
        Ok(Running {
            session,
            query,
            mount,
        })
    }

    /// The query over the files in `dir`, started.
    pub(crate) fn query_of(
        &self,
        session: &Session,
        dir: &Path,
        checkpoint: &str,
        often: bool,
        mut take: impl FnMut(u64, Vec<String>) -> Result<(), Error> + Send + 'static,
    ) -> Result<StreamingQuery, Error> {
        dim(session);
        for stream in ["t", "u"] {
            let mut reader = session.read_stream().format("json").schema(SCHEMA)?;
            if self.one_by_one {
                reader = reader.option("maxFilesPerTrigger", 1);
            }
            let frame = reader.path(dir.join(stream)).load()?;
            frame.create_or_replace_temp_view(stream)?;
            frame.create_or_replace_temp_view(&format!("{stream}_above"))?;
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
        let mut writer = session
            .sql(&self.query.sql)?
            .write_stream()
            .output_mode(self.query.mode)
            .option("checkpointLocation", checkpoint);
        if often {
            writer = writer.option("checkpointInterval", "0 seconds");
        }
        let writer = writer.for_each_batch(move |rows: DataFrame, epoch| -> Result<(), Error> {
            take(epoch, lines(&rows.collect()?))
        });
        writer.start()
    }

    /// What was emitted up to each epoch since the last judgement adds up to the answer after it.
    fn judge(&mut self, reference: &Session, step: usize) {
        let shared = Arc::clone(&self.taken);
        let taken = shared.lock().expect("no panic");
        let epochs: Vec<u64> = taken.epochs.keys().copied().collect();
        let dense: Vec<u64> = (0..self.expected.len() as u64).collect();
        for epoch in self.judged..self.expected.len().min(epochs.len()) {
            let expected = match &self.expected[epoch] {
                Expected::Files(files) => self.batch_answer(reference, *files),
                Expected::InTime(rows, now_us) => self.in_time_answer(reference, *rows, *now_us),
                Expected::Prefix(asked) => {
                    let answer = self.prefix_answer(reference, asked);
                    self.seen.extend(answer.new);
                    answer.expected
                }
                Expected::Lines(lines) => lines.clone(),
            };
            let answer = taken.answer(&self.query, epoch + 1);
            if matches!(&self.query.batch, Batch::Prefix(prefix) if prefix.how == How::Replaced) {
                let came = expected.iter().all(|row| answer.contains(row));
                let known = answer.iter().all(|row| self.seen.contains(row));
                assert!(
                    came && known,
                    "epoch {epoch}, step {step}: {answer:?} of {expected:?}"
                );
                continue;
            }
            if let Some(most) = self.query.most() {
                assert_eq!(
                    answer.len(),
                    expected.len().min(most),
                    "epoch {epoch}, step {step}"
                );
                let (all, these) = (count(&expected), count(&answer));
                let some = these.iter().all(|(row, times)| all.get(row) >= Some(times));
                assert!(
                    some,
                    "epoch {epoch}, step {step}: {answer:?} of {expected:?}"
                );
                continue;
            }
            assert_eq!(answer, expected, "epoch {epoch}, step {step}");
        }
        assert_eq!(epochs, dense, "the epochs after step {step}");
        drop(taken);
        self.judged = self.expected.len();
    }

    /// The answer over the first files of both streams.
    fn batch_answer(&self, reference: &Session, files: [usize; 2]) -> Vec<String> {
        for (stream, name) in ["t", "u"].into_iter().enumerate() {
            let rows = self.files[stream][..files[stream]].concat();
            view(reference, name, as_batch(&rows));
        }
        let sql = match &self.query.batch {
            Batch::As(sql) => sql,
            _ => &self.query.sql,
        };
        let rows = lines(&rows_of(reference, sql));
        match self.query.mode {
            OutputMode::Complete => in_order(&self.query, rows),
            _ => sorted(rows),
        }
    }

    fn prefix_answer(&self, reference: &Session, (rows, judges_us): &Asked) -> Prefixed {
        let Batch::Prefix(prefix) = &self.query.batch else {
            unreachable!("it has uses of streams");
        };
        for (name, rows) in prefix.names().zip(rows) {
            view(reference, name, as_batch(rows));
        }
        for view in &prefix.views {
            let frame = reference.sql(&view.sql).expect("a static query");
            let firsts = frame.drop_duplicates(&view.keys).expect("first rows");
            let made = firsts.create_or_replace_temp_view(&view.name);
            made.expect("a view");
        }
        let answer = sorted(lines(&rows_of(reference, &prefix.sql)));
        match prefix.how {
            How::AddUp => Prefixed {
                expected: answer,
                new: Vec::new(),
            },
            How::Replaced => Prefixed {
                expected: answer.clone(),
                new: answer,
            },
            How::Unseen => {
                let new = answer
                    .into_iter()
                    .filter(|row| !self.seen.contains(row) && !prefix.is_late(row, *judges_us));
                let new: Vec<String> = new.collect();
                let all = self.seen.iter().chain(&new).cloned().collect();
                let complete = self.query.mode == OutputMode::Complete;
                let expected = if complete { new.clone() } else { sorted(all) };
                Prefixed { expected, new }
            }
        }
    }

    fn in_time_answer(&self, reference: &Session, rows: usize, now_us: i64) -> Vec<String> {
        let Batch::InTime(InTime { sql, ends, .. }) = &self.query.batch else {
            unreachable!("it has a watermark");
        };
        view(reference, "p", with_windows(&self.in_time[..rows]));
        let cut = match self.query.mode {
            OutputMode::Append => {
                let now = text_of(now_us, "%Y-%m-%d %H:%M:%S%.6f");
                format!("{ends} <= TIMESTAMP '{now}'")
            }
            _ => "true".to_string(),
        };
        sorted(lines(&rows_of(reference, &sql.replace("{final}", &cut))))
    }
}

fn count(rows: &[String]) -> BTreeMap<&String, usize> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(row).or_default() += 1;
    }
    counts
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort();
    rows
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

fn is_refused(error: &Error) -> bool {
    let class = matches!(error, Error::Query(_) | Error::Refused { .. });
    class && error.class().is_some() || error.to_string().contains("not supported yet")
}
