//! From DataFusion's resolved plan to ours.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, LogicalPlan, Unnest};
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::{Optimizer, OptimizerContext};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use highwater_operators::Edge;
use highwater_operators::aggregate::{AggregateCall, Aggregation, Emit, needs_order};
use highwater_operators::stage::{Expose, Step};
use highwater_query::{
    Deduplicate, Observe, TimeWindow, Watermark, Written, aggregate_written, as_written,
    names_ours, node_of, session_key,
};

use super::late::LateRows;
use super::panes::panes;
use super::want::Want;
use super::{
    Node, Observed, SourceUse, StaticUse, Statics, WatermarkUse, event_time, firsts, keyed, late,
    modes, only_row, pushdown,
};
use super::{clock, regroup, sets, streams, subquery};
use crate::error::Error;
use crate::relation::StreamRelation;
use crate::sink::OutputMode;

/// A query, ready to be built on workers.
#[derive(Clone)]
pub(crate) struct Compiled {
    pub(crate) root: Node,
    pub(crate) sources: Vec<SourceUse>,
    pub(crate) watermarks: Vec<WatermarkUse>,
    /// The static rows that were read for it.
    pub(crate) statics: Vec<StaticUse>,
    /// True if some operator does something when the watermark moves, rows or not.
    pub(crate) waits_for_watermark: bool,
    /// What the sink gets.
    pub(crate) schema: SchemaRef,
    /// The columns that tell rows apart in update mode.
    pub(crate) key: Vec<String>,
    /// The grids of all windows, in words.
    pub(crate) windows: Vec<String>,
}

impl Compiled {
    /// Which static rows the query has read.
    pub(crate) fn static_versions(&self) -> Vec<String> {
        let versions = self.statics.iter().map(|used| used.version.clone());
        versions.collect()
    }
}

/// True if the plan reads a stream.
pub(crate) fn is_streaming(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            found |= scan.source.downcast_ref::<StreamRelation>().is_some();
        }
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    });
    found
}

/// Compiles `plan` for output in `mode`. With `late_rows` they are told apart, to be sent somewhere.
pub(crate) fn compile(
    plan: &LogicalPlan,
    mode: OutputMode,
    late_rows: bool,
    statics: &dyn Statics,
) -> Result<Compiled, Error> {
    let plan = &sets::as_joins(plan.clone(), mode).map_err(Error::run)?;
    let compiled = modes::check(plan, mode)
        .and_then(|()| subquery::as_joins(plan))
        .and_then(|joined| compile_joins(&joined, mode, late_rows, statics));
    if let Some(lateral) = subquery::lateral(plan) {
        return compiled.map_err(|error| lateral.refused(error));
    }
    match subquery::reads_stream(plan)? {
        true => compiled.map_err(subquery::refused),
        false => compiled,
    }
}

/// Compiles a plan that has no subqueries.
fn compile_joins(
    plan: &LogicalPlan,
    mode: OutputMode,
    late_rows: bool,
    statics: &dyn Statics,
) -> Result<Compiled, Error> {
    let plan = &sets::as_joins(plan.clone(), mode).map_err(Error::run)?;
    modes::check(plan, mode)?;
    let plan = &match mode {
        OutputMode::Changes | OutputMode::Complete => {
            event_time::not_by_place(plan.clone()).map_err(Error::run)?
        }
        _ => plan.clone(),
    };
    let plan = &clock::stamped(plan.clone()).map_err(Error::run)?;
    let mut schema: SchemaRef = Arc::new(plan.schema().as_arrow().clone());
    // The one rule that pays before there are joins: sources read only the columns that are used. Filters stay where
    // the query has them: fused stages make pushing them down worthless, and an expression that can fail must not move.
    let optimizer = Optimizer::with_rules(vec![Arc::new(OptimizeProjections::new())]);
    let context = OptimizerContext::new().with_skip_failing_rules(false);
    let optimized = optimizer
        .optimize(
            pushdown::below_watermarks(plan.clone())
                .and_then(event_time::by_event_time)
                .and_then(firsts::with_event_time)
                .and_then(|plan| match late_rows {
                    true => late::mark(plan, mode == OutputMode::Append),
                    false => Ok(plan),
                })
                .and_then(only_row::kept)
                .map_err(not_built)?,
            &context,
            |_, _| {},
        )
        .and_then(only_row::bare)
        .map_err(Error::run)?;
    let mut compiler = Compiler {
        statics,
        read: Vec::new(),
        sources: sources(&optimized),
        watermarks: Vec::new(),
        // Where rows may leave, the first ones are the first in an order of their own.
        ordered: wants_order(&optimized)? || firsts::limits(&optimized),
        aggregations: 0,
        joins: 0,
        evicts: false,
        bounded: mode != OutputMode::Complete,
        by_model: matches!(mode, OutputMode::Append | OutputMode::Update),
        deduplications: 0,
        limits: 0,
        sessions: 0,
        regroups: 0,
        observed: Vec::new(),
    };
    let mut root = match mode {
        OutputMode::Complete => compiler.whole(&optimized)?,
        OutputMode::Update => compiler.upserts(&optimized, keyed::key(plan))?,
        _ => compiler.node(&optimized, Want::of(mode))?,
    };
    if root.edge().signed && mode != OutputMode::Changes {
        return Err(regroup::rows_leave("a row of this query"));
    }
    streams::check_trails(&root, mode, late_rows)?;
    if root.edge().ordered {
        root = stage(root, Step::Unorder);
    }
    if mode == OutputMode::Append {
        root.hold();
    }
    schema = mode.columns(schema)?;
    if mode == OutputMode::Changes {
        let step = Step::Expose(Expose::Changes, Arc::clone(&schema));
        root = stage(root, step);
    }
    let waits = compiler.evicts && compiler.bounded || root.uses_watermark(mode);
    Ok(Compiled {
        root,
        waits_for_watermark: waits && !compiler.watermarks.is_empty(),
        sources: compiler.sources,
        watermarks: compiler.watermarks,
        statics: compiler.read,
        schema,
        key: key_columns(plan, mode),
        windows: windows(plan),
    })
}

/// The sources of a plan, each once however often it is used: all uses see the same rows in an epoch, and an answer that
/// compares them is never about two different moments.
fn sources(plan: &LogicalPlan) -> Vec<SourceUse> {
    let mut found: Vec<SourceUse> = Vec::new();
    let _ = plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(stream) = scan.source.downcast_ref::<StreamRelation>()
        {
            let width = scan.source.schema().fields().len();
            let wanted = scan.projection.clone();
            let wanted = wanted.unwrap_or_else(|| (0..width).collect());
            let known = found
                .iter_mut()
                .find(|used| Arc::ptr_eq(&used.factory, &stream.factory));
            match known {
                Some(used) => used.columns.extend(wanted),
                None => found.push(SourceUse {
                    factory: Arc::clone(&stream.factory),
                    columns: wanted,
                }),
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    for used in &mut found {
        used.columns.sort_unstable();
        used.columns.dedup();
    }
    found
}

/// True if the answer depends on the order of rows: of some aggregate, or which row of a key is the first.
pub(crate) fn wants_order(plan: &LogicalPlan) -> Result<bool, Error> {
    let mut ordered = firsts::wants_order(plan);
    let mut failed = None;
    let streaming = is_streaming(plan);
    let _ = plan.apply_with_subqueries(|node| {
        // The static parts of a streaming plan are DataFusion's.
        if streaming && !is_streaming(node) {
            return Ok(TreeNodeRecursion::Jump);
        }
        if let LogicalPlan::Aggregate(aggregate) = node {
            match lowered(aggregate) {
                Ok(calls) => ordered |= calls.iter().any(|call| needs_order(&call.function)),
                Err(error) => failed = Some(error),
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    failed.map_or(Ok(ordered), Err)
}

/// The grids of all windows of a plan, in words.
fn windows(plan: &LogicalPlan) -> Vec<String> {
    let mut found = Vec::new();
    let _ = plan.apply_with_subqueries(|node| {
        if let Some(window) = node_of::<TimeWindow>(node) {
            let grid = window.grid;
            found.push(format!(
                "of {} us every {} us from {} us",
                grid.width_us, grid.slide_us, grid.start_us
            ));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// The output columns that hold the keys of the topmost aggregation, unchanged, or of rows that change.
fn key_columns(plan: &LogicalPlan, mode: OutputMode) -> Vec<String> {
    fn keys(plan: &LogicalPlan) -> Vec<usize> {
        match plan {
            LogicalPlan::Aggregate(aggregate) => (0..aggregate.group_expr.len()).collect(),
            LogicalPlan::Filter(filter) => keys(&filter.input),
            LogicalPlan::SubqueryAlias(alias) => keys(&alias.input),
            LogicalPlan::Extension(_) => {
                node_of::<Observe>(plan).map_or_else(Vec::new, |o| keys(&o.input))
            }
            LogicalPlan::Projection(projection) => {
                let below = keys(&projection.input);
                let schema = projection.input.schema();
                let is_key = |expr: &Expr| {
                    let Expr::Column(column) = expr.clone().unalias() else {
                        return false;
                    };
                    schema
                        .maybe_index_of_column(&column)
                        .is_some_and(|index| below.contains(&index))
                };
                (0..projection.expr.len())
                    .filter(|index| is_key(&projection.expr[*index]))
                    .collect()
            }
            _ => Vec::new(),
        }
    }
    let mut columns = keys(plan);
    if columns.is_empty() && mode == OutputMode::Update {
        columns.extend(keyed::key(plan).into_iter().flatten());
    }
    columns
        .into_iter()
        .map(|index| plan.schema().field(index).name().clone())
        .collect()
}

#[derive(Clone)]
pub(super) struct Compiler<'a> {
    pub(super) statics: &'a dyn Statics,
    pub(super) read: Vec<StaticUse>,
    sources: Vec<SourceUse>,
    watermarks: Vec<WatermarkUse>,
    pub(super) ordered: bool,
    aggregations: usize,
    pub(super) joins: usize,
    /// True if some join forgets rows by the watermark.
    pub(super) evicts: bool,
    /// False if no row is late and none is forgotten.
    pub(super) bounded: bool,
    /// Whether rows of a join go by the model: pairs may be late above it, and where one of several times makes rows late
    /// the query is refused. In changes mode, which is not the model's, all pairs count: the join keeps the rows anyway.
    pub(super) by_model: bool,
    pub(super) deduplications: usize,
    pub(super) limits: usize,
    pub(super) sessions: usize,
    pub(super) regroups: usize,
    /// The names of the observations so far.
    observed: Vec<String>,
}

impl Compiler<'_> {
    /// The node for `plan`, whose rows come out as `want` says.
    pub(super) fn node(&mut self, plan: &LogicalPlan, want: Want) -> Result<Node, Error> {
        if !is_streaming(plan) {
            return self.enter(plan);
        }
        if let Some(watermark) = node_of::<Watermark>(plan) {
            return self.watermark(watermark, want);
        }
        if let Some(window) = node_of::<TimeWindow>(plan) {
            return self.node(&window.lowered().map_err(Error::run)?, want);
        }
        if let Some(observe) = node_of::<Observe>(plan) {
            return self.observe(observe, want);
        }
        if let Some(late) = node_of::<LateRows>(plan) {
            let input = self.node(&late.input, want)?;
            return late.over(input);
        }
        if let Some(deduplicate) = node_of::<Deduplicate>(plan) {
            return self.deduplicate(deduplicate, want);
        }
        match plan {
            LogicalPlan::TableScan(scan) => {
                let Some(stream) = scan.source.downcast_ref::<StreamRelation>() else {
                    return Err(Error::not_yet(format!(
                        "relation \"{}\" inside a streaming query",
                        scan.table_name
                    )));
                };
                if scan.fetch.is_some() || !scan.filters.is_empty() {
                    return Err(Error::not_yet("a limit on a streaming query"));
                }
                let all = scan.source.schema();
                let wanted = scan
                    .projection
                    .clone()
                    .unwrap_or_else(|| (0..all.fields().len()).collect());
                let (source, used) = self
                    .sources
                    .iter()
                    .enumerate()
                    .find(|(_, used)| Arc::ptr_eq(&used.factory, &stream.factory))
                    .expect("all sources were collected before");
                let columns = used.columns.clone();
                let read: SchemaRef = Arc::new(all.project(&columns).map_err(Error::run)?);
                let edge = Edge {
                    rows: Arc::clone(&read),
                    ordered: self.ordered,
                    signed: false,
                };
                let node = Node::Source { source, edge };
                if columns == wanted {
                    return Ok(node);
                }
                // Readers give columns in the source's order; the plan wants another.
                let place =
                    |column: &usize| columns.binary_search(column).expect("it is one of them");
                let exprs = wanted.iter().map(place).map(|i| column(&read, i)).collect();
                let schema = Arc::new(
                    read.project(&wanted.iter().map(place).collect::<Vec<_>>())
                        .map_err(Error::run)?,
                );
                Ok(stage(node, Step::Project { exprs, schema }))
            }
            LogicalPlan::SubqueryAlias(alias) => self.node(&alias.input, want),
            LogicalPlan::Projection(projection) => {
                let input = self.node(&projection.input, want)?;
                let exprs = physical(&projection.expr, projection.input.schema())?;
                Ok(stage(
                    input,
                    Step::Project {
                        exprs,
                        schema: arrow_schema(&projection.schema),
                    },
                ))
            }
            LogicalPlan::Filter(filter) => {
                let input = self.node(&filter.input, want)?;
                let condition = physical(
                    std::slice::from_ref(&filter.predicate),
                    filter.input.schema(),
                )?;
                Ok(condition.into_iter().fold(input, |input, condition| {
                    stage(input, Step::Filter(condition))
                }))
            }
            LogicalPlan::Unnest(unnest) => {
                let input = self.node(&unnest.input, want)?;
                explode(input, unnest)
            }
            LogicalPlan::Union(union) => {
                let rows = arrow_schema(&union.schema);
                let mut inputs = Vec::new();
                for input in &union.inputs {
                    let names = arrow_schema(input.schema());
                    let node = self.node(input, want)?;
                    // By position: a batch from any input has the names and nullability of the whole.
                    inputs.push(if names == rows {
                        node
                    } else {
                        let exprs = (0..names.fields().len())
                            .map(|i| column(&names, i))
                            .collect();
                        let schema = Arc::clone(&rows);
                        stage(node, Step::Project { exprs, schema })
                    });
                }
                // Places in different sources differ; rows that have none leave the others without.
                // So do rows of one source that come twice.
                let mut read = Vec::new();
                for input in &inputs {
                    input.for_each(&mut |node| {
                        if let Node::Source { source, .. } = node {
                            read.push(*source);
                        }
                    });
                }
                let uses = read.len();
                read.sort_unstable();
                read.dedup();
                let ordered = read.len() == uses && inputs.iter().all(|input| input.edge().ordered);
                if !ordered {
                    inputs = inputs
                        .into_iter()
                        .map(|i| stage(i, Step::Unorder))
                        .collect();
                }
                let signed = inputs.iter().any(|input| input.edge().signed);
                if signed {
                    inputs = inputs.into_iter().map(|i| stage(i, Step::Sign)).collect();
                }
                let edge = Edge {
                    rows,
                    ordered,
                    signed,
                };
                Ok(Node::Union { inputs, edge })
            }
            LogicalPlan::Aggregate(aggregate) => {
                if let Some(place) = session_key(aggregate) {
                    return self.sessions(aggregate, place, want);
                }
                let input = self.node(&aggregate.input, want.below_state())?;
                if input.edge().signed {
                    return self.aggregate_changes(input, aggregate, want);
                }
                if want == Want::Final && firsts::are_final(plan) {
                    let keys = physical(&aggregate.group_expr, aggregate.input.schema())?;
                    let schema = arrow_schema(&aggregate.schema);
                    let step = Step::Project {
                        exprs: keys,
                        schema,
                    };
                    return Ok(self.first_of_each(stage(input, step)));
                }
                let goes_by_order = |call: &AggregateCall| needs_order(&call.function);
                let input = match calls(aggregate)?.iter().any(goes_by_order) {
                    true if !input.edge().ordered => stage(input, Step::Place),
                    _ => input,
                };
                let keys = physical(&aggregate.group_expr, aggregate.input.schema())?;
                let schema = arrow_schema(&aggregate.schema);
                let mut aggregation = self.aggregation(keys, calls(aggregate)?, schema, want);
                // By then the event time is the first key, if it is one.
                aggregation.event_time = self.by_event_time(plan, want);
                aggregation.panes = panes(aggregate);
                Ok(aggregated(input, aggregation))
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let schema = arrow_schema(input.schema());
                let node = self.node(input, want.below_state())?;
                if node.edge().signed {
                    let columns = (0..schema.fields().len())
                        .map(|index| Expr::Column(input.schema().qualified_field(index).into()));
                    let aggregate =
                        Aggregate::try_new(Arc::clone(input), columns.collect(), vec![]);
                    return self.aggregate_changes(node, &aggregate.map_err(Error::run)?, want);
                }
                if want == Want::Final {
                    return Ok(self.first_of_each(node));
                }
                let keys = (0..schema.fields().len())
                    .map(|i| column(&schema, i))
                    .collect();
                let aggregation = self.aggregation(keys, Vec::new(), schema, want);
                Ok(aggregated(node, aggregation))
            }
            LogicalPlan::Sort(sort) => self.sort(sort, want),
            LogicalPlan::Limit(limit) => self.limit(limit, want),
            LogicalPlan::Window(window) => self.over(window, want),
            LogicalPlan::Join(join) => self.join(join, want),
            LogicalPlan::Subquery(_) => Err(Error::not_yet("a subquery in a streaming query")),
            other => {
                let operator = other.display().to_string();
                // What follows has names in it that nobody wrote.
                let operator = operator.split(':').next().unwrap_or_default();
                Err(Error::not_yet(format!("{operator} in a streaming query")))
            }
        }
    }

    /// True if the first key of an aggregation is event time, by which rows are late and groups are forgotten. In complete
    /// mode they are not, below other operators either.
    pub(super) fn by_event_time(&self, aggregate: &LogicalPlan, want: Want) -> bool {
        let bounded = self.bounded || want == Want::All;
        bounded && event_time::event_keys(aggregate).first() == Some(&0)
    }

    fn observe(&mut self, observe: &Observe, want: Want) -> Result<Node, Error> {
        let input = self.node(&observe.input, want)?;
        if input.edge().signed {
            return Err(Error::not_yet("observing rows that may leave again"));
        }
        let observed = Observed::new(observe, input.edge())?;
        if self.observed.iter().any(|known| known == observed.name()) {
            return Err(Error::refused(
                "DUPLICATED_METRICS_NAME",
                format!(
                    "two observations of one query are called \"{}\"",
                    observed.name()
                ),
            ));
        }
        self.observed.push(observed.name().to_string());
        Ok(Node::Observe {
            input: Box::new(input),
            observed: Box::new(observed),
        })
    }

    fn watermark(&mut self, node: &Watermark, want: Want) -> Result<Node, Error> {
        let input = self.node(&node.input, want)?;
        if input.edge().signed {
            return Err(Error::refused(
                "_LEGACY_ERROR_TEMP_3102",
                "Detected pattern of possible 'correctness' issue due to global watermark: a row below this one may leave again, and a watermark \
                 never goes back. Set the watermark where the rows are read",
            ));
        }
        let column = [Expr::Column(node.column.clone())];
        let mut at = physical(&column, node.input.schema())?;
        let watermark = self.watermarks.len();
        let at = at.remove(0);
        self.watermarks.push(WatermarkUse {
            at: Arc::clone(&at),
            delay_ms: node.delay_ms,
        });
        Ok(Node::Watermark {
            input: Box::new(input),
            watermark,
            at,
            delay_ms: node.delay_ms,
        })
    }

    pub(super) fn aggregation(
        &mut self,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        calls: Vec<AggregateCall>,
        schema: SchemaRef,
        want: Want,
    ) -> Aggregation {
        let name = format!("aggregate-{}", self.aggregations);
        self.aggregations += 1;
        Aggregation {
            name,
            keys,
            calls,
            schema,
            emit: match want {
                Want::Final => Emit::Closed,
                Want::Upserts => Emit::Changed,
                Want::All => Emit::All,
                Want::Changes => Emit::Signed,
            },
            event_time: false,
            panes: None,
            gone: None,
        }
    }
}

/// What a rule of ours says that it cannot do is refused by name.
pub(super) fn not_built(error: DataFusionError) -> Error {
    match error {
        DataFusionError::NotImplemented(what) if !names_ours(&what) => Error::not_yet(what),
        other => Error::run(other),
    }
}

pub(super) fn aggregated(input: Node, aggregation: Aggregation) -> Node {
    Node::Aggregate {
        input: Box::new(input),
        aggregation: Box::new(aggregation),
    }
}

/// Adds a step to a stage below, or begins one.
pub(super) fn stage(input: Node, step: Step) -> Node {
    match input {
        Node::Stage { input, mut steps } => {
            steps.push(step);
            Node::Stage { input, steps }
        }
        input => Node::Stage {
            input: Box::new(input),
            steps: vec![step],
        },
    }
}

pub(super) fn arrow_schema(schema: &DFSchema) -> SchemaRef {
    Arc::new(schema.as_arrow().clone())
}

pub(super) fn column(schema: &Schema, index: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new(schema.field(index).name(), index))
}

pub(super) fn physical(
    exprs: &[Expr],
    schema: &DFSchema,
) -> Result<Vec<Arc<dyn PhysicalExpr>>, Error> {
    clock::refuse(exprs)?;
    let (props, context) = (ExecutionProps::new(), Default::default());
    exprs
        .iter()
        .map(|expr| create_physical_expr(expr, schema, &props, &context).map_err(Error::run))
        .collect()
}

/// The calls of an aggregation of a stream.
pub(super) fn calls(aggregate: &Aggregate) -> Result<Vec<AggregateCall>, Error> {
    clock::refuse(&aggregate.aggr_expr)?;
    let calls = lowered(aggregate)?;
    for call in &calls {
        // What cannot aggregate these types says so now, not at the first row.
        if let Err(error) = call.function.create_accumulator() {
            let what = format!("{} over these types", told(call, aggregate));
            return Err(Error::not_yet(format!(
                "{what} ({})",
                crate::error::error_chain(&error)
            )));
        }
    }
    Ok(calls)
}

/// A call of `aggregate` as the query has it.
pub(super) fn told(call: &AggregateCall, aggregate: &Aggregate) -> String {
    let fields = aggregate.input.schema().fields().iter();
    let columns = fields.map(|field| Written::plain(as_written(field.name())));
    let columns: Vec<Written> = columns.collect();
    let (told, _) = aggregate_written(&call.function, call.filter.as_ref(), &columns);
    told.to_string()
}

fn lowered(aggregate: &Aggregate) -> Result<Vec<AggregateCall>, Error> {
    let input = aggregate.input.schema();
    let arrow = input.as_arrow();
    let (props, context) = (ExecutionProps::new(), Default::default());
    let call = |expr: &Expr| {
        let lowered = LoweredAggregateBuilder::new(expr, input, arrow, &props, &context)
            .build()
            .map_err(Error::run)?;
        Ok(AggregateCall {
            function: lowered.aggregate,
            filter: lowered.filter,
        })
    };
    aggregate.aggr_expr.iter().map(call).collect()
}

/// An unnest of lists (zipped) and structs as steps.
fn explode(input: Node, unnest: &Unnest) -> Result<Node, Error> {
    if !unnest.struct_type_columns.is_empty() {
        return Err(Error::not_yet(
            "expanding a struct with inline() in a streaming query",
        ));
    }
    if unnest
        .list_type_columns
        .iter()
        .any(|(_, list)| list.depth != 1)
    {
        return Err(Error::not_yet(
            "exploding more than one level of an array at once",
        ));
    }
    let lists: Vec<usize> = unnest
        .list_type_columns
        .iter()
        .map(|(index, _)| *index)
        .collect();
    let schema = arrow_schema(&unnest.schema);
    let outer = unnest.options.expand_empty_as_null();
    if unnest.options.preserve_nulls() && !outer {
        return Err(Error::not_yet(
            "exploding so that null arrays stay and empty ones go",
        ));
    }
    let in_place = unnest
        .dependency_indices
        .iter()
        .copied()
        .eq(0..schema.fields().len());
    if !in_place {
        return Err(Error::not_yet("this form of explode in a streaming query"));
    }
    Ok(stage(
        input,
        Step::Unnest {
            lists,
            outer,
            schema,
        },
    ))
}
