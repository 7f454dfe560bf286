//! State larger than memory: the same answers, within the limit, and errors that are heard.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::*;

/// Runs the random test within limits from "nothing stays" to "little goes".
fn check_limits(kind: Kind) {
    for (seed, bytes_max) in [0, 600, 4_000, 12_000].into_iter().enumerate() {
        let store = HeapStore::default();
        let budget = Budget::new(bytes_max, store.clone());
        check_within(kind, SMALL, 40, seed as u64 + 11, Some(&budget));
        check_within(
            kind,
            Limits::default(),
            300,
            seed as u64 + 21,
            Some(&budget),
        );
        assert!(
            budget.read() > 0,
            "nothing was read from files within {bytes_max}"
        );
        assert_eq!(
            (budget.used(), store.files()),
            (0, 0),
            "what is gone is let go"
        );
    }
}

#[test]
fn the_newest_row_of_a_key_counts_in_files_too() {
    check_limits(Kind::Latest);
}

#[test]
fn multiplicities_add_up_in_files_too() {
    check_limits(Kind::Multiset);
}

#[test]
fn rows_find_their_owners_through_files() {
    for bytes_max in [0, 2_000] {
        let store = HeapStore::default();
        let budget = Budget::new(bytes_max, store.clone());
        check_owners(Some(&budget));
        assert!(budget.written() > 0);
        assert_eq!((budget.used(), store.files()), (0, 0));
    }
}

/// Rows `from..until` of wide numbers, one epoch.
fn fill(arrangement: &mut Arrangement, epoch: u64, keys: impl Iterator<Item = u64>) {
    let rows: Vec<_> = keys
        .map(|k| (k.to_be_bytes().to_vec(), (k % 1000) as i64, 1))
        .collect();
    insert(arrangement, epoch, &rows);
}

#[test]
fn memory_stays_within_its_limit() {
    let limit = 1 << 20;
    let budget = Budget::new(limit, HeapStore::default());
    let mut arrangement = within(Kind::Latest, Limits::default(), Some(&budget));
    let mut random = Random(3);
    for epoch in 0..60 {
        fill(&mut arrangement, epoch, epoch * 4000..(epoch + 1) * 4000);
        assert!(budget.used() <= limit, "{} after {epoch}", budget.used());
        // Every key that there is, and as many that are not.
        let keys: std::collections::BTreeSet<u64> =
            (0..2000).map(|_| random.below(epoch * 8000 + 1)).collect();
        let keys: Vec<_> = keys.into_iter().map(|k| k.to_be_bytes().to_vec()).collect();
        let found = arrangement.probe(keys.iter().map(Vec::as_slice)).unwrap();
        let hits = keys
            .iter()
            .filter(|key| **key < ((epoch + 1) * 4000).to_be_bytes().to_vec());
        assert_eq!(found.keys.len(), hits.count());
        for (index, key) in found.keys.iter().zip(found.stored_keys()) {
            assert_eq!(keys[*index as usize], key);
        }
        assert!(
            budget.used() <= limit + (limit / 4),
            "{} after {epoch}",
            budget.used()
        );
    }
    let rows: usize = arrangement.runs().iter().map(|run| run.len()).sum();
    let all: usize = arrangement
        .snapshot(0, 1)
        .runs
        .iter()
        .map(SnapshotRun::bytes)
        .sum();
    assert!(rows == 240_000 && all > 8 * limit, "{all} bytes");
}

#[test]
fn what_is_wanted_again_is_read_once() {
    let budget = Budget::new(4 << 20, HeapStore::default());
    let mut arrangement = within(Kind::Latest, Limits::default(), Some(&budget));
    for epoch in 0..40 {
        fill(&mut arrangement, epoch, epoch * 4000..(epoch + 1) * 4000);
    }
    let keys: Vec<_> = (0..100_u64).map(|k| (k * 20).to_be_bytes()).collect();
    let probe = || {
        let before = budget.read();
        let found = arrangement.probe(keys.iter().map(<[u8; 8]>::as_slice));
        assert_eq!(found.unwrap().keys.len(), 100);
        budget.read() - before
    };
    let first = probe();
    assert!(first > 0, "the oldest keys are in files");
    assert_eq!(probe(), 0, "and now in the cache");
}

/// A merge takes over blocks of files that have nothing in the other run, unread.
#[test]
fn blocks_in_files_are_shared_by_merges() {
    let budget = Budget::new(0, HeapStore::default());
    let mut arrangement = within(Kind::Latest, SMALL, Some(&budget));
    for epoch in 0..64 {
        fill(&mut arrangement, epoch, epoch * 100..(epoch + 1) * 100);
    }
    // Each row is written as it comes, and again when its file is small beside the run.
    let once: u64 = {
        let mut bytes = Vec::new();
        let runs = arrangement.snapshot(0, 1).runs;
        runs.iter().for_each(|run| drop(run.write_to(&mut bytes)));
        bytes.len() as u64
    };
    assert!(
        budget.written() < once * 3,
        "{} of {once}",
        budget.written()
    );
    assert!(budget.read() < once / 2, "{} of {once}", budget.read());
}

/// A store that fails when it is told to.
#[derive(Clone, Default)]
struct Flaky {
    heap: HeapStore,
    reads_fail: Arc<AtomicBool>,
    writes_fail: Arc<AtomicBool>,
}

struct FlakyWriter(Box<dyn RunWriter>, Flaky);

struct FlakyFile(Arc<dyn RunFile>, Flaky);

impl RunStore for Flaky {
    fn create(&self) -> Result<Box<dyn RunWriter>, OperatorError> {
        Ok(Box::new(FlakyWriter(self.heap.create()?, self.clone())))
    }
}

impl RunWriter for FlakyWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), OperatorError> {
        if self.1.writes_fail.load(Ordering::Relaxed) {
            return Err(OperatorError::Other("no space left".into()));
        }
        self.0.write(bytes)
    }

    fn finish(self: Box<Self>) -> Result<Arc<dyn RunFile>, OperatorError> {
        Ok(Arc::new(FlakyFile(self.0.finish()?, self.1)))
    }
}

impl RunFile for FlakyFile {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, OperatorError> {
        if self.1.reads_fail.load(Ordering::Relaxed) {
            return Err(OperatorError::Other("the disk is gone".into()));
        }
        self.0.read_at(offset, length)
    }
}

/// Inserts until it fails; the error, and that it is final.
fn until_it_fails(arrangement: &mut Arrangement, first: u64) -> String {
    for epoch in first..first + 100 {
        let keys = encoded(&[epoch.to_be_bytes().to_vec()]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![3])),
            Arc::new(StringArray::from(vec![None::<&str>])),
        ];
        let changes = Changes {
            keys: &keys,
            order: &[0],
            values: &RecordBatch::try_new(schema(), columns).unwrap(),
            diffs: None,
        };
        if let Err(error) = arrangement.insert(epoch, &changes) {
            return error.to_string();
        }
    }
    panic!("a hundred epochs without an error");
}

#[test]
fn a_full_disk_is_an_error() {
    let store = Flaky::default();
    let budget = Budget::new(0, store.clone());
    let mut arrangement = within(Kind::Latest, SMALL, Some(&budget));
    fill(&mut arrangement, 0, 0..50);
    store.writes_fail.store(true, Ordering::Relaxed);
    assert_eq!(until_it_fails(&mut arrangement, 1), "no space left");
    drop(arrangement);
    assert_eq!((budget.used(), store.heap.files()), (0, 0));
}

#[test]
fn a_lost_disk_is_an_error_of_whoever_reads() {
    let store = Flaky::default();
    let budget = Budget::new(0, store.clone());
    let mut arrangement = within(Kind::Latest, SMALL, Some(&budget));
    for epoch in 0..10 {
        fill(&mut arrangement, epoch, (0..50).map(|k| k * 10 + epoch));
    }
    store.reads_fail.store(true, Ordering::Relaxed);
    let key = 20_u64.to_be_bytes();
    let error = arrangement.probe(std::iter::once(key.as_slice())).err();
    assert_eq!(error.unwrap().to_string(), "the disk is gone");
    let error = try_read_all(&arrangement, &[], None, 100).unwrap_err();
    assert_eq!(error.to_string(), "the disk is gone");
    // A merge that failed has nobody to tell at once; the arrangement is broken from then on.
    assert_eq!(until_it_fails(&mut arrangement, 10), "the disk is gone");
    store.reads_fail.store(false, Ordering::Relaxed);
    let error = try_read_all(&arrangement, &[], None, 100).unwrap_err();
    assert_eq!(error.to_string(), "the disk is gone");
}
