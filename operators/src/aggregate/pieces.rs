//! The state rows of panes, read pane by pane.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use super::closing::{self, Panes};
use crate::OperatorError;
use crate::arrangement::{Chunk, Scan};
use crate::keys::Codec;
use crate::memory;

/// Rows that are read at once, and bytes.
const ROWS: usize = 8 << 10;
const BYTES: usize = 4 << 20;

/// How keys say what pane they are of: they start with its end.
pub(super) struct Times {
    pub(super) grid: Panes,
    pub(super) codec: Codec,
    /// How many bytes the end takes.
    pub(super) bytes: usize,
}

impl Times {
    /// The pane of each of these keys.
    pub(super) fn panes<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Result<Vec<i64>, OperatorError> {
        let times = self.codec.decode(keys.map(|key| &key[..self.bytes]))?;
        let ends = closing::micros(&times[0])?.values().iter();
        Ok(ends.map(|end| self.grid.number(*end)).collect())
    }
}

/// Some rows of a pane.
pub(super) struct Piece {
    pub(super) pane: i64,
    chunk: Rc<Chunk>,
    rows: Range<usize>,
    key_from: usize,
}

impl Piece {
    /// The keys without their times.
    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let rows = self.rows.clone();
        rows.map(move |row| &self.chunk.key(row)[self.key_from..])
    }

    pub(super) fn states(&self) -> RecordBatch {
        let rows = self.rows.clone();
        self.chunk.values().slice(rows.start, rows.len())
    }
}

/// Reads some columns of panes, in order.
pub(super) struct Pieces<'t> {
    pub(super) times: &'t Times,
    /// `None` if there is nothing to read.
    pub(super) scan: Option<Scan>,
    pub(super) schema: &'t SchemaRef,
    pub(super) columns: &'t [usize],
    pub(super) read: VecDeque<Piece>,
    /// Rows to read at once.
    pub(super) rows: usize,
}

impl<'t> Pieces<'t> {
    /// Of what `scan` finds, these columns.
    pub(super) fn new(
        times: &'t Times,
        scan: Option<Scan>,
        schema: &'t SchemaRef,
        columns: &'t [usize],
    ) -> Self {
        Pieces {
            times,
            scan,
            schema,
            columns,
            read: VecDeque::new(),
            rows: ROWS / 8,
        }
    }

    /// The next piece.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, OperatorError> {
        while self.read.is_empty() {
            let Some(scan) = &mut self.scan else {
                return Ok(None);
            };
            let Some(chunk) = scan.next_columns(self.rows, self.schema, self.columns)? else {
                self.scan = None;
                return Ok(None);
            };
            // States that are lists may be large.
            let bytes = memory::size_of(chunk.values()).max(1);
            self.rows = (BYTES * chunk.len() / bytes).clamp(1, ROWS);
            let panes = self.times.panes(chunk.keys())?;
            let chunk = Rc::new(chunk);
            let mut start = 0;
            for same in panes.chunk_by(|a, b| a == b) {
                let end = start + same.len();
                self.read.push_back(Piece {
                    pane: same[0],
                    chunk: Rc::clone(&chunk),
                    rows: start..end,
                    key_from: self.times.bytes,
                });
                start = end;
            }
        }
        Ok(self.read.pop_front())
    }

    /// All that is left.
    pub(super) fn rest(mut self) -> Result<Vec<Piece>, OperatorError> {
        let mut pieces = Vec::new();
        while let Some(piece) = self.next()? {
            pieces.push(piece);
        }
        Ok(pieces)
    }
}
