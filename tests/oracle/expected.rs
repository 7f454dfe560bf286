//! What lands in the streams of a case, and what it means for the answer after each epoch.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use highwater::OutputMode;
use rand::RngExt;

use crate::case::Case;
use crate::prefix::Asked;
use crate::query::Batch;
use crate::rows::{Row, as_json, few_values, random_rows};

/// What an epoch is expected to give.
pub(crate) struct Expected {
    pub(crate) answer: Answer,
    /// How much was late, if that is known.
    pub(crate) late: Option<u64>,
}

/// What the answer after an epoch is made of.
pub(crate) enum Answer {
    /// So many files of each stream.
    Files([usize; 2]),
    /// So many rows in time, and the watermark.
    InTime(usize, i64),
    Prefix(Asked),
    Lines(Vec<String>),
}

impl Case {
    /// Some files for each stream, and what they mean for the answer.
    pub(crate) fn land(&mut self, dir: &Path, first: bool, minute: &mut i64) {
        let before = [self.files[0].len(), self.files[1].len()];
        self.edges.land();
        for (index, stream) in ["t", "u"].into_iter().enumerate() {
            let count = self.random.random_range(0..3).max(usize::from(first));
            for _ in 0..count {
                *minute += self.random.random_range(0..4);
                let make = match self.query.few_values {
                    true => few_values,
                    false => random_rows,
                };
                let mut rows = make(&mut self.random, *minute, self.query.rows_max);
                let share = if self.query.few_values { 0.2 } else { 0.35 };
                let file = (index, rows.as_mut_slice());
                self.edges.sharpen(&mut self.random, file, *minute, share);
                let number = self.files[index].len();
                let hidden = dir.join(stream).join(format!(".{number}"));
                fs::write(&hidden, as_json(&rows)).expect("written");
                let name = dir.join(stream).join(format!("{number:04}.json"));
                fs::rename(&hidden, name).expect("renamed");
                self.files[index].push(rows);
            }
        }
        self.expect(before);
    }

    /// The epochs over the files after the first `before` of each stream: what the answer is after each.
    fn expect(&mut self, before: [usize; 2]) {
        let (mode, reads) = (self.query.mode, self.query.reads());
        let new = [0, 1].map(|stream| match reads[stream] {
            true => self.files[stream].len() - before[stream],
            false => 0,
        });
        let files = new[0].max(new[1]);
        let epochs = if self.one_by_one { files } else { files.min(1) };
        for epoch in 0..epochs {
            let range = [0, 1].map(|stream| {
                let (first, most) = (before[stream], before[stream] + new[stream]);
                match self.one_by_one {
                    true => (first + epoch).min(most)..(first + epoch + 1).min(most),
                    false => first..most,
                }
            });
            let rows = [0, 1].map(|stream| self.files[stream][range[stream].clone()].concat());
            let (answer, late) = match &mut self.query.batch {
                Batch::Same | Batch::As(_) => (Answer::Files([range[0].end, range[1].end]), None),
                Batch::InTime(_) => self.in_time(&rows[0]),
                Batch::Model(model) => {
                    model.epoch(&rows, mode);
                    (Answer::Lines(model.answer(mode)), Some(model.late))
                }
                Batch::Prefix(prefix) => (Answer::Prefix(prefix.epoch(&rows, mode)), None),
            };
            self.expected.push(Expected { answer, late });
        }
        if epochs == 0 {
            return;
        }
        // An epoch without rows, if the watermark moves.
        let idle = match (&mut self.query.batch, &mut self.clock) {
            (Batch::Model(model), _) => {
                let moved = model.idle(mode);
                moved.then(|| (Answer::Lines(model.answer(mode)), Some(model.late)))
            }
            // Looked at when it has run.
            (Batch::Prefix(_), _) => None,
            (_, Some(clock)) => clock
                .idle()
                .then_some((Answer::InTime(self.in_time.len(), clock.now_us), None)),
            _ => None,
        };
        let idle = idle.map(|(answer, late)| Expected { answer, late });
        self.expected.extend(idle);
    }

    /// An epoch without rows that ran, if the watermark has moved.
    pub(crate) fn idled(&mut self) {
        let ran = self.taken.lock().expect("no panic").epochs.len();
        if let Batch::Prefix(prefix) = &mut self.query.batch
            && ran > self.expected.len()
        {
            let idle = prefix.idle(self.query.mode);
            self.expected.extend(idle.map(|asked| Expected {
                answer: Answer::Prefix(asked),
                late: None,
            }));
        }
    }

    /// An epoch over `rows`, as the reference sees it.
    fn in_time(&mut self, rows: &[Row]) -> (Answer, Option<u64>) {
        let (Some(clock), Batch::InTime(rule)) = (&mut self.clock, &self.query.batch) else {
            unreachable!("it has a watermark");
        };
        let fits = |row: &&Row| {
            rule.above
                .is_none_or(|least| row.v.is_some_and(|v| v > least))
        };
        let rows: Vec<Row> = rows.iter().filter(fits).cloned().collect();
        let judges = clock.epoch(&rows);
        // In complete mode nothing is late.
        let in_time = |end: i64| self.query.mode == OutputMode::Complete || end > judges;
        // Late rows are counted as groups.
        let mut late = BTreeSet::new();
        let keys = |row: &Row| {
            let [k, g] = rule.keys.unwrap_or_default();
            (row.k.clone().filter(|_| k), row.g.filter(|_| g))
        };
        let mut dropped = Vec::new();
        for row in rows {
            let last_end = row.ts.map(|ts| match rule.grid {
                Some(grid) => grid.windows(ts)[0].1,
                None => ts,
            });
            if last_end.is_some_and(|end| !in_time(end)) {
                dropped.push(row.clone());
            }
            match (rule.grid, row.ts) {
                (Some(_), None) => {}
                (Some(grid), Some(ts)) => {
                    for (start, end) in grid.windows(ts) {
                        match in_time(end) {
                            true => self.in_time.push((row.clone(), start, end)),
                            false => {
                                late.insert((end, keys(&row)));
                            }
                        }
                    }
                }
                (None, Some(ts)) if !in_time(ts) => {
                    late.insert((ts, keys(&row)));
                }
                (None, _) => self.in_time.push((row, 0, 0)),
            }
        }
        let late = rule.keys.map(|_| late.len() as u64);
        if let Some(late_rows) = &mut self.late_rows {
            late_rows.extend(dropped);
        }
        (Answer::InTime(self.in_time.len(), clock.now_us), late)
    }
}
