//! Batches of files: written beside what is there, or in its place.
//!
//! A directory that no query writes gets no log: its readers list it, and whatever is put there by hand counts too. All
//! rows are staged before anything visible changes. If a rename then fails, those before it are taken back; only when
//! the process dies in between does a part of the rows stay. Into a directory that has a log a batch goes by the log,
//! as one run of a query of its own.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_engine::sink::{Receipt, SaveMode, Sink, SinkError};

use super::SinkConfig;
use super::commit::{FileSink, create_output, parts};
use super::error::FileSinkError;
use crate::files::committed::is_sink_directory;
use crate::files::listing::is_hidden;
use crate::files::log::{Part, STAGED, sync_directory};
use crate::files::options::FileOptions;

/// Opens the directory for one batch; `None` if there is nothing to do.
pub(super) fn open(
    config: Arc<SinkConfig>,
    mode: Option<SaveMode>,
) -> Result<Option<Box<dyn Sink>>, FileSinkError> {
    let exists = fs::symlink_metadata(&config.directory).is_ok();
    let mode = mode.unwrap_or(SaveMode::ErrorIfExists);
    let has_log = is_sink_directory(&config.directory);
    match mode {
        SaveMode::ErrorIfExists if exists => {
            return Err(FileSinkError::Exists {
                path: config.path.clone(),
            });
        }
        SaveMode::Ignore if exists => return Ok(None),
        SaveMode::Overwrite if has_log => {
            return Err(FileSinkError::OverwritesQuery {
                path: config.path.clone(),
            });
        }
        SaveMode::Append if has_log => return Ok(Some(Box::new(FileSink::open(config)?))),
        _ => {}
    }
    create_output(&config)?;
    config.empty_staged()?;
    Ok(Some(Box::new(BatchSink {
        config,
        overwrites: mode == SaveMode::Overwrite,
        created: !exists,
    })))
}

/// Writes one batch to a directory without a log.
struct BatchSink {
    config: Arc<SinkConfig>,
    /// What is there goes.
    overwrites: bool,
    /// The directory was not there before.
    created: bool,
}

impl BatchSink {
    fn commit_all(&mut self, parts: &[Part]) -> Result<(), FileSinkError> {
        let config = &self.config;
        config.check_staged(parts)?;
        if self.overwrites {
            remove_visible(&config.directory)?;
        }
        config.make_directories(parts)?;
        let mut done: Vec<PathBuf> = Vec::new();
        if let Err(error) = config.publish(parts, &mut done) {
            for path in done {
                let _ = fs::remove_file(path);
            }
            return Err(error);
        }
        self.created = false;
        Ok(())
    }
}

/// Removes everything that readers of a directory see.
fn remove_visible(directory: &Path) -> Result<(), FileSinkError> {
    let failed = |source| FileSinkError::write(directory, source);
    let all = FileOptions::default();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry
            .file_name()
            .to_str()
            .is_some_and(|name| is_hidden(name, &all))
        {
            continue;
        }
        let path = entry.path();
        let is_dir = entry.file_type().map_err(failed)?.is_dir();
        match is_dir {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        }
        .map_err(|source| FileSinkError::write(&path, source))?;
    }
    sync_directory(directory).map_err(failed)
}

impl Sink for BatchSink {
    fn description(&self) -> String {
        format!("FileSink[{}]", self.config.path)
    }

    fn commit(&mut self, _: RangeInclusive<u64>, receipts: &[Receipt]) -> Result<(), SinkError> {
        parts(receipts)
            .and_then(|parts| self.commit_all(&parts))
            .map_err(|error| error.of_commit(self.config.connector))
    }
}

impl Drop for BatchSink {
    /// Nothing stays of what was staged, nor of a directory that was made for nothing: it would be in the way of the
    /// next try.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.config.staged_of_query());
        let _ = fs::remove_dir(self.config.directory.join(STAGED));
        if self.created {
            let _ = fs::remove_dir(&self.config.directory);
        }
    }
}
