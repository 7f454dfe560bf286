//! Joins by event time told simply: every row of one side is held against every row of the other.

use std::collections::BTreeSet;

use crate::model::{Asked, Boxed, Cell, Epoch, Flow, Line};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Inner,
    Left,
    Right,
    Full,
    Semi,
    Anti,
}

/// A row that may still find partners.
struct Waiting {
    line: Line,
    matched: bool,
}

/// Whether two rows are near enough, by their times.
pub(crate) type Near = Box<dyn Fn(i64, i64) -> bool>;

/// Rows of both sides have the columns k, g, v, ts.
pub(crate) struct Join {
    pub(crate) kind: Kind,
    inputs: [Boxed; 2],
    /// Which columns the rows of a pair are equal in.
    on: Vec<usize>,
    near: Near,
    /// True if the left row's v is the smaller one.
    pub(crate) less: bool,
    /// The side whose g must be 1, if one must.
    pub(crate) one: Option<usize>,
    /// The side whose v must be above a number, if one must.
    pub(crate) above: Option<(usize, i64)>,
    /// True if pairs are found by a range of times.
    pub(crate) ranged: bool,
    /// True straight below the sink of append mode.
    is_last: bool,
    /// The last moment of a row's partners is so long after its own time.
    more_us: [i64; 2],
    waiting: [Vec<Waiting>; 2],
}

pub(crate) const TIME: usize = 3;

/// The last moment of partners that may come at any time.
pub(crate) const FOR_EVER: i64 = i64::MAX / 4;

impl Join {
    pub(crate) fn new(
        kind: Kind,
        inputs: [Boxed; 2],
        on: Vec<usize>,
        near: Near,
        more_us: [i64; 2],
    ) -> Self {
        let waiting = [Vec::new(), Vec::new()];
        Join {
            kind,
            inputs,
            on,
            near,
            less: false,
            one: None,
            above: None,
            ranged: false,
            is_last: false,
            more_us,
            waiting,
        }
    }

    /// Asks of each side what a row without which no pair is must be, where a row without a partner does not come out.
    pub(crate) fn asked(mut self) -> Self {
        self.ask_sides();
        self
    }

    fn ask_sides(&mut self) {
        let more = self.less.then_some(2);
        let known: Vec<usize> = self.on.iter().copied().chain(more).chain([TIME]).collect();
        for side in 0..2 {
            if self.keeps(side) {
                continue;
            }
            for column in &known {
                self.inputs[side].ask(*column, Asked::Known);
            }
            // What one of two equal columns must be, the other must be too.
            let one = |of: usize| of == side || self.on.contains(&1);
            if self.one.is_some_and(one) {
                self.inputs[side].ask(1, Asked::Is(1));
            }
            if let Some((of, least)) = self.above
                && of == side
            {
                self.inputs[side].ask(2, Asked::Above(least));
            }
        }
    }

    fn is_pair(&self, l: &Line, r: &Line) -> bool {
        let (Some(at), Some(to)) = (l[TIME].int(), r[TIME].int()) else {
            return false;
        };
        let equal = |column: &usize| l[*column] != Cell::Null && l[*column] == r[*column];
        let less = || matches!((l[2].int(), r[2].int()), (Some(l), Some(r)) if l < r);
        let able = self.is_able(0, l) && self.is_able(1, r);
        able && self.on.iter().all(equal) && (!self.less || less()) && (self.near)(at, to)
    }

    /// False for a row that no row is a partner of.
    fn is_able(&self, side: usize, line: &Line) -> bool {
        let is_one = self.one != Some(side) || line[1] == Cell::Int(1);
        let is_above = match self.above {
            Some((of, least)) if of == side => line[2].int().is_some_and(|v| v > least),
            _ => true,
        };
        is_one && is_above
    }

    /// False for a row that comes out alone at once. In the model one with a null in its key or time waits all the same;
    /// an anti join is not the model's.
    fn can_wait(&self, side: usize, line: &Line) -> bool {
        let mut columns = vec![TIME];
        columns.extend(&self.on);
        columns.extend(self.less.then_some(2));
        let can_match = columns.iter().all(|column| line[*column] != Cell::Null);
        self.is_able(side, line) && (can_match || self.kind != Kind::Anti)
    }

    /// Rows without a partner that never come out, which is the model's one mistake that we share.
    fn holds(&self, side: usize, line: &Line) -> bool {
        let lifted = self.above.is_some_and(|(of, _)| of == side) && self.kind != Kind::Anti;
        self.is_last && self.ranged && lifted && self.is_able(side, line)
    }

    fn keeps(&self, side: usize) -> bool {
        match self.kind {
            Kind::Inner | Kind::Semi => false,
            Kind::Left | Kind::Anti => side == 0,
            Kind::Right => side == 1,
            Kind::Full => true,
        }
    }

    fn alone(&self, side: usize, line: &Line) -> Line {
        let nulls = vec![Cell::Null; 4];
        match (self.kind, side) {
            (Kind::Anti, _) => line.clone(),
            (_, 0) => [line.clone(), nulls].concat(),
            _ => [nulls, line.clone()].concat(),
        }
    }

    fn below_us(&self) -> i64 {
        self.inputs[0].trail_us().max(self.inputs[1].trail_us())
    }
}

impl Flow for Join {
    fn epoch(&mut self, epoch: Epoch<'_>) -> Vec<Line> {
        let trail_us = self.below_us();
        let mut out = Vec::new();
        let old = [self.waiting[0].len(), self.waiting[1].len()];
        for side in 0..2 {
            for line in self.inputs[side].epoch(epoch) {
                if epoch.is_late(&line[TIME], trail_us) {
                    epoch.drop_late(1);
                } else {
                    self.waiting[side].push(Waiting {
                        line,
                        matched: false,
                    });
                }
            }
        }
        let [mut left, mut right] = std::mem::take(&mut self.waiting);
        for (l, a) in left.iter_mut().enumerate() {
            for (r, b) in right.iter_mut().enumerate() {
                let new = l >= old[0] || r >= old[1];
                if !new || !self.is_pair(&a.line, &b.line) {
                    continue;
                }
                match self.kind {
                    Kind::Semi if !a.matched => out.push(a.line.clone()),
                    Kind::Semi | Kind::Anti => {}
                    _ => out.push([a.line.clone(), b.line.clone()].concat()),
                }
                (a.matched, b.matched) = (true, true);
            }
        }
        for (side, rows) in [left, right].into_iter().enumerate() {
            let (more_us, keeps) = (self.more_us[side], self.keeps(side));
            let (gone, stay): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| {
                let time = row.line[TIME].int();
                let past = time.is_some_and(|us| epoch.is_past(us + more_us, trail_us));
                past || keeps && !self.can_wait(side, &row.line)
            });
            self.waiting[side] = stay;
            if keeps {
                let unmatched = gone
                    .iter()
                    .filter(|row| !row.matched && !self.holds(side, &row.line));
                out.extend(unmatched.map(|row| self.alone(side, &row.line)));
            }
        }
        out
    }

    fn last(&mut self) {
        self.is_last = true;
    }

    /// A row that has nulls for a partner is left out above, if one of them is asked for: then the join is another one.
    fn ask(&mut self, column: usize, is: Asked) {
        let (side, own) = (column / 4, column % 4);
        let kind = match (self.kind, side) {
            (Kind::Full, 0) => Kind::Left,
            (Kind::Full, _) => Kind::Right,
            (Kind::Left, 1) | (Kind::Right, 0) => Kind::Inner,
            (kind, _) => kind,
        };
        if kind != self.kind {
            self.kind = kind;
            self.ask_sides();
        }
        // Now no row of this side is made of nulls.
        self.inputs[side].ask(own, is);
        if self.on.contains(&own) && !self.keeps(1 - side) {
            self.inputs[1 - side].ask(own, is);
        }
    }

    fn trail_us(&self) -> i64 {
        // Pairs that may come at any time hold nothing up: those whose time has passed are late above.
        let known = self.more_us.into_iter().filter(|more| *more != FOR_EVER);
        let own = known.max().unwrap_or(0).max(0);
        self.below_us() + (own + 999).div_euclid(1000) * 1000
    }

    fn marks(&self, found: &mut Vec<i64>) {
        self.inputs.iter().for_each(|input| input.marks(found));
    }

    fn reads(&self, found: &mut BTreeSet<usize>) {
        self.inputs.iter().for_each(|input| input.reads(found));
    }

    fn waits(&self) -> bool {
        let ends = self.more_us.iter().any(|more| *more != FOR_EVER);
        ends || self.inputs.iter().any(|input| input.waits())
    }

    fn standing(&self) -> Vec<Line> {
        let mut out = Vec::new();
        for side in [0, 1].into_iter().filter(|side| self.keeps(*side)) {
            let unmatched = self.waiting[side].iter().filter(|row| !row.matched);
            out.extend(unmatched.map(|row| self.alone(side, &row.line)));
        }
        out
    }
}
