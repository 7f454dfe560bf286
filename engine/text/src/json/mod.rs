//! Turns JSON texts into Arrow columns, with Spark's answers.
//!
//! One decoder for files, message values and `from_json`. It goes over the bytes once and writes wanted values
//! straight into column buffers; nothing is allocated per value.
//!
//! What Spark decides and other decoders do otherwise: a value of the wrong type makes its field null and its row
//! corrupt, the other fields stay; malformed text makes the whole row null; any value can be read as a string and
//! keeps its text; numbers read as timestamps are seconds; a text that is an array of objects is several rows; what
//! follows the first value of a text is ignored.
//!
//! One thing Spark leaves to its optimiser and we do not: whether a row is corrupt is decided by all columns of the
//! schema, not by those a query happens to read. So where it matters (a mode other than PERMISSIVE, or the column of
//! corrupt rows is read) all columns are decoded, and elsewhere only the wanted ones.

mod bytes;
mod column;
mod copy;
mod escape;
#[cfg(test)]
mod fuzz;
mod infer;
mod layout;
mod limits;
mod names;
mod object;
mod options;
mod path;
mod plain;
mod scan;
mod simple;
#[cfg(test)]
mod tests;
mod value;

use std::ops::Range;
use std::sync::Arc;

use crate::type_name::type_sql;
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;

pub use infer::{JsonInference, type_of};
pub use layout::{JsonWriting, WRITE_KNOWN};
pub use limits::Limits;
pub use options::{JsonOptions, KNOWN, NOT_BUILT};
pub use path::{JsonPath, json_array_length, json_fields, json_keys};
pub(crate) use plain::plain_end;
pub use value::{BadText, ValueDecoder};

use crate::mode::ParseMode;
use column::{Column, Context};
use object::Object;
use scan::{Cursor, Malformed, Start};

/// Batches are cut near so many bytes of text, however few rows that is.
const BATCH_BYTES: usize = 16 << 20;
/// A batch has no more, so that no column has more than its offsets can tell: bad UTF-8 grows to three times its
/// length.
const TEXT_BYTES_MAX: usize = i32::MAX as usize / 3;

/// Why JSON cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The schema asks for what JSON cannot hold.
    #[error("column \"{column}\" of type {} cannot be read from JSON", type_sql(.data_type))]
    Type {
        /// The column.
        column: String,
        /// Its type.
        data_type: DataType,
    },
    /// The column of corrupt rows has another type.
    #[error(
        "column \"{column}\" holds corrupt rows: it must be a nullable STRING, not {}",
        type_sql(.data_type)
    )]
    CorruptColumn {
        /// The column.
        column: String,
        /// Its type.
        data_type: DataType,
    },
    /// A bad row in mode FAILFAST.
    #[error("line {line} is malformed: {reason}; mode PERMISSIVE would read it as null")]
    Malformed {
        /// Counted from 1 since the decoder was made.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A single text is too long for an Arrow column.
    #[error("line {line} has {bytes} bytes, more than a column can hold")]
    TooLong {
        /// Counted from 1 since the decoder was made.
        line: u64,
        /// Its length.
        bytes: usize,
    },
    /// Arrow refused what was built.
    #[error("could not build columns from JSON")]
    Arrow(#[from] ArrowError),
}

/// Where an output column comes from.
enum From {
    Field(usize),
    CorruptRecord,
}

/// Decodes texts until asked for a batch.
pub struct JsonDecoder {
    options: JsonOptions,
    schema: SchemaRef,
    output: Vec<From>,
    root: Object,
    corrupt: Option<Column>,
    context: Context,
    lines: u64,
    /// Bytes of text since the last batch.
    bytes: usize,
}

impl JsonDecoder {
    /// A decoder of rows of `schema` that hands out only `columns` of it, in that order.
    pub fn new(
        schema: &Schema,
        columns: &[usize],
        options: JsonOptions,
    ) -> Result<Self, JsonError> {
        let is_corrupt_record =
            |field: &FieldRef| *field.name() == options.column_name_of_corrupt_record;
        let mut all = options.mode != ParseMode::Permissive;
        let mut corrupt = None;
        if let Some(field) = schema
            .fields()
            .iter()
            .find(|field| is_corrupt_record(field))
        {
            if field.data_type() != &DataType::Utf8 || !field.is_nullable() {
                return Err(JsonError::CorruptColumn {
                    column: field.name().clone(),
                    data_type: field.data_type().clone(),
                });
            }
            if columns
                .iter()
                .any(|at| is_corrupt_record(&schema.fields()[*at]))
            {
                all = true;
                corrupt = Column::new(&DataType::Utf8).ok();
            }
        }
        let mut fields: Vec<FieldRef> = Vec::new();
        let mut place = vec![None; schema.fields().len()];
        for (at, field) in schema.fields().iter().enumerate() {
            if !is_corrupt_record(field) && (all || columns.contains(&at)) {
                place[at] = Some(fields.len());
                fields.push(Arc::clone(field));
            }
        }
        for field in &fields {
            Column::new(field.data_type()).map_err(|data_type| JsonError::Type {
                column: field.name().clone(),
                data_type,
            })?;
        }
        let root = Object::new(&Fields::from(fields)).expect("every type was tried");
        Ok(JsonDecoder {
            schema: Arc::new(schema.project(columns)?),
            output: columns
                .iter()
                .map(|at| place[*at].map_or(From::CorruptRecord, From::Field))
                .collect(),
            root,
            corrupt,
            context: Context {
                times: options.times.clone(),
                not_finite: options.allow_non_numeric_numbers,
                anew: false,
                bad: None,
                scratch: Vec::new(),
            },
            lines: 0,
            bytes: 0,
            options,
        })
    }

    /// Rows since the last batch.
    pub fn rows(&self) -> usize {
        self.root.rows
    }

    /// Decodes one text, wherever lines end in it. Blank text is no row.
    pub fn decode_line(&mut self, text: &[u8]) -> Result<(), JsonError> {
        let before = self.begin();
        let mut cursor = Cursor::new(text, self.options.dialect(true));
        let outcome = self.read_rows(&mut cursor);
        let outcome = outcome.and_then(|()| check_text(&text[..cursor.pos]));
        self.end(text, 0..text.len(), before, outcome)
    }

    /// Decodes lines until `rows_max` rows (or many bytes) are waiting. Answers how many bytes it took; the last line
    /// of `text` counts as one, ended or not. Lines end with `\n`, `\r\n` or `\r`.
    ///
    /// Reading a row finds the end of its line, so it is not looked for before: no value can go over it.
    pub fn decode_lines(&mut self, text: &[u8], rows_max: usize) -> Result<usize, JsonError> {
        let mut cursor = Cursor::new(text, self.options.dialect(false));
        // Whether it is UTF-8, and up to where it was looked at for that.
        let (mut sound, mut checked) = (true, 0);
        while cursor.pos < text.len() && self.root.rows < rows_max && self.bytes < BATCH_BYTES {
            let start = cursor.pos;
            if start >= checked {
                (sound, checked) = check_lines(text, start);
            }
            let before = self.begin();
            let mut outcome = self.read_rows(&mut cursor);
            if !sound {
                outcome = outcome.and_then(|()| check_text(&text[start..cursor.pos]));
            }
            if text.get(cursor.pos) == Some(&b'\n') {
                self.end(text, start..cursor.pos, before, outcome)?;
                cursor.pos += 1;
                continue;
            }
            let from = if outcome.is_ok() { cursor.pos } else { start };
            let end = memchr::memchr2(b'\n', b'\r', &text[from..]);
            cursor.pos = end.map_or(text.len(), |end| from + end);
            self.end(text, start..cursor.pos, before, outcome)?;
            cursor.pos += match text[cursor.pos..] {
                [b'\r', b'\n', ..] => 2,
                [] => 0,
                _ => 1,
            };
        }
        Ok(cursor.pos)
    }

    /// The rows decoded since the last batch.
    pub fn flush(&mut self) -> Result<RecordBatch, JsonError> {
        let rows = self.root.rows;
        let fields = self.root.finish()?;
        let corrupt = match &mut self.corrupt {
            Some(column) => Some(column.finish()?),
            None => None,
        };
        let arrays = self.output.iter().map(|from| match from {
            From::Field(at) => Arc::clone(&fields[*at]),
            From::CorruptRecord => Arc::clone(corrupt.as_ref().expect("it was asked for")),
        });
        self.bytes = 0;
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(&self.schema),
            arrays.collect(),
            &RecordBatchOptions::new().with_row_count(Some(rows)),
        )?)
    }

    /// Before a text is read. Answers how many rows there are.
    #[inline]
    fn begin(&mut self) -> usize {
        self.lines += 1;
        self.context.bad = None;
        self.root.rows
    }

    /// After the text at `range` was read: the rows behind the first `before` are its.
    #[inline]
    fn end(
        &mut self,
        text: &[u8],
        range: Range<usize>,
        before: usize,
        outcome: Result<(), Malformed>,
    ) -> Result<(), JsonError> {
        self.bytes += range.len();
        if self.bytes > TEXT_BYTES_MAX {
            return Err(JsonError::TooLong {
                line: self.lines,
                bytes: range.len(),
            });
        }
        let outcome = match &self.options.limits {
            None => outcome,
            Some(limits) => outcome.and_then(|()| limits.check(&text[range.clone()])),
        };
        if outcome.is_ok() && self.context.bad.is_none() {
            if let Some(corrupt) = &mut self.corrupt {
                (before..self.root.rows).for_each(|_| corrupt.append_null());
            }
            return Ok(());
        }
        self.bad_text(text, range, before, outcome)
    }

    /// Does with a bad text what the mode says.
    #[cold]
    fn bad_text(
        &mut self,
        text: &[u8],
        range: Range<usize>,
        before: usize,
        outcome: Result<(), Malformed>,
    ) -> Result<(), JsonError> {
        if outcome.is_err() || self.options.mode != ParseMode::Permissive {
            self.root.truncate(before);
        }
        match self.options.mode {
            ParseMode::Permissive => {
                if outcome.is_err() {
                    self.root.append_nulls();
                }
                if let Some(corrupt) = &mut self.corrupt {
                    let text = String::from_utf8_lossy(&text[range]);
                    // Each row of an array gets the whole text.
                    let copies = self.root.rows.saturating_sub(before);
                    self.bytes = self.bytes.saturating_add(copies.saturating_mul(text.len()));
                    if self.bytes > TEXT_BYTES_MAX {
                        return Err(JsonError::TooLong {
                            line: self.lines,
                            bytes: text.len(),
                        });
                    }
                    (before..self.root.rows).for_each(|_| corrupt.append_text(&text));
                }
                Ok(())
            }
            ParseMode::DropMalformed => Ok(()),
            ParseMode::FailFast => {
                let excerpt = |range| excerpt(&String::from_utf8_lossy(&text[range]));
                let reason = match (outcome, &self.context.bad) {
                    (Ok(()), Some(bad)) => {
                        let text = excerpt(bad.start..bad.end);
                        // A string has its quotes already.
                        let text = match text.starts_with("\"\"") {
                            true => text[1..text.len() - 1].to_string(),
                            false => text,
                        };
                        format!("{text} is no {}", bad.wanted)
                    }
                    (Ok(()), None) => unreachable!("a bad text has a reason"),
                    (Err(Malformed(reason)), _) => format!("{reason}: {}", excerpt(range)),
                };
                Err(JsonError::Malformed {
                    line: self.lines,
                    reason,
                })
            }
        }
    }

    /// Reads the rows of one text: an object is one, an array of objects several.
    #[inline]
    fn read_rows(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
        match cursor.peek() {
            b'{' => self.root.read(cursor, &mut self.context, 0),
            _ => self.read_odd_rows(cursor),
        }
    }

    #[inline(never)]
    fn read_odd_rows(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
        if cursor.rest().starts_with(b"\xef\xbb\xbf") {
            cursor.pos += 3;
        }
        cursor.blanks();
        if cursor.at_end() {
            return Ok(());
        }
        match cursor.start()? {
            Start::Object => self.root.read(cursor, &mut self.context, 0),
            Start::Array => {
                cursor.pos += 1;
                cursor.blanks();
                if cursor.eat(b']') {
                    return Ok(());
                }
                loop {
                    if cursor.start()? != Start::Object {
                        return Err(Malformed("an array of rows holds something else"));
                    }
                    self.root.read(cursor, &mut self.context, 1)?;
                    if !cursor.more(b']')? {
                        return Ok(());
                    }
                }
            }
            _ => Err(Malformed("it is no object")),
        }
    }
}

/// So many bytes are looked at together to know whether they are UTF-8: they are read next, and are at hand then.
const CHECKED_BYTES: usize = 16 << 10;

/// Whether the lines from `start` on are UTF-8, and up to where that was looked at: the end of a line.
#[inline(never)]
fn check_lines(text: &[u8], start: usize) -> (bool, usize) {
    let least = text.len().min(start + CHECKED_BYTES);
    let end = memchr::memchr(b'\n', &text[least..]).map_or(text.len(), |end| least + end + 1);
    (simdutf8::basic::from_utf8(&text[start..end]).is_ok(), end)
}

/// A row that is no text is malformed, whatever is read of it; what is behind it does not count.
#[inline(never)]
fn check_text(text: &[u8]) -> Result<(), Malformed> {
    match simdutf8::basic::from_utf8(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(Malformed("it is no UTF-8")),
    }
}

/// The beginning of a text, quoted.
fn excerpt(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("\"{}...\"", &text[..end]),
        None => format!("\"{text}\""),
    }
}
