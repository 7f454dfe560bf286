//! The columns of a plan in the query's words, followed down to those of the sources.

use std::sync::Arc;

use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::CaseExpr;
use highwater_operators::Edge;
use highwater_operators::aggregate::{AggregateCall, Aggregation, Panes};
use highwater_operators::join::{Keep, Lookup};
use highwater_operators::regroup::Regroup;
use highwater_operators::session::Sessions;
use highwater_operators::stage::Step;
use highwater_query::{
    Grid, Written, aggregate_written, as_written, counted_side, physical_written,
};

use super::super::Node;
use super::Told;

/// Each column that comes out of `node`.
pub(super) fn columns(node: &Node) -> Vec<Written> {
    let named = |edge: &Edge| {
        let fields = edge.rows.fields().iter();
        fields.map(|field| Written::plain(field.name())).collect()
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
            keys.extend(calls.map(|one| Written::plain(call(one, &below).0)));
            keys
        }
        Node::Sessions { input, sessions } => {
            let below = columns(input);
            let mut keys = session_keys(sessions, &below);
            let calls = sessions.calls.iter();
            keys.extend(calls.map(|one| Written::plain(call(one, &below).0)));
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
                    below.extend(told.iter().map(Written::plain));
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
            match both.len() == width {
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
            let fields = schema.fields();
            let grouping_sets = fields.iter().any(|field| is_grouping(field.name()));
            let made = exprs.iter().zip(fields).map(|(expr, field)| {
                let name = field.name();
                let case = expr.downcast_ref::<CaseExpr>().filter(|_| grouping_sets);
                match case {
                    _ if is_grouping(name) => Written::plain("the grouping"),
                    // What a grouping lacks is null in it.
                    Some(case) if is_made(name) && case.when_then_expr().len() == 1 => {
                        physical_written(&case.when_then_expr()[0].1, &columns)
                    }
                    _ if is_made(name) || is_window(expr, &columns) => {
                        physical_written(expr, &columns)
                    }
                    _ => Written::plain(name),
                }
            });
            made.collect()
        }
        Step::Unnest { lists, outer, .. } => {
            let name = if *outer { "explode_outer" } else { "explode" };
            for list in lists {
                let exploded = &columns[*list];
                // Windows that overlap come as a list.
                if !exploded.is_window() {
                    columns[*list] = Written::plain(format!("{name}({exploded})"));
                }
            }
            columns
        }
    }
}

/// True for a window of time, which is told by its time and width wherever it comes from.
fn is_window(expr: &Arc<dyn PhysicalExpr>, columns: &[Written]) -> bool {
    physical_written(expr, columns).is_window()
}

/// True for a name that nobody wrote.
pub(super) fn is_made(name: &str) -> bool {
    name.starts_with("__") || name.contains('(')
}

fn is_grouping(name: &str) -> bool {
    name.starts_with("__grouping_id")
}

pub(super) fn call(one: &AggregateCall, columns: &[Written]) -> (String, Option<String>) {
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
