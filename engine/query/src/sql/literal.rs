//! Constants as written.

use crate::error::{Place, QueryError};
use crate::expr::{IntervalUnit, Literal};

/// Microseconds in a day.
const DAY: i64 = 86_400_000_000;

/// A number, with its sign and suffix: `1` INT, `1.5` DECIMAL(2,1), `1e3` DOUBLE, `100S` SMALLINT.
pub(super) fn number(
    text: &str,
    negative: bool,
    place: Option<Place>,
) -> Result<Literal, QueryError> {
    let upper = text.to_uppercase();
    let signed = |digits: &str| {
        if negative {
            format!("-{digits}")
        } else {
            digits.to_string()
        }
    };
    let range = |name: &str, low: String, high: String| {
        let message = format!(
            "Numeric literal {} is outside the valid range for {name} with minimum value of {low} and maximum value of {high}",
            signed(upper.trim_end_matches(['L', 'S', 'Y']))
        );
        QueryError::new("INVALID_NUMERIC_LITERAL_RANGE", message).at(place)
    };
    let invalid = || {
        QueryError::new(
            "PARSE_SYNTAX_ERROR",
            format!("Syntax error at or near '{text}'"),
        )
        .at(place)
    };
    if let Some(digits) = upper.strip_suffix("BD") {
        return decimal(&signed(digits)).ok_or_else(invalid);
    }
    if let Some(digits) = upper.strip_suffix('D') {
        return signed(digits)
            .parse()
            .map(Literal::Double)
            .map_err(|_| invalid());
    }
    if let Some(digits) = upper.strip_suffix('F') {
        return signed(digits)
            .parse()
            .map(Literal::Float)
            .map_err(|_| invalid());
    }
    if let Some(digits) = upper.strip_suffix('L') {
        let error = |_| range("bigint", i64::MIN.to_string(), i64::MAX.to_string());
        return signed(digits).parse().map(Literal::BigInt).map_err(error);
    }
    if let Some(digits) = upper.strip_suffix('S') {
        let error = |_| range("smallint", i16::MIN.to_string(), i16::MAX.to_string());
        return signed(digits).parse().map(Literal::SmallInt).map_err(error);
    }
    if let Some(digits) = upper.strip_suffix('Y') {
        let error = |_| range("tinyint", i8::MIN.to_string(), i8::MAX.to_string());
        return signed(digits).parse().map(Literal::TinyInt).map_err(error);
    }
    if upper.contains('E') {
        return signed(&upper)
            .parse()
            .map(Literal::Double)
            .map_err(|_| invalid());
    }
    if upper.contains('.') {
        return decimal(&signed(&upper)).ok_or_else(|| too_precise(text, place));
    }
    if let Ok(value) = signed(&upper).parse::<i32>() {
        return Ok(Literal::Int(value));
    }
    if let Ok(value) = signed(&upper).parse::<i64>() {
        return Ok(Literal::BigInt(value));
    }
    decimal(&signed(&upper)).ok_or_else(|| too_precise(text, place))
}

fn too_precise(text: &str, place: Option<Place>) -> QueryError {
    let message = format!("Decimal precision of {text} exceeds max precision 38");
    QueryError::new("DECIMAL_PRECISION_EXCEEDS_MAX_PRECISION", message).at(place)
}

/// A decimal with just the precision and scale it is written with.
fn decimal(text: &str) -> Option<Literal> {
    let (unscaled, scale) = string_to_number(text)?;
    let digits = unscaled.unsigned_abs().to_string().len();
    let scale = u8::try_from(scale).ok()?;
    let precision = u8::try_from(digits).ok()?.max(scale);
    (precision <= 38).then_some(Literal::Decimal {
        unscaled,
        precision,
        scale: scale as i8,
    })
}

/// Digits with at most one point, as an integer and the number of digits after the point.
pub(crate) fn string_to_number(text: &str) -> Option<(i128, usize)> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let all = format!("{whole}{fraction}");
    if !all.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let trimmed = all.trim_start_matches('0');
    let unscaled = if trimmed.is_empty() {
        0
    } else {
        format!("{sign}{trimmed}").parse().ok()?
    };
    Some((unscaled, fraction.len()))
}

fn invalid_interval(text: &str) -> QueryError {
    QueryError::new(
        "INVALID_INTERVAL_FORMAT",
        format!("\"{text}\" is not an interval"),
    )
}

/// `1 day 2 hours`, `interval 10 seconds`: months, days and microseconds.
pub(crate) fn parse_interval(text: &str) -> Result<(i32, i32, i64), QueryError> {
    let invalid = || invalid_interval(text);
    let lower = text.trim().to_lowercase();
    let words = lower
        .strip_prefix("interval ")
        .unwrap_or(&lower)
        .split_whitespace();
    let words: Vec<&str> = words.collect();
    if words.is_empty() || !words.len().is_multiple_of(2) {
        return Err(invalid());
    }
    let (mut months, mut days, mut micros) = (0i32, 0i32, 0i64);
    for pair in words.chunks(2) {
        let unit = pair[1].strip_suffix('s').unwrap_or(pair[1]);
        if unit == "second" {
            let seconds = seconds_to_micros(pair[0]).ok_or_else(invalid)?;
            micros = micros.checked_add(seconds).ok_or_else(invalid)?;
            continue;
        }
        let value: i64 = pair[0].parse().map_err(|_| invalid())?;
        let add = |total: i32, scale: i64| {
            i32::try_from(value.checked_mul(scale)?)
                .ok()?
                .checked_add(total)
        };
        let add_micros = |total: i64, scale: i64| value.checked_mul(scale)?.checked_add(total);
        match unit {
            "year" => months = add(months, 12).ok_or_else(invalid)?,
            "quarter" => months = add(months, 3).ok_or_else(invalid)?,
            "month" => months = add(months, 1).ok_or_else(invalid)?,
            "week" => days = add(days, 7).ok_or_else(invalid)?,
            "day" => days = add(days, 1).ok_or_else(invalid)?,
            "hour" => micros = add_micros(micros, 3_600_000_000).ok_or_else(invalid)?,
            "minute" => micros = add_micros(micros, 60_000_000).ok_or_else(invalid)?,
            "millisecond" => micros = add_micros(micros, 1_000).ok_or_else(invalid)?,
            "microsecond" => micros = add_micros(micros, 1).ok_or_else(invalid)?,
            _ => return Err(invalid()),
        }
    }
    Ok((months, days, micros))
}

/// `INTERVAL 1 DAY`. Spark types it by its units (INTERVAL DAY); we have no type for each set of units, so that such
/// an interval can shift times but not be a column.
pub(super) fn interval(text: &str) -> Result<Literal, QueryError> {
    let (months, days, micros) = parse_interval(text)?;
    if micros.checked_mul(1_000).is_none() {
        return Err(invalid_interval(text));
    }
    let of_days = i64::from(days).checked_mul(DAY);
    if of_days.and_then(|d| d.checked_add(micros)).is_none() {
        return Err(QueryError::new(
            "INTERVAL_ARITHMETIC_OVERFLOW.WITHOUT_SUGGESTION",
            "Integer overflow while operating with intervals. Try devising appropriate values for the interval parameters.",
        ));
    }
    Ok(Literal::CalendarInterval {
        months,
        days,
        micros,
        units: units(text),
    })
}

/// The largest and the smallest unit of an interval in words.
fn units(text: &str) -> Option<(IntervalUnit, IntervalUnit)> {
    let lower = text.to_lowercase();
    let words = lower.split_whitespace();
    let units = words.filter_map(|word| IntervalUnit::of(word.strip_suffix('s').unwrap_or(word)));
    let (from, to) = (units.clone().min()?, units.max()?);
    let of_months = |unit| unit <= IntervalUnit::Month;
    (of_months(from) == of_months(to)).then_some((from, to))
}

/// `INTERVAL '1 02:03:04' DAY TO SECOND`.
pub(super) fn interval_range(text: &str, from: &str, to: &str) -> Result<Literal, QueryError> {
    let invalid = || invalid_interval(&format!("{text} {from} to {to}"));
    let trimmed = text.trim();
    let (negative, digits) = match trimmed.strip_prefix(['-', '+']) {
        Some(digits) => (trimmed.starts_with('-'), digits),
        None => (false, trimmed),
    };
    if (from, to) == ("year", "month") {
        let (years, months) = digits.split_once('-').ok_or_else(invalid)?;
        let (years, months): (i32, i32) = (
            years.parse().map_err(|_| invalid())?,
            months.parse().map_err(|_| invalid())?,
        );
        let total = years
            .checked_mul(12)
            .and_then(|y| y.checked_add(months))
            .filter(|_| (0..12).contains(&months));
        let total = total.ok_or_else(invalid)?;
        return Ok(Literal::YearMonthInterval(if negative {
            -total
        } else {
            total
        }));
    }
    let units = ["day", "hour", "minute", "second"];
    let position = |unit: &str| units.iter().position(|u| *u == unit);
    let (Some(first), Some(last)) = (position(from), position(to)) else {
        return Err(invalid());
    };
    let parts: Vec<&str> = digits.split([' ', ':']).filter(|p| !p.is_empty()).collect();
    if first >= last || parts.len() != last - first + 1 {
        return Err(invalid());
    }
    let mut total = 0i64;
    for (part, unit) in parts.iter().zip(&units[first..=last]) {
        let micros = match *unit {
            "second" => seconds_to_micros(part),
            "day" => part.parse().ok().and_then(|n: i64| n.checked_mul(DAY)),
            "hour" => part
                .parse()
                .ok()
                .and_then(|n: i64| n.checked_mul(3_600_000_000)),
            _ => part
                .parse()
                .ok()
                .and_then(|n: i64| n.checked_mul(60_000_000)),
        };
        total = micros
            .and_then(|m| total.checked_add(m))
            .ok_or_else(invalid)?;
    }
    let total = if negative { -total } else { total };
    if (from, to) == ("day", "second") {
        return Ok(Literal::DayTimeInterval(total));
    }
    // Of other units: Spark has a type for each choice of them.
    total.checked_mul(1_000).ok_or_else(invalid)?;
    Ok(Literal::CalendarInterval {
        months: 0,
        days: 0,
        micros: total,
        units: IntervalUnit::of(from).zip(IntervalUnit::of(to)),
    })
}

/// Seconds with up to nine digits of fraction; beyond microseconds they are cut.
fn seconds_to_micros(text: &str) -> Option<i64> {
    let (unscaled, scale) = string_to_number(text.strip_prefix('+').unwrap_or(text))?;
    let micros = match scale {
        0..=6 => unscaled.checked_mul(10i128.pow(6 - scale as u32))?,
        7..=9 => unscaled / 10i128.pow(scale as u32 - 6),
        _ => return None,
    };
    i64::try_from(micros).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Literal) {
        assert_eq!(number(text, false, None).unwrap(), expected);
    }

    #[test]
    fn numbers_have_the_type_they_are_written_in() {
        check("1", Literal::Int(1));
        check("2147483648", Literal::BigInt(2147483648));
        check(
            "9223372036854775808",
            Literal::Decimal {
                unscaled: 9223372036854775808,
                precision: 19,
                scale: 0,
            },
        );
        check(
            "1.5",
            Literal::Decimal {
                unscaled: 15,
                precision: 2,
                scale: 1,
            },
        );
        check(
            "0.00",
            Literal::Decimal {
                unscaled: 0,
                precision: 2,
                scale: 2,
            },
        );
        check("1e3", Literal::Double(1000.0));
        check("100S", Literal::SmallInt(100));
        check(
            "2.5BD",
            Literal::Decimal {
                unscaled: 25,
                precision: 2,
                scale: 1,
            },
        );
        assert_eq!(
            number("2147483648", true, None).unwrap(),
            Literal::Int(i32::MIN)
        );
        assert_eq!(
            number("128Y", false, None).unwrap_err().class(),
            Some("INVALID_NUMERIC_LITERAL_RANGE")
        );
    }

    #[test]
    fn intervals_are_read() {
        let is = |months, days, micros, units| Literal::CalendarInterval {
            months,
            days,
            micros,
            units,
        };
        use IntervalUnit::{Day, Hour, Month, Second};
        assert_eq!(
            interval("1 month").unwrap(),
            is(1, 0, 0, Some((Month, Month)))
        );
        assert_eq!(
            interval("2 hours 1 day").unwrap(),
            is(0, 1, 7_200_000_000, Some((Day, Hour)))
        );
        assert_eq!(
            interval("-1.5 seconds").unwrap(),
            is(0, 0, -1_500_000, Some((Second, Second)))
        );
        assert_eq!(interval("1 month 2 days").unwrap(), is(1, 2, 0, None));
        let range = interval_range("1 02:03:04.5", "day", "second").unwrap();
        assert_eq!(range, Literal::DayTimeInterval(DAY + 7_384_500_000));
        assert_eq!(
            interval_range("-1-2", "year", "month").unwrap(),
            Literal::YearMonthInterval(-14)
        );
        assert!(interval("day").is_err());
        assert_eq!(
            interval("300000000 days").unwrap_err().class(),
            Some("INTERVAL_ARITHMETIC_OVERFLOW.WITHOUT_SUGGESTION")
        );
        assert!(interval_range("1 2", "day", "second").is_err());
    }
}
