//! Where runs lie that are not in memory. The engine implements these traits; operators do no I/O themselves.

use std::sync::Arc;

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
