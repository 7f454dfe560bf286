//! Spark's SQL for `sqlparser`: its Spark dialect, corrected where Spark's own grammar says otherwise.
//!
//! Forms that the AST has no place for come out as calls with a name no query can write (`FORM_*`).

use std::any::TypeId;

use sqlparser::ast::{self, Expr, Ident, ObjectName};
use sqlparser::dialect::{Dialect, Precedence, SparkSqlDialect};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Span, Token};

/// `CAST(x AS type)`: the value and the type's text.
pub(super) const FORM_CAST: &str = "\u{1}cast";
/// `TRY_CAST(x AS type)`.
pub(super) const FORM_TRY_CAST: &str = "\u{1}try_cast";
/// `INTERVAL ...`: the text, then the units of `'...' DAY TO SECOND`.
pub(super) const FORM_INTERVAL: &str = "\u{1}interval";
/// `TIMESTAMP '...'` and the like: the type and the text.
pub(super) const FORM_TYPED: &str = "\u{1}typed";

/// The operator that the parser has no word for.
pub(super) const SHIFT_RIGHT_UNSIGNED: &str = ">>>";

#[derive(Debug)]
pub(super) struct Spark;

const BASE: SparkSqlDialect = SparkSqlDialect;

impl Dialect for Spark {
    fn dialect(&self) -> TypeId {
        TypeId::of::<SparkSqlDialect>()
    }
    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        BASE.is_delimited_identifier_start(ch)
    }
    fn is_identifier_start(&self, ch: char) -> bool {
        BASE.is_identifier_start(ch)
    }
    fn is_identifier_part(&self, ch: char) -> bool {
        BASE.is_identifier_part(ch)
    }
    fn supports_string_literal_backslash_escape(&self) -> bool {
        true
    }
    fn supports_string_literal_concatenation(&self) -> bool {
        true
    }
    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }
    fn supports_group_by_expr(&self) -> bool {
        true
    }
    fn supports_group_by_with_modifier(&self) -> bool {
        true
    }
    fn supports_order_by_all(&self) -> bool {
        true
    }
    fn supports_lambda_functions(&self) -> bool {
        true
    }
    fn supports_select_wildcard_except(&self) -> bool {
        true
    }
    fn supports_nested_comments(&self) -> bool {
        true
    }
    fn supports_create_table_using(&self) -> bool {
        true
    }
    fn supports_values_as_table_factor(&self) -> bool {
        true
    }
    fn supports_bang_not_operator(&self) -> bool {
        true
    }
    fn supports_bitwise_shift_operators(&self) -> bool {
        true
    }
    fn supports_select_item_multi_column_alias(&self) -> bool {
        true
    }
    fn supports_cte_without_as(&self) -> bool {
        true
    }
    fn allow_extract_custom(&self) -> bool {
        true
    }
    fn supports_window_clause_named_window_reference(&self) -> bool {
        true
    }
    fn supports_window_function_null_treatment_arg(&self) -> bool {
        true
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let Token::Word(word) = &parser.peek_token_ref().token else {
            return None;
        };
        if word.quote_style.is_some() {
            return None;
        }
        let (name, keyword) = (word.value.clone(), word.keyword);
        let next = parser.peek_nth_token_ref(1).token.clone();
        match (name.to_lowercase().as_str(), next) {
            ("cast" | "try_cast", Token::LParen) => Some(cast(parser, &name)),
            ("trim", Token::LParen) => special_trim(parser),
            ("extract", Token::LParen) => Some(extract(parser)),
            ("struct", Token::LParen) if names_fields(parser) => Some(named_fields(parser)),
            ("interval", _) => interval(parser).transpose(),
            (
                "timestamp" | "timestamp_ntz" | "timestamp_ltz" | "date" | "x",
                Token::SingleQuotedString(text) | Token::DoubleQuotedString(text),
            ) => {
                let start = parser.next_token().span;
                parser.next_token();
                Some(Ok(form(
                    FORM_TYPED,
                    vec![string(name.to_lowercase()), string(text)],
                    start,
                )))
            }
            (_, Token::LParen) if !has_own_grammar(keyword, parser) => {
                let ident = Ident::with_span(parser.next_token().span, name);
                Some(parser.parse_function(ObjectName::from(vec![ident])))
            }
            _ => None,
        }
    }

    /// `||` stands on one level with `+` and `-`; shifts are a level of their own, between these and `&`.
    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        match parser.peek_token_ref().token {
            Token::StringConcat => Some(Ok(self.prec_value(Precedence::PlusMinus))),
            Token::ShiftLeft | Token::ShiftRight => Some(Ok(self.prec_value(Precedence::Xor))),
            _ => BASE.get_next_precedence(parser),
        }
    }

    fn parse_infix(
        &self,
        parser: &mut Parser,
        left: &Expr,
        _: u8,
    ) -> Option<Result<Expr, ParserError>> {
        use Keyword::{DISTINCT, FROM, IS, NOT};
        // The parser takes everything to the right for the operand of these.
        let same = parser.parse_keywords(&[IS, NOT, DISTINCT, FROM]);
        if same || parser.parse_keywords(&[IS, DISTINCT, FROM]) {
            let left = Box::new(left.clone());
            let right = parser.parse_subexpr(self.prec_value(Precedence::Is));
            return Some(right.map(|right| match same {
                true => Expr::IsNotDistinctFrom(left, Box::new(right)),
                false => Expr::IsDistinctFrom(left, Box::new(right)),
            }));
        }
        if shifts_unsigned(parser) {
            skip(parser, 2);
            let right = parser.parse_subexpr(self.prec_value(Precedence::Xor));
            return Some(right.map(|right| Expr::BinaryOp {
                left: Box::new(left.clone()),
                op: ast::BinaryOperator::Custom(SHIFT_RIGHT_UNSIGNED.to_string()),
                right: Box::new(right),
            }));
        }
        // The base dialect takes everything to the right of DIV for its operand.
        if !parser.parse_keyword(Keyword::DIV) {
            return None;
        }
        let right = parser.parse_subexpr(self.prec_value(Precedence::MulDivModOp));
        Some(right.map(|right| Expr::BinaryOp {
            left: Box::new(left.clone()),
            op: ast::BinaryOperator::MyIntegerDivide,
            right: Box::new(right),
        }))
    }
}

/// Whether the next token is `>>>`, of which the tokenizer makes two.
fn shifts_unsigned(parser: &Parser) -> bool {
    let (first, second) = (parser.peek_nth_token_ref(0), parser.peek_nth_token_ref(1));
    first.token == Token::ShiftRight
        && second.token == Token::Gt
        && first.span.end == second.span.start
}

/// Whether `keyword (` starts something other than a call. All other words before a parenthesis are functions in
/// Spark, also those (`left`, `map`, `struct`, `floor`, ...) for which the parser has forms of its own.
fn has_own_grammar(keyword: Keyword, parser: &Parser) -> bool {
    use Keyword::*;
    match keyword {
        NOT | CASE | AND | OR | IN | BETWEEN | DISTINCT | SELECT | FROM | WHERE | LIKE | IS
        | WHEN | THEN | ELSE | END | AS | EXTRACT | SUBSTRING | SUBSTR | POSITION | OVERLAY
        | CAST | TRY_CAST => true,
        EXISTS => {
            let inner = parser.peek_nth_token_ref(2);
            matches!(&inner.token, Token::Word(w) if matches!(w.keyword, SELECT | WITH | VALUES | FROM))
        }
        _ => false,
    }
}

fn string(text: impl Into<String>) -> Expr {
    Expr::value(ast::Value::SingleQuotedString(text.into()))
}

fn form(name: &str, args: Vec<Expr>, span: Span) -> Expr {
    let args = args.into_iter();
    let args = args.map(|arg| ast::FunctionArg::Unnamed(arg.into()));
    call_of(name, args.collect(), span)
}

/// The call of the function `name`.
pub(super) fn call_of(name: &str, args: Vec<ast::FunctionArg>, span: Span) -> Expr {
    Expr::Function(ast::Function {
        name: ObjectName::from(vec![Ident::with_span(span, name)]),
        uses_odbc_syntax: false,
        parameters: ast::FunctionArguments::None,
        args: ast::FunctionArguments::List(ast::FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

fn cast(parser: &mut Parser, name: &str) -> Result<Expr, ParserError> {
    let span = parser.next_token().span;
    parser.expect_token(&Token::LParen)?;
    let value = parser.parse_expr()?;
    parser.expect_keyword(Keyword::AS)?;
    let mut text = String::new();
    let mut depth = 0;
    loop {
        match &parser.peek_token_ref().token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => break,
            Token::RParen => depth -= 1,
            Token::EOF => return parser.expected("a type and )", parser.peek_token()),
            _ => {}
        }
        text.push_str(&parser.next_token().token.to_string());
        text.push(' ');
    }
    parser.expect_token(&Token::RParen)?;
    let form_name = if name.eq_ignore_ascii_case("cast") {
        FORM_CAST
    } else {
        FORM_TRY_CAST
    };
    Ok(form(form_name, vec![value, string(text.trim_end())], span))
}

/// Whether the call that comes next has an `AS` of its own.
fn names_fields(parser: &Parser) -> bool {
    let mut depth = 0;
    for nth in 1.. {
        match &parser.peek_nth_token_ref(nth).token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 1 => return false,
            Token::RParen => depth -= 1,
            Token::Word(word) if word.keyword == Keyword::AS && depth == 1 => return true,
            Token::EOF => return false,
            _ => {}
        }
    }
    false
}

/// `STRUCT(a AS x, b + 1 AS y, c)`.
fn named_fields(parser: &mut Parser) -> Result<Expr, ParserError> {
    let span = parser.next_token().span;
    parser.expect_token(&Token::LParen)?;
    let mut fields = vec![];
    loop {
        let field = parser.parse_wildcard_expr()?;
        fields.push(match parser.parse_keyword(Keyword::AS) {
            true => Expr::Named {
                expr: Box::new(field),
                name: parser.parse_identifier()?,
            },
            false => field,
        });
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    parser.expect_token(&Token::RParen)?;
    Ok(form("struct", fields, span))
}

/// `EXTRACT(unit FROM value)`, the unit as written.
fn extract(parser: &mut Parser) -> Result<Expr, ParserError> {
    let span = parser.next_token().span;
    parser.expect_token(&Token::LParen)?;
    let unit = match parser.next_token().token {
        Token::Word(word) => word.value,
        Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) => text,
        _ => {
            parser.prev_token();
            return parser.expected("a unit", parser.peek_token());
        }
    };
    parser.expect_keyword(Keyword::FROM)?;
    let value = parser.parse_expr()?;
    parser.expect_token(&Token::RParen)?;
    Ok(form("extract", vec![string(unit), value], span))
}

/// `TRIM(BOTH 'x' FROM s)`, `TRIM(LEADING FROM s)`, `TRIM('x' FROM s)`.
fn special_trim(parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
    let mut trim = || {
        let span = parser.next_token().span;
        parser.expect_token(&Token::LParen)?;
        let side =
            parser.parse_one_of_keywords(&[Keyword::BOTH, Keyword::LEADING, Keyword::TRAILING]);
        let mut args = vec![];
        if !parser.parse_keyword(Keyword::FROM) {
            args.push(parser.parse_expr()?);
            if !parser.parse_keyword(Keyword::FROM) {
                if side.is_some() || args.len() > 1 {
                    return parser.expected("FROM", parser.peek_token());
                }
                while parser.consume_token(&Token::Comma) {
                    args.push(parser.parse_expr()?);
                }
                parser.expect_token(&Token::RParen)?;
                return Ok(form("trim", args, span));
            }
        }
        args.insert(0, parser.parse_expr()?);
        parser.expect_token(&Token::RParen)?;
        let name = match side {
            Some(Keyword::LEADING) => "ltrim",
            Some(Keyword::TRAILING) => "rtrim",
            _ => "trim",
        };
        // Called with two arguments, these functions take the characters first and the text last.
        args.reverse();
        Ok(form(name, args, span))
    };
    Some(trim())
}

const UNITS: [&str; 9] = [
    "year",
    "quarter",
    "month",
    "week",
    "day",
    "hour",
    "minute",
    "second",
    "millisecond",
];

fn unit(parser: &Parser, nth: usize) -> Option<String> {
    let Token::Word(word) = &parser.peek_nth_token_ref(nth).token else {
        return None;
    };
    let lower = word.value.to_lowercase();
    let single = lower.strip_suffix('s').unwrap_or(&lower);
    (UNITS.contains(&single) || single == "microsecond").then(|| single.to_string())
}

/// `INTERVAL 1 DAY 2 HOURS`, `INTERVAL '1 day'`, `INTERVAL '1 02:03:04' DAY TO SECOND`; else `interval` is a name.
fn interval(parser: &mut Parser) -> Result<Option<Expr>, ParserError> {
    let mut text = String::new();
    let mut ahead = 1;
    loop {
        let minus = parser.peek_nth_token_ref(ahead).token == Token::Minus;
        let value = match &parser.peek_nth_token_ref(ahead + usize::from(minus)).token {
            Token::Number(number, _) => number.clone(),
            Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) => text.clone(),
            _ => break,
        };
        let after = ahead + usize::from(minus) + 1;
        let sign = if minus { "-" } else { "" };
        let span = parser.peek_token_ref().span;
        let Some(from) = unit(parser, after) else {
            if !text.is_empty() {
                break;
            }
            if matches!(
                parser.peek_nth_token_ref(after - 1).token,
                Token::Number(..)
            ) {
                return Ok(None);
            }
            skip(parser, after);
            return Ok(Some(form(
                FORM_INTERVAL,
                vec![string(format!("{sign}{value}"))],
                span,
            )));
        };
        let is_to = matches!(&parser.peek_nth_token_ref(after + 1).token, Token::Word(w) if w.keyword == Keyword::TO);
        if is_to && text.is_empty() {
            let Some(to) = unit(parser, after + 2) else {
                return parser.expected("a unit", parser.peek_nth_token(after + 2));
            };
            skip(parser, after + 3);
            let value = string(format!("{sign}{value}"));
            return Ok(Some(form(
                FORM_INTERVAL,
                vec![value, string(from), string(to)],
                span,
            )));
        }
        text.push_str(&format!("{sign}{value} {from} "));
        ahead = after + 1;
    }
    if text.is_empty() {
        return Ok(None);
    }
    let span = parser.peek_token_ref().span;
    skip(parser, ahead);
    Ok(Some(form(
        FORM_INTERVAL,
        vec![string(text.trim_end())],
        span,
    )))
}

fn skip(parser: &mut Parser, tokens: usize) {
    for _ in 0..tokens {
        parser.next_token();
    }
}
