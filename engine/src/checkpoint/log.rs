//! The epoch log: what each epoch reads, written before any of it becomes visible, and which epochs are committed.
//!
//! `metadata` has the query's id, `offsets/N` the plan of epoch N, `commits/N` says that the sink made it visible.
//! Entries are written under a temporary name, synced, and linked to their own: whole or absent, and never
//! replaced, so that of two runs over one directory the second to write an epoch loses and stops.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::CheckpointError;
use crate::source::{Offset, Split};

/// What an epoch reads from one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SourceRecord {
    /// Position before the epoch.
    pub(crate) start: Offset,
    /// Position after it.
    pub(crate) end: Offset,
    /// Its rows.
    pub(crate) splits: Vec<Split>,
}

/// The plan of one epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EpochRecord {
    /// Format of this record.
    pub(crate) version: u32,
    /// The epoch's clock: microseconds since 1970.
    pub(crate) clock_us: i64,
    /// True if a run of epochs that the sink commits together ends here.
    pub(crate) ends_run: bool,
    /// One for each source of the query, in its order.
    pub(crate) sources: Vec<SourceRecord>,
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    id: String,
}

/// The log in one checkpoint directory.
pub(crate) struct EpochLog {
    dir: PathBuf,
}

impl EpochLog {
    /// Begins a log for query `id` in an empty or absent directory.
    pub(crate) fn begin(dir: &Path, id: &str) -> Result<Self, CheckpointError> {
        let metadata = dir.join("metadata");
        if let Ok(bytes) = fs::read(&metadata) {
            let id = serde_json::from_slice(&bytes)
                .map_or_else(|_| "unknown".to_string(), |m: Metadata| m.id);
            return Err(CheckpointError::Resume {
                dir: dir.display().to_string(),
                id,
            });
        }
        for sub in ["offsets", "commits"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).map_err(|e| write_error(&path, e))?;
        }
        let log = EpochLog {
            dir: dir.to_path_buf(),
        };
        log.put("metadata", &Metadata { id: id.to_string() })?;
        Ok(log)
    }

    /// Makes the plan of `epoch` durable.
    pub(crate) fn plan(&self, epoch: u64, record: &EpochRecord) -> Result<(), CheckpointError> {
        self.put(&format!("offsets/{epoch}"), record)
    }

    /// Records that the sink has `epoch`.
    pub(crate) fn commit(&self, epoch: u64) -> Result<(), CheckpointError> {
        self.put(
            &format!("commits/{epoch}"),
            &serde_json::json!({ "version": 1 }),
        )
    }

    fn put(&self, name: &str, value: &impl Serialize) -> Result<(), CheckpointError> {
        let path = self.dir.join(name);
        let temporary = path.with_file_name(format!(".{}.tmp", uuid::Uuid::new_v4().simple()));
        let bytes = serde_json::to_vec(value).expect("log records are plain data");
        let written = (|| {
            let mut file = File::create(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::hard_link(&temporary, &path)?;
            File::open(path.parent().expect("a log file is in a directory"))?.sync_all()
        })();
        let _ = fs::remove_file(&temporary);
        match written {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(CheckpointError::OtherWriter {
                    path: path.display().to_string(),
                })
            }
            Err(error) => Err(write_error(&path, error)),
        }
    }
}

fn write_error(path: &Path, source: std::io::Error) -> CheckpointError {
    CheckpointError::Write {
        path: path.display().to_string(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_written_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = EpochLog::begin(dir.path(), "a").expect("begun");
        let record = EpochRecord {
            version: 1,
            clock_us: 5,
            ends_run: true,
            sources: vec![],
        };
        log.plan(0, &record).expect("planned");
        let again = log.plan(0, &record).expect_err("a second writer loses");
        assert!(
            matches!(again, CheckpointError::OtherWriter { .. }),
            "{again}"
        );
        let stored: EpochRecord =
            serde_json::from_slice(&fs::read(dir.path().join("offsets/0")).expect("written"))
                .expect("read back");
        assert_eq!(stored, record);
    }

    #[test]
    fn an_earlier_run_is_not_resumed_silently() {
        let dir = tempfile::tempdir().expect("a directory");
        EpochLog::begin(dir.path(), "a").expect("begun");
        assert!(
            matches!(EpochLog::begin(dir.path(), "b"), Err(CheckpointError::Resume { id, .. }) if id == "a")
        );
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        fs::write(&file, "x").expect("written");
        let error = EpochLog::begin(&file, "a")
            .map(|_| ())
            .expect_err("refused")
            .to_string();
        assert!(error.contains("file"), "{error}");
    }
}
