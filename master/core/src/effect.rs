//! What the core wants done, in the imperative. Effects are values: the engine carries them out in
//! order, `Store` before anything that says to the outside that it is safe.

use crate::event::{RunnerKey, TaskKey};
use crate::state::Final;
use std::sync::Arc;
use taskmaster_protocol::{AttemptId, EventKind, JobName};

/// Why a task ended, where no runner's report says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The report that the engine has just told of.
    Report,
    /// Somebody wanted it.
    Cancelled,
    /// A dependency that the core holds ended in another way than it waited for.
    Dependency(TaskKey, Final),
    /// The dependency of this index had ended so before the task came.
    Earlier(usize, Final),
    /// Its runners were lost too often.
    Poison,
}

/// A change that must be durable before anybody is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A task was added.
    Added(TaskKey),
    /// A task is open again.
    Reopened(TaskKey),
    /// A task goes on as another; all attempts up to this one are void.
    Continued(TaskKey, AttemptId),
    /// A task ended.
    Ended {
        /// The task.
        task: TaskKey,
        /// How.
        state: Final,
        /// Why.
        why: Why,
        /// The attempt that ended it, or the last one that was sent.
        attempt: AttemptId,
    },
    /// An attempt failed and another will follow.
    Retrying {
        /// The task.
        task: TaskKey,
        /// The attempt.
        attempt: AttemptId,
        /// Failures counted, with this one.
        tries: u32,
        /// Lost runners counted, with this one.
        lost: u32,
        /// Microseconds until the next try.
        wait_us: u64,
        /// Whether it failed because its runner was lost (then a late success still counts), not by
        /// a report.
        runner_lost: bool,
    },
    /// An open task was changed.
    Set {
        /// The task.
        task: TaskKey,
        /// Its priority.
        priority: i32,
        /// Microseconds until it may start, by the monotonic clock, where that was changed.
        wait_us: Option<u64>,
    },
    /// A job was opened.
    JobOpened(JobName),
    /// A job is done; its counts are what they are now.
    JobDone(JobName),
    /// A session holds a job, or does no longer.
    JobHeld {
        /// The job.
        job: JobName,
        /// The session.
        by: Arc<str>,
        /// Whether it holds it now.
        held: bool,
    },
    /// A job was paused or resumed.
    JobPaused {
        /// The job.
        job: JobName,
        /// Whether it is paused now.
        paused: bool,
    },
    /// Every open task of a job up to this `no` is being cancelled.
    JobCancelled {
        /// The job.
        job: JobName,
        /// The newest task concerned; 0: it is carried out.
        up_to: u64,
    },
    /// A runner joined.
    RunnerJoined(String),
    /// A runner was lost.
    RunnerLost(String),
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make this durable.
    Store(Change),
    /// Send this attempt to this runner.
    Send {
        /// The runner.
        runner: RunnerKey,
        /// The task.
        task: TaskKey,
        /// The attempt.
        attempt: AttemptId,
    },
    /// Ask for these attempts back, as far as they have not started.
    Recall {
        /// The runner.
        runner: RunnerKey,
        /// The attempts.
        attempts: Vec<(TaskKey, AttemptId)>,
    },
    /// Stop this attempt, its result is void.
    Stop {
        /// The runner.
        runner: RunnerKey,
        /// The task.
        task: TaskKey,
        /// The attempt.
        attempt: AttemptId,
    },
    /// Close this runner's connection: nothing has come over it for too long.
    HangUp {
        /// The runner.
        runner: RunnerKey,
    },
    /// Tell those who watch now; nothing durable.
    Show {
        /// What happened: `task:ready`, `task:assigned`, `runner:draining`.
        kind: EventKind,
        /// To which task.
        task: Option<TaskKey>,
        /// On which runner.
        runner: Option<RunnerKey>,
    },
    /// The core holds this task no longer; its key is free.
    Forget(TaskKey),
}
