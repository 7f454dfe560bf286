//! Unresolved plans: the shape of a query as written, from SQL text or built by a program.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;

use crate::error::{Place, QueryError};
use crate::expr::Expr;
use crate::observe::Observation;

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
        /// `STREAM name`: its rows as they arrive, not those it has now.
        stream: bool,
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
        /// Key expressions; an integer literal is a position in `outputs`, a name may be one of theirs. An
        /// [`Expr::Groupings`] makes several groupings.
        keys: Vec<Expr>,
        /// The columns: over keys and aggregate functions.
        outputs: Vec<Expr>,
        /// Which groups.
        having: Option<Expr>,
    },
    /// `DISTRIBUTE BY keys`: rows with the same keys in one place. Where a row is says nothing of the answer.
    Distribute {
        /// The rows.
        input: Box<Plan>,
        /// What says where.
        keys: Vec<Expr>,
    },
    /// `QUALIFY condition`: which rows of a select list, by its window functions.
    Qualify {
        /// The select list: a [`Plan::Project`] or [`Plan::Aggregate`].
        input: Box<Plan>,
        /// Which rows.
        condition: Expr,
    },
    /// `PIVOT`: one column per value of others.
    Pivot {
        /// The rows.
        input: Box<Plan>,
        /// What is aggregated; columns that neither this nor `columns` uses are the keys.
        aggregates: Vec<Expr>,
        /// The columns whose values become columns.
        columns: Vec<Expr>,
        /// The values, a tuple if there are several columns, each perhaps with a name.
        values: Vec<Expr>,
    },
    /// `UNPIVOT`: one row per column or tuple of columns.
    Unpivot {
        /// The rows.
        input: Box<Plan>,
        /// The names of the columns that values go to.
        values: Vec<String>,
        /// The name of the column that says where the values of a row come from.
        name: String,
        /// The columns of each row, as many as `values`, and what is said of them if not their names.
        columns: Vec<(Vec<Expr>, Option<String>)>,
        /// Whether a row without a value is one.
        nulls: bool,
    },
    /// `SELECT DISTINCT`.
    Distinct {
        /// The rows.
        input: Box<Plan>,
    },
    /// The first row of each key: `drop_duplicates`.
    Deduplicate {
        /// The rows.
        input: Box<Plan>,
        /// The names of the key's columns; none means all columns.
        columns: Vec<String>,
        /// Duplicates only count for as long as rows may be late.
        within_watermark: bool,
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
        /// How many: a constant, and where it stands.
        count: Option<(Expr, Option<Place>)>,
        /// After how many.
        skip: Option<(Expr, Option<Place>)>,
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
    /// As the right side of a join: a query that may name columns of the left one.
    Lateral {
        /// The query.
        input: Box<Plan>,
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
    /// The rows, and aggregates over them on the side.
    Observe {
        /// The rows.
        input: Box<Plan>,
        /// What the values are reported under.
        name: String,
        /// The values: over aggregate functions.
        metrics: Vec<Expr>,
        /// Where a batch query leaves them.
        observation: Option<Observation>,
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
    /// `CREATE [OR REPLACE] [TEMP] VIEW [IF NOT EXISTS] name AS`.
    CreateView {
        /// The view.
        name: String,
        /// Replace a view of that name.
        replace: bool,
        /// Keep a view of that name.
        if_not_exists: bool,
        /// Its rows.
        plan: Plan,
    },
    /// `CREATE [OR REPLACE] [STREAMING] TEMP VIEW name USING format`.
    CreateSource {
        /// The view.
        name: String,
        /// Replace a view of that name.
        replace: bool,
        /// Its rows are read as they arrive, else once.
        streaming: bool,
        /// Its columns.
        schema: Option<SchemaRef>,
        /// The connector.
        format: String,
        /// The connector's options.
        options: Vec<(String, String)>,
    },
    /// `CREATE [OR REPLACE] TABLE [IF NOT EXISTS] name (columns) USING format`: a source that can be read once
    /// (`FROM name`) and as it grows (`FROM STREAM name`).
    CreateTable {
        /// The table.
        name: String,
        /// Replace a table of that name.
        replace: bool,
        /// Keep a table of that name.
        if_not_exists: bool,
        /// Its columns.
        schema: Option<SchemaRef>,
        /// The connector.
        format: String,
        /// The connector's options.
        options: Vec<(String, String)>,
    },
    /// `CREATE STREAMING TABLE [IF NOT EXISTS] name USING format AS query`: starts a query, named by its table.
    CreateStreamingTable {
        /// The table, and the query.
        name: String,
        /// Keep a table of that name.
        if_not_exists: bool,
        /// The connector.
        format: String,
        /// The connector's options and the query's.
        options: Vec<(String, String)>,
        /// One directory for each value of these columns.
        partition_by: Vec<String>,
        /// Its rows.
        plan: Plan,
    },
    /// `DROP VIEW`, `DROP TABLE`, `DROP STREAMING TABLE`.
    Drop {
        /// What it must be.
        kind: NamedKind,
        /// Its name.
        name: String,
        /// It need not exist.
        if_exists: bool,
    },
    /// `EXPLAIN statement`.
    Explain(Box<Statement>),
    /// `DESCRIBE name`: the columns.
    Describe(Plan),
    /// `SHOW QUERIES`, `SHOW TABLES`.
    Show(Show),
    /// `STOP QUERY name`.
    StopQuery {
        /// The query.
        name: String,
    },
    /// `SET`, `SET key`, `SET key = value`.
    Set {
        /// One setting, or all of them.
        key: Option<String>,
        /// What it shall be, or what it is.
        value: Option<String>,
    },
}

/// What a name can stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the keywords")]
pub enum NamedKind {
    View,
    Table,
    StreamingTable,
}

impl std::fmt::Display for NamedKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NamedKind::View => "view",
            NamedKind::Table => "table",
            NamedKind::StreamingTable => "streaming table",
        })
    }
}

/// What `SHOW` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the keywords")]
pub enum Show {
    Queries,
    Tables,
}

/// Views and tables by name.
pub trait Catalog {
    /// The rows of the table or view called `name`, if there is one: those it has when the query runs, or with `stream`
    /// as they arrive; an error if it cannot be read that way. Matching case is the catalog's business.
    fn table(&self, name: &[String], stream: bool) -> Result<Option<LogicalPlan>, QueryError>;
}

/// Settings that change what a query means, and what it tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conf {
    /// The session time zone: how timestamps are written and read as text and cut into days.
    pub time_zone: String,
    /// Whether `A` and `a` are two columns.
    pub case_sensitive: bool,
    /// Whether what has no answer stops a query: a number that its type cannot hold, a text that is no number. If not,
    /// arithmetic goes on as in the model, and all else that could fail is refused.
    pub ansi: bool,
    /// Whether an epoch without rows follows the last one with rows, if the watermark moved.
    pub no_data_epochs: bool,
    /// How the watermarks of several streams combine.
    pub watermark_policy: WatermarkPolicy,
    /// After how long a silent stream no longer holds the watermark back, in milliseconds; never if zero.
    pub idle_timeout_ms: u64,
    /// How many of its progress reports a query keeps.
    pub progress_reports: usize,
    /// How often a query with nothing to do tells its listeners, in milliseconds.
    pub idle_event_ms: u64,
    /// A static table with more bytes in memory than these is not held whole by every process; none is if it is -1.
    pub broadcast_max: i64,
    /// Settings of the model's that change nothing here, as they were given.
    pub inert: BTreeMap<&'static str, String>,
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
            ansi: true,
            no_data_epochs: true,
            watermark_policy: WatermarkPolicy::Min,
            idle_timeout_ms: 0,
            progress_reports: 100,
            idle_event_ms: 10_000,
            broadcast_max: 10 << 20,
            inert: BTreeMap::new(),
        }
    }
}
