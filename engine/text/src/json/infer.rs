//! Finds a schema that fits given JSON texts, as Spark's batch reader does when it is given none.
//!
//! Fields come in order of their names. Integers are BIGINT (larger ones DECIMAL), other numbers DOUBLE, and what has
//! no common type is STRING. Dates and timestamps stay strings unless options say otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};

use super::escape::unescape;
use super::scan::{Cursor, Malformed, Scan, Start};
use super::{JsonError, JsonOptions, check_text};
use crate::lines::Lines;
use crate::mode::ParseMode;
use crate::sample;

/// What is known of a value so far.
#[derive(Debug, Clone, PartialEq)]
enum Shape {
    /// Only nulls and empty strings.
    Null,
    Boolean,
    Long,
    /// So many digits, so many of them behind the point.
    Decimal(u8, u8),
    Double,
    Timestamp,
    String,
    List(Box<Shape>),
    Struct(BTreeMap<String, Shape>),
}

/// Learns from texts.
pub struct JsonInference {
    options: JsonOptions,
    row: BTreeMap<String, Shape>,
    corrupt: bool,
    lines: u64,
}

impl JsonInference {
    /// One that has seen nothing.
    pub fn new(options: JsonOptions) -> Self {
        JsonInference {
            options,
            row: BTreeMap::new(),
            corrupt: false,
            lines: 0,
        }
    }

    /// Looks at lines; the last one need not be ended.
    pub fn look_at(&mut self, text: &[u8]) -> Result<(), JsonError> {
        Lines::new(text).try_for_each(|line| self.look_at_text(line))
    }

    /// Looks at one text, wherever lines end in it.
    pub fn look_at_text(&mut self, text: &[u8]) -> Result<(), JsonError> {
        self.lines += 1;
        if !sample::takes(self.lines, self.options.sampling_ratio) {
            return Ok(());
        }
        let mut cursor = Cursor::new(text, self.options.dialect(true));
        let row = row_of(&mut cursor, &self.options);
        let row = row.and_then(|row| match &self.options.limits {
            None => Ok(row),
            Some(limits) => limits.check(text).map(|()| row),
        });
        match row.and_then(|row| check_text(&text[..cursor.pos]).map(|()| row)) {
            Ok(row) => merge_fields(&mut self.row, row),
            Err(_) if self.options.mode == ParseMode::DropMalformed => {}
            Err(_) if self.options.mode == ParseMode::Permissive => self.corrupt = true,
            Err(Malformed(reason)) => {
                return Err(JsonError::Malformed {
                    line: self.lines,
                    reason: reason.into(),
                });
            }
        }
        Ok(())
    }

    /// The schema so far; `None` if no field was seen.
    pub fn schema(&self) -> Option<Schema> {
        let mut row = self.row.clone();
        if self.corrupt {
            let name = self.options.column_name_of_corrupt_record.clone();
            row.entry(name).or_insert(Shape::String);
        }
        let fields = fields(&row, self.options.drop_field_if_all_null);
        (!fields.is_empty()).then(|| Schema::new(fields))
    }
}

/// The type of the first value of `text`, or why it has none.
pub fn type_of(text: &str, options: &JsonOptions) -> Result<DataType, &'static str> {
    let mut cursor = Cursor::new(text.as_bytes(), options.dialect(true));
    cursor.blanks();
    if cursor.at_end() {
        return Ok(DataType::Utf8);
    }
    let shape = shape(&mut cursor, options, 0).map_err(|Malformed(reason)| reason)?;
    if let Some(limits) = &options.limits {
        limits
            .check(text.as_bytes())
            .map_err(|Malformed(reason)| reason)?;
    }
    let drop_null = options.drop_field_if_all_null;
    let none = DataType::Struct(Fields::empty());
    Ok(match &shape {
        Shape::Struct(_) => data_type(&shape, drop_null).unwrap_or(none),
        Shape::List(item) if matches!(**item, Shape::Struct(_)) => {
            DataType::new_list(data_type(item, drop_null).unwrap_or(none), true)
        }
        _ => data_type(&shape, drop_null).unwrap_or(DataType::Utf8),
    })
}

fn row_of(cursor: &mut Cursor<'_>, options: &JsonOptions) -> Scan<BTreeMap<String, Shape>> {
    if cursor.rest().starts_with(b"\xef\xbb\xbf") {
        cursor.pos += 3;
    }
    cursor.blanks();
    if cursor.at_end() {
        return Ok(BTreeMap::new());
    }
    match shape(cursor, options, 0)? {
        Shape::Struct(row) => Ok(row),
        Shape::Null if cursor.text[cursor.pos - 1] != b'"' => Ok(BTreeMap::new()),
        Shape::List(item) => match *item {
            Shape::Struct(row) => Ok(row),
            Shape::Null => Ok(BTreeMap::new()),
            _ => Err(Malformed("an array of rows holds something else")),
        },
        _ => Err(Malformed("it is no object")),
    }
}

fn shape(cursor: &mut Cursor<'_>, options: &JsonOptions, depth: usize) -> Scan<Shape> {
    Ok(match cursor.start()? {
        Start::Null => {
            cursor.literal("null")?;
            Shape::Null
        }
        Start::True => {
            cursor.literal("true")?;
            primitive(Shape::Boolean, options)
        }
        Start::False => {
            cursor.literal("false")?;
            primitive(Shape::Boolean, options)
        }
        Start::String => {
            let text = cursor.string()?;
            let raw = &cursor.text[text.start..text.end];
            let mut unescaped = Vec::new();
            match text.escaped {
                // Some writers do not tell an empty string from a null.
                false if raw.is_empty() => Shape::Null,
                false => string_shape(raw, options),
                true => {
                    unescape(raw, &mut unescaped);
                    string_shape(&unescaped, options)
                }
            }
        }
        Start::NotFinite => {
            cursor.not_finite()?;
            primitive(Shape::Double, options)
        }
        Start::Number => {
            let number = cursor.number()?;
            let text = &cursor.text[number.start..number.end];
            let long = number.integer && crate::number::parse_i64(text).is_some();
            let exact = number.integer || options.prefers_decimal;
            let shape = match long {
                true => Shape::Long,
                false if exact => decimal_shape(text).unwrap_or(Shape::Double),
                false => Shape::Double,
            };
            primitive(shape, options)
        }
        Start::Object => {
            cursor.deeper(depth)?;
            let mut fields = BTreeMap::new();
            cursor.pos += 1;
            cursor.blanks();
            if !cursor.eat(b'}') {
                loop {
                    let name = cursor.key()?;
                    let mut text = Vec::new();
                    unescape(&cursor.text[name.start..name.end], &mut text);
                    let name = String::from_utf8_lossy(&text).into_owned();
                    let value = shape(cursor, options, depth + 1)?;
                    fields.insert(name, value);
                    if !cursor.more(b'}')? {
                        break;
                    }
                }
            }
            Shape::Struct(fields)
        }
        Start::Array => {
            cursor.deeper(depth)?;
            let mut item = Shape::Null;
            cursor.pos += 1;
            cursor.blanks();
            if !cursor.eat(b']') {
                loop {
                    item = merge(item, shape(cursor, options, depth + 1)?);
                    if !cursor.more(b']')? {
                        break;
                    }
                }
            }
            Shape::List(Box::new(item))
        }
    })
}

fn primitive(shape: Shape, options: &JsonOptions) -> Shape {
    match options.primitives_as_string {
        true => Shape::String,
        false => shape,
    }
}

fn string_shape(text: &[u8], options: &JsonOptions) -> Shape {
    if options.prefers_decimal {
        // Thousands may be grouped, wherever.
        let digits: Vec<u8> = text.iter().copied().filter(|byte| *byte != b',').collect();
        if let Some(shape) = decimal_shape(&digits) {
            return shape;
        }
    }
    match options.infer_timestamp && options.times.timestamp(text).is_some() {
        true => Shape::Timestamp,
        false => Shape::String,
    }
}

/// The smallest DECIMAL that has the number; `None` if there is none, or it is no number.
fn decimal_shape(text: &[u8]) -> Option<Shape> {
    let text = text
        .strip_prefix(b"-")
        .or(text.strip_prefix(b"+"))
        .unwrap_or(text);
    let (mantissa, power) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&text[..at], crate::number::parse_i64(&text[at + 1..])?),
        None => (text, 0),
    };
    let (mut digits, mut behind, mut point) = (Vec::new(), 0i64, false);
    for byte in mantissa {
        match byte {
            b'.' if !point => point = true,
            b'0'..=b'9' => {
                digits.push(*byte);
                behind += i64::from(point);
            }
            _ => return None,
        }
    }
    if digits.is_empty() {
        return None;
    }
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    let count = (digits.len() - zeros).max(1) as i64;
    let scale = behind.checked_sub(power)?;
    let precision = match scale < 0 {
        true => count.checked_sub(scale)?,
        false => count.max(scale),
    };
    (precision <= 38).then_some(Shape::Decimal(precision as u8, scale.max(0) as u8))
}

/// The smallest DECIMAL that has the numbers of both.
fn wider((a, a_scale): (u8, u8), (b, b_scale): (u8, u8)) -> Shape {
    let scale = a_scale.max(b_scale);
    match (a - a_scale).max(b - b_scale) + scale {
        precision @ ..=38 => Shape::Decimal(precision, scale),
        _ => Shape::Double,
    }
}

fn merge_fields(known: &mut BTreeMap<String, Shape>, more: BTreeMap<String, Shape>) {
    for (name, shape) in more {
        let before = known.remove(&name).unwrap_or(Shape::Null);
        known.insert(name, merge(before, shape));
    }
}

/// The narrowest shape that both have.
fn merge(a: Shape, b: Shape) -> Shape {
    use Shape::*;
    match (a, b) {
        (a, b) if a == b => a,
        (Null, other) | (other, Null) => other,
        (Long, Decimal(digits, scale)) | (Decimal(digits, scale), Long) => {
            wider((20, 0), (digits, scale))
        }
        (Decimal(a, a_scale), Decimal(b, b_scale)) => wider((a, a_scale), (b, b_scale)),
        (Long | Decimal(..), Double) | (Double, Long | Decimal(..)) => Double,
        (List(a), List(b)) => List(Box::new(merge(*a, *b))),
        (Struct(mut a), Struct(b)) => {
            merge_fields(&mut a, b);
            Struct(a)
        }
        _ => String,
    }
}

/// Columns for shapes; objects without fields and fields without names become none.
fn fields(shapes: &BTreeMap<String, Shape>, drop_null: bool) -> Vec<FieldRef> {
    let field = |(name, shape): (&String, &Shape)| {
        Some(Arc::new(Field::new(
            name,
            data_type(shape, drop_null)?,
            true,
        )))
    };
    let named = shapes.iter().filter(|(name, _)| !name.is_empty());
    named.filter_map(field).collect()
}

fn data_type(shape: &Shape, drop_null: bool) -> Option<DataType> {
    Some(match shape {
        Shape::Null if drop_null => return None,
        Shape::Null | Shape::String => DataType::Utf8,
        Shape::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Shape::Boolean => DataType::Boolean,
        Shape::Long => DataType::Int64,
        Shape::Decimal(digits, scale) => DataType::Decimal128(*digits, *scale as i8),
        Shape::Double => DataType::Float64,
        Shape::List(item) => DataType::new_list(data_type(item, drop_null)?, true),
        Shape::Struct(shapes) => {
            let fields = fields(shapes, drop_null);
            if fields.is_empty() {
                return None;
            }
            DataType::Struct(Fields::from(fields))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &str, expected: &[(&str, &str)]) {
        check_as(|_| {}, lines, expected);
    }

    fn check_as(set: fn(&mut JsonOptions), lines: &str, expected: &[(&str, &str)]) {
        let mut options = JsonOptions::default();
        set(&mut options);
        let mut inference = JsonInference::new(options);
        inference.look_at(lines.as_bytes()).unwrap();
        let schema = inference.schema().unwrap_or(Schema::empty());
        let found: Vec<_> = schema
            .fields()
            .iter()
            .map(|field| (field.name().clone(), field.data_type().to_string()))
            .collect();
        let found: Vec<_> = found
            .iter()
            .map(|(n, t)| (n.as_str(), t.as_str()))
            .collect();
        assert_eq!(found, expected, "{lines}");
    }

    #[test]
    fn fields_come_in_order_of_their_names() {
        check(
            "{\"b\":1,\"a\":\"x\"}\n{\"c\":true}\n",
            &[("a", "Utf8"), ("b", "Int64"), ("c", "Boolean")],
        );
    }

    #[test]
    fn types_widen() {
        check("{\"a\":1}\n{\"a\":1.5}", &[("a", "Float64")]);
        check("{\"a\":1}\n{\"a\":\"x\"}", &[("a", "Utf8")]);
        check("{\"a\":null}\n{\"a\":\"\"}", &[("a", "Utf8")]);
        check("{\"a\":null}\n{\"a\":true}", &[("a", "Boolean")]);
        check(
            "{\"a\":9223372036854775808}\n{\"a\":1}",
            &[("a", "Decimal128(20, 0)")],
        );
        check("{\"a\":{\"x\":1}}\n{\"a\":5}", &[("a", "Utf8")]);
        check("[{\"a\":1},{\"a\":2.5}]", &[("a", "Float64")]);
    }

    #[test]
    fn nested_values_merge_and_empty_ones_vanish() {
        let list = "List(Struct(\"x\": Int64, \"y\": Utf8))";
        check("{\"a\":[{\"x\":1},{\"y\":\"z\"}],\"e\":{}}", &[("a", list)]);
        check("{\"a\":[]}\n{\"a\":[1]}", &[("a", "List(Int64)")]);
    }

    #[test]
    fn corrupt_lines_add_their_column() {
        check(
            "{\"a\":1}\noops\n",
            &[("_corrupt_record", "Utf8"), ("a", "Int64")],
        );
        check("", &[]);
    }

    #[test]
    fn lines_of_null_tell_nothing() {
        check("null\n{\"a\":1}\n", &[("a", "Int64")]);
        check("\"\"\n", &[("_corrupt_record", "Utf8")]);
    }

    #[test]
    fn primitives_can_be_strings() {
        let set = |options: &mut JsonOptions| options.primitives_as_string = true;
        check_as(
            set,
            "{\"a\":1,\"b\":[true]}",
            &[("a", "Utf8"), ("b", "List(Utf8)")],
        );
    }

    #[test]
    fn decimals_can_be_preferred() {
        let set = |options: &mut JsonOptions| options.prefers_decimal = true;
        let one =
            |json: &str, expected| check_as(set, &format!("{{\"a\":{json}}}"), &[("a", expected)]);
        one("1.25", "Decimal128(3, 2)");
        one("0.0125", "Decimal128(4, 4)");
        one("1e5", "Decimal128(6, 0)");
        one("\"1,000.5\"", "Decimal128(5, 1)");
        one("\"1.5x\"", "Utf8");
        one("1e-99", "Float64");
        check_as(
            set,
            "{\"a\":1.25}\n{\"a\":100}",
            &[("a", "Decimal128(22, 2)")],
        );
        check_as(
            set,
            "{\"a\":1.25}\n{\"a\":100.5}",
            &[("a", "Decimal128(5, 2)")],
        );
    }

    #[test]
    fn fields_that_are_always_null_can_be_dropped() {
        let set = |options: &mut JsonOptions| options.drop_field_if_all_null = true;
        let lines = "{\"a\":null,\"b\":[],\"c\":{\"d\":\"\"},\"e\":1}\n";
        check_as(set, lines, &[("e", "Int64")]);
    }

    #[test]
    fn timestamps_can_be_told_from_strings() {
        let set = |options: &mut JsonOptions| options.infer_timestamp = true;
        let timestamp = "Timestamp(µs, \"UTC\")";
        check_as(set, "{\"a\":\"2024-01-05T10:00:00Z\"}", &[("a", timestamp)]);
        check_as(
            set,
            "{\"a\":\"2024-01-05\"}\n{\"a\":null}",
            &[("a", timestamp)],
        );
        check_as(
            set,
            "{\"a\":\"2024-01-05\"}\n{\"a\":\"x\"}",
            &[("a", "Utf8")],
        );
    }

    #[test]
    fn a_sample_of_lines_can_do() {
        let lines: String = (0..1000).map(|at| format!("{{\"a{at}\":1}}\n")).collect();
        let mut inference = JsonInference::new(JsonOptions {
            sampling_ratio: 0.25,
            ..JsonOptions::default()
        });
        inference.look_at(lines.as_bytes()).unwrap();
        let seen = inference.schema().unwrap().fields().len();
        assert!((200..300).contains(&seen), "{seen}");
    }

    #[test]
    fn deep_values_take_little_stack() {
        let deep = |depth| format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
        let mut inference = JsonInference::new(JsonOptions::default());
        inference.look_at(deep(999).as_bytes()).unwrap();
        assert!(!inference.corrupt);
        inference.look_at(deep(1000).as_bytes()).unwrap();
        assert!(inference.corrupt);
    }
}
