//! How the text of files is read: shapes, encodings, codecs, and what becomes of bad rows.

use super::*;

fn fields() -> [(&'static str, DataType); 2] {
    [("a", DataType::Int32), ("s", DataType::Utf8)]
}

fn check(name: &'static str, request: SourceRequest, expected: &[&str]) {
    let rows = conformance::source(factory(name, request).unwrap().as_ref());
    assert_eq!(show(&rows), expected);
}

#[test]
fn a_whole_file_can_be_a_row() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a", "one\ntwo\n", 3);
    write(&dir, "b", "", 2);
    write(&dir, "c", "three", 1);
    let request = || with(stream(&dir), &[("wholetext", "true")]);
    check("text", request(), &["one\ntwo\n", "three"]);
    let error = refusal("text", with(request(), &[("lineSep", "x")]));
    assert!(error.contains("rows are not lines"), "{error}");
}

#[test]
fn a_file_of_no_bytes_is_no_row() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a", "", 3);
    write(&dir, "b", "x\n", 2);
    let gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    write(&dir, "c.gz", gz.finish().unwrap(), 1);
    check(
        "text",
        with(batch(&dir), &[("wholetext", "true")]),
        &["x\n", ""],
    );
}

#[test]
fn rows_ahead_of_damage_are_kept_where_it_is_looked_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Longer than a block, and of no two lines alike.
    let lines = (0..400_000u64).map(|n| format!("{}\n", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let lines: Vec<String> = lines.collect();
    gz.write_all(lines.concat().as_bytes()).unwrap();
    let gz = gz.finish().unwrap();
    for (len, least, most) in [
        (gz.len() - 4, lines.len(), lines.len()),
        (
            gz.len() / 2,
            lines.len() / 2 - 10_000,
            lines.len() / 2 + 10_000,
        ),
        (9, 0, 0),
    ] {
        write(&dir, "a.gz", &gz[..len], 1);
        for format in ["text", "csv"] {
            let fields = [("value", DataType::Utf8)];
            let request = || typed(batch(&dir), &fields);
            let error = read(format, request()).unwrap_err();
            assert!(error.contains("gzip"), "{error}");
            let rows = read(format, with(request(), &[("ignoreCorruptFiles", "true")])).unwrap();
            let count = rows.num_rows();
            assert!((least..=most).contains(&count), "{format} {len}: {count}");
            let found = show(&rows);
            assert!(found.iter().zip(&lines).all(|(a, b)| a == b.trim_end()));
        }
        // A row of a whole file is there whole or not at all.
        let whole = [("ignoreCorruptFiles", "true"), ("wholetext", "true")];
        assert_eq!(
            read("text", with(batch(&dir), &whole)).unwrap().num_rows(),
            0
        );
    }
}

#[test]
fn one_character_separates_cells() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a", "1\0x\n", 1);
    let fields = [("a", DataType::Int32), ("s", DataType::Utf8)];
    let request = |name, value| with(typed(batch(&dir), &fields), &[(name, value)]);
    assert_eq!(show(&read("csv", request("sep", "\0")).unwrap()), ["1|x"]);
    for name in ["sep", "delimiter"] {
        for value in ["", "||", "é"] {
            let error = refusal("csv", request(name, value));
            assert!(error.contains("it is one ASCII character"), "{error}");
        }
    }
}

#[test]
fn lines_can_end_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a", "1,x||2,y\rz||\n3,w", 1);
    let end = [("lineSep", "||")];
    check(
        "text",
        with(stream(&dir), &end),
        &["1,x", "2,y\rz", "\n3,w"],
    );
    let csv = with(typed(stream(&dir), &fields()), &end);
    check("csv", csv, &["1|x", "2|y\rz", "null|w"]);
    write(&dir, "a", "{\"a\":1}||{\"a\":\n2,\"s\":\"x\"}||", 1);
    let json = || with(typed(stream(&dir), &fields()), &end);
    check("json", json(), &["1|null", "2|x"]);
    let inferred = read("json", with(batch(&dir), &end)).unwrap();
    assert_eq!(show(&inferred), ["1|null", "2|x"]);
    write(&dir, "a", "one\r\ntwo", 1);
    check(
        "text",
        with(stream(&dir), &[("lineSep", "\\n")]),
        &["one\r", "two"],
    );
}

#[test]
fn rows_of_json_can_span_lines() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a", "[{\"a\":1,\n\"s\":\"x\"},\n{\"a\":2}]\n", 3);
    write(&dir, "b", "{\n\"a\": 3\n}", 2);
    write(&dir, "c", "{\"a\":\noops", 1);
    let many = [("multiLine", "true")];
    let request = with(typed(stream(&dir), &fields()), &many);
    check("json", request, &["1|x", "2|null", "3|null", "null|null"]);
    fs::remove_file(dir.path().join("c")).unwrap();
    let inferred = read("json", with(batch(&dir), &many)).unwrap();
    assert_eq!(show(&inferred), ["1|x", "2|null", "3|null"]);
    // One text with more rows than a batch.
    let long: Vec<String> = (0..70_000).map(|n| format!("{{\"a\":{n}}}")).collect();
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a", format!("[{}]", long.join(",\n")), 1);
    let request = with(typed(stream(&dir), &fields()), &many);
    let rows = conformance::source(factory("json", request).unwrap().as_ref());
    assert_eq!(rows.num_rows(), 70_000);
}

#[test]
fn rows_of_csv_can_span_lines() {
    let dir = tempfile::tempdir().unwrap();
    write(
        &dir,
        "a",
        "a,s\r\n1,\"x\ny\"\r\n2,z\n\n3,\"never\nclosed",
        1,
    );
    let many = [("multiLine", "true"), ("header", "true")];
    let request = with(typed(stream(&dir), &fields()), &many);
    check("csv", request, &["1|x\ny", "2|z", "3|never\nclosed"]);
    // Rows at the borders of blocks.
    let rows: String = (0..60_000)
        .map(|n| format!("{n},\"{}\n{n}\"\n", "x".repeat(n % 70)))
        .collect();
    write(&dir, "a", format!("a,s\n{rows}"), 1);
    let request = with(typed(stream(&dir), &fields()), &many);
    let rows = conformance::source(factory("csv", request).unwrap().as_ref());
    assert_eq!(rows.num_rows(), 60_000);
    let texts = rows.column(1).as_string::<i32>();
    assert!((0..60_000).all(|n| texts.value(n).ends_with(&format!("\n{n}"))));
}

#[test]
fn other_encodings_are_read() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a", b"1,Z\xfcrich\n", 1);
    for name in ["encoding", "charset"] {
        let latin = [(name, "ISO-8859-1")];
        check(
            "csv",
            with(typed(stream(&dir), &fields()), &latin),
            &["1|Zürich"],
        );
    }
    let units: Vec<u8> = "{\"a\":1,\"s\":\"日\"}\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    write(&dir, "a", units, 1);
    let wide = [("encoding", "UTF-16LE")];
    check(
        "json",
        with(typed(stream(&dir), &fields()), &wide),
        &["1|日"],
    );
    let error = refusal("text", with(stream(&dir), &[("encoding", "EBCDIC")]));
    assert!(error.contains("it is an encoding like UTF-8"), "{error}");
}

#[test]
fn compressed_files_are_read_by_their_endings() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = zstd::encode_all(&b"one\ntwo\n"[..], 1).unwrap();
    write(&dir, "a.txt.zst", &bytes, 2);
    write(&dir, "b.zst", b"", 1);
    check("text", stream(&dir), &["one", "two"]);
    write(&dir, "a.txt.zst", &bytes[..bytes.len() - 1], 2);
    let error = read("text", batch(&dir)).unwrap_err();
    assert!(error.contains("is no whole zstd file"), "{error}");
}

/// The lines of all files that are told in a directory.
fn told(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        assert!(path.to_str().unwrap().ends_with(".json"), "{path:?}");
        let text = fs::read_to_string(path).unwrap();
        lines.extend(text.lines().map(str::to_string));
    }
    lines.sort();
    lines
}

#[test]
fn bad_rows_are_kept_once() {
    for (name, text, bad) in [
        (
            "json",
            "{\"a\":1}\noops\n{\"a\":\"x\"}\n",
            ["oops", "{\\\"a\\\":\\\"x\\\"}"],
        ),
        ("csv", "1,x\noops\nx,y\n", ["oops", "x,y"]),
    ] {
        let (dir, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(&dir, "in", text, 1);
        let option = [("badRecordsPath", kept.path().to_str().unwrap())];
        let request = with(typed(stream(&dir), &fields()), &option);
        // This reads everything several times.
        let rows = conformance::source(factory(name, request).unwrap().as_ref());
        assert_eq!(rows.num_rows(), 1, "{name}");
        let lines = told(&kept.path().join("bad_records"));
        assert_eq!(lines.len(), 2, "{lines:?}");
        for bad in bad {
            let record = format!("\"record\":\"{bad}\"");
            assert!(lines.iter().any(|line| line.contains(&record)), "{lines:?}");
        }
        assert!(lines[0].contains("/in\",\"reason\":\""), "{lines:?}");
    }
}

#[test]
fn bad_files_are_kept_and_the_others_read() {
    let (dir, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let option = [("badRecordsPath", kept.path().to_str().unwrap())];
    write(&dir, "a.parquet", "no parquet at all", 1);
    let request = with(typed(stream(&dir), &fields()), &option);
    assert_eq!(read_stream("parquet", request), 0);
    write(&dir, "a.gz", "no gzip at all", 2);
    fs::remove_file(dir.path().join("a.parquet")).unwrap();
    write(&dir, "b", "1,x\n", 1);
    let request = with(typed(stream(&dir), &fields()), &option);
    assert_eq!(read_stream("csv", request), 1);
    let lines = told(&kept.path().join("bad_files"));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].contains("a.gz") && lines[1].contains("a.parquet"),
        "{lines:?}"
    );
    let both = with(stream(&dir), &[option[0], ("mode", "FAILFAST")]);
    assert!(refusal("csv", typed(both, &fields())).contains("not both"));
    let inside = [("badRecordsPath", dir.path().to_str().unwrap())];
    assert!(refusal("text", with(stream(&dir), &inside)).contains("read from"));
}

/// How many rows a stream has now.
fn read_stream(name: &'static str, request: SourceRequest) -> usize {
    let factory = factory(name, request).unwrap();
    let mut source = factory.open().unwrap();
    let (from, to) = (source.initial().unwrap(), source.latest().unwrap());
    let admitted = source.admit(&from, &to, u64::MAX).unwrap().unwrap();
    let schema = factory.schema();
    conformance::read(source.reader().as_ref(), &schema, &admitted.splits, &[0])
        .unwrap()
        .num_rows()
}

#[test]
fn limits_and_headers_of_csv_are_kept_to() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a", "a,s\n1,xyz\n2,wxyz\n", 1);
    let request = |more: &[(&str, &str)]| {
        let options = [&[("header", "true")], more].concat();
        with(typed(batch(&dir), &fields()), &options)
    };
    // No mode looks over what is beyond a limit.
    for mode in ["PERMISSIVE", "DROPMALFORMED", "FAILFAST"] {
        let told = |limit| read("csv", request(&[limit, ("mode", mode)])).unwrap_err();
        let error = told(("maxCharsPerColumn", "3"));
        assert!(
            error.ends_with("line 3 is malformed: a cell is longer than maxCharsPerColumn, 3"),
            "{error}"
        );
        let error = told(("maxColumns", "1"));
        assert!(
            error.ends_with("line 1 is malformed: it has more cells than maxColumns, 1"),
            "{error}"
        );
    }
    let rows = read(
        "csv",
        request(&[("maxCharsPerColumn", "4"), ("maxColumns", "2")]),
    )
    .unwrap();
    assert_eq!(show(&rows), ["1|xyz", "2|wxyz"]);
    let exact = [("enforceSchema", "false")];
    assert_eq!(read("csv", request(&exact)).unwrap().num_rows(), 2);
    write(&dir, "a", "s,a\n1,x\n", 1);
    assert_eq!(read("csv", request(&[])).unwrap().num_rows(), 1);
    let error = read("csv", request(&exact)).unwrap_err();
    assert!(
        error.ends_with("is \"s, a\", the schema says \"a, s\""),
        "{error}"
    );
    let pruned = ("columnPruning", "true");
    let dropping = request(&[pruned, ("mode", "DROPMALFORMED")]);
    let error = refusal("csv", dropping);
    assert!(error.contains("columnPruning"), "{error}");
    for value in ["true", "false"] {
        let rows = read("csv", request(&[("columnPruning", value)])).unwrap();
        assert_eq!(rows.num_rows(), 1);
    }
}
