//! Rows that came by several ways and are wanted once.
//!
//! Each input has, of the same rows, those that its operator saw: the two sides of a join of a stream with itself. A row
//! comes out as often as the input that has it most often has it. Which of its copies does is of no importance, as they
//! agree in all columns.
//!
//! State: none. Holds its output frontier back: until all inputs have passed an epoch.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;

use crate::epoch::{Kernel, run_epochs};
use crate::exchange::take_rows;
use crate::intake::Intake;
use crate::keys::Codec;
use crate::watermark::Marks;
use crate::{Batch, Edge, Failure, OperatorError, Rows, wire};

/// The rows of `inputs`, which have the same columns, without those that another input has as well. `start` is the first
/// epoch that runs.
pub fn once<'s>(inputs: Vec<Rows<'s>>, edge: Edge, start: u64, failure: &Failure) -> Rows<'s> {
    let fields = edge.rows.fields().iter();
    let types = fields.map(|field| {
        let data_type = field.data_type();
        wire::flat_type(data_type).unwrap_or_else(|| data_type.clone())
    });
    let codec = Codec::new(types.collect());
    if codec.is_err() {
        let text =
            "rows of these types cannot be compared, so it is not known which of them are the same";
        failure.set(start, OperatorError::Other(text.into()));
    }
    let kernel = Once {
        codec: codec.ok(),
        schema: edge.physical(),
        intakes: inputs
            .iter()
            .map(|_| Intake::new(edge.physical()))
            .collect(),
    };
    run_epochs("Once", inputs, None, start, edge, failure, |_| kernel)
}

struct Once {
    /// None for types that cannot be compared.
    codec: Option<Codec>,
    schema: SchemaRef,
    /// One for each input.
    intakes: Vec<Intake>,
}

impl Kernel for Once {
    fn absorb(&mut self, epoch: u64, input: usize, batch: Batch) -> Result<(), OperatorError> {
        self.intakes[input].absorb(epoch, batch)
    }

    fn run(
        &mut self,
        epoch: u64,
        _: Marks,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let batches: Vec<_> = (self.intakes.iter_mut())
            .map(|intake| intake.take(epoch))
            .collect();
        let Some(codec) = &self.codec else {
            return Ok(());
        };
        let all = batches
            .iter()
            .map(|batches| concat_batches(&self.schema, batches));
        let all = all.collect::<Result<Vec<_>, _>>()?;
        new_rows(codec, &all)?.into_iter().for_each(out);
        Ok(())
    }
}

/// Of each input the rows that those before it have less often.
fn new_rows(codec: &Codec, inputs: &[RecordBatch]) -> Result<Vec<RecordBatch>, OperatorError> {
    let mut known: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let mut found = Vec::new();
    for rows in inputs {
        let columns = rows.columns().iter().zip(codec.types());
        let columns = columns.map(|(column, to): (&ArrayRef, &DataType)| cast(column, to));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let encoded = codec.encode(&columns, rows.num_rows())?;
        let mut own: BTreeMap<&[u8], usize> = BTreeMap::new();
        let mut picks = Vec::new();
        for row in 0..rows.num_rows() {
            let copies = own.entry(encoded.key(row)).or_default();
            *copies += 1;
            if *copies > known.get(encoded.key(row)).copied().unwrap_or(0) {
                picks.push(row as u32);
            }
        }
        for (key, copies) in own {
            let most = known.entry(key.to_vec()).or_default();
            *most = copies.max(*most);
        }
        found.push(take_rows(rows, &UInt32Array::from(picks))?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{Field, Int64Type, Schema};

    use super::*;

    fn check(inputs: &[&[Option<i64>]], expected: &[&[Option<i64>]]) {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let rows = |values: &&[Option<i64>]| {
            let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
            RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap()
        };
        let inputs: Vec<RecordBatch> = inputs.iter().map(rows).collect();
        let codec = Codec::new(vec![DataType::Int64]).unwrap();
        let found = new_rows(&codec, &inputs).unwrap();
        let found = found.iter().map(|rows| {
            let values = rows.column(0).as_primitive::<Int64Type>();
            values.iter().collect::<Vec<_>>()
        });
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_row_comes_as_often_as_one_input_has_it() {
        check(
            &[&[Some(1), Some(1), None], &[None, Some(1), Some(2)]],
            &[&[Some(1), Some(1), None], &[Some(2)]],
        );
        check(
            &[&[Some(1)], &[Some(1), Some(1)], &[Some(1), Some(1)]],
            &[&[Some(1)], &[Some(1)], &[]],
        );
    }
}
