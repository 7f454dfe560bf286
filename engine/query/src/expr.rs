//! Unresolved expressions: what was written, nothing looked up yet.

use std::ops;

use datafusion::logical_expr as df;

use crate::error::{Place, QueryError};
use crate::plan::Plan;
use crate::rewrite::first_place;

/// An expression as written: names unbound, literals with the type they were written in.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// A column or a field of one, by the parts of its name.
    Column {
        /// `a`, or `t.a`, or `t.a.field`.
        name: Vec<String>,
        /// Where it stands.
        place: Option<Place>,
    },
    /// A constant, and where it stands.
    Literal(Literal, Option<Place>),
    /// A constant written as a type and a text, such as `TIMESTAMP '2024-01-01'`.
    TypedText {
        /// The type, in lower case.
        kind: String,
        /// The text.
        text: String,
        /// Where it stands.
        place: Option<Place>,
    },
    /// A function call.
    Call(Box<Call>),
    /// An operator between two operands.
    Binary {
        /// The left operand.
        left: Box<Expr>,
        /// The operator.
        op: BinaryOp,
        /// The right operand.
        right: Box<Expr>,
        /// Where the operator stands.
        place: Option<Place>,
    },
    /// An operator before one operand.
    Unary {
        /// The operator.
        op: UnaryOp,
        /// The operand.
        expr: Box<Expr>,
    },
    /// A conversion to a type.
    Cast {
        /// What is converted.
        expr: Box<Expr>,
        /// The type, as text that [`crate::parse_schema`] would take for a column.
        to: String,
        /// `try_cast`: NULL instead of an error.
        attempt: bool,
        /// Where it stands.
        place: Option<Place>,
    },
    /// `CASE`, with or without an operand.
    Case {
        /// The operand that every branch is compared with.
        operand: Option<Box<Expr>>,
        /// Conditions and results.
        branches: Vec<(Expr, Expr)>,
        /// The result if no branch holds.
        otherwise: Option<Box<Expr>>,
    },
    /// An expression and its name, or names where it makes several columns.
    Alias {
        /// What is named.
        expr: Box<Expr>,
        /// The names.
        names: Vec<String>,
    },
    /// All columns, or all of one relation or struct.
    Star {
        /// The relation or struct, empty for all columns.
        qualifier: Vec<String>,
        /// Columns left out by `EXCEPT (...)`.
        except: Vec<String>,
        /// Where it stands.
        place: Option<Place>,
    },
    /// `BETWEEN`.
    Between {
        /// What is compared.
        expr: Box<Expr>,
        /// The least value.
        low: Box<Expr>,
        /// The greatest value.
        high: Box<Expr>,
        /// `NOT BETWEEN`.
        negated: bool,
    },
    /// `IN` a list.
    In {
        /// What is looked for.
        expr: Box<Expr>,
        /// Where it is looked for.
        list: Vec<Expr>,
        /// `NOT IN`.
        negated: bool,
    },
    /// `LIKE` and its family.
    Like {
        /// Which of the family.
        kind: LikeKind,
        /// What is matched.
        expr: Box<Expr>,
        /// The patterns: one, or those of `LIKE ANY` and `LIKE ALL`.
        patterns: Vec<Expr>,
        /// How several patterns combine.
        quantifier: Quantifier,
        /// The escape character, if not the backslash.
        escape: Option<char>,
        /// `NOT LIKE`.
        negated: bool,
    },
    /// `IS NULL`, `IS TRUE` and the like.
    Is {
        /// What is tested.
        expr: Box<Expr>,
        /// For what.
        test: IsTest,
        /// `IS NOT`.
        negated: bool,
    },
    /// A field of a struct.
    Field {
        /// The struct.
        expr: Box<Expr>,
        /// The field.
        name: String,
        /// Where it stands.
        place: Option<Place>,
    },
    /// `a[i]`: an element of an array, a value of a map.
    Index {
        /// The array or map.
        expr: Box<Expr>,
        /// The position or key.
        index: Box<Expr>,
    },
    /// A function without a name, the argument of `transform` and its like.
    Lambda {
        /// Its parameters.
        params: Vec<String>,
        /// Its result.
        body: Box<Expr>,
    },
    /// `(a, b)`: a struct without names.
    Tuple(Vec<Expr>),
    /// `GROUPING SETS`, `ROLLUP` or `CUBE`: several groupings at once, among the keys of GROUP BY.
    Groupings {
        /// Which groupings are made of the sets.
        kind: Groupings,
        /// Sets of keys.
        sets: Vec<Vec<Expr>>,
    },
    /// How to sort by an expression.
    Sort {
        /// The key.
        expr: Box<Expr>,
        /// Ascending or descending.
        ascending: bool,
        /// Where nulls go; by default first when ascending and last when descending.
        nulls_first: Option<bool>,
    },
    /// `(SELECT ...)` as a value.
    Subquery(Box<Plan>),
    /// `EXISTS (SELECT ...)`.
    Exists {
        /// The query.
        plan: Box<Plan>,
        /// `NOT EXISTS`.
        negated: bool,
    },
    /// `x IN (SELECT ...)`.
    InSubquery {
        /// What is looked for.
        expr: Box<Expr>,
        /// The query.
        plan: Box<Plan>,
        /// `NOT IN`.
        negated: bool,
    },
    /// An expression that an embedding program made itself, over columns by their resolved names.
    Resolved(Box<df::Expr>),
}

/// A function call as written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Call {
    /// The function, as written.
    pub name: String,
    /// The arguments.
    pub args: Vec<Expr>,
    /// `count(DISTINCT ...)`.
    pub distinct: bool,
    /// `FILTER (WHERE ...)`.
    pub filter: Option<Expr>,
    /// `WITHIN GROUP (ORDER BY ...)`: [`Expr::Sort`]s.
    pub order_by: Vec<Expr>,
    /// `IGNORE NULLS` (true) or `RESPECT NULLS` (false), if said.
    pub ignore_nulls: Option<bool>,
    /// `OVER (...)`.
    pub over: Option<Window>,
    /// Where it stands.
    pub place: Option<Place>,
}

/// The rows around one that a function looks at: `OVER (...)`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Window {
    /// `PARTITION BY`.
    pub partition_by: Vec<Expr>,
    /// `ORDER BY`: [`Expr::Sort`]s, or anything else to sort by ascending.
    pub order_by: Vec<Expr>,
    /// `ROWS` or `RANGE BETWEEN ... AND ...`, if said.
    pub frame: Option<Frame>,
}

/// Which rows of a partition belong to the window of one of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// `ROWS` (true) counts rows; `RANGE` looks at the value that they are ordered by.
    pub rows: bool,
    /// The first row.
    pub start: Bound,
    /// The last row.
    pub end: Bound,
}

/// An end of a frame.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "named after the keywords")]
pub enum Bound {
    UnboundedPreceding,
    Preceding(Expr),
    CurrentRow,
    Following(Expr),
    UnboundedFollowing,
}

impl Bound {
    /// The constant of a bound that has one.
    pub(crate) fn offset(&self) -> Option<&Expr> {
        match self {
            Bound::Preceding(offset) | Bound::Following(offset) => Some(offset),
            _ => None,
        }
    }
}

/// So many rows, or so much of the value they are ordered by, after the current one; before it if negative.
impl From<i64> for Bound {
    fn from(offset: i64) -> Self {
        let constant = |n: u64| match (i32::try_from(n), i64::try_from(n)) {
            (Ok(n), _) => lit(n),
            (_, Ok(n)) => lit(n),
            _ => lit(i64::MAX),
        };
        match offset {
            Window::UNBOUNDED_PRECEDING => Bound::UnboundedPreceding,
            Window::UNBOUNDED_FOLLOWING => Bound::UnboundedFollowing,
            Window::CURRENT_ROW => Bound::CurrentRow,
            before if before < 0 => Bound::Preceding(constant(before.unsigned_abs())),
            after => Bound::Following(constant(after.unsigned_abs())),
        }
    }
}

impl Window {
    /// The start of the partition.
    pub const UNBOUNDED_PRECEDING: i64 = i64::MIN;
    /// The end of the partition.
    pub const UNBOUNDED_FOLLOWING: i64 = i64::MAX;
    /// The row itself; by range, all rows equal to it in order.
    pub const CURRENT_ROW: i64 = 0;

    /// Rows that are equal in these columns.
    pub fn partition_by<E: Into<Expr>>(columns: impl IntoIterator<Item = E>) -> Window {
        Window {
            partition_by: columns.into_iter().map(Into::into).collect(),
            ..Window::default()
        }
    }

    /// All rows, in the order of these columns.
    pub fn ordered_by<E: Into<Expr>>(columns: impl IntoIterator<Item = E>) -> Window {
        Window::default().order_by(columns)
    }

    /// The same rows, in the order of these columns.
    pub fn order_by<E: Into<Expr>>(mut self, columns: impl IntoIterator<Item = E>) -> Window {
        self.order_by = columns.into_iter().map(Into::into).collect();
        self
    }

    /// From so many rows after the current one to so many; before it if negative.
    pub fn rows_between(mut self, start: impl Into<Bound>, end: impl Into<Bound>) -> Window {
        let (start, end) = (start.into(), end.into());
        let rows = true;
        self.frame = Some(Frame { rows, start, end });
        self
    }

    /// The rows whose value of the column they are ordered by is within this range of the current one's.
    pub fn range_between(mut self, start: impl Into<Bound>, end: impl Into<Bound>) -> Window {
        let (start, end) = (start.into(), end.into());
        let rows = false;
        self.frame = Some(Frame { rows, start, end });
        self
    }
}

/// A constant, with the type it was written in.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "one per type, named after it")]
pub enum Literal {
    Null,
    Boolean(bool),
    TinyInt(i8),
    SmallInt(i16),
    Int(i32),
    BigInt(i64),
    Float(f32),
    Double(f64),
    Decimal {
        unscaled: i128,
        precision: u8,
        scale: i8,
    },
    String(String),
    Binary(Vec<u8>),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01 UTC.
    Timestamp(i64),
    /// Microseconds since 1970-01-01, in no zone.
    TimestampNtz(i64),
    /// Months.
    YearMonthInterval(i32),
    /// Microseconds.
    DayTimeInterval(i64),
    /// What is written in units: `INTERVAL 90 MINUTES`.
    CalendarInterval {
        months: i32,
        days: i32,
        micros: i64,
        /// The largest and the smallest of its units; none if it is of months and of days or time.
        units: Option<(IntervalUnit, IntervalUnit)>,
    },
}

/// A unit that the name of an interval's type tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named after the units")]
pub enum IntervalUnit {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
}

impl IntervalUnit {
    /// `DAY`.
    pub(crate) fn sql(self) -> &'static str {
        match self {
            IntervalUnit::Year => "YEAR",
            IntervalUnit::Month => "MONTH",
            IntervalUnit::Day => "DAY",
            IntervalUnit::Hour => "HOUR",
            IntervalUnit::Minute => "MINUTE",
            IntervalUnit::Second => "SECOND",
        }
    }

    /// The unit that one written in lower case, without an S, is told in.
    pub(crate) fn of(word: &str) -> Option<IntervalUnit> {
        Some(match word {
            "year" => IntervalUnit::Year,
            "quarter" | "month" => IntervalUnit::Month,
            "week" | "day" => IntervalUnit::Day,
            "hour" => IntervalUnit::Hour,
            "minute" => IntervalUnit::Minute,
            "second" | "millisecond" | "microsecond" => IntervalUnit::Second,
            _ => return None,
        })
    }
}

/// Operators between two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named after the operators")]
pub enum BinaryOp {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    IntegerDivide,
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
    NullSafeEq,
    And,
    Or,
    Concat,
    BitAnd,
    BitOr,
    BitXor,
    ShiftLeft,
    ShiftRight,
    ShiftRightUnsigned,
}

impl BinaryOp {
    /// As Spark prints it.
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Subtract => "-",
            BinaryOp::Multiply => "*",
            BinaryOp::Divide => "/",
            BinaryOp::Remainder => "%",
            BinaryOp::IntegerDivide => "div",
            BinaryOp::Eq => "=",
            BinaryOp::NotEq => "<>",
            BinaryOp::Lt => "<",
            BinaryOp::LtEq => "<=",
            BinaryOp::Gt => ">",
            BinaryOp::GtEq => ">=",
            BinaryOp::NullSafeEq => "<=>",
            BinaryOp::And => "AND",
            BinaryOp::Or => "OR",
            BinaryOp::Concat => "||",
            BinaryOp::BitAnd => "&",
            BinaryOp::BitOr => "|",
            BinaryOp::BitXor => "^",
            BinaryOp::ShiftLeft => "<<",
            BinaryOp::ShiftRight => ">>",
            BinaryOp::ShiftRightUnsigned => ">>>",
        }
    }
}

/// Operators before one operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named after the operators")]
pub enum UnaryOp {
    Not,
    Minus,
    Plus,
    BitNot,
}

/// Which pattern language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LikeKind {
    /// `LIKE`.
    Like,
    /// `ILIKE`: whatever the case.
    ILike,
    /// `RLIKE`: a regular expression.
    RLike,
}

/// How several patterns combine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quantifier {
    /// One pattern.
    One,
    /// `LIKE ANY`.
    Any,
    /// `LIKE ALL`.
    All,
}

/// Which groupings are made of sets of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Groupings {
    /// `GROUPING SETS`: these.
    Sets,
    /// `ROLLUP`: all sets together, all but the last, and so on to none.
    Rollup,
    /// `CUBE`: every choice of sets.
    Cube,
    /// `GROUP BY ALL`: one, of all that the select list has and that is no aggregate. It has no sets of its own.
    All,
}

/// What `IS` tests for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named after the keywords")]
pub enum IsTest {
    Null,
    True,
    False,
    Unknown,
}

/// The column called `name`: `"a"`, `"t.a"`, `"t.a.field"`, with backticks around parts that hold dots, or `"*"`.
pub fn col(name: impl AsRef<str>) -> Expr {
    let name = name.as_ref();
    let mut parts = name_parts(name);
    if parts.last().is_some_and(|last| last == "*") {
        parts.pop();
        return Expr::Star {
            qualifier: parts,
            except: vec![],
            place: None,
        };
    }
    Expr::Column {
        name: parts,
        place: None,
    }
}

/// A constant.
pub fn lit(value: impl Into<Literal>) -> Expr {
    Expr::Literal(value.into(), None)
}

/// An expression written in SQL.
pub fn expr(sql: &str) -> Result<Expr, QueryError> {
    crate::sql::parse_expression(sql)
}

/// The parts of a dotted name. Text that is not well-formed names a column literally.
pub(crate) fn name_parts(text: &str) -> Vec<String> {
    let mut parts = vec![];
    let mut rest = text;
    loop {
        let (part, after) = match rest.strip_prefix('`') {
            Some(quoted) => match quoted.find('`') {
                Some(end) => (&quoted[..end], &quoted[end + 1..]),
                None => return vec![text.to_string()],
            },
            None => rest.split_at(rest.find('.').unwrap_or(rest.len())),
        };
        parts.push(part.to_string());
        if after.is_empty() {
            return parts;
        }
        match after.strip_prefix('.') {
            Some(next) if !next.is_empty() => rest = next,
            _ => return vec![text.to_string()],
        }
    }
}

/// A condition: SQL text, or an expression.
pub trait IntoCondition {
    /// The condition as an expression.
    fn into_condition(self) -> Result<Expr, QueryError>;
}

impl IntoCondition for Expr {
    fn into_condition(self) -> Result<Expr, QueryError> {
        Ok(self)
    }
}

impl IntoCondition for &str {
    fn into_condition(self) -> Result<Expr, QueryError> {
        expr(self)
    }
}

impl IntoCondition for String {
    fn into_condition(self) -> Result<Expr, QueryError> {
        expr(&self)
    }
}

impl IntoCondition for &String {
    fn into_condition(self) -> Result<Expr, QueryError> {
        expr(self)
    }
}

impl From<&str> for Expr {
    fn from(name: &str) -> Expr {
        col(name)
    }
}

impl From<String> for Expr {
    fn from(name: String) -> Expr {
        col(name)
    }
}

impl From<&String> for Expr {
    fn from(name: &String) -> Expr {
        col(name)
    }
}

impl From<Literal> for Expr {
    fn from(value: Literal) -> Expr {
        Expr::Literal(value, None)
    }
}

impl From<Call> for Expr {
    fn from(call: Call) -> Expr {
        Expr::Call(Box::new(call))
    }
}

macro_rules! literal_from {
    ($($from:ty => $to:ident),*) => {$(
        impl From<$from> for Literal {
            fn from(value: $from) -> Literal {
                Literal::$to(value.into())
            }
        }
    )*};
}
literal_from!(bool => Boolean, i8 => TinyInt, i16 => SmallInt, i32 => Int, i64 => BigInt, f32 => Float, f64 => Double,
    &str => String, String => String, Vec<u8> => Binary);

impl Expr {
    /// A call of the function called `name`.
    pub fn call(name: impl Into<String>, args: Vec<Expr>) -> Expr {
        Call {
            name: name.into(),
            args,
            ..Call::default()
        }
        .into()
    }

    pub(crate) fn binary(self, op: BinaryOp, right: Expr) -> Expr {
        Expr::Binary {
            left: Box::new(self),
            op,
            right: Box::new(right),
            place: None,
        }
    }

    fn is(self, test: IsTest, negated: bool) -> Expr {
        Expr::Is {
            expr: Box::new(self),
            test,
            negated,
        }
    }

    fn like_with(self, kind: LikeKind, pattern: Expr) -> Expr {
        let (patterns, quantifier) = (vec![pattern], Quantifier::One);
        Expr::Like {
            kind,
            expr: Box::new(self),
            patterns,
            quantifier,
            escape: None,
            negated: false,
        }
    }

    /// The same, called `name`.
    pub fn alias(self, name: impl Into<String>) -> Expr {
        Expr::Alias {
            expr: Box::new(self),
            names: vec![name.into()],
        }
    }

    /// The columns that a generator makes, called `names`.
    pub fn alias_all<S: Into<String>>(self, names: impl IntoIterator<Item = S>) -> Expr {
        Expr::Alias {
            expr: Box::new(self),
            names: names.into_iter().map(Into::into).collect(),
        }
    }

    /// The same as the type called `to`, such as `"bigint"`.
    pub fn cast(self, to: impl Into<String>) -> Expr {
        Expr::Cast {
            expr: Box::new(self),
            to: to.into(),
            attempt: false,
            place: None,
        }
    }

    /// The same as the type called `to`, or NULL where it cannot be.
    pub fn try_cast(self, to: impl Into<String>) -> Expr {
        Expr::Cast {
            expr: Box::new(self),
            to: to.into(),
            attempt: true,
            place: None,
        }
    }

    /// `self = other`.
    pub fn eq(self, other: impl Into<Expr>) -> Expr {
        self.binary(BinaryOp::Eq, other.into())
    }

    /// `self <> other`.
    pub fn not_eq(self, other: impl Into<Expr>) -> Expr {
        self.binary(BinaryOp::NotEq, other.into())
    }

    /// `self <=> other`: two nulls are equal.
    pub fn eq_null_safe(self, other: impl Into<Expr>) -> Expr {
        self.binary(BinaryOp::NullSafeEq, other.into())
    }

    /// `self < other`.
    pub fn lt(self, other: impl Into<Expr>) -> Expr {
        self.binary(BinaryOp::Lt, other.into())
    }

    /// `self <= other`.
    pub fn lt_eq(self, other: impl Into<Expr>) -> Expr {
        self.binary(BinaryOp::LtEq, other.into())
    }

    /// `self > other`.
    pub fn gt(self, other: impl Into<Expr>) -> Expr {
        self.binary(BinaryOp::Gt, other.into())
    }

    /// `self >= other`.
    pub fn gt_eq(self, other: impl Into<Expr>) -> Expr {
        self.binary(BinaryOp::GtEq, other.into())
    }

    /// `self + other`.
    pub fn plus(self, other: impl Into<Expr>) -> Expr {
        self.binary(BinaryOp::Add, other.into())
    }

    /// `self - other`.
    pub fn minus(self, other: impl Into<Expr>) -> Expr {
        self.binary(BinaryOp::Subtract, other.into())
    }

    /// `self AND other`.
    pub fn and(self, other: impl Into<Expr>) -> Expr {
        self.binary(BinaryOp::And, other.into())
    }

    /// `self OR other`.
    pub fn or(self, other: impl Into<Expr>) -> Expr {
        self.binary(BinaryOp::Or, other.into())
    }

    /// `self IS NULL`.
    pub fn is_null(self) -> Expr {
        self.is(IsTest::Null, false)
    }

    /// `self IS NOT NULL`.
    pub fn is_not_null(self) -> Expr {
        self.is(IsTest::Null, true)
    }

    /// `self LIKE pattern`.
    pub fn like(self, pattern: &str) -> Expr {
        self.like_with(LikeKind::Like, lit(pattern))
    }

    /// `self ILIKE pattern`.
    pub fn ilike(self, pattern: &str) -> Expr {
        self.like_with(LikeKind::ILike, lit(pattern))
    }

    /// `self RLIKE pattern`.
    pub fn rlike(self, pattern: &str) -> Expr {
        self.like_with(LikeKind::RLike, lit(pattern))
    }

    /// `self BETWEEN low AND high`.
    pub fn between(self, low: impl Into<Expr>, high: impl Into<Expr>) -> Expr {
        let (low, high) = (Box::new(low.into()), Box::new(high.into()));
        Expr::Between {
            expr: Box::new(self),
            low,
            high,
            negated: false,
        }
    }

    /// `self IN (list)`.
    pub fn is_in(self, list: Vec<Expr>) -> Expr {
        Expr::In {
            expr: Box::new(self),
            list,
            negated: false,
        }
    }

    /// The field called `name` of a struct.
    pub fn field(self, name: impl Into<String>) -> Expr {
        Expr::Field {
            expr: Box::new(self),
            name: name.into(),
            place: None,
        }
    }

    /// `self[index]`: an element of an array, a value of a map.
    pub fn item(self, index: impl Into<Expr>) -> Expr {
        Expr::Index {
            expr: Box::new(self),
            index: Box::new(index.into()),
        }
    }

    /// This function of the rows of a window around each row.
    pub fn over(self, window: Window) -> Expr {
        match self {
            Expr::Call(mut call) => {
                call.over = Some(window);
                Expr::Call(call)
            }
            Expr::Alias { expr, names } => Expr::Alias {
                expr: Box::new(expr.over(window)),
                names,
            },
            // No function: the resolver says so.
            other => Call {
                name: "over".into(),
                args: vec![other],
                over: Some(window),
                ..Call::default()
            }
            .into(),
        }
    }

    /// A key of ORDER BY: the value, whether it ascends, and whether nulls come first if that was said.
    pub(crate) fn sort_key(&self) -> (&Expr, bool, Option<bool>) {
        match self {
            Expr::Sort {
                expr,
                ascending,
                nulls_first,
            } => (expr, *ascending, *nulls_first),
            other => (other, true, None),
        }
    }

    /// Sort by this, ascending, nulls first.
    pub fn asc(self) -> Expr {
        Expr::Sort {
            expr: Box::new(self),
            ascending: true,
            nulls_first: None,
        }
    }

    /// Sort by this, descending, nulls last.
    pub fn desc(self) -> Expr {
        Expr::Sort {
            expr: Box::new(self),
            ascending: false,
            nulls_first: None,
        }
    }
}

macro_rules! operator {
    ($($trait:ident $method:ident $op:ident),*) => {$(
        impl<R: Into<Expr>> ops::$trait<R> for Expr {
            type Output = Expr;
            fn $method(self, right: R) -> Expr {
                self.binary(BinaryOp::$op, right.into())
            }
        }
    )*};
}
operator!(Add add Add, Sub sub Subtract, Mul mul Multiply, Div div Divide, Rem rem Remainder);

impl ops::Neg for Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        Expr::Unary {
            op: UnaryOp::Minus,
            expr: Box::new(self),
        }
    }
}

impl ops::Not for Expr {
    type Output = Expr;
    fn not(self) -> Expr {
        Expr::Unary {
            op: UnaryOp::Not,
            expr: Box::new(self),
        }
    }
}

impl Expr {
    /// Where it begins in the text of the query, or its first part whose place is known.
    pub(crate) fn place(&self) -> Option<Place> {
        let own = match self {
            Expr::Column { place, .. }
            | Expr::Literal(_, place)
            | Expr::TypedText { place, .. }
            | Expr::Binary { place, .. }
            | Expr::Cast { place, .. }
            | Expr::Star { place, .. } => *place,
            Expr::Call(call) => call.place,
            Expr::Subquery(plan) | Expr::Exists { plan, .. } => first_place(plan),
            _ => None,
        };
        let mut children = self.children().into_iter();
        own.or_else(|| children.find_map(Expr::place))
    }

    /// Whether `test` holds for this expression or one inside it.
    pub(crate) fn any(&self, test: &dyn Fn(&Expr) -> bool) -> bool {
        test(self) || self.children().into_iter().any(|child| child.any(test))
    }
}
