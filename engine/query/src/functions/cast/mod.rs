//! Conversions: which are allowed, and their kernels.

mod numbers;
pub(crate) use numbers::divide_half_up;
pub(crate) mod parse;
mod texts;

use std::cell::Cell;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, StructArray, new_null_array};
use arrow::datatypes::{DataType, DurationMicrosecondType, DurationSecondType, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Cast, ColumnarValue, Expr as DfExpr};

use super::arithmetic::without_ansi;
use super::interval;
use super::kernel::{Can, Kernel, Result as Run, Typed};
use crate::coerce::{is_atomic, is_float, is_integral, is_numeric, is_time, is_timestamp};
use crate::error::{QueryError, RunError};
use crate::types::{CALENDAR, DAY_TIME, DAYS, TIMESTAMP_NTZ, YEAR_MONTH, type_sql};

type Result<T> = std::result::Result<T, QueryError>;

/// How a conversion goes about what cannot be converted, and in which zone days begin.
#[derive(Debug, Clone)]
pub(crate) struct How {
    /// NULL instead of an error.
    pub(crate) attempt: bool,
    pub(crate) zone: parse::Zone,
}

/// `CAST(value AS to)` as written.
pub(crate) fn explicit(value: Typed, to: &DataType, attempt: bool, zone: &str) -> Result<Typed> {
    let zone = parse::Zone::named(zone).ok_or_else(|| {
        QueryError::new(
            "INVALID_TIMEZONE",
            format!("The timezone: {zone} is invalid."),
        )
    })?;
    let value = interval::plain_days(value);
    if value.data_type == CALENDAR && value.constant().is_some() && is_numeric(to) {
        // Of which unit the number is was told by those that it was written with.
        let message = "a cast of an INTERVAL literal of these units to a number";
        return Err(QueryError::unsupported(message));
    }
    if !allowed(&value.data_type, to) {
        return Err(refused(&value.data_type, to));
    }
    convert(value, to, How { attempt, zone })
}

thread_local! {
    static ANSI: Cell<bool> = const { Cell::new(true) };
}

/// Resolves with the session's word on ANSI, which decides how types come together.
pub(crate) fn by_ansi<T>(ansi: bool, resolve: impl FnOnce() -> T) -> T {
    let before = ANSI.replace(ansi);
    let result = resolve();
    ANSI.set(before);
    result
}

/// A cast that the resolver inserts.
pub(crate) fn implicit(value: Typed, to: &DataType) -> Result<Typed> {
    if value.data_type == *to {
        return Ok(value);
    }
    // Without ANSI what a text meets may become a text, and what a FLOAT meets a FLOAT.
    let parts = matches!(
        (&value.data_type, to),
        (DataType::Utf8, _) | (DataType::Float32, DataType::Float64)
    );
    if parts && !ANSI.get() {
        return Err(without_ansi(&format!(
            "a {} where a {} is wanted (write CAST or try_cast)",
            type_sql(&value.data_type),
            type_sql(to)
        )));
    }
    if !allowed(&value.data_type, to) {
        return Err(refused(&value.data_type, to));
    }
    let from = value.expr.clone();
    let converted = convert(
        value,
        to,
        How {
            attempt: false,
            zone: parse::session_zone(),
        },
    )?;
    // A value that needs no conversion is as it was written.
    Ok(match converted.expr == from {
        true => converted,
        false => Kernel::implied(converted),
    })
}

/// The constant that `text` is as a value of type `to`.
pub(crate) fn text_to_scalar(text: &str, to: &DataType, zone: &str) -> Option<ScalarValue> {
    let value = Typed::literal(ScalarValue::Utf8(Some(text.to_string())));
    explicit(value, to, false, zone).ok()?.constant().cloned()
}

fn convert(value: Typed, to: &DataType, how: How) -> Result<Typed> {
    let value = match interval::Kind::of(&value) {
        Some(interval::Kind::Days | interval::Kind::Literal)
            if matches!(to, DataType::Duration(_)) =>
        {
            interval::plain(value)
        }
        Some(interval::Kind::Months) if *to == YEAR_MONTH => interval::plain(value),
        Some(interval::Kind::Days) => interval::plain(value),
        _ if value.data_type == CALENDAR && value.constant().is_some_and(|v| !v.is_null()) => {
            // Its text tells the units that it was written with.
            let message = "a cast of an INTERVAL literal of these units";
            return Err(QueryError::unsupported(message));
        }
        _ => value,
    };
    let from = value.data_type.clone();
    if from == *to {
        return Ok(value);
    }
    if let Some(constant) = value.constant() {
        if constant.is_null() {
            return Ok(Typed::null(to));
        }
        if supported(&from, to)
            && let Ok(array) = constant.to_array()
            && let Ok(converted) = array_to(&array, to, &how)
            && let Ok(constant) = ScalarValue::try_from_array(&converted, 0)
        {
            return Ok(Typed::literal(constant));
        }
    }
    if !supported(&from, to) {
        let message = format!("a cast from {} to {}", type_sql(&from), type_sql(to));
        return Err(QueryError::unsupported(message));
    }
    // Arrow's own casts where they cannot fail: the optimizer knows what they do.
    let native = from == DataType::Null
        || is_integral(&from) && is_integral(to) && from.primitive_width() < to.primitive_width()
        || (is_integral(&from) || from == DataType::Float32) && *to == DataType::Float64;
    if native {
        return Ok(Typed::new(
            DfExpr::Cast(Cast::new(Box::new(value.expr), to.clone())),
            to.clone(),
        ));
    }
    let can = if how.attempt || total(&from, to) {
        Can::NotFail
    } else {
        Can::Fail
    };
    let name = if how.attempt { "try_cast" } else { "cast" };
    let params = format!("as {}{}", type_sql(to), how.zone.suffix());
    let target = to.clone();
    Ok(Kernel::call(
        name,
        params,
        vec![value],
        to.clone(),
        can,
        move |args, _| match &args[0] {
            ColumnarValue::Array(array) => {
                Ok(ColumnarValue::Array(array_to(array, &target, &how)?))
            }
            ColumnarValue::Scalar(scalar) => {
                let converted = array_to(&scalar.to_array()?, &target, &how)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                    &converted, 0,
                )?))
            }
        },
    ))
}

/// Whether no value of `from` fails to convert.
fn total(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (_, DataType::Utf8) | (DataType::Boolean, _) | (_, DataType::Boolean) => {
            *from != DataType::Utf8
        }
        (DataType::Utf8, DataType::Binary) => true,
        (from, DataType::Float32 | DataType::Float64) => *from != DataType::Utf8,
        (from, DataType::Date32) => is_timestamp(from),
        (DataType::Timestamp(..), DataType::Timestamp(..) | DataType::Int64) => true,
        (from, to) if is_integral(from) && is_integral(to) => {
            from.primitive_width() <= to.primitive_width()
        }
        (from, DataType::Decimal128(p, s)) => match crate::coerce::decimal_for(from) {
            Some((fp, fs)) => {
                i32::from(*p) - i32::from(*s) >= i32::from(fp) - i32::from(fs) && *s >= fs
            }
            None => false,
        },
        (DataType::List(a), DataType::List(b)) => {
            a.data_type() == b.data_type() || total(a.data_type(), b.data_type())
        }
        (DataType::Struct(a), DataType::Struct(b)) => a
            .iter()
            .zip(b)
            .all(|(a, b)| a.data_type() == b.data_type() || total(a.data_type(), b.data_type())),
        _ => false,
    }
}

/// Spark's ANSI matrix of explicit casts.
fn allowed(from: &DataType, to: &DataType) -> bool {
    if from == to || *from == DataType::Null {
        return true;
    }
    match (from, to) {
        (_, DataType::Utf8) => true,
        (DataType::Utf8, to) => is_atomic(to),
        (DataType::Boolean, to) => is_numeric(to) || *to == crate::types::timestamp(),
        (from, DataType::Boolean) => is_numeric(from),
        (from, to) if is_numeric(from) && is_numeric(to) => true,
        (from, to) if is_numeric(from) => {
            *to == crate::types::timestamp()
                || matches!(to, DataType::Duration(_))
                || *to == YEAR_MONTH
        }
        (from, to) if is_time(from) && is_time(to) => true,
        (from, to) if is_timestamp(from) && *from != TIMESTAMP_NTZ => is_numeric(to),
        (DataType::Duration(_), DataType::Duration(_)) => true,
        (DataType::Duration(_), to) => is_integral(to) || *to == CALENDAR,
        (from, to) if *from == YEAR_MONTH => is_integral(to) || *to == CALENDAR,
        (DataType::List(a), DataType::List(b)) => allowed(a.data_type(), b.data_type()),
        (DataType::Map(a, _), DataType::Map(b, _)) => allowed(a.data_type(), b.data_type()),
        (DataType::Struct(a), DataType::Struct(b)) => {
            a.len() == b.len()
                && a.iter()
                    .zip(b)
                    .all(|(a, b)| allowed(a.data_type(), b.data_type()))
        }
        _ => false,
    }
}

/// Whether there is a kernel.
fn supported(from: &DataType, to: &DataType) -> bool {
    let interval = interval::is_interval;
    match (from, to) {
        (from, to) if from == to => true,
        (DataType::Null, _) => true,
        (from, DataType::Utf8) if interval(from) => true,
        (from, to) if *from == DAYS && *to == DAY_TIME => true,
        (DataType::Duration(_), to) if is_integral(to) => true,
        (from, to) if interval(from) || interval(to) => false,
        (DataType::Boolean, to) if is_timestamp(to) => false,
        (DataType::List(a), DataType::Utf8) => supported(a.data_type(), &DataType::Utf8),
        (DataType::Struct(a), DataType::Utf8) => {
            a.iter().all(|a| supported(a.data_type(), &DataType::Utf8))
        }
        (DataType::Map(a, _), DataType::Utf8) => supported(a.data_type(), &DataType::Utf8),
        (DataType::List(a), DataType::List(b)) => supported(a.data_type(), b.data_type()),
        (DataType::Map(a, _), DataType::Map(b, _)) => supported(a.data_type(), b.data_type()),
        (DataType::Struct(a), DataType::Struct(b)) => a
            .iter()
            .zip(b)
            .all(|(a, b)| supported(a.data_type(), b.data_type())),
        _ => true,
    }
}

fn refused(from: &DataType, to: &DataType) -> QueryError {
    let number_and_date =
        is_numeric(from) && *to == DataType::Date32 || *from == DataType::Date32 && is_numeric(to);
    let legacy = is_integral(from) && *to == DataType::Binary
        || *from == crate::types::timestamp() && *to == DataType::Boolean;
    let kind = match (number_and_date, legacy) {
        (true, _) => "CAST_WITH_FUNC_SUGGESTION",
        (_, true) => "CAST_WITH_CONF_SUGGESTION",
        _ => "CAST_WITHOUT_SUGGESTION",
    };
    let message = format!(
        "Cannot resolve \"CAST\" due to data type mismatch: cannot cast \"{}\" to \"{}\".",
        type_sql(from),
        type_sql(to)
    );
    QueryError::mismatch(kind, message)
}

/// All values of `array` as `to`.
pub(crate) fn array_to(array: &ArrayRef, to: &DataType, how: &How) -> Run<ArrayRef> {
    let from = array.data_type();
    if from == to {
        return Ok(Arc::clone(array));
    }
    match (from, to) {
        (DataType::Null, _) => Ok(new_null_array(to, array.len())),
        (_, DataType::Utf8) => texts::to_text(array, &how.zone),
        (DataType::Utf8, _) => texts::from_text(array.as_string(), to, how),
        (DataType::List(_), DataType::List(field)) => {
            let list = crate::functions::nested::compact(array.as_list())?;
            let values = array_to(list.values(), field.data_type(), how)?;
            Ok(Arc::new(ListArray::try_new(
                Arc::clone(field),
                list.offsets().clone(),
                values,
                list.nulls().cloned(),
            )?))
        }
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let structs = array.as_struct();
            let columns = fields.iter().enumerate().map(|(i, f)| {
                array_to(
                    &crate::functions::nested::struct_field(structs, i)?,
                    f.data_type(),
                    how,
                )
            });
            let columns = columns.collect::<Run<_>>()?;
            Ok(Arc::new(StructArray::try_new(
                fields.clone(),
                columns,
                array.nulls().cloned(),
            )?))
        }
        (DataType::Map(..), DataType::Map(field, sorted)) => {
            let map = array.as_map();
            let entries: ArrayRef = Arc::new(map.entries().clone());
            let entries = array_to(&entries, field.data_type(), how)?
                .as_struct()
                .clone();
            let nulls = map.nulls().cloned();
            Ok(Arc::new(MapArray::try_new(
                Arc::clone(field),
                map.offsets().clone(),
                entries,
                nulls,
                *sorted,
            )?))
        }
        (DataType::Duration(_), to) if is_integral(to) => {
            let whole: ArrayRef = match *from == DAYS {
                true => {
                    let seconds = array.as_primitive::<DurationSecondType>();
                    Arc::new(seconds.unary::<_, Int64Type>(|seconds| seconds / 86_400))
                }
                false => {
                    let micros = array.as_primitive::<DurationMicrosecondType>();
                    Arc::new(micros.unary::<_, Int64Type>(|micros| micros / 1_000_000))
                }
            };
            array_to(&whole, to, how)
        }
        (from, to) if *from == DAYS && *to == DAY_TIME => {
            let seconds = array.as_primitive::<DurationSecondType>();
            let micros = seconds.try_unary::<_, DurationMicrosecondType, _>(|seconds| {
                seconds
                    .checked_mul(1_000_000)
                    .ok_or_else(|| RunError::raise("CAST_OVERFLOW", "long overflow"))
            });
            Ok(Arc::new(micros?))
        }
        _ if is_float(from) || is_numeric(from) || is_time(from) || *from == DataType::Boolean => {
            numbers::convert(array, to, how)
        }
        _ => Err(datafusion::common::DataFusionError::Internal(format!(
            "no cast from {from} to {to}"
        ))),
    }
}
