//! Every operator with state over every other, in every output mode, with a watermark and without.
//!
//! A layer takes rows of k, g, v, ts and gives such rows. In append mode with a watermark the answer is the model's; else
//! it is the batch answer over the rows in time, which each use of a stream has of its own.

use highwater::OutputMode;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::layers::{LAYERS, Relation, layer, source};
use crate::model::{Model, Pick};
use crate::prefix::{How, Prefix, Use};
use crate::query::{Batch, Query};

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
            let flow = Pick {
                from: flow,
                columns: order,
            };
            let model = Model::new(Box::new(flow), false).limited(upper.most);
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
                forgets: above == "within" && mode == OutputMode::Complete,
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
