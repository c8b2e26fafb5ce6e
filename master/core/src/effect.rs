//! What the core wants done: effects in the imperative. Effects are values that the engine carries
//! out in order. A [`Effect::Store`] is committed before anything tells the outside that it is
//! safe.

use crate::keys::{RunnerKey, SharedRunKey, TaskKey};
use crate::state::FinalState;
use std::sync::Arc;
use taskmaster_protocol::{AttemptId, EventKind, JobName};

/// Why a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The report of an attempt, which the engine told of with the event in hand.
    Report,
    /// A client asked for it.
    Cancelled,
    /// A dependency that the core holds ended in another way than the task waited for.
    Dependency(TaskKey, FinalState),
    /// The dependency of this index had ended in another way before the core was told of the task.
    EarlierDependency(usize, FinalState),
    /// A dependency of which the engine told with the event in hand ended in another way than the task
    /// waited for.
    ToldDependency,
    /// Too many runners were lost while they worked on the task.
    Poison,
    /// An answer was kept for the task.
    KeptAnswer,
    /// An equal task, which the core holds, ended so.
    SharedRun(TaskKey),
}

/// A change that must be durable before anybody is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DurableChange {
    /// A task was added.
    Added(TaskKey),
    /// An ended task is open again.
    Reopened(TaskKey),
    /// A task goes on as another one. Attempts up to the one named here are void.
    Continued(TaskKey, AttemptId),
    /// A task ended.
    Ended {
        /// The ended task.
        task: TaskKey,
        /// How the task ended.
        state: FinalState,
        /// Why the task ended.
        why: EndReason,
        /// The attempt that ended the task, or else the last one that was sent.
        attempt: AttemptId,
    },
    /// An attempt failed, and another one will follow.
    Retrying {
        /// The attempt's task.
        task: TaskKey,
        /// The failed attempt.
        attempt: AttemptId,
        /// Failures counted so far, this one included.
        tries: u32,
        /// Lost runners counted so far, this one included.
        lost: u32,
        /// Microseconds until the next try.
        wait_us: u64,
        /// Whether the attempt failed because its runner was lost, not by a report. A late success
        /// of such an attempt still counts.
        runner_lost: bool,
    },
    /// A client changed an open task.
    Set {
        /// The changed task.
        task: TaskKey,
        /// The task's priority from now on.
        priority: i32,
        /// Microseconds until the task may start, where that was changed.
        wait_us: Option<u64>,
    },
    /// A run of a job began.
    JobOpened(JobName),
    /// A run of a job ended. [`crate::Job::counts`] has its last counts until the next turn ends.
    JobDone(JobName),
    /// A session holds a job from now on, or no longer.
    JobHeld {
        /// The job's name.
        job: JobName,
        /// The name of the session.
        by: Arc<str>,
        /// Whether the session holds the job from now on.
        held: bool,
    },
    /// A job was paused or resumed.
    JobPaused {
        /// The job's name.
        job: JobName,
        /// Whether the job is paused from now on.
        paused: bool,
    },
    /// The open tasks of a job are being cancelled, up to an ordinal.
    JobCancelled {
        /// The job's name.
        job: JobName,
        /// The ordinal of the newest task concerned; 0 when the cancel is carried out.
        up_to: u64,
    },
    /// A runner joined that was not in the roster.
    RunnerJoined(String),
    /// A runner was lost, and is no longer in the roster.
    RunnerLost(String),
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make this durable.
    Store(DurableChange),
    /// Send an attempt to a runner.
    Send {
        /// The runner to send to.
        runner: RunnerKey,
        /// The attempt's task.
        task: TaskKey,
        /// The new attempt.
        attempt: AttemptId,
    },
    /// Ask a runner for those of these attempts that have not started there.
    Recall {
        /// The runner to ask.
        runner: RunnerKey,
        /// What is asked for. An empty list asks the runner only for an answer.
        attempts: Vec<(TaskKey, AttemptId)>,
    },
    /// Stop an attempt, because its result is void.
    Stop {
        /// The runner that holds the attempt.
        runner: RunnerKey,
        /// The attempt's task.
        task: TaskKey,
        /// The attempt to stop.
        attempt: AttemptId,
    },
    /// Close a runner's connection.
    Disconnect {
        /// The connection to close.
        runner: RunnerKey,
    },
    /// Tell the watchers of something that is not durable.
    Announce {
        /// One of `task:ready`, `task:assigned`, `runner:draining` and `runner:stuck`.
        kind: EventKind,
        /// The task that it happened to, if any.
        task: Option<TaskKey>,
        /// The runner concerned, if any.
        runner: Option<RunnerKey>,
    },
    /// Look for a kept answer of a task, if it is still [`State::LookingUp`](crate::State), and tell of it before anything else by
    /// [`Event::AnswerFound`](crate::Event::AnswerFound) or
    /// [`Event::AnswerMissed`](crate::Event::AnswerMissed).
    LookUpAnswer(TaskKey),
    /// Name no further tasks of this shared run: it has ended.
    ForgetSharedRun(SharedRunKey),
    /// Let go of a task: the core holds it no longer, and its key is free.
    Forget(TaskKey),
}
