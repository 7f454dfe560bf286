//! Lets rows that do not change into a dataflow: all of them in the query's first epoch, on one worker.
//!
//! An order says when, as for rows that are read: so they come with the epoch's other rows and once, however often
//! the query starts again. After the first epoch they are in the state of whoever keeps them.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use highwater_operators::{Batch, BatchBuilder, Edge, Rows};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use super::orders::Order;

/// Rows of one batch.
const BATCH_ROWS: usize = 8 << 10;

/// The rows, when they are told to enter.
pub(crate) fn enter<'s>(
    orders: Stream<'s, u64, Vec<Order>>,
    rows: Arc<RecordBatch>,
    edge: Edge,
) -> Rows<'s> {
    let stream = orders.unary::<BatchBuilder, _, _, _>(Pipeline, "Enter", move |_, _| {
        move |input, output| {
            input.for_each(|epoch, orders| {
                let orders = orders.drain(..);
                let told = orders.filter(|order| matches!(order, Order::Enter { .. }));
                for _ in 0..told.count() {
                    let mut session = output.session_with_builder(&epoch);
                    for from in (0..rows.num_rows()).step_by(BATCH_ROWS) {
                        let count = BATCH_ROWS.min(rows.num_rows() - from);
                        session.give_container(&mut Batch::from(rows.slice(from, count)));
                    }
                }
            });
        }
    });
    Rows { stream, edge }
}
