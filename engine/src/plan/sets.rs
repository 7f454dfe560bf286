//! EXCEPT of a stream and static rows: an anti join, as nothing that comes later on the right takes rows back.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinConstraint, JoinType, NullEquality, Result};
use datafusion::logical_expr::{
    BinaryExpr, Distinct, Expr, Filter, Join, LogicalPlan, Operator, Projection,
};
use highwater_query::set_operation;

use super::compile::is_streaming;

/// The same plan without the counts of static rows that only take rows away.
pub(super) fn without_static(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.transform_up(|node| {
        let LogicalPlan::Filter(filter) = &node else {
            return Ok(Transformed::no(node));
        };
        Ok(match except(filter)? {
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
    let LogicalPlan::Aggregate(aggregate) = filter.input.as_ref() else {
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
        JoinType::LeftAnti,
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
