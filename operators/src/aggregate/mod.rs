//! Grouped aggregation: partial per epoch, exchange by key, merge with the stored state, finish.
//!
//! Between epochs nothing lives but state rows in an arrangement: what an accumulator's `state` returned, under the
//! bytes of its key. An epoch's rows are pre-aggregated as they arrive; when its frontier passes, the state rows of
//! exactly the touched groups are fetched and merged, and the new ones inserted as one sorted run. So a snapshot is
//! always at hand, memory follows the state, and any `AggregateUDF` that DataFusion can merge works here.
//!
//! Answers do not depend on the number of workers or on how rows are batched. Partials are merged in the order of the
//! workers they come from. Functions whose answer depends on the order of rows get no partials: their rows go to the
//! owner of the key, who sorts them.

mod anew;
mod calls;
mod canonical;
mod closing;
mod folds;
mod groups;
mod kinds;
mod nth;
mod order;
mod owner;
mod partial;
mod pieces;
mod placed;
mod running;
mod signed;
mod sliding;
mod spans;
mod stale;
mod touched;
mod values;

use std::rc::Rc;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;
use timely::dataflow::operators::generic::OperatorInfo;

use crate::arrangement::{
    Arrangement, Budget, Kind, Limits, Ownership, Shape, Shared, Snapshot, Snapshots,
};
use crate::epoch::{Input, Travel, run_inputs};
use crate::failure::guard;
use crate::metrics::OperatorMeter;
use crate::watermark::Watermarks;
use crate::{BatchBuilder, Edge, Failure, OperatorError, Rows, exchange};

pub(crate) use calls::{Plan, conform};
pub(crate) use canonical::sort_lists;
pub(crate) use groups::{Groups, evaluate, sparse_accumulators, states};
use owner::Owner;

pub use closing::Panes;
pub(crate) use closing::{bound_of, micros};
pub(crate) use kinds::slides;
use order::merges_in_order;
pub use order::needs_order;
pub(crate) use signed::Difference;
pub(crate) use spans::{Asked, Spans, panes_of, parts};

/// One aggregate of a grouped aggregation.
#[derive(Debug, Clone)]
pub struct AggregateCall {
    /// The function with its arguments, over the visible columns of the input.
    pub function: Arc<AggregateFunctionExpr>,
    /// `FILTER (WHERE ..)`.
    pub filter: Option<Arc<dyn PhysicalExpr>>,
}

/// Which groups an epoch emits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// The groups this epoch touched, each with its new value.
    Changed,
    /// All groups.
    All,
    /// The groups that the watermark closes, each once.
    Closed,
    /// The groups whose answer changed: the old one leaves, the new one comes. What the watermark closes stays.
    Signed,
}

/// What to aggregate.
#[derive(Debug, Clone)]
pub struct Aggregation {
    /// Names the state in checkpoints, unique within the query.
    pub name: String,
    /// The grouping expressions; empty for one global group, which exists from the first epoch on.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    /// The aggregates.
    pub calls: Vec<AggregateCall>,
    /// The output columns: keys, then aggregates.
    pub schema: SchemaRef,
    /// Which groups come out.
    pub emit: Emit,
    /// True if the first key is event time (a window by its end): unless all groups come out, late rows are dropped and
    /// closed groups forgotten.
    pub event_time: bool,
    /// Windows that overlap; then the first key is the end of a pane.
    pub panes: Option<Panes>,
    /// The call that says how many rows a group has, where rows may leave: one without rows is gone.
    pub gone: Option<usize>,
}

impl Aggregation {
    /// True if the state has a row for each pane, of which windows are made when they close, or whenever they are asked
    /// for; else one for each window.
    pub fn stores_panes(&self) -> bool {
        let functions = || self.calls.iter().map(|call| call.function.as_ref());
        let merges = functions().all(|call| !needs_order(call) || merges_in_order(call));
        if self.panes.is_none() || !merges {
            return false;
        }
        match self.emit {
            Emit::Closed => self.event_time,
            // Each window of a pane that changes comes out, and to add to its own state is the least work; but lists of
            // values are as long as the window is wide.
            _ => {
                let slides = functions().all(|call| slides(call).unwrap_or(false));
                slides && functions().any(kinds::lists_values)
            }
        }
    }

    /// True if states tell where their rows stood: panes are put together in another order than rows came in.
    pub fn stores_places(&self) -> bool {
        let mut calls = self.calls.iter().map(|call| &call.function);
        self.stores_panes() && calls.any(|call| needs_order(call) && !call.is_distinct())
    }
}

/// Reads the snapshots to start from; the state has these value columns.
pub type ReadState = Rc<dyn Fn(&SchemaRef) -> Result<Vec<Snapshot>, OperatorError>>;

/// Where an operator's state comes from, and where it is left for checkpoints.
#[derive(Clone, Default)]
pub struct State {
    /// The first epoch that runs, in a query without state to restore.
    pub start: u64,
    /// What to start from: this worker's snapshot, or those of all workers if their number has changed. The first epoch
    /// that runs is the one after them.
    pub restore: Vec<Snapshot>,
    /// Or what gives them, told the value columns of the state; then `start` is the epoch after them.
    pub read: Option<ReadState>,
    /// Where snapshots are asked for and found.
    pub snapshots: Snapshots,
    /// Counts what the operator does.
    pub meter: OperatorMeter,
    /// The memory it shares with others; without one, all state stays in memory.
    pub budget: Option<Arc<Budget>>,
}

impl State {
    pub(crate) fn first_epoch(&self) -> u64 {
        let uppers = self.restore.iter().map(|snapshot| snapshot.upper);
        uppers.max().unwrap_or(self.start)
    }

    /// The arrangement that the state is kept in, filled with what there is to start from.
    pub(crate) fn arrange(
        &self,
        values: &SchemaRef,
        ownership: &Ownership<'_>,
        info: OperatorInfo,
    ) -> (Arrangement, Result<(), OperatorError>) {
        let shape = Shape::new(Kind::Latest, SchemaRef::clone(values), Limits::default());
        let mut arrangement = Arrangement::new(shape.within(self.budget.clone()), info);
        let restored = guard(|| match &self.read {
            Some(read) => arrangement.restore(&read(values)?, ownership),
            None => arrangement.restore(&self.restore, ownership),
        });
        (arrangement, restored)
    }
}

/// An aggregation and its state.
pub struct Aggregated<'s> {
    /// The groups.
    pub rows: Rows<'s>,
    /// The state rows, for other dataflows; `None` if the aggregation was refused.
    pub arrangement: Option<Shared>,
}

/// Aggregates `rows`; needs an ordered edge if a call's answer depends on order.
pub fn aggregate<'s>(rows: Rows<'s>, aggregation: Aggregation, failure: &Failure) -> Rows<'s> {
    aggregate_with_state(rows, aggregation, None, State::default(), failure).rows
}

/// Like [`aggregate`], by watermarks and with a state that can be saved and restored.
pub fn aggregate_with_state<'s>(
    rows: Rows<'s>,
    aggregation: Aggregation,
    watermarks: Option<Watermarks<'s>>,
    state: State,
    failure: &Failure,
) -> Aggregated<'s> {
    let edge = Edge {
        signed: aggregation.emit == Emit::Signed,
        ..Edge::plain(SchemaRef::clone(&aggregation.schema))
    };
    let start = state.first_epoch();
    let plan = match Plan::new(&rows.edge, aggregation) {
        Ok(plan) => Rc::new(plan),
        Err(error) => {
            failure.set(start, error);
            return Aggregated {
                rows: refuse(rows, edge),
                arrangement: None,
            };
        }
    };
    let scope = rows.stream.scope();
    let (worker, peers) = (scope.index(), scope.peers());
    let name = plan.name.clone();
    let (stream, travel) = if peers == 1 {
        (rows.stream, Travel::Stay)
    } else if plan.ordered {
        let by_key = exchange::route_by_keys(plan.keys[plan.routed.clone()].to_vec());
        let stream = exchange::address(rows.stream, &rows.edge, &name, failure, by_key);
        (stream, Travel::Addressed)
    } else {
        let partials = partial::partials(rows.stream, Rc::clone(&plan), worker, failure);
        (partials, Travel::Addressed)
    };
    let input = Input { stream, travel };
    let mut arrangement = None;
    let stream = run_inputs(&name, vec![input], watermarks, start, failure, |info| {
        let (owner, restored) = Owner::new(plan, state, info, worker, peers);
        if let Err(error) = restored {
            failure.set(start, error);
        }
        arrangement = Some(owner.shared());
        owner
    });
    Aggregated {
        rows: Rows { stream, edge },
        arrangement,
    }
}

/// A stream without rows that still tells its frontier.
pub(crate) fn refuse<'s>(rows: Rows<'s>, edge: Edge) -> Rows<'s> {
    let stream = rows
        .stream
        .unary::<BatchBuilder, _, _, _>(Pipeline, "Refused", |_, _| {
            |input, _output| input.for_each(|_, _| {})
        });
    Rows { stream, edge }
}
