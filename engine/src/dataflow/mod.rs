//! From the incremental plan to a timely dataflow, on one worker.

mod enter;
mod orders;
mod read;
mod save;
mod write;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use arrow::datatypes::{FieldRef, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use crossbeam_channel::Sender;
use datafusion::error::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::scalar::ScalarValue;
use highwater_operators::aggregate::{self, ReadState, State};
use highwater_operators::arrangement::{Budget, Shared, Snapshots};
use highwater_operators::dedup::{self, Deduplication, Forget};
use highwater_operators::late::Late;
use highwater_operators::metrics::Meters;
use highwater_operators::session::{self, Sessions};
use highwater_operators::watermark::{Policy, Watermark, Watermarks, watermark};
use highwater_operators::{
    Edge, Failure, OperatorError, Rows, exchange, join, late, limit, observe, order, regroup, stage,
};
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::core::Concatenate;
use timely::dataflow::{ProbeHandle, Stream};
use timely::worker::Worker;

pub(crate) use orders::{Feed, FeedInput, Order, feed};
pub(crate) use write::{Report, Staged};

use crate::checkpoint::{self, CheckpointError, Manifest, MarksRecord, Store, Uploader};
use crate::coordinator::Event;
use crate::error::error_chain;
use crate::plan::{Compiled, Node, deadlines_of, late_columns};
use crate::progress::stopwatch_us;
use crate::query::QueryShared;
use crate::sink::{Placement, SinkFactory};
use crate::source::Reader;
use crate::workers::lock;

/// Everything that building a query's dataflow needs; the same in every process but for the coordinator's ends.
pub(crate) struct Blueprint {
    pub(crate) name: String,
    pub(crate) compiled: Arc<Compiled>,
    /// One for each source.
    pub(crate) readers: Vec<Arc<dyn Reader>>,
    /// For the answer; then for late rows, if they are wanted.
    pub(crate) sinks: Vec<Arc<dyn SinkFactory>>,
    /// In the coordinator's process.
    pub(crate) feed: Option<FeedInput>,
    pub(crate) coordinator: Option<Sender<Event>>,
    pub(crate) query: Arc<QueryShared>,
    /// Where state is saved and restored from.
    pub(crate) store: Option<Arc<dyn Store>>,
    /// The memory that state may take.
    pub(crate) budget: Arc<Budget>,
    /// How the watermarks of several streams combine.
    pub(crate) policy: Policy,
    /// The checkpoint to load, once one worker of this process has read it.
    pub(crate) manifest: Mutex<Option<Arc<Manifest>>>,
}

/// Where a query begins: decided in the coordinator's process, told to all workers as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Beginning {
    /// The query's id.
    pub(crate) query_id: String,
    /// Of the run.
    pub(crate) generation: u64,
    /// The first epoch that runs.
    pub(crate) first_epoch: u64,
    /// The first epoch that each sink does not have.
    pub(crate) first_written: Vec<u64>,
    /// The epoch of the checkpoint to load.
    pub(crate) checkpoint: Option<u64>,
    /// Where the watermarks stand after that epoch.
    pub(crate) marks: Option<MarksRecord>,
    /// True if streams may be idle in some epochs.
    pub(crate) idles: bool,
    /// The versions of the static rows that the first process read.
    pub(crate) statics: Vec<String>,
}

impl Blueprint {
    /// Builds the dataflow on `worker`; `beginning` is the text of a [`Beginning`].
    pub(crate) fn build(&self, worker: &mut Worker, beginning: &str) -> ProbeHandle<u64> {
        let beginning: Beginning =
            serde_json::from_str(beginning).expect("the first process wrote it");
        let (index, peers) = (worker.index(), worker.peers());
        worker.dataflow_named(&self.name, |scope| {
            let failure = Failure::default();
            let meters = Meters::new(index, stopwatch_us);
            let first_epoch = beginning.first_epoch;
            let fail = |error: String| failure.set(first_epoch, OperatorError::Other(error));
            let read = self.compiled.static_versions();
            if read != beginning.statics {
                fail(format!(
                    "static rows changed while the processes of the query started: one read {}, another {}; start it again",
                    beginning.statics.join("; "),
                    read.join("; ")
                ));
            }
            let manifest = self.manifest(beginning.checkpoint);
            let manifest = manifest.unwrap_or_else(|error| {
                fail(error_chain(&error));
                None
            });
            let query = Arc::clone(&self.query);
            let feed = self.feed.clone().filter(|_| index == 0);
            let registry = save::Registry::default();
            let asked = Rc::clone(&registry);
            let orders = orders::orders(
                scope,
                feed,
                first_epoch,
                move |error| query.failed(error),
                move |epoch| {
                    for operator in asked.borrow().iter() {
                        operator.snapshots.request(epoch);
                    }
                },
            );
            let mut render = Render {
                blueprint: self,
                marks: beginning.marks.clone(),
                idles: beginning.idles,
                followed: RefCell::default(),
                read: RefCell::default(),
                watermarks: None,
                late: RefCell::default(),
                orders: orders.clone(),
                failure: failure.clone(),
                meters: meters.clone(),
                registry: Rc::clone(&registry),
                first_epoch,
                manifest: manifest.clone(),
                place: (index, peers),
            };
            render.follow_watermarks(&self.compiled.root);
            let rows = render.node(&self.compiled.root);
            let marks = render.watermarks.as_ref().map(Watermarks::account);
            let mut rows = vec![rows];
            let late: Vec<_> = render.late.take();
            let late = late.into_iter().map(|(rows, late)| render.late_rows(rows, late));
            rows.extend(late.reduce(|all, more| Rows {
                stream: scope.concatenate([all.stream, more.stream]),
                edge: all.edge,
            }));
            let mut sayings = Vec::new();
            for (number, (rows, sink)) in rows.into_iter().zip(&self.sinks).enumerate() {
                let (rows, has_writer) = match sink.placement() {
                    Placement::EveryWorker => (rows, true),
                    Placement::OneWorker => (exchange::gather(rows, &failure), index == 0),
                };
                let writer = has_writer.then(|| sink.writer(index, &beginning.query_id, beginning.generation));
                let writer = match writer.transpose() {
                    Ok(writer) => writer,
                    Err(error) => {
                        fail(error_chain(&error));
                        None
                    }
                };
                let begin = write::Begin {
                    worker: index,
                    sink: number,
                    first_epoch,
                    first_written: beginning.first_written[number],
                    hands_over: sink.hands_over(),
                };
                let meters = (number == 0).then(|| meters.clone());
                let orders = orders.clone();
                let said = write::write(rows, orders, writer, begin, failure.clone(), meters);
                sayings.push(said);
            }
            let sayings = scope.concatenate(sayings);
            let coordinator = self.coordinator.clone().filter(|_| index == 0);
            if let Some(store) = &self.store
                && !registry.borrow().is_empty()
            {
                let store = Arc::clone(store);
                let generation = beginning.generation;
                let place = (index, peers);
                let uploader = move |bell: Box<dyn Fn() + Send>| {
                    Uploader::start(store, generation, place, manifest.as_deref(), bell)
                };
                let said = sayings.clone();
                save::save(scope, orders, said, registry, uploader, coordinator.clone());
            }
            write::collect(sayings, marks, first_epoch, coordinator)
        })
    }

    /// The checkpoint after `epoch`, read once for all workers of this process.
    fn manifest(&self, epoch: Option<u64>) -> Result<Option<Arc<Manifest>>, CheckpointError> {
        let (Some(store), Some(epoch)) = (&self.store, epoch) else {
            return Ok(None);
        };
        let mut read = lock(&self.manifest);
        if read.as_ref().is_none_or(|known| known.epoch != epoch) {
            *read = Some(Arc::new(checkpoint::load(store.as_ref(), epoch)?));
        }
        Ok(read.clone())
    }
}

/// A plan on its way to operators.
struct Render<'a, 's> {
    blueprint: &'a Blueprint,
    orders: Stream<'s, u64, Vec<Order>>,
    failure: Failure,
    meters: Meters,
    registry: save::Registry,
    first_epoch: u64,
    manifest: Option<Arc<Manifest>>,
    marks: Option<MarksRecord>,
    idles: bool,
    followed: RefCell<Followed<'s>>,
    /// The rows of each source that is read already.
    read: RefCell<BTreeMap<usize, Rows<'s>>>,
    /// All watermarks together, once all are followed.
    watermarks: Option<Watermarks<'s>>,
    /// The rows of sources of which late ones are wanted, and which those are.
    late: RefCell<Vec<(Rows<'s>, Late)>>,
    /// This worker, and how many there are.
    place: (usize, usize),
}

/// Watermarks, and the rows that have passed them: rendered before the operators that all of them together drive.
#[derive(Default)]
struct Followed<'s> {
    rows: BTreeMap<usize, Rows<'s>>,
    marks: BTreeMap<usize, Watermark<'s>>,
}

impl<'s> Render<'_, 's> {
    /// Renders the plan up to its watermarks, and combines them.
    fn follow_watermarks(&mut self, root: &Node) {
        let mut found = Vec::new();
        root.for_each(&mut |node| {
            if let Node::Watermark { watermark, .. } = node {
                found.push((node, *watermark));
            }
        });
        // The lowest come last: one over another, where no state hangs on either, is rendered with it.
        for (node, index) in found {
            if self.followed.borrow().marks.contains_key(&index) {
                continue;
            }
            let rows = self.node(node);
            self.followed.borrow_mut().rows.insert(index, rows);
        }
        let marks = std::mem::take(&mut self.followed.borrow_mut().marks);
        let marks: Vec<Watermark<'s>> = marks.into_values().collect();
        if !marks.is_empty() {
            let before_ms = self.marks.as_ref().map_or(0, |marks| marks.before_ms);
            let watermarks = Watermarks::new(marks, self.blueprint.policy, before_ms);
            self.watermarks = Some(match self.idles {
                true => watermarks.idling(orders::idle(self.orders.clone())),
                false => watermarks,
            });
        }
    }

    fn watermark(&self, input: &Node, index: usize) -> Rows<'s> {
        if let Some(rows) = self.followed.borrow_mut().rows.remove(&index) {
            return rows;
        }
        let rows = self.node(input);
        let used = &self.blueprint.compiled.watermarks[index];
        let marks = self.marks.as_ref();
        let from_ms = marks.and_then(|marks| marks.streams_ms.get(index));
        let (rows, mark) = watermark(
            rows,
            Arc::clone(&used.at),
            used.delay_ms,
            from_ms.copied().unwrap_or(0),
            &self.meters,
            &self.failure,
        );
        self.followed.borrow_mut().marks.insert(index, mark);
        rows
    }

    /// The watermarks as they hold for the rows that come into `node`.
    fn watermarks_below(&self, node: &Node) -> Option<Watermarks<'s>> {
        let watermarks = self.watermarks.clone()?;
        Some(watermarks.trailing(node.below_trail_ms()))
    }

    /// The same for an operator over `input`.
    fn watermarks_over(&self, input: &Node) -> Option<Watermarks<'s>> {
        let watermarks = self.watermarks.clone()?;
        Some(watermarks.trailing(input.trail_ms()))
    }

    /// The state of an operator: where it is read from and left.
    fn state(&self, name: &str) -> State {
        let read = match (&self.manifest, &self.blueprint.store) {
            (Some(manifest), Some(store)) => {
                let (manifest, store) = (Arc::clone(manifest), Arc::clone(store));
                let (name, place) = (name.to_string(), self.place);
                let budget = Arc::clone(&self.blueprint.budget);
                let read: ReadState = Rc::new(move |values: &SchemaRef| {
                    checkpoint::restore(store.as_ref(), &budget, &manifest, &name, place, values)
                        .map_err(|error| OperatorError::Other(error_chain(&error)))
                });
                Some(read)
            }
            _ => None,
        };
        State {
            start: self.first_epoch,
            read,
            budget: Some(Arc::clone(&self.blueprint.budget)),
            ..State::default()
        }
    }

    fn deduplicate(&self, input: &Node, deduplication: &Deduplication) -> Rows<'s> {
        let name = &deduplication.name;
        let due = deadlines_of(name);
        let kind = match deduplication.forget {
            Forget::After { .. } => "dedupeWithinWatermark",
            Forget::Never | Forget::FirstKey => "dedupe",
        };
        let state = State {
            meter: self.meters.operator(kind),
            ..self.state(name)
        };
        let deadlines = self.state(&due);
        let snapshots = [state.snapshots.clone(), deadlines.snapshots.clone()];
        let deduplicated = dedup::deduplicate(
            self.node(input),
            deduplication.clone(),
            self.watermarks_over(input),
            state,
            deadlines,
            &self.failure,
        );
        let [keys, due_keys] = snapshots;
        if deduplicated.deadlines.is_some() {
            self.register(due, due_keys, deduplicated.deadlines);
        }
        self.register(name.clone(), keys, deduplicated.keys);
        deduplicated.rows
    }

    fn sessions(&self, input: &Node, sessions: &Sessions) -> Rows<'s> {
        let name = &sessions.name;
        let due = deadlines_of(name);
        let state = State {
            meter: self.meters.operator("sessionWindowStateStoreSaveExec"),
            ..self.state(name)
        };
        let deadlines = self.state(&due);
        let snapshots = [state.snapshots.clone(), deadlines.snapshots.clone()];
        let sessioned = session::sessions(
            self.node(input),
            sessions.clone(),
            self.watermarks_over(input),
            state,
            deadlines,
            &self.failure,
        );
        let [open, due_keys] = snapshots;
        self.register(due, due_keys, sessioned.deadlines);
        self.register(name.clone(), open, sessioned.open);
        sessioned.rows
    }

    /// Leaves an arrangement for checkpoints.
    fn register(&self, name: String, snapshots: Snapshots, arrangement: Option<Shared>) {
        self.registry.borrow_mut().push(save::Stateful {
            name,
            snapshots,
            arrangement,
        });
    }

    /// Late rows of one source, with nulls in the columns that those of others have.
    fn late_rows(&self, rows: Rows<'s>, late: Late) -> Rows<'s> {
        let edge = Edge::plain(Arc::clone(&late.schema));
        let Some(watermarks) = self.watermarks.clone() else {
            let text = "late rows are told apart by a watermark of the query";
            self.failure
                .set(self.first_epoch, OperatorError::Other(text.into()));
            return Rows { edge, ..rows };
        };
        let late = late::late_rows(rows, late, watermarks, self.first_epoch, &self.failure);
        let all = late_columns(&self.blueprint.compiled.root);
        let Ok(Some(all)) = all else {
            return late; // refused when the query was started
        };
        if late.edge.rows == all {
            return late;
        }
        let expr = |field: &FieldRef| -> Arc<dyn PhysicalExpr> {
            let mut own = late.edge.rows.fields().iter();
            match own.position(|own| own.name().eq_ignore_ascii_case(field.name())) {
                Some(index) => Arc::new(Column::new(field.name(), index)),
                None => Arc::new(Literal::new(
                    ScalarValue::try_new_null(field.data_type()).unwrap_or(ScalarValue::Null),
                )),
            }
        };
        let exprs = all.fields().iter().map(expr).collect();
        let step = stage::Step::Project { exprs, schema: all };
        stage::stage(late, "LateColumns", vec![step], &self.failure)
    }

    fn node(&self, node: &Node) -> Rows<'s> {
        let failure = &self.failure;
        match node {
            Node::Source { source, edge } => {
                if let Some(rows) = self.read.borrow().get(source) {
                    return rows.clone();
                }
                let reader = Arc::clone(&self.blueprint.readers[*source]);
                let used = &self.blueprint.compiled.sources[*source];
                // The clock is none of the source's own.
                let width = used.factory.schema().fields().len();
                let columns = used.columns.iter().copied();
                let columns = columns.filter(|column| *column < width).collect();
                let rows = read::read(
                    self.orders.clone(),
                    (*source, self.blueprint.compiled.sources.len()),
                    reader,
                    columns,
                    edge.clone(),
                    failure.clone(),
                    self.meters.clone(),
                );
                self.read.borrow_mut().insert(*source, rows.clone());
                rows
            }
            Node::Static { rows, edge, .. } => {
                enter::enter(self.orders.clone(), Arc::clone(rows), edge.clone())
            }
            Node::Stage { input, steps } => {
                stage::stage(self.node(input), "Stage", steps.clone(), failure)
            }
            Node::Watermark {
                input, watermark, ..
            } => self.watermark(input, *watermark),
            Node::Aggregate { input, aggregation } => {
                let state = State {
                    meter: self.meters.operator("stateStoreSave"),
                    ..self.state(&aggregation.name)
                };
                let snapshots = state.snapshots.clone();
                let aggregated = aggregate::aggregate_with_state(
                    self.node(input),
                    aggregation.as_ref().clone(),
                    self.watermarks_below(node),
                    state,
                    failure,
                );
                self.register(aggregation.name.clone(), snapshots, aggregated.arrangement);
                aggregated.rows
            }
            Node::Join { inputs, how, .. } => {
                let rows = [self.node(&inputs[0]), self.node(&inputs[1])];
                let joined = join::join_streams(
                    rows,
                    how.as_ref().clone(),
                    self.watermarks_below(node),
                    |name| self.state(name),
                    self.meters.operator("symmetricHashJoin"),
                    failure,
                );
                for state in joined.states {
                    self.register(state.name, state.snapshots, state.arrangement);
                }
                joined.rows
            }
            Node::Deduplicate {
                input,
                deduplication,
            } => self.deduplicate(input, deduplication),
            Node::Sessions { input, sessions } => self.sessions(input, sessions),
            Node::Limit {
                input,
                name,
                wanted,
            } => {
                let state = State {
                    meter: self.meters.operator("globalLimit"),
                    ..self.state(name)
                };
                let snapshots = state.snapshots.clone();
                let (input, marks) = (self.node(input), self.watermarks_below(node));
                let limited = limit::limit(input, name, wanted.clone(), marks, state, failure);
                self.register(name.clone(), snapshots, limited.count);
                limited.rows
            }
            Node::Regroup { input, regroup, .. } => {
                let state = State {
                    meter: self.meters.operator("stateStoreSave"),
                    ..self.state(&regroup.name)
                };
                let snapshots = state.snapshots.clone();
                let regrouped = regroup::regroup(
                    self.node(input),
                    regroup.as_ref().clone(),
                    self.watermarks_below(node),
                    state,
                    failure,
                );
                self.register(regroup.name.clone(), snapshots, regrouped.arrangement);
                regrouped.rows
            }
            Node::Order { input, order } => order::order(
                self.node(input),
                order.as_ref().clone(),
                self.first_epoch,
                failure,
            ),
            Node::Lookup { input, how, .. } => {
                join::lookup(self.node(input), how.as_ref().clone(), failure)
            }
            Node::Observe { input, observed } => observe::observe(
                self.node(input),
                observed.aggregation.clone(),
                &self.meters,
                failure,
            ),
            Node::Late { input, late } => {
                let rows = self.node(input);
                let mut all = self.late.borrow_mut();
                all.push((rows.clone(), late.as_ref().clone()));
                rows
            }
            Node::Union { inputs, edge } => {
                let inputs: Vec<_> = inputs.iter().map(|input| self.node(input).stream).collect();
                let stream = self.orders.scope().concatenate(inputs);
                Rows {
                    stream,
                    edge: edge.clone(),
                }
            }
        }
    }
}

/// Gives a reader's batch the names and nullability that the plan uses for its columns.
pub(crate) fn conform(
    rows: RecordBatch,
    schema: &SchemaRef,
) -> Result<RecordBatch, DataFusionError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        rows.columns().to_vec(),
        &options,
    )?)
}
