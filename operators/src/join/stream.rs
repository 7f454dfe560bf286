//! Joins two streams.
//!
//! Rows of both sides go to the owner of their key and stay there. In an epoch the new rows of the left side look for
//! partners among all of the right one, the new ones included, and then the new rows of the right side among those of the
//! left one before the epoch: each pair is found once.
//!
//! Where only final rows may come out ([`final_rows`](super::final_rows)), a row that comes out alone because it has no partner waits until
//! the watermark says that none will come. Where rows may leave again ([`changes`](super::changes)), it comes at once and leaves when it finds
//! one.

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, new_null_array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::physical_expr::PhysicalExpr;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;
use timely::dataflow::operators::generic::OperatorInfo;

use super::keys::JoinKey;
use super::pending::Pending;
use super::side::{Delta, Layout, Side, Times};
use crate::aggregate::State;
use crate::arrangement::{Shared, Snapshots};
use crate::epoch::{Input, Kernel, Travel, run_inputs};
use crate::metrics::OperatorMeter;
use crate::watermark::{Marks, Watermarks};
use crate::{Batch, BatchBuilder, Edge, Failure, OperatorError, Rows, exchange};

/// Which rows come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    /// Pairs.
    Inner,
    /// Pairs, and left rows without a partner with nulls.
    Left,
    /// Pairs, and right rows without a partner with nulls.
    Right,
    /// Pairs, and rows of both sides without a partner with nulls.
    Full,
    /// Left rows that have a partner.
    LeftSemi,
    /// Left rows that have none.
    LeftAnti,
}

impl JoinKind {
    /// Whether pairs come out.
    pub(super) fn has_pairs(self) -> bool {
        !matches!(self, JoinKind::LeftSemi | JoinKind::LeftAnti)
    }

    /// Whether rows of a side (0: left) that have no partner come out.
    pub fn keeps(self, side: usize) -> bool {
        match self {
            JoinKind::Inner | JoinKind::LeftSemi => false,
            JoinKind::Left | JoinKind::LeftAnti => side == 0,
            JoinKind::Right => side == 1,
            JoinKind::Full => true,
        }
    }
}

/// How two streams are joined.
#[derive(Debug, Clone)]
pub struct StreamJoin {
    /// Names the state in checkpoints, unique within the query.
    pub name: String,
    /// Which rows come out.
    pub kind: JoinKind,
    /// What must be equal. Without keys all rows go to one worker.
    pub keys: Vec<JoinKey>,
    /// For each side a condition over its columns; a row for which it is not true has no partner.
    pub eligible: [Option<Arc<dyn PhysicalExpr>>; 2],
    /// What else a pair must satisfy, over the columns of both sides.
    pub condition: Option<Arc<dyn PhysicalExpr>>,
    /// The columns of both sides.
    pub both: SchemaRef,
    /// The columns that come out.
    pub schema: SchemaRef,
    /// What is known of the event times of each side.
    pub times: [Times; 2],
    /// True if only rows come out that never leave again; then none comes in that does.
    pub is_final: bool,
}

impl StreamJoin {
    /// True if rows that came out may leave again, for inputs that are `signed`.
    pub fn is_signed(&self, signed: [bool; 2]) -> bool {
        let corrects = self.kind.keeps(0) || self.kind.keeps(1);
        !self.is_final && (corrects || signed.contains(&true))
    }

    /// True if rows of a side wait for the watermark.
    fn waits(&self, side: usize) -> bool {
        self.is_final && self.kind.keeps(side) && self.times[side].last_match.is_some()
    }

    /// The names of its states.
    pub fn states(&self) -> Vec<String> {
        let name = &self.name;
        let mut names = vec![format!("{name}-left"), format!("{name}-right")];
        for (side, word) in ["left", "right"].into_iter().enumerate() {
            if self.waits(side) {
                names.push(format!("{name}-{word}-waiting"));
            }
        }
        names
    }
}

/// A join and its states, in the order of [`StreamJoin::states`].
pub struct Joined<'s> {
    /// What comes out.
    pub rows: Rows<'s>,
    /// For other dataflows and for checkpoints.
    pub states: Vec<JoinState>,
}

/// One state of a join.
pub struct JoinState {
    /// Its name.
    pub name: String,
    /// Where snapshots are asked for and found.
    pub snapshots: Snapshots,
    /// Its rows; `None` if the join was refused.
    pub arrangement: Option<Shared>,
}

/// Joins `left` with `right`. `state` gives each state by its name; `meter` counts for all.
pub fn join_streams<'s>(
    [left, right]: [Rows<'s>; 2],
    how: StreamJoin,
    watermarks: Option<Watermarks<'s>>,
    state: impl Fn(&str) -> State,
    meter: OperatorMeter,
    failure: &Failure,
) -> Joined<'s> {
    let edges = [left.edge.clone(), right.edge.clone()];
    let edge = Edge {
        signed: how.is_signed([edges[0].signed, edges[1].signed]),
        ..Edge::plain(SchemaRef::clone(&how.schema))
    };
    let names = how.states();
    let states: Vec<State> = names.iter().map(|name| state(name)).collect();
    let start = states[0].first_epoch();
    let mut offered: Vec<JoinState> = names
        .iter()
        .zip(&states)
        .map(|(name, state)| JoinState {
            name: name.clone(),
            snapshots: state.snapshots.clone(),
            arrangement: None,
        })
        .collect();
    let layouts = match how.layouts(&edges) {
        Ok(layouts) => layouts,
        Err(error) => {
            failure.set(start, error);
            let stream = refuse(left.stream);
            let rows = Rows { stream, edge };
            return Joined {
                rows,
                states: offered,
            };
        }
    };
    let scope = left.stream.scope();
    let place = (scope.index(), scope.peers());
    let inputs = [left, right].into_iter().enumerate().map(|(side, rows)| {
        if place.1 == 1 {
            let (stream, travel) = (rows.stream, Travel::Stay);
            return Input { stream, travel };
        }
        let by_key = exchange::route_by_keys(how.side_keys(side));
        Input {
            stream: exchange::address(rows.stream, &rows.edge, &how.name, failure, by_key),
            travel: Travel::Addressed,
        }
    });
    let (name, inputs) = (how.name.clone(), inputs.collect());
    let stream = run_inputs(&name, inputs, watermarks, start, failure, |info| {
        let (join, restored) = Join::new(how, edge.clone(), layouts, states, info, meter, place);
        if let Err(error) = restored {
            failure.set(start, error);
        }
        for (offered, arrangement) in offered.iter_mut().zip(join.arrangements()) {
            offered.arrangement = Some(arrangement);
        }
        join
    });
    Joined {
        rows: Rows { stream, edge },
        states: offered,
    }
}

/// A stream without rows that still tells its frontier.
fn refuse(stream: Stream<'_, u64, Batch>) -> Stream<'_, u64, Batch> {
    stream.unary::<BatchBuilder, _, _, _>(Pipeline, "Refused", |_, _| {
        |input, _output| input.for_each(|_, _| {})
    })
}

impl StreamJoin {
    fn side_keys(&self, side: usize) -> Vec<Arc<dyn PhysicalExpr>> {
        let keys = self.keys.iter();
        let key = |key: &JoinKey| Arc::clone(if side == 0 { &key.left } else { &key.right });
        keys.map(key).collect()
    }

    fn layouts(&self, edges: &[Edge; 2]) -> Result<[Rc<Layout>; 2], OperatorError> {
        let layout = |side: usize| {
            Layout::new(
                edges[side].clone(),
                self.side_keys(side),
                self.keys.iter().map(|key| key.null_safe).collect(),
                self.eligible[side].clone(),
                self.times[side].clone(),
            )
        };
        Ok([Rc::new(layout(0)?), Rc::new(layout(1)?)])
    }

    /// Whether streams with these edges can be joined: an error names what cannot be kept.
    pub fn check(&self, edges: &[Edge; 2]) -> Result<(), OperatorError> {
        self.layouts(edges).map(|_| ())
    }
}

pub(super) struct Join {
    pub(super) how: StreamJoin,
    /// What comes out.
    pub(super) output: SchemaRef,
    pub(super) signed: bool,
    pub(super) sides: [Side; 2],
    pub(super) pending: [Option<Pending>; 2],
    snapshots: Vec<Snapshots>,
    meter: OperatorMeter,
    place: (usize, usize),
}

impl Join {
    fn new(
        how: StreamJoin,
        edge: Edge,
        layouts: [Rc<Layout>; 2],
        states: Vec<State>,
        info: OperatorInfo,
        meter: OperatorMeter,
        place: (usize, usize),
    ) -> (Self, Result<(), OperatorError>) {
        let mut restored = Ok(());
        let mut note = |result: Result<(), OperatorError>| {
            if let (Ok(()), Err(error)) = (&restored, result) {
                restored = Err(error);
            }
        };
        let sides = [0, 1].map(|side| {
            let layout = Rc::clone(&layouts[side]);
            let (side, result) = Side::new(layout, &states[side], info.clone(), place);
            note(result);
            side
        });
        let mut rest = states.iter().skip(2);
        let pending = [0, 1].map(|side| {
            let state = if how.waits(side) { rest.next() } else { None }?;
            let layout = Rc::clone(&layouts[side]);
            match Pending::new(layout, state, info.clone(), place) {
                Ok((pending, result)) => {
                    note(result);
                    Some(pending)
                }
                Err(error) => {
                    note(Err(error));
                    None
                }
            }
        });
        let join = Join {
            output: edge.physical(),
            signed: edge.signed,
            how,
            sides,
            pending,
            snapshots: states.iter().map(|state| state.snapshots.clone()).collect(),
            meter,
            place,
        };
        (join, restored)
    }

    fn arrangements(&self) -> Vec<Shared> {
        let sides = self.sides.iter().map(|side| side.arrangement.shared());
        let pending = self.pending.iter().flatten();
        sides
            .chain(pending.map(|pending| pending.arrangement.shared()))
            .collect()
    }

    /// Emits columns as they come out, each row as often as `diffs` says.
    pub(super) fn emit(
        &self,
        mut columns: Vec<ArrayRef>,
        rows: usize,
        diffs: impl FnOnce() -> Vec<i64>,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        if rows == 0 {
            return Ok(());
        }
        if self.signed {
            columns.push(Arc::new(Int64Array::from(diffs())));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = SchemaRef::clone(&self.output);
        out(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?);
        Ok(())
    }

    /// Emits rows of one side that stand alone.
    pub(super) fn emit_alone(
        &self,
        side: usize,
        columns: Vec<ArrayRef>,
        rows: usize,
        diffs: impl FnOnce() -> Vec<i64>,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        if !self.how.kind.has_pairs() {
            return self.emit(columns, rows, diffs, out);
        }
        let other = &self.sides[1 - side].layout.input.rows;
        let nulls = other.fields().iter();
        let nulls = nulls.map(|field| new_null_array(field.data_type(), rows));
        let all = match side {
            0 => columns.into_iter().chain(nulls).collect(),
            _ => nulls.chain(columns).collect(),
        };
        self.emit(all, rows, diffs, out)
    }
}

impl Kernel for Join {
    fn absorb(&mut self, epoch: u64, input: usize, batch: Batch) -> Result<(), OperatorError> {
        self.sides[input].absorb(epoch, batch)
    }

    fn run(
        &mut self,
        epoch: u64,
        marks: Marks,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let before_us = marks.before.saturating_mul(1_000);
        let now_us = marks.now.saturating_mul(1_000);
        let meter = self.meter.clone();
        let (changed, update_us) = meter.timed(|| {
            let (left, left_late) = self.sides[0].delta(epoch, before_us)?;
            let (right, right_late) = self.sides[1].delta(epoch, before_us)?;
            meter.late(epoch, left_late + right_late);
            let deltas: [Delta; 2] = [left, right];
            match self.how.is_final {
                true => self.run_final((epoch, before_us), &deltas, out),
                false => self.run_changes(epoch, &deltas, out),
            }
        });
        let changed = changed?;
        let (removed, remove_us) = meter.timed(|| {
            for side in 0..2 {
                let Some(mut pending) = self.pending[side].take() else {
                    continue;
                };
                let width = self.sides[side].layout.width();
                let done = pending.due(now_us, &mut |rows| {
                    let columns = rows.columns()[..width].to_vec();
                    self.emit_alone(side, columns, rows.num_rows(), Vec::new, out)
                });
                self.pending[side] = Some(pending);
                done?;
            }
            Ok::<_, OperatorError>(self.sides.iter_mut().map(|side| side.expire(now_us)).sum())
        });
        let removed: u64 = removed?;
        let (worker, peers) = self.place;
        let ((), commit_us) = meter.timed(|| {
            for (snapshots, shared) in self.snapshots.iter().zip(self.arrangements()) {
                snapshots.offer(epoch, || shared.snapshot(worker, peers, epoch + 1));
            }
        });
        let live = self.sides.iter().map(|side| side.live).sum();
        let bytes = self.sides.iter().map(|side| side.arrangement.bytes());
        let waiting = self.pending.iter().flatten();
        let bytes = bytes.chain(waiting.map(|pending| pending.arrangement.bytes()));
        let bytes = bytes.sum();
        meter.count(epoch, |counts| {
            counts.rows_updated += changed;
            counts.rows_removed += removed;
            counts.rows_total = live;
            counts.bytes = bytes;
            counts.update_us += update_us;
            counts.remove_us += remove_us;
            counts.commit_us += commit_us;
        });
        Ok(())
    }
}
