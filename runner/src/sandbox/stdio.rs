//! The standard streams of a guest. They are in memory, so a guest never waits for them.

use super::directive::{Directive, DirectiveError};
use super::follow_ups::FollowUps;
use super::limits::STDOUT_BYTES_MAX;
use super::live::{LiveEvent, LiveListener};
use super::log::LogCollector;
use super::stop::StopSwitch;
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use taskmaster_protocol::TaskId;
use taskmaster_protocol::message::{Attempt, Log};
use tokio::io::{AsyncWrite, sink};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// The guest wrote more to stdout than is kept. This error ends the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stdout is longer than {} MiB: write large output into a file", STDOUT_BYTES_MAX >> 20)]
pub struct OutputTooLarge;

/// Bytes that a guest may write at a time.
const WRITE_BYTES: usize = 64 << 10;

/// What one guest writes. The locks are never contended, because only the guest's own thread takes
/// them.
#[derive(Debug)]
pub struct GuestStreams {
    stop: Arc<StopSwitch>,
    out: Mutex<Vec<u8>>,
    err: Mutex<LogCollector>,
    /// Whether the listener knows that the guest has started. Both the guest's epochs and the wait
    /// for its host calls tell.
    told_started: AtomicBool,
}

/// What one guest has written, all of it.
pub struct GuestOutput {
    /// What the guest wrote to stdout.
    pub stdout: Vec<u8>,
    /// What the guest wrote to stderr, without directives.
    pub log: Log,
    /// Bytes that the guest wrote to stderr, directives included.
    pub log_bytes: u64,
    /// The tasks that the guest asked for.
    pub follow_ups: FollowUps,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the lock is held leaves bytes, and any bytes are valid.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GuestStreams {
    /// Empty streams. `listener` hears what `attempt` writes to stderr, and `stop` ends a guest in
    /// the middle of a long write.
    pub fn new(attempt: Attempt, listener: LiveListener, stop: Arc<StopSwitch>) -> GuestStreams {
        GuestStreams {
            stop,
            out: Mutex::default(),
            err: Mutex::new(LogCollector::new(attempt, listener)),
            told_started: AtomicBool::new(false),
        }
    }

    /// Tells the listener, once, that the guest started at `started_us`, µs since 1970.
    pub fn tell_started(&self, started_us: i64) {
        if !self.told_started.swap(true, Ordering::Relaxed) {
            lock(&self.err).tell(LiveEvent::Started(started_us));
        }
    }

    /// Tells the listener what has waited long enough.
    pub fn flush_live(&self, now: Instant) {
        lock(&self.err).flush_live(Some(now));
    }

    /// Whether something waits to be told.
    pub fn has_untold(&self) -> bool {
        lock(&self.err).has_untold()
    }

    /// Tells the listener everything, because the guest may be silent for long from now on.
    pub fn flush_live_now(&self) {
        lock(&self.err).flush_live(None);
    }

    /// Adds a line to the log.
    pub fn log(&self, text: &str) {
        lock(&self.err).log_plain(text);
    }

    /// Does what a directive says, and returns the id of a task that it adds.
    pub fn obey(&self, directive: Directive) -> Result<Option<TaskId>, DirectiveError> {
        lock(&self.err).obey(directive)
    }

    /// Does what a directive says, for a guest that gets no answer: a mistake becomes a warning in
    /// the log.
    pub fn obey_or_warn(&self, directive: Result<Directive, DirectiveError>) {
        lock(&self.err).obey_or_warn(directive);
    }

    /// Takes everything that was written.
    pub fn finish(&self) -> GuestOutput {
        let mut collector = lock(&self.err);
        let (log, log_bytes) = collector.finish();
        GuestOutput {
            stdout: std::mem::take(&mut *lock(&self.out)),
            log,
            log_bytes,
            follow_ups: collector.take_follow_ups(),
        }
    }
}

/// The guest's stdout.
pub struct GuestStdout(pub Arc<GuestStreams>);

/// The guest's stderr.
pub struct GuestStderr(pub Arc<GuestStreams>);

macro_rules! stream {
    ($name:ident, $write:expr) => {
        impl IsTerminal for $name {
            fn is_terminal(&self) -> bool {
                false
            }
        }

        impl StdoutStream for $name {
            // Preview 1 only uses `p2_stream`.
            fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
                Box::new(sink())
            }

            fn p2_stream(&self) -> Box<dyn OutputStream> {
                Box::new($name(self.0.clone()))
            }
        }

        #[async_trait]
        impl Pollable for $name {
            async fn ready(&mut self) {}
        }

        #[async_trait]
        impl OutputStream for $name {
            // wasmtime calls this for each 4 KiB of a command's write, and for each 64 KiB of a
            // component's. 64 MiB of line ends take a second or two in all.
            fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
                if let Some(reason) = self.0.stop.reason(Instant::now()) {
                    return Err(StreamError::Trap(reason.into()));
                }
                let write: fn(&GuestStreams, &[u8]) -> StreamResult<()> = $write;
                write(&self.0, &bytes)
            }

            fn flush(&mut self) -> StreamResult<()> {
                Ok(())
            }

            fn check_write(&mut self) -> StreamResult<usize> {
                Ok(WRITE_BYTES)
            }

            async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
                self.write(bytes)
            }
        }
    };
}

stream!(GuestStdout, |streams, bytes| {
    let mut out = lock(&streams.out);
    if out.len() + bytes.len() > STDOUT_BYTES_MAX {
        return Err(StreamError::Trap(OutputTooLarge.into()));
    }
    out.extend_from_slice(bytes);
    Ok(())
});

stream!(GuestStderr, |streams, bytes| {
    lock(&streams.err).write(bytes);
    Ok(())
});
