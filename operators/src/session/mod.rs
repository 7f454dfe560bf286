//! Aggregation by session windows: of each key, rows with no gap between them.
//!
//! The owner of a key keeps its open sessions, ascending, in one row of state: starts, ends and accumulator states as
//! lists. An epoch fetches the sessions of exactly the keys that it touches or that are due, merges them with the new
//! rows, and writes them back. A key is due when the earliest end of its sessions may have been reached; it stands
//! among the deadlines once for that moment, and when a session has grown meanwhile it is put off.
//!
//! A row is late when its own session ends at or before the watermark. One that is not may begin a session that overlaps
//! one already closed: closed sessions are gone.

mod emit;
mod merge;
mod owner;
mod stored;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StructArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;

use self::merge::Stretch;
use self::owner::Owner;
use crate::aggregate::{
    AggregateCall, Aggregation, Emit, Plan, State, conform, evaluate, needs_order, refuse,
};
use crate::arrangement::Shared;
use crate::epoch::{Input, Travel, run_inputs};
use crate::watermark::Watermarks;
use crate::{Edge, Failure, OperatorError, Rows, exchange};

/// Rows of one output batch, and keys of one read.
const OUTPUT_ROWS: usize = 8 << 10;
/// Value columns of the state before those of the accumulators: the deadline, starts, ends.
const OWN_COLUMNS: usize = 3;

/// What to aggregate by sessions.
#[derive(Debug, Clone)]
pub struct Sessions {
    /// Names the state in checkpoints, unique within the query.
    pub name: String,
    /// The grouping expressions but the session; there is at least one.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    /// The session that each row would make alone: a struct of start and end. Rows without one are left out.
    pub window: Arc<dyn PhysicalExpr>,
    /// Which column of the output the session is; the keys stand around it.
    pub place: usize,
    /// The aggregates.
    pub calls: Vec<AggregateCall>,
    /// The output columns: keys and session, then aggregates.
    pub schema: SchemaRef,
    /// Which sessions come out: all, those that the watermark closes, or changes.
    pub emit: Emit,
    /// True if a watermark judges rows and closes sessions.
    pub event_time: bool,
}

/// Sessions, and what is kept of them.
pub struct Sessioned<'s> {
    /// The sessions.
    pub rows: Rows<'s>,
    /// The open sessions by key; `None` if the aggregation was refused.
    pub open: Option<Shared>,
    /// The keys by their deadlines.
    pub deadlines: Option<Shared>,
}

/// Aggregates `rows` by sessions; the state is in two parts.
pub fn sessions<'s>(
    rows: Rows<'s>,
    sessions: Sessions,
    watermarks: Option<Watermarks<'s>>,
    state: State,
    deadlines: State,
    failure: &Failure,
) -> Sessioned<'s> {
    let edge = Edge {
        signed: sessions.emit == Emit::Signed,
        ..Edge::plain(SchemaRef::clone(&sessions.schema))
    };
    let start = state.first_epoch();
    let how = match How::new(&rows.edge, sessions) {
        Ok(how) => how,
        Err(error) => {
            failure.set(start, error);
            return Sessioned {
                rows: refuse(rows, edge),
                open: None,
                deadlines: None,
            };
        }
    };
    let scope = rows.stream.scope();
    let place = (scope.index(), scope.peers());
    let name = how.plan.name.clone();
    let (stream, travel) = if place.1 == 1 {
        (rows.stream, Travel::Stay)
    } else {
        let by_key = exchange::route_by_keys(how.plan.keys.clone());
        let stream = exchange::address(rows.stream, &rows.edge, &name, failure, by_key);
        (stream, Travel::Addressed)
    };
    let input = Input { stream, travel };
    let (mut open, mut due) = (None, None);
    let stream = run_inputs(&name, vec![input], watermarks, start, failure, |info| {
        let (owner, restored) = Owner::new(how, &state, &deadlines, info, place);
        if let Err(error) = restored {
            failure.set(start, error);
        }
        open = Some(owner.arrangement.shared());
        due = Some(owner.deadlines.shared());
        owner
    });
    Sessioned {
        rows: Rows { stream, edge },
        open,
        deadlines: due,
    }
}

/// An aggregation by sessions made ready to run.
struct How {
    plan: Plan,
    window: Arc<dyn PhysicalExpr>,
    place: usize,
    schema: SchemaRef,
    emit: Emit,
    event_time: bool,
    /// The value columns of the state.
    values: SchemaRef,
}

impl How {
    fn new(input: &Edge, sessions: Sessions) -> Result<Self, OperatorError> {
        let other = |text: &str| Err(OperatorError::Other(text.into()));
        if sessions.keys.is_empty() {
            return other("an aggregation by session windows alone is not supported");
        }
        if sessions.emit == Emit::Changed {
            return other("a session that grew has no row to take the place of");
        }
        let unsorted = |call: &AggregateCall| {
            needs_order(&call.function) && call.function.order_bys().is_empty()
        };
        if sessions.calls.iter().any(unsorted) {
            return other("an aggregate over sessions that goes by the order of rows says which");
        }
        let mut fields = sessions.schema.fields().to_vec();
        fields.remove(sessions.place);
        let plan = Plan::over_sorted(
            input,
            Aggregation {
                name: sessions.name,
                keys: sessions.keys,
                calls: sessions.calls,
                schema: Arc::new(Schema::new(fields)),
                emit: sessions.emit,
                event_time: false,
                panes: None,
                gone: None,
            },
        )?;
        let list = |name: &str, of: DataType| {
            let element = Field::new("item", of, true);
            Field::new(name, DataType::List(Arc::new(element)), false)
        };
        let mut values = vec![
            Field::new("due", DataType::Int64, true),
            list("starts", DataType::Int64),
            list("ends", DataType::Int64),
        ];
        for field in plan.state_schema.fields() {
            values.push(list(field.name(), field.data_type().clone()));
        }
        Ok(How {
            plan,
            window: sessions.window,
            place: sessions.place,
            schema: sessions.schema,
            emit: sessions.emit,
            event_time: sessions.event_time,
            values: Arc::new(Schema::new(values)),
        })
    }

    /// True if the watermark judges rows and closes sessions.
    fn closes(&self) -> bool {
        self.event_time && self.emit != Emit::All
    }

    /// Output rows of sessions with these keys, stretches and accumulator states.
    fn answers(
        &self,
        keys: Vec<ArrayRef>,
        stretches: &[Stretch],
        states: &RecordBatch,
    ) -> Result<Vec<ArrayRef>, OperatorError> {
        let DataType::Struct(bounds) = self.schema.field(self.place).data_type() else {
            return Err(OperatorError::Other("a session is a struct".into()));
        };
        let bound = |index: usize, of: fn(&Stretch) -> i64| -> ArrayRef {
            let times = TimestampMicrosecondArray::from_iter_values(stretches.iter().map(of));
            Arc::new(times.with_data_type(bounds[index].data_type().clone()))
        };
        let both = vec![bound(0, |at| at.start), bound(1, |at| at.end)];
        let mut columns = keys;
        columns.insert(
            self.place,
            Arc::new(StructArray::try_new(bounds.clone(), both, None)?),
        );
        columns.extend(evaluate(&self.plan, states)?);
        let types = self.schema.fields().iter();
        conform(columns, types.map(|field| field.data_type().clone()))
    }
}
