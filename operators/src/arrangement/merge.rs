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
use super::output::Output;
use super::part::{Current, Part, Reader};
use super::run::{Kind, Place, Run, Shape, bounds};
use crate::OperatorError;

/// A merge in progress: `older` and `newer` are consumed in key order. Its output goes to a file, block by block, if
/// memory does not suffice for it.
pub struct RunMerger {
    work: Option<Work>,
    description: Description<u64>,
}

struct Work {
    shape: Rc<Shape>,
    older: Place,
    newer: Place,
    /// Blocks from files that the two sides stand in.
    held: [Current; 2],
    /// True if nothing lies beneath, so that a tombstone has nothing left to hide.
    bottom: bool,
    /// About how much goes in.
    bytes: usize,
    /// True if that is enough for a file.
    large: bool,
    picks: Picks,
    output: Output,
    /// Of the block that each side stands in, which rows have not expired.
    wanted: [Wanted; 2],
}

type Wanted = Option<(Arc<Block>, Option<Rc<Vec<bool>>>)>;

impl Merger<Run> for RunMerger {
    fn new(older: &Run, newer: &Run, since: AntichainRef<'_, u64>) -> Self {
        let since = older
            .description()
            .since()
            .join(newer.description().since())
            .join(&since.to_owned());
        let description = Description::new(older.lower().clone(), newer.upper().clone(), since);
        // Runs without a shape are empty: differential made them up.
        let shape = older.shape.as_ref().or(newer.shape.as_ref());
        RunMerger {
            work: shape.and_then(|shape| Work::new(Rc::clone(shape), older, newer)),
            description,
        }
    }

    fn work(&mut self, older: &Run, newer: &Run, fuel: &mut isize) {
        if let Some(work) = &mut self.work {
            match work.step(older, newer, fuel) {
                Ok(false) => return,
                Ok(true) => {}
                Err(error) => {
                    // Nobody can be told here; whoever uses the arrangement next is.
                    work.shape.broke(&error);
                    self.work = None;
                }
            }
        }
        // Fuel left over is how the spine learns that the merge is complete.
        *fuel = (*fuel).max(1);
    }

    fn done(self) -> Run {
        let (shape, parts) = match self.work {
            None => (None, Vec::new()),
            Some(work) => {
                let shape = Rc::clone(&work.shape);
                let parts = work.finish(&self.description).unwrap_or_else(|error| {
                    shape.broke(&error);
                    Vec::new()
                });
                (Some(shape), parts)
            }
        };
        Run::new(shape, parts, self.description)
    }
}

/// The two runs, as long as they are worked on: between steps their blocks may go to a file.
struct Sides {
    older: Reader,
    newer: Reader,
}

#[derive(Clone, Copy)]
enum Side {
    Older,
    Newer,
}

impl Work {
    /// `None` if it cannot start.
    fn new(shape: Rc<Shape>, older: &Run, newer: &Run) -> Option<Self> {
        let mut sides = Sides {
            older: older.reader(false, None),
            newer: newer.reader(false, None),
        };
        let floor = shape.floor.borrow().clone();
        let starts = sides
            .older
            .first_at(&floor)
            .and_then(|older| Ok((older, sides.newer.first_at(&floor)?)));
        let (older_at, newer_at) = match starts {
            Ok(starts) => starts,
            Err(error) => {
                shape.broke(&error);
                return None;
            }
        };
        let parts = || sides.older.parts.iter().chain(sides.newer.parts.iter());
        let bytes = parts().map(Part::size).sum();
        let budget = shape.budget.as_ref();
        let large = budget.is_some_and(|budget| budget.worth_a_file(bytes));
        let spills = large && budget.is_some_and(|budget| budget.over_with(bytes));
        Some(Work {
            output: Output::new(&shape, spills),
            older: older_at,
            newer: newer_at,
            held: [sides.older.into_current(), sides.newer.into_current()],
            bottom: *older.lower() == Antichain::from_elem(0),
            bytes,
            large,
            picks: Picks::default(),
            wanted: [None, None],
            shape,
        })
    }

    /// Works until `fuel` is used up; true if nothing is left to do.
    fn step(&mut self, older: &Run, newer: &Run, fuel: &mut isize) -> Result<bool, OperatorError> {
        let [held_older, held_newer] = std::mem::take(&mut self.held);
        let mut sides = Sides {
            older: older.reader(false, held_older),
            newer: newer.reader(false, held_newer),
        };
        // Fuel counts rows consumed, not rows produced: a merge in which everything cancels is bounded too.
        while *fuel > 0 {
            let over = (
                self.older.block == sides.older.parts.len(),
                self.newer.block == sides.newer.parts.len(),
            );
            if over == (true, true) {
                self.wanted = [None, None];
                return Ok(true);
            }
            let consumed = match self.share_stored(&sides)? {
                Some(rows) => rows,
                None => self.merge_rows(&mut sides, over, *fuel as usize)?,
            };
            *fuel -= consumed as isize;
        }
        let done = self.older.block == sides.older.parts.len()
            && self.newer.block == sides.newer.parts.len();
        self.held = [sides.older.into_current(), sides.newer.into_current()];
        self.wanted = [None, None];
        Ok(done)
    }

    /// Consumes about `fuel` rows of the blocks that the sides stand in, or fewer; returns how many.
    fn merge_rows(
        &mut self,
        sides: &mut Sides,
        over: (bool, bool),
        fuel: usize,
    ) -> Result<usize, OperatorError> {
        if over.1 {
            let a = sides.older.load(self.older.block)?;
            return self.copy(Side::Older, a, a.len());
        }
        if over.0 {
            let b = sides.newer.load(self.newer.block)?;
            return self.copy(Side::Newer, b, b.len());
        }
        let blocks = (self.older.block, self.newer.block);
        sides.older.load(blocks.0)?;
        let b = sides.newer.load(blocks.1)?;
        let a = sides.older.loaded(blocks.0);
        // As long as both sides stay where they are: random keys take turns row by row.
        let mut consumed = 0;
        while consumed < fuel && (self.older.block, self.newer.block) == blocks {
            let (i, j) = (self.older.row, self.newer.row);
            consumed += match a.compare(i, b.prefixes[j], b.key(j)) {
                // Only one run has keys in this stretch: gallop to its end.
                Ordering::Less => {
                    let end = a.seek(i, b.prefixes[j], b.key(j));
                    self.copy(Side::Older, a, end)?
                }
                Ordering::Greater => {
                    let end = b.seek(j, a.prefixes[i], a.key(i));
                    self.copy(Side::Newer, b, end)?
                }
                Ordering::Equal => self.combine(a, b)?,
            };
        }
        Ok(consumed)
    }

    /// Takes over a whole block that lies in a file, without reading it, if its keys are all below those of the other
    /// side; returns how many rows that is.
    fn share_stored(&mut self, sides: &Sides) -> Result<Option<usize>, OperatorError> {
        for side in [Side::Older, Side::Newer] {
            let (reader, place, other, other_place) = match side {
                Side::Older => (&sides.older, self.older, &sides.newer, self.newer),
                Side::Newer => (&sides.newer, self.newer, &sides.older, self.older),
            };
            let Some(part @ Part::Stored(stored)) = reader.parts.get(place.block) else {
                continue;
            };
            let entry = stored.entry();
            let below = match other.parts.get(other_place.block) {
                None => true,
                // The key the other side stands at is at least its block's first.
                Some(rival) => &*entry.last < rival.first(),
            };
            let drops = self.bottom && self.shape.kind == Kind::Latest && entry.signed;
            if place.row == 0
                && below
                && !drops
                && stored.may_share(self.bytes)
                && self.large_enough(entry.rows, entry.size)
            {
                self.flush()?;
                self.output.push_part(part)?;
                let place = match side {
                    Side::Older => &mut self.older,
                    Side::Newer => &mut self.newer,
                };
                place.block += 1;
                return Ok(Some(entry.rows));
            }
        }
        Ok(None)
    }

    /// Moves one side up to row `end` of the block it stands in, rows and all; returns how many rows that is.
    fn copy(&mut self, side: Side, block: &Arc<Block>, end: usize) -> Result<usize, OperatorError> {
        let place = match side {
            Side::Older => &mut self.older,
            Side::Newer => &mut self.newer,
        };
        let start = place.row;
        step(place, block, end);
        if self.shape.expires.is_some()
            && let Some(wanted) = self.wanted(side, block)
        {
            let mut row = start;
            while row < end {
                let stretch = wanted[row..end].iter().take_while(|w| **w).count();
                self.pick(block, row, row + stretch)?;
                row += stretch + 1;
            }
        } else if self.bottom && self.shape.kind == Kind::Latest && block.diffs.is_some() {
            for row in start..end {
                if block.diff(row) != 0 {
                    self.pick(block, row, row + 1)?;
                }
            }
        } else if start == 0
            && end == block.len()
            && !self.output.spills()
            && !block.is_cached()
            && self.large_enough(block.len(), block.size())
        {
            self.flush()?;
            self.output.push_part(&Part::Resident(Arc::clone(block)))?;
        } else {
            self.pick(block, start, end)?;
        }
        Ok(end - start)
    }

    /// Which rows of the block that a side stands in have not expired; `None` if none have. The same all through a
    /// block, so that it is found out once.
    fn wanted(&mut self, side: Side, block: &Arc<Block>) -> Option<Rc<Vec<bool>>> {
        let known = &mut self.wanted[side as usize];
        if !known.as_ref().is_some_and(|(of, _)| Arc::ptr_eq(of, block)) {
            let wanted = self.shape.wanted(block).map(Rc::new);
            *known = Some((Arc::clone(block), wanted));
        }
        known.as_ref().and_then(|(_, wanted)| wanted.clone())
    }

    /// True if taking over a whole block of this size as it is leaves no small blocks behind.
    fn large_enough(&self, rows: usize, bytes: usize) -> bool {
        let limits = self.output.limits();
        let large = |rows: usize, bytes: usize, part: usize| {
            rows >= limits.rows / part || bytes >= limits.bytes / part
        };
        large(rows, bytes, 2)
            && (self.picks.rows() == 0 || large(self.picks.rows(), self.picks.bytes(), 4))
    }

    /// Adds rows `start..end` to the output, closing blocks as they fill up.
    fn pick(
        &mut self,
        block: &Arc<Block>,
        mut start: usize,
        end: usize,
    ) -> Result<(), OperatorError> {
        while start < end {
            let limits = self.output.limits();
            let rows = limits.rows.saturating_sub(self.picks.rows());
            let mut until = end.min(start + rows.max(1));
            let bytes = limits.bytes.saturating_sub(self.picks.bytes());
            if (until - start) * block.row_bytes > bytes {
                until = until.min(start + (bytes / block.row_bytes).max(1));
            }
            self.picks.add(block, start, until);
            self.flush_full()?;
            start = until;
        }
        Ok(())
    }

    /// Both sides stand at the same key.
    fn combine(&mut self, a: &Arc<Block>, b: &Arc<Block>) -> Result<usize, OperatorError> {
        let (i, j) = (self.older.row, self.newer.row);
        step(&mut self.older, a, i + 1);
        step(&mut self.newer, b, j + 1);
        let diff = match self.shape.kind {
            Kind::Latest => b.diff(j),
            Kind::Multiset => a.diff(i) + b.diff(j),
        };
        let keep = match self.shape.kind {
            Kind::Latest => diff != 0 || !self.bottom,
            Kind::Multiset => diff != 0,
        };
        let expires = self.shape.expires.is_some();
        let gone = expires && self.wanted(Side::Newer, b).is_some_and(|wanted| !wanted[j]);
        if keep && !gone {
            self.picks.add_row(b, j, diff);
            self.flush_full()?;
        }
        Ok(2)
    }

    fn flush_full(&mut self) -> Result<(), OperatorError> {
        let limits = self.output.limits();
        if self.picks.rows() >= limits.rows || self.picks.bytes() >= limits.bytes {
            return self.flush();
        }
        if self.shape.budget.is_some() {
            self.picks.compact(&self.shape.values)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), OperatorError> {
        if self.picks.rows() == 0 {
            return Ok(());
        }
        if let Some(budget) = &self.shape.budget
            && self.large
            && budget.over()
        {
            self.output.spill();
        }
        let block = self.picks.take_block(&self.shape.values)?;
        self.output.push(block)
    }

    fn finish(mut self, description: &Description<u64>) -> Result<Vec<Part>, OperatorError> {
        self.flush()?;
        let (lower, upper) = bounds(description);
        self.output.finish(lower, upper)
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
