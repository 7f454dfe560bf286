//! Where a checkpoint lives: a directory, or any object store.
//!
//! Objects appear whole or not at all, and durably. `put_new` never replaces: of two writers one loses, which is what
//! keeps two runs from writing one log. What a run writes under its generation waits in a directory of that generation
//! until it gets its name, and a later run begins by renaming that directory away: from then on the older one cannot
//! give a name to anything, however late it wakes. On a directory we write, sync, link or rename and sync the directory
//! ourselves: the local store of the `object_store` crate (0.13) does not sync, so a power cut may take what it
//! acknowledged. Everything else goes through that crate (`objects`).

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;

use super::objects::Objects;
use super::{CheckpointError, cloud};
use crate::failpoint::reach;
use crate::places::local;

/// Fills an object that is being written.
pub(crate) type Fill<'a> = dyn FnMut(&mut dyn Write) -> io::Result<()> + 'a;

/// A directory of named objects. Names have at most one slash.
pub(crate) trait Store: Send + Sync {
    /// For messages.
    fn location(&self) -> &str;

    /// Where it is on the local file system, if it is.
    fn directory(&self) -> Option<&Path> {
        None
    }

    /// Writes an object that must not exist: false if it does.
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, CheckpointError>;

    /// The same as the run of `generation`, which fails once a later run has taken over, where the store can see to it.
    /// Elsewhere whoever calls it must have asked just before.
    fn put_new_of(
        &self,
        generation: u64,
        name: &str,
        bytes: &[u8],
    ) -> Result<bool, CheckpointError> {
        let _ = generation;
        self.put_new(name, bytes)
    }

    /// Makes `generation` the one whose run writes: what older ones are writing will not appear.
    fn take_over(&self, generation: u64) -> Result<(), CheckpointError> {
        let _ = generation;
        Ok(())
    }

    /// Writes an object, in place of one that may be there.
    fn put(&self, name: &str, fill: &mut Fill<'_>) -> Result<(), CheckpointError>;

    /// The bytes of an object, if it exists.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, CheckpointError>;

    /// Copies an object to `out`, a part at a time; false if it does not exist.
    fn copy(&self, name: &str, out: &mut dyn Write) -> Result<bool, CheckpointError>;

    /// True if the object exists.
    fn exists(&self, name: &str) -> Result<bool, CheckpointError>;

    /// The names of the objects directly below `dir`, with their sizes, in the order of the names.
    fn list(&self, dir: &str) -> Result<Vec<(String, u64)>, CheckpointError>;

    /// Removes an object; it may be gone already.
    fn delete(&self, name: &str) -> Result<(), CheckpointError>;

    /// Takes the early, friendly lock against a second run, where the file system has locks.
    fn lock(&self) -> Result<Option<Lock>, CheckpointError> {
        Ok(None)
    }

    /// The file of an object, where it is one.
    fn file(&self, _name: &str) -> Option<PathBuf> {
        None
    }
}

/// The lock of a run, for as long as it lives.
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a process that is just being started has a copy of the file until it runs its program.
        let _ = self.0.unlock();
    }
}

/// Opens the store at `location`: a path, `file:`, a URL whose object store the session was given, or one of a cloud.
pub(crate) fn open(
    location: &str,
    stores: &ObjectStores,
) -> Result<Arc<dyn Store>, CheckpointError> {
    if let Some(path) = local(location) {
        return Ok(Arc::new(Directory::new(path)));
    }
    let (scheme, rest) = location.split_once("://").unwrap_or(("file", location));
    let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let root = format!("{scheme}://{host}");
    let inner = match stores.get(&root).map(Ok).or_else(|| cloud::open(&root)) {
        Some(found) => found.map_err(|error| CheckpointError::Cloud {
            location: location.into(),
            source: Box::new(error),
        })?,
        None => {
            return Err(CheckpointError::NoStore {
                location: location.into(),
                root,
            });
        }
    };
    Ok(Arc::new(Objects::new(location, prefix, inner)))
}

/// The object stores a session knows, by scheme and host (`s3://bucket`).
#[derive(Clone, Default)]
pub(crate) struct ObjectStores(std::collections::BTreeMap<String, Arc<dyn ObjectStore>>);

impl ObjectStores {
    pub(crate) fn add(&mut self, root: &str, store: Arc<dyn ObjectStore>) {
        self.0.insert(root.trim_end_matches('/').to_string(), store);
    }

    fn get(&self, root: &str) -> Option<Arc<dyn ObjectStore>> {
        self.0.get(root).map(Arc::clone)
    }
}

/// The directory of what has no name yet.
const WRITING: &str = "writing";

/// A directory of the local file system.
struct Directory {
    root: PathBuf,
    location: String,
}

impl Directory {
    fn new(root: &Path) -> Self {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_path_buf());
        Directory {
            location: root.display().to_string(),
            root,
        }
    }

    /// Where the run of a generation writes what has no name yet.
    fn writing(&self, generation: u64) -> PathBuf {
        self.root.join(WRITING).join(generation.to_string())
    }

    /// Writes a file in `waiting` (beside the object, unless given), durably; then `publish` gives the object its name.
    fn write(
        &self,
        name: &str,
        waiting: Option<PathBuf>,
        fill: &mut Fill<'_>,
        publish: impl FnOnce(&Path, &Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = self.root.join(name);
        let parent = path.parent().expect("an object is in a directory");
        if !parent.is_dir() {
            fs::create_dir_all(parent)?;
        }
        let temporary = format!(".{}.tmp", uuid::Uuid::new_v4().simple());
        let temporary =
            waiting.map_or_else(|| path.with_file_name(&temporary), |at| at.join(&temporary));
        reach("checkpoint.write.before");
        let written = (|| {
            let mut file = BufWriter::with_capacity(256 << 10, File::create(&temporary)?);
            fill(&mut file)?;
            file.into_inner()
                .map_err(io::IntoInnerError::into_error)?
                .sync_all()?;
            reach("checkpoint.publish.before");
            publish(&temporary, &path)?;
            File::open(parent)?.sync_all()
        })();
        // Linked, renamed away, or of no use.
        let _ = fs::remove_file(&temporary);
        reach("checkpoint.write.after");
        written
    }

    /// Writes an object that must not exist: false if it does.
    fn create(
        &self,
        name: &str,
        waiting: Option<PathBuf>,
        bytes: &[u8],
    ) -> Result<bool, CheckpointError> {
        let mut fill = |file: &mut dyn Write| file.write_all(bytes);
        let written = self.write(name, waiting, &mut fill, |from, to| fs::hard_link(from, to));
        match written {
            Ok(()) => Ok(true),
            Err(error)
                if error.kind() == ErrorKind::AlreadyExists && self.root.join(name).is_file() =>
            {
                Ok(false)
            }
            Err(error) => Err(self.failed(name, error)),
        }
    }

    fn failed(&self, name: &str, source: io::Error) -> CheckpointError {
        CheckpointError::Write {
            path: self.root.join(name).display().to_string(),
            source,
        }
    }
}

impl Store for Directory {
    fn location(&self) -> &str {
        &self.location
    }

    fn directory(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, CheckpointError> {
        self.create(name, None, bytes)
    }

    fn put_new_of(
        &self,
        generation: u64,
        name: &str,
        bytes: &[u8],
    ) -> Result<bool, CheckpointError> {
        self.create(name, Some(self.writing(generation)), bytes)
    }

    fn take_over(&self, generation: u64) -> Result<(), CheckpointError> {
        let failed = |source| self.failed(WRITING, source);
        let writing = self.root.join(WRITING);
        fs::create_dir_all(self.writing(generation)).map_err(failed)?;
        for entry in fs::read_dir(&writing).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_string_lossy();
            let older = name.parse::<u64>().is_ok_and(|other| other < generation);
            let taken = writing.join(format!("{name}.taken-by-{generation}"));
            if older {
                match fs::rename(writing.join(name.as_ref()), &taken) {
                    Err(error) if !is_absent(&error) => return Err(failed(error)),
                    _ => {}
                }
            }
            let left = match older {
                true => taken,
                false if name.contains(".taken-by-") => writing.join(name.as_ref()),
                false => continue,
            };
            // Nobody reads it. The next run finds what stays.
            let _ = fs::remove_dir_all(left);
        }
        Ok(())
    }

    fn put(&self, name: &str, fill: &mut Fill<'_>) -> Result<(), CheckpointError> {
        self.write(name, None, fill, |from, to| fs::rename(from, to))
            .map_err(|error| self.failed(name, error))
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, CheckpointError> {
        let path = self.root.join(name);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => Ok(Some(bytes)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(read_error(&path.display().to_string(), error)),
        }
    }

    fn copy(&self, name: &str, out: &mut dyn Write) -> Result<bool, CheckpointError> {
        let path = self.root.join(name);
        let copied = File::open(&path)
            .and_then(|file| io::copy(&mut BufReader::with_capacity(1 << 20, file), out));
        match copied {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(read_error(&path.display().to_string(), error)),
        }
    }

    fn exists(&self, name: &str) -> Result<bool, CheckpointError> {
        let path = self.root.join(name);
        path.try_exists()
            .map_err(|error| read_error(&path.display().to_string(), error))
    }

    fn list(&self, dir: &str) -> Result<Vec<(String, u64)>, CheckpointError> {
        let path = self.root.join(dir);
        let read = || -> io::Result<Vec<(String, u64)>> {
            let mut found = Vec::new();
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with('.') {
                    continue;
                }
                // Retention may remove it while we look.
                if let Ok(metadata) = entry.metadata()
                    && metadata.is_file()
                {
                    found.push((name, metadata.len()));
                }
            }
            found.sort();
            Ok(found)
        };
        match read() {
            Err(error) if is_absent(&error) => Ok(Vec::new()),
            other => other.map_err(|error| read_error(&path.display().to_string(), error)),
        }
    }

    fn delete(&self, name: &str) -> Result<(), CheckpointError> {
        match fs::remove_file(self.root.join(name)) {
            Err(error) if !is_absent(&error) => Err(self.failed(name, error)),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> Result<Option<Lock>, CheckpointError> {
        fs::create_dir_all(&self.root).map_err(|error| self.failed("", error))?;
        let path = self.root.join("lock");
        // Held open for reading only: a file system that turns read-only can do so under a running query.
        let made = match File::create_new(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => other.map(|_| ()),
        };
        let file = made
            .and_then(|()| File::open(&path))
            .map_err(|error| self.failed("lock", error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(fs::TryLockError::WouldBlock) => Err(CheckpointError::Running {
                dir: self.location.clone(),
            }),
            // A file system without locks: the log alone keeps the second run out.
            Err(fs::TryLockError::Error(_)) => Ok(None),
        }
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.root.join(name))
    }
}

pub(super) fn is_absent(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

pub(super) fn read_error(path: &str, source: io::Error) -> CheckpointError {
    CheckpointError::Read {
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stores() -> ObjectStores {
        let mut stores = ObjectStores::default();
        stores.add(
            "memory://here",
            Arc::new(object_store::memory::InMemory::new()),
        );
        stores
    }

    /// What every store must do.
    fn check(store: &dyn Store) {
        assert_eq!(store.get("offsets/0").expect("read"), None);
        assert_eq!(store.list("offsets").expect("listed"), []);
        assert!(store.put_new("offsets/0", b"one").expect("written"));
        assert!(!store.put_new("offsets/0", b"two").expect("refused"));
        assert_eq!(store.get("offsets/0").expect("read"), Some(b"one".to_vec()));
        store
            .put("state/a", &mut |file| file.write_all(b"four"))
            .expect("written");
        store
            .put("state/a", &mut |file| file.write_all(b"seven"))
            .expect("replaced");
        assert_eq!(store.list("state").expect("listed"), [("a".to_string(), 5)]);
        assert!(store.exists("state/a").expect("asked"));
        let mut copied = Vec::new();
        assert!(store.copy("state/a", &mut copied).expect("copied"));
        assert_eq!(copied, b"seven");
        assert!(!store.copy("state/b", &mut copied).expect("asked"));
        store.put("state/none", &mut |_| Ok(())).expect("written");
        assert!(store.copy("state/none", &mut copied).expect("copied"));
        assert_eq!(copied, b"seven", "nothing was added");
        store.delete("state/none").expect("deleted");
        // More than goes in one piece, and not a multiple of one.
        let large: Vec<u8> = (0..20_000_003u32).map(|at| (at >> 8) as u8).collect();
        let mut pieces = large.chunks(70_001);
        store
            .put("state/large", &mut |file| {
                pieces.try_for_each(|piece| file.write_all(piece))
            })
            .expect("written");
        let mut copied = Vec::new();
        assert!(store.copy("state/large", &mut copied).expect("copied"));
        assert!(copied == large, "{} bytes", copied.len());
        let failed = store.put("state/large", &mut |file| {
            file.write_all(&large)?;
            Err(io::Error::other("the program changed its mind"))
        });
        let error = crate::error::error_chain(&failed.expect_err("it failed"));
        assert!(error.contains("changed its mind"), "{error}");
        assert!(
            store
                .get("state/large")
                .expect("read")
                .is_some_and(|kept| kept == large)
        );
        store.delete("state/large").expect("deleted");
        store.delete("state/a").expect("deleted");
        store.delete("state/a").expect("absent is fine");
        assert!(!store.exists("state/a").expect("asked"));
    }

    #[test]
    fn a_directory_is_a_store() {
        let dir = tempfile::tempdir().expect("a directory");
        let location = dir.path().join("deep/er").display().to_string();
        check(open(&location, &stores()).expect("opened").as_ref());
        check(
            open(&format!("file://{location}-2"), &stores())
                .expect("opened")
                .as_ref(),
        );
    }

    #[test]
    fn an_object_store_is_a_store() {
        check(
            open("memory://here/ck/etl", &stores())
                .expect("opened")
                .as_ref(),
        );
    }

    #[test]
    fn a_store_nobody_registered_is_named() {
        let error = open("ftp://host/ck", &stores()).err().expect("refused");
        assert!(error.to_string().contains("\"ftp://host\""), "{error}");
    }

    #[test]
    fn what_an_older_run_is_writing_does_not_appear() {
        let dir = tempfile::tempdir().expect("a directory");
        let location = dir.path().display().to_string();
        let opened = || open(&location, &stores()).expect("opened");
        let (older, newer) = (opened(), opened());
        older.take_over(1).expect("begun");
        assert!(older.put_new_of(1, "offsets/0", b"one").expect("written"));
        // The newer run begins when the older one has written its bytes and not yet given them a name.
        let directory = Directory::new(dir.path());
        let late = directory.write(
            "offsets/1",
            Some(directory.writing(1)),
            &mut |file| file.write_all(b"late"),
            |from, to| {
                newer.take_over(2).expect("begun");
                fs::hard_link(from, to)
            },
        );
        assert!(late.is_err_and(|error| is_absent(&error)));
        assert!(!newer.exists("offsets/1").expect("asked"));
        assert!(older.put_new_of(1, "offsets/1", b"late").is_err());
        assert!(newer.put_new_of(2, "offsets/1", b"two").expect("written"));
        let names = fs::read_dir(dir.path().join(WRITING)).expect("listed");
        let names: Vec<_> = names.map(|at| at.expect("listed").file_name()).collect();
        assert_eq!(names, ["2"], "leavings are removed");
    }

    #[test]
    fn a_directory_is_locked_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let location = dir.path().display().to_string();
        let store = open(&location, &stores()).expect("opened");
        let held = store.lock().expect("locked");
        let again = open(&location, &stores()).expect("opened").lock();
        assert!(matches!(again, Err(CheckpointError::Running { .. })));
        drop(held);
        store.lock().expect("free again");
    }
}
