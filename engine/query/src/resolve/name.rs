//! What Spark calls a column that was given no name: `count(1)`, `(a + b)`, `CAST(a AS INT)`.

use crate::expr::{
    BinaryOp, Bound, Call, Expr, Frame, Groupings, IsTest, LikeKind, Literal, Quantifier, UnaryOp,
    Window,
};
use crate::functions::text;
use crate::types::{parse_type, type_sql};

/// The name of an expression that stands alone in a select list.
pub(super) fn output_name(expr: &Expr, column: &dyn Fn(&[String]) -> String) -> String {
    match expr {
        Expr::Column { name, .. } => name.last().cloned().unwrap_or_default(),
        Expr::Alias { names, .. } if names.len() == 1 => names[0].clone(),
        Expr::Cast { expr, .. } if is_column(expr, column) => output_name(expr, column),
        Expr::Call(call) if is_conversion(call) && is_column(&call.args[0], column) => {
            output_name(&call.args[0], column)
        }
        other => pretty(other, column),
    }
}

/// Whether the expression is a column itself and not a field of one: it keeps its name through a cast.
fn is_column(expr: &Expr, column: &dyn Fn(&[String]) -> String) -> bool {
    match expr {
        Expr::Column { name, .. } => name.len() == 1 || Some(&column(name)) == name.last(),
        _ => false,
    }
}

/// Whether the call is a cast by the name of a type: `string(a)`.
fn is_conversion(call: &Call) -> bool {
    let name = call.name.to_lowercase();
    let is_type = crate::functions::is_type(&name) || matches!(name.as_str(), "date" | "timestamp");
    is_type && call.args.len() == 1
}

/// The expression as Spark prints it; `column` says what is left of a column's name.
pub(super) fn pretty(expr: &Expr, column: &dyn Fn(&[String]) -> String) -> String {
    let of = |expr: &Expr| pretty(expr, column);
    let list = |exprs: &[Expr]| exprs.iter().map(&of).collect::<Vec<_>>().join(", ");
    let not = |negated: bool, text: String| {
        if negated {
            format!("(NOT {text})")
        } else {
            text
        }
    };
    match expr {
        Expr::Column { name, .. } => column(name),
        Expr::Literal(literal, _) => literal_text(literal),
        Expr::TypedText { kind, text, .. } => format!("{} '{text}'", kind.to_uppercase()),
        Expr::Call(call) => call_text(call, column),
        Expr::Binary {
            left,
            op: BinaryOp::Concat,
            right,
            ..
        } => format!("concat({}, {})", of(left), of(right)),
        Expr::Binary {
            left,
            op: BinaryOp::NotEq,
            right,
            ..
        } => format!("(NOT ({} = {}))", of(left), of(right)),
        Expr::Binary {
            left, op, right, ..
        } => format!("({} {} {})", of(left), op.symbol(), of(right)),
        Expr::Unary {
            op: UnaryOp::Not,
            expr,
        } => format!("(NOT {})", of(expr)),
        Expr::Unary {
            op: UnaryOp::Minus,
            expr,
        } => format!("(- {})", of(expr)),
        Expr::Unary {
            op: UnaryOp::Plus,
            expr,
        } => format!("(+ {})", of(expr)),
        Expr::Unary {
            op: UnaryOp::BitNot,
            expr,
        } => format!("~{}", of(expr)),
        Expr::Cast {
            expr, to, attempt, ..
        } => {
            let name = if *attempt { "TRY_CAST" } else { "CAST" };
            let to = parse_type(to).map_or_else(|_| to.to_uppercase(), |t| type_sql(&t));
            format!("{name}({} AS {to})", of(expr))
        }
        Expr::Case {
            operand,
            branches,
            otherwise,
        } => {
            let mut text = "CASE".to_string();
            for (when, then) in branches {
                let when = match operand {
                    Some(operand) => format!("({} = {})", of(operand), of(when)),
                    None => of(when),
                };
                text.push_str(&format!(" WHEN {when} THEN {}", of(then)));
            }
            if let Some(otherwise) = otherwise {
                text.push_str(&format!(" ELSE {}", of(otherwise)));
            }
            text + " END"
        }
        Expr::Alias { expr, .. } | Expr::Sort { expr, .. } => of(expr),
        Expr::Star { .. } => "*".into(),
        Expr::Between {
            expr,
            low,
            high,
            negated,
        } => not(
            *negated,
            format!("between({}, {}, {})", of(expr), of(low), of(high)),
        ),
        Expr::In {
            expr,
            list: values,
            negated,
        } => not(*negated, format!("({} IN ({}))", of(expr), list(values))),
        Expr::Like {
            kind,
            expr,
            patterns,
            quantifier,
            escape,
            negated,
        } => {
            let escape = escape.map(|c| format!(" ESCAPE '{c}'")).unwrap_or_default();
            let text = match (kind, quantifier) {
                (LikeKind::RLike, _) => format!("RLIKE({}, {})", of(expr), list(patterns)),
                (LikeKind::Like, Quantifier::One) => {
                    format!("{} LIKE {}{escape}", of(expr), list(patterns))
                }
                (LikeKind::ILike, Quantifier::One) => {
                    format!("ilike({}, {}{escape})", of(expr), list(patterns))
                }
                (_, Quantifier::Any) => format!("likeany({}, {})", of(expr), list(patterns)),
                (_, Quantifier::All) => format!("likeall({}, {})", of(expr), list(patterns)),
            };
            not(*negated, text)
        }
        Expr::Is {
            expr,
            test,
            negated,
        } => match (test, negated) {
            (IsTest::Null | IsTest::Unknown, false) => format!("({} IS NULL)", of(expr)),
            (IsTest::Null | IsTest::Unknown, true) => format!("({} IS NOT NULL)", of(expr)),
            (IsTest::True, _) => not(*negated, format!("({} <=> true)", of(expr))),
            (IsTest::False, _) => not(*negated, format!("({} <=> false)", of(expr))),
        },
        Expr::Field { expr, name, .. } => format!("{}.{name}", of(expr)),
        Expr::Index { expr, index } => format!("{}[{}]", of(expr), of(index)),
        Expr::Lambda { body, .. } => format!("lambdafunction({})", of(body)),
        Expr::Tuple(exprs) => {
            let fields = exprs.iter().enumerate();
            let fields =
                fields.map(|(nth, expr)| format!("{}, {}", field_name(nth, expr), of(expr)));
            format!("named_struct({})", fields.collect::<Vec<_>>().join(", "))
        }
        Expr::Groupings { kind, sets } => {
            let name = match kind {
                Groupings::Sets => "GROUPING SETS",
                Groupings::Rollup => "ROLLUP",
                Groupings::Cube => "CUBE",
                Groupings::All => return "ALL".into(),
            };
            let sets: Vec<String> = sets.iter().map(|set| format!("({})", list(set))).collect();
            format!("{name} ({})", sets.join(", "))
        }
        Expr::Subquery(_) => "scalarsubquery()".into(),
        Expr::Exists { negated, .. } => not(*negated, "exists()".into()),
        Expr::InSubquery { expr, negated, .. } => {
            not(*negated, format!("({} IN (listquery()))", of(expr)))
        }
        Expr::Resolved(expr) => expr.schema_name().to_string(),
    }
}

/// What the field of a tuple is called that is made of this expression.
pub(super) fn field_name(nth: usize, expr: &Expr) -> String {
    match expr {
        Expr::Column { name, .. } => name.last().cloned().unwrap_or_default(),
        Expr::Field { name, .. } => name.clone(),
        _ => format!("col{}", nth + 1),
    }
}

fn call_text(call: &Call, column: &dyn Fn(&[String]) -> String) -> String {
    let name = call.name.to_lowercase();
    if super::window::is_window_call(call) {
        return name;
    }
    let mut args: Vec<String> = call.args.iter().map(|arg| pretty(arg, column)).collect();
    match (name.as_str(), args.len()) {
        ("count", 1) if args[0] == "*" => args[0] = "1".into(),
        // What they are told by is no part of their name.
        (
            "from_json" | "to_json" | "from_csv" | "to_csv" | "schema_of_json" | "schema_of_csv",
            _,
        ) => {
            let map = |schema: &str| schema.trim_start().to_lowercase().starts_with("map<");
            if name == "from_json" && args.get(1).is_some_and(|schema| map(schema)) {
                return "entries".into();
            }
            args.truncate(1);
        }
        ("isnull", 1) => return format!("({} IS NULL)", args[0]),
        ("isnotnull", 1) => return format!("({} IS NOT NULL)", args[0]),
        ("if", 3) => return format!("(IF({}))", args.join(", ")),
        ("extract", 2) => return format!("extract({} FROM {})", args[0], args[1]),
        ("split", 2) => args.push("-1".into()),
        ("round" | "bround", 1) => args.push("0".into()),
        ("sort_array", 1) => args.push("true".into()),
        ("regexp_replace", 3) | ("regexp_extract", 2) | ("locate", 2) => args.push("1".into()),
        ("ntile", 0) => args.push("1".into()),
        ("lag" | "lead", 1) => args.extend(["1".to_string(), "NULL".into()]),
        ("lag" | "lead", 2) => args.push("NULL".into()),
        ("lpad" | "rpad", 2) => args.push(" ".into()),
        _ => {}
    }
    let distinct = if call.distinct { "DISTINCT " } else { "" };
    let mut out = format!("{name}({distinct}{})", args.join(", "));
    if let Some(filter) = &call.filter {
        out.push_str(&format!(" FILTER (WHERE {})", pretty(filter, column)));
    }
    if let Some(window) = &call.over {
        let upper = matches!(name.as_str(), "rank" | "dense_rank" | "percent_rank");
        if upper {
            out = format!("{}()", name.to_uppercase());
        }
        out.push_str(&window_text(&name, call, window, &|expr| {
            pretty(expr, column)
        }));
    }
    out
}

fn window_text(name: &str, call: &Call, window: &Window, of: &dyn Fn(&Expr) -> String) -> String {
    let mut parts = vec![];
    if !window.partition_by.is_empty() {
        let keys: Vec<String> = window.partition_by.iter().map(of).collect();
        parts.push(format!("PARTITION BY {}", keys.join(", ")));
    }
    if !window.order_by.is_empty() {
        let keys = window.order_by.iter().map(|key| sort_text(key, of));
        parts.push(format!("ORDER BY {}", keys.collect::<Vec<_>>().join(", ")));
    }
    let ordered = !window.order_by.is_empty();
    parts.push(match (&window.frame, name) {
        (Some(frame), _) => frame_text(frame, of),
        (None, "lag" | "lead") => {
            let offset = call.args.get(1).map_or("1".to_string(), of);
            let offset = if name == "lag" {
                format!("-{offset}")
            } else {
                offset
            };
            format!("ROWS BETWEEN {offset} FOLLOWING AND {offset} FOLLOWING")
        }
        (None, name) => frame_text(&default_frame(name, ordered), of),
    });
    format!(" OVER ({})", parts.join(" "))
}

/// A key of an ORDER BY as Spark prints it.
pub(super) fn sort_text(key: &Expr, of: &dyn Fn(&Expr) -> String) -> String {
    let (_, ascending, nulls_first) = key.sort_key();
    let order = if ascending { "ASC" } else { "DESC" };
    let nulls = match nulls_first.unwrap_or(ascending) {
        true => "FIRST",
        false => "LAST",
    };
    format!("{} {order} NULLS {nulls}", of(key))
}

/// The frame that a function has if none is said.
pub(super) fn default_frame(name: &str, ordered: bool) -> Frame {
    let to_current = |rows| Frame {
        rows,
        start: Bound::UnboundedPreceding,
        end: Bound::CurrentRow,
    };
    match name {
        "row_number" | "rank" | "dense_rank" | "percent_rank" | "ntile" => to_current(true),
        _ if ordered => to_current(false),
        _ => Frame {
            rows: true,
            start: Bound::UnboundedPreceding,
            end: Bound::UnboundedFollowing,
        },
    }
}

/// The frame as Spark prints it.
pub(super) fn frame_text(frame: &Frame, of: &dyn Fn(&Expr) -> String) -> String {
    let bound = |bound: &Bound| match bound {
        Bound::UnboundedPreceding => "UNBOUNDED PRECEDING".to_string(),
        Bound::Preceding(n) => format!("{} PRECEDING", of(n)),
        Bound::CurrentRow => "CURRENT ROW".to_string(),
        Bound::Following(n) => format!("{} FOLLOWING", of(n)),
        Bound::UnboundedFollowing => "UNBOUNDED FOLLOWING".to_string(),
    };
    let unit = if frame.rows { "ROWS" } else { "RANGE" };
    format!(
        "{unit} BETWEEN {} AND {}",
        bound(&frame.start),
        bound(&frame.end)
    )
}

fn literal_text(literal: &Literal) -> String {
    match literal {
        Literal::Null => "NULL".into(),
        Literal::Boolean(v) => v.to_string(),
        Literal::TinyInt(v) => v.to_string(),
        Literal::SmallInt(v) => v.to_string(),
        Literal::Int(v) => v.to_string(),
        Literal::BigInt(v) => v.to_string(),
        Literal::Float(v) => text::float(*v),
        Literal::Double(v) => text::double(*v),
        Literal::Decimal {
            unscaled, scale, ..
        } => text::decimal(*unscaled, *scale),
        Literal::String(v) => v.clone(),
        Literal::Binary(v) => format!("X'{}'", text::hex(v)),
        Literal::Date(v) => format!("DATE '{}'", text::date(i64::from(*v))),
        Literal::Timestamp(v) => format!("TIMESTAMP '{}'", text::timestamp(*v)),
        Literal::TimestampNtz(v) => format!("TIMESTAMP_NTZ '{}'", text::timestamp(*v)),
        Literal::YearMonthInterval(v) => text::year_month(*v),
        Literal::DayTimeInterval(v) => text::day_time(*v),
        Literal::CalendarInterval {
            months,
            days,
            micros,
        } => format!("INTERVAL '{months} months {days} days {micros} microseconds'"),
    }
}
