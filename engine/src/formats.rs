//! Connectors by format name. The engine names none of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use crate::error::Error;
use crate::sink::SinkFormat;
use crate::source::SourceFormat;

/// Draws the first `rows` rows as a table, cells cut to `width` characters (0: not cut), timestamps in `time_zone`.
pub type DrawTable = fn(
    &Schema,
    &[RecordBatch],
    rows: usize,
    width: usize,
    time_zone: &str,
) -> Result<String, ArrowError>;

/// The source and sink formats a session knows, and how it draws tables.
#[derive(Clone, Default)]
pub struct Formats {
    draw: Option<DrawTable>,
    sources: BTreeMap<String, Arc<dyn SourceFormat>>,
    sinks: BTreeMap<String, Arc<dyn SinkFormat>>,
}

impl Formats {
    /// Adds a source format, or replaces the one of that name.
    pub fn add_source(&mut self, name: &str, format: Arc<dyn SourceFormat>) {
        self.sources.insert(name.to_lowercase(), format);
    }

    /// Adds a sink format, or replaces the one of that name.
    pub fn add_sink(&mut self, name: &str, format: Arc<dyn SinkFormat>) {
        self.sinks.insert(name.to_lowercase(), format);
    }

    /// What `DataFrame::show` draws with.
    pub fn set_draw(&mut self, draw: DrawTable) {
        self.draw = Some(draw);
    }

    pub(crate) fn draw(&self) -> Result<DrawTable, Error> {
        self.draw.ok_or_else(|| Error::Refused {
            class: None,
            message: "this session was started without a way to draw tables".into(),
        })
    }

    pub(crate) fn source(&self, name: &str) -> Result<&Arc<dyn SourceFormat>, Error> {
        self.sources
            .get(&name.to_lowercase())
            .ok_or_else(|| unknown("source", name, self.sources.keys()))
    }

    pub(crate) fn sink(&self, name: &str) -> Result<&Arc<dyn SinkFormat>, Error> {
        self.sinks
            .get(&name.to_lowercase())
            .ok_or_else(|| unknown("sink", name, self.sinks.keys()))
    }
}

fn unknown<'a>(kind: &str, name: &str, known: impl Iterator<Item = &'a String>) -> Error {
    let known: Vec<&str> = known.map(String::as_str).collect();
    Error::refused(
        "DATA_SOURCE_NOT_FOUND",
        format!(
            "there is no {kind} format \"{name}\"; there are {}",
            known.join(", ")
        ),
    )
}
