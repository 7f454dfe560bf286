//! The handle of a running query.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use crate::code;
use crate::coordinator::Event;
use crate::error::Error;
use crate::listener::QueryEvent;
use crate::manager::Streams;
use crate::progress::{Reporting, StreamingQueryProgress, StreamingQueryStatus};
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
    /// Rows that were read for them: what their progress reports add up to.
    pub input_rows: u64,
    /// The watermark that the last of them ran with, in milliseconds since 1970, if the query has one.
    pub watermark_ms: Option<i64>,
}

/// Who a query is.
#[derive(Default)]
pub(crate) struct About {
    /// The same after a restart from its checkpoint.
    pub(crate) id: String,
    /// Another for every start.
    pub(crate) run_id: String,
    pub(crate) name: Option<String>,
    /// What `explain` says: what its dataflow is made of.
    pub(crate) incremental_plan: String,
    /// What `explain_extended` says besides: the plan as resolved.
    pub(crate) resolved_plan: String,
    /// Who hears of its progress and its end.
    pub(crate) streams: Arc<Streams>,
    /// Why it ends when its workers are lost, if it does.
    pub(crate) ends_with_workers: Option<&'static str>,
    pub(crate) reporting: Reporting,
}

pub(crate) struct QueryShared {
    about: About,
    state: Mutex<State>,
    changed: Condvar,
    reports: Mutex<Reports>,
}

impl std::ops::Deref for QueryShared {
    type Target = About;

    fn deref(&self) -> &About {
        &self.about
    }
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

struct Reports {
    status: StreamingQueryStatus,
    last: Option<Arc<StreamingQueryProgress>>,
    recent: VecDeque<Arc<StreamingQueryProgress>>,
}

/// Why a query failed.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    query: String,
    message: String,
}

impl Failed {
    pub(crate) fn into_error(self) -> Error {
        Error::QueryFailed {
            query: self.query,
            message: self.message,
        }
    }
}

impl QueryShared {
    pub(crate) fn new(about: About) -> Self {
        let reports = Reports {
            status: StreamingQueryStatus::new("Initializing sources", false, false),
            last: None,
            recent: VecDeque::new(),
        };
        QueryShared {
            about,
            state: Mutex::default(),
            changed: Condvar::new(),
            reports: Mutex::new(reports),
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
                (None, _) => {
                    // Usually the coordinator is the first to end.
                    if state.workers == 0 {
                        state.tell(Event::WorkersDone);
                    }
                    return;
                }
                (Some(Gone::Over(text)), _) => text.clone(),
                (Some(Gone::Lost(text)), Some(why)) => format!("{text}; {why}"),
                (Some(Gone::Lost(_)), None) => {
                    // Where the coordinator has ended with a verdict, it stands. One that was suspended by the loss
                    // that another worker told has none.
                    state.between |= state.coordinator.is_none() || state.coordinated;
                    state.tell(Event::Suspend);
                    return;
                }
            };
            state.error.get_or_insert(error);
            state.tell(Event::WorkersGone);
        });
    }

    /// Changes the state; if that ends the query, says so.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        let before = state.active();
        change(&mut state);
        if state.stopping && state.is_quiet() {
            state.between = false;
        }
        let ended = before && !state.active();
        drop(state);
        if ended {
            let message = match self.failure() {
                Some(failed) => format!("Terminated with exception: {}", failed.message),
                None => "Stopped".into(),
            };
            self.set_status(&message, false, false);
            self.streams.ended(self);
        }
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

    /// True once it was asked to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        lock(&self.state).stopping
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

    /// Why it failed, if it did.
    pub(crate) fn failure(&self) -> Option<Failed> {
        let message = lock(&self.state).error.clone()?;
        let query = self.name.clone().unwrap_or_else(|| self.id.clone());
        Some(Failed { query, message })
    }

    pub(crate) fn set_status(&self, message: &str, is_data_available: bool, is_active: bool) {
        let status = &mut lock(&self.reports).status;
        if status.message != message {
            *status = StreamingQueryStatus::new(message, is_data_available, is_active);
        }
    }

    pub(crate) fn add_progress(&self, progress: Arc<StreamingQueryProgress>) {
        lock(&self.state).committed.input_rows += progress.num_input_rows;
        let mut reports = lock(&self.reports);
        reports.last = Some(Arc::clone(&progress));
        reports.recent.push_back(progress);
        while reports.recent.len() > self.about.reporting.kept {
            reports.recent.pop_front();
        }
    }

    pub(crate) fn last_progress(&self) -> Option<Arc<StreamingQueryProgress>> {
        lock(&self.reports).last.clone()
    }

    pub(crate) fn recent_progress(&self) -> Vec<Arc<StreamingQueryProgress>> {
        lock(&self.reports).recent.iter().cloned().collect()
    }

    pub(crate) fn has_listeners(&self) -> bool {
        self.streams.listeners.any()
    }

    /// Tells the listeners, if there are any.
    pub(crate) fn tell(&self, event: impl FnOnce() -> QueryEvent) {
        if self.has_listeners() {
            self.streams.listeners.post(event());
        }
    }
}

impl StreamingQuery {
    /// Identifies the query; the same after a restart from its checkpoint.
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// Identifies this run of it.
    pub fn run_id(&self) -> &str {
        &self.shared.run_id
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
        self.shared.failure().map(Failed::into_error)
    }

    /// What the sink holds so far.
    pub fn committed(&self) -> Committed {
        lock(&self.shared.state).committed.clone()
    }

    /// What it does at this moment. Known in the first process, as are progress reports.
    pub fn status(&self) -> StreamingQueryStatus {
        lock(&self.shared.reports).status.clone()
    }

    /// The report of the epoch committed last.
    pub fn last_progress(&self) -> Option<Arc<StreamingQueryProgress>> {
        self.shared.last_progress()
    }

    /// The reports of the last 100 epochs, oldest first.
    pub fn recent_progress(&self) -> Vec<Arc<StreamingQueryProgress>> {
        self.shared.recent_progress()
    }

    /// What its dataflow is made of, and what bounds its state.
    pub fn explain(&self) -> String {
        self.shared.incremental_plan.clone()
    }

    /// The plan as resolved, and what its dataflow is made of.
    pub fn explain_extended(&self) -> String {
        format!(
            "{}{}",
            self.shared.resolved_plan, self.shared.incremental_plan
        )
    }

    /// Waits until the query ends; an error if it failed.
    pub fn await_termination(&self) -> Result<(), Error> {
        self.not_within("await_termination()")?;
        let state = lock(&self.shared.state);
        let woken = self
            .shared
            .changed
            .wait_while(state, |state| state.active());
        drop(woken.unwrap_or_else(PoisonError::into_inner));
        self.exception().map_or(Ok(()), Err)
    }

    /// Waits until the query ends, or `limit` is over (false).
    pub fn await_termination_for(&self, limit: Duration) -> Result<bool, Error> {
        self.not_within("await_termination_for()")?;
        let state = lock(&self.shared.state);
        let changed = &self.shared.changed;
        let woken = changed.wait_timeout_while(state, limit, |state| state.active());
        let ended = !woken.unwrap_or_else(PoisonError::into_inner).0.active();
        match self.exception() {
            Some(error) if ended => Err(error),
            _ => Ok(ended),
        }
    }

    /// Opens no further epoch, commits those already open, and waits for the end.
    pub fn stop(&self) -> Result<(), Error> {
        self.ask_to_stop();
        // The end comes when the code that takes its rows returns, so that code cannot wait for it.
        match code::is_within(self.id()) {
            true => Ok(()),
            false => self.await_termination(),
        }
    }

    pub(crate) fn ask_to_stop(&self) {
        if self.is_coordinated_here() {
            self.shared.change(|state| {
                state.stopping = true;
                state.tell(Event::Stop);
            });
        }
    }

    /// Has the coordinator look around.
    pub(crate) fn wake(&self) {
        lock(&self.shared.state).tell(Event::Wake);
    }

    /// Opens no further epoch until [`StreamingQuery::resume`]. Epochs that are open go on. In processes other than the
    /// first it does nothing.
    pub fn pause(&self) {
        let (reply, answer) = bounded(1);
        let mut state = lock(&self.shared.state);
        state.paused = true;
        let told = state.tell(Event::Pause(reply));
        drop(state);
        if told && !code::is_within(self.id()) {
            let _ = answer.recv();
        }
    }

    /// Goes on after [`StreamingQuery::pause`].
    pub fn resume(&self) {
        let mut state = lock(&self.shared.state);
        state.paused = false;
        state.tell(Event::Resume);
    }

    pub(crate) fn is_coordinated_here(&self) -> bool {
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
                state = woken.unwrap_or_else(PoisonError::into_inner);
            }
            idle |= !state.coordinated;
            drop(state);
            match self.exception() {
                Some(error) => return Err(error),
                None if idle => return Ok(()),
                None => {}
            }
        }
    }

    fn not_within(&self, call: &str) -> Result<(), Error> {
        match code::is_within(self.id()) {
            true => Err(code::waits_for_itself(call)),
            false => Ok(()),
        }
    }
}
