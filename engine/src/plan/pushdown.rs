//! Filters below watermarks: rows that a query leaves out do not move its watermark, wherever the filter is written.
//!
//! The model moves a condition that does not mention the event time below the watermark, and so do we, or the same query
//! would close its windows at other moments. A condition on the event time stays above: rows that it leaves out have
//! still been seen. Conditions on the keys of an aggregation move below it likewise.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Expr, Extension, Filter, LogicalPlan};
use highwater_query::{TimeWindow, Watermark, can_fail, node_of};

use super::event_time::has_watermark;

/// The same plan with conditions as far down as its watermarks and aggregations are.
pub(super) fn below_watermarks(plan: LogicalPlan) -> Result<LogicalPlan> {
    push(plan, Vec::new())
}

/// True if a condition has somewhere to go.
fn leads_somewhere(plan: &LogicalPlan) -> bool {
    let keyed = |node: &LogicalPlan| match node {
        LogicalPlan::Aggregate(aggregate) => !aggregate.group_expr.is_empty(),
        _ => false,
    };
    has_watermark(plan) || plan.exists(|node| Ok(keyed(node))).unwrap_or(false)
}

/// `plan` filtered by `conditions`, which are over its columns.
fn push(plan: LogicalPlan, conditions: Vec<Expr>) -> Result<LogicalPlan> {
    if !leads_somewhere(&plan) {
        return filtered(plan, conditions);
    }
    if let Some(watermark) = node_of::<Watermark>(&plan) {
        let stay = |condition: &Expr| condition.column_refs().contains(&watermark.column);
        return around(&plan, conditions, stay, Ok);
    }
    if let Some(window) = node_of::<TimeWindow>(&plan) {
        let made = Column::new_unqualified(window.name.clone());
        let stay = |condition: &Expr| condition.column_refs().contains(&made);
        return around(&plan, conditions, stay, Ok);
    }
    match &plan {
        LogicalPlan::Filter(filter) => {
            let mut all = split_conjunction_owned(filter.predicate.clone());
            all.extend(conditions);
            push(filter.input.as_ref().clone(), all)
        }
        LogicalPlan::Projection(projection) => {
            let values = projection.expr.clone();
            let below = |condition| replaced(condition, &plan, &values);
            around(&plan, conditions, |_| false, below)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let columns = (0..alias.input.schema().fields().len()).map(|index| {
                Expr::Column(Column::from(alias.input.schema().qualified_field(index)))
            });
            let columns: Vec<Expr> = columns.collect();
            let below = |condition| replaced(condition, &plan, &columns);
            around(&plan, conditions, |_| false, below)
        }
        LogicalPlan::Aggregate(aggregate) => {
            let keys = aggregate.group_expr.clone();
            // A condition that can fail is asked of the groups that come out, and of no others.
            let stay = |condition: &Expr| {
                let columns = condition.column_refs();
                let mut places = columns
                    .into_iter()
                    .map(|column| plan.schema().maybe_index_of_column(column));
                can_fail(condition)
                    || keys.is_empty()
                    || places.any(|place| place.is_none_or(|place| place >= keys.len()))
            };
            let below = |condition| replaced(condition, &plan, &keys);
            around(&plan, conditions, stay, below)
        }
        _ => {
            let plan = plan.map_children(|child| Ok(Transformed::yes(push(child, Vec::new())?)))?;
            filtered(plan.data, conditions)
        }
    }
}

/// The node with those conditions that do not `stay` above it moved below, said in its input's columns.
fn around(
    node: &LogicalPlan,
    conditions: Vec<Expr>,
    stay: impl Fn(&Expr) -> bool,
    below: impl Fn(Expr) -> Result<Expr>,
) -> Result<LogicalPlan> {
    let (mut above, mut moved) = (Vec::new(), Vec::new());
    for condition in conditions {
        // One that can fail is not asked of rows that another one, before it, may have left out.
        if stay(&condition) || !above.is_empty() && can_fail(&condition) {
            above.push(condition);
        } else {
            moved.push(below(condition)?);
        }
    }
    let input = push(node.inputs()[0].clone(), moved)?;
    let node = match node {
        LogicalPlan::Extension(extension) => {
            let exprs = extension.node.expressions();
            let node = extension.node.with_exprs_and_inputs(exprs, vec![input])?;
            LogicalPlan::Extension(Extension { node })
        }
        other => {
            let exprs = other.expressions();
            other.with_new_exprs(exprs, vec![input])?
        }
    };
    filtered(node, above)
}

/// One filter for each condition, the first at the bottom: each is asked of what those before it leave.
fn filtered(plan: LogicalPlan, conditions: Vec<Expr>) -> Result<LogicalPlan> {
    conditions.into_iter().try_fold(plan, |plan, condition| {
        let filter = Filter::try_new(condition, Arc::new(plan))?;
        Ok(LogicalPlan::Filter(filter))
    })
}

/// The condition with each column of `node` replaced by the value it has below.
fn replaced(condition: Expr, node: &LogicalPlan, values: &[Expr]) -> Result<Expr> {
    let replaced = condition.transform(|expr| {
        let Expr::Column(column) = &expr else {
            return Ok(Transformed::no(expr));
        };
        let index = node.schema().index_of_column(column)?;
        Ok(Transformed::yes(values[index].clone().unalias()))
    });
    Ok(replaced?.data)
}
