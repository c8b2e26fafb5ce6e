//! The half of a session that writes: it collects waiting messages, merges them, and flushes once.

use super::closing::{self, code};
use super::permits::{AnswerPermits, is_answer};
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::{BufMut, BytesMut};
use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use std::time::Duration;
use taskmaster_engine::inbox::ConnectionId;
use taskmaster_protocol::message::{Assignment, Rejected, Rejection, ResultRef};
use taskmaster_protocol::{FromMaster, limits};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

/// Messages of a session's own tasks (answers, events) that wait for the writer. The writer takes
/// as many again at a time.
pub(super) const SIDE_MESSAGES: usize = 4;

/// Messages that are taken from the outbox at a time.
const OUTBOX_MESSAGES: usize = 512;

/// Entries in one merged message, and the bytes of their params and results. They bound what a reader must hold
/// and parse at once.
const MERGED_ENTRIES_MAX: usize = 1_000;
const MERGED_BYTES_MAX: usize = 1 << 20;

/// Bytes of refusals in one message. Clients expect those of a batch together, and only the refusals
/// of very many unknown names have more.
const REJECTED_BYTES_MAX: usize = limits::MESSAGE_BYTES_MAX / 2;

/// A write that takes longer is one to somebody who is gone. 32 MiB must get through a slow line.
const WRITE_TIMEOUT: Duration = Duration::from_millis(limits::STALLED_MS_MAX);

/// Pings of the other side whose answers wait to be written. Nothing more is read meanwhile.
pub(super) const PINGS_UNANSWERED_MAX: usize = 8;

/// Time for the close frame to be written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Pings are sent however much else is said, because a watcher that only listens is heard of by its
/// answers to them.
const PING_INTERVAL: Duration = Duration::from_millis(limits::PING_MS);

/// The half of a session that writes.
pub(super) struct SessionWriter {
    pub(super) session: ConnectionId,
    pub(super) sink: SplitSink<WebSocket, Message>,
    /// Messages of the engine. When it ends, the engine has let go of the session.
    pub(super) outbox: mpsc::UnboundedReceiver<FromMaster>,
    /// Messages of the session's own tasks. It is bounded, so that they wait for a slow reader.
    pub(super) side: mpsc::Receiver<FromMaster>,
    /// One for each ping of the other side. The codec makes the answer, and it leaves with the next
    /// flush.
    pub(super) pings: mpsc::Receiver<()>,
    pub(super) permits: AnswerPermits,
    /// The reader ends the session with it.
    pub(super) close: oneshot::Receiver<CloseFrame>,
    /// Memory for the messages that are written.
    pub(super) buffer: BytesMut,
}

/// The connection is broken, or its other side does not read.
struct WriteFailed;

/// What woke the writer.
enum Woken {
    /// Messages wait, or pings to be answered. So many of the messages are the engine's answers to
    /// changes.
    Messages { answers: usize },
    /// The reader ends the session. `None`: the reader is gone.
    Close(Option<CloseFrame>),
    /// The engine has let go of the session.
    LetGo,
}

impl SessionWriter {
    /// Writes until the session ends or the connection breaks. Writes `first` before anything else.
    pub(super) async fn run(mut self, first: FromMaster) {
        if self.write(vec![first]).await.is_err() {
            return;
        }
        let mut last_ping = Instant::now();
        let mut waiting = Vec::with_capacity(OUTBOX_MESSAGES);
        loop {
            let next_ping = last_ping + PING_INTERVAL;
            let answers = match self.wait(&mut waiting, next_ping).await {
                Woken::Messages { answers } => answers,
                Woken::Close(frame) => return self.end(waiting, frame).await,
                Woken::LetGo => {
                    let reason = "the master has let go of this session";
                    return self.close(closing::frame(code::GOING_AWAY, reason)).await;
                }
            };
            for _ in 0..SIDE_MESSAGES {
                waiting.extend(self.side.try_recv().ok());
            }
            // Even without a message a flush writes the answers to pings.
            while self.pings.try_recv().is_ok() {}
            if self.write(std::mem::take(&mut waiting)).await.is_err() {
                return;
            }
            self.permits.give_back_changes(answers);
            if last_ping.elapsed() >= PING_INTERVAL {
                last_ping = Instant::now();
                if self.ping().await.is_err() {
                    return;
                }
            }
        }
    }

    /// Waits for messages, for the end, or for the time of the next ping.
    async fn wait(&mut self, waiting: &mut Vec<FromMaster>, next_ping: Instant) -> Woken {
        tokio::select! {
            // The end comes first: the engine lets go of the session as soon as it hears of the
            // end, and its reason says less.
            biased;
            frame = &mut self.close => Woken::Close(frame.ok()),
            count = self.outbox.recv_many(waiting, OUTBOX_MESSAGES) => {
                if count == 0 {
                    return Woken::LetGo;
                }
                let answers = waiting.iter().filter(|message| is_answer(message)).count();
                Woken::Messages { answers }
            }
            Some(message) = self.side.recv() => {
                waiting.push(message);
                Woken::Messages { answers: 0 }
            }
            Some(()) = self.pings.recv() => Woken::Messages { answers: 0 },
            () = tokio::time::sleep_until(next_ping) => Woken::Messages { answers: 0 },
        }
    }

    /// Writes what waits, and the close frame.
    async fn end(&mut self, mut waiting: Vec<FromMaster>, frame: Option<CloseFrame>) {
        while let Ok(message) = self.outbox.try_recv() {
            waiting.push(message);
        }
        while let Ok(message) = self.side.try_recv() {
            waiting.push(message);
        }
        if self.write(waiting).await.is_ok()
            && let Some(frame) = frame
        {
            self.close(frame).await;
        }
    }

    async fn close(&mut self, frame: CloseFrame) {
        let closing = self.sink.send(Message::Close(Some(frame)));
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }

    async fn ping(&mut self) -> Result<(), WriteFailed> {
        let ping = self.sink.send(Message::Ping(Default::default()));
        match timeout(WRITE_TIMEOUT, ping).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(WriteFailed),
        }
    }

    async fn write(&mut self, messages: Vec<FromMaster>) -> Result<(), WriteFailed> {
        let messages = merge(messages);
        let writing = timeout(WRITE_TIMEOUT, async {
            for message in messages {
                self.permits.give_back_before(&message);
                let text = self.encode(&message);
                self.sink
                    .feed(Message::Text(text))
                    .await
                    .map_err(|_| WriteFailed)?;
            }
            self.sink.flush().await.map_err(|_| WriteFailed)
        });
        writing.await.unwrap_or_else(|_| {
            // Nothing can be said to the other side any more.
            let reason = format!("it has read nothing for {} s", WRITE_TIMEOUT.as_secs());
            tracing::info!(session = self.session.0, reason, "a session is closed");
            Err(WriteFailed)
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

/// Joins neighbours of one kind, because many small messages cost a reader more than one of the
/// same length, and cuts a message that is too long into parts.
fn merge(messages: Vec<FromMaster>) -> Vec<FromMaster> {
    let mut merged = MergedMessages {
        messages: Vec::with_capacity(messages.len()),
        last_bytes: 0,
    };
    for message in messages {
        let bytes = bytes_of(&message);
        if bytes <= MERGED_BYTES_MAX {
            merged.push(message, bytes);
        } else {
            for part in parts(message) {
                let bytes = bytes_of(&part);
                merged.push(part, bytes);
            }
        }
    }
    merged.messages
}

struct MergedMessages {
    messages: Vec<FromMaster>,
    /// [`bytes_of`] the last message.
    last_bytes: usize,
}

impl MergedMessages {
    fn push(&mut self, message: FromMaster, bytes: usize) {
        let unmerged = match self.messages.last_mut() {
            Some(last) if self.last_bytes + bytes <= MERGED_BYTES_MAX => join(last, message),
            Some(_) | None => Some(message),
        };
        match unmerged {
            Some(message) => {
                self.last_bytes = bytes;
                self.messages.push(message);
            }
            None => self.last_bytes += bytes,
        }
    }
}

/// A message in parts that are not too long. In one turn the engine may send one runner as much as
/// its slots take, and refuse 300,000 unknown names of one batch. The entries of other messages are
/// short.
fn parts(message: FromMaster) -> Vec<FromMaster> {
    match message {
        FromMaster::Send(sends) => in_parts(sends, MERGED_BYTES_MAX, bytes_of_assignment)
            .into_iter()
            .map(FromMaster::Send)
            .collect(),
        FromMaster::Rejected(Rejected { batch, tasks }) => {
            in_parts(tasks, REJECTED_BYTES_MAX, bytes_of_rejection)
                .into_iter()
                .map(|tasks| FromMaster::Rejected(Rejected { batch, tasks }))
                .collect()
        }
        other => vec![other],
    }
}

/// The entries in lists that end with the entry that makes them too long.
fn in_parts<T>(entries: Vec<T>, bytes_max: usize, bytes_of: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        bytes += bytes_of(&entry);
        part.push(entry);
        if bytes >= bytes_max {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

/// Bytes of what may be long in a message.
fn bytes_of(message: &FromMaster) -> usize {
    match message {
        FromMaster::Send(sends) => sends.iter().map(bytes_of_assignment).sum(),
        FromMaster::Rejected(rejected) => rejected.tasks.iter().map(bytes_of_rejection).sum(),
        _ => 0,
    }
}

fn bytes_of_assignment(send: &Assignment) -> usize {
    /// A hash and the signs around it.
    const HASH: usize = 70;
    /// The signs around an id.
    const QUOTES: usize = 3;
    let results = send.results.values().map(|result| match result {
        ResultRef::Json(json) => json.get().len(),
        ResultRef::Blob(_) => 0,
    });
    let params = send.params.as_ref().map_or(0, |params| params.get().len());
    let args = send.args.iter().map(String::len);
    let env = send
        .env
        .iter()
        .map(|(name, value)| name.len() + value.len());
    let inputs = send.inputs.keys().map(|path| path.as_str().len() + HASH);
    let of_jobs = send.job_results.values().flatten();
    let of_jobs = of_jobs.map(|id| id.as_str().len() + QUOTES);
    params
        + results.sum::<usize>()
        + of_jobs.sum::<usize>()
        + args.sum::<usize>()
        + env.sum::<usize>()
        + inputs.sum::<usize>()
}

fn bytes_of_rejection(rejection: &Rejection) -> usize {
    let error = &rejection.error;
    let ids: usize = error.ids.iter().map(|id| id.as_str().len()).sum();
    error.message.len() + ids
}

/// Puts `next` into `last` where they are of one kind and fit; gives it back otherwise. Two
/// messages of a kind that is not named here stay two messages.
fn join(last: &mut FromMaster, next: FromMaster) -> Option<FromMaster> {
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

fn append<T>(last: &mut Vec<T>, next: Vec<T>) -> Option<Vec<T>> {
    if last.len() + next.len() > MERGED_ENTRIES_MAX {
        return Some(next);
    }
    last.extend(next);
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::message::Attempt;
    use taskmaster_protocol::{AttemptId, TaskId};

    fn attempts(count: usize) -> Vec<Attempt> {
        let id = TaskId::new("t").unwrap();
        let attempt = AttemptId { epoch: 1, n: 1 };
        vec![Attempt { id, attempt }; count]
    }

    /// The assignment of task `n`, with long params.
    fn assignment(n: u32) -> Assignment {
        let params = "x".repeat(250 << 10);
        let version = "0".repeat(64);
        let text = format!(
            r#"[{{"id":"t{n}","attempt":[1,1],"module":"m","version":"{version}","job":"j",
            "params":"{params}","timeout_ms":1,"memory_mb":1,"slots":1}}]"#
        );
        let message = format!(r#"{{"event":"task:send","data":{text}}}"#);
        match FromMaster::decode(&message).unwrap() {
            FromMaster::Send(mut sends) => sends.remove(0),
            other => panic!("{}", other.event()),
        }
    }

    #[test]
    fn params_that_are_too_long_for_one_message_go_in_several() {
        let sent: Vec<Assignment> = (0..200).map(assignment).collect();
        let merged = merge(vec![FromMaster::Send(sent.clone())]);
        let mut arrived = Vec::new();
        for message in merged {
            assert!(message.encode().len() < 2 * MERGED_BYTES_MAX);
            let FromMaster::Send(part) = message else {
                panic!("{}", message.event());
            };
            arrived.extend(part);
        }
        assert_eq!(arrived, sent);
    }

    #[test]
    fn neighbours_of_one_kind_are_merged_in_order_and_within_bounds() {
        let ack = |count| FromMaster::Ack(attempts(count));
        let cancel = |count| FromMaster::Cancel(attempts(count));
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
