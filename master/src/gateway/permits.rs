//! What a session may have under way at a time. The reader takes a permit before it passes a
//! message on, and waiting for one is the flow control: nothing more is read meanwhile.

use std::sync::Arc;
use taskmaster_engine::inbox::Input;
use taskmaster_protocol::{FromMaster, ToMaster, limits};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Reports of one runner whose acknowledgement is not written yet. A runner that does not read its
/// acknowledgements is not read either.
const REPORTS_UNREAD_MAX: usize = 64 << 10;

/// Changes that one client wants and whose answers are not written yet.
const CHANGES_UNREAD_MAX: usize = 256;

/// Messages of one session that the engine has not taken yet, KiB.
const INBOX_KIB: usize = 64 << 10;

/// The engine gives back so many KiB of the inbox at a time.
const INBOX_RETURNED_KIB: usize = 1 << 10;

/// Permits for what a session sends and the writer answers. The reader takes them and the writer
/// gives them back. Clones share them.
#[derive(Clone)]
pub(super) struct AnswerPermits {
    batches: Arc<Semaphore>,
    reports: Arc<Semaphore>,
    changes: Arc<Semaphore>,
}

/// The message that gives a permit back.
enum AnsweredBy {
    /// `task:ack`, with so many reports.
    Ack(usize),
    /// `answer` or `refused`.
    Answer,
    /// None, or one that the engine does not send.
    Nothing,
}

impl Default for AnswerPermits {
    fn default() -> AnswerPermits {
        AnswerPermits {
            batches: Arc::new(Semaphore::new(limits::BATCHES_IN_FLIGHT_MAX)),
            reports: Arc::new(Semaphore::new(REPORTS_UNREAD_MAX)),
            changes: Arc::new(Semaphore::new(CHANGES_UNREAD_MAX)),
        }
    }
}

/// The permit of a batch of tasks. Dropped, it is free for the next batch.
pub(super) struct BatchPermit<'a>(tokio::sync::SemaphorePermit<'a>);

impl BatchPermit<'_> {
    /// Leaves the permit to the writer, who gives it back with the batch's `task:added`.
    pub(super) fn leave_to_writer(self) {
        self.0.forget();
    }
}

impl AnswerPermits {
    /// Waits until one more batch may be under way.
    pub(super) async fn batch(&self) -> Option<BatchPermit<'_>> {
        // The semaphore is never closed.
        self.batches.acquire().await.ok().map(BatchPermit)
    }

    /// Whether a session that holds one batch permit has hardly another: its last batch may be
    /// answered already and the permit not given back yet.
    pub(super) fn is_nearly_alone(&self) -> bool {
        self.batches.available_permits() + 2 >= limits::BATCHES_IN_FLIGHT_MAX
    }

    /// Waits until an input may be under way. The writer gives its permit back.
    pub(super) async fn input(&self, input: &Input) {
        let (semaphore, count) = match answered_by(input) {
            AnsweredBy::Ack(reports) => (&self.reports, reports),
            AnsweredBy::Answer => (&self.changes, 1),
            AnsweredBy::Nothing => return,
        };
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        // The semaphores are never closed.
        if let Ok(permit) = semaphore.acquire_many(count).await {
            permit.forget();
        }
    }

    /// Gives back the permits of what a message of the engine answers, before it is written.
    pub(super) fn give_back_before(&self, message: &FromMaster) {
        match message {
            FromMaster::Added(_) => self.batches.add_permits(1),
            FromMaster::Ack(attempts) => self.reports.add_permits(attempts.len()),
            FromMaster::Welcome(_)
            | FromMaster::Refused(_)
            | FromMaster::Answer(_)
            | FromMaster::Send(_)
            | FromMaster::Recall(_)
            | FromMaster::Cancel(_)
            | FromMaster::Drain(())
            | FromMaster::Announce(_)
            | FromMaster::Rejected(_)
            | FromMaster::Partials(_)
            | FromMaster::Final(_)
            | FromMaster::Events(_)
            | FromMaster::Gap(_) => {}
        }
    }

    /// Gives back the permits of so many answers of the engine, after they were written.
    pub(super) fn give_back_changes(&self, answers: usize) {
        self.changes.add_permits(answers);
    }
}

/// Whether the engine answers a change with this message. Answers to questions, which have no
/// permit, do not come from the engine's outbox.
pub(super) fn is_answer(message: &FromMaster) -> bool {
    matches!(message, FromMaster::Answer(_) | FromMaster::Refused(_))
}

fn answered_by(input: &Input) -> AnsweredBy {
    match input {
        Input::Reports { reports, .. } => AnsweredBy::Ack(reports.len()),
        Input::Message { message, .. } => message_answered_by(message),
        Input::Connected { .. }
        | Input::Disconnected { .. }
        | Input::Heard { .. }
        | Input::Add { .. }
        | Input::Permit(_)
        | Input::Module { .. }
        | Input::Approved(_)
        | Input::Ask { .. }
        | Input::Folded { .. }
        | Input::Prune { .. }
        | Input::DiskSpace(_)
        | Input::Stop { .. }
        | Input::Shutdown => AnsweredBy::Nothing,
    }
}

fn message_answered_by(message: &ToMaster) -> AnsweredBy {
    match message {
        ToMaster::Done(reports) => AnsweredBy::Ack(reports.len()),
        ToMaster::Failed(reports) => AnsweredBy::Ack(reports.len()),
        ToMaster::Cancel(_) | ToMaster::Retry(_) | ToMaster::Set(_) | ToMaster::Operate(_) => {
            AnsweredBy::Answer
        }
        ToMaster::Hello(_)
        | ToMaster::Request(_)
        | ToMaster::Started(_)
        | ToMaster::Returned(_)
        | ToMaster::Progress(_)
        | ToMaster::Partial(_)
        | ToMaster::Log(_)
        | ToMaster::Compiled(_)
        | ToMaster::Compiling(_)
        | ToMaster::Add(_)
        | ToMaster::Release(_)
        | ToMaster::Follow(_)
        | ToMaster::Watch(_)
        | ToMaster::Ask(_) => AnsweredBy::Nothing,
    }
}

/// The share of the engine's queue that one session may fill.
pub(super) struct InboxPermits {
    free: Arc<Semaphore>,
    /// Permits of messages that were told. The engine gives them back when many are together.
    unreturned: Option<OwnedSemaphorePermit>,
}

impl Default for InboxPermits {
    fn default() -> InboxPermits {
        InboxPermits {
            free: Arc::new(Semaphore::new(INBOX_KIB)),
            unreturned: None,
        }
    }
}

impl InboxPermits {
    /// Waits until there is space for a message with so many bytes.
    pub(super) async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = (bytes >> 10).min(INBOX_KIB - INBOX_RETURNED_KIB - 1) + 1;
        let kib = u32::try_from(kib).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        self.free.clone().acquire_many_owned(kib).await.ok()
    }

    /// Keeps the permit of a message that was told. Sometimes returns an input for the engine,
    /// which gives the permits back when it takes the input.
    pub(super) fn told(&mut self, permit: OwnedSemaphorePermit) -> Option<Input> {
        let unreturned = match self.unreturned.take() {
            Some(mut unreturned) => {
                unreturned.merge(permit);
                unreturned
            }
            None => permit,
        };
        if unreturned.num_permits() >= INBOX_RETURNED_KIB {
            return Some(Input::Permit(unreturned));
        }
        self.unreturned = Some(unreturned);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_engine::inbox::ConnectionId;

    fn free(permits: &AnswerPermits) -> [usize; 3] {
        [&permits.batches, &permits.reports, &permits.changes]
            .map(|semaphore| semaphore.available_permits())
    }

    #[tokio::test]
    async fn only_a_message_that_is_answered_takes_a_permit_and_the_answer_gives_it_back() {
        let permits = AnswerPermits::default();
        let full = free(&permits);
        let message = |text: &str| Input::Message {
            connection: ConnectionId(1),
            message: ToMaster::decode(text).unwrap(),
        };
        permits
            .input(&message(r#"{"event":"job:release","data":{"job":"j"}}"#))
            .await;
        assert_eq!(free(&permits), full);
        permits
            .input(&message(
                r#"{"event":"task:cancel","data":{"ref":1,"job":"j"}}"#,
            ))
            .await;
        assert_eq!(free(&permits), [full[0], full[1], full[2] - 1]);
        permits.give_back_changes(1);
        permits.batch().await.unwrap().leave_to_writer();
        assert_eq!(free(&permits), [full[0] - 1, full[1], full[2]]);
        let added = r#"{"event":"task:added","data":{"batch":1,"ids":[],"ended":[]}}"#;
        permits.give_back_before(&FromMaster::decode(added).unwrap());
        assert_eq!(free(&permits), full);
    }
}
