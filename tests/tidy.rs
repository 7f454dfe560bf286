//! The shape of the repository: which crate may name which, one arrow, no file too long.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("UTF-8");
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "{dir} has no source files");
    found
}

/// Nothing under `dir` contains any of `words`.
fn never(dir: &str, words: &[&str]) {
    for (path, text) in sources(dir) {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in words {
                assert!(
                    !code.contains(word),
                    "{}:{}: {word} does not belong here",
                    path.display(),
                    number + 1
                );
            }
        }
    }
}

#[test]
fn arrows_point_one_way() {
    let other_crates = [
        "highwater_engine",
        "highwater_query",
        "highwater_connectors",
        "highwater::",
    ];
    never("operators/src", &other_crates);
    never(
        "operators/src",
        &[
            "std::fs",
            "std::net",
            "SystemTime",
            "Instant::now",
            "tokio",
            "async fn",
            "sqlparser",
        ],
    );
    never(
        "engine/query/src",
        &[
            "highwater_engine",
            "highwater_operators",
            "highwater_connectors",
            "timely",
            "std::fs",
            "std::net",
        ],
    );
    never(
        "engine/text/src",
        &[
            "highwater_",
            "datafusion",
            "timely",
            "std::fs",
            "std::net",
            "SystemTime",
            "Instant::now",
            "tokio",
        ],
    );
    never("engine/src", &["highwater_connectors", "highwater::"]);
    never(
        "connectors/src",
        &[
            "highwater_operators",
            "highwater::",
            "timely",
            "differential",
        ],
    );
    never("src", &["timely", "differential"]);
}

#[test]
fn there_is_one_arrow() {
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock"))
        .expect("a lock file");
    for package in [
        "arrow",
        "arrow-array",
        "arrow-schema",
        "parquet",
        "datafusion",
        "timely",
        "differential-dataflow",
    ] {
        let count = lock
            .lines()
            .filter(|line| *line == format!("name = \"{package}\""))
            .count();
        assert_eq!(count, 1, "versions of {package}");
    }
    assert!(
        !lock.contains("name = \"abomonation\""),
        "abomonation is unsound"
    );
}

#[test]
fn no_file_is_a_maze() {
    for dir in [
        "src",
        "operators",
        "engine",
        "connectors",
        "tests",
        "examples",
        "benches",
    ] {
        for (path, text) in sources(dir) {
            let lines = text.lines().count();
            assert!(lines <= 1000, "{}: {lines} lines", path.display());
        }
    }
}

#[test]
fn no_unsafe_code() {
    for dir in [
        "src",
        "operators/src",
        "engine/src",
        "engine/query/src",
        "engine/text/src",
        "connectors/src",
    ] {
        never(
            dir,
            &["allow(unsafe_code", "unsafe {", "unsafe fn", "unsafe impl"],
        );
    }
}

/// Commands that the README tells to run are run by the gate.
#[test]
fn the_gate_runs_the_readme() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).expect("a README");
    let gate = fs::read_to_string(root.join(".ci/run")).expect("a gate");
    let mut commands = 0;
    for block in readme.split("```sh\n").skip(1) {
        for line in block.split("```").next().unwrap_or_default().lines() {
            let command = line.split('#').next().unwrap_or_default().trim();
            if let Some(rest) = command.strip_prefix("cargo ") {
                let words: Vec<&str> = rest.split_whitespace().collect();
                let run = gate.lines().any(|line| {
                    line.contains("cargo ")
                        && words
                            .iter()
                            .all(|word| line.split_whitespace().any(|w| w == *word))
                });
                assert!(run, "the gate does not run: {command}");
                commands += 1;
            }
        }
    }
    assert!(commands >= 4, "{commands} commands in the README");
}
