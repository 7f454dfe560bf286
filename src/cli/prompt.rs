//! `highwater sql`: statements typed one after the other, with history. Queries run beside the prompt and are stopped,
//! after the epochs they have in flight, when it ends.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use highwater::{Error, Outcome, Session, SessionBuilder, split_statements};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::file::SqlFile;
use super::run::{self, answer};
use super::signals::{Stopping, stop_all};
use super::{Failure, print, say};

const GREETING: &str = "\
Statements end with a semicolon. SHOW QUERIES lists what runs, STOP QUERY name stops it; Ctrl-D stops all and leaves.";

/// Reads statements from a terminal, or all of standard input.
pub(super) fn prompt(builder: SessionBuilder) -> Result<(), Failure> {
    let stopping = Stopping::listen()?;
    if !std::io::stdin().is_terminal() {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map_err(|error| {
            say(&format!("could not read standard input: {error}"));
            Failure::Wrong
        })?;
        let file = SqlFile::parse(std::path::Path::new("<stdin>"), bytes)?;
        return run::run_file(&file, builder, &stopping);
    }
    let session = run::session(builder, &stopping)?;
    let failed = Arc::new(AtomicBool::new(false));
    let mut editor = DefaultEditor::new().map_err(|error| {
        say(&format!("could not use the terminal: {error}"));
        Failure::Query
    })?;
    let history = history();
    if let Some(path) = &history {
        // A first session has none.
        let _ = editor.load_history(path);
    }
    print(GREETING).map_err(|error| run::told(&error, Failure::Query))?;
    let mut text = String::new();
    loop {
        let mark = if text.is_empty() {
            "highwater> "
        } else {
            "        -> "
        };
        match editor.readline(mark) {
            Ok(line) if text.is_empty() && matches!(line.trim(), "quit" | "exit") => break,
            Ok(line) => {
                text.push_str(&line);
                text.push('\n');
            }
            Err(ReadlineError::Interrupted) => text.clear(),
            Err(_) => break,
        }
        if stopping.is_asked() {
            break;
        }
        if !is_whole(&text) {
            continue;
        }
        let statements = std::mem::take(&mut text);
        let _ = editor.add_history_entry(statements.trim());
        statements_of(&statements, &session, &stopping, &failed);
    }
    if let Some(path) = &history
        && let Err(error) = editor.save_history(path)
    {
        say(&format!(
            "could not write history \"{}\": {error}",
            path.display()
        ));
    }
    stop_all(&session);
    session.close();
    match failed.load(Ordering::SeqCst) {
        true => Err(Failure::Query),
        false => Ok(()),
    }
}

/// True if a text can be run: its last statement has its semicolon, or it cannot be read at all.
fn is_whole(text: &str) -> bool {
    match split_statements(text) {
        Ok(statements) => statements.last().is_some_and(|last| last.ended),
        // A string or a comment that goes on.
        Err(error) => {
            let message = error.message().to_lowercase();
            !message.contains("unterminated") && !message.contains("unexpected eof")
        }
    }
}

/// Runs what was typed, up to the first error.
fn statements_of(text: &str, session: &Session, stopping: &Stopping, failed: &Arc<AtomicBool>) {
    let Ok(file) = SqlFile::parse(std::path::Path::new("input"), text.as_bytes().to_vec()) else {
        return;
    };
    for (statement, _) in &file.statements {
        let done = session
            .execute(&statement.text)
            .and_then(|outcome| outcome_of(outcome, session, stopping, failed));
        if let Err(error) = done {
            file.failed(statement, &error);
            return;
        }
    }
}

/// Tells what came of a statement; `failed` is set when a query that it started fails.
fn outcome_of(
    outcome: Outcome,
    session: &Session,
    stopping: &Stopping,
    failed: &Arc<AtomicBool>,
) -> Result<(), Error> {
    match outcome {
        Outcome::Rows(frame) => stopping.while_answering(|| answer(session, &frame)),
        Outcome::Started(query) => {
            print(&format!(
                "query \"{}\" runs",
                query.name().unwrap_or(query.id())
            ))?;
            let failed = Arc::clone(failed);
            std::thread::spawn(move || {
                if let Err(error) = query.await_termination() {
                    failed.store(true, Ordering::SeqCst);
                    say(&format!("{error:?}"));
                }
            });
            Ok(())
        }
        Outcome::Done => {
            print("done")?;
            Ok(())
        }
    }
}

/// Where typed statements are kept: `HIGHWATER_HISTORY`, or a file among the user's other state.
fn history() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("HIGHWATER_HISTORY") {
        return Some(path.into());
    }
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?;
    let dir = state.join("highwater");
    std::fs::create_dir_all(&dir).ok()?;
    Some(dir.join("history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_whole_with_its_semicolon() {
        for (text, whole) in [
            ("SELECT 1;", true),
            ("SELECT 1", false),
            ("SELECT ';", false),
            ("SELECT 1; SELECT 2", false),
            ("SELECT /* ;", false),
            ("SELECT 1; -- then\n", true),
            ("", false),
        ] {
            assert_eq!(is_whole(text), whole, "{text}");
        }
    }
}
