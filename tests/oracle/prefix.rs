//! The batch answer over the rows in time, of which each use of a stream has its own.

use highwater::OutputMode;

use crate::model::{Boxed, Cell, Epoch, Line, Number};
use crate::model_join::TIME;
use crate::query::View;
use crate::reference::Grid;
use crate::rows::{Row, SECOND};

/// The delay of all watermarks.
pub(crate) const DELAY_SECONDS: i64 = 60;

/// Where the rows of a stream are first judged by their time, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Late {
    Time,
    /// The same, in complete mode too.
    Always,
    /// By the end of the window.
    Window(Grid),
    /// By the end of the session of the row alone.
    Session(i64),
}

/// A use of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Use {
    pub(crate) name: &'static str,
    pub(crate) stream: usize,
    /// With how much the time may trail behind the watermark.
    pub(crate) late: Option<(Late, i64)>,
}

/// The rows of every use of a stream that were in time so far, and what is asked of them.
pub(crate) struct Prefix {
    pub(crate) uses: Vec<Use>,
    pub(crate) in_time: Vec<Vec<Row>>,
    /// Sessions by the model, which are the rows of the first use.
    pub(crate) made: Option<(Boxed, Vec<Line>)>,
    pub(crate) marked: bool,
    pub(crate) max_us: [Option<i64>; 2],
    pub(crate) now_us: i64,
    /// What is asked, and of which views.
    pub(crate) sql: String,
    pub(crate) views: Vec<View>,
    /// Of the rows some are asked for.
    pub(crate) most: Option<usize>,
    pub(crate) how: How,
    /// True if the rows are judged once more by their time, which is the last column.
    pub(crate) late_above: bool,
    /// True if rows without a time, which is the last column, are not known again when they come again.
    pub(crate) forgets: bool,
}

/// How the rows that came relate to those that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    AddUp,
    /// Rows count only that no earlier answer had, in complete mode those of the last epoch.
    Unseen,
    /// Those that are asked for came, and besides only some that were before.
    Replaced,
}

/// What an epoch asks: the rows of each use, and the watermark that judges.
pub(crate) type Asked = (Vec<Vec<Row>>, i64);

impl Prefix {
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.uses.iter().map(|one| one.name)
    }

    pub(crate) fn reads(&self) -> [bool; 2] {
        [0, 1].map(|stream| self.uses.iter().any(|one| one.stream == stream))
    }

    fn next_us(&self) -> i64 {
        let reads = self.reads();
        let streams = (0..2).filter(|stream| reads[*stream]);
        let mark = |stream: usize| {
            let max = self.max_us[stream];
            max.map_or(0, |us| {
                us.div_euclid(1_000) * 1_000 - DELAY_SECONDS * SECOND
            })
        };
        let mark = streams.map(mark).min().unwrap_or(0);
        self.now_us.max(mark)
    }

    pub(crate) fn epoch(&mut self, rows: &[Vec<Row>; 2], mode: OutputMode) -> Asked {
        let judges_us = self.now_us;
        self.now_us = self.next_us();
        let known = |row: &&Row| row.k.is_some() && row.g.is_some() && row.v.is_some();
        for (one, in_time) in self.uses.iter().zip(&mut self.in_time) {
            let in_its_time = |row: &&Row| {
                let (Some((late, trail_us)), Some(at)) = (one.late, row.ts) else {
                    return true;
                };
                let end = match late {
                    Late::Time | Late::Always => at,
                    Late::Window(grid) => grid.windows(at)[0].1,
                    Late::Session(gap) => at + gap,
                };
                let counts = mode != OutputMode::Complete || matches!(late, Late::Always);
                !counts || end > judges_us - trail_us
            };
            let rows = rows[one.stream].iter();
            in_time.extend(rows.filter(known).filter(in_its_time).cloned());
        }
        if let Some((flow, out)) = &mut self.made {
            let late = Number::default();
            out.extend(flow.epoch(Epoch::new(rows, judges_us, self.now_us, &late)));
            let all = out.iter().cloned().chain(flow.standing());
            self.in_time[0] = all.map(row_of).collect();
        }
        for (max, rows) in self.max_us.iter_mut().zip(rows) {
            let seen = rows.iter().filter(known).filter_map(|row| row.ts).max();
            *max = (*max).max(seen);
        }
        (self.in_time.clone(), judges_us)
    }

    /// An epoch without rows, which runs only if the watermark moves.
    pub(crate) fn idle(&mut self, mode: OutputMode) -> Option<Asked> {
        let moves = self.marked && self.next_us() > self.now_us;
        moves.then(|| self.epoch(&[Vec::new(), Vec::new()], mode))
    }

    /// True if a row of the answer, as text, is late where it comes in last.
    pub(crate) fn is_late(&self, row: &str, judges_us: i64) -> bool {
        let at = row.rsplit('|').next().and_then(|at| at.parse::<i64>().ok());
        self.late_above && at.is_some_and(|at| at <= judges_us)
    }

    /// True if a row of the answer comes out again with every epoch that has it.
    pub(crate) fn is_forgotten(&self, row: &str) -> bool {
        self.forgets && row.ends_with("|NULL")
    }
}

fn row_of(line: Line) -> Row {
    let k = match &line[0] {
        Cell::Text(text) => Some(text.clone()),
        _ => None,
    };
    Row {
        k,
        g: line[1].int(),
        v: line[2].int(),
        x: None,
        line: None,
        ts: line[TIME].int(),
    }
}
