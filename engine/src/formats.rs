//! Connectors by format name. The engine names none of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Error;
use crate::sink::SinkFormat;
use crate::source::SourceFormat;

/// The source and sink formats a session knows.
#[derive(Clone, Default)]
pub struct Formats {
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
