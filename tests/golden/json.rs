//! Values as the scenarios write them, and when two are the same.

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimeUnit, TimestampMicrosecondType,
};
use serde_json::{Map, Value};

/// One cell.
pub(crate) fn cell(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Int8 => column.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float32 => float(f64::from(column.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::Binary => base64(column.as_binary::<i32>().value(row)).into(),
        DataType::Decimal128(_, scale) => {
            decimal(column.as_primitive::<Decimal128Type>().value(row), *scale).into()
        }
        DataType::Date32 => date(i64::from(column.as_primitive::<Date32Type>().value(row))).into(),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
            let (days, rest) = (
                micros.div_euclid(86_400_000_000),
                micros.rem_euclid(86_400_000_000),
            );
            let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
            let fraction = if fraction == 0 {
                String::new()
            } else {
                format!(".{fraction:06}")
            };
            let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            let end = if zone.is_some() { "Z" } else { "" };
            format!("{}T{h:02}:{m:02}:{s:02}{fraction}{end}", date(days)).into()
        }
        DataType::Struct(fields) => {
            let parts = fields.iter().zip(column.as_struct().columns());
            Value::Object(
                parts
                    .map(|(field, part)| (field.name().clone(), cell(part, row)))
                    .collect(),
            )
        }
        DataType::List(_) => {
            let values = column.as_list::<i32>().value(row);
            Value::Array((0..values.len()).map(|i| cell(&values, i)).collect())
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let (keys, values) = (entries.column(0), entries.column(1));
            let pairs = (0..entries.len()).map(|i| (cell(keys, i), cell(values, i)));
            match keys.data_type() {
                DataType::Utf8 => Value::Object(
                    pairs
                        .map(|(key, value)| (key.as_str().unwrap_or_default().to_string(), value))
                        .collect::<Map<_, _>>(),
                ),
                _ => Value::Array(
                    pairs
                        .map(|(key, value)| Value::Array(vec![key, value]))
                        .collect(),
                ),
            }
        }
        other => panic!("no scenario holds a {other}"),
    }
}

fn float(value: f64) -> Value {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 {
            "Infinity".into()
        } else {
            "-Infinity".into()
        }
    } else {
        value.into()
    }
}

fn decimal(value: i128, scale: i8) -> String {
    let scale = usize::try_from(scale).expect("scales are not negative here");
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if value < 0 { "-" } else { "" };
    if scale == 0 {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction}")
    }
}

/// Days since 1970-01-01 as a date of the proleptic Gregorian calendar.
fn date(days: i64) -> String {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * place) & 63) as usize] as char;
            text.push(if place <= chunk.len() { letter } else { '=' });
        }
    }
    text
}

/// The pack's rule: as multisets unless ordered; numbers within 1e-9 where one is written as a float.
pub(crate) fn same_rows(want: &[Value], have: &[Value], ordered: bool) -> bool {
    if want.len() != have.len() {
        return false;
    }
    if ordered {
        return want.iter().zip(have).all(|(a, b)| same(a, b));
    }
    let mut rest: Vec<&Value> = have.iter().collect();
    want.iter()
        .all(|row| match rest.iter().position(|other| same(row, other)) {
            Some(found) => {
                rest.swap_remove(found);
                true
            }
            None => false,
        })
}

/// Those of `rows` that have no partner among `others`.
pub(crate) fn without(rows: &[Value], others: &[Value]) -> Vec<Value> {
    let mut rest: Vec<&Value> = others.iter().collect();
    let lacks_partner = |row: &&Value| match rest.iter().position(|other| same(row, other)) {
        Some(found) => {
            rest.swap_remove(found);
            false
        }
        None => true,
    };
    rows.iter().filter(lacks_partner).cloned().collect()
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) if x.is_i64() && y.is_i64() => x == y,
        (Value::Number(x), Value::Number(y)) => {
            let (x, y) = (
                x.as_f64().unwrap_or(f64::NAN),
                y.as_f64().unwrap_or(f64::NAN),
            );
            (x - y).abs() <= (1e-9 * x.abs().max(y.abs())).max(1e-12)
        }
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(a, b)| same(a, b))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len()
                && x.iter()
                    .all(|(key, value)| y.get(key).is_some_and(|other| same(value, other)))
        }
        _ => a == b,
    }
}
