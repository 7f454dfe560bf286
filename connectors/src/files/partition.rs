//! Columns whose values are in the names of directories: `day=2024-01-05/hour=7/part.json`.
//!
//! Only directories below the one that was asked for count. A value belongs to the split, so that reading one needs
//! no other knowledge than its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::FileError;
use super::csv::{Column, CsvOptions};
use super::listing::Directory;
use super::split::FileSplit;
use crate::number::{parse_f64, parse_i64};
use crate::time::{Zone, parse_date, parse_timestamp};

/// What stands for a null in the name of a directory.
pub(super) const NULL_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";

/// The column and the value that the name of a directory tells.
pub(super) fn value(name: &str) -> Option<(String, String)> {
    let (name, value) = name.split_once('=')?;
    Some((unescape(name), unescape(value)))
}

/// `%2F` as `/`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        let hex = behind
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(escaped) if *byte == b'%' => {
                bytes.push(escaped);
                rest = &behind[2..];
            }
            _ => {
                bytes.push(*byte);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `schema` and, behind its columns, those that only directories tell: of the narrowest type that fits all values.
pub(super) fn with_columns(schema: &Schema, directories: &[Arc<Directory>]) -> SchemaRef {
    let mut order: Vec<&str> = Vec::new();
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in directories.iter().flat_map(|found| &found.partition) {
        if schema.index_of(name).is_ok() {
            continue;
        }
        if !found.contains_key(name.as_str()) {
            order.push(name);
        }
        found.entry(name).or_default().push(value);
    }
    let mut fields = schema.fields().to_vec();
    for name in order {
        let data_type = type_of(&found[name]);
        fields.push(Arc::new(Field::new(name, data_type, true)));
    }
    Arc::new(Schema::new(fields))
}

fn type_of(values: &[&str]) -> DataType {
    let told: Vec<&[u8]> = values
        .iter()
        .filter(|value| **value != NULL_VALUE)
        .map(|value| value.as_bytes())
        .collect();
    let all = |fits: &dyn Fn(&[u8]) -> bool| !told.is_empty() && told.iter().all(|text| fits(text));
    let is_double = |text: &[u8]| {
        let starts = text
            .first()
            .is_some_and(|b| b.is_ascii_digit() || b"+-.".contains(b));
        starts && std::str::from_utf8(text).is_ok_and(|text| parse_f64(text).is_some())
    };
    if all(&|text| parse_i64(text).is_some_and(|value| i32::try_from(value).is_ok())) {
        DataType::Int32
    } else if all(&|text| parse_i64(text).is_some()) {
        DataType::Int64
    } else if all(&is_double) {
        DataType::Float64
    } else if all(&|text| text.len() == 10 && parse_date(text).is_some()) {
        DataType::Date32
    } else if all(&|text| text.len() > 10 && parse_timestamp(text, &Zone::UTC).is_some()) {
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
    } else {
        DataType::Utf8
    }
}

/// How the rows of a split with partition values are put together.
pub(super) struct Together {
    /// What the file itself is read with: the schema without those columns, and the columns wanted of it.
    pub(super) data_schema: SchemaRef,
    pub(super) data_columns: Vec<usize>,
    schema: SchemaRef,
    /// Per column that is put out: its place in the file's batches, or its value in a column of one row.
    columns: Vec<Result<usize, ArrayRef>>,
}

impl Together {
    pub(super) fn new(
        schema: &SchemaRef,
        columns: &[usize],
        split: &FileSplit,
        zone: Zone,
    ) -> Result<Self, FileError> {
        let failed = |source| FileError::Arrow {
            path: split.path.clone(),
            source,
        };
        let value_of = |at: usize| {
            let name = schema.field(at).name();
            let value = split.partition.iter().find(|(key, _)| key == name);
            value.map(|(_, value)| value.as_str())
        };
        let in_file: Vec<usize> = (0..schema.fields().len())
            .filter(|at| value_of(*at).is_none())
            .collect();
        let mut data_columns = Vec::new();
        let mut out = Vec::new();
        for at in columns {
            out.push(match value_of(*at) {
                Some(value) => Err(constant(schema.field(*at), value, split, zone)?),
                None => {
                    let place = in_file.binary_search(at).expect("it is in the file");
                    data_columns.push(place);
                    Ok(data_columns.len() - 1)
                }
            });
        }
        Ok(Together {
            data_schema: Arc::new(schema.project(&in_file).map_err(failed)?),
            data_columns,
            schema: Arc::new(schema.project(columns).map_err(failed)?),
            columns: out,
        })
    }

    /// A batch of the file with the values of its directories.
    pub(super) fn complete(
        &self,
        batch: &RecordBatch,
    ) -> Result<RecordBatch, arrow::error::ArrowError> {
        let first = UInt32Array::from(vec![0; batch.num_rows()]);
        let arrays = self.columns.iter().map(|column| match column {
            Ok(at) => Ok(Arc::clone(batch.column(*at))),
            Err(value) => take(value, &first, None),
        });
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
    }
}

/// A column of one row.
fn constant(
    field: &Field,
    value: &str,
    split: &FileSplit,
    zone: Zone,
) -> Result<ArrayRef, FileError> {
    let wrong = || FileError::PartitionValue {
        path: split.path.clone(),
        column: field.name().clone(),
        value: value.into(),
        data_type: field.data_type().to_string(),
    };
    let mut column = Column::new(field.data_type()).ok_or_else(wrong)?;
    if value == NULL_VALUE {
        column.append_null();
    } else if !column.append(value, &CsvOptions::of_values(zone)) {
        return Err(wrong());
    }
    Ok(column.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_directories_tell_values() {
        let pair = |name: &str, value: &str| Some((name.to_string(), value.to_string()));
        assert_eq!(value("day=1"), pair("day", "1"));
        assert_eq!(value("k=a%2Fb%3D%zz"), pair("k", "a/b=%zz"));
        assert_eq!(value("plain"), None);
    }

    #[test]
    fn types_are_the_narrowest_that_fit() {
        assert_eq!(type_of(&["1", "-2", NULL_VALUE]), DataType::Int32);
        assert_eq!(type_of(&["1", "3000000000"]), DataType::Int64);
        assert_eq!(type_of(&["1", "2.5"]), DataType::Float64);
        assert_eq!(type_of(&["2024-01-05"]), DataType::Date32);
        assert_eq!(type_of(&["2024-01-05", "x"]), DataType::Utf8);
        assert_eq!(type_of(&[NULL_VALUE]), DataType::Utf8);
    }
}
