//! Which types go together: Spark's ANSI coercion.

use arrow::datatypes::{DataType, Field};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr as DfExpr;
use std::sync::Arc;

use crate::error::QueryError;
use crate::functions::cast;
use crate::functions::interval::{self, Kind};
use crate::functions::kernel::Typed;
use crate::types::{DAY_TIME, TIMESTAMP_NTZ, list_of, map_of, quoted, timestamp, type_sql};

type Result<T> = std::result::Result<T, QueryError>;

pub(crate) fn is_integral(t: &DataType) -> bool {
    matches!(
        t,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64
    )
}

pub(crate) fn is_float(t: &DataType) -> bool {
    matches!(t, DataType::Float32 | DataType::Float64)
}

pub(crate) fn is_decimal(t: &DataType) -> bool {
    matches!(t, DataType::Decimal128(..))
}

pub(crate) fn is_numeric(t: &DataType) -> bool {
    is_integral(t) || is_float(t) || is_decimal(t)
}

pub(crate) fn is_timestamp(t: &DataType) -> bool {
    matches!(t, DataType::Timestamp(..))
}

pub(crate) fn is_time(t: &DataType) -> bool {
    is_timestamp(t) || *t == DataType::Date32
}

pub(crate) fn is_atomic(t: &DataType) -> bool {
    !matches!(
        t,
        DataType::Null | DataType::List(_) | DataType::Map(..) | DataType::Struct(_)
    )
}

/// The decimal that holds every value of an integral type.
pub(crate) fn decimal_for(t: &DataType) -> Option<(u8, i8)> {
    Some(match t {
        DataType::Int8 => (3, 0),
        DataType::Int16 => (5, 0),
        DataType::Int32 => (10, 0),
        DataType::Int64 => (20, 0),
        DataType::Decimal128(p, s) => (*p, *s),
        _ => return None,
    })
}

/// A decimal of at most 38 digits: what does not fit is taken from the fraction, down to six digits of it.
pub(crate) fn adjusted(precision: i32, scale: i32) -> DataType {
    if precision <= 38 {
        return DataType::Decimal128(precision as u8, scale as i8);
    }
    let whole = precision - scale;
    DataType::Decimal128(38, (38 - whole).max(scale.min(6)) as i8)
}

/// The narrowest decimal that holds both, cut at 38 digits.
pub(crate) fn wider_decimal(a: (u8, i8), b: (u8, i8)) -> DataType {
    let scale = a.1.max(b.1);
    let whole = (i32::from(a.0) - i32::from(a.1)).max(i32::from(b.0) - i32::from(b.1));
    DataType::Decimal128((whole + i32::from(scale)).min(38) as u8, scale.min(38))
}

fn rank(t: &DataType) -> Option<usize> {
    use DataType::*;
    [Int8, Int16, Int32, Int64, Float32, Float64]
        .iter()
        .position(|r| r == t)
}

/// The type that both become without losing anything, if there is one.
pub(crate) fn tightest(a: &DataType, b: &DataType) -> Option<DataType> {
    if a == b {
        return Some(a.clone());
    }
    match (a, b) {
        (DataType::Null, other) | (other, DataType::Null) => return Some(other.clone()),
        (DataType::Date32, t @ DataType::Timestamp(..))
        | (t @ DataType::Timestamp(..), DataType::Date32) => {
            return Some(t.clone());
        }
        (DataType::Timestamp(..), DataType::Timestamp(..)) => return Some(timestamp()),
        (DataType::Duration(_), DataType::Duration(_)) => return Some(DAY_TIME),
        _ => {}
    }
    let (decimal, other) = match (is_decimal(a), is_decimal(b)) {
        (true, false) => (a, b),
        (false, true) => (b, a),
        (true, true) => return None,
        (false, false) => {
            let widest = if rank(a)? > rank(b)? { a } else { b };
            // An integer does not fit a float's 24 bits.
            return Some(if *widest == DataType::Float32 {
                DataType::Float64
            } else {
                widest.clone()
            });
        }
    };
    let ((p, s), (ip, _)) = (decimal_for(decimal)?, decimal_for(other)?);
    (i32::from(p) - i32::from(s) >= i32::from(ip)).then(|| decimal.clone())
}

/// The type that both become where a choice must be made: CASE, COALESCE, arrays, UNION.
pub(crate) fn wider(a: &DataType, b: &DataType) -> Option<DataType> {
    if let Some(found) = tightest(a, b) {
        return Some(found);
    }
    if let (Some(a), Some(b)) = (decimal_for(a), decimal_for(b)) {
        return Some(wider_decimal(a, b));
    }
    match (a, b) {
        (DataType::Decimal128(..), f) | (f, DataType::Decimal128(..)) if is_float(f) => {
            Some(DataType::Float64)
        }
        (DataType::Utf8, other) | (other, DataType::Utf8) => match other {
            t if is_integral(t) => Some(DataType::Int64),
            t if is_numeric(t) => Some(DataType::Float64),
            t if is_atomic(t) => Some(t.clone()),
            _ => None,
        },
        (DataType::List(x), DataType::List(y)) => wider(x.data_type(), y.data_type()).map(list_of),
        (DataType::Map(x, _), DataType::Map(y, _)) => match (x.data_type(), y.data_type()) {
            (DataType::Struct(x), DataType::Struct(y)) => Some(map_of(
                wider(x[0].data_type(), y[0].data_type())?,
                wider(x[1].data_type(), y[1].data_type())?,
            )),
            _ => None,
        },
        (DataType::Struct(x), DataType::Struct(y)) if x.len() == y.len() => {
            let fields = x.iter().zip(y).map(|(x, y)| {
                let same = x.name().eq_ignore_ascii_case(y.name());
                let t = same
                    .then(|| wider(x.data_type(), y.data_type()))
                    .flatten()?;
                Some(Arc::new(Field::new(x.name(), t, true)))
            });
            Some(DataType::Struct(fields.collect::<Option<Vec<_>>>()?.into()))
        }
        _ => None,
    }
}

/// Whether the types are the same but for what fields are called and whether they can be null.
pub(crate) fn same_shape(a: &DataType, b: &DataType) -> bool {
    match (a, b) {
        (DataType::List(x), DataType::List(y)) => same_shape(x.data_type(), y.data_type()),
        (DataType::Map(x, _), DataType::Map(y, _)) => same_shape(x.data_type(), y.data_type()),
        (DataType::Struct(x), DataType::Struct(y)) => {
            let same =
                |(x, y): (&Arc<Field>, &Arc<Field>)| same_shape(x.data_type(), y.data_type());
            x.len() == y.len() && x.iter().zip(y).all(same)
        }
        (a, b) => a == b,
    }
}

/// The type of a value as errors tell it: a field that a constant fills cannot be null.
pub(crate) fn told(value: &Typed) -> String {
    let DataType::Struct(fields) = &value.data_type else {
        return type_sql(&value.data_type);
    };
    let filled: Vec<bool> = match &value.expr {
        DfExpr::ScalarFunction(made) if made.args.len() == fields.len() => {
            let filled =
                |arg: &DfExpr| matches!(arg, DfExpr::Literal(value, _) if !value.is_null());
            made.args.iter().map(filled).collect()
        }
        _ => vec![false; fields.len()],
    };
    let fields = fields.iter().zip(filled).map(|(field, filled)| {
        let not_null = if filled { " NOT NULL" } else { "" };
        let (name, data_type) = (quoted(field.name()), type_sql(field.data_type()));
        format!("{name}: {data_type}{not_null}")
    });
    format!("STRUCT<{}>", fields.collect::<Vec<_>>().join(", "))
}

/// The type `other` with the names that the fields of `of` have.
pub(crate) fn named_as(of: &DataType, other: &DataType) -> DataType {
    match (of, other) {
        (DataType::List(x), DataType::List(y)) => list_of(named_as(x.data_type(), y.data_type())),
        (DataType::Struct(x), DataType::Struct(y)) if x.len() == y.len() => {
            let fields = x.iter().zip(y).map(|(x, y)| {
                let data_type = named_as(x.data_type(), y.data_type());
                Arc::new(Field::new(x.name(), data_type, true))
            });
            DataType::Struct(fields.collect::<Vec<_>>().into())
        }
        _ => other.clone(),
    }
}

/// The wider type of all; `None` names the first that does not fit.
pub(crate) fn wider_of_all<'t>(types: impl IntoIterator<Item = &'t DataType>) -> Option<DataType> {
    types
        .into_iter()
        .try_fold(DataType::Null, |all, t| wider(&all, t))
}

/// All arguments cast to their wider type.
pub(crate) fn same_type(function: &str, args: Vec<Typed>) -> Result<(Vec<Typed>, DataType)> {
    // Beside an interval of days to seconds a literal of whichever units becomes one.
    let widest = args.iter().any(|a| a.data_type == DAY_TIME);
    let args = args.into_iter().map(|arg| match Kind::of(&arg) {
        Some(Kind::Literal) if widest => interval::plain(arg),
        _ => interval::plain_days(arg),
    });
    let args: Vec<Typed> = args.collect();
    let Some(target) = wider_of_all(args.iter().map(|a| &a.data_type)) else {
        let types: Vec<String> = args.iter().map(|a| format!("\"{}\"", told(a))).collect();
        let message = format!(
            "Cannot resolve \"{function}\" due to data type mismatch: Input to `{function}` should all be the same type, but it's {}.",
            match function {
                "casewhen" | "if" => format!("[{}]", types.join(", ")),
                _ => format!("({})", types.join(" or ")),
            }
        );
        return Err(QueryError::mismatch("DATA_DIFF_TYPES", message));
    };
    let args = args
        .into_iter()
        .map(|a| cast::implicit(a, &target))
        .collect::<Result<_>>()?;
    Ok((args, target))
}

/// Whether a function that takes `to` also takes `from`, by an implicit cast.
pub(crate) fn accepts(from: &DataType, to: &DataType) -> bool {
    if from == to || *from == DataType::Null {
        return true;
    }
    match (from, to) {
        (DataType::Utf8, to) => is_atomic(to),
        (from, DataType::Utf8) => is_atomic(from) && *from != DataType::Binary,
        (DataType::List(a), DataType::List(b)) => accepts(a.data_type(), b.data_type()),
        (from, to) if is_numeric(from) && is_numeric(to) => {
            *to == DataType::Float64 || tightest(from, to).as_ref() == Some(to)
        }
        (from, to) => {
            is_time(from) && is_time(to) && (*from == DataType::Date32 || *to != TIMESTAMP_NTZ)
        }
    }
}

/// The argument as the type that the function takes.
pub(crate) fn argument(function: &str, nth: usize, arg: Typed, to: &DataType) -> Result<Typed> {
    // A number is taken for a smaller one as far as it fits.
    let fits = is_numeric(&arg.data_type) && is_integral(to);
    if fits || accepts(&arg.data_type, to) {
        return cast::implicit(arg, to);
    }
    Err(unexpected(function, nth, &arg, &type_sql(to)))
}

/// Which of the arguments, in words.
pub(crate) fn ordinal(nth: usize) -> &'static str {
    let words = ["first", "second", "third", "fourth", "fifth"];
    words.get(nth).copied().unwrap_or("next")
}

pub(crate) fn unexpected(function: &str, nth: usize, arg: &Typed, wanted: &str) -> QueryError {
    let ordinal = ordinal(nth);
    // Several come in parentheses, and quoted.
    let wanted = match wanted.starts_with('(') {
        true => wanted.to_string(),
        false => format!("\"{wanted}\""),
    };
    let message = format!(
        "Cannot resolve \"{function}\" due to data type mismatch: The {ordinal} parameter requires the {wanted} type, however the argument has the type \"{}\".",
        type_sql(&arg.data_type)
    );
    QueryError::mismatch("UNEXPECTED_INPUT_TYPE", message)
}

/// Just the decimal that an integral constant needs: `2` is DECIMAL(1,0), so that `dec * 2` stays narrow.
pub(crate) fn decimal_for_operand(operand: &Typed) -> Option<(u8, i8)> {
    let value: i64 = match operand.constant() {
        Some(ScalarValue::Int8(Some(v))) => i64::from(*v),
        Some(ScalarValue::Int16(Some(v))) => i64::from(*v),
        Some(ScalarValue::Int32(Some(v))) => i64::from(*v),
        Some(ScalarValue::Int64(Some(v))) => *v,
        _ => return decimal_for(&operand.data_type),
    };
    Some((value.unsigned_abs().to_string().len() as u8, 0))
}
