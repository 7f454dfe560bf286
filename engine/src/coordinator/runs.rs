//! Runs of epochs on their way into the sink.
//!
//! A sink that groups gets short epochs together: a run ends when it is old or big enough, or when somebody waits for
//! it. Its writers are told to stage it once all its epochs are over, on all workers: when one fails, those before it are
//! a run too. An epoch with many bytes is a run alone, as is every epoch of a sink that does not group, or of a replay; its
//! writers know from the start. A run is committed when all its epochs are over and planned for good, and every writer has
//! staged its part; runs commit in order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::sink::Receipt;

/// An epoch with so many input bytes is a run alone: the rows of others wait in memory until they are over.
const ALONE_BYTES: u64 = 32 << 20;

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grouping {
    /// It is this old.
    pub(crate) age_max: Duration,
    /// Its input has this many bytes.
    pub(crate) bytes_max: u64,
}

impl Grouping {
    /// Every epoch is a run.
    pub(crate) const NONE: Grouping = Grouping {
        age_max: Duration::ZERO,
        bytes_max: 0,
    };
}

/// A run that has ended and waits for its receipts.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) last: u64,
    /// With the sink that each is for.
    pub(super) receipts: Vec<(usize, Receipt)>,
    /// Its writers were told to stage it.
    told: bool,
}

impl Run {
    /// How many rows they staged for it.
    pub(super) fn rows_of(&self, sink: usize) -> u64 {
        let receipts = self.receipts.iter().filter(|(of, _)| *of == sink);
        receipts.map(|(_, receipt)| receipt.rows).sum()
    }

    /// What its writers staged for sink number `sink`.
    pub(super) fn receipts_of(&self, sink: usize) -> Vec<Receipt> {
        let receipts = self.receipts.iter().filter(|(of, _)| *of == sink);
        receipts.map(|(_, receipt)| receipt.clone()).collect()
    }
}

/// All runs that are not in the sink.
pub(super) struct Runs {
    grouping: Grouping,
    /// A run is staged when those before it are in the sink, not before.
    hands_over: bool,
    /// How many writers stage each run.
    writers: usize,
    /// The first epoch of the open run.
    first: u64,
    /// The last epoch opened, if the open run has one.
    last: Option<u64>,
    bytes: u64,
    since: Option<Instant>,
    ended: VecDeque<Run>,
    /// Epochs before it are over on all workers.
    pub(super) completed: u64,
    /// Epochs before it have a durable plan.
    pub(super) planned: u64,
}

impl Runs {
    /// Runs from `first` on; epochs before it are in the sink.
    pub(super) fn new(
        grouping: Grouping,
        hands_over: bool,
        writers: usize,
        first: u64,
        completed: u64,
    ) -> Self {
        Runs {
            grouping,
            hands_over,
            writers,
            first,
            last: None,
            bytes: 0,
            since: None,
            ended: VecDeque::new(),
            completed,
            planned: completed,
        }
    }

    /// An epoch is opened; true if its writers are to be told at once that it is a run. One that is replayed is: what
    /// failed will fail again.
    pub(super) fn open(&mut self, epoch: u64, bytes: u64, now: Instant, replayed: bool) -> bool {
        if epoch < self.first {
            return false;
        }
        let Grouping { age_max, bytes_max } = self.grouping;
        if replayed || age_max.is_zero() || bytes >= bytes_max.min(ALONE_BYTES) {
            self.end();
            self.last = Some(epoch);
            self.end();
            let run = self.ended.back_mut().expect("it has just ended");
            run.told = !self.hands_over;
            return run.told;
        }
        self.last = Some(epoch);
        self.bytes += bytes;
        let since = *self.since.get_or_insert(now);
        if self.bytes >= bytes_max || now.duration_since(since) >= age_max {
            self.end();
        }
        false
    }

    /// How long the open run may wait; none if there is no open run.
    pub(super) fn patience(&self, now: Instant) -> Option<Duration> {
        self.last?;
        let age = now.duration_since(self.since?);
        Some(self.grouping.age_max.saturating_sub(age))
    }

    /// Ends the open run, if there is one.
    pub(super) fn end(&mut self) {
        let Some(last) = self.last.take() else {
            return;
        };
        self.ended.push_back(Run {
            first: self.first,
            last,
            receipts: Vec::new(),
            told: false,
        });
        self.first = last + 1;
        self.bytes = 0;
        self.since = None;
    }

    /// Epoch `from` failed: those before it can still be committed.
    pub(super) fn abandon(&mut self, from: u64) {
        self.end();
        self.ended.retain(|run| run.first < from);
        if let Some(run) = self.ended.back_mut() {
            run.last = run.last.min(from - 1);
        }
    }

    /// The first epoch of the run that ends with `last`; `last` if there is none.
    pub(super) fn first_of(&self, last: u64) -> u64 {
        let run = self.ended.iter().find(|run| run.last == last);
        run.map_or(last, |run| run.first)
    }

    /// A writer has staged its part of the run that ends with `last`.
    pub(super) fn staged(&mut self, last: u64, sink: usize, receipt: Receipt) {
        if let Some(run) = self.ended.iter_mut().find(|run| run.last == last) {
            run.receipts.push((sink, receipt));
        }
    }

    /// The next run that can be staged, from its first epoch to its last; told once.
    pub(super) fn due(&mut self) -> Option<(u64, u64)> {
        let over = self.completed.min(self.planned);
        let mut next = self.ended.iter_mut();
        let run = match self.hands_over {
            true => next.next().filter(|run| !run.told)?,
            false => next.find(|run| !run.told)?,
        };
        if run.last >= over {
            return None;
        }
        run.told = true;
        Some((run.first, run.last))
    }

    /// Rows of epochs before it belong to the next run that will be staged, and can be written.
    pub(super) fn writable(&self) -> u64 {
        let waiting = self.ended.iter().find(|run| !run.told);
        waiting.map_or(self.completed, |run| self.completed.min(run.last + 1))
    }

    /// How many runs wait to be committed.
    pub(super) fn waiting(&self) -> usize {
        self.ended.len()
    }

    /// The next run that can be committed.
    pub(super) fn ready(&mut self) -> Option<Run> {
        let run = self.ended.front()?;
        let over = run.last < self.completed && run.last < self.planned;
        if !over || run.receipts.len() < self.writers {
            return None;
        }
        let mut run = self.ended.pop_front()?;
        run.receipts
            .sort_by_key(|(sink, receipt)| (*sink, receipt.worker));
        Some(run)
    }

    /// True if everything is in the sink.
    pub(super) fn is_empty(&self) -> bool {
        self.last.is_none() && self.ended.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Instant {
        #[allow(clippy::disallowed_methods, reason = "a test of waiting")]
        Instant::now()
    }

    fn receipt(worker: usize) -> Receipt {
        Receipt {
            worker,
            rows: 1,
            body: String::new(),
        }
    }

    fn seconds(count: u64) -> Grouping {
        Grouping {
            age_max: Duration::from_secs(count),
            bytes_max: 100,
        }
    }

    #[test]
    fn without_grouping_every_epoch_is_a_run() {
        let mut runs = Runs::new(Grouping::NONE, false, 1, 0, 0);
        assert!(runs.open(0, 0, now(), false) && runs.open(1, 0, now(), false));
        runs.completed = 2;
        runs.planned = 1;
        runs.staged(0, 0, receipt(0));
        runs.staged(1, 0, receipt(0));
        assert_eq!(runs.ready().map(|run| (run.first, run.last)), Some((0, 0)));
        assert!(runs.ready().is_none(), "its plan is not durable");
        runs.planned = 2;
        assert_eq!(runs.ready().map(|run| (run.first, run.last)), Some((1, 1)));
        assert!(runs.is_empty());
    }

    #[test]
    fn a_run_ends_by_age_and_by_size_and_is_staged_when_it_is_over() {
        let mut runs = Runs::new(seconds(1), false, 2, 3, 3);
        let start = now();
        assert!(!runs.open(3, 40, start, false));
        assert_eq!(runs.patience(start), Some(Duration::from_secs(1)));
        assert!(!runs.open(4, 60, start, false));
        assert_eq!(runs.patience(start), None, "it has ended by its size");
        assert!(!runs.open(5, 1, start, false));
        assert!(!runs.open(6, 1, start + Duration::from_secs(2), false));
        runs.planned = 7;
        runs.completed = 4;
        assert_eq!((runs.due(), runs.writable()), (None, 4));
        runs.completed = 7;
        assert_eq!(runs.writable(), 5, "what comes behind is another run");
        assert_eq!(
            [runs.due(), runs.due(), runs.due()],
            [Some((3, 4)), Some((5, 6)), None]
        );
        assert_eq!(runs.writable(), 7);
        runs.staged(4, 0, receipt(1));
        assert!(runs.ready().is_none(), "one writer is missing");
        runs.staged(4, 0, receipt(0));
        let run = runs.ready().expect("ready");
        assert_eq!((run.first, run.last), (3, 4));
        assert_eq!(run.receipts_of(0)[0].worker, 0);
        assert!(runs.ready().is_none() && !runs.is_empty());
    }

    #[test]
    fn an_epoch_with_many_bytes_is_a_run_alone() {
        let mut runs = Runs::new(seconds(1), false, 1, 0, 0);
        assert!(!runs.open(0, 1, now(), false) && runs.open(1, 100, now(), false));
        assert!(!runs.open(2, 1, now(), false));
        (runs.completed, runs.planned) = (3, 3);
        assert_eq!((runs.due(), runs.due()), (Some((0, 0)), None));
        assert_eq!(
            (runs.first_of(1), runs.patience(now()).is_some()),
            (1, true)
        );
    }

    #[test]
    fn what_comes_before_an_epoch_that_fails_is_a_run() {
        let left = |fails: u64, ended: bool| {
            let mut runs = Runs::new(seconds(1), false, 1, 0, 0);
            for epoch in 0..4 {
                runs.open(epoch, 1, now(), false);
            }
            if ended {
                runs.end();
            }
            (runs.completed, runs.planned) = (fails, 4);
            runs.abandon(fails);
            (runs.due(), runs.due())
        };
        for ended in [false, true] {
            assert_eq!(left(3, ended), (Some((0, 2)), None));
            assert_eq!(left(1, ended), (Some((0, 0)), None));
            assert_eq!(left(0, ended), (None, None));
        }
    }

    #[test]
    fn a_run_is_handed_over_once_and_after_those_before_it() {
        let mut runs = Runs::new(Grouping::NONE, true, 1, 0, 0);
        assert!(!runs.open(0, 0, now(), false) && !runs.open(1, 0, now(), false));
        assert_eq!(runs.due(), None, "it is not over");
        runs.completed = 2;
        runs.planned = 0;
        assert_eq!(runs.due(), None, "its plan is not durable");
        runs.planned = 2;
        assert_eq!((runs.due(), runs.due()), (Some((0, 0)), None));
        runs.staged(0, 0, receipt(0));
        assert!(runs.ready().is_some());
        assert_eq!(
            (runs.due(), runs.due(), runs.waiting()),
            (Some((1, 1)), None, 1)
        );
    }

    #[test]
    fn a_replayed_epoch_is_a_run() {
        let mut runs = Runs::new(seconds(1), false, 1, 0, 0);
        assert!(runs.open(0, 1, now(), true) && runs.open(1, 1, now(), true));
        assert!(!runs.open(2, 1, now(), false));
    }

    #[test]
    fn epochs_the_sink_has_are_in_no_run() {
        let mut runs = Runs::new(Grouping::NONE, false, 1, 5, 3);
        assert!(!runs.open(3, 10, now(), false) && !runs.open(4, 10, now(), false));
        assert!(runs.is_empty());
        assert!(runs.open(5, 10, now(), false));
    }
}
