//! Dates and timestamps.

mod convert;
mod fields;
pub(crate) mod format;

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray, StringArray};
use arrow::datatypes::{
    DataType, Date32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Cast, Expr as DfExpr};

use self::convert::*;
use self::fields::*;
use super::cast::parse::{Zone, session_zone};
use super::kernel::{Can, Kernel, Result as Run, Typed};
use super::{Args, cast, interval};
use crate::coerce::{self, is_integral, is_timestamp};
use crate::error::{QueryError, RunError};
use crate::types::{TIMESTAMP_NTZ, timestamp};
use highwater_text::calendar::{self, Civil, DAY};
use highwater_text::pattern::{month_name, weekday_name};

type Result<T> = std::result::Result<T, QueryError>;
type Micros = TimestampMicrosecondType;

/// The argument as a date.
fn date(name: &str, nth: usize, value: Typed) -> Result<Typed> {
    coerce::argument(name, nth, value, &DataType::Date32)
}

/// The argument as a moment: a timestamp with or without a zone.
fn moment(name: &str, nth: usize, value: Typed) -> Result<Typed> {
    match &value.data_type {
        t if is_timestamp(t) => Ok(value),
        _ => coerce::argument(name, nth, value, &timestamp()),
    }
}

/// The zone in which a moment of this type has its wall clock.
fn zone_of(data_type: &DataType) -> Zone {
    if *data_type == TIMESTAMP_NTZ {
        Zone::Fixed(0)
    } else {
        session_zone()
    }
}

fn params(zone: Zone) -> String {
    zone.suffix()
}

fn out_of_range(name: &str) -> datafusion::common::DataFusionError {
    RunError::raise(
        "DATETIME_OVERFLOW",
        format!("Datetime operation overflow: {name}."),
    )
}

fn long_overflow() -> datafusion::common::DataFusionError {
    RunError::raise("ArithmeticException", "long overflow")
}

/// Full units of `unit` from `start` to `end`.
fn difference(unit: &str, start: i64, end: i64) -> Option<i64> {
    let months = || {
        let of = |local: i64| {
            let date = Civil::of(local.div_euclid(DAY));
            (
                date.year * 12 + date.month,
                date.day * DAY + local.rem_euclid(DAY),
            )
        };
        let ((m1, r1), (m2, r2)) = (of(start), of(end));
        let months = m2 - m1;
        match months {
            m if m > 0 && r2 < r1 => m - 1,
            m if m < 0 && r2 > r1 => m + 1,
            m => m,
        }
    };
    let width = match unit {
        "microsecond" => 1,
        "millisecond" => 1_000,
        "second" => 1_000_000,
        "minute" => 60_000_000,
        "hour" => 3_600_000_000,
        "day" | "dayofyear" => DAY,
        "week" => 7 * DAY,
        "month" => return Some(months()),
        "quarter" => return Some(months() / 3),
        "year" => return Some(months() / 12),
        _ => return None,
    };
    // The whole span may be more than 64 bits count.
    i64::try_from((i128::from(end) - i128::from(start)) / i128::from(width)).ok()
}

const UNITS: [&str; 11] = [
    "microsecond",
    "millisecond",
    "second",
    "minute",
    "hour",
    "day",
    "dayofyear",
    "week",
    "month",
    "quarter",
    "year",
];

fn unit_of(name: &str, unit: &Typed) -> Result<String> {
    let text = unit.constant_text().unwrap_or_default().to_lowercase();
    if UNITS.contains(&text.as_str()) {
        return Ok(text);
    }
    let message = format!(
        "`{name}` expects one of the units without quotes YEAR, QUARTER, MONTH, WEEK, DAY, DAYOFYEAR, HOUR, MINUTE, SECOND, MILLISECOND, MICROSECOND, but got '{text}'."
    );
    Err(QueryError::new(
        "INVALID_PARAMETER_VALUE.DATETIME_UNIT",
        message,
    ))
}

fn timestamp_diff(name: &str, args: &Args) -> Result<Typed> {
    let [unit, start, end] = args.exactly()?;
    let unit = unit_of(name, &unit)?;
    let start = coerce::argument(name, 1, start, &timestamp())?;
    let end = coerce::argument(name, 2, end, &timestamp())?;
    let zone = session_zone();
    let label = format!("{unit}{}", params(zone));
    Ok(Kernel::over_arrays(
        "timestampdiff",
        label,
        vec![start, end],
        DataType::Int64,
        Can::Fail,
        move |args, _| {
            let (starts, ends) = (
                args[0].as_primitive::<Micros>(),
                args[1].as_primitive::<Micros>(),
            );
            let found = starts.iter().zip(ends).map(|(start, end)| {
                let (Some(start), Some(end)) = (start, end) else {
                    return Ok(None);
                };
                match difference(&unit, zone.to_local(start), zone.to_local(end)) {
                    None => Err(long_overflow()),
                    found => Ok(found),
                }
            });
            Ok(Arc::new(found.collect::<Run<PrimitiveArray<Int64Type>>>()?))
        },
    ))
}

fn timestamp_add(name: &str, args: &Args) -> Result<Typed> {
    let [unit, count, start] = args.exactly()?;
    let unit = unit_of(name, &unit)?;
    let count = coerce::argument(name, 1, count, &DataType::Int64)?;
    let start = moment(name, 2, start)?;
    let returns = start.data_type.clone();
    let (zone, target) = (zone_of(&returns), returns.clone());
    let label = format!("{unit}{}", params(zone));
    Ok(Kernel::over_arrays(
        "timestampadd",
        label,
        vec![count, start],
        returns,
        Can::Fail,
        move |args, _| {
            let (counts, starts) = (
                args[0].as_primitive::<Int64Type>(),
                args[1].as_primitive::<Micros>(),
            );
            let added = counts.iter().zip(starts).map(|(count, start)| {
                let (Some(count), Some(start)) = (count, start) else {
                    return Ok(None);
                };
                let found = match unit.as_str() {
                    "month" => interval::plus(start, count, 0, 0, zone),
                    "quarter" => count
                        .checked_mul(3)
                        .and_then(|n| interval::plus(start, n, 0, 0, zone)),
                    "year" => count
                        .checked_mul(12)
                        .and_then(|n| interval::plus(start, n, 0, 0, zone)),
                    "week" => count
                        .checked_mul(7)
                        .and_then(|n| interval::plus(start, 0, n, 0, zone)),
                    "day" | "dayofyear" => interval::plus(start, 0, count, 0, zone),
                    unit => {
                        let width = match unit {
                            "microsecond" => 1,
                            "millisecond" => 1_000,
                            "second" => 1_000_000,
                            "minute" => 60_000_000,
                            _ => 3_600_000_000,
                        };
                        count
                            .checked_mul(width)
                            .and_then(|n| interval::plus(start, 0, 0, n, zone))
                    }
                };
                found.map(Some).ok_or_else(|| out_of_range("timestampadd"))
            });
            let added = added.collect::<Run<PrimitiveArray<Micros>>>()?;
            Ok(Arc::new(added.with_data_type(target.clone())))
        },
    ))
}

/// A date so many days later.
pub(crate) fn plus_days(name: &'static str, value: Typed, days: Typed, sign: i64) -> Result<Typed> {
    let value = date(name, 0, value)?;
    let days = match &days.data_type {
        t if is_integral(t) && *t != DataType::Int64
            || *t == DataType::Null
            || *t == DataType::Utf8 =>
        {
            cast::implicit(days, &DataType::Int32)?
        }
        _ => {
            return Err(coerce::unexpected(
                name,
                1,
                &days,
                "(\"INT\" or \"SMALLINT\" or \"TINYINT\")",
            ));
        }
    };
    Ok(Kernel::over_arrays(
        name,
        "",
        vec![value, days],
        DataType::Date32,
        Can::Fail,
        move |args, _| {
            let (dates, days) = (
                args[0].as_primitive::<Date32Type>(),
                args[1].as_primitive::<Int32Type>(),
            );
            let added = dates
                .iter()
                .zip(days)
                .map(|(date, days)| match (date, days) {
                    (Some(date), Some(days)) => {
                        let found = i32::try_from(i64::from(date) + sign * i64::from(days));
                        found
                            .map(Some)
                            .map_err(|_| RunError::raise("ARITHMETIC_OVERFLOW", "integer overflow"))
                    }
                    _ => Ok(None),
                });
            Ok(Arc::new(
                added.collect::<Run<PrimitiveArray<Date32Type>>>()?,
            ))
        },
    ))
}

/// Months between two moments, days counted as thirty-firsts of a month.
fn months_between(end: i64, start: i64, round: bool) -> f64 {
    let (d1, d2) = (
        Civil::of(end.div_euclid(DAY)),
        Civil::of(start.div_euclid(DAY)),
    );
    let months = (d1.year * 12 + d1.month - d2.year * 12 - d2.month) as f64;
    let last = |d: Civil| d.day == calendar::month_length(d.year, d.month);
    if d1.day == d2.day || last(d1) && last(d2) {
        return months;
    }
    let seconds = |local: i64| (local.rem_euclid(DAY) / 1_000_000) as f64;
    let rest = (d1.day - d2.day) as f64 * 86_400.0 + seconds(end) - seconds(start);
    let found = months + rest / (31.0 * 86_400.0);
    if round {
        (found * 1e8).round() / 1e8
    } else {
        found
    }
}

fn weekday_named(name: &str) -> Option<i64> {
    let days = [
        ["MO", "MON", "MONDAY"],
        ["TU", "TUE", "TUESDAY"],
        ["WE", "WED", "WEDNESDAY"],
        ["TH", "THU", "THURSDAY"],
        ["FR", "FRI", "FRIDAY"],
        ["SA", "SAT", "SATURDAY"],
        ["SU", "SUN", "SUNDAY"],
    ];
    days.iter()
        .position(|names| names.contains(&name.to_uppercase().trim()))
        .map(|i| i as i64)
}

/// The functions of this family.
pub(super) fn build(name: &str, args: &Args) -> Result<Option<Typed>> {
    let text_of = |value: Typed, f: fn(i64) -> &'static str| {
        Kernel::over_arrays(
            name,
            "",
            vec![value],
            DataType::Utf8,
            Can::NotFail,
            move |args, _| {
                let dates = args[0].as_primitive::<Date32Type>();
                let names: ArrayRef = Arc::new(
                    dates
                        .iter()
                        .map(|d| d.map(|d| &f(i64::from(d))[..3]))
                        .collect::<StringArray>(),
                );
                Ok(names)
            },
        )
    };
    Ok(Some(match name {
        "year" | "quarter" | "month" | "day" | "dayofmonth" | "dayofweek" | "weekday"
        | "dayofyear" | "weekofyear" | "hour" | "minute" | "second" => {
            return field(name, args.one()?);
        }
        "extract" | "date_part" | "datepart" => {
            let [part, value] = args.exactly()?;
            match part.constant_text() {
                Some(part) => extract(&part.to_lowercase(), value)?,
                None => return Err(coerce::unexpected(name, 0, &part, "STRING")),
            }
        }
        "make_interval" => interval::make("make_interval", args)?,
        "try_make_interval" => interval::make("try_make_interval", args)?,
        "make_dt_interval" => interval::make("make_dt_interval", args)?,
        "make_ym_interval" => interval::make("make_ym_interval", args)?,
        "date_trunc" => {
            let [unit, value] = args.exactly()?;
            date_trunc(unit, value)?
        }
        "trunc" => {
            let [value, unit] = args.exactly()?;
            let value = date(name, 0, value)?;
            let unit = coerce::argument(name, 1, unit, &DataType::Utf8)?;
            Kernel::over_arrays(
                name,
                "",
                vec![value, unit],
                DataType::Date32,
                Can::NotFail,
                |args, _| {
                    let (dates, units) = (
                        args[0].as_primitive::<Date32Type>(),
                        args[1].as_string::<i32>(),
                    );
                    let floors = dates.iter().zip(units).map(|(date, unit)| {
                        date_floor(&unit?.to_lowercase(), i64::from(date?))
                            .and_then(|d| i32::try_from(d).ok())
                    });
                    Ok(Arc::new(floors.collect::<PrimitiveArray<Date32Type>>()))
                },
            )
        }
        "dayname" => text_of(date(name, 0, args.one()?)?, weekday_name),
        "monthname" => text_of(date(name, 0, args.one()?)?, |d| {
            month_name(Civil::of(d).month)
        }),
        "last_day" => of_date::<Date32Type>(name, date(name, 0, args.one()?)?, |d| {
            let date = Civil::of(d);
            Civil {
                day: calendar::month_length(date.year, date.month),
                ..date
            }
            .days() as i32
        }),
        "unix_date" => {
            let value = args.one()?;
            if is_timestamp(&value.data_type) {
                return Err(coerce::unexpected(name, 0, &value, "DATE"));
            }
            of_date::<Int32Type>(name, date(name, 0, value)?, |d| d as i32)
        }
        "date_from_unix_date" => {
            let value = coerce::argument(name, 0, args.one()?, &DataType::Int32)?;
            Typed::new(
                DfExpr::Cast(Cast::new(Box::new(value.expr), DataType::Date32)),
                DataType::Date32,
            )
        }
        "timestampdiff" => timestamp_diff(name, args)?,
        "datediff" | "date_diff" if args.len() == 3 => timestamp_diff(name, args)?,
        "datediff" | "date_diff" => {
            let [end, start] = args.exactly()?;
            let values = vec![date(name, 0, end)?, date(name, 1, start)?];
            Kernel::over_arrays(
                "datediff",
                "",
                values,
                DataType::Int32,
                Can::NotFail,
                |args, _| {
                    let (ends, starts) = (
                        args[0].as_primitive::<Date32Type>(),
                        args[1].as_primitive::<Date32Type>(),
                    );
                    let days: PrimitiveArray<Int32Type> =
                        arrow::compute::binary(ends, starts, |e, s| e.wrapping_sub(s))?;
                    Ok(Arc::new(days))
                },
            )
        }
        "timestampadd" => timestamp_add(name, args)?,
        "dateadd" | "date_add" if args.len() == 3 => timestamp_add(name, args)?,
        "date_add" | "dateadd" => {
            let [value, days] = args.exactly()?;
            plus_days("date_add", value, days, 1)?
        }
        "date_sub" => {
            let [value, days] = args.exactly()?;
            plus_days("date_sub", value, days, -1)?
        }
        "add_months" => {
            let [value, months] = args.exactly()?;
            let values = vec![
                date(name, 0, value)?,
                coerce::argument(name, 1, months, &DataType::Int32)?,
            ];
            Kernel::over_arrays(name, "", values, DataType::Date32, Can::Fail, |args, _| {
                let (dates, months) = (
                    args[0].as_primitive::<Date32Type>(),
                    args[1].as_primitive::<Int32Type>(),
                );
                let added = dates
                    .iter()
                    .zip(months)
                    .map(|(date, months)| match (date, months) {
                        (Some(date), Some(months)) => {
                            let days = Civil::of(i64::from(date))
                                .plus_months(i64::from(months))
                                .days();
                            i32::try_from(days)
                                .map(Some)
                                .map_err(|_| out_of_range("add_months"))
                        }
                        _ => Ok(None),
                    });
                Ok(Arc::new(
                    added.collect::<Run<PrimitiveArray<Date32Type>>>()?,
                ))
            })
        }
        "months_between" => {
            let mut values = args.at_least(2)?.into_iter();
            let (Some(end), Some(start), round, None) =
                (values.next(), values.next(), values.next(), values.next())
            else {
                return Err(args.wrong_number("[2, 3]"));
            };
            let round = match round.as_ref().map(Typed::constant) {
                None => true,
                Some(Some(ScalarValue::Boolean(Some(round)))) => *round,
                Some(_) => {
                    return Err(QueryError::unsupported(
                        "months_between with a rounding that is no constant",
                    ));
                }
            };
            let values = vec![
                coerce::argument(name, 0, end, &timestamp())?,
                coerce::argument(name, 1, start, &timestamp())?,
            ];
            let zone = session_zone();
            let label = format!("{round}{}", params(zone));
            Kernel::over_arrays(
                name,
                label,
                values,
                DataType::Float64,
                Can::NotFail,
                move |args, _| {
                    let (ends, starts) = (
                        args[0].as_primitive::<Micros>(),
                        args[1].as_primitive::<Micros>(),
                    );
                    let found: PrimitiveArray<Float64Type> =
                        arrow::compute::binary(ends, starts, |e, s| {
                            months_between(zone.to_local(e), zone.to_local(s), round)
                        })?;
                    Ok(Arc::new(found))
                },
            )
        }
        "next_day" => {
            let [value, day] = args.exactly()?;
            let values = vec![
                date(name, 0, value)?,
                coerce::argument(name, 1, day, &DataType::Utf8)?,
            ];
            Kernel::over_arrays(name, "", values, DataType::Date32, Can::Fail, |args, _| {
                let (dates, names) = (
                    args[0].as_primitive::<Date32Type>(),
                    args[1].as_string::<i32>(),
                );
                let next = dates.iter().zip(names).map(|(date, name)| {
                    let (Some(date), Some(name)) = (date, name) else {
                        return Ok(None);
                    };
                    let Some(wanted) = weekday_named(name) else {
                        return Err(RunError::raise(
                            "ILLEGAL_DAY_OF_WEEK",
                            format!("Illegal input for day of week: {name}."),
                        ));
                    };
                    let ahead = (wanted - calendar::weekday(i64::from(date)) - 1).rem_euclid(7) + 1;
                    Ok(i32::try_from(i64::from(date) + ahead).ok())
                });
                Ok(Arc::new(next.collect::<Run<PrimitiveArray<Date32Type>>>()?))
            })
        }
        "make_date" => make_date(args)?,
        "make_timestamp"
        | "make_timestamp_ntz"
        | "make_timestamp_ltz"
        | "try_make_timestamp"
        | "try_make_timestamp_ntz"
        | "try_make_timestamp_ltz" => make_timestamp(name, args)?,
        "date_format" => {
            let [value, pattern] = args.exactly()?;
            date_format(value, pattern)?
        }
        "to_date" | "try_to_date" | "date" => to_moment(name, args, &DataType::Date32)?,
        "to_timestamp" | "to_timestamp_ltz" | "try_to_timestamp" | "timestamp" => {
            to_moment(name, args, &timestamp())?
        }
        "to_timestamp_ntz" => to_moment(name, args, &TIMESTAMP_NTZ)?,
        "unix_timestamp" | "to_unix_timestamp" => unix_timestamp(name, args)?,
        "from_unixtime" => {
            let mut values = args.at_least(1)?.into_iter();
            let (Some(value), pattern, None) = (values.next(), values.next(), values.next()) else {
                return Err(args.wrong_number("[1, 2]"));
            };
            let seconds = coerce::argument(name, 0, value, &DataType::Int64)?;
            let moment = cast::explicit(seconds, &timestamp(), false, "UTC")?;
            let default = || Typed::literal(ScalarValue::Utf8(Some("yyyy-MM-dd HH:mm:ss".into())));
            date_format(moment, pattern.unwrap_or_else(default))?
        }
        "unix_seconds" => since_epoch("unix_seconds", args.one()?, 1_000_000)?,
        "unix_millis" => since_epoch("unix_millis", args.one()?, 1_000)?,
        "unix_micros" => since_epoch("unix_micros", args.one()?, 1)?,
        "timestamp_seconds" => from_epoch("timestamp_seconds", args.one()?, 1_000_000)?,
        "timestamp_millis" => from_epoch("timestamp_millis", args.one()?, 1_000)?,
        "timestamp_micros" => from_epoch("timestamp_micros", args.one()?, 1)?,
        "from_utc_timestamp" => {
            let [value, zone] = args.exactly()?;
            shifted(
                "from_utc_timestamp",
                value,
                vec![zone],
                timestamp(),
                |v, z| z[0].to_local(v),
            )?
        }
        "to_utc_timestamp" => {
            let [value, zone] = args.exactly()?;
            shifted(
                "to_utc_timestamp",
                value,
                vec![zone],
                timestamp(),
                |v, z| z[0].to_utc(v),
            )?
        }
        "convert_timezone" if args.len() == 3 => {
            let [from, to, value] = args.exactly()?;
            shifted(
                "convert_timezone",
                value,
                vec![from, to],
                TIMESTAMP_NTZ,
                |v, z| z[1].to_local(z[0].to_utc(v)),
            )?
        }
        "current_timezone" => {
            args.exactly::<0>()?;
            Typed::literal(ScalarValue::Utf8(Some(args.conf.time_zone.clone())))
        }
        // DataFusion's `now()` is a constant of one execution: of a batch query, or of an epoch.
        "now" | "current_timestamp" | "current_date" | "curdate" | "localtimestamp" => {
            args.exactly::<0>()?;
            let now = datafusion::functions::datetime::now(&Default::default()).call(vec![]);
            let now = Typed::new(
                DfExpr::Cast(Cast::new(Box::new(now), timestamp())),
                timestamp(),
            );
            match name {
                "current_date" | "curdate" => {
                    cast::explicit(now, &DataType::Date32, false, &args.conf.time_zone)?
                }
                "localtimestamp" => {
                    cast::explicit(now, &TIMESTAMP_NTZ, false, &args.conf.time_zone)?
                }
                _ => now,
            }
        }
        _ => return Ok(None),
    }))
}
