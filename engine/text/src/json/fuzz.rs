//! Damaged rows by the thousand: nothing panics, every row is what a slow reader says, and no row changes another.
//!
//! The slow reader is serde_json with Spark's rules on top. `HIGHWATER_FUZZ_ROWS` sets how many rows, and
//! `HIGHWATER_FUZZ_SEED` which.

use arrow::array::{Array, AsArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, Int32Type, Int64Type};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::de::{Deserializer, SliceRead};

use super::tests::{random_line, schema};
use super::*;
use crate::lines::whole_lines;

/// A JSON value with all its fields, repeated ones too.
enum Json {
    Null,
    Boolean(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl<'de> serde::Deserialize<'de> for Json {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Json;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
                Ok(Json::Boolean(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
                Ok(Json::Integer(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
                Ok(Json::Integer(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
                Ok(Json::Float(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Json, E> {
                Ok(Json::Text(value.into()))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Json::List(items))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Json::Object(fields))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// What a value is in a column: `None` if it has another type. `bad` is set if part of it has.
fn expected(value: &Json, data_type: &DataType, bad: &mut bool) -> Option<String> {
    let cell = match (data_type, value) {
        (_, Json::Null) => "null".into(),
        (DataType::Int32, Json::Integer(n)) => i32::try_from(*n).ok()?.to_string(),
        (DataType::Int64, Json::Integer(n)) => i64::try_from(*n).ok()?.to_string(),
        (DataType::Float64, Json::Integer(n)) => (*n as f64).to_bits().to_string(),
        (DataType::Float64, Json::Float(n)) => n.to_bits().to_string(),
        (DataType::Float64, Json::Text(text)) => match text.as_str() {
            "NaN" => f64::NAN.to_bits().to_string(),
            "Infinity" | "+Infinity" | "+INF" => f64::INFINITY.to_bits().to_string(),
            "-Infinity" | "-INF" => f64::NEG_INFINITY.to_bits().to_string(),
            _ => return None,
        },
        (DataType::Boolean, Json::Boolean(value)) => value.to_string(),
        (DataType::Utf8, Json::Text(text)) => format!("{text:?}"),
        // Its text is not known here.
        (DataType::Utf8, _) => "?".into(),
        (DataType::Struct(fields), Json::Object(_)) => {
            format!("{{{}}}", expected_fields(value, fields, bad).join(","))
        }
        (DataType::List(item), Json::List(values)) => {
            let items: Option<Vec<_>> = values
                .iter()
                .map(|value| expected(value, item.data_type(), bad))
                .collect();
            format!("[{}]", items?.join(","))
        }
        (DataType::Map(entries, _), Json::Object(fields)) => {
            let DataType::Struct(entry) = entries.data_type() else {
                unreachable!("entries are a struct");
            };
            let items: Option<Vec<_>> = fields
                .iter()
                .map(|(name, value)| {
                    let value = expected(value, entry[1].data_type(), bad)?;
                    Some(format!("{name:?}:{value}"))
                })
                .collect();
            format!("[{}]", items?.join(","))
        }
        _ => return None,
    };
    Some(cell)
}

fn expected_fields(value: &Json, fields: &Fields, bad: &mut bool) -> Vec<String> {
    let Json::Object(given) = value else {
        unreachable!("asked of objects only");
    };
    let mut cells = vec!["null".to_string(); fields.len()];
    for (name, value) in given {
        let Some(at) = fields.iter().position(|field| field.name() == name) else {
            continue;
        };
        match expected(value, fields[at].data_type(), bad) {
            Some(cell) => cells[at] = cell,
            None => *bad = true,
        }
    }
    cells
}

/// The rows of one line, the last cell saying whether it is corrupt; `None` if the slow reader cannot tell.
fn reference(line: &[u8], fields: &Fields) -> Option<Vec<Vec<String>>> {
    let row = |value: &Json, bad: &mut bool| expected_fields(value, fields, bad);
    let corrupt = || {
        let mut cells = vec!["null".to_string(); fields.len()];
        cells.push("!".into());
        Some(vec![cells])
    };
    // What Spark takes for JSON and serde_json does not.
    let text = std::str::from_utf8(line).ok()?;
    let odd = ["'", "NaN", "nfinity", "INF", "\\u", "\u{feff}"];
    if text.trim_matches([' ', '\t']).is_empty() {
        return Some(Vec::new());
    }
    let mut deserializer = Deserializer::new(SliceRead::new(line));
    let value = match <Json as serde::Deserialize>::deserialize(&mut deserializer) {
        Ok(value) => value,
        Err(error) if error.to_string().contains("out of range") => return None,
        Err(_) if odd.iter().any(|odd| text.contains(odd)) => return None,
        Err(_) => return corrupt(),
    };
    // serde_json reads it as a float.
    if text.contains("-0") {
        return None;
    }
    let mut bad = false;
    let mut rows = match &value {
        Json::Object(_) => vec![row(&value, &mut bad)],
        Json::List(items) => {
            if items.iter().any(|item| !matches!(item, Json::Object(_))) {
                return corrupt();
            }
            items.iter().map(|item| row(item, &mut bad)).collect()
        }
        _ => return corrupt(),
    };
    for cells in &mut rows {
        cells.push(if bad { "!" } else { "" }.into());
    }
    Some(rows)
}

fn cell(array: &dyn Array, row: usize) -> String {
    if array.is_null(row) {
        return "null".into();
    }
    let list = |items: Vec<String>| format!("[{}]", items.join(","));
    match array.data_type() {
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float64 => {
            let value = array.as_primitive::<Float64Type>().value(row);
            value.to_bits().to_string()
        }
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Utf8 => format!("{:?}", array.as_string::<i32>().value(row)),
        DataType::Struct(_) => {
            let columns = array.as_struct().columns();
            let cells: Vec<_> = columns.iter().map(|column| cell(column, row)).collect();
            format!("{{{}}}", cells.join(","))
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            list((0..items.len()).map(|at| cell(&items, at)).collect())
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let (keys, values) = (entries.column(0), entries.column(1));
            let pair = |at| format!("{}:{}", cell(keys, at), cell(values, at));
            list((0..entries.len()).map(pair).collect())
        }
        other => unreachable!("no column has type {other}"),
    }
}

/// The columns the slow reader knows, and that of corrupt rows.
fn known() -> Schema {
    let names = ["a", "b", "f", "s", "o", "n", "l", "p", "_corrupt_record"];
    let schema = schema();
    let fields = names.map(|name| Arc::new(schema.field_with_name(name).unwrap().clone()));
    Schema::new(fields.to_vec())
}

/// A row, mostly damaged: in its bytes, or in what it means.
fn damaged(random: &mut StdRng) -> Vec<u8> {
    let mut line = random_line(random);
    if random.random_ratio(1, 2) {
        let values = [
            "null",
            "true",
            "\"x\"",
            "1",
            "1.5",
            "1e2",
            "{}",
            "[]",
            "[1,\"x\"]",
            "[null,2]",
            "{\"k\":1}",
            "{\"x\":\"y\"}",
            "{\"x\":1,\"x\":2}",
            "9999999999",
            "\"NaN\"",
            "NaN",
            "tru",
            "[{\"a\":[1,{}]}]",
            "\"\\u00e9\"",
            "\"\\ud83d\\ude00\"",
            "'x'",
            "-Infinity",
            "007",
            "1.",
            "\"a\\tb\"",
            "",
        ];
        let names = [
            "a", "b", "f", "s", "o", "n", "l", "p", "unknown", "A", "\\u0061", "",
        ];
        let field = format!(
            "\"{}\":{}",
            names[random.random_range(0..names.len())],
            values[random.random_range(0..values.len())]
        );
        line = match random.random_range(0..4) {
            0 => format!("{{{field}}}"),
            1 => format!("{{{field},{}", &line[1..]),
            2 => format!("{},{field}}}", &line[..line.len() - 1]),
            _ => format!("[{line},{{{field}}}]"),
        };
    }
    let mut line = line.into_bytes();
    for _ in 0..[0, 0, 1, 2, 3][random.random_range(0..5)] {
        let Some(last) = line.len().checked_sub(1) else {
            break;
        };
        let at = random.random_range(0..=last);
        let alphabet = b"\"\\{}[]:,'0-e\xff\t .1nu/\0";
        let byte = alphabet[random.random_range(0..alphabet.len())];
        match random.random_range(0..5) {
            0 => line.truncate(at),
            1 => line[at] = byte,
            2 => drop(line.remove(at)),
            3 => line.insert(at, byte),
            _ => line[at] ^= 1 << random.random_range(0..8),
        }
    }
    line.retain(|byte| !matches!(byte, b'\n' | b'\r'));
    line
}

fn setting(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

fn decode_in_parts(
    decoder: &mut JsonDecoder,
    text: &[u8],
    cut: usize,
    rows_max: usize,
) -> RecordBatch {
    let cut = whole_lines(&text[..cut]);
    let mut batches = Vec::new();
    for part in [&text[..cut], &text[cut..]] {
        let mut rest = part;
        while !rest.is_empty() {
            let taken = decoder.decode_lines(rest, rows_max).unwrap();
            rest = &rest[taken..];
            if decoder.rows() >= rows_max {
                batches.push(decoder.flush().unwrap());
            }
        }
    }
    batches.push(decoder.flush().unwrap());
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

#[test]
fn damaged_rows_are_what_a_slow_reader_says() {
    let schema = known();
    let fields: Vec<_> = schema.fields()[..8].to_vec();
    let fields = Fields::from(fields);
    let all: Vec<usize> = (0..9).collect();
    let seed = setting("HIGHWATER_FUZZ_SEED", 1);
    let mut random = StdRng::seed_from_u64(seed);
    let mut decoder = JsonDecoder::new(&schema, &all, JsonOptions::default()).unwrap();
    let mut told = 0;
    for round in 0..setting("HIGHWATER_FUZZ_ROWS", 30_000).div_ceil(20) {
        let lines: Vec<_> = (0..20).map(|_| damaged(&mut random)).collect();
        let end: &[u8] = [b"\n" as &[u8], b"\r\n", b"\r"][random.random_range(0..3)];
        let text = lines.join(end);
        decoder.decode_lines(&text, usize::MAX).unwrap();
        let together = decoder.flush().unwrap();
        let cut = random.random_range(0..=text.len());
        let parts = decode_in_parts(&mut decoder, &text, cut, random.random_range(1..9));
        assert_eq!(together, parts, "seed {seed} round {round} cut {cut}");
        let mut at = 0;
        for line in &lines {
            let shown = String::from_utf8_lossy(line);
            // Blocks of lines and single texts are read by different loops.
            decoder.decode_line(line).unwrap();
            let alone = decoder.flush().unwrap();
            let rows = alone.num_rows();
            assert_eq!(
                together.slice(at, rows),
                alone,
                "seed {seed} round {round}: {shown}"
            );
            let Some(expected) = reference(line, &fields) else {
                at += rows;
                continue;
            };
            told += 1;
            assert_eq!(rows, expected.len(), "seed {seed} round {round}: {shown}");
            for (row, cells) in expected.iter().enumerate() {
                for (column, cell_expected) in cells[..8].iter().enumerate() {
                    if cell_expected == "?" {
                        continue;
                    }
                    let found = cell(alone.column(column), row);
                    let name = fields[column].name();
                    // Text that is not known may be within; and serde_json misses some floats by one unit.
                    let near = |a: &str, b: &str| {
                        Some(a.parse::<u64>().ok()?.abs_diff(b.parse().ok()?) < 2)
                    };
                    let same = found == *cell_expected
                        || cell_expected.contains('?')
                        || (name == "f" && near(&found, cell_expected) == Some(true));
                    assert!(
                        same,
                        "seed {seed} round {round}: {shown}: {name} is {found}, not {cell_expected}"
                    );
                }
                let corrupt = alone.column(8).is_valid(row);
                assert_eq!(
                    corrupt,
                    cells[8] == "!",
                    "seed {seed} round {round}: {shown}"
                );
            }
            at += rows;
        }
        assert_eq!(at, together.num_rows());
    }
    assert!(told > 1000, "the slow reader could judge {told} rows only");
}

#[test]
fn options_change_rows_and_never_their_neighbours() {
    let schema = schema();
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let mut random = StdRng::seed_from_u64(setting("HIGHWATER_FUZZ_SEED", 1));
    for round in 0..setting("HIGHWATER_FUZZ_ROWS", 30_000).div_ceil(600) {
        let mut flag = || random.random::<bool>();
        let options = JsonOptions {
            mode: if flag() {
                ParseMode::Permissive
            } else {
                ParseMode::DropMalformed
            },
            allow_comments: flag(),
            allow_unquoted_field_names: flag(),
            allow_numeric_leading_zeros: flag(),
            allow_backslash_escaping_any_character: flag(),
            allow_unquoted_control_chars: flag(),
            allow_single_quotes: flag(),
            allow_non_numeric_numbers: flag(),
            ..JsonOptions::default()
        };
        let mut decoder = JsonDecoder::new(&schema, &all, options.clone()).unwrap();
        let lines: Vec<_> = (0..200).map(|_| damaged(&mut random)).collect();
        let text = lines.join(b"\n" as &[u8]);
        decoder.decode_lines(&text, usize::MAX).unwrap();
        let together = decoder.flush().unwrap();
        for line in &lines {
            decoder.decode_line(line).unwrap();
        }
        assert_eq!(
            together,
            decoder.flush().unwrap(),
            "round {round}: {options:?}"
        );
        // A projection decodes what the whole schema would.
        let some = [6, 0, 11];
        let mut decoder = JsonDecoder::new(&schema, &some, options).unwrap();
        decoder.decode_lines(&text, usize::MAX).unwrap();
        assert_eq!(
            together.project(&some).unwrap(),
            decoder.flush().unwrap(),
            "round {round}"
        );
    }
}

#[test]
fn it_does_not_matter_where_blocks_are_cut() {
    let schema = known();
    let all: Vec<usize> = (0..9).collect();
    let mut decoder = JsonDecoder::new(&schema, &all, JsonOptions::default()).unwrap();
    let mut random = StdRng::seed_from_u64(3);
    for _ in 0..20 {
        let lines: Vec<_> = (0..5).map(|_| damaged(&mut random)).collect();
        let text = lines.join(b"\r\n" as &[u8]);
        let whole = decode_in_parts(&mut decoder, &text, 0, usize::MAX);
        for cut in 0..=text.len() {
            assert_eq!(
                whole,
                decode_in_parts(&mut decoder, &text, cut, 2),
                "cut {cut}"
            );
        }
    }
}
