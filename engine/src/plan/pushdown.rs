//! Filters below watermarks: rows that a query leaves out do not move its watermark, wherever the filter is written.
//!
//! The model moves a condition that does not mention the event time below the watermark, and so do we, or the same query
//! would close its windows at other moments. A condition on the event time stays above: rows that it leaves out have
//! still been seen. Conditions on the keys of an aggregation move below it likewise.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, new_null_array};
use arrow::datatypes::{Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, JoinType, Result};
use datafusion::logical_expr::{Distinct, Expr, Extension, Filter, Join, LogicalPlan, Union};
use highwater_query::{TimeWindow, Watermark, all_of, can_fail, conjuncts, node_of, session_key};

use super::compile::{is_streaming, physical};
use super::event_time::has_watermark;
use super::infer::inferred;
use super::join::is_over;
use super::semi;
use super::streams::strict_columns;

/// The same plan with conditions as far down as its watermarks and aggregations are.
pub(super) fn below_watermarks(plan: LogicalPlan) -> Result<LogicalPlan> {
    push(plan, Vec::new())
}

/// True if a condition has somewhere to go.
fn leads_somewhere(plan: &LogicalPlan) -> bool {
    let takes = |node: &LogicalPlan| match node {
        LogicalPlan::Aggregate(aggregate) => !aggregate.group_expr.is_empty(),
        LogicalPlan::Join(_) | LogicalPlan::Distinct(_) => true,
        _ => false,
    };
    let found = has_watermark(plan) || plan.exists(|node| Ok(takes(node))).unwrap_or(false);
    // DataFusion has rules of its own for rows that are all there.
    found && is_streaming(plan)
}

/// `plan` filtered by `conditions`, which are over its columns.
fn push(plan: LogicalPlan, conditions: Vec<Expr>) -> Result<LogicalPlan> {
    if !leads_somewhere(&plan) {
        return filtered(plan, conditions);
    }
    if let Some(watermark) = node_of::<Watermark>(&plan) {
        let stay = |condition: &Expr| condition.column_refs().contains(&watermark.column);
        return around(&plan, conditions, stay, Ok);
    }
    if let Some(window) = node_of::<TimeWindow>(&plan) {
        let made = Column::new_unqualified(window.name.clone());
        let stay = |condition: &Expr| condition.column_refs().contains(&made);
        let mut conditions = conditions;
        // Rows without a time fall out, so those of a join that have none for a partner, and none is kept for a pair.
        let joins = |node: &LogicalPlan| Ok(matches!(node, LogicalPlan::Join(_)));
        if window.input.exists(joins)? && !can_fail(&window.time) {
            conditions.push(window.time.clone().is_not_null());
        }
        return around(&plan, conditions, stay, Ok);
    }
    match &plan {
        LogicalPlan::Filter(filter) => {
            let mut all = conjuncts(&filter.predicate);
            all.extend(conditions);
            push(filter.input.as_ref().clone(), all)
        }
        LogicalPlan::Projection(projection) => {
            let values = projection.expr.clone();
            let below = |condition| replaced(condition, &plan, &values);
            around(&plan, conditions, |_| false, below)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let columns = (0..alias.input.schema().fields().len()).map(|index| {
                Expr::Column(Column::from(alias.input.schema().qualified_field(index)))
            });
            let columns: Vec<Expr> = columns.collect();
            let below = |condition| replaced(condition, &plan, &columns);
            around(&plan, conditions, |_| false, below)
        }
        LogicalPlan::Join(join) if join.null_aware => below_join(join, conditions),
        LogicalPlan::Join(join) => {
            let join_type = narrowed(join, &conditions);
            below_join(
                &Join {
                    join_type,
                    ..join.clone()
                },
                conditions,
            )
        }
        LogicalPlan::Union(union) => {
            let below = |input: &Arc<LogicalPlan>| {
                let fields = 0..input.schema().fields().len();
                let columns = fields
                    .map(|index| Expr::Column(Column::from(input.schema().qualified_field(index))));
                let columns: Vec<Expr> = columns.collect();
                let own = conditions.iter().cloned();
                let own = own.map(|condition| replaced(condition, &plan, &columns));
                let own = own.collect::<Result<_>>()?;
                push(input.as_ref().clone(), own).map(Arc::new)
            };
            let inputs = union.inputs.iter().map(below).collect::<Result<_>>()?;
            Ok(LogicalPlan::Union(Union {
                inputs,
                schema: Arc::clone(&union.schema),
            }))
        }
        LogicalPlan::Unnest(unnest) => {
            let lists = unnest.list_type_columns.iter();
            let made: Vec<usize> = lists.map(|(index, _)| *index).collect();
            // A condition that can fail is not asked of rows of which nothing is made.
            let stay = |condition: &Expr| {
                let columns = condition.column_refs();
                let mut places = columns
                    .into_iter()
                    .map(|column| unnest.input.schema().maybe_index_of_column(column));
                can_fail(condition) || places.any(|at| at.is_none_or(|at| made.contains(&at)))
            };
            around(&plan, conditions, stay, Ok)
        }
        // Rows that are distinct are groups by all columns.
        LogicalPlan::Distinct(Distinct::All(_)) => around(&plan, conditions, can_fail, Ok),
        LogicalPlan::Aggregate(aggregate) => {
            let keys = aggregate.group_expr.clone();
            // The session that a row would make alone says little about the one it is part of.
            let session = session_key(aggregate);
            let uses = |condition: &Expr, key: usize| {
                let mut columns = condition.column_refs().into_iter();
                columns.any(|column| plan.schema().maybe_index_of_column(column) == Some(key))
            };
            // A condition that can fail is asked of the groups that come out, and of no others.
            let stay = |condition: &Expr| {
                let columns = condition.column_refs();
                let mut places = columns
                    .into_iter()
                    .map(|column| plan.schema().maybe_index_of_column(column));
                can_fail(condition)
                    || keys.is_empty()
                    || places.any(|place| place.is_none_or(|place| place >= keys.len()))
                    || session.is_some_and(|session| uses(condition, session))
            };
            let below = |condition| replaced(condition, &plan, &keys);
            around(&plan, conditions, stay, below)
        }
        _ => {
            let plan = plan.map_children(|child| Ok(Transformed::yes(push(child, Vec::new())?)))?;
            filtered(plan.data, conditions)
        }
    }
}

/// The kind of a join whose rows `conditions` are asked of: one that no row of nulls satisfies leaves none of the rows
/// that have nulls for a partner.
fn narrowed(join: &Join, conditions: &[Expr]) -> JoinType {
    use JoinType::{Full, Inner, Left, Right};
    let needs = |side: &LogicalPlan| conditions.iter().any(|asked| leaves_out_nulls(asked, side));
    match join.join_type {
        kind @ (Left | Right | Full) => {
            let (left, right) = (needs(&join.left), needs(&join.right));
            match (kind, left, right) {
                (Full, true, true) | (Left, _, true) | (Right, true, _) => Inner,
                (Full, true, false) => Left,
                (Full, false, true) => Right,
                _ => kind,
            }
        }
        kind => kind,
    }
}

/// True if no row that has nulls in all columns of `side` satisfies the condition.
fn leaves_out_nulls(condition: &Expr, side: &LogicalPlan) -> bool {
    if is_over(condition, side.schema()) && !condition.column_refs().is_empty() {
        return matches!(of_nulls(condition, side.schema()), Some(None | Some(false)));
    }
    let mut strict = BTreeSet::new();
    match condition {
        Expr::IsNotNull(value) => strict_columns(value, &mut strict),
        other => strict_columns(other, &mut strict),
    }
    strict.iter().any(|column| side.schema().has_column(column))
}

/// What a condition answers for a row of nulls, if it answers.
fn of_nulls(condition: &Expr, schema: &DFSchema) -> Option<Option<bool>> {
    let fields = schema.fields().iter();
    let fields: Vec<Field> = fields
        .map(|f| f.as_ref().clone().with_nullable(true))
        .collect();
    let columns = fields
        .iter()
        .map(|field| new_null_array(field.data_type(), 1));
    let row =
        RecordBatch::try_new(Arc::new(Schema::new(fields.clone())), columns.collect()).ok()?;
    let condition = physical(std::slice::from_ref(condition), schema).ok()?;
    let answer = condition.first()?.evaluate(&row).ok()?.into_array(1).ok()?;
    let answer = answer.as_boolean_opt()?;
    Some(answer.is_valid(0).then(|| answer.value(0)))
}

/// A join with the conditions that one side alone can answer asked there, and those of both asked of its pairs.
fn below_join(join: &Join, conditions: Vec<Expr>) -> Result<LogicalPlan> {
    use JoinType::{Full, Inner, Left, LeftAnti, LeftMark, LeftSemi, Right};
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let kind = join.join_type;
    // A row that fails a condition above does not come out, whatever its partners, if its side is kept whole.
    let from_above = (
        matches!(kind, Inner | Left | LeftSemi | LeftAnti | LeftMark),
        matches!(kind, Inner | Right),
    );
    // A row that fails a condition of the join has no partner, and then does not come out.
    let from_pairs = (
        matches!(kind, Inner | Right | LeftSemi),
        matches!(kind, Inner | Left | LeftSemi | LeftAnti | LeftMark),
    );
    let mut part = |conditions: Vec<Expr>, goes: (bool, bool)| {
        let mut stay = Vec::new();
        for condition in conditions {
            // What can fail is not asked of rows without a partner.
            let moves = kind != Full && !can_fail(&condition) && !join.null_aware;
            if moves && goes.0 && is_over(&condition, join.left.schema()) {
                left.push(condition);
            } else if moves && goes.1 && is_over(&condition, join.right.schema()) {
                right.push(condition);
            } else {
                stay.push(condition);
            }
        }
        stay
    };
    let mut above = part(conditions, from_above);
    let own = join.filter.iter().flat_map(conjuncts).collect();
    let mut pairs = part(own, from_pairs);
    if kind == Inner && !join.null_aware {
        // Asked of the same pairs, in the same order.
        pairs.append(&mut above);
    }
    let [more_left, more_right] = inferred(join, &pairs, [&left, &right])?;
    left.extend(more_left);
    right.extend(more_right);
    let joined = Join::try_new(
        Arc::new(push(join.left.as_ref().clone(), left)?),
        Arc::new(push(join.right.as_ref().clone(), right)?),
        join.on.clone(),
        all_of(pairs),
        kind,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    filtered(semi::below_watermark(joined)?, above)
}

/// The node with those conditions that do not `stay` above it moved below, said in its input's columns.
fn around(
    node: &LogicalPlan,
    conditions: Vec<Expr>,
    stay: impl Fn(&Expr) -> bool,
    below: impl Fn(Expr) -> Result<Expr>,
) -> Result<LogicalPlan> {
    let (mut above, mut moved) = (Vec::new(), Vec::new());
    for condition in conditions {
        // One that can fail is not asked of rows that another one, before it, may have left out.
        if stay(&condition) || !above.is_empty() && can_fail(&condition) {
            above.push(condition);
        } else {
            moved.push(below(condition)?);
        }
    }
    let input = push(node.inputs()[0].clone(), moved)?;
    let node = match node {
        LogicalPlan::Extension(extension) => {
            let exprs = extension.node.expressions();
            let node = extension.node.with_exprs_and_inputs(exprs, vec![input])?;
            LogicalPlan::Extension(Extension { node })
        }
        LogicalPlan::Unnest(_) => node.with_new_exprs(Vec::new(), vec![input])?,
        other => {
            let exprs = other.expressions();
            other.with_new_exprs(exprs, vec![input])?
        }
    };
    filtered(node, above)
}

/// One filter for each condition, the first at the bottom: each is asked of what those before it leave.
fn filtered(plan: LogicalPlan, conditions: Vec<Expr>) -> Result<LogicalPlan> {
    conditions.into_iter().try_fold(plan, |plan, condition| {
        let filter = Filter::try_new(condition, Arc::new(plan))?;
        Ok(LogicalPlan::Filter(filter))
    })
}

/// The condition with each column of `node` replaced by the value it has below.
pub(super) fn replaced(condition: Expr, node: &LogicalPlan, values: &[Expr]) -> Result<Expr> {
    let replaced = condition.transform(|expr| {
        let Expr::Column(column) = &expr else {
            return Ok(Transformed::no(expr));
        };
        match node.schema().maybe_index_of_column(column) {
            Some(index) => Ok(Transformed::yes(values[index].clone().unalias())),
            None => Ok(Transformed::no(expr)), // of the other side of a join
        }
    });
    Ok(replaced?.data)
}
