//! The owner of a key: merges an epoch's groups with their stored state.

use std::collections::BTreeMap;
use std::rc::Rc;

use arrow::array::{ArrayRef, AsArray, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{SchemaRef, UInt32Type, UInt64Type};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use timely::dataflow::operators::generic::OperatorInfo;

use super::calls::{Plan, conform};
use super::groups::{Groups, Spare, evaluate, sparse_accumulators, states};
use super::sliding::Sliding;
use super::spans::Asked;
use super::touched::TouchedWindows;
use super::{Emit, Panes, State, closing, partial, signed};
use crate::arrangement::{Arrangement, Changes, Found, Ownership, Shared, Snapshots};
use crate::epoch::Kernel;
use crate::exchange::{evaluate_keys, take_rows};
use crate::failure::guard;
use crate::keys::Encoded;
use crate::metrics::OperatorMeter;
use crate::watermark::Marks;
use crate::{Batch, OperatorError};

/// Rows of one output batch.
const OUTPUT_ROWS: usize = 8 << 10;

/// What has arrived of epochs that have not run.
enum Intake {
    /// Rows of the only worker, already in their groups.
    Groups(BTreeMap<u64, Groups>),
    /// Partial rows of all workers.
    Partials(BTreeMap<u64, Vec<RecordBatch>>, SchemaRef),
    /// Rows whose order matters.
    Ordered(BTreeMap<u64, Vec<RecordBatch>>),
}

pub(crate) struct Owner {
    plan: Rc<Plan>,
    intake: Intake,
    spare: Spare,
    arrangement: Arrangement,
    /// What is kept of panes to put windows together.
    sliding: Option<Sliding>,
    /// The windows that come out before they close, of panes.
    touched: Option<TouchedWindows>,
    snapshots: Snapshots,
    meter: OperatorMeter,
    /// Keys in the state.
    live: u64,
    worker: usize,
    peers: usize,
}

impl Owner {
    /// An owner, and whether its state could be restored.
    pub(crate) fn new(
        plan: Rc<Plan>,
        state: State,
        info: OperatorInfo,
        worker: usize,
        peers: usize,
    ) -> (Self, Result<(), OperatorError>) {
        let intake = if plan.ordered {
            Intake::Ordered(BTreeMap::new())
        } else if peers == 1 {
            Intake::Groups(BTreeMap::new())
        } else {
            Intake::Partials(BTreeMap::new(), partial::schema(&plan))
        };
        let ownership = Ownership {
            codec: &plan.codec,
            columns: plan.routed.clone(),
            worker,
            peers,
        };
        let (arrangement, restored) = state.arrange(&plan.state_schema, &ownership, info);
        let restored = restored.and_then(|()| {
            let sliding = Sliding::of(&plan, state.budget.clone())?;
            let touched = TouchedWindows::of(&plan)?;
            Ok((guard(|| arrangement.live())?, sliding, touched))
        });
        let ((live, sliding, touched), restored) = match restored {
            Ok(restored) => (restored, Ok(())),
            Err(error) => ((0, None, None), Err(error)),
        };
        let owner = Owner {
            plan,
            intake,
            spare: Spare::default(),
            arrangement,
            sliding,
            touched,
            snapshots: state.snapshots,
            meter: state.meter,
            live,
            worker,
            peers,
        };
        (owner, restored)
    }

    pub(crate) fn shared(&self) -> Shared {
        self.arrangement.shared()
    }
}

impl Kernel for Owner {
    fn absorb(&mut self, epoch: u64, _: usize, batch: Batch) -> Result<(), OperatorError> {
        match &mut self.intake {
            Intake::Groups(open) => {
                let rows = batch.into_rows(&self.plan.input.physical())?;
                let groups = match open.entry(epoch) {
                    std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                    std::collections::btree_map::Entry::Vacant(entry) => {
                        entry.insert(self.spare.take(&self.plan)?)
                    }
                };
                groups.update(&self.plan, &rows)
            }
            Intake::Partials(open, schema) => {
                let rows = batch.into_owned_rows(schema)?;
                open.entry(epoch).or_default().push(rows);
                Ok(())
            }
            Intake::Ordered(open) => {
                let rows = batch.into_owned_rows(&self.plan.input.physical())?;
                open.entry(epoch).or_default().push(rows);
                Ok(())
            }
        }
    }

    fn run(
        &mut self,
        epoch: u64,
        marks: Marks,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let plan = Rc::clone(&self.plan);
        let touched = match &mut self.intake {
            Intake::Groups(open) => open.remove(&epoch).map(Touched::Groups),
            Intake::Partials(open, _) => match open.remove(&epoch) {
                None => None,
                Some(partials) => {
                    let groups = combine(&plan, self.spare.take(&plan)?, partials)?;
                    Some(Touched::Groups(groups))
                }
            },
            Intake::Ordered(open) => match open.remove(&epoch) {
                None => None,
                Some(batches) => Some(Touched::Rows(in_order(&plan, &batches)?)),
            },
        };
        let global = plan.keys.is_empty() && self.worker == 0;
        let touched = match touched {
            None if global => {
                let mut groups = Groups::new(&plan)?;
                groups.ensure_global(&plan)?;
                Some(Touched::Groups(groups))
            }
            other => other,
        };
        let closes = plan.event_time && plan.emit != Emit::All;
        let before_us = closes.then(|| marks.before.saturating_mul(1_000));
        if let Some(windows) = &mut self.touched {
            windows.begin(&plan, &self.arrangement, before_us)?;
        }
        let meter = self.meter.clone();
        let (done, update_us) = meter.timed(|| match touched {
            None => self.arrangement.advance(epoch),
            Some(Touched::Groups(groups)) => self.finish_groups(epoch, groups, before_us, out),
            Some(Touched::Rows(rows)) => self.finish_rows(epoch, &rows, before_us, out),
        });
        done?;
        if plan.emit == Emit::All {
            match &self.sliding {
                Some(_) => self.emit_all_windows(out)?,
                None => self.emit_below(None, out).map(drop)?,
            }
        }
        if closes {
            let now_us = marks.now.saturating_mul(1_000);
            let panes = plan.panes.filter(|_| plan.stores_panes);
            let last_us = panes.map_or(now_us, |panes| panes.first_open(now_us) - 1);
            let bound = closing::bound(&plan, last_us)?;
            let (removed, remove_us) = meter.timed(|| {
                let removed = match (plan.emit, panes) {
                    (Emit::Closed, None) => self.emit_below(Some(&bound), out)?,
                    (Emit::Closed, Some(panes)) if before_us < Some(now_us) => {
                        let after_us = before_us.unwrap_or(0);
                        self.emit_windows(panes, after_us, now_us, out)?;
                        self.count_below(&bound)?
                    }
                    (Emit::Closed, Some(_)) => 0,
                    _ => self.count_below(&bound)?,
                };
                let windows = match (&mut self.touched, before_us) {
                    (Some(touched), Some(after_us)) => {
                        touched.close(&plan, &self.arrangement, after_us, now_us)?
                    }
                    _ => removed,
                };
                self.arrangement.forget_below(&bound);
                Ok::<_, OperatorError>((removed, windows))
            });
            let (removed, windows) = removed?;
            self.live -= removed;
            self.arrangement.set_live(self.live);
            meter.count(epoch, |counts| {
                counts.rows_removed += windows;
                counts.remove_us += remove_us;
            });
        }
        let (worker, peers) = (self.worker, self.peers);
        let ((), commit_us) = meter.timed(|| {
            self.snapshots
                .offer(epoch, || self.arrangement.snapshot(worker, peers));
        });
        let kept = self.sliding.as_ref().map_or(0, Sliding::bytes);
        meter.count(epoch, |counts| {
            counts.update_us += update_us;
            counts.commit_us += commit_us;
            counts.rows_total = self
                .touched
                .as_ref()
                .map_or(self.live, TouchedWindows::windows);
            counts.bytes = self.arrangement.bytes() + kept;
        });
        Ok(())
    }
}

/// What an epoch brought.
enum Touched {
    Groups(Groups),
    /// Rows in source order.
    Rows(RecordBatch),
}

/// Groups the partial rows of all workers, in the order of the workers.
fn combine(
    plan: &Plan,
    mut groups: Groups,
    mut partials: Vec<RecordBatch>,
) -> Result<Groups, OperatorError> {
    let from = |rows: &RecordBatch| {
        let from = rows
            .column(rows.num_columns() - 1)
            .as_primitive::<UInt32Type>();
        from.values().first().copied()
    };
    // Stable: batches of one worker stay in the order in which it sent them.
    partials.sort_by_key(from);
    for rows in partials {
        let (keys, rest) = rows.columns().split_at(plan.keys.len());
        groups.intern(keys, rows.num_rows())?;
        groups.merge_interned(plan, &rest[..rest.len() - 1])?;
    }
    Ok(groups)
}

/// All rows of an epoch in source order. Rows that one source row was exploded into share their place and stay as they
/// came.
fn in_order(plan: &Plan, batches: &[RecordBatch]) -> Result<RecordBatch, OperatorError> {
    let rows = concat_batches(&plan.input.physical(), batches)?;
    let index = plan
        .input
        .order_index()
        .expect("checked when the plan was made");
    let places = rows.column(index).as_primitive::<UInt64Type>().values();
    if places.is_sorted() {
        return Ok(rows);
    }
    let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
    order.sort_by_key(|row| places[*row as usize]);
    Ok(take_rows(&rows, &UInt32Array::from(order))?)
}

/// The touched groups in key order, with what is stored of them.
pub(super) struct Lookup {
    pub(super) keys: Vec<ArrayRef>,
    pub(super) encoded: Encoded,
    /// Groups in ascending order of their keys.
    pub(super) order: Vec<u32>,
    /// State columns found, and the group of each of their rows.
    pub(super) stored: Vec<ArrayRef>,
    pub(super) stored_groups: Vec<usize>,
}

impl Owner {
    fn look_up(&self, keys: Vec<ArrayRef>, groups: usize) -> Result<Lookup, OperatorError> {
        let encoded = self.plan.codec.encode(&keys, groups)?;
        let order = encoded.sorted();
        let probes = order.iter().map(|group| encoded.key(*group as usize));
        let found: Found = self.arrangement.probe(probes)?;
        let mut stored = Vec::new();
        for column in 0..self.plan.state_schema.fields().len() {
            stored.extend(found.column(column)?);
        }
        let stored_groups = found.keys.iter().map(|key| order[*key as usize] as usize);
        Ok(Lookup {
            stored_groups: stored_groups.collect(),
            stored,
            keys,
            encoded,
            order,
        })
    }

    fn finish_groups(
        &mut self,
        epoch: u64,
        mut groups: Groups,
        before_us: Option<i64>,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let plan = Rc::clone(&self.plan);
        let mut keys = groups.take_keys()?;
        if let Some(settled) = closing::settle(&plan, &keys, before_us)? {
            self.meter.late(epoch, settled.late);
            let states = groups.take_states(&plan)?;
            let states = take_rows(&states, &settled.rows)?;
            groups.intern(&settled.keys, settled.rows.len())?;
            groups.merge_interned(&plan, states.columns())?;
            keys = groups.take_keys()?;
        }
        let len = groups.len();
        let lookup = self.look_up(keys, len)?;
        if !lookup.stored_groups.is_empty() {
            groups.merge(&plan, &lookup.stored, &lookup.stored_groups)?;
        }
        let states = groups.take_states(&plan)?;
        self.spare.put(groups, len);
        self.store(epoch, lookup, &states, before_us, out)
    }

    /// Like `finish_groups` for rows in source order: what is stored comes first.
    fn finish_rows(
        &mut self,
        epoch: u64,
        rows: &RecordBatch,
        before_us: Option<i64>,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let plan = Rc::clone(&self.plan);
        let mut keys = evaluate_keys(&plan.keys, rows)?;
        let mut settled_rows = None;
        if let Some(settled) = closing::settle(&plan, &keys, before_us)? {
            self.meter.late(epoch, settled.late);
            settled_rows = Some(take_rows(rows, &settled.rows)?);
            keys = settled.keys;
        }
        let rows = &plan.seen(settled_rows.as_ref().unwrap_or(rows), epoch)?;
        let mut table = Groups::new(&plan)?;
        table.intern(&keys, rows.num_rows())?;
        let count = table.len();
        let indices = table.indices().to_vec();
        let lookup = self.look_up(table.take_keys()?, count)?;
        let mut accumulators = sparse_accumulators(&plan, count)?;
        if !lookup.stored_groups.is_empty() {
            let stored = plan.split_states(&lookup.stored);
            for (accumulator, stored) in accumulators.iter_mut().zip(stored) {
                accumulator.merge_batch(stored, &lookup.stored_groups, count)?;
            }
        }
        for (call, accumulator) in plan.calls.iter().zip(&mut accumulators) {
            if count == 0 {
                break; // all rows are late, and some accumulators have no state before their first group
            }
            if call.sort.is_empty() {
                let (arguments, filter) = call.arguments(rows)?;
                accumulator.update_batch(&arguments, &indices, filter.as_ref(), count)?;
                continue;
            }
            // With an ORDER BY inside, new rows may belong before stored ones: merging two states interleaves them,
            // adding rows to a state would not.
            let (rows, indices) = call.sorted(rows, &indices)?;
            let mut fresh = call.accumulator()?;
            let (arguments, filter) = call.arguments(&rows)?;
            fresh.update_batch(&arguments, &indices, filter.as_ref(), count)?;
            let state = fresh.state(datafusion::logical_expr::EmitTo::All)?;
            let all: Vec<usize> = (0..count).collect();
            accumulator.merge_batch(&state, &all, count)?;
        }
        let states = states(&plan, &mut accumulators, count)?;
        self.store(epoch, lookup, &states, before_us, out)
    }

    /// Inserts new state rows, one per group, and emits their answers.
    fn store(
        &mut self,
        epoch: u64,
        lookup: Lookup,
        states: &RecordBatch,
        before_us: Option<i64>,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let emit = self.plan.emit;
        let around = match &self.touched {
            Some(touched) if emit != Emit::All => {
                let asked = Asked {
                    panes: lookup.keys.clone(),
                    after_us: before_us,
                };
                Some(touched.around(&self.plan, &self.arrangement, asked)?)
            }
            _ => None,
        };
        let gone = signed::gone(&self.plan, states)?;
        let lives = gone.as_ref().map(|gone| {
            let lives = lookup.order.iter().map(|group| !gone[*group as usize]);
            lives.map(i64::from).collect::<Vec<i64>>()
        });
        let changes = Changes {
            keys: &lookup.encoded,
            order: &lookup.order,
            values: states,
            diffs: lives.as_deref(),
        };
        self.arrangement.insert(epoch, &changes)?;
        if let Some(sliding) = &mut self.sliding {
            sliding.changed(&self.plan, &lookup, states)?;
        }
        let groups = lookup.order.len() as u64;
        let left = lives.iter().flatten().filter(|lives| **lives == 0).count() as u64;
        self.live = (self.live + groups - left) - lookup.stored_groups.len() as u64;
        self.arrangement.set_live(self.live);
        let updated = match &self.touched {
            Some(touched) => touched.updated(&self.plan, &lookup, before_us)?,
            None => groups,
        };
        self.meter
            .count(epoch, |counts| counts.rows_updated += updated);
        if let (Some(touched), Some(around)) = (&mut self.touched, around) {
            let rows = touched.changed(&self.plan, &self.arrangement, around)?;
            return rows.map_or(Ok(()), |rows| cut(&rows, out));
        }
        match emit {
            Emit::Changed => {}
            Emit::Signed => {
                let changed = signed::changes(&self.plan, &lookup, states, gone.as_deref())?;
                return changed.map_or(Ok(()), |rows| cut(&rows, out));
            }
            Emit::All | Emit::Closed => return Ok(()),
        }
        let mut columns = lookup.keys;
        columns.extend(evaluate(&self.plan, states)?);
        let mut order = lookup.order;
        if let Some(gone) = gone {
            order.retain(|group| !gone[*group as usize]);
        }
        let order = UInt32Array::from(order);
        let columns = columns
            .iter()
            .map(|column| Ok(take(column, &order, None)?))
            .collect::<Result<Vec<ArrayRef>, OperatorError>>()?;
        self.emit(columns, order.len(), out)
    }

    /// Emits the windows that end after `after_us` and not after `now_us`, put together of panes.
    fn emit_windows(
        &mut self,
        panes: Panes,
        after_us: i64,
        now_us: i64,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let plan = Rc::clone(&self.plan);
        if let Some(mut sliding) = self.sliding.take() {
            let has_room = sliding.has_room(&self.arrangement);
            let anew = !has_room && sliding.rounds;
            let mut emit = |columns, rows| self.emit(columns, rows, out);
            if has_room {
                sliding.close(&plan, &self.arrangement, after_us, now_us, &mut emit)?;
            } else if anew {
                sliding.close_anew(&plan, &self.arrangement, after_us, now_us, &mut emit)?;
            }
            self.sliding = Some(sliding);
            if has_room || anew {
                return Ok(());
            }
        }
        match closing::put_together(&plan, &self.arrangement, panes, after_us, now_us)? {
            None => Ok(()),
            Some((columns, count)) => self.emit(columns, count, out),
        }
    }

    /// Emits all windows there are, put together of panes.
    fn emit_all_windows(&mut self, out: &mut dyn FnMut(RecordBatch)) -> Result<(), OperatorError> {
        let plan = Rc::clone(&self.plan);
        let Some(mut sliding) = self.sliding.take() else {
            return Ok(());
        };
        let mut windows = 0;
        let mut emit = |columns, rows| {
            windows += rows as u64;
            self.emit(columns, rows, out)
        };
        sliding.all(&plan, &self.arrangement, &mut emit)?;
        self.sliding = Some(sliding);
        if let Some(touched) = &mut self.touched {
            touched.set_windows(windows);
        }
        Ok(())
    }

    /// How many groups there are below `bound`.
    fn count_below(&self, bound: &[u8]) -> Result<u64, OperatorError> {
        self.arrangement.scan(&[], Some(bound))?.count()
    }

    /// Emits the groups below `bound`, or all, in key order. How many they are.
    fn emit_below(
        &mut self,
        bound: Option<&[u8]>,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<u64, OperatorError> {
        let mut scan = self.arrangement.scan(&[], bound)?;
        let mut groups = 0;
        while let Some(chunk) = scan.next_chunk(OUTPUT_ROWS)? {
            groups += chunk.len() as u64;
            let mut columns = self.plan.codec.decode(chunk.keys())?;
            columns.extend(evaluate(&self.plan, chunk.values())?);
            self.emit(columns, chunk.len(), out)?;
        }
        Ok(groups)
    }

    fn emit(
        &self,
        columns: Vec<ArrayRef>,
        rows: usize,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let schema = SchemaRef::clone(&self.plan.output);
        let types = schema
            .fields()
            .iter()
            .map(|field| field.data_type().clone());
        let columns = conform(columns, types)?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let rows = RecordBatch::try_new_with_options(SchemaRef::clone(&schema), columns, &options)?;
        cut(&rows, out)
    }
}

/// Emits `rows` in batches of the usual size.
fn cut(rows: &RecordBatch, out: &mut dyn FnMut(RecordBatch)) -> Result<(), OperatorError> {
    for start in (0..rows.num_rows()).step_by(OUTPUT_ROWS) {
        out(rows.slice(start, OUTPUT_ROWS.min(rows.num_rows() - start)));
    }
    Ok(())
}
