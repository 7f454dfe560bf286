//! What the state of an operator is computed from, in words: a restart compares them with those of the run before.
//!
//! Names alone would not do: `a % 2 AS k` below an aggregate by `k` may become `a % 3 AS k`. So expressions are followed
//! down to the columns of the sources. Filters are left out: they may change between two runs.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, UnKnownColumn};
use highwater_operators::aggregate::{AggregateCall, Aggregation};
use highwater_operators::dedup::Deduplication;
use highwater_operators::join::{JoinKey, StreamJoin};
use highwater_operators::regroup::Regroup;
use highwater_operators::session::Sessions;
use highwater_operators::stage::Step;

use super::Node;
use crate::checkpoint::Computed;

/// Goes up when the same query is put in other words: words of different versions say nothing about each other.
const VERSION: u32 = 1;
/// A column that takes more words is told by its beginning and a checksum: columns of columns would grow without bound.
const WORDS_MAX: usize = 400;

/// What the keys and values of an aggregation over `input` are computed from.
pub(super) fn computed(input: &Node, aggregation: &Aggregation) -> Computed {
    let columns = columns(input);
    let keys = aggregation.keys.iter();
    let calls = aggregation.calls.iter();
    Computed {
        version: VERSION,
        keys: keys.map(|key| words(key, &columns)).collect(),
        values: calls.map(|call| call_words(call, &columns)).collect(),
    }
}

/// What the keys and columns of one side of a join, over `input`, are computed from.
pub(super) fn joined(input: &Node, how: &StreamJoin, side: usize) -> Computed {
    let columns = columns(input);
    let keys = how.keys.iter();
    let key = |key: &JoinKey| words(if side == 0 { &key.left } else { &key.right }, &columns);
    Computed {
        version: VERSION,
        keys: keys.map(key).collect(),
        values: columns.clone(),
    }
}

/// What the sessions of `input` and their values are computed from.
pub(super) fn sessions(input: &Node, sessions: &Sessions) -> Computed {
    let columns = columns(input);
    let keys = sessions.keys.iter().map(|key| words(key, &columns));
    let mut keys: Vec<String> = keys.collect();
    keys.insert(sessions.place, words(&sessions.window, &columns));
    let calls = sessions.calls.iter();
    Computed {
        version: VERSION,
        keys,
        values: calls.map(|call| call_words(call, &columns)).collect(),
    }
}

/// What the keys of a deduplication of `input` are computed from.
pub(super) fn seen(input: &Node, deduplication: &Deduplication) -> Computed {
    let columns = columns(input);
    let keys = deduplication.keys.iter();
    Computed {
        version: VERSION,
        keys: keys.map(|key| words(key, &columns)).collect(),
        values: Vec::new(),
    }
}

/// What the groups over `input` are computed from, and what of them.
pub(super) fn regrouped(input: &Node, regroup: &Regroup, answers: &[String]) -> Computed {
    let mut keys = columns(input);
    let mut values = keys.split_off(regroup.keys);
    values.extend(answers.iter().cloned());
    Computed {
        version: VERSION,
        keys,
        values,
    }
}

/// Each column that comes out of `node`, in words.
fn columns(node: &Node) -> Vec<String> {
    match node {
        Node::Source { source, edge } => {
            let name = |field: &FieldRef| format!("source-{source}.{}", field.name());
            edge.rows.fields().iter().map(name).collect()
        }
        // Which rows they are is compared by itself.
        Node::Static { edge, .. } => edge.rows.fields().iter().map(of_table).collect(),
        Node::Stage { input, steps } => steps.iter().fold(columns(input), through),
        Node::Watermark { input, .. }
        | Node::Late { input, .. }
        | Node::Observe { input, .. }
        | Node::Order { input, .. } => columns(input),
        Node::Regroup {
            input,
            regroup,
            answers,
            ..
        } => {
            let computed = regrouped(input, regroup, answers);
            let mut columns = computed.keys;
            columns.extend(computed.values);
            // Of some answers there are more than of columns below, of others fewer.
            let width = regroup.schema.fields().len();
            columns.truncate(width);
            while columns.len() < width {
                let next = columns.len();
                columns.push(short(format!("{next} of {}", columns.join(", "))));
            }
            columns
        }
        Node::Lookup { input, how, .. } => {
            // The columns of the table, where it has any here, stand on the other side of the stream's.
            let stream = columns(input);
            let names: Vec<String> = how.schema.fields().iter().map(of_table).collect();
            let table = names.len().saturating_sub(stream.len());
            match how.stream_left {
                true => [stream.as_slice(), &names[names.len() - table..]].concat(),
                false => [&names[..table], &stream].concat(),
            }
        }
        Node::Join { inputs, how, .. } => {
            let mut both: Vec<String> = inputs.iter().flat_map(columns).collect();
            both.truncate(how.schema.fields().len());
            both
        }
        Node::Deduplicate { input, .. } | Node::Limit { input, .. } => columns(input),
        Node::Aggregate { input, aggregation } => {
            let computed = computed(input, aggregation);
            computed.keys.into_iter().chain(computed.values).collect()
        }
        Node::Sessions { input, sessions } => {
            let computed = self::sessions(input, sessions);
            computed.keys.into_iter().chain(computed.values).collect()
        }
        Node::Union { inputs, .. } => {
            let all: Vec<Vec<String>> = inputs.iter().map(columns).collect();
            let column = |index: usize| {
                let each: Vec<&str> = all.iter().map(|one| one[index].as_str()).collect();
                short(format!("({})", each.join(" | ")))
            };
            (0..all.first().map_or(0, Vec::len)).map(column).collect()
        }
    }
}

fn of_table(field: &FieldRef) -> String {
    format!("table.{}", field.name())
}

/// The columns after a step over `columns`.
fn through(mut columns: Vec<String>, step: &Step) -> Vec<String> {
    match step {
        Step::Filter(_) | Step::Sign | Step::Unorder | Step::Place => columns,
        Step::Expose(..) => {
            columns.push("the diff".into());
            columns
        }
        Step::Project { exprs, .. } => exprs.iter().map(|expr| words(expr, &columns)).collect(),
        Step::Unnest { lists, outer, .. } => {
            let name = if *outer { "explode_outer" } else { "explode" };
            for list in lists {
                columns[*list] = short(format!("{name}({})", columns[*list]));
            }
            columns
        }
    }
}

fn call_words(call: &AggregateCall, columns: &[String]) -> String {
    let all = |exprs: &mut dyn Iterator<Item = &Arc<dyn PhysicalExpr>>| {
        let each: Vec<String> = exprs.map(|expr| words(expr, columns)).collect();
        each.join(", ")
    };
    let function = &call.function;
    let mut text = format!(
        "{}({})",
        function.fun().name(),
        all(&mut function.expressions().iter())
    );
    let order = all(&mut function.order_bys().iter().map(|by| &by.expr));
    if !order.is_empty() {
        text.push_str(&format!(" ordered by {order}"));
    }
    if let Some(filter) = &call.filter {
        text.push_str(&format!(" where {}", words(filter, columns)));
    }
    short(text)
}

fn words(expr: &Arc<dyn PhysicalExpr>, columns: &[String]) -> String {
    let named = Arc::clone(expr).transform_up(|expr| {
        let column = expr.downcast_ref::<Column>();
        let Some(text) = column.and_then(|column| columns.get(column.index())) else {
            return Ok(Transformed::no(expr));
        };
        let leaf: Arc<dyn PhysicalExpr> = Arc::new(UnKnownColumn::new(text));
        Ok(Transformed::yes(leaf))
    });
    // What cannot be put together again is told as it is.
    short(named.map_or_else(|_| expr.to_string(), |named| named.data.to_string()))
}

fn short(text: String) -> String {
    if text.len() <= WORDS_MAX {
        return text;
    }
    let beginning: String = text.chars().take(WORDS_MAX / 2).collect();
    format!("{beginning}.. #{:08x}", crc32fast::hash(text.as_bytes()))
}
