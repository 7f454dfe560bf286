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

use super::{Cells, CsvOptions};
use crate::number::{parse_decimal, parse_f64, parse_i64};

/// A growing column.
pub struct Column(Builder);

enum Builder {
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
    pub fn new(data_type: &DataType) -> Option<Self> {
        let typed = data_type.clone();
        Some(Column(match data_type {
            DataType::Null => Builder::Null(NullBuilder::new()),
            DataType::Boolean => Builder::Boolean(BooleanBuilder::new()),
            DataType::Int8 => Builder::Int8(PrimitiveBuilder::new()),
            DataType::Int16 => Builder::Int16(PrimitiveBuilder::new()),
            DataType::Int32 => Builder::Int32(PrimitiveBuilder::new()),
            DataType::Int64 => Builder::Int64(PrimitiveBuilder::new()),
            DataType::Float32 => Builder::Float32(PrimitiveBuilder::new()),
            DataType::Float64 => Builder::Float64(PrimitiveBuilder::new()),
            DataType::Date32 => Builder::Date(PrimitiveBuilder::new()),
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => {
                Builder::Timestamp(PrimitiveBuilder::new().with_data_type(typed))
            }
            DataType::Timestamp(TimeUnit::Microsecond, None) => {
                Builder::TimestampNtz(PrimitiveBuilder::new().with_data_type(typed))
            }
            DataType::Decimal128(precision, scale) => Builder::Decimal(
                PrimitiveBuilder::new().with_data_type(typed),
                *precision,
                *scale,
            ),
            DataType::Utf8 => Builder::Utf8(StringBuilder::new()),
            DataType::Binary => Builder::Binary(BinaryBuilder::new()),
            _ => return None,
        }))
    }

    /// Appends a null.
    pub fn append_null(&mut self) {
        match &mut self.0 {
            Builder::Null(builder) => builder.append_null(),
            Builder::Boolean(builder) => builder.append_null(),
            Builder::Int8(builder) => builder.append_null(),
            Builder::Int16(builder) => builder.append_null(),
            Builder::Int32(builder) => builder.append_null(),
            Builder::Int64(builder) => builder.append_null(),
            Builder::Float32(builder) => builder.append_null(),
            Builder::Float64(builder) => builder.append_null(),
            Builder::Date(builder) => builder.append_null(),
            Builder::Timestamp(builder) | Builder::TimestampNtz(builder) => builder.append_null(),
            Builder::Decimal(builder, ..) => builder.append_null(),
            Builder::Utf8(builder) => builder.append_null(),
            Builder::Binary(builder) => builder.append_null(),
        }
    }

    /// Appends a cell; false, and a null, if it cannot be read.
    pub fn append(&mut self, cell: &str, options: &CsvOptions) -> bool {
        let text = cell.as_bytes();
        match &mut self.0 {
            Builder::Utf8(builder) => {
                builder.append_value(cell);
                true
            }
            Builder::Binary(builder) => {
                builder.append_value(cell);
                true
            }
            Builder::Int64(builder) => append!(builder, parse_i64(text)),
            Builder::Int32(builder) => append!(builder, integer(text)),
            Builder::Int16(builder) => append!(builder, integer(text)),
            Builder::Int8(builder) => append!(builder, integer(text)),
            Builder::Float64(builder) => append!(builder, float(cell, options)),
            // Read as a float, not as a double that is rounded a second time.
            Builder::Float32(builder) => append!(
                builder,
                float(cell, options).map(|wide| cell.trim().parse().unwrap_or(wide as f32))
            ),
            Builder::Timestamp(builder) => append!(builder, options.times.timestamp(text)),
            Builder::TimestampNtz(builder) => append!(builder, options.times.timestamp_ntz(text)),
            Builder::Date(builder) => append!(builder, options.times.date(text)),
            Builder::Decimal(builder, precision, scale) => {
                append!(builder, decimal(text, *precision, *scale))
            }
            Builder::Boolean(builder) => append!(
                builder,
                match cell {
                    _ if cell.eq_ignore_ascii_case("true") => Some(true),
                    _ if cell.eq_ignore_ascii_case("false") => Some(false),
                    _ => None,
                }
            ),
            Builder::Null(builder) => {
                builder.append_null();
                false
            }
        }
    }

    /// The array, and the column is empty again.
    pub fn finish(&mut self) -> ArrayRef {
        match &mut self.0 {
            Builder::Null(builder) => Arc::new(builder.finish()) as Arc<dyn Array>,
            Builder::Boolean(builder) => ArrayBuilder::finish(builder),
            Builder::Int8(builder) => ArrayBuilder::finish(builder),
            Builder::Int16(builder) => ArrayBuilder::finish(builder),
            Builder::Int32(builder) => ArrayBuilder::finish(builder),
            Builder::Int64(builder) => ArrayBuilder::finish(builder),
            Builder::Float32(builder) => ArrayBuilder::finish(builder),
            Builder::Float64(builder) => ArrayBuilder::finish(builder),
            Builder::Date(builder) => ArrayBuilder::finish(builder),
            Builder::Timestamp(builder) | Builder::TimestampNtz(builder) => {
                ArrayBuilder::finish(builder)
            }
            Builder::Decimal(builder, ..) => ArrayBuilder::finish(builder),
            Builder::Utf8(builder) => ArrayBuilder::finish(builder),
            Builder::Binary(builder) => ArrayBuilder::finish(builder),
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

/// Appends the `found` first cells of `line` to their columns, and nulls to the others. Answers what is wrong with the
/// first one that cannot be read.
pub fn append_cells(
    columns: &mut [Option<Column>],
    cells: &Cells,
    line: &[u8],
    found: usize,
    options: &CsvOptions,
) -> Option<BadCell> {
    let mut bad = None;
    for (at, column) in columns.iter_mut().enumerate() {
        let Some(column) = column else { continue };
        if at >= found {
            column.append_null();
            continue;
        }
        let (cell, quoted) = cells.get(line, at);
        // Separators, quotes and escapes are ASCII, so cells are cut between characters.
        let cell = std::str::from_utf8(cell).expect("the line is UTF-8");
        let cell = match (cell.is_empty(), quoted) {
            (true, false) => None,
            (true, true) => Some(options.empty_value.as_str()),
            _ => Some(cell),
        };
        match cell.filter(|cell| *cell != options.null_value) {
            None => column.append_null(),
            Some(cell) => {
                if !column.append(cell, options) && bad.is_none() {
                    bad = Some(BadCell {
                        cell: cell.into(),
                        column: at,
                    });
                }
            }
        }
    }
    bad
}

/// A cell that has not the type of its column.
pub struct BadCell {
    /// What is in it.
    pub cell: String,
    /// Which column it is in.
    pub column: usize,
}
