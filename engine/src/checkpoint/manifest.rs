//! One durable cut: where every source stood after an epoch, its marks, and which files hold the state.
//!
//! A manifest is the only thing that gives state files a meaning. They are written first, under names no other
//! checkpoint uses, so a crash leaves files that nobody names: the next start removes them. A file that did not change
//! is named again, so that a checkpoint writes what changed and no more. The newest two manifests are kept: should the
//! newest be damaged, the query goes on from the one before, whose part of the log is kept too.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use highwater_operators::arrangement::Kind;
use serde::{Deserialize, Serialize};

use super::seal::{sealed, unsealed};
use super::store::Store;
use super::upload::Summed;
use super::{CheckpointError, FORMAT};
use crate::source::{Offset, Source};

/// How many manifests are kept.
const KEPT: usize = 2;
/// Segments of about one size that become one.
const SEGMENTS_MERGED: usize = 8;

/// A file of the checkpoint, as the manifest knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    /// Its name in the store.
    pub(crate) file: String,
    /// Its size.
    pub(crate) bytes: u64,
    /// CRC-32 of its bytes.
    pub(crate) crc32: u32,
}

/// Lines that a source must have back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    #[serde(flatten)]
    pub(crate) file: FileRecord,
    pub(crate) entries: u64,
}

/// One source after the epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SourceState {
    pub(crate) description: String,
    pub(crate) at: Offset,
    /// Oldest first.
    pub(crate) memory: Vec<Segment>,
}

/// A run of an arrangement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    #[serde(flatten)]
    pub(crate) file: FileRecord,
    pub(crate) lower: u64,
    pub(crate) upper: u64,
    pub(crate) rows: u64,
}

/// What rows of an arrangement mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Meaning {
    Latest,
    Multiset,
}

impl From<Kind> for Meaning {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Latest => Meaning::Latest,
            Kind::Multiset => Meaning::Multiset,
        }
    }
}

impl From<Meaning> for Kind {
    fn from(meaning: Meaning) -> Self {
        match meaning {
            Meaning::Latest => Kind::Latest,
            Meaning::Multiset => Kind::Multiset,
        }
    }
}

/// One worker's part of one operator's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) operator: String,
    pub(crate) worker: usize,
    pub(crate) peers: usize,
    pub(crate) kind: Meaning,
    pub(crate) upper: u64,
    /// Keys below it are forgotten: bytes in hexadecimal.
    pub(crate) floor: String,
    /// How many keys there are, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) live: Option<u64>,
    pub(crate) runs: Vec<RunRecord>,
}

/// Event time after the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MarksRecord {
    /// The mark of each watermarked stream.
    pub(crate) streams_ms: Vec<i64>,
    /// The watermark that the epoch ran with.
    pub(crate) before_ms: i64,
    /// For each watermarked stream the clock of the last epoch that brought rows for it; not known in files of older
    /// builds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) heard_us: Vec<i64>,
}

/// One durable cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) version: u32,
    pub(crate) generation: u64,
    /// The last epoch that is in.
    pub(crate) epoch: u64,
    pub(crate) sources: Vec<SourceState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) marks: Option<MarksRecord>,
    pub(crate) state: Vec<Part>,
    /// For each sink the last epoch of which it had got rows when this was written, maybe later than `epoch`; not known
    /// in files of older builds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) written: Vec<Option<u64>>,
}

/// What a manifest is made of.
pub(crate) struct Cut {
    pub(crate) epoch: u64,
    pub(crate) sources: Vec<SourceState>,
    pub(crate) marks: Option<MarksRecord>,
    pub(crate) state: Vec<Part>,
    pub(crate) written: Vec<Option<u64>>,
}

impl Manifest {
    /// The last epoch of which sink number `sink` is known to have got rows.
    pub(crate) fn written_to(&self, sink: usize) -> Option<u64> {
        self.written.get(sink).copied().flatten()
    }

    fn name(epoch: u64) -> String {
        format!("checkpoints/{epoch}")
    }

    /// All files it gives a meaning.
    pub(crate) fn files(&self) -> impl Iterator<Item = &FileRecord> {
        let memory = self.sources.iter().flat_map(|source| &source.memory);
        let runs = self.state.iter().flat_map(|part| &part.runs);
        memory
            .map(|segment| &segment.file)
            .chain(runs.map(|run| &run.file))
    }
}

/// Reads the manifest of `epoch`.
pub(crate) fn load(store: &dyn Store, epoch: u64) -> Result<Manifest, CheckpointError> {
    let name = Manifest::name(epoch);
    unsealed(store, &name)?.ok_or_else(|| CheckpointError::Damaged {
        path: format!("{}/{name}", store.location()),
        reason: "it is missing".into(),
    })
}

/// The epochs of all manifests, ascending.
pub(crate) fn epochs(store: &dyn Store) -> Result<Vec<u64>, CheckpointError> {
    let mut epochs: Vec<u64> = Vec::new();
    for (name, _) in store.list("checkpoints")? {
        epochs.extend(name.parse::<u64>().ok());
    }
    epochs.sort_unstable();
    Ok(epochs)
}

/// Checks that every file a manifest names is there and whole.
pub(crate) fn verify(store: &dyn Store, manifest: &Manifest) -> Result<(), CheckpointError> {
    for record in manifest.files() {
        let damaged = |reason: &str| CheckpointError::Damaged {
            path: format!("{}/{}", store.location(), record.file),
            reason: reason.into(),
        };
        let mut nowhere = std::io::sink();
        let mut summed = Summed::new(&mut nowhere);
        if !store.copy(&record.file, &mut summed)? {
            return Err(damaged("it is missing"));
        }
        let (bytes, crc32) = summed.sum();
        if bytes != record.bytes {
            return Err(damaged(&format!(
                "it has {bytes} bytes instead of {}",
                record.bytes
            )));
        }
        if crc32 != record.crc32 {
            return Err(damaged("its checksum is wrong"));
        }
    }
    Ok(())
}

/// The newest manifest whose files are all whole, if there is one. A damaged one is told, and the one before is used;
/// if there is none before, that is an error.
pub(crate) fn newest_good(store: &dyn Store) -> Result<Option<Manifest>, CheckpointError> {
    let mut errors = Vec::new();
    for epoch in epochs(store)?.into_iter().rev() {
        let checked = load(store, epoch).and_then(|manifest| {
            verify(store, &manifest)?;
            Ok(manifest)
        });
        match checked {
            Ok(manifest) => {
                for (file, skipped, reason) in errors {
                    tracing::warn!(
                        file,
                        "damaged checkpoint file \"{file}\": {reason}; the checkpoint of epoch {skipped} is not used, \
                         the query goes on from that of epoch {epoch}"
                    );
                }
                return Ok(Some(manifest));
            }
            Err(CheckpointError::Damaged { path, reason }) => errors.push((path, epoch, reason)),
            Err(error) => return Err(error),
        }
    }
    let told = |(path, _, reason): &(String, u64, String)| format!("\"{path}\": {reason}");
    let why: Vec<String> = errors.iter().map(told).collect();
    match why.is_empty() {
        true => Ok(None),
        false => Err(CheckpointError::NoneGood {
            dir: store.location().into(),
            why: why.join("; "),
        }),
    }
}

/// The manifests of one query, and the files they keep.
pub(crate) struct Shelf {
    store: Arc<dyn Store>,
    generation: u64,
    /// Oldest first.
    kept: VecDeque<Manifest>,
    /// Damaged ones, and those newer than the one that the query goes on from: gone with the next.
    condemned: Vec<u64>,
    /// Per source, the segments of the next manifest.
    memory: Vec<Vec<Segment>>,
    segments_written: u64,
}

impl Shelf {
    /// Goes on from `from`. Removes files that no manifest names.
    pub(crate) fn open(
        store: Arc<dyn Store>,
        generation: u64,
        from: Option<&Manifest>,
        sources: usize,
    ) -> Result<Self, CheckpointError> {
        let mut kept = VecDeque::new();
        let mut condemned = Vec::new();
        for epoch in epochs(store.as_ref())? {
            let older = from.is_some_and(|from| epoch <= from.epoch);
            match load(store.as_ref(), epoch) {
                Ok(manifest) if older => kept.push_back(manifest),
                _ => condemned.push(epoch),
            }
        }
        let memory = match from {
            Some(from) => from
                .sources
                .iter()
                .map(|source| source.memory.clone())
                .collect(),
            None => vec![Vec::new(); sources],
        };
        let shelf = Shelf {
            store,
            generation,
            kept,
            condemned,
            memory,
            segments_written: 0,
        };
        shelf.sweep()?;
        Ok(shelf)
    }

    /// Removes files that no manifest names: leavings of a run that was cut short.
    fn sweep(&self) -> Result<(), CheckpointError> {
        let named = self.named();
        for dir in ["state", "sources"] {
            for (name, _) in self.store.list(dir)? {
                let name = format!("{dir}/{name}");
                if !named.contains(name.as_str()) {
                    self.store.delete(&name)?;
                }
            }
        }
        Ok(())
    }

    fn named(&self) -> BTreeSet<&str> {
        let files = self.kept.iter().flat_map(Manifest::files);
        files.map(|record| record.file.as_str()).collect()
    }

    /// The oldest manifest that is kept: nothing before it is read again.
    pub(crate) fn oldest(&self) -> Option<&Manifest> {
        self.kept.front()
    }

    /// The newest epoch a manifest holds.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.kept.back().map(|manifest| manifest.epoch)
    }

    /// Adds what a source remembers up to `at`, and gives its state for the next manifest.
    pub(crate) fn remember(
        &mut self,
        index: usize,
        source: &mut dyn Source,
        at: &Offset,
    ) -> Result<SourceState, CheckpointError> {
        let entries = source.remember(at);
        if !entries.is_empty() {
            let segment = self.write_segment(index, &entries)?;
            self.memory[index].push(segment);
        }
        self.compact(index, source)?;
        Ok(SourceState {
            description: source.description(),
            at: at.clone(),
            memory: self.memory[index].clone(),
        })
    }

    /// Merges the newest segments while enough of them are of about one size: a line is rewritten a logarithmic number
    /// of times, and the number of segments stays logarithmic too.
    fn compact(&mut self, index: usize, source: &dyn Source) -> Result<(), CheckpointError> {
        loop {
            let segments = &self.memory[index];
            let Some(newest) = segments.last() else {
                return Ok(());
            };
            let limit = newest.entries.max(16) * SEGMENTS_MERGED as u64;
            let from = segments
                .iter()
                .rposition(|segment| segment.entries > limit)
                .map_or(0, |place| place + 1);
            if segments.len() - from < SEGMENTS_MERGED {
                return Ok(());
            }
            let mut entries = Vec::new();
            for segment in &segments[from..] {
                let lines = read_segment(self.store.as_ref(), segment)?;
                entries.extend(lines.into_iter().filter(|line| source.still_needs(line)));
            }
            let merged = self.write_segment(index, &entries)?;
            let segments = &mut self.memory[index];
            segments.truncate(from);
            if merged.entries > 0 {
                segments.push(merged);
            }
        }
    }

    fn write_segment(
        &mut self,
        index: usize,
        entries: &[String],
    ) -> Result<Segment, CheckpointError> {
        self.segments_written += 1;
        let (generation, number) = (self.generation, self.segments_written);
        let file = format!("sources/{index}-{generation}-{number}");
        let mut text = entries.join("\n");
        text.push('\n');
        let bytes = text.as_bytes();
        self.store.put(&file, &mut |out| out.write_all(bytes))?;
        Ok(Segment {
            file: FileRecord {
                file,
                bytes: bytes.len() as u64,
                crc32: crc32fast::hash(bytes),
            },
            entries: entries.len() as u64,
        })
    }

    fn is_of_older_run(&self, epoch: u64) -> bool {
        load(self.store.as_ref(), epoch).is_ok_and(|found| found.generation < self.generation)
    }

    /// Makes a manifest durable, and lets go of the oldest.
    pub(crate) fn publish(&mut self, cut: Cut) -> Result<(), CheckpointError> {
        super::still_ours(self.store.as_ref(), self.generation)?;
        for condemned in std::mem::take(&mut self.condemned) {
            self.store.delete(&Manifest::name(condemned))?;
        }
        let manifest = Manifest {
            version: FORMAT,
            generation: self.generation,
            epoch: cut.epoch,
            sources: cut.sources,
            marks: cut.marks,
            state: cut.state,
            written: cut.written,
        };
        let name = Manifest::name(cut.epoch);
        let bytes = sealed(&manifest);
        let store = self.store.as_ref();
        let put = || super::put_of_run(store, self.generation, &name, &bytes);
        match put() {
            // Where a store cannot see to it, a run that was about to publish when this one began may still do so; its
            // files are gone by then.
            Err(CheckpointError::OtherWriter { .. }) if self.is_of_older_run(cut.epoch) => {
                store.delete(&name)?;
                put()?;
            }
            other => other?,
        }
        self.kept.push_back(manifest);
        let mut dropped: BTreeSet<String> = BTreeSet::new();
        while self.kept.len() > KEPT {
            let old = self.kept.pop_front().expect("there are several");
            self.store.delete(&Manifest::name(old.epoch))?;
            dropped.extend(old.files().map(|record| record.file.clone()));
        }
        let named = self.named();
        for file in dropped {
            if !named.contains(file.as_str()) {
                self.store.delete(&file)?;
            }
        }
        Ok(())
    }
}

/// The lines of a segment.
pub(crate) fn read_segment(
    store: &dyn Store,
    segment: &Segment,
) -> Result<Vec<String>, CheckpointError> {
    let name = &segment.file.file;
    let damaged = |reason: &str| CheckpointError::Damaged {
        path: format!("{}/{name}", store.location()),
        reason: reason.into(),
    };
    let bytes = store.get(name)?.ok_or_else(|| damaged("it is missing"))?;
    if crc32fast::hash(&bytes) != segment.file.crc32 {
        return Err(damaged("its checksum is wrong"));
    }
    let text = String::from_utf8(bytes).map_err(|_| damaged("it is not UTF-8"))?;
    Ok(text.lines().map(str::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::super::store::{ObjectStores, open};
    use super::*;

    #[test]
    fn what_an_older_run_published_late_stands_in_nobodys_way() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(&dir.path().display().to_string(), &ObjectStores::default());
        let store = store.expect("opened");
        let cut = |epoch| Cut {
            epoch,
            sources: Vec::new(),
            marks: None,
            state: Vec::new(),
            written: Vec::new(),
        };
        let shelf = |generation| {
            let shelf = Shelf::open(Arc::clone(&store), generation, None, 0);
            shelf.expect("opened")
        };
        let (mut older, mut newer) = (shelf(1), shelf(2));
        store.take_over(1).expect("begun");
        older.publish(cut(3)).expect("published");
        store.take_over(2).expect("begun");
        newer.publish(cut(3)).expect("published");
        let found = load(store.as_ref(), 3).expect("loaded");
        assert_eq!(found.generation, 2);
        // Of this run's own making there is one for ever.
        let twice = newer.publish(cut(3)).expect_err("it is there");
        assert!(matches!(twice, CheckpointError::OtherWriter { .. }));
    }
}
