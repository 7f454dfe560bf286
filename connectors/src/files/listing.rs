//! Finds files: in a directory, below it, or by a pattern; and notices cheaply that nothing changed.
//!
//! A plain directory is listed only when its modification time says that an entry came or went. That time moves in
//! steps of some milliseconds, so two files may land within one step: a time that was young when we listed proves
//! nothing about what landed right after, and the directory is listed again. Trees and patterns have no such mark; the
//! coordinator asks less often where looking takes long.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::committed::{CommittedLister, is_sink_directory};
use super::error::FileError;
use super::options::FileOptions;
use super::partition;

/// A directory time younger than this may not have moved for a file that landed after we looked.
pub(super) const MTIME_STEP: Duration = Duration::from_millis(50);

/// A file that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: String,
    pub(super) modified_us: i64,
    pub(super) size: u64,
    /// Columns whose values the directories tell.
    pub(super) partition: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
enum Root {
    File(PathBuf),
    Directory(PathBuf),
    /// Braces are spelled out: several patterns.
    Patterns(String, Vec<String>),
}

/// Lists what a path stands for.
pub(super) struct Lister {
    root: Root,
    options: FileOptions,
    /// A plain directory: its time when it was last listed, if that time was old enough to be trusted.
    trusted: Option<SystemTime>,
    /// The directory has a commit log, which alone says what is in it.
    committed: Option<CommittedLister>,
}

impl Lister {
    /// `path` is a directory, a file or a pattern.
    pub(super) fn new(path: &str, options: &FileOptions) -> Result<Self, FileError> {
        let plain = path
            .strip_prefix("file://")
            .or(path.strip_prefix("file:"))
            .unwrap_or(path);
        if let Some((scheme, _)) = plain.split_once("://") {
            return Err(FileError::Pattern {
                pattern: path.into(),
                reason: format!(
                    "file system \"{scheme}\" is not supported yet, only local paths are"
                ),
            });
        }
        let absolute = std::path::absolute(plain).map_err(|source| FileError::Read {
            path: path.into(),
            source,
        })?;
        let root = match fs::metadata(&absolute) {
            Ok(metadata) if metadata.is_dir() => Root::Directory(absolute),
            Ok(_) => Root::File(absolute),
            Err(error) if is_missing(&error) => {
                if !plain.contains(['*', '?', '[', '{']) {
                    return Err(FileError::Missing { path: path.into() });
                }
                let text = text(&absolute)?;
                let patterns = spell_out(&text);
                for pattern in &patterns {
                    glob::Pattern::new(pattern).map_err(|error| FileError::Pattern {
                        pattern: path.into(),
                        reason: error.msg.into(),
                    })?;
                }
                Root::Patterns(path.into(), patterns)
            }
            Err(source) => {
                return Err(FileError::Read {
                    path: path.into(),
                    source,
                });
            }
        };
        let lister = Lister {
            root,
            options: options.clone(),
            trusted: None,
            committed: None,
        };
        // A directory that cannot be read is told before anything runs.
        if let Root::Directory(directory) = &lister.root {
            fs::read_dir(directory).map_err(|source| FileError::Read {
                path: path.into(),
                source,
            })?;
        }
        Ok(lister)
    }

    /// The files that are not `known`, in no order; none if nothing can have changed since the last time.
    pub(super) fn list(&mut self, known: &dyn Fn(&str) -> bool) -> Result<Vec<Found>, FileError> {
        if let Root::Directory(directory) = &self.root {
            if self.committed.is_none() && is_sink_directory(directory) {
                self.committed = Some(CommittedLister::new(directory));
            }
            if let Some(committed) = &mut self.committed {
                return committed.list(&self.options, known);
            }
        }
        let mut found = Vec::new();
        let mut visit = Visit {
            options: &self.options,
            known,
            found: &mut found,
            root: PathBuf::new(),
            has_below: false,
        };
        match &self.root {
            Root::File(path) => visit.file(path, true)?,
            Root::Directory(directory) if !self.options.recursive => {
                let modified = fs::metadata(directory)
                    .and_then(|metadata| metadata.modified())
                    .map_err(|error| gone(directory, error))?;
                if self.trusted == Some(modified) {
                    return Ok(found);
                }
                #[allow(
                    clippy::disallowed_methods,
                    reason = "compared with the time of a directory, to know whether to look again"
                )]
                let age = SystemTime::now().duration_since(modified);
                visit.root.clone_from(directory);
                visit.directory(directory)?;
                let old = age.is_ok_and(|age| age > MTIME_STEP);
                self.trusted = (old && !visit.has_below).then_some(modified);
            }
            Root::Directory(directory) => visit.directory(directory)?,
            Root::Patterns(_, patterns) => {
                for pattern in patterns {
                    visit.pattern(pattern)?;
                }
            }
        }
        Ok(found)
    }

    /// All files, for a batch read or to look into one: in order of their paths, at least one if a file or a pattern
    /// was asked for.
    pub(super) fn list_all(&mut self) -> Result<Vec<Found>, FileError> {
        self.trusted = None;
        self.committed = None;
        let mut found = self.list(&|_| false)?;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found.dedup();
        match &self.root {
            Root::Patterns(pattern, _) if found.is_empty() => Err(FileError::NoMatch {
                pattern: pattern.clone(),
            }),
            _ => Ok(found),
        }
    }
}

/// One listing.
struct Visit<'a> {
    options: &'a FileOptions,
    known: &'a dyn Fn(&str) -> bool,
    found: &'a mut Vec<Found>,
    /// Directories below this one tell values; empty if none do.
    root: PathBuf,
    /// There were directories to go into: the time of the root does not tell what happens in them.
    has_below: bool,
}

impl Visit<'_> {
    fn directory(&mut self, directory: &Path) -> Result<(), FileError> {
        let entries = fs::read_dir(directory).map_err(|error| gone(directory, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| gone(directory, error))?;
            let name = entry.file_name();
            if is_hidden(&name.to_string_lossy()) {
                continue;
            }
            let path = entry.path();
            let kind = entry.file_type().map_err(|error| gone(&path, error))?;
            let is_dir = kind.is_dir() || (kind.is_symlink() && path.is_dir());
            if !is_dir {
                self.file(&path, false)?;
            } else if self.options.recursive || name.to_string_lossy().contains('=') {
                self.has_below = true;
                self.directory(&path)?;
            }
        }
        Ok(())
    }

    fn pattern(&mut self, pattern: &str) -> Result<(), FileError> {
        let matches = glob::glob(pattern).map_err(|error| FileError::Pattern {
            pattern: pattern.into(),
            reason: error.msg.into(),
        })?;
        for path in matches {
            let path = path.map_err(|error| FileError::Read {
                path: error.path().display().to_string(),
                source: error.into(),
            })?;
            let hidden = path
                .file_name()
                .is_some_and(|name| is_hidden(&name.to_string_lossy()));
            if hidden {
                continue;
            }
            match path.is_dir() {
                true => {
                    self.root.clone_from(&path);
                    self.directory(&path)?;
                }
                false => self.file(&path, false)?,
            }
        }
        Ok(())
    }

    /// Takes a file if it is wanted. One `asked` for by its own name must be there.
    fn file(&mut self, path: &Path, asked: bool) -> Result<(), FileError> {
        let text = text(path)?;
        if (self.known)(&text) {
            return Ok(());
        }
        if let Some(filter) = &self.options.path_glob_filter {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !filter.iter().any(|pattern| pattern.matches(&name)) {
                return Ok(());
            }
        }
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            // It went between the listing and the look.
            Err(error) if is_missing(&error) && !asked => return Ok(()),
            Err(error) => return Err(gone(path, error)),
        };
        let modified = metadata.modified().map_err(|error| gone(path, error))?;
        let modified_us = match modified.duration_since(UNIX_EPOCH) {
            Ok(after) => after.as_micros() as i64,
            Err(before) => -(before.duration().as_micros() as i64),
        };
        let before = self.options.modified_before_us.unwrap_or(i64::MAX);
        let after = self.options.modified_after_us.unwrap_or(i64::MIN);
        if modified_us >= before || modified_us <= after {
            return Ok(());
        }
        // Whoever looks for files at any depth, or names one, does not take directories for columns.
        let partition = match self.options.recursive || self.root.as_os_str().is_empty() {
            true => Vec::new(),
            false => partition::values(&self.root, path),
        };
        self.found.push(Found {
            path: text,
            modified_us,
            size: metadata.len(),
            partition,
        });
        Ok(())
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn gone(path: &Path, source: io::Error) -> FileError {
    let path = path.display().to_string();
    match is_missing(&source) {
        true => FileError::Missing { path },
        false => FileError::Read { path, source },
    }
}

fn text(path: &Path) -> Result<String, FileError> {
    match path.to_str() {
        Some(text) => Ok(text.to_string()),
        None => Err(FileError::Name {
            path: path.display().to_string(),
        }),
    }
}

/// Names that writers give to what is not, or not yet, data.
pub(super) fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
        || (name.starts_with('_') && !name.contains('='))
        || name.ends_with("._COPYING_")
}

/// `a{b,c}d` as `abd` and `acd`.
pub(super) fn spell_out(pattern: &str) -> Vec<String> {
    let mut depth = 0;
    let mut open = None;
    let mut cuts = Vec::new();
    for (at, c) in pattern.char_indices() {
        match c {
            '{' => {
                depth += 1;
                if depth == 1 {
                    open = Some(at);
                    cuts.push(at + 1);
                }
            }
            ',' if depth == 1 => cuts.push(at + 1),
            '}' if depth > 0 => {
                depth -= 1;
                let Some(open) = open.filter(|_| depth == 0) else {
                    continue;
                };
                let (head, tail) = (&pattern[..open], &pattern[at + 1..]);
                let ends = cuts[1..].iter().map(|cut| cut - 1).chain([at]);
                return cuts
                    .iter()
                    .zip(ends)
                    .flat_map(|(from, to)| {
                        spell_out(&format!("{head}{}{tail}", &pattern[*from..to]))
                    })
                    .collect();
            }
            _ => {}
        }
    }
    vec![pattern.to_string()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(lister: &mut Lister) -> Vec<String> {
        let found = lister.list_all().unwrap();
        let name = |found: &Found| found.path.rsplit('/').next().unwrap().to_string();
        found.iter().map(name).collect()
    }

    fn lister(path: &Path) -> Result<Lister, FileError> {
        Lister::new(path.to_str().unwrap(), &FileOptions::default())
    }

    #[test]
    fn braces_are_spelled_out() {
        assert_eq!(spell_out("a{b,c{d,e}}f"), ["abf", "acdf", "acef"]);
        assert_eq!(spell_out("a{b"), ["a{b"]);
        assert_eq!(spell_out("plain"), ["plain"]);
    }

    #[test]
    fn hidden_files_and_directories_below_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.json", "a.json", "_SUCCESS", ".tmp", "c._COPYING_"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        fs::create_dir(dir.path().join("below")).unwrap();
        fs::write(dir.path().join("below/d.json"), "x").unwrap();
        assert_eq!(
            names(&mut lister(dir.path()).unwrap()),
            ["a.json", "b.json"]
        );
        let options = FileOptions {
            recursive: true,
            ..FileOptions::default()
        };
        let mut tree = Lister::new(dir.path().to_str().unwrap(), &options).unwrap();
        assert_eq!(names(&mut tree), ["a.json", "b.json", "d.json"]);
    }

    #[test]
    fn patterns_may_span_levels() {
        let dir = tempfile::tempdir().unwrap();
        for (below, name) in [
            ("x", "a.json"),
            ("x", "b.csv"),
            ("y", "c.json"),
            ("z", "d.json"),
        ] {
            fs::create_dir_all(dir.path().join(below)).unwrap();
            fs::write(dir.path().join(below).join(name), "x").unwrap();
        }
        assert_eq!(
            names(&mut lister(&dir.path().join("{x,y}/*.json")).unwrap()),
            ["a.json", "c.json"]
        );
        assert_eq!(
            names(&mut lister(&dir.path().join("[xz]")).unwrap()),
            ["a.json", "b.csv", "d.json"]
        );
        let error = lister(&dir.path().join("*.orc"))
            .unwrap()
            .list_all()
            .unwrap_err();
        assert!(error.to_string().starts_with("no file matches \""));
    }

    #[test]
    fn directories_that_tell_values_are_gone_into() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("day=1/k=x")).unwrap();
        fs::write(dir.path().join("day=1/k=x/f"), "x").unwrap();
        let mut lister = lister(dir.path()).unwrap();
        let found = lister.list_all().unwrap();
        let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
        assert_eq!(found[0].partition, [pair("day", "1"), pair("k", "x")]);
        // The time of the root says nothing about what lies deeper.
        fs::write(dir.path().join("day=1/k=x/g"), "x").unwrap();
        assert_eq!(lister.list(&|path| path.ends_with('f')).unwrap().len(), 1);
    }

    #[test]
    fn an_unchanged_directory_is_not_listed_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "x").unwrap();
        #[allow(clippy::disallowed_methods, reason = "a test compares with the clock")]
        let old = SystemTime::now() - Duration::from_secs(10);
        let times = fs::FileTimes::new().set_modified(old);
        fs::File::open(dir.path())
            .unwrap()
            .set_times(times)
            .unwrap();
        let mut lister = lister(dir.path()).unwrap();
        assert_eq!(lister.list(&|_| false).unwrap().len(), 1);
        assert_eq!(lister.list(&|_| false).unwrap().len(), 0);
        fs::write(dir.path().join("b"), "x").unwrap();
        // The new time is young: it is not trusted, and every listing looks.
        assert_eq!(lister.list(&|_| false).unwrap().len(), 2);
        assert_eq!(lister.list(&|_| false).unwrap().len(), 2);
    }

    #[test]
    fn a_missing_path_is_named() {
        let error = lister(Path::new("/nowhere/at/all")).err().unwrap();
        assert_eq!(error.to_string(), "path \"/nowhere/at/all\" does not exist");
        let error = Lister::new("s3://bucket/x", &FileOptions::default())
            .err()
            .unwrap();
        assert!(
            error
                .to_string()
                .contains("file system \"s3\" is not supported yet")
        );
    }
}
