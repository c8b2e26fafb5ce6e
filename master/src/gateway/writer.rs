//! The half of a session that writes: drains what is to be said, merges it, and flushes once.

use super::session::SIDE;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::{BufMut, BytesMut};
use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use std::sync::Arc;
use std::time::Duration;
use taskmaster_engine::inbox::SessionNo;
use taskmaster_protocol::{FromMaster, limits};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};

/// Messages that are taken from the outbox at a time.
const DRAIN: usize = 512;

/// Attempts in one merged message, and the bytes of their params: bounds what a reader must hold
/// and parse at once.
const MERGED_MAX: usize = 1_000;
const MERGED_BYTES_MAX: usize = 1 << 20;

/// A write that takes longer is one to somebody who is gone: 32 MiB over a slow line must get
/// through.
const WRITE: Duration = Duration::from_secs(60);

/// However much else is said: a watcher that only listens is heard of by its answers to these.
const PING: Duration = Duration::from_millis(limits::PING_MS);

pub(super) type Sink = SplitSink<WebSocket, Message>;

/// What a session's writer has.
pub(super) struct Writer {
    pub(super) session: SessionNo,
    pub(super) sink: Sink,
    /// From the engine. Its end means that the engine has let go of the session.
    pub(super) outbox: mpsc::UnboundedReceiver<FromMaster>,
    /// From the session's own tasks; bounded, so that they wait for a slow reader.
    pub(super) side: mpsc::Receiver<FromMaster>,
    /// A permit for each batch that may be sent without an answer.
    pub(super) batches: Arc<Semaphore>,
    /// A permit for each report that may be sent without an acknowledgement.
    pub(super) reports: Arc<Semaphore>,
    /// A permit for each wish that may be sent without an answer.
    pub(super) wanted: Arc<Semaphore>,
    /// How the reader ends the session.
    pub(super) close: oneshot::Receiver<CloseFrame>,
    pub(super) buffer: BytesMut,
}

impl Writer {
    /// Writes until the session ends or the connection breaks. Says `first` before anything else.
    pub(super) async fn run(mut self, first: FromMaster) {
        if self.write(vec![first]).await.is_err() {
            return;
        }
        let mut pinged = Instant::now();
        let mut batch = Vec::with_capacity(DRAIN);
        loop {
            let mut answers = 0;
            tokio::select! {
                // The end first: the engine lets go of the session as soon as it hears of it, with
                // less to say.
                biased;
                frame = &mut self.close => {
                    while let Ok(message) = self.outbox.try_recv() {
                        batch.push(message);
                    }
                    while let Ok(message) = self.side.try_recv() {
                        batch.push(message);
                    }
                    if self.write(batch).await.is_ok() && let Ok(frame) = frame {
                        self.end(frame).await;
                    }
                    return;
                },
                count = self.outbox.recv_many(&mut batch, DRAIN) => if count == 0 {
                    let frame = CloseFrame { code: 1001, reason: "the master has let go of this session".into() };
                    return self.end(frame).await;
                } else {
                    // All of the engine's: answers from elsewhere come over `side`.
                    answers = batch.iter().filter(|m| matches!(m, FromMaster::Answer(_) | FromMaster::Refused(_))).count();
                },
                Some(message) = self.side.recv() => batch.push(message),
                () = tokio::time::sleep_until(pinged + PING) => {},
            }
            for _ in 0..SIDE {
                batch.extend(self.side.try_recv().ok());
            }
            if !batch.is_empty() && self.write(std::mem::take(&mut batch)).await.is_err() {
                return;
            }
            self.wanted.add_permits(answers);
            if pinged.elapsed() >= PING {
                pinged = Instant::now();
                if !matches!(
                    timeout(WRITE, self.sink.send(Message::Ping(Default::default()))).await,
                    Ok(Ok(()))
                ) {
                    return;
                }
            }
        }
    }

    async fn end(&mut self, frame: CloseFrame) {
        let _ = timeout(
            Duration::from_secs(1),
            self.sink.send(Message::Close(Some(frame))),
        )
        .await;
    }

    async fn write(&mut self, batch: Vec<FromMaster>) -> Result<(), ()> {
        let messages = merge(batch);
        let written = timeout(WRITE, async {
            for message in messages {
                match &message {
                    FromMaster::Added(_) => self.batches.add_permits(1),
                    FromMaster::Ack(attempts) => self.reports.add_permits(attempts.len()),
                    _ => {}
                }
                let text = self.encode(&message);
                self.sink.feed(Message::Text(text)).await.map_err(drop)?;
            }
            self.sink.flush().await.map_err(drop)
        });
        written.await.unwrap_or_else(|_| {
            // Nothing can be said to it any more.
            let reason = format!("it has read nothing for {} s", WRITE.as_secs());
            tracing::info!(session = self.session.0, reason, "a session is closed");
            Err(())
        })
    }

    fn encode(&mut self, message: &FromMaster) -> Utf8Bytes {
        // The buffer's memory comes back when the socket has taken the bytes.
        self.buffer.reserve(4 << 10);
        let written = serde_json::to_writer((&mut self.buffer).writer(), message);
        let bytes = self.buffer.split().freeze();
        // Our own types always serialise, to UTF-8.
        written
            .ok()
            .and_then(|()| Utf8Bytes::try_from(bytes).ok())
            .unwrap_or_else(|| message.encode().into())
    }
}

/// Joins neighbours of one kind: many small messages cost a reader more than one of the same
/// length.
fn merge(batch: Vec<FromMaster>) -> Vec<FromMaster> {
    let mut merged: Vec<FromMaster> = Vec::with_capacity(batch.len());
    // Bytes of params in the last of `merged`.
    let mut bytes = 0;
    for message in batch {
        let more = bytes_of(&message);
        let rest = match merged.last_mut() {
            Some(last) if bytes + more <= MERGED_BYTES_MAX => join(last, message),
            _ => Some(message),
        };
        match rest {
            Some(message) => {
                bytes = more;
                merged.push(message);
            }
            None => bytes += more,
        }
    }
    merged
}

fn bytes_of(message: &FromMaster) -> usize {
    match message {
        FromMaster::Send(sends) => sends
            .iter()
            .map(|send| send.params.as_ref().map_or(0, |params| params.get().len()))
            .sum(),
        _ => 0,
    }
}

/// Puts `next` into `last` where they are of one kind and fit; else gives it back.
fn join(last: &mut FromMaster, next: FromMaster) -> Option<FromMaster> {
    fn append<T>(last: &mut Vec<T>, next: Vec<T>) -> Option<Vec<T>> {
        if last.len() + next.len() > MERGED_MAX {
            return Some(next);
        }
        last.extend(next);
        None
    }
    match (last, next) {
        (FromMaster::Send(last), FromMaster::Send(next)) => {
            append(last, next).map(FromMaster::Send)
        }
        (FromMaster::Ack(last), FromMaster::Ack(next)) => append(last, next).map(FromMaster::Ack),
        (FromMaster::Cancel(last), FromMaster::Cancel(next)) => {
            append(last, next).map(FromMaster::Cancel)
        }
        (FromMaster::Recall(last), FromMaster::Recall(next)) => {
            append(last, next).map(FromMaster::Recall)
        }
        (_, next) => Some(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::message::Attempt;
    use taskmaster_protocol::{AttemptId, TaskId};

    fn attempts(count: usize) -> Vec<Attempt> {
        let id = TaskId::new("t").unwrap();
        vec![
            Attempt {
                id,
                attempt: AttemptId { epoch: 1, n: 1 }
            };
            count
        ]
    }

    #[test]
    fn neighbours_of_one_kind_are_merged_in_order_and_within_bounds() {
        let (ack, cancel) = (
            |n| FromMaster::Ack(attempts(n)),
            |n| FromMaster::Cancel(attempts(n)),
        );
        assert_eq!(
            merge(vec![ack(1), ack(2), cancel(1), cancel(1), ack(1)]),
            [ack(3), cancel(2), ack(1)]
        );
        assert_eq!(
            merge(vec![ack(600), ack(600), ack(400)]),
            [ack(600), ack(1_000)]
        );
        assert_eq!(
            merge(vec![FromMaster::Drain(()), FromMaster::Drain(())]).len(),
            2
        );
        assert_eq!(merge(Vec::new()), []);
    }
}
