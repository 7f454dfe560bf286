//! LATERAL: a query in FROM that names columns of what stands before it.
//!
//! What it computes of them is computed above a join with the rest of it, and what it asks of them is asked of the join's
//! pairs. So it becomes a join where all that names them is its select list and its conditions.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, NullEquality};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{
    Expr as DfExpr, Filter, Join, JoinConstraint, JoinType, LogicalPlan, Projection,
};

use super::Env;
use super::project::generator_call;
use super::scope::{Relation, ScopeColumn};

use crate::error::QueryError;
use crate::expr::Expr;
use crate::plan::{JoinCondition, JoinKind, Plan};
use crate::rewrite::first_place;
use crate::unnest::{can_be_flat, has_subquery, is_correlated, named_outside, unnested_among};

type Result<T> = std::result::Result<T, QueryError>;

/// A query without what names columns from outside.
struct Taken {
    plan: LogicalPlan,
    /// What its columns were, over the columns of `plan` and those from outside.
    columns: Vec<DfExpr>,
    conditions: Vec<DfExpr>,
}

impl Env<'_> {
    /// `left` and, for each of its rows, the rows of `plan`.
    pub(super) fn lateral(
        &self,
        left: Relation,
        plan: &Plan,
        kind: JoinKind,
        condition: &JoinCondition,
    ) -> Result<Relation> {
        if let Some(rows) = generated(plan)
            && let Some(outer) = rows.as_outer(kind, condition)
        {
            let both = self.lateral_view(left, rows.generator, outer, rows.name, rows.columns)?;
            return match condition {
                JoinCondition::On(condition) => self.filter(both, condition),
                _ => Ok(both),
            };
        }
        let placed = |error: QueryError| error.at(first_place(plan));
        self.lateral_query(left, plan, kind, condition)
            .map_err(placed)
    }

    fn lateral_query(
        &self,
        left: Relation,
        plan: &Plan,
        kind: JoinKind,
        condition: &JoinCondition,
    ) -> Result<Relation> {
        let left = self.renamed(left)?;
        self.outer.borrow_mut().push(left.columns.clone());
        let right = self.relation(plan);
        self.outer.borrow_mut().pop();
        let mut right = right?;
        let named = named_outside(&right.plan);
        let of_left = |column: &Column| left.plan.schema().has_column(column);
        if !named.iter().any(of_left) {
            return self.join(left, right, kind, condition);
        }
        // What its own subqueries name of the left becomes part of it.
        right.plan = unnested_among(right.plan, self.fresh("lateral"))?;
        let right = self.renamed(right)?;
        let taken = match kind {
            JoinKind::Inner | JoinKind::Cross => taken(&right.plan, left.plan.schema())?,
            _ => None,
        };
        let Some(taken) = taken else {
            return self.lateral_answers(left, right, kind, condition);
        };
        let mut plan = match &taken.plan {
            LogicalPlan::EmptyRelation(one) if one.produce_one_row => left.plan.clone(),
            rows => LogicalPlan::Join(Join::try_new(
                Arc::new(left.plan.clone()),
                Arc::new(rows.clone()),
                vec![],
                None,
                JoinType::Inner,
                JoinConstraint::On,
                NullEquality::NullEqualsNothing,
                false,
            )?),
        };
        for condition in taken.conditions {
            plan = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(plan))?);
        }
        let own = |column: &ScopeColumn| DfExpr::Column(column.column.clone());
        let mut outputs: Vec<DfExpr> = left.columns.iter().map(own).collect();
        // USING names a column twice.
        outputs.sort_by_key(ToString::to_string);
        outputs.dedup();
        let fields = right.plan.schema().iter().zip(taken.columns);
        outputs.extend(fields.map(|((qualifier, field), value)| {
            value.alias_qualified(qualifier.cloned(), field.name().clone())
        }));
        let plan = LogicalPlan::Projection(Projection::try_new(outputs, Arc::new(plan))?);
        let columns = [left.columns, right.columns].concat();
        let both = Relation { plan, columns };
        match condition {
            JoinCondition::None => Ok(both),
            JoinCondition::On(condition) => self.filter(both, condition),
            JoinCondition::Using(_) | JoinCondition::Natural => Err(using()),
        }
    }
}

impl Env<'_> {
    /// `left` and, for each of its rows, what `right` answers for the columns that it names.
    fn lateral_answers(
        &self,
        left: Relation,
        right: Relation,
        kind: JoinKind,
        condition: &JoinCondition,
    ) -> Result<Relation> {
        let join_type = match kind {
            JoinKind::Inner | JoinKind::Cross => JoinType::Inner,
            JoinKind::Left => JoinType::Left,
            other => {
                let kind = match other {
                    JoinKind::Right => "RIGHT OUTER",
                    JoinKind::Full => "FULL OUTER",
                    JoinKind::LeftAnti => "LEFT ANTI",
                    _ => "LEFT SEMI",
                };
                let message = format!(
                    "The {kind} JOIN with LATERAL correlation is not allowed because an OUTER subquery cannot correlate to its join partner. Remove the LATERAL correlation or use an INNER JOIN, or LEFT OUTER JOIN instead."
                );
                return Err(QueryError::new("INVALID_LATERAL_JOIN_TYPE", message));
            }
        };
        if !can_be_flat(&right.plan) {
            return Err(QueryError::unsupported(
                "a LATERAL subquery that names columns from the left of it in this place",
            ));
        }
        let columns = [left.columns.clone(), right.columns].concat();
        let condition = match condition {
            JoinCondition::None => None,
            JoinCondition::On(condition) => Some(self.on(&columns, condition)?),
            JoinCondition::Using(_) | JoinCondition::Natural => return Err(using()),
        };
        let joined = crate::unnest::lateral(left.plan, &right.plan, condition, join_type, || {
            self.fresh("outer")
        })?;
        self.only(joined, columns)
    }
}

/// The rows of a generator alone.
struct Generated<'p> {
    generator: &'p Expr,
    name: Option<&'p str>,
    columns: &'p [String],
}

impl Generated<'_> {
    /// Whether rows for which it makes nothing are kept, if a join of this kind is a LATERAL VIEW.
    fn as_outer(&self, kind: JoinKind, condition: &JoinCondition) -> Option<bool> {
        match (kind, condition) {
            (JoinKind::Inner | JoinKind::Cross, JoinCondition::None | JoinCondition::On(_)) => {
                Some(false)
            }
            // A row of which nothing is made falls out of a left join, too, unless there is an ON: the model makes a plain
            // generator of it.
            (JoinKind::Left, JoinCondition::None) => Some(false),
            _ => None,
        }
    }
}

/// The generator that is all that the query selects.
fn generated(plan: &Plan) -> Option<Generated<'_>> {
    match plan {
        Plan::Alias {
            input,
            name,
            columns,
        } => generated(input)
            .filter(|inner| inner.name.is_none())
            .map(|inner| Generated {
                name: Some(name),
                columns: match columns.is_empty() {
                    true => inner.columns,
                    false => columns,
                },
                ..inner
            }),
        Plan::Project { input, outputs } if matches!(**input, Plan::OneRow) => {
            let [generator] = outputs.as_slice() else {
                return None;
            };
            generator_call(generator)?;
            let columns = match generator {
                Expr::Alias { names, .. } => names.as_slice(),
                _ => &[],
            };
            Some(Generated {
                generator,
                name: None,
                columns,
            })
        }
        _ => None,
    }
}

fn using() -> QueryError {
    let message = "The feature is not supported: JOIN USING with LATERAL correlation. Write the condition after ON.";
    QueryError::new("UNSUPPORTED_FEATURE.LATERAL_JOIN_USING", message)
}

fn taken(plan: &LogicalPlan, around: &DFSchema) -> Result<Option<Taken>> {
    if !is_correlated(plan) {
        let columns = plan.schema().iter();
        let columns =
            columns.map(|(q, field)| DfExpr::Column(Column::new(q.cloned(), field.name())));
        return Ok(Some(Taken {
            columns: columns.collect(),
            plan: plan.clone(),
            conditions: vec![],
        }));
    }
    // The columns by which a subquery would know these rows are not among those of the join.
    if plan.expressions().iter().any(has_subquery) {
        return Ok(None);
    }
    match plan {
        LogicalPlan::Projection(projection) => {
            let Some(below) = taken(&projection.input, around)? else {
                return Ok(None);
            };
            let exprs = projection.expr.iter().cloned();
            let columns = exprs.map(|expr| inside(expr, &projection.input, &below.columns, around));
            Ok(Some(Taken {
                columns: columns.collect::<Result<_>>()?,
                ..below
            }))
        }
        LogicalPlan::Filter(filter) => {
            let Some(mut below) = taken(&filter.input, around)? else {
                return Ok(None);
            };
            for part in split_conjunction_owned(filter.predicate.clone()) {
                let part = inside(part, &filter.input, &below.columns, around)?;
                below.conditions.push(part);
            }
            Ok(Some(below))
        }
        LogicalPlan::SubqueryAlias(alias) => taken(&alias.input, around),
        _ => Ok(None),
    }
}

/// The expression over `input` as one over what `columns` of it are made of, and over columns that were outside.
fn inside(
    expr: DfExpr,
    input: &LogicalPlan,
    columns: &[DfExpr],
    around: &DFSchema,
) -> Result<DfExpr> {
    let replaced = expr.unalias().transform(|expr| match &expr {
        DfExpr::OuterReferenceColumn(_, column) if around.has_column(column) => {
            Ok(Transformed::yes(DfExpr::Column(column.clone())))
        }
        DfExpr::Column(column) => match input.schema().maybe_index_of_column(column) {
            Some(index) => Ok(Transformed::yes(columns[index].clone())),
            None => Ok(Transformed::no(expr)),
        },
        _ => Ok(Transformed::no(expr)),
    });
    Ok(replaced?.data)
}
