//! What is asked of the sorted values of a group: percentiles and the mode.
//!
//! All questions about the same values are one aggregate, so that these are kept once: its state is their list, which is
//! sorted at the end. Where rows come and go, as in windows that overlap, the values stay sorted instead.

mod aggregate;
mod list;
mod running;
mod sorted;

pub use aggregate::ranks;
pub(crate) use aggregate::{answer, asked, at_once, ranks_of};
pub(crate) use list::rank_of;
pub(super) use list::ranked;

use std::hash::{Hash, Hasher};

use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, ScalarValue};

use crate::error::RunError;
use crate::functions::kernel::Result;
use crate::types::list_of;

/// A question about the known values of a group.
#[derive(Debug, Clone, PartialEq)]
pub enum Rank {
    /// Percentiles of doubles, or of structs of a double and how often it is there.
    Percentiles {
        /// From 0 to 1.
        at: Vec<f64>,
        /// As an array, or just the first.
        array: bool,
        /// Counted from the greatest.
        descending: bool,
        /// Between two of the values, or at one.
        continuous: bool,
    },
    /// The values at percentiles, which are some of their own.
    Values {
        /// From 0 to 1.
        at: Vec<f64>,
        /// As an array, or just the first.
        array: bool,
    },
    /// The value that is there most often; of several the least, or the greatest.
    Mode {
        /// Of several the greatest.
        greatest: bool,
    },
}

impl Eq for Rank {}

impl Hash for Rank {
    fn hash<H: Hasher>(&self, state: &mut H) {
        format!("{self:?}").hash(state);
    }
}

/// Known values in ascending order.
trait Ordered {
    /// How many they are.
    fn count(&self) -> usize;
    /// The value at a place.
    fn value(&self, place: usize) -> Result<ScalarValue>;
    /// The value that is there most often; of several the least, or the greatest.
    fn mode(&mut self, greatest: bool) -> Result<ScalarValue>;
}

impl Rank {
    /// True if its values are structs of one and how often it is there.
    fn weighs(&self, element: &DataType) -> bool {
        matches!(self, Rank::Percentiles { .. }) && matches!(element, DataType::Struct(_))
    }

    /// The type of the answer about values of this type.
    fn returns(&self, element: &DataType) -> DataType {
        let (one, array) = match self {
            Rank::Percentiles { array, .. } => (DataType::Float64, *array),
            Rank::Values { array, .. } => (element.clone(), *array),
            Rank::Mode { .. } => (element.clone(), false),
        };
        if array { list_of(one) } else { one }
    }

    /// The answer; null where there are no values.
    fn answer(&self, values: &mut impl Ordered, element: &DataType) -> Result<ScalarValue> {
        let count = values.count();
        if count == 0 {
            return ScalarValue::try_new_null(&self.returns(element));
        }
        let (one, at, array) = match self {
            Rank::Percentiles { at, array, .. } => (&DataType::Float64, at, *array),
            Rank::Values { at, array } => (element, at, *array),
            Rank::Mode { greatest } => return values.mode(*greatest),
        };
        let mut found = at.iter().map(|at| match self {
            Rank::Percentiles {
                descending,
                continuous,
                ..
            } => percentile(values, *at, *descending, *continuous),
            _ => values.value(place_of(*at, count)),
        });
        if !array {
            let first = found.next().transpose()?;
            return first.map_or_else(|| ScalarValue::try_new_null(one), Ok);
        }
        let found = found.collect::<Result<Vec<_>>>()?;
        let list = ScalarValue::new_list_nullable(&found, one);
        Ok(ScalarValue::List(list))
    }
}

/// The place of the value at a percentile.
fn place_of(at: f64, count: usize) -> usize {
    let place = (at * count as f64).ceil() as usize;
    place.saturating_sub(1).min(count - 1)
}

fn percentile(
    values: &impl Ordered,
    at: f64,
    descending: bool,
    continuous: bool,
) -> Result<ScalarValue> {
    let count = values.count();
    let value = |place: usize| {
        let place = place.min(count - 1);
        let place = if descending { count - 1 - place } else { place };
        match values.value(place)? {
            ScalarValue::Float64(Some(value)) => Ok(value),
            other => {
                let message = format!("a percentile of {}", other.data_type());
                Err(DataFusionError::Internal(message))
            }
        }
    };
    let found = |value| Ok(ScalarValue::Float64(Some(value)));
    if !continuous {
        return found(value(place_of(at, count))?);
    }
    let position = (count - 1) as f64 * at;
    let (low, high) = (position.floor(), position.ceil());
    let (below, above) = (value(low as usize)?, value(high as usize)?);
    if low == high || below == above {
        return found(below);
    }
    found((high - position) * below + (position - low) * above)
}

/// A value is there less often than never.
fn negative(times: i64) -> DataFusionError {
    RunError::raise(
        "NEGATIVE_VALUES_IN_FREQUENCY_EXPRESSION",
        format!(
            "Found the negative value in the frequency of percentile: {times}L, but expected a positive integral value."
        ),
    )
}
