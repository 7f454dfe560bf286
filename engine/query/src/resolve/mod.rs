//! Unresolved plans to DataFusion's, with Spark's types.

mod aggregate;
mod ansi;
mod deduplicate;
mod expression;
mod grouping;
mod join;
mod kind;
mod lateral;
mod lifted;
mod name;
mod observe;
mod order;
mod over;
mod partner;
mod pivot;
mod project;
mod scope;
mod set;
mod subquery;
mod unpivot;
mod window;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::TableReference;
use datafusion::logical_expr::{
    Expr as DfExpr, Filter, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias,
};

use self::expression::Exprs;
use self::scope::Relation;
use crate::coerce;
use crate::error::{Place, QueryError};
use crate::expr::Expr;
use crate::functions::cast::parse::{Zone, during};
use crate::functions::kernel::Typed;
use crate::functions::{Functions, cast};
use crate::plan::{Catalog, Conf, Plan};
use crate::types::type_sql;

type Result<T> = std::result::Result<T, QueryError>;

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
    pub fn resolve(&self, plan: &Plan) -> Result<LogicalPlan> {
        let (catalog, functions, conf) = (self.catalog, self.functions, self.conf);
        let env = Env {
            catalog,
            functions,
            conf,
            ctes: RefCell::new(vec![]),
            made: Cell::new(0),
            windows: RefCell::new(None),
            outer: RefCell::new(vec![]),
        };
        let zone = Zone::named(&conf.time_zone).ok_or_else(|| {
            QueryError::new(
                "INVALID_TIMEZONE",
                format!("The timezone: {} is invalid.", conf.time_zone),
            )
        })?;
        let resolved = cast::by_ansi(conf.ansi, || during(zone, || env.relation(plan)))?;
        let resolved = env.under_own_names(resolved)?;
        if !conf.ansi {
            ansi::check(&resolved)?;
        }
        Ok(resolved)
    }
}

/// What resolving needs wherever it is in the plan.
struct Env<'a> {
    catalog: &'a dyn Catalog,
    functions: &'a Functions,
    conf: &'a Conf,
    /// The queries that WITH names, the innermost last.
    ctes: RefCell<Vec<(String, Relation)>>,
    /// How many names were made up, so that each is new.
    made: Cell<usize>,
    /// What `window` stands for in the clause being resolved.
    windows: RefCell<Option<window::Windows>>,
    /// The columns of the queries around the one being resolved, the innermost last.
    outer: RefCell<Vec<Vec<scope::ScopeColumn>>>,
}

impl Env<'_> {
    /// A column name that no query can write by accident.
    fn fresh(&self, what: &str) -> String {
        let n = self.made.get();
        self.made.set(n + 1);
        format!("__{what}_{n}")
    }

    /// The plan with its columns under the names by which they are known.
    fn under_own_names(&self, relation: Relation) -> Result<LogicalPlan> {
        if relation.visible().all(|c| c.column.name == c.name) {
            return Ok(relation.plan);
        }
        let outputs = relation.visible().map(|c| (c.name.clone(), c.typed()));
        let outputs = outputs.collect();
        Ok(self.projection(relation.plan, outputs)?.plan)
    }

    fn same(&self, a: &str, b: &str) -> bool {
        if self.conf.case_sensitive {
            a == b
        } else {
            a.eq_ignore_ascii_case(b)
        }
    }

    fn relation(&self, plan: &Plan) -> Result<Relation> {
        self.relation_of(plan)
            .map_err(|error| error.at(plan.place()))
    }

    fn relation_of(&self, plan: &Plan) -> Result<Relation> {
        match plan {
            Plan::Resolved(plan) => Ok(Relation::new(plan.as_ref().clone(), None)),
            Plan::Table {
                name,
                place,
                stream,
            } => self.table(name, *place, *stream),
            Plan::Alias {
                input,
                name,
                columns,
            } => self.alias(self.relation(input)?, name, columns),
            Plan::Project { input, outputs } => self.project(self.relation(input)?, outputs),
            Plan::WithColumns { input, columns } => {
                self.with_columns(self.relation(input)?, columns)
            }
            Plan::DropColumns { input, columns } => {
                let input = self.relation(input)?;
                let kept = input
                    .visible()
                    .filter(|c| !columns.iter().any(|name| self.same(name, &c.name)));
                let outputs = kept.map(|c| (c.name.clone(), c.typed())).collect();
                self.projection(input.plan.clone(), outputs)
            }
            Plan::RenameColumns { input, columns } => {
                let input = self.relation(input)?;
                let renamed = |name: &str| {
                    columns
                        .iter()
                        .find(|(old, _)| self.same(old, name))
                        .map(|(_, new)| new)
                };
                let outputs = input
                    .visible()
                    .map(|c| (renamed(&c.name).unwrap_or(&c.name).clone(), c.typed()))
                    .collect();
                self.projection(input.plan.clone(), outputs)
            }
            Plan::Filter { input, condition } => self.filter(self.relation(input)?, condition),
            Plan::Aggregate {
                input,
                keys,
                outputs,
                having,
            } => self.aggregate(self.relation(input)?, keys, outputs, having.as_ref()),
            Plan::Qualify { input, condition } => self.qualify(input, condition),
            Plan::Pivot {
                input,
                aggregates,
                columns,
                values,
            } => self.pivot(self.relation(input)?, aggregates, columns, values),
            Plan::Unpivot {
                input,
                values,
                name,
                columns,
                nulls,
            } => self.unpivot(self.relation(input)?, values, name, columns, *nulls),
            Plan::Distinct { input } => self.distinct(self.relation(input)?),
            Plan::Deduplicate {
                input,
                columns,
                within_watermark,
            } => self.deduplicate(self.relation(input)?, columns, *within_watermark),
            Plan::Sort { input, order } => self.sort(input, order),
            Plan::Distribute { input, keys } => self.distribute(input, keys),
            Plan::Limit { input, count, skip } => {
                let input = self.relation(input)?;
                self.limit(input, count.as_ref(), skip.as_ref())
            }
            Plan::Join {
                left,
                right,
                kind,
                condition,
            } => {
                let left = self.relation(left)?;
                match right.as_ref() {
                    Plan::Lateral { input } => self.lateral(left, input, *kind, condition),
                    right => self.join(left, self.relation(right)?, *kind, condition),
                }
            }
            // Nothing stands before it.
            Plan::Lateral { input } => self.relation(input),
            Plan::Observe {
                input,
                name,
                metrics,
                observation,
            } => {
                let input = self.relation(input)?;
                self.observe(input, name, metrics, observation.as_ref())
            }
            Plan::Union { inputs, by_name } => {
                let inputs = inputs
                    .iter()
                    .map(|i| self.relation(i))
                    .collect::<Result<_>>()?;
                self.union(inputs, *by_name)
            }
            Plan::SetOperation {
                left,
                right,
                except,
                all,
            } => self.set_operation(self.relation(left)?, self.relation(right)?, *except, *all),
            Plan::Values { rows } => self.values(rows),
            Plan::OneRow => Ok(Relation::new(
                LogicalPlanBuilder::empty(true).build()?,
                None,
            )),
            Plan::With { ctes, input } => self.with(ctes, input),
            Plan::LateralView {
                input,
                generator,
                outer,
                name,
                columns,
            } => self.lateral_view(
                self.relation(input)?,
                generator,
                *outer,
                Some(name),
                columns,
            ),
            Plan::Watermark {
                input,
                column,
                delay,
            } => self.watermark(self.relation(input)?, column, delay),
        }
    }

    fn table(&self, name: &[String], place: Option<Place>, stream: bool) -> Result<Relation> {
        if let [cte] = name
            && let Some((_, found)) = self
                .ctes
                .borrow()
                .iter()
                .rev()
                .find(|(n, _)| self.same(n, cte))
        {
            if stream {
                let message = format!(
                    "STREAM stands before a table or a view; write it inside of the WITH query \"{cte}\""
                );
                return Err(QueryError::new("PARSE_SYNTAX_ERROR", message).at(place));
            }
            return Ok(found.clone());
        }
        match self
            .catalog
            .table(name, stream)
            .map_err(|error| error.at(place))?
        {
            Some(plan) => Ok(Relation::new(plan, Some(name.to_vec()))),
            None => {
                let name = scope::in_backticks(name);
                let message = format!(
                    "The table or view {name} cannot be found. Verify the spelling and correctness of the schema and catalog."
                );
                Err(QueryError::new("TABLE_OR_VIEW_NOT_FOUND", message).at(place))
            }
        }
    }

    fn alias(&self, input: Relation, name: &str, columns: &[String]) -> Result<Relation> {
        let mut outputs: Vec<(String, Typed)> = input
            .visible()
            .map(|c| (c.name.clone(), c.typed()))
            .collect();
        if !columns.is_empty() {
            if columns.len() != outputs.len() {
                let message = format!(
                    "The number of columns or variables assigned or aliased: {} does not match the number of source expressions: {}.",
                    outputs.len(),
                    columns.len()
                );
                return Err(QueryError::new("ASSIGNMENT_ARITY_MISMATCH", message));
            }
            for (output, column) in outputs.iter_mut().zip(columns) {
                output.0 = column.clone();
            }
        }
        let unique = outputs
            .iter()
            .enumerate()
            .all(|(i, (n, _))| outputs[..i].iter().all(|(m, _)| n != m));
        let hidden = input.columns.iter().any(|c| c.hidden);
        if !unique {
            let mut relation = self.projection(input.plan, outputs)?;
            for column in &mut relation.columns {
                column.qualifier = vec![name.to_string()];
            }
            return Ok(relation);
        }
        let plan = match columns.is_empty() && !hidden {
            true => input.plan,
            false => self.projection(input.plan, outputs)?.plan,
        };
        let alias = SubqueryAlias::try_new(Arc::new(plan), TableReference::bare(name))?;
        Ok(Relation::new(
            LogicalPlan::SubqueryAlias(alias),
            Some(vec![name.to_string()]),
        ))
    }

    pub(super) fn filter(&self, input: Relation, condition: &Expr) -> Result<Relation> {
        if subquery::has_subquery(condition) {
            return self.filter_by_subqueries(input, condition);
        }
        let is_window =
            |e: &Expr| matches!(e, Expr::Call(call) if call.name.eq_ignore_ascii_case("window"));
        if condition.any(&is_window) {
            return self.filter_by_windows(input, condition);
        }
        self.filter_over(input, condition, false)
    }

    /// The rows of `input`, once for each of their windows for which the condition is true.
    fn filter_by_windows(&self, input: Relation, condition: &Expr) -> Result<Relation> {
        let columns = input.columns.clone();
        let filtered = self.with_windows(input, std::iter::once(condition), |input| {
            self.filter_over(input, condition, false)
        })?;
        self.only(filtered.plan, columns)
    }

    /// The plan with these of its columns.
    pub(super) fn only(
        &self,
        plan: LogicalPlan,
        columns: Vec<scope::ScopeColumn>,
    ) -> Result<Relation> {
        let mut kept: Vec<DfExpr> = vec![];
        for column in &columns {
            let column = DfExpr::Column(column.column.clone());
            // USING names a column twice.
            if !kept.contains(&column) {
                kept.push(column);
            }
        }
        let plan = LogicalPlan::Projection(Projection::try_new(kept, Arc::new(plan))?);
        Ok(Relation { plan, columns })
    }

    fn filter_over(
        &self,
        mut input: Relation,
        condition: &Expr,
        renamed: bool,
    ) -> Result<Relation> {
        let exprs = Exprs::over(self, &input.columns, "WHERE");
        let value = exprs.resolve(condition).map_err(|error| {
            if error.class() != Some("INVALID_WHERE_CONDITION") {
                return error;
            }
            let message = format!(
                "The WHERE condition \"{}\" contains invalid expressions: {}. Aggregate in a subquery, or use HAVING",
                exprs.text(condition),
                error.message()
            );
            QueryError::new("INVALID_WHERE_CONDITION", message).at(error.place())
        })?;
        if !matches!(value.data_type, DataType::Boolean | DataType::Null) {
            let text = exprs.text(condition);
            let message = format!(
                "Cannot resolve \"{text}\" due to data type mismatch: Filter expression \"{text}\" of type \"{}\" is not a boolean.",
                type_sql(&value.data_type)
            );
            let error = QueryError::mismatch("FILTER_NOT_BOOLEAN", message);
            return Err(error.at(condition.place()));
        }
        let value = cast::implicit(value, &DataType::Boolean)?;
        if !renamed && subquery::names_outer(&value.expr) {
            // What is compared with columns from around travels up to a join: under a name that nothing else has.
            return self.filter_over(self.renamed(input)?, condition, true);
        }
        input.plan = LogicalPlan::Filter(Filter::try_new(value.expr, Arc::new(input.plan))?);
        Ok(input)
    }

    fn values(&self, rows: &[Vec<Expr>]) -> Result<Relation> {
        let exprs = Exprs::over(self, &[], "VALUES");
        let rows: Vec<Vec<Typed>> = rows
            .iter()
            .map(|row| match row.as_slice() {
                [Expr::Tuple(row)] => row.iter().map(|e| exprs.resolve(e)).collect(),
                row => row.iter().map(|e| exprs.resolve(e)).collect(),
            })
            .collect::<Result<_>>()?;
        let width = rows.first().map_or(0, Vec::len);
        if rows.iter().any(|row| row.len() != width) {
            let message = "rows of VALUES differ in their number of columns";
            return Err(QueryError::new(
                "INVALID_INLINE_TABLE.NUM_COLUMNS_MISMATCH",
                message,
            ));
        }
        let mut types = vec![];
        for i in 0..width {
            let found = coerce::wider_of_all(rows.iter().map(|row| &row[i].data_type));
            types.push(found.ok_or_else(|| {
                let message = format!(
                    "column {} of VALUES has values of incompatible types",
                    i + 1
                );
                QueryError::new(
                    "INVALID_INLINE_TABLE.INCOMPATIBLE_TYPES_IN_INLINE_TABLE",
                    message,
                )
            })?);
        }
        let rows: Vec<Vec<DfExpr>> = rows
            .into_iter()
            .map(|row| {
                row.into_iter()
                    .zip(&types)
                    .map(|(v, t)| Ok(cast::implicit(v, t)?.expr))
                    .collect()
            })
            .collect::<Result<_>>()?;
        let plan = LogicalPlanBuilder::values(rows)?.build()?;
        let relation = Relation::new(plan, None);
        let outputs = relation
            .visible()
            .enumerate()
            .map(|(i, c)| (format!("col{}", i + 1), c.typed()));
        self.projection(relation.plan.clone(), outputs.collect())
    }

    fn with(&self, ctes: &[(String, Vec<String>, Plan)], input: &Plan) -> Result<Relation> {
        let before = self.ctes.borrow().len();
        let result = (|| {
            for (name, columns, plan) in ctes {
                let relation = self.alias(self.relation(plan)?, name, columns)?;
                self.ctes.borrow_mut().push((name.clone(), relation));
            }
            self.relation(input)
        })();
        self.ctes.borrow_mut().truncate(before);
        result
    }
}
