//! The columns that make rows duplicates of each other.

use std::sync::Arc;

use arrow::datatypes::DataType;

use super::Env;
use super::scope::Relation;
use super::set::map_in_set;
use crate::deduplicate::Deduplicate;
use crate::error::QueryError;

impl Env<'_> {
    /// The first row of each key of `input`: of each row as a whole, if there are no `names`.
    pub(super) fn deduplicate(
        &self,
        mut input: Relation,
        names: &[String],
        within_watermark: bool,
    ) -> Result<Relation, QueryError> {
        let mut keys: Vec<_> = Vec::new();
        for name in names {
            // A name may be that of several columns: then they all count.
            let named: Vec<_> = input
                .visible()
                .filter(|column| self.same(&column.name, name))
                .collect();
            if named.is_empty() {
                let all: Vec<&str> = input.visible().map(|c| c.name.as_str()).collect();
                let message = format!(
                    "Cannot resolve column name \"{name}\" among ({}).",
                    all.join(", ")
                );
                return Err(QueryError::new(
                    "UNRESOLVED_COLUMN_AMONG_FIELD_NAMES",
                    message,
                ));
            }
            keys.extend(named);
        }
        if names.is_empty() {
            keys.extend(input.visible());
        }
        for column in &keys {
            if matches!(column.data_type, DataType::Map(..)) {
                return Err(map_in_set(&column.name, &column.data_type));
            }
        }
        let mut columns = Vec::with_capacity(keys.len());
        for key in keys {
            if !columns.contains(&key.column) {
                columns.push(key.column.clone());
            }
        }
        input.plan = Deduplicate {
            input: Arc::new(input.plan),
            keys: columns,
            within_watermark,
            event_time: None,
        }
        .into_plan();
        Ok(input)
    }
}
