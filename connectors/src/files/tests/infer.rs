//! Schemas that files tell, and times that have a format.

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
