//! Functions OVER a window, and QUALIFY, which asks about them.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{
    Expr as DfExpr, LogicalPlan, SortExpr, Window as LogicalWindow, WindowFrame, WindowFrameBound,
    WindowFrameUnits,
};

use super::Env;
use super::expression::Exprs;
use super::name::{Names, frame_text, pretty};
use super::scope::Relation;
use super::subquery::Subqueries;
use crate::coerce::{is_atomic, is_integral, is_numeric, is_time};
use crate::error::QueryError;
use crate::expr::{Bound, Call, Expr, Frame, Window, col};
use crate::functions::kernel::Typed;
use crate::functions::{compare, over};
use crate::plan::Plan;
use crate::types::type_sql;

type Result<T> = std::result::Result<T, QueryError>;

impl Exprs<'_> {
    /// The call of `name` over `window`.
    pub(super) fn over_window(&self, name: &str, call: &Call, window: &Window) -> Result<Typed> {
        let text = || self.text(&Expr::Call(Box::new(call.clone())));
        if let Err(clause) = self.over {
            let message =
                format!("It is not allowed to use window functions inside {clause} clause.");
            return Err(QueryError::new(
                "WINDOW_FUNCTION_NOT_ALLOWED_IN_CLAUSE",
                message,
            ));
        }
        if call.distinct {
            let message = format!("Distinct window functions are not supported: {}.", text());
            return Err(QueryError::new(
                "DISTINCT_WINDOW_FUNCTION_UNSUPPORTED",
                message,
            ));
        }
        if call.filter.is_some() {
            let message = "window aggregate function with filter predicate is not supported yet.";
            return Err(QueryError::new("_LEGACY_ERROR_TEMP_1030", message));
        }
        let only_here = over::is_known(name);
        if only_here && window.order_by.is_empty() {
            let message = format!(
                "Window function {name} requires the window to be ordered: add ORDER BY, as in {name}(...) OVER (PARTITION BY ... ORDER BY ...)."
            );
            return Err(QueryError::new(
                "WINDOW_FUNCTION_FRAME_NOT_ORDERED",
                message,
            ));
        }
        let inner = Exprs {
            over: Err("window function"),
            subqueries: Subqueries::Refused,
            aliases_first: false,
            ..*self
        };
        let partition_by = window.partition_by.iter().map(|key| {
            let value = inner.resolve(key)?;
            if compare::groupable(&value).is_err() {
                let message = format!(
                    "Column expression \"{}\" cannot be sorted because its type \"{}\" is not orderable.",
                    self.text(key),
                    type_sql(&value.data_type)
                );
                return Err(QueryError::new("EXPRESSION_TYPE_IS_NOT_ORDERABLE", message));
            }
            Ok(compare::normalized(value)?.expr)
        });
        let mut rows = over::Rows {
            partition_by: partition_by.collect::<Result<_>>()?,
            order_by: inner.sort_keys(&window.order_by)?,
            frame: inner.frame(name, window)?,
        };
        if rows.frame.units == WindowFrameUnits::Range {
            let keys = window.order_by.iter();
            let keys = keys.map(|key| Ok(inner.resolve(key.sort_key().0)?.data_type));
            let plain = |key: &DataType| is_atomic(key) && *key != DataType::Binary;
            if !keys.collect::<Result<Vec<_>>>()?.iter().all(plain) {
                // DataFusion finds no range among such keys. They have no distance, and so this frame is the same.
                let (start, end) = (rows.frame.start_bound, rows.frame.end_bound);
                rows.frame = WindowFrame::new_bounds(WindowFrameUnits::Groups, start, end);
            }
        }
        if only_here || over::is_end(name) {
            let args = call.args.iter().map(|arg| inner.resolve(arg));
            let args = args.collect::<Result<_>>()?;
            return over::call(name, args, call.ignore_nulls, rows);
        }
        if !self.env.functions.is_aggregate(name) {
            let alone = Call {
                over: None,
                ..call.clone()
            };
            let what = match (name, call.args.as_slice()) {
                ("over", [expr]) => self.text(expr),
                _ => self.text(&Expr::Call(Box::new(alone))),
            };
            let message = format!("Expression \"{what}\" not supported within a window function.");
            return Err(QueryError::new("UNSUPPORTED_EXPR_FOR_WINDOW", message));
        }
        if !call.order_by.is_empty() {
            return Err(QueryError::unsupported(format!(
                "{name} WITHIN GROUP over a window"
            )));
        }
        let wanted = inner.wanted(name, call)?;
        let aggregate = self.env.functions.call_aggregate(name, wanted)?;
        // The outermost calls are this function's own; those inside of them are of the grouping below.
        let over = aggregate.expr.transform_down(|expr| match expr {
            DfExpr::AggregateFunction(call) => {
                let call = over::aggregate(call, rows.clone());
                Ok(Transformed::new(call, true, TreeNodeRecursion::Jump))
            }
            other => Ok(Transformed::no(other)),
        });
        Ok(Typed::new(over?.data, aggregate.data_type))
    }

    /// The frame that `window` says for the function `name`.
    fn frame(&self, name: &str, window: &Window) -> Result<WindowFrame> {
        let ordered = !window.order_by.is_empty();
        let Some(frame) = &window.frame else {
            // Rows that are equal in order are in each other's window, except where rows are counted.
            return Ok(WindowFrame::new(match name {
                "row_number" | "ntile" => Some(true),
                _ => ordered.then_some(false),
            }));
        };
        if over::is_known(name) && name != "nth_value" {
            let text = |frame: &Frame| frame_text(frame, &|expr| self.text(expr));
            if matches!(name, "lag" | "lead") {
                let message = format!("Cannot specify window frame for {name} function.");
                return Err(QueryError::new("_LEGACY_ERROR_TEMP_1035", message));
            }
            let required = super::name::default_frame(name, ordered);
            if *frame != required {
                let message = format!(
                    "Window Frame {} must match the required frame {}.",
                    text(frame),
                    text(&required)
                );
                return Err(QueryError::new("_LEGACY_ERROR_TEMP_1036", message));
            }
        }
        let whole =
            frame.start == Bound::UnboundedPreceding && frame.end == Bound::UnboundedFollowing;
        if whole {
            return Ok(WindowFrame::new(None));
        }
        if frame.rows {
            let (start, end) = (self.row(&frame.start)?, self.row(&frame.end)?);
            return self.bounds(WindowFrameUnits::Rows, frame, start, end);
        }
        self.range(frame, window)
    }

    fn bounds(
        &self,
        units: WindowFrameUnits,
        frame: &Frame,
        start: At,
        end: At,
    ) -> Result<WindowFrame> {
        if start.order() > end.order() {
            let message = format!(
                "Cannot resolve the window frame due to data type mismatch: The lower bound of a window frame must be less than or equal to the upper bound: {}.",
                frame_text(frame, &|expr| self.text(expr))
            );
            return Err(QueryError::mismatch(
                "SPECIFIED_FRAME_WRONG_COMPARISON",
                message,
            ));
        }
        Ok(WindowFrame::new_bounds(units, start.bound(), end.bound()))
    }

    /// So many rows away.
    fn row(&self, bound: &Bound) -> Result<At> {
        let offset = |expr: &Expr| {
            let value = self.resolve(expr)?;
            match value.constant().filter(|_| is_integral(&value.data_type)) {
                Some(constant) => match constant.cast_to(&DataType::Int64)? {
                    ScalarValue::Int64(Some(n)) => Ok(n),
                    _ => Err(self.unacceptable(expr, &value, "INT")),
                },
                None => Err(self.unacceptable(expr, &value, "INT")),
            }
        };
        let rows = |n: i64| {
            let n = i128::from(n);
            let value = u64::try_from(n.unsigned_abs()).unwrap_or(u64::MAX);
            At::of(n, ScalarValue::UInt64(Some(value)))
        };
        Ok(match bound {
            Bound::UnboundedPreceding => At::Start,
            Bound::UnboundedFollowing => At::End,
            Bound::CurrentRow => At::Current,
            Bound::Preceding(n) => rows(offset(n)?.saturating_neg()),
            Bound::Following(n) => rows(offset(n)?),
        })
    }

    fn unacceptable(&self, expr: &Expr, value: &Typed, wanted: &str) -> QueryError {
        let message = format!(
            "Cannot resolve \"{}\" due to data type mismatch: The data type of the frame's bound must be a constant \"{wanted}\", not \"{}\".",
            self.text(expr),
            type_sql(&value.data_type)
        );
        QueryError::mismatch("SPECIFIED_WINDOW_FRAME_UNACCEPTED_TYPE", message)
    }

    /// By so much of the value that rows are ordered by.
    fn range(&self, frame: &Frame, window: &Window) -> Result<WindowFrame> {
        let refuse = |kind: &str, message: &str| {
            let message = format!("Cannot resolve the window due to data type mismatch: {message}");
            QueryError::mismatch(kind, message)
        };
        let by_value = frame.start.offset().is_some() || frame.end.offset().is_some();
        let key = match window.order_by.as_slice() {
            [] => {
                return Err(refuse(
                    "RANGE_FRAME_WITHOUT_ORDER",
                    "A range window frame cannot be used in an unordered window specification.",
                ));
            }
            [key] => key.sort_key().0,
            _ if by_value => {
                return Err(refuse(
                    "RANGE_FRAME_MULTI_ORDER",
                    "A range window frame with value boundaries cannot be used in a window specification with multiple order by expressions.",
                ));
            }
            [key, ..] => key,
        };
        let key = self.resolve(key)?;
        let at = |bound: &Bound| {
            let (expr, sign) = match bound {
                Bound::UnboundedPreceding => return Ok(At::Start),
                Bound::UnboundedFollowing => return Ok(At::End),
                Bound::CurrentRow => return Ok(At::Current),
                Bound::Preceding(expr) => (expr, -1),
                Bound::Following(expr) => (expr, 1),
            };
            let offset = self.resolve(expr)?;
            let found = offset
                .constant()
                .and_then(|c| distance(c, &key.data_type, &self.env.conf.time_zone));
            match found {
                Some((order, value)) => Ok(At::of(order * sign, value)),
                None => {
                    let message = format!(
                        "The data type \"{}\" used in the order specification does not support the data type \"{}\" which is used in the range frame.",
                        type_sql(&key.data_type),
                        type_sql(&offset.data_type)
                    );
                    Err(refuse("RANGE_FRAME_INVALID_TYPE", &message))
                }
            }
        };
        self.bounds(
            WindowFrameUnits::Range,
            frame,
            at(&frame.start)?,
            at(&frame.end)?,
        )
    }
}

/// Where a frame ends: in order, and as DataFusion has it.
enum At {
    Start,
    /// A sign, and its absolute value.
    Offset(i128, ScalarValue),
    Current,
    End,
}

impl At {
    /// So far away, before the current row if negative; `value` is the absolute distance.
    fn of(order: i128, value: ScalarValue) -> Self {
        match order {
            0 => At::Current,
            order => At::Offset(order, value),
        }
    }

    fn order(&self) -> i128 {
        match self {
            At::Start => i128::MIN,
            At::Offset(order, _) => *order,
            At::Current => 0,
            At::End => i128::MAX,
        }
    }

    fn bound(self) -> WindowFrameBound {
        match self {
            At::Start => WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
            At::End => WindowFrameBound::Following(ScalarValue::UInt64(None)),
            At::Current => WindowFrameBound::CurrentRow,
            At::Offset(order, value) if order < 0 => WindowFrameBound::Preceding(value),
            At::Offset(_, value) => WindowFrameBound::Following(value),
        }
    }
}

/// A constant as a distance between values of a type: its order, and its absolute value.
fn distance(constant: &ScalarValue, of: &DataType, zone: &str) -> Option<(i128, ScalarValue)> {
    let interval = |months: i32, days: i32, nanos: i64| {
        let value = arrow::array::types::IntervalMonthDayNano::new(months, days, nanos);
        ScalarValue::IntervalMonthDayNano(Some(value))
    };
    let day_us = 86_400_000_000i64;
    let (months, days, micros) = match constant {
        ScalarValue::IntervalYearMonth(Some(months)) => (*months, 0, 0),
        ScalarValue::DurationMicrosecond(Some(micros)) => (0, 0, *micros),
        ScalarValue::IntervalMonthDayNano(Some(v)) => (v.months, v.days, v.nanoseconds / 1_000),
        number if is_numeric(of) && is_numeric(&number.data_type()) => {
            // As the key is, if that says the same: a bound must not be rounded.
            let value = number.cast_to(of).ok()?;
            let back = value.cast_to(&number.data_type());
            let exact = back.is_ok_and(|back| back == *number);
            (exact || crate::coerce::accepts(&number.data_type(), of)).then_some(())?;
            let negative = value < ScalarValue::new_zero(of).ok()?;
            let value = if negative {
                value.arithmetic_negate().ok()?
            } else {
                value
            };
            let size = match value.cast_to(&DataType::Float64).ok()? {
                // Only compared with the other end of the same frame.
                ScalarValue::Float64(Some(size)) => (size * 1e6) as i128,
                _ => return None,
            };
            return Some((if negative { -size } else { size }, value));
        }
        days if *of == DataType::Date32 && is_integral(&days.data_type()) => {
            match days.cast_to(&DataType::Int32).ok()? {
                ScalarValue::Int32(Some(days)) => (0, days, 0),
                _ => return None,
            }
        }
        _ => return None,
    };
    if !is_time(of) {
        return None;
    }
    // A month or a day is not of one length in a zone that changes its clocks.
    let zoned = matches!(of, DataType::Timestamp(_, Some(_))) && !zone.eq_ignore_ascii_case("UTC");
    if (*of == DataType::Date32 && micros % day_us != 0) || (zoned && months != 0) {
        return None;
    }
    let micros = i64::from(days)
        .checked_mul(day_us)
        .and_then(|of_days| of_days.checked_add(micros))?;
    let order = i128::from(months) * i128::from(day_us) * 30 + i128::from(micros);
    let sign = if order < 0 { -1 } else { 1 };
    let value = match *of == DataType::Date32 {
        true => interval(
            months * sign,
            i32::try_from(micros / day_us).ok()? * sign,
            0,
        ),
        false => match (micros * i64::from(sign)).checked_mul(1_000) {
            Some(nanos) => interval(months * sign, 0, nanos),
            // More than nanoseconds can count.
            None => interval(
                months * sign,
                i32::try_from(micros / day_us).ok()? * sign,
                micros % day_us * i64::from(sign) * 1_000,
            ),
        },
    };
    Some((order, value))
}

impl Env<'_> {
    /// The plan with the windows that `outputs` look at, which then stand for columns of it.
    pub(super) fn windowed(
        &self,
        plan: LogicalPlan,
        outputs: Vec<(String, Typed)>,
    ) -> Result<(LogicalPlan, Vec<(String, Typed)>)> {
        let mut calls: Vec<(DfExpr, String)> = vec![];
        let mut above = vec![];
        for (name, value) in outputs {
            let expr = value.expr.transform_down(|expr| {
                let DfExpr::WindowFunction(_) = &expr else {
                    return Ok(Transformed::no(expr));
                };
                let known = calls.iter().find(|(call, _)| *call == expr);
                let name = match known {
                    Some((_, name)) => name.clone(),
                    None => {
                        let name = self.fresh("over");
                        calls.push((expr, name.clone()));
                        name
                    }
                };
                let column = DfExpr::Column(Column::new_unqualified(name));
                Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
            });
            above.push((name, Typed::new(expr?.data, value.data_type)));
        }
        if calls.is_empty() {
            return Ok((plan, above));
        }
        // A node for each order of rows; those that need the longest lowest, where their order serves the others.
        let mut orders: Vec<(Vec<DfExpr>, Vec<SortExpr>, Vec<DfExpr>)> = vec![];
        for (call, name) in calls {
            let DfExpr::WindowFunction(function) = &call else {
                continue;
            };
            let (keys, order) = (&function.params.partition_by, &function.params.order_by);
            let known = orders.iter_mut().find(|(k, o, _)| k == keys && o == order);
            let (keys, order) = (keys.clone(), order.clone());
            let call = call.alias(name);
            match known {
                Some((_, _, calls)) => calls.push(call),
                None => orders.push((keys, order, vec![call])),
            }
        }
        orders.sort_by_key(|(keys, order, _)| std::cmp::Reverse(keys.len() + order.len()));
        let mut plan = plan;
        for (_, _, calls) in orders {
            plan = LogicalPlan::Window(LogicalWindow::try_new(calls, Arc::new(plan))?);
        }
        Ok((plan, above))
    }

    /// An aggregate function that is over no window.
    fn plain_aggregate<'e>(&self, expr: &'e Expr) -> Option<&'e Expr> {
        match expr {
            Expr::Call(call) if call.over.is_some() => None,
            Expr::Call(call) if self.functions.is_aggregate(&call.name.to_lowercase()) => {
                Some(expr)
            }
            _ => {
                let mut children = expr.children().into_iter();
                children.find_map(|child| self.plain_aggregate(child))
            }
        }
    }

    /// The rows of a select list for which a condition over its windows holds.
    pub(super) fn qualify(&self, input: &Plan, condition: &Expr) -> Result<Relation> {
        let is_over = |expr: &Expr| matches!(expr, Expr::Call(call) if call.over.is_some());
        let outputs: &[Expr] = match input {
            Plan::Project { outputs, .. } | Plan::Aggregate { outputs, .. } => outputs,
            _ => &[],
        };
        if let (Plan::Project { .. }, Some(call)) = (input, self.plain_aggregate(condition)) {
            let message = format!(
                "Aggregate functions are not supported in QUALIFY: \"{}\". Aggregate over a window, as in sum(v) OVER (PARTITION BY k), or group by something and use HAVING",
                pretty(call, &Names::as_written(&[], self.conf.case_sensitive))
            );
            let error = QueryError::new("QUALIFY_AGGREGATE_NOT_ALLOWED", message);
            return Err(error.at(call.place()));
        }
        let mut asked = outputs.iter().chain([condition]);
        if !asked.any(|expr| expr.any(&is_over)) {
            let message = "The QUALIFY clause requires at least one window function in the current SELECT list or the QUALIFY condition. \
                           Use WHERE for a condition over rows, or HAVING over groups";
            let error = QueryError::new("QUALIFY_REQUIRES_WINDOW_FUNCTION", message);
            return Err(error.at(condition.place()));
        }
        let name = self.fresh("qualify");
        let with_condition = input.with_more(&[condition.clone().alias(name.clone())])?;
        let relation = self.filter(self.relation(&with_condition)?, &col(&name))?;
        let outputs = relation.visible().filter(|c| c.name != name);
        let outputs = outputs.map(|c| (c.name.clone(), c.typed())).collect();
        self.projection(relation.plan.clone(), outputs)
    }
}
