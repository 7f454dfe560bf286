//! The subqueries that DataFusion makes joins of.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType};
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Distinct, Expr as DfExpr, LogicalPlan, Operator};

pub(crate) fn names_outer(expr: &DfExpr) -> bool {
    expr.exists(|e| Ok(matches!(e, DfExpr::OuterReferenceColumn(..))))
        .unwrap_or(true)
}

/// Whether the expression holds a query.
pub(crate) fn has_subquery(expr: &DfExpr) -> bool {
    let is_one = |e: &DfExpr| {
        matches!(
            e,
            DfExpr::ScalarSubquery(_) | DfExpr::Exists(_) | DfExpr::InSubquery(_)
        )
    };
    expr.exists(|e| Ok(is_one(e))).unwrap_or(true)
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

/// The columns from outside that the plan names, also within its own subqueries.
pub(crate) fn named_outside(plan: &LogicalPlan) -> Vec<Column> {
    let mut named = vec![];
    let _ = plan.apply(|node| {
        let inputs = node.inputs();
        let own = |column: &Column| inputs.iter().any(|input| input.schema().has_column(column));
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                match part {
                    DfExpr::OuterReferenceColumn(_, column) => named.push(column.clone()),
                    DfExpr::ScalarSubquery(subquery)
                    | DfExpr::Exists(Exists { subquery, .. })
                    | DfExpr::InSubquery(InSubquery { subquery, .. }) => {
                        let inside = named_outside(&subquery.subquery);
                        named.extend(inside.into_iter().filter(|column| !own(column)));
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    named
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
            // All conditions that come up stand together: of two filters one would forget what the other asks for, and
            // a subquery becomes a join, through which none comes.
            let only = !is_correlated(&filter.input);
            let fits = split_conjunction(&filter.predicate)
                .into_iter()
                .all(|part| match (names_outer(part), has_subquery(part)) {
                    (true, false) => only && (!aggregated || is_key(part)),
                    (true, true) => false,
                    (false, true) => only,
                    (false, false) => true,
                });
            fits && joinable(&filter.input, aggregated)
        }
        // A subquery among the columns becomes a join as well.
        LogicalPlan::Projection(projection) => {
            !own(plan)
                && !plan.expressions().iter().any(has_subquery)
                && joinable(&projection.input, aggregated)
        }
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => {
            let both = is_correlated(&join.left) && is_correlated(&join.right);
            // No condition comes up through an aggregation and a join of its one row.
            let fits = |side: &LogicalPlan| match aggregated {
                true => below_aggregate(side),
                false => joinable(side, false),
            };
            !own(plan) && !both && fits(&join.left) && fits(&join.right)
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
