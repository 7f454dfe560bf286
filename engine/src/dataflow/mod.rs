//! From the incremental plan to a timely dataflow, on one worker.

mod orders;
mod read;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use crossbeam_channel::Sender;
use datafusion::error::DataFusionError;
use highwater_operators::watermark::{Policy, Watermark, Watermarks};
use highwater_operators::{Failure, Rows};
use highwater_operators::{aggregate, exchange, stage, watermark};
use timely::dataflow::operators::core::Concatenate;
use timely::dataflow::{ProbeHandle, Stream};
use timely::worker::Worker;

pub(crate) use orders::{Feed, FeedInput, Order, feed};
pub(crate) use write::Report;

use crate::coordinator::Event;
use crate::error::error_chain;
use crate::plan::{Compiled, Node};
use crate::query::QueryShared;
use crate::sink::{Placement, SinkFactory};
use crate::source::Reader;

/// Everything that building a query's dataflow needs; the same in every process but for the coordinator's ends.
pub(crate) struct Blueprint {
    pub(crate) name: String,
    pub(crate) compiled: Compiled,
    /// One for each source.
    pub(crate) readers: Vec<Arc<dyn Reader>>,
    pub(crate) sink: Arc<dyn SinkFactory>,
    /// In the coordinator's process.
    pub(crate) feed: Option<FeedInput>,
    pub(crate) coordinator: Option<Sender<Event>>,
    pub(crate) query: Arc<QueryShared>,
    pub(crate) first_epoch: u64,
    pub(crate) policy: Policy,
    /// Where the watermarks stand, for a query that restarts.
    pub(crate) marks: Option<RestoredMarks>,
}

/// The watermarks of a query that restarts, in milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct RestoredMarks {
    /// Each stream's own, after the last epoch that is not run again.
    pub(crate) each_ms: Vec<i64>,
    /// The query's in that epoch.
    pub(crate) before_ms: i64,
}

/// What rendering one dataflow shares.
struct Rendering<'a, 's> {
    orders: &'a Stream<'s, u64, Vec<Order>>,
    failure: &'a Failure,
    /// What is below each watermark, rendered before the operators that all watermarks together drive.
    below: BTreeMap<usize, Rows<'s>>,
    marks: BTreeMap<usize, Watermark<'s>>,
    watermarks: Option<Watermarks<'s>>,
}

impl Blueprint {
    /// Builds the dataflow on `worker`.
    pub(crate) fn build(&self, worker: &mut Worker, query_id: &str) -> ProbeHandle<u64> {
        let index = worker.index();
        worker.dataflow_named(&self.name, |scope| {
            let failure = Failure::default();
            let query = Arc::clone(&self.query);
            let feed = self.feed.clone().filter(|_| index == 0);
            let orders = orders::orders(scope, feed, move |error| query.failed(error));
            let mut rendering = Rendering {
                orders: &orders,
                failure: &failure,
                below: BTreeMap::new(),
                marks: BTreeMap::new(),
                watermarks: None,
            };
            self.render_watermarks(&self.compiled.root, &mut rendering);
            let rows = self.render(&self.compiled.root, &mut rendering);
            let marks = rendering.watermarks.as_ref().map(Watermarks::account);
            let (rows, has_writer) = match self.sink.placement() {
                Placement::EveryWorker => (rows, true),
                Placement::OneWorker => (exchange::gather(rows, &failure), index == 0),
            };
            let writer = if has_writer {
                self.sink.writer(index, query_id)
            } else {
                return self.finish(rows, None, marks, index, failure);
            };
            match writer {
                Ok(writer) => self.finish(rows, Some(writer), marks, index, failure),
                Err(error) => {
                    failure.set(
                        0,
                        highwater_operators::OperatorError::Other(error_chain(&error)),
                    );
                    self.finish(rows, None, marks, index, failure)
                }
            }
        })
    }

    fn finish<'s>(
        &self,
        rows: Rows<'s>,
        writer: Option<Box<dyn crate::sink::SinkWriter>>,
        marks: Option<write::Marks<'s>>,
        index: usize,
        failure: Failure,
    ) -> ProbeHandle<u64> {
        let reports = write::write(rows, writer, self.first_epoch, failure);
        write::collect(
            reports,
            marks,
            self.first_epoch,
            self.coordinator.clone().filter(|_| index == 0),
        )
    }

    /// Renders everything up to the watermarks, and combines them.
    fn render_watermarks<'s>(&self, node: &Node, rendering: &mut Rendering<'_, 's>) {
        fn each<'n>(node: &'n Node, visit: &mut impl FnMut(&'n Node, usize)) {
            match node {
                Node::Source { .. } => {}
                // One below another is rendered with it.
                Node::Watermark { watermark, .. } => visit(node, *watermark),
                Node::Stage { input, .. } | Node::Aggregate { input, .. } => each(input, visit),
                Node::Union { inputs, .. } => inputs.iter().for_each(|input| each(input, visit)),
            }
        }
        let mut found = Vec::new();
        each(node, &mut |node, watermark| found.push((node, watermark)));
        for (node, watermark) in found {
            let rows = self.render(node, rendering);
            rendering.below.insert(watermark, rows);
        }
        let marks: Vec<Watermark<'s>> =
            std::mem::take(&mut rendering.marks).into_values().collect();
        if !marks.is_empty() {
            let before_ms = self.marks.as_ref().map_or(0, |marks| marks.before_ms);
            rendering.watermarks = Some(Watermarks::new(marks, self.policy, before_ms));
        }
    }

    fn render<'s>(&self, node: &Node, rendering: &mut Rendering<'_, 's>) -> Rows<'s> {
        match node {
            Node::Source { source, edge } => {
                let reader = Arc::clone(&self.readers[*source]);
                let columns = self.compiled.sources[*source].columns.clone();
                read::read(
                    rendering.orders.clone(),
                    *source,
                    reader,
                    columns,
                    edge.clone(),
                    rendering.failure.clone(),
                )
            }
            Node::Stage { input, steps } => {
                let rows = self.render(input, rendering);
                stage::stage(rows, "Stage", steps.clone(), rendering.failure)
            }
            Node::Watermark { input, watermark } => {
                if let Some(rows) = rendering.below.remove(watermark) {
                    return rows;
                }
                let rows = self.render(input, rendering);
                let used = &self.compiled.watermarks[*watermark];
                let restored = self.marks.as_ref();
                let from_ms = restored.and_then(|marks| marks.each_ms.get(*watermark));
                let (rows, mark) = watermark::watermark(
                    rows,
                    Arc::clone(&used.at),
                    used.delay_ms,
                    from_ms.copied().unwrap_or(0),
                    rendering.failure,
                );
                rendering.marks.insert(*watermark, mark);
                rows
            }
            Node::Aggregate { input, aggregation } => {
                let rows = self.render(input, rendering);
                let aggregation = aggregation.as_ref().clone();
                let watermarks = rendering.watermarks.clone();
                let state = aggregate::State::default();
                aggregate::aggregate_with_state(
                    rows,
                    aggregation,
                    watermarks,
                    state,
                    rendering.failure,
                )
                .rows
            }
            Node::Union { inputs, edge } => {
                let inputs: Vec<_> = inputs
                    .iter()
                    .map(|input| self.render(input, rendering).stream)
                    .collect();
                let stream = rendering.orders.scope().concatenate(inputs);
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
