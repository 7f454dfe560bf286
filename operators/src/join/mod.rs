//! Joins: of a stream with a table that does not change ([`lookup`]), and of streams.

mod keys;
mod lookup;

pub use keys::JoinKey;
pub use lookup::{Keep, Lookup, Table, lookup};

#[cfg(test)]
mod tests;
