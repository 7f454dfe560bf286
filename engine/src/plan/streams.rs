//! Joins of two streams: what bounds the state of each side, and when a row that has no partner is final.
//!
//! A pair of rows is held together by their event times, either because the condition says how far apart they may be or
//! because they are equal. From that follows how long a row can still find partners, when it may be forgotten, and by
//! how much event times above the join trail behind the watermark.

use std::collections::BTreeSet;

use datafusion::common::{Column, JoinType};
use datafusion::logical_expr::{BinaryExpr, Expr, Join, Operator};
use highwater_operators::Edge;
use highwater_operators::join::{JoinKey, JoinKind, StreamJoin, Times};
use highwater_operators::stage::Step;
use highwater_query::{all_of, can_fail, guarded};

use super::bounds::{Bound, Bounds, Side};
use super::compile::{Compiler, arrow_schema, is_streaming, physical, stage};
use super::event_time::several;
use super::held::held;
use super::join::{Condition, called, is_over, model_name};
use super::want::Want;
use super::{JoinWords, Node};
use crate::error::Error;
use crate::sink::OutputMode;

impl Compiler<'_> {
    /// A join of two streams.
    pub(super) fn streams(&mut self, join: &Join, want: Want) -> Result<Node, Error> {
        let kind = match join.join_type {
            JoinType::Inner => JoinKind::Inner,
            JoinType::Left => JoinKind::Left,
            JoinType::Right => JoinKind::Right,
            JoinType::Full => JoinKind::Full,
            JoinType::LeftSemi => JoinKind::LeftSemi,
            JoinType::LeftAnti => JoinKind::LeftAnti,
            other => {
                let name = model_name(other);
                return Err(Error::not_yet(format!("a {name} join of two streams")));
            }
        };
        let condition = Condition::of(join)?;
        let sides = [&join.left, &join.right].map(|plan| Side::of(plan));
        let is_ambiguous = |side: usize| sides[side].is_ambiguous(&condition, side);
        if self.by_model && (is_ambiguous(0) || is_ambiguous(1)) {
            return Err(several("a join of streams"));
        }
        // Rows that do not change meet late rows as well.
        let is_static = sides.iter().any(|side| !is_streaming(side.plan));
        let bounds = match is_static {
            true => Bounds::NONE,
            false => Bounds::of(&condition, &sides)?,
        };
        check(join.join_type, kind, want, &bounds)?;
        let below = want.below_state();
        let left = unordered(self.node(&join.left, below)?);
        let right = unordered(self.node(&join.right, below)?);
        let edges = [left.edge(), right.edge()];
        let appends = !edges[0].signed && !edges[1].signed;
        // Pairs of rows that stay do stay.
        let is_final = want == Want::Final || appends && !kind.keeps(0) && !kind.keeps(1);
        let in_model = is_final && kind != JoinKind::LeftAnti;
        let mut bounds = bounds;
        let late_keys = match appends {
            true => {
                bounds = bounds.by_late_keys(&sides, in_model);
                std::mem::take(&mut bounds.late_keys)
            }
            false => [None, None],
        };
        let delay_ms = bounds.delay_ms(kind, is_final, self.by_model);
        let pairs_are_late = self.by_model && kind == JoinKind::Inner && !bounds.hold_all();
        let held = match bounds.in_keys {
            true => [false, false],
            false => [0, 1].map(|side| held(&condition, kind, side, sides[side].plan.schema())),
        };
        let bounds = if is_final { bounds } else { bounds.together() };
        let keys: Vec<JoinKey> = condition.physical_keys(join)?;
        let mut eligible = [Vec::new(), Vec::new()];
        let mut rest = Vec::new();
        for part in condition.rest.iter().cloned() {
            let own = sides
                .iter()
                .position(|side| is_over(&part, side.plan.schema()));
            match own {
                Some(side) if !can_fail(&part) => eligible[side].push(part),
                _ => rest.push(part),
            }
        }
        let schema_of = |side: usize| sides[side].plan.schema();
        let one = |parts: Vec<Expr>, schema| {
            let all = all_of(parts).map(|all| physical(&[all], schema));
            Ok::<_, Error>(all.transpose()?.map(|mut all| all.remove(0)))
        };
        let asked = [0, 1].map(|side| one(eligible[side].clone(), schema_of(side)));
        let [left_asked, right_asked] = asked;
        let mut columns = BTreeSet::new();
        rest.iter()
            .for_each(|part| strict_columns(part, &mut columns));
        let mut untimed = [true, true];
        // In the model a row that comes out alone waits for a partner, also where it can have none.
        for side in [0, 1]
            .into_iter()
            .filter(|side| !kind.keeps(*side) || !in_model)
        {
            // A row with a null there has no partner: it need not be kept.
            let own = columns.iter().filter(|column| sides[side].has(column));
            let present = own.map(|column| Expr::Column(column.clone()).is_not_null());
            eligible[side].extend(present);
            // Of a range of times, and of a key unless it finds nulls, one without the time is such a row.
            let key = bounds.sides[side].as_ref().and_then(|bound| bound.of_key);
            untimed[side] = key.is_some_and(|key| condition.keys[key].2);
        }
        let times = [0, 1].map(|side| match is_static {
            true => Ok(Times::default()),
            false => {
                let late_key = late_keys[side].as_ref().map(|late| &late.time);
                self.times(&sides[side], bounds.sides[side].as_ref(), late_key)
            }
        });
        let [left_times, right_times] = times;
        let [left_eligible, right_eligible] = eligible;
        let words = JoinWords {
            kind: model_name(join.join_type),
            keys: condition.words(),
            sides: called(join),
            delay_ms,
            pairs_are_late,
            held,
            asked: [left_asked?, right_asked?],
            untimed,
        };
        let how = StreamJoin {
            name: format!("join-{}", self.joins),
            kind,
            keys,
            eligible: [
                one(left_eligible, schema_of(0))?,
                one(right_eligible, schema_of(1))?,
            ],
            condition: one(rest, &condition.both)?,
            both: arrow_schema(&condition.both),
            schema: arrow_schema(&join.schema),
            times: [left_times?, right_times?],
            is_final,
        };
        self.joins += 1;
        // Rows without a partner, and those that leave, must not wait for more rows to come.
        let waits = bounds.in_model || kind.keeps(0) || kind.keeps(1) || want == Want::Changes;
        self.evicts |= waits && how.times.iter().any(|times| times.last_match.is_some());
        how.check(&edges).map_err(|error| {
            let why = crate::error::error_chain(&error);
            Error::not_yet(format!("a join of streams with these columns ({why})"))
        })?;
        Ok(Node::Join {
            inputs: Box::new([left, right]),
            how: Box::new(how),
            words: Box::new(words),
        })
    }

    /// Which rows of a side are late, and when they are past their last match; neither where all rows are kept.
    fn times(
        &self,
        side: &Side<'_>,
        bound: Option<&Bound>,
        late_key: Option<&Expr>,
    ) -> Result<Times, Error> {
        if !self.bounded {
            return Ok(Times::default());
        }
        let schema = side.plan.schema();
        let one =
            |expr: &Expr| Ok::<_, Error>(physical(std::slice::from_ref(expr), schema)?.remove(0));
        let late = match side.first() {
            Some(column) => Some(one(&side.time_of(&column)?)?),
            None => None,
        };
        let last_match = match bound {
            Some(bound) => Some((one(&bound.time)?, bound.more_us)),
            None => None,
        };
        Ok(Times {
            late,
            last_match,
            late_key: late_key.map(one).transpose()?,
        })
    }
}

/// The rows without their places in the sources: pairs have none.
pub(super) fn unordered(node: Node) -> Node {
    match node.edge().ordered {
        true => stage(node, Step::Unorder),
        false => node,
    }
}

/// The columns that must not be null for `expr` not to be null.
pub(super) fn strict_columns(expr: &Expr, found: &mut BTreeSet<Column>) {
    match expr {
        Expr::Column(column) => {
            found.insert(column.clone());
        }
        Expr::Not(inner) => strict_columns(inner, found),
        Expr::Cast(cast) => strict_columns(&cast.expr, found),
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if op.is_numerical_operators() || op.supports_propagation() =>
        {
            let distinct = matches!(op, Operator::IsDistinctFrom | Operator::IsNotDistinctFrom);
            if !distinct {
                strict_columns(left, found);
                strict_columns(right, found);
            }
        }
        Expr::ScalarFunction(call) if is_strict(call.func.name()) => {
            call.args.iter().for_each(|arg| strict_columns(arg, found));
        }
        Expr::Case(case) => {
            if let Some(said) = guarded(case) {
                strict_columns(said, found);
            }
        }
        _ => {}
    }
}

/// Functions of ours that are null where an argument is.
fn is_strict(name: &str) -> bool {
    let name = name.strip_prefix("wrapping_").unwrap_or(name);
    ["add", "subtract", "multiply", "add_interval", "cast"].contains(&name)
}

/// Refuses what cannot come out as it is wanted.
fn check(join: JoinType, kind: JoinKind, want: Want, bounds: &Bounds) -> Result<(), Error> {
    let name = model_name(join);
    let refuse = |what: String, why: &str| {
        Err(Error::refused(
            "_LEGACY_ERROR_TEMP_3102",
            format!("{what}: {why}"),
        ))
    };
    if want == Want::All {
        return Err(Error::not_yet(
            "all rows of a join of streams in every epoch (output mode changes tells which come and leave)",
        ));
    }
    if !kind.keeps(0) && !kind.keeps(1) {
        return Ok(());
    }
    let anti =
        format!("{name} joins with a streaming DataFrame/Dataset on the right are not supported");
    if want == Want::Upserts {
        let why = "a row without a partner leaves when it finds one, and none comes in its place. Use output mode changes, or append with watermarks";
        return match kind {
            JoinKind::LeftAnti => refuse(anti, why),
            _ => refuse(
                format!(
                    "{name} join between two streaming DataFrames/Datasets is not supported in Update output mode, only in Append output mode"
                ),
                why,
            ),
        };
    }
    if want != Want::Final {
        return Ok(());
    }
    let ends = |side: usize| kind.keeps(side) && bounds.ends[side];
    let why = "when a row without a partner is final is not known. Set watermarks on both sides and say in ON how far apart their times may be, or use output mode changes";
    match kind {
        JoinKind::LeftAnti if bounds.sides[0].is_none() => refuse(anti, why),
        _ if bounds.in_keys || ends(0) || ends(1) => Ok(()),
        _ => Err(unbounded(name, why)),
    }
}

/// By how much event times trail behind the watermark where they do not follow it.
const NEVER_MS: i64 = i64::MAX / 4;

/// Refuses what would wait for the watermark for ever in append mode, and to tell late rows where they are pairs.
pub(super) fn check_trails(root: &Node, mode: OutputMode, late_rows: bool) -> Result<(), Error> {
    let mut refused = Ok(());
    root.for_each(&mut |node| {
        let waits = match node {
            Node::Aggregate { aggregation, .. } => aggregation.event_time,
            Node::Sessions { sessions, .. } => sessions.event_time,
            Node::Regroup { regroup, .. } => regroup.event_time,
            Node::Join { how, .. } => how.kind.keeps(0) || how.kind.keeps(1),
            _ => false,
        };
        let judges = match node {
            Node::Deduplicate { deduplication, .. } => deduplication.event_time.is_some(),
            Node::Join { how, .. } => how.times.iter().any(|times| times.late.is_some()),
            _ => waits,
        };
        let joins = |of: &dyn Fn(&JoinWords) -> bool| {
            let mut found = None;
            for input in node.inputs() {
                input.for_each(&mut |node| match node {
                    Node::Join { words, .. } if of(words) => found = Some(words.kind),
                    _ => {}
                });
            }
            found
        };
        let is_never = node.below_trail_ms() >= NEVER_MS;
        if mode == OutputMode::Append
            && waits
            && is_never
            && let Some(name) = joins(&|words| words.delay_ms.is_none())
        {
            refused = Err(unbounded(
                name,
                "what stands above it waits for the watermark, and rows of any time may come out of it. Set watermarks on both sides and say in ON how far apart their times may be, or use output mode changes",
            ));
        }
        if late_rows && judges && !is_never && joins(&|words| words.pairs_are_late).is_some() {
            refused = Err(Error::not_yet(
                "a table of late rows where they are pairs of a join: say in ON how far apart the times of both sides may be, or leave lateRows out (late pairs are dropped and counted)",
            ));
        }
    });
    refused
}

/// The error for a join whose condition does not say until when rows may come out.
fn unbounded(name: &str, why: &str) -> Error {
    Error::refused(
        "_LEGACY_ERROR_TEMP_3102",
        format!(
            "Stream-stream {name} join between two streaming DataFrame/Datasets is not supported without a watermark in the join keys, or a watermark on the nullable side and an appropriate range condition: {why}"
        ),
    )
}

impl Node {
    /// True if the event times of its rows do not follow the watermark.
    pub(super) fn trails_for_ever(&self) -> bool {
        self.trail_ms() >= NEVER_MS
    }

    /// By how many milliseconds the event times of its rows may trail behind the watermark.
    pub(crate) fn trail_ms(&self) -> i64 {
        let own = match self {
            Node::Join { words, .. } => words.delay_ms.unwrap_or(NEVER_MS),
            // It goes by the rows that have come out of the joins below.
            Node::Watermark { .. } => return 0,
            _ => 0,
        };
        own.saturating_add(self.below_trail_ms()).min(NEVER_MS)
    }

    /// The same of the rows that come in.
    pub(crate) fn below_trail_ms(&self) -> i64 {
        let inputs = self.inputs();
        inputs
            .iter()
            .map(|input| input.trail_ms())
            .max()
            .unwrap_or(0)
    }
}

/// What a restart compares: the columns of a side and the keys.
pub(super) fn state_words(how: &StreamJoin, words: &JoinWords, edge: &Edge) -> String {
    let columns = edge.rows.fields().iter();
    let columns = columns.map(|field| format!("{} {}", field.name(), field.data_type()));
    let columns: Vec<String> = columns.collect();
    let final_words = if how.is_final { "final" } else { "changing" };
    format!(
        "[{}] of a {final_words} {} join by [{}]",
        columns.join(", "),
        words.kind,
        words.keys.join(", ")
    )
}
