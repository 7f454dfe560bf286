//! The end-to-end jobs: whole queries over generated files, from source to sink, timed from start to end.
//!
//! `cargo bench --bench jobs -- JOB --data DIR --out DIR [-w WORKERS]` prints one line `RESULT {..}`.

#![allow(clippy::disallowed_methods, reason = "a bench measures time")]
#![allow(clippy::print_stdout, reason = "a bench prints its result")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use highwater::ClusterConfig;
use highwater::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Job {
    /// Directories of the inputs, below the data directory: each is a stream by the last part of its name.
    inputs: &'static [&'static str],
    /// Files of static rows, likewise.
    tables: &'static [&'static str],
    query: Query,
    mode: OutputMode,
    /// The sink's format: "parquet" writes below the output directory.
    sink: &'static str,
}

enum Query {
    Sql(&'static str),
    /// First rows by these columns, within the watermark or for good.
    First(&'static str, &'static [&'static str], bool),
}

/// The columns of an input; a text file has none.
fn schema(input: &str) -> &'static str {
    match input {
        "devices" => {
            "device STRING, signal BIGINT, time TIMESTAMP, type STRING, site STRING, seq BIGINT, battery BIGINT"
        }
        "highcard" => "k BIGINT, v BIGINT",
        "dups" => "id STRING, time TIMESTAMP, user BIGINT, value BIGINT, attempt BIGINT",
        "sessions" => "user STRING, time TIMESTAMP, page STRING, ms BIGINT",
        "impressions" => {
            "impression_id BIGINT, impression_time TIMESTAMP, campaign STRING, user BIGINT"
        }
        "clicks" => "click_impression_id BIGINT, click_time TIMESTAMP, cost BIGINT",
        "orders" => {
            "order_id BIGINT, order_date DATE, order_customer_id BIGINT, order_status STRING"
        }
        "order_items" => {
            "order_item_id BIGINT, order_item_order_id BIGINT, order_item_customer_id BIGINT, order_item_product_id BIGINT, \
             order_item_quantity BIGINT, order_item_subtotal DECIMAL(10,2), order_item_product_price DECIMAL(10,2)"
        }
        "customers" => {
            "customer_id BIGINT, customer_fname STRING, customer_lname STRING, customer_email STRING, customer_street STRING, \
             customer_city STRING, customer_state STRING, customer_zipcode STRING"
        }
        "products" => {
            "product_id BIGINT, product_category STRING, product_name STRING, product_price DECIMAL(10,2)"
        }
        "person" => {
            "id BIGINT, name STRING, emailAddress STRING, creditCard STRING, city STRING, state STRING, dateTime TIMESTAMP, extra STRING"
        }
        "auction" => {
            "id BIGINT, itemName STRING, description STRING, initialBid BIGINT, reserve BIGINT, dateTime TIMESTAMP, \
             expires TIMESTAMP, seller BIGINT, category BIGINT, extra STRING"
        }
        "bid" => {
            "auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, dateTime TIMESTAMP, extra STRING"
        }
        _ => "",
    }
}

const WINDOWS: &str = "SELECT w.start AS wstart, w.end AS wend, device, avg_signal, cnt FROM (\
     SELECT window(time, '10 minutes', '5 minutes') AS w, device, avg(signal) AS avg_signal, count(*) AS cnt \
     FROM devices WATERMARK time DELAY OF INTERVAL 10 MINUTES GROUP BY 1, 2)";

fn job(name: &str) -> Option<Job> {
    use OutputMode::{Append, Complete, Update};
    use Query::{First, Sql};
    let job = |inputs, query, mode, sink| Job {
        inputs,
        tables: &[],
        query,
        mode,
        sink,
    };
    const ADS: &[&str] = &["ads/impressions", "ads/clicks"];
    const BID: &[&str] = &["nexmark/bid"];
    let query = match name {
        "wordcount" => job(
            &["words"],
            Sql(
                "SELECT word, count(*) AS count FROM (SELECT explode(split(value, ' ')) AS word FROM words) GROUP BY word",
            ),
            Complete,
            "memory",
        ),
        "etl" => job(
            &["devices"],
            Sql("SELECT device, signal FROM devices WHERE signal > 15"),
            Append,
            "parquet",
        ),
        "highcard" => job(
            &["highcard"],
            Sql("SELECT k, count(*) AS cnt, sum(v) AS sum FROM highcard GROUP BY k"),
            Update,
            "noop",
        ),
        "window_avg" => job(&["devices"], Sql(WINDOWS), Append, "parquet"),
        "window_update" => job(&["devices"], Sql(WINDOWS), Update, "noop"),
        "sessions" => job(
            &["sessions"],
            Sql("SELECT user, w.start AS sstart, w.end AS send, cnt FROM (\
                 SELECT session_window(time, '5 minutes') AS w, user, count(*) AS cnt \
                 FROM sessions WATERMARK time DELAY OF INTERVAL 10 MINUTES GROUP BY 1, 2)"),
            Append,
            "parquet",
        ),
        "ss_inner" => job(
            ADS,
            Sql(
                "SELECT impression_id, impression_time, campaign, click_time, cost \
                 FROM impressions WATERMARK impression_time DELAY OF INTERVAL 10 MINUTES AS i \
                 JOIN clicks WATERMARK click_time DELAY OF INTERVAL 20 MINUTES AS k \
                 ON click_impression_id = impression_id AND click_time >= impression_time \
                 AND click_time <= impression_time + INTERVAL 1 HOUR",
            ),
            Append,
            "parquet",
        ),
        "ss_left" => job(
            ADS,
            Sql(
                "SELECT impression_id, impression_time, campaign, click_time, cost \
                 FROM impressions WATERMARK impression_time DELAY OF INTERVAL 10 MINUTES AS i \
                 LEFT JOIN clicks WATERMARK click_time DELAY OF INTERVAL 20 MINUTES AS k \
                 ON click_impression_id = impression_id AND click_time >= impression_time \
                 AND click_time <= impression_time + INTERVAL 1 HOUR",
            ),
            Append,
            "parquet",
        ),
        "dedup" => job(
            &["dups"],
            First("dups", &["id", "time"], false),
            Append,
            "parquet",
        ),
        "dedup_within" => job(&["dups"], First("dups", &["id"], true), Append, "parquet"),
        "static_join" => Job {
            tables: &["retail/customers.csv"],
            ..job(
                &["retail/orders"],
                Sql(
                    "SELECT customer_state, order_status, count(*) AS orders FROM orders \
                     JOIN customers ON order_customer_id = customer_id GROUP BY customer_state, order_status",
                ),
                Complete,
                "memory",
            )
        },
        "static_join3" => Job {
            tables: &["retail/customers.csv", "retail/products.csv"],
            ..job(
                &["retail/order_items"],
                Sql(
                    "SELECT customer_id, count(*) AS items, sum(order_item_quantity) AS quantity, \
                     sum(order_item_subtotal) AS amount FROM order_items \
                     JOIN products ON order_item_product_id = product_id \
                     JOIN customers ON order_item_customer_id = customer_id GROUP BY customer_id",
                ),
                Update,
                "noop",
            )
        },
        "q0" => job(
            BID,
            Sql("SELECT auction, bidder, price, dateTime, extra FROM bid"),
            Append,
            "noop",
        ),
        "q1" => job(
            BID,
            Sql(
                "SELECT auction, bidder, CAST(price AS DECIMAL(15,0)) * CAST('0.908' AS DECIMAL(4,3)) AS price, \
                 dateTime, extra FROM bid",
            ),
            Append,
            "noop",
        ),
        "q2" => job(
            BID,
            Sql("SELECT auction, price FROM bid WHERE auction % 123 = 0"),
            Append,
            "noop",
        ),
        "q3" => job(
            &["nexmark/auction", "nexmark/person"],
            Sql(
                "SELECT name, city, state, a.id FROM auction a JOIN person p ON a.seller = p.id \
                 WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')",
            ),
            Append,
            "noop",
        ),
        "q4" => job(
            &["nexmark/auction", "nexmark/bid"],
            Sql("SELECT category, avg(final) AS final FROM (\
                 SELECT a.id, category, max(price) AS final FROM auction a JOIN bid b \
                 ON a.id = b.auction AND b.dateTime BETWEEN a.dateTime AND expires GROUP BY a.id, category) GROUP BY category"),
            Update,
            "noop",
        ),
        "q5" => job(
            BID,
            Sql(
                "SELECT w.start AS wstart, w.end AS wend, -m.na AS auction, m.num AS num FROM (\
                 SELECT w, max(named_struct('num', num, 'na', -auction)) AS m FROM (\
                 SELECT window(dateTime, '10 seconds', '2 seconds') AS w, auction, count(*) AS num \
                 FROM bid WATERMARK dateTime DELAY OF INTERVAL 4 SECONDS GROUP BY 1, 2) GROUP BY w)",
            ),
            Append,
            "noop",
        ),
        "q7" => job(
            BID,
            Sql(
                "SELECT w.start AS wstart, w.end AS wend, -m.na AS auction, -m.nb AS bidder, m.price AS price FROM (\
                 SELECT window(dateTime, '10 seconds') AS w, max(named_struct('price', price, 'na', -auction, 'nb', -bidder)) AS m \
                 FROM bid WATERMARK dateTime DELAY OF INTERVAL 4 SECONDS GROUP BY 1)",
            ),
            Append,
            "noop",
        ),
        "q8" => job(
            &["nexmark/person", "nexmark/auction"],
            Sql("SELECT id, name, w.start AS wstart, w.end AS wend FROM (\
                 SELECT window(dateTime, '10 seconds') AS w, id, name, count(*) AS n \
                 FROM person WATERMARK dateTime DELAY OF INTERVAL 4 SECONDS GROUP BY 1, 2, 3) p JOIN (\
                 SELECT window(dateTime, '10 seconds') AS aw, seller, count(*) AS n \
                 FROM auction WATERMARK dateTime DELAY OF INTERVAL 4 SECONDS GROUP BY 1, 2) a \
                 ON p.id = a.seller AND p.w = a.aw"),
            Append,
            "noop",
        ),
        _ => return None,
    };
    Some(query)
}

/// The name of an input as a view.
fn view(input: &str) -> &str {
    let name = input.rsplit('/').next().unwrap_or(input);
    name.strip_suffix(".csv").unwrap_or(name)
}

fn frame(session: &Session, job: &Job, data: &Path) -> highwater::Result<DataFrame> {
    for input in job.inputs {
        let columns = schema(view(input));
        let reader = session
            .read_stream()
            .format(if columns.is_empty() { "text" } else { "json" })
            .path(data.join(input))
            .option("maxFilesPerTrigger", 4);
        let frame = match columns.is_empty() {
            true => reader.load()?,
            false => reader.schema(columns)?.load()?,
        };
        frame.create_or_replace_temp_view(view(input))?;
    }
    for table in job.tables {
        let reader = session.read().format("csv").option("header", true);
        let rows = reader
            .path(data.join(table))
            .schema(schema(view(table)))?
            .load()?;
        rows.create_or_replace_temp_view(view(table))?;
    }
    match job.query {
        Query::Sql(text) => session.sql(text),
        Query::First(input, keys, within) => {
            let rows = session.table(input)?.with_watermark("time", "10 minutes")?;
            let rows = match within {
                true => rows.drop_duplicates_within_watermark(keys.iter().copied())?,
                false => rows.drop_duplicates(keys.iter().copied())?,
            };
            rows.select(["id", "time", "user", "value"])
        }
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
    let frame = frame(&session, &job, &data)?;
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
    let rows: u64 = job
        .inputs
        .iter()
        .map(|input| manifest_rows(&data, input))
        .sum();
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
