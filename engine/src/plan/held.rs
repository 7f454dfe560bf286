//! The one case in which rows of an outer join never come out alone though a batch has them: the model's recorded
//! answers want it.
//!
//! It is an outer join by a range of times, straight below the sink of append mode, with a condition in ON that wants a
//! column with numbers, of the rows that come out alone, to be above a constant. The model takes the condition for one
//! more bound of the time: the constant in seconds since 1970, which no row is ever at. So a row that passes the condition
//! and finds no partner stays in state. A join by equal times has no such bounds there, and a left anti join is not the
//! model's: both answer as a batch does. So does a join below an operator that waits for the watermark, whose answer
//! would lack these rows or never come.

use datafusion::common::DFSchema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};
use highwater_operators::join::JoinKind;

use super::Node;
use super::join::Condition;

/// Whether the model holds rows of a side for ever, of a join by a range of times.
pub(super) fn held(condition: &Condition, kind: JoinKind, side: usize, columns: &DFSchema) -> bool {
    let comes_alone = kind.keeps(side) && kind != JoinKind::LeftAnti;
    let lifts = |part: &Expr| lifts(part, columns);
    comes_alone && condition.rest.iter().any(lifts)
}

/// True for a condition that wants one of these columns, with numbers, to be above a constant.
fn lifts(part: &Expr, columns: &DFSchema) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = part else {
        return false;
    };
    let (more, less) = match op {
        Operator::Gt | Operator::GtEq => (left, right),
        Operator::Lt | Operator::LtEq => (right, left),
        _ => return false,
    };
    let column = match more.as_ref() {
        Expr::Cast(cast) => cast.expr.as_ref(),
        other => other,
    };
    let has_numbers = || column.get_type(columns).is_ok_and(|kind| kind.is_numeric());
    matches!(column, Expr::Column(_)) && has_numbers() && less.column_refs().is_empty()
}

impl Node {
    /// Has the joins straight below the sink of append mode hold what the model holds.
    pub(super) fn hold(&mut self) {
        match self {
            Node::Join { how, words, .. } => {
                for side in [0, 1].into_iter().filter(|side| words.held[*side]) {
                    how.times[side].last_match = None;
                }
            }
            Node::Stage { input, .. }
            | Node::Lookup { input, .. }
            | Node::Observe { input, .. }
            | Node::Watermark { input, .. }
            | Node::Late { input, .. } => input.hold(),
            Node::Union { inputs, .. } => inputs.iter_mut().for_each(Node::hold),
            _ => {}
        }
    }
}
