//! Windows that overlap, over rows that may leave: each pane is aggregated from its rows once and again only when it
//! changes, and windows are put together of what that gave.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::{Answer, Members};
use crate::aggregate::{
    Aggregation, Asked, Groups, Panes, Plan, Spans, conform, needs_order, parts, slides, sort_lists,
};
use crate::{Edge, OperatorError};

/// The states of the calls over the rows of a pane.
pub struct PaneStates {
    plan: Plan,
    schema: SchemaRef,
    /// The state columns that are lists of values, which come in any order.
    lists: Vec<usize>,
}

/// The answers of windows, of the states of their panes.
pub struct Windows {
    plan: Plan,
    spans: Spans,
}

impl std::fmt::Debug for PaneStates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PaneStates")
            .field("name", &self.plan.name)
            .finish()
    }
}

impl std::fmt::Debug for Windows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Windows")
            .field("panes", &self.spans.panes)
            .finish()
    }
}

impl PaneStates {
    /// For `aggregation` over rows of `schema`, of which the first columns are its keys and the very first is the end of
    /// a pane; `None` if a call goes by the order of rows, or of states that are merged.
    pub fn new(
        schema: &SchemaRef,
        aggregation: &Aggregation,
    ) -> Result<Option<Self>, OperatorError> {
        let mut functions = aggregation.calls.iter().map(|call| &call.function);
        if functions.any(|function| needs_order(function) || !slides(function).unwrap_or(false)) {
            return Ok(None);
        }
        let plan = Plan::over_sorted(&Edge::plain(Arc::clone(schema)), aggregation.clone())?;
        let [_, lists] = parts(&plan)?;
        let lists = lists.columns;
        let keys = plan.output.fields()[..plan.keys.len()].iter();
        let fields: Vec<Field> = keys
            .chain(plan.state_schema.fields())
            .map(|f| f.as_ref().clone())
            .collect();
        let schema = Arc::new(Schema::new(fields));
        Ok(Some(PaneStates {
            plan,
            schema,
            lists,
        }))
    }

    /// The keys of a pane and the states of its calls.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

impl Answer for PaneStates {
    fn answer(&self, members: &Members) -> Result<(RecordBatch, Vec<i64>), OperatorError> {
        let members = members.spread()?;
        if members.rows.num_rows() == 0 {
            return Ok((RecordBatch::new_empty(self.schema()), Vec::new()));
        }
        let mut groups = Groups::new(&self.plan)?;
        groups.update(&self.plan, &members.rows)?;
        let count = groups.len();
        let mut columns = groups.take_keys()?;
        let mut states = groups.take_states(&self.plan)?.columns().to_vec();
        for list in &self.lists {
            states[*list] = sort_lists(states[*list].as_list())?;
        }
        columns.extend(states);
        let types = self.schema.fields().iter();
        let columns = conform(columns, types.map(|field| field.data_type().clone()))?;
        Ok((
            RecordBatch::try_new(self.schema(), columns)?,
            vec![1; count],
        ))
    }
}

impl Windows {
    /// Over what [`PaneStates`] of the same aggregation gives.
    pub fn new(
        schema: &SchemaRef,
        aggregation: &Aggregation,
        panes: Panes,
    ) -> Result<Self, OperatorError> {
        let plan = Plan::over_sorted(&Edge::plain(Arc::clone(schema)), aggregation.clone())?;
        let spans = Spans::new(&plan, panes)?;
        Ok(Windows { plan, spans })
    }
}

impl Answer for Windows {
    fn answer(&self, members: &Members) -> Result<(RecordBatch, Vec<i64>), OperatorError> {
        let (keys, states) = members.rows.columns().split_at(self.plan.keys.len());
        let all;
        let asked = match &members.asked {
            Some(asked) => asked,
            None => {
                all = Asked {
                    panes: keys.to_vec(),
                    after_us: None,
                };
                &all
            }
        };
        let rows = self.spans.answer(&self.plan, keys, states, asked)?;
        let counts = vec![1; rows.num_rows()];
        Ok((rows, counts))
    }

    fn spans(&self) -> Option<Panes> {
        Some(self.spans.panes)
    }
}
