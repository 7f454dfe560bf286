//! The tails and heads of the groups of a block of panes: see [`super::sliding`].

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::interleave;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::logical_expr::GroupsAccumulator;

use super::calls::Plan;
use super::groups::{accumulators, answers, merge, sparse_accumulators, states as states_of};
use crate::OperatorError;
use crate::keys::Encoded;
use crate::memory;

/// Where a state row is.
#[derive(Debug, Clone, Copy)]
struct Place {
    batch: u32,
    row: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Group {
    /// The state of a pane of the first block and of all after it in the block.
    tail: Option<Place>,
    tail_pane: i64,
    /// The state of the panes of the second block that have been added.
    head: Option<Place>,
}

/// State rows that were made at once.
struct Made {
    states: RecordBatch,
    bytes: usize,
    /// How many of the rows are a tail or a head.
    used: usize,
    /// For tails: their pane, and the tail of the group's next pane.
    pane: i64,
    next: Vec<Option<Place>>,
    is_head: bool,
}

/// A group of a window.
#[derive(Debug, Clone, Copy)]
struct Closing {
    window: i64,
    group: u32,
    tail: Option<Place>,
    head: Option<Place>,
}

/// The groups of a block of panes and of the one after it.
#[derive(Default)]
pub(crate) struct Folds {
    keys: Encoded,
    groups: Vec<Group>,
    /// Groups in ascending order of their keys.
    order: Vec<u32>,
    made: Vec<Made>,
    closing: Vec<Closing>,
}

/// Some groups of windows: the first pane of the window, the key, the answers.
pub(crate) struct Closed {
    pub(crate) windows: Vec<i64>,
    pub(crate) groups: Vec<u32>,
    pub(crate) answers: Vec<ArrayRef>,
}

/// Heads that were replaced are let go of once there are this many, and more of them than of others.
const SPARE_ROWS: usize = 8 << 10;

impl Folds {
    /// The groups of some keys, which ascend.
    pub(crate) fn intern<'k>(&mut self, keys: impl Iterator<Item = &'k [u8]>) -> Vec<u32> {
        let mut found = Vec::with_capacity(keys.size_hint().0);
        let mut fresh = Vec::new();
        let mut at = 0;
        for key in keys {
            at = self.seek(at, key);
            match self.order.get(at) {
                Some(group) if self.key(*group) == key => {
                    found.push(*group);
                    at += 1;
                }
                _ => {
                    let group = self.groups.len() as u32;
                    self.groups.push(Group::default());
                    self.keys.push(key);
                    found.push(group);
                    fresh.push((at, group));
                }
            }
        }
        if !fresh.is_empty() {
            let mut order = Vec::with_capacity(self.groups.len());
            let mut from = 0;
            for (at, group) in fresh {
                order.extend_from_slice(&self.order[from..at]);
                order.push(group);
                from = at;
            }
            order.extend_from_slice(&self.order[from..]);
            self.order = order;
        }
        found
    }

    /// The key of a group.
    pub(crate) fn key(&self, group: u32) -> &[u8] {
        self.keys.key(group as usize)
    }

    /// The first place in the order from `from` on whose key is at least this one.
    fn seek(&self, from: usize, key: &[u8]) -> usize {
        let less = |at: usize| self.key(self.order[at]) < key;
        let (mut low, mut step) = (from, 1);
        if low >= self.order.len() || !less(low) {
            return low;
        }
        while low + step < self.order.len() && less(low + step) {
            low += step;
            step *= 2;
        }
        let until = (low + step).min(self.order.len());
        low + 1 + self.order[low + 1..until].partition_point(|group| self.key(*group) < key)
    }

    /// How many groups there are.
    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    /// About how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        let made: usize = self.made.iter().map(|made| made.bytes).sum();
        made + self.keys.bytes.len() + self.groups.len() * (size_of::<Group>() + 12)
    }

    /// Adds the states of `pane` for some groups, each once, to their tails; later panes of the block come first.
    pub(crate) fn add_to_tails(
        &mut self,
        plan: &Plan,
        pane: i64,
        groups: &[u32],
        states: &RecordBatch,
    ) -> Result<(), OperatorError> {
        let next = groups.iter().map(|group| self.groups[*group as usize].tail);
        let next: Vec<Option<Place>> = next.collect();
        let states = self.folded(plan, states, &next)?;
        let batch = self.keep(states, pane, next, false);
        for (row, group) in (0..).zip(groups) {
            let group = &mut self.groups[*group as usize];
            group.tail = Some(Place { batch, row });
            group.tail_pane = pane;
        }
        Ok(())
    }

    /// Adds the states of a pane for some groups, each once, to their heads; earlier panes of the block come first.
    pub(crate) fn add_to_heads(
        &mut self,
        plan: &Plan,
        groups: &[u32],
        states: &RecordBatch,
    ) -> Result<(), OperatorError> {
        let before = groups.iter().map(|group| self.groups[*group as usize].head);
        let before: Vec<Option<Place>> = before.collect();
        let states = self.folded(plan, states, &before)?;
        let batch = self.keep(states, 0, Vec::new(), true);
        for (row, group) in (0..).zip(groups) {
            self.groups[*group as usize].head = Some(Place { batch, row });
        }
        for place in before.into_iter().flatten() {
            self.made[place.batch as usize].used -= 1;
        }
        Ok(())
    }

    /// `states` with those at `places` added.
    fn folded(
        &self,
        plan: &Plan,
        states: &RecordBatch,
        places: &[Option<Place>],
    ) -> Result<RecordBatch, OperatorError> {
        let rows = states.num_rows();
        // Also of a group with nothing to add: what a function makes of one state may differ in the last bit from it,
        // and must not depend on which other groups come along.
        let mut sums = accumulators(plan)?;
        let all: Vec<usize> = (0..rows).collect();
        merge(plan, &mut sums, states.columns(), &all, rows)?;
        self.merge_at(plan, &mut sums, places.iter().copied(), rows)?;
        states_of(plan, &mut sums, rows)
    }

    fn keep(
        &mut self,
        states: RecordBatch,
        pane: i64,
        next: Vec<Option<Place>>,
        is_head: bool,
    ) -> u32 {
        let number = self.made.len() as u32;
        self.made.push(Made {
            bytes: memory::size_of(&states) + next.len() * size_of_val(&None::<Place>),
            used: states.num_rows(),
            states,
            pane,
            next,
            is_head,
        });
        number
    }

    /// Adds the states at `places`, one for each group.
    fn merge_at(
        &self,
        plan: &Plan,
        sums: &mut [Box<dyn GroupsAccumulator>],
        places: impl Iterator<Item = Option<Place>>,
        groups: usize,
    ) -> Result<(), OperatorError> {
        let there = places.enumerate();
        let there = there.filter_map(|(index, place)| Some((index, place?)));
        let (indices, places): (Vec<usize>, Vec<Place>) = there.unzip();
        if places.is_empty() {
            return Ok(());
        }
        merge(plan, sums, &self.gather(plan, &places)?, &indices, groups)
    }

    /// The state columns at `places`, of which there are some.
    fn gather(&self, plan: &Plan, places: &[Place]) -> Result<Vec<ArrayRef>, OperatorError> {
        let mut sources: Vec<&RecordBatch> = Vec::new();
        let mut numbers = vec![usize::MAX; self.made.len()];
        let mut rows = Vec::with_capacity(places.len());
        for place in places {
            let number = &mut numbers[place.batch as usize];
            if *number == usize::MAX {
                *number = sources.len();
                sources.push(&self.made[place.batch as usize].states);
            }
            rows.push((*number, place.row as usize));
        }
        let column = |column: usize| {
            let sources = sources.iter().map(|rows| rows.column(column).as_ref());
            Ok(interleave(&sources.collect::<Vec<_>>(), &rows)?)
        };
        (0..plan.state_schema.fields().len()).map(column).collect()
    }

    /// Closes the window that starts with pane `window`: windows close in order, and what of the first block is before
    /// them is let go of. How many groups wait to be put together.
    pub(crate) fn close(&mut self, window: i64) -> usize {
        for number in &self.order {
            let group = &mut self.groups[*number as usize];
            while let Some(place) = group.tail.filter(|_| group.tail_pane < window) {
                let made = &mut self.made[place.batch as usize];
                made.used -= 1;
                group.tail = made.next[place.row as usize];
                if let Some(next) = group.tail {
                    group.tail_pane = self.made[next.batch as usize].pane;
                }
            }
            if group.tail.is_some() || group.head.is_some() {
                self.closing.push(Closing {
                    window,
                    group: *number,
                    tail: group.tail,
                    head: group.head,
                });
            }
        }
        self.closing.len()
    }

    /// The groups that wait to be put together, but for the first `skip`.
    pub(crate) fn waiting(&self, skip: usize) -> impl ExactSizeIterator<Item = u32> {
        self.closing[skip..].iter().map(|closing| closing.group)
    }

    /// Puts together what waits, `rows` at once.
    pub(crate) fn put_together(
        &mut self,
        plan: &Plan,
        rows: usize,
        mut out: impl FnMut(&Self, Closed) -> Result<(), OperatorError>,
    ) -> Result<(), OperatorError> {
        let closing = std::mem::take(&mut self.closing);
        for closing in closing.chunks(rows) {
            let count = closing.len();
            let mut sums = match closing.iter().all(|group| group.tail.is_some()) {
                true => accumulators(plan)?,
                false => sparse_accumulators(plan, count)?,
            };
            let tails = closing.iter().map(|group| group.tail);
            self.merge_at(plan, &mut sums, tails, count)?;
            let heads = closing.iter().map(|group| group.head);
            self.merge_at(plan, &mut sums, heads, count)?;
            let closed = Closed {
                windows: closing.iter().map(|group| group.window).collect(),
                groups: closing.iter().map(|group| group.group).collect(),
                answers: answers(plan, &mut sums)?,
            };
            out(self, closed)?;
        }
        self.let_go(plan)
    }

    /// Lets go of states that are no tail and no head. Where panes bring a few groups each, old heads are spread over
    /// many batches: those in use are copied.
    fn let_go(&mut self, plan: &Plan) -> Result<(), OperatorError> {
        let (mut held, mut used) = (0, 0);
        for made in &mut self.made {
            if made.used == 0 {
                made.states = RecordBatch::new_empty(Arc::clone(&plan.state_schema));
                made.next = Vec::new();
                made.bytes = 0;
            } else if made.is_head {
                held += made.states.num_rows();
                used += made.used;
            }
        }
        if held <= 2 * used + SPARE_ROWS {
            return Ok(());
        }
        let groups = self.groups.iter().enumerate();
        let heads = groups.filter_map(|(group, of)| Some((group, of.head?)));
        let (groups, heads): (Vec<usize>, Vec<Place>) = heads.unzip();
        let columns = self.gather(plan, &heads)?;
        let options = RecordBatchOptions::new().with_row_count(Some(heads.len()));
        let schema = Arc::clone(&plan.state_schema);
        let states = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let batch = self.keep(states, 0, Vec::new(), true);
        for (row, (group, head)) in (0..).zip(groups.into_iter().zip(heads)) {
            self.made[head.batch as usize].used -= 1;
            self.groups[group].head = Some(Place { batch, row });
        }
        self.let_go(plan)
    }

    /// Forgets the tails and heads of some groups, whose panes will be added again.
    pub(crate) fn reset(&mut self, groups: &[u32]) {
        for group in groups {
            let group = std::mem::take(&mut self.groups[*group as usize]);
            let mut place = group.tail;
            while let Some(Place { batch, row }) = place {
                let made = &mut self.made[batch as usize];
                made.used -= 1;
                place = made.next[row as usize];
            }
            if let Some(head) = group.head {
                self.made[head.batch as usize].used -= 1;
            }
        }
    }
}
