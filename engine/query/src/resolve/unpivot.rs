//! UNPIVOT: one row per column of another.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use datafusion::logical_expr::{Expr as DfExpr, Filter, LogicalPlan};

use super::Env;
use super::expression::Exprs;
use super::scope::{Relation, ScopeColumn};
use crate::coerce;
use crate::error::QueryError;
use crate::expr::{Call, Expr, lit};
use crate::functions::cast;
use crate::functions::kernel::Typed;
use crate::types::type_sql;

type Result<T> = std::result::Result<T, QueryError>;

impl Env<'_> {
    /// The columns that `columns` does not name, and beside them a row for each that it does.
    pub(super) fn unpivot(
        &self,
        input: Relation,
        values: &[String],
        name: &str,
        columns: &[(Vec<Expr>, Option<String>)],
        nulls: bool,
    ) -> Result<Relation> {
        let exprs = Exprs::over(self, &input.columns, "UNPIVOT");
        let mut rows: Vec<(String, Vec<Typed>)> = vec![];
        for (parts, alias) in columns {
            if parts.len() != values.len() {
                return Err(QueryError::new(
                    "UNPIVOT_VALUE_SIZE_MISMATCH",
                    format!(
                        "All unpivot value columns must have the same size as there are value column names ({}).",
                        values.join(", ")
                    ),
                ));
            }
            let mut names = vec![];
            let mut row = vec![];
            for part in parts {
                let value = exprs.resolve(part)?;
                let column = input.columns.iter().find(|c| c.typed().expr == value.expr);
                let Some(column) = column else {
                    return Err(QueryError::new(
                        "UNPIVOT_REQUIRES_ATTRIBUTES",
                        format!(
                            "UNPIVOT requires all given value expressions to be columns. These are not columns: [\"{}\"].",
                            exprs.text(part)
                        ),
                    ));
                };
                names.push(column.name.clone());
                row.push(value);
            }
            rows.push((alias.clone().unwrap_or_else(|| names.join("_")), row));
        }
        let used: Vec<DfExpr> = rows
            .iter()
            .flat_map(|(_, row)| row.iter().map(|value| value.expr.clone()))
            .collect();
        let types = (0..values.len()).map(|place| {
            let of_row = || rows.iter().map(|(_, row)| &row[place].data_type);
            // Nothing becomes text, and no text anything else.
            let some = || of_row().filter(|data_type| **data_type != DataType::Null);
            let texts = some()
                .filter(|data_type| **data_type == DataType::Utf8)
                .count();
            let alike = texts == 0 || texts == some().count();
            let found = coerce::wider_of_all(of_row()).filter(|_| alike);
            found.ok_or_else(|| mismatch(&rows, place))
        });
        let types: Vec<DataType> = types.collect::<Result<_>>()?;
        let kept: Vec<ScopeColumn> = input
            .visible()
            .filter(|column| !used.contains(&column.typed().expr))
            .cloned()
            .collect();
        let mut args = vec![lit(i32::try_from(rows.len()).unwrap_or(i32::MAX))];
        for (name, row) in rows {
            args.push(lit(name.as_str()));
            for (value, data_type) in row.into_iter().zip(&types) {
                let value = cast::implicit(value, data_type)?;
                args.push(Expr::Resolved(Box::new(value.expr)));
            }
        }
        let call = Call {
            name: "stack".into(),
            args,
            ..Call::default()
        };
        let (mut rows, made) = self.generate(input, &call, false, &[])?;
        let some = made
            .iter()
            .skip(1)
            .map(|value| value.typed().expr.is_not_null());
        if !nulls && let Some(some) = some.reduce(DfExpr::or) {
            rows.plan = LogicalPlan::Filter(Filter::try_new(some, rows.plan.into())?);
        }
        let mut outputs: Vec<(String, Typed)> =
            kept.iter().map(|c| (c.name.clone(), c.typed())).collect();
        let names = std::iter::once(name).chain(values.iter().map(String::as_str));
        outputs.extend(
            names
                .zip(&made)
                .map(|(name, value)| (name.to_string(), value.typed())),
        );
        let mut relation = self.projection(rows.plan, outputs)?;
        for (column, before) in relation.columns.iter_mut().zip(kept) {
            column.qualifier = before.qualifier;
        }
        Ok(relation)
    }
}

fn mismatch(rows: &[(String, Vec<Typed>)], place: usize) -> QueryError {
    let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, row) in rows {
        let found = types.entry(type_sql(&row[place].data_type)).or_default();
        found.push(format!("`{name}`"));
    }
    let types = types
        .iter()
        .map(|(found, names)| format!("\"{found}\" ({})", names.join(", ")));
    QueryError::new(
        "UNPIVOT_VALUE_DATA_TYPE_MISMATCH",
        format!(
            "Unpivot value columns must share a least common type, some types do not: [{}].",
            types.collect::<Vec<_>>().join(", ")
        ),
    )
}
