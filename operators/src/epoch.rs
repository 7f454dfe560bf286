//! The skeleton of every stateful operator.
//!
//! Rows are taken as they arrive, whatever epoch they belong to; an epoch runs when the frontiers of all inputs have
//! passed it, once and in order. Every epoch runs, rows or not: an operator with state may have to emit because the
//! watermark moved. That is why the skeleton holds a capability for the next epoch, and why epochs are dense.
//!
//! When its inputs end, it runs what has arrived and ends. An epoch that ends together with the input and brought no
//! rows does not run: nothing tells it from an epoch that never was.

use arrow::record_batch::RecordBatch;
use timely::container::Accountable;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::{OperatorInfo, OutputBuilder};
use timely::progress::frontier::MutableAntichain;

use crate::exchange::addressed_pact;
use crate::failure::guard;
use crate::watermark::{Marks, Watermarks};
use crate::{Batch, BatchBuilder, Edge, Failure, OperatorError, Rows};

/// What a stateful operator does with its rows.
pub trait Kernel: 'static {
    /// Takes a batch of `epoch` from input number `input`; it has rows. The epoch may be later than the one that runs next.
    fn absorb(&mut self, epoch: u64, input: usize, batch: Batch) -> Result<(), OperatorError>;

    /// Runs `epoch`, all of whose rows have been absorbed.
    fn run(
        &mut self,
        epoch: u64,
        marks: Marks,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError>;
}

/// How rows reach an epoch operator.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Travel {
    /// They stay on their worker.
    Stay,
    /// Each batch goes to the worker that it is addressed to.
    Addressed,
}

/// An input of an epoch operator.
pub(crate) struct Input<'s> {
    pub(crate) stream: Stream<'s, u64, Batch>,
    pub(crate) travel: Travel,
}

/// Runs a kernel over `inputs`, epoch by epoch from `start` on. `edge` describes its output.
pub fn run_epochs<'s, K: Kernel>(
    name: &str,
    inputs: Vec<Rows<'s>>,
    watermarks: Option<Watermarks<'s>>,
    start: u64,
    edge: Edge,
    failure: &Failure,
    kernel: impl FnOnce(OperatorInfo) -> K,
) -> Rows<'s> {
    let inputs = inputs
        .into_iter()
        .map(|rows| Input {
            stream: rows.stream,
            travel: Travel::Stay,
        })
        .collect();
    let stream = run_inputs(name, inputs, watermarks, start, failure, kernel);
    Rows { stream, edge }
}

type Drain = Box<dyn FnMut(&mut dyn FnMut(u64, Batch))>;

pub(crate) fn run_inputs<'s, K: Kernel>(
    name: &str,
    inputs: Vec<Input<'s>>,
    watermarks: Option<Watermarks<'s>>,
    start: u64,
    failure: &Failure,
    kernel: impl FnOnce(OperatorInfo) -> K,
) -> Stream<'s, u64, Batch> {
    let scope = inputs
        .first()
        .expect("an epoch operator has an input")
        .stream
        .scope();
    let mut builder = OperatorBuilder::new(name.to_owned(), scope);
    let count = inputs.len();
    let mut drains: Vec<Drain> = Vec::with_capacity(count);
    for Input { stream, travel } in inputs {
        drains.push(match travel {
            Travel::Stay => {
                let mut handle = builder.new_input(stream, Pipeline);
                Box::new(move |take| {
                    handle.for_each(|epoch, batch| take(*epoch.time(), std::mem::take(batch)));
                })
            }
            Travel::Addressed => {
                let mut handle = builder.new_input(stream, addressed_pact());
                Box::new(move |take| {
                    handle.for_each(|epoch, batch| take(*epoch.time(), std::mem::take(batch)));
                })
            }
        });
    }
    let mut clock = watermarks.map(|watermarks| {
        let (stream, idle, tracker) = watermarks.into_parts();
        let marks = builder.new_input(stream, Pipeline);
        let idle = idle.map(|idle| builder.new_input(idle, Pipeline));
        (marks, idle, tracker)
    });
    let (output, stream) = builder.new_output();
    let mut output = OutputBuilder::<u64, BatchBuilder>::from(output);
    let mut kernel = kernel(builder.operator_info());
    let failure = failure.clone();
    builder.build(move |mut capabilities| {
        let mut capability = capabilities.pop().expect("one output, one capability");
        capability.downgrade(&start);
        let mut held = Some(capability);
        let mut next = start;
        let mut last_seen = None;
        move |frontiers: &[MutableAntichain<u64>]| {
            for (input, drain) in drains.iter_mut().enumerate() {
                drain(&mut |epoch, batch| {
                    assert!(epoch >= next, "epoch {epoch} is over, the next is {next}");
                    last_seen = last_seen.max(Some(epoch));
                    if batch.record_count() == 0 || failure.covers(epoch) {
                        return;
                    }
                    if let Err(error) = guard(|| kernel.absorb(epoch, input, batch)) {
                        failure.set(epoch, error);
                    }
                });
            }
            if let Some((marks, idle, tracker)) = &mut clock {
                marks.for_each(|epoch, marks| tracker.absorb(*epoch.time(), marks));
                if let Some(idle) = idle {
                    idle.for_each(|epoch, idle| tracker.absorb_idle(*epoch.time(), idle));
                }
            }
            let (data, clock_frontiers) = frontiers.split_at(count);
            let (marks, idle) = clock_frontiers.split_at(clock_frontiers.len().min(1));
            let mut output = output.activate();
            while let Some(capability) = &mut held {
                if data.iter().any(|frontier| frontier.less_equal(&next)) {
                    break;
                }
                let before = next.checked_sub(1);
                if before.is_some_and(|e| marks.iter().any(|frontier| frontier.less_equal(&e))) {
                    break;
                }
                if idle.iter().any(|frontier| frontier.less_equal(&next)) {
                    break;
                }
                let ended = data.iter().all(MutableAntichain::is_empty);
                if ended && last_seen.is_none_or(|last| last < next) {
                    held = None;
                    break;
                }
                let marks = clock
                    .as_mut()
                    .map_or_else(Marks::default, |(_, _, tracker)| tracker.at(next));
                if !failure.covers(next) {
                    let mut session = output.session_with_builder(&*capability);
                    let mut out = |rows: RecordBatch| {
                        if rows.num_rows() > 0 {
                            session.give_container(&mut Batch::from(rows));
                        }
                    };
                    if let Err(error) = guard(|| kernel.run(next, marks, &mut out)) {
                        failure.set(next, error);
                    }
                }
                next += 1;
                capability.downgrade(&next);
            }
        }
    });
    stream
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};
    use timely::dataflow::operators::Input as _;

    use super::*;
    use crate::testing::{self, int64};

    /// Emits, per epoch, its number and how many rows each input had.
    #[derive(Default)]
    struct Census(BTreeMap<u64, [i64; 2]>);

    impl Kernel for Census {
        fn absorb(&mut self, epoch: u64, input: usize, batch: Batch) -> Result<(), OperatorError> {
            let rows = timely::container::Accountable::record_count(&batch);
            self.0.entry(epoch).or_default()[input] += rows;
            Ok(())
        }

        fn run(
            &mut self,
            epoch: u64,
            _: Marks,
            out: &mut dyn FnMut(RecordBatch),
        ) -> Result<(), OperatorError> {
            let [left, right] = self.0.remove(&epoch).unwrap_or_default();
            out(int64(&[epoch as i64, left, right]));
            Ok(())
        }
    }

    fn census(steps: &[(usize, u64, usize)], ends: u64, start: u64) -> Vec<Vec<i64>> {
        let steps = steps.to_vec();
        timely::execute_directly(move |worker| {
            let seen = Rc::new(RefCell::new(Vec::new()));
            let failure = Failure::default();
            let edge = Edge::plain(Arc::new(Schema::new(vec![Field::new(
                "n",
                DataType::Int64,
                false,
            )])));
            let (mut inputs, probe) = worker.dataflow::<u64, _, _>(|scope| {
                let (left, left_stream) = scope.new_input_with_builder::<BatchBuilder>();
                let (right, right_stream) = scope.new_input_with_builder::<BatchBuilder>();
                let rows = [left_stream, right_stream]
                    .into_iter()
                    .map(|stream| Rows {
                        stream,
                        edge: edge.clone(),
                    })
                    .collect();
                let out = run_epochs("Census", rows, None, start, edge.clone(), &failure, |_| {
                    Census::default()
                });
                let probe = testing::collect(out, &failure, Rc::clone(&seen));
                ([left, right], probe)
            });
            inputs.iter_mut().for_each(|input| input.advance_to(start));
            for (input, epoch, rows) in steps {
                for input in &mut inputs {
                    input.advance_to((*input.time()).max(epoch));
                }
                inputs[input].send_batch(&mut int64(&vec![0; rows]).into());
                worker.step();
            }
            inputs.iter_mut().for_each(|input| input.advance_to(ends));
            worker.step_while(|| probe.less_than(&ends));
            inputs.into_iter().for_each(|input| input.close());
            worker.step_while(|| !probe.done());
            let seen = seen.borrow();
            seen.iter()
                .map(|(epoch, rows): &(u64, RecordBatch)| {
                    let values: &Int64Array = arrow::array::AsArray::as_primitive(rows.column(0));
                    assert_eq!(values.value(0), *epoch as i64);
                    values.values().to_vec()
                })
                .collect()
        })
    }

    #[test]
    fn every_epoch_runs_once_rows_or_not() {
        let seen = census(&[(0, 0, 3), (1, 0, 2), (1, 2, 4), (0, 2, 1)], 4, 0);
        assert_eq!(
            seen,
            [[0, 3, 2], [1, 0, 0], [2, 1, 4], [3, 0, 0]].map(Vec::from)
        );
    }

    #[test]
    fn epochs_before_the_start_do_not_run() {
        assert_eq!(
            census(&[(1, 8, 1)], 9, 7),
            [[7, 0, 0], [8, 0, 1]].map(Vec::from)
        );
    }
}
