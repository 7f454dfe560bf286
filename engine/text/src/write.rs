//! Numbers, dates and timestamps as text: one form for casts, names of columns, files and tables.
//!
//! They append to a buffer: most callers write millions of values, and a text of its own for each is most of the cost.

use crate::digits::{self, Digits};

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Writes an integer.
pub fn push_integer(out: &mut String, value: i64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push('-');
    }
    out.push_str(std::str::from_utf8(&digits[at..]).expect("digits are ASCII"));
}

/// Writes a number as Java's `Double.toString` does: `1.0`, `1.0E10`, `NaN`.
pub fn push_f64(out: &mut String, value: f64) {
    push_number(out, value, || digits::of_double(value.abs()));
}

/// Writes a number as Java's `Float.toString` does.
pub fn push_f32(out: &mut String, value: f32) {
    push_number(out, f64::from(value), || digits::of_float(value.abs()));
}

fn push_number(out: &mut String, value: f64, digits: impl FnOnce() -> Digits) {
    if value.is_nan() {
        return out.push_str("NaN");
    }
    if value.is_sign_negative() {
        out.push('-');
    }
    if value.is_infinite() {
        return out.push_str("Infinity");
    }
    if value == 0.0 {
        return out.push_str("0.0");
    }
    let digits = digits();
    let exponent = digits.exponent;
    let (first, rest) = digits.text().split_at(1);
    if (0..7).contains(&exponent) {
        let whole = exponent as usize;
        out.push_str(first);
        out.push_str(&rest[..whole.min(rest.len())]);
        out.extend(std::iter::repeat_n('0', whole.saturating_sub(rest.len())));
        out.push('.');
        out.push_str(
            rest.get(whole..)
                .filter(|tail| !tail.is_empty())
                .unwrap_or("0"),
        );
    } else if (-3..0).contains(&exponent) {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', (-exponent - 1) as usize));
        out.push_str(first);
        out.push_str(rest);
    } else {
        out.push_str(first);
        out.push('.');
        out.push_str(if rest.is_empty() { "0" } else { rest });
        out.push('E');
        push_integer(out, i64::from(exponent));
    }
}

/// Writes an integer of `10^-scale` as Java's `BigDecimal.toString` does: with exactly `scale` digits after the point,
/// but a very small one with an exponent.
pub fn push_decimal(out: &mut String, value: i128, scale: i8) {
    let digits = value.unsigned_abs().checked_ilog10().unwrap_or(0) as i32;
    let exponent = digits - i32::from(scale);
    if exponent >= -6 {
        return push_plain_decimal(out, value, scale);
    }
    let digits = value.unsigned_abs().to_string();
    out.push_str(if value < 0 { "-" } else { "" });
    out.push_str(&digits[..1]);
    if digits.len() > 1 {
        out.push('.');
        out.push_str(&digits[1..]);
    }
    out.push('E');
    push_integer(out, i64::from(exponent));
}

/// Writes an integer of `10^-scale` with exactly `scale` digits after the point.
pub fn push_plain_decimal(out: &mut String, value: i128, scale: i8) {
    if value < 0 {
        out.push('-');
    }
    let digits = value.unsigned_abs().to_string();
    if scale <= 0 {
        out.push_str(&digits);
        if value != 0 {
            out.extend(std::iter::repeat_n('0', usize::from(scale.unsigned_abs())));
        }
        return;
    }
    let scale = scale as usize;
    let zeros = (scale + 1).saturating_sub(digits.len());
    let mut padded = "0".repeat(zeros);
    padded.push_str(&digits);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    out.push_str(whole);
    out.push('.');
    out.push_str(fraction);
}

/// Year, month and day of a day number.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

fn push_padded(out: &mut String, value: i64, width: u32) {
    let mut digits = [b'0'; 20];
    let (mut rest, mut at) = (value, digits.len());
    while rest > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let digits = &digits[digits.len() - width as usize..];
    out.push_str(std::str::from_utf8(digits).expect("digits are ASCII"));
}

/// Writes `2024-01-05`; a year above 9999 with a `+`.
pub fn push_date(out: &mut String, days: i64) {
    let (year, month, day) = civil_from_days(days);
    match year {
        0..=9999 => push_padded(out, year, 4),
        10_000.. => {
            out.push('+');
            out.push_str(&year.to_string());
        }
        _ => {
            out.push('-');
            push_padded(out, -year, (-year).to_string().len().max(4) as u32);
        }
    }
    out.push('-');
    push_padded(out, month, 2);
    out.push('-');
    push_padded(out, day, 2);
}

fn push_seconds(out: &mut String, local_us: i64, separator: char) {
    push_date(out, local_us.div_euclid(DAY));
    out.push(separator);
    let seconds = local_us.rem_euclid(DAY) / SECOND;
    push_padded(out, seconds / 3600, 2);
    out.push(':');
    push_padded(out, seconds / 60 % 60, 2);
    out.push(':');
    push_padded(out, seconds % 60, 2);
}

/// Writes what a clock shows, in microseconds since 1970: `2024-01-05 10:00:00.12`.
pub fn push_timestamp(out: &mut String, local_us: i64) {
    push_seconds(out, local_us, ' ');
    let fraction = local_us.rem_euclid(SECOND);
    if fraction != 0 {
        out.push('.');
        let start = out.len();
        push_padded(out, fraction, 6);
        let kept = out[start..].trim_end_matches('0').len();
        out.truncate(start + kept);
    }
}

/// Writes what a clock shows as files hold it: `2024-01-05T10:00:00.120Z`, milliseconds and, if it has one, the offset
/// in seconds.
pub fn push_timestamp_iso(out: &mut String, local_us: i64, offset: Option<i32>) {
    push_seconds(out, local_us, 'T');
    out.push('.');
    push_padded(out, local_us.rem_euclid(SECOND) / 1000, 3);
    match offset {
        None => return,
        Some(0) => return out.push('Z'),
        Some(offset) => out.push(if offset < 0 { '-' } else { '+' }),
    }
    let offset = i64::from(offset.unwrap_or(0).abs());
    push_padded(out, offset / 3600, 2);
    out.push(':');
    push_padded(out, offset / 60 % 60, 2);
}

/// Writes `INTERVAL '1 02:03:04' DAY TO SECOND`.
pub fn push_day_time(out: &mut String, micros: i64) {
    let sign = if micros < 0 { "-" } else { "" };
    let micros = micros.unsigned_abs();
    let (days, rest) = (micros / 86_400_000_000, micros % 86_400_000_000);
    let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
    let fraction = match fraction {
        0 => String::new(),
        fraction => format!(".{fraction:06}").trim_end_matches('0').to_string(),
    };
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let text = format!("INTERVAL '{sign}{days} {h:02}:{m:02}:{s:02}{fraction}' DAY TO SECOND");
    out.push_str(&text);
}

/// Writes `INTERVAL '1-2' YEAR TO MONTH`.
pub fn push_year_month(out: &mut String, months: i32) {
    let sign = if months < 0 { "-" } else { "" };
    let months = months.unsigned_abs();
    let (years, months) = (months / 12, months % 12);
    out.push_str(&format!("INTERVAL '{sign}{years}-{months}' YEAR TO MONTH"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_written_as_java_does() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (100.0, "100.0"),
            (1_234_567.5, "1234567.5"),
            (1e7, "1.0E7"),
            (1.25e10, "1.25E10"),
            (0.001, "0.001"),
            (0.0123, "0.0123"),
            (0.0001, "1.0E-4"),
            (-2.5, "-2.5"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            let mut out = String::new();
            push_f64(&mut out, value);
            assert_eq!(out, expected);
        }
        let mut out = String::new();
        push_f32(&mut out, 0.1);
        assert_eq!(out, "0.1");
    }

    #[test]
    fn decimals_keep_their_scale() {
        let text = |value, scale| {
            let mut out = String::new();
            push_plain_decimal(&mut out, value, scale);
            out
        };
        assert_eq!(text(1250, 2), "12.50");
        assert_eq!(text(-5, 2), "-0.05");
        assert_eq!(text(7, 0), "7");
        assert_eq!(text(7, -2), "700");
    }

    #[test]
    fn small_decimals_have_an_exponent() {
        let text = |value, scale| {
            let mut out = String::new();
            push_decimal(&mut out, value, scale);
            out
        };
        assert_eq!(text(1, 7), "1E-7");
        assert_eq!(text(-125, 9), "-1.25E-7");
        assert_eq!(text(0, 8), "0E-8");
        assert_eq!(text(1, 6), "0.000001");
        assert_eq!(text(1250, 2), "12.50");
    }
}
