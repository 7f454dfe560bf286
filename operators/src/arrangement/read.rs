//! Reads an arrangement: many keys at once, or a range in key order.

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::interleave;
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::block::{Block, prefix};
use super::gather::Picks;
use super::part::{Part, Reader};
use super::run::{Kind, Place, Run, Shape};
use crate::OperatorError;

/// Rows found by [`probe`]: each with the number of the key that found it.
#[derive(Default)]
pub struct Found {
    /// For each row found, the index of its key. Ascending in an arrangement of kind [`Kind::Latest`].
    pub keys: Vec<u32>,
    blocks: Vec<Arc<Block>>,
    places: Vec<(usize, usize)>,
}

impl Found {
    /// The diffs of the rows found, in their order.
    pub fn diffs(&self) -> impl Iterator<Item = i64> + '_ {
        self.places
            .iter()
            .map(|(block, row)| self.blocks[*block].diff(*row))
    }

    /// The stored keys of the rows found, in their order.
    pub fn stored_keys(&self) -> impl Iterator<Item = &[u8]> + '_ {
        self.places
            .iter()
            .map(|(block, row)| self.blocks[*block].key(*row))
    }

    /// The diff of row `row` of those found.
    pub fn diff(&self, row: usize) -> i64 {
        let (block, place) = self.places[row];
        self.blocks[block].diff(place)
    }

    /// The stored key of row `row` of those found.
    pub fn stored_key(&self, row: usize) -> &[u8] {
        let (block, place) = self.places[row];
        self.blocks[block].key(place)
    }

    /// Of row `row` of those found, the value in an Int64 column without nulls.
    pub fn number(&self, column: usize, row: usize) -> i64 {
        let (block, place) = self.places[row];
        let column = self.blocks[block].values.column(column);
        column.as_primitive::<Int64Type>().value(place)
    }

    /// The first `columns` value columns of some of the rows found, in the order given; there is at least one.
    pub fn pick(&self, columns: usize, rows: &[u32]) -> Result<Vec<ArrayRef>, ArrowError> {
        // Of many blocks a few are meant; the others would cost as much as those.
        let mut sources: Vec<&Block> = Vec::new();
        let mut number = vec![usize::MAX; self.blocks.len()];
        let mut places = Vec::with_capacity(rows.len());
        for row in rows {
            let (block, place) = self.places[*row as usize];
            if number[block] == usize::MAX {
                number[block] = sources.len();
                sources.push(&self.blocks[block]);
            }
            places.push((number[block], place));
        }
        let column = |column: usize| {
            let sources = sources.iter().map(|block| block.values.column(column));
            let sources: Vec<_> = sources.map(|array| array.as_ref()).collect();
            interleave(&sources, &places)
        };
        (0..columns).map(column).collect()
    }

    /// Value column `index` of the rows found, in their order; `None` if nothing was found.
    pub fn column(&self, index: usize) -> Result<Option<ArrayRef>, ArrowError> {
        if self.places.is_empty() {
            return Ok(None);
        }
        let sources: Vec<_> = self
            .blocks
            .iter()
            .map(|block| block.values.column(index).as_ref())
            .collect();
        interleave(&sources, &self.places).map(Some)
    }
}

/// Rows found in blocks that lie in files. The blocks cannot all be held, so their rows are copied as they are found.
#[derive(Default)]
struct Gathered {
    blocks: Vec<Arc<Block>>,
    picks: Picks,
}

/// In a place, what is added to the index of a gathered block.
const GATHERED: usize = usize::MAX / 2;

/// Rows of one gathered block.
const GATHERED_ROWS: usize = 16 << 10;

impl Gathered {
    /// Copies a row; returns its place.
    fn add(&mut self, block: &Arc<Block>, row: usize, shape: &Shape) -> Result<Place, ArrowError> {
        let place = Place {
            block: GATHERED + self.blocks.len(),
            row: self.picks.rows(),
        };
        self.picks.add_row(block, row, block.diff(row));
        if self.picks.rows() == GATHERED_ROWS {
            self.flush(shape)?;
        } else {
            self.picks.compact(&shape.values)?;
        }
        Ok(place)
    }

    fn flush(&mut self, shape: &Shape) -> Result<(), ArrowError> {
        if self.picks.rows() > 0 {
            let block = self.picks.take_block(&shape.values)?;
            self.blocks.push(Arc::new(block));
        }
        Ok(())
    }
}

/// Looks up ascending `keys` in `runs`, oldest first. A key finds all rows whose key starts with it: a whole key finds
/// its row, the encoding of some leading columns finds the rows that agree in them. Row encodings delimit themselves,
/// so no key of the same columns is a prefix of another.
///
/// Under [`Kind::Latest`] a key finds the newest row of just this key, unless that is a tombstone.
pub fn probe<'a>(
    shape: &Shape,
    runs: &[Rc<Run>],
    keys: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
) -> Result<Found, OperatorError> {
    shape.check()?;
    let floor = shape.floor.borrow();
    let latest = shape.kind == Kind::Latest;
    let mut found = Found::default();
    let mut gathered = Gathered::default();
    // For the kind Latest: where the newest row of each key is, if one has been seen, and its diff.
    let mut newest: Vec<Option<(Place, bool)>> = vec![None; if latest { keys.len() } else { 0 }];
    for run in runs.iter().rev() {
        let mut reader = run.reader(true, None);
        let count = reader.parts.len();
        let base = found.blocks.len();
        found
            .blocks
            .extend(reader.parts.iter().filter_map(Part::resident));
        // Where the resident blocks before the one in use end: files and memory may take turns.
        let mut resident = (0, base);
        let mut place = reader.first_at(&floor)?;
        for (index, key) in keys.clone().enumerate() {
            if latest && newest[index].is_some() {
                continue;
            }
            let number = prefix(key);
            place = reader.seek(place, number, key)?;
            let mut hit = place;
            while hit.block < count {
                if reader.may_skip(hit, key, latest) {
                    break;
                }
                reader.load(hit.block)?;
                let block = reader.loaded(hit.block);
                if latest && block.prefixes[hit.row] != number {
                    break;
                }
                let stored = block.key(hit.row);
                if stored != key && (latest || !stored.starts_with(key)) {
                    break;
                }
                let lives = block.diff(hit.row) != 0;
                let at = match &reader.parts[hit.block] {
                    // A tombstone is not worth a copy.
                    Part::Stored(_) if latest && !lives => Place::default(),
                    Part::Stored(_) => gathered.add(block, hit.row, shape)?,
                    Part::Resident(_) => {
                        while resident.0 < hit.block {
                            resident.1 += usize::from(reader.parts[resident.0].is_resident());
                            resident.0 += 1;
                        }
                        Place {
                            block: resident.1,
                            row: hit.row,
                        }
                    }
                };
                if latest {
                    newest[index] = Some((at, lives));
                    break;
                }
                found.keys.push(index as u32);
                found.places.push((at.block, at.row));
                next(&mut hit, block.len());
            }
            if place.block == count {
                break;
            }
        }
    }
    for (index, at) in newest.into_iter().enumerate() {
        if let Some((place, true)) = at {
            found.keys.push(index as u32);
            found.places.push((place.block, place.row));
        }
    }
    gathered.flush(shape)?;
    if !gathered.blocks.is_empty() {
        let base = found.blocks.len();
        for (block, _) in &mut found.places {
            if *block >= GATHERED {
                *block = *block - GATHERED + base;
            }
        }
        found.blocks.append(&mut gathered.blocks);
    }
    Ok(found)
}

fn next(place: &mut Place, rows: usize) {
    place.row += 1;
    if place.row == rows {
        *place = Place {
            block: place.block + 1,
            row: 0,
        };
    }
}

/// The rows of a key range in key order, the runs merged and consolidated.
pub struct Scan {
    shape: Rc<Shape>,
    /// Oldest first.
    runs: Vec<Standing>,
}

/// Where a scan stands in a run, and where it ends.
struct Standing {
    reader: Reader,
    place: Place,
    end: Place,
}

impl Standing {
    fn block(&self) -> &Arc<Block> {
        self.reader.loaded(self.place.block)
    }
}

/// Some rows of a scan, in key order.
pub struct Chunk(Block);

impl Chunk {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        (0..self.0.len()).map(|row| self.0.key(row))
    }

    /// The key of a row.
    pub fn key(&self, row: usize) -> &[u8] {
        self.0.key(row)
    }

    /// The value columns.
    pub fn values(&self) -> &RecordBatch {
        &self.0.values
    }

    /// The multiplicity of a row.
    pub fn diff(&self, row: usize) -> i64 {
        self.0.diff(row)
    }

    pub(crate) fn into_block(self) -> Block {
        self.0
    }
}

impl Scan {
    /// The keys from `from` on that are below `until` (to the end if `None`), without those below the floor.
    pub fn new(
        shape: &Rc<Shape>,
        runs: Vec<Rc<Run>>,
        from: &[u8],
        until: Option<&[u8]>,
    ) -> Result<Self, OperatorError> {
        shape.check()?;
        let floor = shape.floor.borrow();
        let from = from.max(floor.as_slice());
        let mut standing = Vec::with_capacity(runs.len());
        for run in runs {
            // A scan of everything would only drive what is wanted again out of the cache.
            let mut reader = run.reader(false, None);
            let end = match until {
                Some(until) => reader.first_at(until)?,
                None => Place {
                    block: reader.parts.len(),
                    row: 0,
                },
            };
            let place = reader.first_at(from)?;
            if place < end {
                standing.push(Standing { reader, place, end });
            }
        }
        Ok(Scan {
            shape: Rc::clone(shape),
            runs: standing,
        })
    }

    /// The next rows, about `rows` of them; `None` at the end.
    pub fn next_chunk(&mut self, rows: usize) -> Result<Option<Chunk>, OperatorError> {
        let picks = self.pick(rows)?;
        let values = &self.shape.values;
        let chunk = picks.map(|mut picks| Ok(Chunk(picks.take_block(values)?)));
        chunk.transpose()
    }

    /// The same with some of the value columns, which have this schema.
    pub(crate) fn next_columns(
        &mut self,
        rows: usize,
        schema: &SchemaRef,
        columns: &[usize],
    ) -> Result<Option<Chunk>, OperatorError> {
        let picks = self.pick(rows)?;
        let chunk = picks.map(|mut picks| Ok(Chunk(picks.take_columns(schema, columns)?)));
        chunk.transpose()
    }

    fn pick(&mut self, rows: usize) -> Result<Option<Picks>, OperatorError> {
        let mut picks = Picks::default();
        while picks.rows() < rows && !self.runs.is_empty() {
            self.step(&mut picks, rows)?;
            if self.shape.budget.is_some() {
                picks.compact(&self.shape.values)?;
            }
        }
        self.shape.check()?;
        Ok((picks.rows() > 0).then_some(picks))
    }

    /// How many rows there are from here to the end.
    pub fn count(mut self) -> Result<u64, OperatorError> {
        let mut rows = 0;
        while !self.runs.is_empty() {
            let mut picks = Picks::default();
            self.step(&mut picks, usize::MAX / 2)?;
            rows += picks.rows() as u64;
        }
        self.shape.check()?;
        Ok(rows)
    }

    /// Takes the stretch of the smallest keys that only one run has, or the one key that several have.
    fn step(&mut self, picks: &mut Picks, rows: usize) -> Result<(), OperatorError> {
        for run in &mut self.runs {
            run.reader.load(run.place.block)?;
        }
        let key = |index: usize| {
            let run = &self.runs[index];
            let block = run.block();
            (block.prefixes[run.place.row], block.key(run.place.row))
        };
        let mut smallest = 0;
        let mut rival: Option<usize> = None;
        for index in 1..self.runs.len() {
            if key(index) < key(smallest) {
                rival = Some(smallest);
                smallest = index;
            } else if rival.is_none_or(|rival| key(index) < key(rival)) {
                rival = Some(index);
            }
        }
        match rival {
            Some(rival) if key(rival) == key(smallest) => self.combine(smallest, picks),
            _ => {
                let Standing { place, end, .. } = &self.runs[smallest];
                let block = Arc::clone(self.runs[smallest].block());
                let mut stop = if end.block == place.block {
                    end.row
                } else {
                    block.len()
                };
                if let Some(rival) = rival {
                    let (prefix, key) = key(rival);
                    stop = stop.min(block.seek(place.row, prefix, key));
                }
                let stop = stop.min(place.row + (rows - picks.rows()));
                let start = place.row;
                if self.shape.kind == Kind::Latest && block.diffs.is_some() {
                    for row in (start..stop).filter(|row| block.diff(*row) != 0) {
                        picks.add_row(&block, row, 1);
                    }
                } else {
                    picks.add(&block, start, stop);
                }
                self.advance(smallest, stop);
            }
        }
        self.runs.retain(|run| run.place < run.end);
        Ok(())
    }

    /// All runs that stand at the key of run `first` move on; the newest says what the row is.
    fn combine(&mut self, first: usize, picks: &mut Picks) {
        let row = self.runs[first].place.row;
        let block = Arc::clone(self.runs[first].block());
        let (prefix, key) = (block.prefixes[row], block.key(row));
        let mut sum = 0;
        let mut newest = None;
        for index in 0..self.runs.len() {
            let row = self.runs[index].place.row;
            let other = Arc::clone(self.runs[index].block());
            if other.compare(row, prefix, key).is_eq() {
                sum = match self.shape.kind {
                    Kind::Latest => other.diff(row),
                    Kind::Multiset => sum + other.diff(row),
                };
                self.advance(index, row + 1);
                newest = Some((other, row));
            }
        }
        if let (Some((block, row)), true) = (newest, sum != 0) {
            picks.add_row(&block, row, sum);
        }
    }

    fn advance(&mut self, index: usize, row: usize) {
        let rows = self.runs[index].block().len();
        let place = &mut self.runs[index].place;
        place.row = row;
        if row == rows {
            *place = Place {
                block: place.block + 1,
                row: 0,
            };
        }
    }
}
