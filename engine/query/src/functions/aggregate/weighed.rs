//! Sums over rows that come and leave: each value counts as often as its row, which may be less than never.

use std::hash::{Hash, Hasher};
use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, i256};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use super::sum::{CheckedSum, Target, Total, for_each, for_each_state};
use crate::functions::kernel::Result;

/// `weighed_sum(value, weight)` for integers and decimals: the sum of the values, each as often as its weight (a BIGINT)
/// says. NULL when no known value is left. `None` for values of other types.
pub fn weighed_sum(input: &DataType) -> Option<Arc<AggregateUDF>> {
    let sums = matches!(
        input,
        DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Decimal128(..)
    );
    sums.then(|| {
        Arc::new(AggregateUDF::new_from_impl(WeighedSum {
            sum: CheckedSum::over(input, false),
            signature: Signature::any(2, Volatility::Immutable),
        }))
    })
}

#[derive(Debug)]
struct WeighedSum {
    sum: CheckedSum,
    signature: Signature,
}

impl PartialEq for WeighedSum {
    fn eq(&self, other: &Self) -> bool {
        self.sum == other.sum
    }
}

impl Eq for WeighedSum {}

impl Hash for WeighedSum {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.sum.hash(state);
    }
}

impl AggregateUDFImpl for WeighedSum {
    fn name(&self) -> &str {
        "weighed_sum"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.sum.returns.clone())
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(match self.sum.returns {
            DataType::Int64 => Box::new(Weighed::<i128>::new(&self.sum)),
            _ => Box::new(Weighed::<i256>::new(&self.sum)),
        })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |name: &str, data_type: DataType| -> FieldRef {
            Arc::new(Field::new(
                format!("{}[{name}]", args.name),
                data_type,
                true,
            ))
        };
        Ok(vec![
            field("sum", self.sum.state()),
            field("rows", DataType::Int64),
        ])
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(match self.sum.returns {
            DataType::Int64 => Box::new(Weighed::<i128>::new(&self.sum)),
            _ => Box::new(Weighed::<i256>::new(&self.sum)),
        })
    }
}

/// Of each group the sum, and how many known values are in it.
#[derive(Debug)]
struct Weighed<T> {
    target: Target,
    sums: Vec<(T, i64)>,
}

impl<T: Total> Weighed<T> {
    fn new(sum: &CheckedSum) -> Self {
        Weighed {
            target: Target::of(sum),
            sums: Vec::new(),
        }
    }

    fn add(
        &mut self,
        values: &[ArrayRef],
        mut group: impl FnMut(usize) -> Option<usize>,
    ) -> Result<()> {
        let weights = values[1].as_primitive::<Int64Type>().values();
        for_each(&values[0], |row, value: T| {
            if let Some(group) = group(row) {
                let (sum, rows) = &mut self.sums[group];
                *sum = sum.plus(value.times(weights[row]));
                *rows += weights[row];
            }
        })
    }

    fn merge(&mut self, states: &[ArrayRef], group: impl Fn(usize) -> usize) {
        let counts = states[1].as_primitive::<Int64Type>();
        for_each_state(&states[0], |row, value: T| {
            let (sum, rows) = &mut self.sums[group(row)];
            *sum = sum.plus(value);
            *rows += counts.value(row);
        });
    }

    fn columns(&self, sums: &[(T, i64)]) -> Vec<ArrayRef> {
        let counts = Int64Array::from_iter_values(sums.iter().map(|(_, rows)| *rows));
        let sums = self.target.states(sums.iter().map(|(sum, _)| Some(*sum)));
        vec![sums, Arc::new(counts)]
    }

    fn answers(&self, sums: &[(T, i64)]) -> Result<ArrayRef> {
        let known = sums.iter().map(|(sum, rows)| (*rows != 0).then_some(*sum));
        self.target.finish(known)
    }
}

impl<T: Total> Accumulator for Weighed<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.sums.resize(1, Default::default());
        self.add(values, |_| Some(0))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.sums.resize(1, Default::default());
        ScalarValue::try_from_array(&self.answers(&self.sums)?, 0)
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<(T, i64)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.sums.resize(1, Default::default());
        let columns = self.columns(&self.sums);
        columns
            .iter()
            .map(|column| ScalarValue::try_from_array(column, 0))
            .collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.sums.resize(1, Default::default());
        self.merge(states, |_| 0);
        Ok(())
    }
}

impl<T: Total> GroupsAccumulator for Weighed<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        self.sums.resize(count, Default::default());
        self.add(values, |row| {
            let passes = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            passes.then_some(groups[row])
        })
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sums = emit_to.take_needed(&mut self.sums);
        self.answers(&sums)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let sums = emit_to.take_needed(&mut self.sums);
        Ok(self.columns(&sums))
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], count: usize) -> Result<()> {
        self.sums.resize(count, Default::default());
        self.merge(states, |row| groups[row]);
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let rows = values[0].len();
        let mut each = Weighed::<T> {
            target: self.target.clone(),
            sums: Vec::new(),
        };
        let groups: Vec<usize> = (0..rows).collect();
        GroupsAccumulator::update_batch(&mut each, values, &groups, filter, rows)?;
        Ok(each.columns(&each.sums))
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<(T, i64)>()
    }
}
