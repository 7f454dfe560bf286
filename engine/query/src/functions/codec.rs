//! Texts written in other ways: URLs, base 64, masks.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, StringArray};
use arrow::datatypes::{DataType, Int32Type};
use datafusion::common::ScalarValue;

use super::kernel::{Can, Kernel, Result as Run, Typed};
use super::{Args, cast};
use crate::coerce;
use crate::error::{QueryError, RunError};

type Result<T> = std::result::Result<T, QueryError>;

/// As Java's URLEncoder.
fn url_encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => {
                out.push(byte as char)
            }
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn url_decoded(text: &str) -> Option<String> {
    let mut out = vec![];
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let mut digit = || (bytes.next()? as char).to_digit(16);
                out.push((digit()? << 4 | digit()?) as u8);
            }
            other => out.push(other),
        }
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for (nth, chunk) in bytes.chunks(3).enumerate() {
        // Lines of 76 characters, as in mail.
        if nth > 0 && nth % 19 == 0 {
            out.push_str("\r\n");
        }
        let word =
            chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i) & 63) as usize] as char;
            out.push(if i <= chunk.len() { digit } else { '=' });
        }
    }
    out
}

/// Whether the last of the digits is the check digit of those before it.
fn luhn(text: &str) -> bool {
    let digits = text.chars().rev().map(|c| c.to_digit(10));
    let sum = digits.enumerate().try_fold(0, |sum, (place, digit)| {
        let digit = digit? << (place % 2);
        Some(sum + digit / 10 + digit % 10)
    });
    !text.is_empty() && sum.is_some_and(|sum: u32| sum.is_multiple_of(10))
}

/// `elt(n, a, b, ...)`: the nth of the texts.
fn elt(args: &Args) -> Result<Typed> {
    let mut values = args.at_least(2)?;
    values[0] = coerce::argument("elt", 0, values[0].clone(), &DataType::Int32)?;
    for (i, value) in values.iter_mut().enumerate().skip(1) {
        *value = coerce::argument("elt", i, value.clone(), &DataType::Utf8)?;
    }
    let count = values.len() - 1;
    Ok(Kernel::over_arrays(
        "elt",
        "",
        values,
        DataType::Utf8,
        Can::Fail,
        move |args, rows| {
            let places = args[0].as_primitive::<Int32Type>();
            let texts = (0..rows).map(|row| {
                if places.is_null(row) {
                    return Ok(None);
                }
                let place = places.value(row);
                let Some(at) = usize::try_from(place)
                    .ok()
                    .filter(|at| (1..=count).contains(at))
                else {
                    let message = format!(
                        "The index {place} is out of bounds. The array has {count} elements."
                    );
                    return Err(RunError::raise("INVALID_ARRAY_INDEX", message));
                };
                let texts = args[at].as_string::<i32>();
                Ok(texts.is_valid(row).then(|| texts.value(row).to_string()))
            });
            Ok(Arc::new(texts.collect::<Run<StringArray>>()?))
        },
    ))
}

/// `mask(text, upper, lower, digit, other)`: what stands for which kind of character; NULL keeps it.
fn mask(args: &Args) -> Result<Typed> {
    let mut values = args.at_least(1)?;
    if values.len() > 5 {
        return Err(args.wrong_number("[1, 5]"));
    }
    let text = coerce::argument("mask", 0, values.remove(0), &DataType::Utf8)?;
    let mut marks = [Some('X'), Some('x'), Some('n'), None];
    for (i, value) in values.iter().enumerate() {
        marks[i] = match value.constant() {
            Some(value) if value.is_null() => None,
            Some(ScalarValue::Utf8(Some(mark))) if mark.chars().count() == 1 => mark.chars().next(),
            _ => {
                return Err(coerce::unexpected(
                    "mask",
                    i + 1,
                    value,
                    "STRING of one character",
                ));
            }
        };
    }
    let label = format!("{marks:?}");
    Ok(Kernel::over_arrays(
        "mask",
        label,
        vec![text],
        DataType::Utf8,
        Can::NotFail,
        move |args, _| {
            let masked = |c: char| match c {
                c if c.is_uppercase() => marks[0],
                c if c.is_lowercase() => marks[1],
                c if c.is_ascii_digit() => marks[2],
                _ => marks[3],
            };
            let texts = args[0].as_string::<i32>().iter();
            let texts = texts.map(|t| {
                t.map(|t| {
                    t.chars()
                        .map(|c| masked(c).unwrap_or(c))
                        .collect::<String>()
                })
            });
            Ok(Arc::new(texts.collect::<StringArray>()))
        },
    ))
}

/// The functions of this family.
pub(super) fn build(name: &str, args: &Args) -> Result<Option<Typed>> {
    let text = || Ok::<_, QueryError>(args.typed(&[DataType::Utf8], 1)?.remove(0));
    Ok(Some(match name {
        "url_encode" => Kernel::over_arrays(
            name,
            "",
            vec![text()?],
            DataType::Utf8,
            Can::NotFail,
            |args, _| {
                let texts = args[0]
                    .as_string::<i32>()
                    .iter()
                    .map(|t| t.map(url_encoded));
                Ok(Arc::new(texts.collect::<StringArray>()))
            },
        ),
        "url_decode" | "try_url_decode" => {
            let attempt = name.starts_with("try");
            let can = if attempt { Can::NotFail } else { Can::Fail };
            Kernel::over_arrays(
                name,
                "",
                vec![text()?],
                DataType::Utf8,
                can,
                move |args, _| {
                    let texts = args[0].as_string::<i32>().iter().map(|text| {
                    let Some(text) = text else { return Ok(None) };
                    match url_decoded(text) {
                        None if !attempt => {
                            let message = format!("The provided URL cannot be decoded: {text}. Please ensure that the URL is properly formatted and try again.");
                            Err(RunError::raise("CANNOT_DECODE_URL", message))
                        }
                        decoded => Ok(decoded),
                    }
                });
                    Ok(Arc::new(texts.collect::<Run<StringArray>>()?))
                },
            )
        }
        "base64" => {
            let value = args.one()?;
            let value = match value.data_type {
                DataType::Binary => value,
                _ => cast::implicit(
                    coerce::argument(name, 0, value, &DataType::Utf8)?,
                    &DataType::Binary,
                )?,
            };
            Kernel::over_arrays(
                name,
                "",
                vec![value],
                DataType::Utf8,
                Can::NotFail,
                |args, _| {
                    let texts = args[0].as_binary::<i32>().iter().map(|b| b.map(base64));
                    Ok(Arc::new(texts.collect::<StringArray>()))
                },
            )
        }
        "parse_url" | "try_parse_url" => super::url::build(name, args)?,
        "luhn_check" => Kernel::over_arrays(
            name,
            "",
            vec![text()?],
            DataType::Boolean,
            Can::NotFail,
            |args, _| {
                let texts = args[0].as_string::<i32>().iter();
                Ok(Arc::new(
                    texts.map(|t| t.map(luhn)).collect::<BooleanArray>(),
                ))
            },
        ),
        "elt" => elt(args)?,
        "mask" => mask(args)?,
        _ => return Ok(None),
    }))
}
