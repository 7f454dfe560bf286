//! SIGINT and SIGTERM: the first one stops all queries after the epochs in flight, the second ends the program at once.
//!
//! The first process decides: its queries' end reaches the others through the dataflow. A Ctrl-C on a terminal reaches all
//! processes at once, so another process only makes a note of its first signal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use highwater::Session;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Failure, say};

/// What signals and statements tell each other.
#[derive(Clone, Default)]
pub(super) struct Stopping {
    asked: Arc<AtomicBool>,
    answering: Arc<AtomicBool>,
    session: Arc<OnceLock<Session>>,
}

impl Stopping {
    /// Listens from now on; what cannot be done is told.
    pub(super) fn listen() -> Result<Stopping, Failure> {
        Stopping::try_listen().map_err(|error| {
            say(&format!("could not listen for signals: {error}"));
            Failure::Query
        })
    }

    fn try_listen() -> std::io::Result<Stopping> {
        let stopping = Stopping::default();
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let heard = stopping.clone();
        std::thread::Builder::new()
            .name("highwater:signals".into())
            .spawn(move || {
                let mut first = true;
                for signal in signals.forever() {
                    if !first {
                        std::process::exit(128 + signal);
                    }
                    first = false;
                    match heard.session.get() {
                        Some(session) => heard.first(signal, session),
                        // Nothing runs yet, so nothing is in flight.
                        None => std::process::exit(0),
                    }
                }
            })?;
        Ok(stopping)
    }

    /// The session whose queries a signal stops.
    pub(super) fn begun(&self, session: &Session) {
        let _ = self.session.set(session.clone());
    }

    /// True from the first signal on.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Runs a plain SELECT, which a signal ends with the program: nothing of it is worth keeping.
    pub(super) fn while_answering<T>(&self, answer: impl FnOnce() -> T) -> T {
        self.answering.store(true, Ordering::SeqCst);
        let answered = answer();
        self.answering.store(false, Ordering::SeqCst);
        answered
    }

    fn first(&self, signal: i32, session: &Session) {
        if !session.is_first_process() {
            tracing::warn!(
                "signal {signal}: the first process stops the queries; once more ends this one"
            );
            return;
        }
        tracing::info!("signal {signal}: stopping after the epochs in flight");
        self.asked.store(true, Ordering::SeqCst);
        let (session, answering) = (session.clone(), Arc::clone(&self.answering));
        // Beside the thread that listens, so that a second signal is heard.
        std::thread::spawn(move || {
            stop_all(&session);
            if answering.load(Ordering::SeqCst) {
                session.close();
                std::process::exit(128 + signal);
            }
        });
    }
}

/// Stops all queries, each after the epochs it has in flight. What one fails of is told where it is waited for.
pub(super) fn stop_all(session: &Session) {
    std::thread::scope(|scope| {
        for query in session.streams().active() {
            scope.spawn(move || query.stop());
        }
    });
}
