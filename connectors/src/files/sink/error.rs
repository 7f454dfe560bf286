//! What can go wrong when files are written.

use std::io;

use highwater_engine::sink::SinkError;
use highwater_engine::source::Retry;

/// What can go wrong when files are written.
#[derive(Debug, thiserror::Error)]
pub enum FileSinkError {
    /// The output directory is something else.
    #[error("output path \"{path}\" is a file, not a directory; remove it or write elsewhere")]
    NotADirectory {
        /// The path.
        path: String,
    },
    /// A file or directory cannot be written (the disk is full, a permission is missing).
    #[error("could not write \"{path}\"")]
    Write {
        /// The path.
        path: String,
        /// How it failed.
        #[source]
        source: io::Error,
    },
    /// Rows could not be encoded.
    #[error("could not write rows to \"{path}\"")]
    Encode {
        /// The file.
        path: String,
        /// How it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A staged file was taken away before its commit.
    #[error(
        "staged file \"{path}\" is gone before it was committed; nothing else may touch hidden files of the output directory"
    )]
    Lost {
        /// The file.
        path: String,
    },
    /// A receipt that no file sink wrote.
    #[error("\"{body}\" is no receipt of a file sink")]
    NotOurs {
        /// What was found.
        body: String,
    },
}

impl FileSinkError {
    pub(super) fn write(path: &std::path::Path, source: io::Error) -> Self {
        FileSinkError::Write {
            path: path.display().to_string(),
            source,
        }
    }

    pub(super) fn of_sink(self, connector: &'static str) -> SinkError {
        SinkError {
            connector,
            // What is half written cannot be gone on with: the query starts again from its log.
            retry: Retry::Never,
            source: Box::new(self),
        }
    }
}
