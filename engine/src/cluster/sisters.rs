//! The other processes of a session, when this one starts them itself, and starts again those that die.

use std::ffi::OsString;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::{ExitStatusExt, parent_id};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::args::{SECRET, SOCKETS, SUPERVISOR};
use super::link::Lost;
use super::mesh::Meeting;
use super::{ClusterConfig, ClusterError, now};

/// After so long without a restart the count begins anew.
const QUIET: Duration = Duration::from_secs(60);

/// Sister processes on this machine; ended with the session.
pub(crate) struct Sisters {
    sisters: Vec<Sister>,
    sockets: PathBuf,
    secret: String,
    restarts: Restarts,
    /// A process that was not restarted joins the others within this time.
    patience: Duration,
    /// When this process began to wait for the others.
    meeting_since: Instant,
    first_meeting: bool,
}

struct Sister {
    index: usize,
    child: Option<Child>,
    /// When it is to be started again.
    due: Option<Instant>,
    /// True if it was started in this meeting.
    fresh: bool,
}

impl Sisters {
    /// Starts processes 1 to N-1 with this program's own arguments and their number. What they print is
    /// dropped: a program says a thing once, and an error of theirs reaches this process as the query's.
    pub(crate) fn start(config: &ClusterConfig) -> Result<Self, ClusterError> {
        let secret = format!(
            "{}{}",
            uuid::Uuid::new_v4().simple(),
            uuid::Uuid::new_v4().simple()
        );
        let sockets = private_dir().map_err(|source| ClusterError::Start { index: 0, source })?;
        let mut sisters = Sisters {
            sisters: Vec::new(),
            sockets,
            secret,
            restarts: Restarts::new(config),
            patience: config.heartbeat_timeout.max(Duration::from_secs(2)),
            meeting_since: now(),
            first_meeting: true,
        };
        for index in 1..config.processes {
            let child = Some(sisters.spawn(index)?);
            sisters.sisters.push(Sister {
                index,
                child,
                due: None,
                fresh: true,
            });
        }
        Ok(sisters)
    }

    fn spawn(&self, index: usize) -> Result<Child, ClusterError> {
        let failed = |source| ClusterError::Start { index, source };
        let program = std::env::current_exe().map_err(failed)?;
        let mut args: Vec<OsString> = std::env::args_os().skip(1).collect();
        // Behind the words that choose what the program does, and before what is no flag for certain.
        let end = args
            .iter()
            .position(|arg| arg == "--")
            .unwrap_or(args.len());
        let number = ["-p".into(), index.to_string().into()];
        args.splice(end..end, number);
        Command::new(&program)
            .args(args)
            .env(SECRET, &self.secret)
            .env(SOCKETS, &self.sockets)
            .env(SUPERVISOR, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)
    }

    /// Where this process meets them.
    pub(crate) fn meeting(&self) -> Meeting {
        Meeting {
            secret: self.secret.clone(),
            sockets: Some(self.sockets.clone()),
        }
    }

    /// One of them counts as dead, and all are to meet again.
    pub(crate) fn lost(&mut self, lost: &Lost) {
        self.first_meeting = false;
        self.meeting_since = now();
        for sister in &mut self.sisters {
            sister.fresh = false;
            if sister.index == lost.peer && lost.silent {
                sister.kill();
            }
        }
    }

    /// Looks after them while this process waits: starts the dead ones again, after a pause, and ends those that live and
    /// do not come. `there` are those that are waiting too.
    pub(crate) fn tend(&mut self, there: &[bool]) -> Result<(), ClusterError> {
        let now = now();
        let slow = now.duration_since(self.meeting_since) > self.patience;
        for at in 0..self.sisters.len() {
            let sister = &mut self.sisters[at];
            let index = sister.index;
            if slow && !sister.fresh && there.get(index) == Some(&false) {
                sister.kill();
            }
            if let Some(status) = sister.ended() {
                let how = describe(status);
                // It says no to the program itself, and would again; a signal comes from elsewhere.
                if self.first_meeting && status.signal().is_none() {
                    return Err(ClusterError::Ended { index, how });
                }
                let pause = self.restarts.next(now);
                let limit = self.restarts.limit;
                let pause = pause.ok_or_else(|| ClusterError::Restarts {
                    index,
                    how: how.clone(),
                    limit,
                })?;
                tracing::warn!("process {index} ended ({how}); it is started again");
                sister.due = Some(now + pause);
            }
            if sister.due.is_some_and(|due| due <= now) {
                let child = Some(self.spawn(index)?);
                let sister = &mut self.sisters[at];
                (sister.child, sister.due, sister.fresh) = (child, None, true);
            }
        }
        Ok(())
    }

    /// Waits for sisters that are about to end by themselves; ends those that are not.
    pub(crate) fn end(&mut self) {
        let mut patience = 200;
        for sister in &mut self.sisters {
            let Some(child) = &mut sister.child else {
                continue;
            };
            while patience > 0 && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(10));
                patience -= 1;
            }
            sister.kill();
            if let Some(child) = &mut sister.child {
                let _ = child.wait();
            }
        }
        self.sisters.clear();
        let _ = std::fs::remove_dir_all(&self.sockets);
    }
}

impl Sister {
    /// Ends it at once, also when it is stopped.
    fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
        }
    }

    /// How it ended, if it did; told once.
    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }
}

impl Drop for Sisters {
    fn drop(&mut self) {
        self.end();
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "for an unknown reason".into(),
    }
}

/// How often, and how soon, a process may be started again.
struct Restarts {
    limit: u32,
    pause: Duration,
    pause_max: Duration,
    used: u32,
    last: Option<Instant>,
}

impl Restarts {
    fn new(config: &ClusterConfig) -> Self {
        Restarts {
            limit: config.restarts,
            pause: config.restart_pause,
            pause_max: config.restart_pause_max,
            used: 0,
            last: None,
        }
    }

    /// How long to wait before the next restart; none if there were too many.
    fn next(&mut self, now: Instant) -> Option<Duration> {
        if self
            .last
            .is_some_and(|last| now.duration_since(last) > QUIET)
        {
            self.used = 0;
        }
        if self.used == self.limit {
            return None;
        }
        let pause = self.pause.saturating_mul(1 << self.used.min(16));
        let pause = pause.min(self.pause_max);
        self.used += 1;
        self.last = Some(now);
        Some(pause)
    }
}

/// A new directory that only this user can enter.
fn private_dir() -> std::io::Result<PathBuf> {
    let name = format!("highwater-sockets-{}", uuid::Uuid::new_v4().simple());
    let dir = std::env::temp_dir().join(name);
    std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
    Ok(dir)
}

/// The process that started this one and looks after it.
#[derive(Debug, Clone)]
pub(crate) struct Supervisor {
    id: u32,
    sockets: Option<PathBuf>,
}

impl Supervisor {
    /// Who it is, if this is a sister.
    pub(crate) fn from_env() -> Option<Self> {
        let id = std::env::var(SUPERVISOR).ok()?.parse().ok()?;
        let sockets = std::env::var_os(SOCKETS).map(PathBuf::from);
        Some(Supervisor { id, sockets })
    }

    /// True once it has ended. Nobody else removes the directory that it made.
    pub(crate) fn is_gone(&self) -> bool {
        let gone = parent_id() != self.id;
        if gone && let Some(sockets) = &self.sockets {
            let _ = std::fs::remove_dir_all(sockets);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_back_off_and_are_limited() {
        let mut restarts = Restarts::new(&ClusterConfig {
            restarts: 8,
            ..ClusterConfig::default()
        });
        let begun = now();
        let pauses: Vec<_> = std::iter::from_fn(|| restarts.next(begun))
            .map(|pause| pause.as_millis())
            .collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(restarts.next(begun + QUIET), None, "not quiet long enough");
        let later = begun + QUIET + Duration::from_millis(1);
        assert_eq!(restarts.next(later), Some(Duration::from_millis(100)));
    }
}
