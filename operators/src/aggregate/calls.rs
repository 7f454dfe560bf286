//! An aggregation made ready to run: its calls, its types, its state columns.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array};
use arrow::compute::{SortColumn, cast, lexsort_to_indices, prep_null_mask_filter};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::cast::as_boolean_array;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::{GroupsAccumulatorAdapter, PhysicalExpr, PhysicalSortExpr};

use super::canonical::{self, Canonical};
use super::kinds::{self, Kind};
use super::placed::Placed;
use super::values::{self, Kept};
use super::{AggregateCall, Aggregation, Emit, Panes, closing, needs_order, nth};
use crate::exchange::take_rows;
use crate::keys::Codec;
use crate::{Edge, OperatorError, wire};

/// An aggregation made ready to run.
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) keys: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) calls: Vec<Call>,
    pub(crate) output: SchemaRef,
    pub(crate) emit: Emit,
    /// The edge below.
    pub(crate) input: Edge,
    /// What the calls see of its rows.
    pub(crate) rows: SchemaRef,
    placed: Option<Placed>,
    /// The normalised keys, as columns.
    pub(crate) key_schema: SchemaRef,
    /// The state columns of all calls.
    pub(crate) state_schema: SchemaRef,
    /// True if some call takes rows in source order.
    pub(crate) ordered: bool,
    pub(crate) codec: Codec,
    /// True if the first key is event time.
    pub(crate) event_time: bool,
    pub(crate) panes: Option<Panes>,
    /// True if the state has a row for each pane instead of each window.
    pub(crate) stores_panes: bool,
    /// The call that says how many rows a group has.
    pub(crate) gone: Option<usize>,
    /// The keys that say who owns a group.
    pub(crate) routed: Range<usize>,
}

/// One call made ready to run.
#[derive(Clone)]
pub(crate) struct Call {
    function: Arc<AggregateFunctionExpr>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    /// By what its rows are sorted before it sees them.
    pub(crate) sort: Vec<PhysicalSortExpr>,
    /// How many state columns it has.
    pub(crate) state_columns: usize,
    pub(crate) canonical: Canonical,
    /// How many elements of its state lists count.
    pub(crate) bound: Option<i64>,
    /// True if the function has an accumulator for many groups that can be trusted.
    vectorised: bool,
}

impl Plan {
    pub(crate) fn new(input: &Edge, aggregation: Aggregation) -> Result<Self, OperatorError> {
        let plan = Plan::over_sorted(input, aggregation)?;
        let mut calls = plan.calls.iter().map(|call| &call.function);
        match calls.find(|function| needs_order(function) && !input.ordered) {
            None => Ok(plan),
            Some(function) => Err(OperatorError::Other(format!(
                "\"{}\" needs its rows in source order, which the plan below does not keep",
                function.name()
            ))),
        }
    }

    /// The same where whoever runs it gives the rows of a group in an order of their own.
    pub(crate) fn over_sorted(
        input: &Edge,
        aggregation: Aggregation,
    ) -> Result<Self, OperatorError> {
        let stores_panes = aggregation.stores_panes();
        let placed = match input.order_index().filter(|_| aggregation.stores_places()) {
            Some(place) => Some(Placed::new(input, place, &aggregation.calls)?),
            None => None,
        };
        let rows = match &placed {
            Some(placed) => placed.rows(input),
            None => input.physical(),
        };
        let Aggregation {
            name,
            keys,
            calls,
            schema: output,
            emit,
            event_time,
            panes,
            gone,
        } = aggregation;
        if input.signed {
            let text = "aggregation over rows that can be retracted is not supported yet";
            return Err(OperatorError::Other(text.into()));
        }
        let ordered = calls.iter().any(|call| needs_order(&call.function));
        let key_count = keys.len();
        let mut key_fields = Vec::with_capacity(key_count);
        for (index, key) in keys.iter().enumerate() {
            let data_type = key.data_type(&input.rows)?;
            let data_type = wire::flat_type(&data_type).unwrap_or(data_type);
            key_fields.push(Field::new(format!("key{index}"), data_type, true));
        }
        let types = key_fields.iter().map(|f| f.data_type().clone()).collect();
        let codec = if event_time {
            Codec::nulls_last(types)?
        } else {
            Codec::new(types)?
        };
        let by_time = key_fields.first().map(|first| first.data_type());
        let needs_time = event_time || panes.is_some();
        if needs_time && !by_time.is_some_and(closing::is_event_time) {
            let text = "the first key of an aggregation by event time is a timestamp";
            return Err(OperatorError::Other(text.into()));
        }
        let mut state_fields = Vec::new();
        let mut prepared = Vec::with_capacity(calls.len());
        for (index, call) in calls.into_iter().enumerate() {
            let call = Call::new(call, input, &rows, placed.as_ref())?;
            let fields = call.function.state_fields()?;
            for (part, field) in fields.iter().enumerate() {
                let name = format!("call{index}.{part}");
                state_fields.push(Field::new(name, field.data_type().clone(), true));
            }
            prepared.push(call);
        }
        Ok(Plan {
            name,
            keys,
            calls: prepared,
            output,
            emit,
            input: input.clone(),
            rows,
            placed,
            key_schema: Arc::new(Schema::new(key_fields)),
            state_schema: Arc::new(Schema::new(state_fields)),
            ordered,
            codec,
            event_time,
            // All panes of a window go to one worker, which takes them together.
            routed: usize::from(panes.is_some())..key_count,
            panes,
            stores_panes,
            gone,
        })
    }

    /// The same with some of its calls, and which state columns are theirs.
    pub(super) fn only(&self, calls: &[usize]) -> Result<(Self, Vec<usize>), OperatorError> {
        let (mut columns, mut first) = (Vec::new(), 0);
        for (index, call) in self.calls.iter().enumerate() {
            let end = first + call.state_columns;
            if calls.contains(&index) {
                columns.extend(first..end);
            }
            first = end;
        }
        let keys = 0..self.keys.len();
        let answers = calls.iter().map(|call| self.keys.len() + call);
        let output: Vec<usize> = keys.chain(answers).collect();
        let types = self.codec.types().to_vec();
        let plan = Plan {
            name: self.name.clone(),
            keys: self.keys.clone(),
            calls: calls.iter().map(|call| self.calls[*call].clone()).collect(),
            output: Arc::new(self.output.project(&output)?),
            input: self.input.clone(),
            rows: SchemaRef::clone(&self.rows),
            placed: self.placed.clone(),
            key_schema: SchemaRef::clone(&self.key_schema),
            state_schema: Arc::new(self.state_schema.project(&columns)?),
            codec: if self.event_time {
                Codec::nulls_last(types)?
            } else {
                Codec::new(types)?
            },
            gone: None,
            routed: self.routed.clone(),
            ..*self
        };
        Ok((plan, columns))
    }

    /// Rows of an epoch as the calls see them.
    pub(super) fn seen(
        &self,
        rows: &RecordBatch,
        epoch: u64,
    ) -> Result<RecordBatch, OperatorError> {
        match &self.placed {
            Some(placed) => placed.seen(rows, epoch, &self.rows),
            None => Ok(rows.clone()),
        }
    }

    /// The state columns of each call.
    pub(crate) fn split_states<'a>(
        &self,
        columns: &'a [ArrayRef],
    ) -> impl Iterator<Item = &'a [ArrayRef]> {
        let mut rest = columns;
        self.calls.iter().map(move |call| {
            let (head, tail) = rest.split_at(call.state_columns);
            rest = tail;
            head
        })
    }
}

impl Call {
    /// `placed` if the state has to tell the places of rows.
    fn new(
        call: AggregateCall,
        input: &Edge,
        rows: &SchemaRef,
        placed: Option<&Placed>,
    ) -> Result<Self, OperatorError> {
        let AggregateCall { function, filter } = call;
        let mut function = canonical::rewrite(function, input)?;
        let mut canonical = Canonical::of(&function);
        if let Some(placed) = placed.filter(|_| needs_order(&function) && !function.is_distinct()) {
            (function, canonical) = placed.call(&function, rows)?;
        }
        let mut arguments = function.expressions();
        let order_bys = function.order_bys();
        // An accumulator with an ORDER BY inside takes the sort columns after its arguments.
        arguments.extend(order_bys.iter().map(|sort| Arc::clone(&sort.expr)));
        let mut call = Call {
            vectorised: function.groups_accumulator_supported(),
            state_columns: function.state_fields()?.len(),
            canonical,
            bound: nth::bound(&function),
            sort: order_bys.to_vec(),
            arguments,
            filter,
            function,
        };
        // Some functions offer a vectorised accumulator that knows nothing of DISTINCT. Its state gives it away.
        call.vectorised = call.vectorised && call.keeps_its_promise(rows)?;
        // Find out now whether the function takes these types.
        call.accumulator()?;
        Ok(call)
    }

    /// True if the state of the vectorised accumulator has the types that the function announces.
    fn keeps_its_promise(&self, rows: &SchemaRef) -> Result<bool, OperatorError> {
        let none = RecordBatch::new_empty(Arc::clone(rows));
        let (arguments, filter) = self.arguments(&none)?;
        let mut accumulator = self.accumulator()?;
        accumulator.update_batch(&arguments, &[], filter.as_ref(), 1)?;
        let state = accumulator.state(EmitTo::All)?;
        let announced = self.function.state_fields()?;
        let same = |(column, field): (&ArrayRef, &FieldRef)| {
            column.data_type().equals_datatype(field.data_type())
        };
        Ok(state.len() == announced.len() && state.iter().zip(&announced).all(same))
    }

    /// What its values are kept in.
    pub(super) fn kept(&self) -> Result<Box<dyn Kept>, OperatorError> {
        match (
            kinds::asked_of_set(&self.function),
            kinds::elements(&self.function)?,
        ) {
            (Some(ask), Some(element)) => Ok(values::distinct(ask, &element)?),
            _ => Ok(values::sliding(&self.function)),
        }
    }

    /// What its states are like.
    pub(crate) fn kind(&self) -> Result<Kind, OperatorError> {
        Kind::of(&self.function)
    }

    /// True if it answers the same, to the last bit, in whatever order states are merged.
    pub(crate) fn is_exact(&self) -> Result<bool, OperatorError> {
        kinds::is_exact(&self.function)
    }

    /// True if its rows are sorted before it sees them.
    pub(crate) fn sorts(&self) -> bool {
        !self.sort.is_empty() && needs_order(&self.function)
    }

    /// Rows and their groups, sorted by the ORDER BY inside; rows that it does not tell apart stay as they came.
    pub(crate) fn sorted(
        &self,
        rows: &RecordBatch,
        indices: &[usize],
    ) -> Result<(RecordBatch, Vec<usize>), OperatorError> {
        let mut columns = Vec::with_capacity(self.sort.len() + 1);
        for sort in &self.sort {
            columns.push(sort.evaluate_to_sort_column(rows)?);
        }
        let places = UInt32Array::from_iter_values(0..rows.num_rows() as u32);
        columns.push(SortColumn {
            values: Arc::new(places),
            options: None,
        });
        let order = lexsort_to_indices(&columns, None)?;
        let indices = order.values().iter().map(|row| indices[*row as usize]);
        Ok((take_rows(rows, &order)?, indices.collect()))
    }

    /// A fresh accumulator for any number of groups.
    pub(crate) fn accumulator(&self) -> Result<Box<dyn GroupsAccumulator>, OperatorError> {
        if self.vectorised {
            return Ok(self.function.create_groups_accumulator()?);
        }
        self.function.create_accumulator()?;
        let function = Arc::clone(&self.function);
        let create = move || function.create_accumulator();
        Ok(Box::new(GroupsAccumulatorAdapter::new(create)))
    }

    /// The arguments of the call for `rows`, and which rows pass its filter.
    pub(crate) fn arguments(
        &self,
        rows: &RecordBatch,
    ) -> Result<(Vec<ArrayRef>, Option<BooleanArray>), OperatorError> {
        let count = rows.num_rows();
        let mut arguments = Vec::with_capacity(self.arguments.len());
        for argument in &self.arguments {
            arguments.push(argument.evaluate(rows)?.into_array(count)?);
        }
        let filter = match &self.filter {
            None => None,
            Some(filter) => {
                let filter = filter.evaluate(rows)?.into_array(count)?;
                let filter = as_boolean_array(&filter)?;
                Some(if filter.null_count() > 0 {
                    prep_null_mask_filter(filter)
                } else {
                    filter.clone()
                })
            }
        };
        Ok((arguments, filter))
    }
}

/// `columns` with the types of `schema`'s fields: what an accumulator returns may differ from what it announced in the
/// names of nested fields.
pub(crate) fn conform(
    columns: Vec<ArrayRef>,
    types: impl Iterator<Item = DataType>,
) -> Result<Vec<ArrayRef>, OperatorError> {
    std::iter::zip(columns, types)
        .map(|(column, to)| {
            if *column.data_type() == to {
                Ok(column)
            } else {
                Ok(cast(&column, &to)?)
            }
        })
        .collect()
}
