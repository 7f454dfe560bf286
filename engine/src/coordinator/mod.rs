//! The coordinator of a query group: decides what each epoch reads, and when it is committed.
//!
//! One thread in the first process. It may block on sources, sinks and the log; the workers never do. An epoch's
//! plan is durable before any of it can become visible, and epochs commit in order.
//!
//! Today a group has one query; a second one adds entries to `sinks`, its own commit record, nothing else. A query has
//! one sink for its answer and may have another for late rows: both get an epoch in one run, under one commit record.

mod assign;
mod due;
mod idle;
mod ledger;
mod open;
mod retry;
mod runs;
mod start;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use highwater_operators::watermark::Policy;

use self::idle::{Idleness, Standing};
use self::ledger::Ledger;
use self::retry::retried;
pub(crate) use self::runs::Grouping;
use self::runs::Runs;
pub(crate) use self::start::start;
use crate::checkpoint::MarksRecord;
use crate::checkpoint::{Checkpoint, CommitRecord, EpochRecord, Recovered, Uploaded};
use crate::dataflow::{Feed, Order, Report, Staged};
use crate::error::error_chain;
use crate::plan::Observed;
use crate::progress::{Meter, stopwatch_us};
use crate::query::QueryShared;
use crate::sink::Sink;
use crate::source::{Offset, Source};
use crate::trigger::Trigger;

/// Input bytes an epoch admits at most: more only adds latency.
const EPOCH_BYTES: u64 = 128 << 20;
/// Epochs in flight: one is read while another is written.
const EPOCHS_IN_FLIGHT: usize = 4;
/// Input bytes of all epochs in flight.
const BYTES_IN_FLIGHT: u64 = 256 << 20;
/// Writers keep the rows of so many input bytes, before they are let write them, unless their run ends.
const KEPT_BYTES: u64 = 4 << 20;
/// How often an idle source that cannot ring is asked.
const POLL_IDLE: Duration = Duration::from_millis(100);
/// Sources that cannot ring are asked at least this often, however long they take.
const POLL_MAX: Duration = Duration::from_secs(1);
/// How often a source or a sink that says "later" is asked again, and how long to wait in between.
const RETRIES: u32 = 5;
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What a coordinator hears.
pub(crate) enum Event {
    /// Rows may have arrived.
    Wake,
    /// All workers have processed `epoch`.
    Complete {
        /// The epoch.
        epoch: u64,
        /// What each worker says of it.
        reports: Vec<Report>,
        /// Where each watermark stands after it.
        marks_ms: Vec<i64>,
    },
    /// A writer has staged a run.
    Staged(Staged),
    /// A worker has left its state for a checkpoint.
    Uploaded(Uploaded),
    /// Plans up to this epoch are durable.
    Planned(u64),
    /// Commits up to this epoch are on record.
    Recorded(u64),
    /// The log cannot be written.
    LogFailed(String),
    /// Open no further epoch.
    Stop,
    /// Open no epoch until `Resume`; says when that is so.
    Pause(Sender<()>),
    /// Epochs may open again.
    Resume,
    /// Say when everything there is to read is committed.
    WhenIdle(Sender<()>),
    /// The workers ended by themselves: a failure, or the session was closed.
    WorkersGone,
    /// The workers have nothing to do, now or later: the query was stopped before they began.
    WorkersDone,
    /// A process was lost, and the workers with it: end without a verdict, the query is launched again.
    Suspend,
}

/// A checkpoint directory that this run has taken, and what it found there.
pub(crate) struct Durable {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) recovered: Recovered,
}

/// What a coordinator needs.
pub(crate) struct Coordination {
    pub(crate) query: Arc<QueryShared>,
    pub(crate) sources: Vec<Box<dyn Source>>,
    /// For the answer; then for late rows, if they are wanted.
    pub(crate) sinks: Vec<Box<dyn Sink>>,
    pub(crate) trigger: Trigger,
    pub(crate) grouping: Grouping,
    /// How long a query runs between two checkpoints.
    pub(crate) checkpoint_interval: Duration,
    pub(crate) feed: Feed,
    pub(crate) events: (Sender<Event>, Receiver<Event>),
    pub(crate) durable: Option<Durable>,
    /// The writers that stage runs: for which sink, on which worker.
    pub(crate) writers: Vec<(usize, usize)>,
    /// True if the first sink takes runs when they are handed over.
    pub(crate) hands_over: bool,
    /// True if some operator has state.
    pub(crate) stateful: bool,
    pub(crate) workers: usize,
    pub(crate) processes: usize,
    /// What progress reports hold besides.
    pub(crate) observed: Vec<Observed>,
    /// How long it took to plan the query.
    pub(crate) planning_us: u64,
    pub(crate) event_time: EventTime,
    /// For each watermark the sources whose rows move it.
    pub(crate) watermark_sources: Vec<BTreeSet<usize>>,
    /// The versions of the static rows that the query has read.
    pub(crate) statics: Vec<String>,
}

/// What a coordinator needs to know of a query's event time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventTime {
    /// True if an epoch without rows is due when the watermark has moved.
    pub(crate) no_data_epochs: bool,
    /// How the watermarks of several streams combine.
    pub(crate) policy: Policy,
    /// After how long a silent stream no longer holds the watermark back, if ever.
    pub(crate) idle_timeout: Option<Duration>,
}

struct Position {
    source: Box<dyn Source>,
    at: Offset,
    /// The fixed end under `AvailableNow` and `Once`.
    end: Option<Offset>,
    poll: Option<Duration>,
}

struct Coordinator {
    query: Arc<QueryShared>,
    meter: Meter,
    sources: Vec<Position>,
    /// Each with the first epoch that it does not have from an earlier run.
    sinks: Vec<(Box<dyn Sink>, u64)>,
    trigger: Trigger,
    feed: Feed,
    ledger: Option<Ledger>,
    runs: Runs,
    /// Planned before a restart, and not yet opened again.
    replay: VecDeque<EpochRecord>,
    /// The versions of the static rows that its epochs read.
    statics: Vec<String>,
    /// Where the sources stood after each epoch that a checkpoint or a commit may still ask for.
    ends: BTreeMap<u64, Vec<Offset>>,
    event_time: EventTime,
    idleness: Idleness,
    /// The watermarks after the last epoch that is over, if there are any.
    marks: Option<MarksRecord>,
    /// The same after each epoch that a checkpoint may still ask for.
    marks_after: BTreeMap<u64, MarksRecord>,
    writers: Vec<(usize, usize)>,
    hands_over: bool,
    /// When the run that is being handed over was.
    handed_over_us: Option<u64>,
    /// For each sink the last epoch of which it got rows.
    written: Vec<Option<u64>>,
    stateful: bool,
    workers: usize,
    processes: usize,
    next_epoch: u64,
    /// Epochs before it are in the sink and, where there is a log, on record.
    recorded: u64,
    /// Epochs that are not over, with their input bytes.
    in_flight: BTreeMap<u64, u64>,
    /// Input bytes of epochs that are over and whose rows the writers may still keep.
    unwritten: u64,
    /// False while the sources have said that there is nothing more.
    maybe_more: bool,
    paused: bool,
    stopping: bool,
    /// True if no worker will run it.
    unbuilt: bool,
    /// True if the query goes on with other workers.
    suspended: bool,
    /// The epoch that cannot be committed, and why: the query ends once the runs before it are in the sink.
    failure: Option<(u64, String)>,
    last_start: Option<Instant>,
    /// The next aligned moment under `Every`, in microseconds since 1970.
    due_us: i64,
    begun: Instant,
    /// How long it took the sources to say that there is nothing more.
    looking: Duration,
    waiting: Vec<Sender<()>>,
}

impl Coordinator {
    fn run(mut self, events: &Receiver<Event>) {
        // A connector that panics ends its query, not the program.
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.coordinate(events)));
        let error = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(text)) => Some(text),
            Err(panic) => Some(crate::workers::panic_text(panic.as_ref())),
        };
        if self.suspended {
            // No worker may take the end of this run for the end of the query: those that are left are ending, and
            // hear no more of it.
            self.feed.abandon();
        } else {
            self.query.failed(error.clone());
            self.feed
                .end(self.workers * self.processes, error.as_deref());
        }
        // Everything is written, and the lock is free, before anybody hears that the query has ended.
        self.ledger = None;
        self.sources.clear();
        self.sinks.clear();
        self.query.coordinator_ended(self.suspended);
        self.waiting.clear();
    }

    fn coordinate(&mut self, events: &Receiver<Event>) -> Result<(), String> {
        loop {
            while self.may_open() {
                let begun = now();
                match self.open_next() {
                    Ok(true) => {}
                    Ok(false) => {
                        self.maybe_more = false;
                        self.looking = begun.elapsed();
                    }
                    // What was planned before can still be committed.
                    Err(text) => {
                        self.fail(self.next_epoch, text);
                        self.advance()?;
                    }
                }
            }
            if self.runs.is_empty()
                && let Some((_, text)) = self.failure.take()
            {
                return Err(text);
            }
            if self.failure.is_none() && self.in_flight.is_empty() && self.rest()? {
                return Ok(());
            }
            let first = match self.patience() {
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(limit) => events.recv_timeout(limit),
            };
            match first {
                Ok(event) => self.hear(event)?,
                Err(RecvTimeoutError::Timeout) => self.maybe_more = !self.stopping,
                Err(RecvTimeoutError::Disconnected) => return Err("its workers are gone".into()),
            }
            while let Ok(event) = events.try_recv() {
                self.hear(event)?;
            }
            if self.unbuilt {
                return Ok(());
            }
            self.end_old_run();
            self.advance()?;
        }
    }

    /// Nothing is in flight: brings to an end what waits for that. True if the query is over.
    fn rest(&mut self) -> Result<bool, String> {
        let dry = !self.maybe_more && self.replay.is_empty();
        let finished =
            self.trigger.ends() || self.sources.iter().all(|position| position.source.ended());
        let over = self.stopping || (dry && finished);
        if over || (dry && !self.waiting.is_empty()) {
            self.runs.end();
            self.advance()?;
        }
        // Stopped within a replay, the sink is ahead of us.
        let settled = self.runs.is_empty() && self.recorded >= self.next_epoch;
        if self.maybe_more && self.until_due().is_some() {
            self.meter.waits_for_trigger();
        }
        if dry && settled {
            self.meter.idle();
            for waiting in self.waiting.drain(..) {
                let _ = waiting.send(());
            }
        }
        if !settled || !(over || (dry && self.checkpoint_is_due())) {
            return Ok(false);
        }
        let Some(ledger) = &self.ledger else {
            return Ok(over);
        };
        let last = self.next_epoch.checked_sub(1);
        if ledger.pending.is_none() && ledger.shelf.newest() == last {
            return Ok(over);
        }
        if ledger.pending.is_none()
            && let Some(epoch) = last
        {
            self.begin_checkpoint(epoch, true);
            self.advance()?;
            // Without state it is done already.
            return Ok(over && self.ledger.as_ref().is_none_or(|l| l.pending.is_none()));
        }
        Ok(false)
    }

    fn hear(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Wake => self.maybe_more = true,
            Event::Complete {
                epoch,
                reports,
                marks_ms,
            } => self.complete(epoch, reports, marks_ms)?,
            Event::Staged(Staged {
                sink,
                last,
                receipt,
            }) => match receipt {
                Ok(receipt) => self.runs.staged(last, sink, receipt),
                Err(text) => {
                    let first = self.runs.first_of(last);
                    match self.failure {
                        // What failed first says why; the run may have had rows of that epoch.
                        Some(_) => self.runs.abandon(first),
                        None => self.fail(first, text),
                    }
                }
            },
            Event::Uploaded(uploaded) => self.uploaded(uploaded)?,
            Event::Planned(epoch) => {
                self.runs.planned = self.runs.planned.max(epoch + 1);
                self.meter.logged(epoch);
            }
            Event::Recorded(epoch) => self.recorded(epoch)?,
            Event::LogFailed(text) => return Err(text),
            Event::Stop => self.stopping = true,
            Event::Pause(reply) => {
                self.paused = true;
                let _ = reply.send(());
            }
            Event::Resume => {
                self.paused = false;
                self.maybe_more = true;
            }
            Event::WhenIdle(reply) => {
                self.maybe_more = true;
                self.waiting.push(reply);
            }
            Event::WorkersGone => return Err("its workers are gone".into()),
            Event::WorkersDone => self.unbuilt = true,
            Event::Suspend => {
                self.suspended = true;
                return Err("its workers are lost".into());
            }
        }
        Ok(())
    }

    fn complete(
        &mut self,
        epoch: u64,
        reports: Vec<Report>,
        marks_ms: Vec<i64>,
    ) -> Result<(), String> {
        if self
            .failure
            .as_ref()
            .is_some_and(|(failed, _)| epoch >= *failed)
        {
            return Ok(());
        }
        if let Some(text) = reports.iter().find_map(|report| report.failure.clone()) {
            self.fail(epoch, text);
            return Ok(());
        }
        let counted = reports.into_iter().map(|report| report.metrics).collect();
        let Standing { idle, heard_us } = self.idleness.over(epoch);
        let watermark_ms = (!marks_ms.is_empty()).then(|| self.watermark_ms(&idle));
        self.meter.counted(epoch, counted, watermark_ms);
        self.unwritten += self.in_flight.remove(&epoch).unwrap_or(0);
        if !marks_ms.is_empty() {
            let marks = MarksRecord {
                before_ms: self.watermark_ms(&idle),
                streams_ms: marks_ms,
                heard_us,
            };
            self.query.set_watermark(marks.before_ms);
            self.marks_after.insert(epoch, marks.clone());
            self.marks = Some(marks);
            self.maybe_more |= self.no_data_is_due(now_us());
        }
        self.runs.completed = self.runs.completed.max(epoch + 1);
        self.forget_ends();
        Ok(())
    }

    /// `epoch` cannot be committed.
    fn fail(&mut self, epoch: u64, text: String) {
        if self
            .failure
            .as_ref()
            .is_none_or(|(failed, _)| epoch < *failed)
        {
            self.failure = Some((epoch, text));
        }
        self.stopping = true;
        self.runs.abandon(epoch);
    }

    /// Ends the open run if it is old enough.
    fn end_old_run(&mut self) {
        if self.runs.patience(now()).is_some_and(|left| left.is_zero()) {
            self.runs.end();
        }
    }

    fn stage_orders(&self, first: u64, last: u64) -> Vec<Order> {
        self.writer_orders(|worker, sink| Order::Stage {
            worker,
            sink,
            first,
            last,
        })
    }

    /// One for each writer.
    fn writer_orders(&self, order: impl Fn(usize, usize) -> Order) -> Vec<Order> {
        let writers = self.writers.iter();
        writers
            .map(|(sink, worker)| order(*worker, *sink))
            .collect()
    }

    /// Commits what can be committed, and publishes a checkpoint that is whole.
    fn advance(&mut self) -> Result<(), String> {
        while let Some(run) = self.runs.ready() {
            let begun_us = self.handed_over_us.take().unwrap_or_else(stopwatch_us);
            crate::failpoint::reach("commit.before");
            for (number, (sink, first)) in self.sinks.iter_mut().enumerate() {
                // After a crash between two sinks, one of them has epochs that the other has not.
                let first = run.first.max(*first);
                if first > run.last {
                    continue;
                }
                let receipts = run.receipts_of(number);
                retried(|| sink.commit(first..=run.last, &receipts))?;
                crate::failpoint::reach("commit.sink");
            }
            self.meter.added(run.last, begun_us);
            crate::failpoint::reach("commit.after");
            let rows: Vec<u64> = (0..self.sinks.len())
                .map(|sink| run.rows_of(sink))
                .collect();
            for (written, rows) in self.written.iter_mut().zip(&rows) {
                if *rows > 0 {
                    *written = Some(run.last);
                }
            }
            self.query.add_committed(run.last + 1 - run.first, rows[0]);
            match &self.ledger {
                Some(ledger) => ledger.log.commit(CommitRecord {
                    first: run.first,
                    last: run.last,
                    rows: rows[0],
                    more_rows: rows[1..].to_vec(),
                }),
                None => self.recorded(run.last)?,
            }
        }
        while let Some((first, last)) = self.runs.due() {
            if self.hands_over {
                self.handed_over_us = Some(stopwatch_us());
            }
            self.feed.note(self.stage_orders(first, last));
        }
        self.publish()
    }

    /// The sink has everything up to `epoch`, and a restart knows it. With a checkpoint directory, sources hear of it
    /// when no checkpoint that is kept would read it again.
    fn recorded(&mut self, epoch: u64) -> Result<(), String> {
        self.recorded = self.recorded.max(epoch + 1);
        self.meter.committed(epoch);
        if self.ledger.is_none()
            && let Some(ends) = self.ends.get(&epoch)
        {
            for (position, end) in self.sources.iter_mut().zip(ends) {
                // Nobody will ask for it: there is no restart.
                drop(position.source.remember(end));
                position
                    .source
                    .committed(end)
                    .map_err(|e| error_chain(&e))?;
            }
        }
        self.forget_ends();
        Ok(())
    }

    fn forget_ends(&mut self) {
        let pending = self
            .ledger
            .as_ref()
            .and_then(|ledger| ledger.pending.as_ref())
            .map(|pending| pending.epoch);
        // A checkpoint without rows asks for the last one.
        let last = self.recorded.min(self.next_epoch).saturating_sub(1);
        let keep = last.min(pending.unwrap_or(u64::MAX));
        self.ends.retain(|epoch, _| *epoch >= keep);
        self.marks_after.retain(|epoch, _| *epoch >= keep);
    }
}

/// The wall clock, read once per epoch and logged with it: replays see the same.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place where an epoch gets its clock"
)]
fn now_us() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as i64)
}

/// The clock that paces the trigger, the polling of sources and checkpoints; no row depends on it.
#[allow(clippy::disallowed_methods, reason = "paces; no row depends on it")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests;
