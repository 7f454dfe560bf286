//! Session windows: runs of rows of a key with no gap between them.
//!
//! Each row has a session of its own, a struct of start and end, and an aggregation that has it among its keys merges
//! those that overlap or touch. What says so is the function that made the column, wherever in the query it stands.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DataFusionError, Result};
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::{WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::{
    Aggregate, AggregateUDF, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, WindowFrame,
    WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition, lit, when,
};
use datafusion::scalar::ScalarValue;
use std::sync::Arc;

use crate::functions::kernel::Typed;
use crate::functions::nested;
use crate::functions::session::{SESSION, is_session, of_bounds};
use crate::nodes::{TimeWindow, node_of};

/// Which key of an aggregation is a session window, if one is.
pub fn session_key(aggregate: &Aggregate) -> Option<usize> {
    let keys = aggregate.group_expr.iter();
    keys.enumerate()
        .find(|(_, key)| gives_sessions(key, &aggregate.input))
        .map(|(index, _)| index)
}

fn gives_sessions(expr: &Expr, input: &LogicalPlan) -> bool {
    match expr {
        Expr::Alias(alias) => gives_sessions(&alias.expr, input),
        Expr::Column(column) => input
            .schema()
            .maybe_index_of_column(column)
            .is_some_and(|index| has_sessions(input, index)),
        other => is_session(other),
    }
}

fn has_sessions(plan: &LogicalPlan, index: usize) -> bool {
    if let Some(window) = node_of::<TimeWindow>(plan) {
        let below = window.input.schema().fields().len();
        return index < below && has_sessions(&window.input, index);
    }
    match plan {
        LogicalPlan::Projection(projection) => {
            gives_sessions(&projection.expr[index], &projection.input)
        }
        LogicalPlan::Aggregate(aggregate) => aggregate
            .group_expr
            .get(index)
            .is_some_and(|key| gives_sessions(key, &aggregate.input)),
        LogicalPlan::Union(union) => union.inputs.iter().all(|input| has_sessions(input, index)),
        LogicalPlan::Unnest(unnest) => unnest
            .dependency_indices
            .get(index)
            .is_some_and(|index| has_sessions(&unnest.input, *index)),
        LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Extension(_) => has_sessions(plan.inputs()[0], index),
        _ => false,
    }
}

/// The start and the end of a session window, an expression of type `data_type`.
pub fn session_bounds(window: &Expr, data_type: &DataType) -> Result<[Expr; 2]> {
    let bound = |name: &str| {
        let window = Typed::new(window.clone().unalias(), data_type.clone());
        nested::field(window, name, true)
            .map(|bound| bound.expr)
            .map_err(|error| DataFusionError::External(Box::new(error)))
    };
    Ok([bound("start")?, bound("end")?])
}

/// The same aggregation with its calls that go by the order of rows told which: that of their event times, which are the
/// starts of the sessions in key number `session`, then of the ends of their own sessions, as gaps may differ, then of the
/// values.
pub fn in_time_order(aggregate: &Aggregate, session: usize) -> Result<Aggregate> {
    const IN_ORDER: [&str; 3] = ["array_agg", "first_value", "last_value"];
    let window = &aggregate.group_expr[session];
    let bounds = session_bounds(window, &window.get_type(aggregate.input.schema())?)?;
    let bounds = &bounds[..if has_one_gap(window) { 1 } else { 2 }];
    let sorted = |expr: Expr| {
        let Expr::AggregateFunction(mut call) = expr else {
            return Ok(Transformed::no(expr));
        };
        let params = &mut call.params;
        let goes_by_order = IN_ORDER.contains(&call.func.name()) && !params.distinct;
        if goes_by_order && params.order_by.is_empty() {
            let by = bounds.iter().chain(&params.args);
            params.order_by = by.map(|by| by.clone().sort(true, true)).collect();
        }
        Ok(Transformed::yes(Expr::AggregateFunction(call)))
    };
    let calls = aggregate.aggr_expr.iter().map(|call| {
        let name = call.schema_name().to_string();
        Ok(call.clone().unalias().transform(sorted)?.data.alias(name))
    });
    let calls = calls.collect::<Result<_>>()?;
    let (input, keys) = (Arc::clone(&aggregate.input), aggregate.group_expr.clone());
    Aggregate::try_new(input, keys, calls)
}

/// True if all rows have the same gap: it is no argument then.
fn has_one_gap(window: &Expr) -> bool {
    matches!(window.clone().unalias(), Expr::ScalarFunction(call) if call.func.name() == SESSION && call.args.len() == 1)
}

const START: &str = "__session_start";
const END: &str = "__session_end";
/// The largest end before a row.
const REACH: &str = "__session_reach";
const BEGINS: &str = "__session_begins";
const NUMBER: &str = "__session_number";

/// The same aggregation, of which key number `session` is a session window, by nodes of DataFusion's: a row begins a
/// session if it starts after everything before it has ended, and sessions are numbered by those.
pub fn sessions_lowered(aggregate: &Aggregate, session: usize) -> Result<LogicalPlan> {
    let in_order = in_time_order(aggregate, session)?;
    let input = aggregate.input.schema();
    let window = &aggregate.group_expr[session];
    let window_type = window.get_type(input)?;
    let [start, end] = session_bounds(window, &window_type)?;
    let column = |name: &str| Expr::Column(Column::new_unqualified(name));
    let key = |index: usize| format!("__session_key_{index}");
    let others: Vec<usize> = (0..aggregate.group_expr.len())
        .filter(|index| *index != session)
        .collect();
    let mut all: Vec<Expr> = (0..input.fields().len())
        .map(|index| Expr::Column(Column::from(input.qualified_field(index))))
        .collect();
    let input_columns = all.clone();
    for index in &others {
        let made = aggregate.group_expr[*index].clone().unalias();
        all.push(made.alias(key(*index)));
    }
    all.extend([start.alias(START), end.alias(END)]);
    let keys = || -> Vec<Expr> { others.iter().map(|index| column(&key(*index))).collect() };
    let kept = || {
        let mut kept = input_columns.clone();
        kept.extend(keys());
        kept.extend([column(START), column(END)]);
        kept
    };
    // Of rows with the same bounds the one that begins their session is the first.
    let over = |function: Arc<AggregateUDF>, of: &str, until: WindowFrameBound| {
        let mut order = vec![column(START).sort(true, true), column(END).sort(true, true)];
        order.extend((of == BEGINS).then(|| column(BEGINS).sort(false, true)));
        let params = WindowFunctionParams {
            args: vec![column(of)],
            partition_by: keys(),
            order_by: order,
            window_frame: WindowFrame::new_bounds(
                WindowFrameUnits::Rows,
                WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
                until,
            ),
            filter: None,
            null_treatment: None,
            distinct: false,
        };
        Expr::WindowFunction(Box::new(WindowFunction {
            fun: WindowFunctionDefinition::AggregateUDF(function),
            params,
        }))
    };
    let before = WindowFrameBound::Preceding(ScalarValue::UInt64(Some(1)));
    let begins = column(REACH).is_null().or(column(START).gt(column(REACH)));
    let mut with_begins = kept();
    with_begins.push(
        when(begins, lit(1_i64))
            .otherwise(lit(0_i64))?
            .alias(BEGINS),
    );
    let mut group = keys();
    group.push(column(NUMBER));
    let calls = in_order.aggr_expr.iter().enumerate();
    let mut calls: Vec<Expr> = calls
        .map(|(index, call)| {
            call.clone()
                .unalias()
                .alias(format!("__session_call_{index}"))
        })
        .collect();
    calls.push(
        min_udaf()
            .call(vec![column(START)])
            .alias("__session_first"),
    );
    calls.push(max_udaf().call(vec![column(END)]).alias("__session_last"));
    let plan = LogicalPlanBuilder::from(aggregate.input.as_ref().clone())
        .project(all)?
        .window(vec![over(max_udaf(), END, before).alias(REACH)])?
        .project(with_begins)?
        .window(vec![
            over(sum_udaf(), BEGINS, WindowFrameBound::CurrentRow).alias(NUMBER),
        ])?
        .aggregate(group, calls)?;
    let DataType::Struct(bounds) = &window_type else {
        return Err(DataFusionError::Internal(
            "a session window is a struct".into(),
        ));
    };
    let bound =
        |name: &str, index: usize| Typed::new(column(name), bounds[index].data_type().clone());
    let keys_count = aggregate.group_expr.len();
    let outputs = (0..aggregate.schema.fields().len()).map(|index| {
        let (qualifier, field) = aggregate.schema.qualified_field(index);
        let made = match index {
            _ if index == session => {
                let (first, last) = (bound("__session_first", 0), bound("__session_last", 1));
                of_bounds(first, last, &window_type).expr
            }
            _ if index < keys_count => column(&key(index)),
            _ => column(&format!("__session_call_{}", index - keys_count)),
        };
        made.alias_qualified(qualifier.cloned(), field.name().clone())
    });
    plan.project(outputs)?.build()
}
