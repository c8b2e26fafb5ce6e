//! The messages that wait to be written. Messages of one kind become one message, as long as that
//! stays short.

use super::socket::ping;
use crate::sandbox::LiveEvent;
use std::collections::VecDeque;
use taskmaster_protocol::message::{
    Attempt, Done, Failed, LiveOutput, Log, PartialOutput, ResultRef, Started, ToMaster,
};
use tokio_tungstenite::tungstenite::Message;

/// Bytes of text gathered into one message. It is long enough that its overhead does not matter,
/// and short enough to be handled in milliseconds.
const MESSAGE_BYTES: usize = 1 << 20;

/// Bytes of one attempt's entry in a message, beside its texts.
const ENTRY_BYTES: usize = 200;

/// The messages that wait.
#[derive(Debug, Default)]
pub struct LinkOutbox {
    ping: bool,
    messages: Vec<ToMaster>,
    started: Vec<Started>,
    progress: Vec<LiveOutput>,
    partial: Vec<PartialOutput>,
    log: Vec<LiveOutput>,
    /// Whether one of the four lists above has something.
    has_live: bool,
}

impl LinkOutbox {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        !self.ping && self.messages.is_empty() && !self.has_live
    }

    /// Forgets everything, because there is no connection.
    pub fn clear(&mut self) {
        if !self.is_empty() {
            *self = LinkOutbox::default();
        }
    }

    /// Adds a ping.
    pub fn ping(&mut self) {
        self.ping = true;
    }

    /// Adds a message.
    pub fn say(&mut self, message: ToMaster) {
        match (self.messages.last_mut(), message) {
            (Some(ToMaster::Done(last)), ToMaster::Done(more)) => last.extend(more),
            (Some(ToMaster::Failed(last)), ToMaster::Failed(more)) => last.extend(more),
            (_, message) => self.messages.push(message),
        }
    }

    /// Adds what a running attempt told.
    pub fn live(&mut self, attempt: Attempt, event: LiveEvent) {
        self.has_live = true;
        let Attempt { id, attempt } = attempt;
        match event {
            LiveEvent::Started(started_us) => self.started.push(Started {
                id,
                attempt,
                started_us,
            }),
            LiveEvent::Progress(data) => self.progress.push(LiveOutput { id, attempt, data }),
            LiveEvent::Partial { n, value } => self.partial.push(PartialOutput {
                id,
                attempt,
                n,
                data: value,
            }),
            LiveEvent::Log(data) => self.log.push(LiveOutput { id, attempt, data }),
        }
    }

    /// Takes everything, encoded. Live events come before results, so that a watcher sees the end
    /// of a task last.
    pub fn take(&mut self) -> VecDeque<Message> {
        let LinkOutbox {
            ping: pinging,
            messages,
            started,
            progress,
            partial,
            log,
            ..
        } = std::mem::take(self);
        let mut out = VecDeque::new();
        if pinging {
            out.push_back(ping());
        }
        pack(started, |_| ENTRY_BYTES, ToMaster::Started, &mut out);
        let said = |said: &LiveOutput| ENTRY_BYTES + said.data.get().len();
        pack(progress, said, ToMaster::Progress, &mut out);
        let given = |given: &PartialOutput| ENTRY_BYTES + given.data.get().len();
        pack(partial, given, ToMaster::Partial, &mut out);
        pack(log, said, ToMaster::Log, &mut out);
        for message in messages {
            match message {
                ToMaster::Done(done) => pack(done, done_bytes, ToMaster::Done, &mut out),
                ToMaster::Failed(failed) => pack(failed, failed_bytes, ToMaster::Failed, &mut out),
                other => out.push_back(Message::text(other.encode())),
            }
        }
        out
    }
}

/// Appends messages of `entries` that are about [`MESSAGE_BYTES`] long each.
fn pack<T>(
    entries: Vec<T>,
    bytes: impl Fn(&T) -> usize,
    message: fn(Vec<T>) -> ToMaster,
    out: &mut VecDeque<Message>,
) {
    let mut batch = Vec::new();
    let mut size = 0;
    for entry in entries {
        let more = bytes(&entry);
        if size + more > MESSAGE_BYTES && !batch.is_empty() {
            out.push_back(Message::text(message(std::mem::take(&mut batch)).encode()));
            size = 0;
        }
        size += more;
        batch.push(entry);
    }
    if !batch.is_empty() {
        out.push_back(Message::text(message(batch).encode()));
    }
}

fn log_bytes(log: &Log) -> usize {
    log.head.len() + log.tail.len()
}

fn done_bytes(done: &Done) -> usize {
    let result = if let ResultRef::Json(json) = &done.result {
        json.get().len()
    } else {
        0
    };
    ENTRY_BYTES + result + log_bytes(&done.log)
}

fn failed_bytes(failed: &Failed) -> usize {
    let backtrace = failed.error.backtrace.as_ref().map_or(0, String::len);
    ENTRY_BYTES + failed.error.message.len() + backtrace + log_bytes(&failed.log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::{AttemptId, Json, TaskId, TaskStats};

    fn done(n: u32, text: &str) -> ToMaster {
        ToMaster::Done(vec![Done {
            id: TaskId::new("t").unwrap(),
            attempt: AttemptId { epoch: 1, n },
            result: ResultRef::Json(Json::string(text)),
            outputs: Default::default(),
            started_us: 0,
            stats: TaskStats::default(),
            cache_s: None,
            log: Log::default(),
            adds: Vec::new(),
            then: None,
        }])
    }

    #[test]
    fn results_travel_together_but_not_without_bound() {
        let mut outbox = LinkOutbox::default();
        assert!(outbox.is_empty());
        for n in 0..100 {
            outbox.say(done(n, &"x".repeat(60_000)));
        }
        let messages = outbox.take();
        assert!(outbox.is_empty());
        assert!((5..=8).contains(&messages.len()), "{}", messages.len());
        assert!(
            messages
                .iter()
                .all(|message| message.len() <= MESSAGE_BYTES + 70_000)
        );
        let count: usize = messages
            .iter()
            .map(|message| message.to_text().unwrap().matches("\"id\"").count())
            .sum();
        assert_eq!(count, 100);
    }
}
