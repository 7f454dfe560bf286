//! Recorded answers of the model: the same, or a refusal by name; never different.
//!
//! `tests/golden/scenarios` and `more` hold small queries with what Spark 4.3 answered at each step: rows, watermark, late rows,
//! rows in state, or the refusal. `HIGHWATER_GOLDEN` names another folder of the same layout to run instead,
//! `SCENARIO` a part of a path to run alone, `REFUSED=1` lists what is not built. Of another folder nothing may be refused
//! as not built, but functions, the group `stateless`.

#[path = "golden/compare.rs"]
mod compare;
#[path = "golden/frames.rs"]
mod frames;
#[path = "golden/in_time.rs"]
mod in_time;
#[path = "golden/json.rs"]
mod json;
#[path = "golden/oracle.rs"]
mod oracle;
#[path = "golden/play.rs"]
mod play;
#[path = "golden/rules.rs"]
mod rules;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use compare::Outcome;
use serde_json::Value;

/// How many scenarios passed, or were answered by rule, with every number of workers, when this was last raised.
const SAME_AT_LEAST: usize = 857;

/// Answers must not depend on it.
const WORKERS: [usize; 2] = [1, 2];

/// Scenarios that run at a time: most of their time is waiting.
const AT_A_TIME: usize = 4;

struct Ran {
    group: String,
    name: String,
    outcomes: Vec<Outcome>,
}

#[test]
fn every_scenario_is_the_same_or_refused() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/scenarios");
    let other = std::env::var("HIGHWATER_GOLDEN").ok().map(PathBuf::from);
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let root = other.as_ref().unwrap_or(&own);
    let mut paths = scenarios(root);
    if other.is_none() {
        // Recorded the same way, later: what the first ones did not ask.
        paths.extend(scenarios(&own.with_file_name("more")));
    }
    paths.retain(|path| path.display().to_string().contains(&only));
    assert!(
        !paths.is_empty(),
        "no scenario in {} is called {only}",
        root.display()
    );
    let mut all = run_all(&paths);
    all.sort_by(|a, b| (&a.group, &a.name).cmp(&(&b.group, &b.name)));
    println!("{}", table(&all));
    let listed = |wanted: fn(&Outcome) -> Option<&String>| -> Vec<String> {
        let mut lines = Vec::new();
        for ran in &all {
            for (workers, outcome) in WORKERS.iter().zip(&ran.outcomes) {
                let line = |why| format!("{}/{} ({workers}): {why}", ran.group, ran.name);
                lines.extend(wanted(outcome).map(line));
            }
        }
        lines
    };
    let refused = listed(|outcome| match outcome {
        Outcome::Refused(why) => Some(why),
        _ => None,
    });
    if std::env::var("REFUSED").is_ok() {
        println!("{}", refused.join("\n"));
    }
    let different = listed(|outcome| match outcome {
        Outcome::Different(how) => Some(how),
        _ => None,
    });
    assert!(different.is_empty(), "different:\n{}", different.join("\n"));
    let not_built: Vec<&String> = refused
        .iter()
        .filter(|line| !line.starts_with("stateless/"))
        .collect();
    assert!(
        other.is_none() || not_built.is_empty(),
        "refused:\n{not_built:#?}"
    );
    let passes = |ran: &&Ran| {
        let right = |outcome: &Outcome| matches!(outcome, Outcome::Same | Outcome::ByRule);
        ran.outcomes.iter().all(right)
    };
    let passed = all.iter().filter(passes).count();
    assert!(
        other.is_some() || !only.is_empty() || passed >= SAME_AT_LEAST,
        "{passed} passed, {SAME_AT_LEAST} did"
    );
}

/// The files of a folder and of its folders.
fn scenarios(root: &Path) -> Vec<PathBuf> {
    let listing = fs::read_dir(root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    let mut found = Vec::new();
    for entry in listing {
        let path = entry.expect("listed").path();
        if path.is_dir() {
            found.extend(scenarios(&path));
        } else if path.extension().is_some_and(|ending| ending == "json") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn run_all(paths: &[PathBuf]) -> Vec<Ran> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let ran = run_one(path);
                    done.lock().expect("no panic").push(ran);
                }
            });
        }
    });
    done.into_inner().expect("no panic")
}

fn run_one(path: &Path) -> Ran {
    let text = fs::read(path).expect("readable");
    let scenario: Value =
        serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let text = |field: &str| scenario[field].as_str().unwrap_or("?").to_string();
    let outcome = |workers: &usize| {
        // A panic is one scenario's difference, not the end of the others.
        let ran = AssertUnwindSafe(|| {
            let played = play::play(&scenario, *workers);
            compare::outcome(&scenario, &played, *workers)
        });
        catch_unwind(ran).unwrap_or_else(|_| Outcome::Different("panicked, see above".into()))
    };
    Ran {
        group: text("group"),
        name: text("name"),
        outcomes: WORKERS.iter().map(outcome).collect(),
    }
}

/// Passed, answered by rule, refused and different, by group and number of workers.
fn table(all: &[Ran]) -> String {
    let mut groups: BTreeMap<&str, Vec<&Ran>> = BTreeMap::new();
    for ran in all {
        groups.entry(&ran.group).or_default().push(ran);
        groups.entry("~ all").or_default().push(ran);
    }
    let mut text = format!("{:16}", "");
    for workers in WORKERS {
        text += &format!(" | {workers} workers: passed  by rule  refused  different");
    }
    for (group, members) in groups {
        text += &format!("\n{:16}", group.trim_start_matches("~ "));
        for index in 0..WORKERS.len() {
            let count = |fits: fn(&Outcome) -> bool| {
                members
                    .iter()
                    .filter(|ran| fits(&ran.outcomes[index]))
                    .count()
            };
            text += &format!(
                " | {:>17}  {:>7}  {:>7}  {:>9}",
                count(|outcome| matches!(outcome, Outcome::Same)),
                count(|outcome| matches!(outcome, Outcome::ByRule)),
                count(|outcome| matches!(outcome, Outcome::Refused(_))),
                count(|outcome| matches!(outcome, Outcome::Different(_))),
            );
        }
    }
    text
}
