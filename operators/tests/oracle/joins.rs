//! Joins of two streams against a nested loop over all rows so far: every kind, with and without keys, conditions and
//! watermarks, over rows that stay and rows that leave again, and with a stop in the middle.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use datafusion::logical_expr::Operator as Op;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{binary, cast, col, lit};
use highwater_operators::aggregate::State;
use highwater_operators::arrangement::{Snapshot, Snapshots};
use highwater_operators::join::{JoinKey, JoinKind, StreamJoin, Times, join_streams};
use highwater_operators::metrics::{Meters, OperatorMeter};
use highwater_operators::stage::{Step, stage};
use highwater_operators::update::DIFF;
use highwater_operators::watermark::{Policy, Watermarks, watermark};
use highwater_operators::{BatchBuilder, Edge, Rows};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use crate::cluster::{Cluster, run, tiny_budget};
use crate::data::{Epochs, Random};

const KINDS: [JoinKind; 6] = [
    JoinKind::Inner,
    JoinKind::Left,
    JoinKind::Right,
    JoinKind::Full,
    JoinKind::LeftSemi,
    JoinKind::LeftAnti,
];

/// The right time is so much later than the left one, in microseconds.
const RANGE_US: (i64, i64) = (-4_000_000, 9_000_000);
const CLOSED_US: i64 = 1_000;

fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

/// Rows of both sides as one stream.
fn mixed() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("side", DataType::Int64, false),
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Int64, true),
        Field::new("t", time_type(), true),
        Field::new(DIFF, DataType::Int64, false),
    ]))
}

fn side_schema(side: usize) -> SchemaRef {
    let name = |name: &str| format!("{}{name}", ["l", "r"][side]);
    Arc::new(Schema::new(vec![
        Field::new(name("k"), DataType::Int64, true),
        Field::new(name("v"), DataType::Int64, true),
        Field::new(name("t"), time_type(), true),
    ]))
}

type Row = [Option<i64>; 3];

#[derive(Debug, Clone, Copy)]
struct Change {
    side: usize,
    row: Row,
    diff: i64,
}

/// Which join, over what.
#[derive(Debug, Clone, Copy)]
struct Case {
    kind: JoinKind,
    key: bool,
    null_safe: bool,
    range: bool,
    condition: bool,
    eligible: bool,
    watermarks: bool,
    signed: bool,
    is_final: bool,
}

impl Case {
    fn is_pair(&self, left: &Row, right: &Row) -> bool {
        let equal = left[0] == right[0] && (self.null_safe || left[0].is_some());
        let near = match (left[2], right[2]) {
            (Some(l), Some(r)) => (RANGE_US.0..=RANGE_US.1).contains(&(r - l)),
            _ => false,
        };
        let less = matches!((left[1], right[1]), (Some(l), Some(r)) if l < r);
        (!self.key || equal)
            && (!self.range || near)
            && (!self.condition || less)
            && (self.is_eligible(0, left) && self.is_eligible(1, right))
    }

    fn is_eligible(&self, _side: usize, row: &Row) -> bool {
        !self.eligible || row[1].is_some_and(|v| v > 3)
    }

    /// False for a row that comes out alone at once.
    fn can_wait(&self, side: usize, row: &Row) -> bool {
        let has_key = !self.key || self.null_safe || row[0].is_some();
        self.is_eligible(side, row) && (has_key || self.kind != JoinKind::LeftAnti)
    }

    /// What must have come out after some epochs with these rows on time; `now_us` is the watermark.
    fn answer(
        &self,
        rows: &[BTreeMap<Row, i64>; 2],
        now_us: i64,
    ) -> BTreeMap<Vec<Option<i64>>, i64> {
        let mut answer = BTreeMap::new();
        let pairs = !matches!(self.kind, JoinKind::LeftSemi | JoinKind::LeftAnti);
        let mut partners = [BTreeMap::<Row, i64>::new(), BTreeMap::new()];
        for (left, l) in &rows[0] {
            for (right, r) in rows[1]
                .iter()
                .filter(|(right, _)| self.is_pair(left, right))
            {
                *partners[0].entry(*left).or_default() += r;
                *partners[1].entry(*right).or_default() += l;
                if pairs {
                    *answer.entry([&left[..], &right[..]].concat()).or_default() += l * r;
                }
            }
        }
        for side in 0..2 {
            let semi = self.kind == JoinKind::LeftSemi && side == 0;
            for (row, count) in &rows[side] {
                let found = partners[side].get(row).is_some_and(|n| *n > 0);
                let more = [RANGE_US.1, -RANGE_US.0][side] + CLOSED_US;
                let due = row[2].is_some_and(|t| t + more <= now_us);
                let comes = match semi {
                    true => found,
                    false if !self.kind.keeps(side) || found => false,
                    false => !self.is_final || due || !self.can_wait(side, row),
                };
                if comes {
                    let nulls = [None; 3];
                    let wide = match (pairs, side) {
                        (false, _) => row.to_vec(),
                        (true, 0) => [&row[..], &nulls].concat(),
                        (true, _) => [&nulls, &row[..]].concat(),
                    };
                    *answer.entry(wide).or_default() += count;
                }
            }
        }
        answer.retain(|_, count| *count != 0);
        answer
    }

    fn join(&self) -> StreamJoin {
        let (left, right) = (side_schema(0), side_schema(1));
        let fields: Vec<_> = left
            .fields()
            .iter()
            .chain(right.fields())
            .cloned()
            .collect();
        let both: SchemaRef = Arc::new(Schema::new(fields));
        let column = |name: &str| col(name, &both).unwrap();
        let mut parts: Vec<Arc<dyn PhysicalExpr>> = Vec::new();
        let number = |name: &str| cast(column(name), &both, DataType::Int64).unwrap();
        if self.range {
            let lower = binary(number("lt"), Op::Plus, lit(RANGE_US.0), &both).unwrap();
            let upper = binary(number("lt"), Op::Plus, lit(RANGE_US.1), &both).unwrap();
            parts.push(binary(number("rt"), Op::GtEq, lower, &both).unwrap());
            parts.push(binary(number("rt"), Op::LtEq, upper, &both).unwrap());
        }
        if self.condition {
            parts.push(binary(column("lv"), Op::Lt, column("rv"), &both).unwrap());
        }
        let all = |a, b| binary(a, Op::And, b, &both).unwrap();
        let key = JoinKey {
            left: col("lk", &left).unwrap(),
            right: col("rk", &right).unwrap(),
            null_safe: self.null_safe,
        };
        let times = [("lt", &left), ("rt", &right)].map(|(name, schema)| {
            let time = col(name, schema).unwrap();
            let own = if name == "lt" {
                RANGE_US.1
            } else {
                -RANGE_US.0
            } + CLOSED_US;
            let both = RANGE_US.1 - RANGE_US.0 + 2 * CLOSED_US;
            let more = if self.is_final { own } else { own.max(both) };
            Times {
                late: self.watermarks.then(|| Arc::clone(&time)),
                last_match: (self.watermarks && self.range).then_some((time, more)),
                late_key: None,
            }
        });
        let eligible = [("lv", &left), ("rv", &right)].map(|(name, schema)| {
            let more = binary(col(name, schema).unwrap(), Op::Gt, lit(3_i64), schema);
            self.eligible.then(|| more.unwrap())
        });
        let pairs = !matches!(self.kind, JoinKind::LeftSemi | JoinKind::LeftAnti);
        StreamJoin {
            name: "join-0".into(),
            kind: self.kind,
            keys: self.key.then_some(key).into_iter().collect(),
            eligible,
            condition: parts.into_iter().reduce(all),
            schema: if pairs { Arc::clone(&both) } else { left },
            both,
            times,
            is_final: self.is_final,
        }
    }
}

/// Random changes by epoch. Event times move on with the epochs, some late, some far ahead.
fn changes(random: &mut Random, signed: bool) -> Vec<Vec<Change>> {
    let mut standing: Vec<Change> = Vec::new();
    let mut epochs = Vec::new();
    for epoch in 0..7_i64 {
        let mut changes = Vec::new();
        let count = if random.chance(15) {
            0
        } else {
            random.below(40)
        };
        for _ in 0..count {
            if signed && !standing.is_empty() && random.chance(35) {
                let gone = standing.swap_remove(random.below(standing.len() as u64) as usize);
                changes.push(Change {
                    diff: -gone.diff,
                    ..gone
                });
                continue;
            }
            let mut value = |n: u64| (!random.chance(8)).then(|| random.below(n) as i64);
            let row = [value(6), value(12), value(30_000)];
            let late = random.chance(10);
            let time = |t: i64| (t + epoch * 6_000 - if late { 20_000 } else { 0 }).max(0) * 1_000;
            let change = Change {
                side: random.below(2) as usize,
                row: [row[0], row[1], row[2].map(time)],
                diff: if signed {
                    random.below(2) as i64 + 1
                } else {
                    1
                },
            };
            changes.push(change);
            standing.push(change);
        }
        epochs.push(changes);
    }
    epochs
}

fn batch(changes: &[Change]) -> RecordBatch {
    let column = |index: usize| Int64Array::from_iter(changes.iter().map(|c| c.row[index]));
    let times = TimestampMicrosecondArray::from_iter(changes.iter().map(|c| c.row[2]));
    let sides = Int64Array::from_iter_values(changes.iter().map(|c| c.side as i64));
    let diffs = Int64Array::from_iter_values(changes.iter().map(|c| c.diff));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(sides),
        Arc::new(column(0)),
        Arc::new(column(1)),
        Arc::new(times),
        Arc::new(diffs),
    ];
    RecordBatch::try_new(mixed(), columns).unwrap()
}

fn cells(rows: &RecordBatch, width: usize) -> Vec<(Vec<Option<i64>>, i64)> {
    let number = |column: &ArrayRef, row: usize| {
        let column = arrow::compute::cast(column, &DataType::Int64).unwrap();
        let column = column.as_primitive::<Int64Type>();
        column.is_valid(row).then(|| column.value(row))
    };
    let row = |row: usize| {
        let cells = rows.columns()[..width].iter().map(|c| number(c, row));
        let diff = rows
            .columns()
            .get(width)
            .map_or(Some(1), |c| number(c, row));
        (cells.collect(), diff.unwrap())
    };
    (0..rows.num_rows()).map(row).collect()
}

/// Each side's mark after each epoch, in milliseconds.
fn marks(epochs: &[Vec<Change>], on: bool) -> Vec<[i64; 2]> {
    let mut marks = [0, 0];
    let mut all = Vec::new();
    for changes in epochs {
        for change in changes.iter().filter(|_| on) {
            if let Some(time) = change.row[2] {
                marks[change.side] = marks[change.side].max(time / 1_000);
            }
        }
        all.push(marks);
    }
    all
}

fn one_side<'s>(
    rows: &Rows<'s>,
    side: usize,
    signed: bool,
    failure: &highwater_operators::Failure,
) -> Rows<'s> {
    let schema = mixed();
    let is_side = binary(
        col("side", &schema).unwrap(),
        Op::Eq,
        lit(side as i64),
        &schema,
    )
    .unwrap();
    let mut fields: Vec<_> = side_schema(side).fields().to_vec();
    let mut names = vec!["k", "v", "t"];
    if signed {
        fields.push(Arc::new(Field::new(DIFF, DataType::Int64, false)));
        names.push(DIFF);
    }
    let exprs = names
        .iter()
        .map(|name| col(name, &schema).unwrap())
        .collect();
    let steps = vec![
        Step::Filter(is_side),
        Step::Project {
            exprs,
            schema: Arc::new(Schema::new(fields)),
        },
    ];
    let rows = stage(rows.clone(), "Side", steps, failure);
    Rows {
        stream: rows.stream,
        edge: Edge {
            signed,
            ..Edge::plain(side_schema(side))
        },
    }
}

type Saved = BTreeMap<String, Vec<Snapshot>>;

/// Runs `case` from epoch `first` on; what comes out, and the snapshots after `stop`.
fn play(
    case: Case,
    changes: &[Vec<Change>],
    cluster: Cluster,
    (first, stop, restore): (usize, u64, Saved),
    seed: u64,
) -> (Vec<(u64, RecordBatch)>, Saved) {
    let epochs = Arc::new(Epochs {
        rows: changes.iter().map(|changes| batch(changes)).collect(),
    });
    let marks = marks(changes, case.watermarks);
    let from = first.checked_sub(1).map_or([0, 0], |epoch| marks[epoch]);
    let before = first.checked_sub(2).map_or([0, 0], |epoch| marks[epoch]);
    let before_ms = before[0].min(before[1]);
    let saved: Arc<Mutex<Saved>> = Arc::default();
    let keep = Arc::clone(&saved);
    let budget = tiny_budget(seed);
    let edge = Edge::plain(mixed());
    let output = run(cluster, &epochs, first, edge, seed, move |rows, failure| {
        let meters = Meters::default();
        let sides = [0, 1].map(|side| one_side(&rows, side, case.signed, failure));
        let mut followed = Vec::new();
        let sides = sides
            .into_iter()
            .zip(from)
            .enumerate()
            .map(|(side, (rows, from))| {
                if !case.watermarks {
                    return rows;
                }
                let at = col(["lt", "rt"][side], &side_schema(side)).unwrap();
                let (rows, mark) = watermark(rows, at, 0, from, &meters, failure);
                followed.push(mark);
                rows
            });
        let sides: Vec<Rows<'_>> = sides.collect();
        let [left, right] = <[Rows<'_>; 2]>::try_from(sides).ok().unwrap();
        let watermarks = case
            .watermarks
            .then(|| Watermarks::new(followed, Policy::Min, before_ms));
        let joined = join_streams(
            [left, right],
            case.join(),
            watermarks,
            |name| {
                let snapshots = Snapshots::default();
                snapshots.request(stop);
                State {
                    start: first as u64,
                    restore: restore.get(name).cloned().unwrap_or_default(),
                    snapshots,
                    budget: budget.clone(),
                    ..State::default()
                }
            },
            OperatorMeter::default(),
            failure,
        );
        let (states, keep) = (joined.states, Arc::clone(&keep));
        let stream = joined.rows.stream.unary_frontier::<BatchBuilder, _, _, _>(
            Pipeline,
            "Save",
            move |_, _| {
                move |(input, frontier), output| {
                    input.for_each(|capability, batch| {
                        output
                            .session_with_builder(&capability)
                            .give_container(batch);
                    });
                    for state in states.iter().filter(|_| !frontier.less_equal(&stop)) {
                        if let Some(snapshot) = state.snapshots.take(stop) {
                            let mut keep = keep.lock().unwrap();
                            keep.entry(state.name.clone()).or_default().push(snapshot);
                        }
                    }
                }
            },
        );
        Rows {
            stream,
            edge: joined.rows.edge,
        }
    });
    let saved = saved.lock().unwrap().clone();
    (output.unwrap_or_else(|e| panic!("{case:?}: {e}")), saved)
}

fn check(case: Case, seed: u64) {
    let mut random = Random::new(seed);
    let changes = changes(&mut random, case.signed);
    let clusters = [Cluster::Threads(1), Cluster::Threads(2), Cluster::Bytes(3)];
    let pick = |random: &mut Random| clusters[random.below(3) as usize];
    let stop = random.below(changes.len() as u64 - 1);
    let whole = random.chance(40);
    let (mut output, saved) = play(
        case,
        &changes[..if whole {
            changes.len()
        } else {
            stop as usize + 1
        }],
        pick(&mut random),
        (0, stop, Saved::new()),
        seed,
    );
    if !whole {
        let again = (stop as usize + 1, u64::MAX - 1, saved);
        output.extend(play(case, &changes, pick(&mut random), again, seed + 1).0);
    }
    let width = case.join().schema.fields().len();
    let marks = marks(&changes, case.watermarks);
    let mut rows = [BTreeMap::<Row, i64>::new(), BTreeMap::new()];
    let mut got: BTreeMap<Vec<Option<i64>>, i64> = BTreeMap::new();
    let mut before_us = 0;
    for (epoch, changes) in changes.iter().enumerate() {
        // The watermark of an epoch is what the ones before it say.
        let mark = epoch.checked_sub(1).map_or([0, 0], |epoch| marks[epoch]);
        let now_us = mark[0].min(mark[1]) * 1_000;
        for change in changes {
            let late = case.watermarks && change.row[2].is_some_and(|t| t <= before_us);
            if !late {
                let count = rows[change.side].entry(change.row).or_default();
                *count += change.diff;
                if *count == 0 {
                    rows[change.side].remove(&change.row);
                }
            }
        }
        for (_, batch) in output.iter().filter(|(e, _)| *e == epoch as u64) {
            for (row, diff) in cells(batch, width) {
                *got.entry(row).or_default() += diff;
            }
        }
        got.retain(|_, count| *count != 0);
        let wanted = case.answer(&rows, now_us);
        assert_eq!(
            got, wanted,
            "{case:?}, seed {seed}, epoch {epoch}, stop {stop} {whole}"
        );
        before_us = now_us;
    }
}

fn case(random: &mut Random, kind: JoinKind) -> Case {
    let key = random.chance(75);
    Case {
        kind,
        key,
        null_safe: random.chance(25),
        range: random.chance(60),
        condition: random.chance(40),
        eligible: random.chance(30),
        watermarks: random.chance(60),
        signed: false,
        is_final: false,
    }
}

fn cases(seed: u64, count: u64, change: impl Fn(Case) -> Case) {
    for number in 0..count {
        let seed = seed + number * 7;
        let kind = KINDS[number as usize % KINDS.len()];
        check(change(case(&mut Random::new(seed), kind)), seed);
    }
}

#[test]
fn final_rows_of_a_range_join_come_when_the_watermark_says_so() {
    cases(1_000, 90, |case| Case {
        range: true,
        watermarks: true,
        is_final: true,
        ..case
    });
}

#[test]
fn pairs_of_rows_that_stay_are_final_without_a_watermark() {
    cases(20_000, 40, |case| Case {
        kind: match case.kind.keeps(0) || case.kind.keeps(1) {
            true => JoinKind::Inner,
            false => case.kind,
        },
        is_final: true,
        ..case
    });
}

#[test]
fn what_came_out_alone_leaves_when_it_finds_a_partner() {
    cases(40_000, 90, |case| case);
}

#[test]
fn what_leaves_the_inputs_leaves_the_output() {
    cases(60_000, 120, |case| Case {
        signed: true,
        ..case
    });
}
