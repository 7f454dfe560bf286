//! Event times at the edges of what a query asks: as far from another row as a delay, a gap, a range or a window is
//! wide, and a microsecond to either side. Times at random hardly ever are.

use rand::RngExt;
use rand::rngs::StdRng;

use crate::query::Query;
use crate::rows::{MINUTE, Row, SECOND, minute_us};

/// Rows of the past that a new one may be near to.
const RECENT: usize = 60;

/// How far event times may be behind and ahead of those of their file, as elsewhere.
const BEHIND: i64 = 14 * MINUTE;
const AHEAD: i64 = 6 * MINUTE;

#[derive(Default)]
pub(crate) struct Edges {
    /// The spans of time that the query names, but none that are nothing.
    spans_us: Vec<i64>,
    /// By how much its watermarks are behind.
    delays_us: Vec<i64>,
    recent: Vec<Row>,
    /// The latest time of each stream that it reads, and that before the files which land together.
    latest_us: [Option<i64>; 2],
    before_us: [Option<i64>; 2],
    reads: [bool; 2],
}

impl Edges {
    pub(crate) fn of(query: &Query) -> Self {
        let views = query.views.iter().map(|view| &view.sql);
        let (mut spans_us, mut delays_us) = (Vec::new(), Vec::new());
        for text in views.chain([&query.sql]) {
            spans_us.extend(spans(text).into_iter().filter(|us| *us > 0));
            let delays = text.split("DELAY OF ").skip(1);
            delays_us.extend(delays.filter_map(|delay| spans(delay).first().copied()));
        }
        for list in [&mut spans_us, &mut delays_us] {
            list.sort_unstable();
            list.dedup();
        }
        Edges {
            spans_us,
            delays_us,
            reads: query.reads(),
            ..Edges::default()
        }
    }

    /// More files land together: by those before them it is judged what is late.
    pub(crate) fn land(&mut self) {
        self.before_us = self.latest_us;
    }

    /// Moves some of the rows of a file of a stream to edges, and remembers all.
    pub(crate) fn sharpen(
        &mut self,
        random: &mut StdRng,
        (stream, rows): (usize, &mut [Row]),
        minute: i64,
        share: f64,
    ) {
        let knows = !self.spans_us.is_empty() || !self.delays_us.is_empty();
        if !knows || !self.reads[stream] {
            return;
        }
        let known = (0..2).filter_map(|stream| self.before_us[stream]);
        let known: Vec<i64> = known.collect();
        for row in rows {
            if random.random_bool(share) {
                let before_us = (!known.is_empty()).then(|| one(random, &known));
                self.sharpen_row(random, row, minute, before_us);
            }
            if self.recent.len() == RECENT {
                self.recent.remove(0);
            }
            self.recent.push(row.clone());
            let latest_us = &mut self.latest_us[stream];
            *latest_us = (*latest_us).max(row.ts);
        }
    }

    fn sharpen_row(&self, random: &mut StdRng, row: &mut Row, minute: i64, before_us: Option<i64>) {
        let due_us = minute_us(minute);
        let own = row.ts.unwrap_or(due_us);
        let delay = one(random, &self.delays_us);
        let mut near = None;
        let mut at = match (random.random_range(0..8), before_us) {
            // At the watermark, or so far from it.
            (0..3, Some(before)) => {
                let further = random.random_bool(0.3);
                let further = if further { self.span(random) } else { 0 };
                before.div_euclid(1_000) * 1_000 - delay + further
            }
            // Brings the watermark to the end of something: of what a row is waited for, or of a window.
            (3..6, Some(before)) => match self.one_of_recent(random) {
                Some(Row { ts: Some(time), .. }) if random.random_bool(0.6) => {
                    time + self.span(random).abs() + delay
                }
                _ => {
                    let grid = one(random, &self.spans_us).max(MINUTE);
                    (before - delay).div_euclid(grid) * grid + grid + delay
                }
            },
            _ => {
                near = self.one_of_recent(random);
                let spans = random.random_range(0..3);
                let away: i64 = (0..spans).map(|_| self.span(random)).sum();
                near.and_then(|row| row.ts).unwrap_or(own) + away
            }
        };
        // A watermark is in milliseconds.
        at += [0, 0, 0, 0, 0, -1, 1, -1, 1, -1_000, 1_000][random.random_range(0..11)];
        if at < due_us - BEHIND || at > due_us + AHEAD {
            return;
        }
        row.ts = Some(at);
        if let Some(near) = near
            && random.random_bool(0.8)
        {
            row.k.clone_from(&near.k);
            row.g = near.g;
        }
    }

    /// Rather one whose time is not in whole milliseconds, as watermarks are.
    fn one_of_recent(&self, random: &mut StdRng) -> Option<&Row> {
        let odd = |row: &&Row| row.ts.is_some_and(|us| us % 1_000 != 0);
        let odd: Vec<&Row> = self.recent.iter().filter(odd).collect();
        match (odd.len(), self.recent.len()) {
            (_, 0) => None,
            (1.., _) if random.random_bool(0.5) => Some(odd[random.random_range(0..odd.len())]),
            (_, rows) => Some(&self.recent[random.random_range(0..rows)]),
        }
    }

    /// A span of the query, to either side.
    fn span(&self, random: &mut StdRng) -> i64 {
        let way = [-1, 1][random.random_range(0..2)];
        way * one(random, &self.spans_us)
    }
}

fn one(random: &mut StdRng, of: &[i64]) -> i64 {
    match of.len() {
        0 => 0,
        count => of[random.random_range(0..count)],
    }
}

/// The spans of time in a text: `INTERVAL 90 SECONDS`, `'5 minutes'`.
fn spans(text: &str) -> Vec<i64> {
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).collect();
    let span = |pair: &[&str]| {
        let unit = match pair[1].to_lowercase().as_str() {
            "second" | "seconds" => SECOND,
            "minute" | "minutes" => MINUTE,
            _ => return None,
        };
        let count: i64 = pair[0].parse().ok()?;
        Some(count * unit)
    };
    words.windows(2).filter_map(span).collect()
}

#[test]
fn spans_are_found_in_a_query() {
    let text = "window(ts, '5 minutes', '30 seconds') t WATERMARK ts DELAY OF INTERVAL 0 SECONDS + INTERVAL 9 MINUTES";
    assert_eq!(spans(text), [5 * MINUTE, 30 * SECOND, 0, 9 * MINUTE]);
}
