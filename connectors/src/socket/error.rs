//! What can go wrong with a socket.

use std::io;

use highwater_engine::source::{Retry, SourceError};

/// What can go wrong with a socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Nobody answers.
    #[error(
        "could not connect to {address}; is something listening there? (for example: nc -lk {port})"
    )]
    Connect {
        /// Host and port.
        address: String,
        /// The port.
        port: u16,
        /// How it failed.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to {address} broke")]
    Broke {
        /// Host and port.
        address: String,
        /// How.
        #[source]
        source: io::Error,
    },
    /// Rows are asked for that are gone.
    #[error(
        "lines {from} to {to} of a socket are gone: they can be read only once they arrived, only in the process that received them, and only until they are committed"
    )]
    Gone {
        /// The first line.
        from: u64,
        /// The one after the last.
        to: u64,
    },
    /// A line does not fit in memory.
    #[error("{address} sent a line of more than {bytes_max} bytes")]
    LineTooLong {
        /// Host and port.
        address: String,
        /// What fits.
        bytes_max: usize,
    },
    /// The engine's log holds something that no socket wrote.
    #[error("\"{text}\" is no {what} of a socket")]
    NotOurs {
        /// What was found.
        text: String,
        /// What was expected.
        what: &'static str,
    },
    /// Arrow refused what was built.
    #[error("could not build columns from lines")]
    Arrow(#[from] arrow::error::ArrowError),
}

impl From<SocketError> for SourceError {
    fn from(error: SocketError) -> Self {
        SourceError {
            connector: "socket",
            // A query that is started again connects again; asking the same source again does not help.
            retry: Retry::Never,
            source: Box::new(error),
        }
    }
}
