//! Mathematics: doubles, rounding, bases.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, PrimitiveArray, StringArray};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int32Type, Int64Type};
use datafusion::common::{DataFusionError, ScalarValue};

use super::cast::parse;
use super::kernel::{Can, Kernel, Result as Run, Typed};
use super::{Args, arithmetic, cast, conditional, text};
use crate::coerce::{self, is_decimal, is_float, is_integral};
use crate::error::{QueryError, RunError};
use crate::expr::BinaryOp;

type Result<T> = std::result::Result<T, QueryError>;

/// A function of a double; NULL where it says so.
fn of_double(
    name: &str,
    value: Typed,
    f: impl Fn(f64) -> Option<f64> + Send + Sync + 'static,
) -> Result<Typed> {
    let value = coerce::argument(name, 0, value, &DataType::Float64)?;
    Ok(Kernel::over_arrays(
        name,
        "",
        vec![value],
        DataType::Float64,
        Can::NotFail,
        move |args, _| {
            let result: PrimitiveArray<Float64Type> =
                args[0].as_primitive::<Float64Type>().unary_opt(&f);
            Ok(Arc::new(result))
        },
    ))
}

fn of_doubles(
    name: &str,
    left: Typed,
    right: Typed,
    f: impl Fn(f64, f64) -> Option<f64> + Send + Sync + 'static,
) -> Result<Typed> {
    let args = vec![
        coerce::argument(name, 0, left, &DataType::Float64)?,
        coerce::argument(name, 1, right, &DataType::Float64)?,
    ];
    Ok(Kernel::over_arrays(
        name,
        "",
        args,
        DataType::Float64,
        Can::NotFail,
        move |args, _| {
            let (l, r) = (
                args[0].as_primitive::<Float64Type>(),
                args[1].as_primitive::<Float64Type>(),
            );
            let result = l.iter().zip(r).map(|(l, r)| f(l?, r?));
            Ok(Arc::new(result.collect::<PrimitiveArray<Float64Type>>()))
        },
    ))
}

/// Java's `Math.pow`, which differs from C's where NaN or infinite exponents meet one.
fn power(base: f64, exponent: f64) -> f64 {
    if exponent.is_nan() || base.abs() == 1.0 && exponent.is_infinite() {
        return f64::NAN;
    }
    base.powf(exponent)
}

/// How a number loses digits.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    HalfUp,
    HalfEven,
    Floor,
    Ceiling,
}

/// The quotient, a whole number.
fn divided(value: i128, unit: i128, mode: Mode) -> i128 {
    let (quotient, rest) = (value.div_euclid(unit), value.rem_euclid(unit));
    // The other part of the unit, as twice the rest might not fit.
    let other = unit - rest;
    let up = match mode {
        Mode::Floor => false,
        Mode::Ceiling => rest > 0,
        Mode::HalfUp if value < 0 => rest > other,
        Mode::HalfUp => rest >= other,
        Mode::HalfEven => rest > other || rest == other && quotient % 2 != 0,
    };
    quotient + i128::from(up)
}

fn round(name: &'static str, args: &Args, mode: Mode) -> Result<Typed> {
    let mut values = args.at_least(1)?.into_iter();
    let (Some(value), digits, None) = (values.next(), values.next(), values.next()) else {
        return Err(args.wrong_number("[1, 2]"));
    };
    let one = digits.is_none();
    let digits = match digits
        .map(|d| cast::implicit(d, &DataType::Int32))
        .transpose()?
        .as_ref()
        .map(Typed::constant)
    {
        None => 0,
        Some(Some(ScalarValue::Int32(Some(digits)))) => *digits,
        Some(_) => {
            return Err(QueryError::mismatch(
                "NON_FOLDABLE_INPUT",
                format!("the scale of {name} must be a constant"),
            ));
        }
    };
    let value = arithmetic::number(name, value)?;
    let to_floor = matches!(mode, Mode::Floor | Mode::Ceiling);
    match value.data_type.clone() {
        DataType::Decimal128(p, s) => Ok(round_decimal(name, value, (p, s), digits, mode)),
        t if is_integral(&t) && to_floor && one => cast::implicit(value, &DataType::Int64),
        t if is_integral(&t) && !to_floor && digits >= 0 => Ok(value),
        t if is_float(&t) && to_floor && one => Ok(whole(
            name,
            cast::implicit(value, &DataType::Float64)?,
            mode,
        )),
        t if is_float(&t) && !to_floor && (-15..=15).contains(&digits) => {
            let rounded = of_double(name, value, move |v| {
                Some(round_double(v, digits as i8, mode))
            })?;
            if t == DataType::Float32 {
                return Err(QueryError::unsupported(format!("{name} of a float")));
            }
            Ok(tagged(rounded, name, digits))
        }
        _ => Err(QueryError::unsupported(format!(
            "{name} with these arguments"
        ))),
    }
}

/// The same kernel under a name that says its digits: kernels are told apart by name and parameters.
fn tagged(value: Typed, name: &str, digits: i32) -> Typed {
    let datafusion::logical_expr::Expr::ScalarFunction(function) = &value.expr else {
        return value;
    };
    let (args, udf) = (function.args.clone(), Arc::clone(&function.func));
    let args = args
        .into_iter()
        .map(|expr| Typed::new(expr, DataType::Float64))
        .collect();
    let digits = digits.to_string();
    Kernel::call(
        name,
        digits,
        args,
        DataType::Float64,
        Can::NotFail,
        move |args, rows| {
            let field = Arc::new(arrow::datatypes::Field::new(
                "value",
                DataType::Float64,
                true,
            ));
            udf.invoke_with_args(datafusion::logical_expr::ScalarFunctionArgs {
                args: args.to_vec(),
                arg_fields: vec![Arc::clone(&field)],
                number_rows: rows,
                return_field: field,
                config_options: Arc::default(),
            })
        },
    )
}

/// A double rounded as the decimal that it is written as.
fn round_double(value: f64, digits: i8, mode: Mode) -> f64 {
    if !value.is_finite() {
        return value;
    }
    let written = text::double(value);
    match mode {
        Mode::HalfUp => match parse::decimal(&written, 38, digits) {
            parse::Decimal::Is(unscaled) => format!("{unscaled}e{}", -i32::from(digits))
                .parse()
                .unwrap_or(value),
            _ => value,
        },
        // With twenty more digits the value is exact enough to see a tie.
        _ => match parse::decimal(&written, 38, digits + 17) {
            parse::Decimal::Is(unscaled) => {
                let rounded = divided(unscaled, 10i128.pow(17), mode);
                format!("{rounded}e{}", -i32::from(digits))
                    .parse()
                    .unwrap_or(value)
            }
            _ => value,
        },
    }
}

/// `floor` and `ceil` of a double are BIGINT.
fn whole(name: &'static str, value: Typed, mode: Mode) -> Typed {
    Kernel::over_arrays(
        name,
        "",
        vec![value],
        DataType::Int64,
        Can::Fail,
        move |args, _| {
            let values = args[0].as_primitive::<Float64Type>();
            let whole = values.try_unary::<_, Int64Type, DataFusionError>(|v| {
                let v = if mode == Mode::Floor {
                    v.floor()
                } else {
                    v.ceil()
                };
                if v < i64::MIN as f64 || v > i64::MAX as f64 {
                    return Err(RunError::raise("ARITHMETIC_OVERFLOW", "long overflow"));
                }
                Ok(v as i64) // NaN is 0, as in Java
            })?;
            Ok(Arc::new(whole))
        },
    )
}

fn round_decimal(
    name: &'static str,
    value: Typed,
    (p, s): (u8, i8),
    digits: i32,
    mode: Mode,
) -> Typed {
    let whole = i32::from(p) - i32::from(s) + 1;
    let (precision, scale) = match digits {
        d if d < 0 => (whole.max(1 - d), 0),
        d => (whole + d.min(i32::from(s)), d.min(i32::from(s))),
    };
    let returns = DataType::Decimal128(precision.min(38) as u8, scale as i8);
    let target = returns.clone();
    let dropped = (i32::from(s) - digits).max(0);
    Kernel::over_arrays(
        name,
        digits.to_string(),
        vec![value],
        returns,
        Can::Fail,
        move |args, _| {
            let limit = 10i128.pow(precision.min(38) as u32);
            let values = args[0].as_primitive::<Decimal128Type>();
            let rounded = values.try_unary::<_, Decimal128Type, DataFusionError>(|v| {
                let Some(unit) = u32::try_from(dropped)
                    .ok()
                    .and_then(|n| 10i128.checked_pow(n))
                else {
                    return Ok(0);
                };
                let back = if digits < 0 {
                    10i128.checked_pow(digits.unsigned_abs())
                } else {
                    Some(1)
                };
                let rounded = back.and_then(|back| divided(v, unit, mode).checked_mul(back));
                rounded.filter(|v| v.abs() < limit).ok_or_else(|| {
                    RunError::raise(
                        "NUMERIC_VALUE_OUT_OF_RANGE.WITH_SUGGESTION",
                        "the rounded decimal is out of range",
                    )
                })
            })?;
            Ok(Arc::new(rounded.with_data_type(target.clone())))
        },
    )
}

/// `pmod(a, b)`: the remainder that has the sign of `b`.
fn positive_remainder(left: Typed, right: Typed) -> Result<Typed> {
    if is_decimal(&left.data_type) || is_decimal(&right.data_type) {
        return Err(QueryError::unsupported("pmod of decimals"));
    }
    let (values, data_type) = coerce::same_type("pmod", vec![left, right])?;
    let [left, right] =
        <[Typed; 2]>::try_from(values).map_err(|_| QueryError::unsupported("pmod"))?;
    if is_integral(&data_type) {
        // ((a % b) + b) % b, in 128 bits so that the sum cannot overflow.
        let wide = |v: Typed| cast::implicit(v, &DataType::Int64);
        let args = vec![wide(left)?, wide(right)?];
        let found = Kernel::over_arrays("pmod", "", args, DataType::Int64, Can::Fail, |args, _| {
            let (l, r) = (
                args[0].as_primitive::<Int64Type>(),
                args[1].as_primitive::<Int64Type>(),
            );
            let found = l.iter().zip(r).map(|(l, r)| match (l, r) {
                (Some(_), Some(0)) => Err(RunError::raise("REMAINDER_BY_ZERO", "Remainder by zero. Use `try_mod` to tolerate divisor being 0 and return NULL instead.")),
                (Some(l), Some(r)) => {
                    let (l, r) = (i128::from(l), i128::from(r));
                    let rest = l % r;
                    Ok(Some(if rest < 0 { ((rest + r) % r) as i64 } else { rest as i64 }))
                }
                _ => Ok(None),
            });
            Ok(Arc::new(found.collect::<Run<Int64Array>>()?))
        });
        return cast::implicit(found, &data_type);
    }
    let (left, right) = (
        cast::implicit(left, &DataType::Float64)?,
        cast::implicit(right, &DataType::Float64)?,
    );
    if data_type == DataType::Float32 {
        return Err(QueryError::unsupported("pmod of floats"));
    }
    Ok(Kernel::over_arrays(
        "pmod",
        "",
        vec![left, right],
        DataType::Float64,
        Can::Fail,
        |args, _| {
            let (l, r) = (
                args[0].as_primitive::<Float64Type>(),
                args[1].as_primitive::<Float64Type>(),
            );
            let found = l.iter().zip(r).map(|(l, r)| match (l, r) {
                (Some(_), Some(0.0)) => {
                    Err(RunError::raise("REMAINDER_BY_ZERO", "Remainder by zero."))
                }
                (Some(l), Some(r)) => {
                    let rest = l % r;
                    Ok(Some(if rest < 0.0 { (rest + r) % r } else { rest }))
                }
                _ => Ok(None),
            });
            Ok(Arc::new(
                found.collect::<Run<PrimitiveArray<Float64Type>>>()?,
            ))
        },
    ))
}

/// A number written in one base, in another.
fn converted(number: &str, from: i32, to: i32) -> Run<Option<String>> {
    let number = number.trim_matches(' ');
    if number.is_empty() || !(2..=36).contains(&from) || !(2..=36).contains(&to.abs()) {
        return Ok(None);
    }
    let (negative, digits) = match number.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, number),
    };
    let mut value = 0u64;
    for digit in digits.chars().map_while(|c| c.to_digit(from as u32)) {
        let next = value
            .checked_mul(from as u64)
            .and_then(|v| v.checked_add(u64::from(digit)));
        value = next.ok_or_else(|| {
            RunError::raise("ARITHMETIC_OVERFLOW", "Overflow in function conv().")
        })?;
    }
    let signed = to < 0;
    let (minus, mut rest) = match (negative, signed) {
        (true, true) => (true, value),
        (true, false) => (false, value.wrapping_neg()),
        (false, true) if (value as i64) < 0 => (true, value.wrapping_neg()),
        _ => (false, value),
    };
    let base = u64::from(to.unsigned_abs());
    let mut out = vec![];
    while rest > 0 || out.is_empty() {
        out.push(
            char::from_digit((rest % base) as u32, base as u32)
                .unwrap_or('0')
                .to_ascii_uppercase(),
        );
        rest /= base;
    }
    if minus {
        out.push('-');
    }
    Ok(Some(out.into_iter().rev().collect()))
}

fn to_text(name: &str, value: Typed, f: fn(&ArrayRef, usize) -> String) -> Typed {
    Kernel::over_arrays(
        name,
        "",
        vec![value],
        DataType::Utf8,
        Can::NotFail,
        move |args, rows| {
            let texts = (0..rows).map(|row| args[0].is_valid(row).then(|| f(&args[0], row)));
            Ok(Arc::new(texts.collect::<StringArray>()))
        },
    )
}

fn hex(value: Typed) -> Result<Typed> {
    Ok(match value.data_type {
        DataType::Utf8 => to_text("hex", value, |a, row| {
            text::hex(a.as_string::<i32>().value(row).as_bytes())
        }),
        DataType::Binary => to_text("hex", value, |a, row| {
            text::hex(a.as_binary::<i32>().value(row))
        }),
        _ => {
            let value = coerce::argument("hex", 0, value, &DataType::Int64)?;
            to_text("hex", value, |a, row| {
                format!("{:X}", a.as_primitive::<Int64Type>().value(row))
            })
        }
    })
}

/// The bytes that hexadecimal digits are; an odd one stands alone in the first.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let mut digits = text
        .chars()
        .map(|c| c.to_digit(16).map(|d| d as u8))
        .collect::<Option<Vec<_>>>()?;
    if digits.len() % 2 == 1 {
        digits.insert(0, 0);
    }
    let pairs = digits.chunks(2);
    Some(pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn unhex(value: Typed) -> Result<Typed> {
    let value = coerce::argument("unhex", 0, value, &DataType::Utf8)?;
    Ok(Kernel::over_arrays(
        "unhex",
        "",
        vec![value],
        DataType::Binary,
        Can::NotFail,
        |args, _| {
            let bytes = args[0].as_string::<i32>().iter();
            let bytes = bytes.map(|text| text.and_then(from_hex));
            let bytes: Vec<Option<Vec<u8>>> = bytes.collect();
            Ok(Arc::new(
                bytes
                    .iter()
                    .map(|b| b.as_deref())
                    .collect::<arrow::array::BinaryArray>(),
            ))
        },
    ))
}

/// The functions of this family.
pub(super) fn build(name: &str, args: &Args) -> Result<Option<Typed>> {
    if matches!(name, "sign" | "signum")
        && let Some(sign) = super::interval::signum(args.one()?)
    {
        return Ok(Some(sign));
    }
    let positive =
        |f: fn(f64) -> f64, above: f64| move |v: f64| if v <= above { None } else { Some(f(v)) };
    let unary: Option<fn(f64) -> f64> = match name {
        "sqrt" => Some(f64::sqrt),
        "cbrt" => Some(f64::cbrt),
        "exp" => Some(f64::exp),
        "expm1" => Some(f64::exp_m1),
        "sin" => Some(f64::sin),
        "cos" => Some(f64::cos),
        "tan" => Some(f64::tan),
        "cot" => Some(|v| 1.0 / v.tan()),
        "sec" => Some(|v| 1.0 / v.cos()),
        "csc" => Some(|v| 1.0 / v.sin()),
        "asin" => Some(f64::asin),
        "acos" => Some(f64::acos),
        "atan" => Some(f64::atan),
        "sinh" => Some(f64::sinh),
        "cosh" => Some(f64::cosh),
        "tanh" => Some(f64::tanh),
        "asinh" => Some(f64::asinh),
        "acosh" => Some(f64::acosh),
        "atanh" => Some(f64::atanh),
        "degrees" => Some(f64::to_degrees),
        "radians" => Some(f64::to_radians),
        "rint" => Some(f64::round_ties_even),
        "sign" | "signum" => Some(|v| {
            if v == 0.0 || v.is_nan() {
                v
            } else {
                v.signum()
            }
        }),
        _ => None,
    };
    if let Some(f) = unary {
        return of_double(name, args.one()?, move |v| Some(f(v))).map(Some);
    }
    let constant = |value: f64| -> Result<Typed> {
        args.exactly::<0>()?;
        Ok(Typed::literal(ScalarValue::Float64(Some(value))))
    };
    Ok(Some(match name {
        "pi" => constant(std::f64::consts::PI)?,
        "e" => constant(std::f64::consts::E)?,
        "ln" => of_double(name, args.one()?, positive(f64::ln, 0.0))?,
        "log" if args.len() == 1 => of_double("ln", args.one()?, positive(f64::ln, 0.0))?,
        "log" => {
            let [base, value] = args.exactly()?;
            of_doubles(name, base, value, |b, v| {
                if b <= 0.0 || v <= 0.0 {
                    None
                } else {
                    Some(v.ln() / b.ln())
                }
            })?
        }
        "log2" => of_double(name, args.one()?, positive(|v| v.ln() / 2f64.ln(), 0.0))?,
        "log10" => of_double(name, args.one()?, positive(f64::log10, 0.0))?,
        "log1p" => of_double(name, args.one()?, positive(f64::ln_1p, -1.0))?,
        "pow" | "power" => {
            let [base, exponent] = args.exactly()?;
            of_doubles("pow", base, exponent, |b, e| Some(power(b, e)))?
        }
        "hypot" => {
            let [a, b] = args.exactly()?;
            of_doubles(name, a, b, |a, b| Some(a.hypot(b)))?
        }
        "atan2" => {
            let [y, x] = args.exactly()?;
            of_doubles(name, y, x, |y, x| Some((y + 0.0).atan2(x + 0.0)))?
        }
        "nanvl" => {
            let [value, other] = args.exactly()?;
            if value.data_type == DataType::Float32 && other.data_type == DataType::Float32 {
                return Err(QueryError::unsupported("nanvl of floats"));
            }
            let value = coerce::argument(name, 0, value, &DataType::Float64)?;
            let other = coerce::argument(name, 1, other, &DataType::Float64)?;
            let Some(nan) = conditional::build(
                "isnan",
                &Args {
                    values: vec![value.clone()],
                    ..*args
                },
            )?
            else {
                return Ok(None);
            };
            conditional::case(vec![(nan, other)], value)
        }
        "width_bucket" => {
            let double = DataType::Float64;
            let types = [double.clone(), double.clone(), double, DataType::Int64];
            let values = args.typed(&types, 4)?;
            Kernel::over_arrays(
                name,
                "",
                values,
                DataType::Int64,
                Can::NotFail,
                |args, rows| {
                    let bound =
                        |nth: usize, row| args[nth].as_primitive::<Float64Type>().value(row);
                    let buckets = args[3].as_primitive::<Int64Type>();
                    let found = (0..rows).map(|row| {
                        let known = args.iter().all(|a| a.is_valid(row));
                        known.then(|| {
                            bucket(
                                bound(0, row),
                                bound(1, row),
                                bound(2, row),
                                buckets.value(row),
                            )
                        })?
                    });
                    Ok(Arc::new(found.collect::<Int64Array>()))
                },
            )
        }
        "factorial" => {
            let value = coerce::argument(name, 0, args.one()?, &DataType::Int32)?;
            Kernel::over_arrays(
                name,
                "",
                vec![value],
                DataType::Int64,
                Can::NotFail,
                |args, _| {
                    let values = args[0].as_primitive::<Int32Type>();
                    let found = values.iter().map(|v| {
                        v.filter(|v| (0..=20).contains(v))
                            .map(|v| (1..=i64::from(v)).product())
                    });
                    Ok(Arc::new(found.collect::<Int64Array>()))
                },
            )
        }
        "round" => round("round", args, Mode::HalfUp)?,
        "bround" => round("bround", args, Mode::HalfEven)?,
        "floor" => round("floor", args, Mode::Floor)?,
        "ceil" | "ceiling" => round("ceil", args, Mode::Ceiling)?,
        "pmod" => {
            let [left, right] = args.exactly()?;
            positive_remainder(left, right)?
        }
        "div" => {
            let [left, right] = args.exactly()?;
            arithmetic::numbers(
                BinaryOp::IntegerDivide,
                left,
                right,
                name,
                arithmetic::Beyond::Fails,
            )?
        }
        "bin" => {
            let value = coerce::argument(name, 0, args.one()?, &DataType::Int64)?;
            to_text(name, value, |a, row| {
                format!("{:b}", a.as_primitive::<Int64Type>().value(row))
            })
        }
        "hex" => hex(args.one()?)?,
        "unhex" => unhex(args.one()?)?,
        "conv" => {
            let values = args.typed(&[DataType::Utf8, DataType::Int32, DataType::Int32], 3)?;
            Kernel::over_arrays(name, "", values, DataType::Utf8, Can::Fail, |args, rows| {
                let numbers = args[0].as_string::<i32>();
                let (from, to) = (
                    args[1].as_primitive::<Int32Type>(),
                    args[2].as_primitive::<Int32Type>(),
                );
                let texts = (0..rows).map(|row| match args.iter().any(|a| a.is_null(row)) {
                    true => Ok(None),
                    false => converted(numbers.value(row), from.value(row), to.value(row)),
                });
                Ok(Arc::new(texts.collect::<Run<StringArray>>()?))
            })
        }
        _ => return Ok(None),
    }))
}

/// Which of `count` parts of the range from `first` to `last`, which may go down, the value is in: 0 before it, and one
/// more than there are after it.
fn bucket(value: f64, first: f64, last: f64, count: i64) -> Option<i64> {
    let bounded = first.is_finite() && last.is_finite() && first != last;
    if count <= 0 || count == i64::MAX || value.is_nan() || !bounded {
        return None;
    }
    let into = (value - first) / (last - first);
    Some(match into {
        before if before < 0.0 => 0,
        after if after >= 1.0 => count + 1,
        _ if first < last => (count as f64 * (value - first) / (last - first)) as i64 + 1,
        _ => (count as f64 * (first - value) / (first - last)) as i64 + 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_up_or_to_even() {
        assert_eq!(round_double(2.5, 0, Mode::HalfUp), 3.0);
        assert_eq!(round_double(-2.5, 0, Mode::HalfUp), -3.0);
        assert_eq!(round_double(2.5, 0, Mode::HalfEven), 2.0);
        assert_eq!(round_double(0.285, 2, Mode::HalfUp), 0.29);
        assert_eq!(round_double(1e300, 1, Mode::HalfUp), 1e300);
        assert_eq!(round_double(1234.0, -2, Mode::HalfUp), 1200.0);
        assert_eq!(divided(-25, 10, Mode::HalfUp), -3);
        assert_eq!(divided(-25, 10, Mode::Floor), -3);
        assert_eq!(divided(-25, 10, Mode::Ceiling), -2);
    }

    #[test]
    fn bases_convert_with_sign() {
        assert_eq!(
            converted("-10", 10, 16).unwrap().unwrap(),
            "FFFFFFFFFFFFFFF6"
        );
        assert_eq!(converted("-10", 10, -16).unwrap().unwrap(), "-A");
        assert_eq!(converted("zz", 36, 2).unwrap().unwrap(), "10100001111");
        assert_eq!(converted("", 10, 2).unwrap(), None);
    }
}
