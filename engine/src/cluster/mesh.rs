//! One authenticated socket to every other process, handed to timely.
//!
//! timely's own set-up checks nothing: a stray byte stream on its port hangs or kills a worker. Here a socket is
//! handed over only after both ends proved that they hold the same secret (HMAC-SHA256 over two nonces, the
//! generation and the process number). On one machine the sockets are Unix sockets in a private directory.

use std::io::{Error, ErrorKind, Read, Result as IoResult, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::allocator::zero_copy::stream::Stream;
use timely::communication::{AllocatorBuilder, Config, Hooks};

use super::args::{SECRET, SOCKETS};
use super::{ClusterConfig, ClusterError};

/// A process that is alone on its machine's port may be started a minute before the last of the others.
const PATIENCE: Duration = Duration::from_secs(60);
/// One handshake; a peer that sends nothing may not hold up the others.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// How the names of directories begin that a session makes for its own sockets.
pub(super) const PRIVATE_DIR: &str = "highwater-sockets-";
const PAUSE: Duration = Duration::from_millis(5);

/// What timely needs to start the workers of this process.
pub(crate) type Allocators = (Vec<AllocatorBuilder>, Box<dyn std::any::Any + Send>);

/// What processes must share before they can meet.
pub(crate) struct Meeting {
    /// Proves that a process is one of ours.
    pub(crate) secret: String,
    /// The private directory of the Unix sockets, without a host file.
    pub(crate) sockets: Option<PathBuf>,
}

impl Meeting {
    /// What whoever started this process put into its environment.
    pub(crate) fn from_env() -> Self {
        Meeting {
            secret: std::env::var(SECRET).unwrap_or_default(),
            sockets: std::env::var_os(SOCKETS).map(PathBuf::from),
        }
    }
}

/// Connects process `me` with the others; returns at once when it is the only one.
pub(crate) fn connect(
    config: &ClusterConfig,
    me: usize,
    meeting: Meeting,
) -> Result<Allocators, ClusterError> {
    let of = config.processes;
    let failed = |what: String| ClusterError::Connect { me, of, what };
    if of == 1 {
        return Config::Process(config.workers).try_build().map_err(failed);
    }
    if meeting.secret.len() < 16 {
        return Err(failed(format!(
            "set the environment variable {SECRET} to the same secret (16 characters or more) in every process"
        )));
    }
    let handshake = Handshake {
        secret: meeting.secret.into_bytes(),
        generation: 0,
        me,
        of,
    };
    match (&config.hosts, meeting.sockets) {
        (Some(hosts), _) => {
            let sockets = tcp_sockets(hosts, &handshake).map_err(|e| failed(e.to_string()))?;
            allocators(config.workers, me, sockets).map_err(|e| failed(e.to_string()))
        }
        (None, Some(dir)) => {
            let sockets = unix_sockets(&dir, &handshake).map_err(|e| failed(e.to_string()))?;
            allocators(config.workers, me, sockets).map_err(|e| failed(e.to_string()))
        }
        (None, None) => Err(failed(format!(
            "set the environment variable {SOCKETS} to one private directory for all processes, give --hostfile, \
             or leave out -p so that the processes are started from here"
        ))),
    }
}

fn allocators<S: Stream + 'static>(
    workers: usize,
    me: usize,
    sockets: Vec<Option<S>>,
) -> IoResult<Allocators> {
    let hooks = Hooks::default();
    let processes = ProcessBuilder::new_typed_vector(workers, hooks.refill.clone(), None);
    let (builders, guard) =
        initialize_networking_from_sockets(processes, sockets, me, workers, hooks)?;
    Ok((
        builders.into_iter().map(AllocatorBuilder::Tcp).collect(),
        Box::new(guard),
    ))
}

/// A socket whose reads and writes can be limited in time while it is not trusted yet.
trait Patience: Read + Write {
    fn limit(&self, limit: Option<Duration>) -> IoResult<()>;
}

impl Patience for UnixStream {
    fn limit(&self, limit: Option<Duration>) -> IoResult<()> {
        self.set_nonblocking(false)?;
        self.set_read_timeout(limit)?;
        self.set_write_timeout(limit)
    }
}

impl Patience for TcpStream {
    fn limit(&self, limit: Option<Duration>) -> IoResult<()> {
        self.set_nonblocking(false)?;
        self.set_nodelay(true)?;
        self.set_read_timeout(limit)?;
        self.set_write_timeout(limit)
    }
}

struct Handshake {
    secret: Vec<u8>,
    generation: u64,
    me: usize,
    of: usize,
}

impl Handshake {
    fn proof(&self, role: &[u8], first: &[u8], second: &[u8], index: usize) -> [u8; 32] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes keys of any length");
        for part in [
            role,
            first,
            second,
            &self.generation.to_le_bytes(),
            &(index as u64).to_le_bytes(),
        ] {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// Proves who we are to the acceptor, and makes it prove itself.
    fn introduce(&self, socket: &mut impl Patience) -> IoResult<()> {
        socket.limit(Some(HANDSHAKE))?;
        let mut theirs = [0u8; 32];
        socket.read_exact(&mut theirs)?;
        let ours = nonce();
        socket.write_all(&ours)?;
        socket.write_all(&(self.me as u64).to_le_bytes())?;
        socket.write_all(&self.proof(b"connect", &theirs, &ours, self.me))?;
        let mut answer = [0u8; 32];
        socket.read_exact(&mut answer)?;
        if !same(&answer, &self.proof(b"accept", &ours, &theirs, self.me)) {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                "the other process holds another secret",
            ));
        }
        socket.limit(None)
    }

    /// Learns who connected; an error means a stranger.
    fn welcome(&self, socket: &mut impl Patience) -> IoResult<usize> {
        socket.limit(Some(HANDSHAKE))?;
        let ours = nonce();
        socket.write_all(&ours)?;
        let (mut theirs, mut index, mut proof) = ([0u8; 32], [0u8; 8], [0u8; 32]);
        socket.read_exact(&mut theirs)?;
        socket.read_exact(&mut index)?;
        socket.read_exact(&mut proof)?;
        let index = u64::from_le_bytes(index) as usize;
        if !same(&proof, &self.proof(b"connect", &ours, &theirs, index))
            || index <= self.me
            || index >= self.of
        {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                "not one of our processes",
            ));
        }
        socket.write_all(&self.proof(b"accept", &theirs, &ours, index))?;
        socket.limit(None)?;
        Ok(index)
    }
}

fn nonce() -> [u8; 32] {
    let mut nonce = [0u8; 32];
    nonce[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    nonce[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    nonce
}

/// Compares in constant time.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0u8, |acc, (x, y)| acc | (x ^ y)) == 0
}

/// Tries until `PATIENCE` is over.
fn persist<T>(what: &str, mut attempt: impl FnMut() -> IoResult<Option<T>>) -> IoResult<T> {
    let tries = (PATIENCE.as_millis() / PAUSE.as_millis()) as usize;
    let mut last = None;
    for _ in 0..tries {
        match attempt() {
            Ok(Some(done)) => return Ok(done),
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(error),
            Err(error) => last = Some(error),
        }
        std::thread::sleep(PAUSE);
    }
    let cause = last.map(|e| format!(": {e}")).unwrap_or_default();
    Err(Error::new(
        ErrorKind::TimedOut,
        format!("{what} within {} s{cause}", PATIENCE.as_secs()),
    ))
}

fn unix_sockets(dir: &Path, handshake: &Handshake) -> IoResult<Vec<Option<UnixStream>>> {
    let own = dir.join(format!("{}.sock", handshake.me));
    let _ = std::fs::remove_file(&own);
    let listener = UnixListener::bind(&own).map_err(|e| {
        Error::new(
            e.kind(),
            format!("could not listen on \"{}\": {e}", own.display()),
        )
    })?;
    listener.set_nonblocking(true)?;
    let sockets = all_sockets(
        handshake,
        |index| UnixStream::connect(dir.join(format!("{index}.sock"))),
        || match listener.accept() {
            Ok((socket, _)) => Ok(Some(socket)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        },
    )?;
    let _ = std::fs::remove_file(&own);
    // The last process to be connected finds it empty; whoever made a directory for us keeps theirs.
    if dir
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(PRIVATE_DIR))
    {
        let _ = std::fs::remove_dir(dir);
    }
    Ok(sockets)
}

fn tcp_sockets(hosts: &[String], handshake: &Handshake) -> IoResult<Vec<Option<TcpStream>>> {
    let own = &hosts[handshake.me];
    let listener = TcpListener::bind(own.as_str())
        .map_err(|e| Error::new(e.kind(), format!("could not listen on \"{own}\": {e}")))?;
    listener.set_nonblocking(true)?;
    all_sockets(
        handshake,
        |index| TcpStream::connect(hosts[index].as_str()),
        || match listener.accept() {
            Ok((socket, _)) => Ok(Some(socket)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        },
    )
}

/// Connects to every lower process and waits for every higher one.
fn all_sockets<S: Patience>(
    handshake: &Handshake,
    connect: impl Fn(usize) -> IoResult<S>,
    accept: impl Fn() -> IoResult<Option<S>>,
) -> IoResult<Vec<Option<S>>> {
    let mut sockets: Vec<Option<S>> = (0..handshake.of).map(|_| None).collect();
    for (index, slot) in sockets.iter_mut().enumerate().take(handshake.me) {
        *slot = Some(persist(&format!("process {index} did not answer"), || {
            let mut socket = connect(index)?;
            handshake.introduce(&mut socket)?;
            Ok(Some(socket))
        })?);
    }
    while let Some(missing) =
        (handshake.me + 1..handshake.of).find(|index| sockets[*index].is_none())
    {
        let (index, socket) = persist(&format!("process {missing} did not connect"), || {
            let Some(mut socket) = accept()? else {
                return Ok(None);
            };
            // A stranger is turned away; it must not end the wait for our own.
            Ok(handshake
                .welcome(&mut socket)
                .ok()
                .map(|index| (index, socket)))
        })?;
        sockets[index] = Some(socket);
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(secret: &str, me: usize) -> Handshake {
        Handshake {
            secret: secret.as_bytes().to_vec(),
            generation: 7,
            me,
            of: 2,
        }
    }

    fn meet(acceptor: Handshake, connector: Handshake) -> (IoResult<usize>, IoResult<()>) {
        let (mut a, mut b) = UnixStream::pair().expect("a socket pair");
        std::thread::scope(|scope| {
            let accepted = scope.spawn(move || acceptor.welcome(&mut a));
            let introduced = connector.introduce(&mut b);
            drop(b);
            (accepted.join().expect("no panic"), introduced)
        })
    }

    #[test]
    fn processes_with_one_secret_meet() {
        let (accepted, introduced) = meet(
            handshake("0123456789abcdef", 0),
            handshake("0123456789abcdef", 1),
        );
        assert_eq!(accepted.expect("welcome"), 1);
        introduced.expect("introduced");
    }

    #[test]
    fn another_secret_or_generation_is_turned_away() {
        let (accepted, introduced) = meet(
            handshake("0123456789abcdef", 0),
            handshake("another secret here", 1),
        );
        assert!(accepted.is_err() && introduced.is_err());
        let mut stale = handshake("0123456789abcdef", 1);
        stale.generation = 6;
        let (accepted, introduced) = meet(handshake("0123456789abcdef", 0), stale);
        assert!(accepted.is_err() && introduced.is_err());
    }

    #[test]
    fn stray_bytes_are_turned_away() {
        let (mut a, mut b) = UnixStream::pair().expect("a socket pair");
        b.write_all(&[0xff; 4096]).expect("written");
        assert!(handshake("0123456789abcdef", 0).welcome(&mut a).is_err());
    }
}
