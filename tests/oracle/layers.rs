//! Operators with state that take rows of k, g, v, ts and give such rows, each as SQL and, where rows are final, as a model.

use highwater::OutputMode;

use std::collections::BTreeMap;

use crate::model::{Boxed, Cell, Line, Pick, Source, Test, Union};
use crate::model_join::{Join, Kind, TIME};
use crate::model_time::{self, Call, First, groups, map};
use crate::pairs::Pair;
use crate::prefix::{DELAY_SECONDS, Late, Use};
use crate::query::View;
use crate::reference::Grid;
use crate::rows::{MINUTE, SECOND};
use crate::timed::picked;

/// A relation of k, g, v, ts.
pub(crate) struct Relation {
    pub(crate) sql: String,
    /// What comes out in append mode; `None` if nothing there is ever final.
    pub(crate) flow: Option<Boxed>,
    pub(crate) views: Vec<View>,
    pub(crate) uses: Vec<Use>,
    /// True if ts is event time.
    pub(crate) timed: bool,
    /// True if there is a join below.
    pub(crate) joined: bool,
    /// True if rows are only ever added, in changes mode too.
    pub(crate) adds: bool,
    /// The columns that update mode replaces rows by.
    pub(crate) keys: &'static [&'static str],
    /// At most so many rows, of which it is not said which.
    pub(crate) most: Option<usize>,
    /// True if complete mode gives all rows with every epoch to the operator above.
    pub(crate) whole: bool,
}

pub(crate) const LAYERS: &[&str] = &[
    "aggregate",
    "grouping sets",
    "window",
    "session",
    "distinct",
    "dedup",
    "within",
    "inner join",
    "left join",
    "right join",
    "full join",
    "semi join",
    "anti join",
    "limit",
    "top",
    "over",
    "union all",
    "union",
    "intersect",
    "except",
];

const WINDOW: Grid = Grid {
    width: 5 * MINUTE,
    slide: 5 * MINUTE,
    start: 0,
};
const GAP: i64 = 2 * MINUTE;
const RANGE: i64 = 3 * MINUTE;

/// Rows of a stream whose values are known: what a join would ask of them does not move the watermark.
pub(crate) fn source(stream: usize, name: &'static str, marked: bool) -> Relation {
    let clause = match marked {
        true => format!(" WATERMARK ts DELAY OF INTERVAL {DELAY_SECONDS} SECONDS"),
        false => String::new(),
    };
    let known: Test = Box::new(|line: &Line| line[..TIME].iter().all(|cell| *cell != Cell::Null));
    let flow = Source {
        stream,
        delay_us: marked.then_some(DELAY_SECONDS * SECOND),
        tests: vec![known],
        max_us: None,
    };
    Relation {
        sql: format!(
            "SELECT k, g, v, ts FROM (SELECT * FROM {name} WHERE k IS NOT NULL AND g IS NOT NULL AND v IS NOT NULL){clause} AS {name}_rows"
        ),
        flow: Some(Box::new(flow)),
        views: Vec::new(),
        uses: vec![Use {
            name,
            stream,
            late: None,
        }],
        timed: marked,
        joined: false,
        adds: true,
        keys: &[],
        most: None,
        whole: false,
    }
}

impl Relation {
    /// This is the first to ask whether rows are late, if nobody has before.
    fn judge(&mut self, late: Late) {
        let trail_us = self.flow.as_ref().map_or(0, |flow| flow.trail_us());
        if self.timed {
            for one in self.uses.iter_mut().filter(|one| one.late.is_none()) {
                one.late = Some((late, trail_us));
            }
        }
    }

    /// The rows of both; each is judged where it comes in.
    fn with(self, other: Relation, late: [Option<Late>; 2]) -> ([Option<Boxed>; 2], Relation) {
        let trail_us = self.flow.as_ref().map_or(0, |flow| flow.trail_us());
        let mut uses = self.uses;
        let mut others = other.uses;
        for (uses, late) in [&mut uses, &mut others].into_iter().zip(late) {
            let open = uses.iter_mut().filter(|one| one.late.is_none());
            open.for_each(|one| one.late = late.map(|late| (late, trail_us)));
        }
        uses.extend(others);
        let both = Relation {
            sql: String::new(),
            flow: None,
            views: self.views,
            uses,
            // What the columns are is said by the first of both.
            timed: self.timed,
            joined: self.joined,
            adds: self.adds,
            keys: &[],
            most: None,
            whole: false,
        };
        ([self.flow, other.flow], both)
    }
}

/// Groups by all columns, of which event time is the first.
fn distinct_rows(flow: Boxed, calls: Vec<Call>) -> Boxed {
    let from = map(flow, |mut line| {
        line.swap(0, TIME);
        vec![line]
    });
    let groups = groups(from, 4, calls);
    map(groups, |mut line| {
        line.swap(0, TIME);
        vec![line]
    })
}

/// A layer over `from`; `place` tells the two of a pair apart.
pub(crate) fn layer(name: &str, from: Relation, place: usize, pair: Pair) -> Relation {
    let (marked, mode) = (pair.marked, pair.mode);
    let rows = format!("({}) AS r{place}", from.sql);
    match name {
        "aggregate" => Relation {
            sql: format!(
                "SELECT k, max(g) AS g, sum(v) AS v, max(ts) AS ts FROM {rows} GROUP BY k"
            ),
            flow: None,
            timed: false,
            adds: false,
            keys: &["k"],
            whole: true,
            ..from
        },
        // A g that is null would be the key of two rows.
        "grouping sets" => Relation {
            sql: format!(
                "SELECT k, g, sum(v) AS v, max(ts) AS ts FROM (SELECT k, coalesce(g, -1) AS g, v, ts FROM {rows}) AS r GROUP BY GROUPING SETS ((k, g), (k))"
            ),
            flow: None,
            timed: false,
            adds: false,
            keys: &["k", "g"],
            whole: true,
            ..from
        },
        "window" => windows(from, &rows),
        "session" => sessions(from, &rows),
        "distinct" => {
            let mut from = from;
            from.judge(Late::Time);
            Relation {
                sql: format!("SELECT DISTINCT k, g, v, ts FROM {rows}"),
                flow: from
                    .flow
                    .filter(|_| from.timed)
                    .map(|flow| distinct_rows(flow, Vec::new())),
                adds: false,
                keys: &["k", "g", "v", "ts"],
                whole: true,
                ..from
            }
        }
        "dedup" | "within" => firsts(from, place, name == "within", mode),
        "limit" => {
            // Below, all rows are among the first.
            let most = if place == 0 { 1_000_000 } else { 5 };
            Relation {
                sql: format!("SELECT k, g, v, ts FROM {rows} LIMIT {most}"),
                most: (place == 1).then_some(most),
                adds: false,
                whole: true,
                keys: &[],
                // The first rows may leave again, whenever.
                timed: from.timed && !matches!(mode, OutputMode::Changes | OutputMode::Complete),
                ..from
            }
        }
        "top" => Relation {
            sql: format!("SELECT k, g, v, ts FROM {rows} ORDER BY v, k, g, ts LIMIT 6"),
            flow: None,
            timed: false,
            adds: false,
            whole: true,
            keys: &[],
            ..from
        },
        "over" => Relation {
            sql: format!(
                "SELECT k, g, row_number() OVER (PARTITION BY k ORDER BY v, g, ts) AS v, ts FROM {rows}"
            ),
            flow: None,
            timed: false,
            adds: false,
            whole: true,
            keys: &[],
            ..from
        },
        "union all" | "union" | "intersect" | "except" => {
            let other = source(1, ["u", "u_above"][place], marked);
            set(name, from, other, &rows)
        }
        _ => {
            let other = source(1, ["u", "u_above"][place], marked);
            join(name, from, other, marked)
        }
    }
}

fn windows(mut from: Relation, rows: &str) -> Relation {
    from.judge(Late::Window(WINDOW));
    let flow = from
        .flow
        .take()
        .filter(|_| from.timed)
        .map(|flow| -> Boxed {
            let calls = vec![Call::Max(2), Call::Sum(3)];
            let groups = model_time::windows(flow, WINDOW, &[0, 1, 2], 2, calls);
            map(groups, |line| by_window(0, [1, 2, 3], &line))
        });
    grouped(from, flow, "window(ts, '5 minutes')", rows)
}

fn sessions(mut from: Relation, rows: &str) -> Relation {
    from.judge(Late::Session(GAP));
    let flow = from
        .flow
        .take()
        .filter(|_| from.timed)
        .map(|flow| -> Boxed {
            let calls = vec![Call::Max(3), Call::Sum(4)];
            let sessions = model_time::sessions(flow, |_| GAP, calls);
            map(sessions, |line| by_window(2, [0, 3, 4], &line))
        });
    grouped(from, flow, "session_window(ts, '2 minutes')", rows)
}

/// The columns of a group and the last microsecond of its window.
fn by_window(end: usize, columns: [usize; 3], line: &[Cell]) -> Vec<Line> {
    let at = line[end].int().map(|end| end - 1);
    let columns = columns.into_iter().map(|column| line[column].clone());
    vec![columns.chain([at.into()]).collect()]
}

/// Groups by key and `window`, each with the time of its window.
fn grouped(from: Relation, flow: Option<Boxed>, window: &str, rows: &str) -> Relation {
    Relation {
        sql: format!(
            "SELECT k, g, v, window_time(w) AS ts FROM (SELECT {window} AS w, k, max(g) AS g, sum(v) AS v FROM {rows} GROUP BY 1, 2) AS w"
        ),
        flow,
        adds: false,
        keys: &["k", "ts"],
        whole: true,
        ..from
    }
}

fn firsts(mut from: Relation, place: usize, within: bool, mode: OutputMode) -> Relation {
    let leaves = match mode {
        OutputMode::Complete => !from.adds && !from.whole,
        OutputMode::Changes => !from.adds,
        _ => false,
    };
    let joined = mode == OutputMode::Complete && from.joined;
    if !leaves && !joined {
        from.judge(Late::Always);
    }
    let name = format!("firsts{place}");
    let sql = std::mem::take(&mut from.sql);
    from.views.push(View {
        name: name.clone(),
        sql,
        keys: Vec::new(),
        within,
    });
    let timed = from.timed;
    let flow = from.flow.map(|flow| -> Boxed {
        Box::new(First {
            from: flow,
            keys: vec![0, 1, 2, 3],
            time: timed.then_some(TIME),
            within_us: within.then_some(DELAY_SECONDS * SECOND),
            seen: BTreeMap::new(),
        })
    });
    Relation {
        sql: format!("SELECT k, g, v, ts FROM {name}"),
        flow,
        keys: &[],
        ..from
    }
}

fn set(name: &str, from: Relation, other: Relation, rows: &str) -> Relation {
    let way = name.to_uppercase();
    let sql = format!(
        "SELECT k, g, v, ts FROM {rows} {way} SELECT k, g, v, ts FROM ({}) AS o",
        other.sql
    );
    let late = (name != "union all" && from.timed).then_some(Late::Time);
    let (flows, both) = from.with(other, [late, late]);
    let tagged = |flow: Option<Boxed>, own: [i64; 2]| {
        flow.map(|flow| {
            map(flow, move |mut line| {
                line.extend(own.map(Cell::Int));
                vec![line]
            })
        })
    };
    let [left, right] = flows;
    let flow = match (tagged(left, [1, 0]), tagged(right, [0, 1])) {
        (Some(left), Some(right)) => {
            let both: Boxed = Box::new(Union {
                inputs: [left, right],
            });
            Some(both)
        }
        _ => None,
    };
    if name == "union all" {
        return Relation {
            sql,
            flow: flow.map(|flow| map(flow, |line| vec![line[..4].to_vec()])),
            whole: false,
            ..both
        };
    }
    let (intersect, except) = (name == "intersect", name == "except");
    let flow = flow.filter(|_| both.timed).map(|flow| {
        let counted = distinct_rows(flow, vec![Call::Sum(4), Call::Sum(5)]);
        map(counted, move |line| {
            let has = |place: usize| line[place].int().is_some_and(|count| count > 0);
            let stays = match (intersect, except) {
                (true, _) => has(4) && has(5),
                (_, true) => has(4) && !has(5),
                _ => true,
            };
            stays.then(|| line[..4].to_vec()).into_iter().collect()
        })
    });
    Relation {
        sql,
        flow,
        adds: false,
        keys: &["k", "g", "v", "ts"],
        whole: true,
        ..both
    }
}

fn join(name: &str, from: Relation, other: Relation, marked: bool) -> Relation {
    let (word, kind) = match name {
        "inner join" => ("INNER", Kind::Inner),
        "left join" => ("LEFT", Kind::Left),
        "right join" => ("RIGHT", Kind::Right),
        "full join" => ("FULL", Kind::Full),
        "semi join" => ("LEFT SEMI", Kind::Semi),
        "anti join" => ("LEFT ANTI", Kind::Anti),
        other => unreachable!("no layer {other}"),
    };
    let (named, columns) = picked(kind);
    let sql = format!(
        "SELECT {named} FROM ({}) AS l {word} JOIN ({}) AS r ON l.k = r.k AND r.ts BETWEEN l.ts AND l.ts + INTERVAL 3 MINUTES",
        from.sql, other.sql
    );
    let timed_left = from.timed;
    let late = [from.timed, other.timed].map(|timed| timed.then_some(Late::Time));
    let (flows, both) = from.with(other, late);
    let timed = if kind == Kind::Right {
        marked
    } else {
        timed_left
    };
    let near = |l: i64, r: i64| l <= r && r <= l + RANGE;
    // A closed bound ends a millisecond later.
    let more_us = [RANGE + 1_000, 1_000];
    let flow: Option<Boxed> = match flows {
        [Some(left), Some(right)] if timed_left => {
            let from = Join::new(kind, [left, right], vec![0], Box::new(near), more_us);
            let from = Box::new(from.asked());
            Some(Box::new(Pick { from, columns }))
        }
        _ => None,
    };
    Relation {
        sql,
        flow,
        timed,
        joined: true,
        adds: both.adds && matches!(kind, Kind::Inner | Kind::Semi),
        ..both
    }
}
