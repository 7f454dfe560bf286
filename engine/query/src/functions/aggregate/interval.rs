//! Sums and averages of intervals: those of their microseconds, or of their months.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, PrimitiveArray};
use arrow::datatypes::{
    DataType, DurationMicrosecondType, DurationSecondType, Int64Type, IntervalYearMonthType,
};

use super::Call;
use crate::error::{QueryError, RunError};
use crate::functions::cast;
use crate::functions::kernel::{Can, Kernel, Result, Typed};
use crate::types::{DAY_TIME, DAYS, YEAR_MONTH};

/// Whether intervals of this type can be added up: those that mix months and days cannot.
pub(super) fn is_summed(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Duration(_)) || *data_type == YEAR_MONTH
}

impl Call<'_> {
    pub(super) fn of_intervals(
        &self,
        value: Typed,
        average: bool,
    ) -> std::result::Result<Typed, QueryError> {
        let returns = match value.data_type.clone() {
            DataType::Duration(_) if average => DAY_TIME,
            returns => returns,
        };
        let attempt = self.name.starts_with("try_");
        let units = units(value);
        let sum = if attempt { "try_sum" } else { "sum" };
        let sum = self.named(sum, vec![units.clone()], DataType::Int64)?;
        if !average {
            return Ok(interval("interval_sum", vec![sum], returns, attempt));
        }
        let count = self.named("count", vec![units], DataType::Int64)?;
        Ok(interval(
            "interval_average",
            vec![sum, count],
            returns,
            attempt,
        ))
    }
}

/// The microseconds or months of an interval.
fn units(value: Typed) -> Typed {
    Kernel::over_arrays(
        "interval_units",
        "",
        vec![value],
        DataType::Int64,
        Can::NotFail,
        |args, _| {
            let units: Int64Array = match args[0].data_type() {
                t if *t == YEAR_MONTH => {
                    let months = args[0].as_primitive::<IntervalYearMonthType>().iter();
                    months.map(|months| months.map(i64::from)).collect()
                }
                t if *t == DAYS => {
                    let seconds = args[0].as_primitive::<DurationSecondType>().iter();
                    seconds
                        .map(|s| s.map(|s| s.wrapping_mul(1_000_000)))
                        .collect()
                }
                _ => args[0]
                    .as_primitive::<DurationMicrosecondType>()
                    .reinterpret_cast(),
            };
            Ok(Arc::new(units))
        },
    )
}

/// The interval of so many units; or, with a count beside them, of as many for each, rounded half away from zero.
fn interval(name: &str, args: Vec<Typed>, returns: DataType, attempt: bool) -> Typed {
    let (params, can) = match attempt {
        true => ("try", Can::NotFail),
        false => ("", Can::Fail),
    };
    let target = returns.clone();
    Kernel::over_arrays(name, params, args, returns, can, move |args, rows| {
        let sums = args[0].as_primitive::<Int64Type>();
        let counts = args.get(1).map(|counts| counts.as_primitive::<Int64Type>());
        let units = |row: usize| match counts {
            _ if sums.is_null(row) => None,
            None => Some(sums.value(row)),
            Some(counts) => {
                let (sum, count) = (sums.value(row).into(), counts.value(row).into());
                i64::try_from(cast::divide_half_up(sum, count)).ok()
            }
        };
        if target == DAY_TIME {
            let spans: PrimitiveArray<DurationMicrosecondType> = (0..rows).map(units).collect();
            return Ok(Arc::new(spans) as ArrayRef);
        }
        if target == DAYS {
            let days = (0..rows).map(|row| units(row).map(|micros| micros / 1_000_000));
            let days: PrimitiveArray<DurationSecondType> = days.collect();
            return Ok(Arc::new(days));
        }
        let months = (0..rows).map(|row| match units(row).map(i32::try_from) {
            None => Ok(None),
            Some(Ok(months)) => Ok(Some(months)),
            Some(Err(_)) if attempt => Ok(None),
            Some(Err(_)) => Err(RunError::raise(
                "INTERVAL_ARITHMETIC_OVERFLOW.WITHOUT_SUGGESTION",
                "Integer overflow while operating with intervals.",
            )),
        });
        let months = months.collect::<Result<PrimitiveArray<IntervalYearMonthType>>>()?;
        Ok(Arc::new(months))
    })
}
