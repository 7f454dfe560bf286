//! The incremental plan: what a query's dataflow is made of.

mod compile;
mod modes;

use std::fmt;
use std::sync::Arc;

use highwater_operators::Edge;
use highwater_operators::aggregate::Aggregation;
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
                // Nothing but a watermark makes a group final: until one is asked for, each stays.
                writeln!(
                    f,
                    "{pad}Aggregate by [{}]: {}; emits {:?}; state: one row a group, never forgotten",
                    keys.join(", "),
                    calls.join(", "),
                    aggregation.emit
                )?;
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
