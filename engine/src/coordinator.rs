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
use crate::progress::{Measured, Meter, Phase};
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
/// How often an idle source that cannot ring is asked.
const POLL_IDLE: Duration = Duration::from_millis(100);
/// Sources that cannot ring are asked at least this often, however long they take.
const POLL_MAX: Duration = Duration::from_secs(1);
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
    /// How long it took to plan the query.
    pub(crate) planning_us: u64,
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
    meter: Meter,
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
    begun: Instant,
    /// How long it took the sources to say that there is nothing more.
    looking: Duration,
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
        planning_us,
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
    #[allow(
        clippy::disallowed_methods,
        reason = "paces the polling of sources; no row depends on it"
    )]
    let begun = Instant::now();
    let meter = Meter::new(Measured {
        query: Arc::clone(&query),
        sources: positions
            .iter()
            .map(|position| position.source.description())
            .collect(),
        sink: sinks.iter().map(|sink| sink.description()).collect(),
        peers: workers * processes,
        planning_us,
        merge_observed: Box::new(|_| BTreeMap::new()),
    });
    let coordinator = Coordinator {
        query,
        meter,
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
        begun,
        looking: Duration::ZERO,
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
                #[allow(
                    clippy::disallowed_methods,
                    reason = "paces the polling of sources; no row depends on it"
                )]
                let begun = Instant::now();
                if !self.open_next()? {
                    self.maybe_more = false;
                    self.looking = begun.elapsed();
                }
            }
            if self.in_flight.is_empty() && !self.maybe_more {
                self.meter.idle();
                for waiting in self.waiting.drain(..) {
                    let _ = waiting.send(());
                }
                let ended = self.sources.iter().all(|position| position.source.ended());
                if self.trigger == Trigger::AvailableNow || ended {
                    return Ok(());
                }
            } else if self.in_flight.is_empty() && self.until_due().is_some() {
                self.meter.waits_for_trigger();
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
        let Some(poll) = self
            .sources
            .iter()
            .filter_map(|position| position.poll)
            .min()
        else {
            return self.meter.until_idle_event();
        };
        // Looking may take a tenth of the time, where it takes long. Where rows have not come for a second, nobody
        // minds a tenth of one: an idle query costs next to nothing.
        let quiet = self.last_start.unwrap_or(self.begun).elapsed();
        let slower = (quiet / 10)
            .min(POLL_IDLE)
            .max((self.looking * 10).min(POLL_MAX));
        Some(poll.max(slower))
    }

    /// Opens one epoch if there is something to read.
    fn open_next(&mut self) -> Result<bool, String> {
        let share = EPOCH_BYTES / self.sources.len().max(1) as u64;
        let mut records = Vec::new();
        let mut found = false;
        let meter = &mut self.meter;
        meter.begin();
        for (index, position) in self.sources.iter_mut().enumerate() {
            let admitted = retried(|| {
                let to = match &position.end {
                    Some(end) => end.clone(),
                    None => meter.time(Phase::LatestOffset, || position.source.latest())?,
                };
                meter.latest(index, &to);
                meter.time(Phase::GetOffset, || {
                    position.source.admit(&position.at, &to, share)
                })
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
            self.meter
                .time(Phase::WalCommit, || log.plan(epoch, &record))
                .map_err(|e| error_chain(&e))?;
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
        let orders = self.meter.time(Phase::GetBatch, || {
            assign(&record.sources, self.workers, self.processes, epoch)
        });
        self.feed.open(orders);
        self.meter.opened(epoch, record.clock_us, &record.sources);
        self.in_flight.insert(epoch, InFlight { ends, bytes });
        Ok(true)
    }

    fn commit(&mut self, epoch: u64, mut reports: Vec<Report>) -> Result<(), String> {
        if let Some(text) = reports.iter().find_map(|report| report.failure.clone()) {
            return Err(text);
        }
        let Some(done) = self.in_flight.remove(&epoch) else {
            return Ok(());
        };
        let counted = reports
            .iter_mut()
            .map(|report| std::mem::take(&mut report.metrics));
        let counted = counted.collect();
        let mut receipts: Vec<Receipt> = reports
            .into_iter()
            .filter_map(|report| report.receipt)
            .collect();
        receipts.sort_by_key(|receipt| receipt.worker);
        for sink in &mut self.sinks {
            sink.commit(epoch..=epoch, &receipts)
                .map_err(|e| error_chain(&e))?;
        }
        self.meter.added(epoch);
        if let Some(log) = &self.log {
            log.commit(epoch).map_err(|e| error_chain(&e))?;
        }
        for (position, end) in self.sources.iter_mut().zip(&done.ends) {
            position
                .source
                .committed(end)
                .map_err(|e| error_chain(&e))?;
        }
        let rows = receipts.iter().map(|receipt| receipt.rows).sum();
        self.meter.committed(epoch, counted, rows);
        self.query.add_committed(1, rows);
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

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;
    use crate::dataflow::feed;
    use crate::query::About;
    use crate::sink::SinkError;
    use crate::source::{Admitted, Reader};

    /// Always has one more split of `bytes`.
    struct Endless {
        bytes: u64,
    }

    fn at(offset: &Offset) -> u64 {
        offset.0.as_u64().expect("a number")
    }

    impl Source for Endless {
        fn description(&self) -> String {
            "endless".into()
        }
        fn watch(&mut self, _waker: Waker) -> Result<Watch, SourceError> {
            Ok(Watch::Rings)
        }
        fn initial(&mut self) -> Result<Offset, SourceError> {
            Ok(Offset(0.into()))
        }
        fn latest(&mut self) -> Result<Offset, SourceError> {
            Ok(Offset(u64::MAX.into()))
        }
        fn admit(
            &mut self,
            from: &Offset,
            _to: &Offset,
            _max: u64,
        ) -> Result<Option<Admitted>, SourceError> {
            let split = Split {
                descriptor: at(from).to_string(),
                bytes: self.bytes,
                process: None,
            };
            Ok(Some(Admitted {
                end: Offset((at(from) + 1).into()),
                splits: vec![split],
            }))
        }
        fn replay(&mut self, _from: &Offset, _to: &Offset) -> Result<Vec<Split>, SourceError> {
            Ok(Vec::new())
        }
        fn reader(&self) -> Arc<dyn Reader> {
            unreachable!("the coordinator reads no rows")
        }
    }

    struct Recorder(Sender<u64>);

    impl Sink for Recorder {
        fn description(&self) -> String {
            "recorder".into()
        }
        fn commit(
            &mut self,
            epochs: RangeInclusive<u64>,
            _receipts: &[Receipt],
        ) -> Result<(), SinkError> {
            epochs.for_each(|epoch| self.0.send(epoch).expect("the test listens"));
            Ok(())
        }
    }

    struct Bench {
        events: Sender<Event>,
        opened: crate::dataflow::FeedInput,
        committed: Receiver<u64>,
        query: Arc<QueryShared>,
    }

    fn endless(bytes: u64) -> Bench {
        let (events, receiver) = crossbeam_channel::unbounded();
        let (recorder, committed) = crossbeam_channel::unbounded();
        let (feed, opened) = feed();
        let query = Arc::new(QueryShared::new(About::default(), 0, Some(events.clone())));
        start(Coordination {
            query: Arc::clone(&query),
            sources: vec![Box::new(Endless { bytes })],
            sinks: vec![Box::new(Recorder(recorder))],
            trigger: Trigger::Default,
            feed,
            events: (events.clone(), receiver),
            checkpoint: None,
            workers: 1,
            processes: 1,
            planning_us: 0,
        })
        .expect("started");
        Bench {
            events,
            opened,
            committed,
            query,
        }
    }

    /// Waits until no further epoch is opened.
    fn settled(bench: &Bench) -> usize {
        let mut last = usize::MAX;
        loop {
            let now = bench.opened.waiting();
            if now == last && now > 0 {
                return now;
            }
            last = now;
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    #[test]
    fn epochs_in_flight_are_bounded_in_number_and_in_bytes() {
        assert_eq!(settled(&endless(1)), EPOCHS_IN_FLIGHT);
        assert_eq!(
            settled(&endless(EPOCH_BYTES)),
            (BYTES_IN_FLIGHT / EPOCH_BYTES) as usize
        );
        assert_eq!(
            settled(&endless(BYTES_IN_FLIGHT * 2)),
            1,
            "one is always let in"
        );
    }

    #[test]
    fn a_commit_lets_the_next_epoch_in() {
        let bench = endless(1);
        let before = settled(&bench);
        let report = |failure: Option<&str>| Report {
            receipt: None,
            failure: failure.map(str::to_string),
            metrics: Default::default(),
        };
        bench
            .events
            .send(Event::Complete {
                epoch: 0,
                reports: vec![report(None)],
            })
            .expect("it listens");
        assert_eq!(bench.committed.recv(), Ok(0));
        while bench.opened.waiting() == before {
            std::thread::sleep(Duration::from_millis(5));
        }
        bench
            .events
            .send(Event::Complete {
                epoch: 1,
                reports: vec![report(Some("bad row"))],
            })
            .expect("it listens");
        while bench.query.active() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(
            bench.committed.try_recv().is_err(),
            "a failed epoch is not committed"
        );
    }

    #[test]
    fn splits_spread_by_size_and_stay_where_they_must() {
        let split = |bytes, process| Split {
            descriptor: String::new(),
            bytes,
            process,
        };
        let record = |splits| SourceRecord {
            start: Offset(0.into()),
            end: Offset(1.into()),
            splits,
        };
        let sources = [record(vec![
            split(100, None),
            split(10, None),
            split(10, None),
            split(5, Some(1)),
            split(5, Some(1)),
        ])];
        let workers: Vec<usize> = assign(&sources, 1, 2, 0)
            .iter()
            .map(|order| match order {
                Order::Read { worker, .. } | Order::End { worker, .. } => *worker,
            })
            .collect();
        assert_eq!(workers, [0, 1, 1, 1, 1]);
    }
}
