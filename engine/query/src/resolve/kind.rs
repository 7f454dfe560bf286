//! Which operands are times and intervals, as far as a name depends on it: `ts + INTERVAL '1' DAY` has no brackets.

use arrow::datatypes::DataType;

use super::name::Names;
use crate::coerce::is_timestamp;
use crate::expr::{BinaryOp, Call, Expr, IntervalUnit, Literal, UnaryOp};
use crate::functions::interval::is_interval;
use crate::types::{DAYS, YEAR_MONTH, parse_type};

/// What an operand is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Date,
    Timestamp,
    Text,
    /// An interval of days alone.
    Days,
    Months,
    /// Any other interval.
    Interval,
    Other,
}

impl Kind {
    pub(super) fn is_interval(self) -> bool {
        matches!(self, Kind::Days | Kind::Months | Kind::Interval)
    }

    fn of_type(data_type: &DataType) -> Kind {
        match data_type {
            DataType::Date32 => Kind::Date,
            DataType::Utf8 => Kind::Text,
            t if is_timestamp(t) => Kind::Timestamp,
            t if *t == DAYS => Kind::Days,
            t if *t == YEAR_MONTH => Kind::Months,
            t if is_interval(t) => Kind::Interval,
            _ => Kind::Other,
        }
    }

    pub(super) fn of(expr: &Expr, names: &Names<'_>) -> Kind {
        match expr {
            Expr::Column { name, .. } => of_column(name, names),
            Expr::Literal(literal, _) => of_literal(literal),
            Expr::TypedText { kind, .. } if kind.eq_ignore_ascii_case("date") => Kind::Date,
            Expr::TypedText { .. } => Kind::Timestamp,
            Expr::Cast { to, .. } => parse_type(to).map_or(Kind::Other, |t| Kind::of_type(&t)),
            Expr::Alias { expr, .. } => Kind::of(expr, names),
            Expr::Unary {
                op: UnaryOp::Minus | UnaryOp::Plus,
                expr,
            } => match Kind::of(expr, names) {
                kind if kind.is_interval() => kind,
                _ => Kind::Other,
            },
            Expr::Binary {
                left, op, right, ..
            } => of_operator(Kind::of(left, names), *op, Kind::of(right, names)),
            Expr::Case { branches, .. } => branches
                .first()
                .map_or(Kind::Other, |(_, then)| Kind::of(then, names)),
            Expr::Field { expr, name, .. } => match &**expr {
                Expr::Call(call)
                    if super::window::is_window_call(call)
                        && matches!(&**name, "start" | "end") =>
                {
                    Kind::Timestamp
                }
                _ => Kind::Other,
            },
            Expr::Call(call) => of_call(call, names),
            _ => Kind::Other,
        }
    }
}

fn of_column(name: &[String], names: &Names<'_>) -> Kind {
    let Some((qualifier, column)) = names.find(name) else {
        return match name {
            [name] if matches!(&*name.to_lowercase(), "current_date") => Kind::Date,
            [name]
                if matches!(
                    &*name.to_lowercase(),
                    "current_timestamp" | "localtimestamp"
                ) =>
            {
                Kind::Timestamp
            }
            _ => Kind::Other,
        };
    };
    let mut data_type = &column.data_type;
    for field in &name[qualifier + 1..] {
        let DataType::Struct(fields) = data_type else {
            return Kind::Other;
        };
        match fields.iter().find(|f| f.name().eq_ignore_ascii_case(field)) {
            Some(field) => data_type = field.data_type(),
            None => return Kind::Other,
        }
    }
    Kind::of_type(data_type)
}

fn of_literal(literal: &Literal) -> Kind {
    match literal {
        Literal::Date(_) => Kind::Date,
        Literal::Timestamp(_) | Literal::TimestampNtz(_) => Kind::Timestamp,
        Literal::String(_) => Kind::Text,
        Literal::YearMonthInterval(_) => Kind::Months,
        Literal::CalendarInterval {
            units: Some((from, to)),
            ..
        } => match (from, to) {
            (IntervalUnit::Day, IntervalUnit::Day) => Kind::Days,
            (IntervalUnit::Year | IntervalUnit::Month, _) => Kind::Months,
            _ => Kind::Interval,
        },
        Literal::DayTimeInterval(_) | Literal::CalendarInterval { .. } => Kind::Interval,
        _ => Kind::Other,
    }
}

fn of_operator(left: Kind, op: BinaryOp, right: Kind) -> Kind {
    let time = |kind| matches!(kind, Kind::Date | Kind::Timestamp);
    match (left, op, right) {
        (Kind::Date, BinaryOp::Subtract, Kind::Date) => Kind::Days,
        (l, BinaryOp::Subtract, r) if time(l) && time(r) => Kind::Interval,
        (Kind::Date, BinaryOp::Add | BinaryOp::Subtract, Kind::Interval)
        | (Kind::Interval, BinaryOp::Add, Kind::Date) => Kind::Timestamp,
        (l, BinaryOp::Add | BinaryOp::Subtract, _) if time(l) => l,
        (_, BinaryOp::Add, r) if time(r) => r,
        (l, BinaryOp::Add | BinaryOp::Subtract, r) if l == r && l.is_interval() => l,
        (l, BinaryOp::Add | BinaryOp::Subtract, r) if l.is_interval() && r.is_interval() => {
            Kind::Interval
        }
        (Kind::Months, BinaryOp::Multiply | BinaryOp::Divide, _)
        | (_, BinaryOp::Multiply, Kind::Months) => Kind::Months,
        (l, BinaryOp::Multiply | BinaryOp::Divide, _) if l.is_interval() => Kind::Interval,
        (_, BinaryOp::Multiply, r) if r.is_interval() => Kind::Interval,
        _ => Kind::Other,
    }
}

fn of_call(call: &Call, names: &Names<'_>) -> Kind {
    let nth = |nth: usize| {
        call.args
            .get(nth)
            .map_or(Kind::Other, |e| Kind::of(e, names))
    };
    match (&*call.name.to_lowercase(), call.args.len()) {
        ("dateadd" | "date_add" | "timestampadd", 3) => Kind::Timestamp,
        (
            "add_months"
            | "curdate"
            | "current_date"
            | "date"
            | "date_add"
            | "date_from_unix_date"
            | "date_sub"
            | "dateadd"
            | "last_day"
            | "make_date"
            | "next_day"
            | "to_date"
            | "trunc"
            | "try_to_date",
            _,
        ) => Kind::Date,
        (
            "current_timestamp" | "date_trunc" | "from_utc_timestamp" | "localtimestamp"
            | "make_timestamp" | "make_timestamp_ltz" | "make_timestamp_ntz" | "now" | "timestamp"
            | "timestamp_micros" | "timestamp_millis" | "timestamp_seconds" | "to_timestamp"
            | "to_timestamp_ltz" | "to_timestamp_ntz" | "to_utc_timestamp" | "try_to_timestamp"
            | "window_time",
            _,
        ) => Kind::Timestamp,
        ("make_ym_interval", _) => Kind::Months,
        ("make_dt_interval" | "make_interval" | "try_make_interval", _) => Kind::Interval,
        (
            "abs" | "any_value" | "coalesce" | "first" | "first_value" | "greatest" | "ifnull"
            | "lag" | "last" | "last_value" | "lead" | "least" | "max" | "max_by" | "min"
            | "min_by" | "mode" | "nth_value" | "nullif" | "nvl" | "sum",
            1..,
        ) => nth(0),
        ("if" | "nvl2", 3) => nth(1),
        _ => Kind::Other,
    }
}
