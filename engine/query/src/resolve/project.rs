//! Select lists: stars, names, and generators, which make rows.

use std::sync::Arc;

use datafusion::common::{Column, NullHandling, TableReference, UnnestOptions};
use datafusion::logical_expr::{
    Expr as DfExpr, Filter, LogicalPlan, LogicalPlanBuilder, Projection, lit,
};

use super::Env;
use super::expression::Exprs;
use super::name::{Names, output_name};
use super::scope::{Relation, ScopeColumn};
use super::subquery::{Subqueries, has_subquery};
use crate::error::QueryError;
use crate::expr::{Call, Expr};
use crate::functions::interval::{has_calendar_interval, plain_days};
use crate::functions::kernel::Typed;
use crate::functions::{self, generator};

type Result<T> = std::result::Result<T, QueryError>;

/// A column to be made: its name and value.
type Output = (String, Typed);

impl Env<'_> {
    /// The relation with just these columns. Equal names are kept apart by a qualifier that no query can write.
    pub(super) fn projection(&self, input: LogicalPlan, outputs: Vec<Output>) -> Result<Relation> {
        let names: Vec<String> = outputs.iter().map(|(name, _)| name.clone()).collect();
        let twice = |name: &String| names.iter().filter(|n| *n == name).count() > 1;
        let mut columns = vec![];
        let mut exprs = vec![];
        for (name, value) in outputs {
            let relation = twice(&name).then(|| TableReference::bare(self.fresh("same")));
            let plain =
                matches!(&value.expr, DfExpr::Column(c) if c.relation.is_none() && c.name == name);
            exprs.push(match &relation {
                None if plain => value.expr,
                None => value.expr.alias(name.clone()),
                Some(relation) => value
                    .expr
                    .alias_qualified(Some(relation.clone()), name.clone()),
            });
            columns.push(ScopeColumn {
                qualifier: vec![],
                column: Column::new(relation, name.clone()),
                name,
                data_type: value.data_type,
                hidden: false,
            });
        }
        let plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?);
        Ok(Relation { plan, columns })
    }

    pub(super) fn project(&self, input: Relation, outputs: &[Expr]) -> Result<Relation> {
        let is_aggregate = |e: &Expr| matches!(e, Expr::Call(c) if c.over.is_none() && self.functions.is_aggregate(&c.name.to_lowercase()));
        if outputs.iter().any(|output| output.any(&is_aggregate)) {
            return self.aggregate(input, &[], outputs, None);
        }
        self.with_windows(input, outputs.iter(), |input| {
            self.project_rows(input, outputs)
        })
    }

    fn project_rows(&self, input: Relation, outputs: &[Expr]) -> Result<Relation> {
        let outputs: Vec<Expr> = match outputs.iter().any(has_subquery) {
            // What is asked for elsewhere does not change a column's name.
            true => outputs
                .iter()
                .map(|output| self.with_name(&input, output))
                .collect(),
            false => outputs.to_vec(),
        };
        let (input, outputs) = self.with_operands(input, &outputs)?;
        let input = match outputs.iter().any(has_subquery) {
            true => self.renamed(input)?,
            false => input,
        };
        let (input, outputs) = self.generators(input, &outputs)?;
        let aliases = named(&outputs);
        let mut resolved: Vec<Output> = vec![];
        for (i, output) in outputs.iter().enumerate() {
            // A name that no column has may be that of an expression further left.
            let exprs = Exprs {
                aliases: &aliases[..aliases.len().min(i)],
                over: Ok(()),
                subqueries: Subqueries::OfRows,
                ..Exprs::over(self, &input.columns, "SELECT")
            };
            resolved.extend(self.output(exprs, output)?);
        }
        let (plan, resolved) = self.windowed(input.plan, resolved)?;
        self.projection(plan, resolved)
    }

    /// The item of a select list under the name that its column has.
    fn with_name(&self, input: &Relation, output: &Expr) -> Expr {
        if matches!(output, Expr::Alias { .. } | Expr::Star { .. })
            || generator_call(output).is_some()
        {
            return output.clone();
        }
        let names = Names::unqualified(&input.columns, self.conf.case_sensitive);
        let name = output_name(&self.told(&input.columns, output), &names);
        output.clone().alias(name)
    }

    /// The columns that one item of a select list makes.
    pub(super) fn output(&self, exprs: Exprs<'_>, output: &Expr) -> Result<Vec<Output>> {
        if let Expr::Star { .. } = output {
            return exprs.star(output);
        }
        if let Expr::Alias { names, .. } = output
            && names.len() != 1
        {
            return Err(QueryError::unsupported("several names for one column"));
        }
        let names = Names::unqualified(exprs.columns, self.conf.case_sensitive);
        let name = output_name(output, &names);
        let value = exprs.resolve(output).map_err(|error| {
            let nested = "nested in expressions";
            if error.class() != Some("UNSUPPORTED_GENERATOR.NESTED_IN_EXPRESSIONS") {
                return error;
            }
            if let Some(call) = generator_call(output) {
                let name = call.name.to_lowercase();
                return QueryError::unsupported(format!(
                    "{name} in the select list of an aggregation (aggregate in a subquery, and select {name} from it)"
                ))
                .at(error.place());
            }
            let whole = match output {
                Expr::Alias { expr, .. } => exprs.text(expr),
                other => exprs.text(other),
            };
            let message = error
                .message()
                .replace(nested, &format!("{nested} \"{whole}\""));
            let class = error.class().unwrap_or_default();
            QueryError::new(class, message).at(error.place())
        })?;
        let value = plain_days(value);
        if has_calendar_interval(&value.data_type) {
            return Err(QueryError::unsupported(
                "an interval of these units as a column",
            ));
        }
        Ok(vec![(name, value)])
    }

    pub(super) fn with_columns(
        &self,
        input: Relation,
        columns: &[(String, Expr)],
    ) -> Result<Relation> {
        let mut outputs: Vec<Expr> = vec![];
        let mut added: Vec<&(String, Expr)> = columns.iter().collect();
        for column in input.visible() {
            let replaced = added
                .iter()
                .position(|(name, _)| self.same(name, &column.name));
            outputs.push(match replaced {
                Some(i) => {
                    let (name, value) = added.remove(i);
                    value.clone().alias(name.clone())
                }
                None => Expr::Resolved(Box::new(column.typed().expr)).alias(column.name.clone()),
            });
        }
        outputs.extend(
            added
                .into_iter()
                .map(|(name, value)| value.clone().alias(name.clone())),
        );
        self.project(input, &outputs)
    }

    /// Makes the rows of the generators in a select list, one after the other, and puts columns in their places.
    fn generators(&self, input: Relation, outputs: &[Expr]) -> Result<(Relation, Vec<Expr>)> {
        let (mut relation, mut replaced) = (input, Vec::with_capacity(outputs.len()));
        for output in outputs {
            let Some(call) = generator_call(output) else {
                replaced.push(output.clone());
                continue;
            };
            let names = match output {
                Expr::Alias { names, .. } => names.as_slice(),
                _ => &[],
            };
            let (generated, made) = self.generate(relation, call, false, names)?;
            relation = generated;
            // Within reach of what stands in the generator's place, and of no name.
            relation.columns.extend(
                made.iter()
                    .cloned()
                    .map(|c| ScopeColumn { hidden: true, ..c }),
            );
            replaced.extend(
                made.into_iter()
                    .map(|c| Expr::Resolved(Box::new(c.typed().expr)).alias(c.name)),
            );
        }
        Ok((relation, replaced))
    }

    /// The relation with the generator's rows joined to each of its rows, and the generator's columns, which are not
    /// yet among the relation's.
    pub(super) fn generate(
        &self,
        input: Relation,
        call: &Call,
        outer: bool,
        names: &[String],
    ) -> Result<(Relation, Vec<ScopeColumn>)> {
        let exprs = Exprs::over(self, &input.columns, "a generator");
        let args = call
            .args
            .iter()
            .map(|a| exprs.resolve(a))
            .collect::<Result<Vec<_>>>()
            .map_err(|e| e.at(call.place))?;
        let of_column = match args.as_slice() {
            [arg] if matches!(arg.expr, DfExpr::Column(_)) && call.name != generator::RANGE => {
                Some(arg.clone())
            }
            _ => None,
        };
        let made =
            generator::build(&call.name.to_lowercase(), args).map_err(|e| e.at(call.place))?;
        let outer = outer || made.outer;
        if !names.is_empty() && names.len() != made.columns.len() {
            let message = format!(
                "The number of aliases supplied in the AS clause does not match the number of columns output by the UDTF. Expected {} aliases, but got {}.",
                made.columns.len(),
                names.join(",")
            );
            return Err(QueryError::new("UDTF_ALIAS_NUMBER_MISMATCH", message).at(call.place));
        }
        let mut plan = input.plan;
        if let (false, Some(of)) = (outer, of_column)
            && let Some(size) = functions::scalar("array_size", vec![of], self.conf)?
        {
            // A row of which nothing is made falls out here, below a watermark too, as in the model.
            let some = size.expr.gt(lit(0i32));
            plan = LogicalPlan::Filter(Filter::try_new(some, Arc::new(plan))?);
        }
        // Below the unnest: all columns as they are, and the lists side by side.
        let mut below: Vec<DfExpr> = input
            .columns
            .iter()
            .map(|c| DfExpr::Column(c.column.clone()))
            .collect();
        let mut lists = vec![];
        for list in made.lists {
            let name = self.fresh(match call.name == generator::GROUPINGS {
                true => "groupings",
                false => "list",
            });
            below.push(list.expr.alias(name.clone()));
            lists.push(Column::new_unqualified(name));
        }
        let projected = LogicalPlan::Projection(Projection::try_new(below, Arc::new(plan))?);
        let null_handling = if outer {
            NullHandling::PreserveAndExpandEmpty
        } else {
            NullHandling::Drop
        };
        let options = UnnestOptions {
            null_handling,
            recursions: vec![],
        };
        let unnested = LogicalPlanBuilder::from(projected)
            .unnest_columns_with_options(lists.clone(), options)?
            .build()?;
        // Above it: all columns again, and the generator's columns taken from the elements.
        let mut above: Vec<DfExpr> = input
            .columns
            .iter()
            .map(|c| DfExpr::Column(c.column.clone()))
            .collect();
        let mut columns = vec![];
        for (i, (default, element, pick)) in made.columns.into_iter().enumerate() {
            let list = DfExpr::Column(lists[element.list].clone());
            let value = pick(Typed::new(list, element.data_type))?;
            let made_name = self.fresh("made");
            above.push(value.expr.alias(made_name.clone()));
            columns.push(ScopeColumn {
                qualifier: vec![],
                name: names.get(i).cloned().unwrap_or(default),
                column: Column::new_unqualified(made_name),
                data_type: value.data_type,
                hidden: false,
            });
        }
        let plan = LogicalPlan::Projection(Projection::try_new(above, Arc::new(unnested))?);
        Ok((
            Relation {
                plan,
                columns: input.columns,
            },
            columns,
        ))
    }

    pub(super) fn lateral_view(
        &self,
        input: Relation,
        view: &Expr,
        outer: bool,
        name: Option<&str>,
        names: &[String],
    ) -> Result<Relation> {
        let (input, view) = self.with_operands(input, std::slice::from_ref(view))?;
        let Some(call) = view.first().and_then(generator_call) else {
            return Err(QueryError::new(
                "UNSUPPORTED_GENERATOR.NOT_GENERATOR",
                match view.first() {
                    Some(Expr::Call(call)) => format!(
                        "The generator is not supported: `{}` is expected to be a generator, such as explode.",
                        call.name.to_lowercase()
                    ),
                    _ => "LATERAL VIEW needs a generator such as explode".into(),
                },
            ));
        };
        let (mut relation, made) = self.generate(input, call, outer, names)?;
        let qualifier: Vec<String> = name.iter().map(|name| name.to_string()).collect();
        relation
            .columns
            .extend(made.into_iter().map(|c| ScopeColumn {
                qualifier: qualifier.clone(),
                ..c
            }));
        self.without_operands(relation)
    }
}

/// The generator that an item of a select list is.
pub(super) fn generator_call(output: &Expr) -> Option<&Call> {
    match output {
        Expr::Alias { expr, .. } => generator_call(expr),
        Expr::Call(call) if functions::is_generator(&call.name.to_lowercase()) => Some(call),
        _ => None,
    }
}

/// The names that a select list gives, with what they name.
pub(super) fn named(outputs: &[Expr]) -> Vec<(String, Expr)> {
    outputs
        .iter()
        .map(|output| match output {
            Expr::Alias { expr, names } if names.len() == 1 => (names[0].clone(), (**expr).clone()),
            other => (String::new(), other.clone()),
        })
        .collect()
}
