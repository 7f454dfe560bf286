//! Plans which files an epoch reads.
//!
//! Files are numbered in the order in which epochs admit them, and an offset is a number of files:
//! `{"logOffset": 12}` stands behind the first twelve. Those numbers live as long as the process. What restart needs
//! is in the splits, which the engine's epoch log keeps: each names its file, its size and its time.
//!
//! Every file is read once. Its name is remembered until it is older than the newest file by `maxFileAge`; files
//! that turn up older than that are taken for remembered ones, so an old file moved in late is not read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use highwater_engine::source::{
    Admitted, Offset, Reader, Resume, Source, SourceError, Split, Waker, Watch,
};
use serde_json::json;

use super::error::FileError;
use super::listing::{Found, Lister};
use super::reader::FileReader;
use super::split::FileSplit;
use super::{FileConfig, Format};

/// How often the coordinator asks again.
const POLL_MS: u64 = 10;

/// Plans which files an epoch reads.
pub struct FileSource {
    config: Arc<FileConfig>,
    lister: Lister,
    seen: Seen,
    /// Found and not admitted, in the order of admission.
    pending: VecDeque<Found>,
    /// Admitted files that may be asked for again; the first one has the number `log_start`.
    log: VecDeque<Found>,
    log_start: u64,
}

/// Files that were found before.
struct Seen {
    file_name_only: bool,
    /// By name; the value is the modification time.
    times: BTreeMap<String, i64>,
    newest_us: i64,
    /// Files older than this count as seen.
    forgotten_us: i64,
    age_max_us: i64,
}

impl Seen {
    fn key<'a>(&self, path: &'a str) -> &'a str {
        match self.file_name_only {
            true => path.rsplit('/').next().unwrap_or(path),
            false => path,
        }
    }

    fn knows(&self, path: &str) -> bool {
        self.times.contains_key(self.key(path))
    }

    /// True if the file is new.
    fn insert(&mut self, file: &Found) -> bool {
        if file.modified_us < self.forgotten_us {
            return false;
        }
        self.newest_us = self.newest_us.max(file.modified_us);
        let key = self.key(&file.path).to_string();
        self.times.insert(key, file.modified_us).is_none()
    }

    fn forget_old(&mut self) {
        let limit = self.newest_us.saturating_sub(self.age_max_us);
        if limit > self.forgotten_us {
            self.forgotten_us = limit;
            self.times.retain(|_, modified_us| *modified_us >= limit);
        }
    }
}

fn offset(files: u64) -> Offset {
    Offset(json!({ "logOffset": files }))
}

fn number(offset: &Offset) -> Result<u64, FileError> {
    offset.0["logOffset"]
        .as_u64()
        .ok_or_else(|| FileError::NotOurs {
            text: offset.0.to_string(),
            what: "offset",
        })
}

impl FileSource {
    pub(super) fn open(config: Arc<FileConfig>) -> Result<Self, FileError> {
        let options = &config.options;
        let lister = Lister::new(&config.path, options)?;
        // Newest first with a limit reads old files late: they must not be taken for seen (Spark does the same).
        let limited =
            options.files_per_trigger_max.is_some() || options.bytes_per_trigger_max.is_some();
        let age_max_us = match options.latest_first && limited {
            true => i64::MAX,
            false => options.file_age_max_us,
        };
        Ok(FileSource {
            lister,
            seen: Seen {
                file_name_only: options.file_name_only,
                times: BTreeMap::new(),
                newest_us: i64::MIN,
                forgotten_us: i64::MIN,
                age_max_us,
            },
            pending: VecDeque::new(),
            log: VecDeque::new(),
            log_start: 0,
            config,
        })
    }

    fn restore_files(&mut self, from: &Offset, splits: &[Split]) -> Result<(), FileError> {
        if self.log.is_empty() {
            self.log_start = number(from)?;
        }
        let mut last: Option<String> = None;
        for split in splits {
            let file = FileSplit::parse(split)?.found();
            // The ranges of one file follow each other.
            if last.as_deref() != Some(&file.path) {
                last = Some(file.path.clone());
                self.seen.insert(&file);
                self.log.push_back(file);
            }
        }
        self.seen.forget_old();
        Ok(())
    }

    fn log_end(&self) -> u64 {
        self.log_start + self.log.len() as u64
    }

    /// Looks for new files.
    fn look(&mut self) -> Result<(), FileError> {
        let seen = &self.seen;
        let mut found = match self.config.streaming {
            true => self.lister.list(&|path| seen.knows(path))?,
            // A batch reads what is there when it starts, in the order of the paths.
            false if self.log_end() > 0 || !self.pending.is_empty() => Vec::new(),
            false => self.lister.list_all()?,
        };
        if found.is_empty() {
            return Ok(());
        }
        if self.config.streaming {
            // Of two files with one name the older one is read.
            found.sort_by(|a, b| (a.modified_us, &a.path).cmp(&(b.modified_us, &b.path)));
        }
        let before = self.pending.len();
        for file in found {
            if !self.config.streaming || self.seen.insert(&file) {
                self.pending.push_back(file);
            }
        }
        self.seen.forget_old();
        if self.config.streaming && self.pending.len() > before {
            let pending = self.pending.make_contiguous();
            pending.sort_by(|a, b| (a.modified_us, &a.path).cmp(&(b.modified_us, &b.path)));
            if self.config.options.latest_first {
                pending.reverse();
            }
        }
        Ok(())
    }

    /// The file with a number: from the log, or the next one that waits, which thereby gets it.
    fn file(&mut self, at: u64) -> Result<&Found, FileError> {
        if at < self.log_start {
            return Err(FileError::Forgotten {
                from: at,
                to: self.log_start,
            });
        }
        if at == self.log_end()
            && let Some(file) = self.pending.pop_front()
        {
            self.log.push_back(file);
        }
        let (from, to) = (self.log_end(), at + 1);
        self.log
            .get((at - self.log_start) as usize)
            .ok_or(FileError::Forgotten { from, to })
    }

    fn admit_files(
        &mut self,
        from: u64,
        to: u64,
        bytes_max: u64,
    ) -> Result<Option<Admitted>, FileError> {
        let options = &self.config.options;
        let (mut files_max, mut bytes_max) = (u64::MAX, bytes_max);
        if self.config.streaming {
            files_max = options.files_per_trigger_max.unwrap_or(u64::MAX);
            bytes_max = bytes_max.min(options.bytes_per_trigger_max.unwrap_or(u64::MAX));
        }
        let can_be_cut = self.config.format.can_be_cut();
        let (mut splits, mut bytes, mut at) = (Vec::new(), 0u64, from);
        while at < to && at - from < files_max {
            let waiting = self.pending.front().map(|file| file.size);
            let logged = self.log.get(at.saturating_sub(self.log_start) as usize);
            let size = logged.map(|file| file.size).or(waiting).unwrap_or(0);
            if at > from && bytes.saturating_add(size) > bytes_max {
                break;
            }
            bytes = bytes.saturating_add(size);
            splits.extend(FileSplit::of(self.file(at)?, can_be_cut));
            at += 1;
        }
        Ok((at > from).then(|| Admitted {
            end: offset(at),
            splits: splits.iter().map(FileSplit::to_split).collect(),
        }))
    }
}

impl Source for FileSource {
    fn description(&self) -> String {
        format!("FileStreamSource[{}]", self.config.path)
    }

    fn watch(&mut self, _: Waker) -> Result<Watch, SourceError> {
        Ok(Watch::PollEveryMs(POLL_MS))
    }

    fn resume(&mut self, from: Resume<'_>) -> Result<(), SourceError> {
        let connector = self.config.connector;
        let mut resume = || {
            self.log_start = number(from.at)?;
            for planned in from.planned {
                self.restore_files(&planned.start, &planned.splits)?;
            }
            Ok(())
        };
        resume().map_err(|error: FileError| error.of_source(connector))
    }

    fn initial(&mut self) -> Result<Offset, SourceError> {
        Ok(offset(0))
    }

    fn latest(&mut self) -> Result<Offset, SourceError> {
        self.look()
            .map_err(|error| error.of_source(self.config.connector))?;
        Ok(offset(self.log_end() + self.pending.len() as u64))
    }

    fn admit(
        &mut self,
        from: &Offset,
        to: &Offset,
        bytes_max: u64,
    ) -> Result<Option<Admitted>, SourceError> {
        let range = || Ok((number(from)?, number(to)?));
        range()
            .and_then(|(from, to)| self.admit_files(from, to, bytes_max))
            .map_err(|error| error.of_source(self.config.connector))
    }

    fn replay(&mut self, from: &Offset, to: &Offset) -> Result<Vec<Split>, SourceError> {
        let connector = self.config.connector;
        let mut replay = || {
            let (from, to) = (number(from)?, number(to)?);
            if from < self.log_start || to > self.log_end() {
                return Err(FileError::Forgotten { from, to });
            }
            let can_be_cut = self.config.format.can_be_cut();
            let mut splits = Vec::new();
            for at in from..to {
                splits.extend(FileSplit::of(self.file(at)?, can_be_cut));
            }
            Ok(splits.iter().map(FileSplit::to_split).collect())
        };
        replay().map_err(|error| error.of_source(connector))
    }

    fn committed(&mut self, end: &Offset) -> Result<(), SourceError> {
        let end = number(end).map_err(|error| error.of_source(self.config.connector))?;
        while self.log_start < end && self.log.pop_front().is_some() {
            self.log_start += 1;
        }
        Ok(())
    }

    fn ended(&self) -> bool {
        !self.config.streaming
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(FileReader {
            config: Arc::clone(&self.config),
        })
    }
}

impl Format {
    /// Whether a part of a file can be read without what comes before it.
    fn can_be_cut(&self) -> bool {
        matches!(self, Format::Text | Format::Json(_) | Format::Csv(_))
    }
}
