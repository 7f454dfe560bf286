//! The rows of each epoch in order: ORDER BY and LIMIT over an answer that comes whole with every epoch.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{SortOptions, concat_batches};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;

use crate::epoch::{Input, Kernel, Travel, run_inputs};
use crate::exchange::take_rows;
use crate::intake::Intake;
use crate::keys::Codec;
use crate::watermark::Marks;
use crate::{Batch, Edge, Failure, OperatorError, Rows, exchange, wire};

/// Rows of one output batch.
const OUTPUT_ROWS: usize = 8 << 10;

/// How rows are sorted, and which come out.
#[derive(Debug, Clone)]
pub struct Order {
    /// By what. Rows that it does not tell apart are sorted by all their columns: an answer does not depend on who
    /// computed which of them.
    pub keys: Vec<(Arc<dyn PhysicalExpr>, SortOptions)>,
    /// How many rows are left out.
    pub skip: usize,
    /// How many come at most.
    pub fetch: Option<usize>,
}

/// The rows of each epoch, all on worker 0, in order. The first epoch that runs is `start`.
pub fn order<'s>(rows: Rows<'s>, order: Order, start: u64, failure: &Failure) -> Rows<'s> {
    let rows = exchange::gather(rows, failure);
    let edge = Edge::plain(Arc::clone(&rows.edge.rows));
    let sorter = Sorter {
        order,
        intake: Intake::new(rows.edge.physical()),
        input: rows.edge,
    };
    let input = Input {
        stream: rows.stream,
        travel: Travel::Stay,
    };
    let stream = run_inputs("Order", vec![input], None, start, failure, |_| sorter);
    Rows { stream, edge }
}

struct Sorter {
    order: Order,
    input: Edge,
    intake: Intake,
}

impl Kernel for Sorter {
    fn absorb(&mut self, epoch: u64, _: usize, batch: Batch) -> Result<(), OperatorError> {
        self.intake.absorb(epoch, batch)
    }

    fn run(
        &mut self,
        epoch: u64,
        _: Marks,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let batches = self.intake.take(epoch);
        if batches.is_empty() {
            return Ok(());
        }
        let rows = concat_batches(&self.input.physical(), &batches)?;
        let visible = self.input.rows.fields().len();
        let mut columns: Vec<ArrayRef> = Vec::new();
        let mut options = Vec::new();
        for (key, sort) in &self.order.keys {
            columns.push(key.evaluate(&rows)?.into_array(rows.num_rows())?);
            options.push(*sort);
        }
        columns.extend(rows.columns()[..visible].iter().cloned());
        options.resize(columns.len(), SortOptions::default());
        for column in &mut columns {
            if let Some(flat) = wire::flat_type(column.data_type()) {
                *column = arrow::compute::cast(column, &flat)?;
            }
        }
        let types: Vec<DataType> = columns.iter().map(|c| c.data_type().clone()).collect();
        let encoded = Codec::sorted(types, &options)?.encode(&columns, rows.num_rows())?;
        let mut sorted = encoded.sorted();
        sorted.truncate(match self.order.fetch {
            Some(fetch) => self.order.skip.saturating_add(fetch),
            None => usize::MAX,
        });
        let first = self.order.skip.min(sorted.len());
        for picks in sorted[first..].chunks(OUTPUT_ROWS) {
            let picks = UInt32Array::from(picks.to_vec());
            out(take_rows(&rows, &picks)?.project(&(0..visible).collect::<Vec<_>>())?);
        }
        Ok(())
    }
}
