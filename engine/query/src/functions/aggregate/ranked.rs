//! Aggregates that look at all values of a group in order: percentiles, the mode, and texts put together.
//!
//! The state is the values themselves; what is asked of them is computed by a function over their list, or, of the
//! groups of a query, by one aggregate ([`super::ranks`]).

use std::sync::Arc;

use arrow::array::{Array, AsArray, StringBuilder, UInt32Array};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take};
use arrow::datatypes::{DataType, FieldRef, Float64Type};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};

use super::Call;
use super::ranks::{Rank, ranked};
use crate::coerce;
use crate::error::QueryError;
use crate::functions::kernel::{Can, Kernel, Result, Typed};
use crate::functions::{cast, compare, nested};
use crate::types::list_of;

type Answer<T> = std::result::Result<T, QueryError>;

impl Call<'_> {
    /// A function of all values of a group.
    pub(super) fn of_all_values(mut self) -> Answer<Typed> {
        let order = std::mem::take(&mut self.wanted.order_by);
        let types = std::mem::take(&mut self.wanted.order_types);
        let keys = order.into_iter().zip(types);
        let keys: Vec<(Typed, SortOptions)> = keys
            .map(|(sort, data_type)| {
                let options = SortOptions {
                    descending: !sort.asc,
                    nulls_first: sort.nulls_first,
                };
                (Typed::new(sort.expr, data_type), options)
            })
            .collect();
        if matches!(self.name, "listagg" | "string_agg") {
            return self.texts(keys);
        }
        let name = self.name;
        let mut args = std::mem::take(&mut self.wanted.args);
        let descending = keys.first().is_some_and(|(_, options)| options.descending);
        // WITHIN GROUP says what is looked at.
        let within = keys.len() == 1;
        if within {
            args.insert(0, keys[0].0.clone());
        }
        let wanted = match name {
            "percentile" => 2..=3,
            "percentile_cont" | "percentile_disc" => 2..=2,
            "percentile_approx" | "approx_percentile" => 2..=3,
            "mode" => 1..=2,
            _ => 1..=1,
        };
        let needs_within = matches!(name, "percentile_cont" | "percentile_disc");
        if !wanted.contains(&args.len())
            || keys.len() > 1
            || needs_within != within && name != "mode"
        {
            let message = format!(
                "The `{name}` requires other parameters: {} to {} with what it orders by.",
                wanted.start(),
                wanted.end()
            );
            return Err(QueryError::new(
                "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
                message,
            ));
        }
        let value = args.remove(0);
        if name == "mode" {
            compare::orderable(name, &value)?;
            let value = compare::normalized(value.clone()).unwrap_or(value);
            let element = value.data_type.clone();
            let greatest = within && descending;
            return Ok(ranked(self.values(value), element, Rank::Mode { greatest }));
        }
        let approximate = matches!(name, "percentile_approx" | "approx_percentile");
        let value = match coerce::is_numeric(&value.data_type) {
            true => value,
            false => self.as_type(0, value, &DataType::Float64)?,
        };
        let (at, array) = match args.first() {
            None => (vec![0.5], false),
            Some(at) => shares(name, at)?,
        };
        if approximate {
            let element = value.data_type.clone();
            return Ok(ranked(
                self.values(value),
                element,
                Rank::Values { at, array },
            ));
        }
        let value = cast::implicit(value, &DataType::Float64)?;
        let value = match args.pop().filter(|_| args.len() == 1) {
            None => value,
            Some(times) if coerce::is_integral(&times.data_type) => {
                let times = cast::implicit(times, &DataType::Int64)?;
                let names = vec!["value".to_string(), "times".to_string()];
                nested::make_struct(names, vec![value, times])
            }
            Some(times) => return Err(coerce::unexpected(name, 2, &times, "INTEGRAL")),
        };
        let rank = Rank::Percentiles {
            at,
            array,
            descending,
            continuous: name != "percentile_disc",
        };
        let element = value.data_type.clone();
        Ok(ranked(self.values(value), element, rank))
    }

    fn values(&self, value: Typed) -> Typed {
        let list = list_of(value.data_type.clone());
        self.over(values_udaf(), vec![value], list)
    }

    fn texts(mut self, keys: Vec<(Typed, SortOptions)>) -> Answer<Typed> {
        let mut args = std::mem::take(&mut self.wanted.args).into_iter();
        let (Some(text), between, None) = (args.next(), args.next(), args.next()) else {
            let message = format!("The `{}` requires [1, 2] parameters.", self.name);
            return Err(QueryError::new(
                "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
                message,
            ));
        };
        let between = match &between {
            None => String::new(),
            Some(between) => match between.constant() {
                Some(ScalarValue::Utf8(text)) => text.clone().unwrap_or_default(),
                Some(constant) if constant.is_null() => String::new(),
                _ => return Err(coerce::unexpected(self.name, 1, between, "constant STRING")),
            },
        };
        let text = self.as_type(0, text, &DataType::Utf8)?;
        let distinct = std::mem::take(&mut self.wanted.distinct);
        let options = keys.iter().map(|(_, options)| *options).collect();
        let mut fields: Vec<Typed> = keys.into_iter().map(|(key, _)| key).collect();
        fields.push(text);
        let names = (0..fields.len()).map(|i| format!("c{i}")).collect();
        let row = nested::make_struct(names, fields);
        let list = list_of(row.data_type.clone());
        let rows = self.named("collect_list", vec![row], list)?;
        Ok(joined(rows, between, distinct, options))
    }
}

/// The constant shares, from 0 to 1, that percentiles are asked at, and whether they are an array.
fn shares(name: &str, at: &Typed) -> Answer<(Vec<f64>, bool)> {
    let refuse = || coerce::unexpected(name, 1, at, "constant DOUBLE from 0 to 1");
    if !at.expr.column_refs().is_empty() {
        return Err(refuse());
    }
    let schema = datafusion::common::DFSchema::empty();
    let (props, context) = (Default::default(), Default::default());
    let constant =
        datafusion::physical_expr::create_physical_expr(&at.expr, &schema, &props, &context)?;
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(1));
    let row = arrow::record_batch::RecordBatch::try_new_with_options(
        Arc::new(arrow::datatypes::Schema::empty()),
        vec![],
        &options,
    )?;
    let value = constant.evaluate(&row)?.into_array(1)?;
    let (values, array) = match value.data_type() {
        DataType::List(_) => (value.as_list::<i32>().value(0), true),
        _ => (value, false),
    };
    let values = arrow::compute::cast(&values, &DataType::Float64)?;
    let values = values.as_primitive::<Float64Type>();
    let fits = |value: &Option<f64>| value.is_some_and(|v| (0.0..=1.0).contains(&v));
    if values.is_empty() || !values.iter().all(|value| fits(&value)) {
        return Err(refuse());
    }
    Ok((values.values().to_vec(), array))
}

/// All values of a group, in no order that counts.
fn values_udaf() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(Values {
        inner: array_agg_udaf(),
    }))
}

/// `values(x)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Values {
    inner: Arc<AggregateUDF>,
}

impl AggregateUDFImpl for Values {
    fn name(&self) -> &str {
        "values"
    }

    fn signature(&self) -> &Signature {
        static ANY: std::sync::LazyLock<Signature> =
            std::sync::LazyLock::new(|| Signature::any(1, Volatility::Immutable));
        &ANY
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        self.inner.return_type(args)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }
}

/// The texts of a list put together: of structs whose last field is the text, sorted by the fields before it.
pub(super) fn joined(
    list: Typed,
    between: String,
    distinct: bool,
    order: Vec<SortOptions>,
) -> Typed {
    let params = format!("{between:?} {distinct} {order:?}");
    let (returns, can) = (DataType::Utf8, Can::NotFail);
    Kernel::over_arrays(
        "listagg",
        params,
        vec![list],
        returns,
        can,
        move |args, rows| {
            let lists = args[0].as_list::<i32>();
            let mut out = StringBuilder::new();
            for row in 0..rows {
                if lists.is_null(row) || lists.value_length(row) == 0 {
                    out.append_null();
                    continue;
                }
                let structs = lists.value(row);
                let columns = structs.as_struct().columns();
                let (keys, texts) = columns.split_at(order.len());
                let mut texts = Arc::clone(&texts[0]);
                if !order.is_empty() {
                    let places = UInt32Array::from_iter_values(0..texts.len() as u32);
                    let mut sort: Vec<SortColumn> = keys
                        .iter()
                        .zip(&order)
                        .map(|(key, options)| SortColumn {
                            values: Arc::clone(key),
                            options: Some(*options),
                        })
                        .collect();
                    // Rows that are equal in order stay as they came.
                    sort.push(SortColumn {
                        values: Arc::new(places),
                        options: None,
                    });
                    texts = take(&texts, &lexsort_to_indices(&sort, None)?, None)?;
                }
                let mut parts: Vec<&str> = texts.as_string::<i32>().iter().flatten().collect();
                if distinct {
                    let mut seen = std::collections::BTreeSet::new();
                    parts.retain(|part| seen.insert(*part));
                }
                match parts.is_empty() {
                    true => out.append_null(),
                    false => out.append_value(parts.join(&between)),
                }
            }
            Ok(Arc::new(out.finish()))
        },
    )
}
