//! Finds a schema that fits given JSON texts, as Spark's batch reader does when it is given none.
//!
//! Fields come in order of their names. Integers are BIGINT (larger ones DECIMAL), other numbers DOUBLE, and what has
//! no common type is STRING. Dates and timestamps stay strings.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};

use super::scan::{Cursor, Dialect, Malformed, Scan, Start, unescape};
use super::{JsonError, JsonOptions};
use crate::lines::Lines;
use crate::mode::ParseMode;

/// What is known of a value so far.
#[derive(Debug, Clone, PartialEq)]
enum Shape {
    /// Only nulls and empty strings.
    Null,
    Boolean,
    Long,
    /// An integer of so many digits.
    Decimal(u8),
    Double,
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
    pub fn look_at_text(&mut self, line: &[u8]) -> Result<(), JsonError> {
        {
            self.lines += 1;
            let dialect = Dialect {
                single_quotes: self.options.allow_single_quotes,
                not_finite: self.options.allow_non_numeric_numbers,
                many_lines: true,
            };
            let row = match simdutf8::basic::from_utf8(line) {
                Ok(_) => row_of(&mut Cursor::new(line, dialect)),
                Err(_) => Err(Malformed("it is not UTF-8")),
            };
            match row {
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
        let fields = fields(&row);
        (!fields.is_empty()).then(|| Schema::new(fields))
    }
}

fn row_of(cursor: &mut Cursor<'_>) -> Scan<BTreeMap<String, Shape>> {
    if cursor.rest().starts_with(b"\xef\xbb\xbf") {
        cursor.pos += 3;
    }
    cursor.blanks();
    if cursor.at_end() {
        return Ok(BTreeMap::new());
    }
    match shape(cursor, 0)? {
        Shape::Struct(row) => Ok(row),
        Shape::List(item) => match *item {
            Shape::Struct(row) => Ok(row),
            Shape::Null => Ok(BTreeMap::new()),
            _ => Err(Malformed("an array of rows holds something else")),
        },
        _ => Err(Malformed("it is no object")),
    }
}

fn shape(cursor: &mut Cursor<'_>, depth: usize) -> Scan<Shape> {
    Ok(match cursor.start()? {
        Start::Null => {
            cursor.literal("null")?;
            Shape::Null
        }
        Start::True => {
            cursor.literal("true")?;
            Shape::Boolean
        }
        Start::False => {
            cursor.literal("false")?;
            Shape::Boolean
        }
        Start::String => {
            let text = cursor.string()?;
            // Some writers do not tell an empty string from a null.
            if text.start == text.end {
                Shape::Null
            } else {
                Shape::String
            }
        }
        Start::NotFinite => {
            cursor.not_finite()?;
            Shape::Double
        }
        Start::Number => {
            let number = cursor.number()?;
            let text = &cursor.text[number.start..number.end];
            match number.digits {
                _ if !number.integer => Shape::Double,
                ..=18 => Shape::Long,
                _ if crate::number::parse_i64(text).is_some() => Shape::Long,
                digits @ ..=38 => Shape::Decimal(digits as u8),
                _ => Shape::Double,
            }
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
                    let value = shape(cursor, depth + 1)?;
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
                    item = merge(item, shape(cursor, depth + 1)?);
                    if !cursor.more(b']')? {
                        break;
                    }
                }
            }
            Shape::List(Box::new(item))
        }
    })
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
        (Long, Decimal(digits)) | (Decimal(digits), Long) => Decimal(digits.max(20)),
        (Decimal(a), Decimal(b)) => Decimal(a.max(b)),
        (Long | Decimal(_), Double) | (Double, Long | Decimal(_)) => Double,
        (List(a), List(b)) => List(Box::new(merge(*a, *b))),
        (Struct(mut a), Struct(b)) => {
            merge_fields(&mut a, b);
            Struct(a)
        }
        _ => String,
    }
}

/// Columns for shapes; objects without fields become none.
fn fields(shapes: &BTreeMap<String, Shape>) -> Vec<FieldRef> {
    let field = |(name, shape): (&String, &Shape)| {
        Some(Arc::new(Field::new(name, data_type(shape)?, true)))
    };
    shapes.iter().filter_map(field).collect()
}

fn data_type(shape: &Shape) -> Option<DataType> {
    Some(match shape {
        Shape::Null | Shape::String => DataType::Utf8,
        Shape::Boolean => DataType::Boolean,
        Shape::Long => DataType::Int64,
        Shape::Decimal(digits) => DataType::Decimal128(*digits, 0),
        Shape::Double => DataType::Float64,
        Shape::List(item) => DataType::new_list(data_type(item)?, true),
        Shape::Struct(shapes) => {
            let fields = fields(shapes);
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
        let mut inference = JsonInference::new(JsonOptions::default());
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
}
