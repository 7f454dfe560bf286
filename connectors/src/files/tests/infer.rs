//! Schemas that files tell, and times that have a format.

use arrow::array::{ArrayRef, Int32Array, Int64Array, StringArray, StructArray};

use super::*;

fn types(batch: &RecordBatch) -> Vec<String> {
    let schema = batch.schema();
    let fields = schema.fields().iter();
    fields
        .map(|field| format!("{} {}", field.name(), field.data_type()))
        .collect()
}

#[test]
fn all_files_of_csv_tell_the_types() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a", "n,d,s\n1,2024-01-05,x\n", 2);
    write(&dir, "b", "n,d,s\n2.5,2024-01-06T10:00:00,7\n", 1);
    let set = [("header", "true"), ("inferSchema", "true")];
    let found = read("csv", with(batch(&dir), &set)).unwrap();
    let expected = ["n Float64", "d Timestamp(µs, \"UTC\")", "s Utf8"];
    assert_eq!(types(&found), expected);
    assert_eq!(
        show(&found),
        ["1.0|2024-01-05T00:00:00Z|x", "2.5|2024-01-06T10:00:00Z|7"]
    );
    let found = read("csv", with(batch(&dir), &set[..1])).unwrap();
    assert_eq!(types(&found), ["n Utf8", "d Utf8", "s Utf8"]);
    // A schema that is given is the schema.
    let given = typed(
        batch(&dir),
        &[
            ("n", DataType::Utf8),
            ("d", DataType::Utf8),
            ("s", DataType::Utf8),
        ],
    );
    let found = read("csv", with(given, &set)).unwrap();
    assert_eq!(show(&found)[0], "1|2024-01-05|x");
}

#[test]
fn a_row_longer_than_a_block_tells_its_types() {
    let dir = tempfile::tempdir().unwrap();
    let long = "x\ny".repeat(1 << 20);
    write(&dir, "a", format!("1,\"{long}\"\n2.5,z\n"), 1);
    let set = [("multiLine", "true"), ("inferSchema", "true")];
    let found = read("csv", with(batch(&dir), &set)).unwrap();
    assert_eq!(types(&found), ["_c0 Float64", "_c1 Utf8"]);
    assert_eq!(found.num_rows(), 2);
}

const TIMES: [(&str, DataType); 3] = [
    ("d", DataType::Date32),
    ("t", DataType::Timestamp(TimeUnit::Microsecond, None)),
    ("s", DataType::Utf8),
];

fn times() -> Vec<(&'static str, DataType)> {
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let mut fields = TIMES.to_vec();
    fields[2] = ("i", instant);
    fields.push(("_corrupt_record", DataType::Utf8));
    fields
}

#[test]
fn times_can_have_formats() {
    let dir = tempfile::tempdir().unwrap();
    let set = [
        ("dateFormat", "d.M.yyyy"),
        ("timestampNTZFormat", "yyyyMMdd HHmm"),
        ("timestampFormat", "d MMM yyyy h:mm a[ XX]"),
        ("timeZone", "+02:00"),
    ];
    let fallback = [("enableDateTimeParsingFallback", "true")];
    write(
        &dir,
        "a",
        "5.1.2024,20240105 1030,5 Jan 2024 3:00 pm\n\
         ,,5 JAN 2024 3:00 PM -0100\n\
         2024-01-05,,2024-01-05T10:00:00Z\n",
        1,
    );
    let request = || with(typed(batch(&dir), &times()), &set);
    let good = [
        "2024-01-05|2024-01-05T10:30:00|2024-01-05T13:00:00Z|null",
        "null|null|2024-01-05T16:00:00Z|null",
    ];
    let found = show(&read("csv", request()).unwrap());
    assert_eq!(found[..2], good);
    assert_eq!(found[2], "null|null|null|2024-01-05,,2024-01-05T10:00:00Z");
    let found = show(&read("csv", with(request(), &fallback)).unwrap());
    assert_eq!(found[..2], good);
    assert_eq!(found[2], "2024-01-05|null|2024-01-05T10:00:00Z|null");

    let bad = r#"{"d":"197","i":"2024-01-05T10:00:00Z"}"#;
    write(
        &dir,
        "a",
        format!(
            "{{\"d\":\"5.1.2024\",\"t\":\"20240105 1030\",\"i\":\"5 Jan 2024 3:00 pm\"}}\n\
             {{\"i\":\"5 JAN 2024 3:00 PM -0100\"}}\n{bad}\n"
        ),
        1,
    );
    let found = show(&read("json", request()).unwrap());
    assert_eq!(found[..2], good);
    assert_eq!(found[2], format!("null|null|null|{bad}"));
    let found = show(&read("json", with(request(), &fallback)).unwrap());
    assert_eq!(found[2], "1970-07-17|null|2024-01-05T10:00:00Z|null");
}

#[test]
fn stray_quotes_that_are_errors_end_the_query_or_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a", "1,\"x\"y\n2,z\n", 1);
    let request = |value| {
        let fields = [("a", DataType::Int32), ("s", DataType::Utf8)];
        with(
            typed(batch(&dir), &fields),
            &[("unescapedQuoteHandling", value)],
        )
    };
    let rows = |value| show(&read("csv", request(value)).unwrap());
    assert_eq!(rows("stop_at_delimiter"), ["1|\"x\"y", "2|z"]);
    assert_eq!(rows("SKIP_VALUE"), ["1|null", "2|z"]);
    assert_eq!(rows("STOP_AT_CLOSING_QUOTE"), ["1|x\"y", "2|z"]);
    assert_eq!(rows("BACK_TO_DELIMITER"), ["1|xy", "2|z"]);
    let error = read("csv", request("RAISE_ERROR")).unwrap_err();
    assert!(error.contains("a quote that is not escaped"), "{error}");
    let bad = tempfile::tempdir().unwrap();
    let kept = [("badRecordsPath", bad.path().to_str().unwrap())];
    let found = read("csv", with(request("RAISE_ERROR"), &kept)).unwrap();
    assert_eq!(show(&found), ["2|z"]);
    let error = refusal("csv", request("whatever"));
    assert!(error.contains("it is STOP_AT_CLOSING_QUOTE, "), "{error}");
    let both = with(request("BACK_TO_DELIMITER"), &[("multiLine", "true")]);
    assert!(refusal("csv", both).contains("together with option \"multiLine\""));
}

/// A file of one row of numbers, in Parquet or ORC.
pub(super) fn write_columns(
    dir: &TempDir,
    format: &str,
    name: &str,
    columns: Vec<(&str, ArrayRef)>,
) {
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let file = fs::File::create(dir.path().join(name)).unwrap();
    if format == "orc" {
        let builder = ::orc_rust::ArrowWriterBuilder::new(file, rows.schema());
        let mut writer = builder.try_build().unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
    } else {
        let writer = ::parquet::arrow::ArrowWriter::try_new(file, rows.schema(), None);
        let mut writer = writer.unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
    }
}

#[test]
fn schemas_of_all_files_can_be_merged() {
    let int = |value| Arc::new(Int32Array::from(vec![value])) as ArrayRef;
    let long = |value| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
    let text = |value| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    for format in ["parquet", "orc"] {
        let dir = tempfile::tempdir().unwrap();
        write(&dir, "0", "", 1);
        write_columns(&dir, format, "a", vec![("n", int(1)), ("x", text("x"))]);
        write_columns(&dir, format, "b", vec![("y", text("y")), ("N", long(2))]);
        let merge = [("mergeSchema", "true")];
        let found = read(format, with(batch(&dir), &merge)).unwrap();
        assert_eq!(types(&found), ["n Int64", "x Utf8", "y Utf8"], "{format}");
        assert_eq!(show(&found), ["1|x|null", "2|null|y"], "{format}");
        fs::remove_file(dir.path().join("b")).unwrap();
        let found = read(format, with(batch(&dir), &[("mergeSchema", "false")])).unwrap();
        assert_eq!(types(&found), ["n Int32", "x Utf8"]);
        write_columns(&dir, format, "c", vec![("n", text("1"))]);
        let error = refusal(format, with(batch(&dir), &merge));
        assert!(
            error.starts_with("column \"n\" of file ")
                && error.contains("is STRING, and INT in files before it"),
            "{error}"
        );
        write(&dir, "b", "no such file", 1);
        fs::remove_file(dir.path().join("c")).unwrap();
        assert!(factory(format, with(batch(&dir), &merge)).is_err());
        let skipping = [("mergeSchema", "true"), ("ignoreCorruptFiles", "true")];
        let found = read(format, with(batch(&dir), &skipping)).unwrap();
        assert_eq!(show(&found), ["1|x"], "{format}");
        // A stream has the schema that it is given.
        let given = typed(
            stream(&dir),
            &[("x", DataType::Utf8), ("z", DataType::Int32)],
        );
        let given = with(given, &skipping);
        let rows = conformance::source(self::factory(format, given).unwrap().as_ref());
        assert_eq!(show(&rows), ["x|null"], "{format}");
    }
}

#[test]
fn fields_of_structs_are_merged_too() {
    let dir = tempfile::tempdir().unwrap();
    let nested = |name: &str, value: ArrayRef| {
        let field = Arc::new(Field::new(name, value.data_type().clone(), true));
        Arc::new(StructArray::from(vec![(field, value)])) as ArrayRef
    };
    let one = nested("a", Arc::new(Int32Array::from(vec![1])));
    let two = nested("b", Arc::new(StringArray::from(vec!["x"])));
    write_columns(&dir, "parquet", "a", vec![("s", one)]);
    write_columns(&dir, "parquet", "b", vec![("s", two)]);
    let found = read("parquet", with(batch(&dir), &[("mergeSchema", "true")])).unwrap();
    assert_eq!(types(&found), ["s Struct(\"a\": Int32, \"b\": Utf8)"]);
    assert_eq!(show(&found), ["{a: 1, b: null}", "{a: null, b: x}"]);
}
