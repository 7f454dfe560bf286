//! One readable part of a file, as it is written into the epoch log.

use std::fs;
use std::sync::Arc;

use highwater_engine::source::Split;
use serde::{Deserialize, Serialize};

use super::codec::Codec;
use super::error::FileError;
use super::listing::{Directory, Found, inode, modified_us};

/// Longer uncompressed files of lines are cut into ranges of this length, so that several workers read them.
const RANGE_BYTES: u64 = 32 << 20;

/// A file or a part of it. Holds all that restart needs: which file was seen, and exactly what was read of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileSplit {
    pub(super) path: String,
    /// The modification time, in microseconds.
    pub(super) modified: i64,
    /// The size of the whole file when it was found: what was appended later is not read.
    pub(super) size: u64,
    /// Tells a file that grew from one that was put in its place; 0 if it is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) inode: u64,
    /// The rows are those that start within `from..to`.
    pub(super) from: u64,
    pub(super) to: u64,
    /// Columns whose values its directories tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) partition: Vec<(String, String)>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl FileSplit {
    /// The splits of a file. Those of one that can be cut are ranges; their order is the order of the rows.
    pub(super) fn of(file: &Found, can_be_cut: bool) -> Vec<FileSplit> {
        let part = |from, to| FileSplit {
            path: file.path(),
            modified: file.modified_us,
            size: file.size,
            inode: file.inode,
            from,
            to,
            partition: file.directory.partition.clone(),
        };
        if !can_be_cut || file.size <= RANGE_BYTES || Codec::of(&file.name).is_some() {
            return vec![part(0, file.size)];
        }
        let cuts = (0..file.size).step_by(RANGE_BYTES as usize);
        cuts.map(|from| part(from, (from + RANGE_BYTES).min(file.size)))
            .collect()
    }

    /// The splits of the same files as they are now, if one of them was written since it was `planned`: it was found
    /// before it was all there, or mended. One that is shorter now stays as it is, and reading it tells.
    pub(super) fn renewed(planned: &[FileSplit], can_be_cut: bool) -> Option<Vec<FileSplit>> {
        let (mut splits, mut any) = (Vec::new(), false);
        // The ranges of one file follow each other.
        for of_file in planned.chunk_by(|a, b| a.path == b.path) {
            let path = &of_file[0].path;
            let mut file = of_file[0].found();
            let now = fs::metadata(path).ok().filter(fs::Metadata::is_file);
            let now = now.and_then(|now| Some((now.len(), modified_us(&now).ok()?, inode(&now))));
            let written = now.filter(|(size, modified, _)| {
                // The times of parts that a commit log lists are those of the log.
                let other_time = file.inode != 0 && *modified != file.modified_us;
                *size > file.size || (*size == file.size && other_time)
            });
            let Some(now) = written else {
                splits.extend_from_slice(of_file);
                continue;
            };
            tracing::warn!(
                "file \"{path}\" was written again since the epoch that reads it was planned ({} bytes then, {} now), and \
                 nothing of that epoch is in a sink yet: all of it is read as it is now",
                file.size,
                now.0
            );
            (file.size, file.modified_us, file.inode) = now;
            splits.extend(FileSplit::of(&file, can_be_cut));
            any = true;
        }
        any.then_some(splits)
    }

    /// Stands for a file that is not there yet.
    pub(super) fn probe(path: &str) -> FileSplit {
        FileSplit {
            path: path.into(),
            modified: 0,
            size: 0,
            inode: 0,
            from: 0,
            to: 0,
            partition: Vec::new(),
        }
    }

    pub(super) fn parse(split: &Split) -> Result<FileSplit, FileError> {
        serde_json::from_str(&split.descriptor).map_err(|_| FileError::NotOurs {
            text: split.descriptor.clone(),
            what: "split",
        })
    }

    pub(super) fn to_split(&self) -> Split {
        Split {
            descriptor: serde_json::to_string(self).expect("strings and numbers can be written"),
            bytes: self.to - self.from,
            process: None,
        }
    }

    pub(super) fn found(&self) -> Found {
        let (directory, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        Found {
            directory: Arc::new(Directory {
                path: directory.into(),
                partition: self.partition.clone(),
            }),
            name: name.into(),
            modified_us: self.modified,
            size: self.size,
            inode: self.inode,
        }
    }

    /// For messages: which part of its file it is.
    pub(super) fn place(&self) -> String {
        match self.from {
            0 => String::new(),
            from => format!(", counting lines from byte {from}"),
        }
    }
}
