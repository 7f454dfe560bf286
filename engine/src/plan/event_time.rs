//! Event time in a plan: which columns carry a watermark, and aggregations by it.
//!
//! A group by a window is a group by the window's end: [`by_event_time`] makes it the first key of its aggregation and
//! puts the window back above. So closing groups is reading a range, whatever the key looks like in the query.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprSchemable, LogicalPlan, Projection, Window, cast,
};
use highwater_query::{
    Deduplicate, Form, Observe, TimeWindow, Watermark, node_of, same_event_time, session_key,
    window_end, window_of_end, window_width,
};

use super::compile::is_streaming;
use super::panes::ends_of;
use crate::error::Error;

/// Which columns of a plan's output are event time under a watermark.
pub(super) fn watermarked(plan: &LogicalPlan) -> Vec<bool> {
    let width = plan.schema().fields().len();
    let all_of = |input: &LogicalPlan, exprs: &[Expr]| -> Vec<bool> {
        let below = watermarked(input);
        exprs
            .iter()
            .map(|expr| is_event_time(expr, input, &below))
            .collect()
    };
    if let Some(watermark) = node_of::<Watermark>(plan) {
        let mut columns = watermarked(&watermark.input);
        if let Some(index) = plan.schema().maybe_index_of_column(&watermark.column) {
            columns[index] = true;
        }
        return columns;
    }
    if let Some(observe) = node_of::<Observe>(plan) {
        return watermarked(&observe.input);
    }
    if let Some(deduplicate) = node_of::<Deduplicate>(plan) {
        return watermarked(&deduplicate.input);
    }
    if let Some(window) = node_of::<TimeWindow>(plan) {
        let mut columns = watermarked(&window.input);
        columns.push(is_event_time(&window.time, &window.input, &columns));
        return columns;
    }
    match plan {
        LogicalPlan::Projection(projection) => all_of(&projection.input, &projection.expr),
        LogicalPlan::Aggregate(aggregate) => {
            let mut columns = all_of(&aggregate.input, &aggregate.group_expr);
            columns.resize(width, false);
            columns
        }
        // Static rows have no watermark of their own: they go by that of the stream they join.
        LogicalPlan::Union(union) => {
            let mut inputs = union.inputs.iter();
            let input = inputs.find(|input| is_streaming(input));
            input.map_or(vec![false; width], |input| watermarked(input))
        }
        LogicalPlan::Join(join) => {
            let mut columns = watermarked(&join.left);
            columns.extend(watermarked(&join.right));
            // A semi join has the columns of one side; the mark of another is no time.
            columns.resize(width, false);
            columns
        }
        // What a function of the rows around says is no time of a row.
        LogicalPlan::Window(window) => {
            let mut columns = watermarked(&window.input);
            columns.resize(width, false);
            columns
        }
        LogicalPlan::Unnest(unnest) => {
            let below = watermarked(&unnest.input);
            let dependency = unnest.dependency_indices.iter();
            let made: BTreeSet<usize> = unnest.list_type_columns.iter().map(|(i, _)| *i).collect();
            dependency
                .map(|index| below[*index] && !made.contains(index))
                .collect()
        }
        LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_) => watermarked(plan.inputs()[0]),
        _ => vec![false; width],
    }
}

pub(super) fn is_event_time(expr: &Expr, input: &LogicalPlan, below: &[bool]) -> bool {
    if let Expr::Alias(alias) = expr
        && alias.name == END
    {
        let windows = alias.expr.column_refs().into_iter();
        let mut windows = windows.filter_map(|column| index_of(input, column));
        return windows.any(|index| below[index]);
    }
    let expr = match expr {
        // The end of windows, taken from them by `regroup`.
        Expr::Alias(alias) if alias.name == END => match alias.expr.as_ref() {
            Expr::ScalarFunction(field) if !field.args.is_empty() => &field.args[0],
            other => other,
        },
        other => other,
    };
    let index = same_event_time(expr).and_then(|column| index_of(input, column));
    index.is_some_and(|index| below[index])
}

pub(super) fn index_of(plan: &LogicalPlan, column: &Column) -> Option<usize> {
    plan.schema().maybe_index_of_column(column)
}

/// The keys of an aggregation that are event time under a watermark.
pub(super) fn event_keys(plan: &LogicalPlan) -> Vec<usize> {
    let count = match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.len(),
        LogicalPlan::Distinct(_) => plan.schema().fields().len(),
        _ => 0,
    };
    let columns = watermarked(plan);
    (0..count).filter(|index| columns[*index]).collect()
}

/// The event time that all rows of a partition share, if all functions of an OVER go by partitions of one: of windows
/// their end.
pub(super) fn partition_time(window: &Window) -> Result<Option<Expr>> {
    let columns = watermarked(&window.input);
    let mut time = None;
    for call in &window.window_expr {
        let Expr::WindowFunction(function) = call.clone().unalias() else {
            return Ok(None);
        };
        let by = function.params.partition_by.into_iter();
        let is_time = |by: &Expr| is_event_time(by, &window.input, &columns);
        let Some(of_call) = by.map(Expr::unalias).find(is_time) else {
            return Ok(None);
        };
        if *time.get_or_insert_with(|| of_call.clone()) != of_call {
            return Ok(None);
        }
    }
    let Some(time) = time else {
        return Ok(None);
    };
    let data_type = time.get_type(window.input.schema())?;
    match data_type {
        DataType::Struct(_) => window_end(time, &data_type).map(Some),
        _ => Ok(Some(time)),
    }
}

/// The error for rows of which it is not known which event time makes them late.
pub(super) fn several(what: &str) -> Error {
    Error::refused(
        "MULTIPLE_EVENT_TIME_COLUMNS",
        format!(
            "More than one event time columns are available. Please ensure there is at most one event time column in the stream: {what} goes by one of them. Select one, or make \
             another value of the others, as in CAST(at AS STRING)"
        ),
    )
}

/// The column that makes rows late: the first that is event time, and a time before the windows that it is in.
pub(super) fn event_time(plan: &LogicalPlan) -> Option<usize> {
    let columns = watermarked(plan);
    let schema = plan.schema();
    let is_window = |index: &usize| matches!(schema.field(*index).data_type(), DataType::Struct(_));
    let times = || (0..columns.len()).filter(|index| columns[*index]);
    times().find(|index| !is_window(index)).or(times().next())
}

/// True if rows come as they left a source: what an operator below has made of rows in time is not late, whichever of
/// its times is asked.
pub(super) fn is_unjudged(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(_) => is_streaming(plan),
        LogicalPlan::Aggregate(_) => event_keys(plan).is_empty() && is_unjudged(plan.inputs()[0]),
        LogicalPlan::Join(join) => {
            let sides = [join.left.as_ref(), join.right.as_ref()];
            sides.iter().any(|side| !is_streaming(side))
                && sides.iter().any(|side| is_unjudged(side))
        }
        _ if node_of::<Deduplicate>(plan).is_some() => false,
        other => other.inputs().into_iter().any(is_unjudged),
    }
}

/// True if some rows of the plan have a watermark.
pub(super) fn has_watermark(plan: &LogicalPlan) -> bool {
    plan.exists(|node| Ok(node_of::<Watermark>(node).is_some()))
        .unwrap_or(false)
}

/// The same plan where rows may leave again by their place among others: they leave whenever another comes before them,
/// however long ago theirs was, so nothing above may call them late. What a LIMIT or an OVER gives has no event time,
/// but where all rows of a partition have one.
pub(super) fn not_by_place(plan: LogicalPlan) -> Result<LogicalPlan> {
    let hidden = plan.transform_up(|node| {
        let by_place = match &node {
            LogicalPlan::Limit(_) => true,
            LogicalPlan::Window(window) => partition_time(window)?.is_none(),
            _ => false,
        };
        let times = watermarked(&node);
        if !by_place || !times.contains(&true) {
            return Ok(Transformed::no(node));
        }
        let schema = Arc::clone(node.schema());
        let columns = times.iter().enumerate().map(|(index, is_time)| {
            let (qualifier, field) = schema.qualified_field(index);
            let column = column(&node, index);
            match is_time {
                true => cast(column, field.data_type().clone())
                    .alias_qualified(qualifier.cloned(), field.name()),
                false => column,
            }
        });
        let projection = Projection::try_new(columns.collect(), Arc::new(node.clone()))?;
        Ok(Transformed::yes(LogicalPlan::Projection(projection)))
    });
    Ok(hidden?.data)
}

/// The same plan with every aggregation by a window or an event time regrouped: the end of the window, or the time, is
/// its first key.
pub(super) fn by_event_time(plan: LogicalPlan) -> Result<LogicalPlan> {
    let regrouped = plan.transform_up(|node| {
        let aggregate = match &node {
            // A batch has no panes.
            _ if !is_streaming(&node) => return Ok(Transformed::no(node)),
            LogicalPlan::Aggregate(aggregate) => aggregate.clone(),
            LogicalPlan::Distinct(Distinct::All(input)) if !event_keys(&node).is_empty() => {
                let columns = (0..input.schema().fields().len()).map(|i| column(input, i));
                Aggregate::try_new(Arc::clone(input), columns.collect(), vec![])?
            }
            _ => return Ok(Transformed::no(node)),
        };
        match regroup(&aggregate)? {
            Some(plan) => Ok(Transformed::yes(plan)),
            // Rows that are distinct by an event time are groups by it, where it is the first column too.
            None if matches!(node, LogicalPlan::Distinct(_)) => {
                Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
            }
            None => Ok(Transformed::no(node)),
        }
    });
    Ok(regrouped?.data)
}

fn column(plan: &LogicalPlan, index: usize) -> Expr {
    Expr::Column(Column::from(plan.schema().qualified_field(index)))
}

fn regroup(aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
    // Sessions are kept by their other keys.
    if session_key(aggregate).is_some() {
        return Ok(None);
    }
    let input = &aggregate.input;
    let types: Vec<DataType> = aggregate
        .group_expr
        .iter()
        .map(|key| key.get_type(input.schema()))
        .collect::<Result<_>>()?;
    let width = |key: usize| window_of(&aggregate.group_expr[key], input);
    let plan = LogicalPlan::Aggregate(aggregate.clone());
    // Without a watermark a window is still grouped by faster as its end.
    let windows = (0..types.len()).filter(|key| width(*key).is_some());
    let Some(key) = event_keys(&plan).into_iter().chain(windows).next() else {
        return Ok(None);
    };
    let made = &aggregate.group_expr[key];
    let is_struct = matches!(types[key], DataType::Struct(_));
    let mut below = Arc::clone(input);
    let end = match (is_struct, ends_of(aggregate, key)?) {
        (false, _) if key == 0 => return Ok(None),
        (false, _) => made.clone(),
        (true, Some((ends, column))) => {
            below = Arc::new(ends);
            // A name that a change elsewhere in the query does not change: it is part of the state's description.
            Expr::Column(column).alias(END)
        }
        (true, None) => window_end(made.clone().unalias(), &types[key])?.alias(END),
    };
    let width = width(key).or((!is_struct).then_some(0));
    let mut keys = vec![end];
    let others = aggregate.group_expr.iter().enumerate();
    // Sessions, and windows of several widths, are not told by their end alone.
    keys.extend(
        others
            .filter(|(i, _)| width.is_none() || *i != key)
            .map(|(_, e)| e.clone()),
    );
    let regrouped = Aggregate::try_new(below, keys, aggregate.aggr_expr.clone())?;
    let regrouped = LogicalPlan::Aggregate(regrouped);
    // Above, the columns as they were.
    let mut outputs = Vec::new();
    for index in 0..aggregate.schema.fields().len() {
        let (qualifier, field) = aggregate.schema.qualified_field(index);
        outputs.push(match (index.cmp(&key), width) {
            (_, None) | (std::cmp::Ordering::Less, _) => column(&regrouped, index + 1),
            (std::cmp::Ordering::Greater, _) => column(&regrouped, index),
            (std::cmp::Ordering::Equal, _) if !is_struct => column(&regrouped, 0),
            (std::cmp::Ordering::Equal, Some(width)) => {
                let end = column(&regrouped, 0);
                let end_type = regrouped.schema().field(0).data_type();
                window_of_end(end, end_type, width)
                    .alias_qualified(qualifier.cloned(), field.name().clone())
            }
        });
    }
    let plan = Projection::try_new(outputs, Arc::new(regrouped))?;
    Ok(Some(LogicalPlan::Projection(plan)))
}

/// The name of a window's end where it is a key.
const END: &str = "__window_end";

/// The width of the windows that `expr` over `input` gives, if it gives windows.
fn window_of(expr: &Expr, input: &LogicalPlan) -> Option<i64> {
    window_width(expr).or_else(|| match expr {
        Expr::Column(column) => width_below(input, index_of(input, column)?),
        Expr::Alias(alias) => window_of(&alias.expr, input),
        _ => None,
    })
}

fn width_below(plan: &LogicalPlan, index: usize) -> Option<i64> {
    if let Some(window) = node_of::<TimeWindow>(plan) {
        let own = window.input.schema().fields().len();
        return match window.form {
            Form::Struct if index == own => Some(window.grid.width_us),
            _ if index < own => width_below(&window.input, index),
            _ => None,
        };
    }
    match plan {
        LogicalPlan::Projection(projection) => {
            window_of(&projection.expr[index], &projection.input)
        }
        LogicalPlan::Aggregate(aggregate) => {
            window_of(aggregate.group_expr.get(index)?, &aggregate.input)
        }
        LogicalPlan::Unnest(unnest) => {
            width_below(&unnest.input, *unnest.dependency_indices.get(index)?)
        }
        LogicalPlan::Union(union) => {
            let mut widths = union.inputs.iter().map(|input| width_below(input, index));
            let first = widths.next()??;
            widths.all(|width| width == Some(first)).then_some(first)
        }
        LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::Extension(_) => width_below(plan.inputs()[0], index),
        _ => None,
    }
}
