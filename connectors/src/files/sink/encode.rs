//! Rows to the bytes of one file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use flate2::write::GzEncoder;
use orc_rust::compression::CompressionType as OrcCompression;
use orc_rust::{ArrowWriter as OrcWriter, ArrowWriterBuilder as OrcWriterBuilder};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::OutFormat;
use super::encoding::OutEncoding;
use super::error::FileSinkError;
use crate::calendar;
use highwater_text::time::Zone;
use highwater_text::view::{JsonStyle, TextStyle, View, push_json_object};

/// A row group is closed when so many bytes are buffered: it bounds the memory of a writer.
pub(super) const ROW_GROUP_BYTES: usize = 64 << 20;

const LINES_BUFFER_BYTES: usize = 64 << 10;

/// Writes rows to one file.
pub(super) enum Encoder {
    Parquet(Box<ArrowWriter<File>>),
    /// And the file, to make sure of it.
    Orc(Box<OrcWriter<File>>, File),
    Lines(Box<Lines>),
}

/// Text of any kind, a row a line.
pub(super) struct Lines {
    target: Target,
    format: OutFormat,
    zone: Zone,
    /// Rows of a batch end to end; kept to be used again.
    text: String,
    /// The same in another encoding.
    encoded: Vec<u8>,
}

/// Bytes to a file, compressed or not.
pub(super) enum Target {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Target::Plain(file) => file.write(bytes),
            Target::Gzip(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Target::Plain(file) => file.flush(),
            Target::Gzip(file) => file.flush(),
        }
    }
}

impl Target {
    fn finish(self) -> io::Result<File> {
        let file = match self {
            Target::Plain(file) => file,
            Target::Gzip(file) => file.finish()?,
        };
        file.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

impl Encoder {
    /// ORC, which does not tell what it buffers, gets stripes of `stripe_bytes`.
    pub(super) fn create(
        path: &Path,
        schema: &SchemaRef,
        format: &OutFormat,
        zone: Zone,
        stripe_bytes: usize,
    ) -> Result<Encoder, FileSinkError> {
        let file = File::create(path).map_err(|source| FileSinkError::write(path, source))?;
        let gzip = match format {
            OutFormat::Parquet(compression) => {
                return parquet_writer(path, file, schema, *compression);
            }
            OutFormat::Orc(compression) => {
                return orc_writer(path, file, schema, *compression, stripe_bytes);
            }
            OutFormat::Json { gzip, .. }
            | OutFormat::Text { gzip, .. }
            | OutFormat::Csv { gzip, .. } => *gzip,
        };
        let file = BufWriter::with_capacity(LINES_BUFFER_BYTES, file);
        let mut target = match gzip {
            true => Target::Gzip(GzEncoder::new(file, flate2::Compression::default())),
            false => Target::Plain(file),
        };
        let (OutFormat::Json { lines, .. }
        | OutFormat::Text { lines, .. }
        | OutFormat::Csv { lines, .. }) = format
        else {
            unreachable!("only formats of lines come here");
        };
        let mut begin = lines.encoding.mark().to_vec();
        if let OutFormat::Csv { style, lines, .. } = format
            && style.header
        {
            let mut text = String::new();
            for (at, field) in schema.fields().iter().enumerate() {
                if at > 0 {
                    text.push(style.separator);
                }
                style.push_cell(&mut text, field.name());
            }
            text.push_str(&lines.separator);
            lines.encoding.push(&mut begin, &text);
        }
        target
            .write_all(&begin)
            .map_err(|source| FileSinkError::write(path, source))?;
        Ok(Encoder::Lines(Box::new(Lines {
            target,
            format: format.clone(),
            zone,
            text: String::new(),
            encoded: Vec::new(),
        })))
    }

    pub(super) fn write(&mut self, path: &Path, rows: &RecordBatch) -> Result<(), FileSinkError> {
        match self {
            Encoder::Parquet(writer) => {
                writer.write(rows).map_err(|e| encode_parquet(path, e))?;
                match writer.in_progress_size() > ROW_GROUP_BYTES {
                    true => self.flush(path),
                    false => Ok(()),
                }
            }
            Encoder::Orc(writer, _) => {
                let rows = in_hybrid(rows).map_err(|source| encode(path, source))?;
                writer.write(&rows).map_err(|source| encode(path, source))
            }
            Encoder::Lines(lines) => {
                let text = &mut lines.text;
                text.clear();
                push_rows(text, rows, &lines.format, &lines.zone)
                    .map_err(|source| encode(path, source))?;
                let bytes = match lines.format.encoding() {
                    OutEncoding::Utf8 => text.as_bytes(),
                    other => {
                        lines.encoded.clear();
                        other.push(&mut lines.encoded, text);
                        &lines.encoded
                    }
                };
                lines
                    .target
                    .write_all(bytes)
                    .map_err(|source| FileSinkError::write(path, source))
            }
        }
    }

    /// Writes the rest. That it is on the disk is for whoever stages the file to see to.
    pub(super) fn finish(self, path: &Path) -> Result<(), FileSinkError> {
        match self {
            Encoder::Parquet(writer) => writer.into_inner().map_err(|e| encode_parquet(path, e)),
            Encoder::Orc(writer, file) => {
                writer.close().map_err(|source| encode(path, source))?;
                Ok(file)
            }
            Encoder::Lines(lines) => lines
                .target
                .finish()
                .map_err(|source| FileSinkError::write(path, source)),
        }?;
        Ok(())
    }

    /// About how many bytes wait in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Encoder::Parquet(writer) => writer.memory_size(),
            // It does not tell; `stripe_bytes` bounds it.
            Encoder::Orc(..) => 0,
            Encoder::Lines(lines) => {
                lines.text.capacity() + lines.encoded.capacity() + LINES_BUFFER_BYTES
            }
        }
    }

    /// Ends a row group, if there are such and rows are in it.
    pub(super) fn flush(&mut self, path: &Path) -> Result<(), FileSinkError> {
        match self {
            Encoder::Parquet(writer) => writer.flush().map_err(|e| encode_parquet(path, e)),
            Encoder::Orc(..) | Encoder::Lines(_) => Ok(()),
        }
    }
}

fn parquet_writer(
    path: &Path,
    file: File,
    schema: &SchemaRef,
    compression: Compression,
) -> Result<Encoder, FileSinkError> {
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_created_by("highwater".into())
        .build();
    let writer = ArrowWriter::try_new(file, SchemaRef::clone(schema), Some(properties))
        .map_err(|e| encode_parquet(path, e))?;
    Ok(Encoder::Parquet(Box::new(writer)))
}

/// The disk's own errors stay what they are.
fn encode_parquet(path: &Path, error: ParquetError) -> FileSinkError {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(source) => FileSinkError::write(path, *source),
            Err(other) => encode(path, other),
        },
        other => encode(path, other),
    }
}

fn encode(
    path: &Path,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> FileSinkError {
    FileSinkError::Encode {
        path: path.display().to_string(),
        source: source.into(),
    }
}

/// The types that its encoder has. An instant must say UTC, as all of ours do.
pub(super) fn orc_writes(data_type: &DataType) -> bool {
    use DataType::*;
    match data_type {
        Boolean | Int8 | Int16 | Int32 | Int64 | Float32 | Float64 | Date32 | Utf8 | Binary => true,
        Timestamp(_, zone) => zone.as_deref().is_none_or(|zone| zone == "UTC"),
        _ => false,
    }
}

/// Rows with their times counted by the calendar of their time: readers take that for granted of a file that does not
/// tell its calendar, which the writer cannot.
fn in_hybrid(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let overflows = || ArrowError::ComputeError("a time is too long ago for ORC".into());
    let columns = rows.columns().iter().map(|column| {
        Ok(match column.data_type() {
            DataType::Date32 => {
                let days = column.as_primitive::<Date32Type>();
                let moved = days.try_unary::<_, Date32Type, _>(|days| {
                    i32::try_from(calendar::to_hybrid(days.into())).map_err(|_| overflows())
                });
                Arc::new(moved?) as ArrayRef
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                let us = column.as_primitive::<TimestampMicrosecondType>();
                let moved = us.try_unary::<_, TimestampMicrosecondType, _>(|us| {
                    calendar::to_hybrid_us(us).ok_or_else(overflows)
                });
                Arc::new(moved?.with_data_type(column.data_type().clone()))
            }
            _ => Arc::clone(column),
        })
    });
    RecordBatch::try_new(rows.schema(), columns.collect::<Result<_, ArrowError>>()?)
}

fn orc_writer(
    path: &Path,
    file: File,
    schema: &SchemaRef,
    compression: Option<OrcCompression>,
    stripe_bytes: usize,
) -> Result<Encoder, FileSinkError> {
    let kept = file
        .try_clone()
        .map_err(|source| FileSinkError::write(path, source))?;
    let builder = OrcWriterBuilder::new(file, SchemaRef::clone(schema));
    let builder = match compression {
        Some(compression) => builder.with_compression(compression),
        None => builder,
    };
    let writer = builder.with_stripe_byte_size(stripe_bytes).try_build();
    let writer = writer.map_err(|source| encode(path, source))?;
    Ok(Encoder::Orc(Box::new(writer), kept))
}

/// Appends rows, a line each.
fn push_rows(
    out: &mut String,
    rows: &RecordBatch,
    format: &OutFormat,
    zone: &Zone,
) -> Result<(), arrow::error::ArrowError> {
    let views: Vec<View> = rows
        .columns()
        .iter()
        .map(View::new)
        .collect::<Result<_, _>>()?;
    let (OutFormat::Json { lines, .. }
    | OutFormat::Text { lines, .. }
    | OutFormat::Csv { lines, .. }) = format
    else {
        unreachable!("only formats of lines come here");
    };
    let style = TextStyle {
        zone,
        null: "null",
        hex: false,
        iso: true,
        times: &lines.times,
    };
    let json = JsonStyle {
        zone,
        null_fields: lines.json.null_fields,
        times: &lines.times,
    };
    let schema = rows.schema();
    let mut cell = String::new();
    for row in 0..rows.num_rows() {
        match format {
            OutFormat::Json { .. } => {
                let names = schema.fields().iter().map(|field| field.name().as_str());
                if lines.json.is_plain() {
                    push_json_object(out, names.zip(&views), row, &json);
                } else {
                    cell.clear();
                    push_json_object(&mut cell, names.zip(&views), row, &json);
                    lines.json.push(out, &cell);
                }
            }
            OutFormat::Csv { style: csv, .. } => {
                csv.push_row(out, views.iter(), row, &style, &mut cell);
            }
            OutFormat::Text { .. } => views[0].push_text(out, row, &style),
            OutFormat::Parquet(_) | OutFormat::Orc(_) => unreachable!("they have no lines"),
        }
        out.push_str(&lines.separator);
    }
    Ok(())
}
