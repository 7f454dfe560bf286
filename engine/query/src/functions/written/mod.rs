//! Resolved expressions as who wrote the query would write them, as far as that is known.

mod physical;
mod ranks;

pub use physical::{aggregate_name, aggregate_written, counted_side, physical_written};

use std::fmt;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, Operator, ScalarUDF};
use highwater_text::type_name::type_sql;

use super::aggregate::rank_of;
use super::arithmetic;
use super::kernel::Kernel;
use super::session::{SESSION, gap_words};
use super::text;
use crate::error::as_written;
use crate::nodes::Grid;

/// An expression in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    text: String,
    /// What holds its parts together, if that takes parentheses inside of another one.
    op: Option<Operator>,
    /// Of a window, whose moments are in it.
    time: Option<String>,
    /// Of several answers in one column each of them, of a grouping its keys.
    parts: Vec<String>,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Written {
    /// Words that need no parentheses.
    pub fn plain(text: impl Into<String>) -> Self {
        Written {
            text: text.into(),
            op: None,
            time: None,
            parts: Vec::new(),
        }
    }

    /// What tells which of the groupings by `keys` a row is of.
    pub fn grouping(keys: Vec<String>) -> Self {
        Written {
            parts: keys,
            ..Written::plain("the grouping")
        }
    }

    /// The numbers of all groupings.
    pub fn groupings() -> Self {
        Written::plain("the groupings")
    }

    /// True for the numbers of all groupings, or that of one where each row comes once for each.
    pub fn is_groupings(&self) -> bool {
        *self == Written::groupings()
    }

    /// True if it tells by which keys a row is grouped.
    pub fn is_grouping(&self) -> bool {
        self.op.is_none() && self.text == "the grouping" && !self.parts.is_empty()
    }

    /// The window, of its end.
    pub fn window(&self) -> &str {
        self.text.strip_suffix(END).unwrap_or(&self.text)
    }

    /// The end of a window of `grid` that this one, or its end, is a part of.
    pub fn part_of(&self, grid: Grid) -> Self {
        let time = self.time.clone().unwrap_or_else(|| self.text.clone());
        Written {
            time: Some(time.clone()),
            ..Written::plain(format!("{}{END}", grid.written(&time)))
        }
    }

    /// True for a window of time, or its end.
    pub fn is_window(&self) -> bool {
        self.time.is_some()
    }

    /// True for the name of a column.
    pub fn is_name(&self) -> bool {
        let mut letters = self.text.chars();
        self.op.is_none() && letters.all(|c| c.is_alphanumeric() || c == '_')
    }

    fn with(text: String, op: Operator) -> Self {
        Written {
            op: Some(op),
            ..Written::plain(text)
        }
    }

    /// The same inside of what `op` holds together.
    fn inside(&self, op: Operator) -> String {
        let same = self.op == Some(op) && [Operator::And, Operator::Or].contains(&op);
        match (same, self.op) {
            (false, Some(_)) => format!("({self})"),
            _ => self.text.clone(),
        }
    }
}

/// How the end of a window is written.
const END: &str = ".end";

/// The expression in words.
pub fn written(expr: &Expr) -> String {
    logical(expr).text
}

fn logical(expr: &Expr) -> Written {
    let all = |exprs: &[Expr]| exprs.iter().map(logical).collect::<Vec<_>>();
    match expr {
        Expr::Column(column) => Written::plain(as_written(&column.name)),
        Expr::Alias(alias) => logical(&alias.expr),
        Expr::Literal(value, _) => Written::plain(literal(value)),
        Expr::BinaryExpr(it) => binary(&logical(&it.left), it.op, &logical(&it.right)),
        Expr::Not(inner) => not(&logical(inner)),
        Expr::Negative(inner) => negative(&logical(inner)),
        Expr::IsNull(inner) => is(&logical(inner), "NULL"),
        Expr::IsNotNull(inner) => is(&logical(inner), "NOT NULL"),
        Expr::IsTrue(inner) => is(&logical(inner), "TRUE"),
        Expr::IsFalse(inner) => is(&logical(inner), "FALSE"),
        Expr::IsNotTrue(inner) => is(&logical(inner), "NOT TRUE"),
        Expr::IsNotFalse(inner) => is(&logical(inner), "NOT FALSE"),
        Expr::Cast(it) => cast("CAST", &logical(&it.expr), it.field.data_type()),
        Expr::TryCast(it) => cast("TRY_CAST", &logical(&it.expr), it.field.data_type()),
        Expr::InList(it) => among(&logical(&it.expr), &all(&it.list), it.negated),
        Expr::Case(it) => {
            let whens = it.when_then_expr.iter();
            let whens = whens.map(|(when, then)| (logical(when), logical(then)));
            let otherwise = it.else_expr.as_deref().filter(|expr| !is_null(expr));
            case(
                it.expr.as_deref().map(logical),
                whens.collect(),
                otherwise.map(logical),
            )
        }
        Expr::ScalarFunction(it) => call(&it.func, &all(&it.args)),
        other => Written::plain(other.to_string()),
    }
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if value.is_null())
}

fn binary(left: &Written, op: Operator, right: &Written) -> Written {
    // `grouping(key)` is a bit of the grouping.
    let bit = match op {
        Operator::BitwiseShiftRight if left.is_grouping() => right.text.parse().ok(),
        Operator::BitwiseAnd if left.is_grouping() && right.text == "1" => Some(0),
        _ => None,
    };
    let place = bit.and_then(|bit: usize| left.parts.len().checked_sub(bit + 1));
    if let Some(place) = place {
        return Written::plain(format!("grouping({})", left.parts[place]));
    }
    if op == Operator::BitwiseAnd && left.text.starts_with("grouping(") && right.text == "1" {
        return left.clone();
    }
    let sign = match op {
        Operator::NotEq => "<>".to_string(),
        Operator::IsNotDistinctFrom => "<=>".to_string(),
        other => other.to_string(),
    };
    let text = format!("{} {sign} {}", left.inside(op), right.inside(op));
    Written::with(text, op)
}

fn not(inner: &Written) -> Written {
    match inner.text.strip_suffix(" IS NULL") {
        Some(inner) => Written::with(format!("{inner} IS NOT NULL"), Operator::IsDistinctFrom),
        None => Written::with(
            format!("NOT {}", inner.inside(Operator::Eq)),
            Operator::NotEq,
        ),
    }
}

fn negative(inner: &Written) -> Written {
    Written::plain(format!("-{}", inner.inside(Operator::Minus)))
}

fn is(inner: &Written, what: &str) -> Written {
    let text = format!("{} IS {what}", inner.inside(Operator::IsDistinctFrom));
    Written::with(text, Operator::IsDistinctFrom)
}

fn cast(how: &str, inner: &Written, data_type: &DataType) -> Written {
    if inner.op.is_none() && inner.text.starts_with("grouping(") {
        return inner.clone();
    }
    Written::plain(format!("{how}({inner} AS {})", type_sql(data_type)))
}

fn among(value: &Written, list: &[Written], negated: bool) -> Written {
    let not = if negated { "NOT " } else { "" };
    let text = format!("{} {not}IN ({})", value.inside(Operator::Eq), listed(list));
    Written::with(text, Operator::Eq)
}

fn case(
    of: Option<Written>,
    whens: Vec<(Written, Written)>,
    otherwise: Option<Written>,
) -> Written {
    // What a grouping lacks is null in it.
    let of_grouping = |when: &Written| when.text.starts_with("the groupings IN (");
    if of.is_none() && whens.iter().all(|(when, _)| of_grouping(when)) {
        match whens.as_slice() {
            [(_, key)] if key.text.parse::<i64>().is_err() => return key.clone(),
            _ => return Written::plain("the grouping"),
        }
    }
    // What is asked where a column is known is unknown elsewhere anyhow.
    if let (Some(of), [(when, then)], None) = (&of, whens.as_slice(), &otherwise)
        && of.text.ends_with(" IS NOT NULL")
        && when.text == "true"
    {
        return then.clone();
    }
    // AND and OR whose right side is not asked where the left one settles it.
    if let (Some(of), [(first, one), (_, rest)], Some(unknown)) =
        (&of, whens.as_slice(), &otherwise)
    {
        let op = match (first.text.as_str(), one.text.as_str()) {
            ("false", "false") => Some(Operator::And),
            ("true", "true") => Some(Operator::Or),
            _ => None,
        };
        let null = Written::plain("NULL");
        if let Some(op) = op.filter(|op| binary(rest, *op, &null) == *unknown) {
            return binary(of, op, rest);
        }
    }
    let mut text = "CASE".to_string();
    if let Some(of) = of {
        text.push_str(&format!(" {of}"));
    }
    for (when, then) in whens {
        text.push_str(&format!(" WHEN {when} THEN {then}"));
    }
    if let Some(otherwise) = otherwise {
        text.push_str(&format!(" ELSE {otherwise}"));
    }
    text.push_str(" END");
    Written::plain(text)
}

/// A call of a function, ours by the operator or the call that it is written as.
fn call(func: &ScalarUDF, args: &[Written]) -> Written {
    let name = func.name();
    let name = name.strip_prefix("wrapping_").unwrap_or(name);
    let kernel = func.inner().downcast_ref::<Kernel>();
    let params = kernel.map_or("", Kernel::params);
    if let (Some(rank), [values]) = (rank_of(func), args) {
        return Written::plain(ranks::asked_of(rank, &values.text));
    }
    match (name, args) {
        ("add_interval", [moment, interval]) => {
            let op = match params.starts_with('-') {
                true => Operator::Minus,
                false => Operator::Plus,
            };
            binary(moment, op, interval)
        }
        ("negative", [value]) => negative(value),
        ("cast" | "try_cast", [value]) => match kernel {
            Some(kernel) if kernel.is_implied() => value.clone(),
            Some(kernel) => cast(&name.to_uppercase(), value, kernel.returns()),
            None => value.clone(),
        },
        ("like" | "ilike" | "rlike", [value, pattern, ..]) => {
            let like = name.to_uppercase();
            let op = Operator::LikeMatch;
            let text = format!("{} {like} {}", value.inside(op), pattern.inside(op));
            Written::with(text, op)
        }
        ("field", [value]) => Written::plain(format!("{}.{params}", value.inside(Operator::Eq))),
        ("element", [value, index]) => {
            Written::plain(format!("{}[{index}]", value.inside(Operator::Eq)))
        }
        // One of several answers.
        ("rank", [all]) => match params
            .parse()
            .ok()
            .and_then(|nth: usize| all.parts.get(nth))
        {
            Some(answer) => Written::plain(answer),
            None => Written::plain(format!("rank({all})")),
        },
        ("normalized" | "or_empty" | "time in groupings", [value, ..]) => value.clone(),
        // A window is told by its end, or by that of a pane of it.
        ("window end" | "windows", [time]) => window(time, params, name == "windows"),
        ("window of end", [end]) => Written {
            text: end.window().to_string(),
            ..end.clone()
        },
        ("moment of pane", [end]) => match &end.time {
            Some(time) => Written::plain(time),
            None => end.clone(),
        },
        (SESSION, [time]) => {
            let gap = gap_words(params);
            Written::plain(format!("session_window({time}, '{gap}')"))
        }
        (SESSION, [time, gap]) => Written::plain(format!("session_window({time}, {gap})")),
        (name, [left, right]) if name.starts_with("compare ") => {
            let sign = name.trim_start_matches("compare ");
            let op = Operator::Eq;
            Written::with(
                format!("{} {sign} {}", left.inside(op), right.inside(op)),
                op,
            )
        }
        (name, [left, right]) => match arithmetic::operator(name) {
            Some(op) => binary(left, op, right),
            None => Written::plain(format!("{name}({left}, {right})")),
        },
        (name, args) => Written::plain(format!("{name}({})", listed(args))),
    }
}

/// The end of a window over `time`.
fn window(time: &Written, params: &str, several: bool) -> Written {
    let numbers = params.split(", ").map(|number| number.parse().unwrap_or(0));
    let numbers: Vec<i64> = numbers.collect();
    let [width_us, slide_us, start_us] = numbers.as_slice() else {
        return Written::plain(format!("window({time})"));
    };
    let grid = Grid {
        width_us: *width_us,
        slide_us: *slide_us,
        start_us: *start_us,
    };
    let end = if several { "" } else { END };
    Written {
        time: Some(time.text.clone()),
        ..Written::plain(format!("{}{end}", grid.written(&time.text)))
    }
}

impl Grid {
    /// The call of `window` over `time`, as short as it can be written.
    pub fn written(&self, time: &str) -> String {
        let of = [self.width_us, self.slide_us, self.start_us];
        let count = match (self.start_us, self.is_tumbling()) {
            (0, true) => 1,
            (0, false) => 2,
            _ => 3,
        };
        let of = of.iter().take(count);
        let of: Vec<String> = of.map(|us| format!("'{}'", duration(*us))).collect();
        format!("window({time}, {})", of.join(", "))
    }
}

/// A time of so many microseconds, in the largest unit that it is a whole number of.
pub fn duration(micros: i64) -> String {
    let units = [
        ("day", 86_400_000_000),
        ("hour", 3_600_000_000),
        ("minute", 60_000_000),
        ("second", 1_000_000),
        ("millisecond", 1_000),
    ];
    let whole = units
        .into_iter()
        .find(|(_, us)| micros != 0 && micros % us == 0);
    let (unit, us) = whole.unwrap_or(match micros {
        0 => ("second", 1),
        _ => ("microsecond", 1),
    });
    let count = micros / us;
    match count {
        1 => format!("1 {unit}"),
        _ => format!("{count} {unit}s"),
    }
}

fn listed(parts: &[Written]) -> String {
    let parts: Vec<&str> = parts.iter().map(|part| part.text.as_str()).collect();
    parts.join(", ")
}

/// A constant.
fn literal(value: &ScalarValue) -> String {
    if value.is_null() {
        return "NULL".into();
    }
    match value {
        ScalarValue::Utf8(Some(text)) => format!("'{}'", text.replace('\'', "''")),
        ScalarValue::Float64(Some(value)) => text::double(*value),
        ScalarValue::Float32(Some(value)) => text::float(*value),
        ScalarValue::Decimal128(Some(value), _, scale) => text::decimal(*value, *scale),
        ScalarValue::Date32(Some(days)) => format!("DATE '{}'", text::date(i64::from(*days))),
        ScalarValue::TimestampMicrosecond(Some(micros), None) => {
            format!("TIMESTAMP_NTZ '{}'", text::timestamp(*micros))
        }
        ScalarValue::TimestampMicrosecond(Some(micros), _) => {
            format!("TIMESTAMP '{}Z'", text::timestamp(*micros))
        }
        ScalarValue::IntervalMonthDayNano(Some(interval)) => {
            let micros = interval.nanoseconds / 1_000;
            let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
            let amounts = [
                (i64::from(interval.months), "MONTHS"),
                (i64::from(interval.days), "DAYS"),
                (seconds, "SECONDS"),
                (micros, "MICROSECONDS"),
            ];
            let amounts = amounts.iter().filter(|(amount, _)| *amount != 0);
            let amounts: Vec<String> = amounts
                .map(|(amount, unit)| format!("{amount} {unit}"))
                .collect();
            match amounts.is_empty() {
                true => "INTERVAL 0 SECONDS".into(),
                false => format!("INTERVAL {}", amounts.join(" ")),
            }
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit, when};

    use super::*;

    #[test]
    fn literals_and_names_are_the_querys_own() {
        let null = Expr::Literal(ScalarValue::Int64(None), None);
        for (expr, expected) in [
            (col("__v_3") + lit(1_i64), "v + 1"),
            (lit("it's"), "'it''s'"),
            (null, "NULL"),
            (
                col("a")
                    .gt(lit(1))
                    .and(col("b").not_eq(lit(2)).or(col("c"))),
                "(a > 1) AND ((b <> 2) OR c)",
            ),
            (Expr::Not(Box::new(col("a").is_null())), "a IS NOT NULL"),
            (
                when(col("a").gt(lit(1)), lit("x")).end().expect("a case"),
                "CASE WHEN a > 1 THEN 'x' END",
            ),
        ] {
            assert_eq!(written(&expr), expected);
        }
    }

    #[test]
    fn times_are_told_in_whole_units() {
        let all = [10_000_000, 90_000_000, 3_600_000_000, 1, 0, 1_500].map(duration);
        let expected = [
            "10 seconds",
            "90 seconds",
            "1 hour",
            "1 microsecond",
            "0 seconds",
        ];
        assert_eq!(all[..5], expected);
        assert_eq!(all[5], "1500 microseconds");
    }
}
