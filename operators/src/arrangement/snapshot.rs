//! Snapshots: the runs of an arrangement at the end of an epoch, and their files.
//!
//! Taking one copies nothing but pointers; the blocks are immutable and may be written out by another thread. A run is
//! identified by the worker and its epochs, so a checkpoint writes only the runs that the one before did not have.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::format::{self, Layout};
use super::part::{Part, StoredFile};
use super::run::{Kind, Run};
use super::store::RunFile;
use crate::OperatorError;

/// One worker's part of an arrangement after an epoch.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Whose part it is.
    pub worker: usize,
    /// How many workers there were.
    pub peers: usize,
    /// What the rows mean.
    pub kind: Kind,
    /// The epoch after the last one that is in.
    pub upper: u64,
    /// Keys below it are forgotten.
    pub floor: Vec<u8>,
    /// How many keys there are, where that is known.
    pub live: Option<u64>,
    /// The runs that hold rows, oldest first.
    pub runs: Vec<SnapshotRun>,
}

/// One run of a snapshot. For one worker of one query, runs of the same epochs hold the same rows.
#[derive(Debug, Clone)]
pub struct SnapshotRun {
    /// Its first epoch.
    pub lower: u64,
    /// The epoch after its last.
    pub upper: u64,
    pub(crate) parts: Arc<[Part]>,
    checksum: Option<u64>,
}

/// Where an operator leaves the snapshots that it was asked for.
#[derive(Clone, Default)]
pub struct Snapshots(Rc<RefCell<Wanted>>);

#[derive(Default)]
struct Wanted {
    every: Option<u64>,
    epochs: std::collections::BTreeSet<u64>,
    taken: BTreeMap<u64, Snapshot>,
}

impl Snapshots {
    /// Asks for a snapshot after `epoch`, which must not have run yet.
    pub fn request(&self, epoch: u64) {
        self.0.borrow_mut().epochs.insert(epoch);
    }

    /// Asks for a snapshot after every epoch that `n` divides.
    pub fn request_every(&self, n: u64) {
        self.0.borrow_mut().every = Some(n.max(1));
    }

    /// The snapshot taken after `epoch`, if there is one; it is handed out once.
    pub fn take(&self, epoch: u64) -> Option<Snapshot> {
        self.0.borrow_mut().taken.remove(&epoch)
    }

    /// Takes the snapshot of `epoch` if somebody asked for it.
    pub(crate) fn offer(&self, epoch: u64, snapshot: impl FnOnce() -> Snapshot) {
        let mut wanted = self.0.borrow_mut();
        let periodic = wanted.every.is_some_and(|n| epoch.is_multiple_of(n));
        if wanted.epochs.remove(&epoch) || periodic {
            wanted.taken.insert(epoch, snapshot());
        }
    }
}

/// What was written of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// How long the file is.
    pub bytes: u64,
    /// Stands for all of it.
    pub checksum: u64,
}

impl SnapshotRun {
    pub(crate) fn of(run: &Run) -> Self {
        let (lower, upper) = run.bounds();
        SnapshotRun {
            lower,
            upper,
            parts: run.parts(),
            checksum: None,
        }
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(Part::rows).sum()
    }

    /// About how many bytes they take in memory, or would.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(Part::size).sum()
    }

    /// The checksum that stands for the file that the run was opened from.
    pub fn checksum(&self) -> Option<u64> {
        self.checksum
    }

    /// The value columns.
    pub fn values(&self) -> Option<SchemaRef> {
        self.parts.first().map(Part::values)
    }

    /// Writes the run as a file, block by block. Blocks that are in files are copied as they are.
    pub fn write_to(&self, out: &mut dyn std::io::Write) -> Result<Written, OperatorError> {
        let (mut layout, header) = Layout::begin();
        let mut length = 0;
        let mut write = |bytes: &[u8]| {
            length += bytes.len() as u64;
            out.write_all(bytes).map_err(OperatorError::Write)
        };
        write(header)?;
        for part in self.parts.iter() {
            match part {
                Part::Resident(block) => write(&layout.block(block)?)?,
                Part::Stored(stored) => {
                    write(&stored.bytes()?)?;
                    layout.add(stored.entry().clone());
                }
            }
        }
        let columns = self.values().map_or(0, |values| values.fields().len());
        let (footer, checksum) = layout.finish(self.lower, self.upper, columns);
        write(&footer)?;
        Ok(Written {
            bytes: length,
            checksum,
        })
    }

    /// The run of these epochs in `file`, of which only the end is read: blocks are read when they are wanted. `values`
    /// are the value columns of the arrangement.
    pub fn open(
        lower: u64,
        upper: u64,
        file: Arc<dyn RunFile>,
        values: &SchemaRef,
    ) -> Result<Self, OperatorError> {
        let footer = format::open(file.as_ref(), values.fields().len())?;
        if (footer.lower, footer.upper) != (lower, upper) {
            let why = format!(
                "it holds the epochs from {} to {} instead of {lower} to {upper}",
                footer.lower, footer.upper
            );
            return Err(format::damaged(file.as_ref(), &why));
        }
        Ok(SnapshotRun {
            lower,
            upper,
            parts: StoredFile::parts(file, footer.entries, values, false).into(),
            checksum: Some(footer.checksum),
        })
    }
}
