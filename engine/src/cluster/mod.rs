//! How many workers and processes a session has, and how they find each other.
//!
//! Every process runs the same program. `-w W` workers each, `-n N` processes, `-p I` this one's number, `--hostfile`
//! their addresses. With `-n N` and no `-p` the program starts its N-1 sisters itself, on this machine.
//!
//! When a process is lost the others meet again, in the next generation, with whoever takes its place.

mod args;
mod handshake;
mod link;
mod mesh;
mod pulse;
mod sisters;

pub use args::ClusterConfig;
pub(crate) use link::{Link, Lost, network_thread_panicked};
pub(crate) use mesh::{Joined, Meeting, Wait, connect};
pub(crate) use sisters::{Sisters, Supervisor};

/// The clock of time-outs between processes; no row depends on it.
#[allow(
    clippy::disallowed_methods,
    reason = "time-outs between processes; no row depends on it"
)]
pub(crate) fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// What can go wrong while processes find each other.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The command line cannot be used.
    #[error(
        "{0}; usage: [-w WORKERS] [-n PROCESSES [-p INDEX] [--hostfile FILE]] \
         [--restarts COUNT] [--restart-pause SECONDS] [--restart-pause-max SECONDS] [--heartbeat-timeout SECONDS] [--rejoin-timeout SECONDS]"
    )]
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
    /// A sister process ended, by itself, before it joined for the first time.
    #[error("process {index} ended before it joined: {how}")]
    Ended {
        /// Its number.
        index: usize,
        /// How it ended.
        how: String,
    },
    /// A sister process ends again and again.
    #[error(
        "process {index} ended again ({how}) after {limit} restarts within a minute of each other; it is not started any \
         more: find out why it ends, or allow more with --restarts"
    )]
    Restarts {
        /// Its number.
        index: usize,
        /// How it ended.
        how: String,
        /// How many restarts were allowed.
        limit: u32,
    },
    /// The process that started this one is gone.
    #[error("the process that started process {index} is gone")]
    Orphan {
        /// This process.
        index: usize,
    },
    /// The session is being closed.
    #[error("the session was closed while its processes were to meet again")]
    Closing,
}
