//! Sources as relations of a plan.
//!
//! A streaming source is a `StreamRelation`, which only the incremental compiler understands; a static one is a
//! `StaticRelation`, which DataFusion scans: one partition per worker, each reading whole splits through the same
//! reader as a stream would, so that batch and stream cannot differ in how they read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::default_table_source::DefaultTableSource;
use datafusion::catalog::{Session as DataFusionSession, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Column, TableReference};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, TableScan, TableSource, TableType,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};

use highwater_query::timestamp;

use crate::source::{Batches, Reader, SourceFactory, Split};

/// A source that is read for ever.
pub(crate) struct StreamRelation {
    pub(crate) factory: Arc<dyn SourceFactory>,
    /// For explanations: `json "in"`.
    pub(crate) description: String,
    /// True if its rows have the clock of the epoch that brings them as a last column.
    pub(crate) clocked: bool,
}

/// The column with an epoch's clock.
pub(crate) const CLOCK: &str = "__clock";

impl StreamRelation {
    /// The same rows with the clock of the epoch that brings them.
    pub(crate) fn clocked(&self) -> Self {
        StreamRelation {
            factory: Arc::clone(&self.factory),
            description: self.description.clone(),
            clocked: true,
        }
    }
}

impl fmt::Debug for StreamRelation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamRelation")
    }
}

impl TableSource for StreamRelation {
    fn schema(&self) -> SchemaRef {
        let own = self.factory.schema();
        if !self.clocked {
            return own;
        }
        let mut fields = own.fields().to_vec();
        fields.push(Arc::new(Field::new(CLOCK, timestamp(), false)));
        Arc::new(Schema::new(fields))
    }
}

/// A source that is read once, as it is when the query runs.
pub(crate) struct StaticRelation {
    pub(crate) factory: Arc<dyn SourceFactory>,
    /// For explanations: the name of the table, or `json "in"`.
    pub(crate) description: String,
}

impl fmt::Debug for StaticRelation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StaticRelation")
    }
}

/// All sources that a plan reads, as streams or as they are.
pub(crate) fn factories(plan: &LogicalPlan) -> Vec<Arc<dyn SourceFactory>> {
    let mut found: Vec<Arc<dyn SourceFactory>> = Vec::new();
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            if let Some(stream) = scan.source.downcast_ref::<StreamRelation>() {
                found.push(Arc::clone(&stream.factory));
            }
            found.extend(static_relation(scan).map(|relation| Arc::clone(&relation.factory)));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// What a plan scans, if it is a source that is read once.
pub(crate) fn static_relation(scan: &TableScan) -> Option<&StaticRelation> {
    let table = scan.source.downcast_ref::<DefaultTableSource>()?;
    table.table_provider.downcast_ref::<StaticRelation>()
}

#[async_trait]
impl TableProvider for StaticRelation {
    fn schema(&self) -> SchemaRef {
        self.factory.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn DataFusionSession,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let outside = |e: crate::source::SourceError| DataFusionError::External(Box::new(e));
        let schema = self.factory.schema();
        let columns = projection
            .cloned()
            .unwrap_or_else(|| (0..schema.fields().len()).collect());
        let projected: SchemaRef = Arc::new(schema.project(&columns)?);
        let mut source = self.factory.open().map_err(outside)?;
        let start = source.initial().map_err(outside)?;
        let end = source.latest().map_err(outside)?;
        let reader = source.reader();
        let mut splits: Vec<Split> = Vec::new();
        let mut at = start;
        while let Some(admitted) = source.admit(&at, &end, u64::MAX).map_err(outside)? {
            splits.extend(admitted.splits);
            at = admitted.end;
        }
        let partitions: Vec<Arc<dyn PartitionStream>> =
            deal(splits, state.config().target_partitions())
                .into_iter()
                .map(|splits| {
                    let (schema, columns, reader) =
                        (Arc::clone(&projected), columns.clone(), Arc::clone(&reader));
                    Arc::new(StaticPartition {
                        schema,
                        columns,
                        reader,
                        splits,
                    }) as Arc<dyn PartitionStream>
                })
                .collect();
        Ok(Arc::new(StreamingTableExec::try_new(
            projected,
            partitions,
            None,
            [],
            false,
            limit,
        )?))
    }
}

/// Consecutive splits to each partition, about the same number of bytes each: the order of rows stays.
fn deal(splits: Vec<Split>, partitions: usize) -> Vec<Vec<Split>> {
    let total: u64 = splits.iter().map(|split| split.bytes + 1).sum();
    let share = total.div_ceil(partitions.max(1) as u64).max(1);
    let mut dealt: Vec<Vec<Split>> = vec![Vec::new()];
    let mut given = 0;
    for split in splits {
        if given >= share && dealt.len() < partitions {
            dealt.push(Vec::new());
            given = 0;
        }
        given += split.bytes + 1;
        dealt.last_mut().expect("there is a first").push(split);
    }
    dealt
}

struct StaticPartition {
    schema: SchemaRef,
    columns: Vec<usize>,
    reader: Arc<dyn Reader>,
    splits: Vec<Split>,
}

impl fmt::Debug for StaticPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticPartition({} splits)", self.splits.len())
    }
}

impl PartitionStream for StaticPartition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (reader, columns) = (Arc::clone(&self.reader), self.columns.clone());
        let mut splits = self.splits.clone().into_iter();
        let mut open: Option<Batches> = None;
        let schema = Arc::clone(&self.schema);
        let batches = std::iter::from_fn(move || {
            loop {
                if let Some(batches) = &mut open {
                    match batches.next() {
                        Some(Ok(rows)) => return Some(crate::dataflow::conform(rows, &schema)),
                        Some(Err(error)) => {
                            return Some(Err(DataFusionError::External(Box::new(error))));
                        }
                        None => open = None,
                    }
                }
                match reader.read(&splits.next()?, &columns) {
                    Ok(batches) => open = Some(batches),
                    Err(error) => return Some(Err(DataFusionError::External(Box::new(error)))),
                }
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.schema),
            futures::stream::iter(batches),
        ))
    }
}

/// The same plan, in which no two tables look alike. DataFusion runs equal subqueries once, and takes two for equal that
/// differ in nothing but where their rows are: tables of one format have one name here.
pub(crate) fn told_apart(plan: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let mut known: BTreeMap<TableReference, Vec<Arc<dyn TableSource>>> = BTreeMap::new();
    let apart = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = &node else {
            return Ok(Transformed::no(node));
        };
        let sources = known.entry(scan.table_name.clone()).or_default();
        let place = sources
            .iter()
            .position(|source| Arc::ptr_eq(source, &scan.source));
        let number = place.unwrap_or(sources.len());
        if place.is_none() {
            sources.push(Arc::clone(&scan.source));
        }
        if number == 0 {
            return Ok(Transformed::no(node));
        }
        let name = TableReference::bare(format!("{}-{number}", scan.table_name.table()));
        let columns = scan.projected_schema.iter().map(|(qualifier, field)| {
            Expr::Column(Column::new(Some(name.clone()), field.name()))
                .alias_qualified(qualifier.cloned(), field.name())
        });
        let columns: Vec<Expr> = columns.collect();
        let other = LogicalPlanBuilder::from(node).alias(name)?;
        other.project(columns)?.build().map(Transformed::yes)
    })?;
    Ok(apart.data)
}
