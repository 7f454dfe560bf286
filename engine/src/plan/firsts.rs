//! First rows: `drop_duplicates`, and LIMIT where rows come for good.

use std::ops::Range;

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};
use highwater_operators::dedup::{Deduplication, Forget};
use highwater_query::{
    Deduplicate, TimeWindow, Watermark, node_of, same_event_time, session_key, window_end,
};

use super::compile::{Compiler, column, is_streaming, physical};
use super::want::Want;
use super::{Node, event_time};
use crate::error::Error;

/// True if duplicates are dropped somewhere.
pub(super) fn deduplicates(plan: &LogicalPlan) -> bool {
    any(plan, |_| true)
}

/// True if duplicates that come within the delay of a watermark are dropped somewhere.
pub(crate) fn deduplicates_within_watermark(plan: &LogicalPlan) -> bool {
    any(plan, |node| node.within_watermark)
}

/// True if it depends on the order of rows which of them are first.
pub(super) fn wants_order(plan: &LogicalPlan) -> bool {
    any(plan, |node| {
        node.keys.len() < node.input.schema().fields().len()
    })
}

/// True for rows that are as final as those below, though nothing bounds how many there are: each distinct one is, when
/// it first comes.
pub(super) fn are_final(plan: &LogicalPlan) -> bool {
    let distinct = match plan {
        LogicalPlan::Distinct(Distinct::All(_)) => true,
        LogicalPlan::Aggregate(aggregate) => {
            let keys = !aggregate.group_expr.is_empty() && session_key(aggregate).is_none();
            aggregate.aggr_expr.is_empty() && keys
        }
        _ => false,
    };
    distinct && event_time::event_keys(plan).is_empty()
}

fn any(plan: &LogicalPlan, is: impl Fn(&Deduplicate) -> bool) -> bool {
    let mut found = false;
    let _ = plan.apply_with_subqueries(|node| {
        found |= node_of::<Deduplicate>(node).is_some_and(&is);
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// Says which column is event time wherever duplicates within the watermark are dropped: no rule may drop it.
pub(super) fn with_event_time(plan: LogicalPlan) -> datafusion::common::Result<LogicalPlan> {
    let named = plan.transform_up(|node| {
        let Some(deduplicate) = node_of::<Deduplicate>(&node).filter(|node| node.within_watermark)
        else {
            return Ok(Transformed::no(node));
        };
        let mut deduplicate = deduplicate.clone();
        let times = event_times(&deduplicate.input);
        let schema = deduplicate.input.schema();
        deduplicate.event_time = times
            .first()
            .map(|index| Column::from(schema.qualified_field(*index)));
        Ok(Transformed::yes(deduplicate.into_plan()))
    });
    Ok(named?.data)
}

/// The columns that are event time under a watermark.
fn event_times(plan: &LogicalPlan) -> Vec<usize> {
    let columns = event_time::watermarked(plan).into_iter().enumerate();
    columns
        .filter(|(_, is)| *is)
        .map(|(index, _)| index)
        .collect()
}

/// The event time of rows of which duplicates are dropped: of a window its end.
pub(super) fn event_time_of(plan: &LogicalPlan) -> datafusion::common::Result<Option<Expr>> {
    let schema = plan.schema();
    let Some(index) = event_time::event_time(plan) else {
        return Ok(None);
    };
    let column = Expr::Column(Column::from(schema.qualified_field(index)));
    let data_type = schema.field(index).data_type();
    match data_type.is_nested() {
        true => window_end(column, data_type).map(Some),
        false => Ok(Some(column)),
    }
}

pub(super) fn joins_streams(plan: &LogicalPlan) -> bool {
    let is_join = |node: &LogicalPlan| matches!(node, LogicalPlan::Join(join) if is_streaming(&join.left) && is_streaming(&join.right));
    plan.exists(|node| Ok(is_join(node))).unwrap_or(false)
}

/// The delay that column number `index`, an event time, comes with: of several streams in a union the first one's.
fn delay_ms(plan: &LogicalPlan, index: usize) -> Option<i64> {
    if let Some(watermark) = node_of::<Watermark>(plan) {
        let own = plan.schema().maybe_index_of_column(&watermark.column);
        return match own == Some(index) {
            true => Some(watermark.delay_ms),
            false => delay_ms(&watermark.input, index),
        };
    }
    // A window's end, which `by_event_time` has made of the window, is as late as the window.
    let of = |expr: &Expr, input: &LogicalPlan| {
        let column = match same_event_time(expr) {
            Some(column) => column.clone(),
            None => expr.column_refs().into_iter().next()?.clone(),
        };
        delay_ms(input, input.schema().maybe_index_of_column(&column)?)
    };
    if let Some(window) = node_of::<TimeWindow>(plan) {
        return match index < window.input.schema().fields().len() {
            true => delay_ms(&window.input, index),
            false => of(&window.time, &window.input),
        };
    }
    match plan {
        LogicalPlan::Projection(projection) => of(&projection.expr[index], &projection.input),
        LogicalPlan::Aggregate(aggregate) => of(aggregate.group_expr.get(index)?, &aggregate.input),
        LogicalPlan::Union(union) => {
            let mut inputs = union.inputs.iter();
            delay_ms(inputs.find(|input| is_streaming(input))?, index)
        }
        LogicalPlan::Join(join) => match index.checked_sub(join.left.schema().fields().len()) {
            None => delay_ms(&join.left, index),
            Some(index) => delay_ms(&join.right, index),
        },
        LogicalPlan::Unnest(unnest) => {
            delay_ms(&unnest.input, *unnest.dependency_indices.get(index)?)
        }
        other => match other.inputs().as_slice() {
            [input] if index < input.schema().fields().len() => delay_ms(input, index),
            _ => None,
        },
    }
}

impl Compiler<'_> {
    pub(super) fn deduplicate(&mut self, node: &Deduplicate, want: Want) -> Result<Node, Error> {
        let below = &node.input;
        // Rows that replace others, or come again in every epoch, are rows like others: that is the model's answer.
        let input = self.node(below, want)?;
        if input.edge().signed && node.within_watermark {
            return Err(Error::refused(
                "_LEGACY_ERROR_TEMP_3102",
                "dropDuplicatesWithinWatermark is not supported over rows that may leave again: it forgets the duplicates, so none could take the place of a row that leaves. \
                 Use drop_duplicates, or append mode, where rows are final",
            ));
        }
        if input.edge().signed {
            let keys: Vec<Expr> = node.keys.iter().cloned().map(Expr::Column).collect();
            return self.first_of_keys(input, below, &keys);
        }
        let times = event_times(below);
        // In complete mode none is late, and none forgotten.
        if times.len() > 1 && self.bounded {
            return Err(event_time::several("dropping duplicates"));
        }
        let schema = below.schema();
        // The model judges duplicates by the watermark in complete mode too, where it has no joins of streams: what they give
        // is as late as the later row.
        let judges = self.bounded || !joins_streams(below);
        if node.within_watermark && !judges {
            return Err(Error::refused(
                "_LEGACY_ERROR_TEMP_3102",
                "Join between two streaming DataFrames/Datasets below dropDuplicatesWithinWatermark is not supported in Complete output mode, only in \
                 Append and Update output modes. Use drop_duplicates, or another output mode",
            ));
        }
        let time = match judges {
            true => event_time_of(below).map_err(Error::run)?,
            false => None,
        };
        let is_time = |key: &Column| schema.maybe_index_of_column(key) == times.first().copied();
        let mut keys: Vec<Expr> = node.keys.iter().cloned().map(Expr::Column).collect();
        let forget = match (&time, node.keys.iter().any(is_time)) {
            _ if node.within_watermark => {
                let delay = times.first().and_then(|index| delay_ms(below, *index));
                let (Some(_), Some(delay_ms)) = (&time, delay) else {
                    return Err(Error::refused(
                        "_LEGACY_ERROR_TEMP_3102",
                        "dropDuplicatesWithinWatermark is not supported on streaming DataFrames/DataSets without watermark: \
                         it forgets by event time. Give the rows one with with_watermark, or use drop_duplicates",
                    ));
                };
                let delay_us = delay_ms.saturating_mul(1_000);
                Forget::After { delay_us }
            }
            (Some(time), true) => {
                keys.retain(|key| key != time);
                keys.insert(0, time.clone());
                Forget::FirstKey
            }
            _ => Forget::Never,
        };
        let event_time = time.as_ref().map(|time| {
            let time = physical(std::slice::from_ref(time), schema);
            time.map(|mut exprs| exprs.remove(0))
        });
        let name = format!("deduplicate-{}", self.deduplications);
        self.deduplications += 1;
        Ok(Node::Deduplicate {
            input: Box::new(input),
            deduplication: Box::new(Deduplication {
                name,
                keys: physical(&keys, schema)?,
                event_time: event_time.transpose()?,
                forget,
            }),
        })
    }

    /// Each distinct row of `input`, when it first comes.
    pub(super) fn first_of_each(&mut self, input: Node) -> Node {
        let schema = input.edge().rows;
        let keys = (0..schema.fields().len()).map(|index| column(&schema, index));
        let name = format!("deduplicate-{}", self.deduplications);
        self.deduplications += 1;
        let deduplication = Deduplication {
            name,
            keys: keys.collect(),
            event_time: None,
            forget: Forget::Never,
        };
        Node::Deduplicate {
            input: Box::new(input),
            deduplication: Box::new(deduplication),
        }
    }

    /// Those of the rows that `input` gives whose numbers are in `wanted`, counted as they come: no row ever leaves.
    pub(super) fn first_rows(&mut self, input: Node, wanted: Range<u64>) -> Node {
        let name = format!("limit-{}", self.limits);
        self.limits += 1;
        Node::Limit {
            input: Box::new(input),
            name,
            wanted,
        }
    }
}

/// True if somewhere the first rows to come are taken: they are the first in the order of the source.
pub(super) fn limits(plan: &LogicalPlan) -> bool {
    let changes = |node: &LogicalPlan| {
        let regroups = matches!(
            node,
            LogicalPlan::Aggregate(_)
                | LogicalPlan::Distinct(_)
                | LogicalPlan::Sort(_)
                | LogicalPlan::Window(_)
        );
        regroups && is_streaming(node)
    };
    let takes = |node: &LogicalPlan| match node {
        LogicalPlan::Limit(limit) if is_streaming(node) => limit
            .input
            .exists(|below| Ok(changes(below)))
            .map(|changes| !changes),
        _ => Ok(false),
    };
    plan.exists(takes).unwrap_or(false)
}
