//! Lines that arrive over a TCP connection; for trying things out.
//!
//! Split: a range of lines. Offset: how many lines arrived, `{"lines": 12}`. Replayable: while the process lives and
//! the lines are not committed; they are kept in memory only. So after a restart lines that were not committed are
//! lost, and the numbers go on where the checkpoint stands (`SocketSource::resume`).
//!
//! One thread of the opening process receives; its lines can be read in that process alone. It stops receiving while
//! too many bytes wait, and the peer is slowed down by TCP. When the peer hangs up the source has ended: a new
//! connection would be another peer with other lines, so none is tried.

mod error;
mod source;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use highwater_engine::source::{
    FormatError, Reader, Source, SourceError, SourceFactory, SourceFormat, SourceRequest,
};

pub use error::SocketError;
pub use source::SocketSource;

use highwater_text::options::{flag, invalid, positive};
use source::NotHere;

/// The formats that read from a socket.
pub fn sources() -> Vec<(&'static str, Arc<dyn SourceFormat>)> {
    vec![("socket", Arc::new(SocketFormat))]
}

struct SocketFormat;

/// Where to connect, and what to make of it.
#[derive(Debug, Clone)]
pub struct SocketOptions {
    /// The peer's name or address.
    pub host: String,
    /// The peer's port.
    pub port: u16,
    /// Each row also tells when its line arrived.
    pub include_timestamp: bool,
    /// Into so many splits the lines of an epoch are cut.
    pub partitions: u64,
}

impl SourceFormat for SocketFormat {
    fn source(&self, request: SourceRequest) -> Result<Arc<dyn SourceFactory>, FormatError> {
        let owner = "the socket stream";
        let options = &request.options;
        options.only(
            owner,
            &["host", "port", "includeTimestamp", "numPartitions"],
            &[],
        )?;
        let refuse = |message: String, class| Err(FormatError::Invalid { message, class });
        if !request.streaming {
            return refuse(
                "a socket can only be read as a stream: use read_stream()".into(),
                None,
            );
        }
        if request.schema.is_some() {
            return refuse(
                "the socket stream has its own schema, \"value\" STRING; remove .schema(..)".into(),
                Some("_LEGACY_ERROR_TEMP_1242"),
            );
        }
        let port = options.required(owner, "port")?;
        let options = SocketOptions {
            host: options.required(owner, "host")?.trim().to_string(),
            port: match port.trim().parse() {
                Ok(number) if number > 0 => number,
                _ => return Err(invalid(owner, "port", port, "it is a number up to 65535").into()),
            },
            include_timestamp: flag(options, owner, "includeTimestamp")?,
            partitions: positive(options, owner, "numPartitions")?.unwrap_or(1),
        };
        let mut fields = vec![Field::new("value", DataType::Utf8, true)];
        if options.include_timestamp {
            let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
            fields.push(Field::new("timestamp", instant, true));
        }
        Ok(Arc::new(SocketFactory {
            options,
            schema: Arc::new(Schema::new(fields)),
        }))
    }
}

struct SocketFactory {
    options: SocketOptions,
    schema: SchemaRef,
}

impl SourceFactory for SocketFactory {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn open(&self) -> Result<Box<dyn Source>, SourceError> {
        let source = SocketSource::connect(&self.options, Arc::clone(&self.schema))?;
        Ok(Box::new(source))
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(NotHere)
    }
}
