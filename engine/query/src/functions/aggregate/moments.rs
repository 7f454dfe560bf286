//! Skewness and kurtosis, from sums of powers of the distance to the mean that can be merged.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

use crate::functions::kernel::Result;

/// How a distribution leans (`skewness`), or how heavy its ends are (`kurtosis`).
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    kurtosis: bool,
    signature: Signature,
}

impl Shape {
    pub(super) fn new(kurtosis: bool) -> Self {
        Shape {
            kurtosis,
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl AggregateUDFImpl for Shape {
    fn name(&self) -> &str {
        if self.kurtosis {
            "kurtosis"
        } else {
            "skewness"
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Moments {
            kurtosis: self.kurtosis,
            sums: [0.0; 5],
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let names = ["count", "mean", "m2", "m3", "m4"];
        let fields = names.map(|name| {
            let name = format!("{}[{name}]", args.name);
            Arc::new(Field::new(name, DataType::Float64, true))
        });
        Ok(fields.to_vec())
    }
}

#[derive(Debug)]
struct Moments {
    kurtosis: bool,
    /// The count, the mean, and the sums of the second to fourth powers of the distances to it.
    sums: [f64; 5],
}

impl Moments {
    /// Pébay's formulas for the moments of two sets together.
    fn merge(&mut self, [nb, mean_b, m2b, m3b, m4b]: [f64; 5]) {
        let [na, mean_a, m2a, m3a, m4a] = self.sums;
        if nb == 0.0 {
            return;
        }
        let n = na + nb;
        let delta = mean_b - mean_a;
        let by_n = delta / n;
        let m2 = m2a + m2b + delta * by_n * na * nb;
        let m3 = m3a
            + m3b
            + by_n * by_n * delta * na * nb * (na - nb)
            + 3.0 * by_n * (na * m2b - nb * m2a);
        let m4 = m4a
            + m4b
            + by_n * by_n * by_n * delta * na * nb * (na * na - na * nb + nb * nb)
            + 6.0 * by_n * by_n * (na * na * m2b + nb * nb * m2a)
            + 4.0 * by_n * (na * m3b - nb * m3a);
        self.sums = [n, mean_a + by_n * nb, m2, m3, m4];
    }
}

impl Accumulator for Moments {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<Float64Type>().iter().flatten() {
            self.merge([1.0, value, 0.0, 0.0, 0.0]);
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let columns: Vec<_> = states
            .iter()
            .map(|s| s.as_primitive::<Float64Type>())
            .collect();
        for row in 0..states[0].len() {
            let mut sums = [0.0; 5];
            for (sum, column) in sums.iter_mut().zip(&columns) {
                *sum = column.value(row);
            }
            self.merge(sums);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let [n, _, m2, m3, m4] = self.sums;
        // All values the same lean nowhere.
        let shape = (n > 0.0 && m2 != 0.0).then(|| match self.kurtosis {
            true => n * m4 / (m2 * m2) - 3.0,
            false => n.sqrt() * m3 / (m2 * m2 * m2).sqrt(),
        });
        Ok(ScalarValue::Float64(shape))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let state = self.sums.map(|sum| ScalarValue::Float64(Some(sum)));
        Ok(state.to_vec())
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}
