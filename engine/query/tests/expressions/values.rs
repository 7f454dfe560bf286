//! Values as the pack writes them, and when two are the same.

use super::*;

use arrow::array::{
    ArrowPrimitiveType, BinaryArray, BooleanArray, ListArray, MapArray, PrimitiveArray,
    StringArray, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    Date32Type, Decimal128Type, DurationMicrosecondType, DurationSecondType, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalYearMonthType,
    TimestampMicrosecondType, UInt64Type,
};

/// Rows of JSON as a batch.
pub(super) fn batch(schema: &Arc<Schema>, rows: &[Value]) -> RecordBatch {
    let columns = schema.fields().iter().map(|field| {
        let values: Vec<&Value> = rows.iter().map(|row| &row[field.name()]).collect();
        array(field.data_type(), &values)
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect()).unwrap()
}

fn numbers<T: ArrowPrimitiveType>(
    to: &DataType,
    values: &[&Value],
    f: impl Fn(&Value) -> T::Native,
) -> ArrayRef {
    let values = values.iter().map(|v| (!v.is_null()).then(|| f(v)));
    Arc::new(
        values
            .collect::<PrimitiveArray<T>>()
            .with_data_type(to.clone()),
    )
}

fn double(value: &Value) -> f64 {
    match value.as_str() {
        None => value.as_f64().unwrap(),
        Some("NaN") => f64::NAN,
        Some("Infinity") => f64::INFINITY,
        Some("-Infinity") => f64::NEG_INFINITY,
        Some(other) => panic!("{other} is no number"),
    }
}

fn micros(text: &str) -> i64 {
    let text = text.trim_end_matches('Z');
    chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")
        .unwrap()
        .and_utc()
        .timestamp_micros()
}

fn array(to: &DataType, values: &[&Value]) -> ArrayRef {
    let nulls = NullBuffer::from(values.iter().map(|v| !v.is_null()).collect::<Vec<_>>());
    match to {
        DataType::Boolean => Arc::new(values.iter().map(|v| v.as_bool()).collect::<BooleanArray>()),
        DataType::Int8 => numbers::<Int8Type>(to, values, |v| v.as_i64().unwrap() as i8),
        DataType::Int16 => numbers::<Int16Type>(to, values, |v| v.as_i64().unwrap() as i16),
        DataType::Int32 => numbers::<Int32Type>(to, values, |v| v.as_i64().unwrap() as i32),
        DataType::Int64 => numbers::<Int64Type>(to, values, |v| v.as_i64().unwrap()),
        DataType::Float32 => numbers::<Float32Type>(to, values, |v| double(v) as f32),
        DataType::Float64 => numbers::<Float64Type>(to, values, double),
        DataType::Decimal128(_, scale) => numbers::<Decimal128Type>(to, values, |v| {
            let (whole, fraction) = v
                .as_str()
                .unwrap()
                .split_once('.')
                .unwrap_or((v.as_str().unwrap(), ""));
            format!("{whole}{fraction:0<width$}", width = *scale as usize)
                .parse()
                .unwrap()
        }),
        DataType::Utf8 => Arc::new(values.iter().map(|v| v.as_str()).collect::<StringArray>()),
        DataType::Binary => {
            let bytes: Vec<Option<Vec<u8>>> =
                values.iter().map(|v| v.as_str().map(from_base64)).collect();
            Arc::new(bytes.iter().map(|b| b.as_deref()).collect::<BinaryArray>())
        }
        DataType::Date32 => numbers::<Date32Type>(to, values, |v| {
            let date: chrono::NaiveDate = v.as_str().unwrap().parse().unwrap();
            (date - chrono::NaiveDate::default()).num_days() as i32
        }),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            numbers::<TimestampMicrosecondType>(to, values, |v| micros(v.as_str().unwrap()))
        }
        DataType::List(field) => {
            let lists: Vec<&[Value]> = values
                .iter()
                .map(|v| v.as_array().map_or(&[][..], |a| a))
                .collect();
            let elements: Vec<&Value> = lists.iter().copied().flatten().collect();
            let offsets = OffsetBuffer::from_lengths(lists.iter().map(|l| l.len()));
            let elements = array(field.data_type(), &elements);
            Arc::new(ListArray::new(
                Arc::clone(field),
                offsets,
                elements,
                Some(nulls),
            ))
        }
        DataType::Struct(fields) => {
            let columns = fields.iter().map(|f| {
                let column: Vec<&Value> = values
                    .iter()
                    .map(|v| v.get(f.name()).unwrap_or(&Value::Null))
                    .collect();
                array(f.data_type(), &column)
            });
            Arc::new(StructArray::new(
                fields.clone(),
                columns.collect(),
                Some(nulls),
            ))
        }
        DataType::Map(field, _) => {
            let entries: Vec<Vec<(Value, Value)>> = values.iter().map(|v| pairs(v)).collect();
            let offsets = OffsetBuffer::from_lengths(entries.iter().map(Vec::len));
            let DataType::Struct(kv) = field.data_type() else {
                unreachable!()
            };
            let keys: Vec<&Value> = entries.iter().flatten().map(|(k, _)| k).collect();
            let vals: Vec<&Value> = entries.iter().flatten().map(|(_, v)| v).collect();
            let columns = vec![
                array(kv[0].data_type(), &keys),
                array(kv[1].data_type(), &vals),
            ];
            let entries = StructArray::new(kv.clone(), columns, None);
            Arc::new(MapArray::new(
                Arc::clone(field),
                offsets,
                entries,
                Some(nulls),
                false,
            ))
        }
        other => panic!("no {other} in the pack"),
    }
}

fn pairs(value: &Value) -> Vec<(Value, Value)> {
    match value {
        Value::Object(map) => {
            // The order in which the capture handed these entries to Spark, which shows in map_keys and the like.
            let place = |key: &String| {
                ["", "k3", "k1", "k2", "a", "A"]
                    .iter()
                    .position(|k| k == key)
            };
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| place(key).unwrap_or(usize::MAX));
            entries
                .into_iter()
                .map(|(k, v)| (json!(k), v.clone()))
                .collect()
        }
        Value::Array(pairs) => pairs.iter().map(|p| (p[0].clone(), p[1].clone())).collect(),
        _ => vec![],
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn from_base64(text: &str) -> Vec<u8> {
    let mut bits = String::new();
    for c in text.bytes().filter(|c| *c != b'=') {
        write!(bits, "{:06b}", DIGITS.iter().position(|d| *d == c).unwrap()).unwrap();
    }
    bits.as_bytes()
        .chunks_exact(8)
        .map(|b| u8::from_str_radix(std::str::from_utf8(b).unwrap(), 2).unwrap())
        .collect()
}

fn to_base64(bytes: &[u8]) -> String {
    let chunks = bytes.chunks(3).map(|chunk| {
        let word =
            chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        let digit = |i: usize| {
            if i <= chunk.len() {
                DIGITS[(word >> (18 - 6 * i) & 63) as usize] as char
            } else {
                '='
            }
        };
        (0..4).map(digit).collect::<String>()
    });
    chunks.collect()
}

fn float(value: f64) -> Value {
    match value {
        v if v.is_nan() => json!("NaN"),
        v if v.is_infinite() => json!(if v > 0.0 { "Infinity" } else { "-Infinity" }),
        v => json!(v),
    }
}

fn moment(micros: i64, suffix: &str) -> Value {
    let Some(moment) = chrono::DateTime::from_timestamp_micros(micros) else {
        return json!(format!("{micros} microseconds"));
    };
    let format = if micros.rem_euclid(1_000_000) == 0 {
        "%Y-%m-%dT%H:%M:%S"
    } else {
        "%Y-%m-%dT%H:%M:%S%.6f"
    };
    json!(format!("{}{suffix}", moment.format(format)))
}

/// One value as the pack writes it.
pub(super) fn json(array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) || *array.data_type() == DataType::Null {
        return Value::Null;
    }
    macro_rules! number {
        ($t:ty) => {
            array.as_primitive::<$t>().value(row)
        };
    }
    match array.data_type() {
        DataType::Boolean => json!(array.as_boolean().value(row)),
        DataType::Int8 => json!(number!(Int8Type)),
        DataType::Int16 => json!(number!(Int16Type)),
        DataType::Int32 => json!(number!(Int32Type)),
        DataType::Int64 => json!(number!(Int64Type)),
        DataType::UInt64 => json!(number!(UInt64Type)),
        DataType::Float32 => float(f64::from(number!(Float32Type))),
        DataType::Float64 => float(number!(Float64Type)),
        DataType::Decimal128(_, scale) => {
            let (value, scale) = (number!(Decimal128Type), *scale as usize);
            let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            let point = if scale > 0 { "." } else { "" };
            json!(format!(
                "{}{whole}{point}{fraction}",
                if value < 0 { "-" } else { "" }
            ))
        }
        DataType::Utf8 => json!(array.as_string::<i32>().value(row)),
        DataType::Binary => json!(to_base64(array.as_binary::<i32>().value(row))),
        DataType::Date32 => {
            let days = chrono::TimeDelta::days(i64::from(number!(Date32Type)));
            match chrono::NaiveDate::default().checked_add_signed(days) {
                Some(date) => json!(date.to_string()),
                None => json!(format!("{days}")),
            }
        }
        DataType::Timestamp(_, zone) => moment(
            number!(TimestampMicrosecondType),
            if zone.is_some() { "Z" } else { "" },
        ),
        DataType::Duration(TimeUnit::Second) => {
            json!(number!(DurationSecondType) * 1_000_000)
        }
        DataType::Duration(_) => json!(number!(DurationMicrosecondType)),
        DataType::Interval(_) => json!(number!(IntervalYearMonthType)),
        DataType::List(_) => {
            let elements = array.as_list::<i32>().value(row);
            (0..elements.len()).map(|i| json(&elements, i)).collect()
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            fields
                .iter()
                .zip(columns)
                .map(|(f, c)| (f.name().clone(), json(c, row)))
                .collect()
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let (keys, vals) = (entries.column(0), entries.column(1));
            if *keys.data_type() == DataType::Utf8 {
                let text = |i| keys.as_string::<i32>().value(i).to_string();
                return (0..entries.len())
                    .map(|i| (text(i), json(vals, i)))
                    .collect();
            }
            (0..entries.len())
                .map(|i| json!([json(keys, i), json(vals, i)]))
                .collect()
        }
        other => panic!("no {other} in the pack"),
    }
}

/// The pack's rule; a set has no order.
pub(super) fn same(expected: &Value, found: &Value, data_type: &DataType, set: bool) -> bool {
    match (expected, found) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a == b,
            _ => {
                let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
                (a - b).abs() <= f64::max(1e-9 * f64::max(a.abs(), b.abs()), 1e-12)
            }
        },
        (Value::Array(a), Value::Array(b)) => {
            if a.len() != b.len() {
                return false;
            }
            if set || matches!(data_type, DataType::Map(..)) {
                return a
                    .iter()
                    .all(|a| b.iter().any(|b| same(a, b, &DataType::Null, false)));
            }
            let element = match data_type {
                DataType::List(field) => field.data_type(),
                _ => &DataType::Null,
            };
            a.iter().zip(b).all(|(a, b)| same(a, b, element, false))
        }
        (Value::Object(a), Value::Object(b)) => {
            let field = |name: &str| match data_type {
                DataType::Struct(fields) => fields
                    .iter()
                    .find(|f| f.name() == name)
                    .map(|f| f.data_type()),
                DataType::Map(entries, _) => match entries.data_type() {
                    DataType::Struct(kv) => Some(kv[1].data_type()),
                    _ => None,
                },
                _ => None,
            };
            a.len() == b.len()
                && a.iter().all(|(k, v)| {
                    b.get(k)
                        .is_some_and(|w| same(v, w, field(k).unwrap_or(&DataType::Null), false))
                })
        }
        // The pack writes some decimals with more zeros than their scale.
        (Value::String(a), Value::String(b)) if matches!(data_type, DataType::Decimal128(..)) => {
            let digits = |text: &str| match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
                false => text.to_string(),
            };
            digits(a) == digits(b)
        }
        (a, b) => a == b,
    }
}
