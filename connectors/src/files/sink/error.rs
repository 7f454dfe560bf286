//! What can go wrong when files are written.

use std::io;
use std::path::Path;

use highwater_engine::hint;
use highwater_engine::sink::SinkError;
use highwater_engine::source::Retry;

use crate::files::log::LogError;

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
    #[error("could not write \"{path}\"{}", hint(.source))]
    Write {
        /// The path.
        path: String,
        /// How it failed.
        #[source]
        source: io::Error,
    },
    /// What was written before cannot be read.
    #[error("could not read \"{path}\"{}", hint(.source))]
    Read {
        /// The path.
        path: String,
        /// How it failed.
        #[source]
        source: io::Error,
    },
    /// Rows could not be encoded.
    #[error("could not write rows to \"{path}\"{}", hint_below(.source.as_ref()))]
    Encode {
        /// The file.
        path: String,
        /// How it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A value is no name that a directory can have.
    #[error(
        "column \"{column}\" has a value that makes the name of a directory of {bytes} bytes, more than the {bytes_max} \
         that a file system takes: \"{start}...\"; partition by a shorter column"
    )]
    LongName {
        /// The column that directories are made of.
        column: String,
        /// The length of the name, column and escapes included.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
        /// How the name begins.
        start: String,
    },
    /// A staged file was taken away before its commit.
    #[error(
        "staged file \"{path}\" is gone or changed before it was committed; nothing else may touch hidden files of the \
         output directory, and only one run of a query may write"
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
    /// The commit log is not as it was written.
    #[error("commit log \"{path}\" {reason}")]
    Log {
        /// The file of the log.
        path: String,
        /// What is wrong, and the fix.
        reason: String,
    },
    /// Another run of the query was faster.
    #[error(
        "commit log \"{path}\" was written by another run of this query at the same moment; only one may run at a time: \
         start the query again, nothing is lost"
    )]
    OtherWriter {
        /// The file of the log.
        path: String,
    },
    /// A newer run has begun.
    #[error(
        "[CONCURRENT_STREAM_LOG_UPDATE] another run of this query has taken \"{path}\", where this one stages its files, and \
         goes on from here; only one may run at a time, so this one stops"
    )]
    TakenOver {
        /// The directory of what this run staged.
        path: String,
    },
    /// The output was removed while the query ran.
    #[error(
        "output directory \"{path}\", or what the query keeps in it (_highwater_log, _highwater_staged), was removed while the \
         query ran; start it again if what it has written is still there, else put it back, or start over with a new \
         checkpoint and a new output"
    )]
    Gone {
        /// The output directory.
        path: String,
    },
    /// A directory of a newer run is there already.
    #[error(
        "[CONCURRENT_STREAM_LOG_UPDATE] \"{path}\" belongs to a newer run of this query, so this one does not begin; if none \
         is running, the checkpoint directory is older than the output: restore both from one copy, or remove \"{path}\" \
         and start again"
    )]
    Newer {
        /// The directory of what the newer run staged.
        path: String,
    },
    /// A run was cut elsewhere than the one that is committed.
    #[error(
        "output directory \"{path}\" has the epochs up to {committed} of this query, so epochs {first} to {last} cannot be \
         committed as one; the checkpoint directory is older than the output: restore both from one copy"
    )]
    Overlap {
        /// The output directory.
        path: String,
        /// The run's first epoch.
        first: u64,
        /// The run's last epoch.
        last: u64,
        /// The newest epoch that is committed.
        committed: u64,
    },
    /// The log of the output lost what the checkpoint knows of.
    #[error(
        "commit log \"{path}\" is missing: the checkpoint says that rows of epoch {epoch} were committed, and the log {ends}; \
         restore it from a copy, or start over with an empty output directory and an empty checkpoint directory"
    )]
    Forgotten {
        /// The file of the log that is missing, or the first of them.
        path: String,
        /// The last epoch with rows that was committed.
        epoch: u64,
        /// Where the log ends.
        ends: String,
    },
    /// A batch is not to be added to what is there.
    #[error(
        "path \"{path}\" already exists; .mode(SaveMode::Append) adds to it, Overwrite replaces it, Ignore leaves it"
    )]
    Exists {
        /// The path.
        path: String,
    },
    /// A batch would replace what a query writes.
    #[error(
        "path \"{path}\" holds the output of a query, which a batch cannot overwrite; remove the directory or write \
         elsewhere"
    )]
    OverwritesQuery {
        /// The path.
        path: String,
    },
}

/// The same if a disk's error is below another one.
fn hint_below(error: &(dyn std::error::Error + 'static)) -> &'static str {
    let mut below = Some(error);
    while let Some(error) = below {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return hint(error);
        }
        below = error.source();
    }
    ""
}

impl FileSinkError {
    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        FileSinkError::Write {
            path: path.display().to_string(),
            source,
        }
    }

    /// An error while rows are written. What is half written cannot be gone on with: the query starts again from its
    /// log.
    pub(super) fn of_sink(self, connector: &'static str) -> SinkError {
        SinkError {
            connector,
            retry: Retry::Never,
            source: Box::new(self),
        }
    }

    /// An error while a run is committed, which may be asked again if the system may come round.
    pub(super) fn of_commit(self, connector: &'static str) -> SinkError {
        let retry = match self {
            FileSinkError::Write { .. } | FileSinkError::Read { .. } => Retry::Later,
            _ => Retry::Never,
        };
        SinkError {
            connector,
            retry,
            source: Box::new(self),
        }
    }
}

impl From<LogError> for FileSinkError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Read { path, source } => FileSinkError::Read { path, source },
            LogError::Write { path, source } => FileSinkError::Write { path, source },
            LogError::Damaged { path, reason } => FileSinkError::Log { path, reason },
            LogError::OtherWriter { path } => FileSinkError::OtherWriter { path },
        }
    }
}
