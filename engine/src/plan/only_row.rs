//! Aggregations of streams without keys. Each has one row, also where nothing of it is read: the rule that cuts columns
//! would cut the whole aggregation, and the stream with it.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchemaRef, DataFusionError, Result};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use highwater_query::node_of;

use super::compile::is_streaming;

/// Around an aggregation without keys while columns are cut: one of its columns stays.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct OnlyRow {
    input: Arc<LogicalPlan>,
}

/// The plan with its aggregations without keys kept.
pub(super) fn kept(plan: LogicalPlan) -> Result<LogicalPlan> {
    let kept = plan.transform_up(|node| {
        let one_row = match &node {
            LogicalPlan::Aggregate(aggregate) => {
                aggregate.group_expr.is_empty() && is_streaming(&aggregate.input)
            }
            _ => false,
        };
        if !one_row {
            return Ok(Transformed::no(node));
        }
        let input = Arc::new(node);
        Ok(Transformed::yes(LogicalPlan::Extension(Extension {
            node: Arc::new(OnlyRow { input }),
        })))
    });
    Ok(kept?.data)
}

/// The plan as it was before [`kept`].
pub(super) fn bare(plan: LogicalPlan) -> Result<LogicalPlan> {
    let bare = plan.transform_up(|node| match node_of::<OnlyRow>(&node) {
        Some(only) => Ok(Transformed::yes(only.input.as_ref().clone())),
        None => Ok(Transformed::no(node)),
    });
    Ok(bare?.data)
}

impl PartialOrd for OnlyRow {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for OnlyRow {
    fn name(&self) -> &str {
        "OnlyRow"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OnlyRow")
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let input = inputs.pop().map(Arc::new);
        let message = "an aggregation stands around nothing";
        let input = input.ok_or_else(|| DataFusionError::Internal(message.into()))?;
        Ok(OnlyRow { input })
    }

    fn necessary_children_exprs(&self, outputs: &[usize]) -> Option<Vec<Vec<usize>>> {
        let columns = if outputs.is_empty() { &[0] } else { outputs };
        Some(vec![columns.to_vec()])
    }
}
