//! WHERE rows come from and go: one folder per outside system; none knows another.

mod calendar;
pub mod conformance;
pub mod console;
pub mod files;
mod noop;
pub mod rate;
pub mod socket;

use std::sync::Arc;

use highwater_engine::sink::SinkFormat;
use highwater_engine::source::SourceFormat;

/// Every format that can be read, by name.
pub fn sources() -> Vec<(&'static str, Arc<dyn SourceFormat>)> {
    [files::sources(), socket::sources(), rate::sources()].concat()
}

/// Every format that can be written, by name.
pub fn sinks() -> Vec<(&'static str, Arc<dyn SinkFormat>)> {
    let noop: Arc<dyn SinkFormat> = Arc::new(noop::NoopFormat);
    [files::sinks(), console::sinks(), vec![("noop", noop)]].concat()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_format_has_one_name() {
        let names = |names: Vec<&'static str>| names.join(" ");
        let sources = names(super::sources().iter().map(|(name, _)| *name).collect());
        assert_eq!(
            sources,
            "text json csv parquet orc avro socket rate rate-micro-batch"
        );
        let sinks = names(super::sinks().iter().map(|(name, _)| *name).collect());
        assert_eq!(sinks, "text json csv parquet orc console noop");
    }
}
