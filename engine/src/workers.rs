//! The worker threads of this process, and the one order in which they build dataflows.
//!
//! timely needs every worker of every process to build the same dataflows in the same order. A program may start
//! queries from several threads, so worker 0 of process 0 decides the order: it broadcasts the key of each query as
//! it is started there, and where it begins, and every worker builds a query when its key arrives and its own process has started it.

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::thread::Thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use timely::WorkerConfig;
use timely::communication::WorkerGuards;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::ProbeHandle;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Input, Operator, vec::Broadcast};
use timely::worker::Worker;

use crate::cluster::Allocators;

/// Builds one query's dataflow on one worker. The text says where it begins, the same in every process.
pub(crate) type Build = Arc<dyn Fn(&mut Worker, &str) -> ProbeHandle<u64> + Send + Sync>;

/// Hears that a worker's part of a query is over.
pub(crate) type Ended = Arc<dyn Fn(Option<&str>) + Send + Sync>;

/// A query to build.
#[derive(Clone)]
pub(crate) struct Installation {
    /// The same in every process, and for no other query.
    pub(crate) key: String,
    /// Where the query begins, as text; the first process's counts.
    pub(crate) beginning: String,
    /// Builds it.
    pub(crate) build: Build,
    /// Called once per worker of this process, when its part of the dataflow is complete or (with the reason) gone.
    pub(crate) ended: Ended,
}

#[derive(Clone)]
enum Command {
    Install(Installation),
    Close,
}

/// A query's turn: its key and where it begins. The empty key ends all workers.
type Turn = (String, String);

#[derive(Default)]
struct Shared {
    failed: AtomicBool,
    reason: Mutex<Option<String>>,
    threads: Mutex<Vec<Thread>>,
}

impl Shared {
    fn fail(&self, reason: String) {
        lock(&self.reason).get_or_insert(reason);
        self.failed.store(true, Ordering::SeqCst);
        for thread in lock(&self.threads).iter() {
            thread.unpark();
        }
    }
}

/// The worker threads of this process.
pub(crate) struct Workers {
    commands: Mutex<Vec<Sender<Command>>>,
    guards: Mutex<Option<WorkerGuards<()>>>,
    shared: Arc<Shared>,
    first_process: bool,
}

impl Workers {
    /// Starts them. `first_process` is true in the process whose worker 0 orders the commands.
    pub(crate) fn start(
        allocators: Allocators,
        first_process: bool,
        processes: usize,
    ) -> Result<Self, String> {
        watch_panics();
        let (builders, guard) = allocators;
        let shared = Arc::new(Shared::default());
        if processes > 1 {
            lock(&CLUSTERS).push(Arc::downgrade(&shared));
        }
        let (senders, receivers): (Vec<_>, Vec<_>) =
            builders.iter().map(|_| unbounded::<Command>()).unzip();
        let receivers: Mutex<Vec<Option<Receiver<Command>>>> =
            Mutex::new(receivers.into_iter().map(Some).collect());
        let worker_shared = Arc::clone(&shared);
        let local = senders.len();
        let guards = timely::execute::execute_from(
            builders,
            guard,
            WorkerConfig::default(),
            move |worker| {
                let shared = &worker_shared;
                lock(&shared.threads).push(std::thread::current());
                let commands = lock(&receivers)[worker.index() % local]
                    .take()
                    .expect("each worker starts once");
                let mut queries = Queries::default();
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    run(worker, &commands, shared, &mut queries)
                }));
                if let Err(panic) = outcome {
                    shared.fail(panic_text(panic.as_ref()));
                }
                let reason = lock(&shared.reason).clone();
                queries.end(reason.as_deref().unwrap_or("the session was closed"));
                // What is not complete would keep the thread waiting for ever.
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    for dataflow in worker.installed_dataflows() {
                        worker.drop_dataflow(dataflow);
                    }
                }));
            },
        )?;
        Ok(Workers {
            commands: Mutex::new(senders),
            guards: Mutex::new(Some(guards)),
            shared,
            first_process,
        })
    }

    /// Builds a query on all workers.
    pub(crate) fn install(&self, installation: Installation) {
        if let Some(reason) = self.failure() {
            for _ in 0..lock(&self.commands).len() {
                (installation.ended)(Some(&reason));
            }
            return;
        }
        self.send(Command::Install(installation));
    }

    /// Why the workers are gone, if they are.
    pub(crate) fn failure(&self) -> Option<String> {
        lock(&self.shared.reason).clone()
    }

    /// Ends the workers of all processes (said by the first) and waits for this process's.
    pub(crate) fn close(&self) {
        if self.first_process {
            self.send(Command::Close);
        }
        let Some(guards) = lock(&self.guards).take() else {
            return;
        };
        if self.failure().is_some() {
            // timely's guards wait for its threads and panic when one of them did. Those of a session that lost a
            // peer have: they are let go.
            std::mem::forget(guards);
            return;
        }
        drop(guards);
    }

    fn send(&self, command: Command) {
        // One lock: the same order at every worker of this process.
        let commands = lock(&self.commands);
        for sender in commands.iter() {
            let _ = sender.send(command.clone());
        }
        for thread in lock(&self.shared.threads).iter() {
            thread.unpark();
        }
    }
}

/// The queries one worker knows.
#[derive(Default)]
struct Queries {
    /// Started in this process, waiting for their turn.
    waiting: BTreeMap<String, Installation>,
    /// Built and not complete.
    live: Vec<(ProbeHandle<u64>, Installation)>,
}

impl Queries {
    fn end(&mut self, reason: &str) {
        for (_, query) in std::mem::take(&mut self.waiting) {
            (query.ended)(Some(reason));
        }
        for (_, query) in self.live.drain(..) {
            (query.ended)(Some(reason));
        }
    }
}

fn run(worker: &mut Worker, commands: &Receiver<Command>, shared: &Shared, queries: &mut Queries) {
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
    let mut turn = 0u64;
    loop {
        if shared.failed.load(Ordering::SeqCst) {
            return;
        }
        while let Ok(command) = commands.try_recv() {
            let said = match command {
                Command::Install(query) => {
                    let said = (query.key.clone(), query.beginning.clone());
                    queries.waiting.insert(query.key.clone(), query);
                    said
                }
                Command::Close => Turn::default(),
            };
            if orders_here {
                turn += 1;
                announce.send(said);
                announce.advance_to(turn);
                announce.flush();
            }
        }
        loop {
            let Some((key, beginning)) = turns.borrow().front().cloned() else {
                break;
            };
            if key.is_empty() {
                return;
            }
            let Some(query) = queries.waiting.remove(&key) else {
                break;
            };
            turns.borrow_mut().pop_front();
            let probe = (query.build)(worker, &beginning);
            queries.live.push((probe, query));
        }
        queries.live.retain(|(probe, query)| {
            if probe.done() {
                (query.ended)(None);
            }
            !probe.done()
        });
        worker.step_or_park(None);
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

/// Workers that talk to other processes: they end when a connection does.
static CLUSTERS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// Worker, network and reader threads report a panic as an error of the session; its backtrace helps nobody. timely's
/// network threads panic when a peer is gone, while a parked worker would never notice: here it is told.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            let peer = name
                .strip_prefix("timely:recv-")
                .or_else(|| name.strip_prefix("timely:send-"));
            if let Some(peer) = peer {
                for shared in lock(&CLUSTERS).iter().filter_map(Weak::upgrade) {
                    shared.fail(format!("the connection to process {peer} is lost"));
                }
            } else if name.starts_with("timely:") || name.starts_with("highwater:") {
                // A lost peer poisons what its connection shared with the workers: that has been told.
                let mut clusters = lock(&CLUSTERS).clone().into_iter();
                let told = clusters.any(|shared| {
                    shared
                        .upgrade()
                        .is_some_and(|shared| shared.failed.load(Ordering::SeqCst))
                });
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
