//! An object store in memory that can be switched off: for tests of what stands on blobs.

use crate::Blobs;
use crate::home::Home;
use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// An object store that does what it is asked for, unless it is off.
#[derive(Debug, Default)]
pub struct Switched {
    pub(crate) inner: InMemory,
    off: AtomicBool,
    pub(crate) asked: AtomicU32,
}

impl Switched {
    fn may(&self) -> Result<()> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let refused = || Error::Generic {
            store: "S3",
            source: "Connection refused".into(),
        };
        if self.off.load(Ordering::Relaxed) {
            Err(refused())
        } else {
            Ok(())
        }
    }

    /// Switches it off, or on again.
    pub fn switch(&self, off: bool) {
        self.off.store(off, Ordering::Relaxed);
    }
}

impl fmt::Display for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("switched")
    }
}

#[async_trait]
impl ObjectStore for Switched {
    async fn put_opts(
        &self,
        key: &Key,
        bytes: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.may()?;
        self.inner.put_opts(key, bytes, options).await
    }

    async fn put_multipart_opts(
        &self,
        key: &Key,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.may()?;
        self.inner.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Key, options: GetOptions) -> Result<GetResult> {
        self.may()?;
        self.inner.get_opts(key, options).await
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, Result<Key>>,
    ) -> BoxStream<'static, Result<Key>> {
        match self.may() {
            Ok(()) => self.inner.delete_stream(keys),
            Err(error) => futures_util::stream::iter([Err(error)]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.may() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures_util::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Blobs in `data` that live in `store`.
pub fn in_memory(data: &Path, store: &Arc<Switched>, cache_bytes: u64) -> io::Result<Blobs> {
    let home = Home::over(
        store.clone(),
        Key::from("some/place"),
        "s3://in/memory".into(),
    )?;
    Blobs::open(data)?.living_in(home, cache_bytes)
}
