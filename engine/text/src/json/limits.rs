//! Bounds on what a text may hold, where somebody asked for them.
//!
//! A text beyond them is malformed as a whole, wherever in it that is and whoever reads it.

use crate::options::{OptionError, Options};

use super::scan::Malformed;
use crate::options::invalid;

/// Bounds on what a text may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// So many objects and arrays may be within each other.
    pub nesting_max: usize,
    /// A number may have so many digits.
    pub digits_max: usize,
}

impl Limits {
    /// The bounds that somebody asked for, if any.
    pub(super) fn parse(owner: &str, options: &Options) -> Result<Option<Self>, OptionError> {
        let bound = |name: &str| match options.get(name) {
            None => Ok(None),
            Some(value) => match value.trim().parse::<usize>() {
                Ok(bound) => Ok(Some(bound)),
                Err(_) => Err(invalid(
                    owner,
                    name,
                    value,
                    "it is a whole number from 0 on",
                )),
            },
        };
        let (nesting, digits) = (bound("maxNestingDepth")?, bound("maxNumLen")?);
        Ok((nesting.is_some() || digits.is_some()).then(|| Limits {
            nesting_max: nesting.unwrap_or(usize::MAX),
            digits_max: digits.unwrap_or(usize::MAX),
        }))
    }

    /// Whether a text that can be read keeps to them.
    pub(super) fn check(&self, text: &[u8]) -> Result<(), Malformed> {
        let (mut depth, mut at) = (0usize, 0);
        while let Some(byte) = text.get(at) {
            match byte {
                b'{' | b'[' => {
                    depth += 1;
                    if depth > self.nesting_max {
                        return Err(Malformed("it is nested deeper than maxNestingDepth"));
                    }
                }
                b'}' | b']' => depth = depth.saturating_sub(1),
                b'"' | b'\'' => at += string_length(&text[at..]) - 1,
                b'/' => at += comment_length(&text[at..]) - 1,
                b'0'..=b'9' => {
                    let length = word_length(&text[at..], b".+-");
                    let digits = text[at..at + length]
                        .iter()
                        .filter(|byte| byte.is_ascii_digit());
                    if digits.count() > self.digits_max {
                        return Err(Malformed("it has a number that is longer than maxNumLen"));
                    }
                    at += length - 1;
                }
                // Names without quotes may hold digits.
                byte if is_of_word(*byte) => at += word_length(&text[at..], b"") - 1,
                _ => {}
            }
            at += 1;
        }
        Ok(())
    }
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

fn word_length(text: &[u8], more: &[u8]) -> usize {
    let end = text
        .iter()
        .position(|byte| !is_of_word(*byte) && !more.contains(byte));
    end.unwrap_or(text.len())
}

/// With both quotes.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        at += match byte {
            b'\\' => 2,
            byte if *byte == text[0] => return at + 1,
            _ => 1,
        };
    }
    text.len()
}

fn comment_length(text: &[u8]) -> usize {
    let after = |end: &[u8]| {
        let found = text[2..].windows(end.len()).position(|bytes| bytes == end);
        found.map_or(text.len(), |at| 2 + at + end.len())
    };
    match text.get(1) {
        Some(b'*') => after(b"*/"),
        Some(b'/') => after(b"\n"),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(nesting_max: usize, digits_max: usize, text: &str) -> bool {
        let limits = Limits {
            nesting_max,
            digits_max,
        };
        limits.check(text.as_bytes()).is_ok()
    }

    /// The bounds that Spark 4.3 finds for the same texts.
    #[test]
    fn texts_are_measured_as_spark_measures_them() {
        for (text, nesting, digits) in [
            (r#"{"a":[[[[[]]]]]}"#, 6, 0),
            (r#"{"b":1,"c":[[[[[1]]]]]}"#, 6, 1),
            (r#"{"b":12345,"s":1}"#, 1, 5),
            (r#"{"d":-12345,"b":2}"#, 1, 5),
            (r#"{"d":1.23456789,"b":1}"#, 1, 9),
            (r#"{"b":1,"zz":123456789}"#, 1, 9),
            (r#"{"b":3,"d":1e-45}"#, 1, 3),
            (r#"{"a{[\"9999":'{[9"\'99]',n9999:1}"#, 1, 1),
            ("{/* [[[9999 */\"a\":2} // [9999", 1, 1),
            (r#"{"a":true,"b":NaN,"c":"é9999"}"#, 1, 0),
        ] {
            assert!(kept(nesting, digits, text), "{text}");
            assert!(!kept(nesting - 1, digits, text), "{text}");
            assert!(digits == 0 || !kept(nesting, digits - 1, text), "{text}");
        }
    }
}
