//! Which columns an expression may name.

use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::logical_expr::{Expr as DfExpr, LogicalPlan};

use crate::error::{Place, QueryError};
use crate::functions::kernel::Typed;
use crate::functions::nested;

/// A resolved relation: its plan, and the names by which its columns are known.
#[derive(Debug, Clone)]
pub(super) struct Relation {
    pub(super) plan: LogicalPlan,
    pub(super) columns: Vec<ScopeColumn>,
}

/// A column as an expression may name it. The plan's own name for it may differ.
#[derive(Debug, Clone)]
pub(super) struct ScopeColumn {
    /// The relation's name; empty if it has none.
    pub(super) qualifier: Vec<String>,
    pub(super) name: String,
    pub(super) column: Column,
    pub(super) data_type: DataType,
    /// Reachable by its qualified name and no part of `*`: the right side's key of `USING`.
    pub(super) hidden: bool,
}

impl ScopeColumn {
    pub(super) fn typed(&self) -> Typed {
        Typed::new(DfExpr::Column(self.column.clone()), self.data_type.clone())
    }
}

impl Relation {
    /// The relation that `plan` is, its columns known by `qualifier` if given and by the plan's own ones if not.
    pub(super) fn new(plan: LogicalPlan, qualifier: Option<Vec<String>>) -> Self {
        let columns = plan.schema().iter().map(|(own, field)| ScopeColumn {
            qualifier: match (&qualifier, own) {
                (Some(given), _) => given.clone(),
                (None, Some(own)) => own.to_vec(),
                (None, None) => vec![],
            },
            name: field.name().clone(),
            column: Column::new(own.cloned(), field.name()),
            data_type: field.data_type().clone(),
            hidden: false,
        });
        let columns = columns.collect();
        Relation { plan, columns }
    }

    pub(super) fn visible(&self) -> impl Iterator<Item = &ScopeColumn> {
        self.columns.iter().filter(|c| !c.hidden)
    }
}

fn same(a: &str, b: &str, case_sensitive: bool) -> bool {
    if case_sensitive {
        a == b
    } else {
        a.eq_ignore_ascii_case(b) || a.to_lowercase() == b.to_lowercase()
    }
}

/// Whether `written` says the qualifier, or its last parts.
pub(super) fn qualifies(qualifier: &[String], written: &[String], case_sensitive: bool) -> bool {
    written.len() <= qualifier.len()
        && qualifier[qualifier.len() - written.len()..]
            .iter()
            .zip(written)
            .all(|(a, b)| same(a, b, case_sensitive))
}

/// How many of the parts of a name are its qualifier, and which column is meant.
pub(super) fn find<'s>(
    columns: &'s [ScopeColumn],
    name: &[String],
    case_sensitive: bool,
) -> Result<Option<(usize, &'s ScopeColumn)>, QueryError> {
    for qualifier in (0..name.len()).rev() {
        let matching = |c: &&ScopeColumn| {
            qualifies(&c.qualifier, &name[..qualifier], case_sensitive)
                && same(&c.name, &name[qualifier], case_sensitive)
                && (!c.hidden || qualifier > 0)
        };
        let mut found = columns.iter().filter(matching);
        if let Some(column) = found.next() {
            let others: Vec<&ScopeColumn> = found.filter(|c| c.column != column.column).collect();
            if others.is_empty() {
                return Ok(Some((qualifier, column)));
            }
            let mut names: Vec<String> = std::iter::once(column)
                .chain(others)
                .map(|c| full_name(&c.qualifier, &c.name))
                .collect();
            names.sort();
            let message = format!(
                "Reference {} is ambiguous, could be: [{}].",
                in_backticks(name),
                names.join(", ")
            );
            return Err(QueryError::new("AMBIGUOUS_REFERENCE", message));
        }
    }
    Ok(None)
}

fn full_name(qualifier: &[String], name: &str) -> String {
    let parts: Vec<String> = qualifier
        .iter()
        .map(String::as_str)
        .chain([name])
        .map(|p| format!("`{p}`"))
        .collect();
    parts.join(".")
}

pub(super) fn in_backticks(name: &[String]) -> String {
    name.iter()
        .map(|part| format!("`{part}`"))
        .collect::<Vec<_>>()
        .join(".")
}

/// The column or field that `name` says.
pub(super) fn lookup(
    columns: &[ScopeColumn],
    name: &[String],
    case_sensitive: bool,
) -> Result<Option<Typed>, QueryError> {
    let Some((qualifier, column)) = find(columns, name, case_sensitive)? else {
        return Ok(None);
    };
    let mut value = column.typed();
    for (nth, field) in name[qualifier + 1..].iter().enumerate() {
        value = nested::field(value, field, case_sensitive)
            .map_err(|e| e.taken_from(&name[qualifier..=qualifier + nth].join(".")))?;
    }
    Ok(Some(value))
}

/// The error for a name that nothing has, with those that are spelled nearly so.
pub(super) fn unknown_column(
    columns: &[ScopeColumn],
    name: &[String],
    place: Option<Place>,
) -> QueryError {
    let written = name.join(".").to_lowercase();
    let mut near: Vec<(usize, String)> = vec![];
    let one_relation = columns
        .windows(2)
        .all(|two| two[0].qualifier == two[1].qualifier);
    for column in columns.iter().filter(|c| !c.hidden) {
        let brief = one_relation && name.len() == 1;
        let known = full_name(if brief { &[] } else { &column.qualifier }, &column.name);
        let plain = if name.len() > 1 {
            known.replace('`', "")
        } else {
            column.name.clone()
        };
        let entry = (distance(&written, &plain.to_lowercase()), known);
        if !near.contains(&entry) {
            near.push(entry);
        }
    }
    near.sort();
    let name = in_backticks(name);
    let start =
        format!("A column, variable, or function parameter with name {name} cannot be resolved.");
    if near.is_empty() {
        return QueryError::new("UNRESOLVED_COLUMN.WITHOUT_SUGGESTION", start).at(place);
    }
    let near: Vec<String> = near.into_iter().take(5).map(|(_, known)| known).collect();
    let message = format!(
        "{start} Did you mean one of the following? [{}].",
        near.join(", ")
    );
    QueryError::new("UNRESOLVED_COLUMN.WITH_SUGGESTION", message).at(place)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
