//! The world goes wrong and is mended: one clear error, other queries go on, and a restart loses nothing.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use highwater::prelude::*;

use super::common::{canonical, rows_of};

/// A small file system of its own, if this process may mount one.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(dir.path())
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Mount(dir));
        }
        println!("SKIPPED: a file system cannot be mounted here, so a full disk is not tested");
        None
    }

    fn remount(&self, options: &str) {
        let done = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(self.0.path())
            .status();
        assert!(done.expect("mount runs").success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn copy_query(
    session: &Session,
    format: &str,
    input: &Path,
    out: &Path,
    checkpoint: &Path,
) -> highwater::Result<StreamingQuery> {
    copy_grouped(session, format, input, out, checkpoint, "0 seconds")
}

fn copy_grouped(
    session: &Session,
    format: &str,
    input: &Path,
    out: &Path,
    checkpoint: &Path,
    commit_interval: &str,
) -> highwater::Result<StreamingQuery> {
    let reader = session.read_stream().format(format).schema("v BIGINT")?;
    let reader = match format {
        "json" => reader.option("mode", "FAILFAST"),
        _ => reader,
    };
    reader
        .option("maxFilesPerTrigger", 1)
        .path(input)
        .load()?
        .write_stream()
        .format("json")
        .path(out)
        .option("checkpointLocation", checkpoint.display())
        .option("checkpointInterval", "0 seconds")
        .option("commitInterval", commit_interval)
        .start()
}

fn put(input: &Path, name: &str, values: std::ops::Range<u32>) {
    let text: String = values.map(|v| format!("{{\"v\":{v}}}\n")).collect();
    fs::write(input.join(format!(".{name}")), text).expect("written");
    fs::rename(input.join(format!(".{name}")), input.join(name)).expect("renamed");
}

fn written(session: &Session, out: &Path) -> Vec<String> {
    let read = session
        .read()
        .format("json")
        .schema("v BIGINT")
        .and_then(|reader| reader.path(out).load())
        .and_then(|frame| frame.create_or_replace_temp_view("written"));
    read.expect("read");
    canonical(&rows_of(
        session,
        "SELECT count(*), count(DISTINCT v), min(v), max(v) FROM written",
    ))
}

fn failure(query: &StreamingQuery) -> String {
    let begun = Instant::now();
    while query.is_active() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it never failed");
        std::thread::sleep(Duration::from_millis(5));
    }
    query.exception().expect("it failed").to_string()
}

/// A query that fails as `says`, beside one that goes on; then the world is mended, and a restart has all rows.
fn check(
    (checkpoint, out): (&Path, &Path),
    input: &Path,
    break_it: impl FnOnce(),
    says: &[&str],
    mend: impl FnOnce(),
) {
    let session = Session::with_workers(2).expect("a session");
    let other = tempfile::tempdir().expect("a directory");
    let other_input = other.path().join("in");
    fs::create_dir(&other_input).expect("made");
    let (other_out, other_ck) = (other.path().join("out"), other.path().join("ck"));
    let beside =
        copy_query(&session, "json", &other_input, &other_out, &other_ck).expect("started");
    put(input, "0.json", 0..100);
    let query = copy_query(&session, "json", input, out, checkpoint).expect("started");
    query.process_all_available().expect("processed");
    break_it();
    put(input, "1.json", 100..200);
    let text = failure(&query);
    for word in says {
        assert!(text.contains(word), "no \"{word}\" in: {text}");
    }
    put(&other_input, "0.json", 0..10);
    beside.process_all_available().expect("the other goes on");
    assert_eq!(written(&session, &other_out), ["10|10|0|9"]);
    mend();
    put(input, "2.json", 200..300);
    let query = copy_query(&session, "json", input, out, checkpoint).expect("started again");
    query.process_all_available().expect("processed");
    assert_eq!(written(&session, out), ["300|300|0|299"]);
    query.stop().expect("stopped");
    beside.stop().expect("stopped");
}

/// Directories of a query, some of them on a file system that is `broken` and mended again.
fn on_a_small_disk(
    options: &str,
    small: &str,
    says: &[&str],
    broken: impl FnOnce(&Mount),
    mended: impl FnOnce(&Mount),
) {
    let Some(mount) = Mount::new(options) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let input = dir.path().join("in");
    fs::create_dir(&input).expect("made");
    let place = |name: &str| match name == small {
        true => mount.0.path().join(name),
        false => dir.path().join(name),
    };
    let (checkpoint, out) = (place("ck"), place("out"));
    check(
        (&checkpoint, &out),
        &input,
        || broken(&mount),
        says,
        || mended(&mount),
    );
}

fn fill(mount: &Mount) {
    let _ = fs::write(mount.0.path().join("filler"), vec![0; 1 << 20]);
}

fn empty(mount: &Mount) {
    fs::remove_file(mount.0.path().join("filler")).expect("removed");
}

#[test]
fn a_full_disk_under_the_checkpoint_is_told_and_nothing_is_lost() {
    let says = ["could not write checkpoint file", "No space left"];
    on_a_small_disk("size=256k", "ck", &says, fill, empty);
}

#[test]
fn a_full_disk_under_the_output_is_told_and_nothing_is_lost() {
    on_a_small_disk("size=256k", "out", &["out", "No space left"], fill, empty);
}

#[test]
fn a_read_only_checkpoint_is_told_and_nothing_is_lost() {
    let says = ["could not write checkpoint file", "Read-only"];
    let (stiff, soft) = (|m: &Mount| m.remount("ro"), |m: &Mount| m.remount("rw"));
    on_a_small_disk("size=1m", "ck", &says, stiff, soft);
}

#[test]
fn a_deleted_source_file_is_named_and_read_when_it_is_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let (input, out, ck) = (
        dir.path().join("in"),
        dir.path().join("out"),
        dir.path().join("ck"),
    );
    fs::create_dir(&input).expect("made");
    let session = Session::with_workers(2).expect("a session");
    put(&input, "0.json", 0..100);
    let query = copy_query(&session, "json", &input, &out, &ck).expect("started");
    query.process_all_available().expect("processed");
    query.stop().expect("stopped");
    // A plan that names a file which is gone when it is read: the file is planned, and the output cannot be written.
    fs::rename(&out, dir.path().join("away")).expect("moved");
    fs::write(&out, "in the way").expect("written");
    put(&input, "1.json", 100..200);
    if let Ok(query) = copy_query(&session, "json", &input, &out, &ck) {
        failure(&query);
    }
    fs::remove_file(&out).expect("removed");
    fs::rename(dir.path().join("away"), &out).expect("moved back");
    fs::rename(input.join("1.json"), dir.path().join("1.json")).expect("taken away");
    if let Ok(query) = copy_query(&session, "json", &input, &out, &ck) {
        // Planned before it went, it is missed; else nobody knows of it.
        std::thread::sleep(Duration::from_millis(300));
        if let Some(error) = query.exception() {
            assert!(error.to_string().contains("1.json"), "{error}");
        } else {
            query.stop().expect("stopped");
        }
    }
    fs::rename(dir.path().join("1.json"), input.join("1.json")).expect("brought back");
    let query = copy_query(&session, "json", &input, &out, &ck).expect("started");
    query.process_all_available().expect("processed");
    assert_eq!(written(&session, &out), ["200|200|0|199"]);
    query.stop().expect("stopped");
}

#[test]
fn a_truncated_parquet_file_is_named_and_read_when_it_is_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let (input, out, ck) = (
        dir.path().join("in"),
        dir.path().join("out"),
        dir.path().join("ck"),
    );
    fs::create_dir(&input).expect("made");
    let session = Session::with_workers(2).expect("a session");
    let make = |name: &str, from: u32| {
        let to = dir.path().join(name);
        let numbers = session.sql(&format!(
            "SELECT explode(sequence({from}L, {}L)) AS v",
            from + 99
        ));
        numbers
            .and_then(|frame| frame.write().format("parquet").path(&to).save())
            .expect("written");
        let file = fs::read_dir(&to)
            .expect("listed")
            .map(|entry| entry.expect("an entry").path())
            .find(|path| path.extension().is_some_and(|e| e == "parquet"));
        fs::read(file.expect("a file")).expect("read")
    };
    let (first, second) = (make("a", 0), make("b", 100));
    fs::write(input.join("0.parquet"), first).expect("written");
    fs::write(input.join("1.parquet"), &second[..second.len() / 2]).expect("written");
    let query = copy_query(&session, "parquet", &input, &out, &ck).expect("started");
    let text = failure(&query);
    assert!(text.contains("1.parquet"), "{text}");
    // The whole file takes its place.
    fs::write(input.join("1.parquet"), second).expect("written");
    let query = copy_query(&session, "parquet", &input, &out, &ck).expect("started");
    query.process_all_available().expect("processed");
    assert_eq!(written(&session, &out), ["200|200|0|199"]);
    query.stop().expect("stopped");
}

/// A wrong row in a file is mended, and the file is longer then; `again` puts it in its place.
fn mended_to_be_longer(format: &str, again: impl Fn(&Path, &str)) {
    let dir = tempfile::tempdir().expect("a directory");
    let [input, out, checkpoint] = ["in", "out", "ck"].map(|name| dir.path().join(name));
    fs::create_dir(&input).expect("made");
    let name = format!("1.{format}");
    let row = |v: u32| match format {
        "json" => format!("{{\"v\":{v}}}\n"),
        _ => format!("{v}\n"),
    };
    let rows = |range: std::ops::Range<u32>| range.map(row).collect::<String>();
    fs::write(input.join(format!("0.{format}")), rows(0..100)).expect("written");
    fs::write(input.join(&name), rows(100..150) + "wrong\n").expect("written");
    let session = Session::with_workers(2).expect("a session");
    let start = || {
        let reader = session.read_stream().format(format).schema("v BIGINT")?;
        let frame = reader
            .option("mode", "FAILFAST")
            .option("maxFilesPerTrigger", 1)
            .path(&input)
            .load()?;
        frame
            .write_stream()
            .format("json")
            .path(&out)
            .option("checkpointLocation", checkpoint.display())
            .option("commitInterval", "0 seconds")
            .start()
    };
    for _ in 0..2 {
        let text = failure(&start().expect("started"));
        assert!(text.contains(&name), "{text}");
    }
    again(&input.join(&name), &rows(100..200));
    // The second run goes by what the first one planned anew, and the third finds the epoch in the sink.
    let query = start().expect("started again");
    query.process_all_available().expect("processed");
    query.stop().expect("stopped");
    let query = start().expect("started once more");
    query.process_all_available().expect("processed");
    assert_eq!(written(&session, &out), ["200|200|0|199"]);
    query.stop().expect("stopped");
}

#[test]
fn a_file_that_is_mended_to_be_longer_is_read_whole() {
    for format in ["json", "csv"] {
        mended_to_be_longer(format, |path, text| fs::write(path, text).expect("written"));
        mended_to_be_longer(format, |path, text| {
            let other = path.with_extension("new");
            fs::write(&other, text).expect("written");
            fs::rename(&other, path).expect("moved");
        });
    }
}

/// Runs over ten files of a hundred rows, of which that number `wrong` cannot be read; the rows written, and then with the
/// file mended.
fn files_before_one_that_fails(workers: usize, wrong: u32) {
    let dir = tempfile::tempdir().expect("a directory");
    let [input, out, checkpoint] = ["in", "out", "ck"].map(|name| dir.path().join(name));
    fs::create_dir(&input).expect("made");
    for file in 0..10 {
        let name = format!("{file}.json");
        put(&input, &name, file * 100..(file + 1) * 100);
        // Oldest first.
        let file = fs::File::open(input.join(&name)).expect("opened");
        let at = std::time::UNIX_EPOCH
            + Duration::from_secs(1_700_000_000 + u64::from(name.as_bytes()[0]));
        file.set_modified(at).expect("set");
    }
    let name = input.join(format!("{wrong}.json"));
    let (right, modified) = (
        fs::read_to_string(&name).expect("read"),
        fs::metadata(&name)
            .and_then(|file| file.modified())
            .expect("told"),
    );
    let replace = |text: &str| {
        fs::write(&name, text).expect("written");
        let file = fs::File::open(&name).expect("opened");
        file.set_modified(modified).expect("set");
    };
    // Of the same length, and wrong in its last row.
    let broken = format!(
        "{}x}}\n",
        right
            .trim_end()
            .trim_end_matches('}')
            .trim_end_matches(|c: char| c.is_ascii_digit())
    );
    replace(&format!("{broken:\n<width$}", width = right.len()));
    let session = Session::with_workers(workers).expect("a session");
    let query =
        copy_grouped(&session, "json", &input, &out, &checkpoint, "1 hour").expect("started");
    let text = failure(&query);
    assert!(text.contains(&format!("{wrong}.json")), "{text}");
    let rows = wrong * 100;
    let expected = match rows {
        0 => "0|0|NULL|NULL".to_string(),
        rows => format!("{rows}|{rows}|0|{}", rows - 1),
    };
    assert_eq!(
        written(&session, &out),
        [expected],
        "{workers} workers, file {wrong}"
    );
    replace(&right);
    let query =
        copy_grouped(&session, "json", &input, &out, &checkpoint, "1 hour").expect("started again");
    query.process_all_available().expect("processed");
    assert_eq!(written(&session, &out), ["1000|1000|0|999"]);
    query.stop().expect("stopped");
}

#[test]
fn epochs_before_one_that_fails_are_committed_whatever_they_would_have_been_committed_with() {
    for workers in [1, 2] {
        for wrong in [0, 1, 6, 9] {
            files_before_one_that_fails(workers, wrong);
        }
    }
}
