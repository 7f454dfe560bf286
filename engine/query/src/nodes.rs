//! Logical nodes of our own: what DataFusion's plan cannot say about event time.
//!
//! Streaming plans are compiled from them; for rows that are all there, [`without_event_time`] puts DataFusion's nodes
//! in their place, so that DataFusion answers the same query.

use std::cmp::Ordering;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{
    Column, DFSchema, DFSchemaRef, DataFusionError, NullHandling, Result, UnnestOptions,
};
use datafusion::logical_expr::{
    Expr, Extension, Filter, LogicalPlan, LogicalPlanBuilder, Projection, UserDefinedLogicalNode,
    UserDefinedLogicalNodeCore,
};

use crate::deduplicate::Deduplicate;
use crate::functions::kernel::Typed;
use crate::functions::{nested, window};
use crate::session::{self, session_key};

/// Rows whose column `column` is event time, and which may come late by `delay_ms`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Watermark {
    /// The rows.
    pub input: Arc<LogicalPlan>,
    /// The event time: a timestamp column of the input.
    pub column: Column,
    /// How late rows may be.
    pub delay_ms: i64,
}

/// Rows with the window or windows that each belongs to, as a last column. Rows without a time belong to none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TimeWindow {
    /// The rows.
    pub input: Arc<LogicalPlan>,
    /// The time, an expression over the input.
    pub time: Expr,
    /// Which windows there are.
    pub grid: Grid,
    /// The name of the column.
    pub name: String,
    /// What it holds.
    pub form: Form,
    schema: DFSchemaRef,
}

/// Windows of equal width at equal distances, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    /// From a window's start to its end.
    pub width_us: i64,
    /// From a window's start to the next one's; at most the width.
    pub slide_us: i64,
    /// Where a window starts.
    pub start_us: i64,
}

impl Grid {
    /// Whether each moment is in one window only.
    pub fn is_tumbling(&self) -> bool {
        self.width_us == self.slide_us
    }

    /// The call of `window` that says this grid, over `time`.
    pub(crate) fn call(&self, time: &str) -> String {
        let (width, slide, start) = (self.width_us, self.slide_us, self.start_us);
        format!("window({time}, {width}, {slide}, {start})")
    }

    /// The panes that these windows, which overlap, are made of.
    pub fn panes(&self) -> Grid {
        let (mut a, mut b) = (self.width_us, self.slide_us);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        Grid {
            width_us: a,
            slide_us: a,
            start_us: self.start_us,
        }
    }

    /// The end of the last window that `time_us` is in.
    pub fn last_end(&self, time_us: i64) -> i64 {
        let into = time_us
            .saturating_sub(self.start_us)
            .rem_euclid(self.slide_us);
        time_us.saturating_sub(into).saturating_add(self.width_us)
    }
}

/// What the column of a [`TimeWindow`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// A struct of start and end.
    Struct,
    /// The end alone, which says as much.
    End,
    /// The end of a pane of these windows: every window is a run of whole panes, and the node's own grid is the panes'.
    Pane(Grid),
}

impl Watermark {
    /// The node as a plan.
    pub fn into_plan(self) -> LogicalPlan {
        extension(self)
    }
}

impl TimeWindow {
    /// The node, with its column's type found out.
    pub fn try_new(
        input: Arc<LogicalPlan>,
        time: Expr,
        grid: Grid,
        name: String,
        form: Form,
    ) -> Result<Self> {
        use datafusion::logical_expr::ExprSchemable;
        let time_type = time.get_type(input.schema())?;
        let data_type = match form {
            Form::Struct => window::struct_type(&time_type),
            Form::End | Form::Pane(_) => time_type,
        };
        let mut fields: Vec<_> = input
            .schema()
            .iter()
            .map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)))
            .collect();
        fields.push((None, Arc::new(Field::new(&name, data_type, true))));
        let metadata = input.schema().metadata().clone();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, metadata)?);
        Ok(TimeWindow {
            input,
            time,
            grid,
            name,
            form,
            schema,
        })
    }

    /// The node as a plan.
    pub fn into_plan(self) -> LogicalPlan {
        extension(self)
    }

    /// The last of a row's windows, an expression over the input: as the column has it, or of panes the window's end.
    pub fn last(&self) -> Result<Expr> {
        use datafusion::logical_expr::ExprSchemable;
        let data_type = self.time.get_type(self.input.schema())?;
        let time = Typed::new(self.time.clone(), data_type);
        let last = match self.form {
            Form::Struct => window::of_end(window::end(time, self.grid), self.grid.width_us),
            Form::End => window::end(time, self.grid),
            Form::Pane(windows) => window::end(time, windows),
        };
        Ok(last.expr)
    }

    /// The same rows by nodes of DataFusion's.
    pub fn lowered(&self) -> Result<LogicalPlan> {
        use datafusion::logical_expr::ExprSchemable;
        let data_type = self.time.get_type(self.input.schema())?;
        let time = Typed::new(self.time.clone(), data_type);
        let filtered = Filter::try_new(self.time.clone().is_not_null(), Arc::clone(&self.input))?;
        let mut exprs: Vec<Expr> = (0..self.input.schema().fields().len())
            .map(|index| Expr::Column(Column::from(self.input.schema().qualified_field(index))))
            .collect();
        let tumbling = self.grid.is_tumbling();
        let made = match (tumbling, self.form) {
            (true, Form::End | Form::Pane(_)) => window::end(time, self.grid),
            (true, Form::Struct) => {
                window::of_end(window::end(time, self.grid), self.grid.width_us)
            }
            (false, form) => window::all(time, self.grid, form),
        };
        exprs.push(made.expr.alias(self.name.clone()));
        let filtered = Arc::new(LogicalPlan::Filter(filtered));
        let plan = LogicalPlan::Projection(Projection::try_new(exprs, filtered)?);
        if tumbling {
            return Ok(plan);
        }
        let options = UnnestOptions {
            null_handling: NullHandling::Drop,
            recursions: vec![],
        };
        let list = Column::new_unqualified(self.name.clone());
        LogicalPlanBuilder::from(plan)
            .unnest_columns_with_options(vec![list], options)?
            .build()
    }
}

/// `plan` for rows that are all there: nothing is late, and windows are rows like others.
pub fn without_event_time(plan: LogicalPlan) -> Result<LogicalPlan> {
    // From the top: whether an aggregation merges sessions is seen from what is below it as the query has it.
    let plan = plan.transform_down_with_subqueries(|node| match &node {
        LogicalPlan::Aggregate(aggregate) => match session_key(aggregate) {
            Some(key) => Ok(Transformed::yes(session::sessions_lowered(aggregate, key)?)),
            None => Ok(Transformed::no(node)),
        },
        _ => Ok(Transformed::no(node)),
    });
    let lowered = plan?.data.transform_up_with_subqueries(|node| {
        let LogicalPlan::Extension(extension) = &node else {
            return Ok(Transformed::no(node));
        };
        if let Some(watermark) = extension.node.as_any().downcast_ref::<Watermark>() {
            return Ok(Transformed::yes(watermark.input.as_ref().clone()));
        }
        if let Some(deduplicate) = extension.node.as_any().downcast_ref::<Deduplicate>() {
            return Ok(Transformed::yes(deduplicate.lowered()?));
        }
        match extension.node.as_any().downcast_ref::<TimeWindow>() {
            Some(window) => Ok(Transformed::yes(window.lowered()?)),
            None => Ok(Transformed::no(node)),
        }
    });
    Ok(lowered?.data)
}

/// The width of the windows, if `expr` makes windows of their ends.
pub fn window_width(expr: &Expr) -> Option<i64> {
    window::width_of(expr)
}

/// The windows of `width_us` with these ends, an expression of type `data_type`.
pub fn window_of_end(end: Expr, data_type: &DataType, width_us: i64) -> Expr {
    window::of_end(Typed::new(end, data_type.clone()), width_us).expr
}

/// The ends of windows, an expression of type `data_type`.
pub fn window_end(windows: Expr, data_type: &DataType) -> Result<Expr> {
    let end = nested::field(Typed::new(windows, data_type.clone()), "end", true);
    end.map(|end| end.expr)
        .map_err(|error| DataFusionError::External(Box::new(error)))
}

/// A list of the ends of the `windows` that have a pane with this end, an expression of type `data_type`.
pub fn windows_of_pane(end: Expr, data_type: &DataType, windows: Grid) -> Expr {
    window::of_pane(Typed::new(end, data_type.clone()), windows).expr
}

/// Whether `expr` is a column, or the event time of one: a window's time, or a window made of its end.
pub fn same_event_time(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => same_event_time(&alias.expr),
        Expr::ScalarFunction(call) if window::keeps_event_time(call) => {
            same_event_time(call.args.first()?)
        }
        _ => None,
    }
}

/// What the aggregation behind EXCEPT calls its counts: how often a row is on the left side, and on the right.
pub(crate) const EXCEPT: [&str; 2] = ["__except_left", "__except_right"];
/// The same behind INTERSECT.
pub(crate) const INTERSECT: [&str; 2] = ["__intersect_left", "__intersect_right"];

/// INTERSECT or EXCEPT: the rows of both sides, counted by side.
#[derive(Debug, Clone, Copy)]
pub struct SetOperation<'p> {
    /// EXCEPT, or INTERSECT.
    pub except: bool,
    /// The left side.
    pub left: &'p LogicalPlan,
    /// The right side.
    pub right: &'p LogicalPlan,
}

/// The INTERSECT or EXCEPT that `plan` is the counting aggregation of, if it is one.
pub fn set_operation(plan: &LogicalPlan) -> Option<SetOperation<'_>> {
    let LogicalPlan::Aggregate(aggregate) = plan else {
        return None;
    };
    let counts = aggregate
        .aggr_expr
        .iter()
        .map(|call| call.qualified_name().1);
    let counts: Vec<String> = counts.collect();
    let except = counts == EXCEPT;
    if !except && counts != INTERSECT {
        return None;
    }
    match aggregate.input.as_ref() {
        LogicalPlan::Union(union) => match union.inputs.as_slice() {
            [left, right] => Some(SetOperation {
                except,
                left,
                right,
            }),
            _ => None,
        },
        _ => None,
    }
}

/// The node of type `N` that `plan` is, if it is one.
pub fn node_of<N: 'static>(plan: &LogicalPlan) -> Option<&N> {
    match plan {
        LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
        _ => None,
    }
}

fn extension(node: impl UserDefinedLogicalNode + 'static) -> LogicalPlan {
    LogicalPlan::Extension(Extension {
        node: Arc::new(node),
    })
}

fn one<T>(items: Vec<T>, what: &str) -> Result<T> {
    let found = items.len();
    match <[T; 1]>::try_from(items) {
        Ok([item]) => Ok(item),
        Err(_) => Err(DataFusionError::Internal(format!(
            "a node of event time has one {what}, not {found}"
        ))),
    }
}

impl PartialOrd for Watermark {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl PartialOrd for TimeWindow {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for Watermark {
    fn name(&self) -> &str {
        "Watermark"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    // The column is an expression of the node, so that rules neither drop nor rename it.
    fn expressions(&self) -> Vec<Expr> {
        vec![Expr::Column(self.column.clone())]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (column, delay) = (&self.column, self.delay_ms);
        write!(f, "Watermark: {column}, delay {delay} ms")
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        match one(exprs, "column")? {
            Expr::Column(column) => Ok(Watermark {
                input: Arc::new(one(inputs, "input")?),
                column,
                delay_ms: self.delay_ms,
            }),
            other => Err(DataFusionError::Internal(format!(
                "a watermark is on a column, not on {other}"
            ))),
        }
    }

    fn necessary_children_exprs(&self, outputs: &[usize]) -> Option<Vec<Vec<usize>>> {
        let own = self.input.schema().maybe_index_of_column(&self.column)?;
        let mut columns = outputs.to_vec();
        columns.push(own);
        columns.sort_unstable();
        columns.dedup();
        Some(vec![columns])
    }
}

impl UserDefinedLogicalNodeCore for TimeWindow {
    fn name(&self) -> &str {
        "TimeWindow"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![self.time.clone()]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Grid {
            width_us,
            slide_us,
            start_us,
        } = self.grid;
        let (name, time) = (&self.name, &self.time);
        write!(
            f,
            "TimeWindow: {name} of {time}, width {width_us} us, slide {slide_us} us, start {start_us} us"
        )
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        TimeWindow::try_new(
            Arc::new(one(inputs, "input")?),
            one(exprs, "time")?,
            self.grid,
            self.name.clone(),
            self.form,
        )
    }

    fn necessary_children_exprs(&self, outputs: &[usize]) -> Option<Vec<Vec<usize>>> {
        let schema = self.input.schema();
        let mut columns: Vec<usize> = outputs
            .iter()
            .copied()
            .filter(|output| *output < schema.fields().len())
            .collect();
        let times = self.time.column_refs().into_iter();
        let times = times.map(|column| schema.maybe_index_of_column(column));
        columns.extend(times.collect::<Option<Vec<usize>>>()?);
        columns.sort_unstable();
        columns.dedup();
        Some(vec![columns])
    }
}
