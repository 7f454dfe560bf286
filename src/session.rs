//! The session with all connectors.

use std::ops::Deref;

use highwater_connectors::console::{Show, show};
use highwater_text::time::Zone;

use crate::{ClusterConfig, Formats, Result, SessionBuilder};

/// Where queries are made and run, with every connector of this crate registered.
///
/// It is the engine's session (see its methods by way of `Deref`) with constructors that know the connectors.
#[derive(Clone)]
pub struct Session(highwater_engine::Session);

impl Session {
    /// One process, one worker.
    pub fn new() -> Result<Session> {
        Session::start(Session::builder())
    }

    /// Workers and processes from the program's arguments: `-w`, `-n`, `-p`, `--hostfile`.
    pub fn from_args() -> Result<Session> {
        Session::start(Session::builder().args()?)
    }

    /// One process with this many workers.
    pub fn with_workers(workers: usize) -> Result<Session> {
        Session::start(Session::builder().workers(workers))
    }

    /// Any number of workers and processes.
    pub fn with_cluster(cluster: ClusterConfig) -> Result<Session> {
        Session::start(Session::builder().cluster(cluster))
    }

    /// A builder that knows the connectors; add to its formats, then `Session::start`.
    pub fn builder() -> SessionBuilder {
        SessionBuilder::default().formats(formats())
    }

    /// Starts what a builder describes.
    pub fn start(builder: SessionBuilder) -> Result<Session> {
        builder.start().map(Session)
    }
}

impl Deref for Session {
    type Target = highwater_engine::Session;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// Every connector by its format name.
pub(crate) fn formats() -> Formats {
    let mut formats = Formats::default();
    for (name, format) in highwater_connectors::sources() {
        formats.add_source(name, format);
    }
    for (name, format) in highwater_connectors::sinks() {
        formats.add_sink(name, format);
    }
    formats.set_draw(|schema, batches, rows_max, width, time_zone| {
        let truncate = (width > 0).then_some(width);
        let zone = Zone::parse(time_zone).unwrap_or(Zone::UTC);
        show(
            schema,
            batches,
            &Show {
                rows_max,
                truncate,
                zone,
            },
        )
    });
    formats
}
