//! What the engine accepts while there is little space on the disk (see [`DiskSpace`]), or while the
//! tasks that wait take much memory.

use super::{DeferredEffect, Engine};
use crate::disk_space::DiskSpace;
use crate::inbox::{self, ConnectionId, DoneReport, Input, Reply};
use taskmaster_core::{Event, RunnerKey};
use taskmaster_protocol::message::{Operation, Query, Refused};
use taskmaster_protocol::{FromMaster, Refusal, RefusalCode, TaskId, ToMaster};
use tokio::sync::oneshot;

impl Engine {
    pub(super) fn is_full(&self) -> bool {
        matches!(self.disk, DiskSpace::Full(_))
    }

    /// Why the state of the disk forbids to add tasks; `None` while tasks may be added.
    pub(super) fn disk_refusal(&self) -> Option<Refusal> {
        self.disk
            .refusal()
            .map(|why| Refusal::new(RefusalCode::Unavailable, why))
    }

    /// Answers a question at once while nothing can be written. The answer may say what is durable,
    /// and what promises nothing, such as the number of open tasks. It must not tell how a task
    /// ended before that is durable, and nobody knows when it will be; then the question is refused
    /// with the reason.
    pub(super) fn answer_when_full(&mut self, query: Query, reply: oneshot::Sender<Reply>) {
        let is_durable = match &query {
            Query::Task { id }
            | Query::Why { id }
            | Query::Logs { id }
            | Query::CacheWhy { id } => self.is_durable(id),
            Query::Results { ids } => ids.iter().all(|id| self.is_durable(id)),
            Query::Tasks { .. }
            | Query::Jobs { .. }
            | Query::Job { .. }
            | Query::Modules { .. }
            | Query::Module { .. }
            | Query::Runners { .. }
            | Query::Status
            | Query::CacheStats => true,
            Query::KeptAnswers(_) | Query::KeptAnswer { .. } => self.are_answers_durable(),
        };
        let answer = match self.disk_refusal().filter(|_| !is_durable) {
            Some(_) if inbox::waits_for_disk_space(&query) => {
                let answer = self.answer(query);
                return self.turn.after.push(DeferredEffect::Reply(reply, answer));
            }
            Some(why) => Reply::Refused(why),
            None => self.answer(query),
        };
        // Whoever asked may have given up.
        let _ = reply.send(answer);
    }

    /// Whether the last end of a task, and its last opening after an end, are durable.
    fn is_durable(&self, id: &TaskId) -> bool {
        self.facts.is_unchanged_since(id, self.events.latest())
    }

    /// Why no more tasks of this priority are added; `None` while there is memory for them. Tasks
    /// with a higher priority than usual may take an eighth more memory.
    pub(super) fn queue_full(&self, priority: i32) -> Option<Refusal> {
        let used = self.facts.open_bytes();
        let max = self.config.queue_bytes;
        if used < max || (priority > 0 && used - max < max / 8) {
            return None;
        }
        let tasks = self.facts.open_count();
        let used_mib = used >> 20;
        let max_mib = max >> 20;
        let text = format!(
            "the queue is full: {tasks} tasks that have not ended take {used_mib} MiB of memory, \
             and {max_mib} MiB are allowed (--queue-mb); add again when some have ended"
        );
        Some(Refusal::new(RefusalCode::Unavailable, text))
    }

    /// The disk's free-space state changed. If something can be written again, the postponed reports
    /// are taken first.
    pub(super) fn disk_changed(&mut self, disk: DiskSpace) {
        self.disk = disk;
        if !self.is_full() {
            let now = self.now;
            for input in std::mem::take(&mut self.postponed_reports) {
                self.take(input, now);
            }
        }
    }

    /// Takes results, or postpones them while nothing can be written.
    pub(super) fn reports_received(&mut self, connection: ConnectionId, reports: Vec<DoneReport>) {
        if self.is_full() {
            self.postpone_reports(
                connection,
                Input::Reports {
                    connection,
                    reports,
                },
            );
        } else {
            self.done(connection, reports);
        }
    }

    /// Keeps reports until the disk has space again.
    fn postpone_reports(&mut self, connection: ConnectionId, reports: Input) {
        self.tell(Event::RunnerHeard {
            runner: RunnerKey(connection.0),
        });
        self.postponed_reports.push(reports);
    }

    /// Returns the message if the disk has the space for it. Otherwise a report is postponed: the
    /// core believes that its attempt still runs, so the runner's slot gets no new task, and the
    /// runner keeps the report. All other changes are refused at once.
    pub(super) fn admit_message(
        &mut self,
        connection: ConnectionId,
        message: ToMaster,
    ) -> Option<ToMaster> {
        let grows = matches!(message, ToMaster::Retry(_));
        let has_space = match self.disk {
            DiskSpace::Ample => true,
            DiskSpace::Low(_) | DiskSpace::Damaged(_) => !grows,
            DiskSpace::Full(_) => false,
        };
        if has_space {
            return Some(message);
        }
        let reference = match &message {
            ToMaster::Failed(_) => {
                self.postpone_reports(
                    connection,
                    Input::Message {
                        connection,
                        message,
                    },
                );
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
            // Most of these messages change nothing durable, a release has no answer with which it
            // could be refused, and the gateway deals with the others.
            ToMaster::Request(_)
            | ToMaster::Returned(_)
            | ToMaster::Started(_)
            | ToMaster::Progress(_)
            | ToMaster::Partial(_)
            | ToMaster::Log(_)
            | ToMaster::Compiled(_)
            | ToMaster::Compiling(_)
            | ToMaster::Release(_)
            | ToMaster::Hello(_)
            | ToMaster::Add(_)
            | ToMaster::Done(_)
            | ToMaster::Follow(_)
            | ToMaster::Watch(_)
            | ToMaster::Ask(_) => return Some(message),
        };
        if let Some(error) = self.disk_refusal() {
            self.send_now(
                connection,
                FromMaster::Refused(Refused {
                    reference: Some(reference),
                    error,
                }),
            );
        }
        None
    }
}
