//! UNION, INTERSECT, EXCEPT and DISTINCT: rows as members of a set, in which two nulls are equal.
//!
//! INTERSECT and EXCEPT are no joins: the rows of both sides are counted together, by side, and the two counts say
//! how often a row is in the result. An engine that keeps counts up to date needs nothing else for them.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Aggregate, Distinct, Expr as DfExpr, Filter, LogicalPlan, Union};

use super::Env;
use super::scope::{Relation, ScopeColumn};
use crate::coerce;
use crate::error::QueryError;
use crate::expr::{Call, Expr};
use crate::functions::kernel::Typed;
use crate::functions::{aggregate, cast, compare};
use crate::nodes::{EXCEPT, INTERSECT};
use crate::types::type_sql;

type Result<T> = std::result::Result<T, QueryError>;

/// What the plan computes a union's input from: its rows, and its columns as the union has them.
type Aligned = (LogicalPlan, Vec<Typed>);

impl Env<'_> {
    pub(super) fn distinct(&self, input: Relation) -> Result<Relation> {
        let outputs = input.visible().map(|c| (c.name.clone(), c.typed()));
        let outputs: Vec<_> = outputs.collect();
        no_maps(&outputs)?;
        let floats = input
            .visible()
            .any(|c| compare::needs_normalizing(&c.data_type));
        let mut input = match floats {
            false => input,
            true => {
                let outputs = outputs
                    .into_iter()
                    .map(|(name, value)| Ok((name, compare::normalized(value)?)));
                let outputs = outputs.collect::<Result<_>>()?;
                self.projection(input.plan.clone(), outputs)?
            }
        };
        input.plan = LogicalPlan::Distinct(Distinct::All(Arc::new(input.plan)));
        Ok(input)
    }

    pub(super) fn union(&self, inputs: Vec<Relation>, by_name: bool) -> Result<Relation> {
        let inputs = match by_name {
            true => self.in_the_first_ones_order(inputs)?,
            false => inputs,
        };
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

    /// The inputs with the first one's columns, found by name, in its order.
    fn in_the_first_ones_order(&self, inputs: Vec<Relation>) -> Result<Vec<Relation>> {
        let mut inputs = inputs.into_iter();
        let Some(first) = inputs.next() else {
            return Ok(vec![]);
        };
        let names: Vec<String> = first.visible().map(|c| c.name.clone()).collect();
        let mut all = vec![first];
        for input in inputs {
            let found = input.visible().count();
            if found != names.len() {
                return Err(columns_differ("UNION", names.len(), found, all.len()));
            }
            let outputs = names.iter().map(|name| {
                let column = input.visible().find(|c| self.same(&c.name, name));
                let column = column.ok_or_else(|| {
                    let message = format!("Cannot resolve column name \"{name}\" among the columns of the other side of UNION BY NAME.");
                    QueryError::new("_LEGACY_ERROR_TEMP_1201", message)
                })?;
                Ok((name.clone(), column.typed()))
            });
            let outputs = outputs.collect::<Result<_>>()?;
            all.push(self.projection(input.plan.clone(), outputs)?);
        }
        Ok(all)
    }

    /// The inputs with their columns of the same types, and the names of the result.
    fn aligned(&self, what: &str, inputs: Vec<Relation>) -> Result<(Vec<Aligned>, Vec<String>)> {
        let first = inputs
            .first()
            .ok_or_else(|| QueryError::unsupported("a UNION of nothing"))?;
        let names: Vec<String> = first.visible().map(|c| c.name.clone()).collect();
        let mut types: Vec<DataType> = first.visible().map(|c| c.data_type.clone()).collect();
        for (nth, input) in inputs.iter().enumerate().skip(1) {
            let columns: Vec<_> = input.visible().collect();
            if columns.len() != types.len() {
                return Err(columns_differ(what, types.len(), columns.len(), nth));
            }
            for (i, column) in columns.iter().enumerate() {
                types[i] = coerce::wider(&types[i], &column.data_type).ok_or_else(|| {
                    let message = format!(
                        "{what} can only be performed on tables with compatible column types. The {} column of the {} table is \"{}\" type which is not compatible with \"{}\" at the same column of the first table.",
                        ordinal(i),
                        ordinal(nth),
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

    /// `left INTERSECT right` or `left EXCEPT right`; with `all`, copies count.
    pub(super) fn set_operation(
        &self,
        left: Relation,
        right: Relation,
        except: bool,
        all: bool,
    ) -> Result<Relation> {
        let what = match (except, all) {
            (true, false) => "EXCEPT",
            (true, true) => "EXCEPTALL",
            (false, false) => "INTERSECT",
            (false, true) => "INTERSECTALL",
        };
        let (inputs, names) = self.aligned(what, vec![left, right])?;
        let counts = if except { EXCEPT } else { INTERSECT };
        let (counted, keys) = self.counted(inputs, &names, counts)?;
        let count = |name: &str| DfExpr::Column(Column::new_unqualified(name));
        let (left, right) = (|| count(counts[0]), || count(counts[1]));
        let none = || DfExpr::Literal(ScalarValue::Int64(Some(0)), None);
        let condition = match (except, all) {
            (true, true) => left().gt(right()),
            (true, false) => left().gt(none()).and(right().eq(none())),
            (false, _) => left().gt(none()).and(right().gt(none())),
        };
        let copies = match (except, all) {
            (_, false) => None,
            (true, true) => Some(left() - right()),
            (false, true) => {
                let mut fewest = datafusion::logical_expr::when(left().lt(right()), left());
                Some(fewest.otherwise(right())?)
            }
        };
        let plan = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(counted))?);
        let mut relation = Relation {
            plan,
            columns: keys,
        };
        if let Some(copies) = copies {
            relation = self.copied(relation, Typed::new(copies, DataType::Int64), counts)?;
        }
        let outputs = relation.visible().zip(names);
        let outputs = outputs.map(|(c, name)| (name, c.typed())).collect();
        self.projection(relation.plan.clone(), outputs)
    }

    /// Each row that either side has, once, with the number of its copies in each.
    fn counted(
        &self,
        inputs: Vec<Aligned>,
        names: &[String],
        counts: [&str; 2],
    ) -> Result<(LogicalPlan, Vec<ScopeColumn>)> {
        let bigint = |n: i64| Typed::literal(ScalarValue::Int64(Some(n)));
        let mut keys: Vec<ScopeColumn> = vec![];
        let mut plans = vec![];
        for (nth, (plan, columns)) in inputs.into_iter().enumerate() {
            let mut outputs = vec![];
            for (i, value) in columns.into_iter().enumerate() {
                if nth == 0 {
                    no_maps(&[(names[i].clone(), value.clone())])?;
                    // Names of the plan's own, as those of the result may not be different from each other.
                    keys.push(ScopeColumn {
                        qualifier: vec![],
                        name: names[i].clone(),
                        column: Column::new_unqualified(self.fresh("key")),
                        data_type: value.data_type.clone(),
                        hidden: false,
                    });
                }
                outputs.push((keys[i].column.name.clone(), compare::normalized(value)?));
            }
            let left = i64::from(nth == 0);
            outputs.push((counts[0].to_string(), bigint(left)));
            outputs.push((counts[1].to_string(), bigint(1 - left)));
            plans.push(Arc::new(self.projection(plan, outputs)?.plan));
        }
        let both = LogicalPlan::Union(Union::try_new(plans)?);
        let group = keys.iter().map(|key| DfExpr::Column(key.column.clone()));
        let sums = counts.map(|name| {
            let column = DfExpr::Column(Column::new_unqualified(name));
            let wanted = aggregate::Wanted::of(vec![Typed::new(column, DataType::Int64)]);
            Ok(self
                .functions
                .call_aggregate("sum", wanted)?
                .expr
                .alias(name))
        });
        let sums = sums.into_iter().collect::<Result<Vec<_>>>()?;
        let aggregate = Aggregate::try_new(Arc::new(both), group.collect(), sums)?;
        Ok((LogicalPlan::Aggregate(aggregate), keys))
    }

    /// Each row as often as `copies` says.
    fn copied(&self, mut input: Relation, copies: Typed, counts: [&str; 2]) -> Result<Relation> {
        let copies = cast::explicit(copies, &DataType::Int32, false, &self.conf.time_zone)?;
        // Within reach of the generator's argument, and of no name.
        let counts = counts.map(|name| ScopeColumn {
            qualifier: vec![],
            name: name.to_string(),
            column: Column::new_unqualified(name),
            data_type: DataType::Int64,
            hidden: true,
        });
        input.columns.extend(counts);
        let resolved = |value: Typed| Expr::Resolved(Box::new(value.expr));
        let call = Call {
            name: "explode".into(),
            args: vec![Expr::call(
                "array_repeat",
                vec![crate::expr::lit(true), resolved(copies)],
            )],
            ..Call::default()
        };
        let (copied, _) = self.generate(input, &call, false, &[])?;
        Ok(copied)
    }
}

fn no_maps(columns: &[(String, Typed)]) -> Result<()> {
    for (name, value) in columns {
        if compare::groupable(value).is_err() {
            return Err(map_in_set(name, &value.data_type));
        }
    }
    Ok(())
}

/// Maps are not compared, and so are no members of a set.
pub(super) fn map_in_set(column: &str, data_type: &DataType) -> QueryError {
    let message = format!(
        "The feature is not supported: Cannot have MAP type columns in a set operation (INTERSECT, EXCEPT, etc.), but the type of column `{column}` is \"{}\".",
        type_sql(data_type)
    );
    QueryError::new("UNSUPPORTED_FEATURE.SET_OPERATION_ON_MAP_TYPE", message)
}

fn columns_differ(what: &str, first: usize, found: usize, nth: usize) -> QueryError {
    let message = format!(
        "{what} can only be performed on inputs with the same number of columns, but the first input has {first} columns and the {} input has {found} columns.",
        ordinal(nth)
    );
    QueryError::new("NUM_COLUMNS_MISMATCH", message)
}

fn ordinal(nth: usize) -> String {
    match nth {
        0 => "first".into(),
        1 => "second".into(),
        2 => "third".into(),
        more => format!("{}th", more + 1),
    }
}
