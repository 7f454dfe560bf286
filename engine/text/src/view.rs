//! Values of Arrow columns as text: as Spark's cast to string writes them, and as its JSON writer does.
//!
//! A `View` knows the type of its column once, so that writing a value is one branch, not a chain of downcasts.

use crate::options::{OptionError, Options, invalid};
use crate::pattern::TimePattern;
use crate::write::{
    push_date, push_day_time, push_decimal, push_f32, push_f64, push_integer, push_year_month,
};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, ListArray, MapArray, PrimitiveArray,
    StringArray, StructArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, DurationMicrosecondType, FieldRef, Float32Type,
    Float64Type, Int32Type, Int64Type, IntervalUnit, IntervalYearMonthType, TimeUnit,
    TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::json::plain_end;
use crate::time::{Zone, push_timestamp, push_timestamp_iso};

/// How values are written as text.
#[derive(Debug, Clone, Copy)]
pub struct TextStyle<'a> {
    /// Whose clock timestamps show.
    pub zone: &'a Zone,
    /// What stands for a null within a value.
    pub null: &'a str,
    /// Bytes are shown as `[68 69]`, not taken for UTF-8.
    pub hex: bool,
    /// Timestamps as files hold them, `2024-01-05T10:00:00.000Z`.
    pub iso: bool,
    /// Patterns that somebody asked for.
    pub times: &'a TimePatterns,
}

/// How dates and times are written, where not as usual.
#[derive(Debug, Clone, Default)]
pub struct TimePatterns {
    /// Of dates.
    pub date: Option<TimePattern>,
    /// Of instants.
    pub timestamp: Option<TimePattern>,
    /// Of timestamps without a time zone.
    pub timestamp_ntz: Option<TimePattern>,
}

impl TimePatterns {
    /// As usual.
    pub const NONE: TimePatterns = TimePatterns {
        date: None,
        timestamp: None,
        timestamp_ntz: None,
    };

    /// Reads options by name; `owner` is told in errors.
    pub fn parse(owner: &str, options: &Options, zone: &str) -> Result<Self, OptionError> {
        let pattern = |name: &str, zone: &str| {
            let Some(text) = options.get(name) else {
                return Ok(None);
            };
            TimePattern::new(text, zone)
                .map(Some)
                .map_err(|reason| invalid(owner, name, text, &reason))
        };
        Ok(TimePatterns {
            date: pattern("dateFormat", "UTC")?,
            timestamp: pattern("timestampFormat", zone)?,
            timestamp_ntz: pattern("timestampNTZFormat", "UTC")?,
        })
    }

    fn push_date(&self, out: &mut String, days: i32) {
        match &self.date {
            Some(pattern) => pattern.push(out, i64::from(days) * 86_400_000_000),
            None => push_date(out, i64::from(days)),
        }
    }
}

/// How values are written as JSON.
#[derive(Debug, Clone, Copy)]
pub struct JsonStyle<'a> {
    /// Whose clock timestamps show.
    pub zone: &'a Zone,
    /// Fields that are null are written too.
    pub null_fields: bool,
    /// Patterns that somebody asked for.
    pub times: &'a TimePatterns,
}

impl<'a> JsonStyle<'a> {
    /// As Spark does if nothing else is asked for.
    pub fn usual(zone: &'a Zone) -> Self {
        JsonStyle {
            zone,
            null_fields: false,
            times: &TimePatterns::NONE,
        }
    }
}

/// A column, ready to be written.
pub struct View {
    nulls: Option<arrow::buffer::NullBuffer>,
    values: Values,
}

enum Values {
    Null,
    Boolean(BooleanArray),
    Int32(PrimitiveArray<Int32Type>),
    Int64(PrimitiveArray<Int64Type>),
    Float32(PrimitiveArray<Float32Type>),
    Float64(PrimitiveArray<Float64Type>),
    Decimal(PrimitiveArray<Decimal128Type>, i8),
    Date(PrimitiveArray<Date32Type>),
    Timestamp(PrimitiveArray<TimestampMicrosecondType>),
    TimestampNtz(PrimitiveArray<TimestampMicrosecondType>),
    DayTime(PrimitiveArray<DurationMicrosecondType>),
    YearMonth(PrimitiveArray<IntervalYearMonthType>),
    Utf8(StringArray),
    Binary(BinaryArray),
    List(ListArray, Box<View>),
    Struct(Vec<(String, View)>),
    Map(MapArray, Box<View>, Box<View>),
}

impl View {
    /// Looks at `array`. A type without a text form of its own is cast to one that has.
    pub fn new(array: &ArrayRef) -> Result<View, ArrowError> {
        let wide =
            |data_type: DataType| cast(array, &data_type).and_then(|array| View::new(&array));
        let values = match array.data_type() {
            DataType::Null => Values::Null,
            DataType::Boolean => Values::Boolean(array.as_boolean().clone()),
            DataType::Int32 => Values::Int32(array.as_primitive().clone()),
            DataType::Int64 => Values::Int64(array.as_primitive().clone()),
            DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => {
                return wide(DataType::Int32);
            }
            DataType::UInt32 => return wide(DataType::Int64),
            DataType::UInt64 => return wide(DataType::Decimal128(20, 0)),
            DataType::Float16 => return wide(DataType::Float32),
            DataType::Float32 => Values::Float32(array.as_primitive().clone()),
            DataType::Float64 => Values::Float64(array.as_primitive().clone()),
            DataType::Decimal128(_, scale) => Values::Decimal(array.as_primitive().clone(), *scale),
            DataType::Date32 => Values::Date(array.as_primitive().clone()),
            DataType::Date64 => return wide(DataType::Date32),
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => {
                Values::Timestamp(array.as_primitive().clone())
            }
            DataType::Timestamp(TimeUnit::Microsecond, None) => {
                Values::TimestampNtz(array.as_primitive().clone())
            }
            DataType::Timestamp(_, zone) => {
                return wide(DataType::Timestamp(TimeUnit::Microsecond, zone.clone()));
            }
            DataType::Duration(TimeUnit::Microsecond) => {
                Values::DayTime(array.as_primitive().clone())
            }
            DataType::Interval(IntervalUnit::YearMonth) => {
                Values::YearMonth(array.as_primitive().clone())
            }
            DataType::Utf8 => Values::Utf8(array.as_string().clone()),
            DataType::Binary => Values::Binary(array.as_binary().clone()),
            DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                return wide(DataType::Binary);
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>().clone();
                let items = View::new(list.values())?;
                Values::List(list, Box::new(items))
            }
            DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                return wide(DataType::List(FieldRef::clone(item)));
            }
            DataType::Struct(fields) => {
                let array: &StructArray = array.as_struct();
                let view = |(field, column): (&FieldRef, &ArrayRef)| {
                    Ok((field.name().clone(), View::new(column)?))
                };
                let columns = fields.iter().zip(array.columns()).map(view);
                Values::Struct(columns.collect::<Result<_, ArrowError>>()?)
            }
            DataType::Map(..) => {
                let map = array.as_map().clone();
                let (keys, values) = (View::new(map.keys())?, View::new(map.values())?);
                Values::Map(map, Box::new(keys), Box::new(values))
            }
            DataType::Dictionary(_, values) => return wide(values.as_ref().clone()),
            // Strings of other layouts, intervals, what the future brings.
            _ => return wide(DataType::Utf8),
        };
        Ok(View {
            nulls: array.logical_nulls(),
            values,
        })
    }

    /// True if the value is null.
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// True if text of this column may hold anything, quotes and separators included.
    pub fn is_free_text(&self) -> bool {
        !matches!(
            self.values,
            Values::Boolean(_)
                | Values::Int32(_)
                | Values::Int64(_)
                | Values::Date(_)
                | Values::Null
        )
    }

    /// Appends the text of a value; of a null, nothing.
    pub fn push_text(&self, out: &mut String, row: usize, style: &TextStyle<'_>) {
        if self.is_null(row) {
            return;
        }
        let nested = |out: &mut String, view: &View, row: usize| match view.is_null(row) {
            true => out.push_str(style.null),
            false => view.push_text(out, row, style),
        };
        let timestamp = |out: &mut String, us: i64, zone: Option<&Zone>| {
            let pattern = match zone {
                Some(_) => &style.times.timestamp,
                None => &style.times.timestamp_ntz,
            };
            match pattern {
                Some(pattern) => pattern.push(out, us),
                None if style.iso => push_timestamp_iso(out, us, zone),
                None => push_timestamp(out, us, zone),
            }
        };
        match &self.values {
            Values::Null => {}
            Values::Boolean(array) => out.push_str(if array.value(row) { "true" } else { "false" }),
            Values::Int32(array) => push_integer(out, i64::from(array.value(row))),
            Values::Int64(array) => push_integer(out, array.value(row)),
            Values::Float32(array) => push_f32(out, array.value(row)),
            Values::Float64(array) => push_f64(out, array.value(row)),
            Values::Decimal(array, scale) => push_decimal(out, array.value(row), *scale),
            Values::Date(array) => style.times.push_date(out, array.value(row)),
            Values::Timestamp(array) => timestamp(out, array.value(row), Some(style.zone)),
            Values::TimestampNtz(array) => timestamp(out, array.value(row), None),
            Values::DayTime(array) => push_day_time(out, array.value(row)),
            Values::YearMonth(array) => push_year_month(out, array.value(row)),
            Values::Utf8(array) => out.push_str(array.value(row)),
            Values::Binary(array) if style.hex => {
                let bytes = array.value(row).iter().map(|byte| format!("{byte:02X}"));
                out.push_str(&format!("[{}]", bytes.collect::<Vec<_>>().join(" ")));
            }
            Values::Binary(array) => out.push_str(&String::from_utf8_lossy(array.value(row))),
            Values::List(array, items) => {
                out.push('[');
                let ends = &array.value_offsets()[row..row + 2];
                for (at, item) in (ends[0] as usize..ends[1] as usize).enumerate() {
                    out.push_str(if at > 0 { ", " } else { "" });
                    nested(out, items, item);
                }
                out.push(']');
            }
            Values::Struct(columns) => {
                out.push('{');
                for (at, (_, column)) in columns.iter().enumerate() {
                    out.push_str(if at > 0 { ", " } else { "" });
                    nested(out, column, row);
                }
                out.push('}');
            }
            Values::Map(array, keys, values) => {
                out.push('{');
                let ends = &array.value_offsets()[row..row + 2];
                for (at, entry) in (ends[0] as usize..ends[1] as usize).enumerate() {
                    out.push_str(if at > 0 { ", " } else { "" });
                    nested(out, keys, entry);
                    out.push_str(" -> ");
                    nested(out, values, entry);
                }
                out.push('}');
            }
        }
    }

    /// Appends a value as JSON.
    pub fn push_json(&self, out: &mut String, row: usize, style: &JsonStyle<'_>) {
        if self.is_null(row) {
            out.push_str("null");
            return;
        }
        match &self.values {
            Values::Null => out.push_str("null"),
            Values::Boolean(array) => out.push_str(if array.value(row) { "true" } else { "false" }),
            Values::Int32(array) => push_integer(out, i64::from(array.value(row))),
            Values::Int64(array) => push_integer(out, array.value(row)),
            Values::Float32(array) => {
                let value = array.value(row);
                in_quotes(out, !value.is_finite(), |out| push_f32(out, value));
            }
            Values::Float64(array) => {
                let value = array.value(row);
                in_quotes(out, !value.is_finite(), |out| push_f64(out, value));
            }
            Values::Decimal(array, scale) => push_decimal(out, array.value(row), *scale),
            Values::Date(array) => in_quotes(out, true, |out| {
                style.times.push_date(out, array.value(row));
            }),
            Values::Timestamp(array) => in_quotes(out, true, |out| match &style.times.timestamp {
                Some(pattern) => pattern.push(out, array.value(row)),
                None => push_timestamp_iso(out, array.value(row), Some(style.zone)),
            }),
            Values::TimestampNtz(array) => {
                in_quotes(out, true, |out| match &style.times.timestamp_ntz {
                    Some(pattern) => pattern.push(out, array.value(row)),
                    None => push_timestamp_iso(out, array.value(row), None),
                })
            }
            Values::DayTime(array) => {
                in_quotes(out, true, |out| push_day_time(out, array.value(row)));
            }
            Values::YearMonth(array) => {
                in_quotes(out, true, |out| push_year_month(out, array.value(row)));
            }
            Values::Utf8(array) => push_json_string(out, array.value(row)),
            Values::Binary(array) => in_quotes(out, true, |out| {
                BASE64.encode_string(array.value(row), out);
            }),
            Values::List(array, items) => {
                out.push('[');
                let ends = &array.value_offsets()[row..row + 2];
                for (at, item) in (ends[0] as usize..ends[1] as usize).enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    items.push_json(out, item, style);
                }
                out.push(']');
            }
            Values::Struct(columns) => {
                let columns = columns.iter().map(|(name, view)| (name.as_str(), view));
                push_json_object(out, columns, row, style);
            }
            Values::Map(array, keys, values) => {
                let of_keys = TextStyle {
                    zone: style.zone,
                    null: "null",
                    hex: false,
                    iso: false,
                    times: &TimePatterns::NONE,
                };
                out.push('{');
                let ends = &array.value_offsets()[row..row + 2];
                let mut key = String::new();
                for (at, entry) in (ends[0] as usize..ends[1] as usize).enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    key.clear();
                    keys.push_text(&mut key, entry, &of_keys);
                    push_json_string(out, &key);
                    out.push(':');
                    values.push_json(out, entry, style);
                }
                out.push('}');
            }
        }
    }
}

/// Appends an object of the columns in `row`; those that are null are left out, if nothing else is asked for.
pub fn push_json_object<'a>(
    out: &mut String,
    columns: impl Iterator<Item = (&'a str, &'a View)>,
    row: usize,
    style: &JsonStyle<'_>,
) {
    out.push('{');
    let mut first = true;
    for (name, column) in columns {
        if column.is_null(row) && !style.null_fields {
            continue;
        }
        out.push_str(if first { "" } else { "," });
        first = false;
        push_json_string(out, name);
        out.push(':');
        column.push_json(out, row, style);
    }
    out.push('}');
}

fn in_quotes(out: &mut String, quotes: bool, push: impl FnOnce(&mut String)) {
    let quote = if quotes { "\"" } else { "" };
    out.push_str(quote);
    push(out);
    out.push_str(quote);
}

/// Appends a string in quotes, with the escapes it needs.
pub fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    loop {
        let at = plain_end::<b'"'>(rest.as_bytes(), 0);
        let Some(special) = rest.as_bytes().get(at) else {
            break;
        };
        out.push_str(&rest[..at]);
        match special {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            8 => out.push_str("\\b"),
            12 => out.push_str("\\f"),
            other => out.push_str(&format!("\\u{other:04X}")),
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};

    use super::*;
    use crate::json::{JsonDecoder, JsonOptions};

    /// What JSON of one column `v` becomes as text and as JSON.
    fn check(data_type: DataType, json: &str, text: &str, expected: &str) {
        let schema = Schema::new(vec![Field::new("v", data_type, true)]);
        let mut decoder = JsonDecoder::new(&schema, &[0], JsonOptions::default()).unwrap();
        decoder
            .decode_line(format!("{{\"v\":{json}}}").as_bytes())
            .unwrap();
        let batch = decoder.flush().unwrap();
        let view = View::new(batch.column(0)).unwrap();
        let style = TextStyle {
            zone: &Zone::UTC,
            null: "NULL",
            hex: true,
            iso: false,
            times: &TimePatterns::NONE,
        };
        let (mut shown, mut written) = (String::new(), String::new());
        view.push_text(&mut shown, 0, &style);
        let usual = JsonStyle::usual(&Zone::UTC);
        push_json_object(&mut written, [("v", &view)].into_iter(), 0, &usual);
        assert_eq!(shown, text);
        assert_eq!(written, expected);
    }

    #[test]
    fn values_are_written_as_spark_does() {
        check(DataType::Int64, "-42", "-42", r#"{"v":-42}"#);
        check(DataType::Int8, "7", "7", r#"{"v":7}"#);
        check(DataType::Float64, "1e10", "1.0E10", r#"{"v":1.0E10}"#);
        check(DataType::Float64, "NaN", "NaN", r#"{"v":"NaN"}"#);
        check(DataType::Decimal128(9, 2), "1.5", "1.50", r#"{"v":1.50}"#);
        check(DataType::Utf8, r#""a\n\"é""#, "a\n\"é", r#"{"v":"a\n\"é"}"#);
        check(DataType::Utf8, "null", "", "{}");
        check(DataType::Binary, r#""aGk=""#, "[68 69]", r#"{"v":"aGk="}"#);
        check(
            DataType::Date32,
            r#""2024-01-05""#,
            "2024-01-05",
            r#"{"v":"2024-01-05"}"#,
        );
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        check(
            instant,
            r#""2024-01-05T10:00:00.5Z""#,
            "2024-01-05 10:00:00.5",
            r#"{"v":"2024-01-05T10:00:00.500Z"}"#,
        );
    }

    #[test]
    fn nested_values_are_written_as_spark_does() {
        let list = DataType::new_list(DataType::Int32, true);
        check(list.clone(), "[1,null]", "[1, NULL]", r#"{"v":[1,null]}"#);
        let fields = vec![
            Field::new("l", list, true),
            Field::new("s", DataType::Utf8, true),
        ];
        let data_type = DataType::Struct(fields.into());
        check(
            data_type.clone(),
            r#"{"s":"x"}"#,
            "{NULL, x}",
            r#"{"v":{"s":"x"}}"#,
        );
        check(
            data_type,
            r#"{"l":[2]}"#,
            "{[2], NULL}",
            r#"{"v":{"l":[2]}}"#,
        );
        let entries = vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("value", DataType::Int32, true),
        ];
        let entries = Field::new("entries", DataType::Struct(entries.into()), false);
        check(
            DataType::Map(entries.into(), false),
            r#"{"a":1,"b":null}"#,
            "{a -> 1, b -> NULL}",
            r#"{"v":{"a":1,"b":null}}"#,
        );
    }
}
