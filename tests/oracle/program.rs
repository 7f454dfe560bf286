//! A case's query in a program of its own, which is killed and started again until it has taken in all there is.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use highwater::{Error, Session};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::case::{Case, Running};
use crate::taken::{self, Taken};

/// What the program is told: its seed, the number of workers, whether it checkpoints every epoch, and its directory.
const TOLD: &str = "HIGHWATER_ORACLE_PROGRAM";

/// Runs it over what is in `dir`; how often it was killed.
pub(crate) fn run(
    dir: &Path,
    seed: u64,
    random: &mut StdRng,
    taken: &Mutex<Taken>,
) -> Result<(Option<Running>, u32), Error> {
    let sink = dir.join("taken");
    std::fs::create_dir_all(&sink).expect("made");
    let mut kills = 0;
    loop {
        let (workers, often) = (
            [1, 2, 4][random.random_range(0..3)],
            random.random_bool(0.7),
        );
        let place = format!("*:{}", random.random_range(1..30));
        // At a durable write, at any moment, or not at all.
        let (place, moment) = match random.random_range(0..5) {
            _ if kills > 3 => (String::new(), None),
            0 => (String::new(), Some(random.random_range(20..400))),
            1 => (String::new(), None),
            _ => (place, None),
        };
        let program = std::env::current_exe().expect("this program has a file");
        let errors = std::fs::File::create(dir.join("stderr")).expect("made");
        let mut child = Command::new(program)
            .args(["program_of_a_case", "--exact", "--nocapture"])
            .env(TOLD, format!("{seed} {workers} {often} {}", dir.display()))
            .env("HIGHWATER_CRASH_AT", place)
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .expect("the program starts");
        if let Some(ms) = moment {
            std::thread::sleep(Duration::from_millis(ms));
            let _ = child.kill();
        }
        let status = child.wait().expect("waited");
        if status.success() {
            taken.lock().expect("no panic").epochs = Taken::read(&sink);
            return Ok((None, kills));
        }
        if status.signal().is_none() {
            let text = std::fs::read_to_string(dir.join("stderr")).unwrap_or_default();
            return Err(Error::Run { message: text });
        }
        kills += 1;
    }
}

/// The program, where this one was started to be it.
pub(crate) fn live() {
    let Ok(told) = std::env::var(TOLD) else {
        return;
    };
    let mut words = told.splitn(4, ' ');
    let mut word = || words.next().expect("four words");
    let case = Case::new(word().parse().expect("a seed"));
    let workers = word().parse().expect("a number");
    let often = word() == "true";
    let dir = Path::new(word());
    let session = Session::with_workers(workers).expect("a session");
    let (sink, checkpoint) = (dir.join("taken"), dir.join("checkpoint"));
    let checkpoint = checkpoint.display().to_string();
    let query = case.query_of(&session, dir, &checkpoint, often, move |epoch, rows| {
        taken::put(&sink, epoch, &rows);
        Ok(())
    });
    let ran = query.and_then(|query| query.process_all_available());
    ran.expect("it runs");
}
