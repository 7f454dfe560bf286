//! Where runs lie that are not in memory. The engine implements these traits; operators do no I/O themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::format::damaged;
use crate::OperatorError;

/// A finished file that holds a run. What happens to the file when the last handle is dropped is its owner's affair:
/// a spilled run's file goes, a checkpoint's stays.
pub trait RunFile: Send + Sync {
    /// What errors call it.
    fn name(&self) -> &str;

    /// How many bytes it has.
    fn len(&self) -> u64;

    /// True if it has none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `length` bytes from `offset` on. Fewer than that are an error.
    fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, OperatorError>;
}

/// A file in the making. Dropped before it is finished, it leaves nothing behind.
pub trait RunWriter {
    /// Adds bytes at the end.
    fn write(&mut self, bytes: &[u8]) -> Result<(), OperatorError>;

    /// No more bytes follow.
    fn finish(self: Box<Self>) -> Result<Arc<dyn RunFile>, OperatorError>;
}

/// Makes files for runs that leave memory. They need not outlive the process.
pub trait RunStore: Send + Sync {
    /// Begins a file.
    fn create(&self) -> Result<Box<dyn RunWriter>, OperatorError>;
}

/// A file that is in memory.
pub struct RunBytes {
    name: String,
    bytes: Bytes,
}

impl RunBytes {
    /// `bytes`, which errors call `name`.
    pub fn new(name: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        RunBytes {
            name: name.into(),
            bytes: bytes.into(),
        }
    }
}

impl RunFile for RunBytes {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, OperatorError> {
        let end = usize::try_from(offset)
            .ok()
            .and_then(|start| Some(start..start.checked_add(length)?))
            .filter(|range| range.end <= self.bytes.len());
        match end {
            Some(range) => Ok(self.bytes.slice(range)),
            None => Err(damaged(self, "it ends early")),
        }
    }
}

/// A store whose files are in memory. It saves none, so it is for tests, which can see whether files are let go.
#[derive(Clone, Default)]
pub struct HeapStore {
    files: Arc<AtomicUsize>,
}

impl HeapStore {
    /// How many files there are.
    pub fn files(&self) -> usize {
        self.files.load(Ordering::Relaxed)
    }
}

impl RunStore for HeapStore {
    fn create(&self) -> Result<Box<dyn RunWriter>, OperatorError> {
        self.files.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(HeapWriter(Vec::new(), HeapFile(self.clone()))))
    }
}

/// Counts a file, finished or not.
struct HeapFile(HeapStore);

impl Drop for HeapFile {
    fn drop(&mut self) {
        self.0.files.fetch_sub(1, Ordering::Relaxed);
    }
}

struct HeapWriter(Vec<u8>, HeapFile);

impl RunWriter for HeapWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), OperatorError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Arc<dyn RunFile>, OperatorError> {
        Ok(Arc::new(HeapRun(
            RunBytes::new("in memory", self.0),
            self.1,
        )))
    }
}

struct HeapRun(
    RunBytes,
    #[expect(dead_code, reason = "dropped with the file")] HeapFile,
);

impl RunFile for HeapRun {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, OperatorError> {
        self.0.read_at(offset, length)
    }
}
