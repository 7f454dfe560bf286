//! `sequence`: numbers, days or moments from one to another.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Int64Array, ListArray, TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Date32Type, Field, Int64Type, TimestampMicrosecondType};
use datafusion::common::DataFusionError;

use super::cast::parse::{Zone, session_zone};
use super::interval::{Step, is_interval, plus};
use super::kernel::{Can, Kernel, Result as Run, Typed};
use super::{Args, cast};
use crate::coerce;
use crate::error::{QueryError, RunError};
use crate::types::{TIMESTAMP_NTZ, list_of, type_sql};
use highwater_text::calendar::DAY;

type Result<T> = std::result::Result<T, QueryError>;

/// `sequence(start, stop)` and `sequence(start, stop, step)`.
pub(super) fn build(args: &Args) -> Result<Typed> {
    let values = args.at_least(2)?;
    if values.len() > 3 {
        return Err(args.wrong_number("[2, 3]"));
    }
    let by_interval = values.len() == 3 && is_interval(&values[2].data_type);
    let alike = if by_interval {
        &values[..2]
    } else {
        &values[..]
    };
    let Some(wider) = coerce::wider_of_all(alike.iter().map(|v| &v.data_type)) else {
        return Err(wrong_types(&values));
    };
    if coerce::is_integral(&wider) && !by_interval {
        return integers(values, wider);
    }
    if coerce::is_time(&wider) && (values.len() == 2 || by_interval) {
        return moments(values, wider);
    }
    Err(wrong_types(&values))
}

fn wrong_types(values: &[Typed]) -> QueryError {
    let types: Vec<String> = values
        .iter()
        .map(|v| format!("\"{}\"", type_sql(&v.data_type)))
        .collect();
    let message = format!(
        "Cannot resolve \"sequence\" due to data type mismatch: `sequence` uses the wrong parameter type: start and stop must be of one type, integers or times, and the step an integer or an interval, but they are {}.",
        types.join(", ")
    );
    QueryError::mismatch("SEQUENCE_WRONG_INPUT_TYPES", message)
}

fn illegal(
    start: impl std::fmt::Display,
    stop: impl std::fmt::Display,
    step: impl std::fmt::Display,
) -> DataFusionError {
    let message = format!("Illegal sequence boundaries: {start} to {stop} by {step}");
    RunError::raise("_LEGACY_ERROR_TEMP_3243", message)
}

/// How many elements a sequence has by steps of one length, if there are not too many after `before` others.
fn count(start: i128, stop: i128, step: i128, before: usize) -> Run<i128> {
    if step == 0 && start != stop || step > 0 && start > stop || step < 0 && start < stop {
        return Err(illegal(start, stop, step));
    }
    let count = match step {
        0 => 1,
        step => (stop - start) / step + 1,
    };
    if count > i128::from(i32::MAX - 15) || before as i128 + count > i128::from(i32::MAX) {
        let message = format!(
            "Can't create array with {count} elements which exceeding the array size limit."
        );
        return Err(RunError::raise(
            "COLLECTION_SIZE_LIMIT_EXCEEDED.PARAMETER",
            message,
        ));
    }
    Ok(count)
}

fn integers(values: Vec<Typed>, data_type: DataType) -> Result<Typed> {
    let bounds = values
        .into_iter()
        .map(|v| cast::implicit(cast::implicit(v, &data_type)?, &DataType::Int64))
        .collect::<Result<Vec<_>>>()?;
    let made = Kernel::over_arrays(
        "sequence",
        "",
        bounds,
        list_of(DataType::Int64),
        Can::Fail,
        |args, rows| {
            let part = |nth: usize, row: usize| args[nth].as_primitive::<Int64Type>().value(row);
            let (mut elements, mut offsets, mut known) = (vec![], vec![0i32], vec![]);
            for row in 0..rows {
                known.push(args.iter().all(|a| a.is_valid(row)));
                if known[row] {
                    let (start, stop) = (i128::from(part(0, row)), i128::from(part(1, row)));
                    let step = match args.len() {
                        3 => i128::from(part(2, row)),
                        _ if start <= stop => 1,
                        _ => -1,
                    };
                    let count = count(start, stop, step, elements.len())?;
                    elements.extend((0..count).map(|i| (start + i * step) as i64));
                }
                offsets.push(elements.len() as i32);
            }
            lists(Arc::new(Int64Array::from(elements)), offsets, known)
        },
    );
    cast::implicit(made, &list_of(data_type))
}

fn lists(values: ArrayRef, offsets: Vec<i32>, known: Vec<bool>) -> Run<ArrayRef> {
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let offsets = OffsetBuffer::new(offsets.into());
    Ok(Arc::new(ListArray::try_new(
        field,
        offsets,
        values,
        Some(known.into()),
    )?))
}

fn moments(mut values: Vec<Typed>, data_type: DataType) -> Result<Typed> {
    let step = (values.len() == 3).then(|| Step::of(&values[2]));
    for value in &mut values[..2] {
        *value = cast::implicit(value.clone(), &data_type)?;
    }
    let zone = match data_type == TIMESTAMP_NTZ {
        true => Zone::Fixed(0),
        false => session_zone(),
    };
    let dates = data_type == DataType::Date32;
    let returns = list_of(data_type.clone());
    Ok(Kernel::over_arrays(
        "sequence",
        zone.suffix(),
        values,
        returns,
        Can::Fail,
        move |args, rows| {
            // Days in the zone's midnights, so that a step of days and hours goes by its clocks.
            let bound = |nth: usize, row: usize| match dates {
                true => i64::from(args[nth].as_primitive::<Date32Type>().value(row)),
                false => args[nth]
                    .as_primitive::<TimestampMicrosecondType>()
                    .value(row),
            };
            let (mut elements, mut offsets, mut known) = (vec![], vec![0i32], vec![]);
            for row in 0..rows {
                known.push(args.iter().all(|a| a.is_valid(row)));
                if known[row] {
                    let (start, stop) = (bound(0, row), bound(1, row));
                    let step = match &step {
                        Some(step) => step.parts(&args[2], row),
                        None if start <= stop => (0, 1, 0),
                        None => (0, -1, 0),
                    };
                    between(start, stop, step, dates, zone, &mut elements)?;
                }
                offsets.push(elements.len() as i32);
            }
            let values: ArrayRef = match dates {
                true => {
                    let days = elements.into_iter().map(|d| d as i32);
                    Arc::new(Date32Array::from_iter_values(days))
                }
                false => {
                    let moments = TimestampMicrosecondArray::from(elements);
                    Arc::new(moments.with_data_type(data_type.clone()))
                }
            };
            lists(values, offsets, known)
        },
    ))
}

/// The days or moments from `start` to `stop`, each the start and so many steps: months do not drift.
fn between(
    start: i64,
    stop: i64,
    (months, days, micros): (i64, i64, i64),
    dates: bool,
    zone: Zone,
    out: &mut Vec<i64>,
) -> Run<()> {
    if dates && months == 0 && days == 0 {
        let message = "sequence step must be an interval of day granularity if start and end values are dates";
        return Err(RunError::raise("IllegalArgumentException", message));
    }
    let even = match dates {
        true => (months == 0 && micros == 0).then_some(days),
        false => (months == 0 && days == 0).then_some(micros),
    };
    if let Some(step) = even {
        let (start, stop, step) = (i128::from(start), i128::from(stop), i128::from(step));
        let count = count(start, stop, step, out.len())?;
        out.extend((0..count).map(|i| (start + i * step) as i64));
        return Ok(());
    }
    let midnight = |day: i64| match dates {
        true => zone.to_utc(day.saturating_mul(DAY)),
        false => day,
    };
    let (start, stop) = (midnight(start), midnight(stop));
    // Only how many at most, and whether the step leads to the end at all.
    let month = 28 * i128::from(DAY);
    let length =
        i128::from(micros) + i128::from(months) * month + i128::from(days) * i128::from(DAY);
    count(start.into(), stop.into(), length, out.len())?;
    let mut moment = start;
    for nth in 1.. {
        if length > 0 && moment > stop || length < 0 && moment < stop || length == 0 && nth > 1 {
            break;
        }
        out.push(match dates {
            true => zone.to_local(moment).div_euclid(DAY),
            false => moment,
        });
        let next = plus(
            start,
            nth * months,
            nth * days,
            nth.saturating_mul(micros),
            zone,
        );
        moment = next
            .ok_or_else(|| RunError::raise("DATETIME_OVERFLOW", "Datetime operation overflow."))?;
    }
    Ok(())
}
