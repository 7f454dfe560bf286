//! Without ANSI: what then has another answer, and is not built, is refused.
//!
//! Without it an expression that cannot be computed gives NULL, a wrapped number or a cut one. Arithmetic by operators
//! does that; whatever else could fail is refused before the query starts, so no answer differs. A sum that overflows
//! stops the query either way.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};

use crate::error::QueryError;
use crate::functions::arithmetic::without_ansi;

/// Functions that can fail, and fail without ANSI too.
const EITHER_WAY: [&str; 6] = [
    "add_interval",
    "assert_true",
    "raise_error",
    "regexp_extract",
    "regexp_extract_all",
    "sequence",
];

/// Refuses a plan in which some answer depends on ANSI.
pub(super) fn check(plan: &LogicalPlan) -> Result<(), QueryError> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                let Expr::ScalarFunction(call) = part else {
                    return Ok(TreeNodeRecursion::Continue);
                };
                let name = call.func.name();
                let fails = call.func.signature().volatility == Volatility::Volatile
                    && !EITHER_WAY.contains(&name);
                // The size of NULL is -1 there.
                if fails || matches!(name, "size" | "cardinality") {
                    found = Some(part.to_string());
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    found.map_or(Ok(()), |expr| Err(without_ansi(&format!("\"{expr}\""))))
}
