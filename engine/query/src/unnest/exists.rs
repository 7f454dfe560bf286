//! Whether a subquery over rows that do not change has a row, asked of each row by itself.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, JoinType, NullEquality, Result, ScalarValue};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Expr, Filter, Join, JoinConstraint, LogicalPlan, Operator, Projection,
    SubqueryAlias, lit,
};

use super::hoist::conditions_of;
use super::{Names, is_correlated, own_columns};

/// The plan with a join that marks the rows that have a partner, in the place of each subquery that counts rows of which
/// only is asked whether there are any. Of a subquery that `is_asked` is false of nothing changes.
///
/// A count is a row of a group, and a group of a stream is never final; whether a row has a partner is final at once
/// where the partners do not change.
pub fn with_marks(
    plan: LogicalPlan,
    is_asked: &dyn Fn(&LogicalPlan) -> bool,
) -> Result<LogicalPlan> {
    let names = Names {
        among: "_some".into(),
        ..Names::default()
    };
    Ok(plan
        .transform_up(|node| marked(node, is_asked, &names))?
        .data)
}

/// The node over its rows with the marks beside them.
fn marked(
    node: LogicalPlan,
    is_asked: &dyn Fn(&LogicalPlan) -> bool,
    names: &Names,
) -> Result<Transformed<LogicalPlan>> {
    let (LogicalPlan::Filter(Filter { input, .. })
    | LogicalPlan::Projection(Projection { input, .. })) = &node
    else {
        return Ok(Transformed::no(node));
    };
    let own = own_columns(input.schema());
    let mut rows = input.as_ref().clone();
    let mut exprs = vec![];
    for expr in node.expressions() {
        let name = expr.schema_name().to_string();
        let replaced = expr.transform_down(|part| {
            let Some((counted, negated)) = some_of(&part).filter(|(counted, _)| is_asked(counted))
            else {
                return Ok(Transformed::no(part));
            };
            let Some((joined, mark)) = with_mark(&rows, counted, names)? else {
                return Ok(Transformed::no(part));
            };
            rows = joined;
            Ok(Transformed::yes(if negated { !mark } else { mark }))
        })?;
        exprs.push(match (replaced.transformed, &node) {
            (true, LogicalPlan::Projection(_)) => replaced.data.alias_if_changed(name)?,
            _ => replaced.data,
        });
    }
    if rows.schema().fields().len() == own.len() {
        return Ok(Transformed::no(node));
    }
    let above = node.with_new_exprs(exprs, vec![rows])?;
    Ok(Transformed::yes(match above {
        LogicalPlan::Filter(_) => {
            LogicalPlan::Projection(Projection::try_new(own, Arc::new(above))?)
        }
        other => other,
    }))
}

/// The rows that are counted, if the expression asks whether there are any; and whether it asks that there are none.
fn some_of(expr: &Expr) -> Option<(&LogicalPlan, bool)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else {
        return None;
    };
    let negated = match op {
        Operator::Gt => false,
        Operator::Eq => true,
        _ => return None,
    };
    let none = matches!(
        right.as_ref(),
        Expr::Literal(ScalarValue::Int64(Some(0)), _)
    );
    let Expr::ScalarSubquery(subquery) = left.as_ref() else {
        return None;
    };
    let LogicalPlan::Aggregate(Aggregate {
        input,
        group_expr,
        aggr_expr,
        ..
    }) = subquery.subquery.as_ref()
    else {
        return None;
    };
    let [call] = aggr_expr.as_slice() else {
        return None;
    };
    let Expr::AggregateFunction(call) = call.clone().unalias() else {
        return None;
    };
    let of_all =
        matches!(call.params.args.as_slice(), [Expr::Literal(value, _)] if !value.is_null());
    let counts = call.func.name() == "count"
        && of_all
        && !call.params.distinct
        && call.params.filter.is_none();
    (none && group_expr.is_empty() && counts).then_some((input.as_ref(), negated))
}

/// The rows with a column that says which of them `partners` has a row for, if a join can tell.
fn with_mark(
    rows: &LogicalPlan,
    partners: &LogicalPlan,
    names: &Names,
) -> Result<Option<(LogicalPlan, Expr)>> {
    if !is_correlated(partners) {
        return Ok(None);
    }
    let Some((partners, conditions)) = conditions_of(partners, &|| names.fresh("asked"))? else {
        return Ok(None);
    };
    let mut known = true;
    let condition = conditions
        .into_iter()
        .reduce(Expr::and)
        .unwrap_or(lit(true));
    let condition = condition.transform(|part| match part {
        Expr::OuterReferenceColumn(_, column) => {
            known &= rows.schema().has_column(&column);
            Ok(Transformed::yes(Expr::Column(column)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    // What is named from further outside is asked for there.
    if !known {
        return Ok(None);
    }
    let own = own_columns(rows.schema());
    let alias = names.fresh("partners");
    let partners = SubqueryAlias::try_new(Arc::new(partners), alias.clone())?;
    let condition = condition.data.transform(|part| match &part {
        Expr::Column(column) if column.relation.is_none() => {
            let aliased = Column::new(Some(alias.clone()), column.name.clone());
            let is_partners = partners.schema.has_column(&aliased);
            Ok(match is_partners {
                true => Transformed::yes(Expr::Column(aliased)),
                false => Transformed::no(part),
            })
        }
        _ => Ok(Transformed::no(part)),
    })?;
    let join = Join::try_new(
        Arc::new(rows.clone()),
        Arc::new(LogicalPlan::SubqueryAlias(partners)),
        vec![],
        Some(condition.data),
        JoinType::LeftMark,
        JoinConstraint::On,
        NullEquality::NullEqualsNothing,
        false,
    )?;
    let join = LogicalPlan::Join(join);
    let mark = Expr::Column(join.schema().qualified_field(own.len()).into());
    let name = names.fresh("some");
    let mut outputs = own;
    outputs.push(mark.alias(name.clone()));
    let rows = Projection::try_new(outputs, Arc::new(join))?;
    let mark = Expr::Column(Column::new_unqualified(name));
    Ok(Some((LogicalPlan::Projection(rows), mark)))
}
