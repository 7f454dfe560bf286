//! The receiving thread, the lines it keeps, and who reads them.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{
    ArrayRef, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::SchemaRef;
use highwater_engine::source::{
    Admitted, Batches, Offset, Reader, Resume, Source, SourceError, Split, Waker, Watch,
};
use serde_json::json;

use super::{SocketError, SocketOptions};
use highwater_text::lines::{Lines, whole_lines};

/// So many bytes may wait before no more are received.
const WAITING_BYTES_MAX: usize = 64 << 20;
const LINE_BYTES_MAX: usize = 64 << 20;
const RECEIVE_BYTES: usize = 64 << 10;
const BATCH_ROWS: u64 = 8192;

/// Lines that arrived together.
struct Arrival {
    at_us: i64,
    lines: Vec<String>,
    bytes: usize,
}

#[derive(Default)]
struct State {
    /// The number of the first line kept.
    start: u64,
    arrivals: VecDeque<Arrival>,
    /// The number behind the last line.
    end: u64,
    bytes: usize,
    /// The peer hung up, or the connection broke.
    ended: bool,
    broke: Option<SocketError>,
    /// Nobody will read any more.
    closed: bool,
    waker: Option<Waker>,
}

/// What the receiving thread, the source and its readers share.
struct Shared {
    state: Mutex<State>,
    room: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked with the lock held left whole lines behind: each change is one step.
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn arrive(&self, lines: Vec<String>) {
        #[allow(
            clippy::disallowed_methods,
            reason = "the time of arrival is what the column holds; it is read once a line and kept"
        )]
        let at_us = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_micros() as i64);
        let bytes = lines
            .iter()
            .map(|line| line.len() + size_of::<String>())
            .sum();
        let mut state = self.lock();
        state.end += lines.len() as u64;
        state.bytes += bytes;
        state.arrivals.push_back(Arrival {
            at_us,
            lines,
            bytes,
        });
        ring(state);
    }

    fn end(&self, broke: Option<SocketError>) {
        let mut state = self.lock();
        state.ended = true;
        state.broke = broke;
        ring(state);
    }

    /// Waits while too much is kept; false if nobody reads any more.
    fn wait_for_room(&self) -> bool {
        let mut state = self.lock();
        while state.bytes >= WAITING_BYTES_MAX && !state.closed {
            state = self
                .room
                .wait(state)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        !state.closed
    }
}

fn ring(state: MutexGuard<'_, State>) {
    let waker = state.waker.clone();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Receives until the peer hangs up.
fn receive(mut stream: TcpStream, shared: &Shared, address: &str) -> Option<SocketError> {
    let mut buffer = Vec::new();
    let mut filled = 0;
    loop {
        if !shared.wait_for_room() {
            return None;
        }
        buffer.resize(filled + RECEIVE_BYTES, 0);
        let ended = match stream.read(&mut buffer[filled..]) {
            Ok(bytes) => {
                filled += bytes;
                bytes == 0
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => {
                return Some(SocketError::Broke {
                    address: address.into(),
                    source,
                });
            }
        };
        let whole = match ended {
            true => filled,
            false => whole_lines(&buffer[..filled]),
        };
        let lines: Vec<String> = Lines::new(&buffer[..whole])
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        if !lines.is_empty() {
            shared.arrive(lines);
        }
        if ended {
            return None;
        }
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
        if filled > LINE_BYTES_MAX {
            return Some(SocketError::LineTooLong {
                address: address.into(),
                bytes_max: LINE_BYTES_MAX,
            });
        }
    }
}

/// The lines of one connection.
pub struct SocketSource {
    shared: Arc<Shared>,
    schema: SchemaRef,
    address: String,
    partitions: u64,
    /// The number behind the last line that is in an epoch.
    admitted: u64,
    /// To end the receiving thread.
    stream: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl SocketSource {
    pub(super) fn connect(options: &SocketOptions, schema: SchemaRef) -> Result<Self, SocketError> {
        let address = format!("{}:{}", options.host, options.port);
        let failed = |source| SocketError::Connect {
            address: address.clone(),
            port: options.port,
            source,
        };
        let stream = TcpStream::connect((options.host.as_str(), options.port)).map_err(failed)?;
        let receiving = stream.try_clone().map_err(failed)?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            room: Condvar::new(),
        });
        let (there, name) = (Arc::clone(&shared), address.clone());
        let thread = std::thread::Builder::new()
            .name("socket source".into())
            .spawn(move || {
                let broke = receive(receiving, &there, &name);
                there.end(broke);
            })
            .map_err(failed)?;
        Ok(SocketSource {
            shared,
            schema,
            address,
            partitions: options.partitions,
            admitted: 0,
            stream,
            thread: Some(thread),
        })
    }
}

impl Drop for SocketSource {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.room.notify_all();
        // It may be shut already; then the thread has ended too.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn offset(lines: u64) -> Offset {
    Offset(json!({ "lines": lines }))
}

fn number(offset: &Offset) -> Result<u64, SocketError> {
    offset.0["lines"]
        .as_u64()
        .ok_or_else(|| SocketError::NotOurs {
            text: offset.0.to_string(),
            what: "offset",
        })
}

/// The splits that are a range of lines, of about the same number of them.
fn splits(from: u64, to: u64, bytes: u64, partitions: u64) -> Vec<Split> {
    let rows = to - from;
    let parts = partitions.min(rows);
    let cut = |part: u64| from + (u128::from(rows) * u128::from(part) / u128::from(parts)) as u64;
    (0..parts)
        .map(|part| (cut(part), cut(part + 1)))
        .map(|(from, to)| Split {
            descriptor: format!("{from}..{to}"),
            bytes: bytes * (to - from) / rows,
            process: Some(0),
        })
        .collect()
}

fn range(split: &Split) -> Result<(u64, u64), SocketError> {
    let numbers = split.descriptor.split_once("..");
    numbers
        .and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)))
        .ok_or_else(|| SocketError::NotOurs {
            text: split.descriptor.clone(),
            what: "split",
        })
}

impl State {
    /// The lines `from..to` and when they arrived.
    fn lines(&self, from: u64, to: u64) -> Result<impl Iterator<Item = (&str, i64)>, SocketError> {
        if from < self.start || to > self.end {
            return Err(SocketError::Gone { from, to });
        }
        let mut first = self.start;
        let arrivals = self.arrivals.iter().map(move |arrival| {
            let at = first;
            first += arrival.lines.len() as u64;
            (at, arrival)
        });
        Ok(arrivals
            .skip_while(move |(at, arrival)| at + arrival.lines.len() as u64 <= from)
            .take_while(move |(at, _)| *at < to)
            .flat_map(move |(at, arrival)| {
                let skipped = from.saturating_sub(at) as usize;
                let end = arrival.lines.len().min((to - at) as usize);
                let lines = arrival.lines[skipped.min(end)..end].iter();
                lines.map(|line| (line.as_str(), arrival.at_us))
            }))
    }
}

impl Source for SocketSource {
    fn description(&self) -> String {
        format!("TextSocketStream[{}]", self.address)
    }

    fn watch(&mut self, waker: Waker) -> Result<Watch, SourceError> {
        let mut state = self.shared.lock();
        state.waker = Some(waker);
        // What arrived before anybody listened rings now.
        if state.end > state.start || state.ended {
            ring(state);
        }
        Ok(Watch::Rings)
    }

    /// Numbers go on behind what was planned. The lines before are gone: no peer sends them twice.
    fn resume(&mut self, from: Resume<'_>) -> Result<(), SourceError> {
        let last = from.planned.last().map_or(from.at, |planned| &planned.end);
        let end = number(last)?;
        let mut state = self.shared.lock();
        state.start += end;
        state.end += end;
        self.admitted = end;
        Ok(())
    }

    fn initial(&mut self) -> Result<Offset, SourceError> {
        Ok(offset(0))
    }

    fn latest(&mut self) -> Result<Offset, SourceError> {
        let mut state = self.shared.lock();
        // What arrived before it broke comes first.
        if self.admitted == state.end
            && let Some(broke) = state.broke.take()
        {
            return Err(broke.into());
        }
        Ok(offset(state.end))
    }

    fn admit(
        &mut self,
        from: &Offset,
        to: &Offset,
        bytes_max: u64,
    ) -> Result<Option<Admitted>, SourceError> {
        let (from, to) = (number(from)?, number(to)?);
        if from >= to {
            return Ok(None);
        }
        let state = self.shared.lock();
        let (mut end, mut bytes) = (from, 0u64);
        for (line, _) in state.lines(from, to)? {
            let more = bytes.saturating_add(line.len() as u64);
            if end > from && more > bytes_max {
                break;
            }
            bytes = more;
            end += 1;
        }
        self.admitted = end;
        Ok(Some(Admitted {
            end: offset(end),
            splits: splits(from, end, bytes, self.partitions),
        }))
    }

    fn committed(&mut self, end: &Offset) -> Result<(), SourceError> {
        let end = number(end)?;
        let mut state = self.shared.lock();
        while let Some(first) = state.arrivals.front() {
            let (lines, bytes) = (first.lines.len() as u64, first.bytes);
            if state.start + lines > end {
                break;
            }
            state.arrivals.pop_front();
            state.start += lines;
            state.bytes -= bytes;
        }
        drop(state);
        self.shared.room.notify_all();
        Ok(())
    }

    fn ended(&self) -> bool {
        let state = self.shared.lock();
        state.ended && state.broke.is_none()
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(SocketReader {
            shared: Arc::clone(&self.shared),
            schema: Arc::clone(&self.schema),
        })
    }
}

/// Reads lines that are in memory.
struct SocketReader {
    shared: Arc<Shared>,
    schema: SchemaRef,
}

impl SocketReader {
    fn batch(&self, from: u64, to: u64, columns: &[usize]) -> Result<RecordBatch, SocketError> {
        let schema = Arc::new(self.schema.project(columns)?);
        let state = self.shared.lock();
        let mut arrays: Vec<ArrayRef> = Vec::new();
        for column in columns {
            let lines = state.lines(from, to)?;
            arrays.push(match column {
                0 => Arc::new(lines.map(|(line, _)| Some(line)).collect::<StringArray>()),
                _ => Arc::new(
                    TimestampMicrosecondArray::from_iter_values(lines.map(|(_, at_us)| at_us))
                        .with_timezone("UTC"),
                ),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some((to - from) as usize));
        Ok(RecordBatch::try_new_with_options(schema, arrays, &options)?)
    }
}

impl Reader for SocketReader {
    fn read(&self, split: &Split, columns: &[usize]) -> Result<Batches, SourceError> {
        let (from, to) = range(split)?;
        self.shared.lock().lines(from, to).map(drop)?;
        let reader = SocketReader {
            shared: Arc::clone(&self.shared),
            schema: Arc::clone(&self.schema),
        };
        let columns = columns.to_vec();
        let starts = (from..to).step_by(BATCH_ROWS as usize);
        Ok(Box::new(starts.map(move |start| {
            let end = (start + BATCH_ROWS).min(to);
            Ok(reader.batch(start, end, &columns)?)
        })))
    }
}

/// Reads nothing: the lines are in another process.
pub(super) struct NotHere;

impl Reader for NotHere {
    fn read(&self, split: &Split, _: &[usize]) -> Result<Batches, SourceError> {
        let (from, to) = range(split)?;
        Err(SocketError::Gone { from, to }.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::time::Duration;

    use arrow::array::AsArray;
    use highwater_engine::source::{SourceFactory, SourceRequest};
    use highwater_text::options::Options;

    use super::*;
    use crate::conformance;

    fn factory(port: u16, options: &[(&str, &str)]) -> Arc<dyn SourceFactory> {
        let mut request = SourceRequest {
            options: Options::default(),
            path: None,
            schema: None,
            streaming: true,
            time_zone: "UTC".into(),
        };
        request.options.set("host", "localhost");
        request.options.set("port", port);
        for (name, value) in options {
            request.options.set(name, value);
        }
        super::super::sources()[0].1.source(request).unwrap()
    }

    fn listen() -> (TcpListener, u16) {
        let listener = TcpListener::bind("localhost:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    fn values(rows: &RecordBatch) -> Vec<String> {
        let values = rows.column(0).as_string::<i32>();
        values
            .iter()
            .map(|value| value.unwrap().to_string())
            .collect()
    }

    #[test]
    fn lines_conform() {
        let (listener, port) = listen();
        let sender = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            peer.write_all(b"one\ntwo\r\n\nfour\n").unwrap();
            peer // open until the check is over
        });
        let rows = conformance::source(
            factory(
                port,
                &[("includeTimestamp", "true"), ("numPartitions", "3")],
            )
            .as_ref(),
        );
        let sent = ["one", "two", "", "four"];
        assert_eq!(values(&rows), sent[..rows.num_rows()]);
        sender.join().unwrap();
    }

    #[test]
    fn a_peer_that_hangs_up_ends_the_stream_and_loses_nothing() {
        let (listener, port) = listen();
        let factory = factory(port, &[]);
        let mut source = factory.open().unwrap();
        let (sender, bell) = mpsc::channel();
        let waker = Waker::new(move || sender.send(()).unwrap_or(()));
        assert_eq!(source.watch(waker).unwrap(), Watch::Rings);
        assert!(!source.ended());
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"one\nlast without an end").unwrap();
        drop(peer);
        while !source.ended() {
            bell.recv_timeout(Duration::from_secs(10))
                .expect("it rings");
        }
        let (from, to) = (source.initial().unwrap(), source.latest().unwrap());
        let admitted = source.admit(&from, &to, u64::MAX).unwrap().unwrap();
        let rows = conformance::read(
            source.reader().as_ref(),
            &factory.schema(),
            &admitted.splits,
            &[0],
        );
        assert_eq!(values(&rows.unwrap()), ["one", "last without an end"]);
        source.committed(&to).unwrap();
        let error = factory
            .reader()
            .read(&admitted.splits[0], &[0])
            .err()
            .unwrap();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            cause.starts_with("lines 0 to 2 of a socket are gone"),
            "{cause}"
        );
    }

    #[test]
    fn a_slow_query_slows_its_peer_down() {
        let (listener, port) = listen();
        let factory = factory(port, &[]);
        let mut source = factory.open().unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.set_write_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let block = "x".repeat(1023) + "\n";
        let block = block.repeat(1024);
        let mut sent = 0;
        let stuck = (0..256).any(|_| {
            sent += 1;
            peer.write_all(block.as_bytes()).is_err()
        });
        assert!(stuck, "nobody takes rows, so nobody takes bytes for ever");
        assert!(sent >= WAITING_BYTES_MAX >> 20);
        let latest = source.latest().unwrap();
        source.committed(&latest).unwrap();
        let more = conformance::arrived(source.as_mut(), &latest);
        assert_ne!(more, latest);
    }

    #[test]
    fn numbers_go_on_after_a_restart() {
        let (listener, port) = listen();
        let mut peer = None;
        let options = SocketOptions {
            host: "localhost".into(),
            port,
            include_timestamp: false,
            partitions: 1,
        };
        let schema = factory(port, &[]).schema();
        let mut source = SocketSource::connect(&options, schema).unwrap();
        let at = offset(7);
        let resume = Resume {
            at: &at,
            oldest: &at,
            memory: &mut std::iter::empty(),
            planned: &[],
        };
        source.resume(resume).unwrap();
        peer.get_or_insert(listener.accept().unwrap().0)
            .write_all(b"x\n")
            .unwrap();
        assert_eq!(conformance::arrived(&mut source, &offset(7)), offset(8));
    }

    #[test]
    fn nobody_there_is_told_with_a_hint() {
        let (listener, port) = listen();
        drop(listener);
        let error = factory(port, &[]).open().err().unwrap();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.starts_with(&format!(
            "could not connect to localhost:{port}; is something listening"
        )));
        assert!(cause.ends_with(&format!("nc -lk {port})")));
    }
}
