//! What Spark calls a column that was given no name: `count(1)`, `(a + b)`, `CAST(a AS INT)`.

use datafusion::common::ScalarValue;

use crate::expr::{
    BinaryOp, Bound, Call, Expr, Frame, Groupings, IsTest, LikeKind, Literal, Quantifier, UnaryOp,
    Window,
};
use crate::functions::{cast, text};
use crate::types::{parse_type, type_sql};
use highwater_text::calendar::DAY;

use super::kind::Kind;
use super::scope::{ScopeColumn, find};

/// How the columns of an expression are told.
#[derive(Clone, Copy)]
pub(super) struct Names<'n> {
    columns: &'n [ScopeColumn],
    case_sensitive: bool,
    whole: Whole,
    /// The parameters of the lambdas around.
    lambdas: &'n [String],
}

/// How much of a column's name is told.
#[derive(Clone, Copy, PartialEq)]
enum Whole {
    AsWritten,
    Unqualified,
    InFull,
}

impl<'n> Names<'n> {
    fn new(columns: &'n [ScopeColumn], case_sensitive: bool, whole: Whole) -> Self {
        Names {
            columns,
            case_sensitive,
            whole,
            lambdas: &[],
        }
    }

    pub(super) fn as_written(columns: &'n [ScopeColumn], case_sensitive: bool) -> Self {
        Names::new(columns, case_sensitive, Whole::AsWritten)
    }

    /// Without the names of relations.
    pub(super) fn unqualified(columns: &'n [ScopeColumn], case_sensitive: bool) -> Self {
        Names::new(columns, case_sensitive, Whole::Unqualified)
    }

    /// With the names of relations, written or not.
    pub(super) fn in_full(columns: &'n [ScopeColumn], case_sensitive: bool) -> Self {
        Names::new(columns, case_sensitive, Whole::InFull)
    }

    /// The column that is meant, and how many parts of its name come before it.
    pub(super) fn find(&self, name: &[String]) -> Option<(usize, &'n ScopeColumn)> {
        find(self.columns, name, self.case_sensitive).ok().flatten()
    }

    fn of(&self, name: &[String]) -> String {
        if name
            .first()
            .is_some_and(|first| self.lambdas.contains(first))
        {
            let fields = name[1..].iter().map(|field| format!(".{field}"));
            return format!("namedlambdavariable(){}", fields.collect::<String>());
        }
        match (self.whole, self.find(name)) {
            (Whole::Unqualified, Some((qualifier, _))) => name[qualifier..].join("."),
            (Whole::InFull, Some((0, column))) => {
                let parts = column.qualifier.iter().chain(name);
                parts.map(String::as_str).collect::<Vec<_>>().join(".")
            }
            _ => name.join("."),
        }
    }
}

/// The name of an expression that stands alone in a select list.
pub(super) fn output_name(expr: &Expr, names: &Names<'_>) -> String {
    match expr {
        Expr::Column { name, .. } => name.last().cloned().unwrap_or_default(),
        Expr::Alias { names, .. } if names.len() == 1 => names[0].clone(),
        Expr::Cast { expr, .. } if is_column(expr, names) => output_name(expr, names),
        Expr::Call(call) if is_conversion(call) && is_column(&call.args[0], names) => {
            output_name(&call.args[0], names)
        }
        other => pretty(other, names),
    }
}

/// Whether the expression is a column itself and not a field of one: it keeps its name through a cast.
fn is_column(expr: &Expr, names: &Names<'_>) -> bool {
    match expr {
        Expr::Column { name, .. } => name.len() == 1 || Some(&names.of(name)) == name.last(),
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
pub(super) fn pretty(expr: &Expr, names: &Names<'_>) -> String {
    let of = |expr: &Expr| pretty(expr, names);
    let list = |exprs: &[Expr]| exprs.iter().map(&of).collect::<Vec<_>>().join(", ");
    let not = |negated: bool, text: String| {
        if negated {
            format!("(NOT {text})")
        } else {
            text
        }
    };
    match expr {
        Expr::Column { name, .. } => names.of(name),
        Expr::Literal(literal, _) => literal_text(literal),
        Expr::TypedText { kind, text, .. } => typed_text(kind, text),
        Expr::Call(call) => call_text(call, names),
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
        } => binary_text(left, *op, right, names),
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
                (_, Quantifier::Any) => format!("likeany({})", of(expr)),
                (_, Quantifier::All) => format!("likeall({})", of(expr)),
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
        Expr::Lambda { params, body } => {
            let lambdas: Vec<String> = names.lambdas.iter().chain(params).cloned().collect();
            let inside = Names {
                lambdas: &lambdas,
                ..*names
            };
            let params = ", namedlambdavariable()".repeat(params.len());
            format!("lambdafunction({}{params})", pretty(body, &inside))
        }
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

/// A literal of a time, in full however it is written.
fn typed_text(kind: &str, written: &str) -> String {
    let kind = kind.to_uppercase();
    let value = parse_type(&kind)
        .ok()
        .and_then(|to| cast::text_to_scalar(written, &to, "UTC"));
    let written = match value {
        Some(ScalarValue::Date32(Some(days))) => text::date(i64::from(days)),
        Some(ScalarValue::TimestampMicrosecond(Some(micros), _)) => text::timestamp(micros),
        _ => written.to_string(),
    };
    format!("{kind} '{written}'")
}

/// An operator between two operands. Beside a time or an interval some are functions, which are told as that.
fn binary_text(left: &Expr, op: BinaryOp, right: &Expr, names: &Names<'_>) -> String {
    let (l, r) = (pretty(left, names), pretty(right, names));
    if !matches!(op, BinaryOp::Add | BinaryOp::Subtract | BinaryOp::Multiply) {
        return format!("({l} {} {r})", op.symbol());
    }
    let (of_left, of_right) = (Kind::of(left, names), Kind::of(right, names));
    let days = |days: &str| format!("extractansiintervaldays({days})");
    match (of_left, op, of_right) {
        (Kind::Date, BinaryOp::Add, Kind::Days) => format!("date_add({l}, {})", days(&r)),
        (Kind::Days, BinaryOp::Add, Kind::Date) => format!("date_add({r}, {})", days(&l)),
        (Kind::Date, BinaryOp::Subtract, Kind::Days) => format!("date_add({l}, (- {}))", days(&r)),
        (Kind::Date, BinaryOp::Add, Kind::Other) => format!("date_add({l}, {r})"),
        (Kind::Other, BinaryOp::Add, Kind::Date) => format!("date_add({r}, {l})"),
        (Kind::Date, BinaryOp::Subtract, Kind::Other) => format!("date_sub({l}, {r})"),
        (l_kind, BinaryOp::Add | BinaryOp::Subtract, r_kind)
            if r_kind.is_interval() && !l_kind.is_interval() =>
        {
            format!("{l} {} {r}", op.symbol())
        }
        (l_kind, BinaryOp::Add, r_kind) if l_kind.is_interval() && !r_kind.is_interval() => {
            format!("{r} + {l}")
        }
        (l_kind, BinaryOp::Multiply, r_kind) if r_kind.is_interval() && !l_kind.is_interval() => {
            format!("({r} * {l})")
        }
        _ => format!("({l} {} {r})", op.symbol()),
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

/// Functions that are told in capitals.
const IN_CAPITALS: &[&str] = &[
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "ceil",
    "cos",
    "cosh",
    "cot",
    "csc",
    "degrees",
    "e",
    "exp",
    "expm1",
    "floor",
    "hypot",
    "log",
    "log10",
    "log1p",
    "log2",
    "pi",
    "power",
    "radians",
    "regexp_like",
    "sec",
    "signum",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "rank",
    "dense_rank",
    "percent_rank",
];

/// What `array_sort` compares by if it is told nothing.
const ARRAY_ORDER: &str = "lambdafunction((IF(((namedlambdavariable() IS NULL) AND (namedlambdavariable() IS NULL)), 0, (IF((namedlambdavariable() IS NULL), 1, (IF((namedlambdavariable() IS NULL), -1, (IF((namedlambdavariable() < namedlambdavariable()), -1, (IF((namedlambdavariable() > namedlambdavariable()), 1, 0)))))))))), namedlambdavariable(), namedlambdavariable())";

fn more(args: &mut Vec<String>, missing: &[&str]) {
    args.extend(missing.iter().map(|arg| arg.to_string()));
}

fn call_text(call: &Call, names: &Names<'_>) -> String {
    let mut name = call.name.to_lowercase();
    if super::window::is_window_call(call) {
        return name;
    }
    if is_conversion(call) {
        return pretty(&call.args[0], names);
    }
    let mut args: Vec<String> = call.args.iter().map(|arg| pretty(arg, names)).collect();
    match (name.as_str(), call.args.len()) {
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
        (
            "first" | "first_value" | "last" | "last_value" | "any_value" | "approx_count_distinct",
            2,
        ) => args.truncate(1),
        ("isnull", 1) => return format!("({} IS NULL)", args[0]),
        ("isnotnull", 1) => return format!("({} IS NOT NULL)", args[0]),
        ("if", 3) => return format!("(IF({}))", args.join(", ")),
        ("datepart", 2) => return format!("datepart({} FROM {})", args[0], args[1]),
        ("mode", 2) if args[1] == "true" => {
            return format!("mode() WITHIN GROUP (ORDER BY {} DESC)", args[0]);
        }
        ("positive", 1) => return format!("(+ {})", args[0]),
        ("trim", 2) => return format!("TRIM(BOTH {} FROM {})", args[0], args[1]),
        ("ltrim", 2) => return format!("TRIM(LEADING {} FROM {})", args[0], args[1]),
        ("rtrim", 2) => return format!("TRIM(TRAILING {} FROM {})", args[0], args[1]),
        ("assert_true", 1) => args.push(format!("'{}' is not true!", args[0])),
        ("mask", given @ 1..=4) => more(&mut args, &["X", "x", "n", "NULL"][given - 1..]),
        ("array_sort", 1) => more(&mut args, &[ARRAY_ORDER]),
        ("make_ym_interval", 1) | ("regexp_instr", 2) => more(&mut args, &["0"]),
        ("extract", 2) => return format!("extract({} FROM {})", args[0], args[1]),
        ("split", 2) | ("overlay", 3) => more(&mut args, &["-1"]),
        ("round" | "bround", 1) => more(&mut args, &["0"]),
        ("sort_array", 1) | ("months_between", 2) => more(&mut args, &["true"]),
        ("regexp_replace", 3)
        | ("regexp_extract" | "regexp_extract_all", 2)
        | ("locate", 2)
        | ("percentile", 2) => more(&mut args, &["1"]),
        ("ntile", 0) => more(&mut args, &["1"]),
        ("lag" | "lead", 1) => more(&mut args, &["1", "NULL"]),
        ("lag" | "lead", 2) => more(&mut args, &["NULL"]),
        ("lpad" | "rpad", 2) => more(&mut args, &[" "]),
        ("replace", 2) => more(&mut args, &[""]),
        ("str_to_map", 1) => more(&mut args, &[",", ":"]),
        ("str_to_map", 2) => more(&mut args, &[":"]),
        ("percentile_approx" | "approx_percentile", 2) => more(&mut args, &["10000"]),
        ("listagg" | "string_agg", 1) => more(&mut args, &["NULL"]),
        ("log", 1) => args.insert(0, "E()".into()),
        ("unix_timestamp" | "to_unix_timestamp" | "from_unixtime", 1) => {
            more(&mut args, &["yyyy-MM-dd HH:mm:ss"])
        }
        ("aggregate" | "reduce", 3) => more(
            &mut args,
            &["lambdafunction(namedlambdavariable(), namedlambdavariable())"],
        ),
        ("dateadd" | "date_add" | "timestampadd", 3) => {
            args[0] = args[0].to_uppercase();
            name = "timestampadd".into();
        }
        ("datediff" | "date_diff" | "timestampdiff", 3) => {
            args[0] = args[0].to_uppercase();
            name = "timestampdiff".into();
        }
        ("make_interval" | "make_dt_interval", given) => {
            let seconds = if name == "make_interval" { 6 } else { 3 };
            args.extend((given..seconds).map(|_| "0".to_string()));
            if given <= seconds {
                args.push("0.000000".into());
            }
        }
        ("position", 2) => {
            name = "locate".into();
            more(&mut args, &["1"]);
        }
        ("first_value", _) if call.ignore_nulls == Some(true) => name = "first".into(),
        ("last_value", _) if call.ignore_nulls == Some(true) => name = "last".into(),
        ("dateadd", 2) => name = "date_add".into(),
        ("struct", _) => {
            for (text, arg) in args.iter_mut().zip(&call.args) {
                if let Expr::Alias { names, .. } = arg {
                    text.push_str(&format!(" AS {}", names.join(", ")));
                }
            }
        }
        ("array_agg", _) => name = "collect_list".into(),
        _ => {}
    }
    if IN_CAPITALS.contains(&name.as_str()) {
        name = name.to_uppercase();
    }
    if matches!(name.as_str(), "RANK" | "DENSE_RANK" | "PERCENT_RANK") {
        args.clear();
    }
    let distinct = if call.distinct { "DISTINCT " } else { "" };
    let mut out = format!("{name}({distinct}{})", args.join(", "));
    if !call.order_by.is_empty() {
        out.push_str(&format!(
            " WITHIN GROUP (ORDER BY {})",
            within_text(&name, call, names)
        ));
    }
    if let Some(filter) = &call.filter {
        out.push_str(&format!(" FILTER (WHERE {})", pretty(filter, names)));
    }
    if name == "nth_value" && call.ignore_nulls == Some(true) {
        out.push_str(" ignore nulls");
    }
    if let Some(window) = &call.over {
        out.push_str(&window_text(
            &call.name.to_lowercase(),
            call,
            window,
            &|expr| pretty(expr, names),
        ));
    }
    out
}

/// What `WITHIN GROUP` orders by.
fn within_text(name: &str, call: &Call, names: &Names<'_>) -> String {
    let keys = call.order_by.iter().map(|key| {
        let (_, ascending, _) = key.sort_key();
        match name {
            "listagg" | "string_agg" => sort_text(key, &|expr| pretty(expr, names)),
            // The least of the values that are equally often is found from the end.
            "mode" if ascending => format!("{} DESC", pretty(key, names)),
            "mode" => pretty(key, names),
            _ if ascending => pretty(key, names),
            _ => format!("{} DESC", pretty(key, names)),
        }
    });
    keys.collect::<Vec<_>>().join(", ")
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

/// A constant as Spark prints it.
pub(super) fn literal_text(literal: &Literal) -> String {
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
            units: Some(units),
        } => text::interval(*months, i64::from(*days) * DAY + micros, *units),
        Literal::CalendarInterval {
            months,
            days,
            micros,
            units: None,
        } => format!(
            "INTERVAL '{}'",
            text::calendar_interval(*months, *days, *micros)
        ),
    }
}
