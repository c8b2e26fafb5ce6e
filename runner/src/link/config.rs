//! What a runner is told when it starts, and why it may end.

use crate::grants::Grants;
use crate::sandbox::SandboxError;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;
use taskmaster_protocol::message::Offer;
use taskmaster_transport::{Address, DialError};

/// Everything that a runner must know.
#[derive(Debug, Clone)]
pub struct RunnerConfig {
    /// Masters, which are tried in turn.
    pub urls: Vec<Address>,
    /// The token, where the masters want one.
    pub token: Option<String>,
    /// What the runner offers, its name and slots included.
    pub offer: Offer,
    /// What the runner gives to modules that may have it. The master is told with the offer.
    pub grants: Grants,
    /// The folder of compiled modules, input files and task folders.
    pub cache: PathBuf,
    /// How many bytes of input files are kept there.
    pub inputs_bytes: u64,
    /// How many MiB of memory the compilation of one module may take.
    pub compile_memory_mb: u64,
    /// How long running attempts may go on when the runner is told to end.
    pub grace: Duration,
}

/// Why a runner could not start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The master refuses this runner for good: a wrong token, another version.
    #[error("{0}")]
    Refused(DialError),
    /// No address was given.
    #[error("no master's address was given")]
    NoAddress,
    /// The engine could not be set up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The cache cannot be used, or a thread cannot be started.
    #[error("cannot use the cache folder {0}: {1}")]
    Cache(PathBuf, std::io::Error),
}

/// A future in a box. With generic futures, whoever calls this crate would compile all of it again,
/// the sandbox included.
pub type SendFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
