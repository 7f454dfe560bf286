//! Which streams are idle: silent for so long that they no longer hold the watermark back.
//!
//! An epoch's idle streams are decided from its clock and from what the epochs up to it read, all of which is logged,
//! and are logged with it: a replay is told the same, whatever the timeout is by then.
//!
//! The stream that was heard last is never idle. When it has been silent for its time as well, all are, and the watermark
//! stays where it and those heard with it left it: so it does not matter how soon after the timeout an epoch opens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::checkpoint::EpochRecord;
use crate::source::Planned;

/// Keeps account of when each watermarked stream was last heard.
pub(super) struct Idleness {
    /// None if no stream is ever idle.
    timeout_us: Option<i64>,
    /// For each watermark the sources whose rows move it.
    sources: Vec<BTreeSet<usize>>,
    /// For each watermark the clock of the last epoch that brought rows for it: of the first one, if none did. Empty
    /// before that.
    heard_us: Vec<i64>,
    /// The same after each epoch that is not over, and which streams are idle in it.
    open: BTreeMap<u64, Standing>,
}

/// How the streams stand in an epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) idle: Vec<u32>,
    pub(super) heard_us: Vec<i64>,
}

impl Idleness {
    /// `heard_us` is what the checkpoint knows; nothing at first.
    pub(super) fn new(
        timeout: Option<Duration>,
        sources: Vec<BTreeSet<usize>>,
        mut heard_us: Vec<i64>,
    ) -> Self {
        if heard_us.len() != sources.len() {
            heard_us.clear();
        }
        Idleness {
            timeout_us: timeout.map(|timeout| timeout.as_micros() as i64),
            sources,
            heard_us,
            open: BTreeMap::new(),
        }
    }

    /// The clocks by which streams were last heard, after an epoch at `clock_us` that reads `planned`.
    fn heard_after(&self, clock_us: i64, planned: &[Planned]) -> Vec<i64> {
        let brought = |source: &usize| planned.get(*source).is_some_and(|p| !p.splits.is_empty());
        let streams = self.sources.iter().enumerate();
        let heard = streams.map(|(stream, sources)| match self.heard_us.get(stream) {
            Some(heard_us) if !sources.iter().any(brought) => *heard_us,
            _ => clock_us,
        });
        heard.collect()
    }

    /// The streams that are idle in an epoch at `clock_us` that reads `planned`.
    pub(super) fn at(&self, clock_us: i64, planned: &[Planned]) -> Vec<u32> {
        let Some(timeout_us) = self.timeout_us else {
            return Vec::new();
        };
        let heard_us = self.heard_after(clock_us, planned);
        let last_us = heard_us.iter().copied().max().unwrap_or(clock_us);
        let idle =
            |heard_us: i64| heard_us < last_us && clock_us.saturating_sub(heard_us) >= timeout_us;
        (0..)
            .zip(heard_us)
            .filter_map(|(stream, heard_us)| idle(heard_us).then_some(stream))
            .collect()
    }

    /// When streams become idle if no rows come.
    pub(super) fn deadlines_us(&self) -> impl Iterator<Item = i64> {
        let heard_us = self.heard_us.iter();
        self.timeout_us.into_iter().flat_map(move |timeout_us| {
            heard_us
                .clone()
                .map(move |us| us.saturating_add(timeout_us))
        })
    }

    /// An epoch opens, for the first time or again.
    pub(super) fn opened(&mut self, record: &EpochRecord) {
        self.heard_us = self.heard_after(record.clock_us, &record.sources);
        let standing = Standing {
            idle: record.idle.clone(),
            heard_us: self.heard_us.clone(),
        };
        self.open.insert(record.epoch, standing);
    }

    /// How the streams stood in an epoch that is over.
    pub(super) fn over(&mut self, epoch: u64) -> Standing {
        self.open.remove(&epoch).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Offset, Split};

    fn planned(brings: bool) -> Planned {
        let split = Split {
            descriptor: String::new(),
            bytes: 1,
            process: None,
        };
        Planned {
            start: Offset(0.into()),
            end: Offset(0.into()),
            splits: brings.then_some(split).into_iter().collect(),
        }
    }

    /// Plays epochs, each a clock and which of three sources brings rows: the idle streams of each. The first two
    /// sources move one watermark, the third another.
    fn play(
        timeout_us: Option<u64>,
        heard_us: Vec<i64>,
        epochs: &[(i64, [bool; 3])],
    ) -> Vec<Vec<u32>> {
        let sources = vec![[0, 1].into(), [2].into()];
        let mut idleness = Idleness::new(timeout_us.map(Duration::from_micros), sources, heard_us);
        let mut decided = Vec::new();
        for (epoch, (clock_us, brings)) in (0..).zip(epochs) {
            let sources: Vec<Planned> = brings.iter().map(|brings| planned(*brings)).collect();
            let idle = idleness.at(*clock_us, &sources);
            idleness.opened(&EpochRecord {
                epoch,
                clock_us: *clock_us,
                sources,
                idle: idle.clone(),
                statics: Vec::new(),
            });
            decided.push(idle);
        }
        decided
    }

    const FIRST: [bool; 3] = [true, false, false];
    const SECOND: [bool; 3] = [false, true, false];
    const THIRD: [bool; 3] = [false, false, true];
    const NONE: [bool; 3] = [false; 3];

    #[test]
    fn a_stream_is_idle_from_its_timeout_until_it_speaks_unless_it_spoke_last() {
        let epochs = [
            (100, FIRST),
            (109, SECOND),
            (110, SECOND),
            (111, THIRD),
            (120, THIRD),
            (200, NONE),
        ];
        let none: Vec<u32> = Vec::new();
        let expected = [
            none.clone(),
            none.clone(),
            vec![1],
            none.clone(),
            vec![0],
            vec![0],
        ];
        assert_eq!(play(Some(10), Vec::new(), &epochs), expected);
        assert!(play(None, Vec::new(), &epochs).iter().all(Vec::is_empty));
    }

    #[test]
    fn a_restart_knows_when_each_stream_was_heard() {
        assert_eq!(play(Some(10), vec![95, 91], &[(101, FIRST)]), [[1]]);
        assert_eq!(play(Some(10), vec![95, 92], &[(101, FIRST)]), [[0u32; 0]]);
        let unknown = play(Some(10), Vec::new(), &[(101, FIRST), (111, FIRST)]);
        assert_eq!(unknown, [vec![], vec![1]]);
    }

    #[test]
    fn an_epoch_that_is_over_tells_how_streams_stood_in_it() {
        let mut idleness = Idleness::new(Some(Duration::from_micros(5)), vec![[0].into()], vec![1]);
        let epoch = |epoch, clock_us, idle| EpochRecord {
            epoch,
            clock_us,
            sources: vec![planned(epoch == 1)],
            idle,
            statics: Vec::new(),
        };
        idleness.opened(&epoch(0, 7, vec![0]));
        idleness.opened(&epoch(1, 8, vec![]));
        let before = Standing {
            idle: vec![0],
            heard_us: vec![1],
        };
        assert_eq!(idleness.over(0), before);
        assert_eq!(idleness.over(1).heard_us, [8]);
        assert_eq!(idleness.deadlines_us().collect::<Vec<_>>(), [13]);
    }
}
