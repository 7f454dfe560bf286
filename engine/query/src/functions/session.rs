//! The session that a row alone would make: from its time until the gap has passed.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, DurationMicrosecondType, IntervalMonthDayNano, IntervalMonthDayNanoType, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::Expr as DfExpr;

use super::cast::parse::{Zone, session_zone};
use super::interval;
use super::kernel::{Can, Kernel, Result as Run, Typed};
use super::text;
use super::window::{self, DAY};
use super::written::duration;
use crate::error::QueryError;
use crate::sql::parse_interval;
use crate::types::{TIMESTAMP_NTZ, type_sql};

type Micros = TimestampMicrosecondType;

/// The name of the function.
pub(crate) const SESSION: &str = "session window of row";

/// The session of a row with this time and this gap: null without a time, or where the gap is not positive.
pub(crate) fn session(time: Typed, gap: Typed) -> Result<Typed, QueryError> {
    let returns = window::struct_type(&time.data_type);
    let fixed = gap.constant_text().is_some() || gap.constant().is_some();
    let zone = match time.data_type == TIMESTAMP_NTZ {
        true => Zone::Fixed(0),
        false => session_zone(),
    };
    if fixed && window::interval(&gap)?.is_some() {
        let fixed = Gap::fixed(&gap)?.in_zone(zone);
        let made = returns.clone();
        return Ok(Kernel::over_arrays(
            SESSION,
            fixed.label(zone),
            vec![time],
            returns,
            Can::NotFail,
            move |args, _| sessions(&args[0], zone, |_| Some(fixed), &made),
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
        zone.suffix(),
        vec![time, gap],
        returns,
        Can::Fail,
        move |args, rows| {
            let gaps = gaps(&args[1], rows)?;
            sessions(&args[0], zone, |row| gaps[row], &made)
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
    zone: Zone,
    gap: impl Fn(usize) -> Option<Gap>,
    data_type: &DataType,
) -> Run<ArrayRef> {
    let starts = times.as_primitive::<Micros>();
    let end = |row: usize| {
        let gap = gap(row).filter(|_| starts.is_valid(row))?;
        let start = starts.value(row);
        Some(gap.after(start, zone)).filter(|end| *end > start)
    };
    let ends: PrimitiveArray<Micros> = (0..starts.len()).map(end).collect();
    let ends = ends.with_data_type(times.data_type().clone());
    let nulls = ends.nulls().cloned();
    structs(Arc::clone(times), Arc::new(ends), nulls, data_type)
}

/// A gap: so many months, then days on the wall clock, then microseconds.
#[derive(Debug, Clone, Copy)]
struct Gap {
    months: i64,
    days: i64,
    micros: i64,
}

impl Gap {
    fn of_micros(micros: i64) -> Self {
        let (months, days) = (0, 0);
        Gap {
            months,
            days,
            micros,
        }
    }

    fn of_interval(interval: IntervalMonthDayNano) -> Self {
        Gap {
            months: interval.months.into(),
            days: interval.days.into(),
            micros: interval.nanoseconds / 1_000,
        }
    }

    fn of_text(text: &str) -> Option<Self> {
        let (months, days, micros) = parse_interval(text).ok()?;
        Some(Gap {
            months: months.into(),
            days: days.into(),
            micros,
        })
    }

    /// A constant that is an interval.
    fn fixed(gap: &Typed) -> Result<Self, QueryError> {
        let known = match (gap.constant_text(), gap.constant()) {
            (Some(text), _) => Gap::of_text(text),
            (_, Some(ScalarValue::IntervalMonthDayNano(Some(interval)))) => {
                Some(Gap::of_interval(*interval))
            }
            _ => window::interval(gap)?
                .filter(|(months, _)| *months == 0)
                .map(|(_, micros)| Gap::of_micros(micros)),
        };
        known.ok_or_else(|| QueryError::unsupported(OF_MONTHS))
    }

    /// Days are as long as each other where the clock is never changed.
    fn in_zone(self, zone: Zone) -> Self {
        match zone {
            Zone::Fixed(_) => Gap {
                days: 0,
                micros: self.micros.saturating_add(self.days.saturating_mul(DAY)),
                ..self
            },
            _ => self,
        }
    }

    fn after(self, start: i64, zone: Zone) -> i64 {
        interval::plus(start, self.months, self.days, self.micros, zone).unwrap_or(i64::MAX)
    }

    fn label(self, zone: Zone) -> String {
        match (self.months, self.days) {
            (0, 0) => self.micros.to_string(),
            (months, days) => format!(
                "{months} months {days} days {} {}",
                self.micros,
                zone.suffix()
            ),
        }
    }
}

/// A gap in words, of its label.
pub(super) fn gap_words(label: &str) -> String {
    let parts = label.split(' ').filter_map(|part| part.parse().ok());
    match parts.take(3).collect::<Vec<i64>>().as_slice() {
        [months, days, micros] => text::calendar_interval(*months as i32, *days as i32, *micros),
        [micros] => duration(*micros),
        _ => label.to_string(),
    }
}

const OF_MONTHS: &str = "a session gap of the type INTERVAL YEAR TO MONTH";

/// The gap of each row, if it has one.
fn gaps(gaps: &ArrayRef, rows: usize) -> Run<Vec<Option<Gap>>> {
    let valid = |row: usize| gaps.is_valid(row);
    Ok(match gaps.data_type() {
        DataType::Null => vec![None; rows],
        DataType::Duration(_) => {
            let gaps = gaps.as_primitive::<DurationMicrosecondType>();
            (0..rows)
                .map(|row| valid(row).then(|| Gap::of_micros(gaps.value(row))))
                .collect()
        }
        DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano) => {
            let gaps = gaps.as_primitive::<IntervalMonthDayNanoType>();
            (0..rows)
                .map(|row| valid(row).then(|| Gap::of_interval(gaps.value(row))))
                .collect()
        }
        DataType::Interval(_) => {
            return Err(DataFusionError::NotImplemented(OF_MONTHS.into()));
        }
        _ => {
            let texts = arrow::compute::cast(gaps, &DataType::Utf8)?;
            let texts = texts.as_string::<i32>();
            // A query knows a handful of gaps. What says no interval is a null one, as where text is cast.
            let mut known: HashMap<&str, Option<Gap>> = HashMap::new();
            let mut gap = |text| *known.entry(text).or_insert_with(|| Gap::of_text(text));
            texts.iter().map(|text| gap(text?)).collect()
        }
    })
}
