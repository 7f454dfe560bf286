//! Cuts text into rows: lines, or what quotes make of several.

use super::cells;
use super::options::CsvOptions;
use crate::lines::Lines;

/// The rows of a text, blank ones and comments too.
pub enum Rows<'a> {
    /// A line is a row.
    Lines(Lines<'a>),
    /// Rows that may reach over several lines.
    Records {
        /// All of it.
        text: &'a [u8],
        /// What quotes are.
        options: &'a CsvOptions,
        /// The last row need not be ended.
        last: bool,
        /// How much of it was handed out.
        consumed: usize,
    },
}

impl<'a> Rows<'a> {
    /// Hands out none of a row that is not whole yet, unless the text is the `last`.
    pub fn new(text: &'a [u8], last: bool, options: &'a CsvOptions) -> Self {
        match options.multi_line {
            false => Rows::Lines(options.line_end.lines(text)),
            true => Rows::Records {
                text,
                options,
                last,
                consumed: 0,
            },
        }
    }

    /// How many bytes the rows handed out so far had, ends included.
    pub fn consumed(&self) -> usize {
        match self {
            Rows::Lines(lines) => lines.consumed(),
            Rows::Records { consumed, .. } => *consumed,
        }
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (text, options, last, consumed) = match self {
            Rows::Lines(lines) => return lines.next(),
            Rows::Records {
                text,
                options,
                last,
                consumed,
            } => (*text, *options, *last, consumed),
        };
        let rest = &text[*consumed..];
        // A comment ends with its line, whatever quotes are in it.
        let end = match options.comment == Some(*rest.first()?) {
            true => memchr::memchr(b'\n', rest),
            false => cells::record_end(rest, &options.dialect),
        };
        let (end, behind) = match end {
            Some(end) => (end, end + 1),
            None if last => (rest.len(), rest.len()),
            None => return None,
        };
        *consumed += behind;
        let record = &rest[..end];
        Some(record.strip_suffix(b"\r").unwrap_or(record))
    }
}
