//! One row per element of a list.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait, UInt32Array, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::OperatorError;

/// Rows that one batch is unnested into at most, unless a single list is longer.
const ROWS_MAX: usize = 32 << 10;

/// Hands on `rows` unnested along the zipped columns `lists`, in one or more batches of `schema`.
pub(crate) fn unnest(
    rows: &RecordBatch,
    lists: &[usize],
    outer: bool,
    schema: &SchemaRef,
    out: &mut dyn FnMut(RecordBatch) -> Result<(), OperatorError>,
) -> Result<(), OperatorError> {
    let extents = lists
        .iter()
        .map(|list| Extents::of(rows.column(*list)))
        .collect::<Result<Vec<Extents>, OperatorError>>()?;
    let mut counts = vec![0; rows.num_rows()];
    for extents in &extents {
        for (count, length) in counts.iter_mut().zip(&extents.lengths) {
            *count = (*count).max(*length);
        }
    }
    if outer {
        counts.iter_mut().for_each(|count| *count = (*count).max(1));
    }
    let mut start = 0;
    while start < counts.len() {
        let mut end = start;
        let mut total = 0;
        while end < counts.len() && (end == start || total + counts[end] <= ROWS_MAX) {
            total += counts[end];
            end += 1;
        }
        if total > 0 {
            let part = Part {
                rows,
                counts: &counts,
                start,
                end,
                total,
            };
            out(part.build(lists, &extents, schema)?)?;
        }
        start = end;
    }
    Ok(())
}

/// Where the elements of each row's list are.
struct Extents {
    values: ArrayRef,
    starts: Vec<usize>,
    lengths: Vec<usize>,
}

impl Extents {
    fn of(column: &ArrayRef) -> Result<Self, OperatorError> {
        let mut extents = match column.data_type() {
            DataType::List(_) => Self::of_offsets::<i32>(column),
            DataType::LargeList(_) => Self::of_offsets::<i64>(column),
            DataType::FixedSizeList(_, length) => {
                let length = *length as usize;
                Extents {
                    values: Arc::clone(column.as_fixed_size_list().values()),
                    starts: (0..column.len()).map(|row| row * length).collect(),
                    lengths: vec![length; column.len()],
                }
            }
            other => {
                return Err(OperatorError::Other(format!(
                    "cannot unnest a column of type {other}"
                )));
            }
        };
        // A null list may still span elements, which do not count.
        if let Some(nulls) = column.nulls() {
            for (row, length) in extents.lengths.iter_mut().enumerate() {
                *length *= usize::from(nulls.is_valid(row));
            }
        }
        Ok(extents)
    }

    fn of_offsets<O: OffsetSizeTrait>(column: &ArrayRef) -> Self {
        let list = column.as_list::<O>();
        let offsets = list.value_offsets();
        Extents {
            values: Arc::clone(list.values()),
            starts: offsets[..list.len()].iter().map(|o| o.as_usize()).collect(),
            lengths: offsets
                .windows(2)
                .map(|pair| pair[1].as_usize() - pair[0].as_usize())
                .collect(),
        }
    }
}

/// Rows `start..end` of a batch, which become `total` rows.
struct Part<'a> {
    rows: &'a RecordBatch,
    counts: &'a [usize],
    start: usize,
    end: usize,
    total: usize,
}

impl Part<'_> {
    fn build(
        &self,
        lists: &[usize],
        extents: &[Extents],
        schema: &SchemaRef,
    ) -> Result<RecordBatch, OperatorError> {
        let mut repeats = None;
        let mut columns = Vec::with_capacity(self.rows.num_columns());
        for (index, column) in self.rows.columns().iter().enumerate() {
            columns.push(match lists.iter().position(|list| *list == index) {
                Some(position) => self.elements(&extents[position])?,
                None => {
                    let repeats = repeats.get_or_insert_with(|| self.repeats());
                    take(column, repeats, None)?
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.total));
        let schema = SchemaRef::clone(schema);
        Ok(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?)
    }

    /// For each output row the input row it comes from.
    fn repeats(&self) -> UInt32Array {
        let mut rows = Vec::with_capacity(self.total);
        for row in self.start..self.end {
            rows.resize(rows.len() + self.counts[row], row as u32);
        }
        rows.into()
    }

    fn elements(&self, extents: &Extents) -> Result<ArrayRef, OperatorError> {
        let rows = self.start..self.end;
        // The usual case: every element in its place and nothing to pad, so the list's own values will do.
        let mut stretch = None;
        let dense = rows.clone().all(|row| {
            let (start, length) = (extents.starts[row], extents.lengths[row]);
            if length > 0 {
                let (_, end) = stretch.get_or_insert((start, start));
                if *end != start {
                    return false;
                }
                *end += length;
            }
            length == self.counts[row]
        });
        if let (true, Some((first, _))) = (dense, stretch) {
            return Ok(extents.values.slice(first, self.total));
        }
        let mut indices: Vec<Option<u64>> = Vec::with_capacity(self.total);
        for row in rows {
            let (start, length) = (extents.starts[row], extents.lengths[row]);
            indices.extend((start..start + length).map(|at| Some(at as u64)));
            indices.resize(indices.len() + self.counts[row] - length, None);
        }
        Ok(take(&extents.values, &UInt64Array::from(indices), None)?)
    }
}
