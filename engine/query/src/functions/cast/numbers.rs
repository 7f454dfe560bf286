//! Conversions among booleans, numbers and times.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimestampMicrosecondType,
};
use datafusion::common::DataFusionError;

use super::How;
use super::parse::{self, Zone};
use crate::error::RunError;
use crate::functions::kernel::Result;
use crate::functions::text;
use crate::types::type_sql;

const DAY: i64 = 86_400_000_000;

pub(super) fn convert(array: &ArrayRef, to: &DataType, how: &How) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Boolean => from_boolean(array.as_boolean(), to),
        DataType::Int8 => from_integer::<Int8Type>(array, to, how),
        DataType::Int16 => from_integer::<Int16Type>(array, to, how),
        DataType::Int32 => from_integer::<Int32Type>(array, to, how),
        DataType::Int64 => from_integer::<Int64Type>(array, to, how),
        DataType::Float32 => from_float::<Float32Type>(array, to, how),
        DataType::Float64 => from_float::<Float64Type>(array, to, how),
        DataType::Decimal128(precision, scale) => {
            from_decimal(array, (*precision, *scale), to, how)
        }
        DataType::Date32 => from_date(array, to, how),
        DataType::Timestamp(_, zone) => from_timestamp(array, zone.is_some(), to, how),
        other => Err(no_cast(other, to)),
    }
}

fn no_cast(from: &DataType, to: &DataType) -> DataFusionError {
    DataFusionError::Internal(format!("no cast from {from} to {to}"))
}

/// Every value by `f`; where it gives none, NULL for a try and the error of `fail` else.
fn each<F: ArrowPrimitiveType, T: ArrowPrimitiveType>(
    array: &ArrayRef,
    to: &DataType,
    how: &How,
    f: impl Fn(F::Native) -> Option<T::Native>,
    fail: impl Fn(F::Native) -> DataFusionError,
) -> Result<ArrayRef> {
    let array = array.as_primitive::<F>();
    let result: PrimitiveArray<T> = if how.attempt {
        array.unary_opt(f)
    } else {
        array.try_unary(|v| f(v).ok_or_else(|| fail(v)))?
    };
    Ok(Arc::new(result.with_data_type(to.clone())))
}

fn overflow(value: impl std::fmt::Display, from: &DataType, to: &DataType) -> DataFusionError {
    // As a literal of its type is written.
    let suffix = match from {
        DataType::Int8 => "Y",
        DataType::Int16 => "S",
        DataType::Int64 => "L",
        _ => "",
    };
    let (from, to) = (type_sql(from), type_sql(to));
    let message = format!(
        "The value {value}{suffix} of the type \"{from}\" cannot be cast to \"{to}\" due to an overflow. Use `try_cast` to tolerate overflow and return NULL instead."
    );
    RunError::raise("CAST_OVERFLOW", message)
}

pub(super) fn out_of_range(
    value: impl std::fmt::Display,
    precision: u8,
    scale: i8,
) -> DataFusionError {
    let message = format!(
        "{value} cannot be represented as Decimal({precision}, {scale}). If necessary set \"spark.sql.ansi.enabled\" to \"false\" to bypass this error, and return NULL instead."
    );
    RunError::raise("NUMERIC_VALUE_OUT_OF_RANGE.WITH_SUGGESTION", message)
}

fn from_boolean(array: &BooleanArray, to: &DataType) -> Result<ArrayRef> {
    fn ones<T: ArrowPrimitiveType>(
        array: &BooleanArray,
        to: &DataType,
        one: T::Native,
    ) -> ArrayRef {
        let values = array
            .iter()
            .map(|b| b.map(|b| if b { one } else { T::default_value() }));
        Arc::new(
            values
                .collect::<PrimitiveArray<T>>()
                .with_data_type(to.clone()),
        )
    }
    Ok(match to {
        DataType::Int8 => ones::<Int8Type>(array, to, 1),
        DataType::Int16 => ones::<Int16Type>(array, to, 1),
        DataType::Int32 => ones::<Int32Type>(array, to, 1),
        DataType::Int64 => ones::<Int64Type>(array, to, 1),
        DataType::Float32 => ones::<Float32Type>(array, to, 1.0),
        DataType::Float64 => ones::<Float64Type>(array, to, 1.0),
        DataType::Decimal128(precision, scale) => {
            let one = 10i128.pow(u32::try_from(*scale).unwrap_or(0));
            if *precision as i8 <= *scale && array.true_count() > 0 {
                return Err(out_of_range(1, *precision, *scale));
            }
            ones::<Decimal128Type>(array, to, one)
        }
        other => return Err(no_cast(&DataType::Boolean, other)),
    })
}

fn nonzero<T: ArrowPrimitiveType>(array: &ArrayRef, test: impl Fn(T::Native) -> bool) -> ArrayRef {
    let array = array.as_primitive::<T>();
    Arc::new(BooleanArray::from_unary(array, test))
}

fn from_integer<F>(array: &ArrayRef, to: &DataType, how: &How) -> Result<ArrayRef>
where
    F: ArrowPrimitiveType,
    F::Native: Into<i64> + std::fmt::Display,
{
    let from = array.data_type();
    let fail = |v: F::Native| overflow(v, from, to);
    match to {
        DataType::Boolean => Ok(nonzero::<F>(array, |v| v.into() != 0)),
        DataType::Int8 => each::<F, Int8Type>(array, to, how, |v| v.into().try_into().ok(), fail),
        DataType::Int16 => each::<F, Int16Type>(array, to, how, |v| v.into().try_into().ok(), fail),
        DataType::Int32 => each::<F, Int32Type>(array, to, how, |v| v.into().try_into().ok(), fail),
        DataType::Int64 => each::<F, Int64Type>(array, to, how, |v| Some(v.into()), fail),
        DataType::Float32 => {
            each::<F, Float32Type>(array, to, how, |v| Some(v.into() as f32), fail)
        }
        DataType::Float64 => {
            each::<F, Float64Type>(array, to, how, |v| Some(v.into() as f64), fail)
        }
        DataType::Decimal128(p, s) => {
            let fail = |v: F::Native| out_of_range(v, *p, *s);
            each::<F, Decimal128Type>(
                array,
                to,
                how,
                |v| rescaled(i128::from(v.into()), 0, *p, *s),
                fail,
            )
        }
        // Seconds; beyond what microseconds hold, Java's conversion stays at the bound.
        DataType::Timestamp(_, Some(_)) => each::<F, TimestampMicrosecondType>(
            array,
            to,
            how,
            |v| Some(v.into().saturating_mul(1_000_000)),
            fail,
        ),
        other => Err(no_cast(from, other)),
    }
}

fn from_float<F>(array: &ArrayRef, to: &DataType, how: &How) -> Result<ArrayRef>
where
    F: ArrowPrimitiveType,
    F::Native: Into<f64> + Float,
{
    let from = array.data_type();
    let fail = |v: F::Native| overflow(v.shown(), from, to);
    // Within the range after cutting toward zero; NaN is in no range.
    let whole = |v: F::Native, low: f64, high: f64| {
        let v: f64 = v.into();
        (v.floor() <= high && v.ceil() >= low).then_some(v)
    };
    match to {
        DataType::Boolean => Ok(nonzero::<F>(array, |v| v.into() != 0.0)),
        DataType::Int8 => each::<F, Int8Type>(
            array,
            to,
            how,
            |v| whole(v, -128.0, 127.0).map(|v| v as i8),
            fail,
        ),
        DataType::Int16 => each::<F, Int16Type>(
            array,
            to,
            how,
            |v| whole(v, -32768.0, 32767.0).map(|v| v as i16),
            fail,
        ),
        DataType::Int32 => {
            let (low, high) = (f64::from(i32::MIN), f64::from(i32::MAX));
            each::<F, Int32Type>(
                array,
                to,
                how,
                |v| whole(v, low, high).map(|v| v as i32),
                fail,
            )
        }
        DataType::Int64 => {
            let (low, high) = (i64::MIN as f64, i64::MAX as f64);
            each::<F, Int64Type>(
                array,
                to,
                how,
                |v| whole(v, low, high).map(|v| v as i64),
                fail,
            )
        }
        DataType::Float32 => {
            each::<F, Float32Type>(array, to, how, |v| Some(Into::<f64>::into(v) as f32), fail)
        }
        DataType::Float64 => each::<F, Float64Type>(array, to, how, |v| Some(v.into()), fail),
        DataType::Decimal128(p, s) => {
            let fail = |v: F::Native| out_of_range(text::plain_double(v.into()), *p, *s);
            let read = |v: F::Native| match parse::decimal(&text::double(v.into()), *p, *s) {
                parse::Decimal::Is(v) => Some(v),
                _ => None,
            };
            // What is not finite is NULL, even under ANSI rules.
            let finite = array
                .as_primitive::<F>()
                .unary_opt::<_, F>(|v| Into::<f64>::into(v).is_finite().then_some(v));
            let finite: ArrayRef = Arc::new(finite);
            each::<F, Decimal128Type>(&finite, to, how, read, fail)
        }
        DataType::Timestamp(_, Some(_)) => {
            let fail = |v: F::Native| {
                if Into::<f64>::into(v).is_finite() {
                    return overflow(v.shown(), from, to);
                }
                let message = format!(
                    "The value {} of the type \"{}\" cannot be cast to \"TIMESTAMP\" because it is malformed.",
                    v.shown(),
                    type_sql(from)
                );
                RunError::raise("CAST_INVALID_INPUT", message)
            };
            let micros = |v: F::Native| {
                let v: f64 = Into::<f64>::into(v) * 1_000_000.0;
                (v.floor() <= i64::MAX as f64 && v.ceil() >= i64::MIN as f64).then_some(v as i64)
            };
            each::<F, TimestampMicrosecondType>(array, to, how, micros, fail)
        }
        other => Err(no_cast(from, other)),
    }
}

/// Floats as Java prints them.
trait Float: Copy {
    fn shown(self) -> String;
}

impl Float for f32 {
    fn shown(self) -> String {
        text::float(self)
    }
}

impl Float for f64 {
    fn shown(self) -> String {
        match self.is_finite() {
            true => format!("{}D", text::double(self)),
            false => text::double(self),
        }
    }
}

/// A decimal at another scale, rounded half up, if it fits.
pub(crate) fn rescaled(unscaled: i128, from: i8, precision: u8, to: i8) -> Option<i128> {
    let value = if to >= from {
        unscaled.checked_mul(10i128.checked_pow((to - from) as u32)?)?
    } else {
        divide_half_up(unscaled, 10i128.checked_pow((from - to) as u32)?)
    };
    (value.unsigned_abs() < 10u128.pow(u32::from(precision))).then_some(value)
}

/// The quotient rounded half away from zero.
pub(crate) fn divide_half_up(dividend: i128, divisor: i128) -> i128 {
    let (quotient, remainder) = (dividend / divisor, dividend % divisor);
    let up = remainder.unsigned_abs() >= divisor.unsigned_abs().div_ceil(2);
    let sign = if (dividend < 0) == (divisor < 0) {
        1
    } else {
        -1
    };
    if up { quotient + sign } else { quotient }
}

fn from_decimal(array: &ArrayRef, from: (u8, i8), to: &DataType, how: &How) -> Result<ArrayRef> {
    let scale = from.1;
    let unit = 10i128.pow(u32::try_from(scale).unwrap_or(0));
    let from = array.data_type();
    let fail = |v: i128| overflow(format!("{}BD", text::decimal(v, scale)), from, to);
    let double = |v: i128| text::decimal(v, scale).parse::<f64>().ok();
    match to {
        DataType::Boolean => Ok(nonzero::<Decimal128Type>(array, |v| v != 0)),
        DataType::Int8 => {
            each::<Decimal128Type, Int8Type>(array, to, how, |v| (v / unit).try_into().ok(), fail)
        }
        DataType::Int16 => {
            each::<Decimal128Type, Int16Type>(array, to, how, |v| (v / unit).try_into().ok(), fail)
        }
        DataType::Int32 => {
            each::<Decimal128Type, Int32Type>(array, to, how, |v| (v / unit).try_into().ok(), fail)
        }
        DataType::Int64 => {
            each::<Decimal128Type, Int64Type>(array, to, how, |v| (v / unit).try_into().ok(), fail)
        }
        DataType::Float32 => {
            let float = |v: i128| text::decimal(v, scale).parse::<f32>().ok();
            each::<Decimal128Type, Float32Type>(array, to, how, float, fail)
        }
        DataType::Float64 => each::<Decimal128Type, Float64Type>(array, to, how, double, fail),
        DataType::Decimal128(p, s) => {
            let fail = |v: i128| out_of_range(text::decimal(v, scale), *p, *s);
            each::<Decimal128Type, Decimal128Type>(
                array,
                to,
                how,
                |v| rescaled(v, scale, *p, *s),
                fail,
            )
        }
        DataType::Timestamp(_, Some(_)) => {
            let micros = |v: i128| (v.checked_mul(1_000_000)? / unit).try_into().ok();
            each::<Decimal128Type, TimestampMicrosecondType>(array, to, how, micros, fail)
        }
        other => Err(no_cast(from, other)),
    }
}

fn from_date(array: &ArrayRef, to: &DataType, how: &How) -> Result<ArrayRef> {
    let DataType::Timestamp(_, target) = to else {
        return Err(no_cast(array.data_type(), to));
    };
    let zone = if target.is_some() {
        how.zone
    } else {
        Zone::Fixed(0)
    };
    let midnight = |days: i32| {
        i64::from(days)
            .checked_mul(DAY)
            .map(|local| zone.to_utc(local))
    };
    let fail = |_| RunError::raise("ARITHMETIC_OVERFLOW", "long overflow");
    each::<Date32Type, TimestampMicrosecondType>(array, to, how, midnight, fail)
}

fn from_timestamp(array: &ArrayRef, instant: bool, to: &DataType, how: &How) -> Result<ArrayRef> {
    type Micros = TimestampMicrosecondType;
    let from = array.data_type();
    let fail = |v: i64| overflow(format!("TIMESTAMP '{}'", text::timestamp(v)), from, to);
    let seconds = |v: i64| v.div_euclid(1_000_000);
    let local = |v: i64| if instant { how.zone.to_local(v) } else { v };
    match to {
        DataType::Int8 => {
            each::<Micros, Int8Type>(array, to, how, |v| seconds(v).try_into().ok(), fail)
        }
        DataType::Int16 => {
            each::<Micros, Int16Type>(array, to, how, |v| seconds(v).try_into().ok(), fail)
        }
        DataType::Int32 => {
            each::<Micros, Int32Type>(array, to, how, |v| seconds(v).try_into().ok(), fail)
        }
        DataType::Int64 => each::<Micros, Int64Type>(array, to, how, |v| Some(seconds(v)), fail),
        DataType::Float32 => {
            each::<Micros, Float32Type>(array, to, how, |v| Some((v as f64 / 1e6) as f32), fail)
        }
        DataType::Float64 => {
            each::<Micros, Float64Type>(array, to, how, |v| Some(v as f64 / 1e6), fail)
        }
        DataType::Decimal128(p, s) => {
            let fail = |v: i64| out_of_range(text::decimal(i128::from(v), 6), *p, *s);
            each::<Micros, Decimal128Type>(
                array,
                to,
                how,
                |v| rescaled(i128::from(v), 6, *p, *s),
                fail,
            )
        }
        DataType::Date32 => each::<Micros, Date32Type>(
            array,
            to,
            how,
            |v| local(v).div_euclid(DAY).try_into().ok(),
            fail,
        ),
        DataType::Timestamp(_, None) => {
            each::<Micros, Micros>(array, to, how, |v| Some(local(v)), fail)
        }
        DataType::Timestamp(_, Some(_)) => {
            each::<Micros, Micros>(array, to, how, |v| Some(how.zone.to_utc(v)), fail)
        }
        other => Err(no_cast(from, other)),
    }
}
