//! Keys of rows that change. Update mode hands over rows that replace those with their key; it can do that where every row
//! that leaves has a successor under its key.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::{Column, JoinType};
use datafusion::logical_expr::{Distinct, Expr, Join, LogicalPlan};
use highwater_operators::aggregate::Emit;
use highwater_operators::regroup::{AllRows, Regroup};
use highwater_query::{Observe, Watermark, conjuncts, equality, node_of, session_key};

use super::compile::{Compiler, arrow_schema, is_streaming, physical};
use super::regroup::{laid_out, stable, without};
use super::want::Want;
use super::{Node, Told};
use crate::error::Error;

impl Compiler<'_> {
    /// The rows of `plan` that came or changed with an epoch. `key` tells them apart, if it is known.
    pub(super) fn upserts(
        &mut self,
        plan: &LogicalPlan,
        key: Option<BTreeSet<usize>>,
    ) -> Result<Node, Error> {
        let before = self.clone();
        let first = self.node(plan, Want::Upserts);
        let Some(key) = key.filter(|_| !matches!(&first, Ok(root) if !root.edge().signed)) else {
            return first;
        };
        let after = std::mem::replace(self, before);
        match self.by_key(plan, &key) {
            Ok(root) => Ok(root),
            Err(_) => {
                *self = after;
                first
            }
        }
    }

    fn by_key(&mut self, plan: &LogicalPlan, key: &BTreeSet<usize>) -> Result<Node, Error> {
        let input = self.node(plan, Want::Changes)?;
        let columns = key.iter().map(|index| {
            let column = Column::from(plan.schema().qualified_field(*index));
            Expr::Column(column)
        });
        let columns = physical(&columns.collect::<Vec<_>>(), plan.schema())?;
        let (node, layout) = laid_out(input, columns);
        let regroup = Regroup {
            name: String::new(),
            keys: key.len(),
            sorts: Vec::new(),
            answer: Arc::new(AllRows),
            schema: layout,
            emit: Emit::Changed,
            event_time: false,
            panes: None,
        };
        let answer = "the row of each key".to_string();
        let told = Told::Rows(answer.clone());
        let node = self.regrouped(node, "newest", vec![answer], told, regroup);
        Ok(without(node, key.len(), &arrow_schema(plan.schema())))
    }
}

/// The columns that tell each row of the plan from all others, if no row ever leaves without another one that has the
/// same values in them.
pub(super) fn key(plan: &LogicalPlan) -> Option<BTreeSet<usize>> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => {
            stable(plan).filter(|_| session_key(aggregate).is_none())?;
            Some((0..aggregate.group_expr.len()).collect())
        }
        LogicalPlan::Distinct(Distinct::All(_)) => Some((0..stable(plan)?.len()).collect()),
        LogicalPlan::SubqueryAlias(alias) => key(&alias.input),
        LogicalPlan::Filter(filter) => {
            let fixed = fixed(&filter.input)?;
            let columns = filter.predicate.column_refs();
            let is_fixed = columns
                .iter()
                .all(|column| is_among(&filter.input, column, &fixed));
            key(&filter.input).filter(|_| is_fixed)
        }
        LogicalPlan::Projection(projection) => {
            let below = key(&projection.input)?;
            let place = |index: &usize| {
                let column = Column::from(projection.input.schema().qualified_field(*index));
                let column = Expr::Column(column);
                let mut outputs = projection.expr.iter();
                outputs.position(|expr| expr.clone().unalias() == column)
            };
            below.iter().map(place).collect()
        }
        LogicalPlan::Join(join) => key_of_join(join),
        LogicalPlan::Extension(_) => {
            let passes = node_of::<Observe>(plan).is_some() || node_of::<Watermark>(plan).is_some();
            key(plan.inputs()[0]).filter(|_| passes)
        }
        _ => None,
    }
}

/// The columns in which a row that leaves has a successor.
fn fixed(plan: &LogicalPlan) -> Option<BTreeSet<usize>> {
    let mut fixed = key(plan).unwrap_or_default();
    for (index, stays) in stable(plan).unwrap_or_default().into_iter().enumerate() {
        if stays {
            fixed.insert(index);
        }
    }
    Some(fixed)
}

fn is_among(plan: &LogicalPlan, column: &Column, columns: &BTreeSet<usize>) -> bool {
    let index = plan.schema().maybe_index_of_column(column);
    index.is_some_and(|index| columns.contains(&index))
}

fn key_of_join(join: &Join) -> Option<BTreeSet<usize>> {
    let width = join.left.schema().fields().len();
    let shifted = |key: BTreeSet<usize>| key.into_iter().map(|index| index + width).collect();
    let side = |plan: &LogicalPlan| match is_streaming(plan) {
        true => key(plan),
        // Rows that never change: two that are the same in all columns are the same in the answer.
        false => Some((0..plan.schema().fields().len()).collect()),
    };
    let left = side(&join.left)?;
    let one_partner = has_one_partner(join);
    match join.join_type {
        // A left row always has one row, whatever its partner is.
        JoinType::Left if one_partner => Some(left),
        JoinType::Inner if stays_together(join) => {
            let right: BTreeSet<usize> = shifted(side(&join.right)?);
            Some(match one_partner {
                true => left,
                false => left.union(&right).copied().collect(),
            })
        }
        _ => None,
    }
}

/// The equalities and the other conditions of a join.
fn conditions(join: &Join) -> (Vec<(Expr, Expr)>, Vec<Expr>) {
    let mut equal = join.on.clone();
    let mut rest = Vec::new();
    for part in join.filter.iter().flat_map(conjuncts) {
        match equality(&part) {
            Some((left, right, _)) => equal.push((left.clone(), right.clone())),
            None => rest.push(part),
        }
    }
    (equal, rest)
}

/// True if a left row has one partner at most: all columns of the right rows' key are compared with the left side's.
fn has_one_partner(join: &Join) -> bool {
    let (equal, _) = conditions(join);
    let Some(key) = key(&join.right).filter(|_| is_streaming(&join.right)) else {
        return false;
    };
    let of_left = |expr: &Expr| {
        let columns = expr.column_refs();
        columns
            .iter()
            .all(|column| join.left.schema().has_column(column))
    };
    let compared = |index: usize| {
        let own = Expr::Column(Column::from(join.right.schema().qualified_field(index)));
        equal
            .iter()
            .any(|(a, b)| *b == own && of_left(a) || *a == own && of_left(b))
    };
    key.into_iter().all(compared)
}

/// True if a pair stays one whatever becomes of its rows: what is asked of it are columns that do not change.
pub(super) fn stays_together(join: &Join) -> bool {
    let fixed = |plan: &LogicalPlan| match is_streaming(plan) {
        true => fixed(plan),
        false => Some((0..plan.schema().fields().len()).collect()),
    };
    let (Some(left), Some(right)) = (fixed(&join.left), fixed(&join.right)) else {
        return false;
    };
    let on = join.on.iter().flat_map(|(left, right)| [left, right]);
    let asked = on.chain(&join.filter);
    asked
        .flat_map(|expr| expr.column_refs())
        .all(|column| is_among(&join.left, column, &left) || is_among(&join.right, column, &right))
}
