//! Turns splits into batches, on any thread of any process.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use highwater_engine::source::{Batches, Reader, SourceError, Split};

use super::avro::open_avro;
use super::blocks::{Blocks, open};
use super::csv::CsvDecoder;
use super::error::FileError;
use super::orc::open_orc;
use super::parquet::open_parquet;
use super::partition::Together;
use super::split::FileSplit;
use super::text::TextDecoder;
use super::{FileConfig, Format};
use crate::json::JsonDecoder;

pub(super) const BATCH_ROWS: usize = 8192;

/// Decodes lines until asked for a batch.
pub(super) trait LineDecoder {
    /// Takes lines until `rows_max` rows (or many bytes) wait, and answers how many bytes it took.
    fn decode(&mut self, text: &[u8], rows_max: usize) -> Result<usize, FileError>;

    /// The rows that wait.
    fn rows(&self) -> usize;

    /// The rows that wait, as a batch.
    fn flush(&mut self) -> Result<RecordBatch, FileError>;
}

/// Reads the splits of one source.
pub(super) struct FileReader {
    pub(super) config: Arc<FileConfig>,
}

impl FileReader {
    fn open(&self, split: &Split, columns: &[usize]) -> Result<Batches, FileError> {
        let split = FileSplit::parse(split)?;
        let schema = &self.config.schema;
        if split.partition.is_empty() {
            return self.open_file(&split, schema, columns);
        }
        let together = Together::new(schema, columns, &split, self.config.zone)?;
        let batches = self.open_file(&split, &together.data_schema, &together.data_columns)?;
        let connector = self.config.connector;
        Ok(Box::new(batches.map(move |batch| {
            together.complete(&batch?).map_err(|source| {
                let path = split.path.clone();
                FileError::Arrow { path, source }.of_source(connector)
            })
        })))
    }

    /// Reads what the file itself holds.
    fn open_file(
        &self,
        split: &FileSplit,
        schema: &SchemaRef,
        columns: &[usize],
    ) -> Result<Batches, FileError> {
        let Some(file) = open(split, self.config.options.ignore_missing)? else {
            return Ok(Box::new(std::iter::empty()));
        };
        let zone = self.config.zone;
        match self.config.format {
            // An empty file has no rows, whatever it should have begun with.
            Format::Parquet | Format::Orc | Format::Avro if split.size == 0 => {
                return Ok(Box::new(std::iter::empty()));
            }
            Format::Parquet => {
                return Ok(self.columnar(open_parquet(file, split, schema, columns)?));
            }
            Format::Orc => {
                return Ok(self.columnar(open_orc(file, split, schema, columns, zone)?));
            }
            Format::Avro => {
                return Ok(self.columnar(open_avro(file, split, schema, columns)?));
            }
            Format::Text | Format::Json(_) | Format::Csv(_) => {}
        }
        let blocks = Blocks::new(file, split)?;
        let decoder = self.decoder(split, schema, columns)?;
        Ok(Box::new(LineBatches {
            blocks,
            decoder,
            config: Arc::clone(&self.config),
            ended: false,
        }))
    }

    /// Batches of a file that knows its columns. If damage is to be looked over, it ends the file.
    fn columnar(
        &self,
        batches: impl Iterator<Item = Result<RecordBatch, FileError>> + Send + 'static,
    ) -> Batches {
        let (connector, ignore) = (self.config.connector, self.config.options.ignore_corrupt);
        let whole = move |batch: &Result<RecordBatch, FileError>| !matches!(batch, Err(error) if ignore && error.is_corruption());
        let batches = batches.take_while(whole);
        Box::new(batches.map(move |batch| batch.map_err(|error| error.of_source(connector))))
    }

    fn decoder(
        &self,
        split: &FileSplit,
        schema: &SchemaRef,
        columns: &[usize],
    ) -> Result<Box<dyn LineDecoder + Send>, FileError> {
        let path = split.path.clone();
        Ok(match &self.config.format {
            Format::Text => {
                let projected = schema.project(columns).map_err(|source| FileError::Arrow {
                    path: path.clone(),
                    source,
                })?;
                Box::new(TextDecoder::new(Arc::new(projected), path))
            }
            Format::Json(options) => {
                let decoder = JsonDecoder::new(schema, columns, options.clone());
                Box::new(JsonLines {
                    decoder: decoder.map_err(|source| FileError::Json {
                        path: path.clone(),
                        place: String::new(),
                        source,
                    })?,
                    path,
                    place: split.place(),
                })
            }
            Format::Csv(options) => {
                Box::new(CsvDecoder::new(schema, columns, options.clone(), split)?)
            }
            Format::Parquet | Format::Orc | Format::Avro => {
                unreachable!("they have no lines")
            }
        })
    }
}

impl Reader for FileReader {
    fn read(&self, split: &Split, columns: &[usize]) -> Result<Batches, SourceError> {
        match self.open(split, columns) {
            Ok(batches) => Ok(batches),
            Err(error) if self.config.options.ignore_corrupt && error.is_corruption() => {
                Ok(Box::new(std::iter::empty()))
            }
            Err(error) => Err(error.of_source(self.config.connector)),
        }
    }
}

struct JsonLines {
    decoder: JsonDecoder,
    path: String,
    place: String,
}

impl LineDecoder for JsonLines {
    fn decode(&mut self, text: &[u8], rows_max: usize) -> Result<usize, FileError> {
        self.decoder
            .decode_lines(text, rows_max)
            .map_err(|source| FileError::Json {
                path: self.path.clone(),
                place: self.place.clone(),
                source,
            })
    }

    fn rows(&self) -> usize {
        self.decoder.rows()
    }

    fn flush(&mut self) -> Result<RecordBatch, FileError> {
        self.decoder.flush().map_err(|source| FileError::Json {
            path: self.path.clone(),
            place: self.place.clone(),
            source,
        })
    }
}

/// The batches of a split of lines.
struct LineBatches {
    blocks: Blocks,
    decoder: Box<dyn LineDecoder + Send>,
    config: Arc<FileConfig>,
    ended: bool,
}

impl LineBatches {
    fn batch(&mut self) -> Result<Option<RecordBatch>, FileError> {
        loop {
            let lines = match self.blocks.lines() {
                Ok(lines) => lines,
                Err(error) if self.config.options.ignore_corrupt && error.is_corruption() => &[],
                Err(error) => return Err(error),
            };
            if lines.is_empty() {
                self.ended = true;
                return match self.decoder.rows() {
                    0 => Ok(None),
                    _ => self.decoder.flush().map(Some),
                };
            }
            let block = lines.len();
            let taken = self.decoder.decode(lines, BATCH_ROWS)?;
            self.blocks.consume(taken);
            // It stops early when it has enough, be it rows or bytes.
            if taken < block || self.decoder.rows() >= BATCH_ROWS {
                return self.decoder.flush().map(Some);
            }
        }
    }
}

impl Iterator for LineBatches {
    type Item = Result<RecordBatch, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let batch = self.batch();
        self.ended |= batch.is_err();
        batch
            .map_err(|error| error.of_source(self.config.connector))
            .transpose()
    }
}
