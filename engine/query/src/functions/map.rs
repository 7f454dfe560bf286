//! Maps.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder, ArrayRef, AsArray, BooleanArray, ListArray, MapArray, StringBuilder,
    StructArray, UInt32Array, make_comparator,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{SortOptions, concat, interleave, take};
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::ScalarValue;

use super::kernel::{Can, Kernel, Result as Run, Typed};
use super::nested::{compact, map_types};
use super::pattern::{Patterns, java};
use super::split::pieces;
use super::{Args, generator};
use crate::coerce;
use crate::error::{QueryError, RunError};
use crate::types::{list_of, map_entry_fields, map_of, type_sql};

type Result<T> = std::result::Result<T, QueryError>;

fn map(name: &str, nth: usize, value: Typed) -> Result<(Typed, DataType, DataType)> {
    match map_types(&value.data_type) {
        Some((k, v)) => Ok((value, k, v)),
        None => Err(coerce::unexpected(name, nth, &value, "MAP")),
    }
}

/// The map with its entries in the order of their keys: then equal maps have the same bytes.
pub(super) fn sorted(map: Typed) -> Typed {
    let data_type = map.data_type.clone();
    let target = data_type.clone();
    let sort = move |args: &[ArrayRef], _: usize| -> Run<ArrayRef> {
        let (map, DataType::Map(field, _)) = (args[0].as_map(), &target) else {
            return Ok(Arc::clone(&args[0]));
        };
        let compare = make_comparator(map.keys(), map.keys(), SortOptions::default())?;
        let (mut order, mut lengths) = (Vec::new(), Vec::with_capacity(map.len()));
        for (row, bounds) in map.value_offsets().windows(2).enumerate() {
            let own = match map.is_null(row) {
                true => 0..0,
                false => bounds[0] as usize..bounds[1] as usize,
            };
            let start = order.len();
            order.extend(own.map(|entry| entry as u32));
            order[start..].sort_by(|a, b| compare(*a as usize, *b as usize));
            lengths.push(order.len() - start);
        }
        let entries = take(map.entries(), &UInt32Array::from(order), None)?;
        Ok(Arc::new(MapArray::try_new(
            Arc::clone(field),
            OffsetBuffer::from_lengths(lengths),
            entries.as_struct().clone(),
            map.nulls().cloned(),
            false,
        )?))
    };
    Kernel::over_arrays("map_sort", "", vec![map], data_type, Can::NotFail, sort)
}

/// A map of keys and values side by side; keys must be known and each stand once.
pub(super) fn assemble(
    keys: ArrayRef,
    values: ArrayRef,
    offsets: OffsetBuffer<i32>,
    nulls: Option<NullBuffer>,
) -> Run<ArrayRef> {
    if keys.null_count() > 0 {
        return Err(RunError::raise(
            "NULL_MAP_KEY",
            "Cannot use null as map key.",
        ));
    }
    let order = make_comparator(&keys, &keys, SortOptions::default())?;
    for row in offsets.windows(2) {
        let mut indices: Vec<usize> = (row[0] as usize..row[1] as usize).collect();
        indices.sort_by(|&i, &j| order(i, j));
        if let Some(twice) = indices.windows(2).find(|two| order(two[0], two[1]).is_eq()) {
            let key = arrow::util::display::array_value_to_string(&keys, twice[0])?;
            let message = format!(
                "Duplicate map key {key} was found, please check the input data. If you want to remove the duplicated keys, you can set \"spark.sql.mapKeyDedupPolicy\" to \"LAST_WIN\" so that the key inserted at last takes precedence."
            );
            return Err(RunError::raise("DUPLICATED_MAP_KEY", message));
        }
    }
    drop(order);
    let fields = map_entry_fields(keys.data_type().clone(), values.data_type().clone());
    let length = keys.len();
    let entries = StructArray::try_new_with_length(fields, vec![keys, values], None, length)?;
    let field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
    Ok(Arc::new(MapArray::try_new(
        field, offsets, entries, nulls, false,
    )?))
}

/// `map(k1, v1, ...)`.
fn make(args: &Args) -> Result<Typed> {
    let values = args.at_least(0)?;
    if values.len() % 2 == 1 {
        return Err(args.wrong_number("2n (n > 0)"));
    }
    let (keys, values): (Vec<_>, Vec<_>) = values
        .chunks(2)
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .unzip();
    let same = |what: &str, kind: &str, values: Vec<Typed>| {
        let types: Vec<String> = values
            .iter()
            .map(|v| format!("\"{}\"", type_sql(&v.data_type)))
            .collect();
        coerce::same_type("map", values).map_err(|_| {
            let message = format!(
                "Cannot resolve \"map\" due to data type mismatch: The given {what} of function `map` should all be the same type, but they are [{}].",
                types.join(", ")
            );
            QueryError::mismatch(kind, message)
        })
    };
    let ((keys, k), (values, v)) = (
        same("keys", "CREATE_MAP_KEY_DIFF_TYPES", keys)?,
        same("values", "CREATE_MAP_VALUE_DIFF_TYPES", values)?,
    );
    let width = keys.len();
    let returns = map_of(k.clone(), v.clone());
    if width == 0 {
        return Ok(Kernel::over_arrays(
            "map",
            "",
            vec![],
            returns,
            Can::NotFail,
            move |_, rows| {
                let none = arrow::array::new_empty_array(&DataType::Null);
                assemble(
                    Arc::clone(&none),
                    none,
                    OffsetBuffer::from_repeated_length(0, rows),
                    None,
                )
            },
        ));
    }
    let args = keys.into_iter().chain(values).collect();
    Ok(Kernel::over_arrays(
        "map",
        "",
        args,
        returns,
        Can::Fail,
        move |args, rows| {
            let order: Vec<(usize, usize)> = (0..rows)
                .flat_map(|row| (0..width).map(move |i| (i, row)))
                .collect();
            let side = |arrays: &[ArrayRef]| {
                let arrays: Vec<&dyn Array> = arrays.iter().map(|a| a.as_ref()).collect();
                interleave(&arrays, &order)
            };
            let (keys, values) = (side(&args[..width])?, side(&args[width..])?);
            assemble(
                keys,
                values,
                OffsetBuffer::from_repeated_length(width, rows),
                None,
            )
        },
    ))
}

fn side(name: &'static str, value: Typed) -> Result<Typed> {
    let (value, k, v) = map(name, 0, value)?;
    let keys = name == "map_keys";
    Ok(Kernel::over_arrays(
        name,
        "",
        vec![value],
        list_of(if keys { k } else { v }),
        Can::NotFail,
        move |args, _| {
            let map = args[0].as_map();
            let values = if keys { map.keys() } else { map.values() };
            let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
            Ok(Arc::new(ListArray::try_new(
                field,
                map.offsets().clone(),
                Arc::clone(values),
                map.nulls().cloned(),
            )?))
        },
    ))
}

/// The entries of all maps.
fn map_concat(args: &Args) -> Result<Typed> {
    let (maps, data_type) = coerce::same_type("map_concat", args.at_least(1)?)?;
    map("map_concat", 0, Typed::null(&data_type))?;
    Ok(Kernel::over_arrays(
        "map_concat",
        "",
        maps,
        data_type,
        Can::Fail,
        |args, rows| {
            let maps: Vec<&MapArray> = args.iter().map(|a| a.as_map()).collect();
            let starts: Vec<usize> = maps
                .iter()
                .scan(0, |at, m| {
                    let start = *at;
                    *at += m.keys().len();
                    Some(start)
                })
                .collect();
            let (mut indices, mut offsets, mut known) = (vec![], vec![0i32], vec![]);
            for row in 0..rows {
                known.push(maps.iter().all(|m| m.is_valid(row)));
                if known[row] {
                    for (map, start) in maps.iter().zip(&starts) {
                        let range = map.value_offsets()[row] as usize
                            ..map.value_offsets()[row + 1] as usize;
                        indices.extend(range.map(|i| (start + i) as u32));
                    }
                }
                offsets.push(indices.len() as i32);
            }
            let indices = UInt32Array::from(indices);
            let all = |side: Vec<&dyn Array>| take(&concat(&side)?, &indices, None);
            let keys = all(maps.iter().map(|m| m.keys().as_ref()).collect())?;
            let values = all(maps.iter().map(|m| m.values().as_ref()).collect())?;
            assemble(
                keys,
                values,
                OffsetBuffer::new(offsets.into()),
                Some(known.into()),
            )
        },
    ))
}

/// Arrays of keys and of values, or one array of pairs.
fn from_lists(name: &str, args: Vec<Typed>, k: DataType, v: DataType) -> Typed {
    Kernel::over_arrays(name, "", args, map_of(k, v), Can::Fail, |args, rows| {
        let known: NullBuffer = (0..rows)
            .map(|row| args.iter().all(|a| a.is_valid(row)))
            .collect::<Vec<_>>()
            .into();
        let masked = |list: &ArrayRef| {
            let data = list
                .to_data()
                .into_builder()
                .nulls(Some(known.clone()))
                .build()?;
            compact(arrow::array::make_array(data).as_list())
        };
        let first = masked(&args[0])?;
        if args.len() == 1 {
            let pairs = first.values().as_struct();
            if pairs.null_count() > 0 {
                return Err(RunError::raise(
                    "NULL_MAP_KEY",
                    "Cannot use null as map key.",
                ));
            }
            let (keys, values) = (Arc::clone(pairs.column(0)), Arc::clone(pairs.column(1)));
            return assemble(keys, values, first.offsets().clone(), Some(known));
        }
        let second = masked(&args[1])?;
        let (k, v) = (first.value_offsets(), second.value_offsets());
        for row in 0..rows {
            // As Spark looks at it: a null key before the lengths of the two.
            let keys = first
                .values()
                .slice(k[row] as usize, (k[row + 1] - k[row]) as usize);
            if k[row + 1] - k[row] != v[row + 1] - v[row] {
                let message = "The key array and value array of MapData must have the same length.";
                return Err(RunError::raise("_LEGACY_ERROR_TEMP_2128", message));
            }
            if keys.null_count() > 0 {
                return Err(RunError::raise(
                    "NULL_MAP_KEY",
                    "Cannot use null as map key.",
                ));
            }
        }
        let (keys, values) = (Arc::clone(first.values()), Arc::clone(second.values()));
        assemble(keys, values, first.offsets().clone(), Some(known))
    })
}

/// `a:1,b:2` as a map; the delimiters are regular expressions.
fn str_to_map(args: &Args) -> Result<Typed> {
    let mut typed = args.typed(&[DataType::Utf8, DataType::Utf8, DataType::Utf8], 1)?;
    for default in &[",", ":"][typed.len() - 1..] {
        typed.push(Typed::literal(ScalarValue::from(*default)));
    }
    let returns = map_of(DataType::Utf8, DataType::Utf8);
    Ok(Kernel::over_arrays(
        "str_to_map",
        "",
        typed,
        returns,
        Can::Fail,
        |args, rows| {
            let text = |nth: usize, row: usize| args[nth].as_string::<i32>().value(row);
            let mut patterns = Patterns::new(|p: &str| java("str_to_map", p));
            let (mut keys, mut values) = (StringBuilder::new(), StringBuilder::new());
            let (mut offsets, mut known) = (vec![0i32], vec![]);
            for row in 0..rows {
                known.push(args.iter().all(|a| a.is_valid(row)));
                if known[row] {
                    let between = patterns.get(text(1, row))?;
                    let within = patterns.get(text(2, row))?;
                    for pair in pieces(text(0, row), &between, -1) {
                        let pair = pieces(&pair, &within, 2);
                        keys.append_value(&pair[0]);
                        values.append_option(pair.get(1));
                    }
                }
                offsets.push(keys.len() as i32);
            }
            let (keys, values): (ArrayRef, ArrayRef) =
                (Arc::new(keys.finish()), Arc::new(values.finish()));
            let offsets = OffsetBuffer::new(offsets.into());
            assemble(keys, values, offsets, Some(known.into()))
        },
    ))
}

/// The functions of this family.
pub(super) fn build(name: &str, args: &Args) -> Result<Option<Typed>> {
    Ok(Some(match name {
        "map" => make(args)?,
        "map_keys" => side("map_keys", args.one()?)?,
        "map_values" => side("map_values", args.one()?)?,
        "map_entries" => {
            let (value, _, _) = map(name, 0, args.one()?)?;
            generator::entries(value)?
        }
        "map_contains_key" => {
            let [value, key] = args.exactly()?;
            let (value, k, _) = map(name, 0, value)?;
            let key = coerce::argument(name, 1, key, &k)?;
            Kernel::over_arrays(
                name,
                "",
                vec![value, key],
                DataType::Boolean,
                Can::NotFail,
                |args, rows| {
                    let map = args[0].as_map();
                    let order = make_comparator(map.keys(), &args[1], SortOptions::default())?;
                    let found = (0..rows).map(|row| {
                        let range = map.value_offsets()[row] as usize
                            ..map.value_offsets()[row + 1] as usize;
                        (map.is_valid(row) && args[1].is_valid(row))
                            .then(|| range.into_iter().any(|i| order(i, row).is_eq()))
                    });
                    Ok(Arc::new(found.collect::<BooleanArray>()))
                },
            )
        }
        "map_concat" => map_concat(args)?,
        "map_from_arrays" => {
            let [keys, values] = args.exactly()?;
            match (keys.data_type.clone(), values.data_type.clone()) {
                (DataType::List(k), DataType::List(v)) => from_lists(
                    name,
                    vec![keys, values],
                    k.data_type().clone(),
                    v.data_type().clone(),
                ),
                _ => return Err(coerce::unexpected(name, 0, &keys, "ARRAY")),
            }
        }
        "map_from_entries" => {
            let value = args.one()?;
            let pair: Option<Fields> = match &value.data_type {
                DataType::List(element) => match element.data_type() {
                    DataType::Struct(fields) if fields.len() == 2 => Some(fields.clone()),
                    _ => None,
                },
                _ => None,
            };
            let Some(pair) = pair else {
                return Err(coerce::unexpected(name, 0, &value, "ARRAY of pair STRUCT"));
            };
            from_lists(
                name,
                vec![value],
                pair[0].data_type().clone(),
                pair[1].data_type().clone(),
            )
        }
        "str_to_map" => str_to_map(args)?,
        _ => return Ok(None),
    }))
}
