//! What the core is told, in the past tense, with the facts that the engine looked up.

use crate::state::Final;
use std::sync::Arc;
use taskmaster_protocol::message::Offer;
use taskmaster_protocol::{
    AttemptId, Capabilities, JobName, ModuleName, Requires, Retries, TaskError, Wall, When,
};

/// Names a task that the core holds. The engine chooses a free number, and may use it again after
/// [`crate::Effect::Forget`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey(pub u32);

/// Names a runner's connection as long as the master lives; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunnerKey(pub u64);

/// A dependency, with what the engine knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DependsOn {
    /// The core holds it, open.
    Open(TaskKey, When),
    /// It has ended.
    Ended(Final, When),
}

/// When a delayed task may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// By the monotonic clock, microseconds: `delay_ms`, back-off.
    Mono(u64),
    /// By the wall clock: `not_before`.
    Wall(Wall),
}

/// Why the engine tells of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// A feeder added it.
    #[default]
    Added,
    /// `tasks retry` opens it again; attempts count anew, older ones are void.
    Reopened {
        /// The last attempt of its former life.
        fence: AttemptId,
        /// How that ended; its job counts it so no longer.
        was: Final,
    },
    /// It was open when the last master ended. Nothing is stored again.
    Restored {
        /// Failures counted so far.
        tries: u32,
        /// Lost runners counted so far.
        lost: u32,
        /// The last attempt whose failure is durable; it and older ones are void.
        fence: AttemptId,
    },
}

/// A task as the core needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTask {
    /// Its key; free until now.
    pub key: TaskKey,
    /// Its place in the order of adding, dense and increasing for ever: first come, first served.
    pub no: u64,
    /// Its job; [`Event::JobOpened`] has told of it.
    pub job: JobName,
    /// Its module.
    pub module: ModuleName,
    /// What its runner must offer.
    pub requires: Arc<Requires>,
    /// Higher first.
    pub priority: i32,
    /// What it waits for.
    pub dependencies: Vec<DependsOn>,
    /// When it may start at the earliest.
    pub due: Option<Due>,
    /// Its retry policy; `None`: the default.
    pub retries: Option<Box<Retries>>,
    /// Where it comes from.
    pub origin: Origin,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A task came.
    TaskCame(Box<NewTask>),
    /// Somebody wants an open task cancelled.
    CancelWanted {
        /// The task.
        task: TaskKey,
    },
    /// Somebody wants every open task of a job cancelled that was added before now.
    JobCancelWanted {
        /// The job.
        job: JobName,
        /// The `no` of the newest task concerned.
        up_to: u64,
        /// Whether the wish is durable already (a restart in the middle of it).
        restored: bool,
    },
    /// Somebody changed an open task.
    TaskSet {
        /// The task.
        task: TaskKey,
        /// Its new priority.
        priority: Option<i32>,
        /// Its new earliest start; in the past: at once.
        due: Option<Due>,
    },
    /// A job is needed that the core does not hold, with what is known of its former runs.
    JobOpened {
        /// The job.
        job: JobName,
        /// What is known of it; zeros for a new one.
        past: crate::jobs::Past,
        /// Whether it was open when the last master ended; nothing is stored again.
        restored: bool,
    },
    /// A feeder's session holds an open job.
    JobHeld {
        /// The job.
        job: JobName,
        /// The session.
        by: Arc<str>,
        /// Whether the hold comes from the journal: it has its grace to be renewed.
        restored: bool,
    },
    /// A feeder's input ended.
    JobReleased {
        /// The job.
        job: JobName,
        /// The session.
        by: Arc<str>,
    },
    /// A feeder's link dropped: its holds have their grace.
    HolderLost {
        /// The session.
        by: Arc<str>,
    },
    /// An operator paused or resumed a job.
    JobPaused {
        /// The job.
        job: JobName,
        /// Whether it is paused now.
        paused: bool,
    },
    /// A module can be sent (again), or not: removed, paused.
    ModuleOpened {
        /// The module.
        module: ModuleName,
        /// Whether its tasks can be sent.
        open: bool,
    },
    /// What a module may reach has changed: a runner must offer all of it to be sent its tasks.
    /// Nothing until told.
    ModuleNeeds {
        /// The module.
        module: ModuleName,
        /// What it may reach.
        needs: Arc<Capabilities>,
    },
    /// A runner told what it holds: it is ready for work. Also after a reconnect, under a new key.
    RunnerJoined {
        /// Its connection.
        runner: RunnerKey,
        /// What it offers.
        offer: Box<Offer>,
        /// How many attempts it will hold.
        credits: u32,
        /// Whether it answers every recall, so that one without an answer tells that it is stuck.
        answers: bool,
        /// The attempts it holds of tasks that the core holds.
        held: Vec<(TaskKey, AttemptId)>,
    },
    /// A runner changed what it takes.
    RunnerAsked {
        /// Its connection.
        runner: RunnerKey,
        /// How many attempts it will hold.
        credits: u32,
        /// Whether it takes no more.
        draining: bool,
    },
    /// Something came from a runner.
    RunnerHeard {
        /// Its connection.
        runner: RunnerKey,
    },
    /// A runner's link is cut; it has its grace to come back.
    RunnerCut {
        /// Its connection.
        runner: RunnerKey,
    },
    /// An attempt ended with a result.
    AttemptDone {
        /// By this connection.
        runner: RunnerKey,
        /// The task.
        task: TaskKey,
        /// The attempt.
        attempt: AttemptId,
        /// What it took, microseconds of run time.
        run_us: u64,
    },
    /// An attempt ended, and its task goes on as another: with its own id, job and dependents, and
    /// with the module, the terms and the dependencies of `next`. Attempts are counted anew; those
    /// until now are void.
    AttemptContinued {
        /// By this connection.
        runner: RunnerKey,
        /// The attempt.
        attempt: AttemptId,
        /// What it took, microseconds of run time.
        run_us: u64,
        /// As what it goes on, under the key that it has.
        next: Box<NewTask>,
    },
    /// An attempt ended without one.
    AttemptFailed {
        /// By this connection.
        runner: RunnerKey,
        /// The task.
        task: TaskKey,
        /// The attempt.
        attempt: AttemptId,
        /// Why.
        error: Box<TaskError>,
        /// What it took, microseconds of run time.
        run_us: u64,
        /// A random number, for the back-off's jitter.
        chance: u32,
    },
    /// An attempt was given back, not started.
    AttemptReturned {
        /// By this connection.
        runner: RunnerKey,
        /// The task.
        task: TaskKey,
        /// The attempt.
        attempt: AttemptId,
    },
    /// A runner answered a recall, whatever it gave back.
    RecallAnswered {
        /// Its connection.
        runner: RunnerKey,
    },
    /// The master has just started on a journal; these runners may come back with attempts.
    Started {
        /// Their names.
        roster: Vec<String>,
    },
    /// The master is to stop: nothing more is sent, and what waits on runners is asked back.
    StopWanted,
    /// The inbox is drained: deadlines that have passed fire, long work goes on, free slots are
    /// filled.
    TurnEnded,
}
