//! Arrow's types by the names that Spark has for them.

use arrow::datatypes::{DataType, Fields, IntervalUnit, TimeUnit};

/// The type as Spark's `simpleString` writes it: `bigint`, `struct<start:timestamp,end:timestamp>`.
pub fn type_text(data_type: &DataType) -> String {
    let fields = |fields: &Fields| {
        let each = fields
            .iter()
            .map(|f| format!("{}:{}", f.name(), type_text(f.data_type())));
        each.collect::<Vec<_>>().join(",")
    };
    match data_type {
        DataType::Null => "void".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Int8 => "tinyint".into(),
        DataType::Int16 => "smallint".into(),
        DataType::Int32 => "int".into(),
        DataType::Int64 => "bigint".into(),
        DataType::Float32 => "float".into(),
        DataType::Float64 => "double".into(),
        DataType::Decimal128(p, s) => format!("decimal({p},{s})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "binary".into(),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(_, Some(_)) => "timestamp".into(),
        DataType::Timestamp(_, None) => "timestamp_ntz".into(),
        // Whole days: Arrow has no type of its own for them.
        DataType::Duration(TimeUnit::Second) => "interval day".into(),
        DataType::Duration(_) => "interval day to second".into(),
        DataType::Interval(IntervalUnit::YearMonth) => "interval year to month".into(),
        DataType::Interval(_) => "interval".into(),
        DataType::List(e) | DataType::LargeList(e) => {
            format!("array<{}>", type_text(e.data_type()))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(kv) if kv.len() == 2 => {
                format!(
                    "map<{},{}>",
                    type_text(kv[0].data_type()),
                    type_text(kv[1].data_type())
                )
            }
            other => format!("map<{other}>"),
        },
        DataType::Struct(f) => format!("struct<{}>", fields(f)),
        other => other.to_string().to_lowercase(),
    }
}

/// The type as Spark writes it in SQL: `BIGINT`, `STRUCT<a: INT>`.
pub fn type_sql(data_type: &DataType) -> String {
    match data_type {
        DataType::List(e) => format!("ARRAY<{}>", type_sql(e.data_type())),
        DataType::Struct(f) => {
            let each = f
                .iter()
                .map(|f| format!("{}: {}", quoted(f.name()), type_sql(f.data_type())));
            format!("STRUCT<{}>", each.collect::<Vec<_>>().join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(kv) if kv.len() == 2 => {
                format!(
                    "MAP<{}, {}>",
                    type_sql(kv[0].data_type()),
                    type_sql(kv[1].data_type())
                )
            }
            _ => type_text(data_type).to_uppercase(),
        },
        _ => type_text(data_type).to_uppercase(),
    }
}

/// A name as DDL needs it: in backticks unless it is a plain word.
pub fn quoted(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain && name.starts_with(|c: char| !c.is_ascii_digit()) {
        name.to_string()
    } else {
        format!("`{}`", name.replace('`', "``"))
    }
}
