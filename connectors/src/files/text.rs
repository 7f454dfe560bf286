//! Lines as rows of one string.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use super::FileError;
use super::blocks::Shape;
use super::reader::LineDecoder;

/// Batches are cut near so many bytes, however few rows that is.
const BATCH_BYTES: usize = 16 << 20;

/// Copies lines end to end.
pub(super) struct TextDecoder {
    schema: SchemaRef,
    path: String,
    offsets: Vec<i32>,
    bytes: Vec<u8>,
    rows: usize,
    shape: Shape,
}

impl TextDecoder {
    /// `schema` is what is read: one string column, or none to count rows.
    pub(super) fn new(schema: SchemaRef, path: String, shape: Shape) -> Self {
        TextDecoder {
            schema,
            path,
            offsets: vec![0],
            bytes: Vec::new(),
            rows: 0,
            shape,
        }
    }

    fn column(&mut self) -> Result<ArrayRef, ArrowError> {
        let offsets = std::mem::replace(&mut self.offsets, Vec::with_capacity(self.rows + 1));
        self.offsets.push(0);
        let room = self.bytes.len();
        let bytes = std::mem::replace(&mut self.bytes, Vec::with_capacity(room));
        let offsets = OffsetBuffer::new(offsets.into());
        let bytes = Buffer::from(bytes);
        match StringArray::try_new(offsets.clone(), bytes.clone(), None) {
            Ok(array) => Ok(Arc::new(array)),
            // Some line is no UTF-8: its bad bytes become U+FFFD, as Java reads them.
            Err(_) => Ok(Arc::new(StringArray::from_iter_values(
                offsets.windows(2).map(|ends| {
                    String::from_utf8_lossy(&bytes[ends[0] as usize..ends[1] as usize])
                }),
            ))),
        }
    }
}

impl LineDecoder for TextDecoder {
    fn decode(&mut self, text: &[u8], rows_max: usize, _: bool) -> Result<usize, FileError> {
        let end = match &self.shape {
            Shape::Lines(end) => end.clone(),
            Shape::Records | Shape::Whole => {
                self.bytes.extend_from_slice(text);
                // A file is far from 2 GiB: blocks see to it.
                self.offsets.push(self.bytes.len() as i32);
                self.rows += 1;
                return Ok(text.len());
            }
        };
        let mut lines = end.lines(text);
        if self.schema.fields().is_empty() {
            self.rows += lines.by_ref().take(rows_max - self.rows).count();
            return Ok(lines.consumed());
        }
        while self.rows < rows_max && self.bytes.len() < BATCH_BYTES {
            let Some(line) = lines.next() else { break };
            self.bytes.extend_from_slice(line);
            // A line is far from 2 GiB, and a batch ends soon after 16 MiB.
            self.offsets.push(self.bytes.len() as i32);
            self.rows += 1;
        }
        Ok(lines.consumed())
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn flush(&mut self) -> Result<RecordBatch, FileError> {
        let columns = match self.schema.fields().is_empty() {
            true => Ok(Vec::new()),
            false => self.column().map(|column| vec![column]),
        };
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        columns
            .and_then(|columns| {
                RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            })
            .map_err(|source| FileError::Arrow {
                path: self.path.clone(),
                source,
            })
    }
}
