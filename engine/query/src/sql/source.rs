//! `CREATE [OR REPLACE] [STREAMING] TEMP VIEW name [(columns)] USING format [OPTIONS (name value, ..)]`: a source by
//! name. The parser knows the words of it, but not `STREAMING` nor options on a view, so it is read from the tokens.

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens;
use crate::error::QueryError;
use crate::plan::Statement;

/// The statement, if `tokens` begin like one.
pub(super) fn create_source(tokens: &[TokenWithSpan]) -> Option<Result<Statement, QueryError>> {
    let solid: Vec<&TokenWithSpan> = tokens
        .iter()
        .filter(|token| !matches!(token.token, Token::Whitespace(_)))
        .collect();
    let mut words = Words { solid, at: 0 };
    if !words.keyword("CREATE") {
        return None;
    }
    let replace = words.keyword("OR") && words.keyword("REPLACE");
    let streaming = words.keyword("STREAMING");
    if !(words.keyword("TEMP") || words.keyword("TEMPORARY")) || !words.keyword("VIEW") {
        return None;
    }
    let name = words.name()?;
    let columns = words.columns();
    if !words.keyword("USING") {
        return None;
    }
    Some(words.rest(name, replace, streaming, columns))
}

struct Words<'a> {
    solid: Vec<&'a TokenWithSpan>,
    at: usize,
}

impl Words<'_> {
    fn peek(&self) -> Option<&Token> {
        self.solid.get(self.at).map(|token| &token.token)
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(word))
            if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(keyword));
        self.at += usize::from(found);
        found
    }

    fn symbol(&mut self, symbol: &Token) -> bool {
        let found = self.peek() == Some(symbol);
        self.at += usize::from(found);
        found
    }

    fn name(&mut self) -> Option<String> {
        let Some(Token::Word(word)) = self.peek() else {
            return None;
        };
        let name = word.value.clone();
        self.at += 1;
        Some(name)
    }

    /// The text between a pair of parentheses.
    fn columns(&mut self) -> Option<String> {
        if !self.symbol(&Token::LParen) {
            return None;
        }
        let mut depth = 1;
        let mut text = Vec::new();
        while let Some(token) = self.peek() {
            depth += match token {
                Token::LParen => 1,
                Token::RParen => -1,
                _ => 0,
            };
            let said = token.to_string();
            self.at += 1;
            if depth == 0 {
                break;
            }
            text.push(said);
        }
        Some(text.join(" "))
    }

    fn rest(
        mut self,
        name: String,
        replace: bool,
        streaming: bool,
        columns: Option<String>,
    ) -> Result<Statement, QueryError> {
        let format = self.name().ok_or_else(|| self.unexpected("a format"))?;
        let mut options = Vec::new();
        if self.keyword("OPTIONS") {
            if !self.symbol(&Token::LParen) {
                return Err(self.unexpected("("));
            }
            while !self.symbol(&Token::RParen) {
                let mut key = self
                    .word_or_text()
                    .ok_or_else(|| self.unexpected("an option"))?;
                while self.symbol(&Token::Period) {
                    let part = self
                        .word_or_text()
                        .ok_or_else(|| self.unexpected("an option"))?;
                    key = format!("{key}.{part}");
                }
                self.symbol(&Token::Eq);
                let value = self
                    .word_or_text()
                    .ok_or_else(|| self.unexpected("a value"))?;
                options.push((key, value));
                if !self.symbol(&Token::Comma) && self.peek() != Some(&Token::RParen) {
                    return Err(self.unexpected("\",\" or \")\""));
                }
            }
        }
        while self.symbol(&Token::SemiColon) {}
        match self.peek() {
            None | Some(Token::EOF) => Ok(Statement::CreateSource {
                name,
                replace,
                streaming,
                schema: columns,
                format,
                options,
            }),
            Some(_) => Err(self.unexpected("the end of the statement")),
        }
    }

    fn word_or_text(&mut self) -> Option<String> {
        let text = match self.peek()? {
            Token::Word(word) => word.value.clone(),
            Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) => text.clone(),
            Token::Number(number, _) => number.clone(),
            _ => return None,
        };
        self.at += 1;
        Some(text)
    }

    fn unexpected(&self, wanted: &str) -> QueryError {
        let (found, place) = match self.solid.get(self.at) {
            Some(token) => (
                format!("'{}'", token.token),
                tokens::place(token.span.start),
            ),
            None => ("the end".to_string(), None),
        };
        let message = format!("syntax error at or near {found}: expected {wanted}");
        QueryError::new("PARSE_SYNTAX_ERROR", message).at(place)
    }
}

/// The statements of a text, cut at semicolons that stand in no string, name or comment.
pub fn split_statements(sql: &str) -> Result<Vec<String>, QueryError> {
    let tokens = tokens::tokenize(sql)?;
    let offsets = tokens::Offsets::new(sql);
    let mut statements = Vec::new();
    let (mut from, mut solid) = (0, false);
    for token in &tokens {
        match token.token {
            Token::SemiColon => {
                let at = offsets.byte(token.span.start);
                if solid {
                    statements.push(sql[from..at].to_string());
                }
                (from, solid) = (at + 1, false);
            }
            Token::Whitespace(_) | Token::EOF => {}
            _ => solid = true,
        }
    }
    if solid {
        statements.push(sql[from..].to_string());
    }
    Ok(statements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_statement;

    #[test]
    fn a_source_has_a_name_a_format_columns_and_options() {
        let text = "create or replace streaming temp view ev (d string, m map<string,int>) using json \
                    options (path '/in', \"maxFilesPerTrigger\" = 4, a.b c);";
        let expected = Statement::CreateSource {
            name: "ev".into(),
            replace: true,
            streaming: true,
            schema: Some("d string , m map < string , int >".into()),
            format: "json".into(),
            options: [("path", "/in"), ("maxFilesPerTrigger", "4"), ("a.b", "c")]
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .to_vec(),
        };
        assert_eq!(parse_statement(text).expect("parses"), expected);
    }

    #[test]
    fn what_is_no_source_is_left_to_the_parser() {
        assert!(parse_statement("create temp view v as select 1").is_ok());
        let error =
            parse_statement("create temp view v using text options (path)").expect_err("no value");
        assert!(error.to_string().contains("expected a value"), "{error}");
    }

    #[test]
    fn statements_are_cut_at_semicolons_outside_of_text() {
        let sql = "select 'ä;b'; -- a; comment\n select `x;y`\nfrom t ;\n;";
        assert_eq!(
            split_statements(sql).expect("cuts"),
            ["select 'ä;b'", " -- a; comment\n select `x;y`\nfrom t "]
        );
    }
}
