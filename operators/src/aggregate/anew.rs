//! Windows put together of all their panes, each anew.

use std::ops::Range;

use arrow::array::ArrayRef;

use super::calls::Plan;
use super::folds::Folds;
use super::groups::{answers, merge, sparse_accumulators};
use super::sliding::{Part, Sliding};
use crate::OperatorError;
use crate::arrangement::Arrangement;

/// Groups that are put together at once.
const ROWS: usize = 8 << 10;

impl Sliding {
    /// Like `close`, with no more in memory than the groups of a window. The same states are merged in the same order, so
    /// answers that are rounded as they are made are the same to the last bit.
    pub(crate) fn close_anew(
        &self,
        plan: &Plan,
        arrangement: &Arrangement,
        after_us: i64,
        until_us: i64,
        out: &mut dyn FnMut(Vec<ArrayRef>, usize) -> Result<(), OperatorError>,
    ) -> Result<(), OperatorError> {
        let (mut window, last) = self.windows(after_us, until_us);
        while window <= last {
            match self.next_window(plan, arrangement, window, last)? {
                Some(next) if next <= last => window = next,
                _ => return Ok(()),
            }
            let mut folds = self.folded(plan, arrangement, window)?;
            folds.close(window);
            let panes = window..window + self.width;
            let mut others = Vec::new();
            for part in [&self.lists, &self.whole] {
                if !part.calls.is_empty() {
                    others.extend(self.of_all(
                        plan,
                        arrangement,
                        part,
                        panes.clone(),
                        &mut folds,
                        0,
                    )?);
                }
            }
            let mut first = 0;
            folds.put_together(&self.small.plan, ROWS, |folds, closed| {
                let rows = closed.windows.len();
                let others = others.iter().map(|column| column.slice(first, rows));
                let others = others.collect();
                first += rows;
                out(self.columns(plan, folds, closed, others)?, rows)
            })?;
            window += self.slide;
        }
        Ok(())
    }

    /// The tails and heads of one window.
    fn folded(
        &self,
        plan: &Plan,
        arrangement: &Arrangement,
        window: i64,
    ) -> Result<Folds, OperatorError> {
        let small = &self.small.plan;
        let second = (window.div_euclid(self.width) + 1) * self.width;
        let mut there = Vec::new();
        let mut pieces = self.pieces(plan, arrangement, &self.small, window..second)?;
        while let Some(piece) = pieces.next()? {
            if there.last() != Some(&piece.pane) {
                there.push(piece.pane);
            }
        }
        let mut folds = Folds::default();
        for pane in there.into_iter().rev() {
            let mut pieces = self.pieces(plan, arrangement, &self.small, pane..pane + 1)?;
            while let Some(piece) = pieces.next()? {
                let groups = folds.intern(piece.keys());
                folds.add_to_tails(small, pane, &groups, &piece.states(), false)?;
            }
        }
        let heads = second..window + self.width;
        let mut pieces = self.pieces(plan, arrangement, &self.small, heads)?;
        while let Some(piece) = pieces.next()? {
            let groups = folds.intern(piece.keys());
            folds.add_to_heads(small, &groups, &piece.states())?;
            folds.let_go(small)?;
        }
        Ok(folds)
    }

    /// The answers of some calls for the groups of a window, which are those that wait but for the first `skip`: made of
    /// all its panes, in their order.
    pub(super) fn of_all(
        &self,
        plan: &Plan,
        arrangement: &Arrangement,
        part: &Part,
        panes: Range<i64>,
        folds: &mut Folds,
        skip: usize,
    ) -> Result<Vec<ArrayRef>, OperatorError> {
        let waiting = folds.waiting(skip);
        let count = waiting.len();
        let mut place = vec![0; folds.len()];
        for (at, group) in waiting.enumerate() {
            place[group as usize] = at;
        }
        let mut sums = sparse_accumulators(&part.plan, count)?;
        let mut pieces = self.pieces(plan, arrangement, part, panes)?;
        while let Some(piece) = pieces.next()? {
            let groups = folds.intern(piece.keys());
            let indices = groups.iter().map(|group| place[*group as usize]);
            let indices: Vec<usize> = indices.collect();
            merge(
                &part.plan,
                &mut sums,
                piece.states().columns(),
                &indices,
                count,
            )?;
        }
        answers(&part.plan, &mut sums)
    }
}
