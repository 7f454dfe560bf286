//! Unresolved plans: the shape of a query as written, from SQL text or built by a program.

use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;

use crate::error::{Place, QueryError};
use crate::expr::Expr;

/// A query as written.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// A plan that is resolved already: a source, a view, the result of an earlier step.
    Resolved(Arc<LogicalPlan>),
    /// A table or view by name.
    Table {
        /// The parts of the name.
        name: Vec<String>,
        /// Where it stands.
        place: Option<Place>,
    },
    /// A relation called `name`, and its columns called `columns` unless that is empty.
    Alias {
        /// The relation.
        input: Box<Plan>,
        /// Its name.
        name: String,
        /// Its columns' names.
        columns: Vec<String>,
    },
    /// `SELECT outputs`.
    Project {
        /// The rows.
        input: Box<Plan>,
        /// The columns. One of them may be a generator.
        outputs: Vec<Expr>,
    },
    /// All columns, with those named here replaced or added at the end.
    WithColumns {
        /// The rows.
        input: Box<Plan>,
        /// Names and values.
        columns: Vec<(String, Expr)>,
    },
    /// All columns but those named here.
    DropColumns {
        /// The rows.
        input: Box<Plan>,
        /// Names; unknown ones are ignored.
        columns: Vec<String>,
    },
    /// All columns, some under new names.
    RenameColumns {
        /// The rows.
        input: Box<Plan>,
        /// Old and new names; unknown ones are ignored.
        columns: Vec<(String, String)>,
    },
    /// `WHERE condition`.
    Filter {
        /// The rows.
        input: Box<Plan>,
        /// The condition.
        condition: Expr,
    },
    /// `SELECT outputs GROUP BY keys HAVING having`.
    Aggregate {
        /// The rows.
        input: Box<Plan>,
        /// Key expressions; an integer literal is a position in `outputs`, a name may be one of theirs.
        keys: Vec<Expr>,
        /// The columns: over keys and aggregate functions.
        outputs: Vec<Expr>,
        /// Which groups.
        having: Option<Expr>,
    },
    /// `SELECT DISTINCT`.
    Distinct {
        /// The rows.
        input: Box<Plan>,
    },
    /// `ORDER BY order`.
    Sort {
        /// The rows.
        input: Box<Plan>,
        /// Keys: [`Expr::Sort`], or anything else to sort by ascending.
        order: Vec<Expr>,
    },
    /// `LIMIT count OFFSET skip`.
    Limit {
        /// The rows.
        input: Box<Plan>,
        /// How many.
        count: Option<u64>,
        /// After how many.
        skip: u64,
    },
    /// A join.
    Join {
        /// The left side.
        left: Box<Plan>,
        /// The right side.
        right: Box<Plan>,
        /// Which kind.
        kind: JoinKind,
        /// Which rows match.
        condition: JoinCondition,
    },
    /// The rows of all inputs.
    Union {
        /// The inputs.
        inputs: Vec<Plan>,
        /// Match columns by name instead of position.
        by_name: bool,
    },
    /// Rows that are not in another input, or that are in both.
    SetOperation {
        /// The left side.
        left: Box<Plan>,
        /// The right side.
        right: Box<Plan>,
        /// `EXCEPT` (true) or `INTERSECT`.
        except: bool,
        /// Count copies.
        all: bool,
    },
    /// `VALUES rows`.
    Values {
        /// The rows.
        rows: Vec<Vec<Expr>>,
    },
    /// One row without columns: `SELECT` without `FROM`.
    OneRow,
    /// `WITH ctes`.
    With {
        /// Names, column names, queries; each sees those before it.
        ctes: Vec<(String, Vec<String>, Plan)>,
        /// The query over them.
        input: Box<Plan>,
    },
    /// `LATERAL VIEW generator name AS columns`.
    LateralView {
        /// The rows.
        input: Box<Plan>,
        /// The generator.
        generator: Expr,
        /// Keep rows that the generator makes nothing for.
        outer: bool,
        /// The name of what it makes.
        name: String,
        /// Its columns' names.
        columns: Vec<String>,
    },
    /// `WATERMARK column DELAY OF delay`.
    Watermark {
        /// The rows.
        input: Box<Plan>,
        /// The event time.
        column: Expr,
        /// By how much rows may be late: a constant interval, or text that says one.
        delay: Expr,
    },
    /// `STREAM input`: the rows of a relation that must be a stream.
    Stream {
        /// The rows.
        input: Box<Plan>,
        /// Where it stands.
        place: Option<Place>,
    },
}

/// Which kind of join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named after the keywords")]
pub enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
    LeftSemi,
    LeftAnti,
    Cross,
}

/// Which rows match.
#[derive(Debug, Clone, PartialEq)]
pub enum JoinCondition {
    /// All.
    None,
    /// Those for which the condition is true.
    On(Expr),
    /// Those equal in the columns of these names.
    Using(Vec<String>),
    /// Those equal in the columns that both sides have.
    Natural,
}

/// A statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    /// A query.
    Query(Plan),
    /// `CREATE [OR REPLACE] TEMP VIEW`.
    CreateTempView {
        /// The view.
        name: Vec<String>,
        /// Replace a view of that name.
        replace: bool,
        /// Its rows.
        plan: Plan,
    },
    /// `CREATE [OR REPLACE] [STREAMING] TEMP VIEW name USING format`.
    CreateSource {
        /// The view.
        name: String,
        /// Replace a view of that name.
        replace: bool,
        /// Its rows are read as they arrive.
        streaming: bool,
        /// Its columns, as DDL.
        schema: Option<String>,
        /// The connector.
        format: String,
        /// The connector's options.
        options: Vec<(String, String)>,
    },
    /// `DROP VIEW`.
    DropView {
        /// The view.
        name: Vec<String>,
        /// It need not exist.
        if_exists: bool,
    },
}

/// Views and tables by name.
pub trait Catalog {
    /// The rows of the table or view called `name`, if there is one. Matching case is the catalog's business.
    fn table(&self, name: &[String]) -> Result<Option<LogicalPlan>, QueryError>;

    /// Whether a plan over its tables reads rows as they arrive.
    fn is_stream(&self, plan: &LogicalPlan) -> bool;
}

/// Settings that change what a query means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conf {
    /// The session time zone: how timestamps are written and read as text and cut into days.
    pub time_zone: String,
    /// Whether `A` and `a` are two columns.
    pub case_sensitive: bool,
    /// Whether an epoch without rows follows the last one with rows, if the watermark moved.
    pub no_data_epochs: bool,
    /// How the watermarks of several streams combine.
    pub watermark_policy: WatermarkPolicy,
}

/// How the watermarks of several streams combine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatermarkPolicy {
    /// The smallest counts.
    Min,
    /// The largest counts.
    Max,
}

impl Default for Conf {
    fn default() -> Self {
        Conf {
            time_zone: "UTC".to_string(),
            case_sensitive: false,
            no_data_epochs: true,
            watermark_policy: WatermarkPolicy::Min,
        }
    }
}
