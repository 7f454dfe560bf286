//! A SQL file: its statements, and errors told where they are in it.

use std::path::{Path, PathBuf};

use highwater::{Error, Place, QueryError, StatementText, split_statements};
use highwater_query::{Statement, parse_statement};

use super::{Failure, say};

/// A file of statements, all of which can be read.
pub(super) struct SqlFile {
    path: PathBuf,
    text: String,
    /// In order.
    pub(super) statements: Vec<(StatementText, Statement)>,
}

impl SqlFile {
    /// Reads a file; says what is wrong with it.
    pub(super) fn read(path: &Path) -> Result<SqlFile, Failure> {
        let unreadable = |why: String| {
            say(&format!(
                "could not read SQL file \"{}\": {why}",
                path.display()
            ));
            Failure::Wrong
        };
        let bytes = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
        SqlFile::parse(path, bytes)
    }

    /// Reads what stood in a file.
    pub(super) fn parse(path: &Path, bytes: Vec<u8>) -> Result<SqlFile, Failure> {
        let unreadable = |why: String| {
            say(&format!(
                "could not read SQL file \"{}\": {why}",
                path.display()
            ));
            Failure::Wrong
        };
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            unreadable(format!("it is not UTF-8 text (byte {at})"))
        })?;
        let text = match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.to_string(),
            None => text,
        };
        let mut file = SqlFile {
            path: path.to_path_buf(),
            text,
            statements: Vec::new(),
        };
        let wrong = |file: &SqlFile, error: &QueryError, place| {
            file.say(&query_error(error), place);
            Failure::Wrong
        };
        let statements =
            split_statements(&file.text).map_err(|error| wrong(&file, &error, error.place()))?;
        for statement in statements {
            let parsed = parse_statement(&statement.text)
                .map_err(|error| wrong(&file, &error, Some(place_of(&statement, &error))))?;
            file.statements.push((statement, parsed));
        }
        if file.statements.is_empty() {
            say(&format!(
                "SQL file \"{}\" has no statements",
                path.display()
            ));
            return Err(Failure::Wrong);
        }
        Ok(file)
    }

    /// Says that a statement failed, and where.
    pub(super) fn failed(&self, statement: &StatementText, error: &Error) {
        match error {
            Error::Query(error) => {
                self.say(&query_error(error), Some(place_of(statement, error)));
            }
            other => {
                let place = other
                    .place()
                    .map_or(statement.place, |inner| statement.place_of(inner));
                self.say(&format!("{:?}", other.unplaced()), Some(place));
            }
        }
    }

    fn say(&self, message: &str, place: Option<Place>) {
        let path = self.path.display();
        match place {
            Some(place) => {
                let Place { line, column } = place;
                let shown = shown(&self.text, place);
                say(&format!("{path}:{line}:{column}: {message}\n{shown}"));
            }
            None => say(&format!("{path}: {message}")),
        }
    }
}

/// Where an error of a statement is in the file: where it says; or, of what is missing, the statement's end.
fn place_of(statement: &StatementText, error: &QueryError) -> Place {
    let end = || Place {
        line: statement.text.lines().count().max(1) as u64,
        column: statement
            .text
            .lines()
            .last()
            .map_or(1, |line| line.chars().count() as u64 + 1),
    };
    match error.place() {
        Some(inner) => statement.place_of(inner),
        None if error.message().contains("end of input") => statement.place_of(end()),
        None => statement.place,
    }
}

/// Without the place, which is told otherwise.
fn query_error(error: &QueryError) -> String {
    match error.class() {
        Some(class) => format!("[{class}] {}", error.message()),
        None => error.message().to_string(),
    }
}

/// The line of `place`, and a caret below the character.
pub(super) fn shown(text: &str, place: Place) -> String {
    let line = text.lines().nth(place.line.saturating_sub(1) as usize);
    let line: Vec<char> = line.unwrap_or_default().chars().collect();
    let at = (place.column.saturating_sub(1) as usize).min(line.len());
    // A long line is cut on both sides.
    let from = at.saturating_sub(60);
    let to = line.len().min(from + 100);
    let cut: String = line[from..to]
        .iter()
        .map(|c| if c.is_whitespace() { ' ' } else { *c })
        .collect();
    let number = place.line.to_string();
    let pad = " ".repeat(number.len());
    format!(
        "{pad} |\n{number} | {cut}\n{pad} | {}^",
        " ".repeat(at - from)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, line: u64, column: u64, expected: &str) {
        assert_eq!(shown(text, Place { line, column }), expected);
    }

    #[test]
    fn a_caret_stands_below_the_character() {
        check("SELECT x\r\n FROM y", 2, 7, "  |\n2 |  FROM y\n  |       ^");
        check("\tä x", 1, 4, "  |\n1 |  ä x\n  |    ^");
        check("SELECT", 1, 99, "  |\n1 | SELECT\n  |       ^");
        check("", 3, 1, "  |\n3 | \n  | ^");
    }

    #[test]
    fn a_long_line_is_cut() {
        let text = "x".repeat(1000);
        let place = Place {
            line: 1,
            column: 500,
        };
        assert!(shown(&text, place).lines().all(|line| line.len() < 110));
    }
}
