//! Requests of clients that change tasks, jobs, modules or runners: cancel, retry, set, and the
//! operations of an operator. Each request is answered when its change is durable.

use super::Engine;
use super::add::mono;
use crate::facts::{DependencyState, Known, Unreadable, final_of};
use crate::inbox::ConnectionId;
use crate::lookup::{unknown_job, unknown_task};
use std::collections::{BTreeSet, VecDeque};
use taskmaster_core::{CancelOrigin, Due, Event, Origin, RunnerKey, TaskKey};
use taskmaster_protocol::message::{
    Answer, Cancel, ChangeTask, Operate, Operation, Refused, Retry, Role,
};
use taskmaster_protocol::{
    Dependency, FromMaster, JobName, Json, Refusal, RefusalCode, TaskId, TaskState, limits,
};
use taskmaster_store::record::Record;
use taskmaster_store::view::EndedTask;

impl Engine {
    fn answer_to(
        &mut self,
        connection: ConnectionId,
        reference: u64,
        result: Result<serde_json::Value, Refusal>,
    ) {
        let message = match result {
            Ok(value) => FromMaster::Answer(Answer {
                reference,
                data: Json::of(&value),
            }),
            Err(error) => FromMaster::Refused(Refused {
                reference: Some(reference),
                error,
            }),
        };
        self.send_when_durable(connection, message);
    }

    pub(super) fn cancel(&mut self, connection: ConnectionId, cancel: Cancel) {
        let result = match &cancel.job {
            Some(job) => self.cancel_job(job),
            None => self.cancel_tasks(&cancel.ids),
        };
        self.answer_to(connection, cancel.reference, result);
    }

    fn cancel_job(&mut self, job: &JobName) -> Result<serde_json::Value, Refusal> {
        let Some(open) = self.core.job(job).map(|job| job.counts.open()) else {
            let idle = self.facts.idle_job(job)?;
            return idle
                .map(|_| serde_json::json!({ "cancelled": 0 }))
                .ok_or_else(|| unknown_job(job));
        };
        // No other cancel goes up to this ordinal, and no task has it.
        self.last_ordinal += 1;
        self.tell(Event::JobCancelRequested {
            job: job.clone(),
            up_to: self.last_ordinal,
            origin: CancelOrigin::Client,
        });
        Ok(serde_json::json!({ "cancelled": open }))
    }

    fn cancel_tasks(&mut self, ids: &[TaskId]) -> Result<serde_json::Value, Refusal> {
        // If any id is wrong, nothing is cancelled, because the whole list is probably wrong.
        let keys: Vec<Option<TaskKey>> = ids
            .iter()
            .map(|id| self.cancellable(id))
            .collect::<Result<_, _>>()?;
        let keys: Vec<TaskKey> = keys.into_iter().flatten().collect();
        let count = keys.len();
        for task in keys {
            self.tell(Event::CancelRequested { task });
        }
        Ok(serde_json::json!({ "cancelled": count }))
    }

    /// The key of an open task, or `None` if the task is cancelled already.
    fn cancellable(&self, id: &TaskId) -> Result<Option<TaskKey>, Refusal> {
        let state = match self.facts.known(id) {
            Some(Known::Open(key)) => return Ok(Some(key)),
            Some(Known::Closing(_, ended)) => ended.end.state,
            Some(Known::Ended(stored)) => stored.ended.end.state,
            None => {
                let stored = self.facts.ended_in_view(id)?;
                stored.ok_or_else(|| unknown_task(id))?.ended.end.state
            }
        };
        match state {
            TaskState::Cancelled => Ok(None),
            state => {
                let text = format!(
                    "the task `{id}` is {} and cannot be cancelled",
                    state.as_str()
                );
                Err(Refusal::new(RefusalCode::WrongState, text))
            }
        }
    }

    /// Opens ended tasks again, and with them the dependents that were skipped because of them.
    pub(super) fn retry(&mut self, connection: ConnectionId, retry: Retry) {
        let result = self.retry_tasks(&retry.ids);
        self.answer_to(connection, retry.reference, result);
    }

    fn retry_tasks(&mut self, ids: &[TaskId]) -> Result<serde_json::Value, Refusal> {
        let stored: Vec<EndedTask> = ids
            .iter()
            .map(|id| self.retriable(id))
            .collect::<Result<_, _>>()?;
        let mut queue: VecDeque<EndedTask> = stored.into();
        let mut count = 0;
        let mut reopened = BTreeSet::new();
        while let Some(stored) = queue.pop_front() {
            let id = stored.ended.id.clone();
            // The request may name the task twice, or the task may depend on several reopened tasks.
            // It may even have been skipped again at once.
            if !reopened.insert(id.clone()) || self.facts.key(&id).is_some() {
                continue;
            }
            self.reopen(stored)?;
            count += 1;
            for stored in self.facts.skipped_for(&id)? {
                if self.lost_dependency(&stored)?.is_none() {
                    queue.push_back(stored);
                }
            }
        }
        Ok(serde_json::json!({ "reopened": count }))
    }

    fn retriable(&self, id: &TaskId) -> Result<EndedTask, Refusal> {
        let wrong = |text: String| Err(Refusal::new(RefusalCode::WrongState, text));
        let stored = match self.facts.known(id) {
            Some(Known::Open(_)) => {
                return wrong(format!(
                    "the task `{id}` is open; only failed and cancelled tasks can be retried"
                ));
            }
            Some(Known::Closing(..)) => {
                return wrong(format!(
                    "the task `{id}` is still being stopped; try again in a moment"
                ));
            }
            Some(Known::Ended(stored)) => stored.clone(),
            None => self
                .facts
                .ended_in_view(id)?
                .ok_or_else(|| unknown_task(id))?,
        };
        if let Some(on) = self.lost_dependency(&stored)? {
            return wrong(format!(
                "the task `{id}` has not run, and `{on}`, which it waits for, is no longer kept; add it as a new task that \
                 does not wait for `{on}`"
            ));
        }
        match stored.ended.end.state {
            TaskState::Failed | TaskState::Cancelled => Ok(stored),
            TaskState::Skipped => match stored.ended.end.skipped_for() {
                Some(cause) => wrong(format!(
                    "the task `{id}` was skipped: retry `{cause}`, which it waited for"
                )),
                None => Ok(stored),
            },
            state => wrong(format!(
                "the task `{id}` is {}; only failed and cancelled tasks can be retried",
                state.as_str()
            )),
        }
    }

    /// A dependency of a task that is no longer kept, so that nobody can tell whether it was met. If
    /// the task was sent to a runner, all its dependencies were met before, unless it has continued
    /// as another task since.
    fn lost_dependency<'a>(&self, stored: &'a EndedTask) -> Result<Option<&'a TaskId>, Unreadable> {
        let has_waited = stored.ended.end.last_sent.n > 0 && !stored.body.is_continued();
        if has_waited {
            return Ok(None);
        }
        for Dependency { on, .. } in stored.body.dependencies() {
            if self.dependency_state(&stored.body, on)? == DependencyState::Unknown {
                return Ok(Some(on));
            }
        }
        Ok(None)
    }

    fn reopen(&mut self, stored: EndedTask) -> Result<(), Unreadable> {
        let EndedTask { body, ended } = stored;
        // What cannot be read is found before anything is changed.
        self.dependencies_of(&body)?;
        self.open_job(&body.job)?;
        let body = body.reopened(self.core.cancelled_up_to(&body.job));
        let was = ended.end.state;
        self.persist(Record::Reopened {
            body: body.clone(),
            fence: ended.end.last_sent,
            ended_seq: ended.seq,
            former_state: was,
            skipped_for: ended.end.skipped_for().cloned(),
        });
        self.facts.reopened(body.id.clone(), self.last_seq);
        let priority = body.priority;
        self.open_task(
            body,
            priority,
            Origin::Reopened {
                fence: ended.end.last_sent,
                was: final_of(was),
            },
            Some(Due::Mono(0)),
        )?;
        Ok(())
    }

    pub(super) fn set(&mut self, connection: ConnectionId, set: ChangeTask) {
        let result = self.set_task(&set);
        self.answer_to(connection, set.reference, result);
    }

    fn set_task(&mut self, set: &ChangeTask) -> Result<serde_json::Value, Refusal> {
        let id = &set.id;
        if set.delay_ms.is_some_and(|ms| ms > limits::DURATION_MS_MAX) {
            let text = format!(
                "field `delay_ms` must be at most {}",
                limits::DURATION_MS_MAX
            );
            return Err(Refusal::new(RefusalCode::InvalidValue, text).at("delay_ms"));
        }
        let task = match self.facts.known(id) {
            Some(Known::Open(key)) => key,
            None if self.facts.ended_in_view(id)?.is_none() => return Err(unknown_task(id)),
            Some(Known::Closing(..) | Known::Ended(_)) | None => {
                let text = format!("the task `{id}` has ended; only open tasks can be changed");
                return Err(Refusal::new(RefusalCode::WrongState, text));
            }
        };
        let due = set
            .delay_ms
            .map(|ms| mono(self.now.wall.plus_us(ms * 1_000), self.now));
        self.tell(Event::TaskSet {
            task,
            priority: set.priority,
            due,
        });
        Ok(serde_json::json!({}))
    }

    pub(super) fn operate(&mut self, connection: ConnectionId, operate: Operate) {
        let result = self.carry_out_operation(operate.operation);
        self.answer_to(connection, operate.reference, result);
    }

    fn carry_out_operation(&mut self, operation: Operation) -> Result<serde_json::Value, Refusal> {
        let version = |version| serde_json::json!({ "version": version });
        match operation {
            Operation::PauseJob { job } => self.pause_job(job, true),
            Operation::ResumeJob { job } => self.pause_job(job, false),
            Operation::PauseModule { name } => self
                .pause_module(name, true)
                .map(|()| serde_json::json!({})),
            Operation::ResumeModule { name } => self
                .pause_module(name, false)
                .map(|()| serde_json::json!({})),
            Operation::RollbackModule { name, version: to } => {
                self.rollback_module(name, to).map(version)
            }
            Operation::ApproveModule {
                name,
                version,
                capabilities,
            } => self.approve_module(name, version.as_deref(), capabilities.as_ref()),
            Operation::DrainRunner { runner } => self.drain(&runner),
            Operation::DropAnswers { keys } => Ok(self.drop_answers_by_key(keys)),
            Operation::SaltModule { name, salt } => self.salt_module(name, salt.as_ref()),
        }
    }

    /// Pauses or resumes a job. If the job is not open, this takes effect in its next run.
    fn pause_job(&mut self, job: JobName, paused: bool) -> Result<serde_json::Value, Refusal> {
        if self.core.job(&job).is_some_and(|job| job.open) {
            self.tell(Event::JobPaused { job, paused });
            return Ok(serde_json::json!({}));
        }
        let mut record = self
            .facts
            .idle_job(&job)?
            .ok_or_else(|| unknown_job(&job))?;
        record.paused = paused;
        self.persist(Record::JobPaused {
            job: job.clone(),
            paused,
        });
        // This record has no event, so memory keeps it until the next event is folded.
        self.facts.set_idle_job(job, self.last_seq + 1, record);
        Ok(serde_json::json!({}))
    }

    fn drain(&mut self, runner: &str) -> Result<serde_json::Value, Refusal> {
        let is = |connection: &super::Connection| {
            connection.role == Role::Runner
                && connection
                    .offer
                    .as_ref()
                    .is_some_and(|offer| offer.name == runner)
        };
        let found = self
            .connections
            .iter()
            .find(|(_, connection)| is(connection))
            .map(|(id, _)| *id);
        let Some(connection) = found else {
            let names: Vec<&str> = self
                .connections
                .values()
                .filter_map(|s| s.offer.as_ref())
                .map(|o| o.name.as_str())
                .collect();
            let hint = taskmaster_protocol::near::hint(runner, names);
            return Err(Refusal::new(
                RefusalCode::UnknownRunner,
                format!("no runner `{runner}` is connected{hint}"),
            ));
        };
        self.send_now(connection, FromMaster::Drain(()));
        // The runner gets no more tasks from now on, even if it does not answer.
        let runner = RunnerKey(connection.0);
        self.tell(Event::RunnerUpdated {
            runner,
            credits: 0,
            draining: true,
        });
        Ok(serde_json::json!({}))
    }
}
