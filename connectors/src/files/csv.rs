//! Lines of cells. A line is a row: quotes do not reach over its end.
//!
//! As with JSON, whether a row is corrupt is decided by all columns of the schema, not by those a query happens to
//! read.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, RecordBatchOptions, StringBuilder};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use highwater_text::type_name::type_sql;

use super::FileError;
use super::bad::BadRecord;
use super::blocks::Shape;
use super::reader::LineDecoder;
use super::split::FileSplit;
use highwater_text::csv::{Cells, Column, CsvOptions, Rows, append_cells};
use highwater_text::mode::ParseMode;

/// Batches are cut near so many bytes, however few rows that is.
const BATCH_BYTES: usize = 16 << 20;

/// Where an output column comes from.
#[derive(Clone, Copy)]
enum From {
    Column(usize),
    CorruptRecord,
}

/// `options` for rows that end as `shape` says; bad ones may be kept apart.
pub(super) fn shaped(mut options: CsvOptions, shape: &Shape, keep_bad: bool) -> CsvOptions {
    if let Shape::Lines(end) = shape {
        options.line_end = end.clone();
    }
    options.keep_bad = keep_bad;
    if keep_bad {
        options.mode = ParseMode::DropMalformed;
    }
    options
}

pub(super) struct CsvDecoder {
    options: Arc<CsvOptions>,
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
                data_type: type_sql(field.data_type()),
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
            options: Arc::new(options),
        })
    }

    /// A line, or what counts as one.
    fn line(&mut self, line: &[u8]) -> Result<(), FileError> {
        self.lines += 1;
        if !self.options.is_row(line) {
            return Ok(());
        }
        if std::mem::take(&mut self.header_ahead) {
            self.cells.cut(line, &self.options.dialect);
            if let Some(reason) = self.options.over_limit(&self.cells, line) {
                return Err(self.malformed(reason));
            }
            return match self.options.other_header(&self.cells, line, &self.names) {
                None => Ok(()),
                Some(found) => Err(FileError::Header {
                    path: self.path.clone(),
                    found: found.join(", "),
                    wanted: self.names.join(", "),
                }),
            };
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
        let (found, wanted) = (self.cells.count(), self.columns.len());
        let mut bad = match found == wanted {
            true => None,
            false => Some(format!("it has {found} cells, not {wanted}")),
        };
        let mut found = found;
        // What no mode looks over.
        let mut fatal = false;
        if let Some(reason) = self.options.over_limit(&self.cells, line) {
            (bad, fatal, found) = (Some(reason), true, 0);
        }
        if self.cells.has_stray_quote() {
            let text = "a quote that is not escaped is in a quoted cell, which option";
            bad = Some(format!("{text} \"unescapedQuoteHandling\" makes an error"));
            fatal = true;
        }
        let bad_cell = append_cells(&mut self.columns, &self.cells, line, found, &self.options);
        if let (None, Some(cell)) = (&bad, bad_cell) {
            bad = Some(format!(
                "\"{}\" is no value of column \"{}\"",
                cell.cell, self.names[cell.column]
            ));
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
            Some(reason) if fatal && !self.options.keep_bad => Err(self.malformed(reason)),
            Some(reason) if self.options.mode == ParseMode::FailFast => {
                Err(self.malformed(reason + "; mode PERMISSIVE would read it with nulls"))
            }
            _ => Ok(()),
        }
    }

    /// The error of the row at hand.
    fn malformed(&self, reason: String) -> FileError {
        FileError::Csv {
            path: self.path.clone(),
            place: self.place.clone(),
            line: self.lines,
            reason,
        }
    }
}

impl LineDecoder for CsvDecoder {
    fn decode(&mut self, text: &[u8], rows_max: usize, last: bool) -> Result<usize, FileError> {
        let options = Arc::clone(&self.options);
        let mut rows = Rows::new(text, last, &options);
        while self.rows < rows_max && self.bytes < BATCH_BYTES {
            let Some(row) = rows.next() else { break };
            self.line(row)?;
        }
        Ok(rows.consumed())
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
