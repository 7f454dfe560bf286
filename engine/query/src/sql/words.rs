//! Tokens read one by one, for the statements that the parser has no grammar for.

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens;
use crate::error::{Place, QueryError};

type Result<T> = std::result::Result<T, QueryError>;

/// The tokens of a statement, without the white space between them.
pub(super) struct Words<'a> {
    solid: Vec<&'a TokenWithSpan>,
    at: usize,
}

impl<'a> Words<'a> {
    pub(super) fn new(tokens: &'a [TokenWithSpan]) -> Self {
        let solid = tokens
            .iter()
            .filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF))
            .collect();
        Words { solid, at: 0 }
    }

    pub(super) fn peek(&self) -> Option<&'a Token> {
        self.solid.get(self.at).map(|token| &token.token)
    }

    /// Where the next token stands.
    pub(super) fn place(&self) -> Option<Place> {
        tokens::place(self.solid.get(self.at)?.span.start)
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> Vec<TokenWithSpan> {
        self.solid[self.at..]
            .iter()
            .map(|token| (*token).clone())
            .collect()
    }

    /// Reads the next token if it is this word, quoted by nothing.
    pub(super) fn keyword(&mut self, keyword: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(word))
            if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(keyword));
        self.at += usize::from(found);
        found
    }

    /// Reads up to the first `keyword` that stands outside of parentheses, and the keyword.
    pub(super) fn skip_to(&mut self, keyword: &str) -> Option<()> {
        let mut depth = 0;
        while depth > 0 || !self.keyword(keyword) {
            depth += match self.peek()? {
                Token::LParen => 1,
                Token::RParen => -1,
                _ => 0,
            };
            self.skip();
        }
        Some(())
    }

    /// Reads the next token, whatever it is.
    pub(super) fn skip(&mut self) {
        self.at += 1;
    }

    /// Reads these words, or none of them.
    pub(super) fn keywords(&mut self, keywords: &[&str]) -> bool {
        let start = self.at;
        let found = keywords.iter().all(|keyword| self.keyword(keyword));
        if !found {
            self.at = start;
        }
        found
    }

    pub(super) fn expect_keyword(&mut self, keyword: &str) -> Result<()> {
        match self.keyword(keyword) {
            true => Ok(()),
            false => Err(self.unexpected(keyword)),
        }
    }

    pub(super) fn symbol(&mut self, symbol: &Token) -> bool {
        let found = self.peek() == Some(symbol);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect_symbol(&mut self, symbol: &Token) -> Result<()> {
        match self.symbol(symbol) {
            true => Ok(()),
            false => Err(self.unexpected(&format!("'{symbol}'"))),
        }
    }

    /// A word, or a quoted name.
    pub(super) fn name(&mut self, what: &str) -> Result<String> {
        let Some(Token::Word(word)) = self.peek() else {
            return Err(self.unexpected(what));
        };
        self.at += 1;
        Ok(word.value.clone())
    }

    /// The name of a table or view. Names of several parts need catalogs, which there are none of.
    pub(super) fn table_name(&mut self) -> Result<String> {
        let place = self.place();
        let name = self.name("a name")?;
        match self.symbol(&Token::Period) {
            true => Err(QueryError::unsupported(format!(
                "a name of several parts (\"{name}. ..\")"
            ))
            .at(place)),
            false => Ok(name),
        }
    }

    /// The text between a pair of parentheses, if the next token opens one.
    pub(super) fn in_parentheses(&mut self) -> Result<Option<String>> {
        if !self.symbol(&Token::LParen) {
            return Ok(None);
        }
        let mut depth = 1;
        let mut text = Vec::new();
        loop {
            let Some(token) = self.peek() else {
                return Err(self.unexpected("')'"));
            };
            depth += match token {
                Token::LParen => 1,
                Token::RParen => -1,
                _ => 0,
            };
            self.at += 1;
            if depth == 0 {
                return Ok(Some(text.join(" ")));
            }
            text.push(token.to_string());
        }
    }

    /// A word, a text or a number.
    pub(super) fn value(&mut self, what: &str) -> Result<String> {
        let text = match self.peek() {
            Some(Token::Word(word)) => word.value.clone(),
            Some(Token::SingleQuotedString(text) | Token::DoubleQuotedString(text)) => text.clone(),
            Some(Token::Number(number, _)) => number.clone(),
            _ => return Err(self.unexpected(what)),
        };
        self.at += 1;
        Ok(text)
    }

    /// Words or texts with dots between them.
    pub(super) fn dotted(&mut self, what: &str) -> Result<String> {
        let mut key = self.value(what)?;
        while self.symbol(&Token::Period) {
            key = format!("{key}.{}", self.value(what)?);
        }
        Ok(key)
    }

    /// Everything up to the end, as text: a single quoted text without its quotes, else as it is spelled.
    pub(super) fn text_to_end(&mut self) -> String {
        let end = self.solid[self.at..]
            .iter()
            .position(|token| token.token == Token::SemiColon)
            .map_or(self.solid.len(), |n| self.at + n);
        let said = &self.solid[self.at..end];
        self.at = end;
        if let [token] = said
            && let Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) = &token.token
        {
            return text.clone();
        }
        let mut text = String::new();
        for (nth, token) in said.iter().enumerate() {
            if nth > 0 && said[nth - 1].span.end != token.span.start {
                text.push(' ');
            }
            text.push_str(&token.token.to_string());
        }
        text
    }

    pub(super) fn end(&mut self) -> Result<()> {
        while self.symbol(&Token::SemiColon) {}
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("the end of the statement")),
        }
    }

    pub(super) fn unexpected(&self, wanted: &str) -> QueryError {
        let (found, place) = match self.solid.get(self.at) {
            Some(token) => (
                format!("'{}'", token.token),
                tokens::place(token.span.start),
            ),
            None => (
                "the end".to_string(),
                self.solid
                    .last()
                    .and_then(|last| tokens::place(last.span.end)),
            ),
        };
        let message = format!("Syntax error at or near {found}: expected {wanted}");
        QueryError::new("PARSE_SYNTAX_ERROR", message).at(place)
    }
}
