//! Measures grouped aggregation:
//! `keyed_sum <rows> <keys> <rows per epoch> <workers> [int|float|exact] [--memory-max <MB>]`.
//!
//! Sums and counts random values under random keys in update mode, and prints rows per second, CPU time per row, the
//! slowest epoch and the peak of memory. The rows are made beforehand; an epoch ends before the next one begins.
//!
//! With `--memory-max` the state may take that much memory and no more; the rest goes to files in the system's directory
//! for temporary files. Then the rows are made as they are needed, so that the peak of memory is the state's, and
//! each answer is checked.
#![allow(clippy::print_stdout, reason = "a program that prints its findings")]
#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::{col, lit};
use highwater_operators::aggregate::{
    AggregateCall, Aggregation, Emit, State, aggregate_with_state,
};
use highwater_operators::arrangement::{Budget, RunFile, RunStore, RunWriter};
use highwater_operators::exact::exact_sum;
use highwater_operators::{BatchBuilder, Edge, Failure, OperatorError, Rows};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Input, Operator, Probe};

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
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut budget = None;
    if let Some(at) = arguments.iter().position(|a| a == "--memory-max") {
        let megabytes: usize = arguments
            .get(at + 1)
            .and_then(|text| text.parse().ok())
            .expect("--memory-max takes a number of megabytes");
        budget = Some(Budget::new(megabytes << 20, Files::default()));
        arguments.drain(at..at + 2);
    }
    let number = |index: usize, default: u64| -> u64 {
        let argument = arguments.get(index).and_then(|text| text.parse().ok());
        argument.unwrap_or(default)
    };
    let kind = arguments.get(4).map_or("int", String::as_str);
    assert!(
        budget.is_none() || kind == "int",
        "--memory-max checks sums of integers"
    );
    let job = Job {
        rows: number(0, 1_000_000),
        keys: number(1, 10_000),
        epoch_rows: number(2, 65_536),
        workers: number(3, 1),
        float: kind != "int",
        exact: kind == "exact",
    };
    let config = timely::Config::process(job.workers as usize);
    let shared = budget
        .clone()
        .map(|budget| (budget, Arc::new(Wanted::new(job.keys))));
    let guards = timely::execute(config, move |worker| run(worker, job, shared.clone()))
        .expect("threads start");
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
    if let Some(budget) = budget {
        println!(
            "state within {} MB: {} MB written to files, {} MB read from them; all answers are right (checking them takes \
             {} MB)",
            budget.bytes_max() >> 20,
            budget.written() >> 20,
            budget.read() >> 20,
            (job.keys * 8) >> 20,
        );
    }
}

fn run(
    worker: &mut timely::worker::Worker,
    job: Job,
    limit: Option<(Arc<Budget>, Arc<Wanted>)>,
) -> (Duration, Duration, Duration) {
    let schema = schema(job);
    let failure = Failure::default();
    let (budget, wanted) = limit.unzip();
    let (mut input, probe) = worker.dataflow::<u64, _, _>(|scope| {
        let (input, stream) = scope.new_input_with_builder::<BatchBuilder>();
        let rows = Rows {
            stream,
            edge: Edge::plain(Arc::clone(&schema)),
        };
        let state = State {
            budget,
            ..State::default()
        };
        let plan = aggregation(job, &schema);
        let rows = aggregate_with_state(rows, plan, None, state, &failure).rows;
        let (schema, wanted) = (rows.edge.physical(), wanted.clone());
        let watched = rows
            .stream
            .unary::<BatchBuilder, _, _, _>(Pipeline, "Watch", move |_, _| {
                move |input, _output| {
                    input.for_each(|_, batch| {
                        if let Some(wanted) = &wanted {
                            let rows = std::mem::take(batch).into_rows(&schema);
                            wanted.check(&rows.expect("rows of this process"));
                        }
                    });
                }
            });
        (input, watched.probe().0)
    });
    let mut source = Source::new(job, &schema, worker.index() as u64);
    let count = (job.rows / BATCH_ROWS / job.workers) as usize;
    let per_epoch = (job.epoch_rows / BATCH_ROWS / job.workers).max(1) as usize;
    let made: Vec<RecordBatch> = match wanted {
        None => (0..count).map(|_| source.next()).collect(),
        Some(_) => Vec::new(),
    };
    let (start, cpu_before) = (Instant::now(), cpu_time());
    let mut worst = Duration::ZERO;
    for (epoch, first) in (0..count).step_by(per_epoch).enumerate() {
        let epoch_start = Instant::now();
        for index in first..count.min(first + per_epoch) {
            let batch = match made.get(index) {
                Some(batch) => batch.clone(),
                None => {
                    let batch = source.next();
                    if let Some(wanted) = &wanted {
                        wanted.add(&batch);
                    }
                    batch
                }
            };
            input.send_batch(&mut batch.into());
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

/// What the answer of each key should be: its sum in the high half, its count in the low.
struct Wanted(Vec<AtomicU64>);

impl Wanted {
    fn new(keys: u64) -> Self {
        Wanted((0..keys).map(|_| AtomicU64::new(0)).collect())
    }

    fn add(&self, rows: &RecordBatch) {
        let column = |index: usize| rows.column(index).as_primitive::<Int64Type>().values();
        for (key, value) in column(0).iter().zip(column(1)) {
            self.0[*key as usize].fetch_add(((*value as u64) << 32) + 1, Ordering::Relaxed);
        }
    }

    /// No epoch begins before all answers of the one before have come.
    fn check(&self, rows: &RecordBatch) {
        let column = |index: usize| rows.column(index).as_primitive::<Int64Type>().values();
        for ((key, sum), count) in column(0).iter().zip(column(1)).zip(column(2)) {
            let wanted = self.0[*key as usize].load(Ordering::Relaxed);
            let wanted = ((wanted >> 32) as i64, (wanted & 0xffff_ffff) as i64);
            assert!(
                (*sum, *count) == wanted,
                "key {key}: {sum}, {count} instead of {wanted:?}"
            );
        }
    }
}

/// Files for state, removed as soon as they have a handle.
#[derive(Default)]
struct Files(AtomicU64);

struct Growing(File, u64);

struct Finished(File, u64);

fn failed(error: std::io::Error) -> OperatorError {
    OperatorError::Write(error)
}

impl RunStore for Files {
    fn create(&self) -> Result<Box<dyn RunWriter>, OperatorError> {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        let name = format!("keyed-sum-{}-{number}", std::process::id());
        let path: PathBuf = std::env::temp_dir().join(name);
        let mut options = File::options();
        let options = options.read(true).write(true).create_new(true);
        let file = options.open(&path).map_err(failed)?;
        std::fs::remove_file(&path).map_err(failed)?;
        Ok(Box::new(Growing(file, 0)))
    }
}

impl RunWriter for Growing {
    fn write(&mut self, bytes: &[u8]) -> Result<(), OperatorError> {
        self.1 += bytes.len() as u64;
        self.0.write_all(bytes).map_err(failed)
    }

    fn finish(self: Box<Self>) -> Result<Arc<dyn RunFile>, OperatorError> {
        Ok(Arc::new(Finished(self.0, self.1)))
    }
}

impl RunFile for Finished {
    fn name(&self) -> &str {
        "state"
    }

    fn len(&self) -> u64 {
        self.1
    }

    fn read_at(&self, offset: u64, length: usize) -> Result<bytes::Bytes, OperatorError> {
        let mut bytes = vec![0; length];
        self.0.read_exact_at(&mut bytes, offset).map_err(failed)?;
        Ok(bytes.into())
    }
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

/// Makes a worker's rows.
struct Source {
    job: Job,
    schema: SchemaRef,
    state: u64,
}

impl Source {
    fn new(job: Job, schema: &SchemaRef, worker: u64) -> Self {
        Source {
            job,
            schema: Arc::clone(schema),
            state: 88172645463325252_u64 ^ (worker << 40),
        }
    }

    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn next(&mut self) -> RecordBatch {
        let keys = (0..BATCH_ROWS).map(|_| (self.random() % self.job.keys) as i64);
        let keys = Int64Array::from_iter_values(keys);
        let values: ArrayRef = if self.job.float {
            let values = (0..BATCH_ROWS).map(|_| (self.random() >> 40) as f64 / 100.0);
            Arc::new(Float64Array::from_iter_values(values))
        } else {
            let values = (0..BATCH_ROWS).map(|_| (self.random() >> 57) as i64);
            Arc::new(Int64Array::from_iter_values(values))
        };
        RecordBatch::try_new(Arc::clone(&self.schema), vec![Arc::new(keys), values])
            .expect("the columns fit the schema")
    }
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
        gone: None,
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
