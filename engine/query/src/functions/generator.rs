//! Functions that make rows: explode and its family.
//!
//! A generator is lists side by side, which the plan unnests together, and columns picked from their elements.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, ListArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;

use super::kernel::{Can, Kernel, Typed};
use super::{cast, json, nested};
use crate::coerce;
use crate::error::{QueryError, RunError};
use crate::types::{list_of, map_entry_fields, type_sql};

type Result<T> = std::result::Result<T, QueryError>;
type Pick = Box<dyn Fn(Typed) -> Result<Typed>>;

/// Where a column comes from: an element of which list, of which type.
pub(crate) struct Element {
    pub(crate) list: usize,
    pub(crate) data_type: DataType,
}

/// The rows that a generator makes.
pub(crate) struct Made {
    /// Lists to unnest together.
    pub(crate) lists: Vec<Typed>,
    /// The columns: default name, element, and what is taken from it.
    pub(crate) columns: Vec<(String, Element, Pick)>,
    /// Whether a row that nothing is made for stays, with nulls.
    pub(crate) outer: bool,
}

/// The table function `range`, which is one in FROM only: a name that no query can write.
pub(crate) const RANGE: &str = "\u{1}range";

/// Explodes the numbers of grouping sets: a name that no query can write.
pub(crate) const GROUPINGS: &str = "\u{1}groupings";

/// How many numbers a `range` may make: they are made at once.
const RANGE_MAX: i128 = 10_000_000;

pub(crate) fn is_known(name: &str) -> bool {
    if matches!(name, RANGE | GROUPINGS) {
        return true;
    }
    let plain = name.strip_suffix("_outer").unwrap_or(name);
    matches!(plain, "explode" | "posexplode" | "inline") || matches!(name, "stack" | "json_tuple")
}

/// The call of the generator called `name`.
pub(crate) fn build(name: &str, args: Vec<Typed>) -> Result<Made> {
    if name == RANGE {
        return range(args);
    }
    let name = if name == GROUPINGS { "explode" } else { name };
    let outer = name.ends_with("_outer");
    let plain = name.strip_suffix("_outer").unwrap_or(name);
    if plain == "stack" {
        return stack(args);
    }
    if plain == "json_tuple" && !outer {
        let (list, fields) = json::tuple(args)?;
        let element = DataType::Struct(fields.clone());
        let columns = fields.iter().enumerate();
        let columns = columns.map(|(nth, field)| part(field.name(), nth, 0, &element));
        return Ok(Made {
            columns: columns.collect(),
            lists: vec![list],
            outer,
        });
    }
    let count = args.len();
    let Ok([value]) = <[Typed; 1]>::try_from(args) else {
        let message =
            format!("The `{name}` requires 1 parameters but the actual number is {count}.");
        return Err(QueryError::new(
            "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
            message,
        ));
    };
    let mut made = Made {
        lists: vec![],
        columns: vec![],
        outer,
    };
    if plain == "posexplode" {
        made.lists.push(positions(value.clone()));
        made.columns.push(whole("pos", 0, DataType::Int32));
    }
    let at = made.lists.len();
    match value.data_type.clone() {
        DataType::List(element) if plain == "inline" => {
            let DataType::Struct(fields) = element.data_type().clone() else {
                return Err(coerce::unexpected(name, 0, &value, "ARRAY<STRUCT>"));
            };
            for (number, field) in fields.iter().enumerate() {
                let part = part(field.name(), number, at, element.data_type());
                made.columns.push(part);
            }
            made.lists.push(value);
        }
        DataType::List(element) => {
            made.columns
                .push(whole("col", at, element.data_type().clone()));
            made.lists.push(value);
        }
        DataType::Map(..) if plain != "inline" => {
            let entries = entries(value)?;
            let DataType::List(element) = entries.data_type.clone() else {
                return Err(QueryError::unsupported(name));
            };
            made.columns.push(part("key", 0, at, element.data_type()));
            made.columns.push(part("value", 1, at, element.data_type()));
            made.lists.push(entries);
        }
        _ => return Err(not_a_collection(name, &value)),
    }
    Ok(made)
}

fn not_a_collection(name: &str, value: &Typed) -> QueryError {
    let Expr::Column(column) = &value.expr else {
        return coerce::unexpected(name, 0, value, "(\"ARRAY\" or \"MAP\")");
    };
    let (column, found) = (&column.name, type_sql(&value.data_type));
    let message = format!(
        "Cannot resolve \"{name}({column})\" due to data type mismatch: The first parameter requires the (\"ARRAY\" or \"MAP\") type, however \"{column}\" has the type \"{found}\""
    );
    QueryError::mismatch("UNEXPECTED_INPUT_TYPE", message)
}

fn whole(name: &str, list: usize, data_type: DataType) -> (String, Element, Pick) {
    (name.to_string(), Element { list, data_type }, Box::new(Ok))
}

/// By its number: several fields may have one name.
fn part(name: &str, number: usize, list: usize, element: &DataType) -> (String, Element, Pick) {
    let pick: Pick = Box::new(move |element| Ok(nested::nth_field(element, number)));
    (
        name.to_string(),
        Element {
            list,
            data_type: element.clone(),
        },
        pick,
    )
}

/// A map's entries as an array of structs.
pub(crate) fn entries(map: Typed) -> Result<Typed> {
    let Some((key, value)) = nested::map_types(&map.data_type) else {
        return Err(coerce::unexpected("map_entries", 0, &map, "MAP"));
    };
    let fields: Vec<Field> = map_entry_fields(key, value)
        .iter()
        .map(|f| f.as_ref().clone().with_nullable(true))
        .collect();
    let fields = arrow::datatypes::Fields::from(fields);
    let returns = list_of(DataType::Struct(fields.clone()));
    Ok(Kernel::over_arrays(
        "map_entries",
        "",
        vec![map],
        returns,
        Can::NotFail,
        move |args, _| {
            let map = args[0].as_map();
            let columns = vec![Arc::clone(map.keys()), Arc::clone(map.values())];
            let structs =
                StructArray::try_new_with_length(fields.clone(), columns, None, map.keys().len())?;
            let field = Arc::new(Field::new_list_field(structs.data_type().clone(), true));
            let nulls = map.nulls().cloned();
            Ok(Arc::new(ListArray::try_new(
                field,
                map.offsets().clone(),
                Arc::new(structs),
                nulls,
            )?))
        },
    ))
}

/// `[0, 1, ...]` for every element of an array or entry of a map.
fn positions(value: Typed) -> Typed {
    Kernel::over_arrays(
        "positions",
        "",
        vec![value],
        list_of(DataType::Int32),
        Can::NotFail,
        |args, rows| {
            let (offsets, nulls) = match args[0].as_list_opt::<i32>() {
                Some(list) => (list.value_offsets().to_vec(), list.nulls().cloned()),
                None => (
                    args[0].as_map().value_offsets().to_vec(),
                    args[0].nulls().cloned(),
                ),
            };
            let lengths = (0..rows).map(|row| (offsets[row + 1] - offsets[row]) as usize);
            let values: ArrayRef = Arc::new(
                lengths
                    .clone()
                    .flat_map(|n| 0..n as i32)
                    .collect::<Int32Array>(),
            );
            let field = Arc::new(Field::new_list_field(DataType::Int32, true));
            Ok(Arc::new(ListArray::try_new(
                field,
                OffsetBuffer::from_lengths(lengths),
                values,
                nulls,
            )?))
        },
    )
}

/// `range(end)`, `range(start, end[, step[, parts]])`: numbers from `start` up to, and without, `end`.
fn range(args: Vec<Typed>) -> Result<Made> {
    let count = args.len();
    let long = |(nth, arg): (usize, Typed)| match coerce::is_integral(&arg.data_type) {
        true => cast::implicit(arg, &DataType::Int64),
        false => Err(coerce::unexpected("range", nth, &arg, "BIGINT")),
    };
    let args = args.into_iter().enumerate().map(long);
    let args: Vec<Typed> = args.collect::<Result<_>>()?;
    let number = |n: i64| Typed::literal(ScalarValue::Int64(Some(n)));
    let bounds = match <[Typed; 1]>::try_from(args) {
        Ok([end]) => vec![number(0), end, number(1)],
        Err(args) if matches!(count, 2..=4) => {
            let mut bounds = args;
            bounds.truncate(3);
            if count == 2 {
                bounds.push(number(1));
            }
            bounds
        }
        Err(_) => {
            let message = format!(
                "The `range` requires [1, 2, 3, 4] parameters but the actual number is {count}."
            );
            return Err(QueryError::new(
                "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
                message,
            ));
        }
    };
    let list = Kernel::over_arrays(
        "range",
        "",
        bounds,
        list_of(DataType::Int64),
        Can::Fail,
        |args, rows| {
            let [start, end, step] =
                [0, 1, 2].map(|nth: usize| args[nth].as_primitive::<Int64Type>());
            let (mut values, mut lengths) = (Vec::new(), Vec::with_capacity(rows));
            for row in 0..rows {
                if start.is_null(row) || end.is_null(row) || step.is_null(row) {
                    let why = "the arguments of range cannot be NULL";
                    return Err(RunError::raise("UNEXPECTED_NULL", why));
                }
                let (start, end, step) = (start.value(row), end.value(row), step.value(row));
                if step == 0 {
                    let why = "the step of range cannot be 0";
                    return Err(RunError::raise("INVALID_PARAMETER_VALUE", why));
                }
                let (span, by) = (i128::from(end) - i128::from(start), i128::from(step));
                // The last number is one step short of the end, or less.
                let count = (span + by - by.signum()) / by;
                if count + values.len() as i128 > RANGE_MAX {
                    let why = format!("range makes at most {RANGE_MAX} numbers at once");
                    return Err(RunError::raise("UNSUPPORTED_FEATURE", why));
                }
                let count = count.max(0) as i64;
                values.extend((0..count).map(|nth| start + nth * step));
                lengths.push(count as usize);
            }
            let field = Arc::new(Field::new_list_field(DataType::Int64, true));
            let offsets = OffsetBuffer::from_lengths(lengths);
            let values: ArrayRef = Arc::new(Int64Array::from(values));
            Ok(Arc::new(ListArray::try_new(field, offsets, values, None)?))
        },
    );
    Ok(Made {
        lists: vec![list],
        columns: vec![whole("id", 0, DataType::Int64)],
        outer: false,
    })
}

/// `stack(n, values...)`: the values in `n` rows.
fn stack(args: Vec<Typed>) -> Result<Made> {
    let mut args = args.into_iter();
    let rows = match args.next().as_ref().and_then(Typed::constant) {
        Some(ScalarValue::Int32(Some(n))) if *n > 0 => *n as usize,
        _ => {
            return Err(QueryError::mismatch(
                "VALUE_OUT_OF_RANGE",
                "the number of rows of stack must be a positive constant",
            ));
        }
    };
    let values: Vec<Typed> = args.collect();
    if values.is_empty() {
        return Err(QueryError::new(
            "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
            "The `stack` requires > 1 parameters but the actual number is 1.",
        ));
    }
    let width = values.len().div_ceil(rows);
    let mut made = Made {
        lists: vec![],
        columns: vec![],
        outer: false,
    };
    for column in 0..width {
        let mut cells = vec![];
        let mut data_type = DataType::Null;
        for row in 0..rows {
            let cell = values
                .get(row * width + column)
                .cloned()
                .unwrap_or_else(|| Typed::null(&DataType::Null));
            if data_type != DataType::Null
                && cell.data_type != DataType::Null
                && data_type != cell.data_type
            {
                return Err(QueryError::mismatch(
                    "STACK_COLUMN_DIFF_TYPES",
                    format!("The data type of the column ({column}) do not have the same type."),
                ));
            }
            if data_type == DataType::Null {
                data_type = cell.data_type.clone();
            }
            cells.push(cell);
        }
        made.lists.push(nested::make_array(cells)?);
        made.columns
            .push(whole(&format!("col{column}"), column, data_type));
    }
    Ok(made)
}
