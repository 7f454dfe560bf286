//! A checkpoint's store that outlives the process: what a power cut leaves is what was written before it.
//!
//! A [`Mount`] is one process's way to the objects. It can be told to die before or after one of its next writes; from then
//! on nothing that goes through it has an effect, so the sessions above it do no more than a killed program would.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

#[derive(Debug)]
pub(crate) struct Mount {
    objects: Arc<InMemory>,
    /// Writes until it dies, and whether that one is still done.
    dies_in: Mutex<Option<(u32, bool)>>,
    dead: AtomicBool,
}

impl Mount {
    pub(crate) fn new(objects: &Arc<InMemory>) -> Arc<Self> {
        let objects = Arc::clone(objects);
        let (dies_in, dead) = (Mutex::new(None), AtomicBool::new(false));
        Arc::new(Mount {
            objects,
            dies_in,
            dead,
        })
    }

    /// It dies at the write after so many others: after it if `done`, else before.
    pub(crate) fn die_in(&self, writes: u32, done: bool) {
        *self.dies_in.lock().expect("no panic") = Some((writes, done));
    }

    /// It dies now.
    pub(crate) fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    fn alive(&self) -> Result<()> {
        match self.is_dead() {
            false => Ok(()),
            true => Err(Error::Generic {
                store: "mount",
                source: "the process is dead".into(),
            }),
        }
    }

    /// Counts a write: whether it is done, and whether its writer lives to hear of it.
    fn write(&self) -> Result<bool> {
        self.alive()?;
        let mut dies_in = self.dies_in.lock().expect("no panic");
        match &mut *dies_in {
            Some((0, done)) => {
                let done = *done;
                *dies_in = None;
                self.die();
                match done {
                    true => Ok(false),
                    false => self.alive().map(|()| false),
                }
            }
            Some((left, _)) => {
                *left -= 1;
                Ok(true)
            }
            None => Ok(true),
        }
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mount")
    }
}

#[async_trait]
impl ObjectStore for Mount {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let lives = self.write()?;
        let written = self.objects.put_opts(location, payload, options).await;
        match lives {
            true => written,
            false => self.alive().and(written),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.alive()?;
        self.objects.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.alive()?;
        self.objects.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        match self.write() {
            Ok(_) => self.objects.delete_stream(locations),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.alive() {
            Ok(()) => self.objects.list(prefix),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.alive()?;
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.write()?;
        self.objects.copy_opts(from, to, options).await
    }
}
