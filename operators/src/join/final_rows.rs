//! A join whose rows are final when they come out: no input takes a row back, and none is taken back from the output.

use std::collections::BTreeSet;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::record_batch::RecordBatch;

use super::pairs::{Asked, Pairs, pairs};
use super::pending::Found;
use super::side::{Delta, Removed, SUFFIX, picked};
use super::stream::{Join, JoinKind};
use crate::OperatorError;

/// What an epoch has found out about the rows of one side.
struct Partners {
    /// The new rows that have a partner.
    new: Vec<bool>,
    /// Rows from before that have one, if it matters.
    old: Found,
    matters: bool,
}

impl Partners {
    fn new(delta: &Delta, matters: bool) -> Self {
        Partners {
            new: vec![false; delta.len()],
            old: Found::default(),
            matters,
        }
    }

    /// The rows of `pairs` that are stored under `epoch` are new ones themselves.
    fn note(&mut self, epoch: u64, moment: usize, pairs: &Pairs<'_>) {
        if !self.matters {
            return;
        }
        let mut last = None;
        for row in &pairs.stored {
            if last.replace(*row) == Some(*row) {
                continue;
            }
            let key = pairs.found.stored_key(*row as usize);
            let (came, number) = came(key);
            if came == epoch {
                self.new[number as usize] = true;
            } else {
                let due = pairs.found.number(moment, *row as usize);
                self.old.keys.push((due, key.to_vec()));
            }
        }
    }
}

/// The epoch that a stored row came in, and its number there.
fn came(key: &[u8]) -> (u64, u32) {
    let suffix = &key[key.len() - SUFFIX..];
    let (mut epoch, mut number) = ([0; 8], [0; 4]);
    epoch.copy_from_slice(&suffix[1..9]);
    number.copy_from_slice(&suffix[10..14]);
    (u64::from_be_bytes(epoch), u32::from_be_bytes(number))
}

impl Join {
    /// Runs an epoch; the watermark of the one before was `before_us`.
    pub(super) fn run_final(
        &mut self,
        (epoch, before_us): (u64, i64),
        deltas: &[Delta; 2],
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<u64, OperatorError> {
        let kind = self.how.kind;
        let [left, right] = deltas;
        // In the model a row whose key has a null waits for a partner in vain. An anti join is not the model's.
        let can_wait = |side: usize, row: usize| match kind {
            JoinKind::LeftAnti => deltas[side].can_match(row),
            _ => deltas[side].is_eligible(row),
        };
        // What can have a partner is kept, and what waits for one: it counts as state.
        let is_kept = |side: usize, row: usize| {
            deltas[side].can_match(row) || kind.keeps(side) && can_wait(side, row)
        };
        for (side, delta) in deltas
            .iter()
            .enumerate()
            .filter(|(side, _)| kind.keeps(*side))
        {
            let alone = (0..delta.len()).filter(|row| !can_wait(side, *row));
            let alone = UInt32Array::from_iter_values(alone.map(|row| row as u32));
            let columns = picked(&delta.rows, delta.rows.num_columns(), &alone)?;
            self.emit_alone(side, columns, alone.len(), Vec::new, out)?;
        }
        let waits = |side: usize| self.pending[side].is_some();
        let mut left_partners = Partners::new(left, waits(0));
        let mut right_partners = Partners::new(right, waits(1));
        let moments = [0, 1].map(|side| self.sides[side].layout.width());

        let mut changed =
            self.sides[1].insert(epoch, right, |row| is_kept(1, row), &Removed::default())?;
        let asked = |new_left: bool| Asked {
            condition: self.how.condition.as_deref(),
            both: &self.how.both,
            new_left,
            columns: kind.has_pairs(),
        };
        pairs(left, &self.sides[1], &asked(true), &mut |pairs| {
            for row in &pairs.new {
                left_partners.new[*row as usize] = true;
            }
            right_partners.note(epoch, moments[1], &pairs);
            if kind.has_pairs() {
                self.emit(pairs.columns, pairs.new.len(), Vec::new, out)?;
            }
            Ok(())
        })?;
        let leaves = matches!(kind, JoinKind::LeftSemi | JoinKind::LeftAnti);
        let mut removed = Removed::default();
        let mut seen = BTreeSet::new();
        let mut gone: Vec<RecordBatch> = Vec::new();
        pairs(right, &self.sides[0], &asked(false), &mut |pairs| {
            for row in &pairs.new {
                right_partners.new[*row as usize] = true;
            }
            left_partners.note(epoch, moments[0], &pairs);
            if leaves {
                gone.extend(self.leaving(&pairs, &mut seen, &mut removed, out)?);
            } else {
                self.emit(pairs.columns, pairs.new.len(), Vec::new, out)?;
            }
            Ok(())
        })?;
        if !gone.is_empty() {
            let schema = &self.sides[0].layout.values;
            removed.values = Some(arrow::compute::concat_batches(schema, &gone)?);
        }
        let matched = &left_partners.new;
        if kind == JoinKind::LeftSemi {
            let rows = (0..left.len()).filter(|row| matched[*row]);
            let rows = UInt32Array::from_iter_values(rows.map(|row| row as u32));
            let columns = picked(&left.rows, left.rows.num_columns(), &rows)?;
            self.emit(columns, rows.len(), Vec::new, out)?;
        }
        let stays = |row: usize| is_kept(0, row) && !(leaves && matched[row]);
        changed += self.sides[0].insert(epoch, left, stays, &removed)?;
        for (side, partners) in [left_partners, right_partners].into_iter().enumerate() {
            let Some(pending) = &mut self.pending[side] else {
                continue;
            };
            let Partners { new, old, .. } = partners;
            let delta = &deltas[side];
            let alone = |row: usize| can_wait(side, row) && !new[row];
            // A row that is in time may come after its last partner could have.
            let past = |row: usize| delta.expires(row) <= before_us;
            pending.change(epoch, delta, |row| alone(row) && !past(row), old)?;
            let rows = (0..delta.len()).filter(|row| alone(*row) && past(*row));
            let rows = UInt32Array::from_iter_values(rows.map(|row| row as u32));
            let columns = picked(&delta.rows, delta.rows.num_columns(), &rows)?;
            self.emit_alone(side, columns, rows.len(), Vec::new, out)?;
        }
        Ok(changed)
    }

    /// Left rows that need not stay because they have found a partner; those of a semi join come out.
    fn leaving(
        &self,
        pairs: &Pairs<'_>,
        seen: &mut BTreeSet<Vec<u8>>,
        removed: &mut Removed,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<Option<RecordBatch>, OperatorError> {
        let layout = &self.sides[0].layout;
        let width = layout.width();
        let mut rows = Vec::new();
        for row in &pairs.stored {
            let key = pairs.found.stored_key(*row as usize);
            if seen.contains(key) {
                continue;
            }
            seen.insert(key.to_vec());
            removed.keys.push(key.to_vec());
            removed.expires.push(match layout.times.last_match {
                Some(_) => pairs.found.number(width, *row as usize),
                None => i64::MAX,
            });
            rows.push(*row);
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let columns = pairs.found.pick(layout.values.fields().len(), &rows)?;
        if self.how.kind == JoinKind::LeftSemi {
            let own: Vec<ArrayRef> = columns[..width].to_vec();
            self.emit(own, rows.len(), Vec::new, out)?;
        }
        let schema = std::sync::Arc::clone(&layout.values);
        Ok(Some(RecordBatch::try_new(schema, columns)?))
    }
}
