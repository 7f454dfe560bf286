//! The accumulators of exact sums.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use hashbrown::HashTable;

use super::Answer;
use super::expansion::{HUGE, Sums};
use super::one::{Grouped, states_of_rows};
use crate::keys::hash_bytes;

/// Tables with less room than this are not worth making smaller.
const SHRINK_MIN: usize = 64;

fn element() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Float64, true))
}

/// The type of a saved sum.
pub(super) fn list_type() -> DataType {
    DataType::List(element())
}

pub(super) fn lists(values: Vec<f64>, lengths: Vec<usize>, valid: Vec<bool>) -> Result<ListArray> {
    Ok(ListArray::try_new(
        element(),
        OffsetBuffer::from_lengths(lengths),
        Arc::new(Float64Array::from(values)),
        Some(NullBuffer::from(valid)),
    )?)
}

fn doubles(values: &ArrayRef) -> Result<ArrayRef> {
    Ok(match values.data_type() {
        DataType::Float64 => Arc::clone(values),
        _ => cast(values, &DataType::Float64)?,
    })
}

/// One exact sum per group, and how many values went into it.
pub(super) struct ExactGroups {
    answer: Answer,
    sums: Sums,
    counts: Vec<i64>,
}

impl Grouped for ExactGroups {
    type What = Answer;

    fn of(answer: Answer) -> Self {
        ExactGroups {
            answer,
            sums: Sums::default(),
            counts: Vec::new(),
        }
    }

    fn what(&self) -> Answer {
        self.answer
    }

    fn resize(&mut self, groups: usize) {
        self.sums.resize(groups);
        self.counts.resize(groups, 0);
    }

    fn add(&mut self, values: &[ArrayRef], group: impl Fn(usize) -> Option<usize>) -> Result<()> {
        let values = doubles(&values[0])?;
        let values = values.as_primitive::<Float64Type>();
        for (row, &x) in values.values().iter().enumerate() {
            if let Some(group) = group(row).filter(|_| values.is_valid(row)) {
                self.sums.add(group, x);
                self.counts[group] += 1;
            }
        }
        Ok(())
    }

    fn first(&self) -> Result<ScalarValue> {
        let answer = self.answer.of(&self.sums, 0, self.counts[0]);
        Ok(ScalarValue::Float64(answer))
    }
}

impl ExactGroups {
    fn emitted(&self, emit: EmitTo) -> usize {
        match emit {
            EmitTo::All => self.counts.len(),
            EmitTo::First(n) => n,
        }
    }

    fn drop_first(&mut self, groups: usize) {
        self.sums.drop_first(groups);
        self.counts.drain(..groups);
    }
}

impl GroupsAccumulator for ExactGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.resize(total);
        match filter {
            None => self.add(values, |row| Some(groups[row])),
            Some(filter) => self.add(values, |row| {
                (filter.is_valid(row) && filter.value(row)).then(|| groups[row])
            }),
        }
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let emitted = self.emitted(emit);
        let answers =
            (0..emitted).map(|group| self.answer.of(&self.sums, group, self.counts[group]));
        let answers: Float64Array = answers.collect();
        self.drop_first(emitted);
        Ok(Arc::new(answers))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let emitted = self.emitted(emit);
        let mut values = Vec::with_capacity(emitted);
        let mut lengths = Vec::with_capacity(emitted);
        for group in 0..emitted {
            let before = values.len();
            self.sums.save(group, &mut values);
            lengths.push(values.len() - before);
        }
        let counts = self.counts[..emitted].to_vec();
        let valid = counts.iter().map(|count| *count > 0).collect();
        let mut state: Vec<ArrayRef> = vec![Arc::new(lists(values, lengths, valid)?)];
        if self.answer == Answer::Average {
            state.push(Arc::new(Int64Array::from(counts)));
        }
        self.drop_first(emitted);
        Ok(state)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.resize(total);
        let saved = states[0].as_list::<i32>();
        let parts = saved.values().as_primitive::<Float64Type>().values();
        let offsets = saved.value_offsets();
        for (row, &group) in groups.iter().enumerate() {
            if saved.is_valid(row) {
                let list = &parts[offsets[row] as usize..offsets[row + 1] as usize];
                self.sums.merge(group, list);
                self.counts[group] += match self.answer {
                    // A sum only needs to know whether there were values.
                    Answer::Sum => 1,
                    Answer::Average => states[1].as_primitive::<Int64Type>().value(row),
                };
            }
        }
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        states_of_rows::<Self>(self.answer, values, filter)
    }

    fn size(&self) -> usize {
        self.sums.size() + self.counts.len() * 8
    }
}

impl Answer {
    /// What is made of the sum of so many values.
    fn of(self, sums: &Sums, group: usize, values: i64) -> Option<f64> {
        (values > 0).then(|| match self {
            Answer::Sum => sums.round(group),
            Answer::Average => sums.round(group) / values as f64,
        })
    }
}

/// The bits of a value: one NaN, one zero.
pub(super) fn one_bits(x: f64) -> u64 {
    let one = if x.is_nan() { f64::NAN } else { x + 0.0 };
    one.to_bits()
}

/// The bits of the known values.
fn bits(values: &ArrayRef) -> impl Iterator<Item = u64> {
    let values = values.as_primitive::<Float64Type>().iter().flatten();
    values.map(one_bits)
}

/// The distinct values, by their bits; a sum of those is made at the end.
#[derive(Debug)]
pub(super) struct Distinct {
    answer: Answer,
    values: BTreeSet<u64>,
}

impl Distinct {
    pub(super) fn new(answer: Answer) -> Self {
        Distinct {
            answer,
            values: BTreeSet::new(),
        }
    }
}

impl Accumulator for Distinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.extend(bits(&doubles(&values[0])?));
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut sums = Sums::default();
        sums.resize(1);
        for bits in &self.values {
            sums.add(0, f64::from_bits(*bits));
        }
        let answer = self.answer.of(&sums, 0, self.values.len() as i64);
        Ok(ScalarValue::Float64(answer))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: Vec<f64> = self
            .values
            .iter()
            .map(|bits| f64::from_bits(*bits))
            .collect();
        let length = values.len();
        let list = lists(values, vec![length], vec![true])?;
        Ok(vec![ScalarValue::List(Arc::new(list))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for list in states[0].as_list::<i32>().iter().flatten() {
            self.update_batch(&[list])?;
        }
        Ok(())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.len() * 16
    }
}

/// The distinct values and how often each is there, and their sum. What comes and goes leaves no trace in an exact sum.
#[derive(Debug)]
pub(super) struct Running {
    answer: Answer,
    values: HashTable<(u64, u32)>,
    sum: Sums,
    /// How many values are no part of the sum, because it could not lose them again.
    apart: usize,
}

impl Running {
    pub(super) fn new(answer: Answer) -> Self {
        let mut sum = Sums::default();
        sum.resize(1);
        Running {
            answer,
            values: HashTable::new(),
            sum,
            apart: 0,
        }
    }
}

fn hash(bits: u64) -> u64 {
    hash_bytes(0, &bits.to_le_bytes())
}

/// True of what is not added as it is: infinities, NaNs, and what is so huge that it may become one.
fn stays_apart(x: f64) -> bool {
    !x.is_finite() || x.abs() >= HUGE
}

impl Accumulator for Running {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for bits in bits(&doubles(&values[0])?) {
            let found = self
                .values
                .find_mut(hash(bits), |(other, _)| *other == bits);
            if let Some((_, times)) = found {
                *times += 1;
                continue;
            }
            let entry = (bits, 1);
            self.values
                .insert_unique(hash(bits), entry, |(bits, _)| hash(*bits));
            match f64::from_bits(bits) {
                x if stays_apart(x) => self.apart += 1,
                x => self.sum.add(0, x),
            }
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for bits in bits(&doubles(&values[0])?) {
            let found = self
                .values
                .find_entry(hash(bits), |(other, _)| *other == bits);
            let Ok(mut found) = found else {
                return exec_err!("of a sum of distinct values one leaves that is not there");
            };
            found.get_mut().1 -= 1;
            if found.get().1 > 0 {
                continue;
            }
            found.remove();
            match f64::from_bits(bits) {
                x if stays_apart(x) => self.apart -= 1,
                x => self.sum.add(0, -x),
            }
        }
        let (values, room) = (self.values.len(), self.values.capacity());
        if room > SHRINK_MIN && values * 4 < room {
            self.values.shrink_to(values * 2, |(bits, _)| hash(*bits));
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.apart > 0 {
            let values = self.values.iter().map(|(bits, _)| *bits).collect();
            let answer = self.answer;
            return Distinct { answer, values }.evaluate();
        }
        let answer = self.answer.of(&self.sum, 0, self.values.len() as i64);
        Ok(ScalarValue::Float64(answer))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = self.values.iter().map(|(bits, _)| *bits).collect();
        let answer = self.answer;
        Distinct { answer, values }.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for list in states[0].as_list::<i32>().iter().flatten() {
            self.update_batch(&[list])?;
        }
        Ok(())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.allocation_size() + self.sum.size()
    }
}
