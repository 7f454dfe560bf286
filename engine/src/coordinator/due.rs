//! When the next epoch is due, and how long to wait until then.

use std::time::Duration;

use super::{BYTES_IN_FLIGHT, Coordinator, EPOCHS_IN_FLIGHT, POLL_IDLE, POLL_MAX, now, now_us};
use crate::trigger::Trigger;

impl Coordinator {
    pub(super) fn may_open(&self) -> bool {
        if self.stopping || self.paused || !self.maybe_more {
            return false;
        }
        // Rows that nobody takes are not read.
        if self.hands_over && self.runs.waiting() >= EPOCHS_IN_FLIGHT {
            return false;
        }
        // Nor those that nobody may write yet: the log of what is planned is slow.
        if self.runs.bytes_kept() >= BYTES_IN_FLIGHT {
            return false;
        }
        let bytes: u64 = self.in_flight.values().sum();
        if !self.in_flight.is_empty()
            && (self.in_flight.len() >= EPOCHS_IN_FLIGHT || bytes >= BYTES_IN_FLIGHT)
        {
            return false;
        }
        self.until_due().is_none()
    }

    /// How long the trigger asks us to wait.
    pub(super) fn until_due(&self) -> Option<Duration> {
        let Trigger::Every(_) = self.trigger else {
            return None;
        };
        if !self.replay.is_empty() {
            return None;
        }
        if !self.in_flight.is_empty() || (self.hands_over && !self.runs.is_empty()) {
            return Some(Duration::MAX); // an epoch that is slower than the interval is not overtaken
        }
        let left = self.due_us.saturating_sub(now_us());
        (left > 0).then(|| Duration::from_micros(left as u64))
    }

    /// How long to wait for an event: for ever, unless the trigger, a run or a source that cannot ring says otherwise.
    pub(super) fn patience(&self) -> Option<Duration> {
        let run = self.runs.patience(now());
        let checkpoint = self.ledger.as_ref().filter(|ledger| {
            let idle = self.in_flight.is_empty() && ledger.pending.is_none();
            idle && ledger.shelf.newest() != self.next_epoch.checked_sub(1)
        });
        let checkpoint = checkpoint.map(|ledger| {
            let left = ledger.interval.saturating_sub(ledger.last.elapsed());
            left.max(Duration::from_millis(1))
        });
        let idle = self.meter.until_idle_event();
        let silence = self.until_idleness_moves();
        [run, checkpoint, self.until_asked(), silence, idle]
            .into_iter()
            .flatten()
            .min()
            .filter(|limit| *limit < Duration::MAX)
    }

    /// How long until the sources are asked again.
    pub(super) fn until_asked(&self) -> Option<Duration> {
        if self.stopping || self.paused {
            return None;
        }
        if let Some(left) = self.until_due() {
            return Some(left);
        }
        let ends = self.trigger.ends();
        if self.maybe_more || ends {
            return None; // an epoch in flight must complete first, and says so
        }
        let poll = self
            .sources
            .iter()
            .filter_map(|position| position.poll)
            .min()?;
        // Looking may take a tenth of the time, where it takes long. Where rows have not come for a second, nobody
        // minds a tenth of one: an idle query costs next to nothing.
        let quiet = self.last_start.unwrap_or(self.begun).elapsed();
        let slower = (quiet / 10)
            .min(POLL_IDLE)
            .max((self.looking * 10).min(POLL_MAX));
        Some(poll.max(slower))
    }

    /// Under `Every`: the next moment is a multiple of the interval, so that nothing drifts, and those that were
    /// missed are skipped.
    pub(super) fn trigger_fired(&mut self) {
        if let Trigger::Every(interval) = self.trigger {
            let interval = (interval.as_micros() as i64).max(1);
            let now = now_us();
            self.due_us = now - now.rem_euclid(interval) + interval;
        }
    }

    /// How long until the watermark moves because a stream has been silent for its time: no event tells.
    pub(super) fn until_idleness_moves(&self) -> Option<Duration> {
        let ends = self.trigger.ends();
        let busy = self.maybe_more || !self.in_flight.is_empty();
        if busy || ends || self.stopping || self.paused || self.until_due().is_some() {
            return None;
        }
        let now = now_us();
        let times = self.idleness.deadlines_us().map(|at| at.max(now));
        let at = times.filter(|at| self.no_data_is_due(*at)).min()?;
        Some(Duration::from_micros((at - now) as u64))
    }

    /// Whether an epoch without rows is due at `clock_us`: all others are over, and the watermark has moved since the
    /// last one ran.
    pub(super) fn no_data_is_due(&self, clock_us: i64) -> bool {
        let moved = self.marks.as_ref().is_some_and(|marks| {
            let idle = self.idleness.at(clock_us, &[]);
            self.watermark_ms(&idle) > marks.before_ms
        });
        let once = self.trigger == Trigger::Once && self.last_start.is_some();
        moved && self.event_time.no_data_epochs && self.in_flight.is_empty() && !once
    }

    /// The watermark that the epoch after the last one that is over runs with, if the streams named in `idle` are idle
    /// in it.
    pub(super) fn watermark_ms(&self, idle: &[u32]) -> i64 {
        self.marks.as_ref().map_or(0, |marks| {
            let combined = self.event_time.policy.combine(&marks.streams_ms, idle);
            combined.max(marks.before_ms)
        })
    }
}
