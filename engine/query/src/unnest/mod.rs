//! Subqueries that name columns of the query around them, as joins.
//!
//! DataFusion makes joins of the simple ones: those that [`joinable`] is true of. Of any other it is asked what it answers
//! for each of the distinct values that the columns from outside have, all at once (see `flat`), and a join with
//! these columns finds the answer that belongs to a row: Neumann and Kemper, Unnesting Arbitrary Queries.

mod exists;
mod flat;
mod hoist;
mod joinable;
mod keyed;

use std::cell::Cell;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, NullEquality, Result};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::{
    Aggregate, Expr, Filter, Join, JoinConstraint, LogicalPlan, Projection, lit,
};

use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin;
use datafusion::optimizer::{Optimizer, OptimizerContext};

pub use exists::with_marks;
use flat::Domain;
pub(crate) use flat::can_be_flat;
pub(crate) use hoist::hoisted;
pub(crate) use joinable::{has_subquery, is_correlated, joinable, named_outside, names_outer};

/// The plan with joins in the place of all subqueries that DataFusion makes none of.
pub fn unnested(plan: LogicalPlan) -> Result<LogicalPlan> {
    unnested_among(plan, String::new())
}

/// The plan with joins in the place of all subqueries.
pub fn as_joins(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = unnested(plan)?;
    let mut options = ConfigOptions::new();
    // What is left of a subquery after these rules would be an expression that no worker can evaluate.
    options
        .optimizer
        .enable_physical_uncorrelated_scalar_subquery = false;
    let context = OptimizerContext::new_with_config_options(Arc::new(options));
    let optimizer = Optimizer::with_rules(vec![
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
    ]);
    let context = context.with_skip_failing_rules(false);
    let joined = optimizer.optimize(plan, &context, |_, _| {})?;
    let mut left = false;
    joined.apply_with_subqueries(|node| {
        let exprs = node.expressions();
        left |= exprs.iter().any(|e| has_subquery(e) || names_outer(e));
        Ok(TreeNodeRecursion::Continue)
    })?;
    match left {
        true => datafusion::common::not_impl_err!("a subquery in this place"),
        false => Ok(joined),
    }
}

/// As [`unnested`], with names that are told apart by `among`.
pub(crate) fn unnested_among(plan: LogicalPlan, among: String) -> Result<LogicalPlan> {
    let names = Names {
        among,
        ..Names::default()
    };
    let lifted = plan.transform_up_with_subqueries(|node| lifted(node, &names))?;
    Ok(lifted.data)
}

/// The rows of `left`, each with the rows of `right`, which names columns of it.
pub(crate) fn lateral(
    left: LogicalPlan,
    right: &LogicalPlan,
    condition: Option<Expr>,
    kind: JoinType,
    fresh: impl Fn() -> String,
) -> Result<LogicalPlan> {
    // Joins within joins are told apart by what the query around calls its own.
    let names = Names {
        among: fresh(),
        ..Names::default()
    };
    let (left, right) = keyed::keyed(left, right, &names)?;
    let domain = Domain::of(&left, &right)?;
    let answers = flat::flat(&right, &domain, &names)?;
    let on = domain.keys(&answers.outer)?;
    Ok(LogicalPlan::Join(Join::try_new(
        Arc::new(left),
        Arc::new(answers.plan),
        on,
        condition,
        kind,
        JoinConstraint::On,
        NullEquality::NullEqualsNothing,
        false,
    )?))
}

/// What the columns of values are called that subqueries are asked for.
const OUTER: &str = "outer";

/// True for the rows that a subquery is asked for: they are grouped for no reason that the query names.
pub fn is_asked_for(plan: &LogicalPlan) -> bool {
    let mut fields = plan.schema().fields().iter();
    fields.any(|field| field.name().starts_with(&format!("__{OUTER}_of")))
}

/// Column names that no query can write by accident.
#[derive(Debug, Default)]
pub(crate) struct Names {
    among: String,
    made: Cell<usize>,
}

impl Names {
    fn fresh(&self, what: &str) -> String {
        let nth = self.made.get();
        self.made.set(nth + 1);
        format!("__{what}_of{}_{nth}", self.among)
    }
}

/// The node over its rows with the values of its subqueries beside them.
fn lifted(node: LogicalPlan, names: &Names) -> Result<Transformed<LogicalPlan>> {
    let mut found: Vec<Expr> = vec![];
    let inputs = node.inputs();
    node.apply_expressions(|expr| {
        expr.apply(|part| {
            if is_left(part, &inputs) && !found.contains(part) {
                found.push(part.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    if found.is_empty() {
        return Ok(Transformed::no(node));
    }
    let (LogicalPlan::Filter(Filter { input, .. })
    | LogicalPlan::Projection(Projection { input, .. })) = &node
    else {
        return datafusion::common::not_impl_err!("a subquery in {}", clause_of(&node));
    };
    let columns = own_columns(input.schema());
    let mut rows = input.as_ref().clone();
    let mut values = vec![];
    for subquery in &found {
        let (plan, value) = value_of(subquery, input)?;
        let (asking, plan) = keyed::keyed(rows, &plan, names)?;
        rows = asking;
        let domain = Domain::of(&rows, &plan)?;
        let answers = flat::flat(&plan, &domain, names)?;
        let name = names.fresh("value");
        let only = Expr::Column(plan.schema().qualified_field(0).into());
        let mut outputs: Vec<Expr> = answers.outer.iter().cloned().map(Expr::Column).collect();
        outputs.push(only.alias(name.clone()));
        let answer = Projection::try_new(outputs, Arc::new(answers.plan))?;
        rows = joined(
            rows,
            LogicalPlan::Projection(answer),
            domain.keys(&answers.outer)?,
            JoinType::Inner,
        )?;
        values.push(value.apply(Expr::Column(Column::new_unqualified(name))));
    }
    let replaced = |expr: Expr| {
        let name = expr.schema_name().to_string();
        let replaced = expr.transform_down(|part| {
            let place = found.iter().position(|subquery| *subquery == part);
            Ok(match place {
                Some(place) => Transformed::yes(values[place].clone()),
                None => Transformed::no(part),
            })
        })?;
        match replaced.transformed {
            true => replaced.data.alias_if_changed(name),
            false => Ok(replaced.data),
        }
    };
    let rows = Arc::new(rows);
    Ok(Transformed::yes(match &node {
        LogicalPlan::Projection(projection) => {
            let exprs = projection.expr.iter().cloned().map(replaced);
            let exprs = exprs.collect::<Result<_>>()?;
            LogicalPlan::Projection(Projection::try_new(exprs, rows)?)
        }
        LogicalPlan::Filter(filter) => {
            let predicate = replaced(filter.predicate.clone())?.unalias();
            let filtered = LogicalPlan::Filter(Filter::try_new(predicate, rows)?);
            LogicalPlan::Projection(Projection::try_new(columns, Arc::new(filtered))?)
        }
        other => other.clone(),
    }))
}

/// What a user calls the operator.
fn clause_of(plan: &LogicalPlan) -> String {
    match plan {
        LogicalPlan::Sort(_) => "ORDER BY".to_string(),
        LogicalPlan::Limit(_) => "LIMIT".to_string(),
        LogicalPlan::Aggregate(_) => "GROUP BY or an aggregate function".to_string(),
        LogicalPlan::Window(_) => "OVER".to_string(),
        LogicalPlan::Join(join) => format!("a {} join", join.join_type.to_string().to_lowercase()),
        LogicalPlan::Extension(extension) => extension.node.name().to_string(),
        LogicalPlan::Values(_) => "VALUES".to_string(),
        _ => "this place".to_string(),
    }
}

/// True for a subquery of the rows of `inputs` that DataFusion makes no join of: each that names columns from further
/// outside, too.
fn is_left(expr: &Expr, inputs: &[&LogicalPlan]) -> bool {
    let (subquery, aggregated) = match expr {
        Expr::ScalarSubquery(subquery) => (subquery, true),
        Expr::Exists(Exists { subquery, .. }) | Expr::InSubquery(InSubquery { subquery, .. }) => {
            (subquery, false)
        }
        _ => return false,
    };
    let plan = &subquery.subquery;
    let known = |column: &Column| inputs.iter().any(|input| input.schema().has_column(column));
    !joinable(plan, aggregated) || !named_outside(plan).iter().all(known)
}

/// What the value of a subquery says.
enum Value {
    Itself,
    /// A number of rows, of which there are some, or none.
    Some {
        negated: bool,
    },
}

impl Value {
    fn apply(&self, value: Expr) -> Expr {
        match self {
            Value::Itself => value,
            Value::Some { negated: false } => value.gt(lit(0i64)),
            Value::Some { negated: true } => value.eq(lit(0i64)),
        }
    }
}

/// A subquery of the rows of `input` as one that has one row and one column.
fn value_of(subquery: &Expr, input: &LogicalPlan) -> Result<(LogicalPlan, Value)> {
    let counted = |plan: LogicalPlan, negated: bool| {
        let rows =
            Aggregate::try_new(Arc::new(plan), vec![], vec![count(lit(1i64)).alias("rows")])?;
        Ok((LogicalPlan::Aggregate(rows), Value::Some { negated }))
    };
    match subquery {
        Expr::ScalarSubquery(subquery) => Ok((subquery.subquery.as_ref().clone(), Value::Itself)),
        Expr::Exists(Exists { subquery, negated }) => {
            counted(subquery.subquery.as_ref().clone(), *negated)
        }
        Expr::InSubquery(InSubquery {
            expr,
            subquery,
            negated: false,
        }) => {
            let plan = subquery.subquery.as_ref().clone();
            let column = Expr::Column(plan.schema().qualified_field(0).into());
            let schema = input.schema();
            let outside = expr.as_ref().clone().transform(|part| match part {
                Expr::Column(column) => {
                    let (_, field) = schema.qualified_field_from_column(&column)?;
                    let field = Arc::clone(field);
                    Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
                }
                other => Ok(Transformed::no(other)),
            })?;
            let equal = Filter::try_new(column.eq(outside.data), Arc::new(plan))?;
            counted(LogicalPlan::Filter(equal), false)
        }
        _ => datafusion::common::not_impl_err!("this subquery of NOT IN"),
    }
}

fn own_columns(schema: &datafusion::common::DFSchema) -> Vec<Expr> {
    let columns =
        (0..schema.fields().len()).map(|at| Expr::Column(schema.qualified_field(at).into()));
    columns.collect()
}

/// A join by keys.
pub(crate) fn joined(
    left: LogicalPlan,
    right: LogicalPlan,
    on: Vec<(Expr, Expr)>,
    kind: JoinType,
) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Join(Join::try_new(
        Arc::new(left),
        Arc::new(right),
        on,
        None,
        kind,
        JoinConstraint::On,
        NullEquality::NullEqualsNothing,
        false,
    )?))
}

/// Whether values of this type can be compared as keys.
fn is_key_type(data_type: &DataType) -> bool {
    !matches!(data_type, DataType::Map(..))
        && (!crate::functions::needs_normalizing(data_type) || data_type.is_floating())
}
