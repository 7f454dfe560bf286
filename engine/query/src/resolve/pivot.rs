//! PIVOT: one column per value of another.
//!
//! The rows are aggregated by the keys and the pivot's columns first; then each value's row becomes columns.

use arrow::datatypes::DataType;
use datafusion::logical_expr::Expr as DfExpr;

use super::Env;
use super::expression::Exprs;
use super::name::{Names, output_name};
use super::scope::Relation;
use crate::error::QueryError;
use crate::expr::{Call, Expr, col};
use crate::types::type_sql;

type Result<T> = std::result::Result<T, QueryError>;

impl Env<'_> {
    pub(super) fn pivot(
        &self,
        input: Relation,
        aggregates: &[Expr],
        columns: &[Expr],
        values: &[Expr],
    ) -> Result<Relation> {
        let exprs = Exprs::over(self, &input.columns, "PIVOT");
        let resolved = columns.iter().map(|column| exprs.resolve(column));
        let resolved = resolved.collect::<Result<Vec<_>>>()?;
        let mut used: Vec<DfExpr> = resolved.into_iter().map(|value| value.expr).collect();
        for aggregate in aggregates {
            let call = match aggregate {
                Expr::Alias { expr, .. } => expr,
                other => other,
            };
            let aggregates = |e: &Expr| matches!(e, Expr::Call(c) if self.functions.is_aggregate(&c.name.to_lowercase()));
            if !call.any(&aggregates) {
                let message = format!(
                    "Aggregate expression required for pivot, but \"{}\" did not appear in any aggregate function.",
                    exprs.text(call)
                );
                return Err(QueryError::new("_LEGACY_ERROR_TEMP_1006", message));
            }
            let over_rows = Exprs {
                aggregates: Ok(()),
                ..exprs
            };
            used.push(over_rows.resolve(aggregate)?.expr);
        }
        let is_used = |column: &DfExpr| {
            let DfExpr::Column(column) = column else {
                return false;
            };
            used.iter().any(|expr| expr.column_refs().contains(column))
        };
        let keys: Vec<(String, Expr)> = input
            .visible()
            .map(|c| (c.name.clone(), c.typed().expr))
            .filter(|(_, column)| !is_used(column))
            .map(|(name, column)| (name, Expr::Resolved(Box::new(column))))
            .collect();
        let fresh = |what: &str, count: usize| -> Vec<String> {
            (0..count).map(|_| self.fresh(what)).collect()
        };
        let key_names = fresh("key", keys.len());
        let pivot_names = fresh("pivot", columns.len());
        let value_names = fresh("value", aggregates.len());
        let called = |exprs: &mut dyn Iterator<Item = Expr>, names: &[String]| -> Vec<Expr> {
            exprs
                .zip(names)
                .map(|(e, name)| e.alias(name.clone()))
                .collect()
        };
        let mut outputs = called(&mut keys.iter().map(|(_, key)| key.clone()), &key_names);
        outputs.extend(called(&mut columns.iter().cloned(), &pivot_names));
        let unnamed = |expr: &Expr| match expr {
            Expr::Alias { expr, .. } => (**expr).clone(),
            other => other.clone(),
        };
        outputs.extend(called(&mut aggregates.iter().map(unnamed), &value_names));
        let group: Vec<Expr> = keys.iter().map(|(_, key)| key.clone()).collect();
        let group = [group, columns.to_vec()].concat();
        let by_value = self.aggregate(input.clone(), &group, &outputs, None)?;
        let mut above = called(
            &mut key_names.iter().map(col),
            &keys
                .iter()
                .map(|(name, _)| name.clone())
                .collect::<Vec<_>>(),
        );
        for value in values {
            let (condition, name) = self.pivoted(&by_value, &pivot_names, value)?;
            for (aggregate, of) in aggregates.iter().zip(&value_names) {
                let call = Call {
                    name: "first".into(),
                    args: vec![col(of)],
                    filter: Some(condition.clone()),
                    ..Call::default()
                };
                let name = match aggregates.len() {
                    1 => name.clone(),
                    _ => {
                        let names = Names::unqualified(&input.columns, self.conf.case_sensitive);
                        format!("{name}_{}", output_name(aggregate, &names))
                    }
                };
                above.push(Expr::from(call).alias(name));
            }
        }
        let group: Vec<Expr> = key_names.iter().map(col).collect();
        self.aggregate(by_value, &group, &above, None)
    }

    /// Which rows have the value, and what its column is called.
    fn pivoted(&self, rows: &Relation, columns: &[String], value: &Expr) -> Result<(Expr, String)> {
        let (value, alias) = match value {
            Expr::Alias { expr, names } => (&**expr, names.first().cloned()),
            other => (other, None),
        };
        let parts = match value {
            Expr::Tuple(parts) => parts.as_slice(),
            one => std::slice::from_ref(one),
        };
        if parts.len() != columns.len() {
            let message = format!(
                "Invalid pivot value '{}': value data type does not match pivot column data type.",
                self.plain_text(value)
            );
            return Err(QueryError::new("PIVOT_VALUE_DATA_TYPE_MISMATCH", message));
        }
        let mut names = vec![];
        let mut condition: Option<Expr> = None;
        for (column, part) in columns.iter().zip(parts) {
            let constant = Exprs::over(self, &[], "PIVOT").resolve(part).ok();
            let Some(constant) = constant.filter(|value| value.expr.column_refs().is_empty())
            else {
                let message = format!(
                    "Literal expressions required for pivot values, found \"{}\".",
                    self.plain_text(part)
                );
                return Err(QueryError::new("NON_LITERAL_PIVOT_VALUES", message));
            };
            let found = rows.visible().find(|c| c.name == *column);
            let fits = found
                .is_some_and(|c| crate::coerce::wider(&c.data_type, &constant.data_type).is_some());
            if !fits {
                let message = format!(
                    "Invalid pivot value '{}': value data type \"{}\" does not match pivot column data type \"{}\".",
                    self.plain_text(part),
                    type_sql(&constant.data_type),
                    type_sql(&found.map_or(DataType::Null, |c| c.data_type.clone()))
                );
                return Err(QueryError::new("PIVOT_VALUE_DATA_TYPE_MISMATCH", message));
            }
            names.push(match part {
                Expr::Literal(crate::expr::Literal::Null, _) => "null".to_string(),
                Expr::TypedText { text, .. } => text.clone(),
                other => self.plain_text(other),
            });
            let equal = col(column).eq_null_safe(part.clone());
            condition = Some(match condition {
                None => equal,
                Some(before) => before.and(equal),
            });
        }
        let name = match names.as_slice() {
            [one] => one.clone(),
            several => format!("{{{}}}", several.join(", ")),
        };
        let condition = condition.unwrap_or_else(|| crate::expr::lit(true));
        Ok((condition, alias.unwrap_or(name)))
    }

    fn plain_text(&self, expr: &Expr) -> String {
        Exprs::over(self, &[], "PIVOT").text(expr)
    }
}
