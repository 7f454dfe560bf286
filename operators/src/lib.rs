//! HOW rows change. Batches in, batches out. No I/O, no clock, no async, no SQL.

pub mod aggregate;
pub mod batch;
pub mod exchange;
pub mod failure;
pub mod stage;
pub mod update;

pub use batch::{Batch, BatchBuilder};
pub use failure::{Failure, OperatorError};
pub use update::{Edge, Rows};
