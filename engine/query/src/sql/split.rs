//! A file of statements to its statements.

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens;
use crate::error::{Place, QueryError};

/// One statement of a longer text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementText {
    /// From its first word up to its semicolon.
    pub text: String,
    /// Where its first word stands in the longer text.
    pub place: Place,
    /// True if a semicolon ends it, not the end of the text.
    pub ended: bool,
}

impl StatementText {
    /// Where a place of the statement is in the longer text.
    pub fn place_of(&self, inner: Place) -> Place {
        match inner.line {
            1 => Place {
                line: self.place.line,
                column: self.place.column + inner.column - 1,
            },
            line => Place {
                line: self.place.line + line - 1,
                column: inner.column,
            },
        }
    }
}

/// The statements of a text, cut at semicolons that stand in no string, name or comment.
pub fn split_statements(sql: &str) -> Result<Vec<StatementText>, QueryError> {
    let tokens = tokens::tokenize(sql)?;
    let offset = tokens::Offsets::new(sql);
    let mut statements = Vec::new();
    let mut first: Option<&TokenWithSpan> = None;
    let mut cut = |first: &mut Option<&TokenWithSpan>, end: usize, ended: bool| {
        let Some(token) = first.take() else { return };
        statements.push(StatementText {
            text: sql[offset.byte(token.span.start)..end]
                .trim_end()
                .to_string(),
            place: Place {
                line: token.span.start.line,
                column: token.span.start.column,
            },
            ended,
        });
    };
    for token in &tokens {
        match token.token {
            Token::SemiColon => cut(&mut first, offset.byte(token.span.start), true),
            Token::Whitespace(_) | Token::EOF => {}
            _ => first = first.or(Some(token)),
        }
    }
    cut(&mut first, sql.len(), false);
    Ok(statements)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, expected: &[(&str, u64, u64)]) {
        let statements = split_statements(sql).expect("cuts");
        let found: Vec<_> = statements
            .iter()
            .map(|s| (s.text.as_str(), s.place.line, s.place.column))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn statements_are_cut_at_semicolons_outside_of_text() {
        check(
            "select 'ä;b'; -- a; comment\n select `x;y`\nfrom t ;\n;/* ; */",
            &[("select 'ä;b'", 1, 1), ("select `x;y`\nfrom t", 2, 2)],
        );
    }

    #[test]
    fn lines_may_end_as_on_windows() {
        check(
            "-- one\r\nselect 1;\r\n\r\n  select\r\n2",
            &[("select 1", 2, 1), ("select\r\n2", 4, 3)],
        );
        check("", &[]);
        check(" ; ;\n-- nothing", &[]);
    }

    #[test]
    fn places_are_those_of_the_whole_text() {
        let statements = split_statements("select 1;\n  select a\n   from t").expect("cuts");
        let place = |line, column| Place { line, column };
        assert_eq!(statements[1].place_of(place(1, 8)), place(2, 10));
        assert_eq!(statements[1].place_of(place(2, 9)), place(3, 9));
    }
}
