//! Whether what a query gave adds up to the answer, epoch by epoch.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;
use highwater::{OutputMode, Session};

use crate::case::Case;
use crate::common::{lines, rows_of};
use crate::expected::{Answer, Expected};
use crate::prefix::{Asked, How};
use crate::query::{Batch, InTime};
use crate::rows::{SCHEMA, as_batch, text_of, with_windows};
use crate::taken::in_order;

/// What is expected of a query over rows in time, and what joins the rows that were seen.
struct Prefixed {
    expected: Vec<String>,
    new: Vec<String>,
}

impl Case {
    /// What was emitted up to each epoch since the last judgement adds up to the answer after it.
    pub(crate) fn judge(&mut self, reference: &Session, step: usize) {
        let shared = Arc::clone(&self.taken);
        let taken = shared.lock().expect("no panic");
        let epochs: Vec<u64> = taken.epochs.keys().copied().collect();
        let dense: Vec<u64> = (0..self.expected.len() as u64).collect();
        for epoch in self.judged..self.expected.len().min(epochs.len()) {
            let Expected { answer, late } = &self.expected[epoch];
            if let (Some(late), Some(found)) = (late, self.late.get(&(epoch as u64))) {
                assert_eq!(found, late, "late in epoch {epoch}, step {step}");
            }
            let expected = match answer {
                Answer::Files(files) => self.batch_answer(reference, *files),
                Answer::InTime(rows, now_us) => self.in_time_answer(reference, *rows, *now_us),
                Answer::Prefix(asked) => {
                    let answer = self.prefix_answer(reference, asked);
                    self.seen.extend(answer.new);
                    answer.expected
                }
                Answer::Lines(lines) => lines.clone(),
            };
            let answer = taken.answer(&self.query, epoch + 1);
            if matches!(&self.query.batch, Batch::Prefix(prefix) if prefix.how == How::Replaced) {
                let came = expected.iter().all(|row| answer.contains(row));
                let known = answer.iter().all(|row| self.seen.contains(row));
                assert!(
                    came && known,
                    "epoch {epoch}, step {step}: {answer:?} of {expected:?}"
                );
                continue;
            }
            if let Some(most) = self.query.most() {
                assert_eq!(
                    answer.len(),
                    expected.len().min(most),
                    "epoch {epoch}, step {step}"
                );
                let (all, these) = (count(&expected), count(&answer));
                let some = these.iter().all(|(row, times)| all.get(row) >= Some(times));
                assert!(
                    some,
                    "epoch {epoch}, step {step}: {answer:?} of {expected:?}"
                );
                continue;
            }
            assert_eq!(answer, expected, "epoch {epoch}, step {step}");
        }
        assert_eq!(epochs, dense, "the epochs after step {step}");
        drop(taken);
        self.judged = self.expected.len();
    }

    /// Each late row is whole and once in the table it was sent to, if one was asked for.
    pub(crate) fn judge_late(&self, reference: &Session, dir: &Path, step: usize) {
        let Some(late) = &self.late_rows else {
            return;
        };
        let reader = reference.read().format("parquet");
        let rows = reader
            .schema(SCHEMA)
            .and_then(|reader| reader.path(dir.join("late")).load())
            .and_then(|frame| frame.collect());
        let found = sorted(lines(&rows.expect("late rows")));
        assert_eq!(found, sorted(lines(&[as_batch(late)])), "late, step {step}");
    }

    /// The answer over the first files of both streams.
    fn batch_answer(&self, reference: &Session, files: [usize; 2]) -> Vec<String> {
        for (stream, name) in ["t", "u"].into_iter().enumerate() {
            let rows = self.files[stream][..files[stream]].concat();
            view(reference, name, as_batch(&rows));
        }
        let sql = match &self.query.batch {
            Batch::As(sql) => sql,
            _ => &self.query.sql,
        };
        let rows = lines(&rows_of(reference, sql));
        match self.query.mode {
            OutputMode::Complete => in_order(&self.query, rows),
            _ => sorted(rows),
        }
    }

    fn prefix_answer(&self, reference: &Session, (rows, judges_us): &Asked) -> Prefixed {
        let Batch::Prefix(prefix) = &self.query.batch else {
            unreachable!("it has uses of streams");
        };
        for (name, rows) in prefix.names().zip(rows) {
            view(reference, name, as_batch(rows));
        }
        for view in &prefix.views {
            let frame = reference.sql(&view.sql).expect("a static query");
            let firsts = frame.drop_duplicates(&view.keys).expect("first rows");
            let made = firsts.create_or_replace_temp_view(&view.name);
            made.expect("a view");
        }
        let answer = sorted(lines(&rows_of(reference, &prefix.sql)));
        match prefix.how {
            How::AddUp => Prefixed {
                expected: answer,
                new: Vec::new(),
            },
            How::Replaced => Prefixed {
                expected: answer.clone(),
                new: answer,
            },
            How::Unseen => {
                let new = answer.into_iter().filter(|row| {
                    let unseen = !self.seen.contains(row) || prefix.is_forgotten(row);
                    unseen && !prefix.is_late(row, *judges_us)
                });
                let new: Vec<String> = new.collect();
                let all = self.seen.iter().chain(&new).cloned().collect();
                let complete = self.query.mode == OutputMode::Complete;
                let expected = if complete { new.clone() } else { sorted(all) };
                Prefixed { expected, new }
            }
        }
    }

    fn in_time_answer(&self, reference: &Session, rows: usize, now_us: i64) -> Vec<String> {
        let Batch::InTime(InTime { sql, ends, .. }) = &self.query.batch else {
            unreachable!("it has a watermark");
        };
        view(reference, "p", with_windows(&self.in_time[..rows]));
        let cut = match self.query.mode {
            OutputMode::Append => {
                let now = text_of(now_us, "%Y-%m-%d %H:%M:%S%.6f");
                format!("{ends} <= TIMESTAMP '{now}'")
            }
            _ => "true".to_string(),
        };
        sorted(lines(&rows_of(reference, &sql.replace("{final}", &cut))))
    }
}

fn count(rows: &[String]) -> BTreeMap<&String, usize> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(row).or_default() += 1;
    }
    counts
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort();
    rows
}

fn view(session: &Session, name: &str, batch: RecordBatch) {
    let frame = session.create_dataframe(batch.schema(), vec![batch]);
    let made = frame.and_then(|frame| frame.create_or_replace_temp_view(name));
    made.expect("a view");
}
