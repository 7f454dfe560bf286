//! Rows that come out alone if no partner comes before the watermark says that none will.
//!
//! In the order in which that is: those that are due are a range at the front. Whoever finds a partner leaves.

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use timely::dataflow::operators::generic::OperatorInfo;

use super::side::{Delta, Layout, insert_mixed, restore};
use crate::OperatorError;
use crate::aggregate::State;
use crate::arrangement::{Arrangement, Kind, Limits, Shape};
use crate::keys::Codec;

/// Rows of one output batch.
const OUTPUT_ROWS: usize = 8 << 10;

pub(super) struct Pending {
    layout: Rc<Layout>,
    pub(super) arrangement: Arrangement,
    moments: Codec,
}

/// What happens to them in an epoch: keys, and the rows that stand under them.
#[derive(Default)]
pub(super) struct Found {
    /// Whole keys of the side's arrangement, with the moment at which each is due.
    pub(super) keys: Vec<(i64, Vec<u8>)>,
}

impl Pending {
    pub(super) fn new(
        layout: Rc<Layout>,
        state: &State,
        info: OperatorInfo,
        place: (usize, usize),
    ) -> Result<(Self, Result<(), OperatorError>), OperatorError> {
        let shape = Shape::new(
            Kind::Multiset,
            Arc::clone(&layout.values),
            Limits::default(),
        );
        let mut arrangement = Arrangement::new(shape.within(state.budget.clone()), info);
        let types = layout.codec.types().iter().cloned();
        let codec = Codec::new([DataType::Int64].into_iter().chain(types).collect())?;
        let keys = 1..layout.keys.len() + 1;
        let restored = restore(&mut arrangement, state, &codec, keys, place);
        let pending = Pending {
            layout,
            arrangement,
            moments: Codec::new(vec![DataType::Int64])?,
        };
        Ok((pending, restored))
    }

    /// The bytes of moments, which keys begin with.
    fn moments(&self, moments: Vec<i64>) -> Result<crate::keys::Encoded, OperatorError> {
        let count = moments.len();
        let column: ArrayRef = Arc::new(Int64Array::from(moments));
        Ok(self.moments.encode(&[column], count)?)
    }

    /// Takes in those rows of `delta` that `waits` names, and lets go those that have `found` a partner.
    pub(super) fn change(
        &mut self,
        epoch: u64,
        delta: &Delta,
        waits: impl Fn(usize) -> bool,
        found: Found,
    ) -> Result<(), OperatorError> {
        let rows = (0..delta.len()).filter(|row| waits(*row) && delta.expires(*row) < i64::MAX);
        let rows: Vec<u32> = rows.map(|row| row as u32).collect();
        let moments = rows.iter().map(|row| delta.expires(*row as usize));
        let moments = self.moments(moments.collect())?;
        let new: Vec<Vec<u8>> = rows
            .iter()
            .enumerate()
            .map(|(index, row)| [moments.key(index), delta.stored.key(*row as usize)].concat())
            .collect();
        let (gone_keys, gone) = self.standing(found)?;
        if new.is_empty() && gone_keys.is_empty() {
            return self.arrangement.advance(epoch);
        }
        let values = delta.values(&self.layout.values)?;
        let keys = new.iter().map(Vec::as_slice);
        insert_mixed(
            &mut self.arrangement,
            epoch,
            (keys, &values, &rows),
            (&gone_keys, &gone),
        )
    }

    /// Those of the rows that have `found` a partner that were still waiting.
    fn standing(&self, found: Found) -> Result<(Vec<Vec<u8>>, RecordBatch), OperatorError> {
        let moments = found.keys.iter().map(|(moment, _)| *moment).collect();
        let moments = self.moments(moments)?;
        let keys = found.keys.iter().enumerate();
        let mut keys: Vec<Vec<u8>> = keys
            .map(|(index, (_, key))| [moments.key(index), key].concat())
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let there = self.arrangement.probe(keys.iter().map(Vec::as_slice))?;
        let rows = super::pairs::standing(&there, true);
        let empty = RecordBatch::new_empty(Arc::clone(&self.layout.values));
        if rows.is_empty() {
            return Ok((Vec::new(), empty));
        }
        let numbers: Vec<u32> = rows.iter().map(|(_, row, _)| *row).collect();
        let columns = there.pick(self.layout.values.fields().len(), &numbers)?;
        let gone = RecordBatch::try_new(Arc::clone(&self.layout.values), columns)?;
        let keys = numbers
            .iter()
            .map(|row| there.stored_key(*row as usize).to_vec());
        Ok((keys.collect(), gone))
    }

    /// Hands `out` the rows that are due at `now_us`, and forgets them.
    pub(super) fn due(
        &mut self,
        now_us: i64,
        out: &mut dyn FnMut(&RecordBatch) -> Result<(), OperatorError>,
    ) -> Result<(), OperatorError> {
        let next = self.moments(vec![now_us.saturating_add(1)])?;
        let mut scan = self.arrangement.scan(&[], Some(next.key(0)))?;
        while let Some(chunk) = scan.next_chunk(OUTPUT_ROWS)? {
            out(chunk.values())?;
        }
        self.arrangement.forget_below(next.key(0));
        Ok(())
    }
}
