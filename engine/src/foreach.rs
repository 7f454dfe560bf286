//! Sinks that are a program's own code: `foreach` takes rows one by one, `for_each_batch` a frame of each epoch.
//!
//! Commit: the code runs when the epoch's plan is durable and everything before it is committed, never earlier, so that
//! an epoch's number always comes with the same rows. It runs again if the program dies before the commit is
//! recorded: code that must not count an epoch twice remembers the number of the last one.
//!
//! The code has a thread of its own. It may use the session, start and run other queries, and even hold the last handle of the
//! session: closing it waits for the coordinator, which must then not be the one who closes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Weak};

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::error::{Error, error_chain};
use crate::frame::DataFrame;
use crate::session::{Inner, Session};
use crate::sink::{
    Placement, Receipt, Sink, SinkError, SinkFactory, SinkFormat, SinkRequest, SinkWriter,
};
use crate::source::{FormatError, Retry};
use crate::workers::{lock, panic_text};

/// What a program's own code may fail with.
pub type CodeError = Box<dyn std::error::Error + Send + Sync>;

/// Takes the rows of a query one by one. Every epoch gets a clone of its own.
pub trait ForeachWriter: Clone + Send + Sync + 'static {
    /// An epoch begins; false passes over its rows. `partition` tells parts of an epoch apart; today an epoch is one
    /// part, 0, whatever the number of workers. An epoch that is handed over again after a crash has the same number
    /// and the same rows.
    fn open(&mut self, partition: usize, epoch: u64) -> Result<bool, CodeError> {
        let _ = (partition, epoch);
        Ok(true)
    }

    /// Takes a row. An error ends the query.
    fn process(&mut self, row: Row<'_>) -> Result<(), CodeError>;

    /// The epoch ends: with the error that `process` gave, if it gave one. Not called if `open` failed.
    fn close(&mut self, error: Option<&CodeError>) -> Result<(), CodeError> {
        let _ = error;
        Ok(())
    }
}

/// A row, as `foreach` hands it over.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    batch: &'a RecordBatch,
    at: usize,
}

impl<'a> Row<'a> {
    /// The batch that the row is in.
    pub fn batch(&self) -> &'a RecordBatch {
        self.batch
    }

    /// Its place in the batch.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The column of this name.
    fn column(&self, name: &str) -> Result<&'a Arc<dyn Array>, CodeError> {
        let column = self.batch.column_by_name(name);
        column.ok_or_else(|| format!("a row has no column \"{name}\"").into())
    }

    /// True if the value of a column is null.
    pub fn is_null(&self, name: &str) -> Result<bool, CodeError> {
        Ok(self.column(name)?.is_null(self.at))
    }

    /// The text of a column of strings; `None` if it is null.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, CodeError> {
        let column = self.column(name)?;
        match column.as_string_opt::<i32>() {
            Some(texts) => Ok(texts.is_valid(self.at).then(|| texts.value(self.at))),
            None => Err(other_type(name, column.data_type(), "a STRING")),
        }
    }

    /// The integer of a column, of whatever width; `None` if it is null.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, CodeError> {
        let column = self.column(name)?;
        if !column.data_type().is_integer() {
            return Err(other_type(name, column.data_type(), "an integer"));
        }
        let value = cast(&column.slice(self.at, 1), &DataType::Int64)?;
        let value = value.as_primitive::<Int64Type>();
        Ok(value.is_valid(0).then(|| value.value(0)))
    }

    /// The number of a column as a double; `None` if it is null.
    pub fn double(&self, name: &str) -> Result<Option<f64>, CodeError> {
        let column = self.column(name)?;
        if !column.data_type().is_numeric() {
            return Err(other_type(name, column.data_type(), "a number"));
        }
        let value = cast(&column.slice(self.at, 1), &DataType::Float64)?;
        let value = value.as_primitive::<Float64Type>();
        Ok(value.is_valid(0).then(|| value.value(0)))
    }
}

fn other_type(name: &str, data_type: &DataType, wanted: &str) -> CodeError {
    format!("column \"{name}\" is {data_type}, not {wanted}").into()
}

/// How a program's own code failed.
#[derive(Debug, thiserror::Error)]
enum CodeFailure {
    #[error("the code of {what} failed in epoch {epoch}: {cause}")]
    Failed {
        what: &'static str,
        epoch: u64,
        cause: String,
    },
    #[error("the code of {what} panicked in epoch {epoch}: {text}")]
    Panicked {
        what: &'static str,
        epoch: u64,
        text: String,
    },
    #[error("the session ended before epoch {epoch} was handed over")]
    NoSession { epoch: u64 },
}

/// Runs the code over the rows of an epoch.
type Code = Box<dyn FnMut(Epoch<'_>) -> Result<(), CodeError> + Send>;

struct Epoch<'a> {
    schema: &'a SchemaRef,
    rows: Vec<RecordBatch>,
    number: u64,
    /// Lets go of the session only when the coordinator has its answer.
    session: &'a mut Option<Session>,
}

/// The sink of a query, made from code instead of a format.
pub(crate) struct CodeFormat {
    what: &'static str,
    code: Arc<Mutex<Option<Code>>>,
}

/// Hands each row of an epoch to a clone of `writer`.
pub(crate) fn foreach(writer: impl ForeachWriter) -> CodeFormat {
    let code: Code = Box::new(move |epoch| {
        let mut writer = writer.clone();
        let mut error = None;
        if writer.open(0, epoch.number)? {
            let mut rows = epoch
                .rows
                .iter()
                .flat_map(|batch| (0..batch.num_rows()).map(move |at| Row { batch, at }));
            error = rows.find_map(|row| writer.process(row).err());
        }
        let closed = writer.close(error.as_ref());
        error.map_or(closed, Err)
    });
    CodeFormat::new("foreach", code)
}

/// Hands a frame of each epoch's rows to `code`.
pub(crate) fn for_each_batch<E: Into<CodeError>>(
    session: &Session,
    mut code: impl FnMut(DataFrame, u64) -> Result<(), E> + Send + 'static,
) -> CodeFormat {
    // A query that runs does not keep its session.
    let session: Weak<Inner> = Arc::downgrade(&session.inner);
    let code: Code = Box::new(move |epoch| {
        let gone = CodeFailure::NoSession {
            epoch: epoch.number,
        };
        let inner = session.upgrade().ok_or(gone)?;
        let session = epoch.session.insert(Session { inner });
        let frame = session.create_dataframe(Arc::clone(epoch.schema), epoch.rows)?;
        code(frame, epoch.number).map_err(Into::into)
    });
    CodeFormat::new("for_each_batch", code)
}

impl CodeFormat {
    fn new(what: &'static str, code: Code) -> Self {
        CodeFormat {
            what,
            code: Arc::new(Mutex::new(Some(code))),
        }
    }

    /// Its name among the formats.
    pub(crate) fn name(&self) -> &'static str {
        self.what
    }
}

impl SinkFormat for CodeFormat {
    fn sink(&self, request: SinkRequest) -> Result<Arc<dyn SinkFactory>, FormatError> {
        let owner = format!("the {} sink", self.what);
        request.options.only(&owner, &[], &[])?;
        if request.path.is_some() || !request.partition_by.is_empty() {
            let message = format!("{owner} has no path and no partitions: remove them");
            return Err(FormatError::Invalid {
                message,
                class: None,
            });
        }
        Ok(Arc::new(CodeFactory {
            what: self.what,
            code: Arc::clone(&self.code),
            jobs: Mutex::default(),
            schema: request.schema,
            query_id: request.query_id,
            staged: Staged::default(),
        }))
    }
}

/// Rows of epochs that were not committed yet.
type Staged = Arc<Mutex<BTreeMap<u64, Vec<RecordBatch>>>>;

struct CodeFactory {
    what: &'static str,
    /// Taken by the first sink that is opened.
    code: Arc<Mutex<Option<Code>>>,
    /// To the thread of the code: sinks that are opened later use the same.
    jobs: Mutex<Option<Sender<Job>>>,
    schema: SchemaRef,
    query_id: String,
    staged: Staged,
}

impl SinkFactory for CodeFactory {
    fn fixed(&self) -> Vec<(&'static str, String)> {
        vec![("kind", self.what.into())]
    }

    fn placement(&self) -> Placement {
        Placement::OneWorker
    }

    fn durable(&self) -> bool {
        false
    }

    fn open(&self) -> Result<Box<dyn Sink>, SinkError> {
        // What an earlier generation of workers left is written again.
        lock(&self.staged).clear();
        let mut started = lock(&self.jobs);
        let jobs = match &*started {
            Some(jobs) => jobs.clone(),
            None => started.insert(self.start()?).clone(),
        };
        Ok(Box::new(CodeSink {
            what: self.what,
            jobs,
            staged: Arc::clone(&self.staged),
        }))
    }

    fn writer(&self, worker: usize, _query_id: &str) -> Result<Box<dyn SinkWriter>, SinkError> {
        Ok(Box::new(CodeWriter {
            worker,
            rows: 0,
            staged: Arc::clone(&self.staged),
        }))
    }
}

impl CodeFactory {
    /// Starts the thread of the code.
    fn start(&self) -> Result<Sender<Job>, SinkError> {
        let code = lock(&self.code).take();
        let code = code.expect("a writer is started once, and its code has one thread");
        let (jobs, inbox) = bounded(0);
        let (schema, what) = (Arc::clone(&self.schema), self.what);
        let query = self.query_id.clone();
        let started = std::thread::Builder::new()
            .name(format!("highwater:{what}"))
            .spawn(move || run(what, &schema, &query, code, inbox));
        started.map_err(|error| failure(what, error))?;
        Ok(jobs)
    }
}

fn failure(what: &'static str, error: impl Into<CodeError>) -> SinkError {
    SinkError {
        connector: what,
        retry: Retry::Never,
        source: error.into(),
    }
}

struct CodeWriter {
    worker: usize,
    rows: u64,
    staged: Staged,
}

impl SinkWriter for CodeWriter {
    fn write(&mut self, epoch: u64, rows: &RecordBatch) -> Result<(), SinkError> {
        self.rows += rows.num_rows() as u64;
        lock(&self.staged)
            .entry(epoch)
            .or_default()
            .push(rows.clone());
        Ok(())
    }

    fn stage(&mut self, _epochs: RangeInclusive<u64>) -> Result<Receipt, SinkError> {
        Ok(Receipt {
            worker: self.worker,
            rows: std::mem::take(&mut self.rows),
            body: String::new(),
        })
    }
}

struct Job {
    epoch: u64,
    rows: Vec<RecordBatch>,
    done: Sender<Result<(), CodeFailure>>,
}

struct CodeSink {
    what: &'static str,
    jobs: Sender<Job>,
    staged: Staged,
}

impl Sink for CodeSink {
    fn description(&self) -> String {
        match self.what {
            "foreach" => "ForeachWriterTable".into(),
            _ => "ForeachBatchSink".into(),
        }
    }

    fn commit(
        &mut self,
        epochs: RangeInclusive<u64>,
        _receipts: &[Receipt],
    ) -> Result<(), SinkError> {
        for epoch in epochs {
            let rows = lock(&self.staged).remove(&epoch).unwrap_or_default();
            let (done, answer) = bounded(1);
            let gone = || CodeFailure::NoSession { epoch };
            let sent = self.jobs.send(Job { epoch, rows, done });
            let answer = sent
                .map_err(|_| gone())
                .and_then(|()| answer.recv().map_err(|_| gone())?);
            answer.map_err(|error| failure(self.what, error))?;
        }
        Ok(())
    }
}

thread_local! {
    /// The query whose code runs on this thread.
    static RUNNING: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// True on a thread of such code.
pub(crate) fn is_code() -> bool {
    RUNNING.with_borrow(Option::is_some)
}

/// True within the code that takes the rows of this query: waiting for the query there would be for ever.
pub(crate) fn is_within(query_id: &str) -> bool {
    RUNNING.with_borrow(|running| running.as_deref() == Some(query_id))
}

/// Why a call that waits for a query is refused within its own code.
pub(crate) fn waits_for_itself(call: &str) -> Error {
    Error::Refused {
        class: None,
        message: format!(
            "{call} waits for the query whose epoch is being handed over, which goes on only when this code returns; \
             call it from another thread"
        ),
    }
}

/// The thread of the code. Whatever the code let go of last, the session too, is dropped here, after the answer.
fn run(
    what: &'static str,
    schema: &SchemaRef,
    query_id: &str,
    mut code: Code,
    inbox: Receiver<Job>,
) {
    for Job { epoch, rows, done } in inbox {
        let mut session = None;
        RUNNING.set(Some(query_id.to_string()));
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let named = rows
                .into_iter()
                .map(|rows| RecordBatch::try_new(Arc::clone(schema), rows.columns().to_vec()));
            code(Epoch {
                schema,
                rows: named.collect::<Result<_, _>>()?,
                number: epoch,
                session: &mut session,
            })
        }));
        RUNNING.set(None);
        let _ = done.send(match ran {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(CodeFailure::Failed {
                what,
                epoch,
                cause: error_chain(error.as_ref()),
            }),
            Err(panic) => Err(CodeFailure::Panicked {
                what,
                epoch,
                text: panic_text(panic.as_ref()),
            }),
        });
        drop(session);
    }
}
