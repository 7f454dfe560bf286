//! Processes of a running program die, stop, and come back, one after the other: the answer is that of one process
//! that nothing happened to, and those that live are never started again.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use highwater::prelude::*;

use super::kill::{FILES, Job};

/// A job that runs on while its files arrive one by one.
struct Live {
    job: Job,
    session: Session,
    expected: [Vec<String>; 3],
    arrived: usize,
}

impl Live {
    fn new() -> Self {
        let session = Session::with_workers(1).expect("a session");
        let job = Job::new();
        let dir = job.dir.path();
        // Which rows are late depends on how files share epochs: here none is.
        let text = fs::read_to_string(dir.join("job.sql")).expect("read");
        let text = text.replace("INTERVAL 5 SECONDS", "INTERVAL 60 SECONDS");
        fs::write(dir.join("job.sql"), &text).expect("written");
        assert!(job.run(&["-w", "2"], None));
        let expected = job.answer(&session);
        assert!(expected[0].len() > 100 && expected[1].len() > 10);
        job.fresh();
        fs::rename(dir.join("in"), dir.join("later")).expect("moved");
        fs::create_dir(dir.join("in")).expect("made");
        let live = text.replace("trigger 'availableNow'", "trigger 'default'");
        assert_ne!(live, text);
        fs::write(dir.join("job.sql"), live).expect("written");
        Live {
            job,
            session,
            expected,
            arrived: 0,
        }
    }

    fn dir(&self) -> &Path {
        self.job.dir.path()
    }

    /// One more file; waits until some of its rows are committed. Tells how long that took.
    fn next_file(&mut self) -> Duration {
        let before = written(&self.dir().join("out/etl"));
        let name = format!("{:02}.json", self.arrived);
        self.arrived += 1;
        let begun = Instant::now();
        fs::rename(
            self.dir().join("later").join(&name),
            self.dir().join("in").join(&name),
        )
        .expect("moved");
        self.wait_until(|live| written(&live.dir().join("out/etl")) > before);
        begun.elapsed()
    }

    fn wait_until(&self, mut done: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "nothing happens after file {}: {}",
                self.arrived,
                self.job.stderr()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The rest of the files, the whole answer, and an end in order.
    fn finish(mut self, mut first: Running) {
        while self.arrived < FILES {
            self.next_file();
        }
        let out = self.dir().join("out");
        let (etl, win) = (out.join("etl"), out.join("win"));
        self.wait_until(|live| {
            let all = [&etl, &win].iter().all(|table| written(table) > 0);
            all && live.job.committed(&live.session) == live.expected
        });
        assert!(first.0.try_wait().expect("waited").is_none(), "it lives");
        signal("TERM", first.0.id());
        let mut status = None;
        self.wait_until(|_| {
            status = first.0.try_wait().expect("waited");
            status.is_some()
        });
        assert!(status.expect("ended").success(), "{}", self.job.stderr());
        assert_eq!(self.job.answer(&self.session), self.expected);
    }
}

/// Files of a table that a listing shows.
fn written(table: &Path) -> usize {
    let Ok(entries) = fs::read_dir(table) else {
        return 0;
    };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let shown = paths.filter(|path| {
        let name = path.file_name().expect("named").to_string_lossy();
        !name.starts_with(['_', '.'])
    });
    shown
        .map(|path| if path.is_dir() { written(&path) } else { 1 })
        .sum()
}

/// A process that is killed in the end, whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(name: &str, process: u32) {
    let killed = Command::new("kill")
        .args([format!("-{name}"), process.to_string()])
        .status();
    assert!(killed.expect("kill runs").success());
}

/// The processes that a process started and that have not ended, oldest first.
fn sisters(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let mut found = Vec::new();
    for task in tasks {
        let path = task.expect("a thread").path().join("children");
        let children = fs::read_to_string(path).unwrap_or_default();
        found.extend(
            children
                .split_whitespace()
                .filter_map(|id| id.parse::<u32>().ok()),
        );
    }
    found.retain(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    });
    found.sort_unstable();
    found
}

#[test]
fn sisters_that_are_killed_are_replaced() {
    for processes in [2, 3] {
        let mut live = Live::new();
        // Several workers of one process tell of one loss, each for itself.
        let flags = ["-w", "2", "-n", &processes.to_string()];
        let first = Running(live.job.start(&flags, None));
        live.next_file();
        for round in 0..4 {
            let before = sisters(first.0.id());
            assert_eq!(before.len(), processes - 1);
            let victim = before[round % before.len()];
            signal("KILL", victim);
            let took = live.next_file();
            println!("{processes} processes: {took:?} from the kill to the next epoch");
            live.wait_until(|_| sisters(first.0.id()).len() == processes - 1);
            let after = sisters(first.0.id());
            assert!(!after.contains(&victim));
            for survivor in before.iter().filter(|id| **id != victim) {
                assert!(after.contains(survivor), "{survivor} was started again");
            }
        }
        live.finish(first);
    }
}

#[test]
fn a_sister_that_is_killed_before_it_joins_is_replaced() {
    let mut live = Live::new();
    for pause_ms in [0, 5, 20, 40, 80, 160] {
        let mut first = Running(live.job.start(&["-n", "2"], None));
        live.wait_until(|_| !sisters(first.0.id()).is_empty());
        std::thread::sleep(Duration::from_millis(pause_ms));
        signal("KILL", sisters(first.0.id())[0]);
        live.next_file();
        let running = first.0.try_wait().expect("waited").is_none();
        assert!(running, "after {pause_ms} ms: {}", live.job.stderr());
    }
    let first = Running(live.job.start(&["-n", "2"], None));
    live.finish(first);
}

#[test]
fn a_program_that_is_stopped_while_its_processes_meet_again_ends_in_order() {
    let mut live = Live::new();
    let first = Running(live.job.start(&["-w", "2", "-n", "2"], None));
    live.next_file();
    drop(first);
    for pause_ms in [0, 60, 120, 180, 240, 300] {
        let mut first = Running(live.job.start(&["-w", "2", "-n", "2"], None));
        live.wait_until(|_| !sisters(first.0.id()).is_empty());
        std::thread::sleep(Duration::from_millis(400));
        let sister = *sisters(first.0.id()).last().expect("a sister");
        signal("KILL", sister);
        std::thread::sleep(Duration::from_millis(pause_ms));
        signal("TERM", first.0.id());
        let mut status = None;
        live.wait_until(|_| {
            status = first.0.try_wait().expect("waited");
            status.is_some()
        });
        let text = live.job.stderr();
        assert!(
            status.expect("ended").success(),
            "after {pause_ms} ms: {text}"
        );
    }
    let first = Running(live.job.start(&["-w", "2", "-n", "2"], None));
    live.finish(first);
}

#[test]
fn a_sister_that_is_stopped_is_replaced() {
    let mut live = Live::new();
    let first = Running(
        live.job
            .start(&["-n", "3", "--heartbeat-timeout", "1"], None),
    );
    live.next_file();
    let victims = sisters(first.0.id());
    signal("STOP", victims[0]);
    let took = live.next_file();
    println!("{took:?} from the stop to the next epoch, a second of it silence");
    assert!(!sisters(first.0.id()).contains(&victims[0]));
    assert!(sisters(first.0.id()).contains(&victims[1]));
    live.finish(first);
}

#[test]
fn too_many_restarts_end_the_program_with_one_error() {
    let mut live = Live::new();
    let mut first = Running(live.job.start(&["-n", "2", "--restarts", "1"], None));
    live.next_file();
    signal("KILL", sisters(first.0.id())[0]);
    live.next_file();
    signal("KILL", sisters(first.0.id())[0]);
    let mut status = None;
    live.wait_until(|_| {
        status = first.0.try_wait().expect("waited");
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(1));
    let said = live.job.stderr();
    assert!(
        said.contains("process 1 ended again (signal 9) after 1 restarts"),
        "{said}"
    );
    assert!(!said.contains("panicked"), "{said}");
    // What was committed is whole: another number of processes and workers goes on from there.
    let again = Running(live.job.start(&["-w", "3"], None));
    live.next_file();
    live.finish(again);
}

#[test]
fn sisters_end_with_the_process_that_started_them() {
    let mut live = Live::new();
    let mut first = Running(live.job.start(&["-n", "3"], None));
    live.next_file();
    let orphans = sisters(first.0.id());
    assert_eq!(orphans.len(), 2);
    first.0.kill().expect("killed");
    first.0.wait().expect("waited");
    live.wait_until(|_| {
        orphans
            .iter()
            .all(|id| !Path::new(&format!("/proc/{id}")).exists())
    });
    // The next run has the checkpoint to itself.
    let again = Running(live.job.start(&["-n", "2", "-w", "2"], None));
    live.finish(again);
}

/// A host file for processes on this machine.
fn hostfile(dir: &Path, processes: usize) -> Vec<String> {
    // Held together, so that they are different.
    let held: Vec<TcpListener> = (0..processes)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"))
        .collect();
    let hosts: Vec<String> = held
        .iter()
        .map(|port| port.local_addr().expect("bound").to_string())
        .collect();
    fs::write(dir.join("hosts"), hosts.join("\n")).expect("written");
    hosts
}

fn member(live: &Live, index: usize, of: usize) -> Running {
    let errors = fs::File::create(live.dir().join(format!("stderr{index}"))).expect("made");
    let child = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .current_dir(live.dir())
        .args(["run", "job.sql", "--hostfile", "hosts", "-n"])
        .args([of.to_string(), "-p".into(), index.to_string()])
        .args(["--heartbeat-timeout", "2"])
        .env("HIGHWATER_SECRET", "a secret that all of them know")
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn();
    Running(child.expect("the program starts"))
}

/// Connects to all of `hosts` with nonsense, as often as anybody listens.
fn pester(hosts: &[String]) {
    for host in hosts {
        if let Ok(mut stray) = TcpStream::connect(host) {
            let _ = stray.write_all(&[0xff; 4096]);
        }
    }
}

#[test]
fn a_process_of_a_cluster_may_come_back() {
    let mut live = Live::new();
    let hosts = hostfile(live.dir(), 3);
    let mut members: Vec<Running> = (0..3).map(|index| member(&live, index, 3)).collect();
    let pestered = hosts.clone();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = std::sync::Arc::clone(&stop);
    let pest = std::thread::spawn(move || {
        while !told.load(std::sync::atomic::Ordering::SeqCst) {
            pester(&pestered);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    live.next_file();
    // Any of them, the one that plans and commits too.
    for index in [2, 0, 1] {
        members[index].0.kill().expect("killed");
        members[index].0.wait().expect("waited");
        members[index] = member(&live, index, 3);
        let took = live.next_file();
        println!("process {index} came back: {took:?} to the next epoch, with its start");
    }
    let first = members.remove(0);
    live.finish(first);
    for mut other in members {
        let begun = Instant::now();
        while other.0.try_wait().expect("waited").is_none() {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "it goes on alone"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    pest.join().expect("no panic");
}

#[test]
fn a_process_that_was_taken_for_lost_may_come_back_and_writes_nothing_stale() {
    let mut live = Live::new();
    hostfile(live.dir(), 3);
    let mut members: Vec<Running> = (0..3).map(|index| member(&live, index, 3)).collect();
    live.next_file();
    // Another one, and the one that plans and commits: it wakes in the belief that it still does.
    for (round, index) in [1, 0].into_iter().enumerate() {
        signal("STOP", members[index].0.id());
        std::thread::sleep(Duration::from_secs(4));
        let others = (0..3).filter(|other| *other != index);
        for other in others {
            let log = fs::read_to_string(live.dir().join(format!("stderr{other}")));
            let log = log.expect("text");
            // Of the one that is silent, or of another that has noticed before.
            let met = log.matches("the processes meet again").count();
            assert!(met > round, "process {other} noticed nothing: {log}");
        }
        signal("CONT", members[index].0.id());
        let took = live.next_file();
        println!("process {index} woke up: {took:?} to the next epoch");
        for member in &mut members {
            assert!(member.0.try_wait().expect("waited").is_none(), "all live");
        }
    }
    let first = members.remove(0);
    live.finish(first);
}
