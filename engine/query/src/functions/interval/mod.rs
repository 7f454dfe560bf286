//! Arithmetic on dates, timestamps and intervals.

mod fields;
mod make;
mod scale;

pub(crate) use fields::extract;
pub(crate) use make::make;
pub(crate) use scale::{signum, unary};

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Date32Type, DurationMicrosecondType, DurationSecondType, IntervalMonthDayNanoType,
    IntervalYearMonthType, TimestampMicrosecondType,
};
use datafusion::common::ScalarValue;

use super::arithmetic::Beyond;
use super::cast;
use super::cast::parse::{Zone, session_zone};
use super::datetime::plus_days;
use super::kernel::{Can, Kernel, Result as Run, Typed};
use crate::coerce::{is_integral, is_numeric, is_timestamp};
use crate::error::{QueryError, RunError};
use crate::expr::BinaryOp;
use crate::types::{CALENDAR, DAY_TIME, DAYS, TIMESTAMP_NTZ, YEAR_MONTH, timestamp, type_sql};
use highwater_text::calendar::{Civil, DAY};

type Result<T> = std::result::Result<T, QueryError>;

pub(crate) fn is_interval(t: &DataType) -> bool {
    *t == DAY_TIME || *t == DAYS || *t == YEAR_MONTH || *t == CALENDAR
}

/// Whether there is an interval in it that mixes months and days, or a literal whose units are not known as a type.
pub(crate) fn has_calendar_interval(t: &DataType) -> bool {
    match t {
        DataType::List(element) => has_calendar_interval(element.data_type()),
        DataType::Map(entries, _) => has_calendar_interval(entries.data_type()),
        DataType::Struct(fields) => fields.iter().any(|f| has_calendar_interval(f.data_type())),
        t => *t == CALENDAR,
    }
}

const DAY_SECONDS: i64 = 86_400;

/// What an interval counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Months,
    Days,
    /// Days to seconds.
    Time,
    /// What is written with hours, minutes or seconds: Spark has a type for each choice of units.
    Literal,
}

impl Kind {
    /// `None` for what is no interval, or one of months and days.
    pub(crate) fn of(value: &Typed) -> Option<Kind> {
        match &value.data_type {
            t if *t == YEAR_MONTH => Some(Kind::Months),
            t if *t == DAYS => Some(Kind::Days),
            t if *t == DAY_TIME => Some(Kind::Time),
            _ => match value.constant()? {
                ScalarValue::IntervalMonthDayNano(Some(interval)) => {
                    match (interval.months, interval.days, interval.nanoseconds) {
                        (0, days, 0) if days != 0 => Some(Kind::Days),
                        (0, _, _) => Some(Kind::Literal),
                        (_, 0, 0) => Some(Kind::Months),
                        _ => None,
                    }
                }
                _ => None,
            },
        }
    }
}

/// An INTERVAL literal of days as that.
pub(crate) fn plain_days(value: Typed) -> Typed {
    match Kind::of(&value) {
        Some(Kind::Days) => plain(value),
        _ => value,
    }
}

/// An INTERVAL literal as the interval of days, to seconds or of months that it is, if it is one.
pub(crate) fn plain(value: Typed) -> Typed {
    let Some(ScalarValue::IntervalMonthDayNano(Some(interval))) = value.constant() else {
        return value;
    };
    let days = i64::from(interval.days);
    let micros = days
        .checked_mul(DAY)
        .and_then(|micros| micros.checked_add(interval.nanoseconds / 1_000));
    let literal = match (Kind::of(&value), micros) {
        (Some(Kind::Months), _) => ScalarValue::IntervalYearMonth(Some(interval.months)),
        (Some(Kind::Days), _) => ScalarValue::DurationSecond(Some(days * DAY_SECONDS)),
        (Some(_), Some(micros)) => ScalarValue::DurationMicrosecond(Some(micros)),
        _ => return value,
    };
    Typed::literal(literal)
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
    beyond: Beyond,
) -> Result<Option<Typed>> {
    let (l, r) = (&left.data_type, &right.data_type);
    let time = |t: &DataType| *t == DataType::Date32 || is_timestamp(t);
    if !time(l) && !time(r) && !is_interval(l) && !is_interval(r) {
        return Ok(None);
    }
    let whole = |t: &DataType| is_integral(t) && *t != DataType::Int64;
    let number = |t: &DataType| is_numeric(t) || matches!(t, DataType::Utf8 | DataType::Null);
    let (left, right) = (left.clone(), right.clone());
    Ok(Some(match op {
        BinaryOp::Add if time(l) && is_interval(r) => shift(left, right, 1, beyond)?,
        BinaryOp::Add if is_interval(l) && time(r) => shift(right, left, 1, beyond)?,
        BinaryOp::Subtract if time(l) && is_interval(r) => shift(left, right, -1, beyond)?,
        BinaryOp::Add if *l == DataType::Date32 && whole(r) => {
            plus_days("date_add", left, right, 1)?
        }
        BinaryOp::Add if whole(l) && *r == DataType::Date32 => {
            plus_days("date_add", right, left, 1)?
        }
        BinaryOp::Subtract if *l == DataType::Date32 && whole(r) => {
            plus_days("date_sub", left, right, -1)?
        }
        BinaryOp::Subtract if *l == DataType::Date32 && *r == DataType::Date32 => {
            days_between(left, right)
        }
        BinaryOp::Subtract if time(l) && time(r) => difference(left, right, beyond)?,
        BinaryOp::Add | BinaryOp::Subtract if is_interval(l) && is_interval(r) => {
            scale::sum(op, left, right, beyond)?
        }
        BinaryOp::Multiply if is_interval(l) && number(r) => {
            scale::scaled(op, left, right, beyond)?
        }
        BinaryOp::Multiply if number(l) && is_interval(r) => {
            scale::scaled(op, right, left, beyond)?
        }
        BinaryOp::Divide if is_interval(l) && number(r) => scale::scaled(op, left, right, beyond)?,
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

/// The days from `right` to `left`.
fn days_between(left: Typed, right: Typed) -> Typed {
    Kernel::over_arrays(
        "subtract",
        "",
        vec![left, right],
        DAYS,
        Can::Fail,
        |args, _| {
            let (l, r) = (
                args[0].as_primitive::<Date32Type>(),
                args[1].as_primitive::<Date32Type>(),
            );
            let spans = l.iter().zip(r).map(|(l, r)| {
                let (Some(l), Some(r)) = (l, r) else {
                    return Ok(None);
                };
                let days = i64::from(l) - i64::from(r);
                // An interval has no more than 64 bits of microseconds.
                match days.checked_mul(DAY) {
                    Some(_) => Ok(Some(days * DAY_SECONDS)),
                    None => Err(RunError::raise("ArithmeticException", "long overflow")),
                }
            });
            Ok(Arc::new(
                spans.collect::<Run<PrimitiveArray<DurationSecondType>>>()?,
            ))
        },
    )
}

fn difference(left: Typed, right: Typed, beyond: Beyond) -> Result<Typed> {
    let naive = left.data_type == TIMESTAMP_NTZ && right.data_type == TIMESTAMP_NTZ;
    let to = if naive { TIMESTAMP_NTZ } else { timestamp() };
    let (left, right) = (cast::implicit(left, &to)?, cast::implicit(right, &to)?);
    Ok(Kernel::over_arrays(
        "subtract",
        beyond.prefix(),
        vec![left, right],
        DAY_TIME,
        Can::Fail,
        move |args, _| {
            type Micros = TimestampMicrosecondType;
            let (l, r) = (
                args[0].as_primitive::<Micros>(),
                args[1].as_primitive::<Micros>(),
            );
            let spans = l.iter().zip(r).map(|(l, r)| match (l, r) {
                (Some(l), Some(r)) => match l.checked_sub(r) {
                    None if beyond != Beyond::IsNull => {
                        Err(RunError::raise("ARITHMETIC_OVERFLOW", "long overflow"))
                    }
                    span => Ok(span),
                },
                _ => Ok(None),
            });
            Ok(Arc::new(
                spans.collect::<Run<PrimitiveArray<DurationMicrosecondType>>>()?,
            ))
        },
    ))
}

/// How an interval moves a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// `INTERVAL 36 HOURS` as written has the units of a day-time interval, whose whole days are days of the calendar
    /// however they are written.
    Literal,
    /// What it says it is: months, days and microseconds.
    Value,
}

impl Step {
    pub(crate) fn of(interval: &Typed) -> Step {
        match interval.constant() {
            Some(_) => Step::Literal,
            None => Step::Value,
        }
    }

    /// Months, days and microseconds of one interval that is not null.
    pub(crate) fn parts(self, intervals: &ArrayRef, row: usize) -> (i64, i64, i64) {
        let of_micros = |micros: i64| (0, micros / DAY, micros % DAY);
        match intervals.data_type() {
            t if *t == DAY_TIME => {
                let intervals = intervals.as_primitive::<DurationMicrosecondType>();
                of_micros(intervals.value(row))
            }
            t if *t == DAYS => {
                let intervals = intervals.as_primitive::<DurationSecondType>();
                (0, intervals.value(row) / DAY_SECONDS, 0)
            }
            t if *t == YEAR_MONTH => {
                let intervals = intervals.as_primitive::<IntervalYearMonthType>();
                (i64::from(intervals.value(row)), 0, 0)
            }
            _ => {
                let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
                let interval = intervals.value(row);
                let (days, micros) = (i64::from(interval.days), interval.nanoseconds / 1_000);
                let whole = days.checked_mul(DAY).and_then(|d| d.checked_add(micros));
                match (self, interval.months, whole) {
                    (Step::Literal, 0, Some(micros)) => of_micros(micros),
                    (_, months, _) => (i64::from(months), days, micros),
                }
            }
        }
    }
}

fn out_of_range() -> datafusion::common::DataFusionError {
    RunError::raise("DATETIME_OVERFLOW", "Datetime operation overflow.")
}

fn shift(value: Typed, interval: Typed, sign: i64, beyond: Beyond) -> Result<Typed> {
    let step = Step::of(&interval);
    let mut value = value;
    if value.data_type == DataType::Date32 {
        // A date stays one if the interval has no time of day: known for constants, and by the type. One of months
        // and days that has one cannot be added to a date.
        let days = match interval.constant() {
            _ if interval.data_type == YEAR_MONTH || interval.data_type == DAYS => true,
            Some(ScalarValue::IntervalMonthDayNano(Some(interval))) => interval.nanoseconds == 0,
            _ => interval.data_type == CALENDAR,
        };
        if days {
            return Ok(shift_date(value, interval, sign, beyond));
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
    let label = format!("{sign}{}{}", beyond.prefix(), zone.suffix());
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
                let (months, days, micros) = step.parts(&args[1], row);
                let found = plus(
                    moments.value(row),
                    sign * months,
                    sign * days,
                    sign * micros,
                    zone,
                );
                match found {
                    None if beyond != Beyond::IsNull => Err(out_of_range()),
                    found => Ok(found),
                }
            });
            let shifted = shifted.collect::<Run<PrimitiveArray<TimestampMicrosecondType>>>()?;
            Ok(Arc::new(shifted.with_data_type(target.clone())))
        },
    ))
}

fn shift_date(value: Typed, interval: Typed, sign: i64, beyond: Beyond) -> Typed {
    let step = Step::of(&interval);
    let label = format!("{sign}{}", beyond.prefix());
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
                let (months, days, micros) = step.parts(&args[1], row);
                if micros != 0 {
                    if beyond == Beyond::IsNull {
                        return Ok(None);
                    }
                    let message = "Cannot add hours, minutes or seconds, milliseconds, microseconds to a date.";
                    return Err(RunError::raise("INVALID_INTERVAL_WITH_MICROSECONDS_ADDITION", message));
                }
                let date = Civil::of(i64::from(dates.value(row)))
                    .plus_months(sign * months)
                    .days()
                    + sign * days;
                match i32::try_from(date) {
                    Ok(date) => Ok(Some(date)),
                    Err(_) if beyond == Beyond::IsNull => Ok(None),
                    Err(_) => Err(RunError::raise("ARITHMETIC_OVERFLOW", "integer overflow")),
                }
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
