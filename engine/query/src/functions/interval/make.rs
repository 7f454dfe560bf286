//! Intervals made of numbers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Decimal128Type, DurationMicrosecondType, Int32Type, IntervalMonthDayNano,
    IntervalMonthDayNanoType, IntervalYearMonthType,
};
use datafusion::common::{DataFusionError, ScalarValue};

use crate::coerce::is_numeric;
use crate::error::{QueryError, RunError};
use crate::functions::kernel::{Can, Kernel, Result as Run, Typed};
use crate::functions::{Args, cast};
use crate::types::{CALENDAR, DAY_TIME, YEAR_MONTH};

type Result<T> = std::result::Result<T, QueryError>;

const SECONDS: DataType = DataType::Decimal128(18, 6);

/// The arguments as whole numbers, the last of `most` as seconds where `seconds`; those that are missing are 0.
fn parts(args: &Args, most: usize, seconds: bool) -> Result<Vec<Typed>> {
    let mut types = vec![DataType::Int32; most];
    if seconds {
        types[most - 1] = SECONDS;
    }
    let mut given = args.at_least(0)?;
    if seconds
        && let Some(last) = given.get_mut(most - 1)
        && is_numeric(&last.data_type)
    {
        *last = cast::implicit(last.clone(), &SECONDS)?;
    }
    let given = Args {
        name: args.name,
        values: given,
        conf: args.conf,
    };
    let mut values = given.typed(&types, 0)?;
    for missing in &types[values.len()..] {
        values.push(Typed::literal(match missing {
            DataType::Int32 => ScalarValue::Int32(Some(0)),
            _ => ScalarValue::Decimal128(Some(0), 18, 6),
        }));
    }
    Ok(values)
}

/// One row's parts as integers, seconds as microseconds.
fn row_of(args: &[ArrayRef], row: usize) -> Option<Vec<i64>> {
    args.iter()
        .map(|part| {
            part.is_valid(row).then(|| match part.data_type() {
                DataType::Int32 => i64::from(part.as_primitive::<Int32Type>().value(row)),
                // Eighteen digits fit.
                _ => part.as_primitive::<Decimal128Type>().value(row) as i64,
            })
        })
        .collect()
}

fn time(hours: i64, minutes: i64, micros: i64) -> Option<i64> {
    hours
        .checked_mul(3_600_000_000)?
        .checked_add(minutes.checked_mul(60_000_000)?)?
        .checked_add(micros)
}

fn overflow(name: &str) -> DataFusionError {
    let (class, advice) = match name {
        "make_interval" => (
            "ARITHMETIC_OVERFLOW",
            " Use `try_make_interval` to tolerate overflow and return NULL instead.",
        ),
        _ => ("INTERVAL_ARITHMETIC_OVERFLOW.WITHOUT_SUGGESTION", ""),
    };
    let message = format!("Integer overflow while operating with intervals.{advice}");
    RunError::raise(class, message)
}

/// `make_interval`, `try_make_interval`, `make_dt_interval` and `make_ym_interval`.
pub(crate) fn make(name: &'static str, args: &Args) -> Result<Typed> {
    let attempt = name == "try_make_interval";
    let can = if attempt { Can::NotFail } else { Can::Fail };
    let (values, returns) = match name {
        "make_dt_interval" => (parts(args, 4, true)?, DAY_TIME),
        "make_ym_interval" => (parts(args, 2, false)?, YEAR_MONTH),
        _ => (parts(args, 7, true)?, CALENDAR),
    };
    Ok(Kernel::over_arrays(
        name,
        "",
        values,
        returns,
        can,
        move |args, rows| {
            let rows = (0..rows).map(|row| row_of(args, row));
            fn made<T>(
                rows: impl Iterator<Item = Option<Vec<i64>>>,
                name: &str,
                make: impl Fn(&[i64]) -> Run<Option<T>>,
            ) -> Run<Vec<Option<T>>> {
                rows.map(|parts| match parts {
                    None => Ok(None),
                    Some(parts) => match make(&parts)? {
                        None if name != "try_make_interval" => Err(overflow(name)),
                        interval => Ok(interval),
                    },
                })
                .collect()
            }
            Ok(match name {
                "make_dt_interval" => {
                    let of = |p: &[i64]| {
                        let days = p[0].checked_mul(86_400_000_000);
                        Ok(days.and_then(|days| time(p[1], p[2], p[3])?.checked_add(days)))
                    };
                    let made = made(rows, name, of)?;
                    Arc::new(PrimitiveArray::<DurationMicrosecondType>::from_iter(made)) as ArrayRef
                }
                "make_ym_interval" => {
                    let of = |p: &[i64]| Ok(i32::try_from(p[0] * 12 + p[1]).ok());
                    let made = made(rows, name, of)?;
                    Arc::new(PrimitiveArray::<IntervalYearMonthType>::from_iter(made))
                }
                _ => {
                    let made = made(rows, name, calendar)?;
                    Arc::new(PrimitiveArray::<IntervalMonthDayNanoType>::from_iter(made))
                }
            })
        },
    ))
}

fn calendar(p: &[i64]) -> Run<Option<IntervalMonthDayNano>> {
    let (months, days) = (
        i32::try_from(p[0] * 12 + p[1]),
        i32::try_from(p[2] * 7 + p[3]),
    );
    let (Ok(months), Ok(days), Some(micros)) = (months, days, time(p[4], p[5], p[6])) else {
        return Ok(None);
    };
    match micros.checked_mul(1_000) {
        Some(nanoseconds) => Ok(Some(IntervalMonthDayNano::new(months, days, nanoseconds))),
        None => Err(RunError::raise(
            "UNSUPPORTED_FEATURE",
            "an interval of months and days with more than 292 years of hours is not supported yet",
        )),
    }
}
