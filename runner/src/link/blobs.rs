//! Bytes by their hash, from and to the master to which the link talks. While that master is away,
//! transfers are tried again.

use super::spool::SpooledResult;
use crate::fetch::{FetchBytes, FetchError, FetchFile};
use bytes::Bytes;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use taskmaster_protocol::Hash;
use taskmaster_transport::files::{Download, UploadPurpose};
use taskmaster_transport::{Address, BlobClient, BlobError};
use tokio::sync::Semaphore;

/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(250);

/// A fetch is given up after this time without progress. A master that was restarted is back long
/// before.
const FETCH_WITHIN: Duration = Duration::from_secs(60);

/// Results and files uploaded at a time. Each may be large.
const UPLOADS_MAX: usize = 4;

/// Why bytes could not be uploaded.
#[derive(Debug, thiserror::Error)]
pub enum BlobUploadError {
    /// A result that waited on disk could not be read.
    #[error("the result could not be read again: {0}")]
    ReadBack(io::Error),
    /// The master does not accept a result.
    #[error("the result could not be kept: {0}")]
    Result(BlobError),
    /// The master does not accept a file, or the file cannot be read.
    #[error(transparent)]
    File(BlobError),
}

fn failed(error: BlobError) -> FetchError {
    let why = error.to_string();
    match error {
        BlobError::Local { .. } => FetchError::Local(why),
        _ => FetchError::Remote(why),
    }
}

/// Gets and puts blobs, with retries.
#[derive(Debug)]
pub struct RetryingBlobs {
    address: Mutex<Address>,
    token: Option<String>,
    uploading: Semaphore,
}

impl RetryingBlobs {
    /// The blobs of the master at `address`.
    pub fn new(address: Address, token: Option<String>) -> RetryingBlobs {
        RetryingBlobs {
            address: Mutex::new(address),
            token,
            uploading: Semaphore::new(UPLOADS_MAX),
        }
    }

    /// Talks to the master at `address` from now on.
    pub fn follow(&self, address: Address) {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    fn blobs(&self) -> BlobClient {
        let address = self.address.lock().unwrap_or_else(PoisonError::into_inner);
        BlobClient::new(address.clone(), self.token.clone())
    }

    /// [`RetryingBlobs::get`] as a function.
    pub fn fetch_bytes(self: Arc<Self>) -> FetchBytes {
        Arc::new(move |hash| {
            let blobs = self.clone();
            Box::pin(async move { blobs.get(hash).await })
        })
    }

    /// [`RetryingBlobs::get_file`] as a function.
    pub fn fetch_file(self: Arc<Self>) -> FetchFile {
        Arc::new(move |hash, path| {
            let blobs = self.clone();
            Box::pin(async move { blobs.get_file(hash, &path).await })
        })
    }

    async fn get(&self, hash: Hash) -> Result<Bytes, FetchError> {
        let began = Instant::now();
        loop {
            match self.blobs().get(&hash).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) if error.may_pass() && began.elapsed() < FETCH_WITHIN => {
                    tokio::time::sleep(PAUSE).await
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Fetches into a new file. A fetch that broke off goes on where it was.
    async fn get_file(&self, hash: Hash, path: &Path) -> Result<u64, FetchError> {
        let mut download = Download::begin(hash, path).map_err(failed)?;
        let mut bytes = 0;
        let mut progressed = Instant::now();
        loop {
            match self.blobs().get_file(&mut download).await {
                Ok(()) => return Ok(download.finish()),
                Err(error) if error.may_pass() => {
                    if download.bytes() > bytes {
                        bytes = download.bytes();
                        progressed = Instant::now();
                    }
                    if progressed.elapsed() > FETCH_WITHIN {
                        return Err(failed(error));
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Uploads a file that a task gives back. Tries as long as the master does not refuse it.
    pub async fn put_file(&self, hash: Hash, path: &Path) -> Result<(), BlobUploadError> {
        loop {
            // Waiting cannot fail, because the semaphore is never closed.
            let turn = self.uploading.acquire().await.ok();
            let put = self
                .blobs()
                .put_file(&hash, path, UploadPurpose::Result)
                .await;
            drop(turn);
            match put {
                Ok(()) => return Ok(()),
                Err(error) if error.may_pass() => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(BlobUploadError::File(error)),
            }
        }
    }

    /// Uploads a result. Tries as long as the master does not refuse it, because a result must not
    /// be lost while its master is away.
    pub async fn put(&self, hash: Hash, result: &SpooledResult) -> Result<(), BlobUploadError> {
        loop {
            // A result that waits on disk is in memory only while this turn lasts.
            let turn = self.uploading.acquire().await.ok();
            let bytes = result.bytes().await.map_err(BlobUploadError::ReadBack)?;
            let put = self.blobs().put(&hash, bytes).await;
            drop(turn);
            match put {
                Ok(()) => return Ok(()),
                Err(error) if error.may_pass() => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(BlobUploadError::Result(error)),
            }
        }
    }
}
