//! Queries inside expressions: as a value, IN and EXISTS.
//!
//! A condition of WHERE that is one of IN and EXISTS stays one, and becomes a semi or anti join. Elsewhere they are
//! asked by counting: how many rows there are, and how many are equal, which also says when IN is unknown.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, ScalarValue};
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr as DfExpr, Filter, LogicalPlan, Operator, Subquery,
};

use super::Env;
use super::expression::Exprs;
use super::scope::{Relation, ScopeColumn, lookup};
use crate::coerce;
use crate::error::QueryError;
use crate::expr::{BinaryOp, Expr, UnaryOp};
use crate::functions::kernel::Typed;
use crate::functions::{aggregate, cast, compare, conditional};
use crate::plan::Plan;
use crate::types::type_sql;

type Result<T> = std::result::Result<T, QueryError>;

/// Where a subquery may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subqueries {
    /// Nowhere here.
    Refused,
    /// In the rows of a plan node, whose columns it may name.
    OfRows,
    /// Above an aggregation, whose columns have no names yet.
    AboveGroups,
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
        let mut parts = vec![];
        conjuncts(condition, &mut parts);
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
            let predicate = match exprs.join_of(part)? {
                Some(joined) => joined,
                None => exprs.condition(part)?.expr,
            };
            let filter = Filter::try_new(predicate, Arc::new(relation.plan))?;
            relation.plan = LogicalPlan::Filter(filter);
        }
        Ok(relation)
    }
}

/// The conditions that AND puts together.
fn conjuncts<'e>(condition: &'e Expr, parts: &mut Vec<&'e Expr>) {
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
                Expr::Exists { plan, negated } => self.exists(plan, !negated).map(Some),
                Expr::InSubquery {
                    expr,
                    plan,
                    negated,
                } => self.in_join(expr, plan, !negated).map(Some),
                _ => Ok(None),
            },
            Expr::Exists { plan, negated } => self.exists(plan, *negated).map(Some),
            Expr::InSubquery {
                expr,
                plan,
                negated,
            } => self.in_join(expr, plan, *negated).map(Some),
            _ => Ok(None),
        }
    }

    fn exists(&self, plan: &Plan, negated: bool) -> Result<DfExpr> {
        let inner = self.inner(plan)?;
        Ok(DfExpr::Exists(Exists {
            subquery: subquery(rows_of(inner.plan), false)?,
            negated,
        }))
    }

    fn in_join(&self, value: &Expr, plan: &Plan, negated: bool) -> Result<DfExpr> {
        let inner = self.inner(plan)?;
        let (values, columns) = self.sides(value, &inner)?;
        if let ([value], [column], false) = (
            values.as_slice(),
            columns.as_slice(),
            negated && is_correlated(&inner.plan),
        ) && coerce::is_atomic(&value.data_type)
        {
            let name = self.env.fresh("in");
            let plan = self
                .env
                .projection(inner.plan.clone(), vec![(name, column.clone())])?
                .plan;
            return Ok(DfExpr::InSubquery(InSubquery {
                expr: Box::new(value.expr.clone()),
                subquery: subquery(plan, false)?,
                negated,
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
        Ok(DfExpr::Exists(Exists {
            subquery: subquery(LogicalPlan::Filter(filtered), false)?,
            negated,
        }))
    }

    /// What stands on the left of IN, and the columns of its query, of the same types.
    fn sides(&self, value: &Expr, inner: &Relation) -> Result<(Vec<Typed>, Vec<Typed>)> {
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
                "Cannot resolve \"{}\" due to data type mismatch: The number of columns in the left hand side of an IN subquery does not match the number of columns in the output of subquery. Left hand side columns(length: {}), right hand side columns(length: {}).",
                self.text(value),
                values.len(),
                columns.len()
            );
            return Err(QueryError::mismatch("IN_SUBQUERY_LENGTH_MISMATCH", message));
        }
        let mut both = (vec![], vec![]);
        for (value, column) in values.into_iter().zip(columns) {
            let Some(target) = coerce::wider(&value.data_type, &column.data_type) else {
                let message = format!(
                    "Cannot resolve the IN subquery due to data type mismatch: The data type of one or more elements in the left hand side of an IN subquery is not compatible with the data type of the output of the subquery. Mismatched columns: [\"{}\", \"{}\"].",
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
                compare::orderable(&value)?;
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
            return Err(QueryError::unsupported("a subquery here"));
        }
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
            } => {
                let found = self.in_value(value, plan)?;
                Ok(if *negated {
                    conditional::not(found)
                } else {
                    found
                })
            }
            _ => Err(QueryError::unsupported("this subquery")),
        }
    }

    /// IN by counts: true, false or unknown.
    fn in_value(&self, value: &Expr, plan: &Plan) -> Result<Typed> {
        let inner = self.inner(plan)?;
        let (values, columns) = self.sides(value, &inner)?;
        let ([value], [column]) = (values.as_slice(), columns.as_slice()) else {
            return Err(QueryError::unsupported(
                "IN with several columns inside of another expression",
            ));
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
        let (equal, unknown, any) = (
            of(Some(equal))?,
            of(Some(conditional::is_null(column)))?,
            of(None)?,
        );
        let no_value = conditional::and(conditional::is_null(value.clone()), any);
        let boolean = |value| Typed::literal(ScalarValue::Boolean(value));
        Ok(conditional::case(
            vec![
                (equal, boolean(Some(true))),
                (conditional::or(no_value, unknown), boolean(None)),
            ],
            boolean(Some(false)),
        ))
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
        let subquery = subquery(plan, true)?;
        if !subquery.outer_ref_columns.is_empty() && self.subqueries == Subqueries::AboveGroups {
            return Err(QueryError::unsupported(
                "a correlated subquery above an aggregation",
            ));
        }
        Ok(Typed::new(DfExpr::ScalarSubquery(subquery), data_type))
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

    /// The query, whose names may also be columns from here.
    fn inner(&self, plan: &Plan) -> Result<Relation> {
        let env = self.env;
        env.outer.borrow_mut().push(self.columns.to_vec());
        let resolved = env.relation(plan);
        env.outer.borrow_mut().pop();
        let relation = resolved?;
        if self.subqueries == Subqueries::AboveGroups && is_correlated(&relation.plan) {
            return Err(QueryError::unsupported(
                "a correlated subquery above an aggregation",
            ));
        }
        Ok(relation)
    }

    /// The column of the query around this one that `name` says.
    pub(super) fn outer_column(&self, name: &[String]) -> Result<Option<Typed>> {
        let around = self.env.outer.borrow();
        let Some(columns) = around.last() else {
            return Ok(None);
        };
        let found = lookup(columns, name, self.case_sensitive())?;
        let found = found.map(|value| as_outer(value, columns));
        found.transpose()
    }
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

pub(super) fn names_outer(expr: &DfExpr) -> bool {
    expr.exists(|e| Ok(matches!(e, DfExpr::OuterReferenceColumn(..))))
        .unwrap_or(true)
}

/// Whether the plan names columns of the query around it.
pub(super) fn is_correlated(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let _ = plan.apply(|node| {
        found |= node.expressions().iter().any(names_outer);
        Ok(match found {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    });
    found
}

/// The plan without its select list: nobody asks for what columns its rows have.
fn rows_of(plan: LogicalPlan) -> LogicalPlan {
    match plan {
        LogicalPlan::Projection(projection) => rows_of(Arc::unwrap_or_clone(projection.input)),
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

/// The plan as a subquery, if it names the query around it only where a join can be made of that.
fn subquery(plan: LogicalPlan, one_value: bool) -> Result<Subquery> {
    if !joinable(&plan, one_value) {
        return Err(QueryError::unsupported(
            "a subquery that names columns of the query around it other than in WHERE, or below a grouping other than as column = outer column,",
        ));
    }
    Ok(Subquery {
        outer_ref_columns: plan.all_out_ref_exprs(),
        subquery: Arc::new(plan),
        spans: Default::default(),
    })
}

fn joinable(plan: &LogicalPlan, aggregated: bool) -> bool {
    if !is_correlated(plan) {
        return true;
    }
    let own = |plan: &LogicalPlan| plan.expressions().iter().any(names_outer);
    match plan {
        LogicalPlan::Filter(filter) => {
            let fits = split_conjunction(&filter.predicate)
                .into_iter()
                .all(|part| !names_outer(part) || !aggregated || is_key(part));
            fits && joinable(&filter.input, aggregated)
        }
        LogicalPlan::Projection(projection) => {
            !own(plan) && joinable(&projection.input, aggregated)
        }
        LogicalPlan::SubqueryAlias(alias) => joinable(&alias.input, aggregated),
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => {
            !own(plan) && joinable(&join.left, aggregated) && joinable(&join.right, aggregated)
        }
        LogicalPlan::Distinct(Distinct::All(input)) if !aggregated => joinable(input, false),
        LogicalPlan::Aggregate(aggregate) if aggregated && aggregate.group_expr.is_empty() => {
            !own(plan) && below_aggregate(&aggregate.input)
        }
        _ => false,
    }
}

/// As [`joinable`], with no second aggregation of rows that depend on the query around.
fn below_aggregate(plan: &LogicalPlan) -> bool {
    let mut aggregations = false;
    let _ = plan.apply(|node| {
        aggregations |= matches!(node, LogicalPlan::Aggregate(_)) && is_correlated(node);
        Ok(TreeNodeRecursion::Continue)
    });
    !aggregations && joinable(plan, true)
}

/// `column = outer`.
fn is_key(condition: &DfExpr) -> bool {
    let DfExpr::BinaryExpr(binary) = condition else {
        return false;
    };
    let (left, right) = (binary.left.as_ref(), binary.right.as_ref());
    let column = |e: &DfExpr| matches!(e, DfExpr::Column(_));
    let outer = |e: &DfExpr| names_outer(e) && e.column_refs().is_empty();
    binary.op == Operator::Eq && (column(left) && outer(right) || outer(left) && column(right))
}
