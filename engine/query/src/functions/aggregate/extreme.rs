//! The row that is greatest or least by some value: `max_by` and `min_by`, and `max` and `min` of arrays and structs.
//!
//! Of several such rows the one whose own value is greatest or least answers, whatever the order in which rows came.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, make_comparator, new_empty_array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

use crate::functions::kernel::Result;

/// Over what orders the rows, and what is answered.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Extreme {
    greatest: bool,
    /// What orders the rows, and the value: the same for `max` and `min`.
    types: [DataType; 2],
    signature: Signature,
}

impl Extreme {
    pub(super) fn new(greatest: bool, by: DataType, value: DataType) -> Self {
        Extreme {
            greatest,
            types: [by, value],
            signature: Signature::any(2, Volatility::Immutable),
        }
    }
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        if self.greatest { "max_by" } else { "min_by" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.types[1].clone())
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Best {
            greatest: self.greatest,
            row: self.types.iter().map(new_empty_array).collect(),
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let names = ["by", "value"].into_iter().zip(&self.types);
        let fields = names.map(|(name, data_type)| {
            let name = format!("{}[{name}]", args.name);
            Arc::new(Field::new(name, data_type.clone(), true))
        });
        Ok(fields.collect())
    }
}

#[derive(Debug)]
struct Best {
    greatest: bool,
    /// What ordered the best row, and its value; empty before the first one.
    row: Vec<ArrayRef>,
}

impl Best {
    /// Which of two places is better, in columns of what orders them and of their values.
    fn order(
        &self,
        left: &[ArrayRef],
        right: &[ArrayRef],
    ) -> Result<impl Fn(usize, usize) -> Ordering + use<>> {
        let options = SortOptions {
            descending: false,
            nulls_first: true,
        };
        let by = make_comparator(&left[0], &right[0], options)?;
        let value = make_comparator(&left[1], &right[1], options)?;
        let greatest = self.greatest;
        Ok(move |l: usize, r: usize| {
            let order = by(l, r).then_with(|| value(l, r));
            if greatest { order } else { order.reverse() }
        })
    }
}

impl Accumulator for Best {
    fn update_batch(&mut self, rows: &[ArrayRef]) -> Result<()> {
        let order = self.order(rows, rows)?;
        let known = (0..rows[0].len()).filter(|row| rows[0].is_valid(*row));
        let Some(best) = known.reduce(|a, b| if order(a, b).is_lt() { b } else { a }) else {
            return Ok(());
        };
        if !self.row[0].is_empty() && self.order(&self.row, rows)?(0, best).is_ge() {
            return Ok(());
        }
        // A slice would keep its whole batch.
        let place = arrow::array::UInt32Array::from(vec![u32::try_from(best).unwrap_or(u32::MAX)]);
        self.row = rows
            .iter()
            .map(|column| Ok(arrow::compute::take(column, &place, None)?))
            .collect::<Result<_>>()?;
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match self.state()?.pop() {
            Some(value) => Ok(value),
            None => Ok(ScalarValue::Null),
        }
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let value = |column: &ArrayRef| match column.is_empty() {
            true => ScalarValue::try_new_null(column.data_type()),
            false => ScalarValue::try_from_array(column, 0),
        };
        self.row.iter().map(value).collect()
    }

    fn size(&self) -> usize {
        let columns = self.row.iter().map(Array::get_array_memory_size);
        size_of_val(self) + columns.sum::<usize>()
    }
}
