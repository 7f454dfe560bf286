//! The queries of a session: which run, how they end, who hears of it.
//!
//! A query is in the list while it runs and not a moment longer; of those that ended nothing stays but the last
//! verdict that `await_any_termination` needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::error::Error;
use crate::listener::{
    Listeners, QueryEvent, QueryStarted, QueryTerminated, StreamingQueryListener,
};
use crate::progress::timestamp_now;
use crate::query::{Failed, QueryShared, StreamingQuery};
use crate::workers::lock;

/// What a session knows of its queries.
#[derive(Default)]
pub(crate) struct Streams {
    registry: Mutex<Registry>,
    changed: Condvar,
    pub(crate) listeners: Listeners,
}

#[derive(Default)]
struct Registry {
    /// By run id.
    active: BTreeMap<String, StreamingQuery>,
    /// Names of queries that are being started.
    starting: BTreeSet<String>,
    /// How queries ended since the last reset: `Some(None)` if none failed.
    ended: Option<Option<Failed>>,
}

/// A query that is being started; its name is taken until this is dropped.
pub(crate) struct Starting<'a> {
    streams: &'a Streams,
    name: Option<String>,
}

impl Streams {
    /// Takes the name for a query.
    pub(crate) fn begin(&self, name: Option<&str>) -> Result<Starting<'_>, Error> {
        let mut registry = lock(&self.registry);
        if let Some(name) = name {
            let mut active = registry.active.values();
            let taken = active.any(|query| query.name() == Some(name) && query.is_active());
            if taken || !registry.starting.insert(name.to_string()) {
                let message = format!(
                    "a query named \"{name}\" is running already; stop it or choose another name"
                );
                return Err(Error::Refused {
                    class: None,
                    message,
                });
            }
        }
        Ok(Starting {
            streams: self,
            name: name.map(str::to_string),
        })
    }

    pub(crate) fn active(&self) -> Vec<StreamingQuery> {
        let registry = lock(&self.registry);
        let active = registry.active.values().filter(|query| query.is_active());
        active.cloned().collect()
    }

    /// A query has ended.
    pub(crate) fn ended(&self, query: &QueryShared) {
        let failed = query.failure();
        let mut registry = lock(&self.registry);
        if registry.active.remove(&query.run_id).is_none() {
            return;
        }
        if registry.ended.is_none() || failed.is_some() {
            registry.ended = Some(failed.clone());
        }
        drop(registry);
        self.changed.notify_all();
        let error = failed.map(Failed::into_error);
        self.listeners.post(QueryEvent::Terminated(QueryTerminated {
            id: query.id.clone(),
            run_id: query.run_id.clone(),
            exception: error.as_ref().map(ToString::to_string),
            error_class: error.as_ref().and_then(Error::class),
        }));
    }

    /// Has all queries open no further epoch, then waits until each has committed those it opened. The first error.
    pub(crate) fn stop_all(&self) -> Result<(), Error> {
        let here = |query: &StreamingQuery| query.is_coordinated_here();
        let queries: Vec<StreamingQuery> = self.active().into_iter().filter(here).collect();
        queries.iter().for_each(StreamingQuery::ask_to_stop);
        let mut outcome = Ok(());
        for query in &queries {
            let ended = query.stop();
            outcome = outcome.and(ended);
        }
        outcome
    }
}

impl Starting<'_> {
    /// The query is there; to be said before any worker has it. Returns when the listeners have heard of it.
    pub(crate) fn started(self, query: &StreamingQuery) {
        let shared = &query.shared;
        lock(&self.streams.registry)
            .active
            .insert(shared.run_id.clone(), query.clone());
        let listeners = &self.streams.listeners;
        if listeners.any() {
            listeners.post(QueryEvent::Started(QueryStarted {
                id: shared.id.clone(),
                run_id: shared.run_id.clone(),
                name: shared.name.clone(),
                timestamp: timestamp_now(),
            }));
            listeners.flush();
        }
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            lock(&self.streams.registry).starting.remove(name);
        }
    }
}

/// The queries of a session: `session.streams()`.
#[derive(Clone)]
pub struct StreamingQueryManager {
    streams: Arc<Streams>,
}

impl StreamingQueryManager {
    pub(crate) fn new(streams: Arc<Streams>) -> Self {
        StreamingQueryManager { streams }
    }

    /// The queries that run.
    pub fn active(&self) -> Vec<StreamingQuery> {
        self.streams.active()
    }

    /// The running query with this id.
    pub fn get(&self, id: &str) -> Option<StreamingQuery> {
        self.active().into_iter().find(|query| query.id() == id)
    }

    /// Waits until any query ends, or returns at once if one has ended since the session began or since
    /// `reset_terminated`. An error if it (or any other since then) failed.
    pub fn await_any_termination(&self) -> Result<(), Error> {
        let registry = lock(&self.streams.registry);
        let waits = |registry: &mut Registry| registry.ended.is_none();
        let woken = self.streams.changed.wait_while(registry, waits);
        let registry = woken.unwrap_or_else(PoisonError::into_inner);
        verdict(&registry).map(|_| ())
    }

    /// Like `await_any_termination`, but not longer than `limit`: false if no query has ended.
    pub fn await_any_termination_for(&self, limit: Duration) -> Result<bool, Error> {
        let registry = lock(&self.streams.registry);
        let waits = |registry: &mut Registry| registry.ended.is_none();
        let changed = &self.streams.changed;
        let woken = changed.wait_timeout_while(registry, limit, waits);
        let (registry, _) = woken.unwrap_or_else(PoisonError::into_inner);
        verdict(&registry)
    }

    /// Forgets the queries that have ended: `await_any_termination` waits for the next.
    pub fn reset_terminated(&self) {
        lock(&self.streams.registry).ended = None;
    }

    /// Calls `listener` for every query from now on.
    pub fn add_listener(&self, listener: Arc<dyn StreamingQueryListener>) {
        self.streams.listeners.add(listener);
        // Queries that rest for ever have something to say now and then, from now on.
        for query in self.active() {
            query.wake();
        }
    }

    /// Calls `listener` no more.
    pub fn remove_listener(&self, listener: &Arc<dyn StreamingQueryListener>) {
        self.streams.listeners.remove(listener);
    }

    /// The listeners, in the order in which they were added.
    pub fn list_listeners(&self) -> Vec<Arc<dyn StreamingQueryListener>> {
        self.streams.listeners.list()
    }
}

/// Whether a query has ended; an error if one failed.
fn verdict(registry: &Registry) -> Result<bool, Error> {
    match &registry.ended {
        None => Ok(false),
        Some(None) => Ok(true),
        Some(Some(failed)) => Err(failed.clone().into_error()),
    }
}
