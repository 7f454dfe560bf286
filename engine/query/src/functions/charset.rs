//! Texts as bytes and back: character sets, base 64 and hexadecimal digits.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryBuilder, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, ScalarValue};

use super::kernel::{Can, Kernel, Result as Run, Typed};
use super::math::from_hex;
use super::{Args, cast};
use crate::coerce;
use crate::error::{QueryError, RunError};

type Result<T> = std::result::Result<T, QueryError>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charset {
    Ascii,
    Latin1,
    Utf8,
    Utf16,
    Utf16Be,
    Utf16Le,
    Utf32,
}

impl Charset {
    fn named(name: &str) -> Option<Charset> {
        Some(match name.to_lowercase().as_str() {
            "us-ascii" => Charset::Ascii,
            "iso-8859-1" => Charset::Latin1,
            "utf-8" => Charset::Utf8,
            "utf-16" => Charset::Utf16,
            "utf-16be" => Charset::Utf16Be,
            "utf-16le" => Charset::Utf16Le,
            "utf-32" => Charset::Utf32,
            _ => return None,
        })
    }

    fn encode(self, text: &str) -> Option<Vec<u8>> {
        let below = |limit: u32| {
            let bytes = text.chars().map(|c| u8::try_from(c as u32).ok());
            let bytes = bytes.map(|b| b.filter(|b| u32::from(*b) < limit));
            bytes.collect::<Option<Vec<u8>>>()
        };
        let units = |f: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(f).collect::<Vec<u8>>();
        Some(match self {
            Charset::Ascii => below(0x80)?,
            Charset::Latin1 => below(0x100)?,
            Charset::Utf8 => text.as_bytes().to_vec(),
            Charset::Utf16Be => units(u16::to_be_bytes),
            Charset::Utf16Le => units(u16::to_le_bytes),
            // A mark says which byte comes first, unless there are none.
            Charset::Utf16 if text.is_empty() => vec![],
            Charset::Utf16 => [vec![0xfe, 0xff], units(u16::to_be_bytes)].concat(),
            Charset::Utf32 => text
                .chars()
                .flat_map(|c| (c as u32).to_be_bytes())
                .collect(),
        })
    }

    fn decode(self, bytes: &[u8]) -> Option<String> {
        let units = |bytes: &[u8], f: fn([u8; 2]) -> u16| {
            let (pairs, rest) = bytes.as_chunks::<2>();
            let units = pairs.iter().map(|pair| f(*pair));
            let text = char::decode_utf16(units).collect::<std::result::Result<String, _>>();
            text.ok().filter(|_| rest.is_empty())
        };
        match self {
            Charset::Ascii => bytes
                .is_ascii()
                .then(|| bytes.iter().map(|b| char::from(*b)).collect()),
            Charset::Latin1 => Some(bytes.iter().map(|b| char::from(*b)).collect()),
            Charset::Utf8 => std::str::from_utf8(bytes).ok().map(str::to_string),
            Charset::Utf16Be => units(bytes, u16::from_be_bytes),
            Charset::Utf16Le => units(bytes, u16::from_le_bytes),
            Charset::Utf16 => match bytes {
                [0xff, 0xfe, rest @ ..] => units(rest, u16::from_le_bytes),
                [0xfe, 0xff, rest @ ..] => units(rest, u16::from_be_bytes),
                bytes => units(bytes, u16::from_be_bytes),
            },
            Charset::Utf32 => {
                let (bytes, little) = match bytes {
                    [0xff, 0xfe, 0, 0, rest @ ..] => (rest, true),
                    [0, 0, 0xfe, 0xff, rest @ ..] => (rest, false),
                    bytes => (bytes, false),
                };
                let (words, rest) = bytes.as_chunks::<4>();
                let number = |word: &[u8; 4]| match little {
                    true => u32::from_le_bytes(*word),
                    false => u32::from_be_bytes(*word),
                };
                let text = words.iter().map(|word| char::from_u32(number(word)));
                if rest.is_empty() {
                    text.collect()
                } else {
                    None
                }
            }
        }
    }
}

fn of_name(function: &str, name: &str) -> Run<Charset> {
    Charset::named(name).ok_or_else(|| {
        let message = format!(
            "The value of parameter(s) `charset` in `{function}` is invalid: expects one of the iso-8859-1, us-ascii, utf-16, utf-16be, utf-16le, utf-32, utf-8, but got {name}."
        );
        RunError::raise("INVALID_PARAMETER_VALUE.CHARSET", message)
    })
}

fn malformed(function: &str, charset: &str) -> DataFusionError {
    let message = format!("Invalid value found when performing `{function}` with {charset}");
    RunError::raise("MALFORMED_CHARACTER_CODING", message)
}

/// `encode(text, charset)`.
fn encode(args: &Args) -> Result<Typed> {
    let values = args.typed(&[DataType::Utf8, DataType::Utf8], 2)?;
    Ok(Kernel::over_arrays(
        "encode",
        "",
        values,
        DataType::Binary,
        Can::Fail,
        |args, rows| {
            let (texts, names) = (args[0].as_string::<i32>(), args[1].as_string::<i32>());
            let mut out = BinaryBuilder::new();
            for row in 0..rows {
                if texts.is_null(row) || names.is_null(row) {
                    out.append_null();
                    continue;
                }
                let name = names.value(row);
                let bytes = of_name("encode", name)?.encode(texts.value(row));
                out.append_value(bytes.ok_or_else(|| malformed("encode", name))?);
            }
            Ok(Arc::new(out.finish()))
        },
    ))
}

/// `decode(bytes, charset)`.
fn decode(args: &Args) -> Result<Typed> {
    let [value, charset] = args.exactly()?;
    let value = bytes_of("decode", value)?;
    let charset = coerce::argument("decode", 1, charset, &DataType::Utf8)?;
    Ok(Kernel::over_arrays(
        "decode",
        "",
        vec![value, charset],
        DataType::Utf8,
        Can::Fail,
        |args, rows| {
            let (bytes, names) = (args[0].as_binary::<i32>(), args[1].as_string::<i32>());
            let mut out = StringBuilder::new();
            for row in 0..rows {
                if bytes.is_null(row) || names.is_null(row) {
                    out.append_null();
                    continue;
                }
                let name = names.value(row);
                let text = of_name("decode", name)?.decode(bytes.value(row));
                out.append_value(text.ok_or_else(|| malformed("decode", name))?);
            }
            Ok(Arc::new(out.finish()))
        },
    ))
}

fn bytes_of(name: &str, value: Typed) -> Result<Typed> {
    match value.data_type {
        DataType::Binary | DataType::Utf8 | DataType::Null => {
            cast::implicit(value, &DataType::Binary)
        }
        _ => Err(coerce::unexpected(name, 0, &value, "BINARY")),
    }
}

/// The bytes of a text, by a function that says what is wrong with it.
fn to_bytes(
    name: &str,
    params: &str,
    text: Typed,
    attempt: bool,
    read: impl Fn(&str) -> Run<Vec<u8>> + Send + Sync + 'static,
) -> Result<Typed> {
    let text = match text.data_type {
        DataType::Binary => cast::implicit(text, &DataType::Utf8)?,
        _ => coerce::argument(name, 0, text, &DataType::Utf8)?,
    };
    let can = if attempt { Can::NotFail } else { Can::Fail };
    Ok(Kernel::over_arrays(
        name,
        params,
        vec![text],
        DataType::Binary,
        can,
        move |args, _| {
            let mut out = BinaryBuilder::new();
            for text in args[0].as_string::<i32>() {
                match text.map(&read) {
                    None => out.append_null(),
                    Some(Err(_)) if attempt => out.append_null(),
                    Some(bytes) => out.append_value(bytes?),
                }
            }
            Ok(Arc::new(out.finish()))
        },
    ))
}

/// `to_binary(text, form)`.
fn to_binary(name: &str, args: &Args) -> Result<Typed> {
    let values = args.at_least(1)?;
    let (text, form) = match values.as_slice() {
        [text] => (text.clone(), Some("hex")),
        [text, form] => match form.constant() {
            Some(ScalarValue::Utf8(form)) => (text.clone(), form.as_deref()),
            Some(value) if value.is_null() => (text.clone(), None),
            Some(_) => return Err(coerce::unexpected(name, 1, form, "STRING")),
            None => {
                let message = format!(
                    "Cannot resolve \"{name}\" due to data type mismatch: the input `fmt` should be a foldable \"STRING\" expression."
                );
                return Err(QueryError::mismatch("NON_FOLDABLE_INPUT", message));
            }
        },
        _ => return Err(args.wrong_number("[1, 2]")),
    };
    let attempt = name == "try_to_binary";
    let invalid = |text: &str, kind: &str| {
        let message = format!(
            "The value '{text}' ('{kind}') cannot be converted to \"BINARY\" because it is malformed. Correct the value as per the syntax, or change its format. Use `try_to_binary` to tolerate malformed input and return NULL instead."
        );
        RunError::raise("CONVERSION_INVALID_INPUT", message)
    };
    match form.map(str::to_lowercase).as_deref() {
        None => {
            coerce::argument(name, 0, text, &DataType::Utf8)?;
            Ok(Typed::null(&DataType::Binary))
        }
        Some("hex") => to_bytes(name, "hex", text, attempt, move |text| {
            from_hex(text).ok_or_else(|| invalid(text, "HEX"))
        }),
        Some("base64") => to_bytes(name, "base64", text, attempt, move |text| {
            match is_base64(text) {
                true => from_base64(text).map_err(|_| invalid(text, "BASE64")),
                false => Err(invalid(text, "BASE64")),
            }
        }),
        Some("utf-8" | "utf8") => {
            let text = coerce::argument(name, 0, text, &DataType::Utf8)?;
            cast::implicit(text, &DataType::Binary)
        }
        Some(form) => {
            let message = format!(
                "Cannot resolve \"{name}\" due to data type mismatch: The `fmt` value must to be a \"case-insensitive \"STRING\" literal of 'hex', 'utf-8', 'utf8', or 'base64'\", but got '{form}'."
            );
            Err(QueryError::mismatch("INVALID_ARG_VALUE", message))
        }
    }
}

/// Whether the text is base 64 with at most its blanks and its padding too much or too little.
fn is_base64(text: &str) -> bool {
    let (mut digits, mut padding) = (0usize, 0usize);
    for c in text.chars() {
        match c {
            '=' => padding += 1,
            c if c.is_whitespace() => {}
            c if padding == 0 && (c.is_ascii_alphanumeric() || c == '+' || c == '/') => digits += 1,
            _ => return false,
        }
    }
    match padding {
        0 => digits % 4 != 1,
        1 | 2 => (digits + padding).is_multiple_of(4),
        _ => false,
    }
}

/// As Java's MIME decoder: whatever is no digit is passed over.
fn from_base64(text: &str) -> Run<Vec<u8>> {
    let digit = |byte: u8| {
        Some(match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        })
    };
    let illegal = |what: &str| Err(RunError::raise("IllegalArgumentException", what));
    let (mut out, mut word, mut held) = (vec![], 0u32, 0);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'=' {
            if held < 2 || held == 2 && bytes.next() != Some(b'=') {
                return illegal("Input byte array has wrong 4-byte ending unit");
            }
            if bytes.any(|byte| digit(byte).is_some() || byte == b'=') {
                return illegal("Input byte array has incorrect ending byte");
            }
            break;
        }
        let Some(digit) = digit(byte) else { continue };
        (word, held) = (word << 6 | u32::from(digit), held + 1);
        if held == 4 {
            out.extend_from_slice(&word.to_be_bytes()[1..]);
            (word, held) = (0, 0);
        }
    }
    match held {
        0 => {}
        1 => return illegal("Last unit does not have enough valid bits"),
        2 => out.push((word >> 4) as u8),
        _ => out.extend_from_slice(&[(word >> 10) as u8, (word >> 2) as u8]),
    }
    Ok(out)
}

/// The functions of this family.
pub(super) fn build(name: &str, args: &Args) -> Result<Option<Typed>> {
    Ok(Some(match name {
        "encode" => encode(args)?,
        "decode" if args.len() == 2 => decode(args)?,
        "to_binary" | "try_to_binary" => to_binary(name, args)?,
        "unbase64" => to_bytes(name, "", args.one()?, false, from_base64)?,
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_from_their_bytes() {
        for charset in [
            Charset::Utf8,
            Charset::Utf16,
            Charset::Utf16Be,
            Charset::Utf16Le,
            Charset::Utf32,
        ] {
            for text in ["", "a", "é日😀"] {
                let bytes = charset.encode(text).expect("it has every character");
                assert_eq!(charset.decode(&bytes).as_deref(), Some(text), "{charset:?}");
            }
        }
        assert_eq!(Charset::Latin1.encode("é"), Some(vec![0xe9]));
        assert_eq!(Charset::Latin1.encode("日"), None);
        assert_eq!(Charset::Ascii.encode("é"), None);
        assert_eq!(
            Charset::Utf16.decode(&[0xff, 0xfe, 0x61, 0]).as_deref(),
            Some("a")
        );
        assert_eq!(Charset::Utf16Be.decode(&[0xd8, 0x3d]), None);
        assert_eq!(Charset::Utf32.decode(&[0, 0, 0]), None);
    }

    #[test]
    fn base_64_is_read_as_java_does() {
        let read = |text: &str| from_base64(text).ok();
        assert_eq!(read("YWJj").as_deref(), Some(&b"abc"[..]));
        assert_eq!(read("YW\r\nI=").as_deref(), Some(&b"ab"[..]));
        assert_eq!(read("YWI").as_deref(), Some(&b"ab"[..]));
        assert_eq!(read("YQ==").as_deref(), Some(&b"a"[..]));
        assert_eq!(read("Y"), None);
        assert_eq!(read("YWJj=="), None);
        assert!(is_base64("YW Jj") && !is_base64("YWJj==") && !is_base64("Y!"));
    }
}
