//! One Arrow batch as a timely container.
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use timely::container::{Accountable, NoopBuilder};

/// One message of a stream edge.
#[derive(Default, Clone)]
pub enum Batch {
    /// No rows.
    #[default]
    Empty,
    /// Rows in memory.
    Rows(RecordBatch),
}

/// Builder for operators that hand over whole batches.
pub type BatchBuilder = NoopBuilder<Batch>;

impl From<RecordBatch> for Batch {
    fn from(rows: RecordBatch) -> Self {
        Batch::Rows(rows)
    }
}

impl Batch {
    /// The rows, decoded if they came off the wire.
    pub fn into_rows(self, schema: &SchemaRef) -> Result<RecordBatch, crate::OperatorError> {
        match self {
            Batch::Empty => Ok(RecordBatch::new_empty(SchemaRef::clone(schema))),
            Batch::Rows(rows) => Ok(rows),
        }
    }
}

impl Accountable for Batch {
    fn record_count(&self) -> i64 {
        match self {
            Batch::Empty => 0,
            Batch::Rows(rows) => rows.num_rows() as i64,
        }
    }
}

/// A copy.
pub fn own(rows: &RecordBatch) -> RecordBatch { rows.clone() }
