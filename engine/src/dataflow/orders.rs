//! From the coordinator to the workers: which splits each one reads in an epoch.
//!
//! The coordinator is a thread that may block on files and sockets; what it decides enters the dataflow at worker 0,
//! as data, under the epoch's capability. So an epoch is complete at an operator exactly when its frontier says so.

use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Operator;
use timely::dataflow::operators::generic::operator::source;
use timely::dataflow::{Scope, Stream};
use timely::scheduling::SyncActivator;

use crate::source::Split;
use crate::workers::lock;

/// What one worker is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Read a split.
    Read {
        /// Who reads it.
        worker: usize,
        /// Which of the query's sources it belongs to.
        source: usize,
        /// Its place among the splits of this source in this epoch.
        ordinal: u64,
        /// The split.
        split: Split,
        /// The epoch's clock: microseconds since 1970.
        clock_us: i64,
    },
    /// Let static rows in: with the query's first epoch, on one worker.
    Enter {
        /// Who lets them in.
        worker: usize,
    },
    /// Leave the state after `epoch` for the checkpoint.
    Checkpoint {
        /// Who leaves it.
        worker: usize,
        /// The epoch.
        epoch: u64,
        /// True if the epoch is over and none is open: the order comes with no rows. Otherwise it comes with the rows
        /// of the epoch.
        settled: bool,
    },
    /// A run of epochs goes to the sink. Comes with the rows of its first epoch if that is its only one, else when all
    /// of them are over; where rows are handed over, when they may be.
    Stage {
        /// Whose writer stages it.
        worker: usize,
        /// Of which of the query's sinks.
        sink: usize,
        /// Its first epoch.
        first: u64,
        /// Its last epoch.
        last: u64,
    },
    /// A run begins that other epochs may join. Comes with the rows of its first epoch.
    Begin {
        /// Whose writer keeps its rows.
        worker: usize,
        /// Of which of the query's sinks.
        sink: usize,
        /// Its first epoch.
        first: u64,
    },
    /// The epochs before `before` are over, and what came of them belongs to the next run. Comes with the rows of a later
    /// epoch.
    Write {
        /// Whose writer may write them.
        worker: usize,
        /// Of which of the query's sinks.
        sink: usize,
        /// The first epoch that is not meant.
        before: u64,
    },
    /// These watermarks do not hold back that of the epoch: their streams are idle. Comes with the rows of the epoch.
    Idle {
        /// Who is told.
        worker: usize,
        /// Which.
        watermarks: Vec<u32>,
    },
    /// The query ends, with this error if it failed.
    End {
        /// Who is told.
        worker: usize,
        /// Why.
        error: Option<String>,
    },
}

impl Order {
    fn worker(&self) -> usize {
        match self {
            Order::Read { worker, .. }
            | Order::Enter { worker }
            | Order::Checkpoint { worker, .. }
            | Order::Stage { worker, .. }
            | Order::Begin { worker, .. }
            | Order::Write { worker, .. }
            | Order::Idle { worker, .. }
            | Order::End { worker, .. } => *worker,
        }
    }
}

enum Entry {
    /// The next epoch's orders. Epochs are dense: each entry is one epoch.
    Epoch(Vec<Order>),
    /// Orders without rows, before the next epoch.
    Note(Vec<Order>),
    End(Vec<Order>),
}

/// The coordinator's end.
pub(crate) struct Feed {
    entries: Sender<Entry>,
    bell: Bell,
}

/// The dataflow's end, taken by worker 0.
#[derive(Clone)]
pub(crate) struct FeedInput {
    entries: Receiver<Entry>,
    bell: Bell,
}

#[cfg(test)]
impl FeedInput {
    /// Epochs that no dataflow has taken.
    pub(crate) fn waiting(&self) -> usize {
        self.entries.len()
    }
}

type Bell = Arc<Mutex<Option<SyncActivator>>>;

/// A feed of epochs.
pub(crate) fn feed() -> (Feed, FeedInput) {
    let (sender, receiver) = unbounded();
    let bell = Bell::default();
    (
        Feed {
            entries: sender,
            bell: Arc::clone(&bell),
        },
        FeedInput {
            entries: receiver,
            bell,
        },
    )
}

impl Feed {
    /// Opens the next epoch.
    pub(crate) fn open(&self, orders: Vec<Order>) {
        self.send(Entry::Epoch(orders));
    }

    /// Says something before the next epoch is open.
    pub(crate) fn note(&self, orders: Vec<Order>) {
        self.send(Entry::Note(orders));
    }

    /// Ends the query on all `peers` workers: the dataflow drains and completes.
    pub(crate) fn end(&self, peers: usize, error: Option<&str>) {
        let orders = (0..peers).map(|worker| Order::End {
            worker,
            error: error.map(str::to_string),
        });
        self.send(Entry::End(orders.collect()));
    }

    /// Says no more, and does not end the query: the workers of this generation are lost.
    pub(crate) fn abandon(&self) {
        // A channel whose sender is gone means the end. This one is kept for good: some bytes for each lost process.
        std::mem::forget(self.entries.clone());
    }

    fn send(&self, entry: Entry) {
        let _ = self.entries.send(entry);
        // Before the dataflow is built there is no bell, and no need: the operator looks when it is first scheduled.
        if let Some(bell) = lock(&self.bell).as_ref() {
            let _ = bell.activate();
        }
    }
}

type Orders = CapacityContainerBuilder<Vec<Order>>;

/// Brings orders to the workers they name, from `first_epoch` on; `on_end` hears of the end, `on_checkpoint` of each
/// epoch after which the state is wanted, before any operator runs that epoch.
pub(crate) fn orders<'s>(
    scope: Scope<'s, u64>,
    input: Option<FeedInput>,
    first_epoch: u64,
    on_end: impl Fn(Option<String>) + 'static,
    on_checkpoint: impl Fn(u64) + 'static,
) -> Stream<'s, u64, Vec<Order>> {
    let entered = source::<u64, Orders, _, _>(scope, "Epochs", move |capability, info| {
        // Only worker 0 opens epochs; the others give up their right at once.
        let mut capability = input.as_ref().map(|_| {
            let mut capability = capability;
            capability.downgrade(&first_epoch);
            capability
        });
        if let Some(input) = &input {
            *lock(&input.bell) = Some(scope.worker().sync_activator_for(info.address.to_vec()));
        }
        move |output| {
            let Some(input) = &input else { return };
            while let Some(epoch) = &mut capability {
                match input.entries.try_recv() {
                    Ok(Entry::Epoch(orders)) => {
                        output.session(epoch).give_iterator(orders.into_iter());
                        let next = *epoch.time() + 1;
                        epoch.downgrade(&next);
                    }
                    Ok(Entry::Note(orders)) => {
                        output.session(epoch).give_iterator(orders.into_iter());
                    }
                    Ok(Entry::End(orders)) => {
                        output.session(epoch).give_iterator(orders.into_iter());
                        capability = None;
                    }
                    Err(TryRecvError::Empty) => return,
                    Err(TryRecvError::Disconnected) => capability = None,
                }
            }
        }
    });
    let pact = Exchange::new(|order: &Order| order.worker() as u64);
    entered.unary::<Orders, _, _, _>(pact, "Orders", move |_, _| {
        move |input, output| {
            input.for_each(|epoch, orders| {
                let mut session = output.session(&epoch);
                for order in orders.drain(..) {
                    match order {
                        Order::End { error, .. } => on_end(error),
                        other => {
                            if let Order::Checkpoint {
                                epoch,
                                settled: false,
                                ..
                            } = other
                            {
                                on_checkpoint(epoch);
                            }
                            session.give(other);
                        }
                    }
                }
            });
        }
    })
}

/// The idle watermarks of each epoch among the orders of one worker.
pub(crate) fn idle<'s>(orders: Stream<'s, u64, Vec<Order>>) -> Stream<'s, u64, Vec<u32>> {
    orders.unary::<CapacityContainerBuilder<Vec<u32>>, _, _, _>(Pipeline, "Idle", move |_, _| {
        move |input, output| {
            input.for_each(|epoch, orders| {
                for order in orders.drain(..) {
                    if let Order::Idle { watermarks, .. } = order {
                        output.session(&epoch).give_iterator(watermarks.into_iter());
                    }
                }
            });
        }
    })
}
