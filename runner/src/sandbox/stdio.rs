//! stdin, stdout and stderr of a guest: in memory, never waiting.

use super::directive::Directive;
use super::limits::STDOUT_BYTES_MAX;
use super::log::{Collector, Listener, Utterance, Wishes};
use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use taskmaster_protocol::TaskId;
use taskmaster_protocol::message::{Attempt, Log};
use tokio::io::{AsyncWrite, sink};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// The guest wrote more to stdout than is kept; ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stdout is longer than {} MiB: write large output into a file", STDOUT_BYTES_MAX >> 20)]
pub struct OutputTooLarge;

/// What one guest writes. Locks are never contended: only its own thread takes them.
#[derive(Debug)]
pub struct Streams {
    out: Mutex<Vec<u8>>,
    err: Mutex<Collector>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in between leaves bytes, which are valid whatever they are.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Streams {
    /// Empty ones. `listener` hears what `attempt` writes to stderr.
    pub fn new(attempt: Attempt, listener: Listener) -> Streams {
        Streams {
            out: Mutex::default(),
            err: Mutex::new(Collector::new(attempt, listener)),
        }
    }

    /// Tells the listener at once.
    pub fn say(&self, utterance: Utterance) {
        lock(&self.err).say(utterance);
    }

    /// Lets the listener hear what has waited long enough.
    pub fn flush_live(&self, now: Instant) {
        lock(&self.err).flush_live(Some(now));
    }

    /// Lets the listener hear everything: the guest may now be silent for long.
    pub fn flush_live_now(&self) {
        lock(&self.err).flush_live(None);
    }

    /// A line for the log.
    pub fn log(&self, text: &str) {
        lock(&self.err).say_line(text);
    }

    /// Does what a directive says; of a task that it adds, the id.
    pub fn obey(&self, directive: Directive) -> Result<Option<TaskId>, String> {
        lock(&self.err).obey(directive)
    }

    /// The same for what has nobody to answer to.
    pub fn try_obey(&self, directive: Result<Directive, String>) {
        lock(&self.err).try_obey(directive);
    }

    /// Takes what the guest wants of the master.
    pub fn wishes(&self) -> Wishes {
        lock(&self.err).take_wishes()
    }

    /// Takes everything: stdout, the log, and how many bytes went to stderr.
    pub fn finish(&self) -> (Vec<u8>, Log, u64) {
        let (log, bytes) = lock(&self.err).finish();
        (std::mem::take(&mut *lock(&self.out)), log, bytes)
    }
}

/// The guest's stdout.
pub struct Out(pub Arc<Streams>);

/// The guest's stderr.
pub struct Err(pub Arc<Streams>);

macro_rules! stream {
    ($name:ident, $write:expr) => {
        impl IsTerminal for $name {
            fn is_terminal(&self) -> bool {
                false
            }
        }

        impl StdoutStream for $name {
            // Preview 1 takes the other one.
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
            fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
                let write: fn(&Streams, &[u8]) -> StreamResult<()> = $write;
                write(&self.0, &bytes)
            }

            fn flush(&mut self) -> StreamResult<()> {
                Ok(())
            }

            fn check_write(&mut self) -> StreamResult<usize> {
                Ok(64 << 10)
            }

            async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
                self.write(bytes)
            }
        }
    };
}

stream!(Out, |streams, bytes| {
    let mut out = lock(&streams.out);
    if out.len() + bytes.len() > STDOUT_BYTES_MAX {
        return Result::Err(StreamError::Trap(OutputTooLarge.into()));
    }
    out.extend_from_slice(bytes);
    Ok(())
});

stream!(Err, |streams, bytes| {
    lock(&streams.err).write(bytes);
    Ok(())
});
