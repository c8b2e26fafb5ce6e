//! A group of tasks that a session follows by their ids.

use super::super::feed;
use super::partials::SessionPartials;
use super::{MESSAGE_BYTES, MESSAGE_TASKS, SessionOver, Side, send, send_final};
use crate::handle::MasterHandle;
use futures_util::StreamExt;
use std::collections::BTreeSet;
use std::sync::Arc;
use taskmaster_engine::answer::QueryAnswer;
use taskmaster_engine::events::{DurableEvent, EndEvents, EventsPruned};
use taskmaster_protocol::message::{Query, Refused, TasksEnded};
use taskmaster_protocol::{FromMaster, Refusal, RefusalCode, TaskId, TaskView};

/// Questions about single tasks that are asked at a time.
const QUESTIONS_IN_FLIGHT: usize = 32;

/// Tells `side` of each of `ids` once: when the task ends, or at once where it has ended. `seq` was
/// the last event when the session asked. A task that ends later is among the events after `seq`,
/// and one that ended before is final when the engine is asked.
pub(in crate::gateway) async fn follow_tasks(
    handle: MasterHandle,
    ids: Vec<TaskId>,
    seq: u64,
    partials: Option<Arc<SessionPartials>>,
    side: Side,
) {
    let mut follower = TaskFollower {
        handle,
        waiting: ids.into_iter().collect(),
        seq,
        partials,
        side,
    };
    // The session is over, or every task was told.
    let _ = follower.run().await;
}

struct TaskFollower {
    handle: MasterHandle,
    /// Tasks that have not been told yet.
    waiting: BTreeSet<TaskId>,
    /// Events up to this seq have been read.
    seq: u64,
    /// Where their partial results go, if they are asked for.
    partials: Option<Arc<SessionPartials>>,
    side: Side,
}

impl TaskFollower {
    async fn run(&mut self) -> Result<(), SessionOver> {
        let events = self.handle.events.clone();
        let mut interest = events.interest();
        for id in &self.waiting {
            interest.follow_task(id);
        }
        interest.mark(self.seq + 1, events.latest());
        self.ask().await?;
        while !self.waiting.is_empty() {
            let (first, last) = tokio::select! {
                unread = interest.next() => unread,
                () = self.side.closed() => return Err(SessionOver),
            };
            self.seq = self.seq.max(first.saturating_sub(1));
            while self.seq < last && !self.waiting.is_empty() {
                self.read().await?;
            }
        }
        Ok(())
    }

    /// Reads the next events and tells the ends among them.
    async fn read(&mut self) -> Result<(), SessionOver> {
        let read = tokio::select! {
            read = feed::next_ends(&self.handle.events, self.seq, &self.waiting) => read,
            () = self.side.closed() => return Err(SessionOver),
        };
        match read {
            Ok(ends) => {
                self.seq = ends.seq;
                let ended = self.take_ended(&ends);
                self.tell(ended).await
            }
            Err(EventsPruned { first }) => {
                // The tasks may have ended in events that are no longer kept.
                self.seq = first.saturating_sub(1);
                self.ask().await
            }
        }
    }

    /// The waiting tasks among these ends. They do not wait any longer.
    fn take_ended(&mut self, ends: &EndEvents) -> Vec<TaskView> {
        let ended: Vec<TaskView> = ends
            .events
            .iter()
            .filter(|event| event.task().is_some_and(|task| self.waiting.contains(task)))
            .filter_map(DurableEvent::finished)
            .collect();
        for task in &ended {
            self.waiting.remove(&task.id);
        }
        ended
    }

    /// Asks the engine about all waiting tasks. Tells those that have ended and refuses those that
    /// nobody knows. Neither wait any longer.
    async fn ask(&mut self) -> Result<(), SessionOver> {
        let handle = self.handle.clone();
        let questions = self.waiting.clone().into_iter().map(|id| {
            let handle = handle.clone();
            async move {
                let answer = handle.ask(Query::Task { id: id.clone() }).await;
                (id, answer)
            }
        });
        let mut answers = futures_util::stream::iter(questions).buffered(QUESTIONS_IN_FLIGHT);
        let mut ended = Vec::new();
        let mut bytes = 0;
        while let Some((id, answer)) = answers.next().await {
            let task = self.take_answer(id, answer).await?;
            bytes += task.as_ref().map_or(0, TaskView::bytes);
            ended.extend(task);
            if ended.len() >= MESSAGE_TASKS || bytes >= MESSAGE_BYTES {
                self.tell(std::mem::take(&mut ended)).await?;
                bytes = 0;
            }
        }
        self.tell(ended).await
    }

    /// The task, if it has ended.
    async fn take_answer(
        &mut self,
        id: TaskId,
        answer: Result<QueryAnswer, Refusal>,
    ) -> Result<Option<TaskView>, SessionOver> {
        match answer {
            Ok(answer) => {
                let view = match answer {
                    QueryAnswer::Task(view) => Some(*view),
                    _ => None,
                };
                let ended = view.filter(|task| task.state.is_final());
                if ended.is_some() {
                    self.waiting.remove(&id);
                }
                Ok(ended)
            }
            // The end of the task is not durable yet and comes with the events later, or the master
            // stops.
            Err(refusal) if refusal.code == RefusalCode::Unavailable => Ok(None),
            Err(refusal) => {
                self.waiting.remove(&id);
                if let Some(partials) = &self.partials {
                    partials.tasks_ended([&id].into_iter());
                }
                let refused = FromMaster::Refused(Refused {
                    reference: None,
                    error: refusal.about(vec![id]),
                });
                send(&self.side, refused).await?;
                Ok(None)
            }
        }
    }

    async fn tell(&self, tasks: Vec<TaskView>) -> Result<(), SessionOver> {
        if let Some(partials) = self.partials.as_ref().filter(|_| !tasks.is_empty()) {
            partials.send_all().await?;
            partials.tasks_ended(tasks.iter().map(|task| &task.id));
        }
        let mut tasks = tasks.into_iter().peekable();
        while tasks.peek().is_some() {
            let mut bytes = 0;
            let message = TasksEnded {
                seq: None,
                tasks: std::iter::from_fn(|| {
                    let task = if bytes < MESSAGE_BYTES {
                        tasks.next()
                    } else {
                        None
                    }?;
                    bytes += task.bytes();
                    Some(task)
                })
                .take(MESSAGE_TASKS)
                .collect(),
                job_done: None,
            };
            send_final(&self.side, message).await?;
        }
        Ok(())
    }
}
