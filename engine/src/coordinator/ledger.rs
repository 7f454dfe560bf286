//! The durable half of a coordinator: the log, and checkpoints in the making.
//!
//! One checkpoint at a time. It is asked for with an epoch, or while none is open; every worker leaves its state; it is
//! published once the sink has the epoch.

use std::time::{Duration, Instant};

use super::{Coordinator, now};
use crate::checkpoint::{Checkpoint, Cut, Log, Shelf, SourceState, Uploaded};
use crate::dataflow::Order;
use crate::error::error_chain;

/// A checkpoint in the making.
pub(super) struct Pending {
    pub(super) epoch: u64,
    pub(super) uploads: Vec<Uploaded>,
}

/// The durable half of a coordinator.
pub(super) struct Ledger {
    pub(super) log: Log,
    pub(super) shelf: Shelf,
    pub(super) _checkpoint: Checkpoint,
    pub(super) pending: Option<Pending>,
    pub(super) interval: Duration,
    pub(super) last: Instant,
}

impl Coordinator {
    pub(super) fn checkpoint_is_due(&self) -> bool {
        let due = |ledger: &Ledger| ledger.last.elapsed() >= ledger.interval;
        self.ledger.as_ref().is_some_and(due)
    }

    /// How many workers leave state in a checkpoint.
    fn uploaders(&self) -> usize {
        match self.stateful {
            true => self.workers * self.processes,
            false => 0,
        }
    }

    pub(super) fn checkpoint_orders(&self, epoch: u64, settled: bool) -> Vec<Order> {
        let order = |worker| Order::Checkpoint {
            worker,
            epoch,
            settled,
        };
        (0..self.uploaders()).map(order).collect()
    }

    pub(super) fn begin_pending(&mut self, epoch: u64) {
        if let Some(ledger) = &mut self.ledger {
            ledger.last = now();
            ledger.pending = Some(Pending {
                epoch,
                uploads: Vec::new(),
            });
        }
    }

    /// Asks for a checkpoint after `epoch`, which is over.
    pub(super) fn begin_checkpoint(&mut self, epoch: u64, settled: bool) {
        let orders = self.checkpoint_orders(epoch, settled);
        if !orders.is_empty() {
            self.feed.note(orders);
        }
        self.begin_pending(epoch);
    }

    pub(super) fn uploaded(&mut self, mut uploaded: Uploaded) -> Result<(), String> {
        if let Some(text) = uploaded.failure.take() {
            return Err(text);
        }
        let pending = self.ledger.as_mut().and_then(|l| l.pending.as_mut());
        if let Some(pending) = pending
            && pending.epoch == uploaded.epoch
        {
            pending.uploads.push(uploaded);
        }
        Ok(())
    }

    /// Publishes the pending checkpoint once every worker has left its state and the sink has the epoch.
    pub(super) fn publish(&mut self) -> Result<(), String> {
        let expected = self.uploaders();
        let Some(ledger) = &mut self.ledger else {
            return Ok(());
        };
        let recorded = self.recorded;
        let whole =
            |pending: &mut Pending| pending.uploads.len() == expected && pending.epoch < recorded;
        let over = |pending: &Pending| pending.epoch < self.runs.completed;
        let Some(mut pending) = ledger.pending.take_if(|p| whole(p) && over(p)) else {
            return Ok(());
        };
        pending.uploads.sort_by_key(|uploaded| uploaded.worker);
        let ends = self
            .ends
            .get(&pending.epoch)
            .expect("kept for the checkpoint");
        let publish = || {
            let mut states: Vec<SourceState> = Vec::new();
            for (index, (position, at)) in self.sources.iter_mut().zip(ends).enumerate() {
                let source = position.source.as_mut();
                states.push(ledger.shelf.remember(index, source, at)?);
            }
            let written: u64 = pending.uploads.iter().map(|u| u.bytes_written).sum();
            let parts = pending.uploads.into_iter().flat_map(|u| u.parts).collect();
            let marks = self.marks_after.get(&pending.epoch).cloned();
            ledger.shelf.publish(Cut {
                epoch: pending.epoch,
                sources: states,
                marks,
                state: parts,
                written: self.written.clone(),
            })?;
            tracing::debug!(
                query = self.query.id,
                epoch = pending.epoch,
                written,
                "checkpoint"
            );
            Ok(())
        };
        publish().map_err(|error: crate::CheckpointError| error_chain(&error))?;
        if let Some(oldest) = ledger.shelf.oldest() {
            ledger.log.forget(oldest.epoch);
            for (position, state) in self.sources.iter_mut().zip(&oldest.sources) {
                position
                    .source
                    .committed(&state.at)
                    .map_err(|e| error_chain(&e))?;
            }
        }
        self.forget_ends();
        Ok(())
    }
}
