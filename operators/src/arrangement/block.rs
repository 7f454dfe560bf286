//! A block: up to some ten thousand sorted rows, immutable.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use super::budget::{Budget, Charge};

/// How large a block may be. The limits bound the steps of a merge and what is read of a file at once; they also keep
/// every offset below 4 GiB however large a run grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows of one block.
    pub rows: usize,
    /// Bytes of one block, keys and values, unless a single row is larger.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            rows: 16 << 10,
            bytes: 16 << 20,
        }
    }
}

impl Limits {
    /// The limits of blocks in files: a probe that wants one row reads a block.
    pub(crate) fn stored(self) -> Self {
        Limits {
            rows: self.rows.min(4 << 10),
            bytes: self.bytes.min(1 << 20),
        }
    }
}

/// Sorted rows: a key, the columns of a value, a multiplicity.
#[derive(Debug)]
pub struct Block {
    pub(crate) prefixes: Vec<u64>,
    /// Where each key starts in `bytes`; one more than there are rows.
    pub(crate) offsets: Vec<u32>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) values: RecordBatch,
    /// `None` if every row counts +1.
    pub(crate) diffs: Option<Vec<i64>>,
    /// About how many bytes a row takes.
    pub(crate) row_bytes: usize,
    /// Counts the block in its process's budget, if there is one.
    pub(crate) charge: Option<Charge>,
}

/// A number that compares as the key does, as far as it goes.
///
/// In a key made by arrow's row encoding the first byte says null, empty or present, so two of its bits are enough,
/// and 62 bits of what follows tell more keys apart than the first eight bytes would.
#[inline(always)]
pub(crate) fn prefix(key: &[u8]) -> u64 {
    let mut word = [0; 8];
    match key.first() {
        None => 0,
        Some(&first) if first < 3 => {
            let rest = &key[1..key.len().min(9)];
            word[..rest.len()].copy_from_slice(rest);
            (u64::from(first) << 62) | (u64::from_be_bytes(word) >> 2)
        }
        Some(_) => {
            let start = &key[..key.len().min(8)];
            word[..start.len()].copy_from_slice(start);
            (3 << 62) | (u64::from_be_bytes(word) >> 2)
        }
    }
}

/// Compares keys of equal prefixes, which agree in their first seven bytes if they are that long.
#[inline(always)]
fn compare_rest(a: &[u8], b: &[u8]) -> Ordering {
    // One number is nine bytes, and the most frequent key: two bytes decide.
    if a.len() == 9 && b.len() == 9 {
        return u16::from_be_bytes([a[7], a[8]]).cmp(&u16::from_be_bytes([b[7], b[8]]));
    }
    a.cmp(b)
}

/// Compares two keys with their prefixes.
#[inline(always)]
pub(crate) fn compare_keys(a: (u64, &[u8]), b: (u64, &[u8])) -> Ordering {
    match a.0.cmp(&b.0) {
        Ordering::Equal => compare_rest(a.1, b.1),
        other => other,
    }
}

impl Block {
    /// The block, counted in `budget`.
    pub(crate) fn charged(mut self, budget: Option<&Arc<Budget>>) -> Self {
        self.charge = budget.map(|budget| Charge::new(budget, self.size(), false));
        self
    }

    /// True if it was read from a file for the cache, and is the cache's to let go.
    pub(crate) fn is_cached(&self) -> bool {
        self.charge.as_ref().is_some_and(Charge::is_cached)
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.prefixes.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// The key of a row.
    #[inline(always)]
    pub fn key(&self, row: usize) -> &[u8] {
        &self.bytes[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    /// The value columns, one row per row.
    pub fn values(&self) -> &RecordBatch {
        &self.values
    }

    /// How often a row counts.
    #[inline(always)]
    pub fn diff(&self, row: usize) -> i64 {
        self.diffs.as_ref().map_or(1, |diffs| diffs[row])
    }

    /// Compares the key of `row` with another.
    #[inline(always)]
    pub(crate) fn compare(&self, row: usize, prefix: u64, key: &[u8]) -> Ordering {
        match self.prefixes[row].cmp(&prefix) {
            Ordering::Equal => compare_rest(self.key(row), key),
            other => other,
        }
    }

    /// The first row from `from` on whose key is at least the one given: gallop, then binary search. Steps double, so
    /// a short way costs little and a long one is logarithmic.
    #[inline]
    pub(crate) fn seek(&self, from: usize, prefix: u64, key: &[u8]) -> usize {
        let less = |row: usize| self.compare(row, prefix, key) == Ordering::Less;
        if from >= self.len() || !less(from) {
            return from;
        }
        let (mut low, mut step) = (from, 1);
        while low + step < self.len() && less(low + step) {
            low += step;
            step *= 2;
        }
        let mut high = (low + step).min(self.len());
        low += 1;
        while low < high {
            let middle = low + (high - low) / 2;
            if less(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// About how many bytes the block takes.
    pub fn size(&self) -> usize {
        self.len() * self.row_bytes
    }
}
