//! `split`: the word count runs on it.
//!
//! A constant pattern without special characters is found by memchr, and the pieces are copied straight into one child
//! array; anything else goes through a compiled regular expression.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, ListArray, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Int32Type};
use datafusion::common::{DataFusionError, ScalarValue};
use memchr::memmem::Finder;

use super::Args;
use super::kernel::{Can, Kernel, Result as Run, Typed};
use super::pattern::{Patterns, java};
use crate::error::QueryError;
use crate::types::list_of;

/// The call of `split`.
pub(super) fn build(args: &Args) -> Result<Typed, QueryError> {
    let args = args.typed(&[DataType::Utf8, DataType::Utf8, DataType::Int32], 2)?;
    let returns = list_of(DataType::Utf8);
    let plain = args[1].constant_text().and_then(plain_text);
    let limit = match args.get(2).map(Typed::constant) {
        None => Some(-1),
        Some(Some(ScalarValue::Int32(limit))) => *limit,
        Some(_) => None,
    };
    if let (Some(separator), Some(limit)) = (plain, limit) {
        let params = format!("{separator:?} {limit}");
        let text = args.into_iter().take(1).collect();
        let finder = Finder::new(separator.as_bytes()).into_owned();
        return Ok(Kernel::over_arrays(
            "split",
            params,
            text,
            returns,
            Can::NotFail,
            move |args, _| by_text(args[0].as_string(), &finder, limit),
        ));
    }
    let args = match args.len() {
        2 => args
            .into_iter()
            .chain([Typed::literal(ScalarValue::Int32(Some(-1)))])
            .collect(),
        _ => args,
    };
    Ok(Kernel::over_arrays(
        "split",
        "",
        args,
        returns,
        Can::Fail,
        |args, _| {
            by_regex(
                args[0].as_string(),
                args[1].as_string(),
                args[2].as_primitive::<Int32Type>(),
            )
        },
    ))
}

/// The text that a regular expression stands for, if it is no more than that.
fn plain_text(pattern: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next) if next.is_ascii_punctuation() => out.push(next),
                Some('t') => out.push('\t'),
                Some('n') => out.push('\n'),
                _ => return None,
            },
            '.' | '$' | '|' | '(' | ')' | '[' | '{' | '}' | '^' | '?' | '*' | '+' | ']' => {
                return None;
            }
            c => out.push(c),
        }
    }
    (!out.is_empty()).then_some(out)
}

/// Collects pieces: their bytes one after another, and where each piece and each row ends.
struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<i32>,
    rows: Vec<i32>,
}

impl Pieces {
    fn new(texts: &StringArray) -> Self {
        let bytes = Vec::with_capacity(texts.value_data().len());
        let (mut ends, mut rows) = (
            Vec::with_capacity(texts.len() * 4),
            Vec::with_capacity(texts.len() + 1),
        );
        ends.push(0);
        rows.push(0);
        Pieces { bytes, ends, rows }
    }

    fn piece(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        self.ends.push(self.bytes.len() as i32);
    }

    fn row(&mut self) {
        self.rows.push(self.ends.len() as i32 - 1);
    }

    fn finish(self, texts: &StringArray) -> Run<ArrayRef> {
        if i32::try_from(self.bytes.len()).is_err() || i32::try_from(self.ends.len()).is_err() {
            return Err(DataFusionError::ResourcesExhausted(
                "split made more text than one batch can hold".into(),
            ));
        }
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.ends));
        let values = StringArray::try_new(offsets, Buffer::from_vec(self.bytes), None)?;
        let field = Arc::new(Field::new_list_field(DataType::Utf8, true));
        let rows = OffsetBuffer::new(ScalarBuffer::from(self.rows));
        Ok(Arc::new(ListArray::try_new(
            field,
            rows,
            Arc::new(values),
            texts.nulls().cloned(),
        )?))
    }
}

fn by_text(texts: &StringArray, separator: &Finder<'_>, limit: i32) -> Run<ArrayRef> {
    let mut pieces = Pieces::new(texts);
    let pieces_max = usize::try_from(limit)
        .ok()
        .filter(|n| *n > 0)
        .unwrap_or(usize::MAX);
    let (width, single) = match separator.needle() {
        [byte] => (1, Some(*byte)),
        needle => (needle.len(), None),
    };
    for text in texts {
        let Some(text) = text.map(str::as_bytes) else {
            pieces.row();
            continue;
        };
        let mut start = 0;
        let mut cut = |at: usize, pieces: &mut Pieces| {
            pieces.piece(&text[start..at]);
            start = at + width;
        };
        match single {
            Some(byte) => memchr::memchr_iter(byte, text)
                .take(pieces_max - 1)
                .for_each(|at| cut(at, &mut pieces)),
            None => separator
                .find_iter(text)
                .take(pieces_max - 1)
                .for_each(|at| cut(at, &mut pieces)),
        }
        pieces.piece(&text[start..]);
        pieces.row();
    }
    pieces.finish(texts)
}

fn by_regex(texts: &StringArray, patterns: &StringArray, limits: &Int32Array) -> Run<ArrayRef> {
    let mut compiled = Patterns::new(|p: &str| java("split", p));
    let mut pieces = Pieces::new(texts);
    let mut known = Vec::with_capacity(texts.len());
    for row in 0..texts.len() {
        known.push(texts.is_valid(row) && patterns.is_valid(row) && limits.is_valid(row));
        if known[row] {
            let regex = compiled.get(patterns.value(row))?;
            split_one(texts.value(row), &regex, limits.value(row), &mut pieces);
        }
        pieces.row();
    }
    let made = pieces.finish(texts)?;
    let list = made.as_list::<i32>();
    let DataType::List(field) = list.data_type() else {
        return Ok(made);
    };
    let (offsets, values) = (list.offsets().clone(), Arc::clone(list.values()));
    Ok(Arc::new(ListArray::try_new(
        Arc::clone(field),
        offsets,
        values,
        Some(known.into()),
    )?))
}

/// As Java's `String.split`, but that trailing empty pieces stay. An empty match at the start makes no empty piece.
fn split_one(text: &str, regex: &regex::Regex, limit: i32, pieces: &mut Pieces) {
    let pieces_max = usize::try_from(limit)
        .ok()
        .filter(|n| *n > 0)
        .unwrap_or(usize::MAX);
    let (mut start, mut made) = (0, 1);
    for found in regex.find_iter(text) {
        if made == pieces_max {
            break;
        }
        let empty = found.start() == found.end();
        // Java makes no piece of an empty match at the start, nor Spark of one at the end.
        if empty && (found.start() == 0 || found.start() == text.len()) {
            continue;
        }
        pieces.piece(&text.as_bytes()[start..found.start()]);
        start = found.end();
        made += 1;
    }
    pieces.piece(&text.as_bytes()[start..]);
}

/// The pieces of one text between matches.
pub(super) fn pieces(text: &str, regex: &regex::Regex, limit: i32) -> Vec<String> {
    let mut pieces = Pieces::new(&StringArray::from(vec![text]));
    split_one(text, regex, limit, &mut pieces);
    let piece = |two: &[i32]| &pieces.bytes[two[0] as usize..two[1] as usize];
    let texts = pieces.ends.windows(2).map(piece);
    texts
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str, pattern: &str, limit: i32) -> Vec<String> {
        let texts = StringArray::from(vec![text]);
        let result = match plain_text(pattern) {
            Some(plain) => by_text(&texts, &Finder::new(plain.as_bytes()), limit),
            None => by_regex(
                &texts,
                &StringArray::from(vec![pattern]),
                &Int32Array::from(vec![limit]),
            ),
        };
        let result = result.unwrap();
        let words = result.as_list::<i32>().value(0);
        words
            .as_string::<i32>()
            .iter()
            .map(|w| w.unwrap().to_string())
            .collect()
    }

    #[test]
    fn empty_pieces_stay() {
        assert_eq!(split("a,b,,c,", ",", -1), ["a", "b", "", "c", ""]);
        assert_eq!(split("", ",", -1), [""]);
        assert_eq!(split("a--b", "--", -1), ["a", "b"]);
    }

    #[test]
    fn a_limit_keeps_the_rest_whole() {
        assert_eq!(split("a b c", " ", 2), ["a", "b c"]);
        assert_eq!(split("a1b2c", "[0-9]", 2), ["a", "b2c"]);
        assert_eq!(split("a b c", " ", 1), ["a b c"]);
    }

    #[test]
    fn a_pattern_is_a_regular_expression() {
        assert_eq!(split("a.b", "\\.", -1), ["a", "b"]);
        assert_eq!(split("a  b", "\\s+", -1), ["a", "b"]);
        assert_eq!(split("ab", "x*", -1), ["a", "b"]);
    }

    #[test]
    fn a_null_is_null() {
        let texts = StringArray::from(vec![None, Some("a b")]);
        let result = by_text(&texts, &Finder::new(" "), -1).unwrap();
        assert!(result.is_null(0));
        assert_eq!(result.as_list::<i32>().value_length(1), 2);
    }
}
