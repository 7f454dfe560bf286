//! SQL text to unresolved plans.

use crate::error::QueryError;
use crate::expr::Expr;
use crate::plan::{Plan, Statement};

/// The statement that `sql` says.
pub fn parse_statement(sql: &str) -> Result<Statement, QueryError> {
    Err(QueryError::unsupported(format!("the statement {sql}")))
}

/// The query that `sql` says.
pub fn parse_query(sql: &str) -> Result<Plan, QueryError> {
    match parse_statement(sql)? {
        Statement::Query(plan) => Ok(plan),
        _ => Err(QueryError::new(
            "PARSE_SYNTAX_ERROR",
            "this is a command, not a query",
        )),
    }
}

/// The expression that `sql` says.
pub fn parse_expression(sql: &str) -> Result<Expr, QueryError> {
    Err(QueryError::unsupported(format!("the expression {sql}")))
}
