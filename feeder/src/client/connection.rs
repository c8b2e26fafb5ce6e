//! One connection to a master, for as long as it lasts.

use super::error::ClientError;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use taskmaster_protocol::limits;
use taskmaster_protocol::message::Welcome;
use taskmaster_transport::Socket;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

const PING_EVERY: Duration = Duration::from_millis(limits::PING_MS);

const SILENCE_MAX: Duration = Duration::from_millis(limits::SILENT_MS_MAX);

/// How often the clock is read. A silent master is noticed at most this much too late.
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// A live connection.
///
/// A task of its own writes what is sent, so a master that is slow to read never keeps the client
/// from reading: two sides that both only write would wait for each other for ever.
pub(super) struct MasterConnection {
    outgoing: mpsc::UnboundedSender<Message>,
    writer: tokio::task::AbortHandle,
    incoming: SplitStream<Socket>,
    check: Interval,
    last_received: Instant,
    last_ping: Instant,
    /// The master's first message.
    pub(super) welcome: Welcome,
}

impl MasterConnection {
    /// Takes over a socket on which `welcome` has come.
    pub(super) fn new(socket: Socket, welcome: Welcome) -> MasterConnection {
        let (sink, incoming) = socket.split();
        let (outgoing, queue) = mpsc::unbounded_channel();
        let writer = tokio::spawn(write(sink, queue)).abort_handle();

        let mut check = tokio::time::interval(CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);

        MasterConnection {
            outgoing,
            writer,
            incoming,
            check,
            last_received: Instant::now(),
            last_ping: Instant::now(),
            welcome,
        }
    }

    /// Queues a message. The queue has no bound of its own: the protocol's limits (batches in
    /// flight, one answer per question) keep it short. A broken connection is noticed by the next
    /// [`MasterConnection::receive`].
    pub(super) fn send(&self, text: impl Into<Utf8Bytes>) {
        // The receiver is gone only when the connection is broken.
        let _ = self.outgoing.send(Message::Text(text.into()));
    }

    /// The next message. The future may be dropped and made again: no message is lost.
    pub(super) async fn receive(&mut self) -> Result<Utf8Bytes, ClientError> {
        loop {
            tokio::select! {
                biased;
                message = self.incoming.next() => {
                    let message = match message {
                        None => return Err(ClientError::Lost("it was closed".into())),
                        Some(Err(error)) => return Err(ClientError::Lost(error.to_string())),
                        Some(Ok(message)) => message,
                    };
                    self.last_received = Instant::now();
                    // While messages come without a pause, `check` never gets its turn.
                    if self.last_received - self.last_ping > PING_EVERY {
                        self.ping();
                    }
                    match message {
                        Message::Text(text) => return Ok(text),
                        Message::Close(_) => {
                            return Err(ClientError::Lost("the master closed it".into()));
                        }
                        Message::Binary(_)
                        | Message::Ping(_)
                        | Message::Pong(_)
                        | Message::Frame(_) => {}
                    }
                }
                _ = self.check.tick() => self.check_silence()?,
            }
        }
    }

    fn ping(&mut self) {
        self.last_ping = Instant::now();
        // The receiver is gone only when the connection is broken.
        let _ = self.outgoing.send(Message::Ping(bytes::Bytes::new()));
    }

    fn check_silence(&mut self) -> Result<(), ClientError> {
        let silence = self.last_received.elapsed();
        if silence > SILENCE_MAX {
            let seconds = silence.as_secs();
            return Err(ClientError::Lost(format!(
                "nothing was heard for {seconds} s"
            )));
        }
        if self.last_ping.elapsed() >= PING_EVERY {
            self.ping();
        }
        Ok(())
    }
}

impl Drop for MasterConnection {
    fn drop(&mut self) {
        // The writer may hang in a send to a master that is gone.
        self.writer.abort();
    }
}

/// Writes what is queued, and flushes whenever the queue is empty.
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
