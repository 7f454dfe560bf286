//! The function table: Spark's names and argument types to implementations, and the builders for Rust queries.

mod builders;

pub use builders::*;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

/// The functions a query may call: Spark's, and those that the embedding program registered.
#[derive(Debug, Clone)]
pub struct Functions {
    pub(crate) scalars: BTreeMap<String, Arc<ScalarUDF>>,
    pub(crate) aggregates: BTreeMap<String, Arc<AggregateUDF>>,
    pub(crate) replaced: Vec<(String, fn(&DataType) -> bool, Arc<AggregateUDF>)>,
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
}

impl Default for Functions {
    fn default() -> Self {
        Functions::standard()
    }
}
