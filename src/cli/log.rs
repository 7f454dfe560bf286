//! What the program says while it runs: one line that is refreshed on a terminal, else JSON, one object a line.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use highwater::{Session, StreamingQuery};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use super::{Failure, say};

/// The environment variable with the level: `warn`, or `info,highwater_engine=debug`.
const LEVEL: &str = "HIGHWATER_LOG";

/// How often a log tells what a query has done.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// How often the line is refreshed.
const LINE_EVERY: Duration = Duration::from_millis(500);

/// Starts the log.
pub(super) fn start() -> Result<(), Failure> {
    let terminal = std::io::stderr().is_terminal();
    let usual = if terminal {
        LevelFilter::WARN
    } else {
        LevelFilter::INFO
    };
    let levels = match std::env::var(LEVEL) {
        Ok(text) if !text.is_empty() => text.parse::<Targets>().map_err(|error| {
            say(&format!(
                "{LEVEL} cannot be \"{text}\": {error}; it is off, error, warn, info, debug or trace"
            ));
            Failure::Wrong
        })?,
        _ => Targets::new().with_default(usual),
    };
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let registry = tracing_subscriber::registry();
    let set = match terminal {
        true => tracing::subscriber::set_global_default(
            registry.with(log.compact().with_target(false).with_filter(levels)),
        ),
        false => {
            tracing::subscriber::set_global_default(registry.with(log.json().with_filter(levels)))
        }
    };
    set.expect("the program starts its log once");
    Ok(())
}

/// Tells in the background what queries do, until it is dropped.
pub(super) struct Watch {
    _end: Option<crossbeam_channel::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    /// Watches the queries of a session. `console`: some of them print on standard output.
    pub(super) fn start(session: &Session, console: bool) -> Watch {
        let terminal = std::io::stderr().is_terminal();
        // Tables that are printed tell enough, and a line would be torn between them.
        let silent = terminal && console && std::io::stdout().is_terminal();
        if silent || !session.is_first_process() {
            return Watch {
                _end: None,
                thread: None,
            };
        }
        let (end, ended) = crossbeam_channel::bounded::<()>(0);
        let session = session.clone();
        let watch = move || {
            let every = if terminal { LINE_EVERY } else { LOG_EVERY };
            let mut last = String::new();
            let mut read = BTreeMap::new();
            while ended.recv_timeout(every) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                let queries = session.streams().active();
                let lines = queries.iter().map(|query| {
                    let input_rows = query.committed().input_rows;
                    let before = read.insert(query.run_id().to_string(), input_rows);
                    let new = input_rows - before.unwrap_or(0);
                    line(query, new as f64 / every.as_secs_f64())
                });
                let said = lines.collect::<Vec<_>>().join("; ");
                if said == last {
                    continue;
                }
                if terminal {
                    let mut err = std::io::stderr().lock();
                    let _ = write!(err, "\r{said}\x1b[K").and_then(|()| err.flush());
                } else {
                    queries.iter().for_each(log);
                }
                last = said;
            }
            if terminal && !last.is_empty() {
                let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
            }
        };
        Watch {
            _end: Some(end),
            thread: std::thread::Builder::new()
                .name("highwater:watch".into())
                .spawn(watch)
                .ok(),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self._end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A query in a few words.
fn line(query: &StreamingQuery, rows_per_second: f64) -> String {
    let committed = query.committed();
    let name = query.name().unwrap_or(query.id());
    let mut text = format!(
        "{name}: {} epochs, {} rows in ({rows_per_second:.0}/s), {} rows out",
        committed.epochs, committed.input_rows, committed.rows
    );
    if let Some(progress) = query.last_progress()
        && let Some(watermark) = progress.event_time.get("watermark")
    {
        text.push_str(&format!(", watermark {watermark}"));
    }
    text
}

/// One event with the model's progress report as it is.
fn log(query: &StreamingQuery) {
    let committed = query.committed();
    let report = query.last_progress().map(|progress| progress.json());
    tracing::info!(
        query = query.name().unwrap_or(query.id()),
        epochs = committed.epochs,
        rows = committed.rows,
        input_rows = committed.input_rows,
        report,
        "progress"
    );
}
