//! Rows of Parquet files, in the types of the schema.
//!
//! A file may lack columns (they are null), have more (they are not read), and hold narrower types (they are
//! widened). What could lose something is refused.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

use super::FileError;
use super::reader::BATCH_ROWS;
use super::split::FileSplit;

/// The batches of one file.
pub(super) struct ParquetBatches {
    reader: ParquetRecordBatchReader,
    /// Per output column: its place in what the reader gives, and its type.
    columns: Vec<(Option<usize>, DataType)>,
    schema: SchemaRef,
    path: String,
}

/// Opens a file to read `columns` of `schema`.
pub(super) fn open_parquet(
    file: File,
    split: &FileSplit,
    schema: &Schema,
    columns: &[usize],
) -> Result<ParquetBatches, FileError> {
    let path = split.path.clone();
    let failed = |source| FileError::Parquet {
        path: split.path.clone(),
        source,
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(failed)?;
    let in_file = Arc::clone(builder.schema());
    let mut roots = Vec::new();
    let mut places = Vec::new();
    for at in columns {
        let field = schema.field(*at);
        let root = root_of(&in_file, field.name());
        if let Some(root) = root {
            let found = in_file.field(root).data_type();
            if !widens(found, field.data_type()) {
                return Err(FileError::ColumnType {
                    path,
                    column: field.name().clone(),
                    found: found.to_string(),
                    wanted: field.data_type().to_string(),
                });
            }
            roots.push(root);
        }
        places.push((root, field.data_type().clone()));
    }
    roots.sort_unstable();
    // The reader gives columns in the order of the file.
    for (root, _) in &mut places {
        *root = root.and_then(|root| roots.binary_search(&root).ok());
    }
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let reader = builder
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(failed)?;
    let projected = schema.project(columns).map_err(|source| FileError::Arrow {
        path: path.clone(),
        source,
    })?;
    Ok(ParquetBatches {
        reader,
        columns: places,
        schema: Arc::new(projected),
        path,
    })
}

/// The column called `name`; if there is none, the only one that is but for its case, as Spark has it.
fn root_of(in_file: &Schema, name: &str) -> Option<usize> {
    in_file.index_of(name).ok().or_else(|| {
        let mut alike = (0..in_file.fields().len())
            .filter(|at| in_file.field(*at).name().eq_ignore_ascii_case(name));
        alike.next().filter(|_| alike.next().is_none())
    })
}

impl Iterator for ParquetBatches {
    type Item = Result<RecordBatch, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = match self.reader.next()? {
            Ok(batch) => batch,
            Err(source) => {
                return Some(Err(FileError::Parquet {
                    path: self.path.clone(),
                    source: ParquetError::ArrowError(source.to_string()),
                }));
            }
        };
        let rows = batch.num_rows();
        let arrays: Result<Vec<ArrayRef>, _> = self
            .columns
            .iter()
            .map(|(place, data_type)| match place {
                None => Ok(new_null_array(data_type, rows)),
                Some(at) if batch.column(*at).data_type() == data_type => {
                    Ok(Arc::clone(batch.column(*at)))
                }
                Some(at) => cast(batch.column(*at), data_type),
            })
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = arrays.and_then(|arrays| {
            RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
        });
        Some(batch.map_err(|source| FileError::Arrow {
            path: self.path.clone(),
            source,
        }))
    }
}

/// The schema that a file gives a batch read: its columns in our types.
pub(super) fn schema_of(file: File, path: &str) -> Result<Schema, FileError> {
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(file).map_err(|source| FileError::Parquet {
            path: path.into(),
            source,
        })?;
    let mut fields = Vec::new();
    for field in builder.schema().fields() {
        let data_type = ours(field.data_type()).ok_or_else(|| FileError::Type {
            column: field.name().clone(),
            data_type: field.data_type().to_string(),
            format: "Parquet",
        })?;
        fields.push(Field::new(field.name(), data_type, true));
    }
    Ok(Schema::new(fields))
}

/// The type in which the engine holds values of a file's type.
fn ours(found: &DataType) -> Option<DataType> {
    let renew = |field: &FieldRef| -> Option<FieldRef> {
        Some(Arc::new(Field::new(
            field.name(),
            ours(field.data_type())?,
            true,
        )))
    };
    Some(match found {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Dictionary(_, values) => ours(values)?,
        DataType::Timestamp(_, zone) => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.as_ref().map(|_| "UTC".into()))
        }
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32
        | DataType::Decimal128(..)
        | DataType::Null => found.clone(),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            DataType::List(Arc::new(Field::new("item", ours(item.data_type())?, true)))
        }
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(renew).collect::<Option<Fields>>()?)
        }
        DataType::Map(entries, sorted) => {
            let DataType::Struct(fields) = entries.data_type() else {
                return None;
            };
            let key = Field::new("key", ours(fields[0].data_type())?, false);
            let value = Field::new("value", ours(fields[1].data_type())?, true);
            let entries = DataType::Struct(Fields::from(vec![key, value]));
            DataType::Map(Arc::new(Field::new("entries", entries, false)), *sorted)
        }
        _ => return None,
    })
}

/// Whether every value of `found` is a value of `wanted`.
fn widens(found: &DataType, wanted: &DataType) -> bool {
    use DataType::*;
    let integer_digits = |data_type: &DataType| match data_type {
        Int8 => Some(3),
        Int16 => Some(5),
        Int32 => Some(10),
        Int64 => Some(20),
        _ => None,
    };
    match (found, wanted) {
        _ if found == wanted || found == &Null => true,
        (Utf8 | LargeUtf8 | Utf8View, Utf8) => true,
        (Binary | LargeBinary | BinaryView | FixedSizeBinary(_), Binary) => true,
        (Dictionary(_, values), _) => widens(values, wanted),
        // Spark and others leave the zone out of old files; an instant is an instant.
        (Timestamp(_, _), Timestamp(TimeUnit::Microsecond, Some(_))) => true,
        (Timestamp(_, None) | Date32, Timestamp(TimeUnit::Microsecond, None)) => true,
        (Date64, Date32) => true,
        (Int8, Int16 | Int32 | Int64 | Float32 | Float64) => true,
        (Int16 | UInt8, Int32 | Int64 | Float32 | Float64) => true,
        (UInt8, Int16) => true,
        (Int32 | UInt16, Int64 | Float64) => true,
        (UInt16, Int32) => true,
        (UInt32, Int64) => true,
        (Float16, Float32 | Float64) | (Float32, Float64) => true,
        (Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s), Decimal128(q, t)) => {
            t >= s && i16::from(*q) - i16::from(*t) >= i16::from(*p) - i16::from(*s)
        }
        (UInt64, Decimal128(20.., 0)) => true,
        (_, Decimal128(q, t)) => {
            integer_digits(found).is_some_and(|digits| i16::from(*q) - i16::from(*t) >= digits)
        }
        (List(a) | LargeList(a) | FixedSizeList(a, _), List(b)) => {
            widens(a.data_type(), b.data_type())
        }
        // What the entries are called differs between writers.
        (Map(a, _), Map(b, _)) => match (a.data_type(), b.data_type()) {
            (Struct(a), Struct(b)) => a
                .iter()
                .zip(b)
                .all(|(a, b)| widens(a.data_type(), b.data_type())),
            _ => false,
        },
        (Struct(a), Struct(b)) => {
            // Arrow casts structs field by field, in order.
            a.len() == b.len()
                && a.iter()
                    .zip(b)
                    .all(|(a, b)| a.name() == b.name() && widens(a.data_type(), b.data_type()))
        }
        _ => false,
    }
}
