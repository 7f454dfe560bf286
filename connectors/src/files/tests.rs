//! Sources of files, from options to rows.

#![allow(clippy::disallowed_methods, reason = "a test gives up after a time")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use highwater_engine::source::{Offset, Planned, Resume, Waker};
use tempfile::TempDir;

mod formats;
mod infer;
mod restart;
mod scale;

use super::*;
use crate::conformance;
use highwater_text::view::{JsonStyle, View, push_json_object};

mod columnar;

fn request(path: &Path, streaming: bool) -> SourceRequest {
    SourceRequest {
        options: Options::default(),
        path: Some(path.to_str().unwrap().into()),
        schema: None,
        streaming,
        time_zone: "UTC".into(),
    }
}

fn factory(
    name: &'static str,
    request: SourceRequest,
) -> Result<Arc<dyn SourceFactory>, FormatError> {
    FileFormat { name }.source(request)
}

fn refusal(name: &'static str, request: SourceRequest) -> String {
    factory(name, request).err().unwrap().to_string()
}

fn schema(fields: &[(&str, DataType)]) -> Option<SchemaRef> {
    let field = |(name, data_type): &(&str, DataType)| Field::new(*name, data_type.clone(), true);
    Some(Arc::new(Schema::new(
        fields.iter().map(field).collect::<Vec<_>>(),
    )))
}

/// Writes a file that is `age` seconds old.
fn write(dir: &TempDir, name: &str, text: impl AsRef<[u8]>, age: u64) {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    let modified = SystemTime::now() - Duration::from_secs(age);
    let times = fs::FileTimes::new().set_modified(modified);
    fs::File::options()
        .append(true)
        .open(&path)
        .unwrap()
        .set_times(times)
        .unwrap();
}

/// One text per row, cells between bars.
fn show(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
        .collect();
    (0..batch.num_rows())
        .map(|row| {
            let cells: Vec<_> = columns.iter().map(|c| c.value(row).to_string()).collect();
            cells.join("|")
        })
        .collect()
}

/// Everything a batch read gives.
fn read(name: &'static str, request: SourceRequest) -> Result<RecordBatch, String> {
    let factory = factory(name, request).map_err(|error| error.to_string())?;
    let told = |error: SourceError| {
        let cause = std::error::Error::source(&error).unwrap();
        match cause.source() {
            Some(inner) => format!("{cause}: {inner}"),
            None => cause.to_string(),
        }
    };
    let mut source = factory.open().map_err(told)?;
    let from = source.initial().map_err(told)?;
    let to = source.latest().map_err(told)?;
    assert!(source.ended());
    let schema = factory.schema();
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let admitted = source.admit(&from, &to, u64::MAX).map_err(told)?;
    let splits = admitted.map_or(Vec::new(), |admitted| admitted.splits);
    conformance::read(factory.reader().as_ref(), &schema, &splits, &all).map_err(told)
}

fn batch(dir: &TempDir) -> SourceRequest {
    request(dir.path(), false)
}

fn stream(dir: &TempDir) -> SourceRequest {
    request(dir.path(), true)
}

fn with(mut request: SourceRequest, options: &[(&str, &str)]) -> SourceRequest {
    for (name, value) in options {
        request.options.set(name, value);
    }
    request
}

fn typed(mut request: SourceRequest, fields: &[(&str, DataType)]) -> SourceRequest {
    request.schema = schema(fields);
    request
}

/// The first lines of the files that each epoch of a text stream would read now.
fn epochs(source: &mut dyn Source, from: &mut Offset) -> Vec<Vec<String>> {
    let to = source.latest().unwrap();
    let mut epochs = Vec::new();
    while let Some(admitted) = source.admit(from, &to, u64::MAX).unwrap() {
        let name = |split: &highwater_engine::source::Split| {
            let path = FileSplit::parse(split).unwrap().path;
            path.rsplit('/').next().unwrap().to_string()
        };
        epochs.push(admitted.splits.iter().map(name).collect());
        *from = admitted.end;
    }
    epochs
}

#[test]
fn every_format_conforms() {
    let dir = tempfile::tempdir().unwrap();
    write(
        &dir,
        "a",
        "{\"a\":1,\"s\":\"x\"}\n{\"a\":\"bad\",\"s\":\"y\"}\n",
        2,
    );
    write(&dir, "b", "{\"s\":\"z\"}\noops\n", 1);
    let fields = [
        ("a", DataType::Int32),
        ("s", DataType::Utf8),
        ("_corrupt_record", DataType::Utf8),
    ];
    let json = factory("json", typed(stream(&dir), &fields)).unwrap();
    assert_eq!(
        show(&conformance::source(json.as_ref())),
        [
            "1|x|null",
            "null|y|{\"a\":\"bad\",\"s\":\"y\"}",
            "null|z|null",
            "null|null|oops"
        ]
    );
    let text = factory("text", stream(&dir)).unwrap();
    assert_eq!(conformance::source(text.as_ref()).num_rows(), 4);

    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a.csv", "1,x\nbad,y\n", 2);
    write(&dir, "b.csv", "\n3\n", 1);
    for mode in ["PERMISSIVE", "DROPMALFORMED"] {
        let request = with(typed(stream(&dir), &fields), &[("mode", mode)]);
        let csv = factory("csv", request).unwrap();
        let expected: &[&str] = match mode {
            "PERMISSIVE" => &["1|x|null", "null|y|bad,y", "3|null|3"],
            _ => &["1|x|null"],
        };
        assert_eq!(show(&conformance::source(csv.as_ref())), expected);
    }
}

#[test]
fn files_are_read_once_in_order_of_their_times() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "b", "1", 30);
    write(&dir, "a", "2", 20);
    write(&dir, "c", "3", 20);
    let factory = factory("text", stream(&dir)).unwrap();
    let mut source = factory.open().unwrap();
    assert_eq!(
        source.watch(Waker::new(|| {})).unwrap(),
        highwater_engine::source::Watch::PollEveryMs(10)
    );
    let mut at = source.initial().unwrap();
    assert_eq!(epochs(source.as_mut(), &mut at), [["b", "a", "c"]]);
    assert!(epochs(source.as_mut(), &mut at).is_empty());
    write(&dir, "e", "5", 1);
    write(&dir, "d", "4", 2);
    assert_eq!(epochs(source.as_mut(), &mut at), [["d", "e"]]);
    assert_eq!(at.0.to_string(), r#"{"logOffset":5}"#);
    source.committed(&at).unwrap();
}

#[test]
fn epochs_keep_to_their_limits() {
    let dir = tempfile::tempdir().unwrap();
    for (age, name) in ["a", "b", "c", "d", "e"].iter().rev().enumerate() {
        write(&dir, name, "123456789\n", age as u64);
    }
    let run = |options: &[(&str, &str)]| {
        let factory = factory("text", with(stream(&dir), options)).unwrap();
        let mut source = factory.open().unwrap();
        let mut at = source.initial().unwrap();
        let epochs = epochs(source.as_mut(), &mut at);
        epochs
            .iter()
            .map(|epoch| epoch.concat())
            .collect::<Vec<_>>()
    };
    assert_eq!(run(&[("maxFilesPerTrigger", "2")]), ["ab", "cd", "e"]);
    assert_eq!(run(&[("maxBytesPerTrigger", "25")]), ["ab", "cd", "e"]);
    assert_eq!(
        run(&[("maxBytesPerTrigger", "1")]),
        ["a", "b", "c", "d", "e"]
    );
    assert_eq!(
        run(&[("maxFilesPerTrigger", "2"), ("latestFirst", "true")]),
        ["ed", "cb", "a"]
    );
    assert_eq!(run(&[("pathGlobFilter", "[a-c]")]), ["abc"]);
    assert_eq!(
        refusal(
            "text",
            with(
                stream(&dir),
                &[("maxFilesPerTrigger", "1"), ("maxBytesPerTrigger", "1")]
            )
        ),
        "the text stream takes option \"maxFilesPerTrigger\" or \"maxBytesPerTrigger\", not both"
    );
}

#[test]
fn old_files_that_come_late_count_as_seen() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "new", "1", 0);
    write(&dir, "old", "2", 7200);
    let request = with(stream(&dir), &[("maxFileAge", "1h")]);
    let factory = factory("text", request).unwrap();
    let mut source = factory.open().unwrap();
    let mut at = source.initial().unwrap();
    assert_eq!(epochs(source.as_mut(), &mut at), [["old", "new"]]);
    write(&dir, "older", "3", 7200);
    write(&dir, "newer", "4", 60);
    assert_eq!(epochs(source.as_mut(), &mut at), [["newer"]]);
}

#[test]
fn files_of_one_name_can_be_one_file() {
    let dir = tempfile::tempdir().unwrap();
    for below in ["x", "y"] {
        fs::create_dir(dir.path().join(below)).unwrap();
        write(&dir, &format!("{below}/f"), below, 1);
    }
    let options = [("recursiveFileLookup", "true"), ("fileNameOnly", "true")];
    let factory = factory("text", with(stream(&dir), &options)).unwrap();
    let mut source = factory.open().unwrap();
    let mut at = source.initial().unwrap();
    assert_eq!(epochs(source.as_mut(), &mut at), [["f"]]);
}

#[test]
fn a_restarted_source_knows_what_was_logged() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a", "1", 3);
    write(&dir, "b", "2", 2);
    let config = |dir: &TempDir| {
        Arc::new(FileConfig {
            connector: "text",
            path: dir.path().to_str().unwrap().into(),
            options: FileOptions::default(),
            format: Format::Text,
            rules: TextRules::default(),
            schema: Arc::new(Schema::empty()),
            streaming: true,
            zone: Zone::UTC,
        })
    };
    let mut source = FileSource::open(config(&dir)).unwrap();
    let initial = source.initial().unwrap();
    let to = source.latest().unwrap();
    let admitted = source.admit(&initial, &to, u64::MAX).unwrap().unwrap();
    drop(source);
    write(&dir, "c", "3", 1);
    let mut source = FileSource::open(config(&dir)).unwrap();
    let planned = [Planned {
        start: initial.clone(),
        end: admitted.end.clone(),
        splits: admitted.splits.clone(),
    }];
    let resume = Resume {
        at: &initial,
        oldest: &initial,
        memory: &mut std::iter::empty(),
        planned: &planned,
    };
    source.resume(resume).unwrap();
    let mut at = admitted.end;
    assert_eq!(epochs(&mut source, &mut at), [["c"]]);
    assert_eq!(at.0.to_string(), r#"{"logOffset":3}"#);
}

#[test]
fn long_files_are_cut_and_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let line = |n: usize| format!("{n:07} {}\n", "x".repeat(n % 90));
    let text: String = (0..1_300_000).map(line).collect();
    assert!(text.len() > 64 << 20);
    write(&dir, "long", &text, 1);
    let factory = factory("text", stream(&dir)).unwrap();
    let mut source = factory.open().unwrap();
    let (from, to) = (source.initial().unwrap(), source.latest().unwrap());
    let splits = source.admit(&from, &to, u64::MAX).unwrap().unwrap().splits;
    assert_eq!(splits.len(), text.len().div_ceil(32 << 20));
    let rows =
        conformance::read(source.reader().as_ref(), &factory.schema(), &splits, &[0]).unwrap();
    assert_eq!(rows.num_rows(), 1_300_000);
    let values = rows.column(0).as_string::<i32>();
    assert!(
        values
            .iter()
            .zip(text.lines())
            .all(|(value, line)| value == Some(line))
    );
}

#[test]
fn compressed_files_are_read_and_damaged_ones_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for n in 0..10_000 {
        writeln!(encoder, "{{\"a\":{n}}}").unwrap();
    }
    let bytes = encoder.finish().unwrap();
    write(&dir, "a.json.gz", &bytes, 1);
    let fields = [("a", DataType::Int64)];
    let rows = read("json", typed(batch(&dir), &fields)).unwrap();
    let sum: i64 = rows
        .column(0)
        .as_primitive::<Int64Type>()
        .values()
        .iter()
        .sum();
    assert_eq!((rows.num_rows(), sum), (10_000, 49_995_000));

    write(&dir, "a.json.gz", &bytes[..bytes.len() / 2], 1);
    let error = read("json", typed(batch(&dir), &fields)).unwrap_err();
    assert!(
        error.contains("a.json.gz\" is no whole gzip file"),
        "{error}"
    );
    let skipping = with(
        typed(batch(&dir), &fields),
        &[("ignoreCorruptFiles", "true")],
    );
    assert!(read("json", skipping).is_ok());

    write(&dir, "b.xz", b"x", 1);
    fs::remove_file(dir.path().join("a.json.gz")).unwrap();
    let error = read("text", batch(&dir)).unwrap_err();
    assert!(
        error.contains("b.xz\" is compressed as \"xz\", which is not supported yet"),
        "{error}"
    );
}

#[test]
fn files_that_vanish_or_shrink_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let admit = |options: &[(&str, &str)]| {
        write(&dir, "a", "one\ntwo\n", 1);
        let factory = factory("text", with(stream(&dir), options)).unwrap();
        let mut source = factory.open().unwrap();
        let (from, to) = (source.initial().unwrap(), source.latest().unwrap());
        let splits = source.admit(&from, &to, u64::MAX).unwrap().unwrap().splits;
        (source.reader(), splits)
    };
    let told = |reader: &dyn Reader, splits: &[highwater_engine::source::Split]| {
        let error = reader.read(&splits[0], &[0]).err().unwrap();
        std::error::Error::source(&error).unwrap().to_string()
    };
    let (reader, splits) = admit(&[]);
    fs::write(dir.path().join("a"), "one\n").unwrap();
    assert!(told(reader.as_ref(), &splits).contains("shrank from 8 to 4 bytes"));
    fs::remove_file(dir.path().join("a")).unwrap();
    assert!(told(reader.as_ref(), &splits).contains("is gone since the epoch"));
    let (reader, splits) = admit(&[("ignoreMissingFiles", "true")]);
    fs::remove_file(dir.path().join("a")).unwrap();
    assert_eq!(reader.read(&splits[0], &[0]).unwrap().count(), 0);
    // What was appended after the epoch was planned belongs to nobody.
    let (reader, splits) = admit(&[]);
    fs::write(dir.path().join("a"), "one\ntwo\nthree\n").unwrap();
    let rows: usize = reader
        .read(&splits[0], &[0])
        .unwrap()
        .map(|batch| batch.unwrap().num_rows())
        .sum();
    assert_eq!(rows, 2);
}

#[test]
fn text_reads_every_line_end_and_mends_what_is_no_utf8() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a", b"\xef\xbb\xbfone\r\ntwo\r\n\nthr\xffee\nlast", 1);
    let rows = read("text", batch(&dir)).unwrap();
    assert_eq!(show(&rows), ["one", "two", "", "thr\u{fffd}ee", "last"]);
}

#[test]
fn csv_takes_its_names_from_the_header() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a.csv", "name,,n\nann,x,1\n\"bob, jr\",,2\n", 1);
    let rows = read("csv", with(batch(&dir), &[("header", "true")])).unwrap();
    let names: Vec<_> = rows
        .schema()
        .fields()
        .iter()
        .map(|f| f.name().clone())
        .collect();
    assert_eq!(names, ["name", "_c1", "n"]);
    assert_eq!(show(&rows), ["ann|x|1", "bob, jr|null|2"]);
    let rows = read("csv", batch(&dir)).unwrap();
    assert_eq!(rows.schema().field(2).name(), "_c2");
    assert_eq!(rows.num_rows(), 3);
}

#[test]
fn csv_cells_are_read_by_type() {
    let dir = tempfile::tempdir().unwrap();
    let lines = "1;1.5;true;2024-01-05;2024-01-05T10:00:00Z;12.345\n# no row\n   \n-;NaN;FALSE;2024-1-5;2024-01-05;7\nx;x;x;x;x;x\n";
    write(&dir, "a.csv", lines, 1);
    let fields = [
        ("i", DataType::Int32),
        ("f", DataType::Float64),
        ("b", DataType::Boolean),
        ("d", DataType::Date32),
        (
            "t",
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ),
        ("m", DataType::Decimal128(5, 2)),
    ];
    let options = [("sep", ";"), ("comment", "#"), ("nullValue", "-")];
    let request = || with(typed(batch(&dir), &fields), &options);
    assert_eq!(
        show(&read("csv", request()).unwrap()),
        [
            "1|1.5|true|2024-01-05|2024-01-05T10:00:00Z|12.35",
            "null|NaN|false|2024-01-05|2024-01-05T00:00:00Z|7.00",
            "null|null|null|null|null|null",
        ]
    );
    let error = read("csv", with(request(), &[("mode", "FAILFAST")])).unwrap_err();
    assert!(
        error.contains("line 5 is malformed: \"x\" is no value of column \"i\""),
        "{error}"
    );
}

#[test]
fn parquet_adapts_to_the_schema() {
    let dir = tempfile::tempdir().unwrap();
    let written = Schema::new(vec![
        Field::new("id", DataType::Int32, false),
        Field::new("name", DataType::Utf8, true),
    ]);
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(arrow::array::Int32Array::from(vec![1, 2])),
        Arc::new(arrow::array::StringArray::from(vec![Some("a"), None])),
    ];
    let rows = RecordBatch::try_new(Arc::new(written), columns).unwrap();
    let file = fs::File::create(dir.path().join("a.parquet")).unwrap();
    let mut writer = ::parquet::arrow::ArrowWriter::try_new(file, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();

    assert_eq!(
        show(&read("parquet", batch(&dir)).unwrap()),
        ["1|a", "2|null"]
    );
    let fields = [
        ("more", DataType::Float64),
        ("NAME", DataType::Utf8),
        ("id", DataType::Int64),
    ];
    let factory = factory("parquet", typed(stream(&dir), &fields)).unwrap();
    assert_eq!(
        show(&conformance::source(factory.as_ref())),
        ["null|a|1", "null|null|2"]
    );
    let error = read("parquet", typed(batch(&dir), &[("id", DataType::Int16)])).unwrap_err();
    assert!(
        error.contains("is INT, which cannot be read as SMALLINT"),
        "{error}"
    );

    write(&dir, "a.parquet", "no parquet at all", 1);
    let error = read("parquet", typed(batch(&dir), &[("id", DataType::Int32)])).unwrap_err();
    assert!(
        error.contains("a.parquet\" is no readable Parquet file"),
        "{error}"
    );
}

#[test]
fn a_batch_reads_files_in_order_of_their_paths() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "b", "{\"a\":2}", 3);
    write(&dir, "a", "{\"a\":1}", 1);
    let rows = read("json", typed(batch(&dir), &[("a", DataType::Int32)])).unwrap();
    assert_eq!(rows.column(0).as_primitive::<Int32Type>().values(), &[1, 2]);
    let one = request(&dir.path().join("b"), false);
    assert_eq!(read("text", one).unwrap().num_rows(), 1);
    let none = tempfile::tempdir().unwrap();
    assert_eq!(read("text", batch(&none)).unwrap().num_rows(), 0);
}

#[test]
fn directories_tell_values_of_columns() {
    let dir = tempfile::tempdir().unwrap();
    for (below, n) in [
        ("day=2024-01-05/k=1", 1),
        ("day=2024-01-06/k=__HIVE_DEFAULT_PARTITION__", 2),
    ] {
        fs::create_dir_all(dir.path().join(below)).unwrap();
        write(
            &dir,
            &format!("{below}/f.json"),
            format!("{{\"n\":{n}}}\n"),
            5 - n,
        );
        write(&dir, &format!("{below}/f.csv"), format!("{n}\n"), 5 - n);
    }
    let one = dir.path().join("day=2024-01-05/k=1/f.json");
    assert_eq!(show(&read("json", request(&one, false)).unwrap()), ["1"]);
    for format in ["json", "csv"] {
        let filter = [(
            "pathGlobFilter",
            if format == "json" { "*.json" } else { "*.csv" },
        )];
        // Those the schema does not name come behind its columns.
        let request = with(typed(stream(&dir), &[("n", DataType::Int32)]), &filter);
        let rows = conformance::source(factory(format, request).unwrap().as_ref());
        assert_eq!(show(&rows), ["1|2024-01-05|1", "2|2024-01-06|null"]);
        assert_eq!(rows.schema().field(1).data_type(), &DataType::Date32);
        let fields = [
            ("day", DataType::Utf8),
            ("n", DataType::Int64),
            ("k", DataType::Int64),
        ];
        let request = with(typed(stream(&dir), &fields), &filter);
        let rows = conformance::source(factory(format, request).unwrap().as_ref());
        assert_eq!(show(&rows), ["1|2024-01-05|1", "2|2024-01-06|null"]);
        let fields = [("day", DataType::Int32), ("n", DataType::Int64)];
        let error = read(format, with(typed(batch(&dir), &fields), &filter)).unwrap_err();
        assert!(
            error.contains("says day=2024-01-05, which is no INT"),
            "{error}"
        );
    }
}

/// As in Spark: what directories tell is no column of the lines, wherever the schema has it, and comes behind them.
#[test]
fn lines_of_text_stand_beside_what_directories_tell() {
    use DataType::{Int32, Utf8};
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("k=1/j=u", "x\ny\n"), ("k=2/j=w", "z\n")] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
        write(&dir, &format!("{name}/f.txt"), text, 9);
    }
    type Columns<'a> = &'a [(&'a str, DataType)];
    let cases: [(Columns<'_>, [&str; 3]); 6] = [
        (
            &[("value", Utf8), ("k", Utf8), ("j", Utf8)],
            ["x|1|u", "y|1|u", "z|2|w"],
        ),
        (
            &[("j", Utf8), ("line", Utf8), ("K", Int32)],
            ["x|1|u", "y|1|u", "z|2|w"],
        ),
        (
            &[("k", Int32), ("value", Utf8)],
            ["x|1|u", "y|1|u", "z|2|w"],
        ),
        (&[("value", Utf8)], ["x|1|u", "y|1|u", "z|2|w"]),
        (&[("j", Utf8), ("k", Int32)], ["1|u", "1|u", "2|w"]),
        (&[("k", Utf8)], ["1|u", "1|u", "2|w"]),
    ];
    for (columns, expected) in cases {
        for streaming in [false, true] {
            let asked = typed(request(dir.path(), streaming), columns);
            let factory = factory("text", asked).unwrap();
            let mut rows = show(&conformance::source(factory.as_ref()));
            rows.sort();
            assert_eq!(rows, expected, "{columns:?}");
        }
    }
    let told = |columns: Columns<'_>| refusal("text", typed(batch(&dir), columns));
    assert_eq!(
        told(&[("k", Int32), ("value", Int32)]),
        "the text reader reads lines as one column of type STRING; column \"value\" is of type INT"
    );
    assert_eq!(
        told(&[("value", Utf8), ("k", Utf8), ("x", Utf8)]),
        "the text reader reads lines as one column of type STRING; the schema has 2 that no directory tells: \"value\", \
         \"x\""
    );
}

#[test]
fn directories_of_two_layouts_are_refused() {
    let told = |paths: &[&str], request: fn(&TempDir) -> SourceRequest| {
        let dir = tempfile::tempdir().unwrap();
        for path in paths {
            fs::create_dir_all(dir.path().join(path)).unwrap();
            write(&dir, &format!("{path}/f.json"), "{\"n\":1}\n", 1);
        }
        // A directory without files says nothing.
        fs::create_dir(dir.path().join("other=1")).unwrap();
        let fields = [("n", DataType::Int32)];
        factory("json", typed(request(&dir), &fields)).map(|found| found.schema())
    };
    for request in [batch as fn(&TempDir) -> SourceRequest, stream] {
        for paths in [["p=1", "q=1"], ["p=1", "p=1/q=1"], ["p=1/q=1", "q=1/p=1"]] {
            match told(&paths, request) {
                Err(FormatError::Invalid { message, class }) => {
                    assert_eq!(class, Some("CONFLICTING_PARTITION_COLUMN_NAMES"));
                    assert!(message.contains("conflicting columns"), "{message}");
                }
                other => panic!("{paths:?}: {:?}", other.is_ok()),
            }
        }
        for (path, expected) in [
            ("=1", "EMPTY_PARTITION_COLUMN_NAME"),
            ("p=", "EMPTY_PARTITION_COLUMN_VALUE"),
            ("p=1/P=2", "COLUMN_ALREADY_EXISTS"),
        ] {
            match told(&[path], request) {
                Err(FormatError::Invalid { class, .. }) => assert_eq!(class, Some(expected)),
                other => panic!("{path}: {:?}", other.is_ok()),
            }
        }
        let found = told(&["N=7", "n=8"], request).unwrap();
        assert_eq!(found.fields().len(), 1);
        let error = told(&["p=10:00:00"], request).err().unwrap().to_string();
        assert!(error.contains("as TIME (\"10:00:00\")"), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    for (path, n) in [("p=01", 1), ("P=99999999999", 2)] {
        fs::create_dir(dir.path().join(path)).unwrap();
        write(
            &dir,
            &format!("{path}/f.json"),
            format!("{{\"n\":{n}}}\n"),
            1,
        );
    }
    let found = read("json", typed(batch(&dir), &[("n", DataType::Int32)])).unwrap();
    assert_eq!(found.schema().field(1).data_type(), &DataType::Int64);
    assert_eq!(show(&found), ["2|99999999999", "1|1"]);
    // At any depth below it; what is beside it tells no value, and is none of the table.
    for below in ["p=1.5/x/y", "z"] {
        fs::create_dir_all(dir.path().join(below)).unwrap();
        write(&dir, &format!("{below}/f.json"), "{\"n\":3}\n", 1);
    }
    let found = read("json", typed(batch(&dir), &[("n", DataType::Int32)])).unwrap();
    assert_eq!(show(&found), ["2|99999999999", "1|01", "3|1.5"]);
}

#[test]
fn a_batch_of_json_finds_its_schema() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a", "{\"n\":1,\"a\":\"x\"}\n", 1);
    write(&dir, "b", "{\"n\":2.5}\noops\n", 1);
    let rows = read("json", batch(&dir)).unwrap();
    assert_eq!(
        show(&rows),
        ["null|x|1.0", "null|null|2.5", "oops|null|null"]
    );
    let none = tempfile::tempdir().unwrap();
    let error = read("json", batch(&none)).unwrap_err();
    assert!(error.contains("could not tell the schema of "), "{error}");
}

#[test]
fn json_options_reach_the_rows() {
    let dir = tempfile::tempdir().unwrap();
    let line = "{'a':007, /* b */ s:\"\\q\t\", f:\"NaN\"}\n";
    write(&dir, "rows.json", line, 0);
    let fields = [
        ("a", DataType::Int64),
        ("s", DataType::Utf8),
        ("f", DataType::Float64),
    ];
    let options = [
        ("allowNumericLeadingZeros", "true"),
        ("allowComments", "TRUE"),
        ("allowUnquotedFieldNames", "true"),
        ("allowBackslashEscapingAnyCharacter", "true"),
        ("allowUnquotedControlChars", "true"),
    ];
    let rows = |options: &[(&str, &str)]| {
        show(&read("json", with(typed(batch(&dir), &fields), options)).unwrap())
    };
    assert_eq!(rows(&options), ["7|q\t|NaN"]);
    for left_out in 0..options.len() {
        let mut fewer = options.to_vec();
        fewer.remove(left_out);
        assert_eq!(rows(&fewer), ["null|null|null"], "{fewer:?}");
    }
    let strict = [&options[..], &[("allowSingleQuotes", "false")]].concat();
    assert_eq!(rows(&strict), ["null|null|null"]);
    let strict = [&options[..], &[("allowNonNumericNumbers", "false")]].concat();
    assert_eq!(rows(&strict), ["7|q\t|null"]);
}

#[test]
fn json_options_reach_the_schema() {
    let dir = tempfile::tempdir().unwrap();
    let line = r#"{"a":1,"b":1.5,"c":"2024-01-05T10:00:00","d":null}"#;
    write(&dir, "rows.json", line, 0);
    let types = |options: &[(&str, &str)]| {
        let schema = factory("json", with(batch(&dir), options))
            .unwrap()
            .schema();
        let types = schema
            .fields()
            .iter()
            .map(|field| field.data_type().to_string());
        types.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(types(&[]), "Int64 Float64 Utf8 Utf8");
    assert_eq!(
        types(&[("primitivesAsString", "true")]),
        "Utf8 Utf8 Utf8 Utf8"
    );
    assert_eq!(
        types(&[("prefersDecimal", "true")]),
        "Int64 Decimal128(2, 1) Utf8 Utf8"
    );
    assert_eq!(
        types(&[("dropFieldIfAllNull", "true")]),
        "Int64 Float64 Utf8"
    );
    let found = types(&[("inferTimestamp", "true")]);
    assert_eq!(found, "Int64 Float64 Timestamp(µs, \"UTC\") Utf8");
    assert_eq!(types(&[("samplingRatio", "1.0")]), types(&[]));
    for wrong in ["0", "2", "x"] {
        let message = refusal("json", with(batch(&dir), &[("samplingRatio", wrong)]));
        assert!(
            message.contains("it is a number above 0 and up to 1"),
            "{message}"
        );
    }
    for name in json::NOT_BUILT {
        let message = refusal("json", with(batch(&dir), &[(name, "1")]));
        assert!(message.contains("is not supported yet"), "{message}");
    }
    let message = refusal("json", with(batch(&dir), &[("locale", "de-DE")]));
    assert!(message.contains("is supported yet"), "{message}");
}

#[test]
fn wrong_requests_are_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a", "x", 1);
    let error = refusal("json", stream(&dir));
    assert!(
        error.starts_with("schema must be specified when creating a streaming source"),
        "{error}"
    );
    let error = refusal("text", request(Path::new("/nowhere"), true));
    assert_eq!(error, "path \"/nowhere\" does not exist");
    let error = refusal("text", request(&dir.path().join("a/b"), true));
    assert!(error.ends_with("a/b\" does not exist"), "{error}");
    let error = refusal("csv", with(stream(&dir), &[("haeder", "true")]));
    assert!(
        error.starts_with("unknown option \"haeder\" of the csv stream; it takes path,"),
        "{error}"
    );
    let error = refusal("csv", with(stream(&dir), &[("inferSchema", "true")]));
    assert!(
        error.starts_with("schema must be specified when creating a streaming source"),
        "{error}"
    );
    let error = refusal("csv", with(batch(&dir), &[("dateFormat", "YYYY")]));
    assert!(
        error.starts_with("option \"dateFormat\" of the csv reader cannot be \"YYYY\""),
        "{error}"
    );
    let error = refusal("csv", with(stream(&dir), &[("mode", "STRICT")]));
    assert!(
        error.ends_with("cannot be \"STRICT\": it is PERMISSIVE, DROPMALFORMED or FAILFAST"),
        "{error}"
    );
    let error = refusal(
        "csv",
        typed(
            stream(&dir),
            &[("l", DataType::new_list(DataType::Utf8, true))],
        ),
    );
    assert!(
        error.starts_with("column \"l\" of type ARRAY<STRING> cannot be read from CSV"),
        "{error}"
    );
    let error = refusal("text", typed(stream(&dir), &[("a", DataType::Int32)]));
    assert_eq!(
        error,
        "the text stream reads lines as one column of type STRING; column \"a\" is of type INT"
    );
    let mut pathless = stream(&dir);
    pathless.path = None;
    assert_eq!(
        refusal("text", pathless),
        "the text stream needs option \"path\""
    );
}

#[cfg(unix)]
#[test]
fn unreadable_files_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a", "x", 1);
    fs::set_permissions(dir.path().join("a"), fs::Permissions::from_mode(0o0)).unwrap();
    if fs::read(dir.path().join("a")).is_ok() {
        return; // root reads everything
    }
    assert!(
        read("text", batch(&dir))
            .unwrap_err()
            .contains("could not read")
    );
}
