//! One value from each text, as `from_json` makes it: the rules of the decoder for rows, and a row for every text.
//!
//! Where rows are read, a text may be several or none. Here an array is not taken for the object in it, a text that
//! cannot be read is a struct of nulls, or no array and no map at all, and a blank one is null. What is no string and is
//! read as one is written anew: `1.50` is `1.5`.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBufferBuilder, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, FieldRef, Fields};
use arrow::error::ArrowError;

use super::JsonOptions;
use super::column::{Column, Context};
use super::object::Object;
use super::scan::{Cursor, Malformed, Start};

/// Why a text is not of the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadText {
    /// It is an array, and a struct is wanted.
    ArrayForStruct,
    /// A string in it stands where a number with a fraction should.
    StringForNumber,
    /// It, or a value in it, cannot be read.
    Other,
}

enum Root {
    Struct(Object),
    /// An object may stand for an array that has just that.
    Value(Column, bool),
}

/// Decodes texts until asked for the array.
pub struct ValueDecoder {
    data_type: DataType,
    options: JsonOptions,
    root: Root,
    /// The column of a struct that gets texts that cannot be read, and its place.
    corrupt: Option<(usize, Column)>,
    context: Context,
    valid: BooleanBufferBuilder,
}

impl ValueDecoder {
    /// A decoder of values of `data_type`; the type within it that JSON cannot hold, if there is one.
    pub fn new(data_type: &DataType, options: JsonOptions) -> Result<Self, DataType> {
        let mut corrupt = None;
        let root = match data_type {
            DataType::Struct(fields) => {
                let name = &options.column_name_of_corrupt_record;
                let at = fields.iter().position(|field| field.name() == name);
                if let Some(at) = at {
                    corrupt = Some((at, Column::new(&DataType::Utf8)?));
                }
                let others = fields
                    .iter()
                    .enumerate()
                    .filter(|(nth, _)| at != Some(*nth));
                let others: Vec<FieldRef> = others.map(|(_, field)| Arc::clone(field)).collect();
                Root::Struct(Object::new(&Fields::from(others))?)
            }
            DataType::List(item) => {
                let of_structs = matches!(item.data_type(), DataType::Struct(_));
                Root::Value(Column::new(data_type)?, of_structs)
            }
            other => Root::Value(Column::new(other)?, false),
        };
        Ok(ValueDecoder {
            data_type: data_type.clone(),
            root,
            corrupt,
            context: Context {
                times: options.times.clone(),
                not_finite: options.allow_non_numeric_numbers,
                anew: true,
                bad: None,
                scratch: Vec::new(),
            },
            valid: BooleanBufferBuilder::new(0),
            options,
        })
    }

    /// Appends the value of `text`, or what stands for it. Answers why it cannot be read as it should, if so.
    pub fn decode(&mut self, text: Option<&str>) -> Option<BadText> {
        self.context.bad = None;
        let Some(text) = text else {
            self.append_null();
            return None;
        };
        let mut cursor = Cursor::new(text.as_bytes(), self.options.dialect(true));
        cursor.blanks();
        if cursor.at_end() {
            self.append_null();
            return None;
        }
        let len = self.valid.len();
        let outcome = match &mut self.root {
            Root::Struct(object) => match cursor.start() {
                Ok(Start::Object) => object
                    .read(&mut cursor, &mut self.context, 0)
                    .map(|()| true),
                Ok(Start::Array) => Err(ARRAY),
                Ok(_) => Err(Malformed("it is no object")),
                Err(malformed) => Err(malformed),
            },
            Root::Value(column, of_structs) => match cursor.start() {
                Ok(Start::Null) => Ok(false),
                Ok(Start::Object) if *of_structs => {
                    column.read_alone(&mut cursor, &mut self.context)
                }
                Ok(_) => column.read(&mut cursor, &mut self.context, 0),
                Err(malformed) => Err(malformed),
            },
        };
        let outcome = match &self.options.limits {
            None => outcome,
            Some(limits) => outcome.and_then(|read| limits.check(text.as_bytes()).map(|()| read)),
        };
        let good = match (&mut self.root, outcome) {
            (_, Ok(true)) => true,
            (Root::Struct(object), _) => {
                object.truncate(len);
                object.append_nulls();
                true
            }
            (Root::Value(column, _), _) => {
                column.truncate(len);
                column.append_null();
                false
            }
        };
        self.valid.append(good);
        let bad = match outcome {
            Err(malformed) if malformed == ARRAY => Some(BadText::ArrayForStruct),
            Err(_) => Some(BadText::Other),
            Ok(read) => match &self.context.bad {
                None if read => None,
                Some(bad)
                    if matches!(bad.wanted, "FLOAT" | "DOUBLE")
                        && bad.end > bad.start + 2
                        && matches!(text.as_bytes()[bad.start], b'"' | b'\'') =>
                {
                    Some(BadText::StringForNumber)
                }
                _ => Some(BadText::Other),
            },
        };
        if let Some((_, corrupt)) = &mut self.corrupt {
            match bad {
                None => corrupt.append_null(),
                Some(_) => corrupt.append_text(text),
            }
        }
        bad
    }

    fn append_null(&mut self) {
        self.valid.append(false);
        match &mut self.root {
            Root::Struct(object) => object.append_nulls(),
            Root::Value(column, _) => column.append_null(),
        }
        if let Some((_, corrupt)) = &mut self.corrupt {
            corrupt.append_null();
        }
    }

    /// The values of the texts since the last one.
    pub fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let nulls = NullBuffer::new(self.valid.finish());
        let object = match &mut self.root {
            Root::Value(column, _) => return column.finish(),
            Root::Struct(object) => object,
        };
        let mut columns = object.finish()?;
        if let Some((at, corrupt)) = &mut self.corrupt {
            columns.insert(*at, corrupt.finish()?);
        }
        let DataType::Struct(fields) = &self.data_type else {
            unreachable!("a struct is built for a struct type");
        };
        Ok(Arc::new(match fields.is_empty() {
            true => StructArray::new_empty_fields(nulls.len(), Some(nulls)),
            false => StructArray::try_new(fields.clone(), columns, Some(nulls))?,
        }))
    }
}

const ARRAY: Malformed = Malformed("it is an array, not an object");

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use arrow::util::display::array_value_to_string;

    use super::*;

    fn check(data_type: &DataType, text: &str, bad: Option<BadText>, expected: &str) {
        let mut decoder = ValueDecoder::new(data_type, JsonOptions::default()).unwrap();
        assert_eq!(decoder.decode(Some("{\"a\":7}")), None, "{text}");
        assert_eq!(decoder.decode(Some(text)), bad, "{text}");
        assert_eq!(decoder.decode(None), None);
        let array = decoder.finish().unwrap();
        assert_eq!(array.len(), 3);
        let shown = match array.is_null(1) {
            true => "null".into(),
            false => array_value_to_string(&array, 1).unwrap(),
        };
        assert_eq!(shown, expected, "{text}");
    }

    fn of(fields: &[(&str, DataType)]) -> DataType {
        let fields = fields.iter();
        DataType::Struct(
            fields
                .map(|(n, t)| Field::new(*n, t.clone(), true))
                .collect(),
        )
    }

    #[test]
    fn every_text_is_one_struct() {
        let a = of(&[("a", DataType::Int32)]);
        check(&a, r#"{"a":1}{"a":2}"#, None, "{a: 1}");
        check(&a, r#"{"a":"x"}"#, Some(BadText::Other), "{a: }");
        check(&a, r#"{"a":1"#, Some(BadText::Other), "{a: }");
        check(&a, r#"[{"a":1}]"#, Some(BadText::ArrayForStruct), "{a: }");
        check(&a, "null", Some(BadText::Other), "{a: }");
        check(&a, " ", None, "null");
        let number = of(&[("a", DataType::Float64)]);
        check(
            &number,
            r#"{"a":"x"}"#,
            Some(BadText::StringForNumber),
            "{a: }",
        );
        let string = of(&[("a", DataType::Utf8)]);
        check(
            &string,
            r#"{"a": { "b" : 1.50 } }"#,
            None,
            r#"{a: {"b":1.5}}"#,
        );
        let corrupt = of(&[("_corrupt_record", DataType::Utf8), ("a", DataType::Int32)]);
        check(
            &corrupt,
            "{bad",
            Some(BadText::Other),
            "{_corrupt_record: {bad, a: }",
        );
        check(&corrupt, r#"{"a":1}"#, None, "{_corrupt_record: , a: 1}");
    }

    #[test]
    fn an_object_may_stand_for_an_array_of_it() {
        let list = DataType::new_list(of(&[("a", DataType::Int32)]), true);
        check(&list, r#"[{"a":1},null]"#, None, "[{a: 1}, ]");
        check(&list, r#"{"a":1}"#, None, "[{a: 1}]");
        check(&list, "5", Some(BadText::Other), "null");
    }
}
