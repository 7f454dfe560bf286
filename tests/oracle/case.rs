//! One case: a random query over random files, with restarts, failures and crashes on the way, judged epoch by epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater::{DataFrame, Error, OutputMode, Session, StreamingQuery};
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::common::lines;
use crate::edges::Edges;
use crate::expected::Expected;
use crate::pairs::{self, Pair};
use crate::program;
use crate::query::{ARMS, Batch, Query};
use crate::reference::Clock;
use crate::rows::{Row, SCHEMA};
use crate::store::Mount;
use crate::taken::{TOLD, Taken};

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
    pub(crate) seed: u64,
    /// What is asked and of which rows: the same in every run.
    pub(crate) random: StdRng,
    /// What happens on the way, and how often depends on the moment of a crash.
    pub(crate) fate: StdRng,
    pub(crate) arm: &'static str,
    pub(crate) query: Query,
    /// Every file is an epoch of its own.
    pub(crate) one_by_one: bool,
    place: Place,
    /// What was mounted last.
    pub(crate) mount: Option<Arc<Mount>>,
    /// Bytes of state that stay in memory.
    pub(crate) memory: &'static str,
    /// Crashes so far.
    pub(crate) crashes: u32,
    /// All files so far: of `t`, and of `u`.
    pub(crate) files: [Vec<Vec<Row>>; 2],
    /// Rows in time, with their windows if the query has some.
    pub(crate) in_time: Vec<(Row, i64, i64)>,
    pub(crate) clock: Option<Clock>,
    pub(crate) expected: Vec<Expected>,
    pub(crate) edges: Edges,
    /// How much was late in each epoch of which that is known.
    pub(crate) late: BTreeMap<u64, u64>,
    /// Rows that were late, if they are asked for.
    pub(crate) late_rows: Option<Vec<Row>>,
    pub(crate) judged: usize,
    /// Rows that earlier answers had.
    pub(crate) seen: BTreeSet<String>,
    pub(crate) taken: Arc<Mutex<Taken>>,
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
        let may_be_late = clock.is_some() && query.mode != OutputMode::Complete;
        let asks_for_late = may_be_late && (seed / ARMS.len() as u64).is_multiple_of(2);
        let fails = random.random_bool(0.3) && !matches!(place, Place::Program);
        let fails_in = fails.then(|| (random.random_range(0..6), random.random_bool(0.5)));
        let taken = Taken {
            fails_in,
            ..Taken::default()
        };
        Case {
            seed,
            edges: Edges::of(&query),
            late: BTreeMap::new(),
            late_rows: asks_for_late.then(Vec::new),
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
                    running.iter().for_each(|now| self.note_late(now));
                    self.crashes += crashes;
                }
                Err(error) if is_refused(&error) && step == 0 => {
                    return Outcome::Refused(error.class(), error.to_string());
                }
                Err(error) => panic!("step {step}: {error}"),
            }
            self.idled();
            self.judge(&reference, step);
            self.judge_late(&reference, dir, step);
        }
        if let Some(running) = running {
            running.stop();
        }
        Outcome::Right
    }

    /// How much was late, as the epochs that ended told. Of one that a crash cut short nothing is known.
    fn note_late(&mut self, running: &Running) {
        for progress in running.query.recent_progress() {
            let operators = progress.state_operators.iter();
            let late = operators.map(|operator| operator.num_rows_dropped_by_watermark);
            self.late.insert(progress.batch_id, late.sum());
        }
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
        if self.late_rows.is_some() {
            let path = dir.join("late").display().to_string();
            writer = writer.late_rows_to("late").option("lateRowsPath", path);
        }
        let writer = writer.for_each_batch(move |rows: DataFrame, epoch| -> Result<(), Error> {
            take(epoch, lines(&rows.collect()?))
        });
        writer.start()
    }
}

fn dim(session: &Session) {
    let frame = session.sql(DIM).expect("a static query");
    frame.create_or_replace_temp_view("dim").expect("a view");
}

fn is_refused(error: &Error) -> bool {
    let class = matches!(error, Error::Query(_) | Error::Refused { .. });
    class && error.class().is_some() || error.to_string().contains("not supported yet")
}
