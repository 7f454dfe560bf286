//! One struct from each text, as `from_csv` makes it: the first row of it, by the rules for rows of files.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBufferBuilder, StringBuilder, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Fields, Schema};
use arrow::error::ArrowError;

use super::cells::record_end;
use super::{Cells, Column, CsvInference, CsvOptions, append_cells};

/// Decodes texts until asked for the array.
pub struct RowDecoder {
    fields: Fields,
    options: CsvOptions,
    columns: Vec<Option<Column>>,
    cells: Cells,
    /// The column that gets texts that cannot be read, and its place.
    corrupt: Option<(usize, StringBuilder)>,
    valid: BooleanBufferBuilder,
}

impl RowDecoder {
    /// A decoder of structs of `fields`; the first type that cells cannot hold, if there is one.
    pub fn new(fields: &Fields, options: CsvOptions) -> Result<Self, DataType> {
        let name = &options.column_name_of_corrupt_record;
        let corrupt = fields.iter().position(|field| field.name() == name);
        let others = fields
            .iter()
            .enumerate()
            .filter(|(at, _)| corrupt != Some(*at));
        let columns = others.map(|(_, field)| {
            let column = Column::new(field.data_type());
            column.map(Some).ok_or_else(|| field.data_type().clone())
        });
        Ok(RowDecoder {
            columns: columns.collect::<Result<_, _>>()?,
            fields: fields.clone(),
            cells: Cells::default(),
            corrupt: corrupt.map(|at| (at, StringBuilder::new())),
            valid: BooleanBufferBuilder::new(0),
            options,
        })
    }

    /// Appends the struct that `text` is. Answers whether it was read as it should, or why it cannot be in any mode.
    pub fn decode(&mut self, text: Option<&str>) -> Result<bool, String> {
        self.valid.append(text.is_some());
        let row = text.and_then(|text| first_row(text, &self.options));
        let Some(row) = row else {
            self.columns
                .iter_mut()
                .flatten()
                .for_each(Column::append_null);
            if let Some((_, corrupt)) = &mut self.corrupt {
                corrupt.append_option(text);
            }
            return Ok(text.is_none());
        };
        self.cells.cut(row, &self.options.dialect);
        if let Some(reason) = self.options.over_limit(&self.cells, row) {
            return Err(reason);
        }
        if self.cells.has_stray_quote() {
            return Err("a quote that is not escaped is in a quoted cell".into());
        }
        let (found, wanted) = (self.cells.count(), self.columns.len());
        let bad = append_cells(&mut self.columns, &self.cells, row, found, &self.options);
        let good = bad.is_none() && found == wanted;
        if let Some((_, corrupt)) = &mut self.corrupt {
            corrupt.append_option(text.filter(|_| !good));
        }
        Ok(good)
    }

    /// The structs of the texts since the last one.
    pub fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let nulls = NullBuffer::new(self.valid.finish());
        let columns = self.columns.iter_mut().flatten().map(Column::finish);
        let mut columns: Vec<ArrayRef> = columns.collect();
        if let Some((at, corrupt)) = &mut self.corrupt {
            columns.insert(*at, Arc::new(corrupt.finish()));
        }
        Ok(Arc::new(match self.fields.is_empty() {
            true => StructArray::new_empty_fields(nulls.len(), Some(nulls)),
            false => StructArray::try_new(self.fields.clone(), columns, Some(nulls))?,
        }))
    }
}

/// The first row in `text` that is one.
fn first_row<'t>(text: &'t str, options: &CsvOptions) -> Option<&'t [u8]> {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let comment = options.comment == Some(rest[0]);
        let end = match comment {
            true => memchr::memchr(b'\n', rest),
            false => record_end(rest, &options.dialect),
        };
        let row = &rest[..end.unwrap_or(rest.len())];
        if !row.is_empty() && !comment {
            return Some(row);
        }
        rest = &rest[(row.len() + 1).min(rest.len())..];
    }
    None
}

/// The columns of the first row of `text`, by its cells.
pub fn schema_of(text: &str, options: CsvOptions) -> Option<Schema> {
    let row = first_row(text, &options)?;
    let mut inference = CsvInference::new(CsvOptions {
        infer: true,
        sampling_ratio: 1.0,
        ..options.clone()
    });
    inference.row(row);
    inference.schema()
}
