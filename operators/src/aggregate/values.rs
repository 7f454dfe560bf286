//! The values that are in the panes of a window, group by group, while panes enter it and leave it.
//!
//! A value counts as often as there are panes that have it: it is there from the first of them to the last. So what a
//! pane costs does not depend on how many panes a window has, and what is there is a function of these panes, whenever
//! and in whatever order they came.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, Int64Array, ListArray, make_array, new_null_array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::compute::interleave;
use arrow::datatypes::{ArrowNativeType, DataType, FieldRef};
use datafusion::logical_expr::Accumulator;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::scalar::ScalarValue;
use hashbrown::HashTable;

use crate::OperatorError;
use crate::keys::{Codec, Encoded, hash_bytes};

/// What is kept of one call, in a slot for each group.
pub(super) trait Kept {
    /// The lists of values enter these slots, or leave them.
    fn change(
        &mut self,
        slots: &[u32],
        lists: &ListArray,
        enter: bool,
    ) -> Result<(), OperatorError>;

    /// What is answered of these slots, of which there are some.
    fn answers(&mut self, slots: &[u32]) -> Result<ArrayRef, OperatorError>;

    /// Makes sure that there are so many slots.
    fn grow(&mut self, slots: usize);

    /// Empties a slot.
    fn clear(&mut self, slot: u32);

    /// About how many bytes it takes.
    fn bytes(&self) -> usize;
}

/// What is asked of distinct values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// How many they are; nulls do not count.
    Count,
    /// Which, in no order; null if there are none.
    List,
}

/// Keeps lists with these elements.
pub(super) fn distinct(ask: Ask, element: &FieldRef) -> Result<Box<dyn Kept>, OperatorError> {
    let data_type = element.data_type();
    Ok(match data_type.primitive_width() {
        Some(1 | 2 | 4 | 8) => Box::new(Distinct::<u64>::new(ask, element)),
        Some(16) => Box::new(Distinct::<u128>::new(ask, element)),
        _ => Box::new(Distinct::<Box<[u8]>>::new(ask, element)),
    })
}

/// Keeps an accumulator for each group, whose values can be taken back.
pub(super) fn sliding(function: &Arc<AggregateFunctionExpr>) -> Box<dyn Kept> {
    Box::new(Sliding {
        function: Arc::clone(function),
        slots: Vec::new(),
    })
}

/// A value in the form that it is kept in.
trait Value: Sized {
    /// Many values at once.
    type Values;

    fn read(values: &ArrayRef, ask: Ask) -> Result<Self::Values, OperatorError>;
    fn hash_at(values: &Self::Values, row: usize) -> u64;
    fn is_at(&self, values: &Self::Values, row: usize) -> bool;
    fn at(values: &Self::Values, row: usize) -> Self;
    fn hash(&self) -> u64;
    /// Bytes that lie elsewhere.
    fn bytes(&self) -> usize;
    fn write<'v>(
        values: impl Iterator<Item = &'v Self>,
        data_type: &DataType,
    ) -> Result<ArrayRef, OperatorError>
    where
        Self: 'v;
}

fn hash_word(word: u64) -> u64 {
    let wide = u128::from(word ^ 0xd1b5_4a32_d192_ed03) * 0x9e37_79b9_7f4a_7c15;
    (wide as u64) ^ ((wide >> 64) as u64)
}

fn words<N: ArrowNativeType, W>(values: &ArrayRef, word: impl Fn(N) -> W) -> Vec<W> {
    let data = values.to_data();
    let words = data.buffer::<N>(0)[..values.len()].iter();
    words.map(|value| word(*value)).collect()
}

/// An array of these bytes, those of one value after those of another.
fn primitive(
    bytes: Vec<u8>,
    count: usize,
    data_type: &DataType,
) -> Result<ArrayRef, OperatorError> {
    let data = ArrayData::builder(data_type.clone())
        .len(count)
        .add_buffer(Buffer::from_vec(bytes))
        .align_buffers(true);
    Ok(make_array(data.build()?))
}

impl Value for u64 {
    type Values = Vec<u64>;

    fn read(values: &ArrayRef, _: Ask) -> Result<Vec<u64>, OperatorError> {
        Ok(match values.data_type().primitive_width() {
            Some(1) => words(values, |value: u8| u64::from(value)),
            Some(2) => words(values, |value: u16| u64::from(value)),
            Some(4) => words(values, |value: u32| u64::from(value)),
            _ => words(values, |value: u64| value),
        })
    }

    fn hash_at(values: &Vec<u64>, row: usize) -> u64 {
        hash_word(values[row])
    }

    fn is_at(&self, values: &Vec<u64>, row: usize) -> bool {
        *self == values[row]
    }

    fn at(values: &Vec<u64>, row: usize) -> u64 {
        values[row]
    }

    fn hash(&self) -> u64 {
        hash_word(*self)
    }

    fn bytes(&self) -> usize {
        0
    }

    fn write<'v>(
        values: impl Iterator<Item = &'v u64>,
        data_type: &DataType,
    ) -> Result<ArrayRef, OperatorError> {
        let width = data_type.primitive_width().unwrap_or(size_of::<u64>());
        let mut bytes = Vec::new();
        let mut count = 0;
        for value in values {
            match width {
                1 => bytes.extend((*value as u8).to_ne_bytes()),
                2 => bytes.extend((*value as u16).to_ne_bytes()),
                4 => bytes.extend((*value as u32).to_ne_bytes()),
                _ => bytes.extend(value.to_ne_bytes()),
            }
            count += 1;
        }
        primitive(bytes, count, data_type)
    }
}

impl Value for u128 {
    type Values = Vec<u128>;

    fn read(values: &ArrayRef, _: Ask) -> Result<Vec<u128>, OperatorError> {
        let data = values.to_data();
        let bytes = &data.buffers()[0].as_slice()[data.offset() * size_of::<u128>()..];
        let (all, _) = bytes.as_chunks::<{ size_of::<u128>() }>();
        let all = all[..values.len()].iter();
        Ok(all.map(|bytes| u128::from_ne_bytes(*bytes)).collect())
    }

    fn hash_at(values: &Vec<u128>, row: usize) -> u64 {
        values[row].hash()
    }

    fn is_at(&self, values: &Vec<u128>, row: usize) -> bool {
        *self == values[row]
    }

    fn at(values: &Vec<u128>, row: usize) -> u128 {
        values[row]
    }

    fn hash(&self) -> u64 {
        hash_word(*self as u64 ^ hash_word((*self >> 64) as u64))
    }

    fn bytes(&self) -> usize {
        0
    }

    fn write<'v>(
        values: impl Iterator<Item = &'v u128>,
        data_type: &DataType,
    ) -> Result<ArrayRef, OperatorError> {
        let bytes: Vec<u8> = values.flat_map(|value| value.to_ne_bytes()).collect();
        let count = bytes.len() / size_of::<u128>();
        primitive(bytes, count, data_type)
    }
}

impl Value for Box<[u8]> {
    type Values = Encoded;

    fn read(values: &ArrayRef, ask: Ask) -> Result<Encoded, OperatorError> {
        let mut all = Encoded::default();
        match (ask, values.data_type()) {
            // Counting needs no way back.
            (Ask::Count, DataType::Utf8) => {
                let values = values.as_string::<i32>().iter();
                values.for_each(|value| all.push(value.unwrap_or_default().as_bytes()));
            }
            (Ask::Count, DataType::Utf8View) => {
                let values = values.as_string_view().iter();
                values.for_each(|value| all.push(value.unwrap_or_default().as_bytes()));
            }
            _ => {
                let codec = Codec::new(vec![values.data_type().clone()])?;
                all = codec.encode(std::slice::from_ref(values), values.len())?;
            }
        }
        Ok(all)
    }

    fn hash_at(values: &Encoded, row: usize) -> u64 {
        hash_bytes(0, values.key(row))
    }

    fn is_at(&self, values: &Encoded, row: usize) -> bool {
        self.as_ref() == values.key(row)
    }

    fn at(values: &Encoded, row: usize) -> Box<[u8]> {
        values.key(row).into()
    }

    fn hash(&self) -> u64 {
        hash_bytes(0, self)
    }

    fn bytes(&self) -> usize {
        self.len()
    }

    fn write<'v>(
        values: impl Iterator<Item = &'v Box<[u8]>>,
        data_type: &DataType,
    ) -> Result<ArrayRef, OperatorError> {
        let codec = Codec::new(vec![data_type.clone()])?;
        let values: Vec<&[u8]> = values.map(|value| value.as_ref()).collect();
        let mut columns = codec.decode(values.into_iter())?;
        Ok(columns.remove(0))
    }
}

/// The distinct values of each slot, and how many panes have each.
struct Distinct<V> {
    ask: Ask,
    element: FieldRef,
    slots: Vec<Slot<V>>,
    /// Bytes of values that lie elsewhere.
    bytes: usize,
}

struct Slot<V> {
    values: HashTable<(V, u32)>,
    nulls: u32,
}

impl<V> Default for Slot<V> {
    fn default() -> Self {
        Slot {
            values: HashTable::new(),
            nulls: 0,
        }
    }
}

/// Tables smaller than this are not worth making smaller.
const SHRINK_MIN: usize = 64;

impl<V: Value> Distinct<V> {
    fn new(ask: Ask, element: &FieldRef) -> Self {
        Distinct {
            ask,
            element: Arc::clone(element),
            slots: Vec::new(),
            bytes: 0,
        }
    }

    fn enter(&mut self, slot: u32, values: &V::Values, row: usize) {
        let table = &mut self.slots[slot as usize].values;
        let hash = V::hash_at(values, row);
        match table.find_mut(hash, |(value, _)| value.is_at(values, row)) {
            Some((_, panes)) => *panes += 1,
            None => {
                let value = V::at(values, row);
                self.bytes += value.bytes();
                table.insert_unique(hash, (value, 1), |(value, _)| value.hash());
            }
        }
    }

    fn leave(&mut self, slot: u32, values: &V::Values, row: usize) {
        let table = &mut self.slots[slot as usize].values;
        let hash = V::hash_at(values, row);
        let found = table.find_entry(hash, |(value, _)| value.is_at(values, row));
        let mut found = found
            .ok()
            .expect("what leaves a window has entered it before");
        found.get_mut().1 -= 1;
        if found.get().1 == 0 {
            let ((value, _), _) = found.remove();
            self.bytes -= value.bytes();
        }
    }
}

impl<V: Value> Kept for Distinct<V> {
    fn change(
        &mut self,
        slots: &[u32],
        lists: &ListArray,
        enter: bool,
    ) -> Result<(), OperatorError> {
        let offsets = lists.value_offsets();
        let first = offsets[0] as usize;
        let all = lists.values();
        let all = all.slice(first, offsets[lists.len()] as usize - first);
        let values = V::read(&all, self.ask)?;
        let nulls = all.logical_nulls();
        for (row, slot) in slots
            .iter()
            .enumerate()
            .filter(|(row, _)| lists.is_valid(*row))
        {
            for at in offsets[row] as usize..offsets[row + 1] as usize {
                let at = at - first;
                if nulls.as_ref().is_some_and(|nulls| nulls.is_null(at)) {
                    let nulls = &mut self.slots[*slot as usize].nulls;
                    *nulls = if enter { *nulls + 1 } else { *nulls - 1 };
                } else if enter {
                    self.enter(*slot, &values, at);
                } else {
                    self.leave(*slot, &values, at);
                }
            }
            if !enter {
                let table = &mut self.slots[*slot as usize].values;
                if table.capacity() > SHRINK_MIN && table.len() * 4 < table.capacity() {
                    let room = table.len() * 2;
                    table.shrink_to(room, |(value, _)| value.hash());
                }
            }
        }
        Ok(())
    }

    fn answers(&mut self, slots: &[u32]) -> Result<ArrayRef, OperatorError> {
        let slots = slots.iter().map(|slot| &self.slots[*slot as usize]);
        if self.ask == Ask::Count {
            let counts = slots.map(|slot| slot.values.len() as i64);
            return Ok(Arc::new(Int64Array::from_iter_values(counts)));
        }
        let (mut known, mut lengths, mut valid) = (Vec::new(), Vec::new(), Vec::new());
        // Nulls come from a second array.
        let mut places = Vec::new();
        let mut any_null = false;
        for slot in slots {
            let before = known.len();
            known.extend(slot.values.iter().map(|(value, _)| value));
            places.extend((before..known.len()).map(|at| (0, at)));
            let null = slot.nulls > 0;
            if null {
                places.push((1, 0));
            }
            any_null |= null;
            lengths.push(known.len() - before + usize::from(null));
            valid.push(null || !slot.values.is_empty());
        }
        let data_type = self.element.data_type();
        let mut values = V::write(known.into_iter(), data_type)?;
        if any_null {
            let null = new_null_array(data_type, 1);
            values = interleave(&[values.as_ref(), null.as_ref()], &places)?;
        }
        Ok(Arc::new(ListArray::try_new(
            Arc::clone(&self.element),
            OffsetBuffer::from_lengths(lengths),
            values,
            Some(NullBuffer::from(valid)),
        )?))
    }

    fn grow(&mut self, slots: usize) {
        self.slots.resize_with(slots, Slot::default);
    }

    fn clear(&mut self, slot: u32) {
        self.slots[slot as usize] = Slot::default();
    }

    fn bytes(&self) -> usize {
        let tables = self.slots.iter().map(|slot| slot.values.allocation_size());
        tables.sum::<usize>() + self.slots.len() * size_of::<Slot<V>>() + self.bytes
    }
}

struct Sliding {
    function: Arc<AggregateFunctionExpr>,
    slots: Vec<Option<Box<dyn Accumulator>>>,
}

impl Kept for Sliding {
    fn change(
        &mut self,
        slots: &[u32],
        lists: &ListArray,
        enter: bool,
    ) -> Result<(), OperatorError> {
        for (row, slot) in slots
            .iter()
            .enumerate()
            .filter(|(row, _)| lists.is_valid(*row))
        {
            let kept = &mut self.slots[*slot as usize];
            let kept = match kept {
                Some(kept) => kept,
                None => kept.insert(self.function.create_sliding_accumulator()?),
            };
            let values = [lists.value(row)];
            match enter {
                true => kept.update_batch(&values)?,
                false => kept.retract_batch(&values)?,
            }
        }
        Ok(())
    }

    fn answers(&mut self, slots: &[u32]) -> Result<ArrayRef, OperatorError> {
        let mut answers = Vec::with_capacity(slots.len());
        for slot in slots {
            answers.push(match &mut self.slots[*slot as usize] {
                Some(kept) => kept.evaluate()?,
                None => self.function.create_sliding_accumulator()?.evaluate()?,
            });
        }
        Ok(ScalarValue::iter_to_array(answers)?)
    }

    fn grow(&mut self, slots: usize) {
        self.slots.resize_with(slots, || None);
    }

    fn clear(&mut self, slot: u32) {
        self.slots[slot as usize] = None;
    }

    fn bytes(&self) -> usize {
        let kept = self.slots.iter().flatten().map(|kept| kept.size());
        kept.sum::<usize>() + self.slots.len() * size_of::<Option<Box<dyn Accumulator>>>()
    }
}
