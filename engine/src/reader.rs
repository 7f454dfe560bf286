//! `read_stream()` and `read()`: a source in the making.

use std::fmt::Display;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::catalog::default_table_source::DefaultTableSource;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, TableSource};
use highwater_query::parse_schema;

use crate::error::Error;
use crate::formats::Formats;
use crate::frame::DataFrame;
use crate::options::Options;
use crate::relation::{StaticRelation, StreamRelation};
use crate::session::Session;
use crate::source::{SourceFactory, SourceRequest};

/// A source in the making: format, options, schema, path; then `load`.
#[must_use = "nothing is read before load()"]
pub struct DataReader {
    session: Session,
    streaming: bool,
    format: Option<String>,
    options: Options,
    path: Option<String>,
    schema: Option<SchemaRef>,
}

impl DataReader {
    pub(crate) fn new(session: Session, streaming: bool) -> Self {
        DataReader {
            session,
            streaming,
            format: None,
            options: Options::default(),
            path: None,
            schema: None,
        }
    }

    /// The connector: "json", "socket".
    pub fn format(mut self, format: &str) -> Self {
        self.format = Some(format.to_string());
        self
    }

    /// Sets an option of the connector.
    pub fn option(mut self, name: &str, value: impl Display) -> Self {
        self.options.set(name, value);
        self
    }

    /// Sets several options.
    pub fn options<N: AsRef<str>, V: Display>(
        mut self,
        options: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        for (name, value) in options {
            self.options.set(name.as_ref(), value);
        }
        self
    }

    /// The columns, in the model's words: `"device STRING, signal BIGINT, time TIMESTAMP"`.
    pub fn schema(mut self, ddl: &str) -> Result<Self, Error> {
        self.schema = Some(parse_schema(ddl)?);
        Ok(self)
    }

    /// The columns, as an Arrow schema.
    pub fn arrow_schema(mut self, schema: SchemaRef) -> Self {
        self.schema = Some(schema);
        self
    }

    /// A directory, a file or a glob.
    pub fn path(mut self, path: impl AsRef<std::path::Path>) -> Self {
        self.path = Some(path.as_ref().display().to_string());
        self
    }

    /// The frame of its rows.
    pub fn load(mut self) -> Result<DataFrame, Error> {
        let Some(format) = self.format.take() else {
            return Err(Error::Refused {
                class: None,
                message: "a reader needs .format(..), for example \"json\"".into(),
            });
        };
        let in_options = self.options.take("path");
        if self.path.is_some() && in_options.is_some() {
            return Err(Error::Refused {
                class: None,
                message: "the path is given twice: by .path(..) and as an option".into(),
            });
        }
        let request = SourceRequest {
            options: self.options,
            path: self.path.or(in_options),
            schema: self.schema,
            streaming: self.streaming,
            time_zone: self.session.time_zone(),
        };
        check_columns(&self.session, request.schema.as_ref())?;
        let plan = source_plan(&self.session.inner.formats, &format, None, request)?;
        Ok(DataFrame::new(self.session, plan))
    }
}

/// Refuses a schema that says a column twice.
pub(crate) fn check_columns(session: &Session, schema: Option<&SchemaRef>) -> Result<(), Error> {
    let fields = schema.map_or(&[][..], |schema| schema.fields());
    for (at, field) in fields.iter().enumerate() {
        let same = |other: &FieldRef| match session.is_case_sensitive() {
            true => other.name() == field.name(),
            false => other.name().to_lowercase() == field.name().to_lowercase(),
        };
        if fields[..at].iter().any(same) {
            return Err(Error::refused(
                "COLUMN_ALREADY_EXISTS",
                format!(
                    "The column `{}` already exists. Choose another name or rename the existing column.",
                    field.name().to_lowercase()
                ),
            ));
        }
    }
    Ok(())
}

/// The relation of all rows of a source, which may be that of a table.
pub(crate) fn source_plan(
    formats: &Formats,
    format: &str,
    table: Option<&str>,
    request: SourceRequest,
) -> Result<LogicalPlan, Error> {
    let streaming = request.streaming;
    let path = request.path.as_ref().map(|path| format!(" \"{path}\""));
    let description = match table.filter(|_| !streaming) {
        Some(table) => table.to_string(),
        None => format!("{format}{}", path.unwrap_or_default()),
    };
    let factory = formats.source(format)?.source(request)?;
    scan_plan(format, description, factory, streaming)
}

/// The frame of all rows of a source.
pub(crate) fn scan(
    session: &Session,
    name: &str,
    factory: Arc<dyn SourceFactory>,
    streaming: bool,
) -> Result<DataFrame, Error> {
    let plan = scan_plan(name, name.to_string(), factory, streaming)?;
    Ok(DataFrame::new(session.clone(), plan))
}

fn scan_plan(
    name: &str,
    description: String,
    factory: Arc<dyn SourceFactory>,
    streaming: bool,
) -> Result<LogicalPlan, Error> {
    let source: Arc<dyn TableSource> = if streaming {
        Arc::new(StreamRelation {
            factory,
            description,
            clocked: false,
        })
    } else {
        Arc::new(DefaultTableSource::new(Arc::new(StaticRelation {
            factory,
            description,
        })))
    };
    LogicalPlanBuilder::scan(name.to_lowercase(), source, None)
        .and_then(LogicalPlanBuilder::build)
        .map_err(Error::run)
}
