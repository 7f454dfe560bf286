//! Text to values, as Spark's ANSI casts read it.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
pub(crate) use highwater_text::Zone;

use crate::functions::text::from_date;

thread_local! {
    static SESSION: std::cell::Cell<Zone> = const { std::cell::Cell::new(Zone::Fixed(0)) };
}

/// The zone of the session whose query this thread is resolving.
pub(crate) fn session_zone() -> Zone {
    SESSION.get()
}

/// Resolves with `zone` as the session's. Casts are inserted at many depths of the resolver; handing the zone to each
/// would leave room for one that forgets it.
pub(crate) fn during<T>(zone: Zone, resolve: impl FnOnce() -> T) -> T {
    let before = SESSION.replace(zone);
    let result = resolve();
    SESSION.set(before);
    result
}

/// Without the blanks and control characters at both ends.
pub(crate) fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c <= ' ' || c == '\u{7f}')
}

/// An integer: a sign and digits, nothing else.
pub(crate) fn integer(text: &str) -> Option<i64> {
    let text = trimmed(text);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// A floating-point number as Java reads it: `.5`, `1d`, `1e3`, `-Infinity`, `NaN`.
pub(crate) fn double(text: &str) -> Option<f64> {
    let text = trimmed(text);
    match text.to_ascii_lowercase().as_str() {
        "inf" | "+inf" | "infinity" | "+infinity" => return Some(f64::INFINITY),
        "-inf" | "-infinity" => return Some(f64::NEG_INFINITY),
        "nan" => return Some(f64::NAN),
        _ => {}
    }
    let number = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
    let plain = number
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if !plain || !number.bytes().any(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse().ok()
}

pub(crate) fn boolean(text: &str) -> Option<bool> {
    match trimmed(text).to_ascii_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "1" => Some(true),
        "f" | "false" | "n" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// What a text is as a decimal.
pub(crate) enum Decimal {
    Is(i128),
    TooLarge,
    NoNumber,
}

/// A decimal of the given scale, rounded half up.
pub(crate) fn decimal(text: &str, precision: u8, scale: i8) -> Decimal {
    let text = trimmed(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        None => (text, 0),
        Some((mantissa, exponent)) => {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            match exponent
                .strip_prefix('+')
                .unwrap_or(exponent)
                .parse::<i32>()
            {
                Ok(e) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                    (mantissa, e)
                }
                _ => return Decimal::NoNumber,
            }
        }
    };
    let negative = mantissa.starts_with('-');
    let digits = mantissa.strip_prefix(['+', '-']).unwrap_or(mantissa);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|b| b.is_ascii_digit()) {
        return Decimal::NoNumber;
    }
    let significant = all.trim_start_matches('0');
    if significant.is_empty() {
        return Decimal::Is(0);
    }
    // The value is `significant` times ten to this power of the wanted unit.
    let shift = i64::from(exponent) - fraction.len() as i64 + i64::from(scale);
    let unscaled = if shift >= 0 {
        if significant.len() as i64 + shift > 39 {
            return Decimal::TooLarge;
        }
        format!("{significant}{}", "0".repeat(shift as usize))
            .parse::<i128>()
            .ok()
    } else {
        let kept = significant.len() as i64 + shift;
        if kept < 0 {
            Some(0)
        } else if kept > 39 {
            None
        } else {
            let (kept, dropped) = significant.split_at(kept as usize);
            let up = dropped.as_bytes()[0] >= b'5';
            let value = if kept.is_empty() {
                Ok(0)
            } else {
                kept.parse::<i128>()
            };
            value.ok().and_then(|v| v.checked_add(i128::from(up)))
        }
    };
    match unscaled {
        Some(value) if value < 10i128.pow(u32::from(precision)) => {
            Decimal::Is(if negative { -value } else { value })
        }
        _ => Decimal::TooLarge,
    }
}

/// A number of so many digits, and what follows it.
fn digits(text: &str, count: std::ops::RangeInclusive<usize>) -> Option<(u32, &str)> {
    let end = text
        .bytes()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(text.len());
    if !count.contains(&end) {
        return None;
    }
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// `yyyy[-M[-d]]` and what follows it.
fn leading_date(text: &str) -> Option<(NaiveDate, &str, bool)> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (year, rest) = digits(rest, 4..=7)?;
    let year = if negative {
        -i64::from(year)
    } else {
        i64::from(year)
    };
    let (mut month, mut day, mut rest, mut whole) = (1, 1, rest, false);
    if let Some(after) = rest.strip_prefix('-') {
        (month, rest) = digits(after, 1..=2)?;
        if let Some(after) = rest.strip_prefix('-') {
            (day, rest) = digits(after, 1..=2)?;
            whole = true;
        }
    }
    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?;
    Some((date, rest, whole))
}

/// Days since 1970 of `yyyy`, `yyyy-M`, `yyyy-M-d`, or the last followed by a blank or `T` and anything.
pub(crate) fn date(text: &str) -> Option<i32> {
    let (date, rest, whole) = leading_date(trimmed(text))?;
    let ends = rest.is_empty() || whole && rest.starts_with([' ', 'T']);
    ends.then(|| from_date(date))
}

/// What a text says about time.
pub(crate) struct Moment {
    /// Microseconds on the wall clock.
    pub(crate) local: i64,
    /// The zone, if it is said.
    pub(crate) zone: Option<Zone>,
}

/// A date, perhaps with a time of day, perhaps with a zone.
pub(crate) fn moment(text: &str) -> Option<Moment> {
    let (date, rest, whole) = leading_date(trimmed(text))?;
    let midnight = i64::from(from_date(date)).checked_mul(86_400_000_000)?;
    if rest.is_empty() {
        return Some(Moment {
            local: midnight,
            zone: None,
        });
    }
    let rest = rest.strip_prefix([' ', 'T']).filter(|_| whole)?;
    if rest.is_empty() {
        return Some(Moment {
            local: midnight,
            zone: None,
        });
    }
    let (hour, rest) = digits(rest, 1..=2)?;
    let (minute, rest) = match rest.strip_prefix(':') {
        Some(rest) => digits(rest, 1..=2)?,
        None => (0, rest),
    };
    let (second, rest) = match rest.strip_prefix(':') {
        Some(rest) => digits(rest, 1..=2)?,
        None => (0, rest),
    };
    let (micro, rest) = match rest.strip_prefix('.') {
        Some(rest) => {
            let end = rest
                .bytes()
                .position(|b| !b.is_ascii_digit())
                .unwrap_or(rest.len());
            let kept = &rest[..end.min(6)];
            let micro = if kept.is_empty() {
                0
            } else {
                format!("{kept:0<6}").parse().ok()?
            };
            (micro, &rest[end..])
        }
        None => (0, rest),
    };
    let zone = match rest.trim() {
        "" => None,
        name => Some(Zone::named(name)?),
    };
    let time = NaiveTime::from_hms_micro_opt(hour, minute, second, micro)?;
    let local = NaiveDateTime::new(date, time).and_utc().timestamp_micros();
    Some(Moment { local, zone })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_spark_reads_them() {
        let utc =
            |text: &str| moment(text).map(|m| m.zone.unwrap_or(Zone::Fixed(0)).to_utc(m.local));
        assert_eq!(utc("1970-01-01 00:00:01.5"), Some(1_500_000));
        assert_eq!(utc("1970-01-01T02:00+02:00"), Some(0));
        assert_eq!(utc("1970-1-1"), Some(0));
        assert_eq!(
            utc("2024-05-06 07:08:09 America/New_York"),
            utc("2024-05-06T11:08:09Z")
        );
        for bad in [
            "",
            "garbage",
            "12:30",
            "2024-13-01",
            "2024-01-01 25:00",
            "2024-01-01x",
            "2024-01-01 10:00 Nowhere",
        ] {
            assert_eq!(utc(bad), None, "{bad}");
        }
        assert_eq!(date("2024-01-01T10:00:00"), Some(19723));
        assert_eq!(date("20241231"), None);
    }

    #[test]
    fn decimals_round_half_up() {
        let read = |text: &str| match decimal(text, 5, 1) {
            Decimal::Is(v) => v.to_string(),
            Decimal::TooLarge => "too large".into(),
            Decimal::NoNumber => "no number".into(),
        };
        assert_eq!(read("1.25"), "13");
        assert_eq!(read("-1.25"), "-13");
        assert_eq!(read("1e3"), "10000");
        assert_eq!(read("0.04"), "0");
        assert_eq!(read("99999"), "too large");
        assert_eq!(read("1e400"), "too large");
        assert_eq!(read("1e-400"), "0");
        assert_eq!(read("e1"), "no number");
        assert_eq!(read("1d"), "no number");
    }
}
