//! One side of a join of streams: its rows of an epoch, and those before them as an arrangement.
//!
//! Rows are kept under their join key and what tells them apart below it: where rows are only ever added, the epoch and
//! the number that a row came with, so that equal rows stay apart and no row is compared; where rows may leave again,
//! the row itself. A row that no later row can match is not deleted one by one: merges leave it out, and until then it
//! is found by nothing but a probe whose condition it fails.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, UInt32Array, UInt64Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::exec_err;
use datafusion::physical_expr::PhysicalExpr;
use timely::dataflow::operators::generic::OperatorInfo;

use super::keys::{Keyed, holds, key_types};
use crate::aggregate::State;
use crate::arrangement::{Arrangement, Changes, Kind, Limits, Ownership, Shape};
use crate::exchange::take_rows;
use crate::intake::Intake;
use crate::keys::{Codec, Encoded};
use crate::{Batch, Edge, OperatorError};

/// What a join knows of the event times of one side, whose columns these expressions are over.
#[derive(Debug, Clone, Default)]
pub struct Times {
    /// A row with this event time is late when the watermark of the epoch before has reached it.
    pub late: Option<Arc<dyn PhysicalExpr>>,
    /// No later row matches a row once the watermark has reached this time and so many microseconds more.
    pub last_match: Option<(Arc<dyn PhysicalExpr>, i64)>,
    /// A row has no partner if the watermark of the epoch before has reached this time.
    pub late_key: Option<Arc<dyn PhysicalExpr>>,
}

/// Bytes of a key after the join key where rows are only added: epoch and number, each after a byte that says so.
pub(super) const SUFFIX: usize = 14;

/// The name of the column that says when a row is past its last match.
const EXPIRES: &str = "__expires";

/// What is fixed about a side.
pub(super) struct Layout {
    pub(super) input: Edge,
    pub(super) keys: Vec<Arc<dyn PhysicalExpr>>,
    pub(super) null_safe: Vec<bool>,
    /// A row for which it is not true has no partner.
    pub(super) eligible: Option<Arc<dyn PhysicalExpr>>,
    pub(super) times: Times,
    /// Of whole keys.
    pub(super) codec: Codec,
    /// Of join keys.
    pub(super) key_codec: Codec,
    /// The columns of a row, and when it expires.
    pub(super) values: SchemaRef,
}

impl Layout {
    pub(super) fn new(
        input: Edge,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        null_safe: Vec<bool>,
        eligible: Option<Arc<dyn PhysicalExpr>>,
        times: Times,
    ) -> Result<Self, OperatorError> {
        let key_types = key_types(&keys, &input.rows)?;
        let mut types = key_types.clone();
        if input.signed {
            let columns = input.rows.fields().iter();
            types.extend(columns.map(|field| field.data_type().clone()));
        } else {
            types.extend([DataType::UInt64, DataType::UInt32]);
        }
        let mut fields: Vec<Field> = Vec::new();
        for field in input.rows.fields() {
            fields.push(field.as_ref().clone().with_nullable(true));
        }
        if times.last_match.is_some() {
            fields.push(Field::new(EXPIRES, DataType::Int64, false));
        }
        Ok(Layout {
            codec: Codec::new(types)?,
            key_codec: Codec::new(key_types)?,
            values: Arc::new(Schema::new(fields)),
            input,
            keys,
            null_safe,
            eligible,
            times,
        })
    }

    /// How many columns a row has.
    pub(super) fn width(&self) -> usize {
        self.input.rows.fields().len()
    }
}

/// The rows of one side and epoch.
pub(super) struct Delta {
    /// Without hidden columns.
    pub(super) rows: RecordBatch,
    /// How often each counts; +1 if there are none.
    pub(super) diffs: Option<Vec<i64>>,
    pub(super) keyed: Keyed,
    /// Whole keys.
    pub(super) stored: Encoded,
    /// Join keys, where they are not just whole keys without their last bytes.
    joins: Option<Encoded>,
    /// The rows in the order of their keys.
    pub(super) order: Vec<u32>,
    /// When each is past its last match, if ever.
    pub(super) expires: Option<Vec<i64>>,
    /// Those that have no partner, whatever the other side has.
    pub(super) ineligible: Option<Vec<bool>>,
}

impl Delta {
    pub(super) fn len(&self) -> usize {
        self.rows.num_rows()
    }

    pub(super) fn diff(&self, row: usize) -> i64 {
        self.diffs.as_ref().map_or(1, |diffs| diffs[row])
    }

    pub(super) fn is_eligible(&self, row: usize) -> bool {
        self.ineligible.as_ref().is_none_or(|rows| !rows[row])
    }

    pub(super) fn can_match(&self, row: usize) -> bool {
        self.keyed.can_match(row) && self.is_eligible(row)
    }

    /// The join key of a row.
    pub(super) fn join_key(&self, row: usize) -> &[u8] {
        match &self.joins {
            Some(joins) => joins.key(row),
            None => {
                let key = self.stored.key(row);
                &key[..key.len() - SUFFIX]
            }
        }
    }

    /// When a row is past its last match.
    pub(super) fn expires(&self, row: usize) -> i64 {
        self.expires.as_ref().map_or(i64::MAX, |at| at[row])
    }

    /// The rows as they are stored.
    pub(super) fn values(&self, schema: &SchemaRef) -> Result<RecordBatch, OperatorError> {
        let mut columns = self.rows.columns().to_vec();
        if let Some(expires) = &self.expires {
            columns.push(Arc::new(Int64Array::from(expires.clone())));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.len()));
        let schema = SchemaRef::clone(schema);
        Ok(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?)
    }
}

/// Rows to take out of an arrangement: their keys and values.
#[derive(Default)]
pub(super) struct Removed {
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) values: Option<RecordBatch>,
    pub(super) expires: Vec<i64>,
}

pub(super) struct Side {
    pub(super) layout: Rc<Layout>,
    pub(super) arrangement: Arrangement,
    intake: Intake,
    expiries: Expiries,
    /// Rows that are not past their last match.
    pub(super) live: u64,
    began: bool,
}

impl Side {
    pub(super) fn new(
        layout: Rc<Layout>,
        state: &State,
        info: OperatorInfo,
        place: (usize, usize),
    ) -> (Self, Result<(), OperatorError>) {
        let values = SchemaRef::clone(&layout.values);
        let mut shape = Shape::new(Kind::Multiset, values, Limits::default());
        if layout.times.last_match.is_some() {
            shape = shape.expiring(layout.width());
        }
        let mut arrangement = Arrangement::new(shape.within(state.budget.clone()), info);
        let restored = restore(
            &mut arrangement,
            state,
            &layout.codec,
            0..layout.keys.len(),
            place,
        );
        let mut side = Side {
            intake: Intake::new(layout.input.physical()),
            layout,
            arrangement,
            expiries: Expiries::default(),
            live: 0,
            began: false,
        };
        let counted = restored.and_then(|()| side.count());
        (side, counted)
    }

    /// Counts what was restored.
    fn count(&mut self) -> Result<(), OperatorError> {
        if self.layout.times.last_match.is_none() {
            self.live = self.arrangement.live()?;
            return Ok(());
        }
        let mut scan = self.arrangement.scan(&[], None)?;
        while let Some(chunk) = scan.next_chunk(8 << 10)? {
            let expires = chunk.values().column(self.layout.width());
            let expires = expires.as_primitive::<Int64Type>().values();
            for (row, expires) in expires.iter().enumerate() {
                let diff = chunk.diff(row);
                self.expiries.add(*expires, diff);
                self.live = self.live.saturating_add_signed(diff);
            }
        }
        Ok(())
    }

    pub(super) fn absorb(&mut self, epoch: u64, batch: Batch) -> Result<(), OperatorError> {
        self.intake.absorb(epoch, batch)
    }

    /// The rows of `epoch` that are not late, and how many are.
    pub(super) fn delta(
        &mut self,
        epoch: u64,
        before_us: i64,
    ) -> Result<(Delta, u64), OperatorError> {
        if !std::mem::replace(&mut self.began, true) {
            // What had expired when the query stopped.
            self.live = self.live.saturating_sub(self.expiries.take(before_us));
        }
        let layout = Rc::clone(&self.layout);
        let batches = self.intake.take(epoch);
        let mut rows = match <[RecordBatch; 1]>::try_from(batches) {
            Ok([rows]) => rows,
            Err(batches) => concat_batches(&layout.input.physical(), &batches)?,
        };
        let all = rows.num_rows();
        if let Some(time) = &layout.times.late {
            let late = reached(time.as_ref(), &rows, before_us)?;
            let kept: Vec<u32> = (0..all as u32).filter(|row| !late[*row as usize]).collect();
            if kept.len() < all {
                rows = take_rows(&rows, &UInt32Array::from(kept))?;
            }
        }
        let late = (all - rows.num_rows()) as u64;
        Ok((self.keyed(epoch, rows, before_us)?, late))
    }

    /// The rows with their keys, as they are under a watermark; of rows that may leave again, equal ones as one.
    pub(super) fn keyed(
        &self,
        epoch: u64,
        rows: RecordBatch,
        before_us: i64,
    ) -> Result<Delta, OperatorError> {
        let layout = &self.layout;
        let count = rows.num_rows();
        let visible: Vec<usize> = (0..layout.width()).collect();
        let diffs = layout.input.diff_index().map(|index| {
            let diffs = rows.column(index).as_primitive::<Int64Type>();
            diffs.values().to_vec()
        });
        let rows = rows.project(&visible)?;
        let keyed = Keyed::of(&layout.keys, &layout.null_safe, &rows)?;
        let mut columns = keyed.columns.clone();
        let mut joins = None;
        if diffs.is_some() {
            columns.extend(rows.columns().iter().cloned());
            joins = Some(layout.key_codec.encode(&keyed.columns, count)?);
        } else {
            columns.push(Arc::new(UInt64Array::from_value(epoch, count)));
            columns.push(Arc::new(UInt32Array::from_iter_values(0..count as u32)));
        }
        let stored = layout.codec.encode(&columns, count)?;
        let order = stored.sorted();
        if let Some(diffs) = &diffs
            && let Some((kept, sums)) = sums(&stored, &order, diffs)
        {
            let mut columns = take_rows(&rows, &kept)?.columns().to_vec();
            columns.push(Arc::new(Int64Array::from(sums)));
            let rows = RecordBatch::try_new(layout.input.physical(), columns)?;
            return self.keyed(epoch, rows, before_us);
        }
        let expires = match &layout.times.last_match {
            None => None,
            Some((time, more_us)) => {
                let times = micros(time.as_ref(), &rows)?;
                let at = times.as_primitive::<Micros>().iter();
                let at = at.map(|t| t.map_or(i64::MAX, |t| t.saturating_add(*more_us)));
                Some(at.collect())
            }
        };
        let mut ineligible: Option<Vec<bool>> = match &layout.eligible {
            None => None,
            Some(condition) => {
                let holds = holds(condition.as_ref(), &rows)?;
                Some(holds.into_iter().map(|holds| !holds).collect())
            }
        };
        if let Some(time) = &layout.times.late_key {
            let late = reached(time.as_ref(), &rows, before_us)?;
            let others = ineligible.unwrap_or_else(|| vec![false; late.len()]);
            let both = late.into_iter().zip(others);
            ineligible = Some(both.map(|(late, other)| late || other).collect());
        }
        Ok(Delta {
            rows,
            diffs,
            keyed,
            stored,
            joins,
            order,
            expires,
            ineligible,
        })
    }

    /// Adds those rows of `delta` that `keeps` names, and takes some out.
    pub(super) fn insert(
        &mut self,
        epoch: u64,
        delta: &Delta,
        keeps: impl Fn(usize) -> bool,
        removed: &Removed,
    ) -> Result<u64, OperatorError> {
        let order = delta.order.iter().copied();
        let order: Vec<u32> = order.filter(|row| keeps(*row as usize)).collect();
        for row in &order {
            let (diff, expires) = (delta.diff(*row as usize), delta.expires(*row as usize));
            self.live = self.live.saturating_add_signed(diff);
            self.expiries.add(expires, diff);
        }
        for expires in &removed.expires {
            self.live -= 1;
            self.expiries.add(*expires, -1);
        }
        let values = delta.values(&self.layout.values)?;
        let diffs: Option<Vec<i64>> = delta.diffs.as_ref().map(|diffs| {
            let in_order = order.iter().map(|row| diffs[*row as usize]);
            in_order.collect()
        });
        let changed = (order.len() + removed.keys.len()) as u64;
        match &removed.values {
            None if order.is_empty() => self.arrangement.advance(epoch)?,
            None => self.arrangement.insert(
                epoch,
                &Changes {
                    keys: &delta.stored,
                    order: &order,
                    values: &values,
                    diffs: diffs.as_deref(),
                },
            )?,
            Some(gone) => {
                let new = order.iter().map(|row| delta.stored.key(*row as usize));
                insert_mixed(
                    &mut self.arrangement,
                    epoch,
                    (new, &values, &order),
                    (&removed.keys, gone),
                )?;
            }
        }
        self.arrangement.set_live(self.live);
        Ok(changed)
    }

    /// Forgets the rows that the watermark has brought past their last match; how many.
    pub(super) fn expire(&mut self, now_us: i64) -> u64 {
        let gone = self.expiries.take(now_us);
        self.live = self.live.saturating_sub(gone);
        self.arrangement.set_live(self.live);
        self.arrangement.shape().expire(now_us);
        gone
    }
}

/// Inserts new rows (keys in order, values by row number) and takes others out, in one run.
pub(super) fn insert_mixed<'a>(
    arrangement: &mut Arrangement,
    epoch: u64,
    (keys, values, order): (impl Iterator<Item = &'a [u8]>, &RecordBatch, &[u32]),
    (gone_keys, gone): (&'a [Vec<u8>], &RecordBatch),
) -> Result<(), OperatorError> {
    let new = take_rows(values, &UInt32Array::from(order.to_vec()))?;
    let values = concat_batches(&arrangement.shape().values, [&new, gone])?;
    let mut encoded = Encoded {
        offsets: vec![0],
        bytes: Vec::new(),
    };
    for key in keys.chain(gone_keys.iter().map(Vec::as_slice)) {
        encoded.bytes.extend_from_slice(key);
        encoded.offsets.push(encoded.bytes.len());
    }
    let sorted = encoded.sorted();
    let diff = |row: &u32| if (*row as usize) < order.len() { 1 } else { -1 };
    let diffs: Vec<i64> = sorted.iter().map(diff).collect();
    let changes = Changes {
        keys: &encoded,
        order: &sorted,
        values: &values,
        diffs: Some(&diffs),
    };
    arrangement.insert(epoch, &changes)
}

pub(super) fn restore(
    arrangement: &mut Arrangement,
    state: &State,
    codec: &Codec,
    columns: std::ops::Range<usize>,
    (worker, peers): (usize, usize),
) -> Result<(), OperatorError> {
    let ownership = Ownership {
        codec,
        columns,
        worker,
        peers,
    };
    match &state.read {
        Some(read) => {
            let snapshots = read(&SchemaRef::clone(&arrangement.shape().values))?;
            arrangement.restore(&snapshots, &ownership)
        }
        None => arrangement.restore(&state.restore, &ownership),
    }
}

type Micros = TimestampMicrosecondType;

fn micros(time: &dyn PhysicalExpr, rows: &RecordBatch) -> Result<ArrayRef, OperatorError> {
    let times = time.evaluate(rows)?.into_array(rows.num_rows())?;
    match times.as_primitive_opt::<Micros>() {
        Some(_) => Ok(times),
        None => exec_err!(
            "event time in a join is a timestamp in microseconds, not {}",
            times.data_type()
        )?,
    }
}

/// Which rows have a time that the watermark has reached.
fn reached(
    time: &dyn PhysicalExpr,
    rows: &RecordBatch,
    watermark_us: i64,
) -> Result<Vec<bool>, OperatorError> {
    let times = micros(time, rows)?;
    let times = times.as_primitive::<Micros>().iter();
    let reached = times.map(|time| time.is_some_and(|us| us <= watermark_us));
    Ok(reached.collect())
}

/// The rows that stand for all equal ones, and their sums; `None` if all rows differ and count.
fn sums(keys: &Encoded, order: &[u32], diffs: &[i64]) -> Option<(UInt32Array, Vec<i64>)> {
    let same = |pair: &[u32]| keys.key(pair[0] as usize) == keys.key(pair[1] as usize);
    if !order.windows(2).any(same) && !diffs.contains(&0) {
        return None;
    }
    let (mut rows, mut sums): (Vec<u32>, Vec<i64>) = (Vec::new(), Vec::new());
    for equal in order.chunk_by(|a, b| same(&[*a, *b])) {
        let sum: i64 = equal.iter().map(|row| diffs[*row as usize]).sum();
        if sum != 0 {
            rows.push(equal[0]);
            sums.push(sum);
        }
    }
    Some((UInt32Array::from(rows), sums))
}

/// How many rows expire when.
#[derive(Default)]
struct Expiries {
    counts: BTreeMap<i64, i64>,
    /// Times are rounded up to a multiple of two to this power: counts of large states are late by a little.
    bits: u32,
}

/// Above this many times they are rounded.
const TIMES_MAX: usize = 1 << 14;

impl Expiries {
    fn rounded(&self, at: i64) -> i64 {
        let mask = (1_i64 << self.bits) - 1;
        at.checked_add(mask).map_or(i64::MAX, |at| at & !mask)
    }

    fn add(&mut self, at: i64, rows: i64) {
        if at == i64::MAX {
            return;
        }
        *self.counts.entry(self.rounded(at)).or_default() += rows;
        if self.counts.len() > TIMES_MAX {
            self.bits += 4;
            for (at, rows) in std::mem::take(&mut self.counts) {
                *self.counts.entry(self.rounded(at)).or_default() += rows;
            }
        }
    }

    /// Takes those that expire at `now` or before.
    fn take(&mut self, now: i64) -> u64 {
        let later = match now.checked_add(1) {
            Some(next) => self.counts.split_off(&next),
            None => BTreeMap::new(),
        };
        let gone = std::mem::replace(&mut self.counts, later);
        gone.into_values().sum::<i64>().max(0) as u64
    }
}

/// Columns of `rows` by row number.
pub(super) fn picked(
    rows: &RecordBatch,
    width: usize,
    numbers: &UInt32Array,
) -> Result<Vec<ArrayRef>, OperatorError> {
    let columns = rows.columns()[..width].iter();
    let columns = columns.map(|column| Ok(take(column, numbers, None)?));
    columns.collect()
}
