//! Checkpoints on S3, as `moto_server` emulates it (a program of the Python package `moto[server]`). Where there is
//! none, these tests say so and do nothing.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use highwater::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::kill::Job;

/// An emulated S3, with a bucket called "bucket".
struct Emulated {
    server: Child,
    port: u16,
}

impl Drop for Emulated {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn free_port() -> u16 {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    port.expect("a port").port()
}

impl Emulated {
    fn start() -> Option<Self> {
        let skipped = |why: &str| {
            eprintln!(
                "SKIPPED: checkpoints on S3 are not tested: {why} (pip install 'moto[server]')"
            );
            None
        };
        let port = free_port();
        let started = Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(server) = started else {
            return skipped("there is no program \"moto_server\"");
        };
        let mut emulated = Emulated { server, port };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if emulated
                .server
                .try_wait()
                .is_ok_and(|ended| ended.is_some())
            {
                return skipped("the program \"moto_server\" does not run");
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "it never listens"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        let made = emulated.ask("PUT", "/bucket");
        assert!(made.starts_with("HTTP/1.1 200"), "{made}");
        Some(emulated)
    }

    /// The server's answer, as it came.
    fn ask(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    }

    /// Names and sizes of the objects whose names begin with `prefix`.
    fn objects(&self, prefix: &str) -> Vec<(String, u64)> {
        let answer = self.ask("GET", &format!("/bucket?list-type=2&prefix={prefix}"));
        let within = |text: &str, tag: &str| {
            let (_, rest) = text.split_once(&format!("<{tag}>"))?;
            let (value, _) = rest.split_once(&format!("</{tag}>"))?;
            Some(value.to_string())
        };
        let objects = answer.split("<Contents>").skip(1);
        let object = |text: &str| Some((within(text, "Key")?, within(text, "Size")?.parse().ok()?));
        objects.filter_map(object).collect()
    }

    /// What the program must find in its environment.
    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", "somebody".into()),
            ("AWS_SECRET_ACCESS_KEY", "a secret".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".into()),
        ]
    }
}

/// The job with its checkpoints below `s3://bucket/{place}`, and nothing written.
fn moved(job: &Job, text: &str, place: &str) {
    job.fresh();
    let text = text.replace(
        "checkpointLocation 'ck/",
        &format!("checkpointLocation 's3://bucket/{place}/"),
    );
    assert_eq!(text.matches("s3://").count(), 2);
    fs::write(job.dir.path().join("job.sql"), text).expect("written");
}

#[test]
fn a_kill_at_any_moment_changes_nothing_with_checkpoints_on_s3() {
    let Some(s3) = Emulated::start() else { return };
    let session = Session::with_workers(2).expect("a session");
    let mut job = Job::new();
    let text = fs::read_to_string(job.dir.path().join("job.sql")).expect("read");
    let flags = ["-w", "2"];
    assert!(job.run(&flags, None));
    let expected = job.answer(&session);
    assert!(expected[0].len() > 100 && expected[1].len() > 10);
    job.environment = s3.environment();
    moved(&job, &text, "whole");
    assert!(job.run(&flags, None));
    assert_eq!(job.answer(&session), expected, "without a kill");
    // Before and after writes.
    for n in [3, 40, 77, 114] {
        moved(&job, &text, &format!("place-{n}"));
        let ended = job.run(&flags, Some(&format!("*:{n}")));
        assert!(!ended, "there are more than {n} places");
        assert!(job.run(&flags, None));
        assert_eq!(job.answer(&session), expected, "killed at {n}");
    }
    // At random, by kill -9.
    let (mut random, mut kills) = (StdRng::seed_from_u64(5), 0);
    for round in 0.. {
        if kills >= 4 {
            break;
        }
        moved(&job, &text, &format!("round-{round}"));
        loop {
            let mut child = job.start(&flags, None);
            std::thread::sleep(Duration::from_millis(random.random_range(100..900)));
            let ended = child.try_wait().expect("waited").is_some();
            let _ = child.kill();
            let _ = child.wait();
            kills += usize::from(!ended);
            // On a busy machine a run may never come to its end in time.
            if ended || kills >= 12 {
                break;
            }
        }
        assert!(job.run(&flags, None));
        assert_eq!(job.answer(&session), expected, "{kills} kills");
    }
    let shown = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(["checkpoint", "show", "s3://bucket/whole/win"])
        .envs(s3.environment())
        .output()
        .expect("the program starts");
    let shown = String::from_utf8(shown.stdout).expect("text");
    assert!(
        shown.contains("checkpoint s3://bucket/whole/win")
            && shown.contains("state      aggregate-0:"),
        "{shown}"
    );
}

/// A job over files of JSON in a directory of its own, and what it says.
struct Small(tempfile::TempDir);

impl Small {
    fn new(options: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("in")).expect("made");
        let text = format!(
            "CREATE TABLE ev (k STRING, v BIGINT) USING json OPTIONS (path 'in', maxFilesPerTrigger '1');\n\
             CREATE STREAMING TABLE t USING noop OPTIONS (outputMode 'update', checkpointInterval '0 seconds', {options})\n\
             AS SELECT k, count(*) AS n, sum(v) AS s FROM STREAM ev GROUP BY k;\n"
        );
        fs::write(dir.path().join("job.sql"), text).expect("written");
        Small(dir)
    }

    fn add(&self, name: &str, keys: std::ops::Range<u32>) {
        let line = |key| {
            format!("{{\"k\":\"a key that is not the shortest one, number {key}\",\"v\":1}}\n")
        };
        let text: String = keys.map(line).collect();
        let hidden = self.0.path().join(name);
        fs::write(&hidden, text).expect("written");
        fs::rename(hidden, self.0.path().join("in").join(name)).expect("moved");
    }

    fn command(&self, said: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        command
            .current_dir(self.0.path())
            .args(["run", "job.sql", "-w", "2"])
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.0.path().join(said)).expect("made"));
        for name in [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_ENDPOINT",
            "AWS_PROFILE",
        ] {
            command.env_remove(name);
        }
        command
    }

    fn said(&self, said: &str) -> String {
        fs::read_to_string(self.0.path().join(said)).unwrap_or_default()
    }
}

#[test]
fn of_two_runs_on_one_checkpoint_on_s3_one_goes_on() {
    let Some(s3) = Emulated::start() else { return };
    for round in 0..3 {
        let small = Small::new(&format!("checkpointLocation 's3://bucket/two-{round}'"));
        small.add("0", 0..10);
        let start = |said: &str| small.command(said).envs(s3.environment()).spawn();
        let mut runs = Vec::new();
        for said in ["first", "second"] {
            runs.push((said, start(said).expect("started")));
            // At once, and when the first one runs.
            std::thread::sleep(Duration::from_millis(700 * round));
        }
        let begun = Instant::now();
        let mut added = 1;
        let over = loop {
            let over: Vec<usize> = (0..2)
                .filter(|at| runs[*at].1.try_wait().expect("waited").is_some())
                .collect();
            if !over.is_empty() {
                break over;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "both go on");
            small.add(&added.to_string(), 0..10);
            added += 1;
            std::thread::sleep(Duration::from_millis(100));
        };
        assert_eq!(
            over.len(),
            1,
            "{} {}",
            small.said("first"),
            small.said("second")
        );
        let (said, mut loser) = runs.remove(over[0]);
        assert_eq!(loser.wait().expect("it ended").code(), Some(1));
        let text = small.said(said);
        assert!(text.contains("CONCURRENT_STREAM_LOG_UPDATE"), "{text}");
        let (said, mut winner) = runs.remove(0);
        small.add("more", 0..10);
        std::thread::sleep(Duration::from_millis(500));
        let ended = winner.try_wait().expect("waited");
        let _ = winner.kill();
        let _ = winner.wait();
        assert!(
            ended.is_none(),
            "the other one goes on: {}",
            small.said(said)
        );
    }
}

#[test]
fn a_checkpoint_on_s3_writes_what_changed_in_parts() {
    let Some(s3) = Emulated::start() else { return };
    let small = Small::new("checkpointLocation 's3://bucket/large', trigger 'availableNow'");
    let run = || {
        let status = small.command("said").envs(s3.environment()).status();
        assert!(status.expect("it runs").success(), "{}", small.said("said"));
        s3.objects("large/state/")
    };
    small.add("0", 0..300_000);
    let first = run();
    let whole: u64 = first.iter().map(|(_, size)| size).sum();
    assert!(
        first.iter().any(|(_, size)| *size > 8 << 20),
        "a file is larger than a part: {first:?}"
    );
    small.add("1", 299_990..300_010);
    let second = run();
    let new = second.iter().filter(|object| !first.contains(object));
    let new: u64 = new.map(|(_, size)| size).sum();
    assert!(0 < new && new < whole / 100, "{new} bytes of {whole}");
}

/// A checkpoint, what the environment does not say, another endpoint, and what the error says.
type Trouble<'a> = (&'a str, &'a [&'a str], Option<&'a str>, &'a [&'a str]);

#[test]
fn what_is_wrong_with_a_store_is_one_clear_error() {
    let Some(s3) = Emulated::start() else { return };
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let cases: [Trouble<'_>; 4] = [
        (
            "s3://elsewhere/ck",
            &[],
            None,
            &["s3://elsewhere/ck", "the bucket does not exist"],
        ),
        (
            "s3://bucket/ck",
            &[],
            Some(&nobody),
            &["s3://bucket/ck", "Connection refused"],
        ),
        (
            "s3://bucket/ck",
            &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
            None,
            &[
                "s3://bucket/ck",
                "no credentials are given",
                "AWS_ACCESS_KEY_ID",
            ],
        ),
        (
            "s3://bucket/ck",
            &["AWS_ALLOW_HTTP"],
            None,
            &["not https", "AWS_ALLOW_HTTP=true"],
        ),
    ];
    for (location, without, endpoint, words) in cases {
        let small = Small::new(&format!(
            "checkpointLocation '{location}', trigger 'availableNow'"
        ));
        small.add("0", 0..10);
        let mut command = small.command("said");
        command.envs(s3.environment());
        without.iter().for_each(|name| {
            command.env_remove(name);
        });
        if let Some(endpoint) = endpoint {
            command.env("AWS_ENDPOINT", endpoint);
        }
        let begun = Instant::now();
        let status = command.status().expect("it runs");
        let took = begun.elapsed();
        let said = small.said("said");
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(took < Duration::from_secs(30), "{took:?}: {said}");
        let errors: Vec<&str> = said
            .lines()
            .filter(|line| line.starts_with("highwater:"))
            .collect();
        assert_eq!(errors.len(), 1, "{said}");
        for word in words {
            assert!(errors[0].contains(word), "no \"{word}\" in {said}");
        }
        assert!(!Path::new(&small.0.path().join("ck")).exists());
    }
}
