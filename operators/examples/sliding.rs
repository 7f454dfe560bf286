//! Measures windows that overlap: `sliding <rows> <keys> <minutes> <epochs> <users> <MB>`.
//!
//! The event times of the rows are spread over so many minutes, those of an epoch over its share of them; the state has
//! so many megabytes of memory. For functions of several kinds, prints what a group of a window costs in CPU time where windows slide by a minute and are one, ten
//! and sixty minutes long: as many come out of each, so the cost should stay the same, but for what is longer itself.
#![allow(clippy::print_stdout, reason = "a program that prints its findings")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::first_last::{first_value_udaf, last_value_udaf};
use datafusion::functions_aggregate::min_max::max_udaf;
use datafusion::functions_aggregate::stddev::stddev_udaf;
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::col;
use highwater_operators::aggregate::{
    AggregateCall, Aggregation, Emit, Panes, State, aggregate_with_state,
};
use highwater_operators::arrangement::{Budget, HeapStore};
use highwater_operators::exact::{exact_avg, exact_sum};
use highwater_operators::metrics::Meters;
use highwater_operators::watermark::{Policy, Watermarks, watermark};
use highwater_operators::{BatchBuilder, Edge, Failure, Rows};
use highwater_query::{Rank, ranks};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Input, Operator, Probe};

const MINUTE_US: i64 = 60_000_000;
const BATCH_ROWS: u64 = 8192;

#[derive(Clone, Copy)]
struct Job {
    rows: u64,
    keys: u64,
    minutes: u64,
    epochs: u64,
    users: u64,
    megabytes: u64,
    width: i64,
    kind: Kind,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: u64| -> u64 {
        let argument = arguments.get(index).and_then(|text| text.parse().ok());
        argument.unwrap_or(default)
    };
    let job = Job {
        rows: number(0, 1_000_000),
        keys: number(1, 333),
        minutes: number(2, 90),
        epochs: number(3, 90),
        users: number(4, 100_000),
        // More than enough, but a limit.
        megabytes: number(5, 4 << 10),
        width: 1,
        kind: Kind::Plain,
    };
    println!(
        "{} rows, {} keys, {} minutes, {} epochs; CPU of all, and of a group of a window, at a width of:",
        job.rows, job.keys, job.minutes, job.epochs
    );
    println!(
        "{:>16} {:>18} {:>18} {:>18}",
        "", "1 min", "10 min", "60 min"
    );
    for (name, kind) in KINDS {
        print!("{name:>16}");
        for width in [1, 10, 60] {
            let job = Job { width, kind, ..job };
            let (cpu, windows) = timely::execute_directly(move |worker| run(worker, job));
            let per_window = cpu.as_nanos() as f64 / windows as f64 / 1e3;
            print!(" {:6.2} s {per_window:6.2} us", cpu.as_secs_f64());
        }
        println!();
    }
}

/// What is asked of the values.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    CountDistinct,
    SumDistinct,
    CollectSet,
    Percentiles,
    Mode,
    Rounded,
    Ends,
    CollectList,
    Mixed,
}

const KINDS: [(&str, Kind); 10] = [
    ("avg, count, max", Kind::Plain),
    ("count distinct", Kind::CountDistinct),
    ("sum distinct", Kind::SumDistinct),
    ("collect_set", Kind::CollectSet),
    ("3 percentiles", Kind::Percentiles),
    ("mode", Kind::Mode),
    ("stddev", Kind::Rounded),
    ("first, last", Kind::Ends),
    ("collect_list", Kind::CollectList),
    ("the first four", Kind::Mixed),
];

impl Kind {
    fn needs_order(self) -> bool {
        matches!(self, Kind::Ends | Kind::CollectList)
    }

    /// The functions, the column that each takes, and whether only distinct values count.
    fn calls(self) -> Vec<(Arc<AggregateUDF>, &'static str, bool)> {
        match self {
            Kind::Plain => vec![
                (exact_avg(), "v", false),
                (count_udaf(), "v", false),
                (max_udaf(), "v", false),
            ],
            Kind::CountDistinct => vec![(count_udaf(), "u", true)],
            Kind::SumDistinct => vec![(exact_sum(), "v", true)],
            Kind::CollectSet => vec![(array_agg_udaf(), "u", true)],
            Kind::Percentiles => {
                let asked = Rank::Percentiles {
                    at: vec![0.5, 0.9, 0.99],
                    array: true,
                    descending: false,
                    continuous: true,
                };
                vec![(ranks(vec![asked]), "v", false)]
            }
            Kind::Mode => vec![(ranks(vec![Rank::Mode { greatest: false }]), "u", false)],
            Kind::Rounded => vec![(stddev_udaf(), "v", false)],
            Kind::Ends => vec![
                (first_value_udaf(), "v", false),
                (last_value_udaf(), "u", false),
            ],
            Kind::CollectList => vec![(array_agg_udaf(), "u", false)],
            Kind::Mixed => KINDS[..4]
                .iter()
                .flat_map(|(_, kind)| kind.calls())
                .collect(),
        }
    }
}

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    Arc::new(Schema::new(vec![
        Field::new("at", time.clone(), false),
        Field::new("end", time, false),
        Field::new("k", DataType::Int64, false),
        Field::new("v", DataType::Float64, false),
        Field::new("u", DataType::Int64, false),
    ]))
}

fn aggregation(job: Job) -> Aggregation {
    let schema = schema();
    let calls = job.kind.calls().into_iter();
    let calls = calls.map(|(function, column, distinct)| {
        let column = col(column, &schema).expect("a column of the schema");
        let call = AggregateExprBuilder::new(function, vec![column]);
        let call = call.schema(Arc::clone(&schema)).alias("call");
        let call = call.with_distinct(distinct).build();
        AggregateCall {
            function: Arc::new(call.expect("the function takes the column")),
            filter: None,
        }
    });
    let calls: Vec<AggregateCall> = calls.collect();
    let mut fields = vec![schema.field(1).clone(), schema.field(2).clone()];
    for (index, call) in calls.iter().enumerate() {
        let data_type = call.function.field().data_type().clone();
        fields.push(Field::new(format!("call{index}"), data_type, true));
    }
    let keys = ["end", "k"].map(|name| col(name, &schema).expect("a column of the schema"));
    Aggregation {
        name: "sliding".into(),
        keys: keys.to_vec(),
        calls,
        schema: Arc::new(Schema::new(fields)),
        emit: Emit::Closed,
        event_time: true,
        panes: (job.width > 1).then_some(Panes {
            width_us: job.width * MINUTE_US,
            slide_us: MINUTE_US,
            start_us: 0,
            pane_us: MINUTE_US,
        }),
        gone: None,
    }
}

/// The CPU time it took, and how many windows came out.
fn run(worker: &mut timely::worker::Worker, job: Job) -> (Duration, u64) {
    let failure = Failure::default();
    let windows = Arc::new(AtomicU64::new(0));
    let (mut input, probe) = worker.dataflow::<u64, _, _>(|scope| {
        let (input, stream) = scope.new_input_with_builder::<BatchBuilder>();
        let rows = Rows {
            stream,
            edge: Edge {
                ordered: job.kind.needs_order(),
                ..Edge::plain(schema())
            },
        };
        let at = col("at", &schema()).expect("a column of the schema");
        let (rows, mark) = watermark(rows, at, 0, 0, &Meters::default(), &failure);
        let marks = Watermarks::new(vec![mark], Policy::Min, 0);
        let plan = aggregation(job);
        let bytes_max = (job.megabytes as usize) << 20;
        let state = State {
            budget: Some(Budget::new(bytes_max, HeapStore::default())),
            ..State::default()
        };
        let rows = aggregate_with_state(rows, plan, Some(marks), state, &failure).rows;
        let (schema, windows) = (rows.edge.physical(), Arc::clone(&windows));
        let counted = rows
            .stream
            .unary::<BatchBuilder, _, _, _>(Pipeline, "Count", move |_, _| {
                move |input, _output| {
                    input.for_each(|_, batch| {
                        let rows = std::mem::take(batch).into_rows(&schema);
                        let rows = rows.expect("rows of this process").num_rows();
                        windows.fetch_add(rows as u64, Ordering::Relaxed);
                    });
                }
            });
        (input, counted.probe().0)
    });
    let per_epoch = job.rows / job.epochs;
    let mut state = 88172645463325252_u64;
    let made: Vec<Vec<RecordBatch>> = (0..job.epochs)
        .map(|epoch| {
            let batches = per_epoch.div_ceil(BATCH_ROWS);
            let rows = |batch: u64| BATCH_ROWS.min(per_epoch - batch * BATCH_ROWS);
            let batches = 0..batches;
            batches
                .map(|batch| rows_of(job, epoch, batch, rows(batch), &mut state))
                .collect()
        })
        .collect();
    let before = cpu_time();
    for (epoch, batches) in made.into_iter().enumerate() {
        for batch in batches {
            input.send_batch(&mut batch.into());
            worker.step();
        }
        let next = epoch as u64 + 1;
        input.advance_to(next);
        worker.step_while(|| probe.less_than(&next));
    }
    input.advance_to(job.epochs + 1);
    worker.step_while(|| probe.less_than(&(job.epochs + 1)));
    let cpu = cpu_time().saturating_sub(before);
    assert!(failure.text().is_none(), "{:?}", failure.text());
    (cpu, windows.load(Ordering::Relaxed))
}

fn rows_of(job: Job, epoch: u64, batch: u64, rows: u64, state: &mut u64) -> RecordBatch {
    let mut random = |below: u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 11) % below
    };
    let span = job.minutes * MINUTE_US as u64 / job.epochs;
    let start = (1 << 20) * 60 * MINUTE_US + (epoch * span) as i64;
    let ats: Vec<i64> = (0..rows).map(|_| start + random(span) as i64).collect();
    let ends = ats
        .iter()
        .map(|at| at - at.rem_euclid(MINUTE_US) + MINUTE_US);
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(
            ats.iter().copied(),
        )),
        Arc::new(TimestampMicrosecondArray::from_iter_values(ends)),
        Arc::new(Int64Array::from_iter_values(
            (0..rows).map(|_| random(job.keys) as i64),
        )),
        Arc::new(Float64Array::from_iter_values(
            (0..rows).map(|_| random(100_000) as f64 / 100.0),
        )),
        Arc::new(Int64Array::from_iter_values(
            (0..rows).map(|_| random(job.users) as i64),
        )),
    ];
    let edge = Edge {
        ordered: job.kind.needs_order(),
        ..Edge::plain(schema())
    };
    if edge.ordered {
        let places = batch * BATCH_ROWS..batch * BATCH_ROWS + rows;
        columns.push(Arc::new(UInt64Array::from_iter_values(places)));
    }
    RecordBatch::try_new(edge.physical(), columns).expect("the columns fit the schema")
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}
