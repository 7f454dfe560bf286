//! The accumulators of statistics: of each group the count and the exact sums.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, Float64Array, Int64Array,
};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

use super::accumulate;
use super::moments::{Group, Moment};
use super::one::{Grouped, One, states_of_rows};
use super::wide::Wide;

/// The type of saved distinct values.
pub(super) fn list_type() -> DataType {
    accumulate::list_type()
}

/// Many groups.
pub(super) struct Gathered {
    moment: Moment,
    counts: Vec<i64>,
    /// Which values that are no numbers were there.
    special: Vec<i64>,
    /// So many for each group.
    sums: Vec<Wide>,
}

impl Grouped for Gathered {
    type What = Moment;

    fn of(moment: Moment) -> Self {
        Gathered {
            moment,
            counts: Vec::new(),
            special: Vec::new(),
            sums: Vec::new(),
        }
    }

    fn what(&self) -> Moment {
        self.moment
    }

    fn resize(&mut self, groups: usize) {
        self.counts.resize(groups, 0);
        self.special.resize(groups, 0);
        let sums = groups * self.moment.sums();
        self.sums.resize_with(sums, Wide::default);
    }

    fn add(&mut self, values: &[ArrayRef], group: impl Fn(usize) -> Option<usize>) -> Result<()> {
        let (moment, width) = (self.moment, self.moment.sums());
        let first = values[0].as_primitive::<Float64Type>();
        let second = values
            .get(1)
            .map(|second| second.as_primitive::<Float64Type>());
        for row in 0..first.len() {
            let known = first.is_valid(row) && second.is_none_or(|second| second.is_valid(row));
            let Some(group) = group(row).filter(|_| known) else {
                continue;
            };
            let sums = &mut self.sums[group * width..(group + 1) * width];
            self.special[group] |= match second {
                None => moment.add_one(sums, first.value(row)),
                Some(second) => moment.add_two(sums, first.value(row), second.value(row)),
            };
            self.counts[group] += 1;
        }
        Ok(())
    }

    fn first(&self) -> Result<ScalarValue> {
        let group = Group::of(self.counts[0], self.special[0], self.sums_of(0));
        let answers = self.moment.answers(std::iter::once(group));
        ScalarValue::try_from_array(&answers, 0)
    }
}

impl Gathered {
    fn emitted(&self, emit: EmitTo) -> usize {
        match emit {
            EmitTo::All => self.counts.len(),
            EmitTo::First(n) => n,
        }
    }

    fn drop_first(&mut self, groups: usize) {
        self.counts.drain(..groups);
        self.special.drain(..groups);
        self.sums.drain(..groups * self.moment.sums());
    }

    fn sums_of(&self, group: usize) -> &[Wide] {
        let width = self.moment.sums();
        &self.sums[group * width..(group + 1) * width]
    }
}

impl GroupsAccumulator for Gathered {
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
        let groups = (0..emitted)
            .map(|group| Group::of(self.counts[group], self.special[group], self.sums_of(group)));
        let answers = self.moment.answers(groups);
        self.drop_first(emitted);
        Ok(answers)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let emitted = self.emitted(emit);
        let mut saved = BinaryBuilder::with_capacity(emitted, emitted * 32);
        let mut bytes = Vec::new();
        for group in 0..emitted {
            bytes.clear();
            if self.counts[group] > 0 {
                self.sums_of(group)
                    .iter()
                    .for_each(|sum| sum.save(&mut bytes));
            }
            saved.append_value(&bytes);
        }
        let counts = Int64Array::from(self.counts[..emitted].to_vec());
        let special = Int64Array::from(self.special[..emitted].to_vec());
        self.drop_first(emitted);
        Ok(vec![
            Arc::new(counts),
            Arc::new(special),
            Arc::new(saved.finish()),
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.resize(total);
        let (counts, special) = (
            states[0].as_primitive::<Int64Type>(),
            states[1].as_primitive::<Int64Type>(),
        );
        let saved = states[2].as_binary::<i32>();
        let width = self.moment.sums();
        for (row, &group) in groups.iter().enumerate() {
            if counts.is_null(row) || counts.value(row) == 0 {
                continue;
            }
            self.counts[group] += counts.value(row);
            self.special[group] |= special.value(row);
            let mut rest = saved.value(row);
            for sum in &mut self.sums[group * width..(group + 1) * width] {
                match sum.merge_saved(rest) {
                    Some(behind) => rest = behind,
                    None => return exec_err!("the saved sums of {:?} are cut off", self.moment),
                }
            }
        }
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        states_of_rows::<Self>(self.moment, values, filter)
    }

    fn size(&self) -> usize {
        let limbs: usize = self.sums.iter().map(Wide::size).sum();
        (self.counts.capacity() + self.special.capacity()) * size_of::<i64>()
            + self.sums.capacity() * size_of::<Wide>()
            + limbs
    }
}

/// One group, each value or pair of values once, by their bits.
#[derive(Debug)]
pub(super) struct GatheredDistinct {
    moment: Moment,
    values: BTreeSet<[u64; 2]>,
}

impl GatheredDistinct {
    pub(super) fn new(moment: Moment) -> Self {
        GatheredDistinct {
            moment,
            values: BTreeSet::new(),
        }
    }

    /// The values, in one column for each argument.
    fn columns(&self) -> Vec<ArrayRef> {
        let column = |nth: usize| -> ArrayRef {
            let values = self.values.iter().map(|row| f64::from_bits(row[nth]));
            Arc::new(Float64Array::from_iter_values(values))
        };
        (0..self.moment.values()).map(column).collect()
    }
}

impl Accumulator for GatheredDistinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let columns: Vec<&Float64Array> = values.iter().map(|one| one.as_primitive()).collect();
        for row in 0..values[0].len() {
            if columns.iter().all(|column| column.is_valid(row)) {
                let mut known = [0; 2];
                for (bits, column) in known.iter_mut().zip(&columns) {
                    *bits = accumulate::one_bits(column.value(row));
                }
                self.values.insert(known);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut one = One::<Gathered>::new(self.moment);
        one.update_batch(&self.columns())?;
        one.evaluate()
    }

    /// The values of a row behind each other.
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let width = self.moment.values();
        let rows = self.values.iter().flat_map(|row| &row[..width]);
        let values: Vec<f64> = rows.map(|bits| f64::from_bits(*bits)).collect();
        let length = values.len();
        let list = accumulate::lists(values, vec![length], vec![true])?;
        Ok(vec![ScalarValue::List(Arc::new(list))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for list in states[0].as_list::<i32>().iter().flatten() {
            let list = list.as_primitive::<Float64Type>();
            for row in list.values().chunks_exact(self.moment.values()) {
                let mut known = [0; 2];
                for (bits, value) in known.iter_mut().zip(row) {
                    *bits = accumulate::one_bits(*value);
                }
                self.values.insert(known);
            }
        }
        Ok(())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.len() * 32
    }
}
