//! The session: workers in the background, names, and the way in for queries.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::catalog::default_table_source::DefaultTableSource;
use datafusion::common::{Column, TableReference};
use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Projection};
use datafusion::prelude::{SessionConfig, SessionContext};
use highwater_operators::arrangement::Budget;
use highwater_operators::exact;
use highwater_operators::watermark::Policy;
use highwater_query::{Conf, Functions, Plan, WatermarkPolicy};
use tokio::runtime::Runtime;

use crate::catalog::{Names, Views};
use crate::checkpoint::ObjectStores;
use crate::cluster::ClusterConfig;
use crate::code;
use crate::conf::take_conf;
use crate::coordinator::EventTime;
use crate::error::Error;
use crate::formats::Formats;
use crate::frame::DataFrame;
use crate::generations::Generations;
use crate::manager::{StreamingQueryManager, Streams};
use crate::memory::{MemorySink, MemorySource};
use crate::observe::Observing;
use crate::options::Options;
use crate::plan::Compiled;
use crate::progress::Reporting;
use crate::reader::DataReader;
use crate::spill;

/// Where queries are made and run. Cloning gives another handle of the same session; the workers end with the last.
#[derive(Clone)]
pub struct Session {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) cluster: ClusterConfig,
    pub(crate) process: usize,
    pub(crate) generations: Generations,
    pub(crate) formats: Formats,
    /// Where checkpoints may live besides directories.
    pub(crate) stores: ObjectStores,
    /// The memory of all state in this process.
    pub(crate) budget: Arc<Budget>,
    pub(crate) views: Views,
    pub(crate) functions: RwLock<Functions>,
    pub(crate) conf: RwLock<Conf>,
    pub(crate) streams: Arc<Streams>,
    runtime: OnceLock<Runtime>,
    args: Vec<String>,
    closed: AtomicBool,
}

/// How to start a session.
#[derive(Clone, Default)]
pub struct SessionBuilder {
    cluster: ClusterConfig,
    formats: Formats,
    stores: ObjectStores,
    settings: Options,
    args: Vec<String>,
}

impl SessionBuilder {
    /// Worker threads in each process.
    pub fn workers(mut self, workers: usize) -> Self {
        self.cluster.workers = workers;
        self
    }

    /// Workers, processes and addresses.
    pub fn cluster(mut self, cluster: ClusterConfig) -> Self {
        self.cluster = cluster;
        self
    }

    /// Reads `-w`, `-n`, `-p`, `--hostfile` and the time-outs of [`ClusterConfig`] from the program's arguments.
    pub fn args(mut self) -> Result<Self, Error> {
        (self.cluster, self.args) = ClusterConfig::from_args(std::env::args().skip(1))?;
        Ok(self)
    }

    /// The connectors the session knows, besides `memory`.
    pub fn formats(mut self, formats: Formats) -> Self {
        self.formats = formats;
        self
    }

    /// Makes an object store known by its scheme and host ("s3://bucket"), for checkpoints.
    pub fn object_store(mut self, root: &str, store: Arc<dyn object_store::ObjectStore>) -> Self {
        self.stores.add(root, store);
        self
    }

    /// A setting that holds for the life of the session: `highwater.state.memoryMax`, how much state each process keeps
    /// in memory ("2g", or "40%" of the machine's, which is the default), and `highwater.spill.directory`, where the
    /// rest goes (by default the system's directory for temporary files); or one of [`Session::set_conf`], as it is at
    /// the beginning.
    pub fn conf(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.settings.set(name, value);
        self
    }

    /// Starts the workers, after the other processes have been found.
    pub fn start(self) -> Result<Session, Error> {
        self.cluster.check()?;
        let local = match self.cluster.hosts {
            None => self.cluster.processes,
            Some(_) => 1,
        };
        let mut settings = self.settings;
        let conf = take_conf(&mut settings)?;
        let budget = spill::budget(&settings, local)?;
        let process = self.cluster.process.unwrap_or(0);
        let generations = Generations::start(&self.cluster)?;
        let mut formats = self.formats;
        formats.add_sink("memory", Arc::new(MemorySink));
        let inner = Inner {
            cluster: self.cluster,
            process,
            generations,
            formats,
            stores: self.stores,
            budget,
            views: Views::default(),
            functions: RwLock::new(functions()),
            conf: RwLock::new(conf),
            streams: Arc::default(),
            runtime: OnceLock::new(),
            args: self.args,
            closed: AtomicBool::new(false),
        };
        Ok(Session {
            inner: Arc::new(inner),
        })
    }
}

/// The function table, with the aggregates whose answer must not depend on the number of workers.
fn functions() -> Functions {
    let mut functions = Functions::standard();
    for function in exact::functions() {
        let name = function.name().trim_start_matches("exact_").to_string();
        functions.replace_aggregate(&name, is_float, function);
    }
    functions
}

fn is_float(argument: &DataType) -> bool {
    matches!(argument, DataType::Float32 | DataType::Float64)
}

impl Session {
    /// How to start one.
    pub fn builder() -> SessionBuilder {
        SessionBuilder::default()
    }

    /// Arguments of the program that are not the session's.
    pub fn args(&self) -> &[String] {
        &self.inner.args
    }

    /// Describes a source that is read as it grows.
    pub fn read_stream(&self) -> DataReader {
        DataReader::new(self.clone(), true)
    }

    /// Describes a source that is read once.
    pub fn read(&self) -> DataReader {
        DataReader::new(self.clone(), false)
    }

    /// A stream that this program feeds: rows go in by the handle, in all processes the same frame comes out.
    pub fn memory_stream(&self, schema: &str) -> Result<(MemorySource, DataFrame), Error> {
        MemorySource::new(self, schema)
    }

    /// A static frame of these rows. Columns may have equal names, as a query's may.
    pub fn create_dataframe(
        &self,
        schema: SchemaRef,
        rows: Vec<RecordBatch>,
    ) -> Result<DataFrame, Error> {
        let plan = frame_of(schema, rows).map_err(Error::run)?;
        Ok(DataFrame::new(self.clone(), plan))
    }

    /// A view or table by name.
    pub fn table(&self, name: &str) -> Result<DataFrame, Error> {
        let name: Vec<String> = name.split('.').map(str::to_string).collect();
        let alias = name.last().cloned().unwrap_or_default();
        let table = Plan::Table {
            name,
            place: None,
            stream: false,
        };
        // Its columns are known by its name, as in FROM.
        self.frame(&Plan::Alias {
            input: Box::new(table),
            name: alias,
            columns: vec![],
        })
    }

    /// Sets the session's time zone: how timestamps are written and read as text and cut into days.
    pub fn set_time_zone(&self, time_zone: &str) {
        write(&self.inner.conf).time_zone = time_zone.to_string();
    }

    /// How a query started now treats event time. `idle_timeout` is its own, if it has one.
    pub(crate) fn event_time(
        &self,
        compiled: &Compiled,
        idle_timeout: Option<Duration>,
    ) -> EventTime {
        let conf = read(&self.inner.conf);
        let idle_timeout = idle_timeout.unwrap_or(Duration::from_millis(conf.idle_timeout_ms));
        EventTime {
            no_data_epochs: compiled.waits_for_watermark && conf.no_data_epochs,
            policy: match conf.watermark_policy {
                WatermarkPolicy::Min => Policy::Min,
                WatermarkPolicy::Max => Policy::Max,
            },
            idle_timeout: (!idle_timeout.is_zero()).then_some(idle_timeout),
        }
    }

    /// How much a query started now tells of itself.
    pub(crate) fn reporting(&self) -> Reporting {
        let conf = read(&self.inner.conf);
        Reporting {
            kept: conf.progress_reports,
            idle: Duration::from_millis(conf.idle_event_ms),
        }
    }

    /// True in the process that plans and commits; the only one of most sessions.
    pub fn is_first_process(&self) -> bool {
        self.inner.process == 0
    }

    /// The session's time zone.
    pub fn time_zone(&self) -> String {
        read(&self.inner.conf).time_zone.clone()
    }

    pub(crate) fn is_case_sensitive(&self) -> bool {
        read(&self.inner.conf).case_sensitive
    }

    /// Changes the functions queries may call: register a DataFusion UDF or UDAF as it is.
    pub fn with_functions(&self, change: impl FnOnce(&mut Functions)) {
        change(&mut write(&self.inner.functions));
    }

    /// The queries of the session: which run, how they end, who listens.
    pub fn streams(&self) -> StreamingQueryManager {
        StreamingQueryManager::new(Arc::clone(&self.inner.streams))
    }

    /// Stops all queries: each opens no further epoch and commits those it opened. An error if a query failed; the
    /// others are stopped all the same. What a program calls when it is asked to end.
    pub fn stop_all(&self) -> Result<(), Error> {
        self.inner.streams.stop_all()
    }

    /// Stops all queries and ends the workers. Happens by itself when the last handle is dropped.
    pub fn close(&self) {
        if !code::is_code() {
            return self.inner.close();
        }
        // Called by code that takes a query's rows: the query ends when that code returns, so another thread waits.
        let inner = Arc::clone(&self.inner);
        std::thread::spawn(move || inner.close());
    }

    /// Drops this handle where nothing may wait: the last one ends the session, and so waits for its queries.
    pub(crate) fn let_go(self) {
        if let Some(inner) = Arc::into_inner(self.inner) {
            std::thread::spawn(move || drop(inner));
        }
    }

    pub(crate) fn frame(&self, plan: &Plan) -> Result<DataFrame, Error> {
        Ok(DataFrame::new(self.clone(), self.resolve(plan)?))
    }

    pub(crate) fn nothing(&self) -> DataFrame {
        let empty = LogicalPlanBuilder::empty(false).build();
        DataFrame::new(
            self.clone(),
            empty.expect("a plan without columns is valid"),
        )
    }

    pub(crate) fn resolve(&self, plan: &Plan) -> Result<LogicalPlan, Error> {
        let functions = read(&self.inner.functions);
        let conf = read(&self.inner.conf);
        Ok(Names::new(&self.inner.views, &functions, &conf).resolve(plan)?)
    }

    /// DataFusion for static plans: as many partitions as workers, or one where the order of rows decides.
    pub(crate) fn batch_context(&self, ordered: bool, observing: &Observing) -> SessionContext {
        let partitions = if ordered {
            1
        } else {
            self.inner.cluster.workers
        };
        let mut config = SessionConfig::new()
            .with_target_partitions(partitions)
            .with_batch_size(8192)
            .with_collect_statistics(false);
        // With a limit above, DISTINCT of rows that come in order would fail: it takes them for the first of an order.
        let optimizer = &mut config.options_mut().optimizer;
        optimizer.enable_distinct_aggregation_soft_limit = false;
        SessionContext::new_with_state(
            SessionStateBuilder::new()
                .with_config(config)
                .with_default_features()
                .with_query_planner(Arc::new(observing.clone()))
                .build(),
        )
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        self.inner.runtime.get_or_init(|| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder
                .worker_threads(self.inner.cluster.workers)
                .thread_name("highwater:batch");
            builder.build().expect("the system can start threads")
        })
    }
}

impl Inner {
    fn close(&self) {
        if self.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        let _ = self.streams.stop_all();
        self.generations.close();
        self.streams.listeners.close();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
        if let Some(runtime) = self.runtime.take() {
            // The last handle may be dropped inside an async program, where waiting for a runtime is forbidden.
            runtime.shutdown_background();
        }
    }
}

pub(crate) fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub(crate) fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn frame_of(schema: SchemaRef, rows: Vec<RecordBatch>) -> datafusion::error::Result<LogicalPlan> {
    let scan = |schema: SchemaRef, rows| {
        let table = MemTable::try_new(schema, vec![rows])?;
        let source = Arc::new(DefaultTableSource::new(Arc::new(table)));
        LogicalPlanBuilder::scan("rows", source, None)?.build()
    };
    let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
    let again = |at: usize| names.iter().filter(|name| **name == names[at]).count() > 1;
    if !(0..names.len()).any(again) {
        return scan(schema, rows);
    }
    // A table has no two columns of one name; a query keeps them apart by a qualifier that nobody can write.
    let made = |at: usize| format!("column-{at}");
    let fields = schema.fields().iter().enumerate();
    let fields = fields.map(|(at, field)| field.as_ref().clone().with_name(made(at)));
    let numbered = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let rows = rows
        .into_iter()
        .map(|rows| RecordBatch::try_new(Arc::clone(&numbered), rows.columns().to_vec()))
        .collect::<std::result::Result<_, _>>()?;
    let outputs = names.iter().enumerate().map(|(at, name)| {
        let column = Expr::Column(Column::new(Some("rows"), made(at)));
        let same = again(at).then(|| TableReference::bare(format!("same-{at}")));
        column.alias_qualified(same, name.as_str())
    });
    let outputs = outputs.collect();
    let scan = Arc::new(scan(numbered, rows)?);
    Ok(LogicalPlan::Projection(Projection::try_new(outputs, scan)?))
}
