//! Where rows enter.
//!
//! A connector gives a `SourceFactory`. For each query that reads it, one process (the coordinator's) opens a
//! `Source`, which plans: what is the latest offset, which splits make up the next epoch. Every process has a
//! `Reader`, which turns a split into batches. A split is data: it is planned in one process, crosses the network,
//! and is read in another; after a crash the same split is read again and must give the same rows.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::options::{OptionError, Options};

/// A position in a source, in the source's own words. Only the source can order two of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offset(pub serde_json::Value);

/// An independently readable part of one epoch's rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// What to read, in the source's own words.
    pub descriptor: String,
    /// About how many bytes reading it takes: spreads splits evenly and bounds what is in flight.
    pub bytes: u64,
    /// The only process that can read it, if not every one can (rows that arrived at a socket, say).
    pub process: Option<usize>,
}

/// What the next epoch reads from one source.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    /// The position after it.
    pub end: Offset,
    /// Its rows: the order of the splits is the order of the rows.
    pub splits: Vec<Split>,
}

/// Whether an error may pass by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The outside system may recover: ask again.
    Later,
    /// Asking again gives the same error.
    Never,
}

/// A connector's error, as the engine sees it.
#[derive(Debug, thiserror::Error)]
#[error("{connector} source")]
pub struct SourceError {
    /// The connector's format name.
    pub connector: &'static str,
    /// Whether it may pass.
    pub retry: Retry,
    /// The connector's own error.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Rings the coordinator of a query: rows may have arrived. Cheap, and callable from any thread.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// A waker that calls `ring`.
    pub fn new(ring: impl Fn() + Send + Sync + 'static) -> Self {
        Waker(Arc::new(ring))
    }

    /// Rows may have arrived.
    pub fn wake(&self) {
        (self.0)()
    }
}

/// How the coordinator learns that rows may have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// The source rings its waker.
    Rings,
    /// The coordinator asks `latest` again after this many milliseconds.
    PollEveryMs(u64),
}

/// An epoch as it was planned for one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// The position before it.
    pub start: Offset,
    /// The position after it.
    pub end: Offset,
    /// Its rows.
    pub splits: Vec<Split>,
}

/// Where a query that goes on after a restart takes up a source.
pub struct Resume<'a> {
    /// The position of the checkpoint.
    pub at: &'a Offset,
    /// The position of the oldest checkpoint that is kept: no `committed` before this run was told of more.
    pub oldest: &'a Offset,
    /// All entries that `remember` gave up to that position, in order.
    pub memory: &'a mut dyn Iterator<Item = String>,
    /// The epochs after the checkpoint that were planned before, oldest first. They are replayed from these splits; the
    /// source is asked for what follows them.
    pub planned: &'a [Planned],
}

/// The planning half of a source, opened once per query. All calls come from one thread, which may block.
pub trait Source: Send {
    /// For progress reports: `FileStreamSource[data/in]`.
    fn description(&self) -> String;

    /// What may not change between two runs of a query on one checkpoint, by name: what is read, and as what. What is
    /// not named may change.
    fn fixed(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Called first. `waker` may be kept and rung from any thread.
    fn watch(&mut self, waker: Waker) -> Result<Watch, SourceError>;

    /// What the offset alone does not tell a restart: entries, up to `end`, that were not handed out before (the names
    /// of files that were read). The checkpoint keeps them, in order, one line each, and gives them all back to `resume`.
    fn remember(&mut self, end: &Offset) -> Vec<String> {
        let _ = end;
        Vec::new()
    }

    /// False if a remembered entry is of no use any more (a file older than the age from which all count as read).
    /// Asked when the checkpoint compacts its memory.
    fn still_needs(&self, entry: &str) -> bool {
        let _ = entry;
        true
    }

    /// Called before `resume` with each epoch that was planned before and that no sink has anything of yet, oldest first.
    /// Its rows need not be the same then: the splits to read for it, if not those planned (a file was mended since).
    fn replan(&mut self, planned: &Planned) -> Result<Option<Vec<Split>>, SourceError> {
        let _ = planned;
        Ok(None)
    }

    /// Called once after `watch`, instead of `initial`, in a query that goes on after a restart.
    fn resume(&mut self, from: Resume<'_>) -> Result<(), SourceError> {
        let _ = from;
        Ok(())
    }

    /// The position a fresh query starts from.
    fn initial(&mut self) -> Result<Offset, SourceError>;

    /// The position after everything that can be read now.
    fn latest(&mut self) -> Result<Offset, SourceError>;

    /// The next epoch's rows: from `from` up to `to` at most, `None` if there are none. Stops at the source's own
    /// limits (its options) and near `bytes_max`, but always admits something if there is something.
    fn admit(
        &mut self,
        from: &Offset,
        to: &Offset,
        bytes_max: u64,
    ) -> Result<Option<Admitted>, SourceError>;

    /// Every epoch up to `end` is committed: what lies before it will never be asked for again.
    fn committed(&mut self, end: &Offset) -> Result<(), SourceError> {
        let _ = end;
        Ok(())
    }

    /// True once no row can ever arrive again after `latest` (a socket whose peer hung up).
    fn ended(&self) -> bool {
        false
    }

    /// What reads this source's splits in this process.
    fn reader(&self) -> Arc<dyn Reader>;
}

/// Batches of one split, in order. Bounded in memory: an iterator, not a vector.
pub type Batches = Box<dyn Iterator<Item = Result<RecordBatch, SourceError>> + Send>;

/// The reading half: used by all workers of a process at once, on reader threads.
pub trait Reader: Send + Sync {
    /// Reads `split`: only `columns` (indices into the source's schema, ascending), in that order. Same split, same
    /// rows, whatever happened in between. About 8192 rows a batch.
    fn read(&self, split: &Split, columns: &[usize]) -> Result<Batches, SourceError>;
}

/// A source as the user described it, before a query opens it. The same in every process.
pub trait SourceFactory: Send + Sync {
    /// What its rows look like.
    fn schema(&self) -> SchemaRef;

    /// Whether it reads files in this directory, below it or around it.
    fn meets(&self, directory: &Path) -> bool {
        let _ = directory;
        false
    }

    /// Whether files that have these names, in this directory or below it, would be read as rows.
    fn holds(&self, directory: &Path, names: &[&str]) -> bool {
        let _ = (directory, names);
        false
    }

    /// Opens it for one query (or one batch read), in the one process that plans.
    fn open(&self) -> Result<Box<dyn Source>, SourceError>;

    /// What reads splits in a process that has no open `Source`.
    fn reader(&self) -> Arc<dyn Reader>;
}

/// What a user asked of a format with `read_stream()` or `read()`.
#[derive(Debug, Clone)]
pub struct SourceRequest {
    /// Its options; the connector refuses those it does not know (`Options::only`).
    pub options: Options,
    /// From `.path(..)`, `.load_path(..)` or option `path`.
    pub path: Option<String>,
    /// The schema the user gave.
    pub schema: Option<SchemaRef>,
    /// False for a batch read.
    pub streaming: bool,
    /// The session's time zone: what timestamps without one mean.
    pub time_zone: String,
}

/// What can go wrong while a source or a sink is described, before any row moves.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// An option is unknown, missing or malformed.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// Something else the user can mend; the text says what and how.
    #[error("{message}")]
    Invalid {
        /// What is wrong, and the fix.
        message: String,
        /// The error class users of the model know, where there is one.
        class: Option<&'static str>,
    },
    /// The outside world failed.
    #[error("{what}")]
    Outside {
        /// What was tried.
        what: String,
        /// How it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A source format, registered by name ("json", "socket").
pub trait SourceFormat: Send + Sync {
    /// Checks what the user asked for. Touches the outside world as little as possible: a path must exist.
    fn source(&self, request: SourceRequest) -> Result<Arc<dyn SourceFactory>, FormatError>;
}
