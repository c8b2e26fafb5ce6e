//! Blobs in an object store: `<prefix>/ab/abcdef…`, each whole or not there. Blocking, for threads
//! that may wait; the requests themselves run on threads of their own, so that whoever calls may be
//! anywhere.
//!
//! What does not work now may work later: nothing that this says of itself is final but that a blob
//! is not there.

use super::address::Address;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{Error, ObjectStore, ObjectStoreExt, WriteMultipart};
use sha2::{Digest, Sha256};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use taskmaster_protocol::Hash;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

/// Larger ones go in parts of so many bytes: of the 10,000 parts that an object may have, the
/// largest blob has 512.
const PART: usize = 8 << 20;

/// Parts on their way at a time: with what is being read, the memory of one upload.
const PARTS_AT_A_TIME: usize = 3;

/// MiB that all uploads together may take of this machine's memory.
const MEMORY_MB: u32 = 192;

/// Questions asked at a time.
const ASKED_AT_A_TIME: usize = 32;

/// While the store does not answer, it is asked this often; in between everybody is told so at
/// once.
const ASKED_AGAIN: Duration = Duration::from_secs(1);

/// The object that says whose blobs these are.
const OWNER: &str = "owner";

/// The object store does not do what it is asked for now.
#[derive(Debug, thiserror::Error)]
#[error("the object store {store} cannot be used now: {why}")]
pub struct Away {
    store: String,
    why: String,
}

/// Whether this error is of an object store, and may pass.
pub fn is_away(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Away>())
}

/// What keeps a master from using an object store.
#[derive(Debug)]
pub(super) enum Claim {
    /// It does not answer now.
    Away(String),
    /// It, or what is in it, says no.
    Refused(String),
}

/// An object store with blobs in it.
#[derive(Debug)]
pub(super) struct Home {
    store: Arc<dyn ObjectStore>,
    prefix: Key,
    /// As people know it.
    name: String,
    /// `None` when this is being dropped.
    runtime: Option<Runtime>,
    trouble: Mutex<Option<Trouble>>,
    /// A permit for each MiB of [`MEMORY_MB`].
    memory: Arc<Semaphore>,
}

#[derive(Debug)]
struct Trouble {
    why: String,
    ask_again: Instant,
}

impl Home {
    /// The part of a bucket that `address` says.
    pub(super) fn at(address: &Address) -> Result<Home, String> {
        let home = Home::over(address.store()?, address.prefix(), address.to_string());
        home.map_err(|error| format!("no thread for the object store: {error}"))
    }

    /// A part of any store.
    pub(super) fn over(store: Arc<dyn ObjectStore>, prefix: Key, name: String) -> io::Result<Home> {
        let memory = Arc::new(Semaphore::new(MEMORY_MB as usize));
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("object store")
            .enable_all()
            .build()?;
        Ok(Home {
            store,
            prefix,
            name,
            runtime: Some(runtime),
            trouble: Mutex::default(),
            memory,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn key(&self, hash: &Hash) -> Key {
        let name = hash.to_string();
        self.prefix
            .clone()
            .join(name.get(..2).unwrap_or_default())
            .join(name)
    }

    /// Waits for what the store answers.
    fn ask<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, answer) = std::sync::mpsc::sync_channel(1);
        let Some(runtime) = &self.runtime else {
            return Err(Error::NotSupported {
                source: "it is closed".into(),
            });
        };
        runtime.spawn(async move { drop(sender.send(work.await)) });
        // A panic in there would be a bug of the object store's crate.
        answer.recv().map_err(|lost| Error::Generic {
            store: "S3",
            source: Box::new(lost),
        })?
    }

    /// The same, unless it did not answer a moment ago; what is not there is `NotFound`, all else
    /// is [`Away`].
    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> io::Result<T> {
        self.is_expected()?;
        match self.ask(work) {
            Ok(done) => {
                if self.trouble().take().is_some() {
                    tracing::info!(store = self.name, "the object store answers again");
                }
                Ok(done)
            }
            Err(error @ Error::NotFound { .. }) => Err(io::Error::new(ErrorKind::NotFound, error)),
            Err(Error::NotSupported { source }) if source.is::<io::Error>() => Err(source
                .downcast::<io::Error>()
                .map_or_else(io::Error::other, |local| *local)),
            Err(error) => Err(self.away(&error)),
        }
    }

    /// One caller a second finds out whether it is back.
    fn is_expected(&self) -> io::Result<()> {
        if let Some(trouble) = self.trouble().as_mut() {
            let now = Instant::now();
            if now < trouble.ask_again {
                return Err(io::Error::other(Away {
                    store: self.name.clone(),
                    why: trouble.why.clone(),
                }));
            }
            trouble.ask_again = now + ASKED_AGAIN;
        }
        Ok(())
    }

    fn away(&self, error: &Error) -> io::Error {
        let why = reason(error);
        // What is said of one object need not hold for others.
        if matches!(error, Error::Generic { .. }) {
            let known = self.trouble().replace(Trouble {
                why: why.clone(),
                ask_again: Instant::now() + ASKED_AGAIN,
            });
            if known.is_none() {
                tracing::warn!(
                    store = self.name,
                    "the object store cannot be used; blobs are refused until it can: {why}"
                );
            }
        }
        io::Error::other(Away {
            store: self.name.clone(),
            why,
        })
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<Trouble>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that these are the blobs of the data folder with this id, and of no other: two
    /// masters would remove each other's. `known`: it was so before.
    pub(super) fn claim(&self, id: &str, known: bool) -> Result<(), Claim> {
        let (store, key) = (self.store.clone(), self.prefix.clone().join(OWNER));
        let said = id.to_owned();
        let owner = self.ask(async move {
            let owner = match store.get(&key).await {
                Ok(found) => String::from_utf8_lossy(&found.bytes().await?)
                    .trim()
                    .to_owned(),
                Err(Error::NotFound { .. }) => said.clone(),
                Err(error) => return Err(error),
            };
            if owner == said {
                // Written at each start, so that who may not write is told now.
                store.put(&key, format!("{said}\n").into()).await?;
            }
            Ok(owner)
        });
        match owner {
            Ok(owner) if owner == id => Ok(()),
            Ok(_) => Err(Claim::Refused(format!(
                "{} holds the blobs of another data folder; choose another prefix, or, if that folder is gone for good, remove the object `{OWNER}` there",
                self.name
            ))),
            Err(Error::Generic { .. }) if known => Err(Claim::Away(String::new())),
            Err(error) => Err(self.refusal(&error)),
        }
    }

    fn refusal(&self, error: &Error) -> Claim {
        let (name, why) = (&self.name, reason(error));
        let text = match error {
            Error::NotFound { .. } => {
                format!("there is no bucket for {name}: {why}; make it, or name another")
            }
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => format!(
                "{name} may not be used: {why}; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be of somebody who may read, write, list and remove there"
            ),
            _ => {
                return Claim::Away(format!(
                    "{name} does not answer: {why}; AWS_ENDPOINT_URL says where the server is, AWS_REGION in which region, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY who asks"
                ));
            }
        };
        Claim::Refused(text)
    }

    /// Whether a blob is there.
    pub(super) fn has(&self, hash: &Hash) -> io::Result<bool> {
        Ok(self.has_all(&[*hash])?.first().copied().unwrap_or(false))
    }

    /// The same for many.
    pub(super) fn has_all(&self, hashes: &[Hash]) -> io::Result<Vec<bool>> {
        let (store, keys) = (
            self.store.clone(),
            hashes.iter().map(|hash| self.key(hash)).collect::<Vec<_>>(),
        );
        self.wait(async move {
            let asked = keys.into_iter().map(|key| {
                let store = store.clone();
                async move {
                    match store.head(&key).await {
                        Ok(_) => Ok(true),
                        Err(Error::NotFound { .. }) => Ok(false),
                        Err(error) => Err(error),
                    }
                }
            });
            futures_util::stream::iter(asked)
                .buffered(ASKED_AT_A_TIME)
                .try_collect()
                .await
        })
    }

    /// Keeps a file of so many bytes, whose hash is known.
    pub(super) fn put(&self, hash: &Hash, file: &Path, bytes: u64) -> io::Result<()> {
        let (store, key, file) = (self.store.clone(), self.key(hash), file.to_owned());
        let most = ((PARTS_AT_A_TIME + 2) * PART) as u64;
        let (memory, takes) = (
            self.memory.clone(),
            u32::try_from(bytes.min(most) >> 20).unwrap_or(0) + 1,
        );
        let put = self.wait(async move {
            // The semaphore is never closed.
            let _room = memory.acquire_many(takes).await.ok();
            let mut file = tokio::fs::File::open(file).await.map_err(local)?;
            if bytes <= PART as u64 {
                let mut whole = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
                file.read_to_end(&mut whole).await.map_err(local)?;
                store.put(&key, whole.into()).await?;
                return Ok(());
            }
            let mut upload =
                WriteMultipart::new_with_chunk_size(store.put_multipart(&key).await?, PART);
            match send(&mut file, &mut upload).await {
                Ok(()) => upload.finish().await.map(drop),
                Err(error) => {
                    // Parts that stay are of no use and cost money; a bucket may have a rule that
                    // removes them.
                    let _ = upload.abort().await;
                    Err(error)
                }
            }
        });
        // A bucket that has gone.
        put.map_err(|error| {
            if error.kind() == ErrorKind::NotFound {
                self.gone()
            } else {
                error
            }
        })
    }

    fn gone(&self) -> io::Error {
        io::Error::other(Away {
            store: self.name.clone(),
            why: "the bucket is not there any more".into(),
        })
    }

    /// Writes a blob into a new file, durably, and checks its hash. How many bytes it has.
    pub(super) fn fetch(&self, hash: &Hash, into: &Path) -> io::Result<u64> {
        let (store, key, path) = (self.store.clone(), self.key(hash), into.to_owned());
        let (is, bytes) = self.wait(async move {
            let mut parts = store.get(&key).await?.into_stream();
            let mut file = tokio::fs::File::create(path).await.map_err(local)?;
            let (mut hasher, mut bytes) = (Sha256::new(), 0);
            while let Some(part) = parts.next().await {
                let part = part?;
                hasher.update(&part);
                bytes += part.len() as u64;
                file.write_all(&part).await.map_err(local)?;
            }
            file.sync_all().await.map_err(local)?;
            Ok((Hash(hasher.finalize().into()), bytes))
        })?;
        if is == *hash {
            return Ok(bytes);
        }
        let text = format!("its bytes in {} have the hash {is}", self.name);
        Err(io::Error::new(ErrorKind::InvalidData, text))
    }

    /// Removes blobs, those too that are not there.
    pub(super) fn remove(&self, hashes: &[Hash]) -> io::Result<()> {
        let (store, keys) = (
            self.store.clone(),
            hashes
                .iter()
                .map(|hash| Ok(self.key(hash)))
                .collect::<Vec<_>>(),
        );
        self.wait(async move {
            let mut removed = store.delete_stream(futures_util::stream::iter(keys).boxed());
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
    pub(super) fn list(&self) -> io::Result<Vec<Hash>> {
        let (store, prefix) = (self.store.clone(), self.prefix.clone());
        self.wait(async move {
            let named = |object: object_store::ObjectMeta| async move {
                Ok(object.location.filename().and_then(Hash::parse))
            };
            store
                .list(Some(&prefix))
                .try_filter_map(named)
                .try_collect()
                .await
        })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Whoever drops this may be on a thread that must not wait.
            runtime.shutdown_background();
        }
    }
}

async fn send(file: &mut tokio::fs::File, upload: &mut WriteMultipart) -> Result<(), Error> {
    loop {
        upload.wait_for_capacity(PARTS_AT_A_TIME).await?;
        let mut part = Vec::with_capacity(PART);
        (&mut *file)
            .take(PART as u64)
            .read_to_end(&mut part)
            .await
            .map_err(local)?;
        if part.is_empty() {
            return Ok(());
        }
        upload.put(part.into());
    }
}

/// A file of this machine could not be read or written: no trouble of the store's.
fn local(error: io::Error) -> Error {
    Error::NotSupported {
        source: Box::new(error),
    }
}

/// Why, in a few words. Of what the server said only its code and sentence: the rest may name who
/// asked.
pub(super) fn reason(error: &Error) -> String {
    let text = error.to_string();
    let within = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        rest.split_once('<')
            .map(|(inner, _)| inner.trim().to_owned())
            .filter(|inner| !inner.is_empty())
    };
    match (within("Code"), within("Message")) {
        (Some(code), Some(message)) => return format!("{code}: {message}"),
        (Some(code), None) => return code,
        _ => {}
    }
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner
        .to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}
