//! Joins that keep rows without a partner, on conditions whose subqueries name columns of both sides or further outside.
//!
//! Such a subquery is asked of pairs, of which a join keeps none. So the pairs are those of an inner join, and a row
//! without a partner is one for which none EXISTS on the other side.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::logical_expr::{Filter, LogicalPlan, Projection, Union};

use super::Env;
use super::expression::Exprs;
use super::scope::{Relation, ScopeColumn};
use super::subquery::Subqueries;
use crate::error::QueryError;
use crate::expr::Expr;
use crate::functions::kernel::Typed;
use crate::plan::{JoinCondition, JoinKind};

type Result<T> = std::result::Result<T, QueryError>;

impl Env<'_> {
    pub(super) fn join_by_partners(
        &self,
        left: Relation,
        right: Relation,
        kind: JoinKind,
        condition: &Expr,
    ) -> Result<Relation> {
        let (left, right) = (self.renamed(left)?, self.renamed(right)?);
        if matches!(kind, JoinKind::LeftSemi | JoinKind::LeftAnti) {
            return self.with_partner(left, &right, condition, kind == JoinKind::LeftSemi);
        }
        let on = JoinCondition::On(condition.clone());
        let pairs = self.join(left.clone(), right.clone(), JoinKind::Inner, &on)?;
        // What a row of the result has: a column each, of the pairs or of one side.
        let mut made: Vec<(usize, &ScopeColumn)> = vec![];
        for (place, column) in left.columns.iter().chain(&right.columns).enumerate() {
            if made.iter().all(|(_, known)| known.column != column.column) {
                made.push((place, column));
            }
        }
        let names: Vec<String> = made.iter().map(|(_, c)| self.fresh(&c.name)).collect();
        let of = |plan: LogicalPlan, value: &dyn Fn(usize, &ScopeColumn) -> Typed| {
            let values = made.iter().zip(&names);
            let values = values
                .map(|((place, column), name)| value(*place, column).expr.alias(name.clone()));
            let projection = Projection::try_new(values.collect(), Arc::new(plan))?;
            Ok::<_, QueryError>(Arc::new(LogicalPlan::Projection(projection)))
        };
        let mut parts = vec![of(pairs.plan, &|place, _| pairs.columns[place].typed())?];
        for (kept, side, other) in [
            (kind != JoinKind::Right, &left, &right),
            (kind != JoinKind::Left, &right, &left),
        ] {
            if !kept {
                continue;
            }
            let alone = self.with_partner(side.clone(), other, condition, false)?;
            parts.push(of(alone.plan, &|_, column| {
                let own = side.columns.iter().any(|c| c.column == column.column);
                match own {
                    true => column.typed(),
                    false => Typed::null(&column.data_type),
                }
            })?);
        }
        let plan = LogicalPlan::Union(Union::try_new(parts)?);
        let columns = left.columns.iter().chain(&right.columns).map(|column| {
            let mut known = made.iter().zip(&names);
            let found = known.find(|((_, known), _)| known.column == column.column);
            let name = found.map_or(&column.column.name, |(_, name)| name);
            ScopeColumn {
                column: Column::new_unqualified(name.clone()),
                ..column.clone()
            }
        });
        let columns = columns.collect();
        Ok(Relation { plan, columns })
    }

    /// The rows of `side` that have a partner in `other`, or those that have none.
    fn with_partner(
        &self,
        mut side: Relation,
        other: &Relation,
        condition: &Expr,
        some: bool,
    ) -> Result<Relation> {
        self.outer.borrow_mut().push(side.columns.clone());
        let partners = self.filter(other.clone(), condition);
        self.outer.borrow_mut().pop();
        let exprs = Exprs {
            subqueries: Subqueries::OfRows,
            ..Exprs::over(self, &side.columns, "ON")
        };
        let predicate = exprs.exists_rows(partners?.plan, !some)?;
        side.plan = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(side.plan))?);
        Ok(side)
    }
}
