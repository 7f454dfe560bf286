//! DataFrames: a query in the making, and what can be done with it.

use std::io::Write;
use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use futures::StreamExt;
use highwater_operators::Edge;
use highwater_query::{
    Expr, Groupings, IntoCondition, JoinCondition, JoinKind, NamedKind, Observation, Observe, Plan,
    functions, lit, node_of, schema_text, unnested, without_event_time,
};

use tokio::sync::mpsc::channel;

use crate::catalog::Named;
use crate::error::Error;
use crate::observe::Observing;
use crate::plan::{
    Observed, Spread, Statics, compile, deduplicates_within_watermark, is_streaming, late_schema,
    wants_order,
};
use crate::relation::{StreamRelation, told_apart};
use crate::session::{Session, read};
use crate::sink::OutputMode;
use crate::workers::{self, panic_text};
use crate::writer::{DataWriter, StreamWriter};

/// A query in the making. Every step is checked at once; nothing runs before a writer is started or, for static
/// rows, before `show`, `collect` or `write`.
#[derive(Clone)]
pub struct DataFrame {
    session: Session,
    plan: Arc<LogicalPlan>,
}

impl DataFrame {
    pub(crate) fn new(session: Session, plan: LogicalPlan) -> Self {
        DataFrame {
            session,
            plan: Arc::new(plan),
        }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn plan(&self) -> &Arc<LogicalPlan> {
        &self.plan
    }

    fn input(&self) -> Box<Plan> {
        Box::new(Plan::Resolved(Arc::clone(&self.plan)))
    }

    fn then(&self, plan: &Plan) -> Result<DataFrame, Error> {
        self.session.frame(plan)
    }

    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        Arc::new(self.plan.schema().as_arrow().clone())
    }

    /// The columns in the model's words.
    pub fn schema_text(&self) -> String {
        schema_text(&self.schema())
    }

    /// True if it reads a stream.
    pub fn is_streaming(&self) -> bool {
        is_streaming(&self.plan)
    }

    /// These columns: names, or expressions.
    pub fn select<E: Into<Expr>>(
        &self,
        columns: impl IntoIterator<Item = E>,
    ) -> Result<DataFrame, Error> {
        let outputs = columns.into_iter().map(Into::into).collect();
        self.then(&Plan::Project {
            input: self.input(),
            outputs,
        })
    }

    /// These columns, as SQL expressions.
    pub fn select_expr<S: AsRef<str>>(
        &self,
        columns: impl IntoIterator<Item = S>,
    ) -> Result<DataFrame, Error> {
        let outputs: Result<Vec<Expr>, _> = columns
            .into_iter()
            .map(|text| highwater_query::parse_expression(text.as_ref()))
            .collect();
        self.then(&Plan::Project {
            input: self.input(),
            outputs: outputs?,
        })
    }

    /// The rows for which the condition (SQL text or an expression) is true.
    pub fn filter(&self, condition: impl IntoCondition) -> Result<DataFrame, Error> {
        self.then(&Plan::Filter {
            input: self.input(),
            condition: condition.into_condition()?,
        })
    }

    /// The same as `filter`.
    pub fn where_(&self, condition: impl IntoCondition) -> Result<DataFrame, Error> {
        self.filter(condition)
    }

    /// All columns and one more, or another in the place of one.
    pub fn with_column(&self, name: &str, value: impl Into<Expr>) -> Result<DataFrame, Error> {
        self.then(&Plan::WithColumns {
            input: self.input(),
            columns: vec![(name.to_string(), value.into())],
        })
    }

    /// All columns, one under another name.
    pub fn with_column_renamed(&self, from: &str, to: &str) -> Result<DataFrame, Error> {
        let columns = vec![(from.to_string(), to.to_string())];
        self.then(&Plan::RenameColumns {
            input: self.input(),
            columns,
        })
    }

    /// All columns but these.
    pub fn drop<S: AsRef<str>>(
        &self,
        columns: impl IntoIterator<Item = S>,
    ) -> Result<DataFrame, Error> {
        let columns = columns
            .into_iter()
            .map(|name| name.as_ref().to_string())
            .collect();
        self.then(&Plan::DropColumns {
            input: self.input(),
            columns,
        })
    }

    /// The frame under a name for its columns: `a.id`.
    pub fn alias(&self, name: &str) -> Result<DataFrame, Error> {
        self.then(&Plan::Alias {
            input: self.input(),
            name: name.to_string(),
            columns: Vec::new(),
        })
    }

    /// Makes `column` the event time of the rows, which may come late by `delay`, such as "10 seconds". State that a
    /// later row could change is kept until the watermark, the largest event time so far minus the delay, has passed.
    pub fn with_watermark(&self, column: &str, delay: &str) -> Result<DataFrame, Error> {
        self.then(&Plan::Watermark {
            input: self.input(),
            column: highwater_query::col(column),
            delay: highwater_query::lit(delay),
        })
    }

    /// Rows by key; say what to compute next.
    pub fn group_by<E: Into<Expr>>(
        &self,
        keys: impl IntoIterator<Item = E>,
    ) -> Result<GroupedData, Error> {
        let columns: Vec<Expr> = keys.into_iter().map(Into::into).collect();
        Ok(GroupedData {
            frame: self.clone(),
            keys: columns.clone(),
            columns,
        })
    }

    /// Rows by these keys, by all but the last, and so on to all rows at once.
    pub fn rollup<E: Into<Expr>>(
        &self,
        keys: impl IntoIterator<Item = E>,
    ) -> Result<GroupedData, Error> {
        self.groupings(Groupings::Rollup, keys)
    }

    /// Rows by every choice of these keys.
    pub fn cube<E: Into<Expr>>(
        &self,
        keys: impl IntoIterator<Item = E>,
    ) -> Result<GroupedData, Error> {
        self.groupings(Groupings::Cube, keys)
    }

    fn groupings<E: Into<Expr>>(
        &self,
        kind: Groupings,
        keys: impl IntoIterator<Item = E>,
    ) -> Result<GroupedData, Error> {
        let columns: Vec<Expr> = keys.into_iter().map(Into::into).collect();
        let sets = columns.iter().map(|key| vec![key.clone()]).collect();
        Ok(GroupedData {
            frame: self.clone(),
            keys: vec![Expr::Groupings { kind, sets }],
            columns,
        })
    }

    /// Aggregates over all rows.
    pub fn agg<E: Into<Expr>>(
        &self,
        aggregates: impl IntoIterator<Item = E>,
    ) -> Result<DataFrame, Error> {
        GroupedData {
            frame: self.clone(),
            keys: Vec::new(),
            columns: Vec::new(),
        }
        .agg(aggregates)
    }

    /// Each row once: of a stream, its first.
    pub fn distinct(&self) -> Result<DataFrame, Error> {
        self.drop_duplicates([""; 0])
    }

    /// The first row of each key, the values of these columns; with no columns, of each row as a whole. Of a stream the
    /// keys are kept for ever, unless event time with a watermark is among them: then until the watermark reaches it.
    pub fn drop_duplicates<S: AsRef<str>>(
        &self,
        columns: impl IntoIterator<Item = S>,
    ) -> Result<DataFrame, Error> {
        self.deduplicate(columns, false)
    }

    /// The first row of each key of a stream, where rows may only repeat for as long as they may be late: a key is kept
    /// until the watermark reaches the event time of its first row plus the watermark's delay.
    pub fn drop_duplicates_within_watermark<S: AsRef<str>>(
        &self,
        columns: impl IntoIterator<Item = S>,
    ) -> Result<DataFrame, Error> {
        self.deduplicate(columns, true)
    }

    fn deduplicate<S: AsRef<str>>(
        &self,
        columns: impl IntoIterator<Item = S>,
        within_watermark: bool,
    ) -> Result<DataFrame, Error> {
        let columns = columns.into_iter();
        self.then(&Plan::Deduplicate {
            input: self.input(),
            columns: columns.map(|name| name.as_ref().to_string()).collect(),
            within_watermark,
        })
    }

    /// The rows of both, by position.
    pub fn union(&self, other: &DataFrame) -> Result<DataFrame, Error> {
        self.then(&Plan::Union {
            inputs: vec![*self.input(), *other.input()],
            by_name: false,
        })
    }

    /// The rows of both, by column name.
    pub fn union_by_name(&self, other: &DataFrame) -> Result<DataFrame, Error> {
        self.then(&Plan::Union {
            inputs: vec![*self.input(), *other.input()],
            by_name: true,
        })
    }

    /// The rows that both have, each once.
    pub fn intersect(&self, other: &DataFrame) -> Result<DataFrame, Error> {
        self.set_operation(other, false, false)
    }

    /// The rows that both have, as often as both have them.
    pub fn intersect_all(&self, other: &DataFrame) -> Result<DataFrame, Error> {
        self.set_operation(other, false, true)
    }

    /// The rows that the other one has not, each once.
    pub fn except(&self, other: &DataFrame) -> Result<DataFrame, Error> {
        self.set_operation(other, true, false)
    }

    /// The rows that are left if the other one's are taken away, copy by copy.
    pub fn except_all(&self, other: &DataFrame) -> Result<DataFrame, Error> {
        self.set_operation(other, true, true)
    }

    fn set_operation(
        &self,
        other: &DataFrame,
        except: bool,
        all: bool,
    ) -> Result<DataFrame, Error> {
        self.then(&Plan::SetOperation {
            left: self.input(),
            right: other.input(),
            except,
            all,
        })
    }

    /// The same rows. Aggregates over those that pass here are reported: of a stream in each epoch's progress, under the
    /// name; of static rows to an [`Observation`], once.
    pub fn observe<E: Into<Expr>>(
        &self,
        as_what: impl Into<ObserveAs>,
        metrics: impl IntoIterator<Item = E>,
    ) -> Result<DataFrame, Error> {
        let (name, observation) = match as_what.into() {
            ObserveAs::Name(name) => (name, None),
            ObserveAs::Observation(observation) => {
                if self.is_streaming() {
                    return Err(Error::Refused {
                        class: None,
                        message: "an Observation is for static rows: a stream has values for every epoch; observe it \
                                  under a name and read them in its progress reports"
                            .into(),
                    });
                }
                if !observation.take() {
                    return Err(Error::Refused {
                        class: None,
                        message: format!(
                            "Observation \"{}\" observes another frame already; make one for each",
                            observation.name()
                        ),
                    });
                }
                (observation.name().to_string(), Some(observation))
            }
        };
        let frame = self.then(&Plan::Observe {
            input: self.input(),
            name,
            metrics: metrics.into_iter().map(Into::into).collect(),
            observation,
        })?;
        if let Some(node) = node_of::<Observe>(&frame.plan) {
            // What cannot be observed says so now.
            Observed::new(node, Edge::plain(self.schema()))?;
        }
        Ok(frame)
    }

    /// Rows of both sides that match.
    pub fn join(
        &self,
        other: &DataFrame,
        on: impl IntoCondition,
        kind: JoinKind,
    ) -> Result<DataFrame, Error> {
        let condition = JoinCondition::On(on.into_condition()?);
        self.then(&Plan::Join {
            left: self.input(),
            right: other.input(),
            kind,
            condition,
        })
    }

    /// Rows in order.
    pub fn order_by<E: Into<Expr>>(
        &self,
        order: impl IntoIterator<Item = E>,
    ) -> Result<DataFrame, Error> {
        self.then(&Plan::Sort {
            input: self.input(),
            order: order.into_iter().map(Into::into).collect(),
        })
    }

    /// The first `count` rows.
    pub fn limit(&self, count: u64) -> Result<DataFrame, Error> {
        self.then(&Plan::Limit {
            input: self.input(),
            count: Some((lit(i64::try_from(count).unwrap_or(i64::MAX)), None)),
            skip: None,
        })
    }

    /// Makes it a view that `session.sql` can name.
    pub fn create_or_replace_temp_view(&self, name: &str) -> Result<(), Error> {
        self.session
            .inner
            .views
            .put(name, NamedKind::View, Named::Rows(Arc::clone(&self.plan)));
        Ok(())
    }

    /// Describes where a stream's rows go.
    pub fn write_stream(&self) -> StreamWriter {
        StreamWriter::new(self.clone())
    }

    /// Describes where static rows go.
    pub fn write(&self) -> DataWriter {
        DataWriter::new(self.clone())
    }

    /// The plan as text: as resolved, and for a stream what its dataflow is made of.
    pub fn explain(&self) -> Result<String, Error> {
        let mut text = format!("== Resolved plan ==\n{}\n", self.plan.display_indent());
        if self.is_streaming() {
            match OutputMode::ALL.into_iter().find_map(|mode| {
                compile(&self.plan, mode, false, &Unread)
                    .ok()
                    .map(|plan| (mode, plan))
            }) {
                Some((mode, plan)) => text.push_str(&format!(
                    "== Incremental plan ({mode} mode) ==\n{}",
                    plan.root
                )),
                None => {
                    let why = compile(&self.plan, OutputMode::Append, false, &Unread)
                        .err()
                        .map(|e| e.to_string());
                    text.push_str(&format!(
                        "== No incremental plan ==\n{}\n",
                        why.unwrap_or_default()
                    ));
                }
            }
        }
        Ok(text)
    }

    /// The streams it reads and its incremental plan for output in `mode`, or why there is none.
    /// With `late_rows`, which must then be possible, with what tells them apart.
    pub(crate) fn explain_as(&self, mode: OutputMode, late_rows: bool) -> Result<String, Error> {
        let compiled = compile(&self.plan, mode, late_rows, &Unread)?;
        if late_rows {
            late_schema(&compiled, mode)?;
        }
        let mut text = String::new();
        let _ = self.plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && let Some(stream) = scan.source.downcast_ref::<StreamRelation>()
            {
                text.push_str(&format!("  source: {}\n", stream.description));
            }
            Ok(TreeNodeRecursion::Continue)
        });
        text.push_str(&format!("  plan:\n{}", compiled.root));
        Ok(text)
    }

    /// The columns of its late rows for output in `mode`, or why it has none.
    pub(crate) fn late_schema(&self, mode: OutputMode) -> Result<SchemaRef, Error> {
        late_schema(&compile(&self.plan, mode, true, &Unread)?, mode)
    }

    /// All rows. Only for static rows.
    pub fn collect(&self) -> Result<Vec<RecordBatch>, Error> {
        let mut batches = Vec::new();
        self.for_each_batch(|batch| {
            batches.push(batch);
            Ok(())
        })?;
        Ok(batches)
    }

    /// How many rows. Only for static rows.
    pub fn count(&self) -> Result<u64, Error> {
        let mut count = 0;
        self.for_each_batch(|batch| {
            count += batch.num_rows() as u64;
            Ok(())
        })?;
        Ok(count)
    }

    /// Prints the first 20 rows as a table. Only for static rows.
    pub fn show(&self) -> Result<(), Error> {
        self.show_rows(20, 20)
    }

    /// Prints the first `rows` rows, cells cut to `width` characters (0: not cut). Only for static rows.
    pub fn show_rows(&self, rows: usize, width: usize) -> Result<(), Error> {
        let text = self.show_text(rows, width)?;
        writeln!(std::io::stdout().lock(), "{text}").map_err(Error::run)
    }

    /// What `show_rows` prints.
    pub fn show_text(&self, rows: usize, width: usize) -> Result<String, Error> {
        // One more than shown tells whether there are more.
        let first = self.limit_plan(rows as u64 + 1)?;
        let batches = first.collect()?;
        let zone = self.session.time_zone();
        let draw = self.session.inner.formats.draw()?;
        draw(&self.schema(), &batches, rows, width, &zone).map_err(Error::run)
    }

    fn limit_plan(&self, count: u64) -> Result<DataFrame, Error> {
        if self.is_streaming() {
            return Err(streaming_action());
        }
        self.limit(count)
    }

    pub(crate) fn for_each_batch(
        &self,
        mut each: impl FnMut(RecordBatch) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.is_streaming() {
            return Err(streaming_action());
        }
        if tokio::runtime::Handle::try_current().is_ok() {
            return Err(Error::Refused {
                class: None,
                message: "a batch query cannot run on a thread of an async runtime; call it from spawn_blocking".into(),
            });
        }
        let observing = Observing::default();
        let context = self
            .session
            .batch_context(wants_order(&self.plan).unwrap_or(true), &observing);
        if deduplicates_within_watermark(&self.plan) {
            return Err(Error::refused(
                "_LEGACY_ERROR_TEMP_3102",
                "dropDuplicatesWithinWatermark is not supported with batch DataFrames/DataSets: rows that are all there have \
                 no watermark. Use drop_duplicates",
            ));
        }
        let plan = without_event_time(self.plan.as_ref().clone())
            .and_then(unnested)
            .and_then(told_apart)
            .map_err(Error::run)?;
        // A task of its own: what panics there is logged, and told as an error.
        workers::watch_panics();
        let runtime = self.session.runtime();
        let (sender, mut batches) = channel(1);
        let task = runtime.spawn(async move {
            let frame = context.execute_logical_plan(plan).await?;
            let mut rows = frame.execute_stream().await?;
            while let Some(batch) = rows.next().await {
                if sender.send(batch?).await.is_err() {
                    break;
                }
            }
            Ok::<(), DataFusionError>(())
        });
        while let Some(batch) = batches.blocking_recv() {
            each(batch)?;
        }
        match runtime.block_on(task) {
            Ok(ended) => ended.map_err(Error::run)?,
            Err(lost) => {
                let said = lost
                    .try_into_panic()
                    .map(|panic| panic_text(panic.as_ref()));
                return Err(Error::Run {
                    message: match said {
                        Ok(text) => format!("a batch query panicked: {text}"),
                        Err(lost) => lost.to_string(),
                    },
                });
            }
        }
        observing.finish()
    }
}

/// Reads nothing, for a query that is only explained.
struct Unread;

impl Statics for Unread {
    fn rows(&self, plan: &LogicalPlan) -> Result<RecordBatch, Error> {
        let schema = Arc::new(plan.schema().as_arrow().clone());
        Ok(RecordBatch::new_empty(schema))
    }

    fn are_read(&self) -> bool {
        false
    }

    fn spread(&self) -> Spread {
        Spread {
            broadcast_max: -1,
            workers: 0..1,
            peers: 1,
        }
    }
}

impl Statics for Session {
    fn rows(&self, plan: &LogicalPlan) -> Result<RecordBatch, Error> {
        let batches = DataFrame::new(self.clone(), plan.clone()).collect()?;
        let schema: SchemaRef = Arc::new(plan.schema().as_arrow().clone());
        let batches: Result<Vec<RecordBatch>, _> = batches
            .into_iter()
            .map(|rows| crate::dataflow::conform(rows, &schema))
            .collect();
        let batches = batches.map_err(Error::run)?;
        concat_batches(&schema, &batches).map_err(Error::run)
    }

    fn spread(&self) -> Spread {
        let (workers, process) = (self.inner.cluster.workers, self.inner.process);
        Spread {
            broadcast_max: read(&self.inner.conf).broadcast_max,
            workers: process * workers..(process + 1) * workers,
            peers: workers * self.inner.cluster.processes,
        }
    }
}

/// Where `observe` reports.
pub enum ObserveAs {
    /// In progress reports, under this name.
    Name(String),
    /// To this, when a batch query has run.
    Observation(Observation),
}

impl From<&str> for ObserveAs {
    fn from(name: &str) -> Self {
        ObserveAs::Name(name.to_string())
    }
}

impl From<&Observation> for ObserveAs {
    fn from(observation: &Observation) -> Self {
        ObserveAs::Observation(observation.clone())
    }
}

fn streaming_action() -> Error {
    Error::refused(
        "CALL_ON_STREAMING_DATASET_UNSUPPORTED",
        "Queries with streaming sources must be executed with write_stream().start(), or written by CREATE STREAMING TABLE name USING format AS query",
    )
}

/// Rows by key.
pub struct GroupedData {
    frame: DataFrame,
    keys: Vec<Expr>,
    /// The keys as columns.
    columns: Vec<Expr>,
}

impl GroupedData {
    /// The keys and these aggregates.
    pub fn agg<E: Into<Expr>>(
        &self,
        aggregates: impl IntoIterator<Item = E>,
    ) -> Result<DataFrame, Error> {
        let mut outputs = self.columns.clone();
        outputs.extend(aggregates.into_iter().map(Into::into));
        let plan = Plan::Aggregate {
            input: self.frame.input(),
            keys: self.keys.clone(),
            outputs,
            having: None,
        };
        self.frame.then(&plan)
    }

    /// The keys and the number of rows, as column `count`.
    pub fn count(&self) -> Result<DataFrame, Error> {
        self.agg([functions::count(highwater_query::lit(1)).alias("count")])
    }

    /// The keys and the sums of these columns.
    pub fn sum<S: AsRef<str>>(
        &self,
        columns: impl IntoIterator<Item = S>,
    ) -> Result<DataFrame, Error> {
        self.each(columns, functions::sum)
    }

    /// The keys and the averages of these columns.
    pub fn avg<S: AsRef<str>>(
        &self,
        columns: impl IntoIterator<Item = S>,
    ) -> Result<DataFrame, Error> {
        self.each(columns, functions::avg)
    }

    /// The keys and the smallest values of these columns.
    pub fn min<S: AsRef<str>>(
        &self,
        columns: impl IntoIterator<Item = S>,
    ) -> Result<DataFrame, Error> {
        self.each(columns, functions::min)
    }

    /// The keys and the largest values of these columns.
    pub fn max<S: AsRef<str>>(
        &self,
        columns: impl IntoIterator<Item = S>,
    ) -> Result<DataFrame, Error> {
        self.each(columns, functions::max)
    }

    fn each<S: AsRef<str>>(
        &self,
        columns: impl IntoIterator<Item = S>,
        function: impl Fn(Expr) -> Expr,
    ) -> Result<DataFrame, Error> {
        self.agg(
            columns
                .into_iter()
                .map(|name| function(highwater_query::col(name))),
        )
    }
}
