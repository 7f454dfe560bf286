//! Which sessions the stored ones and new rows make together.

/// A stretch of time, from its start until its end, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) start: i64,
    pub(super) end: i64,
}

/// A session of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Session {
    /// The key, by its number.
    pub(super) key: u32,
    pub(super) at: Stretch,
    /// True if rows came to it.
    pub(super) touched: bool,
}

/// Where stored sessions and rows end up.
#[derive(Default)]
pub(super) struct Merged {
    /// In order of their keys, then of time.
    pub(super) sessions: Vec<Session>,
    /// For each stored session the one it is part of.
    pub(super) of_stored: Vec<usize>,
    /// For each row.
    pub(super) of_row: Vec<usize>,
}

impl Merged {
    pub(super) fn new(stored: usize, rows: usize) -> Self {
        Merged {
            sessions: Vec::new(),
            of_stored: vec![0; stored],
            of_row: vec![0; rows],
        }
    }

    /// Merges the sessions of one more key: its `stored` ones and its `rows`, both ascending by start, with their
    /// numbers. Stretches that overlap or touch are one session.
    pub(super) fn add(
        &mut self,
        key: u32,
        stored: impl Iterator<Item = (Stretch, usize)>,
        rows: impl Iterator<Item = (Stretch, usize)>,
    ) {
        let (mut stored, mut rows) = (stored.peekable(), rows.peekable());
        let first = self.sessions.len();
        loop {
            let from_state = match (stored.peek(), rows.peek()) {
                (Some((old, _)), Some((new, _))) => old.start <= new.start,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => return,
            };
            let next = if from_state {
                stored.next()
            } else {
                rows.next()
            };
            let Some((at, number)) = next else { return };
            let fits = self.sessions[first..]
                .last()
                .is_some_and(|last| at.start <= last.at.end);
            if !fits {
                self.sessions.push(Session {
                    key,
                    at,
                    touched: false,
                });
            }
            let index = self.sessions.len() - 1;
            let last = &mut self.sessions[index];
            last.at.end = last.at.end.max(at.end);
            last.touched |= !from_state;
            if from_state {
                self.of_stored[number] = index;
            } else {
                self.of_row[number] = index;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(stored: &[(i64, i64)], rows: &[(i64, i64)], expected: &[(i64, i64)]) {
        let numbered = |all: &[(i64, i64)]| -> Vec<(Stretch, usize)> {
            let stretch = |&(start, end): &(i64, i64)| Stretch { start, end };
            all.iter().map(stretch).zip(0..).collect()
        };
        let mut merged = Merged::new(stored.len(), rows.len());
        let (old, new) = (numbered(stored), numbered(rows));
        merged.add(7, old.clone().into_iter(), new.clone().into_iter());
        let got: Vec<(i64, i64)> = merged
            .sessions
            .iter()
            .map(|session| (session.at.start, session.at.end))
            .collect();
        assert_eq!(got, expected);
        for ((at, number), to) in old
            .iter()
            .map(|item| (item, &merged.of_stored))
            .chain(new.iter().map(|item| (item, &merged.of_row)))
        {
            let session = merged.sessions[to[*number]].at;
            assert!(session.start <= at.start && at.end <= session.end);
        }
    }

    #[test]
    fn what_touches_is_one_session() {
        check(&[], &[(0, 5), (5, 10), (11, 16)], &[(0, 10), (11, 16)]);
        check(&[(0, 5)], &[(5, 6)], &[(0, 6)]);
    }

    #[test]
    fn a_row_joins_several_sessions() {
        check(
            &[(0, 5), (10, 15), (20, 25), (40, 41)],
            &[(4, 20)],
            &[(0, 25), (40, 41)],
        );
    }

    #[test]
    fn a_long_gap_reaches_over_short_ones() {
        check(
            &[(0, 100)],
            &[(1, 2), (50, 60), (101, 102)],
            &[(0, 100), (101, 102)],
        );
    }
}
