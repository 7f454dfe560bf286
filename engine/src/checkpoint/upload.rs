//! Writes the runs that no checkpoint has yet, beside the work, and reads them back.
//!
//! A snapshot shares the immutable runs of an arrangement, so taking one costs nothing; this thread writes those that
//! the checkpoint before did not name. What a checkpoint writes follows what changed, not the size of the state.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use crossbeam_channel::{Receiver, Sender, unbounded};
use highwater_operators::OperatorError;
use highwater_operators::arrangement::{Budget, RunFile, RunWriter, Snapshot, SnapshotRun};
use serde::{Deserialize, Serialize};

use super::CheckpointError;
use super::manifest::{FileRecord, Manifest, Part, RunRecord};
use super::store::Store;
use crate::error::error_chain;
use crate::spill::DiskRun;

/// What one worker wrote for a checkpoint. Crosses the network as text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Uploaded {
    pub(crate) worker: usize,
    pub(crate) epoch: u64,
    pub(crate) parts: Vec<Part>,
    /// Bytes of the files that were new.
    pub(crate) bytes_written: u64,
    pub(crate) failure: Option<String>,
}

struct Job {
    epoch: u64,
    snapshots: Vec<(String, Snapshot)>,
}

/// One worker's writer of state files, on a thread of its own.
pub(crate) struct Uploader {
    jobs: Sender<Job>,
    done: Receiver<Uploaded>,
}

/// The files of an arrangement's runs, by operator and epochs.
type Written = BTreeMap<(String, u64, u64), RunRecord>;

impl Uploader {
    /// Starts it; `bell` is rung when something is done. `from` is the checkpoint that the query goes on from: what
    /// this worker has from there need not be written again.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        generation: u64,
        (worker, peers): (usize, usize),
        from: Option<&Manifest>,
        bell: impl Fn() + Send + 'static,
    ) -> Self {
        let mut written = Written::new();
        let parts = from
            .map(|manifest| manifest.state.as_slice())
            .unwrap_or_default();
        for part in parts {
            if part.worker == worker && part.peers == peers {
                // Restored runs follow each other without gaps.
                let mut lower = 0;
                for run in &part.runs {
                    let key = (part.operator.clone(), lower, run.upper);
                    written.insert(key, run.clone());
                    lower = run.upper;
                }
            }
        }
        let (jobs, waiting) = unbounded::<Job>();
        let (sender, done) = unbounded();
        let work = move || {
            for job in waiting {
                let epoch = job.epoch;
                let uploaded = upload(store.as_ref(), generation, worker, job, &mut written)
                    .unwrap_or_else(|error| Uploaded {
                        worker,
                        epoch,
                        parts: Vec::new(),
                        bytes_written: 0,
                        failure: Some(error_chain(&error)),
                    });
                if sender.send(uploaded).is_err() {
                    return;
                }
                bell();
            }
        };
        std::thread::Builder::new()
            .name("highwater:upload".into())
            .spawn(work)
            .expect("the system can start a thread");
        Uploader { jobs, done }
    }

    /// Writes what the snapshots of an epoch have and no file has.
    pub(crate) fn upload(&self, epoch: u64, snapshots: Vec<(String, Snapshot)>) {
        let _ = self.jobs.send(Job { epoch, snapshots });
    }

    /// What is done.
    pub(crate) fn done(&self) -> Option<Uploaded> {
        self.done.try_recv().ok()
    }
}

fn upload(
    store: &dyn Store,
    generation: u64,
    worker: usize,
    job: Job,
    written: &mut Written,
) -> Result<Uploaded, CheckpointError> {
    let mut named = Written::new();
    let mut parts = Vec::new();
    let mut bytes_written = 0;
    for (operator, snapshot) in job.snapshots {
        let mut runs = Vec::new();
        for run in &snapshot.runs {
            let key = (operator.clone(), run.lower, run.upper);
            let record = match written.get(&key) {
                Some(record) => record.clone(),
                None => {
                    let file = format!(
                        "state/{operator}-{worker}-{generation}-{}-{}",
                        run.lower, run.upper
                    );
                    let record = write_run(store, file, run)?;
                    bytes_written += record.file.bytes;
                    record
                }
            };
            named.insert(key, record.clone());
            runs.push(record);
        }
        parts.push(Part {
            operator,
            worker: snapshot.worker,
            peers: snapshot.peers,
            kind: snapshot.kind.into(),
            upper: snapshot.upper,
            floor: hex(&snapshot.floor),
            live: snapshot.live,
            runs,
        });
    }
    *written = named;
    Ok(Uploaded {
        worker,
        epoch: job.epoch,
        parts,
        bytes_written,
        failure: None,
    })
}

fn write_run(
    store: &dyn Store,
    file: String,
    run: &SnapshotRun,
) -> Result<RunRecord, CheckpointError> {
    let (mut bytes, mut crc32) = (0, 0);
    store.put(&file, &mut |out| {
        let mut summed = Summed::new(out);
        run.write_to(&mut summed).map_err(|error| match error {
            OperatorError::Write(error) => error,
            other => io::Error::other(error_chain(&other)),
        })?;
        (bytes, crc32) = summed.sum();
        Ok(())
    })?;
    Ok(RunRecord {
        file: FileRecord { file, bytes, crc32 },
        lower: run.lower,
        upper: run.upper,
        rows: run.rows() as u64,
    })
}

/// Counts and sums what passes.
pub(super) struct Summed<'a> {
    out: &'a mut dyn Write,
    hasher: crc32fast::Hasher,
    bytes: u64,
}

impl<'a> Summed<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Summed {
            out,
            hasher: crc32fast::Hasher::new(),
            bytes: 0,
        }
    }

    /// Bytes, and their CRC-32.
    pub(super) fn sum(self) -> (u64, u32) {
        (self.bytes, self.hasher.finalize())
    }
}

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What `operator` starts from on one worker: its own part if the number of workers is the same, else all parts.
pub(crate) fn restore(
    store: &dyn Store,
    budget: &Budget,
    manifest: &Manifest,
    operator: &str,
    (worker, peers): (usize, usize),
    values: &SchemaRef,
) -> Result<Vec<Snapshot>, CheckpointError> {
    let parts = manifest
        .state
        .iter()
        .filter(|part| part.operator == operator);
    let mut snapshots = Vec::new();
    for part in parts {
        if part.peers == peers && part.worker != worker {
            continue;
        }
        let mut runs = Vec::new();
        for run in &part.runs {
            runs.push(read_run(store, budget, run, values)?);
        }
        snapshots.push(Snapshot {
            worker: part.worker,
            peers: part.peers,
            kind: part.kind.into(),
            upper: part.upper,
            floor: unhex(&part.floor),
            live: part.live,
            runs,
        });
    }
    Ok(snapshots)
}

/// Opens a run: of a file on this machine nothing but its end is read; what lies elsewhere is copied to this machine
/// first, for its blocks are read one by one, again and again.
fn read_run(
    store: &dyn Store,
    budget: &Budget,
    run: &RunRecord,
    values: &SchemaRef,
) -> Result<SnapshotRun, CheckpointError> {
    let name = &run.file.file;
    let damaged = |reason: String| CheckpointError::Damaged {
        path: format!("{}/{name}", store.location()),
        reason,
    };
    let missing = || damaged("it is missing".into());
    let file: Arc<dyn RunFile> = match store.file(name) {
        Some(path) => match DiskRun::open(&path) {
            Ok(file) => Arc::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
            Err(error) => return Err(damaged(error_chain(&error))),
        },
        None => {
            let failed = |error: OperatorError| CheckpointError::Read {
                path: format!("{}/{name}", store.location()),
                source: io::Error::other(error_chain(&error)),
            };
            let mut copy = Copy(budget.create().map_err(failed)?);
            if !store.copy(name, &mut copy)? {
                return Err(missing());
            }
            copy.0.finish().map_err(failed)?
        }
    };
    if file.len() != run.file.bytes {
        let (found, wanted) = (file.len(), run.file.bytes);
        return Err(damaged(format!("it has {found} bytes instead of {wanted}")));
    }
    SnapshotRun::open(run.lower, run.upper, file, values).map_err(|error| match error {
        OperatorError::Damaged { why, .. } => damaged(why),
        other => damaged(error_chain(&other)),
    })
}

/// A file of this machine that is filled with what lies elsewhere.
struct Copy(Box<dyn RunWriter>);

impl Write for Copy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes);
        written.map_err(|error| io::Error::other(error_chain(&error)))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks_exact(2);
    digits
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
