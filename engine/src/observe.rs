//! `observe` over static rows: each partition of the batch query aggregates what passes it, and the values are left
//! when the query has run.

use std::fmt;
use std::sync::{Arc, Mutex};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::Session as DataFusionSession;
use datafusion::common::DataFusionError;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use futures::StreamExt;
use highwater_operators::Edge;
use highwater_operators::observe::{Observer, Tally};
use highwater_query::{Observation, Observe};

use crate::error::Error;
use crate::plan::Observed;
use crate::workers::lock;

/// Plans batch queries with observations, and keeps what they observe.
#[derive(Clone, Default)]
pub(crate) struct Observing(Arc<Mutex<Vec<Arc<Gathering>>>>);

/// One observation of a batch query.
struct Gathering {
    observed: Observed,
    observer: Observer,
    observation: Option<Observation>,
    /// One part for each partition.
    parts: Mutex<Vec<Option<Tally>>>,
}

impl Observing {
    /// The query has run: leaves what was observed.
    pub(crate) fn finish(&self) -> std::result::Result<(), Error> {
        for gathering in lock(&self.0).drain(..) {
            let Some(observation) = &gathering.observation else {
                continue;
            };
            let tallies = std::mem::take(&mut *lock(&gathering.parts));
            let observer = &gathering.observer;
            let parts = tallies.into_iter().flatten();
            let parts = parts.map(|tally| tally.finish(observer));
            let parts = parts.collect::<std::result::Result<Vec<_>, _>>();
            let values = parts.and_then(|parts| gathering.observed.values(observer, parts));
            observation.set(values.map_err(Error::run)?);
        }
        Ok(())
    }
}

impl fmt::Debug for Observing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observing")
    }
}

#[async_trait]
impl QueryPlanner for Observing {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn DataFusionSession,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let extension = Arc::new(self.clone()) as Arc<dyn ExtensionPlanner + Send + Sync>;
        DefaultPhysicalPlanner::with_extension_planners(vec![extension])
            .create_physical_plan(plan, session)
            .await
    }
}

#[async_trait]
impl ExtensionPlanner for Observing {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn DataFusionSession,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let (Some(node), [input]) = (node.as_any().downcast_ref::<Observe>(), physical_inputs)
        else {
            return Ok(None);
        };
        let external = |error: Error| DataFusionError::External(Box::new(error));
        let rows: SchemaRef = Arc::new(node.input.schema().as_arrow().clone());
        let observed = Observed::new(node, Edge::plain(rows)).map_err(external)?;
        let observer = observed
            .observer()
            .map_err(|error| external(Error::run(error)))?;
        let gathering = Arc::new(Gathering {
            observed,
            observer,
            observation: node.observation.clone(),
            parts: Mutex::default(),
        });
        lock(&self.0).push(Arc::clone(&gathering));
        Ok(Some(Arc::new(ObserveExec {
            input: Arc::clone(input),
            gathering,
        })))
    }
}

/// Passes its input on, and adds it to an observation.
struct ObserveExec {
    input: Arc<dyn ExecutionPlan>,
    gathering: Arc<Gathering>,
}

impl fmt::Debug for ObserveExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObserveExec({})", self.gathering.observed.name())
    }
}

impl DisplayAs for ObserveExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObserveExec: {}", self.gathering.observed.name())
    }
}

impl ExecutionPlan for ObserveExec {
    fn name(&self) -> &str {
        "ObserveExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children
            .pop()
            .ok_or_else(|| DataFusionError::Internal("an observation has one input".into()))?;
        Ok(Arc::new(ObserveExec {
            input,
            gathering: Arc::clone(&self.gathering),
        }))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, context)?;
        let schema = rows.schema();
        let partitions = self.input.output_partitioning().partition_count();
        let gathering = Arc::clone(&self.gathering);
        let observed = rows.map(move |rows| {
            let rows = rows?;
            gathering.add(partition, partitions, &rows)?;
            Ok(rows)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, observed)))
    }
}

impl Gathering {
    fn add(&self, partition: usize, partitions: usize, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let external = |error| DataFusionError::External(Box::new(error));
        // Taken out while it works: partitions run side by side.
        let taken = {
            let mut parts = lock(&self.parts);
            if parts.len() < partitions {
                parts.resize_with(partitions, || None);
            }
            parts[partition].take()
        };
        let mut tally = match taken {
            Some(tally) => tally,
            None => self.observer.tally().map_err(external)?,
        };
        let added = tally.add(&self.observer, rows);
        if let Some(part) = lock(&self.parts).get_mut(partition) {
            *part = Some(tally);
        }
        added.map_err(external)
    }
}
