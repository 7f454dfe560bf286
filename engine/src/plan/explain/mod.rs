//! What `explain` says of a plan. Columns are followed down to those of the sources, so that it says in the query's words
//! what each operator is by; of each that has state, what is in it, and what bounds it or that nothing does.

mod columns;

use std::fmt;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{
    Expr, SortExpr, Window, WindowFrame, WindowFrameBound, WindowFunctionDefinition,
};
use datafusion::physical_expr::expressions::Literal;
use highwater_operators::aggregate::{AggregateCall, Aggregation, Emit};
use highwater_operators::dedup::{Deduplication, Forget};
use highwater_operators::join::{JoinKey, Keep, Lookup, StreamJoin};
use highwater_operators::regroup::Regroup;
use highwater_operators::session::Sessions;
use highwater_operators::stage::Step;
use highwater_query::{Written, aggregate_name, duration, physical_written, written};

use super::compile::physical;
use super::{JoinWords, Node};
use columns::{
    aggregate_keys, call, columns, is_made, looked_up_columns, projected, qualified, regroup_keys,
    session_keys, side_by_side, through,
};

/// What is made of groups that are computed anew, in words.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// Some of their rows.
    Rows(String),
    /// More columns.
    Columns(Vec<Written>),
    /// What is kept of each pane of them.
    Panes(Vec<Written>),
}

impl Told {
    /// The calls of an aggregation of `input`.
    pub(super) fn calls(input: &Node, aggregation: &Aggregation) -> Self {
        let columns = columns(input);
        let calls = aggregation.calls.iter();
        Told::Columns(calls.map(|one| call(one, &columns).0).collect())
    }

    /// The same calls over the panes of windows.
    pub(super) fn of_panes(&self) -> Self {
        match self {
            Told::Columns(calls) => Told::Panes(calls.clone()),
            other => other.clone(),
        }
    }

    /// The first rows of `input`, as `regroup` sorts it by its columns.
    pub(super) fn first(
        input: &Node,
        regroup: &Regroup,
        skip: usize,
        fetch: Option<usize>,
    ) -> Self {
        let columns = columns(input);
        let by = columns.iter().zip(&regroup.sorts).map(|(column, sort)| {
            let how = if sort.descending { " DESC" } else { "" };
            format!("{column}{how}")
        });
        let by: Vec<String> = by.collect();
        let mut text = match fetch {
            Some(fetch) => format!("the first {fetch} rows"),
            None => "the rows".to_string(),
        };
        if skip > 0 {
            text.push_str(&format!(" after {skip}"));
        }
        if !by.is_empty() {
            text.push_str(&format!(" by {}", by.join(", ")));
        }
        Told::Rows(text)
    }

    /// Functions over windows of the rows of `input`.
    pub(super) fn over(input: &Node, window: &Window) -> Self {
        let columns = columns(input);
        let told = |exprs: &[Expr]| -> Vec<String> {
            let exprs = physical(exprs, window.input.schema()).unwrap_or_default();
            let told = exprs.iter().map(|expr| physical_written(expr, &columns));
            told.map(|expr| expr.to_string()).collect()
        };
        let sorted = |order: &[SortExpr]| -> Vec<String> {
            let exprs: Vec<Expr> = order.iter().map(|sort| sort.expr.clone()).collect();
            let told = told(&exprs).into_iter().zip(order);
            let told = told.map(|(text, sort)| match sort.asc {
                true => text,
                false => format!("{text} DESC"),
            });
            told.collect()
        };
        let calls = window.window_expr.iter().map(|expr| {
            let Expr::WindowFunction(function) = expr.clone().unalias() else {
                return expr.to_string();
            };
            let params = &function.params;
            let mut over = Vec::new();
            if !params.partition_by.is_empty() {
                over.push(format!(
                    "PARTITION BY {}",
                    told(&params.partition_by).join(", ")
                ));
            }
            if !params.order_by.is_empty() {
                over.push(format!("ORDER BY {}", sorted(&params.order_by).join(", ")));
            }
            let name = match &function.fun {
                WindowFunctionDefinition::AggregateUDF(udaf) => {
                    over.push(frame(&params.window_frame));
                    aggregate_name(udaf.name(), params.distinct).to_string()
                }
                WindowFunctionDefinition::WindowUDF(udwf) => udwf.name().to_string(),
            };
            format!(
                "{name}({}) OVER ({})",
                told(&params.args).join(", "),
                over.join(" ")
            )
        });
        Told::Columns(calls.map(Written::plain).collect())
    }
}

fn frame(frame: &WindowFrame) -> String {
    let bound = |bound: &WindowFrameBound| {
        let of = |value: &ScalarValue, side: &str| match value.is_null() {
            true => format!("UNBOUNDED {side}"),
            false => format!("{} {side}", written(&Expr::Literal(value.clone(), None))),
        };
        match bound {
            WindowFrameBound::Preceding(value) => of(value, "PRECEDING"),
            WindowFrameBound::CurrentRow => "CURRENT ROW".to_string(),
            WindowFrameBound::Following(value) => of(value, "FOLLOWING"),
        }
    };
    let (start, end) = (bound(&frame.start_bound), bound(&frame.end_bound));
    format!("{} BETWEEN {start} AND {end}", frame.units)
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Told::Rows(rows) => f.write_str(rows),
            Told::Columns(columns) => f.write_str(&listed(columns)),
            Told::Panes(calls) => write!(f, "{} of each pane", listed(calls)),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

impl Node {
    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let pad = "  ".repeat(depth);
        let below = || {
            self.inputs()
                .first()
                .map_or_else(Vec::new, |node| columns(node))
        };
        match self {
            Node::Source { source, edge } => {
                let order = if edge.ordered { ", in order" } else { "" };
                writeln!(f, "{pad}Source {source}: {}{order}", listed(&columns(self)))?;
            }
            Node::Static { names, tables, .. } => {
                let names = names.join(", ");
                writeln!(f, "{pad}Static {tables}: {names}, in the first epoch")?;
            }
            Node::Stage { input, steps } => write_steps(f, &pad, input, steps)?,
            Node::Aggregate { input, aggregation } => {
                let text = aggregated(input, aggregation);
                writeln!(f, "{pad}Aggregate by {text}")?;
            }
            Node::Join { inputs, how, words } => {
                writeln!(f, "{pad}Join {}", joined(inputs, how, words))?;
            }
            Node::Sessions { input, sessions } => {
                writeln!(f, "{pad}Sessions by {}", in_sessions(input, sessions))?;
            }
            Node::Deduplicate {
                input,
                deduplication,
            } => writeln!(
                f,
                "{pad}Deduplicate by {}",
                first_seen(input, deduplication)
            )?,
            Node::Limit { wanted, .. } => {
                let state = "how many have come, one row";
                let skipped = match wanted.start {
                    0 => String::new(),
                    skipped => format!(" after {skipped}"),
                };
                let rows = match wanted.end {
                    u64::MAX => "all".to_string(),
                    end => (end - wanted.start).to_string(),
                };
                writeln!(f, "{pad}Limit {rows}{skipped}; state: {state}")?;
            }
            Node::Regroup {
                input,
                regroup,
                told,
                ..
            } => {
                let keys = regroup_keys(regroup, &below());
                let kept = match regroup.answer.spans() {
                    Some(panes) => {
                        format!("one row a group and pane of {}", duration(panes.pane_us))
                    }
                    None => "all rows".to_string(),
                };
                let bound = match (regroup.event_time, regroup.emit) {
                    (false, _) | (true, Emit::All) => " until they leave, nothing bounds it".into(),
                    _ if regroup.panes.is_some() => with_its_last_window(input, &keys[0]),
                    _ => format!(", {}", forgotten(input, &keys[0])),
                };
                let ends = regroup.event_time || regroup.panes.is_some();
                let keys = listed(&by_window(&keys, ends));
                let emit = regroup.emit;
                writeln!(
                    f,
                    "{pad}Regroup by [{keys}]: {told}; emits {emit:?}; state: {kept}{bound}"
                )?;
            }
            Node::Order { order, .. } => {
                let columns = below();
                let keys = order.keys.iter().map(|(key, sort)| {
                    let how = if sort.descending { " DESC" } else { "" };
                    format!("{}{how}", physical_written(key, &columns))
                });
                let keys: Vec<String> = keys.collect();
                let fetch = order.fetch;
                let fetch = fetch.map_or(String::new(), |n| format!(", first {n}"));
                writeln!(f, "{pad}Order by [{}]{fetch}", keys.join(", "))?;
            }
            Node::Lookup {
                input,
                how,
                keys,
                sides,
                table,
            } => {
                let both = looked_up_columns(below(), table, how, sides, true);
                let stream = columns(input).len();
                let text = looked_up(&both, stream, how, keys);
                writeln!(f, "{pad}Join with a table {text}")?;
            }
            Node::Observe { observed, .. } => writeln!(f, "{pad}Observe as {}", observed.name())?,
            Node::Watermark { watermark, .. } => {
                let mark = mark(self).unwrap_or_default();
                writeln!(f, "{pad}Watermark {watermark}: {mark}")?;
            }
            Node::Late { late, .. } => {
                let columns = below();
                let at = late.judges.iter();
                let at = at.map(|one| physical_written(&one.at, &columns).to_string());
                let at: Vec<String> = at.collect();
                writeln!(f, "{pad}Late rows, by {}, go aside", at.join(" or "))?;
            }
            Node::Union { .. } => writeln!(f, "{pad}Union")?,
        }
        let mut inputs = self.inputs().into_iter();
        inputs.try_for_each(|input| input.write(f, depth + 1))
    }
}

fn write_steps(f: &mut fmt::Formatter<'_>, pad: &str, input: &Node, steps: &[Step]) -> fmt::Result {
    writeln!(f, "{pad}Stage")?;
    let mut columns = columns(input);
    let mut lines = Vec::new();
    for step in steps {
        match step {
            Step::Filter(condition) => {
                lines.push(format!("filter {}", physical_written(condition, &columns)));
            }
            Step::Project { exprs, schema } => {
                let told = projected(exprs, schema, &columns);
                let told = told.iter().zip(schema.fields());
                let told = told.filter(|(column, _)| !column.is_groupings());
                let exprs = told.map(|(told, field)| {
                    let text = told.to_string();
                    match is_made(field.name()) || *field.name() == text {
                        true => text,
                        false => format!("{text} AS {}", field.name()),
                    }
                });
                let exprs: Vec<String> = exprs.collect();
                lines.push(format!("project {}", exprs.join(", ")));
            }
            Step::Sign | Step::Unorder => {}
            Step::Place => lines.push("in an order of their own".into()),
            Step::Expose(..) => lines.push("expose changes".into()),
            Step::Unnest { lists, outer, .. } => {
                let outer = if *outer { " outer" } else { "" };
                let groupings = lists.iter().all(|list| columns[*list].is_groupings());
                let lists = lists.iter().map(|list| columns[*list].to_string());
                let lists: Vec<String> = lists.collect();
                if groupings {
                    lines.push("each row once for each grouping".into());
                } else {
                    lines.push(format!("explode{outer} {}", lists.join(", ")));
                }
            }
        }
        columns = through(columns, step);
    }
    let mut lines = lines.iter().rev();
    lines.try_for_each(|line| writeln!(f, "{pad}  {line}"))
}

/// What the state has of each group or session besides numbers of a fixed size.
fn values(calls: &[AggregateCall], columns: &[Written]) -> String {
    let mut all: Vec<String> = Vec::new();
    for (_, values) in calls.iter().map(|one| call(one, columns)) {
        let values = values.map(|values| format!("every {values}"));
        all.extend(
            values
                .filter(|values| !all.contains(values))
                .into_iter()
                .collect::<Vec<_>>(),
        );
    }
    match all.is_empty() {
        true => String::new(),
        false => format!(" with {} in it", all.join(", ")),
    }
}

fn call_names(calls: &[AggregateCall], columns: &[Written]) -> String {
    let calls = calls.iter().map(|one| call(one, columns).0.to_string());
    let mut calls: Vec<String> = calls.collect();
    calls.dedup();
    match calls.is_empty() {
        true => "its rows once".into(),
        false => calls.join(", "),
    }
}

/// When a pane is forgotten.
fn with_its_last_window(input: &Node, key: &Written) -> String {
    let reaches = format!("the end of its last {}", key.window());
    format!(", {}", forgotten_at(input, &reaches, 0))
}

fn aggregated(input: &Node, aggregation: &Aggregation) -> String {
    let columns = columns(input);
    let mut keys = aggregate_keys(aggregation, &columns);
    let one = match &aggregation.panes {
        _ if keys.is_empty() => "one row".to_string(),
        Some(panes) if aggregation.stores_panes() => {
            format!("one row a group and pane of {}", duration(panes.pane_us))
        }
        _ => "one row a group".to_string(),
    };
    let bound = match (aggregation.event_time, aggregation.emit) {
        _ if keys.is_empty() => String::new(),
        (false, _) => ", never forgotten, nothing bounds it".into(),
        (true, Emit::All) => ", never forgotten in complete mode".into(),
        (true, _) if aggregation.stores_panes() => with_its_last_window(input, &keys[0]),
        (true, _) => format!(", {}", forgotten(input, &keys[0])),
    };
    let mut constants = aggregation
        .keys
        .iter()
        .map(|key| key.downcast_ref::<Literal>().is_some());
    keys.retain(|_| !constants.next().unwrap_or_default());
    format!(
        "[{}]: {}; emits {:?}; state: {one}{}{bound}",
        listed(&by_window(&keys, true)),
        call_names(&aggregation.calls, &columns),
        aggregation.emit,
        values(&aggregation.calls, &columns),
    )
}

fn in_sessions(input: &Node, sessions: &Sessions) -> String {
    let columns = columns(input);
    let bound = match (sessions.event_time, sessions.emit) {
        (false, _) => "never forgotten, nothing bounds it".to_string(),
        (true, Emit::All) => "never forgotten in complete mode".to_string(),
        (true, _) => forgotten_at(input, "its end", 0),
    };
    // Sessions of all rows have a key that says nothing.
    let keys = session_keys(sessions, &columns);
    let fields = sessions.schema.fields().iter();
    let keys = keys.into_iter().zip(fields);
    let keys = keys.filter(|(_, field)| field.name() != "__all");
    let keys: Vec<Written> = keys.map(|(key, _)| key).collect();
    format!(
        "[{}]: {}; emits {:?}; state: one row a session{}, {bound}",
        listed(&keys),
        call_names(&sessions.calls, &columns),
        sessions.emit,
        values(&sessions.calls, &columns),
    )
}

fn first_seen(input: &Node, deduplication: &Deduplication) -> String {
    let columns = columns(input);
    let keys = deduplication.keys.iter();
    let keys: Vec<Written> = keys.map(|key| physical_written(key, &columns)).collect();
    let bound = match deduplication.forget {
        Forget::Never => "never forgotten, nothing bounds them".to_string(),
        Forget::FirstKey => forgotten(input, &keys[0]),
        Forget::After { delay_us } => {
            let at = deduplication.event_time.as_ref();
            let at = at.map_or("event time".into(), |at| {
                physical_written(at, &columns).to_string()
            });
            forgotten_at(input, &format!("{at} of the first row"), delay_us)
        }
    };
    format!("[{}]; state: the keys, {bound}", listed(&keys))
}

fn joined(inputs: &[Node; 2], how: &StreamJoin, words: &JoinWords) -> String {
    let sides = [columns(&inputs[0]), columns(&inputs[1])];
    let own = [0, 1].map(|side| qualified(&sides[side], &words.sides[side]));
    let keys = key_words(&how.keys, &own[0], &own[1]);
    let keys = match keys.is_empty() {
        true => " without a key, on one worker".to_string(),
        false => format!(" by [{keys}]"),
    };
    let mut asked = Vec::new();
    let both = side_by_side(sides.clone(), &words.sides, true);
    if let Some(condition) = &how.condition {
        asked.push(physical_written(condition, &both).to_string());
    }
    for side in [0, 1].into_iter().filter(|side| how.kind.keeps(*side)) {
        // A row of which this is not true has no partner, and comes out all the same.
        let of_side = words.asked[side].as_ref();
        asked.extend(of_side.map(|of_side| physical_written(of_side, &own[side]).to_string()));
    }
    let asked = match asked.is_empty() {
        true => String::new(),
        false => format!(" where {}", asked.join(" AND ")),
    };
    let is_table = |side: usize| !reads(&inputs[side]);
    let of = match (is_table(0), is_table(1)) {
        (true, _) => "of a table and a stream",
        (_, true) => "of a stream and a table",
        _ => "of streams",
    };
    let marks = of_marks(&inputs.each_ref());
    let state = [0, 1].map(|side| {
        let name = ["left", "right"][side];
        let last = how.times[side].last_match.as_ref();
        match last {
            _ if is_table(side) => format!("{name} rows, those of the table"),
            Some(_) if inputs.iter().any(Node::trails_for_ever) => {
                format!("{name} rows for ever, as the join below may give rows of any time")
            }
            Some((time, more_us)) => {
                let time = physical_written(time, &own[side]);
                let more = and_more(*more_us, &inputs.each_ref());
                let untimed = match words.untimed[side] {
                    true => ", those without it for ever",
                    false => "",
                };
                format!("{name} rows until the watermark{marks} reaches {time}{more}{untimed}")
            }
            None => format!("{name} rows for ever, nothing bounds them"),
        }
    });
    format!(
        "{} {of}{keys}{asked}; state: {}",
        words.kind,
        state.join("; ")
    )
}

fn looked_up(both: &[Written], stream: usize, how: &Lookup, keys: &[JoinKey]) -> String {
    let (left, right) = match how.stream_left {
        true => both.split_at(stream.min(both.len())),
        false => both.split_at(both.len().saturating_sub(stream)),
    };
    let keys = key_words(keys, left, right);
    let rows = match how.keep {
        Keep::Pairs => "its rows with their partners",
        Keep::All => "its rows with their partners, or with nulls",
        Keep::Matched => "its rows that have a partner",
        Keep::Unmatched => "its rows that have no partner",
        Keep::Marked => "its rows, and whether they have a partner",
    };
    let condition = how.condition.as_ref();
    let condition = condition.map(|condition| physical_written(condition, both).to_string());
    let condition = match condition.filter(|condition| condition != "true") {
        Some(condition) => format!(" where {condition}"),
        None => String::new(),
    };
    let spread = match how.spread {
        true => ", each process with its part of the table",
        false => "",
    };
    let keys = match keys.is_empty() {
        true => "without a key".to_string(),
        false => format!("by [{keys}]"),
    };
    format!("{keys}{condition}: {rows}{spread}; state: none")
}

fn key_words(keys: &[JoinKey], left: &[Written], right: &[Written]) -> String {
    let key = |key: &JoinKey| {
        let equals = if key.null_safe { "<=>" } else { "=" };
        let left = physical_written(&key.left, left);
        let right = physical_written(&key.right, right);
        format!("{left} {equals} {right}")
    };
    keys.iter().map(key).collect::<Vec<_>>().join(", ")
}

/// True if a stream is read below.
fn reads(node: &Node) -> bool {
    let mut found = false;
    node.for_each(&mut |node| found |= matches!(node, Node::Source { .. }));
    found
}

/// When what has this event time as its first key is forgotten.
fn forgotten(input: &Node, time: &Written) -> String {
    let is_end = time.window() != time.to_string();
    match time.is_window() || is_end {
        true => forgotten_at(input, &format!("the end of {}", time.window()), 0),
        // Windows have no rows without a time.
        false => {
            let when = forgotten_at(input, &time.to_string(), 0);
            format!("{when}, those without it for ever")
        }
    }
}

/// The same where the watermark must come so far, and that much further.
fn forgotten_at(input: &Node, reaches: &str, more_us: i64) -> String {
    match input.trails_for_ever() {
        true => "never forgotten, as the join below may give rows of any time".into(),
        false => format!(
            "forgotten when the watermark{} reaches {reaches}{}",
            of_marks(&[input]),
            and_more(more_us, &[input])
        ),
    }
}

/// How much further the watermark must come than to a time, of rows that trail behind it.
fn and_more(more_us: i64, inputs: &[&Node]) -> String {
    let trail_ms = inputs.iter().map(|input| input.trail_ms()).max();
    let trail_us = trail_ms.unwrap_or(0).saturating_mul(1_000);
    match more_us.saturating_add(trail_us) {
        0 => String::new(),
        more_us => format!(" and {} more", duration(more_us)),
    }
}

/// The watermarks below, in words.
fn of_marks(nodes: &[&Node]) -> String {
    let mut marks = Vec::new();
    for node in nodes {
        node.for_each(&mut |node| marks.extend(mark(node)));
    }
    marks.dedup();
    match marks.is_empty() {
        true => String::new(),
        false => format!(" ({})", marks.join("; ")),
    }
}

/// What a watermark goes by.
fn mark(node: &Node) -> Option<String> {
    let Node::Watermark {
        input,
        at,
        delay_ms,
        ..
    } = node
    else {
        return None;
    };
    let at = physical_written(at, &columns(input));
    let delay = duration(delay_ms.saturating_mul(1_000));
    Some(format!("{at} less {delay}"))
}

/// The keys, the first one a window where it is the end of one.
fn by_window(keys: &[Written], event_time: bool) -> Vec<Written> {
    let mut keys = keys.to_vec();
    if let Some(first) = keys.first_mut().filter(|_| event_time) {
        *first = Written::plain(first.window());
    }
    let mut told: Vec<Written> = Vec::new();
    for key in keys {
        if told.iter().all(|one| one.to_string() != key.to_string()) {
            told.push(key);
        }
    }
    told
}

fn listed(words: &[Written]) -> String {
    let words: Vec<String> = words.iter().map(ToString::to_string).collect();
    words.join(", ")
}
