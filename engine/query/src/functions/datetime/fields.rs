//! Fields of dates and timestamps, and cutting them to a unit.

use std::sync::Arc;

use arrow::array::{ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Int32Type};

use super::*;
use crate::functions::cast::parse::session_zone;
use highwater_text::calendar::{self, Civil, DAY};

/// A function of a date.
pub(super) fn of_date<T: ArrowPrimitiveType>(
    name: &str,
    value: Typed,
    f: impl Fn(i64) -> T::Native + Send + Sync + 'static,
) -> Typed {
    Kernel::over_arrays(
        name,
        "",
        vec![value],
        T::DATA_TYPE,
        Can::NotFail,
        move |args, _| {
            Ok(Arc::new(
                args[0]
                    .as_primitive::<Date32Type>()
                    .unary::<_, T>(|days| f(i64::from(days))),
            ))
        },
    )
}

/// A function of the wall clock's microseconds.
pub(super) fn of_clock<T: ArrowPrimitiveType>(
    name: &str,
    value: Typed,
    f: impl Fn(i64) -> T::Native + Send + Sync + 'static,
) -> Typed {
    let zone = zone_of(&value.data_type);
    Kernel::over_arrays(
        name,
        params(zone),
        vec![value],
        T::DATA_TYPE,
        Can::NotFail,
        move |args, _| {
            Ok(Arc::new(
                args[0]
                    .as_primitive::<Micros>()
                    .unary::<_, T>(|v| f(zone.to_local(v))),
            ))
        },
    )
}

/// A field of a date or a timestamp.
pub(super) fn field(field: &str, value: Typed) -> Result<Option<Typed>> {
    let on_date = |f: fn(i64) -> i64| -> Result<Option<Typed>> {
        let value = date(field, 0, value.clone())?;
        Ok(Some(of_date::<Int32Type>(field, value, move |days| {
            f(days) as i32
        })))
    };
    let on_clock = |f: fn(i64) -> i64| -> Result<Option<Typed>> {
        let value = moment(field, 0, value.clone())?;
        Ok(Some(of_clock::<Int32Type>(field, value, move |local| {
            f(local.rem_euclid(DAY) / 1_000_000) as i32
        })))
    };
    match field {
        "year" => on_date(|d| Civil::of(d).year),
        "quarter" => on_date(|d| Civil::of(d).quarter()),
        "month" => on_date(|d| Civil::of(d).month),
        "day" | "dayofmonth" => on_date(|d| Civil::of(d).day),
        "dayofweek" => on_date(|d| (calendar::weekday(d) + 1) % 7 + 1),
        "weekday" => on_date(calendar::weekday),
        "dayofyear" => on_date(calendar::day_of_year),
        "weekofyear" => on_date(|d| calendar::iso_week(d).1),
        "hour" => on_clock(|s| s / 3600),
        "minute" => on_clock(|s| s / 60 % 60),
        "second" => on_clock(|s| s % 60),
        _ => Ok(None),
    }
}

/// `EXTRACT(part FROM value)`.
pub(super) fn extract(part: &str, value: Typed) -> Result<Typed> {
    if interval::is_interval(&value.data_type) {
        return interval::extract(part, value);
    }
    let name = match part {
        "year" | "y" | "years" | "yr" | "yrs" => "year",
        "quarter" | "qtr" => "quarter",
        "month" | "mon" | "mons" | "months" => "month",
        "week" | "w" | "weeks" => "weekofyear",
        "day" | "d" | "days" => "day",
        "dayofweek" | "dow" => "dayofweek",
        "dayofweek_iso" | "dow_iso" => "weekday",
        "doy" => "dayofyear",
        "hour" | "h" | "hours" | "hr" | "hrs" => "hour",
        "minute" | "m" | "min" | "mins" | "minutes" => "minute",
        "second" | "s" | "sec" | "seconds" | "secs" => "second",
        "yearofweek" => {
            let value = date("extract", 1, value)?;
            return Ok(of_date::<Int32Type>("yearofweek", value, |d| {
                calendar::iso_week(d).0 as i32
            }));
        }
        other => {
            let message = format!("Cannot extract the field `{other}` from the value.");
            return Err(QueryError::new("INVALID_EXTRACT_FIELD", message));
        }
    };
    if name == "weekday" {
        let value = date("extract", 1, value)?;
        return Ok(of_date::<Int32Type>("dayofweek_iso", value, |d| {
            calendar::weekday(d) as i32 + 1
        }));
    }
    if name == "second" {
        let value = moment("extract", 1, value)?;
        let zone = zone_of(&value.data_type);
        let returns = DataType::Decimal128(8, 6);
        let target = returns.clone();
        return Ok(Kernel::over_arrays(
            "seconds",
            params(zone),
            vec![value],
            returns,
            Can::NotFail,
            move |args, _| {
                let seconds = args[0].as_primitive::<Micros>();
                let seconds = seconds.unary::<_, Decimal128Type>(|v| {
                    i128::from(zone.to_local(v).rem_euclid(60_000_000))
                });
                Ok(Arc::new(seconds.with_data_type(target.clone())))
            },
        ));
    }
    match field(name, value)? {
        Some(found) => Ok(found),
        None => Err(QueryError::unsupported(format!("EXTRACT({part})"))),
    }
}

/// The first day of a date's unit; `None` for an unknown unit.
pub(super) fn date_floor(unit: &str, days: i64) -> Option<i64> {
    let date = Civil::of(days);
    Some(match unit {
        "year" | "yyyy" | "yy" => Civil {
            month: 1,
            day: 1,
            ..date
        }
        .days(),
        "quarter" => Civil {
            month: date.quarter() * 3 - 2,
            day: 1,
            ..date
        }
        .days(),
        "month" | "mm" | "mon" => Civil { day: 1, ..date }.days(),
        "week" => days - calendar::weekday(days),
        _ => return None,
    })
}

/// The first microsecond of a moment's unit; `None` for an unknown unit, an error for one that begins before all times.
pub(super) fn floor(unit: &str, local: i64) -> Run<Option<i64>> {
    let whole = |count: i64, width: i64| {
        let start = count.checked_mul(width).ok_or_else(long_overflow)?;
        Ok(Some(start))
    };
    let cut = |width: i64| whole(local.div_euclid(width), width);
    match unit {
        "microsecond" => Ok(Some(local)),
        "millisecond" => cut(1_000),
        "second" => cut(1_000_000),
        "minute" => cut(60_000_000),
        "hour" => cut(3_600_000_000),
        "day" | "dd" => cut(DAY),
        unit => match date_floor(unit, local.div_euclid(DAY)) {
            Some(days) => whole(days, DAY),
            None => Ok(None),
        },
    }
}

pub(super) fn date_trunc(unit: Typed, value: Typed) -> Result<Typed> {
    let unit = coerce::argument("date_trunc", 0, unit, &DataType::Utf8)?;
    let value = coerce::argument("date_trunc", 1, value, &timestamp())?;
    let zone = session_zone();
    Ok(Kernel::over_arrays(
        "date_trunc",
        params(zone),
        vec![unit, value],
        timestamp(),
        // Only of moments before all years that have a name: conditions with it move below watermarks, as in the model.
        Can::NotFail,
        move |args, _| {
            let (units, values) = (args[0].as_string::<i32>(), args[1].as_primitive::<Micros>());
            let floors = units.iter().zip(values).map(|(unit, value)| {
                let (Some(utc), Some(unit)) = (value, unit) else {
                    return Ok(None);
                };
                let local = zone.to_local(utc);
                let Some(floored) = floor(&unit.to_lowercase(), local)? else {
                    return Ok(None);
                };
                // An hour that the clock shows twice is the one the moment is in, if that has such a start.
                let same_offset = floored.saturating_sub(local - utc);
                let within_a_day = local - floored < DAY;
                Ok(Some(
                    match within_a_day && zone.to_local(same_offset) == floored {
                        true => same_offset,
                        false => zone.to_utc(floored),
                    },
                ))
            });
            Ok(Arc::new(
                floors
                    .collect::<Run<PrimitiveArray<Micros>>>()?
                    .with_data_type(timestamp()),
            ))
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_begins_before_all_times_is_an_error() {
        for unit in ["year", "quarter", "month", "week", "day", "hour", "minute"] {
            assert!(floor(unit, i64::MIN).is_err(), "{unit}");
            assert!(floor(unit, i64::MAX).is_ok_and(|start| start.is_some()));
        }
        assert_eq!(floor("microsecond", i64::MIN).unwrap(), Some(i64::MIN));
        assert_eq!(floor("age", 0).unwrap(), None);
    }
}
