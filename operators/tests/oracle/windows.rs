//! Aggregation by event time against a few lines that do the same slowly: which groups are late, which close when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::col;
use highwater_operators::Edge;
use highwater_operators::aggregate::{
    AggregateCall, Aggregation, Emit, Panes, State, aggregate_with_state, needs_order,
};
use highwater_operators::arrangement::{Budget, Snapshot, Snapshots};
use highwater_operators::metrics::Meters;
use highwater_operators::watermark::{Policy, Watermarks, watermark};

use crate::cluster::{CLUSTERS, Cluster, Output, run, tiny_budget};
use crate::data::{Epochs, Random};
use crate::restore::{save, stored};

/// Windows, and how late rows may be, in microseconds.
#[derive(Debug, Clone, Copy)]
struct Case {
    width_us: i64,
    slide_us: i64,
    start_us: i64,
    delay_ms: i64,
    emit: Emit,
}

/// Nothing happens for that long.
const SILENCE_US: i64 = 3_600_000_000;

/// A group: the window's end (none for a row without a time) and the key.
type Group = (Option<i64>, Option<i64>);

/// Groups with their counts and sums.
type Answer = Vec<(Group, [i64; 2])>;

/// A run of some aggregation by event time.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) aggregation: Aggregation,
    pub(crate) schema: SchemaRef,
    pub(crate) delay_ms: i64,
    pub(crate) budget: Option<Arc<Budget>>,
    /// The first epoch, the watermark before it and its own.
    pub(crate) from: (usize, i64, i64),
    pub(crate) restore: Vec<Snapshot>,
    /// After which epoch snapshots are taken.
    pub(crate) stop: u64,
}

impl Run {
    /// What comes out, and the snapshots.
    pub(crate) fn go(
        self,
        cluster: Cluster,
        epochs: &Arc<Epochs>,
        seed: u64,
    ) -> (Output, Vec<Snapshot>) {
        let saved = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&saved);
        let mut calls = self.aggregation.calls.iter();
        let edge = Edge {
            ordered: calls.any(|call| needs_order(&call.function)),
            ..Edge::plain(Arc::clone(&self.schema))
        };
        let (first, before_ms, from_ms) = self.from;
        let output = run(cluster, epochs, first, edge, seed, move |rows, failure| {
            let at = col("at", &self.schema).unwrap();
            let meters = Meters::default();
            let (rows, mark) = watermark(rows, at, self.delay_ms, from_ms, &meters, failure);
            let marks = Some(Watermarks::new(vec![mark], Policy::Min, before_ms));
            let snapshots = Snapshots::default();
            snapshots.request(self.stop);
            let state = State {
                restore: self.restore.clone(),
                snapshots: snapshots.clone(),
                budget: self.budget.clone(),
                ..State::default()
            };
            let aggregation = self.aggregation.clone();
            let rows = aggregate_with_state(rows, aggregation, marks, state, failure).rows;
            save(rows, snapshots, self.stop, Arc::clone(&keep))
        });
        let saved = saved.lock().unwrap().clone();
        (output, saved)
    }
}

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    Arc::new(Schema::new(vec![
        Field::new("at", time.clone(), true),
        Field::new("pane", time, true),
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Int64, false),
    ]))
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Case {
    fn pane_us(&self) -> i64 {
        gcd(self.width_us, self.slide_us)
    }

    /// Rows whose times move on with the epochs, back and forth; some have none.
    fn epochs(&self, random: &mut Random, count: usize) -> Epochs {
        let pane = self.pane_us();
        let rows = (0..count).map(|epoch| {
            let rows = random.below(80) as usize;
            let mut columns: [Vec<Option<i64>>; 4] = Default::default();
            // There may be ages between two rows.
            let silence = if epoch > count / 2 { SILENCE_US } else { 0 };
            for _ in 0..rows {
                let spread = if random.chance(5) { 4_000_000 } else { 300_000 };
                let at = epoch as i64 * 90_000 + random.below(spread) as i64 - 150_000 + silence;
                let at = (!random.chance(5)).then_some(at);
                let end = at.map(|at| at - (at - self.start_us).rem_euclid(pane) + pane);
                columns[0].push(at);
                columns[1].push(end);
                columns[2].push((!random.chance(10)).then(|| random.below(6) as i64));
                columns[3].push(Some(random.below(100) as i64));
            }
            let [at, pane, k, v] = columns;
            let columns: Vec<ArrayRef> = vec![
                Arc::new(TimestampMicrosecondArray::from(at)),
                Arc::new(TimestampMicrosecondArray::from(pane)),
                Arc::new(Int64Array::from(k)),
                Arc::new(Int64Array::from_iter_values(v.into_iter().flatten())),
            ];
            RecordBatch::try_new(schema(), columns).unwrap()
        });
        Epochs {
            rows: rows.collect(),
        }
    }

    fn aggregation(&self) -> Aggregation {
        let schema = schema();
        let v = || vec![col("v", &schema).unwrap()];
        let calls = [(count_udaf(), "n"), (sum_udaf(), "s")].map(|(function, name)| {
            let built = AggregateExprBuilder::new(function, v()).schema(Arc::clone(&schema));
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
        ];
        Aggregation {
            name: "windows".into(),
            keys: ["pane", "k"]
                .map(|name| col(name, &schema).unwrap())
                .to_vec(),
            calls: calls.to_vec(),
            schema: Arc::new(Schema::new(fields)),
            emit: self.emit,
            event_time: true,
            panes: (self.width_us != self.slide_us).then(|| Panes {
                width_us: self.width_us,
                slide_us: self.slide_us,
                start_us: self.start_us,
                pane_us: self.pane_us(),
            }),
            gone: None,
        }
    }

    /// What each epoch puts out, and its watermark.
    fn reference(&self, epochs: &Epochs) -> (Vec<Answer>, Vec<i64>) {
        let mut state: BTreeMap<Group, [i64; 2]> = BTreeMap::new();
        let (mut largest_ms, mut before_ms) = (i64::MIN, 0);
        let (mut answers, mut marks) = (Vec::new(), Vec::new());
        for rows in &epochs.rows {
            let now_ms = largest_ms.saturating_sub(self.delay_ms).max(before_ms);
            let mut touched = BTreeSet::new();
            for row in 0..rows.num_rows() {
                let time = rows.column(0).as_primitive::<TimestampMicrosecondType>();
                let key = rows.column(2).as_primitive::<Int64Type>();
                let value = rows.column(3).as_primitive::<Int64Type>().value(row);
                let at = (!arrow::array::Array::is_null(time, row)).then(|| time.value(row));
                let key = (!arrow::array::Array::is_null(key, row)).then(|| key.value(row));
                for end in self.windows(at) {
                    if self.emit != Emit::All && end.is_some_and(|end| end <= before_ms * 1000) {
                        continue;
                    }
                    let group = state.entry((end, key)).or_default();
                    group[0] += 1;
                    group[1] += value;
                    touched.insert((end, key));
                }
                largest_ms = largest_ms.max(at.map_or(i64::MIN, |at| at.div_euclid(1000)));
            }
            let closed = |group: &Group| group.0.is_some_and(|end| end <= now_ms * 1000);
            answers.push(
                state
                    .iter()
                    .filter(|(group, _)| match self.emit {
                        // Every row changes its group's count.
                        Emit::Changed | Emit::Signed => touched.contains(*group),
                        Emit::Closed => closed(group),
                        Emit::All => true,
                    })
                    .map(|(group, values)| (*group, *values))
                    .collect(),
            );
            if self.emit != Emit::All {
                state.retain(|group, _| !closed(group));
            }
            before_ms = now_ms;
            marks.push(now_ms);
        }
        (answers, marks)
    }

    fn windows(&self, at: Option<i64>) -> Vec<Option<i64>> {
        let Some(at) = at else { return vec![None] };
        let last = at - (at - self.start_us).rem_euclid(self.slide_us);
        let starts = (0..).map(|back| last - back * self.slide_us);
        starts
            .take_while(|start| start + self.width_us > at)
            .map(|start| Some(start + self.width_us))
            .collect()
    }

    /// Runs `from` up to a random epoch and `to` from there on.
    #[track_caller]
    fn check(&self, from: Cluster, to: Cluster, seed: u64) {
        let mut random = Random::new(seed);
        let epochs = Arc::new(self.epochs(&mut random, 25));
        let (expected, marks) = self.reference(&epochs);
        let stop = random.below(24);
        let next = stop as usize + 1;
        let first = Run {
            aggregation: self.aggregation(),
            schema: schema(),
            delay_ms: self.delay_ms,
            budget: tiny_budget(seed),
            from: (0, 0, 0),
            restore: Vec::new(),
            stop,
        };
        let (before, saved) = first.clone().go(from, &epochs, seed);
        let second = Run {
            budget: tiny_budget(seed + 1),
            from: (next, marks[stop as usize], marks[next]),
            restore: saved.iter().map(stored).collect(),
            stop: u64::MAX,
            ..first
        };
        let (after, _) = second.go(to, &epochs, seed + 1);
        let before = before.unwrap();
        let all = before.iter().map(|(epoch, rows)| (*epoch, rows, false));
        let after = after.unwrap();
        let later = after.iter().map(|(epoch, rows)| (*epoch, rows, true));
        let mut whole: Vec<Answer> = vec![Vec::new(); epochs.rows.len()];
        let mut again: Vec<Answer> = whole.clone();
        for (epoch, rows, restarted) in all.chain(later) {
            let got = &mut if restarted { &mut again } else { &mut whole }[epoch as usize];
            for row in 0..rows.num_rows() {
                let end = rows.column(0).as_primitive::<TimestampMicrosecondType>();
                let end = arrow::array::Array::is_valid(end, row).then(|| end.value(row));
                let of = |column: usize| {
                    let column = rows.column(column).as_primitive::<Int64Type>();
                    arrow::array::Array::is_valid(column, row).then(|| column.value(row))
                };
                let values = [of(2).unwrap(), of(3).unwrap()];
                got.push(((end, of(1)), values));
            }
        }
        for (epoch, expected) in expected.into_iter().enumerate() {
            let context =
                format!("{self:?}, {from:?} to {to:?} after {stop}, seed {seed}, epoch {epoch}");
            whole[epoch].sort();
            assert_eq!(whole[epoch], expected, "{context}");
            again[epoch].sort();
            let wanted = if epoch < next { Vec::new() } else { expected };
            assert_eq!(again[epoch], wanted, "{context}, restarted");
        }
    }
}

#[test]
fn windows_close_as_the_watermark_passes() {
    let grids = [
        (100_000, 100_000, 0),
        (100_000, 100_000, 30_000),
        (200_000, 50_000, 0),
        (200_000, 80_000, -10_000),
        (600_000, 10_000, 0),
        (600_000, 40_000, -7_000),
        (700_000, 300_000, 5_000),
    ];
    for (seed, (width_us, slide_us, start_us)) in grids.into_iter().enumerate() {
        for emit in [Emit::Closed, Emit::Changed, Emit::All] {
            for (index, cluster) in CLUSTERS.into_iter().enumerate() {
                let case = Case {
                    width_us,
                    slide_us,
                    start_us,
                    delay_ms: [0, 70, 1_000][index % 3],
                    emit,
                };
                let to = CLUSTERS[(index + seed) % CLUSTERS.len()];
                case.check(cluster, to, (seed * 10 + index) as u64);
            }
        }
    }
}
