//! `to_number` and `to_char`.

use std::sync::Arc;

use arrow::array::{Array, AsArray, PrimitiveArray, StringArray};
use arrow::datatypes::{DataType, Decimal128Type};

use super::template::Template;
use super::{Result, constant};
use crate::coerce;
use crate::error::{QueryError, RunError};
use crate::functions::kernel::{Can, Kernel, Result as Run, Typed};
use crate::functions::{Args, cast, scalar, unknown};

/// The number that a text is by a pattern; for `try_to_number` NULL if it is none.
pub(super) fn to_number(name: &str, args: &Args, attempt: bool) -> Result<Typed> {
    let [text, pattern] = args.exactly()?;
    let text = coerce::argument(name, 0, text, &DataType::Utf8)?;
    let Some(pattern) = constant(name, 1, &pattern)? else {
        return Ok(Typed::null(&DataType::Decimal128(10, 0)));
    };
    let template = Template::read(pattern)?;
    let (precision, scale) = template.precision();
    if precision > 38 {
        let message = format!("Decimal precision {precision} exceeds max precision 38.");
        return Err(QueryError::new(
            "DECIMAL_PRECISION_EXCEEDS_MAX_PRECISION",
            message,
        ));
    }
    let returns = DataType::Decimal128(precision as u8, scale as i8);
    let (target, pattern) = (returns.clone(), pattern.to_string());
    Ok(Kernel::over_arrays(
        name,
        pattern.clone(),
        vec![text],
        returns,
        if attempt { Can::NotFail } else { Can::Fail },
        move |args, _| {
            let texts = args[0].as_string::<i32>().iter();
            let numbers = texts.map(|text| match text.map(|text| (text, template.parse(text))) {
                None => Ok(None),
                Some((text, None)) if !attempt => {
                    let message = format!(
                        "The format is invalid: {pattern}. The input \"STRING\" {text} does not match the format."
                    );
                    Err(RunError::raise("INVALID_FORMAT.MISMATCH_INPUT", message))
                }
                Some((_, number)) => Ok(number),
            });
            let numbers = numbers.collect::<Run<PrimitiveArray<Decimal128Type>>>()?;
            Ok(Arc::new(numbers.with_data_type(target.clone())))
        },
    ))
}

/// A number, a time or bytes as text by a pattern.
pub(super) fn to_char(name: &str, args: &Args) -> Result<Typed> {
    let [value, pattern] = args.exactly()?;
    let other = |name: &str, values: Vec<Typed>| {
        scalar(name, values, args.conf)?.ok_or_else(|| unknown(name))
    };
    match &value.data_type {
        t if coerce::is_time(t) => return other("date_format", vec![value, pattern]),
        DataType::Binary => {
            let Some(form) = constant(name, 1, &pattern)? else {
                let message =
                    format!("The function `{name}` requires a `format` that is not NULL.");
                return Err(QueryError::new("INVALID_PARAMETER_VALUE.NULL", message));
            };
            return match form.to_lowercase().trim() {
                "base64" => other("base64", vec![value]),
                "hex" => other("hex", vec![value]),
                "utf-8" => other("decode", vec![value, pattern]),
                form => {
                    let message = format!(
                        "The value of parameter(s) `format` in `{name}` is invalid: expects one of binary formats 'base64', 'hex', 'utf-8', but got '{form}'."
                    );
                    Err(QueryError::new(
                        "INVALID_PARAMETER_VALUE.BINARY_FORMAT",
                        message,
                    ))
                }
            };
        }
        _ => {}
    }
    let value = match &value.data_type {
        DataType::Decimal128(..) => value,
        DataType::Float32 => cast::implicit(value, &DataType::Decimal128(14, 7))?,
        DataType::Float64 => cast::implicit(value, &DataType::Decimal128(30, 15))?,
        DataType::Null | DataType::Utf8 => cast::implicit(value, &DataType::Decimal128(38, 18))?,
        t => match coerce::decimal_for(t) {
            Some((precision, scale)) => {
                cast::implicit(value, &DataType::Decimal128(precision, scale))?
            }
            None => return Err(coerce::unexpected(name, 0, &value, "DECIMAL")),
        },
    };
    let Some(pattern) = constant(name, 1, &pattern)? else {
        return Ok(Typed::null(&DataType::Utf8));
    };
    let template = Template::read(pattern)?;
    Ok(Kernel::over_arrays(
        "to_char",
        pattern,
        vec![value],
        DataType::Utf8,
        Can::NotFail,
        move |args, _| {
            let scale = match args[0].data_type() {
                DataType::Decimal128(_, scale) => *scale,
                _ => 0,
            };
            let numbers = args[0].as_primitive::<Decimal128Type>();
            let texts = numbers.iter().map(|n| n.map(|n| template.write(n, scale)));
            Ok(Arc::new(texts.collect::<StringArray>()))
        },
    ))
}
