use std::cell::Cell;
use std::collections::BTreeMap;

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
    let info = OperatorInfo::new(0, 0, vec![0].into());
    Arrangement::new(Shape::new(kind, schema(), limits), info)
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
    let mut scan = arrangement.scan(from, until);
    let mut model = Model::new();
    while let Some(chunk) = scan.next_chunk(rows).unwrap() {
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
    model
}

fn check_blocks(arrangement: &Arrangement, limits: Limits) {
    for run in arrangement.runs() {
        for pair in run.blocks().windows(2) {
            assert!(pair[0].key(pair[0].len() - 1) < pair[1].key(0));
        }
        for block in run.blocks().iter() {
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

/// Random epochs against a map: scans, ranges, probes, floors, after every epoch.
fn check_against_map(kind: Kind, limits: Limits, per_epoch: u64, seed: u64) {
    let mut random = Random(seed * 7919 + 1);
    let mut arrangement = arrangement(kind, limits);
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
            arrangement.advance(epoch);
        } else {
            insert(&mut arrangement, epoch, &flat);
        }
        if random.below(10) == 0 {
            floor = vec![random.below(4) as u8 * 60, random.below(200) as u8].max(floor);
            arrangement.forget_below(&floor);
            model.retain(|key, _| *key >= floor);
        }
        model.retain(|key, _| *key >= floor);
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
    let found = arrangement.probe(keys.iter().map(Vec::as_slice));
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
    let first = Arc::clone(&arrangement.runs()[0].blocks()[0]);
    insert(&mut arrangement, 1, &rows(1 << 20));
    for epoch in 2..40 {
        insert(&mut arrangement, epoch, &rows((2 << 20) + epoch)[..2000]);
    }
    let runs = arrangement.runs();
    let blocks = runs.iter().flat_map(|run| run.blocks().iter());
    assert!(blocks.into_iter().any(|block| Arc::ptr_eq(block, &first)));
    assert!(runs[0].blocks().len() > 3, "merged");
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
    let mut scan = arrangement.scan(&[3], Some(&[5]));
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
    let mut snapshot = arrangement.snapshot(0, 1);
    for run in &mut snapshot.runs {
        *run = SnapshotRun::from_bytes(&run.to_bytes(), &schema()).unwrap();
    }
    let mut restored = super::tests::arrangement(Kind::Latest, SMALL);
    let codec = Codec::new(vec![]).unwrap();
    let ownership = Ownership {
        codec: &codec,
        columns: 0..0,
        worker: 0,
        peers: 1,
    };
    restored.restore(&[snapshot], &ownership).unwrap();
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
    let codec = Codec::new(vec![DataType::Int64, DataType::Utf8]).unwrap();
    let mut random = Random(5);
    let mut model: BTreeMap<(i64, String), i64> = BTreeMap::new();
    let mut arrangements: Vec<_> = (0..3).map(|_| arrangement(Kind::Multiset, SMALL)).collect();
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
        let mut restored = arrangement(Kind::Multiset, SMALL);
        let ownership = Ownership {
            codec: &codec,
            columns: 0..1,
            worker,
            peers: 2,
        };
        restored.restore(&snapshots, &ownership).unwrap();
        let mut scan = restored.scan(&[], None);
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

#[test]
fn damaged_bytes_are_an_error() {
    let mut arrangement = arrangement(Kind::Latest, SMALL);
    let rows: Vec<_> = (0..30_u8)
        .map(|k| (vec![k, 1, 2], i64::from(k), 1))
        .collect();
    insert(&mut arrangement, 0, &rows);
    let bytes = arrangement.snapshot(0, 1).runs[0].to_bytes();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(
            SnapshotRun::from_bytes(&damaged, &schema()).is_err(),
            "byte {at}"
        );
        assert!(
            SnapshotRun::from_bytes(&bytes[..at], &schema()).is_err(),
            "length {at}"
        );
    }
    // Even with a checksum that fits, lengths that do not are an error.
    std::panic::set_hook(Box::new(|_| {}));
    for at in 0..bytes.len() - 8 {
        let mut damaged = bytes[..bytes.len() - 8].to_vec();
        damaged[at] ^= 0xff;
        let sum = crate::keys::hash_bytes(0, &damaged);
        damaged.extend(sum.to_le_bytes());
        let _ = SnapshotRun::from_bytes(&damaged, &schema());
    }
    let _ = std::panic::take_hook();
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
