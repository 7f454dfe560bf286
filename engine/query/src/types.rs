//! Types and schemas as text: Spark's names for Arrow's types.

use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, IntervalUnit, Schema, SchemaRef, TimeUnit};

pub(crate) use highwater_text::type_name::{quoted, type_sql, type_text};

use crate::error::{Place, QueryError};

/// `TIMESTAMP`: an instant, in microseconds.
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// `TIMESTAMP_NTZ`: a date and a time of day, in microseconds.
pub(crate) const TIMESTAMP_NTZ: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// `INTERVAL DAY TO SECOND`.
pub(crate) const DAY_TIME: DataType = DataType::Duration(TimeUnit::Microsecond);

/// `INTERVAL DAY`: whole days, in seconds, as Arrow has no type of its own for it.
pub(crate) const DAYS: DataType = DataType::Duration(TimeUnit::Second);

/// `INTERVAL YEAR TO MONTH`.
pub(crate) const YEAR_MONTH: DataType = DataType::Interval(IntervalUnit::YearMonth);

/// `INTERVAL`, months and days and microseconds mixed.
pub(crate) const CALENDAR: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// An array of `element`s. Fields are nullable throughout: a plan's types must not depend on how it was written.
pub(crate) fn list_of(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(element, true)))
}

/// A map.
pub(crate) fn map_of(key: DataType, value: DataType) -> DataType {
    let entries = DataType::Struct(map_entry_fields(key, value));
    DataType::Map(Arc::new(Field::new("entries", entries, false)), false)
}

pub(crate) fn map_entry_fields(key: DataType, value: DataType) -> Fields {
    Fields::from(vec![
        Field::new("key", key, false),
        Field::new("value", value, true),
    ])
}

/// The schema as DDL text that [`parse_schema`] reads back: `a INT, b STRUCT<c: STRING> NOT NULL`.
pub fn schema_text(schema: &Schema) -> String {
    let mut text = String::new();
    for (i, field) in schema.fields().iter().enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
        let _ = write!(
            text,
            "{comma}{} {}{not_null}",
            quoted(field.name()),
            type_sql(field.data_type())
        );
        if let Some(comment) = field.metadata().get("comment") {
            let _ = write!(
                text,
                " COMMENT '{}'",
                comment.replace('\\', "\\\\").replace('\'', "\\'")
            );
        }
    }
    text
}

/// The schema that DDL text says: `device STRING, signal BIGINT NOT NULL COMMENT 'dB', at: timestamp`.
pub fn parse_schema(ddl: &str) -> Result<SchemaRef, QueryError> {
    let mut ddl = Ddl::new(ddl);
    let fields = ddl.fields(None)?;
    Ok(Arc::new(Schema::new(fields)))
}

/// The type that text says.
pub(crate) fn parse_type(text: &str) -> Result<DataType, QueryError> {
    let mut ddl = Ddl::new(text);
    let data_type = ddl.data_type()?;
    match ddl.peek() {
        None => Ok(data_type),
        Some(_) => Err(ddl.unexpected("the end of the type")),
    }
}

/// A reader of DDL text. Our own, as types must mean what Spark's grammar says, not what a dialect makes of them.
struct Ddl<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

/// Nesting beyond this is refused: it would only serve to exhaust the stack.
const DEPTH_MAX: usize = 100;

impl<'t> Ddl<'t> {
    fn new(text: &'t str) -> Self {
        Ddl {
            text,
            at: 0,
            depth: 0,
        }
    }

    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text[self.at..].chars().next()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn expect(&mut self, wanted: char) -> Result<(), QueryError> {
        if self.eat(wanted) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("'{wanted}'")))
        }
    }

    fn unexpected(&mut self, wanted: &str) -> QueryError {
        let found = match self.peek() {
            Some(_) => format!(
                "'{}'",
                self.text[self.at..]
                    .split_whitespace()
                    .next()
                    .unwrap_or_default()
            ),
            None => "end of input".to_string(),
        };
        let before = &self.text[..self.at];
        let line = before.matches('\n').count() as u64 + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count() as u64
            + 1;
        QueryError::new(
            "PARSE_SYNTAX_ERROR",
            format!("Syntax error at or near {found}: expected {wanted}"),
        )
        .at(Some(Place { line, column }))
    }

    fn word(&mut self) -> Option<&'t str> {
        self.peek()?;
        let rest = &self.text[self.at..];
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        self.at += end;
        (end > 0).then(|| &rest[..end])
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let start = self.at;
        let found = self.word().is_some_and(|w| w.eq_ignore_ascii_case(keyword));
        if !found {
            self.at = start;
        }
        found
    }

    fn name(&mut self) -> Result<String, QueryError> {
        if !self.eat('`') {
            return match self.word() {
                Some(word) => Ok(word.to_string()),
                None => Err(self.unexpected("a name")),
            };
        }
        let mut name = String::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(end) = rest.find('`') else {
                return Err(self.unexpected("a closing backtick"));
            };
            name.push_str(&rest[..end]);
            self.at += end + 1;
            if !self.text[self.at..].starts_with('`') {
                return Ok(name);
            }
            name.push('`');
            self.at += 1;
        }
    }

    fn string(&mut self) -> Result<String, QueryError> {
        let quote = match self.peek() {
            Some(c @ ('\'' | '"')) => c,
            _ => return Err(self.unexpected("a string")),
        };
        let mut text = String::new();
        let mut chars = self.text[self.at + 1..].char_indices();
        while let Some((i, c)) = chars.next() {
            if c == quote {
                self.at += 1 + i + 1;
                return Ok(text);
            }
            text.push(if c == '\\' {
                chars.next().map_or('\\', |(_, next)| next)
            } else {
                c
            });
        }
        Err(self.unexpected("a closing quote"))
    }

    fn number(&mut self) -> Result<u32, QueryError> {
        match self.word().and_then(|w| w.parse().ok()) {
            Some(number) => Ok(number),
            None => Err(self.unexpected("a number")),
        }
    }

    /// Columns up to `end`, or to the end of the text.
    fn fields(&mut self, end: Option<char>) -> Result<Fields, QueryError> {
        let mut fields = vec![];
        loop {
            if fields.is_empty()
                && (self.peek().is_none() && end.is_none() || end.is_some_and(|end| self.eat(end)))
            {
                break;
            }
            let name = self.name()?;
            self.eat(':');
            let data_type = self.data_type()?;
            let mut field = Field::new(name, data_type, true);
            if self.keyword("not") {
                if !self.keyword("null") {
                    return Err(self.unexpected("NULL"));
                }
                field = field.with_nullable(false);
            }
            if self.keyword("comment") {
                field = field.with_metadata([("comment".to_string(), self.string()?)].into());
            }
            fields.push(field);
            if self.eat(',') {
                continue;
            }
            match end {
                Some(end) => self.expect(end)?,
                None if self.peek().is_some() => {
                    return Err(self.unexpected("',' or the end of the schema"));
                }
                None => {}
            }
            break;
        }
        Ok(fields.into())
    }

    fn data_type(&mut self) -> Result<DataType, QueryError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(QueryError::unsupported("a type nested this deep"));
        }
        let data_type = self.data_type_inner();
        self.depth -= 1;
        data_type
    }

    fn data_type_inner(&mut self) -> Result<DataType, QueryError> {
        let start = self.at;
        let Some(word) = self.word() else {
            return Err(self.unexpected("a type"));
        };
        Ok(match word.to_lowercase().as_str() {
            "boolean" => DataType::Boolean,
            "tinyint" | "byte" => DataType::Int8,
            "smallint" | "short" => DataType::Int16,
            "int" | "integer" => DataType::Int32,
            "bigint" | "long" => DataType::Int64,
            "float" | "real" => DataType::Float32,
            "double" => DataType::Float64,
            "string" => DataType::Utf8,
            "binary" => DataType::Binary,
            "date" => DataType::Date32,
            "timestamp" | "timestamp_ltz" => timestamp(),
            "timestamp_ntz" => TIMESTAMP_NTZ,
            "void" => DataType::Null,
            "decimal" | "dec" | "numeric" => self.decimal()?,
            "array" => {
                self.expect('<')?;
                let element = self.data_type()?;
                self.expect('>')?;
                list_of(element)
            }
            "map" => {
                self.expect('<')?;
                let key = self.data_type()?;
                self.expect(',')?;
                let value = self.data_type()?;
                self.expect('>')?;
                map_of(key, value)
            }
            "struct" => {
                self.expect('<')?;
                DataType::Struct(self.fields(Some('>'))?)
            }
            "interval" => self.interval()?,
            other @ ("char" | "character" | "varchar" | "variant" | "geometry" | "geography"
            | "time") => {
                return Err(QueryError::unsupported(format!("the type {other}")));
            }
            other => {
                let message = format!("Unsupported data type \"{}\".", other.to_uppercase());
                self.at = start;
                let place = self.unexpected("").place();
                return Err(QueryError::new("UNSUPPORTED_DATATYPE", message).at(place));
            }
        })
    }

    fn decimal(&mut self) -> Result<DataType, QueryError> {
        if !self.eat('(') {
            return Ok(DataType::Decimal128(10, 0));
        }
        let precision = self.number()?;
        let scale = if self.eat(',') { self.number()? } else { 0 };
        self.expect(')')?;
        if precision > 38 {
            let message = format!("Decimal precision {precision} exceeds max precision 38");
            return Err(QueryError::new(
                "DECIMAL_PRECISION_EXCEEDS_MAX_PRECISION",
                message,
            ));
        }
        if scale > precision || precision == 0 {
            let message =
                format!("decimal scale ({scale}) cannot be greater than precision ({precision})");
            return Err(QueryError::new("INVALID_DECIMAL_TYPE", message));
        }
        Ok(DataType::Decimal128(precision as u8, scale as i8))
    }

    fn interval(&mut self) -> Result<DataType, QueryError> {
        let mut units = vec![];
        while let Some(unit) = ["year", "month", "day", "hour", "minute", "second", "to"]
            .iter()
            .find(|u| self.keyword(u))
        {
            units.push(*unit);
        }
        match units.as_slice() {
            [] => Ok(CALENDAR),
            ["year", "to", "month"] => Ok(YEAR_MONTH),
            ["day", "to", "second"] => Ok(DAY_TIME),
            ["day"] => Ok(DAYS),
            other => Err(QueryError::unsupported(format!(
                "the type interval {}",
                other.join(" ")
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ddl: &str, expected: &str) {
        let schema = parse_schema(ddl).unwrap();
        assert_eq!(schema_text(&schema), expected);
        assert_eq!(parse_schema(&schema_text(&schema)).unwrap(), schema);
    }

    #[test]
    fn the_text_of_a_schema_reads_back() {
        check(
            "device STRING, signal BIGINT, time TIMESTAMP",
            "device STRING, signal BIGINT, time TIMESTAMP",
        );
        check("a: int", "a INT");
        check(
            "`a b` decimal(5, 2) not null comment 'it\\'s'",
            "`a b` DECIMAL(5,2) NOT NULL COMMENT 'it\\'s'",
        );
        check(
            "s struct<x: int, y: array<map<string,struct<>>>>, n timestamp_ntz",
            "s STRUCT<x: INT, y: ARRAY<MAP<STRING, STRUCT<>>>>, n TIMESTAMP_NTZ",
        );
        check("", "");
    }

    #[test]
    fn types_are_written_as_simple_strings() {
        let written = |ddl: &str| type_text(&parse_type(ddl).unwrap());
        assert_eq!(
            written("STRUCT<start: TIMESTAMP, end: TIMESTAMP>"),
            "struct<start:timestamp,end:timestamp>"
        );
        assert_eq!(written("decimal"), "decimal(10,0)");
        assert_eq!(written("map<int, array<long>>"), "map<int,array<bigint>>");
    }

    #[test]
    fn a_broken_schema_says_where() {
        let error = |ddl: &str| parse_schema(ddl).unwrap_err().to_string();
        assert_eq!(
            error("a int b"),
            "[PARSE_SYNTAX_ERROR] Syntax error at or near 'b': expected ',' or the end of the schema (line 1, column 7)"
        );
        assert_eq!(
            error("a\n  foo"),
            "[UNSUPPORTED_DATATYPE] Unsupported data type \"FOO\". (line 2, column 3)"
        );
        assert!(error("a decimal(39,1)").contains("DECIMAL_PRECISION_EXCEEDS_MAX_PRECISION"));
        assert!(error(&format!("a {}", "array<".repeat(100_000))).contains("nested this deep"));
        for broken in [
            "a",
            "a array<",
            "`a",
            "a struct<x int",
            "a decimal(",
            "é",
            "a int comment 'x",
        ] {
            error(broken);
        }
    }
}
