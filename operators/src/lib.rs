//! HOW rows change. Batches in, batches out. No I/O, no clock, no async, no SQL.

pub mod aggregate;
pub mod arrangement;
pub mod batch;
pub mod epoch;
pub mod exact;
pub mod exchange;
pub mod failure;
pub mod keys;
pub mod memory;
pub mod stage;
#[cfg(test)]
mod testing;
mod unnest;
pub mod update;
pub mod watermark;
mod wire;

pub use batch::{Batch, BatchBuilder};
pub use failure::{Failure, OperatorError};
pub use update::{Edge, Rows};
