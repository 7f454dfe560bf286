//! Watermarks: promises computed from data, carried as data.
//!
//! Each worker sends the largest event time of an epoch to all workers when its input frontier passes the epoch. Once
//! the marks of all epochs before e are in, which their frontier proves, every worker knows W(e), and all know the
//! same. So W depends on what the epochs hold and on nothing else: not on the number of workers, not on timing, not on
//! how many epochs are in flight.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{cast, max};
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
use timely::dataflow::operators::{Capability, Concatenate, Operator};

use crate::failure::guard;
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
    failure: &Failure,
) -> (Rows<'s>, Watermark<'s>) {
    let schema = rows.edge.physical();
    let mut builder = OperatorBuilder::new("Watermark".into(), rows.stream.scope());
    let mut input = builder.new_input(rows.stream, Pipeline);
    let (output, stream) = builder.new_output();
    let (marks, mark_stream) = builder.new_output();
    let mut output = OutputBuilder::<u64, BatchBuilder>::from(output);
    let mut marks = OutputBuilder::<u64, CapacityContainerBuilder<Vec<i64>>>::from(marks);
    let failure = failure.clone();
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
                match guard(|| largest_ms(batch, &schema, at.as_ref())) {
                    Ok((rows, largest)) => {
                        if let Some(largest) = largest {
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

/// The largest event time of a batch, in milliseconds, rounded down; nulls do not count.
fn largest_ms(
    batch: Batch,
    schema: &SchemaRef,
    at: &dyn PhysicalExpr,
) -> Result<(RecordBatch, Option<i64>), OperatorError> {
    let rows = batch.into_rows(schema)?;
    let times = at.evaluate(&rows)?.into_array(rows.num_rows())?;
    let largest = match times.data_type() {
        DataType::Timestamp(_, _) => largest_us(&times)?.map(|us| us.div_euclid(1000)),
        other => exec_err!("a watermark needs a timestamp, not {other}")?,
    };
    Ok((rows, largest))
}

fn largest_us(times: &ArrayRef) -> Result<Option<i64>, OperatorError> {
    let zone = match times.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let micros = cast(times, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
    Ok(max(micros.as_primitive::<TimestampMicrosecondType>()))
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

    /// Keeps account of the single marks, for checkpoints.
    pub fn ledger(&self) -> Ledger {
        let book = Rc::new(RefCell::new(Book {
            marks_ms: self.tracker.marks_ms.clone(),
            delays_ms: self.tracker.delays_ms.clone(),
            after: BTreeMap::new(),
            next: 0,
        }));
        let ledger = Ledger(Rc::clone(&book));
        type NoOutput = CapacityContainerBuilder<Vec<()>>;
        let stream = self.stream.clone();
        stream.unary_frontier::<NoOutput, _, _, _>(Pipeline, "Ledger", move |_, _| {
            let mut waiting: BTreeMap<u64, Vec<(u32, i64)>> = BTreeMap::new();
            move |(input, frontier), _output| {
                input.for_each(|epoch, marks| {
                    waiting.entry(*epoch.time()).or_default().append(marks);
                });
                let next = frontier.frontier().first().copied().unwrap_or(u64::MAX);
                let mut book = book.borrow_mut();
                while let Some(entry) = waiting.first_entry() {
                    if *entry.key() >= next {
                        break;
                    }
                    let (epoch, marks) = entry.remove_entry();
                    book.enter(epoch, &marks);
                }
                book.next = next;
            }
        });
        ledger
    }

    pub(crate) fn into_parts(self) -> (Stream<'s, u64, Vec<(u32, i64)>>, Tracker) {
        (self.stream, self.tracker)
    }
}

/// The watermark of each stream after each epoch, in milliseconds.
///
/// A restart needs them one by one: their combination does not tell where a stream stood that was ahead of the others.
#[derive(Clone)]
pub struct Ledger(Rc<RefCell<Book>>);

struct Book {
    /// The marks after the epochs entered so far.
    marks_ms: Vec<i64>,
    delays_ms: Vec<i64>,
    /// The marks after an epoch that changed them.
    after: BTreeMap<u64, Vec<i64>>,
    /// The first epoch that may still bring marks.
    next: u64,
}

impl Book {
    fn enter(&mut self, epoch: u64, marks: &[(u32, i64)]) {
        if self.after.is_empty() {
            // What held until now is asked for as what held after the epoch before.
            let before = epoch.checked_sub(1);
            self.after
                .extend(before.map(|e| (e, self.marks_ms.clone())));
        }
        raise(&mut self.marks_ms, &self.delays_ms, marks);
        self.after.insert(epoch, self.marks_ms.clone());
    }
}

fn raise(marks_ms: &mut [i64], delays_ms: &[i64], largest_ms: &[(u32, i64)]) {
    for (stream, largest) in largest_ms {
        let stream = *stream as usize;
        let mark = largest.saturating_sub(delays_ms[stream]);
        marks_ms[stream] = marks_ms[stream].max(mark);
    }
}

impl Ledger {
    /// The watermark of each stream after `epoch`, once all workers are done with it. Epochs before it cannot be asked
    /// for any more.
    pub fn after(&self, epoch: u64) -> Option<Vec<i64>> {
        let mut book = self.0.borrow_mut();
        if book.next <= epoch {
            return None;
        }
        let Some(last) = book
            .after
            .range(..=epoch)
            .next_back()
            .map(|(last, _)| *last)
        else {
            // Nothing has changed yet, or what has came later.
            let first = book.after.first_key_value();
            return Some(first.map_or(&book.marks_ms, |(_, marks)| marks).clone());
        };
        book.after = book.after.split_off(&last);
        book.after.get(&last).cloned()
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
    waiting: BTreeMap<u64, Vec<(u32, i64)>>,
    now: Option<i64>,
}

impl Tracker {
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
        let combined = match self.policy {
            Policy::Min => marks.min(),
            Policy::Max => marks.max(),
        };
        let before = self.now.unwrap_or(self.before_ms);
        let now = combined.unwrap_or(0).max(before);
        self.now = Some(now);
        Marks { before, now }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMicrosecondArray;
    use arrow::datatypes::{Field, Schema};
    use datafusion::physical_expr::expressions::col;
    use timely::dataflow::operators::{Input, Probe};

    use super::*;
    use crate::Edge;

    fn times(values: &[Option<i64>]) -> RecordBatch {
        let times = TimestampMicrosecondArray::from(values.to_vec());
        let schema = Schema::new(vec![Field::new("at", times.data_type().clone(), true)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(times)]).unwrap()
    }

    #[test]
    fn the_largest_time_is_rounded_down_and_nulls_do_not_count() {
        let schema = times(&[]).schema();
        let at = col("at", &schema).unwrap();
        let largest = |values: &[Option<i64>]| {
            largest_ms(times(values).into(), &schema, at.as_ref())
                .unwrap()
                .1
        };
        assert_eq!(largest(&[Some(1999), None, Some(5)]), Some(1));
        assert_eq!(largest(&[Some(-1), None]), Some(-1));
        assert_eq!(largest(&[None]), None);
        assert_eq!(largest(&[]), None);
    }

    #[test]
    fn the_ledger_knows_each_stream_after_each_epoch() {
        timely::execute_directly(|worker| {
            let schema = times(&[]).schema();
            let failure = Failure::default();
            let (mut inputs, ledger, probe) = worker.dataflow::<u64, _, _>(|scope| {
                let mut inputs = Vec::new();
                let mut marks = Vec::new();
                for delay_ms in [0, 10] {
                    let (input, stream) = scope.new_input_with_builder::<BatchBuilder>();
                    inputs.push(input);
                    let edge = Edge::plain(SchemaRef::clone(&schema));
                    let at = col("at", &schema).unwrap();
                    let rows = Rows { stream, edge };
                    marks.push(watermark(rows, at, delay_ms, 3, &failure).1);
                }
                let marks = Watermarks::new(marks, Policy::Min, 0);
                let ledger = marks.ledger();
                let (probe, _) = marks.stream.probe();
                (inputs, ledger, probe)
            });
            inputs.iter_mut().for_each(|input| input.advance_to(5));
            inputs[0].send_batch(&mut times(&[Some(50_000)]).into());
            inputs.iter_mut().for_each(|input| input.advance_to(6));
            inputs[1].send_batch(&mut times(&[Some(70_000)]).into());
            assert_eq!(ledger.after(5), None);
            inputs.iter_mut().for_each(|input| input.advance_to(8));
            worker.step_while(|| probe.less_than(&8));
            assert_eq!(ledger.after(4), Some(vec![3, 3]));
            assert_eq!(ledger.after(5), Some(vec![50, 3]));
            assert_eq!(ledger.after(6), Some(vec![50, 60]));
            assert_eq!(ledger.after(7), Some(vec![50, 60]));
            assert_eq!(ledger.after(8), None);
        });
    }
}
