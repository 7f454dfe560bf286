//! The groups of one epoch: a vectorised hash table and one accumulator per call.

use arrow::array::{ArrayRef, BooleanArray, new_empty_array, new_null_array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use super::calls::{Plan, conform};
use super::nth;
use crate::OperatorError;
use crate::exchange::evaluate_keys;

/// Groups and their accumulators.
pub(crate) struct Groups {
    /// `None` for the global group.
    values: Option<Box<dyn GroupValues>>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    /// Scratch: the group of each row.
    indices: Vec<usize>,
    len: usize,
}

/// Emptied tables up to this size are used again: growing one anew costs as much as filling it.
const REUSE_MAX: usize = 1 << 20;

/// An emptied table to use again.
#[derive(Default)]
pub(crate) struct Spare(Option<Groups>);

impl Spare {
    /// An empty table.
    pub(crate) fn take(&mut self, plan: &Plan) -> Result<Groups, OperatorError> {
        match self.0.take() {
            Some(groups) => Ok(groups),
            None => Groups::new(plan),
        }
    }

    /// Keeps an emptied table that held `len` groups.
    pub(crate) fn put(&mut self, groups: Groups, len: usize) {
        if len <= REUSE_MAX {
            self.0 = Some(groups);
        }
    }
}

impl Groups {
    pub(crate) fn new(plan: &Plan) -> Result<Self, OperatorError> {
        let values = if plan.keys.is_empty() {
            None
        } else {
            let schema = SchemaRef::clone(&plan.key_schema);
            Some(new_group_values(schema, &GroupOrdering::None)?)
        };
        Ok(Groups {
            values,
            accumulators: accumulators(plan)?,
            indices: Vec::new(),
            len: 0,
        })
    }

    /// How many groups there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Finds the group of each of `rows` rows.
    pub(crate) fn intern(&mut self, keys: &[ArrayRef], rows: usize) -> Result<(), OperatorError> {
        match &mut self.values {
            None => {
                self.indices.clear();
                self.indices.resize(rows, 0);
                self.len = 1;
            }
            Some(values) => {
                values.intern(keys, &mut self.indices)?;
                self.len = values.len();
            }
        }
        Ok(())
    }

    /// The group of each row interned last.
    pub(crate) fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// Adds rows of the input.
    pub(crate) fn update(&mut self, plan: &Plan, rows: &RecordBatch) -> Result<(), OperatorError> {
        let keys = evaluate_keys(&plan.keys, rows)?;
        self.intern(&keys, rows.num_rows())?;
        for (call, accumulator) in plan.calls.iter().zip(&mut self.accumulators) {
            if call.sorts() {
                let (rows, indices) = call.sorted(rows, &self.indices)?;
                let (arguments, filter) = call.arguments(&rows)?;
                accumulator.update_batch(&arguments, &indices, filter.as_ref(), self.len)?;
                continue;
            }
            let (arguments, filter) = call.arguments(rows)?;
            accumulator.update_batch(&arguments, &self.indices, filter.as_ref(), self.len)?;
        }
        Ok(())
    }

    /// Adds state rows for the groups interned last.
    pub(crate) fn merge_interned(
        &mut self,
        plan: &Plan,
        states: &[ArrayRef],
    ) -> Result<(), OperatorError> {
        merge(
            plan,
            &mut self.accumulators,
            states,
            &self.indices,
            self.len,
        )
    }

    /// Adds state rows for the groups `indices`.
    pub(crate) fn merge(
        &mut self,
        plan: &Plan,
        states: &[ArrayRef],
        indices: &[usize],
    ) -> Result<(), OperatorError> {
        merge(plan, &mut self.accumulators, states, indices, self.len)
    }

    /// Makes sure that the global group exists.
    pub(crate) fn ensure_global(&mut self, plan: &Plan) -> Result<(), OperatorError> {
        if self.len > 0 {
            return Ok(());
        }
        self.intern(&[], 1)?;
        mark_unseen(plan, &mut self.accumulators, 1)
    }

    /// The keys, one row per group.
    pub(crate) fn take_keys(&mut self) -> Result<Vec<ArrayRef>, OperatorError> {
        match &mut self.values {
            None => Ok(Vec::new()),
            Some(values) => {
                let keys = values.emit(EmitTo::All)?;
                // Emitting leaves some tables with their hashes; a table is only empty when it is cleared.
                values.clear_shrink(self.len);
                Ok(keys)
            }
        }
    }

    /// The state columns, one row per group. After it, and after `take_keys`, there are no groups.
    pub(crate) fn take_states(&mut self, plan: &Plan) -> Result<RecordBatch, OperatorError> {
        let groups = std::mem::take(&mut self.len);
        states(plan, &mut self.accumulators, groups)
    }
}

/// A fresh accumulator for each call.
pub(super) fn accumulators(plan: &Plan) -> Result<Vec<Box<dyn GroupsAccumulator>>, OperatorError> {
    plan.calls.iter().map(|call| call.accumulator()).collect()
}

/// Fresh accumulators for `groups` groups that are not added to in ascending order.
pub(crate) fn sparse_accumulators(
    plan: &Plan,
    groups: usize,
) -> Result<Vec<Box<dyn GroupsAccumulator>>, OperatorError> {
    let mut fresh = accumulators(plan)?;
    if groups > 0 {
        mark_unseen(plan, &mut fresh, groups)?;
    }
    Ok(fresh)
}

/// DataFusion's accumulators take a group for seen once it is counted, though no value came to it. One row that the
/// filter rejects makes them keep track of which are.
fn mark_unseen(
    plan: &Plan,
    accumulators: &mut [Box<dyn GroupsAccumulator>],
    groups: usize,
) -> Result<(), OperatorError> {
    let none = RecordBatch::new_empty(SchemaRef::clone(&plan.rows));
    let rejected = BooleanArray::from(vec![false]);
    for (call, accumulator) in plan.calls.iter().zip(accumulators) {
        let (arguments, _) = call.arguments(&none)?;
        let arguments: Vec<ArrayRef> = arguments
            .iter()
            .map(|a| new_null_array(a.data_type(), 1))
            .collect();
        accumulator.update_batch(&arguments, &[0], Some(&rejected), groups)?;
    }
    Ok(())
}

/// Adds state rows for the groups `indices`.
pub(crate) fn merge(
    plan: &Plan,
    accumulators: &mut [Box<dyn GroupsAccumulator>],
    states: &[ArrayRef],
    indices: &[usize],
    groups: usize,
) -> Result<(), OperatorError> {
    for (states, accumulator) in plan.split_states(states).zip(accumulators) {
        accumulator.merge_batch(states, indices, groups)?;
    }
    Ok(())
}

/// The state columns of `accumulators`.
pub(crate) fn states(
    plan: &Plan,
    accumulators: &mut [Box<dyn GroupsAccumulator>],
    groups: usize,
) -> Result<RecordBatch, OperatorError> {
    if groups == 0 {
        // Some accumulators have no columns before their first group.
        return Ok(RecordBatch::new_empty(SchemaRef::clone(&plan.state_schema)));
    }
    let mut columns = Vec::with_capacity(plan.state_schema.fields().len());
    for (call, accumulator) in plan.calls.iter().zip(accumulators) {
        let state = accumulator.state(EmitTo::All)?;
        match call.bound {
            None => columns.extend(state),
            Some(n) => {
                for column in state {
                    columns.push(nth::cut(&column, n)?);
                }
            }
        }
    }
    let types = plan.state_schema.fields().iter();
    let columns = conform(columns, types.map(|field| field.data_type().clone()))?;
    let options = RecordBatchOptions::new().with_row_count(Some(groups));
    Ok(RecordBatch::try_new_with_options(
        SchemaRef::clone(&plan.state_schema),
        columns,
        &options,
    )?)
}

/// The answers for state rows: one column per call, one row per state row.
pub(crate) fn evaluate(plan: &Plan, states: &RecordBatch) -> Result<Vec<ArrayRef>, OperatorError> {
    let rows = states.num_rows();
    let types = plan.output.fields()[plan.keys.len()..].iter();
    if rows == 0 {
        return Ok(types.map(|f| new_empty_array(f.data_type())).collect());
    }
    let indices: Vec<usize> = (0..rows).collect();
    // `state` leaves an accumulator in no condition to `evaluate`, so fresh ones take what it returned.
    let mut fresh = accumulators(plan)?;
    merge(plan, &mut fresh, states.columns(), &indices, rows)?;
    answers(plan, &mut fresh)
}

/// The answers of `accumulators`: one column per call, one row per group.
pub(crate) fn answers(
    plan: &Plan,
    accumulators: &mut [Box<dyn GroupsAccumulator>],
) -> Result<Vec<ArrayRef>, OperatorError> {
    let types = plan.output.fields()[plan.keys.len()..].iter();
    let mut answers = Vec::with_capacity(plan.calls.len());
    for (call, accumulator) in plan.calls.iter().zip(accumulators) {
        answers.push(call.canonical.apply(accumulator.evaluate(EmitTo::All)?)?);
    }
    conform(answers, types.map(|field| field.data_type().clone()))
}
