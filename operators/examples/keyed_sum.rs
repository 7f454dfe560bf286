//! Measures grouped aggregation: `keyed_sum <rows> <keys> <rows per epoch> <workers> [int|float|exact]`.
//!
//! Sums and counts random values under random keys in update mode, and prints rows per second, CPU time per row, the
//! slowest epoch and the peak of memory. The rows are made beforehand; an epoch ends before the next one begins.
#![allow(clippy::print_stdout, reason = "a program that prints its findings")]
#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::{col, lit};
use highwater_operators::aggregate::{AggregateCall, Aggregation, Emit, aggregate};
use highwater_operators::exact::exact_sum;
use highwater_operators::{BatchBuilder, Edge, Failure, Rows};
use timely::dataflow::operators::{Input, Probe};

const BATCH_ROWS: u64 = 8192;

#[derive(Clone, Copy)]
struct Job {
    rows: u64,
    keys: u64,
    epoch_rows: u64,
    workers: u64,
    float: bool,
    exact: bool,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: u64| -> u64 {
        let argument = arguments.get(index).and_then(|text| text.parse().ok());
        argument.unwrap_or(default)
    };
    let kind = arguments.get(4).map_or("int", String::as_str);
    let job = Job {
        rows: number(0, 1_000_000),
        keys: number(1, 10_000),
        epoch_rows: number(2, 65_536),
        workers: number(3, 1),
        float: kind != "int",
        exact: kind == "exact",
    };
    let config = timely::Config::process(job.workers as usize);
    let guards = timely::execute(config, move |worker| run(worker, job)).expect("threads start");
    let mut results = guards
        .join()
        .into_iter()
        .map(|result| result.expect("a worker panicked"));
    let (elapsed, cpu, worst) = results.next().expect("there is a worker");
    drop(results);
    let per_row = |time: Duration| time.as_nanos() as f64 / job.rows as f64;
    println!(
        "{} rows, {} keys, {} rows per epoch, {} workers, {kind}: {:.2} M rows/s, {:.0} ns of CPU per row, worst epoch \
         {:.1} ms, peak memory {} MB",
        job.rows,
        job.keys,
        job.epoch_rows,
        job.workers,
        1e3 / per_row(elapsed),
        per_row(cpu),
        worst.as_secs_f64() * 1e3,
        peak_memory_mb(),
    );
}

fn run(worker: &mut timely::worker::Worker, job: Job) -> (Duration, Duration, Duration) {
    let schema = schema(job);
    let failure = Failure::default();
    let (mut input, probe) = worker.dataflow::<u64, _, _>(|scope| {
        let (input, stream) = scope.new_input_with_builder::<BatchBuilder>();
        let rows = Rows {
            stream,
            edge: Edge::plain(Arc::clone(&schema)),
        };
        let (probe, _) = aggregate(rows, aggregation(job, &schema), &failure)
            .stream
            .probe();
        (input, probe)
    });
    let batches = batches(job, &schema, worker.index() as u64);
    let per_epoch = (job.epoch_rows / BATCH_ROWS / job.workers).max(1) as usize;
    let (start, cpu_before) = (Instant::now(), cpu_time());
    let mut worst = Duration::ZERO;
    for (epoch, batches) in batches.chunks(per_epoch).enumerate() {
        let epoch_start = Instant::now();
        for batch in batches {
            input.send_batch(&mut batch.clone().into());
            worker.step();
        }
        let next = epoch as u64 + 1;
        input.advance_to(next);
        worker.step_while(|| probe.less_than(&next));
        worst = worst.max(epoch_start.elapsed());
    }
    let result = (
        start.elapsed(),
        cpu_time().saturating_sub(cpu_before),
        worst,
    );
    assert!(failure.text().is_none(), "{:?}", failure.text());
    result
}

fn schema(job: Job) -> SchemaRef {
    let value = if job.float {
        DataType::Float64
    } else {
        DataType::Int64
    };
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, false),
        Field::new("v", value, false),
    ]))
}

/// This worker's rows.
fn batches(job: Job, schema: &SchemaRef, worker: u64) -> Vec<RecordBatch> {
    let mut state = 88172645463325252_u64 ^ (worker << 40);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let count = job.rows / BATCH_ROWS / job.workers;
    let batch = |_| {
        let keys =
            Int64Array::from_iter_values((0..BATCH_ROWS).map(|_| (next() % job.keys) as i64));
        let values: ArrayRef = if job.float {
            let values = (0..BATCH_ROWS).map(|_| (next() >> 40) as f64 / 100.0);
            Arc::new(Float64Array::from_iter_values(values))
        } else {
            let values = (0..BATCH_ROWS).map(|_| (next() >> 57) as i64);
            Arc::new(Int64Array::from_iter_values(values))
        };
        RecordBatch::try_new(Arc::clone(schema), vec![Arc::new(keys), values])
            .expect("the columns fit the schema")
    };
    (0..count).map(batch).collect()
}

fn aggregation(job: Job, schema: &SchemaRef) -> Aggregation {
    let sum = if job.exact { exact_sum() } else { sum_udaf() };
    let value = col("v", schema).expect("a column of the schema");
    let calls = [
        AggregateExprBuilder::new(sum, vec![value]).alias("sum"),
        AggregateExprBuilder::new(count_udaf(), vec![lit(1_i64)]).alias("count"),
    ]
    .map(|call| {
        call.schema(Arc::clone(schema))
            .build()
            .expect("the function takes the column")
    });
    let mut fields = vec![Field::new("k", DataType::Int64, true)];
    fields.extend(
        calls
            .iter()
            .map(|call: &AggregateFunctionExpr| call.field().as_ref().clone()),
    );
    let call = |function: AggregateFunctionExpr| AggregateCall {
        function: Arc::new(function),
        filter: None,
    };
    Aggregation {
        name: "keyed_sum".into(),
        keys: vec![col("k", schema).expect("a column of the schema")],
        calls: calls.map(call).to_vec(),
        schema: Arc::new(Schema::new(fields)),
        emit: Emit::Changed,
        event_time: false,
        panes: None,
    }
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

fn peak_memory_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) / 1024
}
