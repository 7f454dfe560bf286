//! EXCEPT and INTERSECT as joins, where nothing that comes later takes rows back: EXCEPT of a stream and static rows is
//! an anti join, INTERSECT of rows that only come a semi join.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinConstraint, JoinType, NullEquality, Result};
use datafusion::logical_expr::{
    BinaryExpr, Distinct, Expr, Filter, Join, LogicalPlan, Operator, Projection,
};
use highwater_query::set_operation;

use super::compile::is_streaming;
use super::event_time::event_keys;
use crate::sink::OutputMode;

/// The same plan without the counts that say no more than whether a row is there.
pub(super) fn as_joins(plan: LogicalPlan, mode: OutputMode) -> Result<LogicalPlan> {
    let plan = plan.transform_up(|node| {
        let found = match &node {
            LogicalPlan::Filter(filter) => except(filter)?,
            LogicalPlan::Projection(projection) => intersect(projection, mode)?,
            _ => None,
        };
        Ok(match found {
            Some(plan) => Transformed::yes(plan),
            None => Transformed::no(node),
        })
    });
    Ok(plan?.data)
}

fn except(filter: &Filter) -> Result<Option<LogicalPlan>> {
    let Some(set) = set_operation(&filter.input) else {
        return Ok(None);
    };
    if !set.except || is_streaming(set.right) || !is_streaming(set.left) || copies(filter) {
        return Ok(None);
    }
    joined(&filter.input, JoinType::LeftAnti)
}

/// INTERSECT, where its counts are not asked for again, in the modes that cannot say that a count has changed.
fn intersect(projection: &Projection, mode: OutputMode) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::Filter(filter) = projection.input.as_ref() else {
        return Ok(None);
    };
    let Some(set) = set_operation(&filter.input).filter(|set| !set.except) else {
        return Ok(None);
    };
    let both = is_streaming(set.left) && is_streaming(set.right);
    let one = is_streaming(set.left) || is_streaming(set.right);
    let wanted = match mode {
        OutputMode::Append => one && event_keys(&filter.input).is_empty(),
        OutputMode::Update => both,
        OutputMode::Complete | OutputMode::Changes => false,
    };
    let LogicalPlan::Aggregate(aggregate) = filter.input.as_ref() else {
        return Ok(None);
    };
    let counts = aggregate
        .schema
        .columns()
        .split_off(aggregate.group_expr.len());
    let mut used = projection.expr.iter().flat_map(Expr::column_refs);
    if !wanted || used.any(|column| counts.contains(column)) {
        return Ok(None);
    }
    let Some(rows) = joined(&filter.input, JoinType::LeftSemi)? else {
        return Ok(None);
    };
    let again = Projection::try_new(projection.expr.clone(), Arc::new(rows))?;
    Ok(Some(LogicalPlan::Projection(again)))
}

/// The rows of the left side that have a partner on the right, or have none, each once, where `counted` has their counts.
fn joined(counted: &LogicalPlan, kind: JoinType) -> Result<Option<LogicalPlan>> {
    let (Some(set), LogicalPlan::Aggregate(aggregate)) = (set_operation(counted), counted) else {
        return Ok(None);
    };
    let width = aggregate.group_expr.len();
    let column = |plan: &LogicalPlan, index: usize| {
        Expr::Column(plan.schema().qualified_field(index).into())
    };
    let keys = |plan: &LogicalPlan, prefix: &str| {
        let key = |index: usize| {
            let name = format!("{prefix}{}", plan.schema().field(index).name());
            column(plan, index).alias(name)
        };
        Projection::try_new((0..width).map(key).collect(), Arc::new(plan.clone()))
    };
    let left = LogicalPlan::Projection(keys(set.left, "")?);
    let right = LogicalPlan::Projection(keys(set.right, "__right_")?);
    let on = (0..width).map(|index| (column(&left, index), column(&right, index)));
    let join = Join::try_new(
        Arc::new(left.clone()),
        Arc::new(right.clone()),
        on.collect(),
        None,
        kind,
        JoinConstraint::On,
        NullEquality::NullEqualsNull,
        false,
    )?;
    let distinct = LogicalPlan::Distinct(Distinct::All(Arc::new(LogicalPlan::Join(join))));
    // What stands above counts on the counts.
    let mut outputs = Vec::new();
    for index in 0..aggregate.schema.fields().len() {
        let (qualifier, field) = aggregate.schema.qualified_field(index);
        let value = match index < width {
            true => column(&distinct, index),
            false => Expr::Literal(i64::from(index == width).into(), None),
        };
        outputs.push(value.alias_qualified(qualifier.cloned(), field.name().clone()));
    }
    let plan = Projection::try_new(outputs, Arc::new(distinct))?;
    Ok(Some(LogicalPlan::Projection(plan)))
}

/// True for EXCEPT ALL, which compares the two counts.
fn copies(filter: &Filter) -> bool {
    let Expr::BinaryExpr(BinaryExpr { op, .. }) = &filter.predicate else {
        return true;
    };
    *op != Operator::And
}
