//! Sums of integers and decimals, exact until the end.
//!
//! Only the final sum is checked against the result type: whether rows that cancel out overflow on the way would
//! depend on their order, hence on the number of workers. A try is another matter: there the sum becomes NULL on the way
//! and stays it, so such a call takes its rows in order.

use std::hash::{Hash, Hasher};
use std::mem::size_of_val;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Decimal128Type, Decimal256Type, Field, FieldRef, Int8Type, Int16Type, Int32Type,
    Int64Type, i256,
};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use super::distinct::{Distinct, Running};
use crate::error::RunError;
use crate::functions::kernel::Result;

/// The sum over `input`, NULL instead of an error on overflow for a try.
pub(super) fn checked_sum(input: &DataType, attempt: bool) -> AggregateUDF {
    AggregateUDF::new_from_impl(CheckedSum::over(input, attempt))
}

#[derive(Debug)]
pub(super) struct CheckedSum {
    input: DataType,
    pub(super) returns: DataType,
    attempt: bool,
    signature: Signature,
}

impl PartialEq for CheckedSum {
    fn eq(&self, other: &Self) -> bool {
        self.input == other.input && self.attempt == other.attempt
    }
}

impl Eq for CheckedSum {}

impl Hash for CheckedSum {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.input, self.attempt).hash(state);
    }
}

impl CheckedSum {
    /// For values of this type.
    pub(super) fn over(input: &DataType, attempt: bool) -> Self {
        let returns = match input {
            DataType::Decimal128(p, s) => super::adjusted_sum(*p, *s),
            _ => DataType::Int64,
        };
        CheckedSum {
            input: input.clone(),
            returns,
            attempt,
            signature: Signature::any(1, Volatility::Immutable),
        }
    }

    /// The type in which sums travel: wide enough that they cannot overflow.
    pub(super) fn state(&self) -> DataType {
        match self.returns {
            DataType::Int64 => DataType::Decimal128(38, 0),
            _ => DataType::Decimal256(76, 0),
        }
    }
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        if self.attempt { "try_sum" } else { "sum" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(match (self.returns == DataType::Int64, args.is_distinct) {
            (true, false) => Box::new(One::<i128>::new(self)),
            (false, false) => Box::new(One::<i256>::new(self)),
            (true, true) => Box::new(Distinct::<i128>::new(self)),
            (false, true) => Box::new(Distinct::<i256>::new(self)),
        })
    }

    /// Of distinct values: takes what a state lists, and has it taken back.
    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(match (self.returns == DataType::Int64, args.is_distinct) {
            (true, true) => Box::new(Running::<i128>::new(self)),
            (false, true) => Box::new(Running::<i256>::new(self)),
            _ => self.accumulator(args)?,
        })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let state = match args.is_distinct {
            false => self.state(),
            true => DataType::List(Arc::new(Field::new_list_field(self.state(), true))),
        };
        Ok(vec![Arc::new(Field::new(
            format!("{}[sum]", args.name),
            state,
            true,
        ))])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(match self.returns {
            DataType::Int64 => Box::new(Groups::<i128>::new(self)),
            _ => Box::new(Groups::<i256>::new(self)),
        })
    }
}

/// A sum in the making.
pub(super) trait Total:
    Copy + Default + Send + Sync + Eq + Hash + std::fmt::Debug + 'static
{
    type State: ArrowPrimitiveType<Native = Self>;
    fn of(value: i128) -> Self;
    fn plus(self, other: Self) -> Self;
    fn times(self, weight: i64) -> Self;
    fn narrow(self) -> Option<i128>;
}

impl Total for i128 {
    type State = Decimal128Type;
    fn of(value: i128) -> Self {
        value
    }
    fn plus(self, other: Self) -> Self {
        self + other // 2^63 rows of 64 bits fit
    }
    fn times(self, weight: i64) -> Self {
        self * i128::from(weight)
    }
    fn narrow(self) -> Option<i128> {
        Some(self)
    }
}

impl Total for i256 {
    type State = Decimal256Type;
    fn of(value: i128) -> Self {
        i256::from_i128(value)
    }
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other) // 2^128 rows fit
    }
    fn times(self, weight: i64) -> Self {
        self.wrapping_mul(i256::from_i128(i128::from(weight)))
    }
    fn narrow(self) -> Option<i128> {
        self.to_i128()
    }
}

/// What every kind of accumulator knows.
#[derive(Debug, Clone)]
pub(super) struct Target {
    returns: DataType,
    pub(super) state: DataType,
    attempt: bool,
}

impl Target {
    pub(super) fn of(sum: &CheckedSum) -> Self {
        Target {
            returns: sum.returns.clone(),
            state: sum.state(),
            attempt: sum.attempt,
        }
    }

    /// What the result type holds.
    fn range(&self) -> Range<i128> {
        match self.returns {
            DataType::Decimal128(p, _) => {
                let limit = 10i128.pow(u32::from(p));
                1 - limit..limit
            }
            _ => i128::from(i64::MIN)..i128::from(i64::MAX) + 1,
        }
    }

    /// Adds a value, or another sum. In a try one that has left the range stays as it is, which says that it did.
    fn add<T: Total>(&self, sum: &mut Option<T>, value: T) {
        let left = |sum: T| {
            let narrow = sum.narrow();
            self.attempt && narrow.is_none_or(|narrow| !self.range().contains(&narrow))
        };
        *sum = Some(match *sum {
            Some(sum) if left(sum) => sum,
            Some(_) if left(value) => value,
            Some(sum) => sum.plus(value),
            None => value,
        });
    }

    /// The sums as the result type, checked.
    pub(super) fn finish<T: Total>(
        &self,
        sums: impl Iterator<Item = Option<T>>,
    ) -> Result<ArrayRef> {
        let range = self.range();
        let checked = sums.map(|sum| match sum {
            None => Ok(None),
            Some(sum) => match sum.narrow().filter(|v| range.contains(v)) {
                Some(value) => Ok(Some(value)),
                None if self.attempt => Ok(None),
                None => Err(RunError::raise(
                    "ARITHMETIC_OVERFLOW",
                    match self.returns {
                        DataType::Int64 => {
                            "long overflow. Use 'try_sum' to tolerate overflow and return NULL instead."
                        }
                        _ => {
                            "Overflow in sum of decimals. Use 'try_sum' to tolerate overflow and return NULL instead."
                        }
                    },
                )),
            },
        });
        Ok(match &self.returns {
            DataType::Int64 => Arc::new(
                checked
                    .map(|v| Ok(v?.map(|v| v as i64)))
                    .collect::<Result<PrimitiveArray<Int64Type>>>()?,
            ),
            decimal => {
                let values = checked.collect::<Result<PrimitiveArray<Decimal128Type>>>()?;
                Arc::new(values.with_data_type(decimal.clone()))
            }
        })
    }

    pub(super) fn states<T: Total>(&self, sums: impl Iterator<Item = Option<T>>) -> ArrayRef {
        Arc::new(
            sums.collect::<PrimitiveArray<T::State>>()
                .with_data_type(self.state.clone()),
        )
    }
}

/// Calls `f` with the place and value of each row that is known.
pub(super) fn for_each<T: Total>(array: &ArrayRef, mut f: impl FnMut(usize, T)) -> Result<()> {
    fn each<A: ArrowPrimitiveType>(array: &ArrayRef, mut f: impl FnMut(usize, A::Native)) {
        let array = array.as_primitive::<A>();
        match array.nulls() {
            None => array
                .values()
                .iter()
                .enumerate()
                .for_each(|(i, v)| f(i, *v)),
            Some(nulls) => nulls.valid_indices().for_each(|i| f(i, array.value(i))),
        }
    }
    match array.data_type() {
        DataType::Int8 => each::<Int8Type>(array, |i, v| f(i, T::of(i128::from(v)))),
        DataType::Int16 => each::<Int16Type>(array, |i, v| f(i, T::of(i128::from(v)))),
        DataType::Int32 => each::<Int32Type>(array, |i, v| f(i, T::of(i128::from(v)))),
        DataType::Int64 => each::<Int64Type>(array, |i, v| f(i, T::of(i128::from(v)))),
        DataType::Decimal128(..) => each::<Decimal128Type>(array, |i, v| f(i, T::of(v))),
        other => {
            return Err(DataFusionError::Internal(format!(
                "no exact sum of {other}"
            )));
        }
    }
    Ok(())
}

pub(super) fn for_each_state<T: Total>(array: &ArrayRef, mut f: impl FnMut(usize, T)) {
    let states = array.as_primitive::<T::State>();
    (0..states.len())
        .filter(|i| states.is_valid(*i))
        .for_each(|i| f(i, states.value(i)));
}

/// One group.
#[derive(Debug)]
struct One<T> {
    target: Target,
    sum: Option<T>,
}

impl<T> One<T> {
    fn new(sum: &CheckedSum) -> Self {
        One {
            target: Target::of(sum),
            sum: None,
        }
    }
}

impl<T: Total> Accumulator for One<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for_each(&values[0], |_, v| self.target.add(&mut self.sum, v))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.target.finish(std::iter::once(self.sum))?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::try_from_array(
            &self.target.states(std::iter::once(self.sum)),
            0,
        )?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for_each_state(&states[0], |_, v| self.target.add(&mut self.sum, v));
        Ok(())
    }
}

/// Many groups.
struct Groups<T> {
    target: Target,
    sums: Vec<Option<T>>,
}

impl<T> Groups<T> {
    fn new(sum: &CheckedSum) -> Self {
        Groups {
            target: Target::of(sum),
            sums: vec![],
        }
    }
}

impl<T: Total> GroupsAccumulator for Groups<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        self.sums.resize(count, None);
        let (target, sums) = (&self.target, &mut self.sums);
        match filter {
            None => for_each(&values[0], |i, v| target.add(&mut sums[groups[i]], v)),
            Some(filter) => for_each(&values[0], |i, v| {
                if filter.is_valid(i) && filter.value(i) {
                    target.add(&mut sums[groups[i]], v);
                }
            }),
        }
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.target
            .finish(emit_to.take_needed(&mut self.sums).into_iter())
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![
            self.target
                .states(emit_to.take_needed(&mut self.sums).into_iter()),
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], count: usize) -> Result<()> {
        self.sums.resize(count, None);
        let (target, sums) = (&self.target, &mut self.sums);
        for_each_state(&states[0], |i, v| target.add(&mut sums[groups[i]], v));
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let mut sums: Vec<Option<T>> = vec![None; values[0].len()];
        for_each(&values[0], |i, v| {
            if filter.is_none_or(|f| f.is_valid(i) && f.value(i)) {
                sums[i] = Some(v);
            }
        })?;
        Ok(vec![self.target.states(sums.into_iter())])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<Option<T>>()
    }
}
