//! LIMIT and OFFSET where rows come for good: the first rows that ever come, over the whole life of the query.
//!
//! Worker 0 counts, in the order of the source where the edge knows it, so the same rows come out for any number of
//! workers.
//!
//! State: how many rows have come, of those that count, one row.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, UInt32Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use timely::dataflow::operators::generic::OperatorInfo;

use crate::aggregate::{State, refuse};
use crate::arrangement::{Arrangement, Changes, Ownership, Shared, Snapshots};
use crate::epoch::{Input, Kernel, Travel, run_inputs};
use crate::exchange::{gather, take_rows};
use crate::intake::Intake;
use crate::keys::Codec;
use crate::metrics::OperatorMeter;
use crate::places::RowOrder;
use crate::watermark::{Marks, Watermarks};
use crate::{Batch, Edge, Failure, OperatorError, Rows};

/// The first rows, and what is kept of them.
pub struct Limited<'s> {
    /// The rows.
    pub rows: Rows<'s>,
    /// Their number; `None` if the limit was refused.
    pub count: Option<Shared>,
}

/// Passes on the rows whose numbers are in `wanted`, counted from 0 as they come; `name` names the state in checkpoints.
pub fn limit<'s>(
    rows: Rows<'s>,
    name: &str,
    wanted: Range<u64>,
    watermarks: Option<Watermarks<'s>>,
    state: State,
    failure: &Failure,
) -> Limited<'s> {
    let edge = rows.edge.clone();
    let start = state.first_epoch();
    let order = match RowOrder::of(&edge) {
        Ok(order) if !edge.signed => order,
        refused => {
            let text = "LIMIT counts rows, and some of these may leave again";
            let error = refused.err();
            failure.set(
                start,
                error.unwrap_or_else(|| OperatorError::Other(text.into())),
            );
            return Limited {
                rows: refuse(rows, edge),
                count: None,
            };
        }
    };
    let scope = rows.stream.scope();
    let place = (scope.index(), scope.peers());
    let input = Input {
        stream: gather(rows, failure).stream,
        travel: Travel::Stay,
    };
    let mut count = None;
    let own = edge.clone();
    let stream = run_inputs(name, vec![input], watermarks, start, failure, |info| {
        let (kernel, restored) = Counter::new(own, order, wanted, &state, info, place);
        if let Err(error) = restored {
            failure.set(start, error);
        }
        count = Some(kernel.arrangement.shared());
        kernel
    });
    Limited {
        rows: Rows { stream, edge },
        count,
    }
}

struct Counter {
    input: Edge,
    order: RowOrder,
    wanted: Range<u64>,
    /// How many rows have come, but for those after the last that is wanted.
    seen: u64,
    codec: Codec,
    intake: Intake,
    arrangement: Arrangement,
    snapshots: Snapshots,
    meter: OperatorMeter,
    place: (usize, usize),
}

fn values() -> SchemaRef {
    let count = Field::new("rows", DataType::Int64, false);
    Arc::new(Schema::new(vec![count]))
}

impl Counter {
    fn new(
        input: Edge,
        order: RowOrder,
        wanted: Range<u64>,
        state: &State,
        info: OperatorInfo,
        place: (usize, usize),
    ) -> (Self, Result<(), OperatorError>) {
        let codec = Codec::new(Vec::new()).expect("no column is of a wrong type");
        let ownership = Ownership {
            codec: &codec,
            columns: 0..0,
            worker: place.0,
            peers: place.1,
        };
        let (arrangement, restored) = state.arrange(&values(), &ownership, info);
        let mut counter = Counter {
            intake: Intake::new(input.physical()),
            input,
            order,
            wanted,
            seen: 0,
            codec,
            arrangement,
            snapshots: state.snapshots.clone(),
            meter: state.meter.clone(),
            place,
        };
        let restored = restored.and_then(|()| counter.read());
        (counter, restored)
    }

    fn read(&mut self) -> Result<(), OperatorError> {
        let found = self.arrangement.probe([[].as_slice()].into_iter())?;
        if let Some(seen) = found.column(0)? {
            self.seen = seen.as_primitive::<Int64Type>().value(0) as u64;
        }
        Ok(())
    }

    fn take(
        &mut self,
        epoch: u64,
        batches: &[RecordBatch],
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let rows = concat_batches(&self.input.physical(), batches)?;
        let left = usize::try_from(self.wanted.end.saturating_sub(self.seen)).unwrap_or(usize::MAX);
        let counted = rows.num_rows().min(left);
        if counted == 0 {
            return self.arrangement.advance(epoch);
        }
        let skipped = self.wanted.start.saturating_sub(self.seen);
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX).min(counted);
        if counted - skipped == rows.num_rows() {
            out(rows);
        } else if skipped < counted {
            let first = self.order.places(&rows)?.first(rows.num_rows(), counted);
            let rest = UInt32Array::from_iter_values(first.into_iter().skip(skipped));
            out(take_rows(&rows, &rest)?);
        }
        self.seen += counted as u64;
        let seen: ArrayRef = Arc::new(Int64Array::from(vec![self.seen as i64]));
        let changes = Changes {
            keys: &self.codec.encode(&[], 1)?,
            order: &[0],
            values: &RecordBatch::try_new(values(), vec![seen])?,
            diffs: None,
        };
        self.arrangement.insert(epoch, &changes)
    }
}

impl Kernel for Counter {
    fn absorb(&mut self, epoch: u64, _: usize, batch: Batch) -> Result<(), OperatorError> {
        if self.seen < self.wanted.end {
            self.intake.absorb(epoch, batch)?;
        }
        Ok(())
    }

    fn run(
        &mut self,
        epoch: u64,
        _: Marks,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let batches = self.intake.take(epoch);
        let before = self.seen;
        self.take(epoch, &batches, out)?;
        let live = u64::from(self.seen > 0);
        self.arrangement.set_live(live);
        let (worker, peers) = self.place;
        self.snapshots
            .offer(epoch, || self.arrangement.snapshot(worker, peers));
        self.meter.count(epoch, |counts| {
            counts.rows_updated += u64::from(self.seen > before);
            counts.rows_total = live;
            counts.bytes = self.arrangement.bytes();
        });
        Ok(())
    }
}
