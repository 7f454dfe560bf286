//! What the functions of JSON and CSV share: schemas and options that are given as constants.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::ScalarValue;
use highwater_text::Zone;
use highwater_text::json::BadText;
use highwater_text::options::{OptionError, Options};
use highwater_text::times::{ReadTimes, zone_of};
use highwater_text::type_name::type_sql;
use highwater_text::view::TimePatterns;

use super::Args;
use super::kernel::{Typed, folded};
use crate::coerce;
use crate::error::{QueryError, RunError};
use crate::types::{list_of, map_of, parse_schema, parse_type};

pub(super) type Result<T> = std::result::Result<T, QueryError>;

/// The type that a constant text says, be it a type or the columns of a struct. All of it can be null: a text may leave
/// out anything.
pub(super) fn schema_of(schema: &Typed) -> Result<DataType> {
    let constant = match schema.data_type {
        DataType::Utf8 => folded(schema)?,
        _ => None,
    };
    let Some(text) = constant
        .as_ref()
        .and_then(|value| value.try_as_str().flatten())
    else {
        return Err(QueryError::new(
            "INVALID_SCHEMA.NON_STRING_LITERAL",
            "The input schema is not a valid schema string. The input expression must be string literal and not null.",
        ));
    };
    if text.trim().is_empty() {
        return Err(QueryError::new(
            "PARSE_EMPTY_STATEMENT",
            "the schema is empty",
        ));
    }
    let columns = || parse_schema(text).map(|schema| DataType::Struct(schema.fields().clone()));
    let data_type = match parse_type(text) {
        Ok(data_type) => data_type,
        Err(as_type) => columns().map_err(|as_columns| neither(text, as_type, as_columns))?,
    };
    Ok(nullable(&data_type))
}

/// The error of a text that is no type and no list of columns either: the one of what it is most like. The model takes
/// it for a type then, after whose name nothing may follow.
fn neither(text: &str, as_type: QueryError, as_columns: QueryError) -> QueryError {
    let is_known = |error: &QueryError| error.class() == Some("UNSUPPORTED_FEATURE");
    if is_known(&as_columns) {
        return as_columns;
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let text = text.trim();
    let rest = text.trim_start_matches(is_word);
    let collection = ["array", "map", "struct", "decimal"]
        .iter()
        .any(|kind| text[..text.len() - rest.len()].eq_ignore_ascii_case(kind));
    let rest = rest.trim_start();
    let end = match rest.find(|c| !is_word(c)) {
        Some(0) => rest.chars().next().map_or(0, char::len_utf8),
        Some(end) => end,
        None => rest.len(),
    };
    let (token, after) = rest.split_at(end);
    if token.is_empty() || collection || is_known(&as_type) {
        return as_type;
    }
    let extra = match after.is_empty() {
        true => format!(": extra input '{token}'"),
        false => String::new(),
    };
    QueryError::new(
        "PARSE_SYNTAX_ERROR",
        format!("Syntax error at or near '{token}'{extra}."),
    )
}

fn nullable(data_type: &DataType) -> DataType {
    match data_type {
        DataType::List(item) => list_of(nullable(item.data_type())),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(entry) => map_of(
                nullable(entry[0].data_type()),
                nullable(entry[1].data_type()),
            ),
            _ => data_type.clone(),
        },
        DataType::Struct(fields) => {
            let fields = fields
                .iter()
                .map(|field| Field::new(field.name(), nullable(field.data_type()), true));
            DataType::Struct(fields.collect::<Fields>())
        }
        other => other.clone(),
    }
}

/// The options that a call gives, if it does, as a map of constants.
pub(super) fn options_of(options: Option<&Typed>) -> Result<Options> {
    let mut found = Options::default();
    let Some(options) = options else {
        return Ok(found);
    };
    let DataType::Map(entries, _) = &options.data_type else {
        return Err(QueryError::new(
            "INVALID_OPTIONS.NON_MAP_FUNCTION",
            "Invalid options: Must use the `map()` function for options.",
        ));
    };
    let texts = |fields: &Fields| {
        fields
            .iter()
            .all(|field| *field.data_type() == DataType::Utf8)
    };
    let Some(ScalarValue::Map(map)) = folded(options)? else {
        return Err(QueryError::new(
            "INVALID_OPTIONS.NON_MAP_FUNCTION",
            "Invalid options: Must use the `map()` function for options, and constants in it.",
        ));
    };
    match entries.data_type() {
        DataType::Struct(fields) if texts(fields) => {}
        _ => {
            let message = format!(
                "Invalid options: A type of keys and values in `map()` must be string, but got \"{}\".",
                type_sql(&options.data_type)
            );
            return Err(QueryError::new("INVALID_OPTIONS.NON_STRING_TYPE", message));
        }
    }
    let (names, values) = (
        map.keys().as_string::<i32>(),
        map.values().as_string::<i32>(),
    );
    for at in 0..map.entries().len() {
        if !values.is_null(at) {
            found.set(names.value(at), values.value(at));
        }
    }
    Ok(found)
}

pub(super) fn refused(error: OptionError) -> QueryError {
    QueryError::plain(error.to_string())
}

/// What a call reads times by.
pub(super) fn read_times(owner: &str, options: &Options, args: &Args) -> Result<ReadTimes> {
    let (zone, name) = zone_of(owner, options, &args.conf.time_zone).map_err(refused)?;
    ReadTimes::parse(owner, options, zone, name).map_err(refused)
}

/// What a call writes times by.
pub(super) fn write_times(
    owner: &str,
    options: &Options,
    args: &Args,
) -> Result<(Zone, TimePatterns)> {
    let (zone, name) = zone_of(owner, options, &args.conf.time_zone).map_err(refused)?;
    let patterns = TimePatterns::parse(owner, options, name).map_err(refused)?;
    Ok((zone, patterns))
}

/// What makes two calls with the same arguments different.
pub(super) fn params(data_type: &DataType, options: &Options, args: &Args) -> String {
    let mut text = type_sql(data_type);
    for (name, value) in options.iter() {
        text.push_str(&format!(", {name}={value:?}"));
    }
    text + &format!(" at {}", args.conf.time_zone)
}

/// An argument that is a text, without a cast.
pub(super) fn text(name: &str, nth: usize, value: Typed) -> Result<Typed> {
    match value.data_type {
        DataType::Utf8 => Ok(value),
        DataType::Null => coerce::argument(name, nth, value, &DataType::Utf8),
        _ => Err(coerce::unexpected(name, nth, &value, "STRING")),
    }
}

/// The error of a text that cannot be read, where that is one.
pub(super) fn malformed(bad: BadText) -> datafusion::common::DataFusionError {
    let (class, why) = match bad {
        BadText::ArrayForStruct => (
            "MALFORMED_RECORD_IN_PARSING.CANNOT_PARSE_JSON_ARRAYS_AS_STRUCTS",
            "Parsing JSON arrays as structs is forbidden.",
        ),
        BadText::StringForNumber => (
            "MALFORMED_RECORD_IN_PARSING.CANNOT_PARSE_STRING_AS_DATATYPE",
            "A string cannot be parsed as a number.",
        ),
        BadText::Other => (
            "MALFORMED_RECORD_IN_PARSING.WITHOUT_SUGGESTION",
            "To process malformed records as null result, try setting the option 'mode' as 'PERMISSIVE'.",
        ),
    };
    let message =
        format!("Malformed records are detected in record parsing. Parse Mode: FAILFAST. {why}");
    RunError::raise(class, message)
}

/// The column of texts that cannot be read is a string.
pub(super) fn check_corrupt_column(data_type: &DataType, name: &str) -> Result<()> {
    let DataType::Struct(fields) = data_type else {
        return Ok(());
    };
    match fields.iter().find(|field| field.name() == name) {
        Some(field) if *field.data_type() != DataType::Utf8 => Err(QueryError::new(
            "INVALID_CORRUPT_RECORD_TYPE",
            format!(
                "The column \"{name}\" for corrupt records must have the nullable STRING type, but got \"{}\".",
                type_sql(field.data_type())
            ),
        )),
        _ => Ok(()),
    }
}

fn is_plain_key(data_type: &DataType) -> bool {
    *data_type == DataType::Utf8
        || *data_type == DataType::Boolean
        || *data_type == DataType::Null
        || coerce::is_numeric(data_type)
}

/// Whether there is a form for every value of the type.
pub(super) fn can_be_written(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) => can_be_written(item.data_type()),
        // Spark writes other keys as Java shows them: days as a number, bytes as an address.
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(entry) => {
                is_plain_key(entry[0].data_type()) && can_be_written(entry[1].data_type())
            }
            _ => false,
        },
        DataType::Struct(fields) => fields.iter().all(|f| can_be_written(f.data_type())),
        DataType::Null
        | DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal128(..)
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32
        | DataType::Timestamp(..) => true,
        // An interval is written with the fields of its type, `INTERVAL '1' DAY`, which types here do not tell.
        _ => false,
    }
}

/// Options of functions that write.
pub(super) const TIME_OPTIONS: &[&str] = &[
    "timeZone",
    "dateFormat",
    "timestampFormat",
    "timestampNTZFormat",
];

/// The constant text that `name` finds a schema in.
pub(super) fn example(name: &str, value: &Typed) -> Result<String> {
    let refused = |class: &str, message: String| {
        let message = format!("Cannot resolve \"{name}\" due to data type mismatch: {message}");
        Err(QueryError::mismatch(class, message))
    };
    if !matches!(value.data_type, DataType::Utf8 | DataType::Null) {
        return Err(coerce::unexpected(name, 0, value, "STRING"));
    }
    match folded(value)? {
        None => refused(
            "NON_FOLDABLE_INPUT",
            format!("the input `{name}` should be a foldable \"STRING\" expression."),
        ),
        Some(constant) => match constant.try_as_str().flatten() {
            Some(text) => Ok(text.to_string()),
            None => refused("UNEXPECTED_NULL", "The input must not be null.".into()),
        },
    }
}
