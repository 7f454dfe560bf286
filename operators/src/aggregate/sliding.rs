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

use arrow::array::{Array, ArrayRef, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::concat;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::calls::{Plan, conform};
use super::closing::{self, Panes};
use super::folds::{Closed, Folds};
use super::groups::{answers, merge, sparse_accumulators};
use super::owner::Lookup;
use super::pieces::{Piece, Pieces, Times};
use super::running::Running;
use crate::OperatorError;
use crate::arrangement::{Arrangement, Budget, Charge};
use crate::exchange::take_rows;
use crate::keys::{Codec, Encoded};
use crate::memory;

/// Groups of windows that are put together at once.
const ROWS: usize = 8 << 10;

/// Answers that wait for the others of their group.
const BYTES: usize = 4 << 20;

/// The windows of an aggregation that stores panes.
pub(crate) struct Sliding {
    grid: Panes,
    /// How many panes a window has.
    width: i64,
    /// How many panes there are from a window's start to the next one's.
    slide: i64,
    times: Times,
    /// Keys without their times.
    rest: Codec,
    /// Calls with small states.
    small: Part,
    /// Calls whose states list values.
    lists: Part,
    /// Other calls.
    whole: Part,
    budget: Option<Arc<Budget>>,
    open: Option<Open>,
    running: Option<Running>,
}

/// Some calls of the plan.
struct Part {
    calls: Vec<usize>,
    plan: Plan,
    /// Their state columns.
    columns: Vec<usize>,
}

impl Part {
    fn new(plan: &Plan, calls: Vec<usize>) -> Result<Self, OperatorError> {
        let (only, columns) = plan.only(&calls)?;
        Ok(Part {
            calls,
            plan: only,
            columns,
        })
    }
}

/// What is kept of small states between epochs.
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

/// Answers for the groups that wait to be put together.
struct Waiting {
    /// By call of `lists`, then of `whole`.
    answers: Vec<Vec<ArrayRef>>,
    bytes: usize,
}

impl Sliding {
    /// `None` if the windows are better put together of all their panes, each anew: because with little memory this
    /// will have to be done for some windows, and some answer is rounded as it is made, so that it would tell which.
    pub(crate) fn of(
        plan: &Plan,
        budget: Option<Arc<Budget>>,
    ) -> Result<Option<Self>, OperatorError> {
        let Some(grid) = plan.panes.filter(|_| plan.stores_panes && !plan.ordered) else {
            return Ok(None);
        };
        let (mut small, mut lists, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        for (index, call) in plan.calls.iter().enumerate() {
            if budget.is_some() && !call.is_exact()? {
                return Ok(None);
            }
            let part = if call.is_small()? {
                &mut small
            } else if call.runs()? {
                &mut lists
            } else {
                &mut whole
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
            let old = columns.iter().map(|column| lookup.stored[*column].clone());
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
                        let groups = folds.intern(piece.keys());
                        folds.add_to_tails(
                            &self.small.plan,
                            piece.pane,
                            &groups,
                            &piece.states(),
                        )?;
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
                        let found =
                            self.of_all(plan, arrangement, panes, &mut now.folds, before)?;
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

    /// The answers of the other calls for the groups of a window, which are those that wait but for the first `skip`.
    fn of_all(
        &self,
        plan: &Plan,
        arrangement: &Arrangement,
        panes: Range<i64>,
        folds: &mut Folds,
        skip: usize,
    ) -> Result<Vec<ArrayRef>, OperatorError> {
        let only = &self.whole.plan;
        let waiting = folds.waiting(skip);
        let count = waiting.len();
        let mut place = vec![0; folds.len()];
        for (at, group) in waiting.enumerate() {
            place[group as usize] = at;
        }
        let mut sums = sparse_accumulators(only, count)?;
        let mut pieces = self.pieces(plan, arrangement, &self.whole, panes)?;
        while let Some(piece) = pieces.next()? {
            let groups = folds.intern(piece.keys());
            let indices = groups.iter().map(|group| place[*group as usize]);
            let indices: Vec<usize> = indices.collect();
            merge(only, &mut sums, piece.states().columns(), &indices, count)?;
        }
        answers(only, &mut sums)
    }

    /// The keys and answers of some groups of windows: `others` are of lists and whole calls.
    fn columns(
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
            Some(chunk) => Ok(self.times.panes(chunk.keys())?.first().copied()),
        }
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
    fn pieces<'s>(
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

    /// Adds the panes of stale keys again. False if they are so many that all had better be.
    fn refresh(&self, arrangement: &Arrangement, open: &mut Open) -> Result<bool, OperatorError> {
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
                .add_to_tails(&self.small.plan, pane, &groups, &states)?;
        }
        for (_, groups, states) in heads {
            open.folds
                .add_to_heads(&self.small.plan, &groups, &states)?;
        }
        Ok(true)
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
