//! `java.util.Formatter`'s patterns, in the US locale.

use super::illegal;
use crate::functions::kernel::Result as Run;

/// A value as the formatter sees it.
#[derive(Debug, Clone)]
pub(crate) enum Value<'a> {
    Null,
    Boolean(bool),
    /// A whole number, and how many bits it has.
    Integer(i64, u32),
    /// A number and how it writes itself.
    Float(f64, String),
    /// A decimal, which the formatter does not know as a number.
    Decimal(String),
    Text(&'a str),
}

/// A pattern that was read.
#[derive(Debug)]
pub(crate) struct Format(Vec<Part>);

#[derive(Debug)]
enum Part {
    Text(String),
    Value(Spec),
}

/// Which of the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Next,
    Same,
    Nth(usize),
}

#[derive(Debug)]
struct Spec {
    which: Which,
    flags: Vec<char>,
    width: Option<usize>,
    precision: Option<usize>,
    conversion: char,
    upper: bool,
    written: String,
}

/// Texts longer than this are refused: a width or a precision can ask for gigabytes.
const LENGTH_MAX: usize = 1 << 24;

fn number(text: &str) -> Run<usize> {
    match text.parse() {
        Ok(number) if number <= LENGTH_MAX => Ok(number),
        _ => Err(illegal("IllegalFormatWidthException", text)),
    }
}

impl Format {
    pub(crate) fn read(pattern: &str) -> Run<Format> {
        let mut parts = vec![];
        let mut rest = pattern;
        while let Some(at) = rest.find('%') {
            if at > 0 {
                parts.push(Part::Text(rest[..at].to_string()));
            }
            let (spec, after) = Spec::read(&rest[at..])?;
            parts.push(Part::Value(spec));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_string()));
        }
        Ok(Format(parts))
    }

    /// A conversion that is not built, if there is one.
    pub(crate) fn unsupported(&self) -> Option<char> {
        let mut conversions = self.0.iter().filter_map(|part| match part {
            Part::Value(spec) => Some(spec.conversion),
            Part::Text(_) => None,
        });
        conversions.find(|c| "hat".contains(*c))
    }

    pub(crate) fn write(&self, values: &[Value<'_>]) -> Run<String> {
        let mut out = String::new();
        let (mut ordinary, mut last) = (0, None);
        for part in &self.0 {
            let spec = match part {
                Part::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Part::Value(spec) => spec,
            };
            if let '%' | 'n' = spec.conversion {
                let text = if spec.conversion == 'n' { "\n" } else { "%" };
                out.push_str(&spec.justified(text.to_string()));
                continue;
            }
            let at = match spec.which {
                Which::Next => {
                    ordinary += 1;
                    Some(ordinary - 1)
                }
                Which::Same => last,
                Which::Nth(nth) => Some(nth),
            };
            last = at;
            let Some(value) = at.and_then(|at| values.get(at)) else {
                let message = format!("Format specifier '{}'", spec.written);
                return Err(illegal("MissingFormatArgumentException", message));
            };
            out.push_str(&spec.write(value)?);
        }
        Ok(out)
    }
}

fn digits(text: &str) -> &str {
    &text[..text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len())]
}

impl Spec {
    /// A specifier at the start of `text`, and what follows it.
    fn read(text: &str) -> Run<(Spec, &str)> {
        let unknown = |at: &str| {
            let c = at.chars().next().unwrap_or('%');
            illegal(
                "UnknownFormatConversionException",
                format!("Conversion = '{c}'"),
            )
        };
        let mut rest = &text[1..];
        let mut which = Which::Next;
        let index = digits(rest);
        if !index.is_empty() && rest[index.len()..].starts_with('$') {
            which = match number(index)?.checked_sub(1) {
                Some(nth) => Which::Nth(nth),
                None => {
                    let message = "Illegal format argument index = 0";
                    return Err(illegal("IllegalFormatArgumentIndexException", message));
                }
            };
            rest = &rest[index.len() + 1..];
        } else if let Some(after) = rest.strip_prefix('<') {
            (which, rest) = (Which::Same, after);
        }
        let mut flags = vec![];
        while let Some(flag) = rest.chars().next().filter(|c| "-#+ 0,(<".contains(*c)) {
            rest = &rest[1..];
            match flag {
                '<' => which = Which::Same,
                flag if flags.contains(&flag) => {
                    let message = format!("Flags = '{flag}'");
                    return Err(illegal("DuplicateFormatFlagsException", message));
                }
                flag => flags.push(flag),
            }
        }
        let width = digits(rest);
        rest = &rest[width.len()..];
        let width = match width {
            "" => None,
            width => Some(number(width)?),
        };
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            let number_of = digits(after);
            if number_of.is_empty() {
                return Err(unknown("."));
            }
            precision = Some(number(number_of)?);
            rest = &after[number_of.len()..];
        }
        let Some(letter) = rest.chars().next() else {
            return Err(unknown("%"));
        };
        let upper = "BHSCXEGAT".contains(letter);
        let conversion = if upper {
            letter.to_ascii_lowercase()
        } else {
            letter
        };
        if !"bhscdoxefgatn%".contains(conversion) {
            return Err(unknown(rest));
        }
        let after = &rest[letter.len_utf8()..];
        let spec = Spec {
            which,
            flags,
            width,
            precision,
            conversion,
            upper,
            written: text[..text.len() - after.len()].to_string(),
        };
        spec.check()?;
        Ok((spec, after))
    }

    fn has(&self, flag: char) -> bool {
        self.flags.contains(&flag)
    }

    /// Which flags go with which conversion, and with which others.
    fn check(&self) -> Run<()> {
        let refuse = |flags: &str| match self.flags.iter().find(|f| flags.contains(**f)) {
            None => Ok(()),
            Some(flag) => Err(illegal(
                "FormatFlagsConversionMismatchException",
                format!("Conversion = {}, Flags = {flag}", self.conversion),
            )),
        };
        let unwanted_precision = || match self.precision {
            None => Ok(()),
            Some(precision) => Err(illegal(
                "IllegalFormatPrecisionException",
                precision.to_string(),
            )),
        };
        let contradiction = |illegal_flags: bool| match illegal_flags {
            false => Ok(()),
            true => Err(illegal(
                "IllegalFormatFlagsException",
                format!("Flags = {:?}", self.flags),
            )),
        };
        let without_width = |flags: &str| match self.width.is_none()
            && self.flags.iter().any(|f| flags.contains(*f))
        {
            false => Ok(()),
            true => Err(illegal("MissingFormatWidthException", self.written.clone())),
        };
        match self.conversion {
            'b' | 'h' => {
                refuse("#+ 0,(")?;
                without_width("-")
            }
            's' => {
                refuse("+ 0,(")?;
                without_width("-")
            }
            'c' => {
                unwanted_precision()?;
                refuse("#+ 0,(")?;
                without_width("-")
            }
            'd' | 'o' | 'x' => {
                unwanted_precision()?;
                refuse(match self.conversion {
                    'd' => "#",
                    _ => ",",
                })?;
                without_width("-0")?;
                contradiction(self.has('+') && self.has(' ') || self.has('-') && self.has('0'))
            }
            'e' | 'f' | 'g' | 'a' => {
                refuse(match self.conversion {
                    'e' => ",",
                    'g' => "#",
                    'a' => "(,",
                    _ => "",
                })?;
                without_width("-0")?;
                contradiction(self.has('+') && self.has(' ') || self.has('-') && self.has('0'))
            }
            '%' => {
                unwanted_precision()?;
                contradiction(self.flags.iter().any(|f| *f != '-'))?;
                without_width("-")
            }
            'n' => {
                unwanted_precision()?;
                contradiction(!self.flags.is_empty())?;
                match self.width {
                    None => Ok(()),
                    Some(width) => Err(illegal("IllegalFormatWidthException", width.to_string())),
                }
            }
            _ => Ok(()),
        }
    }

    /// Blanks to the width, which counts what Java counts: units of UTF-16.
    fn justified(&self, text: String) -> String {
        let text = match self.upper {
            true => text.to_uppercase(),
            false => text,
        };
        let missing = self
            .width
            .unwrap_or(0)
            .saturating_sub(text.encode_utf16().count());
        match self.has('-') {
            true => text + &" ".repeat(missing),
            false => " ".repeat(missing) + &text,
        }
    }

    /// A text cut to the precision.
    fn cut(&self, text: &str) -> String {
        match self.precision {
            None => text.to_string(),
            Some(precision) => {
                let units: Vec<u16> = text.encode_utf16().take(precision).collect();
                char::decode_utf16(units)
                    .map(|c| c.unwrap_or('?'))
                    .collect()
            }
        }
    }

    fn write(&self, value: &Value<'_>) -> Run<String> {
        let mismatch = || {
            let kind = match value {
                Value::Null => "null",
                Value::Boolean(_) => "java.lang.Boolean",
                Value::Integer(_, 8) => "java.lang.Byte",
                Value::Integer(_, 16) => "java.lang.Short",
                Value::Integer(_, 32) => "java.lang.Integer",
                Value::Integer(..) => "java.lang.Long",
                Value::Float(..) => "java.lang.Double",
                Value::Decimal(_) => "org.apache.spark.sql.types.Decimal",
                Value::Text(_) => "org.apache.spark.unsafe.types.UTF8String",
            };
            let message = format!("{} != {kind}", self.conversion);
            illegal("IllegalFormatConversionException", message)
        };
        let unsupported = |what: &str| {
            let message = format!("format_string with {what} is not supported yet");
            Err(illegal("UNSUPPORTED_FEATURE", message))
        };
        let shown = match (self.conversion, value) {
            ('b', Value::Null) => self.cut("false"),
            ('b', Value::Boolean(value)) => self.cut(&value.to_string()),
            ('b', _) => self.cut("true"),
            ('t', _) => return unsupported("%t"),
            ('s', _) if self.has('#') => {
                let message = "Conversion = s, Flags = #";
                return Err(illegal("FormatFlagsConversionMismatchException", message));
            }
            ('c', Value::Null) => "null".into(),
            (_, Value::Null) => self.cut("null"),
            ('h', _) => return unsupported("%h"),
            ('s', Value::Boolean(value)) => self.cut(&value.to_string()),
            ('s', Value::Integer(value, _)) => self.cut(&value.to_string()),
            ('s', Value::Float(_, text) | Value::Decimal(text)) => self.cut(text),
            ('s', Value::Text(text)) => self.cut(text),
            ('c', Value::Integer(value, bits)) if *bits < 64 => {
                match u32::try_from(*value).ok().and_then(char::from_u32) {
                    Some(c) => c.to_string(),
                    None => {
                        let message = format!("Code point = {value:#x}");
                        return Err(illegal("IllegalFormatCodePointException", message));
                    }
                }
            }
            ('d', Value::Integer(value, _)) => {
                let magnitude = value.unsigned_abs().to_string();
                self.signed(*value < 0, &magnitude, "")
            }
            ('o' | 'x', Value::Integer(value, bits)) => {
                self.signless()?;
                let value = *value as u64 & (u64::MAX >> (64 - bits));
                let (prefix, digits) = match self.conversion {
                    'o' => ("0", format!("{value:o}")),
                    _ => ("0x", format!("{value:x}")),
                };
                let prefix = if self.has('#') { prefix } else { "" };
                let width = self.width.filter(|_| self.has('0')).unwrap_or(0);
                let zeros = width.saturating_sub(prefix.len() + digits.len());
                format!("{prefix}{}{digits}", "0".repeat(zeros))
            }
            ('a', Value::Float(..)) => return unsupported("%a"),
            ('e' | 'f' | 'g', Value::Float(value, _)) => self.float(*value),
            _ => return Err(mismatch()),
        };
        Ok(self.justified(shown))
    }

    fn signless(&self) -> Run<()> {
        match self.flags.iter().find(|f| "( +".contains(**f)) {
            None => Ok(()),
            Some(flag) => Err(illegal(
                "FormatFlagsConversionMismatchException",
                format!("Conversion = {}, Flags = {flag}", self.conversion),
            )),
        }
    }

    /// A sign, the number with its separators and zeros, and what closes it.
    fn signed(&self, negative: bool, magnitude: &str, exponent: &str) -> String {
        let (whole, fraction) = match magnitude.find('.') {
            Some(point) => magnitude.split_at(point),
            None => (magnitude, ""),
        };
        let whole = match self.has(',') {
            true => grouped(whole),
            false => whole.to_string(),
        };
        let (sign, end) = match negative {
            true if self.has('(') => ("(", ")"),
            true => ("-", ""),
            false if self.has('+') => ("+", ""),
            false if self.has(' ') => (" ", ""),
            false => ("", ""),
        };
        let width = self.width.filter(|_| self.has('0')).unwrap_or(0);
        let length = sign.len() + whole.len() + fraction.len() + exponent.len() + end.len();
        let zeros = "0".repeat(width.saturating_sub(length));
        format!("{sign}{zeros}{whole}{fraction}{exponent}{end}")
    }

    fn float(&self, value: f64) -> String {
        if value.is_nan() {
            return "NaN".into();
        }
        let negative = value.is_sign_negative();
        if value.is_infinite() {
            let plain = Spec {
                which: self.which,
                flags: self
                    .flags
                    .iter()
                    .copied()
                    .filter(|f| !"0,".contains(*f))
                    .collect(),
                width: None,
                precision: None,
                conversion: 'f',
                upper: false,
                written: String::new(),
            };
            return plain.signed(negative, "Infinity", "");
        }
        let digits = Digits::of(value.abs());
        let precision = self.precision.unwrap_or(6);
        let (mut magnitude, exponent) = match self.conversion {
            'f' => (digits.plain(precision), String::new()),
            'e' => digits.scientific(precision),
            _ => {
                let precision = precision.max(1);
                let rounded = digits.rounded(precision as i64);
                // The place of the first digit: 1 is before the point.
                match value == 0.0 || (-3..=precision as i64).contains(&rounded.point) {
                    true => {
                        let point = if value == 0.0 { 1 } else { rounded.point };
                        let fraction = (precision as i64 - point).max(0);
                        (rounded.plain(fraction as usize), String::new())
                    }
                    false => rounded.scientific(precision - 1),
                }
            }
        };
        if self.has('#') && !magnitude.contains('.') {
            magnitude.push('.');
        }
        self.signed(negative, &magnitude, &exponent)
    }
}

/// Digits in groups of three.
pub(crate) fn grouped(whole: &str) -> String {
    let mut out = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The digits that tell a number from its neighbours, `0.d1d2d3 * 10^point`: Java rounds these.
#[derive(Debug, Clone)]
pub(crate) struct Digits {
    digits: Vec<u8>,
    pub(crate) point: i64,
}

impl Digits {
    pub(crate) fn of(value: f64) -> Digits {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let digits: Vec<u8> = mantissa.bytes().filter(|b| *b != b'.').collect();
        let exponent: i64 = exponent.parse().unwrap_or(0);
        Digits {
            digits: digits.into_iter().map(|b| b - b'0').collect(),
            point: exponent + 1,
        }
    }

    /// The first `count` digits, rounded half up.
    fn rounded(&self, count: i64) -> Digits {
        let mut found = self.clone();
        if count < 0 {
            found.digits = vec![0];
            return found;
        }
        let count = count as usize;
        if count >= self.digits.len() {
            return found;
        }
        let up = self.digits[count] >= 5;
        found.digits.truncate(count);
        if up {
            let mut at = count;
            loop {
                if at == 0 {
                    found.digits.insert(0, 1);
                    found.point += 1;
                    found.digits.truncate(count.max(1));
                    break;
                }
                at -= 1;
                if found.digits[at] < 9 {
                    found.digits[at] += 1;
                    break;
                }
                found.digits[at] = 0;
            }
        }
        if found.digits.is_empty() {
            found.digits.push(0);
        }
        found
    }

    fn at(&self, place: i64) -> char {
        let index = usize::try_from(self.point - place).ok();
        let digit = index.and_then(|i| self.digits.get(i));
        char::from(b'0' + digit.copied().unwrap_or(0))
    }

    /// `123.46`.
    pub(crate) fn plain(&self, fraction: usize) -> String {
        let found = self.rounded(self.point.saturating_add(fraction as i64));
        let mut out = String::new();
        for place in (1..=found.point.max(1)).rev() {
            out.push(found.at(place));
        }
        if fraction > 0 {
            out.push('.');
            for place in 1..=fraction as i64 {
                out.push(found.at(1 - place));
            }
        }
        out
    }

    /// `1.2346` and `e+02`.
    fn scientific(&self, fraction: usize) -> (String, String) {
        let found = self.rounded(fraction as i64 + 1);
        let zero = found.digits.iter().all(|d| *d == 0);
        let exponent = if zero { 0 } else { found.point - 1 };
        let mut out = found.at(found.point).to_string();
        if fraction > 0 {
            out.push('.');
            for place in 1..=fraction as i64 {
                out.push(found.at(found.point - place));
            }
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        (out, format!("e{sign}{:02}", exponent.abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, value: Value<'_>, expected: &str) {
        let format = Format::read(pattern).expect("the pattern is good");
        assert_eq!(format.write(&[value]).expect("it fits"), expected);
    }

    fn float(value: f64) -> Value<'static> {
        Value::Float(value, value.to_string())
    }

    #[test]
    fn floats_round_the_digits_that_they_are_written_with() {
        check("%.2f", float(1.005), "1.01");
        check("%.2f", float(-0.005), "-0.01");
        check("%.0f", float(0.5), "1");
        check("%.0f", float(0.49), "0");
        check("%f", float(1e20), "100000000000000000000.000000");
        check("%.1f", float(9.96), "10.0");
        check("%e", float(1234.5), "1.234500e+03");
        check("%.2E", float(0.000999), "9.99E-04");
        check("%e", float(0.0), "0.000000e+00");
        check("%g", float(0.0001), "0.000100000");
        check("%g", float(123456789.0), "1.23457e+08");
        check("%g", float(0.0), "0.00000");
        check("%,.1f", float(-1234567.25), "-1,234,567.3");
        check("%(08.1f", float(-1.5), "(0001.5)");
        check("%08.1f", float(f64::NEG_INFINITY), "-Infinity");
        check("%,010.1f", float(f64::INFINITY), "  Infinity");
    }

    #[test]
    fn integers_are_as_wide_as_their_type() {
        check("%x", Value::Integer(-1, 8), "ff");
        check("%X", Value::Integer(-1, 64), "FFFFFFFFFFFFFFFF");
        check("%#o", Value::Integer(8, 32), "010");
        check("%#010x", Value::Integer(255, 32), "0x000000ff");
        check("%+,d", Value::Integer(1234567, 32), "+1,234,567");
        check("%05d", Value::Integer(-12, 32), "-0012");
        check("%-5d|", Value::Integer(7, 32), "7    |");
    }

    #[test]
    fn texts_are_cut_and_padded_in_units_of_utf16() {
        check("%.2f", Value::Null, "nu");
        check("%5s|", Value::Text("😀"), "   😀|");
        check("%.1s|", Value::Text("😀"), "?|");
        check("%S %1$s %<s", Value::Text("a"), "A a a");
    }

    #[test]
    fn what_does_not_fit_is_told() {
        for pattern in [
            "%", "%q", "%-d", "%.3d", "%+x", "%05s", "%0-5d", "%,e", "%--5d",
        ] {
            let read = Format::read(pattern);
            let told = read.and_then(|f| f.write(&[Value::Integer(1, 32)]));
            assert!(told.is_err(), "{pattern}");
        }
    }
}
