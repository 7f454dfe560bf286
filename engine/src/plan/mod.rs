//! The incremental plan: what a query's dataflow is made of.

mod compile;
mod event_time;
mod firsts;
mod held;
mod infer;
mod join;
mod keyed;
mod late;
mod modes;
mod moments;
mod observe;
mod pushdown;
mod regroup;
mod semi;
mod session;
mod sets;
mod statics;
mod streams;
mod subquery;
mod want;
mod weighed;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use highwater_operators::Edge;
use highwater_operators::aggregate::{Aggregation, Emit};
use highwater_operators::dedup::{Deduplication, Forget};
use highwater_operators::join::{Keep, Lookup, StreamJoin};
use highwater_operators::late::Late;
use highwater_operators::order::Order;
use highwater_operators::regroup::Regroup;
use highwater_operators::session::Sessions;
use highwater_operators::stage::Step;

pub(crate) use compile::{Compiled, compile, is_streaming, wants_order};
pub(crate) use firsts::deduplicates_within_watermark;
pub(crate) use late::{columns as late_columns, schema as late_schema};
pub(crate) use observe::{Observed, merger};
pub(crate) use statics::{Spread, StaticUse, Statics};

use crate::checkpoint::OperatorShape;
use crate::sink::OutputMode;
use crate::source::SourceFactory;

/// One source of a query.
#[derive(Clone)]
pub(crate) struct SourceUse {
    /// What to open.
    pub(crate) factory: Arc<dyn SourceFactory>,
    /// The columns that are read, ascending.
    pub(crate) columns: Vec<usize>,
}

/// One watermark of a query.
#[derive(Clone)]
pub(crate) struct WatermarkUse {
    /// The event time.
    pub(crate) at: Arc<dyn PhysicalExpr>,
    /// How late rows may be.
    pub(crate) delay_ms: i64,
}

/// What is told of a join of streams.
#[derive(Clone)]
pub(crate) struct JoinWords {
    /// The model's name of its kind.
    pub(crate) kind: &'static str,
    /// What must be equal.
    pub(crate) keys: Vec<String>,
    /// For each side, until when its rows can find partners, if it is known.
    pub(crate) bounds: [Option<String>; 2],
    /// By how many milliseconds event times above it trail behind the watermark, if they follow it.
    pub(crate) delay_ms: Option<i64>,
    /// For each side, whether the model holds its rows for ever where they go straight to the sink of append mode.
    pub(crate) held: [bool; 2],
    /// What else is asked of a pair.
    pub(crate) asked: Vec<String>,
}

/// One node of an incremental plan.
#[derive(Clone)]
pub(crate) enum Node {
    /// Rows of source number `source`.
    Source {
        /// Index into `Compiled::sources`.
        source: usize,
        /// What comes out.
        edge: Edge,
    },
    /// Rows that do not change, all of them in the first epoch.
    Static {
        /// The rows.
        rows: Arc<RecordBatch>,
        /// What comes out.
        edge: Edge,
        /// Which rows, in words.
        version: String,
    },
    /// Filters, projections and explodes, fused.
    Stage {
        /// The rows.
        input: Box<Node>,
        /// In order.
        steps: Vec<Step>,
    },
    /// A grouped aggregation.
    Aggregate {
        /// The rows.
        input: Box<Node>,
        /// What to compute.
        aggregation: Box<Aggregation>,
    },
    /// An aggregation by session windows.
    Sessions {
        /// The rows.
        input: Box<Node>,
        /// What to compute.
        sessions: Box<Sessions>,
    },
    /// The first row of each key.
    Deduplicate {
        /// The rows.
        input: Box<Node>,
        /// What makes rows duplicates.
        deduplication: Box<Deduplication>,
    },
    /// The first rows.
    Limit {
        /// The rows.
        input: Box<Node>,
        /// Names the state.
        name: String,
        /// How many.
        count: u64,
    },
    /// Groups computed anew from all their rows.
    Regroup {
        /// The rows.
        input: Box<Node>,
        /// How.
        regroup: Box<Regroup>,
        /// What is computed of a group, in words.
        answers: Vec<String>,
    },
    /// The rows of each epoch in order.
    Order {
        /// The rows.
        input: Box<Node>,
        /// Which order.
        order: Box<Order>,
    },
    /// The rows, observed on their way.
    Observe {
        /// The rows.
        input: Box<Node>,
        /// What is observed.
        observed: Box<Observed>,
    },
    /// The rows of a stream with what a table that does not change has for them.
    Lookup {
        /// The rows.
        input: Box<Node>,
        /// How they are joined.
        how: Box<Lookup>,
        /// The keys, in words.
        keys: Vec<String>,
    },
    /// The rows of two streams, joined.
    Join {
        /// The left rows and the right ones.
        inputs: Box<[Node; 2]>,
        /// How they are joined.
        how: Box<StreamJoin>,
        /// The same in words.
        words: Box<JoinWords>,
    },
    /// Rows whose event times move watermark number `watermark`.
    Watermark {
        /// The rows.
        input: Box<Node>,
        /// Index into `Compiled::watermarks`.
        watermark: usize,
    },
    /// The rows; of the late ones a copy goes aside.
    Late {
        /// The rows.
        input: Box<Node>,
        /// Which are late.
        late: Box<Late>,
    },
    /// The rows of all inputs.
    Union {
        /// The inputs, all with the same columns.
        inputs: Vec<Node>,
        /// What comes out.
        edge: Edge,
    },
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

impl Node {
    /// The nodes right below.
    pub(crate) fn inputs(&self) -> Vec<&Node> {
        match self {
            Node::Source { .. } | Node::Static { .. } => Vec::new(),
            Node::Stage { input, .. }
            | Node::Watermark { input, .. }
            | Node::Late { input, .. }
            | Node::Observe { input, .. }
            | Node::Deduplicate { input, .. }
            | Node::Limit { input, .. }
            | Node::Sessions { input, .. }
            | Node::Regroup { input, .. }
            | Node::Order { input, .. }
            | Node::Lookup { input, .. }
            | Node::Aggregate { input, .. } => vec![input],
            Node::Union { inputs, .. } => inputs.iter().collect(),
            Node::Join { inputs, .. } => inputs.iter().collect(),
        }
    }

    /// True if a watermark is below something that keeps groups or keys: an epoch without rows may follow for it. In
    /// complete mode only keys are forgotten.
    pub(crate) fn uses_watermark(&self, mode: OutputMode) -> bool {
        let keeps = match self {
            Node::Deduplicate { .. } => true,
            Node::Aggregate { .. } | Node::Sessions { .. } => mode != OutputMode::Complete,
            _ => false,
        };
        let mut below = false;
        self.for_each(&mut |node| below |= matches!(node, Node::Watermark { .. }));
        let uses = |input: &Node| input.uses_watermark(mode);
        keeps && below || self.inputs().into_iter().any(uses)
    }

    /// Visits this node and those below, from the top.
    pub(crate) fn for_each<'n>(&'n self, visit: &mut impl FnMut(&'n Node)) {
        visit(self);
        self.inputs()
            .into_iter()
            .for_each(|input| input.for_each(visit));
    }

    /// The sources whose rows come here, each once.
    pub(crate) fn sources(&self) -> Vec<usize> {
        let mut found = BTreeSet::new();
        self.for_each(&mut |node| {
            if let Node::Source { source, .. } = node {
                found.insert(*source);
            }
        });
        found.into_iter().collect()
    }

    /// For each watermark below and here, in their order, the sources whose rows move it.
    pub(crate) fn watermark_sources(&self) -> Vec<BTreeSet<usize>> {
        let mut found: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        self.for_each(&mut |node| {
            let Node::Watermark { input, watermark } = node else {
                return;
            };
            let sources = found.entry(*watermark).or_default();
            input.for_each(&mut |node| {
                if let Node::Source { source, .. } = node {
                    sources.insert(*source);
                }
            });
        });
        found.into_values().collect()
    }

    /// Every operator with state below and here: its name, and in words what its state holds.
    pub(crate) fn operators(&self) -> Vec<OperatorShape> {
        let mut found = Vec::new();
        self.collect_operators(&mut found);
        found
    }

    /// What comes out.
    pub(crate) fn edge(&self) -> Edge {
        match self {
            Node::Source { edge, .. } | Node::Static { edge, .. } | Node::Union { edge, .. } => {
                edge.clone()
            }
            Node::Aggregate { aggregation, .. } => Edge {
                signed: aggregation.emit == Emit::Signed,
                ..Edge::plain(Arc::clone(&aggregation.schema))
            },
            Node::Sessions { sessions, .. } => Edge {
                signed: sessions.emit == Emit::Signed,
                ..Edge::plain(Arc::clone(&sessions.schema))
            },
            Node::Regroup { regroup, .. } => regroup.edge(),
            Node::Order { input, .. } => Edge::plain(input.edge().rows),
            Node::Observe { observed, .. } => observed.edge.clone(),
            Node::Join { inputs, how, .. } => Edge {
                signed: how.is_signed([inputs[0].edge().signed, inputs[1].edge().signed]),
                ..Edge::plain(Arc::clone(&how.schema))
            },
            Node::Lookup { input, how, .. } => Edge {
                rows: Arc::clone(&how.schema),
                ..input.edge()
            },
            Node::Watermark { input, .. }
            | Node::Deduplicate { input, .. }
            | Node::Late { input, .. }
            | Node::Limit { input, .. } => input.edge(),
            Node::Stage { input, steps } => {
                let last = steps.iter().rev().find_map(|step| match step {
                    Step::Project { schema, .. } | Step::Unnest { schema, .. } => Some(schema),
                    Step::Expose(_, schema) => Some(schema),
                    Step::Filter(_) | Step::Sign | Step::Unorder | Step::Place => None,
                });
                let below = input.edge();
                let ordered = steps
                    .iter()
                    .fold(below.ordered, |ordered, step| match step {
                        Step::Unorder => false,
                        Step::Place => true,
                        _ => ordered,
                    });
                let signed = steps.iter().fold(below.signed, |signed, step| match step {
                    Step::Expose(..) => false,
                    Step::Sign => true,
                    _ => signed,
                });
                Edge {
                    rows: last.map_or(Arc::clone(&below.rows), Arc::clone),
                    ordered,
                    signed,
                }
            }
        }
    }

    /// Every observation below and here.
    pub(crate) fn observed(&self) -> Vec<Observed> {
        let mut found = Vec::new();
        self.for_each(&mut |node| {
            if let Node::Observe { observed, .. } = node {
                found.push(observed.as_ref().clone());
            }
        });
        found
    }

    fn collect_operators(&self, found: &mut Vec<OperatorShape>) {
        match self {
            Node::Source { .. } | Node::Static { .. } => {}
            Node::Stage { input, .. }
            | Node::Watermark { input, .. }
            | Node::Order { input, .. }
            | Node::Lookup { input, .. }
            | Node::Late { input, .. }
            | Node::Observe { input, .. } => {
                input.collect_operators(found);
            }
            Node::Regroup {
                input,
                regroup,
                answers,
            } => {
                let edge = input.edge();
                let (keys, rest) = edge.rows.fields().split_at(regroup.keys);
                found.push(OperatorShape {
                    name: regroup.name.clone(),
                    state: format!("rows [{}] by [{}]", named(rest), named(keys)),
                    computed: Some(words::regrouped(input, regroup, answers)),
                });
                input.collect_operators(found);
            }
            Node::Union { inputs, .. } => inputs.iter().for_each(|i| i.collect_operators(found)),
            Node::Join { inputs, how, words } => {
                for (index, name) in how.states().into_iter().enumerate() {
                    // Rows that wait are those of a side.
                    let side = if index < 2 {
                        index
                    } else {
                        usize::from(name.contains("-right"))
                    };
                    found.push(OperatorShape {
                        state: streams::state_words(how, words, &inputs[side].edge()),
                        computed: Some(words::joined(&inputs[side], how, side)),
                        name,
                    });
                }
                inputs.iter().for_each(|i| i.collect_operators(found));
            }
            Node::Sessions { input, sessions } => {
                let named = |fields: &[FieldRef]| -> String {
                    let name = |field: &FieldRef| format!("{} {}", field.name(), field.data_type());
                    fields.iter().map(name).collect::<Vec<_>>().join(", ")
                };
                let fields = sessions.schema.fields();
                let (keys, values) = fields.split_at(sessions.keys.len() + 1);
                found.push(OperatorShape {
                    name: sessions.name.clone(),
                    state: format!("[{}] by [{}]", named(values), named(keys)),
                    computed: Some(words::sessions(input, sessions)),
                });
                found.push(OperatorShape {
                    name: deadlines_of(&sessions.name),
                    state: format!("deadlines of [{}]", named(keys)),
                    computed: None,
                });
                input.collect_operators(found);
            }
            Node::Deduplicate {
                input,
                deduplication,
            } => {
                let below = input.edge().rows;
                let word = |key: &Arc<dyn PhysicalExpr>| match key.data_type(&below) {
                    Ok(data_type) => format!("{} {data_type}", key_name(key)),
                    Err(_) => key_name(key),
                };
                let keys: Vec<String> = deduplication.keys.iter().map(word).collect();
                let keys = keys.join(", ");
                found.push(OperatorShape {
                    name: deduplication.name.clone(),
                    state: format!("seen [{keys}]"),
                    computed: Some(words::seen(input, deduplication)),
                });
                if let Forget::After { .. } = deduplication.forget {
                    found.push(OperatorShape {
                        name: deadlines_of(&deduplication.name),
                        state: format!("deadlines of [{keys}]"),
                        computed: None,
                    });
                }
                input.collect_operators(found);
            }
            Node::Limit { input, name, .. } => {
                found.push(OperatorShape {
                    name: name.clone(),
                    state: "a number of rows".into(),
                    computed: None,
                });
                input.collect_operators(found);
            }
            Node::Aggregate { input, aggregation } => {
                let fields = aggregation.schema.fields();
                let (keys, values) = fields.split_at(aggregation.keys.len());
                let panes = match aggregation.stores_panes() {
                    true => " in panes",
                    false => "",
                };
                found.push(OperatorShape {
                    name: aggregation.name.clone(),
                    state: format!("[{}] by [{}]{panes}", named(values), named(keys)),
                    computed: Some(words::computed(input, aggregation)),
                });
                input.collect_operators(found);
            }
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let pad = "  ".repeat(depth);
        match self {
            Node::Source { source, edge } => {
                let order = if edge.ordered { ", in order" } else { "" };
                writeln!(f, "{pad}Source {source}: {}{order}", columns(edge))
            }
            Node::Static { edge, version, .. } => {
                writeln!(
                    f,
                    "{pad}Static {version}: {}, in the first epoch",
                    columns(edge)
                )
            }
            Node::Stage { input, steps } => {
                writeln!(f, "{pad}Stage")?;
                for step in steps.iter().rev() {
                    match step {
                        Step::Filter(condition) => writeln!(f, "{pad}  filter {condition}")?,
                        Step::Project { exprs, .. } => {
                            let exprs: Vec<String> =
                                exprs.iter().map(ToString::to_string).collect();
                            writeln!(f, "{pad}  project {}", exprs.join(", "))?;
                        }
                        Step::Sign | Step::Unorder => {}
                        Step::Place => writeln!(f, "{pad}  in an order of their own")?,
                        Step::Expose(..) => writeln!(f, "{pad}  expose changes")?,
                        Step::Unnest { lists, outer, .. } => {
                            writeln!(
                                f,
                                "{pad}  explode{} {lists:?}",
                                if *outer { " outer" } else { "" }
                            )?;
                        }
                    }
                }
                input.write(f, depth + 1)
            }
            Node::Aggregate { input, aggregation } => {
                let keys: Vec<String> = aggregation.keys.iter().map(ToString::to_string).collect();
                let calls: Vec<String> = aggregation
                    .calls
                    .iter()
                    .map(|c| c.function.name().to_string())
                    .collect();
                let bound = match (aggregation.event_time, aggregation.emit) {
                    (false, _) => "one row a group, never forgotten",
                    (true, Emit::All) => "one row a group, never forgotten in complete mode",
                    (true, _) => {
                        "one row a group, forgotten when the watermark reaches its first key"
                    }
                };
                writeln!(
                    f,
                    "{pad}Aggregate by [{}]: {}; emits {:?}; state: {bound}",
                    keys.join(", "),
                    calls.join(", "),
                    aggregation.emit
                )?;
                input.write(f, depth + 1)
            }
            Node::Join { inputs, how, words } => {
                let condition = match words.asked.is_empty() {
                    true => String::new(),
                    false => format!(" where {}", words.asked.join(" AND ")),
                };
                let keys = match words.keys.is_empty() {
                    true => " without a key, on one worker".to_string(),
                    false => format!(" by [{}]", words.keys.join(", ")),
                };
                let times = how.times.iter().zip(&words.bounds);
                let mut sides = ["left", "right"]
                    .into_iter()
                    .zip(times)
                    .map(|(side, bound)| match bound {
                        (times, Some(bound)) if times.last_match.is_some() => {
                            format!("{side} rows until the watermark reaches {bound}")
                        }
                        _ => format!("{side} rows for ever"),
                    });
                let state: Vec<String> = sides.by_ref().collect();
                writeln!(
                    f,
                    "{pad}Join {} of streams{keys}{condition}; state: {}",
                    words.kind,
                    state.join(", ")
                )?;
                inputs
                    .iter()
                    .try_for_each(|input| input.write(f, depth + 1))
            }
            Node::Sessions { input, sessions } => {
                let keys: Vec<String> = sessions.keys.iter().map(key_name).collect();
                let calls = sessions.calls.iter();
                let calls: Vec<&str> = calls.map(|call| call.function.name()).collect();
                let bound = match (sessions.event_time, sessions.emit) {
                    (false, _) => "never forgotten",
                    (true, Emit::All) => "never forgotten in complete mode",
                    (true, _) => "forgotten when the watermark reaches its end",
                };
                writeln!(
                    f,
                    "{pad}Sessions by [{}]: {}; emits {:?}; state: one row a session, {bound}",
                    keys.join(", "),
                    calls.join(", "),
                    sessions.emit
                )?;
                input.write(f, depth + 1)
            }
            Node::Deduplicate {
                input,
                deduplication,
            } => {
                let keys: Vec<String> = deduplication.keys.iter().map(key_name).collect();
                let bound = match deduplication.forget {
                    Forget::Never => "never forgotten".to_string(),
                    Forget::FirstKey => {
                        "forgotten when the watermark reaches the first one".to_string()
                    }
                    Forget::After { delay_us } => format!(
                        "forgotten when the watermark reaches the first row's event time and {} ms",
                        delay_us / 1_000
                    ),
                };
                let keys = keys.join(", ");
                writeln!(f, "{pad}Deduplicate by [{keys}]; state: the keys, {bound}")?;
                input.write(f, depth + 1)
            }
            Node::Limit { input, count, .. } => {
                writeln!(
                    f,
                    "{pad}Limit {count}; state: how many have come out, one row"
                )?;
                input.write(f, depth + 1)
            }
            Node::Regroup {
                input,
                regroup,
                answers,
            } => {
                let edge = input.edge();
                let keys: Vec<&str> = edge.rows.fields()[..regroup.keys]
                    .iter()
                    .map(|field| field.name().as_str())
                    .collect();
                let bound = match (regroup.event_time, regroup.emit) {
                    (true, Emit::Changed | Emit::Signed | Emit::Closed) => {
                        "all rows, forgotten when the watermark reaches their first key"
                    }
                    _ => "all rows until they leave, nothing bounds it",
                };
                writeln!(
                    f,
                    "{pad}Regroup by [{}]: {}; emits {:?}; state: {bound}",
                    keys.join(", "),
                    answers.join(", "),
                    regroup.emit
                )?;
                input.write(f, depth + 1)
            }
            Node::Order { input, order } => {
                let keys: Vec<String> = order.keys.iter().map(|(key, _)| key.to_string()).collect();
                let fetch = order
                    .fetch
                    .map_or(String::new(), |n| format!(", first {n}"));
                writeln!(f, "{pad}Order by [{}]{fetch}", keys.join(", "))?;
                input.write(f, depth + 1)
            }
            Node::Lookup { input, how, keys } => {
                let rows = match how.keep {
                    Keep::Pairs => "its rows with their partners",
                    Keep::All => "its rows with their partners, or with nulls",
                    Keep::Matched => "its rows that have a partner",
                    Keep::Unmatched => "its rows that have no partner",
                    Keep::Marked => "its rows, and whether they have a partner",
                };
                let condition = match &how.condition {
                    Some(condition) => format!(" where {condition}"),
                    None => String::new(),
                };
                let spread = match how.spread {
                    true => ", each process with its part of the table",
                    false => "",
                };
                writeln!(
                    f,
                    "{pad}Join with a table by [{}]{condition}: {rows}{spread}; state: none",
                    keys.join(", ")
                )?;
                input.write(f, depth + 1)
            }
            Node::Observe { input, observed } => {
                writeln!(f, "{pad}Observe as {}", observed.name())?;
                input.write(f, depth + 1)
            }
            Node::Watermark { input, watermark } => {
                writeln!(f, "{pad}Watermark {watermark}")?;
                input.write(f, depth + 1)
            }
            Node::Late { input, late } => {
                let unit = if late.panes.is_some() {
                    "the last window of "
                } else {
                    ""
                };
                writeln!(f, "{pad}Late rows, by {unit}{}, go aside", late.at)?;
                input.write(f, depth + 1)
            }
            Node::Union { inputs, .. } => {
                writeln!(f, "{pad}Union")?;
                inputs
                    .iter()
                    .try_for_each(|input| input.write(f, depth + 1))
            }
        }
    }
}

/// The name that a key has in state: of a column its own, wherever it stands.
fn key_name(key: &Arc<dyn PhysicalExpr>) -> String {
    match key.downcast_ref::<Column>() {
        Some(column) => column.name().to_string(),
        None => key.to_string(),
    }
}

/// What the second part of a deduplication's state is called.
pub(crate) fn deadlines_of(name: &str) -> String {
    format!("{name}-deadlines")
}

/// Columns by name and type: one may move when a projection below changes.
fn named(fields: &[FieldRef]) -> String {
    let name = |field: &FieldRef| format!("{} {}", field.name(), field.data_type());
    fields.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn columns(edge: &Edge) -> String {
    let names: Vec<&str> = edge
        .rows
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    names.join(", ")
}
