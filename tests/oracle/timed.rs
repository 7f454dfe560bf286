//! Random queries by event time, each made twice: as SQL, and as a model of what it means.
//!
//! Relations have the columns k, g, v and ts, which is event time.

use std::collections::BTreeMap;

use highwater::OutputMode;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::model::{Boxed, Cell, Limit, Line, Model, Source, Test};
use crate::model_join::{FOR_EVER, Join, Kind, Near, TIME};
use crate::model_time::{self, Call, First, groups, map};
use crate::query::{Batch, Query, View};
use crate::rows::{MINUTE, SECOND};

const ROWS: usize = 30;

/// A relation as SQL and as a model.
pub(crate) struct Relation {
    pub(crate) sql: String,
    pub(crate) flow: Boxed,
}

/// What the query needs besides its text.
#[derive(Default)]
pub(crate) struct Made {
    views: Vec<View>,
}

pub(crate) fn query(
    sql: String,
    mut flow: Boxed,
    mode: OutputMode,
    made: Made,
    latest: bool,
) -> Query {
    if mode == OutputMode::Append {
        flow.last();
    }
    Query {
        sql,
        mode,
        keys: usize::MAX,
        rows_max: ROWS,
        views: made.views,
        few_values: false,
        batch: Batch::Model(Model::new(flow, latest)),
    }
}

/// The rows of a stream, with a clause that names them.
fn source(random: &mut StdRng, stream: usize, name: &str, keyed: bool) -> Relation {
    let seconds = [0, 0, 10, 90, 600][random.random_range(0..5)];
    let least = random.random_range(-8..6);
    let mut tests: Vec<Test> = Vec::new();
    let mut conditions = Vec::new();
    if random.random_bool(0.4) {
        conditions.push(format!("v > {least}"));
        tests.push(Box::new(move |line| {
            line[2].int().is_some_and(|v| v > least)
        }));
    }
    if keyed {
        conditions.push("k IS NOT NULL AND g IS NOT NULL AND v IS NOT NULL".to_string());
        tests.push(Box::new(|line| {
            line[..TIME].iter().all(|cell| *cell != Cell::Null)
        }));
    }
    let from = ["t", "u"][stream];
    let from = match conditions.is_empty() {
        true => from.to_string(),
        false => format!("(SELECT * FROM {from} WHERE {})", conditions.join(" AND ")),
    };
    let sql = format!("{from} WATERMARK ts DELAY OF INTERVAL {seconds} SECONDS AS {name}");
    let delay_us = Some(seconds * SECOND);
    let flow = Box::new(Source {
        stream,
        delay_us,
        tests,
        max_us: None,
    });
    Relation { sql, flow }
}

pub(crate) fn plain(random: &mut StdRng, name: &str) -> Relation {
    let stream = random.random_range(0..2);
    source(random, stream, name, false)
}

/// The rows of a stream that could have a partner: the query says itself what it would be asked below the watermark.
pub(crate) fn keyed(random: &mut StdRng, name: &str) -> Relation {
    let stream = random.random_range(0..2);
    source(random, stream, name, true)
}

/// When a pair is near enough in time: text, test, and for each side how long after a row its last partner may come.
fn near(random: &mut StdRng) -> (String, Near, [i64; 2]) {
    const CLOSED: i64 = 1_000;
    let (a, b) = (random.random_range(0..4), random.random_range(1..9));
    let (low, high) = (-a * MINUTE, b * MINUTE);
    match random.random_range(0..7) {
        0 => ("l.ts = r.ts".into(), Box::new(|l, r| l == r), [0, 0]),
        1 => (
            format!("r.ts > l.ts - INTERVAL {a} MINUTES AND r.ts <= l.ts + INTERVAL {b} MINUTES"),
            Box::new(move |l, r| r - l > low && r - l <= high),
            [high + CLOSED, -low],
        ),
        2 => (
            format!("r.ts >= l.ts - INTERVAL {a} MINUTES AND r.ts < l.ts + INTERVAL {b} MINUTES"),
            Box::new(move |l, r| r - l >= low && r - l < high),
            [high, -low + CLOSED],
        ),
        // Whole seconds of both, so that a row may be nearly one further away.
        4 => {
            let seconds = |at: i64| at.div_euclid(1_000_000);
            let most = 60 * b;
            (
                format!(
                    "CAST(r.ts AS BIGINT) >= CAST(l.ts AS BIGINT) AND CAST(r.ts AS BIGINT) - CAST(l.ts AS BIGINT) <= {most}"
                ),
                Box::new(move |l, r| (0..=most).contains(&(seconds(r) - seconds(l)))),
                [high + 999_999 + CLOSED, 999_999 + CLOSED],
            )
        }
        // The right row is later by at least so much.
        3 => {
            let high = high + 2 * MINUTE;
            (
                format!(
                    "r.ts BETWEEN l.ts + INTERVAL 1 MINUTES AND l.ts + INTERVAL {} MINUTES",
                    b + 2
                ),
                Box::new(move |l, r| r - l >= MINUTE && r - l <= high),
                [high + CLOSED, -MINUTE + CLOSED],
            )
        }
        _ => (
            format!("r.ts BETWEEN l.ts AND l.ts + INTERVAL {b} MINUTES"),
            Box::new(move |l, r| r - l >= 0 && r - l <= high),
            [high + CLOSED, CLOSED],
        ),
    }
}

/// The same, where a row finds partners for ever.
fn at_any_time(random: &mut StdRng) -> (&'static str, Near, [i64; 2]) {
    match random.random_range(0..3) {
        0 => ("r.ts >= l.ts", Box::new(|l, r| r >= l), [FOR_EVER, 1_000]),
        1 => ("l.ts > r.ts", Box::new(|l, r| l > r), [0, FOR_EVER]),
        _ => (ANY_TIME, Box::new(|_, _| true), [FOR_EVER, FOR_EVER]),
    }
}

/// Of a side whose own time nothing reads no row is late, as in the model: this reads both.
const ANY_TIME: &str = "unix_micros(l.ts) + unix_micros(r.ts) > 0";

/// The same, where the other end of the time is a column of one of the sides.
fn near_a_column(
    random: &mut StdRng,
    mut left: Relation,
    mut right: Relation,
) -> (String, Near, [i64; 2], Relation, Relation) {
    const CLOSED: i64 = 1_000;
    let minutes = random.random_range(1..9);
    let high = minutes * MINUTE;
    let with = |side: &mut Relation, sign: &str, name: &str| {
        let far = format!("ts {sign} INTERVAL {minutes} MINUTES AS far");
        side.sql = format!("(SELECT *, {far} FROM {}) AS {name}", side.sql);
    };
    let range = Box::new(move |l, r| r - l >= 0 && r - l <= high);
    let ranged = [high + CLOSED, CLOSED];
    let (sql, near, more_us): (&str, Near, [i64; 2]) = match random.random_range(0..3) {
        0 => {
            with(&mut left, "+", "l");
            ("r.ts BETWEEN l.ts AND l.far", range, ranged)
        }
        1 => {
            with(&mut right, "-", "r");
            ("r.ts >= l.ts AND r.far <= l.ts", range, ranged)
        }
        _ => {
            with(&mut left, "+", "l");
            // Of a side whose own time nothing reads no row is late, as in the model.
            (
                "l.far = r.ts AND l.ts < r.ts",
                Box::new(move |l, r| r - l == high),
                [high, 0],
            )
        }
    };
    (sql.into(), near, more_us, left, right)
}

pub(crate) const KINDS: &[(&str, Kind)] = &[
    ("INNER", Kind::Inner),
    ("LEFT", Kind::Left),
    ("RIGHT", Kind::Right),
    ("FULL", Kind::Full),
    ("LEFT SEMI", Kind::Semi),
    ("LEFT ANTI", Kind::Anti),
];

/// Whether a row without a partner comes out, by side.
pub(crate) fn comes_alone(kind: Kind) -> [bool; 2] {
    match kind {
        Kind::Inner | Kind::Semi => [false, false],
        Kind::Left | Kind::Anti => [true, false],
        Kind::Right => [false, true],
        Kind::Full => [true, true],
    }
}

/// k, g, v, ts of a pair: g is the other side's where that may be missing.
pub(crate) fn picked(kind: Kind) -> (&'static str, Vec<usize>) {
    match kind {
        Kind::Semi | Kind::Anti => ("l.k, l.g, l.v, l.ts", vec![0, 1, 2, 3]),
        Kind::Right => ("r.k, l.g, r.v, r.ts", vec![4, 1, 6, 7]),
        _ => ("l.k, r.g, l.v, l.ts", vec![0, 5, 2, 3]),
    }
}

/// A join of relations that are named l and r: its FROM clause, and the model.
pub(crate) fn join(
    random: &mut StdRng,
    (word, kind): (&str, Kind),
    left: Relation,
    right: Relation,
) -> Relation {
    let (near_sql, near, more_us, left, right) = match random.random_range(0..10) {
        0..2 => near_a_column(random, left, right),
        2..5 if matches!(kind, Kind::Inner) => {
            let (sql, near, more_us) = at_any_time(random);
            (sql.into(), near, more_us, left, right)
        }
        _ => {
            let (sql, near, more_us) = near(random);
            (sql, near, more_us, left, right)
        }
    };
    let (key, on): (&str, Vec<usize>) = match random.random_range(0..6) {
        0 => ("l.k = r.k AND l.g = r.g AND ", vec![0, 1]),
        1 if near_sql == "l.ts = r.ts" => ("", vec![]),
        _ => ("l.k = r.k AND ", vec![0]),
    };
    let less = random.random_bool(0.25);
    let some = random.random_bool(0.2);
    let mut sql = format!("{} {word} JOIN {} ON {key}{near_sql}", left.sql, right.sql);
    if less {
        sql.push_str(" AND l.v < r.v");
    }
    let one = match kind {
        Kind::Left | Kind::Anti | Kind::Full if some => Some((0, " AND l.g = 1")),
        Kind::Right if some => Some((1, " AND r.g = 1")),
        _ => None,
    };
    sql.extend(one.map(|(_, text)| text));
    let above = match kind {
        Kind::Left | Kind::Anti if random.random_bool(0.2) => Some(0),
        Kind::Right if random.random_bool(0.2) => Some(1),
        Kind::Full if random.random_bool(0.2) => Some(random.random_range(0..2)),
        _ => None,
    };
    let above = above.map(|side| (side, random.random_range(-8..12)));
    if let Some((side, least)) = above {
        let v = ["l.v", "r.v"][side];
        let text = match random.random_range(0..3) {
            0 => format!("{v} > {least}"),
            1 => format!("{v} >= {}", least + 1),
            _ => format!("{least} < {v}"),
        };
        sql.push_str(&format!(" AND {text}"));
    }
    let mut model = Join::new(kind, [left.flow, right.flow], on, near, more_us);
    model.less = less;
    model.one = one.map(|(side, _)| side);
    model.above = above;
    model.ranged = !near_sql.contains(" = ");
    Relation {
        sql,
        flow: Box::new(model.asked()),
    }
}

/// Two streams, or one with itself.
fn sides(random: &mut StdRng) -> [Relation; 2] {
    let (l, r) = [(0, 1), (0, 1), (1, 0), (0, 0)][random.random_range(0..4)];
    [source(random, l, "l", false), source(random, r, "r", false)]
}

pub(crate) fn latest(random: &mut StdRng) -> bool {
    random.random_bool(0.2)
}

pub(crate) fn timed_joins(random: &mut StdRng) -> Query {
    let (word, kind) = KINDS[random.random_range(0..KINDS.len())];
    let [left, right] = sides(random);
    let joined = join(random, (word, kind), left, right);
    let columns = match kind {
        Kind::Semi | Kind::Anti => "l.k, l.g, l.v, unix_micros(l.ts) AS lt",
        _ => {
            "l.k, l.g, l.v, unix_micros(l.ts) AS lt, r.k AS rk, r.g AS rg, r.v AS rv, unix_micros(r.ts) AS rt"
        }
    };
    let stays = matches!(kind, Kind::Inner | Kind::Semi);
    let mode = match random.random_range(0..6) {
        0 if stays => OutputMode::Update,
        1 => OutputMode::Changes,
        _ => OutputMode::Append,
    };
    let from = match kind {
        Kind::Semi | Kind::Anti if random.random_bool(0.4) => asked(&joined.sql, word),
        _ => joined.sql,
    };
    let sql = format!("SELECT {columns} FROM {from}");
    let latest = latest(random);
    query(sql, joined.flow, mode, Made::default(), latest)
}

/// A semi or anti join as a condition.
fn asked(join: &str, word: &str) -> String {
    let (left, rest) = join.split_once(&format!(" {word} JOIN ")).expect("a join");
    let (right, on) = rest.split_once(" ON ").expect("a condition");
    let not = if word == "LEFT ANTI" { "NOT " } else { "" };
    format!("{left} WHERE {not}EXISTS (SELECT 1 FROM {right} WHERE {on})")
}

/// Gaps: text, and the gap of a row of k, g, v, ts.
type Gap = (String, Box<dyn Fn(&Line) -> i64>);

fn gap(random: &mut StdRng) -> Gap {
    let minutes = random.random_range(1..6);
    match random.random_range(0..3) {
        0 => {
            let text = format!(
                "CASE WHEN g = 1 THEN '30 seconds' WHEN g = 3 THEN '0 minutes' WHEN v > 10 THEN '9 minutes' ELSE '{minutes} minutes' END"
            );
            let gap = move |line: &Line| match (line[1].int(), line[2].int()) {
                (Some(1), _) => 30 * SECOND,
                (Some(3), _) => 0,
                (_, Some(v)) if v > 10 => 9 * MINUTE,
                _ => minutes * MINUTE,
            };
            (text, Box::new(gap))
        }
        _ => (
            format!("'{minutes} minutes'"),
            Box::new(move |_| minutes * MINUTE),
        ),
    }
}

/// Sessions as k, start, end, n, s, m; the SQL as w, k, n, s, m.
pub(crate) fn sessions_of(random: &mut StdRng, from: Relation) -> Relation {
    let (text, gap) = gap(random);
    let sql = format!(
        "SELECT session_window(ts, {text}) AS w, k, count(*) AS n, sum(v) AS s, max(g) AS m FROM {} GROUP BY 1, 2",
        from.sql
    );
    let calls = vec![Call::Count, Call::Sum(4), Call::Max(3)];
    let flow = model_time::sessions(from.flow, gap, calls);
    Relation { sql, flow }
}

pub(crate) fn sessions(random: &mut StdRng) -> Query {
    let from = plain(random, "r");
    let found = sessions_of(random, from);
    let modes = [
        OutputMode::Append,
        OutputMode::Append,
        OutputMode::Complete,
        OutputMode::Changes,
    ];
    let mode = modes[random.random_range(0..4)];
    let sql = format!(
        "SELECT k, unix_micros(w.start) AS a, unix_micros(w.end) AS b, n, s, m FROM ({}) AS q",
        found.sql
    );
    query(sql, found.flow, mode, Made::default(), false)
}

const NAMES: [&str; 4] = ["k", "g", "v", "ts"];

/// First rows, as a view.
pub(crate) fn firsts(
    random: &mut StdRng,
    from: Relation,
    made: &mut Made,
    all: bool,
    delays: Option<i64>,
) -> Relation {
    let name = format!("firsts{}", made.views.len());
    let sets: &[&[usize]] = &[&[0], &[0, 1], &[0, 3], &[3], &[1, 2], &[]];
    let keys = match all {
        true => sets[5],
        false => sets[random.random_range(0..sets.len())],
    };
    let within_us = delays.filter(|_| random.random_bool(0.5));
    made.views.push(View {
        name: name.clone(),
        sql: format!("SELECT k, g, v, ts FROM {}", from.sql),
        keys: keys.iter().map(|key| NAMES[*key]).collect(),
        within: within_us.is_some(),
    });
    let keys = match keys {
        [] => vec![0, 1, 2, 3],
        keys => keys.to_vec(),
    };
    let time = Some(TIME);
    let flow = Box::new(First {
        from: from.flow,
        keys,
        time,
        within_us,
        seen: BTreeMap::new(),
    });
    Relation { sql: name, flow }
}

pub(crate) fn duplicates(random: &mut StdRng) -> Query {
    let mut made = Made::default();
    let seconds = [0, 30, 300][random.random_range(0..3)];
    let stream = random.random_range(0..2);
    let marked = random.random_bool(0.8);
    let clause = format!(" WATERMARK ts DELAY OF INTERVAL {seconds} SECONDS AS r");
    let sql = format!(
        "{}{}",
        ["t", "u"][stream],
        if marked { &clause } else { "" }
    );
    let delay_us = marked.then_some(seconds * SECOND);
    let flow = Box::new(Source {
        stream,
        delay_us,
        tests: Vec::new(),
        max_us: None,
    });
    let mut found = firsts(random, Relation { sql, flow }, &mut made, false, delay_us);
    if !marked {
        // Without a watermark no time is one.
        found.flow = unmarked(found.flow, stream, &made);
    }
    let mode = [
        OutputMode::Append,
        OutputMode::Append,
        OutputMode::Update,
        OutputMode::Changes,
    ];
    let mode = mode[random.random_range(0..4)];
    let from = &found.sql;
    match random.random_range(0..4) {
        0 if marked => {
            let sql = format!(
                "SELECT unix_micros(ts) AS at, k FROM (SELECT DISTINCT ts, k FROM {from}) AS q"
            );
            let keyed = map(found.flow, |line| {
                vec![vec![line[3].clone(), line[0].clone()]]
            });
            let flow = groups(keyed, 2, Vec::new());
            query(sql, flow, OutputMode::Append, made, false)
        }
        1 => {
            let count = random.random_range(1..40);
            let sql = format!("SELECT k, g, v, unix_micros(ts) AS at FROM {from} LIMIT {count}");
            let flow = Limit {
                from: found.flow,
                left: count,
            };
            query(sql, Box::new(flow), OutputMode::Append, made, false)
        }
        _ => {
            let sql = format!("SELECT k, g, v, unix_micros(ts) AS at FROM {from}");
            query(sql, found.flow, mode, made, false)
        }
    }
}

fn unmarked(_: Boxed, stream: usize, made: &Made) -> Boxed {
    let source = Source {
        stream,
        delay_us: None,
        tests: Vec::new(),
        max_us: None,
    };
    let named = made.views.last().map_or(&[][..], |view| &view.keys);
    let place = |name: &&str| {
        NAMES
            .iter()
            .position(|known| known == name)
            .expect("a column")
    };
    let mut keys: Vec<usize> = named.iter().map(place).collect();
    if keys.is_empty() {
        keys = vec![0, 1, 2, 3];
    }
    Box::new(First {
        from: Box::new(source),
        keys,
        time: None,
        within_us: None,
        seen: BTreeMap::new(),
    })
}
