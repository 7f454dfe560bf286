//! Rows from and to the program itself: the first implementation of the source and sink traits.
//!
//! Split: a range of the batches pushed so far. Offset: their number. Replayable: until the epoch that read them is
//! committed. The sink's table shows committed epochs only, and can be queried while the query runs.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{Session as DataFusionSession, TableProvider};
use datafusion::datasource::MemTable;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use highwater_query::parse_schema;

use crate::error::Error;
use crate::frame::DataFrame;
use crate::reader::scan;
use crate::session::Session;
use crate::sink::{
    OutputMode, Placement, Receipt, Sink, SinkError, SinkFactory, SinkFormat, SinkRequest,
    SinkWriter,
};
use crate::source::{
    Admitted, Batches, FormatError, Offset, Reader, Retry, Source, SourceError, SourceFactory,
    Split, Waker, Watch,
};
use crate::workers::lock;

/// The program's end of a memory stream. In the first process its rows are read; in others they are ignored.
#[derive(Clone)]
pub struct MemorySource {
    log: Arc<Log>,
}

struct Log {
    schema: SchemaRef,
    state: Mutex<LogState>,
}

#[derive(Default)]
struct LogState {
    /// Number of the first batch still here.
    first: u64,
    batches: VecDeque<RecordBatch>,
    /// What each open source has committed.
    committed: BTreeMap<u64, u64>,
    opened: u64,
    /// What each open source rings.
    wakers: BTreeMap<u64, Waker>,
}

impl LogState {
    fn end(&self) -> u64 {
        self.first + self.batches.len() as u64
    }

    /// Forgets what every reader has committed.
    fn trim(&mut self) {
        let Some(keep) = self.committed.values().min().copied() else {
            return;
        };
        while self.first < keep {
            self.batches.pop_front();
            self.first += 1;
        }
    }
}

impl MemorySource {
    pub(crate) fn new(session: &Session, schema: &str) -> Result<(Self, DataFrame), Error> {
        let log = Arc::new(Log {
            schema: parse_schema(schema)?,
            state: Mutex::default(),
        });
        let frame = scan(
            session,
            "memory",
            Arc::new(MemoryFactory {
                log: Arc::clone(&log),
            }),
            true,
        )?;
        Ok((MemorySource { log }, frame))
    }

    /// What its rows look like.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.log.schema)
    }

    /// Adds rows; the next epoch reads them. The batch must have the stream's columns.
    pub fn add(&self, rows: RecordBatch) -> Result<(), Error> {
        let types = |schema: &SchemaRef| {
            schema
                .fields()
                .iter()
                .map(|f| f.data_type().clone())
                .collect::<Vec<_>>()
        };
        if types(rows.schema_ref()) != types(&self.log.schema) {
            return Err(Error::Refused {
                class: None,
                message: format!(
                    "a batch of {} does not fit a stream of {}",
                    rows.schema(),
                    self.log.schema
                ),
            });
        }
        let rows = rows
            .with_schema(Arc::clone(&self.log.schema))
            .map_err(Error::run)?;
        let mut state = lock(&self.log.state);
        state.batches.push_back(rows);
        state.wakers.values().for_each(Waker::wake);
        Ok(())
    }
}

struct MemoryFactory {
    log: Arc<Log>,
}

impl SourceFactory for MemoryFactory {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.log.schema)
    }

    fn open(&self) -> Result<Box<dyn Source>, SourceError> {
        let mut state = lock(&self.log.state);
        state.opened += 1;
        let (id, first) = (state.opened, state.first);
        state.committed.insert(id, first);
        Ok(Box::new(OpenMemory {
            log: Arc::clone(&self.log),
            id,
        }))
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(MemoryReader {
            log: Arc::clone(&self.log),
        })
    }
}

struct OpenMemory {
    log: Arc<Log>,
    id: u64,
}

impl Drop for OpenMemory {
    fn drop(&mut self) {
        let mut state = lock(&self.log.state);
        state.committed.remove(&self.id);
        state.wakers.remove(&self.id);
    }
}

fn offset(at: u64) -> Offset {
    Offset(at.into())
}

fn position(offset: &Offset) -> u64 {
    offset.0.as_u64().unwrap_or(0)
}

impl Source for OpenMemory {
    fn description(&self) -> String {
        "MemoryStream".into()
    }

    fn watch(&mut self, waker: Waker) -> Result<Watch, SourceError> {
        lock(&self.log.state).wakers.insert(self.id, waker);
        Ok(Watch::Rings)
    }

    fn initial(&mut self) -> Result<Offset, SourceError> {
        Ok(offset(lock(&self.log.state).first))
    }

    fn latest(&mut self) -> Result<Offset, SourceError> {
        Ok(offset(lock(&self.log.state).end()))
    }

    fn admit(
        &mut self,
        from: &Offset,
        to: &Offset,
        bytes_max: u64,
    ) -> Result<Option<Admitted>, SourceError> {
        let state = lock(&self.log.state);
        let (from, to) = (position(from), position(to));
        let mut bytes = 0;
        let mut splits = Vec::new();
        // One split a batch: they spread over the workers.
        for at in from..to {
            if at > from && bytes >= bytes_max {
                break;
            }
            let rows = state.batches.get((at - state.first) as usize);
            let size = rows.map_or(0, |rows| rows.get_array_memory_size() as u64);
            bytes += size;
            splits.push(Split {
                descriptor: at.to_string(),
                bytes: size.max(1),
                process: Some(0),
            });
        }
        Ok((!splits.is_empty()).then(|| Admitted {
            end: offset(from + splits.len() as u64),
            splits,
        }))
    }

    fn committed(&mut self, end: &Offset) -> Result<(), SourceError> {
        let mut state = lock(&self.log.state);
        state.committed.insert(self.id, position(end));
        state.trim();
        Ok(())
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(MemoryReader {
            log: Arc::clone(&self.log),
        })
    }
}

struct MemoryReader {
    log: Arc<Log>,
}

#[derive(Debug, thiserror::Error)]
#[error("batch {0} of a memory stream is not here")]
struct Gone(String);

impl Reader for MemoryReader {
    fn read(&self, split: &Split, columns: &[usize]) -> Result<Batches, SourceError> {
        let gone = || SourceError {
            connector: "memory",
            retry: Retry::Never,
            source: Box::new(Gone(split.descriptor.clone())),
        };
        let at: u64 = split.descriptor.parse().map_err(|_| gone())?;
        let state = lock(&self.log.state);
        let index = at.checked_sub(state.first).ok_or_else(gone)?;
        let rows = state.batches.get(index as usize).ok_or_else(gone)?;
        let rows = rows.project(columns).map_err(|e| SourceError {
            connector: "memory",
            retry: Retry::Never,
            source: Box::new(e),
        })?;
        // As every source gives them: batches that fit a cache, not whatever the program pushed.
        let starts = (0..rows.num_rows()).step_by(8192);
        Ok(Box::new(starts.map(move |start| {
            Ok(rows.slice(start, (rows.num_rows() - start).min(8192)))
        })))
    }
}

/// The format "memory": a table named after the query.
pub(crate) struct MemorySink;

impl SinkFormat for MemorySink {
    fn sink(&self, request: SinkRequest) -> Result<Arc<dyn SinkFactory>, FormatError> {
        request.options.only("the memory sink", &[], &[])?;
        if request.query_name.is_none() {
            return Err(FormatError::Invalid {
                message: "the memory sink needs .query_name(..): the name of the table it fills"
                    .into(),
                class: None,
            });
        }
        let fields = request.schema.fields();
        for (at, field) in fields.iter().enumerate() {
            if fields[..at]
                .iter()
                .any(|other| other.name() == field.name())
            {
                let name = field.name();
                return Err(FormatError::Invalid {
                    message: format!(
                        "The column `{name}` already exists. The memory sink keeps a table, whose columns need names of their own: give one of them another, as in SELECT .. AS {name}_2"
                    ),
                    class: Some("COLUMN_ALREADY_EXISTS"),
                });
            }
        }
        let table = MemoryTable {
            schema: request.schema,
            rows: Mutex::default(),
        };
        let complete = request.mode == OutputMode::Complete;
        let staged = Arc::new(Mutex::new(BTreeMap::new()));
        Ok(Arc::new(MemorySinkFactory {
            table: Arc::new(table),
            staged,
            complete,
            here: AtomicBool::new(false),
            committed: Arc::default(),
        }))
    }
}

type Staged = Arc<Mutex<BTreeMap<u64, Vec<RecordBatch>>>>;

struct MemorySinkFactory {
    table: Arc<MemoryTable>,
    /// Written and not committed.
    staged: Staged,
    complete: bool,
    /// Opened before: whatever became of the workers, the table has what was committed to it.
    here: AtomicBool,
    /// The last epoch that it has.
    committed: Arc<Mutex<Option<u64>>>,
}

impl SinkFactory for MemorySinkFactory {
    fn fixed(&self) -> Vec<(&'static str, String)> {
        vec![("kind", "memory".into())]
    }

    fn placement(&self) -> Placement {
        Placement::OneWorker
    }

    fn durable(&self) -> bool {
        false
    }

    /// A table that is replaced in every epoch is whole again after the next one.
    fn recovers(&self) -> bool {
        self.complete || self.here.load(Ordering::SeqCst)
    }

    fn table(&self) -> Option<Arc<dyn TableProvider>> {
        Some(Arc::clone(&self.table) as Arc<dyn TableProvider>)
    }

    fn open(&self, _generation: u64) -> Result<Box<dyn Sink>, SinkError> {
        let (table, staged) = (Arc::clone(&self.table), Arc::clone(&self.staged));
        // What an earlier generation of workers left is written again.
        lock(&staged).clear();
        self.here.store(true, Ordering::SeqCst);
        Ok(Box::new(OpenMemorySink {
            table,
            staged,
            complete: self.complete,
            committed: Arc::clone(&self.committed),
        }))
    }

    fn writer(
        &self,
        worker: usize,
        _query_id: &str,
        _generation: u64,
    ) -> Result<Box<dyn SinkWriter>, SinkError> {
        Ok(Box::new(MemoryWriter {
            worker,
            staged: Arc::clone(&self.staged),
        }))
    }
}

struct MemoryWriter {
    worker: usize,
    staged: Staged,
}

impl SinkWriter for MemoryWriter {
    fn write(&mut self, epoch: u64, rows: &RecordBatch) -> Result<(), SinkError> {
        lock(&self.staged)
            .entry(epoch)
            .or_default()
            .push(highwater_operators::memory::own(rows));
        Ok(())
    }

    fn stage(&mut self, epochs: RangeInclusive<u64>) -> Result<Receipt, SinkError> {
        let staged = lock(&self.staged);
        let rows = staged
            .range(epochs)
            .flat_map(|(_, batches)| batches)
            .map(|rows| rows.num_rows() as u64)
            .sum();
        Ok(Receipt {
            worker: self.worker,
            rows,
            body: String::new(),
        })
    }
}

struct OpenMemorySink {
    table: Arc<MemoryTable>,
    staged: Staged,
    complete: bool,
    committed: Arc<Mutex<Option<u64>>>,
}

impl Sink for OpenMemorySink {
    fn description(&self) -> String {
        "MemorySink".into()
    }

    fn committed(&mut self) -> Result<Option<u64>, SinkError> {
        Ok(*lock(&self.committed))
    }

    fn commit(
        &mut self,
        epochs: RangeInclusive<u64>,
        _receipts: &[Receipt],
    ) -> Result<(), SinkError> {
        let mut staged = lock(&self.staged);
        let mut committed = lock(&self.committed);
        for epoch in epochs {
            let rows = staged.remove(&epoch).unwrap_or_default();
            if committed.is_some_and(|last| epoch <= last) {
                continue;
            }
            *committed = Some(epoch);
            let mut table = lock(&self.table.rows);
            if self.complete {
                *table = rows;
            } else {
                table.extend(rows);
            }
        }
        Ok(())
    }
}

/// The committed rows of a memory sink.
struct MemoryTable {
    schema: SchemaRef,
    rows: Mutex<Vec<RecordBatch>>,
}

impl fmt::Debug for MemoryTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryTable")
    }
}

#[async_trait]
impl TableProvider for MemoryTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn DataFusionSession,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let rows: Result<Vec<RecordBatch>, _> = lock(&self.rows)
            .iter()
            .map(|rows| RecordBatch::try_new(Arc::clone(&self.schema), rows.columns().to_vec()))
            .collect();
        MemTable::try_new(Arc::clone(&self.schema), vec![rows?])?
            .scan(state, projection, filters, limit)
            .await
    }
}
