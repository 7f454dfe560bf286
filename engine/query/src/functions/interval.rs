//! Arithmetic on dates, timestamps and intervals.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Date32Type, DurationMicrosecondType, IntervalMonthDayNanoType, IntervalYearMonthType,
    TimestampMicrosecondType,
};
use datafusion::common::ScalarValue;

use super::cast;
use super::cast::parse::{Zone, session_zone};
use super::datetime::plus_days;
use super::kernel::{Can, Kernel, Result as Run, Typed};
use crate::coerce::{is_integral, is_timestamp};
use crate::error::{QueryError, RunError};
use crate::expr::BinaryOp;
use crate::plan::Conf;
use crate::types::{CALENDAR, DAY_TIME, TIMESTAMP_NTZ, YEAR_MONTH, timestamp, type_sql};
use highwater_text::calendar::{Civil, DAY};

type Result<T> = std::result::Result<T, QueryError>;

pub(crate) fn is_interval(t: &DataType) -> bool {
    *t == DAY_TIME || *t == YEAR_MONTH || *t == CALENDAR
}

/// A moment so many months, then days on the wall clock, then microseconds later.
pub(crate) fn plus(utc: i64, months: i64, days: i64, micros: i64, zone: Zone) -> Option<i64> {
    // Twice as far as a timestamp reaches.
    if months.unsigned_abs() > 12_000_000 || days.unsigned_abs() > 300_000_000 {
        return None;
    }
    let mut moment = utc;
    if months != 0 || days != 0 {
        let local = zone.to_local(utc);
        let date = Civil::of(local.div_euclid(DAY));
        let date = if months == 0 {
            date.days()
        } else {
            date.plus_months(months).days()
        };
        let local = date
            .checked_add(days)?
            .checked_mul(DAY)?
            .checked_add(local.rem_euclid(DAY))?;
        moment = zone.to_utc(local);
    }
    moment.checked_add(micros)
}

/// `left op right` where one side is a date, a timestamp or an interval; `None` where neither is.
pub(crate) fn arithmetic(
    op: BinaryOp,
    left: &Typed,
    right: &Typed,
    _: &Conf,
) -> Result<Option<Typed>> {
    let (l, r) = (&left.data_type, &right.data_type);
    let time = |t: &DataType| *t == DataType::Date32 || is_timestamp(t);
    if !time(l) && !time(r) && !is_interval(l) && !is_interval(r) {
        return Ok(None);
    }
    let whole = |t: &DataType| is_integral(t) && *t != DataType::Int64;
    Ok(Some(match op {
        BinaryOp::Add if time(l) && is_interval(r) => shift(left.clone(), right.clone(), 1)?,
        BinaryOp::Add if is_interval(l) && time(r) => shift(right.clone(), left.clone(), 1)?,
        BinaryOp::Subtract if time(l) && is_interval(r) => shift(left.clone(), right.clone(), -1)?,
        BinaryOp::Add if *l == DataType::Date32 && whole(r) => {
            plus_days("date_add", left.clone(), right.clone(), 1)?
        }
        BinaryOp::Add if whole(l) && *r == DataType::Date32 => {
            plus_days("date_add", right.clone(), left.clone(), 1)?
        }
        BinaryOp::Subtract if *l == DataType::Date32 && whole(r) => {
            plus_days("date_sub", left.clone(), right.clone(), -1)?
        }
        BinaryOp::Subtract if *l == DataType::Date32 && *r == DataType::Date32 => {
            return Err(QueryError::unsupported(
                "a date minus a date (datediff gives the days)",
            ));
        }
        BinaryOp::Subtract if time(l) && time(r) => difference(left.clone(), right.clone())?,
        _ if is_interval(l) || is_interval(r) => {
            return Err(QueryError::unsupported(format!(
                "arithmetic on {} and {}",
                type_sql(l),
                type_sql(r)
            )));
        }
        _ => return Ok(None),
    }))
}

fn difference(left: Typed, right: Typed) -> Result<Typed> {
    let naive = left.data_type == TIMESTAMP_NTZ && right.data_type == TIMESTAMP_NTZ;
    let to = if naive { TIMESTAMP_NTZ } else { timestamp() };
    let (left, right) = (cast::implicit(left, &to)?, cast::implicit(right, &to)?);
    Ok(Kernel::over_arrays(
        "subtract",
        "",
        vec![left, right],
        DAY_TIME,
        Can::Fail,
        |args, _| {
            type Micros = TimestampMicrosecondType;
            let (l, r) = (
                args[0].as_primitive::<Micros>(),
                args[1].as_primitive::<Micros>(),
            );
            let spans = l.iter().zip(r).map(|(l, r)| match (l, r) {
                (Some(l), Some(r)) => l
                    .checked_sub(r)
                    .map(Some)
                    .ok_or_else(|| RunError::raise("ARITHMETIC_OVERFLOW", "long overflow")),
                _ => Ok(None),
            });
            Ok(Arc::new(
                spans.collect::<Run<PrimitiveArray<DurationMicrosecondType>>>()?,
            ))
        },
    ))
}

/// Months, days and microseconds of one interval that is not null.
fn parts(intervals: &ArrayRef, row: usize) -> (i64, i64, i64) {
    match intervals.data_type() {
        t if *t == DAY_TIME => {
            let micros = intervals
                .as_primitive::<DurationMicrosecondType>()
                .value(row);
            (0, micros / DAY, micros % DAY)
        }
        t if *t == YEAR_MONTH => (
            i64::from(intervals.as_primitive::<IntervalYearMonthType>().value(row)),
            0,
            0,
        ),
        _ => {
            let interval = intervals
                .as_primitive::<IntervalMonthDayNanoType>()
                .value(row);
            // Without months it is a day-time interval, whose whole days are days of the calendar however they are
            // written: 24 hours are one day.
            let micros = interval.nanoseconds / 1_000;
            let days = i64::from(interval.days);
            match interval.months {
                0 => {
                    let all = days * DAY + micros;
                    (0, all / DAY, all % DAY)
                }
                months => (i64::from(months), days, micros),
            }
        }
    }
}

fn shift(value: Typed, interval: Typed, sign: i64) -> Result<Typed> {
    let mut value = value;
    if value.data_type == DataType::Date32 {
        // A date stays one if the interval has no time of day: known for constants, and for years and months.
        let days = match interval.constant() {
            _ if interval.data_type == YEAR_MONTH => true,
            Some(ScalarValue::IntervalMonthDayNano(Some(interval))) => interval.nanoseconds == 0,
            Some(ScalarValue::DurationMicrosecond(Some(_))) => false,
            _ if interval.data_type == DAY_TIME => false,
            _ => {
                return Err(QueryError::unsupported(
                    "a date and an interval that is not constant",
                ));
            }
        };
        if days {
            return Ok(shift_date(value, interval, sign));
        }
        value = cast::implicit(value, &timestamp())?;
    }
    let returns = value.data_type.clone();
    let zone = if returns == TIMESTAMP_NTZ {
        Zone::Fixed(0)
    } else {
        session_zone()
    };
    let target = returns.clone();
    let label = format!("{sign}{}", zone.suffix());
    Ok(Kernel::over_arrays(
        "add_interval",
        label,
        vec![value, interval],
        returns,
        Can::Fail,
        move |args, rows| {
            let moments = args[0].as_primitive::<TimestampMicrosecondType>();
            let shifted = (0..rows).map(|row| {
                if moments.is_null(row) || args[1].is_null(row) {
                    return Ok(None);
                }
                let (months, days, micros) = parts(&args[1], row);
                let found = plus(
                    moments.value(row),
                    sign * months,
                    sign * days,
                    sign * micros,
                    zone,
                );
                found.map(Some).ok_or_else(|| {
                    RunError::raise("DATETIME_OVERFLOW", "Datetime operation overflow.")
                })
            });
            let shifted = shifted.collect::<Run<PrimitiveArray<TimestampMicrosecondType>>>()?;
            Ok(Arc::new(shifted.with_data_type(target.clone())))
        },
    ))
}

fn shift_date(value: Typed, interval: Typed, sign: i64) -> Typed {
    let label = sign.to_string();
    Kernel::over_arrays(
        "add_interval",
        label,
        vec![value, interval],
        DataType::Date32,
        Can::Fail,
        move |args, rows| {
            let dates = args[0].as_primitive::<Date32Type>();
            let shifted = (0..rows).map(|row| {
                if dates.is_null(row) || args[1].is_null(row) {
                    return Ok(None);
                }
                let (months, days, _) = parts(&args[1], row);
                let date = Civil::of(i64::from(dates.value(row)))
                    .plus_months(sign * months)
                    .days()
                    + sign * days;
                i32::try_from(date).map(Some).map_err(|_| {
                    RunError::raise("DATETIME_OVERFLOW", "Datetime operation overflow.")
                })
            });
            Ok(Arc::new(
                shifted.collect::<Run<PrimitiveArray<Date32Type>>>()?,
            ))
        },
    )
}

/// `-value` of an interval.
pub(crate) fn negate(value: &Typed) -> Option<Typed> {
    let negated = match value.constant()? {
        ScalarValue::DurationMicrosecond(Some(v)) => {
            ScalarValue::DurationMicrosecond(Some(v.checked_neg()?))
        }
        ScalarValue::IntervalYearMonth(Some(v)) => {
            ScalarValue::IntervalYearMonth(Some(v.checked_neg()?))
        }
        ScalarValue::IntervalMonthDayNano(Some(v)) => {
            let (months, days) = (v.months.checked_neg()?, v.days.checked_neg()?);
            let interval = arrow::datatypes::IntervalMonthDayNano::new(
                months,
                days,
                v.nanoseconds.checked_neg()?,
            );
            ScalarValue::IntervalMonthDayNano(Some(interval))
        }
        _ => return None,
    };
    Some(Typed::literal(negated))
}
