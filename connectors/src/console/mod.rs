//! Prints the rows of each epoch as a table; for trying things out.
//!
//! Commit: idempotent while the process lives. A restarted query may print its last epochs again: a terminal does
//! not tell what it has shown.

mod show;
mod sink;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use highwater_engine::sink::{SinkFactory, SinkFormat, SinkRequest};
use highwater_engine::source::FormatError;

pub use show::{Show, show};
pub use sink::ConsoleError;

use highwater_text::options::{flag_or, invalid};
use highwater_text::time::Zone;
use sink::ConsoleFactory;

/// Where tables go.
pub type Output = Arc<Mutex<dyn Write + Send>>;

/// The formats that print, to standard output.
pub fn sinks() -> Vec<(&'static str, Arc<dyn SinkFormat>)> {
    vec![("console", Arc::new(ConsoleFormat::stdout()))]
}

/// The format "console".
pub struct ConsoleFormat {
    output: Output,
}

impl ConsoleFormat {
    /// Prints to standard output.
    pub fn stdout() -> Self {
        ConsoleFormat::to(Arc::new(Mutex::new(io::stdout())))
    }

    /// Prints to `output`.
    pub fn to(output: Output) -> Self {
        ConsoleFormat { output }
    }
}

impl SinkFormat for ConsoleFormat {
    fn sink(&self, request: SinkRequest) -> Result<Arc<dyn SinkFactory>, FormatError> {
        let owner = "the console sink";
        let options = &request.options;
        options.only(owner, &["numRows", "truncate"], &[])?;
        if !request.partition_by.is_empty() {
            return Err(FormatError::Invalid {
                message: format!("{owner} has no partitions: remove .partition_by(..)"),
                class: None,
            });
        }
        let defaults = Show::default();
        // Spark takes a flag; a number of characters is ours, as `show` takes one.
        let truncate = match options
            .get("truncate")
            .map(|text| text.trim().parse::<usize>())
        {
            Some(Ok(0)) => None,
            Some(Ok(chars_max)) => Some(chars_max),
            _ => match flag_or(options, owner, "truncate", true)? {
                true => defaults.truncate,
                false => None,
            },
        };
        let zone = Zone::parse(&request.time_zone)
            .ok_or_else(|| invalid(owner, "timeZone", &request.time_zone, "it is no time zone"))?;
        let rows_max = match options.get("numRows") {
            None => defaults.rows_max,
            Some(text) => text
                .trim()
                .parse()
                .map_err(|_| invalid(owner, "numRows", text, "it is a whole number"))?,
        };
        let show = Show {
            rows_max,
            truncate,
            zone,
        };
        Ok(Arc::new(ConsoleFactory {
            show,
            schema: request.schema,
            output: Arc::clone(&self.output),
        }))
    }
}
