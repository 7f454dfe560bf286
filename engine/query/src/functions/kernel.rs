//! One scalar function of ours, bound to its argument types.
//!
//! The resolver picks types before it picks an implementation, so a kernel is made for exact types and DataFusion has
//! nothing to coerce. A kernel that can fail is volatile: the optimizer then neither folds it nor moves it, so that it
//! is not evaluated for a row for which the query as written would not.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr as DfExpr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, TypeSignature, Volatility,
};

use datafusion::physical_expr::create_physical_expr;

use crate::error::QueryError;

pub(crate) type Result<T> = std::result::Result<T, DataFusionError>;
type Body = Arc<dyn Fn(&[ColumnarValue], usize) -> Result<ColumnarValue> + Send + Sync>;

/// A resolved expression and its type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Typed {
    pub(crate) expr: DfExpr,
    pub(crate) data_type: DataType,
}

impl Typed {
    pub(crate) fn new(expr: DfExpr, data_type: DataType) -> Self {
        Typed { expr, data_type }
    }

    pub(crate) fn literal(value: ScalarValue) -> Self {
        let data_type = value.data_type();
        Typed::new(DfExpr::Literal(value, None), data_type)
    }

    pub(crate) fn null(data_type: &DataType) -> Self {
        let value = ScalarValue::try_new_null(data_type).unwrap_or(ScalarValue::Null);
        Typed::literal(value)
    }

    /// The value, if it is a constant as written.
    pub(crate) fn constant(&self) -> Option<&ScalarValue> {
        match &self.expr {
            DfExpr::Literal(value, _) => Some(value),
            _ => None,
        }
    }

    /// The text, if it is a constant one.
    pub(crate) fn constant_text(&self) -> Option<&str> {
        self.constant()
            .and_then(|value| value.try_as_str().flatten())
    }
}

/// The value of an expression that names no column.
pub(crate) fn folded(value: &Typed) -> std::result::Result<Option<ScalarValue>, QueryError> {
    let outside = crate::unnest::names_outer(&value.expr);
    if outside || !value.expr.column_refs().is_empty() {
        return Ok(None);
    }
    let expr: &DfExpr = &value.expr;
    let (props, context) = (ExecutionProps::new(), Default::default());
    let expr = create_physical_expr(expr, &DFSchema::empty(), &props, &context)?;
    let one_row = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &one_row);
    let row = row.map_err(|e| QueryError::from(datafusion::common::DataFusionError::from(e)))?;
    Ok(Some(match expr.evaluate(&row)? {
        ColumnarValue::Scalar(value) => value,
        ColumnarValue::Array(values) => ScalarValue::try_from_array(&values, 0)?,
    }))
}

/// Whether evaluating a row can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Can {
    /// It can raise an error.
    Fail,
    /// It always has an answer.
    NotFail,
}

pub(crate) struct Kernel {
    name: String,
    /// What the kernel was made with besides its arguments: part of its identity.
    params: String,
    args: Vec<DataType>,
    returns: DataType,
    signature: Signature,
    body: Body,
    /// True if nobody wrote it. It is no other function for that.
    implied: bool,
}

impl Kernel {
    /// A call of a function whose body takes arrays and scalars as they come.
    pub(crate) fn call(
        name: impl Into<String>,
        params: impl Into<String>,
        args: Vec<Typed>,
        returns: DataType,
        can: Can,
        body: impl Fn(&[ColumnarValue], usize) -> Result<ColumnarValue> + Send + Sync + 'static,
    ) -> Typed {
        let types: Vec<DataType> = args.iter().map(|a| a.data_type.clone()).collect();
        let volatility = if can == Can::Fail {
            Volatility::Volatile
        } else {
            Volatility::Immutable
        };
        let accepts = if types.is_empty() {
            TypeSignature::Nullary
        } else {
            TypeSignature::Any(types.len())
        };
        let kernel = Kernel {
            name: name.into(),
            params: params.into(),
            args: types,
            returns: returns.clone(),
            signature: Signature::new(accepts, volatility),
            body: Arc::new(body),
            implied: false,
        };
        let udf = Arc::new(ScalarUDF::new_from_impl(kernel));
        let args = args.into_iter().map(|a| a.expr).collect();
        Typed::new(
            DfExpr::ScalarFunction(ScalarFunction::new_udf(udf, args)),
            returns,
        )
    }

    /// The same call, if `call` is one of a kernel, as one that nobody wrote.
    pub(crate) fn implied(call: Typed) -> Typed {
        let DfExpr::ScalarFunction(function) = &call.expr else {
            return call;
        };
        let Some(kernel) = function.func.inner().downcast_ref::<Kernel>() else {
            return call;
        };
        let udf = Arc::new(ScalarUDF::new_from_impl(Kernel {
            name: kernel.name.clone(),
            params: kernel.params.clone(),
            args: kernel.args.clone(),
            returns: kernel.returns.clone(),
            signature: kernel.signature.clone(),
            body: Arc::clone(&kernel.body),
            implied: true,
        }));
        let args = function.args.clone();
        Typed::new(
            DfExpr::ScalarFunction(ScalarFunction::new_udf(udf, args)),
            call.data_type,
        )
    }

    /// A call of a function over arrays: scalars become arrays, of one row if all arguments are scalars.
    pub(crate) fn over_arrays(
        name: impl Into<String>,
        params: impl Into<String>,
        args: Vec<Typed>,
        returns: DataType,
        can: Can,
        body: impl Fn(&[ArrayRef], usize) -> Result<ArrayRef> + Send + Sync + 'static,
    ) -> Typed {
        Kernel::call(name, params, args, returns, can, move |args, rows| {
            let constant = args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
            let rows = if constant { 1 } else { rows };
            let arrays = args
                .iter()
                .map(|a| a.to_array(rows))
                .collect::<Result<Vec<_>>>()?;
            let result = body(&arrays, rows)?;
            if constant {
                return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                    &result, 0,
                )?));
            }
            Ok(ColumnarValue::Array(result))
        })
    }
}

impl Kernel {
    /// What it was made with besides its arguments.
    pub(crate) fn params(&self) -> &str {
        &self.params
    }

    pub(crate) fn returns(&self) -> &DataType {
        &self.returns
    }

    /// True if nobody wrote it.
    pub(crate) fn is_implied(&self) -> bool {
        self.implied
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({:?}; {})", self.name, self.args, self.params)
    }
}

impl PartialEq for Kernel {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.params == other.params
            && self.args == other.args
            && self.returns == other.returns
            && self.signature.volatility == other.signature.volatility
    }
}

impl Eq for Kernel {}

impl Hash for Kernel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.name, &self.params, &self.args, &self.returns).hash(state);
    }
}

impl ScalarUDFImpl for Kernel {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    // Two kernels that differ only in their parameters must not share a column name.
    fn schema_name(&self, args: &[DfExpr]) -> Result<String> {
        let args: Vec<String> = args.iter().map(|a| a.schema_name().to_string()).collect();
        let params = if self.params.is_empty() {
            String::new()
        } else {
            format!("; {}", self.params)
        };
        Ok(format!("{}({}{params})", self.name, args.join(", ")))
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(&self.name, self.returns.clone(), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        // An optimizer that asks what an expression is where a column is null puts in an array of no type.
        let mut given = args.args;
        for (value, takes) in given.iter_mut().zip(&self.args) {
            if value.data_type() == DataType::Null && *takes != DataType::Null {
                *value = ColumnarValue::Scalar(ScalarValue::try_from(takes)?);
            }
        }
        let result = (self.body)(&given, args.number_rows)?;
        let found = result.data_type();
        if found != self.returns {
            let message = format!("{} returned {found}, not {}", self.name, self.returns);
            return Err(DataFusionError::Internal(message));
        }
        Ok(result)
    }
}
