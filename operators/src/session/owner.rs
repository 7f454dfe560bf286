//! The owner of a key: its open sessions, and what becomes of them in an epoch.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, ListArray, RecordBatch, StructArray, UInt32Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimestampMicrosecondType};
use datafusion::physical_plan::aggregates::group_values::new_group_values;
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use timely::dataflow::operators::generic::OperatorInfo;

use super::merge::{Merged, Session, Stretch};
use super::stored::{Stored, batch};
use super::{How, OUTPUT_ROWS, OWN_COLUMNS};
use crate::aggregate::{Emit, State, sparse_accumulators, states};
use crate::arrangement::{Arrangement, Changes, Ownership, Snapshots};
use crate::deadlines::Deadlines;
use crate::epoch::Kernel;
use crate::exchange::{evaluate_keys, take_rows};
use crate::intake::Intake;
use crate::keys::Encoded;
use crate::metrics::OperatorMeter;
use crate::watermark::Marks;
use crate::{Batch, OperatorError};

/// The rows of an epoch that are on time.
struct Fresh {
    rows: RecordBatch,
    /// By key, then by time: the number of the key, the row's session, the row.
    items: Vec<(u32, i64, i64, u32)>,
    /// The keys, by number.
    keys: Encoded,
    /// The keys in ascending order.
    order: Vec<u32>,
}

/// The owner of a key.
pub(super) struct Owner {
    pub(super) how: How,
    intake: Intake,
    pub(super) arrangement: Arrangement,
    pub(super) deadlines: Deadlines,
    snapshots: Snapshots,
    meter: OperatorMeter,
    /// Sessions in the state.
    live: u64,
    place: (usize, usize),
}

impl Owner {
    pub(super) fn new(
        how: How,
        state: &State,
        deadlines: &State,
        info: OperatorInfo,
        place: (usize, usize),
    ) -> (Self, Result<(), OperatorError>) {
        let ownership = Ownership {
            codec: &how.plan.codec,
            columns: how.plan.routed.clone(),
            worker: place.0,
            peers: place.1,
        };
        let (arrangement, restored) = state.arrange(&how.values, &ownership, info.clone());
        let types = how.plan.codec.types();
        let (deadlines, due) = Deadlines::new(types, deadlines, info, place);
        let mut owner = Owner {
            intake: Intake::new(how.plan.input.physical()),
            how,
            arrangement,
            deadlines,
            snapshots: state.snapshots.clone(),
            meter: state.meter.clone(),
            live: 0,
            place,
        };
        let restored = restored.and(due).and_then(|()| owner.count());
        (owner, restored)
    }

    /// Counts the sessions in the state: what is written of it knows the number of keys only.
    fn count(&mut self) -> Result<(), OperatorError> {
        let mut scan = self.arrangement.scan(&[], None)?;
        while let Some(chunk) = scan.next_chunk(OUTPUT_ROWS)? {
            let starts: &ListArray = chunk.values().column(1).as_list();
            let ends = starts.value_offsets();
            self.live += (ends[ends.len() - 1] - ends[0]) as u64;
        }
        Ok(())
    }

    /// The rows of `batches` that are on time by `before_us`, in their groups.
    fn fresh(
        &self,
        epoch: u64,
        batches: &[RecordBatch],
        before_us: Option<i64>,
    ) -> Result<Fresh, OperatorError> {
        let plan = &self.how.plan;
        let mut rows = concat_batches(&plan.input.physical(), batches)?;
        let window = self
            .how
            .window
            .evaluate(&rows)?
            .into_array(rows.num_rows())?;
        let mut window = window.as_struct().clone();
        let ends = window.column(1).as_primitive::<TimestampMicrosecondType>();
        let is_late = |row: &u32| before_us.is_some_and(|us| ends.value(*row as usize) <= us);
        let valid = (0..rows.num_rows() as u32).filter(|row| {
            let row = *row as usize;
            window.is_valid(row) && ends.is_valid(row)
        });
        let (late, kept): (Vec<u32>, Vec<u32>) = valid.partition(is_late);
        if !late.is_empty() {
            self.late(epoch, &rows, &window, late)?;
        }
        if kept.len() < rows.num_rows() {
            let kept = UInt32Array::from(kept);
            rows = take_rows(&rows, &kept)?;
            window = take(&window, &kept, None)?.as_struct().clone();
        }
        let count = rows.num_rows();
        let columns = evaluate_keys(&plan.keys, &rows)?;
        let schema = SchemaRef::clone(&plan.key_schema);
        let mut table = new_group_values(schema, &GroupOrdering::None)?;
        let mut groups = Vec::with_capacity(count);
        if count > 0 {
            table.intern(&columns, &mut groups)?;
        }
        let [starts, ends] = [0, 1].map(|bound| {
            let bound = window.column(bound);
            bound
                .as_primitive::<TimestampMicrosecondType>()
                .values()
                .clone()
        });
        let item = |row: usize| (groups[row] as u32, starts[row], ends[row], row as u32);
        let mut items: Vec<_> = (0..count).map(item).collect();
        items.sort_unstable();
        let distinct = table.len();
        let columns = match distinct {
            0 => plan
                .key_schema
                .fields()
                .iter()
                .map(|field| arrow::array::new_empty_array(field.data_type()))
                .collect(),
            _ => table.emit(datafusion::logical_expr::EmitTo::All)?,
        };
        let keys = plan.codec.encode(&columns, distinct)?;
        Ok(Fresh {
            rows,
            items,
            order: keys.sorted(),
            keys,
        })
    }

    /// Counts late rows as groups: those of one key and one session of their own count once.
    fn late(
        &self,
        epoch: u64,
        rows: &RecordBatch,
        window: &StructArray,
        late: Vec<u32>,
    ) -> Result<(), OperatorError> {
        let late = UInt32Array::from(late);
        let keys = evaluate_keys(&self.how.plan.keys, &take_rows(rows, &late)?)?;
        let keys = self.how.plan.codec.encode(&keys, late.len())?;
        let bound = |index: usize| {
            window
                .column(index)
                .as_primitive::<TimestampMicrosecondType>()
        };
        let (starts, ends) = (bound(0), bound(1));
        let mut distinct = BTreeSet::new();
        for (index, row) in late.values().iter().enumerate() {
            let row = *row as usize;
            distinct.insert((keys.key(index), starts.value(row), ends.value(row)));
        }
        self.meter.late(epoch, distinct.len() as u64);
        Ok(())
    }
}

impl Kernel for Owner {
    fn absorb(&mut self, epoch: u64, _: usize, batch: Batch) -> Result<(), OperatorError> {
        self.intake.absorb(epoch, batch)
    }

    fn run(
        &mut self,
        epoch: u64,
        marks: Marks,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let us = |ms: i64| self.how.closes().then(|| ms.saturating_mul(1_000));
        let (before_us, now_us) = (us(marks.before), us(marks.now));
        let batches = self.intake.take(epoch);
        let meter = self.meter.clone();
        let (done, update_us) = meter.timed(|| {
            let fresh = self.fresh(epoch, &batches, before_us)?;
            self.work(epoch, &fresh, now_us, out)?;
            match self.how.emit {
                Emit::All => self.emit_all(out),
                _ => Ok(()),
            }
        });
        done?;
        let (worker, peers) = self.place;
        let ((), commit_us) = meter.timed(|| {
            self.snapshots
                .offer(epoch, || self.arrangement.snapshot(worker, peers));
        });
        meter.count(epoch, |counts| {
            counts.update_us += update_us;
            counts.commit_us += commit_us;
            counts.rows_total = self.live;
            counts.bytes = self.arrangement.bytes() + self.deadlines.bytes();
        });
        Ok(())
    }
}

impl Owner {
    /// Merges the rows of an epoch with the stored sessions of their keys, and closes the sessions that are due.
    fn work(
        &mut self,
        epoch: u64,
        fresh: &Fresh,
        now_us: Option<i64>,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let due = match now_us {
            Some(now_us) => self.deadlines.due(now_us)?,
            None => Vec::new(),
        };
        // The keys to look at, ascending, each with its number among the fresh ones.
        let mut worked: Vec<(&[u8], Option<u32>)> = Vec::new();
        let mut waiting = due.iter().map(Vec::as_slice).peekable();
        for number in &fresh.order {
            let key = fresh.keys.key(*number as usize);
            while let Some(key) = waiting.next_if(|due| *due < key) {
                worked.push((key, None));
            }
            waiting.next_if(|due| *due == key);
            worked.push((key, Some(*number)));
        }
        worked.extend(waiting.map(|key| (key, None)));
        let found = self.arrangement.probe(worked.iter().map(|(key, _)| *key))?;
        let mut columns = Vec::with_capacity(self.how.values.fields().len());
        for column in 0..self.how.values.fields().len() {
            columns.extend(found.column(column)?);
        }
        let stored = match columns.is_empty() {
            true => Stored::none(&self.how),
            false => Stored::of(&self.how, &columns)?,
        };
        let mut row_of = vec![None; worked.len()];
        for (row, key) in found.keys.iter().enumerate() {
            row_of[*key as usize] = Some(row);
        }
        // Where the items of each fresh key start.
        let mut starts = vec![0; fresh.order.len() + 1];
        for (number, ..) in &fresh.items {
            starts[*number as usize + 1] += 1;
        }
        for number in 1..starts.len() {
            starts[number] += starts[number - 1];
        }
        let mut merged = Merged::new(stored.stretches.len(), fresh.items.len());
        for (key, (_, number)) in worked.iter().enumerate() {
            let old = row_of[key].map_or(0..0, |row| stored.offsets[row]..stored.offsets[row + 1]);
            let new = number.map_or(0..0, |n| starts[n as usize]..starts[n as usize + 1]);
            let rows = fresh.items[new].iter();
            merged.add(
                key as u32,
                old.map(|index| (stored.stretches[index], index)),
                rows.map(|&(_, start, end, row)| (Stretch { start, end }, row as usize)),
            );
        }
        let states = self.accumulate(&stored, fresh, &merged)?;
        let is_closed = |session: &Session| now_us.is_some_and(|now_us| session.at.end <= now_us);
        let closed = merged.sessions.iter().filter(|s| is_closed(s)).count() as u64;
        let touched = merged.sessions.iter().filter(|s| s.touched).count() as u64;
        match self.how.emit {
            Emit::Closed => {
                let chosen = |index: &usize| is_closed(&merged.sessions[*index]);
                let closed = (0..merged.sessions.len()).filter(chosen);
                self.emit(
                    &worked,
                    &merged.sessions,
                    closed.collect(),
                    &states,
                    None,
                    out,
                )?;
            }
            Emit::Signed => self.emit_changes(&worked, &stored, &merged, &states, out)?,
            Emit::All | Emit::Changed => {}
        }
        self.live += merged.sessions.len() as u64 - closed;
        self.live -= stored.stretches.len() as u64;
        self.meter.count(epoch, |counts| {
            counts.rows_updated += touched;
            counts.rows_removed += closed;
        });
        let armed = columns.first().map(|due| due.as_primitive::<Int64Type>());
        let armed = |key: usize| {
            let row = row_of[key]?;
            let due = armed.filter(|due| due.is_valid(row))?;
            Some(due.value(row)).filter(|at_us| now_us.is_some_and(|now_us| *at_us > now_us))
        };
        let is_stored = |key: usize| row_of[key].is_some();
        self.store(epoch, &worked, &merged, &states, now_us, armed, is_stored)
    }

    /// The accumulator states of the merged sessions.
    fn accumulate(
        &self,
        stored: &Stored,
        fresh: &Fresh,
        merged: &Merged,
    ) -> Result<RecordBatch, OperatorError> {
        let plan = &self.how.plan;
        let count = merged.sessions.len();
        if count == 0 {
            return Ok(RecordBatch::new_empty(SchemaRef::clone(&plan.state_schema)));
        }
        let mut accumulators = sparse_accumulators(plan, count)?;
        let old = plan.split_states(stored.states.columns());
        for ((call, accumulator), old) in plan.calls.iter().zip(&mut accumulators).zip(old) {
            if !merged.of_stored.is_empty() {
                accumulator.merge_batch(old, &merged.of_stored, count)?;
            }
            if fresh.rows.num_rows() > 0 && call.sorts() {
                // New rows may belong before stored ones: merging two states interleaves them.
                let (rows, indices) = call.sorted(&fresh.rows, &merged.of_row)?;
                let (arguments, filter) = call.arguments(&rows)?;
                let mut new = call.accumulator()?;
                new.update_batch(&arguments, &indices, filter.as_ref(), count)?;
                let states = new.state(datafusion::logical_expr::EmitTo::All)?;
                let all: Vec<usize> = (0..count).collect();
                accumulator.merge_batch(&states, &all, count)?;
            } else if fresh.rows.num_rows() > 0 {
                let (arguments, filter) = call.arguments(&fresh.rows)?;
                accumulator.update_batch(&arguments, &merged.of_row, filter.as_ref(), count)?;
            }
        }
        states(plan, &mut accumulators, count)
    }

    /// Writes back the sessions that stay open, and when their keys are due next.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one epoch's work, each used once"
    )]
    fn store(
        &mut self,
        epoch: u64,
        worked: &[(&[u8], Option<u32>)],
        merged: &Merged,
        states: &RecordBatch,
        now_us: Option<i64>,
        armed: impl Fn(usize) -> Option<i64>,
        is_stored: impl Fn(usize) -> bool,
    ) -> Result<(), OperatorError> {
        let mut keys = Encoded {
            offsets: vec![0],
            bytes: Vec::new(),
        };
        let (mut due, mut diffs, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        let mut kept: Vec<u32> = Vec::with_capacity(merged.sessions.len());
        let mut promised: Vec<(i64, &[u8])> = Vec::new();
        let mut next = 0;
        for (index, (key, _)) in worked.iter().enumerate() {
            let before = kept.len();
            let mut first_end = i64::MAX;
            while let Some(session) = merged.sessions.get(next) {
                if session.key as usize != index {
                    break;
                }
                if now_us.is_none_or(|now_us| session.at.end > now_us) {
                    kept.push(next as u32);
                    first_end = first_end.min(session.at.end);
                }
                next += 1;
            }
            let length = kept.len() - before;
            if length == 0 && !is_stored(index) {
                continue;
            }
            let at_us = (length > 0 && now_us.is_some()).then(|| match armed(index) {
                Some(at_us) if at_us <= first_end => at_us,
                _ => {
                    promised.push((first_end, *key));
                    first_end
                }
            });
            keys.bytes.extend_from_slice(key);
            keys.offsets.push(keys.bytes.len());
            due.push(at_us);
            lengths.push(length);
            diffs.push(i64::from(length > 0));
        }
        let rows = lengths.len();
        if rows == 0 {
            self.arrangement.advance(epoch)?;
        } else {
            let offsets = OffsetBuffer::<i32>::from_lengths(lengths);
            let bound = |of: fn(&Stretch) -> i64| -> ArrayRef {
                let kept = kept
                    .iter()
                    .map(|index| of(&merged.sessions[*index as usize].at));
                Arc::new(Int64Array::from_iter_values(kept))
            };
            let mut flat = vec![bound(|at| at.start), bound(|at| at.end)];
            let kept = UInt32Array::from(kept.clone());
            for column in states.columns() {
                flat.push(take(column, &kept, None)?);
            }
            let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(due))];
            let fields = self.how.values.fields()[OWN_COLUMNS - 2..].iter();
            for (field, flat) in fields.zip(flat) {
                let DataType::List(element) = field.data_type() else {
                    unreachable!("all but the deadline are lists");
                };
                let list = ListArray::try_new(Arc::clone(element), offsets.clone(), flat, None)?;
                columns.push(Arc::new(list));
            }
            let order: Vec<u32> = (0..rows as u32).collect();
            let changes = Changes {
                keys: &keys,
                order: &order,
                values: &batch(&self.how.values, columns, rows)?,
                diffs: Some(&diffs),
            };
            self.arrangement.insert(epoch, &changes)?;
        }
        let now_us = now_us.unwrap_or(i64::MIN);
        self.deadlines.run(epoch, promised.into_iter(), now_us)
    }
}
