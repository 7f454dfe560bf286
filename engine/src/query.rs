//! The handle of a running query.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use crate::coordinator::Event;
use crate::error::Error;
use crate::foreach;
use crate::workers::{Gone, lock};

/// A running query: ask it, wait for it, stop it. Cloning gives another handle of the same query.
#[derive(Clone)]
pub struct StreamingQuery {
    pub(crate) shared: Arc<QueryShared>,
}

/// What a query last did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// Epochs that are visible in the sink.
    pub epochs: u64,
    /// Rows the sink was handed in them.
    pub rows: u64,
    /// The watermark that the last of them ran with, in milliseconds since 1970, if the query has one.
    pub watermark_ms: Option<i64>,
}

pub(crate) struct QueryShared {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    /// Why it ends when its workers are lost, if it does.
    ends_with_workers: Option<&'static str>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// True from the first launch on, whether it succeeded or not.
    begun: bool,
    /// Workers of this process whose dataflow is not complete.
    workers: usize,
    /// False from the moment the coordinator (if it is here) has ended.
    coordinated: bool,
    /// True from the loss of the workers until the next launch.
    between: bool,
    /// What was asked of it, and holds for the next launch too.
    stopping: bool,
    paused: bool,
    /// Absent in processes other than the first.
    coordinator: Option<Sender<Event>>,
    error: Option<String>,
    committed: Committed,
}

impl State {
    fn active(&self) -> bool {
        !self.begun || self.workers > 0 || self.coordinated || self.between
    }

    fn is_quiet(&self) -> bool {
        self.workers == 0 && !self.coordinated
    }

    /// False if nobody hears it.
    fn tell(&self, event: Event) -> bool {
        let coordinator = self.coordinator.as_ref();
        coordinator.is_some_and(|coordinator| coordinator.send(event).is_ok())
    }
}

/// Where a query is when its workers have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing of it runs; it waits to be launched again.
    Between,
    /// Something of it still runs.
    Busy,
    /// It has ended.
    Over,
}

impl QueryShared {
    pub(crate) fn new(
        id: String,
        name: Option<String>,
        ends_with_workers: Option<&'static str>,
    ) -> Self {
        QueryShared {
            id,
            name,
            ends_with_workers,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// A launch is about to start `workers` and, in the first process, a coordinator. False if it was stopped before.
    pub(crate) fn begin(&self, workers: usize, coordinator: Option<Sender<Event>>) -> bool {
        let mut state = lock(&self.state);
        if state.stopping {
            return false;
        }
        (state.begun, state.between) = (true, false);
        (state.workers, state.coordinated) = (workers, coordinator.is_some());
        state.coordinator = coordinator;
        if state.paused {
            let (reply, _) = bounded(1);
            state.tell(Event::Pause(reply));
        }
        true
    }

    /// The launch failed.
    pub(crate) fn did_not_begin(&self) {
        self.change(|state| {
            (state.begun, state.workers, state.coordinated) = (true, 0, false);
        });
    }

    /// It is not launched again.
    pub(crate) fn give_up(&self, error: &str) {
        self.change(|state| {
            (state.begun, state.between) = (true, false);
            if !state.stopping {
                state.error.get_or_insert_with(|| error.to_string());
            }
        });
    }

    /// One worker's part is complete, or gone for a reason.
    pub(crate) fn worker_ended(&self, reason: Option<&Gone>) {
        self.change(|state| {
            state.workers = state.workers.saturating_sub(1);
            let error = match (reason, self.ends_with_workers) {
                (None, _) => return,
                (Some(Gone::Over(text)), _) => text.clone(),
                (Some(Gone::Lost(text)), Some(why)) => format!("{text}; {why}"),
                (Some(Gone::Lost(_)), None) => {
                    // Where the coordinator has ended, the verdict is known.
                    state.between = state.coordinator.is_none() || state.coordinated;
                    state.tell(Event::Suspend);
                    return;
                }
            };
            state.error.get_or_insert(error);
            state.tell(Event::WorkersGone);
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        change(&mut state);
        if state.stopping && state.is_quiet() {
            state.between = false;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The query's verdict, from the coordinator here or (by way of the dataflow) from another process.
    pub(crate) fn failed(&self, error: Option<String>) {
        if let Some(error) = error {
            lock(&self.state).error.get_or_insert(error);
        }
    }

    /// The coordinator has ended: with a verdict, or `suspended`, without one.
    pub(crate) fn coordinator_ended(&self, suspended: bool) {
        self.change(|state| {
            state.coordinated = false;
            state.between &= suspended;
        });
    }

    /// Where it is, once the workers that it was last launched on have gone.
    pub(crate) fn phase(&self) -> Phase {
        let state = lock(&self.state);
        match (state.between && state.is_quiet(), state.active()) {
            (true, _) => Phase::Between,
            (false, true) => Phase::Busy,
            (false, false) => Phase::Over,
        }
    }

    /// What it failed of, if it did.
    pub(crate) fn error(&self) -> Option<String> {
        lock(&self.state).error.clone()
    }

    pub(crate) fn add_committed(&self, epochs: u64, rows: u64) {
        let mut state = lock(&self.state);
        state.committed.epochs += epochs;
        state.committed.rows += rows;
        self.changed.notify_all();
    }

    pub(crate) fn set_watermark(&self, ms: i64) {
        lock(&self.state).committed.watermark_ms = Some(ms);
    }

    pub(crate) fn active(&self) -> bool {
        lock(&self.state).active()
    }
}

impl StreamingQuery {
    /// Identifies the query.
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// The name given with `query_name`.
    pub fn name(&self) -> Option<&str> {
        self.shared.name.as_deref()
    }

    /// False once it has ended, by itself, by `stop` or by an error.
    pub fn is_active(&self) -> bool {
        self.shared.active()
    }

    /// Why it failed, if it did.
    pub fn exception(&self) -> Option<Error> {
        lock(&self.shared.state)
            .error
            .clone()
            .map(|message| self.failure(message))
    }

    /// What the sink holds so far.
    pub fn committed(&self) -> Committed {
        lock(&self.shared.state).committed.clone()
    }

    /// Waits until the query ends; an error if it failed.
    pub fn await_termination(&self) -> Result<(), Error> {
        self.not_within("await_termination()")?;
        let mut state = lock(&self.shared.state);
        while state.active() {
            state = self
                .shared
                .changed
                .wait(state)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        match state.error.clone() {
            Some(message) => Err(self.failure(message)),
            None => Ok(()),
        }
    }

    /// Waits until the query ends, or `limit` is over (false).
    pub fn await_termination_for(&self, limit: Duration) -> Result<bool, Error> {
        self.not_within("await_termination_for()")?;
        // The wait is for the caller's own clock, not for anything an epoch holds.
        #[allow(
            clippy::disallowed_methods,
            reason = "a time-out for the caller; no row depends on it"
        )]
        let end = Instant::now() + limit;
        let mut state = lock(&self.shared.state);
        while state.active() {
            #[allow(
                clippy::disallowed_methods,
                reason = "a time-out for the caller; no row depends on it"
            )]
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let woken = self.shared.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        match state.error.clone() {
            Some(message) => Err(self.failure(message)),
            None => Ok(true),
        }
    }

    /// Opens no further epoch, commits those already open, and waits for the end.
    pub fn stop(&self) -> Result<(), Error> {
        if self.is_coordinated_here() {
            self.shared.change(|state| {
                state.stopping = true;
                state.tell(Event::Stop);
            });
        }
        // The end comes when the code that takes its rows returns, so that code cannot wait for it.
        match foreach::is_within(self.id()) {
            true => Ok(()),
            false => self.await_termination(),
        }
    }

    /// Opens no further epoch until [`StreamingQuery::resume`]. Epochs that are open go on. In processes other than the
    /// first it does nothing.
    pub fn pause(&self) {
        let (reply, answer) = bounded(1);
        let mut state = lock(&self.shared.state);
        state.paused = true;
        let told = state.tell(Event::Pause(reply));
        drop(state);
        if told && !foreach::is_within(self.id()) {
            let _ = answer.recv();
        }
    }

    /// Goes on after [`StreamingQuery::pause`].
    pub fn resume(&self) {
        let mut state = lock(&self.shared.state);
        state.paused = false;
        state.tell(Event::Resume);
    }

    fn is_coordinated_here(&self) -> bool {
        lock(&self.shared.state).coordinator.is_some()
    }

    /// Waits until everything that was there to read when it was called is committed. For tests and tools: under a
    /// source that never rests it may wait for ever. In processes other than the first it returns at once.
    pub fn process_all_available(&self) -> Result<(), Error> {
        self.not_within("process_all_available()")?;
        if !self.is_coordinated_here() {
            return Ok(());
        }
        loop {
            let (reply, answer) = bounded(1);
            lock(&self.shared.state).tell(Event::WhenIdle(reply));
            let mut idle = answer.recv().is_ok();
            let mut state = lock(&self.shared.state);
            // Where the coordinator ended because a process was lost, the next one is asked.
            while !idle && state.between {
                let woken = self.shared.changed.wait(state);
                state = woken.unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            idle |= !state.coordinated;
            match state.error.clone() {
                Some(message) => return Err(self.failure(message)),
                None if idle => return Ok(()),
                None => {}
            }
        }
    }

    fn not_within(&self, call: &str) -> Result<(), Error> {
        match foreach::is_within(self.id()) {
            true => Err(foreach::waits_for_itself(call)),
            false => Ok(()),
        }
    }

    fn failure(&self, message: String) -> Error {
        Error::QueryFailed {
            query: self
                .shared
                .name
                .clone()
                .unwrap_or_else(|| self.shared.id.clone()),
            message,
        }
    }
}
