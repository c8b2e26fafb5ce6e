//! One connection to a master, for as long as it lasts.

use crate::trouble::Trouble;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use taskmaster_protocol::limits;
use taskmaster_protocol::message::Welcome;
use taskmaster_transport::Socket;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

const PING: Duration = Duration::from_millis(limits::PING_MS);

/// How often the clock is looked at: so much later than it should be a silent master is noticed.
const BEAT: Duration = Duration::from_millis(250);

/// A live connection. What is said goes to a task that writes, so that a peer which is slow to read
/// never keeps us from reading: two sides that both only write would wait for each other for ever.
pub struct Link {
    out: mpsc::UnboundedSender<Message>,
    writer: tokio::task::AbortHandle,
    incoming: SplitStream<Socket>,
    beat: Interval,
    heard: Instant,
    pinged: Instant,
    /// What the master said first.
    pub welcome: Welcome,
}

impl Link {
    /// Takes over a socket whose `welcome` has come.
    pub fn new(socket: Socket, welcome: Welcome) -> Link {
        let (sink, incoming) = socket.split();
        let (out, queue) = mpsc::unbounded_channel();
        let writer = tokio::spawn(write(sink, queue)).abort_handle();
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Link {
            out,
            writer,
            incoming,
            beat,
            heard: Instant::now(),
            pinged: Instant::now(),
            welcome,
        }
    }

    /// Queues a message. Not bounded here: the wire's own limits (batches in flight, one answer per
    /// question) are. A broken link is noticed by the next [`Link::hear`].
    pub fn say(&self, text: impl Into<Utf8Bytes>) {
        // The receiver is gone only when the link is broken.
        let _ = self.out.send(Message::Text(text.into()));
    }

    /// The next message. May be dropped and called again without losing one.
    pub async fn hear(&mut self) -> Result<Utf8Bytes, Trouble> {
        loop {
            tokio::select! {
                biased;
                message = self.incoming.next() => {
                    let message = match message {
                        None => return Err(Trouble::Lost("it was closed".into())),
                        Some(Err(error)) => return Err(Trouble::Lost(error.to_string())),
                        Some(Ok(message)) => message,
                    };
                    self.heard = Instant::now();
                    // While messages come without end, nobody looks at the clock below.
                    if self.heard - self.pinged > PING {
                        self.ping();
                    }
                    match message {
                        Message::Text(text) => return Ok(text),
                        Message::Close(_) => return Err(Trouble::Lost("the master closed it".into())),
                        _ => {}
                    }
                }
                _ = self.beat.tick() => self.check_pulse()?,
            }
        }
    }

    fn ping(&mut self) {
        self.pinged = Instant::now();
        // The receiver is gone only when the link is broken.
        let _ = self.out.send(Message::Ping(bytes::Bytes::new()));
    }

    fn check_pulse(&mut self) -> Result<(), Trouble> {
        let silent = self.heard.elapsed();
        if silent > Duration::from_millis(limits::SILENT_MS_MAX) {
            return Err(Trouble::Lost(format!(
                "nothing was heard for {} s",
                silent.as_secs()
            )));
        }
        if self.pinged.elapsed() >= PING {
            self.ping();
        }
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The writer may hang in a send to a peer that is gone.
        self.writer.abort();
    }
}

/// Writes what is queued; flushes when the queue is empty.
async fn write(mut sink: SplitSink<Socket, Message>, mut queue: mpsc::UnboundedReceiver<Message>) {
    while let Some(message) = queue.recv().await {
        if sink.feed(message).await.is_err() {
            return;
        }
        while let Ok(message) = queue.try_recv() {
            if sink.feed(message).await.is_err() {
                return;
            }
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
}
