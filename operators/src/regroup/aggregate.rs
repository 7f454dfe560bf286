//! Aggregates over all rows of a group, for functions that cannot take a row back.

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::{Answer, Members};
use crate::aggregate::{Aggregation, Groups, Plan, evaluate};
use crate::{Edge, OperatorError};

/// Aggregates over the rows of a group: the keys of the aggregation are the keys of the groups.
pub struct Calls {
    plan: Plan,
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calls")
            .field("name", &self.plan.name)
            .finish()
    }
}

impl Calls {
    /// For `aggregation` over rows of `schema`, of which the first columns are its keys. A call whose answer depends on
    /// the order of rows takes them as they are sorted in the group: rows that come and leave have no other order.
    pub fn new(schema: SchemaRef, aggregation: Aggregation) -> Result<Self, OperatorError> {
        Ok(Calls {
            plan: Plan::over_sorted(&Edge::plain(schema), aggregation)?,
        })
    }
}

impl Answer for Calls {
    fn answer(&self, members: &Members) -> Result<(RecordBatch, Vec<i64>), OperatorError> {
        let plan = &self.plan;
        let members = members.spread()?;
        // An accumulator for single values that has met no group has no columns to give.
        if members.rows.num_rows() == 0 && !plan.keys.is_empty() {
            return Ok((
                RecordBatch::new_empty(SchemaRef::clone(&plan.output)),
                vec![],
            ));
        }
        let mut groups = Groups::new(plan)?;
        if members.rows.num_rows() > 0 {
            groups.update(plan, &members.rows)?;
        } else if plan.keys.is_empty() && members.groups() > 0 {
            groups.ensure_global(plan)?;
        }
        let count = groups.len();
        let mut columns: Vec<ArrayRef> = groups.take_keys()?;
        let states = groups.take_states(plan)?;
        columns.extend(evaluate(plan, &states)?);
        let types = plan.output.fields().iter();
        let types = types.map(|field| field.data_type().clone());
        let columns = crate::aggregate::conform(columns, types)?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let schema = SchemaRef::clone(&plan.output);
        let rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        Ok((rows, vec![1; count]))
    }

    fn of_nothing(&self) -> bool {
        self.plan.keys.is_empty()
    }
}
