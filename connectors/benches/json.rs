//! JSON to columns, beside arrow-json: nanoseconds of processor time per row for rows that look alike and for rows
//! that do not.
//!
//! `cargo bench -p highwater-connectors --bench json [NAME]` prints one line per kind of rows. Both decoders get the
//! same megabyte blocks of whole lines and hand out batches of 8,192 rows; they take turns, and the best turn of each
//! counts, so that other work on the machine disturbs neither more than the other.

#![allow(clippy::print_stdout, reason = "a bench prints its result")]

use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use highwater_text::json::{JsonDecoder, JsonOptions};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const INPUT_BYTES: usize = 8 << 20;
const BLOCK_BYTES: usize = 1 << 20;
const BATCH_ROWS: usize = 8192;
const TURNS: usize = 4;
/// The kernel counts in steps of 4 ms.
const TURN_NS: u64 = 150_000_000;

/// One kind of rows.
struct Kind {
    name: &'static str,
    schema: Schema,
    row: fn(&mut StdRng, &mut String),
    /// What is read of them, if not all.
    columns: Option<Vec<usize>>,
}

fn schema(columns: &[(&str, DataType)]) -> Schema {
    let field = |(name, data_type): &(&str, DataType)| Field::new(*name, data_type.clone(), true);
    Schema::new(columns.iter().map(field).collect::<Vec<_>>())
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn bid_schema() -> Schema {
    schema(&[
        ("auction", DataType::Int64),
        ("bidder", DataType::Int64),
        ("price", DataType::Int64),
        ("channel", DataType::Utf8),
        ("url", DataType::Utf8),
        ("dateTime", timestamp()),
        ("extra", DataType::Utf8),
    ])
}

fn letters(random: &mut StdRng, len: usize) -> String {
    let letter = |_| char::from(random.random_range(b'a'..=b'z'));
    (0..len).map(letter).collect()
}

fn instant(random: &mut StdRng) -> String {
    format!(
        "2024-01-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        random.random_range(1..29),
        random.random_range(0..24),
        random.random_range(0..60),
        random.random_range(0..60),
        random.random_range(0..1000)
    )
}

fn bid(random: &mut StdRng, out: &mut String) {
    let extra_len = random.random_range(110..170);
    write!(
        out,
        "{{\"auction\":{},\"bidder\":{},\"price\":{},\"channel\":\"channel-{}\",\
         \"url\":\"https://www.example.com/{}/item.htm?query=1&channel_id={}\",\"dateTime\":\"{}\",\"extra\":\"{}\"}}",
        random.random_range(1000..200_000),
        random.random_range(1000..50_000),
        random.random_range(100..10_000_000),
        random.random_range(0..10_000),
        letters(random, 12),
        random.random_range(0..1_000_000_000),
        instant(random),
        letters(random, extra_len),
    )
    .expect("a string takes all");
}

fn device_schema() -> Schema {
    schema(&[
        ("device", DataType::Utf8),
        ("signal", DataType::Int64),
        ("time", timestamp()),
        ("type", DataType::Utf8),
        ("site", DataType::Utf8),
        ("seq", DataType::Int64),
        ("battery", DataType::Float64),
    ])
}

fn device(random: &mut StdRng, out: &mut String) {
    write!(
        out,
        "{{\"device\":\"sensor-{:06}-{}\",\"signal\":{},\"time\":\"{}\",\"type\":\"{}\",\
         \"site\":\"plant {} / hall {} / row {}, {}\",\"seq\":{},\"battery\":{:.3}}}",
        random.random_range(0..100_000),
        letters(random, 20),
        random.random_range(0..40),
        instant(random),
        ["temperature", "pressure", "humidity"][random.random_range(0..3)],
        random.random_range(0..50),
        random.random_range(0..20),
        random.random_range(0..200),
        letters(random, 50),
        random.random_range(0..10_000_000),
        random.random::<f64>() * 100.0,
    )
    .expect("a string takes all");
}

fn fields_of(random: &mut StdRng) -> Vec<String> {
    let mut row = String::new();
    device(random, &mut row);
    // No value of this row has a comma followed by a quote.
    let inner = &row[1..row.len() - 1];
    let mut fields: Vec<String> = inner
        .split(",\"")
        .map(|field| format!("\"{field}"))
        .collect();
    fields[0].remove(0);
    fields
}

fn put(out: &mut String, fields: &[String]) {
    write!(out, "{{{}}}", fields.join(",")).expect("a string takes all");
}

fn shuffled(random: &mut StdRng, out: &mut String) {
    let mut fields = fields_of(random);
    for at in (1..fields.len()).rev() {
        fields.swap(at, random.random_range(0..=at));
    }
    put(out, &fields);
}

fn sparse(random: &mut StdRng, out: &mut String) {
    let mut fields = fields_of(random);
    fields.retain(|_| random.random::<bool>());
    put(out, &fields);
}

fn nulls(random: &mut StdRng, out: &mut String) {
    let mut fields = fields_of(random);
    for field in &mut fields {
        if random.random::<bool>() {
            let colon = field.find(':').expect("every field has a value");
            field.truncate(colon + 1);
            field.push_str("null");
        }
    }
    put(out, &fields);
}

fn spaced(random: &mut StdRng, out: &mut String) {
    let fields = fields_of(random);
    let spaced: Vec<String> = fields
        .iter()
        .map(|field| field.replacen("\":", "\" : ", 1))
        .collect();
    write!(out, "{{ {} }}", spaced.join(", ")).expect("a string takes all");
}

fn nested_schema() -> Schema {
    let pair = Fields::from(vec![
        Field::new("lat", DataType::Float64, true),
        Field::new("lon", DataType::Float64, true),
        Field::new("name", DataType::Utf8, true),
    ]);
    let entries = Fields::from(vec![
        Field::new("keys", DataType::Utf8, false),
        Field::new("values", DataType::Int64, true),
    ]);
    let entries = Field::new("entries", DataType::Struct(entries), false);
    schema(&[
        ("id", DataType::Int64),
        ("place", DataType::Struct(pair.clone())),
        ("tags", DataType::new_list(DataType::Utf8, true)),
        ("readings", DataType::new_list(DataType::Float64, true)),
        ("path", DataType::new_list(DataType::Struct(pair), true)),
        ("counts", DataType::Map(Arc::new(entries), false)),
    ])
}

fn nested(random: &mut StdRng, out: &mut String) {
    let place = |random: &mut StdRng| {
        format!(
            "{{\"lat\":{:.5},\"lon\":{:.5},\"name\":\"{}\"}}",
            random.random::<f64>() * 90.0,
            random.random::<f64>() * 180.0,
            letters(random, 8)
        )
    };
    let list = |random: &mut StdRng, item: &dyn Fn(&mut StdRng) -> String| {
        let count = random.random_range(0..5);
        (0..count)
            .map(|_| item(random))
            .collect::<Vec<_>>()
            .join(",")
    };
    let id = random.random::<u32>();
    let here = place(random);
    let tags = list(random, &|random| format!("\"{}\"", letters(random, 6)));
    let readings = list(random, &|random| format!("{:.4}", random.random::<f64>()));
    let path = list(random, &place);
    let counts = list(random, &|random| {
        format!("\"{}\":{}", letters(random, 3), random.random::<u16>())
    });
    write!(
        out,
        "{{\"id\":{id},\"place\":{here},\"tags\":[{tags}],\"readings\":[{readings}],\"path\":[{path}],\
         \"counts\":{{{counts}}}}}"
    )
    .expect("a string takes all");
}

fn escapes(random: &mut StdRng, out: &mut String) {
    let text = |random: &mut StdRng| {
        let pieces = [
            "\\n",
            "\\\"",
            "\\u00e9",
            "\\\\",
            "plain",
            "Zürich",
            "\\ud83d\\ude00",
            " and more of it ",
        ];
        let count = random.random_range(1..12);
        (0..count)
            .map(|_| pieces[random.random_range(0..pieces.len())])
            .collect::<String>()
    };
    let (a, b) = (text(random), text(random));
    write!(out, "{{\"a\":\"{a}\",\"b\":\"{b}\"}}").expect("a string takes all");
}

fn long(random: &mut StdRng, out: &mut String) {
    let len = random.random_range(500..4000);
    let text = letters(random, len);
    write!(out, "{{\"a\":\"{text}\",\"b\":\"{len}\"}}").expect("a string takes all");
}

/// Many fields, of which few are known.
fn wide(random: &mut StdRng, out: &mut String) {
    out.push('{');
    for at in 0..40 {
        let comma = if at == 0 { "" } else { "," };
        match at % 4 {
            0 => write!(out, "{comma}\"field_{at}\":{}", random.random::<u32>()),
            1 => write!(out, "{comma}\"field_{at}\":\"{}\"", letters(random, 10)),
            2 => write!(out, "{comma}\"field_{at}\":{:.2}", random.random::<f64>()),
            _ => write!(out, "{comma}\"field_{at}\":{{\"x\":[1,2,{at}],\"y\":null}}"),
        }
        .expect("a string takes all");
    }
    out.push('}');
}

/// Names that never come again.
fn names(random: &mut StdRng, out: &mut String) {
    out.push('{');
    for _ in 0..6 {
        write!(
            out,
            "\"{}\":{},",
            letters(random, 12),
            random.random::<u16>()
        )
        .expect("a string takes all");
    }
    write!(out, "\"a\":\"{}\",\"b\":\"x\"}}", letters(random, 5)).expect("a string takes all");
}

fn kinds() -> Vec<Kind> {
    let kind = |name, schema, row| Kind {
        name,
        schema,
        row,
        columns: None,
    };
    let part = |name, schema, row, columns: &[usize]| Kind {
        name,
        schema,
        row,
        columns: Some(columns.to_vec()),
    };
    let texts = || schema(&[("a", DataType::Utf8), ("b", DataType::Utf8)]);
    vec![
        kind("bid", bid_schema(), bid),
        part("bid: 3 of 7", bid_schema(), bid, &[0, 2, 5]),
        kind("device", device_schema(), device),
        part("device: 2 of 7", device_schema(), device, &[0, 1]),
        kind(
            "word",
            schema(&[("word", DataType::Utf8)]),
            |random, out| {
                let len = random.random_range(2..10);
                write!(out, "{{\"word\":\"{}\"}}", letters(random, len))
                    .expect("a string takes all");
            },
        ),
        kind("any order", device_schema(), shuffled),
        kind("half absent", device_schema(), sparse),
        kind("half null", device_schema(), nulls),
        kind("blanks", device_schema(), spaced),
        kind("nested", nested_schema(), nested),
        kind("escapes", texts(), escapes),
        kind("long texts", texts(), long),
        part(
            "wide: 2 of 40",
            schema(&[("field_0", DataType::Int64), ("field_25", DataType::Utf8)]),
            wide,
            &[0, 1],
        ),
        kind("new names", texts(), names),
    ]
}

/// Nanoseconds this thread has run.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ran = stat.split(' ').next().and_then(|ns| ns.parse().ok());
    ran.expect("this bench reads /proc, which Linux has")
}

/// Reads again and again. Answers the time and rows of one reading.
fn timed(read: impl Fn() -> usize) -> (f64, usize) {
    let start = cpu_ns();
    let mut times = 0;
    loop {
        let rows = read();
        times += 1;
        let ns = cpu_ns() - start;
        if ns >= TURN_NS {
            return (ns as f64 / f64::from(times), rows);
        }
    }
}

/// `text` in blocks of whole lines.
fn blocks(text: &str) -> Vec<&[u8]> {
    let mut rest = text.as_bytes();
    let mut blocks = Vec::new();
    while rest.len() > BLOCK_BYTES {
        let end = memchr::memrchr(b'\n', &rest[..BLOCK_BYTES]).map_or(rest.len(), |at| at + 1);
        blocks.push(&rest[..end]);
        rest = &rest[end..];
    }
    blocks.push(rest);
    blocks
}

fn ours(kind: &Kind, columns: &[usize], blocks: &[&[u8]]) -> usize {
    let mut decoder =
        JsonDecoder::new(&kind.schema, columns, JsonOptions::default()).expect("a schema");
    let mut rows = 0;
    for block in blocks {
        let mut rest = *block;
        while !rest.is_empty() {
            let taken = decoder.decode_lines(rest, BATCH_ROWS).expect("rows");
            rest = &rest[taken..];
            if decoder.rows() >= BATCH_ROWS {
                rows += decoder.flush().expect("a batch").num_rows();
            }
        }
    }
    rows + decoder.flush().expect("a batch").num_rows()
}

fn theirs(kind: &Kind, columns: &[usize], blocks: &[&[u8]]) -> usize {
    let schema = kind.schema.project(columns).expect("columns");
    let mut decoder = arrow_json::ReaderBuilder::new(Arc::new(schema))
        .with_batch_size(BATCH_ROWS)
        .build_decoder()
        .expect("a schema");
    let mut rows = 0;
    for block in blocks {
        let mut rest = *block;
        while !rest.is_empty() {
            let taken = decoder.decode(rest).expect("rows");
            rest = &rest[taken..];
            if decoder.len() >= BATCH_ROWS {
                rows += decoder
                    .flush()
                    .expect("a batch")
                    .map_or(0, |batch| batch.num_rows());
            }
        }
    }
    rows + decoder
        .flush()
        .expect("a batch")
        .map_or(0, |batch| batch.num_rows())
}

fn main() {
    // Cargo adds `--bench`.
    let wanted = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"));
    println!(
        "{:16} {:>8} {:>12} {:>12} {:>7}",
        "rows", "bytes", "ours ns", "arrow-json", "times"
    );
    for kind in kinds() {
        if wanted
            .as_ref()
            .is_some_and(|wanted| !kind.name.starts_with(wanted.as_str()))
        {
            continue;
        }
        let mut random = StdRng::seed_from_u64(1);
        let mut text = String::with_capacity(INPUT_BYTES + BLOCK_BYTES);
        while text.len() < INPUT_BYTES {
            (kind.row)(&mut random, &mut text);
            text.push('\n');
        }
        let blocks = blocks(&text);
        let all: Vec<usize> = (0..kind.schema.fields().len()).collect();
        let columns = kind.columns.as_ref().unwrap_or(&all);
        let (mut best, mut best_theirs) = (f64::MAX, f64::MAX);
        let mut rows = 0;
        for _ in 0..TURNS {
            let (ns, read) = timed(|| ours(&kind, columns, &blocks));
            best = best.min(ns);
            let (ns, read_theirs) = timed(|| theirs(&kind, columns, &blocks));
            best_theirs = best_theirs.min(ns);
            assert_eq!(read, read_theirs, "{}: as many rows", kind.name);
            rows = read;
        }
        println!(
            "{:16} {:8} {:12.1} {:12.1} {:7.2}",
            kind.name,
            text.len() / rows,
            best / rows as f64,
            best_theirs / rows as f64,
            best_theirs / best,
        );
    }
}
