//! The sending half: each worker aggregates what it has of an epoch and sends state rows to the owners of the keys.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use timely::container::Accountable;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Capability, Operator};

use super::calls::Plan;
use super::groups::{Groups, Spare};
use crate::exchange::Router;
use crate::failure::guard;
use crate::{Batch, BatchBuilder, Failure, OperatorError, keys};

/// The columns of partial rows: keys, state columns, and the worker they come from.
pub(crate) fn schema(plan: &Plan) -> SchemaRef {
    let keys = plan.key_schema.fields().iter();
    let states = plan.state_schema.fields().iter();
    let mut fields: Vec<FieldRef> = keys.chain(states).cloned().collect();
    fields.push(Arc::new(Field::new("__from", DataType::UInt32, false)));
    Arc::new(Schema::new(fields))
}

/// Partial rows, addressed to the owners of their keys.
pub(crate) fn partials<'s>(
    stream: Stream<'s, u64, Batch>,
    plan: Rc<Plan>,
    worker: usize,
    failure: &Failure,
) -> Stream<'s, u64, Batch> {
    let name = format!("{} partial", plan.name);
    let input_schema = plan.input.physical();
    let schema = schema(&plan);
    let failure = failure.clone();
    let mut router = Router::new(stream.scope().peers());
    stream.unary_frontier::<BatchBuilder, _, _, _>(Pipeline, &name, move |_, _| {
        let mut open: BTreeMap<u64, (Capability<u64>, Groups)> = BTreeMap::new();
        let mut spare = Spare::default();
        move |(input, frontier), output| {
            input.for_each(|capability, batch| {
                let epoch = *capability.time();
                if batch.record_count() == 0 || failure.covers(epoch) {
                    return;
                }
                let batch = std::mem::take(batch);
                let absorb = || {
                    let rows = batch.into_rows(&input_schema)?;
                    let (_, groups) = match open.entry(epoch) {
                        std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                        std::collections::btree_map::Entry::Vacant(entry) => {
                            entry.insert((capability.retain(0), spare.take(&plan)?))
                        }
                    };
                    groups.update(&plan, &rows)
                };
                if let Err(error) = guard(absorb) {
                    failure.set(epoch, error);
                }
            });
            while let Some(entry) = open.first_entry() {
                let epoch = *entry.key();
                if frontier.less_equal(&epoch) {
                    break;
                }
                let (capability, mut groups) = entry.remove();
                if failure.covers(epoch) {
                    continue;
                }
                let mut session = output.session_with_builder(&capability);
                let mut out = |mut batch: Batch| session.give_container(&mut batch);
                let send = || {
                    let (rows, hashes) = finish(&plan, &schema, &mut groups, worker)?;
                    spare.put(groups, rows.num_rows());
                    router.split(&rows, &hashes, &mut out)?;
                    router.flush(&mut out)
                };
                if let Err(error) = guard(send) {
                    failure.set(epoch, error);
                    router.clear();
                }
            }
        }
    })
}

fn finish(
    plan: &Plan,
    schema: &SchemaRef,
    groups: &mut Groups,
    worker: usize,
) -> Result<(RecordBatch, Vec<u64>), OperatorError> {
    let rows = groups.len();
    let mut columns: Vec<ArrayRef> = groups.take_keys()?;
    let hashes = keys::hash(&columns[plan.routed.clone()], rows)?;
    columns.extend_from_slice(groups.take_states(plan)?.columns());
    columns.push(Arc::new(UInt32Array::from(vec![worker as u32; rows])));
    Ok((
        RecordBatch::try_new(SchemaRef::clone(schema), columns)?,
        hashes,
    ))
}
