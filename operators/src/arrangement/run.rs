//! A run: sorted rows in blocks, immutable, of a stretch of epochs.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use differential_dataflow::trace::{Batch as TraceBatch, BatchReader, Description};
use timely::progress::Antichain;

use super::block::{Block, Limits, prefix};
use super::budget::Budget;
use super::merge::RunMerger;
use super::output::Output;
use super::part::{Current, Part, Reader};
use crate::keys::Encoded;
use crate::{OperatorError, memory};

/// What the rows of an arrangement mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One row per key, and the newest counts. A diff of 0 says that the key is gone.
    Latest,
    /// A key is a whole row; diffs add up, and a row whose sum is 0 is gone.
    Multiset,
}

/// What all runs of an arrangement have in common.
pub struct Shape {
    /// What the rows mean.
    pub kind: Kind,
    /// The value columns; none is allowed.
    pub values: SchemaRef,
    /// The limits of new blocks.
    pub limits: Limits,
    /// Keys below it are forgotten: readers skip them, merges drop them.
    pub(crate) floor: RefCell<Vec<u8>>,
    /// How many keys there are, where the operator counts them.
    pub(crate) live: Cell<Option<u64>>,
    /// The memory its runs share with others; without one, all stays in memory.
    pub(crate) budget: Option<Arc<Budget>>,
    /// The value column that says from which moment on a row is not wanted any more (Int64).
    pub(crate) expires: Option<usize>,
    /// The moment that has come: merges leave out what is not wanted from then on.
    pub(crate) expired: Cell<i64>,
    /// What went wrong where nobody could be told: a merge that could not read or write. What the arrangement holds
    /// since then is wrong.
    broken: RefCell<Option<String>>,
}

impl Shape {
    /// An arrangement of `kind` with these value columns.
    pub fn new(kind: Kind, values: SchemaRef, limits: Limits) -> Self {
        Shape {
            kind,
            values,
            limits,
            floor: RefCell::default(),
            live: Cell::new(None),
            budget: None,
            expires: None,
            expired: Cell::new(i64::MIN),
            broken: RefCell::default(),
        }
    }

    /// The same whose rows are let go by time: value column `column`, not null, says from which moment on. Readers may
    /// find such rows until a merge comes to them.
    pub fn expiring(mut self, column: usize) -> Self {
        self.expires = Some(column);
        self
    }

    /// Says which moment has come.
    pub fn expire(&self, now: i64) {
        self.expired.set(self.expired.get().max(now));
    }

    /// Of rows of `block`, which are wanted; `None` if all are.
    pub(crate) fn wanted(&self, block: &Block) -> Option<Vec<bool>> {
        let column = block.values.column(self.expires?);
        let now = self.expired.get();
        let moments = column.as_primitive::<Int64Type>().values();
        let gone = moments.iter().any(|moment| *moment <= now);
        gone.then(|| moments.iter().map(|moment| *moment > now).collect())
    }

    /// The same within a budget: what is too much for it goes to files.
    pub fn within(mut self, budget: Option<Arc<Budget>>) -> Self {
        self.budget = budget;
        self
    }

    /// The first error of a merge, again and again.
    pub(crate) fn check(&self) -> Result<(), OperatorError> {
        match &*self.broken.borrow() {
            Some(text) => Err(OperatorError::Other(text.clone())),
            None => Ok(()),
        }
    }

    pub(crate) fn broke(&self, error: &OperatorError) {
        let mut broken = self.broken.borrow_mut();
        broken.get_or_insert_with(|| error.chain());
    }
}

/// Sorted rows of the epochs from its lower to its upper bound.
pub struct Run {
    /// `None` in an empty run that differential made up.
    pub(crate) shape: Option<Rc<Shape>>,
    /// Replaced by the same rows in a file when memory runs short.
    parts: RefCell<Arc<[Part]>>,
    rows: usize,
    description: Description<u64>,
}

impl BatchReader for Run {
    type Time = u64;

    fn len(&self) -> usize {
        self.rows
    }

    fn description(&self) -> &Description<u64> {
        &self.description
    }
}

impl TraceBatch for Run {
    type Merger = RunMerger;

    fn empty(lower: Antichain<u64>, upper: Antichain<u64>) -> Self {
        let since = Antichain::from_elem(0);
        Run::new(None, Vec::new(), Description::new(lower, upper, since))
    }
}

impl Run {
    pub(crate) fn new(
        shape: Option<Rc<Shape>>,
        parts: Vec<Part>,
        description: Description<u64>,
    ) -> Self {
        Run {
            shape,
            rows: parts.iter().map(Part::rows).sum(),
            parts: RefCell::new(parts.into()),
            description,
        }
    }

    /// The blocks, in key order, wherever they are.
    pub fn parts(&self) -> Arc<[Part]> {
        Arc::clone(&self.parts.borrow())
    }

    /// Reads the run; blocks from files stay in the cache if `keep`.
    pub(crate) fn reader(&self, keep: bool, current: Current) -> Reader {
        let budget = self.shape.as_ref().and_then(|shape| shape.budget.as_ref());
        Reader::new(self.parts(), budget, keep, current)
    }

    /// About how many bytes of memory it takes.
    pub(crate) fn resident_bytes(&self) -> usize {
        self.parts.borrow().iter().map(Part::resident_bytes).sum()
    }

    /// Writes the blocks that are in memory to a file, and forgets them. Their number and bounds stay, so whoever
    /// stands in the run still does.
    pub(crate) fn move_out(&self) -> Result<(), OperatorError> {
        let shape = self.shape.as_ref().expect("a run with blocks has a shape");
        let mut output = Output::new(shape, true);
        for part in self.parts().iter() {
            output.push_part(part)?;
        }
        let (lower, upper) = self.bounds();
        *self.parts.borrow_mut() = output.finish(lower, upper)?.into();
        Ok(())
    }

    /// Its first epoch, and the one after its last.
    pub(crate) fn bounds(&self) -> (u64, u64) {
        bounds(&self.description)
    }
}

/// The first epoch of a description, and the one after its last.
pub(crate) fn bounds(description: &Description<u64>) -> (u64, u64) {
    let bound = |bound: &[u64]| bound.first().copied().unwrap_or(u64::MAX);
    (
        bound(description.lower().elements()),
        bound(description.upper().elements()),
    )
}

/// A row of a run. Past the last row of the last block, `block` is the number of blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) block: usize,
    pub(crate) row: usize,
}

/// Cuts sorted rows into blocks: row `i` has key `order[i]` of `keys`, values row `picks[i]`, and multiplicity
/// `diffs[i]` (1 if absent). Each block gets memory of its own, so that blocks can be freed one by one.
pub(crate) fn cut(
    shape: &Shape,
    keys: &Encoded,
    order: &[u32],
    values: &RecordBatch,
    picks: &UInt32Array,
    diffs: Option<&[i64]>,
) -> Result<Vec<Part>, ArrowError> {
    let rows = order.len();
    let value_bytes = memory::size_of(values).div_ceil(rows.max(1)) + 12;
    let mut blocks = Vec::with_capacity(rows / shape.limits.rows + 1);
    let mut start = 0;
    while start < rows {
        let mut end = start;
        let mut size = 0;
        while end < rows && end - start < shape.limits.rows {
            size += keys.key(order[end] as usize).len() + value_bytes;
            if size > shape.limits.bytes && end > start {
                break;
            }
            end += 1;
        }
        let mut block = KeysBuilder::with_capacity(end - start);
        for row in &order[start..end] {
            let key = keys.key(*row as usize);
            block.push(prefix(key), key);
        }
        let picks = picks.slice(start, end - start);
        let columns = values
            .columns()
            .iter()
            .map(|column| take(column, &picks, None))
            .collect::<Result<Vec<ArrayRef>, ArrowError>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(end - start));
        let schema = SchemaRef::clone(&shape.values);
        let values = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let diffs = diffs.map(|diffs| diffs[start..end].to_vec());
        let block = block.finish(memory::collect_views(&values), diffs);
        let block = block.charged(shape.budget.as_ref());
        blocks.push(Part::Resident(Arc::new(block)));
        start = end;
    }
    Ok(blocks)
}

/// The keys of a block in the making.
pub(crate) struct KeysBuilder {
    prefixes: Vec<u64>,
    offsets: Vec<u32>,
    bytes: Vec<u8>,
}

impl KeysBuilder {
    pub(crate) fn with_capacity(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        KeysBuilder {
            prefixes: Vec::with_capacity(rows),
            offsets,
            bytes: Vec::new(),
        }
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, prefix: u64, key: &[u8]) {
        self.prefixes.push(prefix);
        self.bytes.extend_from_slice(key);
        self.offsets.push(self.end());
    }

    /// Adds rows `start..end` of a block.
    pub(crate) fn extend(&mut self, block: &Block, start: usize, end: usize) {
        self.prefixes.extend_from_slice(&block.prefixes[start..end]);
        let (from, to) = (block.offsets[start], block.offsets[end]);
        let base = self.end();
        self.bytes
            .extend_from_slice(&block.bytes[from as usize..to as usize]);
        let ends = &block.offsets[start + 1..=end];
        self.offsets.extend(ends.iter().map(|o| o - from + base));
    }

    fn end(&self) -> u32 {
        u32::try_from(self.bytes.len()).expect("a block's limits keep its keys below 4 GiB")
    }

    pub(crate) fn finish(self, values: RecordBatch, diffs: Option<Vec<i64>>) -> Block {
        let rows = self.prefixes.len().max(1);
        Block {
            row_bytes: 12 + (self.bytes.len() + memory::size_of(&values)) / rows,
            prefixes: self.prefixes,
            offsets: self.offsets,
            bytes: self.bytes,
            values,
            diffs: diffs.filter(|diffs| diffs.iter().any(|diff| *diff != 1)),
            charge: None,
        }
    }
}
