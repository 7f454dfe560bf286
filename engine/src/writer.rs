//! `write_stream()` and `write()`: a sink in the making, and the start of a query.

use std::fmt::Display;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::default_table_source::DefaultTableSource;
use datafusion::logical_expr::LogicalPlanBuilder;

use highwater_query::NamedKind;

use crate::catalog::Named;
use crate::checkpoint::{self, Checkpoint};
use crate::code::{CodeError, CodeFormat};
use crate::coordinator::{EventTime, Grouping};
use crate::error::Error;
use crate::for_each_batch::for_each_batch;
use crate::foreach::{ForeachWriter, foreach};
use crate::frame::DataFrame;
use crate::late::LateTable;
use crate::launch::Definition;
use crate::manager::Starting;
use crate::options::{OptionError, Options};
use crate::places::{refuse_checkpoint_among_rows, refuse_own_output};
use crate::plan::{Compiled, compile, late_schema};
use crate::progress::stopwatch_us;
use crate::query::{About, QueryShared, StreamingQuery};
use crate::sink::{OutputMode, SaveMode, SinkFactory, SinkFormat, SinkRequest};
use crate::trigger::{Trigger, parse_interval};

/// A query in the making: where its rows go and when; then `start`.
#[must_use = "nothing runs before start()"]
pub struct StreamWriter {
    frame: DataFrame,
    format: Option<String>,
    code: Option<CodeFormat>,
    options: Options,
    path: Option<String>,
    partition_by: Vec<String>,
    mode: OutputMode,
    trigger: Trigger,
    name: Option<String>,
}

impl StreamWriter {
    pub(crate) fn new(frame: DataFrame) -> Self {
        StreamWriter {
            frame,
            format: None,
            code: None,
            options: Options::default(),
            path: None,
            partition_by: Vec::new(),
            mode: OutputMode::Append,
            trigger: Trigger::Default,
            name: None,
        }
    }

    /// The connector: "console", "parquet".
    pub fn format(mut self, format: &str) -> Self {
        self.format = Some(format.to_string());
        self
    }

    /// Hands the rows to code of this program, one by one, on every worker. After a crash an epoch may come again, with the
    /// same number and the same rows. An error or a panic ends the query.
    pub fn foreach(mut self, writer: impl ForeachWriter) -> Self {
        self.code = Some(foreach(writer));
        self
    }

    /// Hands each epoch's rows and its number to code of this program, as a static frame, in the order of epochs. It
    /// runs in the first process. After a crash an epoch may come again, with the same number and the same rows. An
    /// error or a panic ends the query.
    pub fn for_each_batch<E: Into<CodeError>>(
        mut self,
        code: impl FnMut(DataFrame, u64) -> Result<(), E> + Send + 'static,
    ) -> Self {
        self.code = Some(for_each_batch(self.frame.session(), code));
        self
    }

    /// Sets an option of the connector, or of the query: `checkpointLocation`, `checkpointInterval` (10 seconds unless
    /// said otherwise), those of [`StreamWriter::late_rows_to`], `idleTimeout` (after so long a stream that is silent no
    /// longer holds the watermark of several streams back; never unless said otherwise); for sinks that commit short epochs together, `commitInterval` (1 second) and `commitBytes` (128 MB).
    pub fn option(mut self, name: &str, value: impl Display) -> Self {
        self.options.set(name, value);
        self
    }

    /// Sends late rows, which operators drop, to a table of this name. Each comes once, and whole: as its source has it,
    /// whatever the query makes of it and however many operators drop it. A row that is late for one of its windows and not
    /// for another is not late. Where late rows come from several sources, the table has the columns of all, and a row has
    /// nulls in those of others.
    ///
    /// A query with a checkpoint keeps them in files: option `lateRowsPath` is their directory, `lateRowsFormat` their
    /// format (that of the answer's files, or else Parquet, unless said otherwise). Without either they stay in memory.
    pub fn late_rows_to(self, table: &str) -> Self {
        self.option("lateRows", table)
    }

    /// Which rows an epoch hands the sink. Append unless said otherwise.
    pub fn output_mode(mut self, mode: OutputMode) -> Self {
        self.mode = mode;
        self
    }

    /// When epochs start. As soon as there are rows unless said otherwise.
    pub fn trigger(mut self, trigger: Trigger) -> Self {
        self.trigger = trigger;
        self
    }

    /// Names the query; the memory sink's table has this name.
    pub fn query_name(mut self, name: &str) -> Self {
        self.name = Some(name.to_string());
        self
    }

    /// One directory for each value of these columns.
    pub fn partition_by<S: AsRef<str>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.partition_by = columns
            .into_iter()
            .map(|name| name.as_ref().to_string())
            .collect();
        self
    }

    /// Where the sink writes.
    pub fn path(mut self, path: impl AsRef<std::path::Path>) -> Self {
        self.path = Some(path.as_ref().display().to_string());
        self
    }

    /// Starts the query.
    pub fn start(mut self) -> Result<StreamingQuery, Error> {
        let session = self.frame.session().clone();
        if !self.frame.is_streaming() {
            return Err(Error::refused(
                "WRITE_STREAM_NOT_ALLOWED",
                "`writeStream` can be called only on streaming Dataset/DataFrame: this one reads no stream. Use write() for static rows",
            ));
        }
        if let Some(reason) = session.inner.generations.failure() {
            return Err(Error::SessionEnded(reason));
        }
        let planning = stopwatch_us();
        let late = LateTable::take(&mut self.options)?;
        let compiled = compile(self.frame.plan(), self.mode, late.is_some(), &session)?;
        let late = match late {
            Some(table) => Some((table, late_schema(&compiled, self.mode)?)),
            None => None,
        };
        let planning_us = stopwatch_us() - planning;
        let pacing = Pacing::take(&mut self.options)?;
        let idle_timeout = self.take_idle_timeout(&compiled)?;
        let event_time = session.event_time(&compiled, idle_timeout);
        if let Some(name) = self.options.take("queryName") {
            self.name = Some(name);
        }
        let starting = session.inner.streams.begin(self.name.as_deref())?;
        // From here on what goes wrong may go wrong in one process only: the others must hear of it.
        let key = session.inner.generations.key(&self.kind());
        let started = self.define_and_launch(
            &session,
            &key,
            (compiled, late),
            planning_us,
            (pacing, event_time),
            starting,
        );
        if let Err(error) = &started {
            session.inner.generations.could_not_start(&key, error);
        }
        started
    }

    fn define_and_launch(
        mut self,
        session: &crate::Session,
        key: &str,
        (compiled, late): (Compiled, Option<(LateTable, SchemaRef)>),
        planning_us: u64,
        (pacing, event_time): (Pacing, EventTime),
        starting: Starting<'_>,
    ) -> Result<StreamingQuery, Error> {
        let first = session.inner.process == 0;
        let store = match self.options.take("checkpointLocation") {
            Some(location) if location.trim().is_empty() => {
                let message = "option \"checkpointLocation\" is empty: give it a directory".into();
                return Err(Error::Refused {
                    class: None,
                    message,
                });
            }
            Some(location) => Some(checkpoint::open(&location, &session.inner.stores)?),
            None => None,
        };
        let taken = match &store {
            Some(store) if first => Some(Checkpoint::take(Arc::clone(store))?),
            _ => None,
        };
        let id = taken.as_ref().map_or_else(
            || uuid::Uuid::new_v4().to_string(),
            |taken| taken.id.clone(),
        );
        let request = SinkRequest {
            options: std::mem::take(&mut self.options),
            path: None,
            partition_by: std::mem::take(&mut self.partition_by),
            schema: Arc::clone(&compiled.schema),
            key: compiled.key.clone(),
            mode: self.mode,
            query_name: self.name.clone(),
            query_id: id.clone(),
            streaming: true,
            time_zone: session.time_zone(),
            case_sensitive: session.is_case_sensitive(),
        };
        let format = self.format.clone();
        let sink = self.open_sink(session, request.clone())?;
        refuse_own_output(&compiled, sink.as_ref())?;
        let mut sinks = vec![Arc::clone(&sink)];
        let writer = self.name.clone().unwrap_or_else(|| id.clone());
        if let Some((table, schema)) = &late {
            table.check_name(session, &writer)?;
            let main = (format.as_deref(), sink.as_ref());
            let schema = Arc::clone(schema);
            let late = table.open(session, main, store.is_some(), &request, schema)?;
            refuse_own_output(&compiled, late.as_ref())?;
            sinks.push(late);
        }
        if let Some(store) = &store {
            refuse_checkpoint_among_rows(self.frame.plan(), &sinks, store.as_ref())?;
        }
        if sink.durable() && store.is_none() {
            return Err(Error::refused(
                "_LEGACY_ERROR_TEMP_1298",
                "checkpointLocation must be specified through .option(\"checkpointLocation\", ..): without it a restart \
                 would write every row again",
            ));
        }
        let definition = Arc::new(Definition {
            key: key.to_string(),
            name: self.name.clone(),
            event_time,
            compiled: Arc::new(compiled),
            sinks: sinks.clone(),
            mode: self.mode,
            trigger: self.trigger,
            pacing,
            planning_us,
            store,
            budget: Arc::clone(&session.inner.budget),
            first,
            workers: session.inner.cluster.workers,
            processes: session.inner.cluster.processes,
        });
        let run_id = uuid::Uuid::new_v4().to_string();
        let about = About {
            id,
            run_id,
            name: self.name.clone(),
            incremental_plan: format!(
                "== Incremental plan ({} mode) ==\n{}",
                self.mode, definition.compiled.root
            ),
            resolved_plan: format!(
                "== Resolved plan ==\n{}\n",
                self.frame.plan().display_indent()
            ),
            streams: Arc::clone(&session.inner.streams),
            ends_with_workers: definition.ends_with_workers(),
            reporting: session.reporting(),
        };
        let shared = Arc::new(QueryShared::new(about));
        let query = StreamingQuery {
            shared: Arc::clone(&shared),
        };
        let generations = &session.inner.generations;
        generations.launch(&shared, &definition, |workers| {
            let installation = definition.prepare(&shared, taken)?;
            if let (Some(table), Some(name)) = (sink.table(), &self.name) {
                let plan = LogicalPlanBuilder::scan(
                    name.as_str(),
                    Arc::new(DefaultTableSource::new(table)),
                    None,
                )
                .and_then(LogicalPlanBuilder::build)
                .map_err(Error::run)?;
                session
                    .inner
                    .views
                    .put(name, NamedKind::View, Named::Rows(Arc::new(plan)));
            }
            if let (Some((table, schema)), Some(late)) = (&late, sinks.get(1)) {
                let main = (format.as_deref(), sink.as_ref());
                table.put(session, main, late.as_ref(), Arc::clone(schema), &writer)?;
            }
            starting.started(&query);
            workers.install(installation);
            Ok(())
        })?;
        Ok(query)
    }

    /// Takes `idleTimeout`.
    fn take_idle_timeout(&mut self, compiled: &Compiled) -> Result<Option<Duration>, Error> {
        let Some(text) = self.options.take("idleTimeout") else {
            return Ok(None);
        };
        if compiled.watermarks.is_empty() {
            return Err(Error::Refused {
                class: None,
                message: "option idleTimeout says after how long a silent stream no longer holds the watermark back, \
                          and the query has no watermark: remove it, or set one with with_watermark or WATERMARK"
                    .into(),
            });
        }
        parse_interval(&text).map(Some)
    }

    fn open_sink(
        &mut self,
        session: &crate::Session,
        mut request: SinkRequest,
    ) -> Result<Arc<dyn SinkFactory>, Error> {
        let Some(code) = self.code.take() else {
            return open_format(session, self.format.as_deref(), self.path.take(), request);
        };
        if let Some(format) = self.format.replace(code.name().into()) {
            return Err(Error::Refused {
                class: None,
                message: format!(
                    "a query has one sink: remove .format(\"{format}\") or .{}(..)",
                    code.name()
                ),
            });
        }
        request.path = self.path.take();
        Ok(code.sink(request)?)
    }

    /// The same text in every process that runs the same program: it tells queries apart that are not the same.
    fn kind(&self) -> String {
        let mut hasher = std::hash::DefaultHasher::new();
        (
            &self.name,
            &self.format,
            self.mode,
            self.frame.plan().display_indent_schema().to_string(),
        )
            .hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

/// How a query paces what it makes durable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pacing {
    pub(crate) grouping: Grouping,
    pub(crate) checkpoint_interval: Duration,
}

impl Pacing {
    /// Takes `commitInterval`, `commitBytes` and `checkpointInterval`.
    fn take(options: &mut Options) -> Result<Self, Error> {
        let invalid = |name: &str, value: String, reason: &str| OptionError::Invalid {
            name: name.into(),
            owner: "the writer".into(),
            value,
            reason: reason.into(),
        };
        let mut interval = |name: &str, default: Duration| match options.take(name) {
            Some(text) => parse_interval(&text).map_err(|_| {
                let reason = "it is an interval like \"10 seconds\" or \"500 milliseconds\"";
                invalid(name, text, reason)
            }),
            None => Ok(default),
        };
        let age_max = interval("commitInterval", Duration::from_secs(1))?;
        let checkpoint_interval = interval("checkpointInterval", Duration::from_secs(10))?;
        let bytes_max = match options.take("commitBytes") {
            Some(text) => match text.parse() {
                Ok(bytes) => bytes,
                Err(_) => Err(invalid("commitBytes", text, "it is a number of bytes"))?,
            },
            None => 128 << 20,
        };
        Ok(Pacing {
            grouping: Grouping { age_max, bytes_max },
            checkpoint_interval,
        })
    }
}

/// Static rows on their way out; then `save`.
#[must_use = "nothing is written before save()"]
pub struct DataWriter {
    frame: DataFrame,
    format: Option<String>,
    options: Options,
    path: Option<String>,
    partition_by: Vec<String>,
    mode: Option<SaveMode>,
}

impl DataWriter {
    pub(crate) fn new(frame: DataFrame) -> Self {
        DataWriter {
            frame,
            format: None,
            options: Options::default(),
            path: None,
            partition_by: Vec::new(),
            mode: None,
        }
    }

    /// The connector: "parquet", "json", "csv".
    pub fn format(mut self, format: &str) -> Self {
        self.format = Some(format.to_string());
        self
    }

    /// What happens if something is there already. Files: an error unless said otherwise.
    pub fn mode(mut self, mode: SaveMode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Sets an option of the connector.
    pub fn option(mut self, name: &str, value: impl Display) -> Self {
        self.options.set(name, value);
        self
    }

    /// One directory for each value of these columns.
    pub fn partition_by<S: AsRef<str>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.partition_by = columns
            .into_iter()
            .map(|name| name.as_ref().to_string())
            .collect();
        self
    }

    /// Where the sink writes.
    pub fn path(mut self, path: impl AsRef<std::path::Path>) -> Self {
        self.path = Some(path.as_ref().display().to_string());
        self
    }

    /// Runs the query and writes its rows: all of them become visible, or none.
    pub fn save(mut self) -> Result<(), Error> {
        let session = self.frame.session().clone();
        let id = uuid::Uuid::new_v4().to_string();
        let request = SinkRequest {
            options: std::mem::take(&mut self.options),
            path: None,
            partition_by: std::mem::take(&mut self.partition_by),
            schema: self.frame.schema(),
            key: Vec::new(),
            mode: OutputMode::Append,
            query_name: None,
            query_id: id.clone(),
            streaming: false,
            time_zone: session.time_zone(),
            case_sensitive: session.is_case_sensitive(),
        };
        let factory = open_format(&session, self.format.as_deref(), self.path.take(), request)?;
        let Some(mut sink) = factory.open_batch(self.mode)? else {
            return Ok(());
        };
        let mut writer = factory.writer(0, &id, 0)?;
        self.frame
            .for_each_batch(|rows| Ok(writer.write(0, &rows)?))?;
        let receipt = writer.stage(0..=0)?;
        Ok(sink.commit(0..=0, &[receipt])?)
    }
}

fn open_format(
    session: &crate::Session,
    format: Option<&str>,
    path: Option<String>,
    mut request: SinkRequest,
) -> Result<Arc<dyn SinkFactory>, Error> {
    let Some(format) = format else {
        let message = "a writer needs .format(..), for example \"console\" or \"parquet\"".into();
        return Err(Error::Refused {
            class: None,
            message,
        });
    };
    let in_options = request.options.take("path");
    if path.is_some() && in_options.is_some() {
        let message = "the path is given twice: by .path(..) and as an option".into();
        return Err(Error::Refused {
            class: None,
            message,
        });
    }
    request.path = path.or(in_options);
    Ok(session.inner.formats.sink(format)?.sink(request)?)
}
