//! An object store in memory that can be switched off: for tests of what stands on blobs.

use crate::Blobs;
use crate::bucket::BucketStore;
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

/// An object store in memory. It fails while it is switched off.
#[derive(Debug, Default)]
pub struct SwitchableStore {
    pub(crate) inner: InMemory,
    is_off: AtomicBool,
    /// Requests so far.
    pub(crate) requests: AtomicU32,
}

impl SwitchableStore {
    fn fail_if_off(&self) -> Result<()> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if self.is_off.load(Ordering::Relaxed) {
            return Err(Error::Generic {
                store: "S3",
                source: "Connection refused".into(),
            });
        }
        Ok(())
    }

    /// From now on every request fails.
    pub fn switch_off(&self) {
        self.is_off.store(true, Ordering::Relaxed);
    }

    /// From now on requests are answered.
    pub fn switch_on(&self) {
        self.is_off.store(false, Ordering::Relaxed);
    }
}

impl fmt::Display for SwitchableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("switched")
    }
}

#[async_trait]
impl ObjectStore for SwitchableStore {
    async fn put_opts(
        &self,
        key: &Key,
        bytes: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.fail_if_off()?;
        self.inner.put_opts(key, bytes, options).await
    }

    async fn put_multipart_opts(
        &self,
        key: &Key,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.fail_if_off()?;
        self.inner.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Key, options: GetOptions) -> Result<GetResult> {
        self.fail_if_off()?;
        self.inner.get_opts(key, options).await
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, Result<Key>>,
    ) -> BoxStream<'static, Result<Key>> {
        match self.fail_if_off() {
            Ok(()) => self.inner.delete_stream(keys),
            Err(error) => futures_util::stream::iter([Err(error)]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fail_if_off() {
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

/// The blobs of `data`, which live in `store`.
pub fn blobs_in_memory(
    data: &Path,
    store: &Arc<SwitchableStore>,
    cache_bytes: u64,
) -> io::Result<Blobs> {
    let store = BucketStore::with_client(
        store.clone(),
        Key::from("some/place"),
        "s3://in/memory".into(),
    )?;
    Blobs::open(data)?.with_bucket(store, cache_bytes)
}
