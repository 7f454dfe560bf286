//! Subqueries of GROUP BY, of aggregates, above groups and of ON: where they stand there are no rows of one plan.
//!
//! What a key or an aggregate asks is asked of the rows below first, and stands beside them as columns. What is asked of
//! groups is asked above them: there the groups are rows, their keys known by the names that they had. A condition of a
//! join is asked of its pairs, or, where a join keeps rows without a partner, of the side whose columns it names; if it
//! names both, see `partner`.

use std::cell::RefCell;
use std::sync::Arc;

use datafusion::common::Column;
use datafusion::logical_expr::{Expr as DfExpr, LogicalPlan, Projection};

use super::Env;
use super::expression::Exprs;
use super::name::{Names, output_name};
use super::scope::{Relation, ScopeColumn};
use super::subquery::{Subqueries, conjuncts, has_subquery};
use super::window::is_window_call;
use crate::error::QueryError;
use crate::expr::{Expr, Literal, col};
use crate::functions::is_generator;
use crate::plan::{JoinCondition, JoinKind};

type Result<T> = std::result::Result<T, QueryError>;

/// Whether the expression is a query, whatever is in it.
fn is_subquery(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. }
    )
}

/// The qualifier of the columns with their values.
const BESIDE: &str = "\u{1}beside";

/// The queries in an expression, none inside of another one's operand, and none that may name what a lambda takes.
fn subqueries_of<'e>(expr: &'e Expr, found: &mut Vec<&'e Expr>) {
    if matches!(expr, Expr::Lambda { .. }) {
        return;
    }
    if !is_subquery(expr) {
        for child in expr.children() {
            subqueries_of(child, found);
        }
    } else if !found.iter().any(|known| known.is_like(expr)) {
        found.push(expr);
    }
}

/// The queries whose values are taken by what cannot hold a query: by generators, functions of a window and the left side
/// of IN.
fn operands_of<'e>(expr: &'e Expr, found: &mut Vec<&'e Expr>) {
    let takes = match expr {
        Expr::InSubquery { .. } => true,
        Expr::Call(call) => call.over.is_some() || is_generator(&call.name.to_lowercase()),
        _ => false,
    };
    for child in expr.children() {
        match takes {
            true => subqueries_of(child, found),
            false => operands_of(child, found),
        }
    }
}

impl Env<'_> {
    /// The rows, and expressions over them, with the queries whose values the expressions take beside the columns.
    pub(super) fn with_operands(
        &self,
        input: Relation,
        exprs: &[Expr],
    ) -> Result<(Relation, Vec<Expr>)> {
        let mut found = vec![];
        exprs.iter().for_each(|expr| operands_of(expr, &mut found));
        if found.is_empty() {
            return Ok((input, exprs.to_vec()));
        }
        let (input, values) = self.beside_subqueries(input, &found)?;
        let mut replace = |part: &Expr| {
            let place = found.iter().position(|known| known.is_like(part))?;
            match &values[place] {
                Expr::Resolved(value) => match value.as_ref() {
                    // By its name, as the columns may be renamed.
                    DfExpr::Column(column) => Some(Expr::Column {
                        name: vec![BESIDE.to_string(), column.name.clone()],
                        place: None,
                    }),
                    _ => None,
                },
                _ => None,
            }
        };
        let exprs = exprs.iter().cloned();
        let exprs = exprs.map(|expr| expr.rewritten(&mut replace)).collect();
        Ok((input, exprs))
    }

    /// The relation without what [`Env::with_operands`] has put beside it.
    pub(super) fn without_operands(&self, mut relation: Relation) -> Result<Relation> {
        let before = relation.columns.len();
        relation.columns.retain(|c| c.qualifier != [BESIDE]);
        match relation.columns.len() == before {
            true => Ok(relation),
            false => self.only(relation.plan, relation.columns),
        }
    }

    /// The rows with the values of subqueries beside their columns, and what names these.
    fn beside_subqueries(
        &self,
        input: Relation,
        subqueries: &[&Expr],
    ) -> Result<(Relation, Vec<Expr>)> {
        let subqueries: Vec<Expr> = subqueries.iter().map(|e| (*e).clone()).collect();
        let (input, subqueries) = self.with_operands(input, &subqueries)?;
        let input = self.renamed(input)?;
        let exprs = Exprs {
            subqueries: Subqueries::OfRows,
            ..Exprs::over(self, &input.columns, "SELECT")
        };
        let fields = input.plan.schema().iter();
        let mut outputs: Vec<DfExpr> = fields
            .map(|(q, field)| DfExpr::Column(Column::new(q.cloned(), field.name())))
            .collect();
        let mut columns = input.columns.clone();
        let mut values = vec![];
        for subquery in &subqueries {
            let value = exprs.resolve(subquery)?;
            let name = self.fresh("subquery");
            outputs.push(value.expr.alias(name.clone()));
            let column = Column::new_unqualified(name.clone());
            values.push(Expr::Resolved(Box::new(DfExpr::Column(column.clone()))));
            columns.push(ScopeColumn {
                qualifier: vec![BESIDE.to_string()],
                name,
                column,
                data_type: value.data_type,
                hidden: true,
            });
        }
        let projection = Projection::try_new(outputs, Arc::new(input.plan))?;
        let plan = LogicalPlan::Projection(projection);
        Ok((Relation { plan, columns }, values))
    }

    /// An aggregation with subqueries among its keys, in its aggregates or above it.
    pub(super) fn aggregate_with_subqueries(
        &self,
        input: Relation,
        keys: &[Expr],
        outputs: &[Expr],
        having: Option<&Expr>,
    ) -> Result<Relation> {
        let outputs = self.named_outputs(&input, outputs)?;
        let keys: Vec<Expr> = keys
            .iter()
            .map(|key| self.key_of(&input, key, &outputs))
            .collect();
        let having = having.map(|having| self.spelled(having, &outputs));
        let is_aggregate = |e: &Expr| matches!(e, Expr::Call(call) if call.over.is_none() && self.functions.is_aggregate(&call.name.to_lowercase()));
        let above = outputs.iter().chain(&having);
        let mut below = vec![];
        keys.iter().for_each(|key| subqueries_of(key, &mut below));
        let mut rest: Vec<&Expr> = above.collect();
        while let Some(expr) = rest.pop() {
            match is_aggregate(expr) {
                true => subqueries_of(expr, &mut below),
                false => rest.extend(expr.children()),
            }
        }
        let (input, keys, outputs, having) = match below.is_empty() {
            true => (input, keys, outputs, having),
            false => {
                let (input, values) = self.beside_subqueries(input, &below)?;
                let mut replace = |part: &Expr| {
                    let place = below.iter().position(|known| known.is_like(part));
                    place.map(|place| values[place].clone())
                };
                let mut replaced = |expr: &Expr| expr.clone().rewritten(&mut replace);
                let keys = keys.iter().map(&mut replaced).collect();
                let outputs: Vec<Expr> = outputs.iter().map(&mut replaced).collect();
                let having = having.as_ref().map(replaced);
                (input, keys, outputs, having)
            }
        };
        if !outputs.iter().chain(&having).any(has_subquery) {
            return self.aggregate(input, &keys, &outputs, having.as_ref());
        }
        let mut all_keys: Vec<Expr> = vec![];
        for key in &keys {
            match key {
                Expr::Groupings { sets, .. } => all_keys.extend(sets.iter().flatten().cloned()),
                key => all_keys.push(key.clone()),
            }
        }
        let key_names: Vec<String> = all_keys.iter().map(|_| self.fresh("key")).collect();
        let resolved = |expr: &Expr| {
            let by_rows = !expr.any(&|e| matches!(e, Expr::Call(call) if is_window_call(call)));
            let exprs = Exprs::over(self, &input.columns, "GROUP BY");
            exprs.resolve(expr).ok().filter(|_| by_rows)
        };
        let known: Vec<_> = all_keys.iter().map(&resolved).collect();
        let calls: RefCell<Vec<(Expr, String)>> = RefCell::default();
        let mut replace = |part: &Expr| {
            if is_aggregate(part) {
                let name = self.fresh("aggregate");
                calls.borrow_mut().push((part.clone(), name.clone()));
                return Some(col(name));
            }
            if is_subquery(part) || matches!(part, Expr::Alias { .. }) {
                return None;
            }
            let place = all_keys.iter().position(|key| key.is_like(part));
            let place = place.or_else(|| {
                let value = resolved(part)?;
                known.iter().position(|key| key.as_ref() == Some(&value))
            });
            place.map(|place| col(&key_names[place]))
        };
        let mut replaced = |expr: &Expr| expr.clone().rewritten(&mut replace);
        let outputs: Vec<Expr> = outputs.iter().map(&mut replaced).collect();
        let having = having.as_ref().map(replaced);
        let named = all_keys.iter().zip(&key_names);
        let calls = calls.into_inner();
        let mut grouped: Vec<Expr> = named.map(|(key, name)| key.clone().alias(name)).collect();
        grouped.extend(calls.into_iter().map(|(call, name)| call.alias(name)));
        let mut groups = self.aggregate(input.clone(), &keys, &grouped, None)?;
        for (place, key) in all_keys.iter().enumerate() {
            let column = groups.columns[place].clone();
            let written = known[place].as_ref().and_then(|value| {
                input
                    .columns
                    .iter()
                    .find(|column| column.typed().expr == value.expr)
            });
            match (written, key) {
                (Some(written), _) => groups.columns.push(ScopeColumn {
                    qualifier: written.qualifier.clone(),
                    name: written.name.clone(),
                    ..column
                }),
                (None, Expr::Call(call)) if is_window_call(call) => {
                    groups.columns.push(ScopeColumn {
                        name: call.name.to_lowercase(),
                        ..column
                    });
                }
                _ => {}
            }
        }
        if let Some(having) = &having {
            groups = self.filter(groups, having)?;
        }
        self.project(groups, &outputs)
    }

    /// The select list with the names that its columns have.
    fn named_outputs(&self, input: &Relation, outputs: &[Expr]) -> Result<Vec<Expr>> {
        let named = outputs.iter().map(|output| match output {
            Expr::Star { .. } => Err(QueryError::unsupported(
                "* in a select list over groups that has subqueries",
            )),
            Expr::Alias { .. } => Ok(output.clone()),
            other => {
                let names = Names::unqualified(&input.columns, self.conf.case_sensitive);
                let name = output_name(&self.told(&input.columns, other), &names);
                Ok(other.clone().alias(name))
            }
        });
        named.collect()
    }

    /// The key that is meant by a position or a name of the select list.
    fn key_of(&self, input: &Relation, key: &Expr, outputs: &[Expr]) -> Expr {
        let output = match key {
            Expr::Literal(Literal::Int(nth), _) => usize::try_from(*nth - 1)
                .ok()
                .and_then(|nth| outputs.get(nth)),
            Expr::Column { name, .. }
                if Exprs::over(self, &input.columns, "GROUP BY")
                    .resolve(key)
                    .is_err() =>
            {
                self.output_called(name, outputs)
            }
            _ => None,
        };
        match output {
            Some(Expr::Alias { expr, .. }) => (**expr).clone(),
            _ => key.clone(),
        }
    }

    fn output_called<'o>(&self, name: &[String], outputs: &'o [Expr]) -> Option<&'o Expr> {
        let [name] = name else { return None };
        outputs.iter().find(
            |output| matches!(output, Expr::Alias { names, .. } if names.iter().any(|n| self.same(n, name))),
        )
    }

    /// The condition with what names of the select list stand for.
    fn spelled(&self, having: &Expr, outputs: &[Expr]) -> Expr {
        having.clone().rewritten(&mut |part| {
            let Expr::Column { name, .. } = part else {
                return None;
            };
            match self.output_called(name, outputs) {
                Some(Expr::Alias { expr, .. }) => Some((**expr).clone()),
                _ => None,
            }
        })
    }

    /// A join on a condition that has subqueries.
    pub(super) fn join_with_subqueries(
        &self,
        left: Relation,
        right: Relation,
        kind: JoinKind,
        condition: &Expr,
    ) -> Result<Relation> {
        if matches!(kind, JoinKind::Inner | JoinKind::Cross) {
            let mut parts = vec![];
            conjuncts(condition, &mut parts);
            let (with, without): (Vec<&Expr>, Vec<&Expr>) =
                parts.into_iter().partition(|part| has_subquery(part));
            let on = match without.into_iter().cloned().reduce(Expr::and) {
                Some(on) => JoinCondition::On(on),
                None => JoinCondition::None,
            };
            let pairs = self.join(left, right, kind, &on)?;
            return match with.into_iter().cloned().reduce(Expr::and) {
                Some(with) => self.filter_by_subqueries(pairs, &with),
                None => Ok(pairs),
            };
        }
        let mut found = vec![];
        subqueries_of(condition, &mut found);
        // A name of the other side must not be taken for one from further outside.
        let alone = |columns: &[ScopeColumn], subquery: &Expr| {
            let exprs = Exprs {
                subqueries: Subqueries::OfRows,
                ..Exprs::over(self, columns, "ON")
            };
            let around = self.outer.take();
            let answered = exprs.resolve(subquery);
            self.outer.replace(around);
            answered.is_ok()
        };
        let (mut of_left, mut of_right) = (vec![], vec![]);
        for subquery in found {
            if alone(&left.columns, subquery) {
                of_left.push(subquery);
            } else if alone(&right.columns, subquery) {
                of_right.push(subquery);
            } else {
                return self.join_by_partners(left, right, kind, condition);
            }
        }
        let (left, left_values) = self.beside_subqueries(left, &of_left)?;
        let (right, right_values) = self.beside_subqueries(right, &of_right)?;
        let known = of_left.iter().chain(&of_right);
        let values: Vec<(&&Expr, Expr)> = known.zip([left_values, right_values].concat()).collect();
        let condition = condition.clone().rewritten(&mut |part| {
            let value = values.iter().find(|(subquery, _)| subquery.is_like(part));
            value.map(|(_, value)| value.clone())
        });
        self.join(left, right, kind, &JoinCondition::On(condition))
    }
}
