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
//!
//! That is for states that stay small. Of states that are lists of values ([`super::running`]) a tail would be as large
//! as its panes together: there the values of a pane enter, and leave when the last window of the pane has closed. Then
//! each is looked at twice, however many panes a window has, and a row that comes late changes what is there at once.
//! What neither helps (whole) is put together of all panes of each window.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, TimestampMicrosecondArray};
use arrow::compute::concat;

use super::Emit;
use super::calls::{Plan, conform};
use super::closing::{self, Panes};
use super::folds::{Closed, Folds};
use super::kinds::Kind;
use super::pieces::{Piece, Pieces, Times};
use super::running::Running;
use crate::OperatorError;
use crate::arrangement::{Arrangement, Budget, Charge};
use crate::keys::Codec;
use crate::memory;

/// Groups of windows that are put together at once.
const ROWS: usize = 8 << 10;

/// Answers that wait for the others of their group.
const BYTES: usize = 4 << 20;

/// The windows of an aggregation that stores panes.
pub(crate) struct Sliding {
    pub(super) grid: Panes,
    /// How many panes a window has.
    pub(super) width: i64,
    /// How many panes there are from a window's start to the next one's.
    pub(super) slide: i64,
    pub(super) times: Times,
    /// Keys without their times.
    rest: Codec,
    /// Calls with small states.
    pub(super) small: Part,
    /// Calls whose states list values.
    pub(super) lists: Part,
    /// Other calls.
    pub(super) whole: Part,
    /// True if an answer is rounded as it is made: it must be made in the same order, however much memory there is.
    pub(crate) rounds: bool,
    budget: Option<Arc<Budget>>,
    pub(super) open: Option<Open>,
    pub(super) running: Option<Running>,
}

/// Some calls of the plan.
pub(crate) struct Part {
    pub(crate) calls: Vec<usize>,
    pub(crate) plan: Plan,
    /// Their state columns.
    pub(crate) columns: Vec<usize>,
}

impl Part {
    pub(crate) fn new(plan: &Plan, calls: Vec<usize>) -> Result<Self, OperatorError> {
        let (only, columns) = plan.only(&calls)?;
        Ok(Part {
            calls,
            plan: only,
            columns,
        })
    }
}

/// What is kept of small states between epochs.
pub(super) struct Open {
    pub(super) folds: Folds,
    /// The first of the two blocks.
    pub(super) block: i64,
    /// The first pane of the window that closes next.
    pub(super) next: i64,
    /// Panes before this one have been added.
    pub(super) added: i64,
    /// Keys, without their times, whose panes are to be added again.
    pub(super) stale: BTreeSet<Vec<u8>>,
    charge: Option<Charge>,
}

/// Answers for the groups that wait to be put together.
struct Waiting {
    /// By call of `lists`, then of `whole`.
    answers: Vec<Vec<ArrayRef>>,
    bytes: usize,
}

impl Sliding {
    /// `None` if no panes are stored, or only some windows of a moment come out.
    pub(crate) fn of(
        plan: &Plan,
        budget: Option<Arc<Budget>>,
    ) -> Result<Option<Self>, OperatorError> {
        let grid = plan.panes.filter(|_| plan.stores_panes);
        let whole = matches!(plan.emit, Emit::Closed | Emit::All);
        let Some(grid) = grid.filter(|_| whole) else {
            return Ok(None);
        };
        let (mut small, mut lists, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        let mut rounds = false;
        for (index, call) in plan.calls.iter().enumerate() {
            rounds |= !call.is_exact()?;
            let part = match call.kind()? {
                Kind::Small => &mut small,
                Kind::Values => &mut lists,
                Kind::Whole => &mut whole,
            };
            part.push(index);
        }
        let (time, rest) = plan.codec.types().split_at(1);
        Ok(Some(Sliding {
            grid,
            width: grid.width_us / grid.pane_us,
            slide: grid.slide_us / grid.pane_us,
            times: Times {
                grid,
                codec: Codec::nulls_last(time.to_vec())?,
                bytes: closing::bound(plan, 0)?.len(),
            },
            rest: Codec::new(rest.to_vec())?,
            small: Part::new(plan, small)?,
            lists: Part::new(plan, lists)?,
            whole: Part::new(plan, whole)?,
            rounds,
            budget,
            open: None,
            running: None,
        }))
    }

    /// About how many bytes are kept.
    pub(crate) fn bytes(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, |open| open.folds.bytes());
        let running = self.running.as_ref().map_or(0, Running::bytes);
        (open + running) as u64
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
            self.running = None;
        }
        room
    }

    /// The first window that starts with this pane or after it.
    pub(super) fn up(&self, pane: i64) -> i64 {
        pane.saturating_add(pane.saturating_neg().rem_euclid(self.slide))
    }

    /// The last window that starts with this pane or before it.
    fn down(&self, pane: i64) -> i64 {
        pane.saturating_sub(pane.rem_euclid(self.slide))
    }

    /// The first panes of the first and last windows that end after `after_us` and not after `until_us`.
    pub(super) fn windows(&self, after_us: i64, until_us: i64) -> (i64, i64) {
        // The window of which pane p is the last ends when p does.
        let starts_after = |us: i64| self.grid.number(us).saturating_sub(self.width - 1);
        let first = self.up(starts_after(after_us).saturating_add(1));
        (first, self.down(starts_after(until_us)))
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
        let (mut window, last) = self.windows(after_us, until_us);
        if window > last {
            return Ok(());
        }
        let mut running = match (self.running.take(), self.lists.calls.is_empty()) {
            (_, true) => None,
            (Some(running), _) => Some(running),
            (None, _) => Some(Running::new(plan, &self.lists.calls, window)?),
        };
        let mut waiting = Waiting {
            answers: vec![Vec::new(); self.lists.calls.len() + self.whole.calls.len()],
            bytes: 0,
        };
        let mut open = self.open.take().filter(|open| open.next == window);
        if let Some(some) = &mut open
            && !self.refresh(arrangement, some)?
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
                        let Some(next) = self.next_window(plan, arrangement, window, last)? else {
                            return Ok(());
                        };
                        if next > window {
                            window = next;
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
                        let groups = folds.intern(piece.keys());
                        let states = piece.states();
                        folds.add_to_tails(&self.small.plan, piece.pane, &groups, &states, true)?;
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
            let stop = last.min(self.down(second - 1));
            have = now.added..stop + self.width;
            pieces = self.read(plan, arrangement, have.clone())?;
            let mut unread = pieces.iter().peekable();
            while window <= stop {
                while let Some(piece) = unread.next_if(|piece| piece.pane < window + self.width) {
                    let groups = now.folds.intern(piece.keys());
                    now.folds
                        .add_to_heads(&self.small.plan, &groups, &piece.states())?;
                }
                let panes = window..window + self.width;
                if let Some(running) = &mut running {
                    self.slide_to(plan, arrangement, running, panes.clone())?;
                }
                let before = now.folds.waiting(0).len();
                let count = now.folds.close(window);
                if count > before {
                    if let Some(running) = &mut running {
                        let groups = now.folds.waiting(before);
                        let found = running.answers(groups.map(|group| now.folds.key(group)))?;
                        waiting.add(0, self.lists.finished(found)?);
                    }
                    if !self.whole.calls.is_empty() {
                        let (part, folds) = (&self.whole, &mut now.folds);
                        let found = self.of_all(plan, arrangement, part, panes, folds, before)?;
                        waiting.add(self.lists.calls.len(), found);
                    }
                }
                window += self.slide;
                if count >= ROWS || waiting.bytes >= BYTES || window > stop {
                    let others = waiting.take()?;
                    let mut first = 0;
                    now.folds
                        .put_together(&self.small.plan, ROWS, |folds, closed| {
                            let rows = closed.windows.len();
                            let others = others.iter().map(|column| column.slice(first, rows));
                            let others = others.collect();
                            first += rows;
                            out(self.columns(plan, folds, closed, others)?, rows)
                        })?;
                }
            }
            (now.next, now.added) = (window, have.end);
            open = Some(now);
        }
        if let Some(running) = &mut running {
            // What leaves is read now: afterwards it will have been forgotten.
            let until = running.panes.end.max(window);
            self.slide_to(plan, arrangement, running, window..until)?;
        }
        (self.open, self.running) = (open, running);
        let bytes = self.bytes() as usize;
        if let (Some(open), Some(budget)) = (&mut self.open, &self.budget) {
            open.charge = None;
            open.charge = Some(Charge::new(budget, bytes, false));
        }
        Ok(())
    }

    /// Gives all windows there are, and keeps nothing of them.
    pub(crate) fn all(
        &mut self,
        plan: &Plan,
        arrangement: &Arrangement,
        out: &mut dyn FnMut(Vec<ArrayRef>, usize) -> Result<(), OperatorError>,
    ) -> Result<(), OperatorError> {
        let Some(first) = arrangement.scan(&[], None)?.next_chunk(1)? else {
            return Ok(());
        };
        // No window of the first pane ends before it does.
        let first = self.times.panes(first.keys())?[0];
        let after_us = self.grid.end(first) - 1;
        if self.has_room(arrangement) {
            self.close(plan, arrangement, after_us, i64::MAX, out)?;
        } else {
            self.close_anew(plan, arrangement, after_us, i64::MAX, out)?;
        }
        (self.open, self.running) = (None, None);
        Ok(())
    }

    /// Has panes enter and leave, so that these are there.
    fn slide_to(
        &self,
        plan: &Plan,
        arrangement: &Arrangement,
        running: &mut Running,
        panes: Range<i64>,
    ) -> Result<(), OperatorError> {
        if !running.panes.contains(&panes.start) {
            *running = Running::new(plan, &self.lists.calls, panes.start)?;
        }
        let mut left = self.pieces(
            plan,
            arrangement,
            &self.lists,
            running.panes.start..panes.start,
        )?;
        while let Some(piece) = left.next()? {
            running.leave(piece.keys(), &piece.states())?;
        }
        let mut entered =
            self.pieces(plan, arrangement, &self.lists, running.panes.end..panes.end)?;
        while let Some(piece) = entered.next()? {
            running.enter(piece.keys(), &piece.states())?;
        }
        running.panes = panes;
        Ok(())
    }

    /// The keys and answers of some groups of windows: `others` are of lists and whole calls.
    pub(super) fn columns(
        &self,
        plan: &Plan,
        folds: &Folds,
        closed: Closed,
        others: Vec<ArrayRef>,
    ) -> Result<Vec<ArrayRef>, OperatorError> {
        let windows = closed.windows.iter();
        let ends = windows.map(|window| self.grid.end(window + self.width - 1));
        let ends = TimestampMicrosecondArray::from_iter_values(ends);
        let time = plan.key_schema.field(0).data_type().clone();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(ends.with_data_type(time))];
        let keys = closed.groups.iter().map(|group| folds.key(*group));
        columns.extend(self.rest.decode(keys)?);
        let calls = [&self.small, &self.lists, &self.whole];
        let calls = calls.into_iter().flat_map(|part| &part.calls);
        let mut answers: Vec<_> = calls
            .zip(closed.answers.into_iter().chain(others))
            .collect();
        answers.sort_by_key(|(call, _)| **call);
        columns.extend(answers.into_iter().map(|(_, answers)| answers));
        Ok(columns)
    }

    /// The first window from `window` on, of those up to `last`, that has rows, or one after them: between windows with
    /// rows there may be ages. `None` if there are no more.
    pub(super) fn next_window(
        &self,
        plan: &Plan,
        arrangement: &Arrangement,
        window: i64,
        last: i64,
    ) -> Result<Option<i64>, OperatorError> {
        let (from, until) = self.bounds(plan, window..last.saturating_add(self.width))?;
        let mut scan = arrangement.scan(&from, Some(&until))?;
        let Some(chunk) = scan.next_chunk(1)? else {
            return Ok(None);
        };
        let pane = self.times.panes(chunk.keys())?.first().copied();
        Ok(pane.map(|pane| window.max(self.up(pane - self.width + 1))))
    }

    /// The rows of some panes, in order: the state columns of small calls.
    fn read(
        &self,
        plan: &Plan,
        arrangement: &Arrangement,
        panes: Range<i64>,
    ) -> Result<Vec<Piece>, OperatorError> {
        self.pieces(plan, arrangement, &self.small, panes)?.rest()
    }

    /// The rows of some panes, in order: the state columns of some calls.
    pub(super) fn pieces<'s>(
        &'s self,
        plan: &Plan,
        arrangement: &Arrangement,
        part: &'s Part,
        panes: Range<i64>,
    ) -> Result<Pieces<'s>, OperatorError> {
        let mut scan = None;
        if !panes.is_empty() {
            let (from, until) = self.bounds(plan, panes)?;
            scan = Some(arrangement.scan(&from, Some(&until))?);
        }
        let schema = &part.plan.state_schema;
        Ok(Pieces::new(&self.times, scan, schema, &part.columns))
    }

    /// The bytes between which the keys of some panes are.
    fn bounds(&self, plan: &Plan, panes: Range<i64>) -> Result<(Vec<u8>, Vec<u8>), OperatorError> {
        let from = closing::bound(plan, self.grid.end(panes.start - 1))?;
        let until = closing::bound(plan, self.grid.end(panes.end - 1))?;
        Ok((from, until))
    }
}

impl Part {
    /// What is kept of the calls, in the form of answers.
    fn finished(&self, answers: Vec<ArrayRef>) -> Result<Vec<ArrayRef>, OperatorError> {
        let calls = self.plan.calls.iter().zip(answers);
        let answers = calls.map(|(call, answers)| call.canonical.apply(answers));
        let types = self.plan.output.fields()[self.plan.keys.len()..].iter();
        let types = types.map(|field| field.data_type().clone());
        conform(answers.collect::<Result<_, _>>()?, types)
    }
}

impl Waiting {
    /// Adds answers of some more groups, for the calls from `first` on.
    fn add(&mut self, first: usize, answers: Vec<ArrayRef>) {
        for (all, more) in self.answers[first..].iter_mut().zip(answers) {
            self.bytes += memory::column_size(more.as_ref());
            all.push(more);
        }
    }

    /// A column for each call.
    fn take(&mut self) -> Result<Vec<ArrayRef>, OperatorError> {
        self.bytes = 0;
        let mut columns = Vec::new();
        for parts in self.answers.iter_mut().filter(|parts| !parts.is_empty()) {
            let taken = std::mem::take(parts);
            let parts: Vec<&dyn Array> = taken.iter().map(|part| part.as_ref()).collect();
            columns.push(concat(&parts)?);
        }
        Ok(columns)
    }
}
