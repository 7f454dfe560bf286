//! Which output modes a plan can honour: the model's rules and words.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;

use crate::error::Error;
use crate::sink::OutputMode;

/// Refuses a mode the plan cannot honour.
pub(super) fn check(plan: &LogicalPlan, mode: OutputMode) -> Result<(), Error> {
    let aggregations = aggregations(plan);
    match mode {
        OutputMode::Append if aggregations > 0 => Err(Error::refused(
            "STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION",
            "This output mode is not supported for streaming aggregations without watermark on streaming DataFrames/DataSets: append mode emits final rows, and the row of a group may \
             change with every epoch, so none is ever final. Use output mode update or complete",
        )),
        OutputMode::Complete if aggregations == 0 => Err(Error::refused(
            "STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION",
            "This output mode is not supported for no streaming aggregations on streaming DataFrames/DataSets: in complete mode all rows since the beginning would \
             have to be kept. Use output mode append",
        )),
        _ if aggregations > 1 => Err(Error::not_yet(
            "an aggregation over the rows of another aggregation of a stream",
        )),
        _ => Ok(()),
    }
}

fn aggregations(plan: &LogicalPlan) -> usize {
    let mut count = 0;
    let _ = plan.apply(|node| {
        count += usize::from(matches!(
            node,
            LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_)
        ));
        Ok(TreeNodeRecursion::Continue)
    });
    count
}
