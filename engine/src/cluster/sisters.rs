//! The other processes of a session, when this one starts them itself.

use std::ffi::OsString;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::args::{SECRET, SOCKETS};
use super::mesh::{Meeting, PRIVATE_DIR};
use super::{ClusterConfig, ClusterError};

/// Sister processes on this machine; ended with the session.
pub(crate) struct Sisters {
    children: Vec<(usize, Child)>,
    sockets: PathBuf,
    secret: String,
}

impl Sisters {
    /// Starts processes 1 to N-1 with this program's own arguments and their number. What they print is
    /// dropped: a program says a thing once, and an error of theirs reaches this process as the query's.
    pub(crate) fn start(config: &ClusterConfig) -> Result<Self, ClusterError> {
        let failed = |index| move |source| ClusterError::Start { index, source };
        let secret = format!(
            "{}{}",
            uuid::Uuid::new_v4().simple(),
            uuid::Uuid::new_v4().simple()
        );
        let sockets = private_dir().map_err(failed(0))?;
        let program = std::env::current_exe().map_err(failed(0))?;
        let mut sisters = Sisters {
            children: Vec::new(),
            sockets,
            secret,
        };
        for index in 1..config.processes {
            let mut args: Vec<OsString> = std::env::args_os().skip(1).collect();
            // Behind the words that choose what the program does, and before what is no flag for certain.
            let end = args
                .iter()
                .position(|arg| arg == "--")
                .unwrap_or(args.len());
            let number = ["-p".into(), index.to_string().into()];
            args.splice(end..end, number);
            let child = Command::new(&program)
                .args(args)
                .env(SECRET, &sisters.secret)
                .env(SOCKETS, &sisters.sockets)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .map_err(failed(index))?;
            sisters.children.push((index, child));
        }
        Ok(sisters)
    }

    /// Where this process meets them.
    pub(crate) fn meeting(&self) -> Meeting {
        Meeting {
            secret: self.secret.clone(),
            sockets: Some(self.sockets.clone()),
        }
    }

    /// Waits for sisters that are about to end by themselves; ends those that are not.
    pub(crate) fn end(&mut self) {
        let mut patience = 200;
        for (_, child) in &mut self.children {
            while patience > 0 && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(std::time::Duration::from_millis(10));
                patience -= 1;
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        self.children.clear();
        let _ = std::fs::remove_dir_all(&self.sockets);
    }
}

impl Drop for Sisters {
    fn drop(&mut self) {
        self.end();
    }
}

/// A new directory that only this user can enter.
fn private_dir() -> std::io::Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("{PRIVATE_DIR}{}", uuid::Uuid::new_v4().simple()));
    std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
    Ok(dir)
}
