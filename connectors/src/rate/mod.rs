//! Numbers that come at a steady rate; for trying things out.
//!
//! Split: a range of numbers. Offset: how many numbers there were since a start that the offset carries too:
//! `{"start": 1704067200000000, "rows": 12}`. Replayable: always. A number's timestamp is a function of the start and
//! the number, so that it does not matter how epochs cut them; a restarted query goes on with the start of its
//! checkpoint, and what time passed meanwhile comes at once.

mod source;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use highwater_engine::source::{
    FormatError, Reader, Source, SourceError, SourceFactory, SourceFormat, SourceRequest,
};

pub use source::RateError;

use crate::options::{duration_us, positive};
use source::{RateReader, RateSource};

/// The formats that make up numbers.
pub fn sources() -> Vec<(&'static str, Arc<dyn SourceFormat>)> {
    vec![("rate", Arc::new(RateFormat))]
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
        let refuse = |message: &str| {
            Err(FormatError::Invalid {
                message: message.into(),
                class: None,
            })
        };
        if !request.streaming {
            return refuse("rate can only be read as a stream: use read_stream()");
        }
        if request.schema.is_some() {
            return refuse(
                "the rate stream has its own schema, \"timestamp\" and \"value\"; remove .schema(..)",
            );
        }
        let rate = RateOptions {
            rows_per_second: positive(options, owner, "rowsPerSecond")?.unwrap_or(1),
            ramp_up_us: duration_us(options, owner, "rampUpTime")?.unwrap_or(0),
            partitions: positive(options, owner, "numPartitions")?.unwrap_or(1),
        };
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let schema = Schema::new(vec![
            Field::new("timestamp", instant, true),
            Field::new("value", DataType::Int64, true),
        ]);
        Ok(Arc::new(RateFactory {
            reader: Arc::new(RateReader {
                rate,
                schema: Arc::new(schema),
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
