//! WHEN rows change: session, DataFrame, incremental plans, epochs, triggers, query handles; the `Source` and
//! `Sink` traits.

pub mod options;
pub mod sink;
pub mod source;
