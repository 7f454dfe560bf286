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
        ("json", "pretty", "maybe"),
        ("json", "sortKeys", "1"),
        ("json", "encoding", "windows-1252"),
        ("json", "extension", "tsv"),
        ("json", "compression", "bzip2"),
        ("json", "ignoreNullFields", "maybe"),
        ("csv", "quoteAll", "maybe"),
        ("csv", "escapeQuotes", "maybe"),
        ("csv", "charset", "GBK"),
        ("csv", "lineSep", "abc"),
        ("csv", "extension", "csv2"),
        ("csv", "extension", "x/y"),
        ("csv", "charToEscapeQuoteEscaping", "xy"),
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
    let pair = arrow::datatypes::Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Int32, true),
    ]);
    let entries = Field::new("entries", DataType::Struct(pair), false);
    for (data_type, words) in [
        (DataType::Decimal128(9, 2), "DECIMAL(9,2)"),
        (DataType::new_list(DataType::Int32, true), "ARRAY<INT>"),
        (DataType::Map(Arc::new(entries), false), "MAP<STRING, INT>"),
    ] {
        let schema = schema(&[("odd", data_type)]);
        let told = refusal("orc", request(dir.path(), &schema, &[]));
        assert!(
            told.contains(&format!(
                "the orc sink cannot write column \"odd\" of type {words}: cast it"
            )),
            "{told}"
        );
    }
}

/// What Spark 4.3 writes of the same rows with the same options.
#[test]
fn cells_are_quoted_as_asked() {
    let schema = schema(&[
        ("n", DataType::Int32),
        ("s\"h", DataType::Utf8),
        ("u", DataType::Utf8),
    ]);
    let rows = [
        r#"{"n":1,"s\"h":"plain","u":"a\"b"}"#,
        r#"{"n":2,"s\"h":"c,d","u":"e\\f"}"#,
        r#"{"n":3,"s\"h":""}"#,
        r#"{"n":4,"s\"h":" sp ","u":"x\ny"}"#,
        r#"{"n":5,"s\"h":"\\\"","u":"\""}"#,
        r#"{"n":6,"s\"h":"\\","u":"a\\\"b,"}"#,
    ]
    .join("\n");
    let check = |options: &[(&str, &str)], expected: &str| {
        assert_eq!(
            text("csv", &schema, &rows, options),
            expected,
            "{options:?}"
        );
    };
    let header = ("header", "true");
    check(
        &[header],
        "n,\"s\\\"h\",u\n1,plain,\"a\\\"b\"\n2,\"c,d\",e\\f\n3,\"\",\n4,sp,\"x\ny\"\n5,\"\\\\\\\"\",\"\\\"\"\n6,\\,\"a\\\\\\\"b,\"\n",
    );
    check(
        &[header, ("quoteAll", "true")],
        "\"n\",\"s\\\"h\",\"u\"\n\"1\",\"plain\",\"a\\\"b\"\n\"2\",\"c,d\",\"e\\\\f\"\n\"3\",\"\",\"\"\n\"4\",\"sp\",\"x\ny\"\n\
         \"5\",\"\\\\\\\"\",\"\\\"\"\n\"6\",\"\\\\\",\"a\\\\\\\"b,\"\n",
    );
    check(
        &[header, ("escapeQuotes", "false")],
        "n,s\"h,u\n1,plain,a\"b\n2,\"c,d\",e\\f\n3,\"\",\n4,sp,\"x\ny\"\n5,\\\",\"\\\"\"\n6,\\,\"a\\\\\\\"b,\"\n",
    );
    check(
        &[("charToEscapeQuoteEscaping", "^")],
        "1,plain,\"a\\\"b\"\n2,\"c,d\",e\\f\n3,\"\",\n4,sp,\"x\ny\"\n5,\"^\\\\\"\",\"\\\"\"\n6,\\,\"a^\\\\\"b,\"\n",
    );
    check(
        &[("escape", "\""), ("charToEscapeQuoteEscaping", "^")],
        "1,plain,\"a\"\"b\"\n2,\"c,d\",e\\f\n3,\"\",\n4,sp,\"x\ny\"\n5,\"\\\"\"\",\"\"\"\"\n6,\\,\"a\\\"\"b,\"\n",
    );
    check(
        &[("quote", "")],
        "1,plain,a\"b\n2,\0c,d\0,e\\f\n3,\"\",\n4,sp,\0x\ny\0\n5,\\\",\"\n6,\\,\0a\\\\\"b,\0\n",
    );
    check(
        &[("escape", "")],
        "1,plain,\"a\0\"b\"\n2,\"c,d\",e\\f\n3,\"\",\n4,sp,\"x\ny\"\n5,\"\\\0\"\",\"\0\"\"\n6,\\,\"a\\\0\"b,\"\n",
    );
    let some = |options: &[(&str, &str)], expected: [&str; 2]| {
        let written = text("csv", &schema, &rows, options);
        let lines: Vec<&str> = written.lines().skip(2).take(2).collect();
        assert_eq!(lines, expected, "{options:?}");
    };
    some(
        &[("ignoreLeadingWhiteSpace", "false")],
        ["3,\"\",", "4, sp,\"x"],
    );
    some(
        &[("ignoreTrailingWhiteSpace", "false")],
        ["3,\"\",", "4,sp ,\"x"],
    );
    let markers = [("emptyValue", "a\"b"), ("nullValue", "n\"l")];
    some(&markers, ["3,\"a\\\"b\",\"n\\\"l\"", "4,sp,\"x"]);
    let all = [markers[0], markers[1], ("quoteAll", "true")];
    some(&all, ["\"3\",\"a\\\"b\",\"n\\\"l\"", "\"4\",\"sp\",\"x"]);
    some(
        &[("quoteAll", "true"), ("quote", "")],
        [
            "\u{0}3\u{0},\u{0}\"\"\u{0},\u{0}\u{0}",
            "\u{0}4\u{0},\u{0}sp\u{0},\u{0}x",
        ],
    );
}

/// The bytes of Spark 4.3.
#[test]
fn text_is_encoded_as_asked() {
    let schema = schema(&[("s", DataType::Utf8), ("n", DataType::Int32)]);
    let rows = r#"{"s":"é日😀","n":1}"#;
    let check = |format, encoding: &str, expected: &[u8]| {
        let (_dir, bytes) = write(format, &schema, rows, &[("encoding", encoding)]);
        assert_eq!(bytes, expected, "{format} {encoding}");
        let (_dir, bytes) = write(format, &schema, rows, &[("charset", encoding)]);
        assert_eq!(bytes, expected, "{format} {encoding}");
    };
    let (csv, json) = ("é日😀,1\n", "{\"s\":\"é日😀\",\"n\":1}\n");
    let wide = |text: &str| text.encode_utf16().collect::<Vec<u16>>();
    for (format, text) in [("csv", csv), ("json", json)] {
        let units = wide(text);
        let high: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        let low: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let four: Vec<u8> = text
            .chars()
            .flat_map(|c| u32::from(c).to_be_bytes())
            .collect();
        check(format, "utf-8", text.as_bytes());
        check(format, "UTF-16BE", &high);
        check(format, "utf-16le", &low);
        check(format, "UTF-16", &[&[0xfe, 0xff], high.as_slice()].concat());
        check(format, "UTF-32", &four);
    }
    check("csv", "ISO-8859-1", b"\xe9??,1\n");
    check("json", "US-ASCII", b"{\"s\":\"???\",\"n\":1}\n");
    let header = [("header", "true"), ("encoding", "UTF-16LE")];
    let (_dir, bytes) = write("csv", &schema, "{\"s\":\"a\",\"n\":1}", &header);
    let low = "s,n\na,1\n".encode_utf16().flat_map(u16::to_le_bytes);
    assert_eq!(bytes, low.collect::<Vec<u8>>());
}

#[test]
fn json_is_laid_out_as_asked() {
    let schema = schema(&[("b", DataType::Utf8), ("a", DataType::Int32)]);
    let rows = "{\"b\":\"é\",\"a\":1}\n{}";
    let check = |options: &[(&str, &str)], expected: &str| {
        assert_eq!(
            text("json", &schema, rows, options),
            expected,
            "{options:?}"
        );
    };
    let pretty = ("pretty", "true");
    check(&[pretty], "{\n  \"b\" : \"é\",\n  \"a\" : 1\n}\n{ }\n");
    check(
        &[pretty, ("lineSep", "|")],
        "{\n  \"b\" : \"é\",\n  \"a\" : 1\n}|{ }|",
    );
    check(&[("sortKeys", "true")], "{\"a\":1,\"b\":\"é\"}\n{}\n");
    check(
        &[
            pretty,
            ("sortKeys", "true"),
            ("ignoreNullFields", "false"),
            ("writeNonAsciiCharacterAsCodePoint", "true"),
        ],
        "{\n  \"a\" : 1,\n  \"b\" : \"\\u00E9\"\n}\n{\n  \"a\" : null,\n  \"b\" : null\n}\n",
    );
}

#[test]
fn names_of_csv_files_end_as_asked() {
    let schema = schema(&[("s", DataType::Utf8)]);
    for (options, ending) in [
        (vec![("extension", "tsv")], ".tsv"),
        (vec![("extension", "t1v")], ".t1v"),
        (
            vec![("extension", "text"), ("compression", "gzip")],
            ".text.gz",
        ),
    ] {
        let (dir, _) = write("csv", &schema, "{\"s\":\"a\"}", &options);
        let entries = std::fs::read_dir(dir.path().join("out")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let parts: Vec<String> = names.filter(|name| name.starts_with("part-")).collect();
        assert!(parts.len() == 1 && parts[0].ends_with(ending), "{parts:?}");
        assert_eq!(count("csv", &dir.path().join("out"), &schema), 1);
    }
}
