//! Hands each epoch's rows to the sink's writers, and what they staged to the coordinator.
//!
//! The coordinator decides which epochs the sink commits together, once they are over on all workers: an epoch that
//! fails on one of them is in no run. So a writer takes no row of an epoch before an order says that it may: those of an
//! epoch that is a run alone as they come, all others are kept until then. If they are too many to keep, they are written
//! early: should an epoch of theirs fail, those before it can no more be told from it, and a restart brings them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use crossbeam_channel::{Receiver, Sender, unbounded};
use highwater_operators::memory::size_of;
use highwater_operators::metrics::{Meters, WorkerMetrics};
use highwater_operators::watermark::Account;
use highwater_operators::{Batch, Failure, OperatorError, Rows};
use serde::{Deserialize, Serialize};
use timely::container::{Accountable, CapacityContainerBuilder};
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::operator::empty;
use timely::dataflow::operators::{Operator, Probe};
use timely::dataflow::{ProbeHandle, Stream};
use timely::scheduling::SyncActivator;

use super::orders::Order;
use crate::coordinator::Event;
use crate::error::{error_chain, plain};
use crate::sink::{HandedOver, Receipt, SinkWriter};

/// A writer keeps so many bytes of rows that it may not write yet.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// What one worker says of one epoch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The first failure on this worker so far, if it covers the epoch.
    pub(crate) failure: Option<String>,
    /// What it counted.
    pub(crate) metrics: WorkerMetrics,
}

/// What one worker's writer says of a run of epochs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Staged {
    /// Which of the query's sinks it writes for.
    pub(crate) sink: usize,
    /// The last epoch of the run.
    pub(crate) last: u64,
    /// What was staged, unless that failed.
    pub(crate) receipt: Result<Receipt, String>,
}

/// Reports and marks of one epoch.
type Arrived = (Vec<Report>, Vec<(u32, i64)>);

/// Each watermark's marks as they arrive, and what keeps account of them.
pub(crate) type Marks<'s> = (Stream<'s, u64, Vec<(u32, i64)>>, Account);

/// What a worker tells the coordinator.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Said {
    /// An epoch is over here.
    Epoch(Report),
    /// A run is staged here.
    Staged(Staged),
}

type Sayings = CapacityContainerBuilder<Vec<Said>>;

/// Where a writer begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begin {
    /// The worker.
    pub(crate) worker: usize,
    /// Which of the query's sinks it writes for.
    pub(crate) sink: usize,
    /// The first epoch that runs.
    pub(crate) first_epoch: u64,
    /// The first epoch that the sink does not have: rows of those before it are dropped.
    pub(crate) first_written: u64,
    /// True if the sink takes runs when they are handed over.
    pub(crate) hands_over: bool,
}

/// Writes `rows` with `writer`. Every run of epochs that the orders name is staged. With `meters`, as the first sink has
/// them, every epoch gets a report from every worker, rows or not.
pub(crate) fn write<'s>(
    rows: Rows<'s>,
    orders: Stream<'s, u64, Vec<Order>>,
    writer: Option<Box<dyn SinkWriter>>,
    begin: Begin,
    failure: Failure,
    meters: Option<Meters>,
) -> Stream<'s, u64, Vec<Said>> {
    let schema = rows.edge.physical();
    let scope = rows.stream.scope();
    rows.stream
        .binary_frontier::<Vec<Order>, Sayings, _, _, _, _>(
            orders,
            Pipeline,
            Pipeline,
            "Write",
            move |mut capability, info| {
                capability.downgrade(&begin.first_epoch);
                let bell = scope.worker().sync_activator_for(info.address.to_vec());
                let mut desk = Desk {
                    writer,
                    worker: begin.worker,
                    sink: begin.sink,
                    told: BTreeMap::new(),
                    begun: BTreeSet::new(),
                    early: None,
                    kept_bytes: 0,
                    run_first: begin.first_written.max(begin.first_epoch),
                    writable: 0,
                    kept: BTreeMap::new(),
                    schema: Arc::clone(&schema),
                    failure: failure.clone(),
                    counter: begin.hands_over.then(|| Counter::new(bell)),
                };
                let mut held = Some(capability);
                let mut pending: BTreeMap<u64, (Vec<Batch>, usize)> = BTreeMap::new();
                move |(input, frontier), (orders, orders_frontier), output| {
                    orders.for_each(|_, orders| {
                        for order in orders.drain(..) {
                            let place = (begin.worker, begin.sink);
                            match order {
                                Order::Stage {
                                    worker,
                                    sink,
                                    first,
                                    last,
                                } if (worker, sink) == place => {
                                    desk.told.insert(last, first);
                                }
                                Order::Write {
                                    worker,
                                    sink,
                                    before,
                                } if (worker, sink) == place => desk.writable = before,
                                Order::Begin {
                                    worker,
                                    sink,
                                    first,
                                } if (worker, sink) == place => {
                                    desk.begun.insert(first);
                                }
                                _ => {}
                            }
                        }
                    });
                    if let Some(capability) = &held {
                        for staged in desk.handed_over() {
                            output.session(capability).give(Said::Staged(staged));
                        }
                    }
                    let current = held.as_ref().map(|capability| *capability.time());
                    let known = |epoch: u64| !orders_frontier.less_equal(&epoch);
                    input.for_each(|epoch, batch| {
                        let epoch = *epoch.time();
                        if epoch < begin.first_written {
                            return;
                        }
                        let batch = std::mem::take(batch);
                        let (batches, bytes) = pending.entry(epoch).or_default();
                        // Rows that are written now leave in this call; others wait, on memory of their own.
                        if Some(epoch) == current && known(epoch) && desk.is_next(epoch) {
                            batches.push(batch);
                            return;
                        }
                        match batch.into_owned_rows(&schema) {
                            Ok(rows) => {
                                *bytes += size_of(&rows);
                                batches.push(rows.into());
                            }
                            Err(error) => failure.set(epoch, error),
                        }
                    });
                    while let Some(capability) = &mut held {
                        let epoch = *capability.time();
                        for staged in desk.stage_before(epoch) {
                            output.session(capability).give(Said::Staged(staged));
                        }
                        if !known(epoch) {
                            break;
                        }
                        let over = !frontier.less_equal(&epoch);
                        let next = desk.is_next(epoch);
                        let bytes = pending.get(&epoch).map_or(0, |(_, bytes)| *bytes);
                        if (over || next || desk.kept_bytes + bytes > KEPT_BYTES_MAX)
                            && let Some((batches, bytes)) = pending.remove(&epoch)
                        {
                            if let Some(meters) = &meters {
                                let rows = batches.iter().map(Accountable::record_count);
                                meters.wrote(epoch, rows.sum::<i64>() as u64);
                            }
                            match next {
                                true => desk.write(epoch, batches),
                                false => desk.keep(epoch, batches, bytes),
                            }
                        }
                        if !over {
                            break;
                        }
                        if frontier.is_empty() && pending.is_empty() {
                            held = None;
                            break;
                        }
                        if let Some(meters) = &meters {
                            let metrics = meters.take(epoch);
                            let text = failure.text().filter(|_| failure.covers(epoch));
                            output.session(capability).give(Said::Epoch(Report {
                                failure: text.map(|(_, text)| plain(&text)),
                                metrics,
                            }));
                        }
                        capability.downgrade(&(epoch + 1));
                    }
                }
            },
        )
}

/// A writer and the runs it is told to stage.
struct Desk {
    writer: Option<Box<dyn SinkWriter>>,
    worker: usize,
    sink: usize,
    /// The runs to stage: the last epoch of each, and its first.
    told: BTreeMap<u64, u64>,
    /// The first epochs of runs that others may join.
    begun: BTreeSet<u64>,
    /// The last epoch whose rows were written before an order said so.
    early: Option<u64>,
    /// The first epoch that is in no run that was staged.
    run_first: u64,
    /// Kept rows of epochs before it can be written.
    writable: u64,
    /// Rows of epochs that are over here, until it is known that they are in the next run.
    kept: BTreeMap<u64, (Vec<Batch>, usize)>,
    /// What they take of the memory.
    kept_bytes: usize,
    schema: SchemaRef,
    failure: Failure,
    /// If the sink takes runs when they are handed over.
    counter: Option<Counter>,
}

/// The last epoch of a run that was handed over, and how that went.
type Answer = (u64, Result<Receipt, String>);

/// Where answers arrive for runs that were handed over.
struct Counter {
    answers: (Sender<Answer>, Receiver<Answer>),
    bell: SyncActivator,
}

impl Counter {
    fn new(bell: SyncActivator) -> Self {
        Counter {
            answers: unbounded(),
            bell,
        }
    }

    /// Takes the answer for the run that ends with `last`.
    fn taker(&self, last: u64) -> HandedOver {
        let (sender, bell) = (self.answers.0.clone(), self.bell.clone());
        Box::new(move |receipt| {
            let receipt = receipt.map_err(|error| error_chain(&error));
            let _ = sender.send((last, receipt));
            let _ = bell.activate();
        })
    }
}

impl Desk {
    /// True if `epoch` is the next run, and a run alone.
    fn is_next(&self, epoch: u64) -> bool {
        self.run_first == epoch && self.told.get(&epoch) == Some(&epoch)
    }

    fn write(&mut self, epoch: u64, batches: Vec<Batch>) {
        if self.failure.covers(epoch) {
            return;
        }
        let mut write = |batch: Batch| {
            let rows = batch.into_rows(&self.schema)?;
            let Some(writer) = &mut self.writer else {
                let text = "rows arrived at a worker without a writer";
                return Err(OperatorError::Other(text.into()));
            };
            let written = writer.write(epoch, &rows);
            written.map_err(|error| OperatorError::Other(error_chain(&error)))
        };
        if let Err(error) = batches.into_iter().try_for_each(&mut write) {
            self.failure.set(epoch, error);
        }
    }

    /// Keeps rows of an epoch; writes those of the next run early if they are too many.
    fn keep(&mut self, epoch: u64, batches: Vec<Batch>, bytes: usize) {
        let kept = self.kept.entry(epoch).or_default();
        kept.0.extend(batches);
        kept.1 += bytes;
        self.kept_bytes += bytes;
        let behind = self.run_first + 1;
        let begun = self.begun.range(behind..).next();
        let told = self.told.values().find(|first| **first >= behind);
        let ends = begun.into_iter().chain(told).min();
        if self.kept_bytes > KEPT_BYTES_MAX && ends.is_none_or(|ends| epoch < *ends) {
            self.early = Some(epoch);
            self.write_before(epoch + 1);
        }
    }

    /// Writes kept rows of epochs before `before`.
    fn write_before(&mut self, before: u64) {
        while let Some(kept) = self.kept.first_entry().filter(|kept| *kept.key() < before) {
            let (epoch, (batches, bytes)) = kept.remove_entry();
            self.kept_bytes -= bytes;
            self.write(epoch, batches);
        }
    }

    /// The runs that were handed over since the last time.
    fn handed_over(&mut self) -> Vec<Staged> {
        let Some(counter) = &self.counter else {
            return Vec::new();
        };
        let answers: Vec<Answer> = counter.answers.1.try_iter().collect();
        let staged = |(last, receipt)| self.answer(last, receipt);
        answers.into_iter().map(staged).collect()
    }

    fn answer(&self, last: u64, receipt: Result<Receipt, String>) -> Staged {
        if let Err(text) = &receipt {
            self.failure.set(last, OperatorError::Other(text.clone()));
        }
        Staged {
            sink: self.sink,
            last,
            receipt,
        }
    }

    /// Stages the runs that end before `epoch`, whose rows are all here, and writes what it may of the one behind them.
    fn stage_before(&mut self, epoch: u64) -> Vec<Staged> {
        let mut done = Vec::new();
        while let Some(run) = self.told.first_entry() {
            let (last, first) = (*run.key(), *run.get());
            if last >= epoch || first > self.run_first {
                return done;
            }
            run.remove();
            self.begun = self.begun.split_off(&(last + 1));
            self.write_before(last + 1);
            let Some(writer) = &mut self.writer else {
                continue;
            };
            let receipt = match self.failure.text().filter(|_| self.failure.covers(last)) {
                Some((_, text)) => Err(plain(&text)),
                None if self.early.is_some_and(|early| early > last) => {
                    Err(format!("epochs up to {last} were written with later ones"))
                }
                // The sink has the run already, while another sink of the query has not.
                None if last < self.run_first => Ok(Receipt {
                    worker: self.worker,
                    rows: 0,
                    body: String::new(),
                }),
                None => match &self.counter {
                    Some(counter) => {
                        writer.hand_over(self.run_first..=last, counter.taker(last));
                        self.run_first = last + 1;
                        continue;
                    }
                    None => writer
                        .stage(self.run_first..=last)
                        .map_err(|error| error_chain(&error)),
                },
            };
            self.run_first = self.run_first.max(last + 1);
            done.push(self.answer(last, receipt));
        }
        self.write_before(self.writable);
        done
    }
}

/// Brings what the workers say to worker 0 and tells the coordinator: runs at once, epochs when all workers are done
/// with them, in order.
pub(crate) fn collect<'s>(
    sayings: Stream<'s, u64, Vec<Said>>,
    marks: Option<Marks<'s>>,
    first_epoch: u64,
    coordinator: Option<Sender<Event>>,
) -> ProbeHandle<u64> {
    let probe = ProbeHandle::new();
    let (marks, mut account) = match marks {
        Some((marks, account)) => (marks, Some(account)),
        None => (empty(sayings.scope()), None),
    };
    let pact = Exchange::new(|_: &Said| 0);
    sayings
        .binary_frontier::<_, CapacityContainerBuilder<Vec<()>>, _, _, _, _>(
            marks,
            pact,
            Pipeline,
            "Collect",
            move |_, _| {
                let mut next = first_epoch;
                let mut arrived: BTreeMap<u64, Arrived> = BTreeMap::new();
                let tell = move |event: Event| {
                    if let Some(coordinator) = &coordinator {
                        let _ = coordinator.send(event);
                    }
                };
                move |(input, frontier), (marks, marks_frontier), _output| {
                    marks.for_each(|epoch, marks| {
                        let arrived = arrived.entry(*epoch.time()).or_default();
                        arrived.1.append(marks);
                    });
                    input.for_each(|epoch, sayings| {
                        for said in sayings.drain(..) {
                            match said {
                                Said::Epoch(report) => {
                                    let arrived = arrived.entry(*epoch.time()).or_default();
                                    arrived.0.push(report);
                                }
                                Said::Staged(staged) => tell(Event::Staged(staged)),
                            }
                        }
                    });
                    loop {
                        let ended = frontier.is_empty() && arrived.is_empty();
                        if ended || frontier.less_equal(&next) || marks_frontier.less_equal(&next) {
                            break;
                        }
                        let (reports, marks) = arrived.remove(&next).unwrap_or_default();
                        let marks_ms = account.as_mut().map(|account| account.after(&marks));
                        tell(Event::Complete {
                            epoch: next,
                            reports,
                            marks_ms: marks_ms.unwrap_or_default(),
                        });
                        next += 1;
                    }
                }
            },
        )
        .probe_with(&probe);
    probe
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;
    use std::sync::{Arc, Mutex};

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::sink::SinkError;

    /// Notes which epochs it gets rows of.
    struct Noted(Arc<Mutex<Vec<u64>>>);

    impl SinkWriter for Noted {
        fn write(&mut self, epoch: u64, _: &RecordBatch) -> Result<(), SinkError> {
            self.0.lock().expect("not poisoned").push(epoch);
            Ok(())
        }

        fn stage(&mut self, _: RangeInclusive<u64>) -> Result<Receipt, SinkError> {
            Ok(Receipt {
                worker: 0,
                rows: 0,
                body: String::new(),
            })
        }
    }

    /// A desk whose first runs begin with epochs 0 and 3, and what its writer notes.
    fn desk() -> (Desk, Arc<Mutex<Vec<u64>>>) {
        let noted = Arc::new(Mutex::new(Vec::new()));
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let desk = Desk {
            writer: Some(Box::new(Noted(Arc::clone(&noted)))),
            worker: 0,
            sink: 0,
            told: BTreeMap::new(),
            begun: BTreeSet::from([0, 3]),
            early: None,
            run_first: 0,
            writable: 0,
            kept: BTreeMap::new(),
            kept_bytes: 0,
            schema,
            failure: Failure::default(),
            counter: None,
        };
        (desk, noted)
    }

    fn keep(desk: &mut Desk, epoch: u64, bytes: usize) {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![0]));
        let rows = RecordBatch::try_new(Arc::clone(&desk.schema), vec![column]).expect("a column");
        desk.keep(epoch, vec![rows.into()], bytes);
    }

    fn receipts(desk: &mut Desk, epoch: u64) -> Vec<(u64, bool)> {
        let staged = desk.stage_before(epoch).into_iter();
        staged
            .map(|staged| (staged.last, staged.receipt.is_ok()))
            .collect()
    }

    #[test]
    fn rows_are_kept_until_their_run_is_known() {
        let (mut desk, noted) = desk();
        for epoch in 0..5 {
            keep(&mut desk, epoch, 8);
        }
        assert!(receipts(&mut desk, 5).is_empty() && noted.lock().expect("noted").is_empty());
        desk.writable = 2;
        assert!(receipts(&mut desk, 5).is_empty());
        assert_eq!(*noted.lock().expect("noted"), [0, 1]);
        desk.told.insert(2, 0);
        assert_eq!(receipts(&mut desk, 5), [(2, true)]);
        assert_eq!(*noted.lock().expect("noted"), [0, 1, 2]);
        // Epoch 4 failed: the run ends before it.
        desk.told.insert(3, 3);
        assert_eq!(receipts(&mut desk, 5), [(3, true)]);
        assert_eq!((desk.kept.len(), desk.kept_bytes), (1, 8));
    }

    #[test]
    fn too_many_rows_are_written_early_and_cannot_be_parted_again() {
        let (mut desk, noted) = desk();
        keep(&mut desk, 0, 8);
        keep(&mut desk, 1, KEPT_BYTES_MAX);
        assert_eq!(*noted.lock().expect("noted"), [0, 1]);
        keep(&mut desk, 3, KEPT_BYTES_MAX + 1);
        assert_eq!(noted.lock().expect("noted").len(), 2, "it is another run");
        desk.told.insert(0, 0);
        assert_eq!(receipts(&mut desk, 4), [(0, false)]);
        let (mut desk, _) = self::desk();
        keep(&mut desk, 1, KEPT_BYTES_MAX + 1);
        desk.told.insert(2, 0);
        assert_eq!(receipts(&mut desk, 4), [(2, true)]);
    }

    #[test]
    fn an_epoch_that_is_a_run_alone_is_written_as_it_comes() {
        let (mut desk, _) = desk();
        desk.told.insert(3, 3);
        assert!(!desk.is_next(3), "a run before it is not staged");
        desk.told.insert(2, 0);
        assert_eq!(receipts(&mut desk, 3), [(2, true)]);
        assert!(desk.is_next(3) && !desk.is_next(4));
        assert_eq!(receipts(&mut desk, 4), [(3, true)]);
    }
}
