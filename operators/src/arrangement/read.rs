//! Reads an arrangement: many keys at once, or a range in key order.

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::interleave;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::block::{Block, prefix};
use super::gather::Picks;
use super::run::{Kind, Place, Run, Shape};

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

/// Looks up ascending `keys` in `runs`, oldest first. A key finds all rows whose key starts with it: a whole key finds
/// its row, the encoding of some leading columns finds the rows that agree in them. Row encodings delimit themselves,
/// so no key of the same columns is a prefix of another.
///
/// Under [`Kind::Latest`] a key finds the newest row of just this key, unless that is a tombstone.
pub fn probe<'a>(
    shape: &Shape,
    runs: &[Rc<Run>],
    keys: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
) -> Found {
    let floor = shape.floor.borrow();
    let latest = shape.kind == Kind::Latest;
    let mut found = Found::default();
    // For the kind Latest: where the newest row of each key is, if one has been seen.
    let mut newest: Vec<Option<(usize, usize)>> = vec![None; if latest { keys.len() } else { 0 }];
    for run in runs.iter().rev() {
        let base = found.blocks.len();
        found.blocks.extend(run.blocks.iter().map(Arc::clone));
        let mut place = run.first_at(&floor);
        for (index, key) in keys.clone().enumerate() {
            if latest && newest[index].is_some() {
                continue;
            }
            let number = prefix(key);
            place = run.seek(place, number, key);
            let mut hit = place;
            while let Some(block) = run.blocks.get(hit.block) {
                if latest && block.prefixes[hit.row] != number {
                    break;
                }
                let stored = block.key(hit.row);
                if stored != key && (latest || !stored.starts_with(key)) {
                    break;
                }
                let at = (base + hit.block, hit.row);
                if latest {
                    newest[index] = Some(at);
                    break;
                }
                found.keys.push(index as u32);
                found.places.push(at);
                next(&mut hit, block);
            }
            if place.block == run.blocks.len() {
                break;
            }
        }
    }
    for (index, at) in newest.into_iter().enumerate() {
        if let Some((block, row)) = at
            && found.blocks[block].diff(row) != 0
        {
            found.keys.push(index as u32);
            found.places.push((block, row));
        }
    }
    found
}

fn next(place: &mut Place, block: &Block) {
    place.row += 1;
    if place.row == block.len() {
        *place = Place {
            block: place.block + 1,
            row: 0,
        };
    }
}

/// The rows of a key range in key order, the runs merged and consolidated.
pub struct Scan {
    shape: Rc<Shape>,
    /// Oldest first, each with where it stands and where it ends.
    runs: Vec<(Rc<Run>, Place, Place)>,
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
    pub fn new(shape: &Rc<Shape>, runs: Vec<Rc<Run>>, from: &[u8], until: Option<&[u8]>) -> Self {
        let floor = shape.floor.borrow();
        let from = from.max(floor.as_slice());
        let runs = runs
            .into_iter()
            .map(|run| {
                let start = run.first_at(from);
                let end = match until {
                    Some(until) => run.first_at(until),
                    None => Place {
                        block: run.blocks.len(),
                        row: 0,
                    },
                };
                (run, start, end)
            })
            .filter(|(_, start, end)| start < end)
            .collect();
        Scan {
            shape: Rc::clone(shape),
            runs,
        }
    }

    /// The next rows, about `rows` of them; `None` at the end.
    pub fn next_chunk(&mut self, rows: usize) -> Result<Option<Chunk>, ArrowError> {
        let mut picks = Picks::default();
        while picks.rows() < rows && !self.runs.is_empty() {
            self.step(&mut picks, rows);
        }
        if picks.rows() == 0 {
            return Ok(None);
        }
        picks.take_block(&self.shape.values).map(Chunk).map(Some)
    }

    /// Takes the stretch of the smallest keys that only one run has, or the one key that several have.
    fn step(&mut self, picks: &mut Picks, rows: usize) {
        let key = |index: usize| {
            let (run, place, _) = &self.runs[index];
            let block = &run.blocks[place.block];
            (block.prefixes[place.row], block.key(place.row))
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
                let (run, place, end) = &self.runs[smallest];
                let block = Arc::clone(&run.blocks[place.block]);
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
        self.runs.retain(|(_, place, end)| place < end);
    }

    /// All runs that stand at the key of run `first` move on; the newest says what the row is.
    fn combine(&mut self, first: usize, picks: &mut Picks) {
        let (run, place, _) = &self.runs[first];
        let block = Arc::clone(&run.blocks[place.block]);
        let (prefix, key) = (block.prefixes[place.row], block.key(place.row));
        let mut sum = 0;
        let mut newest = None;
        for index in 0..self.runs.len() {
            let (run, place, _) = &self.runs[index];
            let (other, row) = (Arc::clone(&run.blocks[place.block]), place.row);
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
        let (run, place, _) = &mut self.runs[index];
        place.row = row;
        if row == run.blocks[place.block].len() {
            *place = Place {
                block: place.block + 1,
                row: 0,
            };
        }
    }
}
