//! Writes a query's log: runs, segments, and what is forgotten.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use highwater_engine::failpoint::reach;

use super::{
    Entry, FANOUT, FLOOR, Floor, Item, LogError, Part, VERSION, check, floor, items, read,
};

/// Names of files that are being written.
const TEMPORARY: &str = ".tmp-";

/// The log of one query, for writing. Only one may be open; of two, the second to write a run loses.
#[derive(Debug)]
pub(in crate::files) struct LogWriter {
    directory: PathBuf,
    /// Where its files are written before they get their name. Whoever takes it away stops this writer.
    unnamed: PathBuf,
    last: Option<Entry>,
    retention_us: Option<i64>,
}

impl LogWriter {
    /// Opens the log in `directory`, which need not be there, and ends what a crash left half done in it. Files are written
    /// in `unnamed` first, on the same file system.
    pub(in crate::files) fn open(
        directory: PathBuf,
        unnamed: PathBuf,
        retention_us: Option<i64>,
    ) -> Result<Self, LogError> {
        let mut log = LogWriter {
            directory,
            unnamed,
            last: None,
            retention_us,
        };
        if !log.directory.is_dir() {
            return Ok(log);
        }
        for directory in [&log.directory, &log.unnamed] {
            remove_files(directory, |name| name.starts_with(TEMPORARY))?;
        }
        let items = items(&log.directory)?;
        if let Some(newest) = items.iter().max_by_key(|item| (item.to, item.from)) {
            check(&log.directory, &items)?;
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

    /// The file that the next run goes to.
    pub(in crate::files) fn next_path(&self) -> PathBuf {
        let number = self.last.as_ref().map_or(0, |entry| entry.number + 1);
        self.directory.join(Item::run(number).name())
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
            if self.last.is_some() {
                let gone = io::Error::from(io::ErrorKind::NotFound);
                return Err(LogError::write(&self.directory, gone));
            }
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
        let temporary = self.unnamed.join(format!("{TEMPORARY}{name}"));
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
            // Ours, from an attempt that failed behind it.
            Err(error)
                if error.kind() == ErrorKind::AlreadyExists
                    && fs::read(&path).is_ok_and(|there| there == bytes) =>
            {
                sync_directory(&self.directory).map_err(|source| LogError::write(&path, source))
            }
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::LogReader;
    use super::*;

    fn part(number: u64) -> Part {
        Part {
            path: format!("part-{number:05}-0-7a0c5d3e-2f4b-4c8e-9d1a-3b5e7f9a1c2d.snappy.parquet"),
            staged: format!("{number:05}-0.0"),
            bytes: 1000 + number,
            rows: 10,
            modified_us: None,
        }
    }

    fn numbers(reader: &mut LogReader) -> Vec<u64> {
        let mut found = Vec::new();
        let mut taken = |entry: &Entry, _| {
            assert_eq!(entry.parts, [part(entry.number)]);
            found.push(entry.number);
            true
        };
        reader.advance(&mut taken).unwrap();
        found
    }

    #[allow(clippy::disallowed_methods, reason = "it measures")]
    /// A log of `runs` runs, its size as files, and how long an append, a restart and a reader's start take.
    fn check(runs: u64) {
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::open(path.clone(), path.clone(), None).unwrap();
        let mut follower = LogReader::new(path.clone());
        let mut followed = 0;
        let begun = Instant::now();
        for number in 0..runs {
            log.append(number, number, vec![part(number)]).unwrap();
            // One that looks rarely, and not in step with segments.
            if number % 777 == 0 {
                followed += numbers(&mut follower).len() as u64;
            }
        }
        let append = begun.elapsed() / runs as u32;
        assert_eq!(followed + numbers(&mut follower).len() as u64, runs);
        let files = items(&path).unwrap().len() as u64;
        assert!(
            files <= 4 * FANOUT + runs / (FANOUT * FANOUT),
            "{files} files"
        );
        let begun = Instant::now();
        assert_eq!(
            LogWriter::open(path.clone(), path.clone(), None)
                .unwrap()
                .committed(),
            Some(runs - 1)
        );
        let restart = begun.elapsed();
        let begun = Instant::now();
        let mut reader = LogReader::new(path.clone());
        assert!(numbers(&mut reader).into_iter().eq(0..runs));
        let read = begun.elapsed();
        let sizes = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len());
        let bytes: u64 = sizes.sum();
        println!(
            "{runs} runs: {files} files, {bytes} bytes; an append {append:?}, a restart {restart:?}, a reader's start \
             {read:?}"
        );
    }

    #[test]
    fn a_log_stays_short() {
        check(10_350);
    }

    #[test]
    #[ignore = "a measurement"]
    fn a_log_of_100_000_runs() {
        check(1050);
        check(100_050);
    }

    #[test]
    fn what_is_older_than_the_retention_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::open(path.clone(), path.clone(), Some(1)).unwrap();
        let mut follower = LogReader::new(path.clone());
        for number in 0..350 {
            log.append(number, number, vec![part(number)]).unwrap();
            if number == 50 {
                assert_eq!(numbers(&mut follower).len(), 51);
            }
        }
        assert_eq!(
            numbers(&mut LogReader::new(path.clone())),
            (299..350).collect::<Vec<_>>()
        );
        assert_eq!(numbers(&mut follower), (299..350).collect::<Vec<_>>());
        assert!(items(&path).unwrap().iter().all(|item| item.to >= 299));
        // It goes on where it was, and keeps all from then on if nothing is to be forgotten.
        let mut log = LogWriter::open(path.clone(), path.clone(), None).unwrap();
        assert_eq!(log.committed(), Some(349));
        for number in 350..520 {
            log.append(number, number, vec![part(number)]).unwrap();
        }
        assert_eq!(
            numbers(&mut LogReader::new(path)),
            (299..520).collect::<Vec<_>>()
        );
    }

    #[test]
    fn an_entry_that_is_written_again_is_known_for_ours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::open(path.clone(), path, None).unwrap();
        log.append(0, 0, Vec::new()).unwrap();
        log.put("1", b"ours").unwrap();
        log.put("1", b"ours").unwrap();
        let error = log.put("1", b"theirs").unwrap_err();
        assert!(matches!(error, LogError::OtherWriter { .. }), "{error}");
    }

    #[test]
    fn of_two_writers_the_second_loses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut first = LogWriter::open(path.clone(), path.clone(), None).unwrap();
        first.append(0, 0, Vec::new()).unwrap();
        let mut second = LogWriter::open(path.clone(), path.clone(), None).unwrap();
        second.append(1, 4, Vec::new()).unwrap();
        let error = first.append(1, 2, Vec::new()).unwrap_err();
        assert!(matches!(error, LogError::OtherWriter { .. }), "{error}");
        assert_eq!(
            LogWriter::open(path.clone(), path, None)
                .unwrap()
                .committed(),
            Some(4)
        );
    }

    #[test]
    fn damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::open(path.clone(), path.clone(), None).unwrap();
        for number in 0..3 {
            log.append(number, number, vec![part(number)]).unwrap();
        }
        let reads = || {
            LogReader::new(path.clone())
                .advance(&mut |_, _| true)
                .map_err(|e| e.to_string())
        };
        let newest = path.join("000000000002.json");
        let whole = fs::read(&newest).unwrap();
        fs::write(&newest, &whole[..whole.len() / 2]).unwrap();
        let error = LogWriter::open(path.clone(), path.clone(), None)
            .unwrap_err()
            .to_string();
        assert!(
            error
                .contains("000000000002.json\" is no log entry, or only a part of one; restore it"),
            "{error}"
        );
        assert_eq!(reads(), Err(error));
        fs::write(
            &newest,
            String::from_utf8(whole.clone())
                .unwrap()
                .replace("1002", "1003"),
        )
        .unwrap();
        assert!(
            reads()
                .unwrap_err()
                .contains("is damaged: its checksum is another")
        );
        fs::write(&newest, whole).unwrap();
        // In the middle, too, and not only readers see it.
        let middle = path.join("000000000001.json");
        for (damage, expected) in [
            (
                Some("x"),
                "000000000001.json\" is no log entry, or only a part of one; restore it",
            ),
            (
                None,
                "000000000001.json\" is missing from the log; restore it",
            ),
        ] {
            match damage {
                Some(text) => fs::write(&middle, text).unwrap(),
                None => fs::remove_file(&middle).unwrap(),
            }
            let error = reads().unwrap_err();
            assert!(error.contains(expected), "{error}");
            let opened = LogWriter::open(path.clone(), path.clone(), None);
            assert_eq!(opened.unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn damage_in_segments_is_named() {
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let path = dir.path().join("log");
        fs::create_dir(&path).unwrap();
        // Two long segments, a short one and single runs, as a query that is old has them.
        let entry = |number: u64| Entry {
            version: VERSION,
            number,
            first: number,
            last: number,
            time_us: number as i64,
            parts: Vec::new(),
        };
        let all = [
            (0, 9999),
            (10_000, 19_999),
            (20_000, 20_099),
            (20_100, 20_100),
        ];
        for (from, to) in all {
            let lines: String = (from..=to).map(|number| entry(number).to_line()).collect();
            fs::write(path.join(Item { from, to }.name()), lines).unwrap();
        }
        let opened =
            || LogWriter::open(path.clone(), path.clone(), None).map(|log| log.committed());
        assert_eq!(opened().unwrap(), Some(20_100));
        let spoil = |from: u64, to: u64, number: u64| {
            let file = path.join(Item { from, to }.name());
            let whole = fs::read_to_string(&file).unwrap();
            let line = entry(number).to_line();
            let torn = line.replace("\"first\":", "\"first\":1");
            fs::write(&file, whole.replace(&line, &torn)).unwrap();
            let error = opened().unwrap_err().to_string();
            assert!(error.contains(file.to_str().unwrap()), "{error}");
            fs::write(&file, whole).unwrap();
        };
        spoil(0, 9999, 0);
        spoil(0, 9999, 9999);
        spoil(10_000, 19_999, 15_000);
        spoil(20_000, 20_099, 20_050);
        fs::remove_file(
            path.join(
                Item {
                    from: 10_000,
                    to: 19_999,
                }
                .name(),
            ),
        )
        .unwrap();
        let error = opened().unwrap_err().to_string();
        assert!(error.contains("000000010000.json\" is missing"), "{error}");
    }
}
