//! Rows of ORC files, in the types of the schema: see `fit` for what may differ.
//!
//! A `timestamp` of ORC is what a clock showed; as a TIMESTAMP it is taken for the clock of the session's time zone,
//! as Spark takes it. A `timestamp with local time zone` is an instant. Spark's TIMESTAMP_NTZ is a `bigint` that says so.

mod tail;

use std::collections::HashMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use orc_rust::projection::ProjectionMask;
use orc_rust::schema::DataType as OrcType;
use orc_rust::{ArrowReader, ArrowReaderBuilder, ArrowSchemaOptions, TimestampPrecision};

use super::FileError;
use super::fit::{Fit, Times, in_our_types, is_only_of_spark};
use super::reader::BATCH_ROWS;
use super::split::FileSplit;
use highwater_text::time::Zone;
use tail::Tail;

/// The batches of one file.
pub(super) struct OrcBatches {
    reader: ArrowReader<File>,
    fit: Fit,
    /// Rows that the file says it has, and did not give yet.
    rows_left: u64,
    failed: bool,
}

fn damaged(path: &str, reason: impl ToString) -> FileError {
    FileError::Orc {
        path: path.into(),
        reason: reason.to_string(),
    }
}

/// Runs a step of the decoder. It panics on some files that are damaged; that is no more than an error of the file.
fn guarded<T>(path: &str, step: impl FnOnce() -> Result<T, FileError>) -> Result<T, FileError> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied());
        let text = text.unwrap_or("it cannot be decoded");
        Err(damaged(path, text.lines().next().unwrap_or_default()))
    })
}

fn columns_of(builder: &ArrowReaderBuilder<File>) -> Schema {
    let options =
        ArrowSchemaOptions::new().with_timestamp_precision(TimestampPrecision::Microsecond);
    let root = builder.file_metadata().root_data_type();
    root.create_arrow_schema_with_options(&HashMap::new(), options)
}

/// Opens a file to read `columns` of `schema`.
pub(super) fn open_orc(
    mut file: File,
    split: &FileSplit,
    schema: &Schema,
    columns: &[usize],
    zone: Zone,
) -> Result<OrcBatches, FileError> {
    let path = &split.path;
    guarded(path, || {
        let tail = tail::check(&mut file).map_err(|reason| damaged(path, reason))?;
        let builder = ArrowReaderBuilder::try_new(file).map_err(|e| damaged(path, e))?;
        let in_file = columns_of(&builder);
        let times = Times {
            zone: Some(zone),
            hybrid_days: tail.hybrid,
            // Clocks are read as they stand.
            hybrid_clock: tail.hybrid.then_some(Zone::UTC),
            clocks_in_longs: true,
        };
        let fit = Fit::new(&in_file, schema, columns, times, path)?;
        let read = fit.roots().iter().map(|root| in_file.field(*root).clone());
        let read = Schema::new(read.map(|field| exact(&field)).collect::<Vec<_>>());
        let root = builder.file_metadata().root_data_type();
        let roots = fit.roots().iter();
        let roots = roots.map(|at| root.children()[*at].data_type().column_index());
        let mask = ProjectionMask::roots(root, roots);
        let reader = builder
            .with_projection(mask)
            .with_schema(Arc::new(read))
            .with_batch_size(BATCH_ROWS)
            .build();
        Ok(OrcBatches {
            rows_left: reader.total_row_count(),
            reader,
            fit,
            failed: false,
        })
    })
}

/// The field with every timestamp in it as a decimal of seconds, which holds all that ORC can.
fn exact(field: &Field) -> Field {
    let within = |field: &FieldRef| Arc::new(exact(field));
    let data_type = match field.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => DataType::Decimal128(38, 9),
        DataType::List(item) => DataType::List(within(item)),
        DataType::Map(entries, sorted) => DataType::Map(within(entries), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(within).collect::<Fields>()),
        other => other.clone(),
    };
    field.clone().with_data_type(data_type)
}

impl OrcBatches {
    fn batch(&mut self) -> Result<Option<RecordBatch>, FileError> {
        let path = self.fit.path();
        let reader = &mut self.reader;
        let next = guarded(path, || {
            reader
                .next()
                .transpose()
                .map_err(|error| damaged(path, innermost(&error)))
        });
        let Some(batch) = next? else {
            return match self.rows_left {
                0 => Ok(None),
                left => Err(damaged(
                    path,
                    format!("it has {left} rows less than it says"),
                )),
            };
        };
        let left = self.rows_left.checked_sub(batch.num_rows() as u64);
        self.rows_left = left.ok_or_else(|| damaged(path, "it has more rows than it says"))?;
        self.fit.batch(&batch).map(Some)
    }
}

impl Iterator for OrcBatches {
    type Item = Result<RecordBatch, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let batch = self.batch();
        self.failed = batch.is_err();
        batch.transpose()
    }
}

/// What the last error of a chain says: the layers around it only repeat it.
fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}

/// The schema that a file gives a batch read: its columns in our types.
pub(super) fn schema_of(mut file: File, path: &str) -> Result<Schema, FileError> {
    let (tail, builder) = guarded(path, || {
        let tail = tail::check(&mut file).map_err(|reason| damaged(path, reason))?;
        let builder = ArrowReaderBuilder::try_new(file).map_err(|e| damaged(path, e))?;
        Ok((tail, builder))
    })?;
    let in_file = guarded(path, || Ok(columns_of(&builder)))?;
    let schema = in_our_types(&in_file, "ORC")?;
    let columns = builder.file_metadata().root_data_type().children();
    let fields = schema.fields().iter().zip(columns).map(|(field, column)| {
        let meant = as_meant(field, column.data_type(), &tail);
        meant.map_err(|data_type| FileError::Type {
            column: field.name().clone(),
            data_type,
            format: "ORC",
        })
    });
    Ok(Schema::new(fields.collect::<Result<Vec<_>, _>>()?))
}

/// `field` as Spark means it, or the type that it means and we do not have.
fn as_meant(field: &FieldRef, in_file: &OrcType, tail: &Tail) -> Result<FieldRef, String> {
    let within = |field: &FieldRef, part: &OrcType| as_meant(field, part, tail);
    let data_type = match (field.data_type(), in_file) {
        (DataType::List(item), OrcType::List { child, .. }) => DataType::List(within(item, child)?),
        (DataType::Map(entries, sorted), OrcType::Map { key, value, .. }) => {
            let DataType::Struct(pair) = entries.data_type() else {
                unreachable!("the entries of a map are a struct");
            };
            let pair = [within(&pair[0], key)?, within(&pair[1], value)?];
            let pair = DataType::Struct(Fields::from_iter(pair));
            let entries = entries.as_ref().clone().with_data_type(pair);
            DataType::Map(Arc::new(entries), *sorted)
        }
        (DataType::Struct(fields), OrcType::Struct { children, .. }) => {
            let fields = fields.iter().zip(children);
            let fields = fields.map(|(field, child)| within(field, child.data_type()));
            DataType::Struct(fields.collect::<Result<_, _>>()?)
        }
        (other, _) => match tail.meant.get(&in_file.column_index()).map(String::as_str) {
            Some("timestamp_ntz") => DataType::Timestamp(TimeUnit::Microsecond, None),
            Some(meant) if is_only_of_spark(meant) => return Err(meant.to_ascii_uppercase()),
            // Spark's TIMESTAMP is ORC's `timestamp`.
            _ => match other {
                DataType::Timestamp(unit, None) => DataType::Timestamp(*unit, Some("UTC".into())),
                other => other.clone(),
            },
        },
    };
    Ok(Arc::new(field.as_ref().clone().with_data_type(data_type)))
}
