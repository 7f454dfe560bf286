//! The keys of a join: what must be equal for two rows to match.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::buffer::NullBuffer;
use arrow::record_batch::RecordBatch;
use datafusion::common::cast::as_boolean_array;
use datafusion::physical_expr::PhysicalExpr;

use crate::exchange::evaluate_keys;
use crate::keys::{self, Codec, Encoded};
use crate::{OperatorError, wire};

/// What must be equal on both sides. Both expressions have one type.
#[derive(Debug, Clone)]
pub struct JoinKey {
    /// Over the columns of the left side.
    pub left: Arc<dyn PhysicalExpr>,
    /// Over those of the right side.
    pub right: Arc<dyn PhysicalExpr>,
    /// True if a null matches a null (`<=>`); otherwise it matches nothing.
    pub null_safe: bool,
}

/// The keys of some rows of one side.
pub(crate) struct Keyed {
    /// The normalised key columns.
    pub(crate) columns: Vec<ArrayRef>,
    /// The rows that can match at all; `None` if all can.
    pub(crate) valid: Option<NullBuffer>,
}

impl Keyed {
    /// Evaluates `exprs`, of which those that are `null_safe` may be null.
    pub(crate) fn of(
        exprs: &[Arc<dyn PhysicalExpr>],
        null_safe: &[bool],
        rows: &RecordBatch,
    ) -> Result<Self, OperatorError> {
        let columns = evaluate_keys(exprs, rows)?;
        let mut valid = None;
        for (column, null_safe) in columns.iter().zip(null_safe) {
            if !null_safe && column.null_count() > 0 {
                valid = NullBuffer::union(valid.as_ref(), column.logical_nulls().as_ref());
            }
        }
        Ok(Keyed { columns, valid })
    }

    pub(crate) fn can_match(&self, row: usize) -> bool {
        self.valid.as_ref().is_none_or(|valid| valid.is_valid(row))
    }

    pub(crate) fn encode(&self, codec: &Codec, rows: usize) -> Result<Encoded, OperatorError> {
        Ok(codec.encode(&self.columns, rows)?)
    }

    pub(crate) fn hash(&self, rows: usize) -> Result<Vec<u64>, OperatorError> {
        Ok(keys::hash(&self.columns, rows)?)
    }
}

/// The types of normalised keys.
pub(crate) fn key_types(
    exprs: &[Arc<dyn PhysicalExpr>],
    rows: &arrow::datatypes::Schema,
) -> Result<Vec<arrow::datatypes::DataType>, OperatorError> {
    let type_of = |expr: &Arc<dyn PhysicalExpr>| {
        let data_type = expr.data_type(rows)?;
        Ok(wire::flat_type(&data_type).unwrap_or(data_type))
    };
    exprs.iter().map(type_of).collect()
}

/// For each row whether `condition` is true; a null says as little as a false.
pub(crate) fn holds(
    condition: &dyn PhysicalExpr,
    rows: &RecordBatch,
) -> Result<Vec<bool>, OperatorError> {
    let value = condition.evaluate(rows)?.into_array(rows.num_rows())?;
    if matches!(value.data_type(), arrow::datatypes::DataType::Null) {
        return Ok(vec![false; rows.num_rows()]);
    }
    let value = as_boolean_array(&value)?;
    Ok(value.iter().map(|holds| holds == Some(true)).collect())
}
