//! Values written by a pattern: `format_string`, `format_number`, `to_char` and the way back, `to_number`.

pub(super) mod decimal_pattern;
pub(super) mod java;
mod number;
mod template;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimestampMicrosecondType,
};
use datafusion::common::ScalarValue;

use self::decimal_pattern::{DecimalPattern, Number};
use self::java::{Format, Value};
use super::kernel::{Can, Kernel, Result as Run, Typed};
use super::{Args, text};
use crate::coerce::{self, is_numeric};
use crate::error::{QueryError, RunError};
use crate::types::type_sql;

type Result<T> = std::result::Result<T, QueryError>;

/// What patterns of a batch mean, each read once.
pub(super) struct Read<T> {
    read: HashMap<String, Arc<T>>,
    last: Option<(String, Arc<T>)>,
}

impl<T> Read<T> {
    pub(super) fn new() -> Self {
        Read {
            read: HashMap::new(),
            last: None,
        }
    }

    pub(super) fn get(&mut self, pattern: &str, read: impl Fn(&str) -> Run<T>) -> Run<Arc<T>> {
        if let Some((known, found)) = &self.last
            && known == pattern
        {
            return Ok(Arc::clone(found));
        }
        let found = match self.read.get(pattern) {
            Some(found) => Arc::clone(found),
            None => {
                let found = Arc::new(read(pattern)?);
                self.read.insert(pattern.to_string(), Arc::clone(&found));
                found
            }
        };
        self.last = Some((pattern.to_string(), Arc::clone(&found)));
        Ok(found)
    }
}

/// `format_string(pattern, values...)`: what Java's Formatter makes of Spark's own values.
fn format_string(name: &str, args: &Args) -> Result<Typed> {
    let mut values = args.at_least(1)?;
    values[0] = coerce::argument(name, 0, values[0].clone(), &DataType::Utf8)?;
    if values[0].constant_text().is_some_and(|p| p.contains("%0$")) {
        let message = format!(
            "The value of parameter(s) `strfmt` in `{name}` is invalid: expects `%1$`, `%2$` and so on, but got `%0$`."
        );
        return Err(QueryError::new(
            "INVALID_PARAMETER_VALUE.ZERO_INDEX",
            message,
        ));
    }
    if let Some(Ok(format)) = values[0].constant_text().map(Format::read)
        && let Some(conversion) = format.unsupported()
    {
        return Err(QueryError::unsupported(format!(
            "{name} with %{conversion}"
        )));
    }
    for value in &values[1..] {
        let known = matches!(
            value.data_type,
            DataType::Utf8
                | DataType::Null
                | DataType::Boolean
                | DataType::Date32
                | DataType::Timestamp(..)
        );
        if !known && !is_numeric(&value.data_type) {
            return Err(QueryError::unsupported(format!(
                "{name} of {}",
                type_sql(&value.data_type)
            )));
        }
    }
    Ok(Kernel::over_arrays(
        "format_string",
        "",
        values,
        DataType::Utf8,
        Can::Fail,
        |args, rows| {
            let patterns = args[0].as_string::<i32>();
            let (mut formats, mut out) = (Read::new(), StringBuilder::new());
            let mut values = Vec::with_capacity(args.len() - 1);
            for row in 0..rows {
                if patterns.is_null(row) {
                    out.append_null();
                    continue;
                }
                values.clear();
                values.extend(args[1..].iter().map(|a| value_of(a, row)));
                let format = formats.get(patterns.value(row), Format::read)?;
                out.append_value(format.write(&values)?);
            }
            Ok(Arc::new(out.finish()))
        },
    ))
}

fn value_of(array: &ArrayRef, row: usize) -> Value<'_> {
    macro_rules! value {
        ($t:ty) => {
            array.as_primitive::<$t>().value(row)
        };
    }
    if array.is_null(row) || *array.data_type() == DataType::Null {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => Value::Boolean(array.as_boolean().value(row)),
        DataType::Int8 => Value::Integer(value!(Int8Type).into(), 8),
        DataType::Int16 => Value::Integer(value!(Int16Type).into(), 16),
        DataType::Int32 => Value::Integer(value!(Int32Type).into(), 32),
        // Times are the numbers that Spark keeps of them.
        DataType::Date32 => Value::Integer(value!(Date32Type).into(), 32),
        DataType::Timestamp(..) => Value::Integer(value!(TimestampMicrosecondType), 64),
        DataType::Int64 => Value::Integer(value!(Int64Type), 64),
        DataType::Float32 => {
            let value = value!(Float32Type);
            Value::Float(value.into(), text::float(value))
        }
        DataType::Float64 => {
            let value = value!(Float64Type);
            Value::Float(value, text::double(value))
        }
        DataType::Decimal128(_, scale) => {
            Value::Decimal(big_decimal(value!(Decimal128Type), *scale))
        }
        _ => Value::Text(array.as_string::<i32>().value(row)),
    }
}

/// As Java's BigDecimal writes itself: with an exponent if it is small.
fn big_decimal(unscaled: i128, scale: i8) -> String {
    let digits = unscaled.unsigned_abs().to_string();
    let exponent = digits.len() as i32 - 1 - i32::from(scale);
    if scale == 0 || exponent >= -6 {
        return text::decimal(unscaled, scale);
    }
    let sign = if unscaled < 0 { "-" } else { "" };
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    format!("{sign}{first}{point}{rest}E{exponent}")
}

/// `format_number(number, digits)` and `format_number(number, pattern)`.
fn format_number(name: &str, args: &Args) -> Result<Typed> {
    let [number, form] = args.exactly()?;
    if number.data_type == DataType::Utf8 {
        return Err(coerce::unexpected(name, 0, &number, "NUMERIC"));
    }
    let number = super::arithmetic::number(name, number)?;
    if let Some(pattern) = form.constant_text() {
        DecimalPattern::supported(pattern)?;
    }
    let form = match &form.data_type {
        DataType::Utf8 => form,
        DataType::Null => Typed::null(&DataType::Int32),
        _ => coerce::argument(name, 1, form, &DataType::Int32)
            .map_err(|_| coerce::unexpected(name, 1, &args.values[1], "INT\" or \"STRING"))?,
    };
    Ok(Kernel::over_arrays(
        "format_number",
        "",
        vec![number, form],
        DataType::Utf8,
        Can::Fail,
        |args, rows| {
            let mut out = StringBuilder::new();
            let mut patterns = Read::new();
            for row in 0..rows {
                if args.iter().any(|a| a.is_null(row)) {
                    out.append_null();
                    continue;
                }
                let number = match value_of(&args[0], row) {
                    Value::Integer(value, _) => Number::Decimal(value.into(), 0),
                    Value::Float(value, _) => Number::Double(value),
                    _ => {
                        let unscaled = args[0].as_primitive::<Decimal128Type>().value(row);
                        let scale = match args[0].data_type() {
                            DataType::Decimal128(_, scale) => *scale,
                            _ => 0,
                        };
                        Number::Decimal(unscaled, scale as usize)
                    }
                };
                if let Some(texts) = args[1].as_string_opt::<i32>() {
                    let pattern = match texts.value(row) {
                        "" => "#,###,###,###,###,###,##0",
                        pattern => pattern,
                    };
                    let pattern = patterns.get(pattern, DecimalPattern::read)?;
                    out.append_value(pattern.write(&number));
                    continue;
                }
                let digits = args[1].as_primitive::<Int32Type>().value(row);
                match usize::try_from(digits) {
                    Ok(digits) => {
                        let pattern = DecimalPattern::grouped(digits);
                        out.append_value(pattern.write(&number));
                    }
                    Err(_) => out.append_null(),
                }
            }
            Ok(Arc::new(out.finish()))
        },
    ))
}

/// The functions of this family.
pub(super) fn build(name: &str, args: &Args) -> Result<Option<Typed>> {
    Ok(Some(match name {
        "format_string" | "printf" => format_string(name, args)?,
        "format_number" => format_number(name, args)?,
        "to_number" => number::to_number(name, args, false)?,
        "try_to_number" => number::to_number(name, args, true)?,
        "to_char" | "to_varchar" => number::to_char(name, args)?,
        _ => return Ok(None),
    }))
}

/// The pattern, which must be a constant text.
fn constant<'v>(name: &str, nth: usize, value: &'v Typed) -> Result<Option<&'v str>> {
    match value.constant() {
        Some(ScalarValue::Utf8(text)) => Ok(text.as_deref()),
        Some(ScalarValue::Null) => Ok(None),
        _ if !coerce::accepts(&value.data_type, &DataType::Utf8) => {
            Err(coerce::unexpected(name, nth, value, "STRING"))
        }
        _ => {
            let message = format!(
                "Cannot resolve \"{name}\" due to data type mismatch: the input `format` should be a foldable \"STRING\" expression."
            );
            Err(QueryError::mismatch("NON_FOLDABLE_INPUT", message))
        }
    }
}

fn illegal(class: &'static str, what: impl Into<String>) -> datafusion::common::DataFusionError {
    RunError::raise(class, what)
}
