//! What a join's condition says of the rows of one side alone: those that can have no partner and so do not come out.
//!
//! The model asks it below the watermark, so rows without a key do not move the watermark of a stream that is joined
//! by it, and neither do those whose key is left out on the other side.

use std::collections::BTreeSet;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, JoinType, NullEquality, Result};
use datafusion::logical_expr::{Expr, Join, LogicalPlan};
use highwater_query::{Observe, TimeWindow, Watermark, can_fail, conjuncts, equality, node_of};

use super::compile::is_streaming;
use super::pushdown::replaced;
use super::streams::strict_columns;

/// Conditions for the rows of each side of a join, where `pairs` are asked of its pairs and `known` of its sides.
pub(super) fn inferred(join: &Join, pairs: &[Expr], known: [&[Expr]; 2]) -> Result<[Vec<Expr>; 2]> {
    use JoinType::{Inner, Left, LeftAnti, LeftSemi, Right};
    let goes = [
        matches!(join.join_type, Inner | Right | LeftSemi),
        matches!(join.join_type, Inner | Left | LeftAnti | LeftSemi),
    ];
    let sides = [&join.left, &join.right];
    let mut found = [Vec::new(), Vec::new()];
    if join.null_aware || join.null_equality == NullEquality::NullEqualsNull {
        return Ok(found);
    }
    let mut strict = BTreeSet::new();
    let on = join.on.iter();
    on.flat_map(|(left, right)| [left, right])
        .for_each(|expr| strict_columns(expr, &mut strict));
    pairs
        .iter()
        .for_each(|part| strict_columns(part, &mut strict));
    for column in strict {
        for side in [0, 1] {
            if goes[side] && is_streaming(sides[side]) && sides[side].schema().has_column(&column) {
                found[side].push(Expr::Column(column.clone()).is_not_null());
            }
        }
    }
    // What is said of one of two equal columns holds of the other.
    let mut equal: Vec<(Column, Column)> = Vec::new();
    let parts = pairs.iter().filter_map(|part| match equality(part) {
        Some((left, right, false)) => Some((left, right)),
        _ => None,
    });
    for (left, right) in join
        .on
        .iter()
        .map(|(left, right)| (left, right))
        .chain(parts)
    {
        let (Expr::Column(left), Expr::Column(right)) = (left, right) else {
            continue;
        };
        match sides[0].schema().has_column(left) {
            true => equal.push((left.clone(), right.clone())),
            false => equal.push((right.clone(), left.clone())),
        }
    }
    for side in [0, 1] {
        let other = 1 - side;
        if !goes[side] || !is_streaming(sides[side]) {
            continue;
        }
        let mut said = constraints(sides[other])?;
        said.extend(known[other].iter().cloned());
        said.extend(pairs.iter().filter(|part| !can_fail(part)).cloned());
        let has = |column: &Column| sides[side].schema().has_column(column);
        for condition in said {
            let columns: Vec<Column> = condition.column_refs().into_iter().cloned().collect();
            let mut own = vec![condition];
            for other in columns.iter().filter(|column| !has(column)) {
                let equals = equal.iter().map(|(left, right)| match side {
                    0 => (left, right),
                    _ => (right, left),
                });
                let equals = equals.filter(|(own, others)| *others == other && has(own));
                let mut replaced = Vec::new();
                for (equal, _) in equals {
                    for condition in &own {
                        replaced.push(in_place_of(condition.clone(), other, equal)?);
                    }
                }
                own = replaced;
            }
            // What is said of its own columns alone is asked of them anyway.
            for condition in own.into_iter().filter(|_| !columns.iter().all(has)) {
                if !found[side].contains(&condition) {
                    found[side].push(condition);
                }
            }
        }
    }
    Ok(found)
}

fn in_place_of(condition: Expr, other: &Column, own: &Column) -> Result<Expr> {
    let renamed = condition.transform(|expr| match &expr {
        Expr::Column(column) if column == other => Ok(Transformed::yes(Expr::Column(own.clone()))),
        _ => Ok(Transformed::no(expr)),
    });
    Ok(renamed?.data)
}

/// What is true of every row of `plan`, of one column each and in its columns.
fn constraints(plan: &LogicalPlan) -> Result<Vec<Expr>> {
    let passes = match plan {
        LogicalPlan::Extension(_) => {
            node_of::<Watermark>(plan).is_some()
                || node_of::<TimeWindow>(plan).is_some()
                || node_of::<Observe>(plan).is_some()
        }
        LogicalPlan::Distinct(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => true,
        _ => false,
    };
    match plan {
        _ if passes => constraints(plan.inputs()[0]),
        LogicalPlan::Filter(filter) => {
            let mut all = constraints(&filter.input)?;
            let own = conjuncts(&filter.predicate).into_iter();
            all.extend(own.filter(|part| !can_fail(part) && part.column_refs().len() == 1));
            Ok(all)
        }
        LogicalPlan::Join(join) => {
            use JoinType::{Inner, Left, LeftAnti, LeftSemi, Right};
            let mut all = Vec::new();
            if matches!(join.join_type, Inner | Left | LeftAnti | LeftSemi) {
                all.extend(constraints(&join.left)?);
            }
            if matches!(join.join_type, Inner | Right) {
                all.extend(constraints(&join.right)?);
            }
            Ok(all)
        }
        LogicalPlan::SubqueryAlias(_) | LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) => {
            let input = plan.inputs()[0];
            let below = constraints(input)?;
            if below.is_empty() {
                return Ok(below);
            }
            let mut all = Vec::new();
            for index in 0..plan.schema().fields().len() {
                let above = Expr::Column(plan.schema().qualified_field(index).into());
                let value = match plan {
                    LogicalPlan::Projection(projection) => projection.expr[index].clone().unalias(),
                    LogicalPlan::Aggregate(aggregate) => {
                        let Some(key) = aggregate.group_expr.get(index) else {
                            break;
                        };
                        key.clone().unalias()
                    }
                    _ => Expr::Column(input.schema().qualified_field(index).into()),
                };
                let Expr::Column(value) = value else { continue };
                for condition in &below {
                    if condition.column_refs().contains(&value) {
                        let mut values: Vec<Expr> = Vec::new();
                        for place in 0..input.schema().fields().len() {
                            let column = Column::from(input.schema().qualified_field(place));
                            values.push(match column == value {
                                true => above.clone(),
                                false => Expr::Column(column),
                            });
                        }
                        all.push(replaced(condition.clone(), input, &values)?);
                    }
                }
            }
            Ok(all)
        }
        _ => Ok(Vec::new()),
    }
}
