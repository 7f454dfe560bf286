//! Lines of cells. A line is a row: quotes do not reach over its end.
//!
//! As with JSON, whether a row is corrupt is decided by all columns of the schema, not by those a query happens to
//! read.

mod cells;
mod column;

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, RecordBatchOptions, StringBuilder};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use highwater_engine::options::{OptionError, Options};

use super::FileError;
use super::bad::BadRecord;
use super::blocks::Shape;
use super::reader::LineDecoder;
use super::split::FileSplit;
use crate::lines::{LineEnd, Lines};
use crate::mode::ParseMode;
use crate::options::{character, flag, flag_or, invalid, positive};
use crate::time::Zone;
use cells::{Cells, Dialect};
pub(super) use column::Column;

/// Batches are cut near so many bytes, however few rows that is.
const BATCH_BYTES: usize = 16 << 20;

/// How CSV is read.
#[derive(Debug, Clone)]
pub(super) struct CsvOptions {
    dialect: Dialect,
    header: bool,
    comment: Option<u8>,
    null_value: String,
    empty_value: String,
    nan_value: String,
    positive_inf: String,
    negative_inf: String,
    mode: ParseMode,
    column_name_of_corrupt_record: String,
    zone: Zone,
    enforce_schema: bool,
    max_columns: usize,
    max_cell_chars: Option<usize>,
    line_end: LineEnd,
    multi_line: bool,
    /// Bad rows are handed out instead of being read.
    keep_bad: bool,
}

/// The names, for `Options::only`.
pub(super) const KNOWN: &[&str] = &[
    "header",
    "sep",
    "delimiter",
    "quote",
    "escape",
    "comment",
    "nullValue",
    "emptyValue",
    "nanValue",
    "positiveInf",
    "negativeInf",
    "mode",
    "columnNameOfCorruptRecord",
    "ignoreLeadingWhiteSpace",
    "ignoreTrailingWhiteSpace",
    "timeZone",
    "charToEscapeQuoteEscaping",
    "enforceSchema",
    "maxColumns",
    "maxCharsPerColumn",
    "multiLine",
];

/// Names of the model that are not built.
pub(super) const NOT_BUILT: &[&str] = &[
    "timestampNTZFormat",
    "timeFormat",
    "enableDateTimeParsingFallback",
    "preferDate",
    "samplingRatio",
];

impl CsvOptions {
    pub(super) fn parse(owner: &str, options: &Options, zone: Zone) -> Result<Self, OptionError> {
        let text = |name: &str, default: &str| options.get(name).unwrap_or(default).to_string();
        let separator = match character(options, owner, "sep")? {
            Some(separator) => Some(separator),
            None => character(options, owner, "delimiter")?,
        };
        Ok(CsvOptions {
            dialect: Dialect {
                separator: separator.flatten().unwrap_or(b','),
                quote: character(options, owner, "quote")?.unwrap_or(Some(b'"')),
                escape: character(options, owner, "escape")?.unwrap_or(Some(b'\\')),
                escape_of_escape: character(options, owner, "charToEscapeQuoteEscaping")?,
                trim_start: flag(options, owner, "ignoreLeadingWhiteSpace")?,
                trim_end: flag(options, owner, "ignoreTrailingWhiteSpace")?,
            },
            header: flag(options, owner, "header")?,
            comment: character(options, owner, "comment")?.flatten(),
            null_value: text("nullValue", ""),
            empty_value: text("emptyValue", ""),
            nan_value: text("nanValue", "NaN"),
            positive_inf: text("positiveInf", "Inf"),
            negative_inf: text("negativeInf", "-Inf"),
            mode: options.parse(owner, "mode")?.unwrap_or_default(),
            column_name_of_corrupt_record: text("columnNameOfCorruptRecord", "_corrupt_record"),
            zone,
            enforce_schema: flag_or(options, owner, "enforceSchema", true)?,
            max_columns: positive(options, owner, "maxColumns")?.map_or(20_480, |n| n as usize),
            max_cell_chars: match options.parse::<i64>(owner, "maxCharsPerColumn")? {
                None | Some(-1) => None,
                Some(chars) if chars > 0 => Some(chars as usize),
                Some(chars) => {
                    let reason = "it is a positive whole number, or -1 for no limit";
                    return Err(invalid(
                        owner,
                        "maxCharsPerColumn",
                        &chars.to_string(),
                        reason,
                    ));
                }
            },
            line_end: LineEnd::Any,
            multi_line: flag(options, owner, "multiLine")?,
            keep_bad: false,
        })
    }

    /// Rows end as `shape` says.
    pub(super) fn shaped(mut self, shape: &Shape, keep_bad: bool) -> Self {
        if let Shape::Lines(end) = shape {
            self.line_end = end.clone();
        }
        self.keep_bad = keep_bad;
        if keep_bad {
            self.mode = ParseMode::DropMalformed;
        }
        self
    }

    /// Whether a header agrees with the schema, if it is asked to.
    fn check_header(&self, line: &[u8], names: &[String], path: &str) -> Result<(), FileError> {
        if self.enforce_schema {
            return Ok(());
        }
        let mut cells = Cells::default();
        cells.cut(line, &self.dialect);
        let found: Vec<String> = (0..cells.len())
            .map(|at| String::from_utf8_lossy(cells.get(line, at).0).into_owned())
            .collect();
        let agrees = found.len() == names.len()
            && found
                .iter()
                .zip(names)
                .all(|(a, b)| a.eq_ignore_ascii_case(b));
        match agrees {
            true => Ok(()),
            false => Err(FileError::Header {
                path: path.into(),
                found: found.join(", "),
                wanted: names.join(", "),
            }),
        }
    }

    /// How single values are read that are no cells.
    pub(super) fn of_values(zone: Zone) -> Self {
        CsvOptions::parse("", &Options::default(), zone).expect("defaults are fine")
    }

    /// Blank lines and comments are no rows.
    fn is_row(&self, line: &[u8]) -> bool {
        line.iter().any(|byte| *byte > b' ')
            && self.comment.is_none_or(|comment| line[0] != comment)
    }

    /// Strings, named by the header if there is one, else `_c0`, `_c1`, ...
    pub(super) fn schema_of(&self, text: &[u8]) -> Option<Schema> {
        let line = Lines::new(text).find(|line| self.is_row(line))?;
        let mut cells = Cells::default();
        cells.cut(line, &self.dialect);
        let fields = (0..cells.len()).map(|at| {
            let (name, _) = cells.get(line, at);
            let name = match self.header && !name.is_empty() {
                true => String::from_utf8_lossy(name).into_owned(),
                false => format!("_c{at}"),
            };
            Field::new(name, DataType::Utf8, true)
        });
        Some(Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// Where an output column comes from.
#[derive(Clone, Copy)]
enum From {
    Column(usize),
    CorruptRecord,
}

pub(super) struct CsvDecoder {
    options: CsvOptions,
    schema: SchemaRef,
    output: Vec<From>,
    /// Per cell, if it is decoded.
    columns: Vec<Option<Column>>,
    names: Vec<String>,
    corrupt: Option<StringBuilder>,
    /// Which rows stay, if some may go.
    kept: Option<Vec<bool>>,
    header_ahead: bool,
    cells: Cells,
    rows: usize,
    bytes: usize,
    lines: u64,
    path: String,
    place: String,
    bad: Vec<BadRecord>,
}

impl CsvDecoder {
    pub(super) fn new(
        schema: &Schema,
        columns: &[usize],
        options: CsvOptions,
        split: &FileSplit,
    ) -> Result<Self, FileError> {
        let is_corrupt_record =
            |at: usize| *schema.field(at).name() == options.column_name_of_corrupt_record;
        let wants_corrupt = columns.iter().any(|at| is_corrupt_record(*at));
        let all = wants_corrupt || options.mode != ParseMode::Permissive;
        let mut place = vec![From::CorruptRecord; schema.fields().len()];
        let (mut built, mut names) = (Vec::new(), Vec::new());
        for (at, field) in schema.fields().iter().enumerate() {
            if is_corrupt_record(at) {
                continue;
            }
            let column = Column::new(field.data_type()).ok_or_else(|| FileError::Type {
                column: field.name().clone(),
                data_type: field.data_type().to_string(),
                format: "CSV",
            })?;
            place[at] = From::Column(built.len());
            built.push((all || columns.contains(&at)).then_some(column));
            names.push(field.name().clone());
        }
        Ok(CsvDecoder {
            schema: Arc::new(schema.project(columns).map_err(|source| FileError::Arrow {
                path: split.path.clone(),
                source,
            })?),
            output: columns.iter().map(|at| place[*at]).collect(),
            columns: built,
            names,
            corrupt: wants_corrupt.then(StringBuilder::new),
            kept: (options.mode == ParseMode::DropMalformed).then(Vec::new),
            header_ahead: options.header && split.from == 0,
            cells: Cells::default(),
            rows: 0,
            bytes: 0,
            lines: 0,
            path: split.path.clone(),
            place: split.place(),
            bad: Vec::new(),
            options,
        })
    }

    /// Rows that may reach over several lines. Takes none of a row that is not whole yet.
    fn decode_records(
        &mut self,
        text: &[u8],
        rows_max: usize,
        last: bool,
    ) -> Result<usize, FileError> {
        let mut taken = 0;
        while self.rows < rows_max && self.bytes < BATCH_BYTES && taken < text.len() {
            let rest = &text[taken..];
            // A comment ends with its line, whatever quotes are in it.
            let plain = self
                .options
                .comment
                .is_some_and(|comment| rest[0] == comment);
            let end = match plain {
                true => memchr::memchr(b'\n', rest),
                false => cells::record_end(rest, &self.options.dialect),
            };
            let (end, behind) = match end {
                Some(end) => (end, end + 1),
                None if last => (rest.len(), rest.len()),
                None => break,
            };
            let record = &rest[..end];
            self.line(record.strip_suffix(b"\r").unwrap_or(record))?;
            taken += behind;
        }
        Ok(taken)
    }

    /// A line, or what counts as one.
    fn line(&mut self, line: &[u8]) -> Result<(), FileError> {
        self.lines += 1;
        if !self.options.is_row(line) {
            return Ok(());
        }
        if std::mem::take(&mut self.header_ahead) {
            return self.options.check_header(line, &self.names, &self.path);
        }
        self.bytes += line.len();
        self.row(line)
    }

    fn row(&mut self, line: &[u8]) -> Result<(), FileError> {
        // Bytes that are no UTF-8 are read as Java reads them.
        let mended;
        let line = match simdutf8::basic::from_utf8(line) {
            Ok(_) => line,
            Err(_) => {
                mended = String::from_utf8_lossy(line).into_owned();
                mended.as_bytes()
            }
        };
        self.cells.cut(line, &self.options.dialect);
        let (found, wanted) = (self.cells.len(), self.columns.len());
        let mut bad = match found == wanted {
            true => None,
            false => Some(format!("it has {found} cells, not {wanted}")),
        };
        let (most, longest) = (self.options.max_columns, self.options.max_cell_chars);
        let mut found = found;
        if found > most {
            bad = Some(format!("it has more cells than maxColumns, {most}"));
            found = 0;
        } else if let Some(longest) = longest
            && (0..found).any(|at| {
                let cell = self.cells.get(line, at).0;
                cell.len() > longest && String::from_utf8_lossy(cell).chars().count() > longest
            })
        {
            bad = Some(format!(
                "a cell is longer than maxCharsPerColumn, {longest}"
            ));
            found = 0;
        }
        for (at, column) in self.columns.iter_mut().enumerate() {
            let Some(column) = column else { continue };
            if at >= found {
                column.append_null();
                continue;
            }
            let (cell, quoted) = self.cells.get(line, at);
            // Separators, quotes and escapes are ASCII, so cells are cut between characters.
            let cell = std::str::from_utf8(cell).expect("the line is UTF-8");
            let cell = match (cell.is_empty(), quoted) {
                (true, false) => None,
                (true, true) => Some(self.options.empty_value.as_str()),
                _ => Some(cell),
            };
            match cell.filter(|cell| *cell != self.options.null_value) {
                None => column.append_null(),
                Some(cell) => {
                    if !column.append(cell, &self.options) && bad.is_none() {
                        bad = Some(format!(
                            "\"{cell}\" is no value of column \"{}\"",
                            self.names[at]
                        ));
                    }
                }
            }
        }
        self.rows += 1;
        if let Some(kept) = &mut self.kept {
            kept.push(bad.is_none());
        }
        if let Some(corrupt) = &mut self.corrupt {
            let line = std::str::from_utf8(line).expect("it was made UTF-8 above");
            corrupt.append_option(bad.as_ref().map(|_| line));
        }
        if let (true, Some(reason)) = (self.options.keep_bad, &bad) {
            self.bad.push(BadRecord {
                reason: reason.clone(),
                record: String::from_utf8_lossy(line).into_owned(),
            });
        }
        match bad {
            Some(reason) if self.options.mode == ParseMode::FailFast => Err(FileError::Csv {
                path: self.path.clone(),
                place: self.place.clone(),
                line: self.lines,
                reason,
            }),
            _ => Ok(()),
        }
    }
}

impl LineDecoder for CsvDecoder {
    fn decode(&mut self, text: &[u8], rows_max: usize, last: bool) -> Result<usize, FileError> {
        if self.options.multi_line {
            return self.decode_records(text, rows_max, last);
        }
        let end = self.options.line_end.clone();
        let mut lines = end.lines(text);
        while self.rows < rows_max && self.bytes < BATCH_BYTES {
            let Some(line) = lines.next() else { break };
            self.line(line)?;
        }
        Ok(lines.consumed())
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn take_bad(&mut self) -> Vec<BadRecord> {
        std::mem::take(&mut self.bad)
    }

    fn flush(&mut self) -> Result<RecordBatch, FileError> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let mut built: Vec<_> = self
            .columns
            .iter_mut()
            .map(|column| column.as_mut().map(Column::finish))
            .collect();
        built.push(
            self.corrupt
                .as_mut()
                .map(|corrupt| Arc::new(corrupt.finish()) as _),
        );
        let corrupt = built.len() - 1;
        let arrays = self.output.iter().map(|from| {
            let at = match from {
                From::Column(at) => *at,
                From::CorruptRecord => corrupt,
            };
            Arc::clone(built[at].as_ref().expect("what is put out was decoded"))
        });
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays.collect(), &options)
            .and_then(|batch| match self.kept.as_mut().map(std::mem::take) {
                Some(kept) => filter_record_batch(&batch, &BooleanArray::from(kept)),
                None => Ok(batch),
            })
            .map_err(|source| FileError::Arrow {
                path: self.path.clone(),
                source,
            })
    }
}
