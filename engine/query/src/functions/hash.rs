//! Hashes: `hash` (Murmur3), `xxhash64`, `crc32`, and the cryptographic ones of DataFusion.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, DurationMicrosecondType, DurationSecondType, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalUnit, IntervalYearMonthType,
    TimeUnit, TimestampMicrosecondType,
};
use datafusion::logical_expr::{Cast, Expr as DfExpr, ScalarUDF};

use super::kernel::{Can, Kernel, Typed};
use super::{Args, cast};
use crate::coerce::{self, is_atomic};
use crate::error::QueryError;
use crate::types::type_sql;

type Result<T> = std::result::Result<T, QueryError>;

/// A hash that folds one value after another into a seed.
trait Fold: Copy {
    fn int(self, value: i32) -> Self;
    fn long(self, value: i64) -> Self;
    fn bytes(self, value: &[u8]) -> Self;
}

/// Murmur3, 32 bits, as Spark computes it: the bytes behind the last whole word each by itself.
#[derive(Clone, Copy)]
struct Murmur(u32);

impl Murmur {
    fn mix(self, word: u32) -> Self {
        let word = word
            .wrapping_mul(0xcc9e_2d51)
            .rotate_left(15)
            .wrapping_mul(0x1b87_3593);
        Murmur(
            (self.0 ^ word)
                .rotate_left(13)
                .wrapping_mul(5)
                .wrapping_add(0xe654_6b64),
        )
    }

    fn finish(self, length: u32) -> Self {
        let h = self.0 ^ length;
        let h = (h ^ h >> 16).wrapping_mul(0x85eb_ca6b);
        let h = (h ^ h >> 13).wrapping_mul(0xc2b2_ae35);
        Murmur(h ^ h >> 16)
    }
}

impl Fold for Murmur {
    fn int(self, value: i32) -> Self {
        self.mix(value as u32).finish(4)
    }

    fn long(self, value: i64) -> Self {
        self.mix(value as u32).mix((value >> 32) as u32).finish(8)
    }

    fn bytes(self, value: &[u8]) -> Self {
        let (words, tail) = value.as_chunks::<4>();
        let mixed = words
            .iter()
            .fold(self, |h, w| h.mix(u32::from_le_bytes(*w)));
        let mixed = tail
            .iter()
            .fold(mixed, |h, b| h.mix(*b as i8 as i32 as u32));
        mixed.finish(value.len() as u32)
    }
}

/// XXH64.
#[derive(Clone, Copy)]
struct Xx(u64);

const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;
const P5: u64 = 0x27D4_EB2F_1656_67C5;

impl Xx {
    fn avalanche(hash: u64) -> Self {
        let h = (hash ^ hash >> 33).wrapping_mul(P2);
        let h = (h ^ h >> 29).wrapping_mul(P3);
        Xx(h ^ h >> 32)
    }

    fn eight(hash: u64, word: u64) -> u64 {
        let word = word.wrapping_mul(P2).rotate_left(31).wrapping_mul(P1);
        (hash ^ word)
            .rotate_left(27)
            .wrapping_mul(P1)
            .wrapping_add(P4)
    }

    fn four(hash: u64, word: u32) -> u64 {
        (hash ^ u64::from(word).wrapping_mul(P1))
            .rotate_left(23)
            .wrapping_mul(P2)
            .wrapping_add(P3)
    }
}

impl Fold for Xx {
    fn int(self, value: i32) -> Self {
        Xx::avalanche(Xx::four(
            self.0.wrapping_add(P5).wrapping_add(4),
            value as u32,
        ))
    }

    fn long(self, value: i64) -> Self {
        Xx::avalanche(Xx::eight(
            self.0.wrapping_add(P5).wrapping_add(8),
            value as u64,
        ))
    }

    fn bytes(self, value: &[u8]) -> Self {
        let seed = self.0;
        let (stripes, rest) = value.as_chunks::<32>();
        let mut hash = seed.wrapping_add(P5);
        if !stripes.is_empty() {
            let mut lanes = [
                seed.wrapping_add(P1).wrapping_add(P2),
                seed.wrapping_add(P2),
                seed,
                seed.wrapping_sub(P1),
            ];
            for stripe in stripes {
                for (lane, word) in lanes.iter_mut().zip(stripe.as_chunks::<8>().0) {
                    let word = u64::from_le_bytes(*word).wrapping_mul(P2);
                    *lane = lane.wrapping_add(word).rotate_left(31).wrapping_mul(P1);
                }
            }
            hash = lanes
                .iter()
                .zip([1, 7, 12, 18])
                .fold(0u64, |h, (l, r)| h.wrapping_add(l.rotate_left(r)));
            for lane in lanes {
                let lane = lane.wrapping_mul(P2).rotate_left(31).wrapping_mul(P1);
                hash = (hash ^ lane).wrapping_mul(P1).wrapping_add(P4);
            }
        }
        hash = hash.wrapping_add(value.len() as u64);
        let (words, rest) = rest.as_chunks::<8>();
        hash = words
            .iter()
            .fold(hash, |h, w| Xx::eight(h, u64::from_le_bytes(*w)));
        let (half, rest) = rest.as_chunks::<4>();
        hash = half
            .iter()
            .fold(hash, |h, w| Xx::four(h, u32::from_le_bytes(*w)));
        for byte in rest {
            hash = (hash ^ u64::from(*byte).wrapping_mul(P5))
                .rotate_left(11)
                .wrapping_mul(P1);
        }
        Xx::avalanche(hash)
    }
}

/// The seed with one value folded in; a null leaves it as it is.
fn fold<H: Fold>(seed: H, array: &ArrayRef, row: usize) -> H {
    if array.is_null(row) {
        return seed;
    }
    macro_rules! value {
        ($t:ty) => {
            array.as_primitive::<$t>().value(row)
        };
    }
    match array.data_type() {
        DataType::Boolean => seed.int(i32::from(array.as_boolean().value(row))),
        DataType::Int8 => seed.int(i32::from(value!(Int8Type))),
        DataType::Int16 => seed.int(i32::from(value!(Int16Type))),
        DataType::Int32 => seed.int(value!(Int32Type)),
        DataType::Int64 => seed.long(value!(Int64Type)),
        DataType::Float32 => match value!(Float32Type) {
            v if v.is_nan() => seed.int(0x7fc0_0000),
            v => seed.int((v + 0.0).to_bits() as i32),
        },
        DataType::Float64 => match value!(Float64Type) {
            v if v.is_nan() => seed.long(0x7ff8_0000_0000_0000),
            v => seed.long((v + 0.0).to_bits() as i64),
        },
        DataType::Decimal128(p, _) if *p <= 18 => seed.long(value!(Decimal128Type) as i64),
        DataType::Decimal128(..) => {
            // As Java's BigInteger: the fewest big-endian bytes that keep the sign.
            let bytes = value!(Decimal128Type).to_be_bytes();
            let extra = (0..15).take_while(|&i| {
                bytes[i] == 0 && bytes[i + 1] < 0x80 || bytes[i] == 0xff && bytes[i + 1] >= 0x80
            });
            seed.bytes(&bytes[extra.count()..])
        }
        DataType::Date32 => seed.int(value!(Date32Type)),
        DataType::Timestamp(..) => seed.long(value!(TimestampMicrosecondType)),
        DataType::Duration(TimeUnit::Second) => {
            seed.long(value!(DurationSecondType).wrapping_mul(1_000_000))
        }
        DataType::Duration(_) => seed.long(value!(DurationMicrosecondType)),
        DataType::Interval(IntervalUnit::YearMonth) => seed.int(value!(IntervalYearMonthType)),
        DataType::Utf8 => seed.bytes(array.as_string::<i32>().value(row).as_bytes()),
        DataType::Binary => seed.bytes(array.as_binary::<i32>().value(row)),
        DataType::List(_) => {
            let elements = array.as_list::<i32>().value(row);
            (0..elements.len()).fold(seed, |h, i| fold(h, &elements, i))
        }
        DataType::Struct(_) => array
            .as_struct()
            .columns()
            .iter()
            .fold(seed, |h, c| fold(h, c, row)),
        _ => seed,
    }
}

fn hashable(data_type: &DataType) -> bool {
    match data_type {
        DataType::Null => true,
        DataType::List(element) => hashable(element.data_type()),
        DataType::Struct(fields) => fields.iter().all(|f| hashable(f.data_type())),
        DataType::Interval(unit) => *unit == IntervalUnit::YearMonth,
        other => is_atomic(other),
    }
}

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0xEDB8_8320
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

static CRC: [u32; 256] = crc_table();

fn crc32(bytes: &[u8]) -> i64 {
    let crc = bytes.iter().fold(!0u32, |crc, b| {
        CRC[((crc ^ u32::from(*b)) & 0xff) as usize] ^ crc >> 8
    });
    i64::from(!crc)
}

/// A function of DataFusion's over bytes whose answer is a text.
fn text_of(udf: &Arc<ScalarUDF>, args: Vec<Typed>) -> Result<Typed> {
    let found = super::registered_scalar(udf, args)?;
    if found.data_type == DataType::Utf8 {
        return Ok(found);
    }
    Ok(Typed::new(
        DfExpr::Cast(Cast::new(Box::new(found.expr), DataType::Utf8)),
        DataType::Utf8,
    ))
}

fn binary(name: &str, value: Typed) -> Result<Typed> {
    match value.data_type {
        DataType::Binary => Ok(value),
        _ => cast::implicit(
            coerce::argument(name, 0, value, &DataType::Utf8)?,
            &DataType::Binary,
        ),
    }
}

/// The functions of this family.
pub(super) fn build(name: &str, args: &Args) -> Result<Option<Typed>> {
    Ok(Some(match name {
        "hash" | "xxhash64" => {
            let values = args.at_least(1)?;
            if let Some(value) = values.iter().find(|v| !hashable(&v.data_type)) {
                return Err(QueryError::unsupported(format!(
                    "{name} of {}",
                    type_sql(&value.data_type)
                )));
            }
            let returns = if name == "hash" {
                DataType::Int32
            } else {
                DataType::Int64
            };
            let murmur = name == "hash";
            Kernel::over_arrays(
                name,
                "",
                values,
                returns,
                Can::NotFail,
                move |args, rows| {
                    Ok(match murmur {
                        true => {
                            let of_row =
                                |row| args.iter().fold(Murmur(42), |h, a| fold(h, a, row)).0 as i32;
                            Arc::new((0..rows).map(of_row).collect::<Int32Array>()) as ArrayRef
                        }
                        false => {
                            let of_row =
                                |row| args.iter().fold(Xx(42), |h, a| fold(h, a, row)).0 as i64;
                            Arc::new((0..rows).map(of_row).collect::<Int64Array>())
                        }
                    })
                },
            )
        }
        "crc32" => {
            let value = binary(name, args.one()?)?;
            Kernel::over_arrays(
                name,
                "",
                vec![value],
                DataType::Int64,
                Can::NotFail,
                |args, _| {
                    Ok(Arc::new(
                        args[0]
                            .as_binary::<i32>()
                            .iter()
                            .map(|b| b.map(crc32))
                            .collect::<Int64Array>(),
                    ))
                },
            )
        }
        "md5" => text_of(
            &datafusion::functions::crypto::md5(),
            vec![binary(name, args.one()?)?],
        )?,
        "sha" | "sha1" => text_of(
            &datafusion_spark::function::hash::sha1(),
            vec![binary(name, args.one()?)?],
        )?,
        "sha2" => {
            let [value, bits] = args.exactly()?;
            let bits = coerce::argument(name, 1, bits, &DataType::Int32)?;
            text_of(
                &datafusion_spark::function::hash::sha2(),
                vec![binary(name, value)?, bits],
            )?
        }
        _ => return Ok(None),
    }))
}
