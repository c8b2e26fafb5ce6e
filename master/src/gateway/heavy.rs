//! Work that would delay other sessions runs on a thread for such work.

use taskmaster_protocol::{Refusal, RefusalCode};
use tokio::sync::Semaphore;

/// Work on more bytes than this runs on another thread. Less is about a millisecond's work.
pub(super) const HEAVY_BYTES: usize = 256 << 10;

/// Large messages that are worked on at a time, over all sessions. Each has up to 32 MiB, and takes
/// a small multiple of that while it is read.
static HEAVY_MESSAGES: Semaphore = Semaphore::const_new(8);

/// Runs `work` here if `bytes` are few, and on another thread otherwise.
pub(super) async fn run<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    if bytes < HEAVY_BYTES {
        Ok(work())
    } else {
        // The semaphore is never closed.
        let _permit = HEAVY_MESSAGES.acquire().await.ok();
        run_blocking(work).await
    }
}

/// Runs `work`, which may wait for a disk or for a bucket, on another thread.
pub(super) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    let failed = |_| {
        Refusal::new(
            RefusalCode::Internal,
            "reading the message failed; the master's log has more",
        )
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)
}
