//! Windows put together of the states of their panes: those that have one of some panes.
//!
//! As in [`super::sliding`], a window is the end of one block of panes and the beginning of the next, where a block has
//! as many panes as a window. What is made of a pane and all after it in its block, and of all up to it, is found for all
//! panes at once, by doubling how many of them are put together: a window then takes two, however wide it is. Values of
//! which states are lists enter and leave with their panes, from one window to the next. Nothing of that is kept.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, PrimitiveArray, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use super::calls::{Plan, conform};
use super::closing::{Panes, micros};
use super::groups::{answers, merge, sparse_accumulators, states as states_of};
use super::kinds::Kind;
use super::running::Running;
use super::sliding::Part;
use crate::OperatorError;
use crate::exchange::take_rows;

/// How windows are put together.
pub(crate) struct Spans {
    pub(crate) panes: Panes,
    /// Calls with small states, and those whose states are lists of values.
    small: Part,
    lists: Part,
}

/// Which windows are wanted: those that have one of these panes.
#[derive(Clone)]
pub(crate) struct Asked {
    /// The keys of the panes, by their ends first.
    pub(crate) panes: Vec<ArrayRef>,
    /// Windows that end later.
    pub(crate) after_us: Option<i64>,
}

/// The calls with small states, and the others, whose states are lists of values.
pub(crate) fn parts(plan: &Plan) -> Result<[Part; 2], OperatorError> {
    let (mut small, mut lists) = (Vec::new(), Vec::new());
    for (index, call) in plan.calls.iter().enumerate() {
        match call.kind()? {
            Kind::Small => small.push(index),
            _ => lists.push(index),
        }
    }
    Ok([Part::new(plan, small)?, Part::new(plan, lists)?])
}

/// A window of a key that has rows.
#[derive(Clone, Copy)]
struct Window {
    end: i64,
    key: usize,
    /// A row with the key.
    row: u32,
    /// Where its entries begin and end.
    from: usize,
    until: usize,
}

/// A state of a pane.
struct Entry {
    key: usize,
    pane: i64,
    row: u32,
}

/// Keys without their first column, numbered.
struct Keys(Option<Box<dyn GroupValues>>);

impl Keys {
    fn new(schema: &Schema) -> Result<Self, OperatorError> {
        let rest: Vec<_> = schema.fields().iter().skip(1).cloned().collect();
        Ok(Keys(match rest.is_empty() {
            true => None,
            false => {
                let schema = Arc::new(Schema::new(rest));
                Some(new_group_values(schema, &GroupOrdering::None)?)
            }
        }))
    }

    fn number(&mut self, keys: &[ArrayRef]) -> Result<Vec<usize>, OperatorError> {
        let mut numbers = Vec::new();
        match &mut self.0 {
            None => numbers.resize(keys[0].len(), 0),
            Some(_) if keys[0].is_empty() => {}
            Some(values) => values.intern(&keys[1..], &mut numbers)?,
        }
        Ok(numbers)
    }
}

/// The windows that have one of some panes: the number of their key, their end, and a row with their key.
fn windows_of(
    panes: Panes,
    ends: &ArrayRef,
    keys: &[usize],
    after_us: Option<i64>,
) -> Result<Vec<(usize, i64, u32)>, OperatorError> {
    let ends = micros(ends)?;
    let mut found = Vec::new();
    for (row, key) in keys.iter().enumerate() {
        let windows = panes.windows(ends.value(row));
        let open = windows.filter(|end| after_us.is_none_or(|after| *end > after));
        found.extend(open.map(|end| (*key, end, row as u32)));
    }
    found.sort_unstable();
    found.dedup_by_key(|(key, end, _)| (*key, *end));
    Ok(found)
}

fn rekeyed(
    keys: &[ArrayRef],
    of: impl Iterator<Item = (i64, u32)>,
) -> Result<Vec<ArrayRef>, OperatorError> {
    let (ends, rows): (Vec<i64>, Vec<u32>) = of.unzip();
    let rows = UInt32Array::from(rows);
    let ends = PrimitiveArray::<TimestampMicrosecondType>::from(ends);
    let mut columns: Vec<ArrayRef> =
        vec![Arc::new(ends.with_data_type(keys[0].data_type().clone()))];
    for key in &keys[1..] {
        columns.push(take(key, &rows, None)?);
    }
    Ok(columns)
}

/// The keys of all panes of the windows that are asked for.
pub(crate) fn panes_of(panes: Panes, asked: &Asked) -> Result<Vec<ArrayRef>, OperatorError> {
    let keys = &asked.panes;
    let fields = keys
        .iter()
        .map(|key| Field::new("key", key.data_type().clone(), true));
    let mut numbers = Keys::new(&Schema::new(fields.collect::<Vec<_>>()))?;
    let windows = windows_of(panes, &keys[0], &numbers.number(keys)?, asked.after_us)?;
    let mut all: Vec<(i64, u32)> = Vec::new();
    let (mut of, mut next) = (None, i64::MIN);
    for (key, end, row) in windows {
        if of != Some(key) {
            (of, next) = (Some(key), i64::MIN);
        }
        let last = panes.number(end);
        let first = last - panes.width_us / panes.pane_us + 1;
        all.extend((first.max(next)..=last).map(|pane| (panes.end(pane), row)));
        next = last + 1;
    }
    rekeyed(keys, all.into_iter())
}

/// Counts windows, told their panes in the order of time.
pub(super) struct Count {
    panes: Panes,
    /// Windows that end after this moment and not after that one.
    after_us: i64,
    until_us: i64,
    keys: Keys,
    /// The end of the last one of each key.
    last: Vec<i64>,
    pub(super) windows: u64,
}

impl Count {
    pub(super) fn new(
        plan: &Plan,
        panes: Panes,
        after_us: Option<i64>,
        until_us: i64,
    ) -> Result<Self, OperatorError> {
        Ok(Count {
            panes,
            after_us: after_us.unwrap_or(i64::MIN),
            until_us,
            keys: Keys::new(&plan.key_schema)?,
            last: Vec::new(),
            windows: 0,
        })
    }

    pub(super) fn add(&mut self, keys: &[ArrayRef]) -> Result<(), OperatorError> {
        let ends = micros(&keys[0])?.values();
        for (key, end) in self.keys.number(keys)?.into_iter().zip(ends) {
            if key >= self.last.len() {
                self.last.resize(key + 1, self.after_us);
            }
            let last = &mut self.last[key];
            let fresh = self.panes.windows_between(*end, *last, self.until_us);
            self.windows += fresh.count() as u64;
            *last = (*last).max(self.panes.last_end(*end).min(self.until_us));
        }
        Ok(())
    }
}

impl Spans {
    pub(crate) fn new(plan: &Plan, panes: Panes) -> Result<Self, OperatorError> {
        let [small, lists] = parts(plan)?;
        Ok(Spans {
            panes,
            small,
            lists,
        })
    }

    /// Keys and answers of the windows that are asked for, of panes with these keys and states.
    pub(crate) fn answer(
        &self,
        plan: &Plan,
        keys: &[ArrayRef],
        states: &[ArrayRef],
        asked: &Asked,
    ) -> Result<RecordBatch, OperatorError> {
        let mut numbers = Keys::new(&plan.key_schema)?;
        let wanted = numbers.number(&asked.panes)?;
        let wanted = windows_of(self.panes, &asked.panes[0], &wanted, asked.after_us)?;
        let ends = micros(&keys[0])?.values();
        let of_rows = numbers.number(keys)?.into_iter().zip(ends).zip(0..);
        let entries = of_rows.map(|((key, end), row)| Entry {
            key,
            pane: self.panes.number(*end),
            row,
        });
        let mut entries: Vec<Entry> = entries.collect();
        entries.sort_unstable_by_key(|entry| (entry.key, entry.pane));
        let windows = wanted.into_iter().map(|(key, end, row)| {
            let (first, last) = self.reach(end);
            let at = |entry: &Entry| (entry.key, entry.pane);
            Window {
                end,
                key,
                row,
                from: entries.partition_point(|entry| at(entry) < (key, first)),
                until: entries.partition_point(|entry| at(entry) <= (key, last)),
            }
        });
        let mut windows: Vec<Window> = windows.filter(|one| one.from < one.until).collect();
        windows.sort_unstable_by_key(|window| (window.end, window.key));
        if windows.is_empty() {
            return Ok(RecordBatch::new_empty(SchemaRef::clone(&plan.output)));
        }

        let types = plan.state_schema.fields().iter();
        let states = conform(
            states.to_vec(),
            types.map(|field| field.data_type().clone()),
        )?;
        let options = RecordBatchOptions::new().with_row_count(Some(entries.len()));
        let schema = SchemaRef::clone(&plan.state_schema);
        let states = RecordBatch::try_new_with_options(schema, states, &options)?;
        let order = UInt32Array::from_iter_values(entries.iter().map(|entry| entry.row));
        let states = take_rows(&states, &order)?;
        let small = self.folded(&states, &entries, &windows)?;
        let lists = self.listed(plan, &states, &entries, &windows)?;
        let calls = self.small.calls.iter().chain(&self.lists.calls);
        let mut calls: Vec<_> = calls.zip(small.into_iter().chain(lists)).collect();
        calls.sort_by_key(|(call, _)| **call);
        let ends = windows.iter().map(|window| (window.end, window.row));
        let mut columns = rekeyed(&asked.panes, ends)?;
        columns.extend(calls.into_iter().map(|(_, answers)| answers));
        let types = plan.output.fields().iter();
        let columns = conform(columns, types.map(|field| field.data_type().clone()))?;
        Ok(RecordBatch::try_new(
            SchemaRef::clone(&plan.output),
            columns,
        )?)
    }

    /// How many panes a window has.
    fn span(&self) -> i64 {
        self.panes.width_us / self.panes.pane_us
    }

    /// For each of `states` what it makes with all after it in its block, or with all before it.
    fn runs(
        &self,
        states: &RecordBatch,
        blocks: &[usize],
        backwards: bool,
    ) -> Result<RecordBatch, OperatorError> {
        let count = blocks.len();
        let longest = blocks.chunk_by(|one, next| one == next).map(<[usize]>::len);
        let longest = longest.max().unwrap_or(0);
        let all: Vec<usize> = (0..count).collect();
        let mut made = states.clone();
        let mut step = 1;
        while step < longest {
            let pairs = (step..count).filter(|at| blocks[*at] == blocks[at - step]);
            let (other, own): (Vec<u32>, Vec<usize>) = pairs
                .map(|at| match backwards {
                    true => ((at - step) as u32, at),
                    false => (at as u32, at - step),
                })
                .unzip();
            let plan = &self.small.plan;
            let mut accumulators = sparse_accumulators(plan, count)?;
            merge(plan, &mut accumulators, made.columns(), &all, count)?;
            let others = take_rows(&made, &UInt32Array::from(other))?;
            merge(plan, &mut accumulators, others.columns(), &own, count)?;
            made = states_of(plan, &mut accumulators, count)?;
            step *= 2;
        }
        Ok(made)
    }

    /// The answers of the calls with states of fixed size: of `states` of panes, for windows.
    fn folded(
        &self,
        states: &RecordBatch,
        entries: &[Entry],
        windows: &[Window],
    ) -> Result<Vec<ArrayRef>, OperatorError> {
        if self.small.calls.is_empty() {
            return Ok(Vec::new());
        }
        let span = self.span();
        let block = |pane: i64| pane.div_euclid(span);
        // The first entry of each window in its first block, the last one in its last.
        let (mut tails, mut heads) = (Vec::new(), Vec::new());
        for (index, window) in windows.iter().enumerate() {
            let (first, last) = self.reach(window.end);
            if block(entries[window.from].pane) == block(first) {
                tails.push((window.from as u32, index));
            }
            if block(last) != block(first) && block(entries[window.until - 1].pane) == block(last) {
                heads.push((window.until as u32 - 1, index));
            }
        }
        let mut blocks: Vec<usize> = Vec::with_capacity(entries.len());
        for (at, entry) in entries.iter().enumerate() {
            let same =
                |before: &Entry| (before.key, block(before.pane)) == (entry.key, block(entry.pane));
            blocks.push(match at.checked_sub(1) {
                Some(before) if same(&entries[before]) => blocks[before],
                _ => at,
            });
        }
        let (plan, count) = (&self.small.plan, windows.len());
        let states = states.project(&self.small.columns)?;
        let mut accumulators = sparse_accumulators(plan, count)?;
        for (backwards, parts) in [(false, tails), (true, heads)] {
            let (rows, of): (Vec<u32>, Vec<usize>) = parts.into_iter().unzip();
            let runs = self.runs(&states, &blocks, backwards)?;
            let runs = take_rows(&runs, &UInt32Array::from(rows))?;
            merge(plan, &mut accumulators, runs.columns(), &of, count)?;
        }
        answers(plan, &mut accumulators)
    }

    /// The same of those whose states are lists: windows by their ends, entries as they enter and leave.
    fn listed(
        &self,
        plan: &Plan,
        states: &RecordBatch,
        entries: &[Entry],
        windows: &[Window],
    ) -> Result<Vec<ArrayRef>, OperatorError> {
        if self.lists.calls.is_empty() {
            return Ok(Vec::new());
        }
        let states = states.project(&self.lists.columns)?;
        let mut by_pane: Vec<u32> = (0..entries.len() as u32).collect();
        by_pane.sort_by_key(|at| entries[*at as usize].pane);
        let states = take_rows(&states, &UInt32Array::from(by_pane.clone()))?;
        let names = by_pane
            .iter()
            .map(|at| entries[*at as usize].key.to_be_bytes());
        let names: Vec<[u8; 8]> = names.collect();
        let before = |pane: i64| by_pane.partition_point(|at| entries[*at as usize].pane < pane);

        let mut running = Running::new(plan, &self.lists.calls, 0)?;
        let mut found: Vec<Vec<ArrayRef>> = vec![Vec::new(); self.lists.calls.len()];
        let (mut left, mut entered) = (0, 0);
        for windows in windows.chunk_by(|one, next| one.end == next.end) {
            let (first, last) = self.reach(windows[0].end);
            let (from, until) = (before(first), before(last + 1));
            let of = |range: std::ops::Range<usize>| {
                let keys = names[range.clone()].iter().map(<[u8; 8]>::as_slice);
                (keys, states.slice(range.start, range.len()))
            };
            if left < from.min(entered) {
                let (keys, states) = of(left..from.min(entered));
                running.leave(keys, &states)?;
            }
            if entered.max(from) < until {
                let (keys, states) = of(entered.max(from)..until);
                running.enter(keys, &states)?;
            }
            (left, entered) = (from, until);
            let keys: Vec<[u8; 8]> = windows.iter().map(|one| one.key.to_be_bytes()).collect();
            let answers = running.answers(keys.iter().map(<[u8; 8]>::as_slice))?;
            for (found, answers) in found.iter_mut().zip(answers) {
                found.push(answers);
            }
        }
        let calls = self.lists.calls.iter().zip(found);
        let columns = calls.map(|(call, found)| {
            let found: Vec<&dyn Array> = found.iter().map(AsRef::as_ref).collect();
            plan.calls[*call].canonical.apply(concat(&found)?)
        });
        columns.collect()
    }

    /// The first and the last pane of a window that ends then.
    fn reach(&self, end: i64) -> (i64, i64) {
        let last = self.panes.number(end);
        (last - self.span() + 1, last)
    }
}
