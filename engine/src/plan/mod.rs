//! The incremental plan: what a query's dataflow is made of.

mod compile;
mod event_time;
mod modes;
mod pushdown;

use std::fmt;
use std::sync::Arc;

use datafusion::physical_expr::PhysicalExpr;
use highwater_operators::Edge;
use highwater_operators::aggregate::{Aggregation, Emit};
use highwater_operators::stage::Step;

pub(crate) use compile::{Compiled, compile, is_streaming, wants_order};

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
    /// Rows whose event times move watermark number `watermark`.
    Watermark {
        /// The rows.
        input: Box<Node>,
        /// Index into `Compiled::watermarks`.
        watermark: usize,
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
    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let pad = "  ".repeat(depth);
        match self {
            Node::Source { source, edge } => {
                let order = if edge.ordered { ", in order" } else { "" };
                writeln!(f, "{pad}Source {source}: {}{order}", columns(edge))
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
            Node::Watermark { input, watermark } => {
                writeln!(f, "{pad}Watermark {watermark}")?;
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

fn columns(edge: &Edge) -> String {
    let names: Vec<&str> = edge
        .rows
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    names.join(", ")
}
