//! The record of a task, which is all that the core keeps of it.

use crate::due::Due;
use crate::keys::{ClassKey, JobKey, RunnerKey, SharedRunKey, TaskKey};
use crate::one_or_many::OneOrMany;
use crate::state::State;
use std::sync::Arc;
use taskmaster_protocol::{AttemptId, Retries, When};

/// An attempt that may still report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenAttempt {
    /// The attempt's number.
    pub attempt: AttemptId,
    /// The connection of the runner that holds the attempt. `None` after the runner was lost: it
    /// may come back with the attempt.
    pub runner: Option<RunnerKey>,
    /// The process of the runner that the attempt was sent to. No other process may report it, not
    /// even one under the runner's name.
    pub process: Arc<str>,
}

/// A dependent, in the list of the task that it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dependent {
    /// The task that waits.
    pub task: TaskKey,
    /// The [`Task::generation`] of the task that waits. If the task under the key has another one,
    /// the key was given to another task since, and this entry is stale.
    pub generation: u32,
    /// How the task waited for must end.
    pub when: When,
}

/// The part of a task's record that most waiting tasks do without: terms of its own, and what is
/// known of its attempts.
#[derive(Debug, Clone)]
pub(crate) struct TaskDetail {
    /// The earliest start. It is kept while the task is blocked.
    pub due: Option<Due>,
    /// The task's own retry policy; `None` stands for the default policy.
    pub retries: Option<Box<Retries>>,
    /// Failures counted.
    pub tries: u32,
    /// Lost runners counted.
    pub lost: u32,
    /// The number of the last attempt that was sent in this epoch, or counted in an earlier one.
    pub last_attempt: u32,
    /// This attempt and older ones are void.
    pub fence: AttemptId,
    /// Attempts that may still report.
    pub open_attempts: OneOrMany<OpenAttempt>,
    /// Whether the engine looks for a kept answer when the task becomes ready.
    pub is_cached: bool,
    /// The run that the task shares with equal ones.
    pub shared_run: Option<SharedRunKey>,
}

/// All that the core keeps of a task: no id, no parameters, no results. Tasks are visited in any
/// order, so the record fills one cache line, and [`TaskDetail`] is a second one.
#[derive(Debug, Clone)]
#[repr(align(64))]
pub struct Task {
    /// The task's number in the order of adding, counted from 1.
    pub ordinal: u64,
    /// Tells the task from all others that had its key before: its number among the tasks that the
    /// core was told of.
    pub generation: u32,
    /// The task's job.
    pub job: JobKey,
    /// The task's module and requirements.
    pub class: ClassKey,
    /// A higher priority is sent first.
    pub priority: i32,
    /// Attempts of earlier epochs are void, unless [`TaskDetail::fence`] says otherwise.
    pub(crate) since_epoch: u32,
    /// The task's state. Only [`crate::Scheduler::enter`] writes it.
    pub(crate) state: State,
    pub(crate) detail: Option<Box<TaskDetail>>,
    /// The tasks that wait for this one.
    pub dependents: OneOrMany<Dependent>,
    /// Whether the task has ended and some dependents have not been notified yet.
    pub(crate) notifies_dependents: bool,
}

const _: () = assert!(
    size_of::<Option<Task>>() == 64,
    "a task in the table fills one cache line"
);

impl Task {
    /// The task's state.
    pub fn state(&self) -> State {
        self.state
    }

    /// The earliest start.
    pub fn due(&self) -> Option<Due> {
        self.detail.as_ref().and_then(|detail| detail.due)
    }

    /// The task's own retry policy; `None` stands for the default policy.
    pub(crate) fn retries(&self) -> Option<&Retries> {
        self.detail
            .as_ref()
            .and_then(|detail| detail.retries.as_deref())
    }

    /// Failures counted.
    pub fn tries(&self) -> u32 {
        self.detail.as_ref().map_or(0, |detail| detail.tries)
    }

    /// The number of the last attempt that was sent in this epoch, or counted in an earlier one.
    pub(crate) fn last_attempt(&self) -> u32 {
        self.detail.as_ref().map_or(0, |detail| detail.last_attempt)
    }

    /// This attempt and older ones are void.
    pub fn fence(&self) -> AttemptId {
        match &self.detail {
            Some(detail) => detail.fence,
            None => AttemptId {
                epoch: self.since_epoch,
                n: 0,
            },
        }
    }

    /// Whether the engine looks for a kept answer when the task becomes ready.
    pub(crate) fn is_cached(&self) -> bool {
        self.detail.as_ref().is_some_and(|detail| detail.is_cached)
    }

    /// Whether the task may share a run with equal ones.
    pub(crate) fn may_share(&self) -> bool {
        self.detail
            .as_ref()
            .is_some_and(|detail| detail.shared_run.is_some())
    }

    /// Attempts that may still report.
    pub fn open_attempts(&self) -> &[OpenAttempt] {
        self.detail
            .as_ref()
            .map_or(&[], |detail| &detail.open_attempts)
    }

    /// The record of an attempt that may still report.
    pub(crate) fn open_attempt(&self, attempt: AttemptId) -> Option<&OpenAttempt> {
        self.open_attempts()
            .iter()
            .find(|open| open.attempt == attempt)
    }

    /// Whether a runner holds an attempt of the task.
    pub(crate) fn is_on_a_runner(&self) -> bool {
        self.open_attempts()
            .iter()
            .any(|open| open.runner.is_some())
    }

    /// Keeps the open attempts for which `keep` is true.
    pub(crate) fn retain_attempts(&mut self, keep: impl FnMut(&OpenAttempt) -> bool) {
        if let Some(detail) = &mut self.detail {
            detail.open_attempts.retain(keep);
        }
    }

    /// The detail of the task, which has one from now on.
    pub(crate) fn detail_mut(&mut self) -> &mut TaskDetail {
        let fence = self.fence();
        self.detail.get_or_insert_with(|| {
            Box::new(TaskDetail {
                due: None,
                retries: None,
                tries: 0,
                lost: 0,
                last_attempt: 0,
                fence,
                open_attempts: OneOrMany::None,
                is_cached: false,
                shared_run: None,
            })
        })
    }
}
