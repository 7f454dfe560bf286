//! A join whose rows may leave again: those of its inputs, and those that came out alone before they found a partner.
//!
//! How many partners a row has is counted anew whenever one of them comes or goes, over the rows that are stored: no
//! count is kept that could be wrong. So a row must be stored as long as one that it is a partner of.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, Int64Array, UInt32Array};
use arrow::compute::concat_batches;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::pairs::{Asked, Pairs, pairs, standing};
use super::side::{Delta, Removed, Side, picked};
use super::stream::{Join, JoinKind};
use crate::OperatorError;

/// Stored rows of one side whose partners come or go.
#[derive(Default)]
struct Touched {
    /// By key: the number of the row, how often it counts, by how much the number of its partners changes.
    rows: BTreeMap<Vec<u8>, (usize, i64, i64)>,
    columns: Vec<RecordBatch>,
}

impl Touched {
    fn note(&mut self, side: &Side, pairs: &Pairs<'_>, delta: &Delta) -> Result<(), OperatorError> {
        let mut fresh = Vec::new();
        for (pair, row) in pairs.stored.iter().enumerate() {
            let key = pairs.found.stored_key(*row as usize);
            let diff = delta.diff(pairs.new[pair] as usize);
            if let Some((_, _, change)) = self.rows.get_mut(key) {
                *change += diff;
                continue;
            }
            let number = self.rows.len();
            self.rows
                .insert(key.to_vec(), (number, pairs.diffs[pair], diff));
            fresh.push(*row);
        }
        if !fresh.is_empty() {
            let columns = pairs.found.pick(side.layout.width(), &fresh)?;
            let fields = side.layout.values.fields()[..side.layout.width()].to_vec();
            let schema = std::sync::Arc::new(arrow::datatypes::Schema::new(fields));
            let options = RecordBatchOptions::new().with_row_count(Some(fresh.len()));
            let rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
            self.columns.push(rows);
        }
        Ok(())
    }
}

/// A row's count and that of its partners, before an epoch and after it.
struct Count {
    rows: (i64, i64),
    partners: (i64, i64),
}

impl Count {
    /// By how much the number of times changes that the row comes out alone.
    fn change(&self, kind: JoinKind) -> i64 {
        let comes = |rows: i64, partners: i64| match kind {
            JoinKind::LeftSemi if partners > 0 => rows,
            JoinKind::LeftSemi => 0,
            _ if partners > 0 => 0,
            _ => rows,
        };
        comes(self.rows.1, self.partners.1) - comes(self.rows.0, self.partners.0)
    }
}

impl Join {
    /// True if it matters how many partners a row of `side` has.
    fn counts(&self, side: usize) -> bool {
        self.how.kind.keeps(side) || self.how.kind == JoinKind::LeftSemi && side == 0
    }

    pub(super) fn run_changes(
        &mut self,
        epoch: u64,
        deltas: &[Delta; 2],
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<u64, OperatorError> {
        let kind = self.how.kind;
        let [left, right] = deltas;
        let before = [self.stored(0, left)?, self.stored(1, right)?];
        let kept = |delta: &Delta, row: usize| delta.can_match(row);
        let none = Removed::default();
        let mut changed = self.sides[1].insert(epoch, right, |row| kept(right, row), &none)?;
        let mut touched = [Touched::default(), Touched::default()];
        let mut partners = [vec![0; left.len()], vec![0; right.len()]];
        for new_side in [1, 0] {
            let (old_side, delta) = (1 - new_side, &deltas[new_side]);
            let (counts, counts_old) = (self.counts(new_side), self.counts(old_side));
            pairs(
                delta,
                &self.sides[old_side],
                &self.asked(new_side),
                &mut |pairs| {
                    if counts {
                        for (row, diff) in pairs.new.iter().zip(&pairs.diffs) {
                            partners[new_side][*row as usize] += diff;
                        }
                    }
                    if counts_old {
                        touched[old_side].note(&self.sides[old_side], &pairs, delta)?;
                    }
                    if kind.has_pairs() {
                        let rows = pairs.new.iter().zip(&pairs.diffs);
                        let diffs = || rows.map(|(row, d)| d * delta.diff(*row as usize)).collect();
                        self.emit(pairs.columns, pairs.new.len(), diffs, out)?;
                    }
                    Ok(())
                },
            )?;
            if new_side == 1 {
                changed += self.sides[0].insert(epoch, left, |row| kept(left, row), &none)?;
            }
        }
        let [touched_left, touched_right] = touched;
        let mut touched = [Some(touched_left), Some(touched_right)];
        for side in [0, 1] {
            if self.counts(side) {
                let touched = touched[side].take().unwrap_or_default();
                self.correct(
                    epoch,
                    side,
                    &deltas[side],
                    (&before[side], &partners[side]),
                    touched,
                    out,
                )?;
            }
        }
        Ok(changed)
    }

    fn asked(&self, new_side: usize) -> Asked<'_> {
        Asked {
            condition: self.how.condition.as_deref(),
            both: &self.how.both,
            new_left: new_side == 0,
            columns: self.how.kind.has_pairs(),
        }
    }

    /// How often each row of `delta` is stored.
    fn stored(&self, side: usize, delta: &Delta) -> Result<Vec<i64>, OperatorError> {
        let mut counts = vec![0; delta.len()];
        if delta.diffs.is_some() && self.counts(side) {
            let keys = delta
                .order
                .iter()
                .map(|row| delta.stored.key(*row as usize));
            let found = self.sides[side].arrangement.probe(keys)?;
            for (place, _, diff) in standing(&found, false) {
                counts[delta.order[place as usize] as usize] += diff;
            }
        }
        Ok(counts)
    }

    /// Emits by how much the rows of `side` that come out alone change. `counted` are, of the new rows, how often they
    /// were stored before, and how many partners the look-up found for them: among the rows of the right side after the
    /// epoch for left rows, among those of the left side before it for right ones.
    fn correct(
        &self,
        epoch: u64,
        side: usize,
        delta: &Delta,
        (before, partners): (&[i64], &[i64]),
        mut touched: Touched,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let kind = self.how.kind;
        let (mut rows, mut diffs) = (Vec::new(), Vec::new());
        for row in 0..delta.len() {
            let found = touched.rows.remove(delta.stored.key(row));
            let change = found.map_or(0, |(_, _, change)| change);
            let partners = match side {
                0 => (partners[row] - change, partners[row]),
                _ => (partners[row], partners[row] + change),
            };
            let rows_after = before[row] + delta.diff(row);
            let count = match delta.can_match(row) {
                true => Count {
                    rows: (before[row], rows_after),
                    partners,
                },
                // It is not stored, and has no partner.
                false => Count {
                    rows: (0, delta.diff(row)),
                    partners: (0, 0),
                },
            };
            let change = count.change(kind);
            if change != 0 {
                rows.push(row as u32);
                diffs.push(change);
            }
        }
        let numbers = UInt32Array::from(rows);
        let columns = picked(&delta.rows, delta.rows.num_columns(), &numbers)?;
        self.emit_alone(side, columns, numbers.len(), || diffs, out)?;
        if touched.rows.is_empty() {
            return Ok(());
        }
        let own = &self.sides[side];
        let all = concat_batches(&touched.columns[0].schema(), &touched.columns)?;
        let places: Vec<(usize, i64, i64)> = touched.rows.into_values().collect();
        let numbers = places.iter().map(|(number, _, _)| *number as u32);
        let numbers = UInt32Array::from_iter_values(numbers);
        let mut columns: Vec<ArrayRef> = picked(&all, all.num_columns(), &numbers)?;
        if own.layout.input.signed {
            columns.push(std::sync::Arc::new(Int64Array::from_value(1, places.len())));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(places.len()));
        let schema = own.layout.input.physical();
        let rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let looking = own.keyed(epoch, rows, i64::MIN)?;
        let mut now = vec![0; places.len()];
        let asked = Asked {
            columns: false,
            ..self.asked(side)
        };
        pairs(&looking, &self.sides[1 - side], &asked, &mut |pairs| {
            for (row, diff) in pairs.new.iter().zip(&pairs.diffs) {
                now[*row as usize] += diff;
            }
            Ok(())
        })?;
        let (mut rows, mut diffs) = (Vec::new(), Vec::new());
        for (row, (_, count, change)) in places.into_iter().enumerate() {
            let count = Count {
                rows: (count, count),
                partners: (now[row] - change, now[row]),
            };
            let change = count.change(kind);
            if change != 0 {
                rows.push(row as u32);
                diffs.push(change);
            }
        }
        let numbers = UInt32Array::from(rows);
        let columns = picked(&looking.rows, looking.rows.num_columns(), &numbers)?;
        self.emit_alone(side, columns, numbers.len(), || diffs, out)
    }
}
