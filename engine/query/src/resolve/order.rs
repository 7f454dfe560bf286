//! ORDER BY and LIMIT.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Limit, LogicalPlan, Sort, lit};

use super::Env;
use super::expression::Exprs;
use super::scope::Relation;
use super::subquery::has_subquery;
use crate::error::{Place, QueryError};
use crate::expr::{Expr, Literal};
use crate::functions::compare;
use crate::functions::kernel::folded;
use crate::plan::Plan;
use crate::types::type_sql;
use crate::unnest::names_outer;

type Result<T> = std::result::Result<T, QueryError>;

/// A number of rows as it is written, and where.
type Count = (Expr, Option<Place>);

impl Env<'_> {
    /// The rows as they are: what they would be distributed by must have a meaning, as what they are sorted by.
    pub(super) fn distribute(&self, input: &Plan, keys: &[Expr]) -> Result<Relation> {
        let rows = match input {
            Plan::Sort { input, .. } => input,
            other => other,
        };
        let of_rows = keys.iter().filter(|key| !matches!(key, Expr::Literal(..)));
        let order: Vec<Expr> = of_rows.cloned().collect();
        self.sort(rows, &order)?;
        self.relation(input)
    }

    /// Sort keys see the columns of the select list first, then those below it, which travel along for the sort only.
    pub(super) fn sort(&self, input: &Plan, order: &[Expr]) -> Result<Relation> {
        let simple = self.relation(input)?;
        let wanted = simple.visible().count();
        let mut keys = vec![];
        let mut missing = vec![];
        let order = order.iter().flat_map(|key| self.every_column(&simple, key));
        let order: Vec<Expr> = order.collect();
        for key in &order {
            let (expr, ascending, nulls_first) = key.sort_key();
            let expr = match expr {
                Expr::Literal(Literal::Int(nth), _) => {
                    let column = usize::try_from(*nth - 1)
                        .ok()
                        .and_then(|i| simple.visible().nth(i));
                    let Some(column) = column else {
                        let message = format!(
                            "ORDER BY position {nth} is not in select list (valid range is [1, {wanted}])."
                        );
                        let error = QueryError::new("ORDER_BY_POS_OUT_OF_RANGE", message);
                        return Err(error.at(expr.place()));
                    };
                    Ok(column.typed())
                }
                other => Exprs::over(self, &simple.columns, "ORDER BY").resolve(other),
            };
            let name = self.fresh("sort");
            let below = key.sort_key().0.clone().alias(name.clone());
            let selects = matches!(
                input,
                Plan::Project { .. } | Plan::Aggregate { .. } | Plan::Qualify { .. }
            );
            let is_below = match &expr {
                Err(_) => selects,
                // A column below the select list is nearer than one of the query around.
                Ok(value) if selects && names_outer(&value.expr) => {
                    let more = input.with_more(std::slice::from_ref(&below))?;
                    self.relation(&more).is_ok()
                }
                Ok(_) => false,
            };
            if is_below {
                missing.push(below);
                keys.push((Err(name), key, ascending, nulls_first));
            } else {
                keys.push((Ok(expr?), key, ascending, nulls_first));
            }
        }
        let inner = match missing.is_empty() {
            true => simple,
            false => self.relation(&input.with_more(&missing)?)?,
        };
        let keys = keys
            .into_iter()
            .map(|(key, written, ascending, nulls_first)| {
                let exprs = Exprs::over(self, &inner.columns, "ORDER BY");
                let value = match key {
                    Ok(value) => value,
                    Err(name) => exprs.resolve(&crate::expr::col(name))?,
                };
                exprs.sortable(&value, written)?;
                Ok(compare::sort_by(value, ascending, nulls_first))
            });
        let expr = keys.collect::<Result<Vec<_>>>()?.concat();
        let plan = LogicalPlan::Sort(Sort {
            expr,
            input: Arc::new(inner.plan),
            fetch: None,
        });
        if missing.is_empty() {
            return Ok(Relation {
                plan,
                columns: inner.columns,
            });
        }
        let outputs = inner
            .columns
            .iter()
            .filter(|c| !c.hidden)
            .take(wanted)
            .map(|c| (c.name.clone(), c.typed()));
        self.projection(plan, outputs.collect())
    }

    /// What `ALL` stands for, or the key itself.
    fn every_column(&self, of: &Relation, key: &Expr) -> Vec<Expr> {
        let (Expr::Star { .. }, ascending, nulls_first) = key.sort_key() else {
            return vec![key.clone()];
        };
        let by = |expr: Expr| Expr::Sort {
            expr: Box::new(expr),
            ascending,
            nulls_first,
        };
        // A column of that name is meant before all of them.
        let one = of.visible().find(|column| self.same(&column.name, "all"));
        let columns = of
            .visible()
            .filter(|c| one.is_none_or(|one| one.column == c.column));
        columns
            .map(|column| by(Expr::Resolved(Box::new(column.typed().expr))))
            .collect()
    }

    pub(super) fn limit(
        &self,
        mut input: Relation,
        count: Option<&Count>,
        skip: Option<&Count>,
    ) -> Result<Relation> {
        let bound = |count: Option<&Count>| count.map(|count| self.row_count(&input, count));
        let (fetch, skip) = (bound(count).transpose()?, bound(skip).transpose()?);
        input.plan = LogicalPlan::Limit(Limit {
            skip: skip.filter(|n| *n > 0).map(|n| Box::new(lit(n))),
            fetch: fetch.map(|n| Box::new(lit(n))),
            input: Arc::new(input.plan),
        });
        Ok(input)
    }

    fn row_count(&self, input: &Relation, (expr, place): &Count) -> Result<i64> {
        let exprs = Exprs::over(self, &input.columns, "LIMIT");
        let refused = |kind: &str, why: String| {
            let text = exprs.text(expr);
            let message = format!("The limit like expression \"{text}\" is invalid. {why}");
            let class = format!("INVALID_LIMIT_LIKE_EXPRESSION.{kind}");
            QueryError::new(class, message).at(*place)
        };
        let not_constant = || {
            let why = "The limit expression must evaluate to a constant value.";
            refused("IS_UNFOLDABLE", why.into())
        };
        if has_subquery(expr) {
            return Err(not_constant());
        }
        let value = exprs.resolve(expr).map_err(|error| error.at(*place))?;
        if !value.data_type.is_integer() {
            let found = type_sql(&value.data_type);
            let why = format!("The limit expression must be integer type, but got \"{found}\".");
            return Err(refused("DATA_TYPE", why));
        }
        let constant = folded(&value)?.ok_or_else(not_constant)?;
        match constant.cast_to(&DataType::Int64)? {
            ScalarValue::Int64(Some(n)) if n >= 0 => Ok(n),
            ScalarValue::Int64(Some(n)) => Err(refused(
                "IS_NEGATIVE",
                format!("The limit expression must be equal to or greater than 0, but got {n}"),
            )),
            _ => Err(refused(
                "IS_NULL",
                "The evaluated limit expression must not be null.".into(),
            )),
        }
    }
}

impl Plan {
    /// The select list with more columns at its end.
    pub(super) fn with_more(&self, more: &[Expr]) -> Result<Plan> {
        let mut plan = self.clone();
        match &mut plan {
            Plan::Project { outputs, .. } | Plan::Aggregate { outputs, .. } => {
                outputs.extend_from_slice(more);
            }
            Plan::Qualify { input, .. } => **input = input.with_more(more)?,
            _ => return Err(QueryError::unsupported("more columns than these")),
        }
        Ok(plan)
    }
}
