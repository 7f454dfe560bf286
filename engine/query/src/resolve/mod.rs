//! Unresolved plans to DataFusion's, with Spark's types.

mod aggregate;
mod deduplicate;
mod expression;
mod join;
mod name;
mod observe;
mod project;
mod scope;
mod window;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::TableReference;
use datafusion::logical_expr::{
    self as df, Distinct, Expr as DfExpr, Filter, Limit, LogicalPlan, LogicalPlanBuilder, Sort,
    SubqueryAlias, Union,
};

use self::expression::Exprs;
use self::scope::Relation;
use crate::coerce;
use crate::error::{Place, QueryError};
use crate::expr::{Expr, Literal};
use crate::functions::cast::parse::Zone;
use crate::functions::kernel::Typed;
use crate::functions::{Functions, cast, compare};
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
        };
        let zone = Zone::named(&conf.time_zone).ok_or_else(|| {
            QueryError::new(
                "INVALID_TIMEZONE",
                format!("The timezone: {} is invalid.", conf.time_zone),
            )
        })?;
        Ok(zone.during(|| env.relation(plan))?.plan)
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
}

impl Env<'_> {
    /// A column name that no query can write by accident.
    fn fresh(&self, what: &str) -> String {
        let n = self.made.get();
        self.made.set(n + 1);
        format!("__{what}_{n}")
    }

    fn same(&self, a: &str, b: &str) -> bool {
        if self.conf.case_sensitive {
            a == b
        } else {
            a.eq_ignore_ascii_case(b)
        }
    }

    fn relation(&self, plan: &Plan) -> Result<Relation> {
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
            Plan::Distinct { input } => self.distinct(self.relation(input)?),
            Plan::Deduplicate {
                input,
                columns,
                within_watermark,
            } => self.deduplicate(self.relation(input)?, columns, *within_watermark),
            Plan::Sort { input, order } => self.sort(input, order),
            Plan::Limit { input, count, skip } => {
                let mut input = self.relation(input)?;
                let bound = |n: u64| {
                    let n = i64::try_from(n).unwrap_or(i64::MAX);
                    Some(Box::new(df::lit(n)))
                };
                let skip = if *skip == 0 { None } else { bound(*skip) };
                let fetch = count.and_then(bound);
                input.plan = LogicalPlan::Limit(Limit {
                    skip,
                    fetch,
                    input: Arc::new(input.plan),
                });
                Ok(input)
            }
            Plan::Join {
                left,
                right,
                kind,
                condition,
            } => self.join(
                self.relation(left)?,
                self.relation(right)?,
                *kind,
                condition,
            ),
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
            } => self.set_operation(left, right, *except, *all),
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
            } => self.lateral_view(self.relation(input)?, generator, *outer, name, columns),
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
                    "Number of column aliases does not match number of columns. Number of column aliases: {}; number of columns: {}.",
                    columns.len(),
                    outputs.len()
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

    fn filter(&self, input: Relation, condition: &Expr) -> Result<Relation> {
        let exprs = Exprs::over(self, &input.columns, "WHERE");
        self.filter_over(input.clone(), condition, exprs)
    }

    fn filter_over(
        &self,
        mut input: Relation,
        condition: &Expr,
        exprs: Exprs<'_>,
    ) -> Result<Relation> {
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
            return Err(QueryError::mismatch("FILTER_NOT_BOOLEAN", message));
        }
        let value = cast::implicit(value, &DataType::Boolean)?;
        input.plan = LogicalPlan::Filter(Filter::try_new(value.expr, Arc::new(input.plan))?);
        Ok(input)
    }

    fn distinct(&self, input: Relation) -> Result<Relation> {
        for column in input.visible() {
            if matches!(column.data_type, DataType::Map(..)) {
                return Err(QueryError::new(
                    "UNSUPPORTED_FEATURE.SET_OPERATION_ON_MAP_TYPE",
                    format!("DISTINCT over the map column {}", column.name),
                ));
            }
        }
        let floats = input
            .visible()
            .any(|c| compare::needs_normalizing(&c.data_type));
        let mut input = match floats {
            false => input,
            true => {
                let outputs = input
                    .visible()
                    .map(|c| Ok((c.name.clone(), compare::normalized(c.typed())?)));
                let outputs = outputs.collect::<Result<_>>()?;
                self.projection(input.plan.clone(), outputs)?
            }
        };
        input.plan = LogicalPlan::Distinct(Distinct::All(Arc::new(input.plan)));
        Ok(input)
    }

    /// Sort keys see the columns of the select list first, then those below it, which travel along for the sort only.
    fn sort(&self, input: &Plan, order: &[Expr]) -> Result<Relation> {
        let simple = self.relation(input)?;
        let wanted = simple.visible().count();
        let mut keys = vec![];
        let mut missing = vec![];
        for key in order {
            let (expr, ascending, nulls_first) = match key {
                Expr::Sort {
                    expr,
                    ascending,
                    nulls_first,
                } => (&**expr, *ascending, *nulls_first),
                other => (other, true, None),
            };
            let expr = match expr {
                Expr::Literal(Literal::Int(nth)) => {
                    let column = usize::try_from(*nth - 1)
                        .ok()
                        .and_then(|i| simple.visible().nth(i));
                    let Some(column) = column else {
                        let message = format!(
                            "ORDER BY position {nth} is not in select list (valid range is [1, {wanted}])."
                        );
                        return Err(QueryError::new("ORDER_BY_POS_OUT_OF_RANGE", message));
                    };
                    Ok(column.typed())
                }
                other => Exprs::over(self, &simple.columns, "ORDER BY").resolve(other),
            };
            match (expr, input) {
                (Ok(value), _) => keys.push((Ok(value), ascending, nulls_first)),
                (Err(_), Plan::Project { .. } | Plan::Aggregate { .. }) => {
                    let name = self.fresh("sort");
                    let Expr::Sort { expr, .. } = key.clone().asc_unless_sorted() else {
                        continue;
                    };
                    missing.push(expr.alias(name.clone()));
                    keys.push((Err(name), ascending, nulls_first));
                }
                (Err(error), _) => return Err(error),
            }
        }
        let inner = match (missing.is_empty(), input) {
            (false, Plan::Project { input, outputs }) => {
                let outputs = outputs.iter().chain(&missing).cloned().collect();
                self.relation(&Plan::Project {
                    input: input.clone(),
                    outputs,
                })?
            }
            (
                false,
                Plan::Aggregate {
                    input,
                    keys,
                    outputs,
                    having,
                },
            ) => {
                let (keys, having) = (keys.clone(), having.clone());
                let outputs = outputs.iter().chain(&missing).cloned().collect();
                self.relation(&Plan::Aggregate {
                    input: input.clone(),
                    keys,
                    outputs,
                    having,
                })?
            }
            _ => simple,
        };
        let keys = keys.into_iter().map(|(key, ascending, nulls_first)| {
            let value = match key {
                Ok(value) => value,
                Err(name) => Exprs::over(self, &inner.columns, "ORDER BY")
                    .resolve(&crate::expr::col(name))?,
            };
            compare::orderable(&value)?;
            Ok(compare::sort_by(value, ascending, nulls_first))
        });
        let expr = keys.collect::<Result<Vec<_>>>()?;
        let plan = LogicalPlan::Sort(Sort {
            expr,
            input: Arc::new(inner.plan),
            fetch: None,
        });
        if missing.is_empty() {
            return Ok(Relation {
                plan,
                columns: inner.columns,
            });
        }
        let outputs = inner
            .columns
            .iter()
            .filter(|c| !c.hidden)
            .take(wanted)
            .map(|c| (c.name.clone(), c.typed()));
        self.projection(plan, outputs.collect())
    }

    fn union(&self, inputs: Vec<Relation>, by_name: bool) -> Result<Relation> {
        if by_name {
            return Err(QueryError::unsupported("UNION BY NAME"));
        }
        let (inputs, names) = self.aligned("UNION", inputs)?;
        let plans = inputs
            .into_iter()
            .map(|(plan, columns)| {
                let outputs = names.iter().cloned().zip(columns).collect();
                Ok(Arc::new(self.projection(plan, outputs)?.plan))
            })
            .collect::<Result<Vec<_>>>()?;
        let union = LogicalPlan::Union(Union::try_new(plans)?);
        Ok(Relation::new(union, None))
    }

    /// The inputs with their columns of the same types, and the names of the result.
    #[expect(
        clippy::type_complexity,
        reason = "plans with their columns, and the columns' names"
    )]
    fn aligned(
        &self,
        what: &str,
        inputs: Vec<Relation>,
    ) -> Result<(Vec<(LogicalPlan, Vec<Typed>)>, Vec<String>)> {
        let first = inputs
            .first()
            .ok_or_else(|| QueryError::unsupported("a UNION of nothing"))?;
        let names: Vec<String> = first.visible().map(|c| c.name.clone()).collect();
        let mut types: Vec<DataType> = first.visible().map(|c| c.data_type.clone()).collect();
        for (nth, input) in inputs.iter().enumerate().skip(1) {
            let columns: Vec<_> = input.visible().collect();
            if columns.len() != types.len() {
                let ordinal = ["first", "second", "third"]
                    .get(nth)
                    .copied()
                    .unwrap_or("next");
                let message = format!(
                    "{what} can only be performed on inputs with the same number of columns, but the first input has {} columns and the {ordinal} input has {} columns.",
                    types.len(),
                    columns.len()
                );
                return Err(QueryError::new("NUM_COLUMNS_MISMATCH", message));
            }
            for (i, column) in columns.iter().enumerate() {
                types[i] = coerce::wider(&types[i], &column.data_type).ok_or_else(|| {
                    let message = format!(
                        "{what} can only be performed on tables with compatible column types. The {}th column of the input {nth} is \"{}\" type which is not compatible with \"{}\".",
                        i + 1,
                        type_sql(&column.data_type),
                        type_sql(&types[i])
                    );
                    QueryError::new("INCOMPATIBLE_COLUMN_TYPE", message)
                })?;
            }
        }
        let inputs = inputs.into_iter().map(|input| {
            let columns = input
                .visible()
                .zip(&types)
                .map(|(c, t)| cast::implicit(c.typed(), t));
            let columns = columns.collect::<Result<_>>()?;
            Ok((input.plan, columns))
        });
        Ok((inputs.collect::<Result<_>>()?, names))
    }

    fn set_operation(
        &self,
        left: &Plan,
        right: &Plan,
        except: bool,
        all: bool,
    ) -> Result<Relation> {
        let _ = (left, right);
        let what = if except { "EXCEPT" } else { "INTERSECT" };
        Err(QueryError::unsupported(format!(
            "{what}{}",
            if all { " ALL" } else { "" }
        )))
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

impl Expr {
    fn asc_unless_sorted(self) -> Expr {
        if matches!(self, Expr::Sort { .. }) {
            self
        } else {
            self.asc()
        }
    }
}
