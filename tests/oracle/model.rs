//! Event time told simply: operators that keep every row they might need in lists and look at all of them in every epoch.
//! Independent of the engine; the sole answer is which rows have come out, and in the end none is missing.

use std::collections::BTreeSet;
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
    /// How much was late.
    late: &'a Number,
}

/// A number that operators add to.
pub(crate) type Number = std::cell::Cell<u64>;

impl<'a> Epoch<'a> {
    pub(crate) fn new(
        rows: &'a [Vec<Row>; 2],
        judges_us: i64,
        now_us: i64,
        late: &'a Number,
    ) -> Self {
        Epoch {
            rows,
            judges_us,
            now_us,
            late,
        }
    }

    /// So many rows or groups were late.
    pub(crate) fn drop_late(&self, count: usize) {
        self.late.set(self.late.get() + count as u64);
    }

    pub(crate) fn is_late(&self, time: &Cell, trail_us: i64) -> bool {
        time.int().is_some_and(|us| us <= self.judges_us - trail_us)
    }

    pub(crate) fn is_past(&self, us: i64, trail_us: i64) -> bool {
        us <= self.now_us - trail_us
    }
}

/// What a column must be.
#[derive(Clone, Copy)]
pub(crate) enum Asked {
    /// Not null.
    Known,
    Is(i64),
    Above(i64),
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

    /// Rows whose column `_column` is not as asked can do nothing above: they are gone before the watermark sees them, if
    /// they can be told that far below.
    fn ask(&mut self, _column: usize, _is: Asked) {}

    /// Its rows go straight to the sink of append mode.
    fn last(&mut self) {}

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
    /// How much was late in the last epoch.
    pub(crate) late: u64,
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
            late: 0,
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
        let late = Number::default();
        let mut epoch = Epoch::new(rows, judges_us, self.now_us, &late);
        if mode == OutputMode::Complete {
            // Nothing is late and nothing is forgotten.
            (epoch.judges_us, epoch.now_us) = (i64::MIN / 2, i64::MIN / 2);
        }
        self.out.extend(self.root.epoch(epoch));
        self.late = late.get();
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

    fn ask(&mut self, column: usize, is: Asked) {
        self.tests.push(Box::new(move |line| match is {
            Asked::Known => line[column] != Cell::Null,
            Asked::Is(number) => line[column] == Cell::Int(number),
            Asked::Above(number) => line[column].int().is_some_and(|cell| cell > number),
        }));
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
#[macro_export]
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

    fn last(&mut self) {
        self.from.last();
    }

    over!(false);
}

/// Some columns of each row.
pub(crate) struct Pick {
    pub(crate) from: Boxed,
    pub(crate) columns: Vec<usize>,
}

impl Pick {
    fn of(&self, lines: Vec<Line>) -> Vec<Line> {
        let pick = |line: Line| self.columns.iter().map(|at| line[*at].clone()).collect();
        lines.into_iter().map(pick).collect()
    }
}

impl Flow for Pick {
    fn epoch(&mut self, epoch: Epoch<'_>) -> Vec<Line> {
        let lines = self.from.epoch(epoch);
        self.of(lines)
    }

    fn standing(&self) -> Vec<Line> {
        self.of(self.from.standing())
    }

    fn ask(&mut self, column: usize, is: Asked) {
        self.from.ask(self.columns[column], is);
    }

    fn last(&mut self) {
        self.from.last();
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

    fn ask(&mut self, column: usize, is: Asked) {
        self.inputs
            .iter_mut()
            .for_each(|input| input.ask(column, is));
    }

    fn last(&mut self) {
        self.inputs.iter_mut().for_each(|input| input.last());
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
