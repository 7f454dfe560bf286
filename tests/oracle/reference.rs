//! Event time told simply: which rows were in time, batch by batch, and what is final. Independent of the engine: it
//! keeps every row and computes everything again.

use crate::rows::Row;

/// Windows over a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    pub(crate) width: i64,
    pub(crate) slide: i64,
    pub(crate) start: i64,
}

impl Grid {
    /// Start and end of every window that `time` is in.
    pub(crate) fn windows(self, time: i64) -> Vec<(i64, i64)> {
        let mut found = Vec::new();
        let mut start = time - (time - self.start).rem_euclid(self.slide);
        while start + self.width > time {
            found.push((start, start + self.width));
            start -= self.slide;
        }
        found
    }
}

/// The watermark of one stream. Where epochs without rows follow is the model's rule: after the last rows, if the
/// watermark has moved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    delay_us: i64,
    max_us: Option<i64>,
    /// What the last epoch ran with.
    pub(crate) now_us: i64,
    closes_alone: bool,
}

impl Clock {
    /// `closes_alone`: whether epochs without rows run.
    pub(crate) fn new(delay_us: i64, closes_alone: bool) -> Self {
        let (max_us, now_us) = (None, 0);
        Clock {
            delay_us,
            max_us,
            now_us,
            closes_alone,
        }
    }

    fn next_us(&self) -> i64 {
        let of_rows = self
            .max_us
            .map_or(0, |max| max.div_euclid(1000) * 1000 - self.delay_us);
        self.now_us.max(of_rows)
    }

    /// Runs an epoch over `rows`; the watermark that judges which of them are late.
    pub(crate) fn epoch(&mut self, rows: &[Row]) -> i64 {
        let judges = self.now_us;
        self.now_us = self.next_us();
        let seen = rows.iter().filter_map(|row| row.ts).max();
        self.max_us = self.max_us.max(seen);
        judges
    }

    /// Nothing more has come: the epoch that closes what the last one's rows allow, if there is one.
    pub(crate) fn idle(&mut self) -> bool {
        let moves = self.closes_alone && self.next_us() > self.now_us;
        if moves {
            self.now_us = self.next_us();
        }
        moves
    }
}
