//! Event time: WATERMARK, and the column that a call of `window` stands for.

use std::sync::Arc;

use datafusion::logical_expr::Expr as DfExpr;

use super::Env;
use super::expression::Exprs;
use super::name::output_name;
use super::scope::{Relation, ScopeColumn, unqualified};
use crate::coerce::{self, is_timestamp};
use crate::error::QueryError;
use crate::expr::{Call, Expr};
use crate::functions::cast;
use crate::functions::kernel::Typed;
use crate::functions::window::{self, is_window};
use crate::nodes::{Form, Grid, TimeWindow, Watermark};
use crate::types::{timestamp, type_sql};

type Result<T> = std::result::Result<T, QueryError>;

/// The windows that the clause being resolved speaks of: one kind at most.
#[derive(Debug, Clone)]
pub(super) struct Windows {
    time: DfExpr,
    grid: Grid,
    column: ScopeColumn,
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
        let mut found: Option<(Typed, Grid)> = None;
        let scope = Exprs::over(self, &input.columns, "window");
        for call in exprs.flat_map(window_calls) {
            let (time, grid) = self.window(scope, call).map_err(|e| e.at(call.place))?;
            match &found {
                Some((other, same)) if (&other.expr, same) != (&time.expr, &grid) => {
                    let message = "Multiple time/session window expressions would result in a cartesian product of rows, therefore they are currently not supported.";
                    return Err(QueryError::new("_LEGACY_ERROR_TEMP_1039", message).at(call.place));
                }
                _ => found = Some((time, grid)),
            }
        }
        let Some((time, grid)) = found else {
            return Ok((input, None));
        };
        let data_type = window::struct_type(&time.data_type);
        let name = self.fresh("window");
        let below = Arc::new(input.plan);
        let node = TimeWindow::try_new(below, time.expr.clone(), grid, name.clone(), Form::Struct)?;
        input.plan = node.into_plan();
        let column = ScopeColumn {
            qualifier: vec![],
            name: "window".into(),
            column: datafusion::common::Column::new_unqualified(name),
            data_type,
            hidden: true,
        };
        // Within reach of the aggregation's check of names, and of no `*`.
        input.columns.push(column.clone());
        let windows = Windows {
            time: time.expr,
            grid,
            column,
        };
        Ok((input, Some(windows)))
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
        let (time, grid) = self.window(exprs, call)?;
        match self.windows.borrow().as_ref() {
            Some(windows) if windows.time == time.expr && windows.grid == grid => {
                Ok(windows.column.typed())
            }
            _ => Err(QueryError::unsupported(
                "window() outside of a select list and GROUP BY",
            )),
        }
    }

    /// What the name `window` means where no column has it.
    pub(super) fn named_window(&self, name: &str) -> Option<Typed> {
        let windows = self.windows.borrow();
        let windows = windows.as_ref()?;
        self.same(name, "window").then(|| windows.column.typed())
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
        if named || !matches!(value.expr, DfExpr::Column(_)) {
            if !named && matches!(column, Expr::Column { .. } | Expr::Field { .. }) {
                let name = output_name(column, &|name| {
                    unqualified(&input.columns, name, self.conf.case_sensitive)
                });
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
            let name = output_name(column, &|name| name.join("."));
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
    call.over.is_none() && call.name.eq_ignore_ascii_case("window")
}
