//! Unresolved plans to DataFusion's, with Spark's types.

use datafusion::logical_expr::LogicalPlan;

use crate::error::QueryError;
use crate::functions::Functions;
use crate::plan::{Catalog, Conf, Plan};

/// Binds the names of a plan, types it as Spark does and picks the functions' implementations.
pub struct Resolver<'a> {
    catalog: &'a dyn Catalog,
    functions: &'a Functions,
    conf: &'a Conf,
}

impl<'a> Resolver<'a> {
    /// A resolver over these tables, functions and settings.
    pub fn new(catalog: &'a dyn Catalog, functions: &'a Functions, conf: &'a Conf) -> Self {
        Resolver {
            catalog,
            functions,
            conf,
        }
    }

    /// The plan with every name bound and every type known.
    pub fn resolve(&self, plan: &Plan) -> Result<LogicalPlan, QueryError> {
        let _ = (self.catalog, self.functions, self.conf);
        match plan {
            Plan::Resolved(plan) => Ok(plan.as_ref().clone()),
            _ => Err(QueryError::unsupported("resolving this plan")),
        }
    }
}
