//! Where the parts of a query stand in its text, for errors that are about one of them.

use crate::error::Place;
use crate::expr::Expr;
use crate::plan::Plan;
use crate::rewrite::first_place;

impl Plan {
    /// Where the clause stands that this plan adds to those below.
    pub fn place(&self) -> Option<Place> {
        let first = |exprs: &[Expr]| exprs.iter().find_map(Expr::place);
        match self {
            Plan::Table { place, .. } => *place,
            Plan::Filter { condition, .. } | Plan::Qualify { condition, .. } => condition.place(),
            Plan::Project { outputs, .. } => over(outputs).or_else(|| first(outputs)),
            Plan::Aggregate { keys, outputs, .. } => first(keys).or_else(|| first(outputs)),
            Plan::Sort { order, .. } => first(order),
            Plan::Distribute { keys, .. } => first(keys),
            Plan::Limit { count, skip, .. } => {
                let either = skip.as_ref().or(count.as_ref());
                either.and_then(|(_, place)| *place)
            }
            Plan::Join { right, .. } | Plan::SetOperation { right, .. } => first_place(right),
            Plan::Union { inputs, .. } => inputs.last().and_then(first_place),
            Plan::LateralView { generator, .. } => generator.place(),
            Plan::Watermark { column, .. } => column.place(),
            Plan::Pivot { aggregates, .. } => first(aggregates),
            Plan::Values { rows } => rows.iter().find_map(|row| first(row)),
            Plan::WithColumns { columns, .. } => columns.iter().find_map(|(_, e)| e.place()),
            Plan::Distinct { input }
            | Plan::Alias { input, .. }
            | Plan::Unpivot { input, .. }
            | Plan::Lateral { input }
            | Plan::With { input, .. } => input.place(),
            Plan::Resolved(_)
            | Plan::DropColumns { .. }
            | Plan::RenameColumns { .. }
            | Plan::Deduplicate { .. }
            | Plan::Observe { .. }
            | Plan::OneRow => None,
        }
    }

    /// Where the least part of this query stands that `is_wrong`, as the query is: all that it reads is right.
    pub fn place_of_least(&self, is_wrong: &dyn Fn(&Plan) -> bool) -> Option<Place> {
        self.least(&[], is_wrong)
    }

    fn least(&self, ctes: &[Cte], is_wrong: &dyn Fn(&Plan) -> bool) -> Option<Place> {
        let wrong = |part: &Plan, ctes: &[Cte]| {
            is_wrong(&Plan::With {
                ctes: ctes.to_vec(),
                input: Box::new(part.clone()),
            })
        };
        if let Plan::With { ctes: named, input } = self {
            let mut known = ctes.to_vec();
            for (name, columns, query) in named {
                if wrong(query, &known) {
                    return query.least(&known, is_wrong);
                }
                known.push((name.clone(), columns.clone(), query.clone()));
            }
            return input.least(&known, is_wrong);
        }
        let mut inputs = self.inputs().into_iter();
        match inputs.find(|input| wrong(input, ctes)) {
            Some(input) => input.least(ctes, is_wrong),
            None => self.place(),
        }
    }

    /// The plans right below, but for queries within expressions.
    fn inputs(&self) -> Vec<&Plan> {
        match self {
            Plan::Resolved(_) | Plan::Table { .. } | Plan::Values { .. } | Plan::OneRow => vec![],
            Plan::Join { left, right, .. } | Plan::SetOperation { left, right, .. } => {
                vec![left, right]
            }
            Plan::Union { inputs, .. } => inputs.iter().collect(),
            Plan::Alias { input, .. }
            | Plan::Project { input, .. }
            | Plan::WithColumns { input, .. }
            | Plan::DropColumns { input, .. }
            | Plan::RenameColumns { input, .. }
            | Plan::Filter { input, .. }
            | Plan::Aggregate { input, .. }
            | Plan::Qualify { input, .. }
            | Plan::Pivot { input, .. }
            | Plan::Unpivot { input, .. }
            | Plan::Distinct { input }
            | Plan::Deduplicate { input, .. }
            | Plan::Sort { input, .. }
            | Plan::Distribute { input, .. }
            | Plan::Limit { input, .. }
            | Plan::Lateral { input }
            | Plan::With { input, .. }
            | Plan::LateralView { input, .. }
            | Plan::Observe { input, .. }
            | Plan::Watermark { input, .. } => vec![input],
        }
    }
}

/// A query that WITH names, and its columns' names.
type Cte = (String, Vec<String>, Plan);

/// Where the first function of a window stands.
fn over(exprs: &[Expr]) -> Option<Place> {
    exprs.iter().find_map(|expr| match expr {
        Expr::Call(call) if call.over.is_some() => call.place,
        other => {
            let mut parts = other.children().into_iter();
            parts.find_map(|part| over(std::slice::from_ref(part)))
        }
    })
}
