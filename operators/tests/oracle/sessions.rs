//! Session windows against a few lines that merge them slowly: random gaps, cuts and restarts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Field, Fields, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::min_max::min_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::col;
use highwater_operators::Edge;
use highwater_operators::aggregate::{AggregateCall, Emit, State};
use highwater_operators::arrangement::{Snapshot, Snapshots};
use highwater_operators::metrics::Meters;
use highwater_operators::session::{Sessions, sessions};
use highwater_operators::watermark::{Policy, Watermarks, watermark};

use crate::cluster::{CLUSTERS, Cluster, Output, run, tiny_budget};
use crate::data::{Epochs, Random};
use crate::restore::{save, stored};

#[derive(Debug, Clone, Copy)]
struct Case {
    emit: Emit,
    delay_ms: i64,
    keys: u64,
    gap_us: u64,
}

/// A session: its key, start and end, and how many rows, their sum and their minimum.
type Answer = (Option<i64>, i64, i64, i64, i64, i64);

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

fn bounds() -> Fields {
    Fields::from(vec![
        Field::new("start", time(), true),
        Field::new("end", time(), true),
    ])
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("at", time(), true),
        Field::new("w", DataType::Struct(bounds()), true),
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Int64, false),
    ]))
}

struct Row {
    at: i64,
    end: Option<i64>,
    key: Option<i64>,
    value: i64,
}

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let at = batch.column(0).as_primitive::<TimestampMicrosecondType>();
    let window = batch.column(1).as_struct();
    let end = window.column(1).as_primitive::<TimestampMicrosecondType>();
    let key = batch.column(2).as_primitive::<Int64Type>();
    let value = batch.column(3).as_primitive::<Int64Type>();
    let row = |row: usize| Row {
        at: at.value(row),
        end: window.is_valid(row).then(|| end.value(row)),
        key: key.is_valid(row).then(|| key.value(row)),
        value: value.value(row),
    };
    (0..batch.num_rows()).map(row).collect()
}

struct Answers {
    /// What each epoch puts out, with diffs.
    rows: Vec<Vec<(Answer, i64)>>,
    now_ms: Vec<i64>,
    after_ms: Vec<i64>,
}

impl Case {
    fn epochs(&self, random: &mut Random, count: usize) -> Epochs {
        let rows = (0..count).map(|epoch| {
            let rows = random.below(50) as usize;
            let (mut at, mut end, mut valid, mut key, mut value) =
                (vec![], vec![], vec![], vec![], vec![]);
            for _ in 0..rows {
                let spread = if random.chance(5) { 3_000_000 } else { 300_000 };
                let time = epoch as i64 * 90_000 + random.below(spread) as i64 - 150_000;
                // Whole hundreds, so that sessions touch now and then.
                let time = time / 100 * 100;
                let gap = match random.below(5) {
                    0 => self.gap_us * 4,
                    _ => self.gap_us,
                };
                at.push(time);
                end.push(time + gap as i64);
                valid.push(!random.chance(5));
                key.push((!random.chance(10)).then(|| random.below(self.keys) as i64));
                value.push(random.below(100) as i64);
            }
            let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(at));
            let end: ArrayRef = Arc::new(TimestampMicrosecondArray::from(end));
            let nulls = Some(NullBuffer::from(valid));
            let window = StructArray::new(bounds(), vec![Arc::clone(&at), end], nulls);
            let columns: Vec<ArrayRef> = vec![
                at,
                Arc::new(window),
                Arc::new(Int64Array::from(key)),
                Arc::new(Int64Array::from(value)),
            ];
            RecordBatch::try_new(schema(), columns).unwrap()
        });
        Epochs {
            rows: rows.collect(),
        }
    }

    fn sessions(&self) -> Sessions {
        let schema = schema();
        let functions = [count_udaf(), sum_udaf(), min_udaf()];
        let calls = functions.map(|function| {
            let v = vec![col("v", &schema).unwrap()];
            let name = function.name().to_string();
            let built = AggregateExprBuilder::new(function, v).schema(Arc::clone(&schema));
            AggregateCall {
                function: Arc::new(built.alias(name).build().unwrap()),
                filter: None,
            }
        });
        let fields = vec![
            schema.field(1).clone(),
            schema.field(2).clone(),
            Field::new("n", DataType::Int64, true),
            Field::new("s", DataType::Int64, true),
            Field::new("m", DataType::Int64, true),
        ];
        Sessions {
            name: "sessions".into(),
            keys: vec![col("k", &schema).unwrap()],
            window: col("w", &schema).unwrap(),
            place: 0,
            calls: calls.to_vec(),
            schema: Arc::new(Schema::new(fields)),
            emit: self.emit,
            event_time: true,
        }
    }

    /// Sessions are found again from scratch after every row.
    fn reference(&self, epochs: &Epochs) -> Answers {
        let mut answers = Answers {
            rows: Vec::new(),
            now_ms: Vec::new(),
            after_ms: Vec::new(),
        };
        let mut open: Vec<Answer> = Vec::new();
        let (mut largest_ms, mut before_ms) = (i64::MIN, 0);
        for rows in &epochs.rows {
            let now_ms = largest_ms.saturating_sub(self.delay_ms).max(before_ms);
            let earlier = open.clone();
            let mut touched = Vec::new();
            for row in rows_of(rows) {
                largest_ms = largest_ms.max(row.at.div_euclid(1000));
                let Some(end) = row.end else { continue };
                if self.emit != Emit::All && end <= before_ms * 1000 {
                    continue;
                }
                let mut session = (row.key, row.at, end, 1, row.value, row.value);
                touched.push((row.key, row.at));
                while let Some(other) = open
                    .iter()
                    .position(|o| o.0 == session.0 && o.1 <= session.2 && session.1 <= o.2)
                {
                    let other = open.remove(other);
                    session.1 = session.1.min(other.1);
                    session.2 = session.2.max(other.2);
                    session.3 += other.3;
                    session.4 += other.4;
                    session.5 = session.5.min(other.5);
                }
                open.push(session);
            }
            let closed = |session: &Answer| session.2 <= now_ms * 1000;
            let mut out: BTreeMap<Answer, i64> = BTreeMap::new();
            match self.emit {
                Emit::All => open.iter().for_each(|s| *out.entry(*s).or_default() += 1),
                Emit::Closed => {
                    let closed = open.iter().filter(|session| closed(session));
                    closed.for_each(|s| *out.entry(*s).or_default() += 1);
                }
                _ => {
                    open.iter().for_each(|s| *out.entry(*s).or_default() += 1);
                    earlier
                        .iter()
                        .for_each(|s| *out.entry(*s).or_default() -= 1);
                }
            }
            out.retain(|_, diff| *diff != 0);
            answers.rows.push(out.into_iter().collect());
            if self.emit != Emit::All {
                open.retain(|session| !closed(session));
            }
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
        let edge = Edge::plain(schema());
        let output = run(cluster, epochs, first, edge, seed, move |rows, failure| {
            let at = col("at", &schema()).unwrap();
            let [from_ms, before_ms] = from;
            let meters = Meters::default();
            let (rows, mark) = watermark(rows, at, case.delay_ms, from_ms, &meters, failure);
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
            let how = case.sessions();
            let mut rows = sessions(rows, how, Some(marks), state, deadlines, failure).rows;
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
        let epochs = Arc::new(self.epochs(&mut random, 14));
        let stop = random.below(12);
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
        let mut got: Vec<BTreeMap<Answer, i64>> = vec![BTreeMap::new(); epochs.rows.len()];
        for (epoch, batch) in output {
            let window = batch.column(0).as_struct();
            let bound = |index: usize| {
                window
                    .column(index)
                    .as_primitive::<TimestampMicrosecondType>()
            };
            let number = |index: usize| batch.column(index).as_primitive::<Int64Type>();
            for row in 0..batch.num_rows() {
                let key = number(1).is_valid(row).then(|| number(1).value(row));
                let answer = (
                    key,
                    bound(0).value(row),
                    bound(1).value(row),
                    number(2).value(row),
                    number(3).value(row),
                    number(4).value(row),
                );
                let diff = match self.emit {
                    Emit::Signed => number(5).value(row),
                    _ => 1,
                };
                *got[epoch as usize].entry(answer).or_default() += diff;
            }
        }
        for (epoch, wanted) in answers.rows.into_iter().enumerate() {
            got[epoch].retain(|_, diff| *diff != 0);
            let got: Vec<(Answer, i64)> = got[epoch].clone().into_iter().collect();
            let context =
                format!("{self:?}, {from:?} to {to:?} after {stop}, seed {seed}, epoch {epoch}");
            assert_eq!(got, wanted, "{context}");
        }
    }
}

#[test]
fn sessions_merge_and_close_as_the_watermark_passes() {
    for emit in [Emit::Closed, Emit::All, Emit::Signed] {
        for (index, from) in CLUSTERS.into_iter().enumerate() {
            for round in 0..3 {
                let case = Case {
                    emit,
                    delay_ms: [0, 70, 400][(index + round) % 3],
                    keys: [1, 5, 40][round],
                    gap_us: [3_000, 20_000, 100_000][(index + 2 * round) % 3],
                };
                let to = CLUSTERS[(index + round * 2) % CLUSTERS.len()];
                case.check(from, to, (index * 10 + round) as u64 + 900);
            }
        }
    }
}
