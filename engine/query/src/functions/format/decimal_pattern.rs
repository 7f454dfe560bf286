//! `java.text.DecimalFormat`'s patterns, in the US locale.

use super::illegal;
use crate::error::QueryError;
use crate::functions::kernel::Result as Run;

/// A number to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Number {
    Double(f64),
    /// Unscaled, and the digits after the point.
    Decimal(i128, usize),
}

/// A pattern that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DecimalPattern {
    positive: (String, String),
    negative: (String, String),
    whole_least: usize,
    fraction_least: usize,
    fraction_most: usize,
    /// Digits in a group, or 0.
    group: usize,
    /// How many places percent and per mille move the point.
    shift: usize,
    point_always: bool,
}

/// One half of a pattern: what stands around the digits, and they.
#[derive(Debug, Default)]
struct Half {
    prefix: String,
    digits: String,
    suffix: String,
    shift: usize,
}

fn malformed(pattern: &str) -> datafusion::common::DataFusionError {
    illegal(
        "IllegalArgumentException",
        format!("Malformed pattern \"{pattern}\""),
    )
}

impl DecimalPattern {
    /// `#,##0` and so many digits after the point.
    pub(crate) fn grouped(fraction: usize) -> DecimalPattern {
        DecimalPattern {
            positive: Default::default(),
            negative: ("-".into(), String::new()),
            whole_least: 1,
            fraction_least: fraction,
            fraction_most: fraction,
            group: 3,
            shift: 0,
            point_always: false,
        }
    }

    /// Refuses patterns with exponents or currencies.
    pub(crate) fn supported(pattern: &str) -> Result<(), QueryError> {
        match DecimalPattern::read(pattern).err().map(QueryError::from) {
            Some(error) if error.class() == Some("UNSUPPORTED_FEATURE") => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) fn read(pattern: &str) -> Run<DecimalPattern> {
        let (first, rest) = half(pattern, pattern)?;
        let digits = &first.digits;
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let zeros = |part: &str| part.matches('0').count();
        let plain: String = whole.chars().filter(|c| *c != ',').collect();
        // Before the point the zeros come last, after it first.
        if plain.trim_start_matches('#').contains('#')
            || fraction.trim_start_matches('0').contains('0')
            || fraction.contains([',', '.'])
        {
            return Err(malformed(pattern));
        }
        let group = match whole.rfind(',') {
            Some(at) if at + 1 == whole.len() => return Err(malformed(pattern)),
            Some(at) => whole.len() - at - 1,
            None => 0,
        };
        let mut whole_least = zeros(whole);
        if whole_least == 0 && fraction.is_empty() && !plain.is_empty() {
            // "#" alone writes a 0 as one.
            whole_least = usize::from(!digits.contains('.'));
        }
        let negative = match rest {
            Some(rest) if !rest.is_empty() => {
                let (second, _) = half(rest, pattern)?;
                match (second.prefix == first.prefix) && (second.suffix == first.suffix) {
                    true => (format!("-{}", first.prefix), first.suffix.clone()),
                    false => (second.prefix, second.suffix),
                }
            }
            _ => (format!("-{}", first.prefix), first.suffix.clone()),
        };
        Ok(DecimalPattern {
            positive: (first.prefix, first.suffix),
            negative,
            whole_least,
            fraction_least: zeros(fraction),
            fraction_most: fraction.len(),
            group,
            shift: first.shift,
            point_always: digits.ends_with('.'),
        })
    }

    pub(crate) fn write(&self, number: &Number) -> String {
        let (negative, whole, fraction) = match *number {
            Number::Double(value) if value.is_nan() => return "NaN".into(),
            Number::Double(value) => {
                let negative = value.is_sign_negative();
                match value.is_infinite() {
                    true => return self.around(negative, "∞"),
                    false => {
                        let (whole, fraction) = self.double(value.abs());
                        (negative, whole, fraction)
                    }
                }
            }
            Number::Decimal(unscaled, scale) => {
                let (whole, fraction) = self.decimal(unscaled.unsigned_abs(), scale);
                (unscaled < 0, whole, fraction)
            }
        };
        let mut fraction = fraction.as_str();
        while fraction.len() > self.fraction_least && fraction.ends_with('0') {
            fraction = &fraction[..fraction.len() - 1];
        }
        let whole = whole.trim_start_matches('0');
        let mut whole = format!(
            "{}{whole}",
            "0".repeat(self.whole_least.saturating_sub(whole.len()))
        );
        if whole.is_empty() && fraction.is_empty() {
            whole.push('0');
        }
        let mut out = String::new();
        for (i, digit) in whole.chars().enumerate() {
            if i > 0 && self.group > 0 && (whole.len() - i).is_multiple_of(self.group) {
                out.push(',');
            }
            out.push(digit);
        }
        if !fraction.is_empty() || self.point_always {
            out.push('.');
        }
        out.push_str(fraction);
        self.around(negative, &out)
    }

    fn around(&self, negative: bool, digits: &str) -> String {
        let (prefix, suffix) = if negative {
            &self.negative
        } else {
            &self.positive
        };
        format!("{prefix}{digits}{suffix}")
    }

    /// The exact value rounded half to even, unless fewer digits tell it from its neighbours.
    fn double(&self, value: f64) -> (String, String) {
        let value = value * 10f64.powi(self.shift as i32);
        let shortest = format!("{value}");
        let digits = shortest.split_once('.').map_or(0, |(_, f)| f.len());
        let text = match digits <= self.fraction_most {
            true => shortest,
            false => format!("{value:.*}", self.fraction_most),
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let fraction = format!("{fraction:0<width$}", width = self.fraction_most);
        (whole.to_string(), fraction)
    }

    fn decimal(&self, unscaled: u128, scale: usize) -> (String, String) {
        let mut digits = unscaled.to_string();
        if self.shift > 0 {
            digits.push_str(&"0".repeat(self.shift));
        }
        let digits = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        if fraction.len() <= self.fraction_most {
            let fraction = format!("{fraction:0<width$}", width = self.fraction_most);
            return (whole.to_string(), fraction);
        }
        let (kept, cut) = fraction.split_at(self.fraction_most);
        let mut all: Vec<u8> = format!("{whole}{kept}").into_bytes();
        let half = cut.starts_with('5') && cut[1..].bytes().all(|b| b == b'0');
        let odd = all.last().is_some_and(|d| d % 2 == 1);
        if cut.as_bytes()[0] > b'5' || cut.starts_with('5') && !half || half && odd {
            let mut at = all.len();
            loop {
                if at == 0 {
                    all.insert(0, b'1');
                    break;
                }
                at -= 1;
                if all[at] < b'9' {
                    all[at] += 1;
                    break;
                }
                all[at] = b'0';
            }
        }
        let all = String::from_utf8_lossy(&all).into_owned();
        let (whole, fraction) = all.split_at(all.len() - self.fraction_most);
        (whole.to_string(), fraction.to_string())
    }
}

/// The half up to a `;`, and what follows it.
fn half<'p>(text: &'p str, pattern: &str) -> Run<(Half, Option<&'p str>)> {
    let mut half = Half::default();
    let mut phase = 0;
    let mut quoted = false;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if phase == 0 && !quoted && "#0,.".contains(c) {
            phase = 1;
        }
        if phase == 1 {
            if "#0,.".contains(c) {
                half.digits.push(c);
                continue;
            }
            phase = 2;
        }
        let fix = if phase == 0 {
            &mut half.prefix
        } else {
            &mut half.suffix
        };
        match c {
            '\'' if chars.peek().is_some_and(|(_, next)| *next == '\'') => {
                chars.next();
                fix.push('\'');
            }
            '\'' => quoted = !quoted,
            c if quoted => fix.push(c),
            ';' => return Ok((half, Some(&text[at + 1..]))),
            '%' | '\u{2030}' => {
                fix.push(c);
                half.shift = if c == '%' { 2 } else { 3 };
            }
            '\u{a4}' | 'E' => {
                let message =
                    format!("format_number with '{c}' in \"{pattern}\" is not supported yet");
                return Err(illegal("UNSUPPORTED_FEATURE", message));
            }
            '#' | '0' | ',' | '.' => {
                let message = format!(
                    "format_number with digits apart in \"{pattern}\" is not supported yet"
                );
                return Err(illegal("UNSUPPORTED_FEATURE", message));
            }
            c => fix.push(c),
        }
    }
    match half.digits.is_empty() && !half.prefix.is_empty() && phase == 1 {
        true => Err(malformed(pattern)),
        false => Ok((half, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, number: Number, expected: &str) {
        let pattern = DecimalPattern::read(pattern).expect("the pattern is good");
        assert_eq!(pattern.write(&number), expected);
    }

    #[test]
    fn halves_go_to_even_of_the_exact_value() {
        check("#,##0.00", Number::Double(0.125), "0.12");
        check("#,##0.00", Number::Double(2.675), "2.67");
        check("#,##0.00", Number::Double(0.135), "0.14");
        check("#,##0", Number::Double(2.5), "2");
        check(
            "#,##0.00",
            Number::Double(1e23),
            "100,000,000,000,000,000,000,000.00",
        );
        check("#,##0.0", Number::Decimal(125, 2), "1.2");
        check("#,##0.0", Number::Decimal(9995, 3), "10.0");
        check("#,##0.00", Number::Decimal(-1, 3), "-0.00");
    }

    #[test]
    fn patterns_say_which_digits_are_written() {
        check("##0.00", Number::Double(0.5), "0.50");
        check("#.##", Number::Double(0.5), ".5");
        check("#.##", Number::Double(0.0), "0");
        check("0000", Number::Decimal(7, 0), "0007");
        check("#.##%", Number::Double(0.1234), "12.34%");
        check("$#,##0.00;(#)", Number::Decimal(-12345, 1), "(1,234.50)");
        check("'#'0", Number::Decimal(5, 0), "#5");
        check("#,####", Number::Decimal(1234567, 0), "123,4567");
    }
}
