//! Leaves the state of this worker's operators for a checkpoint.
//!
//! Operators take their snapshots when they have run the epoch; a thread writes them, and this operator tells the
//! coordinator when that is done. The capability it keeps meanwhile holds nothing else back: the checkpoint has a
//! stream of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crossbeam_channel::Sender;
use highwater_operators::arrangement::{Shared, Snapshot, Snapshots};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::{Capability, Operator};
use timely::dataflow::{Scope, Stream};

use super::orders::Order;
use super::write::Said;
use crate::checkpoint::{Uploaded, Uploader};
use crate::coordinator::Event;

/// An operator with state on this worker.
pub(crate) struct Stateful {
    pub(crate) name: String,
    pub(crate) snapshots: Snapshots,
    pub(crate) arrangement: Option<Shared>,
}

/// All of them, filled while the dataflow is built.
pub(crate) type Registry = Rc<RefCell<Vec<Stateful>>>;

type Texts = CapacityContainerBuilder<Vec<String>>;

/// Writes the state of the operators in `registry` when the orders ask for it. `sayings` tells when an epoch is over.
pub(crate) fn save<'s>(
    scope: Scope<'s, u64>,
    orders: Stream<'s, u64, Vec<Order>>,
    sayings: Stream<'s, u64, Vec<Said>>,
    registry: Registry,
    uploader: impl FnOnce(Box<dyn Fn() + Send>) -> Uploader,
    coordinator: Option<Sender<Event>>,
) {
    let (worker, peers) = (scope.worker().index(), scope.worker().peers());
    let uploaded = orders.binary_frontier::<Vec<Said>, Texts, _, _, _, _>(
        sayings,
        Pipeline,
        Pipeline,
        "Save",
        move |_, info| {
            let bell = scope.worker().sync_activator_for(info.address.to_vec());
            let uploader = uploader(Box::new(move || {
                let _ = bell.activate();
            }));
            // Wanted and not yet taken: by epoch, whether the epoch was over when it was asked.
            let mut wanted: BTreeMap<u64, (Capability<u64>, bool)> = BTreeMap::new();
            let mut writing: BTreeMap<u64, Capability<u64>> = BTreeMap::new();
            move |(orders, _), (sayings, frontier), output| {
                orders.for_each(|at, orders| {
                    for order in orders.drain(..) {
                        if let Order::Checkpoint { epoch, settled, .. } = order {
                            wanted.insert(epoch, (at.retain(0), settled));
                        }
                    }
                });
                sayings.for_each(|_, _| {});
                while let Some(entry) = wanted.first_entry() {
                    if frontier.less_equal(entry.key()) {
                        break;
                    }
                    let (epoch, (capability, settled)) = entry.remove_entry();
                    let mut snapshots: Vec<(String, Snapshot)> = Vec::new();
                    for operator in registry.borrow().iter() {
                        let taken = match (&operator.arrangement, settled) {
                            (Some(shared), true) => Some(shared.snapshot(worker, peers, epoch + 1)),
                            _ => operator.snapshots.take(epoch),
                        };
                        snapshots.extend(taken.map(|taken| (operator.name.clone(), taken)));
                    }
                    uploader.upload(epoch, snapshots);
                    writing.insert(epoch, capability);
                }
                while let Some(uploaded) = uploader.done() {
                    if let Some(capability) = writing.remove(&uploaded.epoch) {
                        let text = serde_json::to_string(&uploaded).expect("plain data");
                        output.session(&capability).give(text);
                    }
                }
            }
        },
    );
    let pact = Exchange::new(|_: &String| 0);
    uploaded.unary::<CapacityContainerBuilder<Vec<()>>, _, _, _>(pact, "Saved", move |_, _| {
        move |input, _output| {
            input.for_each(|_, texts| {
                for text in texts.drain(..) {
                    if let Some(coordinator) = &coordinator {
                        let uploaded: Uploaded =
                            serde_json::from_str(&text).expect("written by a sister worker");
                        let _ = coordinator.send(Event::Uploaded(uploaded));
                    }
                }
            });
        }
    });
}
