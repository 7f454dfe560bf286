//! `STREAM t` and `t WATERMARK column DELAY OF interval`: parts of a relation that the parser knows nothing of.
//!
//! They are taken out of the tokens before it runs and travel in the relation's alias, as text that no query can
//! write; the lowering takes the alias apart again.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::{self, Offsets};
use crate::error::{Place, QueryError};
use crate::expr::Expr;
use crate::plan::Plan;

/// Begins an alias of ours.
const MARK: char = '\u{1}';

/// `tokens` with the parts in aliases.
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
    let mut stream: Option<Stream> = None;
    while marker.at < marker.tokens.len() {
        if let Some(place) = marker.stream_keyword(&out) {
            let depth = usize::from(marker.solid(0) == Some(&Token::LParen));
            stream = Some(Stream { place, depth });
            marker.at += depth;
            continue;
        }
        let wrapped = stream.as_ref().is_some_and(|stream| stream.depth == 1);
        let ends = stream.is_some() && marker.ends_name(&out);
        if ends && wrapped {
            // The parenthesis of STREAM(t).
            if marker.solid(0) != Some(&Token::RParen) {
                let message = "syntax error: STREAM takes the name of one relation";
                let place = stream.and_then(|stream| stream.place);
                return Err(QueryError::new("PARSE_SYNTAX_ERROR", message).at(place));
            }
            marker.skip_space();
            marker.at += 1;
            stream = stream.map(|stream| Stream { depth: 0, ..stream });
            continue;
        }
        if ends {
            marker.skip_space();
        }
        let clause = marker.watermark()?;
        if clause.is_none() && !ends {
            out.push(marker.tokens[marker.at].clone());
            marker.at += 1;
            continue;
        }
        let of_stream = ends.then(|| stream.take()).flatten();
        let alias = marker.alias();
        let text = Parts {
            stream: of_stream.map(|stream| stream.place),
            watermark: clause,
            alias,
        };
        for token in text.tokens() {
            out.push(TokenWithSpan::wrap(token));
        }
    }
    out.pop();
    Ok(out)
}

struct Stream {
    place: Option<Place>,
    depth: usize,
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

    fn skip_space(&mut self) {
        if let Some(index) = self.index(0) {
            self.at = index;
        }
    }

    /// Takes the STREAM of `FROM STREAM t`, and says where it stands.
    #[expect(clippy::option_option, reason = "found, and where if that is known")]
    fn stream_keyword(&mut self, before: &[TokenWithSpan]) -> Option<Option<Place>> {
        if !is(&self.tokens[self.at].token, "stream") {
            return None;
        }
        let last = before
            .iter()
            .rev()
            .find(|t| !matches!(t.token, Token::Whitespace(_)))?;
        let opens = match &last.token {
            Token::Word(word) => matches!(word.keyword, Keyword::FROM | Keyword::JOIN),
            Token::Comma => false,
            _ => false,
        };
        let names = match self.solid(1)? {
            Token::Word(word) => {
                word.quote_style.is_some()
                    || !(ends_relation(word.keyword)
                        || word.value.eq_ignore_ascii_case("watermark"))
            }
            Token::LParen => true,
            _ => false,
        };
        (opens && names).then(|| {
            let place = tokens::place(self.tokens[self.at].span.start);
            self.at += 1;
            self.skip_space();
            place
        })
    }

    /// Whether the relation's name has just ended: a word is behind us and no dot ahead.
    fn ends_name(&self, before: &[TokenWithSpan]) -> bool {
        let word = matches!(before.last().map(|t| &t.token), Some(Token::Word(_)));
        word && self.solid(0) != Some(&Token::Period)
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
            let at = self.index(delay + 2).map(|i| self.tokens[i].span.start);
            let message = "syntax error: a watermark is WATERMARK column DELAY OF INTERVAL n unit";
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

/// What an alias of ours says.
struct Parts {
    /// It must be a stream; where that is said.
    stream: Option<Option<Place>>,
    /// Column and delay.
    watermark: Option<(String, String)>,
    alias: String,
}

impl Parts {
    fn tokens(self) -> Vec<Token> {
        let stream = match self.stream {
            None => String::new(),
            Some(None) => "0:0".to_string(),
            Some(Some(place)) => format!("{}:{}", place.line, place.column),
        };
        let (column, delay) = self.watermark.unwrap_or_default();
        let parts = [stream, column, delay, self.alias];
        let name = format!("{MARK}{}", parts.join(&MARK.to_string()));
        let space = || Token::Whitespace(sqlparser::tokenizer::Whitespace::Space);
        vec![
            space(),
            Token::make_keyword("AS"),
            space(),
            Token::make_word(&name, Some('`')),
            space(),
        ]
    }
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
    let (stream, column, delay, alias) = (part(), part(), part(), part());
    let mut plan = input;
    if let Some((line, at)) = stream.split_once(':') {
        let place = match (line.parse(), at.parse()) {
            (Ok(line), Ok(column)) if line > 0 => Some(Place { line, column }),
            _ => None,
        };
        plan = Plan::Stream {
            input: Box::new(plan),
            place,
        };
    }
    if !column.is_empty() {
        let delay: Expr = super::parse_expression(delay)?;
        plan = Plan::Watermark {
            input: Box::new(plan),
            column: super::parse_expression(column)?,
            delay,
        };
    }
    if alias.is_empty() && columns.is_empty() {
        return Ok(plan);
    }
    Ok(Plan::Alias {
        input: Box::new(plan),
        name: alias.to_string(),
        columns,
    })
}

fn ends_relation(keyword: Keyword) -> bool {
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
    use crate::expr::{Expr, Literal, col};
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
        Expr::Literal(Literal::CalendarInterval {
            months: 0,
            days: 0,
            micros: n * 1_000_000,
        })
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
        assert_eq!(delay, seconds(5));
    }

    #[test]
    fn its_alias_comes_after_it() {
        for alias in ["AS e", "e", "AS `e`"] {
            let sql =
                format!("SELECT a FROM ev WATERMARK s.at AS t DELAY OF INTERVAL 1 MINUTE {alias}");
            let Plan::Alias { input, name, .. } = relation(&sql) else {
                panic!("no alias: {sql}");
            };
            assert_eq!(name, "e");
            let (_, column, delay) = watermark(*input);
            assert!(matches!(column, Expr::Alias { .. }));
            assert_eq!(delay, seconds(60));
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
    fn a_stream_is_marked_as_one() {
        for sql in [
            "SELECT 1 FROM STREAM ev",
            "SELECT 1 FROM STREAM(ev)",
            "SELECT 1 FROM stream ( ev ) ;",
        ] {
            let Plan::Stream { input, .. } = relation(sql) else {
                panic!("no stream: {sql}");
            };
            assert!(matches!(*input, Plan::Table { .. }));
        }
        let sql = "SELECT 1 FROM STREAM a.ev WATERMARK ts DELAY OF INTERVAL 1 DAY e GROUP BY 1";
        let Plan::Alias { input, name, .. } = relation(sql) else {
            panic!("no alias");
        };
        assert_eq!(name, "e");
        let (input, ..) = watermark(*input);
        assert!(matches!(input, Plan::Stream { .. }));
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
