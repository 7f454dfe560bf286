//! Answers as changes: what a group's answer was leaves, what it is comes.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, UInt32Array, UInt64Array};
use arrow::compute::{cast, concat_batches, interleave, take};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::calls::{Plan, conform};
use super::groups::evaluate;
use super::owner::Lookup;
use crate::exchange::take_rows;
use crate::keys::{Codec, Encoded};
use crate::{Edge, OperatorError, wire};

/// The changes of the groups that were looked up, whose states are now `states`: in the order of their keys, of each the
/// old answer before the new one. Groups whose answer is what it was have none.
pub(super) fn changes(
    plan: &Plan,
    lookup: &Lookup,
    states: &RecordBatch,
    gone: Option<&[bool]>,
) -> Result<Option<RecordBatch>, OperatorError> {
    let new = evaluate(plan, states)?;
    let old = if lookup.stored_groups.is_empty() {
        None
    } else {
        let schema = SchemaRef::clone(&plan.state_schema);
        let options = RecordBatchOptions::new().with_row_count(Some(lookup.stored_groups.len()));
        let stored = RecordBatch::try_new_with_options(schema, lookup.stored.clone(), &options)?;
        Some(evaluate(plan, &stored)?)
    };
    let mut old_row = vec![None; states.num_rows()];
    for (row, group) in lookup.stored_groups.iter().enumerate() {
        old_row[*group] = Some(row);
    }
    // How many rows there are is not seen above.
    let seen = |answers: &[ArrayRef]| -> Vec<ArrayRef> {
        let answers = answers.iter().enumerate();
        let answers = answers.filter(|(call, _)| Some(*call) != plan.gone);
        answers.map(|(_, column)| Arc::clone(column)).collect()
    };
    let (old_seen, new_seen) = (old.as_deref().map(seen), seen(&new));
    let same = same_answers(old_seen, &new_seen, &old_row)?;
    // Rows as (0, old row) or (1, new row), and the group of each.
    let is_gone = |group: usize| gone.is_some_and(|gone| gone[group]);
    let (mut places, mut groups, mut diffs) = (Vec::new(), Vec::new(), Vec::new());
    for group in &lookup.order {
        let (group, number) = (*group as usize, *group);
        if let Some(row) = old_row[group] {
            if !is_gone(group) && same(group, row) {
                continue;
            }
            places.push((0, row));
            groups.push(number);
            diffs.push(-1);
        }
        if !is_gone(group) {
            places.push((1, group));
            groups.push(number);
            diffs.push(1);
        }
    }
    if places.is_empty() {
        return Ok(None);
    }
    let groups = UInt32Array::from(groups);
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(plan.output.fields().len() + 1);
    for key in &lookup.keys {
        columns.push(take(key, &groups, None)?);
    }
    for (index, new) in new.iter().enumerate() {
        columns.push(match &old {
            Some(old) => interleave(&[old[index].as_ref(), new.as_ref()], &places)?,
            None => {
                let rows = places.iter().map(|(_, row)| *row as u64);
                take(new, &UInt64Array::from_iter_values(rows), None)?
            }
        });
    }
    let types = plan.output.fields().iter();
    let mut columns = conform(columns, types.map(|field| field.data_type().clone()))?;
    columns.push(Arc::new(Int64Array::from(diffs)));
    let edge = Edge {
        signed: true,
        ..Edge::plain(SchemaRef::clone(&plan.output))
    };
    Ok(Some(RecordBatch::try_new(edge.physical(), columns)?))
}

/// What is between two answers: rows that leave, and rows that come.
pub(crate) struct Difference {
    edge: Edge,
    /// `None` for types that cannot be compared.
    codec: Option<Codec>,
}

impl Difference {
    /// Of answers with these columns.
    pub(crate) fn new(schema: &SchemaRef) -> Self {
        let flat = |t: &DataType| wire::flat_type(t).unwrap_or_else(|| t.clone());
        let types = schema.fields().iter().map(|field| flat(field.data_type()));
        Difference {
            codec: Codec::new(types.collect()).ok(),
            edge: Edge {
                signed: true,
                ..Edge::plain(SchemaRef::clone(schema))
            },
        }
    }

    /// Between the old answer and the new one, whose rows are there so often; `None` if there is nothing.
    pub(crate) fn of(
        &self,
        [old, new]: [&RecordBatch; 2],
        [old_counts, new_counts]: [&[i64]; 2],
    ) -> Result<Option<RecordBatch>, OperatorError> {
        let rows = concat_batches(&self.edge.rows, [old, new])?;
        let leaving = old_counts.iter().map(|count| -count);
        let mut diffs: Vec<i64> = leaving.chain(new_counts.iter().copied()).collect();
        if let Some(codec) = &self.codec {
            let columns: Result<Vec<_>, _> = rows.columns().iter().map(flat).collect();
            let encoded = codec.encode(&columns?, diffs.len())?;
            let sorted = encoded.sorted();
            for pair in sorted.windows(2) {
                let [one, other] = [pair[0] as usize, pair[1] as usize];
                if encoded.key(one) == encoded.key(other) {
                    diffs[other] += std::mem::take(&mut diffs[one]);
                }
            }
        }
        // What leaves goes first: whoever keeps rows by a key may apply them one by one.
        let some = |sign: i64| {
            let of = diffs.iter().enumerate();
            of.filter(move |(_, diff)| diff.signum() == sign)
                .map(|(row, _)| row as u32)
        };
        let picks: Vec<u32> = some(-1).chain(some(1)).collect();
        if picks.is_empty() {
            return Ok(None);
        }
        let mut columns = take_rows(&rows, &UInt32Array::from(picks.clone()))?
            .columns()
            .to_vec();
        let diffs = picks.iter().map(|row| diffs[*row as usize]);
        columns.push(Arc::new(Int64Array::from_iter_values(diffs)));
        Ok(Some(RecordBatch::try_new(self.edge.physical(), columns)?))
    }
}

fn flat(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match wire::flat_type(column.data_type()) {
        Some(flat) => cast(column, &flat),
        None => Ok(Arc::clone(column)),
    }
}

/// Which groups have no rows left, where rows may leave.
pub(super) fn gone(plan: &Plan, states: &RecordBatch) -> Result<Option<Vec<bool>>, OperatorError> {
    let Some(call) = plan.gone else {
        return Ok(None);
    };
    let answers = evaluate(plan, states)?;
    let rows = answers[call].as_primitive::<Int64Type>();
    if rows.iter().flatten().any(|rows| rows < 0) {
        let text = "of a group more rows left than had come";
        return Err(OperatorError::Other(text.into()));
    }
    let none = |rows: Option<i64>| rows.is_none_or(|rows| rows == 0);
    Ok(Some(rows.iter().map(none).collect()))
}

/// Tells of a group and its row among the old answers whether the answer is the same.
fn same_answers(
    old: Option<Vec<ArrayRef>>,
    new: &[ArrayRef],
    old_row: &[Option<usize>],
) -> Result<impl Fn(usize, usize) -> bool, OperatorError> {
    let types = new.iter().map(|column| column.data_type().clone());
    // Types that have no such encoding count as changed.
    let codec = Codec::new(types.collect()).ok();
    let encoded: Option<(Encoded, Encoded)> = match (old, codec) {
        (Some(old), Some(codec)) => {
            let rows = old_row.iter().flatten().count();
            Some((codec.encode(&old, rows)?, codec.encode(new, old_row.len())?))
        }
        _ => None,
    };
    Ok(move |group: usize, row: usize| {
        encoded
            .as_ref()
            .is_some_and(|(old, new)| old.key(row) == new.key(group))
    })
}
