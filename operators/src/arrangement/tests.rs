use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use timely::dataflow::InputHandle;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Input as _, Operator, Probe};

use super::*;

/// A small generator: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

const SMALL: Limits = Limits {
    rows: 7,
    bytes: 400,
};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
    ]))
}

use arrow::datatypes::SchemaRef;

fn arrangement(kind: Kind, limits: Limits) -> Arrangement {
    within(kind, limits, None)
}

fn within(kind: Kind, limits: Limits, budget: Option<&Arc<Budget>>) -> Arrangement {
    let info = OperatorInfo::new(0, 0, vec![0].into());
    let shape = Shape::new(kind, schema(), limits).within(budget.cloned());
    Arrangement::new(shape, info)
}

fn encoded(keys: &[Vec<u8>]) -> Encoded {
    let mut offsets = vec![0];
    let mut bytes = Vec::new();
    for key in keys {
        bytes.extend_from_slice(key);
        offsets.push(bytes.len());
    }
    Encoded { offsets, bytes }
}

/// A value and a diff per key.
type Model = BTreeMap<Vec<u8>, (i64, i64)>;

fn insert(arrangement: &mut Arrangement, epoch: u64, rows: &[(Vec<u8>, i64, i64)]) {
    let keys: Vec<Vec<u8>> = rows.iter().map(|(key, _, _)| key.clone()).collect();
    let encoded = encoded(&keys);
    let order = encoded.sorted();
    let diffs: Vec<i64> = order.iter().map(|row| rows[*row as usize].2).collect();
    let numbers = rows.iter().map(|(_, n, _)| *n);
    let text = rows
        .iter()
        .map(|(_, n, _)| (n % 3 != 0).then(|| "v".repeat(*n as usize % 40)));
    let values = RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(Int64Array::from_iter_values(numbers)),
            Arc::new(StringArray::from_iter(text)),
        ],
    );
    let changes = Changes {
        keys: &encoded,
        order: &order,
        values: &values.unwrap(),
        diffs: Some(&diffs),
    };
    arrangement.insert(epoch, &changes).unwrap();
}

/// Keys of one to twelve bytes; the first bytes are few so that many keys share prefixes.
fn key(random: &mut Random) -> Vec<u8> {
    let length = random.below(12) + 1;
    (0..length).map(|_| random.below(5) as u8 * 60).collect()
}

fn read_all(arrangement: &Arrangement, from: &[u8], until: Option<&[u8]>, rows: usize) -> Model {
    try_read_all(arrangement, from, until, rows).unwrap()
}

fn try_read_all(
    arrangement: &Arrangement,
    from: &[u8],
    until: Option<&[u8]>,
    rows: usize,
) -> Result<Model, OperatorError> {
    let mut scan = arrangement.scan(from, until)?;
    let mut model = Model::new();
    while let Some(chunk) = scan.next_chunk(rows)? {
        assert!(chunk.len() <= rows);
        let numbers = chunk.values().column(0).as_primitive::<Int64Type>().clone();
        let text = chunk.values().column(1).as_string::<i32>().clone();
        for (row, key) in chunk.keys().enumerate() {
            let n = numbers.value(row);
            let length = arrow::array::Array::is_valid(&text, row).then(|| text.value(row).len());
            assert_eq!(length, (n % 3 != 0).then_some(n as usize % 40));
            assert!(
                model
                    .last_key_value()
                    .is_none_or(|(last, _)| last.as_slice() < key)
            );
            model.insert(key.to_vec(), (n, chunk.diff(row)));
        }
    }
    Ok(model)
}

fn check_blocks(arrangement: &Arrangement, limits: Limits) {
    for run in arrangement.runs() {
        let budget = arrangement.shape().budget.as_ref();
        let blocks = run.parts().to_vec().into_iter();
        let blocks: Vec<_> = blocks.map(|part| part.block(budget).unwrap()).collect();
        for pair in blocks.windows(2) {
            assert!(pair[0].key(pair[0].len() - 1) < pair[1].key(0));
        }
        for block in blocks {
            assert!(!block.is_empty() && block.len() <= limits.rows);
            assert!(
                block.size() <= 2 * limits.bytes || block.len() == 1,
                "{}",
                block.size()
            );
            assert!((1..block.len()).all(|row| block.key(row - 1) < block.key(row)));
        }
    }
}

fn check_against_map(kind: Kind, limits: Limits, per_epoch: u64, seed: u64) {
    check_within(kind, limits, per_epoch, seed, None);
}

/// Random epochs against a map: scans, ranges, probes, floors, after every epoch, and a restart now and then.
fn check_within(
    kind: Kind,
    limits: Limits,
    per_epoch: u64,
    seed: u64,
    budget: Option<&Arc<Budget>>,
) {
    let mut random = Random(seed * 7919 + 1);
    let mut arrangement = within(kind, limits, budget);
    let mut model = Model::new();
    let mut floor = Vec::new();
    for epoch in 0..60 {
        let mut rows: BTreeMap<Vec<u8>, (i64, i64)> = BTreeMap::new();
        for _ in 0..random.below(per_epoch) {
            let n = random.below(1000) as i64;
            match kind {
                Kind::Latest => {
                    let diff = i64::from(random.below(4) > 0);
                    rows.insert(key(&mut random), (n, diff));
                }
                // Under Multiset the key is the row, so equal keys have equal values.
                Kind::Multiset => {
                    let key = key(&mut random);
                    let n = key.iter().map(|b| i64::from(*b)).sum();
                    rows.insert(key, (n, random.below(5) as i64 - 2));
                }
            }
        }
        rows.retain(|_, (_, diff)| kind == Kind::Latest || *diff != 0);
        for (key, (n, diff)) in &rows {
            let sum = match kind {
                Kind::Latest => *diff,
                Kind::Multiset => diff + model.get(key).map_or(0, |(_, diff)| *diff),
            };
            if sum == 0 {
                model.remove(key);
            } else {
                model.insert(key.clone(), (*n, sum));
            }
        }
        let mut flat: Vec<_> = rows
            .into_iter()
            .map(|(key, (n, diff))| (key, n, diff))
            .collect();
        flat.reverse();
        if flat.is_empty() {
            arrangement.advance(epoch).unwrap();
        } else {
            insert(&mut arrangement, epoch, &flat);
        }
        if random.below(10) == 0 {
            floor = vec![random.below(4) as u8 * 60, random.below(200) as u8].max(floor);
            arrangement.forget_below(&floor);
            model.retain(|key, _| *key >= floor);
        }
        model.retain(|key, _| *key >= floor);
        if random.below(12) == 0 {
            arrangement = restarted(&arrangement, limits);
        }
        check_blocks(&arrangement, limits);
        assert_eq!(read_all(&arrangement, &[], None, 5), model, "epoch {epoch}");
        let (from, until) = (key(&mut random), key(&mut random));
        if from < until {
            let range = model.range(from.clone()..until.clone());
            let wanted: Model = range.map(|(k, v)| (k.clone(), *v)).collect();
            assert_eq!(read_all(&arrangement, &from, Some(&until), 1000), wanted);
        }
        check_probe(&arrangement, &model, &mut random);
    }
    assert!(
        arrangement.runs().len() < 12,
        "{} runs",
        arrangement.runs().len()
    );
}

fn check_probe(arrangement: &Arrangement, model: &Model, random: &mut Random) {
    let mut keys: Vec<Vec<u8>> = (0..20).map(|_| key(random)).collect();
    if arrangement.shape().kind == Kind::Latest {
        keys.extend(model.keys().step_by(3).cloned());
    } else {
        // A probe finds whatever starts with it, so probes must not be prefixes of one another.
        keys.iter_mut().for_each(|key| key.resize(2, 0));
    }
    keys.sort();
    keys.dedup();
    let found = arrangement.probe(keys.iter().map(Vec::as_slice)).unwrap();
    let numbers = found.column(0).unwrap();
    let mut got: BTreeMap<(u32, Vec<u8>), (i64, i64)> = BTreeMap::new();
    let rows = found
        .keys
        .iter()
        .zip(found.stored_keys())
        .zip(found.diffs());
    for (row, ((index, stored), diff)) in rows.enumerate() {
        let numbers = numbers.as_ref().unwrap().as_primitive::<Int64Type>();
        let sum = got.entry((*index, stored.to_vec())).or_default();
        *sum = (numbers.value(row), sum.1 + diff);
    }
    got.retain(|_, (_, diff)| *diff != 0);
    let mut wanted = BTreeMap::new();
    for (index, probe) in keys.iter().enumerate() {
        let whole = arrangement.shape().kind == Kind::Latest;
        for (key, value) in model {
            if key == probe || (!whole && key.starts_with(probe)) {
                wanted.insert((index as u32, key.clone()), *value);
            }
        }
    }
    assert_eq!(got, wanted);
}

#[test]
fn the_newest_row_of_a_key_counts() {
    for seed in 1..6 {
        check_against_map(Kind::Latest, SMALL, 40, seed);
        check_against_map(Kind::Latest, Limits::default(), 300, seed);
    }
}

#[test]
fn multiplicities_add_up() {
    for seed in 1..6 {
        check_against_map(Kind::Multiset, SMALL, 40, seed);
        check_against_map(Kind::Multiset, Limits::default(), 300, seed);
    }
}

#[test]
fn tombstones_do_not_outlive_what_they_hide() {
    let mut arrangement = arrangement(Kind::Latest, SMALL);
    for epoch in 0..200 {
        let key = vec![1, epoch as u8];
        let gone = vec![1, (epoch as u8).wrapping_sub(1)];
        insert(&mut arrangement, epoch, &[(key, 1, 1), (gone, 0, 0)]);
    }
    let rows: usize = arrangement.runs().iter().map(|run| run.len()).sum();
    assert!(rows < 20, "{rows} rows for one key");
}

#[test]
fn forgotten_keys_leave_memory() {
    let mut arrangement = arrangement(Kind::Latest, SMALL);
    for epoch in 0..400_u64 {
        let rows: Vec<_> = (0..10)
            .map(|k| ([epoch.to_be_bytes().as_slice(), &[k]].concat(), 1, 1))
            .collect();
        insert(&mut arrangement, epoch, &rows);
        arrangement.forget_below(&epoch.saturating_sub(3).to_be_bytes());
    }
    let rows: usize = arrangement.runs().iter().map(|run| run.len()).sum();
    assert!(rows < 200, "{rows} rows for forty keys");
    assert_eq!(read_all(&arrangement, &[], None, 1000).len(), 40);
}

#[test]
fn a_block_untouched_by_a_merge_is_shared() {
    let mut arrangement = arrangement(Kind::Latest, Limits::default());
    let rows = |from: u64| -> Vec<_> {
        (from..from + 40_000)
            .map(|k| (k.to_be_bytes().to_vec(), 1, 1))
            .collect()
    };
    insert(&mut arrangement, 0, &rows(0));
    let first = arrangement.runs()[0].parts()[0].block(None).unwrap();
    insert(&mut arrangement, 1, &rows(1 << 20));
    for epoch in 2..40 {
        insert(&mut arrangement, epoch, &rows((2 << 20) + epoch)[..2000]);
    }
    let runs = arrangement.runs();
    let mut parts = runs.iter().flat_map(|run| run.parts().to_vec());
    assert!(parts.any(|part| Arc::ptr_eq(&part.block(None).unwrap(), &first)));
    assert!(runs[0].parts().len() > 3, "merged");
}

#[test]
fn values_without_columns_are_allowed() {
    let info = OperatorInfo::new(0, 0, vec![0].into());
    let empty = Arc::new(Schema::empty());
    let mut arrangement = Arrangement::new(Shape::new(Kind::Multiset, empty, SMALL), info);
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(20));
    for epoch in 0..30_u64 {
        let keys = encoded(
            &(0..20_u8)
                .map(|k| vec![k, epoch as u8 % 4])
                .collect::<Vec<_>>(),
        );
        let values = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options);
        let changes = Changes {
            order: &keys.sorted(),
            keys: &keys,
            values: &values.unwrap(),
            diffs: None,
        };
        arrangement.insert(epoch, &changes).unwrap();
    }
    let mut scan = arrangement.scan(&[3], Some(&[5])).unwrap();
    let chunk = scan.next_chunk(100).unwrap().unwrap();
    assert_eq!(chunk.len(), 8);
    assert!(
        (0..8)
            .map(|row| chunk.diff(row))
            .eq([8, 8, 7, 7, 8, 8, 7, 7])
    );
}

#[test]
fn a_snapshot_survives_its_bytes() {
    let mut arrangement = arrangement(Kind::Latest, SMALL);
    let mut random = Random(99);
    for epoch in 0..20 {
        let rows: BTreeMap<_, _> = (0..15)
            .map(|_| (key(&mut random), random.below(4) as i64))
            .collect();
        let rows: Vec<_> = rows
            .into_iter()
            .map(|(key, n)| (key, n, n.min(1)))
            .collect();
        insert(&mut arrangement, epoch, &rows);
    }
    arrangement.forget_below(&[60]);
    let mut restored = restarted(&arrangement, SMALL);
    assert_eq!(restored.upper(), 20);
    let wanted = read_all(&arrangement, &[], None, 100);
    assert_eq!(read_all(&restored, &[], None, 100), wanted);
    // It goes on from there.
    insert(&mut restored, 20, &[(vec![200], 7, 1)]);
    assert_eq!(read_all(&restored, &[], None, 100).len(), wanted.len() + 1);
}

/// Rows of a multiset belong together by the first column of their keys, whatever the others hold.
#[test]
fn rows_find_their_owners_among_another_number_of_workers() {
    check_owners(None);
}

fn check_owners(budget: Option<&Arc<Budget>>) {
    let codec = Codec::new(vec![DataType::Int64, DataType::Utf8]).unwrap();
    let mut random = Random(5);
    let mut model: BTreeMap<(i64, String), i64> = BTreeMap::new();
    let mut arrangements: Vec<_> = (0..3)
        .map(|_| within(Kind::Multiset, SMALL, budget))
        .collect();
    for epoch in 0..10 {
        for (worker, arrangement) in arrangements.iter_mut().enumerate() {
            let numbers = (0..20).map(|_| random.below(30) as i64 * 3 + worker as i64);
            let numbers: std::collections::BTreeSet<i64> = numbers.collect();
            let words = numbers.iter().map(|n| format!("{}", n % 4 + epoch % 2));
            let words: Vec<String> = words.collect();
            for (number, word) in numbers.iter().zip(&words) {
                *model.entry((*number, word.clone())).or_default() += 1;
            }
            let columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from_iter_values(numbers.iter().copied())),
                Arc::new(StringArray::from(words.clone())),
            ];
            let keys = codec.encode(&columns, numbers.len()).unwrap();
            let order = keys.sorted();
            let changes = Changes {
                keys: &keys,
                order: &order,
                values: &RecordBatch::try_new(schema(), columns).unwrap(),
                diffs: None,
            };
            arrangement.insert(epoch as u64, &changes).unwrap();
        }
    }
    let snapshots: Vec<_> = arrangements
        .iter()
        .enumerate()
        .map(|(worker, arrangement)| arrangement.snapshot(worker, 3))
        .collect();
    let mut owners: BTreeMap<i64, usize> = BTreeMap::new();
    for worker in 0..2 {
        let mut restored = within(Kind::Multiset, SMALL, budget);
        let ownership = Ownership {
            codec: &codec,
            columns: 0..1,
            worker,
            peers: 2,
        };
        restored.restore(&snapshots, &ownership).unwrap();
        let mut scan = restored.scan(&[], None).unwrap();
        while let Some(chunk) = scan.next_chunk(10).unwrap() {
            let columns = codec.decode(chunk.keys()).unwrap();
            for row in 0..chunk.len() {
                let number = columns[0].as_primitive::<Int64Type>().value(row);
                let word = columns[1].as_string::<i32>().value(row).to_string();
                assert_eq!(model.remove(&(number, word)), Some(chunk.diff(row)));
                assert_eq!(*owners.entry(number).or_insert(worker), worker);
            }
        }
    }
    assert!(model.is_empty(), "lost: {model:?}");
    assert!(owners.values().any(|w| *w == 0) && owners.values().any(|w| *w == 1));
}

#[test]
fn a_snapshot_of_another_operator_is_refused() {
    let mut other = arrangement(Kind::Multiset, SMALL);
    insert(&mut other, 0, &[(vec![1], 1, 1)]);
    let codec = Codec::new(vec![]).unwrap();
    let ownership = Ownership {
        codec: &codec,
        columns: 0..0,
        worker: 0,
        peers: 1,
    };
    let error = arrangement(Kind::Latest, SMALL).restore(&[other.snapshot(0, 1)], &ownership);
    assert!(error.unwrap_err().to_string().contains("another operator"));
}

/// What comes back from a checkpoint.
fn restarted(arrangement: &Arrangement, limits: Limits) -> Arrangement {
    let mut snapshot = arrangement.snapshot(0, 1);
    for run in &mut snapshot.runs {
        *run = through_a_file(run);
    }
    let shape = arrangement.shape();
    let mut restored = within(shape.kind, limits, shape.budget.as_ref());
    let codec = Codec::new(vec![]).unwrap();
    let ownership = Ownership {
        codec: &codec,
        columns: 0..0,
        worker: 0,
        peers: 1,
    };
    restored.restore(&[snapshot], &ownership).unwrap();
    restored
}

/// Written, and opened again.
fn through_a_file(run: &SnapshotRun) -> SnapshotRun {
    let mut bytes = Vec::new();
    let written = run.write_to(&mut bytes).unwrap();
    assert_eq!(written.bytes, bytes.len() as u64);
    let file = Arc::new(RunBytes::new("a run", bytes));
    let opened = SnapshotRun::open(run.lower, run.upper, file, &schema()).unwrap();
    assert_eq!(opened.checksum(), Some(written.checksum));
    opened
}

/// Opens a file and reads all of it.
fn open_all(bytes: Vec<u8>, epochs: (u64, u64)) -> Result<usize, OperatorError> {
    let file = Arc::new(RunBytes::new("state/run-7", bytes));
    let run = SnapshotRun::open(epochs.0, epochs.1, file, &schema())?;
    let mut rows = 0;
    for part in run.parts.iter() {
        rows += part.block(None)?.len();
    }
    Ok(rows)
}

fn a_file() -> (Vec<u8>, (u64, u64)) {
    let mut arrangement = arrangement(Kind::Latest, SMALL);
    let rows: Vec<_> = (0..30_u8)
        .map(|k| (vec![k, 1, 2], i64::from(k), i64::from(k % 5 > 0)))
        .collect();
    insert(&mut arrangement, 0, &rows);
    let mut bytes = Vec::new();
    let run = arrangement.snapshot(0, 1).runs.remove(0);
    run.write_to(&mut bytes).unwrap();
    (bytes, (run.lower, run.upper))
}

#[test]
fn a_damaged_file_is_an_error_that_names_it() {
    let (bytes, epochs) = a_file();
    assert_eq!(open_all(bytes.clone(), epochs).unwrap(), 30);
    let check = |damaged: Vec<u8>, how: String| {
        let error = open_all(damaged, epochs).expect_err(&how).to_string();
        assert!(
            error.starts_with("file of state \"state/run-7\" is damaged: "),
            "{how}: {error}"
        );
    };
    for at in 0..bytes.len() {
        for flip in [1, 0x10, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            check(damaged, format!("byte {at} ^ {flip}"));
        }
        check(bytes[..at].to_vec(), format!("length {at}"));
    }
    let mut longer = bytes.clone();
    longer.extend_from_slice(&[0; 8]);
    check(longer, "longer".into());
}

/// What a checksum cannot tell: the file of other epochs, of other columns, of another build.
#[test]
fn another_file_is_refused() {
    let (bytes, epochs) = a_file();
    let error = open_all(bytes.clone(), (3, 9)).unwrap_err().to_string();
    assert!(
        error.contains("the epochs from 0 to 1 instead of 3 to 9"),
        "{error}"
    );
    let file = Arc::new(RunBytes::new("f", bytes.clone()));
    let none = Arc::new(Schema::empty());
    let error = SnapshotRun::open(epochs.0, epochs.1, file, &none).unwrap_err();
    assert!(error.to_string().contains("2 value columns instead of 0"));
    let mut newer = bytes;
    newer[7] += 1;
    let error = open_all(newer, epochs).unwrap_err().to_string();
    assert!(error.contains("version 3 of the format"), "{error}");
}

/// With checksums that fit, contents that do not are an error all the same.
#[test]
fn a_wrong_file_with_right_checksums_is_no_panic() {
    let (bytes, epochs) = a_file();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let word = |bytes: &[u8], at: usize| {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
    };
    let trailer = bytes.len() - 32;
    let footer = word(&bytes, trailer);
    for at in 8..trailer {
        for flip in [1, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            if at < footer {
                // The first block's entry begins after the four words of the footer.
                let mut entry = footer + 32;
                while word(&bytes, entry) + word(&bytes, entry + 8) <= at {
                    entry += 64 + word(&bytes, entry + 48) + word(&bytes, entry + 56);
                }
                let (start, length) = (word(&bytes, entry), word(&bytes, entry + 8));
                let sum = crate::keys::hash_bytes(0, &damaged[start..start + length]);
                damaged[entry + 16..entry + 24].copy_from_slice(&sum.to_le_bytes());
            }
            let sum = crate::keys::hash_bytes(0, &damaged[footer..trailer]);
            damaged[trailer + 16..trailer + 24].copy_from_slice(&sum.to_le_bytes());
            let _ = open_all(damaged, epochs);
        }
    }
    std::panic::set_hook(hook);
}

/// The second dataflow sees what is there when it comes and what is added later, and holds nothing back.
#[test]
fn a_second_dataflow_imports_the_arrangement() {
    timely::execute_directly(|worker| {
        let mut input =
            InputHandle::<u64, timely::container::CapacityContainerBuilder<Vec<u64>>>::new();
        let probe = timely::dataflow::ProbeHandle::<u64>::new();
        let shared = worker.dataflow::<u64, _, _>(|scope| {
            let mut shared = None;
            scope
                .input_from(&mut input)
                .unary_frontier::<timely::container::CapacityContainerBuilder<Vec<u64>>, _, _, _>(
                    Pipeline,
                    "Arrange",
                    |capability, info| {
                        let shape = Shape::new(Kind::Latest, schema(), SMALL);
                        let mut arrangement = Arrangement::new(shape, info);
                        shared = Some(arrangement.shared());
                        let mut held = Some(capability);
                        let mut next = 0;
                        move |(input, frontier), _output| {
                            input.for_each(|_, _| {});
                            while held.is_some() && !frontier.less_equal(&next) {
                                if frontier.is_empty() {
                                    held = None;
                                    break;
                                }
                                insert(
                                    &mut arrangement,
                                    next,
                                    &[(vec![next as u8 % 50], next as i64, 1)],
                                );
                                next += 1;
                                if let Some(held) = &mut held {
                                    held.downgrade(&next);
                                }
                            }
                        }
                    },
                )
                .probe_with(&probe);
            shared.unwrap()
        });
        let step_to =
            |worker: &mut timely::worker::Worker, input: &mut InputHandle<u64, _>, epoch| {
                input.advance_to(epoch);
                worker.step_while(|| probe.less_than(&epoch));
            };
        step_to(worker, &mut input, 30);
        let rows = Rc::new(Cell::new(0));
        let seen = Rc::clone(&rows);
        let second = timely::dataflow::ProbeHandle::<u64>::new();
        worker.dataflow::<u64, _, _>(|scope| {
            let mut arranged = shared.import(scope, "Import");
            arranged
                .stream
                .unary_frontier::<timely::container::CapacityContainerBuilder<Vec<u64>>, _, _, _>(
                    Pipeline,
                    "Count",
                    move |_, _| {
                        move |(input, frontier), _output| {
                            input.for_each(|_, runs| {
                                for run in runs.drain(..) {
                                    seen.set(seen.get() + run.len());
                                }
                            });
                            let frontier = frontier.frontier();
                            arranged.trace.set_logical_compaction(frontier);
                            arranged.trace.set_physical_compaction(frontier);
                        }
                    },
                )
                .probe_with(&second);
        });
        worker.step_while(|| second.less_than(&30));
        assert_eq!(rows.get(), 30);
        step_to(worker, &mut input, 300);
        worker.step_while(|| second.less_than(&300));
        assert_eq!(rows.get(), 300);
        let mut runs = 0;
        shared.0.borrow().map_batches(|_| runs += 1);
        assert!(runs < 15, "{runs} runs are kept apart");
        input.close();
        worker.step_while(|| !second.done());
    });
}

mod spill;
