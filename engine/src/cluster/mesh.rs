//! How processes meet: two authenticated sockets for every pair, one handed to timely and one for heartbeats.
//!
//! timely's own set-up checks nothing: a stray byte stream on its port hangs or kills a worker. Here a socket is
//! handed over only after both ends proved that they hold the same secret. On one machine the sockets are Unix sockets
//! in a private directory.
//!
//! Every process first tells process 0 that it is there, and which generation it was last part of. When all are
//! there, process 0 names a later one, and the pairs connect under its number: whoever comes from an earlier one is
//! turned away. Nobody listens while a generation lives.

use std::collections::BTreeSet;
use std::io::{Error, ErrorKind, Read, Result as IoResult, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::allocator::zero_copy::stream::Stream;
use timely::communication::{AllocatorBuilder, Config, Hooks};

use super::args::{SECRET, SOCKETS};
use super::handshake::{Hello, Identity, Purpose, Socket};
use super::link::Link;
use super::{ClusterConfig, ClusterError, now, pulse};

/// Connecting all pairs, once all processes are there.
const CONNECTING: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);
/// What is waited for longer is told.
const WAITING: Duration = Duration::from_secs(2);

/// What the workers of one generation start from.
pub(crate) struct Joined {
    pub(crate) generation: u64,
    pub(crate) builders: Vec<AllocatorBuilder>,
    /// timely's network threads.
    pub(crate) comms: Box<dyn std::any::Any + Send>,
    /// The connections, where there are other processes.
    pub(crate) link: Option<Arc<Link>>,
    /// Heartbeats are exchanged while it lives.
    pub(crate) pulse: Option<Sender<()>>,
}

/// What processes must share before they can meet.
#[derive(Clone)]
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

/// How long a process waits for the others, and what it looks after meanwhile.
pub(crate) struct Wait<'a> {
    /// How long.
    pub(crate) limit: Duration,
    /// Asked again and again; told which processes are there (in process 0). An error ends the wait.
    pub(crate) tend: &'a mut dyn FnMut(&[bool]) -> Result<(), ClusterError>,
}

/// Connects process `me` with the others, in a generation after `last`; returns at once when it is the only one.
pub(crate) fn connect(
    config: &ClusterConfig,
    me: usize,
    meeting: &Meeting,
    last: u64,
    wait: Wait<'_>,
) -> Result<Joined, ClusterError> {
    let of = config.processes;
    let failed = |what: String| ClusterError::Connect { me, of, what };
    if of == 1 {
        let (builders, comms) = Config::Process(config.workers)
            .try_build()
            .map_err(failed)?;
        return Ok(Joined {
            generation: 1,
            builders,
            comms,
            link: None,
            pulse: None,
        });
    }
    if meeting.secret.len() < 16 {
        return Err(failed(format!(
            "set the environment variable {SECRET} to the same secret (16 characters or more) in every process"
        )));
    }
    let identity = Identity {
        secret: meeting.secret.as_bytes().to_vec(),
        me,
        of,
    };
    match (&config.hosts, &meeting.sockets) {
        (Some(hosts), _) => {
            let network = Tcp::new(hosts, me).map_err(|e| failed(e.to_string()))?;
            join(config, Host::new(network, identity, last, wait))
        }
        (None, Some(dir)) => {
            let network = Unix::new(dir, me).map_err(|e| failed(e.to_string()))?;
            join(config, Host::new(network, identity, last, wait))
        }
        (None, None) => Err(failed(format!(
            "set the environment variable {SOCKETS} to one private directory for all processes, give --hostfile, \
             or leave out -p so that the processes are started from here"
        ))),
    }
}

fn join<N: Network>(config: &ClusterConfig, mut host: Host<'_, N>) -> Result<Joined, ClusterError> {
    let (me, of) = (host.identity.me, host.identity.of);
    let failed = |error: Error| ClusterError::Connect {
        me,
        of,
        what: error.to_string(),
    };
    let (generation, pairs) = host.meet()?;
    let link = Arc::new(Link::default());
    let (mut rows, mut pulses) = (Vec::new(), Vec::new());
    for (index, pair) in pairs.into_iter().enumerate() {
        let Some((socket, pulse)) = pair else {
            rows.push(None);
            continue;
        };
        rows.push(Some(link.watch(index, socket).map_err(failed)?));
        pulse.set_nonblocking(true).map_err(failed)?;
        pulses.push((index, pulse));
    }
    let hooks = Hooks::default();
    let processes = ProcessBuilder::new_typed_vector(config.workers, hooks.refill.clone(), None);
    let (builders, guard) =
        initialize_networking_from_sockets(processes, rows, me, config.workers, hooks)
            .map_err(failed)?;
    let pulse =
        pulse::start(pulses, config.heartbeat_timeout, Arc::clone(&link)).map_err(failed)?;
    Ok(Joined {
        generation,
        builders: builders.into_iter().map(AllocatorBuilder::Tcp).collect(),
        comms: Box::new(guard),
        link: Some(link),
        pulse: Some(pulse),
    })
}

/// Where processes find each other.
trait Network {
    type Socket: Socket;
    fn connect(&self, index: usize) -> IoResult<Self::Socket>;
    /// Where that is.
    fn address(&self, index: usize) -> String;
    /// A socket that somebody connected, if somebody did.
    fn accept(&self) -> IoResult<Option<Self::Socket>>;
}

struct Unix<'a> {
    dir: &'a Path,
    own: PathBuf,
    listener: UnixListener,
}

impl<'a> Unix<'a> {
    fn new(dir: &'a Path, me: usize) -> IoResult<Self> {
        let own = dir.join(format!("{me}.sock"));
        let _ = std::fs::remove_file(&own);
        let listener = UnixListener::bind(&own).map_err(|e| {
            Error::new(
                e.kind(),
                format!("could not listen on \"{}\": {e}", own.display()),
            )
        })?;
        listener.set_nonblocking(true)?;
        Ok(Unix { dir, own, listener })
    }
}

impl Drop for Unix<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.own);
    }
}

impl Network for Unix<'_> {
    type Socket = UnixStream;

    fn connect(&self, index: usize) -> IoResult<UnixStream> {
        UnixStream::connect(self.dir.join(format!("{index}.sock")))
    }

    fn address(&self, index: usize) -> String {
        format!("\"{}\"", self.dir.join(format!("{index}.sock")).display())
    }

    fn accept(&self) -> IoResult<Option<UnixStream>> {
        accepted(self.listener.accept().map(|(socket, _)| socket))
    }
}

struct Tcp<'a> {
    hosts: &'a [String],
    listener: TcpListener,
}

impl<'a> Tcp<'a> {
    fn new(hosts: &'a [String], me: usize) -> IoResult<Self> {
        let own = &hosts[me];
        let listener = TcpListener::bind(own.as_str())
            .map_err(|e| Error::new(e.kind(), format!("could not listen on \"{own}\": {e}")))?;
        listener.set_nonblocking(true)?;
        Ok(Tcp { hosts, listener })
    }
}

impl Network for Tcp<'_> {
    type Socket = TcpStream;

    fn connect(&self, index: usize) -> IoResult<TcpStream> {
        TcpStream::connect(self.hosts[index].as_str())
    }

    fn address(&self, index: usize) -> String {
        self.hosts[index].clone()
    }

    fn accept(&self) -> IoResult<Option<TcpStream>> {
        accepted(self.listener.accept().map(|(socket, _)| socket))
    }
}

fn accepted<S>(socket: IoResult<S>) -> IoResult<Option<S>> {
    match socket {
        Ok(socket) => Ok(Some(socket)),
        // One that hung up before it was its turn is nobody's concern.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::ConnectionAborted | ErrorKind::Interrupted
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A process among the others.
struct Host<'a, N: Network> {
    network: N,
    identity: Identity,
    last: u64,
    wait: Wait<'a>,
    begun: Instant,
    /// Why the last attempt failed.
    cause: Option<Error>,
    /// When the log is told again whom it waits for.
    told_at: Duration,
    /// Hosts whose connections were not trusted.
    turned_away: BTreeSet<String>,
}

/// The two sockets to each process: for rows, and for heartbeats.
type Pairs<S> = Vec<Option<(S, S)>>;

/// Sockets that are there so far, by process and purpose.
struct Half<S> {
    rows: Vec<Option<S>>,
    pulses: Vec<Option<S>>,
}

impl<S> Half<S> {
    fn new(of: usize) -> Self {
        let none = || (0..of).map(|_| None).collect();
        Half {
            rows: none(),
            pulses: none(),
        }
    }

    fn put(&mut self, purpose: Purpose, index: usize, socket: S) {
        match purpose {
            Purpose::Rows => self.rows[index] = Some(socket),
            Purpose::Pulse => self.pulses[index] = Some(socket),
            Purpose::Meet => {}
        }
    }

    fn has(&self, index: usize) -> bool {
        self.rows[index].is_some() && self.pulses[index].is_some()
    }

    fn pairs(self) -> Pairs<S> {
        let both = self.rows.into_iter().zip(self.pulses);
        both.map(|(rows, pulse)| rows.zip(pulse)).collect()
    }
}

impl<'a, N: Network> Host<'a, N> {
    fn new(network: N, identity: Identity, last: u64, wait: Wait<'a>) -> Self {
        Host {
            network,
            identity,
            last,
            wait,
            begun: now(),
            cause: None,
            told_at: WAITING,
            turned_away: BTreeSet::new(),
        }
    }

    fn meet(&mut self) -> Result<(u64, Pairs<N::Socket>), ClusterError> {
        loop {
            // They are kept until the pairs stand: who hangs up before has given up.
            let (generation, mut meets) = match self.identity.me {
                0 => self.gather()?,
                _ => self.attend()?,
            };
            self.last = generation;
            if let Some(pairs) = self.pair_up(generation, &mut meets)? {
                return Ok((generation, pairs));
            }
        }
    }

    fn failed(&self, what: String) -> ClusterError {
        ClusterError::Connect {
            me: self.identity.me,
            of: self.identity.of,
            what,
        }
    }

    /// Says so where a process of ours may be meant. One that tries again and again is told of once.
    fn turned_away(&mut self, socket: &N::Socket, error: &Error) {
        if error.kind() != ErrorKind::PermissionDenied {
            return;
        }
        let peer = socket.peer();
        let host = peer
            .rsplit_once(':')
            .map_or(peer.as_str(), |(host, _)| host);
        if self.turned_away.insert(host.to_string()) {
            tracing::warn!("a connection from {peer} is turned away: {error}");
        }
    }

    /// Waits a moment for `missing`, unless it has been long enough.
    fn pause(&mut self, missing: usize, there: &[bool]) -> Result<(), ClusterError> {
        (self.wait.tend)(there)?;
        if self.begun.elapsed() > self.wait.limit {
            let what = match missing > self.identity.me {
                true => "connect",
                false => "answer",
            };
            let cause = self.cause.take();
            let cause = cause.map(|e| format!(": {e}")).unwrap_or_default();
            let limit = self.wait.limit;
            return Err(self.failed(format!(
                "process {missing} did not {what} within {limit:?}{cause}"
            )));
        }
        if self.begun.elapsed() > self.told_at {
            self.told_at *= 2;
            let cause = self.cause.as_ref();
            tracing::info!(
                "process {} of {} waits for process {missing} at {}{}",
                self.identity.me,
                self.identity.of,
                self.network.address(missing),
                cause.map(|e| format!(": {e}")).unwrap_or_default()
            );
        }
        std::thread::sleep(PAUSE);
        Ok(())
    }

    /// In process 0: waits until all are there, and tells them the generation.
    fn gather(&mut self) -> Result<(u64, Vec<N::Socket>), ClusterError> {
        let of = self.identity.of;
        let mut meets: Vec<Option<N::Socket>> = (0..of).map(|_| None).collect();
        loop {
            match self.network.accept() {
                Ok(Some(mut socket)) => {
                    // A stranger is turned away; it must not end the wait for our own.
                    let wanted = |hello: &Hello| hello.purpose == Purpose::Meet;
                    match self.identity.welcome(&mut socket, wanted) {
                        Ok(hello) => {
                            self.last = self.last.max(hello.generation);
                            meets[hello.index] = Some(socket);
                        }
                        Err(error) => self.turned_away(&socket, &error),
                    }
                    continue;
                }
                Ok(None) => {}
                Err(error) => self.cause = Some(error),
            }
            for meet in &mut meets {
                if meet.as_mut().is_some_and(has_hung_up) {
                    *meet = None;
                }
            }
            if let Some(missing) = (1..of).find(|index| meets[*index].is_none()) {
                let there: Vec<bool> = meets.iter().map(Option::is_some).collect();
                self.pause(missing, &there)?;
                continue;
            }
            let generation = self.last + 1;
            self.last = generation;
            for meet in &mut meets {
                let told = meet.as_mut().map(|meet| {
                    meet.limit(Some(CONNECTING))?;
                    meet.write_all(&generation.to_le_bytes())
                });
                if let Some(Err(_)) = told {
                    *meet = None;
                }
            }
            let told: Vec<N::Socket> = meets.iter_mut().filter_map(Option::take).collect();
            if told.len() == of - 1 {
                return Ok((generation, told));
            }
        }
    }

    /// In other processes: tells process 0 that this one is there, and waits for the generation.
    fn attend(&mut self) -> Result<(u64, Vec<N::Socket>), ClusterError> {
        loop {
            match self.introduced(0, Purpose::Meet, self.last) {
                Ok(mut socket) => {
                    if let Some(generation) = self.told(&mut socket)? {
                        return Ok((generation, vec![socket]));
                    }
                }
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    let address = self.network.address(0);
                    return Err(self.failed(format!("process 0 at {address}: {error}")));
                }
                Err(error) => self.cause = Some(error),
            }
            self.pause(0, &[])?;
        }
    }

    /// The generation that process 0 names; none if it hangs up first. What it says after the handshake is not signed:
    /// a number that somebody changed leads nowhere, for the pairs sign theirs.
    fn told(&mut self, socket: &mut N::Socket) -> Result<Option<u64>, ClusterError> {
        if socket.set_nonblocking(true).is_err() {
            return Ok(None);
        }
        let (mut bytes, mut read) = ([0u8; 8], 0);
        loop {
            match socket.read(&mut bytes[read..]) {
                Ok(0) => return Ok(None),
                Ok(count) => read += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.pause(0, &[])?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Ok(None),
            }
            if read == bytes.len() {
                return Ok(Some(u64::from_le_bytes(bytes)));
            }
        }
    }

    fn introduced(&self, index: usize, purpose: Purpose, generation: u64) -> IoResult<N::Socket> {
        let mut socket = self.network.connect(index)?;
        self.identity.introduce(&mut socket, purpose, generation)?;
        Ok(socket)
    }

    /// Connects to every lower process and waits for every higher one. None if that does not succeed soon, or somebody
    /// hangs up: then all must meet again.
    fn pair_up(
        &mut self,
        generation: u64,
        meets: &mut [N::Socket],
    ) -> Result<Option<Pairs<N::Socket>>, ClusterError> {
        let (me, of) = (self.identity.me, self.identity.of);
        let begun = now();
        let mut half = Half::new(of);
        for index in 0..me {
            for purpose in [Purpose::Rows, Purpose::Pulse] {
                loop {
                    match self.introduced(index, purpose, generation) {
                        Ok(socket) => break half.put(purpose, index, socket),
                        Err(error) => self.cause = Some(error),
                    }
                    if begun.elapsed() > CONNECTING {
                        return Ok(None);
                    }
                    self.pause(index, &[])?;
                }
            }
        }
        while let Some(missing) = (me + 1..of).find(|index| !half.has(*index)) {
            match self.network.accept() {
                Ok(Some(mut socket)) => {
                    let wanted = |hello: &Hello| {
                        hello.purpose != Purpose::Meet && hello.generation == generation
                    };
                    match self.identity.welcome(&mut socket, wanted) {
                        Ok(hello) => half.put(hello.purpose, hello.index, socket),
                        Err(error) => self.turned_away(&socket, &error),
                    }
                    continue;
                }
                Ok(None) => {}
                Err(error) => self.cause = Some(error),
            }
            let given_up = me == 0 && meets.iter_mut().any(has_hung_up);
            if given_up || begun.elapsed() > CONNECTING {
                return Ok(None);
            }
            self.pause(missing, &[])?;
        }
        Ok(Some(half.pairs()))
    }
}

/// True if the other end of a socket on which nothing is to come is gone.
fn has_hung_up(socket: &mut impl Socket) -> bool {
    if socket.set_nonblocking(true).is_err() {
        return true;
    }
    match socket.read_exact(&mut [0u8; 1]) {
        Ok(()) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}
