//! Windows that come out before they close, of a state that has a row for each pane.
//!
//! An epoch has the windows put together that have a pane which it changed, or, where all come out, all there are. Of
//! the state windows are told, as if it had a row for each.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use super::Emit;
use super::calls::Plan;
use super::closing;
use super::owner::Lookup;
use super::signed::Difference;
use super::spans::{Asked, Count, Spans, panes_of};
use crate::OperatorError;
use crate::arrangement::{Arrangement, Found, Scan};

/// Panes that are read at once.
const ROWS: usize = 8 << 10;

/// The windows of an aggregation that stores panes and does not wait until they close.
pub(super) struct TouchedWindows {
    spans: Spans,
    difference: Difference,
    /// How many windows the state has, once they have been counted.
    windows: Option<u64>,
}

/// Panes of the windows that have one that changes.
pub(super) struct Around {
    asked: Asked,
    keys: Vec<ArrayRef>,
    found: Found,
}

impl TouchedWindows {
    /// `None` if the state is not of this kind.
    pub(super) fn of(plan: &Plan) -> Result<Option<Self>, OperatorError> {
        let panes = plan.panes.filter(|_| plan.stores_panes);
        let Some(panes) = panes.filter(|_| plan.emit != Emit::Closed) else {
            return Ok(None);
        };
        Ok(Some(TouchedWindows {
            spans: Spans::new(plan, panes)?,
            difference: Difference::new(&plan.output),
            windows: None,
        }))
    }

    /// How many windows the state has.
    pub(super) fn windows(&self) -> u64 {
        self.windows.unwrap_or(0)
    }

    /// Says how many windows the state has.
    pub(super) fn set_windows(&mut self, windows: u64) {
        self.windows = Some(windows);
    }

    /// Counts the windows of a state that others have made: those that end after `after_us`, where some have closed.
    pub(super) fn begin(
        &mut self,
        plan: &Plan,
        arrangement: &Arrangement,
        after_us: Option<i64>,
    ) -> Result<(), OperatorError> {
        if self.windows.is_none() {
            let all = arrangement.scan(&[], None)?;
            self.windows = Some(self.counted(plan, all, after_us, i64::MAX)?);
        }
        Ok(())
    }

    /// Takes the windows that a watermark closes from the number of those there are; says how many.
    pub(super) fn close(
        &mut self,
        plan: &Plan,
        arrangement: &Arrangement,
        after_us: i64,
        until_us: i64,
    ) -> Result<u64, OperatorError> {
        if after_us >= until_us {
            return Ok(0);
        }
        let until = closing::bound(plan, until_us)?;
        let panes = arrangement.scan(&[], Some(&until))?;
        let closed = self.counted(plan, panes, Some(after_us), until_us)?;
        self.windows = self.windows.map(|windows| windows - closed);
        Ok(closed)
    }

    fn counted(
        &self,
        plan: &Plan,
        mut panes: Scan,
        after_us: Option<i64>,
        until_us: i64,
    ) -> Result<u64, OperatorError> {
        let nothing = SchemaRef::new(arrow::datatypes::Schema::empty());
        let mut count = Count::new(plan, self.spans.panes, after_us, until_us)?;
        while let Some(chunk) = panes.next_columns(ROWS, &nothing, &[])? {
            count.add(&plan.codec.decode(chunk.keys())?)?;
        }
        Ok(count.windows)
    }

    /// How many windows have one of these panes.
    pub(super) fn updated(
        &self,
        plan: &Plan,
        lookup: &Lookup,
        after_us: Option<i64>,
    ) -> Result<u64, OperatorError> {
        let order = UInt32Array::from(lookup.order.clone());
        let keys = lookup.keys.iter().map(|key| take(key, &order, None));
        let mut count = Count::new(plan, self.spans.panes, after_us, i64::MAX)?;
        count.add(&keys.collect::<Result<Vec<_>, _>>()?)?;
        Ok(count.windows)
    }

    /// Reads what there is of the windows that have one of these panes and end after `after_us`.
    pub(super) fn around(
        &self,
        plan: &Plan,
        arrangement: &Arrangement,
        asked: Asked,
    ) -> Result<Around, OperatorError> {
        let needed = panes_of(self.spans.panes, &asked)?;
        let needed = plan.codec.encode(&needed, needed[0].len())?;
        let order = needed.sorted();
        let key = |at: &u32| needed.key(*at as usize);
        let found = arrangement.probe(order.iter().map(key))?;
        let keys = found.keys.iter().map(|at| key(&order[*at as usize]));
        Ok(Around {
            asked,
            keys: plan.codec.decode(keys)?,
            found,
        })
    }

    /// What comes out of an epoch that has changed `before`; counts the windows that are new with it.
    pub(super) fn changed(
        &mut self,
        plan: &Plan,
        arrangement: &Arrangement,
        before: Around,
    ) -> Result<Option<RecordBatch>, OperatorError> {
        let after = self.around(plan, arrangement, before.asked.clone())?;
        let (old, new) = (self.count(plan, &before)?, self.count(plan, &after)?);
        self.windows = self.windows.map(|windows| windows + new - old);
        let new = self.answer(plan, &after)?;
        if plan.emit != Emit::Signed {
            return Ok(Some(new));
        }
        let old = self.answer(plan, &before)?;
        let ones = |rows: &RecordBatch| vec![1; rows.num_rows()];
        self.difference.of([&old, &new], [&ones(&old), &ones(&new)])
    }

    fn count(&self, plan: &Plan, around: &Around) -> Result<u64, OperatorError> {
        let mut count = Count::new(plan, self.spans.panes, around.asked.after_us, i64::MAX)?;
        count.add(&around.keys)?;
        Ok(count.windows)
    }

    fn answer(&self, plan: &Plan, around: &Around) -> Result<RecordBatch, OperatorError> {
        let columns = 0..plan.state_schema.fields().len();
        let states = columns.filter_map(|column| around.found.column(column).transpose());
        let states = states.collect::<Result<Vec<ArrayRef>, _>>()?;
        self.spans
            .answer(plan, &around.keys, &states, &around.asked)
    }
}
