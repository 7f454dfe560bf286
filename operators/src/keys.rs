//! Key columns: one form for equal values, one hash for all processes, one byte string per row.
//!
//! Both the exchange and the partition of restored state rest on this hash. It has no seed, knows nothing of the
//! machine, and must not change: a checkpoint written by one release is read by the next.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Float16Type, Float32Type, Float64Type, ToByteSlice,
};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

use crate::arrangement::prefix;
use crate::{memory, wire};

/// The column in the form that keys are compared in: no dictionaries, 0.0 for -0.0, one NaN.
pub fn normalise(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let column = match wire::flat_type(column.data_type()) {
        Some(flat) => cast(column, &flat)?,
        None => Arc::clone(column),
    };
    Ok(memory::rewrite(&column, &normalise_floats).unwrap_or(column))
}

fn normalise_floats(leaf: &ArrayRef) -> Option<ArrayRef> {
    match leaf.data_type() {
        DataType::Float16 => replace::<Float16Type>(leaf, |x| {
            if x.is_nan() {
                half_nan()
            } else {
                x + half_zero()
            }
        }),
        DataType::Float32 => {
            replace::<Float32Type>(leaf, |x| if x.is_nan() { f32::NAN } else { x + 0.0 })
        }
        DataType::Float64 => {
            replace::<Float64Type>(leaf, |x| if x.is_nan() { f64::NAN } else { x + 0.0 })
        }
        _ => None,
    }
}

type Half = <Float16Type as ArrowPrimitiveType>::Native;

fn half_nan() -> Half {
    Half::NAN
}

fn half_zero() -> Half {
    Half::default()
}

fn replace<T: ArrowPrimitiveType>(
    leaf: &ArrayRef,
    canonical: impl Fn(T::Native) -> T::Native,
) -> Option<ArrayRef> {
    let values: &PrimitiveArray<T> = leaf.as_primitive();
    // `x + 0.0` is `x` but for -0.0, so most columns pass without a copy. NaN always pays.
    let clean = values.values().iter().all(|&x| {
        let y = canonical(x);
        x == y && x.to_byte_slice() == y.to_byte_slice()
    });
    if clean {
        return None;
    }
    Some(Arc::new(values.unary::<_, T>(canonical)))
}

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
const OFFSET: u64 = 0xd1b5_4a32_d192_ed03;
const NULL: u64 = 0x2545_f491_4f6c_dd1d;

#[inline(always)]
fn mix(hash: u64, word: u64) -> u64 {
    let wide = u128::from(hash ^ word ^ OFFSET).wrapping_mul(u128::from(MULTIPLIER));
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// The hash of a byte string.
pub(crate) fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = mix(seed, bytes.len() as u64);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        hash = mix(hash, u64::from_le_bytes(*word)).wrapping_mul(MULTIPLIER | 1);
    }
    if !tail.is_empty() {
        let mut word = [0; 8];
        word[..tail.len()].copy_from_slice(tail);
        hash = mix(hash, u64::from_le_bytes(word)).wrapping_mul(MULTIPLIER | 1);
    }
    mix(hash, MULTIPLIER)
}

/// One hash per row of normalised key columns. Equal values of integer types of any width hash alike, and so do equal
/// strings of any layout. Without columns every row hashes to 0.
pub fn hash(columns: &[ArrayRef], rows: usize) -> Result<Vec<u64>, ArrowError> {
    let mut hashes = vec![0; rows];
    for column in columns {
        hash_column(column, &mut hashes)?;
    }
    Ok(hashes)
}

/// The worker, out of `peers`, that owns a hash.
pub fn owner(hash: u64, peers: usize) -> usize {
    ((u128::from(hash) * peers as u128) >> 64) as usize
}

fn hash_column(column: &ArrayRef, hashes: &mut [u64]) -> Result<(), ArrowError> {
    let data = column.to_data();
    macro_rules! words {
        ($native:ty, $word:expr) => {{
            let word = $word;
            let values = &data.buffer::<$native>(0)[..column.len()];
            match column.nulls() {
                None => {
                    for (hash, value) in hashes.iter_mut().zip(values) {
                        *hash = mix(*hash, word(*value)).wrapping_mul(MULTIPLIER | 1);
                    }
                }
                Some(nulls) => {
                    for (row, (hash, value)) in hashes.iter_mut().zip(values).enumerate() {
                        let word = if nulls.is_null(row) {
                            NULL
                        } else {
                            word(*value)
                        };
                        *hash = mix(*hash, word).wrapping_mul(MULTIPLIER | 1);
                    }
                }
            }
        }};
    }
    macro_rules! strings {
        ($array:expr) => {{
            for (hash, value) in hashes.iter_mut().zip($array.iter()) {
                *hash = match value {
                    None => mix(*hash, NULL).wrapping_mul(MULTIPLIER | 1),
                    Some(value) => hash_bytes(*hash, value.as_ref()),
                };
            }
        }};
    }
    match column.data_type() {
        DataType::Int8 => words!(i8, |x: i8| i64::from(x) as u64),
        DataType::Int16 => words!(i16, |x: i16| i64::from(x) as u64),
        DataType::Int32 | DataType::Date32 | DataType::Time32(_) => {
            words!(i32, |x: i32| i64::from(x) as u64)
        }
        DataType::Int64
        | DataType::Date64
        | DataType::Time64(_)
        | DataType::Timestamp(_, _)
        | DataType::Duration(_) => words!(i64, |x: i64| x as u64),
        DataType::UInt8 => words!(u8, |x: u8| u64::from(x)),
        DataType::UInt16 => words!(u16, |x: u16| u64::from(x)),
        DataType::UInt32 => words!(u32, |x: u32| u64::from(x)),
        DataType::UInt64 => words!(u64, |x: u64| x),
        DataType::Float32 => words!(f32, |x: f32| f64::from(x).to_bits()),
        DataType::Float64 => words!(f64, |x: f64| x.to_bits()),
        DataType::Decimal128(_, _) => {
            words!(i128, |x: i128| (x as u64) ^ mix(0, (x >> 64) as u64))
        }
        DataType::Boolean => {
            for (hash, value) in hashes.iter_mut().zip(column.as_boolean().iter()) {
                *hash = mix(*hash, value.map_or(NULL, u64::from)).wrapping_mul(MULTIPLIER | 1);
            }
        }
        DataType::Utf8 => strings!(column.as_string::<i32>()),
        DataType::LargeUtf8 => strings!(column.as_string::<i64>()),
        DataType::Utf8View => strings!(column.as_string_view()),
        DataType::Binary => strings!(column.as_binary::<i32>()),
        DataType::LargeBinary => strings!(column.as_binary::<i64>()),
        DataType::BinaryView => strings!(column.as_binary_view()),
        DataType::FixedSizeBinary(_) => strings!(column.as_fixed_size_binary()),
        _ => {
            let encoded = Codec::new(vec![column.data_type().clone()])?
                .encode(std::slice::from_ref(column), column.len())?;
            for (row, hash) in hashes.iter_mut().enumerate() {
                *hash = hash_bytes(*hash, encoded.key(row));
            }
        }
    }
    Ok(())
}

/// Key columns to byte strings that compare as the keys do, and back.
#[derive(Debug)]
pub struct Codec {
    converter: Option<RowConverter>,
    types: Vec<DataType>,
}

/// The byte strings of a batch of keys.
#[derive(Debug)]
pub struct Encoded {
    /// Where each key starts; one more than there are keys.
    pub offsets: Vec<usize>,
    /// The keys, one after the other.
    pub bytes: Vec<u8>,
}

impl Default for Encoded {
    fn default() -> Self {
        Encoded {
            offsets: vec![0],
            bytes: Vec::new(),
        }
    }
}

impl Encoded {
    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Adds a key.
    pub(crate) fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.offsets.push(self.bytes.len());
    }

    /// Key `row`.
    #[inline(always)]
    pub fn key(&self, row: usize) -> &[u8] {
        &self.bytes[self.offsets[row]..self.offsets[row + 1]]
    }

    /// The rows in ascending order of their keys.
    pub fn sorted(&self) -> Vec<u32> {
        let rows = self.offsets.len() - 1;
        let mut order: Vec<(u64, u32)> = (0..rows)
            .map(|row| (prefix(self.key(row)), row as u32))
            .collect();
        radix_sort(&mut order);
        // Where prefixes agree, the whole keys decide.
        let mut start = 0;
        while start < rows {
            let same = order[start..]
                .iter()
                .take_while(|(p, _)| *p == order[start].0);
            let end = start + same.count();
            if end - start > 1 {
                let key = |(_, row): &(u64, u32)| self.key(*row as usize);
                order[start..end].sort_unstable_by(|a, b| key(a).cmp(key(b)));
            }
            start = end;
        }
        order.into_iter().map(|(_, row)| row).collect()
    }
}

/// Below this, comparing is faster than counting.
const RADIX_MIN: usize = 256;

/// Sorts by the numbers, a byte at a time from the lowest. Bytes that all numbers share cost nothing, and keys of one
/// table differ in three or four: a fifth of the time of a comparison sort.
fn radix_sort(items: &mut Vec<(u64, u32)>) {
    if items.len() < RADIX_MIN {
        items.sort_unstable_by_key(|(number, _)| *number);
        return;
    }
    let mut counts = [[0_u32; 256]; 8];
    for (number, _) in items.iter() {
        for (byte, counts) in number.to_le_bytes().into_iter().zip(&mut counts) {
            counts[byte as usize] += 1;
        }
    }
    let mut other = vec![(0, 0); items.len()];
    for (place, counts) in counts.iter_mut().enumerate() {
        if counts.contains(&(items.len() as u32)) {
            continue;
        }
        let mut next = 0;
        for count in counts.iter_mut() {
            next += std::mem::replace(count, next);
        }
        for item in items.iter() {
            let slot = &mut counts[item.0.to_le_bytes()[place] as usize];
            other[*slot as usize] = *item;
            *slot += 1;
        }
        std::mem::swap(items, &mut other);
    }
}

impl Codec {
    /// For normalised columns of these types; no columns give empty keys.
    pub fn new(types: Vec<DataType>) -> Result<Self, ArrowError> {
        let fields = types.iter().cloned().map(SortField::new).collect();
        Codec::with_fields(types, fields)
    }

    /// The same, each column sorted as its options say.
    pub fn sorted(types: Vec<DataType>, options: &[SortOptions]) -> Result<Self, ArrowError> {
        let fields = types.iter().cloned().zip(options);
        let fields = fields.map(|(t, options)| SortField::new_with_options(t, *options));
        let fields = fields.collect();
        Codec::with_fields(types, fields)
    }

    /// The same with nulls of the first column after all other keys.
    pub fn nulls_last(types: Vec<DataType>) -> Result<Self, ArrowError> {
        let options = |index: usize| SortOptions {
            descending: false,
            nulls_first: index > 0,
        };
        let fields = types.iter().cloned().enumerate();
        let fields = fields.map(|(index, t)| SortField::new_with_options(t, options(index)));
        let fields = fields.collect();
        Codec::with_fields(types, fields)
    }

    fn with_fields(types: Vec<DataType>, fields: Vec<SortField>) -> Result<Self, ArrowError> {
        let converter = if types.is_empty() {
            None
        } else {
            Some(RowConverter::new(fields)?)
        };
        Ok(Codec { converter, types })
    }

    /// The types of the columns.
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// One byte string per row.
    pub fn encode(&self, columns: &[ArrayRef], rows: usize) -> Result<Encoded, ArrowError> {
        let Some(converter) = &self.converter else {
            return Ok(Encoded {
                offsets: vec![0; rows + 1],
                bytes: Vec::new(),
            });
        };
        // A column of nulls can stand for any type; the planner gives it none.
        let encoded = converter.convert_columns(columns)?;
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        let mut end = 0;
        for length in encoded.lengths() {
            end += length;
            offsets.push(end);
        }
        let bytes = match encoded.try_into_binary() {
            Ok(binary) => {
                let (_, bytes, _) = binary.into_parts();
                bytes
                    .into_vec::<u8>()
                    .unwrap_or_else(|bytes| bytes.to_vec())
            }
            Err(error) => return Err(error),
        };
        Ok(Encoded { offsets, bytes })
    }

    /// The columns of `keys`, which `encode` made.
    pub fn decode<'a>(
        &self,
        keys: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        let Some(converter) = &self.converter else {
            return Ok(Vec::new());
        };
        let parser = converter.parser();
        converter.convert_rows(keys.map(|key| parser.parse(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int32Array, Int64Array, StringArray, StringViewArray};

    fn hashes(column: impl Array + 'static) -> Vec<u64> {
        let column = normalise(&(Arc::new(column) as ArrayRef)).unwrap();
        let rows = column.len();
        hash(&[column], rows).unwrap()
    }

    #[test]
    fn equal_values_hash_alike_whatever_their_layout() {
        let narrow = hashes(Int32Array::from(vec![Some(-7), None]));
        assert_eq!(narrow, hashes(Int64Array::from(vec![Some(-7), None])));
        let text = hashes(StringArray::from(vec!["a", "a longer string than twelve"]));
        let views = StringViewArray::from(vec!["a", "a longer string than twelve"]);
        assert_eq!(text, hashes(views));
    }

    #[test]
    fn zeros_hash_alike_and_so_do_all_nans() {
        let other_nan = f64::from_bits(f64::NAN.to_bits() ^ (1 << 63) | 1);
        let all = hashes(Float64Array::from(vec![0.0, -0.0, f64::NAN, other_nan]));
        assert_eq!(all[0], all[1]);
        assert_eq!(all[2], all[3]);
        assert_ne!(all[0], all[2]);
    }

    /// A checkpoint is partitioned by this hash, so it may never change.
    #[test]
    fn the_hash_is_what_it_was_in_the_first_release() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(1), Some(-1), None])),
            Arc::new(StringArray::from(vec![
                Some("one"),
                None,
                Some("a third string"),
            ])),
        ];
        assert_eq!(hash(&columns, 3).unwrap(), FIRST_RELEASE);
    }

    const FIRST_RELEASE: [u64; 3] = [
        15534268745703580948,
        3472030241561268569,
        3008464566808650393,
    ];

    #[test]
    fn hashes_spread_over_workers() {
        let keys: Vec<i64> = (0..10_000).collect();
        let hashes = hashes(Int64Array::from(keys));
        let mut counts = [0; 7];
        for hash in hashes {
            counts[owner(hash, 7)] += 1;
        }
        assert!(
            counts.iter().all(|n| (1300..1560).contains(n)),
            "{counts:?}"
        );
    }

    #[test]
    fn keys_are_sorted_as_their_values() {
        let mut state = 7_u64;
        let values: Vec<i64> = (0..5000)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                (state >> 33) as i64 % 3000 - 1500
            })
            .collect();
        let column: ArrayRef = Arc::new(Int64Array::from(values.clone()));
        let codec = Codec::new(vec![DataType::Int64]).unwrap();
        let order = codec.encode(&[column], values.len()).unwrap().sorted();
        assert!(order.is_sorted_by_key(|row| values[*row as usize]));
        let mut all = order.clone();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..5000));
    }

    #[test]
    fn keys_come_back_from_their_bytes() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(1), None])),
            Arc::new(StringViewArray::from(vec![Some("x"), None])),
        ];
        let types = columns.iter().map(|c| c.data_type().clone()).collect();
        let codec = Codec::new(types).unwrap();
        let encoded = codec.encode(&columns, 2).unwrap();
        let keys = (0..2).map(|row| encoded.key(row));
        assert_eq!(codec.decode(keys).unwrap(), columns);
    }
}
