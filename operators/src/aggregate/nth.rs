//! Keeps the state of `nth_value` bounded.
//!
//! With an ORDER BY inside, DataFusion's accumulator merges whole lists and never cuts them: its state would grow by n
//! rows with every epoch that touches the group.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::take;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::scalar::ScalarValue;

/// How many elements of its lists a function's state needs: the first n, or the last n if negative.
pub(crate) fn bound(function: &AggregateFunctionExpr) -> Option<i64> {
    if function.fun().name() != "nth_value" {
        return None;
    }
    let arguments = function.expressions();
    let n = arguments.get(1)?.downcast_ref::<Literal>()?;
    match n.value() {
        ScalarValue::Int64(Some(n)) if function.is_reversed() => Some(-n),
        ScalarValue::Int64(Some(n)) => Some(*n),
        _ => None,
    }
}

/// A state column with its lists cut to the first `n` elements, or the last.
pub(crate) fn cut(column: &ArrayRef, n: i64) -> Result<ArrayRef, ArrowError> {
    let DataType::List(field) = column.data_type() else {
        return Ok(Arc::clone(column));
    };
    let lists: &ListArray = column.as_list();
    let keep = n.unsigned_abs() as usize;
    let mut elements = Vec::new();
    let mut lengths = Vec::with_capacity(lists.len());
    for ends in lists.value_offsets().windows(2) {
        let (start, end) = (ends[0] as usize, ends[1] as usize);
        let length = keep.min(end - start);
        let from = if n > 0 { start } else { end - length };
        elements.extend((from..from + length).map(|at| at as u32));
        lengths.push(length);
    }
    Ok(Arc::new(ListArray::try_new(
        Arc::clone(field),
        OffsetBuffer::from_lengths(lengths),
        take(lists.values(), &UInt32Array::from(elements), None)?,
        lists.nulls().cloned(),
    )?))
}
