//! What the tests of this crate share.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use timely::dataflow::ProbeHandle;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Operator, Probe};

use crate::{BatchBuilder, Failure, Rows};

/// Collects decoded batches with their epochs.
pub(crate) fn collect(
    rows: Rows<'_>,
    failure: &Failure,
    seen: Rc<RefCell<Vec<(u64, RecordBatch)>>>,
) -> ProbeHandle<u64> {
    let schema = rows.edge.physical();
    let failure = failure.clone();
    let probe = ProbeHandle::new();
    rows.stream
        .unary::<BatchBuilder, _, _, _>(Pipeline, "Collect", move |_, _| {
            move |input, _output| {
                input.for_each(|epoch, batch| {
                    let epoch = *epoch.time();
                    match std::mem::take(batch).into_owned_rows(&schema) {
                        Ok(rows) => seen.borrow_mut().push((epoch, rows)),
                        Err(error) => failure.set(epoch, error),
                    }
                });
            }
        })
        .probe_with(&probe);
    probe
}

/// One column `n` of integers.
pub(crate) fn int64(values: &[i64]) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
    let values = Int64Array::from(values.to_vec());
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(values)]).unwrap()
}
