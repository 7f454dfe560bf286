//! The handle of a running query.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use crate::coordinator::Event;
use crate::error::Error;
use crate::foreach;
use crate::workers::lock;

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
    /// Absent in processes other than the coordinator's.
    pub(crate) coordinator: Option<Sender<Event>>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Workers of this process whose dataflow is not complete.
    workers: usize,
    /// False from the moment the coordinator (if it is here) has ended.
    coordinated: bool,
    error: Option<String>,
    committed: Committed,
}

impl QueryShared {
    pub(crate) fn new(
        id: String,
        name: Option<String>,
        workers: usize,
        coordinator: Option<Sender<Event>>,
    ) -> Self {
        let state = State {
            workers,
            coordinated: coordinator.is_some(),
            error: None,
            committed: Committed::default(),
        };
        QueryShared {
            id,
            name,
            coordinator,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// One worker's part is complete, or gone for a reason.
    pub(crate) fn worker_ended(&self, reason: Option<&str>) {
        let mut state = lock(&self.state);
        state.workers = state.workers.saturating_sub(1);
        if let Some(reason) = reason {
            state.error.get_or_insert_with(|| reason.to_string());
            if let Some(coordinator) = &self.coordinator {
                let _ = coordinator.send(Event::WorkersGone);
            }
        }
        self.changed.notify_all();
    }

    /// The query's verdict, from the coordinator here or (by way of the dataflow) from another process.
    pub(crate) fn failed(&self, error: Option<String>) {
        if let Some(error) = error {
            lock(&self.state).error.get_or_insert(error);
        }
    }

    pub(crate) fn coordinator_ended(&self) {
        lock(&self.state).coordinated = false;
        self.changed.notify_all();
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
        let state = lock(&self.state);
        state.workers > 0 || state.coordinated
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
        while state.workers > 0 || state.coordinated {
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
        while state.workers > 0 || state.coordinated {
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
        if let Some(coordinator) = &self.shared.coordinator {
            let _ = coordinator.send(Event::Stop);
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
        let coordinator = self.shared.coordinator.as_ref();
        if coordinator.is_some_and(|c| c.send(Event::Pause(reply)).is_ok())
            && !foreach::is_within(self.id())
        {
            let _ = answer.recv();
        }
    }

    /// Goes on after [`StreamingQuery::pause`].
    pub fn resume(&self) {
        if let Some(coordinator) = &self.shared.coordinator {
            let _ = coordinator.send(Event::Resume);
        }
    }

    /// Waits until everything that was there to read when it was called is committed. For tests and tools: under a
    /// source that never rests it may wait for ever. In processes other than the first it returns at once.
    pub fn process_all_available(&self) -> Result<(), Error> {
        self.not_within("process_all_available()")?;
        let Some(coordinator) = &self.shared.coordinator else {
            return Ok(());
        };
        let (reply, answer) = bounded(1);
        if coordinator.send(Event::WhenIdle(reply)).is_ok() {
            let _ = answer.recv();
        }
        match lock(&self.shared.state).error.clone() {
            Some(message) => Err(self.failure(message)),
            None => Ok(()),
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
