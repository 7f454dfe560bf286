//! Makes runs of epochs visible, each once, whole or not at all.
//!
//! A run of epochs' parts wait in `_highwater_staged/<query>/<generation>/`, synced, when its commit begins. Then, in this
//! order:
//!
//! 1. The directories of new partitions are made. If one cannot be, nothing is committed.
//! 2. The run's line goes to the log (`files/log`) with the names and sizes of all parts, whole or not at all. From here
//!    on the run *is* committed: `committed` answers its last epoch, and the engine never writes it again.
//! 3. The parts are renamed to their places, and their directories synced.
//!
//! A crash before 2 leaves staged files that nobody reads: the query's next `open` removes all of them, however many
//! workers wrote them, and the replay stages the run again. A crash after 2 leaves parts that are not renamed yet: they
//! are durable since before 2, and the next `open` renames them. Both can die anywhere and be done again.
//!
//! Where no lock keeps it out, an older run of the query may still be at work. A newer generation makes a directory of its
//! own, renames the older ones to `<generation>.ended`, and only then reads the log. From there on the older run can
//! neither stage nor commit, however late it wakes: its log entries, too, are written in its directory before they get
//! their name. Nobody touches the directory of a newer one.
//!
//! Whoever lists the directory therefore sees whole parts of committed runs only; between two renames it may see some
//! parts of a run and not the others. Our own reader (`files/committed`) waits until a run has all of its parts.
//! Nothing that is visible is ever touched again.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_engine::failpoint::reach;
use highwater_engine::sink::{Receipt, Sink, SinkError};

use super::SinkConfig;
use super::error::FileSinkError;
use crate::files::committed::was_there;
use crate::files::log::{
    BEFORE, ENDED, Entry, LOG, LogReader, LogWriter, Part, STAGED, create_directories,
    remove_files, sync_directory, waiting,
};

/// Commits runs.
pub(super) struct FileSink {
    config: Arc<SinkConfig>,
    log: LogWriter,
    /// The newest run is committed, and some of its parts are not at their places.
    unfinished: bool,
}

impl FileSink {
    /// Opens the sink, and ends what a crash left half done. From here on older runs of the query lose.
    pub(super) fn open(config: Arc<SinkConfig>) -> Result<Self, FileSinkError> {
        create_output(&config)?;
        begin_log(&config)?;
        config.take_over()?;
        let logs = config.directory.join(LOG);
        LogReader::new(logs.join(BEFORE)).advance(&mut |_, _| true)?;
        let log = logs.join(&config.query);
        let mut sink = FileSink {
            log: LogWriter::open(log, config.staged(), config.retention_us)?,
            config,
            unfinished: true,
        };
        sink.finish()?;
        sink.config.remove_leavings()?;
        Ok(sink)
    }

    fn commit_run(&mut self, first: u64, last: u64, parts: Vec<Part>) -> Result<(), FileSinkError> {
        if self.unfinished {
            self.finish()?;
        }
        if let Some(committed) = self.log.committed()
            && first <= committed
        {
            if last > committed {
                return Err(FileSinkError::Overlap {
                    path: self.config.path.clone(),
                    first,
                    last,
                    committed,
                });
            }
            // It is there; what was staged is a repetition.
            let staged = self.config.staged_of_query();
            let of_run: BTreeSet<&str> = parts.iter().map(|part| part.staged.as_str()).collect();
            for part in of_run {
                let path = staged.join(part);
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(FileSinkError::write(&path, error));
                    }
                    _ => {}
                }
            }
            return Ok(());
        }
        if parts.is_empty() {
            return Ok(());
        }
        self.config.check_staged(&parts)?;
        self.config.make_directories(&parts)?;
        self.log.append(first, last, parts)?;
        self.unfinished = true;
        self.finish()
    }

    /// Brings the parts of the newest run to their places.
    fn finish(&mut self) -> Result<(), FileSinkError> {
        if let Some(Entry { parts, .. }) = self.log.last() {
            self.config.make_directories(parts)?;
            self.config.publish(parts, &mut Vec::new())?;
        }
        self.unfinished = false;
        Ok(())
    }
}

impl Sink for FileSink {
    fn description(&self) -> String {
        format!("FileSink[{}]", self.config.path)
    }

    fn committed(&mut self) -> Result<Option<u64>, SinkError> {
        Ok(self.log.committed())
    }

    fn confirm(&mut self, epoch: u64) -> Result<(), SinkError> {
        match self.log.committed() {
            Some(last) if last >= epoch => Ok(()),
            committed => {
                let error = FileSinkError::Forgotten {
                    path: self.log.next_path().display().to_string(),
                    epoch,
                    ends: match committed {
                        Some(last) => format!("ends with epoch {last}"),
                        None => "is empty".into(),
                    },
                };
                Err(error.of_sink(self.config.connector))
            }
        }
    }

    fn commit(
        &mut self,
        epochs: RangeInclusive<u64>,
        receipts: &[Receipt],
    ) -> Result<(), SinkError> {
        parts(receipts)
            .and_then(|parts| self.commit_run(*epochs.start(), *epochs.end(), parts))
            .map_err(|error| self.config.told(error).of_commit(self.config.connector))
    }
}

/// What all workers staged.
pub(super) fn parts(receipts: &[Receipt]) -> Result<Vec<Part>, FileSinkError> {
    let mut parts = Vec::new();
    for receipt in receipts {
        let staged: Vec<Part> =
            serde_json::from_str(&receipt.body).map_err(|_| FileSinkError::NotOurs {
                body: receipt.body.clone(),
            })?;
        parts.extend(staged);
    }
    Ok(parts)
}

/// Whether the sink of a query, if it writes files to `directory`, can go on there: readers find its log whole.
pub fn check_output(directory: &Path, query_id: &str) -> Result<(), FileSinkError> {
    let logs = directory.join(LOG);
    for log in [BEFORE, &super::in_a_name(query_id)] {
        LogReader::new(logs.join(log)).advance(&mut |_, _| true)?;
    }
    Ok(())
}

/// Creates the output directory.
pub(super) fn create_output(config: &SinkConfig) -> Result<(), FileSinkError> {
    let directory = &config.directory;
    match fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(FileSinkError::NotADirectory {
            path: directory.display().to_string(),
        }),
        Err(_) => {
            create_directories(directory).map_err(|source| FileSinkError::write(directory, source))
        }
    }
}

/// Makes an output directory one that has a log. Files that are there already go on record first, in the log of nobody,
/// so that they do not vanish for readers which from now on believe the log alone.
fn begin_log(config: &SinkConfig) -> Result<(), FileSinkError> {
    let log = config.directory.join(LOG);
    if log.is_dir() {
        return Ok(());
    }
    let temporary = config.directory.join(format!("{LOG}-{}", config.query));
    let failed = |source| FileSinkError::write(&log, source);
    match fs::remove_dir_all(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    fs::create_dir(&temporary).map_err(failed)?;
    let found = was_there(&config.directory)?;
    if !found.is_empty() {
        let before = temporary.join(BEFORE);
        LogWriter::open(before.clone(), before, None)?.append(0, 0, found)?;
    }
    reach("sink.begin.before");
    let renamed = sync_directory(&temporary).and_then(|()| fs::rename(&temporary, &log));
    match renamed {
        Ok(()) => {}
        // Another query was faster.
        Err(_) if log.is_dir() => {
            let _ = fs::remove_dir_all(&temporary);
        }
        Err(source) => return Err(failed(source)),
    }
    sync_directory(&config.directory).map_err(failed)?;
    reach("sink.begin.after");
    Ok(())
}

impl SinkConfig {
    /// Where parts of all runs of the query wait for their commit: their names begin with the generation.
    pub(super) fn staged_of_query(&self) -> PathBuf {
        self.directory.join(STAGED).join(&self.query)
    }

    /// Where parts of this run wait for their commit.
    pub(super) fn staged(&self) -> PathBuf {
        self.staged_of_query().join(self.generation.to_string())
    }

    /// The names in the directory of what waits.
    fn staged_names(&self) -> Result<Vec<String>, FileSinkError> {
        let staged = self.staged_of_query();
        let failed = |source| FileSinkError::write(&staged, source);
        let mut names = Vec::new();
        for entry in fs::read_dir(&staged).map_err(failed)? {
            names.extend(entry.map_err(failed)?.file_name().into_string());
        }
        Ok(names)
    }

    /// Makes this the run that writes: creates the directory of what it stages, and takes theirs from older ones.
    fn take_over(&self) -> Result<(), FileSinkError> {
        let staged = self.staged();
        create_directories(&staged).map_err(|source| FileSinkError::write(&staged, source))?;
        for name in self.staged_names()? {
            let Ok(other) = name.parse::<u64>() else {
                continue;
            };
            if other > self.generation {
                let newer = self.staged_of_query().join(&name);
                let path = newer.display().to_string();
                return Err(FileSinkError::Newer { path });
            }
            if other < self.generation {
                let from = self.staged_of_query().join(&name);
                let to = from.with_file_name(format!("{name}{ENDED}"));
                match fs::rename(&from, &to) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(FileSinkError::write(&from, error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Removes what runs before this one staged and did not commit.
    fn remove_leavings(&self) -> Result<(), FileSinkError> {
        remove_files(&self.staged(), |_| true)?;
        for name in self.staged_names()? {
            let path = self.staged_of_query().join(&name);
            let removed = match (name.ends_with(ENDED), path.is_dir()) {
                (true, _) => fs::remove_dir_all(&path),
                // Of a build that had no directories of generations.
                (false, false) => fs::remove_file(&path),
                (false, true) => Ok(()),
            };
            match removed {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(FileSinkError::write(&path, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Creates the directory of what a batch stages, with nothing in it.
    pub(super) fn empty_staged(&self) -> Result<(), FileSinkError> {
        self.take_over()?;
        self.remove_leavings()
    }

    /// `error`, or what it comes from: the directory of this run is gone.
    pub(super) fn told(&self, error: FileSinkError) -> FileSinkError {
        let staged = self.staged();
        let gone = FileSinkError::Gone {
            path: self.path.clone(),
        };
        if !self.directory.join(LOG).is_dir() {
            return gone;
        }
        if staged.is_dir() {
            return error;
        }
        // Whoever takes over creates its own.
        let newer = |name: &String| name.parse().is_ok_and(|other: u64| other > self.generation);
        match self.staged_names() {
            Ok(names) if names.iter().any(newer) => FileSinkError::TakenOver {
                path: staged.display().to_string(),
            },
            _ => gone,
        }
    }

    /// Whether what waits is what was staged.
    pub(super) fn check_staged(&self, parts: &[Part]) -> Result<(), FileSinkError> {
        for part in parts {
            let path = self.staged_of_query().join(&part.staged);
            match fs::metadata(&path) {
                Ok(metadata) if metadata.len() == part.bytes => {}
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(FileSinkError::write(&path, source));
                }
                _ => {
                    return Err(FileSinkError::Lost {
                        path: path.display().to_string(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Makes the directories of partitions that are new.
    pub(super) fn make_directories(&self, parts: &[Part]) -> Result<(), FileSinkError> {
        let below = parts.iter().filter_map(|part| part.path.rsplit_once('/'));
        let wanted: BTreeSet<&str> = below.map(|(directory, _)| directory).collect();
        let mut changed = BTreeSet::new();
        for directory in wanted {
            let path = self.directory.join(directory);
            if path.is_dir() {
                continue;
            }
            let above = path.ancestors().skip(1);
            changed.extend(
                above
                    .take_while(|at| at.starts_with(&self.directory))
                    .map(Path::to_path_buf),
            );
            fs::create_dir_all(&path).map_err(|source| {
                let file = path.ancestors().find(|at| at.is_file());
                FileSinkError::write(file.unwrap_or(&path), source)
            })?;
        }
        if changed.is_empty() {
            return Ok(());
        }
        reach("sink.directories.before");
        for path in &changed {
            sync_directory(path).map_err(|source| FileSinkError::write(path, source))?;
        }
        reach("sink.directories.after");
        Ok(())
    }

    /// Brings to their places the parts that still wait; `done` gets those that it brought.
    pub(super) fn publish(
        &self,
        parts: &[Part],
        done: &mut Vec<PathBuf>,
    ) -> Result<(), FileSinkError> {
        let staged = self.staged_of_query();
        let mut changed = BTreeSet::new();
        for part in parts.iter().filter(|part| !part.staged.is_empty()) {
            let visible = self.directory.join(&part.path);
            reach("sink.rename.before");
            // It is there already, or was, and somebody took it away.
            let Some(from) = waiting(&staged, part) else {
                continue;
            };
            match fs::rename(&from, &visible) {
                Ok(()) => {
                    changed.extend(visible.parent().map(Path::to_path_buf));
                    changed.extend(from.parent().map(Path::to_path_buf));
                    done.push(visible);
                }
                // A newer run has just done it.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) => return Err(FileSinkError::write(&visible, source)),
            }
            reach("sink.rename.after");
        }
        if changed.is_empty() {
            return Ok(());
        }
        for path in &changed {
            sync_directory(path).map_err(|source| FileSinkError::write(path, source))?;
        }
        reach("sink.publish.after");
        Ok(())
    }
}
