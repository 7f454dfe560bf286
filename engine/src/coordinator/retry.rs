//! Errors of the outside world that may pass by themselves.

use super::{RETRIES, RETRY_PAUSE};
use crate::error::error_chain;
use crate::sink::SinkError;
use crate::source::{Retry, SourceError};

/// An error that may pass by itself.
pub(super) trait MayPass: std::error::Error {
    fn retry(&self) -> Retry;
}

impl MayPass for SourceError {
    fn retry(&self) -> Retry {
        self.retry
    }
}

impl MayPass for SinkError {
    fn retry(&self) -> Retry {
        self.retry
    }
}

/// Asks again while the error says that it may pass.
pub(super) fn retried<T, E: MayPass>(
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, String> {
    let mut tries = 0;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if error.retry() == Retry::Later && tries < RETRIES => {
                tries += 1;
                tracing::warn!(
                    "{}; trying again ({tries} of {RETRIES})",
                    error_chain(&error)
                );
                std::thread::sleep(RETRY_PAUSE * tries);
            }
            Err(error) => return Err(error_chain(&error)),
        }
    }
}
