//! Intervals beside intervals and numbers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Decimal128Type, DurationMicrosecondType, DurationSecondType, Float64Type, Int64Type,
    IntervalYearMonthType,
};
use datafusion::common::DataFusionError;

use super::{Kind, plain};
use crate::coerce::{is_decimal, is_float, is_integral};
use crate::error::{QueryError, RunError};
use crate::expr::BinaryOp;
use crate::functions::arithmetic::Beyond;
use crate::functions::cast::{self, divide_half_up};
use crate::functions::kernel::{Can, Kernel, Result as Run, Typed};
use crate::types::{DAY_TIME, DAYS, YEAR_MONTH, type_sql};

type Result<T> = std::result::Result<T, QueryError>;

pub(super) fn overflow(function: &str) -> DataFusionError {
    let message = format!(
        "Integer overflow while operating with intervals. Use `try_{function}` to tolerate overflow and return NULL instead."
    );
    RunError::raise("INTERVAL_ARITHMETIC_OVERFLOW.WITH_SUGGESTION", message)
}

/// An interval that is not null as one number: of months, or of microseconds.
fn amount(intervals: &ArrayRef, row: usize) -> i64 {
    match intervals.data_type() {
        t if *t == DAY_TIME => intervals
            .as_primitive::<DurationMicrosecondType>()
            .value(row),
        t if *t == DAYS => intervals
            .as_primitive::<DurationSecondType>()
            .value(row)
            .saturating_mul(1_000_000),
        _ => i64::from(intervals.as_primitive::<IntervalYearMonthType>().value(row)),
    }
}

/// Amounts as intervals; what does not fit is an error that `beyond` may make null.
fn intervals(
    amounts: impl Iterator<Item = Run<Option<Option<i64>>>>,
    to: &DataType,
    beyond: Beyond,
    fail: impl Fn() -> DataFusionError,
) -> Run<ArrayRef> {
    let fits = |amount: i64| match to {
        t if *t == YEAR_MONTH => i32::try_from(amount).is_ok(),
        _ => true,
    };
    let amounts = amounts.map(|amount| match amount? {
        None => Ok(None),
        Some(Some(amount)) if fits(amount) => Ok(Some(amount)),
        Some(_) if beyond == Beyond::IsNull => Ok(None),
        Some(_) => Err(fail()),
    });
    let amounts = amounts.collect::<Run<Vec<Option<i64>>>>()?.into_iter();
    Ok(match to {
        t if *t == YEAR_MONTH => Arc::new(
            amounts
                .map(|a| a.and_then(|a| i32::try_from(a).ok()))
                .collect::<PrimitiveArray<IntervalYearMonthType>>(),
        ),
        t if *t == DAYS => Arc::new(
            amounts
                .map(|a| a.map(|a| a / 1_000_000))
                .collect::<PrimitiveArray<DurationSecondType>>(),
        ),
        _ => Arc::new(amounts.collect::<PrimitiveArray<DurationMicrosecondType>>()),
    })
}

fn can(beyond: Beyond) -> Can {
    match beyond {
        Beyond::IsNull => Can::NotFail,
        _ => Can::Fail,
    }
}

/// The sum or difference of two intervals.
pub(super) fn sum(op: BinaryOp, left: Typed, right: Typed, beyond: Beyond) -> Result<Typed> {
    let (l, r) = (Kind::of(&left), Kind::of(&right));
    let returns = match (l, r) {
        (Some(Kind::Months), Some(Kind::Months)) => YEAR_MONTH,
        (Some(Kind::Days), Some(Kind::Days)) => DAYS,
        // Of days and the units of a literal Spark makes a type of its own.
        (Some(Kind::Time), Some(Kind::Time | Kind::Days | Kind::Literal))
        | (Some(Kind::Days | Kind::Literal), Some(Kind::Time)) => DAY_TIME,
        (Some(Kind::Months), Some(_)) | (Some(_), Some(Kind::Months)) => {
            let message = format!(
                "Cannot resolve the expression due to data type mismatch: an interval of months and one of days or time (\"{}\" and \"{}\") have no sum.",
                type_sql(&plain(left).data_type),
                type_sql(&plain(right).data_type)
            );
            return Err(QueryError::mismatch("UNEXPECTED_INPUT_TYPE", message));
        }
        _ => {
            return Err(QueryError::unsupported(
                "the sum of intervals of these units",
            ));
        }
    };
    let (name, sign) = match op {
        BinaryOp::Add => ("add", 1),
        _ => ("subtract", -1),
    };
    let target = returns.clone();
    Ok(Kernel::over_arrays(
        name,
        beyond.prefix(),
        vec![plain(left), plain(right)],
        returns,
        can(beyond),
        move |args, rows| {
            let sums = (0..rows).map(|row| {
                if args.iter().any(|a| a.is_null(row)) {
                    return Ok(None);
                }
                let (l, r) = (amount(&args[0], row), amount(&args[1], row));
                Ok(Some(match sign {
                    1 => l.checked_add(r),
                    _ => l.checked_sub(r),
                }))
            });
            intervals(sums, &target, beyond, || overflow(name))
        },
    ))
}

/// An interval of one unit or more times a number, or by one.
pub(super) fn scaled(
    op: BinaryOp,
    interval: Typed,
    number: Typed,
    beyond: Beyond,
) -> Result<Typed> {
    let returns = match Kind::of(&interval) {
        Some(Kind::Months) => YEAR_MONTH,
        Some(_) => DAY_TIME,
        None => {
            return Err(QueryError::unsupported(
                "an interval of months and days times or by a number",
            ));
        }
    };
    let number = match &number.data_type {
        t if is_integral(t) => cast::implicit(number, &DataType::Int64)?,
        t if is_decimal(t) => number,
        t if is_float(t) => cast::implicit(number, &DataType::Float64)?,
        DataType::Utf8 | DataType::Null => cast::implicit(number, &DataType::Float64)?,
        other => {
            let message = format!(
                "Cannot resolve the expression due to data type mismatch: the left and right operands of the binary operator have incompatible types (\"{}\" and \"{}\").",
                type_sql(&returns),
                type_sql(other)
            );
            return Err(QueryError::mismatch("BINARY_OP_DIFF_TYPES", message));
        }
    };
    let times = op == BinaryOp::Multiply;
    let name = if times { "multiply" } else { "divide" };
    let target = returns.clone();
    Ok(Kernel::over_arrays(
        name,
        beyond.prefix(),
        vec![plain(interval), number],
        returns,
        can(beyond),
        move |args, rows| {
            let results = (0..rows).map(|row| {
                if args.iter().any(|a| a.is_null(row)) {
                    return Ok(None);
                }
                let interval = amount(&args[0], row);
                let result = match args[1].data_type() {
                    DataType::Int64 => {
                        let number = args[1].as_primitive::<Int64Type>().value(row);
                        whole(interval, i128::from(number), 0, times)
                    }
                    DataType::Decimal128(_, scale) => {
                        let number = args[1].as_primitive::<Decimal128Type>().value(row);
                        whole(interval, number, *scale as u32, times)
                    }
                    _ => {
                        let number = args[1].as_primitive::<Float64Type>().value(row);
                        real(interval, number, times)
                    }
                };
                match result {
                    Err(_) if beyond == Beyond::IsNull => Ok(None),
                    result => Ok(Some(result?)),
                }
            });
            intervals(results, &target, beyond, || match times {
                true => overflow("multiply"),
                false => overflow("divide"),
            })
        },
    ))
}

fn by_zero() -> DataFusionError {
    RunError::raise(
        "INTERVAL_DIVIDED_BY_ZERO",
        "Division by zero. Use `try_divide` to tolerate divisor being 0 and return NULL instead.",
    )
}

/// Halves go away from zero.
fn whole(interval: i64, number: i128, scale: u32, times: bool) -> Run<Option<i64>> {
    let (interval, unit) = (i128::from(interval), 10i128.pow(scale));
    let result = match times {
        true => interval
            .checked_mul(number)
            .map(|product| divide_half_up(product, unit)),
        false if number == 0 => return Err(by_zero()),
        false => interval
            .checked_mul(unit)
            .map(|dividend| divide_half_up(dividend, number)),
    };
    Ok(result.and_then(|result| i64::try_from(result).ok()))
}

fn real(interval: i64, number: f64, times: bool) -> Run<Option<i64>> {
    if !times && number == 0.0 {
        return Err(by_zero());
    }
    let result = match times {
        true => interval as f64 * number,
        false => interval as f64 / number,
    };
    if !result.is_finite() {
        let message = "input is infinite or NaN";
        return Err(RunError::raise("ArithmeticException", message));
    }
    let rounded = result.round();
    // The bounds are powers of two: exact.
    let fits = rounded >= -(2f64.powi(63)) && rounded < 2f64.powi(63);
    Ok(fits.then_some(rounded as i64))
}

/// `-interval` and `abs(interval)`.
pub(crate) fn unary(
    name: &'static str,
    value: Typed,
    f: fn(i64) -> Option<i64>,
) -> Option<Result<Typed>> {
    Kind::of(&value)?;
    let value = plain(value);
    let returns = value.data_type.clone();
    let target = returns.clone();
    let made = Kernel::over_arrays(
        name,
        "",
        vec![value],
        returns,
        Can::Fail,
        move |args, rows| {
            let results =
                (0..rows).map(|row| Ok(args[0].is_valid(row).then(|| f(amount(&args[0], row)))));
            intervals(results, &target, Beyond::Fails, || {
                RunError::raise("ARITHMETIC_OVERFLOW", "long overflow")
            })
        },
    );
    Some(Ok(made))
}

/// `signum(interval)`.
pub(crate) fn signum(value: Typed) -> Option<Typed> {
    Kind::of(&value)?;
    Some(Kernel::over_arrays(
        "signum",
        "",
        vec![plain(value)],
        DataType::Float64,
        Can::NotFail,
        |args, rows| {
            let signs = (0..rows).map(|row| {
                args[0]
                    .is_valid(row)
                    .then(|| amount(&args[0], row).signum() as f64)
            });
            Ok(Arc::new(signs.collect::<PrimitiveArray<Float64Type>>()))
        },
    ))
}
