//! Sessions as they lie in the state.

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};

use super::How;
use super::merge::Stretch;
use crate::OperatorError;

/// The sessions found in rows of state.
pub(super) struct Stored {
    /// Where the sessions of each row start; one more than there are rows.
    pub(super) offsets: Vec<usize>,
    pub(super) stretches: Vec<Stretch>,
    pub(super) states: RecordBatch,
}

impl Stored {
    pub(super) fn of(how: &How, columns: &[ArrayRef]) -> Result<Self, OperatorError> {
        let lists: Vec<&ListArray> = columns[1..].iter().map(|c| c.as_list()).collect();
        let bounds = lists[0].value_offsets();
        let (first, last) = (bounds[0], bounds[bounds.len() - 1]);
        let offsets = bounds.iter().map(|at| (at - first) as usize).collect();
        let flat = |list: &&ListArray| {
            let first = list.value_offsets()[0] as usize;
            list.values().slice(first, (last - bounds[0]) as usize)
        };
        let [starts, ends] = [flat(&lists[0]), flat(&lists[1])];
        let starts = starts.as_primitive::<Int64Type>().values();
        let ends = ends.as_primitive::<Int64Type>().values();
        let stretches = starts.iter().zip(ends.iter());
        let stretches: Vec<Stretch> = stretches
            .map(|(&start, &end)| Stretch { start, end })
            .collect();
        let states = lists[2..].iter().map(flat).collect();
        Ok(Stored {
            offsets,
            states: batch(&how.plan.state_schema, states, stretches.len())?,
            stretches,
        })
    }

    pub(super) fn none(how: &How) -> Self {
        Stored {
            offsets: vec![0],
            stretches: Vec::new(),
            states: RecordBatch::new_empty(SchemaRef::clone(&how.plan.state_schema)),
        }
    }
}

pub(super) fn batch(
    schema: &SchemaRef,
    columns: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, OperatorError> {
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(rows));
    let schema = SchemaRef::clone(schema);
    Ok(RecordBatch::try_new_with_options(
        schema, columns, &options,
    )?)
}
