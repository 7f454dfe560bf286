//! Sinks of files, from options to what readers see.

mod formats;

use std::fs;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, TimeUnit};
use highwater_engine::source::SourceRequest;
use tempfile::TempDir;

use super::*;
use crate::conformance;
use crate::files::committed::CommittedLister;
use crate::files::listing::Directory;
use crate::files::options::FileOptions;
use highwater_text::json::{JsonDecoder, JsonOptions};

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

pub(super) fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
    let field = |(name, data_type): &(&str, DataType)| Field::new(*name, data_type.clone(), true);
    Arc::new(Schema::new(fields.iter().map(field).collect::<Vec<_>>()))
}

pub(super) fn rows(schema: &SchemaRef, json: &str) -> RecordBatch {
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let mut decoder = JsonDecoder::new(schema, &all, JsonOptions::default()).unwrap();
    decoder.decode_lines(json.as_bytes(), usize::MAX).unwrap();
    decoder.flush().unwrap()
}

pub(super) fn request(path: &Path, schema: &SchemaRef, options: &[(&str, &str)]) -> SinkRequest {
    let mut request = SinkRequest {
        options: Options::default(),
        path: Some(path.to_str().unwrap().into()),
        partition_by: Vec::new(),
        schema: Arc::clone(schema),
        key: Vec::new(),
        mode: OutputMode::Append,
        query_name: None,
        query_id: conformance::QUERY_ID.into(),
        streaming: true,
        time_zone: "UTC".into(),
        case_sensitive: false,
    };
    for (name, value) in options {
        request.options.set(name, value);
    }
    request
}

pub(super) fn factory(name: &'static str, request: SinkRequest) -> Arc<dyn SinkFactory> {
    FileFormat { name }.sink(request).unwrap()
}

fn refusal(name: &'static str, request: SinkRequest) -> String {
    FileFormat { name }.sink(request).err().unwrap().to_string()
}

/// Lists what the log of a directory says.
pub(super) fn lister(directory: &Path) -> CommittedLister {
    let directory = Directory {
        path: directory.to_str().unwrap().into(),
        partition: Vec::new(),
    };
    CommittedLister::new(Arc::new(directory), &FileOptions::default())
}

/// Names of visible files below, in order.
pub(super) fn visible(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else {
        return found;
    };
    for entry in entries {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with(['.', '_']) && !name.contains('=') {
            continue;
        }
        if entry.path().is_dir() {
            found.extend(
                visible(&entry.path())
                    .iter()
                    .map(|below| format!("{name}/{below}")),
            );
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

/// Writes one epoch with one worker, and answers its only file.
fn write(
    name: &'static str,
    schema: &SchemaRef,
    json: &str,
    options: &[(&str, &str)],
) -> (TempDir, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let factory = factory(name, request(&dir.path().join("out"), schema, options));
    let mut sink = factory.open(0).unwrap();
    let mut writer = factory.writer(0, "1f-2e", 0).unwrap();
    writer.write(0, &rows(schema, json)).unwrap();
    let receipt = writer.stage(0..=0).unwrap();
    sink.commit(0..=0, &[receipt]).unwrap();
    let files = visible(&dir.path().join("out"));
    assert_eq!(files.len(), 1);
    let bytes = fs::read(dir.path().join("out").join(&files[0])).unwrap();
    (dir, bytes)
}

fn text(name: &'static str, schema: &SchemaRef, json: &str, options: &[(&str, &str)]) -> String {
    String::from_utf8(write(name, schema, json, options).1).unwrap()
}

/// How many rows a batch read of the directory sees.
pub(super) fn count(name: &str, directory: &Path, schema: &SchemaRef) -> usize {
    read_back(name, directory, schema).map_or(0, |rows| rows.num_rows())
}

/// What a batch read of the directory sees, if it is there.
fn read_back(name: &str, directory: &Path, schema: &SchemaRef) -> Option<RecordBatch> {
    let format = super::super::sources()
        .into_iter()
        .find(|(format, _)| *format == name)
        .unwrap()
        .1;
    let mut request = SourceRequest {
        options: Options::default(),
        path: Some(directory.to_str().unwrap().into()),
        schema: Some(Arc::clone(schema)),
        streaming: false,
        time_zone: "UTC".into(),
    };
    request.options.set("recursiveFileLookup", "true");
    if !directory.exists() {
        return None;
    }
    let factory = format.source(request).unwrap();
    let mut source = factory.open().unwrap();
    let (from, to) = (source.initial().unwrap(), source.latest().unwrap());
    let admitted = source.admit(&from, &to, u64::MAX).unwrap();
    let splits = admitted.map_or(Vec::new(), |admitted| admitted.splits);
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let reader = factory.reader();
    Some(conformance::read(reader.as_ref(), &factory.schema(), &splits, &all).unwrap())
}

#[test]
fn every_format_conforms() {
    let one = schema(&[("s", DataType::Utf8)]);
    for name in ["text", "json", "csv", "parquet", "orc"] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("below/out");
        conformance::sink(
            &|| factory(name, request(&out, &one, &[])),
            &rows(&one, "{\"s\":\"a\"}\n{\"s\":\"b\"}\n{\"s\":\"c\"}\n"),
            &|| count(name, &out, &one),
        );
    }
    let two = schema(&[("k", DataType::Int32), ("s", DataType::Utf8)]);
    let data = schema(&[("s", DataType::Utf8)]);
    let dir = tempfile::tempdir().unwrap();
    let partitioned = || SinkRequest {
        partition_by: vec!["k".into()],
        ..request(dir.path(), &two, &[])
    };
    conformance::sink(
        &|| factory("parquet", partitioned()),
        &rows(
            &two,
            "{\"k\":1,\"s\":\"a\"}\n{\"k\":2,\"s\":\"b\"}\n{\"s\":\"c\"}\n",
        ),
        &|| count("parquet", dir.path(), &data),
    );
    // And what was partitioned is found again with its column.
    let format = super::super::sources()
        .into_iter()
        .find(|(format, _)| *format == "parquet");
    let source = format.unwrap().1.source(SourceRequest {
        options: Options::default(),
        path: Some(dir.path().to_str().unwrap().into()),
        schema: Some(Arc::clone(&two)),
        streaming: true,
        time_zone: "UTC".into(),
    });
    let read = conformance::source(source.unwrap().as_ref());
    assert_eq!((read.num_rows(), read.column(1).null_count()), (36, 12));
    let files = visible(dir.path());
    assert_eq!(files[0], "k=1/part-00000-0-1f-2e.snappy.parquet");
    assert!(
        files
            .iter()
            .any(|file| file.starts_with("k=__HIVE_DEFAULT_PARTITION__/part-00011-1-"))
    );
}

#[test]
fn a_value_too_long_for_a_name_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let two = schema(&[("k", DataType::Utf8), ("v", DataType::Int32)]);
    let factory = factory(
        "json",
        SinkRequest {
            partition_by: vec!["k".into()],
            ..request(dir.path(), &two, &[])
        },
    );
    factory.open(0).unwrap();
    let mut writer = factory.writer(0, conformance::QUERY_ID, 0).unwrap();
    let row = |key: &str| rows(&two, &format!("{{\"k\":\"{key}\",\"v\":1}}\n"));
    // `k=` and 253 bytes, of which an escape takes three.
    writer
        .write(0, &row(&format!("{}:", "x".repeat(250))))
        .unwrap();
    for key in ["x".repeat(254), "é".repeat(127), ":".repeat(85)] {
        let error = writer.write(0, &row(&key)).unwrap_err();
        assert_eq!(error.retry, highwater_engine::source::Retry::Never);
        let text = error.source.to_string();
        assert!(text.starts_with("column \"k\" has a value"), "{text}");
        assert!(text.contains("more than the 255"), "{text}");
    }
}

#[test]
fn fewer_workers_take_over_from_more() {
    let one = schema(&[("s", DataType::Utf8)]);
    let dir = tempfile::tempdir().unwrap();
    let make = || factory("json", request(dir.path(), &one, &[]));
    let batch = rows(&one, "{\"s\":\"a\"}\n{\"s\":\"b\"}\n");
    let stage = |epoch: u64| {
        let two = (0..2).map(|worker| {
            let mut writer = make().writer(worker, "1f-2e", 1).unwrap();
            writer.write(epoch, &batch.slice(worker, 1)).unwrap();
            writer.stage(epoch..=epoch).unwrap()
        });
        two.collect::<Vec<_>>()
    };
    let mut sink = make().open(1).unwrap();
    sink.commit(0..=0, &stage(0)).unwrap();
    stage(1);
    // They died, and came back as one.
    let mut sink = make().open(2).unwrap();
    assert_eq!(sink.committed().unwrap(), Some(0));
    let staged = dir.path().join("_highwater_staged/1f-2e");
    assert_eq!(fs::read_dir(staged.join("2")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(staged).unwrap().count(), 1);
    let mut writer = make().writer(0, "1f-2e", 2).unwrap();
    writer.write(1, &batch).unwrap();
    let receipt = writer.stage(1..=3).unwrap();
    sink.commit(1..=3, &[receipt]).unwrap();
    assert_eq!(count("json", dir.path(), &one), 4);
    let expected = [
        "part-00000-0-1f-2e.json",
        "part-00000-1-1f-2e.json",
        "part-00001-0-1f-2e.json",
    ];
    assert_eq!(visible(dir.path()), expected);
    // A run that is cut elsewhere than what is there cannot be told from it.
    let error = sink.commit(3..=4, &[]).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        cause.contains("has the epochs up to 3 of this query"),
        "{cause}"
    );
}

#[test]
fn json_is_written_as_spark_does() {
    let schema = schema(&[
        ("t", instant()),
        ("s", DataType::Utf8),
        ("f", DataType::Float64),
    ]);
    let json = "{\"t\":\"2024-01-01\",\"f\":1}\n{\"s\":\"a\\n\\\"\"}\n{}\n";
    let expected = "{\"t\":\"2024-01-01T00:00:00.000Z\",\"f\":1.0}\n{\"s\":\"a\\n\\\"\"}\n{}\n";
    assert_eq!(text("json", &schema, json, &[]), expected);
    let zoned = text("json", &schema, json, &[("timeZone", "+02:00")]);
    assert!(zoned.starts_with("{\"t\":\"2024-01-01T02:00:00.000+02:00\""));
}

#[test]
fn csv_is_written_as_spark_does() {
    let schema = schema(&[
        ("i", DataType::Int64),
        ("s", DataType::Utf8),
        ("t", instant()),
    ]);
    let json = "{\"i\":-5,\"s\":\"plain\",\"t\":\"2024-01-01\"}\n{\"s\":\"a,b \\\"c\\\"\"}\n{\"i\":0,\"s\":\"\"}\n{\"s\":\" x \"}\n";
    let expected = "-5,plain,2024-01-01T00:00:00.000Z\n,\"a,b \\\"c\\\"\",\n0,\"\",\n,x,\n";
    assert_eq!(text("csv", &schema, json, &[]), expected);
    let options = [("header", "true"), ("sep", ";"), ("nullValue", "-")];
    let expected = "i;s;t\n-5;plain;2024-01-01T00:00:00.000Z\n-;a,b \"c\";-\n";
    let found = text("csv", &schema, json, &options);
    assert!(
        found.starts_with(&expected.replace("a,b \"c\"", "\"a,b \\\"c\\\"\"")),
        "{found}"
    );
}

#[test]
fn what_is_compressed_can_be_read_back() {
    let schema = schema(&[("s", DataType::Utf8)]);
    let json = "{\"s\":\"a\"}\n{\"s\":\"b\"}\n";
    for (name, codec) in [
        ("text", "gzip"),
        ("json", "gzip"),
        ("csv", "gzip"),
        ("parquet", "zstd"),
        ("parquet", "gzip"),
        ("parquet", "lz4_raw"),
        ("parquet", "none"),
    ] {
        let (dir, _) = write(name, &schema, json, &[("compression", codec)]);
        assert_eq!(
            count(name, &dir.path().join("out"), &schema),
            2,
            "{name} {codec}"
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let error = refusal(
        "json",
        request(dir.path(), &schema, &[("compression", "lzo")]),
    );
    assert_eq!(
        error,
        "option \"compression\" of the json sink cannot be \"lzo\": it is gzip or none"
    );
}

#[test]
fn batches_may_promise_no_nulls() {
    let strict = Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, false)]));
    let column: arrow::array::ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![1, 2]));
    let batch = RecordBatch::try_new(strict, vec![column]).unwrap();
    let schema = schema(&[("n", DataType::Int32)]);
    let dir = tempfile::tempdir().unwrap();
    let factory = factory("parquet", request(dir.path(), &schema, &[]));
    let mut sink = factory.open(0).unwrap();
    let mut writer = factory.writer(0, "1f-2e", 0).unwrap();
    writer.write(0, &batch).unwrap();
    writer.write(0, &rows(&schema, "{}")).unwrap();
    let receipt = writer.stage(0..=0).unwrap();
    sink.commit(0..=0, &[receipt]).unwrap();
    assert_eq!(count("parquet", dir.path(), &schema), 3);
}

#[test]
fn partition_names_are_one_step_of_a_path() {
    let schema = schema(&[("k", DataType::Utf8), ("n", DataType::Int32)]);
    let dir = tempfile::tempdir().unwrap();
    let request = SinkRequest {
        partition_by: vec!["k".into()],
        ..request(dir.path(), &schema, &[])
    };
    let factory = factory("json", request);
    let mut sink = factory.open(0).unwrap();
    let mut writer = factory.writer(3, "1f-2e", 0).unwrap();
    writer
        .write(
            7,
            &rows(
                &schema,
                "{\"k\":\"a/../b=c\",\"n\":1}\n{\"k\":\"\",\"n\":2}\n",
            ),
        )
        .unwrap();
    let receipt = writer.stage(7..=8).unwrap();
    sink.commit(7..=8, &[receipt]).unwrap();
    assert_eq!(
        visible(dir.path()),
        [
            "k=__HIVE_DEFAULT_PARTITION__/part-00007-3-1f-2e.json",
            "k=a%2F..%2Fb%3Dc/part-00007-3-1f-2e.json"
        ]
    );
}

#[test]
fn wrong_requests_are_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let one = schema(&[("s", DataType::Utf8)]);
    let base = || request(dir.path(), &one, &[]);
    let error = refusal(
        "parquet",
        SinkRequest {
            mode: OutputMode::Update,
            ..base()
        },
    );
    assert!(error.starts_with("data source parquet does not support update output mode"));
    let error = refusal(
        "json",
        SinkRequest {
            mode: OutputMode::Complete,
            ..base()
        },
    );
    assert!(error.starts_with("data source json does not support complete output mode"));
    fs::write(dir.path().join("file"), "x").unwrap();
    let error = refusal("json", request(&dir.path().join("file"), &one, &[]));
    assert!(
        error.ends_with("file\" is a file, not a directory; remove it or write elsewhere"),
        "{error}"
    );
    let error = refusal(
        "json",
        SinkRequest {
            path: None,
            ..base()
        },
    );
    assert_eq!(error, "the json sink needs option \"path\"");
    let error = refusal(
        "json",
        SinkRequest {
            partition_by: vec!["x".into()],
            ..base()
        },
    );
    assert_eq!(
        error,
        "the json sink cannot partition by column \"x\": there is none"
    );
    let error = refusal(
        "json",
        SinkRequest {
            partition_by: vec!["s".into()],
            ..base()
        },
    );
    assert_eq!(
        error,
        "the json sink needs at least one column that is in the files"
    );
    let two = schema(&[
        ("a", DataType::Int32),
        ("l", DataType::new_list(DataType::Int32, true)),
    ]);
    assert!(
        refusal("text", request(dir.path(), &two, &[]))
            .starts_with("the text sink writes one column")
    );
    assert!(
        refusal("csv", request(dir.path(), &two, &[]))
            .starts_with("the csv sink cannot write column \"l\" of type ARRAY<INT>: cast it")
    );
    let error = refusal("csv", request(dir.path(), &one, &[("lineSep", "abc")]));
    assert!(error.ends_with("it is one or two characters"), "{error}");
    let error = refusal("csv", request(dir.path(), &one, &[("locale", "de-DE")]));
    assert_eq!(
        error,
        "option \"locale\" of the csv sink cannot be \"de-DE\": only \"en-us\" is supported"
    );
}

#[test]
fn a_column_is_written_once() {
    let dir = tempfile::tempdir().unwrap();
    let twice = schema(&[("a", DataType::Int32), ("A", DataType::Int32)]);
    let once = schema(&[("k", DataType::Utf8), ("n", DataType::Int32)]);
    let of = |schema: &SchemaRef, by: &[&str], case_sensitive: bool| {
        let request = SinkRequest {
            partition_by: by.iter().map(|name| name.to_string()).collect(),
            case_sensitive,
            ..request(dir.path(), schema, &[])
        };
        let sink = sinks().into_iter().find(|(name, _)| *name == "json");
        sink.unwrap().1.sink(request)
    };
    for (schema, by) in [
        (&twice, &[][..]),
        (&once, &["k", "K"]),
        (&once, &["k", "k"]),
    ] {
        let Err(FormatError::Invalid { message, class }) = of(schema, by, false) else {
            panic!("{by:?} is taken");
        };
        assert_eq!(class, Some("COLUMN_ALREADY_EXISTS"));
        assert!(message.contains("twice"), "{message}");
    }
    assert!(of(&once, &["K"], false).is_ok());
    assert!(of(&once, &["K"], true).is_err());
    assert!(of(&twice, &[], true).is_ok());
    let error = refusal(
        "text",
        request(dir.path(), &schema(&[("n", DataType::Int32)]), &[]),
    );
    assert!(
        error.contains("column \"n\" is of type INT: cast it"),
        "{error}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_and_no_panic() {
    let one = schema(&[("s", DataType::Utf8)]);
    for name in ["text", "json", "csv", "parquet"] {
        let dir = tempfile::tempdir().unwrap();
        let factory = factory(name, request(dir.path(), &one, &[]));
        factory.open(0).unwrap();
        let mut writer = factory.writer(0, "1f-2e", 0).unwrap();
        std::os::unix::fs::symlink(
            "/dev/full",
            dir.path().join("_highwater_staged/1f-2e/0/open-0.0"),
        )
        .unwrap();
        let written = writer.write(0, &rows(&one, "{\"s\":\"a\"}"));
        let error = written.and_then(|()| writer.stage(0..=0)).unwrap_err();
        let mut cause: &dyn std::error::Error = &error;
        let mut told = String::new();
        while let Some(next) = cause.source() {
            told.push_str(&format!("{next}: "));
            cause = next;
        }
        assert!(told.contains("No space left"), "{name}: {told}");
    }
}

#[test]
fn a_lost_part_is_told() {
    let one = schema(&[("s", DataType::Utf8)]);
    let dir = tempfile::tempdir().unwrap();
    let factory = factory("json", request(dir.path(), &one, &[]));
    let mut sink = factory.open(0).unwrap();
    let mut writer = factory.writer(0, "1f-2e", 0).unwrap();
    writer.write(0, &rows(&one, "{\"s\":\"a\"}")).unwrap();
    let receipt = writer.stage(0..=0).unwrap();
    for entry in fs::read_dir(dir.path().join("_highwater_staged/1f-2e/0")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let error = sink.commit(0..=0, &[receipt]).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        cause.contains("is gone or changed before it was committed"),
        "{cause}"
    );
}
