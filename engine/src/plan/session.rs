//! Aggregations by session windows.

use datafusion::logical_expr::{Aggregate, Expr};
use highwater_operators::aggregate::{Emit, needs_order};
use highwater_operators::session::Sessions;
use highwater_query::sessions_by_rows;

use super::Node;
use super::compile::{Compiler, arrow_schema, calls, physical};
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
            return Err(Error::refused(
                "_LEGACY_ERROR_TEMP_3068",
                "Global aggregation with session window in streaming query is not supported: all rows would be one worker's. \
                 Group by another column as well",
            ));
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
        let begun = self.counts();
        let input = self.node(&aggregate.input, want.below_state())?;
        if input.edge().signed {
            // What merged sessions were before is in no state: they are found anew, as a batch finds them.
            self.forget(begun);
            let by_rows = sessions_by_rows(aggregate, place).map_err(Error::run)?;
            return self.node(&by_rows, want);
        }
        let calls = calls(aggregate)?;
        if let Some(call) = calls.iter().find(|call| needs_order(&call.function)) {
            return Err(Error::not_yet(format!(
                "{} over session windows of a stream",
                call.function.fun().name()
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
}
