//! Which numbers there are at a time, and when each one came.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::datatypes::SchemaRef;
use highwater_engine::source::{
    Admitted, Batches, Offset, Reader, Resume, Retry, Source, SourceError, Split, Waker, Watch,
};
use serde::{Deserialize, Serialize};

use super::{ROW_BYTES, RateOptions, batches, offset_of, parse_numbers, parse_position};

const POLL_MS: u64 = 10;

/// What can go wrong with made-up numbers.
#[derive(Debug, thiserror::Error)]
pub enum RateError {
    /// The engine's log holds something that no rate source wrote.
    #[error("\"{text}\" is no {what} of a rate source")]
    NotOurs {
        /// What was found.
        text: String,
        /// What was expected.
        what: &'static str,
    },
    /// Arrow refused what was built.
    #[error("could not build columns")]
    Arrow(#[from] arrow::error::ArrowError),
}

impl From<RateError> for SourceError {
    fn from(error: RateError) -> Self {
        SourceError {
            connector: "rate",
            retry: Retry::Never,
            source: Box::new(error),
        }
    }
}

/// `rows` numbers since `start`, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    start: i64,
    rows: u64,
}

/// The numbers `from..to`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Numbers {
    start: i64,
    from: u64,
    to: u64,
}

impl RateOptions {
    /// How many numbers there are `elapsed_us` after the start.
    fn rows_at(&self, elapsed_us: i64) -> u64 {
        let elapsed_us = elapsed_us.max(0);
        if self.ramp_up_us == 0 {
            let rows = i128::from(elapsed_us) * i128::from(self.rows_per_second) / 1_000_000;
            return rows.min(i128::from(i64::MAX)) as u64;
        }
        let (rate, ramp) = (self.rows_per_second as f64 / 1e6, self.ramp_up_us as f64);
        let elapsed = elapsed_us as f64;
        let rows = match elapsed < ramp {
            true => rate * elapsed * elapsed / (2.0 * ramp),
            false => rate * (elapsed - ramp / 2.0),
        };
        rows as u64
    }

    /// How long after the start a number comes.
    fn comes_after_us(&self, number: u64) -> i64 {
        if self.ramp_up_us == 0 {
            let us = u128::from(number) * 1_000_000 / u128::from(self.rows_per_second);
            return us.min(i64::MAX as u128) as i64;
        }
        let (rate, ramp) = (self.rows_per_second as f64 / 1e6, self.ramp_up_us as f64);
        let number = number as f64;
        let us = match number < rate * ramp / 2.0 {
            true => (2.0 * ramp * number / rate).sqrt(),
            false => number / rate + ramp / 2.0,
        };
        us as i64
    }
}

pub(super) struct RateSource {
    reader: Arc<RateReader>,
    start: i64,
}

/// Microseconds since 1970.
#[allow(
    clippy::disallowed_methods,
    reason = "tells how many rows are due; their timestamps follow from the offset"
)]
fn now_us() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as i64)
}

impl RateSource {
    pub(super) fn open(reader: Arc<RateReader>) -> Self {
        RateSource {
            reader,
            start: now_us(),
        }
    }

    fn latest_at(&self, now_us: i64) -> Position {
        Position {
            start: self.start,
            rows: self.reader.rate.rows_at(now_us - self.start),
        }
    }

    fn splits(&self, from: u64, to: u64) -> Vec<Split> {
        let (rows, parts) = (to - from, self.reader.rate.partitions);
        let cut =
            |part: u64| from + (u128::from(rows) * u128::from(part) / u128::from(parts)) as u64;
        let ranges = (0..parts).map(|part| (cut(part), cut(part + 1)));
        ranges
            .filter(|(from, to)| from < to)
            .map(|(from, to)| {
                let numbers = Numbers {
                    start: self.start,
                    from,
                    to,
                };
                Split {
                    descriptor: serde_json::to_string(&numbers).expect("numbers can be written"),
                    bytes: (to - from) * ROW_BYTES,
                    process: None,
                }
            })
            .collect()
    }
}

impl Source for RateSource {
    fn description(&self) -> String {
        format!(
            "RateStreamSource[rowsPerSecond={}]",
            self.reader.rate.rows_per_second
        )
    }

    fn watch(&mut self, _: Waker) -> Result<Watch, SourceError> {
        Ok(Watch::PollEveryMs(POLL_MS))
    }

    fn resume(&mut self, from: Resume<'_>) -> Result<(), SourceError> {
        self.start = parse_position::<Position>(from.at)?.start;
        Ok(())
    }

    fn initial(&mut self) -> Result<Offset, SourceError> {
        let position = Position {
            start: self.start,
            rows: 0,
        };
        Ok(offset_of(position))
    }

    fn latest(&mut self) -> Result<Offset, SourceError> {
        Ok(offset_of(self.latest_at(now_us())))
    }

    fn admit(
        &mut self,
        from: &Offset,
        to: &Offset,
        bytes_max: u64,
    ) -> Result<Option<Admitted>, SourceError> {
        let (from, mut to) = (
            parse_position::<Position>(from)?,
            parse_position::<Position>(to)?,
        );
        if from.start != to.start {
            // The query was restarted: its checkpoint says when the numbers began.
            self.start = from.start;
            to = self.latest_at(now_us());
        }
        if from.rows >= to.rows {
            return Ok(None);
        }
        let rows_max = (bytes_max / ROW_BYTES).max(1);
        let end = to.rows.min(from.rows.saturating_add(rows_max));
        let position = Position {
            start: self.start,
            rows: end,
        };
        Ok(Some(Admitted {
            end: offset_of(position),
            splits: self.splits(from.rows, end),
        }))
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.reader) as Arc<dyn Reader>
    }
}

pub(super) struct RateReader {
    pub(super) rate: RateOptions,
    pub(super) schema: SchemaRef,
}

impl Reader for RateReader {
    fn read(&self, split: &Split, columns: &[usize]) -> Result<Batches, SourceError> {
        let numbers: Numbers = parse_numbers(split)?;
        let rate = self.rate;
        batches(&self.schema, columns, numbers.from..numbers.to, move |n| {
            numbers.start.saturating_add(rate.comes_after_us(n))
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
    use highwater_engine::source::{SourceFactory, SourceRequest};
    use highwater_text::options::Options;

    use super::*;
    use crate::conformance;

    fn factory(options: &[(&str, &str)]) -> Arc<dyn SourceFactory> {
        let mut request = SourceRequest {
            options: Options::default(),
            path: None,
            schema: None,
            streaming: true,
            time_zone: "UTC".into(),
        };
        for (name, value) in options {
            request.options.set(name, value);
        }
        super::super::sources()[0].1.source(request).unwrap()
    }

    fn position(start: i64, rows: u64) -> Offset {
        offset_of(Position { start, rows })
    }

    #[test]
    fn numbers_conform() {
        let options = [("rowsPerSecond", "3000"), ("numPartitions", "3")];
        let rows = conformance::source(factory(&options).as_ref());
        let values = rows.column(1).as_primitive::<Int64Type>().values();
        assert!(
            values
                .iter()
                .enumerate()
                .all(|(at, value)| *value == at as i64)
        );
    }

    #[test]
    fn a_number_has_its_time_however_epochs_are_cut() {
        let factory = factory(&[("rowsPerSecond", "4")]);
        let mut source = factory.open().unwrap();
        let read = |splits: &[Split]| {
            let rows = conformance::read(
                factory.reader().as_ref(),
                &factory.schema(),
                splits,
                &[0, 1],
            );
            let rows = rows.unwrap();
            rows.column(0)
                .as_primitive::<TimestampMicrosecondType>()
                .values()
                .to_vec()
        };
        let resume = Resume {
            at: &position(0, 0),
            oldest: &position(0, 0),
            memory: &mut std::iter::empty(),
            planned: &[],
        };
        source.resume(resume).unwrap();
        let mut splits = |from: u64| {
            let admitted = source.admit(&position(0, from), &position(0, 6), u64::MAX);
            admitted.unwrap().unwrap().splits
        };
        assert_eq!(
            read(&splits(0)),
            [0, 250_000, 500_000, 750_000, 1_000_000, 1_250_000]
        );
        assert_eq!(read(&splits(4)), [1_000_000, 1_250_000]);
    }

    #[test]
    fn a_restarted_query_goes_on_where_it_was() {
        let factory = factory(&[("rowsPerSecond", "1000")]);
        let mut source = factory.open().unwrap();
        let start = now_us() - 5_000_000;
        let latest = source.latest().unwrap();
        let admitted = source
            .admit(&position(start, 4000), &latest, u64::MAX)
            .unwrap()
            .unwrap();
        let end = parse_position::<Position>(&admitted.end).unwrap();
        assert!(end.start == start && end.rows >= 5000, "{end:?}");
        assert!(
            parse_position::<Position>(&source.latest().unwrap())
                .unwrap()
                .start
                == start
        );
    }

    #[test]
    fn a_resumed_query_has_its_start_before_it_asks() {
        let factory = factory(&[("rowsPerSecond", "1000")]);
        let mut source = factory.open().unwrap();
        let start = now_us() - 5_000_000;
        let resume = Resume {
            at: &position(start, 4000),
            oldest: &position(start, 4000),
            memory: &mut std::iter::empty(),
            planned: &[],
        };
        source.resume(resume).unwrap();
        let latest = parse_position::<Position>(&source.latest().unwrap()).unwrap();
        assert!(latest.start == start && latest.rows >= 5000, "{latest:?}");
    }

    #[test]
    fn the_rate_ramps_up() {
        let rate = RateOptions {
            rows_per_second: 100,
            ramp_up_us: 10_000_000,
            partitions: 1,
        };
        assert_eq!(rate.rows_at(0), 0);
        assert_eq!(rate.rows_at(10_000_000), 500);
        assert_eq!(rate.rows_at(11_000_000), 600);
        for number in [0, 1, 7, 499, 500, 501, 10_000] {
            let us = rate.comes_after_us(number);
            assert!(
                rate.rows_at(us + 1) >= number && rate.rows_at(us - 1) <= number,
                "{number}"
            );
        }
    }
}
