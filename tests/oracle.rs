//! Every query's answer after every epoch equals DataFusion's from scratch on the rows so far: random rows, random
//! cuts into epochs, 1, 2 and 4 workers.
//!
//! A list of queries; queries made at random, over rows of which many are on the edge of a window, a gap, a range or the
//! watermark, where late rows are counted too, with restarts, failing sinks, crashes at any write of the checkpoint and kills
//! on the way; and every operator with state over every other, in every mode (`HIGHWATER_PAIRS`). Of the random ones
//! `HIGHWATER_ORACLE` says how many, `HIGHWATER_ORACLE_FROM` with which seed they begin, and `HIGHWATER_ORACLE_ARM` of which
//! kind they are, where not all are wanted; a failure prints the seed, which `HIGHWATER_ORACLE_SEED` replays.

#![allow(clippy::print_stdout, reason = "a test says what it ran")]

#[path = "oracle/asked.rs"]
mod asked;
#[path = "oracle/case.rs"]
mod case;
#[path = "oracle/changing.rs"]
mod changing;
#[path = "common/mod.rs"]
mod common;
#[path = "oracle/edges.rs"]
mod edges;
#[path = "oracle/expected.rs"]
mod expected;
#[path = "oracle/judge.rs"]
mod judge;
#[path = "oracle/layers.rs"]
mod layers;
#[path = "oracle/list.rs"]
mod list;
#[path = "oracle/model.rs"]
mod model;
#[path = "oracle/model_join.rs"]
mod model_join;
#[path = "oracle/model_time.rs"]
mod model_time;
#[path = "oracle/pairs.rs"]
mod pairs;
#[path = "oracle/prefix.rs"]
mod prefix;
#[path = "oracle/program.rs"]
mod program;
#[path = "oracle/query.rs"]
mod query;
#[path = "oracle/reference.rs"]
mod reference;
#[path = "oracle/rows.rs"]
mod rows;
#[path = "oracle/sets.rs"]
mod sets;
#[path = "oracle/store.rs"]
mod store;
#[path = "oracle/taken.rs"]
mod taken;
#[path = "oracle/timed.rs"]
mod timed;
#[path = "oracle/timed_chains.rs"]
mod timed_chains;
#[path = "oracle/windowed.rs"]
mod windowed;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Builder;

use case::{Case, Outcome};

/// Pairs that were wrong once, and some that see a watermark which judges a microsecond too early.
const FOUND: &[&str] = &[
    "aggregate over window, marked, changes",
    "aggregate over window, marked, update",
    "top over window, marked, changes",
    "full join over right join, marked, changes",
    "left join over over, marked, changes",
    "window over limit, marked, changes",
    "distinct over window, marked, complete",
    "session over left join, unmarked, complete",
    "window over session, marked, update",
    "dedup over semi join, marked, complete",
];

/// Of so many pairs of operators one is tried without a wish.
const PAIRS_STEP: usize = 67;

/// Random cases without a wish.
const CASES: u64 = 150;

/// Cases that run at a time: most of their time is waiting.
const AT_A_TIME: usize = 4;

/// Kinds of queries of which some are refused, by a class.
const REFUSED: &[&str] = &["layers"];

/// Not a test where no other one started it.
#[test]
fn program_of_a_case() {
    program::live();
}

#[test]
fn random_queries_answer_as_a_batch_does() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>());
    let number = |name: &str| number(name).map(|parsed| parsed.expect("a number"));
    let seeds: Vec<u64> = match number("HIGHWATER_ORACLE_SEED") {
        Some(seed) => vec![seed],
        None => {
            let arm = std::env::var("HIGHWATER_ORACLE_ARM").ok();
            let known = |arm: &String| query::ARMS.iter().any(|(name, _)| name == arm);
            assert!(arm.as_ref().is_none_or(known), "no arm {arm:?}");
            let is_of = |seed: &u64| {
                let (name, _) = query::ARMS[case::arm_of(*seed)];
                arm.as_ref().is_none_or(|arm| arm == name)
            };
            let seeds = number("HIGHWATER_ORACLE_FROM").unwrap_or(0)..;
            let count = number("HIGHWATER_ORACLE").unwrap_or(CASES);
            seeds.filter(is_of).take(count as usize).collect()
        }
    };
    let (ran, crashes) = (Mutex::new(BTreeMap::new()), AtomicU64::new(0));
    run_all(&seeds, |seed| {
        let mut case = Case::new(*seed);
        let (arm, about) = (case.arm, case.about());
        let outcome = run(&mut case);
        crashes.fetch_add(u64::from(case.crashes), Ordering::Relaxed);
        let mut ran = ran.lock().expect("no panic");
        let (right, refused) = ran.entry(arm).or_insert((0, 0));
        match outcome {
            Ok(Outcome::Right) => *right += 1,
            Ok(Outcome::Refused(class, why)) => {
                *refused += 1;
                if class.is_none() || !REFUSED.contains(&arm) {
                    return Some(format!("{about}\nrefused: {why}"));
                }
            }
            Err(how) => return Some(format!("{about}\n{how}")),
        }
        None
    });
    for (arm, (right, refused)) in ran.into_inner().expect("no panic") {
        println!("{arm:20} {right:6} right {refused:6} refused");
    }
    println!("{} crashes", crashes.into_inner());
}

/// Pairs of operators in every mode: `HIGHWATER_PAIRS=all`, or those whose name has the text given.
#[test]
fn pairs_of_operators_answer_as_a_batch_does_or_are_refused() {
    let wanted = std::env::var("HIGHWATER_PAIRS").ok();
    let all = pairs::all();
    let is_wanted = |(index, pair): &(usize, pairs::Pair)| match wanted.as_deref() {
        // A step that shares no factor with the numbers of layers and modes meets all kinds of them.
        None => index % PAIRS_STEP == 0 || FOUND.contains(&pair.to_string().as_str()),
        Some("all") => true,
        Some(text) => pair.to_string().contains(text),
    };
    let pairs: Vec<_> = all.into_iter().enumerate().filter(is_wanted).collect();
    let table: Mutex<BTreeMap<(String, bool), BTreeMap<String, u64>>> = Mutex::default();
    run_all(&pairs, |(index, pair)| {
        let mut case = Case::of_pair(*index as u64, *pair);
        let (about, outcome) = (case.about(), run(&mut case));
        let (how, wrong) = match outcome {
            Ok(Outcome::Right) => ("answered".to_string(), None),
            Ok(Outcome::Refused(Some(class), _)) => (class, None),
            Ok(Outcome::Refused(None, why)) => ("not built".to_string(), Some(why)),
            Err(why) => ("wrong".to_string(), Some(why)),
        };
        println!("{pair}: {how}");
        let mut table = table.lock().expect("no panic");
        let row = table
            .entry((pair.mode.to_string(), pair.marked))
            .or_default();
        *row.entry(how).or_default() += 1;
        wrong.map(|why| format!("{pair}: {about}\n{why}"))
    });
    for ((mode, marked), row) in table.into_inner().expect("no panic") {
        let marked = if marked { "with" } else { "without" };
        println!("{mode} {marked} a watermark: {row:?}");
    }
}

/// How a case ended, or what its panic said.
fn run(case: &mut Case) -> Result<Outcome, String> {
    catch_unwind(AssertUnwindSafe(|| case.run())).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.unwrap_or_default()
    })
}

/// Runs `one` for each of `all`, some at a time; what it says of it is what is wrong. Panics at the end if anything is.
fn run_all<T: Sync>(all: &[T], one: impl Fn(&T) -> Option<String> + Sync) {
    let (next, wrong) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let run_some = || {
        while let Some(item) = all.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            if let Some(found) = one(item) {
                // At once: a long run need not end to be looked into.
                println!("{found}");
                wrong.lock().expect("no panic").push(found);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            // Planning a query many levels deep takes more of it in a build for tests than a thread has.
            let thread = Builder::new().stack_size(16 << 20);
            thread
                .spawn_scoped(scope, run_some)
                .expect("a thread starts");
        }
    });
    let wrong = wrong.into_inner().expect("no panic");
    let shown: Vec<&str> = wrong.iter().take(5).map(String::as_str).collect();
    assert!(
        wrong.is_empty(),
        "{} of {} are wrong:\n{}",
        wrong.len(),
        all.len(),
        shown.join("\n\n")
    );
}
