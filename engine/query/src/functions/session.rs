//! The session that a row alone would make: from its time until the gap has passed.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, DurationMicrosecondType, IntervalMonthDayNanoType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::logical_expr::Expr as DfExpr;

use super::kernel::{Can, Kernel, Result as Run, Typed};
use super::window::{self, DAY};
use crate::error::QueryError;
use crate::sql::parse_interval;
use crate::types::type_sql;

type Micros = TimestampMicrosecondType;

/// The name of the function.
pub(crate) const SESSION: &str = "session window of row";

/// The session of a row with this time and this gap: null without a time, or where the gap is not positive.
pub(crate) fn session(time: Typed, gap: Typed) -> Result<Typed, QueryError> {
    let returns = window::struct_type(&time.data_type);
    let fixed = gap.constant_text().is_some() || gap.constant().is_some();
    if fixed && let Some((months, gap_us)) = window::interval(&gap)? {
        if months != 0 {
            return Err(QueryError::unsupported("a session gap of months"));
        }
        let name = SESSION.to_string();
        let made = returns.clone();
        return Ok(Kernel::over_arrays(
            name,
            gap_us.to_string(),
            vec![time],
            returns,
            Can::NotFail,
            move |args, _| sessions(&args[0], |_| Some(gap_us), &made),
        ));
    }
    let takes = matches!(
        &gap.data_type,
        DataType::Utf8
            | DataType::Utf8View
            | DataType::Null
            | DataType::Duration(TimeUnit::Microsecond)
            | DataType::Interval(_)
    );
    if !takes {
        // The model names its type by the class that it is.
        let found = match &gap.data_type {
            DataType::Int8 => "ByteType".into(),
            DataType::Int16 => "ShortType".into(),
            DataType::Int32 => "IntegerType".into(),
            DataType::Int64 => "LongType".into(),
            DataType::Float32 => "FloatType".into(),
            DataType::Float64 => "DoubleType".into(),
            DataType::Boolean => "BooleanType".into(),
            DataType::Date32 => "DateType".into(),
            DataType::Timestamp(_, Some(_)) => "TimestampType".into(),
            other => type_sql(other),
        };
        let message = format!(
            "Gap duration expression used in session window must be CalendarIntervalType, but got {found}: write an interval, or text that says one."
        );
        return Err(QueryError::new("_LEGACY_ERROR_TEMP_1040", message));
    }
    let made = returns.clone();
    Ok(Kernel::over_arrays(
        SESSION,
        "",
        vec![time, gap],
        returns,
        Can::Fail,
        move |args, rows| {
            let gaps = gaps(&args[1], rows)?;
            sessions(&args[0], |row| gaps[row], &made)
        },
    ))
}

/// Whether `expr` is the session of a row.
pub(crate) fn is_session(expr: &DfExpr) -> bool {
    matches!(expr, DfExpr::ScalarFunction(call) if call.func.name() == SESSION)
}

/// The struct of a session's start and end.
pub(crate) fn of_bounds(start: Typed, end: Typed, returns: &DataType) -> Typed {
    let made = returns.clone();
    Kernel::over_arrays(
        "session of bounds",
        "",
        vec![start, end],
        returns.clone(),
        Can::NotFail,
        move |args, _| structs(Arc::clone(&args[0]), Arc::clone(&args[1]), None, &made),
    )
}

fn structs(
    start: ArrayRef,
    end: ArrayRef,
    nulls: Option<NullBuffer>,
    data_type: &DataType,
) -> Run<ArrayRef> {
    let DataType::Struct(fields) = data_type else {
        unreachable!("sessions are structs");
    };
    let columns = vec![start, end];
    Ok(Arc::new(StructArray::try_new(
        fields.clone(),
        columns,
        nulls,
    )?))
}

fn sessions(
    times: &ArrayRef,
    gap_us: impl Fn(usize) -> Option<i64>,
    data_type: &DataType,
) -> Run<ArrayRef> {
    let starts = times.as_primitive::<Micros>();
    let end = |row: usize| {
        let gap_us = gap_us(row).filter(|gap_us| *gap_us > 0 && starts.is_valid(row))?;
        Some(starts.value(row).saturating_add(gap_us))
    };
    let ends: PrimitiveArray<Micros> = (0..starts.len()).map(end).collect();
    let ends = ends.with_data_type(times.data_type().clone());
    let nulls = ends.nulls().cloned();
    structs(Arc::clone(times), Arc::new(ends), nulls, data_type)
}

/// The gap of each row in microseconds, if it has one.
fn gaps(gaps: &ArrayRef, rows: usize) -> Run<Vec<Option<i64>>> {
    let valid = |row: usize| gaps.is_valid(row);
    Ok(match gaps.data_type() {
        DataType::Null => vec![None; rows],
        DataType::Duration(_) => {
            let gaps = gaps.as_primitive::<DurationMicrosecondType>();
            (0..rows)
                .map(|row| valid(row).then(|| gaps.value(row)))
                .collect()
        }
        DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano) => {
            let gaps = gaps.as_primitive::<IntervalMonthDayNanoType>();
            let gap = |row: usize| {
                let gap = gaps.value(row);
                let days = i64::from(gap.days).saturating_mul(DAY);
                without_months(gap.months, days.saturating_add(gap.nanoseconds / 1_000))
            };
            let gap = |row| valid(row).then(|| gap(row)).transpose();
            (0..rows).map(gap).collect::<Run<_>>()?
        }
        DataType::Interval(_) => return Err(months()),
        _ => {
            let texts = arrow::compute::cast(gaps, &DataType::Utf8)?;
            let texts = texts.as_string::<i32>();
            // A query knows a handful of gaps.
            let mut known: HashMap<&str, Option<i64>> = HashMap::new();
            let mut found = Vec::with_capacity(rows);
            for text in texts {
                let Some(text) = text else {
                    found.push(None);
                    continue;
                };
                let gap = match known.get(text) {
                    Some(gap) => *gap,
                    None => {
                        // What says no interval is a null one, as where text is cast.
                        let gap = match parse_interval(text) {
                            Ok((months, days, micros)) => {
                                let days = i64::from(days).saturating_mul(DAY);
                                Some(without_months(months, days.saturating_add(micros))?)
                            }
                            Err(_) => None,
                        };
                        known.insert(text, gap);
                        gap
                    }
                };
                found.push(gap);
            }
            found
        }
    })
}

fn without_months(number: i32, gap_us: i64) -> Run<i64> {
    match number {
        0 => Ok(gap_us),
        _ => Err(months()),
    }
}

fn months() -> datafusion::common::DataFusionError {
    datafusion::common::DataFusionError::NotImplemented("a session gap of months".into())
}
