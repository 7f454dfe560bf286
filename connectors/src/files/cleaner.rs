//! What happens to files that were read: `cleanSource` off, archive or delete.
//!
//! A thread beside the coordinator does it, after the epochs that read a file are committed and never asked for again.
//! A file that changed since it was planned holds rows that nobody has read: it stays. What cannot be cleaned is told
//! and stays; no query fails for it. A crash may leave files that were read; they are not read again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::error::FileError;
use super::listing::{Lister, modified_us};
use super::log::LOG;

/// What happens to files that were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Clean {
    /// Nothing.
    #[default]
    Off,
    /// They go to this directory, below it to their whole path.
    Archive(PathBuf),
    /// They are deleted.
    Delete,
}

/// The logs by which sinks of files say which of them count.
const SINK_LOGS: [&str; 2] = ["_spark_metadata", LOG];

/// Refuses to clean where that would lose rows: in a directory that a sink keeps a log of, or into a directory whose
/// files would be read as new ones.
pub(super) fn check(clean: &Clean, path: &str, lister: &Lister) -> Result<(), FileError> {
    let refuse = |reason: String| {
        let path = path.into();
        Err(FileError::Clean { path, reason })
    };
    if *clean == Clean::Off {
        return Ok(());
    }
    for base in lister.bases() {
        let mut above = Path::new(base).ancestors();
        if let Some(directory) =
            above.find(|directory| SINK_LOGS.iter().any(|log| directory.join(log).is_dir()))
        {
            return refuse(format!(
                "\"{}\" is the output of a file sink, whose log names its files",
                directory.display()
            ));
        }
    }
    match clean {
        Clean::Archive(directory) if lister.meets(directory) => refuse(format!(
            "files in \"{}\" would be read again; option \"sourceArchiveDir\" must lead elsewhere",
            directory.display()
        )),
        _ => Ok(()),
    }
}

/// A file that was read.
pub(super) struct Read {
    pub(super) path: String,
    pub(super) modified_us: i64,
    /// None where that is not known any more.
    pub(super) size: Option<u64>,
}

/// The cleaning thread. It finishes what it was given before it ends.
pub(super) struct Cleaner {
    files: Option<Sender<Read>>,
    thread: Option<JoinHandle<()>>,
}

impl Cleaner {
    /// None if nothing is to be cleaned.
    pub(super) fn start(clean: &Clean) -> Result<Option<Cleaner>, FileError> {
        if *clean == Clean::Off {
            return Ok(None);
        }
        let (files, receiver) = channel();
        let clean = clean.clone();
        let thread = std::thread::Builder::new()
            .name("highwater:clean".into())
            .spawn(move || run(&receiver, &clean))
            .map_err(|source| FileError::Read {
                path: "a thread that cleans files".into(),
                source,
            })?;
        Ok(Some(Cleaner {
            files: Some(files),
            thread: Some(thread),
        }))
    }

    /// A file was read, and is never read again.
    pub(super) fn clean(&self, file: Read) {
        if let Some(files) = &self.files {
            // The thread ends only after this end of the channel does.
            let _ = files.send(file);
        }
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        self.files = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(files: &Receiver<Read>, clean: &Clean) {
    for file in files {
        let path = &file.path;
        let outcome = match changed(&file) {
            Ok(true) => {
                tracing::warn!(
                    "file \"{path}\" changed after it was read, and is left where it is"
                );
                continue;
            }
            Ok(false) => match clean {
                Clean::Off => Ok(()),
                Clean::Delete => fs::remove_file(path),
                Clean::Archive(directory) => archive(Path::new(path), directory),
            },
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => {}
            // Somebody was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("file \"{path}\" was read and cannot be cleaned: {error}"),
        }
    }
}

fn changed(file: &Read) -> io::Result<bool> {
    let metadata = fs::metadata(&file.path)?;
    let size = file.size.unwrap_or(metadata.len());
    Ok(metadata.len() != size || modified_us(&metadata)? != file.modified_us)
}

/// Moves a file to its own path below `directory`.
fn archive(path: &Path, directory: &Path) -> io::Result<()> {
    let below = path.strip_prefix("/").unwrap_or(path);
    let target = directory.join(below);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::rename(path, &target) {
        // Another file system: never half a file under the name.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let mut half = target.clone().into_os_string();
            half.push("._COPYING_");
            fs::copy(path, &half)?;
            fs::rename(&half, &target)?;
            fs::remove_file(path)
        }
        outcome => outcome,
    }
}
