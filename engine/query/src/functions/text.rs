//! Values as texts of their own, for messages and names; `crate::text` writes them.

use chrono::{Datelike, NaiveDate};

use crate::expr::IntervalUnit;
use crate::text::{
    push_date, push_day_time, push_f32, push_f64, push_plain_decimal, push_timestamp,
    push_year_month,
};

/// Days since 1970-01-01.
pub(crate) fn from_date(date: NaiveDate) -> i32 {
    date.num_days_from_ce() - 719_163
}

fn written(push: impl FnOnce(&mut String)) -> String {
    let mut text = String::new();
    push(&mut text);
    text
}

/// `0.1`, `1.0E10`, `NaN`, `-Infinity`.
pub(crate) fn double(value: f64) -> String {
    written(|out| push_f64(out, value))
}

/// A number without an exponent: `100000000000000000000`, `12345678.9`.
pub(crate) fn plain_double(value: f64) -> String {
    let text = double(value);
    let Some((digits, exponent)) = text.split_once('E') else {
        return text;
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = if fraction == "0" { "" } else { fraction };
    match exponent.parse::<usize>() {
        Ok(places) if places >= fraction.len() => {
            format!("{whole}{fraction}{}", "0".repeat(places - fraction.len()))
        }
        Ok(places) => format!("{whole}{}.{}", &fraction[..places], &fraction[places..]),
        // A small number is in every range.
        Err(_) => text,
    }
}

/// As a double, with the digits that a float needs.
pub(crate) fn float(value: f32) -> String {
    written(|out| push_f32(out, value))
}

/// A decimal with all its digits after the point.
pub(crate) fn decimal(unscaled: i128, scale: i8) -> String {
    written(|out| push_plain_decimal(out, unscaled, scale))
}

/// `2024-02-29`, `+10000-01-01`.
pub(crate) fn date(days: i64) -> String {
    written(|out| push_date(out, days))
}

/// Microseconds as a date and a time of day, with just the digits of fraction there are.
pub(crate) fn timestamp(micros: i64) -> String {
    written(|out| push_timestamp(out, micros))
}

/// `INTERVAL '1 02:03:04' DAY TO SECOND`.
pub(crate) fn day_time(micros: i64) -> String {
    written(|out| push_day_time(out, micros))
}

/// `INTERVAL '1' DAY`.
pub(crate) fn days(seconds: i64) -> String {
    format!("INTERVAL '{}' DAY", seconds / 86_400)
}

/// `1 months 2 days 3 hours 0.5 seconds`; `0 seconds` for nothing.
pub(crate) fn calendar_interval(months: i32, days: i32, micros: i64) -> String {
    let (hours, rest) = (micros / 3_600_000_000, micros % 3_600_000_000);
    let (minutes, rest) = (rest / 60_000_000, rest % 60_000_000);
    let mut words = vec![];
    let mut add = |amount: i64, unit: &str| {
        if amount != 0 {
            words.push(format!("{amount} {unit}"));
        }
    };
    add(i64::from(months / 12), "years");
    add(i64::from(months % 12), "months");
    add(i64::from(days), "days");
    add(hours, "hours");
    add(minutes, "minutes");
    if rest != 0 {
        let sign = if rest < 0 { "-" } else { "" };
        let seconds = decimal(i128::from(rest.unsigned_abs()), 6);
        let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
        words.push(format!("{sign}{seconds} seconds"));
    }
    match words.is_empty() {
        true => "0 seconds".into(),
        false => words.join(" "),
    }
}

/// `INTERVAL '1-2' YEAR TO MONTH`.
pub(crate) fn year_month(months: i32) -> String {
    written(|out| push_year_month(out, months))
}

/// An interval of months or of microseconds in the units it was written with: `INTERVAL '1 02' DAY TO HOUR`.
pub(crate) fn interval(months: i32, micros: i64, units: (IntervalUnit, IntervalUnit)) -> String {
    use IntervalUnit::{Day, Hour, Minute, Month, Second, Year};
    let (from, to) = units;
    let unit = match from == to {
        true => from.sql().to_string(),
        false => format!("{} TO {}", from.sql(), to.sql()),
    };
    let sign = if months < 0 || micros < 0 { "-" } else { "" };
    let months = months.unsigned_abs();
    let digits = match units {
        (Year, Year) => (months / 12).to_string(),
        (Month, Month) => months.to_string(),
        (Year, Month) => format!("{}-{}", months / 12, months % 12),
        _ => {
            let mut rest = micros.unsigned_abs();
            let mut digits = String::new();
            for (unit, width) in [
                (Day, 86_400_000_000),
                (Hour, 3_600_000_000),
                (Minute, 60_000_000),
                (Second, 1_000_000),
            ] {
                if unit < from || unit > to {
                    continue;
                }
                if unit > from {
                    digits.push(if unit == Hour { ' ' } else { ':' });
                }
                let count = rest / width;
                rest %= width;
                match unit {
                    Day => digits.push_str(&count.to_string()),
                    _ => digits.push_str(&format!("{count:02}")),
                }
            }
            if to == Second && rest != 0 {
                let fraction = format!(".{rest:06}");
                digits.push_str(fraction.trim_end_matches('0'));
            }
            digits
        }
    };
    format!("INTERVAL '{sign}{digits}' {unit}")
}

/// Bytes in upper-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_written_as_java_does() {
        for (value, expected) in [
            (0.1, "0.1"),
            (1e10, "1.0E10"),
            (1e7, "1.0E7"),
            (9999999.0, "9999999.0"),
            (0.001, "0.001"),
            (1e-4, "1.0E-4"),
            (-0.0, "-0.0"),
            (1.5, "1.5"),
            (1e300, "1.0E300"),
            (123456.789, "123456.789"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(double(value), expected);
        }
        assert_eq!(float(0.1), "0.1");
        assert_eq!(float(3.4e38), "3.4E38");
        assert_eq!(double(f64::NAN), "NaN");
    }

    #[test]
    fn times_and_decimals_are_written_as_spark_does() {
        assert_eq!(timestamp(-500_000), "1969-12-31 23:59:59.5");
        assert_eq!(
            timestamp(1_709_214_330_123_456),
            "2024-02-29 13:45:30.123456"
        );
        assert_eq!(date(-719_162), "0001-01-01");
        assert_eq!(decimal(-5, 2), "-0.05");
        assert_eq!(decimal(1234, 0), "1234");
        assert_eq!(
            day_time(93_784_000_000),
            "INTERVAL '1 02:03:04' DAY TO SECOND"
        );
        assert_eq!(year_month(-14), "INTERVAL '-1-2' YEAR TO MONTH");
    }
}
