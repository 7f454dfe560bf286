//! What durability costs: checkpoints of a large state, a restart from it, and a directory after very many epochs.
//!
//! `cargo bench --bench durable -- state --dir DIR [-w WORKERS] [--keys MILLIONS]` and `-- epochs --dir DIR [--count N]`
//! print what they measure; `-- idle --dir DIR` keeps a file query and a socket query installed for half a minute; `-- day`
//! runs a day of windows; `-- spill --dir DIR [--keys MILLIONS] [--rows A_FILE]` compares a state in memory with one four times
//! its limit.

#![allow(clippy::disallowed_methods, reason = "a bench measures time")]
#![allow(clippy::print_stdout, reason = "a bench prints its result")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use highwater::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes and number of files below a directory.
fn size(dir: &Path) -> (u64, usize) {
    let Ok(entries) = fs::read_dir(dir) else {
        return (0, 0);
    };
    let mut total = (0, 0);
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let part = match metadata.is_dir() {
            true => size(&entry.path()),
            false => (metadata.len(), 1),
        };
        total = (total.0 + part.0, total.1 + part.1);
    }
    total
}

/// Resident memory in MiB, and CPU seconds so far.
fn resources() -> (u64, f64) {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks: u64 = [11, 12]
        .iter()
        .filter_map(|index| fields.get(*index)?.parse::<u64>().ok())
        .sum();
    (pages * 4 / 1024, ticks as f64 / 100.0)
}

/// A file of `rows` keys below `keys`, by a linear congruence from `seed`; every key once if `rows` is `keys`.
fn keys_file(dir: &Path, name: &str, first: u64, rows: u64, step: u64, keys: u64) {
    let path = dir.join(format!(".{name}"));
    let mut file = std::io::BufWriter::new(fs::File::create(&path).expect("created"));
    for row in first..first + rows {
        writeln!(file, "{}", row.wrapping_mul(step) % keys).expect("written");
    }
    drop(file);
    fs::rename(path, dir.join(name)).expect("renamed");
}

fn counts(
    session: &Session,
    dir: &Path,
    interval: &str,
    trigger: Trigger,
) -> highwater::Result<StreamingQuery> {
    let lines = session
        .read_stream()
        .format("text")
        .option("maxFilesPerTrigger", 1)
        .path(dir.join("in"))
        .load()?;
    lines
        .select_expr(["CAST(value AS BIGINT) AS k"])?
        .group_by(["k"])?
        .count()?
        .write_stream()
        .output_mode(OutputMode::Update)
        .format("noop")
        .trigger(trigger)
        .option("checkpointLocation", dir.join("ck").display())
        .option("checkpointInterval", interval)
        .start()
}

/// A state of many keys: what a checkpoint writes, how long a restart takes, what checkpoints cost the flow.
fn state(dir: &Path, workers: usize, millions: u64) -> highwater::Result<()> {
    let keys = millions * 1_000_000;
    let input = dir.join("in");
    fs::create_dir_all(&input).expect("made");
    for file in 0..millions {
        let name = format!("a{file:03}");
        keys_file(&input, &name, file * 1_000_000, 1_000_000, 1, keys);
    }
    let session = Session::with_workers(workers)?;
    let begun = Instant::now();
    counts(&session, dir, "1 hour", Trigger::AvailableNow)?.await_termination()?;
    let (bytes, files) = size(&dir.join("ck/state"));
    println!(
        "{millions} M keys in {:.1} s; state {:.1} MB in {files} files",
        begun.elapsed().as_secs_f64(),
        bytes as f64 / 1e6
    );
    drop(session);

    let session = Session::with_workers(workers)?;
    let begun = Instant::now();
    counts(&session, dir, "1 hour", Trigger::AvailableNow)?.await_termination()?;
    println!(
        "restart from the checkpoint, nothing new to read: {:.2} s",
        begun.elapsed().as_secs_f64()
    );

    let query = counts(&session, dir, "0 seconds", Trigger::Default)?;
    for rows in [1_000, 10_000, 100_000] {
        let mut written = Vec::new();
        for round in 0..8 {
            let name = format!("b{rows}-{round}");
            let before = names(&dir.join("ck/state"));
            keys_file(&input, &name, round * rows, rows, 7_919, keys);
            query.process_all_available()?;
            std::thread::sleep(Duration::from_millis(600));
            let after = names(&dir.join("ck/state"));
            let new: u64 = after
                .iter()
                .filter(|(name, _)| before.iter().all(|(old, _)| old != name))
                .map(|(_, bytes)| bytes)
                .sum();
            written.push(new);
        }
        written.sort_unstable();
        println!(
            "an epoch of {rows} keys: its checkpoint writes {:.3} MB (median; {:.3} to {:.3})",
            written[written.len() / 2] as f64 / 1e6,
            written[0] as f64 / 1e6,
            written[written.len() - 1] as f64 / 1e6
        );
    }
    query.stop()?;

    let turns = [("none", "1 hour"), ("one a second", "1 second")];
    for (turn, (label, interval)) in turns.repeat(2).into_iter().enumerate() {
        for file in 0..10 {
            let name = format!("c{turn}-{file}");
            keys_file(&input, &name, file * 500_000, 500_000, 7_919, keys);
        }
        let cpu = resources().1;
        let begun = Instant::now();
        let query = counts(&session, dir, interval, Trigger::Default)?;
        query.process_all_available()?;
        println!(
            "5 M rows over {millions} M keys, checkpoints {label}: {:.2} s, {:.2} CPU s",
            begun.elapsed().as_secs_f64(),
            resources().1 - cpu
        );
        query.stop()?;
    }
    println!("resident memory {} MiB", resources().0);
    Ok(())
}

fn names(dir: &Path) -> Vec<(String, u64)> {
    fs::read_dir(dir)
        .map(|entries| {
            entries
                .flatten()
                .filter_map(|entry| {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    Some((name, entry.metadata().ok()?.len()))
                })
                .filter(|(name, _)| !name.starts_with('.'))
                .collect()
        })
        .unwrap_or_default()
}

/// Very many epochs: directory, memory and restart at the end against the beginning.
fn epochs(dir: &Path, workers: usize, count: u64) -> highwater::Result<()> {
    let start = |session: &Session| {
        session
            .read_stream()
            .format("rate-micro-batch")
            .option("rowsPerBatch", 10)
            .load()?
            .select_expr(["value % 1000 AS k"])?
            .group_by(["k"])?
            .count()?
            .write_stream()
            .output_mode(OutputMode::Update)
            .format("noop")
            .option("checkpointLocation", dir.join("ck").display())
            .option("checkpointInterval", "2 seconds")
            .start()
    };
    let begun = Instant::now();
    let session = Session::with_workers(workers)?;
    let query = start(&session)?;
    let mut next = count / 100;
    while query.committed().epochs < count {
        std::thread::sleep(Duration::from_millis(5));
        if query.committed().epochs >= next {
            let (bytes, files) = size(dir);
            println!(
                "{:>7} epochs after {:>6.1} s: {:.2} MB in {files} files, {} MiB resident",
                query.committed().epochs,
                begun.elapsed().as_secs_f64(),
                bytes as f64 / 1e6,
                resources().0
            );
            next = if next < count / 10 {
                count / 10
            } else {
                next + count / 10
            };
        }
        if let Some(error) = query.exception() {
            return Err(error);
        }
    }
    query.stop()?;
    drop(session);
    let session = Session::with_workers(workers)?;
    let begun = Instant::now();
    let query = start(&session)?;
    while query.committed().epochs == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!(
        "restart to the first new epoch: {:.3} s",
        begun.elapsed().as_secs_f64()
    );
    query.stop()
}

/// A file query and a socket query with nothing to do.
fn idle(dir: &Path, workers: usize) -> highwater::Result<()> {
    fs::create_dir_all(dir.join("in")).expect("made");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let session = Session::with_workers(workers)?;
    let files = session.read_stream().format("text").path(dir.join("in"));
    let _files = files
        .load()?
        .write_stream()
        .format("parquet")
        .path(dir.join("out"))
        .option("checkpointLocation", dir.join("ck").display())
        .start()?;
    let socket = session.read_stream().format("socket");
    let _socket = socket
        .option("host", "127.0.0.1")
        .option("port", port)
        .load()?
        .write_stream()
        .format("console")
        .start()?;
    let _peer = listener.accept().expect("connected");
    std::thread::sleep(Duration::from_secs(2));
    let before = resources().1;
    std::thread::sleep(Duration::from_secs(30));
    println!("CPU of 30 idle seconds: {:.2} s", resources().1 - before);
    Ok(())
}

/// A day of windows: rows at a constant rate, an epoch a minute of event time, windows of ten minutes that slide by five,
/// a watermark ten minutes back. What the state holds hour by hour, and the slowest epoch.
fn day(dir: &Path, workers: usize, rows_a_minute: i64) -> highwater::Result<()> {
    const KEYS: i64 = 1_000;
    let session = Session::with_workers(workers)?;
    let (stream, frame) = session.memory_stream("k BIGINT, v BIGINT, ts TIMESTAMP")?;
    frame.create_or_replace_temp_view("ev")?;
    let query = session
        .sql(
            "SELECT window(ts, '10 minutes', '5 minutes') AS w, k, count(*) AS n, sum(v) AS s \
             FROM ev WATERMARK ts DELAY OF INTERVAL 10 MINUTES GROUP BY 1, 2",
        )?
        .write_stream()
        .output_mode(OutputMode::Append)
        .format("noop")
        .option("checkpointLocation", dir.join("ck").display())
        // The stream keeps its rows until a checkpoint has them.
        .option("checkpointInterval", "1 second")
        .start()?;
    println!("hour  state rows  state KB  resident MiB  slowest epoch ms");
    let mut slowest = Duration::ZERO;
    for minute in 0..24 * 60_i64 {
        let row = |index: i64| minute * rows_a_minute + index;
        let indices = || (0..rows_a_minute).map(row);
        let start = 1_704_067_200_000_000 + minute * 60_000_000;
        let step = 60_000_000 / rows_a_minute;
        // Up to a minute out of order.
        let times = (0..rows_a_minute).map(|i| start + i * step - (i * 7_919) % 60_000_000);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(
                indices().map(|i| i * 31 % KEYS),
            )),
            Arc::new(Int64Array::from_iter_values(indices())),
            Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")),
        ];
        let rows = RecordBatch::try_new(stream.schema(), columns).expect("columns fit");
        let begun = Instant::now();
        stream.add(rows)?;
        query.process_all_available()?;
        slowest = slowest.max(begun.elapsed());
        if minute % 120 == 119 {
            let state = query.last_progress();
            let state = state.iter().flat_map(|progress| &progress.state_operators);
            let (mut rows, mut bytes) = (0, 0);
            for operator in state {
                rows += operator.num_rows_total;
                bytes += operator.memory_used_bytes;
            }
            println!(
                "{:4}  {rows:10}  {:8}  {:12}  {:16.1}",
                (minute + 1) / 60,
                bytes / 1024,
                resources().0,
                slowest.as_secs_f64() * 1e3
            );
            slowest = Duration::ZERO;
        }
    }
    query.stop()
}

/// A state in memory, then the same with a quarter of its size allowed: each in a process of its own, which has a peak.
fn spill(dir: &Path, workers: usize, millions: u64, rows: u64) -> highwater::Result<()> {
    let input = dir.join("in");
    let keys = millions * 1_000_000;
    fs::create_dir_all(&input).expect("made");
    // Every key three times, in three orders.
    for (turn, step) in [1, 7_919, 15_485_863].into_iter().enumerate() {
        for (file, first) in (0..keys).step_by(rows as usize).enumerate() {
            let name = format!("{turn}{file:05}");
            keys_file(&input, &name, first, rows.min(keys - first), step, keys);
        }
    }
    let run = |memory: &str| {
        let program = std::env::current_exe().expect("this program has a path");
        let output = std::process::Command::new(program)
            .args(["spill-one", "--memory", memory, "-w", &workers.to_string()])
            .args(["--keys", &millions.to_string()])
            .arg("--dir")
            .arg(dir)
            .stderr(std::process::Stdio::inherit())
            .output()
            .expect("started");
        assert!(output.status.success(), "the run with {memory} failed");
        let text = String::from_utf8(output.stdout).expect("text");
        let told: Vec<f64> = text
            .split_whitespace()
            .filter_map(|part| part.parse().ok())
            .collect();
        let [seconds, cpu, peak, state] = told[..] else {
            panic!("not four numbers: {text}")
        };
        println!(
            "memoryMax {memory}: {seconds:.1} s, {cpu:.1} CPU s, peak {peak:.0} MiB, state {state:.0} MiB"
        );
        (seconds, peak, state)
    };
    let whole = run("100g");
    let limit = (whole.2 / 4.0) as u64;
    let limited = run(&format!("{limit}m"));
    println!(
        "a quarter of its state in memory: {:.2} times as long, peak {:.0} MiB above the limit; same answers",
        limited.0 / whole.0,
        limited.1 - limit as f64
    );
    Ok(())
}

/// One run of [`spill`]: how often each key came, counted by how often.
fn spill_one(dir: &Path, workers: usize, millions: u64, memory: &str) -> highwater::Result<()> {
    let begun = Instant::now();
    let session = Session::builder()
        .workers(workers)
        .conf("highwater.state.memoryMax", memory)
        .conf("highwater.spill.directory", dir.join("spill").display());
    let session = Session::start(session)?;
    let lines = session.read_stream().format("text");
    let lines = lines.option("maxFilesPerTrigger", 1).path(dir.join("in"));
    let keys = lines.load()?.select_expr(["CAST(value AS BIGINT) AS k"])?;
    keys.create_or_replace_temp_view("keys")?;
    let query = session
        .sql(
            "SELECT n, count(*) AS keys, sum(k) AS s \
             FROM (SELECT k, count(*) AS n FROM keys GROUP BY k) GROUP BY n",
        )?
        .write_stream()
        .output_mode(OutputMode::Complete)
        .format("memory")
        .query_name("turns")
        .trigger(Trigger::AvailableNow)
        .start()?;
    query.await_termination()?;
    let answers = session.sql("SELECT * FROM turns")?.collect()?;
    let value = |column: usize| {
        let column = answers[0].column(column).as_any();
        column
            .downcast_ref::<Int64Array>()
            .expect("bigint")
            .value(0)
    };
    let keys = millions as i64 * 1_000_000;
    let rows: usize = answers.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(
        (rows, value(0), value(1), value(2)),
        (1, 3, keys, keys * (keys - 1) / 2)
    );
    let state: u64 = query
        .last_progress()
        .iter()
        .flat_map(|progress| &progress.state_operators)
        .map(|operator| operator.memory_used_bytes)
        .sum();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next())
        .and_then(|kilobytes| kilobytes.parse().ok())
        .unwrap_or(0.0);
    println!(
        "{} {} {} {}",
        begun.elapsed().as_secs_f64(),
        resources().1,
        peak / 1024.0,
        state >> 20
    );
    Ok(())
}

fn main() -> highwater::Result<()> {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let value = |name: &str| {
        let place = args.iter().position(|argument| argument == name)?;
        args.get(place + 1).cloned()
    };
    let number = |name: &str, default: u64| {
        value(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let workers = number("-w", 2) as usize;
    let dir = value("--dir").unwrap_or_else(|| "target/durable".into());
    let dir = Path::new(&dir);
    let measure = args.first().map(String::as_str);
    if measure != Some("spill-one") {
        // What an earlier measurement left belongs to another query.
        for left in ["in", "out", "ck"] {
            let _ = fs::remove_dir_all(dir.join(left));
        }
    }
    match measure {
        Some("state") => state(dir, workers, number("--keys", 10)),
        Some("epochs") => epochs(dir, workers, number("--count", 100_000)),
        Some("idle") => idle(dir, workers),
        Some("spill") => spill(
            dir,
            workers,
            number("--keys", 10),
            number("--rows", 1_000_000),
        ),
        Some("spill-one") => {
            let memory = value("--memory").unwrap_or_else(|| "40%".into());
            spill_one(dir, workers, number("--keys", 10), &memory)
        }
        Some("day") => day(dir, workers, number("--rows", 10_000) as i64),
        _ => {
            println!(
                "durable state|epochs|idle|spill|day --dir DIR [-w WORKERS] [--keys MILLIONS] [--count EPOCHS] [--rows A_FILE_OR_MINUTE]"
            );
            Ok(())
        }
    }
}
