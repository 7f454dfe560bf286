//! Subqueries inside expressions, as joins. The model has static ones only; those over streams are answered where the
//! output mode can take what the join gives, which is known when the query gets its mode, and not before.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::{Expr, LogicalPlan};

use highwater_query::is_asked_for;

use super::compile::{is_streaming, not_built};
use crate::error::Error;

/// True if a subquery of `plan` reads a stream.
pub(super) fn reads_stream(plan: &LogicalPlan) -> Result<bool, Error> {
    let mut streams = false;
    each(plan, &mut |subquery| streams |= is_streaming(subquery))?;
    Ok(streams)
}

/// The refusal of a join that was a subquery, in the words of who wrote the subquery.
pub(super) fn refused(error: Error) -> Error {
    match error {
        Error::Refused {
            class: Some(_),
            message,
        } => Error::refused(
            "INVALID_SUBQUERY_EXPRESSION.STREAMING_QUERY",
            format!(
                "Invalid subquery: Streaming query is not allowed in subquery expressions of this output mode. As a join it would be refused so: {message}"
            ),
        ),
        other => other,
    }
}

/// What LATERAL subqueries read that answer for each row of a stream, and not by a mere join.
pub(super) enum Lateral {
    Table,
    Stream,
}

/// What the LATERAL subqueries of `plan` read, if it has such.
pub(super) fn lateral(plan: &LogicalPlan) -> Option<Lateral> {
    let mut found = None;
    let _ = plan.apply(|node| {
        if let LogicalPlan::Join(join) = node
            && is_asked_for(&join.right)
            && is_streaming(&join.left)
        {
            match reads_more(&join.right) {
                true => found = Some(Lateral::Stream),
                false => _ = found.get_or_insert(Lateral::Table),
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// True if the answers of a subquery come from a stream: from one besides what it is asked for.
fn reads_more(answers: &LogicalPlan) -> bool {
    match answers {
        LogicalPlan::Distinct(_) if is_asked_for(answers) => false,
        LogicalPlan::TableScan(_) => is_streaming(answers),
        other => other.inputs().into_iter().any(reads_more),
    }
}

impl Lateral {
    /// The refusal of what the subquery became.
    pub(super) fn refused(&self, error: Error) -> Error {
        match (self, error) {
            (
                Lateral::Table,
                Error::Refused {
                    class: Some(_),
                    message,
                },
            ) => Error::refused(
                "UNSUPPORTED_FEATURE",
                format!(
                    "a LATERAL subquery over a table that aggregates, sorts or takes its first rows for each row of a stream is not \
                     supported yet in this output mode: use output mode complete or changes, or join with a query that has the \
                     answers by key, as in JOIN (SELECT k, max(v) AS v FROM t GROUP BY k) USING (k). As a join it would be refused \
                     so: {message}"
                ),
            ),
            (Lateral::Table, other) => other,
            (Lateral::Stream, error) => refused(error),
        }
    }
}

/// The plan with joins in the place of subqueries.
pub(super) fn as_joins(plan: &LogicalPlan) -> Result<LogicalPlan, Error> {
    let mut found = false;
    each(plan, &mut |_| found = true)?;
    if !found {
        return Ok(plan.clone());
    }
    let is_static = |rows: &LogicalPlan| !is_streaming(rows);
    highwater_query::with_marks(plan.clone(), &is_static)
        .and_then(highwater_query::as_joins)
        .map_err(not_built)
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
