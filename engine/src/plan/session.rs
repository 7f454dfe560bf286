//! Aggregations by session windows.

use std::sync::Arc;

use datafusion::logical_expr::{Aggregate, Expr, lit};
use highwater_operators::aggregate::{AggregateCall, Emit, needs_order};
use highwater_operators::session::Sessions;
use highwater_operators::stage::Step;
use highwater_query::{aggregate_name, in_time_order, sessions_lowered};

use super::Node;
use super::compile::{Compiler, arrow_schema, calls, column, physical, stage};
use super::event_time;
use super::want::Want;
use crate::error::Error;

impl Compiler<'_> {
    /// The node for an aggregation whose key number `place` is a session window.
    pub(super) fn sessions(
        &mut self,
        aggregate: &Aggregate,
        place: usize,
        want: Want,
    ) -> Result<Node, Error> {
        if aggregate.group_expr.len() == 1 {
            return self.global_sessions(aggregate, want);
        }
        let emit = match want {
            Want::Final => Emit::Closed,
            Want::All => Emit::All,
            Want::Changes => Emit::Signed,
            Want::Upserts => {
                return Err(Error::refused(
                    "STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION",
                    "This output mode is not supported for session window streaming aggregations on streaming DataFrames/DataSets: \
                     a session that grows has another start or end, so a row leaves without another one in its place. Use output \
                     mode append, complete or changes",
                ));
            }
        };
        let before = self.clone();
        let input = self.node(&aggregate.input, want.below_state())?;
        if input.edge().signed {
            // Sessions of rows that may leave are found anew from all rows of a key.
            *self = before;
            let lowered = sessions_lowered(aggregate, place).map_err(Error::run)?;
            return self.node(&lowered, want);
        }
        let aggregate = &in_time_order(aggregate, place).map_err(Error::run)?;
        let calls = calls(aggregate)?;
        let unsorted = |call: &&AggregateCall| {
            needs_order(&call.function) && call.function.order_bys().is_empty()
        };
        if let Some(call) = calls.iter().find(unsorted) {
            return Err(Error::not_yet(format!(
                "{} over session windows of a stream",
                aggregate_name(call.function.fun().name(), call.function.is_distinct())
            )));
        }
        let columns = event_time::watermarked(&aggregate.input);
        let window = &aggregate.group_expr[place];
        let below = aggregate.input.schema();
        let bounded = self.bounded || want == Want::All;
        let event_time = bounded && event_time::is_event_time(window, &aggregate.input, &columns);
        let mut keys: Vec<Expr> = aggregate.group_expr.clone();
        keys.remove(place);
        let mut window = physical(std::slice::from_ref(window), below)?;
        let name = format!("sessions-{}", self.sessions);
        self.sessions += 1;
        Ok(Node::Sessions {
            input: Box::new(input),
            sessions: Box::new(Sessions {
                name,
                keys: physical(&keys, below)?,
                window: window.remove(0),
                place,
                calls,
                schema: arrow_schema(&aggregate.schema),
                emit,
                event_time,
            }),
        })
    }

    /// Sessions that have no other key have one that says nothing.
    fn global_sessions(&mut self, aggregate: &Aggregate, want: Want) -> Result<Node, Error> {
        let keys = [aggregate.group_expr.clone(), vec![lit(0).alias("__all")]].concat();
        let (input, calls) = (Arc::clone(&aggregate.input), aggregate.aggr_expr.clone());
        let keyed = Aggregate::try_new(input, keys, calls).map_err(Error::run)?;
        let node = self.sessions(&keyed, 0, want)?;
        let (rows, schema) = (node.edge().rows, arrow_schema(&aggregate.schema));
        let kept = (0..rows.fields().len()).filter(|index| *index != 1);
        let exprs = kept.map(|index| column(&rows, index)).collect();
        Ok(stage(node, Step::Project { exprs, schema }))
    }
}
