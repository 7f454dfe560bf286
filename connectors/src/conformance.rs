//! What every connector must do, as checks that its tests run.
//!
//! They panic with what is wrong. A source or sink that passes can be replayed after a crash without a row lost or
//! doubled, as far as its outside system allows.

#![allow(clippy::disallowed_methods, reason = "a check gives up after a time")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use highwater_engine::sink::{Placement, Receipt, Sink, SinkFactory, SinkWriter};
use highwater_engine::source::{Offset, Reader, Source, SourceError, SourceFactory, Split, Waker};

/// So long a check waits for rows to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// All rows of `splits`, as one batch.
pub fn read(
    reader: &dyn Reader,
    schema: &SchemaRef,
    splits: &[Split],
    columns: &[usize],
) -> Result<RecordBatch, SourceError> {
    let projected: SchemaRef = Arc::new(schema.project(columns).expect("columns of the schema"));
    let mut batches = Vec::new();
    for split in splits {
        for batch in reader.read(split, columns)? {
            let batch = batch?;
            assert_eq!(
                batch.schema(),
                projected,
                "batches have the projected schema"
            );
            assert!(batch.num_rows() <= 1 << 16, "batches are small");
            batches.push(batch);
        }
    }
    if columns.is_empty() {
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        let counted = RecordBatch::try_new_with_options(projected, Vec::new(), &options);
        return Ok(counted.expect("no columns, a row count"));
    }
    Ok(concat_batches(&projected, &batches).expect("batches of one schema"))
}

/// Waits until `source` has something behind `from`, and answers its latest position.
pub fn arrived(source: &mut dyn Source, from: &Offset) -> Offset {
    let begun = Instant::now();
    loop {
        let latest = source.latest().expect("latest answers");
        if latest != *from {
            return latest;
        }
        assert!(begun.elapsed() < PATIENCE, "rows arrive");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Checks a source whose outside system holds some rows, or sends some soon. Answers all of them.
pub fn source(factory: &dyn SourceFactory) -> RecordBatch {
    let mut source = factory.open().expect("it opens");
    source.watch(Waker::new(|| {})).expect("it can be watched");
    assert!(!source.description().is_empty(), "it describes itself");
    let initial = source.initial().expect("it has a first position");
    let latest = arrived(source.as_mut(), &initial);
    let schema = factory.schema();
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let reader = source.reader();

    // Admitted one by one, the pieces follow each other up to the end.
    let mut pieces = Vec::new();
    let mut at = initial.clone();
    while let Some(admitted) = source.admit(&at, &latest, 1).expect("it admits") {
        assert_ne!(admitted.end, at, "an admitted piece is not empty");
        let rows = read(reader.as_ref(), &schema, &admitted.splits, &all).expect("it reads");
        pieces.push((admitted.splits, rows));
        at = admitted.end;
    }
    assert_eq!(
        at, latest,
        "everything up to the latest position can be admitted"
    );
    assert!(!pieces.is_empty(), "there was something");

    // A replay reads the splits that the log kept: the same rows, in every projection.
    let elsewhere = factory.reader();
    let mut whole = Vec::new();
    for (splits, rows) in &pieces {
        let logged = serde_json::to_string(splits).expect("splits can be logged");
        let again: Vec<Split> = serde_json::from_str(&logged).expect("and read back");
        assert_eq!(&again, splits, "a split is in the log as it is");
        for columns in projections(all.len()) {
            let some = read(reader.as_ref(), &schema, &again, &columns).expect("it reads again");
            let expected = rows.project(&columns).expect("columns of the schema");
            assert_eq!(some, expected, "columns {columns:?} of the same rows");
        }
        if splits.iter().all(|split| split.process.is_none()) {
            let there = read(elsewhere.as_ref(), &schema, splits, &all);
            assert_eq!(
                &there.expect("it reads in any process"),
                rows,
                "the same rows elsewhere"
            );
        }
        whole.extend(again);
    }
    let rows: Vec<_> = pieces.iter().map(|(_, rows)| rows.clone()).collect();
    let rows = concat_batches(&schema, &rows).expect("one schema");
    let again = read(reader.as_ref(), &schema, &whole, &all).expect("it reads everything");
    assert_eq!(again, rows, "the whole range is its pieces");

    source.committed(&latest).expect("it takes note of commits");
    let nothing = source.admit(&latest, &latest, u64::MAX).expect("it admits");
    assert_eq!(nothing, None, "nothing lies between a position and itself");
    rows
}

/// Every single column, none, all, and every second one.
fn projections(columns: usize) -> Vec<Vec<usize>> {
    let mut projections: Vec<Vec<usize>> = (0..columns).map(|at| vec![at]).collect();
    projections.push(Vec::new());
    projections.push((0..columns).collect());
    projections.push((0..columns).step_by(2).collect());
    projections
}

/// A sink at work.
struct Running {
    sink: Box<dyn Sink>,
    writers: Vec<Box<dyn SinkWriter>>,
}

impl Running {
    fn start(factory: &dyn SinkFactory) -> Running {
        let workers = match factory.placement() {
            Placement::EveryWorker => 2,
            Placement::OneWorker => 1,
        };
        let sink = factory.open(0).expect("it opens");
        assert!(!sink.description().is_empty(), "it describes itself");
        let writer = |worker| factory.writer(worker, QUERY_ID, 0).expect("a writer opens");
        Running {
            sink,
            writers: (0..workers).map(writer).collect(),
        }
    }

    fn write(&mut self, epoch: u64, rows: &RecordBatch) {
        for writer in &mut self.writers {
            writer.write(epoch, rows).expect("it writes");
        }
    }

    fn stage(&mut self, first: u64, last: u64) -> Vec<Receipt> {
        let stage = |writer: &mut Box<dyn SinkWriter>| {
            let receipt = writer.stage(first..=last).expect("it stages");
            let text = serde_json::to_string(&receipt).expect("receipts cross the network");
            serde_json::from_str(&text).expect("and come out the same")
        };
        self.writers.iter_mut().map(stage).collect()
    }
}

/// The id of the query whose sink is checked: the request behind `factory` must carry it.
pub const QUERY_ID: &str = "1f-2e";

/// Checks a sink that makes each run of epochs visible exactly once. `factory` describes the same sink each time, as
/// a restarted query would; `visible` counts the rows that readers of the outside system see. `rows` must not be
/// empty.
pub fn sink(
    factory: &dyn Fn() -> Arc<dyn SinkFactory>,
    rows: &RecordBatch,
    visible: &dyn Fn() -> usize,
) {
    let mut running = Running::start(factory().as_ref());
    let once = rows.num_rows() * running.writers.len();

    running.write(0, rows);
    assert_eq!(visible(), 0, "what is written is not visible");
    let receipts = running.stage(0, 0);
    let staged: u64 = receipts.iter().map(|receipt| receipt.rows).sum();
    assert_eq!(staged, once as u64, "receipts count rows");
    assert_eq!(visible(), 0, "what is staged is not visible");
    running.sink.commit(0..=0, &receipts).expect("it commits");
    assert_eq!(visible(), once, "what is committed is visible");
    running
        .sink
        .commit(0..=0, &receipts)
        .expect("it commits again");
    assert_eq!(visible(), once, "a second commit changes nothing");

    running.write(1, rows);
    running.stage(1, 1);
    drop(running); // dies between stage and commit
    let mut running = Running::start(factory().as_ref());
    assert_eq!(
        visible(),
        once,
        "what died before its commit is not visible"
    );
    running.write(1, rows);
    drop(running); // dies while writing
    let mut running = Running::start(factory().as_ref());
    running.write(1, rows);
    let receipts = running.stage(1, 1);
    running.sink.commit(1..=1, &receipts).expect("it commits");
    assert_eq!(visible(), 2 * once, "a replay replaces its own leavings");

    running.write(2, rows);
    running.write(2, &rows.slice(0, 0));
    running.write(4, rows);
    let receipts = running.stage(2, 4);
    running.sink.commit(2..=4, &receipts).expect("it commits");
    assert_eq!(visible(), 4 * once, "a run of epochs is visible at once");
    drop(running); // dies before the commit is on record
    let mut running = Running::start(factory().as_ref());
    running.write(2, rows);
    running.write(4, rows);
    let receipts = running.stage(2, 4);
    running.sink.commit(2..=4, &receipts).expect("it commits");
    assert_eq!(
        visible(),
        4 * once,
        "a run that was committed is not doubled"
    );

    let receipts = running.stage(5, 9);
    running.sink.commit(5..=9, &receipts).expect("it commits");
    assert_eq!(visible(), 4 * once, "a run without rows changes nothing");
    // The next run is staged while this one waits for its commit.
    running.write(10, rows);
    let first = running.stage(10, 10);
    running.write(11, rows);
    let second = running.stage(11, 11);
    running.sink.commit(10..=10, &first).expect("it commits");
    assert_eq!(visible(), 5 * once, "runs are committed one by one");
    running.sink.commit(11..=11, &second).expect("it commits");
    assert_eq!(visible(), 6 * once, "runs are committed one by one");
}
