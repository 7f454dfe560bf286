//! Conversions to and from text.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BooleanArray, PrimitiveArray,
    StringArray, StringBuilder,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, DurationMicrosecondType, DurationSecondType, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType,
    IntervalYearMonthType, TimestampMicrosecondType,
};
use datafusion::common::DataFusionError;

use super::How;
use super::parse::{self, Zone};
use crate::error::RunError;
use crate::functions::kernel::Result;
use crate::functions::text;
use crate::text::{push_date, push_decimal, push_f32, push_f64, push_integer, push_timestamp};
use crate::types::{CALENDAR, DAY_TIME, DAYS, YEAR_MONTH, type_sql};

/// Every value as text.
pub(super) fn to_text(array: &ArrayRef, zone: &Zone) -> Result<ArrayRef> {
    let mut out = StringBuilder::with_capacity(array.len(), array.len() * 8);
    let mut value = String::new();
    let write = writer(array, zone)?;
    for row in 0..array.len() {
        if array.is_null(row) {
            out.append_null();
            continue;
        }
        value.clear();
        write(row, &mut value);
        out.append_value(&value);
    }
    Ok(Arc::new(out.finish()))
}

type Writer<'a> = Box<dyn Fn(usize, &mut String) + 'a>;

fn plain<'a, T: ArrowPrimitiveType>(
    array: &'a ArrayRef,
    push: impl Fn(&mut String, T::Native) + 'a,
) -> Writer<'a> {
    let array = array.as_primitive::<T>();
    Box::new(move |row, out| push(out, array.value(row)))
}

/// How to write one value that is not null.
fn writer<'a>(array: &'a ArrayRef, zone: &Zone) -> Result<Writer<'a>> {
    let zone = *zone;
    Ok(match array.data_type() {
        DataType::Boolean => {
            let array = array.as_boolean();
            Box::new(move |row, out| out.push_str(if array.value(row) { "true" } else { "false" }))
        }
        DataType::Int8 => plain::<Int8Type>(array, |out, v| push_integer(out, v.into())),
        DataType::Int16 => plain::<Int16Type>(array, |out, v| push_integer(out, v.into())),
        DataType::Int32 => plain::<Int32Type>(array, |out, v| push_integer(out, v.into())),
        DataType::Int64 => plain::<Int64Type>(array, push_integer),
        DataType::Float32 => plain::<Float32Type>(array, push_f32),
        DataType::Float64 => plain::<Float64Type>(array, push_f64),
        DataType::Decimal128(_, scale) => {
            let scale = *scale;
            plain::<Decimal128Type>(array, move |out, v| push_decimal(out, v, scale))
        }
        DataType::Utf8 => {
            let array = array.as_string::<i32>();
            Box::new(move |row, out| out.push_str(array.value(row)))
        }
        DataType::Binary => {
            let array = array.as_binary::<i32>();
            Box::new(move |row, out| out.push_str(&String::from_utf8_lossy(array.value(row))))
        }
        DataType::Date32 => plain::<Date32Type>(array, |out, days| push_date(out, i64::from(days))),
        DataType::Timestamp(_, Some(_)) => {
            plain::<TimestampMicrosecondType>(array, move |out, v| {
                push_timestamp(out, zone.to_local(v))
            })
        }
        DataType::Timestamp(_, None) => plain::<TimestampMicrosecondType>(array, push_timestamp),
        t if *t == DAY_TIME => {
            plain::<DurationMicrosecondType>(array, |out, v| out.push_str(&text::day_time(v)))
        }
        t if *t == DAYS => {
            plain::<DurationSecondType>(array, |out, v| out.push_str(&text::days(v)))
        }
        t if *t == CALENDAR => plain::<IntervalMonthDayNanoType>(array, |out, v| {
            let micros = v.nanoseconds / 1_000;
            out.push_str(&text::calendar_interval(v.months, v.days, micros));
        }),
        t if *t == YEAR_MONTH => {
            plain::<IntervalYearMonthType>(array, |out, v| out.push_str(&text::year_month(v)))
        }
        DataType::Null => Box::new(|_, out| out.push_str("null")),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let (values, element) = (list.values(), writer(list.values(), &zone)?);
            Box::new(move |row, out| {
                out.push('[');
                for (nth, i) in
                    (list.value_offsets()[row]..list.value_offsets()[row + 1]).enumerate()
                {
                    out.push_str(if nth > 0 { ", " } else { "" });
                    or_null(values, i as usize, &element, out);
                }
                out.push(']');
            })
        }
        DataType::Struct(_) => {
            let columns = array.as_struct().columns();
            let each = columns
                .iter()
                .map(|c| Ok((c, writer(c, &zone)?)))
                .collect::<Result<Vec<_>>>()?;
            Box::new(move |row, out| {
                out.push('{');
                for (nth, (column, write)) in each.iter().enumerate() {
                    out.push_str(if nth > 0 { ", " } else { "" });
                    or_null(column, row, write, out);
                }
                out.push('}');
            })
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let (keys, values) = (writer(map.keys(), &zone)?, writer(map.values(), &zone)?);
            Box::new(move |row, out| {
                out.push('{');
                for (nth, i) in (map.value_offsets()[row]..map.value_offsets()[row + 1]).enumerate()
                {
                    out.push_str(if nth > 0 { ", " } else { "" });
                    keys(i as usize, out);
                    let _ = out.write_str(" -> ");
                    or_null(map.values(), i as usize, &values, out);
                }
                out.push('}');
            })
        }
        other => return Err(DataFusionError::Internal(format!("no text for {other}"))),
    })
}

fn or_null(array: &ArrayRef, row: usize, write: &Writer<'_>, out: &mut String) {
    if array.is_null(row) {
        out.push_str("null")
    } else {
        write(row, out)
    }
}

/// Every text as a value of type `to`.
pub(super) fn from_text(texts: &StringArray, to: &DataType, how: &How) -> Result<ArrayRef> {
    let zone = how.zone;
    let instant = |t: &str| parse::moment(t).map(|m| m.zone.unwrap_or(zone).to_utc(m.local));
    Ok(match to {
        DataType::Boolean => {
            let mut out = vec![];
            for text in texts {
                out.push(match text.map(|t| (t, parse::boolean(t))) {
                    None => None,
                    Some((_, Some(value))) => Some(value),
                    Some((_, None)) if how.attempt => None,
                    Some((text, None)) => return Err(invalid(text, to)),
                });
            }
            Arc::new(BooleanArray::from(out))
        }
        DataType::Int8 => each::<Int8Type>(texts, to, how, |t| parse::integer(t)?.try_into().ok())?,
        DataType::Int16 => {
            each::<Int16Type>(texts, to, how, |t| parse::integer(t)?.try_into().ok())?
        }
        DataType::Int32 => {
            each::<Int32Type>(texts, to, how, |t| parse::integer(t)?.try_into().ok())?
        }
        DataType::Int64 => each::<Int64Type>(texts, to, how, parse::integer)?,
        // Through double would round twice.
        DataType::Float32 => each::<Float32Type>(texts, to, how, |t| match parse::double(t)? {
            d if !d.is_finite() => Some(d as f32),
            _ => parse::trimmed(t)
                .trim_end_matches(['d', 'D', 'f', 'F'])
                .parse()
                .ok(),
        })?,
        DataType::Float64 => each::<Float64Type>(texts, to, how, parse::double)?,
        DataType::Date32 => each::<Date32Type>(texts, to, how, parse::date)?,
        DataType::Timestamp(_, Some(_)) => {
            each::<TimestampMicrosecondType>(texts, to, how, instant)?
        }
        DataType::Timestamp(_, None) => {
            each::<TimestampMicrosecondType>(texts, to, how, |t| parse::moment(t).map(|m| m.local))?
        }
        DataType::Decimal128(precision, scale) => {
            let mut out = PrimitiveArray::<Decimal128Type>::builder(texts.len());
            for text in texts {
                match text.map(|t| (t, parse::decimal(t, *precision, *scale))) {
                    Some((_, parse::Decimal::Is(value))) => out.append_value(value),
                    Some((text, parse::Decimal::NoNumber)) if !how.attempt => {
                        return Err(invalid(text, to));
                    }
                    Some((text, parse::Decimal::TooLarge)) if !how.attempt => {
                        return Err(super::numbers::out_of_range(text, *precision, *scale));
                    }
                    _ => out.append_null(),
                }
            }
            Arc::new(out.finish().with_data_type(to.clone()))
        }
        DataType::Binary => Arc::new(BinaryArray::from_iter(
            texts.iter().map(|t| t.map(str::as_bytes)),
        )),
        other => {
            return Err(DataFusionError::Internal(format!(
                "no cast of text to {other}"
            )));
        }
    })
}

fn each<T: ArrowPrimitiveType>(
    texts: &StringArray,
    to: &DataType,
    how: &How,
    read: impl Fn(&str) -> Option<T::Native>,
) -> Result<ArrayRef> {
    let mut out = PrimitiveArray::<T>::builder(texts.len());
    for text in texts {
        match text.map(|t| (t, read(t))) {
            None => out.append_null(),
            Some((_, Some(value))) => out.append_value(value),
            Some((_, None)) if how.attempt => out.append_null(),
            Some((text, None)) => return Err(invalid(text, to)),
        }
    }
    Ok(Arc::new(out.finish().with_data_type(to.clone())))
}

fn invalid(text: &str, to: &DataType) -> DataFusionError {
    let to = type_sql(to);
    let message = format!(
        "The value '{text}' of the type \"STRING\" cannot be cast to \"{to}\" because it is malformed. Correct the value as per the syntax, or change its target type. Use `try_cast` to tolerate malformed input and return NULL instead."
    );
    RunError::raise("CAST_INVALID_INPUT", message)
}
