//! Joins of two streams: what bounds the state of each side, and when a row that has no partner is final.
//!
//! A pair of rows is held together by their event times, either because the condition says how far apart they may be or
//! because they are equal. From that follows how long a row can still find partners, when it may be forgotten, and by
//! how much event times above the join trail behind the watermark.

use std::collections::BTreeSet;

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Join, LogicalPlan, Operator};
use highwater_operators::Edge;
use highwater_operators::join::{JoinKey, JoinKind, StreamJoin, Times};
use highwater_operators::stage::Step;
use highwater_query::{all_of, apart, can_fail, window_end};

use super::compile::{Compiler, arrow_schema, is_streaming, physical, stage};
use super::event_time::watermarked;
use super::held::held;
use super::join::{Condition, called, is_over, model_name};
use super::moments::after_event_time;
use super::want::Want;
use super::{JoinWords, Node};
use crate::error::Error;

/// Until when the rows of one side can find partners: a time and so many microseconds more.
#[derive(Clone)]
struct Bound {
    time: Expr,
    more_us: i64,
    /// By how much that time is after the event time of its row, at most.
    after_us: i64,
}

/// What a join's condition says of event times.
struct Bounds {
    /// By side.
    sides: [Option<Bound>; 2],
    /// True if a key is event time.
    in_keys: bool,
    /// For each side, whether its rows can find no partner once the watermark of the other is far enough.
    ends: [bool; 2],
    /// For each side, a key that is event time on the other side alone.
    late_keys: [Option<LateKey>; 2],
}

/// A key that is no event time, of rows whose partners have event time there. In the model a row finds no partner once
/// the watermark has reached its key, and so its partners need not stay for it.
struct LateKey {
    time: Expr,
    partner: Bound,
}

/// By how much a time is after the event time of its row where that is not known.
const UNKNOWN_US: i64 = i64::MAX;

/// In the model a closed bound ends a millisecond later than an open one.
const CLOSED_US: i64 = 1_000;

struct Side<'a> {
    plan: &'a LogicalPlan,
    /// Which columns are event time.
    times: Vec<bool>,
}

impl Side<'_> {
    fn is_time(&self, column: &Column) -> bool {
        let index = self.plan.schema().maybe_index_of_column(column);
        index.is_some_and(|index| self.times[index])
    }

    /// By how much a column is after the event time of its row, at least and at most, if that is known.
    fn after(&self, column: &Column) -> Option<(i64, i64)> {
        let index = self.plan.schema().maybe_index_of_column(column)?;
        after_event_time(self.plan, index)
    }

    /// The same where rows are late by their event time: by how much the column is after the watermark, at least.
    fn after_watermark(&self, column: &Column) -> Option<i64> {
        let (least, _) = self.after(column)?;
        self.times.contains(&true).then_some(least)
    }

    fn has(&self, column: &Column) -> bool {
        self.plan.schema().has_column(column)
    }

    /// The event time in a column that is one: of a window, its end.
    fn time_of(&self, column: &Column) -> Result<Expr, Error> {
        let expr = Expr::Column(column.clone());
        let data_type = expr.get_type(self.plan.schema()).map_err(Error::run)?;
        match data_type {
            DataType::Struct(_) => window_end(expr, &data_type).map_err(Error::run),
            _ => Ok(expr),
        }
    }

    /// The first column that is event time.
    fn first(&self) -> Option<Column> {
        let index = self.times.iter().position(|time| *time)?;
        Some(Column::from(self.plan.schema().qualified_field(index)))
    }
}

impl Bounds {
    const NONE: Bounds = Bounds {
        sides: [None, None],
        in_keys: false,
        ends: [false, false],
        late_keys: [None, None],
    };

    fn of(condition: &Condition, sides: &[Side<'_>; 2]) -> Result<Self, Error> {
        let mut bounds = Bounds::NONE;
        for (left, right, _) in &condition.keys {
            let (Expr::Column(left), Expr::Column(right)) = (left, right) else {
                continue;
            };
            let least = [
                sides[0].after_watermark(left),
                sides[1].after_watermark(right),
            ];
            bounds.in_keys |= sides[0].is_time(left) || sides[1].is_time(right);
            bounds.in_keys |= least.iter().all(Option::is_some);
            let columns = [left, right];
            for side in [0, 1] {
                let partner = &sides[1 - side];
                if least[side].is_none() && partner.is_time(columns[1 - side]) {
                    bounds.late_keys[side] = Some(LateKey {
                        time: sides[side].time_of(columns[side])?,
                        partner: Bound {
                            time: partner.time_of(columns[1 - side])?,
                            more_us: 0,
                            after_us: 0,
                        },
                    });
                }
            }
            for (side, column) in columns.into_iter().enumerate() {
                // Late rows of the other side are dropped, so none comes that is equal.
                if let Some(least) = least[1 - side] {
                    let bound = Bound {
                        time: sides[side].time_of(column)?,
                        more_us: least.saturating_neg().max(0),
                        after_us: sides[side].after(column).map_or(0, |(_, most)| most),
                    };
                    bounds.tighten(side, bound);
                }
            }
        }
        for part in &condition.rest {
            let Some(apart) = apart(part) else {
                continue;
            };
            // The earlier row finds no partner once the others must be later than it allows.
            let (later, earlier) = match sides[1].has(&apart.later) && sides[0].has(&apart.earlier)
            {
                true => (1, 0),
                false if sides[0].has(&apart.later) && sides[1].has(&apart.earlier) => (0, 1),
                false => continue,
            };
            let closed_us = if apart.closed { CLOSED_US } else { 0 };
            let Some(least) = sides[later].after_watermark(&apart.later) else {
                continue;
            };
            bounds.ends[earlier] = true;
            let time = sides[earlier].time_of(&apart.earlier)?;
            let after = sides[earlier].after(&apart.earlier);
            // In the model rows without event time stay.
            let is_bounded =
                sides[earlier].first().is_some() && is_moment(&time, sides[earlier].plan.schema())?;
            if after.is_some() || is_bounded {
                let more_us = apart.at_most_us.saturating_add(closed_us);
                let bound = Bound {
                    time,
                    more_us: more_us.saturating_sub(least),
                    after_us: after.map_or(UNKNOWN_US, |(_, most)| most),
                };
                bounds.tighten(earlier, bound);
            }
        }
        Ok(bounds)
    }

    fn tighten(&mut self, side: usize, bound: Bound) {
        let known = &mut self.sides[side];
        if known
            .as_ref()
            .is_none_or(|known| bound.trail_us() < known.trail_us())
        {
            *known = Some(bound);
        }
    }

    /// By how many milliseconds event times above the join trail behind the watermark, if they follow it at all.
    fn delay_ms(&self) -> Option<i64> {
        let known = self.sides.iter().flatten().filter(|bound| bound.is_known());
        let trail = known.map(Bound::trail_us);
        Some(trail.max()?.max(0).saturating_add(999).div_euclid(1_000))
    }

    /// The same where rows of a side have no partner once their key is late: those of the other side go with theirs.
    fn by_late_keys(mut self) -> Self {
        for side in [0, 1] {
            if let Some(late) = &self.late_keys[side] {
                self.tighten(1 - side, late.partner.clone());
            }
        }
        self
    }

    /// The same where a row must stay as long as its partners do, because one that leaves takes its pairs along.
    fn together(self) -> Self {
        let sides = match self.sides {
            [Some(left), Some(right)] if left.is_known() && right.is_known() => {
                let both = left.more_us.saturating_add(right.more_us);
                let longer = |bound: Bound, other_us: i64| Bound {
                    more_us: bound.more_us.max(both.saturating_add(other_us)),
                    ..bound
                };
                let after = [left.after_us, right.after_us];
                [Some(longer(left, after[1])), Some(longer(right, after[0]))]
            }
            _ => [None, None],
        };
        Bounds { sides, ..self }
    }
}

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
        let sides = [&join.left, &join.right].map(|plan| Side {
            plan,
            times: watermarked(plan),
        });
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
        let mut bounds = bounds;
        let late_keys = match appends {
            true => {
                bounds = bounds.by_late_keys();
                std::mem::take(&mut bounds.late_keys)
            }
            false => [None, None],
        };
        let delay_ms = bounds.delay_ms();
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
        for side in [0, 1].into_iter().filter(|side| !kind.keeps(*side)) {
            // A row with a null there has no partner: it need not be kept.
            let mut columns = BTreeSet::new();
            rest.iter()
                .for_each(|part| strict_columns(part, &mut columns));
            let own = columns.into_iter().filter(|column| sides[side].has(column));
            let present = own.map(|column| Expr::Column(column).is_not_null());
            eligible[side].extend(present);
        }
        let times = [0, 1].map(|side| match is_static {
            true => Ok(Times::default()),
            false => {
                let late_key = late_keys[side].as_ref().map(|late| &late.time);
                self.times(&sides[side], bounds.sides[side].as_ref(), late_key)
            }
        });
        let [left_times, right_times] = times;
        let schema_of = |side: usize| sides[side].plan.schema();
        let one = |parts: Vec<Expr>, schema| {
            let all = all_of(parts).map(|all| physical(&[all], schema));
            Ok::<_, Error>(all.transpose()?.map(|mut all| all.remove(0)))
        };
        let [left_eligible, right_eligible] = eligible;
        let words = JoinWords {
            kind: model_name(join.join_type),
            keys: condition.words(),
            sides: called(join),
            delay_ms,
            held,
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
        self.evicts |= how.times.iter().any(|times| times.last_match.is_some());
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

fn is_moment(time: &Expr, schema: &DFSchema) -> Result<bool, Error> {
    let data_type = time.get_type(schema).map_err(Error::run)?;
    Ok(matches!(data_type, DataType::Timestamp(_, Some(_))))
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
        Expr::Case(_) => {
            if let Some(apart) = apart(expr) {
                found.extend([apart.later, apart.earlier]);
            }
        }
        _ => {}
    }
}

/// Functions of ours that are null where an argument is.
fn is_strict(name: &str) -> bool {
    let name = name.strip_prefix("wrapping_").unwrap_or(name);
    ["add", "subtract", "multiply", "add_interval"].contains(&name)
}

impl Bound {
    /// How long after its event time a row may still find a partner.
    fn trail_us(&self) -> i64 {
        self.more_us.saturating_add(self.after_us)
    }

    fn is_known(&self) -> bool {
        self.after_us != UNKNOWN_US
    }
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
        _ => refuse(
            format!(
                "Stream-stream {name} join between two streaming DataFrame/Datasets is not supported without a watermark in the join keys, or a watermark on the nullable side and an appropriate range condition"
            ),
            why,
        ),
    }
}

/// By how much event times trail behind the watermark where they do not follow it.
const NEVER_MS: i64 = i64::MAX / 4;

impl Node {
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
