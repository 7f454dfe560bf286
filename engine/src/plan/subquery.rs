//! Subqueries inside the expressions of a stream, as joins. The model has static ones only; those over streams are a setting, because
//! some queries are refused by the time they get an output mode that cannot answer them, and not before.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin;
use datafusion::optimizer::{Optimizer, OptimizerContext};

use super::compile::is_streaming;
use crate::error::Error;

/// Refuses subqueries over streams, as the model does.
pub(crate) fn no_streams_in_subqueries(plan: &LogicalPlan) -> Result<(), Error> {
    let mut streams = false;
    each(plan, &mut |subquery| streams |= is_streaming(subquery))?;
    match streams {
        false => Ok(()),
        true => Err(Error::refused(
            "INVALID_SUBQUERY_EXPRESSION.STREAMING_QUERY",
            "Invalid subquery: Streaming query is not allowed in subquery expressions. Write it as a join, or set highwater.sql.streamingSubqueries to true: output modes complete and changes can answer it",
        )),
    }
}

/// The plan with joins in the place of subqueries.
pub(super) fn as_joins(plan: &LogicalPlan) -> Result<LogicalPlan, Error> {
    let mut found = false;
    each(plan, &mut |_| found = true)?;
    if !found {
        return Ok(plan.clone());
    }
    let mut options = ConfigOptions::new();
    // What is left of a subquery after these rules would be an expression that no worker can evaluate.
    options
        .optimizer
        .enable_physical_uncorrelated_scalar_subquery = false;
    let context = OptimizerContext::new_with_config_options(Arc::new(options));
    let optimizer = Optimizer::with_rules(vec![
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
    ]);
    let joined = optimizer
        .optimize(
            plan.clone(),
            &context.with_skip_failing_rules(false),
            |_, _| {},
        )
        .map_err(Error::run)?;
    let mut left = false;
    each(&joined, &mut |_| left = true)?;
    match left {
        true => Err(Error::not_yet("this subquery in a streaming query")),
        false => Ok(joined),
    }
}

/// Calls `seen` with the plan of each subquery in the expressions of `plan`, of those inside of it as well.
fn each(plan: &LogicalPlan, seen: &mut dyn FnMut(&LogicalPlan)) -> Result<(), Error> {
    let visited = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                match part {
                    Expr::ScalarSubquery(subquery)
                    | Expr::Exists(Exists { subquery, .. })
                    | Expr::InSubquery(InSubquery { subquery, .. }) => seen(&subquery.subquery),
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    visited.map(|_| ()).map_err(Error::run)
}
