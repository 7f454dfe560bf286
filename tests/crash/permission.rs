//! What the program may not read or write is told once, by path, while other queries go on; allowed again, a restart
//! loses nothing.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use highwater::prelude::*;

use super::common::{canonical, rows_of};

/// Whom permissions bind, where this process is the one whom they do not.
const NOBODY: u32 = 65534;

/// Two queries over directories of their own, in a program that permissions bind.
struct Program {
    dir: tempfile::TempDir,
    session: Session,
    child: Option<Child>,
    files: u64,
}

impl Program {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut program = Program {
            dir,
            session: Session::with_workers(1).expect("a session"),
            child: None,
            files: 0,
        };
        let mut job = String::new();
        for name in ["bad", "good"] {
            job.push_str(&format!(
                "CREATE TABLE {name}_in (v BIGINT) USING json OPTIONS (path 'in/{name}', maxFilesPerTrigger '1');\n\
                 CREATE STREAMING TABLE {name} USING json OPTIONS (path 'out/{name}', checkpointLocation 'ck/{name}', \
                 commitInterval '0 seconds', checkpointInterval '0 seconds') AS SELECT v FROM STREAM {name}_in;\n"
            ));
            for part in ["in", "out", "ck"] {
                fs::create_dir_all(program.at(part).join(name)).expect("made");
            }
        }
        fs::write(program.at("job.sql"), job).expect("written");
        program.give(program.dir.path());
        program.put("bad");
        program.put("good");
        program
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Hands `path` and what is below it to whom permissions bind.
    fn give(&self, path: &Path) {
        if self.is_bound() {
            return;
        }
        chown(path, Some(NOBODY), Some(NOBODY)).expect("given away");
        if path.is_dir() {
            for entry in fs::read_dir(path).expect("listed") {
                self.give(&entry.expect("an entry").path());
            }
        }
    }

    /// True if permissions bind this process.
    fn is_bound(&self) -> bool {
        fs::metadata("/proc/self").expect("a process").uid() != 0
    }

    /// Ten rows more for a query.
    fn put(&mut self, name: &str) -> PathBuf {
        self.put_as(name, 0o644)
    }

    fn put_as(&mut self, name: &str, mode: u32) -> PathBuf {
        let number = self.files;
        self.files += 1;
        let rows: String = (0..10)
            .map(|i| format!("{{\"v\":{}}}\n", number * 10 + i))
            .collect();
        let path = self.at("in").join(name).join(format!("{number}.json"));
        let hidden = path.with_file_name(".hidden");
        fs::write(&hidden, rows).expect("written");
        fs::set_permissions(&hidden, fs::Permissions::from_mode(mode)).expect("set");
        fs::rename(hidden, &path).expect("renamed");
        path
    }

    fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        command
            .current_dir(self.dir.path())
            .args(["run", "job.sql"])
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.at("stderr")).expect("made"));
        if !self.is_bound() {
            command.uid(NOBODY).gid(NOBODY);
        }
        self.child = Some(command.spawn().expect("the program starts"));
    }

    fn said(&self) -> String {
        fs::read_to_string(self.at("stderr")).expect("text")
    }

    /// Rows, and different ones, in the output of a query.
    fn written(&self, name: &str) -> String {
        let read = self.session.read().format("json").schema("v BIGINT");
        let frame = read.and_then(|reader| reader.path(self.at("out").join(name)).load());
        let named = frame.and_then(|frame| frame.create_or_replace_temp_view("written"));
        named.expect("read");
        let rows = rows_of(
            &self.session,
            "SELECT count(*), count(DISTINCT v) FROM written",
        );
        canonical(&rows).remove(0)
    }

    fn wait_until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            let waited = begun.elapsed();
            assert!(waited < Duration::from_secs(30), "{what}: {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the program with a signal; its exit code.
    fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("it runs");
        if child.try_wait().expect("waited").is_none() {
            let id = child.id().to_string();
            let status = Command::new("kill").args(["-TERM", &id]).status();
            assert!(status.expect("kill runs").success());
        }
        child.wait().expect("waited").code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Forbids `path` all but `mode` while two queries run; one of them is to fail by `named`.
fn check(mode: u32, named: &str, path: impl FnOnce(&mut Program) -> PathBuf) {
    let mut program = Program::new();
    program.start();
    program.wait_until("the first rows", |program| {
        ["bad", "good"]
            .iter()
            .all(|name| program.written(name) == "10|10")
    });
    let path = path(&mut program);
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("forbidden");
    program.put("bad");
    let failed = |program: &Program| program.said().contains("\"level\":\"ERROR\"");
    program.wait_until("the failure", failed);
    program.put("good");
    program.wait_until("the other goes on", |program| {
        program.written("good") == "20|20"
    });
    let code = program.stop();
    let said = program.said();
    assert_eq!(code, Some(1), "{said}");
    // In the log when it happened, and as the reason of the exit code.
    for mark in ["\"level\":\"ERROR\"", "highwater: "] {
        let lines: Vec<&str> = said.lines().filter(|line| line.contains(mark)).collect();
        assert_eq!(lines.len(), 1, "one error: {said}");
        for word in ["query \"bad\" failed", named, "Permission denied"] {
            let line = lines[0].replace("\\\"", "\"");
            assert!(line.contains(word), "no \"{word}\" in: {line}");
        }
    }
    // Still forbidden: the same, told at once.
    program.start();
    program.wait_until("the same failure", |program| {
        let said = program.said();
        said.lines()
            .any(|line| line.starts_with("highwater: ") && line.contains(named))
            || failed(program)
    });
    program.stop();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("allowed");
    let rows = fs::read_dir(program.at("in/bad")).expect("listed").count() * 10;
    program.start();
    program.wait_until("all rows", |program| {
        program.written("bad") == format!("{rows}|{rows}")
    });
    assert_eq!(program.stop(), Some(0), "{}", program.said());
    assert_eq!(program.written("good"), "20|20");
}

#[test]
fn a_file_that_may_not_be_read_is_named() {
    check(0o000, "in/bad/2.json", |program| {
        program.put_as("bad", 0o000)
    });
}

#[test]
fn a_directory_that_may_not_be_listed_is_named() {
    check(0o000, "in/bad", |program| program.at("in/bad"));
}

#[test]
fn an_output_that_may_not_be_written_is_named() {
    check(0o555, "out/bad", |program| program.at("out/bad"));
}

#[test]
fn a_checkpoint_that_may_not_be_written_is_named() {
    check(0o555, "ck/bad/offsets", |program| {
        program.at("ck/bad/offsets")
    });
}

#[test]
fn a_checkpoint_that_may_not_be_read_is_named() {
    check(0o000, "ck/bad", |program| program.at("ck/bad"));
}
