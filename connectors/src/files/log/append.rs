//! Writes a query's log: runs, segments, and what is forgotten.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use highwater_engine::failpoint::reach;

use super::{Entry, FANOUT, FLOOR, Floor, Item, LogError, Part, VERSION, floor, items, read};

/// Names of files that are being written.
const TEMPORARY: &str = ".tmp-";

/// The log of one query, for writing. Only one may be open; of two, the second to write a run loses.
#[derive(Debug)]
pub(in crate::files) struct LogWriter {
    directory: PathBuf,
    last: Option<Entry>,
    retention_us: Option<i64>,
}

impl LogWriter {
    /// Opens the log in `directory`, which need not be there, and ends what a crash left half done in it.
    pub(in crate::files) fn open(
        directory: PathBuf,
        retention_us: Option<i64>,
    ) -> Result<Self, LogError> {
        let mut log = LogWriter {
            directory,
            last: None,
            retention_us,
        };
        if !log.directory.is_dir() {
            return Ok(log);
        }
        remove_files(&log.directory, |name| name.starts_with(TEMPORARY))?;
        let items = items(&log.directory)?;
        if let Some(newest) = items.iter().max_by_key(|item| (item.to, item.from)) {
            log.last = read(&log.directory, *newest, newest.to)?.pop();
            log.compact()?;
            log.remove_repeated(&items)?;
        }
        Ok(log)
    }

    /// The newest run.
    pub(in crate::files) fn last(&self) -> Option<&Entry> {
        self.last.as_ref()
    }

    /// The newest epoch that was committed.
    pub(in crate::files) fn committed(&self) -> Option<u64> {
        self.last.as_ref().map(|entry| entry.last)
    }

    /// Commits a run: once its line is there, it is. Segments come first, so nothing can fail behind it.
    pub(in crate::files) fn append(
        &mut self,
        first: u64,
        last: u64,
        parts: Vec<Part>,
    ) -> Result<&Entry, LogError> {
        self.compact()?;
        if !self.directory.is_dir() {
            create_directories(&self.directory)
                .map_err(|source| LogError::write(&self.directory, source))?;
        }
        let (number, after_us) = match &self.last {
            Some(entry) => (entry.number + 1, entry.time_us),
            None => (0, i64::MIN + 1),
        };
        let entry = Entry {
            version: VERSION,
            number,
            first,
            last,
            time_us: now_us().max(after_us.saturating_add(1)),
            parts,
        };
        reach("sink.log.before");
        self.put(&Item::run(number).name(), entry.to_line().as_bytes())?;
        reach("sink.log.after");
        Ok(self.last.insert(entry))
    }

    /// Writes the segments that are due, if any, and forgets what is older than the retention.
    fn compact(&self) -> Result<(), LogError> {
        let Some(last) = &self.last else {
            return Ok(());
        };
        let full = (last.number + 1) / FANOUT * FANOUT;
        if full == 0 {
            return Ok(());
        }
        let segment = Item {
            from: full - FANOUT,
            to: full - 1,
        };
        let floor = floor(&self.directory)?;
        if segment.to >= floor && !self.directory.join(segment.name()).exists() {
            self.write_segment(segment, 1)?;
            self.forget()?;
            if full > FANOUT {
                // The last hundred runs stay in their own files.
                self.remove((full - 2 * FANOUT..full - FANOUT).map(Item::run))?;
            }
        }
        let long = FANOUT * FANOUT;
        let full = full / long * long;
        if full == 0 {
            return Ok(());
        }
        let segment = Item {
            from: full - long,
            to: full - 1,
        };
        if segment.to >= floor && !self.directory.join(segment.name()).exists() {
            self.write_segment(segment, FANOUT)?;
            if full > long {
                self.remove(segments(full - 2 * long, full - long))?;
            }
        }
        Ok(())
    }

    /// Repeats what is in files of `step` runs. Files of what is forgotten may be gone.
    fn write_segment(&self, segment: Item, step: u64) -> Result<(), LogError> {
        let floor = floor(&self.directory)?;
        let mut text = String::new();
        for from in (segment.from..=segment.to).step_by(step as usize) {
            let item = Item {
                from,
                to: from + step - 1,
            };
            if item.to < floor {
                continue;
            }
            for entry in read(&self.directory, item, 0)? {
                text.push_str(&entry.to_line());
            }
        }
        reach("sink.segment.before");
        match self.put(&segment.name(), text.as_bytes()) {
            Err(LogError::OtherWriter { .. }) | Ok(()) => {}
            Err(error) => return Err(error),
        }
        reach("sink.segment.after");
        Ok(())
    }

    /// Moves the floor past runs that are older than the retention.
    fn forget(&self) -> Result<(), LogError> {
        let (Some(retention_us), Some(last)) = (self.retention_us, &self.last) else {
            return Ok(());
        };
        let limit_us = now_us().saturating_sub(retention_us);
        let was = floor(&self.directory)?;
        let mut now = was;
        let items = items(&self.directory)?;
        let chosen = super::cover(&items, was).unwrap_or_default();
        'looking: for item in chosen {
            for entry in read(&self.directory, item, now)? {
                // The newest run says where a restart goes on.
                if entry.time_us >= limit_us || entry.number == last.number {
                    break 'looking;
                }
                now = entry.number + 1;
            }
        }
        if now == was {
            return Ok(());
        }
        let text = serde_json::to_vec(&Floor {
            version: VERSION,
            number: now,
        });
        let (temporary, path) = self.write_temporary(FLOOR, &text.expect("plain data"))?;
        reach("sink.floor.before");
        fs::rename(&temporary, &path)
            .and_then(|()| sync_directory(&self.directory))
            .map_err(|source| LogError::write(&path, source))?;
        reach("sink.floor.after");
        let forgotten = items.iter().filter(|item| item.to < now);
        self.remove(forgotten.copied())
    }

    /// Removes what segments repeat and nobody can be reading any more: a crash came between the two.
    fn remove_repeated(&self, items: &[Item]) -> Result<(), LogError> {
        let Some(last) = &self.last else {
            return Ok(());
        };
        let floor = floor(&self.directory)?;
        let repeated = |item: &Item| {
            let kept = match item.length() {
                1 => FANOUT,
                FANOUT => FANOUT * FANOUT,
                _ => return item.to < floor,
            };
            // What was full one segment ago.
            let full = (last.number + 1) / kept * kept;
            item.to < full.saturating_sub(kept) || item.to < floor
        };
        self.remove(items.iter().copied().filter(repeated))
    }

    fn remove(&self, items: impl Iterator<Item = Item>) -> Result<(), LogError> {
        reach("sink.forget.before");
        for item in items {
            let path = self.directory.join(item.name());
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(LogError::write(&path, error));
                }
                _ => {}
            }
        }
        reach("sink.forget.after");
        Ok(())
    }

    fn write_temporary(&self, name: &str, bytes: &[u8]) -> Result<(PathBuf, PathBuf), LogError> {
        let temporary = self.directory.join(format!("{TEMPORARY}{name}"));
        let path = self.directory.join(name);
        // Made anew: whoever else has it open is another run of this query.
        let written = File::create_new(&temporary).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        match written {
            Ok(()) => Ok((temporary, path)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(LogError::OtherWriter {
                path: path.display().to_string(),
            }),
            Err(source) => {
                let _ = fs::remove_file(&temporary);
                Err(LogError::write(&path, source))
            }
        }
    }

    /// Writes a file that was not there, whole or not at all.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), LogError> {
        let (temporary, path) = self.write_temporary(name, bytes)?;
        let linked = fs::hard_link(&temporary, &path);
        let _ = fs::remove_file(&temporary);
        match linked.and_then(|()| sync_directory(&self.directory)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(LogError::OtherWriter {
                path: path.display().to_string(),
            }),
            Err(source) => Err(LogError::write(&path, source)),
        }
    }
}

/// The short segments that make up `from..to`.
fn segments(from: u64, to: u64) -> impl Iterator<Item = Item> {
    (from..to).step_by(FANOUT as usize).map(|from| Item {
        from,
        to: from + FANOUT - 1,
    })
}

fn now_us() -> i64 {
    #[allow(
        clippy::disallowed_methods,
        reason = "the log tells when a run was committed; no row depends on it"
    )]
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_micros() as i64)
}

/// Removes the files in a directory whose names are `unwanted`.
pub(in crate::files) fn remove_files(
    directory: &Path,
    unwanted: impl Fn(&str) -> bool,
) -> Result<(), LogError> {
    let failed = |source| LogError::write(directory, source);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(LogError::read(directory, source)),
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_str().is_some_and(&unwanted) {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(LogError::write(&entry.path(), error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Names in a directory are durable once it is.
pub(in crate::files) fn sync_directory(path: &Path) -> io::Result<()> {
    match cfg!(unix) {
        true => File::open(path)?.sync_all(),
        false => Ok(()),
    }
}

/// Creates what is missing of a path, durably.
pub(in crate::files) fn create_directories(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|at| !at.is_dir()).collect();
    fs::create_dir_all(path)?;
    for parent in missing.iter().filter_map(|at| at.parent()) {
        sync_directory(parent)?;
    }
    Ok(())
}
