//! Conditions on columns from outside, moved to the top of a subquery.
//!
//! DataFusion makes joins of subqueries whose conditions stand there. Those within a derived table or a query of WITH come
//! up through what chooses and names columns, which hands on the columns that they ask for.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, JoinType, Result};
use datafusion::logical_expr::utils::{split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, Filter, Join, LogicalPlan, Projection, SubqueryAlias, lit,
};

use super::joinable::{has_subquery, named_outside};
use super::{is_correlated, joinable, names_outer, own_columns};

/// A plan that names nothing from outside, and the conditions that the rows of the one it was made of meet.
struct Hoisted {
    /// The rows, which have the columns of the plan it was made of under their names, and more.
    plan: LogicalPlan,
    conditions: Vec<Expr>,
}

impl Hoisted {
    fn filtered(self) -> Result<LogicalPlan> {
        match self.conditions.into_iter().reduce(Expr::and) {
            Some(all) => filter(self.plan, all),
            None => Ok(self.plan),
        }
    }
}

fn filter(plan: LogicalPlan, condition: Expr) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Filter(Filter::try_new(
        condition,
        Arc::new(plan),
    )?))
}

/// The plan as one that DataFusion makes a join of as [`joinable`] says, if it can be written so. Of one that is not
/// `aggregated` only its columns count and whether it has a row, not how many are equal.
pub(crate) fn hoisted(
    plan: LogicalPlan,
    aggregated: bool,
    fresh: &dyn Fn() -> String,
) -> Result<LogicalPlan> {
    if joinable(&plan, aggregated) {
        return Ok(plan);
    }
    let written = match aggregated {
        true => below_aggregate(&plan, fresh)?,
        false => match hoist(&plan, false, fresh)? {
            Some(found) => {
                let rows = Arc::new(found.filtered()?);
                let columns = Projection::try_new(own_columns(plan.schema()), rows)?;
                Some(LogicalPlan::Projection(columns))
            }
            None => None,
        },
    };
    Ok(written
        .filter(|written| joinable(written, aggregated))
        .unwrap_or(plan))
}

/// What the rows of `plan` are asked for from outside: the conditions, and rows that have the columns of these alone, at
/// least one. Whether some meet the conditions is the same, not how many.
pub(crate) fn conditions_of(
    plan: &LogicalPlan,
    fresh: &dyn Fn() -> String,
) -> Result<Option<(LogicalPlan, Vec<Expr>)>> {
    let Some(found) = hoist(plan, false, fresh)? else {
        return Ok(None);
    };
    let found = projected(&[lit(true).alias(fresh())], found, fresh)?;
    // A query within a condition may name columns from outside, too.
    if !named_outside(&found.plan).is_empty() {
        return Ok(None);
    }
    Ok(Some((found.plan, found.conditions)))
}

fn below_aggregate(plan: &LogicalPlan, fresh: &dyn Fn() -> String) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Projection(Projection { input, .. }) => {
            let below = below_aggregate(input, fresh)?;
            let above = below.map(|below| plan.with_new_exprs(plan.expressions(), vec![below]));
            above.transpose()
        }
        LogicalPlan::Aggregate(Aggregate {
            input,
            group_expr,
            aggr_expr,
            ..
        }) if group_expr.is_empty() => {
            let Some(found) = hoist(input, true, fresh)? else {
                return Ok(None);
            };
            let rows = Arc::new(found.filtered()?);
            let above = Aggregate::try_new(rows, vec![], aggr_expr.clone())?;
            Ok(Some(LogicalPlan::Aggregate(above)))
        }
        _ => Ok(None),
    }
}

/// The plan and its conditions apart; with `copies`, if it has as many equal rows then.
fn hoist(plan: &LogicalPlan, copies: bool, fresh: &dyn Fn() -> String) -> Result<Option<Hoisted>> {
    if !is_correlated(plan) {
        return Ok(Some(Hoisted {
            plan: plan.clone(),
            conditions: vec![],
        }));
    }
    match plan {
        LogicalPlan::Filter(Filter {
            input, predicate, ..
        }) => {
            let Some(mut below) = hoist(input, copies, fresh)? else {
                return Ok(None);
            };
            for part in split_conjunction_owned(predicate.clone()) {
                match names_outer(&part) {
                    true if has_subquery(&part) => return Ok(None),
                    true => below.conditions.push(part),
                    false => below.plan = filter(below.plan, part)?,
                }
            }
            Ok(Some(below))
        }
        LogicalPlan::Projection(projection) if !projection.expr.iter().any(names_outer) => {
            let below = hoist(&projection.input, copies, fresh)?;
            below
                .map(|below| projected(&projection.expr, below, fresh))
                .transpose()
        }
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => {
            let Some(below) = hoist(input, copies, fresh)? else {
                return Ok(None);
            };
            let from = Arc::clone(below.plan.schema());
            let above = SubqueryAlias::try_new(Arc::new(below.plan), alias.clone())?;
            let named = |column: &Column| {
                let place = from.maybe_index_of_column(column)?;
                Some(Column::from(above.schema.qualified_field(place)))
            };
            let conditions = renamed(below.conditions, &named)?;
            Ok(Some(Hoisted {
                plan: LogicalPlan::SubqueryAlias(above),
                conditions,
            }))
        }
        LogicalPlan::Distinct(Distinct::All(input)) if !copies => hoist(input, copies, fresh),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => hoist(&sort.input, copies, fresh),
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => {
            let keys = join.on.iter().flat_map(|(left, right)| [left, right]);
            if keys.into_iter().any(names_outer) {
                return Ok(None);
            }
            let (left, right) = (
                hoist(&join.left, copies, fresh)?,
                hoist(&join.right, copies, fresh)?,
            );
            let (Some(left), Some(right)) = (left, right) else {
                return Ok(None);
            };
            let mut conditions = [left.conditions, right.conditions].concat();
            let parts = join
                .filter
                .iter()
                .flat_map(|filter| split_conjunction(filter));
            let (outside, own): (Vec<Expr>, Vec<Expr>) = parts.cloned().partition(names_outer);
            conditions.extend(outside);
            let both = Join::try_new(
                Arc::new(left.plan),
                Arc::new(right.plan),
                join.on.clone(),
                own.into_iter().reduce(Expr::and),
                join.join_type,
                join.join_constraint,
                join.null_equality,
                join.null_aware,
            )?;
            Ok(Some(Hoisted {
                plan: LogicalPlan::Join(both),
                conditions,
            }))
        }
        _ => Ok(None),
    }
}

/// The columns that `exprs` make of `below`, and those that its conditions ask for.
fn projected(exprs: &[Expr], below: Hoisted, fresh: &dyn Fn() -> String) -> Result<Hoisted> {
    let mut outputs = exprs.to_vec();
    let mut made: Vec<(Column, Column)> = vec![];
    for condition in &below.conditions {
        // A query's plan is the same whenever it starts.
        let mut asked: Vec<&Column> = condition.column_refs().into_iter().collect();
        asked.sort();
        for column in asked {
            if made.iter().any(|(known, _)| known == column) {
                continue;
            }
            let name = fresh();
            outputs.push(Expr::Column(column.clone()).alias(name.clone()));
            made.push((column.clone(), Column::new_unqualified(name)));
        }
    }
    let named = |column: &Column| {
        let found = made.iter().find(|(known, _)| known == column);
        found.map(|(_, new)| new.clone())
    };
    let conditions = renamed(below.conditions, &named)?;
    let plan = LogicalPlan::Projection(Projection::try_new(outputs, Arc::new(below.plan))?);
    Ok(Hoisted { plan, conditions })
}

fn renamed(conditions: Vec<Expr>, named: &dyn Fn(&Column) -> Option<Column>) -> Result<Vec<Expr>> {
    let conditions = conditions.into_iter().map(|condition| {
        let condition = condition.transform(|part| match &part {
            Expr::Column(column) => Ok(match named(column) {
                Some(new) => Transformed::yes(Expr::Column(new)),
                None => Transformed::no(part),
            }),
            _ => Ok(Transformed::no(part)),
        })?;
        Ok(condition.data)
    });
    conditions.collect()
}
