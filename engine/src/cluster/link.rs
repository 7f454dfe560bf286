//! The connections of one generation, and the moment one of them is lost.
//!
//! timely's network threads panic when a socket ends, poison the queues they share with workers, and so take the
//! workers down at an arbitrary place; a parked worker notices nothing. Here the socket itself says first that a peer is
//! lost, and holds its thread until the workers have left by themselves.

use std::cell::RefCell;
use std::io::{Error, ErrorKind, Read, Result as IoResult, Write};
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use timely::communication::allocator::zero_copy::stream::Stream;

use crate::workers::lock;

/// What a connection says last when it ends in order: a message header of zeros.
const LAST_WORDS: usize = 48;

/// A process that is gone, or counts as gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Its number.
    pub(crate) peer: usize,
    /// True if its connections stand and nothing comes.
    pub(crate) silent: bool,
    /// What happened.
    pub(crate) text: String,
}

type OnLost = Box<dyn Fn(&Lost) + Send>;

/// All connections of a generation. When one is lost, all are closed: the others learn of it the same way.
#[derive(Default)]
pub(crate) struct Link {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Default)]
struct State {
    lost: Option<Lost>,
    hang_up: Vec<Box<dyn Fn() + Send>>,
    on_lost: Option<OnLost>,
    released: bool,
}

impl Link {
    /// A peer is lost. The first who says so is heard.
    pub(crate) fn lose(&self, lost: Lost) {
        let mut state = lock(&self.state);
        if state.lost.is_some() {
            return;
        }
        if let Some(on_lost) = &state.on_lost {
            on_lost(&lost);
        }
        for hang_up in state.hang_up.drain(..) {
            hang_up();
        }
        state.lost = Some(lost);
    }

    /// Who is lost.
    #[cfg(test)]
    pub(super) fn lost(&self) -> Option<Lost> {
        lock(&self.state).lost.clone()
    }

    /// `tell` hears when a peer is lost, or was.
    pub(crate) fn on_lost(&self, tell: impl Fn(&Lost) + Send + 'static) {
        let mut state = lock(&self.state);
        match &state.lost {
            Some(lost) => tell(lost),
            None => state.on_lost = Some(Box::new(tell)),
        }
    }

    /// The workers have left: network threads may end as they like.
    pub(crate) fn release(&self) {
        lock(&self.state).released = true;
        self.released.notify_all();
    }

    fn hold(&self) {
        let mut state = lock(&self.state);
        while !state.released {
            let woken = self.released.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Watches a socket to `peer`.
    pub(super) fn watch<S: Stream + 'static>(
        self: &Arc<Self>,
        peer: usize,
        socket: S,
    ) -> IoResult<Watched<S>> {
        let handle = socket.try_clone()?;
        lock(&self.state).hang_up.push(Box::new(move || {
            let _ = handle.shutdown(Shutdown::Both);
        }));
        Ok(Watched {
            socket,
            peer,
            link: Arc::clone(self),
            zeros: 0,
        })
    }
}

/// A socket that says when its peer is lost.
pub(super) struct Watched<S> {
    socket: S,
    peer: usize,
    link: Arc<Link>,
    /// How many of the bytes read last are zero.
    zeros: usize,
}

thread_local! {
    /// The connection that this network thread serves.
    static SERVED: RefCell<Option<(Arc<Link>, usize)>> = const { RefCell::new(None) };
}

/// Called on a network thread that panics: whatever the reason, its connection is lost.
pub(crate) fn network_thread_panicked() {
    if let Ok(Some((link, peer))) = SERVED.try_with(RefCell::take) {
        link.lose(gone(peer));
    }
}

fn gone(peer: usize) -> Lost {
    Lost {
        peer,
        silent: false,
        text: format!("the connection to process {peer} is lost"),
    }
}

impl<S> Watched<S> {
    fn serve(&self) {
        SERVED.with_borrow_mut(|served| {
            served.get_or_insert_with(|| (Arc::clone(&self.link), self.peer));
        });
    }

    fn lost(&self, error: Error) -> Error {
        self.link.lose(gone(self.peer));
        self.link.hold();
        error
    }
}

impl<S: Stream> Read for Watched<S> {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        self.serve();
        loop {
            return match self.socket.read(buffer) {
                // If those zeros were rows, timely misses the end of its message and panics, which is heard too.
                Ok(0) if self.zeros >= LAST_WORDS => Ok(0),
                Ok(0) => Err(self.lost(ErrorKind::UnexpectedEof.into())),
                Ok(count) => {
                    let read = &buffer[..count];
                    let zeros = read.iter().rev().take_while(|byte| **byte == 0).count();
                    self.zeros = match zeros == count {
                        true => self.zeros.saturating_add(count),
                        false => zeros,
                    };
                    Ok(count)
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => Err(self.lost(error)),
            };
        }
    }
}

impl<S: Stream> Write for Watched<S> {
    fn write(&mut self, buffer: &[u8]) -> IoResult<usize> {
        self.serve();
        match self.socket.write(buffer) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(self.lost(error)),
            written => written,
        }
    }

    fn flush(&mut self) -> IoResult<()> {
        self.socket.flush()
    }
}

impl<S: Stream> Stream for Watched<S> {
    fn try_clone(&self) -> IoResult<Self> {
        Ok(Watched {
            socket: self.socket.try_clone()?,
            peer: self.peer,
            link: Arc::clone(&self.link),
            zeros: 0,
        })
    }

    fn set_nonblocking(&self, nonblocking: bool) -> IoResult<()> {
        self.socket.set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> IoResult<()> {
        match self.socket.shutdown(how) {
            // The peer was faster.
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            done => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn reads(words: &[u8]) -> Option<Lost> {
        let (mut theirs, ours) = UnixStream::pair().expect("a pair");
        let link = Arc::new(Link::default());
        link.release();
        let mut watched = link.watch(3, ours).expect("watched");
        theirs.write_all(words).expect("written");
        drop(theirs);
        let mut read = Vec::new();
        let _ = watched.read_to_end(&mut read);
        link.lost()
    }

    #[test]
    fn an_end_in_order_is_no_loss() {
        assert_eq!(reads(&[0; LAST_WORDS]), None);
    }

    #[test]
    fn an_end_in_the_middle_is_a_loss() {
        assert_eq!(reads(&[7; 100]).map(|lost| lost.peer), Some(3));
        assert_eq!(reads(&[]).map(|lost| lost.silent), Some(false));
    }

    #[test]
    fn a_loss_closes_every_connection_and_is_told_once() {
        let link = Arc::new(Link::default());
        let (mut theirs, ours) = UnixStream::pair().expect("a pair");
        let _watched = link.watch(1, ours).expect("watched");
        let (sender, told) = crossbeam_channel::unbounded();
        link.on_lost(move |lost| sender.send(lost.peer).expect("heard"));
        link.lose(gone(2));
        link.lose(gone(1));
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [2]);
        assert_eq!(theirs.read(&mut [0; 1]).expect("closed"), 0);
    }
}
