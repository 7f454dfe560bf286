//! Joins in a plan: keys, conditions, and what each side is.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::{DFSchema, JoinType, NullEquality};
use datafusion::logical_expr::{Expr, Join, LogicalPlan};
use highwater_operators::join::{JoinKey, Keep, Lookup, Table, owned};
use highwater_query::{all_of, as_written, can_fail, conjuncts, equality, names_ours, written};

use super::Node;
use super::compile::{Compiler, arrow_schema, is_streaming, physical};
use super::want::Want;
use crate::error::Error;

/// What a join asks of a pair.
pub(super) struct Condition {
    /// Left and right expressions that must be equal, and whether two nulls are.
    pub(super) keys: Vec<(Expr, Expr, bool)>,
    /// What else must hold, over both sides.
    pub(super) rest: Vec<Expr>,
    /// The columns of both sides.
    pub(super) both: DFSchema,
}

impl Condition {
    pub(super) fn of(join: &Join) -> Result<Self, Error> {
        let (left, right) = (join.left.schema(), join.right.schema());
        let both = left.join(right).map_err(Error::run)?;
        let null_safe = join.null_equality == NullEquality::NullEqualsNull;
        let on = join.on.iter();
        let mut keys: Vec<_> = on.map(|(l, r)| (l.clone(), r.clone(), null_safe)).collect();
        let mut rest = Vec::new();
        let parts: Vec<Expr> = join.filter.iter().flat_map(conjuncts).collect();
        // A key is made of every row: what can fail must not be where a condition may keep rows from it.
        let may_fail = [left, right].map(|side| !parts.iter().any(|part| is_over(part, side)));
        for part in parts {
            match key(&part, [left, right], may_fail) {
                Some(found) => keys.push(found),
                None => rest.push(part),
            }
        }
        if join.null_aware {
            // NOT IN: a pair counts where it cannot be told that the values differ. No key can find such pairs.
            for (left, right, _) in keys.drain(..) {
                rest.push(left.eq(right).is_not_false());
            }
        }
        Ok(Condition { keys, rest, both })
    }

    pub(super) fn physical_keys(&self, join: &Join) -> Result<Vec<JoinKey>, Error> {
        let one = |expr: &Expr, schema: &DFSchema| {
            Ok::<_, Error>(physical(std::slice::from_ref(expr), schema)?.remove(0))
        };
        let key = |(left, right, null_safe): &(Expr, Expr, bool)| {
            Ok(JoinKey {
                left: one(left, join.left.schema())?,
                right: one(right, join.right.schema())?,
                null_safe: *null_safe,
            })
        };
        self.keys.iter().map(key).collect()
    }

    pub(super) fn words(&self) -> Vec<String> {
        let word = |(left, right, null_safe): &(Expr, Expr, bool)| {
            let equals = if *null_safe { "<=>" } else { "=" };
            format!("{left} {equals} {right}")
        };
        self.keys.iter().map(word).collect()
    }
}

/// The sides of an equality that a key can stand for: one over each side, and none that can fail where that may not be.
fn key(part: &Expr, sides: [&DFSchema; 2], may_fail: [bool; 2]) -> Option<(Expr, Expr, bool)> {
    let (a, b, null_safe) = equality(part)?;
    let stands = |expr: &Expr, side: usize| {
        is_over(expr, sides[side]) && (may_fail[side] || !can_fail(expr))
    };
    if stands(a, 0) && stands(b, 1) {
        return Some((a.clone(), b.clone(), null_safe));
    }
    if stands(b, 0) && stands(a, 1) {
        return Some((b.clone(), a.clone(), null_safe));
    }
    None
}

/// True if the expression needs columns of this side, and no others.
pub(super) fn is_over(expr: &Expr, side: &DFSchema) -> bool {
    let columns = expr.column_refs();
    !columns.is_empty() && columns.iter().all(|column| side.has_column(column))
}

impl Compiler<'_> {
    pub(super) fn join(&mut self, join: &Join, want: Want) -> Result<Node, Error> {
        match (is_streaming(&join.left), is_streaming(&join.right)) {
            (true, false) => self.lookup(join, true, want),
            (false, true) => self.lookup(join, false, want),
            _ => self.streams(join, want),
        }
    }

    /// A join of a stream with static rows that come out by what the stream has for all of them: they become rows of a
    /// stream that has them in its first epoch.
    fn static_rows_kept(
        &mut self,
        join: &Join,
        stream_left: bool,
        want: Want,
    ) -> Result<Node, Error> {
        // A row that has a partner keeps it.
        let is_final = join.join_type == JoinType::LeftSemi;
        match want {
            Want::Final | Want::Upserts if !is_final => {
                Err(static_side(join.join_type, stream_left))
            }
            _ => self.streams(join, want),
        }
    }

    /// A join of a stream with static rows.
    fn lookup(&mut self, join: &Join, stream_left: bool, want: Want) -> Result<Node, Error> {
        let Some(keep) = keep(join, stream_left) else {
            return self.static_rows_kept(join, stream_left, want);
        };
        let condition = Condition::of(join)?;
        let (stream, table): (&LogicalPlan, &LogicalPlan) = if stream_left {
            (&join.left, &join.right)
        } else {
            (&join.right, &join.left)
        };
        let keys = condition.physical_keys(join)?;
        let names = names_of(table);
        let mut rows = self.read_static(table, false)?;
        let place = self.statics.spread();
        let spread = !keys.is_empty() && place.parts(&rows);
        if spread {
            rows = owned(&rows, &keys, stream_left, &place.workers, place.peers)
                .map_err(Error::run)?;
        }
        let table = Table::new(rows, &keys, stream_left).map_err(Error::run)?;
        let rest = all_of(condition.rest.clone());
        let rest = rest.map(|rest| physical(&[rest], &condition.both));
        let both: SchemaRef = arrow_schema(&condition.both);
        let input = self.node(stream, want)?;
        Ok(Node::Lookup {
            input: Box::new(input),
            how: Box::new(Lookup {
                keep,
                stream_left,
                condition: rest.transpose()?.map(|mut rest| rest.remove(0)),
                both,
                schema: arrow_schema(&join.schema),
                table: Arc::new(table),
                spread,
            }),
            keys,
            sides: called(join),
            table: names,
        })
    }
}

/// What the columns of static rows are called in the query.
pub(super) fn names_of(plan: &LogicalPlan) -> Vec<String> {
    let width = plan.schema().fields().len();
    (0..width).map(|index| name_of(plan, index)).collect()
}

fn name_of(plan: &LogicalPlan, index: usize) -> String {
    let name = plan.schema().field(index).name();
    if !name.starts_with("__") {
        return name.clone();
    }
    let of = |expr: &Expr, input: &LogicalPlan| match expr.clone().unalias() {
        Expr::Column(column) => match input.schema().maybe_index_of_column(&column) {
            Some(index) => name_of(input, index),
            None => as_written(name).to_string(),
        },
        other => written(&other),
    };
    match plan {
        LogicalPlan::Projection(projection) => of(&projection.expr[index], &projection.input),
        LogicalPlan::Aggregate(aggregate) => match aggregate.group_expr.get(index) {
            Some(key) => of(key, &aggregate.input),
            None => as_written(name).to_string(),
        },
        LogicalPlan::SubqueryAlias(_) | LogicalPlan::Filter(_) | LogicalPlan::Distinct(_) => {
            name_of(plan.inputs()[0], index)
        }
        _ => as_written(name).to_string(),
    }
}

/// What the sides of a join are called in the query.
pub(super) fn called(join: &Join) -> [String; 2] {
    fn name<'p>(side: &'p LogicalPlan, otherwise: &'p str) -> &'p str {
        match side {
            LogicalPlan::Filter(filter) => name(&filter.input, otherwise),
            LogicalPlan::SubqueryAlias(alias) if !names_ours(alias.alias.table()) => {
                alias.alias.table()
            }
            _ => otherwise,
        }
    }
    let sides = [(&join.left, "left"), (&join.right, "right")];
    sides.map(|(side, otherwise)| name(side, otherwise).to_string())
}

/// Which rows a join of a stream with static rows lets out, if it goes by one row of the stream at a time.
pub(super) fn keep(join: &Join, stream_left: bool) -> Option<Keep> {
    match (join.join_type, stream_left) {
        (JoinType::Inner, _) => Some(Keep::Pairs),
        (JoinType::Left, true) | (JoinType::Right, false) => Some(Keep::All),
        (JoinType::LeftSemi, true) | (JoinType::RightSemi, false) => Some(Keep::Matched),
        (JoinType::LeftAnti, true) | (JoinType::RightAnti, false) => Some(Keep::Unmatched),
        (JoinType::LeftMark, true) | (JoinType::RightMark, false) if !join.null_aware => {
            Some(Keep::Marked)
        }
        _ => None,
    }
}

/// A static side whose rows would have to come out when it is known that no row of the stream matches them: never.
fn static_side(kind: JoinType, stream_left: bool) -> Error {
    let (class, name) = ("_LEGACY_ERROR_TEMP_3102", model_name(kind));
    let what = match (kind, stream_left) {
        (JoinType::Right, true) => format!(
            "{name} join with a streaming DataFrame/Dataset on the left and a static DataFrame/DataSet on the right not supported"
        ),
        (JoinType::Full, true) => format!(
            "{name} joins with streaming DataFrames/Datasets on the left and a static DataFrame/Dataset on the right is not supported"
        ),
        (JoinType::Full, false) => format!(
            "{name} joins with streaming DataFrames/Datasets on the right and a static DataFrame/Dataset on the left is not supported"
        ),
        (JoinType::LeftAnti, false) => format!(
            "{name} joins with a streaming DataFrame/Dataset on the right are not supported"
        ),
        (_, false) => format!(
            "{name} join with a streaming DataFrame/Dataset on the right and a static DataFrame/Dataset on the left is not supported"
        ),
        _ => return Error::not_yet(format!("a {name} join of a stream with static rows")),
    };
    let why = "whether a static row has a partner is never final, as the stream goes on. Preserve the stream's rows instead, use an inner join, or output mode complete or changes";
    Error::refused(class, format!("{what}: {why}"))
}

/// The model's name of a kind of join.
pub(super) fn model_name(kind: JoinType) -> &'static str {
    match kind {
        JoinType::Inner => "Inner",
        JoinType::Left => "LeftOuter",
        JoinType::Right => "RightOuter",
        JoinType::Full => "FullOuter",
        JoinType::LeftSemi | JoinType::RightSemi => "LeftSemi",
        JoinType::LeftAnti | JoinType::RightAnti => "LeftAnti",
        JoinType::LeftMark | JoinType::RightMark => "Existence",
    }
}
