//! The only value there is: NULL of no rows, an error of several.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

use crate::error::RunError;
use crate::functions::kernel::Result;

/// The value of a subquery.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Only {
    signature: Signature,
}

impl Only {
    pub(super) fn new() -> Self {
        Only {
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl AggregateUDFImpl for Only {
    fn name(&self) -> &str {
        "only"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(args.first().cloned().unwrap_or(DataType::Null))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Found {
            value: ScalarValue::try_new_null(args.return_field.data_type())?,
            rows: 0,
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let value = args.return_field.data_type().clone();
        let field = |name: &str, data_type| {
            Arc::new(Field::new(
                format!("{}[{name}]", args.name),
                data_type,
                true,
            ))
        };
        Ok(vec![field("only", value), field("rows", DataType::Int64)])
    }
}

#[derive(Debug)]
struct Found {
    value: ScalarValue,
    rows: i64,
}

impl Found {
    fn add(&mut self, values: &ArrayRef, row: usize, rows: i64) -> Result<()> {
        self.value = ScalarValue::try_from_array(values, row)?;
        self.rows = self.rows.saturating_add(rows);
        Ok(())
    }
}

impl Accumulator for Found {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        (0..values[0].len()).try_for_each(|row| self.add(&values[0], row, 1))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match self.rows {
            0 | 1 => Ok(self.value.clone()),
            _ => Err(RunError::raise(
                "SCALAR_SUBQUERY_TOO_MANY_ROWS",
                "More than one row returned by a subquery used as an expression.",
            )),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.value.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![
            self.value.clone(),
            ScalarValue::Int64(Some(self.rows)),
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states[1].as_primitive::<Int64Type>();
        for row in 0..rows.len() {
            if rows.value(row) > 0 {
                self.add(&states[0], row, rows.value(row))?;
            }
        }
        Ok(())
    }
}
