//! `t WATERMARK column DELAY OF interval`: a part of a relation that the parser knows nothing of.
//!
//! It is taken out of the tokens before it runs and travels in the relation's alias, as text that no query can write;
//! the lowering takes the alias apart again.

use sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace};

use super::tokens::{self, Offsets, ends_relation};
use crate::error::QueryError;
use crate::plan::Plan;

/// Begins an alias of ours.
const MARK: char = '\u{1}';

/// `tokens` with the clauses in aliases.
pub(super) fn marked(
    sql: &str,
    mut tokens: Vec<TokenWithSpan>,
) -> Result<Vec<TokenWithSpan>, QueryError> {
    // A relation may end where the text does.
    tokens.push(TokenWithSpan::wrap(Token::EOF));
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut marker = Marker {
        offsets: Offsets::new(sql),
        tokens,
        at: 0,
    };
    while marker.at < marker.tokens.len() {
        let Some((column, delay)) = marker.watermark()? else {
            out.push(marker.tokens[marker.at].clone());
            marker.at += 1;
            continue;
        };
        let alias = marker.alias();
        let name = format!("{MARK}{column}{MARK}{delay}{MARK}{alias}");
        let space = || Token::Whitespace(Whitespace::Space);
        let tokens = [
            space(),
            Token::make_keyword("AS"),
            space(),
            Token::make_word(&name, Some('`')),
            space(),
        ];
        out.extend(tokens.map(TokenWithSpan::wrap));
    }
    out.pop();
    Ok(out)
}

struct Marker<'s> {
    offsets: Offsets<'s>,
    tokens: Vec<TokenWithSpan>,
    at: usize,
}

impl Marker<'_> {
    /// The index of the `nth` token from here that is no space.
    fn index(&self, nth: usize) -> Option<usize> {
        (self.at..self.tokens.len())
            .filter(|i| !matches!(self.tokens[*i].token, Token::Whitespace(_)))
            .nth(nth)
    }

    fn solid(&self, nth: usize) -> Option<&Token> {
        self.index(nth).map(|i| &self.tokens[i].token)
    }

    fn is(&self, nth: usize, keyword: &str) -> bool {
        self.solid(nth).is_some_and(|token| is(token, keyword))
    }

    /// Takes a watermark clause: its column and its delay as text, padded so that places in it are right.
    fn watermark(&mut self) -> Result<Option<(String, String)>, QueryError> {
        if !is(&self.tokens[self.at].token, "watermark") {
            return Ok(None);
        }
        let mut depth = 0;
        let mut nth = 1;
        let delay = loop {
            match self.solid(nth) {
                Some(Token::LParen | Token::LBracket) => depth += 1,
                Some(Token::RParen | Token::RBracket) => depth -= 1,
                Some(token) if is(token, "delay") && self.is(nth + 1, "of") && depth == 0 => {
                    break nth;
                }
                None | Some(Token::SemiColon | Token::EOF) => return Ok(None),
                Some(_) => {}
            }
            if depth < 0 {
                return Ok(None);
            }
            nth += 1;
        };
        if delay < 2 || !self.is(delay + 2, "interval") {
            let found = self.index(delay + 2).map(|i| &self.tokens[i]);
            let at = found.map(|found| found.span.start);
            let near = match found.map(|found| &found.token) {
                None | Some(Token::EOF) => "end of input".to_string(),
                Some(token) => format!("'{token}'"),
            };
            let message = format!(
                "Syntax error at or near {near}: a watermark is WATERMARK column DELAY OF INTERVAL n unit"
            );
            let place = at.and_then(tokens::place);
            return Err(QueryError::new("PARSE_SYNTAX_ERROR", message).at(place));
        }
        let mut end = delay + 3;
        loop {
            let mut next = end + usize::from(self.solid(end) == Some(&Token::Minus));
            if !matches!(
                self.solid(next),
                Some(
                    Token::Number(..) | Token::SingleQuotedString(_) | Token::DoubleQuotedString(_)
                )
            ) {
                break;
            }
            next += 1;
            if matches!(self.solid(next), Some(Token::Word(_))) {
                next += 1;
                if self.is(next, "to") {
                    next += 2;
                }
            }
            end = next;
        }
        let text = |from: usize, until: usize| {
            let (from, until) = (self.index(from), self.index(until));
            let from = from.map(|i| self.tokens[i].span.start);
            let until = until.map(|i| self.tokens[i].span.start);
            self.offsets.padded(from, until)
        };
        let clause = (text(1, delay), text(delay + 2, end));
        self.at = self.index(end).unwrap_or(self.tokens.len());
        Ok(Some(clause))
    }

    /// Takes the relation's own alias.
    fn alias(&mut self) -> String {
        let nth = usize::from(self.is(0, "as"));
        let Some(Token::Word(word)) = self.solid(nth) else {
            return String::new();
        };
        let own = word.quote_style.is_some() || nth == 1 || !ends_relation(word.keyword);
        if !own || (nth == 0 && word.value.eq_ignore_ascii_case("watermark")) {
            return String::new();
        }
        let alias = word.value.clone();
        self.at = self.index(nth).map_or(self.at, |index| index + 1);
        alias
    }
}

fn is(token: &Token, keyword: &str) -> bool {
    matches!(token, Token::Word(word)
        if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(keyword))
}

/// `input` under the alias `name`, which may be one of ours.
pub(super) fn aliased(input: Plan, name: String, columns: Vec<String>) -> Result<Plan, QueryError> {
    let Some(marked) = name.strip_prefix(MARK) else {
        return Ok(Plan::Alias {
            input: Box::new(input),
            name,
            columns,
        });
    };
    let mut parts = marked.split(MARK);
    let mut part = || parts.next().unwrap_or_default();
    let (column, delay, alias) = (part(), part(), part());
    let plan = Plan::Watermark {
        input: Box::new(input),
        column: super::parse_expression(column)?,
        delay: super::parse_expression(delay)?,
    };
    if alias.is_empty() && columns.is_empty() {
        return Ok(plan);
    }
    Ok(Plan::Alias {
        input: Box::new(plan),
        name: alias.to_string(),
        columns,
    })
}

#[cfg(test)]
mod tests {
    use crate::expr::{Expr, IntervalUnit, Literal, col, lit};
    use crate::plan::{Plan, Statement};
    use crate::{Place, parse_query, parse_statement};

    /// The relation that `sql` reads.
    fn relation(sql: &str) -> Plan {
        match parse_query(sql).unwrap() {
            Plan::Project { input, .. } | Plan::Aggregate { input, .. } => *input,
            other => other,
        }
    }

    fn watermark(plan: Plan) -> (Plan, Expr, Expr) {
        match plan {
            Plan::Watermark {
                input,
                column,
                delay,
            } => (*input, column, delay),
            other => panic!("no watermark: {other:?}"),
        }
    }

    fn seconds(n: i64) -> Expr {
        let micros = n * 1_000_000;
        let interval = Literal::CalendarInterval {
            months: 0,
            days: 0,
            micros,
            units: Some((IntervalUnit::Second, IntervalUnit::Second)),
        };
        lit(interval)
    }

    #[test]
    fn a_clause_follows_its_relation() {
        let sql = "SELECT a FROM ev WATERMARK ts DELAY OF INTERVAL 5 SECONDS WHERE a > 1";
        let Plan::Filter { input, .. } = relation(sql) else {
            panic!("no filter");
        };
        let (input, column, delay) = watermark(*input);
        assert!(matches!(input, Plan::Table { .. }));
        let place = Some(Place {
            line: 1,
            column: 28,
        });
        let expected = Expr::Column {
            name: vec!["ts".into()],
            place,
        };
        assert_eq!(column, expected);
        assert!(delay.is_like(&seconds(5)));
    }

    #[test]
    fn its_alias_comes_after_it() {
        for alias in ["AS e", "e", "AS `e`"] {
            let sql = format!(
                "SELECT a FROM ev WATERMARK s.at AS t DELAY OF INTERVAL 60 SECONDS {alias}"
            );
            let Plan::Alias { input, name, .. } = relation(&sql) else {
                panic!("no alias: {sql}");
            };
            assert_eq!(name, "e");
            let (_, column, delay) = watermark(*input);
            assert!(matches!(column, Expr::Alias { .. }));
            assert!(delay.is_like(&seconds(60)));
        }
    }

    #[test]
    fn subqueries_and_joins_have_clauses_too() {
        let sql = "SELECT 1 FROM (SELECT * FROM l) WATERMARK lt DELAY OF INTERVAL 0 SECONDS AS a \
                   LEFT JOIN r WATERMARK rt DELAY OF INTERVAL 1 SECOND AS b ON a.k = b.k";
        let Plan::Join { left, right, .. } = relation(sql) else {
            panic!("no join");
        };
        for side in [left, right] {
            let Plan::Alias { input, .. } = *side else {
                panic!("no alias");
            };
            watermark(*input);
        }
    }

    #[test]
    fn a_stream_has_a_clause_too() {
        let sql = "SELECT 1 FROM STREAM ev WATERMARK ts DELAY OF INTERVAL 1 DAY e GROUP BY 1";
        let Plan::Alias { input, name, .. } = relation(sql) else {
            panic!("no alias");
        };
        assert_eq!(name, "e");
        let (input, ..) = watermark(*input);
        assert!(matches!(input, Plan::Table { stream: true, .. }));
    }

    #[test]
    fn the_words_are_names_elsewhere() {
        assert!(matches!(
            relation("SELECT 1 FROM stream"),
            Plan::Table { .. }
        ));
        assert!(matches!(
            relation("SELECT 1 FROM stream AS s"),
            Plan::Alias { .. }
        ));
        assert!(matches!(
            relation("SELECT 1 FROM a watermark"),
            Plan::Alias { .. }
        ));
        let sql = "SELECT watermark, delay, stream FROM t";
        assert_eq!(
            parse_statement(sql).map(|s| matches!(s, Statement::Query(_))),
            Ok(true)
        );
        let _ = col("watermark");
    }

    #[test]
    fn a_delay_is_an_interval() {
        let error =
            parse_query("SELECT 1 FROM t WATERMARK ts DELAY OF 5").expect_err("no interval");
        assert_eq!(error.class(), Some("PARSE_SYNTAX_ERROR"));
    }
}
