//! How many workers and processes a session has, and how they find each other.
//!
//! Every process runs the same program. `-w W` workers each, `-n N` processes, `-p I` this one's number, `--hostfile`
//! their addresses. With `-n N` and no `-p` the program starts its N-1 sisters itself, on this machine.

mod args;
mod mesh;
mod sisters;

pub use args::ClusterConfig;
pub(crate) use mesh::{Allocators, Meeting, connect};
pub(crate) use sisters::Sisters;

/// What can go wrong while processes find each other.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The command line cannot be used.
    #[error("{0}; usage: [-w WORKERS] [-n PROCESSES [-p INDEX] [--hostfile FILE]]")]
    Arguments(String),
    /// The host file cannot be used.
    #[error("could not read host file \"{path}\"")]
    Hostfile {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A process did not join.
    #[error("could not connect process {me} of {of}: {what}")]
    Connect {
        /// This process.
        me: usize,
        /// The number of processes.
        of: usize,
        /// What failed.
        what: String,
    },
    /// A sister process could not be started.
    #[error("could not start process {index}")]
    Start {
        /// Its number.
        index: usize,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
