//! Functions of a window: DataFusion's, with Spark's types.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::functions_window as df;
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Cast, Expr as DfExpr, Signature, SortExpr,
    Volatility, WindowFrame, WindowFunctionDefinition, WindowUDF,
};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};

use super::kernel::Typed;
use crate::coerce;
use crate::error::QueryError;

type Result<T> = std::result::Result<T, QueryError>;
type Run<T> = super::kernel::Result<T>;

/// Where a function of a window gets its rows from.
#[derive(Clone)]
pub(crate) struct Rows {
    pub(crate) partition_by: Vec<DfExpr>,
    pub(crate) order_by: Vec<SortExpr>,
    pub(crate) frame: WindowFrame,
}

/// Whether `name` is a function of a window only.
pub(crate) fn is_known(name: &str) -> bool {
    is_rank(name) || matches!(name, "row_number" | "ntile" | "lag" | "lead" | "nth_value")
}

/// Whether a function of that name counts rows by their order alone.
pub(crate) fn is_rank(name: &str) -> bool {
    matches!(name, "rank" | "dense_rank" | "percent_rank" | "cume_dist")
}

/// Whether the aggregate of that name is a position in the window.
pub(crate) fn is_end(name: &str) -> bool {
    matches!(
        name,
        "first" | "first_value" | "any_value" | "last" | "last_value"
    )
}

/// The call of the function called `name`, one of those above.
pub(crate) fn call(
    name: &str,
    mut args: Vec<Typed>,
    mut ignore_nulls: Option<bool>,
    rows: Rows,
) -> Result<Typed> {
    let wrong = |wanted: &str| {
        let message = format!(
            "The `{name}` requires {wanted} parameters but the actual number is different."
        );
        QueryError::new("WRONG_NUM_ARGS.WITHOUT_SUGGESTION", message)
    };
    if is_end(name) && args.len() == 2 {
        let ignore = args.pop();
        let ignore = ignore.as_ref().and_then(Typed::constant);
        let Some(ScalarValue::Boolean(Some(ignore))) = ignore else {
            return Err(wrong(
                "a constant for whether nulls are ignored as its second of 2",
            ));
        };
        ignore_nulls = Some(*ignore);
    }
    let takes_nulls = is_end(name) || matches!(name, "lag" | "lead" | "nth_value");
    if ignore_nulls.is_some() && !takes_nulls {
        return Err(QueryError::new(
            "INVALID_SQL_SYNTAX.FUNCTION_WITH_UNSUPPORTED_SYNTAX",
            format!("{name} takes no IGNORE NULLS"),
        ));
    }
    let ranked = |udf: Arc<WindowUDF>, returns: DataType| (udf, vec![], returns);
    let int = DataType::Int32;
    let (udf, args, returns) = match (name, args.len()) {
        ("row_number", 0) => ranked(df::row_number::row_number_udwf(), int),
        // What is ranked is said by the order; arguments change nothing.
        ("rank", _) => ranked(df::rank::rank_udwf(), int),
        ("dense_rank", _) => ranked(df::rank::dense_rank_udwf(), int),
        ("percent_rank", _) => ranked(df::rank::percent_rank_udwf(), DataType::Float64),
        ("cume_dist", 0) => ranked(df::cume_dist::cume_dist_udwf(), DataType::Float64),
        ("ntile", 0 | 1) => {
            let buckets = match args.pop() {
                None => 1,
                Some(buckets) => count(name, 0, &buckets)?,
            };
            (df::ntile::ntile_udwf(), vec![bigint(buckets)], int)
        }
        ("nth_value", 2) => {
            let nth = count(name, 1, &args[1])?;
            let value = args.swap_remove(0);
            let returns = value.data_type.clone();
            (
                df::nth_value::nth_value_udwf(),
                vec![value.expr, bigint(nth)],
                returns,
            )
        }
        ("lag" | "lead", 1..=3) => {
            let lag = name == "lag";
            let udf = if lag {
                df::lead_lag::lag_udwf()
            } else {
                df::lead_lag::lead_udwf()
            };
            let returns = args[0].data_type.clone();
            let offset = match args.get(1) {
                None => 1,
                Some(offset) => whole(name, 1, offset)?,
            };
            let default = match args.get(2) {
                None => ScalarValue::try_new_null(&returns)?,
                Some(default) => constant_of(name, default, &returns)?,
            };
            let value = args.swap_remove(0).expr;
            let default = DfExpr::Literal(default, None);
            (udf, vec![value, bigint(offset), default], returns)
        }
        (name, 1) if is_end(name) => {
            let udf = match name {
                "last" | "last_value" => df::nth_value::last_value_udwf(),
                _ => df::nth_value::first_value_udwf(),
            };
            let value = args.swap_remove(0);
            (udf, vec![value.expr], value.data_type)
        }
        _ => return Err(wrong("another number of")),
    };
    let nulls = ignore_nulls.and_then(|ignore| ignore.then_some(NullTreatment::IgnoreNulls));
    let call = window(WindowFunctionDefinition::WindowUDF(udf), args, nulls, rows);
    Ok(match returns {
        // DataFusion counts in 64 bits without a sign.
        DataType::Int32 if !takes_nulls => {
            let cast = Cast::new(Box::new(call), DataType::Int32);
            Typed::new(DfExpr::Cast(cast), DataType::Int32)
        }
        returns => Typed::new(call, returns),
    })
}

fn bigint(n: i64) -> DfExpr {
    DfExpr::Literal(ScalarValue::Int64(Some(n)), None)
}

fn window(
    fun: WindowFunctionDefinition,
    args: Vec<DfExpr>,
    null_treatment: Option<NullTreatment>,
    rows: Rows,
) -> DfExpr {
    DfExpr::from(WindowFunction {
        fun,
        params: WindowFunctionParams {
            args,
            partition_by: rows.partition_by,
            order_by: rows.order_by,
            window_frame: rows.frame,
            filter: None,
            null_treatment,
            distinct: false,
        },
    })
}

fn whole(name: &str, nth: usize, arg: &Typed) -> Result<i64> {
    match arg.constant() {
        Some(ScalarValue::Int8(Some(n))) => Ok(i64::from(*n)),
        Some(ScalarValue::Int16(Some(n))) => Ok(i64::from(*n)),
        Some(ScalarValue::Int32(Some(n))) => Ok(i64::from(*n)),
        _ => Err(coerce::unexpected(name, nth, arg, "constant INT")),
    }
}

fn count(name: &str, nth: usize, arg: &Typed) -> Result<i64> {
    match whole(name, nth, arg)? {
        n if n > 0 => Ok(n),
        n => {
            let message = format!(
                "Cannot resolve \"{name}\" due to data type mismatch: The value must be between (0, 2147483647] (current value = {n})."
            );
            Err(QueryError::mismatch("VALUE_OUT_OF_RANGE", message))
        }
    }
}

/// A default as a constant of the column's type.
fn constant_of(name: &str, default: &Typed, to: &DataType) -> Result<ScalarValue> {
    if !coerce::accepts(&default.data_type, to) {
        return Err(coerce::unexpected(
            name,
            2,
            default,
            &crate::types::type_sql(to),
        ));
    }
    let Some(constant) = default.constant() else {
        return Err(QueryError::unsupported(format!(
            "a default of {name} that is not a constant"
        )));
    };
    let plain = coerce::is_numeric(to) && coerce::is_numeric(&default.data_type);
    if default.data_type == *to || constant.is_null() || plain {
        return Ok(constant.cast_to(to)?);
    }
    Err(QueryError::unsupported(format!(
        "a default of {name} of another type than the column"
    )))
}

/// The aggregate function `udaf` over the rows of a window.
pub(crate) fn aggregate(
    call: datafusion::logical_expr::expr::AggregateFunction,
    rows: Rows,
) -> DfExpr {
    let params = call.params;
    let fun = AggregateUDF::new_from_impl(OverFrames { inner: call.func });
    let fun = WindowFunctionDefinition::AggregateUDF(Arc::new(fun));
    window(fun, params.args, params.null_treatment, rows)
}

/// An aggregate function over frames that rows also leave: computed anew for each frame, as Spark does. Taking rows
/// back out of a state would answer differently, as for a sum of floats that held an infinity.
#[derive(Debug)]
struct OverFrames {
    inner: Arc<AggregateUDF>,
}

impl PartialEq for OverFrames {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for OverFrames {}

impl Hash for OverFrames {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl AggregateUDFImpl for OverFrames {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        static ANY: std::sync::LazyLock<Signature> =
            std::sync::LazyLock::new(|| Signature::variadic_any(Volatility::Immutable));
        &ANY
    }

    fn return_type(&self, args: &[DataType]) -> Run<DataType> {
        self.inner.return_type(args)
    }

    fn return_field(&self, args: &[FieldRef]) -> Run<FieldRef> {
        self.inner.return_field(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Run<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn default_value(&self, data_type: &DataType) -> Run<ScalarValue> {
        self.inner.default_value(data_type)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Run<Box<dyn Accumulator>> {
        self.inner.accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Run<Box<dyn Accumulator>> {
        Ok(Box::new(OverFrame {
            inner: Arc::clone(&self.inner),
            made_with: MadeWith {
                return_field: args.return_field,
                schema: Arc::new(args.schema.clone()),
                ignore_nulls: args.ignore_nulls,
                order_bys: args.order_bys.to_vec(),
                is_reversed: args.is_reversed,
                name: args.name.to_string(),
                is_distinct: args.is_distinct,
                exprs: args.exprs.to_vec(),
                expr_fields: args.expr_fields.to_vec(),
            },
            batches: vec![],
        }))
    }
}

/// [`AccumulatorArgs`], kept.
#[derive(Debug)]
struct MadeWith {
    return_field: FieldRef,
    schema: SchemaRef,
    ignore_nulls: bool,
    order_bys: Vec<PhysicalSortExpr>,
    is_reversed: bool,
    name: String,
    is_distinct: bool,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    expr_fields: Vec<FieldRef>,
}

/// The rows of one frame.
#[derive(Debug)]
struct OverFrame {
    inner: Arc<AggregateUDF>,
    made_with: MadeWith,
    /// Oldest first.
    batches: Vec<Vec<ArrayRef>>,
}

impl OverFrame {
    fn accumulator(&self) -> Run<Box<dyn Accumulator>> {
        let with = &self.made_with;
        self.inner.accumulator(AccumulatorArgs {
            return_field: Arc::clone(&with.return_field),
            schema: &with.schema,
            ignore_nulls: with.ignore_nulls,
            order_bys: &with.order_bys,
            is_reversed: with.is_reversed,
            name: &with.name,
            is_distinct: with.is_distinct,
            exprs: &with.exprs,
            expr_fields: &with.expr_fields,
        })
    }

    fn whole(&self) -> Run<Box<dyn Accumulator>> {
        let mut accumulator = self.accumulator()?;
        for batch in &self.batches {
            accumulator.update_batch(batch)?;
        }
        Ok(accumulator)
    }
}

impl Accumulator for OverFrame {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Run<()> {
        self.batches.push(values.to_vec());
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Run<()> {
        let mut leaving = values.first().map_or(0, |values| values.len());
        while leaving > 0 {
            let Some(oldest) = self.batches.first_mut() else {
                break;
            };
            let rows = oldest.first().map_or(0, |values| values.len());
            if rows > leaving {
                for values in oldest {
                    *values = values.slice(leaving, rows - leaving);
                }
                break;
            }
            leaving -= rows;
            self.batches.remove(0);
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Run<ScalarValue> {
        self.whole()?.evaluate()
    }

    fn state(&mut self) -> Run<Vec<ScalarValue>> {
        self.whole()?.state()
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Run<()> {
        Err(datafusion::common::DataFusionError::Internal(
            "a frame is not merged".into(),
        ))
    }

    fn size(&self) -> usize {
        let arrays = self.batches.iter().flatten();
        size_of_val(self) + arrays.map(Array::get_array_memory_size).sum::<usize>()
    }
}
