//! Views and tables of a session, by name.
//!
//! A name can be asked for in two ways: `FROM t` are the rows that `t` has when the query runs, `FROM STREAM t` its rows
//! as they arrive. A view is kept as written and resolved anew each time, because `FROM STREAM v` asks every table below
//! it for its stream; those that have none (a static temporary view) are read as they are, for a join.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};

use arrow::datatypes::SchemaRef;
use datafusion::catalog::default_table_source::DefaultTableSource;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use highwater_query::{Conf, Functions, NamedKind, Plan, QueryError, Resolver};

use crate::error::Error;
use crate::formats::Formats;
use crate::places::{local, resolved};
use crate::plan::is_streaming;
use crate::reader::source_plan;
use crate::source::SourceRequest;
use crate::workers::lock;

/// How deep views may stand on views.
const DEPTH_MAX: usize = 100;

/// What a name stands for.
#[derive(Clone)]
pub(crate) enum Named {
    /// A frame's rows: a stream or not, and never the other.
    Rows(Arc<LogicalPlan>),
    /// A query as written.
    View(Arc<Plan>),
    /// A source that can be read in both ways.
    Source(Arc<NamedSource>),
    /// What a query has written and is still writing; absent if nothing can read it.
    Output(Option<Arc<NamedSource>>),
}

/// A source as a statement described it.
pub(crate) struct NamedSource {
    name: String,
    formats: Formats,
    format: String,
    request: SourceRequest,
    once: OnceLock<LogicalPlan>,
    stream: OnceLock<LogicalPlan>,
}

impl NamedSource {
    pub(crate) fn new(
        name: &str,
        formats: Formats,
        format: String,
        request: SourceRequest,
    ) -> Self {
        NamedSource {
            name: name.to_string(),
            formats,
            format,
            request,
            once: OnceLock::new(),
            stream: OnceLock::new(),
        }
    }

    /// The relation of its rows, made when it is first asked for.
    pub(crate) fn plan(&self, stream: bool) -> Result<LogicalPlan, Error> {
        let kept = if stream { &self.stream } else { &self.once };
        if let Some(plan) = kept.get() {
            return Ok(plan.clone());
        }
        let plan = self.plan_now(stream)?;
        Ok(kept.get_or_init(|| plan).clone())
    }

    /// The relation of what a query has written: nothing before its directory is there.
    fn written_plan(&self, stream: bool) -> Result<LogicalPlan, Error> {
        let (path, schema) = (&self.request.path, &self.request.schema);
        if let (false, Some(path), Some(schema)) = (stream, path, schema)
            && !std::path::Path::new(path).exists()
        {
            return no_rows(&self.format, schema);
        }
        self.plan_now(stream)
    }

    fn plan_now(&self, stream: bool) -> Result<LogicalPlan, Error> {
        let mut request = self.request.clone();
        request.streaming = stream;
        source_plan(&self.formats, &self.format, Some(&self.name), request)
    }
}

/// A relation of these columns and no rows.
pub(crate) fn no_rows(name: &str, schema: &SchemaRef) -> Result<LogicalPlan, Error> {
    let table = MemTable::try_new(Arc::clone(schema), vec![vec![]]).map_err(Error::run)?;
    let source = Arc::new(DefaultTableSource::new(Arc::new(table)));
    LogicalPlanBuilder::scan(name, source, None)
        .and_then(LogicalPlanBuilder::build)
        .map_err(Error::run)
}

#[derive(Clone)]
struct Entry {
    kind: NamedKind,
    named: Named,
    /// The query that writes a streaming table.
    query: Option<String>,
}

/// Names are case-insensitive.
#[derive(Default)]
pub(crate) struct Views {
    by_name: Mutex<BTreeMap<String, Entry>>,
}

impl Views {
    pub(crate) fn put(&self, name: &str, kind: NamedKind, named: Named) {
        let query = None;
        lock(&self.by_name).insert(name.to_lowercase(), Entry { kind, named, query });
    }

    /// A streaming table, and the query that writes it.
    pub(crate) fn put_written(&self, name: &str, named: Named, query: &str) {
        let entry = Entry {
            kind: NamedKind::StreamingTable,
            named,
            query: Some(query.to_string()),
        };
        lock(&self.by_name).insert(name.to_lowercase(), entry);
    }

    /// The streaming table whose rows a path holds.
    pub(crate) fn written_to(&self, path: &str) -> Option<String> {
        let place = resolved(local(path)?);
        let entries = lock(&self.by_name);
        let mut found = entries.iter().filter(|(_, entry)| match &entry.named {
            Named::Output(Some(source)) => {
                let path = source.request.path.as_ref();
                let path = path.and_then(|path| local(path));
                path.is_some_and(|path| resolved(path) == place)
            }
            _ => false,
        });
        found.next().map(|(name, _)| name.clone())
    }

    /// The query that writes a streaming table.
    pub(crate) fn query_of(&self, name: &str) -> Option<String> {
        self.get(name)?.query
    }

    pub(crate) fn kind(&self, name: &str) -> Option<NamedKind> {
        self.get(name).map(|entry| entry.kind)
    }

    /// The rows that a query keeps in memory for others to read.
    pub(crate) fn rows(&self, name: &str) -> Option<Named> {
        let named = self.get(name)?.named;
        matches!(named, Named::Rows(_)).then_some(named)
    }

    /// All names, and what they are.
    pub(crate) fn list(&self) -> Vec<(String, String)> {
        lock(&self.by_name)
            .iter()
            .map(|(name, entry)| (name.clone(), entry.kind.to_string()))
            .collect()
    }

    pub(crate) fn remove(&self, name: &str) -> bool {
        lock(&self.by_name).remove(&name.to_lowercase()).is_some()
    }

    fn get(&self, name: &str) -> Option<Entry> {
        lock(&self.by_name).get(&name.to_lowercase()).cloned()
    }
}

/// The names of a session while one query is resolved.
pub(crate) struct Names<'a> {
    views: &'a Views,
    functions: &'a Functions,
    conf: &'a Conf,
    /// True below a view that is read with STREAM.
    growing: Cell<bool>,
    depth: Cell<usize>,
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> Names<'a> {
    pub(crate) fn new(views: &'a Views, functions: &'a Functions, conf: &'a Conf) -> Self {
        Names {
            views,
            functions,
            conf,
            growing: Cell::new(false),
            depth: Cell::new(0),
            asked: RefCell::default(),
        }
    }

    pub(crate) fn resolve(&self, plan: &Plan) -> Result<LogicalPlan, QueryError> {
        Resolver::new(self, self.functions, self.conf).resolve(plan)
    }

    /// Checks a view before it gets its name: it must be readable in one way, and not stand on itself.
    pub(crate) fn check_view(&self, name: &str, plan: &Plan) -> Result<(), QueryError> {
        let once = self.resolve(plan);
        if let Err(error) = once
            && self.below(true, || self.resolve(plan)).is_err()
        {
            return Err(error);
        }
        if self.asked.borrow().contains(&name.to_lowercase()) {
            let message =
                format!("view \"{name}\" would read itself; give the new view another name");
            return Err(QueryError::new("RECURSIVE_VIEW", message));
        }
        Ok(())
    }

    fn below<T>(&self, growing: bool, resolve: impl FnOnce() -> T) -> T {
        let (was, depth) = (self.growing.replace(growing), self.depth.get());
        self.depth.set(depth + 1);
        let result = resolve();
        self.growing.set(was);
        self.depth.set(depth);
        result
    }

    fn view(&self, name: &str, plan: &Plan, stream: bool) -> Result<LogicalPlan, QueryError> {
        if self.depth.get() >= DEPTH_MAX {
            return Err(QueryError::unsupported(format!(
                "view \"{name}\", more than {DEPTH_MAX} views deep,"
            )));
        }
        let as_written = self.below(false, || self.resolve(plan));
        let resolved = match as_written {
            // It says STREAM itself where it means it.
            Ok(plan) if !stream || is_streaming(&plan) => Ok(plan),
            Err(error) if !stream => Err(error),
            _ => self.below(true, || self.resolve(plan)),
        };
        resolved.map_err(|error| error.inside(&format!("view \"{name}\"")))
    }
}

impl highwater_query::Catalog for Names<'_> {
    fn table(&self, name: &[String], stream: bool) -> Result<Option<LogicalPlan>, QueryError> {
        let [name] = name else { return Ok(None) };
        self.asked.borrow_mut().insert(name.to_lowercase());
        let Some(Entry { kind, named, .. }) = self.views.get(name) else {
            return Ok(None);
        };
        let wanted = stream || self.growing.get();
        let plan = match named {
            Named::Rows(plan) => plan.as_ref().clone(),
            Named::View(plan) => self.view(name, &plan, wanted)?,
            Named::Source(source) => match source.plan(wanted) {
                Ok(plan) => plan,
                // A table below a view that is read with STREAM, and has none.
                Err(_) if !stream && wanted => source.plan(false).map_err(query_error)?,
                Err(error) if !wanted && source.plan(true).is_ok() => {
                    return Err(QueryError::plain(format!(
                        "{kind} \"{name}\" can be read as a stream only (FROM STREAM {name}): {error}"
                    )));
                }
                Err(error) => return Err(query_error(error)),
            },
            Named::Output(Some(source)) => source.written_plan(wanted).map_err(query_error)?,
            Named::Output(None) => {
                return Err(QueryError::plain(format!(
                    "{kind} \"{name}\" writes where nothing can be read back"
                )));
            }
        };
        if stream && !is_streaming(&plan) {
            return Err(QueryError::plain(format!(
                "{kind} \"{name}\" is no stream; remove the word STREAM before it"
            )));
        }
        Ok(Some(plan))
    }
}

fn query_error(error: Error) -> QueryError {
    match error {
        Error::Query(error) => error,
        other => match other.class() {
            Some(class) => QueryError::new(class, other.message()),
            None => QueryError::plain(other.message()),
        },
    }
}
