//! Keeps hash order out of answers.
//!
//! DISTINCT lists come out of DataFusion in the order of a randomly seeded hash set: another order in each process, and
//! after each restart. Here they come out sorted.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, UInt32Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, UInt64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};

use crate::{Edge, OperatorError};

/// What is done to a function's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Canonical {
    /// Nothing.
    AsIs,
    /// The elements of each list are sorted.
    SortLists,
    /// The elements of each list are values with the places of their rows: sorted by those, which are left out then, and
    /// so are values that are null unless `nulls`.
    ByPlace {
        /// True if nulls are values.
        nulls: bool,
    },
}

impl Canonical {
    pub(crate) fn of(function: &AggregateFunctionExpr) -> Self {
        let name = function.fun().name();
        let set = name == "collect_set"
            || (function.is_distinct()
                && function.order_bys().is_empty()
                && matches!(name, "array_agg" | "collect_list"));
        if set {
            Canonical::SortLists
        } else {
            Canonical::AsIs
        }
    }

    pub(crate) fn apply(self, answers: ArrayRef) -> Result<ArrayRef, OperatorError> {
        match (self, answers.data_type()) {
            (Canonical::SortLists, DataType::List(_)) => Ok(sort_lists(answers.as_list())?),
            (Canonical::ByPlace { nulls }, DataType::List(_)) => by_place(answers.as_list(), nulls),
            _ => Ok(answers),
        }
    }
}

/// Lists with their elements in order.
pub(crate) fn sort_lists(lists: &ListArray) -> Result<ArrayRef, OperatorError> {
    let converter = RowConverter::new(vec![SortField::new(lists.value_type())])?;
    let rows = converter.convert_columns(std::slice::from_ref(lists.values()))?;
    let mut order: Vec<u32> = (0..lists.values().len() as u32).collect();
    for ends in lists.value_offsets().windows(2) {
        let list = &mut order[ends[0] as usize..ends[1] as usize];
        list.sort_unstable_by(|a, b| rows.row(*a as usize).cmp(&rows.row(*b as usize)));
    }
    let DataType::List(field) = lists.data_type() else {
        unreachable!("a list array has a list type");
    };
    let values = take(lists.values(), &UInt32Array::from(order), None)?;
    Ok(Arc::new(ListArray::new(
        Arc::clone(field),
        lists.offsets().clone(),
        values,
        lists.nulls().cloned(),
    )))
}

/// The values of lists of epochs, places and values. A list without values is null.
fn by_place(lists: &ListArray, nulls: bool) -> Result<ArrayRef, OperatorError> {
    let rows = lists.values().as_struct();
    let [epochs, places] = [0, 1].map(|index| rows.column(index).as_primitive::<UInt64Type>());
    let values = rows.column(2);
    let (mut order, mut lengths, mut there) = (Vec::new(), Vec::new(), Vec::new());
    for ends in lists.value_offsets().windows(2) {
        let from = order.len();
        let is_value = |at: &u32| nulls || values.is_valid(*at as usize);
        order.extend((ends[0] as u32..ends[1] as u32).filter(is_value));
        order[from..].sort_by_key(|at| (epochs.value(*at as usize), places.value(*at as usize)));
        lengths.push(order.len() - from);
        there.push(order.len() > from);
    }
    let value = Field::new_list_field(values.data_type().clone(), true);
    Ok(Arc::new(ListArray::try_new(
        Arc::new(value),
        OffsetBuffer::from_lengths(lengths),
        take(values, &UInt32Array::from(order), None)?,
        Some(NullBuffer::from(there)),
    )?))
}

/// A DISTINCT string_agg without ORDER BY joins a set in hash order: give it an order.
pub(crate) fn rewrite(
    function: Arc<AggregateFunctionExpr>,
    input: &Edge,
) -> Result<Arc<AggregateFunctionExpr>, OperatorError> {
    let unordered = function.is_distinct() && function.order_bys().is_empty();
    if !unordered || function.fun().name() != "string_agg" {
        return Ok(function);
    }
    let arguments = function.expressions();
    let sort = PhysicalSortExpr {
        expr: Arc::clone(&arguments[0]),
        options: Default::default(),
    };
    let rewritten = AggregateExprBuilder::new(Arc::new(function.fun().clone()), arguments)
        .schema(Arc::clone(&input.rows))
        .alias(function.name())
        .order_by(vec![sort])
        .with_distinct(true)
        .with_ignore_nulls(function.ignore_nulls())
        .build()?;
    Ok(Arc::new(rewritten))
}
