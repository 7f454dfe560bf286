//! One worker draws tables, and the commit prints them.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use highwater_engine::sink::{Placement, Receipt, Sink, SinkError, SinkFactory, SinkWriter};
use highwater_engine::source::Retry;

use super::{Output, Show, show};

/// What can go wrong on a console.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// Nobody takes what is printed (the pipe was closed).
    #[error("could not print")]
    Print(#[from] io::Error),
    /// A row has no text form.
    #[error("could not draw a table")]
    Draw(#[from] arrow::error::ArrowError),
    /// A receipt that no console wrote.
    #[error("\"{body}\" is no receipt of a console")]
    NotOurs {
        /// What was found.
        body: String,
    },
}

impl From<ConsoleError> for SinkError {
    fn from(error: ConsoleError) -> Self {
        SinkError {
            connector: "console",
            retry: Retry::Never,
            source: Box::new(error),
        }
    }
}

pub(super) struct ConsoleFactory {
    pub(super) show: Show,
    pub(super) schema: SchemaRef,
    pub(super) output: Output,
}

impl SinkFactory for ConsoleFactory {
    fn fixed(&self) -> Vec<(&'static str, String)> {
        vec![("kind", "console".into())]
    }

    fn placement(&self) -> Placement {
        Placement::OneWorker
    }

    fn durable(&self) -> bool {
        false
    }

    fn open(&self, _generation: u64) -> Result<Box<dyn Sink>, SinkError> {
        let empty = show(&self.schema, &[], &self.show).map_err(ConsoleError::Draw)?;
        Ok(Box::new(ConsoleSink {
            empty,
            output: Arc::clone(&self.output),
            printed: None,
        }))
    }

    fn writer(
        &self,
        worker: usize,
        _query_id: &str,
        _generation: u64,
    ) -> Result<Box<dyn SinkWriter>, SinkError> {
        Ok(Box::new(ConsoleWriter {
            worker,
            show: self.show,
            epochs: BTreeMap::new(),
        }))
    }
}

/// The first rows of an epoch, and how many there were.
#[derive(Default)]
struct Epoch {
    batches: Vec<RecordBatch>,
    kept: usize,
    rows: u64,
}

struct ConsoleWriter {
    worker: usize,
    show: Show,
    epochs: BTreeMap<u64, Epoch>,
}

impl SinkWriter for ConsoleWriter {
    fn write(&mut self, epoch: u64, rows: &RecordBatch) -> Result<(), SinkError> {
        let epoch = self.epochs.entry(epoch).or_default();
        epoch.rows += rows.num_rows() as u64;
        // One row more than is shown tells that there are more.
        let wanted = self.show.rows_max.saturating_add(1) - epoch.kept;
        let wanted = rows.slice(0, wanted.min(rows.num_rows()));
        if wanted.num_rows() > 0 {
            epoch.kept += wanted.num_rows();
            epoch.batches.push(wanted);
        }
        Ok(())
    }

    fn stage(&mut self, epochs: RangeInclusive<u64>) -> Result<Receipt, SinkError> {
        let later = self.epochs.split_off(&(epochs.end() + 1));
        let written = std::mem::replace(&mut self.epochs, later);
        let mut rows = 0;
        let mut tables = BTreeMap::new();
        for (epoch, part) in written {
            rows += part.rows;
            if let Some(batch) = part.batches.first() {
                let table = show(&batch.schema(), &part.batches, &self.show);
                tables.insert(epoch, table.map_err(ConsoleError::Draw)?);
            }
        }
        Ok(Receipt {
            worker: self.worker,
            rows,
            body: serde_json::to_string(&tables).expect("numbers and texts can be written"),
        })
    }
}

struct ConsoleSink {
    /// The table of an epoch without rows.
    empty: String,
    output: Output,
    printed: Option<u64>,
}

impl Sink for ConsoleSink {
    fn description(&self) -> String {
        "ConsoleSink".into()
    }

    fn commit(
        &mut self,
        epochs: RangeInclusive<u64>,
        receipts: &[Receipt],
    ) -> Result<(), SinkError> {
        let mut tables: BTreeMap<u64, String> = BTreeMap::new();
        for receipt in receipts {
            let part: BTreeMap<u64, String> =
                serde_json::from_str(&receipt.body).map_err(|_| ConsoleError::NotOurs {
                    body: receipt.body.clone(),
                })?;
            tables.extend(part);
        }
        for epoch in epochs {
            if self.printed.is_some_and(|printed| epoch <= printed) {
                continue;
            }
            let rule = "-------------------------------------------";
            let table = tables.get(&epoch).unwrap_or(&self.empty);
            let text = format!("{rule}\nBatch: {epoch}\n{rule}\n{table}\n");
            let mut output = self
                .output
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            output
                .write_all(text.as_bytes())
                .and_then(|()| output.flush())
                .map_err(ConsoleError::Print)?;
            self.printed = Some(epoch);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::{DataType, Field, Schema};
    use highwater_engine::sink::{OutputMode, SinkFormat, SinkRequest};
    use highwater_text::options::Options;

    use super::super::ConsoleFormat;
    use super::*;

    fn request(options: &[(&str, &str)]) -> SinkRequest {
        let mut request = SinkRequest {
            options: Options::default(),
            path: None,
            partition_by: Vec::new(),
            schema: Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)])),
            key: Vec::new(),
            mode: OutputMode::Complete,
            query_name: None,
            query_id: "q".into(),
            streaming: true,
            time_zone: "UTC".into(),
            case_sensitive: false,
        };
        for (name, value) in options {
            request.options.set(name, value);
        }
        request
    }

    fn rows(numbers: std::ops::Range<i64>) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
        RecordBatch::try_new(request(&[]).schema, vec![column]).unwrap()
    }

    fn print(
        options: &[(&str, &str)],
        epochs: &[(u64, RecordBatch)],
        run: RangeInclusive<u64>,
    ) -> String {
        let output = Arc::new(Mutex::new(Vec::new()));
        let shared: Output = Arc::clone(&output) as _;
        let factory = ConsoleFormat::to(shared).sink(request(options)).unwrap();
        assert_eq!(factory.placement(), Placement::OneWorker);
        let mut sink = factory.open(0).unwrap();
        let mut writer = factory.writer(0, "query", 0).unwrap();
        for (epoch, rows) in epochs {
            writer.write(*epoch, rows).unwrap();
        }
        let receipt = writer.stage(run.clone()).unwrap();
        assert!(output.lock().unwrap().is_empty());
        sink.commit(run.clone(), std::slice::from_ref(&receipt))
            .unwrap();
        sink.commit(run, &[receipt]).unwrap();
        String::from_utf8(output.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn every_epoch_of_a_run_is_printed_once() {
        let printed = print(
            &[],
            &[(0, rows(1..2)), (0, rows(2..3)), (2, rows(3..4))],
            0..=2,
        );
        let expected = "\
-------------------------------------------
Batch: 0
-------------------------------------------
+---+
|  n|
+---+
|  1|
|  2|
+---+

-------------------------------------------
Batch: 1
-------------------------------------------
+---+
|  n|
+---+
+---+

-------------------------------------------
Batch: 2
-------------------------------------------
+---+
|  n|
+---+
|  3|
+---+

";
        assert_eq!(printed, expected);
    }

    #[test]
    fn only_the_first_rows_are_kept() {
        let printed = print(
            &[("numRows", "2")],
            &[(0, rows(0..5000)), (0, rows(0..5000))],
            0..=0,
        );
        assert!(
            printed.ends_with("|  0|\n|  1|\n+---+\nonly showing top 2 rows\n\n"),
            "{printed}"
        );
    }

    #[test]
    fn a_closed_pipe_is_an_error_and_no_panic() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let format = ConsoleFormat::to(Arc::new(Mutex::new(Closed)));
        let factory = format.sink(request(&[])).unwrap();
        let receipt = factory.writer(0, "query", 0).unwrap().stage(0..=0).unwrap();
        let error = factory
            .open(0)
            .unwrap()
            .commit(0..=0, &[receipt])
            .unwrap_err();
        assert_eq!(
            std::error::Error::source(&error).unwrap().to_string(),
            "could not print"
        );
    }

    #[test]
    fn wrong_options_are_told() {
        let refusal = |options: &[(&str, &str)]| {
            ConsoleFormat::stdout()
                .sink(request(options))
                .err()
                .unwrap()
                .to_string()
        };
        assert_eq!(
            refusal(&[("truncate", "maybe")]),
            "option \"truncate\" of the console sink cannot be \"maybe\": it is true or false"
        );
        assert!(
            refusal(&[("rows", "1")])
                .starts_with("unknown option \"rows\" of the console sink; it takes numRows")
        );
    }
}
