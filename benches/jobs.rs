//! The end-to-end jobs: whole queries over generated files, from source to sink, timed from start to end.
//!
//! `cargo bench --bench jobs -- JOB --data DIR --out DIR [-w WORKERS]` prints one line `RESULT {..}`.

#![allow(clippy::disallowed_methods, reason = "a bench measures time")]
#![allow(clippy::print_stdout, reason = "a bench prints its result")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use highwater::prelude::*;
use highwater::{ClusterConfig, functions as f};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DEVICES: &str = "device STRING, signal BIGINT, time TIMESTAMP, type STRING, site STRING, seq BIGINT, battery DOUBLE";
const BID: &str = "auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, dateTime TIMESTAMP, extra STRING";

struct Job {
    /// Directory of the input, below the data directory.
    input: &'static str,
    query: fn(&Session, &Path) -> highwater::Result<DataFrame>,
    mode: OutputMode,
    /// The sink's format: "parquet" writes below the output directory.
    sink: &'static str,
}

fn files(
    session: &Session,
    format: &str,
    schema: &str,
    path: &Path,
) -> highwater::Result<DataFrame> {
    let reader = session
        .read_stream()
        .format(format)
        .path(path)
        .option("maxFilesPerTrigger", 4);
    if schema.is_empty() {
        reader.load()
    } else {
        reader.schema(schema)?.load()
    }
}

fn job(name: &str) -> Option<Job> {
    let job = |input, query, mode, sink| {
        Some(Job {
            input,
            query,
            mode,
            sink,
        })
    };
    match name {
        "wordcount" => job(
            "words",
            |s, path| {
                let words = files(s, "text", "", path)?.select([f::explode(f::split(
                    col("value"),
                    lit(" "),
                ))
                .alias("word")])?;
                words.group_by(["word"])?.count()
            },
            OutputMode::Complete,
            "memory",
        ),
        "etl" => job(
            "devices",
            |s, path| {
                files(s, "json", DEVICES, path)?
                    .select(["device", "signal"])?
                    .filter("signal > 15")
            },
            OutputMode::Append,
            "parquet",
        ),
        "highcard" => job(
            "highcard",
            |s, path| {
                let rows = files(s, "json", "k BIGINT, v BIGINT", path)?;
                rows.group_by(["k"])?
                    .agg([f::count(lit(1)).alias("cnt"), f::sum("v").alias("sum")])
            },
            OutputMode::Update,
            "noop",
        ),
        "q0" => job(
            "nexmark/bid",
            |s, path| {
                files(s, "json", BID, path)?
                    .select(["auction", "bidder", "price", "dateTime", "extra"])
            },
            OutputMode::Append,
            "noop",
        ),
        "q1" => job(
            "nexmark/bid",
            |s, path| {
                files(s, "json", BID, path)?.select_expr([
                    "auction",
                    "bidder",
                    "CAST(price AS DECIMAL(15,0)) * CAST('0.908' AS DECIMAL(4,3)) AS price",
                    "dateTime",
                    "extra",
                ])
            },
            OutputMode::Append,
            "noop",
        ),
        "q2" => job(
            "nexmark/bid",
            |s, path| {
                files(s, "json", BID, path)?
                    .filter("auction % 123 = 0")?
                    .select(["auction", "price"])
            },
            OutputMode::Append,
            "noop",
        ),
        _ => None,
    }
}

fn main() -> highwater::Result<()> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let mut name = None;
    let (mut data, mut out, mut workers) = (
        PathBuf::from("bench-data"),
        std::env::temp_dir().join("highwater-bench"),
        2,
    );
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--data" => data = args.next().unwrap_or_default().into(),
            "--out" => out = args.next().unwrap_or_default().into(),
            "-w" => workers = args.next().and_then(|text| text.parse().ok()).unwrap_or(2),
            other => name = Some(other.to_string()),
        }
    }
    let Some(name) = name else {
        println!(
            "usage: jobs JOB --data DIR --out DIR [-w WORKERS]; without a job nothing is measured"
        );
        return Ok(());
    };
    let Some(job) = job(&name) else {
        eprintln!("there is no job \"{name}\"");
        std::process::exit(2);
    };
    let session = Session::with_cluster(ClusterConfig {
        workers,
        ..ClusterConfig::default()
    })?;
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let frame = (job.query)(&session, &data.join(job.input))?;
    let writer = frame
        .write_stream()
        .output_mode(job.mode)
        .trigger(Trigger::AvailableNow)
        .format(job.sink);
    let writer = match job.sink {
        "parquet" => writer
            .path(out.join("rows"))
            .option("checkpointLocation", out.join("_checkpoint").display()),
        "memory" => writer.query_name("result"),
        _ => writer,
    };
    let query = writer.start()?;
    query.await_termination()?;
    let (seconds, job_cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    if job.sink == "memory" {
        let result = session.table("result")?;
        result
            .write()
            .format("parquet")
            .path(out.join("rows"))
            .save()?;
    }
    let rows = manifest_rows(&data, job.input);
    println!(
        "RESULT {{\"engine\": \"highwater\", \"mode\": \"stream\", \"job\": \"{name}\", \"rows\": {rows}, \"seconds\": {seconds:.3}, \
         \"rows_per_s\": {:.0}, \"job_cpu_s\": {job_cpu:.2}, \"batches\": {}}}",
        rows as f64 / seconds,
        query.committed().epochs
    );
    Ok(())
}

/// Rows of an input directory, as its generator wrote them down.
fn manifest_rows(data: &Path, input: &str) -> u64 {
    let text = std::fs::read_to_string(data.join("manifest.json")).unwrap_or_default();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let set = input.split('/').next().unwrap_or_default();
    manifest[set]["rows"][input].as_u64().unwrap_or(0)
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<f64> = after
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    // After the name and state come eleven numbers, then the two times in hundredths.
    fields
        .get(10..12)
        .map_or(0.0, |times| (times[0] + times[1]) / 100.0)
}
