//! Expressions with other expressions in the place of their parts.

use crate::error::Place;
use crate::expr::{Bound, Call, Expr};
use crate::plan::Plan;

impl Call {
    fn parts_mut(&mut self) -> Vec<&mut Expr> {
        let args = self.args.iter_mut().chain(&mut self.filter);
        let mut parts: Vec<&mut Expr> = args.chain(&mut self.order_by).collect();
        if let Some(over) = &mut self.over {
            parts.extend(over.partition_by.iter_mut().chain(&mut over.order_by));
            let bounds = over.frame.iter_mut();
            let bounds = bounds.flat_map(|frame| [&mut frame.start, &mut frame.end]);
            parts.extend(bounds.filter_map(|bound| match bound {
                Bound::Preceding(offset) | Bound::Following(offset) => Some(offset),
                _ => None,
            }));
        }
        parts
    }
}

impl Expr {
    /// As [`Expr::children`].
    fn children_mut(&mut self) -> Vec<&mut Expr> {
        match self {
            Expr::Column { .. }
            | Expr::Literal(..)
            | Expr::TypedText { .. }
            | Expr::Star { .. }
            | Expr::Subquery(_)
            | Expr::Exists { .. }
            | Expr::Resolved(_) => vec![],
            Expr::Call(call) => call.parts_mut(),
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
                let mut parts: Vec<&mut Expr> = vec![];
                parts.extend(operand.iter_mut().map(|e| &mut **e));
                parts.extend(branches.iter_mut().flat_map(|(when, then)| [when, then]));
                parts.extend(otherwise.iter_mut().map(|e| &mut **e));
                parts
            }
            Expr::Between {
                expr, low, high, ..
            } => vec![expr, low, high],
            Expr::In { expr, list, .. } => {
                let mut parts: Vec<&mut Expr> = vec![expr];
                parts.extend(list);
                parts
            }
            Expr::Like { expr, patterns, .. } => {
                let mut parts: Vec<&mut Expr> = vec![expr];
                parts.extend(patterns);
                parts
            }
            Expr::Index { expr, index } => vec![expr, index],
            Expr::Tuple(exprs) => exprs.iter_mut().collect(),
            Expr::Groupings { sets, .. } => sets.iter_mut().flatten().collect(),
        }
    }

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
