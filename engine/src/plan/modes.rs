//! Which output modes a plan can honour: the model's rules and words.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};
use highwater_query::{
    SetOperation, Watermark, aggregate_name, is_asked_for, names_ours, node_of, set_operation,
    written,
};

use super::compile::is_streaming;
use super::event_time::{event_keys, partition_time};
use crate::error::Error;
use crate::sink::OutputMode;

/// Refuses a mode the plan cannot honour.
pub(super) fn check(plan: &LogicalPlan, mode: OutputMode) -> Result<(), Error> {
    let aggregations = aggregations(plan);
    let unbounded =
        |node: &&LogicalPlan| event_keys(node).is_empty() && !super::firsts::are_final(node);
    let mut sets = aggregations.iter().filter_map(|node| set_operation(node));
    // What an aggregation without keys is made of may leave: its row does not.
    let handed_on = match mode {
        OutputMode::Update => handed_on(plan),
        _ => aggregations.clone(),
    };
    let mut taken = handed_on.iter().filter_map(|node| set_operation(node));
    let bounded = !aggregations.iter().any(unbounded);
    let refuses = match mode {
        OutputMode::Append => !bounded,
        OutputMode::Update => true,
        OutputMode::Complete | OutputMode::Changes => false,
    };
    if refuses && let Some(refused) = taken.find_map(|set| taken_away(&set, mode)) {
        return Err(refused);
    }
    if mode == OutputMode::Update && is_intersect_all(plan) {
        return Err(intersected());
    }
    if mode == OutputMode::Append && !bounded {
        let has_except = sets.clone().any(|set| set.except);
        // The model looks at the topmost aggregation when it is asked, at the others when they run.
        let later = sets.next().is_some()
            || aggregations.first().is_some_and(|top| !unbounded(top))
            || aggregations.iter().any(|node| is_asked_for(node));
        // EXCEPT of static rows is a join by now, but for EXCEPT ALL.
        let why = match has_except {
            true => {
                "EXCEPT ALL leaves a row as often as the left side has it more often, and that may grow with every epoch. \
                 Use EXCEPT, which leaves it once, or output mode complete or changes"
            }
            false => {
                "append mode emits final rows, and the row of a group may change with every epoch, so none is ever final. \
                 Group by a column with a watermark or by a window of it, or use output mode update, complete or changes"
            }
        };
        return Err(match later {
            true => Error::refused(
                "UNSUPPORTED_STREAMING_OPERATOR_WITHOUT_WATERMARK",
                format!(
                    "Append output mode not supported for aggregations on streaming DataFrames/DataSets without watermark: {why}"
                ),
            ),
            false => Error::refused(
                "STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION",
                format!(
                    "This output mode is not supported for streaming aggregations without watermark on streaming DataFrames/DataSets: {why}"
                ),
            ),
        });
    }
    by_place(plan, mode)?;
    let keeps = super::firsts::deduplicates(plan) || super::firsts::joins_streams(plan);
    if !aggregations.is_empty() || keeps {
        watermarks(
            plan,
            mode == OutputMode::Complete && aggregations.is_empty(),
        )?;
    }
    if matches!(mode, OutputMode::Append | OutputMode::Update) {
        over_rows(plan, mode)?;
    }
    if mode != OutputMode::Complete && aggregations.iter().any(|node| event_keys(node).len() > 1) {
        return Err(super::event_time::several("grouping"));
    }
    Ok(())
}

/// Refuses functions over windows of rows, whose answer for a row changes with later rows: but for those over all rows of
/// a moment or of a window of time, which are final when the watermark has passed it.
fn over_rows(plan: &LogicalPlan, mode: OutputMode) -> Result<(), Error> {
    let mut refused = None;
    let visited = plan.apply(|node| {
        let LogicalPlan::Projection(projection) = node else {
            return Ok(TreeNodeRecursion::Continue);
        };
        let mut below = projection.input.as_ref();
        while let LogicalPlan::Window(window) = below {
            if mode == OutputMode::Append && partition_time(window)?.is_some() {
                below = window.input.as_ref();
                continue;
            }
            for (call, field) in window.window_expr.iter().zip(
                window.schema.fields().iter().skip(window.input.schema().fields().len()),
            ) {
                let Expr::WindowFunction(function) = call.clone().unalias() else {
                    continue;
                };
                let uses = |expr: &&Expr| {
                    expr.column_refs().iter().any(|column| column.name == *field.name())
                };
                let named = projection.expr.iter().find(uses).map(|e| e.schema_name().to_string());
                if is_streaming(node) && refused.is_none() {
                    let args: Vec<String> = function.params.args.iter().map(written).collect();
                    let named = named.filter(|name| !names_ours(name));
                    let named = named.map(|name| format!(" (as column `{name}`)"));
                    let name = aggregate_name(function.fun.name(), function.params.distinct).to_uppercase();
                    let call = format!("{name}({})", args.join(", "));
                    refused = Some(format!(
                        "Window function is not supported in {call}{} on streaming DataFrames/Datasets in this output mode: a later row may change what has been \
                         said of earlier ones. Use output mode complete or changes, or, in append mode, PARTITION BY a column with a watermark or a window of it",
                        named.unwrap_or_default(),
                    ));
                }
            }
            below = window.input.as_ref();
        }
        Ok(TreeNodeRecursion::Continue)
    });
    visited.map_err(Error::run)?;
    match refused {
        None => Ok(()),
        Some(words) => Err(Error::refused(
            "NON_TIME_WINDOW_NOT_SUPPORTED_IN_STREAMING",
            words,
        )),
    }
}

/// The error for INTERSECT and EXCEPT in update mode, which cannot say that a row has left: if the right side goes on.
fn taken_away(set: &SetOperation<'_>, mode: OutputMode) -> Option<Error> {
    let both = is_streaming(set.left) && is_streaming(set.right);
    let (words, why) = match set.except {
        true if is_streaming(set.right) => (
            "Except on a streaming DataFrame/Dataset on the right is not supported",
            "a row that comes on the right takes its own back. Use output mode complete or changes",
        ),
        false if both || mode == OutputMode::Append => return Some(intersected()),
        _ => return None,
    };
    Some(Error::refused(
        "_LEGACY_ERROR_TEMP_3102",
        format!("{words} in this output mode: {why}"),
    ))
}

fn intersected() -> Error {
    Error::refused(
        "_LEGACY_ERROR_TEMP_3102",
        "Intersect of streaming DataFrames/Datasets is not supported in this output mode: INTERSECT ALL gives a row as often as the side has it \
         that has it less often, and that may grow with every epoch. Use INTERSECT, which gives it once, or output mode complete or changes",
    )
}

/// True for an INTERSECT ALL whose copies come out as they are: nothing tells those of an epoch from those before it.
fn is_intersect_all(plan: &LogicalPlan) -> bool {
    let below = |plan| {
        let mut plan: &LogicalPlan = plan;
        while let LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_) = plan
        {
            plan = plan.inputs()[0];
        }
        plan
    };
    match below(plan) {
        LogicalPlan::Unnest(copies) => {
            set_operation(below(&copies.input)).is_some_and(|set| !set.except)
        }
        _ => false,
    }
}

/// Refuses what goes by the place of rows among all of them, where a mode cannot say that a row has lost its place.
fn by_place(plan: &LogicalPlan, mode: OutputMode) -> Result<(), Error> {
    let refused = |message: &str| Err(Error::refused("_LEGACY_ERROR_TEMP_3102", message));
    if matches!(mode, OutputMode::Complete | OutputMode::Changes) {
        return Ok(());
    }
    // A static part has its order before the query begins.
    let has = |wanted: fn(&LogicalPlan) -> bool| {
        plan.exists(|node| Ok(wanted(node) && is_streaming(node)))
    };
    if has(|node| matches!(node, LogicalPlan::Sort(_))).map_err(Error::run)? {
        let why = match mode {
            OutputMode::Append => {
                "a row comes out as soon as it is final, and does not wait until those are final that belong before it"
            }
            _ => "the rows that an epoch changes come out without those around them",
        };
        return refused(&format!(
            "Sorting is not supported on streaming DataFrames/Datasets, unless it is on aggregated DataFrame/Dataset in Complete output mode: \
             {why}. Use output mode complete, which hands over the sorted answer whole, changes, which takes rows back that leave the first ones, \
             or sort where the rows are read"
        ));
    }
    let skips =
        |node: &LogicalPlan| matches!(node, LogicalPlan::Limit(limit) if limit.skip.is_some());
    if has(skips).map_err(Error::run)? {
        return refused(
            "Offset is not supported on streaming DataFrames/Datasets: which rows come first is not known before all have come. \
             Skip them where the rows are read, or leave them out with a condition",
        );
    }
    let over_changing = mode == OutputMode::Update && !aggregations(plan).is_empty();
    if over_changing && has(|node| matches!(node, LogicalPlan::Limit(_))).map_err(Error::run)? {
        return refused(
            "Limits are not supported on streaming DataFrames/Datasets in Update output mode: a row that leaves the first ones has no successor \
             under its key, and update mode cannot take it back. Use output mode complete or changes",
        );
    }
    Ok(())
}

/// Refuses a watermark over another one; in the model a query that has `no_table` to hand over whole is refused first.
fn watermarks(plan: &LogicalPlan, no_table: bool) -> Result<(), Error> {
    let mut refused = None;
    let _ = plan.apply(|node| {
        if let Some(watermark) = node_of::<Watermark>(node) {
            let twice = super::event_time::has_watermark(&watermark.input);
            if twice {
                let why = format!(
                    "Redefining watermark is disallowed: the rows of \"{}\" have one already. Set one watermark per source",
                    watermark.column
                );
                refused = Some(match no_table {
                    true => Error::refused(
                        "STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION",
                        format!(
                            "This output mode is not supported for no streaming aggregations on streaming DataFrames/DataSets. {why}"
                        ),
                    ),
                    false => Error::refused("_LEGACY_ERROR_TEMP_3076", why),
                });
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    refused.map_or(Ok(()), Err)
}

/// The nodes of streams whose rows are handed on, perhaps as groups: not those below an aggregation without keys.
fn handed_on(plan: &LogicalPlan) -> Vec<&LogicalPlan> {
    let mut found = Vec::new();
    let _ = plan.apply(|node| {
        if !is_streaming(node) {
            return Ok(TreeNodeRecursion::Jump);
        }
        found.push(node);
        Ok(match node {
            node if has_one_row(node) => TreeNodeRecursion::Jump,
            _ => TreeNodeRecursion::Continue,
        })
    });
    found
}

/// True for an aggregation without keys.
fn has_one_row(node: &LogicalPlan) -> bool {
    matches!(node, LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty())
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
