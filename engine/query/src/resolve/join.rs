//! Joins.

use std::sync::Arc;

use datafusion::common::{Column, JoinType, NullEquality};
use datafusion::logical_expr::{Expr as DfExpr, Join, JoinConstraint, LogicalPlan, Projection};

use super::Env;
use super::expression::Exprs;
use super::scope::{Relation, ScopeColumn};
use super::subquery::has_subquery;
use crate::error::QueryError;
use crate::expr::{BinaryOp, Expr};
use crate::functions::kernel::Typed;
use crate::functions::{compare, conditional};
use crate::plan::{JoinCondition, JoinKind};

type Result<T> = std::result::Result<T, QueryError>;

impl Env<'_> {
    pub(super) fn join(
        &self,
        left: Relation,
        right: Relation,
        kind: JoinKind,
        condition: &JoinCondition,
    ) -> Result<Relation> {
        if let JoinCondition::On(condition) = condition
            && has_subquery(condition)
        {
            return self.join_with_subqueries(left, right, kind, condition);
        }
        let (left, right) = self.kept_apart(left, right)?;
        let both: Vec<ScopeColumn> = left.columns.iter().chain(&right.columns).cloned().collect();
        let mut using = vec![];
        let filter = match condition {
            JoinCondition::None => None,
            JoinCondition::On(condition) => Some(self.on(&both, condition)?),
            JoinCondition::Using(names) => {
                using = names.clone();
                self.using(&left, &right, names)?
            }
            JoinCondition::Natural => {
                let shared = left
                    .visible()
                    .filter(|l| right.visible().any(|r| self.same(&l.name, &r.name)));
                using = shared.map(|c| c.name.clone()).collect();
                self.using(&left, &right, &using)?
            }
        };
        let join_type = match kind {
            JoinKind::Inner | JoinKind::Cross => JoinType::Inner,
            JoinKind::Left => JoinType::Left,
            JoinKind::Right => JoinType::Right,
            JoinKind::Full => JoinType::Full,
            JoinKind::LeftSemi => JoinType::LeftSemi,
            JoinKind::LeftAnti => JoinType::LeftAnti,
        };
        let (on, filter) = keys(filter, &left, &right);
        let plan = LogicalPlan::Join(Join::try_new(
            Arc::new(left.plan.clone()),
            Arc::new(right.plan.clone()),
            on,
            filter,
            join_type,
            JoinConstraint::On,
            NullEquality::NullEqualsNothing,
            false,
        )?);
        if matches!(kind, JoinKind::LeftSemi | JoinKind::LeftAnti) {
            return Ok(Relation {
                plan,
                columns: left.columns,
            });
        }
        if using.is_empty() {
            return Ok(Relation {
                plan,
                columns: both,
            });
        }
        self.merged(plan, left, right, &using, kind)
    }

    pub(super) fn on(&self, both: &[ScopeColumn], condition: &Expr) -> Result<DfExpr> {
        let exprs = Exprs::over(self, both, "ON");
        let value = exprs.resolve(condition)?;
        if value.data_type != arrow::datatypes::DataType::Boolean {
            let text = exprs.text(condition);
            let message = format!(
                "The join condition \"{text}\" has the invalid type \"{}\", expected \"BOOLEAN\".",
                crate::types::type_sql(&value.data_type)
            );
            let error = QueryError::new("JOIN_CONDITION_IS_NOT_BOOLEAN_TYPE", message);
            return Err(error.at(condition.place()));
        }
        Ok(value.expr)
    }

    fn using(&self, left: &Relation, right: &Relation, names: &[String]) -> Result<Option<DfExpr>> {
        let mut all: Option<Typed> = None;
        for name in names {
            let (l, r) = (
                self.key(left, name, "left")?,
                self.key(right, name, "right")?,
            );
            let equal = compare::compare(BinaryOp::Eq, l.typed(), r.typed(), name)?;
            all = Some(match all {
                None => equal,
                Some(before) => conditional::and(before, equal),
            });
        }
        Ok(all.map(|a| a.expr))
    }

    fn key<'r>(
        &self,
        relation: &'r Relation,
        name: &String,
        side: &str,
    ) -> Result<&'r ScopeColumn> {
        let mut found = relation.visible().filter(|c| self.same(&c.name, name));
        match (found.next(), found.next()) {
            (Some(column), None) => Ok(column),
            (Some(_), Some(_)) => Err(QueryError::new(
                "AMBIGUOUS_REFERENCE",
                format!("Reference `{name}` is ambiguous on one side of the join."),
            )),
            (None, _) => {
                let columns: Vec<String> = relation
                    .visible()
                    .map(|c| format!("`{}`", c.name))
                    .collect();
                let message = format!(
                    "USING column `{name}` cannot be resolved on the {side} side of the join. The {side}-side columns: [{}].",
                    columns.join(", ")
                );
                Err(QueryError::new("UNRESOLVED_USING_COLUMN_FOR_JOIN", message))
            }
        }
    }

    /// USING: the keys once and first, then the left columns, then the right ones.
    fn merged(
        &self,
        plan: LogicalPlan,
        left: Relation,
        right: Relation,
        using: &[String],
        kind: JoinKind,
    ) -> Result<Relation> {
        let is_key = |c: &ScopeColumn| using.iter().any(|name| self.same(name, &c.name));
        let mut keys = vec![];
        let mut plan = plan;
        for name in using {
            let (l, r) = (
                self.key(&left, name, "left")?.clone(),
                self.key(&right, name, "right")?.clone(),
            );
            keys.push(match kind {
                JoinKind::Right => ScopeColumn {
                    qualifier: vec![],
                    name: name.clone(),
                    ..r
                },
                JoinKind::Full => {
                    let merged = crate::functions::scalar(
                        "coalesce",
                        vec![l.typed(), r.typed()],
                        self.conf,
                    )?;
                    let Some(merged) = merged else {
                        return Err(QueryError::unsupported("this USING"));
                    };
                    let made = self.fresh("using");
                    let all = plan
                        .schema()
                        .iter()
                        .map(|(q, f)| DfExpr::Column(Column::new(q.cloned(), f.name())));
                    let all = all.chain([merged.expr.alias(made.clone())]).collect();
                    plan = LogicalPlan::Projection(Projection::try_new(all, Arc::new(plan))?);
                    let column = Column::new_unqualified(made);
                    ScopeColumn {
                        qualifier: vec![],
                        name: name.clone(),
                        column,
                        data_type: merged.data_type,
                        hidden: false,
                    }
                }
                _ => ScopeColumn {
                    qualifier: vec![],
                    name: name.clone(),
                    ..l
                },
            });
        }
        let hide = |c: &ScopeColumn| ScopeColumn {
            hidden: c.hidden || is_key(c),
            ..c.clone()
        };
        let rest = left.columns.iter().chain(&right.columns).map(hide);
        let columns = keys.into_iter().chain(rest).collect();
        Ok(Relation { plan, columns })
    }

    /// Both sides with the right one's columns renamed where the plan could not tell them apart.
    fn kept_apart(&self, left: Relation, right: Relation) -> Result<(Relation, Relation)> {
        let clash = |c: &Column| {
            left.plan.schema().iter().any(|(q, f)| {
                f.name() == &c.name
                    && (q.is_none() || c.relation.is_none() || q == c.relation.as_ref())
            })
        };
        if !right
            .plan
            .schema()
            .iter()
            .any(|(q, f)| clash(&Column::new(q.cloned(), f.name())))
        {
            return Ok((left, right));
        }
        let right = self.renamed(right)?;
        Ok((left, right))
    }

    /// The relation with all of its columns under new names in the plan.
    pub(super) fn renamed(&self, relation: Relation) -> Result<Relation> {
        let mut exprs = vec![];
        let mut renamed = vec![];
        for (qualifier, field) in relation.plan.schema().iter() {
            let old = Column::new(qualifier.cloned(), field.name());
            let new = Column::new_unqualified(self.fresh(field.name()));
            exprs.push(DfExpr::Column(old.clone()).alias(new.name.clone()));
            renamed.push((old, new));
        }
        let plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(relation.plan))?);
        let columns = relation.columns.into_iter().map(|c| {
            let new = renamed
                .iter()
                .find(|(old, _)| *old == c.column)
                .map_or(c.column.clone(), |(_, new)| new.clone());
            ScopeColumn { column: new, ..c }
        });
        let columns = columns.collect();
        Ok(Relation { plan, columns })
    }
}

/// The conjuncts that compare a left with a right expression for equality, and the rest.
fn keys(
    condition: Option<DfExpr>,
    left: &Relation,
    right: &Relation,
) -> (Vec<(DfExpr, DfExpr)>, Option<DfExpr>) {
    let Some(condition) = condition else {
        return (vec![], None);
    };
    let within = |e: &DfExpr, side: &Relation| {
        let used = e.column_refs();
        !used.is_empty()
            && used
                .iter()
                .all(|c| side.columns.iter().any(|s| s.column == **c))
    };
    let mut on = vec![];
    let mut rest = vec![];
    for part in datafusion::logical_expr::utils::split_conjunction_owned(condition) {
        if let DfExpr::BinaryExpr(binary) = &part
            && binary.op == datafusion::logical_expr::Operator::Eq
            && !crate::functions::conditional::fallible(&part)
        {
            let (l, r) = (&*binary.left, &*binary.right);
            if within(l, left) && within(r, right) {
                on.push((l.clone(), r.clone()));
                continue;
            }
            if within(r, left) && within(l, right) {
                on.push((r.clone(), l.clone()));
                continue;
            }
        }
        rest.push(part);
    }
    (on, rest.into_iter().reduce(|a, b| a.and(b)))
}
