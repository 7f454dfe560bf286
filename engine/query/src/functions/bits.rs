//! Bits of integers.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Int8Type, Int16Type, Int32Type, Int64Type};

use super::kernel::{Can, Kernel, Result as Run, Typed};
use super::{Args, cast};
use crate::coerce::{self, is_integral};
use crate::error::{QueryError, RunError};
use crate::expr::BinaryOp;
use crate::types::type_sql;

type Result<T> = std::result::Result<T, QueryError>;

fn integral(function: &str, value: Typed) -> Result<Typed> {
    match &value.data_type {
        t if is_integral(t) => Ok(value),
        DataType::Null => Ok(Typed::null(&DataType::Int32)),
        _ => Err(coerce::unexpected(function, 0, &value, "INTEGRAL")),
    }
}

/// A kernel over integers, by their width.
fn by_width(array: &ArrayRef, f: impl Fn(i64) -> i64) -> ArrayRef {
    fn each<T>(array: &ArrayRef, f: impl Fn(i64) -> i64) -> ArrayRef
    where
        T: ArrowPrimitiveType,
        T::Native: Into<i64> + FromBits,
    {
        Arc::new(
            array
                .as_primitive::<T>()
                .unary::<_, T>(|v| T::Native::from_bits(f(v.into()))),
        )
    }
    match array.data_type() {
        DataType::Int8 => each::<Int8Type>(array, f),
        DataType::Int16 => each::<Int16Type>(array, f),
        DataType::Int32 => each::<Int32Type>(array, f),
        _ => each::<Int64Type>(array, f),
    }
}

/// The low bits of a wider integer.
trait FromBits {
    fn from_bits(bits: i64) -> Self;
}

macro_rules! from_bits {
    ($($t:ty),*) => {$(
        impl FromBits for $t {
            fn from_bits(bits: i64) -> Self {
                bits as $t
            }
        }
    )*};
}
from_bits!(i8, i16, i32, i64);

/// `~value`.
pub(crate) fn not(value: Typed) -> Result<Typed> {
    let value = integral("~", value)?;
    let data_type = value.data_type.clone();
    Ok(Kernel::over_arrays(
        "bit_not",
        "",
        vec![value],
        data_type,
        Can::NotFail,
        |args, _| Ok(by_width(&args[0], |v| !v)),
    ))
}

/// `left & right` and the like.
pub(crate) fn binary(op: BinaryOp, left: Typed, right: Typed, text: &str) -> Result<Typed> {
    let (left, right) = (integral(text, left)?, integral(text, right)?);
    let Some(data_type) = coerce::tightest(&left.data_type, &right.data_type) else {
        let message = format!(
            "Cannot resolve \"{text}\" due to data type mismatch: \"{}\"",
            type_sql(&left.data_type)
        );
        return Err(QueryError::mismatch("BINARY_OP_DIFF_TYPES", message));
    };
    let (left, right) = (
        cast::implicit(left, &data_type)?,
        cast::implicit(right, &data_type)?,
    );
    let name = match op {
        BinaryOp::BitAnd => "bit_and",
        BinaryOp::BitOr => "bit_or",
        _ => "bit_xor",
    };
    Ok(Kernel::over_arrays(
        name,
        "",
        vec![left, right],
        data_type,
        Can::NotFail,
        move |args, _| {
            fn each<T>(op: BinaryOp, args: &[ArrayRef]) -> Run<ArrayRef>
            where
                T: ArrowPrimitiveType,
                T::Native: std::ops::BitAnd<Output = T::Native>
                    + std::ops::BitOr<Output = T::Native>
                    + std::ops::BitXor<Output = T::Native>,
            {
                let (l, r) = (args[0].as_primitive::<T>(), args[1].as_primitive::<T>());
                let result: PrimitiveArray<T> = match op {
                    BinaryOp::BitAnd => arrow::compute::binary(l, r, |l, r| l & r)?,
                    BinaryOp::BitOr => arrow::compute::binary(l, r, |l, r| l | r)?,
                    _ => arrow::compute::binary(l, r, |l, r| l ^ r)?,
                };
                Ok(Arc::new(result))
            }
            match args[0].data_type() {
                DataType::Int8 => each::<Int8Type>(op, args),
                DataType::Int16 => each::<Int16Type>(op, args),
                DataType::Int32 => each::<Int32Type>(op, args),
                _ => each::<Int64Type>(op, args),
            }
        },
    ))
}

/// `value << by`: as Java does, by the low bits of `by`.
pub(crate) fn shift(op: BinaryOp, value: Typed, by: Typed) -> Result<Typed> {
    let value = integral("shift", value)?;
    let value = if value.data_type == DataType::Int64 {
        value
    } else {
        cast::implicit(value, &DataType::Int32)?
    };
    let by = coerce::argument("shift", 1, by, &DataType::Int32)?;
    let data_type = value.data_type.clone();
    let name = match op {
        BinaryOp::ShiftLeft => "shiftleft",
        BinaryOp::ShiftRight => "shiftright",
        _ => "shiftrightunsigned",
    };
    Ok(Kernel::over_arrays(
        name,
        "",
        vec![value, by],
        data_type,
        Can::NotFail,
        move |args, _| {
            let by = args[1].as_primitive::<Int32Type>();
            Ok(match args[0].data_type() {
                DataType::Int32 => {
                    let values = args[0].as_primitive::<Int32Type>();
                    let shifted: PrimitiveArray<Int32Type> =
                        arrow::compute::binary(values, by, |v, n| match op {
                            BinaryOp::ShiftLeft => v.wrapping_shl(n as u32),
                            BinaryOp::ShiftRight => v.wrapping_shr(n as u32),
                            _ => (v as u32).wrapping_shr(n as u32) as i32,
                        })?;
                    Arc::new(shifted)
                }
                _ => {
                    let values = args[0].as_primitive::<Int64Type>();
                    let shifted: PrimitiveArray<Int64Type> =
                        arrow::compute::binary(values, by, |v, n| match op {
                            BinaryOp::ShiftLeft => v.wrapping_shl(n as u32),
                            BinaryOp::ShiftRight => v.wrapping_shr(n as u32),
                            _ => (v as u64).wrapping_shr(n as u32) as i64,
                        })?;
                    Arc::new(shifted)
                }
            })
        },
    ))
}

/// The functions of this family.
pub(super) fn build(name: &str, args: &Args) -> Result<Option<Typed>> {
    let shifted = |op| {
        let [value, by] = args.exactly()?;
        shift(op, value, by)
    };
    Ok(Some(match name {
        "shiftleft" => shifted(BinaryOp::ShiftLeft)?,
        "shiftright" => shifted(BinaryOp::ShiftRight)?,
        "shiftrightunsigned" => shifted(BinaryOp::ShiftRightUnsigned)?,
        "bit_count" => {
            let value = integral(name, args.one()?)?;
            let value = cast::implicit(value, &DataType::Int64)?;
            Kernel::over_arrays(
                name,
                "",
                vec![value],
                DataType::Int32,
                Can::NotFail,
                |args, _| {
                    let values = args[0].as_primitive::<Int64Type>();
                    Ok(Arc::new(
                        values.unary::<_, Int32Type>(|v| v.count_ones() as i32),
                    ))
                },
            )
        }
        "bit_get" | "getbit" => {
            let [value, at] = args.exactly()?;
            let value = integral(name, value)?;
            let bits = value.data_type.primitive_width().unwrap_or(8) as i32 * 8;
            let value = cast::implicit(value, &DataType::Int64)?;
            let at = coerce::argument(name, 1, at, &DataType::Int32)?;
            Kernel::over_arrays(
                name,
                bits.to_string(),
                vec![value, at],
                DataType::Int8,
                Can::Fail,
                move |args, _| {
                    let (values, at) = (
                        args[0].as_primitive::<Int64Type>(),
                        args[1].as_primitive::<Int32Type>(),
                    );
                    let found = values.iter().zip(at).map(|(value, at)| match (value, at) {
                        (Some(_), Some(at)) if !(0..bits).contains(&at) => Err(RunError::raise(
                            "INVALID_PARAMETER_VALUE.BIT_POSITION_RANGE",
                            format!("Invalid bit position: {at} exceeds the bit width"),
                        )),
                        (Some(value), Some(at)) => Ok(Some((value >> at & 1) as i8)),
                        _ => Ok(None),
                    });
                    Ok(Arc::new(found.collect::<Run<PrimitiveArray<Int8Type>>>()?))
                },
            )
        }
        _ => return Ok(None),
    }))
}
