//! Moves rows between workers.
//!
//! The sender splits each batch by the hash of its keys (counting sort, one `take` per destination) in an operator of
//! its own rather than inside timely's exchange, because an operator knows the epoch and can report an error. What
//! timely sees are whole batches with an address.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::physical_expr::PhysicalExpr;
use timely::communication::Push;
use timely::dataflow::Stream;
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pact::{DistributorPact, Pipeline};
use timely::dataflow::channels::pushers::exchange::Distributor;
use timely::dataflow::operators::Operator;

use crate::batch::{Batch, BatchBuilder};
use crate::failure::guard;
use crate::{Failure, OperatorError, Rows, keys, memory};

/// A bigger message makes timely's buffers grow, for good.
const MESSAGE_BYTES_MAX: usize = 512 << 10;
/// Pieces below this are collected until there are enough of them.
const PIECE_ROWS_MIN: usize = 1 << 10;
const PIECE_ROWS_ENOUGH: usize = 8 << 10;

/// Sends every row to worker 0.
pub fn gather<'s>(rows: Rows<'s>, failure: &Failure) -> Rows<'s> {
    let peers = rows.stream.scope().peers();
    if peers == 1 {
        return rows;
    }
    let route = move |rows: &RecordBatch, router: &mut Router, out: &mut dyn FnMut(Batch)| {
        router.send(0, rows.clone(), out)
    };
    exchange_by(rows, "Gather", failure, route)
}

/// Sends every row to the worker that owns its `keys`, expressions over the visible columns of `rows`.
pub fn exchange<'s>(
    rows: Rows<'s>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    failure: &Failure,
) -> Rows<'s> {
    if rows.stream.scope().peers() == 1 {
        return rows;
    }
    exchange_by(rows, "Exchange", failure, route_by_keys(keys))
}

/// Addresses rows to the owners of their keys.
pub(crate) fn route_by_keys(
    keys: Vec<Arc<dyn PhysicalExpr>>,
) -> impl FnMut(&RecordBatch, &mut Router, &mut dyn FnMut(Batch)) -> Result<(), OperatorError> {
    move |rows, router, out| {
        let keys = evaluate_keys(&keys, rows)?;
        router.split(rows, &keys::hash(&keys, rows.num_rows())?, out)
    }
}

/// The normalised key columns of `rows`.
pub(crate) fn evaluate_keys(
    keys: &[Arc<dyn PhysicalExpr>],
    rows: &RecordBatch,
) -> Result<Vec<ArrayRef>, OperatorError> {
    keys.iter()
        .map(|key| {
            let column = key.evaluate(rows)?.into_array(rows.num_rows())?;
            Ok(keys::normalise(&column)?)
        })
        .collect()
}

fn exchange_by<'s, F>(rows: Rows<'s>, name: &str, failure: &Failure, route: F) -> Rows<'s>
where
    F: FnMut(&RecordBatch, &mut Router, &mut dyn FnMut(Batch)) -> Result<(), OperatorError>
        + 'static,
{
    let addressed = address(rows.stream, &rows.edge, name, failure, route);
    let stream = addressed.unary::<BatchBuilder, _, _, _>(addressed_pact(), name, |_, _| {
        |input, output| {
            input.for_each(|epoch, batch| {
                output.session_with_builder(&epoch).give_container(batch);
            });
        }
    });
    Rows {
        stream,
        edge: rows.edge,
    }
}

/// The sending half of an exchange: addresses batches for [`addressed_pact`].
pub(crate) fn address<'s, F>(
    stream: Stream<'s, u64, Batch>,
    edge: &crate::Edge,
    name: &str,
    failure: &Failure,
    mut route: F,
) -> Stream<'s, u64, Batch>
where
    F: FnMut(&RecordBatch, &mut Router, &mut dyn FnMut(Batch)) -> Result<(), OperatorError>
        + 'static,
{
    let schema = edge.physical();
    let failure = failure.clone();
    let mut router = Router::new(stream.scope().peers());
    stream.unary::<BatchBuilder, _, _, _>(Pipeline, &format!("{name}Send"), move |_, _| {
        move |input, output| {
            input.for_each_time(|capability, batches| {
                let epoch = *capability.time();
                let mut session = output.session_with_builder(&capability);
                let mut out = |mut batch: Batch| session.give_container(&mut batch);
                let send = || {
                    for batch in batches {
                        if failure.covers(epoch) {
                            continue;
                        }
                        let rows = std::mem::take(batch).into_rows(&schema)?;
                        route(&rows, &mut router, &mut out)?;
                    }
                    router.flush(&mut out)
                };
                if let Err(error) = guard(send) {
                    failure.set(epoch, error);
                    router.clear();
                }
            });
        }
    })
}

/// Splits batches by destination, within one epoch.
pub(crate) struct Router {
    peers: usize,
    /// Small pieces on their way to each worker.
    pieces: Vec<Vec<RecordBatch>>,
}

impl Router {
    pub(crate) fn new(peers: usize) -> Self {
        Router {
            peers,
            pieces: vec![Vec::new(); peers],
        }
    }

    /// Splits `rows` by the owners of `hashes`.
    pub(crate) fn split(
        &mut self,
        rows: &RecordBatch,
        hashes: &[u64],
        out: &mut dyn FnMut(Batch),
    ) -> Result<(), OperatorError> {
        // Counting sort of row numbers: all rows of a worker stand together, in their order.
        let mut ends = vec![0; self.peers];
        for hash in hashes {
            ends[keys::owner(*hash, self.peers)] += 1;
        }
        let mut end = 0;
        let mut next: Vec<usize> = Vec::with_capacity(self.peers);
        for count in &mut ends {
            next.push(end);
            end += *count;
            *count = end;
        }
        let mut order = vec![0; hashes.len()];
        for (row, hash) in hashes.iter().enumerate() {
            let slot = &mut next[keys::owner(*hash, self.peers)];
            order[*slot] = row as u32;
            *slot += 1;
        }
        let order = UInt32Array::from(order);
        let mut start = 0;
        for (to, end) in ends.into_iter().enumerate() {
            if end - start == rows.num_rows() {
                self.send(to, rows.clone(), out)?;
            } else if end > start {
                let part = order.slice(start, end - start);
                self.send(to, take_rows(rows, &part)?, out)?;
            }
            start = end;
        }
        Ok(())
    }

    /// Sends `rows` to worker `to`, in pieces of the right size.
    pub(crate) fn send(
        &mut self,
        to: usize,
        rows: RecordBatch,
        out: &mut dyn FnMut(Batch),
    ) -> Result<(), OperatorError> {
        if rows.num_rows() >= PIECE_ROWS_MIN && self.pieces[to].is_empty() {
            dispatch(to, &rows, out);
            return Ok(());
        }
        if rows.num_rows() > 0 {
            self.pieces[to].push(rows);
        }
        let waiting: usize = self.pieces[to].iter().map(RecordBatch::num_rows).sum();
        if waiting >= PIECE_ROWS_ENOUGH {
            self.flush_one(to, out)?;
        }
        Ok(())
    }

    /// Sends what was held back.
    pub(crate) fn flush(&mut self, out: &mut dyn FnMut(Batch)) -> Result<(), OperatorError> {
        (0..self.peers).try_for_each(|to| self.flush_one(to, out))
    }

    fn flush_one(&mut self, to: usize, out: &mut dyn FnMut(Batch)) -> Result<(), OperatorError> {
        let pieces = std::mem::take(&mut self.pieces[to]);
        if let Some(first) = pieces.first() {
            dispatch(to, &concat_batches(first.schema_ref(), &pieces)?, out);
        }
        Ok(())
    }

    /// Forgets what was held back.
    pub(crate) fn clear(&mut self) {
        self.pieces.iter_mut().for_each(Vec::clear);
    }
}

fn dispatch(to: usize, rows: &RecordBatch, out: &mut dyn FnMut(Batch)) {
    let count = rows.num_rows();
    let fit = (MESSAGE_BYTES_MAX * count / memory::size_of(rows).max(1)).clamp(1, count);
    for start in (0..count).step_by(fit) {
        let part = rows.slice(start, fit.min(count - start));
        out(Batch::addressed(part, to));
    }
}

/// Rows `indices` of `rows`, zero columns allowed.
pub(crate) fn take_rows(
    rows: &RecordBatch,
    indices: &UInt32Array,
) -> Result<RecordBatch, ArrowError> {
    let columns = rows
        .columns()
        .iter()
        .map(|column| take(column, indices, None))
        .collect::<Result<Vec<ArrayRef>, ArrowError>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(indices.len()));
    RecordBatch::try_new_with_options(rows.schema(), columns, &options)
}

/// Delivers batches to the workers they are addressed to.
pub(crate) struct ByAddress;

/// The pact of a stream of addressed batches.
pub(crate) fn addressed_pact() -> DistributorPact<fn(usize) -> ByAddress> {
    DistributorPact(|_| ByAddress)
}

impl Distributor<Batch> for ByAddress {
    fn partition<T: Clone, P: Push<Message<T, Batch>>>(
        &mut self,
        container: &mut Batch,
        time: &T,
        pushers: &mut [P],
    ) {
        let to = match container {
            Batch::Empty => return,
            Batch::Rows(_, envelope) => envelope.to as usize,
            // Only fresh pieces are addressed.
            Batch::Wire { .. } => 0,
        };
        Message::push_at(container, time.clone(), &mut pushers[to]);
    }

    fn flush<T: Clone, P: Push<Message<T, Batch>>>(&mut self, _: &T, _: &mut [P]) {}
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use timely::container::Accountable;

    use super::*;
    use crate::testing::int64;

    /// Splits `batches` of one column of integers over `peers`; the messages with their addresses.
    fn split(batches: &[RecordBatch], peers: usize) -> Vec<(usize, RecordBatch)> {
        let mut router = Router::new(peers);
        let mut sent = Vec::new();
        let mut out = |batch: Batch| match batch {
            Batch::Rows(rows, envelope) => sent.push((envelope.to as usize, rows)),
            _ => panic!("the router sends rows"),
        };
        for rows in batches {
            let hashes = keys::hash(rows.columns(), rows.num_rows()).unwrap();
            router.split(rows, &hashes, &mut out).unwrap();
        }
        router.flush(&mut out).unwrap();
        sent
    }

    fn numbers(rows: &RecordBatch) -> Vec<i64> {
        rows.column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn every_row_goes_to_the_owner_of_its_key_in_its_order() {
        let batches: Vec<RecordBatch> = (0..5)
            .map(|b| int64(&(0..3000).map(|i| i * 5 + b).collect::<Vec<_>>()))
            .collect();
        let sent = split(&batches, 3);
        let mut all = Vec::new();
        for worker in 0..3 {
            let mine = sent.iter().filter(|(to, _)| *to == worker);
            let got: Vec<i64> = mine.flat_map(|(_, rows)| numbers(rows)).collect();
            let owned = |n: &i64| {
                let hash = keys::hash(int64(&[*n]).columns(), 1).unwrap()[0];
                keys::owner(hash, 3) == worker
            };
            let wanted = batches.iter().flat_map(numbers).filter(owned);
            assert_eq!(got, wanted.collect::<Vec<_>>());
            all.extend(got);
        }
        assert_eq!(all.len(), 15_000);
    }

    #[test]
    fn small_pieces_travel_together() {
        let batches: Vec<RecordBatch> = (0..100)
            .map(|b| int64(&(0..50).map(|i| i * 100 + b).collect::<Vec<_>>()))
            .collect();
        assert_eq!(split(&batches, 2).len(), 2);
        assert_eq!(split(&batches, 8).len(), 8);
    }

    #[test]
    fn one_key_is_sent_without_a_copy() {
        let rows = int64(&[7; 5000]);
        let sent = split(std::slice::from_ref(&rows), 4);
        assert_eq!(sent.len(), 1);
        let address =
            |rows: &RecordBatch| rows.column(0).as_primitive::<Int64Type>().values().as_ptr();
        assert_eq!(address(&sent[0].1), address(&rows));
    }

    #[test]
    fn large_batches_are_cut_into_messages() {
        let schema = Schema::new(vec![Field::new("s", DataType::Utf8, false)]);
        let text = StringArray::from_iter_values((0..20_000).map(|i| format!("{i:0>200}")));
        let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(text)]).unwrap();
        let mut router = Router::new(2);
        let (mut messages, mut count) = (0, 0);
        let mut out = |batch: Batch| {
            let length = timely::dataflow::channels::ContainerBytes::length_in_bytes(&batch);
            assert!(
                length < MESSAGE_BYTES_MAX + (MESSAGE_BYTES_MAX >> 3),
                "{length}"
            );
            messages += 1;
            count += batch.record_count();
        };
        router.send(1, rows, &mut out).unwrap();
        assert_eq!(count, 20_000);
        assert!((8..12).contains(&messages), "{messages}");
    }
}
