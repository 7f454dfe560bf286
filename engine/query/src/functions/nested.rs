//! Structs, arrays and maps: making them and taking them apart.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StructArray, UInt32Array, new_null_array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Fields, Int32Type};
use datafusion::common::ScalarValue;

use super::kernel::{Can, Kernel, Result as Run, Typed};
use super::{Args, cast};
use crate::coerce;
use crate::error::{QueryError, RunError};
use crate::types::{list_of, type_sql};

type Result<T> = std::result::Result<T, QueryError>;

/// The field called `name` of a struct, or of every struct of an array.
pub(crate) fn field(value: Typed, name: &str, case_sensitive: bool) -> Result<Typed> {
    let fields = match &value.data_type {
        DataType::Struct(fields) => fields.clone(),
        DataType::List(element) => match element.data_type() {
            DataType::Struct(fields) => fields.clone(),
            _ => return Err(no_fields(&value, name)),
        },
        DataType::Map(..) => {
            return index(
                value,
                Typed::literal(ScalarValue::Utf8(Some(name.to_string()))),
                case_sensitive,
            );
        }
        _ => return Err(no_fields(&value, name)),
    };
    let same = |f: &Arc<Field>| {
        if case_sensitive {
            f.name() == name
        } else {
            f.name().eq_ignore_ascii_case(name)
        }
    };
    let mut found = fields.iter().enumerate().filter(|(_, f)| same(f));
    let Some((at, _)) = found.next() else {
        let names: Vec<String> = fields.iter().map(|f| format!("`{}`", f.name())).collect();
        return Err(QueryError::new(
            "FIELD_NOT_FOUND",
            format!("No such struct field `{name}` in {}.", names.join(", ")),
        ));
    };
    if found.next().is_some() {
        let message = format!("Ambiguous reference to the field `{name}`.");
        return Err(QueryError::new("AMBIGUOUS_REFERENCE_TO_FIELDS", message));
    }
    Ok(nth_field(value, at))
}

/// The field of that number of a struct, or of every struct of an array.
pub(crate) fn nth_field(value: Typed, at: usize) -> Typed {
    let (DataType::Struct(fields), array) = (match &value.data_type {
        DataType::List(element) => (element.data_type(), true),
        other => (other, false),
    }) else {
        unreachable!("only structs have fields");
    };
    let (name, data_type) = (fields[at].name().clone(), fields[at].data_type().clone());
    let returns = if array { list_of(data_type) } else { data_type };
    let target = returns.clone();
    Kernel::over_arrays(
        "field",
        name,
        vec![value],
        returns,
        Can::NotFail,
        move |args, _| match args[0].as_list_opt::<i32>() {
            None => struct_field(args[0].as_struct(), at),
            Some(list) => {
                let values = struct_field(list.values().as_struct(), at)?;
                let DataType::List(element) = &target else {
                    return Ok(values);
                };
                let nulls = list.nulls().cloned();
                Ok(Arc::new(ListArray::try_new(
                    Arc::clone(element),
                    list.offsets().clone(),
                    values,
                    nulls,
                )?))
            }
        },
    )
}

/// A struct's field is null where the struct is.
pub(crate) fn struct_field(structs: &StructArray, at: usize) -> Run<ArrayRef> {
    let column = structs.column(at);
    let Some(nulls) = structs.nulls() else {
        return Ok(Arc::clone(column));
    };
    let nulls = NullBuffer::union(Some(nulls), column.logical_nulls().as_ref());
    if *column.data_type() == DataType::Null {
        return Ok(Arc::clone(column));
    }
    let data = column.to_data().into_builder().nulls(nulls).build()?;
    Ok(arrow::array::make_array(data))
}

fn no_fields(value: &Typed, name: &str) -> QueryError {
    let message = format!(
        "Can't extract a value from \"the expression\". Need a complex type [STRUCT, ARRAY, MAP] but got \"{}\" for the field `{name}`.",
        type_sql(&value.data_type)
    );
    QueryError::new("INVALID_EXTRACT_BASE_FIELD_TYPE", message)
}

/// `value[index]`: an element of an array from zero, a value of a map, a field of a struct.
pub(crate) fn index(value: Typed, index: Typed, case_sensitive: bool) -> Result<Typed> {
    match &value.data_type {
        DataType::List(element) => {
            let element = element.data_type().clone();
            if !coerce::is_integral(&index.data_type) && index.data_type != DataType::Null {
                return Err(coerce::unexpected("[]", 1, &index, "INTEGRAL"));
            }
            let index = cast::implicit(index, &DataType::Int32)?;
            Ok(Kernel::over_arrays(
                "element",
                "",
                vec![value, index],
                element,
                Can::Fail,
                |args, _| {
                    at_position(
                        args[0].as_list(),
                        &args[1],
                        |at, length| match usize::try_from(at) {
                            Ok(at) if at < length => Ok(Some(at)),
                            _ => Err(RunError::raise(
                                "INVALID_ARRAY_INDEX",
                                format!(
                                    "The index {at} is out of bounds. The array has {length} elements. Use the SQL function `get()` to tolerate accessing element at invalid index and return NULL instead."
                                ),
                            )),
                        },
                    )
                },
            ))
        }
        DataType::Map(..) => map_value(value, index),
        DataType::Struct(_) => match index.constant_text() {
            Some(name) => field(value.clone(), name, case_sensitive),
            None => Err(no_fields(&value, "[]")),
        },
        _ => Err(no_fields(&value, "[]")),
    }
}

/// The same lists over just the elements that they hold: others, outside the slice or under nulls, must not be
/// evaluated, as they may fail.
pub(crate) fn compact(list: &ListArray) -> Run<ListArray> {
    let offsets = list.value_offsets();
    let (first, last) = (offsets[0], offsets[list.len()]);
    let unused = |row: usize| list.is_null(row) && offsets[row] != offsets[row + 1];
    let whole = first == 0 && last as usize == list.values().len();
    let DataType::List(field) = list.data_type() else {
        return Ok(list.clone());
    };
    if list.null_count() > 0 && (0..list.len()).any(unused) {
        let known = || (0..list.len()).filter(|row| list.is_valid(*row));
        let kept: UInt32Array = known()
            .flat_map(|row| offsets[row] as u32..offsets[row + 1] as u32)
            .collect();
        let lengths = (0..list.len()).map(|row| {
            if list.is_null(row) {
                0
            } else {
                list.value_length(row) as usize
            }
        });
        let (offsets, values) = (
            OffsetBuffer::from_lengths(lengths),
            take(list.values(), &kept, None)?,
        );
        return Ok(ListArray::try_new(
            Arc::clone(field),
            offsets,
            values,
            list.nulls().cloned(),
        )?);
    }
    if whole {
        return Ok(list.clone());
    }
    let values = list.values().slice(first as usize, (last - first) as usize);
    let shifted: Vec<i32> = offsets.iter().map(|o| o - first).collect();
    Ok(ListArray::try_new(
        Arc::clone(field),
        OffsetBuffer::new(shifted.into()),
        values,
        list.nulls().cloned(),
    )?)
}

/// The elements at positions that `place` finds for an index and a length.
pub(super) fn at_position(
    list: &ListArray,
    index: &ArrayRef,
    place: impl Fn(i32, usize) -> Run<Option<usize>>,
) -> Run<ArrayRef> {
    let index = index.as_primitive::<Int32Type>();
    let picked = (0..list.len()).map(|row| {
        if list.is_null(row) || index.is_null(row) {
            return Ok(None);
        }
        let start = list.value_offsets()[row] as usize;
        let length = list.value_offsets()[row + 1] as usize - start;
        Ok(place(index.value(row), length)?.map(|at| (start + at) as u32))
    });
    let picked = picked.collect::<Run<UInt32Array>>()?;
    Ok(take(list.values(), &picked, None)?)
}

/// The types of a map's keys and values.
pub(crate) fn map_types(data_type: &DataType) -> Option<(DataType, DataType)> {
    match data_type {
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(kv) if kv.len() == 2 => {
                Some((kv[0].data_type().clone(), kv[1].data_type().clone()))
            }
            _ => None,
        },
        _ => None,
    }
}

/// A map's value for a key, null if it has none.
pub(super) fn map_value(map: Typed, key: Typed) -> Result<Typed> {
    let Some((key_type, value_type)) = map_types(&map.data_type) else {
        return Err(no_fields(&map, "[]"));
    };
    let key = coerce::argument("[]", 1, key, &key_type)?;
    Ok(Kernel::over_arrays(
        "map_value",
        "",
        vec![map, key],
        value_type,
        Can::NotFail,
        |args, _| {
            let (map, keys) = (args[0].as_map(), &args[1]);
            let order = arrow::array::make_comparator(map.keys(), keys, Default::default())?;
            let picked = (0..map.len()).map(|row| {
                if map.is_null(row) || keys.is_null(row) {
                    return None;
                }
                let range =
                    map.value_offsets()[row] as usize..map.value_offsets()[row + 1] as usize;
                range
                    .into_iter()
                    .find(|&i| order(i, row).is_eq())
                    .map(|i| i as u32)
            });
            let picked: UInt32Array = picked.collect();
            Ok(take(map.values(), &picked, None)?)
        },
    ))
}

/// A struct of values under these names.
pub(crate) fn make_struct(names: Vec<String>, values: Vec<Typed>) -> Typed {
    let fields: Fields = names
        .iter()
        .zip(&values)
        .map(|(n, v)| Arc::new(Field::new(n, v.data_type.clone(), true)))
        .collect();
    let returns = DataType::Struct(fields.clone());
    Kernel::over_arrays(
        "struct",
        "",
        values,
        returns,
        Can::NotFail,
        move |args, rows| {
            let made = StructArray::try_new_with_length(fields.clone(), args.to_vec(), None, rows)?;
            Ok(Arc::new(made))
        },
    )
}

/// Arrays side by side as one array of structs, padded with nulls.
pub(crate) fn arrays_zip(names: Vec<String>, values: Vec<Typed>) -> Result<Typed> {
    let mut fields = vec![];
    for (nth, (name, value)) in names.iter().zip(&values).enumerate() {
        let DataType::List(element) = &value.data_type else {
            return Err(coerce::unexpected("arrays_zip", nth, value, "ARRAY"));
        };
        fields.push(Arc::new(Field::new(
            name,
            element.data_type().clone(),
            true,
        )));
    }
    let fields = Fields::from(fields);
    let returns = list_of(DataType::Struct(fields.clone()));
    Ok(Kernel::over_arrays(
        "arrays_zip",
        "",
        values,
        returns,
        Can::NotFail,
        move |args, rows| {
            let lists: Vec<&ListArray> = args.iter().map(|a| a.as_list()).collect();
            let mut offsets = vec![0i32];
            let mut picked: Vec<Vec<Option<u32>>> = vec![vec![]; lists.len()];
            let mut valid = vec![];
            for row in 0..rows {
                let known = lists.iter().all(|l| l.is_valid(row));
                valid.push(known);
                let longest = if known {
                    lists.iter().map(|l| l.value_length(row)).max().unwrap_or(0)
                } else {
                    0
                };
                for (list, picked) in lists.iter().zip(&mut picked) {
                    let start = list.value_offsets()[row];
                    picked.extend(
                        (0..longest)
                            .map(|i| (i < list.value_length(row)).then_some((start + i) as u32)),
                    );
                }
                offsets.push(offsets[row] + longest);
            }
            let columns = lists
                .iter()
                .zip(picked)
                .map(|(l, p)| take(l.values(), &UInt32Array::from(p), None));
            let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
            let length = offsets.last().copied().unwrap_or(0) as usize;
            let structs = StructArray::try_new_with_length(fields.clone(), columns, None, length)?;
            let field = Arc::new(Field::new_list_field(structs.data_type().clone(), true));
            let nulls = Some(NullBuffer::from(valid));
            Ok(Arc::new(ListArray::try_new(
                field,
                OffsetBuffer::new(offsets.into()),
                Arc::new(structs),
                nulls,
            )?))
        },
    ))
}

/// An array of values of one type.
pub(crate) fn make_array(values: Vec<Typed>) -> Result<Typed> {
    let (values, element) = coerce::same_type("array", values)?;
    let returns = list_of(element.clone());
    let width = values.len();
    Ok(Kernel::over_arrays(
        "array",
        "",
        values,
        returns,
        Can::NotFail,
        move |args, rows| {
            let field = Arc::new(Field::new_list_field(element.clone(), true));
            let offsets = OffsetBuffer::from_repeated_length(width, rows);
            if width == 0 {
                let none = new_null_array(&element, 0);
                return Ok(Arc::new(ListArray::try_new(field, offsets, none, None)?));
            }
            let arrays: Vec<&dyn Array> = args.iter().map(|a| a.as_ref()).collect();
            let order: Vec<(usize, usize)> = (0..rows)
                .flat_map(|row| (0..width).map(move |i| (i, row)))
                .collect();
            let values = arrow::compute::interleave(&arrays, &order)?;
            Ok(Arc::new(ListArray::try_new(field, offsets, values, None)?))
        },
    ))
}

/// The functions of this family.
pub(super) fn build(name: &str, args: &Args) -> Result<Option<Typed>> {
    Ok(Some(match name {
        "array" => make_array(args.at_least(0)?)?,
        "named_struct" => {
            let values = args.at_least(2)?;
            let mut names = vec![];
            let mut fields = vec![];
            for (i, value) in values.into_iter().enumerate() {
                if i % 2 == 1 {
                    fields.push(value);
                    continue;
                }
                match value.constant_text() {
                    Some(name) => names.push(name.to_string()),
                    None => return Err(coerce::unexpected(name, i, &value, "STRING")),
                }
            }
            if names.len() != fields.len() {
                return Err(args.wrong_number("2n (n > 0)"));
            }
            make_struct(names, fields)
        }
        "element_at" | "try_element_at" => {
            let [value, at] = args.exactly()?;
            let DataType::List(element) = &value.data_type else {
                return map_value(value, at).map(Some);
            };
            let element = element.data_type().clone();
            let at = coerce::argument(name, 1, at, &DataType::Int32)?;
            let attempt = name.starts_with("try");
            let can = if attempt { Can::NotFail } else { Can::Fail };
            Kernel::over_arrays(name, "", vec![value, at], element, can, move |args, _| {
                at_position(args[0].as_list(), &args[1], |at, length| {
                    let size = length as i64;
                    let place = match i64::from(at) {
                        0 => {
                            return Err(RunError::raise(
                                "INVALID_INDEX_OF_ZERO",
                                "The index 0 is invalid. An index shall be either < 0 or > 0 (the first element has index 1).",
                            ));
                        }
                        at if at > 0 => at - 1,
                        at => size + at,
                    };
                    match (0..size).contains(&place) {
                        true => Ok(Some(place as usize)),
                        false if attempt => Ok(None),
                        false => Err(RunError::raise(
                            "INVALID_ARRAY_INDEX_IN_ELEMENT_AT",
                            format!(
                                "The index {at} is out of bounds. The array has {length} elements."
                            ),
                        )),
                    }
                })
            })
        }
        "get" => {
            let [value, at] = args.exactly()?;
            let DataType::List(element) = &value.data_type else {
                return Err(coerce::unexpected(name, 0, &value, "ARRAY"));
            };
            let element = element.data_type().clone();
            let at = coerce::argument(name, 1, at, &DataType::Int32)?;
            Kernel::over_arrays(
                name,
                "",
                vec![value, at],
                element,
                Can::NotFail,
                |args, _| {
                    let within =
                        |at, length| Ok(usize::try_from(at).ok().filter(|at| *at < length));
                    at_position(args[0].as_list(), &args[1], within)
                },
            )
        }
        "size" | "cardinality" | "array_size" => {
            let value = args.one()?;
            if value.data_type == DataType::Null {
                return Ok(Some(Typed::null(&DataType::Int32)));
            }
            if !matches!(value.data_type, DataType::List(_) | DataType::Map(..)) {
                return Err(coerce::unexpected(
                    name,
                    0,
                    &value,
                    "(\"ARRAY\" or \"MAP\")",
                ));
            }
            Kernel::over_arrays(
                name,
                "",
                vec![value],
                DataType::Int32,
                Can::NotFail,
                |args, rows| {
                    let (offsets, nulls) = match args[0].as_list_opt::<i32>() {
                        Some(list) => (list.value_offsets(), list.nulls()),
                        None => (args[0].as_map().value_offsets(), args[0].nulls()),
                    };
                    let sizes = (0..rows).map(|row| {
                        nulls
                            .is_none_or(|n| n.is_valid(row))
                            .then(|| offsets[row + 1] - offsets[row])
                    });
                    Ok(Arc::new(sizes.collect::<arrow::array::Int32Array>()))
                },
            )
        }
        _ => return Ok(None),
    }))
}
