//! What is taken when there is little room or none: on the disk, see [`Disk`], and in memory, for
//! tasks that wait.

use super::{Engine, Release};
use crate::inbox::{self, Reply, SessionNo};
use crate::room::Disk;
use taskmaster_core::{Event, RunnerKey};
use taskmaster_protocol::message::{Operation, Query, Refused};
use taskmaster_protocol::{FromMaster, Refusal, RefusalCode, TaskId, ToMaster};
use tokio::sync::oneshot;

impl Engine {
    pub(super) fn is_full(&self) -> bool {
        matches!(self.disk, Disk::Full(_))
    }

    /// Why nothing is added; `None`: all is.
    pub(super) fn no_room(&self) -> Option<Refusal> {
        self.disk
            .refusal()
            .map(|why| Refusal::new(RefusalCode::Unavailable, why))
    }

    /// A question while nothing can be written, for as long as that lasts. What is durable is told,
    /// and what promises nothing: that a task is open, how many there are. An end that is not safe
    /// yet is not, and nobody knows when it will be: whoever asks for it hears why.
    pub(super) fn asked_when_full(&mut self, query: Query, reply: oneshot::Sender<Reply>) {
        let safe = match &query {
            Query::Task { id } | Query::Why { id } | Query::Logs { id } => self.is_safe(id),
            Query::Results { ids } => ids.iter().all(|id| self.is_safe(id)),
            _ => true,
        };
        let answer = match self.no_room().filter(|_| !safe) {
            Some(_) if inbox::waits_for_room(&query) => {
                let answer = self.answer(query);
                return self.turn.after.push(Release::Reply(reply, answer));
            }
            Some(why) => Reply::Refused(why),
            None => self.answer(query),
        };
        // Who no longer waits does not hear it.
        let _ = reply.send(answer);
    }

    /// Whether how a task ended is durable, where it has ended, and that it was opened again, where
    /// it was.
    fn is_safe(&self, id: &TaskId) -> bool {
        self.facts.is_told_by(id, self.events.latest())
    }

    /// Why no more tasks of this priority may wait; `None`: they may. What ends makes room by
    /// itself. For what is more urgent than usual there is an eighth more.
    pub(super) fn queue_full(&self, priority: i32) -> Option<Refusal> {
        let (is, max) = (self.facts.open_bytes(), self.config.queue_bytes);
        if is < max || (priority > 0 && is - max < max / 8) {
            return None;
        }
        let (tasks, is, max) = (self.facts.open_count(), is >> 20, max >> 20);
        let text = format!(
            "the queue is full: {tasks} tasks that have not ended take {is} MiB of memory, and {max} MiB are allowed (--queue-mb); add again when some have ended"
        );
        Some(Refusal::new(RefusalCode::Unavailable, text))
    }

    /// It stands otherwise with the disk: when something can be written again, what was held back
    /// comes first.
    pub(super) fn disk_is(&mut self, disk: Disk) {
        self.disk = disk;
        if !self.is_full() {
            for (session, message) in std::mem::take(&mut self.held_back) {
                self.message(session, message);
            }
        }
    }

    /// The message, if it can be taken now. Reports are held back: to the core their attempts still
    /// run, so their slots get nothing new, and their runners keep them. Changes are refused at
    /// once.
    pub(super) fn there_is_room_for(
        &mut self,
        session: SessionNo,
        message: ToMaster,
    ) -> Option<ToMaster> {
        let grows = matches!(message, ToMaster::Retry(_));
        if self.disk == Disk::Ample || !(self.is_full() || grows) {
            return Some(message);
        }
        let reference = match &message {
            ToMaster::Done(_) | ToMaster::Failed(_) => {
                self.tell(Event::RunnerHeard {
                    runner: RunnerKey(session.0),
                });
                self.held_back.push((session, message));
                return None;
            }
            ToMaster::Operate(operate)
                if matches!(operate.operation, Operation::DrainRunner { .. }) =>
            {
                return Some(message);
            }
            ToMaster::Operate(operate) => operate.reference,
            ToMaster::Cancel(cancel) => cancel.reference,
            ToMaster::Retry(retry) => retry.reference,
            ToMaster::Set(set) => set.reference,
            _ => return Some(message),
        };
        if let Some(error) = self.no_room() {
            self.say(
                session,
                FromMaster::Refused(Refused {
                    reference: Some(reference),
                    error,
                }),
            );
        }
        None
    }
}
