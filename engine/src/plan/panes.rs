//! Windows that overlap, as a key of an aggregation: what they share is a pane, which is aggregated once.
//!
//! Below the aggregation a row has the end of its pane in place of its windows, wherever between the two the windows are
//! only passed on.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Aggregate, Expr, Filter, LogicalPlan, Projection, SubqueryAlias};
use highwater_operators::aggregate::Panes;
use highwater_query::{Form, Grid, TimeWindow, node_of};

use super::event_time::index_of;

/// The input of an aggregation with only the ends of the windows (or of their panes) that key number `key` is, and the
/// column in which they are; `None` if anything but the key uses the windows.
pub(super) fn ends_of(aggregate: &Aggregate, key: usize) -> Result<Option<(LogicalPlan, Column)>> {
    let Expr::Column(windows) = aggregate.group_expr[key].clone().unalias() else {
        return Ok(None);
    };
    let Some(index) = index_of(&aggregate.input, &windows) else {
        return Ok(None);
    };
    let keys = aggregate.group_expr.iter().enumerate();
    let others = keys.filter(|(i, _)| *i != key).map(|(_, expr)| expr);
    let others = used(others.chain(&aggregate.aggr_expr));
    if others.contains(&windows) {
        return Ok(None);
    }
    let ends = ends_below(&aggregate.input, index, &others)?;
    Ok(ends.map(|ends| (ends, windows)))
}

fn used<'e>(exprs: impl Iterator<Item = &'e Expr>) -> BTreeSet<Column> {
    let columns = exprs.flat_map(Expr::column_refs);
    columns.cloned().collect()
}

/// The plan with ends in column number `index`, and of its other columns at least those that are wanted.
fn ends_below(
    plan: &LogicalPlan,
    index: usize,
    wanted: &BTreeSet<Column>,
) -> Result<Option<LogicalPlan>> {
    if let Some(window) = node_of::<TimeWindow>(plan) {
        if index < window.input.schema().fields().len() {
            return Ok(None);
        }
        let (grid, form) = match window.grid.is_tumbling() {
            true => (window.grid, Form::End),
            false => (window.grid.panes(), Form::Pane(window.grid)),
        };
        let (input, time) = (Arc::clone(&window.input), window.time.clone());
        let ends = TimeWindow::try_new(input, time, grid, window.name.clone(), form)?;
        return Ok((window.form == Form::Struct).then(|| ends.into_plan()));
    }
    let column = |index: usize| Column::from(plan.schema().qualified_field(index));
    let below = |input: &LogicalPlan, index: usize, wanted: &BTreeSet<Column>| {
        Ok::<_, datafusion::error::DataFusionError>(ends_below(input, index, wanted)?.map(Arc::new))
    };
    match plan {
        LogicalPlan::Projection(projection) => {
            let Expr::Column(windows) = projection.expr[index].clone().unalias() else {
                return Ok(None);
            };
            let Some(at) = index_of(&projection.input, &windows) else {
                return Ok(None);
            };
            let places = 0..projection.expr.len();
            let kept = places.filter(|place| *place == index || wanted.contains(&column(*place)));
            let kept: Vec<usize> = kept.collect();
            let others = kept.iter().filter(|place| **place != index);
            let others = used(others.map(|place| &projection.expr[*place]));
            if others.contains(&windows) {
                return Ok(None);
            }
            let Some(input) = below(&projection.input, at, &others)? else {
                return Ok(None);
            };
            let exprs = kept.iter().map(|place| projection.expr[*place].clone());
            let projection = Projection::try_new(exprs.collect(), input)?;
            Ok(Some(LogicalPlan::Projection(projection)))
        }
        LogicalPlan::Filter(filter) => {
            let mut wanted = wanted.clone();
            wanted.extend(used(std::iter::once(&filter.predicate)));
            if wanted.contains(&column(index)) {
                return Ok(None);
            }
            let Some(input) = below(&filter.input, index, &wanted)? else {
                return Ok(None);
            };
            let filter = Filter::try_new(filter.predicate.clone(), input)?;
            Ok(Some(LogicalPlan::Filter(filter)))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let places = 0..plan.schema().fields().len();
            let wanted = places.filter(|place| wanted.contains(&column(*place)));
            let own = |place| Column::from(alias.input.schema().qualified_field(place));
            let Some(input) = below(&alias.input, index, &wanted.map(own).collect())? else {
                return Ok(None);
            };
            let alias = SubqueryAlias::try_new(input, alias.alias.clone())?;
            Ok(Some(LogicalPlan::SubqueryAlias(alias)))
        }
        LogicalPlan::Unnest(unnest) => {
            let at = unnest.dependency_indices[index];
            let mut wanted = wanted.clone();
            wanted.extend(unnest.exec_columns.iter().cloned());
            let own = Column::from(unnest.input.schema().qualified_field(at));
            if wanted.contains(&own) {
                return Ok(None);
            }
            let Some(input) = below(&unnest.input, at, &wanted)? else {
                return Ok(None);
            };
            let input = Arc::unwrap_or_clone(input);
            plan.with_new_exprs(Vec::new(), vec![input]).map(Some)
        }
        _ => Ok(None),
    }
}

/// The overlapping windows whose panes' ends are the first key of an aggregation.
pub(super) fn panes(aggregate: &Aggregate) -> Option<Panes> {
    panes_of(aggregate).map(|(windows, pane)| Panes {
        width_us: windows.width_us,
        slide_us: windows.slide_us,
        start_us: windows.start_us,
        pane_us: pane.width_us,
    })
}

pub(super) fn panes_of(aggregate: &Aggregate) -> Option<(Grid, Grid)> {
    let Expr::Column(column) = aggregate.group_expr.first()?.clone().unalias() else {
        return None;
    };
    panes_below(&aggregate.input, index_of(&aggregate.input, &column)?)
}

fn panes_below(plan: &LogicalPlan, index: usize) -> Option<(Grid, Grid)> {
    if let Some(window) = node_of::<TimeWindow>(plan) {
        let own = window.input.schema().fields().len();
        return match window.form {
            Form::Pane(of) if index == own => Some((of, window.grid)),
            _ => None,
        };
    }
    match plan {
        LogicalPlan::Projection(projection) => {
            let Expr::Column(column) = projection.expr[index].clone().unalias() else {
                return None;
            };
            panes_below(&projection.input, index_of(&projection.input, &column)?)
        }
        LogicalPlan::Unnest(unnest) => {
            panes_below(&unnest.input, *unnest.dependency_indices.get(index)?)
        }
        LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
            panes_below(plan.inputs()[0], index)
        }
        _ => None,
    }
}
