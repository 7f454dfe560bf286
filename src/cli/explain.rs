//! `highwater explain FILE.sql`.

use std::path::Path;

use highwater::Session;

use super::file::SqlFile;
use super::{Failure, print, say};

/// Prints how the queries of a file would run.
pub(super) fn explain(path: &Path) -> Result<(), Failure> {
    let file = SqlFile::read(path)?;
    let session = Session::new().map_err(|error| {
        say(&format!("{error:?}"));
        Failure::Query
    })?;
    for (statement, _) in &file.statements {
        match session.explain(&statement.text) {
            Ok(text) if text.is_empty() => {}
            Ok(text) => {
                let said = statement.text.split_whitespace().collect::<Vec<_>>();
                let said = said.join(" ");
                let head: String = said.chars().take(100).collect();
                let dots = if head.len() < said.len() { " .." } else { "" };
                if !print(&format!(
                    "-- line {}: {head}{dots}\n{text}",
                    statement.place.line
                )) {
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
