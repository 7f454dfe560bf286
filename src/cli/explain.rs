//! `highwater explain FILE.sql`.

use std::path::Path;

use highwater::Session;

use super::file::SqlFile;
use super::run::{failure_of, told};
use super::{Failure, Settings, print};

/// Prints how the queries of a file would run.
pub(super) fn explain(path: &Path, settings: &Settings) -> Result<(), Failure> {
    let file = SqlFile::read(path)?;
    let session =
        Session::start(settings.builder()).map_err(|error| told(&error, failure_of(&error)))?;
    for (statement, _) in &file.statements {
        match session.explain(&statement.text) {
            Ok(text) if text.is_empty() => {}
            Ok(text) => {
                let said = statement.text.split_whitespace().collect::<Vec<_>>();
                let said = said.join(" ");
                let head: String = said.chars().take(100).collect();
                let dots = if head.len() < said.len() { " .." } else { "" };
                let text = format!("-- line {}: {head}{dots}\n{text}", statement.place.line);
                if !print(&text).map_err(|error| told(&error, Failure::Query))? {
                    return Ok(());
                }
            }
            Err(error) => {
                file.failed(statement, &error);
                return Err(Failure::Wrong);
            }
        }
    }
    Ok(())
}
