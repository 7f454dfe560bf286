//! Where committed rows leave.
//!
//! A connector gives a `SinkFactory`. Each worker that receives rows has a `SinkWriter`, which stages its part of
//! an epoch (or of a run of epochs) where nobody sees it and answers with a small receipt. When all receipts are
//! in, the one `Sink`, beside the coordinator, makes the run visible. It may be asked to commit the same run again
//! after a crash, and must then change nothing.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::options::Options;
use crate::source::{FormatError, Retry};

/// Which rows an epoch hands the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OutputMode {
    /// Rows that will never change.
    Append,
    /// Rows that changed, each replacing the one with its key. A group that `HAVING` leaves out is not emitted, and the
    /// row emitted for it before stays where it is.
    Update,
    /// The whole answer.
    Complete,
    /// Rows that come and rows that leave, told apart by a last column [`CHANGE`].
    Changes,
}

/// In changes mode, the column with +1 for a row that comes and -1 for one that leaves.
pub const CHANGE: &str = "_change";

impl OutputMode {
    /// Every mode.
    pub const ALL: [OutputMode; 4] = [
        OutputMode::Append,
        OutputMode::Update,
        OutputMode::Complete,
        OutputMode::Changes,
    ];

    /// The mode that users of the model call so.
    pub fn named(name: &str) -> Option<Self> {
        OutputMode::ALL
            .into_iter()
            .find(|mode| mode.to_string().eq_ignore_ascii_case(name.trim()))
    }

    /// The columns that a sink is given of an answer with these: in changes mode what a row means for the answer before
    /// as well.
    pub(crate) fn columns(self, answer: SchemaRef) -> Result<SchemaRef, Error> {
        if self != OutputMode::Changes {
            return Ok(answer);
        }
        if answer.field_with_name(CHANGE).is_ok() {
            return Err(Error::refused(
                "COLUMN_ALREADY_EXISTS",
                format!(
                    "the column \"{CHANGE}\" of the query has the name that changes mode gives to its own: rename it"
                ),
            ));
        }
        let mut fields = answer.fields().to_vec();
        fields.push(Arc::new(Field::new(CHANGE, DataType::Int32, false)));
        Ok(Arc::new(Schema::new(fields)))
    }
}

impl std::fmt::Display for OutputMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            OutputMode::Append => "append",
            OutputMode::Update => "update",
            OutputMode::Complete => "complete",
            OutputMode::Changes => "changes",
        })
    }
}

/// What a batch write does if something is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveMode {
    /// Refuses to write.
    ErrorIfExists,
    /// Adds its rows.
    Append,
    /// Puts its rows in the place of what is there.
    Overwrite,
    /// Leaves what is there, and writes nothing.
    Ignore,
}

/// A connector's error, as the engine sees it.
#[derive(Debug, thiserror::Error)]
#[error("{connector} sink")]
pub struct SinkError {
    /// The connector's format name.
    pub connector: &'static str,
    /// Whether it may pass.
    pub retry: Retry,
    /// The connector's own error.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// What one worker staged for a run of epochs. Crosses the network: small.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The worker's index over all processes.
    pub worker: usize,
    /// Rows staged.
    pub rows: u64,
    /// What was staged, in the sink's own words (names of temporary files).
    pub body: String,
}

/// Which workers receive rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Each worker writes the rows it has.
    EveryWorker,
    /// All rows go to worker 0, in the coordinator's process (console, memory).
    OneWorker,
}

/// What a writer calls when it has handed a run over, on whatever thread.
pub type HandedOver = Box<dyn FnOnce(Result<Receipt, SinkError>) + Send>;

/// One worker's writer. Lives on the worker's thread.
pub trait SinkWriter {
    /// Takes rows of `epoch`. Epochs come in order.
    fn write(&mut self, epoch: u64, rows: &RecordBatch) -> Result<(), SinkError>;

    /// All rows of the run are written: stage them durably under names nobody reads. Called for every run, rows or
    /// not. Names are a function of the run and the worker, so that a replay overwrites its own leavings.
    fn stage(&mut self, epochs: RangeInclusive<u64>) -> Result<Receipt, SinkError>;

    /// Called instead of `stage` where the sink `hands_over`: lets the rows of the run go, and calls `done` when that is
    /// over. Rows of later epochs may have been written before.
    fn hand_over(&mut self, epochs: RangeInclusive<u64>, done: HandedOver) {
        done(self.stage(epochs));
    }
}

/// The committing half, opened once per query in the coordinator's process. All calls come from one thread.
pub trait Sink: Send {
    /// For progress reports: `FileSink[data/out]`.
    fn description(&self) -> String;

    /// The newest epoch the outside system already holds for this query, if it can tell. Asked once, when a query goes
    /// on after a restart: epochs up to it are replayed for their state only, and their rows are not written again.
    fn committed(&mut self) -> Result<Option<u64>, SinkError> {
        Ok(None)
    }

    /// The checkpoint says that the sink holds rows of `epoch`: an error if it sees that this is not so. Asked when a
    /// query goes on after a restart.
    fn confirm(&mut self, epoch: u64) -> Result<(), SinkError> {
        let _ = epoch;
        Ok(())
    }

    /// Makes a run of epochs visible: all of it or nothing, once however often it is asked.
    fn commit(
        &mut self,
        epochs: RangeInclusive<u64>,
        receipts: &[Receipt],
    ) -> Result<(), SinkError>;
}

/// A sink as the user described it, before a query opens it. The same in every process.
pub trait SinkFactory: Send + Sync {
    /// Which workers get a writer.
    fn placement(&self) -> Placement;

    /// False if what it wrote is gone with the program (console, memory): its query needs no checkpoint.
    fn durable(&self) -> bool {
        true
    }

    /// False if a query cannot go on from a checkpoint, because the rows of earlier epochs are gone and none will bring
    /// them back.
    fn recovers(&self) -> bool {
        true
    }

    /// What may not change between two runs of a query on one checkpoint, by name, the kind of the sink first: where
    /// rows go, and what those that are there look like. What is not named may change.
    fn fixed(&self) -> Vec<(&'static str, String)>;

    /// True if one commit may make several short epochs visible, so that what the sink writes has a useful size
    /// (files, transactions). Otherwise every epoch is a run of its own.
    fn groups_epochs(&self) -> bool {
        false
    }

    /// True if nothing brings rows back once a run is staged: code of the program takes them. A run is then staged, by
    /// `hand_over`, when its plan is durable and every run before it is committed.
    fn hands_over(&self) -> bool {
        false
    }

    /// The local directory, absolute, that its files go to. A query that reads files there is refused.
    fn directory(&self) -> Option<&Path> {
        None
    }

    /// A table through which other queries read what is committed. The session calls it by the query's name.
    fn table(&self) -> Option<Arc<dyn TableProvider>> {
        None
    }

    /// Opens the committing half, in one process; before any writer writes. Runs of a query have ascending generations
    /// (0: a batch, or a query without a checkpoint). An older run may still be alive: from here on it loses.
    fn open(&self, generation: u64) -> Result<Box<dyn Sink>, SinkError>;

    /// Opens the committing half for one batch, or answers that there is nothing to write. `mode` is what the user said,
    /// if anything. Unless overridden, a sink that has no notion of what is there takes `Append` and nothing else.
    fn open_batch(&self, mode: Option<SaveMode>) -> Result<Option<Box<dyn Sink>>, SinkError> {
        match mode {
            None | Some(SaveMode::Append) => self.open(0).map(Some),
            Some(mode) => Err(SinkError {
                connector: "this",
                retry: Retry::Never,
                source: format!("save mode {mode:?} is not supported by it; Append is").into(),
            }),
        }
    }

    /// Opens the writer of one worker. `query_id` is the same in every process and for every restart of the query,
    /// `generation` what the committing half of this run was opened with.
    fn writer(
        &self,
        worker: usize,
        query_id: &str,
        generation: u64,
    ) -> Result<Box<dyn SinkWriter>, SinkError>;
}

/// What a user asked of a format with `write_stream()` or `write()`.
#[derive(Debug, Clone)]
pub struct SinkRequest {
    /// Its options, without those of the engine (`checkpointLocation`); the connector refuses those it does not know.
    pub options: Options,
    /// From `.path(..)` or option `path`.
    pub path: Option<String>,
    /// From `.partition_by(..)`.
    pub partition_by: Vec<String>,
    /// The rows it will get.
    pub schema: SchemaRef,
    /// The names of the columns whose values tell rows apart in update mode; empty if the query has no key.
    pub key: Vec<String>,
    /// The output mode; a sink that cannot honour it refuses here. A batch write is `Append`.
    pub mode: OutputMode,
    /// A name for this query's output, unique while the program runs (the memory sink's table).
    pub query_name: Option<String>,
    /// Identifies the query across restarts, in the coordinator's process; writers are told theirs.
    pub query_id: String,
    /// False for a batch write.
    pub streaming: bool,
    /// The session's time zone.
    pub time_zone: String,
    /// True where names of columns that differ in case only are different names.
    pub case_sensitive: bool,
}

/// A sink format, registered by name ("parquet", "console").
pub trait SinkFormat: Send + Sync {
    /// Checks what the user asked for.
    fn sink(&self, request: SinkRequest) -> Result<Arc<dyn SinkFactory>, FormatError>;
}
