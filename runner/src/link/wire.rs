//! A WebSocket that is read while it is written: two sides that each wait for the other to read
//! first would wait for ever.

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use taskmaster_protocol::limits;
use taskmaster_transport::Socket;
use tokio_tungstenite::tungstenite::{Bytes, Message, Utf8Bytes};

/// Messages read in one go: a batch to handle, and no more, so that other events get their turn.
const READ_MAX: usize = 64;

/// How long the last words may take to be written.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// The connection broke.
#[derive(Debug)]
pub struct Broken;

/// A connected socket.
pub struct Wire {
    sink: SplitSink<Socket, Message>,
    stream: SplitStream<Socket>,
    inbox: Vec<Utf8Bytes>,
    heard: bool,
    broken: bool,
}

impl Wire {
    /// Around `socket`.
    pub fn new(socket: Socket) -> Wire {
        let (sink, stream) = socket.split();
        Wire {
            sink,
            stream,
            inbox: Vec::new(),
            heard: false,
            broken: false,
        }
    }

    /// Waits until something came, be it the end; [`Wire::take`] it then. Nothing is lost when this
    /// is dropped early.
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

    /// What came, and whether the connection is gone.
    pub fn take(&mut self) -> (Vec<Utf8Bytes>, bool) {
        self.heard = false;
        (std::mem::take(&mut self.inbox), self.broken)
    }

    /// Writes `messages` and flushes once, reading all the while.
    pub async fn write(&mut self, messages: VecDeque<Message>) -> Result<(), Broken> {
        let within = Duration::from_millis(limits::SILENT_MS_MAX);
        let mut messages = messages;
        loop {
            // Each message has its time: many of them over a slow line are no reason to give up.
            let left = messages.len();
            let mut written = false;
            let writing = poll_fn(|cx| {
                if let Poll::Ready(result) = self.poll_write(cx, &mut messages) {
                    written = true;
                    return Poll::Ready(result);
                }
                self.poll_inbox(cx, usize::MAX);
                match (self.broken, messages.len() < left) {
                    (true, _) => Poll::Ready(Err(Broken)),
                    (false, true) => Poll::Ready(Ok(())),
                    (false, false) => Poll::Pending,
                }
            });
            let result = tokio::time::timeout(within, writing)
                .await
                .unwrap_or(Err(Broken));
            if written || result.is_err() {
                return result;
            }
        }
    }

    /// Says goodbye.
    pub async fn close(&mut self) {
        // A master that does not listen any more loses nothing.
        let _ = tokio::time::timeout(CLOSE_WITHIN, self.sink.close()).await;
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        messages: &mut VecDeque<Message>,
    ) -> Poll<Result<(), Broken>> {
        while !messages.is_empty() {
            ready!(self.sink.poll_ready_unpin(cx)).map_err(|_| Broken)?;
            if let Some(message) = messages.pop_front() {
                self.sink.start_send_unpin(message).map_err(|_| Broken)?;
            }
        }
        self.sink.poll_flush_unpin(cx).map_err(|_| Broken)
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
        // More may be there: come again.
        if !self.broken {
            cx.waker().wake_by_ref();
        }
    }
}

/// A ping.
pub fn ping() -> Message {
    Message::Ping(Bytes::new())
}
