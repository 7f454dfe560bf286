//! Windows that overlap, over rows that may leave: each pane is aggregated from its rows once and again only when it
//! changes, and windows are put together of what that gave.
//!
//! As in [`crate::aggregate`], a window is the end of one block of panes and the beginning of the next, where a block has
//! as many panes as a window. What is made of a pane and all after it in its block, and of all up to it, is found for all
//! panes at once, by doubling how many of them are put together: a window then takes two, however wide it is. Values of
//! which states are lists enter and leave with their panes, from one window to the next.

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use std::sync::Arc;

use super::{Answer, Members};
use crate::aggregate::{
    Aggregation, Groups, Panes, Part, Plan, Running, answers, conform, merge, micros, sort_lists,
    sparse_accumulators, states,
};
use crate::exchange::take_rows;
use crate::{Edge, OperatorError};

/// The states of the calls over the rows of a pane.
pub struct PaneStates {
    plan: Plan,
    schema: SchemaRef,
    /// The state columns that are lists of values, which come in any order.
    lists: Vec<usize>,
}

/// The answers of windows, of the states of their panes.
pub struct Windows {
    plan: Plan,
    panes: Panes,
    /// Calls with states of fixed size, and those whose states are lists of values.
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

impl std::fmt::Debug for PaneStates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PaneStates")
            .field("name", &self.plan.name)
            .finish()
    }
}

impl std::fmt::Debug for Windows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Windows")
            .field("panes", &self.panes)
            .finish()
    }
}

impl PaneStates {
    /// For `aggregation` over rows of `schema`, of which the first columns are its keys and the very first is the end of
    /// a pane; `None` if a call goes by the order of rows, or of states that are merged.
    pub fn new(
        schema: &SchemaRef,
        aggregation: &Aggregation,
    ) -> Result<Option<Self>, OperatorError> {
        let plan = Plan::over_sorted(&Edge::plain(Arc::clone(schema)), aggregation.clone())?;
        for call in &plan.calls {
            let folds = call.folds()? && call.is_exact()?;
            if call.needs_order() || !folds && !call.runs()? {
                return Ok(None);
            }
        }
        let [_, lists] = parts(&plan)?;
        let lists = lists.columns;
        let keys = plan.output.fields()[..plan.keys.len()].iter();
        let fields: Vec<Field> = keys
            .chain(plan.state_schema.fields())
            .map(|f| f.as_ref().clone())
            .collect();
        let schema = Arc::new(Schema::new(fields));
        Ok(Some(PaneStates {
            plan,
            schema,
            lists,
        }))
    }

    /// The keys of a pane and the states of its calls.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

impl Answer for PaneStates {
    fn answer(&self, members: &Members) -> Result<(RecordBatch, Vec<i64>), OperatorError> {
        let members = members.spread()?;
        if members.rows.num_rows() == 0 {
            return Ok((RecordBatch::new_empty(self.schema()), Vec::new()));
        }
        let mut groups = Groups::new(&self.plan)?;
        groups.update(&self.plan, &members.rows)?;
        let count = groups.len();
        let mut columns = groups.take_keys()?;
        let mut states = groups.take_states(&self.plan)?.columns().to_vec();
        for list in &self.lists {
            states[*list] = sort_lists(states[*list].as_list())?;
        }
        columns.extend(states);
        let types = self.schema.fields().iter();
        let columns = conform(columns, types.map(|field| field.data_type().clone()))?;
        Ok((
            RecordBatch::try_new(self.schema(), columns)?,
            vec![1; count],
        ))
    }
}

/// The calls whose states are of fixed size, and the others.
fn parts(plan: &Plan) -> Result<[Part; 2], OperatorError> {
    let (mut small, mut lists) = (Vec::new(), Vec::new());
    for (index, call) in plan.calls.iter().enumerate() {
        match call.folds()? {
            true => small.push(index),
            false => lists.push(index),
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

impl Windows {
    /// Over what [`PaneStates`] of the same aggregation gives.
    pub fn new(
        schema: &SchemaRef,
        aggregation: &Aggregation,
        panes: Panes,
    ) -> Result<Self, OperatorError> {
        let plan = Plan::over_sorted(&Edge::plain(Arc::clone(schema)), aggregation.clone())?;
        let [small, lists] = parts(&plan)?;
        Ok(Windows {
            plan,
            panes,
            small,
            lists,
        })
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
            made = self::states(plan, &mut accumulators, count)?;
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
            let (first, last) = self.reach(*window);
            let (from, until) = self.found(entries, *window);
            if block(entries[from].pane) == block(first) {
                tails.push((from as u32, index));
            }
            if block(last) != block(first) && block(entries[until - 1].pane) == block(last) {
                heads.push((until as u32 - 1, index));
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

        let mut running = Running::new(&self.plan, &self.lists.calls, 0)?;
        let mut found: Vec<Vec<ArrayRef>> = vec![Vec::new(); self.lists.calls.len()];
        let (mut left, mut entered) = (0, 0);
        for windows in windows.chunk_by(|one, next| one.end == next.end) {
            let (first, last) = self.reach(windows[0]);
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
            self.plan.calls[*call].canonical.apply(concat(&found)?)
        });
        columns.collect()
    }

    /// The first and the last pane of a window.
    fn reach(&self, window: Window) -> (i64, i64) {
        let last = self.panes.number(window.end);
        (last - self.span() + 1, last)
    }

    /// Where the entries of a window begin and end.
    fn found(&self, entries: &[Entry], window: Window) -> (usize, usize) {
        let (first, last) = self.reach(window);
        let at = |entry: &Entry| (entry.key, entry.pane);
        let from = entries.partition_point(|entry| at(entry) < (window.key, first));
        let until = entries.partition_point(|entry| at(entry) <= (window.key, last));
        (from, until)
    }
}

impl Answer for Windows {
    fn answer(&self, members: &Members) -> Result<(RecordBatch, Vec<i64>), OperatorError> {
        let plan = &self.plan;
        let (keys, states) = members.rows.columns().split_at(plan.keys.len());
        let (asked, after_us) = match &members.asked {
            Some(asked) => (asked.panes.as_slice(), asked.after_us),
            None => (keys, None),
        };
        let mut numbers = Keys::new(&plan.key_schema)?;
        let wanted = numbers.number(asked)?;
        let wanted = windows_of(self.panes, &asked[0], &wanted, after_us)?;
        let ends = micros(&keys[0])?.values();
        let of_rows = numbers.number(keys)?.into_iter().zip(ends).zip(0..);
        let entries = of_rows.map(|((key, end), row)| Entry {
            key,
            pane: self.panes.number(*end),
            row,
        });
        let mut entries: Vec<Entry> = entries.collect();
        entries.sort_unstable_by_key(|entry| (entry.key, entry.pane));
        let windows = wanted
            .into_iter()
            .map(|(key, end, row)| Window { end, key, row });
        let has_rows = |window: &Window| {
            let (from, until) = self.found(&entries, *window);
            from < until
        };
        let mut windows: Vec<Window> = windows.filter(has_rows).collect();
        windows.sort_unstable_by_key(|window| (window.end, window.key));
        if windows.is_empty() {
            let schema = SchemaRef::clone(&plan.output);
            return Ok((RecordBatch::new_empty(schema), Vec::new()));
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
        let lists = self.listed(&states, &entries, &windows)?;
        let calls = self.small.calls.iter().chain(&self.lists.calls);
        let mut calls: Vec<_> = calls.zip(small.into_iter().chain(lists)).collect();
        calls.sort_by_key(|(call, _)| **call);
        let count = windows.len();
        let mut columns = rekeyed(asked, windows.iter().map(|window| (window.end, window.row)))?;
        columns.extend(calls.into_iter().map(|(_, answers)| answers));
        let types = plan.output.fields().iter();
        let columns = conform(columns, types.map(|field| field.data_type().clone()))?;
        let rows = RecordBatch::try_new(SchemaRef::clone(&plan.output), columns)?;
        Ok((rows, vec![1; count]))
    }

    fn spans(&self) -> Option<Panes> {
        Some(self.panes)
    }
}

/// The keys of all panes of the windows that have one of those with these keys.
pub(super) fn panes_of(panes: Panes, keys: &[ArrayRef]) -> Result<Vec<ArrayRef>, OperatorError> {
    let fields = keys
        .iter()
        .map(|key| Field::new("key", key.data_type().clone(), true));
    let mut numbers = Keys::new(&Schema::new(fields.collect::<Vec<_>>()))?;
    let windows = windows_of(panes, &keys[0], &numbers.number(keys)?, None)?;
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
