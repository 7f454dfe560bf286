//! Numbers that come at a steady rate; for trying things out.
//!
//! Split: a range of numbers. Offset: how many numbers there were since a start that the offset carries too:
//! `{"start": 1704067200000000, "rows": 12}`. Replayable: always. A number's timestamp is a function of the start and
//! the number, so that it does not matter how epochs cut them; a restarted query goes on with the start of its
//! checkpoint, and what time passed meanwhile comes at once.

mod micro;
mod source;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use highwater_engine::source::{
    Batches, FormatError, Offset, Reader, Source, SourceError, SourceFactory, SourceFormat,
    SourceRequest, Split,
};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use micro::MicroBatchOptions;
pub use source::RateError;

use highwater_text::options::{duration_us, positive};
use source::{RateReader, RateSource};

const BATCH_ROWS: usize = 8192;
/// A timestamp and a number.
const ROW_BYTES: u64 = 16;

/// The formats that make up numbers.
pub fn sources() -> Vec<(&'static str, Arc<dyn SourceFormat>)> {
    vec![
        ("rate", Arc::new(RateFormat)),
        ("rate-micro-batch", Arc::new(micro::MicroBatchFormat)),
    ]
}

/// Refuses what both of them refuse.
fn check_request(name: &str, request: &SourceRequest) -> Result<(), FormatError> {
    let message = match request {
        SourceRequest {
            streaming: false, ..
        } => {
            format!("{name} can only be read as a stream: use read_stream()")
        }
        SourceRequest {
            schema: Some(_), ..
        } => format!(
            "the {name} stream has its own schema, \"timestamp\" and \"value\"; remove .schema(..)"
        ),
        _ => return Ok(()),
    };
    Err(FormatError::Invalid {
        message,
        class: None,
    })
}

/// A position as an offset carries it.
fn parse_position<T: DeserializeOwned>(offset: &Offset) -> Result<T, RateError> {
    T::deserialize(&offset.0).map_err(|_| RateError::NotOurs {
        text: offset.0.to_string(),
        what: "offset",
    })
}

/// The offset that carries a position.
fn offset_of(position: impl Serialize) -> Offset {
    Offset(serde_json::to_value(position).expect("numbers can be written"))
}

/// A range of numbers as a split carries it.
fn parse_numbers<T: DeserializeOwned>(split: &Split) -> Result<T, RateError> {
    serde_json::from_str(&split.descriptor).map_err(|_| RateError::NotOurs {
        text: split.descriptor.clone(),
        what: "split",
    })
}

/// These numbers in batches, each with the time that `time_us` gives it.
fn batches(
    schema: &SchemaRef,
    columns: &[usize],
    numbers: Range<u64>,
    time_us: impl Fn(u64) -> i64 + Send + 'static,
) -> Result<Batches, SourceError> {
    let columns = columns.to_vec();
    let schema = Arc::new(schema.project(&columns).map_err(RateError::Arrow)?);
    let starts = numbers.clone().step_by(BATCH_ROWS);
    Ok(Box::new(starts.map(move |from| {
        let range = from..numbers.end.min(from + BATCH_ROWS as u64);
        let arrays = columns.iter().map(|column| -> ArrayRef {
            match column {
                0 => {
                    let times =
                        TimestampMicrosecondArray::from_iter_values(range.clone().map(&time_us));
                    Arc::new(times.with_timezone("UTC"))
                }
                _ => Arc::new(Int64Array::from_iter_values(
                    range.clone().map(|n| n as i64),
                )),
            }
        });
        let options = RecordBatchOptions::new().with_row_count(Some(range.clone().count()));
        let batch =
            RecordBatch::try_new_with_options(Arc::clone(&schema), arrays.collect(), &options);
        Ok(batch.map_err(RateError::Arrow)?)
    })))
}

fn rate_schema() -> SchemaRef {
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("timestamp", instant, true),
        Field::new("value", DataType::Int64, true),
    ]))
}

struct RateFormat;

/// How fast the numbers come.
#[derive(Debug, Clone, Copy)]
pub struct RateOptions {
    /// So many in a second.
    pub rows_per_second: u64,
    /// So long until they come that fast, starting from none.
    pub ramp_up_us: i64,
    /// Into so many splits an epoch is cut.
    pub partitions: u64,
}

impl SourceFormat for RateFormat {
    fn source(&self, request: SourceRequest) -> Result<Arc<dyn SourceFactory>, FormatError> {
        let owner = "the rate stream";
        let options = &request.options;
        options.only(
            owner,
            &["rowsPerSecond", "rampUpTime", "numPartitions"],
            &[],
        )?;
        check_request("rate", &request)?;
        let rate = RateOptions {
            rows_per_second: positive(options, owner, "rowsPerSecond")?.unwrap_or(1),
            ramp_up_us: duration_us(options, owner, "rampUpTime")?.unwrap_or(0),
            partitions: positive(options, owner, "numPartitions")?.unwrap_or(1),
        };
        Ok(Arc::new(RateFactory {
            reader: Arc::new(RateReader {
                rate,
                schema: rate_schema(),
            }),
        }))
    }
}

struct RateFactory {
    reader: Arc<RateReader>,
}

impl SourceFactory for RateFactory {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.reader.schema)
    }

    fn open(&self) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(RateSource::open(Arc::clone(&self.reader))))
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.reader) as Arc<dyn Reader>
    }
}
