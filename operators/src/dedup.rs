//! Keeps the first row of each key.
//!
//! Across epochs the earlier one wins; within an epoch the row that stands first in the source, or, where the edge below
//! knows no order, the row whose bytes are smallest. So which row is the first does not depend on the number of workers
//! or on how rows are batched. First rows come out in the epoch that brings them and never change.
//!
//! State: one row for each key seen. It is forgotten by range if event time is the first key; by a deadline, its first
//! event time plus the delay, if duplicates only count for so long; never otherwise.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, UInt64Type};
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;
use timely::dataflow::operators::generic::OperatorInfo;

use crate::aggregate::{State, bound_of, micros, refuse};
use crate::arrangement::{Arrangement, Changes, Ownership, Shared, Snapshots};
use crate::deadlines::{Deadlines, no_values, values};
use crate::epoch::{Input, Kernel, Travel, run_inputs};
use crate::exchange::{self, evaluate_keys, take_rows};
use crate::intake::Intake;
use crate::keys::{Codec, Encoded};
use crate::metrics::OperatorMeter;
use crate::places::{Places, RowOrder};
use crate::watermark::{Marks, Watermarks};
use crate::{Batch, Edge, Failure, OperatorError, Rows, wire};

/// Keys read at once.
const CHUNK_ROWS: usize = 16 << 10;

/// What to keep the first rows of.
#[derive(Debug, Clone)]
pub struct Deduplication {
    /// Names the state in checkpoints, unique within the query.
    pub name: String,
    /// What makes rows duplicates of each other, over the visible columns of the input.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    /// Event time: rows at or before the watermark are late.
    pub event_time: Option<Arc<dyn PhysicalExpr>>,
    /// When a key is forgotten.
    pub forget: Forget,
}

/// When a key is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forget {
    /// Never.
    Never,
    /// When the watermark reaches the first key, which is event time; never where that is null.
    FirstKey,
    /// When the watermark reaches the event time of its first row plus this. A null event time is 1970-01-01, where
    /// watermarks start: such a row hides its duplicates for an epoch, not all that ever come.
    After {
        /// The delay.
        delay_us: i64,
    },
}

/// First rows, and what is kept of them.
pub struct Deduplicated<'s> {
    /// The rows.
    pub rows: Rows<'s>,
    /// The keys seen; `None` if the deduplication was refused.
    pub keys: Option<Shared>,
    /// The keys by their deadlines, if they have one.
    pub deadlines: Option<Shared>,
}

/// Passes on the first row of each key. `deadlines` is the second part of the state, used with [`Forget::After`].
pub fn deduplicate<'s>(
    rows: Rows<'s>,
    deduplication: Deduplication,
    watermarks: Option<Watermarks<'s>>,
    state: State,
    deadlines: State,
    failure: &Failure,
) -> Deduplicated<'s> {
    let edge = rows.edge.clone();
    let start = state.first_epoch();
    let plan = match Plan::new(&edge, deduplication) {
        Ok(plan) => plan,
        Err(error) => {
            failure.set(start, error);
            return Deduplicated {
                rows: refuse(rows, edge),
                keys: None,
                deadlines: None,
            };
        }
    };
    let scope = rows.stream.scope();
    let place = (scope.index(), scope.peers());
    let name = plan.name.clone();
    let (stream, travel) = if place.1 == 1 {
        (rows.stream, Travel::Stay)
    } else {
        let by_key = exchange::route_by_keys(plan.keys.clone());
        let stream = exchange::address(rows.stream, &edge, &name, failure, by_key);
        (stream, Travel::Addressed)
    };
    let input = Input { stream, travel };
    let (mut keys, mut due) = (None, None);
    let stream = run_inputs(&name, vec![input], watermarks, start, failure, |info| {
        let (kernel, restored) = Firsts::new(plan, &state, &deadlines, info, place);
        if let Err(error) = restored {
            failure.set(start, error);
        }
        keys = Some(kernel.arrangement.shared());
        due = kernel.deadlines.as_ref().map(Deadlines::shared);
        kernel
    });
    Deduplicated {
        rows: Rows { stream, edge },
        keys,
        deadlines: due,
    }
}

/// A deduplication made ready to run.
struct Plan {
    name: String,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    event_time: Option<Arc<dyn PhysicalExpr>>,
    forget: Forget,
    input: Edge,
    codec: Codec,
    order: RowOrder,
}

impl Plan {
    fn new(input: &Edge, deduplication: Deduplication) -> Result<Self, OperatorError> {
        if input.signed {
            let text = "dropping duplicates of rows that can be retracted is not supported yet";
            return Err(OperatorError::Other(text.into()));
        }
        let Deduplication {
            name,
            keys,
            event_time,
            forget,
        } = deduplication;
        let flat = |data_type: DataType| wire::flat_type(&data_type).unwrap_or(data_type);
        let types = keys
            .iter()
            .map(|key| Ok(flat(key.data_type(&input.rows)?)))
            .collect::<Result<Vec<DataType>, OperatorError>>()?;
        let codec = match forget {
            Forget::FirstKey => Codec::nulls_last(types)?,
            Forget::Never | Forget::After { .. } => Codec::new(types)?,
        };
        if event_time.is_none() && matches!(forget, Forget::After { .. }) {
            let text = "duplicates that count for some time only need an event time";
            return Err(OperatorError::Other(text.into()));
        }
        Ok(Plan {
            name,
            keys,
            event_time,
            forget,
            input: input.clone(),
            codec,
            order: RowOrder::of(input)?,
        })
    }

    /// The rows of an epoch, late ones left out, and how many those were.
    fn on_time(
        &self,
        batches: &[RecordBatch],
        before_us: i64,
    ) -> Result<(RecordBatch, u64), OperatorError> {
        let rows = concat_batches(&self.input.physical(), batches)?;
        let Some(at) = &self.event_time else {
            return Ok((rows, 0));
        };
        let times = at.evaluate(&rows)?.into_array(rows.num_rows())?;
        let times = micros(&times)?;
        let keep: BooleanArray = (0..times.len())
            .map(|row| Some(times.is_null(row) || times.value(row) > before_us))
            .collect();
        let late = (keep.len() - keep.true_count()) as u64;
        if late > 0 {
            return Ok((filter_record_batch(&rows, &keep)?, late));
        }
        Ok((rows, 0))
    }

    /// Of each key the row that comes first, in ascending order of the keys.
    fn firsts(&self, rows: &RecordBatch, keys: &Encoded) -> Result<Vec<u32>, OperatorError> {
        let order = keys.sorted();
        let mut firsts = Vec::with_capacity(order.len());
        let mut places: Option<Places<'_>> = None;
        let mut start = 0;
        while start < order.len() {
            let key = keys.key(order[start] as usize);
            let mut end = start + 1;
            while end < order.len() && keys.key(order[end] as usize) == key {
                end += 1;
            }
            let mut first = order[start];
            if end - start > 1 {
                let places = match &mut places {
                    Some(places) => places,
                    none => none.insert(self.order.places(rows)?),
                };
                for row in &order[start + 1..end] {
                    if places.before(*row, first) {
                        first = *row;
                    }
                }
            }
            firsts.push(first);
            start = end;
        }
        Ok(firsts)
    }
}

/// The owner of a key.
struct Firsts {
    plan: Plan,
    intake: Intake,
    arrangement: Arrangement,
    deadlines: Option<Deadlines>,
    snapshots: Snapshots,
    meter: OperatorMeter,
    /// Keys in the state.
    live: u64,
    place: (usize, usize),
}

impl Firsts {
    fn new(
        plan: Plan,
        state: &State,
        deadlines: &State,
        info: OperatorInfo,
        place: (usize, usize),
    ) -> (Self, Result<(), OperatorError>) {
        let ownership = Ownership {
            codec: &plan.codec,
            columns: 0..plan.keys.len(),
            worker: place.0,
            peers: place.1,
        };
        let (arrangement, restored) = state.arrange(&values(), &ownership, info.clone());
        let (deadlines, due) = match plan.forget {
            Forget::After { .. } => {
                let (deadlines, restored) =
                    Deadlines::new(plan.codec.types(), deadlines, info, place);
                (Some(deadlines), restored)
            }
            Forget::Never | Forget::FirstKey => (None, Ok(())),
        };
        let live = restored.and(due).and_then(|()| arrangement.live());
        let (live, restored) = match live {
            Ok(live) => (live, Ok(())),
            Err(error) => (0, Err(error)),
        };
        let firsts = Firsts {
            intake: Intake::new(plan.input.physical()),
            plan,
            arrangement,
            deadlines,
            snapshots: state.snapshots.clone(),
            meter: state.meter.clone(),
            live,
            place,
        };
        (firsts, restored)
    }
}

impl Kernel for Firsts {
    fn absorb(&mut self, epoch: u64, _: usize, batch: Batch) -> Result<(), OperatorError> {
        self.intake.absorb(epoch, batch)
    }

    fn run(
        &mut self,
        epoch: u64,
        marks: Marks,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let now_us = marks.now.saturating_mul(1_000);
        let before_us = marks.before.saturating_mul(1_000);
        let batches = self.intake.take(epoch);
        let meter = self.meter.clone();
        let (done, update_us) = meter.timed(|| {
            let (rows, late) = self.plan.on_time(&batches, before_us)?;
            self.meter.late(epoch, late);
            self.take(epoch, &rows, now_us, out)
        });
        done?;
        let (forgotten, remove_us) = meter.timed(|| self.forget(now_us));
        let forgotten = forgotten?;
        self.live -= forgotten;
        self.arrangement.set_live(self.live);
        let (worker, peers) = self.place;
        let ((), commit_us) = meter.timed(|| {
            self.snapshots
                .offer(epoch, || self.arrangement.snapshot(worker, peers));
        });
        let bytes = self.arrangement.bytes() + self.deadlines.as_ref().map_or(0, Deadlines::bytes);
        meter.count(epoch, |counts| {
            counts.rows_removed += forgotten;
            counts.update_us += update_us;
            counts.remove_us += remove_us;
            counts.commit_us += commit_us;
            counts.rows_total = self.live;
            counts.bytes = bytes;
        });
        Ok(())
    }
}

impl Firsts {
    /// Emits the rows whose keys are new, and keeps their keys.
    fn take(
        &mut self,
        epoch: u64,
        rows: &RecordBatch,
        now_us: i64,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let keys = evaluate_keys(&self.plan.keys, rows)?;
        let keys = self.plan.codec.encode(&keys, rows.num_rows())?;
        let mut new = self.plan.firsts(rows, &keys)?;
        let found = self
            .arrangement
            .probe(new.iter().map(|row| keys.key(*row as usize)))?;
        if !found.keys.is_empty() {
            let mut known = found.keys.iter().peekable();
            let mut index = 0;
            new.retain(|_| {
                let is_known = known.next_if(|key| **key == index).is_some();
                index += 1;
                !is_known
            });
        }
        self.emit(rows, &new, out)?;
        self.meter
            .count(epoch, |counts| counts.rows_updated += new.len() as u64);
        match self.plan.forget {
            Forget::After { delay_us } => {
                self.keep_until(epoch, rows, &keys, &new, delay_us, now_us)
            }
            Forget::Never | Forget::FirstKey => {
                self.live += new.len() as u64;
                if new.is_empty() {
                    return self.arrangement.advance(epoch);
                }
                let changes = Changes {
                    keys: &keys,
                    order: &new,
                    values: &no_values(rows.num_rows())?,
                    diffs: None,
                };
                self.arrangement.insert(epoch, &changes)
            }
        }
    }

    fn emit(
        &self,
        rows: &RecordBatch,
        new: &[u32],
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        if new.len() == rows.num_rows() && self.plan.input.ordered {
            out(rows.clone());
            return Ok(());
        }
        let mut new = new.to_vec();
        if let Some(index) = self.plan.input.order_index() {
            let places = rows.column(index).as_primitive::<UInt64Type>().values();
            new.sort_unstable_by_key(|row| (places[*row as usize], *row));
        }
        out(take_rows(rows, &UInt32Array::from(new))?);
        Ok(())
    }

    /// Keeps the keys of the `new` rows, each until its deadline, and gives up those whose deadline has come: a key that
    /// is due in the epoch that brings it is not even kept.
    fn keep_until(
        &mut self,
        epoch: u64,
        rows: &RecordBatch,
        keys: &Encoded,
        new: &[u32],
        delay_us: i64,
        now_us: i64,
    ) -> Result<(), OperatorError> {
        let (Some(deadlines), Some(at)) = (&mut self.deadlines, &self.plan.event_time) else {
            unreachable!("deadlines come with an event time");
        };
        let times = at.evaluate(rows)?.into_array(rows.num_rows())?;
        let times = micros(&times)?;
        let expires = |row: u32| {
            let row = row as usize;
            let at_us = if times.is_valid(row) {
                times.value(row)
            } else {
                0
            };
            at_us.saturating_add(delay_us)
        };
        let due = deadlines.due(now_us)?;
        let kept = new.iter().copied().filter(|row| expires(*row) > now_us);
        let kept: Vec<u32> = kept.collect();
        // Both ascend and have no key in common: what is due was known, what is new was not.
        let mut merged = Encoded {
            offsets: vec![0],
            bytes: Vec::new(),
        };
        let mut diffs = Vec::new();
        let mut put = |key: &[u8], diff: i64| {
            merged.bytes.extend_from_slice(key);
            merged.offsets.push(merged.bytes.len());
            diffs.push(diff);
        };
        let mut gone = due.iter().peekable();
        for row in &kept {
            let key = keys.key(*row as usize);
            while let Some(key) = gone.next_if(|due| due.as_slice() < key) {
                put(key, 0);
            }
            put(key, 1);
        }
        gone.for_each(|key| put(key, 0));
        self.live += kept.len() as u64;
        self.live -= due.len() as u64;
        self.meter
            .count(epoch, |counts| counts.rows_removed += due.len() as u64);
        let order: Vec<u32> = (0..diffs.len() as u32).collect();
        if order.is_empty() {
            self.arrangement.advance(epoch)?;
        } else {
            let changes = Changes {
                keys: &merged,
                order: &order,
                values: &no_values(diffs.len())?,
                diffs: Some(&diffs),
            };
            self.arrangement.insert(epoch, &changes)?;
        }
        let promised = kept
            .iter()
            .map(|row| (expires(*row), keys.key(*row as usize)));
        deadlines.run(epoch, promised, now_us)
    }

    /// Forgets the keys that the watermark has reached by their first column; how many there were.
    fn forget(&mut self, now_us: i64) -> Result<u64, OperatorError> {
        if self.plan.forget != Forget::FirstKey {
            return Ok(0);
        }
        let bound = bound_of(self.plan.codec.types()[0].clone(), now_us)?;
        let mut scan = self.arrangement.scan(&[], Some(&bound))?;
        let mut forgotten = 0;
        while let Some(chunk) = scan.next_chunk(CHUNK_ROWS)? {
            forgotten += chunk.len() as u64;
        }
        self.arrangement.forget_below(&bound);
        Ok(forgotten)
    }
}
