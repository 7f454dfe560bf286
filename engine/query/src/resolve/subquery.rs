//! Queries inside expressions: as a value, IN and EXISTS.
//!
//! A condition of WHERE that is one of IN and EXISTS stays one, and becomes a semi or anti join. Elsewhere they are
//! asked by counting: how many rows there are, and how many are equal, which also says when IN is unknown.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DataFusionError, ScalarValue, TableReference};
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::{
    Aggregate, Distinct, EmptyRelation, Expr as DfExpr, Filter, Limit, LogicalPlan, Projection,
    Subquery,
};

use super::Env;
use super::expression::Exprs;
use super::scope::{Relation, ScopeColumn, lookup};
use crate::coerce;
use crate::error::QueryError;
use crate::expr::{BinaryOp, Expr, UnaryOp, col};
use crate::functions::kernel::Typed;
use crate::functions::{aggregate, cast, compare, conditional};
use crate::plan::Plan;
use crate::rewrite::first_place;
use crate::types::type_sql;
pub(super) use crate::unnest::names_outer;
use crate::unnest::{as_joins, can_be_flat, hoisted, joinable, named_outside};

type Result<T> = std::result::Result<T, QueryError>;

/// Where a subquery may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subqueries {
    /// Nowhere here.
    Refused,
    /// In the rows of a plan node, whose columns it may name.
    OfRows,
}

/// Whether the expression holds a query.
pub(super) fn has_subquery(expr: &Expr) -> bool {
    expr.any(&|e| {
        matches!(
            e,
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. }
        )
    })
}

impl Env<'_> {
    /// The rows for which `condition`, which holds a subquery, is true.
    pub(super) fn filter_by_subqueries(
        &self,
        input: Relation,
        condition: &Expr,
    ) -> Result<Relation> {
        let (input, condition) = self.with_operands(input, std::slice::from_ref(condition))?;
        let mut parts = vec![];
        condition
            .iter()
            .for_each(|part| conjuncts(part, &mut parts));
        // What needs no other rows comes first.
        let (with, without): (Vec<&Expr>, Vec<&Expr>) =
            parts.into_iter().partition(|part| has_subquery(part));
        let mut relation = input;
        if let Some(rest) = without.into_iter().cloned().reduce(Expr::and) {
            relation = self.filter(relation, &rest)?;
        }
        let mut relation = self.renamed(relation)?;
        for part in with {
            let exprs = Exprs {
                subqueries: Subqueries::OfRows,
                ..Exprs::over(self, &relation.columns, "WHERE")
            };
            let joined = exprs.join_of(part).map_err(|e| placed(e, part));
            let joined = joined.map_err(|error| error.at(part.place()))?;
            let predicate = match joined {
                Some(joined) => exprs.checked(part, joined)?,
                None => exprs.condition(part)?.expr,
            };
            let filter = Filter::try_new(predicate, Arc::new(relation.plan))?;
            relation.plan = LogicalPlan::Filter(filter);
        }
        self.without_operands(relation)
    }
}

impl Env<'_> {
    /// The expression for the name of its column: with the columns of `columns` that its subqueries name in their place.
    pub(super) fn told(&self, columns: &[ScopeColumn], expr: &Expr) -> Expr {
        let exprs = Exprs::over(self, columns, "SELECT");
        let called = |what: &str, plan: &Plan| Expr::call(what, exprs.named_by(plan));
        let negate = |negated: bool, expr: Expr| if negated { !expr } else { expr };
        expr.clone().rewritten(&mut |part| match part {
            Expr::Subquery(plan) => Some(called("scalarsubquery", plan)),
            Expr::Exists { plan, negated } => Some(negate(*negated, called("exists", plan))),
            Expr::InSubquery {
                expr,
                plan,
                negated,
            } => {
                let value = self.told(columns, expr);
                let value = match &value {
                    Expr::Tuple(values) => col(in_quotes(&exprs, values)),
                    _ => value,
                };
                let found = Expr::In {
                    expr: Box::new(value),
                    list: vec![called("listquery", plan)],
                    negated: false,
                };
                Some(negate(*negated, found))
            }
            _ => None,
        })
    }
}

/// A tuple before IN, as the model tells it.
fn in_quotes(exprs: &Exprs<'_>, values: &[Expr]) -> String {
    let fields = values.iter().enumerate();
    let fields = fields.map(|(nth, value)| {
        let name = super::name::field_name(nth, value);
        format!("'{name}', {}", exprs.text(value))
    });
    format!("`named_struct({})`", fields.collect::<Vec<_>>().join(", "))
}

/// The conditions that AND puts together.
pub(super) fn conjuncts<'e>(condition: &'e Expr, parts: &mut Vec<&'e Expr>) {
    match condition {
        Expr::Binary {
            left,
            op: BinaryOp::And,
            right,
            ..
        } => {
            conjuncts(left, parts);
            conjuncts(right, parts);
        }
        other => parts.push(other),
    }
}

fn bigint(n: i64) -> Typed {
    Typed::literal(ScalarValue::Int64(Some(n)))
}

impl Exprs<'_> {
    /// The condition as one that becomes a join, if it is IN or EXISTS.
    fn join_of(&self, condition: &Expr) -> Result<Option<DfExpr>> {
        match condition {
            Expr::Unary {
                op: UnaryOp::Not,
                expr,
            } => match expr.as_ref() {
                Expr::Exists { plan, negated } => self.exists(plan, !negated),
                Expr::InSubquery {
                    expr,
                    plan,
                    negated,
                } => self.in_join(expr, plan, !negated),
                _ => Ok(None),
            },
            Expr::Exists { plan, negated } => self.exists(plan, *negated),
            Expr::InSubquery {
                expr,
                plan,
                negated,
            } => self.in_join(expr, plan, *negated),
            _ => Ok(None),
        }
    }

    fn exists(&self, plan: &Plan, negated: bool) -> Result<Option<DfExpr>> {
        let rows = self.hoisted(rows_of(self.inner(plan)?.plan), false)?;
        Ok(joinable(&rows, false).then(|| {
            DfExpr::Exists(Exists {
                subquery: subquery(rows),
                negated,
            })
        }))
    }

    /// The condition that `rows`, a query of these rows, has one; or, `negated`, that it has none.
    pub(super) fn exists_rows(&self, rows: LogicalPlan, negated: bool) -> Result<DfExpr> {
        let rows = self.hoisted(rows_of(rows), false)?;
        if joinable(&rows, false) {
            return Ok(DfExpr::Exists(Exists {
                subquery: subquery(rows),
                negated,
            }));
        }
        let op = if negated { BinaryOp::Eq } else { BinaryOp::Gt };
        Ok(compare::compare(op, self.count(rows)?, bigint(0), "EXISTS")?.expr)
    }

    fn in_join(&self, value: &Expr, plan: &Plan, negated: bool) -> Result<Option<DfExpr>> {
        let inner = self.inner(plan)?;
        let (values, columns) = self.sides(value, &inner)?;
        if values
            .iter()
            .all(|value| value.expr.column_refs().is_empty())
        {
            // A constant is no key of a join.
            return Ok(None);
        }
        if let ([value], [column], false) = (
            values.as_slice(),
            columns.as_slice(),
            negated && !named_outside(&inner.plan).is_empty(),
        ) && coerce::is_atomic(&value.data_type)
        {
            let name = self.env.fresh("in");
            let plan = self
                .env
                .projection(inner.plan.clone(), vec![(name, column.clone())])?
                .plan;
            let plan = self.hoisted(plan, false)?;
            return Ok(joinable(&plan, false).then(|| {
                DfExpr::InSubquery(InSubquery {
                    expr: Box::new(value.expr.clone()),
                    subquery: subquery(plan),
                    negated,
                })
            }));
        }
        // There is a row that is equal; none that is equal or might be, for NOT IN.
        let mut all: Option<Typed> = None;
        for (value, column) in values.into_iter().zip(columns) {
            let equal = compare::compare(BinaryOp::Eq, outer(value)?, column, "IN")?;
            all = Some(match all {
                None => equal,
                Some(before) => conditional::and(before, equal),
            });
        }
        let all = all.ok_or_else(|| QueryError::unsupported("IN without columns"))?;
        let condition = match negated {
            false => all,
            true => conditional::or(all.clone(), conditional::is_null(all)),
        };
        let filtered = Filter::try_new(condition.expr, Arc::new(inner.plan))?;
        let filtered = self.hoisted(LogicalPlan::Filter(filtered), false)?;
        let found = match joinable(&filtered, false) || can_be_flat(&filtered) {
            true => subquery(filtered),
            false => return Err(left()),
        };
        Ok(Some(DfExpr::Exists(Exists {
            subquery: found,
            negated,
        })))
    }

    /// What stands on the left of IN, and the columns of its query, of the same types.
    fn sides(&self, value: &Expr, inner: &Relation) -> Result<(Vec<Typed>, Vec<Typed>)> {
        let written = value;
        let values = match value {
            Expr::Tuple(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        let plain = Exprs {
            subqueries: Subqueries::Refused,
            ..*self
        };
        let values = values.iter().map(|value| plain.resolve(value));
        let values = values.collect::<Result<Vec<_>>>()?;
        let columns: Vec<Typed> = inner.visible().map(ScopeColumn::typed).collect();
        if values.len() != columns.len() {
            let message = format!(
                "Cannot resolve \"({} IN (listquery()))\" due to data type mismatch: The number of columns in the left hand side of an IN subquery does not match the number of columns in the output of subquery. Left hand side columns(length: {}), right hand side columns(length: {}).",
                self.text(written),
                values.len(),
                columns.len()
            );
            return Err(QueryError::mismatch("IN_SUBQUERY_LENGTH_MISMATCH", message));
        }
        let mut both = (vec![], vec![]);
        for (value, column) in values.into_iter().zip(columns) {
            let found = coerce::named_as(&value.data_type, &column.data_type);
            let Some(target) = coerce::wider(&value.data_type, &found) else {
                let message = format!(
                    "Cannot resolve \"({} IN (listquery()))\" due to data type mismatch: The data type of one or more elements in the left hand side of an IN subquery is not compatible with the data type of the output of the subquery. Mismatched columns: [\"{}\", \"{}\"].",
                    self.text(written),
                    type_sql(&value.data_type),
                    type_sql(&column.data_type)
                );
                return Err(QueryError::mismatch(
                    "IN_SUBQUERY_DATA_TYPE_MISMATCH",
                    message,
                ));
            };
            let to_target = |value| {
                let value = cast::implicit(value, &target)?;
                compare::orderable("in", &value)?;
                compare::normalized(value)
            };
            both.0.push(to_target(value)?);
            both.1.push(to_target(column)?);
        }
        Ok(both)
    }

    /// A subquery as part of an expression.
    pub(super) fn subquery(&self, expr: &Expr) -> Result<Typed> {
        if self.subqueries == Subqueries::Refused {
            return Err(match self.aggregates {
                Err("a lambda") => QueryError::new(
                    "UNSUPPORTED_SUBQUERY_EXPRESSION_CATEGORY.HIGHER_ORDER_FUNCTION",
                    "Unsupported subquery expression: Subquery expressions are not supported within higher-order functions. Please remove all subquery expressions from higher-order functions and then try the query again.",
                ),
                Err("VALUES") => QueryError::new(
                    "UNSUPPORTED_SUBQUERY_EXPRESSION_CATEGORY.SCALAR_SUBQUERY_IN_VALUES",
                    "Unsupported subquery expression: Scalar subqueries in the VALUES clause.",
                ),
                Err(clause) => QueryError::unsupported(format!("a subquery in {clause}")),
                Ok(()) => QueryError::unsupported("a subquery here"),
            });
        }
        let value = self.subquery_value(expr).map_err(|e| placed(e, expr));
        let mut value = value.map_err(|error| error.at(expr.place()))?;
        value.expr = self.checked(expr, value.expr)?;
        Ok(value)
    }

    fn subquery_value(&self, expr: &Expr) -> Result<Typed> {
        match expr {
            Expr::Subquery(plan) => self.scalar(plan),
            Expr::Exists { plan, negated } => {
                let inner = self.inner(plan)?;
                let some = self.count(rows_of(inner.plan))?;
                let op = if *negated { BinaryOp::Eq } else { BinaryOp::Gt };
                compare::compare(op, some, bigint(0), "EXISTS")
            }
            Expr::InSubquery {
                expr: value,
                plan,
                negated,
            } => self.in_value(value, plan, *negated),
            _ => Err(QueryError::unsupported("this subquery")),
        }
    }

    /// `NOT expr`, where `expr` holds a subquery: it goes down to IN, which is not just the other way round.
    pub(super) fn not(&self, expr: &Expr) -> Result<Typed> {
        let both =
            |left: &Expr, right: &Expr| Ok::<_, QueryError>((self.not(left)?, self.not(right)?));
        match expr {
            Expr::Binary {
                left,
                op: BinaryOp::And,
                right,
                ..
            } if has_subquery(expr) => both(left, right).map(|(l, r)| conditional::or(l, r)),
            Expr::Binary {
                left,
                op: BinaryOp::Or,
                right,
                ..
            } if has_subquery(expr) => both(left, right).map(|(l, r)| conditional::and(l, r)),
            Expr::Unary {
                op: UnaryOp::Not,
                expr,
            } => self.condition(expr),
            Expr::InSubquery {
                expr,
                plan,
                negated,
            } if self.subqueries != Subqueries::Refused => self.in_value(expr, plan, !negated),
            other => {
                let whole = format!("(NOT {})", self.text(other));
                let value = self
                    .condition_of(&whole, 0, other)
                    .map_err(|e| e.naming(&self.text(other)))?;
                Ok(conditional::not(value))
            }
        }
    }

    /// IN or NOT IN by counts. Inside of another expression neither is ever unknown: where it cannot be told, both are
    /// false, as in the model.
    fn in_value(&self, value: &Expr, plan: &Plan, negated: bool) -> Result<Typed> {
        let inner = self.inner(plan)?;
        let (values, columns) = self.sides(value, &inner)?;
        let ([value], [column]) = (values.as_slice(), columns.as_slice()) else {
            return self.tuple_in(values, columns, inner.plan, negated);
        };
        // The columns get names, so that what is compared is one.
        let name = self.env.fresh("in");
        let named = self
            .env
            .projection(inner.plan, vec![(name.clone(), column.clone())])?;
        let column = named
            .columns
            .first()
            .map(ScopeColumn::typed)
            .ok_or_else(|| QueryError::unsupported("IN without columns"))?;
        let of = |condition: Option<Typed>| -> Result<Typed> {
            let plan = match condition {
                None => named.plan.clone(),
                Some(condition) => {
                    let plan = Arc::new(named.plan.clone());
                    LogicalPlan::Filter(Filter::try_new(condition.expr, plan)?)
                }
            };
            compare::compare(BinaryOp::Gt, self.count(plan)?, bigint(0), "IN")
        };
        let equal = compare::compare(BinaryOp::Eq, column.clone(), outer(value.clone())?, "IN")?;
        let equal = of(Some(equal))?;
        if !negated {
            return Ok(equal);
        }
        let (unknown, any) = (of(Some(conditional::is_null(column)))?, of(None)?);
        let no_value = conditional::and(conditional::is_null(value.clone()), any);
        let perhaps = conditional::or(equal, conditional::or(no_value, unknown));
        Ok(conditional::not(perhaps))
    }

    /// The same with several columns.
    fn tuple_in(
        &self,
        values: Vec<Typed>,
        columns: Vec<Typed>,
        plan: LogicalPlan,
        negated: bool,
    ) -> Result<Typed> {
        let mut all = Typed::literal(ScalarValue::Boolean(Some(true)));
        for (value, column) in values.into_iter().zip(columns) {
            let equal = compare::compare(BinaryOp::Eq, column, outer(value)?, "IN")?;
            all = conditional::and(all, equal);
        }
        let perhaps = match negated {
            true => conditional::or(all.clone(), conditional::is_null(all)),
            false => all,
        };
        let rows = Filter::try_new(perhaps.expr, Arc::new(plan))?;
        let rows = self.count(LogicalPlan::Filter(rows))?;
        let op = if negated { BinaryOp::Eq } else { BinaryOp::Gt };
        compare::compare(op, rows, bigint(0), "IN")
    }

    /// How many rows `plan` has.
    fn count(&self, plan: LogicalPlan) -> Result<Typed> {
        let wanted = aggregate::Wanted::of(vec![bigint(1)]);
        let count = self.env.functions.call_aggregate("count", wanted)?;
        self.value_of(plan, count)
    }

    /// One value of all rows of `plan`.
    fn value_of(&self, plan: LogicalPlan, value: Typed) -> Result<Typed> {
        let name = self.env.fresh("value");
        let plan = Aggregate::try_new(Arc::new(plan), vec![], vec![value.expr.alias(name)])?;
        self.of_one_row(LogicalPlan::Aggregate(plan), value.data_type)
    }

    fn of_one_row(&self, plan: LogicalPlan, data_type: DataType) -> Result<Typed> {
        let plan = self.hoisted(plan, true)?;
        if !joinable(&plan, true) && !can_be_flat(&plan) {
            return Err(left());
        }
        Ok(Typed::new(
            DfExpr::ScalarSubquery(subquery(plan)),
            data_type,
        ))
    }

    fn hoisted(&self, plan: LogicalPlan, aggregated: bool) -> Result<LogicalPlan> {
        Ok(hoisted(plan, aggregated, &|| self.env.fresh("hoisted"))?)
    }

    /// The one value of a query.
    fn scalar(&self, plan: &Plan) -> Result<Typed> {
        let inner = self.inner(plan)?;
        let columns: Vec<Typed> = inner.visible().map(ScopeColumn::typed).collect();
        let [column] = columns.as_slice() else {
            let message = format!(
                "Invalid subquery: Scalar subquery must return only one column, but got {}.",
                columns.len()
            );
            let class =
                "INVALID_SUBQUERY_EXPRESSION.SCALAR_SUBQUERY_RETURN_MORE_THAN_ONE_OUTPUT_COLUMN";
            return Err(QueryError::new(class, message));
        };
        if has_one_row(&inner.plan) {
            return self.of_one_row(inner.plan, column.data_type.clone());
        }
        let only = aggregate::only(column.clone());
        self.value_of(inner.plan, only)
    }

    /// The value of the subquery that is `written`, if there is a plan for it. It is made here once more than needed, so
    /// that who wrote the query is told which of its parts cannot be answered.
    fn checked(&self, written: &Expr, value: DfExpr) -> Result<DfExpr> {
        if !self.env.outer.borrow().is_empty() {
            return Ok(value);
        }
        let mut fields: Vec<(Option<TableReference>, Arc<Field>)> = vec![];
        let mut known: Vec<&Column> = vec![];
        for column in self.columns {
            if !known.contains(&&column.column) {
                known.push(&column.column);
                let field = Field::new(&column.column.name, column.data_type.clone(), true);
                fields.push((column.column.relation.clone(), Arc::new(field)));
            }
        }
        let rows = LogicalPlan::EmptyRelation(EmptyRelation {
            produce_one_row: false,
            schema: Arc::new(DFSchema::new_with_metadata(fields, Default::default())?),
        });
        let asked = match &value {
            DfExpr::Exists(_) | DfExpr::InSubquery(_) => {
                LogicalPlan::Filter(Filter::try_new(value.clone(), Arc::new(rows))?)
            }
            other => {
                let outputs = vec![other.clone().alias("value")];
                LogicalPlan::Projection(Projection::try_new(outputs, Arc::new(rows))?)
            }
        };
        match as_joins(asked) {
            Ok(_) => Ok(value),
            Err(error) => Err(cannot_be_answered(written, error)),
        }
    }

    /// The query, whose names may also be columns from here.
    fn inner(&self, plan: &Plan) -> Result<Relation> {
        let env = self.env;
        env.outer.borrow_mut().push(self.columns.to_vec());
        let resolved = env.relation(plan);
        env.outer.borrow_mut().pop();
        resolved
    }

    /// The columns from here that the query names, as often as it does.
    fn named_by(&self, plan: &Plan) -> Vec<Expr> {
        // What is wrong with it is told where its value is made.
        let Ok(inner) = self.inner(plan) else {
            return vec![];
        };
        let known = |column: &Column| self.columns.iter().find(|c| c.column == *column);
        let named = named_outside(&inner.plan);
        let named = named.iter().filter_map(known);
        named
            .map(|column| Expr::Column {
                name: vec![column.name.clone()],
                place: None,
            })
            .collect()
    }

    /// The column that `name` says of the queries around this one, the nearest first.
    pub(super) fn outer_column(&self, name: &[String]) -> Result<Option<Typed>> {
        let around = self.env.outer.borrow();
        for columns in around.iter().rev() {
            if let Some(found) = lookup(columns, name, self.case_sensitive())? {
                return as_outer(found, columns).map(Some);
            }
        }
        Ok(None)
    }
}

/// The refusal of a subquery, told where it stands.
fn placed(error: QueryError, written: &Expr) -> QueryError {
    match (error.class(), written) {
        (_, Expr::Unary { expr, .. }) => placed(error, expr),
        (
            Some("UNSUPPORTED_FEATURE"),
            Expr::Subquery(plan) | Expr::Exists { plan, .. } | Expr::InSubquery { plan, .. },
        ) => error.at(first_place(plan)),
        _ => error,
    }
}

fn cannot_be_answered(written: &Expr, error: DataFusionError) -> QueryError {
    let what = match written {
        Expr::Unary { expr, .. } => return cannot_be_answered(expr, error),
        Expr::Exists { .. } => "EXISTS with this subquery",
        Expr::InSubquery { .. } => "IN with this subquery",
        _ => "this subquery as a value",
    };
    // The planner's own words are about names that nobody wrote.
    let told = match error.find_root() {
        DataFusionError::NotImplemented(_) => QueryError::from(error),
        _ => QueryError::unsupported(what),
    };
    placed(told, written)
}

/// The value as one of the query around.
fn as_outer(value: Typed, columns: &[ScopeColumn]) -> Result<Typed> {
    let expr = value.expr.transform_down(|expr| match expr {
        DfExpr::Column(column) => {
            let known = columns.iter().find(|c| c.column == column);
            let data_type = known.map_or(DataType::Null, |c| c.data_type.clone());
            let field = Arc::new(Field::new(&column.name, data_type, true));
            Ok(Transformed::yes(DfExpr::OuterReferenceColumn(
                field, column,
            )))
        }
        other => Ok(Transformed::no(other)),
    });
    Ok(Typed::new(expr?.data, value.data_type))
}

/// A value of the query around, seen from inside.
fn outer(value: Typed) -> Result<Typed> {
    let is_column = matches!(value.expr, DfExpr::Column(_));
    let data_type = value.data_type.clone();
    let expr = value.expr.transform_down(|expr| match expr {
        DfExpr::Column(column) => {
            // The type of a column inside of an expression is not asked for.
            let of = if is_column {
                data_type.clone()
            } else {
                DataType::Null
            };
            let field = Arc::new(Field::new(&column.name, of, true));
            Ok(Transformed::yes(DfExpr::OuterReferenceColumn(
                field, column,
            )))
        }
        other => Ok(Transformed::no(other)),
    });
    Ok(Typed::new(expr?.data, value.data_type))
}

/// The plan without its select list: nobody asks for what columns its rows have.
fn rows_of(plan: LogicalPlan) -> LogicalPlan {
    match plan {
        LogicalPlan::Projection(projection) => rows_of(Arc::unwrap_or_clone(projection.input)),
        LogicalPlan::Sort(sort) => rows_of(Arc::unwrap_or_clone(sort.input)),
        LogicalPlan::Distinct(Distinct::All(rows)) => rows_of(Arc::unwrap_or_clone(rows)),
        // Some of the first rows, of which there is one at least.
        LogicalPlan::Limit(Limit {
            skip: None,
            fetch: Some(fetch),
            input,
        }) if matches!(*fetch, DfExpr::Literal(ScalarValue::Int64(Some(1..)), _)) => {
            rows_of(Arc::unwrap_or_clone(input))
        }
        other => other,
    }
}

/// Whether the plan has one row whatever its input: an aggregation without keys, perhaps in other words.
fn has_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(projection) => has_one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => has_one_row(&alias.input),
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        _ => false,
    }
}

/// The plan as a subquery.
fn subquery(plan: LogicalPlan) -> Subquery {
    Subquery {
        outer_ref_columns: plan.all_out_ref_exprs(),
        subquery: Arc::new(plan),
        spans: Default::default(),
    }
}

/// The refusal of a subquery that no join can be made of.
fn left() -> QueryError {
    QueryError::unsupported("a subquery that names columns of the query around it in this place")
}
