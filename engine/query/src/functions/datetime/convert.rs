//! Dates and timestamps from and to texts, numbers, fields and other zones.

use std::sync::Arc;

use arrow::array::{Array, AsArray, PrimitiveArray, StringArray};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Int32Type, Int64Type};
use datafusion::common::ScalarValue;

use highwater_text::calendar::{self, Civil, DAY};
use highwater_text::pattern::{Bad, Pattern};

use super::format::Patterns;
use super::*;

/// A pattern that every row shares is checked when the query is resolved, if what is wrong is ours.
pub(super) fn check_pattern(pattern: &Typed, parsing: bool) -> Result<()> {
    let Some(text) = pattern.constant_text() else {
        return Ok(());
    };
    match Pattern::parse(text, parsing) {
        Err(Bad::Unsupported(what)) => Err(QueryError::unsupported(what)),
        _ => Ok(()),
    }
}

pub(super) fn date_format(value: Typed, pattern: Typed) -> Result<Typed> {
    let value = moment("date_format", 0, value)?;
    let pattern = coerce::argument("date_format", 1, pattern, &DataType::Utf8)?;
    check_pattern(&pattern, false)?;
    let zone = zone_of(&value.data_type);
    Ok(Kernel::over_arrays(
        "date_format",
        params(zone),
        vec![value, pattern],
        DataType::Utf8,
        Can::Fail,
        move |args, rows| {
            let (values, texts) = (args[0].as_primitive::<Micros>(), args[1].as_string::<i32>());
            let mut patterns = Patterns::new(false);
            let mut out: Vec<Option<String>> = Vec::with_capacity(rows);
            for row in 0..rows {
                // A pattern is looked at for null values too.
                let pattern = if texts.is_null(row) {
                    None
                } else {
                    Some(patterns.get(texts.value(row))?)
                };
                out.push(match pattern {
                    Some(pattern) if values.is_valid(row) => {
                        let utc = values.value(row);
                        Some(pattern.format(zone.to_local(utc), utc, zone))
                    }
                    _ => None,
                });
            }
            Ok(Arc::new(StringArray::from(out)))
        },
    ))
}

/// Texts to moments by a pattern, in microseconds.
pub(super) fn read_by_pattern(
    name: &str,
    text: Typed,
    pattern: Typed,
    attempt: bool,
    ntz: bool,
) -> Result<Typed> {
    let text = coerce::argument(name, 0, text, &DataType::Utf8)?;
    let pattern = coerce::argument(name, 1, pattern, &DataType::Utf8)?;
    check_pattern(&pattern, true)?;
    let returns = if ntz { TIMESTAMP_NTZ } else { timestamp() };
    let zone = zone_of(&returns);
    let target = returns.clone();
    let tolerant = match name {
        "to_date" => "try_to_date",
        _ => "try_to_timestamp",
    };
    let label = format!("{}{}", if attempt { "try" } else { "" }, params(zone));
    Ok(Kernel::over_arrays(
        "read_time",
        label,
        vec![text, pattern],
        returns,
        Can::Fail,
        move |args, _| {
            let (texts, formats) = (args[0].as_string::<i32>(), args[1].as_string::<i32>());
            let mut patterns = Patterns::new(true);
            let read = texts.iter().zip(formats).map(|(text, format)| {
            let (Some(text), Some(format)) = (text, format) else { return Ok(None) };
            let pattern = patterns.get(format)?;
            match pattern.read(text, zone) {
                None if !attempt => {
                    let fault = pattern.fault(text);
                    let message = format!("Text '{text}' could not be parsed{fault}. Use `{tolerant}` to tolerate invalid input string and return NULL instead.");
                    Err(RunError::raise("CANNOT_PARSE_TIMESTAMP", message))
                }
                read => Ok(read),
            }
        });
            let read = read.collect::<Run<PrimitiveArray<Micros>>>()?;
            Ok(Arc::new(read.with_data_type(target.clone())))
        },
    ))
}

pub(super) fn to_moment(name: &str, args: &Args, to: &DataType) -> Result<Typed> {
    let attempt = name.starts_with("try");
    let mut values = args.at_least(1)?.into_iter();
    let ntz = *to == TIMESTAMP_NTZ;
    match (values.next(), values.next(), values.next()) {
        (Some(value), None, None) => {
            let zone = args.conf.time_zone.as_str();
            if value.data_type == DataType::Utf8 || attempt {
                return cast::explicit(value, to, attempt, zone);
            }
            cast::explicit(value, to, false, zone)
        }
        (Some(value), Some(pattern), None) => {
            if value.data_type != DataType::Utf8 && value.data_type != DataType::Null {
                return cast::explicit(value, to, false, &args.conf.time_zone);
            }
            let read = read_by_pattern(name, value, pattern, attempt, ntz)?;
            cast::implicit(read, to)
        }
        _ => Err(args.wrong_number("[1, 2]")),
    }
}

/// Seconds since 1970 of a text by a pattern, a date or a timestamp.
pub(super) fn unix_timestamp(name: &str, args: &Args) -> Result<Typed> {
    let mut values = args.at_least(1)?.into_iter();
    let (Some(value), pattern, None) = (values.next(), values.next(), values.next()) else {
        return Err(args.wrong_number("[0, 2]"));
    };
    let moment = match value.data_type {
        DataType::Utf8 => {
            let default = || Typed::literal(ScalarValue::Utf8(Some("yyyy-MM-dd HH:mm:ss".into())));
            read_by_pattern(name, value, pattern.unwrap_or_else(default), false, false)?
        }
        _ => coerce::argument(name, 0, value, &timestamp())?,
    };
    Ok(Kernel::over_arrays(
        "unix_timestamp",
        "",
        vec![moment],
        DataType::Int64,
        Can::NotFail,
        |args, _| {
            // Toward zero, unlike a cast.
            Ok(Arc::new(
                args[0]
                    .as_primitive::<Micros>()
                    .unary::<_, Int64Type>(|v| v / 1_000_000),
            ))
        },
    ))
}

pub(super) fn since_epoch(name: &'static str, value: Typed, width: i64) -> Result<Typed> {
    let value = coerce::argument(name, 0, value, &timestamp())?;
    Ok(Kernel::over_arrays(
        name,
        "",
        vec![value],
        DataType::Int64,
        Can::NotFail,
        move |args, _| {
            Ok(Arc::new(
                args[0]
                    .as_primitive::<Micros>()
                    .unary::<_, Int64Type>(|v| v.div_euclid(width)),
            ))
        },
    ))
}

pub(super) fn from_epoch(name: &'static str, value: Typed, width: i64) -> Result<Typed> {
    let value = match &value.data_type {
        t if is_integral(t) => cast::implicit(value, &DataType::Int64)?,
        t if coerce::is_numeric(t) && width == 1_000_000 => {
            return cast::explicit(value, &timestamp(), false, "UTC");
        }
        _ => coerce::argument(name, 0, value, &DataType::Int64)?,
    };
    Ok(Kernel::over_arrays(
        name,
        "",
        vec![value],
        timestamp(),
        Can::Fail,
        move |args, _| {
            let moments = args[0]
                .as_primitive::<Int64Type>()
                .try_unary::<_, Micros, datafusion::common::DataFusionError>(|v| {
                    v.checked_mul(width).ok_or_else(|| out_of_range(name))
                })?;
            Ok(Arc::new(moments.with_data_type(timestamp())))
        },
    ))
}

/// The wall clock of one zone shown in another.
pub(super) fn shifted(
    name: &'static str,
    value: Typed,
    zones: Vec<Typed>,
    returns: DataType,
    f: fn(i64, &[Zone]) -> i64,
) -> Result<Typed> {
    let value = coerce::argument(name, 0, value, &returns)?;
    let mut args = vec![value];
    for (i, zone) in zones.into_iter().enumerate() {
        args.push(coerce::argument(name, i + 1, zone, &DataType::Utf8)?);
    }
    let target = returns.clone();
    Ok(Kernel::over_arrays(
        name,
        "",
        args,
        returns,
        Can::Fail,
        move |args, rows| {
            let values = args[0].as_primitive::<Micros>();
            let moved = (0..rows).map(|row| {
                let mut zones = vec![];
                for names in &args[1..] {
                    if names.is_null(row) {
                        return Ok(None);
                    }
                    let name = names.as_string::<i32>().value(row);
                    zones.push(Zone::named(name).ok_or_else(|| {
                        RunError::raise(
                            "INVALID_TIMEZONE",
                            format!("The timezone: {name} is invalid."),
                        )
                    })?);
                }
                Ok(values.is_valid(row).then(|| f(values.value(row), &zones)))
            });
            let moved = moved.collect::<Run<PrimitiveArray<Micros>>>()?;
            Ok(Arc::new(moved.with_data_type(target.clone())))
        },
    ))
}

/// What is wrong with a date that does not exist.
fn no_such_date(date: &Civil) -> String {
    let months = [
        "JANUARY",
        "FEBRUARY",
        "MARCH",
        "APRIL",
        "MAY",
        "JUNE",
        "JULY",
        "AUGUST",
        "SEPTEMBER",
        "OCTOBER",
        "NOVEMBER",
        "DECEMBER",
    ];
    let (year, month, day) = (date.year, date.month, date.day);
    let name = usize::try_from(month - 1)
        .ok()
        .and_then(|at| months.get(at));
    match (name, day) {
        (None, _) => format!("Invalid value for MonthOfYear (valid values 1 - 12): {month}"),
        (Some(_), 29) => format!("Invalid date 'February 29' as '{year}' is not a leap year"),
        (Some(name), 1..=31) => format!("Invalid date '{name} {day}'"),
        _ => format!("Invalid value for DayOfMonth (valid values 1 - 28/31): {day}"),
    }
}

pub(super) fn field_error(what: &str) -> datafusion::common::DataFusionError {
    let message = format!(
        "{what}. If necessary set \"spark.sql.ansi.enabled\" to \"false\" to bypass this error."
    );
    RunError::raise("DATETIME_FIELD_OUT_OF_BOUNDS.WITHOUT_SUGGESTION", message)
}

pub(super) fn make_date(args: &Args) -> Result<Typed> {
    let args = args.typed(&[DataType::Int32, DataType::Int32, DataType::Int32], 3)?;
    Ok(Kernel::over_arrays(
        "make_date",
        "",
        args,
        DataType::Date32,
        Can::Fail,
        |args, rows| {
            let part = |nth: usize, row: usize| {
                i64::from(args[nth].as_primitive::<Int32Type>().value(row))
            };
            let dates = (0..rows).map(|row| {
                if args.iter().any(|a| a.is_null(row)) {
                    return Ok(None);
                }
                let date = Civil {
                    year: part(0, row),
                    month: part(1, row),
                    day: part(2, row),
                };
                let valid = (1..=12).contains(&date.month)
                    && (1..=calendar::month_length(date.year, date.month)).contains(&date.day);
                match i32::try_from(date.days()) {
                    Ok(days) if valid => Ok(Some(days)),
                    _ if valid => Err(field_error(&format!(
                        "Invalid value for Year (valid values -999999999 - 999999999): {}",
                        date.year
                    ))),
                    _ => Err(field_error(&no_such_date(&date))),
                }
            });
            Ok(Arc::new(
                dates.collect::<Run<PrimitiveArray<Date32Type>>>()?,
            ))
        },
    ))
}

pub(super) fn make_timestamp(name: &str, args: &Args) -> Result<Typed> {
    let ntz = name.ends_with("_ntz");
    let attempt = name.starts_with("try");
    let seconds = DataType::Decimal128(16, 6);
    let mut types = vec![DataType::Int32; 5];
    types.push(seconds.clone());
    if args.len() != 6 {
        return Err(QueryError::unsupported(format!(
            "{name} of {} arguments",
            args.len()
        )));
    }
    let mut values = args.at_least(6)?;
    values[5] = cast::explicit(values[5].clone(), &seconds, attempt, "UTC")?;
    for (i, value) in values.iter_mut().enumerate().take(5) {
        *value = coerce::argument(name, i, value.clone(), &DataType::Int32)?;
    }
    let returns = if ntz { TIMESTAMP_NTZ } else { timestamp() };
    let (zone, target) = (zone_of(&returns), returns.clone());
    let can = if attempt { Can::NotFail } else { Can::Fail };
    Ok(Kernel::over_arrays(
        name,
        params(zone),
        values,
        returns,
        can,
        move |args, rows| {
            let part = |nth: usize, row: usize| {
                i64::from(args[nth].as_primitive::<Int32Type>().value(row))
            };
            let made = (0..rows).map(|row| {
                if args.iter().any(|a| a.is_null(row)) {
                    return Ok(None);
                }
                let date = Civil {
                    year: part(0, row),
                    month: part(1, row),
                    day: part(2, row),
                };
                let (hour, minute) = (part(3, row), part(4, row));
                let micros = args[5].as_primitive::<Decimal128Type>().value(row);
                let valid = (1..=9999).contains(&date.year)
                    && (1..=12).contains(&date.month)
                    && (1..=calendar::month_length(date.year, date.month)).contains(&date.day)
                    && (0..24).contains(&hour)
                    && (0..60).contains(&minute)
                    && (0..=60_000_000).contains(&micros);
                if !valid {
                    return if attempt {
                        Ok(None)
                    } else {
                        Err(field_error("Invalid value for the timestamp"))
                    };
                }
                let local = date.days() * DAY + (hour * 60 + minute) * 60_000_000 + micros as i64;
                Ok(Some(zone.to_utc(local)))
            });
            let made = made.collect::<Run<PrimitiveArray<Micros>>>()?;
            Ok(Arc::new(made.with_data_type(target.clone())))
        },
    ))
}
