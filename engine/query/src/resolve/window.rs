//! Event time: WATERMARK, and the column that a call of `window` stands for.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::logical_expr::{Expr as DfExpr, Filter, LogicalPlan, Projection};

use super::Env;
use super::expression::Exprs;
use super::name::{Names, output_name};
use super::scope::{Relation, ScopeColumn};
use crate::coerce::{self, is_timestamp};
use crate::error::QueryError;
use crate::expr::{Call, Expr};
use crate::functions::cast;
use crate::functions::kernel::Typed;
use crate::functions::session;
use crate::functions::window::{self, is_window};
use crate::nodes::{Form, Grid, TimeWindow, Watermark};
use crate::types::{timestamp, type_sql};

type Result<T> = std::result::Result<T, QueryError>;

/// The windows that the clause being resolved speaks of: one kind at most.
#[derive(Debug, Clone)]
pub(super) struct Windows {
    made: Made,
    column: ScopeColumn,
}

/// What a call stands for.
#[derive(Debug, Clone, PartialEq)]
enum Made {
    /// The windows of a grid that a time is in.
    Grid { time: DfExpr, grid: Grid },
    /// The session of a row with this time.
    Session { time: DfExpr, session: DfExpr },
}

impl Made {
    /// The function that is called.
    fn function(&self) -> &'static str {
        match self {
            Made::Grid { .. } => "window",
            Made::Session { .. } => "session_window",
        }
    }
}

impl Env<'_> {
    /// Resolves a clause over `input` with a column for the windows that `exprs` call for.
    pub(super) fn with_windows<'e, T>(
        &self,
        input: Relation,
        exprs: impl Iterator<Item = &'e Expr>,
        resolve: impl FnOnce(Relation) -> Result<T>,
    ) -> Result<T> {
        let (input, windows) = self.windows_of(input, exprs)?;
        let around = self.windows.replace(windows);
        let resolved = resolve(input);
        self.windows.replace(around);
        resolved
    }

    fn windows_of<'e>(
        &self,
        mut input: Relation,
        exprs: impl Iterator<Item = &'e Expr>,
    ) -> Result<(Relation, Option<Windows>)> {
        let mut found: Option<(Made, DataType)> = None;
        let scope = Exprs::over(self, &input.columns, "window");
        for call in exprs.flat_map(window_calls) {
            let (made, data_type) = self.made(scope, call).map_err(|e| e.at(call.place))?;
            match &found {
                Some((other, _)) if *other != made => {
                    let message = "Multiple time/session window expressions would result in a cartesian product of rows, therefore they are currently not supported.";
                    return Err(QueryError::new("_LEGACY_ERROR_TEMP_1039", message).at(call.place));
                }
                _ => found = Some((made, data_type)),
            }
        }
        let Some((made, data_type)) = found else {
            return Ok((input, None));
        };
        let function = made.function();
        let name = self.fresh(function);
        let below = Arc::new(input.plan);
        input.plan = match &made {
            Made::Grid { time, grid } => {
                let name = name.clone();
                TimeWindow::try_new(below, time.clone(), *grid, name, Form::Struct)?.into_plan()
            }
            // Rows that make no session fall out. Those without a time are told first, for a gap may be made of another
            // side of a join, and the time alone says which rows of its side can come out.
            Made::Session { time, session } => {
                let timed = Filter::try_new(time.clone().is_not_null(), below)?;
                let below = Arc::new(LogicalPlan::Filter(timed));
                let schema = below.schema();
                let columns = 0..schema.fields().len();
                let mut outputs: Vec<DfExpr> = columns
                    .map(|index| DfExpr::Column(Column::from(schema.qualified_field(index))))
                    .collect();
                outputs.push(session.clone().alias(name.clone()));
                let projection = Projection::try_new(outputs, below)?;
                let makes_one = DfExpr::Column(Column::new_unqualified(&name)).is_not_null();
                let below = Arc::new(LogicalPlan::Projection(projection));
                LogicalPlan::Filter(Filter::try_new(makes_one, below)?)
            }
        };
        let column = ScopeColumn {
            qualifier: vec![],
            name: function.into(),
            column: Column::new_unqualified(name),
            data_type,
            hidden: true,
        };
        // Within reach of the aggregation's check of names, and of no `*`.
        input.columns.push(column.clone());
        let windows = Windows { made, column };
        Ok((input, Some(windows)))
    }

    /// What a call of `window` or `session_window` stands for, and the type of its column.
    fn made(&self, exprs: Exprs<'_>, call: &Call) -> Result<(Made, DataType)> {
        if call.name.eq_ignore_ascii_case("window") {
            let (time, grid) = self.window(exprs, call)?;
            let data_type = window::struct_type(&time.data_type);
            let time = time.expr;
            return Ok((Made::Grid { time, grid }, data_type));
        }
        let [time, gap] = call.args.as_slice() else {
            let message = format!(
                "The `session_window` requires 2 parameters but the actual number is {}.",
                call.args.len()
            );
            return Err(QueryError::new(
                "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
                message,
            ));
        };
        let text = exprs.text(time);
        let time = match exprs.resolve(time)? {
            time if is_timestamp(&time.data_type) => time,
            time if is_window(&time.data_type) => window::time_of(time),
            time if coerce::accepts(&time.data_type, &timestamp()) => {
                cast::implicit(time, &timestamp())?
            }
            other => {
                let message = format!(
                    "Cannot resolve \"sessionwindow({text}, {})\" due to data type mismatch: The first parameter requires the (\"(TIMESTAMP OR TIMESTAMP WITHOUT TIME ZONE)\" or \"STRUCT<start: TIMESTAMP, end: TIMESTAMP>\" or \"STRUCT<start: TIMESTAMP_NTZ, end: TIMESTAMP_NTZ>\") type, however \"{text}\" has the type \"{}\".",
                    exprs.text(gap),
                    type_sql(&other.data_type)
                );
                return Err(QueryError::mismatch("UNEXPECTED_INPUT_TYPE", message));
            }
        };
        let at = time.expr.clone();
        let session = session::session(time, exprs.resolve(gap)?)?;
        let made = Made::Session {
            time: at,
            session: session.expr,
        };
        Ok((made, session.data_type))
    }

    /// The time and the windows that a call of `window` says.
    fn window(&self, exprs: Exprs<'_>, call: &Call) -> Result<(Typed, Grid)> {
        let [time, durations @ ..] = call.args.as_slice() else {
            let message = "The `window` requires [2, 3, 4] parameters but the actual number is 0.";
            return Err(QueryError::new(
                "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
                message,
            ));
        };
        let written = time;
        let time = exprs.resolve(written)?;
        let durations: Vec<Typed> = durations
            .iter()
            .map(|duration| exprs.resolve(duration))
            .collect::<Result<_>>()?;
        let text = exprs.text(written);
        let grid = window::grid(&text, &durations)?;
        let time = match &time.data_type {
            t if is_timestamp(t) => time,
            t if is_window(t) => window::time_of(time),
            t if coerce::accepts(t, &timestamp()) => cast::implicit(time, &timestamp())?,
            other => {
                let message = format!(
                    "Cannot resolve \"{}\" due to data type mismatch: The first parameter requires the (\"(TIMESTAMP OR TIMESTAMP WITHOUT TIME ZONE)\" or \"STRUCT<start: TIMESTAMP, end: TIMESTAMP>\" or \"STRUCT<start: TIMESTAMP_NTZ, end: TIMESTAMP_NTZ>\") type, however the argument has the type \"{}\".",
                    grid.call(&text),
                    type_sql(other)
                );
                return Err(QueryError::mismatch("UNEXPECTED_INPUT_TYPE", message));
            }
        };
        Ok((time, grid))
    }

    /// The column that a call of `window` stands for here.
    pub(super) fn window_column(&self, exprs: Exprs<'_>, call: &Call) -> Result<Typed> {
        let (made, _) = self.made(exprs, call)?;
        match self.windows.borrow().as_ref() {
            Some(windows) if windows.made == made => Ok(windows.column.typed()),
            _ => Err(QueryError::unsupported(format!(
                "{}() outside of a select list and GROUP BY",
                made.function()
            ))),
        }
    }

    /// What the name `window` or `session_window` means where no column has it.
    pub(super) fn named_window(&self, name: &str) -> Option<Typed> {
        let windows = self.windows.borrow();
        let windows = windows.as_ref()?;
        self.same(name, windows.made.function())
            .then(|| windows.column.typed())
    }

    /// `WATERMARK column DELAY OF delay`.
    pub(super) fn watermark(
        &self,
        mut input: Relation,
        column: &Expr,
        delay: &Expr,
    ) -> Result<Relation> {
        let delay = Exprs::over(self, &[], "WATERMARK").resolve(delay)?;
        let delay_ms = window::delay_ms(&delay)?;
        let resolve = |input: &Relation, column: &Expr| {
            Exprs::over(self, &input.columns, "WATERMARK").resolve(column)
        };
        let mut value = resolve(&input, column)?;
        let named = matches!(column, Expr::Alias { .. });
        if !named && !matches!(column, Expr::Column { .. } | Expr::Field { .. }) {
            let text = Exprs::over(self, &input.columns, "WATERMARK").text(column);
            let message = format!(
                "The watermark clause requires an explicit name if expression is specified, but got {text}: write WATERMARK expression AS name."
            );
            return Err(QueryError::new(
                "REQUIRES_EXPLICIT_NAME_IN_WATERMARK_CLAUSE",
                message,
            ));
        }
        if named || !matches!(value.expr, DfExpr::Column(_)) {
            if !named && matches!(column, Expr::Column { .. } | Expr::Field { .. }) {
                let names = Names::unqualified(&input.columns, self.conf.case_sensitive);
                let name = output_name(column, &names);
                let message = format!(
                    "The event time {name} must be a top-level column in your query. Give the field a name: WATERMARK expression AS name."
                );
                return Err(QueryError::new(
                    "EVENT_TIME_MUST_BE_TOP_LEVEL_COLUMN",
                    message,
                ));
            }
            // All columns as they are, and one more.
            let mut outputs: Vec<Expr> = vec![Expr::Star {
                qualifier: vec![],
                except: vec![],
                place: None,
            }];
            let names = Names::as_written(&input.columns, self.conf.case_sensitive);
            let name = output_name(column, &names);
            let qualifiers: Vec<Vec<String>> =
                input.visible().map(|c| c.qualifier.clone()).collect();
            outputs.push(column.clone());
            input = self.project(input, &outputs)?;
            for (column, qualifier) in input.columns.iter_mut().zip(qualifiers) {
                column.qualifier = qualifier;
            }
            let added = input.columns.last().filter(|c| c.name == name);
            value = added
                .map(ScopeColumn::typed)
                .ok_or_else(|| QueryError::unsupported("this event time"))?;
        }
        let DfExpr::Column(event_time) = value.expr else {
            return Err(QueryError::unsupported("this event time"));
        };
        if value.data_type != timestamp() {
            let message = format!(
                "The event time `{}` has the invalid type \"{}\", but expected \"TIMESTAMP\".",
                event_time.name,
                type_sql(&value.data_type)
            );
            return Err(QueryError::new(
                "EVENT_TIME_IS_NOT_ON_TIMESTAMP_TYPE",
                message,
            ));
        }
        let node = Watermark {
            input: Arc::new(input.plan),
            column: event_time,
            delay_ms,
        };
        input.plan = node.into_plan();
        Ok(input)
    }
}

/// The calls of `window` in an expression.
fn window_calls(expr: &Expr) -> Vec<&Call> {
    let mut calls = vec![];
    let mut rest = vec![expr];
    while let Some(expr) = rest.pop() {
        match expr {
            Expr::Call(call) if is_window_call(call) => calls.push(&**call),
            other => rest.extend(other.children()),
        }
    }
    calls
}

pub(super) fn is_window_call(call: &Call) -> bool {
    let is = |name: &str| call.name.eq_ignore_ascii_case(name);
    call.over.is_none() && (is("window") || is("session_window"))
}
