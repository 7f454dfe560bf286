//! A part of a run: a block in memory, or what is known of one that lies in a file.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::SchemaRef;
use bytes::Bytes;

use super::block::{Block, compare_keys, prefix};
use super::budget::{Budget, Charge};
use super::format::{self, Entry};
use super::run::Place;
use super::store::RunFile;
use crate::OperatorError;

/// About how many files the blocks of a run may lie in.
const FILES_MAX: u64 = 32;

/// One block of a run, wherever it is.
#[derive(Debug, Clone)]
pub enum Part {
    /// In memory.
    Resident(Arc<Block>),
    /// In a file.
    Stored(Arc<StoredBlock>),
}

/// A file and how much of it is still wanted.
pub(crate) struct StoredFile {
    file: Arc<dyn RunFile>,
    values: SchemaRef,
    /// True if blocks of it may become parts of other runs. Not so in a checkpoint's file: it is kept as long as its
    /// run, by the checkpoint's own rules.
    shareable: bool,
    bytes: u64,
    live: AtomicU64,
}

/// A block in a file. Its first and last keys are at hand, its rows are read when they are wanted.
pub struct StoredBlock {
    file: Arc<StoredFile>,
    entry: Entry,
    cached: Mutex<Option<Arc<Block>>>,
    wanted: AtomicBool,
}

impl StoredFile {
    /// The blocks of a file as parts of a run.
    pub(crate) fn parts(
        file: Arc<dyn RunFile>,
        entries: Vec<Entry>,
        values: &SchemaRef,
        shareable: bool,
    ) -> Vec<Part> {
        let bytes = entries.iter().map(|entry| entry.length as u64).sum();
        let file = Arc::new(StoredFile {
            file,
            values: SchemaRef::clone(values),
            shareable,
            bytes,
            live: AtomicU64::new(bytes),
        });
        let part = |entry| {
            Part::Stored(Arc::new(StoredBlock {
                file: Arc::clone(&file),
                entry,
                cached: Mutex::default(),
                wanted: AtomicBool::new(false),
            }))
        };
        entries.into_iter().map(part).collect()
    }
}

impl StoredBlock {
    pub(crate) fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The block's bytes as they are in the file, checked.
    pub(crate) fn bytes(&self) -> Result<Bytes, OperatorError> {
        format::read_bytes(self.file.file.as_ref(), &self.entry)
    }

    /// True if another run, of about `bytes`, may have the block as it is. A file of which little is wanted is better
    /// copied and removed, and so is a small one: or a large run would keep a thousand files open.
    pub(crate) fn may_share(&self, bytes: usize) -> bool {
        let file = &self.file;
        file.shareable
            && file.live.load(Ordering::Relaxed) >= file.bytes / 2
            && file.bytes >= bytes as u64 / FILES_MAX
    }

    /// The rows; they stay in the cache if `keep`.
    pub(crate) fn read(
        self: &Arc<Self>,
        budget: Option<&Arc<Budget>>,
        keep: bool,
    ) -> Result<Arc<Block>, OperatorError> {
        if let Some(block) = &*self.cached() {
            self.wanted.store(true, Ordering::Relaxed);
            return Ok(Arc::clone(block));
        }
        let mut block =
            format::read_block(self.file.file.as_ref(), &self.entry, &self.file.values)?;
        let Some(budget) = budget else {
            return Ok(Arc::new(block));
        };
        budget.count_read(self.entry.length);
        let keep = keep && budget.make_room(block.size());
        block.charge = Some(Charge::new(budget, block.size(), keep));
        let block = Arc::new(block);
        if keep {
            *self.cached() = Some(Arc::clone(&block));
            budget.admitted(self);
        }
        Ok(block)
    }

    /// True if the rows were wanted since this was last asked.
    pub(crate) fn cool(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed)
    }

    /// Leaves the cache.
    pub(crate) fn forget(&self) {
        let block = self.cached().take();
        drop(block);
    }

    fn cached(&self) -> MutexGuard<'_, Option<Arc<Block>>> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for StoredBlock {
    fn drop(&mut self) {
        let length = self.entry.length as u64;
        self.file.live.fetch_sub(length, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for StoredBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.file.file.name();
        write!(f, "StoredBlock({name}, {})", self.entry.offset)
    }
}

impl Part {
    /// How many rows there are; never none.
    pub fn rows(&self) -> usize {
        match self {
            Part::Resident(block) => block.len(),
            Part::Stored(stored) => stored.entry.rows,
        }
    }

    /// About how many bytes it takes, or would take, in memory.
    pub fn size(&self) -> usize {
        match self {
            Part::Resident(block) => block.size(),
            Part::Stored(stored) => stored.entry.size,
        }
    }

    /// About how many bytes of memory it takes for as long as the run lives.
    pub(crate) fn resident_bytes(&self) -> usize {
        match self {
            Part::Resident(block) => block.size(),
            Part::Stored(_) => 0,
        }
    }

    #[inline]
    pub(crate) fn is_resident(&self) -> bool {
        matches!(self, Part::Resident(_))
    }

    pub(crate) fn resident(&self) -> Option<Arc<Block>> {
        match self {
            Part::Resident(block) => Some(Arc::clone(block)),
            Part::Stored(_) => None,
        }
    }

    /// The schema of the value columns.
    pub(crate) fn values(&self) -> SchemaRef {
        match self {
            Part::Resident(block) => block.values.schema(),
            Part::Stored(stored) => SchemaRef::clone(&stored.file.values),
        }
    }

    /// The rows.
    pub fn block(&self, budget: Option<&Arc<Budget>>) -> Result<Arc<Block>, OperatorError> {
        match self {
            Part::Resident(block) => Ok(Arc::clone(block)),
            Part::Stored(stored) => stored.read(budget, false),
        }
    }

    /// The first key.
    pub(crate) fn first(&self) -> &[u8] {
        match self {
            Part::Resident(block) => block.key(0),
            Part::Stored(stored) => &stored.entry.first,
        }
    }

    /// True if all keys are below the one given.
    #[inline]
    fn ends_before(&self, prefix: u64, key: &[u8]) -> bool {
        match self {
            Part::Resident(block) => block.compare(block.len() - 1, prefix, key).is_lt(),
            Part::Stored(stored) => {
                let last = (stored.entry.last_prefix, &*stored.entry.last);
                compare_keys(last, (prefix, key)).is_lt()
            }
        }
    }
}

/// Reads the blocks of a run, mostly forwards; of those in files it holds one.
pub(crate) struct Reader {
    pub(crate) parts: Arc<[Part]>,
    budget: Option<Arc<Budget>>,
    /// True if blocks read from files should stay in the cache.
    keep: bool,
    current: Current,
}

/// The block in use of those in files, and its index.
pub(crate) type Current = Option<(usize, Arc<Block>)>;

impl Reader {
    pub(crate) fn new(
        parts: Arc<[Part]>,
        budget: Option<&Arc<Budget>>,
        keep: bool,
        current: Current,
    ) -> Self {
        Reader {
            parts,
            budget: budget.map(Arc::clone),
            keep,
            current,
        }
    }

    pub(crate) fn into_current(self) -> Current {
        self.current
    }

    /// Makes block `index` one that [`Reader::loaded`] has.
    #[inline]
    pub(crate) fn load(&mut self, index: usize) -> Result<&Arc<Block>, OperatorError> {
        if let Part::Stored(stored) = &self.parts[index]
            && self.current.as_ref().is_none_or(|(at, _)| *at != index)
        {
            // The one before goes first: two would be too many where blocks are large.
            self.current = None;
            self.current = Some((index, stored.read(self.budget.as_ref(), self.keep)?));
        }
        Ok(self.loaded(index))
    }

    /// Block `index`, which is in memory or was loaded last.
    #[inline]
    pub(crate) fn loaded(&self, index: usize) -> &Arc<Block> {
        match (&self.parts[index], &self.current) {
            (Part::Resident(block), _) => block,
            (Part::Stored(_), Some((_, block))) => block,
            (Part::Stored(_), None) => unreachable!("a block is loaded before it is used"),
        }
    }

    /// The first place from `from` on whose key is at least the one given.
    #[inline]
    pub(crate) fn seek(
        &mut self,
        from: Place,
        prefix: u64,
        key: &[u8],
    ) -> Result<Place, OperatorError> {
        let Place { mut block, mut row } = from;
        let count = self.parts.len();
        let before = |block: usize| self.parts[block].ends_before(prefix, key);
        if block < count && before(block) {
            // Gallop over blocks by their last keys.
            let mut step = 1;
            while block + step < count && before(block + step) {
                block += step;
                step *= 2;
            }
            let mut high = (block + step).min(count);
            block += 1;
            while block < high {
                let middle = block + (high - block) / 2;
                if before(middle) {
                    block = middle + 1;
                } else {
                    high = middle;
                }
            }
            row = 0;
        }
        if block == count {
            return Ok(Place { block, row });
        }
        if row == 0
            && let Part::Stored(stored) = &self.parts[block]
            && key <= &*stored.entry.first
        {
            return Ok(Place { block, row });
        }
        row = self.load(block)?.seek(row, prefix, key);
        Ok(Place { block, row })
    }

    /// True if what is known of the block says that `place`, found for `key`, is the place of another.
    #[inline]
    pub(crate) fn may_skip(&self, place: Place, key: &[u8], whole: bool) -> bool {
        match &self.parts[place.block] {
            Part::Stored(stored) if place.row == 0 => {
                let first = &*stored.entry.first;
                first != key && (whole || !first.starts_with(key))
            }
            _ => false,
        }
    }

    /// The first place whose key is at least `key`.
    pub(crate) fn first_at(&mut self, key: &[u8]) -> Result<Place, OperatorError> {
        self.seek(Place::default(), prefix(key), key)
    }
}
