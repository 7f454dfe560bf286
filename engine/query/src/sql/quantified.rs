//! Comparisons with ANY, SOME and ALL values of a query.

use sqlparser::ast::{self, Expr as Sql};
use sqlparser::tokenizer::Span;

use super::expression::{binary, start, unsupported};
use super::query;
use crate::error::QueryError;
use crate::expr::{BinaryOp, Expr, IsTest, Literal, lit};
use crate::plan::Plan;

type Result<T> = std::result::Result<T, QueryError>;

/// `left op ANY (query)` or, if not `any`, `left op ALL (query)`, by the least and the greatest of the query's values: it
/// is unknown if no value decides and one is NULL, or the left side is and there is a value.
pub(super) fn quantified(
    left: Sql,
    op: ast::BinaryOperator,
    right: Sql,
    span: Span,
    any: bool,
) -> Result<Expr> {
    let Sql::Subquery(query) = right else {
        return Err(unsupported("ANY and ALL of anything but a query", span));
    };
    let place = start(span);
    let Expr::Binary { left, op, .. } =
        binary(left, op, Sql::Value(ast::Value::Null.into()), span)?
    else {
        return Err(unsupported("this operator before ANY or ALL", span));
    };
    // What holds for all is what the opposite holds for none of.
    let op = match (any, op) {
        (true, op) => op,
        (false, BinaryOp::Eq) => BinaryOp::NotEq,
        (false, BinaryOp::NotEq) => BinaryOp::Eq,
        (false, BinaryOp::Lt) => BinaryOp::GtEq,
        (false, BinaryOp::LtEq) => BinaryOp::Gt,
        (false, BinaryOp::Gt) => BinaryOp::LtEq,
        (false, BinaryOp::GtEq) => BinaryOp::Lt,
        (false, _) => return Err(unsupported("this operator before ALL", span)),
    };
    let values = Plan::Alias {
        input: Box::new(query::query(*query)?),
        name: QUANTIFIED.into(),
        columns: vec![QUANTIFIED.into()],
    };
    let value = || Expr::Column {
        name: vec![QUANTIFIED.into()],
        place,
    };
    let of_all = |function: &str, arg: Expr| {
        Expr::Subquery(Box::new(Plan::Project {
            input: Box::new(values.clone()),
            outputs: vec![Expr::call(function, vec![arg])],
        }))
    };
    let compared = |right: Expr| Expr::Binary {
        left: left.clone(),
        op,
        right: Box::new(right),
        place,
    };
    let (least, greatest) = (of_all("min", value()), of_all("max", value()));
    let found = match op {
        BinaryOp::Eq => Expr::InSubquery {
            expr: left.clone(),
            plan: Box::new(values.clone()),
            negated: false,
        },
        BinaryOp::NotEq => compared(least).or(compared(greatest)),
        BinaryOp::Gt | BinaryOp::GtEq => compared(least),
        BinaryOp::Lt | BinaryOp::LtEq => compared(greatest),
        _ => return Err(unsupported("this operator before ANY", span)),
    };
    let rows = || of_all("count", lit(1));
    let is_null = Expr::Is {
        expr: left.clone(),
        test: IsTest::Null,
        negated: false,
    };
    let unknown = rows()
        .gt(of_all("count", value()))
        .or(is_null.and(rows().gt(lit(0))));
    let found = Expr::Case {
        operand: None,
        branches: vec![
            (found, lit(true)),
            (unknown, Expr::Literal(Literal::Null, None)),
        ],
        otherwise: Some(Box::new(lit(false))),
    };
    Ok(if any { found } else { !found })
}

/// The column of a query after ANY or ALL: a name that no query can write.
const QUANTIFIED: &str = "\u{1}value";
