//! What rows that come late change of what is kept of panes: see [`super::sliding`].

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray, UInt32Array};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::calls::Plan;
use super::closing;
use super::owner::Lookup;
use super::sliding::{Open, Sliding};
use crate::OperatorError;
use crate::arrangement::Arrangement;
use crate::exchange::take_rows;
use crate::keys::Encoded;

impl Sliding {
    /// Says what an epoch has changed in the state: of the groups that were looked up, which are now `states`.
    pub(crate) fn changed(
        &mut self,
        plan: &Plan,
        lookup: &Lookup,
        states: &RecordBatch,
    ) -> Result<(), OperatorError> {
        let key = |group: &u32| lookup.encoded.key(*group as usize);
        if let Some(open) = &mut self.open {
            let bound = closing::bound(plan, self.grid.end(open.added - 1))?;
            let keys = lookup.order.iter().map(key);
            for key in keys.take_while(|key| *key < bound.as_slice()) {
                open.stale.insert(key[self.times.bytes..].to_vec());
            }
        }
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        let (from, until) = (running.panes.start, running.panes.end);
        let from = closing::bound(plan, self.grid.end(from - 1))?;
        let until = closing::bound(plan, self.grid.end(until - 1))?;
        let inside = |group: &u32| (from.as_slice()..until.as_slice()).contains(&key(group));
        let rest = |group: u32| &key(&group)[self.times.bytes..];
        let columns = &self.lists.columns;
        let stored = (0..).zip(&lookup.stored_groups);
        let stored = stored.map(|(row, group)| (row, *group as u32));
        let left: (Vec<u32>, Vec<u32>) = stored.filter(|(_, group)| inside(group)).unzip();
        if !left.0.is_empty() {
            let (rows, groups) = left;
            let rows = UInt32Array::from(rows);
            let old = columns
                .iter()
                .map(|column| Arc::clone(&lookup.stored[*column]));
            let schema = Arc::clone(&self.lists.plan.state_schema);
            let old = RecordBatch::try_new(schema, old.collect())?;
            running.leave(groups.into_iter().map(rest), &take_rows(&old, &rows)?)?;
        }
        let entered: Vec<u32> = lookup.order.iter().copied().filter(inside).collect();
        if !entered.is_empty() {
            let rows = UInt32Array::from(entered.clone());
            let new = take_rows(&states.project(columns)?, &rows)?;
            running.enter(entered.into_iter().map(rest), &new)?;
        }
        Ok(())
    }

    /// Adds the panes of stale keys again. False if they are so many that all had better be.
    pub(super) fn refresh(
        &self,
        arrangement: &Arrangement,
        open: &mut Open,
    ) -> Result<bool, OperatorError> {
        let stale = std::mem::take(&mut open.stale);
        if stale.is_empty() {
            return Ok(true);
        }
        if stale.len() * 4 > open.folds.len() {
            return Ok(false);
        }
        let panes = open.next..open.added;
        let ends =
            TimestampMicrosecondArray::from_iter_values(panes.clone().map(|p| self.grid.end(p)));
        let ends: ArrayRef = Arc::new(ends.with_data_type(self.times.codec.types()[0].clone()));
        let ends = self.times.codec.encode(&[ends], panes.clone().count())?;
        let mut keys = Encoded::default();
        for end in 0..panes.clone().count() {
            for key in &stale {
                keys.push(&[ends.key(end), key].concat());
            }
        }
        let found = arrangement.probe((0..keys.len()).map(|row| keys.key(row)))?;
        let columns = self.small.columns.iter();
        let columns = columns
            .filter_map(|column| found.column(*column).transpose())
            .collect::<Result<Vec<ArrayRef>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(found.keys.len()));
        let schema = Arc::clone(&self.small.plan.state_schema);
        let columns = match found.keys.is_empty() {
            true => RecordBatch::new_empty(schema),
            false => RecordBatch::try_new_with_options(schema, columns, &options)?,
        };
        let groups = open.folds.intern(stale.iter().map(Vec::as_slice));
        open.folds.reset(&groups);
        let pane = |key: u32| panes.start + i64::from(key) / stale.len() as i64;
        let of_panes: Vec<&[u32]> = found.keys.chunk_by(|a, b| pane(*a) == pane(*b)).collect();
        let mut pieces = Vec::new();
        let mut start = 0;
        for keys in of_panes {
            let groups = keys.iter().map(|key| groups[*key as usize % stale.len()]);
            let groups: Vec<u32> = groups.collect();
            pieces.push((pane(keys[0]), groups, columns.slice(start, keys.len())));
            start += keys.len();
        }
        let second = (open.block + 1) * self.width;
        let (tails, heads): (Vec<_>, Vec<_>) = pieces.into_iter().partition(|p| p.0 < second);
        for (pane, groups, states) in tails.into_iter().rev() {
            open.folds
                .add_to_tails(&self.small.plan, pane, &groups, &states, true)?;
        }
        for (_, groups, states) in heads {
            open.folds
                .add_to_heads(&self.small.plan, &groups, &states)?;
        }
        Ok(true)
    }
}
