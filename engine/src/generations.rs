//! The generations of a session: when a process is lost, those that are left meet again with whoever takes its place,
//! start new workers, and launch the queries again from their checkpoints.
//!
//! A thread of the session waits for the workers of a generation. When they have left because a peer is lost, their
//! queries are neither over nor failed: their coordinator ends without a verdict, their handles stay valid, and they are
//! launched again as soon as nothing of the old launch runs any more. Queries that cannot go on from a checkpoint fail.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::cluster::{ClusterConfig, ClusterError, Meeting, Sisters, Supervisor, Wait, connect};
use crate::error::{Error, error_chain};
use crate::launch::Definition;
use crate::query::{Phase, QueryShared};
use crate::session::{read, write};
use crate::workers::{Gone, Started, Workers, lock};

/// How long the first meeting may take: a process may be started a minute before the last of the others.
const FIRST_MEETING: Duration = Duration::from_secs(60);
/// How long a program may take to end by itself when the one that started it is gone.
const ORPHAN: Duration = Duration::from_secs(5);
/// A query that was launched before may still be committing, or within code of the program.
const PAUSE: Duration = Duration::from_millis(2);
/// Ended queries that are remembered: by name and error if they failed; whole where another first process may ask for
/// them.
const REMEMBERED: usize = 1_000;

/// The workers of a session, now and later.
pub(crate) struct Generations {
    shared: Arc<Shared>,
}

struct Shared {
    config: ClusterConfig,
    process: usize,
    /// True where ended queries may be asked for again: the first process may be replaced by one that knows nothing.
    keeps_ended: bool,
    current: RwLock<Arc<Workers>>,
    roster: Mutex<Roster>,
    /// Set when there will be no workers any more: with the reason, unless the session was closed.
    over: Mutex<Option<Option<String>>>,
    ended: Condvar,
    closing: AtomicBool,
}

#[derive(Default)]
struct Roster {
    /// Queries started, by kind.
    counts: BTreeMap<String, u64>,
    queries: Vec<Entry>,
    failed: VecDeque<(String, String)>,
}

#[derive(Clone)]
struct Entry {
    query: Arc<QueryShared>,
    definition: Arc<Definition>,
}

impl Generations {
    /// Meets the other processes, if there are any, and starts the workers.
    pub(crate) fn start(config: &ClusterConfig) -> Result<Self, Error> {
        let process = config.process.unwrap_or(0);
        let alone = config.processes == 1;
        let mut sisters = match config.process {
            None if !alone => Some(Sisters::start(config)?),
            _ => None,
        };
        let supervisor = Supervisor::from_env().filter(|_| process > 0);
        let meeting = sisters
            .as_ref()
            .map_or_else(Meeting::from_env, Sisters::meeting);
        let mut tend = |there: &[bool]| tend(&mut sisters, supervisor.as_ref(), process, there);
        let wait = Wait {
            limit: FIRST_MEETING,
            tend: &mut tend,
        };
        let joined = connect(config, process, &meeting, 0, wait)?;
        let workers =
            Arc::new(Workers::start(joined, config.rejoin_timeout).map_err(Error::SessionEnded)?);
        let shared = Arc::new(Shared {
            config: config.clone(),
            process,
            keeps_ended: process > 0 && supervisor.is_none(),
            current: RwLock::new(Arc::clone(&workers)),
            roster: Mutex::default(),
            over: Mutex::new(None),
            ended: Condvar::new(),
            closing: AtomicBool::new(false),
        });
        if !alone {
            let healer = Healer {
                shared: Arc::clone(&shared),
                meeting,
                sisters,
                supervisor,
            };
            std::thread::Builder::new()
                .name("highwater:generations".into())
                .spawn(move || healer.run(workers))
                .expect("the system can start a thread");
        }
        Ok(Generations { shared })
    }

    /// Why there are no workers and will be none, if that is so.
    pub(crate) fn failure(&self) -> Option<String> {
        if let Some(over) = lock(&self.shared.over).as_ref() {
            let closed = || "the session was closed".into();
            return Some(over.clone().unwrap_or_else(closed));
        }
        match read(&self.shared.current).failure() {
            Some(Gone::Over(text)) => Some(text),
            Some(Gone::Lost(_)) | None => None,
        }
    }

    /// The name of the next query of a kind: the same in every process that runs the same program.
    pub(crate) fn key(&self, kind: &str) -> String {
        let mut roster = lock(&self.shared.roster);
        let count = roster.counts.entry(kind.to_string()).or_default();
        *count += 1;
        format!("{kind}-{count}")
    }

    /// Launches a query for the first time, on the workers of today; if they go, on those that follow.
    pub(crate) fn launch(
        &self,
        query: &Arc<QueryShared>,
        definition: &Arc<Definition>,
        launch: impl FnOnce(&Workers) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // The next generation does not begin while this query is neither on the roster nor installed.
        let workers = read(&self.shared.current);
        if self.shared.config.processes > 1 {
            self.shared.prune();
            lock(&self.shared.roster).queries.push(Entry {
                query: Arc::clone(query),
                definition: Arc::clone(definition),
            });
        }
        let launched = launch(&workers);
        if let Err(error) = &launched {
            query.give_up(&error_chain(error));
        }
        launched
    }

    /// A query that has a key could not be started here.
    pub(crate) fn could_not_start(&self, key: &str, error: &Error) {
        if self.shared.config.processes == 1 {
            return;
        }
        let text = error_chain(error);
        let workers = read(&self.shared.current);
        if self.shared.process > 0 {
            return workers.could_not_start(self.shared.process, key.to_string(), text);
        }
        lock(&self.shared.roster).fail(key, &text);
        workers.is_over(key.to_string(), Some(text));
    }

    /// Ends the workers of all processes (said by the first) and waits for this process's.
    pub(crate) fn close(&self) {
        let shared = &self.shared;
        let current = || Arc::clone(&read(&shared.current));
        if shared.process == 0 {
            shared.closing.store(true, Ordering::SeqCst);
            current().close();
        } else {
            current().no_more(shared.process);
        }
        if shared.config.processes == 1 {
            let reason = current().wait();
            *lock(&shared.over) = Some(reason.map(|gone| gone.text().to_string()));
            return;
        }
        let mut over = lock(&shared.over);
        while over.is_none() {
            over = shared
                .ended
                .wait(over)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Roster {
    fn fail(&mut self, key: &str, error: &str) {
        self.failed.push_back((key.to_string(), error.to_string()));
        if self.failed.len() > REMEMBERED {
            self.failed.pop_front();
        }
    }

    fn started(&self) -> Started {
        let live = self.queries.iter().filter(|entry| entry.query.active());
        Started {
            counts: self.counts.clone(),
            live: live.map(|entry| entry.definition.key.clone()).collect(),
            over: self
                .failed
                .iter()
                .map(|(key, error)| (key.clone(), Some(error.clone())))
                .collect(),
        }
    }
}

impl Shared {
    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Forgets ended queries.
    fn prune(&self) {
        let mut roster = lock(&self.roster);
        let queries = std::mem::take(&mut roster.queries);
        let ended = queries.iter().filter(|entry| !entry.query.active()).count();
        let mut spare = match self.keeps_ended {
            true => ended.saturating_sub(REMEMBERED),
            false => ended,
        };
        for entry in queries {
            if entry.query.active() || spare == 0 {
                roster.queries.push(entry);
                continue;
            }
            spare -= 1;
            if let Some(error) = entry.query.error() {
                roster.fail(&entry.definition.key, &error);
            }
        }
    }

    /// From now on queries start on `workers`, who are told what was started before. Gives back what is to be launched
    /// again.
    fn switch(&self, workers: &Arc<Workers>) -> Vec<Entry> {
        self.prune();
        let mut current = write(&self.current);
        let roster = lock(&self.roster);
        if self.process == 0 {
            workers.tell_started(roster.started());
        }
        *current = Arc::clone(workers);
        let active = roster.queries.iter().filter(|entry| entry.query.active());
        active.cloned().collect()
    }

    /// Launches again what ran on workers that are gone.
    fn launch_again(&self, workers: &Workers, mut entries: Vec<Entry>) {
        if self.keeps_ended {
            self.offer_ended(workers);
        }
        loop {
            entries.retain(|Entry { query, definition }| {
                let over = match query.phase() {
                    Phase::Busy => return true,
                    Phase::Over => true,
                    Phase::Between => match definition.launch(query, workers) {
                        Ok(()) => false,
                        Err(error) => {
                            query.give_up(&error_chain(&error));
                            true
                        }
                    },
                };
                if over && self.process == 0 {
                    workers.is_over(definition.key.clone(), query.error());
                }
                false
            });
            if entries.is_empty() || workers.failure().is_some() || self.is_closing() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// A first process that is new may start again what has ended here.
    fn offer_ended(&self, workers: &Workers) {
        for Entry { query, definition } in &lock(&self.roster).queries {
            if !query.active() {
                definition.offer(query, workers);
            }
        }
    }
}

/// The thread that replaces a generation by the next.
struct Healer {
    shared: Arc<Shared>,
    meeting: Meeting,
    sisters: Option<Sisters>,
    supervisor: Option<Supervisor>,
}

impl Healer {
    fn run(mut self, mut workers: Arc<Workers>) {
        let reason = loop {
            let lost = match workers.wait() {
                None => break None,
                Some(Gone::Over(text)) => break Some(text),
                Some(Gone::Lost(text)) => text,
            };
            if self.shared.is_closing() {
                break Some(lost);
            }
            match self.next(&workers, &lost) {
                Ok(next) => workers = next,
                Err(text) => break Some(format!("{lost}; {text}")),
            }
        };
        let orphan = self.supervisor.as_ref().is_some_and(Supervisor::is_gone);
        self.end(reason);
        if orphan {
            // Nobody waits for this program, and what keeps it may be anything.
            std::thread::sleep(ORPHAN);
            std::process::exit(1);
        }
    }

    /// Meets the others and starts the workers of the next generation.
    fn next(&mut self, before: &Workers, lost: &str) -> Result<Arc<Workers>, String> {
        let shared = &self.shared;
        tracing::warn!("{lost}; the processes meet again");
        if let (Some(sisters), Some(lost)) = (&mut self.sisters, before.lost()) {
            sisters.lost(&lost);
        }
        let (sisters, supervisor) = (&mut self.sisters, self.supervisor.as_ref());
        let mut tend = |there: &[bool]| match shared.is_closing() {
            true => Err(ClusterError::Closing),
            false => tend(sisters, supervisor, shared.process, there),
        };
        let wait = Wait {
            limit: shared.config.rejoin_timeout,
            tend: &mut tend,
        };
        let last = before.generation;
        let joined = connect(&shared.config, shared.process, &self.meeting, last, wait)
            .map_err(|error| error_chain(&error))?;
        let workers = Arc::new(Workers::start(joined, shared.config.rejoin_timeout)?);
        let entries = shared.switch(&workers);
        if shared.is_closing() {
            workers.close();
        }
        tracing::info!("generation {} begins", workers.generation);
        shared.launch_again(&workers, entries);
        Ok(workers)
    }

    fn end(&mut self, reason: Option<String>) {
        let text = reason.as_deref().unwrap_or("the session was closed");
        for Entry { query, .. } in lock(&self.shared.roster).queries.drain(..) {
            if query.active() {
                query.give_up(text);
            }
        }
        if let Some(mut sisters) = self.sisters.take() {
            sisters.end();
        }
        *lock(&self.shared.over) = Some(reason);
        self.shared.ended.notify_all();
    }
}

/// What a process looks after while it waits for the others.
fn tend(
    sisters: &mut Option<Sisters>,
    supervisor: Option<&Supervisor>,
    process: usize,
    there: &[bool],
) -> Result<(), ClusterError> {
    if supervisor.is_some_and(Supervisor::is_gone) {
        return Err(ClusterError::Orphan { index: process });
    }
    match sisters {
        Some(sisters) => sisters.tend(there),
        None => Ok(()),
    }
}
