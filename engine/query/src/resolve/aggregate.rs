//! GROUP BY: keys and aggregate functions below, everything computed from them above.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr as DfExpr, LogicalPlan, lit};

use super::Env;
use super::expression::Exprs;
use super::grouping::Sets;
use super::name::{Names, output_name};
use super::project::named;
use super::scope::Relation;
use super::subquery::has_subquery;
use crate::error::{Place, QueryError, names_ours};
use crate::expr::{Expr, Literal};
use crate::functions::aggregate::ranks::{self, Rank};
use crate::functions::compare;
use crate::functions::kernel::Typed;

type Result<T> = std::result::Result<T, QueryError>;

impl Env<'_> {
    pub(super) fn aggregate(
        &self,
        input: Relation,
        keys: &[Expr],
        outputs: &[Expr],
        having: Option<&Expr>,
    ) -> Result<Relation> {
        let keys = &self.spelled_out(&input, keys, outputs)?;
        if keys.iter().chain(outputs).chain(having).any(has_subquery) {
            return self.aggregate_with_subqueries(input, keys, outputs, having);
        }
        let exprs = keys.iter().chain(outputs).chain(having);
        self.with_windows(input, exprs, |input| {
            self.aggregate_rows(input, keys, outputs, having)
        })
    }

    fn aggregate_rows(
        &self,
        input: Relation,
        keys: &[Expr],
        outputs: &[Expr],
        having: Option<&Expr>,
    ) -> Result<Relation> {
        let aliases = named(outputs);
        let (input, keys, grouping) = match Sets::of(keys)? {
            Some(sets) => {
                let (input, keys, grouping) = self.grouped(input, sets, outputs, &aliases)?;
                (input, keys, Some(grouping))
            }
            None => (
                input.clone(),
                self.group_keys(&input, keys, outputs, &aliases)?,
                None,
            ),
        };
        let exprs = Exprs {
            aggregates: Ok(()),
            over: Ok(()),
            grouping: grouping.as_ref(),
            aliases: &aliases,
            ..Exprs::over(self, &input.columns, "SELECT")
        };
        let mut resolved = vec![];
        for output in outputs {
            let columns = self.output(exprs, output)?;
            resolved.extend(columns.into_iter().map(|column| (output, column)));
        }
        let of_groups = Exprs {
            aliases_first: true,
            over: Err("HAVING"),
            ..exprs
        };
        let condition = having.map(|having| of_groups.condition(having));
        let condition = condition.transpose()?;
        let mut split = Split {
            env: self,
            keys: &keys,
            calls: vec![],
        };
        let mut above = vec![];
        for (output, (name, value)) in resolved {
            let written = name.clone();
            let expr = split
                .above(value.expr, &input, &written)
                .map_err(|error| error.at(exprs.ungrouped(output, &keys)))?;
            above.push((name, Typed::new(expr, value.data_type)));
        }
        let having = match (condition, having) {
            (Some(condition), Some(having)) => Some(
                split
                    .above(condition.expr, &input, "HAVING")
                    .map_err(|error| error.at(of_groups.ungrouped(having, &keys)))?,
            ),
            _ => None,
        };
        let calls = split.calls();
        let group = keys.iter().map(|k| match &k.made {
            plain @ DfExpr::Column(_) => plain.clone(),
            named @ DfExpr::Alias(_) => named.clone(),
            made => made.clone().alias(k.above.name.clone()),
        });
        let group: Vec<DfExpr> = group.collect();
        let calls = calls.map(|(call, name)| call.alias(name));
        let mut calls: Vec<DfExpr> = calls.collect();
        if group.is_empty() && calls.is_empty() {
            // One row all the same, as for `typeof(sum(v))`, which is known without one.
            calls.push(count(lit(1i64)).alias(self.fresh("rows")));
        }
        let mut plan =
            LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input.plan), group, calls)?);
        if let Some(having) = having {
            plan = LogicalPlan::Filter(datafusion::logical_expr::Filter::try_new(
                having,
                Arc::new(plan),
            )?);
        }
        let (plan, above) = self.windowed(plan, above)?;
        self.projection(plan, above)
    }

    pub(super) fn group_keys(
        &self,
        input: &Relation,
        keys: &[Expr],
        outputs: &[Expr],
        aliases: &[(String, Expr)],
    ) -> Result<Vec<Key>> {
        let mut grouped: Vec<Key> = vec![];
        for key in keys {
            let key = self.group_key(input, key, outputs, aliases, &grouped)?;
            grouped.push(key);
        }
        Ok(grouped)
    }

    fn group_key(
        &self,
        input: &Relation,
        key: &Expr,
        outputs: &[Expr],
        aliases: &[(String, Expr)],
        before: &[Key],
    ) -> Result<Key> {
        let expr = match key {
            Expr::Literal(Literal::Int(nth), _) => {
                let output = usize::try_from(*nth - 1).ok().and_then(|i| outputs.get(i));
                let Some(output) = output else {
                    let message = format!(
                        "GROUP BY position {nth} is not in select list (valid range is [1, {}]).",
                        outputs.len()
                    );
                    let error = QueryError::new("GROUP_BY_POS_OUT_OF_RANGE", message);
                    return Err(error.at(key.place()));
                };
                if let Expr::Star { .. } = output {
                    let message = "Star (*) is not allowed in a select list when GROUP BY an ordinal position is used.";
                    return Err(QueryError::new("STAR_GROUP_BY_POS", message).at(key.place()));
                }
                output
            }
            other => other,
        };
        let exprs = Exprs {
            aliases,
            ..Exprs::over(self, &input.columns, "GROUP BY")
        };
        let value = exprs.resolve(expr).map_err(|error| match key {
            Expr::Literal(Literal::Int(nth), _) if error.class() == Some("GROUP_BY_AGGREGATE") => {
                let message = format!(
                    "GROUP BY {nth} refers to an expression {} that contains an aggregate function. Aggregate functions are not allowed in GROUP BY.",
                    exprs.item_text(expr)
                );
                QueryError::new("GROUP_BY_POS_AGGREGATE", message).at(error.place())
            }
            _ => error,
        })?;
        let made = compare::group_key(value.clone()).map_err(|error| {
            let named = format!("The expression \"{}\" cannot", exprs.text(expr));
            let message = error.message().replace("The expression cannot", &named);
            QueryError::new(error.class().unwrap_or_default(), message).at(key.place())
        })?;
        let made = made.expr;
        let taken = |name: &str| before.iter().any(|k| k.above.name == name);
        let above = match &made {
            DfExpr::Column(column) if !taken(&column.name) => column.clone(),
            _ => {
                let name = {
                    let names = Names::as_written(&input.columns, self.conf.case_sensitive);
                    output_name(expr, &names)
                };
                Column::new_unqualified(if taken(&name) {
                    self.fresh(&name)
                } else {
                    name
                })
            }
        };
        // A column whose name is taken is grouped by under another one.
        let made = match made {
            DfExpr::Column(column) if column != above => {
                DfExpr::Column(column).alias(above.name.clone())
            }
            made => made,
        };
        Ok(Key {
            written: value.expr,
            made,
            above,
        })
    }
}

impl Exprs<'_> {
    /// Where the first column stands that is neither within an aggregate nor within a key.
    fn ungrouped(&self, written: &Expr, keys: &[Key]) -> Option<Place> {
        match written {
            Expr::Call(call)
                if call.over.is_none()
                    && self.env.functions.is_aggregate(&call.name.to_lowercase()) =>
            {
                return None;
            }
            Expr::Star { place, .. } => return *place,
            Expr::Alias { expr, .. } => return self.ungrouped(expr, keys),
            _ => {}
        }
        let value = self.resolve(written).ok();
        let value = value.map(|value| value.expr);
        if value.is_some_and(|value| keys.iter().any(|key| key.written == value)) {
            return None;
        }
        match written {
            Expr::Column { place, .. } => *place,
            other => {
                let mut parts = other.children().into_iter();
                parts.find_map(|part| self.ungrouped(part, keys))
            }
        }
    }
}

/// A key as the query writes it, as it is grouped by, and what it is called above.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) written: DfExpr,
    pub(super) made: DfExpr,
    pub(super) above: Column,
}

/// Takes select-list expressions apart at the aggregation.
struct Split<'s> {
    env: &'s Env<'s>,
    keys: &'s [Key],
    calls: Vec<Below>,
}

/// A call of an aggregate function.
struct Below {
    call: DfExpr,
    name: String,
    /// What is asked of the values that it collects, if that is what it does: all at once.
    asked: Vec<Rank>,
}

impl Split<'_> {
    /// What the call is called in the aggregation's output: itself, unless that is taken.
    fn name(&self, call: &DfExpr) -> String {
        let name = call.schema_name().to_string();
        let taken = self
            .keys
            .iter()
            .map(|k| &k.above.name)
            .chain(self.calls.iter().map(|call| &call.name));
        if taken.into_iter().any(|taken| *taken == name) {
            self.env.fresh(&name)
        } else {
            name
        }
    }

    /// The place of a call, and its column above.
    fn place(&mut self, call: DfExpr) -> (usize, DfExpr) {
        let same = |other: &Below| other.call == call;
        let place = self.calls.iter().position(same).unwrap_or_else(|| {
            self.calls.push(Below {
                name: self.name(&call),
                call,
                asked: vec![],
            });
            self.calls.len() - 1
        });
        let column = Column::new_unqualified(self.calls[place].name.clone());
        (place, DfExpr::Column(column))
    }

    /// What is asked of the values of a call, in what answers all that is asked of them.
    fn answer(&mut self, rank: &Rank, values: &AggregateFunction, element: &DataType) -> DfExpr {
        let (place, all) = self.place(DfExpr::AggregateFunction(values.clone()));
        let asked = &mut self.calls[place].asked;
        let nth = asked.iter().position(|other| other == rank);
        let nth = nth.unwrap_or_else(|| {
            asked.push(rank.clone());
            asked.len() - 1
        });
        ranks::answer(all, nth, rank, element)
    }

    /// The calls, and what they are called.
    fn calls(self) -> impl Iterator<Item = (DfExpr, String)> {
        let calls = self.calls.into_iter();
        calls.map(
            |Below {
                 call, name, asked, ..
             }| match call {
                DfExpr::AggregateFunction(values) if !asked.is_empty() => {
                    (ranks::at_once(&values, asked), name)
                }
                call => (call, name),
            },
        )
    }

    /// The expression over the aggregation's output.
    fn above(&mut self, expr: DfExpr, input: &Relation, written: &str) -> Result<DfExpr> {
        let above = expr.transform_down(|e| {
            if let Some(key) = self.keys.iter().find(|key| key.written == e) {
                let column = DfExpr::Column(key.above.clone());
                return Ok(Transformed::new(column, true, TreeNodeRecursion::Jump));
            }
            if let DfExpr::ScalarFunction(call) = &e
                && let Some((rank, values, element)) = ranks::asked(call)
            {
                let answer = self.answer(rank, values, element);
                return Ok(Transformed::new(answer, true, TreeNodeRecursion::Jump));
            }
            match e {
                DfExpr::AggregateFunction(_) => {
                    let (_, column) = self.place(e);
                    Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
                }
                DfExpr::Column(column) => {
                    let shown = input
                        .columns
                        .iter()
                        .find(|c| c.column == column)
                        .map_or(&column.name, |c| &c.name);
                    Err(missing(shown, written, self.keys).into())
                }
                other => Ok(Transformed::no(other)),
            }
        });
        Ok(above.map_err(unwrapped)?.data)
    }
}

fn missing(column: &str, written: &str, keys: &[Key]) -> QueryError {
    if keys.is_empty() {
        let message = "The query does not include a GROUP BY clause. Add GROUP BY or turn it into the window functions using OVER clauses.";
        return QueryError::new("MISSING_GROUP_BY", message);
    }
    // HAVING sees what GROUP BY leaves, and that has no such column.
    if written == "HAVING" {
        let known: Vec<String> = keys.iter().map(|k| format!("`{}`", k.above.name)).collect();
        let message = format!(
            "A column, variable, or function parameter with name `{column}` cannot be resolved. Did you mean one of the following? [{}]. HAVING sees what is grouped by, and aggregates.",
            known.join(", ")
        );
        return QueryError::new("UNRESOLVED_COLUMN.WITH_SUGGESTION", message);
    }
    // What ORDER BY asks for stands in the select list under a name of ours.
    let within = match names_ours(written) {
        true => String::new(),
        false => format!(" (in \"{written}\")"),
    };
    let message = format!(
        "The non-aggregating expression \"{column}\" is based on columns which are not participating in the GROUP BY clause. Add the columns or the expression to the GROUP BY, aggregate the expression, or use \"any_value({column})\" if you do not care which of the values within a group is returned{within}."
    );
    QueryError::new("MISSING_AGGREGATION", message)
}

impl From<QueryError> for DataFusionError {
    fn from(error: QueryError) -> Self {
        DataFusionError::External(Box::new(error))
    }
}

fn unwrapped(error: DataFusionError) -> QueryError {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<QueryError>() {
            Ok(error) => *error,
            Err(other) => DataFusionError::External(other).into(),
        },
        other => other.into(),
    }
}
