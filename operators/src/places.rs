//! Which row of an epoch stands first: the same for any number of workers.
//!
//! Rows come in any order. Where the edge knows their place in the source, that decides; elsewhere their bytes do, and
//! rows that agree in all bytes are the same row.

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, UInt64Type};
use arrow::record_batch::RecordBatch;

use crate::keys::{Codec, Encoded};
use crate::{Edge, OperatorError, wire};

/// How the rows of an edge are ordered.
pub(crate) enum RowOrder {
    /// By this column.
    Source(usize),
    /// By their bytes.
    Bytes(Codec),
}

/// Where the rows of a batch stand.
pub(crate) enum Places<'r> {
    Source(&'r [u64]),
    Bytes(Encoded),
}

impl RowOrder {
    pub(crate) fn of(edge: &Edge) -> Result<Self, OperatorError> {
        if let Some(index) = edge.order_index() {
            return Ok(RowOrder::Source(index));
        }
        let types = edge.rows.fields().iter().map(|field| {
            let data_type = field.data_type().clone();
            wire::flat_type(&data_type).unwrap_or(data_type)
        });
        let types: Vec<DataType> = types.collect();
        Ok(RowOrder::Bytes(Codec::new(types)?))
    }

    pub(crate) fn places<'r>(&self, rows: &'r RecordBatch) -> Result<Places<'r>, OperatorError> {
        match self {
            RowOrder::Source(index) => {
                let places = rows.column(*index).as_primitive::<UInt64Type>();
                Ok(Places::Source(places.values()))
            }
            RowOrder::Bytes(codec) => {
                let columns = rows.columns().iter().zip(codec.types());
                let columns: Vec<ArrayRef> = columns
                    .map(|(column, to)| Ok(cast(column, to)?))
                    .collect::<Result<_, OperatorError>>()?;
                Ok(Places::Bytes(codec.encode(&columns, rows.num_rows())?))
            }
        }
    }
}

impl Places<'_> {
    /// True if row `a` stands before row `b`. What one source row was exploded into stays as it came.
    pub(crate) fn before(&self, a: u32, b: u32) -> bool {
        match self {
            Places::Source(places) => (places[a as usize], a) < (places[b as usize], b),
            Places::Bytes(rows) => rows.key(a as usize) < rows.key(b as usize),
        }
    }

    /// The first `count` of `rows` rows, in order.
    pub(crate) fn first(&self, rows: usize, count: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..rows as u32).collect();
        match self {
            Places::Source(places) => order.sort_by_key(|row| places[*row as usize]),
            Places::Bytes(rows) => order.sort_by(|a, b| {
                let key = |row: &u32| rows.key(*row as usize);
                key(a).cmp(key(b))
            }),
        }
        order.truncate(count);
        order
    }
}
