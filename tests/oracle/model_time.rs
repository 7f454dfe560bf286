//! Operators that go by event time, told simply: groups, windows, sessions and first rows.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Asked, Boxed, Cell, Epoch, Flow, Line, Map};
use crate::model_join::TIME;
use crate::over;
use crate::reference::Grid;

pub(crate) fn map(from: Boxed, to: impl Fn(Line) -> Vec<Line> + 'static) -> Boxed {
    let to = Box::new(to);
    Box::new(Map { from, to })
}

/// Groups by so many first columns, of which the very first is event time.
pub(crate) fn groups(from: Boxed, keys: usize, calls: Vec<Call>) -> Boxed {
    Box::new(Groups {
        from,
        keys,
        calls,
        open: BTreeMap::new(),
    })
}

/// Rows once for each window that they are in by the time `at`: its end, then some of their columns.
pub(crate) fn spread(
    from: Boxed,
    grid: Grid,
    at: impl Fn(&Line) -> Option<i64> + 'static,
    columns: &'static [usize],
) -> Boxed {
    map(from, move |line| {
        let windows = at(&line).map_or_else(Vec::new, |at| grid.windows(at));
        let own = || columns.iter().map(|column| line[*column].clone());
        let one = |(_, end)| [Cell::Int(end)].into_iter().chain(own()).collect();
        windows.into_iter().map(one).collect()
    })
}

/// Windows of rows with event time: the end and so many keys, then the calls, which are over the end and `columns`.
pub(crate) fn windows(
    mut from: Boxed,
    grid: Grid,
    columns: &'static [usize],
    keys: usize,
    calls: Vec<Call>,
) -> Boxed {
    from.ask(TIME, Asked::Known);
    let rows = spread(from, grid, |line| line[TIME].int(), columns);
    groups(rows, keys, calls)
}

/// Sessions of rows of k, g, v, ts by k: k, start and end, then the calls, which are over k, start, end, g and v.
pub(crate) fn sessions(
    mut from: Boxed,
    gap: impl Fn(&Line) -> i64 + 'static,
    calls: Vec<Call>,
) -> Boxed {
    from.ask(TIME, Asked::Known);
    let alone = map(from, move |mut line| {
        let end = line[TIME].int().map(|at| at + gap(&line));
        line.insert(1, line[TIME].clone());
        line.insert(2, end.into());
        line.truncate(5);
        vec![line]
    });
    Box::new(Sessions {
        from: alone,
        calls,
        open: Vec::new(),
    })
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    Count,
    Sum(usize),
    Max(usize),
}

impl Call {
    fn of(self, rows: &[Line]) -> Cell {
        let values = |column: usize| rows.iter().map(move |row| &row[column]);
        let known = |column: usize| values(column).filter(|cell| **cell != Cell::Null);
        match self {
            Call::Count => Cell::Int(rows.len() as i64),
            Call::Sum(column) => {
                let some = known(column).next().is_some();
                let sum: i64 = known(column).filter_map(Cell::int).sum();
                some.then_some(sum).into()
            }
            Call::Max(column) => known(column).max().cloned().unwrap_or(Cell::Null),
        }
    }
}

/// Groups by the first columns, of which the very first is event time, until when a group is open.
struct Groups {
    from: Boxed,
    keys: usize,
    calls: Vec<Call>,
    open: BTreeMap<Line, Vec<Line>>,
}

impl Groups {
    fn answer(&self, key: &Line, rows: &[Line]) -> Line {
        let calls = self.calls.iter().map(|call| call.of(rows));
        key.iter().cloned().chain(calls).collect()
    }
}

impl Flow for Groups {
    fn epoch(&mut self, epoch: Epoch<'_>) -> Vec<Line> {
        let trail_us = self.trail_us();
        // Late rows are counted as groups.
        let mut late = BTreeSet::new();
        for line in self.from.epoch(epoch) {
            let key = line[..self.keys].to_vec();
            if epoch.is_late(&line[0], trail_us) {
                late.insert(key);
            } else {
                self.open.entry(key).or_default().push(line);
            }
        }
        epoch.drop_late(late.len());
        let past = |key: &&Line| key[0].int().is_some_and(|us| epoch.is_past(us, trail_us));
        let past: Vec<Line> = self.open.keys().filter(past).cloned().collect();
        let mut out = Vec::new();
        for key in past {
            let rows = self.open.remove(&key).unwrap_or_default();
            out.push(self.answer(&key, &rows));
        }
        out
    }

    fn standing(&self) -> Vec<Line> {
        self.open
            .iter()
            .map(|(key, rows)| self.answer(key, rows))
            .collect()
    }

    over!(true);
}

/// Sessions of rows with the same first column; the second and third say where the session of a row alone is.
struct Sessions {
    from: Boxed,
    calls: Vec<Call>,
    open: Vec<(Cell, i64, i64, Vec<Line>)>,
}

impl Sessions {
    fn answer(&self, (key, start, end, rows): &(Cell, i64, i64, Vec<Line>)) -> Line {
        let own = [key.clone(), Cell::Int(*start), Cell::Int(*end)];
        let calls = self.calls.iter().map(|call| call.of(rows));
        own.into_iter().chain(calls).collect()
    }
}

impl Flow for Sessions {
    fn epoch(&mut self, epoch: Epoch<'_>) -> Vec<Line> {
        let trail_us = self.trail_us();
        let mut late = BTreeSet::new();
        for line in self.from.epoch(epoch) {
            let (Some(start), Some(end)) = (line[1].int(), line[2].int()) else {
                continue;
            };
            if end <= start {
                continue;
            }
            if epoch.is_late(&line[2], trail_us) {
                late.insert(line[..3].to_vec());
                continue;
            }
            let mut own = (line[0].clone(), start, end, vec![line]);
            loop {
                let touches = |other: &(Cell, i64, i64, Vec<Line>)| {
                    other.0 == own.0 && other.1 <= own.2 && own.1 <= other.2
                };
                let Some(place) = self.open.iter().position(touches) else {
                    break;
                };
                let other = self.open.swap_remove(place);
                own = (
                    own.0,
                    own.1.min(other.1),
                    own.2.max(other.2),
                    [own.3, other.3].concat(),
                );
            }
            self.open.push(own);
        }
        epoch.drop_late(late.len());
        let (past, open): (Vec<_>, Vec<_>) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|session| epoch.is_past(session.2, trail_us));
        self.open = open;
        past.iter().map(|session| self.answer(session)).collect()
    }

    fn standing(&self) -> Vec<Line> {
        self.open
            .iter()
            .map(|session| self.answer(session))
            .collect()
    }

    over!(true);
}

/// The first row of each key.
pub(crate) struct First {
    pub(crate) from: Boxed,
    pub(crate) keys: Vec<usize>,
    /// The column that is event time.
    pub(crate) time: Option<usize>,
    /// How long after the first row of a key another one is a duplicate of it; for ever if `None`.
    pub(crate) within_us: Option<i64>,
    pub(crate) seen: BTreeMap<Line, Option<i64>>,
}

impl Flow for First {
    fn epoch(&mut self, epoch: Epoch<'_>) -> Vec<Line> {
        let trail_us = self.trail_us();
        let mut out = Vec::new();
        for line in self.from.epoch(epoch) {
            if self
                .time
                .is_some_and(|time| epoch.is_late(&line[time], trail_us))
            {
                epoch.drop_late(1);
                continue;
            }
            let key: Line = self.keys.iter().map(|key| line[*key].clone()).collect();
            if self.seen.contains_key(&key) {
                continue;
            }
            // Without a time it is one of 1970, where watermarks start.
            let at = self.time.map(|time| line[time].int().unwrap_or(0));
            let due = at.zip(self.within_us).map(|(at, within)| at + within);
            self.seen.insert(key, due);
            out.push(line);
        }
        self.seen
            .retain(|_, due| due.is_none_or(|due| !epoch.is_past(due, trail_us)));
        out
    }

    over!(true);
}
