//! A WebSocket that is read while it is written. Without that, two sides that each wait until the
//! other one reads would wait for ever.

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use taskmaster_protocol::limits;
use taskmaster_transport::Socket;
use tokio_tungstenite::tungstenite::{Bytes, Message, Utf8Bytes};

/// Messages read at a time. It is a batch that is worth handling, and short enough that other
/// events get their turn.
const READ_MAX: usize = 64;

/// How long closing may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// The connection broke.
#[derive(Debug)]
pub struct ConnectionBroken;

/// What was read from a socket.
pub struct Received {
    /// The text messages, in their order.
    pub texts: Vec<Utf8Bytes>,
    /// Whether the connection is gone.
    pub broken: bool,
}

/// A connected WebSocket.
pub struct DuplexSocket {
    sink: SplitSink<Socket, Message>,
    stream: SplitStream<Socket>,
    /// Text messages that were read and not taken.
    inbox: Vec<Utf8Bytes>,
    /// Whether anything was read since the last [`DuplexSocket::take`]; a pong counts.
    heard: bool,
    broken: bool,
}

impl DuplexSocket {
    /// Wraps `socket`.
    pub fn new(socket: Socket) -> DuplexSocket {
        let (sink, stream) = socket.split();
        DuplexSocket {
            sink,
            stream,
            inbox: Vec::new(),
            heard: false,
            broken: false,
        }
    }

    /// Waits until something came, or the connection ended. [`DuplexSocket::take`] returns what
    /// came. Nothing is lost when this future is dropped early.
    pub async fn read(&mut self) {
        poll_fn(|cx| {
            self.poll_inbox(cx, READ_MAX);
            if self.heard || self.broken {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Takes what came.
    pub fn take(&mut self) -> Received {
        self.heard = false;
        Received {
            texts: std::mem::take(&mut self.inbox),
            broken: self.broken,
        }
    }

    /// Writes `messages` and flushes once, reading all the while.
    pub async fn write(&mut self, mut messages: VecDeque<Message>) -> Result<(), ConnectionBroken> {
        let within = Duration::from_millis(limits::SILENT_MS_MAX);
        loop {
            // Each message has this time, so that many messages over a slow line are no reason to
            // give up.
            let left = messages.len();
            let mut written = false;
            let writing = poll_fn(|cx| {
                if let Poll::Ready(result) = self.poll_write(cx, &mut messages) {
                    written = true;
                    return Poll::Ready(result);
                }
                self.poll_inbox(cx, usize::MAX);
                if self.broken {
                    Poll::Ready(Err(ConnectionBroken))
                } else if messages.len() < left {
                    Poll::Ready(Ok(()))
                } else {
                    Poll::Pending
                }
            });
            let result = tokio::time::timeout(within, writing)
                .await
                .unwrap_or(Err(ConnectionBroken));
            if written || result.is_err() {
                return result;
            }
        }
    }

    /// Closes the connection.
    pub async fn close(&mut self) {
        // A master that reads no more loses nothing, so errors do not matter.
        let _ = tokio::time::timeout(CLOSE_WITHIN, self.sink.close()).await;
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        messages: &mut VecDeque<Message>,
    ) -> Poll<Result<(), ConnectionBroken>> {
        while !messages.is_empty() {
            ready!(self.sink.poll_ready_unpin(cx)).map_err(|_| ConnectionBroken)?;
            if let Some(message) = messages.pop_front() {
                self.sink
                    .start_send_unpin(message)
                    .map_err(|_| ConnectionBroken)?;
            }
        }
        self.sink.poll_flush_unpin(cx).map_err(|_| ConnectionBroken)
    }

    fn poll_inbox(&mut self, cx: &mut Context<'_>, most: usize) {
        let before = self.inbox.len();
        while !self.broken && self.inbox.len() - before < most {
            match self.stream.poll_next_unpin(cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(Message::Close(_)) | Err(_)) | None) => self.broken = true,
                Poll::Ready(Some(Ok(message))) => {
                    self.heard = true;
                    if let Message::Text(text) = message {
                        self.inbox.push(text);
                    }
                }
            }
        }
        // More messages may be there, and nobody else would wake this task for them.
        if !self.broken {
            cx.waker().wake_by_ref();
        }
    }
}

/// A ping.
pub fn ping() -> Message {
    Message::Ping(Bytes::new())
}
