//! The columns of a plan in the query's words, followed down to those of the sources.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr};
use highwater_operators::Edge;
use highwater_operators::aggregate::{AggregateCall, Aggregation, Panes};
use highwater_operators::join::{Keep, Lookup};
use highwater_operators::regroup::Regroup;
use highwater_operators::session::Sessions;
use highwater_operators::stage::Step;
use highwater_query::{
    Grid, Written, aggregate_written, as_written, counted_side, physical_written, type_sql,
};

use super::super::Node;
use super::Told;
use crate::relation::CLOCK;

/// Each column that comes out of `node`.
pub(super) fn columns(node: &Node) -> Vec<Written> {
    let named = |edge: &Edge| {
        let fields = edge.rows.fields().iter();
        let name = |field: &FieldRef| match field.name().as_str() {
            CLOCK => Written::plain("current_timestamp()"),
            name => Written::plain(name),
        };
        fields.map(name).collect()
    };
    match node {
        Node::Source { edge, .. } => named(edge),
        Node::Static { names, .. } => names.iter().map(Written::plain).collect(),
        Node::Stage { input, steps } => steps.iter().fold(columns(input), through),
        Node::Watermark { input, .. }
        | Node::Late { input, .. }
        | Node::Observe { input, .. }
        | Node::Order { input, .. }
        | Node::Deduplicate { input, .. }
        | Node::Limit { input, .. } => columns(input),
        Node::Aggregate { input, aggregation } => {
            let below = columns(input);
            let mut keys = aggregate_keys(aggregation, &below);
            let calls = aggregation.calls.iter();
            keys.extend(calls.map(|one| call(one, &below).0));
            keys
        }
        Node::Sessions { input, sessions } => {
            let below = columns(input);
            let mut keys = session_keys(sessions, &below);
            let calls = sessions.calls.iter();
            keys.extend(calls.map(|one| call(one, &below).0));
            keys
        }
        Node::Regroup {
            input,
            regroup,
            told,
            ..
        } => {
            let mut below = columns(input);
            match told {
                Told::Columns(told) => {
                    if regroup.answer.spans().is_some() {
                        below = regroup_keys(regroup, &below);
                    }
                    below.truncate(regroup.schema.fields().len() - told.len());
                    below.extend_from_slice(told);
                }
                // Whoever puts panes together names what comes of it.
                Told::Panes(_) => {
                    let width = regroup.schema.fields().len();
                    below.resize_with(width, || Written::plain(""));
                }
                Told::Rows(_) => {}
            }
            below
        }
        Node::Lookup {
            input,
            how,
            sides,
            table,
            ..
        } => {
            let stream = columns(input);
            let width = how.schema.fields().len();
            if width == stream.len() && matches!(how.keep, Keep::Matched | Keep::Unmatched) {
                return stream;
            }
            let both = looked_up_columns(stream.clone(), table, how, sides, false);
            match both.len() == width && !matches!(how.keep, Keep::Marked) {
                true => both,
                // Of the table no column, or whether it has the row.
                false => {
                    let fields = how.schema.fields().iter().skip(stream.len());
                    let more = fields.map(|_| Written::plain("whether it has a partner"));
                    stream.into_iter().chain(more).take(width).collect()
                }
            }
        }
        Node::Join { inputs, how, .. }
            if how.schema.fields().len() == inputs[0].edge().rows.fields().len() =>
        {
            columns(&inputs[0])
        }
        Node::Join { inputs, how, words } => {
            let mut both = side_by_side(
                [columns(&inputs[0]), columns(&inputs[1])],
                &words.sides,
                false,
            );
            both.truncate(how.schema.fields().len());
            both
        }
        Node::Union { inputs, edge } => {
            let all: Vec<Vec<Written>> = inputs.iter().map(columns).collect();
            let fields = edge.rows.fields().iter().enumerate();
            let column = |index: usize, name: &str| {
                let mut each = all.iter().map(|one| &one[index]);
                let first = each.next();
                match first.filter(|first| each.all(|one| one == *first)) {
                    _ if counted_side(name).is_some() => {
                        Written::plain(counted_side(name).unwrap_or_default())
                    }
                    Some(same) => same.clone(),
                    None if is_made(name) => match first {
                        Some(first) => first.clone(),
                        None => Written::plain(as_written(name)),
                    },
                    None => Written::plain(name),
                }
            };
            fields
                .map(|(index, field)| column(index, field.name()))
                .collect()
        }
    }
}

/// The columns after a step over `columns`.
pub(super) fn through(mut columns: Vec<Written>, step: &Step) -> Vec<Written> {
    match step {
        Step::Filter(_) | Step::Sign | Step::Unorder | Step::Place => columns,
        Step::Expose(..) => {
            columns.push(Written::plain("how often"));
            columns
        }
        Step::Project { exprs, schema } => {
            let made = projected(exprs, schema, &columns).into_iter();
            let made = made.zip(exprs).zip(schema.fields());
            let made = made.map(|((written, expr), field)| {
                match is_made(field.name()) || is_window(expr, &columns) {
                    true => written,
                    false => Written::plain(field.name()),
                }
            });
            made.collect()
        }
        Step::Unnest { lists, outer, .. } => {
            let name = if *outer { "explode_outer" } else { "explode" };
            for list in lists {
                let exploded = &columns[*list];
                // Windows that overlap come as a list, and so do groupings.
                if !exploded.is_window() && !exploded.is_groupings() {
                    columns[*list] = Written::plain(format!("{name}({exploded})"));
                }
            }
            columns
        }
    }
}

/// What a projection computes of `columns`: of grouping sets the keys, which are null in a grouping that lacks them.
pub(super) fn projected(
    exprs: &[Arc<dyn PhysicalExpr>],
    schema: &Schema,
    columns: &[Written],
) -> Vec<Written> {
    let fields = schema.fields();
    let told = |(expr, field): (&Arc<dyn PhysicalExpr>, &FieldRef)| {
        match expr.downcast_ref::<CastExpr>() {
            _ if is_made_as(field, "groupings") => Written::groupings(),
            // Inside of others what makes numbers wider is not told, but this is all that the query says here.
            Some(cast) if !is_made(field.name()) && !is_bit(cast) => {
                let of = physical_written(cast.expr(), columns);
                let to = type_sql(field.data_type());
                Written::plain(format!("CAST({of} AS {to})"))
            }
            _ => physical_written(expr, columns),
        }
    };
    let mut all: Vec<Written> = exprs.iter().zip(fields).map(told).collect();
    let mut keys: Vec<(usize, String)> = Vec::new();
    for (written, field) in all.iter().zip(fields) {
        keys.extend(made_as(field, "key").map(|nth| (nth, written.to_string())));
    }
    keys.sort();
    for (written, field) in all.iter_mut().zip(fields) {
        if is_made_as(field, "grouping_id") && !written.is_grouping() {
            let keys = keys.iter().map(|(_, key)| key.clone());
            *written = Written::grouping(keys.collect());
        }
    }
    all
}

/// True for what `grouping` is.
fn is_bit(cast: &CastExpr) -> bool {
    let bits = cast.expr().downcast_ref::<BinaryExpr>();
    bits.is_some_and(|bits| *bits.op() == Operator::BitwiseAnd)
}

/// The number in a name that was made up for this.
fn made_as(field: &FieldRef, what: &str) -> Option<usize> {
    let name = field.name().strip_prefix("__")?.strip_prefix(what)?;
    name.strip_prefix('_')?.parse().ok()
}

fn is_made_as(field: &FieldRef, what: &str) -> bool {
    made_as(field, what).is_some()
}

/// True for a window of time, which is told by its time and width wherever it comes from.
fn is_window(expr: &Arc<dyn PhysicalExpr>, columns: &[Written]) -> bool {
    physical_written(expr, columns).is_window()
}

/// True for a name that nobody wrote.
pub(super) fn is_made(name: &str) -> bool {
    name.starts_with("__") || name.contains('(')
}

pub(super) fn call(one: &AggregateCall, columns: &[Written]) -> (Written, Option<String>) {
    aggregate_written(&one.function, one.filter.as_ref(), columns)
}

/// The keys of the groups; of windows that overlap the windows, though the rows come with their panes.
pub(super) fn aggregate_keys(aggregation: &Aggregation, columns: &[Written]) -> Vec<Written> {
    let keys = aggregation.keys.iter();
    let mut keys: Vec<Written> = keys.map(|key| physical_written(key, columns)).collect();
    of_windows(&mut keys, aggregation.panes);
    keys
}

/// The keys of groups over rows with these columns.
pub(super) fn regroup_keys(regroup: &Regroup, columns: &[Written]) -> Vec<Written> {
    let mut keys = columns[..regroup.keys].to_vec();
    of_windows(&mut keys, regroup.panes);
    keys
}

/// The first key is the end of a pane: says of which windows.
fn of_windows(keys: &mut [Written], panes: Option<Panes>) {
    if let (Some(panes), Some(first)) = (panes, keys.first_mut()) {
        *first = first.part_of(Grid {
            width_us: panes.width_us,
            slide_us: panes.slide_us,
            start_us: panes.start_us,
        });
    }
}

pub(super) fn session_keys(sessions: &Sessions, columns: &[Written]) -> Vec<Written> {
    let keys = sessions.keys.iter();
    let mut keys: Vec<Written> = keys.map(|key| physical_written(key, columns)).collect();
    keys.insert(sessions.place, physical_written(&sessions.window, columns));
    keys
}

/// The columns of both sides of a lookup.
pub(super) fn looked_up_columns(
    stream: Vec<Written>,
    table: &[String],
    how: &Lookup,
    names: &[String; 2],
    always: bool,
) -> Vec<Written> {
    let table = table.iter().map(Written::plain).collect();
    let sides = match how.stream_left {
        true => [stream, table],
        false => [table, stream],
    };
    side_by_side(sides, names, always)
}

/// The columns of a side under its name.
pub(super) fn qualified(columns: &[Written], name: &str) -> Vec<Written> {
    let of = |column: &Written| match column.is_name() {
        true => Written::plain(format!("{name}.{column}")),
        false => column.clone(),
    };
    columns.iter().map(of).collect()
}

/// The columns of two sides: under the side's name if both have the column, or always.
pub(super) fn side_by_side(
    sides: [Vec<Written>; 2],
    names: &[String; 2],
    always: bool,
) -> Vec<Written> {
    let of = |side: usize| {
        let with_name = qualified(&sides[side], &names[side]).into_iter();
        let own = sides[side].iter().zip(with_name);
        own.map(
            |(column, with_name)| match always || sides[1 - side].contains(column) {
                true => with_name,
                false => column.clone(),
            },
        )
        .collect::<Vec<_>>()
    };
    [of(0), of(1)].concat()
}
