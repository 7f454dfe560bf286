//! Numbers that come in epochs of a fixed size, each epoch with one timestamp; for tests that must come out the same.
//!
//! Split: a range of numbers. Offset: how many numbers there were, and the time that the next ones get:
//! `{"offset": 300, "timestamp": 3000}`, in milliseconds. Replayable: always, for both follow from the number of the
//! epoch alone, and no clock is read.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use highwater_engine::source::{
    Admitted, Batches, FormatError, Offset, Reader, Resume, Source, SourceError, SourceFactory,
    SourceFormat, SourceRequest, Split, Waker, Watch,
};
use highwater_text::options::OptionError;
use serde::{Deserialize, Serialize};

use super::{
    ROW_BYTES, batches, check_request, offset_of, parse_numbers, parse_position, rate_schema,
};
use highwater_text::options::{invalid, positive};

/// There is always something to read: nobody has to ask for it.
const POLL_MS: u64 = 10;

/// How many numbers an epoch has, and when they come.
#[derive(Debug, Clone, Copy)]
pub struct MicroBatchOptions {
    /// So many in each epoch.
    pub rows_per_batch: u64,
    /// Into so many splits an epoch is cut.
    pub partitions: u64,
    /// The time of the first epoch's rows, in milliseconds since 1970.
    pub start_ms: i64,
    /// So much later are those of the next.
    pub advance_ms: i64,
}

pub(super) struct MicroBatchFormat;

impl SourceFormat for MicroBatchFormat {
    fn source(&self, request: SourceRequest) -> Result<Arc<dyn SourceFactory>, FormatError> {
        let owner = "the rate-micro-batch stream";
        let options = &request.options;
        let known = [
            "rowsPerBatch",
            "numPartitions",
            "startTimestamp",
            "advanceMillisPerBatch",
        ];
        options.only(owner, &known, &[])?;
        check_request("rate-micro-batch", &request)?;
        let missing = || OptionError::Missing {
            name: "rowsPerBatch".into(),
            owner: owner.into(),
        };
        let from_zero = |name: &str, default: i64| {
            let value = options.parse::<i64>(owner, name)?.unwrap_or(default);
            match value < 0 {
                true => Err(invalid(owner, name, &value.to_string(), "it is 0 or more")),
                false => Ok(value),
            }
        };
        let rate = MicroBatchOptions {
            rows_per_batch: positive(options, owner, "rowsPerBatch")?.ok_or_else(missing)?,
            partitions: positive(options, owner, "numPartitions")?.unwrap_or(1),
            start_ms: from_zero("startTimestamp", 0)?,
            advance_ms: from_zero("advanceMillisPerBatch", 1000)?,
        };
        let schema = rate_schema();
        Ok(Arc::new(MicroBatchFactory {
            reader: Arc::new(MicroBatchReader { schema }),
            rate,
        }))
    }
}

struct MicroBatchFactory {
    rate: MicroBatchOptions,
    reader: Arc<MicroBatchReader>,
}

impl SourceFactory for MicroBatchFactory {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.reader.schema)
    }

    fn open(&self) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(MicroBatchSource {
            rate: self.rate,
            at: self.rate.start(),
            reader: Arc::clone(&self.reader),
        }))
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.reader) as Arc<dyn Reader>
    }
}

/// The numbers from `offset` on get `timestamp`, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    offset: u64,
    timestamp: i64,
}

/// The numbers `from..to`, at one time.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Numbers {
    timestamp: i64,
    from: u64,
    to: u64,
}

impl MicroBatchOptions {
    fn start(&self) -> Position {
        Position {
            offset: 0,
            timestamp: self.start_ms,
        }
    }

    /// One epoch later.
    fn after(&self, at: Position) -> Position {
        Position {
            offset: at.offset.saturating_add(self.rows_per_batch),
            timestamp: at.timestamp.saturating_add(self.advance_ms),
        }
    }
}

struct MicroBatchSource {
    rate: MicroBatchOptions,
    /// Behind the last epoch.
    at: Position,
    reader: Arc<MicroBatchReader>,
}

impl MicroBatchSource {
    /// The splits of the epoch that starts at `at`.
    fn splits(&self, at: Position) -> impl Iterator<Item = Split> {
        let (rows, parts) = (self.rate.rows_per_batch, self.rate.partitions);
        let cut = move |part: u64| {
            at.offset + (u128::from(rows) * u128::from(part) / u128::from(parts)) as u64
        };
        let ranges = (0..parts).map(move |part| (cut(part), cut(part + 1)));
        ranges
            .filter(|(from, to)| from < to)
            .map(move |(from, to)| {
                let numbers = Numbers {
                    timestamp: at.timestamp,
                    from,
                    to,
                };
                Split {
                    descriptor: serde_json::to_string(&numbers).expect("numbers can be written"),
                    bytes: (to - from).saturating_mul(ROW_BYTES),
                    process: None,
                }
            })
    }
}

impl Source for MicroBatchSource {
    fn description(&self) -> String {
        format!(
            "RatePerMicroBatch[rowsPerBatch={}]",
            self.rate.rows_per_batch
        )
    }

    fn watch(&mut self, _: Waker) -> Result<Watch, SourceError> {
        Ok(Watch::PollEveryMs(POLL_MS))
    }

    fn resume(&mut self, from: Resume<'_>) -> Result<(), SourceError> {
        let last = from.planned.last().map_or(from.at, |planned| &planned.end);
        self.at = parse_position::<Position>(last)?;
        Ok(())
    }

    fn initial(&mut self) -> Result<Offset, SourceError> {
        Ok(offset_of(self.rate.start()))
    }

    /// One epoch further than the last one: there is no end of them.
    fn latest(&mut self) -> Result<Offset, SourceError> {
        Ok(offset_of(self.rate.after(self.at)))
    }

    fn admit(
        &mut self,
        from: &Offset,
        to: &Offset,
        _: u64,
    ) -> Result<Option<Admitted>, SourceError> {
        let (from, to) = (
            parse_position::<Position>(from)?,
            parse_position::<Position>(to)?,
        );
        if from.offset >= to.offset {
            return Ok(None);
        }
        // Always a whole epoch, however many bytes: its size is what this source is for.
        self.at = self.rate.after(from);
        Ok(Some(Admitted {
            end: offset_of(self.at),
            splits: self.splits(from).collect(),
        }))
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.reader) as Arc<dyn Reader>
    }
}

struct MicroBatchReader {
    schema: SchemaRef,
}

impl Reader for MicroBatchReader {
    fn read(&self, split: &Split, columns: &[usize]) -> Result<Batches, SourceError> {
        let numbers: Numbers = parse_numbers(split)?;
        let time_us = numbers.timestamp.saturating_mul(1000);
        let numbered = numbers.from..numbers.to;
        batches(&self.schema, columns, numbered, move |_| time_us)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
    use highwater_engine::source::Planned;
    use highwater_text::options::Options;

    use super::*;
    use crate::conformance;

    fn request(options: &[(&str, &str)]) -> SourceRequest {
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
        request
    }

    fn factory(options: &[(&str, &str)]) -> Arc<dyn SourceFactory> {
        MicroBatchFormat.source(request(options)).unwrap()
    }

    #[test]
    fn every_epoch_has_its_rows_and_its_time() {
        let factory = factory(&[
            ("rowsPerBatch", "10"),
            ("numPartitions", "3"),
            ("startTimestamp", "5000"),
            ("advanceMillisPerBatch", "100"),
        ]);
        assert_eq!(conformance::source(factory.as_ref()).num_rows(), 10);
        let mut source = factory.open().unwrap();
        let initial = source.initial().unwrap();
        let mut at = initial.clone();
        for epoch in 0..3i64 {
            let to = source.latest().unwrap();
            let admitted = source.admit(&at, &to, 1).unwrap().unwrap();
            assert_eq!(admitted.splits.len(), 3);
            let reader = source.reader();
            let rows = conformance::read(
                reader.as_ref(),
                &factory.schema(),
                &admitted.splits,
                &[0, 1],
            );
            let rows = rows.unwrap();
            let times = rows.column(0).as_primitive::<TimestampMicrosecondType>();
            assert!(
                times
                    .values()
                    .iter()
                    .all(|t| *t == (5000 + epoch * 100) * 1000)
            );
            let values = rows.column(1).as_primitive::<Int64Type>().values();
            assert_eq!(
                values,
                &(epoch * 10..epoch * 10 + 10).collect::<Vec<_>>()[..]
            );
            at = admitted.end;
        }
        assert_eq!(at.0.to_string(), r#"{"offset":30,"timestamp":5300}"#);
    }

    #[test]
    fn a_restarted_query_goes_on_where_it_stood() {
        let factory = factory(&[("rowsPerBatch", "10")]);
        let mut source = factory.open().unwrap();
        let position = |offset, timestamp| offset_of(Position { offset, timestamp });
        let planned = [Planned {
            start: position(20, 2000),
            end: position(30, 3000),
            splits: Vec::new(),
        }];
        let resume = Resume {
            at: &position(20, 2000),
            oldest: &position(20, 2000),
            memory: &mut std::iter::empty(),
            planned: &planned,
        };
        source.resume(resume).unwrap();
        assert_eq!(source.latest().unwrap(), position(40, 4000));
    }

    #[test]
    fn wrong_options_are_refused() {
        let refusal = |options: &[(&str, &str)]| {
            let refused = MicroBatchFormat.source(request(options));
            refused.err().unwrap().to_string()
        };
        assert_eq!(
            refusal(&[]),
            "the rate-micro-batch stream needs option \"rowsPerBatch\""
        );
        assert!(refusal(&[("rowsPerBatch", "0")]).contains("positive"));
        let error = refusal(&[("rowsPerBatch", "1"), ("advanceMillisPerBatch", "-1")]);
        assert!(error.ends_with("it is 0 or more"), "{error}");
        assert!(refusal(&[("rowsPerSecond", "1")]).starts_with("unknown option"));
    }
}
