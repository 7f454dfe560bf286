//! Static rows inside a streaming query: DataFusion evaluates them before the query begins.
//!
//! A table of a lookup join stays beside the stream; rows that count as a stream's own enter with the first epoch and are
//! in the state from then on. Which rows were read is told by a version of their content, not of the files that they came
//! from: it says the same of a file, of rows in memory and of an aggregate over either. Each epoch's plan names the
//! versions, so that a replay joins the same rows or stops.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use highwater_operators::{Edge, keys, memory};

use super::Node;
use super::compile::Compiler;
use super::join::names_of;
use crate::error::Error;
use crate::relation::static_relation;

/// What reads the static parts of a streaming query.
pub(crate) trait Statics {
    /// All rows of `plan`, which reads no stream.
    fn rows(&self, plan: &LogicalPlan) -> Result<RecordBatch, Error>;

    /// False if they are only talked about: then there are no rows.
    fn are_read(&self) -> bool {
        true
    }

    /// How a table that streams are joined with lies in the processes.
    fn spread(&self) -> Spread;
}

/// Where the rows of a table are that streams are joined with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spread {
    /// A table with more bytes does not lie whole in every process; -1 if none does.
    pub(crate) broadcast_max: i64,
    /// The workers of this process.
    pub(crate) workers: Range<usize>,
    /// The workers of all processes.
    pub(crate) peers: usize,
}

impl Spread {
    /// True if each process is to have its part of a table.
    pub(super) fn parts(&self, table: &RecordBatch) -> bool {
        let bytes = i64::try_from(memory::size_of(table)).unwrap_or(i64::MAX);
        self.workers.len() < self.peers && bytes > self.broadcast_max
    }
}

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
        let version = match self.statics.are_read() {
            true => format!("{} ({})", tables(plan), content(&rows)?),
            false => tables(plan),
        };
        self.read.push(StaticUse { version, enters });
        Ok(rows)
    }

    /// The rows of `plan`, which reads no stream, as rows of the first epoch.
    pub(super) fn enter(&mut self, plan: &LogicalPlan) -> Result<Node, Error> {
        let rows = self.read_static(plan, true)?;
        let edge = Edge::plain(rows.schema());
        Ok(Node::Static {
            rows: Arc::new(rows),
            edge,
            tables: told(plan),
            names: names_of(plan),
        })
    }
}

/// The tables that a plan reads, as the query has them.
fn told(plan: &LogicalPlan) -> String {
    let mut names = BTreeSet::new();
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let relation = static_relation(scan);
            names.insert(match relation {
                Some(relation) => relation.description.clone(),
                None => scan.table_name.table().to_string(),
            });
        }
        Ok(TreeNodeRecursion::Continue)
    });
    listed(names)
}

/// The tables that a plan reads, by their formats: a table may get another name, and has its rows all the same.
fn tables(plan: &LogicalPlan) -> String {
    let mut names = BTreeSet::new();
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            names.insert(scan.table_name.table().to_string());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    listed(names)
}

fn listed(names: BTreeSet<String>) -> String {
    match names.is_empty() {
        true => "rows of the query itself".into(),
        false => names.into_iter().collect::<Vec<_>>().join(", "),
    }
}

/// How many rows there are and a sum over what they hold: the same in whatever order they were read.
fn content(rows: &RecordBatch) -> Result<String, Error> {
    let count = rows.num_rows();
    let columns: Result<Vec<ArrayRef>, ArrowError> = rows.columns().iter().map(hashable).collect();
    let hashes = columns.and_then(|columns| keys::hash(&columns, count));
    let hashes = hashes.map_err(Error::run)?;
    let sum = hashes
        .iter()
        .fold(0_u64, |sum, hash| sum.wrapping_add(hash | 1));
    Ok(format!("{count} rows, content {sum:016x}"))
}

/// The column, or as text if its values are no keys, as maps are not.
fn hashable(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let normal = keys::normalise(column)?;
    if keys::hash(std::slice::from_ref(&normal), column.len()).is_ok() {
        return Ok(normal);
    }
    let options = FormatOptions::new().with_null("null");
    let text = ArrayFormatter::try_new(column, &options)?;
    let texts = (0..column.len()).map(|row| text.value(row).try_to_string());
    let texts: StringArray = texts
        .collect::<Result<Vec<String>, ArrowError>>()?
        .into_iter()
        .map(Some)
        .collect();
    Ok(Arc::new(texts))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, MapBuilder, StringBuilder};

    use super::*;

    #[test]
    fn content_is_of_rows_in_any_order_and_of_any_type() {
        let of = |keys: &[i64]| {
            let mut maps = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
            for key in keys {
                maps.keys().append_value(key.to_string());
                maps.values().append_null();
                maps.append(true).expect("a map");
            }
            let columns: [(&str, ArrayRef); 2] = [
                ("n", Arc::new(Int64Array::from(keys.to_vec()))),
                ("m", Arc::new(maps.finish())),
            ];
            content(&RecordBatch::try_from_iter(columns).expect("rows")).expect("hashed")
        };
        assert_eq!(of(&[1, 2, 3]), of(&[3, 1, 2]));
        assert_ne!(of(&[1, 2, 3]), of(&[1, 2, 4]));
        assert_ne!(of(&[1, 1]), of(&[1, 1, 1]));
    }
}
