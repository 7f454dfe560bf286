//! Windows that overlap, put together of panes, against the same windows over rows that stand once for each of them:
//! for functions of all kinds, and to the last bit the same after a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
    StructArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{
    DataType, Field, Fields, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use datafusion::functions_aggregate::approx_distinct::approx_distinct_udaf;
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::functions_aggregate::bool_and_or::bool_and_udaf;
use datafusion::functions_aggregate::correlation::corr_udaf;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::first_last::{first_value_udaf, last_value_udaf};
use datafusion::functions_aggregate::median::median_udaf;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::nth_value::nth_value_udaf;
use datafusion::functions_aggregate::stddev::stddev_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{col, lit};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::scalar::ScalarValue;

use highwater_operators::aggregate::{AggregateCall, Aggregation, Emit, Panes};
use highwater_operators::exact::{exact_avg, exact_sum, moments};
use highwater_operators::update::DIFF;
use highwater_query::{Rank, ranks};

use crate::cluster::{CLUSTERS, Cluster, tiny_budget};
use crate::data::{Epochs, Random};
use crate::reference::{CLOSE, Cell};
use crate::restore::stored;
use crate::windows::Run;

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        field("at", time.clone()),
        field("end", time),
        field("k", DataType::Utf8),
        field("v", DataType::Int64),
        field("x", DataType::Float64),
        field("y", DataType::Float64),
        field("s", DataType::Utf8),
        field("b", DataType::Boolean),
        field("d", DataType::Decimal128(20, 2)),
        field("f", DataType::Float64),
        field("w", DataType::Struct(weighed())),
    ]))
}

/// A number and how often it is there.
fn weighed() -> Fields {
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    let fields = [
        field("value", DataType::Float64),
        field("times", DataType::Int64),
    ];
    fields.into_iter().collect()
}

const PANE_US: i64 = 10_000;

/// Rows whose times move on with the epochs; some are behind.
fn epochs(random: &mut Random, count: usize, rows_max: u64, keys: u64) -> Epochs {
    let rows = (0..count).map(|epoch| {
        let rows = random.below(rows_max) as usize;
        let at = |random: &mut Random| {
            let back = if random.chance(10) { 250_000 } else { 20_000 };
            epoch as i64 * 30_000 - random.below(back) as i64
        };
        let ats: Vec<i64> = (0..rows).map(|_| at(random)).collect();
        let ends = ats
            .iter()
            .map(|at| at.div_euclid(PANE_US) * PANE_US + PANE_US);
        let mut maybe = |percent: u64, below: u64| {
            let values = (0..rows).map(|_| {
                let value = random.below(below) as i64;
                (!random.chance(percent)).then_some(value)
            });
            values.collect::<Vec<Option<i64>>>()
        };
        let text = |values: Vec<Option<i64>>| -> ArrayRef {
            let values = values
                .into_iter()
                .map(|v| v.map(|v| format!("a word, no {v}")));
            Arc::new(StringArray::from_iter(values))
        };
        let float = |values: Vec<Option<i64>>| -> ArrayRef {
            let values = values.into_iter().map(|v| v.map(|v| v as f64 / 7.0 - 90.0));
            Arc::new(Float64Array::from_iter(values))
        };
        let decimal = |values: Vec<Option<i64>>| -> ArrayRef {
            let values = values.into_iter().map(|v| v.map(i128::from));
            let values = Decimal128Array::from_iter(values);
            Arc::new(values.with_precision_and_scale(20, 2).unwrap())
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMicrosecondArray::from_iter_values(
                ats.iter().copied(),
            )),
            Arc::new(TimestampMicrosecondArray::from_iter_values(ends)),
            text(maybe(5, keys)),
            Arc::new(Int64Array::from(maybe(60, 1000))),
            float(maybe(20, 10_000)),
            float(maybe(20, 10_000)),
            text(maybe(50, 50)),
            Arc::new(arrow::array::BooleanArray::from_iter(
                maybe(50, 4).into_iter().map(|v| v.map(|v| v > 0)),
            )),
            decimal(maybe(20, 60)),
            Arc::new(Float64Array::from_iter(
                maybe(20, 40).into_iter().map(|v| v.map(odd)),
            )),
        ];
        let columns = [columns, vec![weighed_of(maybe(20, 90), maybe(20, 4))]].concat();
        RecordBatch::try_new(schema(), columns).unwrap()
    });
    Epochs {
        rows: rows.collect(),
    }
}

fn weighed_of(values: Vec<Option<i64>>, times: Vec<Option<i64>>) -> ArrayRef {
    let values = values.into_iter().map(|v| v.map(|v| v as f64 / 7.0));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Float64Array::from_iter(values)),
        Arc::new(Int64Array::from(times)),
    ];
    Arc::new(StructArray::try_new(weighed(), columns, None).unwrap())
}

/// Numbers that sums have trouble with.
fn odd(number: i64) -> f64 {
    match number {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => -0.0,
        3 => 0.0,
        4 => f64::MAX,
        5 => f64::MIN,
        6 => 1e300,
        7 => 1e-300,
        8..20 => (number as f64) * 1e17,
        _ => (number as f64) / 10.0,
    }
}

/// The rows once for each window that they are in, by the window's end.
fn exploded(epochs: &Epochs, panes: Panes) -> Epochs {
    let explode = |rows: &RecordBatch| {
        let (mut numbers, mut ends) = (Vec::new(), Vec::new());
        let ats = rows.column(0).as_primitive::<TimestampMicrosecondType>();
        for (row, at) in ats.values().iter().enumerate() {
            let last = at - (at - panes.start_us).rem_euclid(panes.slide_us);
            let starts = (0..).map(|back| last - back * panes.slide_us);
            for start in starts.take_while(|start| start + panes.width_us > *at) {
                numbers.push(row as u32);
                ends.push(start + panes.width_us);
            }
        }
        let rows = take_record_batch(rows, &UInt32Array::from(numbers)).unwrap();
        let mut columns = rows.columns().to_vec();
        columns[1] = Arc::new(TimestampMicrosecondArray::from(ends));
        RecordBatch::try_new(schema(), columns).unwrap()
    };
    Epochs {
        rows: epochs.rows.iter().map(explode).collect(),
    }
}

/// What is kept of the rows of a group.
#[derive(Debug, Clone, Copy, PartialEq)]
enum States {
    /// A few numbers.
    Small,
    /// Sets of values, which come and go.
    Sets,
    /// Values that stay sorted while they come and go.
    Ranks,
    /// Some of each, and some that are put together anew for each window.
    All,
    /// Functions that take their rows in order, among others.
    Ordered,
    /// A few numbers, also of rows in order, beside values that come and go.
    Mixed,
}

fn calls(states: States) -> Vec<AggregateCall> {
    let schema = schema();
    let call = |function: Arc<AggregateUDF>, columns: &[&str], distinct: bool| {
        let arguments = columns.iter().map(|name| col(name, &schema).unwrap());
        let built = AggregateExprBuilder::new(function, arguments.collect());
        let built = built.schema(Arc::clone(&schema)).alias("call");
        AggregateCall {
            function: Arc::new(built.with_distinct(distinct).build().unwrap()),
            filter: None,
        }
    };
    let exact = |name: &str| moments().into_iter().find(|f| f.name() == name).unwrap();
    let mut calls = Vec::new();
    if !matches!(states, States::Sets | States::Ranks) {
        calls.extend([
            call(count_udaf(), &["v"], false),
            call(sum_udaf(), &["v"], false),
            call(exact_sum(), &["x"], false),
            call(exact_avg(), &["y"], false),
            call(exact("exact_corr"), &["x", "y"], false),
            call(exact("exact_kurtosis"), &["x"], false),
            call(min_udaf(), &["s"], false),
            call(max_udaf(), &["x"], false),
            call(bool_and_udaf(), &["b"], false),
            call(approx_distinct_udaf(), &["v"], false),
        ]);
    }
    if states == States::Mixed {
        calls.extend([
            call(first_value_udaf(), &["v"], false),
            call(last_value_udaf(), &["s"], false),
            call(count_udaf(), &["s"], true),
            call(exact_sum(), &["x"], true),
            call(ranks(vec![Rank::Mode { greatest: true }]), &["v"], false),
        ]);
    }
    if states == States::Ordered {
        let sorted = |function: Arc<AggregateUDF>, value: &str, by: &str| {
            let column = vec![col(value, &schema).unwrap()];
            let by = PhysicalSortExpr {
                expr: col(by, &schema).unwrap(),
                options: Default::default(),
            };
            let built = AggregateExprBuilder::new(function, column).order_by(vec![by]);
            let built = built.schema(Arc::clone(&schema)).alias("call").build();
            AggregateCall {
                function: Arc::new(built.unwrap()),
                filter: None,
            }
        };
        let number = |n: i64| -> Arc<dyn PhysicalExpr> { lit(n) };
        let nth = vec![col("v", &schema).unwrap(), number(2)];
        let nth = AggregateExprBuilder::new(nth_value_udaf(), nth);
        let nth = nth.schema(Arc::clone(&schema)).alias("call").build();
        calls.extend([
            call(first_value_udaf(), &["v"], false),
            call(first_value_udaf(), &["s"], false),
            call(last_value_udaf(), &["x"], false),
            call(last_value_udaf(), &["s"], false),
            AggregateCall {
                function: Arc::new(nth.unwrap()),
                filter: None,
            },
            call(array_agg_udaf(), &["v"], false),
            sorted(array_agg_udaf(), "s", "s"),
            sorted(first_value_udaf(), "x", "x"),
            sorted(last_value_udaf(), "y", "y"),
            call(count_udaf(), &["s"], true),
            call(median_udaf(), &["x"], false),
        ]);
    }
    if states == States::Small {
        calls.extend([
            call(stddev_udaf(), &["x"], false),
            call(corr_udaf(), &["x", "y"], false),
        ]);
    }
    if matches!(states, States::Sets | States::All) {
        let columns = ["v", "x", "s", "b", "d", "at"];
        calls.extend(columns.map(|column| call(count_udaf(), &[column], true)));
        let lists = ["v", "s", "d"].map(|column| call(array_agg_udaf(), &[column], true));
        calls.extend(lists);
        calls.extend(["x", "f"].map(|column| call(exact_sum(), &[column], true)));
        calls.extend(["x", "f"].map(|column| call(exact_avg(), &[column], true)));
        calls.push(call(sum_udaf(), &["v"], true));
        let some = AggregateCall {
            filter: Some(col("b", &schema).unwrap()),
            ..call(count_udaf(), &["v"], true)
        };
        calls.push(some);
    }
    if matches!(states, States::Ranks | States::All) {
        let percentiles = |at: &[f64], descending: bool, continuous: bool| Rank::Percentiles {
            at: at.to_vec(),
            array: at.len() > 1,
            descending,
            continuous,
        };
        let values = |at: &[f64]| Rank::Values {
            at: at.to_vec(),
            array: at.len() > 1,
        };
        let mode = |greatest: bool| Rank::Mode { greatest };
        let distinct = [false, true].into_iter();
        for distinct in distinct.take(if states == States::Ranks { 2 } else { 1 }) {
            let numbers = vec![
                percentiles(&[0.5], false, true),
                percentiles(&[0.0, 0.25, 1.0], false, true),
                percentiles(&[0.3], true, false),
                mode(false),
                mode(true),
            ];
            let all = vec![values(&[0.5]), values(&[0.1, 0.9]), mode(false), mode(true)];
            let weighed = vec![percentiles(&[0.1, 0.5], false, true)];
            let rank = |asked: &Vec<Rank>, column| call(ranks(asked.clone()), &[column], distinct);
            calls.extend(["x", "f"].map(|column| rank(&numbers, column)));
            calls.extend(["v", "s", "d", "b", "at"].map(|column| rank(&all, column)));
            calls.push(rank(&weighed, "w"));
        }
        calls.push(AggregateCall {
            filter: Some(col("b", &schema).unwrap()),
            ..call(ranks(vec![mode(false)]), &["v"], false)
        });
    }
    if states == States::All {
        calls.push(call(sum_udaf(), &["d"], true));
        calls.push(call(exact("exact_stddev_samp"), &["x"], true));
        calls.insert(3, call(median_udaf(), &["x"], false));
        calls.push(call(median_udaf(), &["v"], true));
    }
    calls
}

fn aggregation(emit: Emit, panes: Option<Panes>, calls: Vec<AggregateCall>) -> Aggregation {
    let schema = schema();
    let mut fields = vec![schema.field(1).clone(), schema.field(2).clone()];
    for (index, call) in calls.iter().enumerate() {
        let data_type = call.function.field().data_type().clone();
        fields.push(Field::new(format!("call{index}"), data_type, true));
    }
    Aggregation {
        name: "sliding".into(),
        keys: ["end", "k"]
            .map(|name| col(name, &schema).unwrap())
            .to_vec(),
        calls,
        schema: Arc::new(Schema::new(fields)),
        emit,
        event_time: true,
        panes,
        gone: None,
    }
}

/// The rows of each epoch by their keys: the cells, and all bits of them.
type Answers = Vec<BTreeMap<String, Vec<(Cell, String)>>>;

fn answers(output: &[(u64, RecordBatch)], epochs: usize) -> Answers {
    let mut answers = vec![BTreeMap::new(); epochs];
    for (epoch, rows) in output {
        for row in 0..rows.num_rows() {
            let cell = |column: &ArrayRef| {
                let value = ScalarValue::try_from_array(column, row).unwrap();
                let bits = match value {
                    ScalarValue::Float64(Some(x)) => format!("{:x}", x.to_bits()),
                    ref other => format!("{other:?}"),
                };
                (Cell::new(&value), bits)
            };
            let cells: Vec<(Cell, String)> = rows.columns().iter().map(cell).collect();
            let mut key = format!("{} {}", cells[0].1, cells[1].1);
            // A row that leaves has one that comes.
            if rows
                .schema()
                .fields()
                .last()
                .is_some_and(|f| f.name() == DIFF)
            {
                key.extend([" ", cells[cells.len() - 1].1.as_str()]);
            }
            let before = answers[*epoch as usize].insert(key.clone(), cells);
            assert!(before.is_none(), "{key} came twice");
        }
    }
    answers
}

#[track_caller]
fn check(panes: Panes, states: States, cluster: Cluster, seed: u64) {
    check_mode(Emit::Closed, panes, states, cluster, seed);
}

#[track_caller]
fn check_mode(emit: Emit, panes: Panes, states: States, cluster: Cluster, seed: u64) {
    let mut random = Random::new(seed);
    let keys = [1, 4, 90][seed as usize % 3];
    let count = 40;
    // Sets take DataFusion much longer.
    let rows_max = if states == States::Small { 150 } else { 30 };
    let epochs = Arc::new(epochs(&mut random, count, rows_max, keys));
    let delay_ms = random.below(50) as i64;
    let plain = Run {
        aggregation: aggregation(emit, None, calls(states)),
        schema: schema(),
        delay_ms,
        budget: None,
        from: (0, 0, 0),
        restore: Vec::new(),
        stop: u64::MAX,
    };
    let context = format!("{emit:?}, {states:?}, {panes:?}, {cluster:?}, seed {seed}");
    let whole = Arc::new(exploded(&epochs, panes));
    let (wanted, _) = plain.clone().go(Cluster::Threads(1), &whole, seed);
    let wanted = answers(&wanted.unwrap(), count);
    assert!(
        wanted.iter().flatten().count() > 20,
        "{context}: too few windows"
    );
    let sliding = Run {
        aggregation: aggregation(emit, Some(panes), calls(states)),
        ..plain
    };
    let (got, _) = sliding.clone().go(cluster, &epochs, seed);
    let got = answers(&got.unwrap(), count);
    for epoch in 0..count {
        let (wanted, got) = (&wanted[epoch], &got[epoch]);
        let differ = wanted.keys().find(|key| !got.contains_key(*key));
        assert!(differ.is_none(), "{context}, epoch {epoch}: no {differ:?}");
        for (key, cells) in got {
            let Some(wanted) = wanted.get(key) else {
                panic!("{context}, epoch {epoch}: {cells:?} should not be");
            };
            let rounded = states == States::Small;
            let same = |(a, b): (&(Cell, String), &(Cell, String))| {
                a.1 == b.1 || rounded && a.0.same(&b.0, CLOSE)
            };
            let same = cells.iter().zip(wanted).all(same);
            assert!(
                same,
                "{context}, epoch {epoch}: {cells:?} instead of {wanted:?}"
            );
        }
    }
    let mut marks = vec![0];
    let mut largest_ms = i64::MIN;
    for rows in &epochs.rows {
        let now = largest_ms
            .saturating_sub(delay_ms)
            .max(marks[marks.len() - 1]);
        marks.push(now);
        let ats = rows.column(0).as_primitive::<TimestampMicrosecondType>();
        let ats = ats.values().iter().map(|at| at.div_euclid(1000));
        largest_ms = largest_ms.max(ats.max().unwrap_or(i64::MIN));
    }
    let stop = random.below(count as u64 - 1);
    let next = stop as usize + 1;
    let budget = tiny_budget(seed);
    let stopped = Run {
        stop,
        budget: budget.clone(),
        ..sliding
    };
    let (before, saved) = stopped.clone().go(cluster, &epochs, seed);
    let resumed = Run {
        from: (next, marks[next], marks[next + 1]),
        restore: saved.iter().map(stored).collect(),
        stop: u64::MAX,
        ..stopped
    };
    let (after, _) = resumed.go(cluster, &epochs, seed);
    let (before, after) = (
        answers(&before.unwrap(), count),
        answers(&after.unwrap(), count),
    );
    for epoch in next..count {
        let text = |answers: &Answers| format!("{:?}", answers[epoch]);
        assert_eq!(
            text(&before),
            text(&after),
            "{context}: restarted, epoch {epoch}"
        );
        // However much memory there was.
        assert_eq!(text(&before), text(&got), "{context}: again, epoch {epoch}");
    }
}

fn panes(width: i64, slide: i64, pane: i64) -> Panes {
    Panes {
        width_us: width * PANE_US,
        slide_us: slide * PANE_US,
        start_us: 0,
        pane_us: pane * PANE_US,
    }
}

/// Windows that overlap, much and little.
fn grids() -> [Panes; 4] {
    [
        panes(20, 1, 1),
        panes(7, 3, 1),
        panes(5, 2, 1),
        panes(2, 1, 1),
    ]
}

#[test]
fn windows_of_panes_are_windows_of_rows() {
    let grids = grids();
    for (index, cluster) in CLUSTERS[..2].iter().enumerate() {
        for (nth, grid) in grids.into_iter().enumerate() {
            check(grid, States::Small, *cluster, (index * 10 + nth) as u64);
            let states = [States::Sets, States::All][(index + nth) % 2];
            check(grid, states, *cluster, (index * 10 + nth + 1) as u64);
            if nth % 2 == index {
                check(grid, States::Ranks, *cluster, (index * 7 + nth + 1) as u64);
            }
            check(
                grid,
                States::Ordered,
                *cluster,
                (index * 11 + nth * 3) as u64,
            );
        }
    }
    check(grids[0], States::Small, CLUSTERS[2], 20);
    check(grids[0], States::Ranks, CLUSTERS[2], 17);
    check(grids[0], States::All, CLUSTERS[2], 21);
}

#[test]
fn windows_that_come_before_they_close_are_windows_of_rows() {
    let grids = grids();
    let modes = [Emit::Changed, Emit::All, Emit::Signed];
    let kinds = [States::Sets, States::Ranks, States::Mixed];
    for (index, emit) in modes.into_iter().enumerate() {
        for (nth, states) in kinds.into_iter().enumerate() {
            let stored = aggregation(emit, Some(grids[0]), calls(states)).stores_panes();
            assert!(stored, "{emit:?}, {states:?}");
            let grid = grids[(index + nth) % grids.len()];
            let cluster = CLUSTERS[(index * 2 + nth) % CLUSTERS.len()];
            check_mode(emit, grid, states, cluster, (index * 5 + nth) as u64);
        }
    }
}
