//! The rows themselves.

use arrow::record_batch::RecordBatch;

use super::{Answer, Members};
use crate::OperatorError;

/// The rows as they are: what has come and not left.
#[derive(Debug, Clone, Copy)]
pub struct AllRows;

impl Answer for AllRows {
    fn answer(&self, members: &Members) -> Result<(RecordBatch, Vec<i64>), OperatorError> {
        Ok((members.rows.clone(), members.counts.clone()))
    }
}
