//! What has come of the epochs that have not run yet.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use crate::{Batch, OperatorError};

/// The rows of one input, by epoch, until their epoch runs.
pub(crate) struct Intake {
    schema: SchemaRef,
    open: BTreeMap<u64, Vec<RecordBatch>>,
}

impl Intake {
    /// For batches of `schema`, the physical one of the input's edge.
    pub(crate) fn new(schema: SchemaRef) -> Self {
        Intake {
            schema,
            open: BTreeMap::new(),
        }
    }

    pub(crate) fn absorb(&mut self, epoch: u64, batch: Batch) -> Result<(), OperatorError> {
        let rows = batch.into_owned_rows(&self.schema)?;
        self.open.entry(epoch).or_default().push(rows);
        Ok(())
    }

    /// The rows of `epoch`, which runs now.
    pub(crate) fn take(&mut self, epoch: u64) -> Vec<RecordBatch> {
        self.open.remove(&epoch).unwrap_or_default()
    }
}
