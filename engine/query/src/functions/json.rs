//! JSON in columns of text: read by a schema or a path, and written. The texts are read and written by the crate that
//! reads and writes them for files.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, ListArray, ListBuilder, StringArray, StringBuilder,
    StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::ScalarValue;
use highwater_text::json::{
    self, JsonOptions, JsonPath, JsonWriting, ValueDecoder, json_array_length, json_fields,
    json_keys,
};
use highwater_text::mode::ParseMode;
use highwater_text::times;
use highwater_text::view::{JsonStyle, View};

use super::Args;
use super::kernel::{Can, Kernel, Result as Run, Typed};
use super::schema::{
    Result, TIME_OPTIONS, can_be_written, check_corrupt_column, example, malformed, options_of,
    params, read_times, refused, schema_of, text, write_times,
};
use crate::coerce;
use crate::error::QueryError;
use crate::types::{list_of, type_sql};

/// Options that readers of files have and values have no use for are refused like unknown ones.
fn reading(name: &str, args: &Args, given: Option<&Typed>) -> Result<(JsonOptions, String)> {
    let options = options_of(given)?;
    let known = [json::KNOWN, times::KNOWN].concat();
    options
        .only(name, &known, json::NOT_BUILT)
        .map_err(refused)?;
    let times = read_times(name, &options, args)?;
    let parsed = JsonOptions::parse(name, &options, times).map_err(refused)?;
    Ok((parsed, params(&DataType::Null, &options, args)))
}

fn from_json(args: &Args) -> Result<Typed> {
    let name = "from_json";
    let (value, schema, given) = match &args.values[..] {
        [value, schema] => (value, schema, None),
        [value, schema, given] => (value, schema, Some(given)),
        _ => return Err(args.wrong_number("[2, 3]")),
    };
    let data_type = schema_of(schema)?;
    if !matches!(
        data_type,
        DataType::Struct(_) | DataType::List(_) | DataType::Map(..)
    ) {
        let message = format!(
            "Cannot resolve \"from_json\" due to data type mismatch: Input schema \"{}\" must be a struct, an array, a map or a variant.",
            type_sql(&data_type)
        );
        return Err(QueryError::mismatch("INVALID_JSON_SCHEMA", message));
    }
    if let Some(key) = other_key(&data_type) {
        let message = format!(
            "Cannot resolve \"from_json\" due to data type mismatch: Input schema \"{}\" can only contain STRING as a key type for a MAP, not \"{}\".",
            type_sql(&data_type),
            type_sql(key)
        );
        return Err(QueryError::mismatch("INVALID_JSON_MAP_KEY_TYPE", message));
    }
    let (options, with) = reading(name, args, given)?;
    let value = text(name, 0, value.clone())?;
    if options.mode == ParseMode::DropMalformed {
        let message = "The function `from_json` doesn't support the DROPMALFORMED mode. Acceptable modes are PERMISSIVE and FAILFAST.";
        return Err(QueryError::new("PARSE_MODE_UNSUPPORTED", message));
    }
    check_corrupt_column(&data_type, &options.column_name_of_corrupt_record)?;
    if let Err(inner) = ValueDecoder::new(&data_type, options.clone()) {
        let what = format!("from_json to the type {}", type_sql(&inner));
        return Err(QueryError::unsupported(what));
    }
    let can = match options.mode {
        ParseMode::FailFast => Can::Fail,
        _ => Can::NotFail,
    };
    let target = data_type.clone();
    let with = format!("{}{with}", type_sql(&data_type));
    let read = move |args: &[ArrayRef], _: usize| {
        let mut decoder = ValueDecoder::new(&target, options.clone())
            .map_err(|inner| QueryError::unsupported(type_sql(&inner)))?;
        for text in args[0].as_string::<i32>() {
            match decoder.decode(text) {
                Some(bad) if options.mode == ParseMode::FailFast => return Err(malformed(bad)),
                _ => {}
            }
        }
        Ok(decoder.finish()?)
    };
    Ok(Kernel::over_arrays(
        name,
        with,
        vec![value],
        data_type,
        can,
        read,
    ))
}

/// The type of keys, of some map within the type, that are no strings.
fn other_key(data_type: &DataType) -> Option<&DataType> {
    match data_type {
        DataType::List(item) => other_key(item.data_type()),
        DataType::Struct(fields) => fields.iter().find_map(|field| other_key(field.data_type())),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(entry) if *entry[0].data_type() == DataType::Utf8 => {
                other_key(entry[1].data_type())
            }
            DataType::Struct(entry) => Some(entry[0].data_type()),
            _ => None,
        },
        _ => None,
    }
}

fn to_json(args: &Args) -> Result<Typed> {
    let name = "to_json";
    let (value, given) = match &args.values[..] {
        [value] => (value, None),
        [value, given] => (value, Some(given)),
        _ => return Err(args.wrong_number("[1, 2]")),
    };
    let options = options_of(given)?;
    let known = [json::WRITE_KNOWN, TIME_OPTIONS].concat();
    options.only(name, &known, &[]).map_err(refused)?;
    let writing = JsonWriting::parse(name, &options).map_err(refused)?;
    let (zone, patterns) = write_times(name, &options, args)?;
    if !matches!(
        value.data_type,
        DataType::Struct(_) | DataType::List(_) | DataType::Map(..)
    ) {
        let message = format!(
            "Cannot resolve \"to_json\" due to data type mismatch: Input schema \"{}\" must be a struct, an array, a map or a variant.",
            type_sql(&value.data_type)
        );
        return Err(QueryError::mismatch("INVALID_JSON_SCHEMA", message));
    }
    if !can_be_written(&value.data_type) {
        let what = format!("to_json of the type {}", type_sql(&value.data_type));
        return Err(QueryError::unsupported(what));
    }
    let with = params(&DataType::Null, &options, args);
    let write = move |args: &[ArrayRef], rows: usize| {
        let style = JsonStyle {
            zone: &zone,
            null_fields: writing.null_fields,
            times: &patterns,
        };
        let view = View::new(&args[0])?;
        let mut texts = StringBuilder::new();
        let (mut compact, mut out) = (String::new(), String::new());
        for row in 0..rows {
            if view.is_null(row) {
                texts.append_null();
                continue;
            }
            compact.clear();
            view.push_json(&mut compact, row, &style);
            match writing.is_plain() {
                true => texts.append_value(&compact),
                false => {
                    out.clear();
                    writing.push(&mut out, &compact);
                    texts.append_value(&out);
                }
            }
        }
        Ok(Arc::new(texts.finish()) as ArrayRef)
    };
    let value = vec![value.clone()];
    Ok(Kernel::over_arrays(
        name,
        with,
        value,
        DataType::Utf8,
        Can::NotFail,
        write,
    ))
}

fn get_json_object(args: &Args) -> Result<Typed> {
    let name = "get_json_object";
    let [value, path] = args.exactly()?;
    let args = vec![text(name, 0, value)?, text(name, 1, path)?];
    let find = |args: &[ArrayRef], _: usize| {
        let (texts, paths) = (args[0].as_string::<i32>(), args[1].as_string::<i32>());
        let mut last: Option<(&str, Option<JsonPath>)> = None;
        let mut found = StringBuilder::new();
        for (text, path) in texts.iter().zip(paths) {
            let (Some(text), Some(path)) = (text, path) else {
                found.append_null();
                continue;
            };
            if last.as_ref().is_none_or(|(known, _)| *known != path) {
                last = Some((path, JsonPath::parse(path)));
            }
            let parsed = last.as_ref().and_then(|(_, parsed)| parsed.as_ref());
            found.append_option(parsed.and_then(|path| path.find(text)));
        }
        Ok(Arc::new(found.finish()) as ArrayRef)
    };
    Ok(Kernel::over_arrays(
        name,
        "",
        args,
        DataType::Utf8,
        Can::NotFail,
        find,
    ))
}

fn object_keys(args: &Args) -> Result<Typed> {
    let name = "json_object_keys";
    let value = text(name, 0, args.one()?)?;
    let returns = list_of(DataType::Utf8);
    let keys = |args: &[ArrayRef], _: usize| {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for text in args[0].as_string::<i32>() {
            let keys = text.and_then(json_keys);
            lists.append_option(keys.map(|keys| keys.into_iter().map(Some)));
        }
        Ok(Arc::new(lists.finish()) as ArrayRef)
    };
    Ok(Kernel::over_arrays(
        name,
        "",
        vec![value],
        returns,
        Can::NotFail,
        keys,
    ))
}

fn array_length(args: &Args) -> Result<Typed> {
    let name = "json_array_length";
    let value = text(name, 0, args.one()?)?;
    let count = |args: &[ArrayRef], _: usize| {
        let texts = args[0].as_string::<i32>().iter();
        let counts = texts.map(|text| text.and_then(json_array_length).map(|n| n as i32));
        Ok(Arc::new(counts.collect::<Int32Array>()) as ArrayRef)
    };
    Ok(Kernel::over_arrays(
        name,
        "",
        vec![value],
        DataType::Int32,
        Can::NotFail,
        count,
    ))
}

fn schema_of_json(args: &Args) -> Result<Typed> {
    let name = "schema_of_json";
    let (value, given) = match &args.values[..] {
        [value] => (value, None),
        [value, given] => (value, Some(given)),
        _ => return Err(args.wrong_number("[1, 2]")),
    };
    let text = example(name, value)?;
    let (options, _) = reading(name, args, given)?;
    let data_type = json::type_of(&text, &options).map_err(|_| malformed_example())?;
    Ok(Typed::literal(ScalarValue::Utf8(Some(type_sql(
        &data_type,
    )))))
}

fn malformed_example() -> QueryError {
    QueryError::new(
        "_LEGACY_ERROR_TEMP_2257",
        "the text that a schema is looked for in is no JSON",
    )
}

/// The fields called `names` of objects: a list of just one struct, `c0` and so on.
pub(super) fn tuple(args: Vec<Typed>) -> Result<(Typed, Fields)> {
    let name = "json_tuple";
    if args.len() < 2 {
        let message = format!(
            "The `{name}` requires > 1 parameters but the actual number is {}.",
            args.len()
        );
        return Err(QueryError::new(
            "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
            message,
        ));
    }
    if let Some(other) = args
        .iter()
        .find(|arg| !matches!(arg.data_type, DataType::Utf8 | DataType::Null))
    {
        let message = format!(
            "Cannot resolve \"{name}\" due to data type mismatch: All arguments of `{name}` must be strings, not \"{}\".",
            type_sql(&other.data_type)
        );
        return Err(QueryError::mismatch("NON_STRING_TYPE", message));
    }
    let args = args.into_iter().enumerate();
    let args = args.map(|(nth, arg)| coerce::argument(name, nth, arg, &DataType::Utf8));
    let args = args.collect::<Result<Vec<_>>>()?;
    let fields: Fields = (0..args.len() - 1)
        .map(|nth| Field::new(format!("c{nth}"), DataType::Utf8, true))
        .collect();
    let made = fields.clone();
    let returns = list_of(DataType::Struct(fields.clone()));
    let take = move |args: &[ArrayRef], rows: usize| -> Run<ArrayRef> {
        let texts: Vec<&StringArray> = args.iter().map(|arg| arg.as_string::<i32>()).collect();
        let mut columns: Vec<StringBuilder> = made.iter().map(|_| StringBuilder::new()).collect();
        let value = |at: usize, row: usize| texts[at].is_valid(row).then(|| texts[at].value(row));
        for row in 0..rows {
            let names: Vec<_> = (1..texts.len()).map(|at| value(at, row)).collect();
            let found = match value(0, row) {
                Some(text) => json_fields(text, &names),
                None => vec![None; names.len()],
            };
            for (column, value) in columns.iter_mut().zip(found) {
                column.append_option(value);
            }
        }
        let columns = columns.iter_mut().map(|c| Arc::new(c.finish()) as ArrayRef);
        let structs = StructArray::try_new(made.clone(), columns.collect(), None)?;
        let item = Arc::new(Field::new_list_field(structs.data_type().clone(), true));
        let one_each = OffsetBuffer::from_lengths(std::iter::repeat_n(1, rows));
        Ok(Arc::new(ListArray::try_new(
            item,
            one_each,
            Arc::new(structs),
            None,
        )?))
    };
    let call = Kernel::over_arrays(name, "", args, returns, Can::NotFail, take);
    Ok((call, fields))
}

/// A function on JSON called `name`, if it is one.
pub(super) fn build(name: &str, args: &Args) -> Result<Option<Typed>> {
    Ok(Some(match name {
        "from_json" => from_json(args)?,
        "to_json" => to_json(args)?,
        "get_json_object" => get_json_object(args)?,
        "json_object_keys" => object_keys(args)?,
        "json_array_length" => array_length(args)?,
        "schema_of_json" => schema_of_json(args)?,
        _ => return Ok(None),
    }))
}
