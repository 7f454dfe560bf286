//! Rows of Avro object container files, in the types of the schema: see `fit` for what may differ.
//!
//! Decoded here rather than by a library: of those that give Arrow batches, the one that agrees with our Arrow takes a
//! file that was cut short for a shorter one, does not compare the marks between blocks, and loops when a block holds
//! more bytes than its rows take. Nothing a file says is believed before it is checked.

mod column;
mod container;
mod shape;

use std::fs::File;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};

use super::FileError;
use super::fit::{Fit, Times, in_our_types};
use super::reader::BATCH_ROWS;
use super::split::FileSplit;
use column::{Column, Cursor, skip};
use container::{Block, Container};
use shape::Shape;

/// What is wrong with an Avro file.
#[derive(Debug, thiserror::Error)]
pub enum AvroError {
    /// It ends early, or holds what Avro has not.
    #[error("{0}")]
    Damaged(String),
    /// The block that starts at a byte is damaged.
    #[error("the block at byte {at}: {what}")]
    Block {
        /// Counted from the start of the file.
        at: u64,
        /// What is wrong with it.
        what: String,
    },
    /// It is compressed in a way that is not built.
    #[error(
        "it is compressed as \"{0}\", which is not supported; null, deflate, snappy and zstandard are"
    )]
    Codec(String),
    /// Its schema cannot be read.
    #[error("its schema: {0}")]
    Schema(String),
    /// The disk failed.
    #[error("it could not be read")]
    Io(#[from] std::io::Error),
}

impl AvroError {
    /// False if the file may be whole.
    pub(super) fn is_corruption(&self) -> bool {
        matches!(self, AvroError::Damaged(_) | AvroError::Block { .. })
    }
}

/// A batch is given out when it was made from so many bytes: texts of a column share an offset of 32 bits.
const BATCH_BYTES: usize = 32 << 20;

/// The batches of one file.
pub(super) struct AvroBatches {
    container: Container,
    /// Per field of the file's record.
    fields: Vec<FileField>,
    /// What the columns that are read are called and hold.
    read: SchemaRef,
    fit: Fit,
    block: Block,
    /// Bytes of the block that were decoded.
    at: usize,
    failed: bool,
}

enum FileField {
    Read(Column),
    Skipped(Shape),
}

fn failed(path: &str, source: AvroError) -> FileError {
    FileError::Avro {
        path: path.into(),
        source,
    }
}

/// The record that is a row of the file, and its columns in Arrow's types.
fn record(container: &Container) -> Result<(Vec<(String, Shape)>, Schema), AvroError> {
    let Shape::Record(fields) = shape::parse(container.schema())? else {
        return Err(AvroError::Schema("its rows are no records".into()));
    };
    let columns = fields
        .iter()
        .map(|(name, shape)| Field::new(name, shape.data_type(), true));
    let schema = Schema::new(columns.collect::<Vec<_>>());
    Ok((fields, schema))
}

/// Opens a file to read `columns` of `schema`.
pub(super) fn open_avro(
    file: File,
    split: &FileSplit,
    schema: &Schema,
    columns: &[usize],
) -> Result<AvroBatches, FileError> {
    let error = |source| failed(&split.path, source);
    let container = Container::open(file, split.size).map_err(error)?;
    let (fields, in_file) = record(&container).map_err(error)?;
    let fit = Fit::new(&in_file, schema, columns, Times::default(), &split.path)?;
    let read = in_file
        .project(fit.roots())
        .expect("the roots are its columns");
    let fields = fields.into_iter().enumerate().map(|(at, (_, shape))| {
        match fit.roots().binary_search(&at) {
            Ok(_) => FileField::Read(Column::new(&shape)),
            Err(_) => FileField::Skipped(shape),
        }
    });
    Ok(AvroBatches {
        container,
        fields: fields.collect(),
        read: Arc::new(read),
        fit,
        block: Block::default(),
        at: 0,
        failed: false,
    })
}

impl AvroBatches {
    fn batch(&mut self) -> Result<Option<RecordBatch>, AvroError> {
        let (mut rows, mut bytes) = (0, 0);
        while rows < BATCH_ROWS && bytes < BATCH_BYTES {
            if self.block.rows == 0 {
                if self.at < self.block.bytes.len() {
                    let what = "it holds more than its rows".into();
                    return Err(self.block.damaged(what));
                }
                self.at = 0;
                match self.container.next_block()? {
                    Some(block) => self.block = block,
                    None => {
                        self.block = Block::default();
                        break;
                    }
                }
                continue;
            }
            let mut cursor = Cursor::new(&self.block.bytes[self.at..]);
            let room = cursor.left();
            let before = rows;
            let decoded = decode(
                &mut self.fields,
                &mut cursor,
                (BATCH_ROWS - rows).min(self.block.rows),
                BATCH_BYTES - bytes,
                &mut rows,
            );
            decoded.map_err(|what| self.block.damaged(what))?;
            let taken = room - cursor.left();
            bytes += taken;
            self.at += taken;
            self.block.rows -= rows - before;
        }
        if rows == 0 {
            return Ok(None);
        }
        let columns = self.fields.iter_mut().filter_map(|field| match field {
            FileField::Read(column) => Some(column.finish()),
            FileField::Skipped(_) => None,
        });
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let columns = columns.collect();
        match RecordBatch::try_new_with_options(Arc::clone(&self.read), columns, &options) {
            Ok(batch) => Ok(Some(batch)),
            Err(error) => Err(AvroError::Damaged(error.to_string())),
        }
    }
}

/// Decodes up to `rows_max` rows, and stops when `bytes_max` are decoded.
fn decode(
    fields: &mut [FileField],
    cursor: &mut Cursor<'_>,
    rows_max: usize,
    bytes_max: usize,
    rows: &mut usize,
) -> Result<(), String> {
    let start = cursor.left();
    for _ in 0..rows_max {
        if start - cursor.left() >= bytes_max {
            break;
        }
        for field in fields.iter_mut() {
            match field {
                FileField::Read(column) => column.read(cursor)?,
                FileField::Skipped(shape) => skip(shape, cursor)?,
            }
        }
        *rows += 1;
    }
    Ok(())
}

impl Iterator for AvroBatches {
    type Item = Result<RecordBatch, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        Some(match self.batch() {
            Ok(batch) => self.fit.batch(&batch?),
            Err(source) => {
                self.failed = true;
                Err(failed(self.fit.path(), source))
            }
        })
    }
}

/// The schema that a file gives a batch read: its columns in our types.
pub(super) fn schema_of(file: File, split: &FileSplit) -> Result<Schema, FileError> {
    let error = |source| failed(&split.path, source);
    let container = Container::open(file, split.size).map_err(error)?;
    let (_, schema) = record(&container).map_err(error)?;
    in_our_types(&schema, "Avro")
}
