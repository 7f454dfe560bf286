//! Random queries: what is asked of the stream, and the same as a batch.
//!
//! An arm is one kind of query. To add one: a function here, a line in [`ARMS`].

use highwater::OutputMode;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::asked;
use crate::changing;
use crate::model::Model;
use crate::pairs;
use crate::prefix::Prefix;
use crate::reference::Grid;
use crate::sets;
use crate::timed;
use crate::timed_chains;
use crate::windowed;

/// A query over the streams `t` and `u` and the static table `dim`.
pub(crate) struct Query {
    pub(crate) sql: String,
    pub(crate) mode: OutputMode,
    /// The leading columns that update mode replaces rows by.
    pub(crate) keys: usize,
    /// Most rows of a file.
    pub(crate) rows_max: usize,
    /// What it reads besides.
    pub(crate) views: Vec<View>,
    pub(crate) batch: Batch,
    /// Rows with few values, of which many are equal.
    pub(crate) few_values: bool,
}

impl Query {
    /// Whether it reads `t`, and `u`.
    pub(crate) fn reads(&self) -> [bool; 2] {
        match &self.batch {
            Batch::Model(model) => {
                let found = model.reads();
                return [0, 1].map(|stream| found.contains(&stream));
            }
            Batch::Prefix(prefix) => return prefix.reads(),
            Batch::Same | Batch::As(_) | Batch::InTime(_) => {}
        }
        let of_word = |c: char| c.is_alphanumeric() || c == '_';
        let texts = self.views.iter().map(|view| &view.sql).chain([&self.sql]);
        let words = texts.flat_map(|text| text.split(|c| !of_word(c)));
        let words: Vec<&str> = words.collect();
        ["t", "u"].map(|stream| words.contains(&stream))
    }

    /// At most so many rows, of which it is not said which, if it asks for some.
    pub(crate) fn most(&self) -> Option<usize> {
        match &self.batch {
            Batch::Model(model) => model.most(),
            Batch::Prefix(prefix) => prefix.most,
            Batch::Same | Batch::As(_) | Batch::InTime(_) => None,
        }
    }
}

/// The first row of each key of a query.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) sql: String,
    /// All columns if there are none.
    pub(crate) keys: Vec<&'static str>,
    /// Only rows near in event time are duplicates.
    pub(crate) within: bool,
}

/// What its answer is.
pub(crate) enum Batch {
    /// The same text over the rows so far.
    Same,
    /// This text over the rows so far.
    As(String),
    /// By event time.
    InTime(InTime),
    /// What the model says, epoch by epoch.
    Model(Model),
    /// The same text over the rows in time.
    Prefix(Prefix),
}

/// The answer over a table `p` of the rows of `t` that were in time, cut to what is final.
#[derive(Debug)]
pub(crate) struct InTime {
    /// With `{final}` where the cut belongs.
    pub(crate) sql: String,
    pub(crate) delay_us: i64,
    /// Only rows with more in `v`; they alone move the watermark.
    pub(crate) above: Option<i64>,
    /// Which of k and g are keys besides, where late rows are counted by groups.
    pub(crate) keys: Option<[bool; 2]>,
    /// With windows, `p` has a row for each window that a row is in, with `ws` and `we`.
    pub(crate) grid: Option<Grid>,
    /// What must be at or before the watermark for a row to be final.
    pub(crate) ends: &'static str,
}

/// Most rows of a file, where nothing says less.
pub(crate) const ROWS: usize = 120;

pub(crate) type Arm = fn(&mut StdRng) -> Query;

pub(crate) const ARMS: &[(&str, Arm)] = &[
    ("rows", rows),
    ("groups", groups),
    ("distinct rows", distinct_rows),
    ("windows", windowed::windows),
    ("windows of windows", windowed::windows_of_windows),
    ("event times", windowed::event_times),
    ("partitions by time", windowed::partitions_by_time),
    ("groups of groups", groups_of_groups),
    ("first rows", first_rows),
    ("joins", changing::joins),
    ("joins that stay", changing::joins_that_stay),
    ("chains", changing::chains),
    ("orders", changing::orders),
    ("sessions that change", changing::sessions_that_change),
    ("sets", sets::sets),
    ("unions that stay", sets::unions_that_stay),
    ("over", sets::overs),
    ("grouping sets", sets::grouping_sets),
    ("subqueries", sets::subqueries),
    ("subqueries that stay", sets::subqueries_that_stay),
    ("timed joins", timed::timed_joins),
    ("sessions", timed::sessions),
    ("duplicates", timed::duplicates),
    ("timed chains", timed_chains::timed_chains),
    ("joined windows", timed_chains::joined_windows),
    ("layers", pairs::layers),
    ("asked", asked::asked),
    ("keyed", asked::keyed),
    ("windows that change", changing::windows_that_change),
    ("windows by sets", windowed::windows_by_sets),
];

pub(crate) fn one<'a>(random: &mut StdRng, of: &[&'a str]) -> &'a str {
    of[random.random_range(0..of.len())]
}

/// Some of `of`, at least `least`, in random order.
pub(crate) fn some<'a>(
    random: &mut StdRng,
    of: &[&'a str],
    least: usize,
    most: usize,
) -> Vec<&'a str> {
    let mut rest = of.to_vec();
    let count = random.random_range(least..=most);
    (0..count)
        .map(|_| rest.swap_remove(random.random_range(0..rest.len())))
        .collect()
}

/// A relation with columns k, g, v, x whose rows are only ever added.
fn relation(random: &mut StdRng, depth: usize) -> String {
    let least = random.random_range(-8..12);
    let nested = match depth {
        0 => "t".to_string(),
        _ => relation(random, depth - 1),
    };
    match random.random_range(0..8) {
        0 => format!("(SELECT k, g, v, x FROM {nested} AS r WHERE v > {least})"),
        1 => format!("(SELECT upper(k) AS k, g + 1 AS g, v * 2 AS v, x FROM {nested} AS r)"),
        2 => "(SELECT word AS k, g, v, x FROM (SELECT explode(split(line, ' ')) AS word, g, v, x FROM t))"
            .to_string(),
        3 => format!("(SELECT k, g, v, x FROM {nested} AS r UNION ALL SELECT k, g, v, x FROM u)"),
        4 => format!(
            "(SELECT r.k, r.g, r.v + d.rate AS v, r.x FROM {nested} AS r {} JOIN dim AS d ON r.k = d.k)",
            one(random, &["INNER", "LEFT"])
        ),
        5 => format!(
            "(SELECT * FROM {nested} AS r {} JOIN dim AS d ON r.k = d.k AND r.v > d.rate)",
            one(random, &["LEFT SEMI", "LEFT ANTI"])
        )
        .replace("SELECT *", "SELECT k, g, v, x"),
        _ => nested,
    }
}

pub(crate) fn any_relation(random: &mut StdRng) -> String {
    let depth = random.random_range(0..3);
    relation(random, depth)
}

const AGGREGATES: &[&str] = &[
    "count(*)",
    "count(v)",
    "sum(v)",
    "min(v)",
    "max(k)",
    "avg(v)",
    "sum(x)",
    "avg(x)",
    "max(x)",
    "count(DISTINCT v)",
    "sum(DISTINCT g)",
    "sum(v) FILTER (WHERE v > 3)",
    "stddev(x)",
    "corr(v, x)",
    "skewness(x)",
    "regr_sxy(DISTINCT v, x)",
    "count_if(g = 1)",
    "bool_or(v > 15)",
    "percentile(v, 0.4)",
    "mode(k)",
    "avg(DISTINCT x)",
];

/// Named aggregates, with a comma before each.
pub(crate) fn aggregates(random: &mut StdRng) -> String {
    let calls = some(random, AGGREGATES, 1, 4);
    let named = calls
        .iter()
        .enumerate()
        .map(|(i, call)| format!(", {call} AS a{i}"));
    named.collect()
}

fn rows(random: &mut StdRng) -> Query {
    let from = any_relation(random);
    let columns = some(
        random,
        &[
            "k",
            "g",
            "v",
            "v % 3 AS m",
            "coalesce(g, -1) AS c",
            "x IS NULL AS b",
            "concat(k, '!') AS s",
        ],
        1,
        4,
    );
    let condition = match random.random_range(0..3) {
        0 => format!(" WHERE v > {} OR g = 1", random.random_range(-8..15)),
        1 => " WHERE k IN ('k1', 'k2', 'K3') AND NOT g <=> 2".to_string(),
        _ => String::new(),
    };
    let modes = [
        OutputMode::Append,
        OutputMode::Update,
        OutputMode::Changes,
        OutputMode::Complete,
    ];
    let mode = modes[random.random_range(0..4)];
    Query {
        sql: format!("SELECT {} FROM {from} AS r{condition}", columns.join(", ")),
        mode,
        keys: usize::MAX,
        rows_max: ROWS,
        views: Vec::new(),
        few_values: false,
        batch: Batch::Same,
    }
}

/// A mode in which every group may change.
fn changing(random: &mut StdRng) -> OutputMode {
    [
        OutputMode::Update,
        OutputMode::Complete,
        OutputMode::Changes,
    ][random.random_range(0..3)]
}

fn groups(random: &mut StdRng) -> Query {
    let from = any_relation(random);
    let keys = some(random, &["k", "g", "v % 3", "lower(k)", "v > 0"], 0, 2);
    let named = keys
        .iter()
        .enumerate()
        .map(|(i, key)| format!("{key} AS key{i}"));
    let named = named.collect::<Vec<_>>().join(", ");
    let mode = changing(random);
    // What a condition leaves out is never taken back in update mode.
    let having = match random.random_range(0..3) {
        0 if mode != OutputMode::Update && !keys.is_empty() => " HAVING count(*) > 2",
        _ => "",
    };
    let calls = aggregates(random);
    let list = format!("{named}{calls}");
    let list = list.trim_start_matches(", ");
    let by = match keys.is_empty() {
        true => String::new(),
        false => format!(" GROUP BY {}", keys.join(", ")),
    };
    Query {
        sql: format!("SELECT {list} FROM {from} AS r{by}{having}"),
        mode,
        keys: keys.len(),
        rows_max: ROWS,
        views: Vec::new(),
        few_values: false,
        batch: Batch::Same,
    }
}

fn distinct_rows(random: &mut StdRng) -> Query {
    let from = any_relation(random);
    let columns = some(random, &["k", "g", "v", "v > 3 AS b"], 1, 3);
    Query {
        sql: format!("SELECT DISTINCT {} FROM {from} AS r", columns.join(", ")),
        mode: changing(random),
        keys: columns.len(),
        rows_max: ROWS,
        views: Vec::new(),
        few_values: false,
        batch: Batch::Same,
    }
}

/// Groups whose rows are grouped again: what leaves one group of the second comes to another.
fn groups_of_groups(random: &mut StdRng) -> Query {
    let from = any_relation(random);
    let inner = one(random, &["k", "g", "v % 3"]);
    let call = one(
        random,
        &["count(*)", "max(v)", "sum(g)", "count(DISTINCT k)"],
    );
    let outer = one(random, &["n, ", "n % 2 AS n, ", ""]);
    let calls = one(
        random,
        &[
            "count(*) AS c",
            "count(*) AS c, sum(n) AS s, max(i) AS m",
            "min(n) AS m",
        ],
    );
    let by = outer
        .split(" AS")
        .next()
        .unwrap_or_default()
        .trim_end_matches(", ");
    let by = match by {
        "" => String::new(),
        by => format!(" GROUP BY {by}"),
    };
    Query {
        sql: format!(
            "SELECT {outer}{calls} FROM (SELECT {inner} AS i, {call} AS n FROM {from} AS r GROUP BY {inner}) AS q{by}"
        ),
        mode: [OutputMode::Complete, OutputMode::Changes][random.random_range(0..2)],
        keys: 1,
        rows_max: ROWS,
        views: Vec::new(),
        few_values: false,
        batch: Batch::Same,
    }
}

/// The first rows by an order that tells all rows apart but equal ones.
fn first_rows(random: &mut StdRng) -> Query {
    let from = any_relation(random);
    let (inner, mut columns) = match random.random_range(0..3) {
        0 => (
            format!("SELECT k, count(*) AS n, sum(v) AS s FROM {from} AS r GROUP BY k"),
            vec!["k", "n", "s"],
        ),
        1 => (
            format!("SELECT DISTINCT g, v FROM {from} AS r"),
            vec!["g", "v"],
        ),
        _ => (
            format!("SELECT k, g, v FROM {from} AS r"),
            vec!["k", "g", "v"],
        ),
    };
    let first = random.random_range(0..columns.len());
    columns.swap(0, first);
    let ways = ["", " DESC", " ASC NULLS LAST", " DESC NULLS FIRST"];
    let order = columns
        .iter()
        .map(|column| format!("{column}{}", one(random, &ways)));
    let order = order.collect::<Vec<_>>().join(", ");
    let count = random.random_range(1..8);
    Query {
        sql: format!("SELECT * FROM ({inner}) AS q ORDER BY {order} LIMIT {count}"),
        mode: [OutputMode::Complete, OutputMode::Changes][random.random_range(0..2)],
        keys: 0,
        rows_max: ROWS,
        views: Vec::new(),
        few_values: false,
        batch: Batch::Same,
    }
}
