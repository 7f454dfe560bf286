//! Sends a copy of late rows aside, before the operator that will drop them takes them in.
//!
//! That operator may see groups rather than rows (an aggregation that has pre-aggregated on each worker), so rows that
//! are wanted whole must be told apart before it. Whether a row of epoch e is late is known with W(e-1), which may not be
//! known yet when the row arrives: then a copy waits, while the row itself goes on at once. The verdict depends on the row
//! and on W(e-1) alone, so it is the same in a replay and for any number of workers, and the same as the operator's.
//!
//! State: none. Holds the frontier of the rows back: never; that of the late rows: until W(e-1) is known.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::exec_err;
use datafusion::physical_expr::PhysicalExpr;
use timely::container::Accountable;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::Antichain;
use timely::progress::frontier::MutableAntichain;

use crate::aggregate::Panes;
use crate::failure::guard;
use crate::watermark::{Tracker, Watermarks};
use crate::{Batch, BatchBuilder, Edge, Failure, OperatorError, Rows};

/// Which rows an operator calls late, and what of them is wanted.
#[derive(Debug, Clone)]
pub struct Late {
    /// The event time that judges, a timestamp in microseconds over the visible columns. Null is never late.
    pub at: Arc<dyn PhysicalExpr>,
    /// If `at` is the end of a pane of these windows: a row is late when the last window that it is in is late.
    pub panes: Option<Panes>,
    /// The columns that are sent, ascending.
    pub columns: Vec<usize>,
    /// What is sent.
    pub schema: SchemaRef,
}

/// Passes `rows` on, and gives those of them that are late besides. `start` is the first epoch that runs.
pub fn late_rows<'s>(
    rows: Rows<'s>,
    late: Late,
    watermarks: Watermarks<'s>,
    start: u64,
    failure: &Failure,
) -> (Rows<'s>, Rows<'s>) {
    let physical = rows.edge.physical();
    let (clock, tracker) = watermarks.into_parts();
    let mut builder = OperatorBuilder::new("LateRows".into(), rows.stream.scope());
    let mut input = builder.new_input(rows.stream, Pipeline);
    let mut clock = builder.new_input(clock, Pipeline);
    // Neither output follows the clock: rows need not wait for it, and late ones are held by their own capability.
    let of_rows = || [(0, Antichain::from_elem(0))];
    let (output, stream) = builder.new_output_connection(of_rows());
    let (aside, late_stream) = builder.new_output_connection(of_rows());
    let mut output = OutputBuilder::<u64, BatchBuilder>::from(output);
    let mut aside = OutputBuilder::<u64, BatchBuilder>::from(aside);
    let edge = Edge::plain(Arc::clone(&late.schema));
    let failure = failure.clone();
    builder.build(move |_| {
        let mut known = Known::new(tracker, start);
        let mut held: BTreeMap<u64, (Capability<u64>, Vec<RecordBatch>)> = BTreeMap::new();
        move |frontiers: &[MutableAntichain<u64>]| {
            clock.for_each(|epoch, marks| known.tracker.absorb(*epoch.time(), marks));
            let over = |epoch: u64| !frontiers[1].less_equal(&epoch);
            let mut output = output.activate();
            let mut aside = aside.activate();
            input.for_each(|capability, batch| {
                let epoch = *capability.time();
                if batch.record_count() == 0 || failure.covers(epoch) {
                    return;
                }
                let batch = std::mem::take(batch);
                let take = || {
                    let before_ms = known.before(epoch, over);
                    let rows = match before_ms {
                        Some(_) => batch.into_rows(&physical)?,
                        None => batch.into_owned_rows(&physical)?,
                    };
                    match before_ms {
                        Some(before_ms) => {
                            if let Some(rows) = select(&late, &rows, before_ms)? {
                                let capability = capability.retain(1);
                                let mut session = aside.session_with_builder(&capability);
                                session.give_container(&mut rows.into());
                            }
                        }
                        None => {
                            let held = held.entry(epoch);
                            let held = held.or_insert_with(|| (capability.retain(1), Vec::new()));
                            held.1.push(rows.clone());
                        }
                    }
                    Ok(rows)
                };
                match guard(take) {
                    Ok(rows) => output
                        .session_with_builder(&capability)
                        .give_container(&mut Batch::from(rows)),
                    Err(error) => failure.set(epoch, error),
                }
            });
            while let Some(entry) = held.first_entry() {
                let epoch = *entry.key();
                let Some(before_ms) = known.before(epoch, over) else {
                    break;
                };
                let (capability, batches) = entry.remove();
                let mut session = aside.session_with_builder(&capability);
                for rows in batches {
                    match guard(|| select(&late, &rows, before_ms)) {
                        Ok(None) => {}
                        Ok(Some(rows)) => session.give_container(&mut rows.into()),
                        Err(error) => failure.set(epoch, error),
                    }
                }
            }
            known.forget(|epoch| !frontiers[0].less_equal(&epoch));
        }
    });
    let rows = Rows {
        stream,
        edge: rows.edge,
    };
    let late = Rows {
        stream: late_stream,
        edge,
    };
    (rows, late)
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
    fn new(mut tracker: Tracker, start: u64) -> Self {
        // No mark of this run is older than its first epoch.
        let marks = tracker.at(start);
        Known {
            tracker,
            before_ms: [(start, marks.before), (start + 1, marks.now)].into(),
            next: start + 1,
        }
    }

    /// W(epoch-1), if the marks of all epochs that it is made of are in.
    fn before(&mut self, epoch: u64, over: impl Fn(u64) -> bool) -> Option<i64> {
        while self.next < epoch && over(self.next - 1) {
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
    let times = late.at.evaluate(rows)?.into_array(rows.num_rows())?;
    let Some(times) = times.as_primitive_opt::<TimestampMicrosecondType>() else {
        let found = times.data_type();
        return exec_err!("late rows are told by a timestamp in microseconds, not by {found}")?;
    };
    let before_us = before_ms.saturating_mul(1_000);
    let is_late = |row: usize| {
        let time = times.value(row);
        let last = late.panes.map_or(time, |panes| panes.last_end(time));
        times.is_valid(row) && last <= before_us
    };
    let mask: BooleanArray = (0..times.len()).map(|row| Some(is_late(row))).collect();
    if mask.true_count() == 0 {
        return Ok(None);
    }
    let columns = rows.project(&late.columns)?;
    let rows = filter_record_batch(&columns, &mask)?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let schema = Arc::clone(&late.schema);
    Ok(Some(RecordBatch::try_new_with_options(
        schema,
        rows.columns().to_vec(),
        &options,
    )?))
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMicrosecondArray;
    use arrow::datatypes::{Field, Schema};
    use datafusion::physical_expr::expressions::col;

    use super::*;

    /// The times, in seconds, of those of `times` that are late at `before`.
    fn check(times: &[Option<i64>], panes: Option<Panes>, before: i64, expected: &[i64]) {
        let micros = times.iter().map(|time| time.map(|s| s * 1_000_000));
        let times = TimestampMicrosecondArray::from_iter(micros);
        let schema = Schema::new(vec![Field::new("at", times.data_type().clone(), true)]);
        let schema = Arc::new(schema);
        let late = Late {
            at: col("at", &schema).unwrap(),
            panes,
            columns: vec![0],
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
        check(&[Some(9), None, Some(10), Some(11)], None, 10, &[9, 10]);
        check(&[Some(11), None], None, 10, &[]);
    }

    #[test]
    fn a_row_in_several_windows_is_late_when_the_last_of_them_is() {
        let panes = Panes {
            width_us: 10_000_000,
            slide_us: 5_000_000,
            start_us: 0,
            pane_us: 5_000_000,
        };
        // The pane that ends at 5 is in the windows that end at 5 and at 10.
        check(&[Some(5), Some(10)], Some(panes), 9, &[]);
        check(&[Some(5), Some(10)], Some(panes), 10, &[5]);
    }

    #[test]
    fn a_watermark_is_known_when_the_marks_it_is_made_of_are() {
        let over = std::cell::Cell::new(0);
        let mut known = Known::new(Tracker::of(&[0], 7), 3);
        let is_over = |epoch: u64| epoch < over.get();
        assert_eq!(known.before(3, is_over), Some(7));
        assert_eq!(known.before(4, is_over), Some(7));
        assert_eq!(known.before(5, is_over), None);
        known.tracker.absorb(3, &mut vec![(0, 50)]);
        over.set(4);
        assert_eq!(known.before(5, is_over), Some(50));
        assert_eq!(known.before(6, is_over), None);
        known.forget(|epoch| epoch < 5);
        assert_eq!(known.before(5, is_over), Some(50));
    }
}
