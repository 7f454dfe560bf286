//! `array_sort` by a function of two elements, and `map_zip_with`.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, ListArray, MapArray, UInt32Array, make_comparator,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{SortOptions, concat, take};
use arrow::datatypes::{DataType, Field, Int32Type};

use super::kernel::{Can, Kernel, Result as Run, Typed};
use super::lambda::{Body, ResolveBody, list_argument, parents};
use super::map::assemble;
use super::nested::{compact, map_types};
use super::{cast, compare};
use crate::coerce;
use crate::error::{QueryError, RunError};
use crate::expr::Expr;
use crate::types::map_of;

type Result<T> = std::result::Result<T, QueryError>;

/// `array_sort(array, (left, right) -> ...)`: stable, in the order that the function says.
///
/// A merge sort in which each element looks for its place in the other run by halves, so that one evaluation of the
/// body serves one step of all elements of all lists.
pub(super) fn sorted_by(
    value: Typed,
    lambda: (&[String], &Expr),
    resolve: &ResolveBody<'_>,
) -> Result<Typed> {
    let element = list_argument("array_sort", &value)?;
    let body = Body::new(lambda, &[element.clone(), element], resolve)?;
    if body.data_type != DataType::Int32 {
        let message = "Cannot resolve \"array_sort\" due to data type mismatch: The `lambda function` requires return \"INT\" type";
        return Err(QueryError::mismatch("UNEXPECTED_RETURN_TYPE", message));
    }
    let returns = value.data_type.clone();
    let args = std::iter::once(value)
        .chain(body.captured.clone())
        .collect();
    Ok(Kernel::over_arrays(
        "array_sort",
        body.text.clone(),
        args,
        returns,
        Can::Fail,
        move |args, _| {
            let list = compact(args[0].as_list())?;
            let values = list.values();
            let rows = parents(list.value_offsets());
            let order = sort(list.value_offsets(), |pairs| {
                let side = |f: fn(&(u32, u32)) -> u32| -> UInt32Array {
                    pairs.iter().map(f).collect::<Vec<u32>>().into()
                };
                let (left, right) = (side(|p| p.0), side(|p| p.1));
                let params = vec![take(values, &left, None)?, take(values, &right, None)?];
                let of_pairs = take(&rows, &left, None)?;
                let verdicts = body.run(params, &args[1..], of_pairs.as_primitive())?;
                if verdicts.null_count() > 0 {
                    return Err(RunError::raise(
                        "COMPARATOR_RETURNS_NULL",
                        "The comparator has returned a NULL for a comparison between two elements. It should return a positive integer for \"greater than\", 0 for \"equal\" and a negative integer for \"less than\".",
                    ));
                }
                Ok(verdicts.as_primitive::<Int32Type>().clone())
            })?;
            let field = Arc::new(Field::new_list_field(list.value_type(), true));
            Ok(Arc::new(ListArray::try_new(
                field,
                list.offsets().clone(),
                take(values, &UInt32Array::from(order), None)?,
                list.nulls().cloned(),
            )?))
        },
    ))
}

/// An element on its way into the merged run.
struct Seeker {
    element: u32,
    from_left: bool,
    /// Its place in its own run, and where in the other run its place may still be.
    own: usize,
    other: std::ops::Range<usize>,
    /// Where the other run and the merged one start.
    run: usize,
    target: usize,
}

/// The elements of each list in order; `compare` says of pairs, the later element first, how the one is to the other.
fn sort(offsets: &[i32], compare: impl Fn(&[(u32, u32)]) -> Run<Int32Array>) -> Run<Vec<u32>> {
    let (first, last) = (offsets[0] as u32, offsets[offsets.len() - 1] as u32);
    let mut order: Vec<u32> = (first..last).collect();
    let longest = offsets.windows(2).map(|two| (two[1] - two[0]) as usize);
    let longest = longest.max().unwrap_or(0);
    let mut width = 1;
    while width < longest {
        let mut seekers = vec![];
        for two in offsets.windows(2) {
            let (mut start, end) = (two[0] as usize, two[1] as usize);
            while start + width < end {
                let (middle, stop) = (start + width, (start + 2 * width).min(end));
                let runs = [(start..middle, middle..stop), (middle..stop, start..middle)];
                for (nth, (own, other)) in runs.into_iter().enumerate() {
                    seekers.extend(own.clone().map(|at| Seeker {
                        element: order[at],
                        from_left: nth == 0,
                        own: at - own.start,
                        other: other.clone(),
                        run: other.start,
                        target: start,
                    }));
                }
                start = stop;
            }
        }
        loop {
            let open = || (0..seekers.len()).filter(|&i| !seekers[i].other.is_empty());
            let middle = |range: &std::ops::Range<usize>| range.start + range.len() / 2;
            let asked: Vec<usize> = open().collect();
            if asked.is_empty() {
                break;
            }
            let pairs: Vec<(u32, u32)> = asked
                .iter()
                .map(|&i| {
                    let (seeker, at) = (&seekers[i], middle(&seekers[i].other));
                    match seeker.from_left {
                        true => (order[at], seeker.element),
                        false => (seeker.element, order[at]),
                    }
                })
                .collect();
            let verdicts = compare(&pairs)?;
            for (&i, verdict) in asked.iter().zip(verdicts.values()) {
                let seeker = &mut seekers[i];
                let at = middle(&seeker.other);
                // Asked as Java asks, so that functions that are never 0 order equal elements as there.
                let right_first = *verdict < 0;
                match right_first == seeker.from_left {
                    true => seeker.other.start = at + 1,
                    false => seeker.other.end = at,
                }
            }
        }
        let mut merged = order.clone();
        let mut taken = vec![false; order.len()];
        for seeker in &seekers {
            let at = seeker.target + seeker.own + seeker.other.start - seeker.run;
            // A function that contradicts itself sends two elements to one place.
            if std::mem::replace(&mut taken[at - first as usize], true) {
                return Err(RunError::raise(
                    "IllegalArgumentException",
                    "Comparison method violates its general contract!",
                ));
            }
            merged[at - first as usize] = seeker.element;
        }
        order = merged;
        width *= 2;
    }
    Ok(order)
}

/// `map_zip_with(left, right, (key, left value, right value) -> ...)`.
pub(super) fn map_zip_with(
    left: Typed,
    right: Typed,
    lambda: (&[String], &Expr),
    resolve: &ResolveBody<'_>,
) -> Result<Typed> {
    let types = |nth: usize, value: &Typed| {
        map_types(&value.data_type)
            .ok_or_else(|| coerce::unexpected("map_zip_with", nth, value, "MAP"))
    };
    let ((lk, lv), (rk, rv)) = (types(0, &left)?, types(1, &right)?);
    let texts = lk == DataType::Utf8 || rk == DataType::Utf8;
    let key = match coerce::wider(&lk, &rk) {
        Some(key) if !texts || lk == rk => key,
        _ => {
            let message = "Cannot resolve \"map_zip_with\" due to data type mismatch: The keys of the two maps differ in type.";
            return Err(QueryError::mismatch("MAP_ZIP_WITH_DIFF_TYPES", message));
        }
    };
    if compare::needs_normalizing(&key) {
        return Err(QueryError::unsupported(
            "map_zip_with of floating-point keys",
        ));
    }
    let body = Body::new(lambda, &[key.clone(), lv.clone(), rv.clone()], resolve)?;
    let left = cast::implicit(left, &map_of(key.clone(), lv))?;
    let right = cast::implicit(right, &map_of(key.clone(), rv))?;
    let returns = map_of(key, body.data_type.clone());
    let args = [left, right]
        .into_iter()
        .chain(body.captured.clone())
        .collect();
    Ok(Kernel::over_arrays(
        "map_zip_with",
        body.text.clone(),
        args,
        returns,
        Can::Fail,
        move |args, rows| {
            let zipped = Zipped::new(args[0].as_map(), args[1].as_map(), rows)?;
            let result = body.run(
                vec![Arc::clone(&zipped.keys), zipped.left, zipped.right],
                &args[2..],
                &parents(&zipped.offsets),
            )?;
            let offsets = OffsetBuffer::new(zipped.offsets.into());
            assemble(zipped.keys, result, offsets, Some(zipped.known))
        },
    ))
}

/// The keys of two maps, those of the left one first, and what each map has for them.
struct Zipped {
    keys: ArrayRef,
    left: ArrayRef,
    right: ArrayRef,
    offsets: Vec<i32>,
    known: NullBuffer,
}

impl Zipped {
    fn new(left: &MapArray, right: &MapArray, rows: usize) -> Run<Zipped> {
        let order = make_comparator(left.keys(), right.keys(), SortOptions::default())?;
        let (mut keys, mut lefts, mut rights) = (vec![], vec![], vec![]);
        let (mut offsets, mut known) = (vec![0i32], vec![]);
        let range = |map: &MapArray, row: usize| {
            map.value_offsets()[row] as usize..map.value_offsets()[row + 1] as usize
        };
        let behind = left.keys().len() as u32;
        for row in 0..rows {
            known.push(left.is_valid(row) && right.is_valid(row));
            if known[row] {
                let mut matched = vec![];
                for l in range(left, row) {
                    let r = range(right, row).find(|&r| order(l, r).is_eq());
                    matched.extend(r);
                    keys.push(l as u32);
                    lefts.push(Some(l as u32));
                    rights.push(r.map(|r| r as u32));
                }
                for r in range(right, row).filter(|r| !matched.contains(r)) {
                    keys.push(behind + r as u32);
                    lefts.push(None);
                    rights.push(Some(r as u32));
                }
            }
            offsets.push(keys.len() as i32);
        }
        let all = concat(&[left.keys(), right.keys()])?;
        Ok(Zipped {
            keys: take(&all, &UInt32Array::from(keys), None)?,
            left: take(left.values(), &UInt32Array::from(lefts), None)?,
            right: take(right.values(), &UInt32Array::from(rights), None)?,
            offsets,
            known: known.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_apart_and_equal_elements_stay_in_order() {
        let values = [3, 11, 2, 12, 1, 5, 4, 10, 31, 21, 7];
        let offsets = [0, 4, 4, 5, 11];
        let tens = |i: u32| values[i as usize] / 10;
        let order = sort(&offsets, |pairs| {
            Ok(pairs
                .iter()
                .map(|(l, r)| Some(tens(*l) - tens(*r)))
                .collect())
        });
        let order = order.expect("nothing fails");
        let sorted: Vec<i32> = order.iter().map(|i| values[*i as usize]).collect();
        assert_eq!(sorted, [3, 2, 11, 12, 1, 5, 4, 7, 10, 21, 31]);
    }

    #[test]
    fn a_function_that_contradicts_itself_is_told() {
        let order = sort(&[0, 8], |pairs| {
            Ok(pairs
                .iter()
                .map(|(l, r)| Some((l * 7 + r * 3) as i32 % 3 - 1))
                .collect())
        });
        assert!(order.is_err_and(|e| e.to_string().contains("contract")));
    }
}
