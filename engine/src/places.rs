//! Where a query may write: not where it reads, and nothing of its own over anything else of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;

use crate::checkpoint::{OBJECTS, Store};
use crate::error::Error;
use crate::plan::Compiled;
use crate::relation::factories;
use crate::sink::SinkFactory;

/// A path of the local file system as options write it, without `file:`; none if it is elsewhere.
pub fn local(text: &str) -> Option<&Path> {
    let plain = text
        .strip_prefix("file://")
        .or_else(|| text.strip_prefix("file:"))
        .unwrap_or(text);
    (!plain.contains("://")).then(|| Path::new(plain))
}

/// A path without links and steps up, as far as it is there.
pub fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    for there in path.ancestors() {
        if let (Ok(mut found), Ok(rest)) = (there.canonicalize(), path.strip_prefix(there)) {
            for step in rest {
                match step == ".." {
                    true => found.pop(),
                    false => {
                        found.push(step);
                        true
                    }
                };
            }
            return found;
        }
    }
    path
}

/// True if whoever lists a directory passes over what has this name.
pub fn is_hidden(name: &str) -> bool {
    name.starts_with(['_', '.'])
}

/// A query that reads what it writes would go on for ever.
pub(crate) fn refuse_own_output(compiled: &Compiled, sink: &dyn SinkFactory) -> Result<(), Error> {
    let Some(directory) = sink.directory() else {
        return Ok(());
    };
    let mut sources = compiled.sources.iter();
    match sources.any(|source| source.factory.meets(directory)) {
        false => Ok(()),
        true => Err(refused(format!(
            "the query would read its own output: one of its sources reads files in, below or around the output \
             directory \"{}\"; write elsewhere",
            directory.display()
        ))),
    }
}

/// The files of a checkpoint are rows to nobody.
pub(crate) fn refuse_checkpoint_among_rows(
    plan: &LogicalPlan,
    sinks: &[Arc<dyn SinkFactory>],
    store: &dyn Store,
) -> Result<(), Error> {
    let Some(checkpoint) = store.directory() else {
        return Ok(());
    };
    let at = checkpoint.display();
    let mut sources = factories(plan).into_iter();
    if sources.any(|source| source.holds(checkpoint, &OBJECTS)) {
        return Err(refused(format!(
            "the query would read its own checkpoint: one of its sources reads files in or above \"{at}\"; keep it \
             elsewhere, or in a directory whose name begins with \"_\""
        )));
    }
    let mut outputs = sinks.iter().filter_map(|sink| sink.directory());
    match outputs.find(|output| is_among(checkpoint, output)) {
        None => Ok(()),
        Some(output) => Err(refused(format!(
            "checkpoint \"{at}\" is in output directory \"{}\", whose readers would take its files for rows; keep it \
             elsewhere, or in a directory whose name begins with \"_\"",
            output.display()
        ))),
    }
}

/// Whether a listing of `directory` comes across `path`.
fn is_among(path: &Path, directory: &Path) -> bool {
    let (path, directory) = (resolved(path), resolved(directory));
    let Ok(below) = path.strip_prefix(&directory) else {
        return false;
    };
    !below.iter().any(|name| is_hidden(&name.to_string_lossy()))
}

fn refused(message: String) -> Error {
    Error::Refused {
        class: None,
        message,
    }
}
