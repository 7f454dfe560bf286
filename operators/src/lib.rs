//! HOW rows change. Batches in, batches out. No I/O, no clock, no async, no SQL.
//!
//! A stream edge ([`Rows`]) carries one Arrow batch per message ([`Batch`]) at the epoch it belongs to. Operators
//! without state are loops over batches ([`stage`]); operators with state run epoch by epoch ([`epoch`]) over an
//! [`arrangement`], know the [`watermark`]s, and report what goes wrong to a [`Failure`]. Whatever an operator emits is
//! a function of the rows of its epochs: not of the number of workers, of timing, or of hash order.

pub mod aggregate;
pub mod arrangement;
pub mod batch;
mod deadlines;
pub mod dedup;
pub mod epoch;
pub mod exact;
pub mod exchange;
pub mod failure;
mod intake;
pub mod join;
pub mod keys;
pub mod late;
pub mod limit;
pub mod memory;
pub mod metrics;
pub mod observe;
pub mod order;
mod places;
pub mod regroup;
pub mod session;
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
