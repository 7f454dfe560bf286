//! Text to tokens, as Spark's lexer cuts them.
//!
//! The tokenizer of `sqlparser` does nearly all of it. What Spark reads differently is repaired here, between
//! tokenizer and parser: escapes in strings, suffixes of numbers (`100S`), `0x1F` (a name), and what belongs to a
//! relation of a stream (see `relation`).

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Whitespace};

use super::dialect::Spark;
use super::relation;
use crate::error::{Place, QueryError};

/// A run of tokens without a comma longer than this is refused: it would nest deeper than a stack holds.
const RUN_MAX: usize = 2_000;

/// The tokens of `sql`.
pub(super) fn tokenize(sql: &str) -> Result<Vec<TokenWithSpan>, QueryError> {
    let tokens = Tokenizer::new(&Spark, sql)
        .with_unescape(false)
        .tokenize_with_location();
    let tokens = tokens.map_err(|error| {
        let at = place(error.location);
        // Where a text or a name begins that does not end.
        let line = sql
            .lines()
            .nth(error.location.line.saturating_sub(1) as usize);
        let begins = line.and_then(|line| {
            let column = error.location.column.saturating_sub(1);
            line.chars().nth(column as usize)
        });
        let near = begins.map_or(String::new(), |begins| format!(" at or near '{begins}'"));
        let message = format!("Syntax error{near}: {}", error.message);
        QueryError::new("PARSE_SYNTAX_ERROR", message).at(at)
    })?;
    let mut repaired: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut run = 0;
    for mut token in tokens {
        run = if matches!(token.token, Token::Comma | Token::SemiColon) {
            0
        } else {
            run + 1
        };
        if run > RUN_MAX && !matches!(token.token, Token::Whitespace(_)) {
            return Err(
                QueryError::unsupported("an expression this long").at(place(token.span.start))
            );
        }
        if let Token::HexStringLiteral(digits) = &token.token
            && token.span.end.column - token.span.start.column == digits.chars().count() as u64 + 2
        {
            token.token = Token::make_word(&format!("0x{digits}"), None);
        }
        let before = repaired
            .last_mut()
            .filter(|last| last.span.end == token.span.start);
        match (&mut token.token, before) {
            (
                Token::Word(word),
                Some(TokenWithSpan {
                    token: Token::Number(number, _),
                    span,
                }),
            ) if word.quote_style.is_none() => {
                let joined = format!("{number}{}", word.value);
                let suffixes = ["S", "Y", "L", "F", "D", "BD"];
                let is_number = suffixes.iter().any(|s| s.eq_ignore_ascii_case(&word.value));
                let whole = number.bytes().all(|b| b.is_ascii_digit());
                span.end = token.span.end;
                let last = repaired.last_mut().expect("matched above");
                last.token = match (is_number, whole) {
                    (true, _) => Token::Number(joined, false),
                    (false, true) => Token::make_word(&joined, None),
                    (false, false) => return Err(unexpected(&word.value, token.span.start)),
                };
                continue;
            }
            (
                Token::SingleQuotedString(text) | Token::DoubleQuotedString(text),
                Some(TokenWithSpan {
                    token: Token::Word(word),
                    ..
                }),
            ) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("r") => {
                let raw = Token::SingleQuotedString(std::mem::take(text));
                repaired.pop();
                repaired.push(TokenWithSpan {
                    token: raw,
                    span: token.span,
                });
                continue;
            }
            (Token::SingleQuotedString(text), _) => *text = unescape(text, '\''),
            (Token::DoubleQuotedString(text), _) => *text = unescape(text, '"'),
            // No word of Spark's: a column may be called so.
            (Token::Word(word), _) if word.keyword == Keyword::TOP => {
                word.keyword = Keyword::NoKeyword;
            }
            (Token::Number(number, long), _) if *long => {
                *number = format!("{number}L");
                *long = false;
            }
            _ => {}
        }
        repaired.push(token);
    }
    relation::marked(sql, mark_streams(repaired))
}

fn unexpected(text: &str, at: Location) -> QueryError {
    QueryError::new(
        "PARSE_SYNTAX_ERROR",
        format!("Syntax error at or near '{text}'"),
    )
    .at(place(at))
}

/// A place in the text, if it is known.
pub(super) fn place(location: Location) -> Option<Place> {
    (location.line > 0).then_some(Place {
        line: location.line,
        column: location.column,
    })
}

/// Spark's escapes. An unknown one stands for the character itself, but `\%` and `\_` stay for LIKE.
fn unescape(text: &str, quote: char) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == quote {
            rest.next(); // a doubled quote is one
            out.push(quote);
            continue;
        }
        if c != '\\' {
            out.push(c);
            continue;
        }
        let tail = rest.as_str();
        let code = |digits: &str, len: usize, radix| {
            let digits = digits.get(..len)?;
            digits
                .bytes()
                .all(|b| b.is_ascii_alphanumeric())
                .then_some(())?;
            char::from_u32(u32::from_str_radix(digits, radix).ok()?)
        };
        let (character, length) = match tail.chars().next() {
            None => ('\\', 0),
            Some('u') if code(&tail[1..], 4, 16).is_some() => {
                (code(&tail[1..], 4, 16).unwrap_or('u'), 5)
            }
            Some('U') if code(&tail[1..], 8, 16).is_some() => {
                (code(&tail[1..], 8, 16).unwrap_or('U'), 9)
            }
            Some('0'..='3') if tail.len() >= 3 && code(tail, 3, 8).is_some() => {
                (code(tail, 3, 8).unwrap_or('0'), 3)
            }
            Some('0') => ('\0', 1),
            Some('b') => ('\u{8}', 1),
            Some('n') => ('\n', 1),
            Some('r') => ('\r', 1),
            Some('t') => ('\t', 1),
            Some('Z') => ('\u{1a}', 1),
            Some(wildcard @ ('%' | '_')) => {
                out.push('\\');
                (wildcard, 1)
            }
            Some(other) => (other, 1),
        };
        out.push(character);
        for _ in 0..length {
            rest.next();
        }
    }
    out
}

/// Where lines begin in a text, to find tokens in it.
pub(super) struct Offsets<'s> {
    sql: &'s str,
    starts: Vec<usize>,
}

impl<'s> Offsets<'s> {
    pub(super) fn new(sql: &'s str) -> Self {
        let starts = std::iter::once(0).chain(sql.match_indices('\n').map(|(at, _)| at + 1));
        Offsets {
            sql,
            starts: starts.collect(),
        }
    }

    /// The byte at which a location is. Columns count characters, from 1.
    pub(super) fn byte(&self, location: Location) -> usize {
        let line = self.starts[(location.line as usize).clamp(1, self.starts.len()) - 1];
        let column = (location.column as usize).saturating_sub(1);
        self.sql[line..]
            .char_indices()
            .nth(column)
            .map_or(self.sql.len(), |(at, _)| line + at)
    }

    /// The text between two tokens (to the end if there is no second one), at the place where it stands: behind as many
    /// lines and spaces.
    pub(super) fn padded(&self, from: Option<Location>, until: Option<Location>) -> String {
        let Some(from) = from else {
            return String::new();
        };
        let end = match until {
            Some(until) if until.line > 0 => self.byte(until),
            _ => self.sql.len(),
        };
        let text = self.sql.get(self.byte(from)..end).unwrap_or_default();
        let lines = "\n".repeat((from.line as usize).saturating_sub(1));
        let spaces = " ".repeat((from.column as usize).saturating_sub(1));
        format!("{lines}{spaces}{}", text.trim_end())
    }
}

/// The first part of the name of a table read with `STREAM`; no query can write it.
pub(super) const STREAM: &str = "\u{1}stream";

/// `FROM STREAM t` and `FROM STREAM(t)`: the parser has no word for it, so it becomes a part of the name.
fn mark_streams(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let solid: Vec<usize> = (0..tokens.len())
        .filter(|&i| !matches!(tokens[i].token, Token::Whitespace(_)))
        .collect();
    let mut tokens = tokens;
    let mut periods = vec![];
    // For each open parenthesis, and around all of them: whether a list of relations is being read.
    let mut relations = vec![false];
    for (nth, &at) in solid.iter().enumerate() {
        let token = |n: usize| solid.get(n).map(|&i| &tokens[i].token);
        let within = relations.last().copied().unwrap_or(false);
        let opens = match nth.checked_sub(1).and_then(token) {
            Some(Token::Word(w)) => matches!(w.keyword, Keyword::FROM | Keyword::JOIN),
            Some(Token::Comma | Token::LParen) => within,
            _ => false,
        };
        match token(nth) {
            Some(Token::LParen) => relations.push(opens),
            Some(Token::RParen) if relations.len() > 1 => drop(relations.pop()),
            Some(Token::Word(w)) => {
                if let Some(last) = relations.last_mut() {
                    *last = match w.keyword {
                        Keyword::FROM => true,
                        Keyword::SELECT | Keyword::WHERE | Keyword::GROUP | Keyword::ORDER => false,
                        Keyword::HAVING | Keyword::WINDOW | Keyword::LATERAL => false,
                        _ => *last,
                    };
                }
            }
            _ => {}
        }
        let is_stream = matches!(token(nth), Some(Token::Word(w))
            if w.quote_style.is_none() && w.value.eq_ignore_ascii_case("stream"));
        let name = |n: usize| matches!(token(n), Some(Token::Word(w)) if w.quote_style.is_some() || !ends_relation(w.keyword));
        let in_parentheses = token(nth + 1) == Some(&Token::LParen)
            && name(nth + 2)
            && token(nth + 3) == Some(&Token::RParen);
        if !opens || !is_stream || !(name(nth + 1) || in_parentheses) {
            continue;
        }
        if in_parentheses {
            for parenthesis in [nth + 1, nth + 3] {
                tokens[solid[parenthesis]].token = Token::Whitespace(Whitespace::Space);
            }
        }
        tokens[at].token = Token::make_word(STREAM, Some('`'));
        periods.push(at + 1);
    }
    for at in periods.into_iter().rev() {
        let span = tokens[at - 1].span;
        let token = Token::Period;
        tokens.insert(at, TokenWithSpan { token, span });
    }
    tokens
}

/// Whether a word of this keyword is no alias of the relation before it.
pub(super) fn ends_relation(keyword: Keyword) -> bool {
    use Keyword::*;
    matches!(
        keyword,
        AS | WHERE
            | GROUP
            | ORDER
            | HAVING
            | LIMIT
            | OFFSET
            | UNION
            | EXCEPT
            | INTERSECT
            | MINUS
            | JOIN
            | INNER
            | LEFT
            | RIGHT
            | FULL
            | CROSS
            | NATURAL
            | LATERAL
            | ON
            | USING
            | WINDOW
            | CLUSTER
            | DISTRIBUTE
            | SORT
            | SEMI
            | ANTI
            | PIVOT
            | UNPIVOT
            | TABLESAMPLE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_relation_of_a_list_may_be_a_stream() {
        let streams = |sql: &str| {
            let tokens = mark_streams(
                sqlparser::tokenizer::Tokenizer::new(&sqlparser::dialect::GenericDialect {}, sql)
                    .tokenize_with_location()
                    .expect("tokens"),
            );
            let marked = |token: &&TokenWithSpan| matches!(&token.token, Token::Word(w) if w.value == STREAM);
            tokens.iter().filter(marked).count()
        };
        assert_eq!(
            streams("SELECT 1 FROM STREAM a, STREAM b WHERE x IN (1, stream)"),
            2
        );
        assert_eq!(streams("SELECT 1 FROM u, STREAM(b) y"), 1);
        assert_eq!(
            streams("SELECT 1 FROM (STREAM a o JOIN STREAM b p ON o.x = p.x)"),
            2
        );
        assert_eq!(
            streams("SELECT 1 FROM a JOIN b ON f(a, stream) = 1, STREAM c"),
            1
        );
        assert_eq!(streams("SELECT a, stream b, (stream) FROM t"), 0);
        assert_eq!(
            streams("SELECT 1 FROM (SELECT a, stream b FROM t), STREAM c"),
            1
        );
        assert_eq!(
            streams("SELECT 1 FROM t GROUP BY a, stream ORDER BY b, stream"),
            0
        );
    }

    #[test]
    fn escapes_are_sparks() {
        assert_eq!(unescape(r"\\w\n\%\q\u00e9\101", '\''), "\\w\n\\%qéA");
        assert_eq!(unescape("it''s", '\''), "it's");
        assert_eq!(unescape(r"\uzz", '\''), "uzz");
        assert_eq!(unescape("\\", '\''), "\\");
    }
}
