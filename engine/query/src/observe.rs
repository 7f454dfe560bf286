//! `observe`: named aggregates over the rows that pass a point of a query.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering as Order};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use datafusion::common::{DFSchemaRef, DataFusionError, Result};
use datafusion::logical_expr::{
    Aggregate, Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore,
};
use serde_json::{Map, Value};

/// Where the values observed by a batch query are left: make one, pass it to `DataFrame::observe`, run the query, ask.
/// Cloning gives another handle. A stream's values are in its progress reports instead.
#[derive(Clone)]
pub struct Observation(Arc<Slot>);

struct Slot {
    name: String,
    used: AtomicBool,
    values: Mutex<Option<Map<String, Value>>>,
    changed: Condvar,
}

impl Observation {
    /// An observation called `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Observation(Arc::new(Slot {
            name: name.into(),
            used: AtomicBool::new(false),
            values: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Waits until a query over the observed frame has run, and gives what the first one observed.
    pub fn get(&self) -> Map<String, Value> {
        let mut values = self.0.values.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = values.as_ref() {
                return found.clone();
            }
            let woken = self.0.changed.wait(values);
            values = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Like `get`, but not longer than `limit`.
    pub fn get_for(&self, limit: Duration) -> Option<Map<String, Value>> {
        let values = self.0.values.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |values: &mut Option<_>| values.is_none();
        let woken = self.0.changed.wait_timeout_while(values, limit, waits);
        woken.unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Leaves the values of a query that has run; the first one's stay.
    pub fn set(&self, values: Map<String, Value>) {
        let mut slot = self.0.values.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert(values);
        self.0.changed.notify_all();
    }

    /// Takes it for a frame: true for the first who asks.
    pub fn take(&self) -> bool {
        !self.0.used.swap(true, Order::SeqCst)
    }
}

impl fmt::Debug for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observation({:?})", self.0.name)
    }
}

impl PartialEq for Observation {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Observation {}

impl Hash for Observation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// The rows of `input`, observed on their way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Observe {
    /// The rows.
    pub input: Arc<LogicalPlan>,
    /// What the values are reported under.
    pub name: String,
    /// Aggregates over the rows.
    pub calls: Vec<Expr>,
    /// The values, over the aggregates.
    pub outputs: Vec<Expr>,
    /// Where a batch query leaves them.
    pub observation: Option<Observation>,
}

impl Observe {
    /// The node as a plan.
    pub fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension {
            node: Arc::new(self),
        })
    }

    /// The aggregation that observes.
    pub fn aggregate(&self) -> Result<Aggregate> {
        Aggregate::try_new(Arc::clone(&self.input), Vec::new(), self.calls.clone())
    }
}

impl PartialOrd for Observe {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for Observe {
    fn name(&self) -> &str {
        "Observe"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        self.calls.clone()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outputs: Vec<String> = self.outputs.iter().map(ToString::to_string).collect();
        write!(f, "Observe: {}, {}", self.name, outputs.join(", "))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let [input] = <[LogicalPlan; 1]>::try_from(inputs)
            .map_err(|_| DataFusionError::Internal("an observation has one input".into()))?;
        Ok(Observe {
            input: Arc::new(input),
            name: self.name.clone(),
            calls: exprs,
            outputs: self.outputs.clone(),
            observation: self.observation.clone(),
        })
    }

    fn necessary_children_exprs(&self, outputs: &[usize]) -> Option<Vec<Vec<usize>>> {
        let schema = self.input.schema();
        let mut columns = outputs.to_vec();
        for call in &self.calls {
            let used = call.column_refs().into_iter();
            let used = used.map(|column| schema.maybe_index_of_column(column));
            columns.extend(used.collect::<Option<Vec<usize>>>()?);
        }
        columns.sort_unstable();
        columns.dedup();
        Some(vec![columns])
    }
}
