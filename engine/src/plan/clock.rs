//! The current time in a streaming query: the logged clock of the epoch that brings a row.
//!
//! It is a column that a source adds to its rows, so that a replay, which reads the same rows under the same clock, has the
//! same times. It goes up through projections and filters over the source, and no further: above an operator with state a
//! row can come out in another epoch than the one that brought it, and leave in a third, when it must be what it was.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{
    Expr, Filter, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias,
};
use highwater_query::{Observe, Watermark, is_clock, node_of};

use crate::error::Error;
use crate::relation::{CLOCK, StreamRelation};

/// The plan with the clock of the epoch in the place of the current time, where that can be.
pub(super) fn stamped(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut asked = false;
    plan.apply(|node| {
        for expr in node.expressions() {
            asked |= reads_clock(&expr)?;
        }
        Ok(match asked {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    })?;
    match asked {
        true => without(plan.transform_up(carried)?.data),
        false => Ok(plan),
    }
}

/// Refuses what would read the wall clock: each row at another moment, and a replay at yet another.
pub(super) fn refuse(exprs: &[Expr]) -> std::result::Result<(), Error> {
    for expr in exprs {
        if reads_clock(expr).map_err(Error::run)? {
            return Err(Error::refused(
                "UNSUPPORTED_FEATURE",
                "the current time or date of a streaming query is that of the epoch that brings a row, and is known only where \
                 rows come in, not above a join, an aggregation or another operator that keeps rows: make it a column there, as in \
                 FROM (SELECT *, current_timestamp() AS seen FROM ..), and use the column",
            ));
        }
    }
    Ok(())
}

fn reads_clock(expr: &Expr) -> Result<bool> {
    expr.exists(|expr| Ok(is_now(expr)))
}

fn is_now(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if is_clock(call.func.name()))
}

/// A node over inputs that may have the clock as a column more.
fn carried(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let plan = match node {
        LogicalPlan::TableScan(scan) => {
            let Some(stream) = scan.source.downcast_ref::<StreamRelation>() else {
                return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
            };
            let clocked = Arc::new(stream.clocked());
            LogicalPlanBuilder::scan(scan.table_name.clone(), clocked, None)?.build()?
        }
        LogicalPlan::Projection(projection) => match clock_of(&projection.input) {
            Some(clock) => {
                let exprs = projection.expr.into_iter();
                let exprs = exprs.map(|expr| -> Result<Expr> {
                    let (qualifier, name) = expr.qualified_name();
                    let stamped = by_clock(expr, &clock)?;
                    Ok(match stamped.transformed {
                        true => stamped.data.unalias().alias_qualified(qualifier, name),
                        false => stamped.data,
                    })
                });
                let mut exprs = exprs.collect::<Result<Vec<Expr>>>()?;
                exprs.push(Expr::Column(clock));
                LogicalPlan::Projection(Projection::try_new(exprs, projection.input)?)
            }
            None => return Ok(Transformed::no(LogicalPlan::Projection(projection))),
        },
        LogicalPlan::Filter(filter) => match clock_of(&filter.input) {
            Some(clock) => {
                let predicate = by_clock(filter.predicate, &clock)?.data;
                LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?)
            }
            None => return Ok(Transformed::no(LogicalPlan::Filter(filter))),
        },
        LogicalPlan::SubqueryAlias(alias) => {
            LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(alias.input, alias.alias)?)
        }
        node if node_of::<Watermark>(&node).is_some() || node_of::<Observe>(&node).is_some() => {
            return Ok(Transformed::no(node));
        }
        node => {
            return node.map_children(|input| Ok(Transformed::yes(without(input)?)));
        }
    };
    Ok(Transformed::yes(plan))
}

fn clock_of(plan: &LogicalPlan) -> Option<Column> {
    let mut columns = plan.schema().columns().into_iter();
    columns.find(|column| column.name == CLOCK)
}

/// The expression with the clock where it asks for the current time.
fn by_clock(expr: Expr, clock: &Column) -> Result<Transformed<Expr>> {
    expr.transform_up(|part| match &part {
        Expr::Cast(cast) if is_now(&cast.expr) => Ok(Transformed::yes(Expr::Column(clock.clone()))),
        _ => Ok(Transformed::no(part)),
    })
}

/// The same rows without the clock.
fn without(plan: LogicalPlan) -> Result<LogicalPlan> {
    if clock_of(&plan).is_none() {
        return Ok(plan);
    }
    let columns = plan.schema().columns().into_iter();
    let columns = columns.filter(|column| column.name != CLOCK);
    let columns: Vec<Expr> = columns.map(Expr::Column).collect();
    let plan = Projection::try_new(columns, Arc::new(plan))?;
    Ok(LogicalPlan::Projection(plan))
}
