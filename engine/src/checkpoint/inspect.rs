//! What a checkpoint directory holds, for people.

use std::collections::BTreeMap;
use std::fmt;

use super::manifest::{self, Manifest};
use super::store::{ObjectStores, open};
use super::{CheckpointError, generation, log, metadata};

/// What a checkpoint directory holds, and what a restart would do.
#[derive(Debug, Clone)]
pub struct CheckpointSummary {
    /// The directory.
    pub location: String,
    /// The query's id.
    pub id: String,
    /// How often the query was started.
    pub generation: u64,
    /// Workers and processes of the newest run.
    pub size: Option<(usize, usize)>,
    /// The epoch of the checkpoint that a restart would load.
    pub checkpoint: Option<u64>,
    /// Where each source stood then: its description and its offset.
    pub offsets: Vec<(String, String)>,
    /// The watermark then, in milliseconds since 1970.
    pub watermark_ms: Option<i64>,
    /// For each operator with state: rows and bytes.
    pub state: BTreeMap<String, (u64, u64)>,
    /// Planned epochs after the checkpoint: first and last.
    pub planned: Option<(u64, u64)>,
    /// The last epoch known to be in the sink.
    pub committed: Option<u64>,
    /// The local directories that its sinks write to.
    pub outputs: Vec<String>,
    /// Checkpoints that cannot be used, and why.
    pub damaged: Vec<String>,
    /// Why a restart would be refused.
    pub refused: Option<String>,
}

/// Reads a checkpoint directory without changing it.
pub fn inspect(location: &str) -> Result<CheckpointSummary, CheckpointError> {
    let store = open(location, &ObjectStores::default())?;
    let store = store.as_ref();
    let Some(metadata) = metadata(store)? else {
        return Err(CheckpointError::NotOne {
            dir: store.location().into(),
        });
    };
    let numbers = store.list("generations")?;
    let numbers = numbers.iter().filter_map(|(name, _)| name.parse().ok());
    let started = numbers.max().unwrap_or(0);
    let mut damaged = Vec::new();
    let newest = match started {
        0 => None,
        number => match generation(store, number) {
            Ok(newest) => Some(newest),
            Err(error) => {
                damaged.push(crate::error::error_chain(&error));
                None
            }
        },
    };
    let mut loaded: Option<Manifest> = None;
    let mut unusable = Vec::new();
    for epoch in manifest::epochs(store)?.into_iter().rev() {
        match manifest::load(store, epoch).and_then(|found| {
            manifest::verify(store, &found)?;
            Ok(found)
        }) {
            Ok(found) => {
                loaded = Some(found);
                break;
            }
            Err(error) => unusable.push(crate::error::error_chain(&error)),
        }
    }
    let refused = (loaded.is_none() && !unusable.is_empty()).then(|| {
        let none = CheckpointError::NoneGood {
            dir: store.location().into(),
            why: unusable.join("; "),
        };
        none.to_string()
    });
    // A run reads the newest generation before anything else.
    let refused = refused.or_else(|| damaged.first().cloned());
    damaged.append(&mut unusable);
    let logged = log::read(store, loaded.as_ref().map(|manifest| manifest.epoch));
    let logged = logged.map_err(|error| match error {
        CheckpointError::NoneGood { dir, .. } if !damaged.is_empty() => CheckpointError::NoneGood {
            dir,
            why: damaged.join("; "),
        },
        error => error,
    })?;
    let mut state: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for part in loaded.iter().flat_map(|manifest| &manifest.state) {
        let (rows, bytes) = state.entry(part.operator.clone()).or_default();
        *rows += part.runs.iter().map(|run| run.rows).sum::<u64>();
        *bytes += part.runs.iter().map(|run| run.file.bytes).sum::<u64>();
    }
    let sources = loaded.iter().flat_map(|manifest| &manifest.sources);
    let checkpoint = loaded.as_ref().map(|manifest| manifest.epoch);
    let first = logged.plans.first().map(|plan| plan.epoch);
    let last = logged.plans.last().map(|plan| plan.epoch);
    Ok(CheckpointSummary {
        location: store.location().into(),
        id: metadata.id,
        generation: started,
        size: newest.map(|newest| (newest.workers, newest.processes)),
        checkpoint,
        offsets: sources
            .map(|source| (source.description.clone(), source.at.0.to_string()))
            .collect(),
        watermark_ms: loaded
            .as_ref()
            .and_then(|manifest| manifest.marks.as_ref())
            .map(|marks| marks.before_ms),
        state,
        planned: first.zip(last),
        // A checkpoint is made when the sink has its epoch.
        committed: logged.committed.max(checkpoint),
        outputs: metadata.plan.outputs(),
        damaged,
        refused,
    })
}

impl fmt::Display for CheckpointSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "checkpoint {}", self.location)?;
        write!(
            f,
            "query      {}, started {} times",
            self.id, self.generation
        )?;
        if let Some((workers, processes)) = self.size {
            write!(f, ", last with -w {workers} -n {processes}")?;
        }
        writeln!(f)?;
        for text in &self.damaged {
            writeln!(f, "damaged    {text}")?;
        }
        match self.checkpoint {
            None if self.refused.is_some() && !self.damaged.is_empty() => {
                writeln!(f, "state      no good checkpoint")?
            }
            None => writeln!(f, "state      no checkpoint yet")?,
            Some(epoch) => {
                writeln!(
                    f,
                    "epoch      {epoch} is the last one in the newest good checkpoint"
                )?;
                for (source, at) in &self.offsets {
                    writeln!(f, "source     {source} at {at}")?;
                }
                if let Some(ms) = self.watermark_ms {
                    writeln!(f, "watermark  {ms} ms")?;
                }
                if self.state.is_empty() {
                    writeln!(f, "state      none")?;
                }
                for (operator, (rows, bytes)) in &self.state {
                    writeln!(f, "state      {operator}: {rows} rows, {bytes} bytes")?;
                }
            }
        }
        match self.planned {
            Some((first, last)) => writeln!(f, "planned    epochs {first} to {last}")?,
            None => writeln!(f, "planned    nothing after it")?,
        }
        match self.committed {
            Some(epoch) => writeln!(f, "committed  up to epoch {epoch}")?,
            None => writeln!(f, "committed  nothing")?,
        }
        if let Some(why) = &self.refused {
            return writeln!(f, "a restart would be refused: {why}");
        }
        let from = match self.checkpoint {
            Some(epoch) => format!("load the checkpoint of epoch {epoch}"),
            None => "start with empty state".to_string(),
        };
        let Some((first, last)) = self.planned else {
            return writeln!(f, "a restart would {from} and read what is new");
        };
        match self.committed {
            Some(committed) if committed >= last => writeln!(
                f,
                "a restart would {from}, replay epochs {first} to {last} for their state (all are in the sink), and \
                 read what is new"
            ),
            committed => {
                let missing = committed.map_or(first, |epoch| (epoch + 1).max(first));
                writeln!(
                    f,
                    "a restart would {from}, replay epochs {first} to {last}, commit those from {missing} on unless the \
                     sink has them, and read what is new"
                )
            }
        }
    }
}
