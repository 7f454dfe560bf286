//! `+ - * / % div`: checked, with Spark's result types.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Datum, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::numeric;
use arrow::datatypes::{
    DataType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
};
use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, Operator};

use super::kernel::{Can, Kernel, Result as Run, Typed};
use super::{Args, cast, conditional, interval};
use crate::coerce::{self, adjusted, is_decimal, is_float, is_integral, is_numeric};
use crate::error::{QueryError, RunError};
use crate::expr::BinaryOp;
use crate::plan::Conf;
use crate::types::type_sql;

type Result<T> = std::result::Result<T, QueryError>;

fn overflow(what: &str) -> DataFusionError {
    let message = format!(
        "{what} overflow. Use 'try_add', 'try_subtract' or 'try_multiply' to tolerate overflow and return NULL instead."
    );
    RunError::raise("ARITHMETIC_OVERFLOW", message)
}

fn division_by_zero(op: BinaryOp) -> DataFusionError {
    match op {
        BinaryOp::Remainder => RunError::raise(
            "REMAINDER_BY_ZERO",
            "Remainder by zero. Use `try_mod` to tolerate divisor being 0 and return NULL instead.",
        ),
        _ => RunError::raise(
            "DIVIDE_BY_ZERO",
            "Division by zero. Use `try_divide` to tolerate divisor being 0 and return NULL instead.",
        ),
    }
}

/// What becomes of a row whose answer its type cannot hold, or that divides by zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beyond {
    /// It stops the query: ANSI.
    Fails,
    /// Its answer is NULL.
    IsNull,
    /// Whole numbers begin anew at their other end, all else is NULL: without ANSI.
    Wraps,
}

impl Beyond {
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Beyond::Fails => "",
            Beyond::IsNull => "try_",
            Beyond::Wraps => "wrapping_",
        }
    }
}

/// `left op right` as written.
pub(crate) fn binary(
    op: BinaryOp,
    left: Typed,
    right: Typed,
    text: &str,
    conf: &Conf,
) -> Result<Typed> {
    if let Some(result) = interval::arithmetic(op, &left, &right, Beyond::Fails)? {
        return Ok(result);
    }
    match conf.ansi {
        true => numbers(op, left, right, text, Beyond::Fails),
        // There a text is a double, whatever stands beside it.
        false
            if [&left, &right]
                .iter()
                .any(|side| side.data_type == DataType::Utf8) =>
        {
            Err(without_ansi(&format!("a text in \"{text}\"")))
        }
        false => numbers(op, left, right, text, Beyond::Wraps),
    }
}

/// The error for what ANSI decides, and is not built without it.
pub(crate) fn without_ansi(what: &str) -> QueryError {
    QueryError::unsupported(format!("{what} where spark.sql.ansi.enabled is false"))
}

/// What an operator takes, in words.
fn operands(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Add | BinaryOp::Subtract => ADDABLE,
        BinaryOp::Divide => "(\"DOUBLE\" or \"DECIMAL\")",
        BinaryOp::IntegerDivide => {
            "(\"BIGINT\" or \"INTERVAL DAY TO SECOND\" or \"INTERVAL YEAR TO MONTH\")"
        }
        _ => "\"NUMERIC\"",
    }
}

const ADDABLE: &str =
    "(\"NUMERIC\" or \"INTERVAL DAY TO SECOND\" or \"INTERVAL YEAR TO MONTH\" or \"INTERVAL\")";

/// A checked operator over numbers.
pub(crate) fn numbers(
    op: BinaryOp,
    left: Typed,
    right: Typed,
    text: &str,
    beyond: Beyond,
) -> Result<Typed> {
    let (l, r) = (left.data_type.clone(), right.data_type.clone());
    let mismatch = |kind: &str, why: String| {
        let message = format!("Cannot resolve \"{text}\" due to data type mismatch: {why}");
        Err(QueryError::mismatch(kind, message))
    };
    let diff_types = || {
        let why = format!(
            "the left and right operands of the binary operator have incompatible types (\"{}\" and \"{}\").",
            type_sql(&l),
            type_sql(&r)
        );
        mismatch("BINARY_OP_DIFF_TYPES", why)
    };
    // A text takes part as the number it is; a null as the other side.
    let number_for = |t: &DataType, other: &DataType| match t {
        DataType::Null if is_numeric(other) => Some(other.clone()),
        DataType::Null => Some(DataType::Float64),
        DataType::Utf8 if is_integral(other) => Some(DataType::Int64),
        DataType::Utf8 if is_numeric(other) => Some(DataType::Float64),
        t if is_numeric(t) => Some(t.clone()),
        _ => None,
    };
    if l == r && !is_numeric(&l) && l != DataType::Null {
        let (wanted, found) = (operands(op), type_sql(&l));
        let why = format!("the binary operator requires the input type {wanted}, not \"{found}\".");
        return mismatch("BINARY_OP_WRONG_TYPE", why);
    }
    let (Some(l), Some(r)) = (number_for(&l, &r), number_for(&r, &l)) else {
        return diff_types();
    };
    let (left, right) = (cast::implicit(left, &l)?, cast::implicit(right, &r)?);
    let decimal = is_decimal(&l) || is_decimal(&r);
    if decimal && !is_float(&l) && !is_float(&r) {
        return decimals(op, left, right, beyond);
    }
    let common = match (decimal, coerce::tightest(&l, &r)) {
        (true, _) => DataType::Float64,
        (false, Some(common)) => common,
        (false, None) => return diff_types(),
    };
    let common = match op {
        BinaryOp::Divide => DataType::Float64,
        BinaryOp::IntegerDivide if is_float(&common) && !decimal && l != r => return diff_types(),
        BinaryOp::IntegerDivide if is_float(&common) => {
            let why = format!(
                "the binary operator requires the input type \"INTEGRAL\", not \"{}\".",
                type_sql(&common)
            );
            return mismatch("BINARY_OP_WRONG_TYPE", why);
        }
        BinaryOp::IntegerDivide => DataType::Int64,
        _ => common,
    };
    let (left, right) = (
        cast::implicit(left, &common)?,
        cast::implicit(right, &common)?,
    );
    let (l, r) = (left.clone(), right.clone());
    Ok(conditional::null_guarded(
        &l,
        &r,
        primitive(op, left, right, common, beyond),
    ))
}

fn primitive(
    op: BinaryOp,
    left: Typed,
    right: Typed,
    data_type: DataType,
    beyond: Beyond,
) -> Typed {
    let divides = matches!(
        op,
        BinaryOp::Divide | BinaryOp::Remainder | BinaryOp::IntegerDivide
    );
    let total = beyond != Beyond::Fails || is_float(&data_type) && !divides;
    let can = if total { Can::NotFail } else { Can::Fail };
    let name = format!("{}{}", beyond.prefix(), name(op));
    let inner = data_type.clone();
    Kernel::call(
        name,
        "",
        vec![left, right],
        data_type,
        can,
        move |args, rows| {
            let kernel: fn(BinaryOp, &Operand, &Operand, usize, Beyond) -> Run<ArrayRef> =
                match inner {
                    DataType::Int8 => integers::<Int8Type>,
                    DataType::Int16 => integers::<Int16Type>,
                    DataType::Int32 => integers::<Int32Type>,
                    DataType::Int64 => integers::<Int64Type>,
                    DataType::Float32 => floats::<Float32Type>,
                    _ => floats::<Float64Type>,
                };
            over(args, rows, |l, r, rows| kernel(op, l, r, rows, beyond))
        },
    )
}

/// The operator that a kernel of this name is written as.
pub(super) fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        "add" => Operator::Plus,
        "subtract" => Operator::Minus,
        "multiply" => Operator::Multiply,
        "divide" => Operator::Divide,
        "remainder" => Operator::Modulo,
        "div" => Operator::IntegerDivide,
        _ => return None,
    })
}

fn name(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Add => "add",
        BinaryOp::Subtract => "subtract",
        BinaryOp::Multiply => "multiply",
        BinaryOp::Divide => "divide",
        BinaryOp::Remainder => "remainder",
        _ => "div",
    }
}

/// One side of an operator: a column, or a constant that need not become one.
struct Operand {
    array: ArrayRef,
    constant: bool,
}

impl Datum for Operand {
    fn get(&self) -> (&dyn Array, bool) {
        (self.array.as_ref(), self.constant)
    }
}

impl Operand {
    fn values<T: ArrowPrimitiveType>(&self) -> (&[T::Native], usize) {
        (
            self.array.as_primitive::<T>().values(),
            usize::from(!self.constant),
        )
    }

    fn nulls(&self, rows: usize) -> Option<NullBuffer> {
        match self.constant {
            true if self.array.is_null(0) => Some(NullBuffer::new_null(rows)),
            true => None,
            false => self.array.nulls().cloned(),
        }
    }
}

fn over(
    args: &[ColumnarValue],
    rows: usize,
    kernel: impl Fn(&Operand, &Operand, usize) -> Run<ArrayRef>,
) -> Run<ColumnarValue> {
    let operand = |arg: &ColumnarValue| {
        Ok::<_, DataFusionError>(match arg {
            ColumnarValue::Array(array) => Operand {
                array: Arc::clone(array),
                constant: false,
            },
            ColumnarValue::Scalar(scalar) => Operand {
                array: scalar.to_array()?,
                constant: true,
            },
        })
    };
    let (l, r) = (operand(&args[0])?, operand(&args[1])?);
    let both = l.constant && r.constant;
    let result = kernel(&l, &r, if both { 1 } else { rows })?;
    if both {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
            &result, 0,
        )?));
    }
    Ok(ColumnarValue::Array(result))
}

/// What Rust calls the checked operations, for all widths.
trait Checked: Copy + PartialEq + Default {
    fn compute(self, op: BinaryOp, other: Self) -> Option<Self>;
}

macro_rules! checked {
    ($($t:ty),*) => {$(
        impl Checked for $t {
            fn compute(self, op: BinaryOp, other: Self) -> Option<Self> {
                match op {
                    BinaryOp::Add => self.checked_add(other),
                    BinaryOp::Subtract => self.checked_sub(other),
                    BinaryOp::Multiply => self.checked_mul(other),
                    BinaryOp::Remainder => Some(self.wrapping_rem(other)),
                    _ => self.checked_div(other),
                }
            }
        }
    )*};
}
checked!(i8, i16, i32, i64);

fn integers<T>(
    op: BinaryOp,
    left: &Operand,
    right: &Operand,
    rows: usize,
    beyond: Beyond,
) -> Run<ArrayRef>
where
    T: ArrowPrimitiveType,
    T::Native: Checked,
{
    // Arrow's kernels are vectorised and checked; division needs Spark's errors and wrapping.
    if beyond != Beyond::IsNull {
        let wraps = beyond == Beyond::Wraps;
        let computed = match op {
            BinaryOp::Add if wraps => Some(numeric::add_wrapping(left, right)),
            BinaryOp::Subtract if wraps => Some(numeric::sub_wrapping(left, right)),
            BinaryOp::Multiply if wraps => Some(numeric::mul_wrapping(left, right)),
            BinaryOp::Add => Some(numeric::add(left, right)),
            BinaryOp::Subtract => Some(numeric::sub(left, right)),
            BinaryOp::Multiply => Some(numeric::mul(left, right)),
            _ => None,
        };
        if let Some(computed) = computed {
            let kind = if T::DATA_TYPE == DataType::Int64 {
                "long"
            } else {
                "integer"
            };
            return computed.map_err(|e| match e {
                ArrowError::ArithmeticOverflow(_) => overflow(kind),
                other => other.into(),
            });
        }
    }
    let divides = matches!(op, BinaryOp::Remainder | BinaryOp::IntegerDivide);
    each_row::<T>(left, right, rows, |l, r| {
        if divides && r == T::Native::default() {
            return match beyond {
                Beyond::Fails => Err(division_by_zero(op)),
                Beyond::IsNull | Beyond::Wraps => Ok(None),
            };
        }
        match (l.compute(op, r), beyond) {
            (None, Beyond::Fails) => Err(overflow("Overflow in integral divide: long")),
            // The smallest number has no counterpart, and divided by -1 is itself.
            (None, Beyond::Wraps) => Ok(Some(l)),
            (computed, _) => Ok(computed),
        }
    })
}

/// Row by row where both sides are known.
fn each_row<T: ArrowPrimitiveType>(
    left: &Operand,
    right: &Operand,
    rows: usize,
    f: impl Fn(T::Native, T::Native) -> Run<Option<T::Native>>,
) -> Run<ArrayRef> {
    let nulls = NullBuffer::union(left.nulls(rows).as_ref(), right.nulls(rows).as_ref());
    let ((l, l_step), (r, r_step)) = (left.values::<T>(), right.values::<T>());
    let mut out = PrimitiveArray::<T>::builder(rows);
    for row in 0..rows {
        if nulls.as_ref().is_some_and(|n| n.is_null(row)) {
            out.append_null();
            continue;
        }
        out.append_option(f(l[row * l_step], r[row * r_step])?);
    }
    Ok(Arc::new(out.finish()))
}

fn floats<T>(
    op: BinaryOp,
    left: &Operand,
    right: &Operand,
    rows: usize,
    beyond: Beyond,
) -> Run<ArrayRef>
where
    T: ArrowPrimitiveType,
    T::Native: Default + PartialEq,
{
    let computed = match op {
        BinaryOp::Add => numeric::add_wrapping(left, right),
        BinaryOp::Subtract => numeric::sub_wrapping(left, right),
        BinaryOp::Multiply => numeric::mul_wrapping(left, right),
        _ => {
            let (divisors, step) = right.values::<T>();
            let zero = divisors.contains(&T::Native::default());
            if zero {
                let nulls =
                    NullBuffer::union(left.nulls(rows).as_ref(), right.nulls(rows).as_ref());
                let known = |row: usize| nulls.as_ref().is_none_or(|n| n.is_valid(row));
                let fails = |row: usize| divisors[row * step] == T::Native::default();
                if beyond == Beyond::Fails && (0..rows).any(|row| known(row) && fails(row)) {
                    return Err(division_by_zero(op));
                }
                let computed = divide(op, left, right)?;
                let valid: NullBuffer = (0..rows)
                    .map(|row| known(row) && !fails(row))
                    .collect::<Vec<_>>()
                    .into();
                let values = computed.as_primitive::<T>().values().clone();
                return Ok(Arc::new(PrimitiveArray::<T>::new(values, Some(valid))));
            }
            divide(op, left, right)
        }
    };
    Ok(computed?)
}

fn divide(
    op: BinaryOp,
    left: &Operand,
    right: &Operand,
) -> std::result::Result<ArrayRef, ArrowError> {
    if op == BinaryOp::Remainder {
        numeric::rem(left, right)
    } else {
        numeric::div(left, right)
    }
}

fn decimals(op: BinaryOp, left: Typed, right: Typed, beyond: Beyond) -> Result<Typed> {
    let operand = |side: &Typed| match is_decimal(&side.data_type) {
        true => coerce::decimal_for(&side.data_type),
        false => coerce::decimal_for_operand(side),
    };
    let (Some(l), Some(r)) = (operand(&left), operand(&right)) else {
        return Err(QueryError::unsupported("this arithmetic on decimals"));
    };
    let (left, right) = (
        cast::implicit(left, &DataType::Decimal128(l.0, l.1))?,
        cast::implicit(right, &DataType::Decimal128(r.0, r.1))?,
    );
    let ((p1, s1), (p2, s2)) = (
        (i32::from(l.0), i32::from(l.1)),
        (i32::from(r.0), i32::from(r.1)),
    );
    let scale = s1.max(s2);
    let result = match op {
        BinaryOp::Add | BinaryOp::Subtract => adjusted((p1 - s1).max(p2 - s2) + scale + 1, scale),
        BinaryOp::Multiply => adjusted(p1 + p2 + 1, s1 + s2),
        BinaryOp::Divide => {
            let scale = 6.max(s1 + p2 + 1);
            adjusted(p1 - s1 + s2 + scale, scale)
        }
        BinaryOp::Remainder => adjusted((p1 - s1).min(p2 - s2) + scale, scale),
        _ => DataType::Int64,
    };
    let name = format!("{}{}", beyond.prefix(), name(op));
    let can = match beyond {
        Beyond::Fails => Can::Fail,
        Beyond::IsNull | Beyond::Wraps => Can::NotFail,
    };
    let (to, s1, s2) = (result.clone(), l.1, r.1);
    Ok(Kernel::call(
        name,
        "",
        vec![left, right],
        result,
        can,
        move |args, rows| {
            over(args, rows, |l, r, rows| {
                decimal_rows(op, (l, s1), (r, s2), &to, rows, beyond)
            })
        },
    ))
}

fn decimal_rows(
    op: BinaryOp,
    left: (&Operand, i8),
    right: (&Operand, i8),
    to: &DataType,
    rows: usize,
    beyond: Beyond,
) -> Run<ArrayRef> {
    let (s1, s2) = (left.1, right.1);
    let ((l, l_step), (r, r_step)) = (
        left.0.values::<Decimal128Type>(),
        right.0.values::<Decimal128Type>(),
    );
    let nulls = NullBuffer::union(left.0.nulls(rows).as_ref(), right.0.nulls(rows).as_ref());
    let pairs = (0..rows).map(|row| {
        if nulls.as_ref().is_some_and(|n| n.is_null(row)) {
            return Ok(None);
        }
        let (l, r) = (l[row * l_step], r[row * r_step]);
        if r == 0 && !matches!(op, BinaryOp::Add | BinaryOp::Subtract | BinaryOp::Multiply) {
            return match beyond {
                Beyond::Fails => Err(division_by_zero(op)),
                Beyond::IsNull | Beyond::Wraps => Ok(None),
            };
        }
        let computed = match to {
            DataType::Decimal128(p, s) => wide::compute(op, (l, s1), (r, s2), *p, *s),
            _ => wide::quotient((l, s1), (r, s2)).filter(|q| i64::try_from(*q).is_ok()),
        };
        match (computed, to) {
            (Some(value), _) => Ok(Some(value)),
            (None, _) if beyond != Beyond::Fails => Ok(None),
            (None, DataType::Decimal128(p, s)) => Err(RunError::raise(
                "NUMERIC_VALUE_OUT_OF_RANGE.WITH_SUGGESTION",
                format!(
                    "{} cannot be represented as Decimal({p}, {s}). If necessary set \"spark.sql.ansi.enabled\" to \"false\" to bypass this error, and return NULL instead.",
                    wide::told(op, (l, s1), (r, s2), *s)
                ),
            )),
            (None, _) => Err(overflow("long")),
        }
    });
    match to {
        DataType::Decimal128(..) => {
            let values = pairs.collect::<Run<PrimitiveArray<Decimal128Type>>>()?;
            Ok(Arc::new(values.with_data_type(to.clone())))
        }
        _ => {
            let values = pairs.map(|v| Ok(v?.map(|v| v as i64)));
            Ok(Arc::new(
                values.collect::<Run<PrimitiveArray<Int64Type>>>()?,
            ))
        }
    }
}

/// Decimal arithmetic in 256 bits, rounded half up once, at the end.
mod wide {
    use arrow::datatypes::i256;

    use crate::expr::BinaryOp;

    fn power(exponent: i32) -> Option<i256> {
        i256::from_i128(10).checked_pow(u32::try_from(exponent).ok()?)
    }

    /// `l op r` at scale `s`, if it has at most `p` digits.
    pub(super) fn compute(
        op: BinaryOp,
        l: (i128, i8),
        r: (i128, i8),
        p: u8,
        s: i8,
    ) -> Option<i128> {
        let (value, scale) = exact(op, l, r, s)?;
        let value = at_scale(value, scale, i32::from(s))?.to_i128()?;
        (value.unsigned_abs() < 10u128.pow(u32::from(p))).then_some(value)
    }

    /// `l op r` and its scale; a quotient is rounded at scale `s`.
    fn exact(op: BinaryOp, l: (i128, i8), r: (i128, i8), s: i8) -> Option<(i256, i32)> {
        let (s1, s2, s) = (i32::from(l.1), i32::from(r.1), i32::from(s));
        let (l, r) = (i256::from_i128(l.0), i256::from_i128(r.0));
        let scale = s1.max(s2);
        let aligned = || {
            Some((
                l.checked_mul(power(scale - s1)?)?,
                r.checked_mul(power(scale - s2)?)?,
            ))
        };
        Some(match op {
            BinaryOp::Add => aligned().and_then(|(l, r)| Some((l.checked_add(r)?, scale)))?,
            BinaryOp::Subtract => aligned().and_then(|(l, r)| Some((l.checked_sub(r)?, scale)))?,
            BinaryOp::Multiply => (l.checked_mul(r)?, s1 + s2),
            BinaryOp::Remainder => aligned().and_then(|(l, r)| Some((l.checked_rem(r)?, scale)))?,
            _ => {
                // l / r at scale s is l * 10^(s - s1 + s2) / r.
                let shift = s - s1 + s2;
                let (l, r) = match shift >= 0 {
                    true => (l.checked_mul(power(shift)?)?, r),
                    false => (l, r.checked_mul(power(-shift)?)?),
                };
                (half_up(l, r)?, s)
            }
        })
    }

    /// The value that has too many digits: a product with the 39 of them that the model computes.
    pub(super) fn told(op: BinaryOp, l: (i128, i8), r: (i128, i8), s: i8) -> String {
        let Some((value, scale)) = exact(op, l, r, s) else {
            return "the result".into();
        };
        let text = value.to_string();
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", text.as_str()),
        };
        let kept = match op {
            BinaryOp::Multiply => digits.len().min(39),
            _ => digits.len(),
        };
        let scale = scale - (digits.len() - kept) as i32;
        let digits = &digits[..kept];
        match usize::try_from(scale) {
            Ok(0) => format!("{sign}{digits}"),
            Ok(scale) => {
                let padded = format!("{digits:0>width$}", width = scale + 1);
                let (whole, fraction) = padded.split_at(padded.len() - scale);
                format!("{sign}{whole}.{fraction}")
            }
            Err(_) => format!(
                "{sign}{digits}{}",
                "0".repeat(scale.unsigned_abs() as usize)
            ),
        }
    }

    /// The whole part of `l / r`.
    pub(super) fn quotient(l: (i128, i8), r: (i128, i8)) -> Option<i128> {
        let scale = i32::from(l.1).max(i32::from(r.1));
        let left = i256::from_i128(l.0).checked_mul(power(scale - i32::from(l.1))?)?;
        let right = i256::from_i128(r.0).checked_mul(power(scale - i32::from(r.1))?)?;
        left.checked_div(right)?.to_i128()
    }

    fn at_scale(value: i256, from: i32, to: i32) -> Option<i256> {
        if to >= from {
            return value.checked_mul(power(to - from)?);
        }
        half_up(value, power(from - to)?)
    }

    fn half_up(l: i256, r: i256) -> Option<i256> {
        let (quotient, remainder) = (l.checked_div(r)?, l.checked_rem(r)?);
        let twice = remainder.wrapping_abs().checked_mul(i256::from_i128(2))?;
        if twice < r.wrapping_abs() {
            return Some(quotient);
        }
        let up = if (l < i256::ZERO) == (r < i256::ZERO) {
            i256::ONE
        } else {
            i256::MINUS_ONE
        };
        quotient.checked_add(up)
    }
}

/// `-value`.
pub(crate) fn negate(value: Typed) -> Result<Typed> {
    if let Some(result) = interval::negate(&value) {
        return Ok(result);
    }
    if let Some(result) = interval::unary("negative", value.clone(), i64::checked_neg) {
        return result;
    }
    let value = number("-", value)?;
    unary(
        "negative",
        value,
        |v: i64, low| (v != low).then(|| -v),
        |v| -v,
    )
}

/// `+value`.
pub(crate) fn plus(value: Typed) -> Result<Typed> {
    number("+", value)
}

/// `abs(value)`.
pub(super) fn abs(value: Typed) -> Result<Typed> {
    if let Some(result) = interval::unary("abs", value.clone(), i64::checked_abs) {
        return result;
    }
    let value = number("abs", value)?;
    unary(
        "abs",
        value,
        |v: i64, low| (v != low).then(|| v.abs()),
        f64::abs,
    )
}

/// The operand as a number.
pub(crate) fn number(function: &str, value: Typed) -> Result<Typed> {
    match &value.data_type {
        t if is_numeric(t) => Ok(value),
        DataType::Utf8 | DataType::Null => cast::implicit(value, &DataType::Float64),
        _ => {
            let wanted = match function {
                "abs" => {
                    "(\"NUMERIC\" or \"INTERVAL DAY TO SECOND\" or \"INTERVAL YEAR TO MONTH\")"
                }
                _ => ADDABLE,
            };
            Err(coerce::unexpected(function, 0, &value, wanted))
        }
    }
}

fn unary(
    name: &'static str,
    value: Typed,
    exact: fn(i64, i64) -> Option<i64>,
    float: fn(f64) -> f64,
) -> Result<Typed> {
    fn small<T>(array: &ArrayRef, low: i64, f: fn(i64, i64) -> Option<i64>) -> Run<ArrayRef>
    where
        T: ArrowPrimitiveType,
        T::Native: Into<i64> + TryFrom<i64>,
    {
        let kind = if T::DATA_TYPE == DataType::Int64 {
            "long"
        } else {
            "integer"
        };
        let negated = array
            .as_primitive::<T>()
            .try_unary::<_, T, DataFusionError>(|v| {
                f(v.into(), low)
                    .and_then(|v| T::Native::try_from(v).ok())
                    .ok_or_else(|| overflow(kind))
            })?;
        Ok(Arc::new(negated))
    }
    let data_type = value.data_type.clone();
    let can = if is_integral(&data_type) {
        Can::Fail
    } else {
        Can::NotFail
    };
    Ok(Kernel::over_arrays(
        name,
        "",
        vec![value],
        data_type.clone(),
        can,
        move |args, _| {
            let array = &args[0];
            Ok(match &data_type {
                DataType::Int8 => small::<Int8Type>(array, i64::from(i8::MIN), exact)?,
                DataType::Int16 => small::<Int16Type>(array, i64::from(i16::MIN), exact)?,
                DataType::Int32 => small::<Int32Type>(array, i64::from(i32::MIN), exact)?,
                DataType::Int64 => small::<Int64Type>(array, i64::MIN, exact)?,
                DataType::Float32 => Arc::new(
                    array
                        .as_primitive::<Float32Type>()
                        .unary::<_, Float32Type>(|v| float(f64::from(v)) as f32),
                ),
                DataType::Float64 => Arc::new(
                    array
                        .as_primitive::<Float64Type>()
                        .unary::<_, Float64Type>(float),
                ),
                _ => {
                    let negate = name == "negative";
                    let values = array.as_primitive::<Decimal128Type>();
                    let values =
                        values.unary::<_, Decimal128Type>(|v| if negate { -v } else { v.abs() });
                    Arc::new(values.with_data_type(data_type.clone()))
                }
            })
        },
    ))
}

/// The functions of this family.
pub(super) fn build(name: &str, args: &Args) -> Result<Option<Typed>> {
    let two = |op, beyond| {
        let [left, right] = args.exactly()?;
        if let Some(result) = interval::arithmetic(op, &left, &right, beyond)? {
            return Ok(result);
        }
        numbers(op, left, right, name, beyond)
    };
    Ok(Some(match name {
        "mod" => two(BinaryOp::Remainder, Beyond::Fails)?,
        "try_add" => two(BinaryOp::Add, Beyond::IsNull)?,
        "try_subtract" => two(BinaryOp::Subtract, Beyond::IsNull)?,
        "try_multiply" => two(BinaryOp::Multiply, Beyond::IsNull)?,
        "try_divide" => two(BinaryOp::Divide, Beyond::IsNull)?,
        "try_mod" => two(BinaryOp::Remainder, Beyond::IsNull)?,
        "negative" => negate(args.one()?)?,
        "positive" => plus(args.one()?)?,
        "abs" => abs(args.one()?)?,
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int32Array;

    fn int(values: Vec<Option<i32>>) -> Operand {
        Operand {
            array: Arc::new(Int32Array::from(values)),
            constant: false,
        }
    }

    #[test]
    fn a_null_row_does_not_overflow() {
        let (l, r) = (int(vec![Some(i32::MAX), None]), int(vec![None, Some(1)]));
        let sum = integers::<Int32Type>(BinaryOp::Add, &l, &r, 2, Beyond::Fails).unwrap();
        assert_eq!(sum.null_count(), 2);
    }

    #[test]
    fn the_least_integer_has_no_remainder_by_minus_one() {
        let (l, r) = (int(vec![Some(i32::MIN)]), int(vec![Some(-1)]));
        let rest = integers::<Int32Type>(BinaryOp::Remainder, &l, &r, 1, Beyond::Fails).unwrap();
        assert_eq!(rest.as_primitive::<Int32Type>().value(0), 0);
    }

    #[test]
    fn decimals_round_once() {
        assert_eq!(
            wide::compute(BinaryOp::Divide, (10, 1), (3, 0), 7, 6),
            Some(333_333)
        );
        assert_eq!(
            wide::compute(BinaryOp::Divide, (-10, 0), (4, 0), 7, 0),
            Some(-3)
        );
        assert_eq!(wide::compute(BinaryOp::Add, (99, 0), (1, 0), 2, 0), None);
    }
}
