//! Turns splits into batches, on any thread of any process.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use highwater_engine::source::{Batches, Reader, SourceError, Split};

use super::avro::open_avro;
use super::bad::{BadRecord, BadRecords};
use super::blocks::{Blocks, Shape, open};
use super::csv::CsvDecoder;
use super::error::FileError;
use super::orc::open_orc;
use super::parquet::open_parquet;
use super::partition::Together;
use super::split::FileSplit;
use super::text::TextDecoder;
use super::{FileConfig, Format};
use highwater_text::json::{JsonDecoder, JsonError};
use highwater_text::lines::LineEnd;

pub(super) const BATCH_ROWS: usize = 8192;
/// Batches are cut near so many bytes of text, however few rows that is.
const BATCH_BYTES: usize = 16 << 20;

/// Decodes lines until asked for a batch.
pub(super) trait LineDecoder {
    /// Takes lines until `rows_max` rows (or many bytes) wait, and answers how many bytes it took.
    /// Unless they are the `last`, lines that are no whole row may be left.
    fn decode(&mut self, text: &[u8], rows_max: usize, last: bool) -> Result<usize, FileError>;

    /// The rows that wait.
    fn rows(&self) -> usize;

    /// The rows that wait, as a batch.
    fn flush(&mut self) -> Result<RecordBatch, FileError>;

    /// The rows that could not be read, if they are kept.
    fn take_bad(&mut self) -> Vec<BadRecord> {
        Vec::new()
    }
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
                return Ok(self.columnar(split, open_parquet(file, split, schema, columns, zone)?));
            }
            Format::Orc => {
                return Ok(self.columnar(split, open_orc(file, split, schema, columns, zone)?));
            }
            Format::Avro => {
                return Ok(self.columnar(split, open_avro(file, split, schema, columns)?));
            }
            Format::Text | Format::Json(_) | Format::Csv(_) => {}
        }
        let blocks = Blocks::new(file, split, &self.config.rules)?;
        let decoder = self.decoder(split, schema, columns)?;
        Ok(Box::new(LineBatches {
            blocks,
            decoder,
            bad: self.bad_records(split),
            config: Arc::clone(&self.config),
            // Compressed, even nothing has some bytes.
            waits: matches!(self.config.format, Format::Text)
                && self.config.rules.shape == Shape::Whole
                && split.size > 0,
            ended: false,
            rest: None,
        }))
    }

    /// Whether damaged files are skipped.
    fn looks_over(&self) -> bool {
        let options = &self.config.options;
        options.ignore_corrupt || options.bad_records.is_some()
    }

    fn bad_records(&self, split: &FileSplit) -> Option<BadRecords> {
        let directory = self.config.options.bad_records.as_ref()?;
        Some(BadRecords::new(directory, split))
    }

    /// Batches of a file that knows its columns. If damage is to be looked over, it ends the file.
    fn columnar(
        &self,
        split: &FileSplit,
        batches: impl Iterator<Item = Result<RecordBatch, FileError>> + Send + 'static,
    ) -> Batches {
        let (connector, ignore) = (self.config.connector, self.config.options.ignore_corrupt);
        let mut bad = self.bad_records(split);
        let mut ended = false;
        let batches = batches.map_while(move |batch| match batch {
            _ if ended => None,
            Err(error) if error.is_corruption() && (ignore || bad.is_some()) => {
                ended = true;
                let told = bad.as_mut().map_or(Ok(()), |bad| bad.bad_file(&error));
                told.err().map(Err)
            }
            other => Some(other),
        });
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
                let shape = self.config.rules.shape.clone();
                Box::new(TextDecoder::new(Arc::new(projected), path, shape))
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
                    shape: self.config.rules.shape.clone(),
                    bytes: 0,
                    bad: self.config.options.bad_records.as_ref().map(|_| Vec::new()),
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
            Err(error) if error.is_corruption() && self.looks_over() => {
                let told = FileSplit::parse(split).and_then(|split| {
                    let mut bad = self.bad_records(&split);
                    bad.as_mut().map_or(Ok(()), |bad| bad.bad_file(&error))
                });
                told.map_err(|error| error.of_source(self.config.connector))?;
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
    shape: Shape,
    /// Of texts decoded one by one since the last batch.
    bytes: usize,
    /// Rows that could not be read, if they are kept.
    bad: Option<Vec<BadRecord>>,
}

impl JsonLines {
    fn decode_one(&mut self, text: &[u8]) -> Result<(), JsonError> {
        self.bytes += text.len();
        match (self.decoder.decode_line(text), &mut self.bad) {
            (Err(JsonError::Malformed { reason, .. }), Some(bad)) => {
                let record = String::from_utf8_lossy(text).into_owned();
                bad.push(BadRecord { reason, record });
                Ok(())
            }
            (outcome, _) => outcome,
        }
    }

    fn decode_any(&mut self, text: &[u8], rows_max: usize) -> Result<usize, JsonError> {
        let end = match &self.shape {
            Shape::Lines(LineEnd::Any) if self.bad.is_none() => {
                return self.decoder.decode_lines(text, rows_max);
            }
            Shape::Lines(end) => end.clone(),
            Shape::Records | Shape::Whole => return self.decode_one(text).map(|()| text.len()),
        };
        let mut lines = end.lines(text);
        while self.decoder.rows() < rows_max && self.bytes < BATCH_BYTES {
            let Some(line) = lines.next() else { break };
            self.decode_one(line)?;
        }
        Ok(lines.consumed())
    }
}

impl LineDecoder for JsonLines {
    fn decode(&mut self, text: &[u8], rows_max: usize, _: bool) -> Result<usize, FileError> {
        self.decode_any(text, rows_max)
            .map_err(|source| FileError::Json {
                path: self.path.clone(),
                place: self.place.clone(),
                source,
            })
    }

    fn take_bad(&mut self) -> Vec<BadRecord> {
        self.bad.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn rows(&self) -> usize {
        self.decoder.rows()
    }

    fn flush(&mut self) -> Result<RecordBatch, FileError> {
        self.bytes = 0;
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
    bad: Option<BadRecords>,
    /// A row is there even if there is no text.
    waits: bool,
    ended: bool,
    /// Rows that one text gave beyond a batch.
    rest: Option<RecordBatch>,
}

impl LineBatches {
    fn batch(&mut self) -> Result<Option<RecordBatch>, FileError> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(self.cut(rest)));
        }
        if self.ended {
            return Ok(None);
        }
        loop {
            if let Err(error) = self.blocks.lines() {
                let skips = self.config.options.ignore_corrupt || self.bad.is_some();
                if !skips || !error.is_corruption() {
                    return Err(error);
                }
                if let Some(bad) = &mut self.bad {
                    bad.bad_file(&error)?;
                }
                return self.end();
            }
            let lines = self.blocks.lines()?;
            let block = lines.len();
            if block == 0 && !self.waits {
                return self.end();
            }
            self.waits = false;
            let (lines, last) = self.blocks.at_hand();
            let taken = self.decoder.decode(lines, BATCH_ROWS, last)?;
            if let Some(bad) = &mut self.bad {
                for record in self.decoder.take_bad() {
                    bad.add(&record)?;
                }
            }
            self.blocks.consume(taken);
            let rows = self.decoder.rows();
            // It stops early when it has enough, be it rows or bytes.
            if rows > 0 && (taken < block || rows >= BATCH_ROWS) {
                let batch = self.decoder.flush()?;
                return Ok(Some(self.cut(batch)));
            }
            if taken == 0 && block > 0 {
                self.blocks.more()?;
            }
        }
    }

    /// Nothing follows but the rows that the decoder still has.
    fn end(&mut self) -> Result<Option<RecordBatch>, FileError> {
        self.ended = true;
        let last = match self.decoder.rows() {
            0 => None,
            _ => Some(self.decoder.flush()?),
        };
        if let Some(bad) = &mut self.bad {
            bad.finish()?;
        }
        Ok(last.map(|last| self.cut(last)))
    }

    /// The beginning of `batch`; the rest waits.
    fn cut(&mut self, batch: RecordBatch) -> RecordBatch {
        let rows = batch.num_rows();
        if rows <= 2 * BATCH_ROWS {
            return batch;
        }
        self.rest = Some(batch.slice(BATCH_ROWS, rows - BATCH_ROWS));
        batch.slice(0, BATCH_ROWS)
    }
}

impl Iterator for LineBatches {
    type Item = Result<RecordBatch, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batch();
        self.ended |= batch.is_err();
        batch
            .map_err(|error| error.of_source(self.config.connector))
            .transpose()
    }
}
