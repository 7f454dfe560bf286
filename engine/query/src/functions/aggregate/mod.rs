//! Aggregate functions: DataFusion's where answer and type are Spark's, ours where not.

mod distinct;
mod extreme;
mod interval;
mod only;
mod ranked;
pub(crate) mod ranks;
mod sum;
mod weighed;

pub use ranks::{Rank, ranks};
pub(super) use ranks::{rank_of, ranks_of};
pub use weighed::weighed_sum;

use std::sync::Arc;

use arrow::array::{Array, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate as df;
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment};
use datafusion::logical_expr::{AggregateUDF, Expr as DfExpr, SortExpr};

use super::kernel::{Can, Kernel, Typed};
use super::{Functions, cast, compare, conditional, nested};
use crate::coerce::{self, is_atomic, is_decimal, is_integral, is_numeric};
use crate::error::QueryError;
use crate::types::list_of;

type Result<T> = std::result::Result<T, QueryError>;

/// A call of an aggregate function, its parts resolved.
pub(crate) struct Wanted {
    pub(crate) args: Vec<Typed>,
    pub(crate) distinct: bool,
    pub(crate) filter: Option<Typed>,
    pub(crate) order_by: Vec<SortExpr>,
    /// The types of what it is ordered by.
    pub(crate) order_types: Vec<DataType>,
    pub(crate) ignore_nulls: Option<bool>,
}

impl Wanted {
    /// A plain call over `args`.
    pub(crate) fn of(args: Vec<Typed>) -> Self {
        Wanted {
            args,
            distinct: false,
            filter: None,
            order_by: vec![],
            order_types: vec![],
            ignore_nulls: None,
        }
    }
}

const KNOWN: [&str; 51] = [
    "any",
    "any_value",
    "approx_count_distinct",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "collect_list",
    "collect_set",
    "corr",
    "count",
    "count_if",
    "covar_pop",
    "covar_samp",
    "every",
    "first",
    "first_value",
    "grouping",
    "grouping_id",
    "histogram_numeric",
    "kurtosis",
    "last",
    "last_value",
    "listagg",
    "max",
    "max_by",
    "mean",
    "median",
    "min",
    "min_by",
    "mode",
    "percentile",
    "percentile_approx",
    "percentile_cont",
    "percentile_disc",
    "skewness",
    "some",
    "std",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "sum",
    "try_avg",
    "try_sum",
    "var_pop",
    "var_samp",
    "variance",
];

/// Whether Spark has an aggregate function of that name.
pub(crate) fn is_known(name: &str) -> bool {
    KNOWN.binary_search(&name).is_ok() || name.starts_with("regr_") || name == "approx_percentile"
}

impl Functions {
    /// The implementation of Spark's aggregate `name` over arguments of these types, after implicit casts: one that
    /// was put in its place, or ours. Where there is none, the function is built from others or not at all.
    pub fn aggregate(&self, name: &str, arg_types: &[DataType]) -> Option<Arc<AggregateUDF>> {
        let first = arg_types.first().cloned().unwrap_or(DataType::Null);
        let replaced = self
            .replaced
            .iter()
            .rev()
            .find(|(n, accepts, _)| n == name && accepts(&first));
        if let Some((_, _, udaf)) = replaced {
            return Some(Arc::clone(udaf));
        }
        if let Some(udaf) = self.aggregates.get(name) {
            return Some(Arc::clone(udaf));
        }
        Some(match name {
            "count" => df::count::count_udaf(),
            "sum" | "try_sum" if is_integral(&first) || is_decimal(&first) => {
                Arc::new(sum::checked_sum(&first, name == "try_sum"))
            }
            "sum" | "try_sum" => df::sum::sum_udaf(),
            "avg" => df::average::avg_udaf(),
            "min" => df::min_max::min_udaf(),
            "max" => df::min_max::max_udaf(),
            "first" => df::first_last::first_value_udaf(),
            "last" => df::first_last::last_value_udaf(),
            "collect_list" | "collect_set" => df::array_agg::array_agg_udaf(),
            "bool_and" => df::bool_and_or::bool_and_udaf(),
            "bool_or" => df::bool_and_or::bool_or_udaf(),
            "bit_and" => df::bit_and_or_xor::bit_and_udaf(),
            "bit_or" => df::bit_and_or_xor::bit_or_udaf(),
            "bit_xor" => df::bit_and_or_xor::bit_xor_udaf(),
            "approx_count_distinct" => df::approx_distinct::approx_distinct_udaf(),
            // Statistics of doubles are put in their place by whoever can add without rounding.
            _ => return None,
        })
    }

    /// The call of the aggregate function called `name` (in lower case).
    pub(crate) fn call_aggregate(&self, name: &str, wanted: Wanted) -> Result<Typed> {
        if self.aggregates.contains_key(name) && !is_known(name) {
            return self.registered(name, wanted);
        }
        let call = Call {
            functions: self,
            name,
            wanted,
        };
        call.build()
    }

    fn registered(&self, name: &str, wanted: Wanted) -> Result<Typed> {
        let types: Vec<DataType> = wanted.args.iter().map(|a| a.data_type.clone()).collect();
        let Some(udaf) = self.aggregate(name, &types) else {
            return Err(super::unknown(name));
        };
        let returns = udaf.return_type(&types)?;
        let call = Call {
            functions: self,
            name,
            wanted,
        };
        Ok(call.over(udaf, call.wanted.args.clone(), returns))
    }
}

struct Call<'c> {
    functions: &'c Functions,
    name: &'c str,
    wanted: Wanted,
}

impl Call<'_> {
    fn over(&self, udaf: Arc<AggregateUDF>, args: Vec<Typed>, returns: DataType) -> Typed {
        let args = args.into_iter().map(|a| a.expr).collect();
        let filter = self
            .wanted
            .filter
            .as_ref()
            .map(|f| Box::new(f.expr.clone()));
        let nulls = self
            .wanted
            .ignore_nulls
            .and_then(|ignore| ignore.then_some(NullTreatment::IgnoreNulls));
        let (distinct, order_by) = (self.wanted.distinct, self.wanted.order_by.clone());
        let call = AggregateFunction::new_udf(udaf, args, distinct, filter, order_by, nulls);
        Typed::new(DfExpr::AggregateFunction(call), returns)
    }

    /// The implementation of `name` over `args`, which returns `returns`.
    fn named(&self, name: &str, args: Vec<Typed>, returns: DataType) -> Result<Typed> {
        let types: Vec<DataType> = args.iter().map(|a| a.data_type.clone()).collect();
        match self.functions.aggregate(name, &types) {
            Some(udaf) => Ok(self.over(udaf, args, returns)),
            None => Err(super::unknown(name)),
        }
    }

    fn args<const N: usize>(&self) -> Result<[Typed; N]> {
        let found = self.wanted.args.len();
        self.wanted.args.clone().try_into().map_err(|_| {
            let name = self.name;
            let message =
                format!("The `{name}` requires {N} parameters but the actual number is {found}.");
            QueryError::new("WRONG_NUM_ARGS.WITHOUT_SUGGESTION", message)
        })
    }

    fn one(&self) -> Result<Typed> {
        let [value] = self.args()?;
        Ok(value)
    }

    fn as_type(&self, nth: usize, value: Typed, to: &DataType) -> Result<Typed> {
        coerce::argument(self.name, nth, value, to)
    }

    fn number(&self) -> Result<Typed> {
        let value = self.one()?;
        match &value.data_type {
            t if is_numeric(t) => Ok(value),
            DataType::Utf8 | DataType::Null => cast::implicit(value, &DataType::Float64),
            // A moment is its seconds since 1970.
            DataType::Timestamp(_, Some(_)) if matches!(self.name, "sum" | "avg" | "mean") => {
                cast::explicit(value, &DataType::Float64, false, "UTC")
            }
            _ => {
                let wanted = match self.name {
                    "sum" | "avg" | "mean" => "NUMERIC\" or \"ANSI INTERVAL",
                    _ => "NUMERIC",
                };
                Err(coerce::unexpected(self.name, 0, &value, wanted))
            }
        }
    }

    /// A function of doubles.
    fn doubles<const N: usize>(&self, name: &str) -> Result<Typed> {
        let args = self.args::<N>()?.into_iter().enumerate();
        let args = args
            .map(|(i, a)| self.as_type(i, a, &DataType::Float64))
            .collect::<Result<_>>()?;
        self.named(name, args, DataType::Float64)
    }

    fn build(mut self) -> Result<Typed> {
        let ordered = matches!(
            self.name,
            "listagg" | "string_agg" | "percentile_cont" | "percentile_disc" | "mode"
        );
        if !self.wanted.order_by.is_empty() && !ordered {
            return Err(QueryError::unsupported(format!(
                "{} WITHIN GROUP",
                self.name
            )));
        }
        let valued = matches!(
            self.name,
            "first"
                | "first_value"
                | "last"
                | "last_value"
                | "any_value"
                | "array_agg"
                | "collect_list"
        );
        if self.wanted.ignore_nulls.is_some() && !valued {
            let message = format!("{} takes no IGNORE NULLS", self.name);
            return Err(QueryError::new(
                "INVALID_SQL_SYNTAX.FUNCTION_WITH_UNSUPPORTED_SYNTAX",
                message,
            ));
        }
        match self.name {
            "count" => self.count(),
            "count_if" => {
                let condition = self.as_type(0, self.one()?, &DataType::Boolean)?;
                let one = Typed::literal(ScalarValue::Int64(Some(1)));
                let counted =
                    conditional::case(vec![(condition, one)], Typed::null(&DataType::Int64));
                self.named("count", vec![counted], DataType::Int64)
            }
            "sum" | "try_sum" | "avg" | "mean" | "try_avg"
                if self.wanted.args.len() == 1
                    && interval::is_summed(&self.wanted.args[0].data_type) =>
            {
                let average = !matches!(self.name, "sum" | "try_sum");
                self.of_intervals(self.one()?, average)
            }
            "sum" | "try_sum" => {
                let value = self.number()?;
                match value.data_type.clone() {
                    t if is_integral(&t) => self.named(self.name, vec![value], DataType::Int64),
                    DataType::Decimal128(p, s) => {
                        let returns = adjusted_sum(p, s);
                        self.named(self.name, vec![value], returns)
                    }
                    _ => {
                        let value = self
                            .normalized_if_distinct(cast::implicit(value, &DataType::Float64)?)?;
                        // There is nothing that a try of doubles would tolerate.
                        self.named("sum", vec![value], DataType::Float64)
                    }
                }
            }
            "avg" | "mean" | "try_avg" => {
                let value = self.number()?;
                match value.data_type.clone() {
                    DataType::Decimal128(p, s) => self.decimal_average(value, p, s),
                    _ => {
                        let value = self
                            .normalized_if_distinct(cast::implicit(value, &DataType::Float64)?)?;
                        self.named("avg", vec![value], DataType::Float64)
                    }
                }
            }
            "min" | "max" => {
                let value = self.one()?;
                compare::orderable(self.name, &value)?;
                let returns = value.data_type.clone();
                self.wanted.distinct = false;
                if matches!(returns, DataType::List(_) | DataType::Struct(_)) {
                    return Ok(self.extreme(self.name == "max", value.clone(), value));
                }
                if coerce::is_float(&returns) {
                    let least =
                        self.named(self.name, vec![compare::ordinal(value)], DataType::Int64)?;
                    return Ok(compare::from_ordinal(least, returns));
                }
                self.named(self.name, vec![value], returns)
            }
            "first" | "first_value" | "any_value" => self.at_end("first"),
            "last" | "last_value" => self.at_end("last"),
            "collect_list" | "array_agg" | "collect_set" => {
                let set = self.name == "collect_set";
                let value = self.one()?;
                let value = if set || self.wanted.distinct {
                    compare::normalized(value)?
                } else {
                    value
                };
                compare::groupable(&value)?;
                self.wanted.distinct |= set;
                self.wanted.ignore_nulls = Some(true);
                let returns = list_of(value.data_type.clone());
                let collected = self.named("collect_list", vec![value], returns.clone())?;
                Ok(or_empty(collected))
            }
            "bool_and" | "every" => self.booleans("bool_and"),
            "bool_or" | "some" | "any" => self.booleans("bool_or"),
            "bit_and" | "bit_or" | "bit_xor" => {
                let value = self.one()?;
                if !is_integral(&value.data_type) {
                    return Err(coerce::unexpected(self.name, 0, &value, "INTEGRAL"));
                }
                let returns = value.data_type.clone();
                self.named(self.name, vec![value], returns)
            }
            "std" | "stddev" | "stddev_samp" => self.doubles::<1>("stddev_samp"),
            "stddev_pop" => self.doubles::<1>("stddev_pop"),
            "variance" | "var_samp" => self.doubles::<1>("var_samp"),
            "var_pop" | "skewness" | "kurtosis" => self.doubles::<1>(self.name),
            "covar_samp" | "covar_pop" | "corr" => self.doubles::<2>(self.name),
            "approx_count_distinct" => {
                let value = self.one()?;
                if !is_atomic(&value.data_type) {
                    return Err(QueryError::unsupported(
                        "approx_count_distinct of arrays and structs",
                    ));
                }
                let value = compare::normalized(value)?;
                self.wanted.distinct = false;
                let counted = self.named(self.name, vec![value], DataType::UInt64)?;
                let cast =
                    datafusion::logical_expr::Cast::new(Box::new(counted.expr), DataType::Int64);
                Ok(Typed::new(DfExpr::Cast(cast), DataType::Int64))
            }
            "grouping" | "grouping_id" => Err(QueryError::new(
                "UNSUPPORTED_GROUPING_EXPRESSION",
                "grouping()/grouping_id() can only be used with GroupingSets/Cube/Rollup.",
            )),
            "max_by" | "min_by" => {
                let [value, by] = self.args()?;
                compare::orderable(self.name, &by)?;
                compare::orderable(self.name, &value)?;
                self.wanted.distinct = false;
                let by = compare::normalized(by.clone()).unwrap_or(by);
                Ok(self.extreme(self.name == "max_by", by, value))
            }
            "median" | "percentile" | "percentile_cont" | "percentile_disc"
            | "percentile_approx" | "approx_percentile" | "mode" | "listagg" | "string_agg" => {
                self.of_all_values()
            }
            "regr_count" => {
                let count = self.doubles::<2>("regr_count")?;
                Ok(Typed::new(count.expr, DataType::Int64))
            }
            "regr_avgx" | "regr_avgy" => {
                let [y, x] = self.args()?;
                let (value, other, nth) = match self.name {
                    "regr_avgx" => (x, y, 0),
                    _ => (y, x, 1),
                };
                let DataType::Decimal128(p, s) = value.data_type else {
                    return self.doubles::<2>(self.name);
                };
                // The average of the pairs' decimals has the type that one of decimals has.
                let other = self.as_type(nth, other, &DataType::Float64)?;
                let paired = conditional::not(conditional::is_null(other));
                let none = Typed::null(&value.data_type);
                let value = conditional::case(vec![(paired, value)], none);
                self.decimal_average(value, p, s)
            }
            name if name.starts_with("regr_") => self.doubles::<2>(name),
            name => Err(super::unknown(name)),
        }
    }

    /// The value of the row that is greatest or least by `by`.
    fn extreme(&self, greatest: bool, by: Typed, value: Typed) -> Typed {
        let returns = value.data_type.clone();
        let udaf = extreme::Extreme::new(greatest, by.data_type.clone(), returns.clone());
        let udaf = Arc::new(AggregateUDF::new_from_impl(udaf));
        self.over(udaf, vec![by, value], returns)
    }

    fn normalized_if_distinct(&self, value: Typed) -> Result<Typed> {
        if self.wanted.distinct {
            compare::normalized(value)
        } else {
            Ok(value)
        }
    }

    /// Rows in which all arguments are known; of DISTINCT ones, each combination once.
    fn count(&self) -> Result<Typed> {
        let mut values = self.wanted.args.clone();
        let Some(last) = values.pop() else {
            return Err(QueryError::new(
                "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
                "The `count` requires > 0 parameters but the actual number is 0.",
            ));
        };
        if self.wanted.distinct {
            for value in values.iter().chain([&last]) {
                compare::groupable(value)?;
            }
        }
        if values.is_empty() {
            let value = self.normalized_if_distinct(last)?;
            return self.named("count", vec![value], DataType::Int64);
        }
        values.push(last);
        let known = values
            .iter()
            .map(|v| conditional::not(conditional::is_null(v.clone())));
        let all = known
            .reduce(conditional::and)
            .unwrap_or_else(|| Typed::null(&DataType::Boolean));
        let counted = match self.wanted.distinct {
            false => Typed::literal(ScalarValue::Int64(Some(1))),
            true => {
                let values = values
                    .into_iter()
                    .map(compare::normalized)
                    .collect::<Result<Vec<_>>>()?;
                let names = (0..values.len()).map(|i| format!("c{i}")).collect();
                nested::make_struct(names, values)
            }
        };
        let none = Typed::null(&counted.data_type);
        self.named(
            "count",
            vec![conditional::case(vec![(all, counted)], none)],
            DataType::Int64,
        )
    }

    /// The mean of decimals is their exact sum by their count, rounded once.
    fn decimal_average(&self, value: Typed, p: u8, s: i8) -> Result<Typed> {
        let attempt = self.name == "try_avg";
        let DataType::Decimal128(_, sum_scale) = adjusted_sum(p, s) else {
            return Err(QueryError::unsupported("this average"));
        };
        let sum = if attempt { "try_sum" } else { "sum" };
        let sum = self.named(sum, vec![value.clone()], adjusted_sum(p, s))?;
        let count = self.named("count", vec![value], DataType::Int64)?;
        let (precision, scale) = ((p + 4).min(38), (s + 4).min(38));
        let returns = DataType::Decimal128(precision, scale);
        let target = returns.clone();
        Ok(Kernel::over_arrays(
            "decimal_average",
            if attempt { "try" } else { "" },
            vec![sum, count],
            returns,
            if attempt { Can::NotFail } else { Can::Fail },
            move |args, rows| {
                let (sums, counts) = (
                    args[0].as_primitive::<Decimal128Type>(),
                    args[1].as_primitive::<Int64Type>(),
                );
                let means = (0..rows).map(|row| {
                    let count = i128::from(counts.value(row));
                    if sums.is_null(row) || count == 0 {
                        return Ok(None);
                    }
                    let power = 10i128.pow(u32::try_from(scale - sum_scale).unwrap_or(0));
                    // What a row has whole and what is left are multiplied each: their sum may be too much for it.
                    let (whole, rest) = (sums.value(row) / count, sums.value(row) % count);
                    let rest = cast::divide_half_up(rest * power, count);
                    let mean = whole.checked_mul(power);
                    let mean = mean.and_then(|mean| mean.checked_add(rest));
                    match mean.filter(|m| m.unsigned_abs() < 10u128.pow(u32::from(precision))) {
                        Some(mean) => Ok(Some(mean)),
                        None if attempt => Ok(None),
                        None => Err(crate::error::RunError::raise(
                            "ARITHMETIC_OVERFLOW",
                            "the average of decimals overflows",
                        )),
                    }
                });
                let means =
                    means.collect::<super::kernel::Result<PrimitiveArray<Decimal128Type>>>()?;
                Ok(Arc::new(means.with_data_type(target.clone())))
            },
        ))
    }

    fn at_end(mut self, end: &str) -> Result<Typed> {
        let mut args = std::mem::take(&mut self.wanted.args).into_iter();
        let (Some(value), ignore, None) = (args.next(), args.next(), args.next()) else {
            let message = format!("The `{}` requires [1, 2] parameters.", self.name);
            return Err(QueryError::new(
                "WRONG_NUM_ARGS.WITHOUT_SUGGESTION",
                message,
            ));
        };
        if let Some(ignore) = ignore {
            match ignore.constant() {
                Some(ScalarValue::Boolean(Some(ignore))) => {
                    self.wanted.ignore_nulls = Some(*ignore)
                }
                _ => return Err(coerce::unexpected(self.name, 1, &ignore, "BOOLEAN")),
            }
        }
        let returns = value.data_type.clone();
        self.wanted.distinct = false;
        self.named(end, vec![value], returns)
    }

    fn booleans(&self, name: &str) -> Result<Typed> {
        let value = self.as_type(0, self.one()?, &DataType::Boolean)?;
        self.named(name, vec![value], DataType::Boolean)
    }
}

fn adjusted_sum(p: u8, s: i8) -> DataType {
    DataType::Decimal128((p + 10).min(38), s)
}

/// The only value that a subquery has.
pub(crate) fn only(value: Typed) -> Typed {
    let udaf = Arc::new(AggregateUDF::new_from_impl(only::Only::new()));
    let call = AggregateFunction::new_udf(udaf, vec![value.expr], false, None, vec![], None);
    Typed::new(DfExpr::AggregateFunction(call), value.data_type)
}

/// No rows are an empty array.
fn or_empty(list: Typed) -> Typed {
    let returns = list.data_type.clone();
    Kernel::over_arrays(
        "or_empty",
        "",
        vec![list],
        returns,
        Can::NotFail,
        |args, _| {
            let list = args[0].as_list::<i32>();
            if list.null_count() == 0 {
                return Ok(Arc::clone(&args[0]));
            }
            let list = nested::compact(list)?;
            let DataType::List(field) = list.data_type() else {
                return Ok(Arc::clone(&args[0]));
            };
            let (offsets, values) = (list.offsets().clone(), Arc::clone(list.values()));
            Ok(Arc::new(arrow::array::ListArray::try_new(
                Arc::clone(field),
                offsets,
                values,
                None,
            )?))
        },
    )
}
