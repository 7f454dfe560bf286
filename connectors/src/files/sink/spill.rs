//! Rows of many partitions, brought together by partition within bounded memory.
//!
//! Rows wait until they take `BYTES_MAX`; then they are sorted by partition and written to a run on disk. At the end
//! all runs are read side by side, so each partition's rows come together, and one file at a time is open for writing.
//! Within a partition rows keep their order.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;

use super::error::FileSinkError;

/// So many bytes wait in memory.
const BYTES_MAX: usize = 32 << 20;

/// Runs are written and read in batches of so many rows.
const BLOCK_ROWS: usize = 4096;

/// The rows of a partition within a run.
struct Range {
    partition: u32,
    from: usize,
    rows: usize,
}

/// Sorted rows.
struct Run {
    ranges: Vec<Range>,
    /// The first range that has not been read.
    next: usize,
    rows: Rows,
}

enum Rows {
    Memory(RecordBatch),
    File {
        path: PathBuf,
        reader: Box<FileReader<BufReader<File>>>,
        /// The block that was read last, and its number.
        block: Option<(usize, RecordBatch)>,
    },
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Rows::File { path, .. } = &self.rows {
            let _ = fs::remove_file(path);
        }
    }
}

/// Rows on their way to their partitions.
pub(super) struct Spill {
    /// Runs are written to `<prefix>.<n>`.
    prefix: PathBuf,
    schema: SchemaRef,
    waiting: Vec<RecordBatch>,
    /// The partition of each waiting row.
    partitions: Vec<u32>,
    bytes: usize,
    bytes_max: usize,
    runs: Vec<Run>,
    /// Counts runs, so that no two have one name.
    written: usize,
}

impl Spill {
    pub(super) fn new(prefix: PathBuf, schema: SchemaRef) -> Self {
        Spill {
            prefix,
            schema,
            waiting: Vec::new(),
            partitions: Vec::new(),
            bytes: 0,
            bytes_max: BYTES_MAX,
            runs: Vec::new(),
            written: 0,
        }
    }

    #[cfg(test)]
    pub(super) fn with_bytes_max(self, bytes_max: usize) -> Self {
        Spill { bytes_max, ..self }
    }

    /// How many runs are on disk.
    pub(super) fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Takes rows, which must own their memory, and the partition of each.
    pub(super) fn push(&mut self, rows: RecordBatch, of: &[u32]) -> Result<(), FileSinkError> {
        self.bytes += rows.get_array_memory_size() + size_of_val(of);
        self.waiting.push(rows);
        self.partitions.extend_from_slice(of);
        if self.bytes >= self.bytes_max {
            let path = self.prefix.with_extension(self.written.to_string());
            self.written += 1;
            let (rows, ranges) = self.sort().map_err(|source| encode(&path, source))?;
            let run = self.write_run(&path, &rows, ranges);
            if run.is_err() {
                let _ = fs::remove_file(&path);
            }
            self.runs.push(run?);
        }
        Ok(())
    }

    /// The waiting rows, sorted by partition.
    fn sort(&mut self) -> Result<(RecordBatch, Vec<Range>), ArrowError> {
        let partitions = std::mem::take(&mut self.partitions);
        let rows = concat_batches(&self.schema, &std::mem::take(&mut self.waiting))?;
        self.bytes = 0;
        let mut order: Vec<u32> = (0..partitions.len() as u32).collect();
        order.sort_by_key(|row| partitions[*row as usize]);
        let mut ranges: Vec<Range> = Vec::new();
        for (at, row) in order.iter().enumerate() {
            let partition = partitions[*row as usize];
            match ranges.last_mut() {
                Some(range) if range.partition == partition => range.rows += 1,
                _ => ranges.push(Range {
                    partition,
                    from: at,
                    rows: 1,
                }),
            }
        }
        let rows = take_record_batch(&rows, &UInt32Array::from(order))?;
        Ok((rows, ranges))
    }

    fn write_run(
        &self,
        path: &Path,
        rows: &RecordBatch,
        ranges: Vec<Range>,
    ) -> Result<Run, FileSinkError> {
        let failed = |source| encode(path, source);
        let file = File::create_new(path).map_err(|source| FileSinkError::write(path, source))?;
        let mut writer = FileWriter::try_new_buffered(file, &self.schema).map_err(failed)?;
        for from in (0..rows.num_rows()).step_by(BLOCK_ROWS) {
            let length = BLOCK_ROWS.min(rows.num_rows() - from);
            writer.write(&rows.slice(from, length)).map_err(failed)?;
        }
        writer.finish().map_err(failed)?;
        drop(writer);
        let file = File::open(path).map_err(|source| FileSinkError::write(path, source))?;
        let reader = FileReader::try_new_buffered(file, None).map_err(failed)?;
        Ok(Run {
            ranges,
            next: 0,
            rows: Rows::File {
                path: path.to_path_buf(),
                reader: Box::new(reader),
                block: None,
            },
        })
    }

    /// Hands on all rows, partition after partition, and has none any more.
    pub(super) fn drain(
        &mut self,
        each: &mut dyn FnMut(u32, RecordBatch) -> Result<(), FileSinkError>,
    ) -> Result<(), FileSinkError> {
        if !self.waiting.is_empty() {
            let (rows, ranges) = self.sort().map_err(|e| encode(&self.prefix, e))?;
            self.runs.push(Run {
                ranges,
                next: 0,
                rows: Rows::Memory(rows),
            });
        }
        let mut runs = std::mem::take(&mut self.runs);
        let ranges = runs.iter().flat_map(|run| &run.ranges);
        let partitions: BTreeSet<u32> = ranges.map(|range| range.partition).collect();
        for partition in partitions {
            for run in &mut runs {
                run.hand_on(partition, each)?;
            }
        }
        Ok(())
    }
}

impl Run {
    fn hand_on(
        &mut self,
        partition: u32,
        each: &mut dyn FnMut(u32, RecordBatch) -> Result<(), FileSinkError>,
    ) -> Result<(), FileSinkError> {
        let Some(range) = self.ranges.get(self.next) else {
            return Ok(());
        };
        if range.partition != partition {
            return Ok(());
        }
        self.next += 1;
        let (mut from, end) = (range.from, range.from + range.rows);
        match &mut self.rows {
            Rows::Memory(rows) => each(partition, rows.slice(from, end - from)),
            Rows::File {
                path,
                reader,
                block,
            } => {
                while from < end {
                    let number = from / BLOCK_ROWS;
                    let rows = match block {
                        Some((at, rows)) if *at == number => rows,
                        _ => {
                            let failed = |source| encode(path, source);
                            reader.set_index(number).map_err(failed)?;
                            let next = reader.next().unwrap_or_else(|| {
                                Err(ArrowError::IpcError("the run is too short".into()))
                            });
                            let rows = next.map_err(failed)?;
                            &block.insert((number, rows)).1
                        }
                    };
                    let at = from - number * BLOCK_ROWS;
                    let length = (end - from).min(rows.num_rows() - at);
                    each(partition, rows.slice(at, length))?;
                    from += length;
                }
                Ok(())
            }
        }
    }
}

fn encode(path: &Path, source: ArrowError) -> FileSinkError {
    match source {
        ArrowError::IoError(_, source) => FileSinkError::write(path, source),
        other => FileSinkError::Encode {
            path: path.display().to_string(),
            source: other.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{Array, Int64Array};
    use arrow::datatypes::{DataType, Field, Schema};
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    /// Random rows come out by partition and in order, whether they were on disk or not.
    fn check(bytes_max: usize, partitions: u32, rows: i64) {
        let dir = tempfile::tempdir().unwrap();
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let mut spill = Spill::new(dir.path().join("run"), Arc::clone(&schema));
        spill = spill.with_bytes_max(bytes_max);
        let mut random = StdRng::seed_from_u64(rows as u64);
        let mut expected: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
        for from in (0..rows).step_by(1000) {
            let batch: Vec<i64> = (from..rows.min(from + 1000)).collect();
            let of: Vec<u32> = batch
                .iter()
                .map(|_| random.random_range(0..partitions))
                .collect();
            for (row, partition) in batch.iter().zip(&of) {
                expected.entry(*partition).or_default().push(*row);
            }
            let column = Arc::new(Int64Array::from(batch)) as _;
            let batch = RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap();
            spill.push(batch, &of).unwrap();
        }
        assert_eq!(spill.runs() > 0, rows * 12 > bytes_max as i64);
        let (mut found, mut order): (BTreeMap<u32, Vec<i64>>, Vec<u32>) = Default::default();
        let mut each = |partition, rows: RecordBatch| {
            let column = rows
                .column(0)
                .as_any()
                .downcast_ref::<Int64Array>()
                .unwrap();
            found.entry(partition).or_default().extend(column.values());
            order.push(partition);
            Ok(())
        };
        spill.drain(&mut each).unwrap();
        assert_eq!(found, expected);
        assert!(order.is_sorted());
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            0,
            "runs are removed"
        );
    }

    #[test]
    fn few_rows_stay_in_memory() {
        check(BYTES_MAX, 7, 3000);
    }

    #[test]
    fn many_rows_of_many_partitions() {
        check(100_000, 500, 60_000);
    }

    #[test]
    fn ranges_longer_than_a_block() {
        check(200_000, 2, 50_000);
    }
}
