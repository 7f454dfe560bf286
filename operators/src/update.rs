//! A stream edge: what its batches hold.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use timely::dataflow::Stream;

use crate::batch::Batch;

/// Name of the hidden column that says where in its epoch a row stands (split, then position in it).
pub const ORDER: &str = "__order";
/// Name of the hidden column with a row's signed multiplicity.
pub const DIFF: &str = "__diff";

/// What the planner knows of an edge. Its batches have the columns of `rows`, then `__order` (UInt64) if
/// `ordered`, then `__diff` (Int64) if `signed`.
#[derive(Debug, Clone, PartialEq)]
pub struct Edge {
    /// The columns a query sees.
    pub rows: SchemaRef,
    /// True if an operator above needs rows in source order.
    pub ordered: bool,
    /// True if the edge can retract. Without it every row counts +1.
    pub signed: bool,
}

impl Edge {
    /// An edge of plain rows: append-only, order of no importance.
    pub fn plain(rows: SchemaRef) -> Self {
        Edge {
            rows,
            ordered: false,
            signed: false,
        }
    }

    /// The schema of its batches, hidden columns included.
    pub fn physical(&self) -> SchemaRef {
        if !self.ordered && !self.signed {
            return SchemaRef::clone(&self.rows);
        }
        let mut fields: Vec<Arc<Field>> = self.rows.fields().iter().cloned().collect();
        if self.ordered {
            fields.push(Arc::new(Field::new(ORDER, DataType::UInt64, false)));
        }
        if self.signed {
            fields.push(Arc::new(Field::new(DIFF, DataType::Int64, false)));
        }
        Arc::new(Schema::new(fields))
    }

    /// Index of the order column in a batch.
    pub fn order_index(&self) -> Option<usize> {
        self.ordered.then(|| self.rows.fields().len())
    }

    /// Index of the diff column in a batch.
    pub fn diff_index(&self) -> Option<usize> {
        self.signed
            .then(|| self.rows.fields().len() + usize::from(self.ordered))
    }
}

/// A stream of rows with its edge.
#[derive(Clone)]
pub struct Rows<'s> {
    /// The batches.
    pub stream: Stream<'s, u64, Batch>,
    /// What they hold.
    pub edge: Edge,
}
