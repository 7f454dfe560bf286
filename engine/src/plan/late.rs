//! Late rows that are wanted: which rows of the sources they are.
//!
//! A late row is sent as its source has it, once, whatever the query makes of it on the way to the operators that drop
//! it. So the node that tells them apart stands right above the source, one for each source however often it is used, and
//! asks of its rows what the operators will: [`mark`] follows the event time of each operator, and the conditions on the
//! way, down to columns of the source. A row is late if any operator calls it so.
//!
//! Whether a static table has a partner for a row, or an array any elements, is not asked: that is no matter of when the
//! row came. An operator above another one that drops late rows of the same event time finds none: what comes out below
//! is not late by the watermark that judges above. A chain of windows has its late rows at its lowest one.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchemaRef, DataFusionError, JoinType, Result};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, Join, LogicalPlan, TableScan, Unnest,
    UserDefinedLogicalNodeCore,
};
use highwater_operators::late::{Judge, Late};
use highwater_query::{
    Deduplicate, Observe, TimeWindow, Watermark, node_of, session_bounds, session_key, type_text,
};

use super::compile::{is_streaming, physical};
use super::event_time::{event_keys, is_event_time, partition_time, watermarked};
use super::firsts::event_time_of;
use super::{Compiled, Node};
use crate::error::Error;
use crate::relation::StreamRelation;
use crate::sink::OutputMode;

/// The rows of a source, of which late ones are sent aside as well.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LateRows {
    /// The rows.
    pub(super) input: Arc<LogicalPlan>,
    /// What the operators that drop late rows ask.
    questions: Vec<Question>,
}

/// What an operator asks of a row that comes to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    /// The event time that judges.
    at: Expr,
    /// What the rows below it are asked, the lowest last.
    conditions: Vec<Expr>,
}

/// The questions that come to a source.
struct Asked {
    scan: TableScan,
    questions: Vec<Question>,
}

/// The same plan with a node above each source of which an operator drops late rows, in append mode or another.
pub(super) fn mark(plan: LogicalPlan, appends: bool) -> Result<LogicalPlan> {
    let mut asked: Vec<Asked> = Vec::new();
    plan.apply(|node| {
        if is_streaming(node) {
            for (below, at) in judged(node, appends)? {
                let conditions = Vec::new();
                ask(below, Question { at, conditions }, appends, &mut asked)?;
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    // Above the first use of each: all uses see the same rows.
    plan.transform_up(|node| {
        let LogicalPlan::TableScan(scan) = &node else {
            return Ok(Transformed::no(node));
        };
        let Some(place) = asked.iter().position(|asked| is_same(&asked.scan, scan)) else {
            return Ok(Transformed::no(node));
        };
        let Asked {
            scan: first,
            questions,
        } = asked.swap_remove(place);
        let questions = questions.into_iter().map(|question| {
            let values = columns_of(&node).into_iter().map(Some).collect::<Vec<_>>();
            let first = LogicalPlan::TableScan(first.clone());
            question.of(&first, &values, &values)
        });
        let late = LateRows {
            questions: questions.collect::<Result<_>>()?,
            input: Arc::new(node),
        };
        let node = Arc::new(late);
        Ok(Transformed::yes(LogicalPlan::Extension(Extension { node })))
    })
    .data()
}

/// If this node drops late rows: which of those below, and by what.
fn judged(node: &LogicalPlan, appends: bool) -> Result<Vec<(&LogicalPlan, Expr)>> {
    if let Some(deduplicate) = node_of::<Deduplicate>(node) {
        let at = event_time_of(&deduplicate.input)?;
        return Ok(at
            .map(|at| (deduplicate.input.as_ref(), at))
            .into_iter()
            .collect());
    }
    match node {
        LogicalPlan::Window(window) if appends => {
            let at = partition_time(window)?;
            Ok(at
                .map(|at| (window.input.as_ref(), at))
                .into_iter()
                .collect())
        }
        LogicalPlan::Join(join) if is_streaming(&join.left) && is_streaming(&join.right) => {
            let mut found = Vec::new();
            for side in [join.left.as_ref(), join.right.as_ref()] {
                found.extend(event_time_of(side)?.map(|at| (side, at)));
            }
            Ok(found)
        }
        LogicalPlan::Aggregate(aggregate) => {
            let input = aggregate.input.as_ref();
            let at = if let Some(place) = session_key(aggregate) {
                let session = aggregate.group_expr[place].clone().unalias();
                if !is_event_time(&session, input, &watermarked(input)) {
                    return Ok(Vec::new());
                }
                let [_, end] = session_bounds(&session, &session.get_type(input.schema())?)?;
                end
            } else if event_keys(node).first() == Some(&0) {
                aggregate.group_expr[0].clone().unalias()
            } else {
                return Ok(Vec::new());
            };
            Ok(vec![(input, at)])
        }
        _ => Ok(Vec::new()),
    }
}

/// Takes a question about the rows of `plan` to the sources that they are made of.
fn ask(
    plan: &LogicalPlan,
    question: Question,
    appends: bool,
    asked: &mut Vec<Asked>,
) -> Result<()> {
    // Another operator has asked before: what it lets through is not late.
    if !is_streaming(plan) || !judged(plan, appends)?.is_empty() {
        return Ok(());
    }
    let all = |input: &LogicalPlan| -> Vec<Option<Expr>> {
        columns_of(input).into_iter().map(Some).collect()
    };
    if let Some(window) = node_of::<TimeWindow>(plan) {
        let mut values = all(&window.input);
        values.push(Some(window.last()?));
        let mut of_row = values.clone();
        // Of several windows a condition may leave some out.
        if !window.grid.is_tumbling() {
            of_row.pop();
        }
        of_row.resize(values.len(), None);
        return ask(
            &window.input,
            question.of(plan, &values, &of_row)?,
            appends,
            asked,
        );
    }
    let passes = node_of::<Watermark>(plan).is_some()
        || node_of::<Observe>(plan).is_some()
        || node_of::<Deduplicate>(plan).is_some();
    let input = plan.inputs().first().copied();
    match (plan, input) {
        (LogicalPlan::TableScan(scan), _) => {
            match asked.iter_mut().find(|known| is_same(&known.scan, scan)) {
                None => asked.push(Asked {
                    scan: scan.clone(),
                    questions: vec![question],
                }),
                Some(known) => {
                    let values = all(&LogicalPlan::TableScan(known.scan.clone()));
                    let question = question.of(plan, &values, &values)?;
                    if !known.questions.contains(&question) {
                        known.questions.push(question);
                    }
                }
            }
            Ok(())
        }
        (LogicalPlan::Filter(filter), Some(input)) => {
            let mut question = question;
            question.conditions.push(filter.predicate.clone());
            ask(input, question, appends, asked)
        }
        (LogicalPlan::Projection(projection), Some(input)) => {
            let known = |expr: &Expr| Some(expr.clone().unalias());
            let values: Vec<_> = projection.expr.iter().map(known).collect();
            ask(input, question.of(plan, &values, &values)?, appends, asked)
        }
        (LogicalPlan::Union(union), _) => union.inputs.iter().try_for_each(|input| {
            let values = all(input);
            ask(input, question.of(plan, &values, &values)?, appends, asked)
        }),
        (LogicalPlan::Join(join), _) => {
            let values = of_stream(join);
            let input = match is_streaming(&join.left) {
                true => &join.left,
                false => &join.right,
            };
            ask(input, question.of(plan, &values, &values)?, appends, asked)
        }
        (LogicalPlan::Unnest(unnest), Some(input)) => {
            let values = beside_lists(unnest);
            ask(input, question.of(plan, &values, &values)?, appends, asked)
        }
        (LogicalPlan::SubqueryAlias(_) | LogicalPlan::Sort(_), Some(input)) => {
            let values = all(input);
            ask(input, question.of(plan, &values, &values)?, appends, asked)
        }
        (LogicalPlan::Window(window), Some(input)) => {
            let mut values = all(input);
            values.resize(window.schema.fields().len(), None);
            ask(input, question.of(plan, &values, &values)?, appends, asked)
        }
        (_, Some(input)) if passes => ask(input, question, appends, asked),
        (other, _) => {
            let name = other.display().to_string();
            let name = name.split(':').next().unwrap_or_default().to_uppercase();
            Err(DataFusionError::NotImplemented(format!(
                "sending aside late rows above {name}: it is not known which rows of a source they are"
            )))
        }
    }
}

impl Question {
    /// The same question about the rows below `plan`, of which its columns are these values, where they are known: those
    /// that judge, and those that a condition may ask for.
    fn of(
        &self,
        plan: &LogicalPlan,
        values: &[Option<Expr>],
        of_row: &[Option<Expr>],
    ) -> Result<Self> {
        let Some(at) = replaced(&self.at, plan, values)? else {
            return Err(DataFusionError::NotImplemented(
                "sending aside late rows by an event time that is not made of columns of a source, but of an exploded array or of a static table".into(),
            ));
        };
        let conditions = self.conditions.iter();
        let conditions = conditions.map(|condition| replaced(condition, plan, of_row));
        let conditions: Result<Vec<Option<Expr>>> = conditions.collect();
        Ok(Question {
            at,
            conditions: conditions?.into_iter().flatten().collect(),
        })
    }
}

/// `expr` with the values of `plan`'s columns in their place; `None` if one is not known.
fn replaced(expr: &Expr, plan: &LogicalPlan, values: &[Option<Expr>]) -> Result<Option<Expr>> {
    let mut known = true;
    let made = expr.clone().transform(|expr| {
        let Expr::Column(column) = &expr else {
            return Ok(Transformed::no(expr));
        };
        let index = plan.schema().index_of_column(column)?;
        Ok(match &values[index] {
            // What stands in its place has columns of the rows below, which are not looked at again.
            Some(value) => Transformed::new(value.clone(), true, TreeNodeRecursion::Jump),
            None => {
                known = false;
                Transformed::no(expr)
            }
        })
    });
    let made = made.data()?;
    Ok(known.then_some(made))
}

fn columns_of(plan: &LogicalPlan) -> Vec<Expr> {
    let indices = 0..plan.schema().fields().len();
    let column = |index| Expr::Column(Column::from(plan.schema().qualified_field(index)));
    indices.map(column).collect()
}

/// The columns of a join of a stream with static rows: those of the stream are known.
fn of_stream(join: &Join) -> Vec<Option<Expr>> {
    let side = |plan: &LogicalPlan| -> Vec<Option<Expr>> {
        let known = is_streaming(plan);
        let columns = columns_of(plan).into_iter();
        columns.map(|column| known.then_some(column)).collect()
    };
    let mut values = match join.join_type {
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => side(&join.right),
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => side(&join.left),
        _ => [side(&join.left), side(&join.right)].concat(),
    };
    // Whether there is a partner.
    values.resize(join.schema.fields().len(), None);
    values
}

/// The columns of exploded rows: those are known that are not made of a list.
fn beside_lists(unnest: &Unnest) -> Vec<Option<Expr>> {
    let below = columns_of(&unnest.input);
    let made = |index: &usize| {
        let lists = unnest.list_type_columns.iter().map(|(index, _)| index);
        let mut made = lists.chain(&unnest.struct_type_columns);
        made.any(|of| of == index)
    };
    let places = unnest.dependency_indices.iter();
    places
        .map(|index| (!made(index)).then(|| below[*index].clone()))
        .collect()
}

/// True if both read one source.
fn is_same(one: &TableScan, other: &TableScan) -> bool {
    let of = |scan: &TableScan| {
        let stream = scan.source.downcast_ref::<StreamRelation>();
        stream.map(|stream| Arc::clone(&stream.factory))
    };
    matches!((of(one), of(other)), (Some(one), Some(other)) if Arc::ptr_eq(&one, &other))
}

impl LateRows {
    /// The node over `input`, the rows of its own input.
    pub(super) fn over(&self, input: Node) -> std::result::Result<Node, Error> {
        let fields = input.edge().rows.fields().clone();
        // Nullable throughout, so that rows of several sources have one schema.
        let nullable = |field: &FieldRef| field.as_ref().clone().with_nullable(true);
        let fields: Vec<Field> = fields.iter().map(nullable).collect();
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let judge = |question: &Question| {
            // As the query does: the lowest first.
            let mut exprs: Vec<Expr> = question.conditions.iter().rev().cloned().collect();
            exprs.push(question.at.clone());
            let mut exprs = physical(&exprs, self.input.schema())?;
            let at = exprs.pop().expect("the last one");
            Ok(Judge {
                at,
                conditions: exprs,
            })
        };
        let judges = self.questions.iter().map(judge);
        Ok(Node::Late {
            input: Box::new(input),
            late: Box::new(Late {
                judges: judges.collect::<std::result::Result<_, Error>>()?,
                schema,
            }),
        })
    }
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

/// The columns of all sources that have late rows, together: a row has nulls in those of others. None if no operator drops
/// any.
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
                "late rows of this query come from several sources, and column \"{}\" is {} in one and {} in another, which a \
                 table of both cannot have: rename it where one of them is defined, or do not ask",
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
        let questions = self.questions.iter();
        let exprs = questions.flat_map(|one| [&one.at].into_iter().chain(&one.conditions));
        exprs.cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at: Vec<String> = self
            .questions
            .iter()
            .map(|one| one.at.to_string())
            .collect();
        write!(f, "LateRows: by {}", at.join(", "))
    }

    fn with_exprs_and_inputs(
        &self,
        exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> Result<Self> {
        let internal = |message: &str| DataFusionError::Internal(message.into());
        let mut exprs = exprs.into_iter();
        let mut questions = Vec::new();
        for question in &self.questions {
            let at = exprs.next();
            questions.push(Question {
                at: at.ok_or_else(|| internal("late rows have an event time"))?,
                conditions: exprs.by_ref().take(question.conditions.len()).collect(),
            });
        }
        let input = inputs.pop();
        Ok(LateRows {
            input: Arc::new(input.ok_or_else(|| internal("late rows have an input"))?),
            questions,
        })
    }

    /// All columns: late rows are sent whole.
    fn necessary_children_exprs(&self, _outputs: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![(0..self.input.schema().fields().len()).collect()])
    }
}
