//! Aggregates that look at all values of a group in order: percentiles, the mode, and texts put together.
//!
//! The state is the values themselves; what is asked of them is computed by a function over the list.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, ListArray, StringBuilder, UInt32Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take};
use arrow::datatypes::{DataType, FieldRef, Float64Type, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};

use super::Call;
use crate::coerce;
use crate::error::{QueryError, RunError};
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
            return Ok(mode(self.values(value), element, within && descending));
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
            let values = self.values(value);
            return Ok(match array {
                false => value_at(values, element, at[0]),
                true => values_at(values, element, at),
            });
        }
        let value = cast::implicit(value, &DataType::Float64)?;
        let values = match args.pop().filter(|_| args.len() == 1) {
            None => self.values(value),
            Some(times) if coerce::is_integral(&times.data_type) => {
                let times = cast::implicit(times, &DataType::Int64)?;
                let names = vec!["value".to_string(), "times".to_string()];
                self.values(nested::make_struct(names, vec![value, times]))
            }
            Some(times) => return Err(coerce::unexpected(name, 2, &times, "INTEGRAL")),
        };
        Ok(percentiles(
            values,
            at,
            array,
            descending,
            name != "percentile_disc",
        ))
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
pub(super) fn values_udaf() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(Values {
        inner: array_agg_udaf(),
    }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Values {
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

/// The known values of row `row`, ascending.
fn sorted(lists: &ListArray, row: usize) -> Result<Option<ArrayRef>> {
    if lists.is_null(row) {
        return Ok(None);
    }
    let values = lists.value(row);
    let known = arrow::compute::filter(&values, &arrow::compute::is_not_null(&values)?)?;
    let sorted = arrow::compute::sort(&known, Some(SortOptions::default()))?;
    Ok((!sorted.is_empty()).then_some(sorted))
}

/// The doubles of a group, ascending.
struct Ascending {
    values: Vec<f64>,
    /// How many there are up to each, itself included, where each comes with how often it is there.
    up_to: Option<Vec<usize>>,
}

impl Ascending {
    /// Those of a list of doubles, or of structs of one and how often it is there; `None` without any.
    fn of(lists: &ListArray, row: usize) -> Result<Option<Self>> {
        if lists.is_null(row) {
            return Ok(None);
        }
        let list = lists.value(row);
        let Some(pairs) = list.as_struct_opt() else {
            let values = sorted(lists, row)?;
            return Ok(values.map(|values| Ascending {
                values: values.as_primitive::<Float64Type>().values().to_vec(),
                up_to: None,
            }));
        };
        let values = pairs.column(0).as_primitive::<Float64Type>().iter();
        let times = pairs.column(1).as_primitive::<Int64Type>().iter();
        let mut known = Vec::new();
        for pair in values.zip(times) {
            let (Some(value), Some(times)) = pair else {
                continue;
            };
            match usize::try_from(times) {
                Ok(0) => {}
                Ok(times) => known.push((value, times)),
                Err(_) => {
                    return Err(RunError::raise(
                        "NEGATIVE_VALUES_IN_FREQUENCY_EXPRESSION",
                        format!(
                            "Found the negative value in the frequency of percentile: {times}L, but expected a positive integral value."
                        ),
                    ));
                }
            }
        }
        known.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let up_to = known.iter().scan(0, |sum, (_, times)| {
            *sum += times;
            Some(*sum)
        });
        let up_to = Some(up_to.collect());
        let values: Vec<f64> = known.iter().map(|(value, _)| *value).collect();
        Ok((!values.is_empty()).then_some(Ascending { values, up_to }))
    }

    fn count(&self) -> usize {
        let last = self.up_to.as_ref().and_then(|up_to| up_to.last());
        last.copied().unwrap_or(self.values.len())
    }

    fn at(&self, place: usize) -> f64 {
        match &self.up_to {
            None => self.values[place],
            Some(up_to) => self.values[up_to.partition_point(|count| *count <= place)],
        }
    }
}

/// Where a percentile is in `values`: between two of them (`continuous`), or at one.
fn percentile(values: &Ascending, at: f64, descending: bool, continuous: bool) -> f64 {
    let count = values.count();
    let value = |place: usize| {
        let place = place.min(count - 1);
        values.at(if descending { count - 1 - place } else { place })
    };
    if !continuous {
        return value(((at * count as f64).ceil() as usize).saturating_sub(1));
    }
    let position = (count - 1) as f64 * at;
    let (low, high) = (position.floor(), position.ceil());
    let (below, above) = (value(low as usize), value(high as usize));
    if low == high || below == above {
        return below;
    }
    (high - position) * below + (position - low) * above
}

/// Percentiles of a list of doubles: one, or an array of them.
pub(super) fn percentiles(
    list: Typed,
    at: Vec<f64>,
    array: bool,
    descending: bool,
    continuous: bool,
) -> Typed {
    let returns = match array {
        true => list_of(DataType::Float64),
        false => DataType::Float64,
    };
    let params = format!("{at:?} {array} {descending} {continuous}");
    // How often a value is there can be less than never.
    let weighed =
        matches!(&list.data_type, DataType::List(element) if element.data_type().is_nested());
    let can = if weighed { Can::Fail } else { Can::NotFail };
    Kernel::over_arrays(
        "percentiles",
        params,
        vec![list],
        returns,
        can,
        move |args, rows| {
            let lists = args[0].as_list::<i32>();
            let mut all = vec![];
            let mut offsets = vec![0i32];
            let mut valid = vec![];
            for row in 0..rows {
                let values = Ascending::of(lists, row)?;
                valid.push(values.is_some());
                if let Some(values) = values {
                    all.extend(
                        at.iter()
                            .map(|at| percentile(&values, *at, descending, continuous)),
                    );
                } else if !array {
                    all.push(0.0);
                }
                offsets.push(i32::try_from(all.len()).unwrap_or(i32::MAX));
            }
            let nulls = arrow::buffer::NullBuffer::from(valid);
            let values = Float64Array::from(all);
            if !array {
                return Ok(Arc::new(Float64Array::try_new(
                    values.values().clone(),
                    Some(nulls),
                )?));
            }
            let DataType::List(field) = list_of(DataType::Float64) else {
                return Ok(Arc::new(values));
            };
            let offsets = arrow::buffer::OffsetBuffer::new(offsets.into());
            let values = Arc::new(values);
            Ok(Arc::new(ListArray::try_new(
                field,
                offsets,
                values,
                Some(nulls),
            )?))
        },
    )
}

/// One element of each list, or none.
fn picked(
    name: &str,
    params: String,
    list: Typed,
    element: DataType,
    pick: impl Fn(&ArrayRef) -> Result<usize> + Send + Sync + 'static,
) -> Typed {
    let returns = element.clone();
    Kernel::over_arrays(
        name,
        params,
        vec![list],
        element,
        Can::NotFail,
        move |args, rows| {
            let lists = args[0].as_list::<i32>();
            let values = (0..rows).map(|row| match sorted(lists, row)? {
                Some(values) => ScalarValue::try_from_array(&values, pick(&values)?),
                None => ScalarValue::try_new_null(&returns),
            });
            let values = values.collect::<Result<Vec<_>>>()?;
            match values.is_empty() {
                true => Ok(arrow::array::new_empty_array(&returns)),
                false => ScalarValue::iter_to_array(values),
            }
        },
    )
}

/// The value at a percentile, which is one of the list's own.
pub(super) fn value_at(list: Typed, element: DataType, at: f64) -> Typed {
    picked(
        "percentile_approx",
        at.to_string(),
        list,
        element,
        move |values| Ok(place_of(values, at)),
    )
}

fn place_of(values: &ArrayRef, at: f64) -> usize {
    let place = (at * values.len() as f64).ceil() as usize;
    place.saturating_sub(1).min(values.len() - 1)
}

/// The values at several percentiles, as an array.
fn values_at(list: Typed, element: DataType, at: Vec<f64>) -> Typed {
    let (params, returns) = (format!("{at:?}"), list_of(element.clone()));
    Kernel::over_arrays(
        "percentiles_approx",
        params,
        vec![list],
        returns,
        Can::NotFail,
        move |args, rows| {
            let lists = args[0].as_list::<i32>();
            let mut parts = Vec::new();
            let mut lengths = Vec::new();
            for row in 0..rows {
                let picked = sorted(lists, row)?.map(|values| {
                    let places = at.iter().map(|at| place_of(&values, *at) as u32);
                    take(&values, &UInt32Array::from_iter_values(places), None)
                });
                let picked = picked.transpose()?;
                lengths.push(picked.as_ref().map_or(0, |picked| picked.len()));
                parts.push(picked);
            }
            let valid: NullBuffer = parts.iter().map(Option::is_some).collect();
            let parts: Vec<&dyn Array> = parts.iter().flatten().map(AsRef::as_ref).collect();
            let values = match parts.is_empty() {
                true => arrow::array::new_empty_array(&element),
                false => arrow::compute::concat(&parts)?,
            };
            let DataType::List(field) = list_of(element.clone()) else {
                return Ok(values);
            };
            let offsets = OffsetBuffer::from_lengths(lengths);
            Ok(Arc::new(ListArray::try_new(
                field,
                offsets,
                values,
                Some(valid),
            )?))
        },
    )
}

/// The value that is there most often; of several the least, or the greatest.
pub(super) fn mode(list: Typed, element: DataType, greatest: bool) -> Typed {
    picked("mode", greatest.to_string(), list, element, move |values| {
        let runs = arrow::compute::partition(std::slice::from_ref(values))?.ranges();
        let longest = runs.iter().enumerate().max_by_key(|(nth, run)| {
            let first = if greatest {
                *nth as i64
            } else {
                -(*nth as i64)
            };
            (run.len(), first)
        });
        Ok(longest.map_or(0, |(_, run)| run.start))
    })
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
