//! First rows (dropDuplicates, LIMIT) against a few lines that find them slowly: random times, cuts and restarts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use datafusion::physical_expr::expressions::col;
use highwater_operators::Edge;
use highwater_operators::aggregate::State;
use highwater_operators::arrangement::{Snapshot, Snapshots};
use highwater_operators::dedup::{Deduplication, Forget, deduplicate};
use highwater_operators::limit::limit;
use highwater_operators::metrics::Meters;
use highwater_operators::watermark::{Policy, Watermarks, watermark};

use crate::cluster::{CLUSTERS, Cluster, Output, run, tiny_budget};
use crate::data::{Epochs, Random};
use crate::restore::{save, stored};

#[derive(Debug, Clone, Copy)]
enum What {
    /// The first row of each key.
    Firsts { forget: Forget, by_time: bool },
    /// This many rows, after the first so many.
    Limit { skip: u64, most: u64 },
}

#[derive(Debug, Clone, Copy)]
struct Case {
    what: What,
    ordered: bool,
    delay_ms: i64,
    /// How many different keys there are.
    keys: u64,
}

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    Arc::new(Schema::new(vec![
        Field::new("at", time, true),
        Field::new("k", DataType::Float64, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("v", DataType::Int64, false),
    ]))
}

/// A row, its float as it is and as keys are compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    at: Option<i64>,
    k: Option<u64>,
    key: Option<u64>,
    s: Option<String>,
    v: i64,
}

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let at = batch.column(0).as_primitive::<TimestampMicrosecondType>();
    let k = batch.column(1).as_primitive::<Float64Type>();
    let s = batch.column(2).as_string::<i32>();
    let v = batch.column(3).as_primitive::<Int64Type>();
    let one = |x: f64| {
        if x.is_nan() { f64::NAN } else { x + 0.0 }
    };
    let row = |row: usize| Row {
        at: at.is_valid(row).then(|| at.value(row)),
        k: k.is_valid(row).then(|| k.value(row).to_bits()),
        key: k.is_valid(row).then(|| one(k.value(row)).to_bits()),
        s: s.is_valid(row).then(|| s.value(row).to_string()),
        v: v.value(row),
    };
    (0..batch.num_rows()).map(row).collect()
}

/// Rows as arrow's row encoding compares them: nulls first, floats by total order.
fn bytes(row: &Row) -> (Option<i64>, Option<i64>, Option<String>, i64) {
    let total = |bits: u64| {
        let bits = bits as i64;
        bits ^ (((bits >> 63) as u64) >> 1) as i64
    };
    (row.at, row.k.map(total), row.s.clone(), row.v)
}

struct Answers {
    /// What each epoch puts out.
    rows: Vec<Vec<Row>>,
    /// The watermark of each epoch, and the mark after it.
    now_ms: Vec<i64>,
    after_ms: Vec<i64>,
}

impl Case {
    fn epochs(&self, random: &mut Random, count: usize) -> Epochs {
        let odd = [0.0, -0.0, f64::NAN, -f64::NAN];
        let words = ["", "a", "b", "a word longer than twelve bytes"];
        let rows = (0..count).map(|epoch| {
            let rows = random.below(60) as usize;
            let (mut at, mut k, mut s, mut v) = (vec![], vec![], vec![], vec![]);
            for _ in 0..rows {
                let time = epoch as i64 * 90 + random.below(300) as i64 - 150;
                at.push((!random.chance(6)).then_some(time * 1000 + random.below(2) as i64));
                let number = random.below(self.keys);
                let float = odd.get(number as usize).copied().unwrap_or(number as f64);
                k.push((!random.chance(6)).then_some(float));
                s.push(
                    (!random.chance(6)).then(|| words[random.below(words.len() as u64) as usize]),
                );
                v.push(random.below(8) as i64);
            }
            let columns: Vec<ArrayRef> = vec![
                Arc::new(TimestampMicrosecondArray::from(at)),
                Arc::new(Float64Array::from(k)),
                Arc::new(StringArray::from(s)),
                Arc::new(Int64Array::from(v)),
            ];
            RecordBatch::try_new(schema(), columns).unwrap()
        });
        Epochs {
            rows: rows.collect(),
        }
    }

    fn reference(&self, epochs: &Epochs) -> Answers {
        let mut answers = Answers {
            rows: Vec::new(),
            now_ms: Vec::new(),
            after_ms: Vec::new(),
        };
        // Each key with the moment at which it is forgotten.
        let mut seen: BTreeMap<String, Option<i64>> = BTreeMap::new();
        let (mut largest_ms, mut before_ms, mut passed) = (i64::MIN, 0, 0);
        for rows in &epochs.rows {
            let now_ms = largest_ms.saturating_sub(self.delay_ms).max(before_ms);
            let mut all = rows_of(rows);
            for row in &all {
                largest_ms = largest_ms.max(row.at.map_or(i64::MIN, |at| at.div_euclid(1000)));
            }
            if !self.ordered {
                all.sort_by_key(bytes);
            }
            let mut out = Vec::new();
            for row in all {
                match self.what {
                    What::Limit { skip, most } => {
                        if (skip..skip.saturating_add(most)).contains(&passed) {
                            out.push(row);
                        }
                        passed += 1;
                    }
                    What::Firsts { forget, by_time } => {
                        if row.at.is_some_and(|at| at <= before_ms * 1000) {
                            continue;
                        }
                        let key = match by_time {
                            true => format!("{:?}", (row.at, row.key, &row.s)),
                            false => format!("{:?}", (row.key, &row.s)),
                        };
                        if seen.contains_key(&key) {
                            continue;
                        }
                        let until = match forget {
                            Forget::Never => None,
                            Forget::FirstKey => row.at,
                            Forget::After { delay_us } => Some(row.at.unwrap_or(0) + delay_us),
                        };
                        seen.insert(key, until);
                        out.push(row);
                    }
                }
            }
            seen.retain(|_, until| until.is_none_or(|until| until > now_ms * 1000));
            out.sort();
            answers.rows.push(out);
            answers.now_ms.push(now_ms);
            answers
                .after_ms
                .push(largest_ms.saturating_sub(self.delay_ms));
            before_ms = now_ms;
        }
        answers
    }

    fn run(
        &self,
        cluster: Cluster,
        epochs: &Arc<Epochs>,
        seed: u64,
        (first, stop): (usize, u64),
        from: [i64; 2],
        restore: &[Vec<Snapshot>; 2],
    ) -> (Output, [Vec<Snapshot>; 2]) {
        let saved: [Arc<Mutex<Vec<Snapshot>>>; 2] = Default::default();
        let keep = saved.clone();
        let (case, restore) = (*self, restore.clone());
        let budget = tiny_budget(seed + first as u64);
        let edge = Edge {
            rows: schema(),
            ordered: self.ordered,
            signed: false,
        };
        let output = run(cluster, epochs, first, edge, seed, move |rows, failure| {
            let at = col("at", &schema()).unwrap();
            let [from_ms, before_ms] = from;
            let (rows, mark) = watermark(
                rows,
                Arc::clone(&at),
                case.delay_ms,
                from_ms,
                &Meters::default(),
                failure,
            );
            let marks = Watermarks::new(vec![mark], Policy::Min, before_ms);
            let [state, deadlines] = [0, 1].map(|part| {
                let snapshots = Snapshots::default();
                snapshots.request(stop);
                State {
                    restore: restore[part].clone(),
                    snapshots,
                    budget: budget.clone(),
                    ..State::default()
                }
            });
            let snapshots = [state.snapshots.clone(), deadlines.snapshots.clone()];
            let mut rows = match case.what {
                What::Limit { skip, most } => {
                    let wanted = skip..skip.saturating_add(most);
                    limit(rows, "limit", wanted, Some(marks), state, failure).rows
                }
                What::Firsts { forget, by_time } => {
                    let names: &[&str] = if by_time {
                        &["at", "k", "s"]
                    } else {
                        &["k", "s"]
                    };
                    let keys = names.iter().map(|name| col(name, &schema()).unwrap());
                    let deduplication = Deduplication {
                        name: "firsts".into(),
                        keys: keys.collect(),
                        event_time: Some(at),
                        forget,
                    };
                    let marks = Some(marks);
                    deduplicate(rows, deduplication, marks, state, deadlines, failure).rows
                }
            };
            for (snapshots, keep) in snapshots.into_iter().zip(&keep) {
                rows = save(rows, snapshots, stop, Arc::clone(keep));
            }
            rows
        });
        let saved = saved.map(|saved| saved.lock().unwrap().clone());
        (output, saved)
    }

    #[track_caller]
    fn check(&self, from: Cluster, to: Cluster, seed: u64) {
        let mut random = Random::new(seed);
        let epochs = Arc::new(self.epochs(&mut random, 12));
        let stop = random.below(10);
        let answers = self.reference(&epochs);
        let nothing = [vec![], vec![]];
        let (before, saved) = self.run(from, &epochs, seed, (0, stop), [0, 0], &nothing);
        let restore = saved.map(|part| part.iter().map(stored).collect());
        let at = stop as usize;
        let marks = [answers.after_ms[at].max(0), answers.now_ms[at]];
        let (after, _) = self.run(to, &epochs, seed, (at + 1, u64::MAX), marks, &restore);
        let mut output = before.unwrap();
        output.retain(|(epoch, _)| *epoch <= stop);
        output.extend(after.unwrap());
        let mut got: Vec<Vec<Row>> = vec![Vec::new(); epochs.rows.len()];
        for (epoch, batch) in output {
            got[epoch as usize].extend(rows_of(&batch));
        }
        for (epoch, wanted) in answers.rows.into_iter().enumerate() {
            got[epoch].sort();
            let context =
                format!("{self:?}, {from:?} to {to:?} after {stop}, seed {seed}, epoch {epoch}");
            assert_eq!(got[epoch], wanted, "{context}");
        }
    }
}

fn check(what: What, seed: u64) {
    for (index, from) in CLUSTERS.into_iter().enumerate() {
        let ordered = (seed + index as u64).is_multiple_of(2);
        let case = Case {
            what,
            ordered,
            delay_ms: [0, 70, 400][index % 3],
            keys: [6, 40][usize::from(ordered)],
        };
        let to = match index {
            0 | 3 => from,
            _ => CLUSTERS[(index * 2 + 1) % CLUSTERS.len()],
        };
        case.check(from, to, seed + index as u64);
    }
}

#[test]
fn the_first_row_of_a_key_comes_out_once() {
    let forget = Forget::Never;
    check(
        What::Firsts {
            forget,
            by_time: false,
        },
        100,
    );
}

#[test]
fn keys_with_event_time_are_forgotten_with_it() {
    let forget = Forget::FirstKey;
    check(
        What::Firsts {
            forget,
            by_time: true,
        },
        200,
    );
}

#[test]
fn duplicates_count_within_the_delay_of_the_first() {
    for delay_us in [0, 70_001, 400_000] {
        let forget = Forget::After { delay_us };
        check(
            What::Firsts {
                forget,
                by_time: false,
            },
            300 + delay_us as u64,
        );
    }
}

#[test]
fn a_limit_counts_over_restarts() {
    for most in [1, 50, 170] {
        check(What::Limit { skip: 0, most }, 400 + most);
    }
}

#[test]
fn an_offset_counts_over_restarts() {
    for (skip, most) in [(1, 1), (60, 50), (90, u64::MAX), (100_000, 5)] {
        check(What::Limit { skip, most }, 600 + skip);
    }
}
