//! Named aggregates over the rows that pass a point of the dataflow, for progress reports.
//!
//! Each worker aggregates what passes it, epoch by epoch; when an epoch is over, its state row is taken along with the
//! other counts (`metrics`) and merged by whoever reports. Rows go on as they came.
//!
//! State: the accumulators of the epochs that are open; none between epochs. Holds its output frontier back: never.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use timely::container::Accountable;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use crate::aggregate::{Aggregation, Groups, Plan, evaluate};
use crate::failure::guard;
use crate::metrics::Meters;
use crate::{Batch, BatchBuilder, Edge, Failure, OperatorError, Rows, wire};

/// A global aggregation that can be done in parts.
pub struct Observer(Plan);

/// One part of an observation: the rows of an epoch on one worker, or of one partition.
pub struct Tally(Groups);

impl Observer {
    /// An observer of rows of `input`; `aggregation` has no keys, and no call that depends on the order of rows.
    pub fn new(input: &Edge, aggregation: Aggregation) -> Result<Self, OperatorError> {
        assert!(aggregation.keys.is_empty(), "an observation has no groups");
        Ok(Observer(Plan::new(input, aggregation)?))
    }

    /// A part without rows.
    pub fn tally(&self) -> Result<Tally, OperatorError> {
        Ok(Tally(Groups::new(&self.0)?))
    }

    /// The values of the calls over all parts, as one row.
    pub fn answer(
        &self,
        parts: impl IntoIterator<Item = RecordBatch>,
    ) -> Result<RecordBatch, OperatorError> {
        let plan = &self.0;
        let mut all = Groups::new(plan)?;
        for part in parts {
            all.intern(&[], part.num_rows())?;
            all.merge_interned(plan, part.columns())?;
        }
        all.ensure_global(plan)?;
        let states = all.take_states(plan)?;
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let schema = SchemaRef::clone(&plan.output);
        let columns = evaluate(plan, &states)?;
        Ok(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?)
    }

    /// A part that another worker sent as bytes.
    pub fn decode(&self, part: &[u8]) -> Result<RecordBatch, OperatorError> {
        wire::decode_buffer(Buffer::from(part), 1, &self.0.state_schema)
    }
}

impl Tally {
    /// Adds rows.
    pub fn add(&mut self, observer: &Observer, rows: &RecordBatch) -> Result<(), OperatorError> {
        self.0.update(&observer.0, rows)
    }

    /// The part as a row of states.
    pub fn finish(mut self, observer: &Observer) -> Result<RecordBatch, OperatorError> {
        self.0.ensure_global(&observer.0)?;
        self.0.take_states(&observer.0)
    }
}

/// Passes `rows` on and leaves with `meters` what `aggregation` makes of each epoch's.
pub fn observe<'s>(
    rows: Rows<'s>,
    aggregation: Aggregation,
    meters: &Meters,
    failure: &Failure,
) -> Rows<'s> {
    let name = aggregation.name.clone();
    let observer = match Observer::new(&rows.edge, aggregation) {
        Ok(observer) => Rc::new(observer),
        Err(error) => {
            failure.set(0, error);
            return rows;
        }
    };
    let open: Rc<RefCell<BTreeMap<u64, Tally>>> = Rc::default();
    meters.observer(&name, gather(&observer, &open, failure));
    let schema = rows.edge.physical();
    let failure = failure.clone();
    let stream = rows
        .stream
        .unary::<BatchBuilder, _, _, _>(Pipeline, "Observe", move |_, _| {
            move |input, output| {
                input.for_each(|capability, batch| {
                    let epoch = *capability.time();
                    if batch.record_count() == 0 || failure.covers(epoch) {
                        return;
                    }
                    let batch = std::mem::take(batch);
                    let add = || {
                        let rows = batch.into_rows(&schema)?;
                        let mut open = open.borrow_mut();
                        let tally = match open.entry(epoch) {
                            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                            std::collections::btree_map::Entry::Vacant(entry) => {
                                entry.insert(observer.tally()?)
                            }
                        };
                        tally.add(&observer, &rows)?;
                        Ok(rows)
                    };
                    match guard(add) {
                        Ok(rows) => output
                            .session_with_builder(&capability)
                            .give_container(&mut Batch::from(rows)),
                        Err(error) => failure.set(epoch, error),
                    }
                });
            }
        });
    Rows {
        stream,
        edge: rows.edge,
    }
}

/// Takes an epoch's part, as bytes.
fn gather(
    observer: &Rc<Observer>,
    open: &Rc<RefCell<BTreeMap<u64, Tally>>>,
    failure: &Failure,
) -> Box<dyn FnMut(u64) -> Option<Vec<u8>>> {
    let (observer, open, failure) = (Rc::clone(observer), Rc::clone(open), failure.clone());
    Box::new(move |epoch| {
        let mut open = open.borrow_mut();
        let later = open.split_off(&(epoch + 1));
        let tally = std::mem::replace(&mut *open, later).remove(&epoch)?;
        match guard(|| tally.finish(&observer)) {
            Ok(states) => Some(
                wire::encode(&states)
                    .iter()
                    .flat_map(|part| part.iter().copied())
                    .collect(),
            ),
            Err(error) => {
                failure.set(epoch, error);
                None
            }
        }
    })
}
