//! Finds the files that queries committed to a directory: what their logs say, not what lies there.
//!
//! A directory that a query of ours writes has a log (`log`), and then the log alone counts: a file that is not in it was
//! not written by a query, or not yet committed. A run of epochs counts when all of its parts are at their places, so a
//! reader sees the whole of it at once, over all partitions.
//!
//! The files of one query come in the order of their commits, and so do, by the time of the commit, those of several;
//! that time stands for the time of the file.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::FileError;
use super::listing::{Directory, Found, Known, MTIME_STEP, is_hidden};
use super::log::{Entry, LOG, LogError, LogReader, Part, STAGED, waiting};
use super::options::FileOptions;
use super::partition;

/// Whether a query of ours writes, or wrote, to a directory.
pub fn is_sink_directory(path: &Path) -> bool {
    path.join(LOG).is_dir()
}

/// Whether a path is such a directory or lies in one.
pub fn is_within_sink_directory(path: &Path) -> bool {
    path.ancestors().any(is_sink_directory)
}

/// Lists the committed files of a directory.
pub(super) struct CommittedLister {
    root: PathBuf,
    options: FileOptions,
    /// One for each query.
    logs: BTreeMap<PathBuf, Log>,
    /// When the directory of logs last changed, if that is long ago enough to be trusted.
    trusted: Option<SystemTime>,
    /// Those that hold files, by path relative to the root.
    directories: BTreeMap<String, Arc<Directory>>,
    /// How many files were listed.
    files: usize,
}

struct Log {
    reader: LogReader,
    trusted: Option<SystemTime>,
}

/// When a directory last changed; and whether it can be trusted that whatever changes it now will move that time.
fn modified(path: &Path) -> Result<(SystemTime, bool), FileError> {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let modified = modified.map_err(|source| FileError::Read {
        path: path.display().to_string(),
        source,
    })?;
    #[allow(
        clippy::disallowed_methods,
        reason = "compared with the time of a directory, to know whether to look again"
    )]
    let age = SystemTime::now().duration_since(modified);
    Ok((modified, age.is_ok_and(|age| age > MTIME_STEP)))
}

impl CommittedLister {
    /// Reads from the beginning.
    pub(super) fn new(directory: Arc<Directory>, options: &FileOptions) -> Self {
        CommittedLister {
            root: PathBuf::from(&directory.path),
            options: options.clone(),
            logs: BTreeMap::new(),
            trusted: None,
            directories: BTreeMap::from([(String::new(), directory)]),
            files: 0,
        }
    }

    /// How many files the log told of.
    pub(super) fn files(&self) -> usize {
        self.files
    }

    /// The directories of all files that the log told of, the root among them.
    pub(super) fn directories(&self) -> Vec<Arc<Directory>> {
        self.directories.values().map(Arc::clone).collect()
    }

    /// The files that were committed since the last time, in the order of the commits of each query; of those that are
    /// wanted, the ones that are not `known`.
    pub(super) fn list(&mut self, known: Known<'_>) -> Result<Vec<Found>, FileError> {
        let listed = self.list_logs(known);
        if listed.is_err() {
            // What was found before the error is lost, and comes again.
            self.logs.clear();
            self.trusted = None;
            self.files = 0;
        }
        listed
    }

    fn list_logs(&mut self, known: Known<'_>) -> Result<Vec<Found>, FileError> {
        self.look_for_logs()?;
        let mut found = Vec::new();
        let mut logs = std::mem::take(&mut self.logs);
        for (path, log) in &mut logs {
            let (time, trusted) = modified(path)?;
            if log.trusted == Some(time) {
                continue;
            }
            let query = path.file_name().unwrap_or_default();
            let mut waits = false;
            log.reader.advance(&mut |entry, is_newest| {
                // A query commits a run when the one before has been brought to its place.
                waits = is_newest && !is_whole(&self.root, query, entry);
                if !waits {
                    self.files += entry.parts.len();
                    for part in &entry.parts {
                        let file = self.wanted(entry, part);
                        found.extend(file.filter(|at| !known(&at.directory.path, &at.name)));
                    }
                }
                !waits
            })?;
            log.trusted = (trusted && !waits).then_some(time);
        }
        self.logs = logs;
        Ok(found)
    }

    fn wanted(&mut self, entry: &Entry, part: &Part) -> Option<Found> {
        let options = &self.options;
        let modified_us = part.modified_us.unwrap_or(entry.time_us);
        let (below, name) = part.path.rsplit_once('/').unwrap_or(("", &part.path));
        let before = options.modified_before_us.unwrap_or(i64::MAX);
        let after = options.modified_after_us.unwrap_or(i64::MIN);
        let filter = options.path_glob_filter.as_ref();
        let matches =
            filter.is_none_or(|filter| filter.iter().any(|pattern| pattern.matches(name)));
        let hidden = part.path.split('/').any(|name| is_hidden(name, options));
        if hidden || !matches || modified_us >= before || modified_us <= after {
            return None;
        }
        if !self.directories.contains_key(below) {
            // Whoever looks for files at any depth does not take directories for columns.
            let values = below.split('/').filter_map(partition::value);
            let directory = Directory {
                path: format!("{}/{below}", self.directories[""].path),
                partition: match options.recursive {
                    true => Vec::new(),
                    false => values.collect(),
                },
            };
            self.directories
                .insert(below.to_string(), Arc::new(directory));
        }
        Some(Found {
            directory: Arc::clone(&self.directories[below]),
            name: name.into(),
            modified_us,
            size: part.bytes,
            // Nobody puts another file in the place of a committed one.
            inode: 0,
        })
    }

    fn look_for_logs(&mut self) -> Result<(), FileError> {
        let logs = self.root.join(LOG);
        let (time, trusted) = modified(&logs)?;
        if self.trusted == Some(time) {
            return Ok(());
        }
        let failed = |source| FileError::Read {
            path: logs.display().to_string(),
            source,
        };
        for entry in fs::read_dir(&logs).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                self.logs.entry(path.clone()).or_insert_with(|| Log {
                    reader: LogReader::new(path),
                    trusted: None,
                });
            }
        }
        self.trusted = trusted.then_some(time);
        Ok(())
    }
}

/// Whether no part of a run still waits to be brought to its place. A part that is nowhere was there: whoever reads it is
/// told that it is gone.
fn is_whole(directory: &Path, query: &OsStr, entry: &Entry) -> bool {
    let staged = directory.join(STAGED).join(query);
    entry.parts.iter().all(|part| {
        part.staged.is_empty()
            || directory.join(&part.path).exists()
            || waiting(&staged, part).is_none()
    })
}

/// The files that lie in a directory before it has a log.
pub(super) fn was_there(directory: &Path) -> Result<Vec<Part>, LogError> {
    let options = FileOptions::default();
    let mut parts = Vec::new();
    let mut waiting = vec![directory.to_path_buf()];
    while let Some(at) = waiting.pop() {
        let failed = |source| LogError::Read {
            path: at.display().to_string(),
            source,
        };
        for entry in fs::read_dir(&at).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (name, path) = (entry.file_name(), entry.path());
            let (Some(name), Ok(relative)) = (name.to_str(), path.strip_prefix(directory)) else {
                continue;
            };
            if is_hidden(name, &options) {
                continue;
            }
            let metadata = fs::metadata(&path).map_err(failed)?;
            if metadata.is_dir() {
                if name.contains('=') {
                    waiting.push(path);
                }
                continue;
            }
            let modified = metadata.modified().map_err(failed)?;
            let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
            if let Some(relative) = relative.to_str() {
                parts.push(Part {
                    path: relative.to_string(),
                    staged: String::new(),
                    bytes: metadata.len(),
                    rows: 0,
                    modified_us: Some(since.as_micros() as i64),
                });
            }
        }
    }
    parts.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(parts)
}

impl From<LogError> for FileError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Read { path, source } | LogError::Write { path, source } => {
                FileError::Read { path, source }
            }
            LogError::Damaged { path, reason } => FileError::CommitLog { path, reason },
            LogError::OtherWriter { path } => FileError::CommitLog {
                path,
                reason: "is being written".into(),
            },
        }
    }
}
