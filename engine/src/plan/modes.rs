//! Which output modes a plan can honour: the model's rules and words.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use highwater_query::{Watermark, node_of};

use super::compile::is_streaming;
use super::event_time::event_keys;
use crate::error::Error;
use crate::sink::OutputMode;

/// Refuses a mode the plan cannot honour.
pub(super) fn check(plan: &LogicalPlan, mode: OutputMode) -> Result<(), Error> {
    let aggregations = aggregations(plan);
    let unbounded = |aggregation: &&LogicalPlan| event_keys(aggregation).is_empty();
    if mode == OutputMode::Append && aggregations.iter().any(unbounded) {
        return Err(Error::refused(
            "STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION",
            "This output mode is not supported for streaming aggregations without watermark on streaming DataFrames/DataSets: append mode emits final rows, and the row of a group may \
             change with every epoch, so none is ever final. Group by a column with a watermark or by a window of it, or use output mode update, complete or changes",
        ));
    }
    if !aggregations.is_empty() {
        watermarks(plan)?;
    }
    if mode != OutputMode::Complete && aggregations.iter().any(|node| event_keys(node).len() > 1) {
        return Err(Error::not_yet("grouping by several event times"));
    }
    Ok(())
}

/// Refuses a watermark over another one, or over what an aggregation makes.
fn watermarks(plan: &LogicalPlan) -> Result<(), Error> {
    let mut refused = None;
    let _ = plan.apply(|node| {
        if let Some(watermark) = node_of::<Watermark>(node) {
            let twice = super::event_time::has_watermark(&watermark.input);
            if twice {
                refused = Some(Error::refused(
                    "_LEGACY_ERROR_TEMP_3076",
                    format!(
                        "Redefining watermark is disallowed: the rows of \"{}\" have one already. Set one watermark per source",
                        watermark.column
                    ),
                ));
            } else if !aggregations(&watermark.input).is_empty() {
                refused = Some(Error::not_yet("a watermark on the rows of an aggregation"));
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    refused.map_or(Ok(()), Err)
}

fn aggregations(plan: &LogicalPlan) -> Vec<&LogicalPlan> {
    let mut found = Vec::new();
    let _ = plan.apply(|node| {
        // What DataFusion aggregates before the query begins is no aggregation of a stream.
        if !is_streaming(node) {
            return Ok(TreeNodeRecursion::Jump);
        }
        if matches!(node, LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_)) {
            found.push(node);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}
