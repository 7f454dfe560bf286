//! The function table: Spark's names and argument types to implementations, and the builders for Rust queries.
//!
//! One file per family. A family's `build` answers a call by name, or says that the name is none of its own.

pub(crate) mod aggregate;
pub(crate) mod arithmetic;
mod array;
pub(crate) mod bits;
mod builders;
pub(crate) mod cast;
mod charset;
mod codec;
mod comparator;
pub(crate) mod compare;
pub(crate) mod conditional;
mod csv;
pub(crate) mod datetime;
mod format;
pub(crate) mod generator;
mod hash;
pub(crate) mod interval;
mod json;
pub(crate) mod kernel;
mod known;
pub(crate) mod lambda;
mod linear;
mod map;
mod math;
pub(crate) mod nested;
pub(crate) mod over;
pub(crate) mod pattern;
mod schema;
mod sequence;
pub(crate) mod session;
mod split;
mod string;
pub(crate) mod text;
mod url;
pub(crate) mod window;
mod written;

pub use aggregate::{Rank, ranks, weighed_sum};
pub use builders::*;
pub(crate) use compare::{needs_normalizing, normalized};
pub use conditional::{all_of, can_fail, conjuncts};
pub use lambda::is_now;
pub use linear::{Apart, apart, equality, guarded, shifted};
pub use written::{
    Written, aggregate_name, aggregate_written, counted_side, duration, physical_written, written,
};

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::logical_expr::{AggregateUDF, Expr as DfExpr, ReturnFieldArgs, ScalarUDF};

use self::kernel::Typed;
use crate::coerce;
use crate::error::QueryError;
use crate::plan::Conf;

type Result<T> = std::result::Result<T, QueryError>;

/// An implementation that replaces ours: for which function, for which types.
type Replacement = (String, fn(&DataType) -> bool, Arc<AggregateUDF>);

/// The functions a query may call: Spark's, and those that the embedding program registered.
#[derive(Debug, Clone)]
pub struct Functions {
    pub(crate) scalars: BTreeMap<String, Arc<ScalarUDF>>,
    pub(crate) aggregates: BTreeMap<String, Arc<AggregateUDF>>,
    pub(crate) replaced: Vec<Replacement>,
}

impl Functions {
    /// Spark's functions.
    pub fn standard() -> Self {
        Functions {
            scalars: BTreeMap::new(),
            aggregates: BTreeMap::new(),
            replaced: vec![],
        }
    }

    /// Adds a scalar function under its own name. It answers before one of Spark's of the same name.
    pub fn register_udf(&mut self, udf: Arc<ScalarUDF>) {
        self.scalars.insert(udf.name().to_lowercase(), udf);
    }

    /// Adds an aggregate function under its own name.
    pub fn register_udaf(&mut self, udaf: Arc<AggregateUDF>) {
        self.aggregates.insert(udaf.name().to_lowercase(), udaf);
    }

    /// Computes Spark's aggregate `name` by `udaf` where its first argument, after implicit casts, is of a type that
    /// `accepts` takes. The result must be of the same type as before.
    pub fn replace_aggregate(
        &mut self,
        name: &str,
        accepts: fn(&DataType) -> bool,
        udaf: Arc<AggregateUDF>,
    ) {
        self.replaced.push((name.to_lowercase(), accepts, udaf));
    }

    /// Whether a call of `name` (in lower case) aggregates rows.
    pub(crate) fn is_aggregate(&self, name: &str) -> bool {
        !self.scalars.contains_key(name)
            && (self.aggregates.contains_key(name) || aggregate::is_known(name))
    }
}

impl Default for Functions {
    fn default() -> Self {
        Functions::standard()
    }
}

/// The arguments of a call.
pub(crate) struct Args<'c> {
    name: &'c str,
    values: Vec<Typed>,
    conf: &'c Conf,
}

impl Args<'_> {
    fn wrong_number(&self, wanted: &str) -> QueryError {
        let (name, found) = (self.name, self.values.len());
        let message =
            format!("The `{name}` requires {wanted} parameters but the actual number is {found}.");
        QueryError::new("WRONG_NUM_ARGS.WITHOUT_SUGGESTION", message)
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    /// The arguments, if there are just `N`.
    fn exactly<const N: usize>(&self) -> Result<[Typed; N]> {
        self.values
            .clone()
            .try_into()
            .map_err(|_| self.wrong_number(&N.to_string()))
    }

    fn one(&self) -> Result<Typed> {
        let [value] = self.exactly()?;
        Ok(value)
    }

    /// The arguments, if there are `least` or more.
    fn at_least(&self, least: usize) -> Result<Vec<Typed>> {
        if self.values.len() < least {
            return Err(self.wrong_number(&format!("> {}", least - 1)));
        }
        Ok(self.values.clone())
    }

    /// The arguments cast to these types; those from `least` on may be missing.
    fn typed(&self, types: &[DataType], least: usize) -> Result<Vec<Typed>> {
        if self.values.len() < least || self.values.len() > types.len() {
            return Err(self.wrong_number(&match least == types.len() {
                true => least.to_string(),
                false => format!("[{least}, {}]", types.len()),
            }));
        }
        let args = self.values.iter().cloned().zip(types).enumerate();
        args.map(|(nth, (arg, to))| coerce::argument(self.name, nth, arg, to))
            .collect()
    }
}

/// Whether a function of that name is a cast to the type of that name.
pub(crate) fn is_type(name: &str) -> bool {
    matches!(
        name,
        "boolean"
            | "tinyint"
            | "smallint"
            | "int"
            | "bigint"
            | "float"
            | "double"
            | "decimal"
            | "string"
            | "binary"
    )
}

/// The call of a scalar function of Spark's, if there is one of that name.
pub(crate) fn scalar(name: &str, values: Vec<Typed>, conf: &Conf) -> Result<Option<Typed>> {
    let args = Args { name, values, conf };
    if is_type(name) {
        let to = crate::types::parse_type(name)?;
        return cast::explicit(args.one()?, &to, false, &conf.time_zone).map(Some);
    }
    let families = [
        conditional::build,
        string::build,
        nested::build,
        pattern::build,
        bits::build,
        arithmetic::build,
        datetime::build,
        math::build,
        hash::build,
        array::build,
        map::build,
        codec::build,
        json::build,
        csv::build,
        charset::build,
        format::build,
        window::build,
    ];
    for build in families {
        if let Some(found) = build(name, &args)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The error for a name that nothing is built for.
pub(crate) fn unknown(name: &str) -> QueryError {
    if name == "monotonically_increasing_id" {
        // The number of a row would depend on where and when it is read.
        return QueryError::new(
            "_LEGACY_ERROR_TEMP_3102",
            "Expression(s): monotonically_increasing_id() is not supported with streaming DataFrames/Datasets, and not yet with others",
        );
    }
    if known::is_known(name) {
        return QueryError::unsupported(format!("the function {name}"));
    }
    let message = format!(
        "Cannot resolve routine `{name}` on search path [`system`.`builtin`, `system`.`session`, `spark_catalog`.`default`]."
    );
    QueryError::new("UNRESOLVED_ROUTINE", message)
}

/// Whether a call of `name` (in lower case) makes rows.
pub(crate) fn is_generator(name: &str) -> bool {
    generator::is_known(name)
}

/// The call of a function that the embedding program registered: its signature says what it takes.
pub(crate) fn registered_scalar(udf: &Arc<ScalarUDF>, args: Vec<Typed>) -> Result<Typed> {
    let fields: Vec<_> = args
        .iter()
        .map(|a| Arc::new(Field::new("argument", a.data_type.clone(), true)))
        .collect();
    let coerced =
        datafusion::logical_expr::type_coercion::functions::fields_with_udf(&fields, udf.as_ref())?;
    let args = args
        .into_iter()
        .zip(&coerced)
        .map(|(arg, field)| match arg.data_type == *field.data_type() {
            true => arg,
            false => {
                let cast = datafusion::logical_expr::Cast::new(
                    Box::new(arg.expr),
                    field.data_type().clone(),
                );
                Typed::new(DfExpr::Cast(cast), field.data_type().clone())
            }
        })
        .collect::<Vec<_>>();
    let scalars = vec![None; args.len()];
    let returned = udf.return_field_from_args(ReturnFieldArgs {
        arg_fields: &coerced,
        scalar_arguments: &scalars,
    })?;
    let exprs = args.into_iter().map(|a| a.expr).collect();
    Ok(Typed::new(udf.call(exprs), returned.data_type().clone()))
}
