//! Rows of cells in columns of text: read by a schema, and written, by the rules for files.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use highwater_text::csv::{self, CSV_WRITE_KNOWN, CsvOptions, CsvStyle, RowDecoder};
use highwater_text::json::BadText;
use highwater_text::mode::ParseMode;
use highwater_text::times;
use highwater_text::view::{TextStyle, View};

use super::Args;
use super::kernel::{Can, Kernel, Typed};
use super::schema::{
    Result, TIME_OPTIONS, check_corrupt_column, example, malformed, options_of, params, read_times,
    refused, schema_of, text, write_times,
};
use crate::coerce;
use crate::error::{QueryError, RunError};
use crate::types::type_sql;

fn reading(name: &str, args: &Args, given: Option<&Typed>) -> Result<(CsvOptions, String)> {
    let options = options_of(given)?;
    let known = [csv::KNOWN, times::KNOWN].concat();
    // These are of files, and not of their rows.
    let of_files = |option: &str| {
        matches!(option, "enforceSchema" | "multiLine")
            || (option == "header" && name == "from_csv")
    };
    let known: Vec<&str> = known.into_iter().filter(|o| !of_files(o)).collect();
    options
        .only(name, &known, csv::NOT_BUILT)
        .map_err(refused)?;
    let times = read_times(name, &options, args)?;
    let parsed = CsvOptions::parse(name, &options, times).map_err(refused)?;
    Ok((parsed, params(&DataType::Null, &options, args)))
}

fn from_csv(args: &Args) -> Result<Typed> {
    let name = "from_csv";
    let (value, schema, given) = match &args.values[..] {
        [value, schema] => (value, schema, None),
        [value, schema, given] => (value, schema, Some(given)),
        _ => return Err(args.wrong_number("[2, 3]")),
    };
    let data_type = schema_of(schema)?;
    let DataType::Struct(fields) = data_type.clone() else {
        let message = format!(
            "The input expression should be evaluated to struct type, but got \"{}\".",
            type_sql(&data_type)
        );
        return Err(QueryError::new("INVALID_SCHEMA.NON_STRUCT_TYPE", message));
    };
    let value = text(name, 0, value.clone())?;
    let (options, with) = reading(name, args, given)?;
    if options.mode == ParseMode::DropMalformed {
        let message = "The function `from_csv` doesn't support the DROPMALFORMED mode. Acceptable modes are PERMISSIVE and FAILFAST.";
        return Err(QueryError::new("PARSE_MODE_UNSUPPORTED", message));
    }
    check_corrupt_column(&data_type, &options.column_name_of_corrupt_record)?;
    if let Err(inner) = RowDecoder::new(&fields, options.clone()) {
        let what = format!("from_csv to the type {}", type_sql(&inner));
        return Err(QueryError::unsupported(what));
    }
    let with = format!("{}{with}", type_sql(&data_type));
    let read = move |args: &[ArrayRef], _: usize| {
        let mut decoder = RowDecoder::new(&fields, options.clone())
            .map_err(|inner| QueryError::unsupported(type_sql(&inner)))?;
        for text in args[0].as_string::<i32>() {
            match decoder.decode(text) {
                Ok(false) if options.mode == ParseMode::FailFast => {
                    return Err(malformed(BadText::Other));
                }
                Ok(_) => {}
                Err(reason) => return Err(RunError::raise("MALFORMED_CSV_RECORD", reason)),
            }
        }
        Ok(decoder.finish()?)
    };
    let value = vec![value];
    Ok(Kernel::over_arrays(
        name,
        with,
        value,
        data_type,
        Can::Fail,
        read,
    ))
}

/// Whether a cell can hold the type.
fn is_cell(data_type: &DataType) -> bool {
    super::schema::can_be_written(data_type)
        && !matches!(
            data_type,
            DataType::List(_) | DataType::Map(..) | DataType::Struct(_) | DataType::Binary
        )
}

fn to_csv(args: &Args) -> Result<Typed> {
    let name = "to_csv";
    let (value, given) = match &args.values[..] {
        [value] => (value, None),
        [value, given] => (value, Some(given)),
        _ => return Err(args.wrong_number("[1, 2]")),
    };
    let options = options_of(given)?;
    let known = [CSV_WRITE_KNOWN, TIME_OPTIONS].concat();
    // These are of files.
    let of_files = ["extension", "header"];
    let known: Vec<&str> = known
        .into_iter()
        .filter(|name| !of_files.contains(name))
        .collect();
    options.only(name, &known, &[]).map_err(refused)?;
    let style = CsvStyle::parse(name, &options).map_err(refused)?;
    let (zone, patterns) = write_times(name, &options, args)?;
    let DataType::Struct(fields) = &value.data_type else {
        return Err(coerce::unexpected(name, 0, value, "STRUCT"));
    };
    if let Some(field) = fields.iter().find(|field| !is_cell(field.data_type())) {
        let what = format!("to_csv of the type {}", type_sql(field.data_type()));
        return Err(QueryError::unsupported(what));
    }
    let with = params(&DataType::Null, &options, args);
    let write = move |args: &[ArrayRef], rows: usize| {
        let text_style = TextStyle {
            zone: &zone,
            null: "null",
            hex: false,
            iso: true,
            times: &patterns,
        };
        let views = args[0].as_struct().columns().iter().map(View::new);
        let views = views.collect::<std::result::Result<Vec<_>, _>>()?;
        let nulls = args[0].logical_nulls();
        let mut texts = StringBuilder::new();
        let (mut out, mut cell) = (String::new(), String::new());
        for row in 0..rows {
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                texts.append_null();
                continue;
            }
            out.clear();
            style.push_row(&mut out, views.iter(), row, &text_style, &mut cell);
            texts.append_value(&out);
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

fn schema_of_csv(args: &Args) -> Result<Typed> {
    let name = "schema_of_csv";
    let (value, given) = match &args.values[..] {
        [value] => (value, None),
        [value, given] => (value, Some(given)),
        _ => return Err(args.wrong_number("[1, 2]")),
    };
    let text = example(name, value)?;
    let (options, _) = reading(name, args, given)?;
    let Some(schema) = csv::schema_of(&text, options) else {
        return Err(QueryError::plain(
            "the text that a schema is looked for in has no row",
        ));
    };
    let data_type = DataType::Struct(schema.fields().clone());
    Ok(Typed::literal(ScalarValue::Utf8(Some(type_sql(
        &data_type,
    )))))
}

/// A function on CSV called `name`, if it is one.
pub(super) fn build(name: &str, args: &Args) -> Result<Option<Typed>> {
    Ok(Some(match name {
        "from_csv" => from_csv(args)?,
        "to_csv" => to_csv(args)?,
        "schema_of_csv" => schema_of_csv(args)?,
        _ => return Ok(None),
    }))
}
