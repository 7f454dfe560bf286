//! What the states of a function are like, where they are of panes: see [`super::sliding`].

use arrow::datatypes::{DataType, FieldRef};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::values::Ask;
use super::{needs_order, nth};
use crate::keys::Codec;
use crate::{OperatorError, exact};

/// What the states of a function are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// They do not grow with the rows: those of panes beside each other are merged before others are.
    Small,
    /// They list values, which are kept as panes enter and leave a window.
    Values,
    /// Neither: each window takes all its panes.
    Whole,
}

/// So many elements of a list do not grow with the rows.
const FEW: u64 = 16;

/// Sums of doubles without rounding, which values can be taken out of again.
const EXACT_SUMS: [&str; 2] = ["exact_sum", "exact_avg"];

impl Kind {
    pub(crate) fn of(function: &AggregateFunctionExpr) -> Result<Self, OperatorError> {
        Ok(match (is_small(function)?, elements(function)?) {
            (true, _) => Kind::Small,
            (false, Some(_)) => Kind::Values,
            (false, None) => Kind::Whole,
        })
    }
}

fn is_small(function: &AggregateFunctionExpr) -> Result<bool, OperatorError> {
    let name = function.fun().name();
    if needs_order(function) {
        let few = nth::bound(function).is_some_and(|n| n.unsigned_abs() <= FEW);
        return Ok(few || ["first_value", "last_value"].contains(&name));
    }
    // Their states are one of their values, or registers.
    let some = ["min", "max", "min_by", "max_by", "approx_distinct"];
    let named = !function.is_distinct() && some.contains(&name);
    let is_fixed = |field: &FieldRef| {
        let data_type = field.data_type();
        data_type.primitive_width().is_some() || *data_type == DataType::Boolean
    };
    let fields = function.state_fields()?;
    Ok(named || adds_exactly(function) || fields.iter().all(is_fixed))
}

/// True if its states list values that enter and leave windows.
pub(super) fn lists_values(function: &AggregateFunctionExpr) -> bool {
    matches!(Kind::of(function), Ok(Kind::Values))
}

/// True if windows can be put together of any states of their panes, in any order, and answer the same to the last bit.
pub(crate) fn slides(function: &AggregateFunctionExpr) -> Result<bool, OperatorError> {
    Ok(match Kind::of(function)? {
        Kind::Small => is_exact(function)?,
        Kind::Values => true,
        Kind::Whole => false,
    })
}

/// True if it answers the same, to the last bit, in whatever order states are merged.
pub(super) fn is_exact(function: &AggregateFunctionExpr) -> Result<bool, OperatorError> {
    let picks = [
        "min",
        "max",
        "min_by",
        "max_by",
        "first_value",
        "last_value",
    ];
    let picks = picks.contains(&function.fun().name());
    let is_float = |field: &FieldRef| field.data_type().is_floating();
    let fields = function.state_fields()?;
    Ok(picks || adds_exactly(function) || !fields.iter().any(is_float))
}

fn adds_exactly(function: &AggregateFunctionExpr) -> bool {
    !function.is_distinct() && exact::is_exact(function.fun().name())
}

/// What its state is a list of, if values can be taken out of its answer as they were put in, and nothing tells from it
/// that they were there.
pub(super) fn elements(
    function: &AggregateFunctionExpr,
) -> Result<Option<FieldRef>, OperatorError> {
    let fields = function.state_fields()?;
    let [field] = fields.as_slice() else {
        return Ok(None);
    };
    let DataType::List(element) = field.data_type() else {
        return Ok(None);
    };
    let known = match asked_of_set(function) {
        Some(_) => Codec::new(vec![element.data_type().clone()]).is_ok(),
        None => {
            let name = function.fun().name();
            let sums = name == "sum" && !element.data_type().is_floating();
            let distinct = function.is_distinct() && (sums || EXACT_SUMS.contains(&name));
            (distinct || name == "ranks") && function.create_sliding_accumulator().is_ok()
        }
    };
    Ok(known.then(|| FieldRef::clone(element)))
}

/// What it asks of a set of values, if that is what it looks at.
pub(super) fn asked_of_set(function: &AggregateFunctionExpr) -> Option<Ask> {
    let one = function.expressions().len() == 1 && function.order_bys().is_empty();
    if !one || !function.is_distinct() {
        return None;
    }
    match function.fun().name() {
        "count" => Some(Ask::Count),
        "array_agg" => Some(Ask::List),
        _ => None,
    }
}
