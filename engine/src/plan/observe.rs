//! `observe` in an incremental plan, and its values as JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::physical_expr::PhysicalExpr;
use highwater_operators::aggregate::{Aggregation, Emit, needs_order};
use highwater_operators::metrics::WorkerMetrics;
use highwater_operators::observe::Observer;
use highwater_operators::{Edge, OperatorError};
use highwater_query::Observe;
use serde_json::{Map, Value};

use super::compile::{arrow_schema, calls, physical, told};
use crate::error::{Error, error_chain};

/// What is observed at one point of a plan.
#[derive(Clone)]
pub(crate) struct Observed {
    /// The rows that pass.
    pub(crate) edge: Edge,
    /// Aggregates over them.
    pub(crate) aggregation: Aggregation,
    /// The values, over the aggregates, by name.
    values: Vec<(String, Arc<dyn PhysicalExpr>)>,
}

impl Observed {
    /// What `node` observes of rows of `edge`.
    pub(crate) fn new(node: &Observe, edge: Edge) -> Result<Self, Error> {
        let aggregate = node.aggregate().map_err(Error::run)?;
        let calls = calls(&aggregate)?;
        for call in &calls {
            if call.function.is_distinct() {
                return Err(Error::refused(
                    "INVALID_OBSERVED_METRICS.AGGREGATE_EXPRESSION_WITH_DISTINCT_UNSUPPORTED",
                    format!(
                        "\"{}\" in observe(\"{}\"): an aggregate of distinct values cannot be observed",
                        told(call, &aggregate),
                        node.name
                    ),
                ));
            }
            if needs_order(&call.function) {
                let what = format!("\"{}\", which depends on order,", told(call, &aggregate));
                return Err(Error::not_yet(format!(
                    "{what} in observe(\"{}\")",
                    node.name
                )));
            }
        }
        let exprs = physical(&node.outputs, &aggregate.schema)?;
        let names = node.outputs.iter().map(|output| output.name_for_alias());
        let names = names
            .collect::<Result<Vec<String>, _>>()
            .map_err(Error::run)?;
        Ok(Observed {
            edge,
            aggregation: Aggregation {
                name: node.name.clone(),
                keys: Vec::new(),
                calls,
                schema: arrow_schema(&aggregate.schema),
                emit: Emit::Changed,
                event_time: false,
                panes: None,
                gone: None,
            },
            values: names.into_iter().zip(exprs).collect(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.aggregation.name
    }

    pub(crate) fn observer(&self) -> Result<Observer, OperatorError> {
        Observer::new(&self.edge, self.aggregation.clone())
    }

    /// The values over all parts.
    pub(crate) fn values(
        &self,
        observer: &Observer,
        parts: impl IntoIterator<Item = RecordBatch>,
    ) -> Result<Map<String, Value>, OperatorError> {
        let answer = observer.answer(parts)?;
        let mut values = Map::new();
        for (name, expr) in &self.values {
            let column = expr.evaluate(&answer)?.into_array(1)?;
            values.insert(name.clone(), json(column.as_ref())?);
        }
        Ok(values)
    }
}

/// Merges what the workers observed in one epoch.
pub(crate) fn merger(
    all: Vec<Observed>,
) -> Result<Box<crate::progress::MergeObserved>, OperatorError> {
    let mut observers = Vec::new();
    for observed in all {
        let observer = observed.observer()?;
        observers.push((observed, observer));
    }
    Ok(Box::new(move |counted: &[WorkerMetrics]| {
        let mut report = BTreeMap::new();
        for (observed, observer) in &observers {
            let parts = counted.iter().flat_map(|worker| &worker.observed);
            let parts = parts.filter(|(name, _)| name == observed.name());
            let parts: Result<Vec<RecordBatch>, _> =
                parts.map(|(_, part)| observer.decode(part)).collect();
            match parts.and_then(|parts| observed.values(observer, parts)) {
                Ok(values) => drop(report.insert(observed.name().to_string(), values)),
                // The rows are committed: what was observed of them is no reason to end the query.
                Err(error) => tracing::warn!(
                    "observe(\"{}\") has no values: {}",
                    observed.name(),
                    error_chain(&error)
                ),
            }
        }
        report
    }))
}

/// The only value of `column`: numbers and truth values as JSON has them, everything else as text.
fn json(column: &dyn Array) -> Result<Value, ArrowError> {
    if column.is_null(0) {
        return Ok(Value::Null);
    }
    let text = |column: &dyn Array| {
        let formatter = ArrayFormatter::try_new(column, &FormatOptions::default())?;
        formatter.value(0).try_to_string()
    };
    let float = |value: f64| match serde_json::Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None => Value::String(value.to_string()),
    };
    Ok(match column.data_type() {
        DataType::Boolean => Value::Bool(column.as_boolean().value(0)),
        DataType::Float32 => float(f64::from(column.as_primitive::<Float32Type>().value(0))),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(0)),
        data_type if data_type.is_integer() => {
            let text = text(column)?;
            text.parse::<i64>().map_or(Value::String(text), Value::from)
        }
        _ => Value::String(text(column)?),
    })
}
