//! What the accumulators of many groups are for one group, and for rows that are a group each.

use std::fmt::Debug;

use arrow::array::{Array, ArrayRef, BooleanArray};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

/// An accumulator of many groups of which one can be asked without an end.
pub(super) trait Grouped: GroupsAccumulator + Sync + Sized {
    /// What it computes.
    type What: Copy + Debug;

    fn of(what: Self::What) -> Self;

    fn what(&self) -> Self::What;

    /// Makes sure that there are so many groups.
    fn resize(&mut self, groups: usize);

    /// Adds each row to its group, if it has one.
    fn add(&mut self, values: &[ArrayRef], group: impl Fn(usize) -> Option<usize>) -> Result<()>;

    /// The answer of the first group.
    fn first(&self) -> Result<ScalarValue>;
}

/// The states of rows that are a group each.
pub(super) fn states_of_rows<G: Grouped>(
    what: G::What,
    values: &[ArrayRef],
    filter: Option<&BooleanArray>,
) -> Result<Vec<ArrayRef>> {
    let rows = values[0].len();
    let mut each = G::of(what);
    each.resize(rows);
    each.add(values, |row| {
        let passes = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        passes.then_some(row)
    })?;
    each.state(EmitTo::All)
}

/// One group.
pub(super) struct One<G>(G);

impl<G: Grouped> One<G> {
    pub(super) fn new(what: G::What) -> Self {
        let mut groups = G::of(what);
        groups.resize(1);
        One(groups)
    }
}

impl<G: Grouped> Debug for One<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "One({:?})", self.0.what())
    }
}

impl<G: Grouped> Accumulator for One<G> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.add(values, |_| Some(0))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.0.first()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let columns = self.0.state(EmitTo::All)?;
        self.0.resize(1);
        let values = columns
            .iter()
            .map(|column| ScalarValue::try_from_array(column, 0));
        values.collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states, &vec![0; states[0].len()], 1)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.size()
    }
}
