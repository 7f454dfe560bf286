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
const AHEAD: i64 = 3 * MINUTE;

#[derive(Default)]
pub(crate) struct Edges {
    /// The spans of time that the query names.
    spans_us: Vec<i64>,
    recent: Vec<Row>,
    latest_us: Option<i64>,
}

impl Edges {
    pub(crate) fn of(query: &Query) -> Self {
        let views = query.views.iter().map(|view| &view.sql);
        let texts = views.chain([&query.sql]);
        let mut spans_us: Vec<i64> = texts.flat_map(|text| spans(text)).collect();
        spans_us.sort_unstable();
        spans_us.dedup();
        Edges {
            spans_us,
            ..Edges::default()
        }
    }

    /// Moves some of the rows of a file to edges, and remembers all.
    pub(crate) fn sharpen(
        &mut self,
        random: &mut StdRng,
        rows: &mut [Row],
        minute: i64,
        share: f64,
    ) {
        for row in rows {
            if !self.spans_us.is_empty() && random.random_bool(share) {
                self.sharpen_row(random, row, minute);
            }
            if self.recent.len() == RECENT {
                self.recent.remove(0);
            }
            self.recent.push(row.clone());
            self.latest_us = self.latest_us.max(row.ts);
        }
    }

    fn sharpen_row(&self, random: &mut StdRng, row: &mut Row, minute: i64) {
        let now_us = minute_us(minute);
        let (mut at, mut like) = (row.ts.unwrap_or(now_us), None);
        match random.random_range(0..5) {
            // The grid of windows.
            0 => at -= at.rem_euclid(self.span(random)),
            // What the watermark is made of.
            1 | 2 => at = self.latest_us.unwrap_or(at),
            _ => {
                like = match self.recent.len() {
                    0 => None,
                    rows => Some(&self.recent[random.random_range(0..rows)]),
                };
                at = like.and_then(|row| row.ts).unwrap_or(at);
            }
        }
        for _ in 0..random.random_range(0..3) {
            let way = [-1, -1, 1][random.random_range(0..3)];
            at += way * self.span(random);
        }
        // A watermark is in milliseconds.
        at += [0, 0, 0, 0, -1, 1, -1, 1, -1_000, 1_000][random.random_range(0..10)];
        if at < now_us - BEHIND || at > now_us + AHEAD {
            return;
        }
        row.ts = Some(at);
        if let Some(like) = like
            && random.random_bool(0.8)
        {
            row.k.clone_from(&like.k);
            row.g = like.g;
        }
    }

    fn span(&self, random: &mut StdRng) -> i64 {
        self.spans_us[random.random_range(0..self.spans_us.len())]
    }
}

/// The spans of time in a text that are not nothing: `INTERVAL 90 SECONDS`, `'5 minutes'`.
fn spans(text: &str) -> Vec<i64> {
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).collect();
    let span = |pair: &[&str]| {
        let unit = match pair[1].to_lowercase().as_str() {
            "second" | "seconds" => SECOND,
            "minute" | "minutes" => MINUTE,
            _ => return None,
        };
        let count: i64 = pair[0].parse().ok()?;
        (count > 0).then_some(count * unit)
    };
    words.windows(2).filter_map(span).collect()
}

#[test]
fn spans_are_found_in_a_query() {
    let text = "window(ts, '5 minutes', '30 seconds') t WATERMARK ts DELAY OF INTERVAL 0 SECONDS + INTERVAL 9 MINUTES";
    assert_eq!(spans(text), [5 * MINUTE, 30 * SECOND, 9 * MINUTE]);
}
