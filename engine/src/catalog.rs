//! Temporary views and tables of a session, by name.

use std::collections::BTreeMap;
use std::sync::Mutex;

use datafusion::logical_expr::LogicalPlan;
use highwater_query::QueryError;

use crate::workers::lock;

/// Names are case-insensitive.
#[derive(Default)]
pub(crate) struct Views {
    by_name: Mutex<BTreeMap<String, LogicalPlan>>,
}

impl Views {
    pub(crate) fn put(&self, name: &str, plan: LogicalPlan) {
        lock(&self.by_name).insert(name.to_lowercase(), plan);
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        lock(&self.by_name).contains_key(&name.to_lowercase())
    }

    pub(crate) fn remove(&self, name: &str) -> bool {
        lock(&self.by_name).remove(&name.to_lowercase()).is_some()
    }
}

impl highwater_query::Catalog for Views {
    fn table(&self, name: &[String]) -> Result<Option<LogicalPlan>, QueryError> {
        let [name] = name else { return Ok(None) };
        Ok(lock(&self.by_name).get(&name.to_lowercase()).cloned())
    }

    fn is_stream(&self, plan: &LogicalPlan) -> bool {
        crate::plan::is_streaming(plan)
    }
}
