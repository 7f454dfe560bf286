//! The front door of Highwater: what is asked.
//!
//! SQL text and Rust builders both make an unresolved [`Plan`]; the [`Resolver`] lowers it to DataFusion's
//! `LogicalPlan` with Spark's names, types and answers. After it nothing is left to coerce: every implicit cast is
//! explicit, every function is an implementation picked by Spark's name and the argument types, and expressions that
//! can fail are volatile to the optimizer, so that no rule evaluates one where the query as written would not.

mod coerce;
mod deduplicate;
mod error;
mod expr;
pub mod functions;
mod nodes;
mod observe;
mod place;
mod plan;
mod resolve;
mod rewrite;
mod session;
mod sql;
mod types;
mod unnest;

pub use highwater_text as text;

pub use deduplicate::Deduplicate;
pub use error::{Place, QueryError, RunError, as_written, error_class_of, names_ours};
pub use expr::{
    BinaryOp, Bound, Call, Expr, Frame, Groupings, IntervalUnit, IntoCondition, IsTest, LikeKind,
    Literal, Quantifier, UnaryOp, Window, col, expr, lit,
};
pub use functions::Functions;
pub use functions::{
    Apart, Rank, Written, aggregate_name, aggregate_written, all_of, apart, can_fail, conjuncts,
    counted_side, duration, equality, guarded, is_now, physical_written, ranks, shifted,
    weighed_sum, written,
};
pub use highwater_text::type_name::{type_sql, type_text};
pub use nodes::{
    Form, Grid, SetOperation, TimeWindow, Watermark, node_of, same_event_time, set_operation,
    window_end, window_of_end, window_width, windows_of_pane, without_event_time,
};
pub use observe::{Observation, Observe};
pub use plan::{
    Catalog, Conf, JoinCondition, JoinKind, NamedKind, Plan, Show, Statement, WatermarkPolicy,
};
pub use resolve::Resolver;
pub use session::{in_time_order, session_bounds, session_key, sessions_lowered};
pub use sql::{
    Part, StatementText, parse_expression, parse_query, parse_statement, part_place,
    split_statements,
};
pub use types::{parse_schema, schema_text, timestamp};
pub use unnest::{as_joins, is_asked_for, unnested, with_marks};
