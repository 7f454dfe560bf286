//! Functions that take their rows in order, where states are merged in another order than rows came in: their states tell
//! the places of rows, by the epoch that they came in and by their place in it.

use std::sync::Arc;

use arrow::array::{ArrayRef, StructArray, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};

use super::AggregateCall;
use super::canonical::Canonical;
use super::order::lists;
use crate::{Edge, OperatorError};

/// What the rows of an aggregation have besides, for calls that tell places.
#[derive(Clone)]
pub(super) struct Placed {
    /// The columns with the place of a row and, behind all others, with its epoch.
    place: usize,
    epoch: usize,
    /// What is listed, each with the places of its rows in one more column.
    listed: Vec<(Arc<dyn PhysicalExpr>, Fields)>,
}

impl Placed {
    pub(super) fn new(
        input: &Edge,
        place: usize,
        calls: &[AggregateCall],
    ) -> Result<Self, OperatorError> {
        let mut listed: Vec<(Arc<dyn PhysicalExpr>, Fields)> = Vec::new();
        for call in calls.iter().filter(|call| lists(&call.function)) {
            let value = call.function.expressions().remove(0);
            if listed.iter().all(|(known, _)| !known.eq(&value)) {
                let data_type = value.data_type(&input.rows)?;
                let fields = [
                    Field::new("epoch", DataType::UInt64, false),
                    Field::new("place", DataType::UInt64, false),
                    Field::new("value", data_type, true),
                ];
                listed.push((value, fields.into_iter().collect()));
            }
        }
        let epoch = input.physical().fields().len();
        Ok(Placed {
            place,
            epoch,
            listed,
        })
    }

    /// The columns that the calls see.
    pub(super) fn rows(&self, input: &Edge) -> SchemaRef {
        let mut fields = input.physical().fields().to_vec();
        fields.push(Arc::new(Field::new("__epoch", DataType::UInt64, false)));
        for (index, (_, listed)) in self.listed.iter().enumerate() {
            let data_type = DataType::Struct(listed.clone());
            fields.push(Arc::new(Field::new(
                format!("__listed{index}"),
                data_type,
                false,
            )));
        }
        Arc::new(Schema::new(fields))
    }

    /// Rows of an epoch with those columns.
    pub(super) fn seen(
        &self,
        rows: &RecordBatch,
        epoch: u64,
        schema: &SchemaRef,
    ) -> Result<RecordBatch, OperatorError> {
        let count = rows.num_rows();
        let epochs: ArrayRef = Arc::new(UInt64Array::from(vec![epoch; count]));
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::clone(&epochs));
        for (value, fields) in &self.listed {
            let value = value.evaluate(rows)?.into_array(count)?;
            let parts = vec![
                Arc::clone(&epochs),
                Arc::clone(rows.column(self.place)),
                value,
            ];
            columns.push(Arc::new(StructArray::try_new(fields.clone(), parts, None)?));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(schema),
            columns,
            &options,
        )?)
    }

    /// A function over those columns, and what is done to its answers. One that sorts goes by the places after its own
    /// ORDER BY; a list has them beside its values and is sorted at last: DataFusion's sorted lists cost 100 times as much
    /// to merge.
    pub(super) fn call(
        &self,
        function: &AggregateFunctionExpr,
        rows: &SchemaRef,
    ) -> Result<(Arc<AggregateFunctionExpr>, Canonical), OperatorError> {
        let column = |index: usize| -> Arc<dyn PhysicalExpr> {
            Arc::new(Column::new(rows.field(index).name(), index))
        };
        let fun = Arc::new(function.fun().clone());
        let expressions = function.expressions();
        let value = self
            .listed
            .iter()
            .position(|(known, _)| known.eq(&expressions[0]));
        let (built, canonical) = match value.filter(|_| lists(function)) {
            Some(index) => {
                let listed = vec![column(self.epoch + 1 + index)];
                let nulls = !function.ignore_nulls();
                (
                    AggregateExprBuilder::new(fun, listed),
                    Canonical::ByPlace { nulls },
                )
            }
            None => {
                let places = [self.epoch, self.place].map(|index| PhysicalSortExpr {
                    expr: column(index),
                    options: SortOptions::default(),
                });
                let order = function.order_bys().iter().cloned().chain(places);
                let built = AggregateExprBuilder::new(fun, expressions).order_by(order.collect());
                let built = built.with_ignore_nulls(function.ignore_nulls());
                (built, Canonical::of(function))
            }
        };
        let built = built
            .schema(Arc::clone(rows))
            .alias(function.name())
            .build()?;
        Ok((Arc::new(built), canonical))
    }
}
