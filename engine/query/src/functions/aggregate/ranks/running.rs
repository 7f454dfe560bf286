//! The values of a group, kept sorted while they come and go.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::Accumulator;

use super::aggregate::Asks;
use super::list::pairs;
use super::sorted::Sorted;
use super::{Ordered, negative};
use crate::functions::kernel::Result;

/// A value in a form that compares as the values do.
pub(super) trait Key: Ord + Clone + Hash + Debug + Send + Sync + 'static {
    /// What it takes to come to the form and back.
    type Form: Debug + Send + Sync;

    fn form(element: &DataType) -> Result<Self::Form>;
    /// Calls `f` with each known value.
    fn read(form: &Self::Form, values: &ArrayRef, f: impl FnMut(Self)) -> Result<()>;
    fn value(&self, form: &Self::Form) -> Result<ScalarValue>;
    /// Bytes that lie elsewhere.
    fn bytes(&self) -> usize;
}

/// Doubles and integers.
pub(super) type Number = i64;

/// The bits of a double, those of negative ones turned, so that they compare as the doubles do, and the way back.
fn turned(bits: i64) -> i64 {
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

fn double(value: f64) -> Number {
    turned(value.to_bits() as i64)
}

impl Key for Number {
    type Form = DataType;

    fn form(element: &DataType) -> Result<DataType> {
        Ok(element.clone())
    }

    fn read(form: &DataType, values: &ArrayRef, f: impl FnMut(Number)) -> Result<()> {
        if let Some(values) = values.as_primitive_opt::<Float64Type>() {
            values.iter().flatten().map(double).for_each(f);
            return Ok(());
        }
        let values = match form {
            DataType::Int64 => values,
            _ => &cast(values, &DataType::Int64)?,
        };
        values
            .as_primitive::<Int64Type>()
            .iter()
            .flatten()
            .for_each(f);
        Ok(())
    }

    fn value(&self, form: &DataType) -> Result<ScalarValue> {
        match form {
            DataType::Float64 => {
                let value = f64::from_bits(turned(*self) as u64);
                Ok(ScalarValue::Float64(Some(value)))
            }
            _ => ScalarValue::Int64(Some(*self)).cast_to(form),
        }
    }

    fn bytes(&self) -> usize {
        0
    }
}

impl Key for Box<[u8]> {
    type Form = RowConverter;

    fn form(element: &DataType) -> Result<RowConverter> {
        Ok(RowConverter::new(vec![SortField::new(element.clone())])?)
    }

    fn read(form: &RowConverter, values: &ArrayRef, mut f: impl FnMut(Self)) -> Result<()> {
        let rows = form.convert_columns(std::slice::from_ref(values))?;
        let nulls = values.logical_nulls();
        for (row, bytes) in rows.iter().enumerate() {
            if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
                f(bytes.as_ref().into());
            }
        }
        Ok(())
    }

    fn value(&self, form: &RowConverter) -> Result<ScalarValue> {
        let columns = form.convert_rows([form.parser().parse(self)])?;
        ScalarValue::try_from_array(&columns[0], 0)
    }

    fn bytes(&self) -> usize {
        self.len()
    }
}

/// Takes values that may be taken back.
pub(super) fn running(asks: Asks, distinct: bool) -> Result<Box<dyn Accumulator>> {
    let number = asks.weighed || asks.element == DataType::Float64 || asks.element.is_integer();
    Ok(match number {
        true => Box::new(Running::<Number>::new(asks, distinct)?),
        false => Box::new(Running::<Box<[u8]>>::new(asks, distinct)?),
    })
}

#[derive(Debug)]
struct Running<K: Key> {
    asks: Asks,
    values: Present<K>,
    /// If each value counts once: how often each is there, with how often it says that it is.
    distinct: Option<HashMap<(K, usize), usize>>,
    /// How many values say that they are there less often than never, by how often that is.
    negative: BTreeMap<i64, usize>,
}

#[derive(Debug)]
struct Present<K: Key> {
    form: K::Form,
    sorted: Sorted<K>,
    /// Bytes of values that lie elsewhere.
    bytes: usize,
}

impl<K: Key> Running<K> {
    fn new(asks: Asks, distinct: bool) -> Result<Self> {
        let element = match asks.weighed {
            true => &DataType::Float64,
            false => &asks.element,
        };
        Ok(Running {
            values: Present {
                form: K::form(element)?,
                sorted: Sorted::default(),
                bytes: 0,
            },
            distinct: distinct.then(HashMap::new),
            negative: BTreeMap::new(),
            asks,
        })
    }

    /// The known values, and how often each is there.
    fn read(&self, values: &ArrayRef) -> Result<Vec<(K, i64)>> {
        let mut known = Vec::with_capacity(values.len());
        let form = &self.values.form;
        if !self.asks.weighed {
            K::read(form, values, |value| known.push((value, 1)))?;
            return Ok(known);
        }
        let (values, times): (Vec<f64>, Vec<i64>) = pairs(values).unzip();
        let values: ArrayRef = Arc::new(Float64Array::from(values));
        let mut times = times.into_iter();
        K::read(form, &values, |value| {
            known.extend(times.next().map(|times| (value, times)));
        })?;
        Ok(known)
    }

    /// True if it is the first of a value that counts once.
    fn is_first(&mut self, value: &K, times: usize) -> bool {
        let Some(distinct) = &mut self.distinct else {
            return true;
        };
        let there = distinct.entry((value.clone(), times)).or_insert(0);
        *there += 1;
        *there == 1
    }

    /// True if it was the last of a value that counts once.
    fn was_last(&mut self, value: &K, times: usize) -> Result<bool> {
        let Some(distinct) = &mut self.distinct else {
            return Ok(true);
        };
        let key = (value.clone(), times);
        let there = distinct.get_mut(&key).ok_or_else(not_there)?;
        *there -= 1;
        let last = *there == 0;
        if last {
            distinct.remove(&key);
        }
        Ok(last)
    }
}

fn not_there() -> DataFusionError {
    DataFusionError::Internal("a value leaves that is not there".into())
}

impl<K: Key> Accumulator for Running<K> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for (value, times) in self.read(&values[0])? {
            match usize::try_from(times) {
                Err(_) => *self.negative.entry(times).or_insert(0) += 1,
                Ok(0) => {}
                Ok(times) => {
                    if self.is_first(&value, times) {
                        self.values.insert(value, times);
                    }
                }
            }
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for (value, times) in self.read(&values[0])? {
            match usize::try_from(times) {
                Err(_) => {
                    let there = self.negative.get_mut(&times).ok_or_else(not_there)?;
                    *there -= 1;
                    if *there == 0 {
                        self.negative.remove(&times);
                    }
                }
                Ok(0) => {}
                Ok(times) => {
                    if self.was_last(&value, times)? {
                        self.values.remove(&value, times)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if let Some((least, _)) = self.negative.first_key_value() {
            return Err(negative(*least));
        }
        self.asks.answers(&mut self.values)
    }

    fn size(&self) -> usize {
        let values = self.values.sorted.bytes() + self.values.bytes;
        let distinct = self.distinct.as_ref().map_or(0, |distinct| {
            distinct.capacity() * size_of::<((K, usize), usize)>() + self.values.bytes
        });
        size_of_val(self) + values + distinct
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Err(DataFusionError::NotImplemented(
            "a state of values that come and go".into(),
        ))
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        Err(DataFusionError::NotImplemented(
            "to merge values that come and go".into(),
        ))
    }
}

impl<K: Key> Present<K> {
    fn insert(&mut self, value: K, times: usize) {
        let bytes = value.bytes();
        if self.sorted.insert(value, times) == times {
            self.bytes += bytes;
        }
    }

    fn remove(&mut self, value: &K, times: usize) -> Result<()> {
        let left = self.sorted.remove(value, times).ok_or_else(not_there)?;
        if left == 0 {
            self.bytes -= value.bytes();
        }
        Ok(())
    }
}

impl<K: Key> Ordered for Present<K> {
    fn count(&self) -> usize {
        self.sorted.len()
    }

    fn value(&self, place: usize) -> Result<ScalarValue> {
        let value = self.sorted.nth(place).ok_or_else(not_there)?;
        value.value(&self.form)
    }

    fn mode(&mut self, greatest: bool) -> Result<ScalarValue> {
        let value = self.sorted.mode(greatest).ok_or_else(not_there)?;
        value.value(&self.form)
    }
}
