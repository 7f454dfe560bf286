//! ORC and Avro files of other writers, and what is asked of both formats.

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, ListArray, MapArray, PrimitiveArray, StringArray,
    StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type,
    TimestampMicrosecondType,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

const WRITTEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata");

/// A directory with one of the files that other programs wrote.
fn holding(name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(format!("{WRITTEN}/{name}"), dir.path().join(name)).unwrap();
    dir
}

/// Rows as JSON, in the session's zone.
fn json(rows: &RecordBatch) -> Vec<String> {
    json_in(rows, Zone::UTC)
}

fn json_in(rows: &RecordBatch, zone: Zone) -> Vec<String> {
    let columns = rows.columns().iter();
    let views: Vec<View> = columns.map(|column| View::new(column).unwrap()).collect();
    let schema = rows.schema();
    let line = |row| {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let mut line = String::new();
        push_json_object(&mut line, names.zip(&views), row, &JsonStyle::usual(&zone));
        line
    };
    (0..rows.num_rows()).map(line).collect()
}

#[test]
fn avro_of_others_is_read_in_every_codec() {
    let expected = [
        concat!(
            r#"{"flag":true,"small":-7,"large":4611686018427387904,"ratio":1.5,"exact":-0.25,"word":"é","raw":"YWI=","#,
            r#""four":"d3h5eg==","color":"GREEN","price":-12.34,"cost":1234.567,"day":"2024-01-05","#,
            r#""millis":"2024-01-05T10:00:00.123Z","micros":"1960-01-01T00:00:00.000Z","#,
            r#""clock":"2024-07-01T12:30:00.000","id":"00000000-0000-0000-0000-000000000001","either":5,"#,
            r#""mixed":{"member0":"s"},"list":[1,null,3],"map":{"k":9},"#,
            r#""nest":{"x":1,"again":"RED","deep":[{"y":"p"},{"y":"q"}]}}"#,
        ),
        concat!(
            r#"{"flag":false,"small":2147483647,"exact":"Infinity","raw":"","four":"AAAAAA==","color":"RED","#,
            r#""cost":-0.001,"day":"1969-12-31","millis":"1969-12-31T23:59:59.999Z","#,
            r#""clock":"0001-01-01T00:00:00.000","id":"00000000-0000-0000-0000-000000000002","#,
            r#""either":1099511627776,"mixed":{"member1":7},"list":[]}"#,
        ),
        concat!(
            r#"{"flag":true,"small":0,"large":0,"ratio":0.0,"exact":0.0,"word":"","raw":"/w==","four":"YWJjZA==","#,
            r#""color":"RED","price":0.00,"cost":0.000,"day":"9999-12-31","millis":"1970-01-01T00:00:00.000Z","#,
            r#""micros":"9999-12-31T23:59:59.999Z","clock":"1970-01-01T00:00:00.000","#,
            r#""id":"00000000-0000-0000-0000-000000000003","list":[null],"map":{},"nest":{"x":-1,"deep":[]}}"#,
        ),
    ];
    for codec in ["null", "deflate", "snappy", "zstandard"] {
        let dir = holding(&format!("types-{codec}.avro"));
        let rows = read("avro", batch(&dir)).unwrap();
        assert_eq!(json(&rows), expected, "{codec}");
        let micros = rows.column_by_name("micros").unwrap();
        let micros = micros.as_primitive::<TimestampMicrosecondType>();
        assert_eq!(micros.value(0).rem_euclid(1000), 1);
    }
}

#[test]
fn orc_of_others_is_read_in_every_codec() {
    let expected = [
        concat!(
            r#"{"flag":true,"tiny":-128,"short":-32768,"small":-7,"large":4611686018427387904,"ratio":1.5,"#,
            r#""exact":-0.25,"word":"é","raw":"YWI=","price":-12.34,"day":"2024-01-05","#,
            r#""clock":"2024-07-01T12:30:00.000Z","list":[1,null,3],"map":{"k":9},"#,
            r#""nest":{"x":1,"deep":[{"y":"p","at":"9999-01-01T00:00:00.000Z"}]}}"#,
        ),
        "{}",
        concat!(
            r#"{"flag":false,"tiny":127,"short":32767,"small":2147483647,"large":0,"ratio":"NaN","#,
            r#""exact":"Infinity","word":"","raw":"/w==","price":123456789012345678.00,"day":"1969-12-31","#,
            r#""clock":"1960-01-01T00:00:00.000Z","list":[],"map":{},"nest":{"deep":[]}}"#,
        ),
    ];
    for codec in ["uncompressed", "zlib", "snappy", "lz4", "zstd"] {
        let dir = holding(&format!("types-{codec}.orc"));
        let rows = read("orc", batch(&dir)).unwrap();
        assert_eq!(json(&rows), expected, "{codec}");
        let clock = rows.column_by_name("clock").unwrap();
        let clock = clock.as_primitive::<TimestampMicrosecondType>();
        assert_eq!(clock.value(0).rem_euclid(1000), 5);
    }
}

#[test]
fn orc_runs_and_dictionaries_of_others_are_read() {
    let dir = holding("columns.orc");
    let rows = read("orc", batch(&dir)).unwrap();
    let expected = (0..4000i64).map(|i| {
        let id = if i % 7 == 3 {
            "null".into()
        } else {
            i.to_string()
        };
        let word = if i % 5 == 0 {
            "null".into()
        } else {
            format!("w{}", i % 11)
        };
        let list: Vec<String> = (0..i % 4).map(|j| (j * i).to_string()).collect();
        let cents = i * i;
        let price = format!("{}.{:02}", cents / 100, cents % 100);
        format!("{id}|{word}|[{}]|{price}", list.join(", "))
    });
    assert_eq!(show(&rows), expected.collect::<Vec<_>>());
    // Some columns, in another order; and none, which counts.
    let all = read(
        "orc",
        typed(
            batch(&dir),
            &[
                ("price", DataType::Decimal128(14, 2)),
                ("ID", DataType::Int64),
            ],
        ),
    );
    assert_eq!(show(&all.unwrap())[2], "0.04|2");
}

#[test]
fn clocks_of_orc_are_those_of_the_session() {
    let dir = holding("types-zlib.orc");
    let mut request = batch(&dir);
    request.time_zone = "Europe/Berlin".into();
    let rows = read("orc", request).unwrap();
    let berlin = Zone::parse("Europe/Berlin").unwrap();
    assert!(json_in(&rows, berlin)[0].contains(r#""clock":"2024-07-01T12:30:00.000+02:00""#));
    assert!(json(&rows)[0].contains(r#""clock":"2024-07-01T10:30:00.000Z""#));
    let clock = DataType::Timestamp(TimeUnit::Microsecond, None);
    let rows = read("orc", typed(batch(&dir), &[("clock", clock)])).unwrap();
    assert_eq!(json(&rows)[0], r#"{"clock":"2024-07-01T12:30:00.000"}"#);
}

/// Columns are found by name at every depth, and what a file has in a narrower type is widened.
#[test]
fn a_stream_of_both_formats_has_the_schema_it_was_given() {
    let nest = |fields: &[(&str, DataType)]| {
        let fields = schema(fields).unwrap();
        DataType::Struct(fields.fields().clone())
    };
    for name in ["types-zlib.orc", "types-null.avro"] {
        let format = name.rsplit('.').next().unwrap();
        let format: &'static str = if format == "orc" { "orc" } else { "avro" };
        let dir = holding(name);
        let fields = [
            ("missing", DataType::Utf8),
            ("SMALL", DataType::Int64),
            (
                "nest",
                nest(&[("gone", DataType::Int32), ("x", DataType::Int64)]),
            ),
            ("list", DataType::new_list(DataType::Int64, true)),
        ];
        let stream_of = factory(format, typed(stream(&dir), &fields)).unwrap();
        let rows = conformance::source(stream_of.as_ref());
        assert_eq!(
            json(&rows)[0],
            r#"{"SMALL":-7,"nest":{"x":1},"list":[1,null,3]}"#
        );
        // Only columns that the file lacks: its rows are counted all the same.
        let rows = read(format, typed(batch(&dir), &[("missing", DataType::Utf8)])).unwrap();
        assert_eq!(rows.num_rows(), 3);

        let error = read(format, typed(batch(&dir), &[("large", DataType::Int32)])).unwrap_err();
        assert!(
            error.contains("column \"large\" of file \"") && error.contains(name),
            "{error}"
        );
        assert!(
            error.contains("is BIGINT, which cannot be read as INT"),
            "{error}"
        );
        let error = refusal(format, stream(&dir));
        assert!(error.contains("schema must be specified"), "{error}");
        let error = refusal(format, with(batch(&dir), &[("compression", "zlib")]));
        assert!(error.contains("compression"), "{error}");
    }
}

/// Rows of a file of Spark's, in a stream that is given the types that a batch finds.
fn of_spark(name: &str) -> RecordBatch {
    let format = match name.ends_with("orc") {
        true => "orc",
        false => "parquet",
    };
    let dir = holding(name);
    let rows = read(format, batch(&dir)).unwrap();
    let mut streamed = stream(&dir);
    streamed.schema = Some(rows.schema());
    let streamed = conformance::source(factory(format, streamed).unwrap().as_ref());
    assert_eq!(streamed, rows, "{name}");
    rows
}

#[test]
fn times_of_96_bits_are_read_in_microseconds() {
    let rows = of_spark("spark-int96.parquet");
    let instant = |at: usize| rows.column(at).as_primitive::<TimestampMicrosecondType>();
    assert_eq!(instant(3).value(0), i64::MAX);
    assert_eq!(instant(4).value(0), -9_223_372_036_854_000_000);
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    assert_eq!(rows.column(3).data_type(), &zoned);
    let nested = rows.project(&[0, 1, 2]).unwrap();
    let expected = concat!(
        r#"{"s":{"t":"9999-12-31T23:59:59.000Z"},"a":["1500-01-01T00:00:00.000Z"],"#,
        r#""m":{"k":"1500-01-01T00:00:00.000Z"}}"#
    );
    assert_eq!(json(&nested), [expected]);
    // Files of one schema, of which one has them and the other has not.
    let dir = holding("spark-int96.parquet");
    let more = Arc::new(PrimitiveArray::<TimestampMicrosecondType>::from(vec![7]));
    let more = Arc::new(more.as_ref().clone().with_timezone("UTC")) as ArrayRef;
    infer::write_columns(&dir, "parquet", "z.parquet", vec![("mx", more)]);
    for request in [
        with(batch(&dir), &[("mergeSchema", "true")]),
        typed(stream(&dir), &[("mx", zoned)]),
    ] {
        let rows = conformance::source(factory("parquet", request).unwrap().as_ref());
        let found = rows.column_by_name("mx").unwrap();
        let found = found.as_primitive::<TimestampMicrosecondType>();
        assert_eq!(found.values()[..], [i64::MAX, 7]);
    }
}

#[test]
fn times_keep_the_dates_they_were_written_with() {
    let expected = concat!(
        r#"{"tn":"1500-01-01T10:11:12.123","#,
        r#""st":{"a":"2024-01-01T00:00:00.000","d":"1500-06-01","t":"1500-06-01T01:02:03.000Z"},"#,
        r#""ds":["1582-10-15","1582-10-04","1582-10-15","1582-10-15","0001-01-01","1000-02-28","0004-02-29"],"#,
        r#""ts":["1582-10-15T00:00:00.000Z","0001-01-01T00:00:00.000Z","1970-01-01T00:00:00.500Z","#,
        r#""1969-12-31T23:59:58.500Z","1969-12-31T23:59:59.000Z"]}"#
    );
    let rows = of_spark("spark-times.orc");
    let names = rows.schema();
    let columns: Vec<usize> = (0..5)
        .filter(|at| names.field(*at).name() != "id")
        .collect();
    assert_eq!(json(&rows.project(&columns).unwrap()), [expected, expected]);
    let clock = DataType::Timestamp(TimeUnit::Microsecond, None);
    assert_eq!(rows.column_by_name("tn").unwrap().data_type(), &clock);
    let rows = of_spark("spark-proleptic.orc");
    assert_eq!(
        json(&rows),
        [r#"{"d":"1500-06-01","t":"1500-06-01T01:02:03.000Z"}"#]
    );
    for name in ["spark-legacy.parquet", "spark-legacy-int96.parquet"] {
        let expected =
            r#"{"d":["1500-06-01","1582-10-15"],"e":"1500-06-01","t":"1500-06-01T01:02:03.000Z"}"#;
        assert_eq!(json(&of_spark(name)), [expected], "{name}");
    }
    // The clock of New York showed the time of the place.
    let dir = holding("spark-legacy-new-york.parquet");
    let error = read("parquet", batch(&dir)).unwrap_err();
    assert!(error.contains("in time zone America/New_York"), "{error}");
    let days = read("parquet", typed(batch(&dir), &[("e", DataType::Date32)]));
    assert_eq!(json(&days.unwrap()), [r#"{"e":"1500-06-01"}"#]);
}

#[test]
fn types_that_only_spark_knows_are_named() {
    for (name, told) in [
        (
            "spark-intervals.orc",
            "column \"iv\" of type INTERVAL DAY cannot be read from ORC",
        ),
        (
            "spark-intervals.parquet",
            "column \"iv\" of type INTERVAL DAY cannot be read from Parquet",
        ),
        (
            "spark-variant.parquet",
            "column \"v\" of type VARIANT cannot be read from Parquet",
        ),
    ] {
        let dir = holding(name);
        let format = if name.ends_with("orc") {
            "orc"
        } else {
            "parquet"
        };
        assert_eq!(refusal(format, batch(&dir)), told);
        if name.contains("intervals") {
            // Whoever asks for numbers gets them.
            let fields = [("iv", DataType::Int64), ("ym", DataType::Int32)];
            let rows = read(format, typed(batch(&dir), &fields)).unwrap();
            assert_eq!(show(&rows), ["86400000000|14", "86400000000|14"]);
        }
    }
    // A clock is no instant, though both are numbers.
    let dir = holding("spark-times.orc");
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let error = read("orc", typed(batch(&dir), &[("tn", instant)])).unwrap_err();
    assert!(
        error.contains("is BIGINT, which cannot be read as"),
        "{error}"
    );
}

/// What reading a directory says; a panic would fail the test.
fn outcome(format: &'static str, dir: &TempDir, options: &[(&str, &str)]) -> Result<usize, String> {
    let fields = [
        ("small", DataType::Int64),
        ("list", DataType::new_list(DataType::Int32, true)),
    ];
    let rows = read(format, with(typed(batch(dir), &fields), options));
    rows.map(|rows| rows.num_rows())
}

#[test]
fn files_cut_short_are_told_by_name_or_passed_over() {
    for name in ["types-zlib.orc", "types-deflate.avro", "types-null.avro"] {
        let format: &'static str = if name.ends_with("orc") { "orc" } else { "avro" };
        let whole = fs::read(format!("{WRITTEN}/{name}")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut without_rows = 0;
        for len in (0..whole.len()).step_by(13).chain([whole.len() - 1]) {
            write(&dir, name, &whole[..len], 1);
            match outcome(format, &dir, &[]) {
                // Avro's rows may end with the header; nothing tells that there were more.
                Ok(0) => without_rows += 1,
                Ok(rows) => panic!("{rows} rows of a {name} of {len} bytes"),
                Err(error) => assert!(error.contains(name), "{error}"),
            }
            let ignored = outcome(format, &dir, &[("ignoreCorruptFiles", "true")]);
            assert_eq!(ignored, Ok(0), "{len} bytes of {name}");
        }
        assert!(without_rows <= 2, "{without_rows} of {name}");
    }
}

#[test]
fn damaged_bytes_never_panic() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {})); // the decoder of ORC panics where nobody hears it
    let mut told = 0;
    for name in [
        "types-uncompressed.orc",
        "types-zstd.orc",
        "types-null.avro",
        "types-snappy.avro",
    ] {
        let format: &'static str = if name.ends_with("orc") { "orc" } else { "avro" };
        let whole = fs::read(format!("{WRITTEN}/{name}")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        for at in (0..whole.len()).step_by(5) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            write(&dir, name, &bytes, 1);
            told += usize::from(outcome(format, &dir, &[]).is_err());
        }
    }
    std::panic::set_hook(quiet);
    assert!(told > 300, "{told} damages were told");
}

#[test]
fn a_file_of_no_bytes_has_no_rows() {
    for format in ["orc", "avro", "parquet"] {
        let dir = tempfile::tempdir().unwrap();
        write(&dir, "a", "", 1);
        assert_eq!(outcome(format, &dir, &[]), Ok(0));
        write(&dir, "b", "neither the one nor the other", 1);
        let error = outcome(format, &dir, &[]).unwrap_err();
        assert!(error.contains("b\" is no readable"), "{error}");
        assert_eq!(
            outcome(format, &dir, &[("ignoreCorruptFiles", "true")]),
            Ok(0)
        );
    }
}

/// A column of random values, a third of them null if they may be.
fn random(data_type: &DataType, rows: usize, nullable: bool, rng: &mut StdRng) -> ArrayRef {
    let valid: Vec<bool> = (0..rows)
        .map(|_| !nullable || rng.random_range(0..3) > 0)
        .collect();
    let nulls = Some(NullBuffer::from(valid.clone()));
    macro_rules! primitive {
        ($type:ty, $value:expr) => {{
            let values = valid.iter().map(|valid| valid.then(|| $value));
            Arc::new(
                values
                    .collect::<PrimitiveArray<$type>>()
                    .with_data_type(data_type.clone()),
            )
        }};
    }
    let ends = |rng: &mut StdRng| {
        let lengths = valid
            .iter()
            .map(|valid| if *valid { rng.random_range(0..4) } else { 0 });
        OffsetBuffer::from_lengths(lengths.collect::<Vec<_>>())
    };
    let text = |rng: &mut StdRng| "aé\"\n\0"[..[0, 1, 3, 4, 6][rng.random_range(0..5)]].to_string();
    match data_type {
        DataType::Boolean => {
            let values = valid.iter().map(|valid| valid.then(|| rng.random()));
            Arc::new(values.collect::<BooleanArray>())
        }
        DataType::Int8 => primitive!(Int8Type, rng.random()),
        DataType::Int16 => primitive!(Int16Type, rng.random()),
        DataType::Int32 => primitive!(Int32Type, rng.random()),
        DataType::Int64 => primitive!(Int64Type, rng.random::<i64>() >> rng.random_range(0..64)),
        DataType::Float32 => primitive!(Float32Type, f32::from_bits(rng.random::<u32>() >> 3)),
        DataType::Float64 => primitive!(Float64Type, f64::from_bits(rng.random::<u64>() >> 3)),
        // Dates that some calendar leaves out do not come back.
        DataType::Date32 => primitive!(Date32Type, rng.random_range(-141_427..2_900_000)),
        DataType::Timestamp(..) => {
            primitive!(TimestampMicrosecondType, rng.random_range(0..1i64 << 55))
        }
        DataType::Decimal128(precision, _) => {
            let most = 10i128.pow(u32::from(*precision)) - 1;
            primitive!(Decimal128Type, rng.random_range(-most..=most))
        }
        DataType::Utf8 => {
            let values = valid.iter().map(|valid| valid.then(|| text(rng)));
            Arc::new(values.collect::<StringArray>())
        }
        DataType::Binary => {
            let values = valid
                .iter()
                .map(|valid| valid.then(|| text(rng).into_bytes()));
            Arc::new(values.collect::<BinaryArray>())
        }
        DataType::List(item) => {
            let ends = ends(rng);
            let items = random(item.data_type(), *ends.last().unwrap() as usize, true, rng);
            Arc::new(ListArray::new(Arc::clone(item), ends, items, nulls))
        }
        DataType::Struct(fields) => {
            let columns = fields
                .iter()
                .map(|field| random(field.data_type(), rows, true, rng));
            Arc::new(StructArray::new(fields.clone(), columns.collect(), nulls))
        }
        DataType::Map(entries, _) => {
            let ends = ends(rng);
            let rows = *ends.last().unwrap() as usize;
            let DataType::Struct(fields) = entries.data_type() else {
                unreachable!()
            };
            let key = random(fields[0].data_type(), rows, false, rng);
            let value = random(fields[1].data_type(), rows, true, rng);
            let pairs = StructArray::new(fields.clone(), vec![key, value], None);
            Arc::new(MapArray::new(
                Arc::clone(entries),
                ends,
                pairs,
                nulls,
                false,
            ))
        }
        other => unreachable!("{other}"),
    }
}

fn random_type(nested: bool, depth: usize, rng: &mut StdRng) -> DataType {
    let field =
        |name: &str, rng: &mut StdRng| Field::new(name, random_type(nested, depth + 1, rng), true);
    match rng.random_range(0..if nested && depth < 3 { 14 } else { 11 }) {
        0 => DataType::Boolean,
        1 | 2 => DataType::Int32,
        3 => DataType::Int64,
        4 => DataType::Float32,
        5 => DataType::Float64,
        6 | 7 => DataType::Utf8,
        8 => DataType::Binary,
        9 => DataType::Date32,
        10 if nested && rng.random() => {
            let precision = rng.random_range(1..=38);
            DataType::Decimal128(precision, rng.random_range(0..=precision as i8))
        }
        10 => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        11 => DataType::List(Arc::new(field("item", rng))),
        12 => DataType::Struct(vec![field("a", rng), field("b", rng)].into()),
        _ => {
            let pair = vec![
                Field::new("key", DataType::Utf8, false),
                field("value", rng),
            ];
            let entries = Field::new("entries", DataType::Struct(pair.into()), false);
            DataType::Map(Arc::new(entries), false)
        }
    }
}

fn random_rows(nested: bool, rng: &mut StdRng) -> RecordBatch {
    let columns = rng.random_range(1..5);
    let fields =
        (0..columns).map(|at| Field::new(format!("c{at}"), random_type(nested, 0, rng), true));
    let schema = Schema::new(fields.collect::<Vec<_>>());
    let rows = rng.random_range(1..20_000 / (1 + columns));
    let arrays = schema
        .fields()
        .iter()
        .map(|field| random(field.data_type(), rows, true, rng));
    let arrays = arrays.collect();
    RecordBatch::try_new(Arc::new(schema), arrays).unwrap()
}

/// Writes random rows with another writer, and reads them with and without their schema.
fn round_trips(format: &'static str, nested: bool, put: impl Fn(&Path, &RecordBatch, &mut StdRng)) {
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let rows = random_rows(nested, &mut rng);
        let dir = tempfile::tempdir().unwrap();
        put(&dir.path().join("a"), &rows, &mut rng);
        let mut given = batch(&dir);
        given.schema = Some(rows.schema());
        for request in [given, batch(&dir)] {
            let found = read(format, request).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            assert_eq!(found, rows, "seed {seed}");
        }
    }
}

#[test]
fn random_rows_come_back_from_avro() {
    use ::arrow_avro::compression::CompressionCodec;
    use ::arrow_avro::writer::{WriterBuilder, format::AvroOcfFormat};
    round_trips("avro", true, |path, rows, rng| {
        let codecs = [
            CompressionCodec::Deflate,
            CompressionCodec::Snappy,
            CompressionCodec::ZStandard,
        ];
        let codec = codecs.get(rng.random_range(0..4)).copied();
        let builder = WriterBuilder::new(rows.schema().as_ref().clone()).with_compression(codec);
        let file = fs::File::create(path).unwrap();
        let mut writer = builder.build::<_, AvroOcfFormat>(file).unwrap();
        let cut = rng.random_range(0..rows.num_rows());
        for part in [rows.slice(0, cut), rows.slice(cut, rows.num_rows() - cut)] {
            writer.write(&part).unwrap();
        }
        writer.finish().unwrap();
    });
}

#[test]
fn random_rows_come_back_from_orc() {
    round_trips("orc", false, |path, rows, rng| {
        let file = fs::File::create(path).unwrap();
        let builder = ::orc_rust::ArrowWriterBuilder::new(file, rows.schema());
        let stripe = 1 << rng.random_range(10..20);
        let mut writer = builder.with_stripe_byte_size(stripe).try_build().unwrap();
        writer.write(rows).unwrap();
        writer.close().unwrap();
    });
}
