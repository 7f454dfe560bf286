//! Joins by event time told simply: every row of one side is held against every row of the other.

use std::collections::BTreeSet;

use crate::model::{Boxed, Cell, Epoch, Flow, Line, Test};

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

/// Whether two rows are a pair.
pub(crate) type Pair = Box<dyn Fn(&Line, &Line) -> bool>;

/// Rows of both sides have the columns k, g, v, ts.
pub(crate) struct Join {
    pub(crate) kind: Kind,
    inputs: [Boxed; 2],
    /// Whether a pair is one; what a row alone must satisfy.
    pub(crate) pair: Pair,
    pub(crate) able: [Test; 2],
    /// The last moment of a row's partners is so long after its own time.
    pub(crate) more_us: [i64; 2],
    waiting: [Vec<Waiting>; 2],
}

pub(crate) const TIME: usize = 3;

impl Join {
    pub(crate) fn new(kind: Kind, inputs: [Boxed; 2], pair: Pair, more_us: [i64; 2]) -> Self {
        let able: [Test; 2] = [Box::new(|_| true), Box::new(|_| true)];
        let waiting = [Vec::new(), Vec::new()];
        Join {
            kind,
            inputs,
            pair,
            able,
            more_us,
            waiting,
        }
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
                if !epoch.is_late(&line[TIME], trail_us) {
                    self.waiting[side].push(Waiting {
                        line,
                        matched: false,
                    });
                }
            }
        }
        let [left, right] = &mut self.waiting;
        for (l, a) in left.iter_mut().enumerate() {
            for (r, b) in right.iter_mut().enumerate() {
                let new = l >= old[0] || r >= old[1];
                let able = self.able[0](&a.line) && self.able[1](&b.line);
                if !new || !able || !(self.pair)(&a.line, &b.line) {
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
        for side in 0..2 {
            let (more_us, able) = (self.more_us[side], &self.able[side]);
            let keeps = self.keeps(side);
            let (gone, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting[side])
                .into_iter()
                .partition(|row| {
                    let time = row.line[TIME].int();
                    let past = time.is_some_and(|us| epoch.is_past(us + more_us, trail_us));
                    past || keeps && !able(&row.line)
                });
            self.waiting[side] = stay;
            if keeps {
                let unmatched = gone.iter().filter(|row| !row.matched);
                out.extend(unmatched.map(|row| self.alone(side, &row.line)));
            }
        }
        out
    }

    fn trail_us(&self) -> i64 {
        let own = self.more_us[0].max(self.more_us[1]).max(0);
        self.below_us() + (own + 999).div_euclid(1000) * 1000
    }

    fn marks(&self, found: &mut Vec<i64>) {
        self.inputs.iter().for_each(|input| input.marks(found));
    }

    fn reads(&self, found: &mut BTreeSet<usize>) {
        self.inputs.iter().for_each(|input| input.reads(found));
    }

    fn waits(&self) -> bool {
        true
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
