//! When state is to be looked at again: an arrangement of keys by event time.
//!
//! State that is found by its key and forgotten by its time needs both orders. The operator keeps its state by key and,
//! here, the key once more under the moment at which it is due. What is due is then one range at the front, and no
//! epoch reads state that it neither touches nor forgets.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use timely::dataflow::operators::generic::OperatorInfo;

use crate::OperatorError;
use crate::aggregate::State;
use crate::arrangement::{Arrangement, Changes, Ownership, Shared, Snapshots};
use crate::keys::{Codec, Encoded};

/// How many bytes a moment takes in front of a key.
const MOMENT: usize = 9;
/// Keys read at once.
const CHUNK_ROWS: usize = 16 << 10;

/// Keys by the moment, in microseconds, at which they are due.
pub(crate) struct Deadlines {
    arrangement: Arrangement,
    snapshots: Snapshots,
    place: (usize, usize),
}

impl Deadlines {
    /// The deadlines of keys of these types, and whether they could be restored.
    pub(crate) fn new(
        types: &[DataType],
        state: &State,
        info: OperatorInfo,
        place: (usize, usize),
    ) -> (Self, Result<(), OperatorError>) {
        let mut all = vec![DataType::Int64];
        all.extend_from_slice(types);
        let columns = 1..all.len();
        let codec = Codec::new(all);
        let empty = Codec::new(Vec::new()).expect("no column is of a wrong type");
        let ownership = Ownership {
            codec: codec.as_ref().unwrap_or(&empty),
            columns,
            worker: place.0,
            peers: place.1,
        };
        let (arrangement, restored) = state.arrange(&values(), &ownership, info);
        let deadlines = Deadlines {
            arrangement,
            snapshots: state.snapshots.clone(),
            place,
        };
        let restored = match &codec {
            Ok(_) => restored,
            Err(error) => Err(OperatorError::Other(error.to_string())),
        };
        (deadlines, restored)
    }

    pub(crate) fn shared(&self) -> Shared {
        self.arrangement.shared()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.arrangement.bytes()
    }

    /// The keys that are due at `now_us`, ascending, each once.
    pub(crate) fn due(&self, now_us: i64) -> Result<Vec<Vec<u8>>, OperatorError> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let mut scan = self.arrangement.scan(&[], Some(&moment(now_us, 1)))?;
        while let Some(chunk) = scan.next_chunk(CHUNK_ROWS)? {
            keys.extend(chunk.keys().map(|key| key[MOMENT..].to_vec()));
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }

    /// Takes the keys that are due from `epoch` on at the moments given, and forgets those that were due at `now_us`.
    pub(crate) fn run<'k>(
        &mut self,
        epoch: u64,
        due: impl Iterator<Item = (i64, &'k [u8])>,
        now_us: i64,
    ) -> Result<(), OperatorError> {
        let mut keys = Encoded {
            offsets: vec![0],
            bytes: Vec::new(),
        };
        for (at_us, key) in due {
            keys.bytes.extend_from_slice(&moment(at_us, 0));
            keys.bytes.extend_from_slice(key);
            keys.offsets.push(keys.bytes.len());
        }
        let rows = keys.offsets.len() - 1;
        if rows == 0 {
            self.arrangement.advance(epoch)?;
        } else {
            let mut order = keys.sorted();
            order.dedup_by(|a, b| keys.key(*a as usize) == keys.key(*b as usize));
            let changes = Changes {
                keys: &keys,
                order: &order,
                values: &no_values(rows)?,
                diffs: None,
            };
            self.arrangement.insert(epoch, &changes)?;
        }
        self.arrangement.forget_below(&moment(now_us, 1));
        let (worker, peers) = self.place;
        self.snapshots
            .offer(epoch, || self.arrangement.snapshot(worker, peers));
        Ok(())
    }
}

/// Value columns of state that is all key.
pub(crate) fn values() -> SchemaRef {
    Arc::new(Schema::empty())
}

/// `rows` rows of no columns.
pub(crate) fn no_values(rows: usize) -> Result<RecordBatch, OperatorError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(
        values(),
        Vec::new(),
        &options,
    )?)
}

/// `at_us` and `more` as the row encoding of a number has it.
fn moment(at_us: i64, more: i64) -> [u8; MOMENT] {
    let ordered = (at_us.saturating_add(more) as u64) ^ (1 << 63);
    let mut bytes = [1; MOMENT];
    bytes[1..].copy_from_slice(&ordered.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    #[test]
    fn a_moment_is_encoded_as_keys_are() {
        let moments = [i64::MIN, -1, 0, 1, 1_700_000_000_000_000, i64::MAX];
        let column: ArrayRef = Arc::new(Int64Array::from(moments.to_vec()));
        let codec = Codec::new(vec![DataType::Int64]).unwrap();
        let encoded = codec.encode(&[column], moments.len()).unwrap();
        for (row, at_us) in moments.into_iter().enumerate() {
            assert_eq!(encoded.key(row), moment(at_us, 0));
        }
    }
}
