//! Listeners: hear of every query of a session, on one thread of their own.
//!
//! Queries post events and go on. A listener that panics is reported and called again for the next event; one that is
//! slow delays the others and, when ten thousand events wait, loses reports of progress, never starts or ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::progress::StreamingQueryProgress;
use crate::workers::{lock, panic_text};

/// Reports that may wait for a slow listener.
const WAITING_MAX: usize = 10_000;
/// How long `start()` waits for its listeners, and the end of a session for the last events.
const PATIENCE: Duration = Duration::from_secs(10);

/// A query was started.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryStarted {
    /// The query's id.
    pub id: String,
    /// This run's id.
    pub run_id: String,
    /// Its name.
    pub name: Option<String>,
    /// When, in UTC.
    pub timestamp: String,
}

/// A query committed an epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryProgress {
    /// The report.
    pub progress: Arc<StreamingQueryProgress>,
}

/// A query has had nothing to do for some time.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryIdle {
    /// The query's id.
    pub id: String,
    /// This run's id.
    pub run_id: String,
    /// When, in UTC.
    pub timestamp: String,
}

/// A query ended.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryTerminated {
    /// The query's id.
    pub id: String,
    /// This run's id.
    pub run_id: String,
    /// Why, if it failed.
    pub exception: Option<String>,
    /// The class of the error: `DIVIDE_BY_ZERO`.
    pub error_class: Option<String>,
}

/// Hears of the queries of a session. All calls come from one thread, one after the other, each query's in order.
pub trait StreamingQueryListener: Send + Sync {
    /// A query was started; its `start()` returns after this call (or after ten seconds).
    fn on_query_started(&self, event: &QueryStarted) {
        let _ = event;
    }

    /// An epoch was committed.
    fn on_query_progress(&self, event: &QueryProgress) {
        let _ = event;
    }

    /// A query has nothing to do; said every ten seconds.
    fn on_query_idle(&self, event: &QueryIdle) {
        let _ = event;
    }

    /// A query ended.
    fn on_query_terminated(&self, event: &QueryTerminated) {
        let _ = event;
    }
}

/// What listeners hear.
pub(crate) enum QueryEvent {
    Started(QueryStarted),
    Progress(QueryProgress),
    Idle(QueryIdle),
    Terminated(QueryTerminated),
}

enum Message {
    Event(QueryEvent),
    /// Everything sent before has been heard.
    Heard(Sender<()>),
}

type Listener = Arc<dyn StreamingQueryListener>;

/// The listeners of a session, and the thread that calls them: there is none before the first is added.
#[derive(Default)]
pub(crate) struct Listeners {
    list: Arc<Mutex<Vec<Listener>>>,
    any: AtomicBool,
    waiting: Arc<AtomicUsize>,
    lost: AtomicBool,
    dispatcher: Mutex<Option<Dispatcher>>,
}

struct Dispatcher {
    messages: Sender<Message>,
    thread: ThreadId,
    ended: Receiver<()>,
}

impl Listeners {
    pub(crate) fn add(&self, listener: Listener) {
        let mut dispatcher = lock(&self.dispatcher);
        dispatcher.get_or_insert_with(|| {
            dispatcher_thread(Arc::clone(&self.list), Arc::clone(&self.waiting))
        });
        lock(&self.list).push(listener);
        self.any.store(true, Ordering::SeqCst);
    }

    pub(crate) fn remove(&self, listener: &Listener) {
        let mut list = lock(&self.list);
        list.retain(|known| !Arc::ptr_eq(known, listener));
        self.any.store(!list.is_empty(), Ordering::SeqCst);
    }

    pub(crate) fn list(&self) -> Vec<Listener> {
        lock(&self.list).clone()
    }

    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::SeqCst)
    }

    /// Has the listeners called, soon.
    pub(crate) fn post(&self, event: QueryEvent) {
        if !self.any() {
            return;
        }
        let may_be_lost = matches!(event, QueryEvent::Progress(_) | QueryEvent::Idle(_));
        if may_be_lost && self.waiting.load(Ordering::Relaxed) >= WAITING_MAX {
            if !self.lost.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "a listener does not keep up: {WAITING_MAX} events wait for it, further progress reports are not delivered"
                );
            }
            return;
        }
        if let Some(dispatcher) = lock(&self.dispatcher).as_ref() {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let _ = dispatcher.messages.send(Message::Event(event));
        }
    }

    /// Waits until the listeners have heard of everything posted so far: not for ever, and not in a listener.
    pub(crate) fn flush(&self) {
        let heard = {
            let dispatcher = lock(&self.dispatcher);
            let Some(dispatcher) = dispatcher.as_ref() else {
                return;
            };
            if dispatcher.thread == std::thread::current().id() {
                return;
            }
            let (reply, heard) = bounded(1);
            let _ = dispatcher.messages.send(Message::Heard(reply));
            heard
        };
        if heard.recv_timeout(PATIENCE).is_err() {
            tracing::warn!("a listener has not returned for {PATIENCE:?}; going on without it");
        }
    }

    /// Delivers what waits and ends the thread.
    pub(crate) fn close(&self) {
        let Some(dispatcher) = lock(&self.dispatcher).take() else {
            return;
        };
        self.any.store(false, Ordering::SeqCst);
        let inside = dispatcher.thread == std::thread::current().id();
        drop(dispatcher.messages);
        if !inside {
            let _ = dispatcher.ended.recv_timeout(PATIENCE);
        }
        lock(&self.list).clear();
    }
}

fn dispatcher_thread(list: Arc<Mutex<Vec<Listener>>>, waiting: Arc<AtomicUsize>) -> Dispatcher {
    let (messages, receiver) = unbounded();
    let (end, ended) = bounded::<()>(0);
    let work = move || {
        let _end = end;
        for message in receiver {
            match message {
                Message::Event(event) => {
                    waiting.fetch_sub(1, Ordering::Relaxed);
                    let listeners = lock(&list).clone();
                    listeners.iter().for_each(|one| call(one, &event));
                }
                Message::Heard(reply) => drop(reply.send(())),
            }
        }
    };
    let thread = std::thread::Builder::new()
        .name("highwater:listeners".into())
        .spawn(work)
        .expect("the system can start a thread");
    Dispatcher {
        messages,
        thread: thread.thread().id(),
        ended,
    }
}

fn call(listener: &Listener, event: &QueryEvent) {
    let called = catch_unwind(AssertUnwindSafe(|| match event {
        QueryEvent::Started(event) => listener.on_query_started(event),
        QueryEvent::Progress(event) => listener.on_query_progress(event),
        QueryEvent::Idle(event) => listener.on_query_idle(event),
        QueryEvent::Terminated(event) => listener.on_query_terminated(event),
    }));
    if let Err(panic) = called {
        tracing::error!("a query listener panicked: {}", panic_text(panic.as_ref()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(id: usize) -> QueryEvent {
        QueryEvent::Idle(QueryIdle {
            id: id.to_string(),
            run_id: String::new(),
            timestamp: String::new(),
        })
    }

    fn ended(id: usize) -> QueryEvent {
        QueryEvent::Terminated(QueryTerminated {
            id: id.to_string(),
            run_id: String::new(),
            exception: None,
            error_class: None,
        })
    }

    /// Writes down what it hears; waits at the first event until it may go on, and panics at every tenth.
    struct Scribe {
        heard: Mutex<Vec<String>>,
        go: Receiver<()>,
    }

    impl Scribe {
        fn note(&self, what: String) {
            let _ = self.go.recv();
            let mut heard = lock(&self.heard);
            heard.push(what);
            let due = heard.len().is_multiple_of(10);
            drop(heard);
            assert!(!due, "every tenth event is too much");
        }
    }

    impl StreamingQueryListener for Scribe {
        fn on_query_idle(&self, event: &QueryIdle) {
            self.note(format!("idle {}", event.id));
        }
        fn on_query_terminated(&self, event: &QueryTerminated) {
            self.note(format!("ended {}", event.id));
        }
    }

    fn scribe() -> (Listeners, Arc<Scribe>, Sender<()>) {
        let (gate, go) = bounded(0);
        let scribe = Arc::new(Scribe {
            heard: Mutex::default(),
            go,
        });
        let listeners = Listeners::default();
        listeners.add(Arc::clone(&scribe) as Listener);
        (listeners, scribe, gate)
    }

    #[test]
    fn a_listener_that_panics_hears_of_the_rest() {
        let (listeners, scribe, gate) = scribe();
        drop(gate);
        (0..25).for_each(|id| listeners.post(idle(id)));
        listeners.flush();
        let expected: Vec<String> = (0..25).map(|id| format!("idle {id}")).collect();
        assert_eq!(*lock(&scribe.heard), expected);
    }

    #[test]
    fn a_listener_that_does_not_keep_up_loses_reports_and_no_ends() {
        let (listeners, scribe, gate) = scribe();
        for id in 0..WAITING_MAX * 2 {
            listeners.post(idle(id));
        }
        listeners.post(ended(7));
        drop(gate);
        listeners.close();
        let heard = lock(&scribe.heard);
        assert_eq!(heard.last().map(String::as_str), Some("ended 7"));
        assert!(
            (WAITING_MAX..=WAITING_MAX + 2).contains(&heard.len()),
            "{}",
            heard.len()
        );
    }

    #[test]
    fn without_listeners_there_is_no_thread_and_nothing_waits() {
        let listeners = Listeners::default();
        listeners.post(idle(1));
        listeners.flush();
        assert!(lock(&listeners.dispatcher).is_none());
        let (listeners, scribe, _gate) = scribe();
        let listener = Arc::clone(&listeners.list()[0]);
        listeners.remove(&listener);
        listeners.post(ended(1));
        listeners.flush();
        assert!(lock(&scribe.heard).is_empty());
    }
}
