//! WHEN rows change: session, DataFrame, incremental plans, epochs, triggers, query handles; the `Source` and
//! `Sink` traits.

mod agreement;
mod catalog;
pub mod checkpoint;
mod cluster;
mod code;
mod conf;
mod coordinator;
mod dataflow;
mod error;
pub mod failpoint;
mod for_each_batch;
mod foreach;
mod formats;
mod frame;
mod generations;
mod late;
mod launch;
mod listener;
mod manager;
mod memory;
mod observe;
pub mod places;
mod plan;
mod progress;
mod query;
mod reader;
mod relation;
mod session;
pub mod sink;
pub mod source;
mod spill;
mod statement;
mod trigger;
mod workers;
mod writer;

pub use highwater_query::{text, type_sql};
pub use highwater_text::options;

pub use checkpoint::CheckpointError;
pub use cluster::{ClusterConfig, ClusterError};
pub use code::CodeError;
pub use error::{Error, hint};
pub use foreach::{ForeachWriter, Row};
pub use formats::{DrawTable, Formats};
pub use frame::{DataFrame, GroupedData, ObserveAs};
pub use listener::{
    QueryIdle, QueryProgress, QueryStarted, QueryTerminated, StreamingQueryListener,
};
pub use manager::StreamingQueryManager;
pub use memory::MemorySource;
pub use progress::{
    SinkProgress, SourceProgress, StateOperatorProgress, StreamingQueryProgress,
    StreamingQueryStatus,
};
pub use query::{Committed, StreamingQuery};
pub use reader::DataReader;
pub use session::{Session, SessionBuilder};
pub use sink::{OutputMode, SaveMode};
pub use statement::Outcome;
pub use trigger::Trigger;
pub use writer::{DataWriter, StreamWriter};
