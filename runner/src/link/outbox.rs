//! What waits to be written: messages of one kind become one message, as long as it stays small.

use super::wire::ping;
use crate::sandbox::Utterance;
use std::collections::VecDeque;
use taskmaster_protocol::message::{
    Attempt, Done, Failed, LiveOutput, Log, ResultRef, Started, ToMaster,
};
use tokio_tungstenite::tungstenite::Message;

/// Bytes of text gathered into one message: large enough that its overhead is nothing, small enough
/// to be handled in milliseconds.
const MESSAGE_BYTES: usize = 1 << 20;

/// Bytes of an entry beside its texts.
const ENTRY_BYTES: usize = 200;

/// Messages that wait.
#[derive(Debug, Default)]
pub struct Outbox {
    ping: bool,
    messages: Vec<ToMaster>,
    started: Vec<Started>,
    progress: Vec<LiveOutput>,
    partial: Vec<LiveOutput>,
    log: Vec<LiveOutput>,
    live: bool,
}

impl Outbox {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        !self.ping && self.messages.is_empty() && !self.live
    }

    /// Forgets everything: there is nobody to tell.
    pub fn clear(&mut self) {
        if !self.is_empty() {
            *self = Outbox::default();
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

    /// Adds what a running attempt says.
    pub fn live(&mut self, Attempt { id, attempt }: Attempt, utterance: Utterance) {
        self.live = true;
        match utterance {
            Utterance::Started(started_us) => self.started.push(Started {
                id,
                attempt,
                started_us,
            }),
            Utterance::Progress(data) => self.progress.push(LiveOutput { id, attempt, data }),
            Utterance::Partial(data) => self.partial.push(LiveOutput { id, attempt, data }),
            Utterance::Log(data) => self.log.push(LiveOutput { id, attempt, data }),
        }
    }

    /// Everything, encoded. What is said live comes before results: a watcher sees a task end last.
    pub fn take(&mut self) -> VecDeque<Message> {
        let Outbox {
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
        pack(partial, said, ToMaster::Partial, &mut out);
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

fn pack<T>(
    entries: Vec<T>,
    bytes: impl Fn(&T) -> usize,
    message: fn(Vec<T>) -> ToMaster,
    out: &mut VecDeque<Message>,
) {
    let (mut batch, mut size) = (Vec::new(), 0);
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
        let (id, attempt) = (TaskId::new("t").unwrap(), AttemptId { epoch: 1, n });
        let (result, stats, log) = (
            ResultRef::Json(Json::string(text)),
            TaskStats::default(),
            Log::default(),
        );
        let (outputs, adds, then) = Default::default();
        ToMaster::Done(vec![Done {
            id,
            attempt,
            result,
            outputs,
            started_us: 0,
            stats,
            log,
            adds,
            then,
        }])
    }

    #[test]
    fn results_travel_together_but_not_without_bound() {
        let mut outbox = Outbox::default();
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
