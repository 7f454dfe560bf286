//! Writes files under hidden names, and makes them visible by renaming.
//!
//! A part of a run of epochs has three names in its life: `.open-<worker>-<query>.<n>` while rows come,
//! `.part-<first epoch>-<worker>-<query>.<n><ending>` once it is whole and on the disk, and without the dot, in its
//! partition's directory, once the run is committed. All are functions of the run and the worker, so a replay writes
//! over what died.
//!
//! The renames of one run are not one step: a crash between them leaves a part of the run visible until the restarted
//! query commits it again. It then replaces what is there, and takes away what other workers left of the same run
//! when there were more of them. So after recovery each row is there once, however many workers there are now; that
//! the run is cut at the same epochs again, the engine's log sees to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use highwater_engine::sink::{Receipt, Sink, SinkError, SinkWriter};
use serde::{Deserialize, Serialize};

use super::SinkConfig;
use super::encode::Encoder;
use super::error::FileSinkError;
use crate::files::partition::NULL_VALUE;
use crate::view::{TextStyle, TimePatterns, View};

/// One staged file, as a receipt tells it. Names are relative to the output directory.
#[derive(Debug, Serialize, Deserialize)]
struct Part {
    staged: String,
    visible: String,
}

struct OpenPart {
    path: PathBuf,
    encoder: Encoder,
}

/// Writes the parts of one worker.
pub(super) struct FileWriter {
    config: Arc<SinkConfig>,
    worker: usize,
    /// By partition: the path of its directory, empty if there are none.
    open: BTreeMap<String, OpenPart>,
    rows: u64,
}

impl FileWriter {
    pub(super) fn new(config: Arc<SinkConfig>, worker: usize) -> Self {
        FileWriter {
            config,
            worker,
            open: BTreeMap::new(),
            rows: 0,
        }
    }

    fn write_to(&mut self, partition: String, rows: &RecordBatch) -> Result<(), FileSinkError> {
        let config = &self.config;
        let count = self.open.len();
        let part = match self.open.entry(partition) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let name = format!(".open-{}-{}.{count}", self.worker, config.query);
                let path = config.directory.join(name);
                let encoder =
                    Encoder::create(&path, &config.data_schema, &config.format, config.zone)?;
                entry.insert(OpenPart { path, encoder })
            }
        };
        part.encoder.write(&part.path, rows)
    }

    fn write_rows(&mut self, rows: &RecordBatch) -> Result<(), FileSinkError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let directory = self.config.directory.clone();
        let failed = |source: ArrowError| FileSinkError::Encode {
            path: directory.display().to_string(),
            source: source.into(),
        };
        // Batches may promise fewer nulls than the files do.
        let columns = self.config.data_columns.iter();
        let columns = columns.map(|at| Arc::clone(rows.column(*at))).collect();
        let data = RecordBatch::try_new(Arc::clone(&self.config.data_schema), columns);
        let data = data.map_err(failed)?;
        if self.config.partitions.is_empty() {
            self.write_to(String::new(), &data)?;
        } else {
            for (partition, indices) in self.by_partition(rows).map_err(failed)? {
                let part = take_record_batch(&data, &UInt32Array::from(indices)).map_err(failed)?;
                self.write_to(partition, &part)?;
            }
        }
        self.rows += rows.num_rows() as u64;
        Ok(())
    }

    /// The rows of each partition.
    fn by_partition(&self, rows: &RecordBatch) -> Result<BTreeMap<String, Vec<u32>>, ArrowError> {
        let column = |at: &usize| {
            let array: &ArrayRef = rows.column(*at);
            Ok((rows.schema().field(*at).name().clone(), View::new(array)?))
        };
        let columns = self.config.partitions.iter().map(column);
        let columns: Vec<(String, View)> = columns.collect::<Result<_, ArrowError>>()?;
        let style = TextStyle {
            zone: &self.config.zone,
            null: NULL_VALUE,
            hex: false,
            iso: false,
            times: &TimePatterns::NONE,
        };
        let mut partitions: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        let (mut path, mut value) = (String::new(), String::new());
        for row in 0..rows.num_rows() {
            path.clear();
            for (name, view) in &columns {
                value.clear();
                view.push_text(&mut value, row, &style);
                if value.is_empty() {
                    value.push_str(NULL_VALUE);
                }
                if !path.is_empty() {
                    path.push('/');
                }
                push_path_name(&mut path, name);
                path.push('=');
                push_path_name(&mut path, &value);
            }
            match partitions.get_mut(&path) {
                Some(indices) => indices.push(row as u32),
                None => {
                    partitions.insert(path.clone(), vec![row as u32]);
                }
            }
        }
        Ok(partitions)
    }

    fn stage_run(&mut self, first: u64) -> Result<Vec<Part>, FileSinkError> {
        let config = Arc::clone(&self.config);
        let mut parts = Vec::new();
        for (at, (partition, part)) in std::mem::take(&mut self.open).into_iter().enumerate() {
            part.encoder.finish(&part.path)?;
            let name = config.part_name(first, self.worker);
            let staged = format!(".{name}.{at}");
            let visible = match partition.is_empty() {
                true => name,
                false => format!("{partition}/{name}"),
            };
            rename(&part.path, &config.directory.join(&staged))?;
            parts.push(Part { staged, visible });
        }
        if !parts.is_empty() {
            sync_directory(&config.directory)?;
        }
        Ok(parts)
    }
}

impl SinkWriter for FileWriter {
    fn write(&mut self, _: u64, rows: &RecordBatch) -> Result<(), SinkError> {
        self.write_rows(rows)
            .map_err(|error| error.of_sink(self.config.connector))
    }

    fn stage(&mut self, epochs: RangeInclusive<u64>) -> Result<Receipt, SinkError> {
        let parts = self
            .stage_run(*epochs.start())
            .map_err(|error| error.of_sink(self.config.connector))?;
        Ok(Receipt {
            worker: self.worker,
            rows: std::mem::take(&mut self.rows),
            body: serde_json::to_string(&parts).expect("texts can be written"),
        })
    }
}

/// Commits runs.
pub(super) struct FileSink {
    config: Arc<SinkConfig>,
    /// No run was committed since it was opened: a crash may have left something of the first one.
    fresh: bool,
}

impl FileSink {
    pub(super) fn open(config: Arc<SinkConfig>) -> Result<Self, FileSinkError> {
        let directory = &config.directory;
        match fs::metadata(directory) {
            Ok(metadata) if !metadata.is_dir() => {
                return Err(FileSinkError::NotADirectory {
                    path: directory.display().to_string(),
                });
            }
            Ok(_) => {}
            Err(_) => fs::create_dir_all(directory)
                .map_err(|source| FileSinkError::write(directory, source))?,
        }
        // What was open when an earlier process died was never promised to anybody.
        for name in names(directory)? {
            let rest = name
                .strip_prefix(".open-")
                .and_then(|rest| rest.split_once('-'));
            let query = rest.and_then(|(_, rest)| rest.rsplit_once('.'));
            if query.is_some_and(|(query, _)| query == config.query) {
                remove(&directory.join(name))?;
            }
        }
        Ok(FileSink {
            config,
            fresh: true,
        })
    }

    fn commit_run(&mut self, first: u64, receipts: &[Receipt]) -> Result<(), FileSinkError> {
        let directory = self.config.directory.clone();
        let mut parts = Vec::new();
        for receipt in receipts {
            let staged: Vec<Part> =
                serde_json::from_str(&receipt.body).map_err(|_| FileSinkError::NotOurs {
                    body: receipt.body.clone(),
                })?;
            parts.extend(staged);
        }
        if std::mem::take(&mut self.fresh) {
            self.remove_leavings(&directory, first, &parts)?;
        }
        let mut changed = Vec::new();
        for part in &parts {
            let (staged, visible) = (directory.join(&part.staged), directory.join(&part.visible));
            let parent = visible.parent().unwrap_or(&directory).to_path_buf();
            if parent != directory && !parent.is_dir() {
                fs::create_dir_all(&parent)
                    .map_err(|source| FileSinkError::write(&parent, source))?;
                changed.extend(
                    parent
                        .ancestors()
                        .take_while(|at| *at != directory)
                        .map(Path::to_path_buf),
                );
            }
            match fs::rename(&staged, &visible) {
                Ok(()) => changed.push(parent),
                // Committed before.
                Err(error) if error.kind() == io::ErrorKind::NotFound && visible.exists() => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(FileSinkError::Lost {
                        path: staged.display().to_string(),
                    });
                }
                Err(source) => return Err(FileSinkError::write(&visible, source)),
            }
        }
        changed.sort();
        changed.dedup();
        if !changed.is_empty() {
            for at in &changed {
                sync_directory(at)?;
            }
            sync_directory(&directory)?;
        }
        Ok(())
    }

    /// Removes what a crash left of the run that begins at `first` and what this commit does not bring again.
    fn remove_leavings(
        &self,
        directory: &Path,
        first: u64,
        parts: &[Part],
    ) -> Result<(), FileSinkError> {
        for name in names(directory)? {
            let path = directory.join(&name);
            if path.is_dir() && !self.config.partitions.is_empty() && name.contains('=') {
                self.remove_leavings(&path, first, parts)?;
            } else if self.config.is_part_of(&name, first) {
                let relative = path.strip_prefix(&self.config.directory).unwrap_or(&path);
                let relative = relative.to_string_lossy();
                let wanted = |part: &Part| part.visible == relative || part.staged == relative;
                if !parts.iter().any(wanted) {
                    remove(&path)?;
                }
            }
        }
        Ok(())
    }
}

impl Sink for FileSink {
    fn description(&self) -> String {
        format!("FileSink[{}]", self.config.path)
    }

    fn commit(
        &mut self,
        epochs: RangeInclusive<u64>,
        receipts: &[Receipt],
    ) -> Result<(), SinkError> {
        self.commit_run(*epochs.start(), receipts)
            .map_err(|error| error.of_sink(self.config.connector))
    }
}

impl SinkConfig {
    fn part_name(&self, first: u64, worker: usize) -> String {
        format!("part-{first:05}-{worker}-{}{}", self.query, self.ending)
    }

    /// Whether a name, hidden or not, is that of a part of the run that begins at `first`.
    fn is_part_of(&self, name: &str, first: u64) -> bool {
        let plain = match name.strip_prefix('.') {
            // Staged names end with the number of the partition.
            Some(hidden) => hidden.rsplit_once('.').map_or(hidden, |(plain, _)| plain),
            None => name,
        };
        plain
            .strip_prefix(&format!("part-{first:05}-"))
            .and_then(|rest| rest.split_once('-'))
            .and_then(|(_, rest)| rest.strip_prefix(&self.query))
            .is_some_and(|ending| ending == self.ending)
    }
}

/// The names in a directory, as far as they are ours to care about.
fn names(directory: &Path) -> Result<Vec<String>, FileSinkError> {
    let failed = |source| FileSinkError::write(directory, source);
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(names)
}

fn remove(path: &Path) -> Result<(), FileSinkError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(FileSinkError::write(path, source))
        }
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), FileSinkError> {
    fs::rename(from, to).map_err(|source| FileSinkError::write(to, source))
}

/// A rename is durable once its directory is.
fn sync_directory(path: &Path) -> Result<(), FileSinkError> {
    let synced = match cfg!(unix) {
        true => File::open(path).and_then(|directory| directory.sync_all()),
        false => Ok(()),
    };
    synced.map_err(|source| FileSinkError::write(path, source))
}

/// Appends a name so that it is one step of a path, as Hive does.
fn push_path_name(out: &mut String, name: &str) {
    for c in name.chars() {
        match c {
            '\u{1}'..='\u{1f}'
            | '\u{7f}'
            | '"'
            | '#'
            | '%'
            | '\''
            | '*'
            | '/'
            | ':'
            | '='
            | '?'
            | '\\'
            | '{'
            | '['
            | ']'
            | '^' => out.push_str(&format!("%{:02X}", c as u32)),
            c => out.push(c),
        }
    }
}
