//! Opens epochs: what each reads is asked of the sources, or told by the log.

use super::assign::assign;
use super::retry::retried;
use super::{Coordinator, EPOCH_BYTES, KEPT_BYTES, now, now_us};
use crate::checkpoint::EpochRecord;
use crate::dataflow::Order;
use crate::progress::Phase;
use crate::source::{Offset, Planned, Split};
use crate::trigger::Trigger;

impl Coordinator {
    /// Opens one epoch if there is something to read.
    pub(super) fn open_next(&mut self) -> Result<bool, String> {
        self.meter.begin();
        let again = self.replay.pop_front();
        let replayed = again.is_some();
        let record = match again {
            Some(record) => record,
            None => {
                self.trigger_fired();
                match self.plan()? {
                    Some(record) => record,
                    None => return Ok(false),
                }
            }
        };
        let epoch = self.next_epoch;
        assert!(
            record.epoch == epoch,
            "epochs are dense: {} is not {epoch}",
            record.epoch
        );
        self.next_epoch += 1;
        let started = now();
        self.last_start = Some(started);
        let splits = record.sources.iter().flat_map(|source| &source.splits);
        let bytes = splits.map(|split: &Split| split.bytes).sum();
        let ends: Vec<Offset> = record
            .sources
            .iter()
            .map(|source| source.end.clone())
            .collect();
        for (position, end) in self.sources.iter_mut().zip(&ends) {
            position.at = end.clone();
        }
        self.ends.insert(epoch, ends);
        let mut orders = self.meter.time(Phase::GetBatch, || {
            let clock = (epoch, record.clock_us);
            assign(&record.sources, self.workers, self.processes, clock)
        });
        if !record.idle.is_empty() {
            orders.extend(self.idle_orders(&record.idle));
        }
        self.idleness.opened(&record);
        if epoch == 0 {
            orders.push(Order::Enter { worker: 0 });
        }
        if self.runs.open(epoch, bytes, started, replayed) {
            orders.extend(self.stage_orders(epoch, epoch));
        } else if self.runs.begins(epoch) {
            orders.extend(self.writer_orders(|worker, sink| Order::Begin {
                worker,
                sink,
                first: epoch,
            }));
        }
        if self.unwritten >= KEPT_BYTES {
            self.unwritten = 0;
            let before = self.runs.writable();
            orders.extend(self.writer_orders(|worker, sink| Order::Write {
                worker,
                sink,
                before,
            }));
        }
        let idle = self.ledger.as_ref().is_some_and(|l| l.pending.is_none());
        if idle && self.checkpoint_is_due() {
            orders.extend(self.checkpoint_orders(epoch, false));
            self.begin_pending(epoch);
        }
        self.feed.open(orders);
        self.meter.opened(epoch, record.clock_us, &record.sources);
        self.in_flight.insert(epoch, bytes);
        if !replayed && let Some(ledger) = &self.ledger {
            ledger.log.plan(record);
        }
        Ok(true)
    }

    /// Asks the sources what the next epoch reads.
    fn plan(&mut self) -> Result<Option<EpochRecord>, String> {
        let share = EPOCH_BYTES / self.sources.len().max(1) as u64;
        let once = self.trigger == Trigger::Once;
        let mut sources = Vec::new();
        let mut found = false;
        let meter = &mut self.meter;
        for (index, position) in self.sources.iter_mut().enumerate() {
            let start = position.at.clone();
            let mut planned = Planned {
                start: start.clone(),
                end: start,
                splits: Vec::new(),
            };
            loop {
                let admitted = retried(|| {
                    let to = match &position.end {
                        Some(end) => end.clone(),
                        None => meter.time(Phase::LatestOffset, || position.source.latest())?,
                    };
                    meter.latest(index, &to);
                    meter.time(Phase::GetOffset, || {
                        position.source.admit(&planned.end, &to, share)
                    })
                })?;
                let Some(admitted) = admitted else { break };
                found = true;
                planned.end = admitted.end;
                planned.splits.extend(admitted.splits);
                if !once {
                    break;
                }
            }
            sources.push(planned);
        }
        let clock_us = now_us();
        let due = found || self.no_data_is_due(clock_us);
        Ok(due.then(|| EpochRecord {
            epoch: self.next_epoch,
            clock_us,
            idle: self.idleness.at(clock_us, &sources),
            sources,
            statics: self.statics.clone(),
        }))
    }

    fn idle_orders(&self, watermarks: &[u32]) -> Vec<Order> {
        let order = |worker| Order::Idle {
            worker,
            watermarks: watermarks.to_vec(),
        };
        (0..self.workers * self.processes).map(order).collect()
    }
}
