//! The subqueries that DataFusion makes joins of.

use datafusion::common::JoinType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Distinct, Expr as DfExpr, LogicalPlan, Operator};

pub(crate) fn names_outer(expr: &DfExpr) -> bool {
    expr.exists(|e| Ok(matches!(e, DfExpr::OuterReferenceColumn(..))))
        .unwrap_or(true)
}

/// Whether the plan names columns of the query around it.
pub(crate) fn is_correlated(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let _ = plan.apply(|node| {
        found |= node.expressions().iter().any(names_outer);
        Ok(match found {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    });
    found
}

/// Whether DataFusion makes a join of the plan as a subquery: as an `aggregated` one, its one row is the value; else it is
/// asked whether it has rows.
pub(crate) fn joinable(plan: &LogicalPlan, aggregated: bool) -> bool {
    if !is_correlated(plan) {
        return true;
    }
    let own = |plan: &LogicalPlan| plan.expressions().iter().any(names_outer);
    match plan {
        LogicalPlan::Filter(filter) => {
            let fits = split_conjunction(&filter.predicate)
                .into_iter()
                .all(|part| !names_outer(part) || !aggregated || is_key(part));
            fits && joinable(&filter.input, aggregated)
        }
        LogicalPlan::Projection(projection) => {
            !own(plan) && joinable(&projection.input, aggregated)
        }
        LogicalPlan::SubqueryAlias(alias) => joinable(&alias.input, aggregated),
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => {
            !own(plan) && joinable(&join.left, aggregated) && joinable(&join.right, aggregated)
        }
        LogicalPlan::Distinct(Distinct::All(input)) if !aggregated => joinable(input, false),
        LogicalPlan::Aggregate(aggregate) if aggregated && aggregate.group_expr.is_empty() => {
            !own(plan) && below_aggregate(&aggregate.input)
        }
        _ => false,
    }
}

/// As [`joinable`], with no second aggregation of rows that depend on the query around.
fn below_aggregate(plan: &LogicalPlan) -> bool {
    let mut aggregations = false;
    let _ = plan.apply(|node| {
        aggregations |= matches!(node, LogicalPlan::Aggregate(_)) && is_correlated(node);
        Ok(TreeNodeRecursion::Continue)
    });
    !aggregations && joinable(plan, true)
}

/// `column = outer`.
fn is_key(condition: &DfExpr) -> bool {
    let DfExpr::BinaryExpr(binary) = condition else {
        return false;
    };
    let (left, right) = (binary.left.as_ref(), binary.right.as_ref());
    let column = |e: &DfExpr| matches!(e, DfExpr::Column(_));
    let outer = |e: &DfExpr| names_outer(e) && e.column_refs().is_empty();
    binary.op == Operator::Eq && (column(left) && outer(right) || outer(left) && column(right))
}
