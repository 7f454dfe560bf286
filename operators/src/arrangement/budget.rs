//! The memory that all arrangements of a process share, and the cache of what they left in files.
//!
//! Blocks count themselves in and, when their last holder drops them, out. What is over the limit goes to files, the
//! largest runs first: see [`super::Arrangement`]. What memory the runs do not need serves as a cache; it is never less
//! than a quarter, or every probe would read its blocks again.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::part::StoredBlock;
use super::store::{RunStore, RunWriter};
use crate::OperatorError;

/// Runs smaller than this stay: they are young and will be merged soon.
const RUN_BYTES_MIN: usize = 1 << 20;

/// The memory limit of a process's state.
pub struct Budget {
    store: Box<dyn RunStore>,
    bytes_max: usize,
    used: AtomicUsize,
    cached: AtomicUsize,
    written: AtomicU64,
    read: AtomicU64,
    cache: Mutex<Cache>,
}

/// Blocks in the cache, in no order: who goes is drawn. State is often read from end to end, again and again, and a
/// cache that forgets the oldest would then never have what is wanted.
struct Cache {
    blocks: Vec<Weak<StoredBlock>>,
    random: u64,
}

impl Budget {
    /// A limit of `bytes_max`; what is beyond it goes to `store`.
    pub fn new(bytes_max: usize, store: impl RunStore + 'static) -> Arc<Self> {
        Arc::new(Budget {
            store: Box::new(store),
            bytes_max,
            used: AtomicUsize::new(0),
            cached: AtomicUsize::new(0),
            written: AtomicU64::new(0),
            read: AtomicU64::new(0),
            cache: Mutex::new(Cache {
                blocks: Vec::new(),
                random: 0x9e37_79b9_7f4a_7c15,
            }),
        })
    }

    /// The limit.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// About how many bytes of state are in memory, the cache among them.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// How many bytes have been written to files so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// How many bytes have been read from files so far.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    pub(crate) fn over(&self) -> bool {
        self.used() > self.bytes_max
    }

    /// True if `bytes` more would be too much.
    pub(crate) fn over_with(&self, bytes: usize) -> bool {
        self.used().saturating_add(bytes) > self.bytes_max
    }

    /// True if a run of this size is worth a file.
    pub(crate) fn worth_a_file(&self, bytes: usize) -> bool {
        bytes >= RUN_BYTES_MIN.min(self.bytes_max / 64)
    }

    /// Begins a file beside those of the runs that left memory.
    pub fn create(&self) -> Result<Box<dyn RunWriter>, OperatorError> {
        self.store.create()
    }

    pub(crate) fn count_written(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Makes the cache smaller, as long as there is too much in memory and the cache is more than its least.
    pub(crate) fn trim(&self) {
        let mut cache = self.cache();
        while self.over() && self.cached.load(Ordering::Relaxed) > self.cache_min() {
            if !cache.evict() {
                break;
            }
        }
    }

    /// Lets go of cached blocks until there is room for `bytes`; false if there cannot be.
    pub(crate) fn make_room(&self, bytes: usize) -> bool {
        let fits = || {
            !self.over_with(bytes)
                || self.cached.load(Ordering::Relaxed) + bytes <= self.cache_min()
        };
        if fits() {
            return true;
        }
        let mut cache = self.cache();
        while !fits() {
            if !cache.evict() {
                return false;
            }
        }
        true
    }

    /// Notes that a block is in the cache.
    pub(crate) fn admitted(&self, block: &Arc<StoredBlock>) {
        self.cache().blocks.push(Arc::downgrade(block));
    }

    fn cache_min(&self) -> usize {
        self.bytes_max / 4
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    /// Lets go of one block; false if there is none.
    fn evict(&mut self) -> bool {
        let mut chances = 4;
        while !self.blocks.is_empty() {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let index = (self.random % self.blocks.len() as u64) as usize;
            let Some(block) = self.blocks[index].upgrade() else {
                self.blocks.swap_remove(index);
                continue;
            };
            // A block that was wanted again since the last draw is spared.
            if chances > 0 && block.cool() {
                chances -= 1;
                continue;
            }
            self.blocks.swap_remove(index);
            block.forget();
            return true;
        }
        false
    }
}

/// Bytes counted in a budget, as long as this lives.
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
    cached: bool,
}

impl Charge {
    pub(crate) fn new(budget: &Arc<Budget>, bytes: usize, cached: bool) -> Self {
        budget.used.fetch_add(bytes, Ordering::Relaxed);
        if cached {
            budget.cached.fetch_add(bytes, Ordering::Relaxed);
        }
        Charge {
            budget: Arc::clone(budget),
            bytes,
            cached,
        }
    }

    pub(crate) fn is_cached(&self) -> bool {
        self.cached
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        if self.cached {
            self.budget.cached.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

impl std::fmt::Debug for Charge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Charge({})", self.bytes)
    }
}
