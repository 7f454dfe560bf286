//! Groups computed anew: answers that are a function of all rows of a group, over rows that may leave again.
//!
//! The rows lie in an arrangement, counted, sorted by group and within a group as the function wants them. An epoch's
//! rows say which groups are touched. Of each, what the function made of its rows before leaves, and what it makes of
//! them now comes. So the cost of an epoch follows the size of the groups that it touches; a function that looks only at
//! the front of a group is given no more.

mod aggregate;
mod kernel;
mod members;
mod over;
mod rows;
mod top;
mod windows;

use std::fmt::Debug;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;

use crate::aggregate::{Aggregated, Emit, Panes, State};
use crate::epoch::{Input, Travel, run_inputs};
use crate::watermark::Watermarks;
use crate::{Edge, Failure, OperatorError, Rows, exchange};

pub use aggregate::Calls;
pub use members::Members;
pub use over::Over;
pub use rows::AllRows;
pub use top::Top;
pub use windows::{PaneStates, Windows};

use kernel::Owner;

/// What is made of the rows of a group.
pub trait Answer: Debug + Send + Sync {
    /// The answers of some groups: the rows of all of them, each counted so often.
    fn answer(&self, members: &Members) -> Result<(RecordBatch, Vec<i64>), OperatorError>;

    /// How many rows at the front of a group it looks at, one that is there twice counted twice; `None` for all.
    fn looks_at(&self) -> Option<u64> {
        None
    }

    /// The panes that it puts together, if it answers for windows that overlap: then it is given all panes of those that
    /// are asked for.
    fn spans(&self) -> Option<Panes> {
        None
    }

    /// True if the global group has an answer when it has no rows.
    fn of_nothing(&self) -> bool {
        false
    }
}

/// What to compute, and how the input is laid out.
#[derive(Debug, Clone)]
pub struct Regroup {
    /// Names the state in checkpoints, unique within the query.
    pub name: String,
    /// How many columns, the first of the input, tell groups apart.
    pub keys: usize,
    /// How the columns after them are sorted within a group; those that are not named here come last, ascending.
    pub sorts: Vec<SortOptions>,
    /// What is made of a group.
    pub answer: Arc<dyn Answer>,
    /// The columns of an answer.
    pub schema: SchemaRef,
    /// Which groups come out: those that changed, all, the changes, or those that the watermark closes.
    pub emit: Emit,
    /// True if the first key is event time (a window by its end): closed groups are forgotten unless all come out. Where
    /// only closed ones come out, late rows are dropped.
    pub event_time: bool,
    /// Windows that overlap; then the first key is the end of a pane, which is forgotten with its last window.
    pub panes: Option<Panes>,
}

impl Regroup {
    /// The keys that say who owns a group: all panes of a window go to one worker.
    fn routed(&self) -> std::ops::Range<usize> {
        usize::from(self.panes.is_some())..self.keys
    }

    /// The edge above.
    pub fn edge(&self) -> Edge {
        Edge {
            signed: self.emit == Emit::Signed,
            ..Edge::plain(SchemaRef::clone(&self.schema))
        }
    }
}

/// Computes groups anew as their rows come and leave.
pub fn regroup<'s>(
    rows: Rows<'s>,
    regroup: Regroup,
    watermarks: Option<Watermarks<'s>>,
    state: State,
    failure: &Failure,
) -> Aggregated<'s> {
    let edge = regroup.edge();
    let start = state.first_epoch();
    let scope = rows.stream.scope();
    let (worker, peers) = (scope.index(), scope.peers());
    let name = regroup.name.clone();
    let input = rows.edge.clone();
    let key = |index: usize| -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new(input.rows.field(index).name(), index))
    };
    let (stream, travel) = if peers == 1 {
        (rows.stream, Travel::Stay)
    } else {
        let by_key = exchange::route_by_keys(regroup.routed().map(key).collect());
        let stream = exchange::address(rows.stream, &rows.edge, &name, failure, by_key);
        (stream, Travel::Addressed)
    };
    let mut arrangement = None;
    let inputs = vec![Input { stream, travel }];
    let stream = run_inputs(&name, inputs, watermarks, start, failure, |info| {
        let (owner, restored) = Owner::new(&rows.edge, regroup, state, info, (worker, peers));
        if let Err(error) = restored {
            failure.set(start, error);
        }
        arrangement = owner.shared();
        owner
    });
    Aggregated {
        rows: Rows { stream, edge },
        arrangement,
    }
}
