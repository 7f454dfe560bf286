//! Many files: what they cost in memory and in time. Run by hand, for the numbers:
//! `cargo test -p highwater-connectors --lib many_files -- --ignored --nocapture`.

use std::time::Instant;

use super::*;
use crate::files::seen::Seen;

/// Kilobytes of memory that this process holds.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

#[test]
#[ignore = "a measurement that makes a million files"]
fn many_files() {
    let dir = tempfile::tempdir().unwrap();
    const FILES: usize = 1_000_000;
    for n in 0..FILES {
        fs::write(dir.path().join(format!("part-{n:09}-c000.json")), "").unwrap();
    }
    let factory = factory("text", stream(&dir)).unwrap();
    let mut source = factory.open().unwrap();
    let at = source.initial().unwrap();
    std::thread::sleep(Duration::from_millis(60));
    let poll = |source: &mut Box<dyn Source>, what: &str| {
        let begun = Instant::now();
        let latest = source.latest().unwrap();
        println!("{what}: {:?}, {} kB", begun.elapsed(), resident());
        latest
    };
    println!("before: {} kB", resident());
    let all = poll(&mut source, "first poll of 1 M files");
    poll(&mut source, "nothing is new");
    fs::write(dir.path().join("new"), "").unwrap();
    poll(&mut source, "one file is new, the directory is young");
    std::thread::sleep(Duration::from_millis(60));
    poll(&mut source, "nothing is new, listed once more");
    poll(&mut source, "nothing is new");
    let begun = Instant::now();
    let (mut at, mut epochs) = (at, 0);
    while let Some(admitted) = source.admit(&at, &all, u64::MAX).unwrap() {
        at = admitted.end;
        source.remember(&at);
        source.committed(&at).unwrap();
        epochs += 1;
    }
    println!(
        "admitted, remembered and committed in {epochs} epochs: {:?}, {} kB",
        begun.elapsed(),
        resident()
    );
}

#[test]
#[ignore = "a measurement that takes some memory"]
fn many_names() {
    let before = resident();
    let mut seen = Seen::new(false);
    let begun = Instant::now();
    for n in 0..2_000_000 {
        seen.meet(
            "/data/in/day=2024-01-05",
            &format!("part-{n:09}-c000.json"),
            n,
        );
    }
    println!(
        "2 M names: {:?}, {} bytes each",
        begun.elapsed(),
        (resident() - before) * 1024 / 2_000_000
    );
}
