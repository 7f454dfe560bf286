//! Pairs of new rows of one side with stored rows of the other.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::physical_expr::PhysicalExpr;

use super::keys::holds;
use super::side::{Delta, Side, picked};
use crate::OperatorError;
use crate::arrangement::Found;

/// Pairs that are made at once.
const PAIRS_MAX: usize = 16 << 10;

/// Some pairs that satisfy the condition of their join.
pub(super) struct Pairs<'a> {
    /// Of each pair the new row.
    pub(super) new: Vec<u32>,
    /// And the stored one, a number in `found`.
    pub(super) stored: Vec<u32>,
    /// How often the stored row counts.
    pub(super) diffs: Vec<i64>,
    pub(super) found: &'a Found,
    /// The columns of both sides, left ones first; none if nobody asked for them.
    pub(super) columns: Vec<ArrayRef>,
}

/// What a pair must satisfy besides equal keys, and what is wanted of it.
pub(super) struct Asked<'a> {
    pub(super) condition: Option<&'a dyn PhysicalExpr>,
    /// The columns of both sides.
    pub(super) both: &'a SchemaRef,
    /// True if the new rows are of the left side.
    pub(super) new_left: bool,
    /// True if the columns of pairs are wanted.
    pub(super) columns: bool,
}

/// Hands `take` all pairs of a row of `delta` with a row of `other`, some at a time.
pub(super) fn pairs(
    delta: &Delta,
    other: &Side,
    asked: &Asked<'_>,
    take: &mut dyn FnMut(Pairs<'_>) -> Result<(), OperatorError>,
) -> Result<(), OperatorError> {
    let order = delta.order.iter().copied();
    let order: Vec<u32> = order.filter(|row| delta.can_match(*row as usize)).collect();
    if order.is_empty() {
        return Ok(());
    }
    // Rows with one key stand together, and look once.
    let mut groups: Vec<(usize, usize)> = Vec::new();
    for rows in order.chunk_by(|a, b| delta.join_key(*a as usize) == delta.join_key(*b as usize)) {
        let start = groups.last().map_or(0, |(_, end)| *end);
        groups.push((start, start + rows.len()));
    }
    let keys = groups
        .iter()
        .map(|(start, _)| delta.join_key(order[*start] as usize));
    let found = other.arrangement.probe(keys)?;
    let mut chunk = Chunk::default();
    let mut each = |group: u32, row: u32, diff: i64| {
        let (start, end) = groups[group as usize];
        for new in &order[start..end] {
            chunk.new.push(*new);
            chunk.stored.push(row);
            chunk.diffs.push(diff);
            if chunk.new.len() == PAIRS_MAX {
                std::mem::take(&mut chunk).settle(delta, other, &found, asked, take)?;
            }
        }
        Ok::<_, OperatorError>(())
    };
    for (group, row, diff) in standing(&found, !other.layout.input.signed) {
        each(group, row, diff)?;
    }
    chunk.settle(delta, other, &found, asked, take)
}

/// The rows found, each once: the group that found it, its number, how often it counts. `differ`: no two rows were stored
/// under one key.
pub(super) fn standing(found: &Found, differ: bool) -> Vec<(u32, u32, i64)> {
    let rows = found.keys.iter().zip(found.diffs()).enumerate();
    if differ && found.diffs().all(|diff| diff == 1) {
        // Where rows come once and never leave, nothing can cancel.
        return rows
            .map(|(row, (group, _))| (*group, row as u32, 1))
            .collect();
    }
    let mut sums: BTreeMap<(u32, &[u8]), (u32, i64)> = BTreeMap::new();
    for (row, (group, diff)) in rows {
        let key = (*group, found.stored_key(row));
        sums.entry(key).or_insert((row as u32, 0)).1 += diff;
    }
    let kept = sums.into_iter().filter(|(_, (_, sum))| *sum != 0);
    kept.map(|((group, _), (row, sum))| (group, row, sum))
        .collect()
}

#[derive(Default)]
struct Chunk {
    new: Vec<u32>,
    stored: Vec<u32>,
    diffs: Vec<i64>,
}

impl Chunk {
    fn settle(
        mut self,
        delta: &Delta,
        other: &Side,
        found: &Found,
        asked: &Asked<'_>,
        take: &mut dyn FnMut(Pairs<'_>) -> Result<(), OperatorError>,
    ) -> Result<(), OperatorError> {
        if self.new.is_empty() {
            return Ok(());
        }
        let mut columns = Vec::new();
        if asked.columns || asked.condition.is_some() {
            let new = UInt32Array::from(self.new.clone());
            let new = picked(&delta.rows, delta.rows.num_columns(), &new)?;
            let stored = found.pick(other.layout.width(), &self.stored)?;
            let (left, right) = if asked.new_left {
                (new, stored)
            } else {
                (stored, new)
            };
            columns = left;
            columns.extend(right);
        }
        if let Some(condition) = asked.condition {
            let options = RecordBatchOptions::new().with_row_count(Some(self.new.len()));
            let both = SchemaRef::clone(asked.both);
            let both = RecordBatch::try_new_with_options(both, columns, &options)?;
            let holds = holds(condition, &both)?;
            if holds.iter().all(|holds| *holds) {
                columns = both.columns().to_vec();
            } else {
                let kept = (0..holds.len() as u32).filter(|pair| holds[*pair as usize]);
                let kept: Vec<u32> = kept.collect();
                if kept.is_empty() {
                    return Ok(());
                }
                let of = |all: &[u32]| kept.iter().map(|pair| all[*pair as usize]).collect();
                (self.new, self.stored) = (of(&self.new), of(&self.stored));
                self.diffs = kept.iter().map(|pair| self.diffs[*pair as usize]).collect();
                columns = match asked.columns {
                    true => picked(&both, both.num_columns(), &UInt32Array::from(kept))?,
                    false => Vec::new(),
                };
            }
        }
        take(Pairs {
            new: self.new,
            stored: self.stored,
            diffs: self.diffs,
            found,
            columns,
        })
    }
}
