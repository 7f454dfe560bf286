//! What a query's sink was given, epoch by epoch.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use highwater::{Error, OutputMode};

use crate::common::added_up;
use crate::query::Query;

/// The rows of each epoch, as text and in their order; and when it shall fail.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) epochs: BTreeMap<u64, Vec<String>>,
    /// Calls until one fails, and whether it takes its rows before.
    pub(crate) fails_in: Option<(u32, bool)>,
    pub(crate) failed: u32,
}

/// What a sink says that was told to fail.
pub(crate) const TOLD: &str = "the sink was told to fail";

impl Taken {
    pub(crate) fn take(&mut self, epoch: u64, rows: Vec<String>) -> Result<(), Error> {
        let fails = match &mut self.fails_in {
            Some((0, _)) => self.fails_in.take(),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        self.failed += u32::from(fails.is_some());
        let failed = || {
            Err(Error::Run {
                message: TOLD.into(),
            })
        };
        if let Some((_, false)) = fails {
            return failed();
        }
        if let Some(before) = self.epochs.get(&epoch) {
            same(epoch, before, &rows);
        }
        self.epochs.insert(epoch, rows);
        match fails {
            Some(_) => failed(),
            None => Ok(()),
        }
    }

    /// What the first `epochs` epochs add up to.
    pub(crate) fn answer(&self, query: &Query, epochs: usize) -> Vec<String> {
        let mut taken = self.epochs.values().take(epochs);
        match query.mode {
            OutputMode::Complete => {
                let last = taken.next_back().cloned().unwrap_or_default();
                in_order(query, last)
            }
            mode => added_up(taken.flatten().cloned(), mode, query.keys),
        }
    }

    /// What a process put into `dir` that is no more.
    pub(crate) fn read(dir: &Path) -> BTreeMap<u64, Vec<String>> {
        let mut epochs = BTreeMap::new();
        for entry in fs::read_dir(dir).expect("listed") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("named").to_string_lossy();
            if let Ok(epoch) = name.parse() {
                epochs.insert(epoch, lines_in(&path));
            }
        }
        epochs
    }
}

/// Takes an epoch's rows into a file of `dir`, whole or not at all.
pub(crate) fn put(dir: &Path, epoch: u64, rows: &[String]) {
    let path: PathBuf = dir.join(epoch.to_string());
    if path.exists() {
        same(epoch, &lines_in(&path), rows);
    }
    let hidden = dir.join(format!(".{epoch}"));
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(&hidden, text).expect("written");
    fs::rename(hidden, path).expect("renamed");
}

fn lines_in(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("read");
    text.lines().map(str::to_string).collect()
}

/// An epoch that comes again has the rows that it had.
fn same(epoch: u64, before: &[String], now: &[String]) {
    let sorted = |rows: &[String]| {
        let mut rows = rows.to_vec();
        rows.sort();
        rows
    };
    assert_eq!(
        sorted(before),
        sorted(now),
        "epoch {epoch} came again with other rows"
    );
}

/// Rows in their order if the query gives them one.
pub(crate) fn in_order(query: &Query, mut rows: Vec<String>) -> Vec<String> {
    let last = query.sql.rsplit(')').next();
    if !last.is_some_and(|last| last.contains(" ORDER BY ")) {
        rows.sort();
    }
    rows
}
