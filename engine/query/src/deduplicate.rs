//! `drop_duplicates`: the first row of each key.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::{Column, DFSchemaRef, DataFusionError, ExprSchema, Result};
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::{
    Aggregate, Expr, Extension, LogicalPlan, Projection, UserDefinedLogicalNodeCore,
};

use crate::functions::compare;
use crate::functions::kernel::Typed;

/// The first row of each key of `input`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Deduplicate {
    /// The rows.
    pub input: Arc<LogicalPlan>,
    /// What makes rows duplicates of each other: columns of the input.
    pub keys: Vec<Column>,
    /// Duplicates only count while the watermark has not reached the first row's event time plus the delay.
    pub within_watermark: bool,
    /// The event time that says so, once the plan is being compiled.
    pub event_time: Option<Column>,
}

impl Deduplicate {
    /// The node as a plan.
    pub fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension {
            node: Arc::new(self),
        })
    }

    /// The same rows by nodes of DataFusion's, for rows that are all there and come in order.
    pub fn lowered(&self) -> Result<LogicalPlan> {
        let schema = self.input.schema();
        let mut keys = Vec::with_capacity(self.keys.len());
        for (index, key) in self.keys.iter().enumerate() {
            let data_type = schema.field_from_column(key)?.data_type().clone();
            let key = Typed::new(Expr::Column(key.clone()), data_type);
            let key = compare::normalized(key)
                .map_err(|error| DataFusionError::External(Box::new(error)))?;
            keys.push(key.expr.alias(format!("__key_{index}")));
        }
        let columns = || (0..schema.fields().len()).map(|index| schema.qualified_field(index));
        let firsts = columns().enumerate().map(|(index, field)| {
            let column = Expr::Column(Column::from(field));
            let first = first_value_udaf().call(vec![column]);
            first.alias(format!("__first_{index}"))
        });
        let aggregate = Aggregate::try_new(Arc::clone(&self.input), keys, firsts.collect())?;
        let outputs = columns().enumerate().map(|(index, (qualifier, field))| {
            let first = Column::new_unqualified(format!("__first_{index}"));
            Expr::Column(first).alias_qualified(qualifier.cloned(), field.name().clone())
        });
        let below = Arc::new(LogicalPlan::Aggregate(aggregate));
        Ok(LogicalPlan::Projection(Projection::try_new(
            outputs.collect(),
            below,
        )?))
    }
}

impl PartialOrd for Deduplicate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for Deduplicate {
    fn name(&self) -> &str {
        "Deduplicate"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    // The columns are expressions of the node, so that rules neither drop nor rename them.
    fn expressions(&self) -> Vec<Expr> {
        let columns = self.keys.iter().chain(&self.event_time);
        columns.map(|column| Expr::Column(column.clone())).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<String> = self.keys.iter().map(|key| key.flat_name()).collect();
        write!(f, "Deduplicate: by {}", keys.join(", "))?;
        if self.within_watermark {
            write!(f, ", within the watermark")?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let wrong = |what: &str| DataFusionError::Internal(format!("a deduplication has {what}"));
        let [input] = <[LogicalPlan; 1]>::try_from(inputs).map_err(|_| wrong("one input"))?;
        let columns = exprs.into_iter().map(|expr| match expr {
            Expr::Column(column) => Ok(column),
            other => Err(wrong(&format!("columns for keys, not {other}"))),
        });
        let mut keys = columns.collect::<Result<Vec<Column>>>()?;
        let event_time = match self.event_time {
            Some(_) => keys.pop(),
            None => None,
        };
        Ok(Deduplicate {
            input: Arc::new(input),
            keys,
            within_watermark: self.within_watermark,
            event_time,
        })
    }

    fn necessary_children_exprs(&self, outputs: &[usize]) -> Option<Vec<Vec<usize>>> {
        let schema = self.input.schema();
        let mut columns = outputs.to_vec();
        for column in self.keys.iter().chain(&self.event_time) {
            columns.push(schema.maybe_index_of_column(column)?);
        }
        columns.sort_unstable();
        columns.dedup();
        Some(vec![columns])
    }
}
