//! The coordinator of a query group: decides what each epoch reads, and when it is committed.
//!
//! One thread in the first process. It may block on sources, sinks and the log; the workers never do. An epoch's
//! plan is durable before any of it can become visible, and epochs commit in order.
//!
//! Today a group has one query; a second one adds an entry to `sinks`, its own commit record, nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::checkpoint::{EpochLog, EpochRecord, SourceRecord};
use crate::dataflow::{Feed, Order, Report};
use crate::error::{Error, error_chain};
use crate::query::QueryShared;
use crate::sink::{Receipt, Sink};
use crate::source::{Offset, Retry, Source, SourceError, Split, Waker, Watch};
use crate::trigger::Trigger;

/// Input bytes an epoch admits at most: more only adds latency.
const EPOCH_BYTES: u64 = 128 << 20;
/// Epochs in flight: one is read while another is written.
const EPOCHS_IN_FLIGHT: usize = 4;
/// Input bytes of all epochs in flight.
const BYTES_IN_FLIGHT: u64 = 256 << 20;
/// How often a source that says "later" is asked again, and how long to wait in between.
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
        /// What each worker staged.
        reports: Vec<Report>,
    },
    /// Open no further epoch.
    Stop,
    /// Say when everything there is to read is committed.
    WhenIdle(Sender<()>),
    /// The workers ended by themselves: a failure, or the session was closed.
    WorkersGone,
}

/// What a coordinator needs.
pub(crate) struct Coordination {
    pub(crate) query: Arc<QueryShared>,
    pub(crate) sources: Vec<Box<dyn Source>>,
    /// One per query of the group.
    pub(crate) sinks: Vec<Box<dyn Sink>>,
    pub(crate) trigger: Trigger,
    pub(crate) feed: Feed,
    pub(crate) events: (Sender<Event>, Receiver<Event>),
    pub(crate) checkpoint: Option<PathBuf>,
    pub(crate) workers: usize,
    pub(crate) processes: usize,
}

struct Position {
    source: Box<dyn Source>,
    at: Offset,
    /// The fixed end under `AvailableNow`.
    end: Option<Offset>,
    poll: Option<Duration>,
}

struct InFlight {
    ends: Vec<Offset>,
    bytes: u64,
}

struct Coordinator {
    query: Arc<QueryShared>,
    sources: Vec<Position>,
    sinks: Vec<Box<dyn Sink>>,
    trigger: Trigger,
    feed: Feed,
    log: Option<EpochLog>,
    workers: usize,
    processes: usize,
    next_epoch: u64,
    in_flight: BTreeMap<u64, InFlight>,
    /// False while the sources have said that there is nothing more.
    maybe_more: bool,
    stopping: bool,
    last_start: Option<Instant>,
    waiting: Vec<Sender<()>>,
}

/// Begins the log, asks the sources where they stand, and starts the thread.
pub(crate) fn start(coordination: Coordination) -> Result<(), Error> {
    let Coordination {
        query,
        sources,
        sinks,
        trigger,
        feed,
        events,
        checkpoint,
        workers,
        processes,
    } = coordination;
    let log = checkpoint
        .map(|dir| EpochLog::begin(&dir, &query.id))
        .transpose()?;
    let (sender, receiver) = events;
    let mut positions = Vec::new();
    for mut source in sources {
        let ring = sender.clone();
        let watch = source.watch(Waker::new(move || {
            let _ = ring.send(Event::Wake);
        }))?;
        let at = source.initial()?;
        let end = if trigger == Trigger::AvailableNow {
            Some(source.latest()?)
        } else {
            None
        };
        let poll = match watch {
            Watch::Rings => None,
            Watch::PollEveryMs(ms) => Some(Duration::from_millis(ms.max(1))),
        };
        positions.push(Position {
            source,
            at,
            end,
            poll,
        });
    }
    let coordinator = Coordinator {
        query,
        sources: positions,
        sinks,
        trigger,
        feed,
        log,
        workers,
        processes,
        next_epoch: 0,
        in_flight: BTreeMap::new(),
        maybe_more: true,
        stopping: false,
        last_start: None,
        waiting: Vec::new(),
    };
    let run = move || coordinator.run(&receiver);
    std::thread::Builder::new()
        .name("highwater:coordinator".into())
        .spawn(run)
        .expect("the system can start a thread");
    Ok(())
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
        self.query.failed(error.clone());
        self.feed
            .end(self.workers * self.processes, error.as_deref());
        self.query.coordinator_ended();
        self.waiting.clear();
    }

    fn coordinate(&mut self, events: &Receiver<Event>) -> Result<(), String> {
        loop {
            while self.may_open() {
                if !self.open_next()? {
                    self.maybe_more = false;
                }
            }
            if self.in_flight.is_empty() && !self.maybe_more {
                for waiting in self.waiting.drain(..) {
                    let _ = waiting.send(());
                }
                let ended = self.sources.iter().all(|position| position.source.ended());
                if self.trigger == Trigger::AvailableNow || ended {
                    return Ok(());
                }
            }
            if self.stopping && self.in_flight.is_empty() {
                return Ok(());
            }
            let first = match self.patience() {
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(limit) => events.recv_timeout(limit),
            };
            match first {
                Ok(event) => self.hear(event)?,
                Err(RecvTimeoutError::Timeout) => self.maybe_more = true,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            while let Ok(event) = events.try_recv() {
                self.hear(event)?;
            }
        }
    }

    fn hear(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Wake => self.maybe_more = true,
            Event::Complete { epoch, reports } => self.commit(epoch, reports)?,
            Event::Stop => self.stopping = true,
            Event::WhenIdle(reply) => {
                self.maybe_more = true;
                self.waiting.push(reply);
            }
            Event::WorkersGone => return Err("its workers are gone".into()),
        }
        Ok(())
    }

    fn may_open(&self) -> bool {
        if self.stopping || !self.maybe_more {
            return false;
        }
        let bytes: u64 = self.in_flight.values().map(|epoch| epoch.bytes).sum();
        if !self.in_flight.is_empty()
            && (self.in_flight.len() >= EPOCHS_IN_FLIGHT || bytes >= BYTES_IN_FLIGHT)
        {
            return false;
        }
        self.until_due().is_none()
    }

    /// How long the trigger asks us to wait.
    fn until_due(&self) -> Option<Duration> {
        let Trigger::Every(interval) = self.trigger else {
            return None;
        };
        let left = interval.saturating_sub(self.last_start?.elapsed());
        (!left.is_zero()).then_some(left)
    }

    /// How long to wait for an event: for ever, unless the trigger or a source that cannot ring says otherwise.
    fn patience(&self) -> Option<Duration> {
        if self.stopping {
            return None;
        }
        if let Some(left) = self.until_due() {
            return Some(left);
        }
        if self.maybe_more || self.trigger == Trigger::AvailableNow {
            return None; // an epoch in flight must complete first, and says so
        }
        self.sources
            .iter()
            .filter_map(|position| position.poll)
            .min()
    }

    /// Opens one epoch if there is something to read.
    fn open_next(&mut self) -> Result<bool, String> {
        let share = EPOCH_BYTES / self.sources.len().max(1) as u64;
        let mut records = Vec::new();
        let mut found = false;
        for position in &mut self.sources {
            let admitted = retried(|| {
                let to = match &position.end {
                    Some(end) => end.clone(),
                    None => position.source.latest()?,
                };
                position.source.admit(&position.at, &to, share)
            })?;
            let start = position.at.clone();
            let (end, splits) = match admitted {
                Some(admitted) => {
                    found = true;
                    (admitted.end, admitted.splits)
                }
                None => (start.clone(), Vec::new()),
            };
            records.push(SourceRecord { start, end, splits });
        }
        if !found {
            return Ok(false);
        }
        let record = EpochRecord {
            version: 1,
            clock_us: now_us(),
            ends_run: true,
            sources: records,
        };
        let epoch = self.next_epoch;
        if let Some(log) = &self.log {
            log.plan(epoch, &record).map_err(|e| error_chain(&e))?;
        }
        #[allow(
            clippy::disallowed_methods,
            reason = "paces the trigger; no row depends on it"
        )]
        let now = Instant::now();
        self.last_start = Some(now);
        self.next_epoch += 1;
        let bytes = record
            .sources
            .iter()
            .flat_map(|source| &source.splits)
            .map(|split| split.bytes)
            .sum();
        let ends: Vec<Offset> = record
            .sources
            .iter()
            .map(|source| source.end.clone())
            .collect();
        for (position, end) in self.sources.iter_mut().zip(&ends) {
            position.at = end.clone();
        }
        self.feed
            .open(assign(&record.sources, self.workers, self.processes, epoch));
        self.in_flight.insert(epoch, InFlight { ends, bytes });
        Ok(true)
    }

    fn commit(&mut self, epoch: u64, reports: Vec<Report>) -> Result<(), String> {
        if let Some(text) = reports.iter().find_map(|report| report.failure.clone()) {
            return Err(text);
        }
        let Some(done) = self.in_flight.remove(&epoch) else {
            return Ok(());
        };
        let mut receipts: Vec<Receipt> = reports
            .into_iter()
            .filter_map(|report| report.receipt)
            .collect();
        receipts.sort_by_key(|receipt| receipt.worker);
        for sink in &mut self.sinks {
            sink.commit(epoch..=epoch, &receipts)
                .map_err(|e| error_chain(&e))?;
        }
        if let Some(log) = &self.log {
            log.commit(epoch).map_err(|e| error_chain(&e))?;
        }
        for (position, end) in self.sources.iter_mut().zip(&done.ends) {
            position
                .source
                .committed(end)
                .map_err(|e| error_chain(&e))?;
        }
        self.query
            .add_committed(1, receipts.iter().map(|receipt| receipt.rows).sum());
        Ok(())
    }
}

/// Spreads an epoch's splits over the workers by size: a function of the plan alone.
fn assign(sources: &[SourceRecord], workers: usize, processes: usize, epoch: u64) -> Vec<Order> {
    // (bytes given so far, worker); the first worker differs from epoch to epoch, so that small epochs spread too.
    let peers = workers * processes;
    let turn = |worker: usize| (worker + peers - epoch as usize % peers) % peers;
    let mut load: BTreeSet<(u64, usize, usize)> =
        (0..peers).map(|worker| (0, turn(worker), worker)).collect();
    let mut orders = Vec::new();
    for (source, record) in sources.iter().enumerate() {
        for (ordinal, split) in record.splits.iter().enumerate() {
            let here = |worker: usize| {
                split
                    .process
                    .is_none_or(|process| worker / workers == process)
            };
            let lightest = load.iter().copied().find(|(_, _, worker)| here(*worker));
            let (bytes, turn, worker) = lightest.expect("every process has a worker");
            load.remove(&(bytes, turn, worker));
            load.insert((bytes + split.bytes + 1, turn, worker));
            orders.push(Order::Read {
                worker,
                source,
                ordinal: ordinal as u64,
                split: Split::clone(split),
            });
        }
    }
    orders
}

/// Asks again while the source says that the error may pass.
fn retried<T>(mut attempt: impl FnMut() -> Result<T, SourceError>) -> Result<T, String> {
    let mut tries = 0;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if error.retry == Retry::Later && tries < RETRIES => {
                tries += 1;
                tracing::warn!(
                    "{}; trying again ({tries} of {RETRIES})",
                    error_chain(&error)
                );
                std::thread::sleep(RETRY_PAUSE * tries);
            }
            Err(error) => return Err(error_chain(&error)),
        }
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
