//! Every operator with state over every other, in every output mode, with a watermark and without.
//!
//! A layer takes rows of k, g, v, ts and gives such rows. In append mode with a watermark the answer is the model's; else
//! it is the batch answer over the rows in time, which each use of a stream has of its own.

use std::collections::BTreeMap;

use highwater::OutputMode;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::model::{Boxed, Call, Cell, First, Groups, Line, Model, Sessions, Source, Test, Union};
use crate::model_join::{Join, Kind, TIME};
use crate::prefix::{DELAY_SECONDS, How, Late, Prefix, Use};
use crate::query::{Batch, Query, View};
use crate::reference::Grid;
use crate::rows::{MINUTE, SECOND};
use crate::timed::map;

/// A relation of k, g, v, ts.
struct Relation {
    sql: String,
    /// What comes out in append mode; `None` if nothing there is ever final.
    flow: Option<Boxed>,
    views: Vec<View>,
    uses: Vec<Use>,
    /// True if ts is event time.
    timed: bool,
    /// True if there is a join below.
    joined: bool,
    /// True if rows are only ever added, in changes mode too.
    adds: bool,
    /// The columns that update mode replaces rows by.
    keys: &'static [&'static str],
    /// At most so many rows, of which it is not said which.
    most: Option<usize>,
    /// True if complete mode gives all rows with every epoch to the operator above.
    whole: bool,
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

pub(crate) const MODES: &[OutputMode] = &[
    OutputMode::Append,
    OutputMode::Update,
    OutputMode::Complete,
    OutputMode::Changes,
];

/// One of all combinations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) below: &'static str,
    pub(crate) above: &'static str,
    pub(crate) marked: bool,
    pub(crate) mode: OutputMode,
}

pub(crate) fn all() -> Vec<Pair> {
    let mut found = Vec::new();
    for &below in LAYERS {
        for &above in LAYERS {
            for marked in [false, true] {
                for &mode in MODES {
                    found.push(Pair {
                        below,
                        above,
                        marked,
                        mode,
                    });
                }
            }
        }
    }
    found
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let marked = if self.marked { "marked" } else { "unmarked" };
        write!(
            f,
            "{} over {}, {marked}, {}",
            self.above, self.below, self.mode
        )
    }
}

const WINDOW: Grid = Grid {
    width: 5 * MINUTE,
    slide: 5 * MINUTE,
    start: 0,
};
const GAP: i64 = 2 * MINUTE;
const RANGE: i64 = 3 * MINUTE;

/// Rows of a stream whose values are known: what a join would ask of them does not move the watermark.
fn source(stream: usize, name: &'static str, marked: bool) -> Relation {
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

fn cells(line: &Line, places: [usize; 4]) -> Line {
    places.iter().map(|place| line[*place].clone()).collect()
}

/// Groups by all columns, of which event time is the first.
fn distinct_rows(flow: Boxed, calls: Vec<Call>) -> Boxed {
    let from = map(flow, |mut line| {
        line.swap(0, TIME);
        vec![line]
    });
    let groups = Box::new(Groups {
        from,
        keys: 4,
        calls,
        open: BTreeMap::new(),
    });
    map(groups, |mut line| {
        line.swap(0, TIME);
        vec![line]
    })
}

/// A layer over `from`; `place` tells the two of a pair apart.
fn layer(name: &str, from: Relation, place: usize, pair: Pair) -> Relation {
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
        "grouping sets" => Relation {
            sql: format!(
                "SELECT k, g, sum(v) AS v, max(ts) AS ts FROM {rows} GROUP BY GROUPING SETS ((k, g), (k))"
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
    let flow = from.flow.filter(|_| from.timed).map(|flow| -> Boxed {
        let spread = map(flow, |line| {
            let windows = line[TIME]
                .int()
                .map_or_else(Vec::new, |at| WINDOW.windows(at));
            let one = |(_, end)| {
                vec![
                    Cell::Int(end),
                    line[0].clone(),
                    line[1].clone(),
                    line[2].clone(),
                ]
            };
            windows.into_iter().map(one).collect()
        });
        let groups = Box::new(Groups {
            from: spread,
            keys: 2,
            calls: vec![Call::Max(2), Call::Sum(3)],
            open: BTreeMap::new(),
        });
        map(groups, |line| {
            let at = line[0].int().map(|end| end - 1);
            vec![vec![
                line[1].clone(),
                line[2].clone(),
                line[3].clone(),
                at.into(),
            ]]
        })
    });
    Relation {
        sql: format!(
            "SELECT k, g, v, window_time(w) AS ts FROM (SELECT window(ts, '5 minutes') AS w, k, max(g) AS g, sum(v) AS v FROM {rows} GROUP BY 1, 2) AS w"
        ),
        flow,
        adds: false,
        keys: &["k", "ts"],
        whole: true,
        ..from
    }
}

fn sessions(mut from: Relation, rows: &str) -> Relation {
    from.judge(Late::Session(GAP));
    let flow = from.flow.filter(|_| from.timed).map(|flow| -> Boxed {
        let stretched = map(flow, |line| {
            let end = line[TIME].int().map(|at| at + GAP);
            vec![vec![
                line[0].clone(),
                line[TIME].clone(),
                end.into(),
                line[1].clone(),
                line[2].clone(),
            ]]
        });
        let sessions = Box::new(Sessions {
            from: stretched,
            calls: vec![Call::Max(3), Call::Sum(4)],
            open: Vec::new(),
        });
        map(sessions, |line| {
            let at = line[2].int().map(|end| end - 1);
            vec![vec![
                line[0].clone(),
                line[3].clone(),
                line[4].clone(),
                at.into(),
            ]]
        })
    });
    Relation {
        sql: format!(
            "SELECT k, g, v, window_time(w) AS ts FROM (SELECT session_window(ts, '2 minutes') AS w, k, max(g) AS g, sum(v) AS v FROM {rows} GROUP BY 1, 2) AS w"
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
    let (columns, places) = match kind {
        Kind::Semi | Kind::Anti => ("l.k, l.g, l.v, l.ts", [0, 1, 2, 3]),
        Kind::Right => ("r.k, l.g, r.v, r.ts", [4, 1, 6, 7]),
        _ => ("l.k, r.g, l.v, l.ts", [0, 5, 2, 3]),
    };
    let sql = format!(
        "SELECT {columns} FROM ({}) AS l {word} JOIN ({}) AS r ON l.k = r.k AND r.ts BETWEEN l.ts AND l.ts + INTERVAL 3 MINUTES",
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
    let pair = |l: &Line, r: &Line| {
        let (Some(a), Some(b)) = (l[TIME].int(), r[TIME].int()) else {
            return false;
        };
        l[0] != Cell::Null && l[0] == r[0] && a <= b && b <= a + RANGE
    };
    // A closed bound ends a millisecond later.
    let more_us = [RANGE + 1_000, 1_000];
    let flow = match flows {
        [Some(left), Some(right)] if timed_left => {
            let join = Join::new(kind, [left, right], Box::new(pair), more_us);
            Some(map(Box::new(join), move |line| vec![cells(&line, places)]))
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

/// The query of a pair.
pub(crate) fn query(pair: Pair) -> Query {
    let Pair {
        below,
        above,
        marked,
        mode,
    } = pair;
    let changes = matches!(mode, OutputMode::Update | OutputMode::Changes);
    let mut lower = layer(below, source(0, "t", marked), 0, pair);
    let (whole, replaced) = (lower.whole, !lower.keys.is_empty());
    let (timed_below, adds) = (lower.timed, lower.adds);
    // A session that is closed merges with none, so a batch does not tell.
    let made = (below == "session" && marked && changes).then(|| lower.flow.take());
    let asked_lower = made.is_some().then(|| Relation {
        sql: "SELECT k, g, v, ts FROM made".to_string(),
        flow: None,
        views: Vec::new(),
        uses: vec![Use {
            name: "made",
            stream: 0,
            late: None,
        }],
        ..source(0, "t", marked)
    });
    let asked_below = asked_lower
        .as_ref()
        .map_or(&lower.sql, |lower| &lower.sql)
        .clone();
    let asked_upper = asked_lower.map(|lower| layer(above, lower, 1, pair));
    let upper = layer(above, lower, 1, pair);
    // The keys first, by which update mode replaces rows.
    let rest = ["k", "g", "v", "ts"].into_iter();
    let rest = rest.filter(|column| !upper.keys.contains(column));
    let columns = upper.keys.iter().copied().chain(rest);
    let columns: Vec<&str> = columns.collect();
    let named = columns.iter().map(|column| match *column {
        "ts" => "unix_micros(ts) AS at".to_string(),
        other => other.to_string(),
    });
    let named = named.collect::<Vec<_>>().join(", ");
    let asked = |sql: &str| format!("SELECT {named} FROM ({sql}) AS q");
    let is_first = ["dedup", "within"].contains(&above);
    let how = match mode {
        OutputMode::Complete if is_first && whole => How::Unseen,
        OutputMode::Update if is_first && replaced => How::Unseen,
        OutputMode::Update if above == "union all" && replaced => How::Replaced,
        _ => How::AddUp,
    };
    let grows = above == "session" && mode == OutputMode::Changes && adds;
    let by_model = marked && (mode == OutputMode::Append || grows);
    let place = |column: &&str| {
        let mut known = ["k", "g", "v", "ts"].iter();
        known.position(|name| name == column).expect("a column")
    };
    let order: Vec<usize> = columns.iter().map(place).collect();
    let sql = asked(&upper.sql);
    let keys = match how != How::AddUp || upper.keys.is_empty() {
        true => usize::MAX,
        false => upper.keys.len(),
    };
    let (batch, views) = match upper.flow {
        Some(flow) if by_model => {
            let flow = map(flow, move |line| {
                vec![order.iter().map(|place| line[*place].clone()).collect()]
            });
            let model = Model::new(flow, false).limited(upper.most);
            (Batch::Model(model), upper.views)
        }
        _ => {
            let views = upper.views.clone();
            let of = asked_upper.unwrap_or(Relation {
                flow: None,
                ..upper
            });
            let prefix = Prefix {
                in_time: vec![Vec::new(); of.uses.len()],
                uses: of.uses,
                made: made.flatten().map(|flow| (flow, Vec::new())),
                marked,
                max_us: [None, None],
                now_us: 0,
                sql: asked(if of.most.is_some() {
                    &asked_below
                } else {
                    &of.sql
                }),
                views: of.views,
                most: of.most,
                how,
                late_above: how == How::Unseen && timed_below,
            };
            (Batch::Prefix(prefix), views)
        }
    };
    Query {
        sql,
        mode,
        keys,
        rows_max: 12,
        views,
        batch,
        few_values: true,
    }
}

/// Some pair: what a step through all of them leaves out comes here in time.
pub(crate) fn layers(random: &mut StdRng) -> Query {
    let layer = |random: &mut StdRng| LAYERS[random.random_range(0..LAYERS.len())];
    query(Pair {
        below: layer(random),
        above: layer(random),
        marked: random.random_bool(0.6),
        mode: MODES[random.random_range(0..MODES.len())],
    })
}
