//! A subquery's answers for all values of the columns that it names from outside.
//!
//! The values are a relation, joined to the subquery's rows as deep as they are named; above that each operator works for
//! each of them on its own: they are keys of its groups, of its partitions, of its joins.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{
    Column, ExprSchema, JoinType, NullEquality, Result, ScalarValue, not_impl_err,
};
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::{Sort as SortExpr, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, Filter, Join, JoinConstraint, Limit, LogicalPlan,
    LogicalPlanBuilder, Projection, Union, Window, WindowFrame, WindowFunctionDefinition, cast,
    lit, when,
};

use super::{Names, OUTER, clause_of, is_correlated, is_key_type, joined, own_columns};
use crate::error::as_written;
use crate::functions::kernel::Typed;
use crate::functions::normalized;
use crate::nodes::{TimeWindow, node_of};
use crate::types::type_sql;

/// The values from outside that a subquery is asked for.
pub(crate) struct Domain {
    /// The rows around, with a column for each value.
    rows: LogicalPlan,
    /// The columns that the subquery names, and their types.
    columns: Vec<(Column, DataType)>,
}

impl Domain {
    /// What `subquery` is asked for by the rows around it.
    pub(crate) fn of(rows: &LogicalPlan, subquery: &LogicalPlan) -> Result<Self> {
        let mut columns: Vec<(Column, DataType)> = vec![];
        for outer in subquery.all_out_ref_exprs() {
            let Expr::OuterReferenceColumn(_, column) = outer else {
                continue;
            };
            // A column from further outside is asked for there.
            if !rows.schema().has_column(&column) {
                continue;
            }
            let data_type = rows.schema().field_from_column(&column)?.data_type();
            if !is_key_type(data_type) {
                return not_impl_err!(
                    "a subquery that names the column \"{}\" of type {} from outside",
                    as_written(&column.name),
                    type_sql(data_type)
                );
            }
            if columns.iter().all(|(known, _)| *known != column) {
                columns.push((column, data_type.clone()));
            }
        }
        let rows = rows.clone();
        Ok(Domain { rows, columns })
    }

    /// The values of a row, as they are compared.
    fn values(&self) -> Result<Vec<Expr>> {
        let value = |(column, data_type): &(Column, DataType)| {
            let value = Typed::new(Expr::Column(column.clone()), data_type.clone());
            Ok(normalized(value)?.expr)
        };
        self.columns.iter().map(value).collect()
    }

    /// What a row has in common with its answers, which have the values in the columns `outer`.
    pub(crate) fn keys(&self, outer: &[Column]) -> Result<Vec<(Expr, Expr)>> {
        let outer = outer.iter().cloned().map(Expr::Column).collect();
        self.equal(self.values()?, outer)
    }

    /// The keys of a join of rows that have the same values, where two nulls are the same. No join that takes nulls for
    /// equal: the planner would take those of its other conditions for equal as well.
    fn equal(&self, left: Vec<Expr>, right: Vec<Expr>) -> Result<Vec<(Expr, Expr)>> {
        let mut keys = vec![];
        for ((left, right), (_, data_type)) in left.into_iter().zip(right).zip(&self.columns) {
            let none = ScalarValue::new_default(data_type)?;
            let some = |value: Expr| {
                let none = Expr::Literal(none.clone(), None);
                when(value.clone().is_null(), none).otherwise(value)
            };
            keys.push((left.clone().is_null(), right.clone().is_null()));
            keys.push((some(left)?, some(right)?));
        }
        Ok(keys)
    }

    /// The values, each once.
    fn distinct(&self, names: &Names) -> Result<Flat> {
        let mut outer = vec![];
        let mut outputs = vec![];
        for (value, (_, data_type)) in self.values()?.into_iter().zip(&self.columns) {
            let name = names.fresh(OUTER);
            // A value that rows are asked for is no event time: neither late nor forgotten.
            outputs.push(cast(value, data_type.clone()).alias(name.clone()));
            outer.push(Column::new_unqualified(name));
        }
        let rows = Arc::new(self.rows.clone());
        let values = LogicalPlan::Projection(Projection::try_new(outputs, rows)?);
        let plan = LogicalPlan::Distinct(Distinct::All(Arc::new(values)));
        Ok(Flat { plan, outer })
    }

    /// The expression with the columns of `flat` in the place of those from outside.
    fn inside(&self, expr: Expr, flat: &Flat) -> Result<Expr> {
        let name = expr.schema_name().to_string();
        let replaced = expr.transform(|part| {
            let Expr::OuterReferenceColumn(_, column) = &part else {
                return Ok(Transformed::no(part));
            };
            let place = self.columns.iter().position(|(known, _)| known == column);
            Ok(match place {
                Some(place) => Transformed::yes(Expr::Column(flat.outer[place].clone())),
                None => Transformed::no(part),
            })
        })?;
        match replaced.transformed {
            true => replaced.data.alias_if_changed(name),
            false => Ok(replaced.data),
        }
    }

    fn all_inside(&self, exprs: &[Expr], flat: &Flat) -> Result<Vec<Expr>> {
        let exprs = exprs.iter().cloned();
        exprs.map(|expr| self.inside(expr, flat)).collect()
    }

    /// A condition, which has no name.
    fn condition(&self, expr: &Expr, flat: &Flat) -> Result<Expr> {
        Ok(self.inside(expr.clone(), flat)?.unalias())
    }
}

/// The rows of a plan for each value from outside.
pub(crate) struct Flat {
    /// The rows: the columns of the plan under their names, and more.
    pub(crate) plan: LogicalPlan,
    /// The columns with the values.
    pub(crate) outer: Vec<Column>,
}

impl Flat {
    fn outer(&self) -> Vec<Expr> {
        self.outer.iter().cloned().map(Expr::Column).collect()
    }

    /// The values, the columns of `plan` and nothing else.
    fn narrow(self, plan: &LogicalPlan, more: Option<Expr>) -> Result<Self> {
        let mut outputs = self.outer();
        outputs.extend(own_columns(plan.schema()));
        outputs.extend(more);
        let narrow = Projection::try_new(outputs, Arc::new(self.plan))?;
        Ok(Flat {
            plan: LogicalPlan::Projection(narrow),
            outer: self.outer,
        })
    }

    fn over(self, plan: LogicalPlan) -> Self {
        Flat { plan, ..self }
    }
}

/// The rows of `plan` for each value of the domain.
pub(crate) fn flat(plan: &LogicalPlan, domain: &Domain, names: &Names) -> Result<Flat> {
    if domain.columns.is_empty() {
        return Ok(Flat {
            plan: plan.clone(),
            outer: vec![],
        });
    }
    if !is_correlated(plan) {
        let values = domain.distinct(names)?;
        let both = joined(values.plan, plan.clone(), vec![], JoinType::Inner)?;
        return Ok(Flat {
            plan: both,
            outer: values.outer,
        });
    }
    match plan {
        LogicalPlan::Projection(projection) => {
            let below = flat(&projection.input, domain, names)?;
            let mut outputs = below.outer();
            outputs.extend(domain.all_inside(&projection.expr, &below)?);
            let above = Projection::try_new(outputs, Arc::new(below.plan.clone()))?;
            Ok(below.over(LogicalPlan::Projection(above)))
        }
        LogicalPlan::Filter(filter) => {
            let below = flat(&filter.input, domain, names)?;
            let condition = domain.condition(&filter.predicate, &below)?;
            let above = Filter::try_new(condition, Arc::new(below.plan.clone()))?;
            Ok(below.over(LogicalPlan::Filter(above)))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let below = flat(&alias.input, domain, names)?;
            let mut outputs = below.outer();
            let columns = own_columns(alias.input.schema()).into_iter();
            outputs.extend(
                columns
                    .zip(alias.schema.iter())
                    .map(|(column, (qualifier, field))| {
                        column.alias_qualified(qualifier.cloned(), field.name().clone())
                    }),
            );
            let above = Projection::try_new(outputs, Arc::new(below.plan.clone()))?;
            Ok(below.over(LogicalPlan::Projection(above)))
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let below = flat(input, domain, names)?.narrow(input, None)?;
            let above = LogicalPlan::Distinct(Distinct::All(Arc::new(below.plan.clone())));
            Ok(below.over(above))
        }
        LogicalPlan::Aggregate(aggregate) => groups(aggregate, domain, names),
        LogicalPlan::Join(join) => sides(join, domain, names),
        LogicalPlan::Union(union) => {
            let mut outer = vec![];
            let mut inputs = vec![];
            for input in &union.inputs {
                let below = flat(input, domain, names)?.narrow(input, None)?;
                if outer.is_empty() {
                    outer = below.outer.clone();
                }
                inputs.push(Arc::new(below.plan));
            }
            let above = Arc::new(LogicalPlan::Union(Union::try_new(inputs)?));
            // Its columns under the names that the union had.
            let (values, columns) = {
                let mut all = own_columns(above.schema());
                let columns = all.split_off(outer.len());
                (all, columns)
            };
            let values = values.into_iter().zip(&outer);
            let mut outputs: Vec<Expr> = values
                .map(|(value, column)| value.alias(column.name.clone()))
                .collect();
            let named = columns.into_iter().zip(union.schema.iter());
            outputs.extend(named.map(|(column, (qualifier, field))| {
                column.alias_qualified(qualifier.cloned(), field.name().clone())
            }));
            let plan = LogicalPlan::Projection(Projection::try_new(outputs, above)?);
            Ok(Flat { plan, outer })
        }
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => flat(&sort.input, domain, names),
        LogicalPlan::Limit(limit) => first_rows(limit, domain, names),
        LogicalPlan::Window(window) => {
            let below = flat(&window.input, domain, names)?.narrow(&window.input, None)?;
            let calls = domain.all_inside(&window.window_expr, &below)?;
            let by_values = |call: Expr| {
                call.transform(|part| match part {
                    Expr::WindowFunction(mut function) => {
                        function.params.partition_by.extend(below.outer());
                        Ok(Transformed::yes(Expr::WindowFunction(function)))
                    }
                    other => Ok(Transformed::no(other)),
                })
            };
            let mut named = vec![];
            for (call, before) in calls.into_iter().zip(&window.window_expr) {
                let name = before.schema_name().to_string();
                named.push(by_values(call)?.data.alias_if_changed(name)?);
            }
            let above = Window::try_new(named, Arc::new(below.plan.clone()))?;
            Ok(below.over(LogicalPlan::Window(above)))
        }
        LogicalPlan::Unnest(unnest) => {
            let below = flat(&unnest.input, domain, names)?.narrow(&unnest.input, None)?;
            let (columns, options) = (unnest.exec_columns.clone(), unnest.options.clone());
            let above = LogicalPlanBuilder::from(below.plan.clone())
                .unnest_columns_with_options(columns, options)?
                .build()?;
            Ok(below.over(above))
        }
        LogicalPlan::Extension(extension) if node_of::<TimeWindow>(plan).is_some() => {
            let input = plan.inputs()[0];
            let below = flat(input, domain, names)?.narrow(input, None)?;
            let exprs = domain.all_inside(&extension.node.expressions(), &below)?;
            let exprs = exprs.into_iter().map(Expr::unalias).collect();
            let above = plan.with_new_exprs(exprs, vec![below.plan.clone()])?;
            Ok(below.over(above))
        }
        other => not_impl_err!(
            "a subquery that names columns of the query around it below {}",
            clause_of(other)
        ),
    }
}

/// True if [`flat`] knows all operators of the plan below which columns from outside are named.
pub(crate) fn can_be_flat(plan: &LogicalPlan) -> bool {
    if !is_correlated(plan) {
        return true;
    }
    let known = match plan {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Distinct(Distinct::All(_))
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Unnest(_) => true,
        LogicalPlan::Join(join) => joins_by_value(join),
        LogicalPlan::Sort(sort) => sort.fetch.is_none(),
        LogicalPlan::Extension(_) => node_of::<TimeWindow>(plan).is_some(),
        _ => false,
    };
    known && plan.inputs().into_iter().all(can_be_flat)
}

/// An aggregation for each value: one without keys has a row for those without rows as well.
fn groups(aggregate: &Aggregate, domain: &Domain, names: &Names) -> Result<Flat> {
    let below = flat(&aggregate.input, domain, names)?;
    if !aggregate.group_expr.is_empty() {
        let mut keys = below.outer();
        keys.extend(domain.all_inside(&aggregate.group_expr, &below)?);
        let calls = domain.all_inside(&aggregate.aggr_expr, &below)?;
        let above = Aggregate::try_new(Arc::new(below.plan.clone()), keys, calls)?;
        return Ok(below.over(LogicalPlan::Aggregate(above)));
    }
    let there = names.fresh("there");
    let below = below.narrow(&aggregate.input, Some(lit(true).alias(there.clone())))?;
    let all = domain.distinct(names)?;
    let on = domain.equal(all.outer(), below.outer())?;
    let all = Flat {
        plan: joined(all.plan, below.plan, on, JoinType::Left)?,
        outer: all.outer,
    };
    let is_row = Expr::Column(Column::new_unqualified(there)).is_not_null();
    let mut calls = vec![];
    for call in &aggregate.aggr_expr {
        let name = call.schema_name().to_string();
        let of_rows = domain
            .inside(call.clone(), &all)?
            .transform(|part| match part {
                Expr::AggregateFunction(mut function) => {
                    let filter = match function.params.filter.take() {
                        Some(filter) => is_row.clone().and(*filter),
                        None => is_row.clone(),
                    };
                    function.params.filter = Some(Box::new(filter));
                    Ok(Transformed::yes(Expr::AggregateFunction(function)))
                }
                other => Ok(Transformed::no(other)),
            })?;
        calls.push(of_rows.data.alias_if_changed(name)?);
    }
    let above = Aggregate::try_new(Arc::new(all.plan.clone()), all.outer(), calls)?;
    Ok(all.over(LogicalPlan::Aggregate(above)))
}

/// Whether each value can have its own join.
fn joins_by_value(join: &Join) -> bool {
    use JoinType::{Full, Inner, Left, LeftAnti, LeftSemi, Right};
    matches!(
        join.join_type,
        Inner | Left | Right | Full | LeftSemi | LeftAnti
    ) && !join.null_aware
        && join.null_equality == NullEquality::NullEqualsNothing
}

/// A join for each value: each side that is kept whole, and each that names columns from outside, has its rows for each.
fn sides(join: &Join, domain: &Domain, names: &Names) -> Result<Flat> {
    use JoinType::{Full, Inner, Right};
    let kind = join.join_type;
    if !joins_by_value(join) {
        return not_impl_err!(
            "a subquery that names columns of the query around it below {}",
            clause_of(&LogicalPlan::Join(join.clone()))
        );
    }
    let named = |plan: &LogicalPlan| is_correlated(plan);
    let of_left = named(&join.left) || !matches!(kind, Inner | Right);
    let of_right = named(&join.right) || matches!(kind, Right | Full);
    let of_left = of_left || !of_right;
    // Of a full join's rows it says which side they have.
    let there = (kind == Full).then(|| names.fresh("there"));
    let side = |plan: &Arc<LogicalPlan>, of: bool, mark: Option<&String>| {
        let mark = mark.map(|name| lit(true).alias(name.clone()));
        match of {
            true => flat(plan, domain, names)?.narrow(plan, mark).map(Some),
            false => Ok(None),
        }
    };
    let left = side(&join.left, of_left, there.as_ref())?;
    let right = side(&join.right, of_right, None)?;
    // An outer join pads the values too.
    let outer: Vec<Column> = match (&left, &right, kind) {
        (_, Some(right), Right | Inner) => right.outer.clone(),
        (Some(left), _, _) => left.outer.clone(),
        (None, Some(right), _) => right.outer.clone(),
        (None, None, _) => vec![],
    };
    let plan_of = |side: &Option<Flat>, plan: &Arc<LogicalPlan>| match side {
        Some(flat) => Arc::new(flat.plan.clone()),
        None => Arc::clone(plan),
    };
    let (left_plan, right_plan) = (plan_of(&left, &join.left), plan_of(&right, &join.right));
    let same = match (&left, &right) {
        (Some(left), Some(right)) => domain.equal(left.outer(), right.outer())?,
        _ => vec![],
    };
    let of = |flat: &Option<Flat>, expr: &Expr| match flat {
        Some(flat) => domain.condition(expr, flat),
        None => Ok(expr.clone()),
    };
    let mut on = same;
    for (l, r) in &join.on {
        on.push((of(&left, l)?, of(&right, r)?));
    }
    let either = if left.is_some() { &left } else { &right };
    let filter = join.filter.iter().map(|filter| of(either, filter)).next();
    let both = Join::try_new(
        left_plan,
        right_plan,
        on,
        filter.transpose()?,
        kind,
        JoinConstraint::On,
        NullEquality::NullEqualsNothing,
        false,
    )?;
    let plan = LogicalPlan::Join(both);
    match (there, &left, &right) {
        (Some(there), Some(left), Some(right)) => {
            let sides = left.outer().into_iter().zip(right.outer());
            let is_left = Expr::Column(Column::new_unqualified(there)).is_not_null();
            of_either_side(join, plan, is_left, sides, names)
        }
        _ => Ok(Flat { plan, outer }),
    }
}

/// The rows of a full join, whose values stand on the side that a row has.
fn of_either_side(
    join: &Join,
    rows: LogicalPlan,
    is_left: Expr,
    values: impl Iterator<Item = (Expr, Expr)>,
    names: &Names,
) -> Result<Flat> {
    let (mut outer, mut outputs) = (vec![], vec![]);
    for (left, right) in values {
        let name = names.fresh(OUTER);
        let value = when(is_left.clone(), left).otherwise(right)?;
        outputs.push(value.alias(name.clone()));
        outer.push(Column::new_unqualified(name));
    }
    outputs.extend(own_columns(&join.schema));
    let plan = LogicalPlan::Projection(Projection::try_new(outputs, Arc::new(rows))?);
    Ok(Flat { plan, outer })
}

/// The first rows for each value.
fn first_rows(limit: &Limit, domain: &Domain, names: &Names) -> Result<Flat> {
    use datafusion::logical_expr::{FetchType, SkipType};
    // Columns may be chosen between an order and its limit.
    let columns = limit.input.as_ref();
    if let LogicalPlan::Projection(Projection { input, .. }) = columns
        && is_sorted(input)
    {
        let below = Limit {
            input: Arc::clone(input),
            ..limit.clone()
        };
        let above =
            columns.with_new_exprs(columns.expressions(), vec![LogicalPlan::Limit(below)])?;
        return flat(&above, domain, names);
    }
    let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
        (limit.get_skip_type()?, limit.get_fetch_type()?)
    else {
        return not_impl_err!("a LIMIT that is not a number");
    };
    let (input, by): (&Arc<LogicalPlan>, &[SortExpr]) = match columns {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => (&sort.input, &sort.expr),
        _ => (&limit.input, &[]),
    };
    let below = flat(input, domain, names)?.narrow(input, None)?;
    let mut order_by = vec![];
    for sort in by {
        order_by.push(SortExpr {
            expr: domain.condition(&sort.expr, &below)?,
            ..sort.clone()
        });
    }
    let name = names.fresh("row");
    let number = Expr::from(WindowFunction {
        fun: WindowFunctionDefinition::WindowUDF(row_number_udwf()),
        params: WindowFunctionParams {
            args: vec![],
            partition_by: below.outer(),
            order_by,
            window_frame: WindowFrame::new(Some(true)),
            filter: None,
            null_treatment: None,
            distinct: false,
        },
    });
    let numbered = Window::try_new(
        vec![number.alias(name.clone())],
        Arc::new(below.plan.clone()),
    )?;
    let number = Expr::Column(Column::new_unqualified(name));
    let mut wanted = number.clone().gt(lit(skip as u64));
    if let Some(fetch) = fetch {
        wanted = wanted.and(number.lt_eq(lit(skip.saturating_add(fetch) as u64)));
    }
    let first = Filter::try_new(wanted, Arc::new(LogicalPlan::Window(numbered)))?;
    let first = below.over(LogicalPlan::Filter(first));
    first.narrow(input, None)
}

fn is_sorted(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(sort) => sort.fetch.is_none(),
        LogicalPlan::Projection(projection) => is_sorted(&projection.input),
        _ => false,
    }
}
