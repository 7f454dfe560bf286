//! Late rows that are wanted: where they are told apart, and what of them is sent.
//!
//! A row is sent as it enters the operator that drops it, with all its columns: [`mark`] puts a node below each such
//! operator, before rules cut columns that nothing above reads. An operator above another one that drops late rows of the
//! same event time finds none: what comes out below is not late by the watermark that judges above. A chain of windows
//! has its late rows at its lowest one.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchemaRef, DataFusionError, Result};
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, Extension, LogicalPlan, Projection, UserDefinedLogicalNodeCore,
    Window,
};
use highwater_operators::aggregate::Panes;
use highwater_operators::late::Late;
use highwater_query::{Deduplicate, node_of, session_bounds, session_key, type_text};

use super::compile::{is_streaming, physical};
use super::event_time::{
    event_keys, is_event_time, overlaps, panes_of, partition_time, watermarked, windows_of,
};
use super::firsts::event_time_of;
use super::{Compiled, Node};
use crate::error::Error;
use crate::sink::OutputMode;

/// Rows of which late ones are sent aside as well.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LateRows {
    /// The rows.
    pub(super) input: Arc<LogicalPlan>,
    /// The event time that judges.
    at: Expr,
    /// Columns that say nothing but the event time again, which are not sent.
    made: Vec<Column>,
    /// Whether `at` is a pane's end, by width, slide, start and pane of its windows.
    panes: Option<[i64; 4]>,
}

/// The same plan with a node below each operator that drops late rows, in append mode or another.
pub(super) fn mark(plan: LogicalPlan, appends: bool) -> Result<LogicalPlan> {
    let marked = plan.transform_up(|node| {
        if !matches!(node, LogicalPlan::Join(_)) && node.inputs().into_iter().any(is_marked) {
            return Ok(Transformed::no(node));
        }
        if let Some(deduplicate) = node_of::<Deduplicate>(&node) {
            let Some(at) = event_time_of(&deduplicate.input)? else {
                return Ok(Transformed::no(node));
            };
            let mut deduplicate = deduplicate.clone();
            let made = windows_of(&deduplicate.input);
            deduplicate.input = Arc::new(below(deduplicate.input, at, made, None)?);
            return Ok(Transformed::yes(deduplicate.into_plan()));
        }
        if let LogicalPlan::Window(window) = &node
            && appends
            && let Some(at) = partition_time(window)?
        {
            let made = windows_of(&window.input);
            let below = Arc::new(below(Arc::clone(&window.input), at, made, None)?);
            let over = Window::try_new(window.window_expr.clone(), below)?;
            return Ok(Transformed::yes(LogicalPlan::Window(over)));
        }
        if let LogicalPlan::Join(join) = &node {
            if !is_streaming(&join.left) || !is_streaming(&join.right) {
                return Ok(Transformed::no(node));
            }
            let mut join = join.clone();
            for side in [&mut join.left, &mut join.right] {
                if is_marked(side) {
                    continue;
                }
                *side = Arc::new(below_names(side)?);
            }
            return Ok(Transformed::yes(LogicalPlan::Join(join)));
        }
        let LogicalPlan::Aggregate(aggregate) = &node else {
            return Ok(Transformed::no(node));
        };
        let input = Arc::clone(&aggregate.input);
        let mut made = windows_of(&input);
        let mut panes = None;
        let at = if let Some(place) = session_key(aggregate) {
            let session = aggregate.group_expr[place].clone().unalias();
            if !is_event_time(&session, &input, &watermarked(&input)) {
                return Ok(Transformed::no(node));
            }
            if let Expr::Column(column) = &session {
                made.push(column.clone());
            }
            let [_, end] = session_bounds(&session, &session.get_type(input.schema())?)?;
            end
        } else if event_keys(&node).first() == Some(&0) {
            panes = panes_of(aggregate)
                .map(|(of, pane)| [of.width_us, of.slide_us, of.start_us, pane.width_us]);
            aggregate.group_expr[0].clone().unalias()
        } else {
            return Ok(Transformed::no(node));
        };
        let below = below(input, at, made, panes)?;
        let (keys, calls) = (aggregate.group_expr.clone(), aggregate.aggr_expr.clone());
        let aggregate = Aggregate::try_new(Arc::new(below), keys, calls)?;
        Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
    });
    Ok(marked?.data)
}

/// One side of a join with a node for its late rows: below the names that the resolver gives to columns of which both
/// sides have one.
fn below_names(side: &Arc<LogicalPlan>) -> Result<LogicalPlan> {
    if let LogicalPlan::Projection(projection) = side.as_ref() {
        let input = &projection.input;
        let renames = |(index, expr): (usize, &Expr)| match expr.clone().unalias() {
            Expr::Column(column) => input.schema().maybe_index_of_column(&column) == Some(index),
            _ => false,
        };
        let width = input.schema().fields().len();
        if projection.expr.len() == width && projection.expr.iter().enumerate().all(renames) {
            let below = Arc::new(below_names(input)?);
            let named = Projection::try_new(projection.expr.clone(), below)?;
            return Ok(LogicalPlan::Projection(named));
        }
    }
    match event_time_of(side)? {
        Some(at) => below(Arc::clone(side), at, windows_of(side), None),
        None => Ok(side.as_ref().clone()),
    }
}

/// `input` with a node that sends aside what `at` says is late.
fn below(
    input: Arc<LogicalPlan>,
    at: Expr,
    made: Vec<Column>,
    panes: Option<[i64; 4]>,
) -> Result<LogicalPlan> {
    if let Some(column) = made.iter().find(|column| overlaps(&input, column)) {
        return Err(DataFusionError::NotImplemented(format!(
            "sending aside late rows of overlapping windows whose column \"{}\" is used other than as a key",
            column.name
        )));
    }
    Ok(LogicalPlan::Extension(Extension {
        node: Arc::new(LateRows {
            input,
            at,
            made,
            panes,
        }),
    }))
}

fn is_marked(plan: &LogicalPlan) -> bool {
    plan.exists(|node| Ok(node_of::<LateRows>(node).is_some()))
        .unwrap_or(false)
}

impl LateRows {
    /// The node over `input`, the rows of its own input.
    pub(super) fn over(&self, input: Node) -> std::result::Result<Node, Error> {
        let edge = input.edge();
        if edge.signed {
            return Err(Error::not_yet("late rows of rows that may leave again"));
        }
        let fields = self.input.schema().fields();
        let made = self.made.iter();
        let made: Vec<Option<usize>> = made
            .map(|column| self.input.schema().maybe_index_of_column(column))
            .collect();
        let columns = (0..fields.len()).filter(|index| !made.contains(&Some(*index)));
        let columns: Vec<usize> = columns.collect();
        let schema = edge.rows.project(&columns).map_err(Error::run)?;
        // Nullable throughout, so that rows of several operators have one schema.
        let nullable = |field: &FieldRef| field.as_ref().clone().with_nullable(true);
        let fields: Vec<Field> = schema.fields().iter().map(nullable).collect();
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        check_names(&schema)?;
        let mut at = physical(std::slice::from_ref(&self.at), self.input.schema())?;
        let panes = self
            .panes
            .map(|[width_us, slide_us, start_us, pane_us]| Panes {
                width_us,
                slide_us,
                start_us,
                pane_us,
            });
        Ok(Node::Late {
            input: Box::new(input),
            late: Box::new(Late {
                at: at.remove(0),
                panes,
                columns,
                schema,
            }),
        })
    }
}

fn check_names(schema: &Schema) -> std::result::Result<(), Error> {
    let fields = schema.fields();
    for (index, field) in fields.iter().enumerate() {
        let same = |other: &FieldRef| other.name().eq_ignore_ascii_case(field.name());
        if fields[..index].iter().any(same) {
            return Err(Error::refused(
                "COLUMN_ALREADY_EXISTS",
                format!(
                    "late rows would have two columns \"{}\": rename one of them below the operator that drops late rows",
                    field.name()
                ),
            ));
        }
    }
    Ok(())
}

/// What late rows of the query look like; refused if there can be none, or if they have no common columns.
pub(crate) fn schema(
    compiled: &Compiled,
    mode: OutputMode,
) -> std::result::Result<SchemaRef, Error> {
    let refused = |message: String| Error::Refused {
        class: None,
        message,
    };
    if compiled.watermarks.is_empty() {
        return Err(refused(
            "late rows are asked for, but the query has no watermark, so no row is late: give a stream one \
             (WATERMARK .. DELAY OF .., with_watermark), or do not ask"
                .into(),
        ));
    }
    if mode == OutputMode::Complete {
        return Err(refused(
            "late rows are asked for in complete mode, whose groups take late rows in: use another output mode, or do not ask"
                .into(),
        ));
    }
    columns(&compiled.root)?.ok_or_else(|| {
        refused(
            "late rows are asked for, but no operator of the query drops any: none of them has state by event time under a \
             watermark"
                .into(),
        )
    })
}

/// The columns of all operators that drop late rows, together: a row has nulls in those of others. None if no operator
/// drops any.
pub(crate) fn columns(root: &Node) -> std::result::Result<Option<SchemaRef>, Error> {
    let mut fields: Vec<FieldRef> = Vec::new();
    let mut clash = None;
    let mut found = false;
    root.for_each(&mut |node| {
        let Node::Late { late, .. } = node else {
            return;
        };
        found = true;
        for field in late.schema.fields() {
            let same = |known: &&FieldRef| known.name().eq_ignore_ascii_case(field.name());
            match fields.iter().find(same) {
                None => fields.push(Arc::clone(field)),
                Some(known) if known.data_type() == field.data_type() => {}
                Some(known) => clash = Some((Arc::clone(known), Arc::clone(field))),
            }
        }
    });
    if let Some((one, other)) = clash {
        return Err(Error::Refused {
            class: None,
            message: format!(
                "late rows of this query come from several operators, and column \"{}\" is {} in some and {} in others: \
                 rename it below one of them",
                one.name(),
                type_text(one.data_type()),
                type_text(other.data_type())
            ),
        });
    }
    Ok(found.then(|| Arc::new(Schema::new(fields))))
}

impl PartialOrd for LateRows {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for LateRows {
    fn name(&self) -> &str {
        "LateRows"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![self.at.clone()]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LateRows: by {}", self.at)
    }

    fn with_exprs_and_inputs(
        &self,
        mut exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> Result<Self> {
        let (Some(at), Some(input)) = (exprs.pop(), inputs.pop()) else {
            let message = "late rows have one event time and one input";
            return Err(DataFusionError::Internal(message.into()));
        };
        Ok(LateRows {
            input: Arc::new(input),
            at,
            made: self.made.clone(),
            panes: self.panes,
        })
    }

    /// All columns: late rows are sent whole.
    fn necessary_children_exprs(&self, _outputs: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![(0..self.input.schema().fields().len()).collect()])
    }
}
