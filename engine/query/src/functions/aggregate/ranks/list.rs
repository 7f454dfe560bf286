//! What is asked of the values in a list, and the function that answers it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, UInt32Array, new_empty_array};
use arrow::compute::{SortOptions, filter, is_not_null, partition, sort, take};
use arrow::datatypes::{DataType, FieldRef, Float64Type, Int64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr as DfExpr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature,
};

use super::{Ordered, Rank, negative};
use crate::functions::kernel::{Can, Kernel, Result, Typed};

/// The known values of a list, ascending.
pub(super) struct List {
    values: ArrayRef,
    /// How many there are up to each, itself included, where each comes with how often it is there.
    up_to: Option<Vec<usize>>,
}

impl List {
    pub(super) fn of(values: &ArrayRef, weighed: bool) -> Result<Self> {
        if weighed {
            return List::weighed(values);
        }
        let known = match values.null_count() {
            0 => Arc::clone(values),
            _ => filter(values, &is_not_null(values)?)?,
        };
        let values = match known.data_type() {
            DataType::Struct(_) => {
                let fields = vec![SortField::new(known.data_type().clone())];
                let rows = RowConverter::new(fields)?.convert_columns(&[Arc::clone(&known)])?;
                let mut order: Vec<u32> = (0..known.len() as u32).collect();
                order.sort_unstable_by_key(|place| rows.row(*place as usize));
                take(&known, &UInt32Array::from(order), None)?
            }
            _ => sort(&known, Some(SortOptions::default()))?,
        };
        Ok(List {
            values,
            up_to: None,
        })
    }

    /// Of structs of a double and how often it is there.
    fn weighed(values: &ArrayRef) -> Result<Self> {
        let mut known = Vec::new();
        let mut least = 0;
        for (value, times) in pairs(values) {
            match usize::try_from(times) {
                Ok(0) => {}
                Ok(times) => known.push((value, times)),
                Err(_) => least = least.min(times),
            }
        }
        if least < 0 {
            return Err(negative(least));
        }
        known.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let up_to = known.iter().scan(0, |sum, (_, times)| {
            *sum += times;
            Some(*sum)
        });
        let up_to = Some(up_to.collect());
        let values = known.iter().map(|(value, _)| *value);
        Ok(List {
            values: Arc::new(Float64Array::from_iter_values(values)),
            up_to,
        })
    }
}

/// The doubles of structs, and how often each is there, where both are known.
pub(super) fn pairs(structs: &ArrayRef) -> impl Iterator<Item = (f64, i64)> {
    let columns = structs.as_struct().columns();
    let values = columns[0].as_primitive::<Float64Type>().iter();
    let times = columns[1].as_primitive::<Int64Type>().iter();
    values
        .zip(times)
        .filter_map(|(value, times)| value.zip(times))
}

impl Ordered for List {
    fn count(&self) -> usize {
        let last = self.up_to.as_ref().and_then(|up_to| up_to.last());
        last.copied().unwrap_or(self.values.len())
    }

    fn value(&self, place: usize) -> Result<ScalarValue> {
        let place = match &self.up_to {
            None => place,
            Some(up_to) => up_to.partition_point(|count| *count <= place),
        };
        ScalarValue::try_from_array(&self.values, place)
    }

    fn mode(&mut self, greatest: bool) -> Result<ScalarValue> {
        let runs = partition(std::slice::from_ref(&self.values))?.ranges();
        let longest = runs.iter().enumerate().max_by_key(|(nth, run)| {
            let nth = *nth as i64;
            (run.len(), if greatest { nth } else { -nth })
        });
        self.value(longest.map_or(0, |(_, run)| run.start))
    }
}

/// What is asked of the values in each list.
pub(in crate::functions::aggregate) fn ranked(list: Typed, element: DataType, rank: Rank) -> Typed {
    let (name, params) = match &rank {
        Rank::Percentiles {
            at,
            array,
            descending,
            continuous,
        } => (
            "percentiles",
            format!("{at:?} {array} {descending} {continuous}"),
        ),
        Rank::Values { at, array } => ("percentile_approx", format!("{at:?} {array}")),
        Rank::Mode { greatest } => ("mode", greatest.to_string()),
    };
    let weighs = rank.weighs(&element);
    // How often a value is there can be less than never.
    let can = if weighs { Can::Fail } else { Can::NotFail };
    let returns = rank.returns(&element);
    let (result, asks, of) = (returns.clone(), rank.clone(), element.clone());
    let call = Kernel::over_arrays(name, params, vec![list], returns, can, move |args, rows| {
        let lists = args[0].as_list::<i32>();
        let answers = (0..rows).map(|row| match lists.is_valid(row) {
            true => asks.answer(&mut List::of(&lists.value(row), weighs)?, &of),
            false => ScalarValue::try_new_null(&result),
        });
        let answers = answers.collect::<Result<Vec<_>>>()?;
        match answers.is_empty() {
            true => Ok(new_empty_array(&result)),
            false => ScalarValue::iter_to_array(answers),
        }
    });
    let DfExpr::ScalarFunction(ScalarFunction { func, args }) = call.expr else {
        unreachable!("a kernel is called as a scalar function");
    };
    let over = ScalarUDF::new_from_impl(Ranked {
        rank,
        element,
        over: func,
    });
    let asked = ScalarFunction::new_udf(Arc::new(over), args);
    Typed::new(DfExpr::ScalarFunction(asked), call.data_type)
}

/// A function over lists that can say what it asks of them.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Ranked {
    pub(super) rank: Rank,
    /// The type of the values.
    pub(super) element: DataType,
    over: Arc<ScalarUDF>,
}

/// What a function asks of the values in a list, if that is what it does.
pub(crate) fn rank_of(function: &ScalarUDF) -> Option<&Rank> {
    let ranked = function.inner().downcast_ref::<Ranked>()?;
    Some(&ranked.rank)
}

impl ScalarUDFImpl for Ranked {
    fn name(&self) -> &str {
        self.over.name()
    }

    fn signature(&self) -> &Signature {
        self.over.signature()
    }

    fn schema_name(&self, args: &[DfExpr]) -> Result<String> {
        self.over.schema_name(args)
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        self.over.return_type(args)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.over.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.over.invoke_with_args(args)
    }
}
