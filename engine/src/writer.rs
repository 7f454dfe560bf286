//! `write_stream()` and `write()`: a sink in the making, and the start of a query.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::unbounded;
use datafusion::catalog::default_table_source::DefaultTableSource;
use datafusion::logical_expr::LogicalPlanBuilder;

use highwater_query::NamedKind;

use crate::catalog::Named;
use crate::checkpoint::{self, Checkpoint, PlanShape};
use crate::coordinator::{self, Coordination, Durable, Grouping};
use crate::dataflow::{Blueprint, feed};
use crate::error::Error;
use crate::foreach::{self, CodeError, CodeFormat, ForeachWriter};
use crate::frame::DataFrame;
use crate::options::{OptionError, Options};
use crate::plan::compile;
use crate::progress::stopwatch_us;
use crate::query::{About, QueryShared, StreamingQuery};
use crate::sink::{OutputMode, Placement, SaveMode, SinkFactory, SinkFormat, SinkRequest};
use crate::source::Source;
use crate::trigger::{Trigger, parse_interval};
use crate::workers::{Installation, lock};

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

    /// Hands the rows to code of this program, one by one.
    pub fn foreach(mut self, writer: impl ForeachWriter) -> Self {
        self.code = Some(foreach::foreach(writer));
        self
    }

    /// Hands each epoch's rows and its number to code of this program, as a static frame, in the order of epochs. It
    /// runs in the first process. After a crash an epoch may come again, with the same number and the same rows. An
    /// error or a panic ends the query.
    pub fn for_each_batch<E: Into<CodeError>>(
        mut self,
        code: impl FnMut(DataFrame, u64) -> Result<(), E> + Send + 'static,
    ) -> Self {
        self.code = Some(foreach::for_each_batch(self.frame.session(), code));
        self
    }

    /// Sets an option of the connector, or of the query: `checkpointLocation`, `checkpointInterval` (10 seconds unless
    /// said otherwise); for sinks that commit short epochs together, `commitInterval` (1 second) and `commitBytes` (128 MB).
    pub fn option(mut self, name: &str, value: impl Display) -> Self {
        self.options.set(name, value);
        self
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
                "write_stream() can be called only on a frame that reads a stream; use write() for static rows",
            ));
        }
        if let Some(reason) = session.inner.workers.failure() {
            return Err(Error::SessionEnded(reason));
        }
        let planning = stopwatch_us();
        let compiled = compile(self.frame.plan(), self.mode)?;
        let planning_us = stopwatch_us() - planning;
        let pacing = Pacing::take(&mut self.options)?;
        if let Some(name) = self.options.take("queryName") {
            self.name = Some(name);
        }
        let starting = session.inner.streams.begin(self.name.as_deref())?;
        let first = session.inner.process == 0;
        let store = match self.options.take("checkpointLocation") {
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
            signed: false,
            query_name: self.name.clone(),
            query_id: id.clone(),
            streaming: true,
            time_zone: session.time_zone(),
        };
        let sink = self.open_sink(&session, request)?;
        if sink.durable() && store.is_none() {
            return Err(Error::refused(
                "_LEGACY_ERROR_TEMP_1298",
                "checkpointLocation must be specified through .option(\"checkpointLocation\", ..): without it a restart \
                 would write every row again",
            ));
        }
        let (sender, receiver) = unbounded();
        let coordinator = first.then(|| sender.clone());
        let (workers, processes) = {
            let cluster = &session.inner.cluster;
            (cluster.workers, cluster.processes)
        };
        let run_id = uuid::Uuid::new_v4().to_string();
        let about = About {
            id,
            run_id: run_id.clone(),
            name: self.name.clone(),
            incremental_plan: format!(
                "== Incremental plan ({} mode) ==\n{}",
                self.mode, compiled.root
            ),
            resolved_plan: format!(
                "== Resolved plan ==\n{}\n",
                self.frame.plan().display_indent()
            ),
            streams: Arc::clone(&session.inner.streams),
        };
        let shared = Arc::new(QueryShared::new(about, workers, coordinator.clone()));
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        let mut readers = Vec::new();
        for used in &compiled.sources {
            if first {
                let source = used.factory.open()?;
                readers.push(source.reader());
                sources.push(source);
            } else {
                readers.push(used.factory.reader());
            }
        }
        let event_time = session.event_time(&compiled);
        let operators = compiled.root.operators();
        let mut feed_input = None;
        let mut beginning = String::new();
        if first {
            let durable = match taken {
                Some(checkpoint) => {
                    let kind = |source: &dyn Source| {
                        let text = source.description();
                        text.split('[').next().unwrap_or_default().to_string()
                    };
                    let shape = PlanShape {
                        sources: sources.iter().map(|source| kind(source.as_ref())).collect(),
                        operators: operators.clone(),
                    };
                    let recovered = checkpoint.recover(&shape, &run_id, workers, processes)?;
                    if !sink.recovers() && recovered.has_epochs() {
                        return Err(Error::refused(
                            "_LEGACY_ERROR_TEMP_1299",
                            "this query does not support recovering from its checkpoint location: what its sink held \
                             is gone with the program that filled it; remove the checkpoint to start over",
                        ));
                    }
                    Some(Durable {
                        checkpoint,
                        recovered,
                    })
                }
                None => None,
            };
            let (feed, input) = feed();
            feed_input = Some(input);
            let writers = match sink.placement() {
                Placement::EveryWorker => (0..workers * processes).collect(),
                Placement::OneWorker => vec![0],
            };
            let begin = coordinator::start(Coordination {
                query: Arc::clone(&shared),
                sources,
                sinks: vec![sink.open()?],
                trigger: self.trigger,
                grouping: match sink.groups_epochs() {
                    true => pacing.grouping,
                    false => Grouping::NONE,
                },
                checkpoint_interval: pacing.checkpoint_interval,
                feed,
                events: (sender, receiver),
                durable,
                writers,
                stateful: !operators.is_empty(),
                workers,
                processes,
                observed: compiled.root.observed(),
                planning_us,
                event_time,
            })?;
            beginning = serde_json::to_string(&begin).expect("plain data");
        }
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
        let key = self.key(&session);
        let blueprint = Blueprint {
            name: self.name.clone().unwrap_or_else(|| "query".into()),
            compiled,
            readers,
            sink,
            feed: feed_input,
            coordinator,
            query: Arc::clone(&shared),
            policy: event_time.policy,
            store,
            budget: Arc::clone(&session.inner.budget),
        };
        let ended = Arc::clone(&shared);
        let query = StreamingQuery { shared };
        starting.started(&query);
        session.inner.workers.install(Installation {
            key,
            beginning,
            build: Arc::new(move |worker, beginning| blueprint.build(worker, beginning)),
            ended: Arc::new(move |reason| ended.worker_ended(reason)),
        });
        Ok(query)
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

    /// The same text in every process that runs the same program, and another for every query.
    fn key(&self, session: &crate::Session) -> String {
        static STARTED: Mutex<BTreeMap<(usize, u64), u64>> = Mutex::new(BTreeMap::new());
        let mut hasher = std::hash::DefaultHasher::new();
        (
            &self.name,
            &self.format,
            self.mode,
            self.frame.plan().display_indent_schema().to_string(),
        )
            .hash(&mut hasher);
        let print = hasher.finish();
        let mut started = lock(&STARTED);
        let count = started
            .entry((Arc::as_ptr(&session.inner) as usize, print))
            .or_default();
        *count += 1;
        format!("{print:016x}-{count}")
    }
}

/// How a query paces what it makes durable.
struct Pacing {
    grouping: Grouping,
    checkpoint_interval: Duration,
}

impl Pacing {
    /// Takes `commitInterval`, `commitBytes` and `checkpointInterval`.
    fn take(options: &mut Options) -> Result<Self, Error> {
        let mut interval = |name: &str, default: Duration| match options.take(name) {
            Some(text) => parse_interval(&text),
            None => Ok(default),
        };
        let age_max = interval("commitInterval", Duration::from_secs(1))?;
        let checkpoint_interval = interval("checkpointInterval", Duration::from_secs(10))?;
        let bytes_max = match options.take("commitBytes") {
            Some(text) => text.parse().map_err(|_| OptionError::Invalid {
                name: "commitBytes".into(),
                owner: "the writer".into(),
                value: text,
                reason: "it is a number of bytes".into(),
            })?,
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
            signed: false,
            query_name: None,
            query_id: id.clone(),
            streaming: false,
            time_zone: session.time_zone(),
        };
        let factory = open_format(&session, self.format.as_deref(), self.path.take(), request)?;
        let Some(mut sink) = factory.open_batch(self.mode)? else {
            return Ok(());
        };
        let mut writer = factory.writer(0, &id)?;
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
