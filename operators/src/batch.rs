//! One Arrow batch as a timely container.
//!
//! Between threads of a process the rows travel as they are. Between processes they travel as an Arrow IPC message
//! without its schema: both ends compiled the same plan, so the receiving operator knows it. The message is decoded
//! where the rows are used, because only an operator can report that bytes are corrupt; a container cannot.

use std::cell::OnceCell;
use std::io::Write;

use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use timely::bytes::arc::Bytes;
use timely::container::{Accountable, NoopBuilder};
use timely::dataflow::channels::ContainerBytes;

use crate::OperatorError;
use crate::wire;

/// One message of a stream edge.
#[derive(Default, Clone)]
pub enum Batch {
    /// No rows.
    #[default]
    Empty,
    /// Rows in memory.
    Rows(RecordBatch, Envelope),
    /// Rows as they came off the network.
    Wire {
        /// How many rows `bytes` hold.
        rows: u64,
        /// One Arrow IPC message, or the reason why there is none.
        bytes: Bytes,
    },
}

/// What a batch carries besides its rows while it is under way.
#[derive(Default, Clone)]
pub struct Envelope {
    /// The encoded form: timely asks for its length before it asks for the bytes.
    encoded: OnceCell<Vec<Buffer>>,
    /// The worker it is addressed to, when it crosses an exchange.
    pub(crate) to: u32,
}

/// Builder for operators that hand over whole batches.
pub type BatchBuilder = NoopBuilder<Batch>;

impl From<RecordBatch> for Batch {
    fn from(rows: RecordBatch) -> Self {
        Batch::Rows(rows, Envelope::default())
    }
}

impl Batch {
    /// Rows addressed to worker `to`.
    pub(crate) fn addressed(rows: RecordBatch, to: usize) -> Self {
        Batch::Rows(
            rows,
            Envelope {
                encoded: OnceCell::new(),
                to: to as u32,
            },
        )
    }

    /// The rows, decoded if they came off the wire.
    pub fn into_rows(self, schema: &SchemaRef) -> Result<RecordBatch, OperatorError> {
        match self {
            Batch::Empty => Ok(RecordBatch::new_empty(SchemaRef::clone(schema))),
            Batch::Rows(rows, _) => Ok(rows),
            Batch::Wire { rows, bytes } => wire::decode(bytes, rows, schema),
        }
    }

    /// The rows in memory of their own, for an operator that keeps them: a decoded column holds on to the whole
    /// network slab that its bytes lie in, a hundred times its size at worst.
    pub fn into_owned_rows(self, schema: &SchemaRef) -> Result<RecordBatch, OperatorError> {
        let wire = matches!(self, Batch::Wire { .. });
        let rows = self.into_rows(schema)?;
        Ok(if wire {
            crate::memory::own(&rows)
        } else {
            rows
        })
    }
}

impl Accountable for Batch {
    fn record_count(&self) -> i64 {
        match self {
            Batch::Empty => 0,
            Batch::Rows(rows, _) => rows.num_rows() as i64,
            Batch::Wire { rows, .. } => *rows as i64,
        }
    }
}

/// Header: row count and byte length, each eight bytes, little endian. What follows is padded to eight bytes, which
/// keeps the next message, and with it Arrow's buffers, aligned.
const HEADER: usize = 16;

impl ContainerBytes for Batch {
    fn from_bytes(mut bytes: Bytes) -> Self {
        // Nobody can be told here that bytes are missing. What is left becomes a message that fails to decode.
        if bytes.len() < HEADER {
            return Batch::Wire { rows: 0, bytes };
        }
        let head = bytes.extract_to(HEADER);
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let (rows, length) = (word(0), word(8));
        let length = usize::try_from(length).map_or(bytes.len(), |length| length.min(bytes.len()));
        let bytes = bytes.extract_to(length);
        if rows == 0 {
            Batch::Empty
        } else {
            Batch::Wire { rows, bytes }
        }
    }

    fn length_in_bytes(&self) -> usize {
        HEADER + self.encoded_length().next_multiple_of(8)
    }

    fn into_bytes<W: Write>(&self, writer: &mut W) {
        let length = self.encoded_length();
        let mut write = |bytes: &[u8]| {
            writer
                .write_all(bytes)
                .expect("timely hands out a buffer of the length it asked for");
        };
        write(&(self.record_count() as u64).to_le_bytes());
        write(&(length as u64).to_le_bytes());
        match self {
            Batch::Empty => {}
            Batch::Rows(rows, envelope) => {
                for part in envelope.encoded.get_or_init(|| wire::encode(rows)) {
                    write(part);
                }
            }
            Batch::Wire { bytes, .. } => write(bytes),
        }
        write(&[0; 8][..length.next_multiple_of(8) - length]);
    }
}

impl Batch {
    fn encoded_length(&self) -> usize {
        match self {
            Batch::Empty => 0,
            Batch::Rows(rows, envelope) => envelope
                .encoded
                .get_or_init(|| wire::encode(rows))
                .iter()
                .map(|part| part.len())
                .sum(),
            Batch::Wire { bytes, .. } => bytes.len(),
        }
    }
}

#[cfg(test)]
mod tests;
