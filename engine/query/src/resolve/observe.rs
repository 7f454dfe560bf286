//! `observe`: an aggregation on the side.

use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;

use super::Env;
use super::scope::Relation;
use crate::error::QueryError;
use crate::expr::Expr;
use crate::observe::{Observation, Observe};

type Result<T> = std::result::Result<T, QueryError>;

impl Env<'_> {
    pub(super) fn observe(
        &self,
        input: Relation,
        name: &str,
        metrics: &[Expr],
        observation: Option<&Observation>,
    ) -> Result<Relation> {
        if name.is_empty() {
            let message = "The observed metrics should be named.";
            return Err(QueryError::new(
                "INVALID_OBSERVED_METRICS.MISSING_NAME",
                message,
            ));
        }
        let columns = input.columns.clone();
        let rows = Arc::new(input.plan.clone());
        let aggregated = self.aggregate(input, &[], metrics, None)?.plan;
        let LogicalPlan::Projection(values) = aggregated else {
            return Err(QueryError::unsupported("this observation"));
        };
        let LogicalPlan::Aggregate(aggregate) = values.input.as_ref() else {
            return Err(QueryError::unsupported("this observation"));
        };
        let node = Observe {
            input: rows,
            name: name.to_string(),
            calls: aggregate.aggr_expr.clone(),
            outputs: values.expr.clone(),
            observation: observation.cloned(),
        };
        Ok(Relation {
            plan: node.into_plan(),
            columns,
        })
    }
}
