//! Writes the parts of one worker, and stages them where nobody reads.
//!
//! A part is `open-<worker>.<n>` in `_highwater_staged/<query>/<generation>/` while rows come, `<first epoch>-<worker>.<n>` once it is
//! whole and on the disk, and `part-<first epoch>-<worker>-<query><ending>` in its partition's directory once the run is
//! committed. All are functions of the run and the worker, so a replay writes over what died.
//!
//! Rows are encoded as they come. The first few partitions of a run have a file open each; rows of all others wait in
//! a `Spill`, which brings them together by partition, and are written one file after the other when the run ends.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use highwater_engine::failpoint::reach;
use highwater_engine::sink::{Receipt, SinkError, SinkWriter};

use super::SinkConfig;
use super::encode::{Encoder, ROW_GROUP_BYTES};
use super::error::FileSinkError;
use super::spill::Spill;
use crate::files::log::{Part, sync_directory};
use crate::files::partition::NULL_VALUE;
use highwater_text::view::{TextStyle, TimePatterns, View};

/// What the name of a directory may have on the usual file systems.
const NAME_BYTES_MAX: usize = 255;

/// So many partitions of a run have a file open while rows come: the first ones.
const OPEN_MAX: usize = 16;

/// All open files together keep at most about so many bytes in memory.
const OPEN_BYTES_MAX: usize = 64 << 20;

/// With so many runs on disk a spill is written to files, though more rows of its partitions may come.
const SPILL_RUNS_MAX: usize = 64;

/// So many threads bring files to the disk at a time.
const SYNC_THREADS: usize = 8;

/// A file that is being written.
struct OpenPart {
    encoder: Encoder,
    written: WrittenPart,
}

/// A file that is whole, or will be.
struct WrittenPart {
    path: PathBuf,
    partition: u32,
    /// Counts the files of a partition.
    piece: u32,
    rows: u64,
}

/// The partitions of a run.
#[derive(Default)]
struct Partitions {
    /// By path.
    numbers: HashMap<String, u32>,
    paths: Vec<String>,
    /// How many files each has.
    pieces: Vec<u32>,
}

impl Partitions {
    fn number(&mut self, path: &str) -> u32 {
        if let Some(number) = self.numbers.get(path) {
            return *number;
        }
        let number = self.paths.len() as u32;
        self.numbers.insert(path.to_string(), number);
        self.paths.push(path.to_string());
        self.pieces.push(0);
        number
    }
}

/// Writes the parts of one worker.
pub(super) struct FileWriter {
    config: Arc<SinkConfig>,
    worker: usize,
    partitions: Partitions,
    /// By partition.
    open: BTreeMap<u32, OpenPart>,
    written: Vec<WrittenPart>,
    spill: Spill,
    /// Counts the files of the run.
    files: usize,
    rows: u64,
}

impl FileWriter {
    pub(super) fn new(config: Arc<SinkConfig>, worker: usize) -> Self {
        let prefix = config.staged().join(format!("open-{worker}-spill"));
        FileWriter {
            spill: Spill::new(prefix, Arc::clone(&config.data_schema)),
            config,
            worker,
            partitions: Partitions::default(),
            open: BTreeMap::new(),
            written: Vec::new(),
            files: 0,
            rows: 0,
        }
    }

    fn create(&mut self, partition: u32) -> Result<OpenPart, FileSinkError> {
        let config = &self.config;
        let staged = config.staged();
        let path = staged.join(format!("open-{}.{}", self.worker, self.files));
        self.files += 1;
        let stripe_bytes = match config.partitions.is_empty() {
            true => ROW_GROUP_BYTES,
            false => OPEN_BYTES_MAX / OPEN_MAX,
        };
        let piece = &mut self.partitions.pieces[partition as usize];
        *piece += 1;
        Ok(OpenPart {
            encoder: Encoder::create(
                &path,
                &config.data_schema,
                &config.format,
                config.zone,
                stripe_bytes,
            )?,
            written: WrittenPart {
                path,
                partition,
                piece: *piece - 1,
                rows: 0,
            },
        })
    }

    /// Writes rows to the open file of their partition; makes one if need be, and the next one when it is full.
    fn write_to(&mut self, partition: u32, rows: &RecordBatch) -> Result<(), FileSinkError> {
        let mut from = 0;
        while from < rows.num_rows() {
            if !self.open.contains_key(&partition) {
                let part = self.create(partition)?;
                self.open.insert(partition, part);
            }
            let part = self.open.get_mut(&partition).expect("it is open");
            let left = self.config.file_rows_max.unwrap_or(u64::MAX) - part.written.rows;
            let length = usize::try_from(left).map_or(rows.num_rows() - from, |left| {
                left.min(rows.num_rows() - from)
            });
            let piece = rows.slice(from, length);
            part.encoder.write(&part.written.path, &piece)?;
            part.written.rows += length as u64;
            from += length;
            if length as u64 == left {
                self.close(partition)?;
            }
        }
        Ok(())
    }

    fn close(&mut self, partition: u32) -> Result<(), FileSinkError> {
        if let Some(part) = self.open.remove(&partition) {
            part.encoder.finish(&part.written.path)?;
            self.written.push(part.written);
        }
        Ok(())
    }

    fn write_rows(&mut self, rows: &RecordBatch) -> Result<(), FileSinkError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let config = Arc::clone(&self.config);
        let failed = |source: ArrowError| FileSinkError::Encode {
            path: config.path.clone(),
            source: source.into(),
        };
        // Batches may promise fewer nulls than the files do.
        let columns = config.data_columns.iter();
        let columns = columns.map(|at| Arc::clone(rows.column(*at))).collect();
        let data = RecordBatch::try_new(Arc::clone(&config.data_schema), columns);
        let data = data.map_err(failed)?;
        self.rows += rows.num_rows() as u64;
        if config.partitions.is_empty() {
            let whole = self.partitions.number("");
            self.write_to(whole, &data)?;
            return self.bound_memory();
        }
        let of = self.partitions_of(rows)?;
        let mut direct: [Vec<u32>; OPEN_MAX] = Default::default();
        let (mut others, mut others_of) = (Vec::new(), Vec::new());
        for (row, partition) in (0u32..).zip(of) {
            match direct.get_mut(partition as usize) {
                Some(rows) => rows.push(row),
                None => {
                    others.push(row);
                    others_of.push(partition);
                }
            }
        }
        let taken = |rows| take_record_batch(&data, &UInt32Array::from(rows)).map_err(failed);
        for (partition, rows) in (0u32..).zip(direct) {
            if !rows.is_empty() {
                self.write_to(partition, &taken(rows)?)?;
            }
        }
        if !others.is_empty() {
            self.spill.push(taken(others)?, &others_of)?;
            if self.spill.runs() >= SPILL_RUNS_MAX {
                self.drain()?;
            }
        }
        self.bound_memory()
    }

    /// Ends row groups early while all open files together keep too much.
    fn bound_memory(&mut self) -> Result<(), FileSinkError> {
        if self.open.len() < 2 {
            return Ok(());
        }
        let bytes = |part: &OpenPart| part.encoder.memory_bytes();
        while self.open.values().map(bytes).sum::<usize>() > OPEN_BYTES_MAX {
            let Some(part) = self.open.values_mut().max_by_key(|part| bytes(part)) else {
                break;
            };
            let before = bytes(part);
            part.encoder.flush(&part.written.path)?;
            if bytes(part) >= before {
                break;
            }
        }
        Ok(())
    }

    /// Writes what waits to files, one after the other.
    fn drain(&mut self) -> Result<(), FileSinkError> {
        let mut spill = std::mem::replace(
            &mut self.spill,
            Spill::new(PathBuf::new(), Arc::clone(&self.config.data_schema)),
        );
        let mut last = None;
        let drained = spill.drain(&mut |partition, rows| {
            if let Some(before) = last
                .replace(partition)
                .filter(|before| *before != partition)
            {
                self.close(before)?;
            }
            self.write_to(partition, &rows)
        });
        self.spill = spill;
        drained?;
        last.map_or(Ok(()), |partition| self.close(partition))
    }

    /// The number of each row's partition.
    fn partitions_of(&mut self, rows: &RecordBatch) -> Result<Vec<u32>, FileSinkError> {
        let failed = |source: ArrowError| FileSinkError::Encode {
            path: self.config.path.clone(),
            source: source.into(),
        };
        let schema = rows.schema();
        let column = |at: &usize| {
            let array: &ArrayRef = rows.column(*at);
            Ok((schema.field(*at).name().as_str(), View::new(array)?))
        };
        let columns = self.config.partitions.iter().map(column);
        let columns: Result<Vec<(&str, View)>, ArrowError> = columns.collect();
        let columns = columns.map_err(failed)?;
        let style = TextStyle {
            zone: &self.config.zone,
            null: NULL_VALUE,
            hex: false,
            iso: false,
            times: &TimePatterns::NONE,
        };
        let mut of = Vec::with_capacity(rows.num_rows());
        let (mut path, mut value) = (String::new(), String::new());
        for row in 0..rows.num_rows() {
            path.clear();
            for (name, view) in &columns {
                value.clear();
                view.push_text(&mut value, row, &style);
                if value.is_empty() {
                    value.push_str(NULL_VALUE);
                }
                if !path.is_empty() {
                    path.push('/');
                }
                let from = path.len();
                push_path_name(&mut path, name);
                path.push('=');
                push_path_name(&mut path, &value);
                if path.len() - from > NAME_BYTES_MAX {
                    return Err(FileSinkError::LongName {
                        column: (*name).into(),
                        bytes: path.len() - from,
                        bytes_max: NAME_BYTES_MAX,
                        start: path[from..].chars().take(40).collect(),
                    });
                }
            }
            of.push(self.partitions.number(&path));
        }
        Ok(of)
    }

    fn stage_run(&mut self, first: u64) -> Result<Vec<Part>, FileSinkError> {
        let open: Vec<u32> = self.open.keys().copied().collect();
        for partition in open {
            self.close(partition)?;
        }
        self.drain()?;
        let written = std::mem::take(&mut self.written);
        let partitions = std::mem::take(&mut self.partitions);
        self.files = 0;
        if written.is_empty() {
            return Ok(Vec::new());
        }
        reach("sink.stage.before");
        sync(&written)?;
        let staged = self.config.staged();
        let mut parts = Vec::new();
        for (at, part) in written.iter().enumerate() {
            let failed = |source| FileSinkError::write(&part.path, source);
            let name = format!("{first:05}-{}.{at}", self.worker);
            let bytes = fs::metadata(&part.path).map_err(failed)?.len();
            fs::rename(&part.path, staged.join(&name)).map_err(failed)?;
            let visible = self.config.part_name(first, self.worker, part.piece);
            parts.push(Part {
                staged: format!("{}/{name}", self.config.generation),
                path: match partitions.paths[part.partition as usize].as_str() {
                    "" => visible,
                    partition => format!("{partition}/{visible}"),
                },
                bytes,
                rows: part.rows,
                modified_us: None,
            });
        }
        sync_directory(&staged).map_err(|source| FileSinkError::write(&staged, source))?;
        reach("sink.stage.after");
        Ok(parts)
    }
}

impl SinkWriter for FileWriter {
    fn write(&mut self, _: u64, rows: &RecordBatch) -> Result<(), SinkError> {
        self.write_rows(rows)
            .map_err(|error| self.config.told(error).of_sink(self.config.connector))
    }

    fn stage(&mut self, epochs: RangeInclusive<u64>) -> Result<Receipt, SinkError> {
        let parts = self
            .stage_run(*epochs.start())
            .map_err(|error| self.config.told(error).of_sink(self.config.connector))?;
        Ok(Receipt {
            worker: self.worker,
            rows: std::mem::take(&mut self.rows),
            body: serde_json::to_string(&parts).expect("texts can be written"),
        })
    }
}

impl Drop for FileWriter {
    /// Gives the disk back what was never promised to anybody.
    fn drop(&mut self) {
        let open = self.open.values().map(|part| &part.written);
        for part in open.chain(&self.written) {
            let _ = fs::remove_file(&part.path);
        }
    }
}

impl SinkConfig {
    fn part_name(&self, first: u64, worker: usize, piece: u32) -> String {
        let piece = match piece {
            0 => String::new(),
            piece => format!("-{piece:03}"),
        };
        format!(
            "part-{first:05}-{worker}-{}{piece}{}",
            self.query, self.ending
        )
    }
}

/// Brings files to the disk; several at a time, since the disk takes many in one go.
fn sync(parts: &[WrittenPart]) -> Result<(), FileSinkError> {
    let sync = |parts: &[WrittenPart]| {
        parts.iter().try_for_each(|part| {
            File::open(&part.path)
                .and_then(|file| file.sync_all())
                .map_err(|source| FileSinkError::write(&part.path, source))
        })
    };
    if parts.len() < 2 * SYNC_THREADS {
        return sync(parts);
    }
    std::thread::scope(|scope| {
        let shares = parts.chunks(parts.len().div_ceil(SYNC_THREADS));
        let threads: Vec<_> = shares
            .map(|share| scope.spawn(move || sync(share)))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

/// Appends a name so that it is one step of a path, as Hive does.
fn push_path_name(out: &mut String, name: &str) {
    for c in name.chars() {
        match c {
            '\0'..='\u{1f}'
            | '\u{7f}'
            | '"'
            | '#'
            | '%'
            | '\''
            | '*'
            | '/'
            | ':'
            | '='
            | '?'
            | '\\'
            | '{'
            | '['
            | ']'
            | '^' => out.push_str(&format!("%{:02X}", c as u32)),
            c => out.push(c),
        }
    }
}
