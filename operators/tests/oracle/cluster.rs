//! Runs a dataflow on some number of workers and processes.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use highwater_operators::arrangement::{Budget, HeapStore};
use highwater_operators::{BatchBuilder, Edge, Failure, Rows};
use timely::WorkerConfig;
use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::{AllocatorBuilder, Hooks};
use timely::dataflow::ProbeHandle;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Input, Operator, Probe};
use timely::worker::Worker;

use crate::data::{Epochs, Random};

/// How many workers, where.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cluster {
    /// Threads that hand each other rows.
    Threads(usize),
    /// Threads that hand each other bytes.
    Bytes(usize),
    /// Processes' worth of workers, connected by sockets: all bytes are real, only the address space is shared.
    Sockets { processes: usize, threads: usize },
}

pub(crate) const CLUSTERS: [Cluster; 5] = [
    Cluster::Threads(1),
    Cluster::Threads(2),
    Cluster::Bytes(4),
    Cluster::Sockets {
        processes: 2,
        threads: 1,
    },
    Cluster::Sockets {
        processes: 2,
        threads: 2,
    },
];

impl Cluster {
    pub(crate) fn workers(self) -> usize {
        match self {
            Cluster::Threads(n) | Cluster::Bytes(n) => n,
            Cluster::Sockets { processes, threads } => processes * threads,
        }
    }

    /// Runs `work` on every worker; the results by worker.
    pub(crate) fn run<T: Send + 'static>(
        self,
        work: impl Fn(&mut Worker) -> T + Send + Sync + 'static,
    ) -> Vec<T> {
        let work = Arc::new(work);
        let config = match self {
            Cluster::Threads(n) => timely::Config::process(n),
            Cluster::Bytes(n) => timely::Config {
                communication: timely::CommunicationConfig::ProcessBinary(n),
                worker: WorkerConfig::default(),
            },
            Cluster::Sockets { processes, threads } => {
                let mut sockets: Vec<Vec<Option<UnixStream>>> = (0..processes)
                    .map(|_| (0..processes).map(|_| None).collect())
                    .collect();
                let pairs = (0..processes).flat_map(|i| (0..i).map(move |j| (i, j)));
                for (one, other) in pairs {
                    let (left, right) = UnixStream::pair().unwrap();
                    sockets[one][other] = Some(left);
                    sockets[other][one] = Some(right);
                }
                let handles: Vec<_> = sockets
                    .into_iter()
                    .enumerate()
                    .map(|(process, sockets)| {
                        let work = Arc::clone(&work);
                        std::thread::spawn(move || {
                            let hooks = Hooks::default();
                            let local = ProcessBuilder::new_typed_vector(
                                threads,
                                hooks.refill.clone(),
                                None,
                            );
                            let (builders, guard) = initialize_networking_from_sockets(
                                local, sockets, process, threads, hooks,
                            )
                            .unwrap();
                            let builders =
                                builders.into_iter().map(AllocatorBuilder::Tcp).collect();
                            let config = WorkerConfig::default();
                            let guards = timely::execute::execute_from(
                                builders,
                                Box::new(guard),
                                config,
                                move |worker| work(worker),
                            )
                            .unwrap();
                            let results = guards.join();
                            results.into_iter().map(|r| r.unwrap()).collect::<Vec<T>>()
                        })
                    })
                    .collect();
                return handles
                    .into_iter()
                    .flat_map(|handle| handle.join().unwrap())
                    .collect();
            }
        };
        let guards = timely::execute(config, move |worker| work(worker)).unwrap();
        guards
            .join()
            .into_iter()
            .map(|result| result.unwrap())
            .collect()
    }
}

/// Every other time a memory limit that sends all state, or most of it, to files.
pub(crate) fn tiny_budget(number: u64) -> Option<Arc<Budget>> {
    let limits = [None, Some(0), None, Some(30_000), None, Some(3_000)];
    let limit = limits[number as usize % limits.len()];
    limit.map(|bytes| Budget::new(bytes, HeapStore::default()))
}

/// What a dataflow put out on all workers: batches by epoch, or the first failure.
pub(crate) type Output = Result<Vec<(u64, RecordBatch)>, String>;

/// Feeds epochs `first..` of `epochs` to the dataflow that `build` makes, and returns what it puts out.
pub(crate) fn run<B>(
    cluster: Cluster,
    epochs: &Arc<Epochs>,
    first: usize,
    edge: Edge,
    seed: u64,
    build: B,
) -> Output
where
    B: for<'s> Fn(Rows<'s>, &Failure) -> Rows<'s> + Send + Sync + 'static,
{
    let epochs = Arc::clone(epochs);
    let results = cluster.run(move |worker| drive(worker, &epochs, first, &edge, seed, &build));
    let mut all = Vec::new();
    for result in results {
        all.extend(result?);
    }
    all.sort_by_key(|(epoch, _)| *epoch);
    Ok(all)
}

fn drive<B>(
    worker: &mut Worker,
    epochs: &Epochs,
    first: usize,
    edge: &Edge,
    seed: u64,
    build: &B,
) -> Output
where
    B: for<'s> Fn(Rows<'s>, &Failure) -> Rows<'s>,
{
    let (index, peers) = (worker.index(), worker.peers());
    let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let failure = Failure::default();
    let probe = ProbeHandle::<u64>::new();
    let mut input = worker.dataflow::<u64, _, _>(|scope| {
        let (input, stream) = scope.new_input_with_builder::<BatchBuilder>();
        let rows = build(
            Rows {
                stream,
                edge: edge.clone(),
            },
            &failure,
        );
        let schema = rows.edge.physical();
        let (seen, failure) = (std::rc::Rc::clone(&seen), failure.clone());
        rows.stream
            .unary::<BatchBuilder, _, _, _>(Pipeline, "Collect", move |_, _| {
                move |input, _output| {
                    input.for_each(|epoch, batch| {
                        let epoch = *epoch.time();
                        match std::mem::take(batch).into_rows(&schema) {
                            Ok(rows) => seen.borrow_mut().push((epoch, rows)),
                            Err(error) => failure.set(epoch, error),
                        }
                    });
                }
            })
            .probe_with(&probe);
        input
    });
    // What every worker must agree on comes from one generator, what is its own from another. An epoch's begins anew: a
    // run that goes on from there gets the rows in the same order.
    let mut own = Random::new(seed ^ (index as u64 + 1) << 32);
    input.advance_to(first as u64);
    for epoch in first..epochs.rows.len() {
        let mut shared = Random::new(seed.wrapping_mul(1 << 20).wrapping_add(epoch as u64));
        let batches = epochs.batches(epoch, edge.ordered, &mut shared);
        let mine = batches
            .into_iter()
            .filter(|_| shared.below(peers as u64) as usize == index);
        for batch in mine {
            input.send_batch(&mut batch.into());
            if own.chance(30) {
                worker.step();
            }
        }
        input.advance_to(epoch as u64 + 1);
        // Sometimes wait for the epoch, sometimes let several run at once.
        if shared.chance(30) {
            worker.step_while(|| probe.less_than(&(epoch as u64 + 1)));
        }
    }
    let end = epochs.rows.len() as u64;
    worker.step_while(|| probe.less_than(&end));
    input.close();
    worker.step_while(|| !probe.done());
    if let Some((epoch, text)) = failure.text() {
        return Err(format!("epoch {epoch}: {text}"));
    }
    Ok(seen.take())
}
