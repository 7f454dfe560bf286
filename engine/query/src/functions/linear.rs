//! Comparisons of moments: how far apart two columns may be where one holds.

use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::{Case, ScalarFunction};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use super::kernel::Kernel;

/// `later - earlier` is at most so many microseconds, where a comparison holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apart {
    /// A column of moments.
    pub later: Column,
    /// Another one.
    pub earlier: Column,
    /// How far `later` may be behind `earlier`; negative if it must be before it.
    pub at_most_us: i64,
    /// False if it must be less.
    pub closed: bool,
    /// True if it is said of the time between them, as in `later - earlier <= span`.
    pub of_difference: bool,
}

/// A sum of columns of moments, each once or taken away once, and a span.
#[derive(Default)]
struct Sum {
    plus: Vec<Column>,
    minus: Vec<Column>,
    /// The least and the most that the span can be: a day is not always as long.
    span_us: (i64, i64),
    /// True if it is a time between two columns, or made of one.
    of_difference: bool,
    /// True if it is a number, the seconds of a moment since 1970 or between two.
    is_number: bool,
}

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400_000_000;
/// By how much a day of the calendar can differ from another, at most.
const SLACK_US: i64 = 3 * 3_600_000_000;

/// What a comparison says of two columns of moments.
pub fn apart(comparison: &Expr) -> Option<Apart> {
    let (left, op, right) = match comparison {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => (left, *op, right),
        // A comparison with what can fail is asked only where the other side is not null.
        Expr::Case(case) => return apart(guarded(case)?),
        Expr::Alias(alias) => return apart(&alias.expr),
        Expr::Not(inner) => match inner.as_ref() {
            Expr::Case(case) => {
                return apart(&Expr::Not(Box::new(guarded(case)?.clone())));
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => (left, op.negate()?, right),
            _ => return None,
        },
        _ => return None,
    };
    let (left, right) = (sum(left)?, sum(right)?);
    if left.is_number != right.is_number {
        return None;
    }
    // Said as: more is at least (or above) less.
    let (less, more, closed) = match op {
        Operator::Lt => (left, right, false),
        Operator::LtEq => (left, right, true),
        Operator::Gt => (right, left, false),
        Operator::GtEq => (right, left, true),
        _ => return None,
    };
    let of_difference = less.of_difference || more.of_difference;
    // less - more <= 0, so that what stands on its plus side is at most what stands on its minus side, and a span.
    let plus: Vec<Column> = less.plus.into_iter().chain(more.minus).collect();
    let minus: Vec<Column> = less.minus.into_iter().chain(more.plus).collect();
    let at_most_us = more.span_us.1.checked_sub(less.span_us.0)?;
    let (Ok([later]), Ok([earlier])) = (
        <[Column; 1]>::try_from(plus),
        <[Column; 1]>::try_from(minus),
    ) else {
        return None;
    };
    Some(Apart {
        later,
        earlier,
        at_most_us,
        closed,
        of_difference,
    })
}

/// A column of moments and by how many microseconds, at least and at most, an expression is after it: if it is that
/// column and a constant span.
pub fn shifted(expr: &Expr) -> Option<(Column, (i64, i64))> {
    let sum = sum(expr)?;
    let [column] = <[Column; 1]>::try_from(sum.plus).ok()?;
    let is_moment = sum.minus.is_empty() && !sum.is_number;
    is_moment.then_some((column, sum.span_us))
}

/// What a CASE says that says nothing otherwise.
pub fn guarded(case: &Case) -> Option<&Expr> {
    let nothing = match case.else_expr.as_deref() {
        None => true,
        Some(Expr::Literal(value, _)) => value.is_null(),
        Some(_) => false,
    };
    match case.when_then_expr.as_slice() {
        [(_, says)] if nothing => Some(says),
        _ => None,
    }
}

/// The sides of a comparison for equality that is true where the bytes of its sides are equal, as keys are compared, and
/// whether it is also true of two nulls.
pub fn equality(comparison: &Expr) -> Option<(&Expr, &Expr, bool)> {
    match comparison {
        Expr::Alias(alias) => equality(&alias.expr),
        // A side that can fail is looked at where the other is not null.
        Expr::Case(case) => equality(guarded(case)?).filter(|(_, _, null_safe)| !null_safe),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::Eq => Some((left, right, false)),
            Operator::IsNotDistinctFrom => Some((left, right, true)),
            _ => None,
        },
        Expr::ScalarFunction(call) => {
            call.func.inner().downcast_ref::<Kernel>()?;
            let [left, right] = call.args.as_slice() else {
                return None;
            };
            match call.func.name() {
                "compare =" => Some((left, right, false)),
                "compare IS NOT DISTINCT FROM" => Some((left, right, true)),
                _ => None,
            }
        }
        _ => None,
    }
}

fn sum(expr: &Expr) -> Option<Sum> {
    match expr {
        Expr::Column(column) => Some(Sum {
            plus: vec![column.clone()],
            ..Sum::default()
        }),
        Expr::Alias(alias) => sum(&alias.expr),
        Expr::Literal(value, _) => {
            let seconds = seconds(value);
            let span = seconds.or_else(|| span(value))?;
            Some(Sum {
                span_us: (span, span),
                is_number: seconds.is_some(),
                ..Sum::default()
            })
        }
        // From whole numbers to larger ones.
        Expr::Cast(cast) => sum(&cast.expr).filter(|sum| sum.is_number),
        Expr::ScalarFunction(call) => called(call),
        _ => None,
    }
}

fn called(call: &ScalarFunction) -> Option<Sum> {
    let kernel = call.func.inner().downcast_ref::<Kernel>()?;
    let (name, params) = (call.func.name(), kernel.params());
    let (first, second) = match call.args.as_slice() {
        [moment] if name == "cast" => return numbered(sum(moment)?, params),
        [first, second] => (sum(first)?, sum(second)?),
        _ => return None,
    };
    let is_number = first.is_number;
    if second.is_number != is_number {
        return None;
    }
    let is_difference = name == "subtract" && !is_number && !second.plus.is_empty();
    let (sign, zone) = match name {
        "add" if is_number => (1, ""),
        "subtract" => (-1, ""),
        "add_interval" => match params.strip_prefix("-1") {
            Some(zone) => (-1, zone),
            None => (1, params.strip_prefix('1')?),
        },
        _ => return None,
    };
    let (mut plus, mut minus, (least, most)) = (first.plus, first.minus, first.span_us);
    let (low, high) = match sign {
        1 => {
            plus.extend(second.plus);
            minus.extend(second.minus);
            second.span_us
        }
        _ => {
            plus.extend(second.minus);
            minus.extend(second.plus);
            (
                second.span_us.1.checked_neg()?,
                second.span_us.0.checked_neg()?,
            )
        }
    };
    let whole_days = low.abs() >= DAY_US || high.abs() >= DAY_US;
    let slack = if whole_days && !zone.is_empty() {
        SLACK_US
    } else {
        0
    };
    Some(Sum {
        plus,
        minus,
        span_us: (
            least.checked_add(low)?.checked_sub(slack)?,
            most.checked_add(high)?.checked_add(slack)?,
        ),
        of_difference: first.of_difference || second.of_difference || is_difference,
        is_number,
    })
}

/// A moment cast to a number: its seconds, whole ones cut off below.
fn numbered(moment: Sum, target: &str) -> Option<Sum> {
    let is_moment = !moment.is_number && moment.plus.len() == 1 && moment.minus.is_empty();
    let is = |name: &str| {
        target
            .strip_prefix("as ")
            .is_some_and(|to| to.starts_with(name))
    };
    let (least, most) = match () {
        () if is("BIGINT") || is("INT") => (1 - SECOND_US, 0),
        () if is("DOUBLE") => (-1, 1),
        () => return None,
    };
    is_moment.then_some(Sum {
        span_us: (
            moment.span_us.0.checked_add(least)?,
            moment.span_us.1.checked_add(most)?,
        ),
        is_number: true,
        ..moment
    })
}

/// A constant number of seconds, in microseconds.
fn seconds(value: &ScalarValue) -> Option<i64> {
    let whole = match value {
        ScalarValue::Int8(Some(number)) => i64::from(*number),
        ScalarValue::Int16(Some(number)) => i64::from(*number),
        ScalarValue::Int32(Some(number)) => i64::from(*number),
        ScalarValue::Int64(Some(number)) => *number,
        _ => return None,
    };
    whole.checked_mul(SECOND_US)
}

/// A constant span in microseconds; months have none.
fn span(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::DurationMicrosecond(Some(micros)) => Some(*micros),
        ScalarValue::IntervalMonthDayNano(Some(interval)) if interval.months == 0 => {
            let days = i64::from(interval.days).checked_mul(DAY_US)?;
            days.checked_add(interval.nanoseconds / 1_000)
        }
        _ => None,
    }
}
