//! Numbers as text, read and written as Java does.

use std::fmt::{self, Write};

/// Reads a decimal number as an integer of `10^-scale`, rounding half up; `None` if it is none or has more than
/// `precision` digits.
pub fn parse_decimal(text: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (digits, power) = match rest.iter().position(|b| matches!(b, b'e' | b'E')) {
        Some(at) => (&rest[..at], parse_i64(&rest[at + 1..])?),
        None => (rest, 0),
    };
    let point = memchr::memchr(b'.', digits);
    let whole = point.unwrap_or(digits.len());
    if digits.len() == usize::from(point.is_some()) {
        return None;
    }
    // The digit that counts `10^-scale` is the last one kept; the next one rounds.
    let kept = (whole as i64)
        .checked_add(power)?
        .checked_add(i64::from(scale))?;
    let limit = 10i128.pow(u32::from(precision));
    let mut value = 0i128;
    let mut seen = 0i64;
    for (at, byte) in digits.iter().enumerate() {
        if Some(at) == point {
            continue;
        }
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        if seen < kept {
            value = value * 10 + i128::from(digit);
            if value >= limit {
                return None;
            }
        } else if seen == kept {
            value += i128::from(digit >= 5);
        }
        seen += 1;
    }
    for _ in seen..kept {
        if value == 0 {
            break;
        }
        value *= 10;
        if value >= limit {
            return None;
        }
    }
    (value < limit).then_some(if negative { -value } else { value })
}

/// Reads an integer as Java's `Long.parseLong` does.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value = 0i64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_sub(i64::from(digit))?;
    }
    if negative {
        Some(value)
    } else {
        value.checked_neg()
    }
}

/// Reads a number as Java's `Double.parseDouble` does, hexadecimals excepted: blanks around it, `NaN`, `Infinity` and
/// a final `d` or `f` are fine; `inf` is not.
pub fn parse_f64(text: &str) -> Option<f64> {
    let text = text.trim_matches(|c: char| c <= ' ');
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match unsigned.as_bytes().first()? {
        b'0'..=b'9' | b'.' => text.trim_end_matches(['d', 'D', 'f', 'F']).parse().ok(),
        _ if unsigned == "NaN" => Some(f64::NAN),
        _ if unsigned == "Infinity" => Some(match text.starts_with('-') {
            true => f64::NEG_INFINITY,
            false => f64::INFINITY,
        }),
        _ => None,
    }
}

/// Writes a number as Java's `Double.toString` does: `1.0`, `1.0E10`, `NaN`.
pub fn push_f64(out: &mut String, value: f64) {
    let mut scientific = Digits::default();
    write!(scientific, "{value:e}").expect("it has room for any number");
    push_shortest(out, value.is_nan(), value, scientific.text());
}

/// Writes a number as Java's `Float.toString` does.
pub fn push_f32(out: &mut String, value: f32) {
    let mut scientific = Digits::default();
    write!(scientific, "{value:e}").expect("it has room for any number");
    push_shortest(out, value.is_nan(), f64::from(value), scientific.text());
}

/// The text of a number, without an allocation.
#[derive(Default)]
struct Digits {
    bytes: [u8; 32],
    len: usize,
}

impl Digits {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).expect("only texts were written")
    }
}

impl fmt::Write for Digits {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// `scientific` is the shortest text that reads back: `d.ddde±n`.
fn push_shortest(out: &mut String, nan: bool, value: f64, scientific: &str) {
    if nan || value.is_infinite() {
        out.push_str(match (nan, value > 0.0) {
            (true, _) => "NaN",
            (_, true) => "Infinity",
            _ => "-Infinity",
        });
        return;
    }
    let (digits, exponent) = scientific.split_once('e').expect("{:e} writes an exponent");
    let exponent: i32 = exponent.parse().expect("{:e} writes an integer exponent");
    let digits = match digits.strip_prefix('-') {
        Some(digits) => {
            out.push('-');
            digits
        }
        None => digits,
    };
    let (first, rest) = digits.split_at(1);
    let rest = rest.strip_prefix('.').unwrap_or(rest);
    if value == 0.0 {
        out.push_str("0.0");
    } else if (0..7).contains(&exponent) {
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
        out.push_str(&exponent.to_string());
    }
}

/// Writes an integer of `10^-scale` with exactly `scale` digits after the point.
pub fn push_decimal(out: &mut String, value: i128, scale: i8) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_round_half_up_and_never_overflow() {
        for (text, precision, scale, expected) in [
            ("1.005", 5, 2, Some(101)),
            ("-1.005", 5, 2, Some(-101)),
            ("1.004999", 5, 2, Some(100)),
            ("1", 5, 2, Some(100)),
            ("1e2", 5, 2, Some(10_000)),
            ("12345e-3", 5, 2, Some(1235)),
            ("0.5", 1, 0, Some(1)),
            (".5", 2, 1, Some(5)),
            ("5.", 2, 1, Some(50)),
            ("999.995", 5, 2, None),
            ("1000", 5, 2, None),
            ("1e400000000000", 5, 2, None),
            ("0e400000000", 5, 2, Some(0)),
            ("1e-400000000", 5, 2, Some(0)),
            ("", 5, 2, None),
            (".", 5, 2, None),
            ("1x", 5, 2, None),
            (" 1", 5, 2, None),
        ] {
            assert_eq!(
                parse_decimal(text.as_bytes(), precision, scale),
                expected,
                "{text}"
            );
        }
        let largest = "9".repeat(38);
        assert_eq!(
            parse_decimal(largest.as_bytes(), 38, 0),
            Some(10i128.pow(38) - 1)
        );
    }

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
    fn doubles_are_read_as_java_does() {
        assert_eq!(parse_f64(" 1.5d "), Some(1.5));
        assert_eq!(parse_f64("-Infinity"), Some(f64::NEG_INFINITY));
        assert_eq!(parse_f64("inf"), None);
        assert_eq!(parse_f64("1x"), None);
        assert_eq!(parse_f64(""), None);
    }

    #[test]
    fn decimals_keep_their_scale() {
        let text = |value, scale| {
            let mut out = String::new();
            push_decimal(&mut out, value, scale);
            out
        };
        assert_eq!(text(1250, 2), "12.50");
        assert_eq!(text(-5, 2), "-0.05");
        assert_eq!(text(7, 0), "7");
        assert_eq!(text(7, -2), "700");
    }

    #[test]
    fn integers_cover_their_whole_range() {
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_i64(b"9223372036854775808"), None);
        assert_eq!(parse_i64(b"+5"), Some(5));
        assert_eq!(parse_i64(b"-"), None);
        assert_eq!(parse_i64(b"1.0"), None);
    }
}
