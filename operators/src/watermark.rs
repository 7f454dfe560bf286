//! Watermarks: promises computed from data, carried as data.
//!
//! Each worker sends the largest event time of an epoch to all workers when its input frontier passes the epoch. Once
//! the marks of all epochs before e are in, which their frontier proves, every worker knows W(e), and all know the
//! same. So W depends on what the epochs hold and on nothing else: not on the number of workers, not on timing, not on
//! how many epochs are in flight.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::compute::{cast, max, min};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use datafusion::common::exec_err;
use datafusion::physical_expr::PhysicalExpr;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::vec::{Broadcast, Map};
use timely::dataflow::operators::{Capability, Concatenate};

use crate::failure::guard;
use crate::metrics::{EventTimes, Meters};
use crate::{Batch, BatchBuilder, Failure, OperatorError, Rows};

/// The watermarks of one epoch, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// W(e-1), which judges whether a row is late.
    pub before: i64,
    /// W(e), which closes windows and lets state go.
    pub now: i64,
}

/// One stream's watermark.
pub struct Watermark<'s> {
    /// Per epoch and worker, the largest event time in milliseconds.
    stream: Stream<'s, u64, Vec<i64>>,
    delay_ms: i64,
    /// Where this mark stood when the query stopped.
    from_ms: i64,
}

/// How several marks become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The slowest stream decides: no row is late that would not be late on its own.
    Min,
    /// The fastest stream decides.
    Max,
}

impl Policy {
    /// One watermark of several.
    pub fn combine(self, marks_ms: impl Iterator<Item = i64>) -> i64 {
        let combined = match self {
            Policy::Min => marks_ms.min(),
            Policy::Max => marks_ms.max(),
        };
        combined.unwrap_or(0)
    }
}

/// The watermark of a query: one or several marks under a policy.
pub struct Watermarks<'s> {
    stream: Stream<'s, u64, Vec<(u32, i64)>>,
    tracker: Tracker,
}

impl Clone for Watermarks<'_> {
    fn clone(&self) -> Self {
        Watermarks {
            stream: self.stream.clone(),
            tracker: self.tracker.clone(),
        }
    }
}

/// Passes `rows` on and follows the largest value of `at`, a timestamp expression over their visible columns. `from_ms`
/// is the mark of a query that restarts (zero at first).
pub fn watermark<'s>(
    rows: Rows<'s>,
    at: Arc<dyn PhysicalExpr>,
    delay_ms: i64,
    from_ms: i64,
    meters: &Meters,
    failure: &Failure,
) -> (Rows<'s>, Watermark<'s>) {
    let schema = rows.edge.physical();
    let mut builder = OperatorBuilder::new("Watermark".into(), rows.stream.scope());
    let mut input = builder.new_input(rows.stream, Pipeline);
    let (output, stream) = builder.new_output();
    let (marks, mark_stream) = builder.new_output();
    let mut output = OutputBuilder::<u64, BatchBuilder>::from(output);
    let mut marks = OutputBuilder::<u64, CapacityContainerBuilder<Vec<i64>>>::from(marks);
    let (meters, failure) = (meters.clone(), failure.clone());
    builder.build(move |_| {
        let mut open: BTreeMap<u64, (Capability<u64>, i64)> = BTreeMap::new();
        move |frontiers| {
            let mut output = output.activate();
            input.for_each(|capability, batch| {
                let epoch = *capability.time();
                if failure.covers(epoch) {
                    return;
                }
                let batch = std::mem::take(batch);
                match guard(|| event_times(batch, &schema, at.as_ref())) {
                    Ok((rows, times)) => {
                        if let Some(times) = times {
                            meters.event_times(epoch, &times);
                            let largest = times.max_us.div_euclid(1000);
                            let open = open
                                .entry(epoch)
                                .or_insert_with(|| (capability.retain(1), i64::MIN));
                            open.1 = open.1.max(largest);
                        }
                        let mut session = output.session_with_builder(&capability);
                        session.give_container(&mut rows.into());
                    }
                    Err(error) => failure.set(epoch, error),
                }
            });
            let mut marks = marks.activate();
            while let Some(entry) = open.first_entry() {
                if frontiers[0].less_equal(entry.key()) {
                    break;
                }
                let (capability, largest) = entry.remove();
                marks.session(&capability).give(largest);
            }
        }
    });
    let mark = Watermark {
        stream: mark_stream.broadcast(),
        delay_ms,
        from_ms,
    };
    let edge = rows.edge;
    (Rows { stream, edge }, mark)
}

/// The event times of a batch; nulls do not count.
fn event_times(
    batch: Batch,
    schema: &SchemaRef,
    at: &dyn PhysicalExpr,
) -> Result<(RecordBatch, Option<EventTimes>), OperatorError> {
    let rows = batch.into_rows(schema)?;
    let times = at.evaluate(&rows)?.into_array(rows.num_rows())?;
    let zone = match times.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        other => exec_err!("a watermark needs a timestamp, not {other}")?,
    };
    let micros = cast(&times, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
    let micros = micros.as_primitive::<TimestampMicrosecondType>();
    let (Some(min_us), Some(max_us)) = (min(micros), max(micros)) else {
        return Ok((rows, None));
    };
    let sum_us = match micros.null_count() {
        0 => micros.values().iter().map(|us| *us as f64).sum(),
        _ => micros.iter().flatten().map(|us| us as f64).sum(),
    };
    let times = EventTimes {
        min_us,
        max_us,
        sum_us,
        rows: (micros.len() - micros.null_count()) as u64,
    };
    Ok((rows, Some(times)))
}

impl<'s> Watermarks<'s> {
    /// Combines `marks`, of which there is at least one. `before_ms` is W of the epoch before the first, for a query
    /// that restarts (zero at first).
    pub fn new(marks: Vec<Watermark<'s>>, policy: Policy, before_ms: i64) -> Self {
        let tracker = Tracker {
            policy,
            delays_ms: marks.iter().map(|mark| mark.delay_ms).collect(),
            marks_ms: marks.iter().map(|mark| mark.from_ms.max(0)).collect(),
            before_ms,
            trail_ms: 0,
            waiting: BTreeMap::new(),
            now: None,
        };
        let streams: Vec<_> = marks
            .into_iter()
            .enumerate()
            .map(|(index, mark)| mark.stream.map(move |ms| (index as u32, ms)))
            .collect();
        let scope = streams
            .first()
            .expect("a watermark follows at least one stream")
            .scope();
        Watermarks {
            stream: scope.concatenate(streams),
            tracker,
        }
    }

    /// The same, always so many milliseconds behind.
    pub fn trailing(mut self, trail_ms: i64) -> Self {
        self.tracker.trail_ms += trail_ms;
        self
    }

    /// Each stream's marks as they arrive, the same on all workers, and what keeps account of them.
    pub fn account(&self) -> (Stream<'s, u64, Vec<(u32, i64)>>, Account) {
        let account = Account {
            marks_ms: self.tracker.marks_ms.clone(),
            delays_ms: self.tracker.delays_ms.clone(),
        };
        (self.stream.clone(), account)
    }

    pub(crate) fn into_parts(self) -> (Stream<'s, u64, Vec<(u32, i64)>>, Tracker) {
        (self.stream, self.tracker)
    }
}

/// The watermark of each stream, in milliseconds, for checkpoints and for whoever decides what runs next.
///
/// A restart needs them one by one: their combination does not tell where a stream stood that was ahead of the others.
pub struct Account {
    marks_ms: Vec<i64>,
    delays_ms: Vec<i64>,
}

impl Account {
    /// The watermark of each stream after an epoch with these marks. Epochs must come in order.
    pub fn after(&mut self, marks: &[(u32, i64)]) -> Vec<i64> {
        raise(&mut self.marks_ms, &self.delays_ms, marks);
        self.marks_ms.clone()
    }
}

fn raise(marks_ms: &mut [i64], delays_ms: &[i64], largest_ms: &[(u32, i64)]) {
    for (stream, largest) in largest_ms {
        let stream = *stream as usize;
        let mark = largest.saturating_sub(delays_ms[stream]);
        marks_ms[stream] = marks_ms[stream].max(mark);
    }
}

/// Computes W(e), for e in order, from the marks of the epochs before it.
#[derive(Clone)]
pub(crate) struct Tracker {
    policy: Policy,
    delays_ms: Vec<i64>,
    /// Each stream's own watermark.
    marks_ms: Vec<i64>,
    before_ms: i64,
    /// By how much its marks are behind.
    trail_ms: i64,
    waiting: BTreeMap<u64, Vec<(u32, i64)>>,
    now: Option<i64>,
}

impl Tracker {
    #[cfg(test)]
    pub(crate) fn of(delays_ms: &[i64], before_ms: i64) -> Self {
        Tracker {
            policy: Policy::Min,
            delays_ms: delays_ms.to_vec(),
            marks_ms: vec![0; delays_ms.len()],
            before_ms,
            waiting: BTreeMap::new(),
            now: None,
            trail_ms: 0,
        }
    }

    pub(crate) fn absorb(&mut self, epoch: u64, marks: &mut Vec<(u32, i64)>) {
        self.waiting.entry(epoch).or_default().append(marks);
    }

    /// The marks of `epoch`, called for each epoch once, in order, when the marks of all epochs before it are in.
    pub(crate) fn at(&mut self, epoch: u64) -> Marks {
        while let Some(entry) = self.waiting.first_entry() {
            if *entry.key() >= epoch {
                break;
            }
            raise(&mut self.marks_ms, &self.delays_ms, &entry.remove());
        }
        let marks = self.marks_ms.iter().copied();
        let before = self.now.unwrap_or(self.before_ms);
        let now = self.policy.combine(marks).max(before);
        self.now = Some(now);
        Marks {
            before: before.saturating_sub(self.trail_ms),
            now: now.saturating_sub(self.trail_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMicrosecondArray;
    use arrow::datatypes::{Field, Schema};
    use datafusion::physical_expr::expressions::col;

    use super::*;

    fn times(values: &[Option<i64>]) -> RecordBatch {
        let times = TimestampMicrosecondArray::from(values.to_vec());
        let schema = Schema::new(vec![Field::new("at", times.data_type().clone(), true)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(times)]).unwrap()
    }

    #[test]
    fn of_event_times_nulls_do_not_count() {
        let schema = times(&[]).schema();
        let at = col("at", &schema).unwrap();
        let of = |values: &[Option<i64>]| {
            let (_, times) = event_times(times(values).into(), &schema, at.as_ref()).unwrap();
            times.map(|times| (times.min_us, times.max_us, times.sum_us, times.rows))
        };
        assert_eq!(of(&[Some(1999), None, Some(5)]), Some((5, 1999, 2004.0, 2)));
        assert_eq!(of(&[Some(-1), Some(-3)]), Some((-3, -1, -4.0, 2)));
        assert_eq!(of(&[None]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn the_account_knows_each_stream_after_each_epoch() {
        let mut account = Account {
            marks_ms: vec![3, 3],
            delays_ms: vec![0, 10],
        };
        assert_eq!(account.after(&[]), [3, 3]);
        assert_eq!(account.after(&[(0, 50)]), [50, 3]);
        assert_eq!(account.after(&[(1, 70), (0, 20), (1, 30)]), [50, 60]);
        assert_eq!(account.after(&[(1, 5)]), [50, 60]);
    }
}
