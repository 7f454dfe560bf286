//! One column under construction: JSON values go in, an Arrow array comes out.
//!
//! A column never holds half a value: what cannot be read is cut off again, so a row that turns out to be malformed
//! leaves by `truncate` and the next row does not notice. Two kinds of trouble are told apart. *Malformed* text
//! (`Err`) ends the row: nothing behind it can be trusted. A value of the wrong type (`Ok(false)`) was read to its
//! end; the field is null, the row goes on, and the row is marked (`Context::bad`).

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, ListArray, MapArray, NullArray,
    NullBufferBuilder, PrimitiveArray, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Field, FieldRef, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::bytes::{Bytes, string_array, take};
use super::copy::push_value;
use super::escape::unescape;
use super::object::Object;
use super::scan::{Cursor, Number, Scan, Start};
use super::simple::{short_fraction, short_natural};
use crate::number::{parse_decimal, parse_i64};
use crate::times::ReadTimes;

/// A value that has not the type of its column.
#[derive(Debug, Clone, Copy)]
pub(super) struct BadValue {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) wanted: &'static str,
}

/// What reading a value needs besides the text.
pub(super) struct Context {
    pub(super) times: ReadTimes,
    /// Strings like `"NaN"` are numbers.
    pub(super) not_finite: bool,
    /// What is read as a string is written anew, and not as it stands.
    pub(super) anew: bool,
    /// The first bad value of the row.
    pub(super) bad: Option<BadValue>,
    /// Where strings with escapes are spelled out before they are understood.
    pub(super) scratch: Vec<u8>,
}

/// A growing column.
pub(super) struct Column {
    data_type: DataType,
    values: Values,
    /// Up to the last null: what is behind it is valid.
    valid: NullBufferBuilder,
    pub(super) len: usize,
}

enum Values {
    Null,
    Boolean(BooleanBufferBuilder),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Date(Vec<i32>),
    Timestamp(Vec<i64>),
    TimestampNtz(Vec<i64>),
    Decimal(Vec<i128>, u8, i8),
    Utf8(Bytes),
    Binary(Bytes),
    Struct(Box<Object>),
    List {
        offsets: Vec<i32>,
        item: Box<Column>,
    },
    Map {
        offsets: Vec<i32>,
        keys: Bytes,
        values: Box<Column>,
    },
}

impl Column {
    /// A column of `data_type`; the type itself if it cannot be read from JSON.
    pub(super) fn new(data_type: &DataType) -> Result<Self, DataType> {
        let values = match data_type {
            DataType::Null => Values::Null,
            DataType::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Int8 => Values::Int8(Vec::new()),
            DataType::Int16 => Values::Int16(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Date32 => Values::Date(Vec::new()),
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => Values::Timestamp(Vec::new()),
            DataType::Timestamp(TimeUnit::Microsecond, None) => Values::TimestampNtz(Vec::new()),
            DataType::Decimal128(precision, scale) => {
                Values::Decimal(Vec::new(), *precision, *scale)
            }
            DataType::Utf8 => Values::Utf8(Bytes::new()),
            DataType::Binary => Values::Binary(Bytes::new()),
            DataType::Struct(fields) => Values::Struct(Box::new(Object::new(fields)?)),
            DataType::List(item) => Values::List {
                offsets: vec![0],
                item: Box::new(Column::new(item.data_type())?),
            },
            DataType::Map(entries, false) => match entries.data_type() {
                DataType::Struct(fields) if fields[0].data_type() == &DataType::Utf8 => {
                    Values::Map {
                        offsets: vec![0],
                        keys: Bytes::new(),
                        values: Box::new(Column::new(fields[1].data_type())?),
                    }
                }
                _ => return Err(data_type.clone()),
            },
            other => return Err(other.clone()),
        };
        Ok(Column {
            data_type: data_type.clone(),
            values,
            valid: NullBufferBuilder::new(0),
            len: 0,
        })
    }

    pub(super) fn append_null(&mut self) {
        match &mut self.values {
            Values::Null => {}
            Values::Boolean(values) => values.append(false),
            Values::Int8(values) => values.push(0),
            Values::Int16(values) => values.push(0),
            Values::Int32(values) | Values::Date(values) => values.push(0),
            Values::Int64(values) | Values::Timestamp(values) | Values::TimestampNtz(values) => {
                values.push(0)
            }
            Values::Float32(values) => values.push(0.0),
            Values::Float64(values) => values.push(0.0),
            Values::Decimal(values, ..) => values.push(0),
            Values::Utf8(bytes) | Values::Binary(bytes) => bytes.end(),
            Values::Struct(object) => object.append_nulls(),
            Values::List { offsets, item } => offsets.push(item.len as i32),
            Values::Map {
                offsets, values, ..
            } => offsets.push(values.len as i32),
        }
        self.valid.append_n_non_nulls(self.len - self.valid.len());
        self.valid.append_null();
        self.len += 1;
    }

    /// Appends a string, to a column of strings.
    pub(super) fn append_text(&mut self, text: &str) {
        let Values::Utf8(bytes) = &mut self.values else {
            unreachable!("only asked of the column of corrupt rows, which is a string");
        };
        bytes.bytes.extend_from_slice(text.as_bytes());
        bytes.end();
        self.len += 1;
    }

    /// Forgets all values from the `len`th on, and what a malformed row left of the next one.
    pub(super) fn truncate(&mut self, len: usize) {
        assert!(len <= self.len, "columns only shrink");
        match &mut self.values {
            Values::Null => {}
            Values::Boolean(values) => values.truncate(len),
            Values::Int8(values) => values.truncate(len),
            Values::Int16(values) => values.truncate(len),
            Values::Int32(values) | Values::Date(values) => values.truncate(len),
            Values::Int64(values) | Values::Timestamp(values) | Values::TimestampNtz(values) => {
                values.truncate(len)
            }
            Values::Float32(values) => values.truncate(len),
            Values::Float64(values) => values.truncate(len),
            Values::Decimal(values, ..) => values.truncate(len),
            Values::Utf8(bytes) | Values::Binary(bytes) => bytes.truncate(len),
            Values::Struct(object) => object.truncate(len),
            Values::List { offsets, item } => {
                offsets.truncate(len + 1);
                item.truncate(offsets[len] as usize);
            }
            Values::Map {
                offsets,
                keys,
                values,
            } => {
                offsets.truncate(len + 1);
                keys.truncate(offsets[len] as usize);
                values.truncate(offsets[len] as usize);
            }
        }
        self.valid.truncate(len);
        self.len = len;
    }

    /// Reads the value at the cursor. False if it has another type than the column: it was gone over, the context
    /// knows it, and nothing was appended.
    #[inline(always)]
    pub(super) fn read(
        &mut self,
        cursor: &mut Cursor<'_>,
        context: &mut Context,
        depth: usize,
    ) -> Scan<bool> {
        match self.read_simple(cursor, context, cursor.rest())? {
            Some(behind) => {
                cursor.go_to(behind);
                Ok(true)
            }
            None => self.read_other(cursor, context, depth),
        }
    }

    /// Reads the value that `text` starts with if it is of a frequent type and form. Answers what is behind it. The
    /// cursor only lends its rules: a place that is stored and loaded for every value would be waited for.
    #[inline(always)]
    pub(super) fn read_simple<'a>(
        &mut self,
        cursor: &Cursor<'a>,
        context: &Context,
        text: &'a [u8],
    ) -> Scan<Option<&'a [u8]>> {
        let behind = match &mut self.values {
            Values::Utf8(bytes) => match text {
                [b'"', text @ ..] => {
                    let behind = cursor.copy_string(text, &mut bytes.bytes)?;
                    bytes.end();
                    behind
                }
                _ => return Ok(None),
            },
            Values::Int64(values) => match short_natural(text) {
                Some((value, behind)) => {
                    values.push(value);
                    behind
                }
                None => return Ok(None),
            },
            Values::Float64(values) => match short_fraction(text) {
                Some((digits, power, behind)) => {
                    values.push(digits as f64 / POWERS[power]);
                    behind
                }
                None => return Ok(None),
            },
            Values::Timestamp(values) => match text.split_first_chunk::<26>() {
                Some(([b'"', instant @ .., b'"'], behind)) => {
                    match context.times.usual_instant(instant) {
                        Some(us) => {
                            values.push(us);
                            behind
                        }
                        None => return Ok(None),
                    }
                }
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        self.len += 1;
        Ok(Some(behind))
    }

    /// Reads the value at the cursor where there is one already, which stays if this one is of another type.
    #[cold]
    pub(super) fn read_again(
        &mut self,
        cursor: &mut Cursor<'_>,
        context: &mut Context,
        depth: usize,
    ) -> Scan<()> {
        let from = cursor.pos;
        let mut other = Column::new(&self.data_type).expect("this column has the type");
        if other.read(cursor, context, depth)? {
            self.truncate(self.len - 1);
            cursor.pos = from;
            self.read(cursor, context, depth)?;
        }
        Ok(())
    }

    pub(super) fn read_other(
        &mut self,
        cursor: &mut Cursor<'_>,
        context: &mut Context,
        depth: usize,
    ) -> Scan<bool> {
        let from = cursor.pos;
        let start = cursor.start()?;
        if start == Start::Null {
            cursor.literal("null")?;
            self.append_null();
            return Ok(true);
        }
        let read = match &mut self.values {
            Values::Utf8(bytes) => {
                if start == Start::String {
                    let text = cursor.string()?;
                    bytes.push_text(cursor, text);
                } else if context.anew {
                    let mut text = String::new();
                    push_value(&mut text, cursor, depth)?;
                    bytes.bytes.extend_from_slice(text.as_bytes());
                    bytes.end();
                } else {
                    cursor.skip(depth)?;
                    bytes
                        .bytes
                        .extend_from_slice(&cursor.text[from..cursor.pos]);
                    bytes.end();
                }
                true
            }
            Values::Int64(values) => push_integer(cursor, start, depth, values)?,
            Values::Int32(values) => push_integer(cursor, start, depth, values)?,
            Values::Int16(values) => push_integer(cursor, start, depth, values)?,
            Values::Int8(values) => push_byte(cursor, start, depth, values)?,
            Values::Float64(values) => match float(cursor, start, context, depth)? {
                Some(Float::Number(number)) => {
                    values.push(number_to_f64(cursor, number));
                    true
                }
                Some(Float::Special(value)) => {
                    values.push(value);
                    true
                }
                None => false,
            },
            Values::Float32(values) => match float(cursor, start, context, depth)? {
                Some(Float::Number(number)) => {
                    let text = match is_zero(number) {
                        true => "0",
                        false => ascii(cursor, number),
                    };
                    values.push(text.parse().expect("the scan checked the number"));
                    true
                }
                Some(Float::Special(value)) => {
                    values.push(value as f32);
                    true
                }
                None => false,
            },
            Values::Timestamp(values) => {
                let us = match start {
                    Start::String => {
                        let text = string(cursor, &mut context.scratch)?;
                        context.times.timestamp(text)
                    }
                    Start::Number => {
                        let number = cursor.number()?;
                        integer(cursor, number).and_then(|seconds| seconds.checked_mul(1_000_000))
                    }
                    _ => skip(cursor, depth)?,
                };
                push(values, us)
            }
            Values::TimestampNtz(values) => {
                let us = match start {
                    Start::String => {
                        let text = string(cursor, &mut context.scratch)?;
                        context.times.timestamp_ntz(text)
                    }
                    _ => skip(cursor, depth)?,
                };
                push(values, us)
            }
            Values::Date(values) => {
                let days = match start {
                    // Spark 1.5 wrote dates as day numbers, and Spark still reads them.
                    Start::String => {
                        let text = string(cursor, &mut context.scratch)?;
                        let free = context.times.dates_are_free();
                        context.times.date(text).or_else(|| {
                            parse_i64(text)
                                .filter(|_| free)
                                .and_then(|days| days.try_into().ok())
                        })
                    }
                    _ => skip(cursor, depth)?,
                };
                push(values, days)
            }
            Values::Decimal(values, precision, scale) => {
                let (precision, scale) = (*precision, *scale);
                let unscaled = match start {
                    Start::Number => {
                        let number = cursor.number()?;
                        let text = &cursor.text[number.start..number.end];
                        parse_decimal(text, precision, scale)
                    }
                    Start::String => {
                        let text = string(cursor, &mut context.scratch)?;
                        match memchr::memchr(b',', text) {
                            None => parse_decimal(text, precision, scale),
                            // Thousands may be grouped, wherever.
                            Some(_) => {
                                let ungrouped: Vec<u8> =
                                    text.iter().copied().filter(|byte| *byte != b',').collect();
                                parse_decimal(&ungrouped, precision, scale)
                            }
                        }
                    }
                    _ => skip(cursor, depth)?,
                };
                push(values, unscaled)
            }
            Values::Boolean(values) => match start {
                Start::True => {
                    cursor.literal("true")?;
                    values.append(true);
                    true
                }
                Start::False => {
                    cursor.literal("false")?;
                    values.append(false);
                    true
                }
                _ => skip::<bool>(cursor, depth)?.is_some(),
            },
            Values::Binary(bytes) => match start {
                Start::String => match BASE64.decode(string(cursor, &mut context.scratch)?) {
                    Ok(value) => {
                        bytes.bytes.extend_from_slice(&value);
                        bytes.end();
                        true
                    }
                    Err(_) => false,
                },
                _ => skip::<bool>(cursor, depth)?.is_some(),
            },
            Values::Struct(object) => match start {
                Start::Object => {
                    object.read(cursor, context, depth)?;
                    true
                }
                _ => skip::<bool>(cursor, depth)?.is_some(),
            },
            Values::List { offsets, item } => match start {
                Start::Array => read_list(cursor, context, depth, offsets, item)?,
                _ => skip::<bool>(cursor, depth)?.is_some(),
            },
            Values::Map {
                offsets,
                keys,
                values,
            } => match start {
                Start::Object => read_map(cursor, context, depth, offsets, keys, values)?,
                _ => skip::<bool>(cursor, depth)?.is_some(),
            },
            Values::Null => skip::<bool>(cursor, depth)?.is_some(),
        };
        if read {
            self.len += 1;
        } else {
            context.bad.get_or_insert(BadValue {
                start: from,
                end: cursor.pos,
                wanted: type_name(&self.data_type),
            });
        }
        Ok(read)
    }

    /// Reads the value at the cursor as the only item of a list.
    pub(super) fn read_alone(
        &mut self,
        cursor: &mut Cursor<'_>,
        context: &mut Context,
    ) -> Scan<bool> {
        let Values::List { offsets, item } = &mut self.values else {
            unreachable!("only asked of lists");
        };
        let read = item.read(cursor, context, 0)?;
        if read {
            offsets.push(item.len as i32);
            self.len += 1;
        }
        Ok(read)
    }

    /// The array, and the column is empty again.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let len = std::mem::take(&mut self.len);
        self.valid.append_n_non_nulls(len - self.valid.len());
        let nulls = self.valid.finish();
        Ok(match &mut self.values {
            Values::Null => Arc::new(NullArray::new(len)),
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Int8(values) => primitive::<Int8Type>(take(values), nulls),
            Values::Int16(values) => primitive::<Int16Type>(take(values), nulls),
            Values::Int32(values) => primitive::<Int32Type>(take(values), nulls),
            Values::Int64(values) => primitive::<Int64Type>(take(values), nulls),
            Values::Float32(values) => primitive::<Float32Type>(take(values), nulls),
            Values::Float64(values) => primitive::<Float64Type>(take(values), nulls),
            Values::Date(values) => primitive::<Date32Type>(take(values), nulls),
            Values::Timestamp(values) | Values::TimestampNtz(values) => Arc::new(
                PrimitiveArray::<TimestampMicrosecondType>::new(take(values).into(), nulls)
                    .with_data_type(self.data_type.clone()),
            ),
            Values::Decimal(values, ..) => Arc::new(
                PrimitiveArray::<Decimal128Type>::new(take(values).into(), nulls)
                    .with_data_type(self.data_type.clone()),
            ),
            Values::Utf8(bytes) => Arc::new(string_array(bytes, nulls)),
            Values::Binary(bytes) => {
                let (offsets, bytes) = bytes.take();
                Arc::new(BinaryArray::try_new(offsets, bytes, nulls)?)
            }
            Values::Struct(object) => {
                let DataType::Struct(fields) = &self.data_type else {
                    unreachable!("a struct column has a struct type");
                };
                let children = object.finish()?;
                Arc::new(match fields.is_empty() {
                    true => StructArray::new_empty_fields(len, nulls),
                    false => StructArray::try_new(fields.clone(), children, nulls)?,
                })
            }
            Values::List { offsets, item } => {
                let DataType::List(field) = &self.data_type else {
                    unreachable!("a list column has a list type");
                };
                let offsets = take_offsets(offsets);
                Arc::new(ListArray::try_new(
                    FieldRef::clone(field),
                    offsets,
                    item.finish()?,
                    nulls,
                )?)
            }
            Values::Map {
                offsets,
                keys,
                values,
            } => {
                let DataType::Map(entries, sorted) = &self.data_type else {
                    unreachable!("a map column has a map type");
                };
                let DataType::Struct(fields) = entries.data_type() else {
                    unreachable!("the entries of a map are a struct");
                };
                let offsets = take_offsets(offsets);
                let keys = Arc::new(string_array(keys, None));
                let entry =
                    StructArray::try_new(fields.clone(), vec![keys, values.finish()?], None)?;
                let entries: &Arc<Field> = entries;
                Arc::new(MapArray::try_new(
                    Arc::clone(entries),
                    offsets,
                    entry,
                    nulls,
                    *sorted,
                )?)
            }
        })
    }
}

fn primitive<T: ArrowPrimitiveType>(values: Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls))
}

fn take_offsets(offsets: &mut Vec<i32>) -> OffsetBuffer<i32> {
    let taken = take(offsets);
    offsets.push(0);
    OffsetBuffer::new(taken.into())
}

#[inline(always)]
fn push<T>(values: &mut Vec<T>, value: Option<T>) -> bool {
    match value {
        Some(value) => {
            values.push(value);
            true
        }
        None => false,
    }
}

/// Goes over a value of the wrong type.
#[cold]
fn skip<T>(cursor: &mut Cursor<'_>, depth: usize) -> Scan<Option<T>> {
    cursor.skip(depth)?;
    Ok(None)
}

/// Goes over a string and returns its content.
#[inline(always)]
fn string<'r, 'a: 'r>(cursor: &mut Cursor<'a>, scratch: &'r mut Vec<u8>) -> Scan<&'r [u8]> {
    let text = cursor.string()?;
    let raw = &cursor.text[text.start..text.end];
    if !text.escaped {
        return Ok(raw);
    }
    scratch.clear();
    unescape(raw, scratch);
    Ok(scratch)
}

#[inline(always)]
fn push_integer<T: TryFrom<i64>>(
    cursor: &mut Cursor<'_>,
    start: Start,
    depth: usize,
    values: &mut Vec<T>,
) -> Scan<bool> {
    if start != Start::Number {
        return Ok(skip::<T>(cursor, depth)?.is_some());
    }
    let number = cursor.number()?;
    let value = integer(cursor, number).and_then(|value| T::try_from(value).ok());
    Ok(push(values, value))
}

/// Jackson takes 128 to 255 for bytes too, and Java makes them negative.
fn push_byte(
    cursor: &mut Cursor<'_>,
    start: Start,
    depth: usize,
    values: &mut Vec<i8>,
) -> Scan<bool> {
    let mut wide: Vec<i16> = Vec::with_capacity(1);
    push_integer(cursor, start, depth, &mut wide)?;
    let byte = wide.pop().filter(|value| (-128..256).contains(value));
    Ok(push(values, byte.map(|value| value as i8)))
}

/// The value of a number that was written as an integer.
#[inline(always)]
fn integer(cursor: &Cursor<'_>, number: Number) -> Option<i64> {
    if !number.integer {
        None
    } else if number.digits <= 18 {
        let value = number.mantissa as i64;
        Some(if number.negative { -value } else { value })
    } else {
        parse_i64(&cursor.text[number.start..number.end])
    }
}

enum Float {
    Number(Number),
    Special(f64),
}

/// A number, `NaN`, or one of the strings that stand for what JSON cannot write.
#[inline(always)]
fn float(
    cursor: &mut Cursor<'_>,
    start: Start,
    context: &mut Context,
    depth: usize,
) -> Scan<Option<Float>> {
    Ok(match start {
        Start::Number => Some(Float::Number(cursor.number()?)),
        Start::NotFinite => Some(Float::Special(cursor.not_finite()?)),
        Start::String => match string(cursor, &mut context.scratch)? {
            _ if !context.not_finite => None,
            b"NaN" => Some(Float::Special(f64::NAN)),
            b"+INF" | b"+Infinity" | b"Infinity" => Some(Float::Special(f64::INFINITY)),
            b"-INF" | b"-Infinity" => Some(Float::Special(f64::NEG_INFINITY)),
            _ => None,
        },
        _ => skip(cursor, depth)?,
    })
}

fn ascii<'a>(cursor: &Cursor<'a>, number: Number) -> &'a str {
    std::str::from_utf8(&cursor.text[number.start..number.end]).expect("numbers are ASCII")
}

/// An integer has no negative zero: `-0` is 0, and `-0.0` is not.
#[inline(always)]
fn is_zero(number: Number) -> bool {
    number.integer && number.mantissa == 0 && number.digits == 0
}

const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Exact: a mantissa below 2^53 times or over a power of ten up to 10^22 rounds once (Clinger); the rest is parsed.
#[inline(always)]
fn number_to_f64(cursor: &Cursor<'_>, number: Number) -> f64 {
    let power = number.exponent.unsigned_abs() as usize;
    if number.digits > 19 || number.mantissa > 1 << 53 || power >= POWERS.len() {
        let text = ascii(cursor, number);
        return text.parse().expect("the scan checked the number");
    }
    let mantissa = number.mantissa as f64;
    let value = match number.exponent < 0 {
        true => mantissa / POWERS[power],
        false => mantissa * POWERS[power],
    };
    if number.negative && !is_zero(number) {
        -value
    } else {
        value
    }
}

/// Reads an array. An item of the wrong type spoils all of it.
fn read_list(
    cursor: &mut Cursor<'_>,
    context: &mut Context,
    depth: usize,
    offsets: &mut Vec<i32>,
    item: &mut Column,
) -> Scan<bool> {
    cursor.deeper(depth)?;
    let kept = item.len;
    cursor.pos += 1;
    cursor.blanks();
    let mut good = true;
    if !cursor.eat(b']') {
        loop {
            match good {
                true => good = item.read(cursor, context, depth + 1)?,
                false => cursor.skip(depth + 1)?,
            }
            if !cursor.more(b']')? {
                break;
            }
        }
    }
    match good {
        true => offsets.push(item.len as i32),
        false => item.truncate(kept),
    }
    Ok(good)
}

/// Reads an object as a map. A value of the wrong type spoils all of it.
fn read_map(
    cursor: &mut Cursor<'_>,
    context: &mut Context,
    depth: usize,
    offsets: &mut Vec<i32>,
    keys: &mut Bytes,
    values: &mut Column,
) -> Scan<bool> {
    cursor.deeper(depth)?;
    let kept = values.len;
    cursor.pos += 1;
    cursor.blanks();
    let mut good = true;
    if !cursor.eat(b'}') {
        loop {
            let name = cursor.key()?;
            if good {
                keys.push_text(cursor, name);
                good = values.read(cursor, context, depth + 1)?;
            } else {
                cursor.skip(depth + 1)?;
            }
            if !cursor.more(b'}')? {
                break;
            }
        }
    }
    match good {
        true => offsets.push(values.len as i32),
        false => {
            keys.truncate(kept);
            values.truncate(kept);
        }
    }
    Ok(good)
}

/// What users of the model call a type.
fn type_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INT",
        DataType::Int64 => "BIGINT",
        DataType::Float32 => "FLOAT",
        DataType::Float64 => "DOUBLE",
        DataType::Date32 => "DATE",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP",
        DataType::Timestamp(_, None) => "TIMESTAMP_NTZ",
        DataType::Decimal128(..) => "DECIMAL",
        DataType::Binary => "BINARY",
        DataType::Struct(_) => "STRUCT",
        DataType::List(_) => "ARRAY",
        DataType::Map(..) => "MAP",
        _ => "STRING",
    }
}
