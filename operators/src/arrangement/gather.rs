//! Picks rows of several blocks into a new one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, MutableArrayData, make_array};
use arrow::compute::interleave;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::block::Block;
use super::run::KeysBuilder;
use crate::memory;

/// Below this mean length, picking row by row beats copying stretches.
const STRETCH_MIN: usize = 8;

/// More blocks than this, read from files, are not held on to for the sake of some of their rows.
const SOURCES_MAX: usize = 8;

/// A stretch of rows of one block.
struct Stretch {
    source: usize,
    start: usize,
    end: usize,
}

/// Rows picked so far, in order.
#[derive(Default)]
pub(crate) struct Picks {
    sources: Vec<Arc<Block>>,
    stretches: Vec<Stretch>,
    diffs: Vec<i64>,
    rows: usize,
    bytes: usize,
}

impl Picks {
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// About how many bytes the rows take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies what is picked once it holds on to many blocks, which were read from files and should be let go.
    pub(crate) fn compact(&mut self, schema: &SchemaRef) -> Result<(), ArrowError> {
        if self.sources.len() > SOURCES_MAX {
            let block = Arc::new(self.take_block(schema)?);
            self.add(&block, 0, block.len());
        }
        Ok(())
    }

    /// Adds rows `start..end` of `block` as they are.
    pub(crate) fn add(&mut self, block: &Arc<Block>, start: usize, end: usize) {
        match &block.diffs {
            Some(diffs) => self.diffs.extend_from_slice(&diffs[start..end]),
            None => self.diffs.resize(self.diffs.len() + end - start, 1),
        }
        self.add_stretch(block, start, end);
    }

    /// Adds one row with another multiplicity.
    pub(crate) fn add_row(&mut self, block: &Arc<Block>, row: usize, diff: i64) {
        self.diffs.push(diff);
        self.add_stretch(block, row, row + 1);
    }

    fn add_stretch(&mut self, block: &Arc<Block>, start: usize, end: usize) {
        self.rows += end - start;
        self.bytes += (end - start) * block.row_bytes;
        // Blocks come in order from a handful of runs, so the one wanted is near the end.
        let source = match self
            .sources
            .iter()
            .rposition(|known| Arc::ptr_eq(known, block))
        {
            Some(source) => source,
            None => {
                self.sources.push(Arc::clone(block));
                self.sources.len() - 1
            }
        };
        match self.stretches.last_mut() {
            Some(last) if last.source == source && last.end == start => last.end = end,
            _ => self.stretches.push(Stretch { source, start, end }),
        }
    }

    /// The picked rows as a block with memory of its own; starts over.
    pub(crate) fn take_block(&mut self, schema: &SchemaRef) -> Result<Block, ArrowError> {
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        self.take_columns(schema, &all)
    }

    /// The same with some of the columns, which have this schema.
    pub(crate) fn take_columns(
        &mut self,
        schema: &SchemaRef,
        columns: &[usize],
    ) -> Result<Block, ArrowError> {
        let picks = std::mem::take(self);
        let mut keys = KeysBuilder::with_capacity(picks.rows);
        for Stretch { source, start, end } in &picks.stretches {
            keys.extend(&picks.sources[*source], *start, *end);
        }
        let columns = columns.iter().map(|column| picks.column(*column));
        let columns = columns.collect::<Result<Vec<ArrayRef>, ArrowError>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(picks.rows));
        let schema = SchemaRef::clone(schema);
        let values = RecordBatch::try_new_with_options(schema, columns, &options)?;
        Ok(keys.finish(memory::collect_views(&values), Some(picks.diffs)))
    }

    fn column(&self, column: usize) -> Result<ArrayRef, ArrowError> {
        let sources = self.sources.iter().map(|block| block.values.column(column));
        if self.rows >= STRETCH_MIN * self.stretches.len() {
            let sources: Vec<_> = sources.map(|array| array.to_data()).collect();
            let mut copy = MutableArrayData::new(sources.iter().collect(), false, self.rows);
            for Stretch { source, start, end } in &self.stretches {
                copy.try_extend(*source, *start, *end)?;
            }
            return Ok(make_array(copy.freeze()));
        }
        let sources: Vec<&dyn Array> = sources.map(|array| array.as_ref()).collect();
        let rows: Vec<(usize, usize)> = self
            .stretches
            .iter()
            .flat_map(|Stretch { source, start, end }| {
                (*start..*end).map(move |row| (*source, row))
            })
            .collect();
        interleave(&sources, &rows)
    }
}

/// The rows of `block` that `keep` names, as a block of their own; `None` if there are none.
pub(crate) fn keep(block: &Arc<Block>, keep: &[bool]) -> Result<Option<Block>, ArrowError> {
    let mut picks = Picks::default();
    for (row, _) in keep.iter().enumerate().filter(|(_, keep)| **keep) {
        picks.add(block, row, row + 1);
    }
    if picks.rows() == 0 {
        return Ok(None);
    }
    picks.take_block(block.values.schema_ref()).map(Some)
}
