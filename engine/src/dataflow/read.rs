//! Turns orders into rows.
//!
//! Decoding runs on a thread beside the worker, ahead of need by a few batches: the bounded channel between them is
//! the flow control that timely does not have. Rows come out in the order of the splits, each epoch under its own
//! capability, which is given up when the last of its splits is read.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray, UInt64Array};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use highwater_operators::metrics::Meters;
use highwater_operators::{Batch, BatchBuilder, Edge, Failure, OperatorError, Rows};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Capability, Operator};
use timely::scheduling::SyncActivator;

use super::orders::Order;
use crate::error::error_chain;
use crate::relation::CLOCK;
use crate::source::{Reader, Split};
use crate::workers::panic_text;

/// Batches decoded ahead of the worker, per source and worker.
const AHEAD: usize = 8;
/// Rows of one split that the order column can tell apart (2^40), and splits of one epoch (2^24).
const SPLIT_SHIFT: u32 = 40;

enum Piece {
    Rows(RecordBatch),
    SplitDone,
    Failed(String),
}

/// Reads the splits of source number `source`, of so many, that this worker is told to.
pub(crate) fn read<'s>(
    orders: Stream<'s, u64, Vec<Order>>,
    (source, sources): (usize, usize),
    reader: Arc<dyn Reader>,
    columns: Vec<usize>,
    edge: Edge,
    failure: Failure,
    meters: Meters,
) -> Rows<'s> {
    let scope = orders.scope();
    let out_edge = edge.clone();
    let stream = orders.unary::<BatchBuilder, _, _, _>(Pipeline, "Read", move |_, info| {
        let bell = scope.worker().sync_activator_for(info.address.to_vec());
        let again = scope.activator_for(info.address);
        let (splits, pieces) = reader_thread(reader, columns, bell);
        let mut jobs: VecDeque<Job> = VecDeque::new();
        move |input, output| {
            input.for_each(|epoch, orders| {
                for order in orders.drain(..) {
                    let Order::Read {
                        source: of,
                        ordinal,
                        split,
                        clock_us,
                        ..
                    } = order
                    else {
                        continue;
                    };
                    if of == source {
                        jobs.push_back(Job {
                            epoch: epoch.retain(0),
                            // No place of one source is a place of another.
                            ordinal: ordinal * sources as u64 + source as u64,
                            rows: 0,
                            clock_us,
                        });
                        let _ = splits.send(split);
                    }
                }
            });
            // At most what one filling of the channel holds, so that what reads our rows gets its turn.
            for _ in 0..AHEAD {
                let Some(job) = jobs.front_mut() else { break };
                let epoch = *job.epoch.time();
                match pieces.try_recv() {
                    Ok(Piece::Rows(rows)) => {
                        if failure.covers(epoch) || rows.num_rows() == 0 {
                            continue;
                        }
                        meters.read(epoch, source, rows.num_rows() as u64);
                        match job.finish(rows, &edge) {
                            Ok(rows) => output
                                .session_with_builder(&job.epoch)
                                .give_container(&mut Batch::from(rows)),
                            Err(error) => failure.set(epoch, error),
                        }
                    }
                    Ok(Piece::SplitDone) => drop(jobs.pop_front()),
                    Ok(Piece::Failed(text)) => {
                        failure.set(epoch, OperatorError::Other(text));
                        jobs.pop_front();
                    }
                    Err(_) => break,
                }
            }
            if !jobs.is_empty() && !pieces.is_empty() {
                again.activate();
            }
        }
    });
    Rows {
        stream,
        edge: out_edge,
    }
}

struct Job {
    epoch: Capability<u64>,
    ordinal: u64,
    rows: u64,
    clock_us: i64,
}

impl Job {
    /// Gives a batch the edge's schema (its names and nullability), and the columns with the epoch's clock and the order
    /// if the edge has them.
    fn finish(&mut self, rows: RecordBatch, edge: &Edge) -> Result<RecordBatch, OperatorError> {
        let count = rows.num_rows();
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        if let Ok(at) = edge.rows.index_of(CLOCK) {
            // As progress reports tell it.
            let clock_us = self.clock_us.div_euclid(1_000) * 1_000;
            let clock = TimestampMicrosecondArray::from_value(clock_us, count);
            let clock = clock.with_data_type(edge.rows.field(at).data_type().clone());
            columns.insert(at, Arc::new(clock));
        }
        if edge.ordered {
            let first = (self.ordinal << SPLIT_SHIFT) + self.rows;
            columns.push(Arc::new(UInt64Array::from_iter_values(
                first..first + count as u64,
            )));
        }
        self.rows += count as u64;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(
            edge.physical(),
            columns,
            &options,
        )?)
    }
}

/// A thread that reads splits in the order they are sent. It ends with the operator that holds the other ends.
fn reader_thread(
    reader: Arc<dyn Reader>,
    columns: Vec<usize>,
    bell: SyncActivator,
) -> (Sender<Split>, Receiver<Piece>) {
    let (send_split, splits) = unbounded::<Split>();
    let (pieces, receive_piece) = bounded::<Piece>(AHEAD);
    let work = move || {
        let give = |piece: Piece| {
            let given = pieces.send(piece).is_ok();
            let _ = bell.activate();
            given
        };
        for split in splits {
            let done = catch_unwind(AssertUnwindSafe(|| {
                read_split(reader.as_ref(), &split, &columns, &give)
            }));
            let last = match done {
                Ok(Ok(true)) => Piece::SplitDone,
                Ok(Ok(false)) => return,
                Ok(Err(text)) => Piece::Failed(text),
                Err(panic) => Piece::Failed(panic_text(panic.as_ref())),
            };
            if !give(last) {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("highwater:read".into())
        .spawn(work)
        .expect("the system can start a thread");
    (send_split, receive_piece)
}

/// False if nobody listens any more.
fn read_split(
    reader: &dyn Reader,
    split: &Split,
    columns: &[usize],
    give: &impl Fn(Piece) -> bool,
) -> Result<bool, String> {
    for rows in reader.read(split, columns).map_err(|e| error_chain(&e))? {
        if !give(Piece::Rows(rows.map_err(|e| error_chain(&e))?)) {
            return Ok(false);
        }
    }
    Ok(true)
}
