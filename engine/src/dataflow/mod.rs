//! From the incremental plan to a timely dataflow, on one worker.

mod orders;
mod read;
mod write;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use crossbeam_channel::Sender;
use datafusion::error::DataFusionError;
use highwater_operators::metrics::Meters;
use highwater_operators::{Failure, Rows};
use highwater_operators::{aggregate, exchange, stage};
use timely::dataflow::operators::core::Concatenate;
use timely::dataflow::{ProbeHandle, Stream};
use timely::worker::Worker;

pub(crate) use orders::{Feed, FeedInput, Order, feed};
pub(crate) use write::Report;

use crate::coordinator::Event;
use crate::error::error_chain;
use crate::plan::{Compiled, Node};
use crate::progress::stopwatch_us;
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
}

impl Blueprint {
    /// Builds the dataflow on `worker`.
    pub(crate) fn build(&self, worker: &mut Worker, query_id: &str) -> ProbeHandle<u64> {
        let index = worker.index();
        worker.dataflow_named(&self.name, |scope| {
            let failure = Failure::default();
            let meters = Meters::new(index, stopwatch_us);
            let query = Arc::clone(&self.query);
            let feed = self.feed.clone().filter(|_| index == 0);
            let orders = orders::orders(scope, feed, move |error| query.failed(error));
            let rows = self.render(&self.compiled.root, &orders, &failure, &meters);
            let (rows, has_writer) = match self.sink.placement() {
                Placement::EveryWorker => (rows, true),
                Placement::OneWorker => (exchange::gather(rows, &failure), index == 0),
            };
            let writer = if has_writer {
                self.sink.writer(index, query_id)
            } else {
                return self.finish(rows, None, index, failure, meters);
            };
            match writer {
                Ok(writer) => self.finish(rows, Some(writer), index, failure, meters),
                Err(error) => {
                    failure.set(
                        0,
                        highwater_operators::OperatorError::Other(error_chain(&error)),
                    );
                    self.finish(rows, None, index, failure, meters)
                }
            }
        })
    }

    fn finish(
        &self,
        rows: Rows<'_>,
        writer: Option<Box<dyn crate::sink::SinkWriter>>,
        index: usize,
        failure: Failure,
        meters: Meters,
    ) -> ProbeHandle<u64> {
        let reports = write::write(rows, writer, self.first_epoch, failure, meters);
        write::collect(
            reports,
            self.first_epoch,
            self.coordinator.clone().filter(|_| index == 0),
        )
    }

    fn render<'s>(
        &self,
        node: &Node,
        orders: &Stream<'s, u64, Vec<Order>>,
        failure: &Failure,
        meters: &Meters,
    ) -> Rows<'s> {
        match node {
            Node::Source { source, edge } => {
                let reader = Arc::clone(&self.readers[*source]);
                let columns = self.compiled.sources[*source].columns.clone();
                read::read(
                    orders.clone(),
                    *source,
                    reader,
                    columns,
                    edge.clone(),
                    failure.clone(),
                    meters.clone(),
                )
            }
            Node::Stage { input, steps } => stage::stage(
                self.render(input, orders, failure, meters),
                "Stage",
                steps.clone(),
                failure,
            ),
            Node::Aggregate { input, aggregation } => {
                let rows = self.render(input, orders, failure, meters);
                let state = aggregate::State {
                    meter: meters.operator("stateStoreSave"),
                    ..aggregate::State::default()
                };
                let aggregation = aggregation.as_ref().clone();
                aggregate::aggregate_with_state(rows, aggregation, state, failure).rows
            }
            Node::Union { inputs, edge } => {
                let inputs: Vec<_> = inputs
                    .iter()
                    .map(|input| self.render(input, orders, failure, meters).stream)
                    .collect();
                let stream = orders.scope().concatenate(inputs);
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
