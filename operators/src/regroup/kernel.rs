//! The owner of a group's rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::compute::{SortOptions, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use timely::dataflow::operators::generic::OperatorInfo;

use super::{Members, Regroup};
use crate::aggregate::{Asked, Difference, Emit, Panes, State, bound_of, micros, panes_of};
use crate::arrangement::{
    Arrangement, Changes, Found, Kind, Limits, Ownership, Shape, Shared, Snapshots,
};
use crate::epoch::Kernel;
use crate::exchange::take_rows;
use crate::failure::guard;
use crate::intake::Intake;
use crate::keys::{Codec, Encoded, normalise};
use crate::metrics::OperatorMeter;
use crate::watermark::Marks;
use crate::{Batch, Edge, OperatorError, wire};

/// Rows of one output batch, and about as many of one reading.
const OUTPUT_ROWS: usize = 8 << 10;

pub(super) struct Owner {
    regroup: Regroup,
    input: Edge,
    /// What the arrangement gives back: the columns of the input, any of which may be null.
    stored: SchemaRef,
    codecs: Option<Codecs>,
    difference: Difference,
    arrangement: Option<Arrangement>,
    intake: Intake,
    snapshots: Snapshots,
    meter: OperatorMeter,
    live: u64,
    /// True once the global group has given its answer.
    answered: bool,
    place: (usize, usize),
}

struct Codecs {
    row: Codec,
    /// Of the leading columns: what it writes starts the row.
    group: Codec,
}

impl Codecs {
    fn new(input: &Schema, regroup: &Regroup) -> Result<Self, OperatorError> {
        let flat = |t: &DataType| wire::flat_type(t).unwrap_or_else(|| t.clone());
        let fields = input.fields().iter();
        let types: Vec<DataType> = fields.map(|field| flat(field.data_type())).collect();
        let width = types.len();
        let mut options = vec![SortOptions::default(); width];
        // A null event time is never closed.
        if let Some(first) = options.first_mut().filter(|_| regroup.event_time) {
            first.nulls_first = false;
        }
        for (option, sort) in options[regroup.keys..].iter_mut().zip(&regroup.sorts) {
            *option = *sort;
        }
        let keys = regroup.keys;
        Ok(Codecs {
            group: Codec::sorted(types[..keys].to_vec(), &options[..keys])?,
            row: Codec::sorted(types, &options)?,
        })
    }
}

/// An epoch's rows, encoded, equal ones together.
struct Delta {
    encoded: Encoded,
    /// One row of each kind, ascending.
    order: Vec<u32>,
    diffs: Vec<i64>,
    /// The group of each, and where the bytes of each group's key are.
    groups: Vec<u32>,
    prefixes: Vec<Vec<u8>>,
}

impl Owner {
    pub(super) fn new(
        input: &Edge,
        regroup: Regroup,
        state: State,
        info: OperatorInfo,
        place: (usize, usize),
    ) -> (Self, Result<(), OperatorError>) {
        let start = state.first_epoch();
        let fields = input.rows.fields().iter();
        let fields = fields.map(|field| {
            let flat = wire::flat_type(field.data_type());
            let data_type = flat.unwrap_or_else(|| field.data_type().clone());
            field
                .as_ref()
                .clone()
                .with_nullable(true)
                .with_data_type(data_type)
        });
        let mut owner = Owner {
            stored: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            input: input.clone(),
            difference: Difference::new(&regroup.schema),
            regroup,
            codecs: None,
            arrangement: None,
            intake: Intake::new(input.physical()),
            snapshots: state.snapshots.clone(),
            meter: state.meter.clone(),
            live: 0,
            answered: start > 0,
            place,
        };
        let restored = guard(|| {
            let codecs = Codecs::new(&owner.stored, &owner.regroup)?;
            let nothing: SchemaRef = Arc::new(Schema::empty());
            let limits = Limits::default();
            let shape = Shape::new(Kind::Multiset, SchemaRef::clone(&nothing), limits);
            let mut arrangement = Arrangement::new(shape.within(state.budget), info);
            let (worker, peers) = place;
            let ownership = Ownership {
                codec: &codecs.row,
                columns: owner.regroup.routed(),
                worker,
                peers,
            };
            match &state.read {
                Some(read) => arrangement.restore(&read(&nothing)?, &ownership)?,
                None => arrangement.restore(&state.restore, &ownership)?,
            }
            owner.live = arrangement.live()?;
            owner.arrangement = Some(arrangement);
            owner.codecs = Some(codecs);
            Ok(())
        });
        (owner, restored)
    }

    pub(super) fn shared(&self) -> Option<Shared> {
        self.arrangement.as_ref().map(Arrangement::shared)
    }

    fn arrangement(&self) -> &Arrangement {
        self.arrangement
            .as_ref()
            .expect("no epoch runs after a failure")
    }

    fn arrangement_mut(&mut self) -> &mut Arrangement {
        self.arrangement
            .as_mut()
            .expect("no epoch runs after a failure")
    }

    fn codecs(&self) -> &Codecs {
        self.codecs.as_ref().expect("no epoch runs after a failure")
    }

    fn delta(&self, batches: &[RecordBatch]) -> Result<Delta, OperatorError> {
        let rows = concat_batches(&self.input.physical(), batches)?;
        let count = rows.num_rows();
        let keys = self.regroup.keys;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.input.rows.fields().len());
        for (index, field) in self.stored.fields().iter().enumerate() {
            let column = rows.column(index);
            columns.push(match index < keys {
                true => normalise(column)?,
                false if column.data_type() == field.data_type() => Arc::clone(column),
                false => arrow::compute::cast(column, field.data_type())?,
            });
        }
        let encoded = self.codecs().row.encode(&columns, count)?;
        let group = self.codecs().group.encode(&columns[..keys], count)?;
        let ones;
        let diffs = match self.input.diff_index() {
            Some(index) => rows
                .column(index)
                .as_primitive::<Int64Type>()
                .values()
                .as_ref(),
            None => {
                ones = vec![1; count];
                ones.as_slice()
            }
        };
        let mut delta = Delta {
            order: Vec::new(),
            diffs: Vec::new(),
            groups: Vec::new(),
            prefixes: Vec::new(),
            encoded,
        };
        let sorted = delta.encoded.sorted();
        let mut at = 0;
        while at < count {
            let row = sorted[at] as usize;
            let key = delta.encoded.key(row);
            let mut diff = 0;
            while at < count && delta.encoded.key(sorted[at] as usize) == key {
                diff += diffs[sorted[at] as usize];
                at += 1;
            }
            if diff == 0 {
                continue;
            }
            let prefix = group.key(row);
            if delta.prefixes.last().is_none_or(|last| last != prefix) {
                delta.prefixes.push(prefix.to_vec());
            }
            delta.groups.push(delta.prefixes.len() as u32 - 1);
            delta.order.push(row as u32);
            delta.diffs.push(diff);
        }
        Ok(delta)
    }

    /// What the groups are before and after a delta, and the delta inserted.
    fn apply(&mut self, epoch: u64, delta: &Delta) -> Result<[Members; 2], OperatorError> {
        let groups = delta.prefixes.len();
        let (before, after) = match self.regroup.answer.looks_at() {
            Some(front) => {
                let before = self.front(&delta.prefixes, front)?;
                self.insert(epoch, delta, None)?;
                (before, self.front(&delta.prefixes, front)?)
            }
            None => {
                let probes = delta.prefixes.iter().map(Vec::as_slice);
                let found = self.arrangement().probe(probes)?;
                let before = consolidated(stored(&found).collect());
                let new = delta.order.iter().zip(&delta.diffs).zip(&delta.groups);
                let new = new
                    .map(|((row, diff), group)| (*group, delta.encoded.key(*row as usize), *diff));
                let after = consolidated(before.iter().copied().chain(new).collect());
                let change = after.len() as i64 - before.len() as i64;
                let members = (
                    self.members(&before, groups)?,
                    self.members(&after, groups)?,
                );
                self.insert(epoch, delta, Some(change))?;
                members
            }
        };
        Ok([before, after])
    }

    /// The same where an answer is a window of several panes: all panes of the windows that have one of those that
    /// changed, but of none that had closed before.
    fn apply_to_windows(
        &mut self,
        epoch: u64,
        delta: &Delta,
        panes: Panes,
        after_us: Option<i64>,
    ) -> Result<[Members; 2], OperatorError> {
        let codec = &self.codecs().group;
        let changed = codec.decode(delta.prefixes.iter().map(Vec::as_slice))?;
        let asked = Asked {
            panes: changed,
            after_us,
        };
        let needed = panes_of(panes, &asked)?;
        let needed = codec.encode(&needed, needed[0].len())?;
        let probes = needed.sorted();
        let probes = probes.iter().map(|row| needed.key(*row as usize));
        let found = self.arrangement().probe(probes)?;
        let before = consolidated(
            stored(&found)
                .map(|(_, key, diff)| (0, key, diff))
                .collect(),
        );
        let new = delta.order.iter().zip(&delta.diffs);
        let new = new.map(|(row, diff)| (0, delta.encoded.key(*row as usize), *diff));
        let after = consolidated(before.iter().copied().chain(new).collect());
        let change = after.len() as i64 - before.len() as i64;
        let mut members = [self.members(&before, 1)?, self.members(&after, 1)?];
        self.insert(epoch, delta, Some(change))?;
        for members in &mut members {
            members.asked = Some(asked.clone());
        }
        Ok(members)
    }

    fn members(&self, rows: &[(u32, &[u8], i64)], groups: usize) -> Result<Members, OperatorError> {
        Members::decode(&self.codecs().row, &self.stored, rows, groups)
    }

    /// The first rows of each group, `front` of them counted as often as they are there.
    fn front(&self, prefixes: &[Vec<u8>], front: u64) -> Result<Members, OperatorError> {
        let mut keys: Vec<(u32, Vec<u8>, i64)> = Vec::new();
        for (group, prefix) in prefixes.iter().enumerate() {
            let until = after(prefix);
            let mut scan = self.arrangement().scan(prefix, until.as_deref())?;
            let mut missing = front;
            while missing > 0 {
                let Some(chunk) = scan.next_chunk((missing as usize).min(OUTPUT_ROWS))? else {
                    break;
                };
                for (row, key) in chunk.keys().enumerate() {
                    if missing == 0 {
                        break;
                    }
                    keys.push((group as u32, key.to_vec(), chunk.diff(row)));
                    missing = missing.saturating_sub(chunk.diff(row).unsigned_abs());
                }
            }
        }
        let rows: Vec<_> = keys
            .iter()
            .map(|(g, key, n)| (*g, key.as_slice(), *n))
            .collect();
        self.members(&rows, prefixes.len())
    }

    /// `change` is how many kinds of rows there are more, if that is known.
    fn insert(
        &mut self,
        epoch: u64,
        delta: &Delta,
        change: Option<i64>,
    ) -> Result<(), OperatorError> {
        let rows = delta.encoded.offsets.len() - 1;
        let change = match change {
            Some(change) => change,
            None => {
                let probes = delta
                    .order
                    .iter()
                    .map(|row| delta.encoded.key(*row as usize));
                let found = self.arrangement().probe(probes)?;
                let before = consolidated(stored(&found).collect());
                let mut change = delta.order.len() as i64;
                for (index, _, count) in before {
                    let gone = count + delta.diffs[index as usize] == 0;
                    change -= if gone { 2 } else { 1 };
                }
                change
            }
        };
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let nothing = SchemaRef::clone(&self.arrangement().shape().values);
        let changes = Changes {
            keys: &delta.encoded,
            order: &delta.order,
            values: &RecordBatch::try_new_with_options(nothing, vec![], &options)?,
            diffs: Some(&delta.diffs),
        };
        self.arrangement_mut().insert(epoch, &changes)?;
        self.live = self.live.saturating_add_signed(change);
        self.arrangement().set_live(self.live);
        Ok(())
    }

    /// Answers of all groups, or of those below `bound`.
    fn emit_below(
        &self,
        bound: Option<&[u8]>,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        if self.regroup.answer.spans().is_some() {
            let mut scan = self.arrangement().scan(&[], bound)?;
            let mut rows: Vec<(Vec<u8>, i64)> = Vec::new();
            while let Some(chunk) = scan.next_chunk(OUTPUT_ROWS)? {
                let keys = chunk.keys().enumerate();
                rows.extend(keys.map(|(row, key)| (key.to_vec(), chunk.diff(row))));
            }
            let rows = rows.iter().map(|(key, count)| (0, key.as_slice(), *count));
            return self.give(&self.members(&rows.collect::<Vec<_>>(), 1)?, out);
        }
        if self.regroup.keys == 0 {
            let front = self.regroup.answer.looks_at();
            let members = match (self.place.0, front) {
                (0, Some(front)) => self.front(&[Vec::new()], front)?,
                (0, None) => self.front(&[Vec::new()], u64::MAX)?,
                _ => return Ok(()),
            };
            return self.give(&members, out);
        }
        let mut scan = self.arrangement().scan(&[], bound)?;
        // Rows that were read, where their groups start, and the key of the last group, which may go on.
        let mut read: Vec<(Vec<u8>, i64)> = Vec::new();
        let mut starts: Vec<usize> = Vec::new();
        let mut open: Option<Vec<u8>> = None;
        loop {
            let chunk = scan.next_chunk(OUTPUT_ROWS)?;
            let last = chunk.is_none();
            if let Some(chunk) = chunk {
                let columns = self.codecs().row.decode(chunk.keys())?;
                let keys = &columns[..self.regroup.keys];
                let groups = self.codecs().group.encode(keys, chunk.keys().len())?;
                for (row, key) in chunk.keys().enumerate() {
                    let group = groups.key(row);
                    if open.as_deref() != Some(group) {
                        starts.push(read.len());
                        open = Some(group.to_vec());
                    }
                    read.push((key.to_vec(), chunk.diff(row)));
                }
            }
            let whole = starts.len() - usize::from(!last && !starts.is_empty());
            if whole > 0 {
                let end = starts.get(whole).copied().unwrap_or(read.len());
                let mut rows: Vec<(u32, &[u8], i64)> = Vec::with_capacity(end);
                for (number, start) in starts[..whole].iter().enumerate() {
                    let stop = starts.get(number + 1).copied().unwrap_or(read.len());
                    let group = read[*start..stop].iter();
                    rows.extend(group.map(|(key, count)| (number as u32, key.as_slice(), *count)));
                }
                self.give(&self.members(&rows, whole)?, out)?;
                read.drain(..end);
                starts.drain(..whole);
                starts.iter_mut().for_each(|start| *start -= end);
            }
            if last {
                return Ok(());
            }
        }
    }

    fn give(
        &self,
        members: &Members,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let (rows, counts) = self.regroup.answer.answer(members)?;
        let mut picks = Vec::with_capacity(counts.len());
        for (row, count) in counts.iter().enumerate() {
            picks.extend(std::iter::repeat_n(row as u32, *count as usize));
        }
        let rows = take_rows(&rows, &UInt32Array::from(picks))?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let (schema, columns) = (&self.regroup.schema, rows.columns().to_vec());
        let schema = SchemaRef::clone(schema);
        cut(
            &RecordBatch::try_new_with_options(schema, columns, &options)?,
            out,
        );
        Ok(())
    }

    /// The answers that left and those that came.
    fn changes(
        &self,
        [before, after]: &[Members; 2],
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let answer = &self.regroup.answer;
        let nothing = |members: &Members| members.rows.num_rows() == 0;
        let first = nothing(before) && answer.of_nothing() && !self.answered;
        let (old, mut old_counts) = answer.answer(before)?;
        let (new, new_counts) = answer.answer(after)?;
        if first {
            // There was no answer before the first epoch.
            old_counts.fill(0);
        }
        let counts = [old_counts.as_slice(), new_counts.as_slice()];
        match self.difference.of([&old, &new], counts)? {
            None => Ok(()),
            Some(rows) => {
                cut(&rows, out);
                Ok(())
            }
        }
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
        let mut batches = self.intake.take(epoch);
        let emit = self.regroup.emit;
        if emit == Emit::Closed {
            let late = on_time(&mut batches, marks.before.saturating_mul(1_000))?;
            self.meter.late(epoch, late);
        }
        let mut delta = self.delta(&batches)?;
        let global = self.regroup.answer.of_nothing() && self.place.0 == 0;
        // In update mode the one answer comes with every epoch.
        if global && delta.prefixes.is_empty() && (!self.answered || emit == Emit::Changed) {
            delta.prefixes.push(Vec::new());
        }
        let meter = self.meter.clone();
        let (done, update_us) = meter.timed(|| match (delta.prefixes.is_empty(), emit) {
            (true, _) => self.arrangement_mut().advance(epoch),
            (false, Emit::All | Emit::Closed) => self.insert(epoch, &delta, None),
            (false, _) => {
                let closes = self.regroup.event_time;
                let members = match self.regroup.answer.spans() {
                    Some(panes) => {
                        let after_us = closes.then(|| marks.before.saturating_mul(1_000));
                        self.apply_to_windows(epoch, &delta, panes, after_us)?
                    }
                    None => self.apply(epoch, &delta)?,
                };
                match emit {
                    Emit::Signed => self.changes(&members, out),
                    _ => self.give(&members[1], out),
                }
            }
        });
        done?;
        self.answered = true;
        if emit == Emit::All {
            self.emit_below(None, out)?;
        } else if self.regroup.event_time {
            let first = self.stored.field(0).data_type().clone();
            let now_us = marks.now.saturating_mul(1_000);
            let panes = self.regroup.panes;
            let last_us = panes.map_or(now_us, |panes| panes.first_open(now_us) - 1);
            let bound = bound_of(first, last_us)?;
            if emit == Emit::Closed {
                self.emit_below(Some(&bound), out)?;
            }
            let mut scan = self.arrangement().scan(&[], Some(&bound))?;
            let mut removed = 0;
            while let Some(chunk) = scan.next_chunk(OUTPUT_ROWS)? {
                removed += chunk.len() as u64;
            }
            self.arrangement_mut().forget_below(&bound);
            self.live = self.live.saturating_sub(removed);
            self.arrangement().set_live(self.live);
            meter.count(epoch, |counts| counts.rows_removed += removed);
        }
        let (worker, peers) = self.place;
        let arrangement = self.arrangement();
        let ((), commit_us) = meter.timed(|| {
            self.snapshots
                .offer(epoch, || arrangement.snapshot(worker, peers));
        });
        let updated = delta.order.len() as u64;
        meter.count(epoch, |counts| {
            counts.rows_updated += updated;
            counts.update_us += update_us;
            counts.commit_us += commit_us;
            counts.rows_total = self.live;
            counts.bytes = arrangement.bytes();
        });
        Ok(())
    }
}

/// Leaves rows out that are late by `before_us`, and says how many: their event time is the first column.
fn on_time(batches: &mut [RecordBatch], before_us: i64) -> Result<u64, OperatorError> {
    let mut late = 0;
    for rows in batches {
        let times = micros(rows.column(0))?;
        let stays = |row: usize| times.is_null(row) || times.value(row) > before_us;
        let stays: BooleanArray = (0..times.len()).map(|row| Some(stays(row))).collect();
        let gone = rows.num_rows() - stays.true_count();
        if gone > 0 {
            late += gone as u64;
            *rows = filter_record_batch(rows, &stays)?;
        }
    }
    Ok(late)
}

/// Rows found, each with the number of what found it, its key and its diff.
fn stored(found: &Found) -> impl Iterator<Item = (u32, &[u8], i64)> {
    let keys = found.keys.iter().copied().zip(found.stored_keys());
    keys.zip(found.diffs())
        .map(|((group, key), diff)| (group, key, diff))
}

/// The rows in order, equal ones together; those that are not there are left out.
fn consolidated(mut rows: Vec<(u32, &[u8], i64)>) -> Vec<(u32, &[u8], i64)> {
    rows.sort_unstable_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    rows.dedup_by(|later, first| {
        let same = (later.0, later.1) == (first.0, first.1);
        if same {
            first.2 += later.2;
        }
        same
    });
    rows.retain(|(_, _, diff)| *diff != 0);
    rows
}

/// The first key after all that start with `prefix`; none if there is no such key.
fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

fn cut(rows: &RecordBatch, out: &mut dyn FnMut(RecordBatch)) {
    for start in (0..rows.num_rows()).step_by(OUTPUT_ROWS) {
        out(rows.slice(start, OUTPUT_ROWS.min(rows.num_rows() - start)));
    }
}
