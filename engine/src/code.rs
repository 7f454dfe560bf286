//! Sinks that are a program's own code: `foreach` takes rows one by one, `for_each_batch` a frame of each epoch.
//!
//! Commit: rows are handed over when the epoch's plan is durable and everything before it is committed, never earlier,
//! so that an epoch's number always comes with the same rows. They are handed over again if a process dies before the
//! commit is recorded: code that must not count an epoch twice remembers the number of the last one.
//!
//! The code of each worker has a thread of its own. It may use the session, start and run other queries, and even hold
//! the last handle of the session: closing it waits for the coordinator and the workers, which must then not be the
//! ones who close.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use crossbeam_channel::{Receiver, Sender, unbounded};
use highwater_operators::memory::own;

use crate::error::{Error, error_chain};
use crate::session::Session;
use crate::sink::{
    HandedOver, Placement, Receipt, Sink, SinkError, SinkFactory, SinkFormat, SinkRequest,
    SinkWriter,
};
use crate::source::{FormatError, Retry};
use crate::workers::{lock, panic_text};

/// What a program's own code may fail with.
pub type CodeError = Box<dyn std::error::Error + Send + Sync>;

/// How a program's own code failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodeFailure {
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

/// Runs the code over the rows that one worker has of an epoch.
pub(crate) type Code = Box<dyn FnMut(Epoch<'_>) -> Result<(), CodeError> + Send>;

/// What one worker has of an epoch.
pub(crate) struct Epoch<'a> {
    pub(crate) schema: &'a SchemaRef,
    pub(crate) rows: Vec<RecordBatch>,
    pub(crate) number: u64,
    /// Lets go of the session only when the coordinator has its answer.
    pub(crate) session: &'a mut Option<Session>,
}

/// Something of the program's, which may hold the last handle of a session.
pub(crate) struct DroppedElsewhere<T: Send + 'static>(Option<T>);

/// Keeps `value`, and drops it on a thread of its own.
pub(crate) fn dropped_elsewhere<T: Send + 'static>(value: T) -> DroppedElsewhere<T> {
    DroppedElsewhere(Some(value))
}

impl<T: Send + 'static> DroppedElsewhere<T> {
    pub(crate) fn get(&self) -> &T {
        self.0.as_ref().expect("it is there until it is dropped")
    }

    fn get_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("it is there until it is dropped")
    }
}

impl<T: Send + 'static> Drop for DroppedElsewhere<T> {
    fn drop(&mut self) {
        let value = self.0.take();
        // Without a thread it is dropped here.
        let _ = std::thread::Builder::new()
            .name("highwater:drop".into())
            .spawn(move || drop(value));
    }
}

type MakeCode = Box<dyn Fn(usize) -> Code + Send + Sync>;
/// The code of one worker. Of two launches of the query that meet on it, one waits.
type KeptCode = Arc<Mutex<DroppedElsewhere<Code>>>;

/// The sink of a query, made from code instead of a format.
pub(crate) struct CodeFormat {
    what: &'static str,
    placement: Placement,
    make: Arc<MakeCode>,
}

impl CodeFormat {
    /// `make` makes the code of a worker, once.
    pub(crate) fn new(
        what: &'static str,
        placement: Placement,
        make: impl Fn(usize) -> Code + Send + Sync + 'static,
    ) -> Self {
        CodeFormat {
            what,
            placement,
            make: Arc::new(Box::new(make)),
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
            placement: self.placement,
            make: Arc::clone(&self.make),
            made: Mutex::default(),
            schema: request.schema,
            query_id: request.query_id,
        }))
    }
}

struct CodeFactory {
    what: &'static str,
    placement: Placement,
    make: Arc<MakeCode>,
    /// By worker. Launches that follow use the same.
    made: Mutex<BTreeMap<usize, KeptCode>>,
    schema: SchemaRef,
    /// In this process.
    query_id: String,
}

impl SinkFactory for CodeFactory {
    fn fixed(&self) -> Vec<(&'static str, String)> {
        vec![("kind", self.what.into())]
    }

    fn placement(&self) -> Placement {
        self.placement
    }

    fn hands_over(&self) -> bool {
        true
    }

    fn durable(&self) -> bool {
        false
    }

    fn open(&self, _generation: u64) -> Result<Box<dyn Sink>, SinkError> {
        Ok(Box::new(CodeSink { what: self.what }))
    }

    fn writer(
        &self,
        worker: usize,
        _query_id: &str,
        _generation: u64,
    ) -> Result<Box<dyn SinkWriter>, SinkError> {
        let make = || Arc::new(Mutex::new(dropped_elsewhere((self.make)(worker))));
        let code = Arc::clone(lock(&self.made).entry(worker).or_insert_with(make));
        let (jobs, inbox) = unbounded();
        let (schema, what) = (Arc::clone(&self.schema), self.what);
        let query = self.query_id.clone();
        let started = std::thread::Builder::new()
            .name(format!("highwater:{what}"))
            .spawn(move || run(what, &schema, &query, &code, inbox));
        started.map_err(|error| failure(what, error))?;
        Ok(Box::new(CodeWriter {
            what,
            worker,
            staged: BTreeMap::new(),
            jobs,
        }))
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
    what: &'static str,
    worker: usize,
    /// Rows of epochs that were not handed over yet.
    staged: BTreeMap<u64, Vec<RecordBatch>>,
    jobs: Sender<Job>,
}

/// A run of epochs to hand over.
struct Job {
    worker: usize,
    epochs: Vec<(u64, Vec<RecordBatch>)>,
    done: HandedOver,
}

impl SinkWriter for CodeWriter {
    fn write(&mut self, epoch: u64, rows: &RecordBatch) -> Result<(), SinkError> {
        self.staged.entry(epoch).or_default().push(own(rows));
        Ok(())
    }

    fn stage(&mut self, _epochs: RangeInclusive<u64>) -> Result<Receipt, SinkError> {
        Err(failure(self.what, "code is handed rows, not receipts"))
    }

    fn hand_over(&mut self, epochs: RangeInclusive<u64>, done: HandedOver) {
        let rows = |epoch| (epoch, self.staged.remove(&epoch).unwrap_or_default());
        let epochs = epochs.map(rows).collect();
        let worker = self.worker;
        let job = Job {
            worker,
            epochs,
            done,
        };
        if let Err(unsent) = self.jobs.send(job) {
            let error = failure(self.what, "the thread of the code is gone");
            (unsent.0.done)(Err(error));
        }
    }
}

struct CodeSink {
    what: &'static str,
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
        _epochs: RangeInclusive<u64>,
        _receipts: &[Receipt],
    ) -> Result<(), SinkError> {
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

/// The thread of the code of one worker. A session that the code was lent is let go of here, after the answer.
fn run(
    what: &'static str,
    schema: &SchemaRef,
    query_id: &str,
    code: &Mutex<DroppedElsewhere<Code>>,
    inbox: Receiver<Job>,
) {
    for Job {
        worker,
        epochs,
        done,
    } in inbox
    {
        let mut session = None;
        let mut answer = Ok(Receipt {
            worker,
            rows: 0,
            body: String::new(),
        });
        // Of an earlier launch of the query, a run may still be handed over.
        let mut code = lock(code);
        RUNNING.set(Some(query_id.to_string()));
        for (epoch, rows) in epochs {
            let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
            let handed = hand(what, schema, code.get_mut(), (epoch, rows), &mut session);
            match (&mut answer, handed) {
                (Ok(receipt), Ok(())) => receipt.rows += count as u64,
                (_, Err(error)) => {
                    answer = Err(failure(what, error));
                    break;
                }
                (Err(_), _) => break,
            }
        }
        RUNNING.set(None);
        drop(code);
        done(answer);
        if let Some(session) = session {
            session.let_go();
        }
    }
}

/// Runs the code over one epoch.
fn hand(
    what: &'static str,
    schema: &SchemaRef,
    code: &mut Code,
    (epoch, rows): (u64, Vec<RecordBatch>),
    session: &mut Option<Session>,
) -> Result<(), CodeFailure> {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let named = rows
            .into_iter()
            .map(|rows| RecordBatch::try_new(Arc::clone(schema), rows.columns().to_vec()));
        code(Epoch {
            schema,
            rows: named.collect::<Result<_, _>>()?,
            number: epoch,
            session,
        })
    }));
    match ran {
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
    }
}
