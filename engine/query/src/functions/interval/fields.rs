//! `EXTRACT` from an interval.

use std::sync::Arc;

use arrow::array::{Array, PrimitiveArray};
use arrow::datatypes::{DataType, Decimal128Type, Int8Type, Int32Type};

use super::{Kind, Step, plain};
use crate::error::QueryError;
use crate::functions::kernel::{Can, Kernel, Typed};
use crate::types::type_sql;
use highwater_text::calendar::DAY;

type Result<T> = std::result::Result<T, QueryError>;

/// What a part of an interval is computed from.
type Part = fn((i64, i64, i64)) -> i64;

/// `EXTRACT(part FROM interval)`.
pub(crate) fn extract(part: &str, value: Typed) -> Result<Typed> {
    let kind = Kind::of(&value);
    let value = plain(value);
    let (months, time) = match kind {
        Some(Kind::Months) => (true, false),
        Some(_) => (false, true),
        None => (true, true),
    };
    let found: Option<(&str, DataType, Part)> = match part {
        "year" | "y" | "years" | "yr" | "yrs" if months => {
            Some(("year", DataType::Int32, |(m, _, _)| m / 12))
        }
        "month" | "mon" | "mons" | "months" if months => {
            Some(("month", DataType::Int8, |(m, _, _)| m % 12))
        }
        "day" | "d" | "days" if time => Some(("day", DataType::Int32, |(_, d, us)| d + us / DAY)),
        "hour" | "h" | "hours" | "hr" | "hrs" if time => {
            Some(("hour", DataType::Int8, |(_, _, us)| {
                us % DAY / 3_600_000_000
            }))
        }
        "minute" | "m" | "min" | "mins" | "minutes" if time => {
            Some(("minute", DataType::Int8, |(_, _, us)| {
                us % 3_600_000_000 / 60_000_000
            }))
        }
        "second" | "s" | "sec" | "seconds" | "secs" if time => {
            Some(("second", DataType::Decimal128(8, 6), |(_, _, us)| {
                us % 60_000_000
            }))
        }
        _ => None,
    };
    let Some((name, returns, f)) = found else {
        let message = format!(
            "Cannot extract the field `{}` from the interval of type \"{}\".",
            part.to_uppercase(),
            type_sql(&value.data_type)
        );
        return Err(QueryError::new("INVALID_EXTRACT_FIELD", message));
    };
    let target = returns.clone();
    Ok(Kernel::over_arrays(
        format!("interval_{name}"),
        "",
        vec![value],
        returns,
        Can::NotFail,
        move |args, rows| {
            let parts = (0..rows).map(|row| {
                let known = args[0].is_valid(row);
                known.then(|| f(Step::Value.parts(&args[0], row)))
            });
            Ok(match &target {
                DataType::Int8 => Arc::new(
                    parts
                        .map(|p| p.map(|p| p as i8))
                        .collect::<PrimitiveArray<Int8Type>>(),
                ),
                DataType::Int32 => Arc::new(
                    parts
                        .map(|p| p.map(|p| p as i32))
                        .collect::<PrimitiveArray<Int32Type>>(),
                ),
                _ => Arc::new(
                    parts
                        .map(|p| p.map(i128::from))
                        .collect::<PrimitiveArray<Decimal128Type>>()
                        .with_data_type(target.clone()),
                ),
            })
        },
    ))
}
