//! Finds files: in a directory, below it, or by a pattern; and notices cheaply that nothing changed.
//!
//! A directory is listed only when its modification time says that an entry came or went; what was found below it is
//! kept as a tree, so an unchanged tree costs one look per directory. That time moves in steps (of some milliseconds,
//! of seconds where it has no fraction), so two files may land within one step: a time that was young when we listed
//! proves nothing about what landed right after, and the directory is listed again. Some network file systems do not
//! move it at all; therefore everything is listed now and then (`EVERYTHING`), however it looks.
//!
//! Listing looks only at names and kinds, which the directory holds; only files not known before are asked for their
//! size and time. Notifications of the system (inotify) are not used: they say nothing on network file systems, need
//! a watch per directory, and after an overflow everything must be listed anyway.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use glob::Pattern;

use super::committed::{CommittedLister, is_sink_directory};
use super::error::FileError;
use super::options::FileOptions;
use super::partition;
use super::places::Places;

/// A directory time younger than this may not have moved for a file that landed after we looked.
pub(super) const MTIME_STEP: Duration = Duration::from_millis(50);
/// The same where the file system may count in whole seconds, or pairs of them.
const MTIME_STEP_COARSE: Duration = Duration::from_millis(2_500);
/// Directories are listed at least this often, and at most for a share of the time.
const EVERYTHING: Duration = Duration::from_secs(60);
const EVERYTHING_SHARE: u32 = 200;

/// A directory that holds files.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Directory {
    /// Without the slash at the end.
    pub(super) path: String,
    /// Columns whose values it and those above it tell.
    pub(super) partition: Vec<(String, String)>,
}

/// A file that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) directory: Arc<Directory>,
    pub(super) name: Box<str>,
    pub(super) modified_us: i64,
    pub(super) size: u64,
    /// Tells a file that grew from one that was put in its place.
    pub(super) inode: u64,
}

impl Found {
    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.directory.path, self.name)
    }

    /// By path.
    pub(super) fn cmp_path(&self, other: &Found) -> std::cmp::Ordering {
        if Arc::ptr_eq(&self.directory, &other.directory) {
            return self.name.cmp(&other.name);
        }
        let bytes = |found: &'_ Found| found.path().into_bytes();
        bytes(self).cmp(&bytes(other))
    }

    /// By time, then by path.
    pub(super) fn cmp_age(&self, other: &Found) -> std::cmp::Ordering {
        let by_time = self.modified_us.cmp(&other.modified_us);
        by_time.then_with(|| self.cmp_path(other))
    }
}

/// Whether a file in a directory was met before.
pub(super) type Known<'a> = &'a dyn Fn(&str, &str) -> bool;

/// What is looked for in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Files; and directories below, if they or this one tell values, or all depths were asked for.
    Files,
    /// What matches this step of a pattern (its number), and further steps below.
    Step(usize, usize),
}

/// A directory and what was found below it.
#[derive(Debug)]
struct Node {
    directory: Arc<Directory>,
    rule: Rule,
    /// Its time when it was last listed, if that time was old enough to be trusted.
    trusted: Option<SystemTime>,
    below: BTreeMap<String, Node>,
    /// How many files it showed when it was last listed.
    files: usize,
}

#[derive(Debug)]
enum Root {
    File(PathBuf),
    Directory(Node),
    /// The pattern as it was given; braces are spelled out, and each has a tree.
    Patterns(String, Vec<Node>),
}

/// One step of a pattern.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Name(String),
    Wild(Pattern),
}

/// Lists what a path stands for.
pub(super) struct Lister {
    root: Root,
    options: FileOptions,
    /// The steps of each pattern behind the part without wildcards.
    patterns: Vec<Vec<Step>>,
    /// When everything was listed, and how long that took.
    everything: Option<(Instant, Duration)>,
    /// The directory has a commit log, which alone says what is in it.
    committed: Option<CommittedLister>,
}

/// `path` without the scheme of local files.
pub(super) fn local(path: &str) -> Result<&str, FileError> {
    let plain = highwater_engine::places::local(path).and_then(Path::to_str);
    plain.ok_or_else(|| FileError::Pattern {
        pattern: path.into(),
        reason: format!(
            "file system \"{}\" is not supported yet, only local paths are",
            path.split("://").next().unwrap_or_default()
        ),
    })
}

impl Node {
    fn new(path: String, partition: Vec<(String, String)>, rule: Rule) -> Node {
        Node {
            directory: Arc::new(Directory { path, partition }),
            rule,
            trusted: None,
            below: BTreeMap::new(),
            files: 0,
        }
    }

    fn each<'a>(&'a self, visit: &mut dyn FnMut(&'a Node)) {
        visit(self);
        for node in self.below.values() {
            node.each(visit);
        }
    }
}

impl Lister {
    /// `path` is a directory, a file or a pattern.
    pub(super) fn new(path: &str, options: &FileOptions) -> Result<Self, FileError> {
        let plain = local(path)?;
        let absolute = std::path::absolute(plain).map_err(|source| FileError::Read {
            path: path.into(),
            source,
        })?;
        let mut patterns = Vec::new();
        let root = match fs::metadata(&absolute) {
            Ok(metadata) if metadata.is_dir() => {
                // A directory that cannot be read is told before anything runs.
                fs::read_dir(&absolute).map_err(|source| FileError::Read {
                    path: path.into(),
                    source,
                })?;
                Root::Directory(Node::new(directory(&absolute)?, Vec::new(), Rule::Files))
            }
            Ok(_) => Root::File(absolute),
            Err(error) if is_missing(&error) => {
                if !plain.contains(['*', '?', '[', '{']) {
                    return Err(FileError::Missing { path: path.into() });
                }
                let mut nodes = Vec::new();
                for pattern in spell_out(&directory(&absolute)?) {
                    let (base, steps) = steps(&pattern).map_err(|error| FileError::Pattern {
                        pattern: path.into(),
                        reason: error.msg.into(),
                    })?;
                    nodes.push(Node::new(base, Vec::new(), Rule::Step(patterns.len(), 0)));
                    patterns.push(steps);
                }
                Root::Patterns(path.into(), nodes)
            }
            Err(source) => {
                return Err(FileError::Read {
                    path: path.into(),
                    source,
                });
            }
        };
        Ok(Lister {
            root,
            options: options.clone(),
            patterns,
            everything: None,
            committed: None,
        })
    }

    /// The files that are not `known`, in no order; of what has not changed since the last time, none.
    pub(super) fn list(&mut self, known: Known<'_>) -> Result<Vec<Found>, FileError> {
        if let Some(committed) = self.committed() {
            return committed.list(known);
        }
        #[allow(
            clippy::disallowed_methods,
            reason = "decides when to look at what seems unchanged"
        )]
        let begun = Instant::now();
        let everything = self.everything.is_none_or(|(then, took)| {
            begun.duration_since(then) > EVERYTHING.max(took * EVERYTHING_SHARE)
        });
        let mut visit = Visit {
            options: &self.options,
            patterns: &self.patterns,
            known,
            everything,
            found: Vec::new(),
        };
        // What was found before an error is lost: then nothing that was listed counts as such.
        let before = self.everything.take();
        match &mut self.root {
            Root::File(path) => visit.only(path)?,
            Root::Directory(node) => {
                if !visit.directory(node)? {
                    let path = node.directory.path.clone();
                    return Err(FileError::Missing { path });
                }
            }
            Root::Patterns(_, nodes) => {
                for node in nodes {
                    visit.directory(node)?;
                }
            }
        }
        self.everything = match everything {
            true => Some((begun, begun.elapsed())),
            false => before,
        };
        Ok(visit.found)
    }

    /// All files, for a batch read or to look into one: in order of their paths, at least one if a file or a pattern
    /// was asked for.
    pub(super) fn list_all(&mut self) -> Result<Vec<Found>, FileError> {
        self.distrust();
        let mut found = self.list(&|_, _| false)?;
        found.sort_by(Found::cmp_path);
        found.dedup_by(|a, b| a.cmp_path(b).is_eq());
        match &self.root {
            Root::Patterns(pattern, _) if found.is_empty() => Err(FileError::NoMatch {
                pattern: pattern.clone(),
            }),
            _ => Ok(found),
        }
    }

    /// The directories that hold files now. No file is looked at.
    pub(super) fn directories(&mut self) -> Result<Vec<Arc<Directory>>, FileError> {
        if let Some(committed) = self.committed() {
            committed.list(&|_, _| true)?;
            let found = committed.directories();
            self.distrust();
            return Ok(found);
        }
        self.list(&|_, _| true)?;
        // The files themselves are still to be found.
        let mut found = Vec::new();
        self.each(&mut |node| {
            if node.files > 0 {
                found.push(Arc::clone(&node.directory));
            }
        });
        self.everything = None;
        Ok(found)
    }

    /// About how many files a listing goes through.
    pub(super) fn files(&self) -> usize {
        if let Some(committed) = &self.committed {
            return committed.files();
        }
        let mut files = 0;
        self.each(&mut |node| files += node.files);
        files
    }

    /// The directories that are listed first.
    pub(super) fn bases(&self) -> Vec<&str> {
        match &self.root {
            Root::File(path) => path.to_str().into_iter().collect(),
            Root::Directory(node) => vec![&node.directory.path],
            Root::Patterns(_, nodes) => nodes
                .iter()
                .map(|node| node.directory.path.as_str())
                .collect(),
        }
    }

    /// Where it looks.
    pub(super) fn places(&self) -> Places {
        let bases = self.bases().into_iter().map(str::to_string);
        Places {
            bases: bases.collect(),
            patterns: self.patterns.clone(),
            recursive: self.options.recursive,
            filter: self.options.path_glob_filter.clone(),
        }
    }

    /// See `Places`.
    pub(super) fn meets(&self, path: &Path) -> bool {
        self.places().meets(path)
    }

    /// The next listing takes nothing for unchanged.
    pub(super) fn distrust(&mut self) {
        self.everything = None;
        self.committed = None;
    }

    /// Reads the commit log, if the directory has one by now.
    fn committed(&mut self) -> Option<&mut CommittedLister> {
        if self.committed.is_none()
            && let Root::Directory(node) = &self.root
            && is_sink_directory(Path::new(&node.directory.path))
        {
            let directory = Arc::clone(&node.directory);
            self.committed = Some(CommittedLister::new(directory, &self.options));
        }
        self.committed.as_mut()
    }

    fn each<'a>(&'a self, visit: &mut dyn FnMut(&'a Node)) {
        match &self.root {
            Root::File(_) => {}
            Root::Directory(node) => node.each(visit),
            Root::Patterns(_, nodes) => nodes.iter().for_each(|node| node.each(visit)),
        }
    }
}

/// One listing.
struct Visit<'a> {
    options: &'a FileOptions,
    patterns: &'a [Vec<Step>],
    known: Known<'a>,
    /// Nothing is trusted.
    everything: bool,
    found: Vec<Found>,
}

impl Visit<'_> {
    /// Lists a directory and those below it; false if it is not there.
    fn directory(&mut self, node: &mut Node) -> Result<bool, FileError> {
        let path = PathBuf::from(match node.directory.path.as_str() {
            "" => "/",
            path => path,
        });
        if let Rule::Step(pattern, at) = node.rule
            && let Step::Name(name) = &self.patterns[pattern][at]
        {
            self.named(node, pattern, at, name)?;
            return Ok(true);
        }
        let modified = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => metadata.modified(),
            Ok(_) => return Ok(false),
            Err(error) => Err(error),
        };
        let modified = match modified {
            Ok(modified) => modified,
            Err(error) if is_missing(&error) => return Ok(false),
            Err(source) => return Err(gone(&path, source)),
        };
        if !self.everything && node.trusted == Some(modified) {
            return self.below(node).map(|()| true);
        }
        // Whatever goes wrong on the way, the next listing looks again.
        node.trusted = None;
        #[allow(
            clippy::disallowed_methods,
            reason = "compared with the time of a directory, to know whether to look again"
        )]
        let age = SystemTime::now().duration_since(modified);
        match self.entries(node, &path) {
            Ok(()) => {}
            Err(FileError::Missing { .. }) if !path.is_dir() => return Ok(false),
            Err(error) => return Err(error),
        }
        self.below(node)?;
        let fraction = modified
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.subsec_nanos());
        let step = match fraction {
            0 => MTIME_STEP_COARSE,
            _ => MTIME_STEP,
        };
        node.trusted = age.is_ok_and(|age| age > step).then_some(modified);
        Ok(true)
    }

    /// Goes on below.
    fn below(&mut self, node: &mut Node) -> Result<(), FileError> {
        let mut gone = Vec::new();
        for (name, below) in &mut node.below {
            if !self.directory(below)? {
                gone.push(name.clone());
            }
        }
        for name in gone {
            node.below.remove(&name);
        }
        Ok(())
    }

    /// A step of a pattern without wildcards.
    fn named(
        &mut self,
        node: &mut Node,
        pattern: usize,
        at: usize,
        name: &str,
    ) -> Result<(), FileError> {
        let path = format!("{}/{name}", node.directory.path);
        let is_last = at + 1 == self.patterns[pattern].len();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                let rule = match is_last {
                    true => Rule::Files,
                    false => Rule::Step(pattern, at + 1),
                };
                let below = node.below.entry(name.to_string());
                let below = below.or_insert_with(|| Node::new(path, Vec::new(), rule));
                if !self.directory(below)? {
                    node.below.clear();
                }
            }
            Ok(_) if is_last => {
                node.below.clear();
                node.files = 1;
                self.file(&node.directory, name, false)?;
            }
            Ok(_) => node.below.clear(),
            Err(error) if is_missing(&error) => node.below.clear(),
            Err(error) => return Err(gone(Path::new(&path), error)),
        }
        Ok(())
    }

    /// Goes through the names in a directory.
    fn entries(&mut self, node: &mut Node, path: &Path) -> Result<(), FileError> {
        let mut before = std::mem::take(&mut node.below);
        node.files = 0;
        for entry in fs::read_dir(path).map_err(|error| gone(path, error))? {
            let entry = entry.map_err(|error| gone(path, error))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                if is_hidden(&name.to_string_lossy(), self.options) {
                    continue;
                }
                return Err(FileError::Name {
                    path: entry.path().display().to_string(),
                });
            };
            if is_hidden(name, self.options) {
                continue;
            }
            let deeper = match node.rule {
                Rule::Files => Some(Rule::Files),
                Rule::Step(pattern, at) => {
                    let steps = &self.patterns[pattern];
                    match &steps[at] {
                        Step::Wild(step) if !step.matches(name) => continue,
                        _ if at + 1 == steps.len() => None,
                        _ => Some(Rule::Step(pattern, at + 1)),
                    }
                }
            };
            let kind = entry.file_type().map_err(|error| gone(path, error))?;
            let is_dir = kind.is_dir() || (kind.is_symlink() && leads_down(&entry.path()));
            let wants_files = !matches!(deeper, Some(Rule::Step(..)));
            if !is_dir {
                if wants_files {
                    node.files += 1;
                    self.file(&node.directory, name, false)?;
                }
                continue;
            }
            let plain = deeper == Some(Rule::Files);
            // Below a directory that tells a value, files may lie at any depth.
            let is_told = name.contains('=') || !node.directory.partition.is_empty();
            if plain && !self.options.recursive && !is_told {
                continue;
            }
            let below = before.remove(name).unwrap_or_else(|| {
                let path = format!("{}/{name}", node.directory.path);
                let mut partition = node.directory.partition.clone();
                // Whoever looks for files at any depth does not take directories for columns.
                if plain && !self.options.recursive {
                    partition.extend(partition::value(name));
                }
                Node::new(path, partition, deeper.unwrap_or(Rule::Files))
            });
            node.below.insert(name.to_string(), below);
        }
        Ok(())
    }

    /// The one file that was asked for by its name.
    fn only(&mut self, path: &Path) -> Result<(), FileError> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| FileError::Name {
            path: path.display().to_string(),
        })?;
        let directory = Arc::new(Directory {
            path: directory(parent)?,
            partition: Vec::new(),
        });
        self.file(&directory, name, true)
    }

    /// Takes a file if it is wanted. One `asked` for by its own name must be there.
    fn file(
        &mut self,
        directory: &Arc<Directory>,
        name: &str,
        asked: bool,
    ) -> Result<(), FileError> {
        if (self.known)(&directory.path, name) {
            return Ok(());
        }
        if let Some(filter) = &self.options.path_glob_filter
            && !filter.iter().any(|pattern| pattern.matches(name))
        {
            return Ok(());
        }
        let path = PathBuf::from(format!("{}/{name}", directory.path));
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            // It went between the listing and the look.
            Err(error) if is_missing(&error) && !asked => return Ok(()),
            Err(error) => return Err(gone(&path, error)),
        };
        // A pipe would be waited for, and a device has no end.
        if !metadata.is_file() {
            return match asked {
                true => Err(FileError::NotAFile {
                    path: path.display().to_string(),
                }),
                false => Ok(()),
            };
        }
        let modified_us = modified_us(&metadata).map_err(|error| gone(&path, error))?;
        let before = self.options.modified_before_us.unwrap_or(i64::MAX);
        let after = self.options.modified_after_us.unwrap_or(i64::MIN);
        if modified_us >= before || modified_us <= after {
            return Ok(());
        }
        self.found.push(Found {
            directory: Arc::clone(directory),
            name: name.into(),
            modified_us,
            size: metadata.len(),
            inode: inode(&metadata),
        });
        Ok(())
    }
}

/// Microseconds since 1970.
pub(super) fn modified_us(metadata: &fs::Metadata) -> io::Result<i64> {
    Ok(match metadata.modified()?.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_micros() as i64,
        Err(before) => -(before.duration().as_micros() as i64),
    })
}

/// What stays when a file grows, and is another when one is put in its place; 0 where there is no such thing.
pub(super) fn inode(metadata: &fs::Metadata) -> u64 {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::ino(metadata);
    #[cfg(not(unix))]
    return 0;
}

/// Whether a link leads to a directory, and not to one that holds it: that way there is no end.
fn leads_down(link: &Path) -> bool {
    let holds = |target: PathBuf| {
        let at = link.parent().and_then(|parent| parent.canonicalize().ok());
        at.is_some_and(|at| at.starts_with(&target))
    };
    link.is_dir() && link.canonicalize().is_ok_and(|target| !holds(target))
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

/// A path as text, without a slash at its end.
fn directory(path: &Path) -> Result<String, FileError> {
    match path.to_str() {
        Some(text) => Ok(text.trim_end_matches('/').to_string()),
        None => Err(FileError::Name {
            path: path.display().to_string(),
        }),
    }
}

/// Names that writers give to what is not, or not yet, data; or that the option says.
pub(super) fn is_hidden(name: &str, options: &FileOptions) -> bool {
    if name.ends_with("._COPYING_") {
        return true;
    }
    if name.starts_with('_') && name.contains('=') {
        return false;
    }
    match &options.ignored_names {
        None => highwater_engine::places::is_hidden(name),
        Some(ignored) => {
            name.starts_with("_metadata")
                || name.starts_with("_common_metadata")
                || ignored.is_match(name)
        }
    }
}

/// The directory that a pattern starts from, and the steps behind it.
fn steps(pattern: &str) -> Result<(String, Vec<Step>), glob::PatternError> {
    let is_wild = |step: &&str| step.contains(['*', '?', '[']);
    let parts: Vec<&str> = pattern.split('/').filter(|step| !step.is_empty()).collect();
    let plain = parts.iter().take_while(|step| !is_wild(step)).count();
    // Braces may have left a plain path: its last step is looked for like any other.
    let base = plain.min(parts.len().saturating_sub(1));
    let steps = parts[base..].iter().map(|step| {
        Ok(match is_wild(step) {
            // As Hadoop has it: a step is one directory, however many stars there are.
            true => Step::Wild(Pattern::new(&step.replace("**", "*"))?),
            false => Step::Name((*step).to_string()),
        })
    });
    let steps = steps.collect::<Result<_, _>>()?;
    let base = parts[..base].iter().map(|step| format!("/{step}"));
    Ok((base.collect(), steps))
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
mod tests;
