//! The commit log that file sinks keep in their output directory, and that our readers honour.
//!
//! `_highwater_log/<query>/` belongs to one query, so several may write into one directory and none waits for another.
//! `000000000017.json` is the query's 17th committed run: which epochs, which files of what size. A hundred of them
//! are repeated in one segment, `000000000000-000000000099.jsonl`, and a hundred segments in a longer one: the number
//! of files to list and open stays small however old the query is, and nothing is ever rewritten. What a segment
//! repeats is removed a whole segment later, so whoever has just listed the directory still finds what it saw, and
//! the newest run is always in a file of its own, which makes a restart independent of age.
//!
//! `floor.json` is there if the query has a retention: runs with lower numbers are forgotten.
//!
//! Every line is `{"crc32":"..","entry":{..}}`: JSON, and a checksum of the bytes of its entry.

mod append;

use std::fs;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::Crc;
use serde::{Deserialize, Serialize};

pub(super) use append::{LogWriter, create_directories, remove_files, sync_directory};

/// The directory of logs, below the output directory. Whoever lists the output leaves out such names.
pub(super) const LOG: &str = "_highwater_log";

/// What waits for its commit, below the output directory.
pub(super) const STAGED: &str = "_highwater_staged";

/// The log of nobody: the files that were in a directory before it had a log.
pub(super) const BEFORE: &str = "before";

/// How the name of a directory in it ends that a newer run has taken from an older one.
pub(super) const ENDED: &str = ".ended";

/// The format of entries. Older ones can be read.
const VERSION: u32 = 1;

/// So many runs make a segment, and so many segments a longer one.
const FANOUT: u64 = 100;

/// The file that says which runs are forgotten.
const FLOOR: &str = "floor.json";

/// What can be wrong with a log.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    #[error("could not read \"{path}\"")]
    Read { path: String, source: io::Error },
    #[error("could not write \"{path}\"")]
    Write { path: String, source: io::Error },
    #[error("\"{path}\" {reason}")]
    Damaged { path: String, reason: String },
    #[error("\"{path}\" is another run's")]
    OtherWriter { path: String },
}

impl LogError {
    fn read(path: &Path, source: io::Error) -> Self {
        let path = path.display().to_string();
        LogError::Read { path, source }
    }

    fn write(path: &Path, source: io::Error) -> Self {
        let path = path.display().to_string();
        LogError::Write { path, source }
    }

    fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        LogError::Damaged {
            path: path.display().to_string(),
            reason: reason.into(),
        }
    }

    fn is_missing(&self) -> bool {
        matches!(self, LogError::Read { source, .. } if source.kind() == ErrorKind::NotFound)
    }
}

/// One committed file. Names are relative to the output directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) path: String,
    /// Where it was before the commit; empty for a file that was there before there was a log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) staged: String,
    pub(super) bytes: u64,
    pub(super) rows: u64,
    /// When it was last changed, if it was there before: microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) modified_us: Option<i64>,
}

/// Where a part still waits for its rename, below `staged`, the directory of the query. From the directory of its run it
/// moves on only: to that of a run that has ended, and to its place.
pub(super) fn waiting(staged: &Path, part: &Part) -> Option<PathBuf> {
    let path = staged.join(&part.staged);
    if path.exists() {
        return Some(path);
    }
    let (generation, name) = part.staged.split_once('/')?;
    let path = staged.join(format!("{generation}{ENDED}")).join(name);
    path.exists().then_some(path)
}

/// What to do about a log that is not whole.
const FIX: &str = "restore it from a copy, or start over with an empty output directory and an empty checkpoint directory";

/// One committed run of epochs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) version: u32,
    pub(super) number: u64,
    /// The run's first epoch.
    pub(super) first: u64,
    /// The run's last epoch.
    pub(super) last: u64,
    /// When it was committed, later than the query's entry before: microseconds since 1970.
    pub(super) time_us: i64,
    pub(super) parts: Vec<Part>,
}

const HEAD: &str = "{\"crc32\":\"";
const MIDDLE: &str = "\",\"entry\":";

fn crc32(text: &str) -> String {
    let mut crc = Crc::new();
    crc.update(text.as_bytes());
    format!("{:08x}", crc.sum())
}

impl Entry {
    fn to_line(&self) -> String {
        let entry = serde_json::to_string(self).expect("strings and numbers can be written");
        format!("{HEAD}{}{MIDDLE}{entry}}}\n", crc32(&entry))
    }

    fn parse(line: &str) -> Result<Entry, String> {
        let rest = line.strip_prefix(HEAD).and_then(|rest| {
            let (crc, rest) = rest.split_once(MIDDLE)?;
            Some((crc, rest.strip_suffix('}')?))
        });
        let (crc, entry) =
            rest.ok_or_else(|| format!("is no log entry, or only a part of one; {FIX}"))?;
        if crc != crc32(entry) {
            return Err(format!("is damaged: its checksum is another; {FIX}"));
        }
        let entry: Entry = serde_json::from_str(entry)
            .map_err(|error| format!("is no log entry of this version: {error}"))?;
        match entry.version {
            VERSION => Ok(entry),
            other => Err(format!(
                "has format version {other}; this build reads version {VERSION}"
            )),
        }
    }
}

/// A file of the log: the runs `from..=to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    from: u64,
    to: u64,
}

impl Item {
    fn run(number: u64) -> Item {
        Item {
            from: number,
            to: number,
        }
    }

    fn parse(name: &str) -> Option<Item> {
        if let Some(number) = name.strip_suffix(".json") {
            return Some(Item::run(digits(number)?));
        }
        let (from, to) = name.strip_suffix(".jsonl")?.split_once('-')?;
        let (from, to) = (digits(from)?, digits(to)?);
        (from < to).then_some(Item { from, to })
    }

    fn name(&self) -> String {
        match self.from == self.to {
            true => format!("{:012}.json", self.from),
            false => format!("{:012}-{:012}.jsonl", self.from, self.to),
        }
    }

    fn length(&self) -> u64 {
        self.to - self.from + 1
    }
}

fn digits(text: &str) -> Option<u64> {
    let all = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| all)
}

/// The files of a query's log, in order; a longer one before those it repeats.
fn items(directory: &Path) -> Result<Vec<Item>, LogError> {
    let failed = |source| LogError::read(directory, source);
    let mut items = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        items.extend(name.to_str().and_then(Item::parse));
    }
    items.sort_by_key(|item| (item.from, std::cmp::Reverse(item.to)));
    Ok(items)
}

/// The fewest items that hold the runs from `next` on; `Err` if one is missing between others.
fn cover(items: &[Item], mut next: u64) -> Result<Vec<Item>, u64> {
    let mut chosen: Vec<Item> = Vec::new();
    for item in items {
        if item.to < next {
            continue; // a longer one has it
        }
        if item.from > next {
            return Err(next);
        }
        next = item.to + 1;
        chosen.push(*item);
    }
    Ok(chosen)
}

/// Run `number` is in no file.
fn is_missing(directory: &Path, number: u64) -> LogError {
    let path = directory.join(Item::run(number).name());
    LogError::damaged(&path, format!("is missing from the log; {FIX}"))
}

/// Checks that readers of a log will find all its runs whole. However old the query is, that takes a bounded time: of long
/// segments only the newest is read, and of the others the first and the last run.
fn check(directory: &Path, items: &[Item]) -> Result<(), LogError> {
    let floor = floor(directory)?;
    let chosen = cover(items, floor).map_err(|missing| is_missing(directory, missing))?;
    let is_long = |item: &&Item| item.length() > FANOUT;
    let newest_long = chosen.iter().rfind(is_long).copied();
    for item in chosen {
        match is_long(&&item) && Some(item) != newest_long {
            true => check_ends(directory, item)?,
            false => {
                read(directory, item, floor)?;
            }
        }
    }
    Ok(())
}

/// Checks the first and the last run in a file.
fn check_ends(directory: &Path, item: Item) -> Result<(), LogError> {
    /// A line that is longer is not looked at.
    const LINE_BYTES: u64 = 64 << 10;
    let path = directory.join(item.name());
    let ends = || {
        let mut file = fs::File::open(&path)?;
        let bytes = file.metadata()?.len();
        let mut first = Vec::new();
        file.by_ref().take(LINE_BYTES).read_to_end(&mut first)?;
        file.seek(SeekFrom::Start(bytes.saturating_sub(LINE_BYTES)))?;
        let mut last = Vec::new();
        file.read_to_end(&mut last)?;
        Ok((first, last))
    };
    let (first, last) = ends().map_err(|source| LogError::read(&path, source))?;
    let first = first.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
    let whole = last.strip_suffix(b"\n").unwrap_or(&last);
    let begin = whole.iter().rposition(|byte| *byte == b'\n');
    let last = begin.map_or(whole, |begin| &whole[begin + 1..]);
    for line in [first, last] {
        if line.len() < LINE_BYTES as usize {
            let line = String::from_utf8_lossy(line);
            Entry::parse(&line).map_err(|reason| LogError::damaged(&path, reason))?;
        }
    }
    Ok(())
}

/// The runs in one file of the log, from number `from` on.
fn read(directory: &Path, item: Item, from: u64) -> Result<Vec<Entry>, LogError> {
    let path = directory.join(item.name());
    let bytes = fs::read(&path).map_err(|source| LogError::read(&path, source))?;
    let text = String::from_utf8(bytes).map_err(|_| LogError::damaged(&path, "is no text"))?;
    let mut entries = Vec::new();
    for line in text.lines() {
        let entry = Entry::parse(line).map_err(|reason| LogError::damaged(&path, reason))?;
        if entry.number >= from {
            entries.push(entry);
        }
    }
    // A segment may begin late: what was forgotten before it was written is not in it.
    let begins = entries.first().map_or(item.from, |entry| entry.number);
    let numbers = entries.iter().map(|entry| entry.number);
    if begins < item.from || !numbers.eq(begins..=item.to) {
        let reason = format!("does not hold the runs its name says, each once; {FIX}");
        return Err(LogError::damaged(&path, reason));
    }
    Ok(entries)
}

#[derive(Serialize, Deserialize)]
struct Floor {
    version: u32,
    number: u64,
}

/// The number below which runs are forgotten.
fn floor(directory: &Path) -> Result<u64, LogError> {
    let path = directory.join(FLOOR);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(|floor: Floor| floor.number)
            .map_err(|error| LogError::damaged(&path, format!("cannot be read: {error}; {FIX}"))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(source) => Err(LogError::read(&path, source)),
    }
}

/// The log of one query, for reading.
#[derive(Debug)]
pub(super) struct LogReader {
    directory: PathBuf,
    next: u64,
}

impl LogReader {
    /// Reads the log in `directory` from its beginning.
    pub(super) fn new(directory: PathBuf) -> Self {
        LogReader { directory, next: 0 }
    }

    /// Hands on the runs that came since the last time, oldest first, until one is not `taken`: it will come again.
    pub(super) fn advance(
        &mut self,
        taken: &mut dyn FnMut(&Entry, bool) -> bool,
    ) -> Result<(), LogError> {
        // What is in files of its own may be removed while we read, but then a segment has it: look again.
        let mut tries = 0;
        'again: loop {
            tries += 1;
            let items = match items(&self.directory) {
                Ok(items) => items,
                Err(error) if error.is_missing() => return Ok(()),
                Err(error) => return Err(error),
            };
            self.next = self.next.max(floor(&self.directory)?);
            let chosen = match cover(&items, self.next) {
                Ok(chosen) => chosen,
                Err(_) if tries < 10 => continue 'again,
                Err(missing) => return Err(is_missing(&self.directory, missing)),
            };
            let newest = chosen.last().map(|item| item.to);
            for item in chosen {
                let entries = match read(&self.directory, item, self.next) {
                    Ok(entries) => entries,
                    Err(error) if error.is_missing() && tries < 10 => continue 'again,
                    Err(error) => return Err(error),
                };
                if entries
                    .first()
                    .is_some_and(|entry| entry.number > self.next)
                    && tries < 10
                {
                    continue 'again; // the floor has moved
                }
                for entry in entries {
                    if !taken(&entry, Some(entry.number) == newest) {
                        return Ok(());
                    }
                    self.next = entry.number + 1;
                }
            }
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(from: u64, to: u64) -> Item {
        Item { from, to }
    }

    #[test]
    fn names_say_what_is_in_a_file() {
        for item in [item(7, 7), item(0, 99), item(10_000, 19_999)] {
            assert_eq!(Item::parse(&item.name()), Some(item));
        }
        for other in [
            "floor.json",
            ".tmp-000000000007.json",
            "9-3.jsonl",
            "x",
            "+7.json",
            ".json",
        ] {
            assert_eq!(Item::parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_longest_files_that_follow_each_other_are_read() {
        let check = |items: &[Item], next, expected: Result<Vec<Item>, u64>| {
            let mut items = items.to_vec();
            items.sort_by_key(|item| (item.from, std::cmp::Reverse(item.to)));
            assert_eq!(cover(&items, next), expected);
        };
        let all = [
            item(3, 3),
            item(0, 1),
            item(0, 3),
            item(2, 3),
            item(2, 2),
            item(4, 4),
            item(5, 5),
        ];
        check(&all, 0, Ok(vec![item(0, 3), item(4, 4), item(5, 5)]));
        check(&all, 3, Ok(vec![item(0, 3), item(4, 4), item(5, 5)]));
        check(&all, 5, Ok(vec![item(5, 5)]));
        check(&all, 6, Ok(vec![]));
        check(&[item(0, 1), item(3, 3)], 0, Err(2));
        check(&[item(4, 5)], 0, Err(0));
    }

    #[test]
    fn every_flipped_bit_of_an_entry_is_noticed() {
        let entry = Entry {
            version: VERSION,
            number: 3,
            first: 5,
            last: 9,
            time_us: 1,
            parts: vec![Part {
                path: "k=a/part-1.json".into(),
                staged: "1.0".into(),
                bytes: 3,
                rows: 1,
                modified_us: None,
            }],
        };
        let line = entry.to_line();
        assert_eq!(Entry::parse(line.trim_end()), Ok(entry.clone()));
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["entry"]["last"], 9);
        for at in 0..line.len() - 1 {
            let mut bytes = line.trim_end().as_bytes().to_vec();
            bytes[at] ^= 1;
            let text = String::from_utf8(bytes).unwrap();
            assert!(Entry::parse(&text).is_err(), "{text}");
            assert!(Entry::parse(&line[..at]).is_err());
        }
        let newer = Entry {
            version: 2,
            ..entry
        }
        .to_line();
        let error = Entry::parse(newer.trim_end()).unwrap_err();
        assert_eq!(error, "has format version 2; this build reads version 1");
    }
}
