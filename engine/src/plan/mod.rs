//! The incremental plan: what a query's dataflow is made of.

mod bounds;
mod clock;
mod compile;
mod event_time;
mod explain;
mod firsts;
mod held;
mod infer;
mod join;
mod keyed;
mod late;
mod modes;
mod moments;
mod observe;
mod only_row;
mod panes;
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
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use highwater_operators::Edge;
use highwater_operators::aggregate::{Aggregation, Emit};
use highwater_operators::dedup::{Deduplication, Forget};
use highwater_operators::join::{JoinKey, Lookup, StreamJoin};
use highwater_operators::late::Late;
use highwater_operators::order::Order;
use highwater_operators::regroup::Regroup;
use highwater_operators::session::Sessions;
use highwater_operators::stage::Step;

pub(crate) use compile::{Compiled, compile, is_streaming, wants_order};
pub(crate) use explain::Told;
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
    /// What the sides are called.
    pub(crate) sides: [String; 2],
    /// By how many milliseconds event times above it trail behind the watermark, if they follow it.
    pub(crate) delay_ms: Option<i64>,
    /// True if pairs may come whose times are late above it.
    pub(crate) pairs_are_late: bool,
    /// For each side, whether the model holds its rows for ever where they go straight to the sink of append mode.
    pub(crate) held: [bool; 2],
    /// For each side, what the query asks of its rows alone.
    pub(crate) asked: [Option<Arc<dyn PhysicalExpr>>; 2],
    /// For each side, whether rows without the time that bounds them stay.
    pub(crate) untimed: [bool; 2],
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
        /// Where they are from, in words.
        tables: String,
        /// What their columns are called.
        names: Vec<String>,
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
    /// The first rows to come, of rows that come for good.
    Limit {
        /// The rows.
        input: Box<Node>,
        /// Names the state.
        name: String,
        /// Which, counted from 0 as they come.
        wanted: Range<u64>,
    },
    /// Groups computed anew from all their rows.
    Regroup {
        /// The rows.
        input: Box<Node>,
        /// How.
        regroup: Box<Regroup>,
        /// What is computed of a group, in the planner's words.
        answers: Vec<String>,
        /// The same in the query's.
        told: Told,
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
        /// The keys over both sides.
        keys: Vec<JoinKey>,
        /// What the sides are called.
        sides: [String; 2],
        /// What the columns of the table are called.
        table: Vec<String>,
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
        /// The event time.
        at: Arc<dyn PhysicalExpr>,
        /// How late rows may be.
        delay_ms: i64,
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

    /// For each watermark below and here, in their order, the sources whose rows move it.
    pub(crate) fn watermark_sources(&self) -> Vec<BTreeSet<usize>> {
        let mut found: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        self.for_each(&mut |node| {
            let Node::Watermark {
                input, watermark, ..
            } = node
            else {
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
                ..
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
                let panes = match (aggregation.stores_panes(), aggregation.stores_places()) {
                    (true, true) => " in panes, with places",
                    (true, false) => " in panes",
                    (false, _) => "",
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
