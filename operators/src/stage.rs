//! Filters, projections and explodes, fused into one operator.
//!
//! Adjacent steps run on a batch one after the other before the next batch is touched: no step has state, and a batch
//! of 8k rows stays in the cache from the first step to the last.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, UInt32Array, UInt64Array,
};
use arrow::compute::{filter_record_batch, take_arrays};
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::cast::as_boolean_array;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use crate::failure::guard;
use crate::keys;
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
    /// The diff becomes a column that a query sees, the last of `schema`. The edge above has none: each row counts +1.
    Expose(Expose, SchemaRef),
    /// An edge without a diff gets one: +1 for each row.
    Sign,
    /// Lets the rows' places in the source go.
    Unorder,
    /// Gives rows that have no place in a source one, by a hash of what they hold: the same on any number of workers. Only on an edge
    /// without order, and of rows that come for good.
    Place,
}

/// How a diff becomes visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expose {
    /// As it is: one row, however often it counts (Int64).
    Diff,
    /// As rows that count once each: +1 or -1 (Int32).
    Changes,
}

/// Runs `steps` over every batch.
pub fn stage<'s>(rows: Rows<'s>, name: &str, steps: Vec<Step>, failure: &Failure) -> Rows<'s> {
    let input_schema = rows.edge.physical();
    let (prepared, edge) = prepare(rows.edge, steps);
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

/// The steps with what their batches look like, and the edge above them.
fn prepare(mut edge: Edge, steps: Vec<Step>) -> (Vec<Prepared>, Edge) {
    let mut prepared = Vec::with_capacity(steps.len());
    for step in steps {
        let signed = edge.signed;
        match &step {
            Step::Project { schema, .. } | Step::Unnest { schema, .. } => {
                edge.rows = SchemaRef::clone(schema);
            }
            Step::Expose(_, schema) => {
                edge.rows = SchemaRef::clone(schema);
                edge.signed = false;
            }
            Step::Sign => edge.signed = true,
            Step::Unorder => edge.ordered = false,
            Step::Place => edge.ordered = true,
            Step::Filter(_) => {}
        }
        let layout = Layout {
            hidden: usize::from(edge.ordered) + usize::from(edge.signed),
            retracts: signed,
            schema: edge.physical(),
        };
        prepared.push((step, layout));
    }
    (prepared, edge)
}

type Prepared = (Step, Layout);

/// What a step's batches look like.
struct Layout {
    /// How many columns a query does not see, after the step.
    hidden: usize,
    /// True if there is a diff before the step.
    retracts: bool,
    /// All columns after the step.
    schema: SchemaRef,
}

fn run(
    steps: &[Prepared],
    rows: RecordBatch,
    out: &mut dyn FnMut(RecordBatch),
) -> Result<(), OperatorError> {
    if rows.num_rows() == 0 {
        return Ok(());
    }
    let Some(((step, layout), rest)) = steps.split_first() else {
        out(rows);
        return Ok(());
    };
    match step {
        Step::Filter(predicate) => run(rest, filter(predicate.as_ref(), rows)?, out),
        Step::Project { exprs, .. } => run(rest, project(exprs, layout, &rows)?, out),
        Step::Unnest { lists, outer, .. } => {
            unnest(&rows, lists, *outer, &layout.schema, &mut |part| {
                run(rest, part, out)
            })
        }
        Step::Expose(how, _) => run(rest, expose(*how, layout, rows)?, out),
        Step::Sign if layout.retracts => run(rest, rows, out),
        Step::Sign => run(rest, sign(layout, rows)?, out),
        Step::Unorder => run(rest, unorder(layout, rows)?, out),
        Step::Place => run(rest, place(layout, rows)?, out),
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
    layout: &Layout,
    rows: &RecordBatch,
) -> Result<RecordBatch, OperatorError> {
    let schema = &layout.schema;
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for expr in exprs {
        columns.push(expr.evaluate(rows)?.into_array(rows.num_rows())?);
    }
    let visible = rows.num_columns() - layout.hidden;
    columns.extend(rows.columns()[visible..].iter().cloned());
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let schema = SchemaRef::clone(schema);
    Ok(RecordBatch::try_new_with_options(
        schema, columns, &options,
    )?)
}

fn sign(layout: &Layout, rows: RecordBatch) -> Result<RecordBatch, OperatorError> {
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(Int64Array::from_value(1, rows.num_rows())));
    let schema = SchemaRef::clone(&layout.schema);
    Ok(RecordBatch::try_new(schema, columns)?)
}

fn place(layout: &Layout, rows: RecordBatch) -> Result<RecordBatch, OperatorError> {
    let mut columns = rows.columns().to_vec();
    let normal: Result<Vec<ArrayRef>, _> = columns.iter().map(keys::normalise).collect();
    let places = keys::hash(&normal?, rows.num_rows())?;
    columns.push(Arc::new(UInt64Array::from(places)));
    let schema = SchemaRef::clone(&layout.schema);
    Ok(RecordBatch::try_new(schema, columns)?)
}

fn unorder(layout: &Layout, rows: RecordBatch) -> Result<RecordBatch, OperatorError> {
    let mut columns = rows.columns().to_vec();
    if columns.len() > layout.schema.fields().len() {
        columns.remove(layout.schema.fields().len() - layout.hidden);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let schema = SchemaRef::clone(&layout.schema);
    Ok(RecordBatch::try_new_with_options(
        schema, columns, &options,
    )?)
}

fn expose(how: Expose, layout: &Layout, rows: RecordBatch) -> Result<RecordBatch, OperatorError> {
    let mut columns = rows.columns().to_vec();
    let diffs = match layout.retracts {
        true => columns.pop().expect("a signed edge has a diff"),
        false => Arc::new(Int64Array::from_value(1, rows.num_rows())),
    };
    let visible = layout.schema.fields().len() - 1 - layout.hidden;
    let columns = match how {
        Expose::Diff => {
            columns.insert(visible, diffs);
            columns
        }
        Expose::Changes => {
            let (mut picks, mut signs) = (Vec::new(), Vec::new());
            for (row, diff) in diffs
                .as_primitive::<Int64Type>()
                .values()
                .iter()
                .enumerate()
            {
                for _ in 0..diff.unsigned_abs() {
                    picks.push(row as u32);
                    signs.push(diff.signum() as i32);
                }
            }
            columns.insert(visible, diffs);
            let mut columns = take_arrays(&columns, &UInt32Array::from(picks), None)?;
            columns[visible] = Arc::new(Int32Array::from(signs));
            columns
        }
    };
    let schema = SchemaRef::clone(&layout.schema);
    Ok(RecordBatch::try_new(schema, columns)?)
}

#[cfg(test)]
mod tests;
