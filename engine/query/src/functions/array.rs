//! Arrays.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Int64Array, ListArray, StringArray, UInt32Array,
    make_comparator,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{SortOptions, concat, take};
use arrow::datatypes::{DataType, Field, Int32Type};
use datafusion::common::ScalarValue;

use super::kernel::{Can, Kernel, Result as Run, Typed};
use super::{Args, cast, compare};
use crate::coerce;
use crate::error::{QueryError, RunError};
use crate::types::list_of;

type Result<T> = std::result::Result<T, QueryError>;

/// The argument as an array, and the type of its elements.
fn array(name: &str, nth: usize, value: Typed) -> Result<(Typed, DataType)> {
    match value.data_type.clone() {
        DataType::List(element) => Ok((value, element.data_type().clone())),
        DataType::Null => Ok((Typed::null(&list_of(DataType::Null)), DataType::Null)),
        _ => Err(coerce::unexpected(name, nth, &value, "ARRAY")),
    }
}

/// An array and a value, both of the wider type of element and value.
fn with_element(name: &str, list: Typed, value: Typed) -> Result<(Typed, Typed, DataType)> {
    let (list, element) = array(name, 0, list)?;
    if value.data_type == DataType::Null
        && name != "array_append"
        && name != "array_prepend"
        && name != "array_insert"
    {
        let message = format!(
            "Cannot resolve \"{name}\" due to data type mismatch: Null typed values cannot be used as arguments of `{name}`."
        );
        return Err(QueryError::mismatch("NULL_TYPE", message));
    }
    let Some(wider) = coerce::wider(&element, &value.data_type) else {
        let message = format!(
            "Cannot resolve \"{name}\" due to data type mismatch: the array's elements and the value differ in type."
        );
        return Err(QueryError::mismatch("ARRAY_FUNCTION_DIFF_TYPES", message));
    };
    Ok((
        cast::implicit(list, &list_of(wider.clone()))?,
        cast::implicit(value, &wider)?,
        wider,
    ))
}

/// Two arrays of one type.
fn pair(name: &str, args: &Args) -> Result<(Typed, Typed, DataType)> {
    let [left, right] = args.exactly()?;
    let ((left, l), (right, r)) = (array(name, 0, left)?, array(name, 1, right)?);
    let Some(wider) = coerce::wider(&l, &r) else {
        let message = format!(
            "Cannot resolve \"{name}\" due to data type mismatch: the arrays differ in type."
        );
        return Err(QueryError::mismatch("BINARY_ARRAY_DIFF_TYPES", message));
    };
    let to = list_of(wider.clone());
    Ok((
        cast::implicit(left, &to)?,
        cast::implicit(right, &to)?,
        wider,
    ))
}

/// Elements of floating point are compared with -0.0 as 0.0; the arrays that hold such pairs are not told apart here.
fn plain(name: &str, element: &DataType) -> Result<()> {
    compare::orderable(name, &Typed::null(element))?;
    if compare::needs_normalizing(element) {
        return Err(QueryError::unsupported(format!(
            "{name} of floating-point elements"
        )));
    }
    Ok(())
}

fn range(list: &ListArray, row: usize) -> std::ops::Range<usize> {
    list.value_offsets()[row] as usize..list.value_offsets()[row + 1] as usize
}

/// Lists of elements picked from `values`, row by row; `None` is a null row, `Some(None)` a null element.
struct Picked {
    indices: Vec<Option<u32>>,
    offsets: Vec<i32>,
    known: Vec<bool>,
}

impl Picked {
    fn new() -> Self {
        Picked {
            indices: vec![],
            offsets: vec![0],
            known: vec![],
        }
    }

    fn row(&mut self, picked: Option<Vec<Option<usize>>>) {
        self.known.push(picked.is_some());
        self.indices.extend(
            picked
                .unwrap_or_default()
                .into_iter()
                .map(|i| i.map(|i| i as u32)),
        );
        self.offsets.push(self.indices.len() as i32);
    }

    fn finish(self, values: &ArrayRef) -> Run<ArrayRef> {
        let values = take(values, &UInt32Array::from(self.indices), None)?;
        let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        let nulls = NullBuffer::from(self.known);
        Ok(Arc::new(ListArray::try_new(
            field,
            OffsetBuffer::new(self.offsets.into()),
            values,
            Some(nulls),
        )?))
    }
}

/// A list function whose result is picked from the list's own elements.
fn pick(
    name: &str,
    params: &str,
    args: Vec<Typed>,
    can: Can,
    f: impl Fn(&ListArray, &[ArrayRef], usize) -> Run<Vec<Option<usize>>> + Send + Sync + 'static,
) -> Typed {
    let returns = args[0].data_type.clone();
    Kernel::over_arrays(name, params, args, returns, can, move |args, rows| {
        let list = args[0].as_list::<i32>();
        let mut picked = Picked::new();
        for row in 0..rows {
            let known = args.iter().all(|a| a.is_valid(row));
            picked.row(if known {
                Some(f(list, args, row)?)
            } else {
                None
            });
        }
        picked.finish(list.values())
    })
}

fn kept(indices: impl Iterator<Item = usize>) -> Vec<Option<usize>> {
    indices.map(Some).collect()
}

/// The elements of the left lists for which `keep` holds, each once.
fn set_operation(name: &'static str, args: &Args, in_right: bool) -> Result<Typed> {
    let (left, right, element) = pair(name, args)?;
    plain(name, &element)?;
    let returns = left.data_type.clone();
    Ok(Kernel::over_arrays(
        name,
        "",
        vec![left, right],
        returns,
        Can::NotFail,
        move |args, rows| {
            let (l, r) = (args[0].as_list::<i32>(), args[1].as_list::<i32>());
            let among = equality(l.values(), r.values())?;
            let within = equality(l.values(), l.values())?;
            let mut picked = Picked::new();
            for row in 0..rows {
                if l.is_null(row) || r.is_null(row) {
                    picked.row(None);
                    continue;
                }
                let mut found: Vec<usize> = vec![];
                for i in range(l, row) {
                    if range(r, row).any(|j| among(i, j)) == in_right
                        && !found.iter().any(|&j| within(i, j))
                    {
                        found.push(i);
                    }
                }
                picked.row(Some(kept(found.into_iter())));
            }
            picked.finish(l.values())
        },
    ))
}

/// Whether elements are equal, two nulls being so.
fn equality(left: &ArrayRef, right: &ArrayRef) -> Run<impl Fn(usize, usize) -> bool> {
    let order = make_comparator(
        left,
        right,
        SortOptions {
            descending: false,
            nulls_first: true,
        },
    )?;
    let (left, right) = (left.logical_nulls(), right.logical_nulls());
    Ok(move |i: usize, j: usize| {
        let known =
            |nulls: &Option<NullBuffer>, i: usize| nulls.as_ref().is_none_or(|n| n.is_valid(i));
        match (known(&left, i), known(&right, j)) {
            (true, true) => order(i, j).is_eq(),
            (l, r) => l == r,
        }
    })
}

fn sorted(name: &str, list: Typed, ascending: bool, nulls_first: bool) -> Result<Typed> {
    let (list, element) = array(name, 0, list)?;
    compare::orderable(name, &Typed::null(&element))?;
    let label = format!("{ascending} {nulls_first}");
    Ok(pick(
        "sort_array",
        &label,
        vec![list],
        Can::NotFail,
        move |list, _, row| {
            let values = list.values();
            let order = make_comparator(
                values,
                values,
                SortOptions {
                    descending: false,
                    nulls_first: true,
                },
            )?;
            let mut indices: Vec<usize> = range(list, row).collect();
            indices.sort_by(|&i, &j| match (values.is_null(i), values.is_null(j)) {
                (true, true) => Ordering::Equal,
                (true, false) if nulls_first => Ordering::Less,
                (true, false) => Ordering::Greater,
                (false, true) if nulls_first => Ordering::Greater,
                (false, true) => Ordering::Less,
                _ if ascending => order(i, j),
                _ => order(j, i),
            });
            Ok(kept(indices.into_iter()))
        },
    ))
}

/// The list's elements and a value at a place that `place` finds; beyond the end, nulls come between.
fn inserted(
    name: &'static str,
    args: Vec<Typed>,
    can: Can,
    place: impl Fn(&[ArrayRef], usize, usize) -> Run<Option<i64>> + Send + Sync + 'static,
) -> Typed {
    let returns = args[0].data_type.clone();
    Kernel::over_arrays(name, "", args, returns, can, move |args, rows| {
        let list = args[0].as_list::<i32>();
        let both = concat(&[list.values(), &args[1]])?;
        let first = list.values().len();
        let mut picked = Picked::new();
        for row in 0..rows {
            let place = match list.is_null(row) {
                true => None,
                false => place(args, row, range(list, row).len())?,
            };
            let Some(place) = place else {
                picked.row(None);
                continue;
            };
            let mut elements = kept(range(list, row));
            match usize::try_from(place) {
                Ok(place) => {
                    while elements.len() < place {
                        elements.push(None);
                    }
                    elements.insert(place, Some(first + row));
                }
                // Before the start: the value, nulls, then the elements.
                Err(_) => {
                    let mut padded = vec![Some(first + row)];
                    padded.extend((0..-place - 1).map(|_| None));
                    padded.extend(elements);
                    elements = padded;
                }
            }
            picked.row(Some(elements));
        }
        picked.finish(&both)
    })
}

/// The least or greatest element that is not null.
fn extreme(name: &'static str, value: Typed) -> Result<Typed> {
    let (list, element) = array(name, 0, value)?;
    compare::orderable(name, &Typed::null(&element))?;
    let greatest = name == "array_max";
    Ok(Kernel::over_arrays(
        name,
        "",
        vec![list],
        element,
        Can::NotFail,
        move |args, rows| {
            let list = args[0].as_list::<i32>();
            let values = list.values();
            let order = make_comparator(values, values, SortOptions::default())?;
            let picked = (0..rows).map(|row| {
                if list.is_null(row) {
                    return None;
                }
                let known = range(list, row).filter(|&i| values.is_valid(i));
                let better = |a: usize, b: usize| {
                    if greatest {
                        order(b, a).is_gt()
                    } else {
                        order(b, a).is_lt()
                    }
                };
                known
                    .reduce(|a, b| if better(a, b) { b } else { a })
                    .map(|i| i as u32)
            });
            Ok(take(values, &picked.collect::<UInt32Array>(), None)?)
        },
    ))
}

fn search(name: &'static str, args: &Args) -> Result<Typed> {
    let [list, value] = args.exactly()?;
    let (list, value, element) = with_element(name, list, value)?;
    compare::orderable(name, &Typed::null(&element))?;
    if compare::needs_normalizing(&element) {
        return Err(QueryError::unsupported(format!(
            "{name} of floating-point elements"
        )));
    }
    let args = vec![list, value];
    if name == "array_remove" {
        return Ok(pick(name, "", args, Can::NotFail, |list, args, row| {
            let same = equality(list.values(), &args[1])?;
            Ok(kept(range(list, row).filter(|&i| !same(i, row))))
        }));
    }
    let contains = name == "array_contains";
    let returns = if contains {
        DataType::Boolean
    } else {
        DataType::Int64
    };
    Ok(Kernel::over_arrays(
        name,
        "",
        args,
        returns,
        Can::NotFail,
        move |args, rows| {
            let list = args[0].as_list::<i32>();
            let same = equality(list.values(), &args[1])?;
            let (mut found, mut positions) = (BooleanBuilder::new(), Int64Array::builder(rows));
            for row in 0..rows {
                if list.is_null(row) || args[1].is_null(row) {
                    found.append_null();
                    positions.append_null();
                    continue;
                }
                let at = range(list, row).position(|i| same(i, row));
                positions.append_value(at.map_or(0, |at| at as i64 + 1));
                match at {
                    Some(_) => found.append_value(true),
                    None if range(list, row).any(|i| list.values().is_null(i)) => {
                        found.append_null()
                    }
                    None => found.append_value(false),
                }
            }
            Ok(if contains {
                Arc::new(found.finish()) as ArrayRef
            } else {
                Arc::new(positions.finish())
            })
        },
    ))
}

/// The functions of this family.
pub(super) fn build(name: &str, args: &Args) -> Result<Option<Typed>> {
    let boolean = |value: &Typed, nth: usize| match value.constant() {
        Some(ScalarValue::Boolean(Some(value))) => Ok(*value),
        _ => Err(coerce::unexpected(name, nth, value, "BOOLEAN")),
    };
    Ok(Some(match name {
        "array_contains" => search("array_contains", args)?,
        "array_position" => search("array_position", args)?,
        "array_remove" => search("array_remove", args)?,
        "array_append" => {
            let [list, value] = args.exactly()?;
            let (list, value, _) = with_element(name, list, value)?;
            inserted(
                "array_append",
                vec![list, value],
                Can::NotFail,
                |_, _, length| Ok(Some(length as i64)),
            )
        }
        "array_prepend" => {
            let [list, value] = args.exactly()?;
            let (list, value, _) = with_element(name, list, value)?;
            inserted(
                "array_prepend",
                vec![list, value],
                Can::NotFail,
                |_, _, _| Ok(Some(0)),
            )
        }
        "array_insert" => {
            let [list, at, value] = args.exactly()?;
            let (list, value, _) = with_element(name, list, value)?;
            let at = coerce::argument(name, 1, at, &DataType::Int32)?;
            inserted(
                "array_insert",
                vec![list, value, at],
                Can::Fail,
                |args, row, length| {
                    if args[2].is_null(row) {
                        return Ok(None);
                    }
                    let place = match i64::from(args[2].as_primitive::<Int32Type>().value(row)) {
                        0 => {
                            return Err(RunError::raise(
                                "INVALID_INDEX_OF_ZERO",
                                "The index 0 is invalid. An index shall be either < 0 or > 0 (the first element has index 1).",
                            ));
                        }
                        at if at > 0 => at - 1,
                        at => length as i64 + at + 1,
                    };
                    if place.unsigned_abs() > 2_000_000 {
                        return Err(RunError::raise(
                            "COLLECTION_SIZE_LIMIT_EXCEEDED.FUNCTION",
                            "array_insert makes too long an array",
                        ));
                    }
                    Ok(Some(place))
                },
            )
        }
        "array_intersect" => set_operation("array_intersect", args, true)?,
        "array_except" => set_operation("array_except", args, false)?,
        "array_union" => {
            let (left, right, _) = pair(name, args)?;
            let both = super::scalar("concat", vec![left, right], args.conf)?;
            let both = both.ok_or_else(|| super::unknown(name))?;
            super::scalar("array_distinct", vec![both], args.conf)?
                .ok_or_else(|| super::unknown(name))?
        }
        "array_distinct" => {
            let (list, element) = array(name, 0, args.one()?)?;
            plain(name, &element)?;
            pick(name, "", vec![list], Can::NotFail, |list, _, row| {
                let same = equality(list.values(), list.values())?;
                let mut found: Vec<usize> = vec![];
                for i in range(list, row) {
                    if !found.iter().any(|&j| same(i, j)) {
                        found.push(i);
                    }
                }
                Ok(kept(found.into_iter()))
            })
        }
        "arrays_overlap" => {
            let (left, right, element) = pair(name, args)?;
            plain(name, &element)?;
            Kernel::over_arrays(
                name,
                "",
                vec![left, right],
                DataType::Boolean,
                Can::NotFail,
                |args, rows| {
                    let (l, r) = (args[0].as_list::<i32>(), args[1].as_list::<i32>());
                    let same = equality(l.values(), r.values())?;
                    let mut out = BooleanBuilder::new();
                    for row in 0..rows {
                        if l.is_null(row) || r.is_null(row) {
                            out.append_null();
                            continue;
                        }
                        let known = |i: &usize| l.values().is_valid(*i);
                        let common = range(l, row)
                            .filter(known)
                            .any(|i| range(r, row).any(|j| same(i, j)));
                        let empty = range(l, row).is_empty() || range(r, row).is_empty();
                        let nulls = range(l, row).any(|i| l.values().is_null(i))
                            || range(r, row).any(|j| r.values().is_null(j));
                        match common || empty || !nulls {
                            true => out.append_value(common),
                            false => out.append_null(),
                        }
                    }
                    Ok(Arc::new(out.finish()))
                },
            )
        }
        "array_compact" => {
            let (list, _) = array(name, 0, args.one()?)?;
            pick(name, "", vec![list], Can::NotFail, |list, _, row| {
                Ok(kept(
                    range(list, row).filter(|&i| list.values().is_valid(i)),
                ))
            })
        }
        "array_repeat" => {
            let [value, times] = args.exactly()?;
            let times = coerce::argument(name, 1, times, &DataType::Int32)?;
            let returns = list_of(value.data_type.clone());
            Kernel::over_arrays(
                name,
                "",
                vec![value, times],
                returns,
                Can::Fail,
                |args, rows| {
                    let times = args[1].as_primitive::<Int32Type>();
                    let mut picked = Picked::new();
                    for row in 0..rows {
                        let count = usize::try_from(times.value(row)).unwrap_or(0);
                        if times.is_valid(row) && picked.indices.len() + count > i32::MAX as usize {
                            return Err(RunError::raise(
                                "COLLECTION_SIZE_LIMIT_EXCEEDED.PARAMETER",
                                "array_repeat makes too long an array",
                            ));
                        }
                        picked.row(times.is_valid(row).then(|| vec![Some(row); count]));
                    }
                    picked.finish(&args[0])
                },
            )
        }
        "array_min" => extreme("array_min", args.one()?)?,
        "array_max" => extreme("array_max", args.one()?)?,
        "array_join" => {
            let mut values = args.at_least(2)?;
            if values.len() > 3 {
                return Err(args.wrong_number("[2, 3]"));
            }
            values[0] = coerce::argument(name, 0, values[0].clone(), &list_of(DataType::Utf8))?;
            for (i, value) in values.iter_mut().enumerate().skip(1) {
                *value = coerce::argument(name, i, value.clone(), &DataType::Utf8)?;
            }
            Kernel::over_arrays(
                name,
                "",
                values,
                DataType::Utf8,
                Can::NotFail,
                |args, rows| {
                    let list = args[0].as_list::<i32>();
                    let texts = list.values().as_string::<i32>();
                    let joined = (0..rows).map(|row| {
                        if args.iter().any(|a| a.is_null(row)) {
                            return None;
                        }
                        let null = args.get(2).map(|a| a.as_string::<i32>().value(row));
                        let parts = range(list, row).filter_map(|i| {
                            if texts.is_valid(i) {
                                Some(texts.value(i))
                            } else {
                                null
                            }
                        });
                        Some(
                            parts
                                .collect::<Vec<_>>()
                                .join(args[1].as_string::<i32>().value(row)),
                        )
                    });
                    Ok(Arc::new(joined.collect::<StringArray>()))
                },
            )
        }
        "sort_array" => {
            let mut values = args.at_least(1)?.into_iter();
            let (Some(list), ascending, None) = (values.next(), values.next(), values.next())
            else {
                return Err(args.wrong_number("[1, 2]"));
            };
            let ascending = ascending
                .map(|a| boolean(&a, 1))
                .transpose()?
                .unwrap_or(true);
            sorted(name, list, ascending, ascending)?
        }
        "array_sort" => {
            let list = args.one()?;
            if list.data_type == DataType::Null {
                return Err(coerce::unexpected(name, 0, &list, "ARRAY"));
            }
            sorted(name, list, true, false)?
        }
        "reverse" => {
            let (list, _) = array(name, 0, args.one()?)?;
            pick(
                "reverse_array",
                "",
                vec![list],
                Can::NotFail,
                |list, _, row| Ok(kept(range(list, row).rev())),
            )
        }
        "slice" => {
            let [list, start, length] = args.exactly()?;
            let (list, _) = array(name, 0, list)?;
            let start = coerce::argument(name, 1, start, &DataType::Int32)?;
            let length = coerce::argument(name, 2, length, &DataType::Int32)?;
            pick(
                name,
                "",
                vec![list, start, length],
                Can::Fail,
                |list, args, row| {
                    let int =
                        |nth: usize| i64::from(args[nth].as_primitive::<Int32Type>().value(row));
                    let (start, length, all) = (int(1), int(2), range(list, row));
                    if start == 0 {
                        return Err(RunError::raise(
                            "INVALID_PARAMETER_VALUE.START",
                            "The value of parameter(s) `start` in `slice` is invalid: Expects a positive or a negative value for `start`, but got 0.",
                        ));
                    }
                    if length < 0 {
                        return Err(RunError::raise(
                            "INVALID_PARAMETER_VALUE.LENGTH",
                            format!(
                                "The value of parameter(s) `length` in `slice` is invalid: Expects `length` greater than or equal to 0, but got {length}."
                            ),
                        ));
                    }
                    let size = all.len() as i64;
                    let from = if start > 0 { start - 1 } else { size + start };
                    if !(0..size).contains(&from) {
                        return Ok(vec![]);
                    }
                    let to = (from + length).min(size);
                    Ok(kept(all.start + from as usize..all.start + to as usize))
                },
            )
        }
        "flatten" => {
            let value = args.one()?;
            let inner = match &value.data_type {
                DataType::List(element) => match element.data_type() {
                    inner @ DataType::List(_) => inner.clone(),
                    _ => return Err(coerce::unexpected(name, 0, &value, "ARRAY of ARRAY")),
                },
                _ => return Err(coerce::unexpected(name, 0, &value, "ARRAY of ARRAY")),
            };
            Kernel::over_arrays(name, "", vec![value], inner, Can::NotFail, |args, rows| {
                let outer = args[0].as_list::<i32>();
                let inner = outer.values().as_list::<i32>();
                let mut picked = Picked::new();
                for row in 0..rows {
                    let known = outer.is_valid(row) && range(outer, row).all(|i| inner.is_valid(i));
                    picked
                        .row(known.then(|| kept(range(outer, row).flat_map(|i| range(inner, i)))));
                }
                picked.finish(inner.values())
            })
        }
        "sequence" => super::sequence::build(args)?,
        _ => return Ok(None),
    }))
}
