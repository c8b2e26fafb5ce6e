//! Bytes by their hash, from and to whichever master the link talks to; patient while that one is
//! away.

use super::owed::Kept;
use crate::inputs::FetchFile;
use crate::modules::Fetch;
use bytes::Bytes;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use taskmaster_protocol::Hash;
use taskmaster_transport::files::{Download, UploadPurpose};
use taskmaster_transport::{Address, BlobClient};
use tokio::sync::Semaphore;

/// Tries are this far apart.
const PAUSE: Duration = Duration::from_millis(250);

/// A fetch is given up after this time: a master that was restarted is back long before.
const FETCH_WITHIN: Duration = Duration::from_secs(60);

/// Results that are put at a time: each may be large.
const PUTS_MAX: usize = 4;

/// Gets and puts blobs.
#[derive(Debug)]
pub struct Source {
    address: Mutex<Address>,
    token: Option<String>,
    putting: Semaphore,
}

impl Source {
    /// From the master at `address`.
    pub fn new(address: Address, token: Option<String>) -> Source {
        Source {
            address: Mutex::new(address),
            token,
            putting: Semaphore::new(PUTS_MAX),
        }
    }

    /// From now on from the one at `address`.
    pub fn follow(&self, address: Address) {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    fn blobs(&self) -> BlobClient {
        BlobClient::new(
            self.address
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            self.token.clone(),
        )
    }

    /// As a function.
    pub fn fetch(self: Arc<Self>) -> Fetch {
        Arc::new(move |hash| {
            let source = self.clone();
            Box::pin(async move { source.get(hash).await })
        })
    }

    /// As a function that writes into files.
    pub fn fetch_file(self: Arc<Self>) -> FetchFile {
        Arc::new(move |hash, path| {
            let source = self.clone();
            Box::pin(async move { source.get_file(hash, &path).await })
        })
    }

    async fn get_file(&self, hash: Hash, path: &Path) -> Result<u64, String> {
        let mut download = Download::begin(hash, path).map_err(|error| error.to_string())?;
        let (mut moved, mut bytes) = (Instant::now(), 0);
        loop {
            match self.blobs().get_file(&mut download).await {
                Ok(()) => return Ok(download.finish()),
                Err(error) if error.may_pass() => {
                    if download.bytes() > bytes {
                        (moved, bytes) = (Instant::now(), download.bytes());
                    }
                    if moved.elapsed() > FETCH_WITHIN {
                        return Err(error.to_string());
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Puts a file that a task gives back. Tries as long as nobody refuses.
    pub async fn put_file(&self, hash: Hash, path: &Path) -> Result<(), String> {
        loop {
            let turn = self.putting.acquire().await.ok();
            let put = self
                .blobs()
                .put_file(&hash, path, UploadPurpose::Result)
                .await;
            drop(turn);
            match put {
                Ok(()) => return Ok(()),
                Err(error) if error.may_pass() => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    async fn get(&self, hash: Hash) -> Result<Bytes, String> {
        let began = Instant::now();
        loop {
            match self.blobs().get(&hash).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) if error.may_pass() && began.elapsed() < FETCH_WITHIN => {
                    tokio::time::sleep(PAUSE).await
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Puts a result under its hash. Tries as long as nobody refuses: it is not given up because
    /// its master is away.
    pub async fn put(&self, hash: Hash, kept: &Kept) -> Result<(), String> {
        loop {
            // Only while it is being put is a result that waits on disk in memory, too. The
            // semaphore is never closed.
            let turn = self.putting.acquire().await.ok();
            let bytes = kept
                .bytes()
                .await
                .map_err(|error| format!("the result could not be read again: {error}"))?;
            let put = self.blobs().put(&hash, bytes).await;
            drop(turn);
            match put {
                Ok(()) => return Ok(()),
                Err(error) if error.may_pass() => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(format!("the result could not be kept: {error}")),
            }
        }
    }
}
