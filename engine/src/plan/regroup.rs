//! Answers over rows that may leave again, and those that are a function of all rows of a group: aggregates of rows that
//! change, ORDER BY with LIMIT, OVER windows, and whole answers of queries that have no aggregation.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::JoinType;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprSchemable, Limit, LogicalPlan, Projection, Sort, SortExpr,
    Window,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_planner::create_window_expr;
use highwater_operators::Edge;
use highwater_operators::aggregate::Emit;
use highwater_operators::order::Order;
use highwater_operators::regroup::{
    AllRows, Answer, Calls, Over, PaneStates, Regroup, Top, Windows,
};
use highwater_operators::stage::Step;
use highwater_query::{
    Deduplicate, Grid, Observe, TimeWindow, Watermark, node_of, session_key, windows_of_pane,
    written,
};

use super::compile::{Compiler, arrow_schema, calls, column, is_streaming, physical, stage};
use super::join::keep;
use super::keyed::stays_together;
use super::late::LateRows;
use super::panes::{panes, panes_of};
use super::streams::unordered;
use super::want::Want;
use super::{Node, Told, event_time};
use crate::error::Error;

impl Compiler<'_> {
    pub(super) fn regrouped(
        &mut self,
        input: Node,
        kind: &str,
        answers: Vec<String>,
        told: Told,
        regroup: Regroup,
    ) -> Node {
        let name = format!("{kind}-{}", self.regroups);
        self.regroups += 1;
        Node::Regroup {
            input: Box::new(input),
            regroup: Box::new(Regroup { name, ..regroup }),
            answers,
            told,
        }
    }

    /// All rows of `plan`'s answer with every epoch.
    pub(super) fn whole(&mut self, plan: &LogicalPlan) -> Result<Node, Error> {
        if comes_whole(plan) {
            return self.node(plan, Want::All);
        }
        let input = self.node(plan, Want::Changes)?;
        Ok(self.all_rows(input))
    }

    fn all_rows(&mut self, input: Node) -> Node {
        let schema = input.edge().rows;
        let regroup = Regroup {
            name: String::new(),
            keys: schema.fields().len(),
            sorts: Vec::new(),
            answer: Arc::new(AllRows),
            schema,
            emit: Emit::All,
            event_time: false,
            panes: None,
        };
        let answers = vec!["all rows".into()];
        self.regrouped(
            input,
            "rows",
            answers,
            Told::Rows("all rows".into()),
            regroup,
        )
    }

    /// Refuses groups that may leave, where that cannot be said.
    pub(super) fn stays(&self, aggregate: &Aggregate) -> Result<(), Error> {
        let plan = LogicalPlan::Aggregate(aggregate.clone());
        match stable(&plan) {
            Some(_) => Ok(()),
            None => Err(rows_leave("a group whose last row moves to another group")),
        }
    }

    /// An aggregation of rows that may leave again, of which some call needs all that are left: over `input`, which is what `aggregate` reads.
    pub(super) fn aggregate_anew(
        &mut self,
        input: Node,
        aggregate: &Aggregate,
        want: Want,
    ) -> Result<Node, Error> {
        let emit = match want {
            Want::All => Emit::All,
            Want::Changes => Emit::Signed,
            Want::Upserts => {
                self.stays(aggregate)?;
                Emit::Changed
            }
            Want::Final => return Err(Error::not_yet("aggregating rows that may leave again")),
        };
        let event_time = {
            let plan = LogicalPlan::Aggregate(aggregate.clone());
            self.by_event_time(&plan, want)
        };
        // The keys first, then what the calls use. By that the rows of a group are sorted, and it is the order that the
        // first, the last or all of them are asked in.
        let below = &aggregate.input;
        let mut outputs: Vec<Expr> = Vec::new();
        for (index, key) in aggregate.group_expr.iter().enumerate() {
            outputs.push(key.clone().unalias().alias(format!("__key{index}")));
        }
        let keys = outputs.len();
        for call in &aggregate.aggr_expr {
            let mut used: Vec<_> = call.column_refs().into_iter().collect();
            used.sort();
            for used in used {
                let used = Expr::Column(used.clone());
                if !outputs.contains(&used) {
                    outputs.push(used);
                }
            }
        }
        let narrow = Projection::try_new(outputs.clone(), Arc::clone(below)).map_err(Error::run)?;
        let schema = arrow_schema(&narrow.schema);
        let narrow = Arc::new(LogicalPlan::Projection(narrow));
        let by = (0..keys).map(|index| Expr::Column(narrow.schema().qualified_field(index).into()));
        let again = Aggregate::try_new(
            Arc::clone(&narrow),
            by.collect(),
            aggregate.aggr_expr.clone(),
        )
        .map_err(Error::run)?;
        let output = arrow_schema(&aggregate.schema);
        let by = (0..keys).map(|index| column(&schema, index)).collect();
        let aggregation = self.aggregation(by, calls(&again)?, Arc::clone(&output), want);
        let answers = aggregate.aggr_expr.iter();
        let answers = answers.map(|call| call.clone().unalias().to_string());
        let answers: Vec<String> = answers.collect();
        let regroup = |answer: Arc<dyn Answer>| Regroup {
            name: String::new(),
            keys,
            sorts: Vec::new(),
            answer,
            schema: Arc::clone(&output),
            emit,
            event_time,
            panes: panes(aggregate),
        };
        if let Some(panes) = panes(aggregate)
            && let Some(states) = PaneStates::new(&schema, &aggregation).map_err(Error::run)?
        {
            let input = projected(input, &outputs, below)?.0;
            let calls = Told::calls(&input, &aggregation);
            let of_panes = Regroup {
                schema: states.schema(),
                emit: Emit::Signed,
                event_time: event_time && emit != Emit::All,
                ..regroup(Arc::new(states))
            };
            let told = calls.of_panes();
            let input = self.regrouped(input, "panes", answers.clone(), told, of_panes);
            let windows = Windows::new(&schema, &aggregation, panes).map_err(Error::run)?;
            let windows = regroup(Arc::new(windows));
            return Ok(self.regrouped(input, "windows", answers, calls, windows));
        }
        let input = match panes_of(aggregate) {
            Some((windows, _)) => by_windows(input, &outputs, below, windows)?,
            None => projected(input, &outputs, below)?.0,
        };
        let told = Told::calls(&input, &aggregation);
        let answer = Calls::new(schema, aggregation).map_err(Error::run)?;
        let regroup = Regroup {
            panes: None,
            ..regroup(Arc::new(answer))
        };
        Ok(self.regrouped(input, "aggregate-anew", answers, told, regroup))
    }

    pub(super) fn sort(&mut self, sort: &Sort, want: Want) -> Result<Node, Error> {
        match want {
            Want::All => self.ordered(&sort.input, &sort.expr, 0, sort.fetch),
            Want::Changes if sort.fetch.is_none() => self.node(&sort.input, want),
            Want::Changes => {
                let input = self.node(&sort.input, want)?;
                self.top(input, &sort.input, &sort.expr, 0, sort.fetch)
            }
            Want::Final | Want::Upserts => Err(Error::refused(
                "_LEGACY_ERROR_TEMP_3102",
                "Sorting is not supported on streaming DataFrames/Datasets, unless it is on aggregated DataFrame/Dataset in Complete output mode: \
                 rows come out without those that belong around them. Use output mode complete, or leave the order to who reads the answer",
            )),
        }
    }

    pub(super) fn limit(&mut self, limit: &Limit, want: Want) -> Result<Node, Error> {
        use datafusion::logical_expr::{FetchType, SkipType};
        if let Some(plan) = below_columns(limit).map_err(Error::run)? {
            return self.node(&plan, want);
        }
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) = (
            limit.get_skip_type().map_err(Error::run)?,
            limit.get_fetch_type().map_err(Error::run)?,
        ) else {
            return Err(Error::not_yet("a LIMIT that is not a number"));
        };
        let none = Vec::new();
        let (input, by) = match limit.input.as_ref() {
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => (&sort.input, &sort.expr),
            _ => (&limit.input, &none),
        };
        let end = fetch.and_then(|fetch| skip.checked_add(fetch));
        let wanted = skip as u64..end.map_or(u64::MAX, |end| end as u64);
        match want {
            Want::All if !by.is_empty() => self.ordered(input, by, skip, fetch),
            Want::All | Want::Changes => {
                let before = self.clone();
                let rows = self.node(input, Want::Changes)?;
                // Where no row leaves, those that came first stay the first.
                let stay = by.is_empty() && !rows.edge().signed;
                match want {
                    Want::All if stay => {
                        let rows = self.first_rows(rows, wanted);
                        Ok(self.all_rows(rows))
                    }
                    Want::All => {
                        *self = before;
                        self.ordered(input, by, skip, fetch)
                    }
                    _ if stay => Ok(self.first_rows(rows, wanted)),
                    _ => self.top(rows, input, by, skip, fetch),
                }
            }
            Want::Upserts => Err(Error::refused(
                "_LEGACY_ERROR_TEMP_3102",
                "Limits are not supported on streaming DataFrames/Datasets in Update output mode: where rows change, one that leaves the first ones has no successor \
                 under its key, and where they do not, there is nothing to update. Use append mode there, in which the first rows to come stay the first, or output mode complete or changes",
            )),
            Want::Final if !by.is_empty() => Err(Error::refused(
                "_LEGACY_ERROR_TEMP_3102",
                "Sorting is not supported on streaming DataFrames/Datasets, unless it is on aggregated DataFrame/Dataset in Complete output mode: \
                 a row comes out as soon as it is final, and does not wait until those are final that belong before it. Use output mode complete or changes",
            )),
            Want::Final if skip > 0 => Err(Error::refused(
                "_LEGACY_ERROR_TEMP_3102",
                "Offset is not supported on streaming DataFrames/Datasets. Use output mode complete or changes",
            )),
            Want::Final if fetch.is_none() => self.node(input, want),
            Want::Final => {
                let input = self.node(input, want)?;
                Ok(self.first_rows(input, wanted))
            }
        }
    }

    fn ordered(
        &mut self,
        input: &LogicalPlan,
        by: &[SortExpr],
        skip: usize,
        fetch: Option<usize>,
    ) -> Result<Node, Error> {
        let node = self.whole(input)?;
        let exprs: Vec<Expr> = by.iter().map(|sort| sort.expr.clone()).collect();
        let keys = physical(&exprs, input.schema())?.into_iter();
        let order = Order {
            keys: keys.zip(by.iter().map(options)).collect(),
            skip,
            fetch,
        };
        Ok(Node::Order {
            input: Box::new(node),
            order: Box::new(order),
        })
    }

    /// The first rows by an order over `node`, which is what `input` gives.
    fn top(
        &mut self,
        node: Node,
        input: &LogicalPlan,
        by: &[SortExpr],
        skip: usize,
        fetch: Option<usize>,
    ) -> Result<Node, Error> {
        let exprs: Vec<Expr> = by.iter().map(|sort| sort.expr.clone()).collect();
        let sorts = by.iter().map(options).collect();
        let leading = by.len();
        let (node, layout) = laid_out(node, physical(&exprs, input.schema())?);
        let answer = Top {
            skip: skip as u64,
            fetch: fetch.map(|fetch| fetch as u64),
        };
        let regroup = Regroup {
            name: String::new(),
            keys: 0,
            sorts,
            answer: Arc::new(answer),
            schema: layout,
            emit: Emit::Signed,
            event_time: false,
            panes: None,
        };
        let by: Vec<String> = by.iter().map(ToString::to_string).collect();
        let first = match fetch {
            Some(fetch) => format!("the first {fetch} rows"),
            None => "the rows".to_string(),
        };
        let answer = format!("{first} after {skip} by {}", by.join(", "));
        let told = Told::first(&node, &regroup, skip, fetch);
        let node = self.regrouped(node, "top", vec![answer], told, regroup);
        Ok(without(node, leading, &arrow_schema(input.schema())))
    }

    /// One row of each key, over `input`, which is what `plan` gives and may leave again: the first by what it holds.
    pub(super) fn first_of_keys(
        &mut self,
        input: Node,
        plan: &LogicalPlan,
        keys: &[Expr],
    ) -> Result<Node, Error> {
        let (node, layout) = laid_out(input, physical(keys, plan.schema())?);
        let regroup = Regroup {
            name: String::new(),
            keys: keys.len(),
            sorts: Vec::new(),
            answer: Arc::new(Top {
                skip: 0,
                fetch: Some(1),
            }),
            schema: layout,
            emit: Emit::Signed,
            event_time: false,
            panes: None,
        };
        let told = Told::Rows("the first row".into());
        let node = self.regrouped(node, "firsts", vec!["the first row".into()], told, regroup);
        Ok(without(node, keys.len(), &arrow_schema(plan.schema())))
    }

    pub(super) fn over(&mut self, window: &Window, want: Want) -> Result<Node, Error> {
        let time = match want {
            Want::Final => event_time::partition_time(window).map_err(Error::run)?,
            _ => None,
        };
        if want == Want::Upserts || want == Want::Final && time.is_none() {
            return Err(Error::refused(
                "NON_TIME_WINDOW_NOT_SUPPORTED_IN_STREAMING",
                "Window function is not supported on streaming DataFrames/Datasets in this output mode: a later row may change what has been said of earlier ones. \
                 Use output mode complete or changes, or, in append mode, PARTITION BY a column with a watermark or a window of it",
            ));
        }
        // Rows of a partition by time come out when it is closed.
        self.evicts |= time.is_some();
        let below = match want {
            Want::Final => Want::Final,
            _ => Want::Changes,
        };
        let input = unordered(self.node(&window.input, below)?);
        let mut parts: Option<(Vec<Expr>, Vec<SortExpr>)> = None;
        for call in &window.window_expr {
            let Expr::WindowFunction(function) = call.clone().unalias() else {
                let call = written(call);
                return Err(Error::not_yet(format!("{call} as a window function")));
            };
            let own = (
                function.params.partition_by.clone(),
                function.params.order_by.clone(),
            );
            if parts.get_or_insert_with(|| own.clone()) != &own {
                return Err(Error::not_yet(
                    "window functions over different partitions in one step",
                ));
            }
        }
        let (partition, order) = parts.unwrap_or_default();
        let schema = window.input.schema();
        let mut exprs: Vec<Expr> = time.iter().cloned().collect();
        exprs.extend(partition);
        let keys = exprs.len();
        exprs.extend(order.iter().map(|sort| sort.expr.clone()));
        let leading = exprs.len();
        let told = Told::over(&input, window);
        let (node, layout) = laid_out(input, physical(&exprs, schema)?);
        let (props, context) = (ExecutionProps::new(), Default::default());
        // Built over the rows of the query, which stand behind the columns that the layout adds.
        let mut calls = Vec::new();
        let mut answers = Vec::new();
        for call in &window.window_expr {
            let call = call.clone().unalias();
            answers.push(call.to_string());
            let call = create_window_expr(&call, schema, &props, &context).map_err(Error::run)?;
            calls.push(call);
        }
        let mut fields = layout.fields().to_vec();
        let made = arrow_schema(&window.schema);
        fields.extend(made.fields()[schema.fields().len()..].iter().cloned());
        let output: SchemaRef = Arc::new(Schema::new(fields));
        let over = Over {
            calls,
            leading,
            schema: Arc::clone(&output),
        };
        let regroup = Regroup {
            name: String::new(),
            keys,
            sorts: order.iter().map(options).collect(),
            answer: Arc::new(over) as Arc<dyn Answer>,
            schema: output,
            emit: match want {
                Want::All => Emit::All,
                Want::Final => Emit::Closed,
                _ => Emit::Signed,
            },
            event_time: time.is_some(),
            panes: None,
        };
        let node = self.regrouped(node, "over", answers, told, regroup);
        Ok(without(node, leading, &made))
    }
}

/// `outputs` of the rows that `input` gives and `below` describes.
fn projected(
    input: Node,
    outputs: &[Expr],
    below: &Arc<LogicalPlan>,
) -> Result<(Node, SchemaRef), Error> {
    let exprs = physical(outputs, below.schema())?;
    let plan = Projection::try_new(outputs.to_vec(), Arc::clone(below)).map_err(Error::run)?;
    let schema = arrow_schema(&plan.schema);
    let step = Step::Project {
        exprs,
        schema: Arc::clone(&schema),
    };
    Ok((stage(input, step), schema))
}

/// The same, each row once for every one of the windows that have the pane whose end is the first output: groups that
/// are computed anew are windows.
fn by_windows(
    input: Node,
    outputs: &[Expr],
    below: &Arc<LogicalPlan>,
    windows: Grid,
) -> Result<Node, Error> {
    let mut listed = outputs.to_vec();
    let pane = listed[0].clone().unalias();
    let data_type = pane.get_type(below.schema()).map_err(Error::run)?;
    let name = listed[0].qualified_name().1;
    listed[0] = windows_of_pane(pane, &data_type, windows).alias(name);
    let (node, schema) = projected(input, &listed, below)?;
    let mut fields = schema.fields().to_vec();
    fields[0] = Arc::new(Field::new(schema.field(0).name(), data_type, true));
    let step = Step::Unnest {
        lists: vec![0],
        outer: false,
        schema: Arc::new(Schema::new(fields)),
    };
    Ok(stage(node, step))
}

/// A limit next to the order that it goes by: the columns of its rows may be chosen between them, and then those of the
/// order are gone.
fn below_columns(limit: &Limit) -> datafusion::common::Result<Option<LogicalPlan>> {
    let columns = limit.input.as_ref();
    let below = match columns {
        LogicalPlan::Projection(projection) if is_sorted(&projection.input) => &projection.input,
        LogicalPlan::SubqueryAlias(alias) if is_sorted(&alias.input) => &alias.input,
        _ => return Ok(None),
    };
    let limit = Limit {
        input: Arc::clone(below),
        ..limit.clone()
    };
    let limit = LogicalPlan::Limit(limit);
    let above = columns.with_new_exprs(columns.expressions(), vec![limit])?;
    Ok(Some(above))
}

fn is_sorted(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(sort) => sort.fetch.is_none(),
        LogicalPlan::Projection(projection) => is_sorted(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_sorted(&alias.input),
        _ => false,
    }
}

/// The error for update mode where rows may leave.
pub(super) fn rows_leave(what: &str) -> Error {
    Error::refused(
        "_LEGACY_ERROR_TEMP_3102",
        format!(
            "Detected pattern of possible 'correctness' issue due to global watermark: in update output mode a row that leaves without a successor under its key cannot be said, and {what} leaves so. \
             Use output mode complete or changes"
        ),
    )
}

fn options(sort: &SortExpr) -> SortOptions {
    SortOptions {
        descending: !sort.asc,
        nulls_first: sort.nulls_first,
    }
}

/// The rows behind some columns computed of them.
pub(super) fn laid_out(input: Node, leading: Vec<Arc<dyn PhysicalExpr>>) -> (Node, SchemaRef) {
    let edge: Edge = input.edge();
    let mut exprs = leading;
    let mut fields = Vec::new();
    for (index, expr) in exprs.iter().enumerate() {
        let data_type = expr
            .data_type(&edge.rows)
            .unwrap_or(arrow::datatypes::DataType::Null);
        let name = format!("__by{index}");
        fields.push(Arc::new(Field::new(name, data_type, true)));
    }
    for (index, field) in edge.rows.fields().iter().enumerate() {
        exprs.push(column(&edge.rows, index));
        fields.push(Arc::clone(field));
    }
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let step = Step::Project {
        exprs,
        schema: Arc::clone(&schema),
    };
    (stage(input, step), schema)
}

/// The rows without their first `leading` columns, under the names of `schema`.
pub(super) fn without(node: Node, leading: usize, schema: &SchemaRef) -> Node {
    let rows = node.edge().rows;
    let exprs = (leading..rows.fields().len()).map(|index| column(&rows, index));
    let step = Step::Project {
        exprs: exprs.collect(),
        schema: Arc::clone(schema),
    };
    stage(node, step)
}

/// True if the topmost operator with state gives its whole answer with every epoch, and no row passes it by.
fn comes_whole(plan: &LogicalPlan) -> bool {
    // Static rows come once, whatever they are the answer of.
    if !is_streaming(plan) {
        return false;
    }
    match plan {
        LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(Distinct::All(_)) => true,
        LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::Window(_) => true,
        LogicalPlan::Union(union) => union.inputs.iter().all(|input| comes_whole(input)),
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Unnest(_) => comes_whole(plan.inputs()[0]),
        // A stream's rows pass one by one through a join with static rows.
        LogicalPlan::Join(join) => match (is_streaming(&join.left), is_streaming(&join.right)) {
            (true, false) => keep(join, true).is_some() && comes_whole(&join.left),
            (false, true) => keep(join, false).is_some() && comes_whole(&join.right),
            _ => false,
        },
        LogicalPlan::Extension(_) => {
            let passes = node_of::<Observe>(plan).is_some()
                || node_of::<Watermark>(plan).is_some()
                || node_of::<TimeWindow>(plan).is_some()
                || node_of::<Deduplicate>(plan).is_some();
            passes && comes_whole(plan.inputs()[0])
        }
        _ => false,
    }
}

/// If no row of the plan ever leaves without another one that agrees with it in these columns: which they are.
pub(super) fn stable(plan: &LogicalPlan) -> Option<Vec<bool>> {
    let of = |expr: &Expr, input: &LogicalPlan, below: &[bool]| {
        let columns = expr.column_refs();
        let mut places = columns
            .into_iter()
            .map(|column| input.schema().maybe_index_of_column(column));
        places.all(|place| place.is_some_and(|place| below[place]))
    };
    match plan {
        LogicalPlan::TableScan(scan) => Some(vec![true; scan.projected_schema.fields().len()]),
        LogicalPlan::Projection(projection) => {
            let input = &projection.input;
            let below = stable(input)?;
            let exprs = projection.expr.iter();
            Some(exprs.map(|expr| of(expr, input, &below)).collect())
        }
        LogicalPlan::Filter(filter) => {
            let below = stable(&filter.input)?;
            of(&filter.predicate, &filter.input, &below).then_some(below)
        }
        // The one row of an aggregation without keys always has a successor, whatever becomes of the rows below.
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => {
            Some(vec![false; aggregate.schema.fields().len()])
        }
        LogicalPlan::Aggregate(aggregate) => {
            let input = &aggregate.input;
            let below = stable(input)?;
            let keys = &aggregate.group_expr;
            let fixed = keys.iter().all(|key| of(key, input, &below));
            let width = aggregate.schema.fields().len();
            // A session that grows leaves for one with other bounds.
            let session = session_key(aggregate);
            let stays = |index: usize| index < keys.len() && Some(index) != session;
            fixed.then(|| (0..width).map(stays).collect())
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let below = stable(input)?;
            below.iter().all(|column| *column).then_some(below)
        }
        LogicalPlan::Union(union) => {
            let mut all = vec![true; union.schema.fields().len()];
            for input in &union.inputs {
                for (all, one) in all.iter_mut().zip(stable(input)?) {
                    *all &= one;
                }
            }
            Some(all)
        }
        LogicalPlan::SubqueryAlias(alias) => stable(&alias.input),
        LogicalPlan::Unnest(unnest) => {
            let below = stable(&unnest.input)?;
            let lists = unnest.list_type_columns.iter();
            let fixed = lists.map(|(list, _)| *list).all(|list| below[list]);
            let columns = unnest.dependency_indices.iter();
            fixed.then(|| columns.map(|index| below[*index]).collect())
        }
        LogicalPlan::Join(join) => {
            let side = |plan: &LogicalPlan| match is_streaming(plan) {
                true => stable(plan),
                false => Some(vec![true; plan.schema().fields().len()]),
            };
            match join.join_type {
                JoinType::Inner if stays_together(join) => {
                    Some([side(&join.left)?, side(&join.right)?].concat())
                }
                JoinType::Left if stays_together(join) && !is_streaming(&join.right) => {
                    Some([side(&join.left)?, side(&join.right)?].concat())
                }
                // A row that has a partner keeps one; what it has of static rows does not change.
                JoinType::LeftSemi if stays_together(join) => {
                    side(&join.right)?;
                    side(&join.left)
                }
                JoinType::LeftAnti if stays_together(join) && !is_streaming(&join.right) => {
                    side(&join.left)
                }
                // With another partner, or with none.
                JoinType::Left => {
                    let right = vec![false; join.right.schema().fields().len()];
                    Some([side(&join.left)?, right].concat())
                }
                _ => None,
            }
        }
        LogicalPlan::Extension(_) => {
            let input = plan.inputs()[0];
            let mut below = stable(input)?;
            if let Some(window) = node_of::<TimeWindow>(plan) {
                // A row whose time is null falls out.
                if !of(&window.time, input, &below) {
                    return None;
                }
                below.push(true);
            } else if node_of::<Observe>(plan).is_none()
                && node_of::<Watermark>(plan).is_none()
                && node_of::<LateRows>(plan).is_none()
            {
                return None;
            }
            Some(below)
        }
        _ => None,
    }
}
