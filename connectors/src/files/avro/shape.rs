//! The schema of an Avro file: what is where in a row, and which column it becomes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use serde_json::{Map, Value};

use super::AvroError;

/// Deeper schemas are refused: reading a row follows them down.
const DEPTH_MAX: usize = 64;

/// How a value is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(Arc<[String]>),
    /// An integer, big end first; of a fixed number of bytes or not.
    Decimal {
        precision: u8,
        scale: i8,
        bytes: Option<usize>,
    },
    Date,
    /// Milliseconds or microseconds, of an instant or of a clock.
    Timestamp {
        millis: bool,
        instant: bool,
    },
    Array(Box<Shape>),
    Map(Box<Shape>),
    Record(Vec<(String, Shape)>),
    /// A branch's number, then its value.
    Union(Vec<Shape>),
}

impl Shape {
    /// The branches of a union that are not null, if they are one type: `int` is a `long` and `float` a `double`.
    pub(super) fn one_of(branches: &[Shape]) -> Option<Shape> {
        let mut values = branches.iter().filter(|branch| **branch != Shape::Null);
        let first = values.next().cloned().unwrap_or(Shape::Null);
        values.try_fold(first, |all, next| match (&all, next) {
            (Shape::Int | Shape::Long, Shape::Int | Shape::Long) => Some(Shape::Long),
            (Shape::Float | Shape::Double, Shape::Float | Shape::Double) => Some(Shape::Double),
            _ => None,
        })
    }

    /// How many types it is made of.
    fn types(&self) -> usize {
        1 + match self {
            Shape::Array(inner) | Shape::Map(inner) => inner.types(),
            Shape::Record(fields) => fields.iter().map(|(_, shape)| shape.types()).sum(),
            Shape::Union(branches) => branches.iter().map(Shape::types).sum(),
            _ => 0,
        }
    }

    /// The column it becomes.
    pub(super) fn data_type(&self) -> DataType {
        let field = |name: &str, shape: &Shape| Field::new(name, shape.data_type(), true);
        match self {
            Shape::Null => DataType::Null,
            Shape::Boolean => DataType::Boolean,
            Shape::Int => DataType::Int32,
            Shape::Long => DataType::Int64,
            Shape::Float => DataType::Float32,
            Shape::Double => DataType::Float64,
            Shape::Bytes | Shape::Fixed(_) => DataType::Binary,
            Shape::String | Shape::Enum(_) => DataType::Utf8,
            Shape::Decimal {
                precision, scale, ..
            } => DataType::Decimal128(*precision, *scale),
            Shape::Date => DataType::Date32,
            Shape::Timestamp { instant, .. } => {
                DataType::Timestamp(TimeUnit::Microsecond, instant.then(|| "UTC".into()))
            }
            Shape::Array(items) => DataType::List(Arc::new(field("item", items))),
            Shape::Map(values) => {
                let pair = vec![
                    Field::new("key", DataType::Utf8, false),
                    field("value", values),
                ];
                let entries = DataType::Struct(Fields::from(pair));
                DataType::Map(Arc::new(Field::new("entries", entries, false)), false)
            }
            Shape::Record(fields) => {
                let fields = fields.iter().map(|(name, shape)| field(name, shape));
                DataType::Struct(fields.collect())
            }
            Shape::Union(branches) => match Shape::one_of(branches) {
                Some(shape) => shape.data_type(),
                // As Spark has it: a struct in which only the member that was written is not null.
                None => {
                    let members = branches.iter().filter(|branch| **branch != Shape::Null);
                    let members = members
                        .enumerate()
                        .map(|(at, shape)| field(&format!("member{at}"), shape));
                    DataType::Struct(members.collect())
                }
            },
        }
    }
}

/// Reads a schema from its JSON.
pub(super) fn parse(json: &str) -> Result<Shape, AvroError> {
    let value: Value =
        serde_json::from_str(json).map_err(|error| AvroError::Schema(error.to_string()))?;
    let mut names = Names::default();
    names.shape(&value, "", 0).map_err(AvroError::Schema)
}

/// A type that is named twice is there twice; a few names could make more types than fit in memory.
const TYPES_MAX: usize = 100_000;

/// Types that have a name, and may be named instead of spelled out again. `None` while one is being read.
#[derive(Default)]
struct Names {
    known: BTreeMap<String, Option<Shape>>,
    /// Types so far.
    types: usize,
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

fn whole(object: &Map<String, Value>, key: &str) -> Option<u64> {
    object.get(key).and_then(Value::as_u64)
}

/// A name with its namespace, which may be in it, beside it, or that of what is around it.
fn full_name(object: &Map<String, Value>, around: &str) -> Result<String, String> {
    let name = text(object, "name").ok_or("a named type has no name")?;
    let space = text(object, "namespace").unwrap_or(around);
    Ok(match name.contains('.') || space.is_empty() {
        true => name.to_string(),
        false => format!("{space}.{name}"),
    })
}

impl Names {
    fn shape(&mut self, value: &Value, around: &str, depth: usize) -> Result<Shape, String> {
        if depth > DEPTH_MAX {
            return Err(format!("it is more than {DEPTH_MAX} types deep"));
        }
        self.count(1)?;
        match value {
            Value::String(name) => self.named(name, around),
            Value::Array(branches) => branches
                .iter()
                .map(|branch| self.shape(branch, around, depth + 1))
                .collect::<Result<_, _>>()
                .map(Shape::Union),
            Value::Object(object) => self.object(object, around, depth),
            other => Err(format!("{other} is no type")),
        }
    }

    fn count(&mut self, types: usize) -> Result<(), String> {
        self.types = self.types.saturating_add(types);
        match self.types > TYPES_MAX {
            true => Err(format!("it has more than {TYPES_MAX} types")),
            false => Ok(()),
        }
    }

    fn named(&mut self, name: &str, around: &str) -> Result<Shape, String> {
        Ok(match name {
            "null" => Shape::Null,
            "boolean" => Shape::Boolean,
            "int" => Shape::Int,
            "long" => Shape::Long,
            "float" => Shape::Float,
            "double" => Shape::Double,
            "bytes" => Shape::Bytes,
            "string" => Shape::String,
            name => {
                let full = format!("{around}.{name}");
                let known = self.known.get(&full).or_else(|| self.known.get(name));
                return match known.cloned() {
                    Some(Some(shape)) => {
                        self.count(shape.types())?;
                        Ok(shape)
                    }
                    Some(None) => Err(format!("type \"{name}\" holds itself, and no column can")),
                    None => Err(format!("there is no type \"{name}\"")),
                };
            }
        })
    }

    fn object(
        &mut self,
        object: &Map<String, Value>,
        around: &str,
        depth: usize,
    ) -> Result<Shape, String> {
        let part = |key: &str| object.get(key).ok_or(format!("a type has no \"{key}\""));
        let kind = part("type")?;
        let Some(kind) = kind.as_str() else {
            return self.shape(kind, around, depth + 1);
        };
        match kind {
            "array" => {
                let items = self.shape(part("items")?, around, depth + 1)?;
                Ok(Shape::Array(Box::new(items)))
            }
            "map" => {
                let values = self.shape(part("values")?, around, depth + 1)?;
                Ok(Shape::Map(Box::new(values)))
            }
            "record" | "error" => {
                let name = full_name(object, around)?;
                let space = name.rsplit_once('.').map_or("", |(space, _)| space);
                self.known.insert(name.clone(), None);
                let fields = part("fields")?.as_array().ok_or("fields are no list")?;
                let fields = fields.iter().map(|field| {
                    let field = field.as_object().ok_or("a field is no object")?;
                    let name = text(field, "name").ok_or("a field has no name")?;
                    let shape = field.get("type").ok_or("a field has no type")?;
                    Ok((name.to_string(), self.shape(shape, space, depth + 1)?))
                });
                let shape = Shape::Record(fields.collect::<Result<_, String>>()?);
                self.known.insert(name, Some(shape.clone()));
                Ok(shape)
            }
            "enum" => {
                let symbols = part("symbols")?.as_array().ok_or("symbols are no list")?;
                let symbols = symbols
                    .iter()
                    .map(|symbol| symbol.as_str().map(String::from));
                let symbols: Option<Vec<String>> = symbols.collect();
                let shape = Shape::Enum(symbols.ok_or("a symbol is no text")?.into());
                self.known
                    .insert(full_name(object, around)?, Some(shape.clone()));
                Ok(shape)
            }
            "fixed" => {
                let size = whole(object, "size").ok_or("a fixed type has no size")?;
                let size = usize::try_from(size).map_err(|error| error.to_string())?;
                let shape = logical(object, Shape::Fixed(size));
                self.known
                    .insert(full_name(object, around)?, Some(shape.clone()));
                Ok(shape)
            }
            name => Ok(logical(object, self.named(name, around)?)),
        }
    }
}

/// What a logical type makes of a type. As the format asks, one that is unknown or does not fit is ignored.
fn logical(object: &Map<String, Value>, shape: Shape) -> Shape {
    let timestamp = |millis, instant| Shape::Timestamp { millis, instant };
    match (text(object, "logicalType"), &shape) {
        (Some("date"), Shape::Int) => Shape::Date,
        (Some("timestamp-millis"), Shape::Long) => timestamp(true, true),
        (Some("timestamp-micros"), Shape::Long) => timestamp(false, true),
        (Some("local-timestamp-millis"), Shape::Long) => timestamp(true, false),
        (Some("local-timestamp-micros"), Shape::Long) => timestamp(false, false),
        (Some("decimal"), Shape::Bytes | Shape::Fixed(_)) => {
            let precision = whole(object, "precision").unwrap_or(0);
            let scale = whole(object, "scale").unwrap_or(0);
            match precision {
                // More digits than a decimal has stay bytes.
                1..=38 if scale <= precision => Shape::Decimal {
                    precision: precision as u8,
                    scale: scale as i8,
                    bytes: match shape {
                        Shape::Fixed(size) => Some(size),
                        _ => None,
                    },
                },
                _ => shape,
            }
        }
        _ => shape,
    }
}
