//! Functions over the rows around each row: OVER windows.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::concat;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::window::WindowExpr;

use super::{Answer, Members};
use crate::OperatorError;
use crate::aggregate::conform;

/// The rows of each group, and columns computed over all of them: a group is a partition.
#[derive(Debug, Clone)]
pub struct Over {
    /// One for each column that is added.
    pub calls: Vec<Arc<dyn WindowExpr>>,
    /// How many columns of the rows the calls do not see, the first ones.
    pub leading: usize,
    /// The columns of the rows, then those that are added.
    pub schema: SchemaRef,
}

impl Answer for Over {
    fn answer(&self, members: &Members) -> Result<(RecordBatch, Vec<i64>), OperatorError> {
        let members = members.spread()?;
        let mut parts: Vec<Vec<ArrayRef>> = vec![Vec::new(); self.calls.len()];
        for group in 0..members.groups() {
            let range = members.group(group);
            if range.is_empty() {
                continue;
            }
            let rows = members.rows.slice(range.start, range.len());
            let seen: Vec<usize> = (self.leading..rows.num_columns()).collect();
            let rows = rows.project(&seen)?;
            for (call, parts) in self.calls.iter().zip(&mut parts) {
                parts.push(call.evaluate(&rows)?);
            }
        }
        if members.rows.num_rows() == 0 {
            return Ok((
                RecordBatch::new_empty(SchemaRef::clone(&self.schema)),
                vec![],
            ));
        }
        let mut columns = members.rows.columns().to_vec();
        for parts in parts {
            let parts: Vec<_> = parts.iter().map(|part| part.as_ref()).collect();
            columns.push(concat(&parts)?);
        }
        let types = self.schema.fields().iter();
        let columns = conform(columns, types.map(|field| field.data_type().clone()))?;
        let rows = RecordBatch::try_new(SchemaRef::clone(&self.schema), columns)?;
        Ok((rows, members.counts))
    }
}
