//! A checkpoint in an object store.
//!
//! Files of state may be large. They go out and come back in parts, so that memory holds a few parts of each, and no
//! request takes so long that it counts as lost.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, OnceLock};

use crossbeam_channel::Receiver;
use futures::TryStreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{
    MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, Result as Done,
};
use tokio::runtime::Runtime;

use super::store::{Fill, Store, is_absent, read_error};
use super::{CheckpointError, cloud};
use crate::failpoint::reach;

/// Stores want parts of one size, and of 5 MiB at least.
const PART_BYTES: usize = 8 << 20;
/// So many parts of a file are on the way while the next one fills.
const PARTS_IN_FLIGHT: usize = 3;

/// A prefix of an object store.
pub(super) struct Objects {
    location: String,
    prefix: ObjectPath,
    inner: Arc<dyn ObjectStore>,
}

/// Object stores are async; their callers here are threads that may block.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder
            .worker_threads(1)
            .thread_name("highwater:objects")
            .enable_all();
        builder.build().expect("the system can start a thread")
    })
}

/// Waits for a future on a thread of its own, so that callers may themselves be inside an async program.
fn wait<T: Send + 'static>(
    future: impl Future<Output = Done<T>> + Send + 'static,
) -> io::Result<T> {
    begin(future).get()
}

/// A request on its way.
struct Answer<T>(Receiver<Done<T>>);

fn begin<T: Send + 'static>(future: impl Future<Output = Done<T>> + Send + 'static) -> Answer<T> {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    runtime().spawn(async move {
        let _ = sender.send(future.await);
    });
    Answer(receiver)
}

impl<T> Answer<T> {
    fn get(self) -> io::Result<T> {
        match self.0.recv() {
            Ok(result) => result.map_err(cloud::told),
            Err(_) => Err(io::Error::other("the request was given up")),
        }
    }
}

/// Bytes on their way to an object, which appears when all are there: a part at a time, some parts on the way together.
struct Outgoing {
    inner: Arc<dyn ObjectStore>,
    path: ObjectPath,
    part: Vec<u8>,
    /// Begun when there is more than one part.
    upload: Option<Box<dyn MultipartUpload>>,
    sent: VecDeque<Answer<()>>,
}

impl Outgoing {
    fn send(&mut self) -> io::Result<()> {
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => {
                let (inner, path) = (Arc::clone(&self.inner), self.path.clone());
                none.insert(wait(async move { inner.put_multipart(&path).await })?)
            }
        };
        let part = std::mem::replace(&mut self.part, Vec::with_capacity(PART_BYTES));
        self.sent.push_back(begin(upload.put_part(part.into())));
        self.arrived(PARTS_IN_FLIGHT)
    }

    /// Waits until at most `left` parts are on the way.
    fn arrived(&mut self, left: usize) -> io::Result<()> {
        while self.sent.len() > left
            && let Some(answer) = self.sent.pop_front()
        {
            answer.get()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.upload.is_none() {
            let (inner, path) = (Arc::clone(&self.inner), self.path.clone());
            let part = PutPayload::from(std::mem::take(&mut self.part));
            return wait(async move { inner.put(&path, part).await }).map(|_| ());
        }
        if !self.part.is_empty() {
            self.send()?;
        }
        self.arrived(0)?;
        let Some(mut upload) = self.upload.take() else {
            return Ok(());
        };
        let (upload, done) = wait(async move {
            let done = upload.complete().await;
            Ok((upload, done))
        })?;
        if let Err(error) = done {
            // Its parts are still to be given back.
            self.upload = Some(upload);
            return Err(error.into());
        }
        Ok(())
    }

    /// Leaves no parts behind that somebody pays for.
    fn abandon(&mut self) {
        if let Some(mut upload) = self.upload.take() {
            let _ = wait(async move { upload.abort().await });
        }
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PART_BYTES - self.part.len());
        self.part.extend_from_slice(&bytes[..count]);
        if self.part.len() == PART_BYTES {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Objects {
    /// What is below `prefix` in `inner`; messages call it `location`.
    pub(super) fn new(location: &str, prefix: &str, inner: Arc<dyn ObjectStore>) -> Self {
        Objects {
            location: location.into(),
            prefix: ObjectPath::from(prefix),
            inner,
        }
    }

    fn path(&self, name: &str) -> ObjectPath {
        self.prefix
            .parts()
            .chain(ObjectPath::from(name).parts())
            .collect()
    }

    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.location.trim_end_matches('/'))
    }

    /// True if the object was not there and is now.
    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<bool> {
        let (inner, path) = (Arc::clone(&self.inner), self.path(name));
        let payload = PutPayload::from(bytes.to_vec());
        let put = async move {
            let options = PutOptions::from(PutMode::Create);
            inner.put_opts(&path, payload, options).await
        };
        match wait(put) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // The first answer may have been lost, and what is there be ours: what we write names its run.
                let (inner, path) = (Arc::clone(&self.inner), self.path(name));
                let there = wait(async move { inner.get(&path).await?.bytes().await });
                Ok(there.is_ok_and(|there| there == bytes))
            }
            Err(error) => Err(error),
        }
    }

    fn failed(&self, name: &str, source: io::Error) -> CheckpointError {
        CheckpointError::Write {
            path: self.name(name),
            source,
        }
    }
}

impl Store for Objects {
    fn location(&self) -> &str {
        &self.location
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, CheckpointError> {
        reach("checkpoint.write.before");
        let created = self.create(name, bytes);
        reach("checkpoint.write.after");
        created.map_err(|error| self.failed(name, error))
    }

    fn put(&self, name: &str, fill: &mut Fill<'_>) -> Result<(), CheckpointError> {
        let mut out = Outgoing {
            inner: Arc::clone(&self.inner),
            path: self.path(name),
            part: Vec::new(),
            upload: None,
            sent: VecDeque::new(),
        };
        reach("checkpoint.write.before");
        let written = fill(&mut out).and_then(|()| out.finish());
        reach("checkpoint.write.after");
        written.map_err(|error| {
            out.abandon();
            self.failed(name, error)
        })
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, CheckpointError> {
        let (inner, path) = (Arc::clone(&self.inner), self.path(name));
        let got = wait(async move { inner.get(&path).await?.bytes().await });
        match got {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(read_error(&self.name(name), error)),
        }
    }

    fn copy(&self, name: &str, out: &mut dyn Write) -> Result<bool, CheckpointError> {
        let failed = |error| read_error(&self.name(name), error);
        let (inner, path) = (Arc::clone(&self.inner), self.path(name));
        let bytes = match wait(async move { inner.head(&path).await }) {
            Ok(meta) => meta.size,
            Err(error) if is_absent(&error) => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        let mut at = 0;
        while at < bytes {
            let end = bytes.min(at + PART_BYTES as u64);
            let (inner, path) = (Arc::clone(&self.inner), self.path(name));
            let part = wait(async move { inner.get_range(&path, at..end).await });
            part.and_then(|part| out.write_all(&part)).map_err(failed)?;
            at = end;
        }
        Ok(true)
    }

    fn exists(&self, name: &str) -> Result<bool, CheckpointError> {
        let (inner, path) = (Arc::clone(&self.inner), self.path(name));
        match wait(async move { inner.head(&path).await }) {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(read_error(&self.name(name), error)),
        }
    }

    fn list(&self, dir: &str) -> Result<Vec<(String, u64)>, CheckpointError> {
        let (inner, path) = (Arc::clone(&self.inner), self.path(dir));
        let listed = wait(async move { inner.list(Some(&path)).try_collect::<Vec<_>>().await });
        let depth = self.path(dir).parts().count() + 1;
        let mut found: Vec<(String, u64)> = listed
            .map_err(|error| read_error(&self.name(dir), error))?
            .into_iter()
            .filter(|meta| meta.location.parts().count() == depth)
            .filter_map(|meta| Some((meta.location.filename()?.to_string(), meta.size)))
            .collect();
        found.sort();
        Ok(found)
    }

    fn delete(&self, name: &str) -> Result<(), CheckpointError> {
        let (inner, path) = (Arc::clone(&self.inner), self.path(name));
        match wait(async move { inner.delete(&path).await }) {
            Err(error) if !is_absent(&error) => Err(self.failed(name, error)),
            _ => Ok(()),
        }
    }
}
