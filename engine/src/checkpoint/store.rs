//! Where a checkpoint lives: a directory, or any object store.
//!
//! Objects appear whole or not at all, and durably. `put_new` never replaces: of two writers one loses, which is what
//! keeps two runs from writing one log. On a directory we write, sync, link or rename and sync the directory
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

/// Fills an object that is being written.
pub(crate) type Fill<'a> = dyn FnMut(&mut dyn Write) -> io::Result<()> + 'a;

/// A directory of named objects. Names have at most one slash.
pub(crate) trait Store: Send + Sync {
    /// For messages.
    fn location(&self) -> &str;

    /// Writes an object that must not exist: false if it does.
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, CheckpointError>;

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
    fn lock(&self) -> Result<Option<File>, CheckpointError> {
        Ok(None)
    }

    /// The file of an object, where it is one.
    fn file(&self, _name: &str) -> Option<PathBuf> {
        None
    }
}

/// Opens the store at `location`: a path, `file:`, a URL whose object store the session was given, or one of a cloud.
pub(crate) fn open(
    location: &str,
    stores: &ObjectStores,
) -> Result<Arc<dyn Store>, CheckpointError> {
    let plain = location
        .strip_prefix("file://")
        .or_else(|| location.strip_prefix("file:"))
        .unwrap_or(location);
    let Some((scheme, rest)) = plain.split_once("://") else {
        return Ok(Arc::new(Directory::new(Path::new(plain))));
    };
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

    /// Writes under a name nobody reads, durably; then `publish` gives the object its name.
    fn write(
        &self,
        name: &str,
        fill: &mut Fill<'_>,
        publish: impl FnOnce(&Path, &Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = self.root.join(name);
        let parent = path.parent().expect("an object is in a directory");
        if !parent.is_dir() {
            fs::create_dir_all(parent)?;
        }
        let temporary = path.with_file_name(format!(".{}.tmp", uuid::Uuid::new_v4().simple()));
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

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, CheckpointError> {
        let written = self.write(name, &mut |file| file.write_all(bytes), |from, to| {
            fs::hard_link(from, to)
        });
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

    fn put(&self, name: &str, fill: &mut Fill<'_>) -> Result<(), CheckpointError> {
        self.write(name, fill, |from, to| fs::rename(from, to))
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

    fn lock(&self) -> Result<Option<File>, CheckpointError> {
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
            Ok(()) => Ok(Some(file)),
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
