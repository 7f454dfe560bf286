//! Rows and files that could not be read, kept for somebody to look at: `badRecordsPath`.
//!
//! The bad rows of a split go to one file, `bad_records/part-<hash>.json`, one line `{"path", "reason", "record"}` for
//! each; a file that cannot be read at all goes to `bad_files/part-<hash>.json`. The hash is of the split, and a file
//! gets its name when the split has been read whole. So reading a split again, after a crash or by another query,
//! replaces what was written before by the same: every bad row of a committed epoch is there once. What an epoch wrote
//! that never commits stays until it is replayed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::error::FileError;
use super::split::FileSplit;

/// A row that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadRecord {
    pub(super) reason: String,
    pub(super) record: String,
}

#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<&'a str>,
}

/// Takes the bad rows of one split.
pub(super) struct BadRecords {
    directory: PathBuf,
    path: String,
    name: String,
    /// Opened with the first bad row.
    half: Option<(PathBuf, BufWriter<File>)>,
}

/// Tells half-written files of readers at work apart.
static TURN: AtomicU64 = AtomicU64::new(0);

impl BadRecords {
    pub(super) fn new(directory: &Path, split: &FileSplit) -> Self {
        let part = format!(
            "{}\n{} {} {} {}",
            split.path, split.modified, split.size, split.from, split.to
        );
        let hash = Sha256::digest(part.as_bytes());
        let hash: String = hash[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        BadRecords {
            directory: directory.into(),
            path: split.path.clone(),
            name: format!("part-{hash}.json"),
            half: None,
        }
    }

    fn failed(&self, source: io::Error) -> FileError {
        FileError::BadRecords {
            path: self.directory.display().to_string(),
            source,
        }
    }

    /// A row could not be read.
    pub(super) fn add(&mut self, bad: &BadRecord) -> Result<(), FileError> {
        let line = Line {
            path: &self.path,
            reason: &bad.reason,
            record: Some(&bad.record),
        };
        let written = match &mut self.half {
            Some((_, writer)) => write_line(writer, &line),
            None => self.begin("bad_records").and_then(|mut half| {
                write_line(&mut half.1, &line)?;
                self.half = Some(half);
                Ok(())
            }),
        };
        written.map_err(|source| self.failed(source))
    }

    /// The split was read to its end.
    pub(super) fn finish(&mut self) -> Result<(), FileError> {
        let Some((half, writer)) = self.half.take() else {
            return Ok(());
        };
        let target = self.directory.join("bad_records").join(&self.name);
        publish(&half, writer, &target).map_err(|source| self.failed(source))
    }

    /// The file could not be read, or not to its end.
    pub(super) fn bad_file(&mut self, error: &FileError) -> Result<(), FileError> {
        let mut reason = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(deeper) = cause {
            reason += &format!(": {deeper}");
            cause = deeper.source();
        }
        let line = Line {
            path: &self.path,
            reason: &reason,
            record: None,
        };
        let written = self.begin("bad_files").and_then(|(half, mut writer)| {
            write_line(&mut writer, &line)?;
            let target = self.directory.join("bad_files").join(&self.name);
            publish(&half, writer, &target)
        });
        written.map_err(|source| self.failed(source))
    }

    fn begin(&self, kind: &str) -> io::Result<(PathBuf, BufWriter<File>)> {
        let directory = self.directory.join(kind);
        fs::create_dir_all(&directory)?;
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        let half = directory.join(format!(".{}.{}-{turn}", self.name, std::process::id()));
        let file = File::create(&half)?;
        Ok((half, BufWriter::new(file)))
    }
}

impl Drop for BadRecords {
    fn drop(&mut self) {
        if let Some((half, _)) = self.half.take() {
            // It is hidden, and of no use to anybody.
            let _ = fs::remove_file(half);
        }
    }
}

fn write_line(writer: &mut BufWriter<File>, line: &Line<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *writer, line)?;
    writer.write_all(b"\n")
}

fn publish(half: &Path, writer: BufWriter<File>, target: &Path) -> io::Result<()> {
    let file = writer
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(half, target)
}
