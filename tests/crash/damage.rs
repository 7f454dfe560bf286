//! Files of a checkpoint that are torn or were changed are named, wherever one looks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A job with a state, run `times` times to its end with a file more each.
fn job(times: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("in")).expect("made");
    let sql = "
CREATE TABLE lines (value STRING) USING text OPTIONS (path 'in');
CREATE STREAMING TABLE counts USING noop
  OPTIONS (checkpointLocation 'ck', outputMode 'update', trigger 'availableNow')
  AS SELECT value, count(*) AS n FROM STREAM lines GROUP BY value;
";
    fs::write(dir.path().join("job.sql"), sql).expect("written");
    for number in 0..times {
        let output = next(dir.path(), number);
        assert!(output.status.success(), "{}", said(&output));
    }
    dir
}

/// Runs the job with a file more.
fn next(dir: &Path, number: usize) -> Output {
    let input = dir.join("in").join(format!("{number}.txt"));
    fs::write(input, format!("a\nb\nc{number}\n")).expect("written");
    highwater(dir, &["run", "job.sql"])
}

fn highwater(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    let output = command.current_dir(dir).args(arguments).output();
    output.expect("the program runs")
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// The newest file of one part of the checkpoint.
fn newest(dir: &Path, part: &str) -> PathBuf {
    let entries = fs::read_dir(dir.join("ck").join(part)).expect("listed");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let number = |path: &PathBuf| {
        let name = path
            .file_name()
            .expect("named")
            .to_string_lossy()
            .into_owned();
        name.parse::<u64>().unwrap_or(0)
    };
    paths.max_by_key(number).expect("there is one")
}

#[test]
fn metadata_and_generations_are_sealed() {
    for part in ["metadata", "generations"] {
        let dir = job(1);
        let path = match part {
            "metadata" => dir.path().join("ck/metadata"),
            _ => newest(dir.path(), part),
        };
        let whole = fs::read_to_string(&path).expect("text");
        let line = whole.lines().next().expect("a line").to_string();
        let name = path
            .strip_prefix(dir.path())
            .expect("below it")
            .display()
            .to_string();
        let broken = [
            (
                whole.replace("\"version\":2", "\"version\":1"),
                "its checksum is wrong",
            ),
            (whole.replacen('-', "e", 1), "its checksum is wrong"),
            (line.clone(), "it ends early"),
            (line[..line.len() / 2].to_string(), "is damaged"),
            (String::new(), "is damaged"),
        ];
        for (text, reason) in broken {
            assert_ne!(text, whole);
            fs::write(&path, &text).expect("written");
            let output = next(dir.path(), 1);
            let told = said(&output);
            assert_eq!(output.status.code(), Some(1), "{told}");
            assert!(
                told.contains(&name) && told.contains(reason),
                "{name}, {reason}: {told}"
            );
            assert_eq!(told.matches(&name).count(), 1, "one error: {told}");
            let told = said(&highwater(dir.path(), &["checkpoint", "show", "ck"]));
            assert!(
                told.contains(&name) && told.contains(reason),
                "{name}, {reason}: {told}"
            );
        }
        // As the first builds wrote it.
        fs::write(&path, line.replace("\"version\":2", "\"version\":1")).expect("written");
        let output = next(dir.path(), 1);
        assert!(output.status.success(), "{}", said(&output));
    }
}

#[test]
fn a_checkpoint_that_is_not_used_is_told_by_the_file_that_is_damaged() {
    let dir = job(3);
    let manifest = newest(dir.path(), "checkpoints");
    let whole = fs::read(&manifest).expect("read");
    fs::write(&manifest, &whole[..whole.len() / 2]).expect("written");
    let name = format!(
        "ck/checkpoints/{}",
        manifest.file_name().expect("named").display()
    );
    let shown = said(&highwater(dir.path(), &["checkpoint", "show", "ck"]));
    let line = shown.lines().find(|line| line.starts_with("damaged"));
    assert!(line.is_some_and(|line| line.contains(&name)), "{shown}");
    assert!(
        shown.contains("a restart would load the checkpoint of epoch 1"),
        "{shown}"
    );
    let output = next(dir.path(), 3);
    let told = said(&output);
    assert!(output.status.success(), "{told}");
    let warning = told
        .lines()
        .find(|line| line.contains("damaged checkpoint file"));
    let warning = warning.unwrap_or_else(|| panic!("no warning: {told}"));
    assert!(warning.contains(&name), "{warning}");
    assert!(
        warning.contains("goes on from that of epoch 1"),
        "{warning}"
    );
}

#[test]
fn that_no_good_checkpoint_is_left_is_told_with_the_files() {
    let dir = job(3);
    let checkpoints = dir.path().join("ck/checkpoints");
    let files: Vec<PathBuf> = fs::read_dir(&checkpoints)
        .expect("listed")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert!(!files.is_empty());
    let fails = |names: &[String]| {
        let (run, show) = (
            next(dir.path(), 3),
            highwater(dir.path(), &["checkpoint", "show", "ck"]),
        );
        for output in [run, show] {
            let told = said(&output);
            assert_eq!(output.status.code(), Some(1), "{told}");
            assert!(told.contains("no good checkpoint is left"), "{told}");
            assert!(!told.contains("ck/offsets"), "{told}");
            for name in names {
                assert!(told.contains(name.as_str()), "{name}: {told}");
            }
        }
    };
    let name = |path: &PathBuf| path.file_name().expect("named").display().to_string();
    let names: Vec<String> = files
        .iter()
        .map(|path| format!("ck/checkpoints/{}", name(path)))
        .collect();
    for path in &files {
        fs::write(path, "x").expect("written");
    }
    fails(&names);
    for path in &files {
        fs::remove_file(path).expect("removed");
    }
    fails(&[]);
}

/// A job whose rows go to files, and late rows to others; run until the checkpoint knows no commit but by its manifest.
fn files_job() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("in")).expect("made");
    let sql = "
CREATE TABLE lines (value STRING) USING text OPTIONS (path 'in', maxFilesPerTrigger '1');
CREATE STREAMING TABLE copied USING json
  OPTIONS (path 'out', checkpointLocation 'ck', trigger 'availableNow', commitInterval '0 seconds')
  AS SELECT value FROM STREAM lines WHERE value <> 'nothing';
";
    fs::write(dir.path().join("job.sql"), sql).expect("written");
    dir
}

/// The files of the output's log, oldest first.
fn log_of(dir: &Path) -> Vec<PathBuf> {
    let queries = fs::read_dir(dir.join("out/_highwater_log")).expect("listed");
    let query = queries.map(|entry| entry.expect("an entry").path()).next();
    let entries = fs::read_dir(query.expect("one query")).expect("listed");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

#[test]
fn an_output_whose_newest_commits_are_gone_is_told() {
    for last in ["a\n", "nothing\n"] {
        let dir = files_job();
        let run = || highwater(dir.path(), &["run", "job.sql"]);
        for file in 0..3 {
            let input = dir.path().join(format!("in/{file}.txt"));
            fs::write(input, format!("row {file}\n")).expect("written");
            assert!(run().status.success());
        }
        // An epoch may have no rows: then the log of the output rightly ends before it.
        fs::write(dir.path().join("in/3.txt"), last).expect("written");
        let output = run();
        assert!(output.status.success(), "{}", said(&output));
        let files = log_of(dir.path());
        assert_eq!(files.len(), if last == "a\n" { 4 } else { 3 });
        let output = run();
        assert!(
            output.status.success(),
            "nothing is wrong: {}",
            said(&output)
        );
        let newest = files.last().expect("there is one");
        let whole = fs::read(newest).expect("read");
        fs::remove_file(newest).expect("removed");
        let output = run();
        let told = said(&output);
        assert_eq!(output.status.code(), Some(1), "{told}");
        let name = newest.file_name().expect("named").display().to_string();
        let part = format!("{name}\" is missing: the checkpoint says that rows of epoch");
        assert!(
            told.contains(&part) && told.contains("ends with epoch"),
            "{told}"
        );
        fs::write(newest, whole).expect("written");
        fs::write(dir.path().join("in/4.txt"), "b\n").expect("written");
        let output = run();
        assert!(output.status.success(), "{}", said(&output));
        // Nothing of it is left.
        fs::remove_dir_all(dir.path().join("out")).expect("removed");
        let told = said(&run());
        assert!(
            told.contains("is missing") && told.contains("the log is empty"),
            "{told}"
        );
    }
}

#[test]
fn a_crash_between_the_output_and_its_record_is_no_damage() {
    // Before the log of the output, behind it, and behind the commit but before its record.
    for place in [
        "sink.log.before",
        "sink.log.after",
        "commit.sink",
        "commit.after",
    ] {
        for nth in [1, 2] {
            let dir = files_job();
            for file in 0..3 {
                let input = dir.path().join(format!("in/{file}.txt"));
                fs::write(input, format!("row {file}\n")).expect("written");
            }
            let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
            let command = command.current_dir(dir.path()).args(["run", "job.sql"]);
            let crashed = command
                .env("HIGHWATER_CRASH_AT", format!("{place}:{nth}"))
                .output();
            assert!(
                !crashed.expect("it runs").status.success(),
                "{place} is reached"
            );
            let output = highwater(dir.path(), &["run", "job.sql"]);
            assert!(output.status.success(), "{place}: {}", said(&output));
            assert_eq!(log_of(dir.path()).len(), 3, "{place}: every run once");
        }
    }
}
