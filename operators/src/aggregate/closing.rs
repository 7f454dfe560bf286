//! Event time in the key: which groups are late, which the watermark closes, and the panes of windows that overlap.
//!
//! Where event time is part of the key it is the first key, a window by its end. Row encodings compare as keys do, so the
//! groups that a watermark closes are one range at the front of the arrangement, and forgetting them is a floor. A null
//! event time sorts last: it is never late and never closed.

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use datafusion::common::exec_err;
use datafusion::physical_plan::aggregates::group_values::new_group_values;
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use super::calls::Plan;
use super::groups::{Groups, evaluate};
use crate::OperatorError;
use crate::arrangement::Arrangement;
use crate::exchange::take_rows;
use crate::keys::Codec;

type Micros = TimestampMicrosecondType;

/// Panes that are read at once.
const ROWS: usize = 8 << 10;

/// Overlapping windows, in microseconds. Rows are aggregated by panes, of which each window is made of several: the
/// first key is the end of a pane below, and of a window above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panes {
    /// From a window's start to its end.
    pub width_us: i64,
    /// From a window's start to the next one's.
    pub slide_us: i64,
    /// Where a window starts.
    pub start_us: i64,
    /// From a pane's start to its end: divides width and slide.
    pub pane_us: i64,
}

impl Panes {
    /// The number of the last pane that has ended at this moment: the first one of the grid is number zero.
    pub(crate) fn number(self, at_us: i64) -> i64 {
        let into = at_us.saturating_sub(self.start_us);
        into.div_euclid(self.pane_us).saturating_sub(1)
    }

    /// The end of a pane.
    pub(crate) fn end(self, number: i64) -> i64 {
        let panes = number.saturating_add(1);
        self.start_us
            .saturating_add(panes.saturating_mul(self.pane_us))
    }

    /// The end of the first pane that has a window which a watermark at `now_us` leaves open.
    pub(crate) fn first_open(self, now_us: i64) -> i64 {
        let earliest = now_us.saturating_sub(self.width_us).saturating_add(1);
        let into = earliest
            .saturating_sub(self.start_us)
            .rem_euclid(self.slide_us);
        let wait = if into == 0 { 0 } else { self.slide_us - into };
        let start = earliest.saturating_add(wait);
        start.saturating_add(self.pane_us)
    }

    /// The end of the last window that has a pane with this end.
    pub(crate) fn last_end(self, pane_end: i64) -> i64 {
        let start = pane_end.saturating_sub(self.pane_us);
        let into = start
            .saturating_sub(self.start_us)
            .rem_euclid(self.slide_us);
        start.saturating_sub(into).saturating_add(self.width_us)
    }

    /// The ends of the windows that have a pane with this end, ascending.
    pub(crate) fn windows(self, pane_end: i64) -> impl Iterator<Item = i64> {
        self.windows_between(pane_end, i64::MIN, i64::MAX)
    }

    /// The ends after `after_us`, and not after `until_us`, of the windows that have a pane with this end, ascending. Of
    /// the many windows of a pane a watermark closes a few: the others are not looked at.
    pub(crate) fn windows_between(
        self,
        pane_end: i64,
        after_us: i64,
        until_us: i64,
    ) -> impl Iterator<Item = i64> {
        let start = pane_end.saturating_sub(self.pane_us);
        let last = self.last_end(pane_end);
        // Every window of the pane ends after its start.
        let after = after_us.max(start);
        let back = |end: i64| last.saturating_sub(end).max(0);
        let earliest = match after < last {
            true => (back(after) - 1) / self.slide_us + 1,
            false => 0,
        };
        let latest = (back(until_us) + self.slide_us - 1) / self.slide_us;
        (latest..earliest)
            .rev()
            .map(move |back| last.saturating_sub(back.saturating_mul(self.slide_us)))
    }
}

/// Rows of one epoch under the keys that they are stored by.
pub(crate) struct Settled {
    /// Which rows, some of them several times.
    pub(crate) rows: UInt32Array,
    /// Their keys.
    pub(crate) keys: Vec<ArrayRef>,
    /// How many groups were late.
    pub(crate) late: u64,
}

/// The rows with these `keys`, late ones left out and, unless panes are what is stored, panes exploded to windows; `None`
/// if that changes nothing. `before_us` is the watermark that judges, if any does.
pub(crate) fn settle(
    plan: &Plan,
    keys: &[ArrayRef],
    before_us: Option<i64>,
) -> Result<Option<Settled>, OperatorError> {
    let by_time = plan.event_time || plan.panes.is_some();
    let Some(times) = keys.first().filter(|_| by_time) else {
        return Ok(None);
    };
    let times = micros(times)?;
    let is_late = |time: i64| before_us.is_some_and(|before| time <= before);
    let any_late = || {
        let valid = (0..times.len()).filter(|row| times.is_valid(*row));
        valid.map(|row| times.value(row)).any(is_late)
    };
    let as_panes = plan.stores_panes;
    let explode = plan.panes.filter(|_| !as_panes);
    // A pane with a late window ends before that window does.
    if explode.is_none() && !any_late() {
        return Ok(None);
    }
    let (mut rows, mut ends) = (Vec::new(), Vec::new());
    let (mut late_rows, mut late_ends) = (Vec::new(), Vec::new());
    for row in 0..times.len() {
        let mut put = |end: Option<i64>| {
            let (rows, ends) = if end.is_some_and(is_late) {
                (&mut late_rows, &mut late_ends)
            } else {
                (&mut rows, &mut ends)
            };
            rows.push(row as u32);
            ends.push(end);
        };
        match (plan.panes, times.is_valid(row)) {
            (_, false) => put(None),
            (None, true) => put(Some(times.value(row))),
            (Some(_), true) if as_panes && !is_late(times.value(row)) => {
                put(Some(times.value(row)));
            }
            (Some(panes), true) if as_panes => {
                let pane = times.value(row);
                let (late, open): (Vec<i64>, Vec<i64>) =
                    panes.windows(pane).partition(|end| is_late(*end));
                if !open.is_empty() {
                    rows.push(row as u32);
                    ends.push(Some(pane));
                }
                late_rows.extend(late.iter().map(|_| row as u32));
                late_ends.extend(late.into_iter().map(Some));
            }
            (Some(panes), true) => panes
                .windows(times.value(row))
                .for_each(|end| put(Some(end))),
        }
    }
    let (_, late) = rekeyed(keys, late_rows, late_ends)?;
    let (rows, keys) = rekeyed(keys, rows, ends)?;
    Ok(Some(Settled {
        rows,
        keys,
        late: distinct(plan, &late)?,
    }))
}

/// Rows with other first keys.
fn rekeyed(
    keys: &[ArrayRef],
    rows: Vec<u32>,
    ends: Vec<Option<i64>>,
) -> Result<(UInt32Array, Vec<ArrayRef>), OperatorError> {
    let rows = UInt32Array::from(rows);
    let ends = PrimitiveArray::<Micros>::from(ends).with_data_type(keys[0].data_type().clone());
    let mut columns: Vec<ArrayRef> = vec![std::sync::Arc::new(ends)];
    for key in &keys[1..] {
        columns.push(take(key, &rows, None)?);
    }
    Ok((rows, columns))
}

/// The rows of panes with these `keys` under the windows that end after `after_us` and not after `until_us`; `None` if
/// there are none.
fn windows_of(
    panes: Panes,
    keys: &[ArrayRef],
    after_us: i64,
    until_us: i64,
) -> Result<Option<Settled>, OperatorError> {
    let times = micros(&keys[0])?;
    let (mut rows, mut ends) = (Vec::new(), Vec::new());
    for row in (0..times.len()).filter(|row| times.is_valid(*row)) {
        for end in panes.windows_between(times.value(row), after_us, until_us) {
            rows.push(row as u32);
            ends.push(Some(end));
        }
    }
    if rows.is_empty() {
        return Ok(None);
    }
    let (rows, keys) = rekeyed(keys, rows, ends)?;
    Ok(Some(Settled {
        rows,
        keys,
        late: 0,
    }))
}

/// The keys and answers of the windows that end after `after_us` and not after `until_us`, each put together of all its
/// panes, in the order of their keys; `None` if there are none.
pub(super) fn put_together(
    plan: &Plan,
    arrangement: &Arrangement,
    panes: Panes,
    after_us: i64,
    until_us: i64,
) -> Result<Option<(Vec<ArrayRef>, usize)>, OperatorError> {
    let bound = bound(plan, until_us)?;
    let mut scan = arrangement.scan(&[], Some(&bound))?;
    let mut groups = Groups::new(plan)?;
    while let Some(chunk) = scan.next_chunk(ROWS)? {
        let keys = plan.codec.decode(chunk.keys())?;
        let Some(windows) = windows_of(panes, &keys, after_us, until_us)? else {
            continue;
        };
        let states = take_rows(chunk.values(), &windows.rows)?;
        groups.intern(&windows.keys, windows.rows.len())?;
        groups.merge_interned(plan, states.columns())?;
    }
    let count = groups.len();
    if count == 0 {
        return Ok(None);
    }
    let mut columns = groups.take_keys()?;
    let states = groups.take_states(plan)?;
    let order = UInt32Array::from(plan.codec.encode(&columns, count)?.sorted());
    columns.extend(evaluate(plan, &states)?);
    let columns = columns.iter().map(|column| Ok(take(column, &order, None)?));
    Ok(Some((
        columns.collect::<Result<_, OperatorError>>()?,
        count,
    )))
}

/// How many different keys there are.
fn distinct(plan: &Plan, keys: &[ArrayRef]) -> Result<u64, OperatorError> {
    if keys[0].is_empty() {
        return Ok(0);
    }
    let schema = arrow::datatypes::SchemaRef::clone(&plan.key_schema);
    let mut values = new_group_values(schema, &GroupOrdering::None)?;
    values.intern(keys, &mut Vec::new())?;
    Ok(values.len() as u64)
}

/// The bytes below which the keys are that a watermark closes.
pub(crate) fn bound(plan: &Plan, now_us: i64) -> Result<Vec<u8>, OperatorError> {
    bound_of(plan.key_schema.field(0).data_type().clone(), now_us)
}

/// The same for keys that start with an event time of this type.
pub(crate) fn bound_of(first: DataType, now_us: i64) -> Result<Vec<u8>, OperatorError> {
    let next = PrimitiveArray::<Micros>::from(vec![now_us.saturating_add(1)]);
    let next: ArrayRef = std::sync::Arc::new(next.with_data_type(first.clone()));
    let encoded = Codec::nulls_last(vec![first])?.encode(&[next], 1)?;
    Ok(encoded.key(0).to_vec())
}

/// Event times.
pub(crate) fn micros(times: &ArrayRef) -> Result<&PrimitiveArray<Micros>, OperatorError> {
    match times.as_primitive_opt::<Micros>() {
        Some(times) => Ok(times),
        None => exec_err!(
            "event time in a key is a timestamp in microseconds, not {}",
            times.data_type()
        )?,
    }
}

/// True if keys of this type can be event time.
pub(crate) fn is_event_time(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, _)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(width_us: i64, slide_us: i64, start_us: i64, pane_end: i64, expected: &[i64]) {
        let pane_us = (1..=slide_us)
            .rev()
            .find(|n| width_us % n == 0 && slide_us % n == 0)
            .unwrap_or(1);
        let panes = Panes {
            width_us,
            slide_us,
            start_us,
            pane_us,
        };
        assert_eq!(panes.windows(pane_end).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_pane_is_in_width_by_slide_windows() {
        check(10, 5, 0, 5, &[5, 10]);
        check(10, 5, 0, 10, &[10, 15]);
        check(6, 2, 0, 2, &[2, 4, 6]);
        check(6, 2, 0, 0, &[0, 2, 4]);
    }

    #[test]
    fn where_the_slide_does_not_divide_the_width_panes_differ_in_windows() {
        check(10, 4, 0, 2, &[2, 6, 10]);
        check(10, 4, 0, 4, &[6, 10]);
        check(10, 4, 0, 6, &[6, 10, 14]);
    }

    #[test]
    fn a_pane_is_kept_while_a_window_of_it_is_open() {
        for (width_us, slide_us, start_us, pane_us) in
            [(10, 5, 0, 5), (10, 4, 0, 2), (6, 2, 1, 2), (10, 4, -3, 2)]
        {
            let panes = Panes {
                width_us,
                slide_us,
                start_us,
                pane_us,
            };
            for now in -30..30 {
                let first = panes.first_open(now);
                for pane in (-20..20).map(|n| start_us + n * pane_us) {
                    let open = panes.windows(pane).any(|end| end > now);
                    assert_eq!(pane >= first, open, "{panes:?}, pane {pane} at {now}");
                }
            }
        }
    }

    #[test]
    fn windows_between_two_moments_are_those_of_the_pane() {
        for (width_us, slide_us, start_us, pane_us) in
            [(10, 5, 0, 5), (10, 4, 0, 2), (6, 2, 1, 2), (10, 4, -3, 2)]
        {
            let panes = Panes {
                width_us,
                slide_us,
                start_us,
                pane_us,
            };
            for pane in (-20..20).map(|n| start_us + n * pane_us) {
                let all: Vec<i64> = panes.windows(pane).collect();
                for (after, until) in (-40..40).flat_map(|a| (a - 3..a + 20).map(move |u| (a, u))) {
                    let within = all.iter().copied();
                    let within: Vec<i64> = within.filter(|e| *e > after && *e <= until).collect();
                    let found: Vec<i64> = panes.windows_between(pane, after, until).collect();
                    assert_eq!(found, within, "{panes:?}, pane {pane}, {after} to {until}");
                }
            }
        }
    }

    #[test]
    fn panes_follow_the_start_of_the_grid() {
        check(10, 5, 1, 6, &[6, 11]);
        check(10, 5, -2, 3, &[3, 8]);
    }
}
