//! Plans which files an epoch reads.
//!
//! Files are numbered in the order in which epochs admit them, and an offset is a number of files:
//! `{"logOffset": 12}` stands behind the first twelve. What restart needs is in the splits, which the engine's epoch
//! log keeps (each names its file, its size and its time), and before those in what the source remembers: one line per
//! file that was admitted.
//!
//! Every file is read once. Its name is remembered until it is older than the newest one read by `maxFileAge`; files
//! that turn up older than that are taken for remembered ones, so an old file moved in late is not read, which a
//! warning tells. The limit
//! never passes a file that still waits, and it is remembered too: a restarted query judges as the first one did.

use std::collections::VecDeque;
use std::sync::Arc;

use highwater_engine::source::{
    Admitted, Offset, Planned, Reader, Resume, Source, SourceError, Split, Waker, Watch,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::cleaner::{Cleaner, Read};
use super::error::FileError;
use super::fresh::settle;
use super::listing::{Found, Lister, local};
use super::reader::FileReader;
use super::seen::Seen;
use super::split::FileSplit;
use super::{FileConfig, Format};

/// How often the coordinator asks again.
const POLL_MS: u64 = 10;
/// An epoch's plan names its files: it should not grow without bound where they are small.
const EPOCH_FILES: u64 = 10_000;

/// Plans which files an epoch reads.
pub struct FileSource {
    config: Arc<FileConfig>,
    lister: Lister,
    seen: Seen,
    /// Found and not admitted, in the order of admission.
    pending: VecDeque<Found>,
    pending_bytes: u64,
    /// Admitted files that may be asked for again, or are to be remembered; the first one has the number `log_start`.
    log: VecDeque<Found>,
    log_start: u64,
    /// Files before this number are committed.
    committed: u64,
    /// Files before this number were handed to the checkpoint.
    remembered: u64,
    /// The limit of age that was handed to the checkpoint.
    remembered_limit_us: i64,
    /// The time of the newest file that was admitted.
    newest_us: i64,
    age_max_us: i64,
    /// Some files that wait are in no list here: nobody knows how old they are.
    dropped: bool,
    /// It was taken up where an earlier run left it.
    goes_on: bool,
    /// Files that `maxFileAge` left out.
    left_out: u64,
    cleaner: Option<Cleaner>,
    /// Files before the first of the log that an earlier run read and did not clean: an older checkpoint would have
    /// read them again.
    unclean: VecDeque<Read>,
    /// The number of the first file that this run admits.
    resumed_at: u64,
}

/// A line of what is remembered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    /// A file was admitted.
    File { path: String, modified: i64 },
    /// Files older than this count as read.
    Limit { older: i64 },
}

fn offset(files: u64) -> Offset {
    Offset(json!({ "logOffset": files }))
}

fn not_ours(text: &str, what: &'static str) -> FileError {
    FileError::NotOurs {
        text: text.into(),
        what,
    }
}

fn number(offset: &Offset) -> Result<u64, FileError> {
    let number = offset.0["logOffset"].as_u64();
    number.ok_or_else(|| not_ours(&offset.0.to_string(), "offset"))
}

impl FileSource {
    pub(super) fn open(config: Arc<FileConfig>) -> Result<Self, FileError> {
        let options = &config.options;
        // Newest first with a limit reads old files late: they must not be taken for seen (Spark does the same).
        let limited =
            options.files_per_trigger_max.is_some() || options.bytes_per_trigger_max.is_some();
        let age_max_us = match options.latest_first && limited {
            true => i64::MAX,
            false => options.file_age_max_us,
        };
        let cleaner = match config.streaming {
            true => Cleaner::start(&options.clean)?,
            false => None,
        };
        Ok(FileSource {
            lister: Lister::new(&config.path, options)?,
            seen: Seen::new(options.file_name_only),
            pending: VecDeque::new(),
            pending_bytes: 0,
            log: VecDeque::new(),
            log_start: 0,
            committed: 0,
            remembered: 0,
            remembered_limit_us: i64::MIN,
            newest_us: i64::MIN,
            age_max_us,
            dropped: false,
            goes_on: false,
            left_out: 0,
            cleaner,
            unclean: VecDeque::new(),
            resumed_at: 0,
            config,
        })
    }

    fn log_end(&self) -> u64 {
        self.log_start + self.log.len() as u64
    }

    /// Takes up what the checkpoint remembers, and then the epochs planned after it.
    fn take_up(&mut self, from: Resume<'_>) -> Result<(), FileError> {
        self.goes_on = true;
        self.log_start = number(from.at)?;
        self.resumed_at = self.log_start;
        (self.committed, self.remembered) = (self.log_start, self.log_start);
        let unclean = match &self.cleaner {
            Some(_) => self.log_start.saturating_sub(number(from.oldest)?) as usize,
            None => 0,
        };
        for line in from.memory {
            match serde_json::from_str(&line) {
                Ok(Entry::File { path, modified }) => {
                    let (directory, name) = path.rsplit_once('/').unwrap_or(("", &path));
                    self.seen.meet(directory, name, modified);
                    self.newest_us = self.newest_us.max(modified);
                    if unclean > 0 {
                        if self.unclean.len() == unclean {
                            self.unclean.pop_front();
                        }
                        self.unclean.push_back(Read {
                            path,
                            modified_us: modified,
                            size: None,
                        });
                    }
                }
                Ok(Entry::Limit { older }) => self.seen.raise_limit(older),
                Err(_) => return Err(not_ours(&line, "memory")),
            }
        }
        self.remembered_limit_us = self.seen.limit_us();
        for planned in from.planned {
            let mut last: Option<String> = None;
            for split in &planned.splits {
                let split = FileSplit::parse(split)?;
                // The ranges of one file follow each other.
                if last.as_deref() != Some(&split.path) {
                    let file = split.found();
                    last = Some(split.path);
                    self.seen
                        .meet(&file.directory.path, &file.name, file.modified_us);
                    self.newest_us = self.newest_us.max(file.modified_us);
                    self.log.push_back(file);
                }
            }
            if number(&planned.end)? != self.log_end() {
                return Err(not_ours(&planned.end.0.to_string(), "planned offset"));
            }
        }
        Ok(())
    }

    /// So many files wait that listing can wait too.
    fn is_busy(&self) -> bool {
        let options = &self.config.options;
        let share = |max: u64| max as f64 * options.discard_ratio;
        let enough = match (options.files_per_trigger_max, options.bytes_per_trigger_max) {
            (Some(files), _) => self.pending.len() as f64 >= share(files),
            (_, Some(bytes)) => self.pending_bytes as f64 >= share(bytes),
            _ => false,
        };
        enough && !self.pending.is_empty()
    }

    /// Looks for new files.
    fn look(&mut self) -> Result<(), FileError> {
        if !self.config.streaming {
            // A batch reads what is there when it starts, in the order of the paths.
            if self.log_end() == 0 && self.pending.is_empty() {
                for file in self.lister.list_all()? {
                    self.wait(file);
                }
            }
            return Ok(());
        }
        self.keep_to_cache();
        if self.is_busy() {
            return Ok(());
        }
        let seen = &self.seen;
        let mut found = self
            .lister
            .list(&|directory, file| seen.knows(directory, file))?;
        self.dropped = false;
        if found.is_empty() {
            return Ok(());
        }
        settle(&mut found);
        // Of two files with one name the older one is read.
        found.sort_by(Found::cmp_age);
        let (before, mut old) = (self.pending.len(), 0u64);
        for file in found {
            match self
                .seen
                .meet(&file.directory.path, &file.name, file.modified_us)
            {
                true => self.wait(file),
                false => old += u64::from(file.modified_us < self.seen.limit_us()),
            }
        }
        if old > 0 {
            self.warn_of_old(old);
        }
        self.seen.purge(self.lister.files());
        if self.pending.len() > before {
            let pending = self.pending.make_contiguous();
            match self.config.options.latest_first {
                false => pending.sort_by(Found::cmp_age),
                true => pending.sort_by(|a, b| b.cmp_age(a)),
            }
        }
        Ok(())
    }

    /// Files were found that `maxFileAge` leaves out.
    fn warn_of_old(&mut self, files: u64) {
        self.left_out += files;
        // Names of old files are not kept for ever.
        let unless = match self.goes_on {
            true => ", unless an earlier run of the query read them",
            false => "",
        };
        tracing::warn!(
            path = self.config.path,
            files,
            left_out = self.left_out,
            "{files} of the files in \"{}\" are not read{unless}: they are older than the newest file that was read by more than \
             maxFileAge; a longer maxFileAge lets such files in",
            self.config.path
        );
    }

    fn wait(&mut self, file: Found) {
        self.pending_bytes += file.size;
        self.pending.push_back(file);
    }

    /// Keeps no more waiting files than `maxCachedFiles` says; the others are found again. Those that an epoch was
    /// already told of (by `latest`) stay until it was opened.
    fn keep_to_cache(&mut self) {
        let Some(max) = self.config.options.cached_files_max else {
            return;
        };
        if self.pending.len() as u64 <= max {
            return;
        }
        for file in self.pending.drain(max as usize..) {
            self.pending_bytes -= file.size;
            self.seen.unmeet(&file.directory.path, &file.name);
        }
        self.lister.distrust();
        self.dropped = true;
    }

    /// The file with a number: from the log, or the next one that waits, which thereby gets it.
    fn file(&mut self, at: u64) -> Result<&Found, FileError> {
        if at < self.committed {
            return Err(FileError::Forgotten {
                from: at,
                to: self.committed,
            });
        }
        if at == self.log_end()
            && let Some(file) = self.pending.pop_front()
        {
            self.pending_bytes -= file.size;
            self.newest_us = self.newest_us.max(file.modified_us);
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
            files_max = options.files_per_trigger_max.unwrap_or(EPOCH_FILES);
            bytes_max = bytes_max.min(options.bytes_per_trigger_max.unwrap_or(u64::MAX));
        }
        let can_be_cut = self.config.can_be_cut();
        let (mut splits, mut bytes, mut at) = (Vec::new(), 0u64, from);
        while at < to && at - from < files_max {
            let waiting = self.pending.front().map(|file| file.size);
            let logged = self.log.get(at.saturating_sub(self.log_start) as usize);
            let Some(size) = logged.map(|file| file.size).or(waiting) else {
                break; // fewer wait than there were: the others are found again
            };
            if at > from && bytes.saturating_add(size) > bytes_max {
                break;
            }
            bytes = bytes.saturating_add(size);
            splits.extend(FileSplit::of(self.file(at)?, can_be_cut));
            at += 1;
        }
        // What still waits must not become too old on the way.
        let oldest = match self.config.options.latest_first {
            true => self.pending.back(),
            false => self.pending.front(),
        };
        let oldest = oldest.map_or(i64::MAX, |file| file.modified_us);
        let limit = self.newest_us.saturating_sub(self.age_max_us);
        if !self.dropped {
            self.seen.raise_limit(limit.min(oldest));
        }
        Ok((at > from).then(|| Admitted {
            end: offset(at),
            splits: splits.iter().map(FileSplit::to_split).collect(),
        }))
    }

    /// Lets go of files that are neither asked for again nor to be remembered.
    fn trim(&mut self) {
        let end = match self.config.streaming {
            true => self.committed.min(self.remembered),
            false => self.committed,
        };
        while self.log_start < end && self.log.pop_front().is_some() {
            self.log_start += 1;
        }
    }

    fn remember_to(&mut self, end: u64) -> Vec<String> {
        let line = |entry: &Entry| serde_json::to_string(entry).expect("it can be written");
        let mut lines = Vec::new();
        let end = end.min(self.log_end());
        for at in self.remembered.max(self.log_start)..end {
            let file = &self.log[(at - self.log_start) as usize];
            lines.push(line(&Entry::File {
                path: file.path(),
                modified: file.modified_us,
            }));
        }
        self.remembered = self.remembered.max(end);
        // Files behind `end` may be planned anew after a crash: they must not count as read.
        let behind = self.log.iter().skip((end - self.log_start) as usize);
        let limit = behind
            .map(|file| file.modified_us)
            .fold(self.seen.limit_us(), i64::min);
        if limit > self.remembered_limit_us {
            self.remembered_limit_us = limit;
            lines.push(line(&Entry::Limit { older: limit }));
        }
        self.trim();
        lines
    }
}

impl Source for FileSource {
    fn description(&self) -> String {
        format!("FileStreamSource[{}]", self.config.path)
    }

    fn fixed(&self) -> Vec<(&'static str, String)> {
        let mut fixed = vec![
            ("format", self.config.connector.into()),
            ("path", self.config.path.clone()),
        ];
        // The files that were read are known by their whole names: elsewhere they would all be new.
        let whole = local(&self.config.path).map(std::path::absolute);
        if let Ok(Ok(whole)) = whole {
            fixed.push(("directory", whole.display().to_string()));
        }
        fixed
    }

    fn watch(&mut self, _: Waker) -> Result<Watch, SourceError> {
        Ok(Watch::PollEveryMs(POLL_MS))
    }

    fn remember(&mut self, end: &Offset) -> Vec<String> {
        number(end).map_or(Vec::new(), |end| self.remember_to(end))
    }

    fn still_needs(&self, entry: &str) -> bool {
        match serde_json::from_str(entry) {
            Ok(Entry::File { modified, .. }) => modified >= self.remembered_limit_us,
            Ok(Entry::Limit { older }) => older >= self.remembered_limit_us,
            Err(_) => true, // told when it is read
        }
    }

    fn replan(&mut self, planned: &Planned) -> Result<Option<Vec<Split>>, SourceError> {
        let splits = planned.splits.iter().map(FileSplit::parse);
        let splits: Result<Vec<FileSplit>, FileError> = splits.collect();
        let splits = splits.map_err(|error| error.of_source(self.config.connector))?;
        let renewed = FileSplit::renewed(&splits, self.config.can_be_cut());
        Ok(renewed.map(|splits| splits.iter().map(FileSplit::to_split).collect()))
    }

    fn resume(&mut self, from: Resume<'_>) -> Result<(), SourceError> {
        let connector = self.config.connector;
        self.take_up(from)
            .map_err(|error| error.of_source(connector))
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

    fn committed(&mut self, end: &Offset) -> Result<(), SourceError> {
        let end = number(end).map_err(|error| error.of_source(self.config.connector))?;
        let end = end.min(self.log_end());
        if let Some(cleaner) = &self.cleaner {
            // They are those before the first one that this run admitted.
            while self.unclean.len() as u64 > self.resumed_at.saturating_sub(end)
                && let Some(file) = self.unclean.pop_front()
            {
                cleaner.clean(file);
            }
            for at in self.committed..end {
                let file = &self.log[(at - self.log_start) as usize];
                cleaner.clean(Read {
                    path: file.path(),
                    modified_us: file.modified_us,
                    size: Some(file.size),
                });
            }
        }
        self.committed = self.committed.max(end);
        self.trim();
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

impl FileConfig {
    /// Whether a part of a file can be read without what comes before it.
    fn can_be_cut(&self) -> bool {
        let of_lines = matches!(self.format, Format::Text | Format::Json(_) | Format::Csv(_));
        of_lines && self.rules.can_be_cut()
    }
}
