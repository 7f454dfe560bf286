//! Expressions of the parser's AST to ours.

use std::cell::{Cell, RefCell};

use sqlparser::ast::{self, Expr as Sql, Spanned};
use sqlparser::tokenizer::Span;

use super::dialect::{FORM_CAST, FORM_INTERVAL, FORM_TRY_CAST, FORM_TYPED, SHIFT_RIGHT_UNSIGNED};
use super::quantified::quantified;
use super::tokens::STREAM;
use super::{literal, query, tokens};
use crate::error::{Place, QueryError};
use crate::expr::{
    BinaryOp, Bound, Call, Expr, Frame, Groupings, IsTest, LikeKind, Literal, Quantifier, UnaryOp,
    Window, lit,
};

type Result<T> = std::result::Result<T, QueryError>;

/// How deep operators may nest. Deeper text would overflow a worker's stack in one of the passes that follow.
const DEPTH_MAX: usize = 200;

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Runs one step of the descent, refusing what is too deep.
pub(super) fn descend<T>(step: impl FnOnce() -> Result<T>) -> Result<T> {
    let depth = DEPTH.get();
    if depth >= DEPTH_MAX {
        return Err(QueryError::unsupported("an expression nested this deep"));
    }
    DEPTH.set(depth + 1);
    let result = step();
    DEPTH.set(depth);
    result
}

pub(super) fn start(span: Span) -> Option<Place> {
    tokens::place(span.start)
}

pub(super) fn unsupported(what: impl std::fmt::Display, span: Span) -> QueryError {
    QueryError::unsupported(what).at(start(span))
}

/// One item of a select list.
pub(super) fn select_item(item: ast::SelectItem) -> Result<Expr> {
    Ok(match item {
        ast::SelectItem::UnnamedExpr(expr) => lower(expr)?,
        ast::SelectItem::ExprWithAlias { expr, alias } => lower(expr)?.alias(alias.value),
        ast::SelectItem::ExprWithAliases { expr, aliases } => {
            lower(expr)?.alias_all(aliases.into_iter().map(|a| a.value))
        }
        ast::SelectItem::Wildcard(options) => star(vec![], options)?,
        ast::SelectItem::QualifiedWildcard(kind, options) => match kind {
            ast::SelectItemQualifiedWildcardKind::ObjectName(name) => {
                star(object_name(name)?, options)?
            }
            ast::SelectItemQualifiedWildcardKind::Expr(expr) => {
                return Err(unsupported("expression.*", expr.span()));
            }
        },
    })
}

fn star(qualifier: Vec<String>, options: ast::WildcardAdditionalOptions) -> Result<Expr> {
    let ast::WildcardAdditionalOptions {
        wildcard_token,
        opt_ilike,
        opt_exclude,
        opt_except,
        opt_replace,
        opt_rename,
        opt_alias,
    } = options;
    let span = wildcard_token.0.span;
    if opt_ilike.is_some()
        || opt_exclude.is_some()
        || opt_replace.is_some()
        || opt_rename.is_some()
        || opt_alias.is_some()
    {
        return Err(unsupported("this option of *", span));
    }
    let mut except = vec![];
    if let Some(ast::ExceptSelectItem {
        first_element,
        additional_elements,
    }) = opt_except
    {
        except.extend(
            std::iter::once(first_element)
                .chain(additional_elements)
                .map(|i| i.value),
        );
    }
    Ok(Expr::Star {
        qualifier,
        except,
        place: start(span),
    })
}

/// The parts of a name.
pub(super) fn object_name(name: ast::ObjectName) -> Result<Vec<String>> {
    let parts = name.0.into_iter().map(|part| match part {
        ast::ObjectNamePart::Identifier(ident) => Ok(ident.value),
        ast::ObjectNamePart::Function(_) => {
            Err(QueryError::unsupported("a name made by a function"))
        }
    });
    parts.collect()
}

fn boxed(expr: Sql) -> Result<Box<Expr>> {
    lower(expr).map(Box::new)
}

pub(super) fn all(exprs: Vec<Sql>) -> Result<Vec<Expr>> {
    exprs.into_iter().map(lower).collect()
}

/// The expression, names and functions not looked up.
pub(super) fn lower(expr: Sql) -> Result<Expr> {
    descend(|| lower_inner(expr))
}

fn lower_inner(expr: Sql) -> Result<Expr> {
    let span = expr.span();
    let is = |expr: Box<Sql>, test, negated| {
        Ok(Expr::Is {
            expr: boxed(*expr)?,
            test,
            negated,
        })
    };
    match expr {
        Sql::Named { expr, name } => Ok(Expr::Alias {
            expr: boxed(*expr)?,
            names: vec![name.value],
        }),
        Sql::Identifier(ident) => {
            let place = start(ident.span);
            Ok(Expr::Column {
                name: vec![ident.value],
                place,
            })
        }
        Sql::CompoundIdentifier(idents) => Ok(Expr::Column {
            name: idents.into_iter().map(|i| i.value).collect(),
            place: start(span),
        }),
        Sql::CompoundFieldAccess { root, access_chain } => {
            // Of `t.a[0]` the parser takes `t` for a value and `a` for its field.
            let mut is_name = matches!(*root, Sql::Identifier(_) | Sql::CompoundIdentifier(_));
            let mut expr = lower(*root)?;
            for access in access_chain {
                is_name &= matches!(access, ast::AccessExpr::Dot(_));
                expr = match access {
                    ast::AccessExpr::Dot(Sql::Identifier(part)) if is_name => match expr {
                        Expr::Column { mut name, place } => {
                            name.push(part.value);
                            Expr::Column { name, place }
                        }
                        other => other.field(part.value),
                    },
                    ast::AccessExpr::Dot(Sql::Identifier(name)) => Expr::Field {
                        expr: Box::new(expr),
                        name: name.value,
                        place: start(name.span),
                    },
                    ast::AccessExpr::Dot(_) => return Err(unsupported("this field access", span)),
                    ast::AccessExpr::Subscript(ast::Subscript::Index { index }) => {
                        expr.item(lower(index)?)
                    }
                    ast::AccessExpr::Subscript(ast::Subscript::Slice { .. }) => {
                        return Err(unsupported("a slice in brackets", span));
                    }
                };
            }
            Ok(expr)
        }
        Sql::IsFalse(e) => is(e, IsTest::False, false),
        Sql::IsNotFalse(e) => is(e, IsTest::False, true),
        Sql::IsTrue(e) => is(e, IsTest::True, false),
        Sql::IsNotTrue(e) => is(e, IsTest::True, true),
        Sql::IsNull(e) => is(e, IsTest::Null, false),
        Sql::IsNotNull(e) => is(e, IsTest::Null, true),
        Sql::IsUnknown(e) => is(e, IsTest::Unknown, false),
        Sql::IsNotUnknown(e) => is(e, IsTest::Unknown, true),
        Sql::IsDistinctFrom(a, b) => Ok(!lower(*a)?.eq_null_safe(lower(*b)?)),
        Sql::IsNotDistinctFrom(a, b) => Ok(lower(*a)?.eq_null_safe(lower(*b)?)),
        Sql::InList {
            expr,
            list,
            negated,
        } => Ok(Expr::In {
            expr: boxed(*expr)?,
            list: all(list)?,
            negated,
        }),
        Sql::InSubquery {
            expr,
            subquery,
            negated,
        } => {
            let plan = Box::new(query::query(*subquery)?);
            Ok(Expr::InSubquery {
                expr: boxed(*expr)?,
                plan,
                negated,
            })
        }
        Sql::Between {
            expr,
            negated,
            low,
            high,
        } => Ok(Expr::Between {
            expr: boxed(*expr)?,
            low: boxed(*low)?,
            high: boxed(*high)?,
            negated,
        }),
        Sql::BinaryOp { left, op, right } => binary(*left, op, *right, span),
        Sql::Like {
            negated,
            any,
            expr,
            pattern,
            escape_char,
        } => like(LikeKind::Like, negated, any, *expr, *pattern, escape_char),
        Sql::ILike {
            negated,
            any,
            expr,
            pattern,
            escape_char,
        } => like(LikeKind::ILike, negated, any, *expr, *pattern, escape_char),
        Sql::RLike {
            negated,
            expr,
            pattern,
            regexp: _,
        } => like(LikeKind::RLike, negated, false, *expr, *pattern, None),
        Sql::UnaryOp { op, expr } => unary(op, *expr, span),
        Sql::Cast {
            kind: ast::CastKind::DoubleColon,
            expr,
            data_type,
            array: false,
            format: None,
        } => Ok(Expr::Cast {
            expr: boxed(*expr)?,
            to: data_type.to_string(),
            attempt: false,
            place: start(span),
        }),
        Sql::Position { expr, r#in } => {
            Ok(Expr::call("position", vec![lower(*expr)?, lower(*r#in)?]))
        }
        Sql::Substring {
            expr,
            substring_from,
            substring_for,
            special: _,
            shorthand,
        } => {
            let mut args = vec![lower(*expr)?];
            match (substring_from, substring_for) {
                (Some(from), None) => args.push(lower(*from)?),
                (Some(from), Some(len)) => args.extend([lower(*from)?, lower(*len)?]),
                (None, Some(len)) => args.extend([lit(1), lower(*len)?]),
                (None, None) => {}
            }
            let name = if shorthand { "substr" } else { "substring" };
            Ok(Expr::call(name, args))
        }
        Sql::Overlay {
            expr,
            overlay_what,
            overlay_from,
            overlay_for,
        } => {
            let mut args = vec![lower(*expr)?, lower(*overlay_what)?, lower(*overlay_from)?];
            args.extend(overlay_for.map(|e| lower(*e)).transpose()?);
            Ok(Expr::call("overlay", args))
        }
        Sql::Nested(inner) => lower(*inner),
        Sql::Value(value) => constant(value, false),
        Sql::Function(function) => function_call(function, span),
        Sql::Case {
            case_token: _,
            end_token: _,
            operand,
            conditions,
            else_result,
        } => {
            let branches = conditions
                .into_iter()
                .map(|ast::CaseWhen { condition, result }| Ok((lower(condition)?, lower(result)?)));
            Ok(Expr::Case {
                operand: operand.map(|e| boxed(*e)).transpose()?,
                branches: branches.collect::<Result<_>>()?,
                otherwise: else_result.map(|e| boxed(*e)).transpose()?,
            })
        }
        Sql::Exists { subquery, negated } => Ok(Expr::Exists {
            plan: Box::new(query::query(*subquery)?),
            negated,
        }),
        Sql::Subquery(subquery) => Ok(Expr::Subquery(Box::new(query::query(*subquery)?))),
        // `()` has a meaning in GROUPING SETS only.
        Sql::Tuple(exprs) if exprs.is_empty() => Err(super::near(")", None)),
        Sql::Tuple(exprs) => Ok(Expr::Tuple(all(exprs)?)),
        Sql::Wildcard(token) => Ok(Expr::Star {
            qualifier: vec![],
            except: vec![],
            place: start(token.0.span),
        }),
        Sql::QualifiedWildcard(name, token) => Ok(Expr::Star {
            qualifier: object_name(name)?,
            except: vec![],
            place: start(token.0.span),
        }),
        Sql::Lambda(ast::LambdaFunction {
            params,
            body,
            syntax: _,
        }) => {
            let params = match params {
                ast::OneOrManyWithParens::One(one) => vec![one],
                ast::OneOrManyWithParens::Many(many) => many,
            };
            if params.iter().any(|p| p.data_type.is_some()) {
                return Err(unsupported("a typed lambda parameter", span));
            }
            let params = params.into_iter().map(|p| p.name.value).collect();
            Ok(Expr::Lambda {
                params,
                body: boxed(*body)?,
            })
        }
        Sql::TypedString(ast::TypedString {
            data_type,
            value,
            uses_odbc_syntax: false,
        }) => match value.value.into_string() {
            Some(text) => typed(data_type.to_string().to_lowercase(), text, start(span)),
            None => Err(unsupported(format!("a {data_type} constant"), span)),
        },
        Sql::AnyOp {
            left,
            compare_op,
            right,
            is_some: _,
        } => quantified(*left, compare_op, *right, span, true),
        Sql::AllOp {
            left,
            compare_op,
            right,
        } => quantified(*left, compare_op, *right, span, false),
        other => {
            let text = other.to_string();
            let text = text.replace(&format!("`{STREAM}`."), "STREAM ");
            Err(unsupported(format!("the expression {text}"), span))
        }
    }
}

fn typed(kind: String, text: String, place: Option<Place>) -> Result<Expr> {
    match kind.as_str() {
        "x" => match hex_bytes(&text) {
            Some(bytes) => Ok(lit(bytes)),
            None => Err(QueryError::new(
                "INVALID_TYPED_LITERAL",
                format!("X'{text}' is not hexadecimal"),
            )
            .at(place)),
        },
        "date" | "timestamp" | "timestamp_ntz" | "timestamp_ltz" => {
            Ok(Expr::TypedText { kind, text, place })
        }
        other => Err(QueryError::new(
            "UNSUPPORTED_TYPED_LITERAL",
            format!("{other} literals do not exist"),
        )
        .at(place)),
    }
}

fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).map(|d| d as u8))
        .collect();
    let mut digits = digits?;
    if !digits.len().is_multiple_of(2) {
        digits.insert(0, 0);
    }
    Some(
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect(),
    )
}

fn constant(value: ast::ValueWithSpan, negative: bool) -> Result<Expr> {
    use ast::Value;
    let ast::ValueWithSpan { value, span } = value;
    Ok(match value {
        Value::Number(text, _) => {
            Expr::Literal(literal::number(&text, negative, start(span))?, start(span))
        }
        Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => {
            Expr::Literal(text.into(), start(span))
        }
        Value::HexStringLiteral(text) => typed("x".into(), text, start(span))?,
        Value::Boolean(value) => Expr::Literal(value.into(), start(span)),
        Value::Null => Expr::Literal(Literal::Null, start(span)),
        other => return Err(unsupported(format!("the constant {other}"), span)),
    })
}

fn unary(op: ast::UnaryOperator, expr: Sql, span: Span) -> Result<Expr> {
    let op = match op {
        ast::UnaryOperator::Minus => {
            if let Sql::Value(value) = expr {
                return match value.value {
                    ast::Value::Number(..) => constant(value, true),
                    _ => Ok(-constant(value, false)?),
                };
            }
            UnaryOp::Minus
        }
        ast::UnaryOperator::Plus => UnaryOp::Plus,
        ast::UnaryOperator::Not | ast::UnaryOperator::BangNot => UnaryOp::Not,
        ast::UnaryOperator::BitwiseNot => UnaryOp::BitNot,
        other => return Err(unsupported(format!("the operator {other}"), span)),
    };
    Ok(Expr::Unary {
        op,
        expr: boxed(expr)?,
    })
}

pub(super) fn binary(left: Sql, op: ast::BinaryOperator, right: Sql, span: Span) -> Result<Expr> {
    use ast::BinaryOperator as Op;
    let op = match op {
        Op::Plus => BinaryOp::Add,
        Op::Minus => BinaryOp::Subtract,
        Op::Multiply => BinaryOp::Multiply,
        Op::Divide => BinaryOp::Divide,
        Op::Modulo => BinaryOp::Remainder,
        Op::MyIntegerDivide => BinaryOp::IntegerDivide,
        Op::StringConcat => BinaryOp::Concat,
        Op::Gt => BinaryOp::Gt,
        Op::Lt => BinaryOp::Lt,
        Op::GtEq => BinaryOp::GtEq,
        Op::LtEq => BinaryOp::LtEq,
        Op::Spaceship => BinaryOp::NullSafeEq,
        Op::Eq => BinaryOp::Eq,
        Op::NotEq => BinaryOp::NotEq,
        Op::And => BinaryOp::And,
        Op::Or => BinaryOp::Or,
        Op::BitwiseOr => BinaryOp::BitOr,
        Op::BitwiseAnd => BinaryOp::BitAnd,
        Op::BitwiseXor => BinaryOp::BitXor,
        Op::PGBitwiseShiftLeft => BinaryOp::ShiftLeft,
        Op::PGBitwiseShiftRight => BinaryOp::ShiftRight,
        Op::Custom(op) if op == SHIFT_RIGHT_UNSIGNED => BinaryOp::ShiftRightUnsigned,
        other => return Err(unsupported(format!("the operator {other}"), span)),
    };
    Ok(Expr::Binary {
        left: boxed(left)?,
        op,
        right: boxed(right)?,
        place: start(span),
    })
}

fn like(
    kind: LikeKind,
    negated: bool,
    any: bool,
    expr: Sql,
    pattern: Sql,
    escape: Option<ast::ValueWithSpan>,
) -> Result<Expr> {
    let escape = match escape {
        None => None,
        Some(value) => {
            let span = value.span;
            let text = value.value.into_string().unwrap_or_default();
            let mut chars = text.chars();
            match (chars.next(), chars.next()) {
                (Some(escape), None) => Some(escape),
                _ => {
                    let message = "the escape character must be one character";
                    return Err(QueryError::new("INVALID_ESCAPE_CHAR", message).at(start(span)));
                }
            }
        }
    };
    let (patterns, quantifier) = match (any, pattern) {
        (true, Sql::Tuple(patterns)) => (all(patterns)?, Quantifier::Any),
        (true, Sql::Nested(one)) => (vec![lower(*one)?], Quantifier::Any),
        // The parser takes ALL and SOME for names of functions here.
        (false, Sql::Function(call)) if quantifier_of(&call).is_some() => {
            let quantifier = quantifier_of(&call).unwrap_or(Quantifier::All);
            match function_call(call, Span::empty())? {
                Expr::Call(call) => (call.args, quantifier),
                other => (vec![other], Quantifier::One),
            }
        }
        (_, pattern) => (vec![lower(pattern)?], Quantifier::One),
    };
    Ok(Expr::Like {
        kind,
        expr: boxed(expr)?,
        patterns,
        quantifier,
        escape,
        negated,
    })
}

fn quantifier_of(call: &ast::Function) -> Option<Quantifier> {
    match call.name.to_string().to_lowercase().as_str() {
        "all" => Some(Quantifier::All),
        "any" | "some" => Some(Quantifier::Any),
        _ => None,
    }
}

/// `expr [ASC|DESC] [NULLS FIRST|LAST]`.
pub(super) fn sort_key(key: ast::OrderByExpr) -> Result<Expr> {
    let ast::OrderByExpr {
        expr,
        options: ast::OrderByOptions { asc, nulls_first },
        with_fill,
    } = key;
    if with_fill.is_some() {
        return Err(unsupported("WITH FILL", expr.span()));
    }
    Ok(Expr::Sort {
        expr: boxed(expr)?,
        ascending: asc.unwrap_or(true),
        nulls_first,
    })
}

pub(super) fn sort_keys(keys: Vec<ast::OrderByExpr>) -> Result<Vec<Expr>> {
    keys.into_iter().map(sort_key).collect()
}

/// Functions whose first argument may be a bare unit, as in `timestampdiff(DAY, a, b)`.
const TAKE_UNIT: [&str; 6] = [
    "timestampdiff",
    "timestampadd",
    "dateadd",
    "datediff",
    "date_add",
    "date_diff",
];

fn function_call(function: ast::Function, span: Span) -> Result<Expr> {
    let ast::Function {
        name,
        uses_odbc_syntax,
        parameters,
        args,
        filter,
        null_treatment,
        over,
        within_group,
    } = function;
    let span = name.0.first().map_or(span, |part| part.span());
    let place = start(span);
    let name = object_name(name)?.join(".");
    if uses_odbc_syntax || parameters != ast::FunctionArguments::None {
        return Err(unsupported(format!("this form of calling {name}"), span));
    }
    let mut nulls = null_treatment;
    let mut order_by = sort_keys(within_group)?;
    let (args, distinct) = match args {
        ast::FunctionArguments::None => (vec![], false),
        ast::FunctionArguments::Subquery(subquery) => {
            return Ok(Expr::call(
                name,
                vec![Expr::Subquery(Box::new(query::query(*subquery)?))],
            ));
        }
        ast::FunctionArguments::List(list) => {
            let ast::FunctionArgumentList {
                duplicate_treatment,
                args,
                clauses,
            } = list;
            for clause in clauses {
                match clause {
                    ast::FunctionArgumentClause::IgnoreOrRespectNulls(treatment) => {
                        nulls = Some(treatment)
                    }
                    ast::FunctionArgumentClause::OrderBy(keys) => order_by.extend(sort_keys(keys)?),
                    other => return Err(unsupported(format!("{other} in a call of {name}"), span)),
                }
            }
            let distinct = matches!(duplicate_treatment, Some(ast::DuplicateTreatment::Distinct));
            (
                args.into_iter()
                    .map(|arg| argument(arg, &name))
                    .collect::<Result<Vec<_>>>()?,
                distinct,
            )
        }
    };
    if let Some(form) = special_form(&name, &args, place) {
        return form;
    }
    let mut args = args;
    if TAKE_UNIT.contains(&name.to_lowercase().as_str())
        && args.len() == 3
        && let Some(Expr::Column { name: unit, .. }) = args.first()
        && let [unit] = unit.as_slice()
    {
        args[0] = lit(unit.to_lowercase());
    }
    let ignore_nulls = nulls.map(|n| n == ast::NullTreatment::IgnoreNulls);
    let over = over.map(window).transpose()?;
    let filter = filter.map(|f| lower(*f)).transpose()?;
    Ok(Call {
        name,
        args,
        distinct,
        filter,
        order_by,
        ignore_nulls,
        over,
        place,
    }
    .into())
}

fn argument(arg: ast::FunctionArg, function: &str) -> Result<Expr> {
    let star_of = |qualifier| Expr::Star {
        qualifier,
        except: vec![],
        place: None,
    };
    match arg {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => lower(expr),
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard) => Ok(star_of(vec![])),
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::QualifiedWildcard(name)) => {
            Ok(star_of(object_name(name)?))
        }
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::WildcardWithOptions(options)) => {
            star(vec![], options)
        }
        other => Err(QueryError::unsupported(format!(
            "the named argument {other} of {function}"
        ))),
    }
}

/// The forms that the dialect hands over as calls.
fn special_form(name: &str, args: &[Expr], place: Option<Place>) -> Option<Result<Expr>> {
    let text = |i: usize| match args.get(i) {
        Some(Expr::Literal(Literal::String(text), _)) => text.clone(),
        _ => String::new(),
    };
    let located = |result: Result<Literal>| {
        Some(
            result
                .map(|literal| Expr::Literal(literal, place))
                .map_err(|e| e.at(place)),
        )
    };
    match name {
        FORM_CAST | FORM_TRY_CAST => {
            let attempt = name == FORM_TRY_CAST;
            let expr = Box::new(args.first()?.clone());
            Some(Ok(Expr::Cast {
                expr,
                to: text(1),
                attempt,
                place,
            }))
        }
        FORM_INTERVAL if args.len() == 1 => located(literal::interval(&text(0))),
        FORM_INTERVAL => located(literal::interval_range(&text(0), &text(1), &text(2))),
        FORM_TYPED => Some(typed(text(0), text(1), place)),
        _ => None,
    }
}

thread_local! {
    /// The windows that the WINDOW clause of the SELECT being lowered names.
    static NAMED: RefCell<Vec<(String, Window)>> = const { RefCell::new(vec![]) };
}

/// Lowers a SELECT, in which these windows have names.
pub(super) fn with_named_windows<T>(
    named: Vec<ast::NamedWindowDefinition>,
    lower: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let around = NAMED.take();
    let resolved = (|| {
        for ast::NamedWindowDefinition(name, window) in named {
            let window = match window {
                ast::NamedWindowExpr::NamedWindow(other) => named_window(&other)?,
                ast::NamedWindowExpr::WindowSpec(spec) => window_spec(spec)?,
            };
            NAMED.with_borrow_mut(|named| named.push((name.value, window)));
        }
        lower()
    })();
    NAMED.set(around);
    resolved
}

fn named_window(name: &ast::Ident) -> Result<Window> {
    let found = NAMED.with_borrow(|named| {
        let mut named = named.iter();
        let found = named.find(|(known, _)| known.eq_ignore_ascii_case(&name.value));
        found.map(|(_, window)| window.clone())
    });
    found.ok_or_else(|| {
        let message = format!(
            "Window specification is not defined in the WINDOW clause for {}.",
            name.value
        );
        QueryError::new("MISSING_WINDOW_SPECIFICATION", message).at(start(name.span))
    })
}

fn window(over: ast::WindowType) -> Result<Window> {
    match over {
        ast::WindowType::NamedWindow(name) => named_window(&name),
        ast::WindowType::WindowSpec(spec) => window_spec(spec),
    }
}

fn window_spec(spec: ast::WindowSpec) -> Result<Window> {
    let ast::WindowSpec {
        window_name,
        partition_by,
        order_by,
        window_frame,
    } = spec;
    if let Some(name) = window_name {
        if !partition_by.is_empty() || !order_by.is_empty() || window_frame.is_some() {
            return Err(unsupported("a named window with clauses added", name.span));
        }
        return named_window(&name);
    }
    let frame = window_frame.map(|frame| {
        let ast::WindowFrame {
            units,
            start_bound,
            end_bound,
        } = frame;
        let rows = match units {
            ast::WindowFrameUnits::Rows => true,
            ast::WindowFrameUnits::Range => false,
            ast::WindowFrameUnits::Groups => return Err(QueryError::unsupported("GROUPS BETWEEN")),
        };
        let bound = |bound: ast::WindowFrameBound| -> Result<Bound> {
            Ok(match bound {
                ast::WindowFrameBound::CurrentRow => Bound::CurrentRow,
                ast::WindowFrameBound::Preceding(None) => Bound::UnboundedPreceding,
                ast::WindowFrameBound::Following(None) => Bound::UnboundedFollowing,
                ast::WindowFrameBound::Preceding(Some(n)) => Bound::Preceding(lower(*n)?),
                ast::WindowFrameBound::Following(Some(n)) => Bound::Following(lower(*n)?),
            })
        };
        Ok(Frame {
            rows,
            start: bound(start_bound)?,
            end: end_bound.map_or(Ok(Bound::CurrentRow), bound)?,
        })
    });
    Ok(Window {
        partition_by: all(partition_by)?,
        order_by: sort_keys(order_by)?,
        frame: frame.transpose()?,
    })
}

/// The keys of a GROUP BY.
pub(super) fn group_keys(
    keys: Vec<Sql>,
    modifiers: Vec<ast::GroupByWithModifier>,
) -> Result<Vec<Expr>> {
    let keys = keys.into_iter().map(|key| {
        let (kind, sets) = match key {
            Sql::GroupingSets(sets) => (Groupings::Sets, sets),
            Sql::Rollup(sets) => (Groupings::Rollup, sets),
            Sql::Cube(sets) => (Groupings::Cube, sets),
            other => return lower(other),
        };
        let sets = sets.into_iter().map(all).collect::<Result<_>>()?;
        Ok(Expr::Groupings { kind, sets })
    });
    let keys = keys.collect::<Result<Vec<Expr>>>()?;
    let mut modifiers = modifiers.into_iter();
    let (modifier, None) = (modifiers.next(), modifiers.next()) else {
        return Err(QueryError::unsupported("several WITH after GROUP BY"));
    };
    let each = |keys: Vec<Expr>| keys.into_iter().map(|key| vec![key]).collect();
    let (kind, sets) = match modifier {
        None => return Ok(keys),
        Some(ast::GroupByWithModifier::Rollup) => (Groupings::Rollup, each(keys)),
        Some(ast::GroupByWithModifier::Cube) => (Groupings::Cube, each(keys)),
        // GROUP BY a, b GROUPING SETS (...): the keys in front only say their order.
        Some(ast::GroupByWithModifier::GroupingSets(Sql::GroupingSets(sets))) => {
            let sets = sets.into_iter().map(all).collect::<Result<_>>()?;
            (Groupings::Sets, sets)
        }
        Some(other) => return Err(QueryError::unsupported(other)),
    };
    Ok(vec![Expr::Groupings { kind, sets }])
}
