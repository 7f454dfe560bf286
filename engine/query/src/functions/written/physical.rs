//! Expressions ready to run, in words.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr,
    Literal, NegativeExpr, NotExpr, TryCastExpr,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use super::ranks::{self, ALL_VALUES};
use super::{Written, among, binary, call, case, cast, is, listed, literal, negative, not};
use crate::coerce::{is_float, is_integral};
use crate::functions::aggregate::ranks_of;
use crate::nodes::{EXCEPT, INTERSECT};

type Physical = Arc<dyn PhysicalExpr>;

/// The expression over columns that are written so.
pub fn physical_written(expr: &Physical, columns: &[Written]) -> Written {
    let told = |expr: &Physical| physical_written(expr, columns);
    let all = |exprs: &[Physical]| exprs.iter().map(told).collect::<Vec<_>>();
    if let Some(column) = expr.downcast_ref::<Column>() {
        let known = columns.get(column.index()).cloned();
        return known.unwrap_or_else(|| Written::plain(column.name()));
    }
    if let Some(it) = expr.downcast_ref::<Literal>() {
        return Written::plain(literal(it.value()));
    }
    if let Some(it) = expr.downcast_ref::<BinaryExpr>() {
        return binary(&told(it.left()), *it.op(), &told(it.right()));
    }
    if let Some(it) = expr.downcast_ref::<ScalarFunctionExpr>() {
        return call(it.fun(), &all(it.args()));
    }
    if let Some(it) = expr.downcast_ref::<CastExpr>() {
        // One that widens a number is put in by whoever compares or adds numbers of different types.
        return match is_number(it.cast_type()) {
            true => told(it.expr()),
            false => cast("CAST", &told(it.expr()), it.cast_type()),
        };
    }
    if let Some(it) = expr.downcast_ref::<TryCastExpr>() {
        return cast("TRY_CAST", &told(it.expr()), it.cast_type());
    }
    if let Some(it) = expr.downcast_ref::<IsNullExpr>() {
        return is(&told(it.arg()), "NULL");
    }
    if let Some(it) = expr.downcast_ref::<IsNotNullExpr>() {
        return is(&told(it.arg()), "NOT NULL");
    }
    if let Some(it) = expr.downcast_ref::<NotExpr>() {
        return not(&told(it.arg()));
    }
    if let Some(it) = expr.downcast_ref::<NegativeExpr>() {
        return negative(&told(it.arg()));
    }
    if let Some(it) = expr.downcast_ref::<InListExpr>() {
        return among(&told(it.expr()), &all(it.list()), it.negated());
    }
    if let Some(it) = expr.downcast_ref::<LikeExpr>() {
        let (value, pattern) = (told(it.expr()), told(it.pattern()));
        return binary(&value, Operator::LikeMatch, &pattern);
    }
    if let Some(it) = expr.downcast_ref::<CaseExpr>() {
        let whens = it.when_then_expr().iter();
        let whens = whens.map(|(when, then)| (told(when), told(then)));
        let is_null = |expr: &&Physical| {
            let constant = expr.downcast_ref::<Literal>();
            constant.is_some_and(|constant| constant.value().is_null())
        };
        let otherwise = it.else_expr().filter(|expr| !is_null(expr));
        return case(it.expr().map(told), whens.collect(), otherwise.map(told));
    }
    Written::plain(expr.to_string())
}

/// True for the types that the resolver converts numbers to by DataFusion's own cast: always from one of less range.
fn is_number(to: &DataType) -> bool {
    is_integral(to) || is_float(to)
}

/// A call of an aggregate over columns that are written so, and of which values its state has each one, if it has.
pub fn aggregate_written(
    function: &AggregateFunctionExpr,
    filter: Option<&Physical>,
    columns: &[Written],
) -> (Written, Option<String>) {
    if let Some(side) = counted_side(function.name()) {
        return (Written::plain(side), None);
    }
    let (name, args) = named(function, columns);
    let distinct = if function.is_distinct() && name != "collect_set" {
        "DISTINCT "
    } else {
        ""
    };
    let answers = ranks_of(function.fun()).unwrap_or_default().iter();
    let answers = answers.map(|rank| ranks::asked(rank, &listed(&args)));
    let mut answers: Vec<String> = answers.collect();
    let mut text = format!("{name}({distinct}{})", listed(&args));
    let order = function.order_bys().iter();
    let order = order.map(|by| {
        let how = if by.options.descending { " DESC" } else { "" };
        format!("{}{how}", physical_written(&by.expr, columns))
    });
    let order: Vec<String> = order.collect();
    if !order.is_empty() {
        text.push_str(&format!(" WITHIN GROUP (ORDER BY {})", order.join(", ")));
    }
    let mut values = match args.len() {
        1 => listed(&args),
        _ => format!("({})", listed(&args)),
    };
    if let Some(filter) = filter {
        let condition = physical_written(filter, columns);
        for text in answers.iter_mut().chain([&mut text]) {
            text.push_str(&format!(" FILTER (WHERE {condition})"));
        }
        values.push_str(&format!(" where {condition}"));
    }
    // The list of an exact sum has as many parts as a double has, whatever is added.
    let exact = function.fun().name().starts_with("exact_") && !function.is_distinct();
    let fields = function.state_fields().unwrap_or_default();
    let grows = !exact && fields.iter().any(|field| field.data_type().is_list());
    let kind = match function.is_distinct() {
        true => "distinct ",
        false => "",
    };
    if !answers.is_empty() {
        text = answers.join(", ");
    }
    let written = Written {
        parts: answers,
        ..Written::plain(text)
    };
    (written, grows.then(|| format!("{kind}{values}")))
}

/// What the counts behind EXCEPT and INTERSECT count.
pub fn counted_side(name: &str) -> Option<&'static str> {
    let is = |side: usize| [EXCEPT, INTERSECT].iter().any(|names| names[side] == name);
    match (is(0), is(1)) {
        (true, _) => Some("copies on the left"),
        (_, true) => Some("copies on the right"),
        _ => None,
    }
}

/// The name of an aggregate in the query, and its arguments.
fn named(function: &AggregateFunctionExpr, columns: &[Written]) -> (String, Vec<Written>) {
    let told = |expr: &Physical| physical_written(expr, columns);
    let mut exprs = function.expressions();
    let name = function.fun().name();
    let weighed = name == "weighed_sum";
    if weighed {
        // What is left is how often each row counts.
        exprs.truncate(1);
    }
    let counted = match name == "count" || weighed {
        true => exprs.first().and_then(|value| counted(value, columns)),
        false => None,
    };
    if let Some((name, args)) = counted {
        return (name.into(), args);
    }
    let own = aggregate_name(name, function.is_distinct());
    (own.into(), exprs.iter().map(told).collect())
}

/// The name in the query of an aggregate that is called so here.
pub fn aggregate_name(name: &str, distinct: bool) -> &str {
    match name {
        "weighed_sum" => "sum",
        "approx_distinct" => "approx_count_distinct",
        "first_value" => "first",
        "last_value" => "last",
        "array_agg" if distinct => "collect_set",
        "array_agg" => "collect_list",
        "stddev" => "stddev_samp",
        "var" => "var_samp",
        // Percentiles and the mode are computed of it.
        "values" | "ranks" => ALL_VALUES,
        other => other.strip_prefix("exact_").unwrap_or(other),
    }
}

/// What is counted where it is known, if that is how `value` is made.
fn counted(value: &Physical, columns: &[Written]) -> Option<(&'static str, Vec<Written>)> {
    let told = |expr: &Physical| physical_written(expr, columns);
    if value.downcast_ref::<Literal>().is_some() {
        return Some(("count", vec![Written::plain("*")]));
    }
    let case = value.downcast_ref::<CaseExpr>()?;
    let [(when, then)] = case.when_then_expr() else {
        return None;
    };
    if case.expr().is_some() {
        return None;
    }
    if let Some(several) = then.downcast_ref::<ScalarFunctionExpr>()
        && several.name() == "struct"
    {
        return Some(("count", several.args().iter().map(told).collect()));
    }
    then.downcast_ref::<Literal>()?;
    Some(match when.downcast_ref::<IsNotNullExpr>() {
        Some(known) if known.arg().downcast_ref::<Literal>().is_some() => {
            ("count", vec![Written::plain("*")])
        }
        Some(known) => ("count", vec![told(known.arg())]),
        None => ("count_if", vec![told(when)]),
    })
}
