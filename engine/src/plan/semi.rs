//! Subqueries over static rows below watermarks: like any other filter there, as in the model. A semi or anti join that is
//! written as one stays where it is.

use std::sync::Arc;

use datafusion::common::{Column, JoinType, Result};
use datafusion::logical_expr::{Expr, Extension, Join, LogicalPlan};
use highwater_query::{Observe, TimeWindow, Watermark, can_fail, node_of};

use super::compile::is_streaming;
use super::event_time::has_watermark;
use super::pushdown::replaced;

/// True for what was a subquery.
fn was_subquery(plan: &LogicalPlan) -> bool {
    match plan {
        // The planner's name for one that it makes a join of.
        LogicalPlan::SubqueryAlias(alias) => alias.alias.table().starts_with("__correlated_sq"),
        LogicalPlan::Filter(_) | LogicalPlan::Projection(_) => was_subquery(plan.inputs()[0]),
        _ => false,
    }
}

/// The join, below the watermarks of its left side if it only says which rows of a stream come out.
pub(super) fn below_watermark(join: Join) -> Result<LogicalPlan> {
    let filters = matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti);
    if !filters
        || !was_subquery(&join.right)
        || is_streaming(&join.right)
        || !has_watermark(&join.left)
    {
        return Ok(LogicalPlan::Join(join));
    }
    let left = Arc::clone(&join.left);
    let own = |index: usize, plan: &LogicalPlan| {
        Expr::Column(Column::from(plan.schema().qualified_field(index)))
    };
    let values: Vec<Expr> = match left.as_ref() {
        LogicalPlan::Projection(projection) => projection.expr.clone(),
        LogicalPlan::SubqueryAlias(alias) => {
            let width = alias.input.schema().fields().len();
            (0..width).map(|index| own(index, &alias.input)).collect()
        }
        LogicalPlan::Filter(filter) if !can_fail(&filter.predicate) => {
            let width = left.schema().fields().len();
            (0..width).map(|index| own(index, &left)).collect()
        }
        LogicalPlan::Extension(_) => {
            let passes = node_of::<Watermark>(&left).is_some()
                || node_of::<TimeWindow>(&left).is_some()
                || node_of::<Observe>(&left).is_some();
            let by_time = node_of::<Watermark>(&left).is_some_and(|watermark| {
                let time = left.schema().maybe_index_of_column(&watermark.column);
                used(&join).iter().any(|place| Some(*place) == time)
            });
            if !passes || by_time {
                return Ok(LogicalPlan::Join(join));
            }
            let width = left.inputs()[0].schema().fields().len();
            (0..width)
                .map(|index| own(index, left.inputs()[0]))
                .collect()
        }
        _ => return Ok(LogicalPlan::Join(join)),
    };
    let input = left.inputs()[0];
    let places = used(&join);
    let moves = places
        .iter()
        .all(|place| values.get(*place).is_some_and(|value| !can_fail(value)));
    if !moves || input.schema().join(join.right.schema()).is_err() {
        return Ok(LogicalPlan::Join(join));
    }
    let mut values = values;
    // What a window adds is not used.
    let width = left.schema().fields().len();
    (values.len()..width).for_each(|index| values.push(own(index, &left)));
    let on = join
        .on
        .iter()
        .map(|(mine, other)| Ok((replaced(mine.clone(), &left, &values)?, other.clone())));
    let filter = join.filter.clone();
    let below = Join::try_new(
        Arc::new(input.clone()),
        Arc::clone(&join.right),
        on.collect::<Result<Vec<_>>>()?,
        filter
            .map(|filter| replaced(filter, &left, &values))
            .transpose()?,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    let below = below_watermark(below)?;
    match left.as_ref() {
        LogicalPlan::Extension(extension) => {
            let exprs = extension.node.expressions();
            let node = extension.node.with_exprs_and_inputs(exprs, vec![below])?;
            Ok(LogicalPlan::Extension(Extension { node }))
        }
        other => other.with_new_exprs(other.expressions(), vec![below]),
    }
}

/// The places of the left side's columns that a join's condition uses.
fn used(join: &Join) -> Vec<usize> {
    let on = join.on.iter().map(|(left, _)| left);
    let exprs = on.chain(join.filter.iter());
    let columns = exprs.flat_map(|expr| expr.column_refs());
    columns
        .filter_map(|column| join.left.schema().maybe_index_of_column(column))
        .collect()
}
