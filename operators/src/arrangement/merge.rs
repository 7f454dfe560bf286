//! Merges two runs, a bounded step at a time.

use std::cmp::Ordering;
use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::lattice::Lattice;
use differential_dataflow::trace::{BatchReader, Description, Merger};
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

use super::block::Block;
use super::gather::Picks;
use super::run::{Kind, Place, Run, Shape};

/// A merge in progress: `older` and `newer` are consumed in key order.
pub struct RunMerger {
    shape: Option<Rc<Shape>>,
    older: Place,
    newer: Place,
    /// True if nothing lies beneath, so that a tombstone has nothing left to hide.
    bottom: bool,
    picks: Picks,
    blocks: Vec<Arc<Block>>,
    description: Description<u64>,
}

impl Merger<Run> for RunMerger {
    fn new(older: &Run, newer: &Run, since: AntichainRef<'_, u64>) -> Self {
        let since = older
            .description()
            .since()
            .join(newer.description().since())
            .join(&since.to_owned());
        let shape = older.shape.as_ref().or(newer.shape.as_ref()).map(Rc::clone);
        let floor = shape
            .as_ref()
            .map(|shape| shape.floor.borrow().clone())
            .unwrap_or_default();
        RunMerger {
            shape,
            older: older.first_at(&floor),
            newer: newer.first_at(&floor),
            bottom: *older.lower() == Antichain::from_elem(0),
            picks: Picks::default(),
            blocks: Vec::new(),
            description: Description::new(older.lower().clone(), newer.upper().clone(), since),
        }
    }

    fn work(&mut self, older: &Run, newer: &Run, fuel: &mut isize) {
        // Fuel counts rows consumed, not rows produced: a merge in which everything cancels is bounded too.
        while *fuel > 0 {
            let (i, j) = (self.older.row, self.newer.row);
            let consumed = match (
                older.blocks.get(self.older.block),
                newer.blocks.get(self.newer.block),
            ) {
                (None, None) => break,
                (Some(a), None) => self.copy(Side::Older, a, a.len()),
                (None, Some(b)) => self.copy(Side::Newer, b, b.len()),
                (Some(a), Some(b)) => match a.compare(i, b.prefixes[j], b.key(j)) {
                    // Only one run has keys in this stretch: gallop to its end.
                    Ordering::Less => {
                        let end = a.seek(i, b.prefixes[j], b.key(j));
                        self.copy(Side::Older, a, end)
                    }
                    Ordering::Greater => {
                        let end = b.seek(j, a.prefixes[i], a.key(i));
                        self.copy(Side::Newer, b, end)
                    }
                    Ordering::Equal => self.combine(a, b),
                },
            };
            *fuel -= consumed as isize;
        }
        let over = |run: &Run, place: Place| place.block == run.blocks.len();
        if over(older, self.older) && over(newer, self.newer) {
            // Fuel left over is how the spine learns that the merge is complete.
            *fuel = (*fuel).max(1);
        }
    }

    fn done(mut self) -> Run {
        self.flush();
        Run::new(self.shape, self.blocks, self.description)
    }
}

#[derive(Clone, Copy)]
enum Side {
    Older,
    Newer,
}

impl RunMerger {
    fn shape(&self) -> &Shape {
        self.shape.as_ref().expect("a run with blocks has a shape")
    }

    /// Moves one side up to row `end` of the block it stands in, rows and all; returns how many rows that is.
    fn copy(&mut self, side: Side, block: &Arc<Block>, end: usize) -> usize {
        let place = match side {
            Side::Older => &mut self.older,
            Side::Newer => &mut self.newer,
        };
        let start = place.row;
        step(place, block, end);
        if self.bottom && self.shape().kind == Kind::Latest && block.diffs.is_some() {
            for row in start..end {
                if block.diff(row) != 0 {
                    self.pick(block, row, row + 1);
                }
            }
        } else if self.may_share(block, start, end) {
            self.flush();
            self.blocks.push(Arc::clone(block));
        } else {
            self.pick(block, start, end);
        }
        end - start
    }

    /// True if the stretch is a whole block, and taking it over as it is leaves no small blocks behind.
    fn may_share(&self, block: &Block, start: usize, end: usize) -> bool {
        let limits = self.shape().limits;
        let large = |rows: usize, bytes: usize, part: usize| {
            rows >= limits.rows / part || bytes >= limits.bytes / part
        };
        start == 0
            && end == block.len()
            && large(block.len(), block.size(), 2)
            && (self.picks.rows() == 0 || large(self.picks.rows(), self.picks.bytes(), 4))
    }

    /// Adds rows `start..end` to the output, closing blocks as they fill up.
    fn pick(&mut self, block: &Arc<Block>, mut start: usize, end: usize) {
        let limits = self.shape().limits;
        while start < end {
            let rows = limits.rows.saturating_sub(self.picks.rows());
            let mut until = end.min(start + rows.max(1));
            let bytes = limits.bytes.saturating_sub(self.picks.bytes());
            if (until - start) * block.row_bytes > bytes {
                until = until.min(start + (bytes / block.row_bytes).max(1));
            }
            self.picks.add(block, start, until);
            self.flush_full();
            start = until;
        }
    }

    /// Both sides stand at the same key.
    fn combine(&mut self, a: &Arc<Block>, b: &Arc<Block>) -> usize {
        let (i, j) = (self.older.row, self.newer.row);
        step(&mut self.older, a, i + 1);
        step(&mut self.newer, b, j + 1);
        let diff = match self.shape().kind {
            Kind::Latest => b.diff(j),
            Kind::Multiset => a.diff(i) + b.diff(j),
        };
        let keep = match self.shape().kind {
            Kind::Latest => diff != 0 || !self.bottom,
            Kind::Multiset => diff != 0,
        };
        if keep {
            self.picks.add_row(b, j, diff);
            self.flush_full();
        }
        2
    }

    fn flush_full(&mut self) {
        let limits = self.shape().limits;
        if self.picks.rows() >= limits.rows || self.picks.bytes() >= limits.bytes {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.picks.rows() > 0 {
            let schema = Arc::clone(&self.shape().values);
            let block = self.picks.take_block(&schema);
            let block = block.expect("rows of one arrangement have the same types and fit a block");
            self.blocks.push(Arc::new(block));
        }
    }
}

/// Moves `place` to row `row` of its block, or to the next block if that is its end.
fn step(place: &mut Place, block: &Block, row: usize) {
    if row == block.len() {
        place.block += 1;
        place.row = 0;
    } else {
        place.row = row;
    }
}
