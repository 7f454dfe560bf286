//! The worker threads of this process in one generation, and the one order in which they build dataflows.
//!
//! timely needs every worker of every process to build the same dataflows in the same order. A program may start
//! queries from several threads, so worker 0 of process 0 decides the order: it broadcasts the key of each query as
//! all processes have started it (see `agreement`), and where it begins, and every worker builds a query when its key
//! arrives.

use std::any::Any;
use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use serde::{Deserialize, Serialize};
use timely::WorkerConfig;
use timely::communication::WorkerGuards;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::ProbeHandle;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Input, Operator, vec::Broadcast};
use timely::worker::Worker;

use crate::agreement::{Agreement, Planned, Verdict};
use crate::cluster::{Joined, Link, Lost, network_thread_panicked, now};

/// How often a query that waits for another process looks whether it is to stop, or has waited too long.
const LOOK: Duration = Duration::from_millis(100);

/// Builds one query's dataflow on one worker. The text says where it begins, the same in every process.
pub(crate) type Build = Arc<dyn Fn(&mut Worker, &str) -> ProbeHandle<u64> + Send + Sync>;

/// Hears that a worker's part of a query is over.
pub(crate) type Ended = Arc<dyn Fn(Option<&Gone>) + Send + Sync>;

/// Why workers are gone, or a part of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gone {
    /// For good: the session was closed, a worker panicked, or the query had ended elsewhere with an error.
    Over(String),
    /// Another process was lost; workers of a later generation may take the query up.
    Lost(String),
}

impl Gone {
    /// The reason.
    pub(crate) fn text(&self) -> &str {
        match self {
            Gone::Over(text) | Gone::Lost(text) => text,
        }
    }
}

/// A query to build.
#[derive(Clone)]
pub(crate) struct Installation {
    /// The same in every process, and for no other query.
    pub(crate) key: String,
    /// Where the query begins, as text; the first process's counts.
    pub(crate) beginning: String,
    /// The same in every process that runs the same program.
    pub(crate) planned: Planned,
    /// Builds it.
    pub(crate) build: Build,
    /// True once it is asked to stop.
    pub(crate) is_stopping: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Called once per worker of this process, when its part of the dataflow is complete or (with the reason) gone.
    pub(crate) ended: Ended,
}

/// What the first process has started, for those who join it later.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Started {
    /// How many of each kind of query: keys are a kind and a number.
    pub(crate) counts: BTreeMap<String, u64>,
    /// The keys of those that have not ended.
    pub(crate) live: Vec<String>,
    /// Others that are over, with the error if they failed.
    pub(crate) over: BTreeMap<String, Option<String>>,
}

impl Started {
    /// True if the query was started and has ended.
    fn is_over(&self, key: &str) -> bool {
        let Some((kind, number)) = key.rsplit_once('-') else {
            return false;
        };
        let started = self.counts.get(kind).copied().unwrap_or_default();
        number.parse::<u64>().is_ok_and(|number| number <= started)
            && !self.live.iter().any(|live| live == key)
    }
}

#[derive(Clone)]
enum Command {
    Install(Installation),
    /// Said by the first worker of this process.
    Say(Turn),
}

/// What worker 0 of process 0 tells all workers; and, in `There` and `Ended`, what another process tells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Turn {
    /// Build a query.
    Build { key: String, beginning: String },
    /// A query was not started in the first process, or not again.
    Over { key: String, error: Option<String> },
    /// The processes do not agree on a query that is started in the first, or it was stopped before they did: it is not
    /// built.
    Refused { key: String, error: Option<String> },
    /// Another process has started a query, or could not.
    There {
        process: usize,
        key: String,
        started: Result<Planned, String>,
    },
    /// Another process starts nothing more.
    Ended { process: usize },
    /// What was started in earlier generations.
    Started(Started),
    /// The session is closed.
    Close,
}

#[derive(Default)]
struct Shared {
    failed: AtomicBool,
    reason: Mutex<Option<Gone>>,
    lost: Mutex<Option<Lost>>,
    threads: Mutex<Vec<Thread>>,
}

impl Shared {
    fn fail(&self, reason: Gone) {
        lock(&self.reason).get_or_insert(reason);
        self.failed.store(true, Ordering::SeqCst);
        for thread in lock(&self.threads).iter() {
            thread.unpark();
        }
    }
}

/// The worker threads of this process in one generation.
pub(crate) struct Workers {
    /// Empty when they have left.
    commands: Mutex<Vec<Sender<Command>>>,
    /// What they did not take.
    left: Vec<Receiver<Command>>,
    running: Mutex<Option<Running>>,
    shared: Arc<Shared>,
    pub(crate) generation: u64,
}

/// What is left to wait for.
struct Running {
    guards: WorkerGuards<()>,
    comms: Box<dyn Any + Send>,
    link: Option<Arc<Link>>,
    pulse: Option<Sender<()>>,
}

impl Workers {
    /// Starts them.
    ///
    /// `limit` is how long processes wait for each other to start a query.
    pub(crate) fn start(joined: Joined, limit: Duration) -> Result<Self, String> {
        watch_panics();
        let Joined {
            generation,
            builders,
            comms,
            link,
            pulse,
        } = joined;
        let shared = Arc::new(Shared::default());
        let (senders, receivers): (Vec<_>, Vec<_>) =
            builders.iter().map(|_| unbounded::<Command>()).unzip();
        let left = receivers.clone();
        let worker_shared = Arc::clone(&shared);
        let local = senders.len();
        // Network threads are waited for apart: they may have panicked, which timely's guard would pass on.
        let guards = timely::execute::execute_from(
            builders,
            Box::new(()),
            WorkerConfig::default(),
            move |worker| {
                let shared = &worker_shared;
                lock(&shared.threads).push(std::thread::current());
                WORKS_FOR.with(|works_for| {
                    let _ = works_for.set(Arc::clone(shared));
                });
                let commands = &receivers[worker.index() % local];
                let mut queries = Queries::default();
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    run(worker, local, limit, commands, shared, &mut queries)
                }));
                if let Err(panic) = outcome {
                    shared.fail(Gone::Over(panic_text(panic.as_ref())));
                }
                let reason = lock(&shared.reason).clone();
                let reason =
                    reason.unwrap_or_else(|| Gone::Over("the session was closed".to_string()));
                // What is not complete would keep the thread waiting for ever.
                for dataflow in worker.installed_dataflows() {
                    let _ = catch_unwind(AssertUnwindSafe(|| worker.drop_dataflow(dataflow)));
                }
                queries.end(&reason);
            },
        )?;
        if let Some(link) = &link {
            let told = Arc::clone(&shared);
            link.on_lost(move |lost| {
                *lock(&told.lost) = Some(lost.clone());
                told.fail(Gone::Lost(lost.text.clone()));
            });
        }
        Ok(Workers {
            commands: Mutex::new(senders),
            left,
            running: Mutex::new(Some(Running {
                guards,
                comms,
                link,
                pulse,
            })),
            shared,
            generation,
        })
    }

    /// Builds a query on all workers.
    pub(crate) fn install(&self, installation: Installation) {
        if !self.send(&Command::Install(installation.clone())) {
            for _ in &self.left {
                (installation.ended)(Some(&self.reason()));
            }
        }
    }

    /// Says in the first process that these workers will not build a query: the others do not wait for it.
    pub(crate) fn is_over(&self, key: String, error: Option<String>) {
        self.send(&Command::Say(Turn::Over { key, error }));
    }

    /// Says in another process that it could not start a query: the first does not wait for it.
    pub(crate) fn could_not_start(&self, process: usize, key: String, error: String) {
        let started = Err(error);
        self.send(&Command::Say(Turn::There {
            process,
            key,
            started,
        }));
    }

    /// Says in another process that it starts nothing more.
    pub(crate) fn no_more(&self, process: usize) {
        self.send(&Command::Say(Turn::Ended { process }));
    }

    /// Says in the first process what was started in earlier generations.
    pub(crate) fn tell_started(&self, started: Started) {
        self.send(&Command::Say(Turn::Started(started)));
    }

    /// Ends the workers of all processes; said by the first.
    pub(crate) fn close(&self) {
        self.send(&Command::Say(Turn::Close));
    }

    /// Why the workers are gone, if they are.
    pub(crate) fn failure(&self) -> Option<Gone> {
        lock(&self.shared.reason).clone()
    }

    /// Who is lost, if that is why they are gone.
    pub(crate) fn lost(&self) -> Option<Lost> {
        lock(&self.shared.lost).clone()
    }

    fn reason(&self) -> Gone {
        let closed = || Gone::Over("the session was closed".into());
        self.failure().unwrap_or_else(closed)
    }

    /// Waits until they have left. Tells why, unless the session was closed. For one caller.
    pub(crate) fn wait(&self) -> Option<Gone> {
        let running = lock(&self.running).take()?;
        let joined = running.guards.join();
        if let Some(text) = joined.into_iter().find_map(Result::err) {
            self.shared.fail(Gone::Over(text));
        }
        // What they did not take any more.
        lock(&self.commands).clear();
        for command in self.left.iter().flat_map(Receiver::try_iter) {
            if let Command::Install(query) = command {
                (query.ended)(Some(&self.reason()));
            }
        }
        if let Some(link) = &running.link {
            link.release();
        }
        let reason = self.failure();
        match &reason {
            // Threads that lost their peer panic, or wait for it.
            Some(_) => std::mem::forget(running.comms),
            None => {
                let comms = AssertUnwindSafe(running.comms);
                let _ = catch_unwind(move || drop({ comms }.0));
            }
        }
        drop(running.pulse);
        reason
    }

    /// False if they have left.
    fn send(&self, command: &Command) -> bool {
        // One lock: the same order at every worker of this process.
        let commands = lock(&self.commands);
        for sender in commands.iter() {
            let _ = sender.send(command.clone());
        }
        for thread in lock(&self.shared.threads).iter() {
            thread.unpark();
        }
        !commands.is_empty()
    }
}

/// The queries one worker knows.
#[derive(Default)]
struct Queries {
    /// Started in this process, waiting for their turn.
    waiting: BTreeMap<String, Installation>,
    /// Built and not complete.
    live: Vec<(ProbeHandle<u64>, Installation)>,
    /// What the first process started before this generation.
    started: Started,
}

impl Queries {
    /// A query of this process waits for its turn, unless it had one and is over.
    fn wait(&mut self, query: Installation) {
        if let Some(error) = self.started.over.get(&query.key) {
            let reason = error.clone().map(Gone::Over);
            (query.ended)(reason.as_ref());
        } else if self.started.is_over(&query.key) {
            (query.ended)(None);
        } else {
            self.waiting.insert(query.key.clone(), query);
        }
    }

    /// Ends those that wait and are over.
    fn learn(&mut self, started: Started) {
        self.started = started;
        for (_, query) in std::mem::take(&mut self.waiting) {
            self.wait(query);
        }
    }

    fn end(&mut self, reason: &Gone) {
        for (_, query) in std::mem::take(&mut self.waiting) {
            (query.ended)(Some(reason));
        }
        for (_, query) in self.live.drain(..) {
            (query.ended)(Some(reason));
        }
    }
}

fn run(
    worker: &mut Worker,
    local: usize,
    limit: Duration,
    commands: &Receiver<Command>,
    shared: &Shared,
    queries: &mut Queries,
) {
    let turns: Rc<RefCell<VecDeque<Turn>>> = Rc::default();
    let arriving = Rc::clone(&turns);
    let mut announce = worker.dataflow_named::<u64, _, _>("Commands", |scope| {
        let (handle, stream) = scope.new_input::<Vec<Turn>>();
        stream
            .broadcast()
            .unary::<CapacityContainerBuilder<Vec<Turn>>, _, _, _>(
                Pipeline,
                "Turns",
                move |_, _| {
                    move |input, _output| {
                        input.for_each(|_, keys| arriving.borrow_mut().extend(keys.drain(..)))
                    }
                },
            );
        handle
    });
    let orders_here = worker.index() == 0;
    let process = worker.index() / local;
    let is_first = process == 0;
    let speaks = worker.index().is_multiple_of(local);
    let mut agreement = Agreement::new(worker.peers() / local, limit);
    let mut turn = 0u64;
    let mut announce = move |said: Turn| {
        turn += 1;
        announce.send(said);
        announce.advance_to(turn);
        announce.flush();
    };
    loop {
        if shared.failed.load(Ordering::SeqCst) {
            return;
        }
        while let Ok(command) = commands.try_recv() {
            match command {
                Command::Install(query) => {
                    let (key, planned) = (query.key.clone(), query.planned.clone());
                    let beginning = query.beginning.clone();
                    queries.wait(query);
                    let waits = queries.waiting.contains_key(&key);
                    if waits && orders_here {
                        agreement.here(key, planned, beginning, now());
                    } else if waits && speaks {
                        announce(Turn::There {
                            process,
                            key,
                            started: Ok(planned),
                        });
                    }
                }
                Command::Say(said) if speaks => announce(said),
                Command::Say(_) => {}
            }
        }
        loop {
            let Some(next) = turns.borrow_mut().pop_front() else {
                break;
            };
            match next {
                Turn::Close => return,
                // The first process knows what it started itself.
                Turn::Started(_) | Turn::Over { .. } if is_first => {}
                Turn::Started(started) => queries.learn(started),
                Turn::There {
                    process,
                    key,
                    started,
                } => agreement.there(process, key, started),
                Turn::Ended { process } => agreement.ended(process),
                Turn::Refused { key, error } | Turn::Over { key, error } => {
                    queries.started.over.insert(key, error);
                    let started = std::mem::take(&mut queries.started);
                    queries.learn(started);
                }
                Turn::Build { key, beginning } => {
                    let Some(query) = queries.waiting.remove(&key) else {
                        turns
                            .borrow_mut()
                            .push_front(Turn::Build { key, beginning });
                        break;
                    };
                    let probe = (query.build)(worker, &beginning);
                    queries.live.push((probe, query));
                }
            }
        }
        let is_stopping = |key: &str| {
            let query = queries.waiting.get(key);
            query.is_some_and(|query| (query.is_stopping)())
        };
        for verdict in agreement.decide(now(), is_stopping) {
            announce(match verdict {
                Verdict::Build { key, beginning } => Turn::Build { key, beginning },
                Verdict::Refuse { key, error } => Turn::Refused { key, error },
            });
        }
        queries.live.retain(|(probe, query)| {
            if probe.done() {
                (query.ended)(None);
            }
            !probe.done()
        });
        worker.step_or_park(agreement.is_waiting().then_some(LOOK));
    }
}

/// A lock whose holder panicked is still good: every critical section here is a plain read or write.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a worker panicked".into())
}

thread_local! {
    /// The session of this worker thread.
    static WORKS_FOR: OnceCell<Arc<Shared>> = const { OnceCell::new() };
}

/// Worker, network and reader threads report a panic as an error of the session; its backtrace helps nobody. timely's
/// network threads panic when a peer is gone, while a parked worker would never notice: here it is told.
pub(crate) fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            if name.starts_with("timely:recv-") || name.starts_with("timely:send-") {
                network_thread_panicked();
            } else if name.starts_with("timely:") || name.starts_with("highwater:") {
                // A lost peer poisons what its connection shared with the workers: that has been told.
                let told = WORKS_FOR.try_with(|shared| {
                    let shared = shared.get();
                    shared.is_some_and(|shared| shared.failed.load(Ordering::SeqCst))
                });
                let told = told.unwrap_or(false);
                match told {
                    true => tracing::debug!("{name}: {info}"),
                    false => tracing::error!("{name}: {info}"),
                }
            } else {
                usual(info);
            }
        }));
    });
}
