//! Rows of Parquet files, in the types of the schema: see `fit` for what may differ.

use std::fs::File;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

use super::FileError;
use super::fit::{Fit, in_our_types};
use super::reader::BATCH_ROWS;
use super::split::FileSplit;

/// The batches of one file.
pub(super) struct ParquetBatches {
    reader: ParquetRecordBatchReader,
    fit: Fit,
}

/// Opens a file to read `columns` of `schema`.
pub(super) fn open_parquet(
    file: File,
    split: &FileSplit,
    schema: &Schema,
    columns: &[usize],
) -> Result<ParquetBatches, FileError> {
    let failed = |source| FileError::Parquet {
        path: split.path.clone(),
        source,
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(failed)?;
    let in_file = Arc::clone(builder.schema());
    let fit = Fit::new(&in_file, schema, columns, None, &split.path)?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), fit.roots().iter().copied());
    let reader = builder
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
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(file).map_err(|source| FileError::Parquet {
            path: path.into(),
            source,
        })?;
    in_our_types(builder.schema(), "Parquet")
}
