//! SQL text to unresolved plans.
//!
//! `sqlparser` parses, under a dialect of ours; the lowering takes its AST apart field by field, so that whatever the
//! parser understands and we do not is refused by name and never dropped.

mod command;
mod dialect;
mod expression;
mod literal;
mod place;
mod quantified;
mod query;
mod relation;
mod split;
mod tokens;
mod words;

use sqlparser::ast;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan};

use self::dialect::Spark;
use crate::error::{Place, QueryError};
use crate::expr::Expr;
use crate::plan::{Plan, Statement};

pub(crate) use literal::parse_interval;
pub use place::{Part, part_place};
pub use split::{StatementText, split_statements};

/// The statement that `sql` says.
pub fn parse_statement(sql: &str) -> Result<Statement, QueryError> {
    statement_of(tokens::tokenize(sql)?)
}

fn statement_of(tokens: Vec<TokenWithSpan>) -> Result<Statement, QueryError> {
    if let Some(command) = command::command(&tokens) {
        return command;
    }
    known_beginning(&tokens)?;
    let mut parser = parser_over(tokens);
    let statement = parser.parse_statement().map_err(syntax_error)?;
    while parser.consume_token(&Token::SemiColon) {}
    end_of_text(&mut parser)?;
    query::statement(statement)
}

/// Refuses what begins neither like a query nor like `CREATE VIEW`, the only statements left to the parser.
fn known_beginning(tokens: &[TokenWithSpan]) -> Result<(), QueryError> {
    let words = words::Words::new(tokens);
    let known = match words.peek() {
        Some(Token::LParen) => true,
        Some(Token::Word(word)) => ["SELECT", "WITH", "VALUES", "TABLE", "FROM", "CREATE"]
            .iter()
            .any(|known| word.value.eq_ignore_ascii_case(known)),
        _ => false,
    };
    match known {
        true => Ok(()),
        false => Err(words.unexpected(command::ACCEPTED)),
    }
}

/// The query that `sql` says.
pub fn parse_query(sql: &str) -> Result<Plan, QueryError> {
    match parse_statement(sql)? {
        Statement::Query(plan) => Ok(plan),
        _ => Err(QueryError::new(
            "PARSE_SYNTAX_ERROR",
            "this is a command, not a query",
        )),
    }
}

/// The expression that `sql` says, with its name if it ends in `AS name`.
pub fn parse_expression(sql: &str) -> Result<Expr, QueryError> {
    let mut parser = parser_over(tokens::tokenize(sql)?);
    let item: ast::SelectItem = parser.parse_select_item().map_err(syntax_error)?;
    end_of_text(&mut parser)?;
    expression::select_item(item)
}

fn parser_over(tokens: Vec<TokenWithSpan>) -> Parser<'static> {
    Parser::new(&Spark)
        .with_recursion_limit(DEPTH_MAX)
        .with_tokens_with_locations(tokens)
}

/// How deep parentheses and subqueries may nest.
const DEPTH_MAX: usize = 60;

fn end_of_text(parser: &mut Parser<'_>) -> Result<(), QueryError> {
    let next = parser.peek_token();
    match next.token {
        Token::EOF => Ok(()),
        other => Err(near(&other.to_string(), tokens::place(next.span.start))),
    }
}

fn near(found: &str, place: Option<Place>) -> QueryError {
    let message = match found {
        "" | "EOF" => "Syntax error at or near end of input".to_string(),
        found => format!("Syntax error at or near '{found}'"),
    };
    QueryError::new("PARSE_SYNTAX_ERROR", message).at(place)
}

/// The parser tells what it expected, what it found and where as one text.
fn syntax_error(error: ParserError) -> QueryError {
    let text = match error {
        ParserError::RecursionLimitExceeded => {
            return QueryError::unsupported("a query nested this deep");
        }
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
    };
    let (text, place) = match text.rsplit_once(" at Line: ") {
        Some((text, at)) => match at.split_once(", Column: ") {
            Some((line, column)) => match (line.trim().parse(), column.trim().parse()) {
                (Ok(line), Ok(column)) => (text, Some(Place { line, column })),
                _ => (text, None),
            },
            None => (text, None),
        },
        None => (text.as_str(), None),
    };
    let expected = text
        .strip_prefix("Expected: ")
        .or_else(|| text.strip_prefix("Expected "));
    match expected.and_then(|rest| rest.rsplit_once(", found: ")) {
        Some((expected, found)) => {
            let mut error = near(found, place);
            error = QueryError::new(
                "PARSE_SYNTAX_ERROR",
                format!("{}: expected {expected}", error.message()),
            );
            error.at(place)
        }
        None => QueryError::new("PARSE_SYNTAX_ERROR", format!("Syntax error: {text}")).at(place),
    }
}
