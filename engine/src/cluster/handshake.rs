//! How two processes prove to each other that they hold the same secret: HMAC-SHA256 over two nonces, what the
//! connection is for, its generation, and the number of the process that connects.

use std::io::{Error, ErrorKind, Result as IoResult};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use timely::communication::allocator::zero_copy::stream::Stream;

/// One handshake; a peer that sends nothing may not hold up the others.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// What to do where secrets differ.
const SAME_SECRET: &str =
    "set the environment variable HIGHWATER_SECRET to the same value in every process";

/// A socket whose reads and writes can be limited in time while it is not trusted yet.
pub(super) trait Socket: Stream + 'static {
    fn limit(&self, limit: Option<Duration>) -> IoResult<()>;
    /// Who is at the other end.
    fn peer(&self) -> String;
}

impl Socket for UnixStream {
    fn limit(&self, limit: Option<Duration>) -> IoResult<()> {
        self.set_nonblocking(false)?;
        self.set_read_timeout(limit)?;
        self.set_write_timeout(limit)
    }

    fn peer(&self) -> String {
        "a process of this machine".into()
    }
}

impl Socket for TcpStream {
    fn limit(&self, limit: Option<Duration>) -> IoResult<()> {
        self.set_nonblocking(false)?;
        self.set_nodelay(true)?;
        self.set_read_timeout(limit)?;
        self.set_write_timeout(limit)
    }

    fn peer(&self) -> String {
        let address = self.peer_addr();
        address.map_or_else(|_| "a process".into(), |address| address.to_string())
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To process 0, which tells the next generation when all are there.
    Meet = 1,
    /// timely's.
    Rows = 2,
    /// Heartbeats.
    Pulse = 3,
}

impl Purpose {
    fn of(byte: u8) -> Option<Self> {
        [Purpose::Meet, Purpose::Rows, Purpose::Pulse]
            .into_iter()
            .find(|purpose| *purpose as u8 == byte)
    }
}

/// What the process that connects says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) purpose: Purpose,
    /// Who connects.
    pub(super) index: usize,
    /// The generation that the connection belongs to; of `Meet`, the last one that the process was part of.
    pub(super) generation: u64,
}

/// This process, as it shows itself to the others.
pub(super) struct Identity {
    pub(super) secret: Vec<u8>,
    pub(super) me: usize,
    pub(super) of: usize,
}

impl Identity {
    fn proof(&self, role: &[u8], first: &[u8], second: &[u8], hello: &Hello) -> [u8; 32] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes keys of any length");
        for part in [
            role,
            first,
            second,
            &[hello.purpose as u8],
            &hello.generation.to_le_bytes(),
            &(hello.index as u64).to_le_bytes(),
        ] {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// Proves who we are to the acceptor, and makes it prove itself.
    pub(super) fn introduce(
        &self,
        socket: &mut impl Socket,
        purpose: Purpose,
        generation: u64,
    ) -> IoResult<()> {
        let hello = Hello {
            purpose,
            index: self.me,
            generation,
        };
        socket.limit(Some(HANDSHAKE))?;
        let mut theirs = [0u8; 32];
        socket.read_exact(&mut theirs)?;
        let ours = nonce();
        let mut message = ours.to_vec();
        message.push(purpose as u8);
        message.extend((self.me as u64).to_le_bytes());
        message.extend(generation.to_le_bytes());
        message.extend(self.proof(b"connect", &theirs, &ours, &hello));
        socket.write_all(&message)?;
        let mut answer = [0u8; 32];
        socket.read_exact(&mut answer)?;
        if !same(&answer, &self.proof(b"accept", &ours, &theirs, &hello)) {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!("it holds another secret; {SAME_SECRET}"),
            ));
        }
        socket.limit(None)
    }

    /// Learns who connected; an error means a stranger, or one of ours that `wanted` does not want now.
    pub(super) fn welcome(
        &self,
        socket: &mut impl Socket,
        wanted: impl Fn(&Hello) -> bool,
    ) -> IoResult<Hello> {
        socket.limit(Some(HANDSHAKE))?;
        let ours = nonce();
        socket.write_all(&ours)?;
        let (mut theirs, mut words, mut proof) = ([0u8; 32], [0u8; 17], [0u8; 32]);
        socket.read_exact(&mut theirs)?;
        socket.read_exact(&mut words)?;
        socket.read_exact(&mut proof)?;
        let number = |at: usize| {
            let mut bytes = [0u8; 8];
            bytes.copy_from_slice(&words[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let hello = Purpose::of(words[0]).map(|purpose| Hello {
            purpose,
            index: number(1) as usize,
            generation: number(9),
        });
        let knows_secret =
            |hello: &Hello| same(&proof, &self.proof(b"connect", &ours, &theirs, hello));
        if hello.as_ref().is_some_and(|hello| !knows_secret(hello)) {
            // An answer that proves nothing: the other end, if it is one of ours, learns why it is turned away.
            socket.write_all(&[0u8; 32])?;
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!("it holds another secret; {SAME_SECRET}"),
            ));
        }
        let ours_it_is =
            |hello: &Hello| hello.index > self.me && hello.index < self.of && wanted(hello);
        let Some(hello) = hello.filter(ours_it_is) else {
            return Err(Error::new(
                ErrorKind::ConnectionRefused,
                "not one of our processes",
            ));
        };
        socket.write_all(&self.proof(b"accept", &theirs, &ours, &hello))?;
        socket.limit(None)?;
        Ok(hello)
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn identity(secret: &str, me: usize) -> Identity {
        Identity {
            secret: secret.as_bytes().to_vec(),
            me,
            of: 2,
        }
    }

    /// Process 1 connects with `secret` and `generation` to process 0, which wants generation 7.
    fn meet(secret: &str, generation: u64) -> (IoResult<Hello>, IoResult<()>) {
        let (mut a, mut b) = UnixStream::pair().expect("a socket pair");
        std::thread::scope(|scope| {
            let accepted = scope.spawn(move || {
                identity("0123456789abcdef", 0).welcome(&mut a, |hello| {
                    hello.generation == 7 && hello.purpose == Purpose::Rows
                })
            });
            let introduced = identity(secret, 1).introduce(&mut b, Purpose::Rows, generation);
            drop(b);
            (accepted.join().expect("no panic"), introduced)
        })
    }

    #[test]
    fn processes_with_one_secret_meet() {
        let (accepted, introduced) = meet("0123456789abcdef", 7);
        assert_eq!(accepted.expect("welcome").index, 1);
        introduced.expect("introduced");
    }

    #[test]
    fn another_secret_is_turned_away() {
        let (accepted, introduced) = meet("another secret here", 7);
        assert!(accepted.is_err() && introduced.is_err());
    }

    #[test]
    fn a_stale_generation_is_turned_away() {
        for generation in [6, 8] {
            let (accepted, introduced) = meet("0123456789abcdef", generation);
            assert!(accepted.is_err() && introduced.is_err());
        }
    }

    #[test]
    fn stray_bytes_are_turned_away() {
        let (mut a, mut b) = UnixStream::pair().expect("a socket pair");
        b.write_all(&[0xff; 4096]).expect("written");
        let welcome = identity("0123456789abcdef", 0).welcome(&mut a, |_| true);
        assert!(welcome.is_err());
    }
}
