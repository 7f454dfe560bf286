//! Numbers, read from text as Java does. They are written by the engine's text forms.

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
        b'0'..=b'9' | b'.' => text
            .strip_suffix(['d', 'D', 'f', 'F'])
            .unwrap_or(text)
            .parse()
            .ok(),
        _ if unsigned == "NaN" => Some(f64::NAN),
        _ if unsigned == "Infinity" => Some(match text.starts_with('-') {
            true => f64::NEG_INFINITY,
            false => f64::INFINITY,
        }),
        _ => None,
    }
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
    fn doubles_are_read_as_java_does() {
        assert_eq!(parse_f64(" 1.5d "), Some(1.5));
        assert_eq!(parse_f64("-Infinity"), Some(f64::NEG_INFINITY));
        assert_eq!(parse_f64("inf"), None);
        assert_eq!(parse_f64("1x"), None);
        assert_eq!(parse_f64(""), None);
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
