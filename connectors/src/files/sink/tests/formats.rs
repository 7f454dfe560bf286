//! What the options of formats do to files.

use super::*;

fn times() -> (SchemaRef, &'static str) {
    let schema = schema(&[
        ("d", DataType::Date32),
        ("t", instant()),
        ("n", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ("s", DataType::Utf8),
    ]);
    let rows = concat!(
        r#"{"d":"2024-01-05","t":"2024-07-01T10:00:00.5Z","n":"2024-01-05T01:02:03","s":"é😀\"x"}"#,
        "\n",
        r#"{"s":"b"}"#,
    );
    (schema, rows)
}

const PATTERNS: [(&str, &str); 4] = [
    ("dateFormat", "dd.MM.yy"),
    ("timestampFormat", "dd/MM/yyyy HH:mm:ss.SSS XXX"),
    ("timestampNTZFormat", "HH'h'mm"),
    ("timeZone", "Europe/Berlin"),
];

#[test]
fn patterns_shape_dates_and_times() {
    let (schema, rows) = times();
    assert_eq!(
        text("csv", &schema, rows, &PATTERNS),
        "05.01.24,01/07/2024 12:00:00.500 +02:00,01h02,\"é😀\\\"x\"\n,,,b\n"
    );
    assert_eq!(
        text("json", &schema, rows, &PATTERNS),
        concat!(
            r#"{"d":"05.01.24","t":"01/07/2024 12:00:00.500 +02:00","n":"01h02","s":"é😀\"x"}"#,
            "\n{\"s\":\"b\"}\n",
        )
    );
}

#[test]
fn lines_end_as_asked() {
    let schema = schema(&[("s", DataType::Utf8)]);
    let rows = "{\"s\":\"a\"}\n{\"s\":\"b\"}";
    let check = |name, options: &[(&str, &str)], expected: &str| {
        assert_eq!(text(name, &schema, rows, options), expected);
    };
    check("text", &[("lineSep", "--")], "a--b--");
    check(
        "csv",
        &[("lineSep", "\r\n"), ("header", "true")],
        "s\r\na\r\nb\r\n",
    );
    check("json", &[("lineSep", ";")], "{\"s\":\"a\"};{\"s\":\"b\"};");
    check("text", &[("encoding", "UTF-8")], "a\nb\n");
}

#[test]
fn json_writes_nulls_and_ascii_if_asked() {
    let (schema, rows) = times();
    let options = [
        ("ignoreNullFields", "false"),
        ("writeNonAsciiCharacterAsCodePoint", "true"),
    ];
    let lines = text("json", &schema, rows, &options);
    let mut lines = lines.lines();
    assert!(
        lines
            .next()
            .unwrap()
            .ends_with(r#""s":"\u00E9\uD83D\uDE00\"x"}"#)
    );
    assert_eq!(
        lines.next(),
        Some(r#"{"d":null,"t":null,"n":null,"s":"b"}"#)
    );
}

#[test]
fn small_decimals_are_written_as_casts_write_them() {
    let schema = schema(&[("v", DataType::Decimal128(18, 9))]);
    let rows = "{\"v\":0.00000012}\n{\"v\":1.5}";
    assert_eq!(text("csv", &schema, rows, &[]), "1.20E-7\n1.500000000\n");
}

#[test]
fn what_is_not_written_so_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let schema = schema(&[("s", DataType::Utf8)]);
    for (format, name, value) in [
        ("json", "pretty", "true"),
        ("json", "sortKeys", "true"),
        ("json", "encoding", "UTF-16"),
        ("json", "compression", "bzip2"),
        ("json", "ignoreNullFields", "maybe"),
        ("csv", "quoteAll", "true"),
        ("csv", "escapeQuotes", "false"),
        ("csv", "lineSep", "abc"),
        ("csv", "extension", "tsv"),
        ("csv", "charToEscapeQuoteEscaping", "x"),
        ("csv", "dateFormat", "'open"),
        ("csv", "timestampFormat", "YYYY"),
        ("csv", "ignoreNullFields", "false"),
        ("text", "lineSep", ""),
        ("text", "encoding", "latin1"),
        ("text", "dateFormat", "yyyy"),
        ("parquet", "lineSep", ";"),
        ("orc", "compression", "lzo"),
        ("orc", "header", "true"),
    ] {
        let told = refusal(format, request(dir.path(), &schema, &[(name, value)]));
        assert!(told.contains(name), "{format} {name}={value}: {told}");
    }
}

#[test]
fn orc_is_written_in_every_codec() {
    let schema = schema(&[
        ("b", DataType::Boolean),
        ("i", DataType::Int32),
        ("l", DataType::Int64),
        ("f", DataType::Float64),
        ("s", DataType::Utf8),
        ("d", DataType::Date32),
        ("t", instant()),
    ]);
    let rows = concat!(
        r#"{"b":true,"i":-1,"l":9007199254740993,"f":0.5,"s":"é","d":"1969-12-31","t":"2024-01-05T10:00:00.000001Z"}"#,
        "\n{}\n",
    );
    for codec in ["zstd", "snappy", "zlib", "lz4", "none"] {
        let (dir, bytes) = write("orc", &schema, rows, &[("compression", codec)]);
        assert_eq!(&bytes[..3], b"ORC");
        assert_eq!(count("orc", &dir.path().join("out"), &schema), 2, "{codec}");
    }
}

#[test]
fn times_before_our_calendar_come_back_from_orc() {
    let schema = schema(&[("d", DataType::Date32), ("t", instant())]);
    let json = concat!(
        r#"{"d":"1582-10-04","t":"1500-03-01T01:02:03.000004Z"}"#,
        "\n",
        r#"{"d":"0001-01-01","t":"9999-12-31T23:59:59.999999Z"}"#,
        "\n{\"d\":\"1582-10-15\"}\n",
    );
    let (dir, _) = write("orc", &schema, json, &[]);
    let found = read_back("orc", &dir.path().join("out"), &schema).unwrap();
    assert_eq!(found, rows(&schema, json));
}

#[test]
fn orc_refuses_types_that_its_encoder_lacks() {
    let dir = tempfile::tempdir().unwrap();
    for data_type in [
        DataType::Decimal128(9, 2),
        DataType::new_list(DataType::Int32, true),
    ] {
        let schema = schema(&[("odd", data_type)]);
        let told = refusal("orc", request(dir.path(), &schema, &[]));
        assert!(
            told.contains("the orc sink cannot write column \"odd\""),
            "{told}"
        );
    }
}
