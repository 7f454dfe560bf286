//! Static rows inside a streaming query: DataFusion evaluates them before the query begins.
//!
//! A table of a lookup join stays beside the stream; rows that count as a stream's own enter with the first epoch and are
//! in the state from then on. Which rows were read is told by a version of their content, not of the files that they came
//! from: it says the same of a file, of rows in memory and of an aggregate over either. Each epoch's plan names the
//! versions, so that a replay joins the same rows or stops.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use highwater_operators::{Edge, keys};

use super::Node;
use super::compile::Compiler;
use crate::error::Error;

/// Static rows of a query.
#[derive(Debug, Clone)]
pub(crate) struct StaticUse {
    /// Which rows: the tables they come from, how many there are, and what they hold.
    pub(crate) version: String,
    /// True if they enter the dataflow: once, in its first epoch.
    pub(crate) enters: bool,
}

impl Compiler<'_> {
    /// The rows of `plan`, which reads no stream.
    pub(super) fn read_static(
        &mut self,
        plan: &LogicalPlan,
        enters: bool,
    ) -> Result<RecordBatch, Error> {
        let rows = self.statics.rows(plan)?;
        let version = format!("{} ({})", tables(plan), content(&rows)?);
        self.read.push(StaticUse { version, enters });
        Ok(rows)
    }

    /// The rows of `plan`, which reads no stream, as rows of the first epoch.
    pub(super) fn enter(&mut self, plan: &LogicalPlan) -> Result<Node, Error> {
        let rows = self.read_static(plan, true)?;
        let edge = Edge::plain(rows.schema());
        let version = self.read.last().map(|used| used.version.clone());
        Ok(Node::Static {
            rows: Arc::new(rows),
            edge,
            version: version.unwrap_or_default(),
        })
    }
}

/// The tables that a plan reads.
fn tables(plan: &LogicalPlan) -> String {
    let mut names = BTreeSet::new();
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            names.insert(scan.table_name.table().to_string());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    match names.is_empty() {
        true => "rows of the query itself".into(),
        false => names.into_iter().collect::<Vec<_>>().join(", "),
    }
}

/// How many rows there are and a sum over what they hold: the same in whatever order they were read.
fn content(rows: &RecordBatch) -> Result<String, Error> {
    let columns: Result<Vec<ArrayRef>, _> = rows.columns().iter().map(keys::normalise).collect();
    let hashes = keys::hash(&columns.map_err(Error::run)?, rows.num_rows()).map_err(Error::run)?;
    let sum = hashes
        .iter()
        .fold(0_u64, |sum, hash| sum.wrapping_add(hash | 1));
    Ok(format!("{} rows, content {sum:016x}", rows.num_rows()))
}
