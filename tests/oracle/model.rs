//! Event time told simply: operators that keep every row they might need in lists and look at all of them in every epoch.
//! Independent of the engine; the sole answer is which rows have come out, and in the end none is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use highwater::OutputMode;

use crate::rows::Row;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cell {
    Null,
    Int(i64),
    Text(String),
}

impl Cell {
    pub(crate) fn int(&self) -> Option<i64> {
        match self {
            Cell::Int(value) => Some(*value),
            _ => None,
        }
    }
}

impl From<Option<i64>> for Cell {
    fn from(value: Option<i64>) -> Self {
        value.map_or(Cell::Null, Cell::Int)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Null => f.write_str("NULL"),
            Cell::Int(value) => write!(f, "{value}"),
            Cell::Text(text) => f.write_str(text),
        }
    }
}

pub(crate) type Line = Vec<Cell>;

/// What an operator sees of an epoch.
#[derive(Clone, Copy)]
pub(crate) struct Epoch<'a> {
    /// The rows of each stream.
    rows: &'a [Vec<Row>; 2],
    /// The watermark by which rows are late.
    judges_us: i64,
    /// The watermark by which rows are final.
    now_us: i64,
}

impl<'a> Epoch<'a> {
    pub(crate) fn new(rows: &'a [Vec<Row>; 2], judges_us: i64, now_us: i64) -> Self {
        Epoch {
            rows,
            judges_us,
            now_us,
        }
    }

    pub(crate) fn is_late(&self, time: &Cell, trail_us: i64) -> bool {
        time.int().is_some_and(|us| us <= self.judges_us - trail_us)
    }

    pub(crate) fn is_past(&self, us: i64, trail_us: i64) -> bool {
        us <= self.now_us - trail_us
    }
}

pub(crate) trait Flow {
    /// The rows that come out.
    fn epoch(&mut self, epoch: Epoch<'_>) -> Vec<Line>;

    /// By how much the times of its rows may trail behind the watermark.
    fn trail_us(&self) -> i64;

    /// What each watermark below may say by now.
    fn marks(&self, found: &mut Vec<i64>);

    /// Which streams it reads.
    fn reads(&self, found: &mut BTreeSet<usize>);

    /// True if some operator does something when the watermark moves.
    fn waits(&self) -> bool;

    /// Rows of which `_holds` is false can do nothing above: they are gone before the watermark sees them.
    fn require(&mut self, _holds: Test) {}

    /// Rows that would come out if all that is not final were.
    fn standing(&self) -> Vec<Line> {
        Vec::new()
    }
}

pub(crate) type Boxed = Box<dyn Flow>;

/// A query by event time.
pub(crate) struct Model {
    root: Boxed,
    latest: bool,
    now_us: i64,
    out: Vec<Line>,
    most: Option<usize>,
}

impl Model {
    /// `latest`: the watermark is that of the stream that is furthest.
    pub(crate) fn new(root: Boxed, latest: bool) -> Self {
        let (now_us, out) = (0, Vec::new());
        Model {
            root,
            latest,
            now_us,
            out,
            most: None,
        }
    }

    /// Some of the rows are asked for.
    pub(crate) fn limited(mut self, most: Option<usize>) -> Self {
        self.most = most;
        self
    }

    pub(crate) fn most(&self) -> Option<usize> {
        self.most
    }

    pub(crate) fn reads(&self) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        self.root.reads(&mut found);
        found
    }

    pub(crate) fn takes_latest(&self) -> bool {
        self.latest
    }

    fn next_us(&self) -> i64 {
        let mut marks = Vec::new();
        self.root.marks(&mut marks);
        let mark = match self.latest {
            true => marks.into_iter().max(),
            false => marks.into_iter().min(),
        };
        self.now_us.max(mark.unwrap_or(0))
    }

    pub(crate) fn epoch(&mut self, rows: &[Vec<Row>; 2], mode: OutputMode) {
        let judges_us = self.now_us;
        self.now_us = self.next_us();
        let mut epoch = Epoch {
            rows,
            judges_us,
            now_us: self.now_us,
        };
        if mode == OutputMode::Complete {
            // Nothing is late and nothing is forgotten.
            (epoch.judges_us, epoch.now_us) = (i64::MIN / 2, i64::MIN / 2);
        }
        self.out.extend(self.root.epoch(epoch));
    }

    /// Nothing more has come: an epoch without rows, if the watermark moves.
    pub(crate) fn idle(&mut self, mode: OutputMode) -> bool {
        let moves =
            mode != OutputMode::Complete && self.root.waits() && self.next_us() > self.now_us;
        if moves {
            self.epoch(&[Vec::new(), Vec::new()], mode);
        }
        moves
    }

    /// The answer so far, sorted.
    pub(crate) fn answer(&self, mode: OutputMode) -> Vec<String> {
        let standing = match mode {
            OutputMode::Complete | OutputMode::Changes => self.root.standing(),
            OutputMode::Append | OutputMode::Update => Vec::new(),
        };
        let text = |line: &Line| {
            let cells: Vec<String> = line.iter().map(Cell::to_string).collect();
            cells.join("|")
        };
        let mut lines: Vec<String> = self.out.iter().chain(&standing).map(text).collect();
        lines.sort();
        lines
    }
}

/// Which rows of a source count.
pub(crate) type Test = Box<dyn Fn(&Line) -> bool>;

/// The rows of a stream: k, g, v, ts.
pub(crate) struct Source {
    pub(crate) stream: usize,
    /// With a watermark on ts, so long after it.
    pub(crate) delay_us: Option<i64>,
    /// Rows that it does not hold for are gone before the watermark sees them.
    pub(crate) tests: Vec<Test>,
    pub(crate) max_us: Option<i64>,
}

impl Flow for Source {
    fn epoch(&mut self, epoch: Epoch<'_>) -> Vec<Line> {
        let line = |row: &Row| -> Line {
            let k = row.k.clone().map_or(Cell::Null, Cell::Text);
            vec![k, row.g.into(), row.v.into(), row.ts.into()]
        };
        let lines = epoch.rows[self.stream].iter().map(line);
        let passes = |line: &Line| self.tests.iter().all(|test| test(line));
        let lines: Vec<Line> = lines.filter(passes).collect();
        let seen = lines.iter().filter_map(|line| line[3].int()).max();
        self.max_us = self.max_us.max(seen);
        lines
    }

    fn require(&mut self, holds: Test) {
        self.tests.push(holds);
    }

    fn trail_us(&self) -> i64 {
        0
    }

    fn marks(&self, found: &mut Vec<i64>) {
        if let Some(delay_us) = self.delay_us {
            let mark = self.max_us.map(|us| us.div_euclid(1000) * 1000 - delay_us);
            found.push(mark.unwrap_or(0));
        }
    }

    fn reads(&self, found: &mut BTreeSet<usize>) {
        found.insert(self.stream);
    }

    fn waits(&self) -> bool {
        false
    }
}

/// What an operator over one input passes on of it.
macro_rules! over {
    ($waits:expr) => {
        fn trail_us(&self) -> i64 {
            self.from.trail_us()
        }

        fn marks(&self, found: &mut Vec<i64>) {
            self.from.marks(found);
        }

        fn reads(&self, found: &mut BTreeSet<usize>) {
            self.from.reads(found);
        }

        fn waits(&self) -> bool {
            $waits || self.from.waits()
        }
    };
}

/// Rows made of each row.
pub(crate) struct Map {
    pub(crate) from: Boxed,
    pub(crate) to: Box<dyn Fn(Line) -> Vec<Line>>,
}

impl Flow for Map {
    fn epoch(&mut self, epoch: Epoch<'_>) -> Vec<Line> {
        let lines = self.from.epoch(epoch).into_iter();
        lines.flat_map(&self.to).collect()
    }

    fn standing(&self) -> Vec<Line> {
        let lines = self.from.standing().into_iter();
        lines.flat_map(&self.to).collect()
    }

    over!(false);
}

/// The rows of both.
pub(crate) struct Union {
    pub(crate) inputs: [Boxed; 2],
}

impl Flow for Union {
    fn epoch(&mut self, epoch: Epoch<'_>) -> Vec<Line> {
        let mut all = self.inputs[0].epoch(epoch);
        all.extend(self.inputs[1].epoch(epoch));
        all
    }

    fn trail_us(&self) -> i64 {
        self.inputs[0].trail_us().max(self.inputs[1].trail_us())
    }

    fn marks(&self, found: &mut Vec<i64>) {
        self.inputs.iter().for_each(|input| input.marks(found));
    }

    fn reads(&self, found: &mut BTreeSet<usize>) {
        self.inputs.iter().for_each(|input| input.reads(found));
    }

    fn waits(&self) -> bool {
        self.inputs.iter().any(|input| input.waits())
    }
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
pub(crate) struct Groups {
    pub(crate) from: Boxed,
    pub(crate) keys: usize,
    pub(crate) calls: Vec<Call>,
    pub(crate) open: BTreeMap<Line, Vec<Line>>,
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
        for line in self.from.epoch(epoch) {
            if !epoch.is_late(&line[0], trail_us) {
                self.open
                    .entry(line[..self.keys].to_vec())
                    .or_default()
                    .push(line);
            }
        }
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
pub(crate) struct Sessions {
    pub(crate) from: Boxed,
    pub(crate) calls: Vec<Call>,
    pub(crate) open: Vec<(Cell, i64, i64, Vec<Line>)>,
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
        for line in self.from.epoch(epoch) {
            let (Some(start), Some(end)) = (line[1].int(), line[2].int()) else {
                continue;
            };
            if end <= start || epoch.is_late(&line[2], trail_us) {
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
                continue;
            }
            let key: Line = self.keys.iter().map(|key| line[*key].clone()).collect();
            if self.seen.contains_key(&key) {
                continue;
            }
            let at = self.time.and_then(|time| line[time].int());
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

/// So many rows ever.
pub(crate) struct Limit {
    pub(crate) from: Boxed,
    pub(crate) left: usize,
}

impl Flow for Limit {
    fn epoch(&mut self, epoch: Epoch<'_>) -> Vec<Line> {
        let mut lines = self.from.epoch(epoch);
        lines.truncate(self.left);
        self.left -= lines.len();
        lines
    }

    over!(false);
}
