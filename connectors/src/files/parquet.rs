//! Rows of Parquet files, in the types of the schema: see `fit` for what may differ.
//!
//! Old timestamps of 96 bits are read in microseconds: nanoseconds would not reach beyond 1677 and 2262. What Spark
//! tells of a file is heeded: that its times are counted by another calendar, and types that Parquet does not have.

use std::fs::File;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Type;
use parquet::errors::ParquetError;
use parquet::file::metadata::FileMetaData;
use serde_json::Value;

use super::FileError;
use super::fit::{Fit, Times, in_our_types, is_only_of_spark};
use super::reader::BATCH_ROWS;
use super::split::FileSplit;
use highwater_text::time::Zone;

/// The batches of one file.
pub(super) struct ParquetBatches {
    reader: ParquetRecordBatchReader,
    fit: Fit,
}

/// Opens a file to read `columns` of `schema`. `zone` is that of the session.
pub(super) fn open_parquet(
    file: File,
    split: &FileSplit,
    schema: &Schema,
    columns: &[usize],
    zone: Zone,
) -> Result<ParquetBatches, FileError> {
    let failed = |source| FileError::Parquet {
        path: split.path.clone(),
        source,
    };
    let metadata = metadata_of(&file).map_err(failed)?;
    let times = times_of(&metadata, zone).map_err(|name| FileError::TimeZone {
        path: split.path.clone(),
        name,
    })?;
    let fit = Fit::new(metadata.schema(), schema, columns, times, &split.path)?;
    let mask = ProjectionMask::roots(metadata.parquet_schema(), fit.roots().iter().copied());
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(failed)?;
    Ok(ParquetBatches { reader, fit })
}

impl Iterator for ParquetBatches {
    type Item = Result<RecordBatch, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(match self.reader.next()? {
            Ok(batch) => self.fit.batch(&batch),
            Err(source) => Err(FileError::Parquet {
                path: self.fit.path().into(),
                source: ParquetError::ArrowError(source.to_string()),
            }),
        })
    }
}

/// The schema that a file gives a batch read: its columns in our types.
pub(super) fn schema_of(file: File, path: &str) -> Result<Schema, FileError> {
    let metadata = metadata_of(&file).map_err(|source| FileError::Parquet {
        path: path.into(),
        source,
    })?;
    refuse_unknown(metadata.metadata().file_metadata())?;
    in_our_types(metadata.schema(), "Parquet")
}

fn is_int96(metadata: &ArrowReaderMetadata, leaf: usize) -> bool {
    metadata.parquet_schema().column(leaf).physical_type() == Type::INT96
}

/// What a file tells of itself, with the types it is to be decoded in.
fn metadata_of(file: &File) -> Result<ArrowReaderMetadata, ParquetError> {
    let metadata = ArrowReaderMetadata::load(file, ArrowReaderOptions::new())?;
    let leaves = metadata.parquet_schema().num_columns();
    if !(0..leaves).any(|leaf| is_int96(&metadata, leaf)) {
        return Ok(metadata);
    }
    let mut leaf = 0;
    let fields = metadata.schema().fields().iter();
    let fields: Fields = fields
        .map(|field| in_micros(field, &metadata, &mut leaf))
        .collect();
    let schema = Schema::new_with_metadata(fields, metadata.schema().metadata().clone());
    let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
    ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options)
}

/// `field` with the timestamps in it that have 96 bits as instants in microseconds; `leaf` counts the columns that hold
/// values, which come in the order of the fields.
fn in_micros(field: &FieldRef, metadata: &ArrowReaderMetadata, leaf: &mut usize) -> FieldRef {
    let mut within = |field: &FieldRef| in_micros(field, metadata, leaf);
    let data_type = match field.data_type() {
        DataType::List(item) => DataType::List(within(item)),
        DataType::LargeList(item) => DataType::LargeList(within(item)),
        DataType::FixedSizeList(item, len) => DataType::FixedSizeList(within(item), *len),
        DataType::Map(entries, sorted) => DataType::Map(within(entries), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(within).collect()),
        other => {
            *leaf += 1;
            match is_int96(metadata, *leaf - 1) {
                true => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                false => other.clone(),
            }
        }
    };
    Arc::new(Field::clone(field).with_data_type(data_type))
}

fn told<'a>(file: &'a FileMetaData, key: &str) -> Option<&'a str> {
    let pair = file
        .key_value_metadata()?
        .iter()
        .find(|pair| pair.key == key)?;
    Some(pair.value.as_deref().unwrap_or_default())
}

/// How times are counted: Spark says so, and before it said so it counted as Java's old classes do. An error is the
/// name of a time zone that nobody knows.
fn times_of(metadata: &ArrowReaderMetadata, session: Zone) -> Result<Times, String> {
    let file = metadata.metadata().file_metadata();
    let Some(version) = told(file, "org.apache.spark.version") else {
        return Ok(Times::default());
    };
    // Versions are compared as texts, as Spark compares them.
    let is_legacy = |since: &str, key: &str| version < since || told(file, key).is_some();
    let legacy = is_legacy("3.0.0", "org.apache.spark.legacyDateTime");
    let leaves = metadata.parquet_schema().num_columns();
    let legacy_clock = match (0..leaves).any(|leaf| is_int96(metadata, leaf)) {
        true => is_legacy("3.1.0", "org.apache.spark.legacyINT96"),
        false => legacy,
    };
    let zone = match told(file, "org.apache.spark.timeZone") {
        Some(name) if legacy_clock => Zone::parse(name).ok_or_else(|| name.to_string())?,
        _ => session,
    };
    Ok(Times {
        hybrid_days: legacy,
        hybrid_clock: legacy_clock.then_some(zone),
        ..Times::default()
    })
}

/// Types of Spark that its files hold as plain numbers or structs, which would be read as such.
fn refuse_unknown(file: &FileMetaData) -> Result<(), FileError> {
    let schema = told(file, "org.apache.spark.sql.parquet.row.metadata");
    let schema: Option<Value> = schema.and_then(|text| serde_json::from_str(text).ok());
    let fields = schema
        .as_ref()
        .and_then(|schema| schema["fields"].as_array());
    for field in fields.into_iter().flatten() {
        if let Some(data_type) = unknown(&field["type"]) {
            return Err(FileError::Type {
                column: field["name"].as_str().unwrap_or_default().into(),
                data_type: data_type.to_ascii_uppercase(),
                format: "Parquet",
            });
        }
    }
    Ok(())
}

/// The type within `data_type` that is only Spark's.
fn unknown(data_type: &Value) -> Option<&str> {
    if let Some(name) = data_type.as_str() {
        return is_only_of_spark(name).then_some(name);
    }
    data_type.as_object()?;
    let fields = data_type["fields"].as_array().into_iter().flatten();
    let mut parts = fields
        .map(|field| &field["type"])
        .chain(["elementType", "keyType", "valueType", "sqlType"].map(|part| &data_type[part]));
    parts.find_map(unknown)
}
