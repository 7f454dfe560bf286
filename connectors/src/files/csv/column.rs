//! One column of cells under construction.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder, ArrayRef, BinaryBuilder, BooleanBuilder, NullBuilder, PrimitiveBuilder,
    StringBuilder,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimeUnit, TimestampMicrosecondType,
};

use super::CsvOptions;
use crate::number::{parse_decimal, parse_f64, parse_i64};

/// A growing column.
pub(in crate::files) enum Column {
    Null(NullBuilder),
    Boolean(BooleanBuilder),
    Int8(PrimitiveBuilder<Int8Type>),
    Int16(PrimitiveBuilder<Int16Type>),
    Int32(PrimitiveBuilder<Int32Type>),
    Int64(PrimitiveBuilder<Int64Type>),
    Float32(PrimitiveBuilder<Float32Type>),
    Float64(PrimitiveBuilder<Float64Type>),
    Date(PrimitiveBuilder<Date32Type>),
    Timestamp(PrimitiveBuilder<TimestampMicrosecondType>),
    TimestampNtz(PrimitiveBuilder<TimestampMicrosecondType>),
    Decimal(PrimitiveBuilder<Decimal128Type>, u8, i8),
    Utf8(StringBuilder),
    Binary(BinaryBuilder),
}

/// Appends a value or a null; false for `None`, which is a cell that cannot be read.
macro_rules! append {
    ($builder:expr, $value:expr) => {{
        let value = $value;
        $builder.append_option(value);
        value.is_some()
    }};
}

impl Column {
    /// A column of `data_type`, if cells can hold it.
    pub(in crate::files) fn new(data_type: &DataType) -> Option<Self> {
        let typed = data_type.clone();
        Some(match data_type {
            DataType::Null => Column::Null(NullBuilder::new()),
            DataType::Boolean => Column::Boolean(BooleanBuilder::new()),
            DataType::Int8 => Column::Int8(PrimitiveBuilder::new()),
            DataType::Int16 => Column::Int16(PrimitiveBuilder::new()),
            DataType::Int32 => Column::Int32(PrimitiveBuilder::new()),
            DataType::Int64 => Column::Int64(PrimitiveBuilder::new()),
            DataType::Float32 => Column::Float32(PrimitiveBuilder::new()),
            DataType::Float64 => Column::Float64(PrimitiveBuilder::new()),
            DataType::Date32 => Column::Date(PrimitiveBuilder::new()),
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => {
                Column::Timestamp(PrimitiveBuilder::new().with_data_type(typed))
            }
            DataType::Timestamp(TimeUnit::Microsecond, None) => {
                Column::TimestampNtz(PrimitiveBuilder::new().with_data_type(typed))
            }
            DataType::Decimal128(precision, scale) => Column::Decimal(
                PrimitiveBuilder::new().with_data_type(typed),
                *precision,
                *scale,
            ),
            DataType::Utf8 => Column::Utf8(StringBuilder::new()),
            DataType::Binary => Column::Binary(BinaryBuilder::new()),
            _ => return None,
        })
    }

    pub(in crate::files) fn append_null(&mut self) {
        match self {
            Column::Null(builder) => builder.append_null(),
            Column::Boolean(builder) => builder.append_null(),
            Column::Int8(builder) => builder.append_null(),
            Column::Int16(builder) => builder.append_null(),
            Column::Int32(builder) => builder.append_null(),
            Column::Int64(builder) => builder.append_null(),
            Column::Float32(builder) => builder.append_null(),
            Column::Float64(builder) => builder.append_null(),
            Column::Date(builder) => builder.append_null(),
            Column::Timestamp(builder) | Column::TimestampNtz(builder) => builder.append_null(),
            Column::Decimal(builder, ..) => builder.append_null(),
            Column::Utf8(builder) => builder.append_null(),
            Column::Binary(builder) => builder.append_null(),
        }
    }

    /// Appends a cell; false, and a null, if it cannot be read.
    pub(in crate::files) fn append(&mut self, cell: &str, options: &CsvOptions) -> bool {
        let text = cell.as_bytes();
        match self {
            Column::Utf8(builder) => {
                builder.append_value(cell);
                true
            }
            Column::Binary(builder) => {
                builder.append_value(cell);
                true
            }
            Column::Int64(builder) => append!(builder, parse_i64(text)),
            Column::Int32(builder) => append!(builder, integer(text)),
            Column::Int16(builder) => append!(builder, integer(text)),
            Column::Int8(builder) => append!(builder, integer(text)),
            Column::Float64(builder) => append!(builder, float(cell, options)),
            // Read as a float, not as a double that is rounded a second time.
            Column::Float32(builder) => append!(
                builder,
                float(cell, options).map(|wide| cell.trim().parse().unwrap_or(wide as f32))
            ),
            Column::Timestamp(builder) => append!(builder, options.times.timestamp(text)),
            Column::TimestampNtz(builder) => append!(builder, options.times.timestamp_ntz(text)),
            Column::Date(builder) => append!(builder, options.times.date(text)),
            Column::Decimal(builder, precision, scale) => {
                append!(builder, decimal(text, *precision, *scale))
            }
            Column::Boolean(builder) => append!(
                builder,
                match cell {
                    _ if cell.eq_ignore_ascii_case("true") => Some(true),
                    _ if cell.eq_ignore_ascii_case("false") => Some(false),
                    _ => None,
                }
            ),
            Column::Null(builder) => {
                builder.append_null();
                false
            }
        }
    }

    pub(in crate::files) fn finish(&mut self) -> ArrayRef {
        match self {
            Column::Null(builder) => Arc::new(builder.finish()) as Arc<dyn Array>,
            Column::Boolean(builder) => ArrayBuilder::finish(builder),
            Column::Int8(builder) => ArrayBuilder::finish(builder),
            Column::Int16(builder) => ArrayBuilder::finish(builder),
            Column::Int32(builder) => ArrayBuilder::finish(builder),
            Column::Int64(builder) => ArrayBuilder::finish(builder),
            Column::Float32(builder) => ArrayBuilder::finish(builder),
            Column::Float64(builder) => ArrayBuilder::finish(builder),
            Column::Date(builder) => ArrayBuilder::finish(builder),
            Column::Timestamp(builder) | Column::TimestampNtz(builder) => {
                ArrayBuilder::finish(builder)
            }
            Column::Decimal(builder, ..) => ArrayBuilder::finish(builder),
            Column::Utf8(builder) => ArrayBuilder::finish(builder),
            Column::Binary(builder) => ArrayBuilder::finish(builder),
        }
    }
}

fn integer<T: TryFrom<i64>>(text: &[u8]) -> Option<T> {
    parse_i64(text).and_then(|value| value.try_into().ok())
}

/// Commas group thousands, wherever they stand.
fn decimal(text: &[u8], precision: u8, scale: i8) -> Option<i128> {
    match memchr::memchr(b',', text) {
        None => parse_decimal(text, precision, scale),
        Some(_) => {
            let digits: Vec<u8> = text.iter().copied().filter(|byte| *byte != b',').collect();
            parse_decimal(&digits, precision, scale)
        }
    }
}

pub(super) fn float(cell: &str, options: &CsvOptions) -> Option<f64> {
    match cell {
        _ if cell == options.nan_value => Some(f64::NAN),
        _ if cell == options.positive_inf => Some(f64::INFINITY),
        _ if cell == options.negative_inf => Some(f64::NEG_INFINITY),
        _ => parse_f64(cell),
    }
}
