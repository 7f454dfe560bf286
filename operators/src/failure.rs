//! The first thing that went wrong in one query on one worker.
//!
//! An operator that cannot go on records the epoch and the error here, drops its rows, and lets frontiers pass.
//! The query's last operator looks here before it calls an epoch done: an epoch at or after the failure is never
//! committed, earlier ones are.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;

/// What can go wrong while rows change.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// An expression or an aggregate failed on a row.
    #[error(transparent)]
    Evaluate(#[from] DataFusionError),
    /// Arrow refused.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    /// Bytes from the network do not decode.
    #[error("could not decode rows from another worker: {0}")]
    Wire(String),
    /// A file of state is not what was written.
    #[error("file of state \"{file}\" is damaged: {why}")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file of state cannot be written.
    #[error("could not write a file of state")]
    Write(#[source] std::io::Error),
    /// Something else, in words.
    #[error("{0}")]
    Other(String),
}

impl OperatorError {
    /// The error and its causes in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(next) = cause {
            let next_text = next.to_string();
            if !text.contains(&next_text) {
                text = format!("{text}: {next_text}");
            }
            cause = next.source();
        }
        text
    }
}

/// Shared by all operators of one query on one worker.
#[derive(Clone, Default)]
pub struct Failure(Rc<RefCell<Option<(u64, OperatorError)>>>);

impl Failure {
    /// Records that `epoch` cannot be completed. The smallest epoch wins; within one, the first.
    pub fn set(&self, epoch: u64, error: impl Into<OperatorError>) {
        let mut slot = self.0.borrow_mut();
        if slot.as_ref().is_none_or(|(earlier, _)| epoch < *earlier) {
            *slot = Some((epoch, error.into()));
        }
    }

    /// True if `epoch` must not be committed, and its rows may be dropped.
    pub fn covers(&self, epoch: u64) -> bool {
        self.0
            .borrow()
            .as_ref()
            .is_some_and(|(failed, _)| *failed <= epoch)
    }

    /// The failure, in full: the error and its causes in one line.
    pub fn text(&self) -> Option<(u64, String)> {
        let slot = self.0.borrow();
        let (epoch, error) = slot.as_ref()?;
        Some((*epoch, error.chain()))
    }
}

/// Runs `work`, turning a panic into an error: a kernel that stumbles over a user's data must not take the worker down.
pub(crate) fn guard<T>(
    work: impl FnOnce() -> Result<T, OperatorError>,
) -> Result<T, OperatorError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(OperatorError::Other(format!("a kernel panicked: {text}")))
    })
}
