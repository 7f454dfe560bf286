//! The table that a query's late rows go to, if its user asks for one.
//!
//! A row is late when an operator that would take it in drops it: an aggregation by event time when the last window that
//! the row is in ended at or before the watermark. Such rows come whole, as their source has them, with the epoch that read
//! them: they are committed with the answer of that epoch, so each is there once, whatever happened in between and however
//! many operators drop it or what the query makes of it.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::default_table_source::DefaultTableSource;
use datafusion::logical_expr::LogicalPlanBuilder;
use highwater_query::NamedKind;

use crate::catalog::{Named, NamedSource};
use crate::error::Error;
use crate::options::Options;
use crate::session::Session;
use crate::sink::{OutputMode, SinkFactory, SinkRequest};
use crate::source::SourceRequest;

/// What was asked for.
pub(crate) struct LateTable {
    name: String,
    format: Option<String>,
    path: Option<String>,
}

fn refused(message: impl Into<String>) -> Error {
    Error::Refused {
        class: None,
        message: message.into(),
    }
}

impl LateTable {
    /// Takes `lateRows`, `lateRowsPath` and `lateRowsFormat`.
    pub(crate) fn take(options: &mut Options) -> Result<Option<Self>, Error> {
        let path = options.take("lateRowsPath");
        let format = options.take("lateRowsFormat");
        let Some(name) = options.take("lateRows") else {
            return match path.or(format) {
                None => Ok(None),
                Some(_) => Err(refused(
                    "options lateRowsPath and lateRowsFormat need option lateRows: the name of the table for late rows",
                )),
            };
        };
        if name.trim().is_empty() {
            return Err(refused(
                "option lateRows is the name of a table, and is empty",
            ));
        }
        Ok(Some(LateTable { name, format, path }))
    }

    /// Its sink. `main` is the format of the answer's sink, and `durable` whether the query has a checkpoint.
    pub(crate) fn open(
        &self,
        session: &Session,
        main: (Option<&str>, &dyn SinkFactory),
        durable: bool,
        request: &SinkRequest,
        schema: SchemaRef,
    ) -> Result<Arc<dyn SinkFactory>, Error> {
        if durable && self.path.is_none() {
            return Err(refused(format!(
                "late rows in table \"{}\" would not outlive the program, and the query has a checkpoint: give option \
                 lateRowsPath, a directory for their files",
                self.name
            )));
        }
        let request = SinkRequest {
            options: Options::default(),
            path: self.path.clone(),
            partition_by: Vec::new(),
            schema,
            key: Vec::new(),
            mode: OutputMode::Append,
            query_name: Some(self.name.clone()),
            ..request.clone()
        };
        let sink = session
            .inner
            .formats
            .sink(&self.format(main))?
            .sink(request)?;
        if let (Some(answer), Some(late)) = (main.1.directory(), sink.directory())
            && (answer.starts_with(late) || late.starts_with(answer))
        {
            return Err(refused(format!(
                "late rows would go to \"{}\", in or around the query's output directory \"{}\": choose another lateRowsPath",
                late.display(),
                answer.display()
            )));
        }
        Ok(sink)
    }

    /// As said, or as the answer is if that is files too, or Parquet.
    fn format(&self, (main, sink): (Option<&str>, &dyn SinkFactory)) -> String {
        let files = main.filter(|_| sink.directory().is_some());
        match (&self.format, &self.path) {
            (Some(format), _) => format.clone(),
            (None, Some(_)) => files.unwrap_or("parquet").to_string(),
            (None, None) => "memory".to_string(),
        }
    }

    /// Refuses a name that something else has. An earlier run of the same query, `writer`, does not count.
    pub(crate) fn check_name(&self, session: &Session, writer: &str) -> Result<(), Error> {
        let views = &session.inner.views;
        match views.kind(&self.name) {
            None => Ok(()),
            Some(_) if views.query_of(&self.name).as_deref() == Some(writer) => Ok(()),
            Some(found) => Err(Error::refused(
                "TABLE_OR_VIEW_ALREADY_EXISTS",
                format!(
                    "late rows cannot go to \"{}\": there is a {found} of that name already; choose another name, or drop it first",
                    self.name
                ),
            )),
        }
    }

    /// Gives it its name, for other queries to read.
    pub(crate) fn put(
        &self,
        session: &Session,
        format: (Option<&str>, &dyn SinkFactory),
        sink: &dyn SinkFactory,
        schema: SchemaRef,
        writer: &str,
    ) -> Result<(), Error> {
        let views = &session.inner.views;
        if let Some(table) = sink.table() {
            let source = Arc::new(DefaultTableSource::new(table));
            let plan = LogicalPlanBuilder::scan(self.name.as_str(), source, None)
                .and_then(LogicalPlanBuilder::build)
                .map_err(Error::run)?;
            views.put_written(&self.name, Named::Rows(Arc::new(plan)), writer);
            return Ok(());
        }
        let format = self.format(format);
        let readable = sink.directory().map(Path::to_path_buf);
        let readable = readable.filter(|_| session.inner.formats.source(&format).is_ok());
        let source = readable.map(|path| {
            let request = SourceRequest {
                options: Options::default(),
                path: Some(path.display().to_string()),
                schema: Some(schema),
                streaming: false,
                time_zone: session.time_zone(),
            };
            Arc::new(NamedSource::new(
                &self.name,
                session.inner.formats.clone(),
                format,
                request,
            ))
        });
        views.put_written(&self.name, Named::Output(source), writer);
        debug_assert_eq!(views.kind(&self.name), Some(NamedKind::StreamingTable));
        Ok(())
    }
}
