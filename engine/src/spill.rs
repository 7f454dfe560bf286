//! State that does not fit in memory: how much may stay, and the directory for the rest.
//!
//! Every process has a directory of its own below the one configured, made when it is first needed. It goes with the
//! session; what a killed process leaves behind, the next session removes: a directory whose lock nobody holds is
//! nobody's. Nothing in it outlives its process, so nothing is synced.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use highwater_operators::OperatorError;
use highwater_operators::arrangement::{Budget, RunFile, RunStore, RunWriter};

use crate::conf;
use crate::error::{Error, error_chain};
use crate::options::{OptionError, Options};
use crate::workers::lock;

/// The setting for how much state a process keeps in memory.
const MEMORY_MAX: &str = "highwater.state.memoryMax";
/// The setting for where the rest goes.
const DIRECTORY: &str = "highwater.spill.directory";
/// What a session is given at its start.
pub(crate) const SETTINGS: [&str; 2] = [MEMORY_MAX, DIRECTORY];
/// Who takes them.
const OWNER: &str = "the session";

/// Names of the directories of processes begin with it.
const PREFIX: &str = "highwater-spill-";
const LOCK: &str = "lock";

/// The share of the machine's memory that state may take by default, in percent. Input in flight, the rows of an epoch
/// and whatever else runs on the machine need the rest.
const SHARE_PERCENT: u64 = 40;
/// Where the machine does not say how much memory it has.
const MEMORY_UNKNOWN: u64 = 4 << 30;

/// The memory of a process's state, as `settings` want it. `processes` of this machine share what is not set.
pub(crate) fn budget(settings: &Options, processes: usize) -> Result<Arc<Budget>, Error> {
    // The others are taken, and named to whoever mistook one.
    let known: Vec<&str> = SETTINGS.into_iter().chain(conf::names()).collect();
    settings.only(OWNER, &known, &[])?;
    let memory = machine_memory().unwrap_or(MEMORY_UNKNOWN);
    let bytes_max = match settings.get(MEMORY_MAX) {
        None => memory / 100 * SHARE_PERCENT / processes.max(1) as u64,
        Some(text) => parse_bytes(text, memory).ok_or_else(|| OptionError::Invalid {
            name: MEMORY_MAX.into(),
            owner: OWNER.into(),
            value: text.into(),
            reason: "it is a number of bytes (1073741824, 512m, 2g) or a share of memory (40%)"
                .into(),
        })?,
    };
    let directory = match settings.get(DIRECTORY) {
        Some(directory) => PathBuf::from(directory),
        None => std::env::temp_dir(),
    };
    let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    Ok(Budget::new(bytes_max, SpillStore::below(&directory)))
}

/// "64m" as a number of bytes; "10%" of `memory`.
pub(crate) fn parse_bytes(text: &str, memory: u64) -> Option<u64> {
    let text = text.trim().to_lowercase();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        "t" | "tb" => 40,
        "%" if number <= 100 => return Some(memory / 100 * number),
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// The memory of the machine, or of the part of it that this process may use.
fn machine_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    let total = kilobytes * 1024;
    Some(group_limit().map_or(total, |limit| limit.min(total)))
}

/// The least limit of the control groups that this process is in.
fn group_limit() -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let old = read(Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let group = PathBuf::from("/sys/fs/cgroup").join(group.unwrap_or_default());
    let limits = group
        .ancestors()
        .take_while(|dir| dir.starts_with("/sys/fs/cgroup"))
        .filter_map(|dir| read(&dir.join("memory.max")));
    limits.chain(old).min()
}

/// A directory for the runs of one process. Clones share it; the last takes it away, files and all.
#[derive(Clone)]
struct SpillStore(Arc<Place>);

struct Place {
    /// Where directories of processes are made.
    base: PathBuf,
    made: Mutex<Option<Made>>,
    next: AtomicU64,
}

/// This process's directory. Whoever can take its lock may remove it.
struct Made {
    dir: PathBuf,
    #[expect(dead_code, reason = "held until it is dropped")]
    lock: File,
}

impl SpillStore {
    fn below(base: &Path) -> Self {
        remove_stale(base);
        SpillStore(Arc::new(Place {
            base: std::path::absolute(base).unwrap_or_else(|_| base.to_path_buf()),
            made: Mutex::default(),
            next: AtomicU64::new(0),
        }))
    }

    fn failed(&self, source: &io::Error) -> OperatorError {
        let (base, source) = (self.0.base.display(), error_chain(source));
        OperatorError::Other(format!(
            "could not write state that does not fit in memory to \"{base}\" (setting \"{DIRECTORY}\"; how much stays \
             in memory is \"{MEMORY_MAX}\"): {source}"
        ))
    }

    fn create_file(&self) -> io::Result<(File, PathBuf)> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let mut made = lock(&self.0.made);
        let made = match &mut *made {
            Some(made) => made,
            empty => empty.insert(Made::below(&self.0.base)?),
        };
        let path = made.dir.join(format!("{number}.run"));
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        Ok((file, path))
    }
}

impl Made {
    fn below(base: &Path) -> io::Result<Self> {
        fs::create_dir_all(base)?;
        let name = format!(
            "{PREFIX}{}-{}",
            std::process::id(),
            uuid::Uuid::new_v4().simple()
        );
        // Under another name until it is locked, lest another process takes it for a dead one's.
        let (dir, unlocked) = (base.join(&name), base.join(format!(".{name}")));
        DirBuilder::new().mode(0o700).create(&unlocked)?;
        let lock = File::create(unlocked.join(LOCK))?;
        lock.lock()?;
        fs::rename(&unlocked, &dir)?;
        Ok(Made { dir, lock })
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Removes what processes that died left below `base`.
fn remove_stale(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let locked = OpenOptions::new()
            .write(true)
            .open(entry.path().join(LOCK))
            .is_ok_and(|lock| lock.try_lock().is_ok() && fs::remove_dir_all(entry.path()).is_ok());
        if locked {
            tracing::info!(
                "removed \"{}\", left by a process that died",
                entry.path().display()
            );
        }
    }
}

impl RunStore for SpillStore {
    fn create(&self) -> Result<Box<dyn RunWriter>, OperatorError> {
        let (file, path) = self.create_file().map_err(|error| self.failed(&error))?;
        Ok(Box::new(SpillWriter {
            out: io::BufWriter::with_capacity(256 << 10, file),
            bytes: 0,
            path: Removed(path),
            store: self.clone(),
        }))
    }
}

/// A file that goes when this does.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

struct SpillWriter {
    out: io::BufWriter<File>,
    bytes: u64,
    path: Removed,
    store: SpillStore,
}

impl RunWriter for SpillWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), OperatorError> {
        self.bytes += bytes.len() as u64;
        let written = self.out.write_all(bytes);
        written.map_err(|error| self.store.failed(&error))
    }

    fn finish(self: Box<Self>) -> Result<Arc<dyn RunFile>, OperatorError> {
        let file = self.out.into_inner();
        let file = file.map_err(|error| self.store.failed(error.error()))?;
        Ok(Arc::new(DiskRun {
            name: self.path.0.display().to_string(),
            bytes: self.bytes,
            file,
            removed: Some((self.path, self.store)),
        }))
    }
}

/// A run in a file of this machine.
pub(crate) struct DiskRun {
    file: File,
    name: String,
    bytes: u64,
    /// A spilled run's file goes with it, and the directory with the last of them.
    #[expect(dead_code, reason = "held until it is dropped")]
    removed: Option<(Removed, SpillStore)>,
}

impl DiskRun {
    /// The run in a file that stays. It can be read on when retention has removed the name.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(DiskRun {
            bytes: file.metadata()?.len(),
            name: path.display().to_string(),
            file,
            removed: None,
        })
    }
}

impl RunFile for DiskRun {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, OperatorError> {
        let mut bytes = vec![0; length];
        let read = self.file.read_exact_at(&mut bytes, offset);
        match read {
            Ok(()) => Ok(bytes.into()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(OperatorError::Damaged {
                    file: self.name.clone(),
                    why: "it ends early".into(),
                })
            }
            Err(error) => Err(OperatorError::Other(format!(
                "could not read file of state \"{}\": {}",
                self.name,
                error_chain(&error)
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_a_share() {
        let check = |text, bytes| assert_eq!(parse_bytes(text, 1000), bytes, "{text}");
        check("17", Some(17));
        check(" 64 MB ", Some(64 << 20));
        check("2g", Some(2 << 30));
        check("40%", Some(400));
        check("0", Some(0));
        check("140%", None);
        check("-1", None);
        check("much", None);
        check("", None);
        check("99999999t", None);
    }

    #[test]
    fn a_machine_has_some_memory() {
        assert!(machine_memory().is_none_or(|bytes| bytes > 1 << 20));
    }

    fn write(store: &SpillStore, bytes: &[u8]) -> Arc<dyn RunFile> {
        let mut writer = store.create().unwrap();
        writer.write(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn entries(dir: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn a_file_goes_with_its_last_handle_and_the_directory_with_the_store() {
        let base = tempfile::tempdir().unwrap();
        let store = SpillStore::below(base.path());
        assert!(entries(base.path()).is_empty(), "made when it is needed");
        let (one, two) = (write(&store, b"one"), write(&store, b"two"));
        let dir = entries(base.path()).remove(0);
        assert_eq!(entries(&dir).len(), 3, "two runs and a lock");
        assert_eq!(one.read_at(1, 2).unwrap(), "ne");
        let error = one.read_at(1, 3).unwrap_err().to_string();
        assert!(error.ends_with("is damaged: it ends early"), "{error}");
        drop(one);
        assert_eq!(entries(&dir).len(), 2);
        drop(store.create().unwrap());
        assert_eq!(entries(&dir).len(), 2, "unfinished files go too");
        drop(store);
        assert_eq!(two.read_at(0, 3).unwrap(), "two");
        drop(two);
        assert!(entries(base.path()).is_empty());
    }

    #[test]
    fn what_the_dead_leave_is_removed_and_the_living_are_spared() {
        let base = tempfile::tempdir().unwrap();
        let dead = base.path().join(format!("{PREFIX}1-dead"));
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        fs::write(dead.join("0.run"), "state").unwrap();
        let other = base.path().join("other");
        fs::create_dir(&other).unwrap();
        let living = SpillStore::below(base.path());
        assert!(!dead.exists());
        let run = write(&living, b"state");
        let _second = SpillStore::below(base.path());
        assert_eq!(run.read_at(0, 5).unwrap(), "state");
        assert!(other.exists() && Path::new(run.name()).exists());
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named_with_its_setting() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("file");
        fs::write(&file, "").unwrap();
        let error = SpillStore::below(&file).create().err().unwrap().to_string();
        assert!(error.contains(&file.display().to_string()), "{error}");
        assert!(error.contains(DIRECTORY), "{error}");
        // A device that is always full.
        let Ok(full) = OpenOptions::new().write(true).open("/dev/full") else {
            return;
        };
        let store = SpillStore::below(base.path());
        let mut writer = SpillWriter {
            out: io::BufWriter::with_capacity(8, full),
            bytes: 0,
            path: Removed(base.path().join("none")),
            store,
        };
        let error = writer.write(&[0; 100]).unwrap_err().to_string();
        assert!(error.contains("No space left on device"), "{error}");
    }
}
