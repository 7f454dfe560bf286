//! Which output modes a plan can honour: the model's rules and words.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use highwater_query::{SetOperation, Watermark, node_of, set_operation};

use super::compile::is_streaming;
use super::event_time::event_keys;
use crate::error::Error;
use crate::sink::OutputMode;

/// Refuses a mode the plan cannot honour.
pub(super) fn check(plan: &LogicalPlan, mode: OutputMode) -> Result<(), Error> {
    let aggregations = aggregations(plan);
    let unbounded = |aggregation: &&LogicalPlan| event_keys(aggregation).is_empty();
    let mut sets = aggregations.iter().filter_map(|node| set_operation(node));
    if mode == OutputMode::Append && sets.clone().any(|_| aggregations.iter().any(unbounded)) {
        return Err(Error::refused(
            "UNSUPPORTED_STREAMING_OPERATOR_WITHOUT_WATERMARK",
            "Append output mode not supported for aggregations on streaming DataFrames/DataSets without watermark: INTERSECT and EXCEPT count rows, and a count may change with every \
             epoch. Select a column with a watermark, or use output mode complete or changes",
        ));
    }
    if mode == OutputMode::Update
        && let Some(refused) = sets.find_map(|set| taken_away(&set))
    {
        return Err(refused);
    }
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

/// The error for INTERSECT and EXCEPT in update mode, which cannot say that a row has left: if the right side goes on.
fn taken_away(set: &SetOperation<'_>) -> Option<Error> {
    let both = is_streaming(set.left) && is_streaming(set.right);
    let words = match set.except {
        true if is_streaming(set.right) => {
            "Except on a streaming DataFrame/Dataset on the right is not supported"
        }
        false if both => "Intersect of streaming DataFrames/Datasets is not supported",
        _ => return None,
    };
    Some(Error::refused(
        "_LEGACY_ERROR_TEMP_3102",
        format!("{words} in this output mode. Use output mode complete or changes"),
    ))
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
