//! Spark's answers, line by line; and arrow-json's, where the two agree.

use std::fmt::Write;

use crate::options::Options;
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Field, Float32Type, Float64Type, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::time::Zone;
use crate::times::ReadTimes;

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// `a int, b bigint, d date, t timestamp, f double, m decimal(9,2), s string, o boolean, n struct<x int, y string>,
/// l array<int>, p map<string, int>, _corrupt_record string`
pub(super) fn schema() -> Schema {
    let x = Field::new("x", DataType::Int32, true);
    let y = Field::new("y", DataType::Utf8, true);
    let entries = Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Int32, true),
    ]);
    let entries = Arc::new(Field::new("entries", DataType::Struct(entries), false));
    let field = |name, data_type| Field::new(name, data_type, true);
    Schema::new(vec![
        field("a", DataType::Int32),
        field("b", DataType::Int64),
        field("d", DataType::Date32),
        field("t", timestamp()),
        field("f", DataType::Float64),
        field("m", DataType::Decimal128(9, 2)),
        field("s", DataType::Utf8),
        field("o", DataType::Boolean),
        field("n", DataType::Struct(Fields::from(vec![x, y]))),
        field("l", DataType::new_list(DataType::Int32, true)),
        field("p", DataType::Map(entries, false)),
        field("_corrupt_record", DataType::Utf8),
    ])
}

/// One text per row: its fields that are not null; a corrupt row ends with `!`.
fn show(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    (0..batch.num_rows())
        .map(|row| {
            let mut text = String::new();
            for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
                if array.is_null(row) {
                    continue;
                }
                if field.name() == "_corrupt_record" {
                    text.truncate(text.trim_end().len());
                    text.push('!');
                    continue;
                }
                let value = ArrayFormatter::try_new(array, &options).unwrap();
                write!(text, "{}={} ", field.name(), value.value(row)).unwrap();
            }
            text.trim_end().to_string()
        })
        .collect()
}

fn decode_as(lines: &str, options: JsonOptions) -> Result<RecordBatch, JsonError> {
    let schema = schema();
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let mut decoder = JsonDecoder::new(&schema, &all, options)?;
    let taken = decoder.decode_lines(lines.as_bytes(), usize::MAX)?;
    assert_eq!(taken, lines.len());
    let batch = decoder.flush()?;
    assert_eq!(decoder.rows(), 0);
    Ok(batch)
}

/// Decodes lines in PERMISSIVE mode. Each is also decoded between good lines, which must not notice.
fn check(lines: &str, expected: &[&str]) {
    let batch = decode_as(lines, JsonOptions::default()).unwrap();
    assert_eq!(show(&batch), expected, "{lines}");
    let good = r#"{"a":7,"s":"good","l":[1],"n":{"x":1},"p":{"k":2}}"#;
    let between = format!("{good}\n{lines}\n{good}\n");
    let shown = show(&decode_as(&between, JsonOptions::default()).unwrap());
    assert_eq!(shown[1..shown.len() - 1], *expected, "{lines}");
    assert_eq!(shown[0], shown[shown.len() - 1]);
    assert_eq!(shown[0], "a=7 s=good n={x: 1, y: null} l=[1] p={k: 2}");
}

#[test]
fn integers_are_integers() {
    check(
        r#"{"a":12,"b":-9223372036854775808}"#,
        &["a=12 b=-9223372036854775808"],
    );
    check(r#"{"a":"12"}"#, &["!"]);
    check(r#"{"a":1.7}"#, &["!"]);
    check(r#"{"a":1e2}"#, &["!"]);
    check(r#"{"a":2147483648,"b":2147483648}"#, &["b=2147483648!"]);
    check(r#"{"b":9223372036854775808}"#, &["!"]);
    check(r#"{"a":-0}"#, &["a=0"]);
    check(r#"{"a":true}"#, &["!"]);
}

#[test]
fn doubles_take_numbers_and_the_strings_that_json_cannot_write() {
    check(r#"{"f":1}"#, &["f=1.0"]);
    check(r#"{"f":-2.5e-3}"#, &["f=-0.0025"]);
    check(
        r#"{"f":123456789012345678901234567890}"#,
        &["f=1.2345678901234568e29"],
    );
    check(r#"{"f":0.1}"#, &["f=0.1"]);
    check(r#"{"f":"NaN"}"#, &["f=NaN"]);
    check(r#"{"f":"-Infinity"}"#, &["f=-inf"]);
    check(r#"{"f":NaN,"a":1}"#, &["a=1 f=NaN"]);
    check(r#"{"f":-Infinity}"#, &["f=-inf"]);
    check(r#"{"f":"1.5"}"#, &["!"]);
    check(r#"{"a":NaN,"s":"kept"}"#, &["s=kept!"]);
}

#[test]
fn decimals_are_exact() {
    check(r#"{"m":1.005}"#, &["m=1.01"]);
    check(r#"{"m":"12.5"}"#, &["m=12.50"]);
    check(r#"{"m":1e3}"#, &["m=1000.00"]);
    check(r#"{"m":12345678.9}"#, &["!"]);
    check(r#"{"m":""}"#, &["!"]);
}

#[test]
fn numbers_read_as_timestamps_are_seconds() {
    check(r#"{"t":1486087873}"#, &["t=2017-02-03T02:11:13Z"]);
    check(r#"{"t":1.5}"#, &["!"]);
    check(r#"{"t":9223372036854775807}"#, &["!"]);
}

#[test]
fn dates_and_timestamps_have_many_forms() {
    check(r#"{"t":"2024-1-5"}"#, &["t=2024-01-05T00:00:00Z"]);
    check(
        r#"{"t":"2024-01-05T10:00:00.123+02:00"}"#,
        &["t=2024-01-05T08:00:00.123Z"],
    );
    check(
        r#"{"t":"2024-01-05 10:00:00"}"#,
        &["t=2024-01-05T10:00:00Z"],
    );
    check(r#"{"t":"yesterday","a":1}"#, &["a=1!"]);
    check(r#"{"t":""}"#, &["!"]);
    check(r#"{"d":"2024-1-5"}"#, &["d=2024-01-05"]);
    check(r#"{"d":"123"}"#, &["d=1970-05-04"]);
    check(r#"{"d":"19727"}"#, &["d=+19727-01-01"]);
    check(r#"{"d":19727}"#, &["!"]);
    check(
        r#"{"t":"2024-01-05\u005410:00:00"}"#,
        &["t=2024-01-05T10:00:00Z"],
    );
}

#[test]
fn anything_can_be_read_as_a_string_and_keeps_its_text() {
    check(r#"{"s":12}"#, &["s=12"]);
    check(r#"{"s":1.50e1}"#, &["s=1.50e1"]);
    check(r#"{"s":{"z" : 1, "y":[ ]}}"#, &[r#"s={"z" : 1, "y":[ ]}"#]);
    check(r#"{"s":true}"#, &["s=true"]);
    check(r#"{"s":null}"#, &[""]);
    check(
        r#"{"s":"é\n\"\u00e9\ud83d\ude00\ud800\/"}"#,
        &["s=é\n\"é😀?/"],
    );
}

#[test]
fn a_value_of_the_wrong_type_spoils_only_its_field() {
    check(r#"{"a":"abc","s":"kept"}"#, &["s=kept!"]);
    check(r#"{"n":5,"s":"kept"}"#, &["s=kept!"]);
    check(
        r#"{"n":{"x":"bad","y":"kept"}}"#,
        &["n={x: null, y: kept}!"],
    );
    check(r#"{"l":[1,"x",3],"s":"kept"}"#, &["s=kept!"]);
    check(r#"{"l":[1,null]}"#, &["l=[1, null]"]);
    check(r#"{"p":{"k":"x","l":2},"s":"kept"}"#, &["s=kept!"]);
    check(r#"{"p":{"k":1,"l":null}}"#, &["p={k: 1, l: null}"]);
    check(r#"{"o":"true"}"#, &["!"]);
    check(r#"{"o":false,"l":{"a":[1,{"b":2}]}}"#, &["o=false!"]);
}

#[test]
fn malformed_text_spoils_its_row_and_no_other() {
    for line in [
        "not json",
        r#"{"a":1"#,
        r#"{"a":1,"s":"b"#,
        r#"{"l":[1,2"#,
        r#"{"n":{"x":1,"y":"#,
        r#"{"p":{"k":1,"#,
        r#"{"a":1,}"#,
        r#"{"a" 1}"#,
        r#"{a:1}"#,
        r#"{"a":01}"#,
        r#"{"a":1.}"#,
        r#"{"a":-}"#,
        r#"{"a":tru}"#,
        r#"{"zz":[1,,2],"a":1}"#,
        r#"{"zz":"\q","a":1}"#,
        r#"{"zz":"\u12","a":1}"#,
        "{\"zz\":\"a\tb\",\"a\":1}",
        "123",
        "null",
        "\"text\"",
        "[1]",
        r#"[{"a":1},2]"#,
        r#"[{"a":1},{"a":2"#,
        "{",
        "}",
        "\u{1}",
    ] {
        check(line, &["!"]);
    }
    let deep = format!("{{\"zz\":{}", "[".repeat(100_000));
    check(&deep, &["!"]);
    let deep = |depth| format!("{{\"zz\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
    check(&deep(999), &[""]);
    check(&deep(1000), &["!"]);
    let objects = format!("{{\"zz\":{}1{}}}", "{\"a\":[".repeat(400), "]}".repeat(400));
    check(&objects, &[""]);
}

#[test]
fn rows_that_other_readers_refuse() {
    check("{'a':1,'s':'it\\'s'}", &["a=1 s=it's"]);
    check(r#"[{"a":1},{"a":2}]"#, &["a=1", "a=2"]);
    check(r#"[{"a":1},{"a":"x","s":"kept"}]"#, &["a=1!", "s=kept!"]);
    check("[]", &[]);
    check(r#"{"a":1} trailing"#, &["a=1"]);
    check(r#"{"a":1,"a":2}"#, &["a=2"]);
    check(r#"{"A":1,"unknown":{"a":2},"a":3}"#, &["a=3"]);
    check("{}", &[""]);
    check(" \t ", &[]);
    check("\u{feff}{\"a\":1}", &["a=1"]);
    check(r#"  { "a" :	1 , "s"	: "x" }  "#, &["a=1 s=x"]);
    check("{\"\\u0061\":1}", &["a=1"]);
}

#[test]
fn of_a_repeated_field_the_last_good_value_counts() {
    check(r#"{"a":1,"a":"x"}"#, &["a=1!"]);
    check(r#"{"a":"x","a":1}"#, &["a=1!"]);
    check(r#"{"a":1,"a":null}"#, &[""]);
    check(r#"{"s":"x","s":"y","l":[1],"l":[2,"x"]}"#, &["s=y l=[1]!"]);
    check(r#"{"n":{"x":1,"x":2,"x":"z"}}"#, &["n={x: 2, y: null}!"]);
}

#[test]
fn a_pattern_reads_what_looks_as_usual_otherwise() {
    let line = r#"{"t":"2024-02-03T10:00:00.120Z","a":1}"#;
    check(line, &["a=1 t=2024-02-03T10:00:00.120Z"]);
    let mut given = Options::default();
    given.set("timestampFormat", "yyyy-dd-MM'T'HH:mm:ss.SSS'Z'");
    let options = JsonOptions {
        times: ReadTimes::parse("json", &given, Zone::UTC, "UTC").unwrap(),
        ..JsonOptions::default()
    };
    let shown = show(&decode_as(line, options).unwrap());
    assert_eq!(shown, ["a=1 t=2024-03-02T10:00:00.120Z"]);
}

#[test]
fn names_may_be_spelled_otherwise_in_every_row() {
    let spellings = [
        (r#"{"a":1,"s":"x"}"#, "a=1 s=x"),
        (r#"{ "a" : 1 , "s" : "x" }"#, "a=1 s=x"),
        (r#"{"a": 1, "s": "x"}"#, "a=1 s=x"),
        (r#"{"a":  1,  "s":  "x"}"#, "a=1 s=x"),
        (r#"{"\u0061":1,"\u0073":"x"}"#, "a=1 s=x"),
        ("{\t\"a\":\t1,\t\"s\":\t\"x\"\t}", "a=1 s=x"),
        (r#"{'a':1,'s':"x"}"#, "a=1 s=x"),
        (r#"{ }"#, ""),
        (r#"{"a":1,}"#, "!"),
        (r#"{,"a":1}"#, "!"),
        (r#"{"a":1"s":2}"#, "!"),
    ];
    let mut random = StdRng::seed_from_u64(7);
    let (mut lines, mut expected) = (String::new(), Vec::new());
    for _ in 0..1000 {
        let (line, row) = spellings[random.random_range(0..spellings.len())];
        writeln!(lines, "{line}").unwrap();
        expected.push(row);
    }
    check(&lines, &expected);
}

#[test]
fn text_that_is_not_ascii_is_kept() {
    let words = ["Zürich", "日本語", "\\ud83d\\ude00", "", "plain"];
    let meant = ["Zürich", "日本語", "😀", "", "plain"];
    let mut lines = String::new();
    let mut expected = Vec::new();
    for at in 0..2000 {
        match at % 7 {
            6 => {
                lines.push_str("{\"s\":null}\n");
                expected.push(String::new());
            }
            _ => {
                writeln!(lines, "{{\"s\":\"{}{at}\"}}", words[at % 5]).unwrap();
                expected.push(format!("s={}{at}", meant[at % 5]));
            }
        }
    }
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check(&lines, &expected);
}

#[test]
fn numbers_have_limits() {
    let long = |digits: usize| format!("{{\"s\":{}}}", "7".repeat(digits));
    check(&long(1001), &["!"]);
    check(&long(1000), &[&format!("s={}", "7".repeat(1000))]);
    check(r#"{"f":1e999,"b":1}"#, &["b=1 f=inf"]);
    check(r#"{"b":12345678901234567890123}"#, &["!"]);
    check(r#"{"m":"1,234.5"}"#, &["m=1234.50"]);
    check(r#"{"f":"INF"}"#, &["!"]);
    check(r#"{"f":"+INF"}"#, &["f=inf"]);
    check(r#"{"f":INF}"#, &["!"]);
    check(r#"{"f":+INF}"#, &["f=inf"]);
}

/// Decodes one line twice: by default, and as options say.
fn check_option(set: fn(&mut JsonOptions), line: &str, before: &str, after: &str) {
    let mut options = JsonOptions::default();
    assert_eq!(show(&decode_as(line, options.clone()).unwrap()), [before]);
    set(&mut options);
    assert_eq!(show(&decode_as(line, options).unwrap()), [after]);
}

#[test]
fn each_option_changes_what_is_json() {
    check_option(
        |o| o.allow_comments = true,
        r#"/* 1 */ {"a"/**/:/* , */1/*x*/,/*}*/"b":2} // more"#,
        "!",
        "a=1 b=2",
    );
    check_option(|o| o.allow_comments = true, r#"{"a":1 // "b":2}"#, "!", "!");
    check_option(|o| o.allow_comments = true, r#"{"a":1 /* }"#, "!", "!");
    check_option(
        |o| o.allow_unquoted_field_names = true,
        r#"{a:1,s : "x",unknown-1:2}"#,
        "!",
        "a=1 s=x",
    );
    check_option(
        |o| o.allow_numeric_leading_zeros = true,
        r#"{"a":007,"f":-00.5,"b":000000000000000000000000000012}"#,
        "!",
        "a=7 b=12 f=-0.5",
    );
    check_option(
        |o| o.allow_backslash_escaping_any_character = true,
        r#"{"s":"\q\é\nz","a":1}"#,
        "!",
        "a=1 s=qé\nz",
    );
    check_option(
        |o| o.allow_unquoted_control_chars = true,
        "{\"s\":\"a\tb\u{1}\"}",
        "!",
        "s=a\tb\u{1}",
    );
    check_option(|o| o.allow_single_quotes = false, "{'a':1}", "a=1", "!");
    check_option(
        |o| o.allow_non_numeric_numbers = false,
        r#"{"f":NaN}"#,
        "f=NaN",
        "!",
    );
    check_option(
        |o| o.allow_non_numeric_numbers = false,
        r#"{"f":"NaN","a":1}"#,
        "a=1 f=NaN",
        "a=1!",
    );
    check_option(
        |o| o.times.zone = Zone::parse("+02:00").unwrap(),
        r#"{"t":"2024-01-05T10:00:00"}"#,
        "t=2024-01-05T10:00:00Z",
        "t=2024-01-05T08:00:00Z",
    );
    check_option(
        |o| o.column_name_of_corrupt_record = "s".into(),
        r#"{"a":"x"}"#,
        "!",
        r#"s={"a":"x"}"#,
    );
}

#[test]
fn texts_beyond_a_bound_are_malformed() {
    let bounded = |nesting_max, digits_max| JsonOptions {
        limits: Some(Limits {
            nesting_max,
            digits_max,
        }),
        ..JsonOptions::default()
    };
    let lines = "{\"a\":12345,\"s\":1}\n{\"a\":123,\"n\":{\"x\":1}}\n{\"zz\":[[12345]],\"a\":1}\n";
    let shown = |options| show(&decode_as(lines, options).unwrap());
    assert_eq!(
        shown(bounded(3, 5)),
        ["a=12345 s=1", "a=123 n={x: 1, y: null}", "a=1"]
    );
    assert_eq!(shown(bounded(3, 4)), ["!", "a=123 n={x: 1, y: null}", "!"]);
    assert_eq!(shown(bounded(1, 5)), ["a=12345 s=1", "!", "!"]);
    let strict = JsonOptions {
        mode: ParseMode::FailFast,
        ..bounded(2, 5)
    };
    let error = decode_as(lines, strict).unwrap_err().to_string();
    assert!(
        error.contains("line 3") && error.contains("maxNestingDepth"),
        "{error}"
    );
}

#[test]
fn nothing_goes_over_the_end_of_a_line() {
    let options = JsonOptions {
        allow_comments: true,
        allow_unquoted_control_chars: true,
        allow_backslash_escaping_any_character: true,
        ..JsonOptions::default()
    };
    let lines = "{\"a\":1 /*\n*/}\n{\"s\":\"x\ny\"}\n{\"s\":\"\\\n\"}\n{\"a\"\n:1}\n{\"a\":2}";
    let shown = show(&decode_as(lines, options).unwrap());
    assert_eq!(shown, ["!", "!", "!", "!", "!", "!", "!", "!", "a=2"]);
    // A name that was learnt from a text of many lines is not found across two.
    let schema = schema();
    let mut decoder = JsonDecoder::new(&schema, &[0, 11], JsonOptions::default()).unwrap();
    decoder.decode_line(b"{\"a\"\n:1,\"zz\"\n:1,\"\0").unwrap();
    decoder
        .decode_lines(b"{\"a\"\n:1}\n{\0\"a\":1}", usize::MAX)
        .unwrap();
    assert_eq!(show(&decoder.flush().unwrap()), ["!", "!", "!", "!"]);
}

#[test]
fn every_line_end_ends_a_line() {
    check(
        "{\"a\":1}\r\n{\"a\":2}\r{\"a\":3}\n\n{\"a\":4}",
        &["a=1", "a=2", "a=3", "a=4"],
    );
}

#[test]
fn a_row_that_is_no_utf8_is_malformed() {
    let schema = schema();
    let columns = [0, 6, 10, 11];
    let mut decoder = JsonDecoder::new(&schema, &columns, JsonOptions::default()).unwrap();
    let bad: [&[u8]; 6] = [
        b"{\"a\":2,\"s\":\"\xff\xe3\"}",
        b"{\"s\":\"\xa9\",\"p\":{\"\xc3\":1}}",
        b"{\"a\":\xff}",
        // Whatever is read of it.
        b"{\"a\":1,\"unknown\":[\"\xed\xa0\x80\"]}",
        b"{\"a\":1,\"\xff\":2}",
        b"[{\"a\":1},{\"a\":2,\"s\":\"\x80\"}]",
    ];
    for bad in bad {
        // Behind many lines too, and ahead of many, which are looked at together.
        for around in [1, 5000] {
            let good = b"{\"a\":1,\"s\":\"\xc3\xa9\"}\n".repeat(around);
            let text = [&good, bad, b"\n", &good[..]].concat();
            decoder.decode_lines(&text, usize::MAX).unwrap();
            let batch = decoder.flush().unwrap();
            assert_eq!(batch.num_rows(), 2 * around + 1);
            let rows = show(&batch);
            assert_eq!(rows[around - 1..around + 2], ["a=1 s=é", "!", "a=1 s=é"]);
            let corrupt = batch.column(3).as_string::<i32>();
            assert_eq!(corrupt.value(around), String::from_utf8_lossy(bad));
            assert_eq!(corrupt.null_count(), 2 * around);
        }
        decoder.decode_line(bad).unwrap();
        assert_eq!(show(&decoder.flush().unwrap()), ["!"]);
    }
    // What is behind a row does not count.
    decoder.decode_lines(b"{\"a\":1} \xff\n", 9).unwrap();
    decoder.decode_line(b"{\"a\":2} \xff").unwrap();
    assert_eq!(show(&decoder.flush().unwrap()), ["a=1", "a=2"]);
}

#[test]
fn integers_have_no_negative_zero() {
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    let fields = vec![field("d", DataType::Float64), field("f", DataType::Float32)];
    let schema = Schema::new(fields);
    let options = JsonOptions {
        allow_numeric_leading_zeros: true,
        ..JsonOptions::default()
    };
    let mut decoder = JsonDecoder::new(&schema, &[0, 1], options).unwrap();
    for (text, negative) in [
        ("-0", false),
        ("-00", false),
        ("-0.0", true),
        ("-0e0", true),
    ] {
        let line = format!("{{\"d\":{text},\"f\":{text}}}");
        decoder.decode_line(line.as_bytes()).unwrap();
        let batch = decoder.flush().unwrap();
        let double = batch.column(0).as_primitive::<Float64Type>().value(0);
        let float = batch.column(1).as_primitive::<Float32Type>().value(0);
        assert_eq!(double.is_sign_negative(), negative, "{text}");
        assert_eq!(float.is_sign_negative(), negative, "{text}");
        assert!(double == 0.0 && float == 0.0);
    }
}

#[test]
fn the_corrupt_column_holds_the_line_as_it_was() {
    let line = r#" {"a":"abc",  "s":"kept"}"#;
    let batch = decode_as(line, JsonOptions::default()).unwrap();
    assert_eq!(batch.column(11).as_string::<i32>().value(0), line);
}

#[test]
fn dropmalformed_drops_and_failfast_tells_the_line() {
    let lines = "{\"a\":1}\n{\"a\":\"x\"}\noops\n[{\"a\":2},{\"a\":\"y\"}]\n{\"a\":3}\n";
    let mode = |mode| JsonOptions {
        mode,
        ..JsonOptions::default()
    };
    let batch = decode_as(lines, mode(ParseMode::DropMalformed)).unwrap();
    assert_eq!(show(&batch), ["a=1", "a=3"]);
    let error = decode_as(lines, mode(ParseMode::FailFast)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 2 is malformed: \"x\" is no INT; mode PERMISSIVE would read it as null"
    );
    let error = decode_as("oops", mode(ParseMode::FailFast)).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("line 1 is malformed: no value starts here")
    );
}

#[test]
fn a_projection_decodes_what_the_full_schema_would() {
    let schema = schema();
    let lines = "{\"a\":1,\"s\":\"x\"}\n{\"a\":2,\"s\":\"\tx\"}\n{\"s\":\"y\",\"a\":\"bad\",\"b\":3}\n{\"b\":4}\n";
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    for columns in [vec![], vec![1], vec![6, 0], vec![11], vec![1, 11]] {
        for mode in [ParseMode::Permissive, ParseMode::DropMalformed] {
            let read = |columns: &[usize]| {
                let options = JsonOptions {
                    mode,
                    ..JsonOptions::default()
                };
                let mut decoder = JsonDecoder::new(&schema, columns, options).unwrap();
                decoder.decode_lines(lines.as_bytes(), usize::MAX).unwrap();
                decoder.flush().unwrap()
            };
            let (some, whole) = (read(&columns), read(&all));
            assert_eq!(
                some,
                whole.project(&columns).unwrap(),
                "{columns:?} {mode:?}"
            );
        }
    }
}

#[test]
fn batches_stop_at_their_rows() {
    let schema = schema();
    let mut decoder = JsonDecoder::new(&schema, &[0], JsonOptions::default()).unwrap();
    let lines = b"{\"a\":1}\n{\"a\":2}\n{\"a\":3}";
    let taken = decoder.decode_lines(lines, 2).unwrap();
    assert_eq!((taken, decoder.rows()), (16, 2));
    assert_eq!(show(&decoder.flush().unwrap()), ["a=1", "a=2"]);
    decoder.decode_lines(&lines[taken..], 2).unwrap();
    assert_eq!(show(&decoder.flush().unwrap()), ["a=3"]);
}

#[test]
fn types_that_json_cannot_hold_are_named() {
    let schema = Schema::new(vec![Field::new("u", DataType::UInt32, true)]);
    let error = JsonDecoder::new(&schema, &[0], JsonOptions::default())
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "column \"u\" of type UINT32 cannot be read from JSON"
    );
}

/// A random line that Spark and arrow-json read alike: right types, double quotes, no repeated names.
pub(super) fn random_line(random: &mut StdRng) -> String {
    let mut fields = Vec::new();
    let mut field = |random: &mut StdRng, name: &str, value: String| {
        if random.random_ratio(4, 5) {
            let value = if random.random_ratio(1, 10) {
                "null".into()
            } else {
                value
            };
            let blank = if random.random_ratio(1, 8) { " " } else { "" };
            fields.push(format!("\"{name}\"{blank}:{blank}{value}"));
        }
    };
    let text = |random: &mut StdRng| {
        let pieces = [
            "a",
            "Zürich",
            "\\n",
            "\\u00e9",
            "\\\"",
            "longer than eight bytes",
            "what is longer than thirty-two bytes, too",
            "😀",
            "{",
            "]",
        ];
        let count = random.random_range(0..5);
        let text: String = (0..count)
            .map(|_| pieces[random.random_range(0..pieces.len())])
            .collect();
        format!("\"{text}\"")
    };
    let a = random.random::<i32>().to_string();
    field(random, "a", a);
    // Of any length.
    let b = (random.random::<i64>() >> random.random_range(0..64)).to_string();
    field(random, "b", b);
    let d = format!(
        "\"2024-{:02}-{:02}\"",
        random.random_range(1..13),
        random.random_range(1..29)
    );
    field(random, "d", d);
    let t = format!(
        "\"2024-01-05T{:02}:{:02}:{:02}.{:03}Z\"",
        random.random_range(0..24),
        random.random_range(0..60),
        random.random_range(0..60),
        random.random_range(0..1000)
    );
    field(random, "t", t);
    let f = match random.random_range(0..4) {
        3 => {
            let places = random.random_range(0..9);
            format!("{:.places$}", random.random::<f64>() * 1e9)
        }
        0 => format!("{}", random.random_range(-1000..1000) as f64 / 8.0),
        1 => format!("{:e}", random.random::<f64>() * 1e30),
        _ => format!("{}", random.random::<f64>()),
    };
    field(random, "f", f);
    let m = format!(
        "{}.{:02}",
        random.random_range(-99_999..99_999),
        random.random_range(0..100)
    );
    field(random, "m", m);
    let s = text(random);
    field(random, "s", s);
    let o = random.random::<bool>().to_string();
    field(random, "o", o);
    let n = format!(
        "{{\"y\":{},\"z\":[1,{{}}],\"x\":{}}}",
        text(random),
        random.random::<i32>()
    );
    field(random, "n", n);
    let l = format!("[{}]", vec!["1"; random.random_range(0..4)].join(" , "));
    field(random, "l", l);
    let p = format!("{{\"k\":{},\"j\":null}}", random.random::<i32>());
    field(random, "p", p);
    let unknown = text(random);
    field(random, "unknown", unknown);
    if random.random_ratio(1, 3) {
        let at = random.random_range(0..=fields.len());
        fields.rotate_left(at);
    }
    format!("{{{}}}", fields.join(","))
}

#[test]
fn random_rows_are_what_arrow_json_reads() {
    let mut fields = schema().fields().to_vec();
    fields.pop();
    let schema = Schema::new(fields);
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    for seed in 0..20 {
        let mut random = StdRng::seed_from_u64(seed);
        let lines: String = (0..500).map(|_| random_line(&mut random) + "\n").collect();
        let mut decoder = JsonDecoder::new(&schema, &all, JsonOptions::default()).unwrap();
        decoder.decode_lines(lines.as_bytes(), usize::MAX).unwrap();
        let ours = decoder.flush().unwrap();
        let mut oracle = arrow_json::ReaderBuilder::new(Arc::new(schema.clone()))
            .with_batch_size(1000)
            .build_decoder()
            .unwrap();
        oracle.decode(lines.as_bytes()).unwrap();
        let theirs = oracle.flush().unwrap().unwrap();
        assert_eq!(show(&ours), show(&theirs), "seed {seed}");
    }
}
