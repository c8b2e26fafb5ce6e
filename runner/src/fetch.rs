//! How the rest of the runner gets bytes by their hash, without knowing where they come from.

use bytes::Bytes;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use taskmaster_protocol::Hash;

/// Why bytes could not be fetched, in one sentence. Who can retry has done so already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The master does not have them, or did not send them.
    #[error("{0}")]
    Remote(String),
    /// They could not be written on this machine.
    #[error("{0}")]
    Local(String),
}

pub type FetchFuture<T> = Pin<Box<dyn Future<Output = Result<T, FetchError>> + Send>>;

/// Fetches the bytes of a hash into memory.
pub type FetchBytes = Arc<dyn Fn(Hash) -> FetchFuture<Bytes> + Send + Sync>;

/// Fetches the bytes of a hash into a new file, and returns the length of the file.
pub type FetchFile = Arc<dyn Fn(Hash, PathBuf) -> FetchFuture<u64> + Send + Sync>;
