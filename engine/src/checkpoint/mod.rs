//! The checkpoint directory: today the epoch log; state follows.

mod log;

pub(crate) use log::{EpochLog, EpochRecord, SourceRecord};

/// What can go wrong with a checkpoint directory.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The directory cannot be written.
    #[error("could not write checkpoint file \"{path}\"")]
    Write {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another run wrote the epoch first.
    #[error(
        "checkpoint file \"{path}\" was written by another run of this query; only one may run at a time"
    )]
    OtherWriter {
        /// The file.
        path: String,
    },
    /// The directory holds an earlier run.
    #[error(
        "checkpoint directory \"{dir}\" holds an earlier run of query {id}; resuming a query is not supported yet: \
         remove the directory (and the output it wrote) to start over, or choose a new one"
    )]
    Resume {
        /// The directory.
        dir: String,
        /// The query's id.
        id: String,
    },
}
