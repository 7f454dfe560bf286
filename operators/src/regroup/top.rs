//! The first rows of each group.

use arrow::array::UInt32Array;
use arrow::record_batch::RecordBatch;

use super::{Answer, Members};
use crate::OperatorError;
use crate::exchange::take_rows;

/// The rows of each group after the first `skip`, `fetch` of them at most.
#[derive(Debug, Clone, Copy)]
pub struct Top {
    /// How many are left out.
    pub skip: u64,
    /// How many come at most; all if `None`.
    pub fetch: Option<u64>,
}

impl Answer for Top {
    fn answer(&self, members: &Members) -> Result<(RecordBatch, Vec<i64>), OperatorError> {
        let (mut picks, mut counts) = (Vec::new(), Vec::new());
        let end = self.looks_at().unwrap_or(u64::MAX);
        for group in 0..members.groups() {
            let mut place = 0_u64;
            for row in members.group(group) {
                let next = place.saturating_add(members.counts[row].unsigned_abs());
                let taken = next.min(end).saturating_sub(place.max(self.skip));
                if taken > 0 {
                    picks.push(row as u32);
                    counts.push(taken as i64);
                }
                place = next;
            }
        }
        Ok((take_rows(&members.rows, &UInt32Array::from(picks))?, counts))
    }

    fn looks_at(&self) -> Option<u64> {
        self.fetch.map(|fetch| self.skip.saturating_add(fetch))
    }
}
