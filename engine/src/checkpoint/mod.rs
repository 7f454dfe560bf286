//! The checkpoint directory: everything a restart needs.
//!
//! ```text
//! metadata         the query's id, and the shape of its plan
//! generations/N    put if absent by the Nth run: runs before it have lost
//! offsets/E        plans of epoch E and some after it        (log.rs)
//! commits/E        runs of epochs that the sink holds        (log.rs)
//! checkpoints/E    the durable cut after epoch E             (manifest.rs)
//! state/, sources/ files that checkpoints name
//! writing/N        what run N has not finished writing: taken away by the run after it
//! lock             held while a query runs, where the file system has locks
//! ```
//!
//! Everything carries the version of its format. A restart loads the newest good checkpoint, replays the logged plans
//! after it, and goes on; the sink says itself which of the replayed epochs it has.

mod cloud;
mod inspect;
mod log;
mod manifest;
mod objects;
mod seal;
mod shape;
mod store;
mod upload;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use inspect::{CheckpointSummary, inspect};
pub(crate) use log::{CommitRecord, EpochRecord, Log, Logged};
pub(crate) use manifest::{Cut, Manifest, MarksRecord, Shelf, SourceState, load, read_segment};
pub(crate) use shape::{Computed, OF_LATE_ROWS, OperatorShape, PlanShape};
pub(crate) use store::{ObjectStores, Store, open};
pub(crate) use upload::{Uploaded, Uploader, restore};

/// The format of everything here. A reader refuses what is newer. From 2 on every file has a checksum.
const FORMAT: u32 = 2;

/// What can go wrong with a checkpoint directory.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The directory cannot be written.
    #[error("could not write checkpoint file \"{path}\"{}", crate::error::hint(.source))]
    Write {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The directory cannot be read.
    #[error("could not read checkpoint file \"{path}\"{}", crate::error::hint(.source))]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is torn or was changed.
    #[error("checkpoint file \"{path}\" is damaged: {reason}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The query went on from a checkpoint, and none can be used.
    #[error(
        "no good checkpoint is left in \"{dir}\": {why}; put back what is damaged or missing from a copy, or start over \
         with a new checkpoint directory and a new output"
    )]
    NoneGood {
        /// The directory.
        dir: String,
        /// What became of them.
        why: String,
    },
    /// Written by a later version.
    #[error(
        "checkpoint file \"{path}\" has format {found}, and this version of highwater reads up to {known}: use the \
         version that wrote it, or a later one"
    )]
    Newer {
        /// The file.
        path: String,
        /// Its format.
        found: u32,
        /// The newest known.
        known: u32,
    },
    /// Another run wrote the same, in the moment in which neither could know of the other.
    #[error(
        "[CONCURRENT_STREAM_LOG_UPDATE] checkpoint file \"{path}\" was written by another run of this query at the same \
         moment; only one may run at a time: start the query again, nothing is lost"
    )]
    OtherWriter {
        /// The file.
        path: String,
    },
    /// A later run has begun: it goes on from what is written, and this one stops.
    #[error(
        "[CONCURRENT_STREAM_LOG_UPDATE] another run of this query has begun (checkpoint file \"{path}\") and goes on \
         from here; only one may run at a time, so this one stops"
    )]
    TakenOver {
        /// The file that says so.
        path: String,
    },
    /// Another run holds the lock.
    #[error(
        "[CONCURRENT_STREAM_LOG_UPDATE] checkpoint directory \"{dir}\" is in use: another run of this query holds its \
         lock; stop that one first"
    )]
    Running {
        /// The directory.
        dir: String,
    },
    /// The plan cannot go on from this checkpoint.
    #[error(
        "the query differs from the one that wrote checkpoint \"{dir}\": {difference}; use a new checkpoint directory \
         for the new query, or bring the old one back"
    )]
    OtherPlan {
        /// The directory.
        dir: String,
        /// What differs.
        difference: String,
    },
    /// A URL of an object store that nobody registered.
    #[error(
        "no object store is known for \"{location}\": give a directory or a URL of s3, gs, az or abfss, or register one \
         for \"{root}\" when the session is built"
    )]
    NoStore {
        /// What was asked for.
        location: String,
        /// Its scheme and host.
        root: String,
    },
    /// A cloud's store that cannot be reached as the environment says.
    #[error("the object store of \"{location}\" cannot be used: {source}")]
    Cloud {
        /// What was asked for.
        location: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Not a checkpoint.
    #[error("\"{dir}\" is no checkpoint directory: it has no file \"metadata\"")]
    NotOne {
        /// The directory.
        dir: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    version: u32,
    id: String,
    plan: PlanShape,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GenerationRecord {
    version: u32,
    run_id: String,
    workers: usize,
    processes: usize,
}

/// A run as it took the directory.
fn generation(store: &dyn Store, number: u64) -> Result<GenerationRecord, CheckpointError> {
    let name = format!("generations/{number}");
    let record = seal::unsealed(store, &name)?;
    record.ok_or_else(|| CheckpointError::Damaged {
        path: format!("{}/{name}", store.location()),
        reason: "it is missing".into(),
    })
}

/// How files of a checkpoint are called, by a few of each kind.
pub(crate) const OBJECTS: [&str; 3] = ["metadata", "lock", "0"];

/// A checkpoint directory that one run has taken.
pub(crate) struct Checkpoint {
    pub(crate) store: Arc<dyn Store>,
    /// Of the query, over all its runs.
    pub(crate) id: String,
    fresh: bool,
    _lock: Option<store::Lock>,
}

/// What a run goes on from.
pub(crate) struct Recovered {
    /// This run's.
    pub(crate) generation: u64,
    pub(crate) manifest: Option<Manifest>,
    pub(crate) logged: Logged,
}

impl Recovered {
    /// True if an earlier run planned an epoch.
    pub(crate) fn has_epochs(&self) -> bool {
        self.manifest.is_some() || !self.logged.plans.is_empty()
    }
}

impl Checkpoint {
    /// Locks a directory, and reads which query it belongs to. Nothing else is written yet.
    pub(crate) fn take(store: Arc<dyn Store>) -> Result<Self, CheckpointError> {
        let lock = store.lock()?;
        let metadata = metadata(store.as_ref())?;
        let fresh = metadata.is_none();
        let id = match metadata {
            Some(metadata) => metadata.id,
            None => {
                // Without it the log belongs to nobody: somebody removed the file, or this is no checkpoint.
                if !store.list("offsets")?.is_empty() || !store.list("checkpoints")?.is_empty() {
                    return Err(CheckpointError::NotOne {
                        dir: store.location().into(),
                    });
                }
                uuid::Uuid::new_v4().to_string()
            }
        };
        Ok(Checkpoint {
            store,
            id,
            fresh,
            _lock: lock,
        })
    }

    /// Becomes the newest run of the query, and reads what there is to go on from.
    pub(crate) fn recover(
        &self,
        plan: &PlanShape,
        run_id: &str,
        workers: usize,
        processes: usize,
    ) -> Result<Recovered, CheckpointError> {
        let store = self.store.as_ref();
        if self.fresh && metadata(store)?.is_none() {
            let metadata = Metadata {
                version: FORMAT,
                id: self.id.clone(),
                plan: plan.clone(),
            };
            if !store.put_new("metadata", &seal::sealed(&metadata))? {
                return Err(CheckpointError::OtherWriter {
                    path: format!("{}/metadata", store.location()),
                });
            }
        }
        if let Some(before) = metadata(store)?
            && let Some(difference) = plan.difference(&before.plan)
        {
            return Err(CheckpointError::OtherPlan {
                dir: store.location().into(),
                difference,
            });
        }
        let generation = self.next_generation(run_id, workers, processes)?;
        let manifest = manifest::newest_good(store)?;
        let logged = log::read(store, manifest.as_ref().map(|manifest| manifest.epoch))?;
        Ok(Recovered {
            generation,
            manifest,
            logged,
        })
    }

    fn next_generation(
        &self,
        run_id: &str,
        workers: usize,
        processes: usize,
    ) -> Result<u64, CheckpointError> {
        /// Older ones are removed: a run that has slept through so many others does not wake.
        const KEPT: u64 = 100;
        let mut last = 0;
        let mut numbers = Vec::new();
        for (name, _) in self.store.list("generations")? {
            if let Ok(number) = name.parse::<u64>() {
                last = last.max(number);
                numbers.push(number);
            }
        }
        if last > 0 {
            // Nobody needs what is in it; but a directory in which it is torn has seen worse.
            generation(self.store.as_ref(), last)?;
        }
        let generation = last + 1;
        let record = GenerationRecord {
            version: FORMAT,
            run_id: run_id.into(),
            workers,
            processes,
        };
        let name = format!("generations/{generation}");
        if !self.store.put_new(&name, &seal::sealed(&record))? {
            return Err(CheckpointError::OtherWriter {
                path: format!("{}/{name}", self.store.location()),
            });
        }
        for number in numbers {
            if number + KEPT < generation {
                self.store.delete(&format!("generations/{number}"))?;
            }
        }
        // Before anything is read: what an older run writes from here on is refused.
        self.store.take_over(generation)?;
        Ok(generation)
    }
}

fn metadata(store: &dyn Store) -> Result<Option<Metadata>, CheckpointError> {
    seal::unsealed(store, "metadata")
}

fn check_version(store: &dyn Store, name: &str, found: u32) -> Result<(), CheckpointError> {
    if found <= FORMAT {
        return Ok(());
    }
    Err(CheckpointError::Newer {
        path: format!("{}/{name}", store.location()),
        found,
        known: FORMAT,
    })
}

/// An error once a later run has begun: what we write would not be read.
fn still_ours(store: &dyn Store, generation: u64) -> Result<(), CheckpointError> {
    let name = format!("generations/{}", generation + 1);
    if !store.exists(&name)? {
        return Ok(());
    }
    Err(CheckpointError::TakenOver {
        path: format!("{}/{name}", store.location()),
    })
}

/// Writes an object that must not exist, as the run of `generation`: an error once a later run has begun.
fn put_of_run(
    store: &dyn Store,
    generation: u64,
    name: &str,
    bytes: &[u8],
) -> Result<(), CheckpointError> {
    still_ours(store, generation)?;
    match store.put_new_of(generation, name, bytes) {
        Ok(true) => Ok(()),
        // An older run has written it, if it is not a later one that has begun since.
        Ok(false) => still_ours(store, generation).and(Err(CheckpointError::OtherWriter {
            path: format!("{}/{name}", store.location()),
        })),
        // It failed because a later run had begun.
        Err(error) => still_ours(store, generation).and(Err(error)),
    }
}
