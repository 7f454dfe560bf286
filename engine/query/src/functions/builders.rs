//! Calls of the common functions, for queries built in Rust. Any other: [`Expr::call`], or [`crate::expr()`] with SQL.

use crate::expr::{Call, Expr, lit};

macro_rules! builders {
    ($($(#[$doc:meta])* $name:ident($($arg:ident),*);)*) => {$(
        $(#[$doc])*
        pub fn $name($($arg: impl Into<Expr>),*) -> Expr {
            Expr::call(stringify!($name), vec![$($arg.into()),*])
        }
    )*};
}

builders! {
    /// One row per element of an array or entry of a map.
    explode(column);
    /// The same, and one row of nulls where there is none.
    explode_outer(column);
    /// One row per element, with its position.
    posexplode(column);
    /// The same, and one row of nulls where there is none.
    posexplode_outer(column);
    /// One row per struct of an array, a column per field.
    inline(column);
    /// The sum.
    sum(column);
    /// The mean.
    avg(column);
    /// The least value.
    min(column);
    /// The greatest value.
    max(column);
    /// The value of the first row.
    first(column);
    /// The value of the last row.
    last(column);
    /// All values, in order of arrival.
    collect_list(column);
    /// All different values.
    collect_set(column);
    /// About how many different values.
    approx_count_distinct(column);
    /// The value of `column` in the row where `by` is greatest.
    max_by(column, by);
    /// The value of `column` in the row where `by` is least.
    min_by(column, by);
    /// In upper case.
    upper(text);
    /// In lower case.
    lower(text);
    /// The number of characters or bytes.
    length(text);
    /// Without spaces at both ends.
    trim(text);
    /// Without spaces at the start.
    ltrim(text);
    /// Without spaces at the end.
    rtrim(text);
    /// The absolute value.
    abs(value);
    /// The square root.
    sqrt(value);
    /// The greatest whole number not above.
    floor(value);
    /// The least whole number not below.
    ceil(value);
    /// The number of elements.
    size(column);
    /// Whether an array holds a value.
    array_contains(array, value);
    /// Whether the value is NULL.
    isnull(value);
    /// Whether the value is NaN.
    isnan(value);
    /// The year.
    year(time);
    /// The quarter.
    quarter(time);
    /// The month.
    month(time);
    /// The day of the month.
    dayofmonth(time);
    /// The day of the week, Sunday being 1.
    dayofweek(time);
    /// The day of the year.
    dayofyear(time);
    /// The hour.
    hour(time);
    /// The minute.
    minute(time);
    /// The second.
    second(time);
    /// As a date.
    to_date(time);
    /// As a timestamp.
    to_timestamp(time);
    /// Seconds since 1970.
    unix_timestamp(time);
    /// Days from `start` to `end`.
    datediff(end, start);
}

/// The number of a row in its window.
pub fn row_number() -> Expr {
    Expr::call("row_number", vec![])
}

/// One more than the number of rows before it in order.
pub fn rank() -> Expr {
    Expr::call("rank", vec![])
}

/// One more than the number of different values before it in order.
pub fn dense_rank() -> Expr {
    Expr::call("dense_rank", vec![])
}

/// The rank as a part of the window, from 0 to 1.
pub fn percent_rank() -> Expr {
    Expr::call("percent_rank", vec![])
}

/// Which part of the window is not after the row in order.
pub fn cume_dist() -> Expr {
    Expr::call("cume_dist", vec![])
}

/// Which of `buckets` parts of about the same size the row is in.
pub fn ntile(buckets: i32) -> Expr {
    Expr::call("ntile", vec![lit(buckets)])
}

/// The value `offset` rows before.
pub fn lag(column: impl Into<Expr>, offset: i32) -> Expr {
    Expr::call("lag", vec![column.into(), lit(offset)])
}

/// The value `offset` rows after.
pub fn lead(column: impl Into<Expr>, offset: i32) -> Expr {
    Expr::call("lead", vec![column.into(), lit(offset)])
}

/// The value of the `nth` row of the window, the first being 1.
pub fn nth_value(column: impl Into<Expr>, nth: i32) -> Expr {
    Expr::call("nth_value", vec![column.into(), lit(nth)])
}

/// The number of rows in which `column` is not NULL; of all rows for `"*"`.
pub fn count(column: impl Into<Expr>) -> Expr {
    Expr::call("count", vec![column.into()])
}

/// The number of different values.
pub fn count_distinct(column: impl Into<Expr>) -> Expr {
    Call {
        name: "count".into(),
        args: vec![column.into()],
        distinct: true,
        ..Call::default()
    }
    .into()
}

/// The sum of the different values.
pub fn sum_distinct(column: impl Into<Expr>) -> Expr {
    Call {
        name: "sum".into(),
        args: vec![column.into()],
        distinct: true,
        ..Call::default()
    }
    .into()
}

/// A regular expression: text as it is, or any expression.
pub struct Pattern(Expr);

impl From<&str> for Pattern {
    fn from(pattern: &str) -> Self {
        Pattern(lit(pattern))
    }
}

impl From<Expr> for Pattern {
    fn from(pattern: Expr) -> Self {
        Pattern(pattern)
    }
}

/// The pieces of `text` between matches of `pattern`: `split("line", " ")`, `split(col("line"), lit(" "))`.
pub fn split(text: impl Into<Expr>, pattern: impl Into<Pattern>) -> Expr {
    Expr::call("split", vec![text.into(), pattern.into().0])
}

/// One text after another; NULL if one is.
pub fn concat<E: Into<Expr>>(parts: impl IntoIterator<Item = E>) -> Expr {
    Expr::call("concat", parts.into_iter().map(Into::into).collect())
}

/// The parts that are not NULL, with `separator` between them.
pub fn concat_ws<E: Into<Expr>>(separator: &str, parts: impl IntoIterator<Item = E>) -> Expr {
    let parts = parts.into_iter().map(Into::into);
    Expr::call(
        "concat_ws",
        [lit(separator)].into_iter().chain(parts).collect(),
    )
}

/// The first value that is not NULL.
pub fn coalesce<E: Into<Expr>>(values: impl IntoIterator<Item = E>) -> Expr {
    Expr::call("coalesce", values.into_iter().map(Into::into).collect())
}

/// `length` characters of `text` from `start`, the first being 1.
pub fn substring(text: impl Into<Expr>, start: i32, length: i32) -> Expr {
    Expr::call("substring", vec![text.into(), lit(start), lit(length)])
}

/// A struct of the columns.
pub fn struct_<E: Into<Expr>>(columns: impl IntoIterator<Item = E>) -> Expr {
    Expr::call("struct", columns.into_iter().map(Into::into).collect())
}

/// An array of the values.
pub fn array<E: Into<Expr>>(values: impl IntoIterator<Item = E>) -> Expr {
    Expr::call("array", values.into_iter().map(Into::into).collect())
}

/// `value` rounded half up to `digits` after the point.
pub fn round(value: impl Into<Expr>, digits: i32) -> Expr {
    Expr::call("round", vec![value.into(), lit(digits)])
}

/// A date or timestamp as text.
pub fn date_format(time: impl Into<Expr>, pattern: &str) -> Expr {
    Expr::call("date_format", vec![time.into(), lit(pattern)])
}

/// The window of `width`, such as "10 minutes", that a moment is in: a struct of start and end. A column of a select
/// list or a key of a grouping.
pub fn window(time: impl Into<Expr>, width: &str) -> Expr {
    Expr::call("window", vec![time.into(), lit(width)])
}

/// The windows of `width` that a moment is in, if one starts every `slide`.
pub fn sliding_window(time: impl Into<Expr>, width: &str, slide: &str) -> Expr {
    Expr::call("window", vec![time.into(), lit(width), lit(slide)])
}

/// The same, where one starts at `start` after midnight of 1970-01-01.
pub fn window_from(time: impl Into<Expr>, width: &str, slide: &str, start: &str) -> Expr {
    let durations = [width, slide, start].map(lit);
    Expr::call(
        "window",
        [time.into()].into_iter().chain(durations).collect(),
    )
}

/// The session window of a moment, from it until `gap`, such as "5 minutes" or an expression, has passed. As a key of a
/// grouping it stands for all rows of the other keys with no such gap between them.
pub fn session_window(time: impl Into<Expr>, gap: impl Into<Expr>) -> Expr {
    Expr::call("session_window", vec![time.into(), gap.into()])
}

/// The value that a text of JSON is, of the type or the columns that `schema` says in DDL: `a INT, b STRING`.
pub fn from_json(text: impl Into<Expr>, schema: &str) -> Expr {
    Expr::call("from_json", vec![text.into(), lit(schema)])
}

/// A struct, array or map as JSON.
pub fn to_json(value: impl Into<Expr>) -> Expr {
    Expr::call("to_json", vec![value.into()])
}

/// What a path, such as `$.a[0].b`, finds in a text of JSON.
pub fn get_json_object(text: impl Into<Expr>, path: &str) -> Expr {
    Expr::call("get_json_object", vec![text.into(), lit(path)])
}

/// The last microsecond in a window: its event time.
pub fn window_time(window: impl Into<Expr>) -> Expr {
    Expr::call("window_time", vec![window.into()])
}

/// A timestamp cut to a unit.
pub fn date_trunc(unit: &str, time: impl Into<Expr>) -> Expr {
    Expr::call("date_trunc", vec![lit(unit), time.into()])
}

/// `text` with every match of a regular expression replaced.
pub fn regexp_replace(text: impl Into<Expr>, pattern: &str, replacement: &str) -> Expr {
    Expr::call(
        "regexp_replace",
        vec![text.into(), lit(pattern), lit(replacement)],
    )
}

/// One group of the first match of a regular expression.
pub fn regexp_extract(text: impl Into<Expr>, pattern: &str, group: i32) -> Expr {
    Expr::call(
        "regexp_extract",
        vec![text.into(), lit(pattern), lit(group)],
    )
}

/// `CASE WHEN condition THEN value`; go on with [`When::when`] and end with [`When::otherwise`] or [`When::end`].
pub fn when(condition: impl Into<Expr>, value: impl Into<Expr>) -> When {
    When {
        branches: vec![(condition.into(), value.into())],
    }
}

/// A `CASE` in the making.
#[derive(Debug, Clone)]
pub struct When {
    branches: Vec<(Expr, Expr)>,
}

impl When {
    /// One more branch.
    pub fn when(mut self, condition: impl Into<Expr>, value: impl Into<Expr>) -> When {
        self.branches.push((condition.into(), value.into()));
        self
    }

    /// The value if no branch holds.
    pub fn otherwise(self, value: impl Into<Expr>) -> Expr {
        Expr::Case {
            operand: None,
            branches: self.branches,
            otherwise: Some(Box::new(value.into())),
        }
    }

    /// NULL if no branch holds.
    pub fn end(self) -> Expr {
        Expr::Case {
            operand: None,
            branches: self.branches,
            otherwise: None,
        }
    }
}
