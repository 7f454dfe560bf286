//! SQL statements: what each of them does to a session.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use highwater_query::{
    NamedKind, Part, Plan, Show, Statement, parse_statement, part_place, type_text,
};

use crate::catalog::{Named, NamedSource, Names, no_rows};
use crate::error::Error;
use crate::frame::DataFrame;
use crate::options::{OptionError, Options};
use crate::query::StreamingQuery;
use crate::reader::{DataReader, check_columns};
use crate::session::{Session, read};
use crate::sink::OutputMode;
use crate::source::{FormatError, SourceRequest};
use crate::trigger::Trigger;
use crate::writer::StreamWriter;

/// What is done about a name that is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    Refuse,
    Replace,
    Keep,
}

fn taken(replace: bool, if_not_exists: bool) -> Result<Taken, Error> {
    match (replace, if_not_exists) {
        (true, true) => Err(Error::Refused {
            class: None,
            message: "OR REPLACE and IF NOT EXISTS exclude each other".into(),
        }),
        (true, false) => Ok(Taken::Replace),
        (false, true) => Ok(Taken::Keep),
        (false, false) => Ok(Taken::Refuse),
    }
}

/// What came of a statement.
pub enum Outcome {
    /// An answer, or a query that can be run.
    Rows(DataFrame),
    /// A query that runs.
    Started(StreamingQuery),
    /// Nothing to be seen.
    Done,
}

impl Session {
    /// Runs a statement, or makes a frame of a query. A statement that answers something (`SHOW QUERIES`) gives it as a
    /// frame, too; others give a frame without columns.
    pub fn sql(&self, text: &str) -> Result<DataFrame, Error> {
        Ok(match self.execute(text)? {
            Outcome::Rows(frame) => frame,
            Outcome::Started(_) | Outcome::Done => self.nothing(),
        })
    }

    /// Runs a statement, and tells what came of it.
    pub fn execute(&self, text: &str) -> Result<Outcome, Error> {
        let statement = parse_statement(text)?;
        let parts = Parts::of(&statement);
        self.statement(statement)
            .map_err(|error| parts.placed(error, text))
    }

    /// What a statement would do, as text. A table, view or setting is made, so that later statements can be explained;
    /// a streaming table gets its name, but its query is not started.
    pub fn explain(&self, text: &str) -> Result<String, Error> {
        let statement = match parse_statement(text)? {
            Statement::Explain(inner) => *inner,
            statement => statement,
        };
        let parts = Parts::of(&statement);
        self.explain_statement(statement)
            .map_err(|error| parts.placed(error, text))
    }

    fn explain_statement(&self, statement: Statement) -> Result<String, Error> {
        match statement {
            Statement::Query(_) => self.explained(&statement),
            Statement::CreateStreamingTable { .. } => {
                let text = self.explained(&statement)?;
                if let Some(table) = self.streaming_table(statement)? {
                    table.put(self)?;
                    table.put_late_rows(self)?;
                }
                Ok(text)
            }
            Statement::StopQuery { .. } | Statement::Show(_) | Statement::Describe(_) => {
                Ok(String::new())
            }
            Statement::Drop {
                kind: NamedKind::StreamingTable,
                ref name,
                ..
            } => {
                self.inner.views.remove(name);
                Ok(String::new())
            }
            other => self.statement(other).map(|_| String::new()),
        }
    }

    fn statement(&self, statement: Statement) -> Result<Outcome, Error> {
        match statement {
            Statement::Query(plan) => self.frame(&plan).map(Outcome::Rows),
            Statement::CreateView {
                name,
                replace,
                if_not_exists,
                plan,
            } => {
                let taken = taken(replace, if_not_exists)?;
                if self.is_free(&name, NamedKind::View, taken)? {
                    self.check_view(&name, &plan)?;
                    self.put(&name, NamedKind::View, Named::View(Arc::new(plan)));
                }
                Ok(Outcome::Done)
            }
            Statement::CreateSource {
                name,
                replace,
                streaming,
                schema,
                format,
                options,
            } => {
                let taken = taken(replace, false)?;
                if self.is_free(&name, NamedKind::View, taken)? {
                    let mut reader = DataReader::new(self.clone(), streaming).format(&format);
                    if let Some(schema) = schema {
                        reader = reader.arrow_schema(schema);
                    }
                    let frame = reader.options(options).load()?;
                    let rows = Named::Rows(Arc::clone(frame.plan()));
                    self.put(&name, NamedKind::View, rows);
                }
                Ok(Outcome::Done)
            }
            Statement::CreateTable {
                name,
                replace,
                if_not_exists,
                schema,
                format,
                options,
            } => {
                let taken = taken(replace, if_not_exists)?;
                if self.is_free(&name, NamedKind::Table, taken)? {
                    let request = self.source_request(schema, options)?;
                    let source = self.table_source(&name, format, request)?;
                    self.put(&name, NamedKind::Table, Named::Source(Arc::new(source)));
                }
                Ok(Outcome::Done)
            }
            Statement::CreateStreamingTable { .. } => {
                Ok(match self.streaming_table(statement)? {
                    Some(table) => Outcome::Started(table.start(self)?),
                    None => Outcome::Done,
                })
            }
            Statement::Drop {
                kind,
                name,
                if_exists,
            } => self.drop_named(kind, &name, if_exists),
            Statement::Explain(inner) => {
                let text = self.explained(&inner)?;
                self.answer(&[("plan", text.lines().map(str::to_string).collect())])
            }
            Statement::Describe(plan) => {
                let schema = self.frame(&plan)?.schema();
                let names = schema.fields().iter().map(|f| f.name().clone()).collect();
                let types = schema
                    .fields()
                    .iter()
                    .map(|f| type_text(f.data_type()))
                    .collect();
                self.answer(&[("col_name", names), ("data_type", types)])
            }
            Statement::Show(Show::Queries) => self.show_queries(),
            Statement::Show(Show::Tables) => {
                let (names, kinds) = self.inner.views.list().into_iter().unzip();
                self.answer(&[("name", names), ("kind", kinds)])
            }
            Statement::StopQuery { name } => {
                let query = self.query_named(&name)?;
                query.stop()?;
                Ok(Outcome::Done)
            }
            Statement::Set { key, value } => self.setting(key, value),
        }
    }

    /// True if `name` can be given to something new; false if what has it is kept.
    fn is_free(&self, name: &str, kind: NamedKind, taken: Taken) -> Result<bool, Error> {
        let class = match kind {
            NamedKind::View => "TEMP_TABLE_OR_VIEW_ALREADY_EXISTS",
            _ => "TABLE_OR_VIEW_ALREADY_EXISTS",
        };
        match (self.inner.views.kind(name), taken) {
            (None, _) => Ok(true),
            (Some(NamedKind::StreamingTable), Taken::Replace) => Err(Error::refused(
                class,
                format!("a query writes streaming table \"{name}\"; drop it first"),
            )),
            (Some(_), Taken::Replace) => Ok(true),
            (Some(_), Taken::Keep) => Ok(false),
            (Some(found), Taken::Refuse) => {
                let fix = match kind {
                    NamedKind::StreamingTable => "choose another name, or drop it first",
                    _ => "use CREATE OR REPLACE, or drop it first",
                };
                Err(Error::refused(
                    class,
                    format!("there is a {found} \"{name}\" already; {fix}"),
                ))
            }
        }
    }

    fn put(&self, name: &str, kind: NamedKind, named: Named) {
        self.inner.views.put(name, kind, named);
    }

    fn check_view(&self, name: &str, plan: &Plan) -> Result<(), Error> {
        let functions = read(&self.inner.functions);
        let conf = read(&self.inner.conf);
        Ok(Names::new(&self.inner.views, &functions, &conf).check_view(name, plan)?)
    }

    fn source_request(
        &self,
        schema: Option<arrow::datatypes::SchemaRef>,
        given: Vec<(String, String)>,
    ) -> Result<SourceRequest, Error> {
        check_columns(self, schema.as_ref())?;
        let mut options = Options::default();
        for (name, value) in given {
            options.set(&name, value);
        }
        let path = options.take("path");
        Ok(SourceRequest {
            options,
            path,
            schema,
            streaming: false,
            time_zone: self.time_zone(),
        })
    }

    /// A table: checked in the way it will most likely be read. Without columns, those of its rows today are its columns,
    /// as a stream needs to know them.
    fn table_source(
        &self,
        name: &str,
        format: String,
        mut request: SourceRequest,
    ) -> Result<NamedSource, Error> {
        let formats = &self.inner.formats;
        let source = |request| NamedSource::new(name, formats.clone(), format.clone(), request);
        let table = source(request.clone());
        let Err(error) = table.plan(true) else {
            return Ok(table);
        };
        // Not a stream, or not without columns: it must do as a batch.
        let plan = match table.plan(false) {
            Ok(plan) => plan,
            // That a stream needs columns says nothing about why they could not be found.
            Err(why) if error.class().as_deref() == Some("_LEGACY_ERROR_TEMP_2048") => {
                return Err(why);
            }
            Err(_) => return Err(error),
        };
        if request.schema.is_some() {
            return Ok(table);
        }
        request.schema = Some(Arc::new(plan.schema().as_arrow().clone()));
        let with_columns = source(request);
        Ok(match with_columns.plan(true) {
            Ok(_) => with_columns,
            Err(_) => table,
        })
    }

    /// What `CREATE STREAMING TABLE` asks for; nothing if there is one already and that is fine.
    fn streaming_table(&self, statement: Statement) -> Result<Option<StreamingTable>, Error> {
        let Statement::CreateStreamingTable {
            name,
            if_not_exists,
            format,
            options,
            partition_by,
            plan,
        } = statement
        else {
            return Ok(None);
        };
        let taken = taken(false, if_not_exists)?;
        if !self.is_free(&name, NamedKind::StreamingTable, taken)? {
            return Ok(None);
        }
        let frame = self.frame(&plan)?;
        if !frame.is_streaming() {
            return Err(Error::Refused {
                class: None,
                message: format!(
                    "streaming table \"{name}\" reads no stream; write FROM STREAM before the table that grows"
                ),
            });
        }
        let owner = format!("streaming table \"{name}\"");
        let mut given = Options::default();
        for (option, value) in options {
            given.set(&option, value);
        }
        let invalid =
            |option: &str, value: String, reason: String| crate::options::OptionError::Invalid {
                name: option.into(),
                owner: owner.clone(),
                value,
                reason,
            };
        let mode = match given.take("outputMode") {
            None => OutputMode::Append,
            Some(text) => OutputMode::named(&text).ok_or_else(|| {
                let reason = "it is append, update, complete or changes".into();
                invalid("outputMode", text, reason)
            })?,
        };
        let trigger = match given.take("trigger") {
            None => Trigger::Default,
            Some(text) => {
                Trigger::parse(&text).map_err(|e| invalid("trigger", text, e.to_string()))?
            }
        };
        if let Some(path) = given.get("path")
            && let Some(other) = self.inner.views.written_to(path)
        {
            return Err(Error::Refused {
                class: None,
                message: format!(
                    "{owner} would write to \"{path}\", which holds the rows of streaming table \"{other}\"; write elsewhere"
                ),
            });
        }
        let query = given.take("queryName").unwrap_or_else(|| name.clone());
        Ok(Some(StreamingTable {
            name,
            query,
            format,
            options: given,
            partition_by,
            mode,
            trigger,
            plan,
            frame,
        }))
    }

    fn drop_named(&self, kind: NamedKind, name: &str, if_exists: bool) -> Result<Outcome, Error> {
        match self.inner.views.kind(name) {
            None if if_exists => return Ok(Outcome::Done),
            None => {
                return Err(Error::refused(
                    "TABLE_OR_VIEW_NOT_FOUND",
                    format!("there is no {kind} \"{name}\""),
                ));
            }
            Some(found) if found != kind => {
                return Err(Error::refused(
                    "WRONG_COMMAND_FOR_OBJECT_TYPE",
                    format!(
                        "\"{name}\" is a {found}; use DROP {}",
                        found.to_string().to_uppercase()
                    ),
                ));
            }
            Some(NamedKind::StreamingTable) => {
                let writer = self.inner.views.query_of(name);
                let writes = |query: &StreamingQuery| {
                    Some(query.name().unwrap_or(query.id())) == writer.as_deref()
                };
                if let Some(query) = self.streams().active().into_iter().find(writes) {
                    query.stop()?;
                }
            }
            Some(_) => {}
        }
        self.inner.views.remove(name);
        Ok(Outcome::Done)
    }

    fn query_named(&self, name: &str) -> Result<StreamingQuery, Error> {
        let active = self.streams().active();
        let matches = |query: &&StreamingQuery| {
            query.id() == name || query.name().is_some_and(|q| q.eq_ignore_ascii_case(name))
        };
        active.iter().find(matches).cloned().ok_or_else(|| {
            let names: Vec<String> = active
                .iter()
                .map(|query| format!("\"{}\"", query.name().unwrap_or(query.id())))
                .collect();
            let running = match names.is_empty() {
                true => "none is running".to_string(),
                false => format!("running are {}", names.join(", ")),
            };
            Error::Refused {
                class: None,
                message: format!("there is no query \"{name}\"; {running}"),
            }
        })
    }

    fn show_queries(&self) -> Result<Outcome, Error> {
        let queries = self.streams().active();
        let column = |text: fn(&StreamingQuery) -> String| queries.iter().map(text).collect();
        self.answer(&[
            ("name", column(|q| q.name().unwrap_or_default().to_string())),
            ("id", column(|q| q.id().to_string())),
            ("epochs", column(|q| q.committed().epochs.to_string())),
            ("rows", column(|q| q.committed().rows.to_string())),
        ])
    }

    /// What a statement would run, as text.
    fn explained(&self, statement: &Statement) -> Result<String, Error> {
        match statement {
            Statement::Query(plan) => self.frame(plan)?.explain(),
            Statement::CreateStreamingTable { .. } => {
                match self.streaming_table(statement.clone())? {
                    Some(table) => table.explain(self),
                    None => Ok("nothing: there is such a table already".into()),
                }
            }
            Statement::Explain(inner) => self.explained(inner),
            _ => Err(Error::Refused {
                class: None,
                message: "only a query and CREATE STREAMING TABLE can be explained".into(),
            }),
        }
    }

    /// A frame of text columns.
    pub(crate) fn answer(&self, columns: &[(&str, Vec<String>)]) -> Result<Outcome, Error> {
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, _)| Field::new(*name, DataType::Utf8, false))
            .collect();
        let arrays = columns
            .iter()
            .map(|(_, rows)| Arc::new(StringArray::from_iter_values(rows)) as ArrayRef)
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).map_err(Error::run)?;
        self.create_dataframe(schema, vec![batch])
            .map(Outcome::Rows)
    }
}

/// `CREATE STREAMING TABLE`, checked as far as can be without starting it.
struct StreamingTable {
    name: String,
    query: String,
    format: String,
    options: Options,
    partition_by: Vec<String>,
    mode: OutputMode,
    trigger: Trigger,
    /// The query as written, and resolved.
    plan: Plan,
    frame: DataFrame,
}

impl StreamingTable {
    fn writer(&self) -> StreamWriter {
        let mut writer = self
            .frame
            .write_stream()
            .format(&self.format)
            .output_mode(self.mode)
            .trigger(self.trigger)
            .query_name(&self.query)
            .partition_by(&self.partition_by);
        for (name, value) in self.options.iter() {
            writer = writer.option(name, value);
        }
        writer
    }

    fn start(self, session: &Session) -> Result<StreamingQuery, Error> {
        let started = self.writer().start();
        let query = started.map_err(|error| self.placed(error, session))?;
        self.put(session)?;
        Ok(query)
    }

    /// Gives what the query writes its name, for other queries to read.
    fn put(&self, session: &Session) -> Result<(), Error> {
        let views = &session.inner.views;
        let schema = self.mode.columns(self.frame.schema())?;
        if self.format.eq_ignore_ascii_case("memory") {
            let nothing = || no_rows(&self.name, &schema).map(Arc::new);
            let rows = match views.rows(&self.query) {
                Some(rows) => rows,
                None => Named::Rows(nothing()?), // explained, and not started
            };
            views.put_written(&self.name, rows, &self.query);
            return Ok(());
        }
        let source = self.options.get("path").map(|path| {
            let schema = Some(schema);
            let request = SourceRequest {
                options: Options::default(),
                path: Some(path.to_string()),
                schema,
                streaming: false,
                time_zone: session.time_zone(),
            };
            let formats = session.inner.formats.clone();
            Arc::new(NamedSource::new(
                &self.name,
                formats,
                self.format.clone(),
                request,
            ))
        });
        let readable = source.filter(|_| session.inner.formats.source(&self.format).is_ok());
        views.put_written(&self.name, Named::Output(readable), &self.query);
        Ok(())
    }

    /// Gives the table for late rows its name, without rows.
    fn put_late_rows(&self, session: &Session) -> Result<(), Error> {
        if let Some(name) = self.options.get("lateRows") {
            let rows = no_rows(name, &self.frame.late_schema(self.mode)?)?;
            let rows = Named::Rows(Arc::new(rows));
            session.inner.views.put_written(name, rows, &self.query);
        }
        Ok(())
    }

    /// The refusal of the query, told where the part of it stands that cannot be answered.
    fn placed(&self, error: Error, session: &Session) -> Error {
        let Error::Refused { class, message } = &error else {
            return error;
        };
        let late_rows = self.options.get("lateRows").is_some();
        let refusal = |plan: &Plan| {
            let frame = session.frame(plan).ok()?;
            frame.explain_as(self.mode, late_rows).err()
        };
        // Names in the rest of a sentence are those of one part or another.
        let begins = |text: &str| text.split([':', '(', '`']).next().map(str::to_string);
        let is_wrong = |plan: &Plan| {
            refusal(plan).is_some_and(|refused| {
                refused.class().as_deref() == *class
                    && begins(&refused.message()) == begins(message)
            })
        };
        match is_wrong(&self.plan) {
            true => {
                let place = self.plan.place_of_least(&is_wrong);
                error.at(place)
            }
            false => error,
        }
    }

    fn explain(&self, session: &Session) -> Result<String, Error> {
        let mut text = format!(
            "streaming table \"{}\"\n  sink: {}{}\n  output mode: {}\n  trigger: {}\n",
            self.name,
            self.format,
            self.options
                .get("path")
                .map(|path| format!(" \"{path}\""))
                .unwrap_or_default(),
            self.mode,
            self.trigger,
        );
        if let Some(dir) = self.options.get("checkpointLocation") {
            text.push_str(&format!("  checkpoint: \"{dir}\"\n"));
        }
        let late = self.options.get("lateRows");
        if let Some(table) = late {
            text.push_str(&format!("  late rows to: \"{table}\"\n"));
        }
        let plan = self.frame.explain_as(self.mode, late.is_some());
        text.push_str(&plan.map_err(|error| self.placed(error, session))?);
        Ok(text)
    }
}

/// What of a statement an error may be about.
struct Parts {
    /// It is about something that has a name.
    named: bool,
    partition_by: Vec<String>,
}

impl Parts {
    fn of(statement: &Statement) -> Self {
        let partition_by = match statement {
            Statement::CreateStreamingTable { partition_by, .. } => partition_by.clone(),
            Statement::Explain(inner) => return Parts::of(inner),
            _ => Vec::new(),
        };
        let named = !matches!(statement, Statement::Query(_) | Statement::Show(_));
        Parts {
            named,
            partition_by,
        }
    }

    /// The error of the statement `text`, told where the part stands that it is about.
    fn placed(&self, error: Error, text: &str) -> Error {
        let of_partition = |message: &str| {
            let mut columns = self.partition_by.iter();
            columns
                .find(|name| message.contains(&format!("column \"{name}\"")))
                .and_then(|name| part_place(text, Part::PartitionColumn(name)))
        };
        let place = match &error {
            Error::Option(option) | Error::Format(FormatError::Option(option)) => match option {
                OptionError::Missing { .. } => part_place(text, Part::Format),
                given => part_place(text, Part::Option(given.name())),
            },
            Error::Refused { class, .. } if *class == Some("DATA_SOURCE_NOT_FOUND") => {
                part_place(text, Part::Format)
            }
            Error::Format(told) => of_partition(&told.to_string())
                .or_else(|| part_place(text, Part::Option("path")))
                .or_else(|| part_place(text, Part::Format)),
            Error::Refused { message, .. } => {
                let place = of_partition(message);
                place.or_else(|| match self.named {
                    true => part_place(text, Part::Name),
                    false => None,
                })
            }
            _ => None,
        };
        error.at(place)
    }
}
