//! Filters, projections and explodes, fused into one operator.
//!
//! Adjacent steps run on a batch one after the other before the next batch is touched: no step has state, and a batch
//! of 8k rows stays in the cache from the first step to the last.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::cast::as_boolean_array;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use crate::failure::guard;
use crate::unnest::unnest;
use crate::{BatchBuilder, Edge, Failure, OperatorError, Rows};

/// One step of a stage. Expressions are over the visible columns of the step before; hidden columns ride along.
#[derive(Debug, Clone)]
pub enum Step {
    /// Keeps the rows for which the expression is true.
    Filter(Arc<dyn PhysicalExpr>),
    /// Computes the columns of `schema`.
    Project {
        /// One expression per field of `schema`.
        exprs: Vec<Arc<dyn PhysicalExpr>>,
        /// The columns after it.
        schema: SchemaRef,
    },
    /// One row per element: the `lists` columns (zipped) become their elements, other columns repeat.
    Unnest {
        /// Columns of list type that are unnested together; shorter ones are padded with nulls.
        lists: Vec<usize>,
        /// True keeps a row with a null or empty list, as one row with a null element (`explode_outer`).
        outer: bool,
        /// The columns after it: the same number, the list columns replaced by their element type.
        schema: SchemaRef,
    },
}

/// Runs `steps` over every batch.
pub fn stage<'s>(rows: Rows<'s>, name: &str, steps: Vec<Step>, failure: &Failure) -> Rows<'s> {
    let input_schema = rows.edge.physical();
    let mut edge = rows.edge;
    let mut prepared = Vec::with_capacity(steps.len());
    for step in steps {
        if let Step::Project { schema, .. } | Step::Unnest { schema, .. } = &step {
            edge.rows = SchemaRef::clone(schema);
        }
        prepared.push((step, edge.clone(), edge.physical()));
    }
    let failure = failure.clone();
    let stream = rows
        .stream
        .unary::<BatchBuilder, _, _, _>(Pipeline, name, move |_, _| {
            move |input, output| {
                input.for_each(|capability, batch| {
                    let epoch = *capability.time();
                    if failure.covers(epoch) {
                        return;
                    }
                    let batch = std::mem::take(batch);
                    let mut session = output.session_with_builder(&capability);
                    let mut out = |rows: RecordBatch| session.give_container(&mut rows.into());
                    let run = || run(&prepared, batch.into_rows(&input_schema)?, &mut out);
                    if let Err(error) = guard(run) {
                        failure.set(epoch, error);
                    }
                });
            }
        });
    Rows { stream, edge }
}

type Prepared = (Step, Edge, SchemaRef);

fn run(
    steps: &[Prepared],
    rows: RecordBatch,
    out: &mut dyn FnMut(RecordBatch),
) -> Result<(), OperatorError> {
    if rows.num_rows() == 0 {
        return Ok(());
    }
    let Some(((step, edge, schema), rest)) = steps.split_first() else {
        out(rows);
        return Ok(());
    };
    match step {
        Step::Filter(predicate) => run(rest, filter(predicate.as_ref(), rows)?, out),
        Step::Project { exprs, .. } => run(rest, project(exprs, edge, schema, &rows)?, out),
        Step::Unnest { lists, outer, .. } => unnest(&rows, lists, *outer, schema, &mut |part| {
            run(rest, part, out)
        }),
    }
}

fn filter(predicate: &dyn PhysicalExpr, rows: RecordBatch) -> Result<RecordBatch, OperatorError> {
    let keep = match predicate.evaluate(&rows)? {
        ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))) => return Ok(rows),
        ColumnarValue::Scalar(ScalarValue::Boolean(_) | ScalarValue::Null) => {
            return Ok(rows.slice(0, 0));
        }
        other => other.into_array(rows.num_rows())?,
    };
    // A null says as little for a row as a false.
    let keep: &BooleanArray = as_boolean_array(&keep)?;
    if keep.null_count() == 0 && keep.true_count() == rows.num_rows() {
        return Ok(rows);
    }
    Ok(filter_record_batch(&rows, keep)?)
}

fn project(
    exprs: &[Arc<dyn PhysicalExpr>],
    edge: &Edge,
    schema: &SchemaRef,
    rows: &RecordBatch,
) -> Result<RecordBatch, OperatorError> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for expr in exprs {
        columns.push(expr.evaluate(rows)?.into_array(rows.num_rows())?);
    }
    let hidden = usize::from(edge.ordered) + usize::from(edge.signed);
    let visible = rows.num_columns() - hidden;
    columns.extend(rows.columns()[visible..].iter().cloned());
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let schema = SchemaRef::clone(schema);
    Ok(RecordBatch::try_new_with_options(
        schema, columns, &options,
    )?)
}

#[cfg(test)]
mod tests;
