//! Expressions: names bound, types settled, implementations picked.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr as DfExpr, SortExpr};

use super::Env;
use super::grouping::Grouping;
use super::name::{Names, field_name, literal_text, pretty};
use super::scope::{ScopeColumn, lookup, unknown_column};
use super::subquery::Subqueries;
use crate::coerce;
use crate::error::{Place, QueryError};
use crate::expr::{BinaryOp, Call, Expr, IsTest, LikeKind, Literal, Quantifier, UnaryOp};
use crate::functions::kernel::Typed;
use crate::functions::{
    self, aggregate, arithmetic, bits, cast, compare, conditional, lambda, nested, over, pattern,
};
use crate::types::{TIMESTAMP_NTZ, parse_type, timestamp, type_sql};

type Result<T> = std::result::Result<T, QueryError>;

/// Resolves expressions over the columns of one scope.
#[derive(Clone, Copy)]
pub(super) struct Exprs<'r> {
    pub(super) env: &'r Env<'r>,
    pub(super) columns: &'r [ScopeColumn],
    /// Names that the select list gives, for clauses that may use them.
    pub(super) aliases: &'r [(String, Expr)],
    /// Whether those names win over columns, as in HAVING.
    pub(super) aliases_first: bool,
    /// Whether aggregate functions may be called here; if not, the clause that forbids them.
    pub(super) aggregates: std::result::Result<(), &'static str>,
    /// Whether functions of a window may be called here; if not, the clause that forbids them.
    pub(super) over: std::result::Result<(), &'static str>,
    /// Whether subqueries may stand here.
    pub(super) subqueries: Subqueries,
    /// What `grouping` may ask about.
    pub(super) grouping: Option<&'r Grouping>,
    /// The parameters of the lambdas around, the innermost last.
    pub(super) lambdas: &'r [(String, Typed)],
}

impl<'r> Exprs<'r> {
    pub(super) fn over(env: &'r Env<'r>, columns: &'r [ScopeColumn], clause: &'static str) -> Self {
        Exprs {
            env,
            columns,
            aliases: &[],
            aliases_first: false,
            aggregates: Err(clause),
            over: Err(clause),
            subqueries: Subqueries::Refused,
            grouping: None,
            lambdas: &[],
        }
    }

    pub(super) fn case_sensitive(&self) -> bool {
        self.env.conf.case_sensitive
    }

    /// The expression as Spark prints it.
    pub(super) fn text(&self, expr: &Expr) -> String {
        pretty(
            expr,
            &Names::unqualified(self.columns, self.case_sensitive()),
        )
    }

    /// An item of a select list, with the name that it is given.
    pub(super) fn item_text(&self, item: &Expr) -> String {
        match item {
            Expr::Alias { names, .. } => format!("{} AS {}", self.text(item), names.join(", ")),
            _ => self.text(item),
        }
    }

    /// The expression with the names of its columns in full.
    fn qualified_text(&self, expr: &Expr) -> String {
        pretty(expr, &Names::in_full(self.columns, self.case_sensitive()))
    }

    /// A mismatch that a function tells by its name alone, with the call as Spark prints it.
    fn in_full(&self, error: QueryError, name: &str, call: &Expr, args: &[&Expr]) -> QueryError {
        let named = format!("Cannot resolve \"{name}\" due");
        if !error.message().starts_with(&named) {
            return error;
        }
        let error = error.about(name, &self.text(call));
        let ordinal = |nth: usize| format!("The {} parameter", coerce::ordinal(nth));
        match (0..args.len()).find(|nth| error.message().contains(&ordinal(*nth))) {
            Some(nth) => error.naming(&self.text(args[nth])),
            None => error,
        }
    }

    /// A generator is a whole item of a select list, or a LATERAL VIEW.
    fn misplaced_generator(&self) -> QueryError {
        let (kind, place) = match self.aggregates {
            Err("WHERE") => (
                "OUTSIDE_SELECT",
                "outside the SELECT clause, found: 'Filter",
            ),
            Err("GROUP BY") => {
                return QueryError::new(
                    "UNSUPPORTED_EXPR_FOR_OPERATOR",
                    "The query operator Aggregate contains one or more unsupported expressions: a generator is not allowed in GROUP BY; use it in a LATERAL VIEW, and group by its column",
                );
            }
            Err("ORDER BY") => ("OUTSIDE_SELECT", "outside the SELECT clause, found: 'Sort"),
            Err("ON") => ("OUTSIDE_SELECT", "outside the SELECT clause, found: 'Join"),
            _ => ("NESTED_IN_EXPRESSIONS", "nested in expressions"),
        };
        QueryError::new(
            format!("UNSUPPORTED_GENERATOR.{kind}"),
            format!(
                "The generator is not supported: {place}; select it under a name of its own, in a subquery or a LATERAL VIEW, and use the name"
            ),
        )
    }

    fn all(&self, exprs: &[Expr]) -> Result<Vec<Typed>> {
        exprs.iter().map(|e| self.resolve(e)).collect()
    }

    pub(super) fn resolve(&self, expr: &Expr) -> Result<Typed> {
        self.resolved(expr).map_err(|error| error.at(expr.place()))
    }

    fn resolved(&self, expr: &Expr) -> Result<Typed> {
        match expr {
            Expr::Column { name, place } => self.column(name, *place),
            Expr::Literal(literal, _) => Ok(Typed::literal(scalar(literal))),
            Expr::TypedText { kind, text, place } => {
                self.typed_text(kind, text).map_err(|e| e.at(*place))
            }
            Expr::Call(call) => self.call(call).map_err(|e| {
                let args: Vec<&Expr> = call.args.iter().collect();
                let error = self.in_full(e, &call.name.to_lowercase(), expr, &args);
                let schema = args.get(1).map(|arg| self.text(arg)).unwrap_or_default();
                error.with_schema(&schema).at(call.place)
            }),
            Expr::Binary {
                left,
                op,
                right,
                place,
            } => {
                let (l, r) = (self.resolve(left)?, self.resolve(right)?);
                let resolved = match op {
                    BinaryOp::And | BinaryOp::Or => {
                        let wrong = match l.data_type {
                            DataType::Boolean | DataType::Null => right,
                            _ => left,
                        };
                        self.connective(*op, l, r).map_err(|e| e.at(wrong.place()))
                    }
                    op => self.binary(*op, l, r, &self.text(expr)),
                };
                resolved.map_err(|e| self.in_full(e, op.symbol(), expr, &[]).at(*place))
            }
            Expr::Unary {
                op: UnaryOp::Not,
                expr,
            } => self.not(expr),
            Expr::Unary { op, expr: operand } => {
                let value = self.resolve(operand)?;
                let (name, resolved) = match op {
                    UnaryOp::Minus => ("-", arithmetic::negate(value)),
                    UnaryOp::BitNot => ("~", bits::not(value)),
                    UnaryOp::Plus | UnaryOp::Not => ("+", arithmetic::plus(value)),
                };
                resolved.map_err(|e| self.in_full(e, name, expr, &[operand]))
            }
            Expr::Cast {
                expr: inner,
                to,
                attempt,
                place,
            } => {
                let target = parse_type(to).map_err(|e| {
                    QueryError::new(e.class().unwrap_or_default(), e.message()).at(*place)
                })?;
                // Its text tells the units that it was written with.
                if target == DataType::Utf8
                    && let Expr::Literal(literal, _) = &**inner
                    && matches!(literal, Literal::CalendarInterval { units: Some(_), .. })
                {
                    let text = ScalarValue::Utf8(Some(literal_text(literal)));
                    return Ok(Typed::literal(text));
                }
                let value = self.resolve(inner)?;
                cast::explicit(value, &target, *attempt, &self.env.conf.time_zone).map_err(|e| {
                    // What is to become a collection is named alone.
                    let named = if coerce::is_atomic(&target) {
                        expr
                    } else {
                        inner
                    };
                    self.in_full(e, "CAST", named, &[]).at(*place)
                })
            }
            Expr::Case {
                operand,
                branches,
                otherwise,
            } => {
                let conditions: Vec<&Expr> = branches.iter().map(|(when, _)| when).collect();
                self.case(operand.as_deref(), branches, otherwise.as_deref())
                    .map_err(|e| self.in_full(e, "casewhen", expr, &conditions))
            }
            Expr::Alias { expr, .. } => self.resolve(expr),
            Expr::Star { place, .. } => Err(QueryError::new(
                "INVALID_USAGE_OF_STAR_OR_REGEX",
                "Invalid usage of '*' in an expression.",
            )
            .at(*place)),
            Expr::Between {
                expr,
                low,
                high,
                negated,
            } => {
                let text = self.text(expr);
                let value = self.resolve(expr)?;
                let bound = |op: BinaryOp, bound: &Expr| {
                    let text = format!("({text} {} {})", op.symbol(), self.text(bound));
                    compare::compare(op, value.clone(), self.resolve(bound)?, &text)
                        .map_err(|e| e.about(op.symbol(), &text).at(bound.place()))
                };
                let (low, high) = (bound(BinaryOp::GtEq, low)?, bound(BinaryOp::LtEq, high)?);
                Ok(negate_if(*negated, conditional::and(low, high)))
            }
            Expr::In {
                expr: value,
                list,
                negated,
            } => {
                let list = self.all(list)?;
                let found = compare::is_in(self.resolve(value)?, list, &self.text(expr))?;
                Ok(negate_if(*negated, found))
            }
            Expr::Like {
                kind,
                expr: value,
                patterns,
                quantifier,
                escape,
                negated,
            } => {
                let value = self.resolve(value)?;
                self.like(*kind, value, patterns, *quantifier, *escape, *negated)
            }
            Expr::Is {
                expr,
                test,
                negated,
            } => {
                let value = self.resolve(expr)?;
                let tested = match test {
                    IsTest::Null => conditional::is_null(value),
                    IsTest::Unknown => {
                        conditional::is_null(cast::implicit(value, &DataType::Boolean)?)
                    }
                    IsTest::True => {
                        conditional::is_true(cast::implicit(value, &DataType::Boolean)?)
                    }
                    IsTest::False => conditional::is_true(conditional::not(cast::implicit(
                        value,
                        &DataType::Boolean,
                    )?)),
                };
                Ok(negate_if(*negated, tested))
            }
            Expr::Field { expr, name, place } => {
                nested::field(self.resolve(expr)?, name, self.case_sensitive())
                    .map_err(|e| e.taken_from(&self.text(expr)).at(*place))
            }
            Expr::Index { expr: inner, index } => {
                let (value, at) = (self.resolve(inner)?, self.resolve(index)?);
                nested::index(value, at, self.case_sensitive()).map_err(|e| {
                    let e = e.taken_from(&self.text(inner));
                    self.in_full(e, "[]", expr, &[inner, index])
                        .at(index.place())
                })
            }
            Expr::Lambda { .. } => Err(QueryError::new(
                "INVALID_LAMBDA_FUNCTION_CALL.NON_HIGHER_ORDER_FUNCTION",
                "a lambda is only an argument of a function that takes one",
            )),
            Expr::Tuple(exprs) => {
                let values = self.all(exprs)?;
                let names = exprs.iter().enumerate();
                let names = names.map(|(nth, expr)| field_name(nth, expr)).collect();
                Ok(nested::make_struct(names, values))
            }
            Expr::Groupings { .. } => Err(QueryError::new(
                "UNSUPPORTED_GROUPING_EXPRESSION",
                "GROUPING SETS, ROLLUP and CUBE are keys of GROUP BY.",
            )),
            Expr::Sort { .. } => Err(QueryError::unsupported("a sort order outside ORDER BY")),
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
                self.subquery(expr)
            }
            Expr::Resolved(expr) => self.already_resolved(expr),
        }
    }

    fn already_resolved(&self, expr: &DfExpr) -> Result<Typed> {
        use datafusion::common::DFSchema;
        use datafusion::logical_expr::ExprSchemable;
        let fields: Vec<_> = self
            .columns
            .iter()
            .map(|c| {
                let field = arrow::datatypes::Field::new(&c.column.name, c.data_type.clone(), true);
                (c.column.relation.clone(), std::sync::Arc::new(field))
            })
            .collect();
        let schema = DFSchema::new_with_metadata(fields, Default::default())?;
        let data_type = expr.get_type(&schema)?;
        Ok(Typed::new(expr.clone(), data_type))
    }

    fn column(&self, name: &[String], place: Option<Place>) -> Result<Typed> {
        if let Some((_, value)) = self
            .lambdas
            .iter()
            .rev()
            .find(|(n, _)| n.eq_ignore_ascii_case(&name[0]))
        {
            let mut value = value.clone();
            for field in &name[1..] {
                value =
                    nested::field(value, field, self.case_sensitive()).map_err(|e| e.at(place))?;
            }
            return Ok(value);
        }
        let alias = || {
            let same = |alias: &str| {
                if self.case_sensitive() {
                    alias == name[0]
                } else {
                    alias.eq_ignore_ascii_case(&name[0])
                }
            };
            let at = self
                .aliases
                .iter()
                .position(|(alias, _)| name.len() == 1 && same(alias))?;
            // The alias's own expression sees columns and what is further left: `a + 1 AS a` does not mean itself.
            Some(
                Exprs {
                    aliases: &self.aliases[..at],
                    aliases_first: false,
                    ..*self
                }
                .resolve(&self.aliases[at].1),
            )
        };
        if self.aliases_first
            && let Some(found) = alias()
        {
            return found;
        }
        match lookup(self.columns, name, self.case_sensitive()).map_err(|e| e.at(place))? {
            Some(found) => Ok(found),
            None => match alias() {
                Some(found) => found,
                None => match self.env.named_window(&name[0]) {
                    Some(window) => name[1..].iter().try_fold(window, |value, field| {
                        nested::field(value, field, self.case_sensitive()).map_err(|e| e.at(place))
                    }),
                    None => match self.outer_column(name).map_err(|e| e.at(place))? {
                        Some(found) => Ok(found),
                        None => keyword(name, self)
                            .unwrap_or_else(|| Err(unknown_column(self.columns, name, place))),
                    },
                },
            },
        }
    }

    /// An expression that must be a condition.
    pub(super) fn condition(&self, expr: &Expr) -> Result<Typed> {
        let text = self.text(expr);
        self.condition_of(&text, 0, expr)
            .map_err(|e| e.naming(&text))
    }

    /// The same, as the `nth` part of an expression that errors tell about.
    pub(super) fn condition_of(&self, whole: &str, nth: usize, expr: &Expr) -> Result<Typed> {
        let value = self.resolve(expr)?;
        if matches!(value.data_type, DataType::Boolean | DataType::Null) {
            return cast::implicit(value, &DataType::Boolean);
        }
        Err(coerce::unexpected(whole, nth, &value, "BOOLEAN").at(expr.place()))
    }

    /// AND and OR.
    fn connective(&self, op: BinaryOp, left: Typed, right: Typed) -> Result<Typed> {
        let known = |t: &DataType| matches!(t, DataType::Boolean | DataType::Null);
        let (l, r) = (&left.data_type, &right.data_type);
        // A text beside a condition is read as one.
        let takes = known(l) && known(r)
            || known(l) && *r == DataType::Utf8
            || known(r) && *l == DataType::Utf8;
        if !takes {
            let named = format!(
                "Cannot resolve \"{}\" due to data type mismatch: ",
                op.symbol()
            );
            let (kind, why) = match l == r {
                true => (
                    "BINARY_OP_WRONG_TYPE",
                    format!(
                        "the binary operator requires the input type \"BOOLEAN\", not \"{}\".",
                        type_sql(l)
                    ),
                ),
                false => (
                    "BINARY_OP_DIFF_TYPES",
                    format!(
                        "the left and right operands of the binary operator have incompatible types (\"{}\" and \"{}\").",
                        type_sql(l),
                        type_sql(r)
                    ),
                ),
            };
            return Err(QueryError::mismatch(kind, named + &why));
        }
        let left = cast::implicit(left, &DataType::Boolean)?;
        let right = cast::implicit(right, &DataType::Boolean)?;
        Ok(match op {
            BinaryOp::And => conditional::and(left, right),
            _ => conditional::or(left, right),
        })
    }

    fn typed_text(&self, kind: &str, text: &str) -> Result<Typed> {
        let target = match kind {
            "date" => DataType::Date32,
            "timestamp_ntz" => TIMESTAMP_NTZ,
            _ => timestamp(),
        };
        let invalid = || {
            let kind = kind.to_uppercase();
            let message =
                format!("The value of the typed literal \"{kind}\" is invalid: '{text}'.");
            QueryError::new("INVALID_TYPED_LITERAL", message)
        };
        let value = cast::text_to_scalar(text.trim(), &target, &self.env.conf.time_zone)
            .ok_or_else(invalid)?;
        Ok(Typed::literal(value))
    }

    fn binary(&self, op: BinaryOp, left: Typed, right: Typed, text: &str) -> Result<Typed> {
        use BinaryOp as Op;
        match op {
            Op::Add
            | Op::Subtract
            | Op::Multiply
            | Op::Divide
            | Op::Remainder
            | Op::IntegerDivide => arithmetic::binary(op, left, right, text, self.env.conf),
            Op::BitAnd | Op::BitOr | Op::BitXor => bits::binary(op, left, right, text),
            Op::ShiftLeft | Op::ShiftRight | Op::ShiftRightUnsigned => bits::shift(op, left, right),
            Op::Concat => self.function("concat", vec![left, right]),
            _ => compare::compare(op, left, right, text),
        }
    }

    fn case(
        &self,
        operand: Option<&Expr>,
        branches: &[(Expr, Expr)],
        otherwise: Option<&Expr>,
    ) -> Result<Typed> {
        let mut conditions = vec![];
        let mut results = vec![];
        let operand = operand.map(|e| self.resolve(e)).transpose()?;
        for (nth, (when, then)) in branches.iter().enumerate() {
            conditions.push(match &operand {
                None => self.condition_of("casewhen", nth, when)?,
                Some(operand) => compare::compare(
                    BinaryOp::Eq,
                    operand.clone(),
                    self.resolve(when)?,
                    &self.text(when),
                )?,
            });
            results.push(self.resolve(then)?);
        }
        results.push(match otherwise {
            Some(otherwise) => self.resolve(otherwise)?,
            None => Typed::null(&DataType::Null),
        });
        let (mut results, _) = coerce::same_type("casewhen", results)?;
        let last = results
            .pop()
            .unwrap_or_else(|| Typed::null(&DataType::Null));
        Ok(conditional::case(
            conditions.into_iter().zip(results).collect(),
            last,
        ))
    }

    fn like(
        &self,
        kind: LikeKind,
        value: Typed,
        patterns: &[Expr],
        quantifier: Quantifier,
        escape: Option<char>,
        negated: bool,
    ) -> Result<Typed> {
        let each = patterns.iter().map(|p| {
            let one = pattern::like(kind, value.clone(), self.resolve(p)?, escape)?;
            Ok(negate_if(negated, one))
        });
        let each: Vec<Typed> = each.collect::<Result<_>>()?;
        let combined = each.into_iter().reduce(|a, b| match quantifier {
            Quantifier::All => conditional::and(a, b),
            Quantifier::Any | Quantifier::One => conditional::or(a, b),
        });
        combined.ok_or_else(|| QueryError::new("PARSE_SYNTAX_ERROR", "LIKE needs a pattern"))
    }

    /// A call of the function called `name`, the arguments resolved.
    fn function(&self, name: &str, args: Vec<Typed>) -> Result<Typed> {
        match functions::scalar(name, args, self.env.conf)? {
            Some(found) => Ok(found),
            None => Err(functions::unknown(name)),
        }
    }

    fn call(&self, call: &Call) -> Result<Typed> {
        let name = call.name.to_lowercase();
        if let Some(window) = &call.over {
            return self.over_window(&name, call, window);
        }
        if over::is_known(&name) {
            let text = self.text(&Expr::Call(Box::new(call.clone())));
            let message = format!("Window function \"{text}\" requires an OVER clause.");
            return Err(QueryError::new(
                "WINDOW_FUNCTION_WITHOUT_OVER_CLAUSE",
                message,
            ));
        }
        if let Some(udf) = self.env.functions.scalars.get(&name) {
            return functions::registered_scalar(udf, self.all(&call.args)?);
        }
        if super::window::is_window_call(call) {
            return self.env.window_column(*self, call);
        }
        if self.env.functions.is_aggregate(&name) {
            return self.aggregate(&name, call);
        }
        if functions::is_generator(&name) {
            return Err(self.misplaced_generator());
        }
        let plain = !call.distinct
            && call.filter.is_none()
            && call.order_by.is_empty()
            && call.ignore_nulls.is_none();
        if !plain {
            let found = match call {
                call if call.distinct => "DISTINCT",
                call if call.filter.is_some() => "FILTER CLAUSE",
                call if !call.order_by.is_empty() => "WITHIN GROUP (ORDER BY ...)",
                _ => "IGNORE NULLS",
            };
            let message = format!(
                "Invalid SQL syntax: The function `{name}` does not support {found}: it is not an aggregate function."
            );
            return Err(QueryError::new(
                "INVALID_SQL_SYNTAX.FUNCTION_WITH_UNSUPPORTED_SYNTAX",
                message,
            ));
        }
        if call.args.iter().any(|a| matches!(a, Expr::Lambda { .. })) {
            return self.higher_order(&name, call);
        }
        if matches!(name.as_str(), "struct" | "named_struct" | "arrays_zip")
            && name != "named_struct"
        {
            return self.named_by_arguments(&name, &call.args);
        }
        let mut args = self.all(&call.args)?;
        if let ("assert_true", [condition]) = (name.as_str(), call.args.as_slice()) {
            let message = format!("'{}' is not true!", self.qualified_text(condition));
            args.push(Typed::literal(ScalarValue::Utf8(Some(message))));
        }
        self.function(&name, args)
    }

    fn aggregate(&self, name: &str, call: &Call) -> Result<Typed> {
        if let Err(clause) = self.aggregates {
            let class = match clause {
                "WHERE" => "INVALID_WHERE_CONDITION",
                "GROUP BY" => "GROUP_BY_AGGREGATE",
                "an aggregate function" => "NESTED_AGGREGATE_FUNCTION",
                _ => "UNSUPPORTED_EXPR_FOR_OPERATOR",
            };
            let message = match class {
                "NESTED_AGGREGATE_FUNCTION" => format!(
                    "It is not allowed to use an aggregate function in the argument of another aggregate function. Use {name} in a subquery"
                ),
                // Told within a sentence about the whole condition.
                "INVALID_WHERE_CONDITION" => self.text(&Expr::Call(Box::new(call.clone()))),
                "GROUP_BY_AGGREGATE" => format!(
                    "Aggregate functions are not allowed in GROUP BY, but found {}.",
                    self.qualified_text(&Expr::Call(Box::new(call.clone())))
                ),
                _ => format!(
                    "The query operator {} contains one or more unsupported expressions: the aggregate function {name} is not allowed in {clause}",
                    match clause {
                        "ON" => "Join",
                        "ORDER BY" => "Sort",
                        _ => "",
                    }
                ),
            };
            return Err(QueryError::new(class, message));
        }
        if let (Some(grouping), "grouping" | "grouping_id") = (self.grouping, name) {
            return self.grouping(grouping, name, call);
        }
        let inner = Exprs {
            aggregates: Err("an aggregate function"),
            over: Err("an aggregate function"),
            subqueries: Subqueries::Refused,
            aliases_first: false,
            ..*self
        };
        self.env
            .functions
            .call_aggregate(name, inner.wanted(name, call)?)
    }

    /// The parts of the call of an aggregate function, resolved here.
    pub(super) fn wanted(&self, name: &str, call: &Call) -> Result<aggregate::Wanted> {
        let inner = *self;
        let args = match call.args.as_slice() {
            [
                Expr::Star {
                    qualifier, except, ..
                },
            ] if name == "count" && qualifier.is_empty() && except.is_empty() => {
                vec![Typed::literal(ScalarValue::Int32(Some(1)))]
            }
            args => inner.all(args)?,
        };
        let filter = call
            .filter
            .as_ref()
            .map(|f| inner.condition(f))
            .transpose()?;
        let order_by = inner.sort_keys(&call.order_by)?;
        let order_types = call.order_by.iter().map(|key| {
            let (expr, ascending, nulls_first) = key.sort_key();
            let value = inner.resolve(expr)?;
            let data_type = value.data_type.clone();
            let mut types = vec![data_type; compare::sort_by(value, ascending, nulls_first).len()];
            // The first of two says whether the value is missing.
            if let [missing, _] = types.as_mut_slice() {
                *missing = DataType::Boolean;
            }
            Ok(types)
        });
        Ok(aggregate::Wanted {
            args,
            distinct: call.distinct,
            filter,
            order_by,
            order_types: order_types.collect::<Result<Vec<_>>>()?.concat(),
            ignore_nulls: call.ignore_nulls,
        })
    }

    /// Keys of an ORDER BY.
    pub(super) fn sort_keys(&self, keys: &[Expr]) -> Result<Vec<SortExpr>> {
        let keys = keys.iter().map(|key| {
            let (expr, ascending, nulls_first) = key.sort_key();
            let value = self.resolve(expr)?;
            self.sortable(&value, key)?;
            Ok(compare::sort_by(value, ascending, nulls_first))
        });
        Ok(keys.collect::<Result<Vec<_>>>()?.concat())
    }

    /// Refuses a key of an ORDER BY that has no order.
    pub(super) fn sortable(&self, value: &Typed, key: &Expr) -> Result<()> {
        compare::orderable("sortorder", value).map_err(|e| {
            let text = super::name::sort_text(key, &|expr| self.text(expr));
            e.about("sortorder", &text).at(key.place())
        })
    }

    /// `struct(a, t.b, a + b)` names its fields `a`, `b` and `col3`.
    fn named_by_arguments(&self, name: &str, args: &[Expr]) -> Result<Typed> {
        let mut names = vec![];
        let mut values = vec![];
        for arg in args {
            if let Expr::Star { .. } = arg {
                for (name, value) in self.star(arg)? {
                    names.push(name);
                    values.push(value);
                }
                continue;
            }
            let nth = names.len();
            names.push(match arg {
                Expr::Column { name, .. } => name.last().cloned().unwrap_or_default(),
                Expr::Alias { names, .. } => names.first().cloned().unwrap_or_default(),
                Expr::Field { name, .. } => name.clone(),
                _ if name == "struct" => format!("col{}", nth + 1),
                _ => nth.to_string(),
            });
            values.push(self.resolve(arg)?);
        }
        match name {
            "struct" => Ok(nested::make_struct(names, values)),
            _ => nested::arrays_zip(names, values),
        }
    }

    /// The columns or fields that a star stands for.
    pub(super) fn star(&self, star: &Expr) -> Result<Vec<(String, Typed)>> {
        let Expr::Star {
            qualifier,
            except,
            place,
        } = star
        else {
            return Ok(vec![]);
        };
        let cs = self.case_sensitive();
        let mut found: Vec<(String, Typed)> = self
            .columns
            .iter()
            .filter(|c| !c.hidden || !qualifier.is_empty())
            .filter(|c| super::scope::qualifies(&c.qualifier, qualifier, cs))
            .map(|c| (c.name.clone(), c.typed()))
            .collect();
        if found.is_empty() && !qualifier.is_empty() {
            let value = lookup(self.columns, qualifier, cs)?;
            let Some(value) = value else {
                let name = super::scope::in_backticks(qualifier);
                let mut given: Vec<String> = self
                    .columns
                    .iter()
                    .filter(|c| !c.hidden)
                    .map(|c| format!("`{}`", c.name.replace('`', "``")))
                    .collect();
                given.sort();
                let message = format!(
                    "Cannot resolve {name}.* given input columns {}. Please check that the specified table or struct exists and is accessible in the input columns.",
                    given.join(", ")
                );
                return Err(QueryError::new("CANNOT_RESOLVE_STAR_EXPAND", message).at(*place));
            };
            let DataType::Struct(fields) = value.data_type.clone() else {
                let message =
                    format!("Can only star expand struct data types. Attribute: {qualifier:?}.");
                return Err(QueryError::new("_LEGACY_ERROR_TEMP_1050", message).at(*place));
            };
            for field in &fields {
                found.push((
                    field.name().clone(),
                    nested::field(value.clone(), field.name(), true)?,
                ));
            }
        }
        for name in except {
            let before = found.len();
            found.retain(|(n, _)| {
                if cs {
                    n != name
                } else {
                    !n.eq_ignore_ascii_case(name)
                }
            });
            if found.len() == before {
                return Err(unknown_column(
                    self.columns,
                    std::slice::from_ref(name),
                    *place,
                ));
            }
        }
        Ok(found)
    }

    fn higher_order(&self, name: &str, call: &Call) -> Result<Typed> {
        let resolve_body = |params: &[(String, Typed)], body: &Expr| {
            let lambdas: Vec<(String, Typed)> =
                self.lambdas.iter().chain(params).cloned().collect();
            Exprs {
                lambdas: &lambdas,
                aggregates: Err("a lambda"),
                over: Err("a lambda"),
                subqueries: Subqueries::Refused,
                ..*self
            }
            .resolve(body)
        };
        let args = call.args.iter().map(|arg| match arg {
            Expr::Lambda { params, body } => Ok(lambda::Arg::Lambda {
                params: params.clone(),
                body: (**body).clone(),
            }),
            other => self.resolve(other).map(lambda::Arg::Value),
        });
        let args = args.collect::<Result<_>>()?;
        // The parameters of lambdas around are columns to the ones within.
        let around = self
            .lambdas
            .iter()
            .filter_map(|(_, value)| match &value.expr {
                DfExpr::Column(column) => Some((column.clone(), value.data_type.clone())),
                _ => None,
            });
        let columns = self
            .columns
            .iter()
            .map(|c| (c.column.clone(), c.data_type.clone()));
        lambda::with_columns(columns.chain(around).collect(), || {
            lambda::call(name, args, &resolve_body)
        })
    }
}

/// Names that stand for a function call without parentheses.
fn keyword(name: &[String], exprs: &Exprs<'_>) -> Option<Result<Typed>> {
    let [name] = name else { return None };
    let name = name.to_lowercase();
    matches!(
        name.as_str(),
        "current_date" | "current_timestamp" | "current_user"
    )
    .then(|| exprs.function(&name, vec![]))
}

fn negate_if(negated: bool, value: Typed) -> Typed {
    if negated {
        conditional::not(value)
    } else {
        value
    }
}

/// The constant as a value of Spark's type.
pub(super) fn scalar(literal: &Literal) -> ScalarValue {
    match literal {
        Literal::Null => ScalarValue::Null,
        Literal::Boolean(v) => ScalarValue::Boolean(Some(*v)),
        Literal::TinyInt(v) => ScalarValue::Int8(Some(*v)),
        Literal::SmallInt(v) => ScalarValue::Int16(Some(*v)),
        Literal::Int(v) => ScalarValue::Int32(Some(*v)),
        Literal::BigInt(v) => ScalarValue::Int64(Some(*v)),
        Literal::Float(v) => ScalarValue::Float32(Some(*v)),
        Literal::Double(v) => ScalarValue::Float64(Some(*v)),
        Literal::Decimal {
            unscaled,
            precision,
            scale,
        } => ScalarValue::Decimal128(Some(*unscaled), *precision, *scale),
        Literal::String(v) => ScalarValue::Utf8(Some(v.clone())),
        Literal::Binary(v) => ScalarValue::Binary(Some(v.clone())),
        Literal::Date(v) => ScalarValue::Date32(Some(*v)),
        Literal::Timestamp(v) => ScalarValue::TimestampMicrosecond(Some(*v), Some("UTC".into())),
        Literal::TimestampNtz(v) => ScalarValue::TimestampMicrosecond(Some(*v), None),
        Literal::YearMonthInterval(v) => ScalarValue::IntervalYearMonth(Some(*v)),
        Literal::DayTimeInterval(v) => ScalarValue::DurationMicrosecond(Some(*v)),
        Literal::CalendarInterval {
            months,
            days,
            micros,
            units: _,
        } => {
            let nanos = micros.saturating_mul(1_000);
            let value = arrow::array::types::IntervalMonthDayNano::new(*months, *days, nanos);
            ScalarValue::IntervalMonthDayNano(Some(value))
        }
    }
}
