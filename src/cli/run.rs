//! `highwater run FILE.sql`.
//!
//! Statements run in order. One that is wrong ends the program, after the queries that run have committed what they
//! have in flight. A query that the world fails (a full disk, a row that cannot be computed) is told, and the others go
//! on: the program ends when all have ended.

use std::path::Path;

use crossbeam_channel::{Sender, unbounded};
use highwater::{DataFrame, Error, Outcome, Session, SessionBuilder, StreamingQuery};
use highwater_query::Statement;

use super::file::SqlFile;
use super::log::Watch;
use super::signals::{Stopping, stop_all};
use super::{Failure, print, say};

/// How many rows of a plain SELECT are printed.
const ROWS_MAX: usize = 1_000;

/// A query has ended: its name, and what it failed of.
type Ended = Result<(), Error>;

/// Runs a file.
pub(super) fn run(path: &Path, builder: Result<SessionBuilder, Error>) -> Result<(), Failure> {
    let stopping = Stopping::listen()?;
    let builder = builder.map_err(|error| told(&error, Failure::Wrong))?;
    run_file(&SqlFile::read(path)?, builder, &stopping)
}

/// The session that the flags ask for.
pub(super) fn session(builder: SessionBuilder, stopping: &Stopping) -> Result<Session, Failure> {
    let session = Session::start(builder).map_err(|error| told(&error, failure_of(&error)))?;
    stopping.begun(&session);
    Ok(session)
}

/// Runs the statements of a file.
pub(super) fn run_file(
    file: &SqlFile,
    builder: SessionBuilder,
    stopping: &Stopping,
) -> Result<(), Failure> {
    let session = session(builder, stopping)?;
    let watch = Watch::start(&session, writes_to_console(file));
    let ended = statements_and_queries(file, &session, stopping);
    drop(watch);
    session.close();
    ended
}

fn writes_to_console(file: &SqlFile) -> bool {
    file.statements.iter().any(|(_, statement)| {
        matches!(statement, Statement::CreateStreamingTable { format, .. } if format.eq_ignore_ascii_case("console"))
    })
}

fn statements_and_queries(
    file: &SqlFile,
    session: &Session,
    stopping: &Stopping,
) -> Result<(), Failure> {
    let (sender, ended) = unbounded();
    let mut failure = None;
    let mut running = 0usize;
    for (statement, parsed) in &file.statements {
        if stopping.is_asked() {
            break;
        }
        let outcome = session.execute(&statement.text).and_then(|outcome| {
            match outcome {
                Outcome::Rows(frame) => stopping.while_answering(|| answer(session, &frame))?,
                Outcome::Started(query) => {
                    running += 1;
                    tell_when_ended(query, sender.clone());
                }
                Outcome::Done => {}
            }
            Ok(())
        });
        let Err(error) = outcome else { continue };
        file.failed(statement, &error);
        if !goes_on(parsed, &error) {
            stop_all(session);
            return Err(failure_of(&error));
        }
        failure = Some(Failure::Query);
    }
    if stopping.is_asked() {
        // One may have been started while the others were stopped.
        stop_all(session);
    }
    drop(sender);
    while running > 0 {
        let Ok(end) = ended.recv() else { break };
        running -= 1;
        if let Err(error) = end {
            failure = Some(told(&error, Failure::Query));
        }
    }
    failure.map_or(Ok(()), Err)
}

pub(super) fn told(error: &Error, failure: Failure) -> Failure {
    say(&format!("{error:?}"));
    failure
}

/// Prints the rows of a static frame.
pub(super) fn answer(session: &Session, frame: &DataFrame) -> Result<(), Error> {
    if frame.schema().fields().is_empty() || !session.is_first_process() {
        return Ok(());
    }
    print(&frame.show_text(ROWS_MAX, 0)?)?;
    Ok(())
}

fn tell_when_ended(query: StreamingQuery, ended: Sender<Ended>) {
    std::thread::spawn(move || {
        let name = query.name().unwrap_or(query.id());
        tracing::info!(query = name, "started");
        let end = query.await_termination();
        let committed = query.committed();
        let (epochs, rows) = (committed.epochs, committed.rows);
        match &end {
            Ok(()) => tracing::info!(query = name, epochs, rows, "ended"),
            Err(error) => tracing::error!(query = name, epochs, rows, "failed: {error:?}"),
        }
        let _ = ended.send(end);
    });
}

/// True if what failed is a query and nothing depends on it.
fn goes_on(statement: &Statement, error: &Error) -> bool {
    let is_query = matches!(
        statement,
        Statement::Query(_) | Statement::CreateStreamingTable { .. }
    );
    is_query && failure_of(error) == Failure::Query && !matches!(error, Error::SessionEnded(_))
}

/// Whether the user or the world is to blame.
pub(super) fn failure_of(error: &Error) -> Failure {
    match error.unplaced() {
        Error::Query(_) | Error::Refused { .. } | Error::Option(_) => Failure::Wrong,
        Error::Format(highwater::source::FormatError::Outside { .. }) => Failure::Query,
        Error::Format(_) => Failure::Wrong,
        _ => Failure::Query,
    }
}
