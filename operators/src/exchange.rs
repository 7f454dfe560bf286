//! Moves rows between workers.
use crate::{Failure, Rows};

/// Sends every row to worker 0.
pub fn gather<'s>(rows: Rows<'s>, failure: &Failure) -> Rows<'s> {
    let _ = failure;
    rows
}
