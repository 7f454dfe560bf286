//! The rows of some groups.

use std::ops::Range;

use arrow::array::UInt32Array;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::OperatorError;
use crate::aggregate::Asked;
use crate::exchange::take_rows;
use crate::keys::Codec;

/// The rows of some groups, group by group, sorted within each.
pub struct Members {
    /// The rows, with the columns of the input.
    pub rows: RecordBatch,
    /// How often each row is there.
    pub counts: Vec<i64>,
    /// Where each group starts; one more than there are groups.
    pub starts: Vec<usize>,
    /// Where an answer is one of several groups: which are asked for; `None` for all.
    pub(super) asked: Option<Asked>,
}

impl Members {
    /// From encoded rows with their groups (ascending, of `groups`) and counts.
    pub(crate) fn decode(
        codec: &Codec,
        schema: &SchemaRef,
        rows: &[(u32, &[u8], i64)],
        groups: usize,
    ) -> Result<Self, OperatorError> {
        if let Some((_, _, count)) = rows.iter().find(|(_, _, count)| *count < 0) {
            return Err(OperatorError::Other(format!(
                "a row left {} times more often than it came",
                count.unsigned_abs()
            )));
        }
        let columns = codec.decode(rows.iter().map(|(_, key, _)| *key))?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let mut starts = Vec::with_capacity(groups + 1);
        let mut row = 0;
        for group in 0..groups {
            starts.push(row);
            row += rows[row..]
                .iter()
                .take_while(|(of, _, _)| *of as usize == group)
                .count();
        }
        starts.push(row);
        Ok(Members {
            rows: RecordBatch::try_new_with_options(SchemaRef::clone(schema), columns, &options)?,
            counts: rows.iter().map(|(_, _, count)| *count).collect(),
            starts,
            asked: None,
        })
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.starts.len() - 1
    }

    /// The rows of a group.
    pub fn group(&self, group: usize) -> Range<usize> {
        self.starts[group]..self.starts[group + 1]
    }

    /// Each row as often as it is there.
    pub fn spread(&self) -> Result<Members, OperatorError> {
        let mut picks = Vec::with_capacity(self.counts.len());
        let mut starts = Vec::with_capacity(self.starts.len());
        for group in 0..self.groups() {
            starts.push(picks.len());
            for row in self.group(group) {
                picks.extend(std::iter::repeat_n(row as u32, self.counts[row] as usize));
            }
        }
        starts.push(picks.len());
        let counts = vec![1; picks.len()];
        Ok(Members {
            rows: take_rows(&self.rows, &UInt32Array::from(picks))?,
            counts,
            starts,
            asked: None,
        })
    }
}
