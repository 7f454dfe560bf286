//! Expressions with other expressions in the place of their parts.

use crate::error::Place;
use crate::expr::{Bound, Expr, Window};
use crate::plan::Plan;

/// The parts of an expression, to be read (`&`) or changed (`&mut`).
macro_rules! parts {
    ($(#[$doc:meta])* $children:ident, $window:ident, $iter:ident, $($and:tt)+) => {
        impl Window {
            fn $window($($and)+ self) -> impl Iterator<Item = $($and)+ Expr> {
                let bounds = self.frame.$iter();
                let bounds = bounds.flat_map(|frame| [$($and)+ frame.start, $($and)+ frame.end]);
                let offsets = bounds.filter_map(|bound| match bound {
                    Bound::Preceding(offset) | Bound::Following(offset) => Some(offset),
                    _ => None,
                });
                let keys = self.partition_by.$iter().chain(self.order_by.$iter());
                keys.chain(offsets)
            }
        }

        impl Expr {
            $(#[$doc])*
            pub(crate) fn $children($($and)+ self) -> Vec<$($and)+ Expr> {
                match self {
                    Expr::Column { .. }
                    | Expr::Literal(..)
                    | Expr::TypedText { .. }
                    | Expr::Star { .. }
                    | Expr::Subquery(_)
                    | Expr::Exists { .. }
                    | Expr::Resolved(_) => vec![],
                    Expr::Call(call) => {
                        let parts = call.args.$iter().chain(call.filter.$iter());
                        let over = call.over.$iter().flat_map(|over| over.$window());
                        parts.chain(call.order_by.$iter()).chain(over).collect()
                    }
                    Expr::Binary { left, right, .. } => vec![left, right],
                    Expr::Unary { expr, .. }
                    | Expr::Cast { expr, .. }
                    | Expr::Alias { expr, .. }
                    | Expr::Is { expr, .. }
                    | Expr::Field { expr, .. }
                    | Expr::Sort { expr, .. }
                    | Expr::InSubquery { expr, .. } => vec![expr],
                    Expr::Lambda { body, .. } => vec![body],
                    Expr::Case {
                        operand,
                        branches,
                        otherwise,
                    } => {
                        let branches = branches.$iter().flat_map(|(when, then)| [when, then]);
                        let operand = operand.$iter().map(|e| $($and)+ **e);
                        let otherwise = otherwise.$iter().map(|e| $($and)+ **e);
                        operand.chain(branches).chain(otherwise).collect()
                    }
                    Expr::Between {
                        expr, low, high, ..
                    } => vec![expr, low, high],
                    Expr::In { expr, list, .. } => {
                        std::iter::once($($and)+ **expr).chain(list).collect()
                    }
                    Expr::Like { expr, patterns, .. } => {
                        std::iter::once($($and)+ **expr).chain(patterns).collect()
                    }
                    Expr::Index { expr, index } => vec![expr, index],
                    Expr::Tuple(exprs) => exprs.$iter().collect(),
                    Expr::Groupings { sets, .. } => sets.$iter().flatten().collect(),
                }
            }
        }
    };
}
parts!(
    /// The expressions that this one is made of, one level down. Subqueries are queries of their own.
    children, parts, iter, &
);
parts!(
    /// As [`Expr::children`].
    children_mut, parts_mut, iter_mut, &mut
);

impl Expr {
    /// The expression with what `other` gives in the place of a part; what has a place of its own is not looked into.
    pub(crate) fn rewritten(mut self, other: &mut dyn FnMut(&Expr) -> Option<Expr>) -> Expr {
        self.rewrite(other);
        self
    }

    fn rewrite(&mut self, other: &mut dyn FnMut(&Expr) -> Option<Expr>) {
        if let Some(replaced) = other(self) {
            *self = replaced;
            return;
        }
        for child in self.children_mut() {
            child.rewrite(other);
        }
    }

    /// Whether both are written alike, wherever they stand.
    pub(crate) fn is_like(&self, other: &Expr) -> bool {
        self == other || unplaced(self) == unplaced(other)
    }
}

fn unplaced(expr: &Expr) -> String {
    let text = format!("{expr:?}");
    let mut parts = text.split("Some(Place {");
    let first = parts.next().unwrap_or_default().to_string();
    let rest = parts.map(|part| part.split_once("})").map_or(part, |(_, rest)| rest));
    rest.fold(first, |text, part| text + "None" + part)
}

/// Where the first of the names in the query stands in its text.
pub(crate) fn first_place(plan: &Plan) -> Option<Place> {
    let text = format!("{plan:?}");
    let number = |text: &str, after: &str| -> Option<u64> {
        let (_, rest) = text.split_once(after)?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    let places = text.split("Place {").skip(1).filter_map(|part| {
        Some(Place {
            line: number(part, "line: ")?,
            column: number(part, "column: ")?,
        })
    });
    places.min_by_key(|place| (place.line, place.column))
}
