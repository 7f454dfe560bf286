//! Indexed state: differential's spine over our own immutable runs.
//!
//! A run is the sorted rows of a stretch of epochs without a time per row, because epoch operators consume epochs in
//! order and never ask for a moment within the stretch. The spine decides which runs to merge and when; runs decide
//! how. An epoch's changes arrive as one ready-made run, sorted once, so differential's batchers, builders and cursors
//! stay off the path. Snapshots are lists of shared runs, and a second dataflow imports the spine like any other trace.
//!
//! Within a [`Budget`] runs need not be in memory: merges write what does not fit to files, and the largest runs follow
//! when that is not enough. Readers take a block at a time and cannot tell the difference, but for the wait.

mod block;
mod budget;
mod format;
mod gather;
mod merge;
mod output;
mod part;
mod read;
mod run;
mod snapshot;
mod store;

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::record_batch::RecordBatch;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent, TraceWriter};
use differential_dataflow::trace::implementations::spine_fueled::Spine;
use differential_dataflow::trace::{BatchReader, Description, Trace, TraceReader};
use timely::dataflow::Scope;
use timely::dataflow::operators::generic::OperatorInfo;
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

pub(crate) use block::prefix;
pub use block::{Block, Limits};
pub use budget::Budget;
pub(crate) use budget::Charge;
pub use part::{Part, StoredBlock};
pub use read::{Chunk, Found, Scan, probe};
pub use run::{Kind, Run, Shape};
pub use snapshot::{Snapshot, SnapshotRun, Snapshots, Written};
pub use store::{HeapStore, RunBytes, RunFile, RunStore, RunWriter};

use output::Output;

use crate::OperatorError;
use crate::keys::{self, Codec, Encoded};

/// The spine under every arrangement.
pub type RunSpine = Spine<Rc<Run>>;

/// An arrangement as its operator sees it: the only writer, and the reader that lets old epochs go.
pub struct Arrangement {
    shape: Rc<Shape>,
    shared: Shared,
    writer: TraceWriter<RunSpine>,
    /// The epoch after the last one that is in.
    upper: u64,
}

/// An arrangement as others see it: something to import. It holds nothing back.
#[derive(Clone)]
pub struct Shared(Rc<RefCell<TraceAgent<RunSpine>>>, Rc<Shape>);

impl Shared {
    /// The arrangement in another dataflow of the same worker. The importer must advance the compaction of the trace it
    /// gets, or the arrangement keeps all epochs apart from then on.
    pub fn import<'s>(
        &self,
        scope: Scope<'s, u64>,
        name: &str,
    ) -> Arranged<'s, TraceAgent<RunSpine>> {
        self.0.borrow_mut().import_named(scope, name)
    }

    /// What its rows mean.
    pub fn shape(&self) -> &Rc<Shape> {
        &self.1
    }

    /// What a checkpoint needs of it while no epoch runs; `upper` is the next one.
    pub fn snapshot(&self, worker: usize, peers: usize, upper: u64) -> Snapshot {
        let runs = self.runs();
        Snapshot {
            worker,
            peers,
            kind: self.1.kind,
            upper,
            floor: self.1.floor.borrow().clone(),
            live: self.1.live.get(),
            runs: runs.iter().map(|run| SnapshotRun::of(run)).collect(),
        }
    }

    fn runs(&self) -> Vec<Rc<Run>> {
        let mut runs = Vec::new();
        self.0.borrow().map_batches(|run| {
            if !run.is_empty() {
                runs.push(Rc::clone(run));
            }
        });
        runs
    }
}

/// The changes of one epoch, in any order.
pub struct Changes<'a> {
    /// One key per row; distinct under [`Kind::Latest`].
    pub keys: &'a Encoded,
    /// The rows in ascending order of their keys.
    pub order: &'a [u32],
    /// The value columns, row by row in the order of `keys`.
    pub values: &'a RecordBatch,
    /// Multiplicities in ascending order of the keys; none means +1.
    pub diffs: Option<&'a [i64]>,
}

impl Arrangement {
    /// An empty arrangement that belongs to the operator described by `info`.
    pub fn new(shape: Shape, info: OperatorInfo) -> Self {
        let spine = RunSpine::new(info.clone(), None, None);
        let (reader, writer) = TraceAgent::new(spine, info, None);
        let shape = Rc::new(shape);
        Arrangement {
            shared: Shared(Rc::new(RefCell::new(reader)), Rc::clone(&shape)),
            shape,
            writer,
            upper: 0,
        }
    }

    /// What its rows mean.
    pub fn shape(&self) -> &Rc<Shape> {
        &self.shape
    }

    /// The arrangement for others.
    pub fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// The epoch after the last one that is in.
    pub fn upper(&self) -> u64 {
        self.upper
    }

    /// About how many bytes of memory its runs take, rows that a merge has yet to drop included.
    pub fn bytes(&self) -> u64 {
        let mut bytes = 0;
        self.shared
            .0
            .borrow()
            .map_batches(|run| bytes += run.resident_bytes() as u64);
        bytes
    }

    /// About how many bytes its rows take, or would take in memory.
    pub(crate) fn size(&self) -> usize {
        let mut bytes = 0;
        self.shared.0.borrow().map_batches(|run| {
            bytes += run.parts().iter().map(Part::size).sum::<usize>();
        });
        bytes
    }

    /// How many keys there are. Reads them all the first time, unless a snapshot knew; then whoever changes the
    /// arrangement counts along with [`Arrangement::set_live`].
    pub fn live(&self) -> Result<u64, OperatorError> {
        if let Some(known) = self.shape.live.get() {
            return Ok(known);
        }
        let rows = self.scan(&[], None)?.count()?;
        self.shape.live.set(Some(rows));
        Ok(rows)
    }

    /// Says how many keys there are now.
    pub fn set_live(&self, keys: u64) {
        self.shape.live.set(Some(keys));
    }

    /// All runs that hold rows, oldest first.
    pub fn runs(&self) -> Vec<Rc<Run>> {
        self.shared.runs()
    }

    /// Looks up ascending keys: see [`probe`].
    pub fn probe<'a>(
        &self,
        keys: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
    ) -> Result<Found, OperatorError> {
        probe(&self.shape, &self.runs(), keys)
    }

    /// Reads a range of keys: see [`Scan::new`].
    pub fn scan(&self, from: &[u8], until: Option<&[u8]>) -> Result<Scan, OperatorError> {
        Scan::new(&self.shape, self.runs(), from, until)
    }

    /// Adds the changes of `epoch`, and of those before it that brought none.
    pub fn insert(&mut self, epoch: u64, changes: &Changes<'_>) -> Result<(), OperatorError> {
        let picks = UInt32Array::from(changes.order.to_vec());
        let parts = run::cut(
            &self.shape,
            changes.keys,
            changes.order,
            changes.values,
            &picks,
            changes.diffs,
        )?;
        self.insert_parts(epoch, parts)
    }

    fn insert_parts(&mut self, epoch: u64, parts: Vec<Part>) -> Result<(), OperatorError> {
        let description = self.description(epoch + 1);
        let run = Rc::new(Run::new(Some(Rc::clone(&self.shape)), parts, description));
        self.insert_run(epoch, run)
    }

    fn insert_run(&mut self, epoch: u64, run: Rc<Run>) -> Result<(), OperatorError> {
        self.upper = epoch + 1;
        if run.is_empty() {
            self.writer.seal(Antichain::from_elem(self.upper));
        } else {
            self.writer.insert(run, Some(epoch));
        }
        // Nobody will ask for a moment before the next epoch, so whatever came before may be merged.
        let upper = [self.upper];
        let mut reader = self.shared.0.borrow_mut();
        reader.set_logical_compaction(AntichainRef::new(&upper));
        reader.set_physical_compaction(AntichainRef::new(&upper));
        drop(reader);
        self.shape.check()?;
        self.make_room()
    }

    /// While the process is over its budget: moves runs to files, the largest first. Young ones are small and stay.
    fn make_room(&self) -> Result<(), OperatorError> {
        let Some(budget) = self.shape.budget.as_ref().filter(|budget| budget.over()) else {
            return Ok(());
        };
        budget.trim();
        let mut runs = self.runs();
        // Stable: of runs of one size the oldest goes first.
        runs.sort_by_key(|run| std::cmp::Reverse(run.resident_bytes()));
        for run in runs {
            if !budget.over() || !budget.worth_a_file(run.resident_bytes().max(1)) {
                break;
            }
            run.move_out()?;
        }
        Ok(())
    }

    fn description(&self, upper: u64) -> Description<u64> {
        let bound = Antichain::from_elem;
        Description::new(bound(self.upper), bound(upper), bound(0))
    }

    /// Says that `epoch` brought no changes.
    pub fn advance(&mut self, epoch: u64) -> Result<(), OperatorError> {
        self.insert_parts(epoch, Vec::new())
    }

    /// Forgets the keys below `floor`, at once for readers, in time for memory.
    pub fn forget_below(&mut self, floor: &[u8]) {
        let mut current = self.shape.floor.borrow_mut();
        if current.as_slice() < floor {
            *current = floor.to_vec();
        }
    }

    /// What a checkpoint needs of it: its runs, shared.
    pub fn snapshot(&self, worker: usize, peers: usize) -> Snapshot {
        self.shared.snapshot(worker, peers, self.upper)
    }

    /// Fills an empty arrangement from `snapshots`: this worker's own if the number of workers has not changed, else
    /// those of all, of which it keeps the keys whose owner it is.
    pub fn restore(
        &mut self,
        snapshots: &[Snapshot],
        ownership: &Ownership<'_>,
    ) -> Result<(), OperatorError> {
        assert!(self.upper == 0, "only an empty arrangement can be restored");
        let fits = |snapshot: &Snapshot| {
            let mut parts = snapshot.runs.iter().flat_map(|run| run.parts.iter());
            snapshot.kind == self.shape.kind && parts.all(|part| part.values() == self.shape.values)
        };
        if !snapshots.iter().all(fits) {
            let text = "a snapshot to restore from holds the state of another operator";
            return Err(OperatorError::Other(text.into()));
        }
        let (worker, peers) = (ownership.worker, ownership.peers);
        let same = |snapshot: &&Snapshot| snapshot.worker == worker && snapshot.peers == peers;
        match snapshots.iter().find(same) {
            Some(own) => self.restore_own(own),
            None => self.restore_part(snapshots, ownership),
        }
    }

    fn restore_own(&mut self, own: &Snapshot) -> Result<(), OperatorError> {
        self.forget_below(&own.floor);
        self.shape.live.set(own.live);
        for run in &own.runs {
            let mut parts = run.parts.to_vec();
            if self.shape.budget.is_none() {
                // Without a budget there is no cache either: everything is read now, once.
                for part in &mut parts {
                    *part = Part::Resident(part.block(None)?);
                }
            }
            // Where empty runs were left out of the snapshot, the next one covers their epochs too.
            let description = self.description(run.upper);
            let restored = Run::new(Some(Rc::clone(&self.shape)), parts, description);
            self.insert_run(run.upper - 1, Rc::new(restored))?;
        }
        if self.upper < own.upper {
            self.advance(own.upper - 1)?;
        }
        Ok(())
    }

    fn restore_part(
        &mut self,
        snapshots: &[Snapshot],
        ownership: &Ownership<'_>,
    ) -> Result<(), OperatorError> {
        let upper = snapshots.iter().map(|s| s.upper).max().unwrap_or(0);
        if snapshots.iter().any(|snapshot| snapshot.upper != upper) {
            let text = "snapshots to restore from are of different epochs";
            return Err(OperatorError::Other(text.into()));
        }
        let budget = self.shape.budget.clone();
        // Workers own disjoint keys, so their runs may be put together in any order that keeps each worker's own.
        let mut runs = Vec::new();
        for snapshot in snapshots {
            self.forget_below(&snapshot.floor);
            for run in &snapshot.runs {
                let mut output = Output::new(&self.shape, false);
                for part in run.parts.iter() {
                    let block = part.block(budget.as_ref())?;
                    if let Some(kept) = gather::keep(&block, &ownership.of(&block)?)? {
                        output.push(kept)?;
                        output.spill_if_full();
                    }
                }
                let parts = output.finish(run.lower, run.upper)?;
                let description = self.description(self.upper + 1);
                let shape = Some(Rc::clone(&self.shape));
                runs.push(Rc::new(Run::new(shape, parts, description)));
            }
        }
        if upper == 0 {
            return Ok(());
        }
        let mut scan = Scan::new(&self.shape, runs, &[], None)?;
        let mut output = Output::new(&self.shape, false);
        let mut live = 0;
        while let Some(chunk) = scan.next_chunk(output.limits().rows)? {
            live += chunk.len() as u64;
            output.push(chunk.into_block())?;
            output.spill_if_full();
        }
        self.set_live(live);
        let parts = output.finish(0, upper)?;
        self.insert_parts(upper - 1, parts)
    }
}

/// Which keys belong to a worker.
pub struct Ownership<'a> {
    /// Decodes the keys.
    pub codec: &'a Codec,
    /// The columns of a key that its owner is a function of.
    pub columns: Range<usize>,
    /// The worker.
    pub worker: usize,
    /// How many workers there are.
    pub peers: usize,
}

impl Ownership<'_> {
    /// For each row of a block whether the worker owns it.
    fn of(&self, block: &Block) -> Result<Vec<bool>, OperatorError> {
        let keys = (0..block.len()).map(|row| block.key(row));
        let columns: Vec<ArrayRef> = self.codec.decode(keys)?;
        let hashes = keys::hash(&columns[self.columns.clone()], block.len())?;
        let owned = |hash: u64| keys::owner(hash, self.peers) == self.worker;
        Ok(hashes.into_iter().map(owned).collect())
    }
}

#[cfg(test)]
mod tests;
