//! Continuous queries over Arrow rows.
//!
//! A query is written over a table as a batch job would write it, with a DataFrame or SQL. Highwater runs it
//! incrementally over rows that never stop arriving, and its answer is always the answer that the batch query would
//! give on a prefix of the input.
//!
//! ```
//! use highwater::prelude::*;
//!
//! fn main() -> highwater::Result<()> {
//!     let session = Session::new()?;
//!     let lines = session.read_stream().format("text").path("examples/data/words").load()?;
//!     let words = lines.select([explode(split(col("value"), lit(" "))).alias("word")])?;
//!     let query = words.group_by(["word"])?.count()?
//!         .write_stream().output_mode(OutputMode::Complete).trigger(Trigger::AvailableNow)
//!         .format("memory").query_name("counts").start()?;
//!     query.await_termination()?;
//!     session.sql("SELECT word, count FROM counts ORDER BY count DESC, word LIMIT 3")?.show()
//! }
//! ```

mod session;

pub use highwater_connectors as connectors;
pub use highwater_engine::checkpoint;
pub use highwater_engine::{
    ClusterConfig, CodeError, Committed, DataFrame, DataReader, DataWriter, Error, ForeachWriter,
    Formats, GroupedData, MemorySource, ObserveAs, Outcome, OutputMode, QueryIdle, QueryProgress,
    QueryStarted, QueryTerminated, Row, SaveMode, SessionBuilder, SinkProgress, SourceProgress,
    StateOperatorProgress, StreamWriter, StreamingQuery, StreamingQueryListener,
    StreamingQueryManager, StreamingQueryProgress, StreamingQueryStatus, Trigger, options, sink,
    source,
};
pub use highwater_query::{
    Expr, Functions, JoinKind, Observation, Place, QueryError, StatementText, functions,
    parse_schema, schema_text, split_statements, type_text,
};
pub use session::Session;

/// What Highwater's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything a program needs to write queries.
pub mod prelude {
    pub use crate::functions::*;
    pub use crate::{DataFrame, Expr, JoinKind, OutputMode, Session, StreamingQuery, Trigger};
    pub use highwater_query::{IntoCondition, Window, col, expr, lit};
}

/// The README's programs compile and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
