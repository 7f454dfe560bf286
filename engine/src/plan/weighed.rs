//! Aggregates that can take a row back: counts and sums over rows that come and leave, where each counts as often as its
//! row. An epoch costs what it changes, however large a group is.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, LogicalPlan, Projection, lit, when,
};
use highwater_operators::stage::{Expose, Step};
use highwater_query::weighed_sum;

use super::Node;
use super::compile::{Compiler, aggregated, arrow_schema, calls, column, physical, stage};
use super::panes::panes;
use super::want::Want;
use crate::error::Error;

/// The name of a diff that is a column.
const DIFF: &str = "__diff";

impl Compiler<'_> {
    /// An aggregation of rows that may leave again, over `input`, which is what `aggregate` reads.
    pub(super) fn aggregate_changes(
        &mut self,
        input: Node,
        aggregate: &Aggregate,
        want: Want,
    ) -> Result<Node, Error> {
        let Some(weighed) = weighed(aggregate)? else {
            return self.aggregate_anew(input, aggregate, want);
        };
        if want == Want::Upserts {
            self.stays(aggregate)?;
        }
        let rows = input.edge().rows;
        let mut fields = rows.fields().to_vec();
        fields.push(Arc::clone(
            arrow_schema(weighed.input.schema())
                .fields()
                .last()
                .expect("the diff"),
        ));
        let exposed: SchemaRef = Arc::new(Schema::new(fields));
        let input = stage(input, Step::Expose(Expose::Diff, exposed));
        let keys = physical(&weighed.group_expr, weighed.input.schema())?;
        let schema = arrow_schema(&weighed.schema);
        let count = keys.len();
        let mut aggregation = self.aggregation(keys, calls(&weighed)?, Arc::clone(&schema), want);
        // The number of rows is the last call.
        aggregation.gone = (count > 0).then(|| aggregation.calls.len() - 1);
        let plan = LogicalPlan::Aggregate(aggregate.clone());
        aggregation.event_time = self.by_event_time(&plan, want);
        aggregation.panes = panes(aggregate);
        let node = aggregated(input, aggregation);
        // Without rows a count is 0, not unknown.
        let above = weighed.schema.as_ref();
        let mut outputs = Vec::new();
        for (index, call) in aggregate.aggr_expr.iter().enumerate() {
            let place = count + index;
            let value = Expr::Column(above.qualified_field(place).into());
            outputs.push(match is_count(call) {
                true => when(value.clone().is_null(), lit(0_i64))
                    .otherwise(value)
                    .map_err(Error::run)?,
                false => value,
            });
        }
        let mut exprs: Vec<_> = (0..count).map(|index| column(&schema, index)).collect();
        exprs.extend(physical(&outputs, above)?);
        let schema = arrow_schema(&aggregate.schema);
        Ok(stage(node, Step::Project { exprs, schema }))
    }
}

fn call_of(expr: &Expr) -> Option<&AggregateFunction> {
    match expr {
        Expr::Alias(alias) => call_of(&alias.expr),
        Expr::AggregateFunction(call) => Some(call),
        _ => None,
    }
}

fn is_count(expr: &Expr) -> bool {
    call_of(expr).is_some_and(|call| call.func.name() == "count")
}

/// The same aggregation over rows with their diffs, and one more call, the number of rows; `None` if a call cannot take
/// a row back.
fn weighed(aggregate: &Aggregate) -> Result<Option<Aggregate>, Error> {
    let input = &aggregate.input;
    let mut columns: Vec<Expr> = (0..input.schema().fields().len())
        .map(|index| Expr::Column(input.schema().qualified_field(index).into()))
        .collect();
    columns.push(lit(1_i64).alias(DIFF));
    let mut made = Vec::new();
    for (index, expr) in aggregate.aggr_expr.iter().enumerate() {
        let Some(call) = call_of(expr) else {
            return Ok(None);
        };
        let params = &call.params;
        let [value] = params.args.as_slice() else {
            return Ok(None);
        };
        if params.distinct || !params.order_by.is_empty() {
            return Ok(None);
        }
        let value = match call.func.name() {
            "count" => when(value.clone().is_not_null(), lit(1_i64))
                .end()
                .map_err(Error::run)?,
            "sum" => value.clone(),
            _ => return Ok(None),
        };
        let data_type = value.get_type(input.schema()).map_err(Error::run)?;
        let Some(sum) = sum_of(&data_type, value, params.filter.clone()) else {
            return Ok(None);
        };
        made.push(sum.alias(format!("__call{index}")));
    }
    let Some(rows) = sum_of(&DataType::Int64, lit(1_i64), None) else {
        return Ok(None);
    };
    made.push(rows.alias("__rows"));
    let below = Projection::try_new(columns, Arc::clone(input)).map_err(Error::run)?;
    let below = Arc::new(LogicalPlan::Projection(below));
    let aggregate = Aggregate::try_new(below, aggregate.group_expr.clone(), made);
    aggregate.map(Some).map_err(Error::run)
}

fn sum_of(data_type: &DataType, value: Expr, filter: Option<Box<Expr>>) -> Option<Expr> {
    let diff = Expr::Column(datafusion::common::Column::new_unqualified(DIFF));
    let params = AggregateFunctionParams {
        args: vec![value, diff],
        distinct: false,
        filter,
        order_by: Vec::new(),
        null_treatment: None,
    };
    let func = weighed_sum(data_type)?;
    Some(Expr::AggregateFunction(AggregateFunction { func, params }))
}
