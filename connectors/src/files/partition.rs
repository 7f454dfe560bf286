//! Columns whose values are in the names of directories: `day=2024-01-05/hour=7/part.json`.
//!
//! Only directories below the one that was asked for count. A value belongs to the split, so that reading one needs
//! no other knowledge than its own.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use highwater_engine::source::FormatError;
use highwater_text::type_name::type_sql;

use super::FileError;
use super::listing::Directory;
use super::split::FileSplit;
use highwater_text::csv::{Column, CsvOptions};
use highwater_text::number::{parse_f64, parse_i64};
use highwater_text::time::{Zone, parse_date, parse_timestamp};

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

/// The values of one column, as directories spell them.
struct Told<'a> {
    name: &'a str,
    spelled: Vec<&'a str>,
}

/// `schema` and, behind its columns, those that directories tell: of the type that Spark gives them, unless the schema
/// says it. As in Spark they stand behind the others even where the schema, if it was `given`, has them before.
pub(super) fn with_columns(
    schema: &Schema,
    given: bool,
    directories: &[Arc<Directory>],
) -> Result<SchemaRef, FormatError> {
    let mut told: Vec<Told<'_>> = Vec::new();
    let partitioned = directories
        .iter()
        .filter(|found| !found.partition.is_empty());
    for (at, directory) in partitioned.enumerate() {
        let columns = &directory.partition;
        check(directory)?;
        let agrees =
            |(column, (name, _)): (&Told<'_>, &(String, String))| is_named(name, column.name);
        if at == 0 {
            told.extend(columns.iter().map(|(name, _)| Told {
                name,
                spelled: Vec::new(),
            }));
        } else if columns.len() != told.len() || !told.iter().zip(columns).all(agrees) {
            let names = |names: Vec<&str>| names.join("\", \"");
            return Err(FormatError::Invalid {
                message: format!(
                    "directories tell conflicting columns: \"{}\" has \"{}\", others have \"{}\"; read each layout by a path of \
                     its own",
                    directory.path,
                    names(columns.iter().map(|(name, _)| name.as_str()).collect()),
                    names(told.iter().map(|column| column.name).collect()),
                ),
                class: Some("CONFLICTING_PARTITION_COLUMN_NAMES"),
            });
        }
        // As they are spelled in the path: what had to be escaped is no number.
        let spelled = directory.path.rsplit('/').filter(|step| step.contains('='));
        let spelled: Vec<&str> = spelled.take(columns.len()).collect();
        for (column, step) in told.iter_mut().zip(spelled.iter().rev()) {
            column
                .spelled
                .extend(step.split_once('=').map(|(_, value)| value));
        }
    }
    let mut fields = schema.fields().to_vec();
    for column in told {
        let place = fields
            .iter()
            .position(|field| is_named(field.name(), column.name));
        if let Some(place) = place {
            if given {
                let field = fields.remove(place);
                fields.push(field);
            }
            continue;
        }
        let data_type = type_of(&column.spelled).ok_or_else(|| FormatError::Invalid {
            message: format!(
                "directories tell column \"{}\" as TIME (\"{}\"), which is not supported; name it in the schema as a \
                 STRING",
                column.name, column.spelled[0]
            ),
            class: None,
        })?;
        fields.push(Arc::new(Field::new(column.name, data_type, true)));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// Whether directories tell a column of this name.
pub(super) fn tells(directories: &[Arc<Directory>], name: &str) -> bool {
    let mut told = directories.iter().flat_map(|found| &found.partition);
    told.any(|(column, _)| is_named(column, name))
}

/// Names of columns do not differ by their case.
fn is_named(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

/// Refuses names of directories that tell no column.
fn check(directory: &Directory) -> Result<(), FormatError> {
    let refuse = |what: &str, class| {
        let message = format!("directory \"{}\" {what}", directory.path);
        Err(FormatError::Invalid {
            message,
            class: Some(class),
        })
    };
    for (at, (name, value)) in directory.partition.iter().enumerate() {
        let mut before = directory.partition[..at].iter();
        if name.is_empty() {
            return refuse(
                "tells a column without a name",
                "EMPTY_PARTITION_COLUMN_NAME",
            );
        }
        if value.is_empty() {
            let what = format!("tells no value of column \"{name}\"");
            return refuse(&what, "EMPTY_PARTITION_COLUMN_VALUE");
        }
        if before.any(|(other, _)| is_named(other, name)) {
            let what = format!("tells column \"{name}\" twice");
            return refuse(&what, "COLUMN_ALREADY_EXISTS");
        }
    }
    Ok(())
}

/// What the values of a column are, as far as they are known.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Null,
    Int,
    Long,
    /// So many digits, none of them behind the point.
    Decimal(u8),
    Double,
    Date,
    Timestamp,
    Time,
    String,
}

/// The type that has all values of a column; `None` if that is TIME.
fn type_of(spelled: &[&str]) -> Option<DataType> {
    let kinds = spelled.iter().map(|text| kind_of(text));
    Some(match kinds.reduce(wider).unwrap_or(Kind::Null) {
        Kind::Int => DataType::Int32,
        Kind::Long => DataType::Int64,
        Kind::Decimal(digits) => DataType::Decimal128(digits, 0),
        Kind::Double => DataType::Float64,
        Kind::Date => DataType::Date32,
        Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Kind::Time => return None,
        Kind::Null | Kind::String => DataType::Utf8,
    })
}

/// The narrowest kind that a value has: tried in Spark's order.
fn kind_of(spelled: &str) -> Kind {
    if spelled == NULL_VALUE {
        return Kind::Null;
    }
    let text = spelled.as_bytes();
    if let Some(value) = parse_i64(text) {
        return match i32::try_from(value) {
            Ok(_) => Kind::Int,
            Err(_) => Kind::Long,
        };
    }
    if let Some(digits) = whole_digits(text) {
        return Kind::Decimal(digits);
    }
    if parse_f64(spelled).is_some() {
        return Kind::Double;
    }
    let has_form = |form: &str, text: &[u8]| {
        let fits = |(byte, form): (&u8, u8)| match form {
            b'0' => byte.is_ascii_digit(),
            form => *byte == form,
        };
        text.len() == form.len() && text.iter().zip(form.bytes()).all(fits)
    };
    let plain = unescape(spelled);
    let plain = plain.as_bytes();
    let is_timestamp = ["0000-00-00 00:00:00", "0000-00-00 00:00:00.0"]
        .iter()
        .any(|form| has_form(form, plain));
    let longest = "00:00:00.000000";
    let is_time = |text: &[u8]| match text.len() {
        8 | 10..=15 => has_form(&longest[..text.len()], text),
        _ => false,
    };
    if is_timestamp && parse_timestamp(plain, &Zone::UTC).is_some() {
        Kind::Timestamp
    } else if has_form("0000-00-00", text) && parse_date(text).is_some() {
        Kind::Date
    } else if is_time(text)
        && parse_timestamp(format!("1970-01-01 {spelled}").as_bytes(), &Zone::UTC).is_some()
    {
        Kind::Time
    } else {
        Kind::String
    }
}

/// How many digits a number has that is whole however it is written (`1e3`, `5.`), if a decimal has room for them.
fn whole_digits(text: &[u8]) -> Option<u8> {
    let unsigned = match text {
        [b'+' | b'-', unsigned @ ..] => unsigned,
        unsigned => unsigned,
    };
    let (mantissa, power) = match unsigned.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&unsigned[..at], parse_i64(&unsigned[at + 1..])?),
        None => (unsigned, 0),
    };
    let point = memchr::memchr(b'.', mantissa);
    let behind = point.map_or(0, |point| mantissa.len() - point - 1);
    let digits = mantissa.iter().filter(|byte| **byte != b'.');
    let digits: Vec<u8> = digits.copied().collect();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let more = power.checked_sub(behind as i64)?;
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    let count = match digits.len() - zeros {
        0 => 1,
        count => more.checked_add(count as i64)?,
    };
    let is_whole = more >= 0 && mantissa.len() <= digits.len() + 1 && count <= 38;
    is_whole.then_some(count as u8)
}

/// The kind that has the values of both.
fn wider(a: Kind, b: Kind) -> Kind {
    use Kind::*;
    match (a, b) {
        _ if a == b => a,
        (Null, other) | (other, Null) => other,
        (Int, Long) | (Long, Int) => Long,
        (Decimal(a), Decimal(b)) => Decimal(a.max(b)),
        (Int, Decimal(digits)) | (Decimal(digits), Int) => Decimal(digits.max(10)),
        (Long, Decimal(digits)) | (Decimal(digits), Long) => Decimal(digits.max(20)),
        (Int, Double) | (Double, Int) => Double,
        (Date, Timestamp) | (Timestamp, Date) => Timestamp,
        // Digits of a larger number would be lost in a DOUBLE.
        _ => String,
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
            let value = split.partition.iter().find(|(key, _)| is_named(key, name));
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
        data_type: type_sql(field.data_type()),
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

    /// What Spark finds, value by value.
    #[test]
    fn types_of_values_are_those_of_spark() {
        let decimal = |digits| DataType::Decimal128(digits, 0);
        let (int, long, double) = (DataType::Int32, DataType::Int64, DataType::Float64);
        let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let nines = "9".repeat(38);
        for (text, expected) in [
            ("1", &int),
            ("01", &int),
            ("-0", &int),
            ("+5", &int),
            ("20240105", &int),
            ("99999999999", &long),
            ("99999999999999999999", &decimal(20)),
            (&nines, &decimal(38)),
            (&format!("{nines}9"), &double),
            ("1e3", &decimal(4)),
            ("12e30", &decimal(32)),
            ("5.", &decimal(1)),
            ("1e40", &double),
            ("1e1000000000", &double),
            ("1e-2", &double),
            ("1.0", &double),
            (".5", &double),
            ("NaN", &double),
            ("-Infinity", &double),
            ("1d", &double),
            (" 1", &double),
            ("2024-01-05", &DataType::Date32),
            ("2024-01-05 10%3A00%3A00", &timestamp),
            ("2024-01-05 10%3A00%3A00.5", &timestamp),
        ] {
            assert_eq!(type_of(&[text]).as_ref(), Some(expected), "{text}");
        }
        for text in [
            "inf",
            "1L",
            "0x10",
            "true",
            "1_000",
            "1.2.",
            "2024-1-5",
            "2024-01",
            "2024-02-30",
            "10000-01-01",
            "2024-01-05 10%3A00",
            "2024-01-05 10%3A00%3A00.12",
            "2024-01-05T10%3A00%3A00",
            "2024-01-05 10%3A00%3A00Z",
            "%31",
            "2024%2D01%2D05",
            "1:00:00",
            "10:00:61",
            NULL_VALUE,
        ] {
            assert_eq!(type_of(&[text]), Some(DataType::Utf8), "{text}");
        }
        assert_eq!(type_of(&["10:00:00"]), None);
        assert_eq!(type_of(&["10:00:00", "x"]), Some(DataType::Utf8));
    }

    /// What Spark finds for each pair, in either order.
    #[test]
    fn types_of_columns_are_those_of_spark() {
        let texts = [
            "01",
            "99999999999",
            "99999999999999999999",
            "1e21",
            "1.5",
            "2024-01-05",
            "2024-01-05 10%3A00%3A00",
            "x",
        ];
        let expected = [
            "i l 20 22 d s s s",
            "l l 20 22 s s s s",
            "20 20 20 22 s s s s",
            "22 22 22 22 s s s s",
            "d s s s d s s s",
            "s s s s s D T s",
            "s s s s s T T s",
            "s s s s s s s s",
        ];
        let short = |data_type: DataType| match data_type {
            DataType::Int32 => "i".to_string(),
            DataType::Int64 => "l".into(),
            DataType::Float64 => "d".into(),
            DataType::Date32 => "D".into(),
            DataType::Timestamp(..) => "T".into(),
            DataType::Decimal128(digits, 0) => digits.to_string(),
            DataType::Utf8 => "s".into(),
            other => other.to_string(),
        };
        for (a, expected) in texts.iter().zip(expected) {
            let found = texts.iter().map(|b| {
                let found = type_of(&[a, NULL_VALUE, b]).unwrap();
                assert_eq!(type_of(&[b, a]).as_ref(), Some(&found), "{a} {b}");
                short(found)
            });
            assert_eq!(found.collect::<Vec<_>>().join(" "), expected, "{a}");
        }
        assert_eq!(type_of(&["1", "1.5", "99999999999"]), Some(DataType::Utf8));
        assert_eq!(type_of(&["5.", "1"]), Some(DataType::Decimal128(10, 0)));
    }
}
