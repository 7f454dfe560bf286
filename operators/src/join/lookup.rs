//! Joins a stream with a table that does not change: every row finds its partners at once.
//!
//! The table is indexed once per process and shared by its workers, so rows stay where they are and there is no state.
//! Of a table that is too large for every process each has the rows of the keys that its workers own, and the stream's
//! rows go to the owners of theirs. Rows pass on their hidden columns: a retraction retracts what its row had found.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::physical_expr::PhysicalExpr;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use super::keys::{JoinKey, Keyed, holds, key_types};
use crate::exchange::{exchange, take_rows};
use crate::failure::guard;
use crate::keys::{Codec, Encoded, owner};
use crate::{BatchBuilder, Edge, Failure, OperatorError, Rows};

/// Which rows of the stream come out, and with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Each with each of its partners.
    Pairs,
    /// The same; a row without a partner comes with nulls.
    All,
    /// Those that have a partner, alone.
    Matched,
    /// Those that have none, alone.
    Unmatched,
    /// All, alone, and a last column that says whether they have a partner.
    Marked,
}

/// How a stream is joined with a table.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// Which rows come out.
    pub keep: Keep,
    /// True if the stream's columns come before the table's, also for keys and condition.
    pub stream_left: bool,
    /// What else a pair must satisfy: an expression over the columns of both sides.
    pub condition: Option<Arc<dyn PhysicalExpr>>,
    /// The columns that `condition` is over: of the left side, then of the right one.
    pub both: SchemaRef,
    /// The columns that come out.
    pub schema: SchemaRef,
    /// The table, or the rows of it that this process [owns](owned).
    pub table: Arc<Table>,
    /// True if each process has its own rows of the table.
    pub spread: bool,
}

/// The rows, of a table on the right side of the keys if the stream is on the left, whose keys these workers out of
/// `peers` own.
pub fn owned(
    rows: &RecordBatch,
    keys: &[JoinKey],
    stream_left: bool,
    workers: &Range<usize>,
    peers: usize,
) -> Result<RecordBatch, OperatorError> {
    let hashes = Keyed::of(&side(keys, !stream_left), &null_safe(keys), rows)?;
    let hashes = hashes.hash(rows.num_rows())?.into_iter().zip(0_u32..);
    let own = hashes.filter(|(hash, _)| workers.contains(&owner(*hash, peers)));
    let own = UInt32Array::from_iter_values(own.map(|(_, row)| row));
    Ok(take_rows(rows, &own)?)
}

fn side(keys: &[JoinKey], left: bool) -> Vec<Arc<dyn PhysicalExpr>> {
    let one = |key: &JoinKey| Arc::clone(if left { &key.left } else { &key.right });
    keys.iter().map(one).collect()
}

fn null_safe(keys: &[JoinKey]) -> Vec<bool> {
    keys.iter().map(|key| key.null_safe).collect()
}

/// Rows that do not change, by their keys.
#[derive(Debug)]
pub struct Table {
    rows: RecordBatch,
    /// The keys as the stream has them.
    stream_keys: Vec<Arc<dyn PhysicalExpr>>,
    null_safe: Vec<bool>,
    codec: Codec,
    keys: Encoded,
    hashes: Vec<u64>,
    /// By the last bits of a hash, the first row with them plus one.
    heads: Vec<u32>,
    /// The next row after each, plus one.
    next: Vec<u32>,
}

impl Table {
    /// Indexes `rows`, which stand on the right side of the keys if the stream is on the left.
    pub fn new(
        rows: RecordBatch,
        keys: &[JoinKey],
        stream_left: bool,
    ) -> Result<Self, OperatorError> {
        let own = side(keys, !stream_left);
        let null_safe = null_safe(keys);
        let keyed = Keyed::of(&own, &null_safe, &rows)?;
        let codec = Codec::new(key_types(&own, rows.schema_ref())?)?;
        let count = rows.num_rows();
        let mut heads = vec![0_u32; (count * 2).next_power_of_two().max(2)];
        let mut next = vec![0; count];
        let hashes = keyed.hash(count)?;
        // From the last to the first, so that chains are in the order of the rows.
        for row in (0..count).rev().filter(|row| keyed.can_match(*row)) {
            let head = &mut heads[slot(hashes[row], (count * 2).next_power_of_two().max(2))];
            next[row] = std::mem::replace(head, row as u32 + 1);
        }
        Ok(Table {
            keys: keyed.encode(&codec, count)?,
            stream_keys: side(keys, stream_left),
            null_safe,
            codec,
            hashes,
            heads,
            next,
            rows,
        })
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn slot(hash: u64, slots: usize) -> usize {
    // The first bits say which worker a row is on.
    hash as usize & (slots - 1)
}

/// Joins `rows` with a table.
pub fn lookup<'s>(mut rows: Rows<'s>, how: Lookup, failure: &Failure) -> Rows<'s> {
    if how.spread {
        rows = exchange(rows, how.table.stream_keys.clone(), failure);
    }
    let input = rows.edge.clone();
    let edge = Edge {
        rows: SchemaRef::clone(&how.schema),
        ..rows.edge
    };
    let (schema, output_schema) = (input.physical(), edge.physical());
    let failure = failure.clone();
    let stream = rows
        .stream
        .unary::<BatchBuilder, _, _, _>(Pipeline, "Lookup", move |_, _| {
            move |input, output| {
                input.for_each(|capability, batch| {
                    let epoch = *capability.time();
                    if failure.covers(epoch) {
                        return;
                    }
                    let batch = std::mem::take(batch);
                    let mut session = output.session_with_builder(&capability);
                    let mut out = |rows: RecordBatch| {
                        if rows.num_rows() > 0 {
                            session.give_container(&mut rows.into());
                        }
                    };
                    let run = || how.run(&batch.into_rows(&schema)?, &output_schema, &mut out);
                    if let Err(error) = guard(run) {
                        failure.set(epoch, error);
                    }
                });
            }
        });
    Rows { stream, edge }
}

/// Pairs that are made at once.
const PAIRS_MAX: usize = 16 << 10;

/// Rows of the stream, each with a row of the table or none.
#[derive(Default)]
struct Pairs {
    stream: Vec<u32>,
    table: Vec<Option<u32>>,
}

impl Lookup {
    pub(super) fn run(
        &self,
        rows: &RecordBatch,
        schema: &SchemaRef,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let count = rows.num_rows();
        let table = &*self.table;
        let keyed = Keyed::of(&table.stream_keys, &table.null_safe, rows)?;
        let encoded = keyed.encode(&table.codec, count)?;
        let hashes = keyed.hash(count)?;
        let mut matched = vec![false; count];
        let mut pairs = Pairs::default();
        let once = !matches!(self.keep, Keep::Pairs | Keep::All);
        for row in 0..count {
            if !keyed.can_match(row) {
                continue;
            }
            let mut at = table.heads[slot(hashes[row], table.heads.len())];
            while let Some(partner) = (at as usize).checked_sub(1) {
                at = table.next[partner];
                if table.hashes[partner] != hashes[row]
                    || table.keys.key(partner) != encoded.key(row)
                {
                    continue;
                }
                if once && self.condition.is_none() {
                    matched[row] = true;
                    break;
                }
                pairs.stream.push(row as u32);
                pairs.table.push(Some(partner as u32));
                if pairs.stream.len() == PAIRS_MAX {
                    let pairs = std::mem::take(&mut pairs);
                    self.settle(rows, pairs, &mut matched, schema, out)?;
                    // One partner is enough.
                    if once && matched[row] {
                        break;
                    }
                }
            }
        }
        self.settle(rows, pairs, &mut matched, schema, out)?;
        let chosen = |wanted: bool| {
            let chosen = (0..count as u32).filter(|row| matched[*row as usize] == wanted);
            UInt32Array::from_iter_values(chosen)
        };
        match self.keep {
            Keep::Pairs => {}
            Keep::All => {
                let stream = chosen(false).values().to_vec();
                let table = vec![None; stream.len()];
                out(self.wide(rows, &Pairs { stream, table }, schema)?);
            }
            Keep::Matched => out(take_rows(rows, &chosen(true))?.with_schema(Arc::clone(schema))?),
            Keep::Unmatched => {
                out(take_rows(rows, &chosen(false))?.with_schema(Arc::clone(schema))?)
            }
            Keep::Marked => {
                let mut columns = rows.columns().to_vec();
                let mark: ArrayRef = Arc::new(BooleanArray::from(matched));
                columns.insert(self.schema.fields().len() - 1, mark);
                out(RecordBatch::try_new(SchemaRef::clone(schema), columns)?);
            }
        }
        Ok(())
    }

    /// Finds which pairs are partners, and emits them where pairs come out.
    fn settle(
        &self,
        rows: &RecordBatch,
        mut pairs: Pairs,
        matched: &mut [bool],
        schema: &SchemaRef,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        if pairs.stream.is_empty() {
            return Ok(());
        }
        if let Some(condition) = &self.condition {
            let both = self.columns(rows, &pairs, self.visible(rows))?;
            let options = RecordBatchOptions::new().with_row_count(Some(pairs.stream.len()));
            let both =
                RecordBatch::try_new_with_options(SchemaRef::clone(&self.both), both, &options)?;
            let holds = holds(condition.as_ref(), &both)?;
            let mut kept = holds.iter();
            pairs.stream.retain(|_| *kept.next().unwrap_or(&false));
            let mut kept = holds.iter();
            pairs.table.retain(|_| *kept.next().unwrap_or(&false));
        }
        for row in &pairs.stream {
            matched[*row as usize] = true;
        }
        if matches!(self.keep, Keep::Pairs | Keep::All) {
            out(self.wide(rows, &pairs, schema)?);
        }
        Ok(())
    }

    /// How many columns of the stream a query sees.
    fn visible(&self, rows: &RecordBatch) -> usize {
        let both = self.both.fields().len() - self.table.rows.num_columns();
        both.min(rows.num_columns())
    }

    /// Columns of both sides, in the order of the sides.
    fn columns(
        &self,
        rows: &RecordBatch,
        pairs: &Pairs,
        visible: usize,
    ) -> Result<Vec<ArrayRef>, OperatorError> {
        let own = UInt32Array::from(pairs.stream.clone());
        let partners = UInt32Array::from(pairs.table.clone());
        let pick = |columns: &[ArrayRef], places: &UInt32Array| {
            let columns = columns.iter().map(|column| Ok(take(column, places, None)?));
            columns.collect::<Result<Vec<ArrayRef>, OperatorError>>()
        };
        let mut stream = pick(&rows.columns()[..visible], &own)?;
        let mut table = pick(self.table.rows.columns(), &partners)?;
        if self.stream_left {
            stream.append(&mut table);
            Ok(stream)
        } else {
            table.append(&mut stream);
            Ok(table)
        }
    }

    /// Pairs as they come out, the stream's hidden columns last.
    fn wide(
        &self,
        rows: &RecordBatch,
        pairs: &Pairs,
        schema: &SchemaRef,
    ) -> Result<RecordBatch, OperatorError> {
        let visible = self.visible(rows);
        let mut columns = self.columns(rows, pairs, visible)?;
        let own = UInt32Array::from(pairs.stream.clone());
        for hidden in &rows.columns()[visible..] {
            columns.push(take(hidden, &own, None)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(pairs.stream.len()));
        let schema = SchemaRef::clone(schema);
        Ok(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?)
    }
}
