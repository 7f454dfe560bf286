//! Filters below watermarks: rows that a query leaves out do not move its watermark, wherever the filter is written.
//!
//! The model moves a condition that does not mention the event time below the watermark, and so do we, or the same query
//! would close its windows at other moments. A condition on the event time stays above: rows that it leaves out have
//! still been seen. Conditions on the keys of an aggregation move below it likewise.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, JoinType, Result};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Distinct, Expr, Extension, Filter, Join, LogicalPlan, Union};
use highwater_query::{TimeWindow, Watermark, all_of, can_fail, conjuncts, node_of, session_key};

use super::compile::is_streaming;
use super::event_time::has_watermark;
use super::infer::inferred;
use super::join::is_over;
use super::semi;

/// The same plan with conditions as far down as its watermarks and aggregations are.
pub(super) fn below_watermarks(plan: LogicalPlan) -> Result<LogicalPlan> {
    push(plan, Vec::new())
}

/// True if a condition has somewhere to go.
fn leads_somewhere(plan: &LogicalPlan) -> bool {
    let takes = |node: &LogicalPlan| match node {
        LogicalPlan::Aggregate(aggregate) => !aggregate.group_expr.is_empty(),
        LogicalPlan::Join(_) | LogicalPlan::Distinct(_) => true,
        _ => false,
    };
    let found = has_watermark(plan) || plan.exists(|node| Ok(takes(node))).unwrap_or(false);
    // DataFusion has rules of its own for rows that are all there.
    found && is_streaming(plan)
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
        LogicalPlan::Join(join) => below_join(join, conditions),
        LogicalPlan::Union(union) => {
            let below = |input: &Arc<LogicalPlan>| {
                let fields = 0..input.schema().fields().len();
                let columns = fields
                    .map(|index| Expr::Column(Column::from(input.schema().qualified_field(index))));
                let columns: Vec<Expr> = columns.collect();
                let own = conditions.iter().cloned();
                let own = own.map(|condition| replaced(condition, &plan, &columns));
                let own = own.collect::<Result<_>>()?;
                push(input.as_ref().clone(), own).map(Arc::new)
            };
            let inputs = union.inputs.iter().map(below).collect::<Result<_>>()?;
            Ok(LogicalPlan::Union(Union {
                inputs,
                schema: Arc::clone(&union.schema),
            }))
        }
        // Rows that are distinct are groups by all columns.
        LogicalPlan::Distinct(Distinct::All(_)) => around(&plan, conditions, can_fail, Ok),
        LogicalPlan::Aggregate(aggregate) => {
            let keys = aggregate.group_expr.clone();
            // The session that a row would make alone says little about the one it is part of.
            let session = session_key(aggregate);
            let uses = |condition: &Expr, key: usize| {
                let mut columns = condition.column_refs().into_iter();
                columns.any(|column| plan.schema().maybe_index_of_column(column) == Some(key))
            };
            // A condition that can fail is asked of the groups that come out, and of no others.
            let stay = |condition: &Expr| {
                let columns = condition.column_refs();
                let mut places = columns
                    .into_iter()
                    .map(|column| plan.schema().maybe_index_of_column(column));
                can_fail(condition)
                    || keys.is_empty()
                    || places.any(|place| place.is_none_or(|place| place >= keys.len()))
                    || session.is_some_and(|session| uses(condition, session))
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

/// A join with the conditions that one side alone can answer asked there, and those of both asked of its pairs.
fn below_join(join: &Join, conditions: Vec<Expr>) -> Result<LogicalPlan> {
    use JoinType::{Full, Inner, Left, LeftAnti, LeftMark, LeftSemi, Right};
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let kind = join.join_type;
    // A row that fails a condition above does not come out, whatever its partners, if its side is kept whole.
    let from_above = (
        matches!(kind, Inner | Left | LeftSemi | LeftAnti | LeftMark),
        matches!(kind, Inner | Right),
    );
    // A row that fails a condition of the join has no partner, and then does not come out.
    let from_pairs = (
        matches!(kind, Inner | Right | LeftSemi),
        matches!(kind, Inner | Left | LeftSemi | LeftAnti | LeftMark),
    );
    let mut part = |conditions: Vec<Expr>, goes: (bool, bool)| {
        let mut stay = Vec::new();
        for condition in conditions {
            // What can fail is not asked of rows without a partner.
            let moves = kind != Full && !can_fail(&condition) && !join.null_aware;
            if moves && goes.0 && is_over(&condition, join.left.schema()) {
                left.push(condition);
            } else if moves && goes.1 && is_over(&condition, join.right.schema()) {
                right.push(condition);
            } else {
                stay.push(condition);
            }
        }
        stay
    };
    let mut above = part(conditions, from_above);
    let own = join.filter.iter().flat_map(conjuncts).collect();
    let mut pairs = part(own, from_pairs);
    if kind == Inner && !join.null_aware {
        let fails = above.iter().position(can_fail).unwrap_or(above.len());
        let rest = above.split_off(fails);
        pairs.append(&mut above);
        above = rest;
    }
    let [more_left, more_right] = inferred(join, &pairs, [&left, &right])?;
    left.extend(more_left);
    right.extend(more_right);
    let joined = Join::try_new(
        Arc::new(push(join.left.as_ref().clone(), left)?),
        Arc::new(push(join.right.as_ref().clone(), right)?),
        join.on.clone(),
        all_of(pairs),
        kind,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    filtered(semi::below_watermark(joined)?, above)
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
pub(super) fn replaced(condition: Expr, node: &LogicalPlan, values: &[Expr]) -> Result<Expr> {
    let replaced = condition.transform(|expr| {
        let Expr::Column(column) = &expr else {
            return Ok(Transformed::no(expr));
        };
        match node.schema().maybe_index_of_column(column) {
            Some(index) => Ok(Transformed::yes(values[index].clone().unalias())),
            None => Ok(Transformed::no(expr)), // of the other side of a join
        }
    });
    Ok(replaced?.data)
}
