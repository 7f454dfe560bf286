//! Windows of time: which of them a moment belongs to.
//!
//! A window is known by its end. `window(..)` itself is no function of one row: the resolver makes a column of it, see
//! [`crate::TimeWindow`].

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, PrimitiveArray, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Int32Type, TimestampMicrosecondType};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr as DfExpr;
use datafusion::logical_expr::expr::ScalarFunction;

use super::Args;
use super::kernel::{Can, Kernel, Result as Run, Typed};
use super::nested::struct_field;
use super::session::SESSION;
use crate::coerce::{self, is_timestamp};
use crate::error::QueryError;
use crate::nodes::{Form, Grid};
use crate::sql::parse_interval;
use crate::types::{list_of, timestamp};

type Result<T> = std::result::Result<T, QueryError>;
type Micros = TimestampMicrosecondType;

/// Microseconds in a day.
pub(crate) const DAY: i64 = 86_400_000_000;
/// In a delay, a month has 31 days.
const MONTH: i64 = 31 * DAY;
/// The name of the function that tells a window by its end.
const OF_END: &str = "window of end";
const TIME: &str = "window_time";
const IN_GROUPINGS: &str = "time in groupings";

pub(super) fn build(name: &str, args: &Args<'_>) -> Result<Option<Typed>> {
    match name {
        "window_time" => {
            let window = args.one()?;
            if !is_window(&window.data_type) {
                return Err(coerce::unexpected("window_time", 0, &window, "STRUCT"));
            }
            Ok(Some(time_of(window)))
        }
        _ => Ok(None),
    }
}

/// Whether values of this type are windows: structs of a start and an end.
pub(crate) fn is_window(data_type: &DataType) -> bool {
    let DataType::Struct(fields) = data_type else {
        return false;
    };
    matches!(fields.as_ref(), [start, end]
        if start.name() == "start" && end.name() == "end" && is_timestamp(end.data_type()))
}

/// The type of windows over times of this type.
pub(crate) fn struct_type(time: &DataType) -> DataType {
    let field = |name: &str| Field::new(name, time.clone(), true);
    DataType::Struct(Fields::from(vec![field("start"), field("end")]))
}

/// The last microsecond in a window.
pub(crate) fn time_of(window: Typed) -> Typed {
    let returns = match &window.data_type {
        DataType::Struct(fields) => fields[1].data_type().clone(),
        _ => timestamp(),
    };
    Kernel::over_arrays(TIME, "", vec![window], returns, Can::NotFail, |args, _| {
        let end = struct_field(args[0].as_struct(), 1)?;
        let last = |end: i64| end.saturating_sub(1);
        Ok(mapped(&end, last))
    })
}

/// The end of the window that each time is in, where windows do not overlap.
pub(crate) fn end(time: Typed, grid: Grid) -> Typed {
    let returns = time.data_type.clone();
    let params = params(grid);
    Kernel::over_arrays(
        "window end",
        params,
        vec![time],
        returns,
        Can::NotFail,
        move |args, _| Ok(mapped(&args[0], |time| grid.last_end(time))),
    )
}

/// The window of `width_us` with this end.
pub(crate) fn of_end(end: Typed, width_us: i64) -> Typed {
    let returns = struct_type(&end.data_type);
    let params = width_us.to_string();
    Kernel::over_arrays(
        OF_END,
        params,
        vec![end],
        returns.clone(),
        Can::NotFail,
        move |args, _| structs(&args[0], width_us, &returns),
    )
}

/// The windows that each time is in, the first one first.
pub(crate) fn all(time: Typed, grid: Grid, form: Form) -> Typed {
    let ends_type = time.data_type.clone();
    let element = match form {
        Form::Struct => struct_type(&ends_type),
        Form::End | Form::Pane(_) => ends_type.clone(),
    };
    let returns = list_of(element.clone());
    let params = params(grid);
    Kernel::over_arrays(
        "windows",
        params,
        vec![time],
        returns.clone(),
        Can::NotFail,
        move |args, rows| {
            let times = args[0].as_primitive::<Micros>();
            let mut ends: Vec<i64> = Vec::new();
            let mut lengths = Vec::with_capacity(rows);
            for row in 0..rows {
                let before = ends.len();
                if times.is_valid(row) {
                    let time = times.value(row);
                    let mut end = grid.last_end(time);
                    while end > time {
                        ends.push(end);
                        end = end.saturating_sub(grid.slide_us);
                    }
                    ends[before..].reverse();
                }
                lengths.push(ends.len() - before);
            }
            let ends: ArrayRef =
                Arc::new(PrimitiveArray::<Micros>::from(ends).with_data_type(ends_type.clone()));
            let values = match form {
                Form::End | Form::Pane(_) => ends,
                Form::Struct => structs(&ends, grid.width_us, &element)?,
            };
            let DataType::List(field) = &returns else {
                return Ok(values);
            };
            let offsets = OffsetBuffer::from_lengths(lengths);
            let nulls = times.nulls().cloned();
            let field = Arc::clone(field);
            Ok(Arc::new(ListArray::try_new(field, offsets, values, nulls)?))
        },
    )
}

/// The ends of the windows that have a pane with this end, the first one first.
pub(crate) fn of_pane(end: Typed, windows: Grid) -> Typed {
    let returns = end.data_type.clone();
    // A window that has one moment of a pane has all of them.
    let moment = Kernel::over_arrays(
        "moment of pane",
        "",
        vec![end],
        returns,
        Can::NotFail,
        |args, _| Ok(mapped(&args[0], |end| end.saturating_sub(1))),
    );
    all(moment, windows, Form::End)
}

/// The width of the windows that a call of [`of_end`] makes.
pub(crate) fn width_of(expr: &DfExpr) -> Option<i64> {
    match expr {
        DfExpr::Alias(alias) => width_of(&alias.expr),
        DfExpr::ScalarFunction(call) if call.func.name() == OF_END => {
            let kernel = call.func.inner().downcast_ref::<Kernel>()?;
            kernel.params().parse().ok()
        }
        _ => None,
    }
}

/// Whether a call gives the event time of its argument, in another form.
pub(crate) fn keeps_event_time(call: &ScalarFunction) -> bool {
    [OF_END, TIME, SESSION, IN_GROUPINGS].contains(&call.func.name())
}

/// An event time or window in the groupings that have it, NULL in the others: `has_it` says which do, `number` which one
/// a row is for.
pub(crate) fn in_groupings(time: Typed, number: Typed, has_it: Vec<bool>) -> Typed {
    let (params, returns) = (format!("{has_it:?}"), time.data_type.clone());
    let args = vec![time, number];
    Kernel::over_arrays(
        IN_GROUPINGS,
        params,
        args,
        returns,
        Can::NotFail,
        move |args, _| {
            let numbers = args[1].as_primitive::<Int32Type>().iter();
            let lacks_it = numbers.map(|number| {
                let has_it = number.and_then(|number| has_it.get(usize::try_from(number).ok()?));
                Some(!has_it.copied().unwrap_or_default())
            });
            let lacks_it: BooleanArray = lacks_it.collect();
            Ok(arrow::compute::nullif(&args[0], &lacks_it)?)
        },
    )
}

fn params(grid: Grid) -> String {
    format!("{}, {}, {}", grid.width_us, grid.slide_us, grid.start_us)
}

fn mapped(times: &ArrayRef, map: impl Fn(i64) -> i64) -> ArrayRef {
    let mapped = times.as_primitive::<Micros>().unary::<_, Micros>(map);
    Arc::new(mapped.with_data_type(times.data_type().clone()))
}

fn structs(ends: &ArrayRef, width_us: i64, data_type: &DataType) -> Run<ArrayRef> {
    let DataType::Struct(fields) = data_type else {
        return Ok(Arc::clone(ends));
    };
    let starts = mapped(ends, |end| end.saturating_sub(width_us));
    let columns = vec![starts, Arc::clone(ends)];
    Ok(Arc::new(StructArray::try_new(
        fields.clone(),
        columns,
        ends.nulls().cloned(),
    )?))
}

/// The grid that the arguments of `window` after the first one, `time`, say.
pub(crate) fn grid(time: &str, durations: &[Typed]) -> Result<Grid> {
    let [width, rest @ ..] = durations else {
        return Err(wrong_number(durations.len()));
    };
    if rest.len() > 2 {
        return Err(wrong_number(durations.len()));
    }
    let width_us = duration(width)?;
    let slide_us = rest.first().map_or(Ok(width_us), duration)?;
    let start_us = rest.get(1).map_or(Ok(0), duration)?;
    let grid = Grid {
        width_us,
        slide_us,
        start_us,
    };
    let refused = |kind: &str, what: String| {
        let call = grid.call(time);
        let message = format!("Cannot resolve \"{call}\" due to data type mismatch: {what}.");
        Err(QueryError::mismatch(kind, message))
    };
    let positive = |what: &str, value: i64| {
        let range = "(0, 9223372036854775807]";
        let what = format!("The {what} must be between {range} (current value = {value}L)");
        refused("VALUE_OUT_OF_RANGE", what)
    };
    let constraint = |less: &str, is: i64, than: &str, bound: i64| {
        let what = format!("The {less}({is}L) must be {than}({bound}L)");
        refused("PARAMETER_CONSTRAINT_VIOLATION", what)
    };
    if width_us <= 0 {
        return positive("`window_duration`", width_us);
    }
    if slide_us <= 0 {
        return positive("`slide_duration`", slide_us);
    }
    if slide_us > width_us {
        let than = "<= the `window_duration`";
        return constraint("`slide_duration`", slide_us, than, width_us);
    }
    let from_zero = start_us.saturating_abs();
    if from_zero >= slide_us {
        let than = "< the `slide_duration`";
        return constraint("`abs(start_time)`", from_zero, than, slide_us);
    }
    Ok(grid)
}

fn wrong_number(found: usize) -> QueryError {
    let message = format!(
        "The `window` requires [2, 3, 4] parameters but the actual number is {}.",
        found + 1
    );
    QueryError::new("WRONG_NUM_ARGS.WITHOUT_SUGGESTION", message)
}

/// A constant duration without months, in microseconds.
fn duration(value: &Typed) -> Result<i64> {
    match interval(value)? {
        Some((0, micros)) => Ok(micros),
        Some(_) => Err(QueryError::new(
            "_LEGACY_ERROR_TEMP_3231",
            format!(
                "Intervals greater than a month is not supported ({}).",
                value.constant_text().unwrap_or("months")
            ),
        )),
        None => Err(QueryError::new(
            "_LEGACY_ERROR_TEMP_1207",
            "The duration and time inputs to window must be an integer, long or string literal.",
        )),
    }
}

/// The delay that a constant says, in milliseconds; a month has 31 days.
pub(crate) fn delay_ms(value: &Typed) -> Result<i64> {
    let Some((months, micros)) = interval(value)? else {
        return Err(QueryError::unsupported(
            "a watermark delay that is not a constant interval",
        ));
    };
    let months = i64::from(months).saturating_mul(MONTH);
    let delay = months.saturating_add(micros).div_euclid(1_000);
    if delay < 0 {
        // As the model writes it: in the largest unit that it is a whole number of.
        let units = [("DAY", 86_400_000), ("HOUR", 3_600_000), ("MINUTE", 60_000)];
        let whole = units.into_iter().find(|(_, unit_ms)| delay % unit_ms == 0);
        let (unit, unit_ms) = whole.unwrap_or(("SECOND", 1_000));
        let (count, width) = (-delay / unit_ms, if unit == "DAY" { 1 } else { 2 });
        let written = match value.constant_text() {
            Some(text) => text.to_string(),
            None => format!("INTERVAL '-{count:0width$}' {unit}"),
        };
        return Err(QueryError::new(
            "IllegalArgumentException",
            format!("requirement failed: delay threshold ({written}) should not be negative."),
        ));
    }
    Ok(delay)
}

/// Months and microseconds of a constant, if it is one that says an interval.
pub(crate) fn interval(value: &Typed) -> Result<Option<(i32, i64)>> {
    if let Some(text) = value.constant_text() {
        let invalid = || {
            let message = format!(
                "Unable to parse '{text}'. Please ensure that the value provided is in a valid format for defining an interval. You can reference the documentation for the correct format."
            );
            QueryError::new("CANNOT_PARSE_INTERVAL", message)
        };
        let (months, days, micros) = parse_interval(text).map_err(|_| invalid())?;
        let days = i64::from(days).checked_mul(DAY);
        let micros = days.and_then(|days| days.checked_add(micros));
        return Ok(Some((months, micros.ok_or_else(invalid)?)));
    }
    Ok(match value.constant() {
        Some(ScalarValue::Int32(Some(micros))) => Some((0, i64::from(*micros))),
        Some(ScalarValue::Int64(Some(micros)) | ScalarValue::DurationMicrosecond(Some(micros))) => {
            Some((0, *micros))
        }
        Some(ScalarValue::IntervalYearMonth(Some(months))) => Some((*months, 0)),
        Some(ScalarValue::IntervalMonthDayNano(Some(interval))) => {
            let days = i64::from(interval.days).saturating_mul(DAY);
            let micros = days.saturating_add(interval.nanoseconds / 1_000);
            Some((interval.months, micros))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends, in the order of windows, of those that `time` is in.
    fn ends(width_us: i64, slide_us: i64, start_us: i64, time: i64) -> Vec<i64> {
        let grid = Grid {
            width_us,
            slide_us,
            start_us,
        };
        let time = Typed::literal(ScalarValue::TimestampMicrosecond(Some(time), None));
        let list = all(time, grid, Form::End);
        let schema = datafusion::common::DFSchema::empty();
        let (props, context) = (Default::default(), Default::default());
        let made =
            datafusion::physical_expr::create_physical_expr(&list.expr, &schema, &props, &context)
                .unwrap();
        let rows = arrow::record_batch::RecordBatch::new_empty(Arc::new(
            arrow::datatypes::Schema::empty(),
        ));
        let list = made.evaluate(&rows).unwrap().into_array(1).unwrap();
        let list = list.as_list::<i32>().value(0);
        list.as_primitive::<Micros>().values().to_vec()
    }

    #[test]
    fn a_moment_on_the_boundary_is_in_the_later_window() {
        assert_eq!(ends(10, 10, 0, 0), [10]);
        assert_eq!(ends(10, 10, 0, 9), [10]);
        assert_eq!(ends(10, 10, 0, 10), [20]);
        assert_eq!(ends(10, 10, 0, -1), [0]);
    }

    #[test]
    fn a_start_moves_the_grid() {
        assert_eq!(ends(10, 10, 3, 2), [3]);
        assert_eq!(ends(10, 10, 3, 3), [13]);
        assert_eq!(ends(10, 10, -2, 8), [18]);
    }

    #[test]
    fn sliding_windows_overlap() {
        assert_eq!(ends(10, 5, 0, 7), [10, 15]);
        assert_eq!(ends(10, 4, 0, 8), [10, 14, 18]);
        assert_eq!(ends(10, 4, 0, 11), [14, 18]);
        assert_eq!(ends(10, 5, 1, 0), [1, 6]);
    }
}
