//! Takes rows and drops them: for measuring everything but a sink.
//!
//! Commit: nothing to make visible, so idempotent.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use highwater_engine::sink::{
    Placement, Receipt, Sink, SinkError, SinkFactory, SinkFormat, SinkRequest, SinkWriter,
};
use highwater_engine::source::FormatError;

/// The format "noop".
pub(crate) struct NoopFormat;

impl SinkFormat for NoopFormat {
    fn sink(&self, request: SinkRequest) -> Result<Arc<dyn SinkFactory>, FormatError> {
        request.options.only("the noop sink", &[], &[])?;
        Ok(Arc::new(Noop))
    }
}

struct Noop;

impl SinkFactory for Noop {
    fn fixed(&self) -> Vec<(&'static str, String)> {
        vec![("kind", "noop".into())]
    }

    fn placement(&self) -> Placement {
        Placement::EveryWorker
    }

    fn durable(&self) -> bool {
        false
    }

    fn open(&self, _generation: u64) -> Result<Box<dyn Sink>, SinkError> {
        Ok(Box::new(Noop))
    }

    fn writer(
        &self,
        worker: usize,
        _query_id: &str,
        _generation: u64,
    ) -> Result<Box<dyn SinkWriter>, SinkError> {
        Ok(Box::new(NoopWriter { worker, rows: 0 }))
    }
}

impl Sink for Noop {
    fn description(&self) -> String {
        "NoopSink".into()
    }

    fn commit(
        &mut self,
        _epochs: RangeInclusive<u64>,
        _receipts: &[Receipt],
    ) -> Result<(), SinkError> {
        Ok(())
    }
}

struct NoopWriter {
    worker: usize,
    /// Rows since the last run of epochs.
    rows: u64,
}

impl SinkWriter for NoopWriter {
    fn write(&mut self, _epoch: u64, rows: &RecordBatch) -> Result<(), SinkError> {
        self.rows += rows.num_rows() as u64;
        Ok(())
    }

    fn stage(&mut self, _epochs: RangeInclusive<u64>) -> Result<Receipt, SinkError> {
        Ok(Receipt {
            worker: self.worker,
            rows: std::mem::take(&mut self.rows),
            body: String::new(),
        })
    }
}
