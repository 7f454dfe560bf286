//! `foreach`: code of the program that takes rows one by one, on every worker.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::record_batch::RecordBatch;

use crate::code::{Code, CodeError, CodeFormat, dropped_elsewhere};
use crate::sink::Placement;

/// Takes the rows of a query one by one. Every worker has a clone of its own for every epoch.
pub trait ForeachWriter: Clone + Send + Sync + 'static {
    /// An epoch begins on a worker, whether it has rows of it or not; false passes over its rows there. `partition`
    /// tells the workers of all processes apart, from 0 on. An epoch that is handed over again after a crash has the
    /// same number and the same rows, and with as many workers as before every partition has the same of them.
    fn open(&mut self, partition: usize, epoch: u64) -> Result<bool, CodeError> {
        let _ = (partition, epoch);
        Ok(true)
    }

    /// Takes a row. An error ends the query.
    fn process(&mut self, row: Row<'_>) -> Result<(), CodeError>;

    /// The epoch ends here: with the error that `process` gave, if it gave one. Not called if `open` failed.
    fn close(&mut self, error: Option<&CodeError>) -> Result<(), CodeError> {
        let _ = error;
        Ok(())
    }
}

/// A row, as `foreach` hands it over.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    batch: &'a RecordBatch,
    at: usize,
}

impl<'a> Row<'a> {
    /// The batch that the row is in.
    pub fn batch(&self) -> &'a RecordBatch {
        self.batch
    }

    /// Its place in the batch.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The column of this name.
    fn column(&self, name: &str) -> Result<&'a Arc<dyn Array>, CodeError> {
        let column = self.batch.column_by_name(name);
        column.ok_or_else(|| format!("a row has no column \"{name}\"").into())
    }

    /// True if the value of a column is null.
    pub fn is_null(&self, name: &str) -> Result<bool, CodeError> {
        Ok(self.column(name)?.is_null(self.at))
    }

    /// The text of a column of strings; `None` if it is null.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, CodeError> {
        let column = self.column(name)?;
        match column.as_string_opt::<i32>() {
            Some(texts) => Ok(texts.is_valid(self.at).then(|| texts.value(self.at))),
            None => Err(other_type(name, column.data_type(), "a STRING")),
        }
    }

    /// The integer of a column, of whatever width; `None` if it is null.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, CodeError> {
        let column = self.column(name)?;
        if !column.data_type().is_integer() {
            return Err(other_type(name, column.data_type(), "an integer"));
        }
        let value = cast(&column.slice(self.at, 1), &DataType::Int64)?;
        let value = value.as_primitive::<Int64Type>();
        Ok(value.is_valid(0).then(|| value.value(0)))
    }

    /// The number of a column as a double; `None` if it is null.
    pub fn double(&self, name: &str) -> Result<Option<f64>, CodeError> {
        let column = self.column(name)?;
        if !column.data_type().is_numeric() {
            return Err(other_type(name, column.data_type(), "a number"));
        }
        let value = cast(&column.slice(self.at, 1), &DataType::Float64)?;
        let value = value.as_primitive::<Float64Type>();
        Ok(value.is_valid(0).then(|| value.value(0)))
    }
}

fn other_type(name: &str, data_type: &DataType, wanted: &str) -> CodeError {
    let found = highwater_query::type_sql(data_type);
    format!("column \"{name}\" is {found}, not {wanted}").into()
}

/// Hands each row of an epoch to a clone of `writer`, on every worker.
pub(crate) fn foreach(writer: impl ForeachWriter) -> CodeFormat {
    let writer = Arc::new(dropped_elsewhere(writer));
    let make = move |partition: usize| -> Code {
        let writer = Arc::clone(&writer);
        Box::new(move |epoch| {
            let mut writer = writer.get().clone();
            let mut error = None;
            if writer.open(partition, epoch.number)? {
                let mut rows = epoch
                    .rows
                    .iter()
                    .flat_map(|batch| (0..batch.num_rows()).map(move |at| Row { batch, at }));
                error = rows.find_map(|row| writer.process(row).err());
            }
            let closed = writer.close(error.as_ref());
            error.map_or(closed, Err)
        })
    };
    CodeFormat::new("foreach", Placement::EveryWorker, make)
}
