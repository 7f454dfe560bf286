//! Snapshots: the runs of an arrangement at the end of an epoch, and their bytes.
//!
//! Taking one copies nothing but pointers; the blocks are immutable and may be written out by another thread. A run is
//! identified by the worker and its epochs, so a checkpoint writes only the runs that the one before did not have.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use differential_dataflow::trace::BatchReader;

use super::block::{Block, prefix};
use super::run::{Kind, Run};
use crate::{OperatorError, failure, keys, memory, wire};

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
    /// Its rows.
    pub blocks: Arc<[Arc<Block>]>,
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

/// First bytes of a written run: a name and the version of the format.
const MAGIC: [u8; 8] = *b"hw-run\x00\x01";

impl SnapshotRun {
    pub(crate) fn of(run: &Run) -> Self {
        let bound = |bound: &[u64]| bound.first().copied().unwrap_or(u64::MAX);
        SnapshotRun {
            lower: bound(run.lower().elements()),
            upper: bound(run.upper().elements()),
            blocks: Arc::clone(run.blocks()),
        }
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.blocks.iter().map(|block| block.len()).sum()
    }

    /// The run as bytes: a header, the blocks, a checksum.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let mut word = |word: u64| bytes.extend_from_slice(&word.to_le_bytes());
        word(self.lower);
        word(self.upper);
        word(self.blocks.len() as u64);
        for block in self.blocks.iter() {
            write_block(block, &mut bytes);
        }
        let sum = keys::hash_bytes(0, &bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads what [`SnapshotRun::to_bytes`] wrote. `values` are the value columns of the arrangement.
    pub fn from_bytes(bytes: &[u8], values: &SchemaRef) -> Result<Self, OperatorError> {
        let Some((content, sum)) = bytes.split_last_chunk::<8>() else {
            return Err(damaged("it is too short"));
        };
        if keys::hash_bytes(0, content) != u64::from_le_bytes(*sum) {
            return Err(damaged("its checksum is wrong"));
        }
        let mut reader = Reader(content);
        if reader.bytes(MAGIC.len())? != MAGIC {
            return Err(damaged("it is of another format"));
        }
        let (lower, upper) = (reader.word()?, reader.word()?);
        if lower >= upper {
            return Err(damaged("its epochs are out of order"));
        }
        let count = reader.word()?;
        let mut blocks = Vec::new();
        for _ in 0..count {
            blocks.push(Arc::new(read_block(&mut reader, values)?));
        }
        Ok(SnapshotRun {
            lower,
            upper,
            blocks: blocks.into(),
        })
    }
}

fn damaged(why: &str) -> OperatorError {
    OperatorError::Other(format!("a stored run is damaged: {why}"))
}

fn write_block(block: &Block, bytes: &mut Vec<u8>) {
    let word = |bytes: &mut Vec<u8>, word: usize| {
        bytes.extend_from_slice(&(word as u64).to_le_bytes());
    };
    let values = wire::encode(&block.values);
    word(bytes, block.len());
    word(bytes, block.bytes.len());
    word(bytes, usize::from(block.diffs.is_some()));
    word(bytes, values.iter().map(|part| part.len()).sum());
    for offset in &block.offsets {
        bytes.extend_from_slice(&offset.to_le_bytes());
    }
    bytes.extend_from_slice(&block.bytes);
    for diff in block.diffs.iter().flatten() {
        bytes.extend_from_slice(&diff.to_le_bytes());
    }
    for part in values {
        bytes.extend_from_slice(&part);
    }
}

fn read_block(reader: &mut Reader<'_>, schema: &SchemaRef) -> Result<Block, OperatorError> {
    let (rows, key_bytes) = (reader.length()?, reader.length()?);
    let (signed, value_bytes) = (reader.word()? != 0, reader.length()?);
    let words = |bytes: &[u8]| -> Vec<u32> {
        let words = bytes.as_chunks::<4>().0.iter();
        words.map(|word| u32::from_le_bytes(*word)).collect()
    };
    let offsets = words(reader.bytes(rows.saturating_add(1).saturating_mul(4))?);
    let ascending = offsets.is_sorted();
    if rows == 0 || offsets[0] != 0 || offsets[rows] as usize != key_bytes || !ascending {
        return Err(damaged("its keys do not add up"));
    }
    let bytes = reader.bytes(key_bytes)?.to_vec();
    let diffs = if signed {
        let words = reader.bytes(rows.saturating_mul(8))?.as_chunks::<8>().0;
        Some(words.iter().map(|word| i64::from_le_bytes(*word)).collect())
    } else {
        None
    };
    // A copy in a buffer of its own, aligned as arrow wants it.
    let message = Buffer::from(reader.bytes(value_bytes)?);
    let values = wire::decode_buffer(message, rows as u64, schema)?;
    // The columns share the message; on their own, each block's columns can be freed apart.
    let values = failure::guard(|| Ok(memory::own(&values)))?;
    let key = |row: usize| &bytes[offsets[row] as usize..offsets[row + 1] as usize];
    if (1..rows).any(|row| key(row - 1) >= key(row)) {
        return Err(damaged("its keys are out of order"));
    }
    Ok(Block {
        prefixes: (0..rows).map(|row| prefix(key(row))).collect(),
        row_bytes: 12 + (bytes.len() + memory::size_of(&values)) / rows,
        offsets,
        bytes,
        values,
        diffs,
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], OperatorError> {
        let (head, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| damaged("it ends early"))?;
        self.0 = rest;
        Ok(head)
    }

    fn word(&mut self) -> Result<u64, OperatorError> {
        let bytes = self.bytes(8)?.first_chunk::<8>();
        bytes
            .map(|word| u64::from_le_bytes(*word))
            .ok_or_else(|| damaged("it ends early"))
    }

    fn length(&mut self) -> Result<usize, OperatorError> {
        let length = usize::try_from(self.word()?).unwrap_or(usize::MAX);
        if length > self.0.len() {
            return Err(damaged("it ends early"));
        }
        Ok(length)
    }
}
