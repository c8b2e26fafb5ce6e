//! Blobs in a bucket of an object store: `<prefix>/ab/abcdef…`, each whole or not there.
//!
//! The functions block, for threads that may wait. The requests run on threads of their own, so the
//! caller may be on any thread.
//!
//! What does not work now may work later, so no error of this file is final, except that a blob is
//! not there.

use crate::address::BucketAddress;
use crate::errors::{BucketClientError, BucketUnavailable, ClaimError, short_reason};
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, WriteMultipart};
use sha2::{Digest, Sha256};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use taskmaster_protocol::Hash;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

/// Bytes of one part of an upload; smaller blobs go whole. An object may have 10,000 parts, and the
/// largest blob has 512.
const PART_BYTES: usize = 8 << 20;

/// Parts of one upload that are sent at a time. With the part that is being read they are the
/// memory of one upload.
const PARTS_IN_FLIGHT: usize = 3;

/// Memory that all uploads together may take, MiB.
const UPLOAD_MEMORY_MB: u32 = 192;

/// Blobs that are looked for at a time.
const LOOKUPS_IN_FLIGHT: usize = 32;

/// While the bucket does not answer, one request is sent per this time to find out whether it is
/// back. All others fail at once.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The object that names the data folder whose blobs are here.
const OWNER_OBJECT: &str = "owner";

/// A part of a bucket with blobs in it.
#[derive(Debug)]
pub(crate) struct BucketStore {
    client: Arc<dyn ObjectStore>,
    prefix: Key,
    /// The address as people know it.
    name: String,
    /// `None` only while this is dropped.
    runtime: Option<Runtime>,
    /// Set while the bucket does not answer.
    outage: Mutex<Option<Outage>>,
    /// A permit for each MiB of [`UPLOAD_MEMORY_MB`].
    upload_memory: Arc<Semaphore>,
}

/// Why the bucket did not answer, and when to ask again.
#[derive(Debug)]
struct Outage {
    why: String,
    retry_at: Instant,
}

/// A blob's bytes as they came from the bucket.
struct FetchedBlob {
    hash: Hash,
    bytes: u64,
}

impl BucketStore {
    /// The part of a bucket at `address`.
    pub(crate) fn at(address: &BucketAddress) -> Result<BucketStore, BucketClientError> {
        let client = address.client()?;
        BucketStore::with_client(client, address.prefix(), address.to_string())
            .map_err(BucketClientError::Thread)
    }

    /// A part of any object store.
    pub(crate) fn with_client(
        client: Arc<dyn ObjectStore>,
        prefix: Key,
        name: String,
    ) -> io::Result<BucketStore> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("object store")
            .enable_all()
            .build()?;
        Ok(BucketStore {
            client,
            prefix,
            name,
            runtime: Some(runtime),
            outage: Mutex::default(),
            upload_memory: Arc::new(Semaphore::new(UPLOAD_MEMORY_MB as usize)),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn key(&self, hash: &Hash) -> Key {
        let name = hash.to_string();
        let folder = name.get(..2).unwrap_or_default();
        self.prefix.clone().join(folder).join(name)
    }

    /// Runs a request and waits for its answer.
    fn run<T: Send + 'static>(
        &self,
        request: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, answer) = std::sync::mpsc::sync_channel(1);
        let Some(runtime) = &self.runtime else {
            return Err(Error::NotSupported {
                source: "it is closed".into(),
            });
        };
        runtime.spawn(async move { drop(sender.send(request.await)) });
        // Nothing comes only if the request panicked, which would be a bug of the object store's
        // crate.
        answer.recv().map_err(|lost| Error::Generic {
            store: "S3",
            source: Box::new(lost),
        })?
    }

    /// Runs a request, unless the bucket did not answer a moment ago. A missing object is
    /// `NotFound`; every other error of the bucket is [`BucketUnavailable`].
    fn run_if_up<T: Send + 'static>(
        &self,
        request: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> io::Result<T> {
        self.fail_during_outage()?;
        match self.run(request) {
            Ok(answer) => {
                if self.outage().take().is_some() {
                    tracing::info!(store = self.name, "the object store answers again");
                }
                Ok(answer)
            }
            Err(error @ Error::NotFound { .. }) => Err(io::Error::new(ErrorKind::NotFound, error)),
            // `local` has packed an error of this machine's disk.
            Err(Error::NotSupported { source }) if source.is::<io::Error>() => Err(source
                .downcast::<io::Error>()
                .map_or_else(io::Error::other, |local| *local)),
            Err(error) => Err(self.note_failure(&error)),
        }
    }

    /// Fails while the bucket does not answer. Lets one caller per [`RETRY_INTERVAL`] through, who
    /// finds out whether it is back.
    fn fail_during_outage(&self) -> io::Result<()> {
        if let Some(outage) = self.outage().as_mut() {
            let now = Instant::now();
            if now < outage.retry_at {
                return Err(self.unavailable(outage.why.clone()));
            }
            outage.retry_at = now + RETRY_INTERVAL;
        }
        Ok(())
    }

    /// Notes that a request failed; returns the error for its caller.
    fn note_failure(&self, error: &Error) -> io::Error {
        let why = short_reason(error);
        // Other kinds are said of one object and need not hold for others.
        if matches!(error, Error::Generic { .. }) {
            let before = self.outage().replace(Outage {
                why: why.clone(),
                retry_at: Instant::now() + RETRY_INTERVAL,
            });
            if before.is_none() {
                tracing::warn!(
                    store = self.name,
                    "the object store cannot be used; blobs are refused until it can: {why}"
                );
            }
        }
        self.unavailable(why)
    }

    fn unavailable(&self, why: String) -> io::Error {
        io::Error::other(BucketUnavailable {
            bucket: self.name.clone(),
            why,
        })
    }

    fn outage(&self) -> MutexGuard<'_, Option<Outage>> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that these are the blobs of the data folder with this id and of no other, because
    /// two masters would remove each other's blobs. `is_known` says that an earlier claim
    /// succeeded.
    pub(crate) fn claim(&self, id: &str, is_known: bool) -> Result<(), ClaimError> {
        let client = self.client.clone();
        let key = self.prefix.clone().join(OWNER_OBJECT);
        let claimed = id.to_owned();
        let owner = self.run(async move {
            let owner = match client.get(&key).await {
                Ok(object) => String::from_utf8_lossy(&object.bytes().await?)
                    .trim()
                    .to_owned(),
                Err(Error::NotFound { .. }) => claimed.clone(),
                Err(error) => return Err(error),
            };
            if owner == claimed {
                // Written at each start, so that a master which may not write is told so now.
                client.put(&key, format!("{claimed}\n").into()).await?;
            }
            Ok(owner)
        });
        match owner {
            Ok(owner) if owner == id => Ok(()),
            Ok(_) => Err(ClaimError::Refused(format!(
                "{} holds the blobs of another data folder; choose another prefix, or, if that \
                 folder is gone for good, remove the object `{OWNER_OBJECT}` there",
                self.name
            ))),
            Err(Error::Generic { .. }) if is_known => Err(ClaimError::Unavailable(String::new())),
            Err(error) => Err(self.claim_error(&error)),
        }
    }

    fn claim_error(&self, error: &Error) -> ClaimError {
        let name = &self.name;
        let why = short_reason(error);
        match error {
            Error::NotFound { .. } => ClaimError::Refused(format!(
                "there is no bucket for {name}: {why}; make it, or name another"
            )),
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                ClaimError::Refused(format!(
                    "{name} may not be used: {why}; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY \
                     must be of somebody who may read, write, list and remove there"
                ))
            }
            _ => ClaimError::Unavailable(format!(
                "{name} does not answer: {why}; AWS_ENDPOINT_URL says where the server is, \
                 AWS_REGION in which region, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY who asks"
            )),
        }
    }

    /// Whether a blob is there.
    pub(crate) fn has(&self, hash: &Hash) -> io::Result<bool> {
        Ok(self.has_all(&[*hash])?.first().copied().unwrap_or(false))
    }

    /// Whether each of these blobs is there, in the order of `hashes`.
    pub(crate) fn has_all(&self, hashes: &[Hash]) -> io::Result<Vec<bool>> {
        let client = self.client.clone();
        let keys: Vec<Key> = hashes.iter().map(|hash| self.key(hash)).collect();
        self.run_if_up(async move {
            let lookups = keys.into_iter().map(|key| {
                let client = client.clone();
                async move {
                    match client.head(&key).await {
                        Ok(_) => Ok(true),
                        Err(Error::NotFound { .. }) => Ok(false),
                        Err(error) => Err(error),
                    }
                }
            });
            futures_util::stream::iter(lookups)
                .buffered(LOOKUPS_IN_FLIGHT)
                .try_collect()
                .await
        })
    }

    /// Keeps a file with `bytes` bytes as the blob `hash`. The caller has checked the hash.
    pub(crate) fn put(&self, hash: &Hash, file: &Path, bytes: u64) -> io::Result<()> {
        let client = self.client.clone();
        let key = self.key(hash);
        let path = file.to_owned();
        let memory = self.upload_memory.clone();
        let memory_mb = upload_memory_mb(bytes);
        let put = self.run_if_up(async move {
            // The semaphore is never closed.
            let _memory = memory.acquire_many(memory_mb).await.ok();
            let mut file = File::open(path).await.map_err(local)?;
            if bytes <= PART_BYTES as u64 {
                let mut whole = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
                file.read_to_end(&mut whole).await.map_err(local)?;
                client.put(&key, whole.into()).await?;
                return Ok(());
            }
            put_in_parts(client.as_ref(), &key, &mut file).await
        });
        put.map_err(|error| {
            if error.kind() == ErrorKind::NotFound {
                self.unavailable("the bucket is not there any more".into())
            } else {
                error
            }
        })
    }

    /// Writes a blob into a new file, durably, and checks its hash. Returns the number of its
    /// bytes.
    pub(crate) fn fetch(&self, hash: &Hash, into: &Path) -> io::Result<u64> {
        let client = self.client.clone();
        let key = self.key(hash);
        let path = into.to_owned();
        let fetched = self.run_if_up(async move {
            let mut parts = client.get(&key).await?.into_stream();
            let mut file = File::create(path).await.map_err(local)?;
            let mut hasher = Sha256::new();
            let mut bytes = 0;
            while let Some(part) = parts.next().await {
                let part = part?;
                hasher.update(&part);
                bytes += part.len() as u64;
                file.write_all(&part).await.map_err(local)?;
            }
            file.sync_all().await.map_err(local)?;
            Ok(FetchedBlob {
                hash: Hash(hasher.finalize().into()),
                bytes,
            })
        })?;
        if fetched.hash == *hash {
            return Ok(fetched.bytes);
        }
        let text = format!("its bytes in {} have the hash {}", self.name, fetched.hash);
        Err(io::Error::new(ErrorKind::InvalidData, text))
    }

    /// Removes blobs; one that is not there is no error.
    pub(crate) fn remove(&self, hashes: &[Hash]) -> io::Result<()> {
        let client = self.client.clone();
        let keys: Vec<Result<Key, Error>> = hashes.iter().map(|hash| Ok(self.key(hash))).collect();
        self.run_if_up(async move {
            let mut removed = client.delete_stream(futures_util::stream::iter(keys).boxed());
            while let Some(one) = removed.next().await {
                match one {
                    Ok(_) | Err(Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
    }

    /// Every blob that is there.
    pub(crate) fn list(&self) -> io::Result<Vec<Hash>> {
        let client = self.client.clone();
        let prefix = self.prefix.clone();
        self.run_if_up(async move {
            let hash_of = |object: ObjectMeta| async move {
                Ok(object.location.filename().and_then(Hash::parse))
            };
            client
                .list(Some(&prefix))
                .try_filter_map(hash_of)
                .try_collect()
                .await
        })
    }
}

impl Drop for BucketStore {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The thread that drops this may be one that must not wait.
            runtime.shutdown_background();
        }
    }
}

/// Memory that one upload takes, MiB.
fn upload_memory_mb(bytes: u64) -> u32 {
    let most = ((PARTS_IN_FLIGHT + 2) * PART_BYTES) as u64;
    u32::try_from(bytes.min(most) >> 20).unwrap_or(0) + 1
}

async fn put_in_parts(client: &dyn ObjectStore, key: &Key, file: &mut File) -> Result<(), Error> {
    let parts = client.put_multipart(key).await?;
    let mut upload = WriteMultipart::new_with_chunk_size(parts, PART_BYTES);
    match send_parts(file, &mut upload).await {
        Ok(()) => upload.finish().await.map(drop),
        Err(error) => {
            // Parts that stay are of no use and cost money. If the abort fails, too, a rule of the
            // bucket may remove them.
            let _ = upload.abort().await;
            Err(error)
        }
    }
}

async fn send_parts(file: &mut File, upload: &mut WriteMultipart) -> Result<(), Error> {
    loop {
        upload.wait_for_capacity(PARTS_IN_FLIGHT).await?;
        let mut part = Vec::with_capacity(PART_BYTES);
        (&mut *file)
            .take(PART_BYTES as u64)
            .read_to_end(&mut part)
            .await
            .map_err(local)?;
        if part.is_empty() {
            return Ok(());
        }
        upload.put(part.into());
    }
}

/// Packs an error of this machine's disk, so that nobody takes it for one of the bucket.
fn local(error: io::Error) -> Error {
    Error::NotSupported {
        source: Box::new(error),
    }
}
