//! Random queries by event time, several operators deep: each made as SQL, and as a model of what it means.

use highwater::OutputMode;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::model::{Boxed, Cell, Line, Pick, Union};
use crate::model_join::{Join, Kind};
use crate::model_time::{Call, groups, map, spread, windows};
use crate::query::{Query, one};
use crate::reference::Grid;
use crate::rows::MINUTE;
use crate::timed::{
    KINDS, Made, Relation, comes_alone, firsts, join, keyed, latest, picked, plain, query,
    sessions_of,
};

/// Windows as end, k, n, s, m; the SQL as w, k, n, s, m.
fn windows_of(random: &mut StdRng, from: Relation) -> Relation {
    let (width, slide) = [(5, 5), (10, 10), (10, 5), (2, 1)][random.random_range(0..4)];
    let grid = Grid {
        width: width * MINUTE,
        slide: slide * MINUTE,
        start: 0,
    };
    let sql = format!(
        "SELECT window(ts, '{width} minutes', '{slide} minutes') AS w, k, count(*) AS n, sum(v) AS s, max(g) AS m FROM {} GROUP BY 1, 2",
        from.sql
    );
    let calls = vec![Call::Count, Call::Sum(3), Call::Max(2)];
    let flow = windows(from.flow, grid, &[0, 1, 2], 2, calls);
    Relation { sql, flow }
}

/// A relation of relations, several deep.
fn relation(random: &mut StdRng, depth: usize, made: &mut Made, name: &str) -> Relation {
    if depth == 0 {
        return keyed(random, name);
    }
    match random.random_range(0..6) {
        0 => {
            let from = relation(random, depth - 1, made, "r");
            // What a join or a group gives has no place in a source: only whole rows are told apart.
            let first = firsts(random, from, made, true, None);
            Relation {
                sql: format!("{} AS {name}", first.sql),
                ..first
            }
        }
        1 => {
            let (a, b) = (
                relation(random, depth - 1, made, "a"),
                relation(random, depth - 1, made, "b"),
            );
            let sql = format!(
                "(SELECT k, g, v, ts FROM {} UNION ALL SELECT k, g, v, ts FROM {}) AS {name}",
                a.sql, b.sql
            );
            let flow = Box::new(Union {
                inputs: [a.flow, b.flow],
            });
            Relation { sql, flow }
        }
        2 => {
            let from = relation(random, depth - 1, made, "r");
            let windows = windows_of(random, from);
            let sql = format!(
                "(SELECT k, m AS g, n + s AS v, window_time(w) AS ts FROM ({}) AS q) AS {name}",
                windows.sql
            );
            let flow = map(windows.flow, |line| {
                let sum = line[2].int().zip(line[3].int()).map(|(n, s)| n + s);
                let at = line[0].int().map(|end| end - 1);
                vec![vec![
                    line[1].clone(),
                    line[4].clone(),
                    sum.into(),
                    at.into(),
                ]]
            });
            Relation { sql, flow }
        }
        _ => {
            let (word, kind) = KINDS[random.random_range(0..KINDS.len())];
            let (a, b) = (
                relation(random, depth - 1, made, "l"),
                relation(random, depth - 1, made, "r"),
            );
            let joined = join(random, (word, kind), a, b);
            let (named, columns) = picked(kind);
            let sql = format!("(SELECT {named} FROM {}) AS {name}", joined.sql);
            let flow = Box::new(Pick {
                from: joined.flow,
                columns,
            });
            Relation { sql, flow }
        }
    }
}

/// Operators over each other's final rows.
pub(crate) fn timed_chains(random: &mut StdRng) -> Query {
    let mut made = Made::default();
    let depth = random.random_range(1..3);
    let from = relation(random, depth, &mut made, "r");
    let latest = latest(random);
    let (sql, flow): (String, Boxed) = match random.random_range(0..5) {
        0 => {
            let sql = format!("SELECT k, g, v, unix_micros(ts) AS at FROM {}", from.sql);
            (sql, from.flow)
        }
        1 => {
            let found = sessions_of(random, from);
            let sql = format!(
                "SELECT k, unix_micros(w.start) AS a, unix_micros(w.end) AS b, n, s, m FROM ({}) AS q",
                found.sql
            );
            (sql, found.flow)
        }
        // Sessions by the windows that they end in.
        2 => {
            let found = sessions_of(random, from);
            let sql = format!(
                "SELECT unix_micros(w2.end) AS b, n, c FROM (SELECT window(w, '15 minutes') AS w2, sum(n) AS n, count(*) AS c FROM ({}) AS q GROUP BY 1) AS z",
                found.sql
            );
            let wide = Grid {
                width: 15 * MINUTE,
                slide: 15 * MINUTE,
                start: 0,
            };
            let end = |line: &Line| line[2].int().map(|end| end - 1);
            let rows = spread(found.flow, wide, end, &[3]);
            (sql, groups(rows, 1, vec![Call::Sum(1), Call::Count]))
        }
        _ => {
            let found = windows_of(random, from);
            let sql = format!(
                "SELECT unix_micros(w.end) AS b, k, n, s, m FROM ({}) AS q",
                found.sql
            );
            (sql, found.flow)
        }
    };
    query(sql, flow, OutputMode::Append, made, latest)
}

/// Windows of one stream joined with those of another.
pub(crate) fn joined_windows(random: &mut StdRng) -> Query {
    let (word, kind) = KINDS[random.random_range(0..5)];
    let (width, minutes) = ([5, 10][random.random_range(0..2)], "minutes");
    let grid = Grid {
        width: width * MINUTE,
        slide: width * MINUTE,
        start: 0,
    };
    let [left_alone, right_alone] = comes_alone(kind);
    let mut side = |name: &str, alone: bool| {
        let from = match alone {
            true => plain(random, "q"),
            false => keyed(random, "q"),
        };
        let sql = format!(
            "(SELECT window(ts, '{width} {minutes}') AS w, k, count(*) AS n FROM {} GROUP BY 1, 2) AS {name}",
            from.sql
        );
        let groups = windows(from.flow, grid, &[0], 2, vec![Call::Count]);
        let flow = map(groups, |line| {
            vec![vec![
                line[1].clone(),
                Cell::Null,
                line[2].clone(),
                line[0].clone(),
            ]]
        });
        Relation { sql, flow }
    };
    let (left, right) = (side("l", left_alone), side("r", right_alone));
    let same = Box::new(|l: i64, r: i64| l == r);
    let model = Join::new(kind, [left.flow, right.flow], vec![0], same, [0, 0]);
    let on = one(
        random,
        &["l.w = r.w AND l.k = r.k", "l.k = r.k AND l.w = r.w"],
    );
    let columns = match kind {
        Kind::Semi | Kind::Anti => "l.k, unix_micros(l.w.end) AS le, l.n",
        _ => {
            "l.k, unix_micros(l.w.end) AS le, l.n, r.k AS rk, unix_micros(r.w.end) AS re, r.n AS rn"
        }
    };
    let sql = format!(
        "SELECT {columns} FROM {} {word} JOIN {} ON {on}",
        left.sql, right.sql
    );
    let flow = map(Box::new(model), |line| {
        let cell = |index: usize| line[index].clone();
        vec![match line.len() {
            4 => vec![cell(0), cell(3), cell(2)],
            _ => vec![cell(0), cell(3), cell(2), cell(4), cell(7), cell(6)],
        }]
    });
    let latest = latest(random);
    query(sql, flow, OutputMode::Append, Made::default(), latest)
}
