//! What a join's condition says of event times: until when the rows of each side can find partners.

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use highwater_operators::join::JoinKind;
use highwater_query::{apart, shifted, window_end};

use super::event_time::{event_time, is_unjudged, watermarked};
use super::join::Condition;
use super::moments::after_event_time;
use crate::error::Error;

#[derive(Clone)]
pub(super) struct Bound {
    pub(super) time: Expr,
    pub(super) more_us: i64,
    /// By how much that time is after the event time of its row, at most.
    after_us: i64,
    /// The number of the key that it is.
    pub(super) of_key: Option<usize>,
}

/// What a join's condition says of event times.
pub(super) struct Bounds {
    /// By side.
    pub(super) sides: [Option<Bound>; 2],
    /// The same by the one key that decides in the model where one is event time: the first that is on the left, or
    /// else on the right.
    by_key: Option<[Option<Bound>; 2]>,
    /// True if a key is event time.
    pub(super) in_keys: bool,
    /// True if the model forgets rows by them too. It knows a time only in the column that has the watermark, and a range
    /// only where the times are compared, not where the time between them is.
    pub(super) in_model: bool,
    /// For each side, whether its rows can find no partner once the watermark of the other is far enough.
    pub(super) ends: [bool; 2],
    /// For each side, the key that decides, if it is event time on the other side alone.
    pub(super) late_keys: [Option<LateKey>; 2],
}

/// A key that is no event time, of rows whose partners have event time there. In the model a row finds no partner once
/// the watermark has reached its key, and so its partners need not stay for it.
pub(super) struct LateKey {
    pub(super) time: Expr,
    partner: Bound,
}

/// By how much a time is after the event time of its row where that is not known.
const UNKNOWN_US: i64 = i64::MAX;

/// In the model a closed bound ends a millisecond later than an open one.
const CLOSED_US: i64 = 1_000;

pub(super) struct Side<'a> {
    pub(super) plan: &'a LogicalPlan,
    /// Which columns are event time.
    times: Vec<bool>,
}

impl<'a> Side<'a> {
    pub(super) fn of(plan: &'a LogicalPlan) -> Self {
        let times = watermarked(plan);
        Side { plan, times }
    }

    /// The key that decides, if a column of this side does.
    fn deciding(&self, keys: &[[&Expr; 2]], side: usize) -> Option<usize> {
        keys.iter().position(|key| self.is_time(key[side]))
    }

    /// True if it is not known which of several event times makes rows late: of times beside each other, or where rows
    /// pair by a window and have the time that is in it as well. A window that is only looked at is none of them.
    pub(super) fn is_ambiguous(&self, condition: &Condition, side: usize) -> bool {
        let is_window = |index: &usize| {
            let data_type = self.plan.schema().field(*index).data_type();
            matches!(data_type, DataType::Struct(_))
        };
        let times = (0..self.times.len()).filter(|index| self.times[*index]);
        let (windows, moments): (Vec<usize>, Vec<usize>) = times.partition(is_window);
        let mut keys = condition
            .keys
            .iter()
            .map(|(left, right, _)| [left, right][side]);
        let by_window =
            keys.any(|key| self.index_of(key).is_some_and(|key| windows.contains(&key)));
        let several = moments.len() > 1 || by_window && windows.len() + moments.len() > 1;
        several && is_unjudged(self.plan)
    }

    fn is_time(&self, expr: &Expr) -> bool {
        let index = self.index_of(expr);
        index.is_some_and(|index| self.times[index])
    }

    fn index_of(&self, expr: &Expr) -> Option<usize> {
        let Expr::Column(column) = expr else {
            return None;
        };
        self.plan.schema().maybe_index_of_column(column)
    }

    /// By how much a column is after the event time of its row, at least and at most, if that is known.
    fn after(&self, column: &Expr) -> Option<(i64, i64)> {
        after_event_time(self.plan, self.index_of(column)?)
    }

    /// The same where rows are late by their event time: by how much the column is after the watermark, at least.
    fn after_watermark(&self, column: &Expr) -> Option<i64> {
        let (least, _) = self.after(column)?;
        self.times.contains(&true).then_some(least)
    }

    /// By how much a key is after the event time of its row, at most.
    fn key_after(&self, key: &Expr) -> Option<i64> {
        if let Some((_, most)) = self.after(key) {
            return Some(most);
        }
        let (column, (_, more)) = shifted(key)?;
        let (_, most) = self.after(&Expr::Column(column))?;
        most.checked_add(more)
    }

    pub(super) fn has(&self, column: &Column) -> bool {
        self.plan.schema().has_column(column)
    }

    /// The event time in what is one: of a window, its end.
    pub(super) fn time_of(&self, expr: &Expr) -> Result<Expr, Error> {
        let expr = expr.clone();
        let data_type = expr.get_type(self.plan.schema()).map_err(Error::run)?;
        match data_type {
            DataType::Struct(_) => window_end(expr, &data_type).map_err(Error::run),
            _ => Ok(expr),
        }
    }

    /// The column that is event time.
    pub(super) fn first(&self) -> Option<Expr> {
        let index = event_time(self.plan)?;
        let field = self.plan.schema().qualified_field(index);
        Some(Expr::Column(Column::from(field)))
    }
}

impl Bounds {
    pub(super) const NONE: Bounds = Bounds {
        sides: [None, None],
        by_key: None,
        in_keys: false,
        in_model: false,
        ends: [false, false],
        late_keys: [None, None],
    };

    pub(super) fn of(condition: &Condition, sides: &[Side<'_>; 2]) -> Result<Self, Error> {
        let mut bounds = Bounds::NONE;
        let keys = condition.keys.iter();
        let keys: Vec<[&Expr; 2]> = keys.map(|(left, right, _)| [left, right]).collect();
        let [left, right] = sides;
        let deciding = left.deciding(&keys, 0).or_else(|| right.deciding(&keys, 1));
        for (number, key) in keys.iter().enumerate() {
            let least = [0, 1].map(|side| sides[side].after_watermark(key[side]));
            bounds.in_keys |= least.iter().all(Option::is_some);
            let mut own = [None, None];
            for side in [0, 1] {
                // Late rows of the other side are dropped, so none comes that is equal.
                if let Some(least) = least[1 - side] {
                    let bound = Bound {
                        time: sides[side].time_of(key[side])?,
                        more_us: least.saturating_neg().max(0),
                        after_us: sides[side].key_after(key[side]).unwrap_or(0),
                        of_key: Some(number),
                    };
                    bounds.tighten(side, bound.clone());
                    own[side] = Some(bound);
                }
            }
            if deciding != Some(number) {
                continue;
            }
            (bounds.in_keys, bounds.in_model) = (true, true);
            bounds.by_key = Some(own);
            for side in [0, 1].into_iter().filter(|side| least[*side].is_none()) {
                bounds.late_keys[side] = Some(LateKey {
                    time: sides[side].time_of(key[side])?,
                    partner: Bound {
                        time: sides[1 - side].time_of(key[1 - side])?,
                        more_us: 0,
                        after_us: 0,
                        of_key: Some(number),
                    },
                });
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
            let [later_column, earlier_column] = [apart.later, apart.earlier].map(Expr::Column);
            let Some(least) = sides[later].after_watermark(&later_column) else {
                continue;
            };
            let time = sides[earlier].time_of(&earlier_column)?;
            let after = sides[earlier].after(&earlier_column);
            let is_time = is_moment(&time, sides[earlier].plan.schema())?;
            bounds.ends[earlier] |= is_time;
            // In the model rows without event time stay.
            let is_bounded = sides[earlier].first().is_some() && is_time;
            let compared = sides[later].is_time(&later_column) && !apart.of_difference;
            bounds.in_model |= is_bounded && compared;
            if after.is_some() || is_bounded {
                let more_us = apart.at_most_us.saturating_add(closed_us);
                let bound = Bound {
                    time,
                    more_us: more_us.saturating_sub(least),
                    after_us: after.map_or(UNKNOWN_US, |(_, most)| most),
                    of_key: None,
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

    /// By how many milliseconds event times above the join trail behind the watermark, if they follow it at all. Pairs
    /// that come at any time hold nothing up if they may be late above.
    pub(super) fn delay_ms(
        &self,
        kind: JoinKind,
        is_final: bool,
        may_be_late: bool,
    ) -> Option<i64> {
        let known = self.sides.iter().flatten().filter(|bound| bound.is_known());
        let trail = known.map(Bound::trail_us).max();
        let trail = match kind {
            JoinKind::Inner if is_final && may_be_late => trail.unwrap_or(0),
            // The rows of the left side come out, whenever they find a partner.
            JoinKind::LeftSemi | JoinKind::LeftAnti => trail.filter(|_| self.is_held(0))?,
            _ => trail.filter(|_| may_be_late || self.hold_all())?,
        };
        Some(trail.max(0).saturating_add(999).div_euclid(1_000))
    }

    /// True if no row of either side finds a partner for ever.
    pub(super) fn hold_all(&self) -> bool {
        self.is_held(0) && self.is_held(1)
    }

    fn is_held(&self, side: usize) -> bool {
        self.sides[side].as_ref().is_some_and(Bound::is_known)
    }

    /// The same of rows that only come, where the key that decides is event time on one side alone: rows of the other
    /// have no partner once their key is late, and so their partners go with them. What the model has no answer to is
    /// answered as a batch of the rows in time, so that rows with an event time are late by that alone.
    pub(super) fn by_late_keys(mut self, sides: &[Side<'_>; 2], in_model: bool) -> Self {
        let late = |side: usize| self.late_keys[side].is_some();
        let timed = |side: usize| late(side) && sides[side].first().is_some();
        if !in_model && (timed(0) || timed(1)) {
            self.late_keys = [None, None];
            return self;
        }
        if let Some(own) = self.by_key.take() {
            self.sides = own;
        }
        for side in [0, 1] {
            if let Some(late) = &self.late_keys[side] {
                self.sides[1 - side] = Some(late.partner.clone());
            }
        }
        self
    }

    /// The same where a row must stay as long as its partners do, because one that leaves takes its pairs along.
    pub(super) fn together(self) -> Self {
        let sides = match self.sides {
            [Some(left), Some(right)]
                if left.is_known() && right.is_known() && !left.is_other_key(&right) =>
            {
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

impl Bound {
    /// How long after its event time a row may still find a partner.
    fn trail_us(&self) -> i64 {
        self.more_us.saturating_add(self.after_us)
    }

    fn is_known(&self) -> bool {
        self.after_us != UNKNOWN_US
    }

    /// True if the two are of different keys, whose times need not be near each other.
    fn is_other_key(&self, other: &Bound) -> bool {
        matches!((self.of_key, other.of_key), (Some(a), Some(b)) if a != b)
    }
}

fn is_moment(time: &Expr, schema: &DFSchema) -> Result<bool, Error> {
    let data_type = time.get_type(schema).map_err(Error::run)?;
    Ok(matches!(data_type, DataType::Timestamp(_, Some(_))))
}
