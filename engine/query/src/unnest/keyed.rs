//! What a subquery computes of columns that are no keys, maps above all, is computed of the rows around: its value is asked
//! for in their place.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ExprSchema, Result};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Projection};

use super::joinable::{has_subquery, names_outer};
use super::{Names, is_key_type, own_columns};
use crate::functions::can_fail;

/// The rows with the values that `subquery` computes of their columns that are no keys, and the subquery that names these
/// values. What can fail stays: it may be asked of rows of which it is not asked.
pub(super) fn keyed(
    rows: LogicalPlan,
    subquery: &LogicalPlan,
    names: &Names,
) -> Result<(LogicalPlan, LogicalPlan)> {
    let is_no_key = |column: &Column| {
        let field = rows.schema().field_from_column(column);
        field.is_ok_and(|field| !is_key_type(field.data_type()))
    };
    let of_maps = subquery.all_out_ref_exprs();
    let mut of_maps = of_maps.iter().filter_map(|outer| match outer {
        Expr::OuterReferenceColumn(_, column) => Some(column),
        _ => None,
    });
    if !of_maps.any(|column| is_no_key(column)) {
        return Ok((rows, subquery.clone()));
    }
    let mut made: Vec<(Expr, String)> = vec![];
    let mut asked = |expr: Expr| {
        expr.transform_down(|part| {
            let Some(own) = of_rows(&part, &rows, &is_no_key)? else {
                return Ok(Transformed::no(part));
            };
            let name = match made.iter().find(|(known, _)| *known == own) {
                Some((_, name)) => name.clone(),
                None => {
                    let name = names.fresh("asked");
                    made.push((own.clone(), name.clone()));
                    name
                }
            };
            let (_, field) = own.to_field(rows.schema())?;
            let column = Column::new_unqualified(name);
            let value = Expr::OuterReferenceColumn(field, column);
            Ok(Transformed::new(value, true, TreeNodeRecursion::Jump))
        })
    };
    let subquery = subquery.clone().transform_up(|node| {
        let exprs = node.expressions();
        if !exprs.iter().any(names_outer) {
            return Ok(Transformed::no(node));
        }
        let mut replaced = vec![];
        for expr in exprs {
            let name = expr.schema_name().to_string();
            let expr = asked(expr)?;
            let named = matches!(node, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_));
            replaced.push(match (expr.transformed, named) {
                (true, true) => expr.data.alias_if_changed(name)?,
                _ => expr.data,
            });
        }
        let inputs = node.inputs().into_iter().cloned().collect();
        Ok(Transformed::yes(node.with_new_exprs(replaced, inputs)?))
    })?;
    if made.is_empty() {
        return Ok((rows, subquery.data));
    }
    let mut outputs = own_columns(rows.schema());
    outputs.extend(made.into_iter().map(|(expr, name)| expr.alias(name)));
    let rows = Projection::try_new(outputs, Arc::new(rows))?;
    Ok((LogicalPlan::Projection(rows), subquery.data))
}

/// The expression as one over the rows around, if it is one of theirs alone, of a column that is no key, and a key itself.
fn of_rows(
    expr: &Expr,
    rows: &LogicalPlan,
    is_no_key: &dyn Fn(&Column) -> bool,
) -> Result<Option<Expr>> {
    let mut fits = true;
    let mut no_key = false;
    expr.apply(|part| {
        match part {
            Expr::Column(_)
            | Expr::AggregateFunction(_)
            | Expr::WindowFunction(_)
            | Expr::Alias(_) => fits = false,
            Expr::OuterReferenceColumn(_, column) => {
                fits &= rows.schema().has_column(column);
                no_key |= is_no_key(column);
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if !fits || !no_key || has_subquery(expr) {
        return Ok(None);
    }
    let own = expr.clone().transform(|part| match part {
        Expr::OuterReferenceColumn(_, column) => Ok(Transformed::yes(Expr::Column(column))),
        other => Ok(Transformed::no(other)),
    })?;
    let is_key = is_key_type(&own.data.get_type(rows.schema())?);
    Ok((is_key && !can_fail(&own.data)).then_some(own.data))
}
