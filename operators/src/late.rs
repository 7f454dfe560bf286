//! Sends a copy of late rows aside, before the operators that will drop them take them in.
//!
//! Those operators may see groups rather than rows (an aggregation that has pre-aggregated on each worker), and other
//! columns than the source has, so rows that are wanted whole must be told apart before. Whether a row of epoch e is late is known with W(e-1), which may not be
//! known yet when the row arrives: then it waits here, while it goes on at once elsewhere. The verdict depends on the row
//! and on W(e-1) alone, so it is the same in a replay and for any number of workers, and the same as the operator's.
//!
//! State: none. Holds its output frontier back: until W(e-1) is known.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::{and, filter_record_batch, or, prep_null_mask_filter};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::exec_err;
use datafusion::physical_expr::PhysicalExpr;
use timely::container::Accountable;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::Antichain;
use timely::progress::frontier::MutableAntichain;

use crate::failure::guard;
use crate::watermark::{Tracker, Watermarks};
use crate::{BatchBuilder, Edge, Failure, OperatorError, Rows};

/// Which rows the operators above call late.
#[derive(Debug, Clone)]
pub struct Late {
    /// A row is late if it is by any of them.
    pub judges: Vec<Judge>,
    /// What is sent: the visible columns.
    pub schema: SchemaRef,
}

/// Which rows an operator calls late.
#[derive(Debug, Clone)]
pub struct Judge {
    /// The event time that judges, a timestamp in microseconds over the visible columns. Null is never late.
    pub at: Arc<dyn PhysicalExpr>,
    /// What must be true of a row for it to come to the operator; each is asked of the rows of which those before are true.
    pub conditions: Vec<Arc<dyn PhysicalExpr>>,
}

/// Those of `rows` that are late. `start` is the first epoch that runs.
pub fn late_rows<'s>(
    rows: Rows<'s>,
    late: Late,
    watermarks: Watermarks<'s>,
    start: u64,
    failure: &Failure,
) -> Rows<'s> {
    let physical = rows.edge.physical();
    let (clock, idle, tracker) = watermarks.into_parts();
    let mut builder = OperatorBuilder::new("LateRows".into(), rows.stream.scope());
    let mut input = builder.new_input(rows.stream, Pipeline);
    let mut clock = builder.new_input(clock, Pipeline);
    let mut idle = idle.map(|idle| builder.new_input(idle, Pipeline));
    // The output does not follow the clock: late rows are held by their own capability.
    let of_rows = [(0, Antichain::from_elem(0))];
    let (output, stream) = builder.new_output_connection(of_rows);
    let mut output = OutputBuilder::<u64, BatchBuilder>::from(output);
    let edge = Edge::plain(Arc::clone(&late.schema));
    let failure = failure.clone();
    builder.build(move |_| {
        let mut known = Known::new(tracker, start);
        let mut held: BTreeMap<u64, (Capability<u64>, Vec<RecordBatch>)> = BTreeMap::new();
        move |frontiers: &[MutableAntichain<u64>]| {
            clock.for_each(|epoch, marks| known.tracker.absorb(*epoch.time(), marks));
            if let Some(idle) = &mut idle {
                idle.for_each(|epoch, idle| known.tracker.absorb_idle(*epoch.time(), idle));
            }
            // Whether all that W(epoch) is made of is in. No mark of this run is older than its first epoch.
            let is_in = |epoch: u64| {
                let marks = epoch == start || !frontiers[1].less_equal(&(epoch - 1));
                let idle = frontiers.get(2);
                marks && idle.is_none_or(|frontier| !frontier.less_equal(&epoch))
            };
            let mut output = output.activate();
            input.for_each(|capability, batch| {
                let epoch = *capability.time();
                if batch.record_count() == 0 || failure.covers(epoch) {
                    return;
                }
                let batch = std::mem::take(batch);
                let take = || {
                    let Some(before_ms) = known.before(epoch, is_in) else {
                        let rows = batch.into_owned_rows(&physical)?;
                        let held = held.entry(epoch);
                        let held = held.or_insert_with(|| (capability.retain(0), Vec::new()));
                        held.1.push(rows);
                        return Ok(None);
                    };
                    select(&late, &batch.into_rows(&physical)?, before_ms)
                };
                match guard(take) {
                    Ok(None) => {}
                    Ok(Some(rows)) => output
                        .session_with_builder(&capability)
                        .give_container(&mut rows.into()),
                    Err(error) => failure.set(epoch, error),
                }
            });
            while let Some(entry) = held.first_entry() {
                let epoch = *entry.key();
                let Some(before_ms) = known.before(epoch, is_in) else {
                    break;
                };
                let (capability, batches) = entry.remove();
                let mut session = output.session_with_builder(&capability);
                for rows in batches {
                    match guard(|| select(&late, &rows, before_ms)) {
                        Ok(None) => {}
                        Ok(Some(rows)) => session.give_container(&mut rows.into()),
                        Err(error) => failure.set(epoch, error),
                    }
                }
            }
            // Without rows nobody asks, and the marks of other streams would pile up.
            if let Some(epoch) = frontiers[0].frontier().first() {
                known.before(*epoch, is_in);
            }
            known.forget(|epoch| !frontiers[0].less_equal(&epoch));
        }
    });
    Rows { stream, edge }
}

/// The watermarks that judge the rows of each epoch, as far as they are known.
struct Known {
    tracker: Tracker,
    /// W(e-1) by e.
    before_ms: BTreeMap<u64, i64>,
    /// The tracker is asked for this epoch next.
    next: u64,
}

impl Known {
    fn new(tracker: Tracker, start: u64) -> Self {
        Known {
            before_ms: [(start, tracker.before())].into(),
            tracker,
            next: start,
        }
    }

    /// W(epoch-1), if all that it is made of is in: `is_in` says so of W of an epoch.
    fn before(&mut self, epoch: u64, is_in: impl Fn(u64) -> bool) -> Option<i64> {
        while self.next < epoch && is_in(self.next) {
            let marks = self.tracker.at(self.next);
            self.next += 1;
            self.before_ms.insert(self.next, marks.now);
        }
        self.before_ms.get(&epoch).copied()
    }

    /// Lets go of epochs that no row will ask for.
    fn forget(&mut self, over: impl Fn(u64) -> bool) {
        let newest = self.next;
        self.before_ms
            .retain(|epoch, _| *epoch == newest || !over(*epoch));
    }
}

/// The late ones among `rows`, if there are any.
fn select(
    late: &Late,
    rows: &RecordBatch,
    before_ms: i64,
) -> Result<Option<RecordBatch>, OperatorError> {
    let mut mask = BooleanArray::from(vec![false; rows.num_rows()]);
    for judge in &late.judges {
        mask = or(&mask, &judge.late(rows, before_ms)?)?;
    }
    if mask.true_count() == 0 {
        return Ok(None);
    }
    let rows = filter_record_batch(rows, &mask)?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let (schema, width) = (Arc::clone(&late.schema), late.schema.fields().len());
    Ok(Some(RecordBatch::try_new_with_options(
        schema,
        rows.columns()[..width].to_vec(),
        &options,
    )?))
}

impl Judge {
    /// Which of `rows` are late, none of them null.
    fn late(&self, rows: &RecordBatch, before_ms: i64) -> Result<BooleanArray, OperatorError> {
        match self.all(rows, before_ms) {
            Err(_) if !self.conditions.is_empty() => {}
            judged => return judged,
        }
        // The query may leave out the row that fails by something that is not asked here. One by one, so that it does not
        // depend on its neighbours what becomes of a row.
        let each = (0..rows.num_rows()).map(|row| {
            let judged = self.all(&rows.slice(row, 1), before_ms);
            Some(judged.is_ok_and(|late| late.value(0)))
        });
        Ok(each.collect())
    }

    fn all(&self, rows: &RecordBatch, before_ms: i64) -> Result<BooleanArray, OperatorError> {
        let mut asked = BooleanArray::from(vec![true; rows.num_rows()]);
        for condition in &self.conditions {
            let is_true = condition.evaluate_selection(rows, &asked)?;
            let is_true = is_true.into_array(rows.num_rows())?;
            let is_true = as_boolean_array(&is_true)?;
            asked = match is_true.null_count() {
                0 => and(&asked, is_true)?,
                _ => and(&asked, &prep_null_mask_filter(is_true))?,
            };
        }
        let times = self.at.evaluate_selection(rows, &asked)?;
        let times = times.into_array(rows.num_rows())?;
        let Some(times) = times.as_primitive_opt::<TimestampMicrosecondType>() else {
            let found = times.data_type();
            return exec_err!("late rows are told by a timestamp in microseconds, not by {found}")?;
        };
        let before_us = before_ms.saturating_mul(1_000);
        let is_late =
            |row: usize| asked.value(row) && times.is_valid(row) && times.value(row) <= before_us;
        Ok((0..times.len()).map(|row| Some(is_late(row))).collect())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMicrosecondArray;
    use arrow::datatypes::{Field, Schema};
    use datafusion::physical_expr::expressions::col;

    use super::*;

    /// The times, in seconds, of those of `times` that are late at `before`.
    fn check(times: &[Option<i64>], before: i64, expected: &[i64]) {
        let micros = times.iter().map(|time| time.map(|s| s * 1_000_000));
        let times = TimestampMicrosecondArray::from_iter(micros);
        let schema = Schema::new(vec![Field::new("at", times.data_type().clone(), true)]);
        let schema = Arc::new(schema);
        let judge = Judge {
            at: col("at", &schema).unwrap(),
            conditions: Vec::new(),
        };
        let late = Late {
            // A row that is late twice is sent once.
            judges: vec![judge.clone(), judge],
            schema: Arc::clone(&schema),
        };
        let rows = RecordBatch::try_new(schema, vec![Arc::new(times)]).unwrap();
        let found = select(&late, &rows, before * 1_000).unwrap();
        let found: Vec<i64> = found.map_or_else(Vec::new, |rows| {
            let times = rows.column(0).as_primitive::<TimestampMicrosecondType>();
            times.values().iter().map(|us| us / 1_000_000).collect()
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn late_is_at_or_before_and_null_is_never_late() {
        check(&[Some(9), None, Some(10), Some(11)], 10, &[9, 10]);
        check(&[Some(11), None], 10, &[]);
    }

    #[test]
    fn a_watermark_is_known_when_the_marks_it_is_made_of_are() {
        let over = std::cell::Cell::new(0);
        let mut known = Known::new(Tracker::of(&[0], 7), 3);
        let is_in = |epoch: u64| epoch == 3 || epoch <= over.get();
        assert_eq!(known.before(3, is_in), Some(7));
        assert_eq!(known.before(4, is_in), Some(7));
        assert_eq!(known.before(5, is_in), None);
        known.tracker.absorb(3, &mut vec![(0, 50)]);
        over.set(4);
        assert_eq!(known.before(5, is_in), Some(50));
        assert_eq!(known.before(6, is_in), None);
        known.forget(|epoch| epoch < 5);
        assert_eq!(known.before(5, is_in), Some(50));
    }
}
