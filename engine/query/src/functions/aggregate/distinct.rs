//! Sums of integers and decimals of which each distinct one counts once.

use std::collections::{HashMap, HashSet};
use std::mem::size_of_val;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::Accumulator;

use super::sum::{CheckedSum, Target, Total, for_each, for_each_state};
use crate::functions::kernel::Result;

/// One group, each value once.
#[derive(Debug)]
pub(super) struct Distinct<T> {
    target: Target,
    values: HashSet<T>,
}

impl<T> Distinct<T> {
    pub(super) fn new(sum: &CheckedSum) -> Self {
        Distinct {
            target: Target::of(sum),
            values: HashSet::new(),
        }
    }
}

impl<T: Total> Accumulator for Distinct<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for_each(&values[0], |_, v| {
            self.values.insert(v);
        })
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        // A sum that is checked at the end does not depend on the order.
        let values = self.values.iter().copied();
        let sum = values.reduce(Total::plus);
        ScalarValue::try_from_array(&self.target.finish(std::iter::once(sum))?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<T>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let states = self.target.states(self.values.iter().map(|v| Some(*v)));
        let values = (0..states.len())
            .map(|i| ScalarValue::try_from_array(&states, i))
            .collect::<Result<Vec<_>>>()?;
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(
            &values,
            &self.target.state,
        ))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let lists = states[0].as_list::<i32>();
        for row in (0..lists.len()).filter(|row| lists.is_valid(*row)) {
            for_each_state(&lists.value(row), |_, v| {
                self.values.insert(v);
            });
        }
        Ok(())
    }
}

/// One group, each value as often as it is there, and the sum of those that are.
#[derive(Debug)]
pub(super) struct Running<T> {
    target: Target,
    values: HashMap<T, u32>,
    sum: T,
}

/// Tables with less room than this are not worth making smaller.
const SHRINK_MIN: usize = 64;

impl<T: Total> Running<T> {
    pub(super) fn new(sum: &CheckedSum) -> Self {
        Running {
            target: Target::of(sum),
            values: HashMap::new(),
            sum: T::default(),
        }
    }

    fn each(values: &ArrayRef, mut f: impl FnMut(T)) -> Result<()> {
        match values.data_type() {
            DataType::Decimal256(..) => {
                for_each_state(values, |_, v| f(v));
                Ok(())
            }
            _ => for_each(values, |_, v| f(v)),
        }
    }
}

impl<T: Total> Accumulator for Running<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        Self::each(&values[0], |value| {
            let times = self.values.entry(value).or_insert(0);
            *times += 1;
            if *times == 1 {
                self.sum = self.sum.plus(value);
            }
        })
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let mut missing = false;
        Self::each(&values[0], |value| match self.values.get_mut(&value) {
            None => missing = true,
            Some(times) => {
                *times -= 1;
                if *times == 0 {
                    self.values.remove(&value);
                    self.sum = self.sum.plus(value.times(-1));
                }
            }
        })?;
        if missing {
            let message = "of a sum of distinct values one leaves that is not there";
            return Err(DataFusionError::Internal(message.into()));
        }
        if self.values.capacity() > SHRINK_MIN && self.values.len() * 4 < self.values.capacity() {
            self.values.shrink_to(self.values.len() * 2);
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = (!self.values.is_empty()).then_some(self.sum);
        ScalarValue::try_from_array(&self.target.finish(std::iter::once(sum))?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<(T, u32)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = self.values.drain().map(|(value, _)| value).collect();
        let target = self.target.clone();
        Distinct { target, values }.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let lists = states[0].as_list::<i32>();
        let mut known = (0..lists.len()).filter(|row| lists.is_valid(*row));
        known.try_for_each(|row| self.update_batch(&[lists.value(row)]))
    }
}
