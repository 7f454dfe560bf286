//! Windows of many panes, put together as they close, at a cost that does not grow with the panes a window has.
//!
//! Panes are counted from where the grid starts and taken in blocks of as many as a window has, so a window is the end
//! of one block and the beginning of the next (van Herk 1992; Gil and Werman 1993). Of the first block the state of
//! each pane with all after it is kept, the tails; of the next one the state of all panes so far, the heads. A group of
//! a window is one tail and one head. A pane is read once for the heads and once, when its block comes to be the first,
//! for the tails.
//!
//! The blocks lie where the grid says and not where a window happened to close, and panes are added in one order. So
//! answers are a function of the panes alone, to the last bit: what is kept here is no part of a checkpoint, and is made
//! anew after a restart or when memory was short.
//!
//! A row that comes after its pane was added makes its key stale: before the next windows close, the panes of the key
//! are looked up and added again.

use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::calls::Plan;
use super::closing::{self, Panes};
use super::folds::{Closed, Folds};
use crate::OperatorError;
use crate::arrangement::{Arrangement, Budget, Charge, Chunk};
use crate::keys::{Codec, Encoded};

/// Rows that are read or put together at once.
const ROWS: usize = 8 << 10;

/// The windows of an aggregation that stores panes.
pub(crate) struct Sliding {
    grid: Panes,
    /// How many panes a window has.
    width: i64,
    /// How many panes there are from a window's start to the next one's.
    slide: i64,
    /// Keys are the end of a pane, which takes this many bytes, and the rest.
    time: Codec,
    time_bytes: usize,
    rest: Codec,
    budget: Option<Arc<Budget>>,
    open: Option<Open>,
}

/// What is kept between epochs.
struct Open {
    folds: Folds,
    /// The first of the two blocks.
    block: i64,
    /// The first pane of the window that closes next.
    next: i64,
    /// Panes before this one have been added.
    added: i64,
    /// Keys without their times.
    stale: BTreeSet<Vec<u8>>,
    charge: Option<Charge>,
}

/// Some rows of a pane.
struct Piece {
    pane: i64,
    chunk: Rc<Chunk>,
    rows: Range<usize>,
}

impl Sliding {
    /// `None` if the windows are better put together of all their panes, each anew: because states grow with the rows
    /// in them, so that tails would be much larger than panes; or because with little memory this will have to be done
    /// for some windows, and some answer is rounded as it is made, so that it would tell which.
    pub(crate) fn of(
        plan: &Plan,
        budget: Option<Arc<Budget>>,
    ) -> Result<Option<Self>, OperatorError> {
        let Some(grid) = plan.panes.filter(|_| plan.stores_panes && !plan.ordered) else {
            return Ok(None);
        };
        for call in &plan.calls {
            if !call.is_small()? || (budget.is_some() && !call.is_exact()?) {
                return Ok(None);
            }
        }
        let (time, rest) = plan.codec.types().split_at(1);
        Ok(Some(Sliding {
            grid,
            width: grid.width_us / grid.pane_us,
            slide: grid.slide_us / grid.pane_us,
            time_bytes: closing::bound(plan, 0)?.len(),
            time: Codec::nulls_last(time.to_vec())?,
            rest: Codec::new(rest.to_vec())?,
            budget,
            open: None,
        }))
    }

    /// About how many bytes are kept.
    pub(crate) fn bytes(&self) -> u64 {
        let open = self.open.as_ref();
        open.map_or(0, |open| open.folds.bytes() as u64)
    }

    /// Whether there is memory for it; if not, what is kept is let go of.
    pub(crate) fn has_room(&mut self, arrangement: &Arrangement) -> bool {
        let Some(budget) = &self.budget else {
            return true;
        };
        let room = match &self.open {
            Some(_) => !budget.over(),
            None => !budget.over_with(arrangement.size()),
        };
        if !room {
            self.open = None;
        }
        room
    }

    /// Says which keys, in ascending order, an epoch has changed in the state.
    pub(crate) fn changed<'k>(
        &mut self,
        plan: &Plan,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Result<(), OperatorError> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let bound = closing::bound(plan, self.grid.end(open.added - 1))?;
        for key in keys.take_while(|key| *key < bound.as_slice()) {
            open.stale.insert(key[self.time_bytes..].to_vec());
        }
        Ok(())
    }

    /// Gives the windows that end after `after_us` and not after `until_us`: columns of keys and answers, in the order of
    /// the keys.
    pub(crate) fn close(
        &mut self,
        plan: &Plan,
        arrangement: &Arrangement,
        after_us: i64,
        until_us: i64,
        out: &mut dyn FnMut(Vec<ArrayRef>, usize) -> Result<(), OperatorError>,
    ) -> Result<(), OperatorError> {
        let up = |pane: i64| pane.saturating_add(pane.saturating_neg().rem_euclid(self.slide));
        let down = |pane: i64| pane.saturating_sub(pane.rem_euclid(self.slide));
        // The window of which pane p is the last ends when p does.
        let starts_after = |us: i64| self.grid.number(us).saturating_sub(self.width - 1);
        let mut window = up(starts_after(after_us).saturating_add(1));
        let last = down(starts_after(until_us));
        if window > last {
            return Ok(());
        }
        let mut open = self.open.take().filter(|open| open.next == window);
        if let Some(some) = &mut open
            && !self.refresh(plan, arrangement, some)?
        {
            open = None;
        }
        // What has been read to close windows so far, and from which pane to which.
        let mut pieces: Vec<Piece> = Vec::new();
        let mut have = 0..0;
        while window <= last {
            let block = window.div_euclid(self.width);
            let second = (block + 1) * self.width;
            let mut now = match open.take() {
                Some(open) if open.block == block => open,
                _ => {
                    if pieces.is_empty() {
                        // Between windows with rows there may be ages.
                        let until = last.saturating_add(self.width);
                        let Some(pane) = self.first_pane(plan, arrangement, window..until)? else {
                            return Ok(());
                        };
                        let first = up(pane - self.width + 1);
                        if first > window {
                            window = first;
                            continue;
                        }
                    }
                    let missing = match have.start <= window && have.end > window {
                        true => have.end..second,
                        false => {
                            pieces.clear();
                            window..second
                        }
                    };
                    pieces.extend(self.read(plan, arrangement, missing)?);
                    let mut folds = Folds::default();
                    for piece in pieces.iter().rev().filter(|piece| piece.pane >= window) {
                        let groups = folds.intern(self.keys_of(piece));
                        folds.add_to_tails(plan, piece.pane, &groups, &piece.states())?;
                    }
                    Open {
                        folds,
                        block,
                        next: window,
                        added: second,
                        stale: BTreeSet::new(),
                        charge: None,
                    }
                }
            };
            let stop = last.min(down(second - 1));
            have = now.added..stop + self.width;
            pieces = self.read(plan, arrangement, have.clone())?;
            let mut unread = pieces.iter().peekable();
            while window <= stop {
                while let Some(piece) = unread.next_if(|piece| piece.pane < window + self.width) {
                    let groups = now.folds.intern(self.keys_of(piece));
                    now.folds.add_to_heads(plan, &groups, &piece.states())?;
                }
                let waiting = now.folds.close(window);
                window += self.slide;
                if waiting >= ROWS || window > stop {
                    now.folds.put_together(plan, ROWS, |folds, closed| {
                        let rows = closed.windows.len();
                        out(self.columns(plan, folds, closed)?, rows)
                    })?;
                }
            }
            (now.next, now.added) = (window, have.end);
            open = Some(now);
        }
        if let (Some(open), Some(budget)) = (&mut open, &self.budget) {
            open.charge = None;
            open.charge = Some(Charge::new(budget, open.folds.bytes(), false));
        }
        self.open = open;
        Ok(())
    }

    /// The keys and answers of some groups of windows.
    fn columns(
        &self,
        plan: &Plan,
        folds: &Folds,
        closed: Closed,
    ) -> Result<Vec<ArrayRef>, OperatorError> {
        let windows = closed.windows.iter();
        let ends = windows.map(|window| self.grid.end(window + self.width - 1));
        let ends = TimestampMicrosecondArray::from_iter_values(ends);
        let time = plan.key_schema.field(0).data_type().clone();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(ends.with_data_type(time))];
        let keys = closed.groups.iter().map(|group| folds.key(*group));
        columns.extend(self.rest.decode(keys)?);
        columns.extend(closed.answers);
        Ok(columns)
    }

    /// The first of `panes` that has rows.
    fn first_pane(
        &self,
        plan: &Plan,
        arrangement: &Arrangement,
        panes: Range<i64>,
    ) -> Result<Option<i64>, OperatorError> {
        let (from, until) = self.bounds(plan, panes)?;
        let mut scan = arrangement.scan(&from, Some(&until))?;
        match scan.next_chunk(1)? {
            None => Ok(None),
            Some(chunk) => Ok(self.panes_of(&chunk)?.first().copied()),
        }
    }

    /// The rows of some panes, in order.
    fn read(
        &self,
        plan: &Plan,
        arrangement: &Arrangement,
        panes: Range<i64>,
    ) -> Result<Vec<Piece>, OperatorError> {
        let mut pieces = Vec::new();
        if panes.is_empty() {
            return Ok(pieces);
        }
        let (from, until) = self.bounds(plan, panes)?;
        let mut scan = arrangement.scan(&from, Some(&until))?;
        while let Some(chunk) = scan.next_chunk(ROWS)? {
            let (panes, chunk) = (self.panes_of(&chunk)?, Rc::new(chunk));
            let mut start = 0;
            for same in panes.chunk_by(|a, b| a == b) {
                let end = start + same.len();
                pieces.push(Piece {
                    pane: same[0],
                    chunk: Rc::clone(&chunk),
                    rows: start..end,
                });
                start = end;
            }
        }
        Ok(pieces)
    }

    /// The bytes between which the keys of some panes are.
    fn bounds(&self, plan: &Plan, panes: Range<i64>) -> Result<(Vec<u8>, Vec<u8>), OperatorError> {
        let from = closing::bound(plan, self.grid.end(panes.start - 1))?;
        let until = closing::bound(plan, self.grid.end(panes.end - 1))?;
        Ok((from, until))
    }

    /// The pane of each row.
    fn panes_of(&self, chunk: &Chunk) -> Result<Vec<i64>, OperatorError> {
        let times = chunk.keys().map(|key| &key[..self.time_bytes]);
        let times = self.time.decode(times)?;
        let ends = closing::micros(&times[0])?.values().iter();
        Ok(ends.map(|end| self.grid.number(*end)).collect())
    }

    /// The keys of a piece without their times.
    fn keys_of<'p>(&self, piece: &'p Piece) -> impl Iterator<Item = &'p [u8]> {
        let from = self.time_bytes;
        let rows = piece.rows.clone();
        rows.map(move |row| &piece.chunk.key(row)[from..])
    }

    /// Adds the panes of stale keys again. False if they are so many that all had better be.
    fn refresh(
        &self,
        plan: &Plan,
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
        let ends: ArrayRef = Arc::new(ends.with_data_type(self.time.types()[0].clone()));
        let ends = self.time.encode(&[ends], panes.clone().count())?;
        let mut keys = Encoded::default();
        for end in 0..panes.clone().count() {
            for key in &stale {
                keys.push(&[ends.key(end), key].concat());
            }
        }
        let found = arrangement.probe((0..keys.len()).map(|row| keys.key(row)))?;
        let columns = (0..plan.state_schema.fields().len())
            .filter_map(|column| found.column(column).transpose())
            .collect::<Result<Vec<ArrayRef>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(found.keys.len()));
        let schema = Arc::clone(&plan.state_schema);
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
            open.folds.add_to_tails(plan, pane, &groups, &states)?;
        }
        for (_, groups, states) in heads {
            open.folds.add_to_heads(plan, &groups, &states)?;
        }
        Ok(true)
    }
}

impl Piece {
    fn states(&self) -> RecordBatch {
        let rows = self.rows.clone();
        self.chunk.values().slice(rows.start, rows.len())
    }
}
