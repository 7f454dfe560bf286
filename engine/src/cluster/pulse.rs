//! Tells a process that is stopped, or cut off, from one that has nothing to say.
//!
//! A socket of its own for every pair of processes: rows that wait to be sent do not hold up a heartbeat, and timely
//! knows nothing of it. One byte a second each way.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::link::{Link, Lost};
use super::now;

/// How often a process is heard of, unless the time-out is short.
const INTERVAL: Duration = Duration::from_secs(1);

struct Peer<S> {
    index: usize,
    socket: S,
    heard: Instant,
}

/// Starts the exchange with `peers` over sockets that do not block. It ends when the sender that it returns is dropped.
pub(super) fn start<S: Read + Write + Send + 'static>(
    peers: Vec<(usize, S)>,
    limit: Duration,
    link: Arc<Link>,
) -> std::io::Result<Sender<()>> {
    let (alive, ended) = bounded::<()>(0);
    let begun = now();
    let peers = peers.into_iter().map(|(index, socket)| Peer {
        index,
        socket,
        heard: begun,
    });
    let mut peers: Vec<Peer<S>> = peers.collect();
    std::thread::Builder::new()
        .name("highwater:pulse".into())
        .spawn(move || beat(&mut peers, limit, &link, &ended))?;
    Ok(alive)
}

fn beat<S: Read + Write>(
    peers: &mut Vec<Peer<S>>,
    limit: Duration,
    link: &Link,
    ended: &Receiver<()>,
) {
    let interval = INTERVAL.min(limit / 4).max(Duration::from_millis(1));
    loop {
        // What came while this process itself was stopped is read before anybody is judged.
        peers.retain_mut(|peer| exchange(peer));
        let now = now();
        let silent = peers
            .iter()
            .find(|peer| now.duration_since(peer.heard) > limit);
        if let Some(peer) = silent {
            link.lose(Lost {
                peer: peer.index,
                silent: true,
                text: format!(
                    "process {} has not been heard of for {:?}",
                    peer.index, limit
                ),
            });
            return;
        }
        if ended.recv_timeout(interval) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// False if the socket has ended: the connection beside it says what that means.
fn exchange<S: Read + Write>(peer: &mut Peer<S>) -> bool {
    let passes = |kind| matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted);
    if let Err(error) = peer.socket.write(&[1])
        && !passes(error.kind())
    {
        return false;
    }
    let mut bytes = [0; 256];
    match peer.socket.read(&mut bytes) {
        Ok(0) => false,
        Ok(_) => {
            peer.heard = now();
            true
        }
        Err(error) => passes(error.kind()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (UnixStream, UnixStream) {
        let (a, b) = UnixStream::pair().expect("a pair");
        a.set_nonblocking(true).expect("set");
        b.set_nonblocking(true).expect("set");
        (a, b)
    }

    #[test]
    fn a_silent_peer_is_lost_and_one_that_beats_is_not() {
        let limit = Duration::from_millis(200);
        let ((a, b), (c, _silent)) = (pair(), pair());
        let (ours, theirs) = (Arc::new(Link::default()), Arc::new(Link::default()));
        let (sender, told) = bounded(1);
        ours.on_lost(move |lost| sender.send(lost.clone()).expect("heard"));
        let _other = start(vec![(0, b)], limit, Arc::clone(&theirs)).expect("started");
        let _pulse = start(vec![(1, a), (2, c)], limit, Arc::clone(&ours)).expect("started");
        let lost = told.recv_timeout(Duration::from_secs(20)).expect("told");
        assert_eq!((lost.peer, lost.silent), (2, true));
        assert_eq!(theirs.lost(), None);
    }
}
