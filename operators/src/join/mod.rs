//! Joins: of a stream with a table that does not change ([`lookup`]), and of streams ([`join_streams`]).

mod changes;
mod final_rows;
mod keys;
mod lookup;
mod pairs;
mod pending;
mod side;
mod stream;

pub use keys::JoinKey;
pub use lookup::{Keep, Lookup, Table, lookup, owned};
pub use side::Times;
pub use stream::{JoinKind, JoinState, Joined, StreamJoin, join_streams};

#[cfg(test)]
mod tests;
