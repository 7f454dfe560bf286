//! Values as cells.

use crate::options::{OptionError, Options, character, flag, flag_or, separator};
use crate::view::{TextStyle, View};

/// How cells are written.
#[derive(Debug, Clone)]
pub struct CsvStyle {
    /// The first line has the names of the columns.
    pub header: bool,
    /// What is between cells.
    pub separator: char,
    quote: char,
    escape: char,
    null_value: String,
    empty_value: String,
    trim_start: bool,
    trim_end: bool,
    /// All cells are in quotes.
    quote_all: bool,
    /// Cells that have quotes are in quotes.
    escape_quotes: bool,
    /// Stands before an escape within quotes.
    escape_of_escape: char,
}

/// The names of its options.
pub const CSV_WRITE_KNOWN: &[&str] = &[
    "header",
    "sep",
    "delimiter",
    "quote",
    "escape",
    "nullValue",
    "emptyValue",
    "ignoreLeadingWhiteSpace",
    "ignoreTrailingWhiteSpace",
    "quoteAll",
    "escapeQuotes",
    "charToEscapeQuoteEscaping",
    "extension",
];

impl CsvStyle {
    /// Reads options by name; `owner` is told in errors.
    pub fn parse(owner: &str, options: &Options) -> Result<Self, OptionError> {
        let one = |name: &str, default: char| {
            let byte = character(options, owner, name)?;
            Ok::<_, OptionError>(byte.flatten().map_or(default, char::from))
        };
        // None is the character of number zero.
        let or_zero = |name: &str, default: char| {
            let byte = character(options, owner, name)?;
            Ok::<_, OptionError>(byte.map_or(default, |byte| byte.map_or('\0', char::from)))
        };
        let escape = or_zero("escape", '\\')?;
        Ok(CsvStyle {
            header: flag(options, owner, "header")?,
            separator: char::from(separator(options, owner)?),
            quote: or_zero("quote", '"')?,
            escape,
            escape_of_escape: one("charToEscapeQuoteEscaping", escape)?,
            quote_all: flag(options, owner, "quoteAll")?,
            escape_quotes: flag_or(options, owner, "escapeQuotes", true)?,
            null_value: options.get("nullValue").unwrap_or("").into(),
            empty_value: options.get("emptyValue").unwrap_or("\"\"").into(),
            trim_start: flag_or(options, owner, "ignoreLeadingWhiteSpace", true)?,
            trim_end: flag_or(options, owner, "ignoreTrailingWhiteSpace", true)?,
        })
    }

    /// Appends a row, without an end. `cell` is room that is used again.
    pub fn push_row<'v>(
        &self,
        out: &mut String,
        views: impl Iterator<Item = &'v View>,
        row: usize,
        style: &TextStyle<'_>,
        cell: &mut String,
    ) {
        for (at, view) in views.enumerate() {
            if at > 0 {
                out.push(self.separator);
            }
            if view.is_null(row) {
                push_marker(out, &self.null_value, self);
            } else if self.quote_all || view.is_free_text() {
                cell.clear();
                view.push_text(cell, row, style);
                self.push_cell(out, cell);
            } else {
                view.push_text(out, row, style);
            }
        }
    }

    /// Appends a cell, in quotes if its text needs them. Blanks around it are left out, as Spark does when it writes.
    pub fn push_cell(&self, out: &mut String, text: &str) {
        push_cell(out, text, self);
    }
}

/// Appends what stands for a value that is not there, which may be two quotes.
fn push_marker(out: &mut String, marker: &str, style: &CsvStyle) {
    match marker.chars().eq([style.quote, style.quote]) {
        true => out.push_str(marker),
        false => push_whole(out, marker, style),
    }
}

/// Appends a cell, in quotes if its text needs them. Blanks around it are left out, as Spark does when it writes.
fn push_cell(out: &mut String, text: &str, style: &CsvStyle) {
    let is_blank = |c: char| c <= ' ';
    let mut text = text;
    if style.trim_start {
        text = text.trim_start_matches(is_blank);
    }
    if style.trim_end {
        text = text.trim_end_matches(is_blank);
    }
    if text.is_empty() {
        return push_marker(out, &style.empty_value, style);
    }
    push_whole(out, text, style);
}

fn push_whole(out: &mut String, text: &str, style: &CsvStyle) {
    let special = |c: char| c == style.separator || c == '\n' || c == '\r';
    // What begins with a quote would be taken for a quoted cell.
    let quotes = match style.escape_quotes {
        true => text.contains(style.quote),
        false => text.starts_with(style.quote),
    };
    match style.quote_all || quotes || text.contains(special) {
        true => push_quoted(out, text, style),
        false => out.push_str(text),
    }
}

fn push_quoted(out: &mut String, text: &str, style: &CsvStyle) {
    out.push(style.quote);
    for c in text.chars() {
        if c == style.quote {
            out.push(style.escape);
        } else if c == style.escape {
            out.push(style.escape_of_escape);
        }
        out.push(c);
    }
    out.push(style.quote);
}
